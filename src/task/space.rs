//! All inputs of a task: which they are, how many, and each by its number.

use super::Vocabulary;
use crate::error::{Error, Result};
use crate::model::Tokens;
use std::ops::RangeInclusive;

/// What a person chooses of an input; the rest of the sequence follows from it by the [`InputPart`]s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Values {
    /// One of a set of tokens at each place: `product of the sets' sizes` inputs.
    Product(Vec<Vec<i64>>),
    /// Ordered lists of `len` distinct tokens of a pool: `n (n - 1) … (n - len + 1)`.
    Distinct {
        /// The tokens there are.
        pool: Vec<i64>,
        /// How many a list has.
        len: usize,
    },
    /// All strings over an alphabet, of each of these lengths.
    Strings {
        /// The tokens there are.
        alphabet: Vec<i64>,
        /// How many a string has.
        lengths: RangeInclusive<usize>,
    },
    /// `2 pairs` tokens of which the `i`-th from the front and the `i`-th from the back are the same, but for exactly
    /// `broken` pairs: `C(pairs, broken) n^pairs (n - 1)^broken`.
    Mirrored {
        /// The tokens there are.
        alphabet: Vec<i64>,
        /// Half the length.
        pairs: usize,
        /// How many pairs differ.
        broken: usize,
    },
    /// Sequences one by one, as the model sees them.
    Listed(Tokens),
}

/// What stands at a place of the sequence that the model sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputPart {
    /// Always this token.
    Fixed(i64),
    /// The value of this index.
    Value(usize),
    /// The value of this rank, the smallest being 0.
    Sorted(usize),
    /// All values, in their order, however many there are.
    All,
}

/// A set of inputs: its size as an exact integer, and each input by its number.
///
/// ```
/// use pathsum::task::{InputPart, InputSpace, Values};
/// let values = Values::Distinct { pool: (0..51).collect(), len: 10 };
/// let space = InputSpace::new(values, vec![InputPart::All, InputPart::Fixed(51)], None)?;
/// assert_eq!(space.size(), 46_367_760_833_856_000); // 51!/41!
/// assert_eq!(space.sequence(0), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 51]);
/// # Ok::<(), pathsum::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputSpace {
    values: Values,
    parts: Vec<InputPart>,
    pad: Option<(i64, usize)>,
    size: u128,
}

/// A part of a space that is asked for, as `tokens=0-3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restriction {
    /// Only these tokens as values.
    Tokens(Vec<i64>),
    /// Only strings of these lengths.
    Lengths(RangeInclusive<usize>),
    /// Only those that read the same from both ends, but for so many pairs.
    Broken(usize),
}

impl Restriction {
    /// Reads restrictions with `;` between them: `tokens=` names of tokens with blanks or commas between them, or
    /// ranges of numbers as `0-3`; `length=` one or a range, as `18` or `2-18`; `mirrored`; `broken=` how many pairs.
    ///
    /// # Errors
    /// When there is another word, or a value that cannot be one.
    pub fn parse(spec: &str, vocabulary: &Vocabulary) -> Result<Vec<Restriction>> {
        let parts = spec.split(';').map(str::trim).filter(|s| !s.is_empty());
        parts
            .map(|part| Self::parse_one(part, vocabulary))
            .collect()
    }

