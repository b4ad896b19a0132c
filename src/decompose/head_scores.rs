//! What heads are known by: where they look, and whether what they write copies.

use crate::error::{Error, Result};
use crate::factored::Factored;
use crate::linalg::{Par, product_with};
use crate::model::{Config, Model, Tokens};
use crate::names::Head;
use crate::tensor::{Scalar, Tensor};
use rayon::prelude::*;
use serde::Serialize;
use std::collections::HashMap;

/// What a head's attention patterns say of it: means over the queries of all sequences. What no query tells is `None`.
///
/// Positions count without pads: neither tokens that are not attended to nor those of the configuration's `pad_token`
/// are queries or keys here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PatternScore {
    /// The attention to the token before, over all queries but the first.
    ///
    /// Source: `prev_token_head` of TransformerLens's `head_detector`; Elhage et al. (2021).
    pub previous: Option<f64>,
    /// The attention to earlier places of the query's own token, summed over them; over the queries that have such.
    ///
    /// Source: Wang et al., "Interpretability in the Wild" (2022); the places are those of TransformerLens's
    /// `get_duplicate_token_head_detection_pattern`.
    pub duplicate: Option<f64>,
    /// The attention to the tokens just after earlier places of the query's own token, summed over them; over the queries
    /// that have such. On random tokens of a period `N`, repeated, it is the mean along the stripe at offset `N - 1` over the
    /// second half's queries.
    ///
    /// Source: the prefix-matching score of Olsson et al., "In-context Learning and Induction Heads" (2022), with the places
    /// of TransformerLens's `get_induction_head_detection_pattern`: where a token comes twice in a row, the second's own
    /// place is one of them.
    pub induction: Option<f64>,
    /// The attention to the first token, over all queries, the first one's own included.
    ///
    /// Source: Gu et al., "When Attention Sink Emerges in Language Models" (2024).
    pub first: Option<f64>,
    /// The entropy of the pattern in nats, over all queries; not set off against the number of keys.
    ///
    /// Source: Zhai et al., "Stabilizing Transformer Training by Preventing Attention Entropy Collapse" (2023).
    pub entropy: Option<f64>,
}

/// Patterns of a model's heads, scored as they come, layer by layer and batch by batch.
///
/// ```
/// use pathsum::decompose::PatternScores;
/// use pathsum::{Hook, Run, fixture};
/// let model = fixture::induction::<f64>();
/// let tokens = fixture::repeated_sequences(4, 12, 0);
/// let out = model.run(&tokens, Run::new().cache("blocks.*.attn.hook_pattern"))?;
/// let mut scores = PatternScores::new(model.config());
/// for layer in 0..2 {
///     scores.add(&tokens, layer, &out.cache[Hook::Pattern(layer)])?;
/// }
/// assert!(scores.of("0.0".parse()?).previous > Some(0.99));
/// assert!(scores.of("1.0".parse()?).induction > Some(0.99));
/// # Ok::<(), pathsum::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PatternScores {
    n_layers: usize,
    n_heads: usize,
    pad: Option<i64>,
    /// By head.
    sums: Vec<Sums>,
}

/// A mean under way.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: f64,
    n: usize,
}

impl Mean {
    fn add(&mut self, x: f64) {
        self.sum += x;
        self.n += 1;
    }

    fn get(self) -> Option<f64> {
        (self.n > 0).then(|| self.sum / self.n as f64)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    previous: Mean,
    duplicate: Mean,
    induction: Mean,
    first: Mean,
    entropy: Mean,
}

impl PatternScores {
    /// Of a model of this configuration; nothing has come yet.
    pub fn new(config: &Config) -> Self {
        PatternScores {
            n_layers: config.n_layers,
            n_heads: config.n_heads,
            pad: config.pad_token.map(|pad| pad as i64),
            sums: vec![Sums::default(); config.n_layers * config.n_heads],
        }
    }

    /// Adds a layer's patterns on some sequences: `[batch, head, query, key]`.
    ///
    /// # Errors
    /// When there is no such layer, or the patterns have another shape.
    pub fn add<T: Scalar>(
        &mut self,
        tokens: &Tokens,
        layer: usize,
        pattern: &Tensor<T>,
    ) -> Result<()> {
        if layer >= self.n_layers {
            return Err(Error::out_of_range(
                "layer",
                layer,
                "",
                "this model's layers",
                0..self.n_layers,
            ));
        }
        let expected = vec![tokens.batch(), self.n_heads, tokens.pos(), tokens.pos()];
        if pattern.shape() != expected {
            return Err(Error::Shape {
                name: "hook_pattern".into(),
                found: pattern.shape().to_vec(),
                expected,
            });
        }
        let own = &mut self.sums[layer * self.n_heads..][..self.n_heads];
        for sequence in 0..tokens.batch() {
            let ids = tokens.sequence(sequence);
            let seen = |&p: &usize| tokens.is_attended(sequence, p) && Some(ids[p]) != self.pad;
            let places: Vec<usize> = (0..tokens.pos()).filter(seen).collect();
            let earlier = earlier(places.iter().map(|&p| ids[p]));
            for (head, sums) in own.iter_mut().enumerate() {
                for (i, &query) in places.iter().enumerate() {
                    let row = pattern.slice(&[sequence, head, query]);
                    sums.add(i, &|key| row[places[key]].to_f64(), &earlier[i]);
                    let shares = places.iter().map(|&key| row[key].to_f64());
                    sums.entropy.add(entropy(shares));
                }
            }
        }
        Ok(())
    }

