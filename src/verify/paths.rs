//! The logits as the sum over paths.

use super::bounded::Bounded;
use super::evidence::{Evidence, compare};
use super::stream::{Chosen, through};
use super::verdict::Comparison;
use crate::diagram::NormSite;
use crate::error::Result;
use crate::names::{Head, Hook};
use crate::tensor::Scalar;
use faer::Mat;

/// By the recurrence from the embeddings, with the run's patterns, scales and MLP outputs frozen. What the heads
/// read is mixed first and then goes through `W_V` and `W_O`; none of the run's other values enters.
pub(super) fn path_sum<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    let (c, w) = (e.model.config(), e.model.weights());
    let chosen = Chosen::of(e);
    let left = chosen.found(e)?;
    let pos = e.out.tokens.pos();
    let normed = c.norm.is_some();
    let scale = |hook: Hook, b: usize| match normed {
        true => Result::Ok(Some(e.value(hook)?.slice(&[b]))),
        false => Ok(None),
    };
    for b in 0..e.out.tokens.batch() {
        let exact = |hook: Hook| Result::Ok(Bounded::exact(e.value(hook)?.mat(&[b])));
        let mut stream = exact(Hook::Embed)?;
        if !c.rotary() {
            stream = stream.plus(&exact(Hook::PosEmbed)?);
        }
        for (l, block) in w.blocks.iter().enumerate() {
            let attn = &block.attn;
            let x = match scale(Hook::Ln1Scale(l), b)? {
                Some(scale) => {
                    let norm = e.model.norm_at(NormSite::Ln1(l)).expect("it has a scale");
                    through(&norm, &stream, scale, true)
                }
                None => stream.clone(),
            };
            for head in 0..c.n_heads {
                let h = Head { layer: l, head };
                let pattern = Bounded::exact(e.value(Hook::Pattern(l))?.mat(&[b, head]));
                let values = pattern.times(&x).times(&Bounded::exact(w.W_V(h)));
                let b_V = w.b_V(h);
                let bias = pattern.row_sums().times(&Bounded::exact_row(b_V));
                let result = values.plus(&bias).times(&Bounded::exact(w.W_O(h)));
                stream = stream.plus(&result);
            }
            stream = stream.plus(&Bounded::exact_row(attn.b_O.data()));
            if block.mlp.is_some() {
                stream = stream.plus(&exact(Hook::MlpOut(l))?);
            }
        }
        let x = match scale(Hook::LnFinalScale, b)? {
            Some(scale) => {
                let norm = e.model.norm_at(NormSite::Final).expect("it has a scale");
                through(&norm, &stream, scale, true)
            }
            None => stream,
        };
        let right = x.times_plus(&chosen.W_U, &chosen.b_U);
        let rows = |M: &Mat<T>| M.subrows(b * pos, pos).to_owned();
        let left = Bounded {
            value: rows(&left.value),
            error: rows(&left.error),
        };
        compare(cmp, &left, &right, |i, j| {
            e.place("logits", b * pos + i, &[chosen.logits[j]])
        });
    }
    Ok(())
}
