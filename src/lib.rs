//! pathsum runs transformers exactly as TransformerLens does, takes them apart, and checks that the parts
//! add up.
//!
//! ```
//! use pathsum::decompose::{By, Logit, direct_logit_attribution, residual_stack};
//! use pathsum::{Hook, Run, Tokens, fixture};
//!
//! // A model whose circuit is known: a previous-token head, then an induction head.
//! let model = fixture::induction::<f64>();
//! let tokens = Tokens::from_rows(&[[7, 3, 9, 7]]);
//! let out = model.run(&tokens, Run::new().cache("*"))?;
//!
//! // Head 1.0 looks back at the token after the 7 …
//! assert!(out.cache[Hook::Pattern(1)][[0, 0, 3, 1]] > 0.99);
//! // … and is what makes 3 the next token.
//! let stack = residual_stack(&model, &out.cache, Hook::ResidPost(1), By::Head)?;
//! let parts = direct_logit_attribution(&model, &out.cache, stack, &[Logit::Difference(3, 9)])?;
//! for (i, component) in parts.labels.iter().enumerate() {
//!     println!("{component}: {:.3}", parts.values[[i, 0, 3, 0]]);
//! }
//! # let head = parts.component("1.0".parse::<pathsum::Head>().map(pathsum::decompose::Component::Head)?).unwrap();
//! # assert!(head[[0, 3, 0]] > 11.0);
//! # Ok::<(), pathsum::Error>(())
//! ```
//!
//! # Conventions
//! They are TransformerLens's (HookedTransformer, version 2).
//!
//! - Activations are rows; weights act from the right; a path reads left to right: `W_E: [d_vocab, d_model]`,
//!   `W_Q, W_K, W_V: [d_model, d_head]`, `W_O: [d_head, d_model]`, `W_in: [d_model, d_mlp]`,
//!   `W_out: [d_mlp, d_model]`, `W_U: [d_model, d_vocab_out]`, per head. `W_QK = W_Q W_Kᵀ`, `W_OV = W_V W_O`.
//! - Activations: `[batch, pos, d]`, per head `[batch, pos, head, d]`, scores and patterns
//!   `[batch, head, query, key]`.
//! - Heads are written `layer.head` (`1.0`).
//! - Norms: `x - mean` (LayerNorm; RMSNorm takes no mean off), divided by `scale = sqrt(mean(x²) + eps)` (biased,
//!   `eps` inside), times `w` (or `1 + w`), plus `b`. `hook_scale` is that scale, `[batch, pos, 1]`; `hook_normalized`
//!   is the norm's output.
//! - Keys and values that heads share are there once, `[batch, pos, group, d_head]`.
//! - Rotary positions: `hook_q`, `hook_k` before, `hook_rot_q`, `hook_rot_k` after.
//! - Gated MLPs: `hook_pre` (the gate's), `hook_pre_linear`, `hook_post` (their product, plus `b_in`).
//! - Scores: `q kᵀ / attn_scale`; the causal mask is `-inf`, then keys at `pad_token` get `-1e5`, both before
//!   `hook_attn_scores`.
//! - Head results exclude `b_O` and include `b_V`.
//! - Everything is generic over f32 and f64 ([`Scalar`]); no step silently drops to f32.
//!
//! # Where to begin
//! [From a checkpoint to a circuit](guide::checkpoint), [from a prompt to a circuit](guide::prompt),
//! [identities in your tests](guide::identities), [sweeps](guide::sweeps), [training a task and taking it
//! apart](guide::training), [certificates](guide::certificates): pages whose code runs.
//!
//! # What do you want to do?
//! | | with |
//! |---|---|
//! | load a model, run it, look at activations | [`Model::load`], [`Model::run`] with a [`Run`], [`Cache`] by [`Hook`] |
//! | read and write text, and go on with one | [`text::Tokenizer`], [`Model::continuation`] |
//! | change an activation on the way | [`Run::hook`]; as a value that can be swept, [`intervene`] |
//! | compute a circuit, `W_E W_OV[1.0] W_U` | [`eval::Circuit`]; [`expr`] for the grammar, [`plan`] for the cost |
//! | split the stream, or a logit, into what was added to it | [`decompose`] |
//! | see what each layer would say, and what heads are known by | [`decompose::logit_lens`], [`decompose::PatternScores`], [`decompose::copying_scores`] |
//! | ask which paths through the heads make a logit | [`decompose::Paths`] |
//! | state an identity and have it checked in a test | [`assert_identity!`], [`verify::prove`], [`verify::check`] |
//! | ablate or patch every place of a site | [`intervene::Sweep`] over a [`intervene::Grid`], read by a [`metric`] |
//! | know what each edge between components does, exactly or by derivatives, and run circuits | [`edges`] |
//! | test a hypothesis by causal scrubbing | [`intervene::scrub`] |
//! | prove how a model answers every input of a task | [`certify`] |
//! | have a derivative, by values or parameters | [`gradient`] |
//! | process weights as TransformerLens does | [`model::process`] |
//! | work with matrices of low rank | [`Factored`]; decompositions and fits in [`linalg`] |
//! | have a small model of a task to try things on | [`fixture`], [`task`], [`train`] |
//! | take values over residues apart by frequency | [`frequency`] |
//! | do a published analysis again | [`study`] |
//!
//! `docs/ARCHITECTURE.md` in the repository says how these rooms lean on one another.
//!
//! # Features
//! Without any of them (`default-features = false`) the library is the core: models and runs, decompositions, circuits,
//! verification, interventions, gradients.
//!
//! - `torch` (default): reading PyTorch state dicts.
//! - `tasks`: the algorithmic tasks, [`task`].
//! - `train` (with `tasks`): training models of them, [`train`].
//! - `certify` (with `tasks`): claims over all inputs of a task, proved, [`certify`].
//! - `studies` (with `tasks`): the published analyses, [`study`].
//! - `report` (with `studies`): a study's story as a page.
//! - `text`: the tokenizers of models' folders, [`text`].
//! - `fixtures`: the trained models that [`fixture`] embeds, 2 MB.
//! - `cli` (default): the program, with `train`, `report`, `text` and `fixtures`.
//! - `blas`: large products by the BLAS that the program links, [`linalg::check_blas`].
//! - `browser`: what a report's WebAssembly module computes, [`browser`].
//! - `proptest`: strategies for random configurations, models and tokens, for property tests.
//! - `nalgebra`: conversions between [`Tensor`] and nalgebra's matrices.

