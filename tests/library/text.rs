//! Text: tokenizers against the ids that others give, and texts that a model goes on with.

use crate::common::reference;
use crate::properties::rounding;
use pathsum::model::{Mask, Sampling, Standing};
use pathsum::strategies::{models_of, toy_configs};
use pathsum::text::{Special, Tokenizer};
use pathsum::{Model, Run, Tokens};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A folder with a packed tokenizer as its `tokenizer.json`.
fn unpacked(packed: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut text = String::new();
    let file = std::fs::File::open(packed).unwrap();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), text).unwrap();
    folder
}

/// The texts of the vectors, and the ids that a tokenizer gives them.
fn vectors(root: &Path, name: &str) -> Vec<(String, Vec<i64>)> {
    let folder = root.join("language/tokenizers/test-vectors");
    let texts = std::fs::read_to_string(folder.join("all.inp")).unwrap();
    let ids = std::fs::read_to_string(folder.join(format!("{name}.out"))).unwrap();
    let ids = ids.lines().map(|line| {
        line.split_whitespace()
            .map(|id| id.parse().unwrap())
            .collect()
    });
    let texts = texts.split("\n__ggml_vocab_test__\n").map(String::from);
    let all: Vec<_> = texts.zip(ids).collect();
    assert_eq!(all.len(), 46);
    all
}

#[test]
fn texts_are_the_tokens_that_others_make_of_them_and_back() {
    let Some(root) = reference::root() else {
        return;
    };
    let tokenizers = root.join("language/tokenizers");
    let neox = unpacked(&tokenizers.join("gpt-neox/20B_tokenizer.json.gz"));
    let llama = unpacked(&tokenizers.join("llama2/tokenizer.json.gz"));
    for (folder, name) in [
        (tokenizers.join("gpt2").as_path(), "gpt-2"),
        (neox.path(), "mpt"),
        (llama.path(), "llama-spm"),
    ] {
        assert_vectors(&root, folder, name);
    }
}

/// The folder of SmolLM2-135M-Instruct, which weighs too much for the others: `PATHSUM_SMOLLM2` names it.
fn smollm2() -> Option<PathBuf> {
    let folder = std::env::var_os("PATHSUM_SMOLLM2");
    if folder.is_none() {
        eprintln!("skipped: PATHSUM_SMOLLM2 is not set");
    }
    folder.map(PathBuf::from)
}

#[test]
fn texts_are_the_tokens_that_smollm2_makes_of_them_and_back() {
    if let (Some(root), Some(folder)) = (reference::root(), smollm2()) {
        assert_vectors(&root, &folder, "smollm");
    }
}

#[test]
fn a_language_model_of_135_million_parameters_answers() {
    let Some(folder) = smollm2() else {
        return;
    };
    let tokenizer = Tokenizer::open(&folder).unwrap();
    let model = Model::<f32>::load(&folder).unwrap();
    for (prompt, answer) in [
        ("The capital of France is", " Paris"),
        (
            "When Mary and John went to the store, John gave a drink to",
            " Mary",
        ),
    ] {
        let tokens = tokenizer.encode(prompt, Special::AsFiles).unwrap();
        let text = model.continuation(&tokens).unwrap();
        let next = Standing::likeliest(text.logits(), 1)[0].token;
        assert_eq!(tokenizer.word(next as i64), answer);
    }
}

/// That a folder's tokenizer makes of the texts the ids that stand beside them, and of the ids the texts.
#[track_caller]
fn assert_vectors(root: &Path, folder: &Path, name: &str) {
    let tokenizer = Tokenizer::open(folder).unwrap();
    for (text, ids) in vectors(root, name) {
        assert_eq!(
            tokenizer.encode(&text, Special::None).unwrap(),
            ids,
            "{name}: {text:?}"
        );
        assert_eq!(tokenizer.decode(&ids), text, "{name}");
    }
}

#[test]
fn a_trained_llama_writes_the_story_that_it_writes_elsewhere() {
    let Some(root) = reference::root() else {
        return;
    };
    let folder = root.join("language/stories260K");
    let tokenizer = Tokenizer::open(&folder).unwrap();
    let model = Model::<f64>::load(&folder).unwrap();
    let expected = std::fs::read_to_string(folder.join("greedy_200.txt")).unwrap();
    let beginning = vec![tokenizer.beginning().unwrap()];
    let mut text = model.continuation(&beginning).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut tokens = beginning;
    for _ in 0..200 {
        let token = Sampling::GREEDY.choose(text.logits(), &mut rng) as i64;
        tokens.push(token);
        text.push(token).unwrap();
    }
    assert_eq!(tokenizer.decode(&tokens).trim(), expected.trim());
}

