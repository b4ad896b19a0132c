//! Sorted lists: a one-layer attention-only model that repeats a list of ten numbers in order.
//!
//! Each number attends to the smallest one above it, and copies it; the two heads share the numbers out
//! between them.
//!
//! Source: the published solutions of the October 2023 monthly algorithmic challenge of mechanistic
//! interpretability ("Sorted lists").

mod story;

use super::circuit::{circuit, circuits, rows};
use super::data::Folder;
use super::{Origin, Progress, Set};
use crate::decompose::{self, Logit, direct_logit_attribution, residual_stack, source_attribution};
use crate::error::{Error, Result};
use crate::intervene::{By, Change, Grid, Over, Scope, Site, Sweep};
use crate::metric::{Answers, Standard, mean, per_sequence};
use crate::model::process::Step;
use crate::model::{Model, Run, Tokens};
use crate::names::{Head, Hook};
use crate::task::{SortedLists, Task};
use crate::tensor::Tensor;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use std::path::Path;

/// A number, and the two after it, in lists where the first head might take the second for the third.
///
/// The write-up's four: the list, and which of its values are looked at.
const CLOSE_TRIPLES: [([i64; 10], [i64; 3]); 4] = [
    ([0, 5, 14, 15, 17, 25, 30, 35, 40, 45], [14, 15, 17]),
    ([0, 5, 10, 15, 20, 25, 26, 27, 40, 45], [25, 26, 27]),
    ([0, 5, 10, 15, 20, 25, 30, 31, 32, 45], [30, 31, 32]),
    ([0, 5, 10, 15, 20, 25, 30, 31, 34, 45], [30, 31, 34]),
];

/// The value whose attention the write-up shows.
const SHOWN: usize = 25;

/// Parts that [`study`] reports as it goes.
pub const PARTS: usize = 3;

/// Lists of each adversarial kind that are tried.
const TRIED: usize = 200;

/// The sequences that the study looks at.
#[derive(Clone, Debug)]
pub struct Data {
    /// A list, the separator, the list in order.
    pub dataset: Set<Tokens>,
}

impl Data {
    /// Lists generated with a fixed seed.
    pub fn generated() -> Self {
        const SEQUENCES: usize = 2000;
        Data {
            dataset: Set::generated(SortedLists::default().tokens(SEQUENCES, 0)),
        }
    }

    /// Sequences of one's own.
    pub fn of(tokens: Tokens) -> Self {
        Data {
            dataset: Set::given(tokens),
        }
    }

    /// The dataset of a folder, `tokens` of `dataset.safetensors`.
    ///
    /// # Errors
    /// When it is not there or not readable.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        const SET: &str = "dataset";
        let folder = Folder::open(folder.as_ref(), &[SET])?;
        Ok(Data::of(
            folder.tokens(SET, "tokens")?.expect("it is there"),
        ))
    }
}

/// What the study of a sorted-list model found.
#[derive(Clone, Debug, Serialize)]
pub struct SortedListStudy {
    /// Where the sequences come from.
    pub origin: Origin,
    /// The values that are sorted, `0..values`; the separator comes after them.
    pub values: usize,
    /// The list's length.
    pub length: usize,
    /// How well the model does.
    pub performance: Performance,
    /// One sequence, and the probability of every token at each position that predicts.
    pub example: Example,
    /// How much the loss rises with each head's result replaced by its mean.
    pub ablations: Vec<(String, f64)>,
    /// `W_E W_OV[h] W_U` of each head.
    pub ov_full: Vec<Vec<Vec<f64>>>,
    /// `W_E W_QK[h] W_E^T` of each head.
    pub qk_full: Vec<Vec<Vec<f64>>>,
    /// `W_pos W_QK[h] W_E^T` of each head.
    pub qk_pos_emb: Vec<Vec<Vec<f64>>>,
    /// `W_E W_U`.
    pub direct_path: Vec<Vec<f64>>,
    /// How far apart each component pushes the logits, where answers are read: the standard deviation of what it adds
    /// directly, averaged.
    pub pushes: Vec<(String, f64)>,
    /// For each value the head that copies it most, by the diagonal of `ov_full`.
    pub owners: Vec<usize>,
    /// The value whose attention is shown, the head that copies it, and the two tokens it attends to most.
    pub attention: Attention,
    /// Whether each head prefers, of all values above a number, those just above it.
    pub next_above: Vec<NextAbove>,
    /// How the model does on lists that are hard by the circuit.
    pub adversarial: Vec<Adversarial>,
    /// Direct logit attributions in lists with three values close together.
    pub close_triples: Vec<CloseTriple>,
}

