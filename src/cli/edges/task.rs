//! Pairs, and what is read of their answers: what `edges` and `circuit` have in common.

use crate::cli::args::{Common, ModelArg};
use crate::cli::pairs::PairArgs;
use crate::cli::sweep::Reading;
use crate::cli::words::Words;
use anyhow::{Context, Result, bail};
use pathsum::metric::{Answers, Contrast, Metric};
use pathsum::model::{Config, Model, Tokens};
use pathsum::{Par, Precision, Run, Scalar};
use serde::{Deserialize, Serialize};

/// Pairs, and what is read of them.
#[derive(clap::Args)]
pub struct TaskArgs {
    #[command(flatten)]
    pairs: PairArgs,
    #[command(flatten)]
    reading: Reading,
    /// The right answer to each pair, where it is not the same one for all: a word, or a token's number. As often as there
    /// are pairs
    #[arg(long, value_name = "WORD", conflicts_with = "labels")]
    right: Vec<String>,
    /// With --metric logit_diff the wrong answer to each pair, whose logit is taken from the right one's
    #[arg(long, value_name = "WORD", requires = "right")]
    wrong: Vec<String>,
}

/// What was asked for. Two shards are of one work when they agree in this.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskRequest {
    pub model: String,
    pub dtype: String,
    pub clean_tokens: String,
    pub corrupted_tokens: String,
    /// Pairs.
    pub batch: usize,
    /// Positions of each.
    pub pos: usize,
    pub metric: String,
    /// The positions at which it is read.
    pub at: Vec<usize>,
    pub labels: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub right: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wrong: Vec<String>,
}

impl TaskRequest {
    /// The rounding of the precision that was computed in.
    pub fn epsilon(&self) -> f64 {
        match self.dtype == Precision::F32.to_string() {
            true => f32::EPSILON.into(),
            false => f64::EPSILON,
        }
    }
}

/// The pairs, once they are read.
pub struct EdgeTask {
    pub clean: Tokens,
    pub corrupt: Tokens,
    pub answers: Answers,
    pub metric: Box<dyn Metric>,
    pub request: TaskRequest,
}

impl TaskArgs {
    /// Reads all of it for a model.
    pub fn read<T: Scalar>(
        &self,
        common: &Common,
        arg: &ModelArg,
        model: &Model<T>,
    ) -> Result<EdgeTask> {
        let config = model.config();
        let words = Words::of(arg)?;
        let [clean, corrupt] = self.pairs.read(common, arg, &words, config)?;
        let batch = clean.tokens.batch();
        let right = self.classes("--right", &self.right, batch, &words, config)?;
        let mut answers = self.reading.answers(&clean)?;
        let each = answers.positions().len();
        // The same answer wherever it is read.
        let spread = |classes: Vec<usize>| -> Vec<usize> {
            let of = |class| std::iter::repeat_n(class, each);
            classes.into_iter().flat_map(of).collect()
        };
        if !right.is_empty() {
            answers = Answers::new(answers.positions(), spread(right));
        }
        let chosen = self.reading.chosen(&words, config)?;
        let mut metric = self
            .reading
            .metric(chosen, config, (&clean.tokens, &answers), || {
                let run = model.run(&clean.tokens, Run::new().par(Par::Rayon))?;
                Ok(answers.rows_of(&run.logits))
            })?;
        if !self.wrong.is_empty() {
            if chosen.name() != "logit_diff" {
                bail!(
                    "--wrong: of --metric {} there is none, expected logit_diff",
                    chosen.name()
                );
            }
            let wrong = self.classes("--wrong", &self.wrong, batch, &words, config)?;
            metric = Box::new(Contrast::against(&answers, spread(wrong))?);
        }
        let request = TaskRequest {
            model: arg.model.clone(),
            dtype: T::PRECISION.to_string(),
            clean_tokens: clean.name().to_string(),
            corrupted_tokens: corrupt.name().to_string(),
            batch,
            pos: clean.tokens.pos(),
            metric: chosen.name(),
            at: answers.positions().to_vec(),
            labels: self.reading.labels_name(),
            right: self.right.clone(),
            wrong: self.wrong.clone(),
        };
        Ok(EdgeTask {
            clean: clean.tokens,
            corrupt: corrupt.tokens,
            answers,
            metric,
            request,
        })
    }

    /// The classes that words name, one for each pair.
    fn classes(
        &self,
        option: &str,
        given: &[String],
        batch: usize,
        words: &Words,
        config: &Config,
    ) -> Result<Vec<usize>> {
        if !given.is_empty() && given.len() != batch {
            bail!(
                "{option}: {} words, expected {batch}, one for each pair",
                given.len()
            );
        }
        let class = |text: &String| {
            let token = words.token(text, config);
            token.with_context(|| format!("{option} {text:?}"))
        };
        given.iter().map(class).collect()
    }
}
