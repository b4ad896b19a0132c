//! Statements about models with rotations, shared keys, norms of queries and keys, and gated neurons: normal forms, the
//! finite field, and numbers.

use crate::common::{for_all, full_run, reference};
use pathsum::expr::{Dims, Expr, Statement, Symbol, definition};
use pathsum::model::NormWeight;
use pathsum::strategies::models_and_tokens;
use pathsum::verify::{Proof, compare_on, prove, prove_on};
use pathsum::{
    Config, Error, Head, Model, Precision, RunOutput, Scalar, Tensor, TensorFile, Tokens, Weights,
};
use proptest::prelude::*;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// A LLaMA's parts: two heads a key, rotations of a share of the head, gated neurons, RMSNorm.
fn model(extra: &str) -> Model<f64> {
    let config = Config::from_json(&format!(
        r#"{{"n_layers": 2, "d_model": 12, "n_ctx": 16, "d_head": 6, "n_heads": 4, "n_key_value_heads": 2,
            "d_vocab": 11, "d_mlp": 9, "act_fn": "silu", "gated_mlp": true, "normalization_type": "RMS",
            "positional_embedding_type": "rotary", "rotary_dim": 4{extra}}}"#
    ))
    .unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let weights = Weights::build(&config, |_, shape| {
        Ok(Tensor::from_fn(shape, |_| rng.random_range(-1.0..1.0)))
    });
    Model::new(config, weights.unwrap()).unwrap()
}

/// That normal forms or the field, and numbers in both precisions, say the same of a statement, and that it is right.
fn decided(model: &Model<f64>, tokens: &Tokens, text: &str, truth: bool) {
    fn by_numbers<T: Scalar>(model: &Model<T>, out: &RunOutput<T>, text: &str, truth: bool) {
        let dims = Dims {
            pos: out.tokens.pos(),
            ..model.config().dims()
        };
        let statement = Statement::parse(text, &dims).unwrap_or_else(|e| panic!("{e}"));
        let numbers = compare_on(&statement, model, Some(out), 0).unwrap().proof;
        assert_eq!(numbers.refuted(), !truth, "{text}: {numbers:?}");
        let all = prove_on(&statement, model, Some(out), 0).unwrap().proof;
        assert_eq!(all.refuted(), !truth, "{text}: {all:?}");
    }
    let dims = model.config().dims();
    let statement = Statement::parse(text, &dims).unwrap_or_else(|e| panic!("{e}"));
    let proof = prove(&statement, &dims, 0).unwrap().proof;
    let proved = matches!(proof, Proof::Proved { .. } | Proof::ProvedInField { .. });
    assert_eq!(
        (proved, proof.refuted()),
        (truth, !truth),
        "{text}: {proof:?}"
    );
    by_numbers(model, &full_run(model, tokens), text, truth);
    let narrow = model.cast::<f32>();
    by_numbers(&narrow, &full_run(&narrow, tokens), text, truth);
}

/// Each of the second is one of the first with a small change.
#[test]
fn twenty_statements_are_decided_rightly() {
    let tokens = Tokens::from_rows(&[[3, 1, 4, 1, 5, 9, 2, 6]]);
    let model = model("");
    for text in [
        "rot_q[1.3][7] rot_k[1.3][3]^T == q[1.3][7] R[4] k[1.2][3]^T",
        "(W_Q[0.1] R[5] W_K[0.1]^T)^T == W_K[0.0] R[-5] W_Q[0.1]^T",
        "W_QK[0.1] == W_Q[0.1] R[3] R[-3] W_K[0.0]^T",
        "v[0.1] W_O[0.1] == normalized[0,ln1] W_OV[0.1] + ones b_V[0.0] W_O[0.1]",
        "mlp_out[0] == post[0] W_out[0] + ones b_out[0]",
        "pre_linear[0] == normalized[0,ln2] W_in[0]",
        "pre[0] == scale[0,ln2]^-1 resid_mid[0] w[0,ln2] W_gate[0]",
        "result[1.1] == pattern[1.1] v[1.0] W_O[1.1]",
        "resid_post[0] == resid_pre[0] + attn_out[0] + mlp_out[0]",
        "rot_k[0.3][5] rot_k[0.3][5]^T == k[0.2][5] k[0.3][5]^T",
    ] {
        decided(&model, &tokens, text, true);
    }
    for text in [
        "rot_q[1.3][7] rot_k[1.3][3]^T == q[1.3][7] R[3] k[1.2][3]^T",
        "(W_Q[0.1] R[5] W_K[0.1]^T)^T == W_K[0.0] R[5] W_Q[0.1]^T",
        "W_QK[0.1] == W_Q[0.1] R[3] R[-2] W_K[0.0]^T",
        "v[0.1] W_O[0.1] == normalized[0,ln1] W_OV[0.1] + ones b_V[0.0] W_O[0.0]",
        "mlp_out[0] == post[0] W_out[0]",
        "pre_linear[0] == normalized[0,ln2] W_gate[0]",
        "pre[0] == scale[0,ln2]^-1 resid_mid[0] W_gate[0]",
        "result[1.1] == pattern[1.0] v[1.0] W_O[1.1]",
        "resid_post[0] == resid_pre[0] + attn_out[0] + 1.001 mlp_out[0]",
        "rot_k[0.3][5] rot_k[0.3][5]^T == k[0.2][4] k[0.3][5]^T",
    ] {
        decided(&model, &tokens, text, false);
    }
}

