//! Norms: `(x - mean) / scale · w + b`, with `scale = sqrt(mean((x - mean)²) + eps)`; and, with the scale of a run, the
//! linear maps that they are.

use super::{Layout, Rules};
use crate::diagram::{NormKind, NormWeight};
use crate::kernel::{NormAbreast, NormBack, NormBackAbreast, norm_rows};
use crate::linalg::Par;
use crate::tensor::{Scalar, Tensor};
use pulp::Arch;
use rayon::prelude::*;
use std::borrow::Cow;

/// What a norm multiplies by, and what it adds.
type Factors<'a, T> = (Cow<'a, [T]>, Cow<'a, [T]>);

/// A norm with its parameters.
#[derive(Clone)]
pub(crate) struct NormMap<'a, T: Scalar> {
    pub kind: NormKind,
    /// `[d]` each, where there are parameters: what is multiplied by, and added; zeros where nothing is added.
    pub affine: Option<Factors<'a, T>>,
}

impl<'a, T: Scalar> NormMap<'a, T> {
    /// Of these parameters, where there are any.
    pub fn new(kind: NormKind, parameters: Option<(&'a [T], Option<&'a [T]>)>) -> Self {
        let affine = parameters.map(|(w, b)| {
            let w = match kind.weight {
                NormWeight::OnePlus => w.iter().map(|&w| T::ONE + w).collect(),
                NormWeight::Plain | NormWeight::Absent => Cow::Borrowed(w),
            };
            let zeros = || Cow::Owned(vec![T::ZERO; w.len()]);
            let b = b.map_or_else(zeros, Cow::Borrowed);
            (w, b)
        });
        NormMap { kind, affine }
    }

    /// The `w` of a norm that multiplies by one.
    pub fn identity_w(kind: NormKind) -> T {
        match kind.weight {
            NormWeight::OnePlus => T::ZERO,
            NormWeight::Plain | NormWeight::Absent => T::ONE,
        }
    }

    /// A part of the stream through the norm at a scale of the whole's, without `b`: `(x - mean) / scale · w`.
    pub fn at_scale(&self, x: &mut [T], scale: T) {
        let mean = self.mean(x);
        x.iter_mut().for_each(|x| *x = (*x - mean) / scale);
        self.times_w(x);
    }

    /// What a direction past the norm is before it, but for the scale: `(w · direction) - mean`.
    pub fn before(&self, direction: &mut [T]) {
        self.times_w(direction);
        let mean = self.mean(direction);
        direction.iter_mut().for_each(|x| *x -= mean);
    }

    /// `W: [d, …]` that reads the norm's output, as it acts on the stream but for the scale.
    pub fn folded_into(&self, W: &Tensor<T>) -> Tensor<T> {
        let mut folded = W.clone();
        let width: usize = W.shape()[1..].iter().product();
        let mut mean = vec![T::ZERO; width];
        for (i, row) in folded.data_mut().chunks_exact_mut(width).enumerate() {
            let w = self.w().map_or(T::ONE, |w| w[i]);
            for (x, mean) in row.iter_mut().zip(&mut mean) {
                *x *= w;
                *mean += *x;
            }
        }
        if self.kind.centred {
            let d = T::from_f64(W.shape()[0] as f64);
            mean.iter_mut().for_each(|m| *m /= d);
            for row in folded.data_mut().chunks_exact_mut(width) {
                row.iter_mut().zip(&mean).for_each(|(x, &m)| *x -= m);
            }
        }
        folded
    }

    /// The same with parameters of its own.
    pub fn into_owned(self) -> NormMap<'static, T> {
        let own = |x: Cow<'_, [T]>| Cow::Owned(x.into_owned());
        NormMap {
            kind: self.kind,
            affine: self.affine.map(|(w, b)| (own(w), own(b))),
        }
    }

    /// What is multiplied by, where anything is.
    pub fn w(&self) -> Option<&[T]> {
        self.affine.as_ref().map(|(w, _)| &**w)
    }

    /// What is added, where anything is.
    pub fn b(&self) -> Option<&[T]> {
        let b = self.affine.as_ref().map(|(_, b)| &**b);
        b.filter(|_| self.kind.bias)
    }

    fn times_w(&self, x: &mut [T]) {
        if let Some((w, _)) = &self.affine {
            x.iter_mut().zip(w.iter()).for_each(|(x, &w)| *x *= w);
        }
    }

    /// The mean that is taken off.
    fn mean(&self, x: &[T]) -> T {
        match self.kind.centred {
            true => x.iter().copied().sum::<T>() / T::from_f64(x.len() as f64),
            false => T::ZERO,
        }
    }
}

