//! Sequences that are typed, and `score`.

use crate::program::{Scratch, integers, small_tokens, texts, tokens_file};
use pathsum::task::{Brackets, SortedLists, Task, TwoIntegers};
use pathsum::{Tensor, Tokens};
use serde_json::Value;

/// What a command prints as JSON; its arguments may have blanks in them.
#[track_caller]
fn json(s: &Scratch, args: &[&str]) -> Value {
    let args = [args, &["--json"]].concat();
    let (status, stdout, stderr) = texts(s.command(&args).output());
    assert_eq!((status, stderr.as_str()), (Some(0), ""), "{args:?}");
    serde_json::from_str(&stdout).unwrap()
}

/// The class with the largest logit and the probability of another one, in one row.
fn marked(row: &[f64], class: usize) -> (usize, f64) {
    let said = (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
    let total: f64 = row.iter().map(|x| (x - row[said]).exp()).sum();
    (said, (row[class] - row[said]).exp() / total)
}

#[test]
fn typed_sequences_run_as_those_of_a_file() {
    let s = Scratch::new();
    let task = Brackets::default();
    let rows = ["(())", "())("].map(|text| task.parse(text).unwrap());
    s.write("typed", &tokens_file(&Tokens::from_rows(&rows)));
    s.ok("run fixture:brackets --tokens typed --out from_file");
    s.ok("run fixture:brackets --sequence (()) --sequence ())( --out from_words");
    assert_eq!(s.read("from_file"), s.read("from_words"));
    s.ok("run fixture:brackets --tokens typed --sequence 1 --out second");
    s.ok("run fixture:brackets --sequence ())( --out last");
    assert_eq!(s.read("second"), s.read("last"));

    // A model of no task takes tokens by their numbers.
    let third: Vec<String> = small_tokens()
        .sequence(3)
        .iter()
        .map(i64::to_string)
        .collect();
    let (third, expression) = (third.join(" "), "pattern[0.0] v[0.0]");
    let typed = json(&s, &["eval", "model", expression, "--sequence", &third]);
    let file = json(
        &s,
        &[
            "eval",
            "model",
            expression,
            "--tokens",
            "data",
            "--sequence",
            "3",
        ],
    );
    assert_eq!(typed["value"], file["value"]);
    assert!(!typed["value"].is_null(), "{typed}");

    // Labels are the task's own.
    let ablate = |args: &[&str]| {
        let labels = [
            "ablate",
            "fixture:brackets",
            "--labels",
            "is_balanced",
            "--at",
            "0",
        ];
        json(&s, &[&labels, args].concat())["values"].clone()
    };
    let labelled = task.label(Tokens::from_rows(&rows)).unwrap();
    labelled.save(&task, s.path("marked")).unwrap();
    let from_file = ablate(&["--tokens", "marked"]);
    assert!(from_file.as_array().is_some_and(|v| !v.is_empty()));
    assert_eq!(
        ablate(&["--sequence", "(())", "--sequence", "())("]),
        from_file
    );
}

#[test]
fn what_cannot_be_typed_is_said() {
    let s = Scratch::new();
    for (args, said) in [
        (
            "run fixture:brackets --out l --sequence (a",
            "--sequence \"(a\": … `a`",
        ),
        (
            "run model --out l --sequence 1,x",
            "`x` is no token's number",
        ),
        ("run model --out l --sequence 9", "--sequence: token 9"),
        (
            "run model --out l --sequence 1,2 --sequence 1",
            "--sequence \"1\": 1 tokens, expected 2",
        ),
        (
            "run model --out l",
            "expected --prompt TEXT, --tokens FILE or --sequence SEQUENCE",
        ),
        (
            "run model --out l --tokens data --sequence 5",
            "sequence 5: the file's sequences are 0..=4",
        ),
        (
            "run model --out l --tokens data --sequence (",
            "with --tokens expected a number",
        ),
        (
            "eval model v[0.0] --sequence 1,2 --sequence 1,3",
            "--sequence 1,3: one sequence is looked at here",
        ),
        (
            "ablate fixture:brackets --sequence () --labels next_one",
            "--labels next_one: of typed sequences expected is_balanced",
        ),
        (
            "score model",
            "the model fits no task, expected --task TASK",
        ),
        ("score model --task brackets", "config field `d_vocab`: 7"),
        (
            "score fixture:brackets --all",
            "--all: the inputs of brackets are too many",
        ),
        (
            "score fixture:brackets --labels data",
            "--labels data: brackets has its own",
        ),
        ("score fixture:brackets --sequence ((( --all", "--all"),
    ] {
        s.bad(args, said);
    }
}

#[test]
fn score_marks_every_answer() {
    let s = Scratch::new();
    // Ten answers a sequence, in the words of the task.
    let (task, list) = (SortedLists::default(), "3 1 4 15 9 26 5 35 8 50");
    let scored = json(&s, &["score", "fixture:sorted_list", "--sequence", list]);
    s.write(
        "list",
        &tokens_file(&Tokens::from_rows(&[task.parse(list).unwrap()])),
    );
    s.ok("run fixture:sorted_list --tokens list --out logits");
    let logits: Tensor<f64> = s.logits("logits");
    let answers = scored["sequences"][0]["answers"].as_array().unwrap();
    assert_eq!(answers.len(), 10);
    let mut sorted = [3, 1, 4, 15, 9, 26, 5, 35, 8, 50];
    sorted.sort_unstable();
    for (i, answer) in answers.iter().enumerate() {
        let (said, p_right) = marked(logits.slice(&[0, 10 + i]), sorted[i]);
        assert_eq!(answer["position"], 10 + i);
        assert_eq!(answer["right"], sorted[i].to_string());
        assert_eq!(answer["said"], said.to_string());
        assert_eq!(answer["is_right"], said == sorted[i]);
        let p = answer["p_right"].as_f64().unwrap();
        assert!((p - p_right).abs() < 1e-12, "{p} {p_right}");
    }
    // The separator may be a bar, and what is sorted may be left out.
    let bar = format!("{list} |");
    let long = format!("{list} | 1 3 4 5 8 9 15 26 35 50");
    for text in [bar.trim_end_matches(" |"), &long] {
        let again = json(&s, &["score", "fixture:sorted_list", "--sequence", text]);
        assert_eq!(again, scored);
    }

    // All inputs, against labels that half of them agree with.
    let n = 113;
    let lower: Vec<i64> = (0..n * n).map(|i| i64::from(i / n < i % n)).collect();
    s.write("labels", &integers("labels", &[n as usize; 2], &lower));
    let line = [
        "score",
        "fixture:two_integer",
        "--all",
        "--labels",
        "labels",
    ];
    let scored = json(&s, &line);
    assert_eq!(scored["answers"], n * n);
    let inputs = TwoIntegers::default().inputs().unwrap();
    s.write("inputs", &tokens_file(&inputs));
    s.ok("run fixture:two_integer --tokens inputs --out logits");
    let logits: Tensor<f64> = s.logits("logits");
    let right = |i: &usize| marked(logits.slice(&[*i, 2]), 0).0 as i64 == lower[*i];
    let right = (0..lower.len()).filter(right).count();
    assert_eq!(scored["right"], right);
    assert!(right > 0 && right < lower.len());
    let text = s.ok("score fixture:two_integer --all --labels labels");
    assert!(text.contains("more sequences with wrong answers"), "{text}");
    let last = format!("{right} of 12769 answers right, loss ");
    assert!(text.lines().last().unwrap().starts_with(&last), "{text}");
    // Without anything, ten of the task's own.
    assert_eq!(s.json("score fixture:palindrome")["answers"], 10);
}
