//! A certificate as a page: where it is proved, how far the proof reaches, where it is thin, and what is wrong.

use super::page::line;
use super::words::percent;
use super::{
    AttentionView, Cell, Chart, ChartAxis, Draw, HeatMap, Number, Page, Picture, Scale, Section,
    Sequence, Series, Table, Weighting, XyPlot,
};
use crate::certify::sets::{Point, Region, Thickness};
use crate::certify::{Answered, Case, Certified, Claim};
use crate::error::Result;
use crate::model::{Model, Run, Tokens};
use crate::names::{Head, Hook};
use crate::task::Task;

/// What a page of a certificate shows; what is empty or `None` it has no section of.
#[derive(Clone, Copy, Debug)]
pub struct Certification<'a> {
    /// The model, as it is called where it is from.
    pub model: &'a str,
    /// What is claimed.
    pub claim: &'a Claim,
    /// How many inputs the space has.
    pub size: u128,
    /// What is proved of all of them, where that was tried.
    pub certified: Option<&'a Certified>,
    /// By answer, with its position, and by right class, what is proved.
    pub by_right: &'a [(usize, Vec<Answered>)],
    /// How the search came to it.
    pub curve: &'a [Point],
    /// How thick the proof is.
    pub thickness: Option<&'a Thickness>,
    /// The widest sets of which nothing is proved.
    pub open: &'a [Region],
    /// The right answer that is so by the least.
    pub closest: Option<&'a Case>,
    /// Inputs that are proved wrong.
    pub wrong: &'a [Case],
}

/// Of counterexamples so many are shown with their attention.
const ATTENTION: usize = 8;

impl Page {
    /// Tells of a certificate of a model.
    ///
    /// # Errors
    /// As [`Model::run`], of the counterexamples.
    ///
    /// # Cost
    /// A run of up to eight counterexamples.
    pub fn of_certificate(
        model: &Model<f64>,
        task: &dyn Task,
        of: &Certification<'_>,
    ) -> Result<Page> {
        let told = Told { model, task, of };
        let sections = [
            told.answers(),
            told.course(),
            told.thin(),
            told.open(),
            told.wrong()?,
        ];
        let space = match of.claim.space.as_str() {
            "" => "all inputs".to_string(),
            space => format!("inputs with `{space}`"),
        };
        Ok(Page {
            title: format!("{}: {} of `{}`", of.model, space, of.claim.task).replace('`', ""),
            model: line(model.config(), of.model, "f64".into()),
            summary: told.summary(),
            sections: sections.into_iter().flatten().collect(),
        })
    }
}

struct Told<'a> {
    model: &'a Model<f64>,
    task: &'a dyn Task,
    of: &'a Certification<'a>,
}

