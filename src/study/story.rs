//! The story of a study: steps with what a write-up claims, the verdict on it, and the numbers.

use super::published::{Published, Row};
use super::{Picture, Provenance};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What a study found, with every number that its report shows.
///
/// It is the whole of `results.json`: a report is rendered from it alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Story {
    /// The study's name, as the command line spells it: `palindrome`.
    pub study: String,
    /// The report's heading.
    pub title: String,
    /// The model that was studied, in a line: where it is from, and its sizes.
    pub model: String,
    /// What was found, a paragraph each. `Backticks` set code, here and in all other text.
    pub summary: Vec<String>,
    /// The steps, in the write-up's order.
    pub steps: Vec<Step>,
    /// Every figure by its id: `ablate.mean.0.0.logit_diff`.
    pub figures: BTreeMap<String, serde_json::Value>,
}

/// What the ids of figures of generated sequences end in.
const GENERATED: &str = ".generated";

impl Story {
    /// A story without steps.
    pub fn new(study: &str, title: &str, model: &str) -> Self {
        Story {
            study: study.into(),
            title: title.into(),
            model: model.into(),
            summary: Vec::new(),
            steps: Vec::new(),
            figures: BTreeMap::new(),
        }
    }

    /// A step by its id.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn step(&self, id: &str) -> &Step {
        let step = self.steps.iter().find(|s| s.id == id);
        step.unwrap_or_else(|| panic!("there is no step `{id}`"))
    }

    /// Whether a step's claim holds.
    ///
    /// # Panics
    /// As [`Story::step`].
    #[track_caller]
    pub fn holds(&self, id: &str) -> bool {
        self.step(id).verdict.outcome == Outcome::Holds
    }

    /// Records a figure.
    ///
    /// # Panics
    /// If there is one of that id already, or it is no JSON (a map whose keys are no strings).
    #[track_caller]
    pub fn figure(&mut self, id: &str, value: impl Serialize) {
        let value = serde_json::to_value(value).expect("a figure is JSON");
        let before = self.figures.insert(id.into(), value);
        assert!(before.is_none(), "the figure `{id}` is there already");
    }

    /// Records a figure of sequences. Where they were generated its id ends in `.generated`, so that an id always
    /// tells of the same data.
    ///
    /// # Panics
    /// As [`Story::figure`].
    #[track_caller]
    pub fn figure_of(&mut self, origin: Provenance, id: &str, value: impl Serialize) {
        match origin {
            Provenance::Given => self.figure(id, value),
            Provenance::Generated => self.figure(&format!("{id}{GENERATED}"), value),
        }
    }

    /// Sets what a write-up publishes, a `published.json`, beside the figures recorded so far, in the steps that speak
    /// of it. Where there is a figure of generated sequences only, it is that one.
    ///
    /// # Panics
    /// If the text is no such table, or names a step that the story does not have.
    #[track_caller]
    pub(super) fn publish(&mut self, table: &str) {
        let rows: Vec<Row> = serde_json::from_str(table).expect("a table of published figures");
        for Row {
            step,
            mut published,
        } in rows
        {
            let generated = format!("{}{GENERATED}", published.figure);
            if !self.figures.contains_key(&published.figure)
                && self.figures.contains_key(&generated)
            {
                published.figure = generated;
            }
            let speaks = self.steps.iter_mut().find(|s| s.id == step);
            let speaks = speaks.unwrap_or_else(|| panic!("there is no step `{step}`"));
            speaks.published.push(published);
        }
    }

    /// Everything that the write-up publishes, in the order of the steps.
    pub fn published(&self) -> impl Iterator<Item = &Published> {
        self.steps.iter().flat_map(|s| &s.published)
    }
}

/// One step: a claim of the write-up, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The place in the page's address, and the table of contents' key: `ablation`.
    pub id: String,
    /// The heading.
    pub title: String,
    /// What the write-up says, in plain words.
    pub claim: String,
    /// What became of it.
    pub verdict: Conclusion,
    /// How it was tested and what is to be seen, a paragraph each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub text: Vec<String>,
    /// Tables, after the text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<Table>,
    /// Pictures, after the tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pictures: Vec<Picture>,
    /// What the write-up publishes of this, of its own model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<Published>,
}

impl Step {
    /// A step without text, tables and pictures.
    pub fn new(id: &str, title: &str, claim: &str, verdict: Conclusion) -> Self {
        Step {
            id: id.into(),
            title: title.into(),
            claim: claim.into(),
            verdict,
            text: Vec::new(),
            tables: Vec::new(),
            pictures: Vec::new(),
            published: Vec::new(),
        }
    }

    /// With one more paragraph.
    pub fn text(mut self, paragraph: impl Into<String>) -> Self {
        self.text.push(paragraph.into());
        self
    }

    /// With one more table.
    pub fn table(mut self, table: Table) -> Self {
        self.tables.push(table);
        self
    }

    /// With one more picture.
    pub fn picture(mut self, picture: Picture) -> Self {
        self.pictures.push(picture);
        self
    }
}

