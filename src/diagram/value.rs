//! The values of a run: what their axes count.

use super::Config;
use crate::names::Hook;

/// What an axis of a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Sequences of the batch.
    Batch,
    /// Positions of a sequence.
    Pos,
    /// Heads of a layer.
    Head,
    /// Keys and values of a layer.
    Group,
    /// Positions of queries.
    Query,
    /// Positions of keys.
    Key,
    /// Coordinates of a head.
    DHead,
    /// Coordinates of the stream.
    DModel,
    /// Neurons of a layer.
    DMlp,
    /// A number alone.
    One,
}

impl Axis {
    /// How many places there are along it.
    fn len(self, c: &Config, batch: usize, pos: usize) -> usize {
        match self {
            Axis::Batch => batch,
            Axis::Pos | Axis::Query | Axis::Key => pos,
            Axis::Head => c.n_heads,
            Axis::Group => c.groups,
            Axis::DHead => c.d_head,
            Axis::DModel => c.d_model,
            Axis::DMlp => c.d_mlp().unwrap_or(0),
            Axis::One => 1,
        }
    }
}

impl Hook {
    /// The axes of the hook's value, outermost first.
    pub fn axes(self) -> &'static [Axis] {
        use Axis::{Batch, DHead, DMlp, DModel, Group, Head, Key, One, Pos, Query};
        match self {
            Hook::Embed
            | Hook::PosEmbed
            | Hook::ResidPre(_)
            | Hook::Ln1Normalized(_)
            | Hook::AttnOut(_)
            | Hook::ResidMid(_)
            | Hook::Ln2Normalized(_)
            | Hook::MlpOut(_)
            | Hook::ResidPost(_)
            | Hook::LnFinalNormalized => &[Batch, Pos, DModel],
            Hook::Ln1Scale(_) | Hook::Ln2Scale(_) | Hook::MlpLnScale(_) | Hook::LnFinalScale => {
                &[Batch, Pos, One]
            }
            Hook::Q(_) | Hook::RotQ(_) | Hook::Z(_) => &[Batch, Pos, Head, DHead],
            Hook::K(_) | Hook::RotK(_) | Hook::V(_) => &[Batch, Pos, Group, DHead],
            Hook::AttnScores(_) | Hook::Pattern(_) => &[Batch, Head, Query, Key],
            Hook::Result(_) => &[Batch, Pos, Head, DModel],
            Hook::Pre(_)
            | Hook::PreLinear(_)
            | Hook::Mid(_)
            | Hook::MlpLnNormalized(_)
            | Hook::Post(_) => &[Batch, Pos, DMlp],
        }
    }

    /// The axis along which positions lie; of scores and patterns the queries'.
    pub(crate) fn position_axis(self) -> usize {
        let is = |axis: &Axis| matches!(axis, Axis::Pos | Axis::Query);
        let found = self.axes().iter().position(is);
        found.expect("every value has positions")
    }
}

impl Config {
    /// The shape of a hook's value for a batch.
    pub fn hook_shape(&self, hook: Hook, batch: usize, pos: usize) -> Vec<usize> {
        let axes = hook.axes().iter();
        axes.map(|axis| axis.len(self, batch, pos)).collect()
    }
}
