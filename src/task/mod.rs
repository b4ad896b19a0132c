//! Algorithmic tasks: what a sequence looks like, which answers are right, and where they are read.
//!
//! Six are built in ([`BuiltIn`]), those of six published write-ups. A task of your own is a [`Task`] like
//! these:
//!
//! ```
//! use pathsum::task::{Task, Vocabulary};
//! use pathsum::{Result, Tokens};
//!
//! /// Three bits; is their number of ones odd?
//! struct Parity(Vocabulary);
//!
//! impl Task for Parity {
//!     fn name(&self) -> String {
//!         "parity".into()
//!     }
//!     fn vocabulary(&self) -> &Vocabulary {
//!         &self.0
//!     }
//!     fn classes(&self) -> Vec<String> {
//!         vec!["even".into(), "odd".into()]
//!     }
//!     fn positions(&self) -> usize {
//!         3
//!     }
//!     fn read_at(&self) -> Vec<usize> {
//!         vec![2]
//!     }
//!     fn tokens(&self, size: usize, seed: u64) -> Tokens {
//!         Tokens::new(size, 3, (0..3 * size as u64).map(|i| ((seed ^ i) % 7 % 2) as i64).collect())
//!     }
//!     fn check(&self, sequence: &[i64]) -> Result<()> {
//!         self.0.check(sequence, 3)
//!     }
//!     fn solve(&self, sequence: &[i64]) -> Vec<usize> {
//!         vec![sequence.iter().sum::<i64>() as usize % 2]
//!     }
//! }
//!
//! let parity = Parity(Vocabulary::new(["0", "1"]));
//! let data = parity.generate(100, 0);
//! assert_eq!(data.answers.get(7, 0).class, Some(parity.solve(data.tokens.sequence(7))[0]));
//! assert_eq!(parity.describe(&parity.parse("1 0 1")?), "1 0 1 → even");
//! # Ok::<(), pathsum::Error>(())
//! ```

mod brackets;
mod built_in;
mod label_table;
mod labelled;
mod max_of_k;
mod modular_addition;
mod palindrome;
mod sorted_list;
mod space;
mod split;
mod two_integer;
mod two_numbers;
mod vocabulary;

pub use brackets::{Brackets, Failures};
pub use built_in::BuiltIn;
pub use label_table::LabelTable;
pub use labelled::Labelled;
pub use max_of_k::MaxOfK;
pub use modular_addition::{ModularAddition, Operation};
pub use palindrome::{Mirrored, Palindromes};
pub use sorted_list::SortedLists;
pub use space::{InputPart, InputSpace, Restriction, Values, choose};
pub use split::randperm;
pub use two_integer::TwoIntegers;
pub use vocabulary::Vocabulary;

use crate::error::{Error, Result};
use crate::metric::Answers;
use crate::model::{Config, Tokens};

/// An algorithmic task: sequences of one form and length, and the right answers.
pub trait Task: Send + Sync {
    /// Its name, in files and reports.
    fn name(&self) -> String;

    /// What each token is written as.
    fn vocabulary(&self) -> &Vocabulary;

    /// What each class, a column of the logits, is written as.
    fn classes(&self) -> Vec<String>;

    /// Positions of a sequence.
    fn positions(&self) -> usize;

    /// The form of a sequence in words, for errors: `START, 20 values, END`.
    fn form(&self) -> String {
        format!("{} tokens", self.positions())
    }

    /// The positions at which the answers are read.
    fn read_at(&self) -> Vec<usize>;

    /// The name of the classes in files; `None` where they are the next tokens, which need no name.
    fn label_key(&self) -> Option<&str> {
        Some("labels")
    }

    /// Seeded sequences by the task's own way of sampling.
    fn tokens(&self, size: usize, seed: u64) -> Tokens;

    /// Whether a sequence has the task's form.
    ///
    /// # Errors
    /// When it has not: what is wrong, where, and what was expected.
    fn check(&self, sequence: &[i64]) -> Result<()>;

    /// The right class at each of [`read_at`](Task::read_at)'s positions, for a sequence of the task's form.
    fn solve(&self, sequence: &[i64]) -> Vec<usize>;

