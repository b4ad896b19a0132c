//! Strings of other lengths and depths.

use super::pictures::{bars, number};
use crate::metric::mean;
use crate::study::brackets::BracketsStudy;
use crate::study::words::percent;
use crate::study::{Chart, ChartAxis, Conclusion, Draw, Picture, Series, Step, Table, XyPlot};

impl BracketsStudy {
    /// The strings' lengths, and how the model fares with others.
    pub(super) fn lengths(&self) -> Step {
        let b = &self.beyond;
        let even = b
            .lengths
            .iter()
            .all(|(brackets, _)| brackets.is_multiple_of(2));
        let names = b.lengths.iter().map(|l| l.0);
        let counts: Vec<f64> = b.lengths.iter().map(|l| l.1 as f64).collect();
        let chart = bars(
            ChartAxis::new("brackets", names),
            "strings",
            "strings",
            &counts,
        );
        let (most, count) = b
            .lengths
            .iter()
            .max_by_key(|l| l.1)
            .expect("there are strings");
        let (told, of) = b.parity;
        let lowest = |of: &[(usize, f64)]| {
            of.iter().fold(
                (0, f64::INFINITY),
                |m, &(n, right)| if right < m.1 { (n, right) } else { m },
            )
        };
        let average = mean(&b.odd.iter().map(|o| o.1).collect::<Vec<_>>());
        let deeper: Vec<f64> = b
            .depths
            .iter()
            .filter(|d| d.0 > b.deepest)
            .map(|d| d.1)
            .collect();
        let (worst, right) = lowest(&b.depths);
        let x: Vec<f64> = b.depths.iter().map(|p| p.0 as f64).collect();
        let y: Vec<f64> = b.depths.iter().map(|p| p.1).collect();
        let depths = XyPlot {
            title: String::new(),
            x: "depth".into(),
            y: "share right".into(),
            series: vec![Series::new("balanced strings", Draw::Line, &x, &y)],
        };
        let depth_words = match deeper.is_empty() {
            true => String::new(),
            false => format!(
                " Of depths beyond that it has {} right.",
                percent(mean(&deeper))
            ),
        };
        let mut step = Step::new(
            "lengths",
            "Even lengths, and what lies beyond the training strings",
            "All strings have an even number of brackets, so that the model cannot go by the length.",
            Conclusion::of(
                even,
                format!(
                    "{} lengths from {} to {}; most, {count} strings, have {most}",
                    b.lengths.len(),
                    b.lengths[0].0,
                    b.lengths[b.lengths.len() - 1].0
                ),
            ),
        )
        .text(format!(
            "A head could tell odd lengths from even ones: with scores that rise with the position it attends to the last there is, and \
             copies the parity of it. Made by hand of two directions fitted to this model's positional embedding, it tells the parity of \
             {told} of the {of} lengths. Of strings of odd length, balanced ones with one more bracket somewhere, the model has {} right, \
             and {} at the worst length, {}.",
            percent(average),
            percent(lowest(&b.odd).1),
            lowest(&b.odd).0
        ))
        .text(format!(
            "How does it fare with depths and lengths that it was not trained on? The write-up asks, and does not say. The balanced strings \
             here are at most {} deep.{depth_words} Strings of each depth, of full length, open so many brackets at once and then toss \
             within that depth; at the worst depth, {worst}, {} are right.",
            b.deepest,
            percent(right)
        ));
        if b.is_sine() {
            let mut table = Table::new(
                "Longer strings, share right",
                ["brackets", "balanced", "others"],
            );
            for &(brackets, fine, others) in &b.longer {
                table.row([brackets.into(), fine.into(), others.into()]);
            }
            step = step
                .text(format!(
                    "The positional embedding is sines and cosines of the position, to {}, so that it can be continued to longer strings: \
                     balanced ones, each as likely, and tosses that are not.",
                    number(b.sine_off)
                ))
                .table(table);
        } else {
            step = step.text(format!(
                "The positional embedding is up to {} off sines and cosines of the position: it is learned, and has nothing for longer \
                 strings.",
                number(b.sine_off)
            ));
        }
        step.picture(Picture::new(
            "lengths",
            "Lengths of the strings",
            Chart::Bars(vec![chart]),
        ))
        .picture(Picture::new(
            "depths",
            "Balanced strings of full length by their depth",
            Chart::Xy(vec![depths]),
        ))
    }
}
