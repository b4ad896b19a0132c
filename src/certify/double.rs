//! Numbers of twice the precision: a pair of f64, the second below half a unit of the first.
//!
//! Every operation is within [`Double::ROUNDOFF`] of the exact result, relative to it: `3 u² + O(u³)` for sums, `5 u²` for
//! products, `15 u² + 56 u³` for quotients, `25/8 u² + O(u³)` for roots, `u = 2^-53`.
//!
//! Source: Joldes, Muller, Popescu, "Tight and rigorous error bounds for basic building blocks of double-word
//! arithmetic" (2017), algorithms 6, 12 and 17; Lefèvre, Louvet, Muller, Picot, Rideau, "Accurate calculation of Euclidean
//! norms using double-word arithmetic" (2023), for the root.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// `hi + lo`, with `hi` the nearest f64 of the sum.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) struct Double {
    hi: f64,
    lo: f64,
}

/// `a + b` and its rounding error; exact.
fn two_sum(a: f64, b: f64) -> Double {
    let hi = a + b;
    let part = hi - a;
    let lo = (a - (hi - part)) + (b - part);
    Double { hi, lo }
}

/// The same where `|a| >= |b|`.
fn fast_two_sum(a: f64, b: f64) -> Double {
    let hi = a + b;
    Double {
        hi,
        lo: b - (hi - a),
    }
}

/// `a b` and its rounding error; exact but for underflow.
fn two_product(a: f64, b: f64) -> Double {
    let hi = a * b;
    Double {
        hi,
        lo: a.mul_add(b, -hi),
    }
}

impl Double {
    /// What every operation is within, relative to its result: `16 u²`.
    pub const ROUNDOFF: f64 = 16.0 * (f64::EPSILON / 2.0) * (f64::EPSILON / 2.0);
    /// What [`Double::exp`] is within, relative to its result, see there: `2^11` roundoffs.
    pub const EXP_ERROR: f64 = 2048.0 * Self::ROUNDOFF;
    /// Zero.
    pub const ZERO: Double = Double { hi: 0.0, lo: 0.0 };
    /// One.
    pub const ONE: Double = Double { hi: 1.0, lo: 0.0 };

    /// Exactly this number.
    pub fn of(x: f64) -> Double {
        Double { hi: x, lo: 0.0 }
    }

    /// The nearest f64.
    pub fn to_f64(self) -> f64 {
        self.hi
    }

    /// The larger of the two.
    pub fn max(self, other: Double) -> Double {
        if other > self { other } else { self }
    }

    /// The square root of a number that is not negative.
    pub fn sqrt(self) -> Double {
        if self.hi <= 0.0 {
            return Double::ZERO;
        }
        let root = self.hi.sqrt();
        let rest = (-root).mul_add(root, self.hi) + self.lo;
        fast_two_sum(root, rest / (2.0 * root))
    }

    /// Times a power of two that is far from the ends of the exponents: exact.
    fn scaled(self, power: f64) -> Double {
        Double {
            hi: self.hi * power,
            lo: self.lo * power,
        }
    }

    /// `e^x` for `|x| <= 709`, and zero below that; beyond it infinity.
    ///
    /// `x = k ln 2 + 512 r` with a whole `k`, `|r| < 0.7e-3`. `p = e^r - 1` is the Taylor polynomial of degree 10, of which
    /// less than `|r|^11 / 11! · 1.1 < 2^-139` is left out, a share of less than `2^-120` of `p`; nine times
    /// `p <- 2 p + p²` gives `e^(512 r) - 1`. Roundings: `k ln 2` is off by less than `|k| < 2^10` times two roundoffs of
    /// `ln 2`, the difference by one of the result; Horner's rule loses less than 32 roundoffs of `p`; a doubling, whose
    /// terms differ in sign at the most where `p² < |p|/2`, adds less than 6 roundoffs of `|p| < 1` and hands on at the
    /// most `(2 + 2|p|) / (2 - |p|)` of what was there, together less than `2^9` roundoffs; one more for the last sum.
    pub fn exp(self) -> Double {
        const LARGEST: f64 = 709.0;
        if self.hi < -LARGEST {
            return Double::ZERO;
        }
        if self.hi > LARGEST {
            return Double::of(f64::INFINITY);
        }
        // ln 2 to 107 bits.
        const LN_2: Double = Double {
            hi: std::f64::consts::LN_2,
            lo: 2.3190468138462996e-17,
        };
        const SQUARINGS: i32 = 9;
        const DEGREE: u32 = 10;
        let k = (self.hi / LN_2.hi).round_ties_even();
        let r = (self - LN_2 * Double::of(k)).scaled(2f64.powi(-SQUARINGS));
        // r (1 + r/2 (1 + r/3 (…)))
        let mut sum = Double::ONE;
        for n in (2..=DEGREE).rev() {
            sum = Double::ONE + r * sum / Double::of(f64::from(n));
        }
        let mut p = r * sum;
        for _ in 0..SQUARINGS {
            p = p.scaled(2.0) + p * p;
        }
        let half = (k as i32) / 2;
        let y = Double::ONE + p;
        y.scaled(2f64.powi(half)).scaled(2f64.powi(k as i32 - half))
    }
}

