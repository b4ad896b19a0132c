//! The arguments that several subcommands share, and what they become.

use super::batch::SequenceArgs;
use super::words::{Words, placed};
use anyhow::{Result, anyhow, bail};
use clap::ArgAction;
use clap::builder::{BoolValueParser, TypedValueParser};
use pathsum::eval::{Circuit, Source, hooks};
use pathsum::expr::{Dims, Family, Space};
use pathsum::fixture::Fixture;
use pathsum::format::{Held, open_weights};
use pathsum::model::{Config, Model, Tokens};
use pathsum::plan::Form;
use pathsum::tensor::Dtype;
use pathsum::text::Tokenizer;
use pathsum::{Precision, Run, Scalar};
use std::path::{Path, PathBuf};

/// What every subcommand understands.
#[derive(clap::Args)]
pub struct Common {
    /// Precision to compute in: f64 or f32 (f64 unless given; convert keeps the file's)
    #[arg(long, global = true, value_name = "DTYPE")]
    pub dtype: Option<Precision>,
    /// Use the first N sequences only
    #[arg(long, global = true, value_name = "N", value_parser = at_least_one)]
    limit: Option<usize>,
    /// Threads to use (all cores unless given)
    #[arg(long, global = true, value_name = "N", value_parser = threads)]
    threads: Option<usize>,
    /// Print JSON
    #[arg(long, global = true, action = ArgAction::SetTrue, value_parser = Json::flag())]
    pub json: Json,
    /// Print errors only
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// Where a result goes as JSON, if anywhere.
///
/// One type for the flag that every subcommand has and for an option of the same name that takes a file: clap hands
/// the value of either to both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// Nowhere: text is printed.
    No,
    /// To the standard output.
    Print,
    /// Into a file.
    To(PathBuf),
}

impl Json {
    fn flag() -> impl TypedValueParser<Value = Json> {
        BoolValueParser::new().map(|given| if given { Json::Print } else { Json::No })
    }

    /// Reads the name of a file; `-` is the standard output.
    pub fn file(name: &str) -> Result<Json, std::convert::Infallible> {
        Ok(match name {
            "-" => Json::Print,
            name => Json::To(name.into()),
        })
    }
}

impl Common {
    /// Whether the result is to be printed as JSON.
    pub fn json(&self) -> bool {
        self.json == Json::Print
    }

    /// The precision to compute in.
    pub fn dtype(&self) -> Precision {
        self.dtype.unwrap_or(Precision::F64)
    }

    /// How many sequences were asked for, if not all.
    pub fn limited_to(&self) -> Option<usize> {
        self.limit
    }

    /// The sequences to use: those asked for, of those there are.
    pub fn limited(&self, tokens: Tokens) -> Tokens {
        match self.limit {
            Some(n) => tokens.truncate(n),
            None => tokens,
        }
    }

    /// Runs `f` with as many threads as were asked for.
    pub fn in_pool<R: Send>(&self, f: impl FnOnce() -> Result<R> + Send) -> Result<R> {
        // Rayon's word for as many threads as there are cores, or RAYON_NUM_THREADS.
        const ALL: usize = 0;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads.unwrap_or(ALL));
        pool.build()
            .map_err(|e| anyhow!("cannot start the threads: {e}"))?
            .install(f)
    }
}

fn at_least_one(s: &str) -> Result<usize, String> {
    let n = s.parse().ok().filter(|&n| n >= 1);
    n.ok_or_else(|| "expected a whole number of at least 1".into())
}

fn threads(s: &str) -> Result<usize, String> {
    // Far more than any machine has cores; starting some ten thousand takes minutes.
    const MOST: usize = 1024;
    let n = at_least_one(s).ok().filter(|&n| n <= MOST);
    n.ok_or_else(|| format!("expected a whole number from 1 to {MOST}"))
}

