//! A model that the page carries: the places for what the reader chooses and what is computed, and the module that
//! computes it.

use crate::study::{ModelView, Picture, View};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use maud::{Markup, PreEscaped, html};

/// This library, built for WebAssembly from `src/browser/`.
const MODULE: &[u8] = include_bytes!("../../fixtures/browser/pathsum.wasm");
const SCRIPT: &str = include_str!("model.js");

/// The places. The script fills them, once the model has been run.
pub fn controls(view: &ModelView) -> Markup {
    html! {
        div.rerun {
            p.tokens {}
            p.controls {
                label { "read after position "
                    select data-choice="position" autocomplete="off" {
                        @for p in 0..view.tokens.len() { option value=(p) selected[p == view.position] { (p) } }
                    }
                }
                button type="button" data-reset { "As it was" }
            }
            p.said role="status" {}
            div.wide {}
            div.panels {}
            noscript { p { "The model is run by a script, which this browser does not run." } }
        }
    }
}

/// Whether a picture is run by the module.
pub fn is_run(picture: &Picture) -> bool {
    matches!(picture.view, View::Model(_))
}

/// The module, and the script that calls it: once, at the end of a page that has such pictures.
pub fn module() -> Markup {
    html! {
        script #module type="application/wasm" { (BASE64_STANDARD.encode(MODULE)) }
        script { (PreEscaped(SCRIPT)) }
    }
}
