//! `pathsum diff`: activations from elsewhere against a model's own.

use super::args::{Common, ModelArg};
use super::batch::SequenceArgs;
use super::output::{report, table, text};
use super::words::Words;
use anyhow::{Context, Result, bail};
use pathsum::format::{family_of, module_hooks};
use pathsum::model::Config;
use pathsum::verify::{Compared, compare_dump};
use pathsum::{Hook, Precision, Scalar, TensorFile, Tokens};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Compare a dump of activations with a model's own, hook by hook
///
/// The dump is a safetensors file with `tokens` (or `input_ids`) and values under TransformerLens's names, or Hugging
/// Face's: `logits`, `hidden_states.L`, `attentions.L`, and the outputs of modules (`model.layers.0.self_attn.q_proj`).
/// Each value is compared with what the model makes of the dump's own values before it, so that an operation which went
/// another way is named, and what follows from it is not. Exit status 1 if any value differs by more than rounding in
/// the dump's precision makes of it.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  pathsum diff gpt2/ activations.safetensors")]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    /// The safetensors file with the values
    #[arg(value_name = "DUMP")]
    dump: PathBuf,
    #[command(flatten)]
    sequences: SequenceArgs,
    /// Print every value, not only those that differ
    #[arg(long)]
    all: bool,
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    match common.dtype() {
        Precision::F32 => diff::<f32>(args, common),
        Precision::F64 => diff::<f64>(args, common),
    }
}

fn diff<T: Scalar>(args: &Args, common: &Common) -> Result<ExitCode> {
    let file = TensorFile::open(&args.dump)?;
    let dump = || args.dump.display().to_string();
    let model = args.model.load::<T>()?;
    let tokens = match args.sequences.given() {
        true => (args.sequences.read(common, &args.model, model.config())?).tokens,
        false => Tokens::from_file(&file).with_context(dump)?,
    };
    tokens.check(model.config()).with_context(dump)?;
    let (values, other) = values(&file, model.config(), &args.model.model)?;
    if values.is_empty() {
        bail!(
            "{}: has no value of this model under a name that is known here",
            dump()
        );
    }
    let compared = compare_dump(&model, &tokens, &file, &values).with_context(dump)?;
    let words = Words::of(&args.model)?;
    // The token of the row that is furthest off.
    let word = |c: &Compared| {
        let position = match c.hook {
            // The heads come first.
            Some(Hook::AttnScores(_) | Hook::Pattern(_)) => c.place.get(2)?,
            _ => c.place.get(1)?,
        };
        words.exact(tokens.sequence(*c.place.first()?)[*position] as usize)
    };
    let listed = compared.iter().map(|c| -> Result<Value> {
        let mut own = serde_json::to_value(c)?;
        own["word"] = json!(word(c));
        Ok(own)
    });
    let listed: Vec<Value> = listed.collect::<Result<_>>()?;
    let differ: Vec<&Compared> = compared.iter().filter(|c| c.differs()).collect();
    let result = json!({
        "model": args.model.model,
        "dump": dump(),
        "dtype": T::PRECISION.to_string(),
        "differ": differ.len(),
        "values": listed,
        "not_compared": other,
    });
    report(common, &result, || {
        let shown = compared.iter().filter(|c| args.all || c.differs());
        let mut out = String::new();
        let mut rows = table(["value", "", "error", "rounding allows", "made of"]);
        let mut any = false;
        for c in shown {
            any = true;
            let verdict = if c.differs() { "differs" } else { "agrees" };
            rows.add_row([
                c.name.clone(),
                verdict.into(),
                match word(c) {
                    Some(word) => format!("{:.1e} at {:?} {word:?}", c.error, c.place),
                    None => format!("{:.1e} at {:?}", c.error, c.place),
                },
                format!("{:.1e}", c.tolerance),
                c.from.join(", "),
            ]);
        }
        if any {
            out = format!("{}\n", text(&rows));
        }
        if !other.is_empty() {
            out += &format!("not compared: {}\n", other.join(", "));
        }
        let first = match differ.first() {
            Some(c) if c.from.is_empty() => format!("; the first is {}", c.name),
            Some(c) => format!("; the first is {}, made of {}", c.name, c.from.join(", ")),
            None => String::new(),
        };
        format!(
            "{out}{} of {} values differ{first}\n",
            differ.len(),
            compared.len()
        )
    })?;
    Ok(match differ.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(1),
    })
}

/// A name in a dump, and the hook that it is; none for the logits.
type Named = (String, Option<Hook>);

/// The values of a dump that are known here, and the names of the others.
fn values(file: &TensorFile, config: &Config, model: &str) -> Result<(Vec<Named>, Vec<String>)> {
    const NO_VALUES: [&str; 4] = ["tokens", "input_ids", "attention_mask", "token_type_ids"];
    let folder = Path::new(model);
    let modules = match family_of(folder) {
        Some(_) => module_hooks(folder)?,
        None => Vec::new(),
    };
    let hooks = config.hooks();
    let (mut known, mut other) = (Vec::new(), Vec::new());
    for name in file.names().filter(|name| !NO_VALUES.contains(name)) {
        let module = name.strip_suffix(".output").unwrap_or(name);
        let module = modules.iter().find(|(own, _)| own == module);
        let own = match (name, name.parse::<Hook>(), module) {
            ("logits", ..) => Some(None),
            (_, Ok(hook), _) if hooks.contains(&hook) => Some(Some(hook)),
            (.., Some((_, hook))) => Some(*hook),
            _ => None,
        };
        match own {
            Some(own) => known.push((name.to_string(), own)),
            None => other.push(name.to_string()),
        }
    }
    Ok((known, other))
}
