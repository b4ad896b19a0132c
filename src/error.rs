//! What can be wrong with a user's input, each said in one line: what, where, and what was expected.

use crate::names::{Head, Hook};
use std::path::{Path, PathBuf};

/// An error that a user's input can cause.
///
/// A variant is a kind: what a program would do about it. Its message is for people, and says more.
///
/// ```
/// use pathsum::{Error, Hook, Run, Tokens, fixture};
/// let model = fixture::induction::<f64>();
/// let out = model.run(&Tokens::from_rows(&[[7, 3, 9, 7]]), Run::new())?;
/// match out.cache.require(Hook::Z(0)) {
///     Err(Error::NotCached(hook)) => assert_eq!(hook, Hook::Z(0)), // run again, and keep it
///     _ => unreachable!("nothing was kept"),
/// }
/// # Ok::<(), pathsum::Error>(())
/// ```
///
/// Broken internal contracts (two matrices whose shapes do not meet, say) panic instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's word.
        error: std::io::Error,
    },
    /// A file does not hold what its format promises.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// A field of a configuration has a value that makes no sense or is not covered.
    #[error("config field `{field}`: {reason}")]
    Config {
        /// The field, as HookedTransformerConfig spells it.
        field: &'static str,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// A configuration that is not readable as one.
    #[error("config: {0}")]
    ConfigJson(String),
    /// A tensor of the wrong shape.
    #[error("tensor `{name}` has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The tensor's name.
        name: String,
        /// The shape it has.
        found: Vec<usize>,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// A tensor whose elements are of a type that cannot be used there.
    #[error("tensor `{name}` holds {found}, expected {expected}")]
    Dtype {
        /// The tensor's name.
        name: String,
        /// The type it holds.
        found: String,
        /// The types that would do.
        expected: &'static str,
    },
    /// A tensor that should be there is not.
    #[error("tensor `{name}` is missing, expected shape {expected:?}")]
    MissingTensor {
        /// The tensor's name.
        name: String,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// A tensor that the configuration has no place for.
    #[error("tensor `{name}` has no place in this model: {reason}")]
    UnexpectedTensor {
        /// The tensor's name.
        name: String,
        /// Why, and the nearest name that has one.
        reason: String,
    },
    /// A token that the model's vocabulary does not have.
    #[error(
        "token {token} of sequence {sequence} at position {position} is out of range: this model's tokens are 0..={max}"
    )]
    Token {
        /// The token.
        token: i64,
        /// The sequence it is in, from 0.
        sequence: usize,
        /// Its position, from 0.
        position: usize,
        /// The largest token there is.
        max: usize,
    },
    /// Sequences longer than the model's context.
    #[error("the sequences have {len} positions, this model takes 1 to {n_ctx} (n_ctx)")]
    SequenceLength {
        /// The sequences' length.
        len: usize,
        /// The longest length the model takes.
        n_ctx: usize,
    },
    /// Something that would not fit in memory.
    #[error("{what} would take {:.1} GiB, and there are {:.1}", gib(*bytes), gib(*there))]
    Memory {
        /// What it is for.
        what: String,
        /// How many bytes it would take.
        bytes: u64,
        /// How many there are.
        there: u64,
    },
    /// A name that is not one of those expected.
    #[error("unknown {kind} `{name}`{hint}")]
    Unknown {
        /// What kind of name: hook, step, fixture…
        kind: &'static str,
        /// The name given.
        name: String,
        /// `; did you mean …?`, or the names there are.
        hint: String,
    },
    /// An expression that does not say anything, or nothing that makes sense.
    #[error("{message}\n  {text}\n  {}", carets(text, span))]
    Expression {
        /// What is wrong, and what was expected.
        message: String,
        /// The expression.
        text: String,
        /// Where in it, in bytes.
        span: std::ops::Range<usize>,
    },
    /// A text that is not written as what it should say: a head, a form.
    #[error("{kind} `{text}`: expected {expected}")]
    Malformed {
        /// What it should be: head, form…
        kind: &'static str,
        /// The text given.
        text: String,
        /// How it is written.
        expected: &'static str,
    },
    /// A value at a hook that the run kept nothing of: run again with the hook in the cache.
    #[error("the run kept no `{0}`: cache it")]
    NotCached(Hook),
    /// A value of a run in an expression, where there is no run: give tokens.
    #[error("`{0}` is a value of a run, and no tokens were given to run the model on")]
    NeedsRun(String),
    /// A head that the model does not have.
    #[error("head {head}: this model has {layers} layers of {heads} heads")]
    NoSuchHead {
        /// The head asked for.
        head: Head,
        /// The model's layers.
        layers: usize,
        /// The heads of each.
        heads: usize,
    },
    /// Something that this kind of model, or one with so many layers, does not have: a hook, a norm, an MLP's weights.
    #[error("this model has no {0}")]
    NotInModel(String),
    /// An index beyond what there is: a layer, position, sequence, logit…
    #[error("{what} {index}{of}: {whose} are {}..={}", range.start, range.end.saturating_sub(1))]
    OutOfRange {
        /// What is counted: layer, position, sequence, logit…
        what: &'static str,
        /// The index asked for.
        index: usize,
        /// What it is a part of, ` of …`, where that needs saying.
        of: String,
        /// The indices there are, in words.
        whose: &'static str,
        /// The indices there are.
        range: std::ops::Range<usize>,
    },
    /// A hook whose value is not of the kind that is needed there.
    #[error("`{hook}` {reason}")]
    WrongHook {
        /// The hook.
        hook: Hook,
        /// What it is not, and which hooks would do.
        reason: String,
    },
    /// What was asked for is made for other models: why not for this one.
    #[error("not covered for this model: {0}")]
    NotCovered(&'static str),
    /// One place of the model asked for what reaches it from another that is not before it.
    #[error("{0}")]
    NotUpstream(String),
    /// A tensor with another number of axes than expected.
    #[error("tensor `{name}` has shape {found:?}, expected {expected}")]
    Axes {
        /// The tensor's name.
        name: String,
        /// The shape it has.
        found: Vec<usize>,
        /// The axes it should have.
        expected: &'static str,
    },
    /// Two inputs that belong together and are not of one size: answers and tokens, a source and a batch, a direction
    /// and what it is a direction of.
    #[error("{0}")]
    Mismatch(String),
    /// More than the caller allows: allow more, or take the other way that the message names.
    #[error("{message}")]
    TooMany {
        /// How many there are, at least.
        found: u128,
        /// How many are allowed.
        most: u128,
        /// Of what, and what to do instead.
        message: String,
    },
    /// Fewer data, or a smaller number, than it takes.
    #[error("{message}")]
    TooFew {
        /// How many there are.
        found: usize,
        /// How many it takes.
        least: usize,
        /// Of what.
        message: String,
    },
    /// A circuit whose value has not the form asked for: no square matrix, not one matrix.
    #[error("{0}")]
    Form(String),
    /// A statement that nothing decides.
    #[error("{0}")]
    Undecided(String),
    /// A metric that cannot be read, or differentiated, on these answers and logits.
    #[error("{0}")]
    Metric(String),
    /// A change of a hook's value that cannot be made.
    #[error("`{hook}`: {reason}")]
    Intervention {
        /// The hook.
        hook: Hook,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// An experiment whose parts do not go together: the axes of a grid, the shards of a sweep, the nodes of a
    /// hypothesis.
    #[error("{0}")]
    Experiment(String),
    /// A sequence that has not its task's form.
    #[error("{message}")]
    Sequence {
        /// Which of a batch it is, from 0; `None` for one alone.
        sequence: Option<usize>,
        /// What is wrong, and what was expected.
        message: String,
    },
    /// A training recipe that makes no sense.
    #[error("recipe: {0}")]
    Recipe(String),
    /// A study's story whose parts do not fit together.
    #[error("{0}")]
    Story(String),
    /// Numbers that cannot be computed with, or a numerical routine that did not get there.
    #[error("{0}")]
    Numeric(String),
}

/// Bytes in GiB.
fn gib(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}

/// Carets below the part of a one-line text.
fn carets(text: &str, span: &std::ops::Range<usize>) -> String {
    let before = text[..span.start].chars().count();
    let wide = text[span.clone()].trim_end().chars().count().max(1);
    format!("{}{}", " ".repeat(before), "^".repeat(wide))
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(path: &Path, error: std::io::Error) -> Self {
        Error::Io {
            path: path.into(),
            error,
        }
    }

    pub(crate) fn format(path: &Path, reason: impl ToString) -> Self {
        Error::Format {
            path: path.into(),
            reason: reason.to_string(),
        }
    }

    /// An index of a kind of thing that there are `range` of; `of` says of what in particular, or nothing.
    pub(crate) fn out_of_range(
        what: &'static str,
        index: usize,
        of: impl ToString,
        whose: &'static str,
        range: std::ops::Range<usize>,
    ) -> Self {
        Error::OutOfRange {
            what,
            index,
            of: of.to_string(),
            whose,
            range,
        }
    }

    /// An unknown name, with the nearest of the names there are, when one is near.
    pub(crate) fn unknown<'a>(
        kind: &'static str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Error::Unknown {
            kind,
            name: name.to_string(),
            hint: nearest_hint(name, known),
        }
    }
}

