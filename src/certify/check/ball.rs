//! The checker's numbers: middles with radii.

use faer::MatRef;

/// A middle, and how far from it the number is at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ball(pub f64, pub f64);

pub(super) type Row = Vec<Ball>;

/// A little more than a sum or product of a few positive numbers came out as.
fn pad(r: f64) -> f64 {
    r * (1.0 + 4.0 * f64::EPSILON) + f64::MIN_POSITIVE
}

impl Ball {
    pub const ZERO: Ball = Ball(0.0, 0.0);
    pub const ONE: Ball = Ball(1.0, 0.0);

    pub fn of(x: f64) -> Ball {
        Ball(x, 0.0)
    }
    pub fn plus(self, b: Ball) -> Ball {
        let m = self.0 + b.0;
        Ball(m, pad(self.1 + b.1 + f64::EPSILON * m.abs()))
    }
    pub fn minus(self, b: Ball) -> Ball {
        self.plus(Ball(-b.0, b.1))
    }
    pub fn times(self, b: Ball) -> Ball {
        let m = self.0 * b.0;
        let r = self.0.abs() * b.1 + self.1 * (b.0.abs() + b.1);
        Ball(m, pad(r + f64::EPSILON * m.abs()))
    }
    pub fn inverse(self) -> Ball {
        // |1/x - 1/m| = |x - m| / |x m|; a number that may be zero has no inverse.
        let (m, size) = (1.0 / self.0, self.0.abs());
        let away = size * (1.0 - f64::EPSILON) - self.1;
        let away = if away > 0.0 { away } else { f64::NAN };
        Ball(m, pad(pad(self.1 / away) / size + f64::EPSILON * m.abs()))
    }
    pub fn root(self) -> Ball {
        // |√x - √m| = |x - m| / (√x + √m)
        let m = self.0.sqrt();
        Ball(m, pad(pad(self.1 / m) + f64::EPSILON * m))
    }
    pub fn exp(self) -> Ball {
        // e^x = (e^(x / 2^k))^(2^k), and Taylor's polynomial where |x| <= 1: what is left out is below twice the next term.
        const TERMS: u32 = 24;
        // No score of a model is so far from another; what is not finite is known to be nothing.
        const LARGEST: f64 = (1u64 << 20) as f64;
        let size = self.0.abs() + self.1;
        if size.is_nan() || size > LARGEST {
            return Ball(f64::NAN, f64::NAN);
        }
        // e^-1000 is below the smallest normal number.
        if self.hi() < -1000.0 {
            return Ball(0.0, f64::MIN_POSITIVE);
        }
        let k = size.max(1.0).log2().ceil() as i32;
        let x = Ball(self.0 * 2f64.powi(-k), self.1 * 2f64.powi(-k));
        let mut sum = Ball::ONE;
        for n in (1..=TERMS).rev() {
            let over_n = 1.0 / f64::from(n);
            let over_n = Ball(over_n, f64::EPSILON * over_n);
            sum = Ball::ONE.plus(x.times(sum).times(over_n));
        }
        let next = (1..=TERMS + 1).fold(2.0, |term, n| term / f64::from(n));
        sum.1 = pad(sum.1 + next);
        (0..k).fold(sum, |power, _| power.times(power))
    }
    pub fn lo(self) -> f64 {
        // Of what is known to be nothing there is no least.
        (self.0 - self.1).max(f64::NEG_INFINITY).next_down()
    }
    pub fn hi(self) -> f64 {
        -Ball(-self.0, self.1).lo()
    }
}

pub(super) fn exact(x: &[f64]) -> Row {
    x.iter().copied().map(Ball::of).collect()
}

pub(super) fn each(x: &[Ball], f: fn(Ball, Ball) -> Ball, y: &[Ball]) -> Row {
    x.iter().zip(y).map(|(&x, &y)| f(x, y)).collect()
}

pub(super) fn scaled(x: &[Ball], by: Ball) -> Row {
    x.iter().map(|x| x.times(by)).collect()
}

pub(super) fn total(x: &[Ball]) -> Ball {
    x.iter().copied().fold(Ball::ZERO, Ball::plus)
}

/// A sum of `n` products, each with what it is off by: what its own rounding adds, `n + 1` of the sum of moduli. The
/// radii, that with so many times `EPSILON` of each product, are themselves such a sum.
fn widened(sum: Ball, n: usize) -> Ball {
    let up = 1.0 + (n + 8) as f64 * f64::EPSILON;
    Ball(sum.0, sum.1 * up + (n + 2) as f64 * f64::MIN_POSITIVE)
}

pub(super) fn dot(x: &[Ball], y: impl Iterator<Item = Ball>) -> Ball {
    let share = (x.len() + 2) as f64 * f64::EPSILON;
    let sum = x.iter().zip(y).fold(Ball::ZERO, |sum, (x, y)| {
        let m = x.0 * y.0;
        let r = x.0.abs() * y.1 + x.1 * (y.0.abs() + y.1);
        Ball(sum.0 + m, sum.1 + (r + share * m.abs()))
    });
    widened(sum, x.len())
}

/// `x W`
pub(super) fn through(x: &[Ball], W: MatRef<'_, f64>) -> Row {
    let share = (x.len() + 2) as f64 * f64::EPSILON;
    let mut sums = vec![Ball::ZERO; W.ncols()];
    for (x, row) in x.iter().zip(W.row_iter()) {
        let r = x.1 + share * x.0.abs();
        let row = row.try_as_row_major().expect("weights are row by row");
        for (sum, w) in sums.iter_mut().zip(row.as_slice()) {
            *sum = Ball(sum.0 + x.0 * w, sum.1 + r * w.abs());
        }
    }
    sums.into_iter().map(|sum| widened(sum, x.len())).collect()
}
