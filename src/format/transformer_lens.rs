//! TransformerLens's format: HookedTransformerConfig's fields, defaults and refusals, and the shapes of parameters in
//! a state dict.

use super::hugging_face;
use crate::diagram::{
    ActFn, Config, Mask, MlpKind, NormKind, NormWeight, Pairing, Positions, RotaryPositions,
    RotaryScaling,
};
use crate::error::{Error, Result, nearest_hint};
use crate::tensor::{Scalar, Tensor};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::path::Path;

/// The field `normalization_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum NormalizationType {
    /// LayerNorm with `w` and `b`.
    LN,
    /// LayerNorm without parameters.
    LNPre,
    /// RMSNorm with `w`.
    #[serde(rename = "RMS")]
    Rms,
    /// RMSNorm without parameters.
    #[serde(rename = "RMSPre")]
    RmsPre,
}

/// The field `attention_dir`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AttentionDir {
    Causal,
    Bidirectional,
}

/// The field `positional_embedding_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PositionalEmbeddingType {
    Standard,
    Rotary,
}

/// The fields as they stand in a file, absent ones defaulted as in HookedTransformerConfig.
#[derive(Deserialize)]
struct Raw {
    n_layers: usize,
    d_model: usize,
    n_ctx: usize,
    d_head: usize,
    #[serde(default = "unset")]
    n_heads: i64,
    n_key_value_heads: Option<usize>,
    d_mlp: Option<usize>,
    #[serde(default)]
    attn_only: bool,
    act_fn: Option<ActFn>,
    #[serde(default)]
    gated_mlp: bool,
    #[serde(default = "unset")]
    d_vocab: i64,
    #[serde(default = "unset")]
    d_vocab_out: i64,
    #[serde(default = "causal")]
    attention_dir: AttentionDir,
    #[serde(default = "layer_norm")]
    normalization_type: Option<NormalizationType>,
    /// Whether RMSNorm multiplies by `1 + w`: no field of HookedTransformerConfig.
    #[serde(default)]
    rms_one_plus: bool,
    #[serde(default = "default_eps")]
    eps: f64,
    #[serde(default = "standard")]
    positional_embedding_type: PositionalEmbeddingType,
    rotary_dim: Option<usize>,
    #[serde(default = "default_base")]
    rotary_base: f64,
    #[serde(default)]
    rotary_adjacent_pairs: bool,
    /// What all angles are divided by: no field of HookedTransformerConfig.
    rotary_linear_factor: Option<f64>,
    #[serde(default)]
    use_NTK_by_parts_rope: bool,
    #[serde(default = "default_factor")]
    NTK_by_parts_factor: f64,
    #[serde(default = "default_low")]
    NTK_by_parts_low_freq_factor: f64,
    #[serde(default = "default_high")]
    NTK_by_parts_high_freq_factor: f64,
    #[serde(default = "default_original")]
    NTK_original_ctx_len: f64,
    #[serde(default = "yes")]
    use_attn_scale: bool,
    #[serde(default = "unset_scale")]
    attn_scale: f64,
    #[serde(default)]
    scale_attn_by_inverse_layer_idx: bool,
    pad_token: Option<usize>,
}

fn unset() -> i64 {
    -1
}
fn unset_scale() -> f64 {
    -1.0
}
fn causal() -> AttentionDir {
    AttentionDir::Causal
}
fn layer_norm() -> Option<NormalizationType> {
    Some(NormalizationType::LN)
}
fn default_base() -> f64 {
    10000.0
}
fn default_factor() -> f64 {
    8.0
}
fn default_low() -> f64 {
    1.0
}
fn default_high() -> f64 {
    4.0
}
fn default_original() -> f64 {
    8192.0
}
fn default_eps() -> f64 {
    1e-5
}
fn standard() -> PositionalEmbeddingType {
    PositionalEmbeddingType::Standard
}
fn yes() -> bool {
    true
}

