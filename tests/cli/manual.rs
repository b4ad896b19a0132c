//! What the program says of itself: its version, its manual, and what shells need to complete its command lines.

use crate::program::{SUBCOMMANDS, Scratch};
use std::path::Path;
use std::process::Command;

#[test]
fn the_version_is_one_line_or_says_what_is_compiled_in() {
    let s = Scratch::new();
    let first = format!("pathsum {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(s.ok("-V"), first);
    let long = s.ok("--version");
    let rest = long.strip_prefix(&first).expect("the same line first");
    let line = |start: &str| {
        let lines = rest.lines().filter_map(|l| l.strip_prefix(start));
        let [line] = lines.collect::<Vec<_>>()[..] else {
            panic!("{rest}");
        };
        line.split_whitespace().collect::<Vec<_>>()
    };
    let (with, without) = (line("features:"), line("without:"));
    // Which features there are is the manifest's to say.
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest = std::fs::read_to_string(manifest).unwrap();
    let (_, features) = manifest.split_once("\n[features]\n").unwrap();
    let (features, _) = features.split_once("\n[").unwrap();
    let names = features.lines().filter_map(|l| l.split_once(" = ["));
    let names: Vec<&str> = names.map(|(name, _)| name).collect();
    assert!(names.contains(&"cli") && names.contains(&"blas"));
    for name in names.into_iter().filter(|&name| name != "default") {
        let found = [&with, &without].map(|list| list.iter().filter(|&&n| n == name).count());
        assert_eq!(found[0] + found[1], 1, "{name}: {rest}");
    }
    for (name, on) in [
        ("cli", true),
        ("blas", cfg!(feature = "blas")),
        ("torch", cfg!(feature = "torch")),
    ] {
        assert_eq!(with.contains(&name), on, "{name}: {rest}");
    }
    let instructions = line("instructions:").join(" ");
    assert_eq!(instructions, pathsum::tensor::instructions());
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        assert!(instructions.starts_with("AVX"), "{instructions}");
    }
}

#[test]
fn every_shell_gets_every_subcommand() {
    let s = Scratch::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = s.ok(&format!("completions {shell}"));
        for name in SUBCOMMANDS {
            assert!(script.contains(name), "{shell} has no {name}");
        }
        let json = s.json(&format!("completions {shell}"));
        assert_eq!(json["script"], script.as_str());
    }
    s.bad("completions csh", "'csh' …[possible values: bash, …");
}

/// What bash would offer for the last of these words.
fn offered(script: &str, words: &[&str]) -> Vec<String> {
    let line = format!(
        "{script}\nCOMP_WORDS=({})\nCOMP_CWORD={}\n_pathsum pathsum \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.join(" "),
        words.len() - 1
    );
    let output = Command::new("bash").args(["-c", &line]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_string).collect()
}

#[test]
fn bash_completes_subcommands_and_options() {
    if Command::new("bash").arg("--version").output().is_err() {
        eprintln!("skipped: no bash");
        return;
    }
    let script = Scratch::new().ok("completions bash");
    let found = offered(&script, &["pathsum", "comp"]);
    assert!(found.len() == 2 && found.iter().all(|n| SUBCOMMANDS.contains(&n.as_str())));
    let options = offered(&script, &["pathsum", "ablate", "--"]);
    for option in ["--tokens", "--site", "--threads", "--json"] {
        assert!(options.iter().any(|o| o == option), "{option}: {options:?}");
    }
    assert_eq!(offered(&script, &["pathsum", "completions", "z"]), ["zsh"]);
}

#[test]
fn the_manual_has_a_page_for_each_subcommand() {
    let s = Scratch::new();
    let said = s.ok("man share/man1");
    let count = SUBCOMMANDS.len() + 1;
    assert_eq!(said, format!("wrote {count} pages to share/man1\n"));
    let folder = std::fs::read_dir(s.path("share/man1")).unwrap();
    assert_eq!(folder.count(), count, "and nothing else");
    let page = |name: &str| String::from_utf8(s.read(&format!("share/man1/{name}.1"))).unwrap();
    let whole = page("pathsum");
    for name in SUBCOMMANDS {
        // As roff has a hyphen that is one.
        assert!(whole.contains(&format!("pathsum\\-{name}(1)")), "{name}");
        let page = page(&format!("pathsum-{name}"));
        assert!(page.contains(".SH NAME\n") && page.contains(".SH SYNOPSIS\n"));
        assert!(
            page.contains(&format!("pathsum {name}")),
            "{name}: no example"
        );
    }
    // What this processor can do is no matter of a manual.
    assert!(!whole.contains(pathsum::tensor::instructions()));
    // Again, over what is there; the same pages.
    let before = s.contents();
    let json = s.json("man share/man1");
    assert_eq!(json["pages"].as_array().unwrap().len(), count);
    s.assert_unchanged(&before, "a second time");
}

#[test]
fn a_manual_that_cannot_be_written_is_not_begun() {
    let s = Scratch::new();
    s.bad("man data", "data: is a file, expected a folder to write");
    // The last page's place is taken: no other is written either.
    s.write("taken/pathsum-man.1/in_the_way", b"");
    s.write("taken/pathsum.1", b"what was there");
    s.bad(
        "man taken",
        "taken/pathsum-man.1: is a folder, expected a file",
    );
}
