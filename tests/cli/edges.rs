//! `edges`, `circuit` and the shards of their work.

use crate::program::{Scratch, small_model, tokens_file};
use pathsum::{Tokens, fixture};
use serde_json::Value;

/// Induction: the second time the first token comes, after it what came after it. Three pairs, each corrupted in one token:
/// the one that is found again, the one that looks for it, and the one that is copied.
fn induction(s: &Scratch) -> &'static str {
    let model = fixture::induction::<f64>();
    model.save(s.path("induction")).unwrap();
    let clean = [7, 3, 9, 2, 7];
    let with = |p: usize| {
        let mut row = clean;
        row[p] = 11;
        row
    };
    s.write(
        "clean.safetensors",
        &tokens_file(&Tokens::from_rows(&[clean; 3])),
    );
    let corrupt = Tokens::from_rows(&[with(0), with(4), with(1)]);
    s.write("corrupt.safetensors", &tokens_file(&corrupt));
    "--clean clean.safetensors --corrupt corrupt.safetensors --metric logit_diff:3-9"
}

#[test]
fn shards_merged_are_the_whole_and_a_circuit_is_run_from_it() {
    let s = Scratch::new();
    let task = induction(&s);
    let edges = format!("edges induction {task}");
    let whole = s.json(&format!("{edges} --method exact --out whole.json"));
    for i in 1..=3 {
        s.ok(&format!(
            "{edges} --method exact --shard {i}/3 --out {i}.json"
        ));
    }
    let merged = s.json("merge 2.json 1.json 3.json");
    assert_eq!(merged, whole);
    s.bad("merge 1.json 2.json", "is done in none of these shards");
    // What is done is not done again.
    let again = s.json(&format!("{edges} --method exact --out whole.json --resume"));
    assert_eq!(again, whole);
    let other = format!("{edges} --method exact --shard 1/2 --out whole.json --resume");
    s.bad(&other, "is of another work");

    // The circuit that was built, and nothing else.
    let circuit = format!("circuit induction whole.json {task}");
    s.ok(&format!("{circuit} --top 5 --out circuit.json"));
    let found: Value = serde_json::from_slice(&s.read("circuit.json")).unwrap();
    let all = found["edges"].as_object().unwrap().iter();
    let inside: Vec<&str> = all
        .filter(|(_, edge)| edge["in_graph"] == true)
        .map(|(name, _)| name.as_str())
        .collect();
    let known = [
        "a0.h0->a1.h0<k>",
        "a1.h0->logits",
        "input->a0.h0<v>",
        "input->a1.h0<q>",
        "input->a1.h0<v>",
    ];
    assert_eq!(inside, known);
    let chosen = format!("circuit induction circuit.json {task}");
    let told = s.json(&format!("{chosen} --minimality"));
    let told = &told["circuit"];
    // What other keys have of the attention, and what a score away from the others is, of the metric's 12.
    let small = (-24f64).exp() * 16.0;
    assert!(
        (told["faithfulness"].as_f64().unwrap() - 1.0).abs() < small,
        "{told}"
    );
    assert!(
        told["completeness"].as_f64().unwrap().abs() < small,
        "{told}"
    );
    let needed = told["needed"].as_array().unwrap();
    assert_eq!(needed.len(), 5);
    assert!(
        needed.iter().all(|edge| edge[1].as_f64().unwrap() < -1.0),
        "{told}"
    );
    let pruned = s.json(&format!("{circuit} --top 12 --prune 0.01"));
    assert_eq!(pruned["circuit"]["edges"], 5);
    let curve = s.json(&format!("{circuit} --curve --order smallest"));
    assert_eq!(curve["curve"]["points"][9][2], 1.0);

    let beside = s.json(&format!(
        "{edges} --method eap-ig --steps 8 --beside whole.json"
    ));
    assert_eq!(beside["beside"]["edges"], 12);
    let text = s.ok(&format!("{edges} --method eap --beside whole.json"));
    assert!(text.contains("worst miss"), "{text}");
    let score = |found: &Value, edge: &str| found["edges"][edge]["score"].as_f64().unwrap();
    let sizes = s.json(&format!("{edges} --method atp* --beside whole.json"));
    // Where attention is all on one key.
    for edge in ["a0.h0->a1.h0<k>", "input->a1.h0<q>"] {
        assert!(score(&sizes, edge) > 1.0, "{edge}: {sizes}");
    }
    // Sizes are compared with sizes.
    assert!(sizes["beside"]["worst"]["exact"].as_f64().unwrap() >= 0.0);
    for method in ["relp", "relp-qk"] {
        let found = s.json(&format!("{edges} --method {method} --beside whole.json"));
        assert!(score(&found, "input->a1.h0<v>") < -1.0, "{found}");
        assert_eq!(found["pathsum"]["method"], method);
    }
}

#[test]
fn neurons_are_senders_where_asked() {
    let s = Scratch::new();
    let config = small_model().config().clone();
    s.write("clean", &tokens_file(&Tokens::random(&config, 3, 1)));
    s.write("corrupt", &tokens_file(&Tokens::random(&config, 3, 2)));
    let task = "--clean clean --corrupt corrupt --metric logit_diff:1-0";
    let whole = s.json(&format!("edges model {task}"));
    let found = s.json(&format!("edges model {task} --neurons last --out e.json"));
    let (d_mlp, last) = (config.d_mlp().unwrap(), config.n_layers - 1);
    let all = |found: &Value| found["edges"].as_object().unwrap().len();
    // Past them are the logits alone.
    assert_eq!(all(&found), all(&whole) - 1 + d_mlp);
    assert!(found["edges"][format!("m{last}.n0->logits")]["score"].is_number());
    assert!(found["edges"].get(format!("m{last}->logits")).is_none());
    let circuit = s.json(&format!(
        "circuit model e.json {task} --top {}",
        all(&found)
    ));
    assert_eq!(circuit["circuit"]["edges"], all(&found));
    assert_eq!(circuit["circuit"]["faithfulness"], 1.0);
    s.bad(
        &format!("edges model {task} --neurons {}", last + 1),
        "layer",
    );
}

#[test]
fn what_edges_cannot_do_is_said() {
    let s = Scratch::new();
    let task = induction(&s);
    s.write("no.json", b"{}");
    for (args, said) in [
        (
            format!("edges induction {task} --method eap --shard 1/2"),
            "are for --method exact",
        ),
        (
            format!("edges induction {task} --right 3 --method eap"),
            "--right: 1 words, expected 3",
        ),
        (
            format!("edges induction {task} --method eap-ig --steps 0"),
            "0 steps",
        ),
        (
            format!("edges induction {task} --neurons 0"),
            "neurons of layer 0",
        ),
        (
            format!("edges induction {task} --beside nowhere.json"),
            "nowhere.json",
        ),
        (format!("circuit induction no.json {task}"), "no `cfg`"),
        (
            format!("circuit induction no.json {task} --greedy"),
            "--top",
        ),
    ] {
        s.bad(&args, said);
    }
}
