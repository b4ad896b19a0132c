//! Causal scrubbing: what a hypothesis says does not matter is replaced by that of other inputs, and what is lost
//! by it is measured.

mod exact;
mod hypothesis;
mod run;
mod sample;
mod site;

pub use hypothesis::{Agree, Hypothesis, Node};

use crate::error::{Error, Result};
use crate::linalg::Par;
use crate::metric::{Answers, Metric, mean, per_sequence};
use crate::model::{Model, Run, Tokens};
use crate::tensor::Scalar;
use hypothesis::Body;
use serde::{Deserialize, Serialize};

/// A model, the inputs, and the metric that hypotheses are judged by.
///
/// A hypothesis is a tree. Its root is the output; a node below is an activation that the one above depends on, and
/// says which inputs are equivalent as far as that goes. For each input, as reference, an activation is taken from
/// an input that the node holds equivalent, which is drawn anew at every node; whatever an activation is computed
/// from and the hypothesis does not name comes from one more input. The expectation of the metric over all these
/// draws, with the reference's own answer as the right one, is compared with that of the model itself: a hypothesis
/// that is true loses nothing.
///
/// ```
/// use pathsum::intervene::Part;
/// use pathsum::intervene::scrub::{Agree, Hypothesis, Node, Scrub};
/// use pathsum::metric::{Answers, Standard};
/// use pathsum::{Hook, Tokens, fixture};
///
/// // An induction head's model: after `a b a` comes `b`. All such inputs of three tokens.
/// let model = fixture::induction::<f64>();
/// let rows: Vec<[i64; 3]> = (0..6).map(|i| [i / 2, (i / 2 + 1 + i % 2) % 3, i / 2]).collect();
/// let tokens = Tokens::from_rows(&rows);
/// let answers = Answers::new(&[2], rows.iter().map(|row| row[1] as usize).collect());
/// let scrub = Scrub::new(&model, &tokens, &answers, &Standard::Accuracy);
///
/// // What head 1.0 writes last depends on the second token alone …
/// let second = Agree::on(&tokens, |sequence| sequence[1]);
/// let writes = |agree| Node::new(Hook::Result(1), Part::all().positions([2]), agree);
/// let hypothesis = Hypothesis::new().rest(Agree::Anything).child(writes(second));
/// assert!(scrub.exact(&hypothesis, 1000)?.scrubbed > 0.999);
/// // … and not on the first.
/// let first = Agree::on(&tokens, |sequence| sequence[0]);
/// let hypothesis = Hypothesis::new().rest(Agree::Anything).child(writes(first));
/// assert!(scrub.exact(&hypothesis, 1000)?.scrubbed < 0.8);
/// # Ok::<(), pathsum::Error>(())
/// ```
///
/// # Source
/// Chan et al., "Causal Scrubbing: a method for rigorously testing interpretability hypotheses" (2022), the
/// algorithm of its appendix; except that what a node does not name need not come from any input at all
/// ([`Node::rest`]).
pub struct Scrub<'a, T: Scalar> {
    model: &'a Model<T>,
    tokens: &'a Tokens,
    answers: &'a Answers,
    metric: &'a dyn Metric,
    par: Par,
}

/// What a hypothesis leaves of a metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scrubbed {
    /// What was read.
    pub metric: String,
    /// Its mean over the inputs as they are.
    pub clean: f64,
    /// Its mean over the inputs as references and over all draws, or the estimate of it.
    pub scrubbed: f64,
    /// How that was found.
    pub method: Estimate,
}

/// How an expectation was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Estimate {
    /// By every draw that there is.
    Exact {
        /// How often the model was run on one sequence.
        runs: u64,
    },
    /// By independent draws, references among them.
    Sampled {
        /// How many.
        samples: usize,
        /// What they are drawn from.
        seed: u64,
        /// The sample standard deviation over the root of their number.
        standard_error: f64,
        /// The interval that holds the expectation with a probability of 95%, by the normal approximation: 1.96
        /// standard errors either way.
        interval: [f64; 2],
    },
}

