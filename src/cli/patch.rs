//! `pathsum patch`: activation patching.

use super::args::{Common, ModelArg};
use super::pairs::PairArgs;
use super::sweep::{Grids, Reading, Request, SweepFile, What};
use super::words::Words;
use anyhow::Result;
use pathsum::intervene::{Change, Each, Site, Sweep};
use pathsum::metric::{mean, per_sequence};
use pathsum::{Hook, Precision, Run, Scalar};
use std::process::ExitCode;

/// Patch values of a clean run into a corrupted one, place by place, and read a metric each time
///
/// As TransformerLens's get_act_patch_… functions do: the run is on the corrupted tokens, with the clean run's
/// value in one place, and docs/interventions.md says which of them is which here. `recovered` is how far that
/// brings the metric from the corrupted run's to the clean run's, as a share. The answers are the clean tokens':
/// labels are read from their file. Unless --by says otherwise heads' values are patched by head and position,
/// the stream and what is added to it by layer and position, scores and patterns by head, neurons by neuron.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pathsum patch gpt2/ --clean-prompt \"The cat sat\" --corrupt-prompt \"The mat sat\" --metric kl\n  pathsum patch model/ --clean a.safetensors --corrupt b.safetensors --metric kl --site z\n  pathsum patch model/ --clean a.safetensors --corrupt b.safetensors --labels next --metric loss"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    pairs: PairArgs,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    grids: Grids,
}

impl Args {
    fn by(&self) -> &'static [Each] {
        match self.grids.site() {
            Site::Q | Site::RotQ | Site::RotK | Site::K | Site::V | Site::Z | Site::Result => {
                &[Each::Head, Each::Position]
            }
            Site::AttnScores | Site::Pattern => &[Each::Head],
            Site::Pre | Site::Post => &[Each::Neuron],
            Site::ResidPre | Site::ResidMid | Site::ResidPost => &[Each::Layer, Each::Position],
            Site::AttnOut | Site::MlpOut => &[Each::Layer, Each::Position],
        }
    }
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    match common.dtype() {
        Precision::F32 => patch::<f32>(args, common),
        Precision::F64 => patch::<f64>(args, common),
    }
}

fn patch<T: Scalar>(args: &Args, common: &Common) -> Result<ExitCode> {
    let model = args.model.load::<T>()?;
    let config = model.config();
    let words = Words::of(&args.model)?;
    let [clean, corrupt] = args.pairs.read(common, &args.model, &words, config)?;
    let (batch, pos) = (clean.tokens.batch(), clean.tokens.pos());
    let answers = args.reading.answers(&clean)?;
    let chosen = args.reading.chosen(&words, config)?;
    let grid = args.grids.grid(config, pos, args.by(), &Change::Patch)?;
    let mut hooks: Vec<Hook> = grid.cells().iter().flatten().map(|i| i.hook).collect();
    hooks.dedup();
    let keep = hooks
        .into_iter()
        .fold(Run::new(), |run, hook| run.cache(hook));
    let source = model.run(&clean.tokens, keep)?;
    let rows = answers.rows_of(&source.logits);
    let read = (&clean.tokens, &answers);
    let metric = (args.reading).metric(chosen, config, read, || Ok(rows.clone()))?;
    let sweep = Sweep::new(&model, &corrupt.tokens, &answers, &*metric).source(&source.cache);
    let result = args.grids.sweep(common, sweep, &grid)?;
    let request = Request {
        what: What::Patch {
            clean_tokens: clean.name().to_string(),
            corrupted_tokens: corrupt.name().to_string(),
        },
        model: args.model.model.clone(),
        dtype: T::PRECISION.to_string(),
        batch,
        pos,
        chosen: args.grids.chosen(config, &grid, pos)?,
        metric: chosen.name(),
        at: answers.positions().to_vec(),
        labels: args.reading.labels_name(),
    };
    let patched = words.both(&clean.tokens, &corrupt.tokens);
    let clean = mean(&per_sequence(&*metric, &answers, &rows));
    args.grids
        .finish(common, SweepFile::patched(request, patched, clean, result))?;
    Ok(ExitCode::SUCCESS)
}
