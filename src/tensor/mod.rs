//! The minimal tensor: row-major, n-dimensional, over f32 or f64, with faer views of its matrices.

mod buffer;
mod columns;
mod file;
mod lanes;
mod magnitude;
#[allow(unsafe_code)] // The one module that maps files into memory.
mod map;
mod narrow;
mod room;
mod scalar;
mod simd;

pub(crate) use buffer::Memory;
pub(crate) use columns::Columns;
#[cfg(any(feature = "studies", all(test, feature = "browser")))]
pub(crate) use file::safetensors_bytes;
pub use file::{Dtype, Saved, TensorFile, write_file, write_files, write_safetensors};
pub(crate) use file::{Staged, fill_folder, stage_safetensors};
#[cfg(feature = "certify")]
pub(crate) use lanes::Lanes;
pub(crate) use magnitude::{largest, without_subnormals};
pub(crate) use map::FileBytes;
pub(crate) use narrow::Narrow;
pub use room::check_room;
pub use scalar::{Precision, Routines, Scalar};
pub use simd::instructions;
pub(crate) use simd::{
    add_assign, add_rows, gather_rows, lanes, load_over, map_in_place, map2_in_place, normalize,
    only, softmax_rows, softmax_rows_back, store_over, vectorize,
};

use buffer::Buffer;
use faer::{MatMut, MatRef};
use std::fmt;

/// A row-major tensor that owns its values.
///
/// ```
/// use pathsum::Tensor;
/// let t = Tensor::from_fn(&[2, 3], |at| (10 * at[0] + at[1]) as f64);
/// assert_eq!(t[[1, 2]], 12.0);
/// assert_eq!(t.slice(&[1]), &[10.0, 11.0, 12.0]);
/// assert_eq!(t.mat(&[]).transpose()[(2, 1)], 12.0);
/// ```
#[derive(Clone, PartialEq)]
pub struct Tensor<T: Scalar> {
    shape: Vec<usize>,
    data: Buffer<T>,
}

impl<T: Scalar> Tensor<T> {
    /// All zeros.
    pub fn zeros(shape: &[usize]) -> Self {
        Tensor {
            shape: shape.to_vec(),
            data: Buffer::zeros(shape.iter().product()),
        }
    }

    /// The same value everywhere.
    pub fn full(shape: &[usize], value: T) -> Self {
        Tensor {
            shape: shape.to_vec(),
            data: Buffer::Heap(vec![value; shape.iter().product()]),
        }
    }

    /// From values in row-major order.
    ///
    /// # Panics
    /// When their number is not the product of the shape.
    #[track_caller]
    pub fn from_vec(shape: &[usize], data: Vec<T>) -> Self {
        assert_eq!(
            shape.iter().product::<usize>(),
            data.len(),
            "shape {shape:?} does not hold {} values",
            data.len()
        );
        Tensor {
            shape: shape.to_vec(),
            data: Buffer::Heap(data),
        }
    }

    /// From a function of the index.
    pub fn from_fn(shape: &[usize], mut f: impl FnMut(&[usize]) -> T) -> Self {
        let len = shape.iter().product();
        let mut at = vec![0; shape.len()];
        let data = (0..len)
            .map(|_| {
                let value = f(&at);
                advance(&mut at, shape);
                value
            })
            .collect();
        Tensor {
            shape: shape.to_vec(),
            data: Buffer::Heap(data),
        }
    }

    /// A copy of a matrix view, as `[rows, columns]`.
    pub fn from_mat(mat: MatRef<'_, T>) -> Self {
        Tensor::from_fn(&[mat.nrows(), mat.ncols()], |at| mat[(at[0], at[1])])
    }

    /// The sizes of the axes, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values in row-major order.
    pub fn data(&self) -> &[T] {
        &self.data
    }

    /// The values in row-major order, to be changed.
    pub fn data_mut(&mut self) -> &mut [T] {
        &mut self.data
    }

    /// The values in row-major order, given away.
    pub fn into_data(self) -> Vec<T> {
        self.data.into_vec()
    }