/// How well a model sorts.
#[derive(Clone, Debug, Serialize)]
pub struct Performance {
    /// Sequences it was measured on.
    pub sequences: usize,
    /// Mean cross-entropy.
    pub loss: f64,
    /// Share of right answers.
    pub accuracy: f64,
    /// Mean probability of the right token.
    pub mean: f64,
    /// Its median: the lower of the two middle values.
    pub median: f64,
    /// Its smallest value.
    pub min: f64,
}

/// One prediction.
#[derive(Clone, Debug, Serialize)]
pub struct Example {
    /// The sequence.
    pub tokens: Vec<i64>,
    /// The first position that predicts.
    pub first: usize,
    /// `[position, token]`
    pub probabilities: Vec<Vec<f64>>,
}

/// What one value attends to.
#[derive(Clone, Debug, Serialize)]
pub struct Attention {
    /// The value.
    pub value: usize,
    /// The head that copies it.
    pub head: usize,
    /// Its row of `qk_full`.
    pub scores: Vec<f64>,
    /// The two values with the largest scores.
    pub top2: [usize; 2],
}

/// How a head's scores fall off above a number.
#[derive(Clone, Debug, Serialize)]
pub struct NextAbove {
    /// The head.
    pub head: usize,
    /// Of its own values, pairs `x < y < z` with `y` above `x` by at most five and `z` by more: the share in
    /// which `y` scores higher.
    pub share: f64,
    /// And of pairs `y < x < z`: the share in which the value above scores higher than the one below.
    pub above_below: f64,
}

/// A kind of lists, and how the model does on them.
#[derive(Clone, Debug, Serialize)]
pub struct Adversarial {
    /// What the lists have in common.
    pub kind: String,
    /// How many were tried.
    pub lists: usize,
    /// Mean probability of the right token.
    pub mean: f64,
    /// The worst list, and the position of the worst prediction in it.
    pub worst: Vec<i64>,
    /// That prediction's position.
    pub position: usize,
    /// The right token's probability there.
    pub probability: f64,
    /// The token predicted instead.
    pub predicted: usize,
}

/// Three values close together in a list.
#[derive(Clone, Debug, Serialize)]
pub struct CloseTriple {
    /// The list, in order.
    pub list: Vec<i64>,
    /// The head that copies the second and third of them.
    pub head: usize,
    /// The three values.
    pub triple: [i64; 3],
    /// `[[y → y, z → y], [y → z, z → z]]`: what the source adds to the logit.
    pub attribution: [[f64; 2]; 2],
}

/// Studies a sorted-list model on sequences of its task: a list, the separator, the list in order.
///
/// # Errors
/// When the model or the sequences are not of the task.
pub fn study(model: &Model<f64>, data: &Data, progress: Progress<'_>) -> Result<SortedListStudy> {
    let tokens = &data.dataset.sequences;
    progress("answers");
    let mut model = model.clone();
    for step in Step::DEFAULT {
        step.apply(&mut model)?;
    }
    let model = &model;
    let c = model.config();
    let (pos, values) = (tokens.pos(), c.d_vocab - 1);
    let refused = |what: String| Err(Error::Request(format!("the study of sorted lists: {what}")));
    if c.n_layers != 1 || !c.attn_only || c.d_vocab_out != c.d_vocab {
        return refused("expected one layer of heads alone, and a logit for every token".into());
    }
    let length = pos / 2;
    let is_of_task = |s: &[i64]| {
        let mut sorted = s[..length].to_vec();
        sorted.sort_unstable();
        pos % 2 == 1 && s[length] == values as i64 && s[length + 1..] == sorted
    };
    if let Some(i) = (0..tokens.batch()).find(|&i| !is_of_task(tokens.sequence(i))) {
        return refused(format!(
            "sequence {i} is not a list, the separator {values}, and the list in order"
        ));
    }
    let positions: Vec<usize> = (length..pos - 1).collect();
    let answers = Answers::next_tokens(tokens, &positions)?;
    let out = model.run(tokens, Run::new())?;
    let at_answers = answers.rows_of(&out.logits);

    let change = Change::Mean(Over::Sequences);
    let grid = Grid::new(
        c,
        pos,
        Site::Result,
        &[By::Head],
        &Scope::default(),
        &change,
    )?;
    let ablated = Sweep::new(model, tokens, &answers, &Standard::Loss).run(&grid)?;
    let rise = |v: &Option<f64>| v.expect("no shards") - ablated.clean;
    let ablations = ablated.axes[0]
        .labels
        .iter()
        .cloned()
        .zip(ablated.values.iter().map(rise));

    progress("circuits");
    let per_head = |expression: &str| -> Result<Vec<Vec<Vec<f64>>>> {
        Ok(circuits(model, expression)?.iter().map(rows).collect())
    };
    let ov_full = per_head("W_E W_OV[0.*] W_U")?;
    let qk_full = per_head("W_E W_QK[0.*] W_E^T")?;
    let owner = |v: usize| {
        (1..c.n_heads).fold(0, |best, h| {
            if ov_full[h][v][v] > ov_full[best][v][v] {
                h
            } else {
                best
            }
        })
    };
    let owners: Vec<usize> = (0..values).map(owner).collect();
    let shown = SHOWN.min(values - 1);
    let scores = qk_full[owners[shown]][shown].clone();
    progress("hard lists");
    Ok(SortedListStudy {
        origin: data.dataset.origin,
        values,
        length,
        performance: performance(&answers, &at_answers),
        example: example(tokens.sequence(0), &at_answers, length),
        ablations: ablations.collect(),
        qk_pos_emb: per_head("W_pos W_QK[0.*] W_E^T")?,
        direct_path: rows(&circuit(model, "W_E W_U")?),
        pushes: pushes(model, tokens, &positions)?,
        attention: Attention {
            value: shown,
            head: owners[shown],
            top2: top2(&scores[..values]),
            scores,
        },
        next_above: (0..c.n_heads)
            .map(|h| next_above(h, &owners, &qk_full[h]))
            .collect(),
        adversarial: adversarial(model, values, length)?,
        close_triples: close_triples(model, values, length, &owners)?,
        ov_full,
        qk_full,
        owners,
    })
}

