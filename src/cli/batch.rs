//! Sequences for a model, from a file or typed, and what is right for them.

use super::args::{Common, ModelArg};
use anyhow::{Context, Result, anyhow, bail};
use pathsum::metric::Answers;
use pathsum::model::Config;
use pathsum::task::{BuiltIn, Task};
use pathsum::text::{Special, Tokenizer};
use pathsum::{TensorFile, Tokens};
use std::path::{Path, PathBuf};

/// Where sequences come from.
#[derive(clap::Args)]
pub struct SequenceArgs {
    /// A safetensors file with `tokens`, [batch, pos]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "text"])]
    tokens: Option<PathBuf>,
    /// A sequence in the words of the model's task ("3 1 4 …", "(())"), or by its tokens' numbers where the model is of
    /// no task; with --tokens the number, from 0, of one of the file's. May be given several times
    #[arg(long, value_name = "SEQUENCE", conflicts_with_all = ["prompt", "text"])]
    sequence: Vec<String>,
    #[command(flatten)]
    texts: TextArgs,
}

/// Texts, for a model whose folder has a tokenizer.
#[derive(clap::Args)]
pub struct TextArgs {
    /// A text, for a model whose folder has a tokenizer. May be given several times
    #[arg(long, value_name = "TEXT")]
    prompt: Vec<String>,
    /// A file whose text is a sequence
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    text: Option<PathBuf>,
    #[command(flatten)]
    special: SpecialArgs,
}

/// The special tokens that texts get.
#[derive(clap::Args)]
pub struct SpecialArgs {
    /// Begin texts with the beginning-of-text token alone, whatever the tokenizer's files say
    #[arg(long, conflicts_with = "no_bos")]
    bos: bool,
    /// Leave texts without special tokens, whatever the tokenizer's files say
    #[arg(long)]
    no_bos: bool,
}

impl SpecialArgs {
    /// Which they are.
    pub fn special(&self) -> Special {
        match (self.bos, self.no_bos) {
            (true, _) => Special::Beginning,
            (_, true) => Special::None,
            _ => Special::AsFiles,
        }
    }
}

impl TextArgs {
    /// Whether there is any.
    pub fn given(&self) -> bool {
        !self.prompt.is_empty() || self.text.is_some()
    }

    /// The special tokens that texts get.
    pub fn special(&self) -> Special {
        self.special.special()
    }

    /// The option that gave them.
    pub fn option(&self) -> &'static str {
        match self.text {
            Some(_) => "--text",
            None => "--prompt",
        }
    }

    /// The texts.
    pub fn read(&self) -> Result<Vec<String>> {
        match &self.text {
            Some(path) => {
                let text = std::fs::read_to_string(path);
                Ok(vec![text.with_context(|| path.display().to_string())?])
            }
            None => Ok(self.prompt.clone()),
        }
    }

    /// Their tokens.
    fn batch(&self, common: &Common, model: &ModelArg, config: &Config) -> Result<Batch> {
        let tokenizer = model.tokenizer()?;
        let texts = self.read()?;
        Batch::of_texts(
            (self.option(), &texts),
            (&tokenizer, self.special()),
            common,
            config,
        )
    }
}

impl SequenceArgs {
    /// Whether there are any.
    pub fn given(&self) -> bool {
        self.tokens.is_some() || !self.sequence.is_empty() || self.texts.given()
    }

    /// Reads those that were asked for, for a model and its configuration.
    pub fn read(&self, common: &Common, model: &ModelArg, config: &Config) -> Result<Batch> {
        match &self.tokens {
            _ if self.texts.given() => self.texts.batch(common, model, config),
            Some(path) => Batch::read(path, common, config)?.choose(&self.sequence),
            None if self.sequence.is_empty() => bail!(
                "no sequences were given, expected --prompt TEXT, --tokens FILE or --sequence SEQUENCE"
            ),
            None => {
                let task = task_of(config);
                Batch::typed(&self.sequence, task.as_deref(), common, config)
            }
        }
    }

    /// Reads those that were asked for, in the words of a task.
    pub fn read_of(
        &self,
        task: &dyn Task,
        common: &Common,
        model: &ModelArg,
        config: &Config,
    ) -> Result<Batch> {
        match self.tokens {
            None if !self.sequence.is_empty() => {
                Batch::typed(&self.sequence, Some(task), common, config)
            }
            _ => self.read(common, model, config),
        }
    }

    /// The text that was given, where it was one typed prompt.
    pub fn one_text(&self) -> Option<&str> {
        match self.texts.prompt.as_slice() {
            [text] => Some(text),
            _ => None,
        }
    }

    /// Reads the one that was asked for, the first unless --sequence says otherwise, and its number.
    pub fn read_one(
        &self,
        common: &Common,
        model: &ModelArg,
        config: &Config,
    ) -> Result<(Tokens, usize)> {
        if self.sequence.len() > 1 {
            bail!(
                "--sequence {}: one sequence is looked at here",
                self.sequence[1]
            );
        }
        if self.texts.prompt.len() > 1 {
            bail!(
                "--prompt {:?}: one sequence is looked at here, expected one prompt",
                self.texts.prompt[1]
            );
        }
        let batch = self.read(common, model, config)?;
        Ok((batch.tokens.slice(0, 1), batch.chosen[0]))
    }
}

/// The built-in task that a model of this configuration can be asked, if there is one.
pub fn task_of(config: &Config) -> Option<Box<dyn Task>> {
    BuiltIn::fitting(config).map(|task| task.sized(config))
}

/// Sequences, as many as were asked for, and where they are from.
pub struct Batch {
    name: String,
    source: LabelSource,
    /// Which of all these are.
    chosen: Vec<usize>,
    /// The sequences that were asked for.
    pub tokens: Tokens,
}

