//! Text as tokens: the tokenizer that is in a language model's folder.

use crate::error::{Error, Result};
use crate::model::Tokens;
use serde_json::Value;
use std::path::Path;
use tokenizers::AddedToken;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::BPE;

/// What tokens a text begins and ends with beside its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Special {
    /// Those that the folder's files say.
    #[default]
    AsFiles,
    /// The beginning-of-text token alone.
    Beginning,
    /// None.
    None,
}

/// A tokenizer, and what the files beside it say.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The beginning-of-text token.
    beginning: Option<i64>,
    /// Tokens that end a text.
    ends: Vec<i64>,
    /// Whether texts begin with the beginning-of-text token, where a file says so beside the tokenizer's own.
    begins: Option<bool>,
    /// How a word after another one is shown: what is decoded of this token stands before it.
    anchor: Option<u32>,
}

const OWN: &str = "tokenizer.json";
const VOCABULARY: [&str; 2] = ["vocab.json", "merges.txt"];

impl Tokenizer {
    /// Opens a folder's `tokenizer.json`, or GPT-2's `vocab.json` and `merges.txt` where there is none; with what its
    /// `tokenizer_config.json`, `special_tokens_map.json`, `generation_config.json` and `config.json` say of special
    /// tokens.
    ///
    /// # Errors
    /// When there are no such files, or one is unsound.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let inner = open_inner(folder)?;
        let fields = |name: &str| -> Result<Value> {
            let path = folder.join(name);
            match std::fs::read_to_string(&path) {
                Err(_) => Ok(Value::Null),
                Ok(text) => serde_json::from_str(&text)
                    .map_err(|e| Error::format(&path, format!("not JSON: {e}"))),
            }
        };
        let own = fields("tokenizer_config.json")?;
        let map = fields("special_tokens_map.json")?;
        let generation = fields("generation_config.json")?;
        let config = fields("config.json")?;

