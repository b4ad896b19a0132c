//! What was found, for people, for programs, and as a page.

use super::super::args::Common;
use super::super::output::{report, table, text};
use super::Asked;
use anyhow::Result;
use pathsum::certify::sets::{Point, Region, Thickness};
use pathsum::certify::{Answered, Case, Certificate, Certified, Claim, Count, Method, Ranges};
use pathsum::report::write_page;
use pathsum::study::{Certification, Number, Page};
use pathsum::task::Task;
use serde_json::{Value, json};
use std::path::Path;

/// What was found of a claim.
pub struct Findings {
    pub claim: Claim,
    /// What is proved; none where counterexamples alone were looked for.
    pub certificate: Option<Certificate>,
    pub cases: Cases,
    /// By answer, with its position, and by right class.
    pub by_right: Vec<(usize, Vec<Answered>)>,
    /// Of sets, how the search came to it.
    pub curve: Vec<Point>,
    /// The widest sets that are proved wrong, and of which nothing is proved.
    pub refuted: Vec<Region>,
    pub open: Vec<Region>,
    pub thickness: Option<Thickness>,
    pub seconds: f64,
}

/// Answers that are worth showing.
#[derive(Default)]
pub struct Cases {
    pub closest: Option<Case>,
    pub wrong: Vec<Case>,
    pub open: Vec<Case>,
}

impl Cases {
    fn json(&self, task: &dyn Task) -> [(&str, Value); 3] {
        let each = |cases: &[Case]| cases.iter().map(|case| case_json(task, case)).collect();
        let closest = self.closest.as_ref().map(|case| case_json(task, case));
        [
            ("closest", json!(closest)),
            ("counterexamples", each(&self.wrong)),
            ("open", each(&self.open)),
        ]
    }

    fn text(&self, task: &dyn Task) -> String {
        let mut said = String::new();
        if let Some(case) = &self.closest {
            let margin = Number::from(case.margin.at_least());
            said += &format!(
                "right by {margin} at the least: {}\n",
                task.text(&case.sequence)
            );
        }
        for (what, cases) in [("wrong", &self.wrong), ("undecided", &self.open)] {
            if let Some(rows) = cases_table(task, cases) {
                said += &format!("{what}, the first of them:\n{rows}");
            }
        }
        said
    }
}

fn case_json(task: &dyn Task, case: &Case) -> Value {
    json!({
        "tokens": case.sequence,
        "text": task.text(&case.sequence),
        "position": case.position,
        "margin": [case.margin.at_least(), case.margin.at_most()],
    })
}

fn cases_table(task: &dyn Task, cases: &[Case]) -> Option<String> {
    const SHOWN: usize = 5;
    let mut rows = table(["sequence", "position", "right logit less the largest other"]);
    for case in cases.iter().take(SHOWN) {
        rows.add_row([
            task.text(&case.sequence),
            case.position.to_string(),
            Number::from(case.margin.value).to_string(),
        ]);
    }
    (!cases.is_empty()).then(|| text(&rows))
}

impl Findings {
    /// Nothing yet.
    pub fn of(claim: Claim) -> Findings {
        Findings {
            claim,
            certificate: None,
            cases: Cases::default(),
            by_right: Vec::new(),
            curve: Vec::new(),
            refuted: Vec::new(),
            open: Vec::new(),
            thickness: None,
            seconds: 0.0,
        }
    }

    /// Writes the page.
    pub fn write_page(&self, model: &str, asked: &Asked, path: &Path) -> Result<()> {
        let of = Certification {
            model,
            claim: &self.claim,
            size: asked.space.size(),
            certified: self.certificate.as_ref().map(|c| &c.header.certified),
            by_right: &self.by_right,
            curve: &self.curve,
            thickness: self.thickness.as_ref(),
            open: &self.open,
            closest: self.cases.closest.as_ref(),
            wrong: &self.cases.wrong,
        };
        write_page(
            &Page::of_certificate(&asked.model, asked.task.as_ref(), &of)?,
            path,
        )?;
        Ok(())
    }