/// A model, and the configuration of one whose file holds none.
#[derive(clap::Args)]
pub struct ModelArg {
    /// A folder, a .pt state dict, or fixture:NAME
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// The config.json of a .pt (the one beside it unless given)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Hold a folder's weights as computed with (dtype), or in the 16 bits that the file has them in (file), widened as
    /// they are multiplied
    #[arg(
        long,
        value_name = "dtype|file",
        default_value = "dtype",
        hide_default_value = true
    )]
    weights: WeightsArg,
}

/// In which precision weights are held.
#[derive(Clone, Copy, clap::ValueEnum)]
enum WeightsArg {
    Dtype,
    File,
}

impl ModelArg {
    /// A model named otherwise than by an argument of its own.
    pub fn of(model: String, config: Option<PathBuf>) -> Self {
        let weights = WeightsArg::Dtype;
        ModelArg {
            model,
            config,
            weights,
        }
    }

    /// Loads the model.
    pub fn load<T: Scalar>(&self) -> Result<Model<T>> {
        if let Some(name) = self.model.strip_prefix("fixture:") {
            self.without_config("an embedded model")?;
            self.without_weights("an embedded model")?;
            return Ok(name.parse::<Fixture>()?.load());
        }
        let path = Path::new(&self.model);
        if path.is_dir() {
            self.without_config("a folder")?;
            let held = match self.weights {
                WeightsArg::Dtype => Held::Computed,
                WeightsArg::File => Held::Filed,
            };
            return Ok(Model::load_held(path, held)?);
        }
        if !path.exists() {
            bail!(
                "{}: there is no such folder or file, expected a model folder, a .pt or fixture:NAME",
                path.display()
            );
        }
        self.without_weights("a file")?;
        let config = config_of(path, self.config.as_deref())?;
        Ok(Model::load_with_config(path, config)?)
    }

    /// The tokenizer beside the model.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        self.tokenizer_if_any()?.ok_or_else(|| {
            anyhow!(
                "{}: has no tokenizer, expected tokenizer.json, or vocab.json and merges.txt, in the model's folder",
                self.model
            )
        })
    }

    /// The same, where there is one.
    pub fn tokenizer_if_any(&self) -> Result<Option<Tokenizer>> {
        let path = Path::new(&self.model);
        let folder = match path.is_dir() {
            true => Some(path),
            false => path.parent().filter(|_| path.exists()),
        };
        let folder = folder.filter(|folder| Tokenizer::is_in(folder));
        Ok(folder.map(Tokenizer::open).transpose()?)
    }

    /// The least precision that holds every value of the model's file.
    pub fn precision(&self) -> Result<Precision> {
        if self.model.starts_with("fixture:") {
            return Ok(Precision::F64);
        }
        let file = open_weights(Path::new(&self.model))?;
        let wide = file.names().any(|n| file.dtype(n) == Some(Dtype::F64));
        Ok(if wide { Precision::F64 } else { Precision::F32 })
    }

    fn without_weights(&self, what: &str) -> Result<()> {
        match self.weights {
            WeightsArg::Dtype => Ok(()),
            WeightsArg::File => {
                bail!("--weights file: {what} is held as computed with, expected a folder")
            }
        }
    }

    fn without_config(&self, what: &str) -> Result<()> {
        match &self.config {
            None => Ok(()),
            Some(config) => bail!("--config {}: {what} has its own", config.display()),
        }
    }
}

/// A model, an expression, and the run that it may speak of.
#[derive(clap::Args)]
pub struct CircuitArg {
    #[command(flatten)]
    model: ModelArg,
    /// The expression; docs/expressions.md has the grammar
    #[arg(value_name = "EXPR")]
    pub expr: String,
    /// dense, factored, svd, eig, norm, trace, diag, top=K or softmax
    #[arg(long = "as", value_name = "FORM", default_value = "dense")]
    form: Form,
    #[command(flatten)]
    sequences: SequenceArgs,
}

