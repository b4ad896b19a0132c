//! A direction in the logits, as it is asked for: `3`, `3-5`, or in a language model's words ` Mary- John`.

use super::words::Words;
use anyhow::{Context, Result, bail};
use pathsum::Scalar;
use pathsum::decompose::Logit;
use pathsum::model::Config;

/// One logit, or one less another.
#[derive(Clone, Copy)]
pub struct Direction {
    /// The logit.
    pub of: usize,
    /// The one that is taken from it.
    pub less: Option<usize>,
}

impl Direction {
    /// Reads one, by numbers; or by what texts begin with, where a model's folder has a tokenizer.
    pub fn parse(option: &str, text: &str, words: &Words, c: &Config) -> Result<Self> {
        match Self::by_number(text) {
            Some(direction) => Ok(direction),
            None if words.known() => {
                let token = |text: &str| {
                    let token = words.token(text, c);
                    token.with_context(|| format!("{option} {text:?}"))
                };
                let (of, less) = match text.split_once('-') {
                    Some((of, less)) => (of, Some(less)),
                    None => (text, None),
                };
                Ok(Direction {
                    of: token(of)?,
                    less: less.map(token).transpose()?,
                })
            }
            None => bail!(
                "{option} {text:?}: expected a logit, as in 3, or one less another, as in 3-5; or words, where the model's folder has a tokenizer"
            ),
        }
    }

    fn by_number(text: &str) -> Option<Self> {
        let number = |s: &str| s.trim().parse().ok();
        Some(match text.split_once('-') {
            Some((of, less)) => Direction {
                of: number(of)?,
                less: Some(number(less)?),
            },
            None => Direction {
                of: number(text)?,
                less: None,
            },
        })
    }

    /// The direction itself.
    pub fn logit<T: Scalar>(self) -> Logit<'static, T> {
        match self.less {
            Some(less) => Logit::Difference(self.of, less),
            None => Logit::Of(self.of),
        }
    }

    /// What logits are along it.
    pub fn along<T: Scalar>(self, logits: &[T]) -> T {
        logits[self.of] - self.less.map_or(T::ZERO, |j| logits[j])
    }

    /// As it is printed: `logit 5099 " Mary" - 3821 " John"`.
    pub fn shown(self, words: &Words) -> String {
        let of = words.numbered(self.of);
        match self.less {
            Some(less) => format!("logit {of} - {}", words.numbered(less)),
            None => format!("logit {of}"),
        }
    }
}
