//! The forward pass, hook by hook, written from the formulas of TransformerLens 2 and, where it has none, from the
//! definitions in `transformers` and in the papers.

use super::{Num, Params, Rounding, Value};
use pathsum::model::{
    ActFn, Mask, NormKind, NormPlace, NormWeight, Order, Pairing, Positions, RotaryPositions,
    RotaryScaling,
};
use pathsum::names::NormSite;
use pathsum::{Config, Hook, Tokens};

/// What a hook's closure does to its value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Edit {
    Zero,
    Halve,
}

/// Every hook's value in the order of the pass, and the logits.
pub struct Reference {
    pub hooks: Vec<(Hook, Value)>,
    pub logits: Value,
}

/// Sequences of one length, all of whose tokens are there.
#[derive(Clone)]
struct Whole {
    /// `[batch][pos]`, as are the kinds.
    ids: Vec<Vec<i64>>,
    types: Vec<Vec<i64>>,
}

struct Pass<'a> {
    c: &'a Config,
    params: &'a Params,
    r: Rounding,
    edits: &'a [(Hook, Edit)],
    tokens: Whole,
    hooks: Vec<(Hook, Value)>,
}

/// The pass. Sequences of which some tokens are left out are each run alone, without these.
pub fn forward(
    config: &Config,
    params: &Params,
    tokens: &Tokens,
    r: Rounding,
    edits: &[(Hook, Edit)],
) -> Reference {
    let run = |tokens: Whole| {
        let mut pass = Pass {
            c: config,
            params,
            r,
            edits,
            tokens,
            hooks: Vec::new(),
        };
        let logits = pass.run();
        Reference {
            hooks: pass.hooks,
            logits,
        }
    };
    let (batch, pos) = (tokens.batch(), tokens.pos());
    let types = tokens.token_types();
    let of = |s: usize, p: usize| (tokens.sequence(s)[p], types.map_or(0, |t| t[s * pos + p]));
    let sequence = |s: usize, kept: &[usize]| -> (Vec<i64>, Vec<i64>) {
        kept.iter().map(|&p| of(s, p)).unzip()
    };
    let Some(mask) = tokens.attention_mask() else {
        let all: Vec<usize> = (0..pos).collect();
        let (ids, types) = (0..batch).map(|s| sequence(s, &all)).unzip();
        return run(Whole { ids, types });
    };
    let kept: Vec<Vec<usize>> = (0..batch)
        .map(|s| (0..pos).filter(|p| mask[s * pos + p]).collect())
        .collect();
    let alone = kept.iter().enumerate().map(|(s, kept)| {
        let (ids, types) = sequence(s, kept);
        run(Whole {
            ids: vec![ids],
            types: vec![types],
        })
    });
    put_back(&alone.collect::<Vec<_>>(), &kept, pos)
}

/// The values of sequences that were each run alone, at the places of their tokens in a batch.
fn put_back(alone: &[Reference], kept: &[Vec<usize>], pos: usize) -> Reference {
    let place = |s: usize, p: usize| kept[s].iter().position(|&k| k == p);
    // Along the axes from 1 on, or of scores and patterns from 2 on, that count positions.
    let at_tokens = |of: &dyn Fn(usize) -> Value,
                     positions: std::ops::Range<usize>,
                     left: &dyn Fn(usize) -> Num| {
        let mut shape = of(0).shape.clone();
        shape[0] = alone.len();
        positions.clone().for_each(|axis| shape[axis] = pos);
        let values: Vec<Value> = (0..alone.len()).map(of).collect();
        Value::from_fn(&shape, |at| {
            let mut own = at.to_vec();
            own[0] = 0;
            for axis in positions.clone() {
                match place(at[0], at[axis]) {
                    Some(p) => own[axis] = p,
                    None => return left(axis),
                }
            }
            values[at[0]].at(&own)
        })
    };
    let hooks = alone[0].hooks.iter().enumerate().map(|(i, (hook, _))| {
        let of = |s: usize| alone[s].hooks[i].1.clone();
        // What stands at a query that is left out is nobody's business; a key that is left out is not seen.
        let value = match hook {
            Hook::AttnScores(_) | Hook::Pattern(_) => at_tokens(&of, 2..4, &|axis| match axis {
                2 => Num::any(),
                _ if matches!(hook, Hook::Pattern(_)) => Num::exact(0.0),
                _ => Num::exact(f64::NEG_INFINITY),
            }),
            _ => at_tokens(&of, 1..2, &|_| Num::any()),
        };
        (*hook, value)
    });
    Reference {
        hooks: hooks.collect(),
        logits: at_tokens(&|s| alone[s].logits.clone(), 1..2, &|_| Num::none()),
    }
}

