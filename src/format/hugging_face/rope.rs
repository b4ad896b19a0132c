//! The fields of rotary positions.

use crate::diagram::{RotaryPositions, RotaryScaling};
use crate::error::Result;
use crate::format::fields::{Fields, number, refuse, shown};
use serde_json::{Map, Value, json};

/// Where a family keeps them.
pub(super) struct Rope {
    /// The field of the base, and what it is where it is absent.
    pub base: (&'static str, f64),
    /// How `rope_scaling` calls its kind; both names are read.
    pub kind: &'static str,
}

/// As in most families.
pub(super) const ROPE: Rope = Rope {
    base: ("rope_theta", 10000.0),
    kind: "rope_type",
};

/// What `rope_scaling` says.
struct Scaling<'a>(&'a Map<String, Value>);

impl Scaling<'_> {
    fn number(&self, name: &'static str) -> Result<f64> {
        match self.0.get(name) {
            None => refuse(name, "is missing from rope_scaling, expected a number"),
            Some(found) => found.as_f64().map_or_else(
                || refuse(name, format!("{}, expected a number", shown(found))),
                Ok,
            ),
        }
    }

    fn numbers(&self, name: &'static str) -> Result<Vec<f64>> {
        let of = |found: &Value| found.as_array()?.iter().map(Value::as_f64).collect();
        let found = self.0.get(name);
        match found.and_then(of) {
            Some(numbers) => Ok(numbers),
            None => {
                let found = found.map_or("is missing".into(), shown);
                refuse(name, format!("{found}, expected a list of numbers"))
            }
        }
    }

    fn kind(&self) -> Result<&str> {
        let named = |name: &'static str| match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(kind)) => Ok(Some(kind.as_str())),
            Some(other) => refuse(name, format!("{}, expected a name", shown(other))),
        };
        match (named("rope_type")?, named("type")?) {
            (Some(kind), Some(other)) if kind != other => refuse(
                "rope_type",
                format!("{kind:?}, but `type` says {other:?}: expected one of them"),
            ),
            (Some(kind), _) | (None, Some(kind)) => Ok(kind),
            (None, None) => Ok("default"),
        }
    }
}

impl Fields {
    /// Base and scaling of rotary positions in a model whose context is `n_ctx`; `original` is the context that the
    /// family says it was first trained on, where it does.
    pub(super) fn rope(
        &mut self,
        family: &Rope,
        (n_ctx, original): (usize, Option<usize>),
        rotary: &mut RotaryPositions,
    ) -> Result<()> {
        let (name, default) = family.base;
        self.number(name, default, &mut rotary.base)?;
        match self.writes() {
            true => {
                let scaling = self.scaling_fields(family, (n_ctx, original), &rotary.scaling);
                self.set("rope_scaling", scaling);
            }
            false => rotary.scaling = self.scaling(n_ctx, original)?,
        }
        Ok(())
    }

    fn scaling(&self, n_ctx: usize, original: Option<usize>) -> Result<RotaryScaling> {
        let fields = match self.given("rope_scaling") {
            None => return Ok(RotaryScaling::None),
            Some(Value::Object(fields)) => Scaling(fields),
            Some(found) => {
                let reason = format!("{}, expected an object or null", shown(found));
                return refuse("rope_scaling", reason);
            }
        };
        match fields.kind()? {
            "default" => Ok(RotaryScaling::None),
            "linear" => Ok(RotaryScaling::Linear(fields.number("factor")?)),
            "llama3" => Ok(RotaryScaling::ByParts {
                factor: fields.number("factor")?,
                low: fields.number("low_freq_factor")?,
                high: fields.number("high_freq_factor")?,
                original: fields.number("original_max_position_embeddings")?,
            }),
            // Phi-3's first files call it otherwise.
            "longrope" | "su" => self.by_length(&fields, n_ctx, original),
            "yarn" if fields.0.contains_key("long_factor") => {
                self.by_length(&fields, n_ctx, original)
            }
            other => refuse(
                "rope_type",
                format!("{other:?} is not covered, expected default, linear, llama3 or longrope"),
            ),
        }
    }

