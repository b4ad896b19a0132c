//! How good the model is, and whether the write-up's two solutions agree.

use super::adversarial::{self, Judged};
use super::data::{Data, StringKind};
use crate::error::Result;
use crate::linalg::Par;
use crate::metric::{Answers, Standard, mean, per_sequence};
use crate::model::{Model, Run, Tokens};
use crate::task::{Brackets, Task};
use serde::Serialize;

/// How good the model's answers are.
#[derive(Clone, Debug, Serialize)]
pub struct Performance {
    /// Sequences.
    pub sequences: usize,
    /// Right answers.
    pub right: usize,
    /// The mean cross-entropy, in nats.
    pub loss: f64,
    /// On how many sequences the write-up's two ways to solve the task by hand agree: a loop from the left, and the
    /// elevation from the right.
    pub solutions_agree: usize,
    /// For each [`StringKind`] in their order: sequences, right answers, and the mean probability of "balanced".
    pub by_kind: Vec<(usize, usize, f64)>,
    /// Sequences whose total elevation is not 0.
    pub wrong_total: usize,
    /// Sequences whose elevation, read from the right, goes negative.
    pub negative: usize,
    /// Sequences that were generated only to see how often the model is wrong.
    pub many: usize,
    /// How many of these it gets wrong.
    pub many_wrong: usize,
    /// The write-up's examples.
    pub examples: Vec<Judged>,
}

impl Performance {
    /// Whether the model tells balanced strings from others: it makes less than half of the mistakes of one answer for
    /// all of them.
    pub fn tells(&self) -> bool {
        let balanced: usize = self.by_kind.first().map_or(0, |(count, ..)| *count);
        let of_one_answer = balanced.min(self.sequences - balanced);
        2 * (self.sequences - self.right) < of_one_answer
    }
}

/// Enough to see a few wrong ones in ten thousand.
const MANY: usize = 20_000;

/// How many of [`MANY`] generated sequences the model gets wrong.
fn wrong_of_many(model: &Model<f64>, par: Par) -> Result<usize> {
    /// Sequences that are in memory together.
    const TOGETHER: usize = 5000;
    /// Others than the study's own, which have 0.
    const SEED: u64 = 1;
    let task = Brackets::default();
    let tokens = task.tokens(MANY, SEED);
    // In order of their lengths, so that few pads are computed: they are masked, and say nothing.
    let length = |s: usize| task.text(tokens.sequence(s)).len() + 2;
    let mut order: Vec<(usize, usize)> = (0..MANY).map(|s| (length(s), s)).collect();
    order.sort_unstable();
    let mut wrong = 0;
    for some in order.chunks(TOGETHER) {
        let (longest, _) = some[some.len() - 1];
        let rows: Vec<&[i64]> = some
            .iter()
            .map(|&(_, s)| &tokens.sequence(s)[..longest])
            .collect();
        let classes = some
            .iter()
            .flat_map(|&(_, s)| task.solve(tokens.sequence(s)));
        let answers = Answers::new(&task.read_at(), classes.collect());
        let logits = model
            .run(&Tokens::from_rows(&rows), Run::new().par(par))?
            .logits;
        let right = per_sequence(&Standard::Accuracy, &answers, &answers.rows_of(&logits));
        wrong += right.iter().filter(|&&r| r != 1.0).count();
    }
    Ok(wrong)
}

/// Runs the model on all sequences.
pub(super) fn performance(model: &Model<f64>, data: &Data, par: Par) -> Result<Performance> {
    let task = Brackets::default();
    let logits = model.run(&data.tokens, Run::new().par(par))?.logits;
    let rows = data.answers.rows_of(&logits);
    let read = |metric| per_sequence(&metric, &data.answers, &rows);
    let (right, p) = (read(Standard::Accuracy), read(Standard::Probability(1)));
    let by_kind = StringKind::ALL.map(|kind| {
        let of: Vec<usize> = (0..data.kinds.len())
            .filter(|&s| data.kinds[s] == kind)
            .collect();
        let right = of.iter().filter(|&&s| right[s] == 1.0).count();
        (
            of.len(),
            right,
            mean(&of.iter().map(|&s| p[s]).collect::<Vec<_>>()),
        )
    });
    let agrees = |&s: &usize| {
        let text = task.text(data.tokens.sequence(s));
        Brackets::balanced_by_loop(&text) == data.balanced[s]
    };
    let examples = adversarial::EXAMPLES.map(String::from);
    let many_wrong = wrong_of_many(model, par)?;
    Ok(Performance {
        many: MANY,
        many_wrong,
        sequences: data.kinds.len(),
        right: right.iter().filter(|&&r| r == 1.0).count(),
        loss: mean(&read(Standard::Loss)),
        solutions_agree: (0..data.kinds.len()).filter(agrees).count(),
        wrong_total: by_kind[1].0 + by_kind[3].0,
        negative: by_kind[2].0 + by_kind[3].0,
        by_kind: by_kind.into(),
        examples: adversarial::judge(model, &examples, par)?,
    })
}
