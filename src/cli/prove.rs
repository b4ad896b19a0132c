//! `pathsum prove`: statements, decided.

use super::args::{Common, ModelArg};
use super::batch::SequenceArgs;
use super::output::report;
use anyhow::{Result, bail};
use comfy_table::{Attribute, Cell, Color};
use pathsum::eval::hooks;
use pathsum::expr::{Dims, Expr, Origin, Statement};
use pathsum::verify::{self, Measure, Proof, Proven};
use pathsum::{Precision, Run, Scalar, Tokens};
use std::path::PathBuf;
use std::process::ExitCode;

/// Decide a statement `LHS == RHS`
///
/// By normal forms (proved), else in a finite field (proved, with a probability of error), else, where a model
/// is given, on its numbers (holds, within a bound; or refuted). Exit status 1 if it is refuted.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pathsum prove \"W_OV[0.0]^T == W_O[0.0]^T W_V[0.0]^T\"\n  pathsum prove \"attn_out[1] == sum(result[1.*]) + ones b_O[1]\" --model fixture:induction"
)]
pub struct Args {
    /// The statement
    #[arg(value_name = "LHS == RHS")]
    statement: String,
    /// A folder, a .pt state dict, or fixture:NAME
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// The config.json of a .pt (the one beside it unless given)
    #[arg(long, value_name = "FILE", requires = "model")]
    config: Option<PathBuf>,
    #[command(flatten)]
    sequences: SequenceArgs,
    /// The seed of the point in the finite field
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    let (proven, note) = match (&args.model, common.dtype()) {
        (None, _) if args.sequences.given() => {
            bail!("sequences are for a model: expected --model MODEL with them")
        }
        (None, _) => {
            let dims = Dims::default();
            let statement = Statement::parse(&args.statement, &dims)?;
            (verify::prove(&statement, &dims, args.seed)?, String::new())
        }
        (Some(model), Precision::F32) => on_model::<f32>(args, model, common)?,
        (Some(model), Precision::F64) => on_model::<f64>(args, model, common)?,
    };
    report(common, &proven, || told(&proven) + &note)?;
    Ok(match proven.proof.refuted() {
        true => ExitCode::from(1),
        false => ExitCode::SUCCESS,
    })
}

/// The verdict, and what there is to add to it.
fn on_model<T: Scalar>(args: &Args, model: &str, common: &Common) -> Result<(Proven, String)> {
    let from = ModelArg::of(model.to_string(), args.config.clone());
    let model = from.load::<T>()?;
    let tokens = match args.sequences.given() {
        true => args.sequences.read(common, &from, model.config())?.tokens,
        false => common.limited(verify::default_tokens(&model)),
    };
    let dims = Dims {
        pos: tokens.pos(),
        ..model.config().dims()
    };
    let statement = Statement::parse(&args.statement, &dims)?;
    let sides: Vec<Expr> = statement
        .members
        .iter()
        .flat_map(|(left, right)| [left.clone(), right.clone()])
        .collect();
    let of_run = |e: &Expr| e.symbols().iter().any(|s| s.origin() == Origin::Run);
    if !sides.iter().any(of_run) {
        let proven = verify::prove_on(&statement, &model, None, args.seed)?;
        let note = of_stored_weights(&proven, &model);
        return Ok((proven, note));
    }
    let out = run_for::<T>(&model, &tokens, &sides)?;
    let proven = verify::prove_on(&statement, &model, Some(&out), args.seed)?;
    Ok((proven, String::new()))
}

/// Weights are taken for exactly what their file has. Where a statement about them alone fails by less than storing
/// the largest of them may have rounded, this is said.
fn of_stored_weights<T: Scalar>(proven: &Proven, model: &pathsum::Model<T>) -> String {
    let Proof::Refuted(m) = &proven.proof else {
        return String::new();
    };
    let tensors = model.weights().tensors();
    let all = || {
        let values = tensors.iter().flat_map(|(_, t)| t.data());
        values.map(|x| x.to_f64())
    };
    let single = all().all(|x| f64::from(x as f32) == x);
    let epsilon = if single {
        f64::from(f32::EPSILON)
    } else {
        f64::EPSILON
    };
    let rounding = epsilon * all().fold(0.0, |most, x| x.abs().max(most));
    if m.error > rounding {
        return String::new();
    }
    format!(
        "the weights are taken for exactly what the file has; one rounding of the largest of them is {rounding:.1e}, so \
         that this may be left of how they were made\n"
    )
}

fn run_for<T: Scalar>(
    model: &pathsum::Model<T>,
    tokens: &Tokens,
    sides: &[Expr],
) -> Result<pathsum::RunOutput<T>> {
    // What the statement speaks of, and what that is made of in the end: patterns, scales, neurons.
    let mut run = Run::new();
    for hook in hooks(sides) {
        run = run.cache(hook);
    }
    for name in ["*.hook_pattern", "*.hook_scale", "*.mlp.hook_post"] {
        let any = |h: &pathsum::Hook| {
            name.parse()
                .is_ok_and(|p: pathsum::HookPattern| p.matches(*h))
        };
        if model.config().hooks().iter().any(any) {
            run = run.cache(name);
        }
    }
    Ok(model.run(tokens, run)?)
}

fn told(proven: &Proven) -> String {
    let colours = console::colors_enabled();
    let verdict = |word: &str, colour: Color| {
        if !colours {
            return word.to_string();
        }
        let cell = Cell::new(word).fg(colour).add_attribute(Attribute::Bold);
        let mut t = super::output::table([]);
        t.add_row(vec![cell]);
        t.to_string().trim().to_string()
    };
    let members = match proven.members {
        1 => String::new(),
        n => format!(", for each of {n}"),
    };
    let measured = |m: &Measure| {
        format!(
            "{} entries compared; the furthest off: {} of {:.1e} allowed, at {}",
            m.compared,
            if m.error == 0.0 {
                "0".to_string()
            } else {
                format!("{:.1e}", m.error)
            },
            m.bound,
            m.place
        )
    };
    let (word, how) = match &proven.proof {
        Proof::Proved {
            rules,
            by_definition,
        } => {
            let definitions = match by_definition {
                true => ", with a run's values replaced by what they are made of",
                false => "",
            };
            let rules = match rules.is_empty() {
                true => String::new(),
                false => format!("\nrules used: {}", rules.join("; ")),
            };
            (
                verdict("proved", Color::Green),
                format!("{members}: both sides have the same normal form{definitions}{rules}"),
            )
        }
        Proof::ProvedInField {
            probability_of_error,
            sizes,
        } => (
            verdict("proved", Color::Green),
            format!(
                "{members}, with a probability of error of at most {probability_of_error:.1e}: both sides agree at a random point modulo 2^61 - 1\n({sizes})"
            ),
        ),
        Proof::Holds(m) => (
            verdict("holds", Color::Green),
            format!("{members}, for this model: {}", measured(m)),
        ),
        Proof::Refuted(m) => (
            verdict("refuted", Color::Red),
            format!(
                ": at {} the left side is {:e}, the right side {:e}\n{}",
                m.place,
                m.left,
                m.right,
                measured(m)
            ),
        ),
        Proof::RefutedInField {
            place,
            left,
            right,
            sizes,
        } => (
            verdict("refuted", Color::Red),
            format!(
                ": modulo 2^61 - 1, at a random point, the left side is {left} at {place}, the right side {right}\n({sizes})"
            ),
        ),
    };
    format!("{word}{how}\n")
}