/// Sequences whose components are taken apart.
const TAKEN_APART: usize = 100;

fn pushes(model: &Model<f64>, tokens: &Tokens, positions: &[usize]) -> Result<Vec<(String, f64)>> {
    let tokens = tokens.clone().truncate(TAKEN_APART);
    let out = model.run(&tokens, Run::new().cache("*"))?;
    let stack = residual_stack(model, &out.cache, Hook::ResidPost(0), decompose::By::Head)?;
    let logits: Vec<Logit<'_, f64>> = (0..model.config().d_vocab_out).map(Logit::Of).collect();
    let parts = direct_logit_attribution(model, &out.cache, stack, &logits)?;
    let of = |(i, label): (usize, &decompose::Component)| {
        let places = (0..tokens.batch()).flat_map(|b| positions.iter().map(move |&p| (b, p)));
        let spreads: Vec<f64> = places
            .map(|(b, p)| spread(parts.values.slice(&[i, b, p])))
            .collect();
        (label.to_string(), mean(&spreads))
    };
    Ok(parts.labels.iter().enumerate().map(of).collect())
}

/// The standard deviation of some values.
fn spread(values: &[f64]) -> f64 {
    let middle = mean(values);
    let squares: Vec<f64> = values.iter().map(|x| (x - middle) * (x - middle)).collect();
    mean(&squares).sqrt()
}

fn performance(answers: &Answers, logits: &Tensor<f64>) -> Performance {
    let of = |metric| mean(&per_sequence(&metric, answers, logits));
    let mut p = probabilities(answers, logits);
    p.sort_by(f64::total_cmp);
    Performance {
        sequences: answers.batch(),
        loss: of(Standard::Loss),
        accuracy: of(Standard::Accuracy),
        mean: mean(&p),
        median: p[(p.len() - 1) / 2],
        min: p[0],
    }
}

/// The right token's probability, answer by answer.
fn probabilities(answers: &Answers, logits: &Tensor<f64>) -> Vec<f64> {
    use crate::metric::Metric;
    let d = logits.shape()[2];
    let each = answers.positions().len();
    let rows = logits.data().chunks_exact(d).enumerate();
    let of = |(i, row): (usize, &[f64])| {
        Standard::RightProbability.of(&answers.get(i / each, i % each), row)
    };
    rows.map(of).collect()
}

fn example(sequence: &[i64], logits: &Tensor<f64>, first: usize) -> Example {
    let d = logits.shape()[2];
    let softmax = |row: &[f64]| {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = row.iter().map(|x| (x - max).exp()).sum();
        row.iter().map(|x| (x - max).exp() / total).collect()
    };
    Example {
        tokens: sequence.to_vec(),
        first,
        probabilities: logits.slice(&[0]).chunks_exact(d).map(softmax).collect(),
    }
}

fn top2(scores: &[f64]) -> [usize; 2] {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&i, &j| scores[j].total_cmp(&scores[i]));
    [order[0], order[1]]
}

/// How far above a number a value may be to count as just above it.
const JUST_ABOVE: usize = 5;

