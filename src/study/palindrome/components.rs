//! What each component of the stream at `END` adds to the logit difference, by class.

use super::lab::{Lab, OTHER, PALINDROME};
use crate::decompose::{
    By, Component, Histogram, Logit, OfClass, Summary, direct_logit_attribution,
    histogram_by_class, residual_stack, summary_by_class,
};
use crate::error::Result;
use crate::model::Run;
use crate::names::{Hook, NormSite};
use serde::Serialize;

/// One component's direct attribution: the logit of "other" less that of "palindrome".
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComponentAttribution {
    /// The component.
    pub component: Component,
    /// By class.
    pub summaries: Vec<OfClass<usize, Summary>>,
    /// By class, in bins that both have.
    pub histogram: Histogram<usize>,
}

/// Of every component, over the dataset.
pub(super) fn components(lab: &Lab<'_>) -> Result<Vec<ComponentAttribution>> {
    // Whole streams for every component take memory: a stretch at a time.
    const STRETCH: usize = 500;
    const BINS: usize = 40;
    let tokens = &lab.data.dataset.sequences.tokens;
    let config = lab.model.config();
    let mut labels = Vec::new();
    let mut along: Vec<Vec<f64>> = Vec::new();
    for first in (0..tokens.batch()).step_by(STRETCH) {
        let few = tokens.slice(first, STRETCH.min(tokens.batch() - first));
        let hooks = By::Head.hooks(config).into_iter();
        let run = hooks.fold(Run::new().par(lab.par), |run, hook| run.cache(hook));
        let out = lab
            .model
            .run(&few, run.cache(Hook::Scale(NormSite::Final)))?;
        let last = Hook::ResidPost(config.n_layers - 1);
        let stack = residual_stack(&lab.model, &out.cache, last, By::Head)?;
        let logit = [Logit::Difference(OTHER, PALINDROME)];
        let stack = direct_logit_attribution(&lab.model, &out.cache, stack, &logit)?;
        along.resize(stack.labels.len(), Vec::new());
        for (i, values) in along.iter_mut().enumerate() {
            values.extend((0..few.batch()).map(|s| stack.values[[i, s, lab.end(), 0]]));
        }
        labels = stack.labels;
    }
    let of = |(component, values): (Component, Vec<f64>)| {
        Ok(ComponentAttribution {
            component,
            summaries: summary_by_class(&values, lab.classes())?,
            histogram: histogram_by_class(&values, lab.classes(), BINS)?,
        })
    };
    labels.into_iter().zip(along).map(of).collect()
}
