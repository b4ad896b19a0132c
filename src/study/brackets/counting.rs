//! The layer-0 head that counts: where it looks, from position alone, and what it copies of the two brackets.

use super::data::{Data, all_of, bracket, open};
use super::directions::Fits;
use super::silence::chosen;
use super::written::{TALLY, Written};
use crate::error::Result;
use crate::intervene::{Change, Intervention, Part, intervene};
use crate::linalg::{Par, cosines, product};
use crate::metric::mean;
use crate::model::{Model, Run, Tokens};
use crate::names::{Head, Hook};
use crate::study::circuit::circuit;
use crate::tensor::Tensor;
use serde::Serialize;
use std::ops::RangeInclusive;

/// How a layer-0 head fares as the one that counts.
#[derive(Clone, Debug, Serialize)]
pub struct Counter {
    /// The head.
    pub head: Head,
    /// How much of what it writes at position 1 follows the share of opening brackets: the variance, summed over the
    /// stream's directions, that a line through that share explains.
    pub follows: f64,
    /// The variance of what it writes there.
    pub variance: f64,
    /// The cosine of `v_L` and `v_R`: what it copies of an opening and of a closing bracket.
    pub cosine: f64,
    /// The lengths of `v_L` and `v_R`.
    pub lengths: [f64; 2],
}

/// Where the counting head looks, and what the neurons read of it.
#[derive(Clone, Debug, Serialize)]
pub struct Counting {
    /// Layer 0's patterns by position.
    pub patterns: Vec<ByPosition>,
    /// How each opening bracket's attention lies, by the counting head: positions 1 on.
    pub suffixes: Vec<Suffix>,
    /// The same of closing brackets.
    pub closing_suffixes: Vec<Suffix>,
    /// The mean attention from position 1, where its query is that of an opening bracket, over balanced sequences of
    /// full length; empty where there are none.
    pub from_tally: Vec<f64>,
    /// How far the pattern of an opening bracket in a sequence of full length is from that by position: half the sum of
    /// the differences, from 0 to 1, averaged; NaN where there are none.
    pub off_by_content: f64,
    /// By layer before the last: the cosine of `v_R` with each neuron's input direction.
    pub neuron_cosines: Vec<Vec<f64>>,
}

/// A layer-0 head's pattern by position: with keys halfway between those of opening and of closing brackets.
#[derive(Clone, Debug, Serialize)]
pub struct ByPosition {
    /// The head.
    pub head: Head,
    /// With the queries of opening brackets, `[position, position]`.
    pub opening: Vec<Vec<f64>>,
    /// With the queries of closing brackets.
    pub closing: Vec<Vec<f64>>,
}

/// How an opening bracket's attention lies on what follows it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Suffix {
    /// The query's position.
    pub position: usize,
    /// Its attention to itself and what follows.
    pub share: f64,
    /// What even attention to all positions would give.
    pub even: f64,
    /// How evenly that attention is spread: as over so much of the suffix (the exponential of the entropy, over the
    /// number of positions).
    pub evenness: f64,
}

/// Layer 0's heads, as counters.
pub(super) fn counters(
    model: &Model<f64>,
    fits: &Fits,
    written: &Written,
    data: &Data,
) -> Result<Vec<Counter>> {
    let starts = data.starting_open();
    let share: Vec<f64> = starts.iter().map(|&s| data.open_share[s]).collect();
    let centre = mean(&share);
    let spread = mean(
        &share
            .iter()
            .map(|p| (p - centre).powi(2))
            .collect::<Vec<_>>(),
    );
    (0..model.config().n_heads)
        .map(|head| {
            let head = Head { layer: 0, head };
            let wrote = written.tally_of(head);
            let (mut follows, mut variance) = (0.0, 0.0);
            for d in 0..model.config().d_model {
                let values: Vec<f64> = starts.iter().map(|&s| wrote[[s, d]]).collect();
                let own = mean(&values);
                let off = || values.iter().map(|x| x - own);
                let with = off().zip(&share).map(|(x, p)| x * (p - centre));
                let covariance = mean(&with.collect::<Vec<_>>());
                variance += mean(&off().map(|x| x * x).collect::<Vec<_>>());
                if spread > 0.0 {
                    follows += covariance * covariance / spread;
                }
            }
            let copied = copied(model, fits, head)?;
            let length = |row: usize| copied.row(row).norm_l2();
            Ok(Counter {
                head,
                follows,
                variance,
                cosine: cosines(
                    copied.as_ref().subrows(0, 1),
                    copied.as_ref().subrows(1, 1),
                    Par::Seq,
                )[(0, 0)],
                lengths: [length(0), length(1)],
            })
        })
        .collect()
}

/// `v_L` and `v_R`, one below the other: the brackets' embeddings through the fitted norm and the head.
fn copied(model: &Model<f64>, fits: &Fits, head: Head) -> Result<faer::Mat<f64>> {
    let (open, close) = (bracket("("), bracket(")"));
    let embeddings = circuit(model, &format!("[W_E[{open}]; W_E[{close}]]"))?;
    let normed = product(embeddings.rows(), fits.first.coefficients.as_ref());
    Ok(product(
        normed.as_ref(),
        circuit(model, &format!("W_OV[{head}]"))?.rows(),
    ))
}

