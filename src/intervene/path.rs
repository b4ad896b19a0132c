//! Path patching: a change of what some components write, seen by chosen readers only.

use super::change::{Intervention, Prepared};
use super::means::mean;
use super::part::Window;
use crate::diagram::{NormPlace, Order};
use crate::error::{Error, Result};
use crate::linalg::Par;
use crate::model::{Cache, Config, Model, Run, RunOutput, Tokens};
use crate::names::{Head, Hook, NormSite};
use crate::tensor::{Scalar, Tensor};
use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;

/// Something that reads the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Receiver {
    /// A head's queries.
    Q(Head),
    /// A head's keys; where heads share them, those of all that do.
    K(Head),
    /// A head's values; where heads share them, those of all that do.
    V(Head),
    /// A layer's neurons.
    Mlp(usize),
    /// The logits, through `ln_final`.
    Logits,
}

impl fmt::Display for Receiver {
    /// As in the circuit files of the Mechanistic Interpretability Benchmark: `a1.h0<q>`, `m1`, `logits`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (head, of) = match *self {
            Receiver::Q(head) => (head, 'q'),
            Receiver::K(head) => (head, 'k'),
            Receiver::V(head) => (head, 'v'),
            Receiver::Mlp(l) => return write!(f, "m{l}"),
            Receiver::Logits => return f.write_str("logits"),
        };
        write!(f, "a{}.h{}<{of}>", head.layer, head.head)
    }
}

impl FromStr for Receiver {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let number = |s: &str| s.parse().ok().filter(|n: &usize| n.to_string() == s);
        let parse = || {
            if s == "logits" {
                return Some(Receiver::Logits);
            }
            if let Some(layer) = s.strip_prefix('m') {
                return Some(Receiver::Mlp(number(layer)?));
            }
            let (head, of) = s.strip_prefix('a')?.strip_suffix('>')?.split_once('<')?;
            let (layer, head) = head.split_once(".h")?;
            let (layer, head) = (number(layer)?, number(head)?);
            let head = Head { layer, head };
            match of {
                "q" => Some(Receiver::Q(head)),
                "k" => Some(Receiver::K(head)),
                "v" => Some(Receiver::V(head)),
                _ => None,
            }
        };
        parse().ok_or_else(|| Error::Malformed {
            kind: "receiver",
            text: s.into(),
            expected: "aL.hH<q>, aL.hH<k>, aL.hH<v>, mL or logits",
        })
    }
}

impl Receiver {
    /// Everything that reads what this hook's value is a part of.
    ///
    /// # Errors
    /// When the value is not one that is added to the stream.
    pub fn all_after(config: &Config, sender: Hook) -> Result<Vec<Receiver>> {
        let (layer, is_mlp) = written_by(sender)?;
        let mut all = Vec::new();
        for l in 0..config.n_layers {
            let attention_reads = layer.is_none_or(|from| l > from);
            let sequential = config.order == Order::Sequential;
            let mlp_reads = attention_reads || layer == Some(l) && !is_mlp && sequential;
            if attention_reads {
                let heads = (0..config.n_heads).map(|head| Head { layer: l, head });
                all.extend(heads.flat_map(|h| [Receiver::Q(h), Receiver::K(h), Receiver::V(h)]));
            }
            if mlp_reads && config.mlp.is_some() {
                all.push(Receiver::Mlp(l));
            }
        }
        all.push(Receiver::Logits);
        Ok(all)
    }

    /// The stream as it reads it.
    pub(crate) fn stream(self, config: &Config) -> Hook {
        match self {
            Receiver::Q(head) | Receiver::K(head) | Receiver::V(head) => Hook::ResidPre(head.layer),
            Receiver::Mlp(l) => match config.order {
                Order::Sequential => Hook::ResidMid(l),
                Order::Parallel | Order::SharedNorm => Hook::ResidPre(l),
            },
            Receiver::Logits if config.n_layers == 0 => Hook::Embed,
            Receiver::Logits => config.end_of_stream(),
        }
    }

    /// Whether it reads after the component that writes this hook's value.
    fn reads(self, config: &Config, sender: Hook) -> bool {
        let Ok((layer, is_mlp)) = written_by(sender) else {
            return false;
        };
        let Some(from) = layer else { return true };
        match self {
            Receiver::Q(h) | Receiver::K(h) | Receiver::V(h) => h.layer > from,
            Receiver::Mlp(l) => {
                l > from || l == from && !is_mlp && config.order == Order::Sequential
            }
            Receiver::Logits => true,
        }
    }