    /// A head's scores, of what has come so far.
    ///
    /// # Panics
    /// When the model has no such head.
    #[track_caller]
    pub fn of(&self, head: Head) -> PatternScore {
        assert!(
            head.layer < self.n_layers && head.head < self.n_heads,
            "head {head} of {} layers of {} heads",
            self.n_layers,
            self.n_heads
        );
        let sums = self.sums[head.layer * self.n_heads + head.head];
        PatternScore {
            previous: sums.previous.get(),
            duplicate: sums.duplicate.get(),
            induction: sums.induction.get(),
            first: sums.first.get(),
            entropy: sums.entropy.get(),
        }
    }
}

impl Sums {
    /// Adds what the `i`-th token's query says, from its attention by the keys' numbers.
    fn add(&mut self, i: usize, to: &dyn Fn(usize) -> f64, earlier: &[usize]) {
        if i > 0 {
            self.previous.add(to(i - 1));
        }
        if !earlier.is_empty() {
            self.duplicate.add(earlier.iter().map(|&j| to(j)).sum());
            self.induction.add(earlier.iter().map(|&j| to(j + 1)).sum());
        }
        self.first.add(to(0));
    }
}

/// In nats; what is zero adds nothing.
fn entropy(shares: impl Iterator<Item = f64>) -> f64 {
    let terms = shares.map(|p| if p == 0.0 { 0.0 } else { -p * p.ln() });
    // Not the empty sum's `-0`.
    terms.fold(0.0, |sum, term| sum + term)
}

/// For each token the numbers of those before it that are the same.
fn earlier(ids: impl Iterator<Item = i64>) -> Vec<Vec<usize>> {
    let mut seen: HashMap<i64, Vec<usize>> = HashMap::new();
    let before = |(i, id): (usize, i64)| {
        let own = seen.entry(id).or_default();
        let before = own.clone();
        own.push(i);
        before
    };
    ids.enumerate().map(before).collect()
}

/// How far each head copies the tokens that it attends to, head by head in ascending layers: the copying score of
/// `W_E W_OV W_U`, the sum of its eigenvalues' real parts over the sum of their moduli. It is of the weights as they are:
/// norms' weights that were not folded are left out, and so are positions and MLPs.
///
/// `progress` is called with the number of heads done.
///
/// ```
/// use pathsum::decompose::copying_scores;
/// use pathsum::{Par, fixture};
/// let scores = copying_scores(&fixture::induction::<f64>(), Par::Seq, &|_| ())?;
/// // The previous-token head writes what no logit reads, the induction head copies.
/// assert_eq!(scores.len(), 2);
/// assert_eq!(scores[0], 0.0);
/// assert!((scores[1] - 1.0).abs() < 1e-12);
/// # Ok::<(), pathsum::Error>(())
/// ```
///
/// # Errors
/// When the model's logits are not of its tokens, a dense layer with a function stands before its unembedding, or one of
/// the weights is NaN or infinite.
///
/// # Cost
/// `2 d_vocab d_model²` operations once, and `2 d_model² d_head` and an eigenvalue decomposition of a `[d_head, d_head]`
/// matrix a head: the eigenvalues of `W_E W_V W_O W_U` that are not zero are those of `W_O (W_U W_E) W_V`.
///
/// # Source
/// Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021), *Detecting copying behavior*. See
/// [`Factored::copying_score`].
pub fn copying_scores<T: Scalar>(
    model: &Model<T>,
    par: Par,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Vec<f64>> {
    let c = model.config();
    if c.d_vocab_out != c.d_vocab {
        return Err(Error::NotCovered("its logits are not those of its tokens"));
    }
    if c.mlm_head.is_some() {
        return Err(Error::NotCovered(
            "a dense layer with a function stands before the unembedding",
        ));
    }
    let w = model.weights();
    let (W_E, W_U) = (w.W_E.mat(&[]), w.W_U.mat(&[]));
    let through_tokens = product_with(W_U, W_E, par);
    let score = |head: Head| {
        let M = product_with(through_tokens.as_ref(), w.W_V(head), Par::Seq);
        let circuit = Factored::new(M, w.W_O(head).to_owned());
        let score = circuit.copying_score().map_err(|e| match e {
            Error::Numeric(reason) => {
                Error::Numeric(format!("copying score of head {head}: {reason}"))
            }
            other => other,
        });
        progress(1);
        Ok(score?.to_f64())
    };
    let heads: Vec<Head> = c.dims().heads().collect();
    match par {
        Par::Seq => heads.into_iter().map(score).collect(),
        Par::Rayon => heads.into_par_iter().map(score).collect(),
    }
}
