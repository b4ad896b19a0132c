//! Values over pairs of residues, as sums of products of cosines and sines.

use super::{Fourier, share};
use crate::linalg::Par;
use crate::tensor::Tensor;

/// Numbers over all pairs `(a, b)` of residues, for each of some channels (neurons, logits), by the products of the
/// basis's rows of `a` and of `b`: `F X Fᵀ`, channel by channel.
#[derive(Clone, Debug)]
pub struct Pairs {
    fourier: Fourier,
    /// `[n, n, channel]`: row of `a`, row of `b`.
    transform: Tensor<f64>,
}

/// Which products of a row of `a` and a row of `b` are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terms {
    /// Of a frequency all that are made of its rows and the constant: linear in `a`, in `b`, and products. Without
    /// constant times constant.
    Block(usize),
    /// Of a frequency the products of its rows alone.
    Products(usize),
    /// Of a frequency those of `a` alone.
    OfA(usize),
    /// Of a frequency those of `b` alone.
    OfB(usize),
}

impl Pairs {
    /// Of values `[n², channel]`, pair by pair with `b` running fastest.
    ///
    /// # Panics
    /// When there are not as many rows as pairs.
    ///
    /// # Cost
    /// `2 n` multiplications a value.
    #[track_caller]
    pub fn of(fourier: &Fourier, values: &Tensor<f64>, par: Par) -> Self {
        let n = fourier.n();
        assert_eq!(values.shape()[0], n * n, "a row for every pair");
        let channels = values.len() / (n * n);
        let values = values.clone().reshape(&[n, n, channels]);
        let of_b = fourier.along(&values, 1, par);
        Pairs {
            transform: fourier.along(&of_b, 0, par),
            fourier: fourier.clone(),
        }
    }

    /// The transform, `[n, n, channel]`.
    pub fn transform(&self) -> &Tensor<f64> {
        &self.transform
    }

    /// How many channels there are.
    pub fn channels(&self) -> usize {
        self.transform.shape()[2]
    }

    /// The places of some terms in the transform.
    pub fn places(&self, terms: Terms) -> Vec<[usize; 2]> {
        let rows = |k| self.fourier.rows(k);
        let each = |k: usize, l: usize| rows(k).flat_map(move |i| rows(l).map(move |j| [i, j]));
        match terms {
            Terms::Products(k) => each(k, k).collect(),
            Terms::OfA(k) => each(k, 0).collect(),
            Terms::OfB(k) => each(0, k).collect(),
            Terms::Block(k) => each(k, 0).chain(each(0, k)).chain(each(k, k)).collect(),
        }
    }

    /// The squared norm of some places, channel by channel.
    pub fn squares(&self, places: &[[usize; 2]]) -> Vec<f64> {
        let mut sums = vec![0.0; self.channels()];
        for place in places {
            let row = self.transform.slice(place);
            sums.iter_mut().zip(row).for_each(|(s, x)| *s += x * x);
        }
        sums
    }

    /// The squared norm around the mean over all pairs, channel by channel.
    pub fn variation(&self) -> Vec<f64> {
        let n = self.fourier.n();
        let mut sums = vec![0.0; self.channels()];
        for i in (1..n * n).map(|i| [i / n, i % n]) {
            let row = self.transform.slice(&i);
            sums.iter_mut().zip(row).for_each(|(s, x)| *s += x * x);
        }
        sums
    }

    /// The squared norm along `cos(w(a + b))` and `sin(w(a + b))` of a frequency, channel by channel: of the four products
    /// what is a function of the sum.
    pub fn squares_of_sum(&self, frequency: usize) -> Vec<f64> {
        let rows = self.fourier.rows(frequency);
        let at = |i: usize, j: usize| self.transform.slice(&[i, j]);
        let (c, s) = (rows.start, rows.end - 1);
        if frequency == 0 || c == s {
            // cos(πa) cos(πb) = cos(π(a + b)).
            return at(c, c).iter().map(|x| x * x).collect();
        }
        let of = |channel: usize| {
            let cosine = at(c, c)[channel] - at(s, s)[channel];
            let sine = at(c, s)[channel] + at(s, c)[channel];
            (cosine * cosine + sine * sine) / 2.0
        };
        (0..self.channels()).map(of).collect()
    }

    /// The share of each channel's squared norm around its mean that some terms explain; zero of a channel that is
    /// constant.
    pub fn shares(&self, terms: &[Terms]) -> Vec<f64> {
        let mut places: Vec<[usize; 2]> = terms.iter().flat_map(|&t| self.places(t)).collect();
        places.sort_unstable();
        places.dedup();
        let explained = self.squares(&places);
        let all = self.variation();
        explained
            .iter()
            .zip(all)
            .map(|(&e, all)| share(e, all))
            .collect()
    }

    /// What places of the transform, chosen for each channel, make of the values: `[n², channel]`. The fit by those terms,
    /// since the basis is orthonormal.
    pub fn fit(&self, keep: impl Fn([usize; 2], usize) -> bool, par: Par) -> Tensor<f64> {
        let n = self.fourier.n();
        let mut kept = self.transform.clone();
        for i in 0..n * n {
            let place = [i / n, i % n];
            for (channel, x) in kept.slice_mut(&place).iter_mut().enumerate() {
                if !keep(place, channel) {
                    *x = 0.0;
                }
            }
        }
        let of_a = self.fourier.back(&kept, 0, par);
        let values = self.fourier.back(&of_a, 1, par);
        values.reshape(&[n * n, self.channels()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    /// Values of known terms are explained by these, and by no others.
    #[test]
    fn terms_explain_what_they_are() {
        for n in [7, 8] {
            let fourier = Fourier::new(n);
            let angle = |k: usize, x: usize| TAU * (k * x % n) as f64 / n as f64;
            let values = Tensor::from_fn(&[n * n, 4], |at| {
                let (a, b) = (at[0] / n, at[0] % n);
                match at[1] {
                    0 => 3.0 + angle(2, a + b).cos(),
                    1 => angle(2, a).sin() + angle(2, a).cos() * angle(2, b).cos(),
                    2 => (angle(1, b) + 1.0).cos() - 2.0,
                    _ => 5.0,
                }
            });
            let pairs = Pairs::of(&fourier, &values, Par::Seq);
            let near = |found: Vec<f64>, expected: [f64; 4]| {
                for (f, e) in found.iter().zip(expected) {
                    assert!((f - e).abs() < 1e3 * f64::EPSILON, "{found:?} {expected:?}");
                }
            };
            near(
                pairs.shares(&[Terms::Block(2)])[..3].to_vec(),
                [1.0, 1.0, 0.0, 0.0],
            );
            near(
                pairs.shares(&[Terms::OfA(2)])[..3].to_vec(),
                [0.0, 2.0 / 3.0, 0.0, 0.0],
            );
            near(
                pairs.shares(&[Terms::OfB(1), Terms::Block(1)])[..3].to_vec(),
                [0.0, 0.0, 1.0, 0.0],
            );
            let sums = pairs.squares_of_sum(2);
            let half = (n * n) as f64 / 2.0;
            // cos a cos b is half cos(a + b).
            near(
                sums.iter().map(|s| s / half).collect(),
                [1.0, 0.25, 0.0, 0.0],
            );
            // All terms give the values again.
            let fit = pairs.fit(|_, _| true, Par::Seq);
            let off = fit
                .data()
                .iter()
                .zip(values.data())
                .map(|(a, b)| (a - b).abs());
            assert!(off.fold(0.0, f64::max) < 1e3 * f64::EPSILON);
        }
    }
}
