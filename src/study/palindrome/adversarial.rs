//! Sequences that fool the model: those in the dataset, one palindrome changed at one place, four that were published,
//! and new ones, looked for where the weights are weak.

use super::lab::{Lab, OTHER, PALINDROME};
use super::vectors::Vectors;
use crate::error::Result;
use crate::metric::Standard;
use crate::model::Tokens;
use crate::task::Task;
use serde::Serialize;

/// The second write-up's four sequences that are no palindromes.
const FOUR: [&str; 4] = [
    "1 2 3 4 5 6 7 8 9 10 10 9 8 7 6 5 4 3 15 1",
    "1 2 3 15 5 6 7 8 9 10 10 9 8 7 6 5 4 3 2 1",
    "1 2 3 3 3 6 7 8 9 10 10 9 8 7 6 3 3 3 2 3",
    "1 2 3 4 5 6 7 8 9 10 10 9 8 7 6 5 15 3 15 1",
];

/// Sequences that are broken at the same positions, and how many of them fool the model.
const TRIED: usize = 200;

/// A sequence, and what the model makes of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judged {
    /// The sequence.
    pub tokens: Vec<i64>,
    /// The second half's positions whose values are not their mirrors'.
    pub broken: Vec<usize>,
    /// The probability of a palindrome that the model gives it.
    pub p_palindrome: f64,
}

/// Palindromes broken at certain positions only.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Broken {
    /// The second half's positions at which they were broken.
    pub positions: Vec<usize>,
    /// How many were made.
    pub tried: usize,
    /// How many of them the model takes for palindromes.
    pub fooled: usize,
}

impl Broken {
    /// The share of those that the model takes for palindromes.
    pub fn rate(&self) -> f64 {
        self.fooled as f64 / self.tried as f64
    }
}

/// What fools the model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Adversarial {
    /// Palindromes broken at one position of the second half, each.
    pub single: Vec<Broken>,
    /// The positions where that fools the model more often than not.
    pub blind: Vec<usize>,
    /// The dataset's sequences that the model is wrong on, by their places there.
    pub natural: Vec<(usize, Judged)>,
    /// The dataset's sequences by kind: wrong and broken at blind positions only; wrong otherwise; right though
    /// broken at blind positions only.
    pub counts: [usize; 3],
    /// How many of the dataset's wrong answers are broken at weak positions only: those that the weights foretell.
    pub foreseen: usize,
    /// The share of sequences, drawn as the task draws those that are to be broken, that are broken at blind positions
    /// only.
    pub only_blind: f64,
    /// A palindrome of the dataset, then the same with one added to the value at each position of the second half.
    pub flipped: Vec<Judged>,
    /// The four that were published.
    pub four: Vec<Judged>,
    /// Palindromes broken at several weak positions at once.
    pub several: Vec<Broken>,
    /// Some that were found, verified to be no palindromes and not to be in the dataset; one for each way to break them
    /// first.
    pub found: Vec<Judged>,
}

