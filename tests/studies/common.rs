//! What the tests of several studies need.

use pathsum::study::{Outcome, Story};
use pathsum::{Config, Model, Tensor, Weights};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

/// A configuration, but for these fields.
pub fn with_fields(mut config: Value, other: &[(&str, Value)]) -> pathsum::Result<Config> {
    for (field, value) in other {
        config[*field] = value.clone();
    }
    Config::from_json(&config.to_string())
}

/// A model that was never trained, of weights up to `size`.
pub fn untrained(config: &Config, size: f64, seed: u64) -> Model<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let weights = Weights::build(config, |_, shape| {
        Ok(Tensor::from_fn(shape, |_| rng.random_range(-size..size)))
    });
    Model::new(config.clone(), weights.unwrap()).unwrap()
}

/// The numbers fit together, are read back as they were written, and make a page that is not too large; every verdict
/// says why.
#[track_caller]
pub fn sound(story: &Story) {
    story.check().unwrap();
    let json = serde_json::to_string(story).unwrap();
    assert_eq!(&serde_json::from_str::<Story>(&json).unwrap(), story);
    #[cfg(feature = "report")]
    {
        const PAGE: usize = 8 << 20;
        let page = pathsum::report::html(story);
        assert!(page.len() < PAGE, "{} bytes", page.len());
    }
    assert!(story.steps.iter().all(|s| !s.verdict.because.is_empty()));
}

#[track_caller]
pub fn outcome(story: &Story, step: &str) -> Outcome {
    let found = story.steps.iter().find(|s| s.id == step);
    let found = found.unwrap_or_else(|| panic!("no step {step}"));
    found.verdict.outcome
}
