//! Norms: `(x - mean) / scale · w + b`, with `scale = sqrt(mean((x - mean)²) + eps)`.

use super::Layout;
use crate::kernel::{LayerNormBack, abreast, layer_norm_rows};
use crate::linalg::Par;
use crate::tensor::{Scalar, Tensor};
use pulp::Arch;
use rayon::prelude::*;

/// The norm of `x: [batch, pos, d]`, and the scale, `[batch, pos, 1]`. `affine` is `w` and `b`, where there are any.
pub(crate) fn norm<T: Scalar>(
    layout: Layout,
    x: &Tensor<T>,
    eps: T,
    affine: Option<(&[T], &[T])>,
    scale: &mut Tensor<T>,
    out: &mut Tensor<T>,
) {
    match layout {
        Layout::Rows(par) => by_rows(par, x, Some(eps), affine, scale, out),
        Layout::Abreast => Arch::new().dispatch(abreast::LayerNorm {
            x: x.data(),
            eps,
            affine,
            scale: scale.data_mut(),
            out: out.data_mut(),
        }),
    }
}

/// The norm of `x` with the scale that it is given, in the order of the axes.
pub(crate) fn norm_given_scale<T: Scalar>(
    par: Par,
    x: &Tensor<T>,
    affine: Option<(&[T], &[T])>,
    scale: &mut Tensor<T>,
    out: &mut Tensor<T>,
) {
    by_rows(par, x, None, affine, scale, out);
}

fn by_rows<T: Scalar>(
    par: Par,
    x: &Tensor<T>,
    eps: Option<T>,
    affine: Option<(&[T], &[T])>,
    scale: &mut Tensor<T>,
    out: &mut Tensor<T>,
) {
    let d = x.shape()[2];
    let rows = scale.len().div_ceil(par.threads()).max(1);
    let scales = scale.data_mut().chunks_mut(rows);
    let values = x
        .data()
        .chunks(rows * d)
        .zip(out.data_mut().chunks_mut(rows * d));
    let work = |(scale, (x, out)): (&mut [T], (&[T], &mut [T]))| {
        layer_norm_rows(x, eps, scale, affine, out);
    };
    match par {
        Par::Seq => scales.zip(values).for_each(work),
        Par::Rayon => scales.zip(values).par_bridge().for_each(work),
    }
}

/// Adds to `d_x` what comes through the norm of `x`, and writes the derivative by its scale alone; adds to those by
/// `w` and `b` where they are wanted.
pub(crate) fn norm_back<T: Scalar>(
    layout: Layout,
    (x, scale, w): (&Tensor<T>, &Tensor<T>, Option<&[T]>),
    d_out: &Tensor<T>,
    d_x: &mut Tensor<T>,
    d_scale: &mut Tensor<T>,
    d_affine: Option<(&mut [T], &mut [T])>,
) {
    let (x, scale, d_out) = (x.data(), scale.data(), d_out.data());
    let (d_x, d_scale) = (d_x.data_mut(), d_scale.data_mut());
    match layout {
        Layout::Rows(_) => Arch::new().dispatch(LayerNormBack {
            x,
            scale,
            w,
            d_out,
            d_x,
            d_scale,
            d_affine,
        }),
        Layout::Abreast => Arch::new().dispatch(abreast::back::LayerNormBack {
            x,
            scale,
            w,
            d_out,
            d_x,
            d_scale,
            d_affine,
        }),
    }
}
