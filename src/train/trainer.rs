//! The training loop.

use super::adam::Moments;
use super::evaluate::{Evaluation, evaluate};
use super::initialise::{all_zero, initialise};
use super::settings::Settings;
use crate::error::{Error, Result};
use crate::gradient::ParameterGradient;
use crate::linalg::Par;
use crate::metric::{Standard, mean};
use crate::model::{Config, Model};
use crate::names::wildcard;
use crate::task::Labelled;
use crate::tensor::Scalar;
use std::path::Path;

/// A model in training: its weights, the optimiser's running means, and the number of steps done.
///
/// What it becomes depends on nothing but the settings and the data: not on the number of threads, nor on
/// interruptions.
pub struct Trainer<T: Scalar> {
    pub(super) model: Model<T>,
    pub(super) moments: Moments<T>,
    pub(super) settings: Settings,
    pub(super) step: usize,
    pub(super) curve: Vec<Progress>,
    frozen: Vec<bool>,
    gradient: ParameterGradient<T>,
}

/// How far a training has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: usize,
    /// The loss of the last step's batch, before the step.
    pub loss: f64,
    /// How good the model is on held-out data, where it was tried after this step.
    pub held_out: Option<Evaluation>,
}

impl<T: Scalar> Trainer<T> {
    /// A model that is to be trained from seeded initial weights.
    ///
    /// # Errors
    /// When the configuration contradicts itself, or a frozen parameter is none of the model's.
    pub fn new(config: Config, settings: Settings) -> Result<Self> {
        let weights = initialise(&config, settings.seed, settings.initializer_range);
        Self::from_model(Model::new(config, weights)?, settings)
    }

    /// As [`Trainer::new`], from a model's own weights.
    ///
    /// # Errors
    /// When a frozen parameter is none of the model's, or a number of steps is zero.
    pub fn from_model(model: Model<T>, settings: Settings) -> Result<Self> {
        if settings.evaluate_every == 0
            || settings.checkpoint_every == 0
            || settings.snapshot_every == Some(0)
        {
            return Err(Error::Recipe(
                "evaluate_every, checkpoint_every and snapshot_every: expected one step at least"
                    .into(),
            ));
        }
        let names: Vec<String> = model
            .weights()
            .tensors()
            .into_iter()
            .map(|(n, _)| n)
            .collect();
        let covers = |pattern: &str, name: &str| wildcard(pattern.as_bytes(), name.as_bytes());
        for pattern in &settings.frozen {
            if !names.iter().any(|name| covers(pattern, name)) {
                return Err(Error::unknown(
                    "parameter",
                    pattern,
                    names.iter().map(String::as_str),
                ));
            }
        }
        let is_frozen = |name: &String| settings.frozen.iter().any(|p| covers(p, name));
        let zeros = || all_zero(model.config());
        Ok(Trainer {
            frozen: names.iter().map(is_frozen).collect(),
            moments: Moments {
                mean: zeros(),
                square: zeros(),
            },
            gradient: ParameterGradient::new(model.config()),
            settings,
            step: 0,
            curve: Vec::new(),
            model,
        })
    }

    /// The model as it is now.
    pub fn model(&self) -> &Model<T> {
        &self.model
    }

    /// The losses at every trial on held-out data so far, before interruptions as well.
    pub fn curve(&self) -> &[Progress] {
        &self.curve
    }

    /// Steps done.
    pub fn steps_done(&self) -> usize {
        self.step
    }

    /// One step; gives the batch's loss before it.
    ///
    /// # Errors
    /// When the batch does not fit the model, or the loss is no finite number any more.
    pub fn step(&mut self, batch: &Labelled, par: Par) -> Result<f64> {
        let Labelled { tokens, answers } = batch;
        let loss = (self.gradient).compute(&self.model, tokens, &Standard::Loss, answers, par)?;
        let loss = mean(&loss);
        if !loss.is_finite() {
            return Err(Error::Numeric(format!(
                "the loss is {loss} at step {}: expected a finite number; try a smaller learning rate",
                self.step
            )));
        }
        let rate = self.settings.schedule.rate(self.step, self.settings.steps);
        self.step += 1;
        self.settings.optimiser.step(
            self.model.weights_mut(),
            self.gradient.weights(),
            &mut self.moments,
            &self.frozen,
            self.step,
            rate,
        );
        Ok(loss)
    }

    /// All the steps that are left, or as many as the target takes; gives how good the model then is on the held-out
    /// batch. `data` gives each step's batch; with a folder, checkpoints are written there.
    ///
    /// # Errors
    /// As [`Trainer::step`]; and when a checkpoint cannot be written.
    pub fn run(
        &mut self,
        data: &dyn Fn(usize) -> Labelled,
        held_out: &Labelled,
        folder: Option<&Path>,
        progress: &mut dyn FnMut(&Progress),
        par: Par,
    ) -> Result<Evaluation> {
        let save = |trainer: &Self| folder.map_or(Ok(()), |folder| trainer.save(folder));
        let good_enough = |trainer: &Self, e: &Evaluation| {
            trainer.settings.target.is_some_and(|target| target.met(e))
        };
        // A training that goes on may have ended already.
        if self.step > 0 && self.step.is_multiple_of(self.settings.evaluate_every) {
            let evaluation = evaluate(&self.model, held_out, par)?;
            if good_enough(self, &evaluation) {
                return Ok(evaluation);
            }
        }
        while self.step < self.settings.steps {
            let loss = self.step(&data(self.step), par)?;
            let due = |every: usize| self.step.is_multiple_of(every);
            let tried = match due(self.settings.evaluate_every) {
                true => Some(evaluate(&self.model, held_out, par)?),
                false => None,
            };
            let now = Progress {
                step: self.step,
                loss,
                held_out: tried,
            };
            progress(&now);
            self.curve.extend(tried.is_some().then_some(now));
            if let (Some(folder), true) = (folder, self.settings.snapshot_every.is_some_and(due)) {
                self.save_snapshot(folder)?;
            }
            if let Some(evaluation) = tried.filter(|e| good_enough(self, e)) {
                save(self)?;
                return Ok(evaluation);
            }
            if due(self.settings.checkpoint_every) && self.step < self.settings.steps {
                save(self)?;
            }
        }
        save(self)?;
        evaluate(&self.model, held_out, par)
    }
}
