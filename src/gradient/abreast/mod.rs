//! The backward pass of sequences abreast: its operations where a value lies in memory with the sequences last,
//! `[pos, …, lane]`. See `model/abreast/`.

mod attention;
mod norm;
mod parameters;

pub(super) use attention::AttentionBack;
pub(super) use norm::LayerNormBack;
pub(super) use parameters::{ParametersBack, SumLanes};

use crate::tensor::Scalar;

/// `table[ids[lane, p]] += d[p, :, lane]`, for as many sequences as there are ids of.
pub(super) fn add_to_table<T: Scalar>(
    d: &[T],
    lanes: usize,
    ids: &[i64],
    pos: usize,
    table: &mut [T],
) {
    let width = d.len() / (lanes * pos);
    for (lane, ids) in ids.chunks_exact(pos).enumerate() {
        for (&id, d) in ids.iter().zip(d.chunks_exact(width * lanes)) {
            let row = &mut table[id as usize * width..][..width];
            let values = d.chunks_exact(lanes).map(|d| d[lane]);
            row.iter_mut().zip(values).for_each(|(to, x)| *to += x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Scalar;
    use crate::gradient::{ParameterGradient, hook_gradients};
    use crate::linalg::Par;
    use crate::metric::{Answers, Standard};
    use crate::model::{Config, Model, Tokens, Weights, abreast};
    use crate::tensor::{Tensor, lanes};

    /// Every kind of model that goes abreast, on batches that do not fill the lanes, beside the same sequences one by
    /// one, which go by rows.
    #[test]
    fn derivatives_are_those_of_single_sequences() {
        fn check<T: Scalar>(json: &str, pads: Option<usize>, read: &[usize]) {
            let mut config = Config::from_json(json).unwrap();
            config.pad_token = pads;
            let wave = |shape: &[usize]| {
                let sum = |at: &[usize]| at.iter().fold(0, |sum, i| 7 * sum + i) as f64;
                Tensor::from_fn(shape, |at| T::from_f64(sum(at).sin()))
            };
            let weights = Weights::build(&config, |_, shape| Ok(wave(shape))).unwrap();
            let model = Model::new(config, weights).unwrap();
            let c = model.config();
            let mut gradient = ParameterGradient::new(c);
            for batch in [lanes::<T>(), lanes::<T>() + 1, 9 * lanes::<T>() - 1] {
                let tokens = Tokens::random(c, batch, 5);
                assert!(abreast::pays::<T>(c, batch, tokens.pos()) || lanes::<T>() < 4);
                let classes: Vec<usize> =
                    (0..batch * read.len()).map(|i| i % c.d_vocab_out).collect();
                let answers = Answers::new(read, classes);
                // A bound for numbers of this size: each layer's sums have a hundred terms at the most, of size 30
                // at the most.
                let bound = |size: f64| 1e4 * T::EPSILON.to_f64() * size.max(1.0);
                let by_hooks = |tokens: &Tokens, answers: &Answers| {
                    hook_gradients(&model, tokens, &Standard::Loss, answers, &["*"], Par::Seq)
                };
                let together = by_hooks(&tokens, &answers).unwrap();
                let mut sums: Vec<Vec<f64>> = Vec::new();
                let mut losses = Vec::new();
                for i in 0..batch {
                    let (one, own) = (tokens.slice(i, 1), answers.slice(i, 1));
                    let loss = gradient.compute(&model, &one, &Standard::Loss, &own, Par::Seq);
                    losses.extend(loss.unwrap());
                    for (hook, alone) in by_hooks(&one, &own).unwrap().gradients.iter() {
                        let bound = bound(alone.max_abs().to_f64());
                        for (a, b) in together.gradients[hook]
                            .slice(&[i])
                            .iter()
                            .zip(alone.data())
                        {
                            let (a, b) = (a.to_f64() * batch as f64, b.to_f64());
                            assert!(
                                (a - b).abs() <= bound,
                                "{json} {pads:?} {read:?} {hook}: {a} {b}"
                            );
                        }
                    }
                    for (at, (_, d)) in gradient.weights().tensors().into_iter().enumerate() {
                        if i == 0 {
                            sums.push(vec![0.0; d.len()]);
                        }
                        let values = sums[at].iter_mut().zip(d.data());
                        values.for_each(|(sum, d)| *sum += d.to_f64() / batch as f64);
                    }
                }
                let found = gradient
                    .compute(&model, &tokens, &Standard::Loss, &answers, Par::Rayon)
                    .unwrap();
                for (a, b) in found.iter().zip(&losses) {
                    assert!((a - b).abs() <= bound(b.abs()), "{json} {batch}: {a} {b}");
                }
                let largest = |d: &[f64]| d.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
                let all = sums.iter().map(|d| largest(d)).fold(0.0, f64::max);
                for ((name, d), sum) in gradient.weights().tensors().into_iter().zip(&sums) {
                    for (a, b) in d.data().iter().zip(sum) {
                        assert!(
                            (a.to_f64() - b).abs() <= bound(all),
                            "{json} {pads:?} {read:?} {batch} {name}: {a} {b}"
                        );
                    }
                }
            }
        }
        let rest = r#""n_ctx": 7, "d_vocab": 9, "d_vocab_out": 5"#;
        let with = |more: &str| format!("{{{rest}, {more}}}");
        let attention =
            r#""n_layers": 2, "d_model": 12, "d_head": 5, "n_heads": 3, "attn_only": true"#;
        let mlp = r#""n_layers": 1, "d_model": 7, "d_head": 14, "n_heads": 1, "d_mlp": 18, "act_fn": "gelu_new""#;
        let bidirectional = r#""attention_dir": "bidirectional""#;
        for (more, pads) in [
            (attention.to_string(), None),
            (attention.to_string(), Some(2)),
            (format!("{attention}, {bidirectional}"), None),
            (format!("{mlp}, {bidirectional}"), Some(2)),
            (format!(r#"{mlp}, "normalization_type": null"#), None),
            (format!(r#"{mlp}, "normalization_type": "LNPre""#), None),
        ] {
            for read in [&[6][..], &[5, 0, 5], &[0, 1, 2, 3, 4, 5, 6]] {
                check::<f32>(&with(&more), pads, read);
                check::<f64>(&with(&more), pads, read);
            }
        }
    }
}
