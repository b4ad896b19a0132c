//! The steps on numbers close together: the direct path, and what attending to each of two candidates does.

use super::{CLEARLY, MOST, NEARLY_ALL, OFTEN};
use crate::study::sorted_list::SortedListStudy;
use crate::study::words::percent;
use crate::study::{
    Bar, BarChart, Chart, ChartAxis, Conclusion, HeatMap, Number, Picture, Scale, Step, Table,
};

impl SortedListStudy {
    pub(super) fn direct(&self) -> Step {
        let title = "The direct path favours the next number, but is not what decides";
        let claim = "The direct path from the embedding raises `d + 1` over `d + 2`. But lists with `d`, `d + 1` and `d + 2` \
                     do not become adversarial without it.";
        let Some(d) = &self.direct else {
            return Step::new(
                "direct",
                title,
                claim,
                Conclusion::not_applicable(TOO_SHORT),
            );
        };
        let verdict = if d.right[0] < MOST {
            let why = format!(
                "such lists are answered right in {} with it",
                percent(d.right[0])
            );
            Conclusion::not_applicable(why)
        } else {
            let because = format!(
                "it raises `d + 1` over `d + 2` for {} of the numbers (50% by chance); without it {} of such lists are \
                 answered `d + 1` ({} with it) and {} `d + 2`",
                percent(d.next_before_second),
                percent(d.right[1]),
                percent(d.right[0]),
                percent(d.second[1])
            );
            Conclusion::of(
                d.next_before_second > CLEARLY && d.right[1] > MOST && d.second[1] < d.right[1],
                because,
            )
        };
        let mut table = Table::new("Without the direct path", ["", "the model", "without it"]);
        for (name, [with, without]) in [
            ("right answers, all sequences", d.accuracy),
            ("loss, all sequences", d.loss),
            ("`d + 1` after `d`, close numbers", d.right),
            ("`d + 2` after `d`, close numbers", d.second),
        ] {
            table.row([name.into(), with.into(), without.into()]);
        }
        let shown = self.shares.pushes.iter();
        let shown = shown.filter(|(l, _)| l.starts_with("head ") || l.ends_with("embed"));
        let (names, heights): (Vec<&str>, Vec<f64>) = shown.map(|(l, x)| (l.as_str(), *x)).unzip();
        let bars = BarChart {
            title: String::new(),
            x: ChartAxis::new("component", names),
            y: "standard deviation over the logits".into(),
            bars: vec![Bar::new("directly", &heights)],
        };
        let tokens = self.names();
        let map = HeatMap::new(
            "",
            ChartAxis::new("token", &tokens),
            ChartAxis::new("logit", &tokens),
            &self.circuits.direct_path.concat(),
        );
        Step::new("direct", title, claim, verdict)
            .text(
                "The last norm reads a stream without the token's embedding; the heads read it as it is. What is lost in \
                 all is in the table.",
            )
            .table(table)
            .picture(Picture::new(
                "direct",
                "W_E W_U",
                Chart::HeatMaps {
                    scale: Scale::Diverging,
                    maps: vec![map],
                },
            ))
            .picture(Picture::new(
                "pushes",
                "What each adds to the logits directly",
                Chart::Bars(vec![bars]),
            ))
    }

    pub(super) fn close(&self) -> Step {
        let title = "Three numbers close together";
        let claim = "Of `x < y < z` close together `x` often attends to `z` at least as much as to `y`, and `y` is written all \
                     the same: attending to `z` raises `y` as well, attending to `y` lowers `z`, and in all `y` gets more.";
        let Some(t) = &self.triples else {
            return Step::new("close", title, claim, Conclusion::not_applicable(TOO_SHORT));
        };
        let told = t.published.iter().filter(|p| p.as_told()).count();
        let of_drawn = format!(
            "of {} lists with `d`, `d + 1`, `d + 2` the attention to the last is as large or larger in {}, and of these {} are \
             answered right; in {} the attributions are so",
            t.lists,
            percent(t.further),
            percent(t.right),
            percent(t.as_told)
        );
        let verdict = if t.further < OFTEN {
            Conclusion::not_applicable(format!(
                "there is nothing to explain: `d` attends as much to `d + 2` as to `d + 1` in {} of the lists",
                percent(t.further)
            ))
        } else {
            let of_published = match t.published.len() {
                0 => String::new(),
                n => format!("the attributions are so in {told} of the write-up's {n} lists; "),
            };
            Conclusion::of(
                told == t.published.len() && t.right > NEARLY_ALL && t.as_told > MOST,
                of_published + &of_drawn,
            )
        };
        let map = |title: &str, [y, z]: [String; 2], attribution: &[[f64; 2]; 2]| {
            let (rows, columns) = (
                ChartAxis::new("logit", [&y, &z]),
                ChartAxis::new("attended to", [&y, &z]),
            );
            HeatMap::new(title, rows, columns, &attribution.concat())
        };
        let heads = self.heads();
        let mut maps: Vec<HeatMap> = t
            .published
            .iter()
            .map(|p| {
                let [x, y, z] = p.triple.map(|v| v.to_string());
                map(
                    &format!("after {x}, head {}", heads[p.head]),
                    [y, z],
                    &p.attribution,
                )
            })
            .collect();
        maps.push(map(
            "after d, mean of those drawn",
            ["d + 1".into(), "d + 2".into()],
            &t.attribution,
        ));
        let mut table = Table::new(
            "In the head that copies the second",
            [
                "list",
                "head",
                "attention to the second",
                "to the third",
                "both add to the second",
                "to the third",
            ],
        );
        for p in &t.published {
            let [to_y, to_z] = p.attribution.map(|from| Number::from(from[0] + from[1]));
            table.row([
                self.words(&p.list).into(),
                heads[p.head].as_str().into(),
                p.attention[0].into(),
                p.attention[1].into(),
                crate::study::Cell::Number(to_y),
                crate::study::Cell::Number(to_z),
            ]);
        }
        let mut step = Step::new("close", title, claim, verdict);
        if !t.published.is_empty() {
            step = step.table(table);
        }
        step.picture(
            Picture::new(
                "close",
                "Direct logit attribution by source",
                Chart::HeatMaps {
                    scale: Scale::Diverging,
                    maps,
                },
            )
            .caption("What attending to each of two candidates adds to the logits of both, where the first of three close numbers is read."),
        )
        .picture(Picture::new(
            "close_attention",
            "Attention on such lists",
            self.patterns(&t.shown),
        ))
    }
}

const TOO_SHORT: &str = "this model's lists have not three numbers";
