//! Which heads do the work, and which only help: read off what ablating them does.

use super::lab::Lab;
use crate::error::Result;
use crate::intervene::{Change, Each, Over, Scope, Site};
use crate::metric::Standard;
use crate::names::Head;
use serde::Serialize;

/// What ablating what a head writes does to the answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct HeadAblation {
    /// The head.
    pub head: Head,
    /// The right logit less the wrong one, with the head's result replaced by its mean over the sequences.
    pub mean: f64,
    /// The same with zero in its place.
    pub zero: f64,
    /// The same with its mean over the sequences and their positions in its place.
    pub mean_of_all: f64,
}

/// Every head's ablation, and so the heads' parts.
///
/// The write-ups' `0.0`, which compares every value with its mirror, is the head of the first layer without which
/// most of the logit difference is lost; their `1.0`, which collects at `END` what was found, that of the second.
/// `0.1` and `1.1` are those that help.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Roles {
    /// The logit difference of the model as it is.
    pub clean: f64,
    /// The first layer's heads, that which is needed most first.
    pub first: Vec<HeadAblation>,
    /// The second layer's.
    pub second: Vec<HeadAblation>,
}

impl Roles {
    pub(super) fn find(lab: &Lab<'_>) -> Result<Self> {
        let ablate = |change: &Change| {
            let scope = Scope::default();
            lab.sweep(
                Site::Result,
                &[Each::Head],
                &scope,
                change,
                Standard::LogitDiff,
            )
        };
        let mean = ablate(&Change::Mean(Over::Sequences))?;
        let zero = ablate(&Change::Zero)?;
        let mean_of_all = ablate(&Change::Mean(Over::Positions))?;
        let n = lab.model.config().n_heads;
        let layer = |layer: usize| {
            let ablation = |head: Head| {
                let cell = layer * n + head.head;
                HeadAblation {
                    head,
                    mean: mean.values[cell].unwrap_or(f64::NAN),
                    zero: zero.values[cell].unwrap_or(f64::NAN),
                    mean_of_all: mean_of_all.values[cell].unwrap_or(f64::NAN),
                }
            };
            let mut heads: Vec<HeadAblation> = lab.heads(layer).map(ablation).collect();
            heads.sort_by(|a, b| a.mean.total_cmp(&b.mean));
            heads
        };
        Ok(Roles {
            clean: mean.clean,
            first: layer(0),
            second: layer(1),
        })
    }

    /// The head that compares values with their mirrors: the write-ups' 0.0.
    pub fn comparing(&self) -> Head {
        self.first[0].head
    }

    /// The head that collects at `END`: the write-ups' 1.0.
    pub fn collecting(&self) -> Head {
        self.second[0].head
    }

    /// The first layer's other head that is needed most: the write-ups' 0.1.
    pub fn first_helper(&self) -> Head {
        self.first[1].head
    }

    /// The second layer's: the write-ups' 1.1.
    pub fn second_helper(&self) -> Head {
        self.second[1].head
    }

    /// Every head's ablation, layer by layer.
    pub fn all(&self) -> impl Iterator<Item = &HeadAblation> {
        self.first.iter().chain(&self.second)
    }

    /// Every head's ablation, with the name that the write-ups have for it.
    pub fn named(&self) -> impl Iterator<Item = (String, &HeadAblation)> {
        let first = self.first.iter().enumerate();
        let second = self.second.iter().enumerate();
        first
            .map(|(i, head)| (format!("0.{i}"), head))
            .chain(second.map(|(i, head)| (format!("1.{i}"), head)))
    }
}
