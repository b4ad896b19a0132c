//! Recipes: everything that a training depends on, as one value that can be written to a file.

use super::adam::AdamW;
use super::data::TrainingSet;
use super::evaluate::Goal;
use super::schedule::{Decay, Schedule};
use super::settings::Settings;
use crate::error::{Error, Result};
use crate::model::Config;
use crate::task::{
    BuiltIn, LabelTable, Labelled, MaxOfK, ModularAddition, Operation, Task, TwoIntegers,
};
use crate::tensor::Staged;
use serde::{Deserialize, Deserializer, Serialize};
use std::path::{Path, PathBuf};

/// A task, a model, data and settings: `recipe.json`.
///
/// ```
/// use pathsum::task::BuiltIn;
/// use pathsum::train::Recipe;
/// let recipe = Recipe::built_in(BuiltIn::Palindrome);
/// assert_eq!(Recipe::from_json(&recipe.to_json())?, recipe);
/// let error = Recipe::from_json(&recipe.to_json().replace("steps", "step")).unwrap_err();
/// assert!(error.to_string().contains("unknown field `step`"));
/// # Ok::<(), pathsum::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The task.
    pub task: Trained,
    /// What is trained on, and what is held out.
    pub data: TrainingData,
    /// How.
    pub settings: Settings,
    /// The model, as in a `config.json`.
    #[serde(deserialize_with = "config")]
    pub model: Config,
}

/// A task that a model can be trained on, with its options.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Trained {
    /// `"palindrome"`
    Palindrome,
    /// `"sorted_list"`
    SortedList,
    /// `"brackets"`
    Brackets,
    /// `{"two_integer": {}}`, or with the labels of a file: `{"two_integer": {"labels": "labels.safetensors"}}`
    TwoInteger {
        /// A safetensors file with `labels`, `[A, B]`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        labels: Option<PathBuf>,
    },
    /// `{"max_of_k": {}}`, or of other lists: `{"max_of_k": {"k": 5, "d_vocab": 64}}`
    MaxOfK {
        /// How many numbers a list has.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        k: Option<usize>,
        /// How many numbers there are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        d_vocab: Option<usize>,
    },
    /// `{"modular_addition": {}}`, or of other residues: `{"modular_addition": {"modulus": 59, "operation": "subtract"}}`
    ModularAddition {
        /// How many residues there are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        modulus: Option<usize>,
        /// `add` or `subtract`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        operation: Option<Operation>,
    },
}

/// What a model is trained on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TrainingData {
    /// Sequences that are new at every step.
    Fresh {
        /// How many a step.
        batch: usize,
        /// How many are held out.
        held_out: usize,
    },
    /// A seeded half of all inputs, again and again; the other half is held out.
    Half {
        /// How many a step; all of the half, where that is not more.
        batch: usize,
    },
    /// A seeded share of all inputs, all of it at every step; the rest is held out. The split is PyTorch's
    /// ([`Labelled::share`]).
    Share {
        /// The share, between 0 and 1.
        share: f64,
    },
}

/// What a recipe's data are, drawn.
pub struct Drawn {
    /// The task.
    pub task: Box<dyn Task>,
    /// What is held out.
    pub held_out: Labelled,
    source: BatchSource,
}

enum BatchSource {
    Fresh { batch: usize, seed: u64 },
    Set(TrainingSet),
}

impl Drawn {
    /// The batch of a step.
    pub fn batch(&self, step: usize) -> Labelled {
        match &self.source {
            // The held-out sequences have the seed before the first.
            BatchSource::Fresh { batch, seed } => {
                self.task.generate(*batch, seed + 1 + step as u64)
            }
            BatchSource::Set(set) => set.batch(step),
        }
    }
}

impl Trained {
    /// Which of the built-in tasks this is.
    pub fn built_in(&self) -> BuiltIn {
        match self {
            Trained::Palindrome => BuiltIn::Palindrome,
            Trained::SortedList => BuiltIn::SortedList,
            Trained::Brackets => BuiltIn::Brackets,
            Trained::TwoInteger { .. } => BuiltIn::TwoInteger,
            Trained::MaxOfK { .. } => BuiltIn::MaxOfK,
            Trained::ModularAddition { .. } => BuiltIn::ModularAddition,
        }
    }