impl<'a, T: Scalar> Scrub<'a, T> {
    /// Of these inputs; their answers are the right ones, whatever is put in the place of the rest.
    pub fn new(
        model: &'a Model<T>,
        tokens: &'a Tokens,
        answers: &'a Answers,
        metric: &'a dyn Metric,
    ) -> Self {
        Scrub {
            model,
            tokens,
            answers,
            metric,
            par: Par::default(),
        }
    }

    /// Whether to split the work over threads; over the current rayon pool unless said otherwise. The draws do not
    /// depend on it.
    pub fn par(mut self, par: Par) -> Self {
        self.par = par;
        self
    }

    /// The expectation over every draw that the hypothesis allows.
    ///
    /// Draws that lead to the same value at a node are one, with their probability, and references that leave the
    /// same choice share the runs. What cannot be shared is run: the metric need not be linear in the activations.
    ///
    /// # Errors
    /// When the hypothesis is ill-formed, the metric cannot be read off these answers, or more than `runs` runs of
    /// one sequence would be needed; then [`Scrub::sample`] has an estimate.
    ///
    /// # Cost
    /// For a node that depends on others, the product of the numbers of their distinct values and of the inputs for
    /// the rest, for every combination of classes that a reference can be in.
    pub fn exact(&self, hypothesis: &Hypothesis, runs: u64) -> Result<Scrubbed> {
        let body = self.check(hypothesis)?;
        let (scrubbed, runs) = exact::expectation(self, &body, runs)?;
        self.found(scrubbed, Estimate::Exact { runs })
    }

    /// An estimate from independent draws: a reference, and then an input for every node.
    ///
    /// # Errors
    /// When the hypothesis is ill-formed, the metric cannot be read off these answers, or there are fewer than two
    /// samples, from which no error can be told.
    ///
    /// # Cost
    /// For every sample a run for each node, but for nodes without children: these are run once for each input drawn.
    pub fn sample(&self, hypothesis: &Hypothesis, samples: usize, seed: u64) -> Result<Scrubbed> {
        if samples < 2 {
            return Err(Error::TooFew {
                found: samples,
                least: 2,
                message: format!("{samples} samples tell no error, expected two at least"),
            });
        }
        let body = self.check(hypothesis)?;
        let values = sample::values(self, &body, samples, seed)?;
        let (n, scrubbed) = (samples as f64, mean(&values));
        let squares: f64 = values.iter().map(|v| (v - scrubbed).powi(2)).sum();
        let standard_error = (squares / (n - 1.0) / n).sqrt();
        let method = Estimate::Sampled {
            samples,
            seed,
            standard_error,
            interval: [-1.96, 1.96].map(|z| scrubbed + z * standard_error),
        };
        self.found(scrubbed, method)
    }

    fn found(&self, scrubbed: f64, method: Estimate) -> Result<Scrubbed> {
        let logits = self
            .model
            .run(self.tokens, Run::new().par(self.par))?
            .logits;
        let clean = per_sequence(self.metric, self.answers, &self.answers.rows_of(&logits));
        Ok(Scrubbed {
            metric: self.metric.name(),
            clean: mean(&clean),
            scrubbed,
            method,
        })
    }

    fn check(&self, hypothesis: &Hypothesis) -> Result<Body<T>> {
        let config = self.model.config();
        self.tokens.check(config)?;
        if self.tokens.batch() == 0 {
            return Err(Error::TooFew {
                found: 0,
                least: 1,
                message: "there are no inputs to draw from".into(),
            });
        }
        if self.tokens.attention_mask().is_some() || self.tokens.token_types().is_some() {
            let what = "causal scrubbing of sequences with pads or token types";
            return Err(Error::NotCovered(what));
        }
        self.answers.check(config, self.tokens)?;
        self.metric.check(self.answers, config.d_vocab_out)?;
        hypothesis.check(config, self.tokens)
    }

    /// The metric of a reference, from the logits that the draws lead to.
    fn metric_of(&self, reference: usize, rows: &[T], logits: &mut [f64]) -> f64 {
        let rows = rows.chunks_exact(logits.len()).enumerate();
        let values = rows.map(|(index, row)| {
            let to = logits.iter_mut().zip(row);
            to.for_each(|(to, x)| *to = x.to_f64());
            self.metric.of(&self.answers.get(reference, index), logits)
        });
        values.sum::<f64>() / self.answers.positions().len() as f64
    }
}
