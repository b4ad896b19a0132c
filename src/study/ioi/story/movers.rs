//! What writes the answer: name movers and negative ones; and what happens without them.

use super::{heads_do, listed, maps};
use crate::names::Head;
use crate::study::correlation::correlation;
use crate::study::ioi::{COPIES, Copies, IoiStudy, LOOKS, MATTERS, Role};
use crate::study::words::{number, percent};
use crate::study::{
    Bar, BarChart, Chart, ChartAxis, Conclusion, Draw, Number, Picture, Scale, Series, Step, Table,
    XyPlot,
};

/// How many heads are listed.
const LISTED: usize = 12;

impl IoiStudy {
    /// What writes the difference.
    pub(super) fn written(&self) -> Step {
        let d = &self.seen.direct;
        let of_heads: f64 = d.heads.iter().sum();
        let of_mlps: f64 = d.mlps.iter().sum();
        let [of_heads, of_mlps, rest] = [of_heads, of_mlps, d.rest].map(|x| self.share(x));
        let mut order: Vec<usize> = (0..self.heads.len()).collect();
        order.sort_by(|&a, &b| d.heads[b].abs().total_cmp(&d.heads[a].abs()));
        let mut table = Table::new(
            "The heads that add most to the logit difference, or take most from it",
            [
                "head",
                "adds",
                "from IO",
                "from S1",
                "from S2",
                "from elsewhere",
                "role",
            ],
        );
        for &i in order.iter().take(LISTED) {
            let head = self.heads[i];
            let roles: Vec<&str> = self
                .roles
                .of_head(head)
                .into_iter()
                .map(Role::name)
                .collect();
            let from = d.by_source[i].map(Into::into);
            let cells = [head.to_string().into(), d.heads[i].into()].into_iter();
            table.row(cells.chain(from).chain([roles.join(", ").into()]));
        }
        let n = self.config.n_layers;
        let by_layer: Vec<f64> = self
            .by_layer_of(&d.heads)
            .iter()
            .map(|own| own.iter().sum())
            .collect();
        let bars = BarChart {
            title: String::new(),
            x: ChartAxis::new("layer", 0..n),
            y: "adds to the logit difference".into(),
            bars: vec![Bar::new("heads", &by_layer), Bar::new("neurons", &d.mlps)],
        };
        let suppressors = self.suppressors();
        let of_suppressors = match suppressors.is_empty() {
            true => "No head looks from END at the subject more than at IO and writes against what it sees.".into(),
            false => format!(
                "Heads that the published circuit has not look from END at the subject more than at IO, and suppress what they see, so \
                 that the other name is left: {}. They add {} of the difference.",
                listed(&suppressors),
                percent(self.added_by(&suppressors))
            ),
        };
        Step::new(
            "direct",
            "What writes the answer",
            "Attention heads write the difference, and neurons hardly any of it.",
            Conclusion::of(
                of_heads > 0.5 && of_mlps.abs() < 0.5,
                format!(
                    "heads add {} of it, neurons {}, embeddings and biases {}",
                    percent(of_heads),
                    percent(of_mlps),
                    percent(rest)
                ),
            ),
        )
        .text(
            "The logit difference is a sum: of what each head and each layer's neurons add to it directly, through the last norm at \
             the run's own scale. A head's part is a sum again, over the positions that it takes it from.",
        )
        .text(of_suppressors)
        .table(table)
        .picture(Picture::new("direct-layers", "What each layer adds directly", Chart::Bars(vec![bars])))
        .picture(Picture::new(
            "direct-heads",
            "What each head adds directly",
            maps(Scale::Diverging, vec![self.map("", |i| d.heads[i], &[])]),
        ))
    }

