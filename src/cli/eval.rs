//! `pathsum eval`: circuits, computed.

use super::args::{CircuitArg, Common, Labels};
use super::output::{report, table, text};
use anyhow::{Result, anyhow, bail};
use pathsum::eval::{Value, evaluate};
use pathsum::expr::Expr;
use pathsum::linalg::Par;
use pathsum::tensor::Saved;
use pathsum::{Error, Precision, Scalar, Tensor, write_safetensors};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Compute a circuit on a model's weights, or on a run of it
///
/// `--out` writes a safetensors file: `value`; or `A, B`; `U, S, V`; `eigenvalues` (re, im); `indices` and
/// `values`. A family's members (`W_OV[0.*]`) come first, in the heads' order.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pathsum eval fixture:induction \"W_E W_OV[1.0] W_U\" --as top=3\n  pathsum eval model/ \"W_E W_QK[0.*] W_E^T\" --out qk.safetensors\n  pathsum eval model/ \"pattern[0.0] v[0.0]\" --tokens dataset.safetensors --sequence 3"
)]
pub struct Args {
    #[command(flatten)]
    circuit: CircuitArg,
    /// The safetensors file to write
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    match common.dtype() {
        Precision::F32 => execute::<f32>(args, common),
        Precision::F64 => execute::<f64>(args, common),
    }
}

/// Larger results are for a file.
const MAX_PRINTED: usize = 1 << 20;

fn execute<T: Scalar>(args: &Args, common: &Common) -> Result<ExitCode> {
    let form = args.circuit.form();
    args.circuit
        .with_circuit::<T, _>(common, |circuit, labels| {
            let (family, plan) = (circuit.family(), circuit.plan(form));
            let values = evaluate(&plan, circuit.source(), Par::Rayon).map_err(|e| match e {
                Error::Memory { .. } => {
                    anyhow!("{e}; `--as top=10`, factored, norm or svd need not form the matrix")
                }
                other => other.into(),
            })?;
            let axes: Vec<usize> = family.axes.iter().map(|a| a.labels.len()).collect();
            let named = named(&values, &axes);
            if let Some(out) = &args.out {
                let saved = named
                    .iter()
                    .map(|(name, array)| (name.to_string(), array.saved()));
                write_safetensors(out, saved)?;
            } else if common.json() && named.iter().any(|(_, a)| a.len() > MAX_PRINTED) {
                bail!("more than {MAX_PRINTED} numbers: write them to a file with --out");
            }
            let rows_cols = plan.outputs.first().map(|o| [o.rows, o.cols]);
            let mut result = json!({
                "expression": args.circuit.expr,
                "as": form.to_string(),
                "dtype": T::PRECISION.to_string(),
                "shape": rows_cols,
                "axes": family.axes.iter().map(|a| &a.labels).collect::<Vec<_>>(),
            });
            match &args.out {
                Some(out) => result["out"] = json!(out.display().to_string()),
                None => {
                    named
                        .iter()
                        .for_each(|(name, array)| result[*name] = array.json());
                    if let Some(words) = top_words(&values, &family.members, labels) {
                        result["words"] = json!(words);
                    }
                }
            }
            report(common, &result, || {
                if let Some(out) = &args.out {
                    let written = named
                        .iter()
                        .map(|(name, a)| format!("{name} {:?}", a.shape()));
                    let written = written.collect::<Vec<_>>().join(", ");
                    return format!("wrote {written} in {} to {}\n", T::PRECISION, out.display());
                }
                let members = values.iter().enumerate();
                members
                    .map(|(i, value)| {
                        let label = family.label(i);
                        let heading = if label.is_empty() {
                            label
                        } else {
                            format!("{label}\n")
                        };
                        let shape = [plan.outputs[i].rows, plan.outputs[i].cols];
                        heading + &shown(value, shape, (&family.members[i], labels))
                    })
                    .collect()
            })?;
            Ok(ExitCode::SUCCESS)
        })
}

/// An array as it is written.
enum Array<T: Scalar> {
    Float(Tensor<T>),
    Index(Vec<usize>, Vec<i64>),
}

