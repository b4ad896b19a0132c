//! Gated neurons without a gate function: against a naive third-order tensor.

use pathsum::decompose::bilinear_form;
use pathsum::names::NormSite;
use pathsum::{Config, Error, Hook, Model, Par, Run, Tensor, Tokens, Weights, fixture};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

fn model(extra: &str, seed: u64) -> Model<f64> {
    let config = Config::from_json(&format!(
        r#"{{"n_layers": 2, "d_model": 7, "n_ctx": 4, "d_head": 3, "n_heads": 2, "d_vocab": 5, "d_mlp": 11,
            "gated_mlp": true{extra}}}"#
    ))
    .unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let weights = Weights::build(&config, |_, shape| {
        Ok(Tensor::from_fn(shape, |_| rng.random_range(-1.0..1.0)))
    });
    Model::new(config, weights.unwrap()).unwrap()
}

#[test]
fn a_contraction_is_that_of_the_whole_tensor() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for (seed, extra) in (0..8).zip(["", r#", "gate_bias": true"#].into_iter().cycle()) {
        let model = model(&format!(r#", "act_fn": "silu"{extra}"#), seed);
        let (d, layer) = (model.config().d_model, seed as usize % 2);
        let mlp = model.weights().blocks[layer].mlp.as_ref().unwrap();
        let W_gate = mlp.W_gate.as_ref().unwrap();
        let d_mlp = mlp.b_in.len();
        // `[read, read, written]`, entry by entry.
        let tensor = Tensor::<f64>::from_fn(&[d, d, d], |at| {
            (0..d_mlp)
                .map(|j| W_gate[[at[0], j]] * mlp.W_in[[at[1], j]] * mlp.W_out[[j, at[2]]])
                .sum()
        });
        let mut random = || {
            (0..d)
                .map(|_| rng.random_range(-1.0..1.0))
                .collect::<Vec<f64>>()
        };
        let (u, x) = (random(), random());
        let form = bilinear_form(&model, layer, &u, Par::Seq).unwrap();
        // Every product has at most four factors, all below one, and meets this many roundings.
        let terms = (d * d * d * d_mlp) as f64;
        let bound = 4.0 * (d + d_mlp) as f64 * f64::EPSILON * terms;
        for i in 0..d {
            for j in 0..d {
                let one_way: f64 = (0..d).map(|o| tensor[[i, j, o]] * u[o]).sum();
                let other_way: f64 = (0..d).map(|o| tensor[[j, i, o]] * u[o]).sum();
                let off = (form.M[(i, j)] - (one_way + other_way) / 2.0).abs();
                assert!(off <= bound, "{off:e}");
            }
        }
        // Neuron by neuron: the two maps' product, and what is added.
        let linear = |W: &Tensor<f64>, j: usize| (0..d).map(|i| x[i] * W[[i, j]]).sum::<f64>();
        let gate_bias = |j: usize| mlp.b_gate.as_ref().map_or(0.0, |b| b.data()[j]);
        let expected: f64 = (0..d)
            .map(|o| {
                let neurons = (0..d_mlp).map(|j| {
                    let b = mlp.b_in.data()[j];
                    let post = match mlp.b_gate {
                        Some(_) => (linear(W_gate, j) + gate_bias(j)) * (linear(&mlp.W_in, j) + b),
                        None => linear(W_gate, j) * linear(&mlp.W_in, j) + b,
                    };
                    post * mlp.W_out[[j, o]]
                });
                u[o] * (neurons.sum::<f64>() + mlp.b_out.data()[o])
            })
            .sum();
        assert!(
            (form.at(&x) - expected).abs() <= bound,
            "{} {expected}",
            form.at(&x)
        );

        let eigen = form.eigen().unwrap();
        let along: f64 = (0..d)
            .map(|k| {
                let x_v: f64 = (0..d).map(|i| x[i] * eigen.vectors[(i, k)]).sum();
                eigen.values[k] * x_v * x_v
            })
            .sum();
        let squared = form.at(&x)
            - x.iter().zip(&form.linear).map(|(x, b)| x * b).sum::<f64>()
            - form.constant;
        assert!((along - squared).abs() <= 64.0 * bound, "{along} {squared}");
    }
}

/// Where the gates have no function the form is what the model computes, at every position.
#[test]
fn a_model_without_a_gate_function_computes_its_form() {
    for (seed, extra) in (0..6).zip(["", r#", "gate_bias": true"#].into_iter().cycle()) {
        let model = model(&format!(r#", "act_fn": "linear"{extra}"#), seed);
        let tokens = Tokens::from_rows(&[[0, 3, 1, 4], [2, 2, 4, 0]]);
        let out = model.run(&tokens, Run::new().cache("*")).unwrap();
        let d = model.config().d_model;
        for layer in 0..2 {
            let read = &out.cache[Hook::Normalized(NormSite::Ln2(layer))];
            let (stream, scale) = (
                &out.cache[Hook::ResidMid(layer)],
                &out.cache[Hook::Scale(NormSite::Ln2(layer))],
            );
            let written = &out.cache[Hook::MlpOut(layer)];
            let u: Vec<f64> = (0..d).map(|i| (i as f64 + seed as f64).sin()).collect();
            let form = bilinear_form(&model, layer, &u, Par::Seq).unwrap();
            let before = form.before_norm(&model, layer).unwrap();
            for (row, y) in written.data().chunks_exact(d).enumerate() {
                let x = &read.data()[row * d..][..d];
                let along: f64 = u.iter().zip(y).map(|(u, y)| u * y).sum();
                let size = form
                    .at(&x.iter().map(|x| x.abs()).collect::<Vec<_>>())
                    .abs();
                let size =
                    size + along.abs() + x.iter().map(|x| x * x).sum::<f64>() * (d * 11) as f64;
                let bound = 8.0 * (d * d) as f64 * f64::EPSILON * size;
                assert!(
                    (form.at(x) - along).abs() <= bound,
                    "{} {along}",
                    form.at(x)
                );
                // Of the stream before the norm, divided by the run's scale.
                let x = &stream.data()[row * d..][..d];
                let x: Vec<f64> = x.iter().map(|x| x / scale.data()[row]).collect();
                assert!(
                    (before.at(&x) - along).abs() <= bound,
                    "{} {along}",
                    before.at(&x)
                );
            }
        }
    }
}

#[test]
fn what_is_no_product_of_two_maps_is_refused() {
    let gated = model(r#", "act_fn": "silu""#, 0);
    let u = vec![1.0; 7];
    let beyond = bilinear_form(&gated, 2, &u, Par::Seq).unwrap_err();
    assert!(
        matches!(beyond, Error::OutOfRange { what: "layer", .. }),
        "{beyond}"
    );
    let narrow = bilinear_form(&gated, 0, &u[1..], Par::Seq).unwrap_err();
    assert!(
        narrow.to_string().contains("expected 7 (d_model)"),
        "{narrow}"
    );
    let plain = fixture::induction::<f64>();
    let u = vec![1.0; plain.config().d_model];
    let none = bilinear_form(&plain, 0, &u, Par::Seq).unwrap_err();
    assert!(none.to_string().contains("not gated"), "{none}");
}
