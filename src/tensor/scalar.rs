//! The two precisions that everything is generic over.

use super::columns::Columns;
use crate::error::{Error, Result};
use faer::{Mat, MatMut, MatRef};
use std::fmt::{Debug, Display};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// The large routines below the generic functions: compiled once for each precision, in this crate, and not again
/// in every crate that calls a generic function of it. Implemented in `linalg`.
#[doc(hidden)]
pub trait Routines: Sized {
    fn product_into(dst: MatMut<'_, Self>, alpha: Self, A: MatRef<'_, Self>, B: MatRef<'_, Self>);
    fn add_transposed_product(
        dst: MatMut<'_, Self>,
        alpha: Self,
        A: Columns<'_, Self>,
        B: Columns<'_, Self>,
    );
    fn qr_in_place(M: MatMut<'_, Self>) -> Mat<Self>;
    fn apply_q(factors: MatRef<'_, Self>, coefficients: MatRef<'_, Self>, M: MatMut<'_, Self>);
    fn thin_svd(M: MatRef<'_, Self>) -> Option<(Mat<Self>, Vec<Self>, Mat<Self>)>;
    fn eigenvalues(M: MatRef<'_, Self>) -> Option<Vec<(Self, Self)>>;
}

/// f32 or f64. Sealed: the error bounds and the fast elementary functions are written for these two.
pub trait Scalar:
    sealed::Sealed
    + Routines
    + super::lanes::Lanes
    + faer::traits::RealField
    + Copy
    + Default
    + Debug
    + Display
    + PartialOrd
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
    + Sum
    + bytemuck::Pod
    + approx::UlpsEq<Epsilon = Self>
    + approx::RelativeEq
{
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// The distance from one to the next larger number; twice the unit roundoff.
    const EPSILON: Self;
    /// The smallest positive number that is not subnormal.
    const MIN_POSITIVE: Self;
    /// Positive infinity.
    const INFINITY: Self;
    /// Which of the two this is.
    const PRECISION: Precision;

    /// The nearest value of this precision.
    fn from_f64(x: f64) -> Self;
    /// The same value in f64; exact.
    fn to_f64(self) -> f64;
    /// The modulus.
    fn abs(self) -> Self;
    /// The square root, correctly rounded.
    fn sqrt(self) -> Self;
    /// e to this power, by the system's library.
    fn exp(self) -> Self;
    /// The error function.
    fn erf(self) -> Self;
    /// Whether this is not a number.
    fn is_nan(self) -> bool;
    /// Whether this is neither infinite nor NaN.
    fn is_finite(self) -> bool;
    /// Whether this is a number other than zero below [`Scalar::MIN_POSITIVE`], without a branch.
    fn is_subnormal(self) -> bool;
    /// e to this power by arithmetic that vectorises: no branch, no call.
    ///
    /// The relative error is at most 2 units in the last place; results below the smallest normal
    /// number become zero.
    fn exp_lane(self) -> Self;
    /// The hyperbolic tangent by arithmetic that vectorises.
    ///
    /// The relative error is at most 3 units in the last place, of small numbers too.
    ///
    /// Source: Moshier's Cephes, `tanh.c`, for the rational function near zero.
    #[inline(always)]
    fn tanh_lane(self) -> Self {
        let c = Self::from_f64;
        let two = c(2.0);
        let z = self * self;
        let p =
            (c(-9.643991794250523e-1) * z + c(-9.928772310019186e1)) * z + c(-1.6146876844170845e3);
        let q = ((z + c(1.1281167849163293e2)) * z + c(2.2354883906010045e3)) * z
            + c(4.844063053251255e3);
        let small = self + self * (z * (p / q));
        let large = Self::ONE - two / ((two * self).exp_lane() + Self::ONE);
        if self.abs() < c(0.625) { small } else { large }
    }
}

macro_rules! scalar {
    ($t:ty, $precision:expr, $erf:path, $lane:path) => {
        impl Scalar for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const EPSILON: Self = <$t>::EPSILON;
            const MIN_POSITIVE: Self = <$t>::MIN_POSITIVE;
            const INFINITY: Self = <$t>::INFINITY;
            const PRECISION: Precision = $precision;

            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn abs(self) -> Self {
                <$t>::abs(self)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                <$t>::sqrt(self)
            }
            fn exp(self) -> Self {
                <$t>::exp(self)
            }
            fn erf(self) -> Self {
                $erf(self)
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                <$t>::is_nan(self)
            }
            #[inline(always)]
            fn is_finite(self) -> bool {
                <$t>::is_finite(self)
            }
            #[inline(always)]
            fn is_subnormal(self) -> bool {
                // Zero wraps around to the largest.
                self.abs().to_bits().wrapping_sub(1) < <$t>::MIN_POSITIVE.to_bits() - 1
            }
            #[inline(always)]
            fn exp_lane(self) -> Self {
                $lane(self)
            }
        }
    };
}

scalar!(f32, Precision::F32, libm::erff, exp_f32);
scalar!(f64, Precision::F64, libm::erf, exp_f64);

/// e^x = 2^n e^r with |r| <= ln 2 / 2, e^r by its Taylor polynomial (Cody and Waite's reduction).
///
/// Adding 1.5 * 2^52 rounds to an integer and leaves it in the low bits, so that 2^n is a shift.
#[inline(always)]
fn exp_f64(x: f64) -> f64 {
    const SHIFT: f64 = 6755399441055744.0;
    // ln 2 in two parts: the high one has 21 trailing zero bits, so that n * LN2_HI is exact.
    const LN2_HI: f64 = f64::from_bits(0x3fe62e42fee00000);
    const LN2_LO: f64 = f64::from_bits(0x3dea39ef35793c76);
    let shifted = x.mul_add(std::f64::consts::LOG2_E, SHIFT);
    let n = shifted - SHIFT;
    let r = n.mul_add(-LN2_LO, n.mul_add(-LN2_HI, x));
    let mut p = 1.0f64 / 6227020800.0;
    p = p.mul_add(r, 1.0 / 479001600.0);
    p = p.mul_add(r, 1.0 / 39916800.0);
    p = p.mul_add(r, 1.0 / 3628800.0);
    p = p.mul_add(r, 1.0 / 362880.0);
    p = p.mul_add(r, 1.0 / 40320.0);
    p = p.mul_add(r, 1.0 / 5040.0);
    p = p.mul_add(r, 1.0 / 720.0);
    p = p.mul_add(r, 1.0 / 120.0);
    p = p.mul_add(r, 1.0 / 24.0);
    p = p.mul_add(r, 1.0 / 6.0);
    p = p.mul_add(r, 0.5);
    // 1 + (r + r² p): the small terms are summed first, so that one rounding dominates.
    let y = 1.0 + (r * r).mul_add(p, r);
    let two_n = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52));
    let y = y * two_n;
    let y = if x < -708.0 { 0.0 } else { y };
    if x > 709.0 { f64::INFINITY } else { y }
}

/// As [`exp_f64`], with 1.5 * 2^23 and the degree that f32 needs.
#[inline(always)]
fn exp_f32(x: f32) -> f32 {
    const SHIFT: f32 = 12582912.0;
    // 0.693359375 has 9 bits, so that n * LN2_HI is exact.
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    let shifted = x.mul_add(std::f32::consts::LOG2_E, SHIFT);
    let n = shifted - SHIFT;
    let r = n.mul_add(-LN2_LO, n.mul_add(-LN2_HI, x));
    let mut p = 1.0f32 / 5040.0;
    p = p.mul_add(r, 1.0 / 720.0);
    p = p.mul_add(r, 1.0 / 120.0);
    p = p.mul_add(r, 1.0 / 24.0);
    p = p.mul_add(r, 1.0 / 6.0);
    p = p.mul_add(r, 0.5);
    let y = 1.0 + (r * r).mul_add(p, r);
    let two_n = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    let y = y * two_n;
    let y = if x < -87.0 { 0.0 } else { y };
    if x > 88.0 { f32::INFINITY } else { y }
}

/// A precision by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Single precision.
    F32,
    /// Double precision.
    #[default]
    F64,
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::F64 => "f64",
        })
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "f32" => Ok(Precision::F32),
            "f64" => Ok(Precision::F64),
            _ => Err(Error::unknown("precision", s, ["f64", "f32"])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The distance from the system's exp, which is within one unit of the true value, in units.
    #[test]
    fn exp_lane_is_within_its_stated_error() {
        for i in -708_000..709_000i64 {
            let x = i as f64 * 1.000_037e-3;
            if !(-708.0..=709.0).contains(&x) {
                continue;
            }
            let (ours, std) = (x.exp_lane(), x.exp());
            assert!(
                (ours - std).abs() <= 2.0 * f64::EPSILON * std,
                "exp({x}) = {ours}, {std}"
            );
        }
        for i in -870_000..880_000i32 {
            let x = i as f32 * 1.000_03e-4;
            if !(-87.0..=88.0).contains(&x) {
                continue;
            }
            let (ours, exact) = (x.exp_lane() as f64, (x as f64).exp());
            assert!(
                (ours - exact).abs() <= 2.0 * f32::EPSILON as f64 * exact,
                "exp({x}) = {ours}, {exact}"
            );
        }
    }

    /// The distance from the system's tanh, which is within a unit or two of the true value.
    #[test]
    fn tanh_lane_is_within_its_stated_error() {
        let inputs = (-30_000..30_000).map(|i| i as f64 * 1.000_037e-3);
        let tiny = (1..300).map(|i| 0.9f64.powi(i * 10));
        for x in inputs.chain(tiny.clone()).chain(tiny.map(|x| -x)) {
            let (ours, std) = (x.tanh_lane(), x.tanh());
            assert!(
                (ours - std).abs() <= 3.0 * f64::EPSILON * std.abs(),
                "tanh({x}) = {ours}, {std}"
            );
            let x = x as f32;
            let (ours, exact) = (f64::from(x.tanh_lane()), f64::from(x).tanh());
            assert!(
                (ours - exact).abs() <= 3.0 * f64::from(f32::EPSILON) * exact.abs(),
                "tanh({x}) = {ours}, {exact}"
            );
        }
        assert_eq!(f64::INFINITY.tanh_lane(), 1.0);
        assert_eq!(f32::NEG_INFINITY.tanh_lane(), -1.0);
        assert!(f64::NAN.tanh_lane().is_nan());
    }

    #[test]
    fn exp_lane_at_the_edges() {
        assert_eq!(0.0f64.exp_lane(), 1.0);
        assert_eq!(f64::NEG_INFINITY.exp_lane(), 0.0);
        assert_eq!(f64::INFINITY.exp_lane(), f64::INFINITY);
        assert!(f64::NAN.exp_lane().is_nan());
        assert_eq!(0.0f32.exp_lane(), 1.0);
        assert_eq!(f32::NEG_INFINITY.exp_lane(), 0.0);
        assert_eq!((-1e5f32).exp_lane(), 0.0);
        assert_eq!(f32::INFINITY.exp_lane(), f32::INFINITY);
        assert!(f32::NAN.exp_lane().is_nan());
    }
}
