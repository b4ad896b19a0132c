//! Certificates: what is written is accepted, what is changed is not, and what cannot be done is said.

use crate::program::{Scratch, texts};
use serde_json::json;

#[test]
fn what_is_proved_is_accepted_and_what_is_changed_is_refused() {
    let s = Scratch::new();
    let asked = "certify fixture:max_of_k --space tokens=0-9";
    let proved = s.json(&format!("{asked} --out cert"));
    let all = &proved["certified"]["all"];
    assert_eq!(*all, json!({"right": "10000", "wrong": "0"}));
    let checked = s.json("certify --check cert fixture:max_of_k");
    assert_eq!(checked["accepted"], json!(true));
    assert_eq!(checked["certified"], proved["certified"]);

    // More than is proved; another model; another space of the same size.
    let text = String::from_utf8(s.read("cert")).unwrap();
    let more = text.replace("\"size\":\"10000\"", "\"size\":\"10001\"");
    s.write("more", more.as_bytes());
    let other = text.replace("tokens=0-9", "tokens=10-19");
    s.write("other", other.as_bytes());
    for (line, status) in [
        ("certify --check more fixture:max_of_k", 1),
        ("certify --check cert fixture:sorted_list", 1),
        ("certify --check other fixture:max_of_k", 0),
    ] {
        let args: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(texts(s.command(&args).output()).0, Some(status), "{line}");
    }
    s.bad("certify --check data fixture:max_of_k", "not a certificate");
}

#[test]
fn sets_are_gone_on_with_once_they_are_checked() {
    let s = Scratch::new();
    let asked = "certify fixture:sorted_list --space tokens=0-11 --out cert --cutoff";
    let share = |line: &str| s.json(line)["share"].as_f64().unwrap();
    let coarse = share(&format!("{asked} 1e-1"));
    let finer = share(&format!("{asked} 1e-2 --resume"));
    assert!(coarse <= finer && finer <= 1.0, "{coarse} {finer}");
    let checked = s.json("certify --check cert fixture:sorted_list");
    assert_eq!(checked["accepted"], json!(true));
    // A share of all but one list is not all of them, and is not printed so.
    let text = s.ok("certify --check cert fixture:sorted_list");
    assert!(
        finer == 1.0 || !text.contains("all       100.0000"),
        "{text}"
    );

    let mut bytes = s.read("cert");
    let last = bytes.len() - 1;
    bytes[last] ^= 0x55;
    s.write("cert", &bytes);
    s.bad(&format!("{asked} 1e-3 --resume"), "");
}

#[test]
fn what_would_be_ignored_is_refused() {
    let s = Scratch::new();
    for flag in ["--cutoff 0.1", "--shard 1/2", "--resume --out cert"] {
        let name = flag.split_whitespace().next().unwrap();
        s.bad(
            &format!("certify fixture:brackets --space length=0-4 {flag}"),
            &format!("{name}: these inputs are not divided into sets"),
        );
    }
    // What is walked of a model with neurons is checked by running it once more.
    let asked = "certify fixture:modular_addition --space tokens=0-5";
    let walked = s.json(&format!("{asked} --out cert"));
    assert_eq!(walked["certified"]["size"], json!("36"));
    let checked = s.json("certify --check cert fixture:modular_addition");
    assert_eq!(checked["certified"], walked["certified"]);
    let text = String::from_utf8(s.read("cert")).unwrap();
    let swapped = text.replace(
        r#""all":{"right":"36","wrong":"0"}"#,
        r#""all":{"right":"35","wrong":"1"}"#,
    );
    assert_ne!(swapped, text);
    s.write("swapped", swapped.as_bytes());
    let args = ["certify", "--check", "swapped", "fixture:modular_addition"];
    let (status, stdout, _) = texts(s.command(&args).output());
    assert_eq!(status, Some(1));
    assert!(stdout.contains("is what follows"), "{stdout}");
    // Three layers deep.
    s.ok("certify fixture:brackets --space length=0-4 --out deep");
    s.ok("certify --check deep fixture:brackets");
    s.bad("certify fixture:induction", "fits no task");
    s.bad(
        "certify --check data --cutoff 0.1 fixture:max_of_k",
        "cannot be used with",
    );
    s.bad("certify fixture:max_of_k --weights file", "--weights file");
}

