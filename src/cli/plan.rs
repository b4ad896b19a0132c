//! `pathsum plan`: how a circuit would be computed, and what it costs.

use super::args::{CircuitArg, Common};
use super::output::{progress, report, table, text};
use anyhow::Result;
use pathsum::eval::{Circuit, evaluate};
use pathsum::linalg::Par;
use pathsum::plan::{Explained, Plan};
use pathsum::{Precision, Scalar};
use serde_json::json;
use std::process::ExitCode;
use std::time::Instant;

/// Show the products that a circuit takes, their order and cost, beside the plain order from left to right
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pathsum plan fixture:induction \"W_E W_OV[0.0] W_OV[1.0] W_U\"\n  pathsum plan model/ \"W_pos W_OV[0.0] (W_U[:,0] - W_U[:,1])\" --measure"
)]
pub struct Args {
    #[command(flatten)]
    circuit: CircuitArg,
    /// Time each order, and print predicted beside measured
    #[arg(long)]
    measure: bool,
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    match common.dtype() {
        Precision::F32 => execute::<f32>(args, common),
        Precision::F64 => execute::<f64>(args, common),
    }
}

fn execute<T: Scalar>(args: &Args, common: &Common) -> Result<ExitCode> {
    let form = args.circuit.form();
    args.circuit.with_circuit::<T, _>(common, |circuit, _| {
        let dims = circuit.source().dims();
        let plan = circuit.plan(form);
        let naive = Plan::naive(&circuit.family().members, &dims, form);
        let (best, plain) = (plan.explain(), naive.explain());
        let mut result = json!({
            "expression": args.circuit.expr,
            "as": form.to_string(),
            "dtype": T::PRECISION.to_string(),
            "plan": best,
            "naive": plain,
        });
        let measured = match args.measure {
            true => measure(&plan, circuit, common)?,
            false => Vec::new(),
        };
        if args.measure {
            result["orders"] = json!(measured);
        }
        report(common, &result, || {
            let size = size_of::<T>() as u64;
            let steps = steps_text(&best, size);
            format!(
                "{steps}\n{}{}",
                totals_text(&best, &plain, size),
                measured_text(&measured)
            )
        })?;
        Ok(ExitCode::SUCCESS)
    })
}

/// One order, predicted and measured.
#[derive(serde::Serialize)]
struct Timing {
    order: String,
    planned: bool,
    flops: u64,
    /// As a share of the planned order's.
    predicted: f64,
    milliseconds: f64,
    /// As a share of the planned order's.
    measured: f64,
}

/// At most so many orders are timed.
const MAX_TIMED: usize = 20;

fn measure<T: Scalar>(
    plan: &Plan,
    circuit: &Circuit<'_, T>,
    common: &Common,
) -> Result<Vec<Timing>> {
    let source = circuit.source();
    let mut plans = match circuit.family().members.as_slice() {
        [expr] => Plan::orders(expr, &source.dims(), plan.form),
        members => vec![
            plan.clone(),
            Plan::naive(members, &source.dims(), plan.form),
        ],
    };
    plans.truncate(MAX_TIMED);
    let bar = progress(common, "timing", plans.len());
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); plans.len()];
    // In turn, so that what else the machine does falls on all of them alike.
    const ROUNDS: usize = 7;
    const ENOUGH_SECONDS: f64 = 0.05;
    for _ in 0..ROUNDS {
        for (plan, times) in plans.iter().zip(&mut times) {
            let start = Instant::now();
            let mut runs = 0;
            while runs == 0 || start.elapsed().as_secs_f64() < ENOUGH_SECONDS {
                evaluate(plan, source, Par::Rayon)?;
                runs += 1;
            }
            times.push(start.elapsed().as_secs_f64() / f64::from(runs));
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let medians: Vec<f64> = times.iter_mut().map(median).collect();
    let planned = plan.parenthesised();
    let is_planned = |p: &Plan| p.parenthesised() == planned;
    let at = plans.iter().position(is_planned).unwrap_or(0);
    let (work, time) = (plans[at].cost().work() as f64, medians[at]);
    let all = plans.iter().zip(&medians).enumerate();
    Ok(all
        .map(|(i, (plan, &median))| Timing {
            order: plan.parenthesised(),
            planned: i == at,
            flops: plan.cost().flops,
            predicted: plan.cost().work() as f64 / work.max(1.0),
            milliseconds: median * 1e3,
            measured: median / time,
        })
        .collect())
}

/// A number with a unit that fits it.
fn scaled(x: u64, unit: &str) -> String {
    let prefixes = [("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)];
    let fits = prefixes.iter().find(|(_, size)| x as f64 >= *size);
    match fits {
        Some((prefix, size)) => format!("{:.3} {prefix}{unit}", x as f64 / size),
        None => format!("{x} {unit}"),
    }
}

fn steps_text(plan: &Explained, size: u64) -> String {
    let mut t = table(["step", "makes", "shape", "operations", "moves"]);
    for (i, step) in plan.steps.iter().enumerate() {
        t.add_row(vec![
            format!("#{}", i + 1),
            step.makes.clone(),
            format!("[{}, {}]", step.shape[0], step.shape[1]),
            scaled(step.cost.flops, "flop"),
            scaled(step.cost.entries * size, "B"),
        ]);
    }
    text(&t)
}

fn totals_text(best: &Explained, naive: &Explained, size: u64) -> String {
    let mut t = table(["", "operations", "moves", "peak memory"]);
    for (name, plan) in [("planned", best), ("left to right", naive)] {
        t.add_row(vec![
            name.to_string(),
            scaled(plan.total.flops, "flop"),
            scaled(plan.total.entries * size, "B"),
            scaled(plan.peak_entries * size, "B"),
        ]);
    }
    text(&t)
}

fn measured_text(orders: &[Timing]) -> String {
    if orders.is_empty() {
        return String::new();
    }
    let mut t = table(["order", "operations", "predicted", "measured", "time"]);
    for order in orders {
        let mark = if order.planned { " (planned)" } else { "" };
        t.add_row(vec![
            format!("{}{mark}", order.order),
            scaled(order.flops, "flop"),
            format!("{:.2}", order.predicted),
            format!("{:.2}", order.measured),
            format!("{:.3} ms", order.milliseconds),
        ]);
    }
    format!("\n{}", text(&t))
}