    fn parse_one(part: &str, vocabulary: &Vocabulary) -> Result<Restriction> {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let wrong = |expected: &str| {
            Err(Error::Experiment(format!(
                "space `{part}`: expected {expected}"
            )))
        };
        let range = |value: &str| -> Option<RangeInclusive<usize>> {
            let (first, last) = value.split_once('-').unwrap_or((value, value));
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (first <= last).then_some(first..=last)
        };
        match key.trim() {
            "tokens" => {
                let mut tokens = Vec::new();
                let words = value.split(|c: char| c.is_whitespace() || c == ',');
                for word in words.filter(|w| !w.is_empty()) {
                    match (vocabulary.token(word), range(word)) {
                        (Ok(token), _) => tokens.push(token),
                        (Err(_), Some(range)) => {
                            let (first, last) = (range.start(), range.end());
                            let first = vocabulary.token(&first.to_string())?;
                            let last = vocabulary.token(&last.to_string())?;
                            tokens.extend(first..=last);
                        }
                        (Err(e), None) => return Err(e),
                    }
                }
                tokens.sort_unstable();
                tokens.dedup();
                match tokens.is_empty() {
                    true => wrong("names of tokens, as tokens=0-3"),
                    false => Ok(Restriction::Tokens(tokens)),
                }
            }
            "length" => match range(value) {
                Some(lengths) => Ok(Restriction::Lengths(lengths)),
                None => wrong("a length or a range of them, as length=2-18"),
            },
            "mirrored" if value.is_empty() => Ok(Restriction::Broken(0)),
            "broken" => match value.trim().parse() {
                Ok(pairs) => Ok(Restriction::Broken(pairs)),
                Err(_) => wrong("a number of pairs, as broken=1"),
            },
            _ => wrong("tokens=…, length=…, mirrored or broken=…"),
        }
    }
}

impl InputSpace {
    /// The inputs of these values, each a sequence of these parts; behind those that come out shorter stands a token
    /// until they have a length: `pad`.
    ///
    /// # Errors
    /// When there are more inputs than 2^128, or a part names a value that not every input has.
    pub fn new(
        values: Values,
        parts: Vec<InputPart>,
        pad: Option<(i64, usize)>,
    ) -> Result<InputSpace> {
        let Some(size) = values.size() else {
            return Err(Error::TooMany {
                found: u128::MAX,
                most: u128::MAX,
                message: "the space has more than 2^128 inputs".into(),
            });
        };
        let fewest = *values.lengths().start();
        let beyond = |part: &InputPart| match *part {
            InputPart::Value(i) | InputPart::Sorted(i) => i >= fewest,
            InputPart::Fixed(_) | InputPart::All => false,
        };
        if let Some(part) = parts.iter().find(|part| beyond(part)) {
            return Err(Error::Experiment(format!(
                "{part:?}: an input of this space has {fewest} values or more"
            )));
        }
        Ok(InputSpace {
            values,
            parts,
            pad,
            size,
        })
    }

    /// Sequences one by one.
    pub fn listed(tokens: Tokens) -> InputSpace {
        InputSpace {
            size: tokens.batch() as u128,
            parts: vec![InputPart::All],
            pad: None,
            values: Values::Listed(tokens),
        }
    }

    /// What is chosen.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// What a sequence is made of.
    pub fn parts(&self) -> &[InputPart] {
        &self.parts
    }

    /// The token behind sequences that are shorter, and the length that they then have.
    pub fn pad(&self) -> Option<(i64, usize)> {
        self.pad
    }

    /// How many inputs there are.
    pub fn size(&self) -> u128 {
        self.size
    }

    /// The positions of the longest sequence.
    pub fn positions(&self) -> usize {
        let values = *self.values.lengths().end();
        let own = |part: &InputPart| match part {
            InputPart::All => values,
            InputPart::Fixed(_) | InputPart::Value(_) | InputPart::Sorted(_) => 1,
        };
        let all: usize = self.parts.iter().map(own).sum();
        all.max(self.pad.map_or(0, |(_, length)| length))
    }

    /// The values of the input of this number.
    ///
    /// # Panics
    /// When there are not so many.
    #[track_caller]
    pub fn values_of(&self, index: u128) -> Vec<i64> {
        assert!(index < self.size, "input {index} of {}", self.size);
        self.values.unrank(index)
    }

