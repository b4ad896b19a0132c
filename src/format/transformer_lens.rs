//! TransformerLens's format: HookedTransformerConfig's fields, defaults and refusals, and the shapes of parameters in
//! a state dict.

use super::fields::{Fields, refuse};
use super::{files, hugging_face};
use crate::diagram::{
    Config, Mask, MlpKind, NormKind, NormPlace, NormWeight, Order, Pairing, Positions, QkNorm,
    RotaryPositions, RotaryScaling,
};
use crate::error::{Error, Result, nearest_hint};
use crate::tensor::{Scalar, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
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

impl NormalizationType {
    /// The nearest to a norm.
    fn of(norm: NormKind) -> Self {
        match (norm.centred, norm.weight) {
            (true, NormWeight::Absent) => NormalizationType::LNPre,
            (true, NormWeight::Plain | NormWeight::OnePlus) => NormalizationType::LN,
            (false, NormWeight::Absent) => NormalizationType::RmsPre,
            (false, NormWeight::Plain | NormWeight::OnePlus) => NormalizationType::Rms,
        }
    }

    fn kind(self) -> NormKind {
        match self {
            NormalizationType::LN => NormKind::LN,
            NormalizationType::LNPre => NormKind::LN_PRE,
            NormalizationType::Rms => NormKind::RMS,
            NormalizationType::RmsPre => NormKind::RMS_PRE,
        }
    }
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
    Alibi,
    /// No word of HookedTransformerConfig's.
    None,
}

/// What the field `attn_types` has for each layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AttnType {
    Global,
    Local,
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
    "trust_remote_code",
    "relative_attention_max_distance",
    "relative_attention_num_buckets",
    "decoder_start_token_id",
    "tie_word_embeddings",
];

/// Fields that are -1 where they are not set.
const UNSET: [&str; 6] = [
    "n_heads",
    "d_vocab",
    "d_vocab_out",
    "attn_scale",
    "attn_scores_soft_cap",
    "output_logits_soft_cap",
];

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

    /// The JSON of a `config.json`: HookedTransformerConfig's fields, and where a feature has none, fields of ours. Where
    /// there are none of these TransformerLens reads it as well.
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
        let mut json = files::fields(json)?;
        if hugging_face::is_config(&json) {
            return Ok(hugging_face::describe(json, None)?.config);
        }
        let mut known = Fields::names();
        fields(&mut known, &mut Config::default())?;
        let known = || known.asked().iter().chain(INERT).copied();
        if let Some(name) = json.keys().find(|name| known().all(|own| own != *name)) {
            return Err(Error::Unknown {
                kind: "config field",
                name: name.clone(),
                hint: nearest_hint(name, known()),
            });
        }
        json.retain(|name, value| {
            let unset = value.as_f64() == Some(-1.0) && UNSET.contains(&name.as_str());
            !unset
        });
        let mut config = Config::default();
        fields(&mut Fields::read(json), &mut config)?;
        config.check()?;
        Ok(config)
    }
}

/// As the fields of HookedTransformerConfig, and of ours.
impl Serialize for Config {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        let mut written = Fields::write();
        fields(&mut written, &mut self.clone()).map_err(serde::ser::Error::custom)?;
        written.into_json().serialize(s)
    }
}

/// Every field, read into a configuration or written from it. Those of [`Fields::extra`] are no fields of
/// HookedTransformerConfig: they say what its own do not.
fn fields(f: &mut Fields, c: &mut Config) -> Result<()> {
    for name in ["n_layers", "d_model", "n_ctx", "d_head", "d_vocab"] {
        f.need(name)?;
    }
    f.layers("n_layers", 1, &mut c.n_layers)?;
    f.size("d_model", 1, &mut c.d_model)?;
    f.size("n_ctx", 1, &mut c.n_ctx)?;
    f.size("d_head", 1, &mut c.d_head)?;
    let heads = c.d_model.checked_div(c.d_head).unwrap_or(0);
    f.size("n_heads", heads, &mut c.n_heads)?;
    let mut groups = c.grouped().then_some(c.groups);
    f.optional_size("n_key_value_heads", None, &mut groups)?;
    c.groups = groups.unwrap_or(c.n_heads);
    f.size("d_vocab", 1, &mut c.d_vocab)?;
    f.index("d_vocab_out", c.d_vocab, &mut c.d_vocab_out)?;
    neurons(f, c)?;
    norms(f, c)?;
    positions(f, c)?;
    attention(f, c)?;
    f.optional_number("output_logits_soft_cap", None, &mut c.logit_cap)?;
    f.extra("token_types", 0, &mut c.token_types)?;
    f.extra("mlm_head", None, &mut c.mlm_head)?;
    f.extra("pad_token", None, &mut c.pad_token)?;
    f.only("final_rms", false)?;
    f.only("load_in_4bit", false)?;
    f.only("num_experts", Value::Null)?;
    f.only("experts_per_token", Value::Null)
}