impl<'a> Pass<'a> {
    fn param(&self, name: &str) -> &'a Value {
        let params = self.params;
        params.get(name).unwrap_or_else(|| panic!("no {name}"))
    }

    fn batch(&self) -> usize {
        self.tokens.ids.len()
    }

    fn pos(&self) -> usize {
        self.tokens.ids[0].len()
    }

    /// Changes a value as the edits on this hook say, and keeps it.
    fn visit(&mut self, hook: Hook, mut value: Value) -> Value {
        for (_, edit) in self.edits.iter().filter(|(h, _)| *h == hook) {
            for n in &mut value.data {
                *n = match edit {
                    Edit::Zero => Num::exact(0.0),
                    Edit::Halve => Num {
                        x: n.x / 2.0,
                        e: n.e / 2.0,
                    },
                };
            }
        }
        self.hooks.push((hook, value.clone()));
        value
    }

    fn run(&mut self) -> Value {
        let (c, r) = (self.c, self.r);
        let resid = self.embed();
        let mut resid = (0..c.n_layers).fold(resid, |resid, l| self.block(l, resid));
        // The blocks of a model like BERT end with a norm.
        if c.norm_place != NormPlace::Stream {
            resid = self.norm(NormSite::Final, &resid);
        }
        if let Some(act_fn) = c.mlm_head {
            let pre = self.linear(&resid, "mlm_head.W", Some("mlm_head.b"));
            let mut post = self.visit(Hook::MlmHeadPre, pre);
            let entries = post.data.iter_mut();
            entries.for_each(|x| *x = activate(r, act_fn, *x));
            let post = self.visit(Hook::MlmHeadPost, post);
            let kind = c.norm.unwrap_or(NormKind::LN);
            resid = self.norm_of(kind, NormSite::MlmHead, &post);
        }
        let mut logits = self.linear(&resid, "unembed.W_U", Some("unembed.b_U"));
        if let Some(cap) = c.logit_cap {
            let entries = logits.data.iter_mut();
            entries.for_each(|x| *x = capped(r, cap, *x));
        }
        logits
    }

    /// The stream before the first block.
    fn embed(&mut self) -> Value {
        let (c, tokens) = (self.c, self.tokens.clone());
        let stream = [self.batch(), self.pos(), c.d_model];
        let rows = |table: &Value, of: &dyn Fn(usize, usize) -> usize| {
            Value::from_fn(&stream, |at| table.at(&[of(at[0], at[1]), at[2]]))
        };
        let W_E = self.param("embed.W_E");
        let embed = rows(W_E, &|s, p| tokens.ids[s][p] as usize);
        let mut sum = self.visit(Hook::Embed, embed);
        if c.positions == Positions::Learned {
            let pos_embed = rows(self.param("pos_embed.W_pos"), &|_, p| p);
            let pos_embed = self.visit(Hook::PosEmbed, pos_embed);
            sum = self.plus(&sum, &pos_embed);
        }
        if c.token_types > 0 {
            let W = self.param("token_type_embed.W_token_type");
            let types = rows(W, &|s, p| tokens.types[s][p] as usize);
            let types = self.visit(Hook::TokenTypeEmbed, types);
            sum = self.plus(&sum, &types);
        }
        let Some(kind) = c.embed_norm else { return sum };
        let sum = self.visit(Hook::EmbedSum, sum);
        self.norm_of(kind, NormSite::Embed, &sum)
    }

    /// From the stream before a block to that behind it.
    fn block(&mut self, l: usize, resid: Value) -> Value {
        use NormPlace::{Around, Before, Output, Stream};
        let c = self.c;
        let resid = self.visit(Hook::ResidPre(l), resid);
        let read_through_a_norm = matches!(c.norm_place, Before | Around);
        let written_through_a_norm = matches!(c.norm_place, Around | Output) && c.norm.is_some();
        let in_parallel = c.order != Order::Sequential;

        let attn_in = match read_through_a_norm {
            true => self.norm(NormSite::Ln1(l), &resid),
            false => resid.clone(),
        };
        let attn_out = self.attention(l, &attn_in);
        let attn_out = match written_through_a_norm {
            true => {
                let sum = self.visit(Hook::AttnSum(l), attn_out);
                self.norm(NormSite::Ln1Post(l), &sum)
            }
            false => self.visit(Hook::AttnOut(l), attn_out),
        };
        let mut after = self.plus(&resid, &attn_out);
        if c.mlp.is_some() {
            // What the MLP reads, and what its output is added to.
            let (read, to) = match in_parallel {
                true => (resid, after),
                false => {
                    after = self.visit(Hook::ResidMid(l), after);
                    if c.norm_place == Stream {
                        after = self.norm(NormSite::Ln1(l), &after);
                    }
                    (after.clone(), after)
                }
            };
            let mlp_in = match (c.order, read_through_a_norm) {
                (Order::SharedNorm, _) => attn_in,
                (_, true) => self.norm(NormSite::Ln2(l), &read),
                (_, false) => read,
            };
            let mlp_out = self.mlp(l, &mlp_in);
            let mlp_out = match written_through_a_norm {
                true => {
                    let sum = self.visit(Hook::MlpSum(l), mlp_out);
                    self.norm(NormSite::Ln2Post(l), &sum)
                }
                false => self.visit(Hook::MlpOut(l), mlp_out),
            };
            after = self.plus(&to, &mlp_out);
        }
        after = self.visit(Hook::ResidPost(l), after);
        if c.norm_place == Stream && c.norm.is_some() {
            // Without an MLP the block has one norm.
            let last = match c.mlp {
                Some(_) => NormSite::Ln2(l),
                None => NormSite::Ln1(l),
            };
            after = self.norm(last, &after);
            after = self.visit(Hook::NormalizedResidPost(l), after);
        }
        after
    }

    fn plus(&self, a: &Value, b: &Value) -> Value {
        Value::from_fn(&a.shape, |at| self.r.add(a.at(at), b.at(at)))
    }

    /// The norm of this place, where the model has norms.
    fn norm(&mut self, site: NormSite, x: &Value) -> Value {
        match self.c.norm {
            Some(kind) => self.norm_of(kind, site, x),
            None => x.clone(),
        }
    }

    /// `scale = sqrt(mean((x - mean)²) + eps)`, `(x - mean) / scale · w + b`; in RMSNorm no mean is taken off. A row is
    /// what stands at a position; of queries and keys, what a head has there, unless the norm goes over all heads.
    fn norm_of(&mut self, kind: NormKind, site: NormSite, x: &Value) -> Value {
        let r = self.r;
        let over_all_heads = self.c.qk_norm.is_some_and(|norm| !norm.per_head);
        let mut scale_shape = x.shape.clone();
        let mut d = scale_shape.pop().expect("rows");
        if scale_shape.len() == 3 && over_all_heads {
            d *= std::mem::replace(&mut scale_shape[2], 1);
        }
        scale_shape.push(1);
        let name = match site {
            NormSite::Embed => "embed.ln".to_string(),
            NormSite::Ln1(l) => format!("blocks.{l}.ln1"),
            NormSite::Q(l) => format!("blocks.{l}.attn.q_norm"),
            NormSite::K(l) => format!("blocks.{l}.attn.k_norm"),
            NormSite::Ln1Post(l) => format!("blocks.{l}.ln1_post"),
            NormSite::Ln2(l) => format!("blocks.{l}.ln2"),
            NormSite::Neurons(l) => format!("blocks.{l}.mlp.ln"),
            NormSite::Ln2Post(l) => format!("blocks.{l}.ln2_post"),
            NormSite::Final => "ln_final".to_string(),
            NormSite::MlmHead => "mlm_head.ln".to_string(),
        };
        let rows = x.data.chunks_exact(d);
        let rows: Vec<Vec<Num>> = match kind.centred {
            true => rows.map(|row| r.centered(row)).collect(),
            false => rows.map(<[Num]>::to_vec).collect(),
        };
        // The constant is rounded once to the model's precision.
        let eps = Num {
            x: self.c.eps,
            e: self.c.eps * r.u,
        };
        let scale = |row: &Vec<Num>| {
            let squares = r.dot(Num::exact(0.0), row.iter().map(|&x| (x, x)));
            let mean = r.div(squares, Num::exact(d as f64));
            r.sqrt(r.add(mean, eps))
        };
        let scales = Value {
            shape: scale_shape,
            data: rows.iter().map(scale).collect(),
        };
        let scales = self.visit(Hook::Scale(site), scales);
        let w = (kind.weight != NormWeight::Absent).then(|| self.param(&format!("{name}.w")));
        let b = kind.bias.then(|| self.param(&format!("{name}.b")));
        let entry = |x: Num, scale: Num, i: usize| {
            let out = r.div(x, scale);
            let Some(w) = w else { return out };
            let w = match kind.weight {
                NormWeight::OnePlus => r.add(Num::exact(1.0), w.at(&[i])),
                _ => w.at(&[i]),
            };
            let b = b.map_or(Num::exact(0.0), |b| b.at(&[i]));
            r.dot(b, [(out, w)].into_iter())
        };
        let entries = rows.iter().zip(&scales.data).flat_map(|(row, &scale)| {
            let entries = row.iter().enumerate();
            entries
                .map(move |(i, &x)| entry(x, scale, i))
                .collect::<Vec<_>>()
        });
        let out = Value {
            shape: x.shape.clone(),
            data: entries.collect(),
        };
        let output = match site {
            NormSite::Embed => Hook::FullEmbed,
            NormSite::Ln1Post(l) => Hook::AttnOut(l),
            NormSite::Ln2Post(l) => Hook::MlpOut(l),
            site => Hook::Normalized(site),
        };
        self.visit(output, out)
    }

    /// `x W + b`, of rows of numbers.
    fn linear(&self, x: &Value, W: &str, b: Option<&str>) -> Value {
        let (W, b) = (self.param(W), b.map(|b| self.param(b)));
        let shape = [x.shape[0], x.shape[1], W.shape[1]];
        Value::from_fn(&shape, |at| {
            let pairs = (0..W.shape[0]).map(|i| (x.at(&[at[0], at[1], i]), W.at(&[i, at[2]])));
            let b = b.map_or(Num::exact(0.0), |b| b.at(&at[2..]));
            self.r.dot(b, pairs)
        })
    }

    fn attention(&mut self, l: usize, x: &Value) -> Value {
        let (c, r) = (self.c, self.r);
        let (batch, pos) = (self.batch(), self.pos());
        let window = c.windows.get(l).copied().flatten();
        let of = |name: &str| format!("blocks.{l}.attn.{name}");
        let zero = Num::exact(0.0);

        let mut project = |hook: Hook, which: char| {
            let heads = if which == 'Q' { c.n_heads } else { c.groups };
            let W = self.param(&of(&format!("W_{which}")));
            let b = self.param(&of(&format!("b_{which}")));
            let value = Value::from_fn(&[batch, pos, heads, c.d_head], |at| {
                let &[s, p, h, j] = at else { unreachable!() };
                let pairs = (0..c.d_model).map(|i| (x.at(&[s, p, i]), W.at(&[h, i, j])));
                r.dot(b.at(&[h, j]), pairs)
            });
            self.visit(hook, value)
        };
        // As many heads in a row share keys and values.
        let group = |h: usize| h * c.groups / c.n_heads;
        let q = project(Hook::Q(l), 'Q');
        let k = project(Hook::K(l), 'K');
        let v = project(Hook::V(l), 'V');

        let (q, k) = match c.qk_norm {
            None => (q, k),
            Some(norm) => (
                self.norm_of(norm.kind, NormSite::Q(l), &q),
                self.norm_of(norm.kind, NormSite::K(l), &k),
            ),
        };
        let (q, k) = match &c.positions {
            Positions::Learned | Positions::Alibi | Positions::None => (q, k),
            Positions::Rotary(rotary) => {
                // Layers that see a part of the sequence may have angles of their own.
                let own = c.windowed_rotary.as_ref().filter(|_| window.is_some());
                let rotary = own.unwrap_or(rotary);
                let q = turned(r, rotary, &q);
                let q = self.visit(Hook::RotQ(l), q);
                let k = turned(r, rotary, &k);
                (q, self.visit(Hook::RotK(l), k))
            }
        };
        let mut divisor = c.attn_scale;
        if c.scale_attn_by_inverse_layer_idx {
            divisor *= (l + 1) as f64;
        }
        // The constant is rounded once to the model's precision.
        let divisor = Num {
            x: divisor,
            e: divisor.abs() * r.u,
        };
        let square = [batch, c.n_heads, pos, pos];
        let tokens = self.tokens.clone();
        let scores = Value::from_fn(&square, |at| {
            let &[s, h, query, key] = at else {
                unreachable!()
            };
            if c.pad_token == Some(tokens.ids[s][key] as usize) {
                return Num::exact(-1e5);
            }
            // Keys after the query are hidden, and those as far back as the window is long.
            let after = c.mask == Mask::Causal && key > query;
            let before = window.is_some_and(|window| key < query && query - key >= window);
            if after || before {
                return Num::exact(f64::NEG_INFINITY);
            }
            let pairs =
                (0..c.d_head).map(|j| (q.at(&[s, query, h, j]), k.at(&[s, key, group(h), j])));
            let mut score = r.div(r.dot(zero, pairs), divisor);
            if c.positions == Positions::Alibi {
                let slope = slope(c.n_heads, h);
                let slope = Num {
                    x: slope,
                    e: slope * r.u,
                };
                score = r.add(score, r.mul(slope, Num::exact(key as f64)));
            }
            match c.score_cap {
                Some(cap) => capped(r, cap, score),
                None => score,
            }
        });
        let scores = self.visit(Hook::AttnScores(l), scores);

        let mut pattern = scores;
        for row in pattern.data.chunks_exact_mut(pos) {
            let softmax = softmax(r, row);
            row.copy_from_slice(&softmax);
        }
        let pattern = self.visit(Hook::Pattern(l), pattern);

        let z = Value::from_fn(&[batch, pos, c.n_heads, c.d_head], |at| {
            let &[s, p, h, j] = at else { unreachable!() };
            let pairs =
                (0..pos).map(|key| (pattern.at(&[s, h, p, key]), v.at(&[s, key, group(h), j])));
            r.dot(zero, pairs)
        });
        let z = self.visit(Hook::Z(l), z);

        let W_O = self.param(&of("W_O"));
        let result = Value::from_fn(&[batch, pos, c.n_heads, c.d_model], |at| {
            let &[s, p, h, i] = at else { unreachable!() };
            let pairs = (0..c.d_head).map(|j| (z.at(&[s, p, h, j]), W_O.at(&[h, j, i])));
            r.dot(zero, pairs)
        });
        let result = self.visit(Hook::Result(l), result);

        let b_O = self.param(&of("b_O"));
        Value::from_fn(&[batch, pos, c.d_model], |at| {
            let &[s, p, i] = at else { unreachable!() };
            let heads = (0..c.n_heads).map(|h| result.at(&[s, p, h, i]));
            r.sum(heads.chain([b_O.at(&[i])]))
        })
    }

    fn mlp(&mut self, l: usize, x: &Value) -> Value {
        let r = self.r;
        let of = |name: &str| format!("blocks.{l}.mlp.{name}");
        let act_fn = self.c.act_fn().expect("a model with MLPs has one");
        let gated = self.c.mlp.is_some_and(|mlp| mlp.gated);
        let biased = self.c.mlp.is_some_and(|mlp| mlp.gated && mlp.gate_bias);
        let pre = match gated {
            true => self.linear(
                x,
                &of("W_gate"),
                biased.then_some("b_gate").map(&of).as_deref(),
            ),
            false => self.linear(x, &of("W_in"), Some(&of("b_in"))),
        };
        let pre = self.visit(Hook::Pre(l), pre);
        let pre_linear = gated.then(|| {
            let value = self.linear(x, &of("W_in"), biased.then_some("b_in").map(&of).as_deref());
            self.visit(Hook::PreLinear(l), value)
        });

        let mut post = pre;
        let d_mlp = post.shape[2];
        for row in post.data.chunks_exact_mut(d_mlp) {
            match act_fn {
                ActFn::Solu | ActFn::SoluLn => {
                    let softmax = softmax(r, row);
                    let pairs = row.iter_mut().zip(softmax);
                    pairs.for_each(|(x, p)| *x = r.mul(*x, p));
                }
                _ => row.iter_mut().for_each(|x| *x = activate(r, act_fn, *x)),
            }
        }
        if let Some(pre_linear) = pre_linear {
            let b_in = self.param(&of("b_in"));
            post = Value::from_fn(&post.shape, |at| {
                let product = (post.at(at), pre_linear.at(at));
                let b_in = if biased {
                    Num::new(0.0, 0.0)
                } else {
                    b_in.at(&at[2..])
                };
                r.dot(b_in, [product].into_iter())
            });
        }
        if act_fn == ActFn::SoluLn {
            post = self.visit(Hook::Mid(l), post);
            // A LayerNorm, whatever the others are.
            let kind = match self.c.norm {
                Some(NormKind::LN) => NormKind::LN,
                _ => NormKind::LN_PRE,
            };
            post = self.norm_of(kind, NormSite::Neurons(l), &post);
        }
        let post = self.visit(Hook::Post(l), post);
        self.linear(&post, &of("W_out"), Some(&of("b_out")))
    }
}

