//! What the first layer's heads look for, and how the two parts of it, tokens and positions, go together.

use super::super::comparing::MOST;
use super::super::losses::one_answer;
use super::super::{Looks, PalindromeStudy};
use super::list;
use crate::study::words::{number, percent};
use crate::study::{
    AttentionView, Bar, BarChart, Chart, ChartAxis, Conclusion, HeatMap, Picture, Scale, Sequence,
    Step, Weighting,
};
use crate::task::{Palindromes, Task};

/// The least and the largest of some values, in words.
fn range(values: &[f64], said: fn(f64) -> String) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    match [said(least), said(most)] {
        [least, most] if least == most => least,
        [least, most] => format!("{least} to {most}"),
    }
}

impl PalindromeStudy {
    pub(super) fn looking_for(&self) -> Step {
        let (c, looks) = (&self.circuits, self.comparing.comparing());
        let compared = self.comparing.compared();
        let n = self.comparing.positions.len();
        let by_position = c.mirror_first.len() + c.self_first.len();
        let at_these = |of: &[f64]| -> Vec<f64> {
            compared
                .iter()
                .map(|&p| of[self.comparing.place(p)])
                .collect()
        };
        let shares = if compared.is_empty() {
            String::new()
        } else {
            format!(
                " (there at the mirror in {}, at itself in {})",
                range(&at_these(&looks.mirror_first), percent),
                range(&at_these(&looks.self_first), percent)
            )
        };
        let verdict = Conclusion::of(
            c.top1 > MOST && 2 * by_position > n && 2 * compared.len() > n,
            format!(
                "by tokens alone head {} looks for the same value first for {} of the values; by positions alone for \
                 the mirror first at {} of {n} positions and for itself at {}; by both, first at the mirror if it is \
                 the same and first at itself if it is not at {} of {n}{shares}",
                looks.head,
                percent(c.top1),
                c.mirror_first.len(),
                c.self_first.len(),
                compared.len(),
            ),
        );
        let claim = "The comparing head looks for the same token, and, less strongly, from the second half's positions \
                     at their mirrors or at themselves: together, at the mirror if it is the same, else at itself.";
        let step = Step::new("qk", "What the first layer's heads look for", claim, verdict)
            .text(
                "The scores between two positions are a sum of four: of the two tokens, of the two positions, and \
                 of each with the other. The first picture has all four; the next two are the softmax of the scores \
                 between tokens, and between positions with what comes later masked.",
            )
            .text(format!(
                "The two together are judged on runs: pairs of sequences with the same second half, a palindrome and \
                 one in which no value of the first half is its mirror's. By chance a position that sees so many \
                 others would look at one of them first in {} at the most. Where both hold: {}.",
                percent(1.0 / (self.comparing.positions[0] + 1) as f64),
                list(&compared)
            ));
        let step = self
            .circuit_pictures()
            .into_iter()
            .fold(step, Step::picture);
        let first = BarChart {
            title: String::new(),
            x: ChartAxis::new("positions of the pair", self.pairs()),
            y: "share of sequences".into(),
            bars: vec![
                Bar::new("at the mirror first, the same value", &looks.mirror_first),
                Bar::new("at itself first, another value", &looks.self_first),
            ],
        };
        step.picture(Picture::new(
            "qk-first",
            &format!("Where head {} looks first", looks.head),
            Chart::Bars(vec![first]),
        ))
    }