/// The MLPs, and their place in the block.
fn neurons(f: &mut Fields, c: &mut Config) -> Result<()> {
    let (mut attn_only, mut act_fn, mut d_mlp) = (c.mlp.is_none(), c.act_fn(), c.d_mlp());
    let (mut gated, mut gate_bias) = (c.gated(), c.gate_bias());
    f.flag("attn_only", false, &mut attn_only)?;
    if !attn_only {
        f.need("act_fn")?;
    }
    f.value("act_fn", None, &mut act_fn)?;
    f.optional_size("d_mlp", None, &mut d_mlp)?;
    f.flag("gated_mlp", false, &mut gated)?;
    f.extra("gate_bias", false, &mut gate_bias)?;
    let mlp = act_fn.map(|act_fn| MlpKind {
        d_mlp: d_mlp.unwrap_or(c.d_model.saturating_mul(4)),
        act_fn,
        gated,
        gate_bias,
    });
    c.mlp = mlp.filter(|_| !attn_only);
    let mut parallel = c.order != Order::Sequential;
    f.flag("parallel_attn_mlp", false, &mut parallel)?;
    let order = match parallel {
        true => Order::Parallel,
        false => Order::Sequential,
    };
    f.extra("order", order, &mut c.order)
}

fn norms(f: &mut Fields, c: &mut Config) -> Result<()> {
    let mut normalization_type = c.norm.map(NormalizationType::of);
    let default = Some(NormalizationType::LN);
    f.value("normalization_type", default, &mut normalization_type)?;
    let norm = normalization_type.map(NormalizationType::kind);
    f.extra("norm", norm, &mut c.norm)?;
    f.number("eps", 1e-5, &mut c.eps)?;
    let mut around = c.norm_place == NormPlace::Around;
    f.flag("use_normalization_before_and_after", false, &mut around)?;
    let place = match around {
        true => NormPlace::Around,
        false => NormPlace::Before,
    };
    f.extra("norm_place", place, &mut c.norm_place)?;
    let mut embed = c.embed_norm.is_some();
    f.flag("post_embedding_ln", false, &mut embed)?;
    f.extra(
        "embed_norm",
        embed.then_some(NormKind::LN),
        &mut c.embed_norm,
    )?;
    let mut qk = c.qk_norm.is_some();
    f.flag("use_qk_norm", false, &mut qk)?;
    let kind = QkNorm {
        kind: NormKind::RMS,
        per_head: true,
    };
    f.extra("qk_norm", qk.then_some(kind), &mut c.qk_norm)
}

fn positions(f: &mut Fields, c: &mut Config) -> Result<()> {
    let mut kind = match c.positions {
        Positions::Learned => PositionalEmbeddingType::Standard,
        Positions::Rotary(_) => PositionalEmbeddingType::Rotary,
        Positions::Alibi => PositionalEmbeddingType::Alibi,
        Positions::None => PositionalEmbeddingType::None,
    };
    let standard = PositionalEmbeddingType::Standard;
    f.value("positional_embedding_type", standard, &mut kind)?;
    let mut rotary = match &c.positions {
        Positions::Rotary(rotary) => rotary.clone(),
        Positions::Learned | Positions::Alibi | Positions::None => RotaryPositions {
            dim: c.d_head,
            base: 10000.0,
            pairing: Pairing::Halves,
            scaling: RotaryScaling::None,
            f32_angles: false,
        },
    };
    let turned = kind == PositionalEmbeddingType::Rotary;
    f.where_used(turned, |f| rotations(f, c, &mut rotary))?;
    c.positions = match kind {
        PositionalEmbeddingType::Standard => Positions::Learned,
        PositionalEmbeddingType::Rotary => Positions::Rotary(rotary),
        PositionalEmbeddingType::Alibi => Positions::Alibi,
        PositionalEmbeddingType::None => Positions::None,
    };
    Ok(())
}