    /// Prints it.
    pub fn show(&self, common: &Common, model: &str, asked: &Asked) -> Result<()> {
        match &self.certificate {
            Some(certificate) => self.show_proved(common, model, asked, certificate),
            None => self.show_refuted(common, model, asked),
        }
    }

    fn show_proved(
        &self,
        common: &Common,
        model: &str,
        asked: &Asked,
        certificate: &Certificate,
    ) -> Result<()> {
        let (header, certified) = (&certificate.header, &certificate.header.certified);
        let task = asked.task.as_ref();
        let mut result = json!({
            "model": model,
            "claim": header.claim,
            "method": method_name(&header.method),
            "ranges": header.method.ranges(),
            "certified": certified,
            "share": certified.share(certified.all.right),
            "seconds": self.seconds,
            "bytes": certificate.write().len(),
        });
        for (name, value) in self.cases.json(task) {
            result[name] = value;
        }
        if header.method == Method::Sets {
            result["curve"] = json!(self.curve);
            result["regions"] = json!({
                "wrong": self.refuted,
                "open": self.open,
                "thinnest": self.thickness.as_ref().map(|t| &t.thinnest),
            });
        }
        report(common, &result, || {
            let space = if header.claim.space.is_empty() {
                "all".to_string()
            } else {
                header.claim.space.clone()
            };
            // Of parts, how much there is of them.
            let walked = header.method.ranges().map(Ranges::count);
            let of = match walked.filter(|&n| u128::from(n) < certified.size) {
                Some(n) => format!(" of {n} of them"),
                None => String::new(),
            };
            format!(
                "{model}: {} ({space}), {} inputs, by {}{of}\n\n{}{}",
                header.claim.task,
                certified.size,
                method_name(&header.method),
                counts_text(certified),
                self.cases.text(task)
            )
        })
    }

    fn show_refuted(&self, common: &Common, model: &str, asked: &Asked) -> Result<()> {
        let (task, wrong) = (asked.task.as_ref(), &self.cases.wrong);
        let size = asked.space.size();
        let result = json!({
            "model": model,
            "task": task.name(),
            "space": self.claim.space,
            "size": size.to_string(),
            "method": "search",
            "refuted": !wrong.is_empty(),
            "counterexamples": wrong.iter().map(|case| case_json(task, case)).collect::<Value>(),
            "seconds": self.seconds,
        });
        report(common, &result, || match cases_table(task, wrong) {
            None => format!(
                "{size} inputs, too many to walk through; no wrong answer was found, which proves nothing\n"
            ),
            Some(rows) => format!(
                "refuted: of {size} inputs, {} that were found are proved wrong, the furthest first:\n{rows}",
                wrong.len()
            ),
        })
    }
}

fn method_name(method: &Method) -> &'static str {
    match method {
        Method::Enumeration(_) => "enumeration",
        Method::Sets => "sets",
    }
}

fn figures(certified: &Certified, count: Count) -> [String; 3] {
    let undecided = certified.size - count.right - count.wrong;
    [count.right, count.wrong, undecided].map(|n| format!("{n} ({})", percent(n, certified.size)))
}

/// A share, cut off: what is not quite all is never said to be all.
fn percent(count: u128, size: u128) -> String {
    const PARTS: u128 = 1_000_000;
    let parts = match count.checked_mul(PARTS) {
        Some(parts) => parts / size.max(1),
        None => count / (size / PARTS),
    };
    let parts = match count < size {
        true => parts.min(PARTS - 1),
        false => parts,
    };
    format!("{}.{:04} %", parts / 10_000, parts % 10_000)
}

pub fn counts_text(certified: &Certified) -> String {
    let mut rows = table([
        "position",
        "certified right",
        "certified wrong",
        "undecided",
    ]);
    let all = ("all".to_string(), certified.all);
    let positions = certified
        .positions
        .iter()
        .map(|(p, count)| (p.to_string(), *count));
    for (place, count) in positions.chain([all]) {
        let [right, wrong, rest] = figures(certified, count);
        rows.add_row([place, right, wrong, rest]);
    }
    text(&rows)
}
