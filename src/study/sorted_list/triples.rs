//! Lists with three values close together.

use super::circuits::{Circuits, order};
use super::lab::{Answered, Lab, Shown, draw, mean_of};
use crate::decompose::{Logit, source_attribution};
use crate::error::Result;
use crate::model::Run;
use crate::names::Hook;
use crate::tensor::Tensor;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use serde::Serialize;

/// A number, and the two after it, in lists where the first head might take the second for the third.
///
/// The write-up's four: the list, and which of its values are looked at.
const CLOSE_TRIPLES: [([i64; 10], [i64; 3]); 4] = [
    ([0, 5, 14, 15, 17, 25, 30, 35, 40, 45], [14, 15, 17]),
    ([0, 5, 10, 15, 20, 25, 26, 27, 40, 45], [25, 26, 27]),
    ([0, 5, 10, 15, 20, 25, 30, 31, 32, 45], [30, 31, 32]),
    ([0, 5, 10, 15, 20, 25, 30, 31, 34, 45], [30, 31, 34]),
];

/// Lists drawn for every `d, d + 1, d + 2`.
const DRAWN: usize = 20;

/// Three values close together in a list.
#[derive(Clone, Debug, Serialize)]
pub struct CloseTriple {
    /// The list, in order.
    pub list: Vec<i64>,
    /// The head that copies the second of them.
    pub head: usize,
    /// The three values.
    pub triple: [i64; 3],
    /// The head's attention from the first to the second and the third.
    pub attention: [f64; 2],
    /// `[[y → y, z → y], [y → z, z → z]]`: what the source adds to the logit.
    pub attribution: [[f64; 2]; 2],
}

impl CloseTriple {
    /// Whether each source raises its own logit, attending to the third also raises the second, attending to the second
    /// lowers the third, and the second has more in all.
    pub fn as_told(&self) -> bool {
        let [[yy, zy], [yz, zz]] = self.attribution;
        yy > 0.0 && zz > 0.0 && zy > 0.0 && yz < 0.0 && yy + zy > yz + zz
    }

    /// Whether the first attends at least as much to the third as to the second.
    pub fn further(&self) -> bool {
        self.attention[1] >= self.attention[0]
    }

    fn of(
        lab: &Lab<'_>,
        circuits: &Circuits,
        list: &[i64],
        triple: [i64; 3],
    ) -> Result<CloseTriple> {
        let [x, y, z] = triple;
        let head = circuits.owners[y as usize];
        let tokens = lab.sequences(&[list.to_vec()]);
        let sequence = tokens.sequence(0);
        let out = lab.model.run(&tokens, Run::new().cache("*"))?;
        let place = |value: i64| {
            let mut values = sequence.iter();
            values.position(|&v| v == value).expect("one of the list's")
        };
        let after = sequence[lab.length..].iter().position(|&v| v == x);
        let query = lab.length + after.expect("one of the list's");
        let added = |logit: i64| -> Result<[f64; 2]> {
            let logit = Logit::Of(logit as usize);
            let by_source = source_attribution(&lab.model, &out.cache, 0, logit)?;
            Ok([y, z].map(|source| by_source[[0, head, query, place(source)]]))
        };
        let pattern = out.cache.require(Hook::Pattern(0))?;
        Ok(CloseTriple {
            list: list.to_vec(),
            head,
            triple,
            attention: [y, z].map(|source| pattern[[0, head, query, place(source)]]),
            attribution: [added(y)?, added(z)?],
        })
    }
}

/// Lists with `d`, `d + 1`, `d + 2`, for every `d`, in any order and with any other values.
pub(super) struct DrawnTriples {
    pub on: Answered,
    /// The triples' smallest values.
    pub smallest: Vec<usize>,
    /// The steps after them.
    steps: Vec<usize>,
}

/// What becomes of lists with `d`, `d + 1`, `d + 2`.
#[derive(Clone, Debug, Serialize)]
pub struct Triples {
    /// The write-up's own lists.
    pub published: Vec<CloseTriple>,
    /// These, with the heads' patterns on them.
    pub shown: Shown,
    /// Lists that were drawn.
    pub lists: usize,
    /// The share in which `d` attends at least as much to `d + 2` as to `d + 1`, in the head that copies `d + 1`.
    pub further: f64,
    /// Of these, the share in which the model writes `d + 1` all the same; NaN where there are none.
    pub right: f64,
    /// The mean of `[[y → y, z → y], [y → z, z → z]]` over the lists that were drawn.
    pub attribution: [[f64; 2]; 2],
    /// The share in which it is [as told](CloseTriple::as_told).
    pub as_told: f64,
}

impl DrawnTriples {
    /// `None` where no list has three values.
    pub fn of(lab: &Lab<'_>) -> Result<Option<Self>> {
        if lab.length < 3 || lab.values < lab.length {
            return Ok(None);
        }
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let smallest: Vec<usize> = (0..lab.values - 2)
            .flat_map(|d| std::iter::repeat_n(d, DRAWN))
            .collect();
        let lists: Vec<Vec<i64>> = smallest
            .iter()
            .map(|&d| draw(&mut rng, 0..lab.values, lab.length, &[d, d + 1, d + 2]))
            .collect();
        let step =
            |(list, &d): (&Vec<i64>, &usize)| 1 + list.iter().filter(|&&v| v < d as i64).count();
        Ok(Some(DrawnTriples {
            on: lab.run(&lists)?,
            steps: lists.iter().zip(&smallest).map(step).collect(),
            smallest,
        }))
    }

    /// What is written after the triples' smallest values.
    pub fn written(&self, logits: &Tensor<f64>) -> Vec<usize> {
        let of = |(s, &step): (usize, &usize)| order(logits.slice(&[s, step]))[0];
        self.steps.iter().enumerate().map(of).collect()
    }
}

impl Triples {
    pub(super) fn of(lab: &Lab<'_>, circuits: &Circuits, drawn: &DrawnTriples) -> Result<Self> {
        let fits = |(list, _): &&([i64; 10], [i64; 3])| {
            lab.length == list.len() && list.iter().all(|&v| v < lab.sep())
        };
        let published = CLOSE_TRIPLES.iter().filter(fits);
        let published = published
            .map(|(list, triple)| CloseTriple::of(lab, circuits, list, *triple))
            .collect::<Result<Vec<_>>>()?;
        let of = |s: usize| {
            let d = drawn.smallest[s] as i64;
            let list = &drawn.on.tokens.sequence(s)[..lab.length];
            CloseTriple::of(lab, circuits, list, [d, d + 1, d + 2])
        };
        let each = drawn.on.all().map(of).collect::<Result<Vec<_>>>()?;
        let written = drawn.written(&drawn.on.logits);
        let further = each.iter().zip(written).filter(|(t, _)| t.further());
        let right: Vec<f64> = further
            .map(|(t, written)| f64::from(written as i64 == t.triple[1]))
            .collect();
        let mean = |f: &dyn Fn(&CloseTriple) -> f64| mean_of(each.iter().map(f));
        let lists: Vec<Vec<i64>> = published.iter().map(|t| t.list.clone()).collect();
        let shown = match lists[..] {
            [] => drawn.on.shown(&[0]),
            _ => {
                let on = lab.run(&lists)?;
                on.shown(&on.all().collect::<Vec<_>>())
            }
        };
        Ok(Triples {
            shown,
            lists: each.len(),
            further: right.len() as f64 / each.len() as f64,
            right: mean_of(right),
            attribution: [0, 1].map(|to| [0, 1].map(|from| mean(&|t| t.attribution[to][from]))),
            as_told: mean(&|t| f64::from(t.as_told())),
            published,
        })
    }
}
