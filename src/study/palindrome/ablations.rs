//! Ablations of parts: heads at single positions, and a layer's heads where the two hypotheses have them at work.

use super::lab::Lab;
use super::roles::Roles;
use crate::error::Result;
use crate::intervene::{Change, Each, Over, Scope, Site};
use crate::metric::Standard;
use crate::names::Head;
use serde::Serialize;

const MEAN: Change = Change::Mean(Over::Sequences);

/// The loss with a head's part in it ablated everywhere, and everywhere but at one position.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AllOrBut {
    /// The head.
    pub head: Head,
    /// The loss with it ablated at all positions.
    pub all: f64,
    /// At all but one.
    pub but_one: f64,
    /// The logit difference with it ablated at all positions.
    pub all_diff: f64,
    /// At all but one.
    pub but_one_diff: f64,
}

/// What the helping heads are for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Targeted {
    /// The loss of the model as it is.
    pub clean: f64,
    /// All heads, layer by layer, that which is needed most first.
    pub heads: Vec<Head>,
    /// For each, the loss with its result replaced by the mean at each position alone.
    pub result_at: Vec<Vec<f64>>,
    /// The position at which the first layer's helper is needed most.
    pub helped: usize,
    /// The first layer's helper, its result ablated: everywhere, or but at that position.
    pub result: AllOrBut,
    /// The second layer's helper, its values ablated.
    pub values: AllOrBut,
}

impl Targeted {
    pub(super) fn of(lab: &Lab<'_>, roles: &Roles) -> Result<Self> {
        let by = [Each::Head, Each::Position];
        let everywhere = lab.sweep(Site::Result, &by, &Scope::default(), &MEAN, Standard::Loss)?;
        let n = lab.model.config().n_heads;
        let at = |head: Head| -> Vec<f64> {
            let first = (head.layer * n + head.head) * lab.positions();
            let cells = &everywhere.values[first..first + lab.positions()];
            cells.iter().map(|x| x.unwrap_or(f64::NAN)).collect()
        };
        let helper = at(roles.first_helper());
        // The last of these would also be END, which no other position reads.
        let most = lab
            .second_half()
            .max_by(|&a, &b| helper[a].total_cmp(&helper[b]));
        let helped = most.expect("the second half has positions");
        let all_or_but = |site: Site, head: Head| -> Result<AllOrBut> {
            let without = |positions: Option<&[usize]>, metric: Standard| -> Result<f64> {
                let scope = Scope {
                    heads: Some(vec![head]),
                    positions: positions.map(<[usize]>::to_vec),
                    ..Scope::default()
                };
                let found = lab.sweep(site, &[Each::Head], &scope, &MEAN, metric)?;
                Ok(found.values[0].unwrap_or(f64::NAN))
            };
            let but: Vec<usize> = (0..lab.positions()).filter(|&p| p != helped).collect();
            Ok(AllOrBut {
                head,
                all: without(None, Standard::Loss)?,
                but_one: without(Some(&but), Standard::Loss)?,
                all_diff: without(None, Standard::LogitDiff)?,
                but_one_diff: without(Some(&but), Standard::LogitDiff)?,
            })
        };
        let heads: Vec<Head> = roles.all().map(|a| a.head).collect();
        Ok(Targeted {
            clean: everywhere.clean,
            result_at: heads.iter().map(|&h| at(h)).collect(),
            heads,
            helped,
            result: all_or_but(Site::Result, roles.first_helper())?,
            values: all_or_but(Site::V, roles.second_helper())?,
        })
    }
}

/// What is left of the logit difference with all that the first layer writes replaced by its means at some positions:
/// where the model compares.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Where {
    /// At `END` alone: all that aggregating there could use of the first layer.
    pub at_end: f64,
    /// At the second half's values, which can look at their mirrors.
    pub second_half: f64,
    /// At `START` and the first half's values, which cannot.
    pub first_half: f64,
}

impl Where {
    pub(super) fn of(lab: &Lab<'_>) -> Result<Self> {
        let left = |positions: Vec<usize>| -> Result<f64> {
            let scope = Scope {
                layers: Some(vec![0]),
                positions: Some(positions),
                ..Scope::default()
            };
            let found = lab.sweep(
                Site::Result,
                &[Each::Layer],
                &scope,
                &MEAN,
                Standard::LogitDiff,
            )?;
            Ok(found.values[0].unwrap_or(f64::NAN))
        };
        Ok(Where {
            at_end: left(vec![lab.end()])?,
            second_half: left(lab.second_half().collect())?,
            first_half: left((0..lab.second_half().start).collect())?,
        })
    }
}
