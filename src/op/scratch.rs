//! Memory that one layer of the forward pass hands on to the next.

use crate::tensor::{Scalar, Tensor};

/// Buffers that are free to be written over. Asking the system for each value's memory, and clearing it,
/// takes a small model longer than some of the layers do.
#[derive(Default)]
pub(crate) struct Scratch<T> {
    free: Vec<Vec<T>>,
}

impl<T: Scalar> Scratch<T> {
    /// A tensor whose values are whatever they were: for an operation that writes every one of them.
    pub fn take(&mut self, shape: &[usize]) -> Tensor<T> {
        let len = shape.iter().product();
        // To make one longer is to clear what it gains.
        let exact = self.free.iter().position(|buffer| buffer.len() == len);
        let fits = || self.free.iter().position(|buffer| buffer.capacity() >= len);
        match exact.or_else(fits) {
            Some(i) => {
                let mut buffer = self.free.swap_remove(i);
                buffer.resize(len, T::ZERO);
                Tensor::from_vec(shape, buffer)
            }
            None => Tensor::zeros(shape),
        }
    }

    /// Gives a tensor's memory back.
    pub fn give(&mut self, t: Tensor<T>) {
        if let Some(buffer) = t.into_heap() {
            self.free.push(buffer);
        }
    }
}