impl<T: Scalar> Array<T> {
    fn len(&self) -> usize {
        self.shape().iter().product()
    }

    fn shape(&self) -> &[usize] {
        match self {
            Array::Float(t) => t.shape(),
            Array::Index(shape, _) => shape,
        }
    }

    fn saved(&self) -> Saved<'_> {
        match self {
            Array::Float(t) => t.into(),
            Array::Index(shape, data) => Saved::integers(shape, data),
        }
    }

    fn json(&self) -> serde_json::Value {
        fn nested(shape: &[usize], entries: &[serde_json::Value]) -> serde_json::Value {
            match shape {
                [] => entries[0].clone(),
                [_, rest @ ..] => {
                    let each = rest.iter().product::<usize>().max(1);
                    entries
                        .chunks(each)
                        .map(|chunk| nested(rest, chunk))
                        .collect()
                }
            }
        }
        let entries: Vec<serde_json::Value> = match self {
            Array::Float(t) => t.data().iter().map(|x| json!(x.to_f64())).collect(),
            Array::Index(_, data) => data.iter().map(|x| json!(x)).collect(),
        };
        nested(self.shape(), &entries)
    }
}

/// What a form's arrays are called, the members' values one after the other.
fn named<T: Scalar>(values: &[Value<T>], axes: &[usize]) -> Vec<(&'static str, Array<T>)> {
    let mut all: Vec<(&'static str, Vec<usize>, Vec<T>)> = Vec::new();
    let mut indices: Option<(Vec<usize>, Vec<i64>)> = None;
    let mut put = |name: &'static str, shape: &[usize], data: Vec<T>| match all
        .iter_mut()
        .find(|(n, ..)| *n == name)
    {
        Some((_, _, before)) => before.extend(data),
        None => all.push((name, shape.to_vec(), data)),
    };
    let rows = |M: faer::MatRef<'_, T>| -> Vec<T> {
        let each = |i: usize| (0..M.ncols()).map(move |j| M[(i, j)]);
        (0..M.nrows()).flat_map(each).collect()
    };
    for value in values {
        match value {
            Value::Dense(M) => put("value", &[M.nrows(), M.ncols()], rows(M.as_ref())),
            Value::Factored(M) => {
                let (A, B) = M.pair();
                put("A", &[A.nrows(), A.ncols()], rows(A));
                put("B", &[B.nrows(), B.ncols()], rows(B));
            }
            Value::Svd(svd) => {
                put("U", &[svd.U.nrows(), svd.U.ncols()], rows(svd.U.as_ref()));
                put("S", &[svd.S.len()], svd.S.clone());
                put("V", &[svd.V.nrows(), svd.V.ncols()], rows(svd.V.as_ref()));
            }
            Value::Eig(z) => {
                let parts = z.iter().flat_map(|z| [z.re, z.im]).collect();
                put("eigenvalues", &[z.len(), 2], parts);
            }
            Value::Number(x) => put("value", &[], vec![*x]),
            Value::Diag(d) => put("value", &[d.len()], d.clone()),
            Value::Top(top) => {
                let shape = [top.values.len() / top.k.max(1), top.k];
                put("values", &shape, top.values.clone());
                let columns = top.columns.iter().map(|&c| c as i64);
                indices
                    .get_or_insert_with(|| (shape.to_vec(), Vec::new()))
                    .1
                    .extend(columns);
            }
        }
    }
    let whole = |shape: Vec<usize>| [axes, &shape].concat();
    let index = indices.map(|(shape, data)| ("indices", Array::Index(whole(shape), data)));
    let floats = all
        .into_iter()
        .map(|(name, shape, data)| (name, Array::Float(Tensor::from_vec(&whole(shape), data))));
    floats.chain(index).collect()
}

/// Of the largest entries: the words of their columns, one after the other, where these have any.
fn top_words<T: Scalar>(
    values: &[Value<T>],
    members: &[Expr],
    labels: &Labels,
) -> Option<Vec<String>> {
    let of = |(value, member): (&Value<T>, &Expr)| match value {
        Value::Top(top) => {
            let columns = top.columns.iter();
            columns.map(|&c| labels.word(member.cols(), c)).collect()
        }
        _ => None,
    };
    let all: Option<Vec<Vec<String>>> = values.iter().zip(members).map(of).collect();
    all.map(|all| all.concat())
}

