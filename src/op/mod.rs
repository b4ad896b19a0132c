//! The operations that a model is made of, one a file: forward, and backward where it has parameters or a slope.
//!
//! Each works on rows: of any stretch of sequences, at any positions. Where an operation needs to know the positions
//! (embeddings, attention), they are an argument.

mod activate;
mod attend;
mod embed;
mod heads;
mod linear;
mod norm;
mod rotate;
mod rows;
mod scratch;
mod sum;

pub(crate) use activate::{activate, activate_back, gate, gate_back};
pub(crate) use attend::{
    Attended, Attention, AttentionBack, Masks, Scoring, capped_back, group_of, softmax, weigh,
};
pub(crate) use embed::{embed, embed_back, spread, spread_back};
pub(crate) use heads::{head_result, head_results, sum_heads};
pub(crate) use linear::{Affine, add_linear_back, linear, linear_back, parameters_back, unembed};
pub(crate) use norm::{NormMap, norm, norm_back, norm_given_scale};
pub(crate) use rotate::{Place, Turns};
pub(crate) use rows::{gather_positions, in_order, scatter_positions};
pub(crate) use scratch::Scratch;
pub(crate) use sum::add;

use crate::diagram::{Config, Positions};
use crate::linalg::Par;
use crate::names::Hook;
use crate::tensor::{Scalar, lanes};
use faer::MatRef;
use rayon::prelude::*;

/// What an operation that is not linear hands back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Rules {
    /// Its derivatives.
    #[default]
    Derivatives,
    /// What layer-wise relevance propagation has in their place, so that each is linear at what a run has: norms at the
    /// run's scale, `f(x)` as `x` times `f(x) / x`, and of a product of two half of either factor's derivative.
    Relevance {
        /// Whether attention is linear in its values too, at the run's pattern. Otherwise it has its derivatives.
        patterns: bool,
    },
}

impl Rules {
    /// Whether patterns are what the run has, whatever queries and keys are.
    pub fn hold_patterns(self) -> bool {
        self == Rules::Relevance { patterns: true }
    }
}

/// How a stretch's values lie in memory; their shapes are the same.
#[derive(Clone, Copy)]
pub(crate) enum Layout {
    /// In the order of the axes, as hooks and caches have them; operations may be split over threads.
    Rows(Par),
    /// The sequences last, one in each of a vector's lanes, on the calling thread. There are as many sequences
    /// as lanes; the last one again where there are too few.
    Abreast,
}

/// The longest sequence that goes abreast, and the widest value at a position.
const MAX_POS: usize = 64;
const MAX_WIDTH: usize = 64;

impl Layout {
    /// In the order of the axes, on the calling thread.
    pub const ROWS: Layout = Layout::Rows(Par::Seq);

    /// Whether a run of so many sequences, at whose values no closure looks and which keeps these hooks', can go abreast and
    /// is faster so. What single heads write is not made abreast.
    pub fn abreast_pays<T: Scalar>(
        c: &Config,
        (batch, pos): (usize, usize),
        keep: &[Hook],
    ) -> bool {
        let width = [
            c.d_model,
            c.n_heads * c.d_head,
            c.d_mlp().unwrap_or(0),
            c.d_vocab_out,
        ];
        let lanes = lanes::<T>();
        lanes >= 4
            && !keep.iter().any(|hook| matches!(hook, Hook::Result(_)))
            && !c.grouped()
            && !matches!(c.positions, Positions::Alibi)
            && c.qk_norm.is_none()
            && c.score_cap.is_none()
            && c.windows.iter().all(Option::is_none)
            && batch >= lanes
            && pos <= MAX_POS
            && width.iter().all(|&d| d <= MAX_WIDTH)
            && !c.act_fn().is_some_and(|f| f.looks_across())
    }

    /// Whether operations may be split over threads.
    pub fn par(self) -> Par {
        match self {
            Layout::Rows(par) => par,
            Layout::Abreast => Par::Seq,
        }
    }

    /// How many sequences the values of `batch` sequences have.
    pub fn batch<T: Scalar>(self, batch: usize) -> usize {
        match self {
            Layout::Rows(_) => batch,
            Layout::Abreast => lanes::<T>(),
        }
    }
}

/// Calls `f` on stretches of `out` that are whole multiples of `unit`, with the first unit's index.
fn split<T: Scalar>(par: Par, out: &mut [T], unit: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let units = out.len() / unit.max(1);
    match par {
        Par::Rayon if units > 1 => {
            let each = units.div_ceil(par.threads());
            out.par_chunks_mut(each * unit)
                .enumerate()
                .for_each(|(i, chunk)| f(i * each, chunk));
        }
        _ => f(0, out),
    }
}

/// The rows `first..first + n` of a row-major matrix.
fn rows_of<T: Scalar>(data: &[T], cols: usize, first: usize, n: usize) -> MatRef<'_, T> {
    MatRef::from_row_major_slice(&data[first * cols..(first + n) * cols], n, cols)
}