/// Where labels are looked up.
enum LabelSource {
    File(TensorFile, Tokens),
    Typed(Option<Answers>, Option<String>),
}

impl Batch {
    /// Reads a file's tokens for a model of this configuration.
    pub fn read(path: &Path, common: &Common, config: &Config) -> Result<Self> {
        let file = TensorFile::open(path)?;
        let name = path.display().to_string();
        let read = || {
            let all = Tokens::from_file(&file)?;
            let tokens = common.limited(all.clone());
            if tokens.batch() == 0 {
                bail!("`tokens` holds no sequences, expected at least 1");
            }
            // Running the model would check this too, and not say which file is wrong.
            tokens.check(config)?;
            Ok((all, tokens))
        };
        let (all, tokens) = read().with_context(|| name.clone())?;
        Ok(Batch {
            name,
            source: LabelSource::File(file, all),
            chosen: (0..tokens.batch()).collect(),
            tokens,
        })
    }

    /// The tokens of texts, which an option gave.
    pub fn of_texts(
        (option, texts): (&str, &[String]),
        (tokenizer, special): (&Tokenizer, Special),
        common: &Common,
        config: &Config,
    ) -> Result<Self> {
        let tokens = tokenizer.batch(texts, special);
        let tokens = common.limited(tokens.with_context(|| option.to_string())?);
        let checked = tokens.check(config);
        checked.with_context(|| option.to_string())?;
        Ok(Batch {
            name: texts[..tokens.batch()].join("; "),
            source: LabelSource::Typed(None, None),
            chosen: (0..tokens.batch()).collect(),
            tokens,
        })
    }

    /// Reads typed sequences: in a task's words, or by numbers.
    fn typed(
        texts: &[String],
        task: Option<&dyn Task>,
        common: &Common,
        config: &Config,
    ) -> Result<Self> {
        let parse = |text: &String| {
            let parsed = match task {
                Some(task) => task.parse(text).map_err(anyhow::Error::from),
                None => numbers(text),
            };
            parsed.with_context(|| format!("--sequence \"{text}\""))
        };
        let rows: Vec<Vec<i64>> = texts.iter().map(parse).collect::<Result<_>>()?;
        let long = rows.iter().position(|row| row.len() != rows[0].len());
        if let Some(i) = long {
            bail!(
                "--sequence \"{}\": {} tokens, expected {}, as in the first one",
                texts[i],
                rows[i].len(),
                rows[0].len()
            );
        }
        let tokens = common.limited(Tokens::from_rows(&rows));
        tokens.check(config).context("--sequence")?;
        let answers = match task {
            Some(task) => Some(task.label(tokens.clone())?.answers),
            None => None,
        };
        let key = task.and_then(|t| t.label_key().map(String::from));
        Ok(Batch {
            name: texts[..tokens.batch()].join("; "),
            source: LabelSource::Typed(answers, key),
            chosen: (0..tokens.batch()).collect(),
            tokens,
        })
    }

    /// Some of these, by their numbers; all of them where there are no numbers.
    fn choose(self, numbers: &[String]) -> Result<Self> {
        if numbers.is_empty() {
            return Ok(self);
        }
        let number = |text: &String| {
            let there = self.tokens.batch();
            let n: usize = text.parse().map_err(|_| {
                anyhow!("--sequence {text}: with --tokens expected a number, from 0")
            })?;
            match n < there {
                true => Ok(n),
                false => bail!("sequence {n}: the file's sequences are 0..={}", there - 1),
            }
        };
        let chosen: Vec<usize> = numbers.iter().map(number).collect::<Result<_>>()?;
        Ok(Batch {
            name: format!("{}, {}", self.name, numbers.join(", ")),
            tokens: self.tokens.chosen(chosen.iter().copied()),
            chosen,
            ..self
        })
    }

    /// The file, as it was named; or the sequences, as they were typed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sequences and positions of all there are.
    pub fn shape(&self) -> [usize; 2] {
        match &self.source {
            LabelSource::File(_, all) => [all.batch(), all.pos()],
            LabelSource::Typed(..) => [self.tokens.batch(), self.tokens.pos()],
        }
    }

    /// The labels of the sequences that were asked for: those in the file, or the task's own.
    pub fn labels(&self, key: &str, positions: &[usize]) -> Result<Answers> {
        match &self.source {
            LabelSource::File(file, all) => {
                let answers = Answers::from_file(file, key, all, positions);
                let answers = answers.with_context(|| self.name.clone())?;
                Ok(answers.select(&self.chosen))
            }
            LabelSource::Typed(Some(answers), Some(own))
                if own == key && answers.positions() == positions =>
            {
                Ok(answers.clone())
            }
            LabelSource::Typed(Some(answers), Some(own)) => bail!(
                "--labels {key}: of typed sequences expected {own}, read at {:?}",
                answers.positions()
            ),
            LabelSource::Typed(..) => {
                bail!("--labels {key}: typed sequences have none here, expected next or --tokens")
            }
        }
    }
}

/// Tokens by their numbers, with blanks or commas between.
fn numbers(text: &str) -> Result<Vec<i64>> {
    let words = text.split(|c: char| c.is_whitespace() || c == ',');
    let tokens = words.filter(|w| !w.is_empty()).map(|w| {
        let token = w.parse();
        token.map_err(|_| {
            anyhow!("`{w}` is no token's number; the model is of no task that comes with pathsum")
        })
    });
    let tokens: Vec<i64> = tokens.collect::<Result<_>>()?;
    if tokens.is_empty() {
        bail!("expected tokens");
    }
    Ok(tokens)
}
