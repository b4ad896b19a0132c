//! Plans carried out: weights, and the values of a run, in the place of symbols.
//!
//! ```
//! use pathsum::eval::{Circuit, Value};
//! use pathsum::plan::Form;
//! use pathsum::{Par, fixture};
//!
//! let model = fixture::induction::<f64>();
//! let circuit = Circuit::parse("W_E W_OV[1.0] W_U", &model)?;
//! // The induction head copies: every token votes for itself.
//! assert!(circuit.dense(Par::Seq)?[(3, 3)] > 11.0);
//! let Value::Top(top) = &circuit.values(Form::Top(1), Par::Seq)?[0] else { panic!("asked for the top") };
//! assert!(top.row(3).next().is_some_and(|(token, _)| token == 3));
//! # Ok::<(), pathsum::Error>(())
//! ```

mod circuit;
mod matrix;
mod rotation;

pub use circuit::Circuit;
pub(crate) use matrix::Matrix;
pub(crate) use rotation::Rotation;

use crate::error::{Error, Result};
use crate::expr::{Dims, Expr, Factor, QueryHead, Rational, Symbol};
use crate::factored::Factored;
use crate::frequency;
use crate::linalg::{Complex, Par, Svd, TopK};
use crate::model::{Model, RunOutput};
use crate::names::{Hook, NormSite};
use crate::plan::{Form, MatrixOp, Operand, Plan, Target};
use crate::tensor::{Scalar, Tensor, check_room, softmax_rows};
use faer::{Mat, MatMut, MatRef};

/// Where the symbols' values come from: a model, and one sequence of a run of it.
#[derive(Clone, Copy)]
pub struct Source<'a, T: Scalar> {
    model: &'a Model<T>,
    run: Option<(&'a RunOutput<T>, usize)>,
}

/// The result of a circuit in the form asked for.
#[derive(Clone, Debug)]
pub enum Value<T: Scalar> {
    /// `[rows, cols]`; of [`Form::Dense`] and [`Form::Softmax`].
    Dense(Mat<T>),
    /// Two factors.
    Factored(Factored<T>),
    /// Singular values and vectors.
    Svd(Svd<T>),
    /// Eigenvalues, by descending modulus.
    Eig(Vec<Complex<T>>),
    /// Of [`Form::Norm`] and [`Form::Trace`].
    Number(T),
    /// The diagonal.
    Diag(Vec<T>),
    /// The largest entries of every row.
    Top(TopK<T>),
}

impl<'a, T: Scalar> Source<'a, T> {
    /// A model's weights.
    pub fn of(model: &'a Model<T>) -> Self {
        Source { model, run: None }
    }

    /// A model's weights, and the values of one sequence of a run.
    ///
    /// # Panics
    /// When the batch has no such sequence.
    #[track_caller]
    pub fn run(model: &'a Model<T>, out: &'a RunOutput<T>, sequence: usize) -> Self {
        let batch = out.tokens.batch();
        assert!(sequence < batch, "sequence {sequence} of {batch}");
        Source {
            model,
            run: Some((out, sequence)),
        }
    }

    /// The sizes of the model, and of the sequence where there is one.
    pub fn dims(&self) -> Dims {
        let dims = self.model.config().dims();
        match self.run {
            Some((out, _)) => Dims {
                pos: out.tokens.pos(),
                ..dims
            },
            None => dims,
        }
    }

    /// How a layer turns queries and keys by their positions.
    ///
    /// # Panics
    /// When it does not: no expression that is read for it has a rotation then.
    #[track_caller]
    pub(crate) fn rotation(&self, layer: usize) -> Rotation {
        let dims = self.dims();
        let rotary = self.model.config().rotary_at(layer);
        let rotary = rotary.expect("a model with rotary positions");
        Rotation::new(dims.d_head, rotary.pairs(), rotary.angles(dims.pos))
    }

