//! How tokens are printed: as words where the model has a tokenizer, by their numbers where it has none.

use super::args::ModelArg;
use anyhow::Result;
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
