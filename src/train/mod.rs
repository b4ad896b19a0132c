//! Training: AdamW on the cross-entropy at the answers' positions, with checkpoints that lose no step.
//!
//! ```
//! use pathsum::metric::Answers;
//! use pathsum::task::Labelled;
//! use pathsum::train::{Schedule, Settings, Trainer};
//! use pathsum::{Config, Par, Tokens};
//!
//! // To say the token before.
//! let config = Config::from_json(
//!     r#"{"n_layers": 1, "d_model": 16, "n_ctx": 4, "d_head": 8, "n_heads": 2, "d_vocab": 4, "attn_only": true}"#,
//! )?;
//! let data = |step: usize| {
//!     let tokens = Tokens::random(&config, 32, step as u64);
//!     let before = |i: usize| tokens.sequence(i)[2] as usize;
//!     let answers = Answers::new(&[3], (0..32).map(before).collect());
//!     Labelled { tokens, answers }
//! };
//! let settings = Settings { steps: 150, schedule: Schedule::constant(0.01), ..Settings::default() };
//! let mut trainer = Trainer::<f32>::new(config.clone(), settings)?;
//! let outcome = trainer.run(&data, &data(1000), None, &mut |_| {}, Par::Seq)?;
//! assert!(outcome.accuracy > 0.9);
//! # Ok::<(), pathsum::Error>(())
//! ```

mod adam;
mod checkpoint;
mod data;
mod evaluate;
mod initialise;
mod recipe;
mod schedule;
mod settings;
mod trainer;

pub use adam::AdamW;
pub use checkpoint::{snapshots, training_curve};
pub use data::TrainingSet;
pub use evaluate::{Evaluation, Goal, evaluate};
pub use initialise::initialise;
pub use recipe::{Drawn, Recipe, Trained, TrainingData};
pub use schedule::{Decay, Schedule};
pub use settings::Settings;
pub use trainer::{Progress, Trainer};