    fn circuit_pictures(&self) -> Vec<Picture> {
        let c = &self.circuits;
        let task = Palindromes::default();
        let names = task.vocabulary().names();
        let all: Vec<String> = (names.iter().cloned())
            .chain((0..task.positions()).map(|p| format!("position {p}")))
            .collect();
        let axis = |title: &str| ChartAxis::new(title, &all);
        let full = c.heads.iter().zip(&c.full).map(|(head, scores)| {
            let title = format!("head {head}");
            HeatMap::new(
                &title,
                axis("looks"),
                axis("is looked at"),
                &scores.concat(),
            )
        });
        let values = &names[..task.start() as usize];
        let tokens = c.heads.iter().zip(&c.tokens).map(|(head, soft)| {
            let axis = |title: &str| ChartAxis::new(title, values);
            HeatMap::new(
                &format!("head {head}"),
                axis("value that looks"),
                axis("value"),
                &soft.concat(),
            )
        });
        let within = task.positions() - 2;
        let by_positions = c.heads.iter().zip(&c.positions).map(|(head, soft)| {
            let axis = |title: &str| ChartAxis::new(title, 1..=within);
            let lambda = (within / 2..within).flat_map(|p| [[p, p], [p, within - 1 - p]]);
            HeatMap::new(
                &format!("head {head}"),
                axis("position that looks"),
                axis("position"),
                &soft.concat(),
            )
            .marked(lambda)
        });
        let scales = BarChart {
            title: String::new(),
            x: ChartAxis::new("position", 0..task.positions()),
            y: "scale".into(),
            bars: vec![
                Bar::new("mean and standard deviation", &c.scale_mean).whiskers(&c.scale_std),
            ],
        };
        let varies = c.scale_std.iter().zip(&c.scale_mean);
        let varies = varies.map(|(std, mean)| std / mean).fold(0.0, f64::max);
        let maps = |scale, maps: Vec<HeatMap>| Chart::HeatMaps { scale, maps };
        vec![
            Picture::new(
                "qk-full",
                "Scores between all tokens and positions",
                maps(Scale::Diverging, full.collect()),
            ),
            Picture::new(
                "qk-tokens",
                "Attention by tokens alone",
                maps(Scale::Sequential, tokens.collect()),
            ),
            Picture::new(
                "qk-positions",
                "Attention by positions alone",
                maps(Scale::Sequential, by_positions.collect()),
            )
            .caption("Framed: each position of the second half, and its mirror."),
            Picture::new(
                "ln1-scale",
                "The scale of the first norm",
                Chart::Bars(vec![scales]),
            )
            .caption(format!(
                "The two pictures above take its mean. Its standard deviation over the sequences is {} of that at \
                 most.",
                percent(varies)
            )),
        ]
    }

    pub(super) fn repeating(&self) -> Step {
        let r = &self.repeats;
        let same: f64 = r.from_last.iter().sum();
        let more = r.on_lambda.iter().filter(|[without, with]| with > without);
        let more = more.count();
        let last = r.words.len() - 2;
        let verdict = Conclusion::of(
            same > MOST && more == r.mirrored.len(),
            format!(
                "without positions each of the {} places of position {last}'s value has {} of its attention; with \
                 them the mirror and the position itself have more at {more} of the {} positions whose mirrors have \
                 the same value",
                r.from_last.len(),
                range(&r.from_last, number),
                r.mirrored.len()
            ),
        );
        let of = |name: &str| Sequence::new(name, &r.words);
        let view = AttentionView {
            sequences: vec![of("without positions"), of("with positions")],
            heads: vec![self.roles.comparing().to_string()],
            weightings: vec![Weighting::new(
                "attention",
                [r.without.clone(), r.with.clone()],
            )],
        };
        let rise: Vec<String> = (r.mirrored.iter().zip(&r.on_lambda))
            .map(|(p, [without, with])| {
                format!("at {p} from {} to {}", number(*without), number(*with))
            })
            .collect();
        let claim = "Tokens alone would spread the comparing head's attention over all places of the same value; \
                     positions lift the mirror and the position itself out of them.";
        Step::new("repeats", "Values that come again and again", claim, verdict)
            .text(format!(
                "A sequence of five values, four times. The mirror and the position itself together: {}.",
                rise.join(", ")
            ))
            .picture(Picture::new(
                "repeats",
                "Attention with and without the positional embedding",
                view,
            ))
    }

