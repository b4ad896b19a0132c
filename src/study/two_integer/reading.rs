//! What the model makes of the stream at `=` before its MLP.

use super::plane::towards_one;
use crate::linalg::{Par, affine_into, product, product_into};
use crate::model::{ActFn, Model};
use crate::tensor::{Tensor, add_assign, map2_in_place};
use faer::{MatMut, MatRef};
use rayon::prelude::*;

/// The difference of the two logits as a function of the stream before the MLP, in any coordinates of it.
pub(super) struct MlpReading {
    /// `[d_model, d_mlp]`
    W_in: Tensor<f64>,
    b_in: Vec<f64>,
    act_fn: ActFn,
    /// What each neuron adds to the difference.
    out: Tensor<f64>,
    /// What each coordinate adds past the MLP.
    past: Vec<f64>,
    constant: f64,
}

/// Some inputs on their way into the MLP.
#[derive(Clone)]
pub(super) struct Before {
    /// `[input, d_mlp]`
    neurons: Vec<f64>,
    /// What goes past the MLP, of each.
    past: Vec<f64>,
}

/// What a vector of the stream adds, to whatever it is added to.
pub(super) struct Push {
    neurons: Vec<f64>,
    past: f64,
}

/// So many inputs at a time: their neurons stay in a core's own cache.
pub(super) const STRETCH: usize = 32;

impl MlpReading {
    pub fn of(model: &Model<f64>) -> Self {
        let weights = model.weights();
        let mlp = weights.blocks[0].mlp.as_ref();
        let mlp = mlp.expect("checked: there is an MLP");
        let towards = towards_one(model);
        let b_U = weights.b_U.data();
        let read = |row: &[f64]| -> f64 { row.iter().zip(&towards).map(|(x, t)| x * t).sum() };
        let d_mlp = mlp.b_in.len();
        let out = (0..d_mlp).map(|j| read(mlp.W_out.slice(&[j]))).collect();
        MlpReading {
            W_in: mlp.W_in.clone(),
            b_in: mlp.b_in.data().to_vec(),
            act_fn: model.config().act_fn().expect("checked: there is an MLP"),
            out: Tensor::from_vec(&[d_mlp, 1], out),
            constant: read(mlp.b_out.data()) + b_U[1] - b_U[0],
            past: towards,
        }
    }

    /// The same in the coordinates of a basis, its rows, around an origin.
    pub fn in_basis(&self, basis: MatRef<'_, f64>, origin: &[f64]) -> Self {
        let Push { neurons, past } = self.push(origin);
        let vectors = (0..basis.nrows()).map(|k| {
            let row = basis.row(k).iter();
            row.zip(&self.past).map(|(x, t)| x * t).sum::<f64>()
        });
        let mut b_in = self.b_in.clone();
        add_assign(&mut b_in, &neurons);
        MlpReading {
            W_in: Tensor::from_mat(product(basis, self.W_in.mat(&[])).as_ref()),
            b_in,
            act_fn: self.act_fn,
            out: self.out.clone(),
            past: vectors.collect(),
            constant: self.constant + past,
        }
    }

    /// Of points, a row each.
    pub fn before(&self, points: MatRef<'_, f64>) -> Before {
        let past = |i: usize| {
            let row = points.row(i).iter();
            self.constant + row.zip(&self.past).map(|(x, t)| x * t).sum::<f64>()
        };
        let mut neurons = vec![0.0; points.nrows() * self.b_in.len()];
        let (n, d_mlp) = (points.nrows(), self.b_in.len());
        let out = MatMut::from_row_major_slice_mut(&mut neurons, n, d_mlp);
        affine_into(out, points, self.W_in.mat(&[]), &self.b_in);
        Before {
            neurons,
            past: (0..points.nrows()).map(past).collect(),
        }
    }

    /// Of a vector.
    pub fn push(&self, vector: &[f64]) -> Push {
        let mut neurons = vec![0.0; self.b_in.len()];
        for (k, &x) in vector.iter().enumerate() {
            let read = self.W_in.slice(&[k]);
            map2_in_place(&mut neurons, read, |sum, w| sum + x * w);
        }
        Push {
            neurons,
            past: vector.iter().zip(&self.past).map(|(x, t)| x * t).sum(),
        }
    }

    /// Of the unit vector of a coordinate.
    pub fn push_along(&self, coordinate: usize) -> Push {
        Push {
            neurons: self.W_in.slice(&[coordinate]).to_vec(),
            past: self.past[coordinate],
        }
    }

    /// The differences of the logits.
    pub fn differences(&self, mut before: Before) -> Vec<f64> {
        let (inputs, d_mlp) = (before.past.len(), self.b_in.len());
        self.act_fn.apply(&mut before.neurons, d_mlp);
        let mut through = vec![0.0; inputs];
        let neurons = MatRef::from_row_major_slice(&before.neurons, inputs, d_mlp);
        let out = MatMut::from_row_major_slice_mut(&mut through, inputs, 1);
        product_into(out, 1.0, neurons, self.out.mat(&[]));
        through
            .iter()
            .zip(&before.past)
            .map(|(x, p)| x + p)
            .collect()
    }

    /// The answers.
    pub fn says(&self, before: Before) -> Vec<bool> {
        self.differences(before).iter().map(|&x| x > 0.0).collect()
    }

    /// The answers for all points, a row each.
    pub fn says_of(&self, points: MatRef<'_, f64>, par: Par) -> Vec<bool> {
        let each = |stretch: std::ops::Range<usize>| {
            self.says(self.before(points.subrows(stretch.start, stretch.len())))
        };
        in_stretches(points.nrows(), par, each).concat()
    }
}

impl Before {
    /// Adds a multiple of a push to one of the inputs.
    pub fn add(&mut self, input: usize, by: f64, push: &Push) {
        let neurons = &mut self.neurons[input * push.neurons.len()..][..push.neurons.len()];
        map2_in_place(neurons, &push.neurons, |x, p| x + by * p);
        self.past[input] += by * push.past;
    }

    /// Adds a multiple of a push to all of them.
    pub fn add_to_all(&mut self, by: f64, push: &Push) {
        (0..self.past.len()).for_each(|input| self.add(input, by, push));
    }
}

/// Something for every stretch of so many inputs, in order.
pub(super) fn in_stretches<R: Send>(
    inputs: usize,
    par: Par,
    each: impl Fn(std::ops::Range<usize>) -> R + Sync,
) -> Vec<R> {
    let range = |s: usize| s * STRETCH..((s + 1) * STRETCH).min(inputs);
    let count = inputs.div_ceil(STRETCH);
    match par {
        Par::Rayon => (0..count).into_par_iter().map(|s| each(range(s))).collect(),
        Par::Seq => (0..count).map(|s| each(range(s))).collect(),
    }
}