    /// The task.
    ///
    /// # Errors
    /// When a file of labels is unsound.
    pub fn task(&self) -> Result<Box<dyn Task>> {
        Ok(match self {
            Trained::TwoInteger { labels: Some(path) } => {
                Box::new(TwoIntegers::new(LabelTable::open(path)?))
            }
            Trained::MaxOfK { k, d_vocab } => {
                let own = BuiltIn::MaxOfK.task();
                let k = k.unwrap_or(own.positions());
                let d_vocab = d_vocab.unwrap_or(own.vocabulary().len());
                if k == 0 || d_vocab < 2 {
                    return Err(Error::Recipe(format!(
                        "max_of_k: {k} of {d_vocab} numbers, expected one at least of two"
                    )));
                }
                Box::new(MaxOfK::new(k, d_vocab))
            }
            Trained::ModularAddition { modulus, operation } => {
                let modulus = modulus.unwrap_or(ModularAddition::MODULUS);
                if modulus < 2 {
                    return Err(Error::Recipe(format!(
                        "modular_addition: {modulus} residues, expected two at least"
                    )));
                }
                Box::new(ModularAddition::new(modulus, operation.unwrap_or_default()))
            }
            other => other.built_in().task(),
        })
    }
}

impl Recipe {
    /// The recipe by which a task's embedded model was trained: the write-up's architecture, and settings that meet the
    /// target.
    pub fn built_in(task: BuiltIn) -> Self {
        let (task, model, data, settings) = match task {
            BuiltIn::Palindrome => (
                Trained::Palindrome,
                r#"{"n_layers": 2, "d_model": 28, "n_ctx": 22, "d_head": 14, "n_heads": 2, "d_vocab": 33,
                    "d_vocab_out": 2, "attn_only": true, "act_fn": "relu"}"#,
                TrainingData::Fresh {
                    batch: 500,
                    held_out: 4000,
                },
                Settings {
                    steps: 6000,
                    schedule: Schedule {
                        peak: 3e-3,
                        warm_up: 100,
                        decay: Decay::Cosine { to: 0.02 },
                    },
                    evaluate_every: 250,
                    ..Settings::default()
                },
            ),
            BuiltIn::SortedList => (
                Trained::SortedList,
                r#"{"n_layers": 1, "d_model": 96, "n_ctx": 21, "d_head": 48, "n_heads": 2, "d_vocab": 52,
                    "attn_only": true, "act_fn": "relu"}"#,
                TrainingData::Fresh {
                    batch: 256,
                    held_out: 2000,
                },
                Settings {
                    steps: 8000,
                    schedule: Schedule {
                        peak: 3e-3,
                        warm_up: 100,
                        decay: Decay::Cosine { to: 0.02 },
                    },
                    evaluate_every: 250,
                    target: Some(Goal {
                        loss: Some(0.035),
                        probability: Some(0.97),
                        ..Goal::default()
                    }),
                    ..Settings::default()
                },
            ),
            BuiltIn::Brackets => (
                Trained::Brackets,
                r#"{"n_layers": 3, "d_model": 56, "n_ctx": 42, "d_head": 28, "n_heads": 2, "d_mlp": 56, "act_fn": "relu",
                    "d_vocab": 5, "d_vocab_out": 2, "attention_dir": "bidirectional", "pad_token": 1}"#,
                TrainingData::Fresh {
                    batch: 256,
                    held_out: 5000,
                },
                Settings {
                    steps: 6000,
                    schedule: Schedule {
                        peak: 1e-3,
                        warm_up: 100,
                        decay: Decay::Cosine { to: 0.02 },
                    },
                    evaluate_every: 250,
                    target: Some(Goal {
                        accuracy: Some(0.9996),
                        loss: Some(0.003),
                        ..Goal::default()
                    }),
                    ..Settings::default()
                },
            ),
            BuiltIn::TwoInteger => (
                Trained::TwoInteger { labels: None },
                r#"{"n_layers": 1, "d_model": 128, "n_ctx": 3, "d_head": 16, "n_heads": 8, "d_mlp": 1024,
                    "act_fn": "relu", "d_vocab": 114, "d_vocab_out": 2, "normalization_type": null}"#,
                TrainingData::Half { batch: 512 },
                Settings {
                    initializer_range: Some(0.12),
                    steps: 2500,
                    schedule: Schedule {
                        peak: 1e-3,
                        warm_up: 100,
                        decay: Decay::Cosine { to: 0.02 },
                    },
                    optimiser: AdamW {
                        beta2: 0.98,
                        weight_decay: 5.0,
                        ..AdamW::default()
                    },
                    frozen: vec!["*.attn.b_*".into(), "unembed.b_U".into()],
                    evaluate_every: 250,
                    ..Settings::default()
                },
            ),
            BuiltIn::MaxOfK => (
                Trained::MaxOfK {
                    k: None,
                    d_vocab: None,
                },
                r#"{"n_layers": 1, "d_model": 32, "n_ctx": 4, "d_head": 32, "n_heads": 1, "d_vocab": 64,
                    "attn_only": true, "act_fn": "relu", "normalization_type": null}"#,
                TrainingData::Fresh {
                    batch: 512,
                    held_out: 5000,
                },
                Settings {
                    steps: 10_000,
                    schedule: Schedule {
                        peak: 3e-3,
                        warm_up: 100,
                        decay: Decay::Cosine { to: 0.02 },
                    },
                    frozen: vec!["*.attn.b_*".into(), "unembed.b_U".into()],
                    evaluate_every: 250,
                    ..Settings::default()
                },
            ),
            BuiltIn::ModularAddition => (
                Trained::ModularAddition {
                    modulus: None,
                    operation: None,
                },
                r#"{"n_layers": 1, "d_model": 128, "n_ctx": 3, "d_head": 32, "n_heads": 4, "d_mlp": 512,
                    "act_fn": "relu", "d_vocab": 114, "d_vocab_out": 113, "normalization_type": null}"#,
                TrainingData::Share {
                    share: ModularAddition::SHARE,
                },
                Settings {
                    steps: 12_000,
                    schedule: Schedule {
                        peak: 3e-3,
                        warm_up: 10,
                        decay: Decay::Constant,
                    },
                    optimiser: AdamW {
                        beta2: 0.98,
                        weight_decay: 1.0,
                        ..AdamW::default()
                    },
                    frozen: vec!["*.attn.b_*".into(), "unembed.b_U".into()],
                    evaluate_every: 100,
                    snapshot_every: Some(100),
                    target: Some(Goal {
                        loss: Some(1e-6),
                        accuracy: Some(1.0),
                        ..Goal::default()
                    }),
                    ..Settings::default()
                },
            ),
        };
        Recipe {
            task,
            model: Config::from_json(model).expect("a constant"),
            data,
            settings,
        }
    }

    /// Reads a recipe.
    ///
    /// # Errors
    /// When a field is missing, unknown or makes no sense, by its name.
    pub fn from_json(json: &str) -> Result<Self> {
        let recipe: Recipe =
            serde_json::from_str(json).map_err(|e| Error::Recipe(e.to_string()))?;
        match recipe.data {
            TrainingData::Fresh { batch: 0, .. }
            | TrainingData::Fresh { held_out: 0, .. }
            | TrainingData::Half { batch: 0 } => Err(Error::Recipe(
                "data: 0 sequences, expected one at least".into(),
            )),
            TrainingData::Share { share } if !(0.0 < share && share < 1.0) => Err(Error::Recipe(
                format!("data: a share of {share}, expected more than 0 and less than 1"),
            )),
            _ => Ok(recipe),
        }
    }

    /// Reads a file; a file of labels that it names is looked for beside it.
    ///
    /// # Errors
    /// As [`Recipe::from_json`], naming the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let json = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let mut recipe = Self::from_json(&json).map_err(|e| Error::format(path, e))?;
        if let (
            Trained::TwoInteger {
                labels: Some(labels),
            },
            Some(folder),
        ) = (&mut recipe.task, path.parent())
        {
            // Absolute, so that the recipe can be written elsewhere.
            let path = folder.join(&labels);
            *labels = std::path::absolute(&path).map_err(|e| Error::io(&path, e))?;
        }
        Ok(recipe)
    }

    /// The recipe as a file has it.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a recipe is plain data")
    }

    /// Writes a file that [`Recipe::open`] reads.
    ///
    /// # Errors
    /// When the file cannot be written; what was there before is then still there.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        Staged::new(path.as_ref(), self.to_json().as_bytes())?.commit()
    }

    /// Draws the data.
    ///
    /// # Errors
    /// When the model does not fit the task, or the task's inputs cannot be enumerated where the data are to be a part
    /// of them.
    pub fn draw(&self) -> Result<Drawn> {
        let task = self.task.task()?;
        task.check_model(&self.model)?;
        // Room for the steps' own seeds between those of two trainings.
        let seed = self.settings.seed << 32;
        let everything = || {
            let inputs = task.inputs().ok_or_else(|| {
                Error::Recipe(format!(
                    "a part of all inputs: those of {} are too many to enumerate, expected fresh data",
                    task.name()
                ))
            })?;
            task.label(inputs)
        };
        let (held_out, source) = match self.data {
            TrainingData::Fresh { batch, held_out } => (
                task.generate(held_out, seed),
                BatchSource::Fresh { batch, seed },
            ),
            TrainingData::Half { batch } => {
                let (half, held_out) = everything()?.halves(self.settings.seed);
                (
                    held_out,
                    BatchSource::Set(TrainingSet::new(half, batch, self.settings.seed)),
                )
            }
            TrainingData::Share { share } => {
                let seed = self.settings.seed as u32;
                let (shown, held_out) = everything()?.share(share, seed);
                let all = shown.batch();
                if all == 0 || held_out.batch() == 0 {
                    return Err(Error::Recipe(format!(
                        "data: a share of {share} leaves {all} sequences to train on and {} to hold out, expected some of each",
                        held_out.batch()
                    )));
                }
                let set = TrainingSet::new(shown, all, self.settings.seed);
                (held_out, BatchSource::Set(set))
            }
        };
        Ok(Drawn {
            task,
            held_out,
            source,
        })
    }
}

