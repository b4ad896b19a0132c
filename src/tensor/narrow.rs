//! Values kept in the 16 bits in which a file has them, and widened as they are read.

use super::buffer::Buffer;
use super::{Dtype, Scalar, Tensor};
use half::{bf16, f16};
use std::ops::Range;
use std::sync::OnceLock;

/// The 16 bits of values of which each stands for itself times the same factor, rounded once.
pub(crate) struct Narrow<T> {
    kind: Kind,
    bits: Vec<u16>,
    factor: f64,
    /// All of them, once someone has asked for them as they are everywhere else.
    wide: OnceLock<Vec<T>>,
}

#[derive(Clone, Copy)]
enum Kind {
    Bf16,
    F16,
}

impl Kind {
    /// The bits of a value, if it is exactly one of the kind.
    fn bits(self, x: f64) -> Option<u16> {
        let (bits, back) = match self {
            Kind::Bf16 => {
                let own = bf16::from_f64(x);
                (own.to_bits(), own.to_f64())
            }
            Kind::F16 => {
                let own = f16::from_f64(x);
                (own.to_bits(), own.to_f64())
            }
        };
        (back.to_bits() == x.to_bits()).then_some(bits)
    }
}

impl<T: Scalar> Narrow<T> {
    /// Of values that are all of one kind.
    fn of(values: &[T]) -> Option<Self> {
        [Kind::Bf16, Kind::F16].into_iter().find_map(|kind| {
            let bits = values.iter().map(|x| kind.bits(x.to_f64()));
            Some(Narrow {
                kind,
                bits: bits.collect::<Option<_>>()?,
                factor: 1.0,
                wide: OnceLock::new(),
            })
        })
    }

    /// Of a file's bytes, where they are of one of the kinds.
    pub(super) fn of_bytes(dtype: Dtype, bytes: &[u8]) -> Option<Self> {
        let kind = match dtype {
            Dtype::BF16 => Kind::Bf16,
            Dtype::F16 => Kind::F16,
            _ => return None,
        };
        let bits = bytes
            .chunks_exact(2)
            .map(|b| u16::from_le_bytes([b[0], b[1]]));
        Some(Narrow {
            kind,
            bits: bits.collect(),
            factor: 1.0,
            wide: OnceLock::new(),
        })
    }

    /// The same values in another order.
    pub fn reordered(self, order: impl FnOnce(&[u16]) -> Vec<u16>) -> Self {
        Narrow {
            bits: order(&self.bits),
            wide: OnceLock::new(),
            ..self
        }
    }

    /// As a tensor of this shape.
    pub fn tensor(self, shape: &[usize]) -> Tensor<T> {
        debug_assert_eq!(shape.iter().product::<usize>(), self.len());
        Tensor {
            shape: shape.to_vec(),
            data: Buffer::Narrow(Box::new(self)),
        }
    }

    pub fn len(&self) -> usize {
        self.bits.len()
    }

    /// All values, which stay in memory from then on.
    pub(super) fn wide(&self) -> &[T] {
        self.wide.get_or_init(|| {
            let mut wide = Vec::with_capacity(self.len());
            self.widen(0..self.len(), &mut wide);
            wide
        })
    }

    pub(super) fn into_wide(self) -> Vec<T> {
        self.wide();
        self.wide.into_inner().unwrap_or_default()
    }

    /// Some of the values, put behind others.
    pub fn widen(&self, range: Range<usize>, to: &mut Vec<T>) {
        let (bits, factor) = (&self.bits[range], self.factor);
        let times = |x: f64| if factor == 1.0 { x } else { x * factor };
        match self.kind {
            // A bf16 is the first half of an f32.
            Kind::Bf16 if factor == 1.0 => {
                let wide = |&b: &u16| T::from_f64(f64::from(f32::from_bits(u32::from(b) << 16)));
                to.extend(bits.iter().map(wide));
            }
            Kind::Bf16 => {
                let wide = |&b| T::from_f64(times(bf16::from_bits(b).to_f64()));
                to.extend(bits.iter().map(wide));
            }
            Kind::F16 => {
                let wide = |&b| T::from_f64(times(f16::from_bits(b).to_f64()));
                to.extend(bits.iter().map(wide));
            }
        }
    }
}

impl<T> Clone for Narrow<T> {
    fn clone(&self) -> Self {
        Narrow {
            kind: self.kind,
            bits: self.bits.clone(),
            factor: self.factor,
            wide: OnceLock::new(),
        }
    }
}

impl<T: Scalar> Tensor<T> {
    /// The same values, kept in 16 bits where all of them are exactly bf16 or exactly f16.
    pub(crate) fn narrowed(self) -> Self {
        match Narrow::of(self.data()) {
            None => self,
            Some(narrow) => Tensor {
                shape: self.shape,
                data: Buffer::Narrow(Box::new(narrow)),
            },
        }
    }

    /// The 16 bits that the values are kept in, where they are.
    pub(crate) fn narrow(&self) -> Option<&Narrow<T>> {
        match &self.data {
            Buffer::Narrow(narrow) if narrow.wide.get().is_none() => Some(narrow),
            _ => None,
        }
    }

    /// Every value times a factor, rounded once.
    pub(crate) fn times(mut self, factor: f64) -> Self {
        match &mut self.data {
            _ if factor == 1.0 => {}
            Buffer::Narrow(narrow) if narrow.wide.get().is_none() && narrow.factor == 1.0 => {
                narrow.factor = factor;
            }
            data => {
                let scaled = |x: &mut T| *x = T::from_f64(x.to_f64() * factor);
                data.iter_mut().for_each(scaled);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_sixteen_bits_come_back() {
        let halves = [0.0f32, -0.0, 1.5, -3.25, 2.0f32.powi(-130), f32::INFINITY];
        let kept = Tensor::from_vec(&[2, 3], halves.to_vec()).narrowed();
        let mut some = Vec::new();
        kept.narrow().unwrap().widen(1..4, &mut some);
        assert_eq!(some, halves[1..4]);
        assert_eq!(kept.data(), halves);
        // Seen as a whole they are wide from then on.
        assert!(kept.narrow().is_none());

        // The smallest f16 is no normal number of its kind; a bf16 has fewer digits than 1.0009765625 needs.
        let small = [2.0f64.powi(-24), 1.0009765625];
        let kept = Tensor::from_vec(&[2], small.to_vec()).narrowed().times(3.0);
        assert!(kept.narrow().is_some());
        assert_eq!(kept.data(), small.map(|x| 3.0 * x));
        assert!(
            Tensor::from_vec(&[1], vec![0.1f32])
                .narrowed()
                .narrow()
                .is_none()
        );
    }
}