    /// The memory of the values, where it is not pages of their own.
    pub(crate) fn into_heap(self) -> Option<Vec<T>> {
        match self.data {
            Buffer::Heap(data) => Some(data),
            Buffer::Pages(..) | Buffer::Narrow(_) => None,
        }
    }

    /// The same values under another shape.
    ///
    /// # Panics
    /// When the number of values would change.
    #[track_caller]
    pub fn reshape(mut self, shape: &[usize]) -> Self {
        let len: usize = shape.iter().product();
        assert_eq!(
            len,
            self.data.len(),
            "{:?} cannot be reshaped to {shape:?}",
            self.shape
        );
        self.shape = shape.to_vec();
        self
    }

    #[track_caller]
    fn range(&self, lead: &[usize]) -> std::ops::Range<usize> {
        assert!(
            lead.len() <= self.shape.len(),
            "{} indices into shape {:?}",
            lead.len(),
            self.shape
        );
        let mut start = 0;
        for (&i, &n) in lead.iter().zip(&self.shape) {
            assert!(i < n, "index {lead:?} is outside shape {:?}", self.shape);
            start = start * n + i;
        }
        let len: usize = self.shape[lead.len()..].iter().product();
        start * len..(start + 1) * len
    }

    /// The contiguous values below the leading indices.
    ///
    /// # Panics
    /// When an index is out of range.
    #[track_caller]
    pub fn slice(&self, lead: &[usize]) -> &[T] {
        &self.data[self.range(lead)]
    }

    /// The contiguous values below the leading indices, to be changed.
    ///
    /// # Panics
    /// When an index is out of range.
    #[track_caller]
    pub fn slice_mut(&mut self, lead: &[usize]) -> &mut [T] {
        let range = self.range(lead);
        &mut self.data[range]
    }

