//! Typed names: heads, hooks, and which hooks are meant, spelled exactly as TransformerLens spells them.

use crate::error::{Error, Result, nearest_hint};
use std::fmt;
use std::str::FromStr;

/// An attention head, written `layer.head` (`1.0`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Head {
    /// The layer, from 0.
    pub layer: usize,
    /// The head within the layer, from 0.
    pub head: usize,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.layer, self.head)
    }
}

impl FromStr for Head {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let parse = || {
            let (layer, head) = s.split_once('.')?;
            Some(Head {
                layer: index(layer)?,
                head: index(head)?,
            })
        };
        parse().ok_or_else(|| Error::Malformed {
            kind: "head",
            text: s.into(),
            expected: "`layer.head`, as in 1.0",
        })
    }
}

/// A plain decimal index: digits only, no sign, no leading zero.
fn index(s: &str) -> Option<usize> {
    let canonical = s == "0" || (!s.starts_with('0') && s.bytes().all(|b| b.is_ascii_digit()));
    if canonical { s.parse().ok() } else { None }
}

/// Where a norm stands. The number is the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NormSite {
    /// `embed.ln`: over the embeddings' sum.
    Embed,
    /// `blocks.L.ln1`: before a layer's attention; of post-norm blocks after it, over the stream.
    Ln1(usize),
    /// `blocks.L.attn.q_norm`: over queries.
    Q(usize),
    /// `blocks.L.attn.k_norm`: over keys.
    K(usize),
    /// `blocks.L.ln1_post`: over what a layer's attention writes.
    Ln1Post(usize),
    /// `blocks.L.ln2`: before a layer's MLP; of post-norm blocks after it, over the stream.
    Ln2(usize),
    /// `blocks.L.mlp.ln`: over a layer's neurons, after SoLU.
    Neurons(usize),
    /// `blocks.L.ln2_post`: over what a layer's MLP writes.
    Ln2Post(usize),
    /// `ln_final`: over the stream at its end.
    Final,
    /// `mlm_head.ln`: over what a dense layer before the unembedding gives.
    MlmHead,
}

/// A norm of a block, by its layer, and its module's name.
type InBlock = (fn(usize) -> NormSite, &'static str);

/// The norms of a block, by the name of their module.
const IN_BLOCK: [InBlock; 7] = [
    (NormSite::Ln1, "ln1"),
    (NormSite::Q, "attn.q_norm"),
    (NormSite::K, "attn.k_norm"),
    (NormSite::Ln1Post, "ln1_post"),
    (NormSite::Ln2, "ln2"),
    (NormSite::Neurons, "mlp.ln"),
    (NormSite::Ln2Post, "ln2_post"),
];

/// The other norms.
const IN_MODEL: [(NormSite, &str); 3] = [
    (NormSite::Embed, "embed.ln"),
    (NormSite::Final, "ln_final"),
    (NormSite::MlmHead, "mlm_head.ln"),
];

impl NormSite {
    /// The layer of a norm that stands in a block.
    pub fn layer(self) -> Option<usize> {
        match self {
            NormSite::Ln1(l)
            | NormSite::Q(l)
            | NormSite::K(l)
            | NormSite::Ln1Post(l)
            | NormSite::Ln2(l)
            | NormSite::Neurons(l)
            | NormSite::Ln2Post(l) => Some(l),
            NormSite::Embed | NormSite::Final | NormSite::MlmHead => None,
        }
    }

    /// Its module's name, as TransformerLens has it: `blocks.0.ln1`.
    pub fn module(self) -> String {
        let in_block = |l: usize| {
            let own = IN_BLOCK.iter().find(|(site, _)| site(l) == self);
            own.map(|(_, name)| format!("blocks.{l}.{name}"))
        };
        let in_model = || IN_MODEL.iter().find(|(site, _)| *site == self);
        let name = self.layer().and_then(in_block);
        name.or_else(|| in_model().map(|(_, name)| name.to_string()))
            .expect("every norm has a module")
    }

    /// The norm of that module.
    pub(crate) fn of_module(name: &str) -> Option<Self> {
        if let Some((site, _)) = IN_MODEL.iter().find(|(_, own)| *own == name) {
            return Some(*site);
        }
        let (layer, own) = name.strip_prefix("blocks.")?.split_once('.')?;
        let (site, _) = IN_BLOCK.iter().find(|(_, name)| *name == own)?;
        Some(site(index(layer)?))
    }

    /// The hook of its output.
    pub fn output(self) -> Hook {
        match self {
            NormSite::Embed => Hook::FullEmbed,
            NormSite::Ln1Post(l) => Hook::AttnOut(l),
            NormSite::Ln2Post(l) => Hook::MlpOut(l),
            site => Hook::Normalized(site),
        }
    }
}

impl fmt::Display for NormSite {
    /// As in the brackets of an expression: `0,ln1`, `ln_final`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let module = self.module();
        let own = module.rsplit('.').next().unwrap_or(&module);
        match self {
            NormSite::Embed | NormSite::MlmHead | NormSite::Neurons(_) => f.write_str(&module),
            _ => match self.layer() {
                Some(l) => write!(f, "{l},{own}"),
                None => f.write_str(own),
            },
        }
    }
}

