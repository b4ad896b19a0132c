//! The values of a run: what their axes count.

use super::Config;
use crate::names::{Hook, NormSite};

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
    /// Rows of queries that a norm looks at: heads, or one where it goes over all of them.
    QueryRow,
    /// Rows of keys that a norm looks at: keys of a layer, or one where it goes over all of them.
    KeyRow,
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
            Axis::QueryRow => c.n_heads * c.d_head / c.norm_width(NormSite::Q(0)),
            Axis::KeyRow => c.groups * c.d_head / c.norm_width(NormSite::K(0)),
            Axis::One => 1,
        }
    }
}

impl Hook {
    /// The axes of the hook's value, outermost first.
    pub fn axes(self) -> &'static [Axis] {
        use Axis::{
            Batch, DHead, DMlp, DModel, Group, Head, Key, KeyRow, One, Pos, Query, QueryRow,
        };
        match self {
            Hook::Embed
            | Hook::PosEmbed
            | Hook::TokenTypeEmbed
            | Hook::EmbedSum
            | Hook::FullEmbed
            | Hook::ResidPre(_)
            | Hook::AttnSum(_)
            | Hook::AttnOut(_)
            | Hook::ResidMid(_)
            | Hook::MlpSum(_)
            | Hook::MlpOut(_)
            | Hook::ResidPost(_)
            | Hook::NormalizedResidPost(_)
            | Hook::MlmHeadPre
            | Hook::MlmHeadPost => &[Batch, Pos, DModel],
            Hook::Q(_) | Hook::RotQ(_) | Hook::Z(_) => &[Batch, Pos, Head, DHead],
            Hook::K(_) | Hook::RotK(_) | Hook::V(_) => &[Batch, Pos, Group, DHead],
            Hook::AttnScores(_) | Hook::Pattern(_) => &[Batch, Head, Query, Key],
            Hook::Result(_) => &[Batch, Pos, Head, DModel],
            Hook::Pre(_) | Hook::PreLinear(_) | Hook::Mid(_) | Hook::Post(_) => &[Batch, Pos, DMlp],
            Hook::Scale(site) => match site {
                NormSite::Q(_) => &[Batch, Pos, QueryRow, One],
                NormSite::K(_) => &[Batch, Pos, KeyRow, One],
                NormSite::Embed
                | NormSite::Ln1(_)
                | NormSite::Ln1Post(_)
                | NormSite::Ln2(_)
                | NormSite::Neurons(_)
                | NormSite::Ln2Post(_)
                | NormSite::Final
                | NormSite::MlmHead => &[Batch, Pos, One],
            },
            Hook::Normalized(site) => match site {
                NormSite::Q(_) => &[Batch, Pos, Head, DHead],
                NormSite::K(_) => &[Batch, Pos, Group, DHead],
                NormSite::Neurons(_) => &[Batch, Pos, DMlp],
                NormSite::Embed
                | NormSite::Ln1(_)
                | NormSite::Ln1Post(_)
                | NormSite::Ln2(_)
                | NormSite::Ln2Post(_)
                | NormSite::Final
                | NormSite::MlmHead => &[Batch, Pos, DModel],
            },
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
