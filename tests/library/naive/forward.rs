//! The forward pass, hook by hook, written from the formulas of TransformerLens 2.

use super::{Num, Params, Rounding, Value};
use pathsum::model::{
    ActFn, Mask, NormKind, NormWeight, Pairing, Positions, RotaryPositions, RotaryScaling,
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

struct Pass<'a> {
    c: &'a Config,
    params: &'a Params,
    r: Rounding,
    edits: &'a [(Hook, Edit)],
    hooks: Vec<(Hook, Value)>,
}

pub fn forward(
    config: &Config,
    params: &Params,
    tokens: &Tokens,
    r: Rounding,
    edits: &[(Hook, Edit)],
) -> Reference {
    let mut pass = Pass {
        c: config,
        params,
        r,
        edits,
        hooks: Vec::new(),
    };
    let logits = pass.run(tokens);
    Reference {
        hooks: pass.hooks,
        logits,
    }
}

impl<'a> Pass<'a> {
    fn param(&self, name: &str) -> &'a Value {
        let params = self.params;
        params.get(name).unwrap_or_else(|| panic!("no {name}"))
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

    fn run(&mut self, tokens: &Tokens) -> Value {
        let (c, r) = (self.c, self.r);
        let (batch, pos) = (tokens.batch(), tokens.pos());
        let stream = [batch, pos, c.d_model];

        let W_E = self.param("embed.W_E");
        let embed = Value::from_fn(&stream, |at| {
            W_E.at(&[tokens.sequence(at[0])[at[1]] as usize, at[2]])
        });
        let embed = self.visit(Hook::Embed, embed);
        let plus = |a: &Value, b: &Value| Value::from_fn(&stream, |at| r.add(a.at(at), b.at(at)));
        let mut resid = match c.positions {
            Positions::Rotary(_) | Positions::Alibi | Positions::None => embed,
            Positions::Learned => {
                let W_pos = self.param("pos_embed.W_pos");
                let pos_embed = Value::from_fn(&stream, |at| W_pos.at(&[at[1], at[2]]));
                let pos_embed = self.visit(Hook::PosEmbed, pos_embed);
                plus(&embed, &pos_embed)
            }
        };
        for l in 0..c.n_layers {
            resid = self.visit(Hook::ResidPre(l), resid);
            let hooks = (
                Hook::Scale(NormSite::Ln1(l)),
                Hook::Normalized(NormSite::Ln1(l)),
            );
            let x = self.norm(&resid, &format!("blocks.{l}.ln1"), hooks);
            let attn_out = self.attention(l, &x, tokens);
            let attn_out = self.visit(Hook::AttnOut(l), attn_out);
            resid = plus(&resid, &attn_out);
            if c.mlp.is_some() {
                resid = self.visit(Hook::ResidMid(l), resid);
                let hooks = (
                    Hook::Scale(NormSite::Ln2(l)),
                    Hook::Normalized(NormSite::Ln2(l)),
                );
                let x = self.norm(&resid, &format!("blocks.{l}.ln2"), hooks);
                let mlp_out = self.mlp(l, &x);
                let mlp_out = self.visit(Hook::MlpOut(l), mlp_out);
                resid = plus(&resid, &mlp_out);
            }
            resid = self.visit(Hook::ResidPost(l), resid);
        }
        let hooks = (
            Hook::Scale(NormSite::Final),
            Hook::Normalized(NormSite::Final),
        );
        let x = self.norm(&resid, "ln_final", hooks);
        self.linear(&x, "unembed.W_U", "unembed.b_U")
    }

    /// The norm of this name, where the model has norms.
    fn norm(&mut self, x: &Value, name: &str, hooks: (Hook, Hook)) -> Value {
        match self.c.norm {
            Some(kind) => self.norm_of(kind, x, name, hooks),
            None => x.clone(),
        }
    }