impl Adversarial {
    pub(super) fn of(lab: &Lab<'_>, vectors: &Vectors) -> Result<Self> {
        let mut found = Vec::new();
        let second_half: Vec<usize> = lab.second_half().collect();
        let mut single = Vec::new();
        for &p in &second_half {
            let (broken, fooling) = breaking(lab, &[p])?;
            if vectors.weak.contains(&p) {
                found.extend(fooling.into_iter().take(2));
            }
            single.push(broken);
        }
        let blind = single.iter().filter(|b| b.rate() > 0.5);
        let blind: Vec<usize> = blind.flat_map(|b| b.positions.clone()).collect();
        let mut several = Vec::new();
        for positions in together(&vectors.weak) {
            let (broken, fooling) = breaking(lab, &positions)?;
            found.extend(fooling.into_iter().take(1));
            several.push(broken);
        }

        let dataset = &lab.data.dataset.sequences;
        let right = lab.per_sequence(&dataset.tokens, &dataset.answers, &Standard::Accuracy)?;
        let wrong: Vec<usize> = (0..right.len()).filter(|&s| right[s] < 1.0).collect();
        let judged = judge(lab, &dataset.select(&wrong).tokens)?;
        let only_at = |broken: &[usize], these: &[usize]| {
            !broken.is_empty() && broken.iter().all(|p| these.contains(p))
        };
        let blindly = |broken: &[usize]| only_at(broken, &blind);
        let foreseen = judged.iter().filter(|j| only_at(&j.broken, &vectors.weak));
        let foreseen = foreseen.count();
        // Of every pair a coin tells whether its value is drawn anew, which may come out as it was.
        let values = lab.task.start() as f64;
        let whole = 0.5 + 0.5 / values;
        let elsewhere = whole.powi((second_half.len() - blind.len()) as i32);
        let only_blind = elsewhere * (1.0 - whole.powi(blind.len() as i32));
        let mut counts = [0; 3];
        for (s, &right) in right.iter().enumerate() {
            match (
                right < 1.0,
                blindly(&lab.broken(dataset.tokens.sequence(s))),
            ) {
                (true, true) => counts[0] += 1,
                (true, false) => counts[1] += 1,
                (false, true) => counts[2] += 1,
                (false, false) => {}
            }
        }

        let palindrome = lab.classes().iter().position(|&c| c == PALINDROME);
        let palindrome = palindrome.expect("the dataset has palindromes");
        let palindrome = dataset.tokens.sequence(palindrome).to_vec();
        let mut flipped = vec![palindrome.clone()];
        for &p in &second_half {
            let mut sequence = palindrome.clone();
            sequence[p] = (sequence[p] + 1) % lab.task.start();
            flipped.push(sequence);
        }
        let four = FOUR.iter().map(|text| lab.task.parse(text));
        let four = Tokens::from_rows(&four.collect::<Result<Vec<_>>>()?);
        Ok(Adversarial {
            single,
            blind,
            natural: wrong.into_iter().zip(judged).collect(),
            counts,
            foreseen,
            only_blind,
            flipped: judge(lab, &Tokens::from_rows(&flipped))?,
            four: judge(lab, &four)?,
            several,
            found: found
                .into_iter()
                .filter(|j| (0..dataset.batch()).all(|s| dataset.tokens.sequence(s) != j.tokens))
                .collect(),
        })
    }

    /// The share of palindromes broken at one position of the second half that fools the model, in order.
    pub fn rates(&self) -> Vec<f64> {
        self.single.iter().map(Broken::rate).collect()
    }
}

/// Pairs of weak positions, and all of them; those that are weak alone were tried one by one.
fn together(weak: &[usize]) -> Vec<Vec<usize>> {
    let mut sets = Vec::new();
    for (n, &p) in weak.iter().enumerate() {
        sets.extend(weak[n + 1..].iter().map(|&q| vec![p, q]));
    }
    if weak.len() > 2 {
        sets.push(weak.to_vec());
    }
    sets
}

/// Palindromes broken at these positions; and those of them that fool the model, each no palindrome indeed.
fn breaking(lab: &Lab<'_>, positions: &[usize]) -> Result<(Broken, Vec<Judged>)> {
    let seed = positions.iter().fold(0, |seed, &p| seed * 100 + p as u64);
    let sequences = lab.task.broken_at(positions, TRIED, seed)?.broken;
    let mut fooling = judge(lab, &sequences.tokens)?;
    fooling.retain(|j| j.p_palindrome > 0.5 && lab.task.solve(&j.tokens) == [OTHER]);
    let broken = Broken {
        positions: positions.to_vec(),
        tried: sequences.batch(),
        fooled: fooling.len(),
    };
    Ok((broken, fooling))
}

fn judge(lab: &Lab<'_>, tokens: &Tokens) -> Result<Vec<Judged>> {
    if tokens.batch() == 0 {
        return Ok(Vec::new());
    }
    let p = lab.p_palindrome(tokens)?;
    let judged = p.into_iter().enumerate().map(|(s, p_palindrome)| Judged {
        tokens: tokens.sequence(s).to_vec(),
        broken: lab.broken(tokens.sequence(s)),
        p_palindrome,
    });
    Ok(judged.collect())
}
