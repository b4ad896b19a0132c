//! How a head's query or key is read off the stream at one position: with the run's scales a linear map and a constant.

use crate::decompose::{in_precision, norm_in_precision};
use crate::diagram::QkNorm;
use crate::error::Result;
use crate::linalg::product;
use crate::linalg::rounding::{frobenius_at_most, gamma};
use crate::model::{Cache, Config, Model};
use crate::names::{Head, Hook, NormSite};
use crate::op::{Layout, NormMap, Place, Turns};
use crate::tensor::{Scalar, Tensor};
use faer::MatRef;

/// Which of a score's two factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The query.
    Query,
    /// The key.
    Key,
}

impl Side {
    /// Where its norm stands.
    pub(super) fn norm_site(self, layer: usize) -> NormSite {
        match self {
            Side::Query => NormSite::Q(layer),
            Side::Key => NormSite::K(layer),
        }
    }

    /// What is multiplied in the end: past the norm of queries and keys, and turned.
    pub(super) fn multiplied(self, c: &Config, layer: usize) -> Hook {
        match (self, c.rotary(), c.qk_norm) {
            (Side::Query, true, _) => Hook::RotQ(layer),
            (Side::Key, true, _) => Hook::RotK(layer),
            (_, false, Some(_)) => self.norm_site(layer).output(),
            (Side::Query, false, None) => Hook::Q(layer),
            (Side::Key, false, None) => Hook::K(layer),
        }
    }
}

/// A norm at a run's scale, which is its own for every `width / scales.len()` entries of a row.
struct AtScale {
    norm: NormMap<'static, f64>,
    scale: f64,
}

impl AtScale {
    /// The largest factor by which it makes an entry's terms larger, its mean included.
    fn most(&self) -> f64 {
        let w = self
            .norm
            .w()
            .map_or(1.0, |w| w.iter().fold(0.0, |m: f64, x| m.max(x.abs())));
        let mean = if self.norm.kind.centred { 2.0 } else { 1.0 };
        mean * w / self.scale.abs()
    }
}

/// How a query or key is read.
pub(in crate::decompose) struct Reads {
    /// `[d_model, width]`: the head's columns, or those of all heads where their norm looks at all of them.
    W: Tensor<f64>,
    b: Vec<f64>,
    ln1: Option<AtScale>,
    qk_norm: Option<AtScale>,
    /// Where the head's entries begin.
    first: usize,
    d_head: usize,
    turns: Option<Turns<f64>>,
    /// By how much a turn makes the norm of an entry's terms larger at most: twice, times what rotations are scaled by.
    turned: f64,
}

/// What is added to a query or key whatever is in the stream.
pub(in crate::decompose) enum Constant {
    /// The `b` of `ln1`.
    Ln1,
    /// `b_Q` or `b_K`.
    Projection,
    /// The `b` of the norm of queries or keys.
    Norm,
}

impl Reads {
    /// The hooks that are needed beside those of what is in the stream.
    pub fn hooks(c: &Config, layer: usize) -> Vec<Hook> {
        let scales = [NormSite::Ln1(layer), NormSite::Q(layer), NormSite::K(layer)];
        let ln1_is_read = c.reads_ln1();
        let scales = scales
            .into_iter()
            .filter(|&site| c.norm_at(site).is_some())
            .filter(|&site| ln1_is_read || site != NormSite::Ln1(layer))
            .map(Hook::Scale);
        let multiplied = [Side::Query, Side::Key].map(|side| side.multiplied(c, layer));
        scales.chain(multiplied).collect()
    }

