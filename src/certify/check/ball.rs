//! The checker's numbers: middles with radii.

use faer::MatRef;

/// A middle, and how far from it the number is at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ball(pub f64, pub f64);

pub(super) type Row = Vec<Ball>;

/// A little more than a sum or product of a few positive numbers came out as.
#[inline(always)]
fn pad(r: f64) -> f64 {
    r * (1.0 + 4.0 * f64::EPSILON) + f64::MIN_POSITIVE
}

/// `e^x` of some numbers abreast, and how far from it `e` to what is no further than `off` from `x` is at most.
// By their number: so the compiler makes vectors of them.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
pub(super) fn exp<const N: usize>(x: [f64; N], off: [f64; N]) -> [[f64; N]; 2] {
    use std::f64::consts::{LN_2, LOG2_E};
    // x = n ln 2 + y with |y| below a half. What WHOLE is added to is rounded to whole numbers, that stand in its last bits.
    const WHOLE: f64 = 1.5 * (1u64 << 52) as f64;
    let (mut y, mut power, mut sum) = ([0.0; N], [0.0; N], [1.0; N]);
    for i in 0..N {
        let shifted = x[i] * LOG2_E + WHOLE;
        y[i] = x[i] - (shifted - WHOLE) * LN_2;
        power[i] = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    }
    // Taylor's polynomial leaves out below twice 0.5^16 / 16!, a hundredth of EPSILON. A step's four roundings are below
    // five halves of EPSILON, and it halves what the one before was off by: five in all, of what is above 0.6.
    for n in (1..16).rev() {
        let over_n = 1.0 / f64::from(n);
        for i in 0..N {
            sum[i] = 1.0 + y[i] * sum[i] * over_n;
        }
    }
    let (mut e, mut radius) = ([0.0; N], [0.0; N]);
    for i in 0..N {
        // y is off by two roundings of n ln 2, which is no more than |x| + 1, and by its own; e^d - 1 <= d + d² up to one.
        let off = off[i] + f64::EPSILON * (x[i].abs() + 1.0);
        let own = sum[i] * power[i];
        let away = pad(own * (off + off * off + 32.0 * f64::EPSILON));
        let known = (x[i].abs() < 700.0) & (y[i].abs() <= 0.5) & (off <= 1.0);
        // e^-700 is below 2^-1000.
        let none = x[i] + off < -700.0;
        let [own, away] = [own, away].map(|x| if known { x } else { f64::NAN });
        e[i] = if none { 0.0 } else { own };
        radius[i] = if none { f64::from_bits(23 << 52) } else { away };
    }
    [e, radius]
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
        let [[m], [r]] = exp([self.0], [self.1]);
        Ball(m, r)
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
