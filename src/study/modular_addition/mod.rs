//! How a one-layer transformer adds modulo a number: it turns each residue into angles at a few frequencies, its neurons
//! multiply cosines and sines of both, and its logits are waves `cos(w (a + b - c))`, highest where `c` is the sum.
//!
//! Done again on any model of the task; the frequencies are found on it.
//!
//! # Source
//! Nanda, Chan, Lieberum, Smith and Steinhardt, "Progress measures for grokking via mechanistic interpretability" (2023);
//! Chughtai, Chan and Nanda, "A Toy Model of Universality: Reverse Engineering How Networks Learn Group Operations" (2023),
//! whose checkpoint of addition modulo 113, seed 1, the published figures are of; for the clock and the pizza Zhong, Liu,
//! Tegmark and Andreas, "The Clock and the Pizza" (2023).

mod attention;
mod clock;
mod hidden;
mod logits;
mod losses;
mod neurons;
mod pass;
mod replaced;
mod split;
mod story;
mod training;
mod weights;

pub use attention::{AttentionFrequencies, Scores, ToA};
pub use clock::{Clock, Way};
pub use hidden::{HiddenFrequencies, Written};
pub use logits::{Explained, KEY, LogitFrequencies, SumDirections};
pub use losses::Losses;
pub use neurons::{ButTheLargest, NeuronFrequencies, OWN};
pub use replaced::Replaced;
pub use split::{Known, PUBLISHED, SEEDS, Split};
pub use training::{Measures, Training, Trial};
pub use weights::{ByFrequency, WeightFrequencies};

use super::{Announce, one_layer};
use crate::error::{Error, Result};
use crate::frequency::Pairs;
use crate::linalg::Par;
use crate::model::{Config, Model};
use crate::task::{ModularAddition, Task};
use losses::{Told, means};
use pass::Pass;
use replaced::Found;
use serde::Serialize;

/// How many parts [`study`] reports.
pub const PARTS: usize = 6;

/// What the study found.
#[derive(Clone, Debug, Serialize)]
pub struct ModularAdditionStudy {
    /// The model's sizes.
    #[serde(skip)]
    pub config: Config,
    /// The task.
    #[serde(skip)]
    pub task: ModularAddition,
    /// Which pairs the model was trained on.
    pub split: Split,
    /// The model's losses.
    pub loss: Losses,
    /// The shares of pairs that it is right on.
    pub accuracy: Losses,
    /// Frequencies of its weights.
    pub weights: WeightFrequencies,
    /// Its logits.
    pub logits: LogitFrequencies,
    /// Its logits at the frequencies that the published code would take for the key ones.
    pub at_coded_keys: SumDirections,
    /// Its neurons together.
    pub hidden: HiddenFrequencies,
    /// Its neurons one by one.
    pub neurons: NeuronFrequencies,
    /// Its attention.
    pub attention: AttentionFrequencies,
    /// Parts of it left out or replaced.
    pub replaced: Replaced,
    /// A clock or a pizza.
    pub clock: Clock,
    /// How it was trained, where that is known.
    pub training: Option<Training>,
    /// What pictures show: for the neuron of each key frequency that varies most its values over all pairs, and so on.
    #[serde(skip)]
    shown: Shown,
}

/// Values that pictures show.
#[derive(Clone, Debug)]
struct Shown {
    /// Frequency, neuron, its values over all pairs.
    neurons: Vec<(usize, usize, Vec<f64>)>,
    /// The first head's attention to `a`, over all pairs.
    attention: Vec<f64>,
    /// The right logits, over all pairs.
    right: Vec<f64>,
}

/// Does the write-ups' analysis again on a model of the task.
///
/// `seed` is that of the split of all pairs into those trained on and the others, where it is known; else it is looked for
/// ([`Known`]).
///
/// # Errors
/// When the model is not of the task's shape: one layer with an MLP, no norms, a token for each residue and one for `=`, a
/// class for each residue; or its weights are not finite.
///
/// # Cost
/// Two runs on all pairs, Fourier transforms of all neurons and logits over all pairs, and some hundred softmaxes of all
/// logits.
pub fn study(
    model: &Model<f64>,
    task: &ModularAddition,
    seed: Option<u32>,
    par: Par,
    progress: Announce<'_>,
) -> Result<ModularAdditionStudy> {
    check(model.config(), task)?;
    progress("running the model");
    let pass = Pass::of(model, task, par)?;
    let pairs = task.modulus().pow(2);
    let split = match seed {
        Some(seed) => Split::of(pairs, seed, Known::Told),
        None => Split::find(&pass.told),
    };
    progress("transforming the weights");
    let weights = WeightFrequencies::of(model, &pass, par)?;
    progress("transforming the logits");
    let logits = LogitFrequencies::of(&pass, &split, par);
    progress("transforming the neurons");
    let of_neurons = Pairs::of(&pass.fourier, &pass.hidden, par);
    let hidden = HiddenFrequencies::of(&pass, &of_neurons, &split, &logits.keys, par);
    let neurons = NeuronFrequencies::of(&pass, &of_neurons);
    progress("leaving parts out");
    let attention = AttentionFrequencies::of(&pass, &logits.keys, par);
    let found = Found {
        pass: &pass,
        pairs: &of_neurons,
        neurons: &neurons,
        attention: &attention,
        split: &split,
        keys: &logits.keys,
    };
    let replaced = Replaced::of(model, found, par)?;
    progress("telling clocks from pizzas");
    let clock = Clock::of(model, &pass, par)?;
    let told = |of: fn(&Told) -> f64| means(&pass.told, &split, of);
    let column = |n: usize| (0..pairs).map(|i| pass.hidden[[i, n]]).collect();
    let examples = neurons.examples(&pass, &logits.keys).into_iter();
    Ok(ModularAdditionStudy {
        config: model.config().clone(),
        task: task.clone(),
        loss: told(|t| t.loss),
        accuracy: told(|t| f64::from(u8::from(t.right))),
        shown: Shown {
            neurons: examples.map(|(k, n)| (k, n, column(n))).collect(),
            attention: (0..pairs).map(|i| pass.patterns[0][[i, 0]]).collect(),
            right: (0..pairs)
                .map(|i| pass.logits[[i, losses::right(pass.p, i)]])
                .collect(),
        },
        at_coded_keys: logits::of_sums(&pass, &split, &neurons.but_the_largest.keys, par),
        split,
        weights,
        logits,
        hidden,
        neurons,
        attention,
        replaced,
        clock,
        training: None,
    })
}

impl ModularAdditionStudy {
    /// The residues are those below this.
    pub fn p(&self) -> usize {
        self.task.modulus()
    }

    /// The key frequencies.
    pub fn keys(&self) -> &[usize] {
        &self.logits.keys
    }

    /// With the training that the model came from: its losses, and the progress measures of weights that it kept.
    pub fn trained(mut self, training: Training) -> Self {
        self.training = Some(training);
        self
    }
}

/// Whether the study can be made of such a model.
fn check(config: &Config, task: &ModularAddition) -> Result<()> {
    task.check_model(config)?;
    one_layer::check(config)?;
    if task.modulus() < 5 {
        let reason = format!("{}, expected at least 5 for this study", task.modulus());
        let field = "d_vocab_out";
        return Err(Error::Config { field, reason });
    }
    Ok(())
}
