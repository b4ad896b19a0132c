//! The processing steps, written from `HookedTransformer`'s methods.

use super::{Num, Params, Rounding, Value};
use pathsum::Config;
use pathsum::model::{ActFn, NormKind, NormPlace, NormWeight, Order, Positions};

/// One tensor changed in place.
fn get<'a>(params: &'a mut Params, name: &str) -> &'a mut Value {
    params.get_mut(name).unwrap_or_else(|| panic!("no {name}"))
}

/// Centres each line of a tensor that runs along one axis.
pub fn center(r: Rounding, t: &mut Value, axis: usize) {
    let old = t.clone();
    let n = t.shape[axis];
    *t = Value::from_fn(&old.shape, |at| {
        let mut along = at.to_vec();
        let line: Vec<Num> = (0..n)
            .map(|i| {
                along[axis] = i;
                old.at(&along)
            })
            .collect();
        r.centered(&line)[at[axis]]
    });
}

/// Weights and biases, by their names; a bias that is not there has none.
type Maps = Vec<(String, String)>;

/// A norm of a model.
struct Norm {
    name: String,
    kind: NormKind,
    /// The linear maps that read its output, where nothing else does.
    readers: Option<Maps>,
}

fn maps(names: &[(&str, &str)]) -> Maps {
    let own = names.iter();
    own.map(|(W, b)| (W.to_string(), b.to_string())).collect()
}

/// Every norm of a model. `W` of what reads one is `[.., d, d_out]`.
fn norms(c: &Config) -> Vec<Norm> {
    use NormPlace::{Around, Before, Output, Stream};
    let stands = |places: &[NormPlace]| c.norm.filter(|_| places.contains(&c.norm_place));
    let mut all = Vec::new();
    let mut push = |name: String, kind: Option<NormKind>, readers: Option<Maps>| {
        all.extend(kind.map(|kind| Norm {
            name,
            kind,
            readers,
        }));
    };
    let unembed = maps(&[("unembed.W_U", "unembed.b_U")]);
    let last = match c.mlm_head {
        Some(_) => maps(&[("mlm_head.W", "mlm_head.b")]),
        None => unembed.clone(),
    };
    let before_last = stands(&[Before, Around, Output]);
    // What reads the stream at its end.
    let end = || Some(last.clone()).filter(|_| before_last.is_none());
    push(
        "embed.ln".into(),
        c.embed_norm,
        end().filter(|_| c.n_layers == 0),
    );
    for l in 0..c.n_layers {
        let of = |name: &str| format!("blocks.{l}.{name}");
        let here = |names: &[(&str, &str)]| -> Maps {
            let named = |name: &str| {
                if name.is_empty() {
                    String::new()
                } else {
                    of(name)
                }
            };
            names.iter().map(|(W, b)| (named(W), named(b))).collect()
        };
        let qk_norm = c.qk_norm.map(|norm| norm.kind);
        let of_stream = stands(&[Before, Around]);
        let of_written = stands(&[Around, Output]);
        let behind = stands(&[Stream]);
        let at_end = || end().filter(|_| l + 1 == c.n_layers);
        let mut readers = here(&[
            ("attn.W_Q", "attn.b_Q"),
            ("attn.W_K", "attn.b_K"),
            ("attn.W_V", "attn.b_V"),
        ]);
        push(of("attn.q_norm"), qk_norm, None);
        push(of("attn.k_norm"), qk_norm, None);
        push(of("ln1_post"), of_written, None);
        let Some(mlp) = c.mlp else {
            push(of("ln1"), of_stream, Some(readers));
            push(of("ln1"), behind, at_end());
            continue;
        };
        // What gates has mostly no bias, and neither has what is gated.
        let neurons = match (mlp.gated, mlp.gate_bias) {
            (true, true) => here(&[("mlp.W_gate", "mlp.b_gate"), ("mlp.W_in", "mlp.b_in")]),
            (true, false) => here(&[("mlp.W_gate", ""), ("mlp.W_in", "")]),
            (false, _) => here(&[("mlp.W_in", "mlp.b_in")]),
        };
        if c.order == Order::SharedNorm {
            readers.extend(neurons);
        } else {
            push(of("ln2"), of_stream, Some(neurons));
        }
        push(of("ln1"), of_stream, Some(readers));
        push(of("ln1"), behind, None);
        push(of("ln2"), behind, at_end());
        push(of("ln2_post"), of_written, None);
        let over_neurons = match (mlp.act_fn, c.norm) {
            (ActFn::SoluLn, Some(NormKind::LN)) => Some(NormKind::LN),
            (ActFn::SoluLn, _) => Some(NormKind::LN_PRE),
            _ => None,
        };
        let out = here(&[("mlp.W_out", "mlp.b_out")]);
        push(of("mlp.ln"), over_neurons, Some(out));
    }
    push("ln_final".into(), before_last, Some(last.clone()));
    let of_head = c.mlm_head.map(|_| c.norm.unwrap_or(NormKind::LN));
    push("mlm_head.ln".into(), of_head, Some(unembed));
    all
}

