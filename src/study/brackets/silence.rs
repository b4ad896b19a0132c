//! Answers with a last-layer head made to write at position 0 what it writes to balanced strings, on average.

use super::data::Data;
use super::written::{ANSWER, Written};
use crate::error::Result;
use crate::intervene::{Change, Intervention, Part, intervene};
use crate::linalg::Par;
use crate::metric::{Standard, mean, per_sequence};
use crate::model::{Model, Run, Tokens};
use crate::names::{Head, Hook};

/// Something that a head is made to write at position 0.
pub(super) struct Silence(Intervention);

impl Silence {
    /// Its mean over balanced strings.
    pub fn balanced(head: Head, written: &Written, balanced: &[usize]) -> Self {
        let part = Part::all().heads([head.head]).positions([ANSWER]);
        let value = Change::Set(written.mean_answer_of(head, balanced));
        Silence(Intervention::new(Hook::Result(head.layer), part, value))
    }
}

/// How good the answers to some sequences are.
pub(super) struct Answered {
    /// The share of right ones.
    pub right: f64,
    /// The mean cross-entropy, in nats.
    pub loss: f64,
}

/// The answers to some sequences with these heads silenced.
pub(super) fn answers(
    model: &Model<f64>,
    data: &Data,
    sequences: &[usize],
    silent: &[Silence],
    par: Par,
) -> Result<Answered> {
    let tokens = chosen(data, sequences);
    let changes: Vec<Intervention> = silent.iter().map(|s| s.0.clone()).collect();
    let run = intervene(Run::new().par(par), model, &tokens, &changes, None)?;
    let logits = model.run(&tokens, run)?.logits;
    let right = data.answers.select(sequences);
    let rows = right.rows_of(&logits);
    let read = |metric: Standard| mean(&per_sequence(&metric, &right, &rows));
    Ok(Answered {
        right: read(Standard::Accuracy),
        loss: read(Standard::Loss),
    })
}

/// Some of the sequences.
pub(super) fn chosen(data: &Data, sequences: &[usize]) -> Tokens {
    let rows: Vec<&[i64]> = sequences.iter().map(|&s| data.tokens.sequence(s)).collect();
    Tokens::from_rows(&rows)
}
