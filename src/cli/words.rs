//! How tokens are printed: as words where the model has a tokenizer, by their numbers where it has none.

use super::args::ModelArg;
use anyhow::{Context, Result, anyhow, bail};
use pathsum::Tokens;
use pathsum::model::Config;
use pathsum::text::Tokenizer;

/// A model's tokens as words.
pub struct Words(Option<Tokenizer>);

impl Words {
    /// Those of a model.
    pub fn of(model: &ModelArg) -> Result<Self> {
        Ok(Words(model.tokenizer_if_any()?))
    }

    /// A token's text, where there is one.
    pub fn exact(&self, token: usize) -> Option<String> {
        Some(self.0.as_ref()?.word(token as i64))
    }

    /// A token in quotes, so that blanks are seen; by its number where it has no text.
    pub fn shown(&self, token: usize) -> String {
        match self.exact(token) {
            Some(word) => format!("{word:?}"),
            None => token.to_string(),
        }
    }

    /// Their texts, where they have any.
    pub fn all(&self, tokens: &[i64]) -> Vec<Option<String>> {
        tokens.iter().map(|&t| self.exact(t as usize)).collect()
    }

    /// The token of a model's logits that `--answer` asks for, if it was given: the first one of a text, or a token's number
    /// where there is no tokenizer.
    pub fn answer(&self, text: Option<&str>, c: &Config) -> Result<Option<usize>> {
        text.map(|text| {
            self.token(text, c)
                .with_context(|| format!("--answer {text:?}"))
        })
        .transpose()
    }

    /// The words at each position, where all sequences have the same one there. Nothing without a tokenizer.
    pub fn positions(&self, tokens: &Tokens) -> Option<Vec<Option<String>>> {
        self.0.as_ref()?;
        let word = |p: usize| {
            let seen = (0..tokens.batch()).filter(|&s| tokens.is_attended(s, p));
            let mut all = seen.map(|s| tokens.sequence(s)[p]);
            let first = all.next()?;
            self.exact(first as usize)
                .filter(|_| all.all(|t| t == first))
        };
        Some((0..tokens.pos()).map(word).collect())
    }

    /// The words at each position of clean sequences and corrupted ones: `John/Mary` where the two have others.
    pub fn both(&self, clean: &Tokens, corrupt: &Tokens) -> Option<Vec<Option<String>>> {
        let (clean, corrupt) = (self.positions(clean)?, self.positions(corrupt)?);
        let both = clean.into_iter().zip(corrupt).map(|pair| match pair {
            (Some(a), Some(b)) if a == b => Some(a),
            (Some(a), Some(b)) => Some(format!("{a}/{b}")),
            _ => None,
        });
        Some(both.collect())
    }

    /// Whether there are texts.
    pub fn known(&self) -> bool {
        self.0.is_some()
    }

    /// The token of a model's logits that a text begins with, or whose number it is where there is no tokenizer.
    pub fn token(&self, text: &str, c: &Config) -> Result<usize> {
        let token = match &self.0 {
            Some(tokenizer) => tokenizer.first_token(text)?,
            None => text.trim().parse().map_err(|_| {
                anyhow!("expected a token's number, as the model's folder has no tokenizer")
            })?,
        };
        match usize::try_from(token).ok().filter(|&t| t < c.d_vocab_out) {
            Some(token) => Ok(token),
            None => bail!(
                "token {token} is out of range: this model's logits are 0..={}",
                c.d_vocab_out.saturating_sub(1)
            ),
        }
    }

    /// A token by its number, with its text where it has one: `5099 " Mary"`.
    pub fn numbered(&self, token: usize) -> String {
        placed(token, self.exact(token).as_deref())
    }

    /// A position of the first sequence by its number, with the word there if one is known.
    pub fn place(&self, tokens: &Tokens, position: usize) -> String {
        let word = self.exact(tokens.sequence(0)[position] as usize);
        placed(position, word.as_deref())
    }

    /// Tokens in a row, with a bar between one and the next.
    pub fn sequence(&self, tokens: &[i64]) -> String {
        let shown = |&token: &i64| match self.exact(token as usize) {
            Some(word) => word.escape_debug().to_string(),
            None => token.to_string(),
        };
        let all: Vec<String> = tokens.iter().map(shown).collect();
        match self.0 {
            Some(_) => all.join("|"),
            None => all.join(" "),
        }
    }
}

/// A place or a token by its number, with the word there if one is known: `5 " is"`.
pub fn placed(number: usize, word: Option<&str>) -> String {
    match word {
        Some(word) => format!("{number} {word:?}"),
        None => number.to_string(),
    }
}
