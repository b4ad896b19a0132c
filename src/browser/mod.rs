//! A model that a page carries and runs: what the WebAssembly module of a report computes.
//!
//! The module is this library built for `wasm32-unknown-unknown` (`.ci/browser` builds it); its functions stand in `calls.rs`
//! and do no more than take bytes to a [`Session`] and back. So the page's numbers come from the same forward pass as the
//! program's.

#[cfg(target_family = "wasm")]
#[allow(unsafe_code)] // Exported names are: two functions could have the same one.
mod calls;

use crate::diagram::Config;
use crate::error::{Error, Result};
use crate::linalg::Par;
use crate::model::{Model, Run, Tokens};
use crate::names::{Head, Hook};
use crate::tensor::{Tensor, TensorFile};
use serde::Deserialize;
use std::path::Path;

/// A model, in f64, that is run again and again on one sequence after the other.
pub struct Session {
    model: Model<f64>,
}

/// What is to be run, as the page asks for it: `{"tokens": [3, 1, 4], "ablated": [[0, 1]]}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    tokens: Vec<i64>,
    /// Heads, `[layer, head]`, that write nothing: their `hook_z` is zero.
    ablated: Vec<[usize; 2]>,
}

impl Session {
    /// Takes a model: the text of its `config.json`, and the bytes of its `model.safetensors`.
    ///
    /// # Errors
    /// As [`Config::from_json`], [`TensorFile::from_bytes`] and [`Model::from_file`].
    pub fn load(config: &str, weights: Vec<u8>) -> Result<Self> {
        let config = Config::from_json(config)?;
        let file = TensorFile::from_bytes("the page's weights", weights)?;
        let model = Model::from_file(config, &file)?;
        Ok(Session { model })
    }

    /// Runs one sequence with some heads ablated: `{"tokens": [3, 1, 4], "ablated": [[0, 1]]}`, where an ablated head
    /// `[layer, head]` mixes nothing (`hook_z` is zero).
    ///
    /// # Shapes
    /// The logits, `[pos, d_vocab_out]`, and after them every layer's patterns, `[layer, head, query, key]`, row-major.
    ///
    /// # Errors
    /// When the request is not such JSON, the model has no such head, and as [`Model::run`].
    ///
    /// # Cost
    /// A run of one sequence, on the calling thread.
    pub fn run(&self, request: &[u8]) -> Result<Vec<f64>> {
        let request: Request = serde_json::from_slice(request)
            .map_err(|e| Error::format(Path::new("the page's request"), e))?;
        let c = self.model.config();
        let mut run = Run::new().par(Par::Seq);
        for [layer, head] in request.ablated {
            c.check_head(Head { layer, head })?;
            run = run.hook(Hook::Z(layer), move |z: &mut Tensor<f64>, _| {
                for position in 0..z.shape()[1] {
                    z.slice_mut(&[0, position, head]).fill(0.0);
                }
            });
        }
        for layer in 0..c.n_layers {
            run = run.cache(Hook::Pattern(layer));
        }
        let tokens = Tokens::new(1, request.tokens.len(), request.tokens);
        let out = self.model.run(&tokens, run)?;
        let mut values = out.logits.data().to_vec();
        for layer in 0..c.n_layers {
            values.extend_from_slice(out.cache.require(Hook::Pattern(layer))?.data());
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::tensor::safetensors_bytes;

    fn session(model: &Model<f64>) -> Session {
        let tensors = model.weights().state_dict();
        let named = tensors.iter().map(|(name, t)| (name.clone(), &**t));
        let bytes = safetensors_bytes(named).unwrap();
        Session::load(&model.config().to_json(), bytes).unwrap()
    }

    #[test]
    fn a_session_runs_the_model_and_an_ablated_head_writes_nothing() {
        let model = fixture::induction::<f64>();
        let c = model.config();
        let tokens = [7, 3, 9, 7];
        let session = session(&model);
        let whole = session
            .run(br#"{"tokens": [7, 3, 9, 7], "ablated": []}"#)
            .unwrap();
        let run = Run::new().cache("*.hook_pattern").par(Par::Seq);
        let out = model.run(&Tokens::from_rows(&[tokens]), run).unwrap();
        let (logits, patterns) = whole.split_at(out.logits.len());
        assert_eq!(logits, out.logits.data());
        for (layer, own) in patterns.chunks_exact(c.n_heads * 16).enumerate() {
            assert_eq!(own, out.cache[Hook::Pattern(layer)].data());
        }
        // Without its output the induction head still attends, and the token after the first 7 is no longer foretold.
        let without = session
            .run(br#"{"tokens": [7, 3, 9, 7], "ablated": [[1, 0]]}"#)
            .unwrap();
        let last = 3 * c.d_vocab_out;
        assert!(whole[last + 3] > without[last + 3] + 1.0);
        // It may have gone another way through the same sums: a weight is a quotient of sums of `exp`s of products.
        let slack = (4 * c.d_model * c.n_ctx) as f64 * f64::EPSILON;
        for (own, other) in patterns.iter().zip(&without[out.logits.len()..]) {
            assert!((own - other).abs() <= slack, "{own} and {other}");
        }
    }

    #[test]
    fn what_cannot_be_run_is_refused_in_a_line() {
        let session = session(&fixture::induction::<f64>());
        for (request, said) in [
            ("{}", "missing field `tokens`"),
            (r#"{"tokens": [1], "ablated": [[2, 0]]}"#, "2.0"),
            (r#"{"tokens": [99], "ablated": []}"#, "99"),
        ] {
            let error = session.run(request.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(said), "{request}: {error}");
            assert!(!error.contains('\n'));
        }
    }
}
