//! The fields of a `config.json`: each is named once, and read into a value or written from it.

use crate::diagram::{ActFn, LARGEST, MOST_LAYERS};
use crate::error::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The fields of a file that is read, or of one that is written. A method takes a field's name, what its absence means,
/// and the value that it is read into or written from.
///
/// A field that is null counts as absent, but where its method says otherwise.
pub(super) struct Fields {
    json: Map<String, Value>,
    mode: Mode,
    asked: BTreeSet<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Read,
    Write,
    /// Their names alone are wanted.
    Names,
}

/// The activation functions by their names; of several names the first is written.
const ACT_FNS: [(&str, ActFn); 12] = [
    ("relu", ActFn::Relu),
    ("gelu", ActFn::Gelu),
    ("gelu_python", ActFn::Gelu),
    ("gelu_new", ActFn::GeluNew),
    ("gelu_accurate", ActFn::GeluNew),
    ("gelu_python_tanh", ActFn::GeluNew),
    ("gelu_fast", ActFn::GeluFast),
    ("gelu_pytorch_tanh", ActFn::GeluPytorchTanh),
    ("quick_gelu", ActFn::QuickGelu),
    ("silu", ActFn::Silu),
    ("swish", ActFn::Silu),
    ("linear", ActFn::Linear),
];

pub(super) fn refuse<T>(field: &'static str, reason: impl Into<String>) -> Result<T> {
    let reason = reason.into();
    Err(Error::Config { field, reason })
}