impl Counting {
    pub(super) fn new(
        model: &Model<f64>,
        fits: &Fits,
        head: Head,
        data: &Data,
        par: Par,
    ) -> Result<Self> {
        let config = model.config();
        let (q, k, pattern) = (Hook::Q(0), Hook::K(0), Hook::Pattern(0));
        let run = |tokens: &Tokens| model.run(tokens, Run::new().par(par).cache(q).cache(k));
        let (all_open, all_close) = (all_of("("), all_of(")"));
        let (opens, closes) = (run(&all_open)?, run(&all_close)?);
        let halfway = opens.cache[k].data().iter().zip(closes.cache[k].data());
        let halfway: Vec<f64> = halfway.map(|(a, b)| (a + b) / 2.0).collect();
        let set = |hook, values| vec![Intervention::new(hook, Part::all(), Change::Set(values))];
        let patched = |tokens: &Tokens, change: &[Intervention]| -> Result<Tensor<f64>> {
            let run = Run::new().par(par).cache(pattern);
            let run = intervene(run, model, tokens, change, None)?;
            let mut out = model.run(tokens, run)?;
            Ok(std::mem::replace(
                out.cache.get_mut(pattern).expect("it was asked for"),
                Tensor::zeros(&[0]),
            ))
        };
        let average_keys = set(k, halfway);
        let [from_opening, from_closing] = [
            patched(&all_open, &average_keys)?,
            patched(&all_close, &average_keys)?,
        ];
        let patterns = (0..config.n_heads).map(|own| {
            let rows = |all: &Tensor<f64>| {
                let row = |query| all.slice(&[0, own, query]).to_vec();
                (0..config.n_ctx).map(row).collect()
            };
            ByPosition {
                head: Head {
                    layer: 0,
                    head: own,
                },
                opening: rows(&from_opening),
                closing: rows(&from_closing),
            }
        });
        let patterns: Vec<ByPosition> = patterns.collect();
        let ByPosition {
            opening, closing, ..
        } = &patterns[head.head];

        // Sequences without padding, which the patterns above are of.
        let full = data.full();
        let balanced: Vec<usize> = full.iter().copied().filter(|&s| data.balanced[s]).collect();
        let mut from_tally = Vec::new();
        if !balanced.is_empty() {
            let with_queries = set(q, opens.cache[q].data().to_vec());
            let patterns = patched(&chosen(data, &balanced), &with_queries)?;
            from_tally = (0..config.n_ctx)
                .map(|key| {
                    let all = (0..balanced.len()).map(|s| patterns[[s, head.head, TALLY, key]]);
                    mean(&all.collect::<Vec<_>>())
                })
                .collect();
        }
        let mut off = Vec::new();
        if !full.is_empty() {
            let own = patched(&chosen(data, &full), &[])?;
            for (i, &s) in full.iter().enumerate() {
                for (query, &token) in data.tokens.sequence(s).iter().enumerate() {
                    if token == open() {
                        let there = own.slice(&[i, head.head, query]);
                        let apart = there.iter().zip(&opening[query]);
                        off.push(apart.map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0);
                    }
                }
            }
        }
        let [suffixes, closing_suffixes] = [opening, closing].map(|pattern| {
            let each = (TALLY..config.n_ctx - 1).map(|p| Suffix::new(p, &pattern[p]));
            each.collect()
        });
        let v_R = copied(model, fits, head)?;
        let neuron_cosines = (0..config.n_layers - 1)
            .map(|layer| {
                let W_in = circuit(model, &format!("W_in[{layer}]"))?;
                let table = cosines(
                    v_R.as_ref().subrows(1, 1),
                    W_in.rows().transpose(),
                    Par::Seq,
                );
                Ok(table.row(0).iter().copied().collect())
            })
            .collect::<Result<_>>()?;
        Ok(Counting {
            suffixes,
            closing_suffixes,
            patterns,
            from_tally,
            off_by_content: mean(&off),
            neuron_cosines,
        })
    }

    /// The pattern of one head.
    pub fn pattern(&self, head: Head) -> &ByPosition {
        let found = self.patterns.iter().find(|p| p.head == head);
        found.expect("a head of layer 0")
    }

    /// By layer before the last: the mean of the squared cosines of `v_R` with the neurons' input directions.
    pub fn mean_squared_cosines(&self) -> Vec<f64> {
        let squares = |cosines: &Vec<f64>| mean(&cosines.iter().map(|c| c * c).collect::<Vec<_>>());
        self.neuron_cosines.iter().map(squares).collect()
    }
}

impl ByPosition {
    /// The mean attention from opening brackets at some positions to some keys, and what it would be if even over each
    /// one's suffix.
    pub fn to_keys(&self, queries: RangeInclusive<usize>, keys: RangeInclusive<usize>) -> [f64; 2] {
        let attention = |q: usize| self.opening[q][keys.clone()].iter().sum::<f64>();
        let even = |q: usize| keys.clone().count() as f64 / (self.opening[q].len() - q) as f64;
        let over = |f: &dyn Fn(usize) -> f64| mean(&queries.clone().map(f).collect::<Vec<_>>());
        [over(&attention), over(&even)]
    }
}

impl Suffix {
    fn new(position: usize, attention: &[f64]) -> Self {
        let suffix = &attention[position..];
        let share: f64 = suffix.iter().sum();
        let entropy: f64 = (suffix.iter().map(|a| a / share))
            .filter(|p| *p > 0.0)
            .map(|p| -p * p.ln())
            .sum();
        Suffix {
            position,
            share,
            even: suffix.len() as f64 / attention.len() as f64,
            evenness: entropy.exp() / suffix.len() as f64,
        }
    }
}