#[test]
fn shards_are_put_together_and_shown_on_a_page() {
    let s = Scratch::new();
    let asked = "certify fixture:sorted_list --space tokens=0-11 --cutoff 1e-2";
    let whole = s.json(&format!("{asked} --out whole --report page.html"));
    for i in 1..=3 {
        s.ok(&format!("{asked} --shard {i}/3 --out part{i}"));
    }
    let merge = "--model fixture:sorted_list --out merged";
    let merged = s.json(&format!("merge part3 part1 part2 {merge}"));
    assert_eq!(merged["certified"], whole["certified"]);
    assert_eq!(merged["counterexamples"], whole["counterexamples"]);
    assert_eq!(s.read("merged"), s.read("whole"));
    let parts = s.json(&format!("merge part1 part2 {merge}"));
    assert!(parts["share"].as_f64() <= whole["share"].as_f64());
    let checked = s.json("certify --check merged fixture:sorted_list");
    assert_eq!(checked["accepted"], json!(true));

    // How it came to that.
    let curve = whole["curve"].as_array().unwrap();
    assert_eq!(curve.last().unwrap()["right"], whole["share"]);
    let cutoffs: Vec<f64> = (curve.iter())
        .map(|point| point["cutoff"].as_f64().unwrap())
        .collect();
    assert!(cutoffs.iter().all(|&c| c == 1e-2), "{cutoffs:?}");

    let page = String::from_utf8(s.read("page.html")).unwrap();
    for id in ["answers", "course", "thin", "open"] {
        assert!(page.contains(&format!("<section id=\"{id}\"")), "{id}");
    }

    s.write("damaged", &{
        let mut bytes = s.read("part1");
        let last = bytes.len() - 1;
        bytes[last] ^= 0x55;
        bytes
    });
    s.ok("certify fixture:max_of_k --space tokens=0-3 --out walked");
    s.ok("certify fixture:sorted_list --space tokens=0-10 --cutoff 1 --out other");
    for (line, said) in [
        ("merge part1 part2 --out m", "expected --model MODEL"),
        (
            "merge part1 other --model fixture:sorted_list",
            "are of different claims",
        ),
        (
            "merge part1 part2 --model fixture:max_of_k",
            "expected 52 for the task sorted_list",
        ),
        (
            "merge walked --model fixture:max_of_k",
            "is of an enumeration",
        ),
        (
            "merge part1 page.html --model fixture:sorted_list",
            "not a certificate",
        ),
        (
            "merge damaged part2 --model fixture:sorted_list --out m",
            "",
        ),
    ] {
        s.bad(line, said);
    }
    assert!(!s.path("m").exists());
}

#[test]
fn a_page_shows_counterexamples_with_their_attention() {
    let s = Scratch::new();
    // By walking, and by looking for them.
    for (asked, shown) in [
        ("fixture:two_integer", "<section id=\"answers\""),
        (
            "fixture:palindrome --space mirrored",
            "counterexamples were looked for",
        ),
    ] {
        let found = s.json(&format!("certify {asked} --report page.html"));
        let page = String::from_utf8(s.read("page.html")).unwrap();
        assert!(page.contains(shown), "{asked}");
        let wrong = !found["counterexamples"].as_array().unwrap().is_empty();
        assert_eq!(page.contains("<section id=\"wrong\""), wrong, "{asked}");
    }
    s.bad(
        "certify --check cert --report page.html fixture:max_of_k",
        "cannot be used with",
    );
}