impl Told<'_> {
    fn share(&self, count: u128) -> f64 {
        count as f64 / self.of.size as f64
    }

    fn token(&self, token: usize) -> String {
        self.task.vocabulary().name(token as i64).into()
    }

    fn tokens(&self, tokens: &[usize]) -> String {
        let names: Vec<String> = tokens.iter().map(|&t| self.token(t)).collect();
        match names.is_empty() {
            true => "–".into(),
            false => names.join(" "),
        }
    }

    fn summary(&self) -> Vec<String> {
        let of = self.of;
        let by = match of.claim.margin {
            0.0 => String::new(),
            margin => format!(" by more than {}", Number::from(margin)),
        };
        let mut said = Vec::new();
        said.push(match of.certified {
            Some(Certified { all, size, .. }) => format!(
                "Of {size} inputs {} are certified right ({}){by}, {} certified wrong ({}), and of {} ({}) neither is proved. \
                 This is said of the real-valued function that the weights define, and all rounding of the proof is \
                 accounted for.",
                all.right,
                percent(self.share(all.right)),
                all.wrong,
                percent(self.share(all.wrong)),
                size - all.right - all.wrong,
                percent(self.share(size - all.right - all.wrong)),
            ),
            None => format!(
                "There are {} inputs, too many to prove anything of all of them: counterexamples were looked for, and {} found.",
                of.size,
                of.wrong.len()
            ),
        });
        if let Some(case) = of.closest {
            said.push(format!(
                "Of the right answers the one of `{}` at position {} is so by the least: {}.",
                self.task.text(&case.sequence),
                case.position,
                Number::from(case.margin.at_least()),
            ));
        }
        said
    }

    /// By position and right answer.
    fn answers(&self) -> Option<Section> {
        let certified = self.of.certified?;
        let mut table = Table::new(
            "",
            [
                "position",
                "certified right",
                "certified wrong",
                "undecided",
            ],
        );
        let rows = certified.positions.iter();
        let rows = rows.map(|(p, count)| (p.to_string(), count));
        for (place, count) in rows.chain([("all".into(), &certified.all)]) {
            let open = certified.size - count.right - count.wrong;
            let shares = [count.right, count.wrong, open].map(|n| percent(self.share(n)).into());
            table.row([Cell::from(place)].into_iter().chain(shares));
        }
        let mut section = Section::new("answers", "What is certified").text(
            "By position where an answer is read, and at all of them together: right where every answer is, wrong where any \
             is. Below, by which answer is the right one, of the inputs of which it is.",
        );
        section.tables.push(table);
        type Of = fn(&Answered) -> u128;
        let kinds: [(&str, &str, Of); 3] = [
            ("right", "certified right", |a| a.count.right),
            ("wrong", "certified wrong", |a| a.count.wrong),
            ("undecided", "undecided", |a| {
                a.inputs - a.count.right - a.count.wrong
            }),
        ];
        for (id, title, of) in kinds {
            // Where there is nothing of a kind, its picture would be blank.
            let mut all = self.of.by_right.iter().flat_map(|(_, answered)| answered);
            if !all.any(|answered| of(answered) > 0) {
                continue;
            }
            section.pictures.push(Picture::new(
                id,
                &format!("Share {title}, by position and right answer"),
                self.heat(&of),
            ));
        }
        Some(section)
    }

    fn heat(&self, of: &dyn Fn(&Answered) -> u128) -> Chart {
        let by_right = self.of.by_right;
        let classes = self.task.classes();
        // Classes that are right nowhere have no column.
        let seen = |class: &usize| by_right.iter().any(|(_, all)| all[*class].inputs > 0);
        let columns: Vec<usize> = (0..classes.len()).filter(seen).collect();
        let share = |answered: &Answered| match answered.inputs {
            0 => Number::MISSING,
            inputs => Number::from(of(answered) as f64 / inputs as f64),
        };
        let rows = by_right.iter();
        let values = rows.flat_map(|(_, all)| columns.iter().map(move |&class| share(&all[class])));
        let values: Vec<Number> = values.collect();
        Chart::HeatMaps {
            scale: Scale::Sequential,
            maps: vec![HeatMap::new(
                "",
                ChartAxis::new("position", by_right.iter().map(|(p, _)| *p)),
                ChartAxis::new("right answer", columns.iter().map(|&class| &classes[class])),
                &values,
            )],
        }
    }

    /// What was proved when.
    fn course(&self) -> Option<Section> {
        let curve = self.of.curve;
        let (first, last) = (curve.first()?, curve.last()?);
        let mut table = Table::new(
            "",
            [
                "sets down to a share of",
                "seconds",
                "right",
                "wrong",
                "undecided",
            ],
        );
        // The last point of each cutoff.
        let ends = curve.iter().enumerate().filter(|(i, point)| {
            curve
                .get(i + 1)
                .is_none_or(|next| next.cutoff != point.cutoff)
        });
        let ends: Vec<&Point> = ends.map(|(_, point)| point).collect();
        for point in &ends {
            let numbers = [point.cutoff, point.seconds].map(Cell::from);
            let shares = [point.right, point.wrong, point.open].map(|x| percent(x).into());
            table.row(numbers.into_iter().chain(shares));
        }
        let of = |get: fn(&Point) -> f64| curve.iter().map(get).collect::<Vec<f64>>();
        let seconds = of(|point| point.seconds);
        let mut series = vec![
            Series::new("certified right", Draw::Line, &seconds, &of(|p| p.right)),
            Series::new("undecided", Draw::Line, &seconds, &of(|p| p.open)),
        ];
        let at = |get: fn(&Point) -> f64| ends.iter().map(|p| get(p)).collect::<Vec<f64>>();
        let labels = ends
            .iter()
            .map(|point| format!("sets down to {:.0e}", point.cutoff));
        let marks = Series::new(
            "a cutoff is reached",
            Draw::Points,
            &at(|p| p.seconds),
            &at(|p| p.right),
        );
        series.push(marks.labels(labels));
        let plot = XyPlot {
            title: String::new(),
            x: "seconds".into(),
            y: "share of all inputs".into(),
            series,
        };
        let mut section = Section::new("course", "Share against time").text(format!(
            "From {} to {} certified right in {} seconds. Sets of a smaller share than the cutoff are not divided; it was \
             lowered step by step. At all positions together an input counts where each of its answers is proved.",
            percent(first.right),
            percent(last.right),
            Number::from(last.seconds),
        ));
        section.tables.push(table);
        section.pictures.push(Picture::new(
            "course",
            "What was proved when",
            Chart::Xy(vec![plot]),
        ));
        Some(section)
    }

    /// Where the proof is thin.
    fn thin(&self) -> Option<Section> {
        let thickness = self.of.thickness?;
        let mut section = Section::new("thin", "Where the proof is thin").text(
            "By how much the right logit is above every other at least, as the proof has it: the inputs' own margins are \
             larger. A set that the proof had to divide often is narrow, and its margin may be next to nothing.",
        );
        let answers = self.of.by_right.iter().zip(&thickness.margins);
        let series = answers.map(|((position, _), margins)| {
            let x: Vec<f64> = margins.iter().map(|(margin, _)| *margin).collect();
            let y: Vec<f64> = margins
                .iter()
                .map(|(_, count)| self.share(*count))
                .collect();
            Series::new(&format!("position {position}"), Draw::Line, &x, &y)
        });
        let plot = XyPlot {
            title: String::new(),
            x: "margin of at least".into(),
            y: "share of all inputs".into(),
            series: series.collect(),
        };
        section.pictures.push(
            Picture::new("margins", "How much is certified by how much", Chart::Xy(vec![plot])).caption(
                "What of a line is left at a margin is what a claim with that margin would have, of that position.",
            ),
        );
        section.tables.push(self.regions(
            "The sets that are proved right by the least",
            &thickness.thinnest,
            true,
        ));
        Some(section)
    }

    /// What is left open.
    fn open(&self) -> Option<Section> {
        if self.of.open.is_empty() {
            return None;
        }
        let mut section = Section::new("open", "What is left open").text(
            "The widest sets of which nothing is proved. That is no sign of a wrong answer in them: a lower cutoff decides \
             more.",
        );
        section.tables.push(self.regions("", self.of.open, false));
        Some(section)
    }

    fn regions(&self, title: &str, regions: &[Region], margins: bool) -> Table {
        let mut header = vec![
            "position",
            "query",
            "right",
            "with",
            "without",
            "share of all inputs",
        ];
        if margins {
            header.push("margin");
        }
        let mut table = Table::new(title, header);
        for region in regions {
            let mut cells = vec![
                Cell::from(region.position),
                self.token(region.query).into(),
                self.task.classes()[region.right].clone().into(),
                self.tokens(&region.with).into(),
                self.tokens(&region.without).into(),
                self.share(region.size).into(),
            ];
            if margins {
                cells.push(Cell::Number(
                    region.margin.map_or(Number::MISSING, Number::from),
                ));
            }
            table.row(cells);
        }
        table
    }

    /// Counterexamples, with what the heads attend to.
    fn wrong(&self) -> Result<Option<Section>> {
        if self.of.wrong.is_empty() {
            return Ok(None);
        }
        let c = self.model.config();
        let classes = self.task.classes();
        let mut table = Table::new(
            "",
            [
                "input",
                "position",
                "right",
                "answered",
                "right logit less the largest other",
            ],
        );
        let (mut sequences, mut patterns) = (Vec::new(), Vec::new());
        for case in self.of.wrong {
            let hooks = (0..c.n_layers).map(Hook::Pattern);
            let run = hooks.fold(Run::new(), |run, hook| run.cache(hook));
            let out = self.model.run(&Tokens::from_rows(&[&case.sequence]), run)?;
            let logits = out.logits.slice(&[0, case.position]);
            let answered = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
            let at = self.task.read_at();
            let answer = at.iter().position(|&p| p == case.position);
            let right = answer.map(|answer| self.task.solve(&case.sequence)[answer]);
            let name =
                |class: Option<usize>| class.map_or("–".into(), |class| classes[class].clone());
            table.row([
                Cell::from(self.task.text(&case.sequence)),
                case.position.into(),
                name(right).into(),
                name(answered).into(),
                case.margin.value.into(),
            ]);
            if sequences.len() < ATTENTION {
                let named = format!(
                    "{}: {} at {}, right {}",
                    self.task.text(&case.sequence),
                    name(answered),
                    case.position,
                    name(right)
                );
                let words = case
                    .sequence
                    .iter()
                    .map(|&t| self.task.vocabulary().name(t));
                sequences.push(Sequence::new(named, words).marked([case.position]));
                let mut own = Vec::new();
                for layer in 0..c.n_layers {
                    own.extend_from_slice(out.cache.require(Hook::Pattern(layer))?.data());
                }
                patterns.push(own);
            }
        }
        let heads =
            (0..c.n_layers).flat_map(|layer| (0..c.n_heads).map(move |head| Head { layer, head }));
        let view = AttentionView {
            sequences,
            heads: heads.map(|head| head.to_string()).collect(),
            weightings: vec![Weighting::new("attention", patterns)],
        };
        let mut section = Section::new("wrong", "What is wrong")
            .text("Inputs whose answers are proved wrong; of sets one of each, the widest first.");
        section.tables.push(table);
        section.pictures.push(
            Picture::new("attention", "What they attend to", view)
                .caption("The position at which the wrong answer is read is marked."),
        );
        Ok(Some(section))
    }
}