    /// A factor's value.
    pub(crate) fn matrix(&self, factor: &Factor) -> Result<Matrix<'a, T>> {
        let matrix = self.symbol(&factor.symbol)?;
        let matrix = match matrix {
            Matrix::Diagonal(d) if factor.inverse => {
                Matrix::Diagonal(d.into_iter().map(|x| T::ONE / x).collect())
            }
            other => other,
        };
        Ok(if factor.transposed {
            matrix.t()
        } else {
            matrix
        })
    }

    fn symbol(&self, symbol: &Symbol) -> Result<Matrix<'a, T>> {
        let w = self.model.weights();
        let dims = self.dims();
        let row = |b: &'a Tensor<T>, at: &[usize]| {
            let b = b.slice(at);
            Matrix::View(MatRef::from_row_major_slice(b, 1, b.len()))
        };
        let mlp = |l: usize| w.blocks[l].mlp.as_ref().ok_or_else(|| missing(symbol));
        let norm = |site: NormSite| {
            let found = self.model.norm_at(site);
            found.ok_or_else(|| missing(symbol))
        };
        let attn = |l: usize| &w.blocks[l].attn;
        Ok(match *symbol {
            Symbol::WE => Matrix::View(w.W_E.mat(&[])),
            Symbol::WPos => match self.run {
                // Those of the places that the others leave to each token.
                Some((out, b)) if out.tokens.attention_mask().is_some() => {
                    let of = |p: usize, j: usize| w.W_pos[[out.tokens.position(b, p), j]];
                    Matrix::Owned(Mat::from_fn(dims.pos, dims.d_model, of))
                }
                _ => Matrix::View(w.W_pos.mat(&[]).subrows(0, dims.pos)),
            },
            Symbol::WU => Matrix::View(w.W_U.mat(&[])),
            Symbol::BU => row(&w.b_U, &[]),
            Symbol::C => Matrix::Centring(dims.d_model),
            Symbol::F => Matrix::Owned(residues(dims.d_vocab, dims.d_vocab_out)),
            Symbol::FOut => Matrix::Owned(residues(dims.d_vocab_out, dims.d_vocab_out)),
            Symbol::WQ(h) => Matrix::View(w.W_Q(h.head)),
            Symbol::WK(h) => Matrix::View(w.W_K(h)),
            Symbol::WV(h) => Matrix::View(w.W_V(h)),
            Symbol::WO(h) => Matrix::View(w.W_O(h.head)),
            Symbol::BQ(h) => row(&attn(h.head.layer).b_Q, &[h.head.head]),
            Symbol::BK(h) => row(&attn(h.layer).b_K, &[dims.group(h)]),
            Symbol::BV(h) => row(&attn(h.layer).b_V, &[dims.group(h)]),
            Symbol::BO(l) => row(&attn(l).b_O, &[]),
            Symbol::WIn(l) => Matrix::View(mlp(l)?.W_in.mat(&[])),
            Symbol::WGate(l) => {
                let W_gate = mlp(l)?.W_gate.as_ref();
                Matrix::View(W_gate.ok_or_else(|| missing(symbol))?.mat(&[]))
            }
            Symbol::BGate(l) => {
                let b_gate = mlp(l)?.b_gate.as_ref();
                row(b_gate.ok_or_else(|| missing(symbol))?, &[])
            }
            Symbol::BIn(l) => row(&mlp(l)?.b_in, &[]),
            Symbol::WOut(l) => Matrix::View(mlp(l)?.W_out.mat(&[])),
            Symbol::BOut(l) => row(&mlp(l)?.b_out, &[]),
            Symbol::NormW(site) => {
                let norm = norm(site)?;
                Matrix::Diagonal(norm.w().ok_or_else(|| missing(symbol))?.to_vec())
            }
            Symbol::NormB(site) => {
                let norm = norm(site)?;
                let b = norm.b().ok_or_else(|| missing(symbol))?;
                Matrix::Owned(Mat::from_fn(1, b.len(), |_, j| b[j]))
            }
            Symbol::WNormQ(QueryHead { head: h, .. }) => {
                let norm = norm(NormSite::Q(h.layer))?;
                self.of_head(norm.w().ok_or_else(|| missing(symbol))?, h.head)
            }
            Symbol::WNormK(h) => {
                let norm = norm(NormSite::K(h.layer))?;
                self.of_head(norm.w().ok_or_else(|| missing(symbol))?, dims.group(h))
            }
            Symbol::R(head, n) => Matrix::Owned(self.rotation(head.layer).matrix(n)),
            Symbol::Ones(ref space) => {
                let n = space.size(&dims);
                Matrix::Owned(Mat::from_fn(n, 1, |_, _| T::ONE))
            }
            Symbol::Unit(ref space, index) => {
                let n = space.size(&dims);
                let i = if index < 0 { index + n as i64 } else { index };
                let i = usize::try_from(i).ok().filter(|&i| i < n).ok_or_else(|| {
                    Error::NotInModel(format!("index {index} of {space}: it has {n}"))
                })?;
                Matrix::Selection {
                    rows: n,
                    cols: 1,
                    ones: vec![(i, 0)],
                }
            }
            Symbol::Inject { ref stack, part } => {
                let sizes: Vec<usize> = stack.iter().map(|s| s.size(&dims)).collect();
                let before: usize = sizes[..part].iter().sum();
                Matrix::Selection {
                    rows: sizes.iter().sum(),
                    cols: sizes[part],
                    ones: (0..sizes[part]).map(|i| (before + i, i)).collect(),
                }
            }
            _ => return self.value_of_run(symbol),
        })
    }

    /// What a norm of queries or keys multiplies a head's entries by: the same for all heads, or that of its own.
    fn of_head(&self, w: &[T], own: usize) -> Matrix<'a, T> {
        let d_head = self.model.config().d_head;
        let first = if w.len() == d_head { 0 } else { own * d_head };
        Matrix::Diagonal(w[first..][..d_head].to_vec())
    }

    fn value_of_run(&self, symbol: &Symbol) -> Result<Matrix<'a, T>> {
        let Some((out, b)) = self.run else {
            return Err(Error::NeedsRun(symbol.to_string()));
        };
        match symbol {
            Symbol::Tokens => {
                let ids = out.tokens.sequence(b).iter().map(|&t| t as usize);
                return Ok(Matrix::Selection {
                    rows: out.tokens.pos(),
                    cols: self.model.config().d_vocab,
                    ones: ids.enumerate().collect(),
                });
            }
            Symbol::Logits => return Ok(Matrix::View(out.logits.mat(&[b]))),
            _ => {}
        }
        let hook = symbol.hook().ok_or_else(|| missing(symbol))?;
        let value = out.cache.require(hook)?;
        Ok(match *symbol {
            Symbol::Scale(_) => Matrix::Diagonal(value.slice(&[b]).to_vec()),
            Symbol::ScaleQ(QueryHead { head: h, .. }) => scales(value, b, h.head),
            Symbol::ScaleK(h) => scales(value, b, self.dims().group(h)),
            Symbol::Pattern(h) => Matrix::View(value.mat(&[b, h.head])),
            Symbol::Q(QueryHead { head: h, .. })
            | Symbol::RotQ(QueryHead { head: h, .. })
            | Symbol::NormalizedQ(QueryHead { head: h, .. })
            | Symbol::Z(QueryHead { head: h, .. })
            | Symbol::Result(h) => Matrix::View(value.head(b, h.head)),
            // One for all heads of a group.
            Symbol::K(h) | Symbol::RotK(h) | Symbol::NormalizedK(h) | Symbol::V(h) => {
                Matrix::View(value.head(b, self.dims().group(h)))
            }
            _ => Matrix::View(value.mat(&[b])),
        })
    }
}