impl Add for Double {
    type Output = Double;
    fn add(self, other: Double) -> Double {
        let (s, t) = (two_sum(self.hi, other.hi), two_sum(self.lo, other.lo));
        let v = fast_two_sum(s.hi, s.lo + t.hi);
        fast_two_sum(v.hi, t.lo + v.lo)
    }
}

impl Neg for Double {
    type Output = Double;
    fn neg(self) -> Double {
        Double {
            hi: -self.hi,
            lo: -self.lo,
        }
    }
}

impl Sub for Double {
    type Output = Double;
    fn sub(self, other: Double) -> Double {
        self + -other
    }
}

impl Mul for Double {
    type Output = Double;
    fn mul(self, other: Double) -> Double {
        let c = two_product(self.hi, other.hi);
        let low = self.hi.mul_add(other.lo, self.lo * other.hi);
        fast_two_sum(c.hi, c.lo + low)
    }
}

impl Div for Double {
    type Output = Double;
    fn div(self, other: Double) -> Double {
        let quotient = self.hi / other.hi;
        let product = other * Double::of(quotient);
        let rest = (self.hi - product.hi) + (self.lo - product.lo);
        fast_two_sum(quotient, rest / other.hi)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use num_rational::BigRational;
    use num_traits::Signed;
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    fn exact(x: Double) -> BigRational {
        let of = |x| BigRational::from_float(x).unwrap();
        of(x.hi) + of(x.lo)
    }

    fn random(rng: &mut ChaCha8Rng) -> Double {
        let size = 2f64.powi(rng.random_range(-30..30));
        let hi = rng.random_range(-1.0..1.0) * size;
        two_sum(hi, hi * rng.random_range(-1.0..1.0) * f64::EPSILON / 2.0)
    }

    #[test]
    fn operations_are_within_the_roundoff() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let unit = BigRational::from_float(Double::ROUNDOFF).unwrap();
        for _ in 0..2000 {
            let (a, b) = (random(&mut rng), random(&mut rng));
            let (x, y) = (exact(a), exact(b));
            let root = Double::of(a.hi.abs()).sqrt();
            for (found, expected, roundings) in [
                (a + b, &x + &y, 1.0),
                (a - b, &x - &y, 1.0),
                (a * b, &x * &y, 1.0),
                (a / b, &x / &y, 1.0),
                // (1 + δ)³ < 1 + 4 δ, two of the root and one of the square.
                (root * root, exact(Double::of(a.hi.abs())), 4.0),
            ] {
                let off = (exact(found) - &expected).abs() / expected.abs();
                let bound = &unit * BigRational::from_float(roundings).unwrap();
                assert!(off <= bound, "{a:?} {b:?}");
            }
        }
    }

    /// `e^a e^b = e^(a + b)`, and the first digits are those of the system's.
    #[test]
    fn exponentials_are_within_their_error() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let bound = BigRational::from_float(4.0 * Double::EXP_ERROR).unwrap();
        for _ in 0..1000 {
            let a = Double::of(rng.random_range(-300.0..300.0));
            let b = Double::of(rng.random_range(-300.0..300.0));
            // Exact, so that the two sides are of one number.
            let (sum, product) = (a + b, a.exp() * b.exp());
            let (x, y) = (exact(sum.exp()), exact(product));
            assert!((&x - &y).abs() / x <= bound);
            let system = a.hi.exp();
            assert!((a.exp().hi - system).abs() <= 2.0 * f64::EPSILON * system);
        }
        assert_eq!(Double::ZERO.exp(), Double::ONE);
        assert_eq!(Double::of(-1e5).exp(), Double::ZERO);
        // e = 2.71828182845904523536028747135266249775724709…
        let e = Double::ONE.exp();
        assert_eq!(e.hi, std::f64::consts::E);
        assert!((e.lo - 1.4456468917292502e-16).abs() <= Double::EXP_ERROR * 4.0);
    }
}
