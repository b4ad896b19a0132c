//! Numbers that are known to lie between two others.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// A real number between `lo` and `hi`; everything computed from it is, too.
///
/// An operation takes the nearest numbers' neighbours: what the processor rounds to is one of the two numbers next to
/// the exact result, so that one step down or up is beyond it, in the default rounding mode and without changing it.
/// What is not known (a quotient by zero, an overflow) is everything there is, `-inf` to `inf`; no bound is ever NaN.
///
/// ```
/// use pathsum::certify::Interval;
/// let third = Interval::of(1.0) / Interval::of(3.0);
/// assert!(third.lo < third.hi && third.hi - third.lo <= 2.0 * f64::EPSILON);
/// assert!((third * Interval::of(3.0)).contains(1.0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// No more than the number.
    pub lo: f64,
    /// No less than it.
    pub hi: f64,
}

/// One step down; what was no number bounds nothing.
fn down(x: f64) -> f64 {
    if x.is_nan() {
        f64::NEG_INFINITY
    } else {
        x.next_down()
    }
}

/// One step up.
fn up(x: f64) -> f64 {
    if x.is_nan() {
        f64::INFINITY
    } else {
        x.next_up()
    }
}

impl Interval {
    /// Zero.
    pub const ZERO: Interval = Interval { lo: 0.0, hi: 0.0 };
    /// One.
    pub const ONE: Interval = Interval { lo: 1.0, hi: 1.0 };
    /// Any number.
    pub const ALL: Interval = Interval {
        lo: f64::NEG_INFINITY,
        hi: f64::INFINITY,
    };

    /// Exactly this number; anything, where it is none or infinite.
    pub fn of(x: f64) -> Interval {
        match x.is_finite() {
            true => Interval { lo: x, hi: x },
            false => Interval::ALL,
        }
    }

    /// From bounds.
    ///
    /// # Panics
    /// When they are the wrong way round, or not numbers.
    #[track_caller]
    pub fn new(lo: f64, hi: f64) -> Interval {
        assert!(lo <= hi, "no number is between {lo} and {hi}");
        Interval { lo, hi }
    }

    /// Whether a number is among those it may be.
    pub fn contains(self, x: f64) -> bool {
        self.lo <= x && x <= self.hi
    }

    /// A number near the middle.
    pub fn middle(self) -> f64 {
        match self.lo == self.hi {
            true => self.lo,
            false => 0.5 * self.lo + 0.5 * self.hi,
        }
    }

    /// No less than the distance of any of the numbers from [`middle`](Interval::middle).
    pub fn radius(self) -> f64 {
        if self.lo == self.hi {
            return 0.0;
        }
        let middle = self.middle();
        up((self.hi - middle).max(middle - self.lo))
    }

    /// No less than the modulus.
    pub fn magnitude(self) -> f64 {
        self.hi.abs().max(self.lo.abs())
    }

    /// `x²`
    pub fn squared(self) -> Interval {
        let (a, b) = (self.lo.abs(), self.hi.abs());
        let (small, large) = (a.min(b), a.max(b));
        let lo = match self.contains(0.0) {
            true => 0.0,
            false => down(small * small).max(0.0),
        };
        Interval {
            lo,
            hi: up(large * large),
        }
    }

    /// `√x`; what is below zero counts as zero: it is the error of a square's bound.
    pub fn sqrt(self) -> Interval {
        Interval {
            lo: down(self.lo.max(0.0).sqrt()).max(0.0),
            hi: up(self.hi.max(0.0).sqrt()),
        }
    }

    /// `e^x`
    ///
    /// `x = k ln 2 + r` with a whole `k`; `e^r` is the Taylor polynomial of degree 20 by intervals. For `|r| < 1` what
    /// is left out is below `|r|^21 / 21! · 1.1`, by the geometric series with the ratio `|r| / 22`.
    pub fn exp(self) -> Interval {
        Interval {
            lo: exp_bounds(self.lo).lo,
            hi: exp_bounds(self.hi).hi,
        }
    }

    /// The sum of products.
    ///
    /// With middles `m` and radii `r`, `Σ a b` differs from `Σ m_a m_b` by no more than
    /// `Σ (|m_a| r_b + r_a (|m_b| + r_b))`, and that sum of `n` products in floating point by no more than
    /// `γ_n Σ |m_a| |m_b|` and an underflow a product: some ten times as fast as `n` products of intervals, and narrower.
    pub fn dot(a: &[Interval], b: &[Interval]) -> Interval {
        debug_assert_eq!(a.len(), b.len());
        let (mut sum, mut sizes, mut spread) = (0.0f64, 0.0f64, 0.0f64);
        for (a, b) in a.iter().zip(b) {
            let (m, n) = (a.middle(), b.middle());
            let (r, q) = (a.radius(), b.radius());
            sum += m * n;
            sizes += m.abs() * n.abs();
            spread += m.abs() * q + r * (n.abs() + q);
        }
        // A sum of `n` positive terms, each of up to three operations, is below the exact one by no more than the share
        // `(n + 3) u`; doubled, that is also more than its square and what the next operations lose. `γ_n` is below
        // `2 n u`.
        let n = a.len() as f64 + 3.0;
        let share = 2.0 * n * f64::EPSILON;
        let underflow = 4.0 * n * f64::MIN_POSITIVE;
        let error = up((spread + sizes * share) * (1.0 + 2.0 * share) + underflow);
        match error.is_finite() && sum.is_finite() {
            true => Interval {
                lo: down(sum - error),
                hi: up(sum + error),
            },
            false => Interval::ALL,
        }
    }
}

