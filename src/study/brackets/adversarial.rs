//! Strings that fool the model: the write-up's family, and a search for others. The exact solution says what is right.

use super::Roles;
use super::cures::Cure;
use super::data::StringKind;
use crate::error::Result;
use crate::intervene::{Intervention, intervene};
use crate::linalg::Par;
use crate::metric::{Answers, Standard, per_sequence};
use crate::model::{Model, Run, Tokens};
use crate::task::{Brackets, Task};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use std::collections::BTreeMap;

/// The class of balanced strings.
pub(super) const BALANCED: usize = 1;

/// A string of brackets, and what the model says of it.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// The brackets.
    pub brackets: String,
    /// How it really fails.
    pub kind: StringKind,
    /// The model's probability of "balanced".
    pub p_balanced: f64,
}

impl Judged {
    /// The string's tokens.
    pub(super) fn sequence(&self) -> Result<Vec<i64>> {
        Brackets::default().sequence(&self.brackets)
    }

    /// Whether the model is wrong.
    pub fn fools(&self) -> bool {
        (self.p_balanced > 0.5) != (self.kind == StringKind::Balanced)
    }

    /// The probability that the model gives the wrong answer.
    pub fn p_wrong(&self) -> f64 {
        match self.kind {
            StringKind::Balanced => 1.0 - self.p_balanced,
            _ => self.p_balanced,
        }
    }
}

/// What fools the model.
#[derive(Clone, Debug, Serialize)]
pub struct Adversarial {
    /// `tall(i/2) + ")(" + tall((38-i)/2)` for i = 2, 4, …, 36, where `tall(n)` is n opening and n closing brackets:
    /// `[i, P(balanced)]`.
    pub family: Vec<(usize, f64)>,
    /// The write-up's own string, `i` = 30.
    pub published: Judged,
    /// The strings that the write-up prints beside it: `()`, `(())`, `))`.
    pub beside: Vec<Judged>,
    /// What cures each string of the family.
    pub cures: Vec<Cure>,
    /// The best of the search, the likeliest to be taken wrongly first, for each [`StringKind`] in their order.
    pub found: Vec<Vec<Judged>>,
    /// How many strings the search had the model judge.
    pub judged: usize,
}

/// The write-up's examples.
pub(super) const EXAMPLES: [&str; 7] = [
    "()()",
    "(())",
    "))((",
    "()",
    "((()()()()))",
    "(()()()(()(())()",
    "()(()(((())())()))",
];

/// What the model says of some strings.
pub(super) fn judge(model: &Model<f64>, brackets: &[String], par: Par) -> Result<Vec<Judged>> {
    let task = Brackets::default();
    let rows = brackets
        .iter()
        .map(|b| task.sequence(b))
        .collect::<Result<Vec<_>>>()?;
    let tokens = Tokens::from_rows(&rows);
    let answers = Answers::at(rows.len(), &task.read_at());
    let logits = model.run(&tokens, Run::new().par(par))?.logits;
    let rows_read = answers.rows_of(&logits);
    let p = per_sequence(&Standard::Probability(BALANCED), &answers, &rows_read);
    let all = brackets.iter().zip(rows).zip(p);
    Ok(all
        .map(|((brackets, row), p_balanced)| Judged {
            brackets: brackets.clone(),
            kind: StringKind::of(&row),
            p_balanced,
        })
        .collect())
}

/// The probability of "balanced" of one sequence, with changes.
pub(super) fn judged_with(
    model: &Model<f64>,
    sequence: &[i64],
    changes: &[Intervention],
    par: Par,
) -> Result<f64> {
    let tokens = Tokens::from_rows(&[sequence]);
    let run = intervene(Run::new().par(par), model, &tokens, changes, None)?;
    let logits = model.run(&tokens, run)?.logits;
    let answers = Answers::at(1, &Brackets::default().read_at());
    let rows = answers.rows_of(&logits);
    Ok(per_sequence(&Standard::Probability(BALANCED), &answers, &rows)[0])
}

