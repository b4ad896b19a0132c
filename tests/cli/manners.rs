//! What all subcommands have in common.

use crate::program::{
    LONG, PROGRAM, SUBCOMMANDS, Scratch, class_tokens, labelled, small_model, small_story,
    small_tokens, texts, tokens_file,
};
use pathsum::Tokens;
use std::path::Path;
use std::process::Command;

#[test]
fn every_help_has_an_example_that_runs() {
    let s = Scratch::new();
    s.write("dataset.safetensors", &labelled(&class_tokens()));
    s.write("a.safetensors", &tokens_file(&class_tokens()));
    let corrupt = Tokens::random(small_model().config(), 5, 4);
    s.write("b.safetensors", &tokens_file(&corrupt));
    for i in 1..=2 {
        let ablate = "ablate model --tokens data --metric kl";
        s.ok(&format!("{ablate} --shard {i}/2 --out {i}.json"));
        let certify = "certify fixture:sorted_list --space tokens=0-10 --cutoff 1e-1";
        s.ok(&format!("{certify} --shard {i}/2 --out {i}.cert"));
    }
    for name in ["gpt2", "stories260K", "minilm", "edited"] {
        s.language_model(name);
    }
    s.write(
        "essay.txt",
        b"The cat sat on the mat . Once upon a time the cat sat .",
    );
    s.write("sentences.safetensors", &tokens_file(&small_tokens()));
    s.ok("cache gpt2 --prompt cat --names * --out activations.safetensors");
    s.write("results.json", &serde_json::to_vec(&small_story()).unwrap());
    let folder = Path::new(PROGRAM).parent().unwrap().to_path_buf();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = [folder].into_iter().chain(std::env::split_paths(&path));
    let path = std::env::join_paths(path).unwrap();
    for subcommand in [""].into_iter().chain(SUBCOMMANDS) {
        let help = s.ok(&format!("{subcommand} --help"));
        let several = help.split_once("Examples:\n");
        let (_, examples) = several
            .or(help.split_once("Example:\n"))
            .expect("an example");
        assert!(examples.trim().lines().count() > usize::from(several.is_some()));
        // Each on one line, or it cannot be copied.
        for example in examples.trim().lines().map(str::trim) {
            assert!(
                example.starts_with(&format!("pathsum {subcommand}")),
                "{example}"
            );
            let runs = cfg!(feature = "torch") || subcommand != "convert";
            if cfg!(unix) && runs && subcommand != LONG {
                let mut shell = Command::new("sh");
                shell.args(["-c", example]).current_dir(s.0.path());
                let output = shell.env("PATH", &path).output().unwrap();
                assert!(output.status.success(), "{example}: {output:?}");
            }
        }
    }
    // Without arguments there is help, but nothing was done.
    let (status, _, stderr) = texts(s.command(&[]).output());
    assert_eq!(status, Some(2));
    assert!(stderr.contains("Usage: pathsum"), "{stderr}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let s = Scratch::new();
    for args in [
        &["info", "fixture:induction"][..],
        &["info", "model", "--json"],
        &["check", "model"],
        &["--help"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        // Gone before the first byte: what `head` does late, without the race.
        drop(reader);
        let mut command = s.command(args);
        let stderr = std::process::Stdio::piped();
        let child = command.stdout(writer).stderr(stderr).spawn().unwrap();
        let all = texts(child.wait_with_output());
        assert_eq!(all, (Some(0), String::new(), String::new()), "{args:?}");
    }
}
