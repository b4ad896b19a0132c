//! Checkpoints: everything that the next step depends on.

use super::evaluate::Evaluation;
use super::settings::Settings;
use super::trainer::{Progress, Trainer};
use crate::error::{Error, Result};
use crate::model::{Config, Model, Weights};
use crate::tensor::{Saved, Scalar, Tensor, TensorFile, write_safetensors};
use std::path::{Path, PathBuf};

/// Weights, running means and the number of steps: one file, so that none of them is ever another step's.
const STATE: &str = "training.safetensors";
const STEP: &str = "step";
const MEAN: &str = "adam.mean.";
const SQUARE: &str = "adam.square.";
/// `[trial, 5]`: step, the batch's loss, and the three means on held-out data.
const CURVE: &str = "curve";
/// The folder of weights that are kept.
const SNAPSHOTS: &str = "snapshots";

impl<T: Scalar> Trainer<T> {
    /// Writes a folder: a model's two files, and `training.safetensors`, from which [`Trainer::resume`] goes on.
    ///
    /// Each file appears whole or not at all, and an interruption between two of them costs nothing: training goes on
    /// from `training.safetensors` alone.
    ///
    /// # Errors
    /// When the folder or a file cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let step = [i64::try_from(self.step).expect("fewer steps than that")];
        let prefixed = |prefix: &'static str, weights| {
            let tensors = Weights::tensors(weights).into_iter();
            tensors.map(move |(name, t)| (format!("{prefix}{name}"), Saved::from(t)))
        };
        let curve = self.curve.iter().flat_map(|p| {
            let tried = p.held_out.expect("a curve is made of trials");
            let Evaluation {
                loss,
                accuracy,
                probability,
            } = tried;
            [p.step as f64, p.loss, loss, accuracy, probability]
        });
        let curve = Tensor::<f64>::from_vec(&[self.curve.len(), 5], curve.collect());
        let all = prefixed("", self.model.weights())
            .chain(prefixed(MEAN, &self.moments.mean))
            .chain(prefixed(SQUARE, &self.moments.square))
            .chain([
                (STEP.to_string(), Saved::integers(&[], &step)),
                (CURVE.to_string(), Saved::from(&curve)),
            ]);
        write_safetensors(folder.join(STATE), all)?;
        self.model.save(folder)
    }

    /// Keeps the weights as they are now, as `snapshots/STEP.safetensors` of the folder.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn save_snapshot(&self, folder: &Path) -> Result<()> {
        let folder = folder.join(SNAPSHOTS);
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        let named = self.model.weights().state_dict().into_iter();
        let named: Vec<_> = named.collect();
        let tensors = named
            .iter()
            .map(|(name, t)| (name.to_string(), Saved::from(t.as_ref())));
        write_safetensors(folder.join(format!("{}.safetensors", self.step)), tensors)
    }

    /// Whether a folder holds a training that can go on.
    pub fn can_resume(folder: impl AsRef<Path>) -> bool {
        folder.as_ref().join(STATE).is_file()
    }

    /// Goes on from a folder that [`Trainer::save`] wrote, as if there had been no interruption.
    ///
    /// # Errors
    /// When there is no such file, or it is another model's.
    pub fn resume(folder: impl AsRef<Path>, config: Config, settings: Settings) -> Result<Self> {
        let path = folder.as_ref().join(STATE);
        let file = TensorFile::open(&path)?;
        let read = |prefix: &str| {
            Weights::build(&config, |name, expected| {
                let t = file.float::<T>(&format!("{prefix}{name}"))?;
                match t.shape() == expected {
                    true => Ok(t),
                    false => Err(Error::Shape {
                        name: name.into(),
                        found: t.shape().to_vec(),
                        expected: expected.to_vec(),
                    }),
                }
            })
            .map_err(|e| Error::format(&path, e))
        };
        let (weights, mean, square) = (read("")?, read(MEAN)?, read(SQUARE)?);
        let (_, step) = file.integer(STEP)?;
        let step = step.first().and_then(|&s| usize::try_from(s).ok());
        let mut trainer = Trainer::from_model(Model::new(config, weights)?, settings)?;
        trainer.step = step.ok_or_else(|| Error::format(&path, "`step` is no number of steps"))?;
        // Trainings of earlier versions kept none.
        if let Some(&[_, 5]) = file.shape(CURVE) {
            trainer.curve = curve_of(&file.float(CURVE)?);
        }
        trainer.moments.mean = mean;
        trainer.moments.square = square;
        Ok(trainer)
    }
}

/// The trials of a curve, from its rows.
fn curve_of(rows: &Tensor<f64>) -> Vec<Progress> {
    let rows = rows.data().chunks_exact(5);
    let of = |row: &[f64]| Progress {
        step: row[0] as usize,
        loss: row[1],
        held_out: Some(Evaluation {
            loss: row[2],
            accuracy: row[3],
            probability: row[4],
        }),
    };
    rows.map(of).collect()
}

/// The trials of a training so far, from the folder that it is written to: none where it is no folder of a training, or
/// one of an earlier version.
///
/// # Errors
/// When its file is damaged.
pub fn training_curve(folder: impl AsRef<Path>) -> Result<Vec<Progress>> {
    let path = folder.as_ref().join(STATE);
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let file = TensorFile::open(&path)?;
    match file.shape(CURVE) {
        Some(&[_, 5]) => Ok(curve_of(&file.float(CURVE)?)),
        _ => Ok(Vec::new()),
    }
}

/// The weights that a training kept along the way, [`Settings::snapshot_every`]: step and file, in order.
///
/// # Errors
/// When the folder cannot be read.
pub fn snapshots(folder: impl AsRef<Path>) -> Result<Vec<(usize, PathBuf)>> {
    let folder = folder.as_ref().join(SNAPSHOTS);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(|e| Error::io(&folder, e))? {
        let path = entry.map_err(|e| Error::io(&folder, e))?.path();
        let step = path.file_stem().and_then(|s| s.to_str()?.parse().ok());
        let is_file = path.extension().is_some_and(|e| e == "safetensors");
        found.extend(step.filter(|_| is_file).map(|step| (step, path)));
    }
    found.sort();
    Ok(found)
}
