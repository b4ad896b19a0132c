//! What a receiver makes of the stream that it reads, and back from there.

use crate::diagram::{Op, Projection, QkNorm};
use crate::intervene::Receiver;
use crate::linalg::{Par, affine_into, product_into};
use crate::model::Model;
use crate::names::{Head, Hook, NormSite};
use crate::op::{self, Attention, Layout, Place, Rules, Scratch, Turns};
use crate::tensor::{Scalar, Tensor};
use faer::MatMut;

/// A head's queries, keys or values, made of a stream that it alone reads.
pub(super) struct HeadInput<'a, T: Scalar> {
    model: &'a Model<T>,
    head: Head,
    of: Projection,
    places: Vec<Place>,
}

impl<'a, T: Scalar> HeadInput<'a, T> {
    /// What a receiver that is a head's reads, at these positions of sequences of so many tokens.
    pub fn of(
        model: &'a Model<T>,
        receiver: Receiver,
        positions: &[usize],
        pos: usize,
    ) -> Option<Self> {
        let (head, of) = match receiver {
            Receiver::Q(head) => (head, Projection::Q),
            Receiver::K(head) => (head, Projection::K),
            Receiver::V(head) => (head, Projection::V),
            Receiver::Mlp(_) | Receiver::Logits => return None,
        };
        let place = |&position: &usize| Place {
            position,
            length: pos,
        };
        Some(HeadInput {
            model,
            head,
            of,
            places: positions.iter().map(place).collect(),
        })
    }

    /// As attention reads it, `[n, positions, 1, d_head]`, of the stream `[n, positions, d_model]`: through the norm before
    /// attention, projected, through the norm over queries or keys, turned.
    pub fn read(&self, x: &Tensor<T>) -> Tensor<T> {
        let (_, normed) = through_norm(self.model, NormSite::Ln1(self.head.layer), x);
        let mut out = self.projected(&normed);
        if let Some(site) = self.norm_of_heads() {
            (_, out) = through_norm(self.model, site, &out);
        }
        if self.over_all_heads() {
            out = one_head(&out, self.slot());
        }
        if let Some(turns) = self.turns() {
            turns.turn(Layout::ROWS, &mut out);
        }
        out
    }

    /// Before a norm over queries or keys: this head's, or where that norm goes over all heads all of them.
    fn projected(&self, normed: &Tensor<T>) -> Tensor<T> {
        let (model, d_head) = (self.model, self.model.config().d_head);
        let lead = [normed.shape()[0], normed.shape()[1]];
        if self.over_all_heads() {
            let map = model.affine(Op::Project(self.head.layer, self.of));
            let map = map.expect("a linear map");
            let mut out = Tensor::zeros(&[&lead, map.outputs()].concat());
            op::linear(Layout::ROWS, normed.data(), map, out.data_mut());
            return out;
        }
        let mut out = Tensor::zeros(&[lead[0], lead[1], 1, d_head]);
        let (W, b) = self.weights();
        let to = MatMut::from_row_major_slice_mut(out.data_mut(), lead[0] * lead[1], d_head);
        affine_into(to, rows(normed), W, b);
        out
    }

