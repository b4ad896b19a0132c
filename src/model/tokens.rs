//! A batch of token sequences of one length.

use crate::error::{Error, Result};
use crate::model::Config;
use crate::op::Attended;
use crate::tensor::{Saved, TensorFile, write_safetensors};
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

/// The tensors' names in files.
const NAME: &str = "tokens";
/// As Hugging Face calls them.
const INPUTS: &str = "input_ids";
const MASK: &str = "attention_mask";
const TYPES: &str = "token_type_ids";

/// `[batch, pos]` tokens.
///
/// ```
/// use pathsum::Tokens;
/// let tokens = Tokens::from_rows(&[[0, 1, 2], [2, 1, 0]]);
/// assert_eq!((tokens.batch(), tokens.pos()), (2, 3));
/// assert_eq!(tokens.sequence(1), &[2, 1, 0]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    batch: usize,
    pos: usize,
    /// Shared: a run keeps what it ran on.
    ids: Arc<[i64]>,
    /// Which of them are attended to, where not all are.
    attended: Option<Arc<Attention>>,
    /// Of which kind each is, where they are of several.
    types: Option<Arc<[i64]>>,
}

/// Which tokens are attended to, and where these stand among those of their sequence, `[batch, pos]` each.
#[derive(Debug, PartialEq, Eq)]
struct Attention {
    mask: Vec<bool>,
    positions: Vec<usize>,
}

impl Tokens {
    /// From ids in row-major order.
    ///
    /// # Panics
    /// When their number is not `batch * pos`.
    #[track_caller]
    pub fn new(batch: usize, pos: usize, ids: Vec<i64>) -> Self {
        assert_eq!(
            batch * pos,
            ids.len(),
            "[{batch}, {pos}] tokens from {} ids",
            ids.len()
        );
        Tokens {
            batch,
            pos,
            ids: ids.into(),
            attended: None,
            types: None,
        }
    }

    /// The same tokens, of which only those are attended to whose place in `mask`, `[batch, pos]`, says so: each
    /// sequence counts as if it had no others, wherever they are. They have no logits (NaN); their other values are no
    /// one's business.
    ///
    /// ```
    /// use pathsum::{Tokens, fixture};
    /// let model = fixture::induction::<f64>();
    /// let padded = Tokens::from_rows(&[[0, 0, 3, 1, 4, 3]]);
    /// let padded = padded.attended(vec![false, false, true, true, true, true])?;
    /// let alone = model.logits(&Tokens::from_rows(&[[3, 1, 4, 3]]))?;
    /// assert_eq!(model.logits(&padded)?.slice(&[0, 5]), alone.slice(&[0, 3]));
    /// # Ok::<(), pathsum::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the mask has another size, or a sequence has no token that is attended to.
    pub fn attended(mut self, mask: Vec<bool>) -> Result<Self> {
        if mask.len() != self.ids.len() {
            return Err(Error::Mismatch(format!(
                "a mask of {} places, expected one for each of the {} tokens",
                mask.len(),
                self.ids.len()
            )));
        }
        let sequences = mask.chunks_exact(self.pos.max(1));
        if let Some(i) = sequences.clone().position(|own| !own.contains(&true)) {
            return Err(Error::Mismatch(format!(
                "sequence {i} has no token that is attended to, expected at least one"
            )));
        }
        let positions = sequences.flat_map(|own| {
            let mut before = 0;
            own.iter().map(move |&seen| {
                before += usize::from(seen);
                // A pad stands where the token before it does.
                usize::saturating_sub(before, 1)
            })
        });
        let positions = positions.collect();
        let all = mask.iter().all(|&seen| seen);
        self.attended = (!all).then(|| Arc::new(Attention { mask, positions }));
        Ok(self)
    }

    /// The same tokens, each of the kind that its place in `types`, `[batch, pos]`, says; without it all are of kind 0.
    ///
    /// # Errors
    /// When there are more or fewer of them.
    pub fn typed(mut self, types: Vec<i64>) -> Result<Self> {
        if types.len() != self.ids.len() {
            return Err(Error::Mismatch(format!(
                "{} token types, expected one for each of the {} tokens",
                types.len(),
                self.ids.len()
            )));
        }
        self.types = types.iter().any(|&t| t != 0).then(|| types.into());
        Ok(self)
    }

    /// Which tokens are attended to, `[batch, pos]`, where not all are.
    pub fn attention_mask(&self) -> Option<&[bool]> {
        self.attended.as_ref().map(|a| &a.mask[..])
    }

    /// Of which kind each token is, `[batch, pos]`, where not all are of kind 0.
    pub fn token_types(&self) -> Option<&[i64]> {
        self.types.as_deref()
    }

