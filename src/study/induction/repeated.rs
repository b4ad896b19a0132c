//! Random tokens that are repeated, and how well they are foretold.

use crate::decompose::{PatternScore, PatternScores};
use crate::error::{Error, Result};
use crate::linalg::Par;
use crate::metric::{Answers, Standard, mean, per_sequence};
use crate::model::{Config, Model, Run, Tokens};
use crate::names::Hook;
use crate::tensor::Scalar;
use serde::Serialize;

/// Sequences whose tokens come twice over.
#[derive(Clone, Debug)]
pub struct Repeated {
    /// All of one length.
    pub tokens: Tokens,
    /// After how many tokens they come again.
    pub period: usize,
}

impl Repeated {
    /// `n` seeded sequences of `period` random tokens, twice over, behind a token that begins texts where there is one. Without
    /// a period it is 50, or what the context has room for.
    ///
    /// # Errors
    /// When the context has no room for it twice, the period is less than two, or there are no sequences asked for.
    pub fn draw(
        config: &Config,
        n: usize,
        period: Option<usize>,
        beginning: Option<i64>,
        seed: u64,
    ) -> Result<Self> {
        const PERIOD: usize = 50;
        let most = config
            .n_ctx
            .saturating_sub(usize::from(beginning.is_some()))
            / 2;
        let period = period.unwrap_or(PERIOD.min(most));
        if !(2..=most).contains(&period) {
            return Err(Error::out_of_range(
                "period",
                period,
                "",
                "what the context has room for twice",
                2..most + 1,
            ));
        }
        if n == 0 {
            return Err(Error::TooFew {
                found: 0,
                least: 1,
                message: "0 sequences, expected one at least".into(),
            });
        }
        Repeated::of(Tokens::repeated(config, n, period, beginning, seed), period)
    }

    /// Sequences of one's own, which end with as many tokens twice over.
    ///
    /// # Errors
    /// When there are none, or one does not.
    pub fn of(tokens: Tokens, period: usize) -> Result<Self> {
        let twice = |i: usize| {
            let (first, second) = tokens.sequence(i)[tokens.pos() - 2 * period..].split_at(period);
            first == second
        };
        let fits = tokens.batch() > 0 && period > 1 && 2 * period <= tokens.pos();
        match fits && (0..tokens.batch()).all(twice) {
            true => Ok(Repeated { tokens, period }),
            false => Err(Error::Mismatch(format!(
                "sequences that do not end with {period} tokens twice over, expected two tokens or more, and one sequence at least"
            ))),
        }
    }

    /// The positions after which a copy's tokens come, without that of its first one, which nothing foretells; of the first
    /// copy or the second.
    pub fn before(&self, copy: usize) -> Vec<usize> {
        let first = self.tokens.pos() - (2 - copy) * self.period;
        (first..first + self.period - 1).collect()
    }
}

/// How well tokens are foretold, averaged over the sequences.
#[derive(Clone, Debug, Serialize)]
pub struct Losses {
    /// The loss of each token of the first copy but its first, and of the second, in nats.
    pub each: [Vec<f64>; 2],
    /// Their means.
    pub mean: [f64; 2],
}

/// The losses, and what the heads' patterns say.
pub(super) fn run<T: Scalar>(
    model: &Model<T>,
    repeated: &Repeated,
    par: Par,
) -> Result<(Losses, Vec<PatternScore>)> {
    let c = model.config();
    let n = repeated.tokens.batch();
    let places = [0, 1].map(|copy| repeated.before(copy));
    let mut each = [0, 1].map(|copy: usize| vec![0.0; places[copy].len()]);
    let mut scores = PatternScores::new(c);
    for i in 0..n {
        let tokens = repeated.tokens.slice(i, 1);
        let patterns = (0..c.n_layers).map(Hook::Pattern);
        let out = model.run(
            &tokens,
            patterns.fold(Run::new().par(par), |run, hook| run.cache(hook)),
        )?;
        for l in 0..c.n_layers {
            scores.add(&tokens, l, &out.cache[Hook::Pattern(l)])?;
        }
        for (each, places) in each.iter_mut().zip(&places) {
            for (sum, &p) in each.iter_mut().zip(places) {
                let answers = Answers::next_tokens(&tokens, &[p])?;
                let loss = per_sequence(&Standard::Loss, &answers, &answers.rows_of(&out.logits));
                *sum += loss[0] / n as f64;
            }
        }
    }
    let losses = Losses {
        mean: [mean(&each[0]), mean(&each[1])],
        each,
    };
    let scores = c.dims().heads().map(|head| scores.of(head)).collect();
    Ok((losses, scores))
}
