//! What a sweep found, in tables.

use super::outcome::{Ablation, SweepFile, What};
use crate::cli::output::{sequences, table, text as table_text};
use crate::cli::words::placed;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table};
use pathsum::intervene::{Each, GridAxis};

/// With more cells than this in a list, or rows in a matrix, the largest changes are listed.
const MAX_LISTED: usize = 40;

/// How many of the largest.
const LARGEST: usize = 20;

/// The width where there is no terminal.
const WIDTH: usize = 100;

/// What was asked, and a table of what was found.
pub fn text(outcome: &SweepFile) -> String {
    let shown = ShownCells::of(outcome);
    let matrix = match outcome.axes.as_slice() {
        [_, _] => shown.matrix(),
        _ => None,
    };
    format!(
        "{}\n{}",
        heading(outcome),
        matrix.unwrap_or_else(|| shown.list())
    )
}

fn heading(outcome: &SweepFile) -> String {
    let request = &outcome.request;
    let chosen = &request.chosen;
    let at: Vec<String> = request.at.iter().map(|&p| outcome.position(p)).collect();
    let positions = match at.len() {
        1 => format!("position {}", at[0]),
        n if n <= 8 => format!("positions {}", at.join(", ")),
        n => format!("{n} positions"),
    };
    let read = format!(
        "{} at {positions} of {}",
        request.metric,
        sequences(request.batch, "")
    );
    let (unchanged, change) = match (&request.what, outcome.corrupted) {
        (What::Ablate { how, seed, .. }, _) => {
            let how = match how {
                Ablation::Mean => "its mean over the sequences".to_string(),
                Ablation::MeanAll => "its mean over sequences and positions".into(),
                Ablation::Zero => "zero".into(),
                Ablation::Resample => {
                    format!("another sequence's (seed {})", seed.unwrap_or_default())
                }
            };
            (
                number(outcome.clean),
                format!("{} replaced by {how}", chosen.site),
            )
        }
        (What::Patch { .. }, corrupted) => (
            format!(
                "{} clean, {} corrupted",
                number(outcome.clean),
                number(corrupted.unwrap_or(f64::NAN))
            ),
            format!(
                "{} of the corrupted run patched from the clean one",
                chosen.site
            ),
        ),
    };
    let mut heading = format!("{read}: {unchanged}\n{change}\n");
    if let Some(shard) = outcome.shard {
        let own = outcome.values.iter().flatten().count();
        heading += &format!(
            "shard {shard}, {own} of {} cells: `pathsum merge` puts the shards together\n",
            outcome.values.len()
        );
    }
    heading
}

impl SweepFile {
    /// A position, with the word there where one is known.
    fn position(&self, position: usize) -> String {
        let words = self.words.as_ref();
        placed(
            position,
            words.and_then(|words| words.get(position)?.as_deref()),
        )
    }

    /// A place along an axis, with the word there where it is a position whose word is known.
    fn label(&self, axis: &GridAxis, i: usize) -> String {
        let label = &axis.labels[i];
        match (axis.by, label.parse()) {
            (Each::Position | Each::Key, Ok(position)) => self.position(position),
            _ => label.clone(),
        }
    }
}

fn number(x: f64) -> String {
    format!("{x:.4}")
}

/// The cells of this shard, and what is told of each.
struct ShownCells<'a> {
    outcome: &'a SweepFile,
    /// Each cell's difference to the run without a change.
    changes: Vec<Option<f64>>,
    largest: f64,
}

impl<'a> ShownCells<'a> {
    fn of(outcome: &'a SweepFile) -> Self {
        let unchanged = outcome.unchanged();
        let changes: Vec<Option<f64>> = outcome
            .values
            .iter()
            .map(|value| value.map(|value| value - unchanged))
            .collect();
        let sizes = changes.iter().flatten().map(|change| change.abs());
        ShownCells {
            largest: sizes.fold(0.0, f64::max),
            outcome,
            changes,
        }
    }

