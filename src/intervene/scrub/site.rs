//! A part of a hook's value, read from one run and put into another.

use super::run::stretch;
use crate::error::{Error, Result};
use crate::intervene::Part;
use crate::intervene::part::{Selection, Window};
use crate::model::Config;
use crate::names::Hook;
use crate::tensor::{Scalar, Tensor};

/// A part of a value: some of its places, or of each row what lies in a subspace.
pub(super) struct Piece<T: Scalar> {
    pub hook: Hook,
    selection: Selection,
    /// An orthonormal basis of the subspace.
    basis: Option<Vec<Vec<T>>>,
    /// Rows of one sequence.
    rows: usize,
}

impl<T: Scalar> Piece<T> {
    /// # Errors
    /// When the value has no such part, or the directions are not of its size, not finite or not independent.
    pub fn new(
        config: &Config,
        hook: Hook,
        part: &Part,
        along: Option<&[Vec<f64>]>,
        pos: usize,
    ) -> Result<Self> {
        if part.sequences.is_some() {
            return Err(Error::Intervention {
                hook,
                reason: "a node is a part of every sequence's value, not of some".into(),
            });
        }
        let selection = Selection::new(config, hook, part, stretch(pos), pos)?;
        let counts = selection.counts();
        let (&units, outer) = counts.split_last().expect("a value has axes");
        let basis = along.map(|directions| orthonormal(hook, directions, units));
        Ok(Piece {
            hook,
            basis: basis.transpose()?,
            rows: outer[1..].iter().product(),
            selection,
        })
    }

    /// How many numbers the part of one sequence is.
    pub fn width(&self) -> usize {
        self.rows * self.row_width()
    }

    fn row_width(&self) -> usize {
        (self.basis.as_ref()).map_or(self.selection.last().len(), Vec::len)
    }

    /// The part's numbers, sequence by sequence, of a run's value; which is left as it is.
    pub fn read(&self, value: &mut Tensor<T>, out: &mut [T]) {
        let width = self.row_width();
        self.each_row(value, |rank, units, row| {
            let out = &mut out[rank * width..][..width];
            match &self.basis {
                None => out.iter_mut().zip(units).for_each(|(to, &u)| *to = row[u]),
                Some(basis) => out
                    .iter_mut()
                    .zip(basis)
                    .for_each(|(to, q)| *to = dot(row, units, q)),
            }
        });
    }

    /// Puts numbers in the part's place: those of another run for each sequence.
    pub fn replace<'v>(&self, value: &mut Tensor<T>, by: impl Fn(usize) -> &'v [T]) {
        let width = self.row_width();
        self.each_row(value, |rank, units, row| {
            let by = &by(rank / self.rows)[rank % self.rows * width..][..width];
            match &self.basis {
                None => units.iter().zip(by).for_each(|(&u, &x)| row[u] = x),
                Some(basis) => {
                    for (q, &x) in basis.iter().zip(by) {
                        let more = x - dot(row, units, q);
                        units.iter().zip(q).for_each(|(&u, &q)| row[u] += more * q);
                    }
                }
            }
        });
    }

    /// Calls `f` on every row of the part: its number, counted from the first sequence, the units, and the row.
    fn each_row(&self, value: &mut Tensor<T>, mut f: impl FnMut(usize, &[usize], &mut [T])) {
        let scores = matches!(self.hook, Hook::AttnScores(_) | Hook::Pattern(_));
        let pos = value.shape()[if scores { 2 } else { 1 }];
        let window = Window::whole(value.shape()[0], pos);
        let units = self.selection.last();
        let rows = &self.selection;
        rows.rows(&window, value.data_mut(), |_, rank, row| {
            f(rank, units, row)
        });
    }

    /// Whether what is put into one would change the other: they share a place, and no subspaces keep them apart.
    pub fn overlaps(&self, other: &Piece<T>) -> bool {
        if self.hook != other.hook || !self.selection.meets(&other.selection) {
            return false;
        }
        let (Some(own), Some(others)) = (&self.basis, &other.basis) else {
            return true;
        };
        // The products of two unit vectors' entries are rounded, and so are the entries.
        let rounding = T::from_f64(16.0 * self.selection.last().len() as f64) * T::EPSILON;
        let same = self.selection.last() == other.selection.last();
        let orthogonal = |p: &Vec<T>| {
            let along = |q: &Vec<T>| p.iter().zip(q).map(|(&p, &q)| p * q).sum::<T>();
            others.iter().all(|q| along(q).abs() <= rounding)
        };
        !(same && own.iter().all(orthogonal))
    }
}

fn dot<T: Scalar>(row: &[T], units: &[usize], q: &[T]) -> T {
    units.iter().zip(q).map(|(&u, &q)| row[u] * q).sum()
}

/// The directions made orthonormal, in their order (Gram and Schmidt's way, twice).
fn orthonormal<T: Scalar>(
    hook: Hook,
    directions: &[Vec<f64>],
    units: usize,
) -> Result<Vec<Vec<T>>> {
    let mut basis: Vec<Vec<f64>> = Vec::new();
    for direction in directions {
        if direction.len() != units || direction.iter().any(|x| !x.is_finite()) {
            return Err(Error::Intervention {
                hook,
                reason: format!(
                    "a direction of {} numbers, expected {units}, all finite",
                    direction.len()
                ),
            });
        }
        let length = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
        let mut left = direction.clone();
        for _ in 0..2 {
            for q in &basis {
                let along: f64 = left.iter().zip(q).map(|(x, q)| x * q).sum();
                left.iter_mut().zip(q).for_each(|(x, q)| *x -= along * q);
            }
        }
        let norm = length(&left);
        // What rounding leaves of a direction that the others span.
        let least = 16.0 * units as f64 * f64::EPSILON * length(direction);
        if norm <= least {
            return Err(Error::Intervention {
                hook,
                reason: "a direction that is zero, or that the ones before it span".into(),
            });
        }
        basis.push(left.iter().map(|x| x / norm).collect());
    }
    if basis.is_empty() {
        return Err(Error::Intervention {
            hook,
            reason: "along no direction".into(),
        });
    }
    let narrow = |q: Vec<f64>| q.into_iter().map(T::from_f64).collect();
    Ok(basis.into_iter().map(narrow).collect())
}