    /// The first answer's right class where each of some tokens stands at one place of a sequence of the task's form, and
    /// all else stays. A task need not say it: it is what [`solve`](Task::solve) says, token by token; but where many
    /// inputs are walked through, one call for all of them is worth it.
    ///
    /// `sequence` may be changed at that place; the classes are added to `classes`.
    fn solve_along(
        &self,
        sequence: &mut [i64],
        place: usize,
        tokens: &[i64],
        classes: &mut Vec<usize>,
    ) {
        for &token in tokens {
            sequence[place] = token;
            classes.push(self.solve(sequence)[0]);
        }
    }

    /// Every input there is, where they can be enumerated.
    fn inputs(&self) -> Option<Tokens> {
        None
    }

    /// The space of all inputs, where claims about every one of them can be stated; what is listed by
    /// [`inputs`](Task::inputs) unless the task says otherwise.
    fn space(&self) -> Option<InputSpace> {
        self.inputs().map(InputSpace::listed)
    }

    /// By answer, the rank of the value that is the right class there, the smallest being 0, where that is what each
    /// answer is.
    fn ranks(&self) -> Option<Vec<usize>> {
        None
    }

    /// A sequence from what a person writes; tokens by their names, with blanks between, unless the task says
    /// otherwise.
    ///
    /// # Errors
    /// When a name is not in the vocabulary, or the sequence has not the task's form.
    fn parse(&self, text: &str) -> Result<Vec<i64>> {
        let sequence = self.vocabulary().words(text)?;
        self.check(&sequence)?;
        Ok(sequence)
    }

    /// A sequence as a person reads it.
    fn text(&self, sequence: &[i64]) -> String {
        self.vocabulary().text(sequence)
    }

    /// A sequence and its right answers as a person reads them.
    ///
    /// # Panics
    /// When the sequence has not the task's form.
    #[track_caller]
    fn describe(&self, sequence: &[i64]) -> String {
        if let Err(e) = self.check(sequence) {
            panic!("{e}");
        }
        let classes = self.classes();
        let right: Vec<&str> = (self.solve(sequence).into_iter())
            .map(|class| classes[class].as_str())
            .collect();
        format!("{} → {}", self.text(sequence), right.join(" "))
    }

    /// Seeded sequences with their answers.
    fn generate(&self, size: usize, seed: u64) -> Labelled {
        let tokens = self.tokens(size, seed);
        self.label(tokens)
            .expect("what a task generates has its form")
    }

    /// Sequences with their answers.
    ///
    /// # Errors
    /// When one of them has not the task's form: which, why, and what the form is. It may be a sequence of another task.
    fn label(&self, tokens: Tokens) -> Result<Labelled> {
        let mut classes = Vec::new();
        for i in 0..tokens.batch() {
            let sequence = tokens.sequence(i);
            self.check(sequence).map_err(|e| {
                let (task, form) = (self.name(), self.form());
                Error::Sequence {
                    sequence: Some(i),
                    message: format!("sequence {i}: {e} (the task {task}: {form})"),
                }
            })?;
            classes.extend(self.solve(sequence));
        }
        let answers = Answers::new(&self.read_at(), classes);
        Ok(Labelled { tokens, answers })
    }

    /// Whether a model of this configuration can be asked.
    ///
    /// # Errors
    /// When it has another vocabulary, other classes, or too short a context.
    fn check_model(&self, config: &Config) -> Result<()> {
        let name = self.name();
        for (field, found, expected) in [
            ("d_vocab", config.d_vocab, self.vocabulary().len()),
            ("d_vocab_out", config.d_vocab_out, self.classes().len()),
        ] {
            if found != expected {
                return Err(Error::Config {
                    field,
                    reason: format!("{found}, expected {expected} for the task {name}"),
                });
            }
        }
        if config.n_ctx < self.positions() {
            return Err(Error::Config {
                field: "n_ctx",
                reason: format!(
                    "{}, expected at least {} for the task {name}",
                    config.n_ctx,
                    self.positions()
                ),
            });
        }
        Ok(())
    }
}
