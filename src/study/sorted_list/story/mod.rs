//! The study of sorted lists, told.

mod behaviour;
mod close;
mod copying;
mod fooling;
mod seeking;

use super::{CloseTriple, Shown, SortedListStudy};
use crate::study::words::percent;
use crate::study::{
    AttentionView, Chart, ChartAxis, HeatMap, Number, Provenance, Scale, Sequence, Story, Weighting,
};
use serde_json::{Value, json};

/// "Most": more often than not.
const MOST: f64 = 0.5;

/// Where either answer is as likely by chance: halfway from there to always.
const CLEARLY: f64 = 0.75;

/// "Often", "rare": more or less than one in ten.
const OFTEN: f64 = 0.1;

/// "Consistently", and "together they cover it": but for one in ten.
const NEARLY_ALL: f64 = 0.9;

impl SortedListStudy {
    /// The study as a story: steps, verdicts, pictures, and the figures by their ids.
    pub fn story(&self, model: &str) -> Story {
        let model = format!(
            "{model}: 1 layer, heads {}; {} sequences, lists of {} of {} numbers",
            self.heads().join(" and "),
            self.performance.sequences,
            self.length,
            self.values
        );
        let mut story = Story::new("sorted_list", "How a one-layer model sorts a list", &model);
        story.steps = vec![
            self.performed(),
            self.attended(),
            self.ablated(),
            self.copying(),
            self.shared(),
            self.elsewhere(),
            self.seeking(),
            self.attending(),
            self.zero(),
            self.smallest(),
            self.jump(),
            self.direct(),
            self.close(),
        ];
        story.summary = self.summary(&story);
        self.figures(&mut story);
        story.publish(include_str!("../published.json"));
        story
    }

    /// Nothing is told of the mechanism but what holds on this model.
    fn summary(&self, story: &Story) -> Vec<String> {
        let mechanism = ["attention", "ov", "qk"];
        let found = mechanism.iter().filter(|id| story.holds(id)).count();
        let p = &self.performance;
        let mut summary = vec![if found == mechanism.len() {
            format!(
                "The model reads {} numbers and writes them down again in order. At each step the number just written \
                 attends to the smallest number of the list that is larger, `SEP` to the smallest of all, and what is \
                 attended to is copied. The heads share the numbers out: {}.",
                self.length,
                self.split()
            )
        } else {
            format!(
                "The write-up's mechanism is made of {} claims: numbers attend to the next larger one, what is attended \
                 to is copied, and the weights look for what is just above. On this model {} of them hold.",
                mechanism.len(),
                if found == 0 {
                    "none".into()
                } else {
                    found.to_string()
                }
            )
        }];
        summary.push(format!(
            "It gives the right number a probability of {} on average (loss {}); {} of its answers are right.",
            percent(p.mean),
            Number::from(p.loss),
            percent(p.accuracy)
        ));
        for (id, told) in [
            (
                "close",
                "Two candidates close together do not confuse it, though the further one often has more attention: \
                       attending to it raises the nearer one as well, and attending to the nearer one lowers the further.",
            ),
            (
                "jump",
                "A large jump from one number to the next fools it: the number before the jump attends to itself.",
            ),
            (
                "smallest",
                "A list of large numbers only fools it at `SEP`, which does not find the smallest.",
            ),
        ] {
            if story.holds(id) {
                summary.push(told.into());
            }
        }
        summary
    }

