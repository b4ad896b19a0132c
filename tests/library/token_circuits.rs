//! From tokens to logits by the weights alone: row by row, against the formulas; and the largest entries against all.

use crate::common::for_all;
use faer::MatRef;
use pathsum::decompose::{Distance, TokenCircuits, query_key, value_output};
use pathsum::model::{NormKind, NormPlace, NormWeight};
use pathsum::names::NormSite;
use pathsum::strategies::{configs, models_of};
use pathsum::{Error, Head, Model, Par, fixture};
use proptest::prelude::*;

/// A row through a norm whose scale is one.
fn normed(model: &Model<f64>, (kind, site): (NormKind, NormSite), x: &[f64]) -> Vec<f64> {
    let mean = match kind.centred {
        true => x.iter().sum::<f64>() / x.len() as f64,
        false => 0.0,
    };
    let w = |i: usize| match (model.weights().norms.get(&site), kind.weight) {
        (Some(norm), NormWeight::OnePlus) => 1.0 + norm.w.data()[i],
        (Some(norm), _) => norm.w.data()[i],
        (None, _) => 1.0,
    };
    let own = x.iter().enumerate();
    own.map(|(i, x)| (x - mean) * w(i)).collect()
}

/// The norm at a site, where the model has one there.
fn norm_at(model: &Model<f64>, site: NormSite) -> Option<NormKind> {
    let c = model.config();
    let places: &[NormPlace] = match site {
        NormSite::Ln1(_) => &[NormPlace::Before, NormPlace::Around],
        NormSite::Ln1Post(_) => &[NormPlace::Around, NormPlace::Output],
        _ => &[NormPlace::Before, NormPlace::Around, NormPlace::Output],
    };
    c.norm.filter(|_| places.contains(&c.norm_place))
}

fn maybe_normed(model: &Model<f64>, site: NormSite, x: Vec<f64>) -> Vec<f64> {
    match norm_at(model, site) {
        Some(kind) => normed(model, (kind, site), &x),
        None => x,
    }
}

fn times(x: &[f64], W: impl Fn(usize, usize) -> f64, n: usize) -> Vec<f64> {
    let entry = |j| x.iter().enumerate().map(|(i, x)| x * W(i, j)).sum();
    (0..n).map(entry).collect()
}

#[test]
fn every_entry_is_its_formula() {
    let deep = configs().prop_filter("layers", |c| c.n_layers > 0);
    let models = deep.prop_flat_map(|c| models_of::<f64>(&c));
    for_all(192, models, |model| {
        let c = model.config().clone();
        let circuits = match TokenCircuits::new(&model) {
            Ok(circuits) => circuits,
            Err(Error::NotCovered(_)) => {
                let reads_more = c.embed_norm.is_some() && (c.token_types > 0 || c.pos_embed());
                let over_stream = c.norm.is_some() && c.norm_place == NormPlace::Stream;
                prop_assert!(
                    c.d_vocab_out == 0 || c.mlm_head.is_some() || over_stream || reads_more
                );
                return Ok(());
            }
            Err(e) => return Err(TestCaseError::fail(e.to_string())),
        };
        let w = model.weights();
        let head = Head {
            layer: c.n_layers - 1,
            head: c.n_heads - 1,
        };
        let (direct, own) = (
            circuits.direct().AB(Par::Seq),
            circuits.of(head, Par::Seq).unwrap(),
        );
        let own = own.AB(Par::Seq);
        let W_OV = value_output(&model, head).unwrap().AB(Par::Seq);
        let (W_V, W_O) = (w.W_V(head), w.W_O(head));
        for token in 0..c.d_vocab {
            let mut e = w.W_E.slice(&[token]).to_vec();
            if let Some(kind) = c.embed_norm {
                let mean = if kind.centred {
                    e.iter().sum::<f64>() / e.len() as f64
                } else {
                    0.0
                };
                let square: f64 = e.iter().map(|x| (x - mean).powi(2)).sum();
                let scale = (square / e.len() as f64 + c.eps).sqrt();
                e = normed(&model, (kind, NormSite::Embed), &e);
                e.iter_mut().for_each(|x| *x /= scale);
                if let Some(b) = w.norms.get(&NormSite::Embed).and_then(|n| n.b.as_ref()) {
                    e.iter_mut().zip(b.data()).for_each(|(x, b)| *x += b);
                }
            }
            let logits = |x: Vec<f64>| {
                let x = maybe_normed(&model, NormSite::Final, x);
                times(&x, |i, j| w.W_U[[i, j]], c.d_vocab_out)
            };
            let read = maybe_normed(&model, NormSite::Ln1(head.layer), e.clone());
            let v = times(&read, |i, j| W_V[(i, j)], c.d_head);
            let written = times(&v, |i, j| W_O[(i, j)], c.d_model);
            let written = maybe_normed(&model, NormSite::Ln1Post(head.layer), written);
            // Every intermediate value is a sum of products of what stands here, far below their number.
            let size = |x: &[f64]| x.iter().fold(1.0f64, |m, x| m.max(x.abs()));
            let weights = size(w.W_U.data()) * size(attn_sizes(&model, head).as_slice());
            let n = (c.d_model * c.d_model * c.d_head) as f64;
            let bound =
                64.0 * n * f64::EPSILON * weights * size(&e) * norm_sizes(&model, head.layer);
            for (j, x) in times(&e, |i, j| W_OV[(i, j)], c.d_model)
                .into_iter()
                .enumerate()
            {
                prop_assert!((x - written[j]).abs() <= bound, "W_OV {x} {}", written[j]);
            }
            for (j, x) in logits(written).into_iter().enumerate() {
                prop_assert!(
                    (own[(token, j)] - x).abs() <= bound,
                    "{} {x}",
                    own[(token, j)]
                );
            }
            for (j, x) in logits(e).into_iter().enumerate() {
                prop_assert!(
                    (direct[(token, j)] - x).abs() <= bound,
                    "{} {x}",
                    direct[(token, j)]
                );
            }
        }
        Ok(())
    });
}

