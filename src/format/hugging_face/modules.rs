//! What the modules of a family give: their outputs, as `transformers` names them, and the hooks that they are.

use super::family::Row;
use super::tensors::{EMBED, POSITIONS};
use super::{Described, describe};
use crate::diagram::Config;
use crate::error::{Error, Result};
use crate::format::files::{CONFIG, open_fields};
use crate::model::norm_of_scale;
use crate::names::{Hook, NormSite};
use std::path::Path;

/// The names under which the values of a folder's model may be found elsewhere, and the hooks that they are ([`None`] for
/// the logits): the outputs of `transformers` (`logits`, `hidden_states.L`, `attentions.L`), and those of its modules
/// (`model.layers.0.self_attn.q_proj`). What a module gives that is not the value of a hook is left out.
///
/// # Errors
/// When the folder's configuration cannot be read or is not covered.
pub fn module_hooks(folder: impl AsRef<Path>) -> Result<Vec<(String, Option<Hook>)>> {
    let path = folder.as_ref().join(CONFIG);
    let described = describe(open_fields(&path)?, None).map_err(|e| Error::format(&path, e))?;
    let config = &described.config;
    let mut all = outputs(config);
    for (body, head) in described.family.prefixes {
        all.extend(modules(&described, body, head));
    }
    let hooks = config.hooks();
    all.retain(|(_, hook)| hook.is_none_or(|hook| hooks.contains(&hook)));
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all.dedup();
    Ok(all)
}

/// The outputs of `transformers`.
fn outputs(config: &Config) -> Vec<(String, Option<Hook>)> {
    let hooks = config.hooks();
    let there = |own: Hook, or: Hook| if hooks.contains(&own) { own } else { or };
    let mut all = vec![("logits".to_string(), None)];
    for l in 0..=config.n_layers {
        // The last one is what the unembedding reads.
        let hook = match l {
            0 => there(Hook::FullEmbed, Hook::ResidPre(0)),
            l if l == config.n_layers => there(
                Hook::Normalized(NormSite::Final),
                there(Hook::NormalizedResidPost(l - 1), Hook::ResidPost(l - 1)),
            ),
            l => there(Hook::NormalizedResidPost(l - 1), Hook::ResidPost(l - 1)),
        };
        all.push((format!("hidden_states.{l}"), Some(hook)));
        all.push((format!("attentions.{l}"), Some(Hook::Pattern(l))));
    }
    all
}

/// The outputs of the family's modules.
fn modules(described: &Described, body: &str, head: &str) -> Vec<(String, Option<Hook>)> {
    let (family, c, s) = (described.family, &described.config, &described.storage);
    let mut all = Vec::new();
    let mut rows = |rows: &[Row], l: Option<usize>, there: &str| {
        let here = l.map_or(String::new(), |l| format!("blocks.{l}."));
        let l = l.unwrap_or(0);
        for row in rows {
            let (module, hook) = match *row {
                // What is folded into the table is not in the module's output.
                Row::Table(EMBED, _) if s.embed_scale != 1.0 || s.projected.is_some() => continue,
                Row::Table(EMBED, module) => (module, Some(Hook::Embed)),
                Row::Table(POSITIONS, module) => (module, Some(Hook::PosEmbed)),
                Row::Table(_, module) => (module, Some(Hook::TokenTypeEmbed)),
                Row::Norm(own, module) => match norm_of_scale(&format!("{here}{own}.w")) {
                    Some(site) => (module, Some(Hook::Normalized(site))),
                    None => continue,
                },
                Row::Linear(parameter, module, _) => match written(c, parameter, l) {
                    Some(hook) => (module, Some(hook)),
                    None => continue,
                },
                Row::Unembed(module, _) => (module, None),
                Row::Fused(..) | Row::Alone(..) | Row::Projections(..) => continue,
            };
            all.push((format!("{there}{module}"), hook));
        }
    };
    rows(family.body, None, body);
    for l in 0..c.n_layers {
        let blocks = format!("{body}{}.{l}.", family.blocks.0);
        rows(family.blocks.1, Some(l), &blocks);
    }
    rows(family.head, None, head);
    all
}

/// What a linear map of layer `l` gives.
fn written(c: &Config, parameter: &str, l: usize) -> Option<Hook> {
    Some(match parameter {
        "attn.W_Q" => Hook::Q(l),
        "attn.W_K" => Hook::K(l),
        "attn.W_V" => Hook::V(l),
        "attn.W_O" if c.norm_at(NormSite::Ln1Post(l)).is_some() => Hook::AttnSum(l),
        "attn.W_O" => Hook::AttnOut(l),
        "mlp.W_gate" => Hook::Pre(l),
        "mlp.W_in" if c.gated() => Hook::PreLinear(l),
        "mlp.W_in" => Hook::Pre(l),
        "mlp.W_out" if c.norm_at(NormSite::Ln2Post(l)).is_some() => Hook::MlpSum(l),
        "mlp.W_out" => Hook::MlpOut(l),
        "mlm_head.W" => Hook::MlmHeadPre,
        _ => return None,
    })
}