    fn check(self, config: &Config) -> Result<()> {
        let known = match self {
            Receiver::Q(h) | Receiver::K(h) | Receiver::V(h) => {
                h.layer < config.n_layers && h.head < config.n_heads
            }
            Receiver::Mlp(l) => l < config.n_layers && config.mlp.is_some(),
            Receiver::Logits => true,
        };
        match known {
            true => Ok(()),
            false => Err(Error::NotInModel(format!("receiver {self:?}"))),
        }
    }
}

/// The layer whose component writes a value into the stream, and whether it is the MLP; no layer for embeddings.
fn written_by(hook: Hook) -> Result<(Option<usize>, bool)> {
    match hook {
        Hook::Embed | Hook::PosEmbed | Hook::TokenTypeEmbed => Ok((None, false)),
        Hook::Result(l) | Hook::AttnOut(l) => Ok((Some(l), false)),
        Hook::MlpOut(l) => Ok((Some(l), true)),
        _ => {
            let reason = "is not written into the stream, expected hook_embed, hook_pos_embed, hook_result, hook_attn_out or hook_mlp_out";
            Err(Error::WrongHook {
                hook,
                reason: reason.into(),
            })
        }
    }
}

/// That what a hook's value adds to the stream stands in it as it is: no norm comes over it on the way to its readers.
fn stands_in_the_stream(config: &Config, hook: Hook) -> Result<()> {
    let behind = config.norm.is_some() && config.norm_place == NormPlace::Stream;
    let over_embeddings = config.embed_norm.is_some() && written_by(hook)?.0.is_none();
    let over_heads =
        matches!(hook, Hook::Result(l) if config.norm_at(NormSite::Ln1Post(l)).is_some());
    match behind || over_embeddings || over_heads {
        true => Err(Error::NotCovered(
            "a norm comes over what is written, and what is read of a change depends on all the rest",
        )),
        false => Ok(()),
    }
}

/// Runs the model with changes of what some components write, where only some readers see them.
///
/// Every component is computed, on the stream as it then is: what the senders wrote stands in it as in the clean
/// run, but for the receivers, which see it changed. So what is not downstream of a receiver stays as it was
/// (it is frozen), each receiver sees the senders' change and that of the receivers before it, and with
/// [all receivers](Receiver::all_after) the run is the one with the senders changed.
///
/// The senders' interventions are on values that are added to the stream: embeddings, `hook_result`,
/// `hook_attn_out`, `hook_mlp_out`; they are made on the clean run's values. `source` is as in
/// [`intervene`](super::intervene()); `run` may keep a cache.
///
/// ```
/// use pathsum::intervene::{Change, Intervention, Part, Receiver, path_patch};
/// use pathsum::{Hook, Run, Tokens, fixture};
///
/// let model = fixture::induction::<f64>();
/// let tokens = fixture::repeated_sequences(4, 4, 0);
/// // The induction head reads the previous-token head by its keys, hardly by its queries.
/// let sender = [Intervention::new(Hook::Result(0), Part::all(), Change::Zero)];
/// let head = "1.0".parse()?;
/// let clean = model.logits(&tokens)?;
/// let moved = |receiver| -> pathsum::Result<f64> {
///     let out = path_patch(Run::new(), &model, &tokens, &sender, &[receiver], None)?;
///     Ok(clean.data().iter().zip(out.logits.data()).fold(0f64, |m, (a, b)| m.max((a - b).abs())))
/// };
/// assert!(moved(Receiver::K(head))? > 100.0 * moved(Receiver::Q(head))?);
/// # Ok::<(), pathsum::Error>(())
/// ```
///
/// # Errors
/// When a sender is not written into the stream, a receiver is not there, or reads before every sender
/// writes; else as [`intervene`](super::intervene()).
///
/// # Cost
/// Two runs, and each receiving layer's inputs once more.
///
/// Source: path patching as in Wang et al. 2022, "Interpretability in the Wild", and Goldowsky-Dill et al. 2023,
/// "Localizing Model Behavior with Path Patching".
pub fn path_patch<'a, T: Scalar>(
    run: Run<'a, T>,
    model: &'a Model<T>,
    tokens: &Tokens,
    senders: &[Intervention],
    receivers: &[Receiver],
    source: Option<&Cache<T>>,
) -> Result<RunOutput<T>> {
    for receiver in receivers {
        receiver.check(model.config())?;
    }
    let differences = differences(model, tokens, senders, source)?;
    let of = |receiver: Receiver| {
        let seen = differences
            .iter()
            .filter(|(hook, _)| receiver.reads(model.config(), *hook));
        seen.map(|(_, d)| d.clone()).reduce(|mut sum, d| {
            add(&mut sum, &d);
            sum
        })
    };
    let mut run = run;
    for &receiver in receivers {
        let Some(difference) = of(receiver) else {
            return Err(Error::NotUpstream(format!(
                "the receiver {receiver:?} reads before any sender writes"
            )));
        };
        // The stream as the receiver finds it, from one closure to the next.
        let stream = Rc::new(RefCell::new(Tensor::zeros(&[0])));
        let kept = stream.clone();
        let keep = move |value: &mut Tensor<T>, _: Hook| {
            let mut seen = value.clone();
            add(&mut seen, &difference);
            *kept.borrow_mut() = seen;
        };
        run = match receiver {
            Receiver::Q(head) | Receiver::K(head) | Receiver::V(head) => {
                let l = head.layer;
                let heads = model.config().n_heads;
                let hook = match receiver {
                    Receiver::Q(_) => Hook::Q(l),
                    Receiver::K(_) => Hook::K(l),
                    _ => Hook::V(l),
                };
                run.hook(Hook::ResidPre(l), keep)
                    .hook(hook, move |value, hook| {
                        let stream = stream.borrow();
                        let seen = model.made_of((Hook::ResidPre(l), &stream), hook);
                        let group = head.head / (heads / value.shape()[2]);
                        put_head(value, &seen, group);
                    })
            }
            Receiver::Mlp(l) => {
                let read = [Hook::Pre(l), Hook::PreLinear(l)].into_iter();
                let read = read.filter(|&hook| model.diagram.value(hook).is_some());
                let from = receiver.stream(model.config());
                read.fold(run.hook(from, keep), |run, hook| {
                    let stream = stream.clone();
                    run.hook(hook, move |value, hook| {
                        *value = model.made_of((from, &stream.borrow()), hook)
                    })
                })
            }
            Receiver::Logits => {
                let hook = receiver.stream(model.config());
                run.hook(hook, keep)
                    .hook(hook, move |value, _| *value = stream.borrow().clone())
            }
        };
    }
    model.run(tokens, run)
}

