//! What can be wrong with a user's input, each said in one line: what, where, and what was expected.

use std::path::{Path, PathBuf};

/// An error that a user's input can cause.
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
    /// A request that cannot be met on this model or input.
    #[error("{0}")]
    Request(String),
    /// A numerical routine did not get there.
    #[error("{0}")]
    Numeric(String),
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