    /// Name movers.
    pub(super) fn moved(&self) -> Step {
        let movers = self.roles.of(Role::NameMover);
        let because = match movers.is_empty() {
            true => format!(
                "no head looks from END at IO, copies it and adds at least {} of the difference",
                percent(MATTERS)
            ),
            false => format!(
                "{}: {}; they add {} of the difference",
                heads_do(movers.len()),
                listed(&movers),
                percent(self.added_by(&movers))
            ),
        };
        let looks = &self.seen.looks;
        let step = Step::new(
            "name-movers",
            "Name movers",
            "Heads of late layers look from the end at the indirect object, and copy what they look at.",
            Conclusion::of(!movers.is_empty(), because),
        )
        .text(format!(
            "A name mover is a head whose query at END gives IO at least {LOOKS} of its attention on average, which adds at least {} of \
             the logit difference directly, and which copies: what it makes of the stream at IO behind the first layer has IO \
             among its five highest logits, on at least {} of the prompts. All heads copy so on {} of them on average.",
            percent(MATTERS),
            percent(COPIES),
            percent(self.mean_over_heads(|c| c.copies))
        ));
        let step = match movers.is_empty() {
            true => step,
            false => step
                .table(self.of_writers("Name movers", &movers, |c| c.copies))
                .picture(
                    Picture::new(
                        "moved",
                        "How much of a name each looks at, and what it adds to that name's logit",
                        self.scatter(&movers),
                    )
                    .caption("A point is a name of a prompt. Source: figure 3 of the paper."),
                ),
        };
        let map = |title: &str, of: &dyn Fn(usize) -> f64| self.map(title, of, &movers);
        step.picture(
            Picture::new(
                "end",
                "Attention from END, by head",
                maps(
                    Scale::Sequential,
                    vec![
                        map("to IO", &|i| looks[i].end_io),
                        map("to S1", &|i| looks[i].end_s1),
                        map("to S2", &|i| looks[i].end_s2),
                    ],
                ),
            )
            .caption("Means over the prompts. Name movers have a frame."),
        )
        .picture(
            Picture::new("patterns", "Attention of one head on the first prompt", self.seen.patterns.clone())
                .caption("Heads are coloured by what they add to the logit difference of this prompt directly."),
        )
    }

    /// Negative name movers.
    pub(super) fn negative(&self) -> Step {
        let own = self.roles.of(Role::NegativeNameMover);
        let because = match own.is_empty() {
            true => format!(
                "no head looks from END at IO, suppresses it and takes at least {} of the difference",
                percent(MATTERS)
            ),
            false => format!(
                "{}: {}; they take {} of the difference",
                heads_do(own.len()),
                listed(&own),
                percent(-self.added_by(&own))
            ),
        };
        let step = Step::new(
            "negative",
            "Negative name movers",
            "Some heads look at the indirect object too, and write against it.",
            Conclusion::of(!own.is_empty(), because),
        )
        .text(format!(
            "As with name movers, with IO among the five lowest logits of what the head makes of it, and at least {} of the difference \
             taken. All heads suppress so on {} of the prompts on average.",
            percent(MATTERS),
            percent(self.mean_over_heads(|c| c.suppresses))
        ));
        match own.is_empty() {
            true => step,
            false => step.table(self.of_writers("Negative name movers", &own, |c| c.suppresses)),
        }
    }

    /// What happens without the name movers.
    pub(super) fn backed_up(&self) -> Step {
        let movers = self.roles.of(Role::NameMover);
        let (id, title) = ("backup", "Without the name movers");
        let claim = "Without the name movers other heads take over: less than half of what they write is lost.";
        let Some(change) = self.without_movers else {
            let because = "there are no name movers";
            return Step::new(id, title, claim, Conclusion::not_applicable(because));
        };
        let graph = &self.circuits.graph;
        let direct: f64 = movers
            .iter()
            .map(|&h| self.exact.upon_logits(graph, h))
            .sum();
        let [lost, written] = [-change, -direct].map(|x| self.share(x));
        Step::new(
            id,
            title,
            claim,
            Conclusion::of(
                lost < 0.5 * written,
                format!(
                    "patched together at the end they take {} of the difference away; their edges into the logits one by one {} in sum",
                    percent(lost),
                    percent(written)
                ),
            ),
        )
        .text(
            "The name movers write at END what they write in the corrupted prompts' runs; all that comes after them is computed anew. \
             An edge into the logits is patched with nothing computed anew but the logits.",
        )
    }

