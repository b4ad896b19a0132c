//! `pathsum lens`: what each layer would say.

use super::args::{Common, ModelArg};
use super::batch::SequenceArgs;
use super::output::{progress, report, table, text};
use super::words::Words;
use anyhow::{Result, bail};
use pathsum::decompose::{
    By, Component, LogitLens, direct_logits, direct_logits_hooks, logit_lens,
};
use pathsum::model::{Config, Standing};
use pathsum::tensor::check_room;
use pathsum::{Hook, Model, Precision, Run, RunOutput, Scalar, Tokens};
use serde_json::{Value, json};
use std::process::ExitCode;

/// What the model would say if it ended at each layer; or what layers and heads write straight to the logits
///
/// With --at resid the stream before the first layer and behind each goes through the model's own end: the last norm, at
/// the scale of what it is given, the unembedding, and what else stands there. With the others, what is written goes
/// through the last norm at the run's own scale, with which it is linear, so that all writers add up to the logits.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pathsum lens gpt2/ --prompt \"The capital of France is\" --answer \" Paris\"\n  pathsum lens fixture:induction --sequence \"3 1 4 3\" --at heads"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    sequences: SequenceArgs,
    /// What is read
    #[arg(long, value_enum, default_value = "resid")]
    at: At,
    /// The token whose place is shown: the first one of a text, or a token's number where the model's folder has no
    /// tokenizer (the one that the model finds likeliest, unless given)
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    answer: Option<String>,
    /// The position after which it is said (the last, unless given)
    #[arg(long, value_name = "P")]
    position: Option<usize>,
    /// How many tokens to show in each place
    #[arg(long, value_name = "K", default_value_t = 5)]
    top: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum At {
    /// The stream before the first layer and behind each
    Resid,
    /// What each layer's attention writes
    Attn,
    /// What each layer's MLP writes
    Mlp,
    /// What each head writes
    Heads,
}

impl At {
    /// How finely the stream is cut for it; not at all to read it whole.
    fn by(self) -> Option<By> {
        match self {
            At::Resid => None,
            At::Attn | At::Mlp => Some(By::Layer),
            At::Heads => Some(By::Head),
        }
    }

    /// Whether that is what was asked for.
    fn shows(self, component: Component) -> bool {
        match component {
            Component::AttnOut(_) => self == At::Attn,
            Component::MlpOut(_) => self == At::Mlp,
            Component::Head(_) => self == At::Heads,
            _ => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            At::Resid => "resid",
            At::Attn => "attn",
            At::Mlp => "mlp",
            At::Heads => "heads",
        }
    }

    /// How many lists of tokens are shown of one sequence.
    fn lists(self, config: &Config) -> usize {
        match self {
            At::Resid => config.n_layers + 1,
            At::Attn | At::Mlp => 2 * config.n_layers,
            At::Heads => 2 * config.n_layers * config.n_heads,
        }
    }

    fn hooks(self, config: &Config) -> Vec<Hook> {
        match self.by() {
            None => LogitLens::<f64>::hooks(config),
            Some(by) => direct_logits_hooks(config, by),
        }
    }
}

/// More sequences than this are not printed.
const MOST: usize = 20;
/// Bytes that a token of a place takes on its way to JSON: a map of a few names, words and numbers.
const ENTRY: usize = 1024;

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    match common.dtype() {
        Precision::F32 => execute::<f32>(args, common),
        Precision::F64 => execute::<f64>(args, common),
    }
}