    pub fn new<T: Scalar>(
        model: &Model<T>,
        cache: &Cache<T>,
        (head, side): (Head, Side),
        (sequence, position): (usize, usize),
    ) -> Result<Reads> {
        let (c, attn) = (model.config(), &model.weights().blocks[head.layer].attn);
        let (W, b, own) = match side {
            Side::Query => (&attn.W_Q, &attn.b_Q, head.head),
            Side::Key => (&attn.W_K, &attn.b_K, c.group(head.head)),
        };
        let site = side.norm_site(head.layer);
        // The mean of all heads' entries is taken of all of them.
        let of_all = c.qk_norm.is_some_and(|norm| !norm.per_head);
        let wide = of_all && c.qk_norm.is_some_and(|norm| norm.kind.centred);
        let d_head = c.d_head;
        let columns = match wide {
            true => MatRef::from_row_major_slice(W.data(), c.d_model, W.len() / c.d_model),
            false => W.of_head(own),
        };
        let bias = match wide {
            true => b.data(),
            false => b.slice(&[own]),
        };
        let pos = cache.require(Hook::Embed)?.shape()[1];
        let at = |hook: Hook| -> Result<&[T]> {
            let value = cache.require(hook)?;
            Ok(value.slice(&[sequence, position]))
        };
        let ln1 = match c.reads_ln1() {
            true => norm_in_precision::<T, f64>(model, NormSite::Ln1(head.layer)),
            false => None,
        };
        let ln1 = match ln1 {
            None => None,
            Some(norm) => Some(AtScale {
                norm,
                scale: at(Hook::Scale(NormSite::Ln1(head.layer)))?[0].to_f64(),
            }),
        };
        let qk_norm = match (norm_in_precision::<T, f64>(model, site), c.qk_norm) {
            (Some(norm), Some(QkNorm { per_head, .. })) => {
                let row = if per_head { own } else { 0 };
                let cut = |x: &[f64]| match of_all && !wide {
                    true => x[own * d_head..][..d_head].to_vec(),
                    false => x.to_vec(),
                };
                Some(AtScale {
                    norm: NormMap {
                        kind: norm.kind,
                        affine: norm
                            .affine
                            .as_ref()
                            .map(|(w, b)| (cut(w).into(), cut(b).into())),
                    },
                    scale: at(Hook::Scale(site))?[row].to_f64(),
                })
            }
            _ => None,
        };
        let place = Place {
            position,
            length: pos,
        };
        Ok(Reads {
            W: Tensor::from_fn(&[columns.nrows(), columns.ncols()], |i| {
                columns[(i[0], i[1])].to_f64()
            }),
            b: in_precision::<T, f64>(bias).into_owned(),
            ln1,
            qk_norm,
            first: if wide { own * d_head } else { 0 },
            d_head,
            turns: c
                .rotary_at(head.layer)
                .map(|rotary| Turns::new(rotary, [place])),
            turned: c
                .rotary_at(head.layer)
                .map_or(1.0, |rotary| 2.0 * rotary.scale().max(1.0)),
        })
    }

    /// What parts of the stream, `[n, d_model]`, are in the query or key: `[n, d_head]`.
    pub fn parts(&self, x: MatRef<'_, f64>) -> Tensor<f64> {
        let mut rows = Tensor::from_mat(x);
        if let Some(ln1) = &self.ln1 {
            let each = rows.data_mut().chunks_exact_mut(x.ncols());
            each.for_each(|row| ln1.norm.at_scale(row, ln1.scale));
        }
        let rows = Tensor::from_mat(product(rows.mat(&[]), self.W.mat(&[])).as_ref());
        self.past_projection(rows)
    }

    /// The constants that are in it, `[n, d_head]`.
    pub fn constants(&self) -> (Vec<Constant>, Tensor<f64>) {
        let mut labels = Vec::new();
        let mut data = Vec::new();
        if let Some(b) = self.ln1.as_ref().and_then(|ln1| ln1.norm.b()) {
            labels.push(Constant::Ln1);
            let row = product(MatRef::from_row_major_slice(b, 1, b.len()), self.W.mat(&[]));
            data.extend(row.row(0).iter().copied());
        }
        labels.push(Constant::Projection);
        data.extend(&self.b);
        let rows = Tensor::from_vec(&[labels.len(), self.b.len()], data);
        let mut data = self.past_projection(rows).into_data();
        if let Some(b) = self.norm_bias() {
            labels.push(Constant::Norm);
            data.extend(self.turned(b).into_data());
        }
        let rows = Tensor::from_vec(&[labels.len(), self.d_head], data);
        (labels, rows)
    }