/// Rows and columns that fit a terminal.
const SHOWN_ROWS: usize = 12;
const SHOWN_COLS: usize = 8;

fn number<T: Scalar>(x: T) -> String {
    let x = x.to_f64();
    let plain = x == 0.0 || (1e-3..1e6).contains(&x.abs());
    if plain {
        format!("{x:.4}")
    } else {
        format!("{x:.3e}")
    }
}

/// With what its rows and columns are called.
fn matrix<T: Scalar>(
    M: faer::MatRef<'_, T>,
    row_label: &dyn Fn(usize) -> String,
    column_label: &dyn Fn(usize) -> String,
) -> String {
    let (rows, cols) = (M.nrows().min(SHOWN_ROWS), M.ncols().min(SHOWN_COLS));
    let header = (0..cols).map(column_label);
    let more = if cols < M.ncols() { "…" } else { "" };
    let header: Vec<String> = [String::new()]
        .into_iter()
        .chain(header)
        .chain([more.into()])
        .collect();
    let mut t = table(header.iter().map(String::as_str));
    for i in 0..rows {
        let mut row = vec![row_label(i)];
        row.extend((0..cols).map(|j| number(M[(i, j)])));
        t.add_row(row);
    }
    if rows < M.nrows() {
        t.add_row(vec!["…"]);
    }
    text(&t)
}

fn row<T: Scalar>(values: &[T]) -> String {
    let shown: Vec<String> = values.iter().take(SHOWN_ROWS).map(|&x| number(x)).collect();
    let more = if values.len() > SHOWN_ROWS {
        " …"
    } else {
        ""
    };
    format!("{}{more}", shown.join(" "))
}

fn shown<T: Scalar>(
    value: &Value<T>,
    [rows, cols]: [usize; 2],
    (member, labels): (&Expr, &Labels),
) -> String {
    let row_label = |i: usize| labels.shown(member.rows(), i);
    let column_label = |j: usize| labels.shown(member.cols(), j);
    let number_label = |i: usize| i.to_string();
    match value {
        Value::Dense(M) if M.nrows() == 1 && M.ncols() == 1 => format!("{}\n", number(M[(0, 0)])),
        Value::Dense(M) => format!(
            "[{rows}, {cols}]\n{}",
            matrix(M.as_ref(), &row_label, &column_label)
        ),
        Value::Factored(M) => format!(
            "[{rows}, {cols}] = A B over {}\nA\n{}B\n{}",
            M.inner(),
            matrix(M.A(), &row_label, &number_label),
            matrix(M.B(), &number_label, &column_label)
        ),
        Value::Svd(svd) => format!("[{rows}, {cols}], singular values\n{}\n", row(&svd.S)),
        Value::Eig(z) => {
            let one = |z: &pathsum::linalg::Complex<T>| match z.im == T::ZERO {
                true => number(z.re),
                false => format!("{}{:+.4}i", number(z.re), z.im.to_f64()),
            };
            let all: Vec<String> = z.iter().take(SHOWN_ROWS).map(one).collect();
            let more = if z.len() > SHOWN_ROWS { " …" } else { "" };
            format!("[{rows}, {cols}], eigenvalues\n{}{more}\n", all.join(" "))
        }
        Value::Number(x) => format!("{}\n", number(*x)),
        Value::Diag(d) => format!("diagonal of [{rows}, {cols}]\n{}\n", row(d)),
        Value::Top(top) => {
            let mut t = table(["row", "column: entry, the largest first"]);
            for i in 0..rows.min(SHOWN_ROWS) {
                let entries = top
                    .row(i)
                    .map(|(j, x)| format!("{}: {}", column_label(j), number(x)));
                t.add_row(vec![row_label(i), entries.collect::<Vec<_>>().join("  ")]);
            }
            if rows > SHOWN_ROWS {
                t.add_row(vec!["…"]);
            }
            format!("[{rows}, {cols}]\n{}", text(&t))
        }
    }
}