/// By the reader of `config.json`, which knows every field.
fn config<'de, D: Deserializer<'de>>(from: D) -> Result<Config, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    Config::from_json(&value.to_string()).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_recipes_fit_their_tasks() {
        for task in BuiltIn::ALL {
            let recipe = Recipe::built_in(task);
            assert_eq!(recipe.task.built_in(), task);
            assert_eq!(Recipe::from_json(&recipe.to_json()).unwrap(), recipe);
            let drawn = recipe.draw().unwrap();
            drawn
                .held_out
                .answers
                .check(&recipe.model, &drawn.held_out.tokens)
                .unwrap();
            assert_eq!(drawn.batch(3), drawn.batch(3));
            // A full batch is the same at every step.
            let full = task == BuiltIn::ModularAddition;
            assert_eq!(drawn.batch(3) == drawn.batch(4), full, "{task:?}");
        }
    }

    #[test]
    fn what_is_held_out_is_never_shown() {
        let drawn = Recipe::built_in(BuiltIn::TwoInteger).draw().unwrap();
        let pair = |ids: &[i64]| (ids[0], ids[1]);
        let of = |data: &Labelled| -> std::collections::BTreeSet<(i64, i64)> {
            data.tokens.ids().chunks_exact(3).map(pair).collect()
        };
        let held_out = of(&drawn.held_out);
        let shown: std::collections::BTreeSet<_> =
            (0..20).flat_map(|step| of(&drawn.batch(step))).collect();
        assert!(held_out.is_disjoint(&shown));
        assert!(held_out.len() == 6384 && shown.len() > 6000);
    }

    #[test]
    fn a_wrong_recipe_is_refused_by_name() {
        let good = Recipe::built_in(BuiltIn::Palindrome).to_json();
        for (from, to, expected) in [
            ("\"peak\"", "\"rate\"", "unknown field `rate`"),
            (
                "\"palindrome\"",
                "\"palindromes\"",
                "unknown variant `palindromes`",
            ),
            ("\"n_layers\"", "\"layers\"", "layers"),
            ("\"batch\": 500", "\"batch\": 0", "0 sequences"),
            ("\"settings\"", "\"setting\"", "unknown field `setting`"),
        ] {
            assert!(good.contains(from), "{from}");
            let error = Recipe::from_json(&good.replace(from, to))
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        }
        let mut other = Recipe::built_in(BuiltIn::Palindrome);
        other.model.d_vocab = 40;
        let error = other.draw().err().unwrap().to_string();
        assert!(error.contains("d_vocab"), "{error}");
        other = Recipe::built_in(BuiltIn::Palindrome);
        other.data = TrainingData::Half { batch: 10 };
        let error = other.draw().err().unwrap().to_string();
        assert!(error.contains("too many"), "{error}");
    }
}