/// Fields of HookedTransformerConfig that change nothing that is computed here.
const INERT: &[&str] = &[
    "model_name",
    "use_attn_result",
    "use_split_qkv_input",
    "use_hook_mlp_in",
    "use_attn_in",
    "ungroup_grouped_query_attention",
    "original_architecture",
    "from_checkpoint",
    "checkpoint_index",
    "checkpoint_label_type",
    "checkpoint_value",
    "tokenizer_name",
    "window_size",
    "attn_types",
    "init_mode",
    "device",
    "n_devices",
    "seed",
    "initializer_range",
    "init_weights",
    "n_params",
    "use_hook_tokens",
    "default_prepend_bos",
    "dtype",
    "tokenizer_prepends_bos",
    "rotary_base_local",
    "trust_remote_code",
    "relative_attention_max_distance",
    "relative_attention_num_buckets",
    "decoder_start_token_id",
    "tie_word_embeddings",
];

/// Fields that ask for something not covered, unless they have this value (or null).
const UNCOVERED: &[(&str, serde_json::Value)] = {
    use serde_json::Value::{Bool, Null};
    &[
        ("use_qk_norm", Bool(false)),
        ("use_local_attn", Bool(false)),
        ("final_rms", Bool(false)),
        ("parallel_attn_mlp", Bool(false)),
        ("post_embedding_ln", Bool(false)),
        ("load_in_4bit", Bool(false)),
        ("num_experts", Null),
        ("experts_per_token", Null),
        ("use_normalization_before_and_after", Bool(false)),
        ("attn_scores_soft_cap", Null),
        ("output_logits_soft_cap", Null),
    ]
};

/// The fields of [`Raw`].
const COVERED: &[&str] = &[
    "n_layers",
    "d_model",
    "n_ctx",
    "d_head",
    "n_heads",
    "n_key_value_heads",
    "d_mlp",
    "attn_only",
    "act_fn",
    "gated_mlp",
    "d_vocab",
    "d_vocab_out",
    "attention_dir",
    "normalization_type",
    "rms_one_plus",
    "eps",
    "positional_embedding_type",
    "rotary_dim",
    "rotary_base",
    "rotary_adjacent_pairs",
    "rotary_linear_factor",
    "use_NTK_by_parts_rope",
    "NTK_by_parts_low_freq_factor",
    "NTK_by_parts_high_freq_factor",
    "NTK_by_parts_factor",
    "NTK_original_ctx_len",
    "use_attn_scale",
    "attn_scale",
    "scale_attn_by_inverse_layer_idx",
    "pad_token",
];

fn refuse<T>(field: &'static str, reason: impl Into<String>) -> Result<T> {
    Err(Error::Config {
        field,
        reason: reason.into(),
    })
}

impl Config {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// As [`Config::from_json`], naming the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let json = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        Self::from_json(&json).map_err(|e| Error::format(path, e))
    }

    /// The JSON of a `config.json`, which TransformerLens reads as well (but for `pad_token`).
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a config is plain data")
    }

    /// Reads the JSON of a `config.json`: HookedTransformerConfig's fields, or where it has a `model_type` Hugging
    /// Face's.
    ///
    /// # Errors
    /// On a field that HookedTransformerConfig does not have (by name, with the nearest), one that is
    /// missing and has no default, one whose value is not covered, and values that contradict each other.
    pub fn from_json(json: &str) -> Result<Self> {
        let value: serde_json::Value =
            serde_json::from_str(json).map_err(|e| Error::ConfigJson(format!("not JSON: {e}")))?;
        let serde_json::Value::Object(fields) = value else {
            return Err(Error::ConfigJson(
                "expected a JSON object of HookedTransformerConfig's fields".into(),
            ));
        };
        if hugging_face::is_config(&fields) {
            return hugging_face::config(fields);
        }
        let uncovered = || UNCOVERED.iter().map(|(name, _)| *name);
        for (name, value) in &fields {
            if let Some((field, neutral)) = UNCOVERED.iter().find(|(n, _)| n == name) {
                // A soft cap of -1.0 is HookedTransformerConfig's word for none.
                let off = value.is_null() || value == neutral || value.as_f64() == Some(-1.0);
                if !off {
                    return refuse(field, format!("{value} is not covered, expected {neutral}"));
                }
            } else if !COVERED.contains(&name.as_str()) && !INERT.contains(&name.as_str()) {
                let known = COVERED
                    .iter()
                    .copied()
                    .chain(uncovered())
                    .chain(INERT.iter().copied());
                return Err(Error::Unknown {
                    kind: "config field",
                    name: name.clone(),
                    hint: nearest_hint(name, known),
                });
            }
        }
        let kept = fields
            .into_iter()
            .filter(|(n, _)| COVERED.contains(&n.as_str()))
            .collect();
        Raw::read(kept)?.resolve()
    }
}