impl<'a, T: Scalar> From<&'a Model<T>> for Source<'a, T> {
    fn from(model: &'a Model<T>) -> Self {
        Source::of(model)
    }
}

/// What a norm of queries or keys divides a head's by, at every position: `[batch, pos, row, 1]`, of which a head has its own
/// row, or all have one.
fn scales<'a, T: Scalar>(value: &Tensor<T>, b: usize, own: usize) -> Matrix<'a, T> {
    let rows = value.shape()[2];
    let row = if rows == 1 { 0 } else { own };
    let scales = value.slice(&[b]).iter().skip(row).step_by(rows);
    Matrix::Diagonal(scales.copied().collect())
}

fn missing(symbol: &Symbol) -> Error {
    Error::NotInModel(format!("`{symbol}`"))
}

/// The hooks that an expression's values are found at.
pub fn hooks(members: &[Expr]) -> Vec<Hook> {
    let mut hooks: Vec<Hook> = Vec::new();
    for symbol in members.iter().flat_map(Expr::symbols) {
        hooks.extend(symbol.hook().filter(|h| !hooks.contains(h)));
    }
    hooks
}

/// A coefficient in the precision of the computation.
pub(crate) fn coefficient<T: Scalar>(x: &Rational) -> T {
    T::from_f64(*x.numer() as f64) / T::from_f64(*x.denom() as f64)
}