/// The norm of `x: [batch, pos, d]`, and the scale, `[batch, pos, 1]`; in the order of the axes of any rows of which the
/// scale has one number each.
pub(crate) fn norm<T: Scalar>(
    layout: Layout,
    x: &Tensor<T>,
    eps: T,
    map: &NormMap<'_, T>,
    scale: &mut Tensor<T>,
    out: &mut Tensor<T>,
) {
    match layout {
        Layout::Rows(par) => by_rows(par, x, Some(eps), map, scale, out),
        Layout::Abreast => Arch::new().dispatch(NormAbreast {
            x: x.data(),
            centred: map.kind.centred,
            eps,
            affine: map.affine.as_ref().map(|(w, b)| (&**w, &**b)),
            scale: scale.data_mut(),
            out: out.data_mut(),
        }),
    }
}

/// The norm of `x` with the scale that it is given, in the order of the axes.
pub(crate) fn norm_given_scale<T: Scalar>(
    par: Par,
    x: &Tensor<T>,
    map: &NormMap<'_, T>,
    scale: &mut Tensor<T>,
    out: &mut Tensor<T>,
) {
    by_rows(par, x, None, map, scale, out);
}

fn by_rows<T: Scalar>(
    par: Par,
    x: &Tensor<T>,
    eps: Option<T>,
    map: &NormMap<'_, T>,
    scale: &mut Tensor<T>,
    out: &mut Tensor<T>,
) {
    // Of queries and keys a row is a head's, or all heads'.
    let d = x.len() / scale.len().max(1);
    let rows = scale.len().div_ceil(par.threads()).max(1);
    let scales = scale.data_mut().chunks_mut(rows);
    let values = x
        .data()
        .chunks(rows * d)
        .zip(out.data_mut().chunks_mut(rows * d));
    let affine = map.affine.as_ref().map(|(w, b)| (&**w, &**b));
    let work = |(scale, (x, out)): (&mut [T], (&[T], &mut [T]))| {
        norm_rows(x, map.kind.centred, eps, scale, affine, out);
    };
    match par {
        Par::Seq => scales.zip(values).for_each(work),
        Par::Rayon => scales.zip(values).par_bridge().for_each(work),
    }
}

/// Adds to `d_x` what comes through the norm of `x`, and writes the derivative by its scale alone; adds to those by
/// `w` and `b` where they are wanted. Where the scale is held, it has none.
pub(crate) fn norm_back<T: Scalar>(
    layout: Layout,
    rules: Rules,
    (x, scale, map): (&Tensor<T>, &Tensor<T>, &NormMap<'_, T>),
    d_out: &Tensor<T>,
    d_x: &mut Tensor<T>,
    d_scale: &mut Tensor<T>,
    d_affine: Option<(&mut [T], &mut [T])>,
) {
    let (x, scale, d_out) = (x.data(), scale.data(), d_out.data());
    let (d_x, d_scale) = (d_x.data_mut(), d_scale.data_mut());
    if rules != Rules::Derivatives {
        debug_assert!(matches!(layout, Layout::Rows(_)) && d_affine.is_none());
        d_scale.fill(T::ZERO);
        return at_scale_back((scale, map), d_out, d_x);
    }
    match layout {
        Layout::Rows(_) => Arch::new().dispatch(NormBack {
            x,
            centred: map.kind.centred,
            scale,
            w: map.w(),
            d_out,
            d_x,
            d_scale,
            d_affine,
        }),
        Layout::Abreast => Arch::new().dispatch(NormBackAbreast {
            x,
            centred: map.kind.centred,
            scale,
            w: map.w(),
            d_out,
            d_x,
            d_scale,
            d_affine,
        }),
    }
}

/// Adds to `d_x` what comes through a norm that is linear: at the scale that it has.
fn at_scale_back<T: Scalar>((scale, map): (&[T], &NormMap<'_, T>), d_out: &[T], d_x: &mut [T]) {
    let d = d_x.len() / scale.len().max(1);
    let mut row = vec![T::ZERO; d];
    let rows = d_out.chunks_exact(d).zip(d_x.chunks_exact_mut(d));
    for (&scale, (d_out, d_x)) in scale.iter().zip(rows) {
        row.copy_from_slice(d_out);
        map.before(&mut row);
        d_x.iter_mut()
            .zip(&row)
            .for_each(|(d, &by)| *d += by / scale);
    }
}
