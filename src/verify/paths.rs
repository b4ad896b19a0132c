//! The logits as the sum over paths.

use super::bounded::Bounded;
use super::evidence::Evidence;
use super::stream::{Chosen, through};
use super::verdict::Comparison;
use crate::diagram::Op;
use crate::error::Result;
use crate::names::{Head, Hook};
use crate::tensor::Scalar;
use faer::Mat;

/// By the recurrence from the embeddings, with the run's patterns, scales and MLP outputs frozen. What the heads
/// read is mixed first and then goes through `W_V` and `W_O`; none of the run's other values enters.
pub(super) fn path_sum<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    let chosen = Chosen::of(e);
    let left = chosen.found(e)?;
    let pos = e.out.tokens.pos();
    for b in 0..e.out.tokens.batch() {
        let x = frozen(e, b)?;
        let right = x.times_plus(&chosen.W_U, &chosen.b_U);
        let rows = |M: &Mat<T>| M.subrows(b * pos, pos).to_owned();
        let left = Bounded {
            value: rows(&left.value),
            error: rows(&left.error),
        };
        chosen.compare(e, cmp, b * pos, (&left, &right));
    }
    Ok(())
}

/// What the unembedding reads of one sequence, from its embeddings: a walk over the diagram, of whose values those of the
/// stream are made anew.
fn frozen<T: Scalar>(e: &Evidence<'_, T>, b: usize) -> Result<Bounded<T>> {
    let (c, w, diagram) = (e.model.config(), e.model.weights(), &e.model.diagram);
    let exact = |hook: Hook| Result::Ok(Bounded::exact(e.value(hook)?.mat(&[b])));
    let mut made: Vec<Option<Bounded<T>>> = vec![None; diagram.values.len()];
    for step in &diagram.steps {
        let read = |i: usize| made[step.reads[i].0].as_ref();
        let value = match step.op {
            Op::Embed | Op::PosEmbed | Op::TokenTypeEmbed => {
                exact(diagram.values[step.gives[0]]).map(Some)?
            }
            Op::Same => read(0).cloned(),
            Op::Sum => {
                let parts = (1..step.reads.len()).map(|i| read(i).expect("of the stream"));
                let first = read(0).expect("of the stream").clone();
                Some(parts.fold(first, |sum, part| sum.plus(part)))
            }
            Op::Norm(site) => match read(0) {
                None => None,
                Some(x) => {
                    let norm = e.model.norm_at(site).expect("a norm of this model");
                    let scale = e.value(Hook::Scale(site))?.slice(&[b]);
                    Some(through(&norm, x, scale, true))
                }
            },
            Op::WriteHeads(l) => {
                let values = diagram.value(Hook::V(l)).expect("a layer's values");
                let project = &diagram.steps[diagram.made_by(values)];
                let x = made[project.reads[0].0].as_ref().expect("of the stream");
                let mut sum = Bounded::exact_row(w.blocks[l].attn.b_O.data());
                for head in 0..c.n_heads {
                    let h = Head { layer: l, head };
                    let pattern = Bounded::exact(e.value(Hook::Pattern(l))?.mat(&[b, head]));
                    let values = pattern.times(x).times(&Bounded::exact(w.W_V(h)));
                    let bias = pattern.row_sums().times(&Bounded::exact_row(w.b_V(h)));
                    let result = values.plus(&bias).times(&Bounded::exact(w.W_O(h)));
                    sum = result.plus(&sum);
                }
                Some(sum)
            }
            Op::WriteNeurons(_) => exact(diagram.values[step.gives[0]]).map(Some)?,
            Op::Unembed => return Ok(read(0).expect("of the stream").clone()),
            Op::Project(..)
            | Op::Rotate(_)
            | Op::Attend(_)
            | Op::Gate(_)
            | Op::Neurons(_)
            | Op::Activate(_)
            | Op::MlmHead
            | Op::ActivateMlmHead => None,
        };
        if let Some(&last) = step.gives.last() {
            made[last] = value;
        }
    }
    unreachable!("a diagram ends with the unembedding")
}