    /// The derivative by the stream `x` that is read, from that by what attention reads.
    pub fn back(&self, rules: Rules, x: &Tensor<T>, mut d: Tensor<T>) -> Tensor<T> {
        let (scale, normed) = through_norm(self.model, NormSite::Ln1(self.head.layer), x);
        if let Some(turns) = self.turns() {
            turns.turn_back(Layout::ROWS, &mut d);
        }
        let (l, d_head) = (self.head.layer, self.model.config().d_head);
        let mut d_normed = Tensor::zeros(x.shape());
        let rows = x.len() / self.model.config().d_model;
        let mut d_raw = d;
        if let Some(site) = self.norm_of_heads() {
            let raw = self.projected(&normed);
            let (scale, _) = through_norm(self.model, site, &raw);
            let scale = scale.expect("there is such a norm");
            // Of a norm over all heads the others' entries have derivatives too.
            let d_out = match self.over_all_heads() {
                false => d_raw,
                true => {
                    let mut all = Tensor::zeros(raw.shape());
                    let heads = raw.shape()[2];
                    let own = self.slot();
                    for (to, from) in (all.data_mut().chunks_exact_mut(heads * d_head))
                        .zip(d_raw.data().chunks_exact(d_head))
                    {
                        to[own * d_head..(own + 1) * d_head].copy_from_slice(from);
                    }
                    all
                }
            };
            let map = self.model.norm_at(site).expect("a norm of this model");
            let mut d_in = Tensor::zeros(raw.shape());
            let mut d_scale = Tensor::zeros(scale.shape());
            let of = (&raw, &scale, &map);
            let to = (&mut d_in, &mut d_scale);
            op::norm_back(Layout::ROWS, rules, of, &d_out, to.0, to.1, None);
            d_raw = d_in;
        }
        match self.over_all_heads() {
            true => {
                let W = self
                    .model
                    .affine(Op::Project(l, self.of))
                    .expect("a linear map")
                    .W;
                op::linear_back(Layout::ROWS, &d_raw, W, &mut d_normed);
            }
            false => {
                let d_model = self.model.config().d_model;
                let to = MatMut::from_row_major_slice_mut(d_normed.data_mut(), rows, d_model);
                let d = faer::MatRef::from_row_major_slice(d_raw.data(), rows, d_head);
                product_into(to, T::ONE, d, self.weights().0.transpose());
            }
        }
        let met = (x, scale.as_ref());
        through_norm_back(self.model, rules, NormSite::Ln1(l), met, d_normed)
    }

    /// Its weights and bias.
    fn weights(&self) -> (faer::MatRef<'a, T>, &'a [T]) {
        let (w, h) = (self.model.weights(), self.head);
        match self.of {
            Projection::Q => (w.W_Q(h), w.b_Q(h)),
            Projection::K => (w.W_K(h), w.b_K(h)),
            Projection::V => (w.W_V(h), w.b_V(h)),
        }
    }

    /// Which of its layer's queries, keys or values are its own.
    fn slot(&self) -> usize {
        match self.of {
            Projection::Q => self.head.head,
            Projection::K | Projection::V => self.model.config().group(self.head.head),
        }
    }

    /// The norm over queries or keys, where there is one.
    fn norm_of_heads(&self) -> Option<NormSite> {
        let site = match self.of {
            Projection::Q => NormSite::Q(self.head.layer),
            Projection::K => NormSite::K(self.head.layer),
            Projection::V => return None,
        };
        self.model.config().norm_at(site).map(|_| site)
    }

    /// Whether it goes over all heads together.
    fn over_all_heads(&self) -> bool {
        let norm: Option<QkNorm> = self.model.config().qk_norm;
        self.norm_of_heads().is_some() && norm.is_some_and(|norm| !norm.per_head)
    }

    /// How its rows are turned, where they are.
    fn turns(&self) -> Option<Turns<T>> {
        let turned = match self.of {
            Projection::Q => Hook::RotQ(self.head.layer),
            Projection::K => Hook::RotK(self.head.layer),
            Projection::V => return None,
        };
        self.model.diagram.value(turned)?;
        let rotary = self.model.config().rotary_at(self.head.layer)?;
        Some(Turns::new(rotary, self.places.iter().copied()))
    }
}

/// The derivative by the stream that a layer's neurons read, from those by what goes into them: `x` as they read it, and
/// each linear map into them with the derivative by what it gives.
pub(super) fn neurons_back<T: Scalar>(
    model: &Model<T>,
    rules: Rules,
    l: usize,
    x: &Tensor<T>,
    d_pre: &[(Op, Tensor<T>)],
) -> Tensor<T> {
    let mut d_normed = Tensor::zeros(x.shape());
    let mut scratch = Scratch::default();
    for (op, d) in d_pre {
        let W = model.affine(*op).expect("a linear map").W;
        op::add_linear_back(Layout::ROWS, d, W, &mut d_normed, &mut scratch);
    }
    match model.config().norm_before_neurons(l) {
        Some(site) => {
            let (scale, _) = through_norm(model, site, x);
            through_norm_back(model, rules, site, (x, scale.as_ref()), d_normed)
        }
        None => d_normed,
    }
}