    /// The sequence that these values make.
    pub fn sequence_of(&self, values: &[i64]) -> Vec<i64> {
        let mut sorted = Vec::new();
        if self.parts.iter().any(|p| matches!(p, InputPart::Sorted(_))) {
            sorted = values.to_vec();
            sorted.sort_unstable();
        }
        let mut sequence = Vec::new();
        for part in &self.parts {
            match *part {
                InputPart::Fixed(token) => sequence.push(token),
                InputPart::Value(i) => sequence.push(values[i]),
                InputPart::Sorted(i) => sequence.push(sorted[i]),
                InputPart::All => sequence.extend_from_slice(values),
            }
        }
        if let Some((token, length)) = self.pad {
            sequence.resize(length.max(sequence.len()), token);
        }
        sequence
    }

    /// The input of this number, as the model sees it.
    ///
    /// # Panics
    /// When there are not so many.
    #[track_caller]
    pub fn sequence(&self, index: u128) -> Vec<i64> {
        self.sequence_of(&self.values_of(index))
    }

    /// The inputs of this space that are as asked for.
    ///
    /// # Errors
    /// When a restriction is none of this kind of space, or leaves nothing.
    pub fn restricted(self, restrictions: &[Restriction]) -> Result<InputSpace> {
        let InputSpace {
            mut values,
            parts,
            pad,
            ..
        } = self;
        for restriction in restrictions {
            values = values.restricted(restriction)?;
        }
        let space = match values {
            Values::Listed(tokens) => InputSpace::listed(tokens),
            values => InputSpace::new(values, parts, pad)?,
        };
        match space.size {
            0 => Err(Error::Experiment("the space has no inputs".into())),
            _ => Ok(space),
        }
    }
}

/// `n^k`, where it is below 2^128.
fn power(n: usize, k: usize) -> Option<u128> {
    u128::try_from(n).ok()?.checked_pow(u32::try_from(k).ok()?)
}

/// The binomial coefficient, exact, where it is below 2^128.
pub fn choose(n: u128, k: u128) -> Option<u128> {
    if k > n {
        return Some(0);
    }
    // Each quotient is itself a binomial coefficient; common factors go first so that no product is larger than it must.
    let gcd = |mut a: u128, mut b: u128| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    (0..k.min(n - k)).try_fold(1u128, |so_far, i| {
        let (factor, divisor) = (n - i, i + 1);
        let common = gcd(so_far, divisor);
        let rest = divisor / common;
        (so_far / common).checked_mul(factor / rest)
    })
}

impl Values {
    /// How many there are, where that is below 2^128.
    fn size(&self) -> Option<u128> {
        match self {
            Values::Product(sets) => {
                let mut sizes = sets.iter().map(|set| set.len() as u128);
                sizes.try_fold(1u128, u128::checked_mul)
            }
            Values::Distinct { pool, len } => {
                let mut factors = (0..*len).map(|i| pool.len().saturating_sub(i) as u128);
                factors.try_fold(1u128, u128::checked_mul)
            }
            Values::Strings { alphabet, lengths } => {
                let mut each = lengths.clone().map(|n| power(alphabet.len(), n));
                each.try_fold(0u128, |sum, n| sum.checked_add(n?))
            }
            Values::Mirrored {
                alphabet,
                pairs,
                broken,
            } => choose(*pairs as u128, *broken as u128)?
                .checked_mul(power(alphabet.len(), *pairs)?)?
                .checked_mul(power(alphabet.len().saturating_sub(1), *broken)?),
            Values::Listed(tokens) => Some(tokens.batch() as u128),
        }
    }

    /// How many values an input has.
    pub fn lengths(&self) -> RangeInclusive<usize> {
        match self {
            Values::Product(sets) => sets.len()..=sets.len(),
            Values::Distinct { len, .. } => *len..=*len,
            Values::Strings { lengths, .. } => lengths.clone(),
            Values::Mirrored { pairs, .. } => 2 * pairs..=2 * pairs,
            Values::Listed(tokens) => tokens.pos()..=tokens.pos(),
        }
    }