/// Carries out a plan: one value a member of the family.
///
/// # Errors
/// When a symbol has no value in the source, when the form asks for a square matrix and there is none, when what is formed
/// would not fit in memory, or a decomposition fails.
pub fn evaluate<T: Scalar>(plan: &Plan, source: &Source<'_, T>, par: Par) -> Result<Vec<Value<T>>> {
    let bytes = plan.peak_entries().saturating_mul(size_of::<T>() as u64);
    check_room(bytes, "the circuit")?;
    for output in &plan.outputs {
        if plan.form.square() && output.rows != output.cols {
            return Err(Error::Form(format!(
                "form `{}` needs a square matrix, this one is [{}, {}]",
                plan.form, output.rows, output.cols
            )));
        }
    }
    let last_use = plan.last_use();
    let mut made: Vec<Option<Mat<T>>> = Vec::new();
    for (i, step) in plan.steps.iter().enumerate() {
        let value = carry_out(&step.op, step.shape, plan, source, &made, par)?;
        made.push(Some(value));
        for s in (0..=i).filter(|&s| last_use[s] == i) {
            made[s] = None;
        }
    }
    let finished = plan.outputs.iter().map(|output| {
        let mut values = Vec::new();
        for (x, target) in &output.terms {
            let value = finish(target, plan, source, &made, par)?;
            values.push((coefficient::<T>(x), value));
        }
        let mut values = values.into_iter();
        let Some((_, first)) = values.next() else {
            return Ok(match plan.form {
                Form::Diag => Value::Diag(vec![T::ZERO; output.rows]),
                _ => Value::Number(T::ZERO),
            });
        };
        if !matches!(plan.form, Form::Trace | Form::Diag) {
            return Ok(first);
        }
        let first = (coefficient::<T>(&output.terms[0].0), first);
        let sum = std::iter::once(first)
            .chain(values)
            .fold(None, |sum, (x, v)| match (sum, v) {
                (None, Value::Number(v)) => Some(Value::Number(x * v)),
                (Some(Value::Number(sum)), Value::Number(v)) => Some(Value::Number(sum + x * v)),
                (None, Value::Diag(v)) => Some(Value::Diag(v.iter().map(|&v| x * v).collect())),
                (Some(Value::Diag(sum)), Value::Diag(v)) => Some(Value::Diag(
                    sum.iter().zip(&v).map(|(&sum, &v)| sum + x * v).collect(),
                )),
                _ => unreachable!("a trace is a number, a diagonal a row"),
            });
        Ok(sum.expect("one term at least"))
    });
    finished.collect()
}

fn operand<'v, T: Scalar>(
    operand: &Operand,
    plan: &Plan,
    source: &Source<'v, T>,
    made: &'v [Option<Mat<T>>],
) -> Result<Matrix<'v, T>> {
    let step = |i: usize| made[i].as_ref().expect("kept until its last use").as_ref();
    Ok(match operand {
        Operand::Leaf(factor) => source.matrix(factor)?,
        Operand::Identity(space) => {
            let n = space.size(&plan.dims);
            Matrix::Diagonal(vec![T::ONE; n])
        }
        Operand::Step(i) => Matrix::View(step(*i)),
        Operand::Columns(i, first, n) => Matrix::View(step(*i).subcols(*first, *n)),
        Operand::Rows(i, first, n) => Matrix::View(step(*i).subrows(*first, *n)),
    })
}