fn execute<T: Scalar>(args: &Args, common: &Common) -> Result<ExitCode> {
    let model = args.model.load::<T>()?;
    let c = model.config();
    let tokens = (args.sequences.read(common, &args.model, c)?).tokens;
    if tokens.batch() > MOST {
        bail!(
            "{} sequences are too many to print, expected --limit N",
            tokens.batch()
        );
    }
    if c.n_layers == 0 {
        bail!("{}: this model has no layers", args.model.model);
    }
    if c.d_vocab_out == 0 {
        bail!(
            "{}: this model has no unembedding, and no logits",
            args.model.model
        );
    }
    if args.at == At::Mlp && c.mlp.is_none() {
        bail!("--at mlp: this model has no MLPs");
    }
    let shown = tokens.batch() * args.at.lists(c) * args.top.min(c.d_vocab_out);
    check_room((shown * ENTRY) as u64, "the tokens shown of each place")?;
    let words = Words::of(&args.model)?;
    let answer = words.answer(args.answer.as_deref(), c)?;
    let bar = progress(common, "running", tokens.batch());
    let read = |s: usize| {
        let read = Reading::of(args, &model, &tokens.slice(s, 1), answer);
        bar.inc(1);
        read
    };
    let readings: Vec<Reading> = (0..tokens.batch()).map(read).collect::<Result<_>>()?;
    bar.finish_and_clear();
    let result = json!({
        "model": args.model.model,
        "dtype": T::PRECISION.to_string(),
        "at": args.at.name(),
        "sequences": readings.iter().map(|r| r.json(&words)).collect::<Vec<_>>(),
    });
    report(common, &result, || {
        let all: Vec<String> = readings.iter().map(|r| r.text(&words)).collect();
        all.join("\n")
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What is said after one position of a sequence.
struct Reading {
    /// Those that are attended to.
    tokens: Vec<i64>,
    position: usize,
    /// The token there.
    last: i64,
    answer: Standing,
    places: Places,
}

enum Places {
    /// The stream at a hook: the answer's standing, and the likeliest tokens.
    Stream(Vec<(Hook, Standing, Vec<Standing>)>),
    /// What a component adds: to the answer's logit, and the tokens that it raises and lowers most.
    Writers(Vec<Writer>),
}

struct Writer {
    component: Component,
    answer: f64,
    up: Vec<(usize, f64)>,
    down: Vec<(usize, f64)>,
}

impl Reading {
    fn of<T: Scalar>(
        args: &Args,
        model: &Model<T>,
        tokens: &Tokens,
        answer: Option<usize>,
    ) -> Result<Self> {
        let position = args.position.unwrap_or_else(|| tokens.last_attended(0));
        if position >= tokens.pos() {
            bail!(
                "--position {position}: the sequence's positions are 0..={}",
                tokens.pos() - 1
            );
        }
        let keep = args.at.hooks(model.config()).into_iter();
        let run = keep.fold(Run::new(), |run, hook| run.cache(hook));
        let out = model.run(tokens, run)?;
        let places = match args.at.by() {
            None => logit_lens(model, &out, (0, position)).map(Ok)?,
            Some(by) => direct_logits(model, &out, (0, position), by).map(Err)?,
        };
        let own = out.logits.slice(&[0, position]);
        let answer = answer.unwrap_or_else(|| Standing::likeliest(own, 1)[0].token);
        let places = match places {
            Ok(lens) => Places::Stream(
                (lens.hooks.iter().enumerate())
                    .map(|(i, &hook)| {
                        let row = lens.logits.slice(&[i]);
                        let likeliest = Standing::likeliest(row, args.top);
                        (hook, Standing::of(row, answer), likeliest)
                    })
                    .collect(),
            ),
            Err(stack) => Places::Writers(
                (stack.labels.iter().enumerate())
                    .filter(|(_, component)| args.at.shows(**component))
                    .map(|(i, &component)| {
                        let row = stack.values.slice(&[i, 0, 0]);
                        Writer {
                            component,
                            answer: row[answer].to_f64(),
                            up: largest(row, args.top, 1.0),
                            down: largest(row, args.top, -1.0),
                        }
                    })
                    .collect(),
            ),
        };
        let RunOutput { tokens, .. } = &out;
        let seen = (0..tokens.pos()).filter(|&p| tokens.is_attended(0, p));
        Ok(Reading {
            tokens: seen.map(|p| tokens.sequence(0)[p]).collect(),
            position,
            last: tokens.sequence(0)[position],
            answer: Standing::of(own, answer),
            places,
        })
    }

    fn json(&self, words: &Words) -> Value {
        let standing = |s: &Standing| {
            json!({"token": s.token, "word": words.exact(s.token), "logit": s.logit,
                "probability": s.probability, "rank": s.rank})
        };
        let added = |all: &[(usize, f64)]| -> Vec<Value> {
            let each = all
                .iter()
                .map(|&(t, x)| json!({"token": t, "word": words.exact(t), "logit": x}));
            each.collect()
        };
        let places: Vec<Value> = match &self.places {
            Places::Stream(all) => (all.iter())
                .map(|(hook, answer, top)| {
                    let top: Vec<Value> = top.iter().map(standing).collect();
                    json!({"hook": hook.to_string(), "answer": standing(answer), "top": top})
                })
                .collect(),
            Places::Writers(all) => (all.iter())
                .map(|w| {
                    json!({"component": w.component, "answer": w.answer, "up": added(&w.up),
                        "down": added(&w.down)})
                })
                .collect(),
        };
        json!({"tokens": self.tokens, "words": words.all(&self.tokens), "position": self.position, "answer": standing(&self.answer),
            "places": places})
    }

    fn text(&self, words: &Words) -> String {
        let title = format!(
            "{}\nafter {} at position {}: answer {}, logit {:.4}, probability {:.4}, rank {}\n",
            words.sequence(&self.tokens),
            words.shown(self.last as usize),
            self.position,
            words.shown(self.answer.token),
            self.answer.logit,
            self.answer.probability,
            self.answer.rank
        );
        let rows = match &self.places {
            Places::Stream(all) => {
                let mut rows = table(["stream", "logit", "probability", "rank", "likeliest"]);
                for (hook, answer, likeliest) in all {
                    let shown =
                        |s: &Standing| format!("{} {:.3}", words.shown(s.token), s.probability);
                    let likeliest: Vec<String> = likeliest.iter().map(shown).collect();
                    rows.add_row([
                        place(*hook),
                        format!("{:.4}", answer.logit),
                        format!("{:.4}", answer.probability),
                        answer.rank.to_string(),
                        likeliest.join(", "),
                    ]);
                }
                rows
            }
            Places::Writers(all) => {
                let mut rows = table(["written by", "answer", "up", "down"]);
                for writer in all {
                    let list = |all: &[(usize, f64)]| -> String {
                        let shown = |&(t, x): &(usize, f64)| format!("{} {x:+.3}", words.shown(t));
                        all.iter().map(shown).collect::<Vec<_>>().join(", ")
                    };
                    rows.add_row([
                        writer.component.to_string(),
                        format!("{:+.4}", writer.answer),
                        list(&writer.up),
                        list(&writer.down),
                    ]);
                }
                rows
            }
        };
        format!("{title}\n{}", text(&rows))
    }
}

/// A place in the stream, as `resid_post 3`; of post-norm blocks it is the norm's output.
fn place(hook: Hook) -> String {
    match hook {
        Hook::ResidPre(l) => format!("resid_pre {l}"),
        Hook::ResidPost(l) => format!("resid_post {l}"),
        Hook::NormalizedResidPost(l) => format!("normalized_resid_post {l}"),
        other => other.to_string(),
    }
}

/// The tokens with the largest entries, those with the smallest where `sign` is -1; of equal ones the smaller token.
fn largest<T: Scalar>(row: &[T], k: usize, sign: f64) -> Vec<(usize, f64)> {
    let own: Vec<f64> = row.iter().map(|x| x.to_f64()).collect();
    let mut order: Vec<usize> = (0..own.len()).collect();
    order.sort_by(|&a, &b| (sign * own[b]).total_cmp(&(sign * own[a])));
    order.truncate(k);
    order.into_iter().map(|i| (i, own[i])).collect()
}