    /// The `b` of the norm of queries or keys, the head's.
    fn norm_bias(&self) -> Option<Tensor<f64>> {
        let b = self.qk_norm.as_ref()?.norm.b()?;
        let own = b[self.first..][..self.d_head].to_vec();
        Some(Tensor::from_vec(&[1, self.d_head], own))
    }

    fn past_projection(&self, mut rows: Tensor<f64>) -> Tensor<f64> {
        let width = self.b.len();
        if let Some(norm) = &self.qk_norm {
            let each = rows.data_mut().chunks_exact_mut(width);
            each.for_each(|row| norm.norm.at_scale(row, norm.scale));
        }
        let own = rows.data().chunks_exact(width);
        let own = own
            .flat_map(|row| &row[self.first..][..self.d_head])
            .copied();
        let own: Vec<f64> = own.collect();
        self.turned(Tensor::from_vec(
            &[own.len() / self.d_head, self.d_head],
            own,
        ))
    }

    fn turned(&self, rows: Tensor<f64>) -> Tensor<f64> {
        let Some(turns) = &self.turns else {
            return rows;
        };
        let n = rows.shape()[0];
        // The rows are heads of one position.
        let mut rows = rows.reshape(&[1, 1, n, self.d_head]);
        turns.turn(Layout::ROWS, &mut rows);
        rows.reshape(&[n, self.d_head])
    }

    /// What a direction in the query or key is in the stream, `[d_model]`, and what the constants add along it.
    pub fn back(&self, direction: &[f64]) -> (Vec<f64>, Vec<(Constant, f64)>) {
        let (labels, rows) = self.constants();
        let along = |row: &[f64]| row.iter().zip(direction).map(|(x, g)| x * g).sum();
        let constants = rows.data().chunks_exact(self.d_head).map(along);
        let constants = labels.into_iter().zip(constants).collect();

        let mut own = Tensor::from_vec(&[1, 1, 1, self.d_head], direction.to_vec());
        if let Some(turns) = &self.turns {
            turns.turn_back(Layout::ROWS, &mut own);
        }
        let mut wide = vec![0.0; self.b.len()];
        wide[self.first..][..self.d_head].copy_from_slice(own.data());
        if let Some(norm) = &self.qk_norm {
            norm.norm.before(&mut wide);
            wide.iter_mut().for_each(|g| *g /= norm.scale);
        }
        let wide = MatRef::from_row_major_slice(&wide, 1, wide.len());
        let mut row: Vec<f64> = product(wide, self.W.mat(&[]).transpose())
            .row(0)
            .iter()
            .copied()
            .collect();
        if let Some(ln1) = &self.ln1 {
            ln1.norm.before(&mut row);
            row.iter_mut().for_each(|g| *g /= ln1.scale);
        }
        (row, constants)
    }

    /// The most by which reading makes the norm of a row of the stream larger, of its terms.
    pub fn most(&self) -> f64 {
        let ln1 = self.ln1.as_ref().map_or(1.0, AtScale::most);
        ln1 * frobenius_at_most(self.W.mat(&[])) * self.most_past_projection()
    }

    /// The norm of the constants' terms, at most.
    pub fn constants_size(&self) -> f64 {
        let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
        let ln1 = self
            .ln1
            .as_ref()
            .and_then(|ln1| ln1.norm.b())
            .map_or(0.0, norm);
        let read = ln1 * frobenius_at_most(self.W.mat(&[])) + norm(&self.b);
        let added = self.norm_bias().map_or(0.0, |b| norm(b.data()));
        read * self.most_past_projection() + self.turned * added
    }

    fn most_past_projection(&self) -> f64 {
        let norm = self.qk_norm.as_ref().map_or(1.0, AtScale::most);
        norm * self.turned
    }

    /// How many roundings a term of a query or key meets, read or going back: two means, the projection, and what is done to
    /// an entry.
    pub fn roundings(&self) -> usize {
        let (d, width) = (self.W.shape()[0], self.b.len());
        2 * d + 2 * width + self.d_head + 32
    }

    /// How far a term of a query or key may be off after rounding in `T`, relative to its size.
    pub fn gamma<T: Scalar>(&self) -> f64 {
        gamma::<T>(self.roundings()).to_f64()
    }
}