/// The products of a head's weights' sizes.
fn attn_sizes(model: &Model<f64>, head: Head) -> Vec<f64> {
    let attn = &model.weights().blocks[head.layer].attn;
    vec![attn.W_V.max_abs() * attn.W_O.max_abs()]
}

/// What the norms on the way multiply by at most: taking a mean off doubles.
fn norm_sizes(model: &Model<f64>, layer: usize) -> f64 {
    let sites = [
        NormSite::Embed,
        NormSite::Ln1(layer),
        NormSite::Ln1Post(layer),
        NormSite::Final,
    ];
    let all = &model.weights().norms;
    let norms = sites.iter().filter_map(|site| all.get(site));
    norms.map(|norm| 2.0 + 2.0 * norm.w.max_abs()).product()
}

#[test]
fn queries_meet_keys_at_a_distance() {
    let model = fixture::induction::<f64>();
    let head = Head { layer: 1, head: 0 };
    let found = query_key(&model, head, Distance::At(0))
        .unwrap()
        .AB(Par::Seq);
    let (w, c) = (model.weights(), model.config());
    let d = c.d_model;
    // What each direction of the stream is to a query, or a key.
    let read = |i: usize, W: MatRef<'_, f64>| {
        let unit: Vec<f64> = (0..d).map(|j| f64::from(i == j)).collect();
        let x = maybe_normed(&model, NormSite::Ln1(1), unit);
        times(&x, |i, j| W[(i, j)], c.d_head)
    };
    let queries: Vec<Vec<f64>> = (0..d).map(|i| read(i, w.W_Q(head))).collect();
    let keys: Vec<Vec<f64>> = (0..d).map(|i| read(i, w.W_K(head))).collect();
    // Sums over the head's width and, for means, over the stream's, of both sides.
    let terms = (c.d_head + 4 * d) as f64;
    let size = |rows: &[Vec<f64>]| {
        let all = rows.iter().flatten();
        all.map(|x| x * x).sum::<f64>().sqrt()
    };
    let bound = terms * f64::EPSILON * size(&queries) * size(&keys);
    for (i, j) in (0..d).flat_map(|i| (0..d).map(move |j| (i, j))) {
        let products = queries[i].iter().zip(&keys[j]).map(|(q, k)| q * k);
        let expected: f64 = products.sum();
        let off = (found[(i, j)] - expected).abs();
        assert!(off <= bound, "{} {expected}", found[(i, j)]);
    }
    let far = query_key(&model, head, Distance::At(3)).unwrap_err();
    assert!(far.to_string().contains("no rotary positions"), "{far}");
    let none = query_key(&model, Head { layer: 2, head: 0 }, Distance::At(0)).unwrap_err();
    assert!(matches!(none, Error::NoSuchHead { .. }), "{none}");
}
