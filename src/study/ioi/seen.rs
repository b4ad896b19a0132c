//! What is to be seen of the prompts' own runs: answers, the lens, what writes them, where heads look, and what they copy.

use super::{Place, Prompts};
use crate::decompose::{
    By, Component, Logit, LogitLens, direct_logits_along, direct_logits_hooks, logit_lens,
    source_attribution, written_alone,
};
use crate::diagram::Mask;
use crate::error::Result;
use crate::linalg::Par;
use crate::metric::{mean, per_sequence};
use crate::model::{Model, Run, RunOutput, Standing};
use crate::names::{Head, Hook};
use crate::study::HeadsView;
use crate::tensor::{Scalar, Tensor};
use rayon::prelude::*;
use serde::Serialize;

/// How well the prompts are answered.
#[derive(Clone, Debug, Serialize)]
pub struct Behaviour {
    /// The indirect object's logit less the subject's, of each prompt.
    pub logit_diffs: Vec<f64>,
    /// Their mean.
    pub logit_diff: f64,
    /// The mean over the corrupted prompts.
    pub corrupted: f64,
    /// The share of prompts with the indirect object above the subject.
    pub accuracy: f64,
    /// The share with the indirect object above all other tokens.
    pub first: f64,
    /// The indirect object's mean probability.
    pub probability: f64,
}

/// What the model would say at each layer.
#[derive(Clone, Debug, Serialize)]
pub struct Lens {
    /// The mean logit difference before the first layer and behind each.
    pub logit_diff: Vec<f64>,
    /// The share of prompts with the indirect object above the subject.
    pub accuracy: Vec<f64>,
}

/// What is added to the logit difference directly, averaged over the prompts.
#[derive(Clone, Debug, Serialize)]
pub struct Direct {
    /// By each head, layer by layer.
    pub heads: Vec<f64>,
    /// By each layer's neurons.
    pub mlps: Vec<f64>,
    /// By embeddings and biases.
    pub rest: f64,
    /// By each head from the positions of IO, S1 and S2, and from all others.
    pub by_source: Vec<[f64; 4]>,
}

/// Where heads look, averaged over the prompts.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Looks {
    /// From END to IO.
    pub end_io: f64,
    /// From END to S1.
    pub end_s1: f64,
    /// From END to S2.
    pub end_s2: f64,
    /// From S2 to S1.
    pub s2_s1: f64,
    /// From S2 to the token after S1.
    pub s2_after: f64,
    /// From the token after S1 to S1.
    pub after_s1: f64,
}

/// How a head treats a name that it attends to.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Copies {
    /// The share of prompts whose indirect object is among the five highest logits of what the head makes of its stream
    /// behind the first layer.
    pub copies: f64,
    /// The share with it among the five lowest.
    pub suppresses: f64,
}

/// A head's attention from END to a name, and what it adds to that name's logit directly: of one prompt.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Moved {
    /// Attention to the indirect object, and to both mentions of the subject.
    pub attention: [f64; 2],
    /// What the head adds to the logits of the indirect object and of the subject.
    pub logit: [f64; 2],
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// How well the prompts are answered.
    pub behaviour: Behaviour,
    /// What the model would say at each layer.
    pub lens: Lens,
    /// What is added to the logit difference directly.
    pub direct: Direct,
    /// Where heads look, layer by layer.
    pub looks: Vec<Looks>,
    /// How heads treat names.
    pub copies: Vec<Copies>,
    /// Of each prompt every head's moving.
    pub moved: Vec<Vec<Moved>>,
    /// Attention on the first prompt.
    pub patterns: HeadsView,
}

/// One prompt's part.
struct One<T: Scalar> {
    logit_diff: f64,
    first: bool,
    probability: f64,
    lens: Vec<f64>,
    heads: Vec<f64>,
    mlps: Vec<f64>,
    rest: f64,
    by_source: Vec<[f64; 4]>,
    looks: Vec<Looks>,
    moved: Vec<Moved>,
    /// The stream behind the first layer, at the indirect object.
    name: Vec<T>,
    patterns: Option<HeadsView>,
}

/// How many of the logits count as the highest, or lowest, where a head copies. Source: the paper.
const TOP: usize = 5;

