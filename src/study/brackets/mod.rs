//! How a three-layer classifier tells balanced brackets from unbalanced ones.
//!
//! Two checks are made. One layer-0 head counts, at every position, what follows it: brackets are balanced if, from
//! every position on, at least as many close as open, and over all as many. MLPs turn the counts into yes or no. One
//! head of the last layer carries the answer about the whole sequence from position 1 to position 0, another one looks
//! for a position from which on the count is negative.
//!
//! # Source
//! The balanced bracket classifier of Redwood Research's and ARENA's exercises.

mod adversarial;
mod agreement;
mod beyond;
mod closing;
mod counting;
mod cures;
mod data;
mod directions;
mod heads;
mod negative;
mod neurons;
mod performance;
mod routes;
mod silence;
mod story;
mod written;

pub use adversarial::{Adversarial, Judged};
pub use agreement::{Agreement, Helper};
pub use beyond::Beyond;
pub use closing::{Closing, ClosingHead};
pub use counting::{ByPosition, Counter, Counting, Suffix};
pub use cures::Cure;
pub use data::{Data, StringKind};
pub use directions::{Directions, NormR2};
pub use heads::LastHead;
pub use negative::{Looks, Negative};
pub use neurons::{NeuronSide, Neurons};
pub use performance::Performance;
pub use routes::Routes;
pub use written::Along;

use super::{Announce, AttentionView};
use crate::error::{Error, Result};
use crate::linalg::Par;
use crate::model::{Config, Mask, Model};
use crate::names::Head;
use crate::task::{Brackets, Task};
use directions::Fits;
use serde::Serialize;
use written::{ANSWER, TALLY, Written};

/// What the study found.
#[derive(Clone, Debug, Serialize)]
pub struct BracketsStudy {
    /// The sequences that were looked at.
    #[serde(skip)]
    pub data: Data,
    /// The model's sizes, in a line.
    pub model: String,
    /// How good it is.
    pub performance: Performance,
    /// Which head does what.
    pub roles: Roles,
    /// The directions for "unbalanced", and the fits of norms that they go through.
    pub directions: Directions,
    /// The largest entry of the components' sum less the stream.
    pub sum_off: f64,
    /// Every component at position 0 along the unbalanced direction.
    pub components: Vec<Along>,
    /// The last layer's heads.
    pub last_heads: Vec<LastHead>,
    /// All heads' attention on the write-up's examples.
    pub attention: AttentionView,
    /// How far the last layer's heads agree.
    pub agreement: Agreement,
    /// The strings that begin with a closing bracket.
    pub closing: Closing,
    /// The components before the last layer, at position 1 along what the elevation head reads.
    pub components_before: Vec<Along>,
    /// The MLPs before the last layer by their neurons, along the same.
    pub neurons: Vec<Neurons>,
    /// Layer 0's heads as counters.
    pub counters: Vec<Counter>,
    /// Where the counting head looks, and what is read of it.
    pub counting: Counting,
    /// What passes from the count to the elevation head.
    pub routes: Routes,
    /// The branch for a count that goes negative.
    pub negative: Negative,
    /// What fools the model, and why.
    pub adversarial: Adversarial,
    /// Strings of other lengths and depths.
    pub beyond: Beyond,
}

/// Which head does what on this model.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Roles {
    /// The last layer's head that answers to a wrong total: 2.0 in the write-up.
    pub elevation: Head,
    /// The last layer's head that answers to a negative elevation: 2.1 in the write-up.
    pub negative: Head,
    /// Layer 0's head that counts: 0.0 in the write-up.
    pub counting: Head,
}

impl BracketsStudy {
    /// The head that answers to a wrong total.
    pub fn elevation_head(&self) -> &LastHead {
        self.last_head(self.roles.elevation)
    }

    /// The head that answers to a negative elevation.
    pub fn negative_head(&self) -> &LastHead {
        self.last_head(self.roles.negative)
    }

    fn last_head(&self, head: Head) -> &LastHead {
        let found = self.last_heads.iter().find(|h| h.head == head);
        found.expect("a head of the last layer")
    }

    /// The head that counts.
    pub fn counter(&self) -> &Counter {
        let found = self.counters.iter().find(|c| c.head == self.roles.counting);
        found.expect("a head of layer 0")
    }
}

/// How many parts of the study are reported as they begin.
pub const PARTS: usize = 9;