    /// Heads that the published circuit has not: they look from the end at the subject and write against it, so that the
    /// other name is left. The strongest first.
    pub(super) fn suppressors(&self) -> Vec<Head> {
        let direct = |h: &Head| self.share(self.seen.direct.heads[self.index(*h)]);
        let is_one = |h: &&Head| {
            let i = self.index(**h);
            let looks = self.seen.looks[i];
            let at_s = looks.end_s1 + looks.end_s2;
            at_s >= LOOKS
                && at_s > looks.end_io
                && self.seen.copies[i].suppresses >= COPIES
                && direct(h) >= MATTERS
        };
        let mut all: Vec<Head> = self.heads.iter().filter(is_one).copied().collect();
        all.sort_by(|a, b| direct(b).total_cmp(&direct(a)));
        all
    }

    /// What heads add, as a share of the logit difference.
    fn added_by(&self, heads: &[Head]) -> f64 {
        let all: f64 = heads
            .iter()
            .map(|&h| self.seen.direct.heads[self.index(h)])
            .sum();
        self.share(all)
    }

    fn of_writers(&self, title: &str, own: &[Head], copies: impl Fn(&Copies) -> f64) -> Table {
        let mut table = Table::new(
            title,
            [
                "head",
                "adds",
                "to IO",
                "to S1",
                "to S2",
                "copies, or suppresses",
                "correlation",
            ],
        );
        for &head in own {
            let i = self.index(head);
            let looks = self.seen.looks[i];
            table.row([
                head.to_string().into(),
                self.seen.direct.heads[i].into(),
                looks.end_io.into(),
                looks.end_s1.into(),
                looks.end_s2.into(),
                percent(copies(&self.seen.copies[i])).into(),
                self.correlation(head).into(),
            ]);
        }
        table
    }

    /// The correlation of a head's attention to a name and what it adds to that name's logit, over the names of all prompts.
    fn correlation(&self, head: Head) -> f64 {
        let i = self.index(head);
        let points = self.seen.moved.iter().flat_map(|of| {
            let own = of[i];
            [0, 1].map(|name| [own.attention[name], own.logit[name]])
        });
        correlation(points)
    }

    /// The least of the name movers'.
    pub(super) fn least_correlation(&self) -> Number {
        let movers = self.roles.of(Role::NameMover);
        let all = movers.into_iter().map(|h| self.correlation(h));
        Number::from(all.reduce(f64::min).unwrap_or(f64::NAN))
    }

    fn scatter(&self, movers: &[Head]) -> Chart {
        /// As many stand beside each other.
        const SHOWN: usize = 3;
        let plot = |&head: &Head| {
            let i = self.index(head);
            let of = |name: usize, f: &dyn Fn(usize) -> [f64; 2]| -> Vec<f64> {
                (0..self.seen.moved.len()).map(|p| f(p)[name]).collect()
            };
            let series = |title: &str, name: usize| {
                let x = of(name, &|p| self.seen.moved[p][i].attention);
                Series::new(
                    title,
                    Draw::Points,
                    &x,
                    &of(name, &|p| self.seen.moved[p][i].logit),
                )
            };
            XyPlot {
                title: format!(
                    "head {head}, correlation {}",
                    number(self.correlation(head))
                ),
                x: "attention from END to the name".into(),
                y: "added to its logit".into(),
                series: vec![series("IO", 0), series("S", 1)],
            }
        };
        Chart::Xy(movers.iter().take(SHOWN).map(plot).collect())
    }

    pub(super) fn movers_look(&self) -> Number {
        self.mean_over(&self.roles.of(Role::NameMover), |i| {
            self.seen.looks[i].end_io
        })
    }

    /// How often the heads that write copy, or suppress where their role is that.
    pub(super) fn mean_copies(&self, role: Role) -> Number {
        let copies = &self.seen.copies;
        self.mean_over(&self.roles.of(role), |i| match role {
            Role::NegativeNameMover => copies[i].suppresses,
            _ => copies[i].copies,
        })
    }

    pub(super) fn mean_over_heads(&self, of: impl Fn(&Copies) -> f64) -> f64 {
        self.seen.copies.iter().map(of).sum::<f64>() / self.heads.len() as f64
    }
}