/// A value of a file, short enough for a message.
pub(super) fn shown(value: &Value) -> String {
    const MOST: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl Fields {
    fn of(json: Map<String, Value>, mode: Mode) -> Self {
        let asked = BTreeSet::new();
        Fields { json, mode, asked }
    }

    /// Those of a file, to be read.
    pub fn read(json: Map<String, Value>) -> Self {
        Fields::of(json, Mode::Read)
    }

    /// None yet, to be written.
    pub fn write() -> Self {
        Fields::of(Map::new(), Mode::Write)
    }

    /// None, to be asked for by their names.
    pub fn names() -> Self {
        Fields::of(Map::new(), Mode::Names)
    }

    /// Whether they are written.
    pub fn writes(&self) -> bool {
        self.mode == Mode::Write
    }

    /// The names that were asked for.
    pub fn asked(&self) -> &BTreeSet<&'static str> {
        &self.asked
    }

    /// What was written.
    pub fn into_json(self) -> Map<String, Value> {
        self.json
    }

    /// What a field says, where it is there and not null.
    pub fn given(&self, name: &str) -> Option<&Value> {
        self.json.get(name).filter(|value| !value.is_null())
    }

    /// Writes a field.
    pub fn set(&mut self, name: &str, value: Value) {
        self.json.insert(name.into(), value);
    }

    /// Fields that are read in any case, and written where they say something.
    pub fn where_used<R>(&mut self, used: bool, fields: impl FnOnce(&mut Fields) -> R) -> R {
        let mode = self.mode;
        if mode == Mode::Write && !used {
            self.mode = Mode::Names;
        }
        let result = fields(self);
        self.mode = mode;
        result
    }

    /// That a field without a default is there.
    pub fn need(&self, name: &'static str) -> Result<()> {
        match self.mode == Mode::Read && self.given(name).is_none() {
            true => refuse(name, "is missing"),
            false => Ok(()),
        }
    }

    /// A field that is read by `of`, which knows `expected`, and written by `to`.
    fn field<V>(
        &mut self,
        name: &'static str,
        default: V,
        value: &mut V,
        (of, expected): (impl Fn(&Value) -> Option<V>, &str),
        to: impl Fn(&V) -> Value,
    ) -> Result<()> {
        self.asked.insert(name);
        match self.mode {
            Mode::Write => self.set(name, to(value)),
            Mode::Read => {
                *value = match self.given(name) {
                    None => default,
                    Some(found) => match of(found) {
                        Some(value) => value,
                        None => {
                            let reason = format!("{}, expected {expected}", shown(found));
                            return refuse(name, reason);
                        }
                    },
                }
            }
            Mode::Names => {}
        }
        Ok(())
    }

    /// A value as serde has it. Null is a value where it can be one.
    pub fn value<V: Serialize + DeserializeOwned>(
        &mut self,
        name: &'static str,
        default: V,
        value: &mut V,
    ) -> Result<()> {
        self.asked.insert(name);
        match (self.mode, self.json.get(name)) {
            (Mode::Write, _) => {
                let json = serde_json::to_value(value).expect("a field is plain data");
                self.set(name, json);
            }
            (Mode::Names, _) => {}
            (Mode::Read, None) => *value = default,
            (Mode::Read, Some(found)) => match serde_json::from_value(found.clone()) {
                Ok(read) => *value = read,
                Err(_) if found.is_null() => *value = default,
                Err(e) => return refuse(name, format!("{}: {e}", shown(found))),
            },
        }
        Ok(())
    }

    /// A value as serde has it, which is written where it is not what absence means.
    pub fn extra<V: Serialize + DeserializeOwned + PartialEq>(
        &mut self,
        name: &'static str,
        default: V,
        value: &mut V,
    ) -> Result<()> {
        match self.mode == Mode::Write && *value == default {
            true => Ok(()),
            false => self.value(name, default, value),
        }
    }

    /// A number of at least 1.
    pub fn size(&mut self, name: &'static str, default: usize, value: &mut usize) -> Result<()> {
        self.field(name, default, value, SIZE, |&n| json!(n))
    }

    /// A number of at least 1, or null, which does not mean what absence does.
    pub fn optional_size(
        &mut self,
        name: &'static str,
        default: Option<usize>,
        value: &mut Option<usize>,
    ) -> Result<()> {
        let null = self.json.get(name).is_some_and(Value::is_null);
        let default = default.filter(|_| !null);
        let of = |found: &Value| SIZE.0(found).map(Some);
        self.field(name, default, value, (of, SIZE.1), |n| json!(n))
    }

    /// The number of layers.
    pub fn layers(&mut self, name: &'static str, default: usize, value: &mut usize) -> Result<()> {
        let of = |found: &Value| whole(found, 0, MOST_LAYERS);
        let expected = "a number of layers up to 65536";
        self.field(name, default, value, (of, expected), |&n| json!(n))
    }

    /// A number of at least 0: a token's.
    pub fn index(&mut self, name: &'static str, default: usize, value: &mut usize) -> Result<()> {
        let of = |found: &Value| whole(found, 0, LARGEST);
        let expected = "a whole number from 0 to 2147483648";
        self.field(name, default, value, (of, expected), |&n| json!(n))
    }

    /// A number.
    pub fn number(&mut self, name: &'static str, default: f64, value: &mut f64) -> Result<()> {
        let of = |found: &Value| found.as_f64();
        self.field(name, default, value, (of, "a number"), |&x| number(x))
    }

    /// A number, or null, which does not mean what absence does.
    pub fn optional_number(
        &mut self,
        name: &'static str,
        default: Option<f64>,
        value: &mut Option<f64>,
    ) -> Result<()> {
        let null = self.json.get(name).is_some_and(Value::is_null);
        let default = default.filter(|_| !null);
        let of = |found: &Value| found.as_f64().map(Some);
        self.field(name, default, value, (of, "a number or null"), |x| {
            x.map_or(Value::Null, number)
        })
    }

    /// True or false.
    pub fn flag(&mut self, name: &'static str, default: bool, value: &mut bool) -> Result<()> {
        let of = |found: &Value| found.as_bool();
        let expected = "true or false";
        self.field(name, default, value, (of, expected), |&flag| json!(flag))
    }

    /// An activation function.
    pub fn act_fn(&mut self, name: &'static str, default: ActFn, value: &mut ActFn) -> Result<()> {
        self.asked.insert(name);
        if self.writes() {
            let Some((text, _)) = ACT_FNS.iter().find(|(_, own)| own == value) else {
                return refuse(name, format!("{value:?} has no name in this format"));
            };
            self.set(name, json!(text));
            return Ok(());
        }
        let Some(found) = self.given(name) else {
            *value = default;
            return Ok(());
        };
        let named = ACT_FNS.iter().find(|(text, _)| found == text);
        let Some((_, known)) = named else {
            let names: Vec<&str> = ACT_FNS.iter().map(|(text, _)| *text).collect();
            let reason = format!(
                "{} is not covered, expected one of {}",
                shown(found),
                names.join(", ")
            );
            return refuse(name, reason);
        };
        *value = *known;
        Ok(())
    }

    /// A field that asks for something not covered, unless it is absent or has this value.
    pub fn only(&mut self, name: &'static str, value: impl Into<Value>) -> Result<()> {
        self.asked.insert(name);
        let value = value.into();
        match self.given(name) {
            Some(found) if *found != value => {
                let found = shown(found);
                refuse(name, format!("{found} is not covered, expected {value}"))
            }
            _ => Ok(()),
        }
    }
}

/// A size, and what is expected of one.
const SIZE: (fn(&Value) -> Option<usize>, &str) = (
    |found| whole(found, 1, LARGEST),
    "a whole number from 1 to 2147483648",
);

fn whole(value: &Value, least: usize, most: usize) -> Option<usize> {
    let n = usize::try_from(value.as_u64()?).ok()?;
    (least..=most).contains(&n).then_some(n)
}

/// A number as it is written: a whole one without a point is read as one everywhere, but not the other way round.
pub(super) fn number(x: f64) -> Value {
    json!(x)
}
