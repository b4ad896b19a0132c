//! How large some values are, and those that are too small to compute with.

use super::{Scalar, Tensor, vectorize};
use pulp::{Arch, Simd, WithSimd};

/// The largest modulus. A NaN may hide.
pub(crate) fn largest<T: Scalar>(x: &[T]) -> T {
    struct Largest<'a, T>(&'a [T]);
    impl<T: Scalar> WithSimd for Largest<'_, T> {
        type Output = T;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> T {
            let zero = T::splat(simd, T::ZERO);
            let (body, tail) = T::split::<S>(self.0);
            // What a vector loaded in part has more is zero.
            let last = [T::load(simd, tail)];
            let max = body.iter().chain(&last).fold(zero, |max, &x| {
                T::vmax(simd, T::vmax(simd, x, T::vsub(simd, zero, x)), max)
            });
            T::reduce_max(simd, max)
        }
    }
    Arch::new().dispatch(Largest(x))
}

/// A matrix to multiply with in the place of one that has subnormal entries: with zeros for them.
///
/// Not where the largest entry is so small that they are more than `EPSILON²` of it.
pub(crate) fn without_subnormals<T: Scalar>(W: &Tensor<T>) -> Option<Tensor<T>> {
    // What is kept in 16 bits is widened as it is read: nothing is looked for in it.
    if W.narrow().is_some() {
        return None;
    }
    let values = W.data();
    let mut any = false;
    vectorize(
        #[inline(always)]
        || any = values.iter().fold(false, |any, x| any | x.is_subnormal()),
    );
    if !any || largest(values) * T::EPSILON * T::EPSILON <= T::MIN_POSITIVE {
        return None;
    }
    let or_zero = |&x: &T| if x.is_subnormal() { T::ZERO } else { x };
    let values = values.iter().map(or_zero).collect();
    Some(Tensor::from_vec(W.shape(), values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_modulus_is_found_wherever_it_stands() {
        for n in 1..70 {
            for at in [0, n / 2, n - 1] {
                let mut x: Vec<f32> = (0..n).map(|i| (i as f32).sin()).collect();
                x[at] = -3.0;
                assert_eq!(largest(&x), 3.0);
            }
        }
        assert_eq!(largest::<f64>(&[]), 0.0);
    }

    #[test]
    fn subnormal_numbers_are_zero_beside_large_ones_alone() {
        let of = |W: &[f32]| without_subnormals(&Tensor::from_vec(&[W.len()], W.to_vec()));
        let found = of(&[1.0, 1e-41, -1e-40, 2e-38]).unwrap();
        assert_eq!(found.data(), [1.0, 0.0, 0.0, 2e-38]);
        assert_eq!(of(&[1e-30, 1e-41]), None);
        assert_eq!(of(&[1.0, 0.0]), None);
        for x in [0.0, -0.0, f64::MIN_POSITIVE, 1.0, f64::INFINITY, f64::NAN] {
            assert!(!Scalar::is_subnormal(x) && !Scalar::is_subnormal(-x));
        }
        assert!(Scalar::is_subnormal(5e-324) && Scalar::is_subnormal(-2.2e-308));
    }
}