#[test]
fn words_show_their_blanks_and_special_tokens_are_as_asked() {
    let Some(root) = reference::root() else {
        return;
    };
    let tokenizer = Tokenizer::open(root.join("language/stories260K")).unwrap();
    let ids = tokenizer
        .encode("Once upon a time", Special::AsFiles)
        .unwrap();
    assert_eq!(Some(ids[0]), tokenizer.beginning());
    assert_eq!(
        tokenizer
            .encode("Once upon a time", Special::Beginning)
            .unwrap(),
        ids
    );
    assert_eq!(
        tokenizer.encode("Once upon a time", Special::None).unwrap(),
        ids[1..]
    );
    let words: Vec<String> = ids[1..].iter().map(|&id| tokenizer.word(id)).collect();
    assert_eq!(words.concat(), " Once upon a time");
    // What is asked for by its text: a word with or without its blank, and what has none before it.
    for (text, word) in [
        (" time", " time"),
        ("time", " time"),
        (",", ","),
        (".", "."),
    ] {
        let token = tokenizer.first_token(text).unwrap();
        assert_eq!(tokenizer.word(token), word, "{text:?}");
    }
    let batch = tokenizer
        .batch(&["Once", "Once upon a time"], Special::None)
        .unwrap();
    assert_eq!(batch.pos(), ids.len() - 1);
    assert!(batch.is_attended(0, 0) && !batch.is_attended(0, batch.pos() - 1));
}

/// Kept keys and values give what a run of the whole sequence gives, in every kind of model that goes on.
#[test]
fn going_on_token_by_token_is_a_run_of_all() {
    let mut runner = TestRunner::deterministic();
    let configs = pathsum::strategies::configs();
    let mut tried = 0;
    while tried < 60 {
        let config = configs.new_tree(&mut runner).unwrap().current();
        let ahead = config.mask == Mask::All || config.pad_token.is_some();
        if ahead {
            let model: Model<f64> = models_of(&config).new_tree(&mut runner).unwrap().current();
            assert!(model.continuation(&[0]).is_err());
        }
        if ahead || config.n_ctx < 3 {
            continue;
        }
        tried += 1;
        let model: Model<f64> = models_of(&config).new_tree(&mut runner).unwrap().current();
        let tokens = Tokens::random(&config, 1, tried);
        let ids = tokens.sequence(0);
        let mut text = model.continuation(&ids[..1]).unwrap();
        for end in 2..=ids.len() {
            text.push(ids[end - 1]).unwrap();
            let own = Tokens::new(1, end, ids[..end].to_vec());
            let out = model.run(&own, Run::new()).unwrap();
            let expected = out.logits.slice(&[0, end - 1]);
            let bound = rounding(&model, &own);
            for (a, b) in text.logits().iter().zip(expected) {
                assert!((a - b).abs() <= bound, "{config:?}: {a} and {b}");
            }
        }
        assert!(text.push(0).is_err(), "the context is full");
    }
}

#[test]
fn a_share_of_the_probability_is_drawn_from() {
    let logits = [3.0f64, 1.0, 2.0, -4.0];
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    assert_eq!(Sampling::GREEDY.choose(&logits, &mut rng), 0);
    let sampling = |top_p| Sampling {
        temperature: 1.0,
        top_p,
    };
    // e^3, e^2, e^1 and e^-4: the first alone has 0.665 of it, the first two 0.909.
    let mut count = |top_p: f64| {
        let mut counts = [0; 4];
        (0..2000).for_each(|_| counts[sampling(top_p).choose(&logits, &mut rng)] += 1);
        counts
    };
    assert_eq!(count(0.5), [2000, 0, 0, 0]);
    let two = count(0.9);
    assert!(two[1] == 0 && two[3] == 0, "{two:?}");
    // Of 2,000 draws five standard deviations are 99.
    assert!((two[0] as f64 - 2000.0 * 0.7311).abs() < 99.0, "{two:?}");
    let all = count(1.0);
    assert!((all[0] as f64 - 2000.0 * 0.6648).abs() < 106.0, "{all:?}");
}

#[test]
fn a_text_counts_every_token_once_whatever_the_windows() {
    let mut runner = TestRunner::deterministic();
    let configs = toy_configs().prop_filter("a text and a context", |c| {
        let causal = c.mask == Mask::Causal && c.pad_token.is_none();
        causal && c.n_ctx >= 4 && c.d_vocab_out >= c.d_vocab
    });
    let config = configs.new_tree(&mut runner).unwrap().current();
    let model: Model<f64> = models_of(&config).new_tree(&mut runner).unwrap().current();
    let text: Vec<i64> = (0..23).map(|i| (i * i) % config.d_vocab as i64).collect();
    let (window, stride) = (config.n_ctx, 2);
    let loss = model.loss(&text, (window, stride), &|_| {}).unwrap();
    assert_eq!(loss.each.len(), text.len() - 1);
    for (i, found) in loss.each.iter().enumerate() {
        // The first window that has the token and one before it.
        let p = i + 1;
        let first = (0..).map(|w| w * stride).find(|w| p < w + window).unwrap();
        let own = &text[first..p];
        let logits = model
            .logits(&Tokens::new(1, own.len(), own.to_vec()))
            .unwrap();
        let row = logits.slice(&[0, own.len() - 1]);
        let all: f64 = row.iter().map(|x| x.exp()).sum();
        let expected = all.ln() - row[text[p] as usize];
        // The sum's logarithm moves by no more than the logits do, and one of them is taken off.
        let bound = 2.0 * rounding(&model, &Tokens::new(1, own.len(), own.to_vec()));
        assert!(
            (found - expected).abs() <= bound,
            "token {p}: {found} and {expected}"
        );
    }
    assert!(model.loss(&text[..1], (window, stride), &|_| {}).is_err());
    assert!(model.loss(&text, (window, window), &|_| {}).is_err());
}
