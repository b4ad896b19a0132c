//! The formulas once more, in plain loops, for tests to hold the library to.
//!
//! Nothing here calls the library's arithmetic. Every number carries a bound on its rounding error, so
//! that a test needs no tolerance: see [`Num`].

pub mod forward;
pub mod process;

use pathsum::{Model, Scalar, Tensor};
use std::collections::BTreeMap;

/// A number and its bound: the exact value of the expression is within `e` of `x`, and so is any other
/// evaluation of it in the precision under test, sums in whatever order, with fused operations or not.
///
/// Two evaluations are therefore at most `2 e` apart.
#[derive(Clone, Copy, Debug)]
pub struct Num {
    pub x: f64,
    pub e: f64,
}

impl Num {
    /// A number that is what it is: a parameter, or a constant.
    pub fn exact(x: f64) -> Num {
        Num { x, e: 0.0 }
    }

    /// A number that is nobody's business.
    pub fn any() -> Num {
        Num {
            x: 0.0,
            e: f64::NEG_INFINITY,
        }
    }

    /// No number, which is what is expected.
    pub fn none() -> Num {
        Num {
            x: f64::NAN,
            e: f64::NEG_INFINITY,
        }
    }

    /// Whether a number may be an evaluation of this: within its two bounds.
    fn covers(self, found: f64) -> bool {
        if self.e == f64::NEG_INFINITY {
            return !self.x.is_nan() || found.is_nan();
        }
        // A masked score is infinite; otherwise no number is a difference, whatever the bound.
        let number = found.is_finite() && self.x.is_finite();
        number && (found - self.x).abs() <= 2.0 * self.e || self.x.is_infinite() && found == self.x
    }

    fn new(x: f64, e: f64) -> Num {
        // The bound is itself computed in f64, in far fewer than 1/√ε operations.
        let own = 1.0 + f64::EPSILON.sqrt();
        // What has no bound (infinity times zero) has an infinite one.
        let e = if e.is_nan() { f64::INFINITY } else { e * own };
        Num { x, e }
    }

    /// The largest modulus that the exact value and all its evaluations may have.
    fn most(self) -> f64 {
        self.x.abs() + self.e
    }
}

/// The arithmetic of a precision: the standard model `fl(a op b) = (a op b)(1 + δ)`, `|δ| <= u`.
///
/// Source: Higham, "Accuracy and Stability of Numerical Algorithms" (2002), chapters 2 and 3.
#[derive(Clone, Copy)]
pub struct Rounding {
    pub u: f64,
    /// What underflow may take off.
    tiny: f64,
}

impl Rounding {
    pub fn of<T: Scalar>() -> Rounding {
        Rounding {
            u: T::EPSILON.to_f64() / 2.0,
            // The fast exponential flushes a little above the smallest normal number.
            tiny: 2.0 * T::MIN_POSITIVE.to_f64(),
        }
    }

    /// `γ_n = n u / (1 - n u)`
    pub fn gamma(self, n: usize) -> f64 {
        let nu = n as f64 * self.u;
        if nu < 1.0 {
            nu / (1.0 - nu)
        } else {
            f64::INFINITY
        }
    }

    /// A sum of products, with a start.
    pub fn dot(self, start: Num, pairs: impl Iterator<Item = (Num, Num)>) -> Num {
        let (mut x, mut e, mut size, mut k) = (start.x, start.e, start.most(), 1);
        for (a, b) in pairs {
            x += a.x * b.x;
            e += a.x.abs() * b.e + a.e * b.x.abs() + a.e * b.e;
            size += a.most() * b.most();
            k += 1;
        }
        Num::new(x, e + self.gamma(k + 1) * size + k as f64 * self.tiny)
    }

    pub fn sum(self, terms: impl Iterator<Item = Num>) -> Num {
        let (mut x, mut e, mut size, mut n) = (0.0, 0.0, 0.0, 0);
        for t in terms {
            x += t.x;
            e += t.e;
            size += t.most();
            n += 1;
        }
        Num::new(x, e + self.gamma(n) * size)
    }

    pub fn add(self, a: Num, b: Num) -> Num {
        self.sum([a, b].into_iter())
    }