        let id = |word: &str| inner.token_to_id(word).map(i64::from);
        let word = |value: &Value| {
            let word = value.as_str().or_else(|| value.get("content")?.as_str());
            word.and_then(id)
        };
        let named = |name: &str| word(&own[name]).or_else(|| word(&map[name]));
        let numbers = |name: &str| -> Vec<i64> {
            let of = |value: &Value| match value {
                Value::Array(all) => all.iter().filter_map(Value::as_i64).collect(),
                other => other.as_i64().into_iter().collect(),
            };
            let first: Vec<i64> = of(&generation[name]);
            if first.is_empty() {
                of(&config[name])
            } else {
                first
            }
        };
        let numbered = |name: &str| numbers(name).first().copied();
        let beginning = named("bos_token")
            .or_else(|| numbered("bos_token_id"))
            .or_else(|| named("cls_token"));
        let mut ends = numbers("eos_token_id");
        ends.extend(named("eos_token").filter(|end| !ends.contains(end)));
        let anchor = inner.encode("a", false).ok();
        Ok(Tokenizer {
            anchor: anchor.and_then(|a| a.get_ids().last().copied()),
            begins: own["add_bos_token"].as_bool(),
            beginning,
            ends,
            inner,
        })
    }

    /// Whether a folder has the files of one.
    pub fn is_in(folder: impl AsRef<Path>) -> bool {
        let there = |name: &str| folder.as_ref().join(name).exists();
        there(OWN) || VOCABULARY.iter().all(|name| there(name))
    }

    /// The beginning-of-text token, where there is one.
    pub fn beginning(&self) -> Option<i64> {
        self.beginning
    }

    /// Whether a token ends a text.
    pub fn ends(&self, token: i64) -> bool {
        self.ends.contains(&token)
    }

    /// A text's tokens.
    ///
    /// # Errors
    /// When the text has no tokens here, and when [`Special::Beginning`] is asked for and there is no such token.
    pub fn encode(&self, text: &str, special: Special) -> Result<Vec<i64>> {
        let own = special == Special::AsFiles;
        let encoded = self.inner.encode(text, own);
        let encoded = encoded.map_err(|e| Error::Mismatch(format!("the tokenizer fails: {e}")))?;
        let mut ids: Vec<i64> = encoded.get_ids().iter().map(|&id| i64::from(id)).collect();
        let begins = match special {
            Special::AsFiles => self.begins,
            Special::Beginning => Some(true),
            Special::None => None,
        };
        let there = ids.first().is_some_and(|id| Some(*id) == self.beginning);
        match (begins, self.beginning) {
            (Some(true), Some(beginning)) if !there => ids.insert(0, beginning),
            (Some(true), None) => {
                let reason = "this tokenizer has no beginning-of-text token";
                return Err(Error::Mismatch(reason.into()));
            }
            (Some(false), _) if there => drop(ids.remove(0)),
            _ => {}
        }
        Ok(ids)
    }

    /// The first token of a text that goes on from another one. A blank before it is part of it where the tokenizer writes
    /// blanks before words; those that put one there of their own accord do not put a second.
    ///
    /// # Errors
    /// When the text has no tokens.
    pub fn first_token(&self, text: &str) -> Result<i64> {
        let encode = |text: &str| self.encode(text, Special::None);
        // Behind a word, where a blank is a word's beginning and no text's.
        let (word, both) = (encode("a")?, encode(&format!("a{text}"))?);
        let after = both.strip_prefix(word.as_slice()).map(<[i64]>::to_vec);
        let alone = encode(text)?;
        // A blank that a text alone begins with is none of its own, as before a comma.
        let blank = alone
            .first()
            .is_some_and(|&t| self.word(t).trim().is_empty());
        let own = match text.starts_with(char::is_whitespace) || blank && !text.is_empty() {
            true => after.unwrap_or(alone),
            false => alone,
        };
        let first = own.first().copied();
        first.ok_or_else(|| Error::Mismatch("the text has no tokens, expected one".into()))
    }

    /// Several texts' tokens. Those of the shorter ones are followed by pads, which are not attended to.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`], and when a text has no tokens.
    pub fn batch(&self, texts: &[impl AsRef<str>], special: Special) -> Result<Tokens> {
        let rows: Vec<Vec<i64>> = (texts.iter())
            .map(|text| self.encode(text.as_ref(), special))
            .collect::<Result<_>>()?;
        if let Some(i) = rows.iter().position(Vec::is_empty) {
            return Err(Error::Mismatch(format!(
                "text {i} has no tokens, expected at least one"
            )));
        }
        let pos = rows.iter().map(Vec::len).max().unwrap_or(0);
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for row in &rows {
            let pads = pos - row.len();
            ids.extend(row.iter().copied().chain(std::iter::repeat_n(0, pads)));
            mask.extend((0..pos).map(|p| p < row.len()));
        }
        Tokens::new(rows.len(), pos, ids).attended(mask)
    }

    /// The text of some tokens, without special ones.
    pub fn decode(&self, tokens: &[i64]) -> String {
        self.text(tokens, true)
    }

    fn text(&self, tokens: &[i64], plain: bool) -> String {
        let ids: Vec<u32> = tokens.iter().filter_map(|&t| t.try_into().ok()).collect();
        self.inner.decode(&ids, plain).unwrap_or_default()
    }

    /// A token as it reads in the middle of a text, with the blank before it if it has one. A part of a character is
    /// shown as `�`.
    pub fn word(&self, token: i64) -> String {
        let Some(anchor) = self.anchor.map(i64::from) else {
            return self.text(&[token], false);
        };
        let before = self.text(&[anchor], false);
        let both = self.text(&[anchor, token], false);
        match both.strip_prefix(&before) {
            Some(own) => own.to_string(),
            None => self.text(&[token], false),
        }
    }
}

fn open_inner(folder: &Path) -> Result<tokenizers::Tokenizer> {
    let path = folder.join(OWN);
    if path.exists() {
        let opened = tokenizers::Tokenizer::from_file(&path);
        return opened.map_err(|e| Error::format(&path, format!("is no sound tokenizer: {e}")));
    }
    let [vocab, merges] = VOCABULARY.map(|name| folder.join(name));
    if !(vocab.exists() && merges.exists()) {
        let reason = format!(
            "has no tokenizer, expected {OWN}, or {} and {}",
            VOCABULARY[0], VOCABULARY[1]
        );
        return Err(Error::format(folder, reason));
    }
    let names = [&vocab, &merges].map(|path| path.display().to_string());
    let bpe = BPE::from_file(&names[0], &names[1]).build();
    let bpe = bpe.map_err(|e| Error::format(&vocab, format!("is no sound vocabulary: {e}")))?;
    let mut inner = tokenizers::Tokenizer::new(bpe);
    let bytes = ByteLevel::default().add_prefix_space(false);
    inner.with_pre_tokenizer(Some(bytes));
    inner.with_decoder(Some(bytes));
    const END: &str = "<|endoftext|>";
    if inner.token_to_id(END).is_some() {
        let added = inner.add_special_tokens([AddedToken::from(END, true)]);
        added.map_err(|e| Error::format(&vocab, format!("is no sound vocabulary: {e}")))?;
    }
    Ok(inner)
}
