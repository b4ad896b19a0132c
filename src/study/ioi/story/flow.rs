//! Where in the prompt the answer is, layer by layer.

use super::maps;
use crate::study::ioi::{IoiStudy, Place};
use crate::study::words::{number, percent};
use crate::study::{ChartAxis, Conclusion, HeatMap, Picture, Scale, Step};

impl IoiStudy {
    /// What a patch of the stream before a layer at a place takes of the logit difference.
    fn taken(&self, layer: usize, place: Place) -> f64 {
        -self.share(self.patching.stream[layer][place as usize])
    }

    pub(super) fn flowed(&self) -> Step {
        let n = self.config.n_layers;
        let early = (0..n).find(|&l| self.taken(l, Place::S2) > self.taken(l, Place::End));
        let later =
            |from: usize| (from..n).find(|&l| self.taken(l, Place::End) > self.taken(l, Place::S2));
        let crossed = early.and_then(later);
        let because = match (early, crossed) {
            (Some(early), Some(crossed)) => format!(
                "before layer {early} the stream at S2 takes {} of the difference and that at END {}; before layer {crossed} it is {} \
                 and {}",
                percent(self.taken(early, Place::S2)),
                percent(self.taken(early, Place::End)),
                percent(self.taken(crossed, Place::S2)),
                percent(self.taken(crossed, Place::End))
            ),
            _ => {
                "there is no layer up to which S2 matters more than END, and END more from there on"
                    .into()
            }
        };
        let places = ChartAxis::new("place", Place::ALL.map(Place::name));
        let values = Place::ALL.into_iter().flat_map(|place| {
            let at = move |l: usize| self.share(self.patching.stream[l][place as usize]);
            (0..n).map(at)
        });
        let values: Vec<f64> = values.collect();
        let map = HeatMap::new("", places, ChartAxis::new("before layer", 0..n), &values);
        Step::new(
            "flow",
            "From the names to the end",
            "What is known of the repeated name is at its second mention first, and moves from there to the end.",
            Conclusion::of(crossed.is_some(), because),
        )
        .text(
            "The clean prompt is run with the stream before one layer at one place as it is in the corrupted prompt's run. What that \
             changes the logit difference by, as a share of it: -1 takes all of it away.",
        )
        .text(format!(
            "At the indirect object's own place, before the first layer, it is {}: the name that is to be moved is another one.",
            number(self.share(self.patching.stream[0][Place::Io as usize]))
        ))
        .picture(Picture::new(
            "stream",
            "The stream patched, by layer and place",
            maps(Scale::Diverging, vec![map]),
        ))
        .picture(
            Picture::new(
                "heads-patched",
                "Each head's output patched, at all positions",
                maps(
                    Scale::Diverging,
                    vec![self.map("", |i| self.share(self.patching.heads[i]), &self.roles.all())],
                ),
            )
            .caption("As a share of the logit difference. Heads with a role have a frame."),
        )
        .picture(
            Picture::new(
                "heads-by-place",
                "Each head's output at a place patched, about",
                maps(Scale::Diverging, vec![self.by_place()]),
            )
            .caption(
                "By derivatives in the clean run; as a share of the logit difference. The heads with a role, and the twenty that do \
                 most of the others.",
            ),
        )
    }

    /// Heads by place, those that matter.
    fn by_place(&self) -> HeatMap {
        /// How many without a role are shown.
        const SHOWN: usize = 20;
        let each = &self.patching.heads_by_place;
        let size = |i: usize| each[i].iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        let own = self.roles.all();
        let mut others: Vec<usize> = (0..self.heads.len())
            .filter(|&i| !own.contains(&self.heads[i]))
            .collect();
        others.sort_by(|&a, &b| size(b).total_cmp(&size(a)));
        others.truncate(SHOWN);
        others.extend(own.iter().map(|&h| self.index(h)));
        others.sort_unstable();
        let values: Vec<f64> = others
            .iter()
            .flat_map(|&i| each[i])
            .map(|x| self.share(x))
            .collect();
        let rows = ChartAxis::new("head", others.iter().map(|&i| self.heads[i]));
        HeatMap::new(
            "",
            rows,
            ChartAxis::new("place", Place::ALL.map(Place::name)),
            &values,
        )
    }
}
