//! How a token stands among all that a model could say next.

use crate::tensor::Scalar;

/// A token's place in a row of logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// The token.
    pub token: usize,
    /// Its logit.
    pub logit: f64,
    /// Its share of the softmax.
    pub probability: f64,
    /// Its place by logit, from 1; of equal logits the smaller token comes first.
    pub rank: usize,
}

impl Standing {
    /// One token's, of a row of logits `[d_vocab_out]`.
    ///
    /// # Panics
    /// When there is no such logit.
    #[track_caller]
    pub fn of<T: Scalar>(logits: &[T], token: usize) -> Self {
        let (most, all) = exponentials(logits);
        let own = logits[token];
        let before = |&(i, &x): &(usize, &T)| x > own || x == own && i < token;
        Standing {
            token,
            logit: own.to_f64(),
            probability: (own.to_f64() - most).exp() / all,
            rank: 1 + logits.iter().enumerate().filter(before).count(),
        }
    }

    /// The `k` likeliest tokens', the likeliest first; all where there are fewer.
    ///
    /// ```
    /// use pathsum::model::Standing;
    /// let all = Standing::likeliest(&[0.0, 2.0f64.ln(), 0.0], 2);
    /// assert_eq!((all[0].token, all[1].token, all[1].rank), (1, 0, 2));
    /// assert!((all[0].probability - 0.5).abs() < 1e-15);
    /// ```
    pub fn likeliest<T: Scalar>(logits: &[T], k: usize) -> Vec<Self> {
        let (most, all) = exponentials(logits);
        let own: Vec<f64> = logits.iter().map(|x| x.to_f64()).collect();
        let mut order: Vec<usize> = (0..own.len()).collect();
        order.sort_by(|&a, &b| own[b].total_cmp(&own[a]));
        order.truncate(k);
        let standing = |(i, token): (usize, usize)| Standing {
            token,
            logit: own[token],
            probability: (own[token] - most).exp() / all,
            rank: i + 1,
        };
        order.into_iter().enumerate().map(standing).collect()
    }
}

/// The largest logit, and the sum of all exponentials over its own.
pub(super) fn exponentials<T: Scalar>(logits: &[T]) -> (f64, f64) {
    let own = || logits.iter().map(|x| x.to_f64());
    let most = own().fold(f64::NEG_INFINITY, f64::max);
    (most, own().map(|x| (x - most).exp()).sum())
}
