//! Hugging Face's format: the fields of a LLaMA's `config.json`, and its tensors' names and shapes.

use crate::diagram::{
    ActFn, Config, Mask, MlpKind, NormKind, Pairing, Positions, RotaryPositions, RotaryScaling,
};
use crate::error::{Error, Result, nearest_hint};
use crate::model::Weights;
use crate::tensor::{Scalar, Tensor, TensorFile};
use serde::Deserialize;
use serde_json::Value;

/// The tensor that every model has, and no state dict of TransformerLens.
const EMBEDDING: &str = "model.embed_tokens.weight";
/// The unembedding's; where the two are one, it is not there.
const UNEMBEDDING: &str = "lm_head.weight";

/// The fields that change what a LLaMA computes, absent ones as in `transformers`' LlamaConfig.
#[derive(Deserialize)]
struct Llama {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    #[serde(default = "context")]
    max_position_embeddings: usize,
    #[serde(default = "eps")]
    rms_norm_eps: f64,
    #[serde(default = "silu")]
    hidden_act: String,
    rope_theta: Option<f64>,
    rope_scaling: Option<Rope>,
    /// What version 5 has in place of the two above.
    rope_parameters: Option<Rope>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
}

#[derive(Deserialize)]
struct Rope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

fn context() -> usize {
    2048
}
fn eps() -> f64 {
    1e-6
}
fn silu() -> String {
    "silu".into()
}

fn refuse<T>(field: &'static str, reason: impl Into<String>) -> Result<T> {
    let reason = reason.into();
    Err(Error::Config { field, reason })
}

/// Whether these are the fields of such a file.
pub(super) fn is_config(fields: &serde_json::Map<String, Value>) -> bool {
    fields.contains_key("model_type")
}

/// The configuration that these fields describe.
pub(super) fn config(fields: serde_json::Map<String, Value>) -> Result<Config> {
    match fields.get("model_type").and_then(Value::as_str) {
        Some("llama") => {}
        _ => {
            let found = &fields["model_type"];
            return refuse(
                "model_type",
                format!("{found} is not covered, expected \"llama\""),
            );
        }
    }
    let own = Value::Object(fields);
    let c: Llama = serde_json::from_value(own).map_err(|e| Error::ConfigJson(e.to_string()))?;
    let act_fn = match c.hidden_act.as_str() {
        "silu" | "swish" => ActFn::Silu,
        other => {
            return refuse(
                "hidden_act",
                format!("{other:?} is not covered, expected \"silu\""),
            );
        }
    };
    for (field, there) in [
        ("attention_bias", c.attention_bias),
        ("mlp_bias", c.mlp_bias),
    ] {
        if there {
            return refuse(field, "true is not covered, expected false");
        }
    }
    if c.num_attention_heads == 0 {
        return refuse("num_attention_heads", "is 0, expected at least 1");
    }
    let d_head = c.head_dim.unwrap_or(c.hidden_size / c.num_attention_heads);
    let rope = c.rope_parameters.as_ref().or(c.rope_scaling.as_ref());
    let config = Config {
        n_layers: c.num_hidden_layers,
        d_model: c.hidden_size,
        n_ctx: c.max_position_embeddings,
        n_heads: c.num_attention_heads,
        groups: c.num_key_value_heads.unwrap_or(c.num_attention_heads),
        d_head,
        d_vocab: c.vocab_size,
        d_vocab_out: c.vocab_size,
        positions: Positions::Rotary(RotaryPositions {
            dim: d_head,
            base: rope
                .and_then(|r| r.rope_theta)
                .or(c.rope_theta)
                .unwrap_or(10000.0),
            pairing: Pairing::Halves,
            scaling: rope.map_or(Ok(RotaryScaling::None), scaling)?,
        }),
        norm: Some(NormKind::RMS),
        eps: c.rms_norm_eps,
        mask: Mask::Causal,
        attn_scale: (d_head as f64).sqrt(),
        scale_attn_by_inverse_layer_idx: false,
        mlp: Some(MlpKind {
            d_mlp: c.intermediate_size,
            act_fn,
            gated: true,
        }),
        pad_token: None,
        ..Config::default()
    };
    config.check()?;
    Ok(config)
}

