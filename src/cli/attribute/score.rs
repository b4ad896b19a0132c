//! `pathsum attribute --score`: a head's attention score by what query and key are made of.

use super::super::args::Common;
use super::super::output::{report, table, text};
use super::super::places::position;
use super::{Args, Cut, MAX_ROWS};
use anyhow::{Result, bail};
use pathsum::decompose::{Score, ScoreParts, ScoreTerm, score_parts};
use pathsum::{Head, Par, Run, Scalar, write_safetensors};
use serde_json::{Value, json};
use std::process::ExitCode;

/// The table of a score's pairs.
pub fn attribute<T: Scalar>(
    args: &Args,
    common: &Common,
    (head, query, key): (Head, isize, isize),
) -> Result<ExitCode> {
    if let Cut::Source = args.by {
        bail!("--by source: of a score there are no sources, expected component, head or neuron");
    }
    let by = args.by.by();
    let model = args.model.load::<T>()?;
    let c = model.config();
    let (tokens, sequence) = args.sequences.read_one(common, &args.model, c)?;
    let score = Score {
        head,
        query: position(query, tokens.pos())?,
        key: position(key, tokens.pos())?,
    };
    let hooks = ScoreParts::hooks(c, head, by)?;
    let keep = hooks
        .into_iter()
        .fold(Run::new(), |run, hook| run.cache(hook));
    let out = model.run(&tokens, keep)?;
    let parts = score_parts(&model, &out.cache, 0, score, by)?;
    let listed = args.top.unwrap_or(MAX_ROWS);
    let top = parts.top(listed, Par::Rayon)?;
    if let Some(file) = &args.out {
        write_safetensors(file, [("value".to_string(), &parts.table(Par::Rayon))])?;
    }
    let (sum, pairs) = (parts.sum(), parts.query.len() * parts.key.len());
    let side = |of: Vec<(ScoreTerm, f64)>| -> Vec<Value> {
        let parts = of.into_iter();
        parts
            .map(|(part, x)| json!({"part": part, "value": x}))
            .collect()
    };
    let result = json!({
        "model": args.model.model,
        "dtype": T::PRECISION.to_string(),
        "sequence": sequence,
        "head": head.to_string(),
        "query": score.query,
        "key": score.key,
        "score": parts.run,
        "sum": sum,
        "rounding": parts.rounding,
        "by_position": parts.by_position,
        "by_query": side(parts.by_query()),
        "by_key": side(parts.by_key()),
        "pairs": pairs,
        "top": top.iter().map(|p| json!({"query": p.query, "key": p.key, "value": p.value})).collect::<Vec<_>>(),
        "out": args.out.as_ref().map(|o| o.display().to_string()),
    });
    report(common, &result, || {
        let mut t = table(["query", "key", "adds"]);
        for pair in &top {
            t.add_row([
                pair.query.to_string(),
                pair.key.to_string(),
                format!("{:+.6}", pair.value),
            ]);
        }
        let rest = sum - parts.by_position - top.iter().map(|p| p.value).sum::<f64>();
        let mut out = format!(
            "score of head {head} at query {} and key {} of sequence {sequence}, before cap and mask: {:.6}\n\
             the table's {pairs} pairs add up to {:.6}; rounding alone can put the two {:.1e} apart\n\n{}",
            score.query,
            score.key,
            parts.run,
            sum,
            parts.rounding,
            text(&t)
        );
        if parts.by_position != 0.0 {
            out += &format!(
                "\nThe key's position adds {:+.6} by itself.\n",
                parts.by_position
            );
        }
        if let Some(left) = pairs.checked_sub(top.len()).filter(|&left| left > 0) {
            out += &format!("\nThe {left} others together add {rest:+.6}; --out has all.\n");
        }
        out
    })?;
    Ok(ExitCode::SUCCESS)
}