    pub(super) fn first_helper(&self) -> Step {
        let (c, t) = (&self.comparing, &self.targeted);
        let looks = c.helper();
        let (head, at) = (looks.head, c.place(t.helped));
        let own_last = self.circuits.own_last[1];
        let both = |of: &Looks| -> Vec<f64> {
            let both = of.both_equal().into_iter().zip(of.both_broken());
            both.map(|(e, b)| (e + b) / 2.0).collect()
        };
        let both = both(looks);
        let one = one_answer(self.performance.sequences);
        let needed = t.result.all - t.clean >= one;
        let verdict = self.if_it_answers(|| {
            if !needed {
                return Conclusion::not_applicable(format!(
                    "head {head} is not needed: with its mean in its place the loss of {} is {}",
                    number(t.clean),
                    number(t.result.all)
                ));
            }
            Conclusion::of(
                own_last > MOST
                    && looks.more_when_broken[at] > MOST
                    && both.iter().all(|&x| x <= both[at]),
                format!(
                    "by tokens alone it looks for the same value last for {} of the values; at position {} the mirror \
                     has {} of its attention if it is another value, {} if it is the same (more in {} of the pairs)",
                    percent(own_last),
                    t.helped,
                    number(looks.mirror_broken[at]),
                    number(looks.mirror_equal[at]),
                    percent(looks.more_when_broken[at])
                ),
            )
        });
        let panel = |title: &str, mirror: &[f64], own: &[f64]| BarChart {
            title: title.into(),
            x: ChartAxis::new("positions of the pair", self.pairs()),
            y: "mean attention".into(),
            bars: vec![
                Bar::new("to the mirror", mirror),
                Bar::new("to itself", own),
            ],
        };
        let panels = vec![
            panel("the same value", &looks.mirror_equal, &looks.self_equal),
            panel("another value", &looks.mirror_broken, &looks.self_broken),
        ];
        let mut order: Vec<usize> = (0..both.len()).collect();
        order.sort_by(|&a, &b| both[b].total_cmp(&both[a]));
        let ranked = order
            .iter()
            .take(3)
            .map(|&n| format!("{} at {}", number(both[n]), c.positions[n]));
        let claim = "The first layer's helper does the reverse at the position that it is needed for: it shuns the \
                     same token, and looks from there at the mirror if that is another value, else at both.";
        Step::new("first-helper", "What the first layer's helper looks for", claim, verdict)
            .text(format!(
                "On the same pairs. Where the mirror and the value itself together have the largest part of head {head}'s \
                 attention: {} (the mean over the two sides).",
                ranked.collect::<Vec<_>>().join(", ")
            ))
            .picture(Picture::new(
                "first-helper",
                &format!("Attention of head {head}"),
                Chart::Bars(panels),
            ))
    }

    pub(super) fn two_places(&self) -> Step {
        /// Of all attention, what may be called about all of it.
        const NEARLY_ALL: f64 = 0.9;
        let c = &self.comparing;
        let looks = c.comparing();
        let (equal, broken) = (looks.both_equal(), looks.both_broken());
        let nearly = (0..equal.len()).filter(|&n| equal[n].min(broken[n]) >= NEARLY_ALL);
        let nearly = nearly.count();
        let verdict = Conclusion::of(
            2 * nearly > equal.len(),
            format!(
                "together {} if the mirror is the same, {} if it is not; {} or more on both sides at {nearly} of {} \
                 positions",
                range(&equal, number),
                range(&broken, number),
                number(NEARLY_ALL),
                equal.len()
            ),
        );
        let chart = BarChart {
            title: String::new(),
            x: ChartAxis::new("positions of the pair", self.pairs()),
            y: "mean attention to the mirror and to itself".into(),
            bars: vec![
                Bar::new("the same value", &equal),
                Bar::new("another value", &broken),
            ],
        };
        let claim = "The mirror and the value itself share nearly all of the comparing head's attention, so that what \
                     one loses the other gains.";
        Step::new("two-places", "Nowhere else?", claim, verdict)
            .text(format!(
                "If they did, the value itself would gain what the mirror loses. It gains {}, the mirror loses {} on \
                 average.",
                number(c.mean_to_self),
                number(c.mean_to_mirror)
            ))
            .picture(Picture::new(
                "two-places",
                &format!("What two places have of head {}'s attention", looks.head),
                Chart::Bars(vec![chart]),
            ))
    }
}
