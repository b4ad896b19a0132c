//! Means over a batch, each made once for all the changes that want it.

use super::change::{Change, Intervention, Over};
use super::part::{ValueAxis, axes};
use crate::linalg::Par;
use crate::model::{Cache, Model};
use crate::names::Hook;
use crate::tensor::{Scalar, Tensor};
use rayon::prelude::*;

/// The means that some interventions look at.
pub(super) struct Means<T: Scalar> {
    all: Vec<((Hook, Over), Tensor<T>)>,
}

impl<T: Scalar> Means<T> {
    /// Of a run whose cache has the values that [`read`] names.
    pub fn of<'i>(
        model: &Model<T>,
        cache: &Cache<T>,
        interventions: impl Iterator<Item = &'i Intervention>,
        par: Par,
    ) -> Self {
        let mut all: Vec<((Hook, Over), Tensor<T>)> = Vec::new();
        for (hook, over) in interventions.filter_map(|i| Some((i.hook, looks_at(i)?))) {
            if all.iter().any(|(key, _)| *key == (hook, over)) {
                continue;
            }
            let mean = over_sequences(&cache[read(hook)], par);
            let mean = match hook {
                Hook::Result(l) => model.head_results(l, &mean),
                _ => mean,
            };
            all.push(((hook, over), spread(hook, mean, over)));
        }
        Means { all }
    }

    /// One of them, `[1, the value's other axes]`.
    pub fn get(&self, hook: Hook, over: Over) -> &Tensor<T> {
        let found = self.all.iter().find(|(key, _)| *key == (hook, over));
        &found.expect("a mean that an intervention looks at").1
    }
}

/// What the mean that a change looks at is over.
pub(super) fn looks_at(intervention: &Intervention) -> Option<Over> {
    match intervention.change {
        Change::Mean(over) | Change::Interpolate { over, .. } => Some(over),
        _ => None,
    }
}

/// Which value a hook's mean is made from: what heads write on average is what they write of the average.
pub(super) fn read(hook: Hook) -> Hook {
    match hook {
        Hook::Result(l) => Hook::Z(l),
        hook => hook,
    }
}

/// The mean of each place of a sequence, `[1, the value's other axes]`.
pub(super) fn mean<T: Scalar>(hook: Hook, value: &Tensor<T>, over: Over, par: Par) -> Tensor<T> {
    spread(hook, over_sequences(value, par), over)
}

/// How many sequences are summed by one thread: whatever the number of threads, so that no bit depends on it.
const PIECE: usize = 128;

fn over_sequences<T: Scalar>(value: &Tensor<T>, par: Par) -> Tensor<T> {
    let mut shape = value.shape().to_vec();
    let batch = std::mem::replace(&mut shape[0], 1);
    let each = value.len() / batch;
    let sum = |piece: &[T]| {
        let mut sums = vec![T::ZERO; each];
        piece.chunks_exact(each).for_each(|x| add(&mut sums, x));
        sums
    };
    let values = value.data();
    let pieces: Vec<Vec<T>> = match par {
        Par::Seq => values.chunks(PIECE * each).map(sum).collect(),
        Par::Rayon => values.par_chunks(PIECE * each).map(sum).collect(),
    };
    let mut sums = vec![T::ZERO; each];
    pieces.iter().for_each(|piece| add(&mut sums, piece));
    let n = T::from_f64(batch as f64);
    sums.iter_mut().for_each(|sum| *sum /= n);
    Tensor::from_vec(&shape, sums)
}

fn add<T: Scalar>(sums: &mut [T], more: &[T]) {
    sums.iter_mut().zip(more).for_each(|(sum, &x)| *sum += x);
}

/// The means of all sequences at each position, or where it is over positions the mean of those at all of them.
fn spread<T: Scalar>(hook: Hook, mut mean: Tensor<T>, over: Over) -> Tensor<T> {
    if over == Over::Sequences {
        return mean;
    }
    // Of [1, pos, …], or of [1, head, pos, key].
    let at = axes(hook).iter().position(|a| *a == ValueAxis::Position);
    let at = at.expect("every value has positions");
    let pos = mean.shape()[at];
    let inner: usize = mean.shape()[at + 1..].iter().product();
    for block in mean.data_mut().chunks_exact_mut(pos * inner) {
        for i in 0..inner {
            let sum: T = (0..pos).map(|p| block[p * inner + i]).sum();
            let mean = sum / T::from_f64(pos as f64);
            (0..pos).for_each(|p| block[p * inner + i] = mean);
        }
    }
    mean
}