impl Adversarial {
    pub(super) fn new(model: &Model<f64>, roles: &Roles, par: Par) -> Result<Self> {
        let longest = Brackets::default().positions() - 2;
        let n = longest - 2;
        let sizes: Vec<usize> = (2..n).step_by(2).collect();
        let strings: Vec<String> = sizes.iter().map(|&i| Brackets::adversarial(n, i)).collect();
        let family = judge(model, &strings, par)?;
        let own = sizes
            .iter()
            .position(|&i| i == 30)
            .expect("the write-up's is one of them");
        let mut search = Climb::new(model, par);
        let found = StringKind::ALL
            .map(|kind| search.of_kind(kind, &strings))
            .into_iter()
            .collect::<Result<_>>()?;
        let cures = sizes.iter().zip(&family);
        let cures = cures.map(|(&i, string)| Cure::new(model, roles, i, string, par));
        Ok(Adversarial {
            beside: judge(model, &["()", "(())", "))"].map(String::from), par)?,
            cures: cures.collect::<Result<_>>()?,
            published: family[own].clone(),
            family: sizes
                .into_iter()
                .zip(family.iter().map(|j| j.p_balanced))
                .collect(),
            found,
            judged: search.judged,
        })
    }
}

/// A search by small changes: the strings that come nearest to fooling the model are changed at random, and those
/// changes kept that come nearer.
struct Climb<'a> {
    model: &'a Model<f64>,
    par: Par,
    rng: ChaCha8Rng,
    judged: usize,
}

/// Strings that are kept from one round to the next.
const KEPT: usize = 24;
/// New ones in each round.
const NEW: usize = 120;
/// Rounds for each kind.
const ROUNDS: usize = 16;
/// Strings of each kind that are reported.
const REPORTED: usize = 8;

impl<'a> Climb<'a> {
    fn new(model: &'a Model<f64>, par: Par) -> Self {
        Climb {
            model,
            par,
            rng: ChaCha8Rng::seed_from_u64(0),
            judged: 0,
        }
    }

    /// Strings of one kind, the likeliest to be taken wrongly first.
    fn of_kind(&mut self, kind: StringKind, known: &[String]) -> Result<Vec<Judged>> {
        let task = Brackets::default();
        let generated = task.tokens(40 * NEW, self.rng.random());
        let random = (0..generated.batch()).map(|s| task.text(generated.sequence(s)));
        let mut new: Vec<String> = known.iter().cloned().chain(random).collect();
        new.retain(|brackets| is_of(kind, brackets));
        new.truncate(NEW);
        let mut all: BTreeMap<String, Judged> = BTreeMap::new();
        let mut best = Vec::new();
        for _ in 0..ROUNDS {
            new.retain(|brackets| !all.contains_key(brackets));
            new.sort();
            new.dedup();
            if !new.is_empty() {
                self.judged += new.len();
                for judged in judge(self.model, &new, self.par)? {
                    all.insert(judged.brackets.clone(), judged);
                }
            }
            best = all.values().cloned().collect();
            best.sort_by(|a, b| b.p_wrong().total_cmp(&a.p_wrong()));
            best.truncate(KEPT);
            if best.is_empty() {
                break;
            }
            new = (0..NEW)
                .map(|_| {
                    let parent = self.rng.random_range(0..best.len());
                    self.changed(&best[parent].brackets)
                })
                .collect();
            new.retain(|brackets| is_of(kind, brackets));
        }
        best.truncate(REPORTED);
        Ok(best)
    }

    /// One small change: a bracket turned, two exchanged, or one moved.
    fn changed(&mut self, brackets: &str) -> String {
        let mut chars: Vec<char> = brackets.chars().collect();
        let (i, j) = (
            self.rng.random_range(0..chars.len()),
            self.rng.random_range(0..chars.len()),
        );
        match self.rng.random_range(0..3) {
            0 => chars[i] = if chars[i] == '(' { ')' } else { '(' },
            1 => chars.swap(i, j),
            _ => {
                let moved = chars.remove(i);
                chars.insert(j, moved);
            }
        }
        chars.into_iter().collect()
    }
}

fn is_of(kind: StringKind, brackets: &str) -> bool {
    let sequence = Brackets::default().sequence(brackets);
    sequence.is_ok_and(|sequence| StringKind::of(&sequence) == kind)
}