impl Seen {
    pub(super) fn of<T: Scalar>(model: &Model<T>, prompts: &Prompts, par: Par) -> Result<Self> {
        let mut all: Vec<One<T>> = (0..prompts.count())
            .map(|i| One::of(model, prompts, i, par))
            .collect::<Result<_>>()?;
        let patterns = all[0].patterns.take();
        let logits = model.run(&prompts.corrupt, Run::new().par(par))?.logits;
        let answers = prompts.answers();
        let metric = prompts.metric(&answers)?;
        let corrupted = per_sequence(&metric, &answers, &answers.rows_of(&logits));
        let n = all.len() as f64;
        let share =
            |is: &dyn Fn(&One<T>) -> bool| all.iter().filter(|one| is(one)).count() as f64 / n;
        let average = |of: &dyn Fn(&One<T>) -> f64| all.iter().map(of).sum::<f64>() / n;
        let each = |of: &dyn Fn(&One<T>) -> &Vec<f64>| -> Vec<f64> {
            (0..of(&all[0]).len())
                .map(|i| average(&|one| of(one)[i]))
                .collect()
        };
        let heads = all[0].heads.len();
        let layers = all[0].lens.len();
        Ok(Seen {
            behaviour: Behaviour {
                logit_diff: average(&|one| one.logit_diff),
                logit_diffs: all.iter().map(|one| one.logit_diff).collect(),
                corrupted: mean(&corrupted),
                accuracy: share(&|one| one.logit_diff > 0.0),
                first: share(&|one| one.first),
                probability: average(&|one| one.probability),
            },
            lens: Lens {
                logit_diff: each(&|one| &one.lens),
                accuracy: (0..layers)
                    .map(|i| share(&|one| one.lens[i] > 0.0))
                    .collect(),
            },
            direct: Direct {
                heads: each(&|one| &one.heads),
                mlps: each(&|one| &one.mlps),
                rest: average(&|one| one.rest),
                by_source: (0..heads)
                    .map(|h| [0, 1, 2, 3].map(|s| average(&|one| one.by_source[h][s])))
                    .collect(),
            },
            looks: (0..heads)
                .map(|h| Looks {
                    end_io: average(&|one| one.looks[h].end_io),
                    end_s1: average(&|one| one.looks[h].end_s1),
                    end_s2: average(&|one| one.looks[h].end_s2),
                    s2_s1: average(&|one| one.looks[h].s2_s1),
                    s2_after: average(&|one| one.looks[h].s2_after),
                    after_s1: average(&|one| one.looks[h].after_s1),
                })
                .collect(),
            copies: copies(model, prompts, &all, par)?,
            patterns: patterns.expect("the first prompt's"),
            moved: all.into_iter().map(|one| one.moved).collect(),
        })
    }
}

impl<T: Scalar> One<T> {
    fn of(model: &Model<T>, prompts: &Prompts, i: usize, par: Par) -> Result<Self> {
        let c = model.config();
        let mut hooks = LogitLens::<T>::hooks(c);
        hooks.extend(direct_logits_hooks(c, By::Head));
        hooks.extend((0..c.n_layers).flat_map(|l| [Hook::Pattern(l), Hook::V(l)]));
        hooks.sort_unstable_by_key(Hook::to_string);
        hooks.dedup();
        let run = hooks
            .iter()
            .fold(Run::new().par(par), |run, hook| run.cache(hook));
        let out = model.run(&prompts.clean.slice(i, 1), run)?;
        let [io, s] = prompts.names[i];
        let difference = |row: &[T]| row[io].to_f64() - row[s].to_f64();
        let end = prompts.end();
        let row = out.logits.slice(&[0, end]);
        let standing = Standing::of(row, io);
        let lens = logit_lens(model, &out, (0, end))?;
        let lens = (0..lens.hooks.len()).map(|l| difference(lens.logits.slice(&[l])));

        let asked = [Logit::Difference(io, s), Logit::Of(io), Logit::Of(s)];
        let parts = direct_logits_along(model, &out, (0, end), By::Head, &asked)?;
        let mut heads = vec![[0.0; 3]; c.n_layers * c.n_heads];
        let (mut mlps, mut rest) = (vec![0.0; c.n_layers], 0.0);
        for (j, label) in parts.labels.iter().enumerate() {
            let values = parts.values.slice(&[j, 0, 0]);
            match *label {
                Component::Head(h) => {
                    let to = &mut heads[h.layer * c.n_heads + h.head];
                    *to = [0, 1, 2].map(|k| values[k].to_f64());
                }
                Component::MlpOut(l) => mlps[l] += values[0].to_f64(),
                _ => rest += values[0].to_f64(),
            }
        }
        let mut by_source = Vec::with_capacity(heads.len());
        for l in 0..c.n_layers {
            let from = source_attribution(model, &out.cache, l, asked[0])?;
            by_source.extend((0..c.n_heads).map(|h| sources(&from, h, prompts, i)));
        }
        let looks: Vec<Looks> = (0..c.n_layers * c.n_heads)
            .map(|h| looks(&out, [h / c.n_heads, h % c.n_heads], prompts, i))
            .collect();
        let patterns = (i == 0).then(|| {
            let patterns: Vec<_> = (0..c.n_layers)
                .map(|l| &out.cache[Hook::Pattern(l)])
                .collect();
            let mut view = HeadsView::new(
                prompts.words[0][i].clone(),
                &patterns,
                c.mask == Mask::Causal,
            );
            view.score = "adds to the logit difference".into();
            view.scores = heads.iter().map(|logits| logits[0].into()).collect();
            let most = (0..heads.len()).max_by(|&a, &b| heads[a][0].total_cmp(&heads[b][0]));
            view.first = most.map_or(view.first, |h| [h / c.n_heads, h % c.n_heads]);
            view
        });
        let moved = heads.iter().zip(&looks).map(|(logits, looks)| Moved {
            attention: [looks.end_io, looks.end_s1 + looks.end_s2],
            logit: [logits[1], logits[2]],
        });
        let behind = &out.cache[LogitLens::<T>::hooks(c)[1]];
        Ok(One {
            logit_diff: difference(row),
            first: standing.rank == 1,
            probability: standing.probability,
            lens: lens.collect(),
            moved: moved.collect(),
            heads: heads.iter().map(|logits| logits[0]).collect(),
            mlps,
            rest,
            by_source,
            looks,
            patterns,
            name: behind.slice(&[0, prompts.at(i, Place::Io)]).to_vec(),
        })
    }
}