/// What each sender's change adds to the stream, `[batch, pos, d_model]`.
fn differences<T: Scalar>(
    model: &Model<T>,
    tokens: &Tokens,
    senders: &[Intervention],
    source: Option<&Cache<T>>,
) -> Result<Vec<(Hook, Tensor<T>)>> {
    let (batch, pos) = (tokens.batch(), tokens.pos());
    let mut hooks: Vec<Hook> = Vec::new();
    for sender in senders {
        written_by(sender.hook)?;
        stands_in_the_stream(model.config(), sender.hook)?;
        sender.check(model, batch, pos, source)?;
        if !hooks.contains(&sender.hook) {
            hooks.push(sender.hook);
        }
    }
    let clean = Run::new().without_logits();
    let clean = hooks.iter().fold(clean, |run, hook| run.cache(hook));
    let clean = model.run(tokens, clean)?.cache;
    let window = Window::whole(batch, pos);
    let of_hook = |hook: Hook| {
        let mut changed = clean[hook].clone();
        for sender in senders.iter().filter(|s| s.hook == hook) {
            let selection = sender.check(model, batch, pos, source)?;
            let arriving = changed.clone();
            let mean = |over| Cow::Owned(mean(hook, &arriving, over, Par::Rayon));
            Prepared::new(sender, selection, mean, || Cow::Borrowed(&arriving), source)
                .apply(&window, changed.data_mut());
        }
        let d_model = model.config().d_model;
        let mut difference = Tensor::zeros(&[batch, pos, d_model]);
        let each = changed.len() / (batch * pos);
        let rows = changed
            .data()
            .chunks_exact(each)
            .zip(clean[hook].data().chunks_exact(each));
        // The heads' sum, where the value has heads.
        for (to, (changed, clean)) in difference.data_mut().chunks_exact_mut(d_model).zip(rows) {
            for (i, (&changed, &clean)) in changed.iter().zip(clean).enumerate() {
                to[i % d_model] += changed - clean;
            }
        }
        Ok((hook, difference))
    };
    hooks.iter().map(|&hook| of_hook(hook)).collect()
}

fn add<T: Scalar>(to: &mut Tensor<T>, by: &Tensor<T>) {
    to.data_mut()
        .iter_mut()
        .zip(by.data())
        .for_each(|(x, &y)| *x += y);
}

/// One head of a `[batch, pos, head, d_head]` value.
fn put_head<T: Scalar>(to: &mut Tensor<T>, from: &Tensor<T>, head: usize) {
    let &[_, _, heads, d_head] = to.shape() else {
        unreachable!("queries have four axes")
    };
    let rows = to.data_mut().chunks_exact_mut(heads * d_head);
    for (to, from) in rows.zip(from.data().chunks_exact(heads * d_head)) {
        let own = head * d_head..(head + 1) * d_head;
        to[own.clone()].copy_from_slice(&from[own]);
    }
}