/// What a step leaves alone, by name; or why it leaves everything.
pub type Left = Result<Vec<String>, &'static str>;

/// Whether a norm's `w` and `b` can go into what reads it.
fn can_be_folded(norm: &Norm) -> bool {
    let takes = |(_, b): &(String, String)| !norm.kind.bias || !b.is_empty();
    let readers = norm.readers.as_ref();
    readers.is_some_and(|readers| readers.iter().all(takes))
}

/// What [`fold_layer_norm`] leaves.
pub fn left_by_folding(c: &Config) -> Left {
    let mut all = norms(c);
    if all.is_empty() {
        return Err("the model has no LayerNorm");
    }
    all.retain(|norm| norm.kind.weight != NormWeight::Absent);
    if all.is_empty() {
        return Err("the norms are LNPre: there are no w and b to fold");
    }
    if !all.iter().any(can_be_folded) {
        return Err("no norm is read by linear maps alone");
    }
    all.retain(|norm| !can_be_folded(norm));
    Ok(all.into_iter().map(|norm| norm.name).collect())
}

/// `b += ln.b W`, `W = ln.w W` less its mean over what it reads; then `ln.w = 1`, `ln.b = 0`.
pub fn fold_layer_norm(c: &Config, r: Rounding, params: &mut Params) {
    for norm in norms(c).into_iter().filter(can_be_folded) {
        let Norm {
            name: norm,
            kind,
            readers,
        } = norm;
        let readers = readers.expect("it can be folded into them");
        let Some(w) = params.get(&format!("{norm}.w")) else {
            continue;
        };
        let one = Num::exact(1.0);
        let one_plus = kind.weight == NormWeight::OnePlus;
        let w = match one_plus {
            true => Value::from_fn(&w.shape, |at| r.add(one, w.at(at))),
            false => w.clone(),
        };
        let zeros = Value::from_fn(&w.shape, |_| Num::exact(0.0));
        let b = params.get(&format!("{norm}.b")).cloned();
        let b = b.unwrap_or(zeros);
        for (W_name, b_name) in readers {
            let W = params[&W_name].clone();
            let axis = W.shape.len() - 2;
            let no_bias = &mut Value::from_fn(&[0], |_| Num::exact(0.0));
            let bias = params.get_mut(&b_name).unwrap_or(no_bias);
            *bias = Value::from_fn(&bias.shape.clone(), |at| {
                let column = |i: usize| {
                    let (lead, out) = at.split_at(at.len() - 1);
                    W.at(&[lead, &[i], out].concat())
                };
                let pairs = (0..W.shape[axis]).map(|i| (b.at(&[i]), column(i)));
                r.dot(bias.at(at), pairs)
            });
            let scaled = get(params, &W_name);
            *scaled = Value::from_fn(&W.shape, |at| r.mul(W.at(at), w.at(&at[axis..=axis])));
            if kind.centred {
                center(r, scaled, axis);
            }
        }
        let neutral = if one_plus { 0.0 } else { 1.0 };
        get(params, &format!("{norm}.w"))
            .data
            .fill(Num::exact(neutral));
        if let Some(b) = params.get_mut(&format!("{norm}.b")) {
            b.data.fill(Num::exact(0.0));
        }
    }
}

