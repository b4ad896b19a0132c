//! What was found of edges, in a table.

use super::file::{EdgeFile, Method};
use crate::cli::args::Common;
use crate::cli::output::{report, table, text as table_text};
use anyhow::{Result, bail};
use std::collections::HashMap;
use std::path::Path;

/// How many of the largest effects are listed.
const LARGEST: usize = 20;

/// How approximations compare with exact effects.
struct Comparison<'a> {
    edges: usize,
    correlation: f64,
    /// The edge that is missed by most: its name, what was found of it, and its effect.
    worst: (&'a str, f64, f64),
}

impl EdgeFile {
    /// Writes the file, if there is to be one, and prints what was found.
    pub fn finish(
        &self,
        common: &Common,
        out: Option<&Path>,
        beside: Option<&EdgeFile>,
    ) -> Result<()> {
        let comparison = beside.map(|exact| self.beside(exact)).transpose()?;
        if let Some(out) = out {
            self.write(out)?;
        }
        let json = match &comparison {
            None => self.json().clone(),
            Some(c) => {
                let mut json = self.json().clone();
                let (edge, found, exact) = c.worst;
                json["beside"] = serde_json::json!({
                    "edges": c.edges,
                    "correlation": c.correlation,
                    "worst": {"edge": edge, "found": found, "exact": exact},
                });
                json
            }
        };
        report(common, &json, || {
            let compared = comparison.as_ref().map(|c| {
                let (edge, found, exact) = c.worst;
                format!(
                    "\nbeside exact effects of {} edges: correlation {:.4}, worst miss {edge}: {found:+.4} for {exact:+.4}\n",
                    c.edges, c.correlation
                )
            });
            let written = out.map(|out| format!("\nwrote {}\n", out.display()));
            self.text() + &compared.unwrap_or_default() + &written.unwrap_or_default()
        })
    }

    fn text(&self) -> String {
        let found = &self.found;
        let task = &found.request.task;
        let mut own: Vec<(&str, f64)> = self
            .scores()
            .filter_map(|(edge, score)| Some((edge, score?)))
            .collect();
        let all = self.scores().count();
        own.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
        let method = match found.request.method {
            Method::Exact => "exact",
            Method::Eap => "by edge attribution patching",
            Method::EapIg => "by EAP-IG (inputs)",
            Method::EapIgActivations => "by EAP-IG (activations)",
            Method::AtpStar => "sizes by AtP*",
            Method::Relp => "by RelP",
            Method::RelpQk => "by RelP, attention by its derivatives",
        };
        let pairs = if task.batch == 1 { "pair" } else { "pairs" };
        let mut said = format!(
            "{} of {} {pairs}: {:.4} clean, {:.4} corrupted\n{} of {all} edges, {method}\n",
            task.metric,
            task.batch,
            found.clean,
            found.corrupted,
            own.len(),
        );
        if let Some(shard) = found.shard {
            said += &format!("shard {shard}: `pathsum merge` puts the shards together\n");
        }
        let way = found.corrupted - found.clean;
        let mut t = table(["edge", "effect", "share"]);
        for (edge, effect) in own.iter().take(LARGEST) {
            let share = match way == 0.0 {
                true => String::new(),
                false => format!("{:.4}", effect / way),
            };
            t.add_row([edge.to_string(), format!("{effect:+.4}"), share]);
        }
        said += &format!("\n{}", table_text(&t));
        if own.len() > LARGEST {
            said += &format!("\nThe {LARGEST} largest; --json has all.\n");
        }
        said
    }

    /// Beside exact effects of the same work.
    fn beside<'a>(&'a self, exact: &EdgeFile) -> Result<Comparison<'a>> {
        if exact.found.request.method != Method::Exact {
            bail!("--beside: expected exact effects");
        }
        if exact.found.request.task != self.found.request.task {
            bail!(
                "--beside: the effects there are of another model, other pairs or another metric"
            );
        }
        let known: HashMap<&str, f64> = exact
            .scores()
            .filter_map(|(edge, score)| Some((edge, score?)))
            .collect();
        // Scores of no sign are compared with sizes.
        let exact = |edge: &str| {
            let exact = known.get(edge).copied();
            match self.found.request.method {
                Method::AtpStar => exact.map(f64::abs),
                _ => exact,
            }
        };
        let pairs: Vec<(&str, f64, f64)> = self
            .scores()
            .filter_map(|(edge, score)| Some((edge, score?, exact(edge)?)))
            .collect();
        let worst = pairs
            .iter()
            .copied()
            .max_by(|a, b| (a.1 - a.2).abs().total_cmp(&(b.1 - b.2).abs()));
        let Some(worst) = worst else {
            bail!("--beside: no edge is in both");
        };
        let n = pairs.len() as f64;
        let mean = |of: fn(&(&str, f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / n;
        let (a, b) = (mean(|p| p.1), mean(|p| p.2));
        let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
            pairs.iter().map(|p| of(p.1 - a, p.2 - b)).sum()
        };
        let correlation = sum(&|x, y| x * y) / (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt();
        Ok(Comparison {
            edges: pairs.len(),
            correlation,
            worst,
        })
    }
}