/// What became of a claim on this model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The numbers say what the claim says.
    Holds,
    /// They do not.
    DoesNotHold,
    /// This model or input has nothing that the claim speaks of.
    NotApplicable,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Holds => "holds",
            Outcome::DoesNotHold => "does not hold",
            Outcome::NotApplicable => "not applicable",
        })
    }
}

/// An outcome, and the numbers that decided it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conclusion {
    /// What became of the claim.
    pub outcome: Outcome,
    /// The numbers that decided it, or why there are none, in one line.
    pub because: String,
}

impl Conclusion {
    /// Holds if `claim` does, with the numbers that decided it.
    pub fn of(claim: bool, because: impl Into<String>) -> Self {
        let outcome = if claim {
            Outcome::Holds
        } else {
            Outcome::DoesNotHold
        };
        Conclusion {
            outcome,
            because: because.into(),
        }
    }

    /// Not applicable, and why.
    pub fn not_applicable(because: impl Into<String>) -> Self {
        Conclusion {
            outcome: Outcome::NotApplicable,
            because: because.into(),
        }
    }
}

/// A table of words and numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Above the table.
    pub title: String,
    /// One for each column.
    pub header: Vec<String>,
    /// As many cells as there are columns, each.
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    pub fn new(title: &str, header: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Table {
            title: title.into(),
            header: header.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    /// One more row.
    ///
    /// # Panics
    /// If it has not as many cells as there are columns.
    #[track_caller]
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let cells: Vec<Cell> = cells.into_iter().collect();
        assert_eq!(cells.len(), self.header.len(), "a cell for each column");
        self.rows.push(cells);
    }
}

/// A table's cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Cell {
    /// A number, rounded only when it is shown.
    Number(Number),
    /// Words.
    Text(String),
}

impl<N: Into<Number>> From<N> for Cell {
    fn from(number: N) -> Self {
        Cell::Number(number.into())
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.into())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell::Text(text)
    }
}

/// A number to be shown. What is not finite is missing: `null` in JSON, nothing on a page.
///
/// Printed with four significant digits; whole numbers in full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Number(Option<f64>);

impl Number {
    /// A number that is not there.
    pub const MISSING: Number = Number(None);

    /// The number, where there is one; it is finite.
    pub fn get(self) -> Option<f64> {
        self.0
    }
}

impl From<f64> for Number {
    fn from(x: f64) -> Self {
        Number(x.is_finite().then_some(x))
    }
}

impl From<f32> for Number {
    fn from(x: f32) -> Self {
        Number::from(f64::from(x))
    }
}

impl From<usize> for Number {
    fn from(n: usize) -> Self {
        Number(Some(n as f64))
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: usize = 4;
        // Beyond these, powers of ten are read more easily than zeros.
        const LARGE: f64 = 1e7;
        const SMALL: f64 = 1e-4;
        let Some(x) = self.0 else {
            return f.write_str("–");
        };
        let size = x.abs();
        if x == 0.0 {
            return f.write_str("0");
        }
        if x == x.trunc() && size < LARGE {
            return write!(f, "{x:.0}");
        }
        let rounded = format!("{x:.*e}", DIGITS - 1);
        let (mantissa, exponent) = rounded.split_once('e').expect("an exponent");
        if !(SMALL..LARGE).contains(&size) {
            return write!(f, "{mantissa}e{exponent}");
        }
        // The exponent after rounding: 9.9996 is 10.00.
        let exponent: i32 = exponent.parse().expect("a whole exponent");
        let decimals = (DIGITS as i32 - 1 - exponent).max(0) as usize;
        write!(f, "{x:.decimals$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_with_four_digits() {
        for (x, shown) in [
            (7.489_111, "7.489"),
            (9.999_6, "10.00"),
            (0.007_990_89, "0.007991"),
            (5000.0, "5000"),
            (-1234.56, "-1235"),
            (0.5, "0.5000"),
            (1e-12, "1.000e-12"),
            (0.0, "0"),
            (-0.0, "0"),
            (3.2e9, "3.200e9"),
        ] {
            assert_eq!(Number::from(x).to_string(), shown);
        }
        assert_eq!(Number::from(f64::NAN), Number::MISSING);
        assert_eq!(Number::from(f64::NEG_INFINITY).to_string(), "–");
    }

    #[test]
    fn cells_read_back_as_what_they_were() {
        let cells = vec![
            Cell::from("head 0.0"),
            Cell::from(0.1 + 0.2),
            Cell::from(f64::INFINITY),
            Cell::from("12"),
            Cell::from(12usize),
        ];
        let json = serde_json::to_string(&cells).unwrap();
        assert_eq!(json, r#"["head 0.0",0.30000000000000004,null,"12",12.0]"#);
        assert_eq!(serde_json::from_str::<Vec<Cell>>(&json).unwrap(), cells);
    }

    #[test]
    #[should_panic(expected = "there already")]
    fn a_figure_is_recorded_once() {
        let mut story = Story::new("s", "t", "m");
        story.figure("loss", 1.0);
        story.figure("loss", 1.0);
    }
}
