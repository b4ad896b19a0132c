//! `pathsum ablate`: a metric with parts of the model ablated, one after the other.

use super::args::{Common, ModelArg};
use super::batch::SequenceArgs;
use super::sweep::{Ablation, Grids, Reading, Request, SweepFile, What};
use super::words::Words;
use anyhow::{Result, bail};
use pathsum::intervene::{Change, Each, Over, Site, Sweep};
use pathsum::{Precision, Scalar};
use std::process::ExitCode;

/// Ablate heads, neurons or positions one after the other, and read a metric each time
///
/// Heads' sites are ablated by head, neurons by neuron, the stream and what is added to it by layer, unless --by
/// says otherwise. A table of two axes has the change from the clean run. --out or --json give every value.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pathsum ablate model/ --tokens dataset.safetensors --labels is_palindrome\n  pathsum ablate model/ --tokens dataset.safetensors --labels next --metric loss\n  pathsum ablate model/ --tokens dataset.safetensors --metric kl --site v --by position"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    sequences: SequenceArgs,
    #[command(flatten)]
    reading: Reading,
    /// What comes in the value's place
    #[arg(long, value_name = "HOW", value_enum, default_value = "mean")]
    how: Ablation,
    /// What resample draws from (0 unless given)
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[command(flatten)]
    grids: Grids,
}

impl Args {
    fn seed(&self) -> Result<Option<u64>> {
        match (self.how, self.seed) {
            (Ablation::Resample, seed) => Ok(Some(seed.unwrap_or(0))),
            (_, None) => Ok(None),
            (_, Some(_)) => bail!("--seed: nothing is drawn at random but with --how resample"),
        }
    }

    fn change(&self) -> Result<Change> {
        let seed = self.seed()?;
        Ok(match self.how {
            Ablation::Mean => Change::Mean(Over::Sequences),
            Ablation::MeanAll => Change::Mean(Over::Positions),
            Ablation::Zero => Change::Zero,
            Ablation::Resample => Change::Resample {
                seed: seed.unwrap_or(0),
            },
        })
    }

    fn by(&self) -> Each {
        match self.grids.site() {
            Site::Q | Site::RotQ | Site::RotK | Site::K | Site::V | Site::Z | Site::Result => {
                Each::Head
            }
            Site::AttnScores | Site::Pattern => Each::Head,
            Site::Pre | Site::Post => Each::Neuron,
            Site::ResidPre | Site::ResidMid | Site::ResidPost => Each::Layer,
            Site::AttnOut | Site::MlpOut => Each::Layer,
        }
    }
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    match common.dtype() {
        Precision::F32 => ablate::<f32>(args, common),
        Precision::F64 => ablate::<f64>(args, common),
    }
}

fn ablate<T: Scalar>(args: &Args, common: &Common) -> Result<ExitCode> {
    let change = args.change()?;
    let model = args.model.load::<T>()?;
    let config = model.config();
    let batch = args.sequences.read(common, &args.model, config)?;
    let tokens = &batch.tokens;
    let answers = args.reading.answers(&batch)?;
    if args.how == Ablation::Mean && tokens.batch() == 1 {
        bail!(
            "--how mean: of one sequence that is its own value, and nothing changes: expected several sequences, or --how zero or mean_all"
        );
    }
    let grid = args
        .grids
        .grid(config, tokens.pos(), &[args.by()], &change)?;
    let clean = || Ok(answers.rows_of(&model.logits(tokens)?));
    let words = Words::of(&args.model)?;
    let chosen = args.reading.chosen(&words, config)?;
    let metric = (args.reading).metric(chosen, config, (tokens, &answers), clean)?;
    let sweep = Sweep::new(&model, tokens, &answers, &*metric);
    let result = args.grids.sweep(common, sweep, &grid)?;
    let request = Request {
        what: What::Ablate {
            tokens: batch.name().to_string(),
            how: args.how,
            seed: args.seed()?,
        },
        model: args.model.model.clone(),
        dtype: T::PRECISION.to_string(),
        batch: tokens.batch(),
        pos: tokens.pos(),
        chosen: args.grids.chosen(config, &grid, tokens.pos())?,
        metric: chosen.name(),
        at: answers.positions().to_vec(),
        labels: args.reading.labels_name(),
    };
    args.grids.finish(
        common,
        SweepFile::ablated(request, words.positions(tokens), result),
    )?;
    Ok(ExitCode::SUCCESS)
}
