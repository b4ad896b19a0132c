//! Normally distributed numbers.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// Seeded numbers of a standard normal distribution, made two at a time (Box and Muller).
pub struct Normal {
    rng: ChaCha8Rng,
    spare: Option<f64>,
}

impl Normal {
    /// One of a seed's streams: how many numbers are drawn from one moves none of another.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Normal { rng, spare: None }
    }

    /// The next one.
    pub fn draw(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        // In (0, 1]: its logarithm is finite.
        let u = 1.0 - self.rng.random_range(0.0..1.0f64);
        let angle = std::f64::consts::TAU * self.rng.random_range(0.0..1.0f64);
        let radius = (-2.0 * u.ln()).sqrt();
        self.spare = Some(radius * angle.sin());
        radius * angle.cos()
    }
}