    /// Those of a number below the size; in the lexical order of their places, strings by length.
    fn unrank(&self, mut index: u128) -> Vec<i64> {
        // The digits of a number, the last one counting fastest.
        let digits = |mut index: u128, bases: &[usize]| {
            let mut digits = vec![0; bases.len()];
            for (digit, &base) in digits.iter_mut().zip(bases).rev() {
                *digit = (index % base as u128) as usize;
                index /= base as u128;
            }
            digits
        };
        match self {
            Values::Product(sets) => {
                let bases: Vec<usize> = sets.iter().map(Vec::len).collect();
                let chosen = digits(index, &bases);
                sets.iter().zip(chosen).map(|(set, i)| set[i]).collect()
            }
            Values::Distinct { pool, len } => {
                let mut left = pool.clone();
                let bases: Vec<usize> = (0..*len).map(|i| pool.len() - i).collect();
                let chosen = digits(index, &bases);
                chosen.into_iter().map(|i| left.remove(i)).collect()
            }
            Values::Strings { alphabet, lengths } => {
                for n in lengths.clone() {
                    let own = power(alphabet.len(), n).expect("the size was computed");
                    if index < own {
                        let chosen = digits(index, &vec![alphabet.len(); n]);
                        return chosen.into_iter().map(|i| alphabet[i]).collect();
                    }
                    index -= own;
                }
                unreachable!("the number is below the size")
            }
            Values::Mirrored {
                alphabet,
                pairs,
                broken,
            } => {
                let n = alphabet.len();
                let front = power(n, *pairs).expect("the size was computed");
                let others = power(n - 1, *broken).expect("the size was computed");
                let first = digits(index % front, &vec![n; *pairs]);
                index /= front;
                let shifts = digits(index % others, &vec![n - 1; *broken]);
                index /= others;
                // Which pairs are broken, in lexical order.
                let (mut last, mut shifts) = (first.clone(), shifts.into_iter());
                let mut left = *broken;
                for i in 0..*pairs {
                    let rest = (pairs - i - 1) as u128;
                    let with = match left {
                        0 => 0,
                        left => choose(rest, left as u128 - 1).expect("the size was computed"),
                    };
                    if index < with {
                        left -= 1;
                        let shift = shifts.next().expect("as many as are broken");
                        last[i] = (first[i] + 1 + shift) % n;
                    } else {
                        index -= with;
                    }
                }
                let all = first.into_iter().chain(last.into_iter().rev());
                all.map(|i| alphabet[i]).collect()
            }
            Values::Listed(tokens) => tokens.sequence(index as usize).to_vec(),
        }
    }