impl Raw {
    /// Field by field, so that a wrong value is reported under its field's name.
    fn read(fields: serde_json::Map<String, serde_json::Value>) -> Result<Self> {
        // serde's own message for a struct names a line of the file, not the field.
        for &field in COVERED {
            let Some(value) = fields.get(field) else {
                continue;
            };
            let alone = serde_json::Map::from_iter([(field.to_string(), value.clone())]);
            if let Err(e) = serde_json::from_value::<Field>(serde_json::Value::Object(alone)) {
                // Rust's names of types are no words for a user.
                let reason = e
                    .to_string()
                    .replace(
                        "expected usize",
                        "expected a whole number that is not negative",
                    )
                    .replace("expected i64", "expected a whole number")
                    .replace("expected f64", "expected a number");
                return refuse(field, format!("{value}: {reason}"));
            }
        }
        serde_json::from_value(serde_json::Value::Object(fields))
            .map_err(|e| Error::ConfigJson(e.to_string()))
    }

    fn resolve(self) -> Result<Config> {
        let count = |field, n: i64, default: Option<usize>| match (usize::try_from(n), default) {
            (Ok(n), _) => Ok(n),
            (Err(_), Some(default)) if n == unset() => Ok(default),
            (Err(_), None) if n == unset() => refuse(field, "is missing, expected at least 1"),
            (Err(_), _) => refuse(field, format!("{n}, expected at least 1")),
        };
        let act_fn = match (self.attn_only, self.act_fn) {
            (true, _) => None,
            (false, Some(act_fn)) => Some(act_fn),
            (false, None) => {
                return refuse(
                    "act_fn",
                    "is missing, and the model has MLPs (attn_only is false)",
                );
            }
        };
        // Sizes are products of these: what is larger than any model is said before it is multiplied.
        let d_head = self.d_head;
        if d_head == 0 {
            return refuse("d_head", "is 0, expected at least 1");
        }
        let mlp = act_fn.map(|act_fn| MlpKind {
            d_mlp: self.d_mlp.unwrap_or(self.d_model.saturating_mul(4)),
            act_fn,
            gated: self.gated_mlp,
        });
        let attn_scale = match (self.use_attn_scale, self.attn_scale) {
            (false, _) => 1.0,
            (true, unset) if unset == unset_scale() => (d_head as f64).sqrt(),
            (true, given) => given,
        };
        let d_vocab = count("d_vocab", self.d_vocab, None)?;
        let n_heads = count("n_heads", self.n_heads, Some(self.d_model / d_head))?;
        let config = Config {
            n_layers: self.n_layers,
            d_model: self.d_model,
            n_ctx: self.n_ctx,
            d_head,
            n_heads,
            groups: self.n_key_value_heads.unwrap_or(n_heads),
            d_vocab,
            d_vocab_out: count("d_vocab_out", self.d_vocab_out, Some(d_vocab))?,
            positions: match self.positional_embedding_type {
                PositionalEmbeddingType::Standard => Positions::Learned,
                PositionalEmbeddingType::Rotary => Positions::Rotary(RotaryPositions {
                    dim: self.rotary_dim.unwrap_or(d_head),
                    base: self.rotary_base,
                    pairing: match self.rotary_adjacent_pairs {
                        true => Pairing::Neighbours,
                        false => Pairing::Halves,
                    },
                    scaling: match (self.use_NTK_by_parts_rope, self.rotary_linear_factor) {
                        (true, _) => RotaryScaling::ByParts {
                            factor: self.NTK_by_parts_factor,
                            low: self.NTK_by_parts_low_freq_factor,
                            high: self.NTK_by_parts_high_freq_factor,
                            original: self.NTK_original_ctx_len,
                        },
                        (false, Some(factor)) => RotaryScaling::Linear(factor),
                        (false, None) => RotaryScaling::None,
                    },
                }),
            },
            norm: self.normalization_type.map(|norm| match norm {
                NormalizationType::LN => NormKind::LN,
                NormalizationType::LNPre => NormKind::LN_PRE,
                NormalizationType::Rms if self.rms_one_plus => NormKind::RMS_ONE_PLUS,
                NormalizationType::Rms => NormKind::RMS,
                NormalizationType::RmsPre => NormKind::RMS_PRE,
            }),
            eps: self.eps,
            mask: match self.attention_dir {
                AttentionDir::Causal => Mask::Causal,
                AttentionDir::Bidirectional => Mask::All,
            },
            attn_scale,
            scale_attn_by_inverse_layer_idx: self.scale_attn_by_inverse_layer_idx,
            mlp,
            pad_token: self.pad_token,
            ..Config::default()
        };
        config.check()?;
        Ok(config)
    }
}