/// `; did you mean …?` for the nearest of `known`; else the list of them when it is short.
pub(crate) fn nearest_hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    // Similarity below this is noise: "xyz" should not be told "did you mean hook_z?".
    const NEAR: f64 = 0.7;
    // A list that still fits one line of a terminal.
    const SHORT: usize = 8;
    // Longer than any name there is; comparing takes time and memory with both lengths.
    const LONG: usize = 200;
    let known: Vec<&str> = known.into_iter().collect();
    let near = known
        .iter()
        .filter(|_| name.len() <= LONG)
        .map(|k| {
            // In one case, so that `b_o` is told `b_O` and not `b_K`; and `WU` is told `W_U`.
            let plain = |s: &str| s.to_lowercase().replace('_', "");
            let (name, lower) = (plain(name), plain(k));
            (
                strsim::jaro_winkler(&name, &lower),
                strsim::damerau_levenshtein(&name, &lower),
                *k,
            )
        })
        .filter(|&(similarity, _, _)| similarity >= NEAR)
        .min_by(|a, b| a.1.cmp(&b.1).then(b.0.total_cmp(&a.0)));
    match near {
        Some((_, _, k)) => format!("; did you mean `{k}`?"),
        None if known.is_empty() => String::new(),
        None if known.len() <= SHORT => format!("; there are: {}", known.join(", ")),
        None => format!(
            "; there are {} of them, `{}` for one",
            known.len(),
            known[0]
        ),
    }
}
