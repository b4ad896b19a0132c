//! What keeps name movers from the subject.

use super::{heads_do, listed, maps};
use crate::study::ioi::{IoiStudy, LOOKS, MATTERS, MOVERS, Role};
use crate::study::words::percent;
use crate::study::{Conclusion, Number, Picture, Scale, Step, Table};

impl IoiStudy {
    pub(super) fn inhibited(&self) -> Step {
        let (id, title) = ("s-inhibition", "S-inhibition heads");
        let claim = "Heads before the name movers look from the end at the subject's second mention, and what they write goes into \
                     the name movers' queries: without it these look at the subject.";
        if self.exact.movers.is_empty() {
            let because = "there are no name movers whose queries could be looked at";
            return Step::new(id, title, claim, Conclusion::not_applicable(because));
        }
        let graph = &self.circuits.graph;
        let upon = |i: usize| self.share(self.exact.upon_queries(graph, self.heads[i]));
        let own = self.roles.of(Role::SInhibition);
        let because = match own.is_empty() {
            true => format!(
                "no head both looks from END at S2 and has edges into these queries that are {} of the difference",
                percent(MATTERS)
            ),
            false => {
                let sum: f64 = own.iter().map(|&h| -upon(self.index(h))).sum();
                format!(
                    "{}: {}; their edges into the queries of {} are {} of the difference in sum",
                    heads_do(own.len()),
                    listed(&own),
                    listed(&self.exact.movers),
                    percent(sum)
                )
            }
        };
        let mut order: Vec<usize> = (0..self.heads.len()).collect();
        order.sort_by(|&a, &b| upon(a).total_cmp(&upon(b)));
        let mut table = Table::new(
            "The heads whose edges into the name movers' queries matter most",
            ["head", "effect", "to S1", "to S2", "to IO", "role"],
        );
        /// How many are listed.
        const LISTED: usize = 10;
        for &i in order.iter().take(LISTED) {
            let looks = self.seen.looks[i];
            let roles = self
                .roles
                .of_head(self.heads[i])
                .into_iter()
                .map(Role::name);
            table.row([
                self.heads[i].to_string().into(),
                upon(i).into(),
                looks.end_s1.into(),
                looks.end_s2.into(),
                looks.end_io.into(),
                roles.collect::<Vec<_>>().join(", ").into(),
            ]);
        }
        Step::new(id, title, claim, Conclusion::of(!own.is_empty(), because))
            .text(format!(
                "The edges from every head into the queries of the name movers that add most ({} of them at most) are patched exactly, \
                 one by one: the query sees what the head writes in the corrupted prompt's run, and the rest of the run is computed \
                 anew. An S-inhibition head gives S2 at least {LOOKS} of its attention from END, and its edges take at least {} of the \
                 logit difference.",
                MOVERS,
                percent(MATTERS)
            ))
            .table(table)
            .picture(
                Picture::new(
                    "upon-queries",
                    "What each head's edges into the name movers' queries do",
                    maps(Scale::Diverging, vec![self.map("", upon, &own)]),
                )
                .caption("As a share of the logit difference, over the queries of all that were looked at. S-inhibition heads have a frame."),
            )
    }

    pub(super) fn inhibitors_look(&self) -> Number {
        self.mean_over(&self.roles.of(Role::SInhibition), |i| {
            self.seen.looks[i].end_s2
        })
    }
}
