//! Models of random weights at the sizes of language models, in f32.

use pathsum::{Config, Model, Tensor, Weights};

pub const GPT2: &str = r#"{"n_layers": 12, "d_model": 768, "n_ctx": 1024, "d_head": 64, "d_vocab": 50257,
    "act_fn": "gelu_new"}"#;

/// The same weights every time.
pub fn model(config: &str) -> Model<f32> {
    let config = Config::from_json(config).unwrap();
    let mut state = 1u64;
    let mut random = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 0.07
    };
    let weights = Weights::build(&config, |_, shape| Ok(Tensor::from_fn(shape, |_| random())));
    Model::new(config, weights.unwrap()).unwrap()
}
