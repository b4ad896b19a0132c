//! The model with parts of it left out, or replaced by what they are said to be.

use super::attention::mid_with;
use super::losses::{losses, means, told_of};
use super::pass::{Pass, centred_rows, squares};
use super::{AttentionFrequencies, NeuronFrequencies, OWN, Split};
use crate::error::Result;
use crate::frequency::{Pairs, Terms, share};
use crate::linalg::{Par, product_with};
use crate::model::{Model, Run};
use crate::study::upper::Upper;
use crate::tensor::Tensor;
use serde::Serialize;

/// Mean losses over all pairs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Replaced {
    /// With every head's attention at its mean over all pairs.
    pub mean_attention: f64,
    /// The accuracy then.
    pub mean_attention_accuracy: f64,
    /// With half of every head's attention at `a` and half at `b`.
    pub half_attention: f64,
    /// Without what goes past the MLP.
    pub no_skip: f64,
    /// The norm of what goes past the MLP in the logits, each pair's mean removed, over that of all.
    pub skip_norm: f64,
    /// With `W_out W_U` at the key frequencies alone.
    pub keys_alone: f64,
    /// The same without what goes past the MLP, and without biases.
    pub keys_alone_no_skip: f64,
    /// With every neuron that is explained well replaced by its mean and its frequency's terms.
    pub fitted_neurons: f64,
}

/// What has been found of a model before.
pub(super) struct Found<'a> {
    pub pass: &'a Pass,
    pub pairs: &'a Pairs,
    pub neurons: &'a NeuronFrequencies,
    pub attention: &'a AttentionFrequencies,
    pub split: &'a Split,
    pub keys: &'a [usize],
}

impl Replaced {
    pub(super) fn of(model: &Model<f64>, found: Found<'_>, par: Par) -> Result<Self> {
        let Found {
            pass,
            pairs,
            neurons,
            attention,
            split,
            keys,
        } = found;
        let p = pass.p;
        let loss = |fill: &(dyn Fn(usize, &mut [f64]) + Sync)| losses(p, split, fill, par).all;
        let all: Vec<usize> = (0..p * p).collect();
        let fixed = |weights: &[[f64; 3]]| -> Result<(f64, f64)> {
            let upper = Upper::new(model, &mid_with(model, pass, weights)?)?;
            let logits = upper.model.run(&upper.all(), Run::new().par(par))?.logits;
            let fill = |i: usize, row: &mut [f64]| row.copy_from_slice(logits.slice(&[i, 0]));
            let told = told_of(p, &all, &fill, par);
            let right = means(&told, split, |t| f64::from(u8::from(t.right)));
            Ok((means(&told, split, |t| t.loss).all, right.all))
        };
        let (mean_attention, mean_attention_accuracy) = fixed(&attention.mean)?;
        let (half_attention, _) = fixed(&vec![[0.5, 0.5, 0.0]; attention.mean.len()])?;

        let past = product_with(pass.mid.mat(&[]), model.weights().W_U.mat(&[]), par);
        let past = centred_rows(&Tensor::from_mat(past.as_ref()));
        // W_out W_U at the key frequencies of its answers.
        let of_keys = |values: &Tensor<f64>| {
            let mut kept = pass.fourier.along(values, 1, par);
            for row in kept.data_mut().chunks_exact_mut(p) {
                for (i, x) in row.iter_mut().enumerate() {
                    if !keys.contains(&pass.fourier.frequency(i)) {
                        *x = 0.0;
                    }
                }
            }
            pass.fourier.back(&kept, 1, par)
        };
        let at_keys = of_keys(&pass.by_neurons);
        let owned = |neuron: usize| neurons.explained[neuron] > OWN;
        let places: Vec<Vec<[usize; 2]>> = (0..=pass.fourier.largest())
            .map(|k| match k {
                0 => Vec::new(),
                k => pairs.places(Terms::Block(k)),
            })
            .collect();
        let fit = pairs.fit(
            |place, neuron| {
                let k = neurons.frequency[neuron];
                !owned(neuron) || place == [0, 0] || places[k].contains(&place)
            },
            par,
        );
        let fitted = product_with(fit.mat(&[]), pass.W_L.mat(&[]), par);
        Ok(Replaced {
            mean_attention,
            mean_attention_accuracy,
            half_attention,
            no_skip: loss(&|i, row| {
                let both = pass.by_neurons.slice(&[i]).iter().zip(&pass.biases);
                both.zip(row).for_each(|((x, b), to)| *to = x + b);
            }),
            skip_norm: share(squares(past.data()), squares(pass.centred().data())).sqrt(),
            keys_alone: loss(&|i, row| {
                let parts = pass.by_neurons.slice(&[i]).iter().zip(at_keys.slice(&[i]));
                let all = pass.logits.slice(&[i]).iter().zip(parts);
                all.zip(row)
                    .for_each(|((l, (own, kept)), to)| *to = l - own + kept);
            }),
            keys_alone_no_skip: loss(&|i, row| row.copy_from_slice(at_keys.slice(&[i]))),
            fitted_neurons: loss(&|i, row| {
                let own = pass.by_neurons.slice(&[i]).iter();
                let all = pass.logits.slice(&[i]).iter().zip(own).enumerate();
                all.zip(row)
                    .for_each(|((c, (l, own)), to)| *to = l - own + fitted[(i, c)]);
            }),
        })
    }
}