/// The fields as they are written.
#[derive(Serialize)]
struct Written {
    n_layers: usize,
    d_model: usize,
    n_ctx: usize,
    d_head: usize,
    n_heads: usize,
    n_key_value_heads: Option<usize>,
    d_mlp: Option<usize>,
    attn_only: bool,
    act_fn: Option<ActFn>,
    gated_mlp: bool,
    d_vocab: usize,
    d_vocab_out: usize,
    attention_dir: AttentionDir,
    normalization_type: Option<NormalizationType>,
    /// No field of HookedTransformerConfig.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    rms_one_plus: bool,
    eps: f64,
    positional_embedding_type: PositionalEmbeddingType,
    #[serde(flatten)]
    rotary: Option<WrittenRotary>,
    use_attn_scale: bool,
    attn_scale: f64,
    scale_attn_by_inverse_layer_idx: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pad_token: Option<usize>,
}

/// Those of rotary positions.
#[derive(Serialize)]
struct WrittenRotary {
    rotary_dim: usize,
    rotary_base: f64,
    rotary_adjacent_pairs: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotary_linear_factor: Option<f64>,
    use_NTK_by_parts_rope: bool,
    #[serde(flatten)]
    by_parts: Option<WrittenByParts>,
}

#[derive(Serialize)]
struct WrittenByParts {
    NTK_by_parts_factor: f64,
    NTK_by_parts_low_freq_factor: f64,
    NTK_by_parts_high_freq_factor: f64,
    NTK_original_ctx_len: f64,
}

impl WrittenRotary {
    fn of(rotary: &RotaryPositions) -> Self {
        let (linear, by_parts) = match rotary.scaling {
            RotaryScaling::None => (None, None),
            RotaryScaling::Linear(factor) => (Some(factor), None),
            RotaryScaling::ByParts {
                factor,
                low,
                high,
                original,
            } => {
                let by_parts = WrittenByParts {
                    NTK_by_parts_factor: factor,
                    NTK_by_parts_low_freq_factor: low,
                    NTK_by_parts_high_freq_factor: high,
                    NTK_original_ctx_len: original,
                };
                (None, Some(by_parts))
            }
            RotaryScaling::ByLength { .. } => (None, None),
        };
        WrittenRotary {
            rotary_dim: rotary.dim,
            rotary_base: rotary.base,
            rotary_adjacent_pairs: rotary.pairing == Pairing::Neighbours,
            rotary_linear_factor: linear,
            use_NTK_by_parts_rope: by_parts.is_some(),
            by_parts,
        }
    }
}

impl Written {
    fn of(c: &Config) -> Self {
        Written {
            n_layers: c.n_layers,
            d_model: c.d_model,
            n_ctx: c.n_ctx,
            d_head: c.d_head,
            n_heads: c.n_heads,
            n_key_value_heads: c.grouped().then_some(c.groups),
            d_mlp: c.d_mlp(),
            attn_only: c.mlp.is_none(),
            act_fn: c.act_fn(),
            gated_mlp: c.gated(),
            d_vocab: c.d_vocab,
            d_vocab_out: c.d_vocab_out,
            attention_dir: match c.mask {
                Mask::Causal => AttentionDir::Causal,
                Mask::All => AttentionDir::Bidirectional,
            },
            normalization_type: c.norm.map(|norm| match (norm.centred, norm.weight) {
                (true, NormWeight::Absent) => NormalizationType::LNPre,
                (true, NormWeight::Plain | NormWeight::OnePlus) => NormalizationType::LN,
                (false, NormWeight::Absent) => NormalizationType::RmsPre,
                (false, NormWeight::Plain | NormWeight::OnePlus) => NormalizationType::Rms,
            }),
            rms_one_plus: c.norm == Some(NormKind::RMS_ONE_PLUS),
            eps: c.eps,
            positional_embedding_type: match &c.positions {
                Positions::Learned | Positions::Alibi | Positions::None => {
                    PositionalEmbeddingType::Standard
                }
                Positions::Rotary(_) => PositionalEmbeddingType::Rotary,
            },
            rotary: match c.positions {
                Positions::Learned | Positions::Alibi | Positions::None => None,
                Positions::Rotary(ref rotary) => Some(WrittenRotary::of(rotary)),
            },
            use_attn_scale: true,
            attn_scale: c.attn_scale,
            scale_attn_by_inverse_layer_idx: c.scale_attn_by_inverse_layer_idx,
            pad_token: c.pad_token,
        }
    }
}