    /// The matrix of the last two axes at the leading indices, without copying.
    ///
    /// # Panics
    /// When an index is out of range, or not exactly two axes are left.
    #[track_caller]
    pub fn mat(&self, lead: &[usize]) -> MatRef<'_, T> {
        let [rows, cols] = self.last_two(lead);
        MatRef::from_row_major_slice(self.slice(lead), rows, cols)
    }

    /// The matrix of the last two axes at the leading indices, to be changed.
    ///
    /// # Panics
    /// When an index is out of range, or not exactly two axes are left.
    #[track_caller]
    pub fn mat_mut(&mut self, lead: &[usize]) -> MatMut<'_, T> {
        let [rows, cols] = self.last_two(lead);
        MatMut::from_row_major_slice_mut(self.slice_mut(lead), rows, cols)
    }

    #[track_caller]
    fn last_two(&self, lead: &[usize]) -> [usize; 2] {
        match self.shape.get(lead.len()..) {
            Some(&[rows, cols]) => [rows, cols],
            _ => panic!(
                "{} indices into shape {:?} do not leave a matrix",
                lead.len(),
                self.shape
            ),
        }
    }

    /// All values as one matrix, the leading axes flattened into rows, without copying.
    pub fn rows(&self) -> MatRef<'_, T> {
        let cols = self.shape.last().copied().unwrap_or(1);
        let rows = self.data.len().checked_div(cols).unwrap_or(0);
        MatRef::from_row_major_slice(&self.data, rows, cols)
    }

    /// One head of one sequence of a `[batch, pos, head, d]` tensor, as `[pos, d]`, without copying.
    ///
    /// # Panics
    /// When the tensor has not four axes, or an index is out of range.
    #[track_caller]
    pub fn head(&self, sequence: usize, head: usize) -> MatRef<'_, T> {
        let &[_, pos, heads, d] = self.shape.as_slice() else {
            panic!("shape {:?} is not [batch, pos, head, d]", self.shape)
        };
        MatRef::from_row_major_slice(self.slice(&[sequence]), pos, heads * d).subcols(head * d, d)
    }

    /// As [`Tensor::head`], to be changed.
    #[track_caller]
    pub(crate) fn head_mut(&mut self, sequence: usize, head: usize) -> MatMut<'_, T> {
        let &[_, pos, heads, d] = self.shape.as_slice() else {
            panic!("shape {:?} is not [batch, pos, head, d]", self.shape)
        };
        let rows = self.slice_mut(&[sequence]);
        MatMut::from_row_major_slice_mut(rows, pos, heads * d).subcols_mut(head * d, d)
    }

    /// One head's columns of `[n, head, d]`, as a matrix `[n, d]`.
    ///
    /// # Panics
    /// When the tensor has not three axes, or there is no such head.
    #[track_caller]
    pub fn of_head(&self, head: usize) -> MatRef<'_, T> {
        let &[n, heads, d] = self.shape.as_slice() else {
            panic!("shape {:?} is not [n, head, d]", self.shape)
        };
        MatRef::from_row_major_slice(&self.data, n, heads * d).subcols(head * d, d)
    }

    /// As [`Tensor::of_head`], to be changed.
    ///
    /// # Panics
    /// When the tensor has not three axes, or there is no such head.
    #[track_caller]
    pub fn of_head_mut(&mut self, head: usize) -> MatMut<'_, T> {
        let &[n, heads, d] = self.shape.as_slice() else {
            panic!("shape {:?} is not [n, head, d]", self.shape)
        };
        MatMut::from_row_major_slice_mut(&mut self.data, n, heads * d).subcols_mut(head * d, d)
    }

    /// The largest modulus; NaN when any value is NaN, zero when there are none.
    pub fn max_abs(&self) -> T {
        self.data.iter().fold(T::ZERO, |m, &x| {
            if x.is_nan() || x.abs() > m {
                x.abs()
            } else {
                m
            }
        })
    }

    /// The same values in another precision, each rounded to the nearest.
    pub fn cast<U: Scalar>(&self) -> Tensor<U> {
        Tensor {
            shape: self.shape.clone(),
            data: Buffer::Heap(self.data.iter().map(|&x| U::from_f64(x.to_f64())).collect()),
        }
    }

    /// The index, along each axis, of a place in the row-major order.
    pub fn place(&self, flat: usize) -> Vec<usize> {
        let mut rest = flat;
        let mut at: Vec<usize> = self
            .shape
            .iter()
            .rev()
            .map(|&n| {
                let i = rest % n.max(1);
                rest /= n.max(1);
                i
            })
            .collect();
        at.reverse();
        at
    }
}

/// Steps an index to the next one in row-major order.
fn advance(at: &mut [usize], shape: &[usize]) {
    for (i, &n) in at.iter_mut().zip(shape).rev() {
        *i += 1;
        if *i < n {
            return;
        }
        *i = 0;
    }
}

impl<T: Scalar, const N: usize> std::ops::Index<[usize; N]> for Tensor<T> {
    type Output = T;

    #[track_caller]
    fn index(&self, at: [usize; N]) -> &T {
        assert_eq!(
            N,
            self.shape.len(),
            "{N} indices into shape {:?}",
            self.shape
        );
        &self.slice(&at)[0]
    }
}

impl<T: Scalar, const N: usize> std::ops::IndexMut<[usize; N]> for Tensor<T> {
    #[track_caller]
    fn index_mut(&mut self, at: [usize; N]) -> &mut T {
        assert_eq!(
            N,
            self.shape.len(),
            "{N} indices into shape {:?}",
            self.shape
        );
        &mut self.slice_mut(&at)[0]
    }
}

impl<T: Scalar> fmt::Debug for Tensor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A failed assertion should show what differs, not a million numbers.
        const SHOWN: usize = 12;
        write!(f, "Tensor{:?} ", self.shape)?;
        let shown = &self.data[..self.data.len().min(SHOWN)];
        f.debug_list().entries(shown).finish()?;
        if shown.len() < self.data.len() {
            f.write_str(" …")
        } else {
            Ok(())
        }
    }
}

