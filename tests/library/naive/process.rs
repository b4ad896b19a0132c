//! The processing steps, written from `HookedTransformer`'s methods.

use super::{Num, Params, Rounding, Value};
use pathsum::Config;
use pathsum::model::NormWeight;

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

/// A norm's name, and the weights and biases that read its output; `W` is `[.., d, d_out]`.
fn readers(c: &Config) -> Vec<(String, Vec<(String, String)>)> {
    let mut all = Vec::new();
    for l in 0..c.n_layers {
        let of = |name: String| format!("blocks.{l}.{name}");
        let pair = |site: &str| {
            let name = |kind: &str| of(site.replace('_', &format!("{kind}_")));
            (name("W"), name("b"))
        };
        let attn = ["attn._Q", "attn._K", "attn._V"].map(pair).to_vec();
        all.push((of("ln1".into()), attn));
        if c.mlp.is_some() {
            // What gates has no bias, and neither has what is gated.
            let gated = c.mlp.is_some_and(|mlp| mlp.gated);
            let own = match gated {
                true => ["mlp.W_gate", "mlp.W_in"]
                    .map(|W| (of(W.into()), String::new()))
                    .to_vec(),
                false => vec![pair("mlp._in")],
            };
            all.push((of("ln2".into()), own));
        }
        if c.mlp.is_some() && c.act_fn() == Some(pathsum::model::ActFn::SoluLn) {
            all.push((of("mlp.ln".into()), vec![pair("mlp._out")]));
        }
    }
    let unembed = ("unembed.W_U".to_string(), "unembed.b_U".to_string());
    all.push(("ln_final".to_string(), vec![unembed]));
    all
}

/// `b += ln.b W`, `W = ln.w W` less its mean over what it reads; then `ln.w = 1`, `ln.b = 0`.
pub fn fold_layer_norm(c: &Config, r: Rounding, params: &mut Params) {
    let Some(kind) = c.norm else { return };
    for (norm, readers) in readers(c) {
        // Gated neurons have no bias for a `b`.
        if kind.bias && c.gated() && norm.ends_with("ln2") {
            continue;
        }
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

/// Everything that writes to the stream, centred over `d_model`.
pub fn center_writing_weights(c: &Config, r: Rounding, params: &mut Params) {
    // Where the norms leave the mean, it is read.
    if !c.norm.is_some_and(|norm| norm.centred) {
        return;
    }
    let writes = |name: &str| {
        ["embed.W_E", "pos_embed.W_pos"].contains(&name)
            || [".W_O", ".b_O", ".W_out", ".b_out"]
                .iter()
                .any(|n| name.ends_with(n))
    };
    for (_, t) in params.iter_mut().filter(|(name, _)| writes(name)) {
        center(r, t, t.shape.len() - 1);
    }
}

/// `W_U` and `b_U`, centred over the logits.
pub fn center_unembed(r: Rounding, params: &mut Params) {
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