/// The norm at a place, and by what it divides; the value itself where there is none.
pub(super) fn through_norm<T: Scalar>(
    model: &Model<T>,
    site: NormSite,
    x: &Tensor<T>,
) -> (Option<Tensor<T>>, Tensor<T>) {
    let Some(map) = model.norm_at(site) else {
        return (None, x.clone());
    };
    let eps = T::from_f64(model.config().eps);
    let mut scale = Tensor::zeros(&[x.len() / model.config().norm_width(site)]);
    let mut out = Tensor::zeros(x.shape());
    op::norm(Layout::ROWS, x, eps, &map, &mut scale, &mut out);
    (Some(scale), out)
}

/// Back through the norm at a place, of what it had and by what it divided.
fn through_norm_back<T: Scalar>(
    model: &Model<T>,
    rules: Rules,
    site: NormSite,
    (x, scale): (&Tensor<T>, Option<&Tensor<T>>),
    d_out: Tensor<T>,
) -> Tensor<T> {
    let (Some(scale), Some(map)) = (scale, model.norm_at(site)) else {
        return d_out;
    };
    let mut d_x = Tensor::zeros(x.shape());
    let mut d_scale = Tensor::zeros(scale.shape());
    let of = (x, scale, &map);
    let to = (&mut d_x, &mut d_scale);
    op::norm_back(Layout::ROWS, rules, of, &d_out, to.0, to.1, None);
    d_x
}

/// A value's rows as one matrix.
fn rows<T: Scalar>(x: &Tensor<T>) -> faer::MatRef<'_, T> {
    let width = x.shape()[x.shape().len() - 1];
    faer::MatRef::from_row_major_slice(x.data(), x.len() / width, width)
}

/// One head of a `[n, positions, head, d_head]` value, as one that has no other.
pub(super) fn one_head<T: Scalar>(x: &Tensor<T>, head: usize) -> Tensor<T> {
    let &[n, positions, heads, d_head] = x.shape() else {
        unreachable!("queries, keys and values have four axes")
    };
    let own = x.data().chunks_exact(heads * d_head);
    let own = own.flat_map(|row| &row[head * d_head..(head + 1) * d_head]);
    Tensor::from_vec(&[n, positions, 1, d_head], own.copied().collect())
}

/// What one head mixes: of queries, keys and values that are its own alone, `[n, positions, 1, d_head]` each.
pub(super) fn mix_head<T: Scalar>(
    model: &Model<T>,
    head: Head,
    queries: &[usize],
    [q, k, v]: [&Tensor<T>; 3],
    pads: Option<&[bool]>,
    z: &mut Tensor<T>,
) {
    let attention = of_head(model, head, queries, [q, k, v], pads);
    match attention.in_one_go(Layout::ROWS) {
        true => attention.mix(Layout::ROWS, [None, None], z),
        false => attention.mix_in_blocks(Par::Seq, z),
    }
}

/// One head's attention, as if it were the only one.
pub(super) fn of_head<'t, T: Scalar>(
    model: &'t Model<T>,
    head: Head,
    queries: &'t [usize],
    [q, k, v]: [&'t Tensor<T>; 3],
    pads: Option<&'t [bool]>,
) -> Attention<'t, T> {
    let mut scoring = model.scoring(head.layer);
    scoring.slopes = scoring.slopes.map(|all| &all[head.head..=head.head]);
    Attention {
        queries,
        q,
        k,
        v,
        scoring,
        masks: model.masks(head.layer, pads, None),
    }
}