fn next_above(head: usize, owners: &[usize], scores: &[Vec<f64>]) -> NextAbove {
    let own: Vec<usize> = (0..owners.len()).filter(|&v| owners[v] == head).collect();
    let (mut near, mut of_near, mut above, mut of_above) = (0, 0, 0, 0);
    for (x, row) in scores.iter().enumerate().take(owners.len()) {
        for &y in &own {
            for &z in own.iter().filter(|&&z| z > x) {
                if y > x && y <= x + JUST_ABOVE && z > x + JUST_ABOVE {
                    of_near += 1;
                    near += usize::from(row[y] > row[z]);
                } else if y < x {
                    of_above += 1;
                    above += usize::from(row[z] > row[y]);
                }
            }
        }
    }
    let share = |n: usize, of: usize| n as f64 / of.max(1) as f64;
    NextAbove {
        head,
        share: share(near, of_near),
        above_below: share(above, of_above),
    }
}

/// Lists on which the circuit has little to go by: a large jump from one value to the next, and values all at the
/// upper end.
fn adversarial(model: &Model<f64>, values: usize, length: usize) -> Result<Vec<Adversarial>> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut draw = |from: usize, to: usize, n: usize| -> Vec<i64> {
        (0..n).map(|_| rng.random_range(from..to) as i64).collect()
    };
    let half = length / 2;
    let (low, high) = (values / 5, values - values / 5);
    let mut kinds: Vec<(&str, Vec<Vec<i64>>)> = Vec::new();
    kinds.push((
        "any values",
        (0..TRIED).map(|_| draw(0, values, length)).collect(),
    ));
    let jump = |_| [draw(0, low, half), draw(high, values, length - half)].concat();
    kinds.push(("a large jump", (0..TRIED).map(jump).collect()));
    kinds.push((
        "all large",
        (0..TRIED).map(|_| draw(high, values, length)).collect(),
    ));
    kinds
        .into_iter()
        .map(|(kind, lists)| tried(model, values, kind, &lists))
        .collect()
}

/// Probabilities of the right tokens on lists.
fn tried(model: &Model<f64>, values: usize, kind: &str, lists: &[Vec<i64>]) -> Result<Adversarial> {
    let length = lists[0].len();
    let sequence = |list: &Vec<i64>| {
        let mut sorted = list.clone();
        sorted.sort_unstable();
        [&list[..], &[values as i64], &sorted].concat()
    };
    let tokens = Tokens::from_rows(&lists.iter().map(sequence).collect::<Vec<_>>());
    let positions: Vec<usize> = (length..2 * length).collect();
    let answers = Answers::next_tokens(&tokens, &positions)?;
    let logits = answers.rows_of(&model.logits(&tokens)?);
    let p = probabilities(&answers, &logits);
    let worst = (0..p.len()).fold(0, |worst, i| if p[i] < p[worst] { i } else { worst });
    let (list, index) = (worst / length, worst % length);
    let row = logits.slice(&[list, index]);
    Ok(Adversarial {
        kind: kind.into(),
        lists: lists.len(),
        mean: mean(&p),
        worst: tokens.sequence(list).to_vec(),
        position: positions[index],
        probability: p[worst],
        predicted: top2(row)[0],
    })
}

fn close_triples(
    model: &Model<f64>,
    values: usize,
    length: usize,
    owners: &[usize],
) -> Result<Vec<CloseTriple>> {
    let fits = |(list, _): &&([i64; 10], [i64; 3])| {
        length == list.len() && list.iter().all(|&v| v < values as i64)
    };
    let of = |(list, triple): &([i64; 10], [i64; 3])| {
        let [x, y, z] = *triple;
        let head = Head {
            layer: 0,
            head: owners[y as usize],
        };
        let sequence = [&list[..], &[values as i64], list].concat();
        let out = model.run(&Tokens::from_rows(&[sequence]), Run::new().cache("*"))?;
        let place = |value: i64| {
            list.iter()
                .position(|&v| v == value)
                .expect("one of the list's")
        };
        let query = length + 1 + place(x);
        let added = |source: i64, logit: i64| -> Result<f64> {
            let by_source = source_attribution(model, &out.cache, 0, Logit::Of(logit as usize))?;
            Ok(by_source[[0, head.head, query, place(source)]])
        };
        Ok(CloseTriple {
            list: list.to_vec(),
            head: head.head,
            triple: *triple,
            attribution: [[added(y, y)?, added(z, y)?], [added(y, z)?, added(z, z)?]],
        })
    };
    CLOSE_TRIPLES.iter().filter(fits).map(of).collect()
}
