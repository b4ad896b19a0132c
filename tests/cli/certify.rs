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
    s.bad(
        "certify fixture:brackets --space length=0-4 --cutoff 0.1",
        "--cutoff: these inputs are not divided into sets, but are gone through one by one",
    );
    s.bad(
        "certify fixture:brackets --space length=0-41",
        "length=…: inputs have lengths 0 to 40",
    );
    for flag in ["--cutoff 0.1", "--shard 1/2", "--resume --out cert"] {
        let name = flag.split_whitespace().next().unwrap();
        s.bad(
            &format!("certify fixture:palindrome --space mirrored {flag}"),
            &format!("{name}: these inputs are not divided into sets, but are too many"),
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
            "merge part1 walked --model fixture:sorted_list",
            "are of different models",
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

/// By tables, and one by one: shards, and what was stopped and gone on with, become what one run writes.
#[test]
fn walks_are_put_together_and_gone_on_with() {
    let s = Scratch::new();
    for (model, space) in [
        ("fixture:max_of_k", "tokens=0-8"),
        ("fixture:brackets", "length=0-11"),
    ] {
        let asked = format!("certify {model} --space {space}");
        let whole = s.json(&format!("{asked} --out whole"));
        assert_eq!(whole["method"], json!("enumeration"));
        let end = whole["certified"]["size"].as_str().unwrap().parse::<u64>();
        let all = json!([{"start": 0, "end": end.unwrap()}]);
        assert_eq!(whole["ranges"], all);
        for i in 1..=3 {
            s.ok(&format!("{asked} --shard {i}/3 --out part{i}"));
        }
        let merge = format!("--model {model} --out merged");
        let merged = s.json(&format!("merge part3 part1 part2 {merge}"));
        assert_eq!(merged["certified"], whole["certified"]);
        assert_eq!(s.read("merged"), s.read("whole"), "{model}");
        let two = s.json(&format!("merge part3 part1 {merge}"));
        assert_eq!(two["ranges"].as_array().unwrap().len(), 2);
        let (status, text, _) = texts(s.command(&["certify", "--check", "merged", model]).output());
        assert_eq!(status, Some(0), "{text}");

        // What is missing of two shards; a shard of what another has begun; what was stopped before it began.
        let resume = format!("{asked} --resume --out");
        s.json(&format!("{resume} merged"));
        assert_eq!(s.read("merged"), s.read("whole"), "{model}");
        s.json(&format!("{resume} part2 --shard 1/2"));
        assert_ne!(s.read("part2"), s.read("whole"), "{model}");
        s.json(&format!("{resume} part2"));
        assert_eq!(s.read("part2"), s.read("whole"), "{model}");
        let stopped = s.json(&format!("{asked} --time 0 --out stopped"));
        assert_eq!(stopped["certified"]["all"]["right"], json!("0"));
        s.json(&format!("{resume} stopped"));
        assert_eq!(s.read("stopped"), s.read("whole"), "{model}");

        // An input twice; more than is proved, of a part; and another claim: one line each, and nothing is written.
        let bytes = String::from_utf8(s.read("part3")).unwrap();
        let right = bytes.split(r#""all":{"right":""#).nth(1).unwrap();
        let right = right.split('"').next().unwrap();
        let more = bytes.replace(
            &format!(r#""all":{{"right":"{right}""#),
            &format!(r#""all":{{"right":"1{right}""#),
        );
        assert_ne!(more, bytes);
        s.write("more", more.as_bytes());
        for (line, said) in [
            ("merge part1 whole", "whole: inputs 0 to "),
            (
                "merge part1 part1",
                "are counted already, expected each once",
            ),
            ("merge part1 more", "more does not hold: it says"),
        ] {
            s.bad(&format!("{line} --model {model} --out m"), said);
        }
        let message = "is of another model or claim";
        s.bad(&format!("{asked} --margin 1 --resume --out part1"), message);
        s.write("part1", more.as_bytes());
        s.bad(&format!("{resume} part1"), "is what follows");
        assert!(!s.path("m").exists());
        assert_eq!(s.read("part1"), more.as_bytes());
    }
}

/// A walk that is killed on its way has written what it had finished.
#[test]
fn a_killed_walk_is_gone_on_with() {
    let s = Scratch::new();
    let asked = "certify fixture:brackets --space length=0-13 --out cert --threads 2";
    let args: Vec<&str> = asked.split_whitespace().collect();
    let null = std::process::Stdio::null;
    let mut command = s.command(&args);
    let mut child = command.stdout(null()).stderr(null()).spawn().unwrap();
    while !s.path("cert").exists() {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none() || s.path("cert").exists(), "{ended:?}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = s.json("certify --check cert fixture:brackets");
    assert_eq!(before["accepted"], json!(true));
    assert_ne!(before["certified"]["all"]["right"], json!("0"));
    let all = s.json("certify fixture:brackets --space length=0-13 --out whole");
    let again = s.json(&format!("{asked} --resume"));
    assert_eq!(again["certified"], all["certified"]);
    assert_eq!(s.read("cert"), s.read("whole"));
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