/// ALiBi's slope of a head of so many: powers of `2^(-8/n)` where their number `n` is a power of two; else those of the
/// power of two below, and then every other one of those of the power of two above.
///
/// Source: `get_slopes` of Press et al., "Train Short, Test Long" (2021).
fn slope(heads: usize, head: usize) -> f64 {
    let of_power = |n: usize, i: usize| 2f64.powf(-8.0 * (i + 1) as f64 / n as f64);
    let mut below = 1;
    while 2 * below <= heads {
        below *= 2;
    }
    match head < below {
        true => of_power(below, head),
        false => of_power(2 * below, 2 * (head - below)),
    }
}

/// `cap tanh(x / cap)`
///
/// Its slope is at most one, which carries the error. The evaluation adds two roundings of the quotient `y`, of which
/// `|y tanh'(y)| <= |tanh y|` is left, three units in the last place of the function, and the roundings of the product
/// and of the cap in it: all relative to the result.
fn capped(r: Rounding, cap: f64, n: Num) -> Num {
    let value = cap * (n.x / cap).tanh();
    let own = (2.0 + 6.0 + 2.0) * r.u * (value.abs() + n.e);
    Num::new(value, n.e + own + r.tiny)
}

/// Queries or keys, each turned by its position. Angles are known to a rounding in f64, a sine and a cosine to that, to
/// two units in the last place of f64, and to a rounding.
fn turned(r: Rounding, rotary: &RotaryPositions, x: &Value) -> Value {
    let half = rotary.dim / 2;
    let length = x.shape[1];
    // What cosines and sines are multiplied by, before they are rounded.
    let scale = match &rotary.scaling {
        RotaryScaling::ByLength { scale, .. } => *scale,
        _ => 1.0,
    };
    let unrounded = |f: usize| {
        let plain = rotary.base.powf(-((2 * f) as f64) / rotary.dim as f64);
        match &rotary.scaling {
            RotaryScaling::None => plain,
            RotaryScaling::Linear(factor) => plain / factor,
            &RotaryScaling::ByParts {
                factor,
                low,
                high,
                original,
            } => {
                let wavelength = std::f64::consts::TAU / plain;
                if wavelength > original / low {
                    plain / factor
                } else if wavelength < original / high {
                    plain
                } else {
                    let smooth = (original / wavelength - low) / (high - low);
                    (1.0 - smooth) * plain / factor + smooth * plain
                }
            }
            RotaryScaling::ByLength {
                short,
                long,
                original,
                ..
            } => {
                let factors = if length > *original { long } else { short };
                1.0 / (factors[f] * rotary.base.powf((2 * f) as f64 / rotary.dim as f64))
            }
        }
    };
    let angle = |f: usize| {
        let angle = unrounded(f);
        if rotary.f32_angles {
            f64::from(angle as f32)
        } else {
            angle
        }
    };
    Value::from_fn(&x.shape, |at| {
        let &[s, p, h, j] = at else { unreachable!() };
        if j >= rotary.dim {
            return x.at(at);
        }
        // Whose partner this is, and by which sign it comes in.
        let (f, partner, sign) = match rotary.pairing {
            Pairing::Halves if j < half => (j, j + half, -1.0),
            Pairing::Halves => (j - half, j - half, 1.0),
            Pairing::Neighbours if j % 2 == 0 => (j / 2, j + 1, -1.0),
            Pairing::Neighbours => (j / 2, j - 1, 1.0),
        };
        let turn = p as f64 * angle(f);
        let off = |x: f64| Num {
            x: scale * x,
            e: scale * (r.u * x.abs() + 8.0 * (turn + 1.0) * f64::EPSILON),
        };
        let own = (x.at(at), off(turn.cos()));
        let other = (x.at(&[s, p, h, partner]), off(sign * turn.sin()));
        r.dot(Num::exact(0.0), [own, other].into_iter())
    })
}

