//! The weights that training starts from.

use crate::linalg::Normal;
use crate::model::{Config, Weights};
use crate::tensor::{Scalar, Tensor};

/// Weights as TransformerLens initialises them (`init_mode="gpt2"`): every `W_…` normal with this standard deviation,
/// `0.8 / sqrt(d_model)` by default, LayerNorms' `w` one, biases zero. The stream of random numbers is our own.
pub fn initialise<T: Scalar>(config: &Config, seed: u64, deviation: Option<f64>) -> Weights<T> {
    let deviation = deviation.unwrap_or(0.8 / (config.d_model as f64).sqrt());
    let mut weights = Weights::zeros(config);
    for (i, (name, t)) in weights.tensors_mut().into_iter().enumerate() {
        let last = name.rsplit('.').next().expect("a name has a last part");
        if last.starts_with("W_") {
            // A parameter's own stream, so that another parameter's size does not change it.
            let mut normal = Normal::new(seed, i as u64);
            let mut draw = || T::from_f64(deviation * normal.draw());
            match *t.shape() {
                // Head by head, as TransformerLens has them.
                [_, heads, _] if !last.starts_with("W_O") => (0..heads).for_each(|h| {
                    let rows = t.of_head_mut(h).row_iter_mut();
                    rows.for_each(|row| row.iter_mut().for_each(|x| *x = draw()));
                }),
                _ => t.data_mut().iter_mut().for_each(|x| *x = draw()),
            }
        }
    }
    weights
}

/// What a fresh model's derivatives start from, too.
pub(super) fn all_zero<T: Scalar>(config: &Config) -> Weights<T> {
    let zeros = |_: &str, shape: &[usize]| Ok(Tensor::zeros(shape));
    Weights::build(config, zeros).expect("no error comes from a constant")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_are_normal_and_the_rest_is_trivial() {
        let config = Config::from_json(
            r#"{"n_layers": 1, "d_model": 64, "n_ctx": 30, "d_head": 16, "n_heads": 4, "d_vocab": 50, "act_fn": "relu"}"#,
        )
        .unwrap();
        let weights = initialise::<f64>(&config, 3, None);
        for (name, t) in weights.tensors() {
            let n = t.len() as f64;
            let moment = |k: i32| t.data().iter().map(|x| (x / 0.1).powi(k)).sum::<f64>() / n;
            if name.contains("W_") {
                // Five standard deviations of each moment's estimate.
                let off = 5.0 / n.sqrt();
                assert!(moment(1).abs() < off, "{name}: {}", moment(1));
                assert!(
                    (moment(2) - 1.0).abs() < off * 2f64.sqrt(),
                    "{name}: {}",
                    moment(2)
                );
                assert!(
                    (moment(4) - 3.0).abs() < off * 96f64.sqrt(),
                    "{name}: {}",
                    moment(4)
                );
            } else {
                let expected = if crate::model::norm_of_scale(&name).is_some() {
                    1.0
                } else {
                    0.0
                };
                assert!(t.data().iter().all(|&x| x == expected), "{name}");
            }
        }
        assert_eq!(weights, initialise(&config, 3, Some(0.1)));
        assert_ne!(weights, initialise(&config, 4, None));
        assert_eq!(
            weights.cast::<f32>(&config),
            initialise::<f32>(&config, 3, None)
        );
    }
}