    fn by_length(
        &self,
        fields: &Scaling<'_>,
        n_ctx: usize,
        original: Option<usize>,
    ) -> Result<RotaryScaling> {
        let name = "original_max_position_embeddings";
        let own = self.given(name).or_else(|| fields.0.get(name));
        let original = match (original, own) {
            (Some(original), _) => Some(original),
            (None, None) => None,
            (None, Some(found)) => {
                let n = found.as_u64().filter(|&n| n > 0);
                match n.and_then(|n| usize::try_from(n).ok()) {
                    Some(n) => Some(n),
                    None => {
                        let reason = format!("{}, expected a whole number", shown(found));
                        return refuse(name, reason);
                    }
                }
            }
        };
        let factor = match original {
            Some(original) => n_ctx as f64 / original as f64,
            None => fields.number("factor")?,
        };
        let original = original.unwrap_or(n_ctx);
        let scale = match fields.0.contains_key("attention_factor") {
            true => fields.number("attention_factor")?,
            false => scale_of(factor, original),
        };
        Ok(RotaryScaling::ByLength {
            short: fields.numbers("short_factor")?,
            long: fields.numbers("long_factor")?,
            original,
            scale,
        })
    }

    fn scaling_fields(
        &mut self,
        family: &Rope,
        (n_ctx, known): (usize, Option<usize>),
        scaling: &RotaryScaling,
    ) -> Value {
        let kind = family.kind;
        match scaling {
            RotaryScaling::None => Value::Null,
            RotaryScaling::Linear(factor) => json!({kind: "linear", "factor": number(*factor)}),
            RotaryScaling::ByParts {
                factor,
                low,
                high,
                original,
            } => json!({
                kind: "llama3",
                "factor": number(*factor),
                "low_freq_factor": number(*low),
                "high_freq_factor": number(*high),
                "original_max_position_embeddings": whole_where_it_is(*original),
            }),
            RotaryScaling::ByLength {
                short,
                long,
                original,
                scale,
            } => {
                let mut fields =
                    json!({kind: "longrope", "short_factor": short, "long_factor": long});
                if known.is_none() {
                    self.set("original_max_position_embeddings", json!(original));
                    // A family that knows the original context takes no other field.
                    if *scale != scale_of(n_ctx as f64 / *original as f64, *original) {
                        fields["attention_factor"] = number(*scale);
                    }
                }
                fields
            }
        }
    }
}

/// What LongRoPE multiplies turned entries by, where a file does not say.
///
/// Source: Ding et al., "LongRoPE" (2024).
fn scale_of(factor: f64, original: usize) -> f64 {
    match factor > 1.0 {
        true => (1.0 + factor.ln() / (original as f64).ln()).sqrt(),
        false => 1.0,
    }
}

/// A whole number without a point.
pub(super) fn whole_where_it_is(x: f64) -> Value {
    match x.fract() == 0.0 && x.abs() < 1e15 {
        true => json!(x as i64),
        false => number(x),
    }
}

/// Writes `rope_parameters`, which version 5 of transformers has in their place, as the fields of version 4: one set, or
/// one a kind of layer.
pub(super) fn as_version_4(fields: &mut Map<String, Value>) -> Result<()> {
    let found = match fields.remove("rope_parameters") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Object(found)) => found,
        Some(other) => {
            let reason = format!("{}, expected an object or null", shown(&other));
            return refuse("rope_parameters", reason);
        }
    };
    let by_kind = ["full_attention", "sliding_attention"];
    if !by_kind.iter().any(|kind| found.contains_key(*kind)) {
        spread(fields, found);
        return Ok(());
    }
    for (kind, own) in found {
        let own = match own {
            Value::Null => continue,
            Value::Object(own) => own,
            other => {
                let reason = format!("{kind}: {}, expected an object", shown(&other));
                return refuse("rope_parameters", reason);
            }
        };
        match kind.as_str() {
            "full_attention" => spread(fields, own),
            "sliding_attention" => {
                if Scaling(&own).kind()? != "default" {
                    let reason = "is not covered in layers with a window, expected default";
                    return refuse("rope_type", reason);
                }
                let base = own.get("rope_theta").cloned().unwrap_or_default();
                put(fields, "rope_local_base_freq", base);
            }
            other => {
                let reason = format!("has {other:?}, expected full_attention, sliding_attention");
                return refuse("rope_parameters", reason);
            }
        }
    }
    Ok(())
}

/// Base and share stand alone, the rest is the scaling.
fn spread(fields: &mut Map<String, Value>, mut found: Map<String, Value>) {
    for name in ["rope_theta", "partial_rotary_factor"] {
        if let Some(value) = found.remove(name) {
            put(fields, name, value);
        }
    }
    put(fields, "rope_scaling", Value::Object(found));
}

/// A field, unless it is there.
fn put(fields: &mut Map<String, Value>, name: &str, value: Value) {
    let own = fields.entry(name).or_insert(Value::Null);
    if own.is_null() {
        *own = value;
    }
}