/// How far off an elementary function may be, in units of roundoff: twice two units in the last place.
const ELEMENTARY: f64 = 4.0;

/// `e^s / Σ e^s`
///
/// A score that is off by `e`, less the largest (one rounding), through an exponential: the term is off
/// by a factor of at most `e^d`, `d = e + (|s - max| + ELEMENTARY) u`. The quotient is then off by a
/// factor between `e^-d_i / Σ p e^d` and `e^d_i / Σ p e^-d`, and by the sum's and its own roundings.
fn softmax(r: Rounding, row: &[Num]) -> Vec<Num> {
    let max = row.iter().map(|s| s.x).fold(f64::NEG_INFINITY, f64::max);
    let terms: Vec<f64> = row.iter().map(|s| (s.x - max).exp()).collect();
    let total: f64 = terms.iter().sum();
    let off = |i: usize| row[i].e + ((row[i].x - max).abs() + ELEMENTARY) * r.u;
    // What is zero stays zero, wherever the others are.
    let mean = |sign: f64| -> f64 {
        let seen = (0..row.len()).filter(|&i| terms[i] > 0.0);
        seen.map(|i| terms[i] / total * (sign * off(i)).exp()).sum()
    };
    let (least, most) = (mean(-1.0), mean(1.0));
    let one = |i: usize| {
        let p = terms[i] / total;
        if terms[i] == 0.0 {
            return Num::new(0.0, r.tiny);
        }
        let (up, down) = (off(i).exp() / least - 1.0, 1.0 - (-off(i)).exp() / most);
        let carried = p * up.max(down);
        let own = r.gamma(row.len() + 4) * (p + carried);
        Num::new(p, carried + own + r.tiny)
    };
    (0..row.len()).map(one).collect()
}