    fn figures(&self, story: &mut Story) {
        let p = &self.performance;
        let mut of_data = |id: &str, value: Value| story.figure_of(self.origin, id, value);
        of_data("loss", json!(p.loss));
        of_data("accuracy", json!(p.accuracy));
        of_data("p_correct.mean", json!(p.mean));
        of_data("p_correct.median", json!(p.median));
        of_data("p_correct.min", json!(p.min));
        of_data("p_correct.first_list", json!(self.example.probabilities));
        for (head, rise) in &self.ablations {
            of_data(&format!("ablate.mean.{head}.loss_increase"), json!(rise));
        }
        let a = &self.attending;
        let (head, share) = a.at_the_separator();
        of_data(
            "attention.sep_to_smallest",
            json!({"head": head, "share": share}),
        );
        of_data("attention.hits", json!(a.hits));
        of_data("attention.hits.either", json!(a.either));
        of_data("attention.hits.chance", json!(a.chance));
        of_data(
            "attention.hits.after_sep",
            json!(a.after_the_separator()[0]),
        );
        of_data("attention.hits_in_list", json!(a.hits_in_list));
        of_data("attention.hits_in_list.either", json!(a.either_in_list));
        of_data("attention.kinds", json!(a.kinds));
        of_data("attention.first_list", json!(a.first));
        let s = &self.shares;
        of_data("dla.by_value", json!(s.attribution));
        of_data("dla.by_value.agree", json!(s.agree));
        of_data("attention.by_value", json!(s.attention));
        let z = &self.zero;
        of_data(
            "zero.attention",
            json!({"own": z.attended, "exchanged": z.exchanged}),
        );
        of_data(
            "zero.hits",
            json!({"own": z.hits, "exchanged": z.hits_exchanged}),
        );
        if let Some(d) = &self.direct {
            of_data("direct_path.accuracy", json!(d.accuracy));
            of_data("direct_path.loss", json!(d.loss));
        }
        let by_size = &self.adversarial.by_size;
        of_data("jumps", json!(by_size));
        self.figures_of_weights(story);
        self.figures_of_lists(story);
    }

    fn figures_of_weights(&self, story: &mut Story) {
        let c = &self.circuits;
        story.figure("ov_full", &c.ov_full);
        story.figure("qk_full", &c.qk_full);
        story.figure("qk_pos_emb", &c.qk_pos_emb);
        story.figure("direct_path", &c.direct_path);
        for s in &c.shown {
            story.figure(&format!("qk.{}.top2", s.value), s.top2[s.head]);
            story.figure(&format!("qk.{}.top2_by_head", s.value), &s.top2);
        }
        for h in 0..c.ov_full.len() {
            story.figure(&format!("ov.range.0.{h}"), c.ranges(h));
        }
        story.figure("ov.copied", c.copied());
        story.figure("ov.neighbours", &c.neighbours);
        story.figure("ov.elsewhere", &c.elsewhere);
        story.figure(
            "qk.just_above",
            json!({"by_head": c.just_above, "by_copier": c.just_above_by_copier, "chance": c.just_above_chance}),
        );
        story.figure("qk.skips", c.skips);
        story.figure("qk.to_small", &self.zero.to_small);
        story.figure("qk_pos_emb.small_keys", &self.zero.small_keys);
        if let Some(d) = &self.direct {
            story.figure("direct_path.next_before_second", d.next_before_second);
        }
    }

    /// Of lists that the write-up gives, and of lists that are drawn.
    fn figures_of_lists(&self, story: &mut Story) {
        let published = self.triples.iter().flat_map(|t| &t.published);
        let of = |f: fn(&CloseTriple) -> Value| published.clone().map(f).collect::<Vec<_>>();
        story.figure("dla.close_triples", of(|t| json!(t.attribution)));
        story.figure("close_triples.attention", of(|t| json!(t.attention)));
        let close = json!({
            "lists": of(|t| json!(t.list)),
            "heads": of(|t| json!(t.head)),
            "x": of(|t| json!(t.triple[0])),
            "y": of(|t| json!(t.triple[1])),
            "z": of(|t| json!(t.triple[2])),
        });
        story.figure("close_triples", close);
        story.figure("advex.published", &self.adversarial.published);

        let mut drawn = |id: &str, value: Value| story.figure_of(Provenance::Generated, id, value);
        if let Some(t) = &self.triples {
            drawn("triples.further", json!(t.further));
            drawn("triples.right", json!(t.right));
            drawn("triples.dla", json!(t.attribution));
            drawn("triples.as_told", json!(t.as_told));
        }
        if let Some(d) = &self.direct {
            drawn("direct_path.triples.right", json!(d.right));
            drawn("direct_path.triples.second", json!(d.second));
        }
        let a = &self.adversarial;
        for k in &a.kinds {
            drawn(&format!("advex.{}.p_correct", k.id), json!(k.mean));
            drawn(
                &format!("advex.{}.p_correct.by_step", k.id),
                json!(k.by_step),
            );
            drawn(&format!("advex.{}.accuracy", k.id), json!(k.accuracy));
            drawn(&format!("advex.{}.accuracy.by_step", k.id), json!(k.right));
        }
        if let Some(j) = &a.jump {
            drawn("advex.jump.attention", json!(j.attention));
            drawn(
                "advex.jump.p",
                json!({"itself": j.p_itself, "next": j.p_next, "after_next": j.p_after_next}),
            );
        }
        drawn("smallest", json!(a.by_smallest));
        let found = a.by_smallest.iter().take_while(|s| s.right > MOST);
        drawn("smallest.found_up_to", json!(found.last().map(|s| s.value)));
    }

