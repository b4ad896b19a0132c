//! Attention patterns to look through: the choices. The script draws what was chosen.

use crate::study::AttentionView;
use maud::{Markup, html};

/// What there is to choose from, and the place for what was chosen.
pub fn controls(view: &AttentionView) -> Markup {
    html! {
        div.attention {
            p.controls {
                label { "sequence " (choice("sequence", view.sequences.iter().map(|s| s.name.as_str()))) }
                label { "head " (choice("head", view.heads.iter().map(String::as_str))) }
                @if view.weightings.len() > 1 {
                    label { "weights " (choice("weighting", view.weightings.iter().map(|w| w.name.as_str()))) }
                }
            }
            div.panels {}
            p.tokens {}
            noscript { p { "Patterns are drawn by a script, which this browser does not run." } }
        }
    }
}

fn choice<'a>(name: &str, options: impl Iterator<Item = &'a str>) -> Markup {
    html! {
        select data-choice=(name) autocomplete="off" {
            @for (i, option) in options.enumerate() { option value=(i) { (option) } }
        }
    }
}
