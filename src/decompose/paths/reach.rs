//! What reaches the heads' values, and how large it can be there: what the search bounds its branches by.

use super::{Paths, Start, WrittenValue, frobenius, map, norm, row, scale_rows, times};
use crate::linalg::rounding::{gamma, spectral_at_most};
use crate::names::Head;
use crate::tensor::{Scalar, Tensor};
use faer::MatRef;

/// What reaches each head's values.
pub(super) struct Reach<T: Scalar> {
    n_heads: usize,
    /// By layer and head.
    heads: Vec<AtHead<T>>,
}

pub(super) struct AtHead<T: Scalar> {
    /// The starts with a row for every position, as values, `[pos, d_head]`.
    rows: Vec<(Start, Tensor<T>)>,
    /// The starts that are one row times a factor a position: the rows as values, `[start, d_head]`, and the
    /// factors, `[start, pos]`.
    multiples: Option<(Vec<Start>, Tensor<T>, Tensor<T>)>,
    /// `W_O W_V` from each head of an earlier layer, `[head, d_head, d_head]` by layer, and bounds on their norms.
    before: Vec<(Tensor<T>, Vec<T>)>,
    /// The Frobenius norm of `W_O`.
    pub W_O: T,
    /// The Frobenius norm of the terms of the folded `W_V`.
    pub W_V: T,
    /// By position: the norm of the terms of any start's values, at most.
    pub terms: Vec<T>,
    /// By position: the norm of the values that any path has there, at most, whose start another head reads.
    pub longer: Vec<T>,
    /// By position: the same, of any path at all.
    any: Vec<T>,
}

fn raise<T: Scalar>(most: &mut [T], at: usize, x: T) {
    if x > most[at] || x.is_nan() {
        most[at] = x;
    }
}

impl<T: Scalar> Reach<T> {
    /// Of the heads before a layer.
    pub fn new(paths: &Paths<'_, T>, level: usize) -> Self {
        let n_heads = paths.config.n_heads;
        let mut heads: Vec<AtHead<T>> = Vec::new();
        for layer in 0..level {
            let own = map(paths.par, n_heads, |head| {
                AtHead::new(paths, Head { layer, head }, &heads)
            });
            heads.extend(own);
        }
        Reach { n_heads, heads }
    }

    pub fn of(&self, head: Head) -> &AtHead<T> {
        &self.heads[head.layer * self.n_heads + head.head]
    }

    /// `W_O W_V` from a head to a later one, the norm between them folded in, and a bound on its norm.
    pub fn between(&self, head: Head, later: Head) -> (MatRef<'_, T>, T) {
        let (W_OV, norms) = &self.of(later).before[head.layer];
        (W_OV.mat(&[head.head]), norms[head.head])
    }

    /// What the starts that a head reads add, given the cotangent of its values.
    pub fn starts(
        &self,
        paths: &Paths<'_, T>,
        head: Head,
        cotangent: &Tensor<T>,
    ) -> Vec<(Start, T)> {
        let at = self.of(head);
        let mut all = Vec::new();
        for (start, values) in &at.rows {
            // By position first: no term meets more roundings than its features and the positions.
            let at = |p: usize| -> T {
                let products = cotangent.slice(&[p]).iter().zip(values.slice(&[p]));
                products.map(|(&g, &v)| g * v).sum()
            };
            all.push((*start, (0..paths.pos).map(at).sum()));
        }
        if let Some((starts, rows, factors)) = &at.multiples {
            let products = times(rows.mat(&[]), cotangent.mat(&[]).transpose());
            let products = products.data().chunks_exact(paths.pos);
            let factors = factors.data().chunks_exact(paths.pos);
            for ((start, x), by) in starts.iter().zip(products).zip(factors) {
                all.push((*start, x.iter().zip(by).map(|(&x, &by)| x * by).sum()));
            }
        }
        if let Some(b) = &paths.layers[head.layer].b {
            let value = super::sums::sum_along(cotangent, b.slice(&[head.head]));
            all.push((Start::NormBias(head.layer), value));
        }
        all
    }
}

impl<T: Scalar> AtHead<T> {
    /// `earlier` are the heads of all earlier layers.
    fn new(paths: &Paths<'_, T>, head: Head, earlier: &[AtHead<T>]) -> Self {
        let (pos, d) = (paths.pos, paths.d_model());
        let layer = &paths.layers[head.layer];
        let (W_V, W_O) = (layer.W_V(head.head), layer.W_O.mat(&[head.head]));
        let g = gamma::<T>(paths.roundings());
        let sizes = &layer.sizes[head.head];
        let V = sizes.W_V;
        let scale = |p: usize| layer.inverse_scale[p].abs();

        let mut terms = vec![T::ZERO; pos];
        let mut any = vec![T::ZERO; pos];
        let mut rows = Vec::new();
        let (mut starts, mut multiples, mut factors) = (Vec::new(), Vec::new(), Vec::new());
        for written in paths.written_before(head.layer) {
            let terms_at: Vec<T> = (0..pos)
                .map(|p| written.size(p, d) * V * scale(p))
                .collect();
            let mut reaches = |p: usize, size: T| {
                raise(&mut terms, p, terms_at[p]);
                raise(&mut any, p, size + g * terms_at[p]);
            };
            match &written.value {
                WrittenValue::Rows(x) => {
                    let mut values = times(MatRef::from_row_major_slice(x, pos, d), W_V);
                    scale_rows(&mut values, &layer.inverse_scale);
                    (0..pos).for_each(|p| reaches(p, norm(values.slice(&[p]))));
                    rows.push((written.start, values));
                }
                WrittenValue::Multiples { of, by } => {
                    let values = times(row(of), W_V).into_data();
                    let own = norm(&values);
                    starts.push(written.start);
                    multiples.extend(values);
                    for (p, &by) in by.iter().enumerate() {
                        factors.push(by * layer.inverse_scale[p]);
                        reaches(p, own * by.abs() * scale(p));
                    }
                }
            }
        }
        if let Some(b) = &layer.b {
            let (own, size) = (norm(b.slice(&[head.head])), sizes.b);
            for p in 0..pos {
                raise(&mut terms, p, size);
                raise(&mut any, p, own + g * size);
            }
        }

        let mut longer = vec![T::ZERO; pos];
        let mut before = Vec::new();
        let n_heads = layer.n_heads;
        for (l, their_layer) in paths.layers[..head.layer].iter().enumerate() {
            // All heads' W_O, one below the other.
            let W_OV = times(their_layer.W_O.rows(), W_V);
            let d_head = W_V.ncols();
            let W_OV = W_OV.reshape(&[n_heads, d_head, d_head]);
            let mut norms = Vec::new();
            for h in 0..n_heads {
                let theirs = &earlier[l * n_heads + h];
                let most = spectral_at_most(W_OV.mat(&[h])) + g * theirs.W_O * V;
                let mixed = their_layer.mixed(h, &theirs.any);
                for (p, x) in mixed.into_iter().enumerate() {
                    raise(&mut longer, p, scale(p) * most * x);
                }
                norms.push(most);
            }
            before.push((W_OV, norms));
        }
        (0..pos).for_each(|p| raise(&mut any, p, longer[p]));
        let multiples = (!starts.is_empty()).then(|| {
            let rows = Tensor::from_vec(&[starts.len(), W_V.ncols()], multiples);
            let factors = Tensor::from_vec(&[starts.len(), pos], factors);
            (starts, rows, factors)
        });
        AtHead {
            rows,
            multiples,
            before,
            W_O: frobenius(W_O),
            W_V: V,
            terms,
            longer,
            any,
        }
    }
}