    /// The tokens' names: the values, and the separator.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = (0..self.values).map(|v| v.to_string()).collect();
        names.push("SEP".into());
        names
    }

    fn name(&self, token: i64) -> String {
        self.names()
            .get(token as usize)
            .cloned()
            .unwrap_or_else(|| token.to_string())
    }

    fn words(&self, tokens: &[i64]) -> String {
        let words: Vec<String> = tokens.iter().map(|&t| self.name(t)).collect();
        words.join(" ")
    }

    /// The heads' names.
    fn heads(&self) -> Vec<String> {
        self.ablations
            .iter()
            .map(|(head, _)| head.clone())
            .collect()
    }

    /// What the steps are read at: the separator, then the first value in order, and so on.
    fn steps(&self) -> ChartAxis {
        let later = (1..self.length).map(|i| format!("value {i}"));
        ChartAxis::new("step, after", std::iter::once("SEP".into()).chain(later))
    }

    fn matrices(&self, per_head: &[Vec<Vec<f64>>], rows: &ChartAxis, columns: &ChartAxis) -> Chart {
        let map = |(head, matrix): (String, &Vec<Vec<f64>>)| {
            HeatMap::new(
                &format!("head {head}"),
                rows.clone(),
                columns.clone(),
                &matrix.concat(),
            )
        };
        Chart::HeatMaps {
            scale: Scale::Diverging,
            maps: self.heads().into_iter().zip(per_head).map(map).collect(),
        }
    }

    /// Patterns to look through.
    fn patterns(&self, shown: &Shown) -> AttentionView {
        let sequences = shown.sequences.iter().map(|tokens| {
            let list = self.words(&tokens[..self.length]);
            Sequence::new(list, tokens.iter().map(|&t| self.name(t)))
        });
        AttentionView {
            sequences: sequences.collect(),
            heads: self.heads(),
            weightings: vec![Weighting::new("attention", shown.patterns.clone())],
        }
    }

    /// Which head copies which values.
    fn split(&self) -> String {
        let of = |(h, head): (usize, String)| {
            let ranges = self.circuits.ranges(h);
            let words = ranges.iter().map(|[a, b]| {
                if a == b {
                    a.to_string()
                } else {
                    format!("{a}–{b}")
                }
            });
            let words: Vec<String> = words.collect();
            let words = if words.is_empty() {
                "none".into()
            } else {
                words.join(", ")
            };
            format!("head {head} copies {words}")
        };
        let heads = self.heads().into_iter().enumerate().map(of);
        heads.collect::<Vec<_>>().join("; ")
    }

    /// Numbers of the heads, in a sentence.
    fn by_head(&self, values: &[f64]) -> String {
        let heads = self.heads();
        let words = heads.iter().zip(values);
        let words = words.map(|(head, &x)| format!("{} in head {head}", Number::from(x)));
        words.collect::<Vec<_>>().join(", ")
    }
}
