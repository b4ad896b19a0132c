//! What derivatives say of edges, mended where they are known to miss: AtP*.

use super::attribution::{Point, at};
use super::exact::Pair;
use super::graph::layer_of;
use super::pairs::Edges;
use super::reads::one_head;
use crate::error::Result;
use crate::gradient::{Pass, gradients_with};
use crate::intervene::Receiver;
use crate::linalg::{Par, product_into};
use crate::model::Cache;
use crate::names::{Head, Hook};
use crate::op::Rules;
use crate::tensor::{Scalar, check_room};
use faer::{MatMut, MatRef};
use rayon::prelude::*;

/// What a receiver's edges are scored by: derivatives with something dropped, and how many of the means each is.
struct Drops<'c, T: Scalar> {
    of: Vec<(&'c Cache<T>, f64)>,
    all: f64,
}

impl<T: Scalar> Edges<'_, T> {
    /// [`Attribution::AtpStar`](super::Attribution::AtpStar).
    pub(super) fn atp_star(&self) -> Result<Vec<f64>> {
        let mut scores = vec![0.0; self.graph.len()];
        for p in 0..self.pairs() {
            let positions = self.positions(p..p + 1);
            let pair = self.pair(p, &positions)?;
            let met = self.keep(&pair.tokens, &self.met_hooks(), self.par)?;
            let derivatives = self.with_layers_dropped(p, &pair)?;
            if positions.is_empty() {
                continue;
            }
            let of = |r: usize| {
                let drops = self.drops(self.graph.receivers()[r], &derivatives);
                self.sizes(r, &pair, &met, &drops)
            };
            let receivers = 0..self.graph.receivers().len();
            let found: Vec<Vec<f64>> = match self.par {
                Par::Rayon => receivers.into_par_iter().map(of).collect(),
                Par::Seq => receivers.map(of).collect(),
            };
            let found = found.into_iter().flatten();
            scores.iter_mut().zip(found).for_each(|(to, x)| *to += x);
        }
        let pairs = self.pairs() as f64;
        scores.iter_mut().for_each(|score| *score /= pairs);
        Ok(scores)
    }

    /// Derivatives in a pair's clean run: as they are, and of each layer with nothing through what it writes.
    fn with_layers_dropped(&self, p: usize, pair: &Pair<'_, T>) -> Result<Vec<Cache<T>>> {
        let c = self.model.config();
        let each: usize = (self.asked(&[]).iter())
            .map(|&hook| c.hook_shape(hook, 1, pair.tokens.pos()))
            .map(|shape| shape.iter().product::<usize>())
            .sum();
        let bytes = (1 + c.n_layers) * each * size_of::<T>();
        check_room(bytes as u64, "derivatives with each layer left out")?;
        let (metric, answers) = (self.metric_from(p), self.answers.slice(p, 1));
        let drops = (0..c.n_layers).map(|l| {
            let mlp = c.mlp.map(|_| Hook::MlpOut(l));
            [Some(Hook::AttnOut(l)), mlp]
                .into_iter()
                .flatten()
                .collect()
        });
        let drops = std::iter::once(Vec::new()).chain(drops);
        let of = |dropped: Vec<Hook>| {
            let pass = Pass {
                dropped: &dropped,
                ..Pass::default()
            };
            let asked = self.asked(&dropped);
            let tokens = &pair.tokens;
            let (found, _) =
                gradients_with(self.model, tokens, &metric, &answers, asked, pass, self.par)?;
            self.done(1);
            Ok(found.gradients)
        };
        drops.map(of).collect()
    }

    /// Of which derivatives the sizes are averaged for edges into a receiver: with each layer dropped but its own. Those
    /// before it change nothing. In a model of one layer that leaves none to be dropped.
    fn drops<'c>(&self, receiver: Receiver, derivatives: &'c [Cache<T>]) -> Drops<'c, T> {
        let layers = self.model.config().n_layers;
        let (before, own) = match layer_of(receiver) {
            Some(layer) => (layer, 1),
            None => (layers, 0),
        };
        let past = &derivatives[1 + before + own..];
        let plain = if layers == own { 1 } else { before };
        let of = std::iter::once((&derivatives[0], plain as f64));
        let of = of.chain(past.iter().map(|d| (d, 1.0)));
        let of: Vec<_> = of.filter(|&(_, times)| times > 0.0).collect();
        let all = of.iter().map(|(_, times)| times).sum();
        Drops { of, all }
    }

    /// The score of each edge into the `r`-th receiver, of one pair.
    fn sizes(
        &self,
        r: usize,
        pair: &Pair<'_, T>,
        met: &Cache<T>,
        drops: &Drops<'_, T>,
    ) -> Vec<f64> {
        let receiver = self.graph.receivers()[r];
        let senders = self.graph.edges_to(r).len();
        let mut found = vec![0.0; senders];
        let mut add = |first: usize, by: &[T], changes: &[T]| {
            let (ways, rows) = (drops.of.len(), by.len() / drops.of.len());
            let n = changes.len() / rows;
            let mut effects = vec![T::ZERO; ways * n];
            let to = MatMut::from_row_major_slice_mut(&mut effects, ways, n);
            let by = MatRef::from_row_major_slice(by, ways, rows);
            let changes = MatRef::from_row_major_slice(changes, n, rows);
            product_into(to, T::ONE, by, changes.transpose());
            for (effects, (_, times)) in effects.chunks_exact(n).zip(&drops.of) {
                let to = found[first..first + n].iter_mut();
                to.zip(effects)
                    .for_each(|(to, x)| *to += times / drops.all * x.to_f64().abs());
            }
        };
        match receiver {
            Receiver::Q(head) | Receiver::K(head) => {
                let by = self.by_mixed(head, pair, drops);
                let each = pair.senders_together();
                for first in (0..senders).step_by(each) {
                    let some = first..senders.min(first + each);
                    add(
                        first,
                        &by,
                        &self.changes_of_mixed(receiver, head, pair, some),
                    );
                }
            }
            Receiver::V(_) | Receiver::Mlp(_) | Receiver::Logits => {
                let mut by = Vec::new();
                for (d, _) in &drops.of {
                    let point = Point {
                        tokens: &pair.tokens,
                        met,
                        d,
                        rules: Rules::Derivatives,
                    };
                    let d_x = self.by_stream(receiver, pair.positions, &point);
                    by.extend_from_slice(d_x.expect("its own layer is not dropped").data());
                }
                let each = pair.differences.len() / pair.differences.shape()[0];
                add(0, &by, &pair.differences.data()[..senders * each]);
            }
        }
        found
    }

    /// The derivatives by what a head mixes where the runs may differ, one after the other.
    fn by_mixed(&self, head: Head, pair: &Pair<'_, T>, drops: &Drops<'_, T>) -> Vec<T> {
        let of = |(d, _): &(&Cache<T>, f64)| {
            at(
                &one_head(&d[Hook::Z(head.layer)], head.head),
                pair.positions,
            )
            .into_data()
        };
        drops.of.iter().flat_map(of).collect()
    }

    /// What a head mixes otherwise where queries or keys read these senders' corrupted output. What is mixed is linear in
    /// the pattern: its derivative by the pattern times the pattern's exact change is its own exact change.
    fn changes_of_mixed(
        &self,
        receiver: Receiver,
        head: Head,
        pair: &Pair<'_, T>,
        senders: std::ops::Range<usize>,
    ) -> Vec<T> {
        let clean = one_head(&pair.cache[Hook::Z(head.layer)], head.head);
        let clean = at(&clean, pair.positions);
        let mut mixed = self.mixed(pair, receiver, head, &senders, pair.positions);
        for own in mixed.data_mut().chunks_exact_mut(clean.len()) {
            let values = own.iter_mut().zip(clean.data());
            values.for_each(|(x, &clean)| *x -= clean);
        }
        mixed.into_data()
    }
}
