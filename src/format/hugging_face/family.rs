//! What a family of models is: how the fields of its `config.json` make a configuration, and which tensors hold which
//! parameters. Files are read and written by the same description.

use super::families::FAMILIES;
use crate::diagram::Config;
use crate::error::{Error, Result};
use crate::format::fields::Fields;

/// A family, as data. A test of every row is to read a folder that `transformers` wrote.
pub(crate) struct Family {
    /// Its `model_type`.
    pub name: &'static str,
    /// Other values of `model_type` that mean it.
    pub other_names: &'static [&'static str],
    /// The classes in `architectures` without an unembedding; the first is written.
    pub bodies: &'static [&'static str],
    /// Those with one; the first is written.
    pub with_head: &'static [&'static str],
    /// Other names of fields, each with the field that it means; where both are there, the other name's value counts.
    pub aliases: &'static [(&'static str, &'static str)],
    /// The fields, and what the family has whatever they say.
    pub fields: fn(&mut Fields, &mut Config, &mut Storage) -> Result<()>,
    /// What the names of the body's tensors begin with, and those of the head's; the first pair is written.
    pub prefixes: &'static [(&'static str, &'static str)],
    /// The body's tensors outside of blocks; the first one's is the embedding.
    pub body: &'static [Row],
    /// What the blocks are called, and the tensors of each.
    pub blocks: (&'static str, &'static [Row]),
    /// The head's.
    pub head: &'static [Row],
    /// Names of what is in files and is no parameter of ours: buffers, and parts that are not computed here. `{}` stands
    /// for a layer, a last `*` for any rest; with the body's prefix or alone.
    pub ignored: &'static [&'static str],
    /// Whether the weights of linear maps in blocks stand as `[inputs, outputs]`.
    pub inputs_first: bool,
}

/// A module of a file, whose tensors are `MODULE.weight` and `MODULE.bias`, and the parameters that they hold. In blocks
/// `blocks.L.` is left out.
pub(super) enum Row {
    /// A table with a row for each token, position or kind: `(parameter, module)`.
    Table(&'static str, &'static str),
    /// A norm: `(its module here, module)`. Old files say `gamma` and `beta`.
    Norm(&'static str, &'static str),
    /// A linear map `[outputs, inputs]`: `(W, module, …)`.
    Linear(&'static str, &'static str, Bias),
    /// Several linear maps in one: `([W], module, …)`.
    Fused(&'static [&'static str], &'static str, Weave, Bias),
    /// The unembedding `[d_vocab, d_model]`, which is not there where it is the embedding.
    Unembed(&'static str, Bias),
    /// A parameter alone, by its tensor's names.
    Alone(&'static str, &'static [&'static str]),
    /// The maps between the stream and embeddings of another width, where there are any: `(module before, module after)`.
    Projections(&'static str, &'static str),
}

/// Whether linear maps have biases. Those that they have not are zero here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bias {
    /// All of them.
    Yes,
    /// None.
    No,
    /// Where a field says so: [`Storage::biases`].
    Asked,
    /// Where both maps of gated neurons have one.
    OfGates,
}

/// How the outputs of several linear maps are laid out in one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Weave {
    /// All of the first, then all of the second, and so on.
    Stacked,
    /// All of the first head's, in turn of each map, then those of the second head.
    ByHead,
}

/// What a file says of its weights that a model does not know once they are read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Storage {
    /// Whether the unembedding is the embedding.
    pub tied: bool,
    /// Whether there is an unembedding.
    pub head: bool,
    /// Whether linear maps have the biases that depend on it.
    pub biases: bool,
    /// What embeddings are multiplied by; unembeddings are not.
    pub embed_scale: f64,
    /// How many rows of the table of positions come before that of the first position.
    pub first_position: usize,
    /// The embeddings' width, where it is not the stream's.
    pub projected: Option<usize>,
}

impl Default for Storage {
    fn default() -> Self {
        Storage {
            tied: false,
            head: true,
            biases: false,
            embed_scale: 1.0,
            first_position: 0,
            projected: None,
        }
    }
}

/// The family of that name.
///
/// # Errors
/// When none has it.
pub(super) fn family_of(name: &str) -> Result<&'static Family> {
    let is = |family: &&&Family| family.name == name || family.other_names.contains(&name);
    let found = FAMILIES.iter().find(is);
    found.copied().ok_or_else(|| {
        let reason = format!("{name:?} is not covered, expected one of {}", names());
        let field = "model_type";
        Error::Config { field, reason }
    })
}

/// The families' names, for a message.
pub(super) fn names() -> String {
    let names: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
    names.join(", ")
}