/// The one list of hooks: those that stand once in a model, then those that stand in every block; and two of every norm.
macro_rules! hooks {
    (
        $(model $(#[$mdoc:meta])* $model:ident = $mname:literal,)*
        ;
        $(block $(#[$bdoc:meta])* $block:ident = $bname:literal,)*
    ) => {
        /// A place in the forward pass whose value can be read or changed, by TransformerLens's name.
        ///
        /// The number is the layer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Hook {
            $($(#[$mdoc])* #[doc = concat!("`", $mname, "`")] $model,)*
            $($(#[$bdoc])* #[doc = concat!("`blocks.L.", $bname, "`")] $block(usize),)*
            /// `[batch, pos, 1]`, of queries and keys `[batch, pos, heads, 1]`: what a norm divides by.
            /// `blocks.L.ln1.hook_scale`
            Scale(NormSite),
            /// `[batch, pos, d]`: the output of a norm, after `w` and `b`. `blocks.L.ln1.hook_normalized`
            Normalized(NormSite),
        }

        impl Hook {
            /// The layer of a hook that stands in a block.
            pub fn layer(self) -> Option<usize> {
                match self {
                    $(Hook::$model => None,)*
                    $(Hook::$block(l) => Some(l),)*
                    Hook::Scale(site) | Hook::Normalized(site) => site.layer(),
                }
            }
        }

        impl fmt::Display for Hook {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Hook::$model => f.write_str($mname),)*
                    $(Hook::$block(l) => write!(f, concat!("blocks.{}.", $bname), l),)*
                    Hook::Scale(site) => write!(f, "{}.hook_scale", site.module()),
                    Hook::Normalized(site) => write!(f, "{}.hook_normalized", site.module()),
                }
            }
        }

        impl FromStr for Hook {
            type Err = Error;

            fn from_str(s: &str) -> Result<Self> {
                let in_block = || {
                    let (layer, site) = s.strip_prefix("blocks.")?.split_once('.')?;
                    let layer = index(layer)?;
                    match site {
                        $($bname => Some(Hook::$block(layer)),)*
                        _ => None,
                    }
                };
                let of_norm = || {
                    let (module, own) = s.rsplit_once('.')?;
                    let site = NormSite::of_module(module)?;
                    match own {
                        "hook_scale" => Some(Hook::Scale(site)),
                        // Of some norms it has another name.
                        "hook_normalized" => Some(Hook::Normalized(site))
                            .filter(|&hook| hook == site.output()),
                        _ => None,
                    }
                };
                match s {
                    $($mname => Ok(Hook::$model),)*
                    _ => in_block().or_else(of_norm).ok_or_else(|| {
                        // The layer as given, so that the hint can be typed as it stands.
                        let layer = s.strip_prefix("blocks.").and_then(|r| r.split('.').next());
                        let layer = layer.filter(|l| index(l).is_some()).unwrap_or("0");
                        let mut known = vec![
                            $($mname.to_string(),)*
                            $(format!("blocks.{layer}.{}", $bname),)*
                        ];
                        let modules = IN_BLOCK.map(|(_, name)| format!("blocks.{layer}.{name}"));
                        let modules = modules.into_iter().chain(IN_MODEL.map(|(_, name)| name.to_string()));
                        for module in modules {
                            known.extend(["hook_scale", "hook_normalized"].map(|own| format!("{module}.{own}")));
                        }
                        Error::unknown("hook", s, known.iter().map(String::as_str))
                    }),
                }
            }
        }
    };
}

hooks! {
    model /// `[batch, pos, d_model]`: the tokens' rows of `W_E`.
        Embed = "hook_embed",
    model /// `[batch, pos, d_model]`: the positions' rows of `W_pos`.
        PosEmbed = "hook_pos_embed",
    model /// `[batch, pos, d_model]`: the token types' rows of `W_token_type` (models with token types only).
        TokenTypeEmbed = "hook_token_type_embed",
    model /// `[batch, pos, d_model]`: the embeddings' sum before its norm (models with such a norm only).
        EmbedSum = "hook_embed_sum",
    model /// `[batch, pos, d_model]`: the embeddings' sum after its norm (models with such a norm only).
        FullEmbed = "hook_full_embed",
    model /// `[batch, pos, d_model]`: what the dense layer before the unembedding gives, before its function.
        MlmHeadPre = "mlm_head.hook_pre",
    model /// `[batch, pos, d_model]`: the same after its function.
        MlmHeadPost = "mlm_head.hook_post",
    ;
    block /// `[batch, pos, d_model]`: the residual stream before the block.
        ResidPre = "hook_resid_pre",
    block /// `[batch, pos, head, d_head]`: queries.
        Q = "attn.hook_q",
    block /// `[batch, pos, group, d_head]`: keys; of each head, or of heads that share them.
        K = "attn.hook_k",
    block /// `[batch, pos, group, d_head]`: values; of each head, or of heads that share them.
        V = "attn.hook_v",
    block /// `[batch, pos, head, d_head]`: queries, turned by their positions (rotary positions only).
        RotQ = "attn.hook_rot_q",
    block /// `[batch, pos, group, d_head]`: keys, turned by their positions (rotary positions only).
        RotK = "attn.hook_rot_k",
    block /// `[batch, head, query, key]`: scores, scaled and masked.
        AttnScores = "attn.hook_attn_scores",
    block /// `[batch, head, query, key]`: the softmax of the scores over the keys.
        Pattern = "attn.hook_pattern",
    block /// `[batch, pos, head, d_head]`: the values, weighted by the pattern.
        Z = "attn.hook_z",
    block /// `[batch, pos, head, d_model]`: what each head writes; without `b_O`, with `b_V`.
        Result = "attn.hook_result",
    block /// `[batch, pos, d_model]`: the heads' results and `b_O`, summed, before `ln1_post` (where there is one).
        AttnSum = "attn.hook_out",
    block /// `[batch, pos, d_model]`: what attention adds to the stream: the heads' results and `b_O`, summed; after
        /// `ln1_post` where there is one.
        AttnOut = "hook_attn_out",
    block /// `[batch, pos, d_model]`: the residual stream between attention and MLP.
        ResidMid = "hook_resid_mid",
    block /// `[batch, pos, d_mlp]`: the neurons before the activation function.
        Pre = "mlp.hook_pre",
    block /// `[batch, pos, d_mlp]`: what gated neurons are multiplied with (gated MLPs only).
        PreLinear = "mlp.hook_pre_linear",
    block /// `[batch, pos, d_mlp]`: SoLU's value before its LayerNorm (`solu_ln` only).
        Mid = "mlp.hook_mid",
    block /// `[batch, pos, d_mlp]`: the neurons after the activation function.
        Post = "mlp.hook_post",
    block /// `[batch, pos, d_model]`: what the neurons write, `b_out` included, before `ln2_post` (where there is one).
        MlpSum = "mlp.hook_out",
    block /// `[batch, pos, d_model]`: what the MLP adds to the stream, `b_out` included; after `ln2_post` where there is
        /// one.
        MlpOut = "hook_mlp_out",
    block /// `[batch, pos, d_model]`: the residual stream after the block.
        ResidPost = "hook_resid_post",
    block /// `[batch, pos, d_model]`: the stream after the block's last norm (post-norm blocks only).
        NormalizedResidPost = "hook_normalized_resid_post",
}

impl serde::Serialize for Head {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl serde::Serialize for Hook {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Hook {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(d)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

/// A hook's name, or several by wildcard: `*` stands for any characters, `?` for one.
///
/// ```
/// use pathsum::names::{Hook, HookPattern};
/// let pattern: HookPattern = "blocks.*.hook_resid_post".parse()?;
/// assert!(pattern.matches(Hook::ResidPost(3)));
/// assert!(!pattern.matches(Hook::ResidPre(3)));
/// let error = "blocks.0.attn.hook_patern".parse::<HookPattern>().unwrap_err();
/// assert!(error.to_string().contains("did you mean `blocks.0.attn.hook_pattern`?"));
/// # Ok::<(), pathsum::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookPattern(String);

impl HookPattern {
    /// Whether the pattern covers this hook.
    pub fn matches(&self, hook: Hook) -> bool {
        wildcard(self.0.as_bytes(), hook.to_string().as_bytes())
    }

    /// The hooks of `all` that the pattern covers.
    ///
    /// # Errors
    /// When it covers none, with the nearest name there is.
    pub fn select(&self, all: &[Hook]) -> Result<Vec<Hook>> {
        let covered: Vec<Hook> = all.iter().copied().filter(|&h| self.matches(h)).collect();
        match covered.is_empty() {
            true => Err(not_among(&self.0, all)),
            false => Ok(covered),
        }
    }
}

fn not_among(name: &str, all: &[Hook]) -> Error {
    let names: Vec<String> = all.iter().map(Hook::to_string).collect();
    let hint = nearest_hint(name, names.iter().map(String::as_str));
    Error::Unknown {
        kind: "hook",
        name: name.into(),
        hint: format!(" in this model{hint}"),
    }
}

impl FromStr for HookPattern {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        if !s.contains(['*', '?']) {
            s.parse::<Hook>()?;
        }
        Ok(HookPattern(s.to_string()))
    }
}

impl fmt::Display for HookPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which hooks are meant: one, those of a pattern, or those of a text, which is read as a pattern when it is asked for
/// them. Whoever takes `impl Into<HookQuery>` takes any of these, or a reference to one.
///
/// ```
/// use pathsum::names::{Hook, HookQuery};
/// let all = [Hook::Embed, Hook::Z(0), Hook::Z(1)];
/// assert_eq!(HookQuery::from(Hook::Z(1)).select(&all)?, [Hook::Z(1)]);
/// assert_eq!(HookQuery::from("*hook_z").select(&all)?, [Hook::Z(0), Hook::Z(1)]);
/// assert!(HookQuery::from("hook_z").select(&all).is_err());
/// # Ok::<(), pathsum::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookQuery(Meant);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Meant {
    Hook(Hook),
    Pattern(HookPattern),
    Text(String),
}

impl HookQuery {
    /// The hooks of `all` that are meant.
    ///
    /// # Errors
    /// When there are none, or the text is no name and no pattern.
    pub fn select(&self, all: &[Hook]) -> Result<Vec<Hook>> {
        match &self.0 {
            Meant::Hook(hook) if all.contains(hook) => Ok(vec![*hook]),
            Meant::Hook(hook) => Err(not_among(&hook.to_string(), all)),
            Meant::Pattern(pattern) => pattern.select(all),
            Meant::Text(text) => text.parse::<HookPattern>()?.select(all),
        }
    }
}

impl From<Hook> for HookQuery {
    fn from(hook: Hook) -> Self {
        HookQuery(Meant::Hook(hook))
    }
}

impl From<HookPattern> for HookQuery {
    fn from(pattern: HookPattern) -> Self {
        HookQuery(Meant::Pattern(pattern))
    }
}

impl From<String> for HookQuery {
    fn from(text: String) -> Self {
        HookQuery(Meant::Text(text))
    }
}

impl From<&str> for HookQuery {
    fn from(text: &str) -> Self {
        text.to_string().into()
    }
}

impl<Q: Clone + Into<HookQuery>> From<&Q> for HookQuery {
    fn from(query: &Q) -> Self {
        query.clone().into()
    }
}

/// Greedy matching with one remembered star: linear in practice, never exponential.
pub(crate) fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == b'?' || pattern[p] == text[t]) {
            p += 1;
            t += 1;
        } else if let Some((star_p, star_t)) = star {
            star = Some((star_p, star_t + 1));
            p = star_p + 1;
            t = star_t + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_are_strict() {
        for name in [
            "hook_embed",
            "blocks.12.attn.hook_q",
            "blocks.0.mlp.ln.hook_scale",
            "ln_final.hook_scale",
        ] {
            assert_eq!(name.parse::<Hook>().unwrap().to_string(), name);
        }
        for name in [
            "blocks.01.attn.hook_q",
            "blocks.+1.attn.hook_q",
            "blocks..hook_q",
            "",
            "hook_q",
            "blocks.0.hook_q",
        ] {
            assert!(name.parse::<Hook>().is_err(), "{name}");
        }
        assert_eq!("1.0".parse::<Head>().unwrap(), Head { layer: 1, head: 0 });
        for head in ["1", "1.", ".0", "1.0.0", "-1.0", "1.00"] {
            assert!(head.parse::<Head>().is_err(), "{head}");
        }
    }

    #[test]
    fn wildcards() {
        for (pattern, text, expected) in [
            ("*", "hook_embed", true),
            ("*.hook_z", "blocks.0.attn.hook_z", true),
            ("blocks.?.hook_resid_*", "blocks.1.hook_resid_pre", true),
            ("blocks.?.hook_resid_*", "blocks.11.hook_resid_pre", false),
            ("*a*b*c", "xaxbxcxc", true),
            ("*a*b*c", "xaxbxcx", false),
            ("", "", true),
            ("?", "", false),
        ] {
            assert_eq!(
                wildcard(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }
}
