//! What is read off the logits, and where.

use crate::cli::batch::Batch;
use crate::cli::places::Places;
use anyhow::{Context, Result, anyhow};
use pathsum::metric::{Answers, Kl, Metric, Standard};
use pathsum::model::{Config, Tokens};
use pathsum::{Scalar, Tensor};
use std::fmt;
use std::str::FromStr;

/// A metric, and the answers that it is read at.
#[derive(clap::Args)]
pub struct Reading {
    /// loss, accuracy, logit_diff (the right class less the largest other), logit_diff:I-J, probability,
    /// probability:I, or kl (from the clean run)
    #[arg(long, value_name = "METRIC", default_value = "logit_diff")]
    metric: MetricArg,
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
enum MetricArg {
    Standard(Standard),
    Kl,
}

impl FromStr for MetricArg {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "kl" => Ok(MetricArg::Kl),
            _ => match s.parse() {
                Ok(standard) => Ok(MetricArg::Standard(standard)),
                Err(e) => Err(format!("{e}; or kl")),
            },
        }
    }
}

impl fmt::Display for MetricArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetricArg::Standard(standard) => standard.fmt(f),
            MetricArg::Kl => f.write_str("kl"),
        }
    }
}

impl Reading {
    /// The metric's name.
    pub fn metric_name(&self) -> String {
        self.metric.to_string()
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
        config: &Config,
        (tokens, answers): (&Tokens, &Answers),
        clean: impl FnOnce() -> Result<Tensor<T>>,
    ) -> Result<Box<dyn Metric>> {
        answers.check(config, tokens)?;
        let metric: Box<dyn Metric> = match self.metric {
            MetricArg::Standard(standard) => Box::new(standard),
            MetricArg::Kl => Box::new(Kl::from_clean(&clean()?)),
        };
        metric.check(answers, config.d_vocab_out)?;
        Ok(metric)
    }
}
