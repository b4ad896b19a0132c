//! A model whose norms' weights are folded into what reads them, and how large its maps are.
//!
//! With `m` a norm's mean-free row over its scale, the output `m w + b` is read by a map `W`, `c` as
//! `m (w ∘ W) + (b W + c)`: the same function. Keys have no bias here: `q · b_K` is the same for all keys of a query, and
//! a pattern does not change by what is the same for all keys (those at pads aside, see `bound.rs`).

use crate::diagram::{ActFn, Mask, NormKind, NormPlace, NormWeight, Order, Positions};
use crate::error::{Error, Result};
use crate::linalg::product;
use crate::linalg::rounding::{gamma, spectral_at_most};
use crate::model::{Config, Model, Norm};
use crate::names::{Head, NormSite};
use crate::tensor::Tensor;
use faer::{Mat, MatRef};

/// `x ↦ x W + b`
pub(super) struct Map {
    /// `[inputs, outputs]`, row by row.
    pub W: Vec<f64>,
    /// `[outputs]`
    pub b: Vec<f64>,
    pub size: MapSize,
}

/// How large a map is; from above.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MapSize {
    /// The spectral norm.
    pub norm: f64,
    /// That of the entries' moduli.
    pub moduli: f64,
    /// The bias as a vector.
    pub bias: f64,
    /// The sums of the moduli of what the bias is made of, as a vector.
    pub bias_terms: f64,
}

/// What a head does, from above.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadSize {
    pub q: MapSize,
    pub k: MapSize,
    pub v: MapSize,
    pub o: MapSize,
    /// The spectral norm of `W_Q W_Kᵀ`.
    pub qk: f64,
    /// `|W_K b_Q|`
    pub query_bias: f64,
    /// `|b_K|`, which is left out.
    pub key_bias: f64,
    /// The spectral norm of `W_V W_O`.
    pub ov: f64,
}

/// A layer.
pub(super) struct Layer {
    /// All heads side by side.
    pub q: Map,
    pub k: Map,
    pub v: Map,
    pub o: Map,
    /// By head, `W_Kᵀ`: `[d_head, d_model]`.
    pub k_transposed: Vec<Map>,
    /// By head, its own values: `[d_model, d_head]`.
    pub v_by_head: Vec<Map>,
    pub heads: Vec<HeadSize>,
    /// What a score is multiplied by.
    pub factor: f64,
    /// The maps into neurons and out of them.
    pub mlp: Option<(Map, Map)>,
}

/// A model as its inputs are run through it one after the other.
pub(super) struct Folded {
    pub config: Config,
    /// `[pos, token, d_model]`
    pub embedded: Vec<f64>,
    pub layers: Vec<Layer>,
    pub unembed: Map,
    /// By class, the largest distance of its column of `W_U` from another's, from above.
    pub columns_apart: Vec<f64>,
    /// The largest length of a column of `W_U`, from above.
    pub column: f64,
    /// The largest sum of moduli that a logit's bias is made of.
    pub logit_bias: f64,
}

/// At least the length of a vector, underflow aside.
pub(super) fn length_at_most(x: impl Iterator<Item = f64> + Clone) -> f64 {
    let n = x.clone().count();
    x.map(|x| x * x).sum::<f64>().sqrt() * (1.0 + gamma::<f64>(n + 4))
}

/// A norm's weight `w_i`, as it multiplies.
pub(super) fn norm_weight(kind: NormKind, own: Option<&Norm<f64>>, i: usize) -> f64 {
    match (kind.weight, own) {
        (NormWeight::Absent, _) | (_, None) => 1.0,
        (NormWeight::Plain, Some(norm)) => norm.w.data()[i],
        (NormWeight::OnePlus, Some(norm)) => 1.0 + norm.w.data()[i],
    }
}

