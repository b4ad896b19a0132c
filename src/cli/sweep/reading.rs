//! What is read off the logits, and where.

use crate::cli::batch::Batch;
use crate::cli::direction::Direction;
use crate::cli::places::Places;
use crate::cli::words::Words;
use anyhow::{Context, Result, anyhow, bail};
use pathsum::metric::{Answers, Kl, Metric, Standard};
use pathsum::model::{Config, Tokens};
use pathsum::{Scalar, Tensor};
use std::str::FromStr;

/// A metric, and the answers that it is read at.
#[derive(clap::Args)]
pub struct Reading {
    /// loss, accuracy, logit_diff (the right class less the largest other), logit_diff:I-J, probability,
    /// probability:I, or kl (from the clean run). I and J are numbers, or words where the model's folder has a tokenizer:
    /// "logit_diff: Mary- John"
    #[arg(long, value_name = "METRIC", default_value = "logit_diff")]
    metric: String,
    /// Where the answers are read: first, last, N, N-M, or several with commas (last unless given; with
    /// --labels next, all positions that have a next token)
    #[arg(long, value_name = "PLACES")]
    at: Option<Places>,
    /// The right classes: a tensor of the (clean) tokens' file, [batch] or [batch, pos]; of typed sequences the task's own
    /// (is_palindrome, is_balanced, labels); or `next`, the token that follows
    #[arg(long, value_name = "KEY")]
    labels: Option<String>,
}

/// The word for labels that are the tokens themselves.
const NEXT: &str = "next";

/// What can be read.
#[derive(Clone, Copy)]
pub enum Metrics {
    Standard(Standard),
    Kl,
}

impl Metrics {
    /// Its name, with numbers for words.
    pub fn name(self) -> String {
        match self {
            Metrics::Standard(standard) => standard.to_string(),
            Metrics::Kl => "kl".into(),
        }
    }
}

impl Reading {
    /// Which metric it is, for a model with these words.
    pub fn chosen(&self, words: &Words, c: &Config) -> Result<Metrics> {
        let unknown = match self.metric.as_str() {
            "kl" => return Ok(Metrics::Kl),
            text => match Standard::from_str(text) {
                Ok(standard) => return Ok(Metrics::Standard(standard)),
                Err(unknown) => unknown,
            },
        };
        let direction = |text| Direction::parse("--metric", text, words, c);
        let standard = match self.metric.split_once(':').filter(|_| words.known()) {
            Some(("logit_diff", text)) => match direction(text)? {
                Direction {
                    of,
                    less: Some(less),
                } => Standard::Difference(of, less),
                _ => bail!("{unknown}; or kl"),
            },
            Some(("probability", text)) => Standard::Probability(words.token(text, c)?),
            _ => bail!("{unknown}; or kl"),
        };
        Ok(Metrics::Standard(standard))
    }

    /// The labels' name, where there are labels.
    pub fn labels_name(&self) -> Option<String> {
        self.labels.clone()
    }

    /// Where this batch's answers are read, and what is right there.
    pub fn answers(&self, batch: &Batch) -> Result<Answers> {
        let pos = batch.tokens.pos();
        let next = self.labels.as_deref() == Some(NEXT);
        let positions = match &self.at {
            Some(places) => places.of("--at: position", pos)?,
            None if next => (0..pos - 1).collect(),
            None => vec![pos - 1],
        };
        if positions.is_empty() {
            return Err(anyhow!("{}: no position has a next token", batch.name()));
        }
        match &self.labels {
            None => Ok(Answers::at(batch.tokens.batch(), &positions)),
            Some(_) if next => Answers::next_tokens(&batch.tokens, &positions)
                .with_context(|| batch.name().to_string()),
            Some(key) => batch.labels(key, &positions),
        }
    }

    /// The metric, which these answers of the tokens are checked to have.
    ///
    /// `clean` makes the clean run's logits at the answers, for a metric that looks at them.
    pub fn metric<T: Scalar>(
        &self,
        chosen: Metrics,
        config: &Config,
        (tokens, answers): (&Tokens, &Answers),
        clean: impl FnOnce() -> Result<Tensor<T>>,
    ) -> Result<Box<dyn Metric>> {
        answers.check(config, tokens)?;
        let metric: Box<dyn Metric> = match chosen {
            Metrics::Standard(standard) => Box::new(standard),
            Metrics::Kl => Box::new(Kl::from_clean(&clean()?)),
        };
        metric.check(answers, config.d_vocab_out)?;
        Ok(metric)
    }
}
