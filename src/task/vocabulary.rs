//! What tokens are written as.

use crate::error::{Error, Result};

/// The names of a task's tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary(Vec<String>);

impl Vocabulary {
    /// From the tokens' names, in the order of their ids.
    ///
    /// # Panics
    /// When a name is empty, has a blank in it, or stands there twice.
    #[track_caller]
    pub fn new(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        for (i, name) in names.iter().enumerate() {
            assert!(
                !name.is_empty() && !name.contains(char::is_whitespace),
                "`{name}` is no name"
            );
            assert!(!names[..i].contains(name), "`{name}` is there twice");
        }
        Vocabulary(names)
    }

    /// The numbers below `n` and then names: `0`, `1`, …, `SEP`.
    ///
    /// # Panics
    /// As [`Vocabulary::new`].
    #[track_caller]
    pub fn numbers(n: usize, then: &[&str]) -> Self {
        let numbers = (0..n).map(|i| i.to_string());
        Vocabulary::new(numbers.chain(then.iter().map(|s| s.to_string())))
    }

    /// Tokens.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All names, in the order of the tokens' ids.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// A token's name.
    ///
    /// # Panics
    /// When there is no such token.
    #[track_caller]
    pub fn name(&self, token: i64) -> &str {
        &self.0[token as usize]
    }

    /// The token of a name.
    ///
    /// # Errors
    /// When there is none, with the nearest name there is.
    pub fn token(&self, name: &str) -> Result<i64> {
        let found = self.0.iter().position(|n| n == name);
        let known = || self.0.iter().map(String::as_str);
        found
            .map(|i| i as i64)
            .ok_or_else(|| Error::unknown("token", name, known()))
    }

    /// The tokens of names with blanks or commas between.
    ///
    /// # Errors
    /// When one of them names no token.
    pub fn words(&self, text: &str) -> Result<Vec<i64>> {
        let words = text.split(|c: char| c.is_whitespace() || c == ',');
        (words.filter(|w| !w.is_empty()))
            .map(|w| self.token(w))
            .collect()
    }

    /// The names of tokens, with blanks between.
    ///
    /// # Panics
    /// When one of them is no token.
    #[track_caller]
    pub fn text(&self, tokens: &[i64]) -> String {
        let names: Vec<&str> = tokens.iter().map(|&t| self.name(t)).collect();
        names.join(" ")
    }

    /// Whether these are `positions` tokens of this vocabulary.
    ///
    /// # Errors
    /// When they are not.
    pub fn check(&self, sequence: &[i64], positions: usize) -> Result<()> {
        if sequence.len() != positions {
            return Err(Error::Sequence {
                sequence: None,
                message: format!("{} tokens, expected {positions}", sequence.len()),
            });
        }
        let outside = |&t: &i64| t < 0 || t >= self.len() as i64;
        match sequence.iter().position(outside) {
            None => Ok(()),
            Some(i) => Err(Error::Sequence {
                sequence: None,
                message: format!(
                    "token {} at position {i}: the task's tokens are 0..={}",
                    sequence[i],
                    self.len() - 1
                ),
            }),
        }
    }

    /// Whether one name stands at a position.
    pub(super) fn expect(&self, sequence: &[i64], position: usize, expected: &str) -> Result<()> {
        let found = self.name(sequence[position]);
        if found == expected {
            return Ok(());
        }
        Err(Error::Sequence {
            sequence: None,
            message: format!("position {position} is {found}, expected {expected}"),
        })
    }
}