/// A norm of queries and keys enters as a value of the run, the diagonal of its scales.
#[test]
fn norms_of_queries_and_keys_are_in_statements() {
    let tokens = Tokens::from_rows(&[[3, 1, 4, 1, 5, 9, 2, 6]]);
    let model = model(r#", "use_qk_norm": true"#);
    for text in [
        "normalized_q[0.1] == scale_q[0.1]^-1 q[0.1] w_q[0.1]",
        "normalized_k[1.3] == scale_k[1.2]^-1 k[1.2] w_k[1.2]",
        "rot_q[0.1][6] == (scale_q[0.1]^-1 q[0.1] w_q[0.1])[6] R[6]",
        "rot_q[1.3][7] rot_k[1.3][3]^T == (scale_q[1.3]^-1 normalized[1,ln1] W_Q[1.3] w_q[1.3] + scale_q[1.3]^-1 ones b_Q[1.3] w_q[1.3])[7] R[4] (scale_k[1.3]^-1 k[1.3] w_k[1.3])[3]^T",
        "scale_q[0.0] scale_q[0.0]^-1 == I",
    ] {
        decided(&model, &tokens, text, true);
    }
    for text in [
        "normalized_q[0.1] == scale_q[0.1]^-1 q[0.1]",
        "normalized_k[1.3] == scale_k[1.0]^-1 k[1.2] w_k[1.2]",
        "rot_q[0.1][6] == q[0.1][6] R[6]",
        "normalized_q[0.1] == scale_q[0.0]^-1 q[0.1] w_q[0.1]",
    ] {
        decided(&model, &tokens, text, false);
    }
    let dims = model.config().dims();
    let none = Dims {
        qk_norm: None,
        ..dims
    };
    let error = Statement::parse("scale_q[0.0] == I", &none)
        .unwrap_err()
        .to_string();
    assert!(error.contains("no norms of queries and keys"), "{error}");
}

/// What every value of a run is made of, and twice that: normal forms, field and numbers never disagree.
#[test]
fn normal_forms_and_the_field_never_disagree_with_numbers() {
    let special = |c: &Config| c.rotary() || c.groups < c.n_heads || c.gated();
    let cases = models_and_tokens::<f64>().prop_filter("none of these parts", move |(model, _)| {
        special(model.config()) && model.config().n_layers > 0
    });
    for_all(60, cases, |(model, tokens)| {
        let out = full_run(&model, &tokens);
        let dims = Dims {
            pos: tokens.pos(),
            ..model.config().dims()
        };
        let head = Head {
            layer: dims.n_layers - 1,
            head: dims.n_heads - 1,
        };
        let l = head.layer;
        let symbols = [
            Symbol::Q(head.into()),
            Symbol::K(head),
            Symbol::V(head),
            Symbol::NormalizedQ(head.into()),
            Symbol::NormalizedK(head),
            Symbol::RotQ(head.into()),
            Symbol::RotK(head),
            Symbol::Z(head.into()),
            Symbol::Result(head),
            Symbol::Pre(l),
            Symbol::PreLinear(l),
            Symbol::MlpOut(l),
            Symbol::ResidPost(l),
        ];
        for symbol in symbols {
            let Some(defined) = definition(&symbol, &dims) else {
                continue;
            };
            let symbol = Expr::from(symbol.grouped(&dims));
            let twice = &defined + &defined;
            for (right, truth) in [(defined, true), (twice, false)] {
                let text = format!("{symbol} == {right}");
                let statement = Statement::equal(symbol.clone(), right);
                let proof = prove(&statement, &dims, 0).unwrap().proof;
                let numbers = compare_on(&statement, &model, Some(&out), 0).unwrap().proof;
                prop_assert_eq!(!proof.refuted(), truth, "{}: {:?}", text, proof);
                // Of a value that is zero, as a neuron that no token wakes, so is twice that.
                prop_assert!(!numbers.refuted() || !truth, "{}: {:?}", text, numbers);
            }
        }
        Ok(())
    });
}

/// Every head's scores, from the weights, the rotations, and the scales of a run: on families that turn, cap, norm, share
/// and slope theirs.
#[test]
fn scores_of_the_reference_families_are_rebuilt_from_weights() {
    let Some(root) = reference::root() else {
        return;
    };
    let (mut heads, language) = (0, root.join("language"));
    let families = ["llama3", "gemma2", "qwen3", "pythia", "bloom"];
    let folders = families.map(|name| language.join("families").join(name));
    for folder in folders.into_iter().chain([language.join("stories260K")]) {
        let file = TensorFile::open(folder.join("activations.safetensors")).unwrap();
        let tokens = match file.names().any(|name| name == "tokens") {
            true => Tokens::from_file(&file).unwrap().slice(0, 1),
            false => {
                let (shape, ids) = file.integer("0.tokens").unwrap();
                Tokens::new(shape[0], shape[1], ids)
            }
        };
        fn holds<T: Scalar>(folder: &std::path::Path, tokens: &Tokens) -> usize {
            let model = Model::<T>::load(folder).unwrap();
            let out = full_run(&model, tokens);
            let dims = Dims {
                pos: tokens.pos(),
                ..model.config().dims()
            };
            for h in dims.heads() {
                let l = h.layer;
                let weighed = dims.qk_norm.is_some_and(|n| n.weight != NormWeight::Absent);
                let read = |side: &str| {
                    let upper = side.to_uppercase();
                    let read = format!("normalized[{l},ln1] W_{upper}[{h}] + ones b_{upper}[{h}]");
                    match (dims.qk_norm.is_some(), weighed) {
                        (true, true) => format!("(scale_{side}[{h}]^-1 ({read}) w_{side}[{h}])"),
                        (true, false) => format!("(scale_{side}[{h}]^-1 ({read}))"),
                        (false, _) => format!("({read})"),
                    }
                };
                let (q, k) = (read("q"), read("k"));
                let statements = match dims.rotary.is_some() {
                    true => [(9, 4), (9, 9), (3, 0)]
                        .map(|(i, j)| {
                            format!(
                                "rot_q[{h}][{i}] rot_k[{h}][{j}]^T == {q}[{i}] R[{}] {k}[{j}]^T",
                                i - j
                            )
                        })
                        .to_vec(),
                    false => vec![format!("q[{h}] k[{h}]^T == {q} {k}^T")],
                };
                for text in statements {
                    let statement =
                        Statement::parse(&text, &dims).unwrap_or_else(|e| panic!("{e}"));
                    let name = folder.display();
                    match compare_on(&statement, &model, Some(&out), 0) {
                        Ok(proven) => {
                            let numbers = proven.proof;
                            let holds = matches!(numbers, Proof::Holds(_));
                            assert!(holds, "{name}: {text}: {numbers:?}");
                        }
                        // In f32 the bound on a single score may be more than the score.
                        Err(Error::Undecided(_)) if T::PRECISION == Precision::F32 => {}
                        Err(e) => panic!("{name}: {text}: {e}"),
                    }
                    let proof = prove(&statement, &dims, 0).unwrap().proof;
                    assert!(!proof.refuted(), "{name}: {text}: {proof:?}");
                }
            }
            dims.heads().count()
        }
        heads += holds::<f64>(&folder, &tokens);
        holds::<f32>(&folder, &tokens);
    }
    println!("{heads} heads");
}