fn scaling(rope: &Rope) -> Result<RotaryScaling> {
    let field = |name: &'static str, value: Option<f64>| {
        value.map_or_else(|| refuse(name, "is missing from the rope's parameters"), Ok)
    };
    match rope.rope_type.as_deref() {
        None | Some("default") => Ok(RotaryScaling::None),
        Some("linear") => Ok(RotaryScaling::Linear(field("factor", rope.factor)?)),
        Some("llama3") => Ok(RotaryScaling::ByParts {
            factor: field("factor", rope.factor)?,
            low: field("low_freq_factor", rope.low_freq_factor)?,
            high: field("high_freq_factor", rope.high_freq_factor)?,
            original: field(
                "original_max_position_embeddings",
                rope.original_max_position_embeddings,
            )?,
        }),
        Some(other) => refuse(
            "rope_type",
            format!("{other:?} is not covered, expected default, linear or llama3"),
        ),
    }
}

/// Whether a file has such tensors.
pub(super) fn is_weights(file: &TensorFile) -> bool {
    file.names().any(|name| name == EMBEDDING)
}

/// The name of the tensor that a parameter is read from; none for parameters that a LLaMA has not, which are zero.
fn name_in_file(parameter: &str) -> Option<String> {
    let in_layer = |rest: &str| {
        let (layer, own) = rest.split_once('.')?;
        let own = match own {
            "ln1.w" => "input_layernorm",
            "attn.W_Q" => "self_attn.q_proj",
            "attn.W_K" => "self_attn.k_proj",
            "attn.W_V" => "self_attn.v_proj",
            "attn.W_O" => "self_attn.o_proj",
            "ln2.w" => "post_attention_layernorm",
            "mlp.W_gate" => "mlp.gate_proj",
            "mlp.W_in" => "mlp.up_proj",
            "mlp.W_out" => "mlp.down_proj",
            _ => return None,
        };
        Some(format!("model.layers.{layer}.{own}.weight"))
    };
    match parameter {
        "embed.W_E" => Some(EMBEDDING.into()),
        "ln_final.w" => Some("model.norm.weight".into()),
        "unembed.W_U" => Some(UNEMBEDDING.into()),
        _ => in_layer(parameter.strip_prefix("blocks.")?),
    }
}

/// The weights of named tensors.
pub(super) fn weights<T: Scalar>(config: &Config, file: &TensorFile) -> Result<Weights<T>> {
    let mut read = Vec::new();
    let weights = Weights::build(config, |parameter, shape| {
        let Some(name) = name_in_file(parameter) else {
            return Ok(Tensor::zeros(shape));
        };
        // A tied unembedding is the embedding.
        let tied = name == UNEMBEDDING && file.shape(&name).is_none();
        let name = if tied { EMBEDDING.to_string() } else { name };
        // As [outputs, inputs]; embeddings and norms as they are.
        let transposed = shape.len() > 1 && parameter != "embed.W_E";
        let inputs = match parameter.ends_with("attn.W_O") {
            true => shape[0] * shape[1],
            false => shape[0],
        };
        let outputs = shape.iter().product::<usize>() / inputs.max(1);
        let expected = match transposed {
            true => vec![outputs, inputs],
            false => shape.to_vec(),
        };
        let found = file.shape(&name).ok_or_else(|| Error::MissingTensor {
            name: name.clone(),
            expected: expected.clone(),
        })?;
        if found != expected {
            let found = found.to_vec();
            return Err(Error::Shape {
                name,
                found,
                expected,
            });
        }
        let value = file.float::<T>(&name)?;
        read.push(name);
        if !transposed {
            return Ok(value);
        }
        let mut out = Tensor::zeros(shape);
        let to = out.data_mut();
        for (j, row) in value.data().chunks_exact(inputs.max(1)).enumerate() {
            let column = to[j..].iter_mut().step_by(outputs);
            column.zip(row).for_each(|(to, &x)| *to = x);
        }
        Ok(out)
    })?;
    let buffer = |name: &str| name.ends_with(".rotary_emb.inv_freq");
    if let Some(name) = file
        .names()
        .find(|n| !buffer(n) && !read.iter().any(|r| r == n))
    {
        let hint = nearest_hint(name, read.iter().map(String::as_str));
        return Err(Error::UnexpectedTensor {
            name: name.into(),
            reason: format!("the configuration does not call for it{hint}"),
        });
    }
    Ok(weights)
}