    /// The share recovered where there is one, else the change; in bold where it is among the larger ones.
    fn cell(&self, i: usize) -> Cell {
        let Some(change) = self.changes[i] else {
            return Cell::new("");
        };
        // Of small changes the size, of others as many places as of the metric.
        let small = self.largest < 0.01 && self.largest > 0.0;
        let said = match self.recovered(i) {
            Some(share) => format!("{share:.4}"),
            None if change == 0.0 => "0".into(),
            None if small => format!("{change:+.2e}"),
            None => format!("{change:+.4}"),
        };
        let cell = Cell::new(said);
        if !console::colors_enabled() || change.abs() < 0.5 * self.largest || change == 0.0 {
            return cell;
        }
        let colour = if change < 0.0 {
            Color::Red
        } else {
            Color::Blue
        };
        cell.fg(colour).add_attribute(Attribute::Bold)
    }

    fn recovered(&self, i: usize) -> Option<f64> {
        self.outcome.recovered.as_ref().and_then(|shares| shares[i])
    }

    /// What [`ShownCells::cell`] tells.
    fn told(&self) -> &'static str {
        let recovered = self.outcome.recovered.iter().flatten().flatten().next();
        if recovered.is_some() {
            "recovered"
        } else {
            "change"
        }
    }

    /// One cell a row: all of them, or those with the largest changes.
    fn list(&self) -> String {
        let axes = &self.outcome.axes;
        let metric = &self.outcome.request.metric;
        let names: Vec<String> = axes.iter().map(|axis| axis.by.to_string()).collect();
        let names = names.iter().map(String::as_str);
        let mut t = table(names.chain([metric.as_str(), self.told()]));
        let mut own: Vec<(usize, f64)> = self
            .changes
            .iter()
            .enumerate()
            .filter_map(|(i, change)| Some((i, (*change)?)))
            .collect();
        let all = own.len();
        let some = all > MAX_LISTED;
        if some {
            own.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
            own.truncate(LARGEST);
        }
        for (i, change) in own {
            let (mut row, mut rest) = (Vec::new(), i);
            for axis in axes.iter().rev() {
                row.push(Cell::new(
                    self.outcome.label(axis, rest % axis.labels.len()),
                ));
                rest /= axis.labels.len();
            }
            row.reverse();
            row.push(Cell::new(number(self.outcome.unchanged() + change)));
            row.push(self.cell(i));
            t.add_row(row);
        }
        let hint = match some {
            true => format!("\nThe {LARGEST} largest changes of {all}; --json has all.\n"),
            false => String::new(),
        };
        table_text(&t) + &hint
    }

    /// The shorter of two axes from left to right, if that fits.
    fn matrix(&self) -> Option<String> {
        let [down, right] = self.outcome.axes.as_slice() else {
            return None;
        };
        let turned = down.labels.len() < right.labels.len();
        let (rows, columns) = if turned { (right, down) } else { (down, right) };
        if rows.labels.len() > MAX_LISTED {
            return None;
        }
        let corner = format!("{} \\ {}", rows.by, columns.by);
        let columns_shown: Vec<String> = (0..columns.labels.len())
            .map(|c| self.outcome.label(columns, c))
            .collect();
        let header = [&corner].into_iter().chain(&columns_shown);
        let mut t: Table = table(header.map(String::as_str));
        t.set_content_arrangement(ContentArrangement::Disabled);
        for r in 0..rows.labels.len() {
            let index = |c: usize| match turned {
                true => c * rows.labels.len() + r,
                false => r * columns.labels.len() + c,
            };
            let cells = (0..columns.labels.len()).map(|c| self.cell(index(c)));
            let label = Cell::new(self.outcome.label(rows, r));
            t.add_row([label].into_iter().chain(cells));
        }
        let width = console::Term::stdout()
            .size_checked()
            .map_or(WIDTH, |(_, width)| width.into());
        let text = table_text(&t);
        let fits = text
            .lines()
            .all(|line| console::measure_text_width(line) <= width);
        let told = match self.told() {
            "recovered" => "the share recovered",
            _ => "the change",
        };
        fits.then(|| format!("{told}:\n{text}"))
    }
}