/// Those of rotary positions, in all layers and in those with a window.
fn rotations(f: &mut Fields, c: &mut Config, rotary: &mut RotaryPositions) -> Result<()> {
    f.size("rotary_dim", c.d_head, &mut rotary.dim)?;
    f.number("rotary_base", 10000.0, &mut rotary.base)?;
    let mut adjacent = rotary.pairing == Pairing::Neighbours;
    f.flag("rotary_adjacent_pairs", false, &mut adjacent)?;
    rotary.pairing = match adjacent {
        true => Pairing::Neighbours,
        false => Pairing::Halves,
    };
    f.extra("rotary_f32_angles", false, &mut rotary.f32_angles)?;
    let by_parts = by_parts(f, &rotary.scaling)?;
    f.extra("rotary_scaling", by_parts, &mut rotary.scaling)?;
    // In layers with a window; their angles are not scaled.
    let mut local = c.windowed_rotary.as_ref().map(|local| local.base);
    f.optional_number("rotary_base_local", None, &mut local)?;
    let local = local.map(|base| RotaryPositions {
        base,
        scaling: RotaryScaling::None,
        ..rotary.clone()
    });
    f.extra("windowed_rotary", local, &mut c.windowed_rotary)
}

/// The scaling that HookedTransformerConfig knows.
fn by_parts(f: &mut Fields, scaling: &RotaryScaling) -> Result<RotaryScaling> {
    let (mut used, [mut factor, mut low, mut high, mut original]) = match *scaling {
        RotaryScaling::ByParts {
            factor,
            low,
            high,
            original,
        } => (true, [factor, low, high, original]),
        RotaryScaling::None | RotaryScaling::Linear(_) | RotaryScaling::ByLength { .. } => {
            (false, [8.0, 1.0, 4.0, 8192.0])
        }
    };
    f.flag("use_NTK_by_parts_rope", false, &mut used)?;
    f.where_used(used, |f| {
        f.number("NTK_by_parts_factor", 8.0, &mut factor)?;
        f.number("NTK_by_parts_low_freq_factor", 1.0, &mut low)?;
        f.number("NTK_by_parts_high_freq_factor", 4.0, &mut high)?;
        f.number("NTK_original_ctx_len", 8192.0, &mut original)
    })?;
    Ok(match used {
        true => RotaryScaling::ByParts {
            factor,
            low,
            high,
            original,
        },
        false => RotaryScaling::None,
    })
}

/// Which keys a query sees, and what becomes of its scores.
fn attention(f: &mut Fields, c: &mut Config) -> Result<()> {
    let mut dir = match c.mask {
        Mask::Causal => AttentionDir::Causal,
        Mask::All => AttentionDir::Bidirectional,
    };
    f.value("attention_dir", AttentionDir::Causal, &mut dir)?;
    c.mask = match dir {
        AttentionDir::Causal => Mask::Causal,
        AttentionDir::Bidirectional => Mask::All,
    };
    let mut window = c.windows.iter().copied().flatten().next();
    let mut local = window.is_some();
    f.flag("use_local_attn", false, &mut local)?;
    f.optional_size("window_size", None, &mut window)?;
    let of = |l| match c.window(l) {
        Some(_) => AttnType::Local,
        None => AttnType::Global,
    };
    let mut types: Option<Vec<AttnType>> = local.then(|| (0..c.n_layers).map(of).collect());
    f.value("attn_types", None, &mut types)?;
    let windows = match (local, types) {
        (false, _) => Vec::new(),
        (true, Some(types)) if types.len() == c.n_layers && window.is_some() => {
            let of = |kind: AttnType| window.filter(|_| kind == AttnType::Local);
            types.into_iter().map(of).collect()
        }
        (true, _) => {
            let reason = "true, expected a window_size, and a type for each layer in attn_types";
            return refuse("use_local_attn", reason);
        }
    };
    f.extra("windows", windows, &mut c.windows)?;
    f.optional_number("attn_scores_soft_cap", None, &mut c.score_cap)?;
    let mut scaled = true;
    f.flag("use_attn_scale", true, &mut scaled)?;
    f.number("attn_scale", (c.d_head as f64).sqrt(), &mut c.attn_scale)?;
    if !scaled {
        c.attn_scale = 1.0;
    }
    f.flag(
        "scale_attn_by_inverse_layer_idx",
        false,
        &mut c.scale_attn_by_inverse_layer_idx,
    )
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
                r#""num_experts": 4"#,
                "config field `num_experts`: 4 is not covered",
            ),
            (
                r#""positional_embedding_type": "shortformer""#,
                "config field `positional_embedding_type`",
            ),
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