// Without a feature there is nothing to link to.
#![cfg_attr(
    not(all(
        feature = "blas",
        feature = "browser",
        feature = "certify",
        feature = "studies",
        feature = "text",
        feature = "train"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]

#[cfg(feature = "browser")]
pub mod browser;
#[cfg(feature = "certify")]
pub mod certify;
pub mod decompose;
pub mod diagram;
pub mod edges;
pub mod eval;
pub mod expr;
pub mod factored;
pub mod fixture;
pub mod format;
pub mod frequency;
pub mod gradient;
#[cfg(any(doc, doctest))]
pub mod guide;
pub mod intervene;
mod kernel;
pub mod linalg;
pub mod metric;
pub mod model;
pub mod names;
mod op;
pub mod plan;
#[cfg(feature = "report")]
pub mod report;
mod resume;
#[cfg(feature = "proptest")]
pub mod strategies;
#[cfg(feature = "studies")]
pub mod study;
#[cfg(feature = "tasks")]
pub mod task;
pub mod tensor;
#[cfg(feature = "text")]
pub mod text;
#[cfg(feature = "train")]
pub mod train;
pub mod verify;

mod error;

pub use error::{Error, Result};
pub use factored::Factored;
pub use linalg::Par;
pub use model::{Cache, Config, Model, Run, RunOutput, Tokens, Weights};
pub use names::{Head, Hook, HookPattern, HookQuery};
pub use tensor::{Precision, Scalar, Tensor, TensorFile, write_safetensors};

/// The README's examples are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