/// What a norm adds.
pub(super) fn norm_bias(own: Option<&Norm<f64>>, i: usize) -> f64 {
    let b = own.and_then(|norm| norm.b.as_ref());
    b.map_or(0.0, |b| b.data()[i])
}

/// What a map reads: the stream through a norm, or as it is.
struct Read<'a> {
    kind: Option<NormKind>,
    own: Option<&'a Norm<f64>>,
}

impl Read<'_> {
    /// `W`, `b` as they act on what is mean-free and over its scale.
    fn by(&self, W: MatRef<'_, f64>, b: Option<&[f64]>) -> Map {
        let (d, n) = (W.nrows(), W.ncols());
        let w = |i: usize| self.kind.map_or(1.0, |kind| norm_weight(kind, self.own, i));
        let added = |i: usize| self.kind.map_or(0.0, |_| norm_bias(self.own, i));
        let mut map = Map {
            W: vec![0.0; d * n],
            b: b.map_or_else(|| vec![0.0; n], <[f64]>::to_vec),
            size: MapSize::default(),
        };
        let mut terms: Vec<f64> = map.b.iter().map(|b| b.abs()).collect();
        for i in 0..d {
            for j in 0..n {
                map.W[i * n + j] = w(i) * W[(i, j)];
                map.b[j] += added(i) * W[(i, j)];
                terms[j] += (added(i) * W[(i, j)]).abs();
            }
        }
        map.size = MapSize::of(&map.W, n, &map.b, &terms);
        map
    }
}

impl MapSize {
    /// Of a map whose entries are each within four roundings of what is meant, and its bias within `d + 4` of its terms.
    fn of(W: &[f64], n: usize, b: &[f64], terms: &[f64]) -> MapSize {
        let d = W.len() / n;
        let up = 1.0 + gamma::<f64>(8);
        let W = MatRef::from_row_major_slice(W, d, n);
        let of_moduli = Mat::from_fn(d, n, |i, j| W[(i, j)].abs());
        let moduli = spectral_at_most(of_moduli.as_ref()) * up;
        let bias_terms = length_at_most(terms.iter().copied()) * (1.0 + gamma::<f64>(d + 8));
        let off = gamma::<f64>(d + 4) * bias_terms;
        MapSize {
            norm: (spectral_at_most(W) + gamma::<f64>(4) * moduli) * up,
            moduli,
            bias: (length_at_most(b.iter().copied()) + off) * up,
            bias_terms,
        }
    }
}

/// At least the spectral norm of the product of two maps as they are meant.
fn product_norm(A: MatRef<'_, f64>, a: MapSize, B: MatRef<'_, f64>, b: MapSize) -> f64 {
    let inner = A.ncols();
    let off = gamma::<f64>(inner + 10) * a.moduli * b.moduli;
    (spectral_at_most(product(A, B).as_ref()) + off) * (1.0 + gamma::<f64>(8))
}

/// Maps side by side.
fn beside(maps: &[Map]) -> Map {
    let (d, n) = (maps[0].W.len() / maps[0].b.len(), maps[0].b.len());
    let rows = (0..d).flat_map(|i| maps.iter().flat_map(move |m| &m.W[i * n..(i + 1) * n]));
    Map {
        W: rows.copied().collect(),
        b: maps.iter().flat_map(|m| &m.b).copied().collect(),
        // Each head's own is what is asked for.
        size: MapSize::default(),
    }
}

