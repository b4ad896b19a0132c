//! The arguments that several subcommands share, and what they become.

use anyhow::{Context, Result, bail};
use pathsum::fixture::Fixture;
use pathsum::model::{Config, Model, Tokens};
use pathsum::{Precision, Scalar, TensorFile};
use std::path::{Path, PathBuf};

/// What every subcommand understands.
#[derive(clap::Args)]
pub struct Common {
    /// Precision to compute in: f64 or f32
    #[arg(long, global = true, value_name = "DTYPE", default_value = "f64")]
    dtype: Precision,
    /// Use the first N sequences only
    #[arg(long, global = true, value_name = "N")]
    pub limit: Option<usize>,
    /// Threads to use (all cores unless given)
    #[arg(long, global = true, value_name = "N")]
    threads: Option<std::num::NonZeroUsize>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Print errors only
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

impl Common {
    /// The precision to compute in.
    pub fn dtype(&self) -> Precision {
        self.dtype
    }

    /// Runs `f` with as many threads as were asked for.
    pub fn in_pool<R: Send>(&self, f: impl FnOnce() -> Result<R> + Send) -> Result<R> {
        match self.threads {
            None => f(),
            Some(n) => {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(n.get()).build();
                pool.with_context(|| format!("cannot start {n} threads"))?
                    .install(f)
            }
        }
    }
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
}

impl ModelArg {
    /// Loads the model.
    pub fn load<T: Scalar>(&self) -> Result<Model<T>> {
        if let Some(name) = self.model.strip_prefix("fixture:") {
            self.without_config("an embedded model")?;
            return Ok(name.parse::<Fixture>()?.load());
        }
        let path = Path::new(&self.model);
        if path.is_dir() {
            self.without_config("a folder")?;
            return Ok(Model::load(path)?);
        }
        if !path.exists() {
            bail!(
                "{}: there is no such folder or file, expected a model folder, a .pt or fixture:NAME",
                path.display()
            );
        }
        Ok(Model::load_with_config(path, self.config_of(path)?)?)
    }

    /// The configuration for a checkpoint file: the one given, or the one beside it.
    pub fn config_of(&self, checkpoint: &Path) -> Result<Config> {
        if let Some(config) = &self.config {
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

    fn without_config(&self, what: &str) -> Result<()> {
        match &self.config {
            None => Ok(()),
            Some(config) => bail!("--config {}: {what} has its own", config.display()),
        }
    }
}

/// Reads the tokens of a safetensors file, or the first `limit` of its sequences.
pub fn read_tokens(path: &Path, limit: Option<usize>) -> Result<Tokens> {
    let tokens =
        Tokens::from_file(&TensorFile::open(path)?).with_context(|| path.display().to_string())?;
    let tokens = match limit {
        Some(n) => tokens.truncate(n),
        None => tokens,
    };
    if tokens.batch() == 0 {
        bail!("{}: `tokens` holds no sequences", path.display());
    }
    Ok(tokens)
}