    /// `scale = sqrt(mean((x - mean)²) + eps)`, `(x - mean) / scale · w + b`; in RMSNorm no mean is taken off.
    fn norm_of(
        &mut self,
        kind: NormKind,
        x: &Value,
        name: &str,
        (scale, normalized): (Hook, Hook),
    ) -> Value {
        let r = self.r;
        let &[batch, pos, d] = x.shape.as_slice() else {
            panic!("{:?}", x.shape)
        };
        let rows = x.data.chunks_exact(d);
        let centered = match kind.centred {
            true => Value {
                shape: x.shape.clone(),
                data: rows.flat_map(|row| r.centered(row)).collect(),
            },
            false => x.clone(),
        };
        // The constant is rounded once to the model's precision.
        let eps = Num {
            x: self.c.eps,
            e: self.c.eps * r.u,
        };
        let scales = Value::from_fn(&[batch, pos, 1], |at| {
            let entries = (0..d).map(|i| centered.at(&[at[0], at[1], i]));
            let squares = r.dot(Num::exact(0.0), entries.map(|x| (x, x)));
            let mean = r.div(squares, Num::exact(d as f64));
            r.sqrt(r.add(mean, eps))
        });
        let scales = self.visit(scale, scales);
        let mut out = Value::from_fn(&x.shape, |at| {
            r.div(centered.at(at), scales.at(&[at[0], at[1], 0]))
        });
        if kind.weight != NormWeight::Absent {
            let w = self.param(&format!("{name}.w"));
            let w = |i: &[usize]| match kind.weight {
                NormWeight::OnePlus => r.add(Num::exact(1.0), w.at(i)),
                _ => w.at(i),
            };
            let b = kind.bias.then(|| self.param(&format!("{name}.b")));
            out = Value::from_fn(&x.shape, |at| {
                let i = &at[2..];
                let b = b.map_or(Num::exact(0.0), |b| b.at(i));
                r.dot(b, [(out.at(at), w(i))].into_iter())
            });
        }
        self.visit(normalized, out)
    }

    /// `x W + b`
    fn linear(&self, x: &Value, W: &str, b: &str) -> Value {
        let (W, b) = (self.param(W), self.param(b));
        let shape = [x.shape[0], x.shape[1], W.shape[1]];
        Value::from_fn(&shape, |at| {
            let pairs = (0..W.shape[0]).map(|i| (x.at(&[at[0], at[1], i]), W.at(&[i, at[2]])));
            self.r.dot(b.at(&at[2..]), pairs)
        })
    }

    /// `x W`
    fn linear_without_bias(&self, x: &Value, W: &str) -> Value {
        let W = self.param(W);
        let shape = [x.shape[0], x.shape[1], W.shape[1]];
        Value::from_fn(&shape, |at| {
            let pairs = (0..W.shape[0]).map(|i| (x.at(&[at[0], at[1], i]), W.at(&[i, at[2]])));
            self.r.dot(Num::exact(0.0), pairs)
        })
    }

    fn attention(&mut self, l: usize, x: &Value, tokens: &Tokens) -> Value {
        let (c, r) = (self.c, self.r);
        let (batch, pos) = (tokens.batch(), tokens.pos());
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

        let (q, k) = match &c.positions {
            Positions::Learned | Positions::Alibi | Positions::None => (q, k),
            Positions::Rotary(rotary) => {
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
        let scores = Value::from_fn(&square, |at| {
            let &[s, h, query, key] = at else {
                unreachable!()
            };
            if c.pad_token == Some(tokens.sequence(s)[key] as usize) {
                return Num::exact(-1e5);
            }
            if c.mask == Mask::Causal && key > query {
                return Num::exact(f64::NEG_INFINITY);
            }
            let pairs =
                (0..c.d_head).map(|j| (q.at(&[s, query, h, j]), k.at(&[s, key, group(h), j])));
            r.div(r.dot(zero, pairs), divisor)
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
        let pre = match gated {
            true => self.linear_without_bias(x, &of("W_gate")),
            false => self.linear(x, &of("W_in"), &of("b_in")),
        };
        let pre = self.visit(Hook::Pre(l), pre);
        let pre_linear = gated.then(|| {
            let value = self.linear_without_bias(x, &of("W_in"));
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
                r.dot(b_in.at(&at[2..]), [product].into_iter())
            });
        }
        if act_fn == ActFn::SoluLn {
            post = self.visit(Hook::Mid(l), post);
            let hooks = (
                Hook::Scale(NormSite::Neurons(l)),
                Hook::Normalized(NormSite::Neurons(l)),
            );
            // A LayerNorm, whatever the others are.
            let kind = match self.c.norm {
                Some(NormKind::LN) => NormKind::LN,
                _ => NormKind::LN_PRE,
            };
            post = self.norm_of(kind, &post, &of("ln"), hooks);
        }
        let post = self.visit(Hook::Post(l), post);
        self.linear(&post, &of("W_out"), &of("b_out"))
    }
}

/// Queries or keys, each turned by its position. Angles are known to a rounding in f64, a sine and a cosine to that, to
/// two units in the last place of f64, and to a rounding.
fn turned(r: Rounding, rotary: &RotaryPositions, x: &Value) -> Value {
    let half = rotary.dim / 2;
    let angle = |f: usize| {
        let plain = rotary.base.powf(-((2 * f) as f64) / rotary.dim as f64);
        match rotary.scaling {
            RotaryScaling::None => plain,
            RotaryScaling::Linear(factor) => plain / factor,
            RotaryScaling::ByParts {
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
            RotaryScaling::ByLength { .. } => unreachable!("no model here has it"),
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
            x,
            e: r.u * x.abs() + 8.0 * (turn + 1.0) * f64::EPSILON,
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