/// Bounds of `e^x` of one number, which may be infinite.
fn exp_bounds(x: f64) -> Interval {
    // Beyond these e^x is no normal number: e^709 < 2^1023, e^-708 > 2^-1022.
    const LARGEST: f64 = 709.0;
    if x > LARGEST {
        return Interval {
            lo: exp_bounds(LARGEST).lo,
            hi: f64::INFINITY,
        };
    }
    if x < 1.0 - LARGEST {
        return Interval {
            lo: 0.0,
            hi: exp_bounds(1.0 - LARGEST).hi,
        };
    }
    // ln 2 lies between the nearest number and the next one up (ln 2 = LN_2 + 2.3e-17).
    let ln2 = Interval {
        lo: std::f64::consts::LN_2,
        hi: std::f64::consts::LN_2.next_up(),
    };
    let k = (x / std::f64::consts::LN_2).round_ties_even();
    let r = Interval::of(x) - Interval::of(k) * ln2;
    const DEGREE: u32 = 20;
    // Horner: 1 + r (1 + r/2 (1 + r/3 (…))).
    let mut sum = Interval::ONE;
    for n in (1..=DEGREE).rev() {
        sum = Interval::ONE + r * sum / Interval::of(f64::from(n));
    }
    let size = r.magnitude();
    let mut rest = Interval::new(0.0, 1.1) * Interval::of(size);
    for n in 2..=DEGREE + 1 {
        rest = rest * Interval::of(size) / Interval::of(f64::from(n));
    }
    let rest = rest.hi;
    let sum = sum + Interval::new(-rest, rest);
    // A power of two times a number of normal size: exact, |k| < 1024.
    let scale = |y: f64| y * 2f64.powi((k as i32) / 2) * 2f64.powi(k as i32 - (k as i32) / 2);
    Interval {
        lo: scale(sum.lo).max(0.0),
        hi: scale(sum.hi),
    }
}

impl Add for Interval {
    type Output = Interval;
    fn add(self, other: Interval) -> Interval {
        // The sum with exact zero is exact: what is made of few terms stays so.
        if other == Interval::ZERO {
            return self;
        }
        if self == Interval::ZERO {
            return other;
        }
        Interval {
            lo: down(self.lo + other.lo),
            hi: up(self.hi + other.hi),
        }
    }
}

impl Neg for Interval {
    type Output = Interval;
    fn neg(self) -> Interval {
        Interval {
            lo: -self.hi,
            hi: -self.lo,
        }
    }
}

impl Sub for Interval {
    type Output = Interval;
    fn sub(self, other: Interval) -> Interval {
        self + -other
    }
}

impl Mul for Interval {
    type Output = Interval;
    fn mul(self, other: Interval) -> Interval {
        let of = |a: f64, b: f64| {
            let product = a * b;
            // Zero times what is unbounded, the bound of an overflow, is zero for every number there is.
            if product.is_nan() { 0.0 } else { product }
        };
        let (a, b) = (of(self.lo, other.lo), of(self.lo, other.hi));
        let (c, d) = (of(self.hi, other.lo), of(self.hi, other.hi));
        Interval {
            lo: down(a.min(b).min(c.min(d))),
            hi: up(a.max(b).max(c.max(d))),
        }
    }
}

impl Div for Interval {
    type Output = Interval;
    fn div(self, other: Interval) -> Interval {
        if other.contains(0.0) {
            return Interval::ALL;
        }
        let inverse = Interval {
            lo: down(1.0 / other.hi),
            hi: up(1.0 / other.lo),
        };
        if self == Interval::ONE {
            return inverse;
        }
        let (a, b) = (self.lo / other.lo, self.lo / other.hi);
        let (c, d) = (self.hi / other.lo, self.hi / other.hi);
        if [a, b, c, d].iter().any(|x| x.is_nan()) {
            return self * inverse;
        }
        Interval {
            lo: down(a.min(b).min(c.min(d))),
            hi: up(a.max(b).max(c.max(d))),
        }
    }
}

impl std::iter::Sum for Interval {
    fn sum<I: Iterator<Item = Interval>>(terms: I) -> Interval {
        terms.fold(Interval::ZERO, |sum, x| sum + x)
    }
}