    fn restricted(self, restriction: &Restriction) -> Result<Values> {
        let wrong = |reason: &str| Err(Error::Experiment(format!("space: {reason}")));
        match (restriction, self) {
            (Restriction::Tokens(tokens), mut values) => {
                let sets = match &mut values {
                    Values::Product(sets) => sets,
                    Values::Distinct { pool, .. } => std::slice::from_mut(pool),
                    Values::Strings { alphabet, .. } | Values::Mirrored { alphabet, .. } => {
                        std::slice::from_mut(alphabet)
                    }
                    Values::Listed(_) => return wrong("tokens=… of inputs that are listed"),
                };
                sets.iter_mut()
                    .for_each(|set| set.retain(|t| tokens.contains(t)));
                match sets.iter().any(Vec::is_empty) {
                    true => wrong("none of the tokens is a value of this task"),
                    false => Ok(values),
                }
            }
            (Restriction::Lengths(asked), Values::Strings { alphabet, lengths }) => {
                let (first, last) = (*lengths.start(), *lengths.end());
                match lengths.contains(asked.start()) && lengths.contains(asked.end()) {
                    true => Ok(Values::Strings {
                        alphabet,
                        lengths: asked.clone(),
                    }),
                    false => wrong(&format!("length=…: inputs have lengths {first} to {last}")),
                }
            }
            (Restriction::Lengths(_), _) => wrong("length=…: all inputs have one length"),
            (Restriction::Broken(broken), values) => {
                let (alphabet, length) = match values {
                    Values::Product(sets) if sets.windows(2).all(|w| w[0] == w[1]) => {
                        let length = sets.len();
                        (sets.into_iter().next().unwrap_or_default(), length)
                    }
                    Values::Strings { alphabet, lengths } if lengths.start() == lengths.end() => {
                        (alphabet, *lengths.start())
                    }
                    Values::Mirrored {
                        alphabet, pairs, ..
                    } => (alphabet, 2 * pairs),
                    _ => return wrong("mirrored or broken=…: not every place has the same values"),
                };
                if length % 2 != 0 || *broken > length / 2 {
                    return wrong("broken=…: there are not so many pairs");
                }
                Ok(Values::Mirrored {
                    alphabet,
                    pairs: length / 2,
                    broken: *broken,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn spaces() -> Vec<(Values, usize)> {
        let alphabet = vec![3, 5, 8];
        vec![
            (Values::Product(vec![vec![1, 2], vec![7], vec![0, 4, 9]]), 6),
            (
                Values::Distinct {
                    pool: vec![2, 4, 6, 8, 9],
                    len: 3,
                },
                60,
            ),
            (
                Values::Strings {
                    alphabet: alphabet.clone(),
                    lengths: 0..=4,
                },
                121,
            ),
            (
                Values::Mirrored {
                    alphabet,
                    pairs: 4,
                    broken: 2,
                },
                6 * 81 * 4,
            ),
        ]
    }

    #[test]
    fn every_input_has_one_number() {
        for (values, size) in spaces() {
            let space = InputSpace::new(values.clone(), vec![InputPart::All], None).unwrap();
            assert_eq!(space.size(), size as u128);
            let all: BTreeSet<Vec<i64>> = (0..space.size()).map(|i| space.sequence(i)).collect();
            assert_eq!(all.len(), size, "{values:?}");
            let broken = |s: &Vec<i64>| (0..4).filter(|&i| s[i] != s[7 - i]).count();
            match values {
                Values::Mirrored { .. } => assert!(all.iter().all(|s| broken(s) == 2)),
                Values::Distinct { .. } => {
                    let distinct = |s: &Vec<i64>| s.iter().collect::<BTreeSet<_>>().len() == 3;
                    assert!(all.iter().all(distinct));
                }
                _ => {}
            }
        }
    }

    #[test]
    fn binomials_are_exact() {
        let mut row = vec![1u128];
        for n in 0..120u128 {
            for (k, &c) in row.iter().enumerate() {
                assert_eq!(choose(n, k as u128), Some(c));
            }
            assert_eq!(choose(n, n + 1), Some(0));
            let inner = row.windows(2).map(|w| w[0] + w[1]);
            row = std::iter::once(1).chain(inner).chain([1]).collect();
        }
        assert_eq!(choose(200, 100), None);
    }

    #[test]
    fn restrictions_restrict() {
        let vocabulary = Vocabulary::numbers(10, &["END"]);
        let all = InputSpace::new(
            Values::Product(vec![(0..10).collect(); 6]),
            vec![InputPart::All, InputPart::Fixed(10)],
            None,
        )
        .unwrap();
        let asked = Restriction::parse("tokens=0-2,7; broken=1", &vocabulary).unwrap();
        let space = all.clone().restricted(&asked).unwrap();
        assert_eq!(space.size(), 3 * 64 * 3);
        assert_eq!(space.positions(), 7);
        for spec in [
            "tokens=",
            "tokens=11",
            "length=x",
            "broken",
            "mirrored=2",
            "odd",
        ] {
            assert!(Restriction::parse(spec, &vocabulary).is_err(), "{spec}");
        }
        let lengths = Restriction::parse("length=3", &vocabulary).unwrap();
        assert!(all.clone().restricted(&lengths).is_err());
        assert!(all.restricted(&[Restriction::Broken(4)]).is_err());
    }
}
