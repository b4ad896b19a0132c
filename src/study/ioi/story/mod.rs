//! The study of indirect objects, told.

mod answers;
mod circuits;
mod earlier;
mod flow;
mod inhibition;
mod movers;

use super::{IoiStudy, Role};
use crate::names::Head;
use crate::study::words::{number, percent};
use crate::study::{Chart, HeatMap, Number, Scale, Story};
use serde_json::json;

impl IoiStudy {
    /// The study as a story: steps, verdicts, pictures, and the figures by their ids.
    pub fn story(&self, model: &str) -> Story {
        let c = &self.config;
        let model = format!(
            "{model}: {} layers of {} heads, {} wide, {} tokens; {} prompts, in {}",
            c.n_layers,
            c.n_heads,
            c.d_model,
            c.d_vocab,
            self.prompts.count(),
            self.dtype
        );
        let mut story = Story::new(
            "ioi",
            "How a language model finds the indirect object",
            &model,
        );
        story.steps = vec![
            self.answered(),
            self.by_layer(),
            self.flowed(),
            self.written(),
            self.moved(),
            self.negative(),
            self.inhibited(),
            self.duplicated(),
            self.induced(),
            self.preceded(),
            self.backed_up(),
            self.few_edges(),
            self.by_their_roles(),
        ];
        story.summary = self.summary(&story);
        self.figures(&mut story);
        story.publish(include_str!("../published.json"));
        story
    }

    fn summary(&self, story: &Story) -> Vec<String> {
        let b = &self.seen.behaviour;
        let holds = story.steps.iter().filter(|s| story.holds(&s.id)).count();
        let mut summary = vec![format!(
            "Of {} prompts like \"{}\" the model puts the right name above the wrong one on {}, by {} in the logits on average.",
            self.prompts.count(),
            self.prompts.words[0][0].concat().trim(),
            percent(b.accuracy),
            number(b.logit_diff)
        )];
        let named: Vec<String> = (Role::ALL.into_iter())
            .filter_map(|role| {
                let heads = self.roles.of(role);
                (!heads.is_empty()).then(|| format!("{}: {}", role.name(), listed(&heads)))
            })
            .collect();
        if !named.is_empty() {
            summary.push(format!("Heads by their roles: {}.", named.join("; ")));
        }
        let found = match &self.circuits.smallest {
            Some((size, _)) => format!(
                "{} of its {} edges, with {} of {} heads, restore {} of that difference.",
                size.edges,
                self.circuits.graph.len(),
                size.heads,
                self.heads.len(),
                percent(size.faithfulness)
            ),
            None => {
                "No circuit that was tried restores as much of that difference as GPT-2's does."
                    .into()
            }
        };
        summary.push(found);
        summary.push(format!(
            "Of {} statements about GPT-2 small's circuit {holds} hold here.",
            story.steps.len()
        ));
        summary
    }

    fn figures(&self, story: &mut Story) {
        let b = &self.seen.behaviour;
        story.figure("logit_diff", b.logit_diff);
        story.figure("logit_diff.each", &b.logit_diffs);
        story.figure("logit_diff.corrupted", b.corrupted);
        story.figure("accuracy", b.accuracy);
        story.figure("accuracy.first", b.first);
        story.figure("probability", b.probability);
        story.figure("lens.logit_diff", &self.seen.lens.logit_diff);
        story.figure("lens.accuracy", &self.seen.lens.accuracy);
        let direct = &self.seen.direct;
        story.figure("direct.heads", self.by_layer_of(&direct.heads));
        story.figure("direct.mlps", &direct.mlps);
        story.figure("direct.rest", direct.rest);
        story.figure("direct.by_source", self.by_layer_of(&direct.by_source));
        story.figure("looks", self.by_layer_of(&self.seen.looks));
        story.figure("copies", self.by_layer_of(&self.seen.copies));
        story.figure("patching.stream", &self.patching.stream);
        story.figure("patching.heads", self.by_layer_of(&self.patching.heads));
        let by_place = &self.patching.heads_by_place;
        story.figure(
            "patching.heads_by_place.approximately",
            self.by_layer_of(by_place),
        );
        story.figure(
            "patching.heads_by_place",
            self.by_layer_of(&self.patching.exactly),
        );
        let words = |heads: &[Head]| heads.iter().map(Head::to_string).collect::<Vec<_>>();
        for role in Role::ALL {
            let id = format!("roles.{}", role.name().replace([' ', '-'], "_"));
            story.figure(&id, words(&self.roles.of(role)));
        }
        story.figure("suppressors", words(&self.suppressors()));
        story.figure("movers.attention", self.movers_look());
        story.figure("movers.copies", self.mean_copies(Role::NameMover));
        story.figure("copies.mean", self.mean_over_heads(|c| c.copies));
        story.figure(
            "negative.suppresses",
            self.mean_copies(Role::NegativeNameMover),
        );
        story.figure("suppresses.mean", self.mean_over_heads(|c| c.suppresses));
        story.figure("movers.correlation", self.least_correlation());
        story.figure("inhibition.attention", self.inhibitors_look());
        story.figure(
            "movers.without",
            self.without_movers.map(|x| -x / b.logit_diff),
        );
        let e = &self.exact;
        story.figure("exact.edges", e.edges);
        story.figure("exact.correlation", e.correlation);
        story.figure("exact.into_logits", &e.into_logits);
        let queries = e.movers.iter().zip(&e.into_queries);
        let queries = queries.map(|(head, own)| (head.to_string(), json!(own)));
        story.figure(
            "exact.into_queries",
            queries.collect::<serde_json::Map<_, _>>(),
        );
        let c = &self.circuits;
        story.figure("graph.edges", c.graph.len());
        story.figure("circuits", &c.sizes);
        story.figure("circuits.cpr", c.cpr);
        story.figure("circuits.cmd", c.cmd);
        if let Some((size, _)) = &c.smallest {
            story.figure("circuit", size);
            story.figure("circuit.faithfulness", size.faithfulness);
            story.figure("circuit.heads", size.heads);
        }
        story.figure("circuit.completeness", c.completeness);
        story.figure("by_roles", &self.by_roles);
    }

    /// Of every head something, as `[layer][head]`.
    fn by_layer_of<'a, V>(&self, each: &'a [V]) -> Vec<&'a [V]> {
        each.chunks_exact(self.config.n_heads).collect()
    }

    /// A number of every head as a map.
    fn map(&self, title: &str, of: impl Fn(usize) -> f64, marked: &[Head]) -> HeatMap {
        HeatMap::of_heads(title, &self.config, of, marked)
    }

    /// A share of the logit difference.
    fn share(&self, x: f64) -> f64 {
        x / self.seen.behaviour.logit_diff.abs()
    }

    fn index(&self, head: Head) -> usize {
        head.layer * self.config.n_heads + head.head
    }

    fn mean_over(&self, heads: &[Head], of: impl Fn(usize) -> f64) -> Number {
        let all: f64 = heads.iter().map(|&h| of(self.index(h))).sum();
        Number::from(all / heads.len() as f64)
    }
}

/// Maps of heads on one scale.
fn maps(scale: Scale, maps: Vec<HeatMap>) -> Chart {
    Chart::HeatMaps { scale, maps }
}

/// Heads in a row.
fn listed(heads: &[Head]) -> String {
    let all: Vec<String> = heads.iter().map(Head::to_string).collect();
    all.join(", ")
}

/// So many heads do, in words.
fn heads_do(n: usize) -> String {
    match n {
        1 => "1 head does".into(),
        n => format!("{n} heads do"),
    }
}