    /// Whether a token is attended to.
    pub fn is_attended(&self, sequence: usize, position: usize) -> bool {
        self.attention_mask()
            .is_none_or(|mask| mask[sequence * self.pos + position])
    }

    /// Where a token stands among those of its sequence that are attended to.
    pub fn position(&self, sequence: usize, position: usize) -> usize {
        self.attended
            .as_ref()
            .map_or(position, |a| a.positions[sequence * self.pos + position])
    }

    /// The last position of a sequence that is attended to.
    ///
    /// # Panics
    /// When it has no position.
    #[track_caller]
    pub fn last_attended(&self, sequence: usize) -> usize {
        let last = (0..self.pos).rfind(|&p| self.is_attended(sequence, p));
        last.expect("a sequence has a token")
    }

    /// Where the tokens of some sequences stand among those that are attended to, where not all are.
    pub(crate) fn attended_range(&self, first: usize, count: usize) -> Option<Attended<'_>> {
        let range = first * self.pos..(first + count) * self.pos;
        self.attended.as_ref().map(|a| Attended {
            mask: &a.mask[range.clone()],
            positions: &a.positions[range],
        })
    }

    /// The kinds of some sequences' tokens, where not all are of kind 0.
    pub(crate) fn types_range(&self, first: usize, count: usize) -> Option<&[i64]> {
        let types = self.types.as_ref()?;
        Some(&types[first * self.pos..(first + count) * self.pos])
    }

    /// From sequences of one length.
    ///
    /// # Panics
    /// When their lengths differ.
    #[track_caller]
    pub fn from_rows(rows: &[impl AsRef<[i64]>]) -> Self {
        let pos = rows.first().map_or(0, |r| r.as_ref().len());
        let ids: Vec<i64> = rows.iter().flat_map(|r| r.as_ref()).copied().collect();
        assert!(
            rows.iter().all(|r| r.as_ref().len() == pos),
            "sequences of several lengths"
        );
        Tokens::new(rows.len(), pos, ids)
    }

    /// Seeded random tokens of a model's vocabulary, of its full context.
    pub fn random(config: &Config, batch: usize, seed: u64) -> Self {
        Self::random_of_length(config, (batch, config.n_ctx), seed)
    }

    /// As [`Tokens::random`], of another length: `(batch, pos)`.
    pub fn random_of_length(config: &Config, (batch, pos): (usize, usize), seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let ids = (0..batch * pos)
            .map(|_| rng.random_range(0..config.d_vocab as i64))
            .collect();
        Tokens::new(batch, pos, ids)
    }

    /// Seeded sequences of `period` random tokens of a model's vocabulary, twice over, behind a token that begins texts where
    /// there is one. They are drawn independently, pads aside, so that one may come twice in a period.
    ///
    /// Source: the repeated random tokens by which induction heads are found in Olsson et al., "In-context Learning and
    /// Induction Heads" (2022).
    pub fn repeated(
        config: &Config,
        batch: usize,
        period: usize,
        beginning: Option<i64>,
        seed: u64,
    ) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let pad = config.pad_token.filter(|_| config.d_vocab > 1);
        let mut draw = || {
            let drawn = rng.random_range(0..config.d_vocab - usize::from(pad.is_some()));
            // As if there were no pad among the tokens.
            (drawn + usize::from(pad.is_some_and(|pad| drawn >= pad))) as i64
        };
        let mut ids = Vec::new();
        for _ in 0..batch {
            let own: Vec<i64> = (0..period).map(|_| draw()).collect();
            ids.extend(beginning);
            ids.extend([own.as_slice(), &own].concat());
        }
        let pos = 2 * period + usize::from(beginning.is_some());
        Tokens::new(batch, pos, ids)
    }

    /// Reads `tokens` (or `input_ids`), `[batch, pos]` integers, of a safetensors file, and where they are there
    /// `attention_mask` and `token_type_ids` of the same shape; one sequence may be `[pos]`.
    ///
    /// # Errors
    /// When there is no such tensor, or one is of another type, rank or shape.
    pub fn from_file(file: &TensorFile) -> Result<Self> {
        let other = file.names().any(|name| name == INPUTS) && !file.has(NAME);
        let (shape, ids) = file.integer(if other { INPUTS } else { NAME })?;
        let mut tokens = match *shape.as_slice() {
            [batch, pos] => Tokens::new(batch, pos, ids),
            [pos] => Tokens::new(1, pos, ids),
            _ => {
                return Err(Error::Axes {
                    name: NAME.into(),
                    found: shape,
                    expected: "[batch, pos]",
                });
            }
        };
        let beside = |name: &str| -> Result<Option<Vec<i64>>> {
            if !file.names().any(|own| own == name) {
                return Ok(None);
            }
            let (found, values) = file.integer(name)?;
            match found == shape {
                true => Ok(Some(values)),
                false => Err(Error::Shape {
                    name: name.into(),
                    found,
                    expected: shape.clone(),
                }),
            }
        };
        if let Some(mask) = beside(MASK)? {
            tokens = tokens.attended(mask.into_iter().map(|seen| seen != 0).collect())?;
        }
        if let Some(types) = beside(TYPES)? {
            tokens = tokens.typed(types)?;
        }
        Ok(tokens)
    }

    /// Writes `tokens`, `[batch, pos]`, and what goes with them, as a safetensors file that [`Tokens::from_file`] reads.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let (all, shape) = (self.tensors(), [self.batch, self.pos]);
        let saved = all
            .iter()
            .map(|(n, values)| (n.to_string(), Saved::integers(&shape, values)));
        write_safetensors(path, saved)
    }

    /// What a file of them holds, by its names, `[batch, pos]` each: the tokens, and which are attended to and of what kind
    /// where not all are the same.
    pub fn tensors(&self) -> Vec<(&'static str, Cow<'_, [i64]>)> {
        let mut all = vec![(NAME, Cow::Borrowed(&self.ids[..]))];
        let mask = self.attention_mask();
        let seen = |mask: &[bool]| mask.iter().map(|&seen| i64::from(seen)).collect();
        all.extend(mask.map(|mask| (MASK, Cow::Owned(seen(mask)))));
        all.extend((self.types.as_ref()).map(|types| (TYPES, Cow::Borrowed(&types[..]))));
        all
    }

    /// Sequences.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Positions of each.
    pub fn pos(&self) -> usize {
        self.pos
    }

    /// One sequence.
    ///
    /// # Panics
    /// When there is no such sequence.
    #[track_caller]
    pub fn sequence(&self, i: usize) -> &[i64] {
        self.range(i, 1)
    }

    /// All ids, sequence by sequence.
    pub fn ids(&self) -> &[i64] {
        &self.ids
    }

    /// The ids of `count` sequences from `first` on.
    #[track_caller]
    pub(crate) fn range(&self, first: usize, count: usize) -> &[i64] {
        assert!(
            first + count <= self.batch,
            "sequence {first} + {count} of {}",
            self.batch
        );
        &self.ids[first * self.pos..(first + count) * self.pos]
    }

    /// `count` sequences from `first` on.
    ///
    /// # Panics
    /// When there are not so many.
    #[track_caller]
    pub fn slice(&self, first: usize, count: usize) -> Self {
        self.chosen(first..first + count)
    }

    /// Some sequences, by their numbers.
    ///
    /// # Panics
    /// When there is no sequence of such a number.
    #[track_caller]
    pub fn chosen(&self, sequences: impl IntoIterator<Item = usize>) -> Self {
        let sequences: Vec<usize> = sequences.into_iter().collect();
        let pos = self.pos;
        fn rows<V: Copy>(of: &[V], pos: usize, sequences: &[usize]) -> Vec<V> {
            let rows = sequences.iter().map(|s| &of[s * pos..(s + 1) * pos]);
            rows.flatten().copied().collect()
        }
        Tokens {
            batch: sequences.len(),
            pos,
            ids: rows(&self.ids, pos, &sequences).into(),
            attended: self.attended.as_ref().map(|a| {
                Arc::new(Attention {
                    mask: rows(&a.mask, pos, &sequences),
                    positions: rows(&a.positions, pos, &sequences),
                })
            }),
            types: (self.types.as_ref()).map(|types| rows(types, pos, &sequences).into()),
        }
    }

    /// The first `n` sequences, or all when there are fewer.
    pub fn truncate(self, n: usize) -> Self {
        if n < self.batch {
            self.slice(0, n)
        } else {
            self
        }
    }

    /// Whether a model can run on these.
    ///
    /// # Errors
    /// When the sequences are empty or too long, or a token is not in the vocabulary.
    pub fn check(&self, config: &Config) -> Result<()> {
        if self.pos == 0 || self.pos > config.n_ctx {
            return Err(Error::SequenceLength {
                len: self.pos,
                n_ctx: config.n_ctx,
            });
        }
        let types = self.types.iter().flat_map(|types| types.iter());
        if let Some(t) = types
            .copied()
            .find(|&t| t < 0 || t >= config.token_types as i64)
        {
            return Err(Error::Mismatch(format!(
                "token type {t}, expected one below {}: the model has so many",
                config.token_types
            )));
        }
        let wrong = self
            .ids
            .iter()
            .position(|&t| t < 0 || t >= config.d_vocab as i64);
        wrong.map_or(Ok(()), |i| {
            Err(Error::Token {
                token: self.ids[i],
                sequence: i / self.pos,
                position: i % self.pos,
                max: config.d_vocab - 1,
            })
        })
    }
}