impl<T: Scalar> approx::AbsDiffEq for Tensor<T> {
    type Epsilon = T;

    fn default_epsilon() -> T {
        T::EPSILON
    }

    fn abs_diff_eq(&self, other: &Self, epsilon: T) -> bool {
        self.shape == other.shape
            && self
                .data
                .iter()
                .zip(other.data.iter())
                .all(|(a, b)| a.abs_diff_eq(b, epsilon))
    }
}

impl<T: Scalar> approx::RelativeEq for Tensor<T> {
    fn default_max_relative() -> T {
        T::EPSILON
    }

    fn relative_eq(&self, other: &Self, epsilon: T, max_relative: T) -> bool {
        self.shape == other.shape
            && self
                .data
                .iter()
                .zip(other.data.iter())
                .all(|(a, b)| a.relative_eq(b, epsilon, max_relative))
    }
}

impl<T: Scalar> approx::UlpsEq for Tensor<T> {
    fn default_max_ulps() -> u32 {
        T::default_max_ulps()
    }

    fn ulps_eq(&self, other: &Self, epsilon: T, max_ulps: u32) -> bool {
        self.shape == other.shape
            && self
                .data
                .iter()
                .zip(other.data.iter())
                .all(|(a, b)| a.ulps_eq(b, epsilon, max_ulps))
    }
}

#[cfg(feature = "nalgebra")]
impl<T: Scalar + nalgebra::Scalar> Tensor<T> {
    /// The matrix of the last two axes at the leading indices, as nalgebra's.
    ///
    /// # Panics
    /// When an index is out of range, or not exactly two axes are left.
    #[track_caller]
    pub fn to_nalgebra(&self, lead: &[usize]) -> nalgebra::DMatrix<T> {
        let mat = self.mat(lead);
        nalgebra::DMatrix::from_fn(mat.nrows(), mat.ncols(), |i, j| mat[(i, j)])
    }

    /// A copy of nalgebra's matrix, as `[rows, columns]`.
    pub fn from_nalgebra(mat: &nalgebra::DMatrix<T>) -> Self {
        Tensor::from_fn(&[mat.nrows(), mat.ncols()], |at| mat[(at[0], at[1])])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    #[test]
    fn views_agree_with_indices() {
        let t = Tensor::from_fn(&[2, 3, 4, 5], |at| {
            (at[0] * 1000 + at[1] * 100 + at[2] * 10 + at[3]) as f64
        });
        assert_eq!(t[[1, 2, 3, 4]], 1234.0);
        assert_eq!(t.mat(&[1, 2])[(3, 4)], 1234.0);
        assert_eq!(t.head(1, 3)[(2, 4)], 1234.0);
        assert_eq!(t.rows()[(23, 4)], 1234.0);
        assert_eq!(t.place(119), [1, 2, 3, 4]);
        assert_eq!(Tensor::from_mat(t.mat(&[0, 1])).data(), t.slice(&[0, 1]));
    }

    #[test]
    fn approx_compares_shapes_too() {
        let t = Tensor::full(&[2, 2], 1.0f32);
        let mut u = t.clone();
        u[[0, 1]] += f32::EPSILON;
        assert_relative_eq!(t, u);
        assert!(approx::relative_ne!(t, Tensor::full(&[4], 1.0f32)));
        u[[1, 1]] = 1.1;
        assert!(approx::relative_ne!(t, u));
    }

    #[test]
    fn max_abs_does_not_hide_a_nan() {
        let t = Tensor::from_vec(&[3], vec![1.0f64, f64::NAN, 2.0]);
        assert!(t.max_abs().is_nan());
        assert_eq!(Tensor::<f64>::zeros(&[0]).max_abs(), 0.0);
    }

    #[cfg(feature = "nalgebra")]
    #[test]
    fn nalgebra_round_trip() {
        let t = Tensor::from_fn(&[2, 3], |at| (at[0] * 3 + at[1]) as f32);
        assert_eq!(Tensor::from_nalgebra(&t.to_nalgebra(&[])), t);
    }
}