fn carry_out<T: Scalar>(
    op: &MatrixOp,
    [rows, cols]: [usize; 2],
    plan: &Plan,
    source: &Source<'_, T>,
    made: &[Option<Mat<T>>],
    par: Par,
) -> Result<Mat<T>> {
    let value = |o: &Operand| operand(o, plan, source, made);
    let mut out = Mat::zeros(rows, cols);
    match op {
        MatrixOp::Product(left, right) => return Ok(value(left)?.times(&value(right)?, par)),
        MatrixOp::Sum(terms) => {
            for (x, term) in terms {
                add(out.as_mut(), coefficient(x), &value(term)?);
            }
        }
        MatrixOp::Beside(terms) => {
            let mut at = 0;
            for (x, term) in terms {
                let n = plan.side(term).cols;
                add(
                    out.as_mut().subcols_mut(at, n),
                    coefficient(x),
                    &value(term)?,
                );
                at += n;
            }
        }
        MatrixOp::Below(parts) => {
            let mut at = 0;
            for part in parts {
                let n = plan.side(part).rows;
                add(out.as_mut().subrows_mut(at, n), T::ONE, &value(part)?);
                at += n;
            }
        }
    }
    Ok(out)
}

/// `out += x M`
fn add<T: Scalar>(mut out: MatMut<'_, T>, x: T, M: &Matrix<'_, T>) {
    if let Matrix::Diagonal(d) = M {
        d.iter()
            .enumerate()
            .for_each(|(i, &d)| out[(i, i)] += x * d);
        return;
    }
    let whole;
    let M = match M.dense() {
        Some(M) => M,
        None => {
            whole = M.to_dense();
            whole.as_ref()
        }
    };
    faer::zip!(out, M).for_each(|faer::unzip!(out, M)| *out += x * *M);
}

fn finish<T: Scalar>(
    target: &Target,
    plan: &Plan,
    source: &Source<'_, T>,
    made: &[Option<Mat<T>>],
    par: Par,
) -> Result<Value<T>> {
    let dense = |o: &Operand| Ok::<_, Error>(operand(o, plan, source, made)?.to_dense());
    let form = plan.form;
    Ok(match target {
        Target::Whole(whole) => {
            let M = operand(whole, plan, source, made)?;
            match form {
                Form::Softmax => {
                    // Rows as the kernel wants them: one after the other.
                    let M = M.to_dense();
                    let (m, n) = (M.nrows(), M.ncols());
                    let mut rows: Vec<T> = (0..m)
                        .flat_map(|i| (0..n).map(move |j| (i, j)))
                        .map(|at| M[at])
                        .collect();
                    softmax_rows(&mut rows, n);
                    Value::Dense(MatRef::from_row_major_slice(&rows, m, n).to_owned())
                }
                Form::Dense => Value::Dense(M.to_dense()),
                Form::Trace | Form::Diag => {
                    let M = M.to_dense();
                    let diagonal: Vec<T> = (0..M.nrows()).map(|i| M[(i, i)]).collect();
                    match form {
                        Form::Diag => Value::Diag(diagonal),
                        _ => Value::Number(diagonal.into_iter().sum()),
                    }
                }
                _ => {
                    let M = M.to_dense();
                    let n = M.ncols();
                    of_factors(Factored::new(M, Mat::identity(n, n)), form, par)?
                }
            }
        }
        Target::Pair(left, right) => {
            of_factors(Factored::new(dense(left)?, dense(right)?), form, par)?
        }
    })
}

fn of_factors<T: Scalar>(M: Factored<T>, form: Form, par: Par) -> Result<Value<T>> {
    Ok(match form {
        Form::Factored => Value::Factored(M),
        Form::Svd => Value::Svd(M.svd()?),
        Form::Eig => Value::Eig(M.eigenvalues()?),
        Form::Norm => Value::Number(M.norm()?),
        Form::Trace => Value::Number(M.trace()),
        Form::Diag => Value::Diag(M.diagonal()),
        Form::Top(k) => Value::Top(M.top_k(k, par)?),
        Form::Dense | Form::Softmax => Value::Dense(M.AB(par)),
    })
}

/// The Fourier basis over the first residues of a space; what is beyond them stays as it is.
fn residues<T: Scalar>(all: usize, answers: usize) -> Mat<T> {
    let n = all.min(answers);
    Mat::from_fn(all, all, |i, j| {
        T::from_f64(match i < n && j < n {
            true => frequency::entry(n, i, j),
            false => f64::from(u8::from(i == j)),
        })
    })
}