/// What a head's query at the end takes from the places of names, and from all others.
fn sources<T: Scalar>(from: &Tensor<T>, head: usize, prompts: &Prompts, i: usize) -> [f64; 4] {
    let row = from.slice(&[0, head, prompts.end()]);
    let named = [Place::Io, Place::S1, Place::S2].map(|place| row[prompts.at(i, place)].to_f64());
    let all: f64 = row.iter().map(|x| x.to_f64()).sum();
    [
        named[0],
        named[1],
        named[2],
        all - named.iter().sum::<f64>(),
    ]
}

fn looks<T: Scalar>(
    out: &RunOutput<T>,
    [l, head]: [usize; 2],
    prompts: &Prompts,
    i: usize,
) -> Looks {
    let pattern = &out.cache[Hook::Pattern(l)];
    let at = |query, key| {
        let (query, key) = (prompts.at(i, query), prompts.at(i, key));
        pattern[[0, head, query, key]].to_f64()
    };
    Looks {
        end_io: at(Place::End, Place::Io),
        end_s1: at(Place::End, Place::S1),
        end_s2: at(Place::End, Place::S2),
        s2_s1: at(Place::S2, Place::S1),
        s2_after: at(Place::S2, Place::AfterS1),
        after_s1: at(Place::AfterS1, Place::S1),
    }
}

/// How each head treats the indirect objects' names.
fn copies<T: Scalar>(
    model: &Model<T>,
    prompts: &Prompts,
    all: &[One<T>],
    par: Par,
) -> Result<Vec<Copies>> {
    let c = model.config();
    let rows = all.iter().flat_map(|one| &one.name).copied().collect();
    let names = Tensor::from_vec(&[all.len(), c.d_model], rows);
    let of = |head: Head| -> Result<Copies> {
        let logits = model.logits_of_stream(&written_alone(model, head, &names)?)?;
        let mut found = [0usize; 2];
        for (i, &[io, _]) in prompts.names.iter().enumerate() {
            let row = logits.slice(&[i]);
            // Of equal logits none is before another: a head that writes to no logit does not copy.
            let beyond =
                |is: fn(&T, &T) -> bool| row.iter().filter(|x| is(x, &row[io])).count() - 1;
            found[0] += usize::from(beyond(|x, own| x >= own) < TOP);
            found[1] += usize::from(beyond(|x, own| x <= own) < TOP);
        }
        let [copies, suppresses] = found.map(|n| n as f64 / all.len() as f64);
        Ok(Copies { copies, suppresses })
    };
    let heads: Vec<Head> = c.dims().heads().collect();
    match par {
        Par::Seq => heads.into_iter().map(of).collect(),
        Par::Rayon => heads.into_par_iter().map(of).collect(),
    }
}