/// The function of one neuron.
///
/// All are `x g(x)` with a sigmoid-like `g` in [0, 1]. Their slope is nowhere above 1.13 in modulus (at
/// 1.5 or so, where the curve catches up with the line), which carries the argument's error.
/// The evaluation adds to `g` the error of an argument with at most seven roundings (the cube has most),
/// `7 |y g'(y)| u` with `|y g'(y)| < 1/4`, of the elementary function, and of a sum and a quotient; the
/// product adds two.
fn activate(r: Rounding, act_fn: ActFn, n: Num) -> Num {
    let x = n.x;
    let tanh = |k: f64| 0.5 * x * (1.0 + (k * (x + 0.044715 * x.powi(3))).tanh());
    let value = match act_fn {
        ActFn::Relu => return Num::new(x.max(0.0), n.e),
        ActFn::Linear => return n,
        ActFn::Gelu => 0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt())),
        ActFn::GeluNew | ActFn::GeluPytorchTanh => tanh((2.0 / std::f64::consts::PI).sqrt()),
        ActFn::GeluFast => tanh(0.7978845608),
        ActFn::GeluBloom => tanh(0.79788456),
        ActFn::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        ActFn::Silu => x / (1.0 + (-x).exp()),
        ActFn::Solu | ActFn::SoluLn => unreachable!("SoLU is no function of one neuron"),
    };
    const SLOPE: f64 = 1.13;
    let own = (7.0 / 4.0 + ELEMENTARY + 2.0 + 2.0) * r.u * n.most();
    Num::new(value, SLOPE * n.e + own + r.tiny)
}