/// Whether a norm that takes off the mean is all that reads the embeddings' sum, in a model whose norms do.
fn embeddings_are_centred_anyway(c: &Config) -> bool {
    match (c.embed_norm, c.norm_place) {
        (Some(kind), _) => kind.centred,
        (None, NormPlace::Before | NormPlace::Around) => true,
        // Attention reads the stream as it is.
        (None, NormPlace::Output) => c.n_layers == 0,
        (None, NormPlace::Stream) => false,
    }
}

/// What [`center_writing_weights`] leaves.
pub fn left_by_centring(c: &Config) -> Left {
    match c.norm {
        None => return Err("the model has no LayerNorm: the stream's mean is read"),
        Some(norm) if !norm.centred => {
            return Err("the norms leave the stream's mean: it is read");
        }
        Some(_) => {}
    }
    match (embeddings_are_centred_anyway(c), c.n_layers) {
        (true, _) => Ok(Vec::new()),
        (false, 0) => Err("what is written is read before a norm takes off its mean"),
        (false, _) => {
            let positions = (c.positions == Positions::Learned).then_some("pos_embed.W_pos");
            let types = (c.token_types > 0).then_some("token_type_embed.W_token_type");
            let names = [Some("embed.W_E"), positions, types];
            Ok(names.into_iter().flatten().map(String::from).collect())
        }
    }
}

/// Everything that writes to the stream, centred over `d_model`, but for what is read with its mean.
pub fn center_writing_weights(c: &Config, r: Rounding, params: &mut Params) {
    let Ok(left) = left_by_centring(c) else {
        return;
    };
    let writes = |name: &String| {
        name.contains("embed.W_") && !name.starts_with("unembed")
            || [".W_O", ".b_O", ".W_out", ".b_out"]
                .iter()
                .any(|n| name.ends_with(n))
    };
    let written = params.iter_mut().filter(|(name, _)| writes(name));
    for (_, t) in written.filter(|(name, _)| !left.contains(name)) {
        center(r, t, t.shape.len() - 1);
    }
}

/// What [`center_unembed`] leaves.
pub fn left_by_centring_the_unembedding(c: &Config) -> Left {
    match c.logit_cap {
        Some(_) => Err("the logits are capped: a constant moves them unevenly"),
        None => Ok(Vec::new()),
    }
}

/// Why [`refactored`](pathsum::model::process::refactor_factored_attn_matrices) circuits would not be the same, if so.
pub fn left_by_refactoring(c: &Config) -> Left {
    if matches!(c.positions, Positions::Rotary(_)) {
        Err("positions turn queries and keys, and factors of W_QK do not turn with them")
    } else if c.qk_norm.is_some() {
        Err("queries and keys have norms, and factors of W_QK have others")
    } else if c.groups < c.n_heads {
        Err("heads share keys and values, and each would need factors of its own")
    } else {
        Ok(Vec::new())
    }
}

/// `W_U` and `b_U`, centred over the logits.
pub fn center_unembed(c: &Config, r: Rounding, params: &mut Params) {
    if left_by_centring_the_unembedding(c).is_err() {
        return;
    }
    center(r, get(params, "unembed.W_U"), 1);
    center(r, get(params, "unembed.b_U"), 0);
}

/// `b_O += Σ_h b_V[h] W_O[h]`, `b_V = 0`
pub fn fold_value_biases(c: &Config, r: Rounding, params: &mut Params) {
    for l in 0..c.n_layers {
        let of = |name: &str| format!("blocks.{l}.attn.{name}");
        let (b_V, W_O) = (params[&of("b_V")].clone(), params[&of("W_O")].clone());
        let b_O = get(params, &of("b_O"));
        *b_O = Value::from_fn(&[c.d_model], |at| {
            let of_heads = (0..c.n_heads).flat_map(|h| (0..c.d_head).map(move |j| (h, j)));
            let pairs = of_heads.map(|(h, j)| {
                (
                    b_V.at(&[h * c.groups / c.n_heads, j]),
                    W_O.at(&[h, j, at[0]]),
                )
            });
            r.dot(b_O.at(at), pairs)
        });
        get(params, &of("b_V")).data.fill(Num::exact(0.0));
    }
}
