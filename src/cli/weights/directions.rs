//! One head's singular directions, in tokens.

use super::{Args, Ends, Which, numbers};
use crate::cli::args::Common;
use crate::cli::output::{report, table, text};
use crate::cli::words::Words;
use anyhow::{Result, anyhow};
use faer::MatRef;
use pathsum::decompose::{Distance, TokenCircuits, query_key, value_output};
use pathsum::linalg::top_k_of_product;
use pathsum::{Head, Model, Par, Scalar};
use serde_json::{Value, json};
use std::process::ExitCode;

/// How many tokens are listed at each end of a direction.
const TOKENS: usize = 5;

/// Both ends of a singular direction, at one of its two signs.
struct End {
    reads: Vec<(usize, f64)>,
    writes: Vec<(usize, f64)>,
}

pub(super) fn directions<T: Scalar>(
    args: &Args,
    common: &Common,
    model: &Model<T>,
    words: &Words,
    head: Head,
) -> Result<ExitCode> {
    let c = model.config();
    let circuits = TokenCircuits::new(model)?;
    let (circuit, right) = match args.circuit {
        Which::Ov => (value_output(model, head)?, circuits.W_U()),
        Which::Qk => {
            let distance = Distance::At(args.distance);
            (
                query_key(model, head, distance)?,
                circuits.W_E().transpose(),
            )
        }
    };
    let svd = circuit.svd()?;
    let n = args.top.min(svd.S.len());
    if n == 0 {
        return Err(anyhow!("--top 0: expected at least one direction"));
    }
    let reads = circuits.W_E().transpose();
    let ends = |sign: f64| -> Result<Vec<End>> {
        let reads = most_along(svd.U.as_ref().subcols(0, n), reads, sign)?;
        let writes = most_along(svd.V.as_ref().subcols(0, n), right, sign)?;
        let both = reads.into_iter().zip(writes);
        Ok(both.map(|(reads, writes)| End { reads, writes }).collect())
    };
    let (plus, minus) = (ends(1.0)?, ends(-1.0)?);
    let tokens = Ends {
        words,
        logits_are_tokens: c.d_vocab_out == c.d_vocab || args.circuit == Which::Qk,
    };
    let list = |end: &[(usize, f64)], word: &dyn Fn(usize) -> Option<String>| -> Value {
        let all = end.iter();
        all.map(|&(i, x)| json!({"index": i, "word": word(i), "value": x}))
            .collect()
    };
    let word = |i: usize| words.exact(i);
    let logit = |i: usize| words.exact(i).filter(|_| tokens.logits_are_tokens);
    let end =
        |end: &End| json!({"reads": list(&end.reads, &word), "writes": list(&end.writes, &logit)});
    let both = |i: usize| {
        json!({
            "singular_value": svd.S[i].to_f64(),
            "ends": [end(&plus[i]), end(&minus[i])],
        })
    };
    let result = json!({
        "model": args.model.model,
        "dtype": T::PRECISION.to_string(),
        "head": head,
        "circuit": match args.circuit { Which::Ov => "W_OV", Which::Qk => "W_QK" },
        "distance": c.rotary().then_some(args.distance),
        "singular_values": numbers(&svd.S),
        "directions": (0..n).map(both).collect::<Vec<_>>(),
    });
    report(common, &result, || {
        let header = match args.circuit {
            Which::Ov => ["singular value", "tokens attended to", "logits written"],
            Which::Qk => ["singular value", "tokens of the query", "tokens of the key"],
        };
        let mut t = table(header);
        let line = |end: &[(usize, f64)], shown: &dyn Fn(usize) -> String| {
            let all: Vec<String> = end.iter().map(|&(i, _)| shown(i)).collect();
            all.join(" ")
        };
        for i in 0..n {
            for (end, first) in [(&plus[i], true), (&minus[i], false)] {
                t.add_row([
                    if first {
                        format!("{:.4}", svd.S[i].to_f64())
                    } else {
                        String::new()
                    },
                    line(&end.reads, &|i| words.shown(i)),
                    line(&end.writes, &|i| tokens.logit(i)),
                ]);
            }
        }
        let which = match (args.circuit, c.rotary()) {
            (Which::Ov, _) => format!("W_OV of head {head}\n\n"),
            (Which::Qk, false) => format!("W_QK of head {head}\n\n"),
            (Which::Qk, true) => {
                format!("W_QK of head {head} {}\n\n", Distance::At(args.distance))
            }
        };
        format!("{which}{}", text(&t))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Of each direction, `[d_model, direction]`, what of `all: [d_model, n]` is furthest along it at that sign.
pub(in crate::cli) fn most_along<T: Scalar>(
    directions: MatRef<'_, T>,
    all: MatRef<'_, T>,
    sign: f64,
) -> Result<Vec<Vec<(usize, f64)>>> {
    let signed = directions.transpose() * faer::Scale(T::from_f64(sign));
    let top = top_k_of_product(signed.as_ref(), all, TOKENS, Par::Rayon)?;
    let row = |i: usize| top.row(i).map(|(j, x)| (j, x.to_f64())).collect();
    Ok((0..signed.nrows()).map(row).collect())
}
