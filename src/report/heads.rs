//! Attention of every head of a model on one sequence: the choices. The script draws what was chosen.

use crate::study::HeadsView;
use maud::{Markup, html};
use std::ops::Range;

/// What there is to choose from, and the places for what was chosen.
pub fn controls(view: &HeadsView) -> Markup {
    let [layer, head] = view.first;
    html! {
        div.heads {
            p.controls {
                label { "layer " (choice("layer", 0..view.layers, layer)) }
                label { "head " (choice("head", 0..view.heads, head)) }
                label { input type="checkbox" data-choice="faded" autocomplete="off"; " without the first token, on a scale of the others" }
            }
            div.panels {}
            p.tokens {}
            p.caption {
                "Press a token, or a row of the pattern: the token pressed looks at those that are blue, and is looked at by \
                 those with a line below. The pointer shows the weights."
            }
            noscript { p { "Patterns are drawn by a script, which this browser does not run." } }
        }
    }
}

fn choice(name: &str, options: Range<usize>, chosen: usize) -> Markup {
    html! {
        select data-choice=(name) autocomplete="off" {
            @for i in options { option value=(i) selected[i == chosen] { (i) } }
        }
    }
}