/// As the fields of HookedTransformerConfig.
impl Serialize for Config {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        Written::of(self).serialize(s)
    }
}

/// Whether a parameter stands by heads in a state dict, `[n_heads, d_model, d_head]`, and side by side in a model.
fn is_by_heads(name: &str) -> bool {
    [".attn.W_Q", ".attn.W_K", ".attn.W_V"]
        .iter()
        .any(|own| name.ends_with(own))
}

/// The other name that a parameter of keys or values has in a state dict, where heads share them.
pub(super) fn shared_name(name: &str) -> Option<String> {
    let of = ["attn.W_K", "attn.W_V", "attn.b_K", "attn.b_V"];
    let own = of.iter().find(|own| name.ends_with(*own))?;
    let (block, kind) = name.split_at(name.len() - own.len() + "attn.".len());
    Some(format!("{block}_{kind}"))
}

/// The shape that a parameter has in a state dict, from the model's own.
pub(super) fn shape_in_file(name: &str, own: &[usize]) -> Vec<usize> {
    match (is_by_heads(name), own) {
        (true, &[d_model, heads, d_head]) => vec![heads, d_model, d_head],
        (_, own) => own.to_vec(),
    }
}

/// A parameter as the model has it, from a state dict's.
pub(super) fn from_file<T: Scalar>(name: &str, value: Tensor<T>) -> Tensor<T> {
    match is_by_heads(name) {
        true => first_axes_swapped(&value),
        false => value,
    }
}

/// A parameter as a state dict has it.
pub(super) fn to_file<'a, T: Scalar>(name: &str, value: &'a Tensor<T>) -> Cow<'a, Tensor<T>> {
    match is_by_heads(name) {
        true => Cow::Owned(first_axes_swapped(value)),
        false => Cow::Borrowed(value),
    }
}

/// `[a, b, c]` as `[b, a, c]`.
fn first_axes_swapped<T: Scalar>(value: &Tensor<T>) -> Tensor<T> {
    let &[a, b, c] = value.shape() else {
        unreachable!("heads' weights have three axes")
    };
    let mut out = Tensor::zeros(&[b, a, c]);
    for (i, rows) in value.data().chunks_exact(b * c).enumerate() {
        for (j, row) in rows.chunks_exact(c).enumerate() {
            out.slice_mut(&[j, i]).copy_from_slice(row);
        }
    }
    out
}

/// One field's value, for its own error message.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code)]
enum Field {
    NLayers(usize),
    DModel(usize),
    NCtx(usize),
    DHead(usize),
    NHeads(i64),
    NKeyValueHeads(Option<usize>),
    DMlp(Option<usize>),
    AttnOnly(bool),
    ActFn(Option<ActFn>),
    GatedMlp(bool),
    DVocab(i64),
    DVocabOut(i64),
    AttentionDir(AttentionDir),
    NormalizationType(Option<NormalizationType>),
    RmsOnePlus(bool),
    Eps(f64),
    PositionalEmbeddingType(PositionalEmbeddingType),
    RotaryDim(Option<usize>),
    RotaryBase(f64),
    RotaryAdjacentPairs(bool),
    RotaryLinearFactor(Option<f64>),
    #[serde(rename = "use_NTK_by_parts_rope")]
    UseNtkByPartsRope(bool),
    #[serde(rename = "NTK_by_parts_factor")]
    NtkByPartsFactor(f64),
    #[serde(rename = "NTK_by_parts_low_freq_factor")]
    NtkByPartsLowFreqFactor(f64),
    #[serde(rename = "NTK_by_parts_high_freq_factor")]
    NtkByPartsHighFreqFactor(f64),
    #[serde(rename = "NTK_original_ctx_len")]
    NtkOriginalCtxLen(f64),
    UseAttnScale(bool),
    AttnScale(f64),
    ScaleAttnByInverseLayerIdx(bool),
    PadToken(Option<usize>),
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"{"n_layers": 1, "d_model": 8, "n_ctx": 4, "d_head": 4, "d_vocab": 5, "attn_only": true}"#;

