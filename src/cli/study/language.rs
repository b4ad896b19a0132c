//! Studies of language models: their prompts are drawn for the model's own tokens.

use super::Study;
use crate::cli::args::{Common, ModelArg};
use crate::cli::output::progress;
use anyhow::{Result, bail};
use pathsum::study::{Story, induction, ioi};
use pathsum::{Config, Par, Precision, Scalar, fixture};

/// What is drawn.
#[derive(Clone, Copy, clap::Args)]
pub struct Drawn {
    /// Of ioi alone, and of induction: how many prompts are drawn (20), or sequences (10)
    #[arg(long, value_name = "N")]
    size: Option<usize>,
    /// Of ioi and induction alone: what they are drawn by (0 unless given)
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
}

impl Drawn {
    /// The option that was given, if any.
    pub fn given(self) -> Option<String> {
        let size = self.size.map(|n| format!("--size {n}"));
        size.or(self.seed.map(|seed| format!("--seed {seed}")))
    }
}

/// Carries out a study of a language model.
pub fn story(study: Study, drawn: Drawn, common: &Common, from: &ModelArg) -> Result<Story> {
    match common.dtype() {
        Precision::F32 => in_precision::<f32>(study, drawn, common, from),
        Precision::F64 => in_precision::<f64>(study, drawn, common, from),
    }
}

fn in_precision<T: Scalar>(
    study: Study,
    drawn: Drawn,
    common: &Common,
    from: &ModelArg,
) -> Result<Story> {
    let seed = drawn.seed.unwrap_or(0);
    // Whether there is a tokenizer is known before the weights are read.
    let tokenizer = from.tokenizer_if_any()?;
    if study == Study::Ioi && tokenizer.is_none() {
        from.tokenizer()?;
    }
    let model = from.load::<T>()?;
    let bar = progress(common, &study.name(), study.parts());
    let begins = |part: &str| {
        bar.set_message(part.to_string());
        bar.inc(1);
    };
    let c = model.config();
    let story = match (study, &tokenizer) {
        (Study::Ioi, Some(tokenizer)) => {
            const PROMPTS: usize = 20;
            let n = drawn.size.unwrap_or(PROMPTS);
            let prompts = ioi::Prompts::draw(tokenizer, c, n, seed)?;
            ioi::study(&model, prompts, Par::Rayon, &begins)?.story(&from.model)
        }
        (Study::Induction, _) => {
            const SEQUENCES: usize = 10;
            let n = drawn.size.unwrap_or(SEQUENCES);
            let beginning = tokenizer.and_then(|t| t.beginning());
            let repeated = repeated(&from.model, c, n, beginning, seed)?;
            induction::study(&model, repeated, Par::Rayon, &begins)?.story(&from.model)
        }
        _ => bail!("{}: is no study of a language model", study.name()),
    };
    bar.finish_and_clear();
    Ok(story)
}

/// Repeated sequences for a model.
fn repeated(
    name: &str,
    config: &Config,
    n: usize,
    beginning: Option<i64>,
    seed: u64,
) -> Result<induction::Repeated> {
    // The constructed model tells tokens apart that come once in a period.
    if name == Study::Induction.fixture() && n > 0 {
        let period = config.d_vocab;
        let tokens = fixture::repeated_sequences(n, period, seed);
        return Ok(induction::Repeated::of(tokens, period)?);
    }
    let beginning = beginning.filter(|&token| (token as usize) < config.d_vocab);
    Ok(induction::Repeated::draw(config, n, None, beginning, seed)?)
}
