//! The families, one a file: what its fields mean, and where its parameters are.
//!
//! Source: the configurations and models of `transformers` 4.57, with what an absent field means there.

mod bert;
mod bloom;
mod gemma;
mod gemma2;
mod gemma3;
mod gpt2;
mod gpt_neox;
mod gptj;
mod llama;
mod mistral;
mod olmo2;
mod opt;
mod phi;
mod phi3;
mod qwen2;
mod qwen3;
mod roberta;

use super::family::{Bias, Family, Row, Storage, Weave};
use crate::diagram::{ActFn, Config, MlpKind, Pairing, Positions, RotaryPositions, RotaryScaling};
use crate::error::Result;
use crate::format::fields::{Fields, refuse, shown};
use serde_json::{Value, json};

/// All of them. A model that is written as one of them, but is not said as which, is written as the first that has a
/// place for all of it.
pub(super) const FAMILIES: [&Family; 17] = [
    &gpt2::GPT2,
    &llama::LLAMA,
    &gpt_neox::GPT_NEOX,
    &gptj::GPTJ,
    &phi::PHI,
    &mistral::MISTRAL,
    &qwen2::QWEN2,
    &qwen3::QWEN3,
    &phi3::PHI3,
    &gemma::GEMMA,
    &gemma2::GEMMA2,
    &gemma3::GEMMA3,
    &olmo2::OLMO2,
    &opt::OPT,
    &bloom::BLOOM,
    &bert::BERT,
    &roberta::ROBERTA,
];

/// Queries, keys and values in one.
const QKV: &[&str] = &["attn.W_Q", "attn.W_K", "attn.W_V"];

/// Every head has its own keys and values, and the heads share the stream's width.
fn heads_of_the_stream(c: &mut Config) {
    c.groups = c.n_heads;
    c.d_head = of_the_stream(c);
}

/// A head's width where no field says it.
fn of_the_stream(c: &Config) -> usize {
    c.d_model.checked_div(c.n_heads).unwrap_or(0)
}

fn root(d: usize) -> f64 {
    (d as f64).sqrt()
}

/// MLPs: a field for their width, and one for their function.
fn mlp(
    f: &mut Fields,
    c: &mut Config,
    (width, default_width): (&'static str, usize),
    (act_fn, default_act_fn): (&'static str, ActFn),
    gated: bool,
) -> Result<()> {
    let mut mlp = c.mlp.unwrap_or(MlpKind {
        d_mlp: default_width,
        act_fn: default_act_fn,
        gated,
        gate_bias: false,
    });
    f.size(width, default_width, &mut mlp.d_mlp)?;
    f.act_fn(act_fn, default_act_fn, &mut mlp.act_fn)?;
    mlp.gated = gated;
    c.mlp = Some(mlp);
    Ok(())
}

/// Rotary positions as they are before their fields are read: over the whole head, in halves.
fn rotary_of(c: &Config) -> RotaryPositions {
    match &c.positions {
        Positions::Rotary(rotary) => rotary.clone(),
        Positions::Learned | Positions::Alibi | Positions::None => RotaryPositions {
            dim: c.d_head,
            base: 10000.0,
            pairing: Pairing::Halves,
            scaling: RotaryScaling::None,
            f32_angles: false,
        },
    }
}

/// The share of a head that is turned, by a field.
fn share(
    f: &mut Fields,
    name: &'static str,
    default: f64,
    d_head: usize,
    rotary: &mut RotaryPositions,
) -> Result<()> {
    let mut share = rotary.dim as f64 / d_head as f64;
    let dim = |share: f64| (d_head as f64 * share) as usize;
    if dim(share) < rotary.dim {
        share = share.next_up();
    }
    f.number(name, default, &mut share)?;
    rotary.dim = dim(share);
    Ok(())
}

/// How many keys queries see, by layer: `window` where the field `layer_types` says sliding, or where it is absent and
/// `slides` does.
fn windows(
    f: &mut Fields,
    c: &mut Config,
    window: Option<usize>,
    slides: impl Fn(usize) -> bool,
) -> Result<()> {
    const NAME: &str = "layer_types";
    const KINDS: [&str; 2] = ["full_attention", "sliding_attention"];
    if f.writes() {
        let kind = |l| KINDS[usize::from(c.window(l).is_some())];
        let kinds: Vec<&str> = (0..c.n_layers).map(kind).collect();
        f.set(NAME, json!(kinds));
        return Ok(());
    }
    let slide: Vec<bool> = match f.given(NAME) {
        None => (0..c.n_layers).map(slides).collect(),
        Some(Value::Array(kinds)) if kinds.len() == c.n_layers => {
            let slide = |kind: &Value| match KINDS.iter().position(|own| kind == own) {
                Some(i) => Ok(i == 1),
                None => refuse(
                    NAME,
                    format!(
                        "{} is not covered, expected {}",
                        shown(kind),
                        KINDS.join(" or ")
                    ),
                ),
            };
            kinds.iter().map(slide).collect::<Result<_>>()?
        }
        Some(found) => {
            let reason = format!("{}, expected a name for each layer", shown(found));
            return refuse(NAME, reason);
        }
    };
    if slide.contains(&true) && window.is_none() {
        let reason = "names sliding layers, but the file gives no window";
        return refuse(NAME, reason);
    }
    if slide.contains(&true) {
        c.windows = slide.into_iter().map(|s| window.filter(|_| s)).collect();
    }
    Ok(())
}

/// The same window in all layers, or none.
fn one_window(
    f: &mut Fields,
    c: &mut Config,
    (name, default): (&'static str, Option<usize>),
) -> Result<()> {
    let mut window = any_window(c);
    f.optional_size(name, default, &mut window)?;
    if window.is_some() {
        c.windows = vec![window; c.n_layers];
    }
    Ok(())
}

/// The window of the layers that have one.
fn any_window(c: &Config) -> Option<usize> {
    c.windows.iter().copied().flatten().next()
}