impl CircuitArg {
    /// The form asked for.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Reads the expression for the model, runs the model if there are sequences, and hands the circuit on.
    pub fn with_circuit<T: Scalar, R>(
        &self,
        common: &Common,
        f: impl FnOnce(&Circuit<'_, T>, &Labels) -> Result<R>,
    ) -> Result<R> {
        let model = self.model.load::<T>()?;
        let words = Words::of(&self.model)?;
        if !self.sequences.given() {
            let labels = Labels {
                words,
                dims: model.config().dims(),
                tokens: Vec::new(),
            };
            return f(&Circuit::parse(&self.expr, &model)?, &labels);
        }
        let (tokens, _) = self
            .sequences
            .read_one(common, &self.model, model.config())?;
        let dims = Dims {
            pos: tokens.pos(),
            ..model.config().dims()
        };
        let family = Family::parse(&self.expr, &dims)?;
        let hooks = hooks(&family.members);
        let run = hooks
            .into_iter()
            .fold(Run::new(), |run, hook| run.cache(hook));
        let out = model.run(&tokens, run)?;
        let labels = Labels {
            words,
            dims,
            tokens: tokens.sequence(0).to_vec(),
        };
        let source = Source::run(&model, &out, 0);
        f(&Circuit::parse(&self.expr, source)?, &labels)
    }
}

/// What the rows and columns of a circuit are called.
pub struct Labels {
    words: Words,
    dims: Dims,
    /// Those at the positions, where there is a run.
    tokens: Vec<i64>,
}

impl Labels {
    /// The word of a row or column, where a space's dimensions are tokens, or positions with tokens.
    pub fn word(&self, space: &Space, i: usize) -> Option<String> {
        match space {
            Space::Vocab | Space::Out => self.words.exact(i),
            Space::Pos => self.words.exact(*self.tokens.get(i)? as usize),
            Space::Stack(parts) => {
                let mut first = 0;
                for part in parts {
                    let size = part.size(&self.dims);
                    if i < first + size {
                        return self.word(part, i - first);
                    }
                    first += size;
                }
                None
            }
            Space::Model | Space::Head(_) | Space::Mlp(_) | Space::One => None,
        }
    }

    /// Its number, with its word where it has one.
    pub fn shown(&self, space: &Space, i: usize) -> String {
        placed(i, self.word(space, i).as_deref())
    }
}

/// In which format a model is written.
#[derive(clap::Args)]
pub struct ToArg {
    /// transformer_lens, hugging_face, or one of its families as `gpt2` or `llama`
    ///
    /// As hugging_face it is written as the family that it came from, or else as the first one that has a place for all
    /// of it.
    #[arg(long, value_name = "FORMAT", default_value = "transformer_lens")]
    to: String,
}

impl ToArg {
    /// Writes a model that was loaded from there into a folder.
    pub fn save<T: Scalar>(&self, model: &Model<T>, from: &ModelArg, out: &Path) -> Result<()> {
        match self.to.as_str() {
            "transformer_lens" => model.save(out)?,
            "hugging_face" => {
                let family = pathsum::format::family_of(&from.model);
                let own = model.save_hugging_face(out, family);
                // What is in its own family's way is the better message, where no other has a place for it either.
                let mismatch = matches!(own, Err(pathsum::Error::Mismatch(_)));
                if !(mismatch && family.is_some() && model.save_hugging_face(out, None).is_ok()) {
                    own?;
                }
            }
            family => model.save_hugging_face(out, Some(family))?,
        }
        Ok(())
    }
}

/// The configuration for a checkpoint file: the one given, or the one beside it.
pub fn config_of(checkpoint: &Path, given: Option<&Path>) -> Result<Config> {
    if let Some(config) = given {
        return Ok(Config::open(config)?);
    }
    let beside = checkpoint.with_file_name("config.json");
    if !beside.exists() {
        bail!(
            "{}: a state dict has no configuration, expected --config FILE",
            checkpoint.display()
        );
    }
    Ok(Config::open(beside)?)
}