    /// A row less its mean.
    ///
    /// What the entries are off by is carried by `|δ_ij - 1/d|`: a common shift is taken off. Each of the
    /// two terms is rounded where the mean is summed, where it is divided, and in the difference.
    pub fn centered(self, row: &[Num]) -> Vec<Num> {
        let d = row.len() as f64;
        let mean = row.iter().map(|n| n.x).sum::<f64>() / d;
        let off = row.iter().map(|n| n.e).sum::<f64>() / d;
        let size = row.iter().map(|n| n.most()).sum::<f64>() / d;
        let one = |n: &Num| {
            let carried = n.e * (1.0 - 2.0 / d) + off;
            let own = self.gamma(row.len() + 3) * (n.most() + size);
            Num::new(n.x - mean, carried + own)
        };
        row.iter().map(one).collect()
    }

    pub fn mul(self, a: Num, b: Num) -> Num {
        self.dot(Num::exact(0.0), [(a, b)].into_iter())
    }

    /// The quotient, by division or by the inverse.
    pub fn div(self, a: Num, b: Num) -> Num {
        let x = a.x / b.x;
        let least = b.x.abs() - b.e;
        if least <= 0.0 {
            return Num {
                x,
                e: f64::INFINITY,
            };
        }
        // |a/b - a'/b'| <= (|a - a'| + |a/b| |b - b'|) / |b'|
        let carried = (a.e + x.abs() * b.e) / least;
        let e = carried + self.gamma(3) * (x.abs() + carried) + self.tiny;
        Num::new(x, e)
    }

    pub fn sqrt(self, a: Num) -> Num {
        let x = a.x.sqrt();
        // |√a - √b| = |a - b| / (√a + √b), and at most √|a - b|.
        let carried = if x > 0.0 {
            (a.e / x).min(a.e.sqrt())
        } else {
            a.e.sqrt()
        };
        Num::new(x, carried + self.gamma(2) * (x + carried))
    }
}

/// Numbers of a shape, row-major.
#[derive(Clone, Debug)]
pub struct Value {
    pub shape: Vec<usize>,
    pub data: Vec<Num>,
}

impl Value {
    pub fn exact<T: Scalar>(t: &Tensor<T>) -> Value {
        Value {
            shape: t.shape().to_vec(),
            data: t.data().iter().map(|x| Num::exact(x.to_f64())).collect(),
        }
    }

    pub fn from_fn(shape: &[usize], mut f: impl FnMut(&[usize]) -> Num) -> Value {
        let mut at = vec![0; shape.len()];
        let mut data = Vec::new();
        for _ in 0..shape.iter().product() {
            data.push(f(&at));
            for (i, &n) in at.iter_mut().zip(shape).rev() {
                *i += 1;
                if *i < n {
                    break;
                }
                *i = 0;
            }
        }
        Value {
            shape: shape.to_vec(),
            data,
        }
    }

    fn flat(&self, at: &[usize]) -> usize {
        assert_eq!(at.len(), self.shape.len());
        at.iter().zip(&self.shape).fold(0, |flat, (&i, &n)| {
            assert!(i < n, "{at:?} of {:?}", self.shape);
            flat * n + i
        })
    }

    pub fn at(&self, at: &[usize]) -> Num {
        self.data[self.flat(at)]
    }

    /// The largest modulus, and the largest bound.
    pub fn size_and_error(&self) -> (f64, f64) {
        let largest = |f: fn(&Num) -> f64| self.data.iter().map(f).fold(0.0, f64::max);
        (largest(|n| n.x.abs()), largest(|n| n.e))
    }

    /// Where a tensor is no evaluation of these expressions, if anywhere.
    pub fn differs<T: Scalar>(&self, found: &Tensor<T>) -> Option<String> {
        assert_eq!(self.shape, found.shape());
        let mut pairs = found.data().iter().zip(&self.data).enumerate();
        let wrong = pairs.find(|(_, (f, n))| !n.covers(f.to_f64()));
        wrong.map(|(flat, (f, n))| {
            format!(
                "{:?}: {f} where {:e} ± {:e} is expected",
                found.place(flat),
                n.x,
                2.0 * n.e
            )
        })
    }
}

/// Parameters by TransformerLens's names.
pub type Params = BTreeMap<String, Value>;

pub fn params<T: Scalar>(model: &Model<T>) -> Params {
    let tensors = model.weights().state_dict().into_iter();
    // Where heads share keys and values, these have an underscore.
    let name = |name: String| name.replace("attn._", "attn.");
    tensors.map(|(n, t)| (name(n), Value::exact(&t))).collect()
}