/// Whether a model of this configuration is one that inputs are run through with a bound.
///
/// # Errors
/// When it is not: why.
pub(in crate::certify) fn covers(c: &Config) -> Result<()> {
    let learned_or_none = matches!(c.positions, Positions::Learned | Positions::None);
    let relu = |mlp: crate::diagram::MlpKind| mlp.act_fn == ActFn::Relu && !mlp.gated;
    for (fits, reason) in [
        (learned_or_none, "bounds are of learned positions or none"),
        (c.token_types == 0, "bounds have no kinds of tokens"),
        (
            c.embed_norm.is_none(),
            "bounds have no norm of the embedding",
        ),
        (
            c.norm.is_none() || c.norm_place == NormPlace::Before,
            "bounds are of norms before attention and MLP",
        ),
        (
            c.order == Order::Sequential,
            "bounds are of blocks in sequence",
        ),
        (
            c.qk_norm.is_none(),
            "bounds have no norms of queries and keys",
        ),
        (
            c.windows.iter().all(Option::is_none),
            "bounds have no windows",
        ),
        (
            c.score_cap.is_none() && c.logit_cap.is_none(),
            "bounds have no soft caps",
        ),
        (
            c.mlp.is_none_or(relu),
            "bounds are of neurons that are max(x, 0)",
        ),
        (
            c.mlm_head.is_none(),
            "bounds have no dense layer before the unembedding",
        ),
        (c.n_layers > 0, "bounds are of one layer at least"),
    ] {
        if !fits {
            return Err(Error::NotCovered(reason));
        }
    }
    Ok(())
}

impl Folded {
    /// The model, folded.
    ///
    /// # Errors
    /// When it is of a kind that is not covered.
    pub fn new(model: &Model<f64>) -> Result<Folded> {
        let (c, w) = (model.config(), model.weights());
        covers(c)?;
        let finite =
            |(_, tensor): &(String, &Tensor<f64>)| tensor.data().iter().all(|x| x.is_finite());
        if !w.tensors().iter().all(finite) {
            return Err(Error::NotCovered("bounds are of finite weights"));
        }
        let read = |site| Read {
            kind: c.norm,
            own: w.norms.get(&site),
        };
        let layers = (0..c.n_layers)
            .map(|l| Self::layer(model, l, &read))
            .collect();
        let mut embedded = Vec::with_capacity(c.n_ctx * c.d_vocab * c.d_model);
        for p in 0..c.n_ctx {
            for t in 0..c.d_vocab {
                let own = w.W_E.slice(&[t]).iter().enumerate();
                let pos = |i: usize| if c.pos_embed() { w.W_pos[[p, i]] } else { 0.0 };
                embedded.extend(own.map(|(i, &e)| e + pos(i)));
            }
        }
        let unembed = read(NormSite::Final).by(w.W_U.rows(), Some(w.b_U.data()));
        let n = c.d_vocab_out;
        let column = |j: usize| (0..c.d_model).map(move |i| (i, j));
        let U = |(i, j): (usize, usize)| unembed.W[i * n + j];
        let lengths: Vec<f64> = (0..n).map(|j| length_at_most(column(j).map(U))).collect();
        let longest = lengths.iter().copied().fold(0.0, f64::max) * (1.0 + gamma::<f64>(8));
        // Entries are within four roundings of what is meant, and the difference within one more.
        let slack = gamma::<f64>(10) * 2.0 * longest;
        let apart = |j: usize| {
            let from =
                |k: usize| length_at_most((0..c.d_model).map(move |i| U((i, j)) - U((i, k))));
            let largest = (0..n).map(from).fold(0.0, f64::max);
            (largest + slack) * (1.0 + gamma::<f64>(8))
        };
        let final_norm = read(NormSite::Final);
        let bias_of = |j: usize| {
            let added = (0..c.d_model).map(|i| {
                c.norm.map_or(0.0, |_| norm_bias(final_norm.own, i)) * w.W_U.rows()[(i, j)]
            });
            added.map(f64::abs).sum::<f64>() + w.b_U.data()[j].abs()
        };
        let logit_bias = (0..n).map(bias_of).fold(0.0, f64::max);
        Ok(Folded {
            columns_apart: (0..n).map(apart).collect(),
            column: longest,
            logit_bias: logit_bias * (1.0 + gamma::<f64>(c.d_model + 8)),
            config: c.clone(),
            embedded,
            layers,
            unembed,
        })
    }