/// Does the study on a model.
///
/// # Errors
/// When the model is not of the task's shape: its vocabulary and classes, bidirectional attention that masks padding,
/// three layers or more with MLPs and norms, two heads or more.
///
/// # Cost
/// Two dozen runs on the sequences or some of them, and five fits of norms.
pub fn study(
    model: &Model<f64>,
    data: &Data,
    par: Par,
    progress: Announce<'_>,
) -> Result<BracketsStudy> {
    check(model.config())?;
    let last = model.config().n_layers - 1;
    progress("answers");
    let performance = performance::performance(model, data, par)?;
    progress("norms");
    let fits = Fits::new(model, data, par)?;
    let [after_norm, unbalanced] = fits.unbalanced(model)?;
    progress("components");
    let written = Written::new(model, data, &unbalanced, par)?;
    let components = written.along(ANSWER, &unbalanced, last + 1, &data.balanced);
    progress("heads");
    let last_heads = heads::last_heads(model, data, &written, &components, par)?;
    let [elevation, negative] = heads::roles(&last_heads);
    let [pre_elevation, _] = fits.through(model, elevation, &unbalanced)?;
    let [_, pre_negative] = fits.through(model, negative, &unbalanced)?;
    let components_before = written.along(TALLY, &pre_elevation, last, &data.balanced);
    let neurons = (0..last)
        .map(|layer| {
            let name = format!("mlp {layer}");
            let whole = components_before.iter().find(|a| a.component == name);
            let whole = whole.expect("every MLP is a component");
            neurons::neurons(model, &written, data, layer, &pre_elevation, whole)
        })
        .collect();
    progress("counting");
    let counters = counting::counters(model, &fits, &written, data)?;
    let most = |a: &&Counter, b: &&Counter| a.follows.total_cmp(&b.follows);
    let counter = counters
        .iter()
        .max_by(most)
        .expect("checked: there are two heads");
    let roles = Roles {
        elevation,
        negative,
        counting: counter.head,
    };
    let counting = Counting::new(model, &fits, roles.counting, data, par)?;
    let routes = Routes::new(model, data, &roles, &pre_elevation, par)?;
    progress("agreement");
    let agreement = Agreement::new(
        model,
        data,
        &written,
        &unbalanced,
        &components_before,
        &roles,
        par,
    )?;
    let closing = Closing::new(model, data, &written, &last_heads, par)?;
    let negative = Negative::new(&written, data, roles.negative, &pre_negative);
    progress("adversarial strings");
    let adversarial = Adversarial::new(model, &roles, par)?;
    progress("other lengths");
    let beyond = Beyond::new(model, data, par)?;
    progress("done");
    let c = model.config();
    Ok(BracketsStudy {
        data: data.clone(),
        model: format!(
            "{} layers of {} heads and {} neurons, d_model {}, d_head {}",
            c.n_layers,
            c.n_heads,
            c.d_mlp().unwrap_or_default(),
            c.d_model,
            c.d_head
        ),
        performance,
        roles,
        directions: fits.directions(
            model,
            [after_norm, unbalanced],
            [pre_elevation, pre_negative],
        ),
        sum_off: written.off,
        components,
        last_heads,
        agreement,
        closing,
        attention: heads::attention(model, par)?,
        components_before,
        neurons,
        counters,
        counting,
        routes,
        negative,
        adversarial,
        beyond,
    })
}

/// Whether the study can be made of such a model.
fn check(config: &Config) -> Result<()> {
    let task = Brackets::default();
    task.check_model(config)?;
    let wrong = |field, reason: String| Err(Error::Config { field, reason });
    if config.n_ctx != task.positions() {
        let reason = format!(
            "{}, expected {} for this study",
            config.n_ctx,
            task.positions()
        );
        return wrong("n_ctx", reason);
    }
    if config.mask != Mask::All {
        return wrong(
            "attention_dir",
            "causal, expected bidirectional for this study".into(),
        );
    }
    if config.pad_token != Some(task.pad_token()) {
        let reason = format!("expected {} for this study", task.pad_token());
        return wrong("pad_token", reason);
    }
    if config.mlp.is_none() {
        return wrong("attn_only", "true, expected MLPs for this study".into());
    }
    if config.norm.is_none() {
        return wrong(
            "normalization_type",
            "none, expected LN or LNPre for this study".into(),
        );
    }
    for (field, found, expected) in [
        ("n_layers", config.n_layers, 3),
        ("n_heads", config.n_heads, 2),
    ] {
        if found < expected {
            let reason = format!("{found}, expected at least {expected} for this study");
            return wrong(field, reason);
        }
    }
    Ok(())
}