    fn with(extra: &str) -> Result<Config> {
        Config::from_json(&SMALL.replace('}', &format!(", {extra}}}")))
    }

    #[test]
    fn absent_fields_have_the_defaults_of_hooked_transformer_config() {
        let config = Config::from_json(SMALL).unwrap();
        assert_eq!(config.n_heads, 2);
        assert_eq!(config.d_vocab_out, 5);
        assert_eq!(config.attn_scale, 2.0);
        assert_eq!(config.norm, Some(NormKind::LN));
        assert_eq!(with(r#""normalization_type": null"#).unwrap().norm, None);
        assert_eq!(
            with(r#""use_attn_scale": false"#).unwrap().score_scale(3),
            1.0
        );
        assert_eq!(
            with(r#""scale_attn_by_inverse_layer_idx": true"#)
                .unwrap()
                .score_scale(2),
            6.0
        );
        let mlp = SMALL.replace("true", "false, \"act_fn\": \"gelu_new\"");
        assert_eq!(Config::from_json(&mlp).unwrap().d_mlp(), Some(32));
    }

    #[test]
    fn errors_name_the_field() {
        for (extra, expected) in [
            (
                r#""n_head": 2"#,
                "unknown config field `n_head`; did you mean `n_heads`?",
            ),
            (
                r#""act_fn": "swish""#,
                "config field `act_fn`: \"swish\": unknown variant",
            ),
            (r#""eps": "small""#, "config field `eps`"),
            (
                r#""use_qk_norm": true"#,
                "config field `use_qk_norm`: true is not covered",
            ),
            (
                r#""positional_embedding_type": "alibi""#,
                "config field `positional_embedding_type`",
            ),
            (r#""d_vocab_out": 0"#, "config field `d_vocab_out`: is 0"),
            (r#""n_heads": -2"#, "config field `n_heads`: -2"),
            (
                r#""pad_token": 5"#,
                "config field `pad_token`: 5 is no token",
            ),
            (r#""attn_only": false"#, "config field `act_fn`: is missing"),
        ] {
            let json = SMALL
                .replace(r#", "attn_only": true"#, "")
                .replace('}', &format!(", {extra}}}"));
            let json = if extra.contains("attn_only") || extra.contains("act_fn") {
                json
            } else {
                json.replace('}', r#", "attn_only": true}"#)
            };
            let error = Config::from_json(&json).unwrap_err().to_string();
            assert!(error.contains(expected), "{extra}: {error}");
        }
        assert!(
            Config::from_json(r#"{"n_layers": 1}"#)
                .unwrap_err()
                .to_string()
                .contains("d_model")
        );
        assert!(Config::from_json("[]").is_err());
    }

    #[test]
    fn inert_and_neutral_fields_are_accepted() {
        with(r#""seed": null, "device": "cpu", "gated_mlp": false, "attn_scores_soft_cap": -1.0, "dtype": "torch.float32""#)
            .unwrap();
    }

    #[test]
    fn a_written_config_reads_back() {
        let config =
            with(r#""pad_token": 1, "normalization_type": null, "attn_scale": 3.5"#).unwrap();
        assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
    }

    #[test]
    fn fields_changed_by_hand_are_checked_too() {
        let mut config = Config::from_json(SMALL).unwrap();
        let weights = crate::model::Weights::<f64>::zeros(&config);
        config.attn_scale = 0.0;
        let error = crate::model::Model::new(config, weights).unwrap_err();
        assert!(error.to_string().contains("`attn_scale`: 0"), "{error}");
    }
}