    fn layer<'a>(model: &'a Model<f64>, l: usize, read: &dyn Fn(NormSite) -> Read<'a>) -> Layer {
        let (c, w) = (model.config(), model.weights());
        let ln1 = read(NormSite::Ln1(l));
        let plain = Read {
            kind: None,
            own: None,
        };
        let heads = (0..c.n_heads).map(|head| Head { layer: l, head });
        let (mut q, mut k, mut v, mut sizes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut k_transposed, mut v_by_head) = (Vec::new(), Vec::new());
        for head in heads.clone() {
            let of_q = ln1.by(w.W_Q(head), Some(w.b_Q(head)));
            let of_k = ln1.by(w.W_K(head), None);
            // What the norm adds gives every key the same.
            let of_k = Map {
                b: vec![0.0; c.d_head],
                size: MapSize {
                    bias: 0.0,
                    bias_terms: 0.0,
                    ..of_k.size
                },
                ..of_k
            };
            let key_bias = ln1.by(w.W_K(head), Some(w.b_K(head))).size.bias_terms;
            let of_v = ln1.by(w.W_V(head), Some(w.b_V(head)));
            let of_o = plain.by(w.W_O(head), None);
            let mat = |m: &'_ Map| {
                let (rows, cols) = (m.W.len() / m.b.len(), m.b.len());
                MatRef::from_row_major_slice(&m.W, rows, cols).to_owned()
            };
            let (Q, K, V, O) = (mat(&of_q), mat(&of_k), mat(&of_v), mat(&of_o));
            let b_Q = MatRef::from_row_major_slice(&of_q.b, 1, c.d_head);
            let through = product(b_Q, K.transpose());
            let off =
                gamma::<f64>(c.d_head + c.d_model + 10) * of_q.size.bias_terms * of_k.size.moduli;
            let query_bias = length_at_most((0..c.d_model).map(|i| through[(0, i)])) + off;
            sizes.push(HeadSize {
                q: of_q.size,
                k: of_k.size,
                v: of_v.size,
                o: of_o.size,
                qk: product_norm(Q.as_ref(), of_q.size, K.transpose(), of_k.size),
                query_bias: query_bias * (1.0 + gamma::<f64>(8)),
                key_bias,
                ov: product_norm(V.as_ref(), of_v.size, O.as_ref(), of_o.size),
            });
            let K_t = K.transpose().to_owned();
            let rows = (0..c.d_head).flat_map(|i| K_t.row(i).iter().copied().collect::<Vec<_>>());
            k_transposed.push(Map {
                W: rows.collect(),
                b: vec![0.0; c.d_model],
                size: of_k.size,
            });
            q.push(of_q);
            k.push(of_k);
            v_by_head.push(Map {
                W: of_v.W.clone(),
                b: of_v.b.clone(),
                size: of_v.size,
            });
            v.push(of_v);
        }
        let attn = &w.blocks[l].attn;
        let b_O = attn.b_O.data();
        let W_O = attn.W_O.data();
        let of_moduli: Vec<f64> = b_O.iter().map(|b| b.abs()).collect();
        let mlp = w.blocks[l].mlp.as_ref().map(|mlp| {
            let into = read(NormSite::Ln2(l)).by(mlp.W_in.rows(), Some(mlp.b_in.data()));
            (into, plain.by(mlp.W_out.rows(), Some(mlp.b_out.data())))
        });
        Layer {
            q: beside(&q),
            k: beside(&k),
            v: beside(&v),
            o: Map {
                W: W_O.to_vec(),
                b: b_O.to_vec(),
                size: MapSize::of(W_O, c.d_model, b_O, &of_moduli),
            },
            k_transposed,
            v_by_head,
            heads: sizes,
            factor: 1.0 / c.score_scale(l),
            mlp,
        }
    }

    /// Whether a query sees keys after it.
    pub fn causal(&self) -> bool {
        self.config.mask == Mask::Causal
    }
}
