//! Interventions in a run.

use super::change::{Intervention, Prepared};
use super::means::mean;
use super::part::Window;
use crate::error::Result;
use crate::linalg::Par;
use crate::model::{Cache, Model, Run, Tokens};
use crate::tensor::Scalar;
use std::borrow::Cow;

/// A run with interventions, made in the order of the forward pass; those on one hook in the order given.
///
/// `source` is the cache of another run on as many sequences, which [`Change::Patch`](super::Change::Patch)
/// takes its values from. The run may keep a cache and have closures of its own, before and after.
///
/// ```
/// use pathsum::intervene::{Change, Intervention, Over, Part, intervene};
/// use pathsum::{Hook, Run, Tokens, fixture};
///
/// let model = fixture::induction::<f64>();
/// let tokens = Tokens::random(model.config(), 16, 0);
/// let ablation = [Intervention::new(Hook::Result(0), Part::all().heads([0]), Change::Mean(Over::Sequences))];
/// let run = intervene(Run::new(), &model, &tokens, &ablation, None)?;
/// let out = model.run(&tokens, run)?;
/// # assert_ne!(out.logits, model.logits(&tokens)?);
/// # Ok::<(), pathsum::Error>(())
/// ```
///
/// # Errors
/// When the model has no such hook, its value no such part, the numbers of a change are not as many as the
/// part has, or the source run's value is missing or of another shape.
pub fn intervene<'a, T: Scalar>(
    mut run: Run<'a, T>,
    model: &Model<T>,
    tokens: &Tokens,
    interventions: &'a [Intervention],
    source: Option<&'a Cache<T>>,
) -> Result<Run<'a, T>> {
    let (batch, pos) = (tokens.batch(), tokens.pos());
    for intervention in interventions {
        let selection = intervention.check(model, batch, pos, source)?;
        run = run.hook(intervention.hook, move |value, _| {
            let hook = intervention.hook;
            let change = Prepared::new(
                intervention,
                selection.clone(),
                |over| Cow::Owned(mean(hook, value, over, Par::Rayon)),
                || Cow::Owned(value.clone()),
                source,
            );
            change.apply(&Window::whole(batch, pos), value.data_mut());
        });
    }
    Ok(run)
}
