//! Pairs of clean and corrupted sequences, from files or typed.

use super::args::{Common, ModelArg};
use super::batch::{Batch, SpecialArgs};
use super::words::Words;
use anyhow::{Result, bail};
use pathsum::model::Config;
use std::path::PathBuf;

/// Clean sequences and corrupted ones.
#[derive(clap::Args)]
pub struct PairArgs {
    /// A safetensors file with the clean `tokens`, [batch, pos], and their labels if they are needed
    #[arg(long, value_name = "FILE", required_unless_present = "clean_prompt")]
    clean: Option<PathBuf>,
    /// A safetensors file with the corrupted `tokens`, sequence by sequence beside the clean ones
    #[arg(long, value_name = "FILE", required_unless_present = "corrupt_prompt")]
    corrupt: Option<PathBuf>,
    /// A clean text, for a model whose folder has a tokenizer. May be given several times
    #[arg(long, value_name = "TEXT", conflicts_with = "clean")]
    clean_prompt: Vec<String>,
    /// The corrupted text, as many tokens long. As often as there are clean ones
    #[arg(long, value_name = "TEXT", conflicts_with = "corrupt")]
    corrupt_prompt: Vec<String>,
    #[command(flatten)]
    special: SpecialArgs,
}

impl PairArgs {
    /// The clean sequences and the corrupted ones, of one shape.
    pub fn read(
        &self,
        common: &Common,
        model: &ModelArg,
        words: &Words,
        config: &Config,
    ) -> Result<[Batch; 2]> {
        let of = |file: &Option<PathBuf>, option: &str, texts: &[String]| match file {
            Some(file) => Batch::read(file, common, config),
            None => {
                let tokenizer = model.tokenizer()?;
                let special = self.special.special();
                Batch::of_texts((option, texts), (&tokenizer, special), common, config)
            }
        };
        let clean = of(&self.clean, "--clean-prompt", &self.clean_prompt)?;
        let corrupt = of(&self.corrupt, "--corrupt-prompt", &self.corrupt_prompt)?;
        if clean.shape() != corrupt.shape() {
            if let ([clean, ..], [corrupt, ..]) =
                (self.clean_prompt.as_slice(), self.corrupt_prompt.as_slice())
            {
                let tokens = |text: &str| -> Result<String> {
                    let tokens = model.tokenizer()?.encode(text, self.special.special())?;
                    Ok(format!("{} ({})", tokens.len(), words.sequence(&tokens)))
                };
                bail!(
                    "--corrupt-prompt: expected as many texts as clean ones, of as many tokens; the first has {}, the clean one {}",
                    tokens(corrupt)?,
                    tokens(clean)?
                );
            }
            bail!(
                "{}: `tokens` has shape {:?}, expected {:?}, as in {}",
                corrupt.name(),
                corrupt.shape(),
                clean.shape(),
                clean.name()
            );
        }
        Ok([clean, corrupt])
    }
}
