//! Published figures of three write-ups, computed from their checkpoints and held to the reference data.
//!
//! Each figure's name and error is printed. Without `PATHSUM_REFERENCE` these tests report that they were skipped.

use crate::common::{reference, rows};
use pathsum::decompose::{
    By, Component, Logit, norm_fit, residual_stack, source_attribution, summary, summary_by_class,
};
use pathsum::eval::{Circuit, Source};
use pathsum::linalg::{Par, cosines, product};
use pathsum::model::process::Processing;
use pathsum::names::NormSite;
use pathsum::{Head, Hook, Model, Run, RunOutput, Tensor, TensorFile, Tokens};
use std::path::PathBuf;

type Mat = faer::Mat<f64>;

/// What a figure must agree to, relative to the largest of its numbers or absolutely: the issue's own.
const TOLERANCE: f64 = 1e-9;
/// The same for a fit to data that leave directions open: what the method allows, the reference says.
const OPEN_DIRECTIONS: f64 = 1e-4;

/// A reference folder: its model, its data, and the figures.
struct Reference {
    folder: PathBuf,
    model: Model<f64>,
    expected: serde_json::Value,
}

impl Reference {
    fn open(name: &str) -> Option<Self> {
        let (folder, expected) = reference::folder(name)?;
        Some(Reference {
            model: Model::load(&folder).unwrap(),
            expected,
            folder,
        })
    }

    /// The weights processed as TransformerLens does when it loads a model.
    fn processed(mut self) -> Self {
        for step in Processing::DEFAULT {
            step.apply(&mut self.model).unwrap();
        }
        self
    }

    fn tokens(&self, file: &str, name: &str) -> Tokens {
        let file = TensorFile::open(self.folder.join(file)).unwrap();
        let (shape, ids) = file.integer(name).unwrap();
        Tokens::new(shape[0], shape[1], ids)
    }

    fn labels(&self, name: &str) -> Vec<bool> {
        let file = TensorFile::open(self.folder.join("dataset.safetensors")).unwrap();
        let (_, labels) = file.integer(name).unwrap();
        labels.into_iter().map(|l| l == 1).collect()
    }

    fn run(&self, tokens: &Tokens, keep: &[&str]) -> RunOutput<f64> {
        let run = keep.iter().fold(Run::new(), |run, name| run.cache(name));
        self.model.run(tokens, run).unwrap()
    }

    /// The value of an expression on the weights.
    fn value(&self, text: &str) -> Mat {
        self.value_of(&Source::of(&self.model), text)
    }

    fn value_of(&self, source: &Source<'_, f64>, text: &str) -> Mat {
        Circuit::parse(text, *source)
            .unwrap()
            .dense(Par::Seq)
            .unwrap()
    }

    /// Holds numbers to a figure, and prints how far they are off.
    fn figure_within(&self, id: &str, found: &[f64], tolerance: f64) {
        let expected = numbers(&self.expected[id]["recomputed"]);
        assert_eq!(found.len(), expected.len(), "{id}");
        let sizes = expected.iter().flatten();
        let size = sizes.fold(1.0, |m: f64, x| m.max(x.abs()));
        let mut off = 0f64;
        for (found, expected) in found.iter().zip(&expected) {
            match expected {
                Some(e) => off = off.max((found - e).abs()),
                None => assert!(found.is_nan(), "{id}: {found} where there is no number"),
            }
        }
        println!("{id}: {off:.1e} of {size:.3}");
        assert!(off <= tolerance * size, "{id}: {off:e}");
    }

    fn figure(&self, id: &str, found: &[f64]) {
        self.figure_within(id, found, TOLERANCE);
    }
}

/// Every number of a figure; `null` is none.
fn numbers(value: &serde_json::Value) -> Vec<Option<f64>> {
    match value {
        serde_json::Value::Array(all) => all.iter().flat_map(numbers).collect(),
        serde_json::Value::Object(all) => all.values().flat_map(numbers).collect(),
        number => vec![number.as_f64()],
    }
}

fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.into_iter().collect();
    match values.is_empty() {
        true => f64::NAN,
        false => summary(&values).unwrap().mean,
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A hook's scale at a position, over all sequences.
fn scales(out: &RunOutput<f64>, hook: Hook, position: usize) -> Vec<f64> {
    let scale = &out.cache[hook];
    (0..scale.shape()[0])
        .map(|s| scale[[s, position, 0]])
        .collect()
}

#[test]
fn palindrome() {
    let Some(reference) = Reference::open("palindrome").map(Reference::processed) else {
        return;
    };
    let r = &reference;
    let tokens = r.tokens("dataset.safetensors", "tokens");
    let out = r.run(
        &tokens,
        &[
            "*.hook_scale",
            "blocks.1.attn.hook_q",
            "blocks.1.attn.hook_pattern",
        ],
    );
    let (end, positions) = (tokens.pos() - 1, tokens.pos());
    let head = |layer, head| Head { layer, head };

    // LayerNorm's scale.
    let ln1: Vec<_> = (0..positions)
        .map(|p| summary(&scales(&out, Hook::Scale(NormSite::Ln1(0)), p)).unwrap())
        .collect();
    r.figure(
        "ln1_scale.mean",
        &ln1.iter().map(|s| s.mean).collect::<Vec<_>>(),
    );
    r.figure(
        "ln1_scale.std",
        &ln1.iter().map(|s| s.std).collect::<Vec<_>>(),
    );

    // Attention from END, where a sequence mirrors itself and where it does not.
    let pattern = &out.cache[Hook::Pattern(1)];
    let at = |mirrors: bool| -> Vec<f64> {
        let of = |i: usize| {
            let values: Vec<f64> = (0..tokens.batch())
                .map(|s| pattern[[s, 0, end, i]])
                .collect();
            let classes: Vec<bool> = (0..tokens.batch())
                .map(|s| tokens.sequence(s)[i] == tokens.sequence(s)[end - i])
                .collect();
            let by_class = summary_by_class(&values, &classes).unwrap();
            let own = by_class.iter().find(|of| of.class == mirrors);
            own.map_or(f64::NAN, |of| of.value.mean)
        };
        (0..positions).map(of).collect()
    };
    r.figure("attn.end.1.0.palindromic", &at(true));
    r.figure("attn.end.1.0.nonpalindromic", &at(false));

    // The difference vectors of positions 11 to 20: what head 0.0 writes where the two tokens are the same.
    let through_00 = r.value("W_pos W_OV[0.0]");
    let pairs: Vec<usize> = (positions / 2..end).collect();
    let vectors = Mat::from_fn(pairs.len(), through_00.ncols(), |n, j| {
        let (i, mirror) = (pairs[n], end - pairs[n]);
        through_00[(i, j)] / ln1[i].mean - through_00[(mirror, j)] / ln1[mirror].mean
    });
    let table = cosines(vectors.as_ref(), vectors.as_ref(), Par::Seq);
    r.figure("difference_vectors.cosine", &rows(&table));

    // As layer 1 sees them.
    let scale = |i: usize| mean(scales(&out, Hook::Scale(NormSite::Ln1(1)), i));
    let seen = Mat::from_fn(pairs.len(), vectors.ncols(), |n, j| {
        vectors[(n, j)] / scale(pairs[n])
    });
    let query = &out.cache[Hook::Q(1)];
    let mut k_composition = Vec::new();
    let mut dla = Vec::new();
    // The share of its attention that head 0.0 moves, as the write-up has it.
    let share = 0.373;
    let labels = r.labels("is_palindrome");
    let last = (0..tokens.batch()).filter(|&s| !labels[s]);
    let last = mean(last.map(|s| out.cache[Hook::Scale(NormSite::Final)][[s, end, 0]]));
    for h in 0..2 {
        let keys = product(seen.as_ref(), r.model.weights().W_K(head(1, h)));
        let mean_query = Mat::from_fn(1, keys.ncols(), |_, j| {
            mean((0..tokens.batch()).map(|s| query[[s, end, h, j]]))
        });
        k_composition.extend(rows(&cosines(mean_query.as_ref(), keys.as_ref(), Par::Seq)));
        let reader = r.value(&format!("W_OV[1.{h}] (W_U[:,0] - W_U[:,1])"));
        let along = product(seen.as_ref(), reader.as_ref());
        dla.extend(rows(&along).iter().map(|x| share * x / last));
    }
    r.figure("k_composition.cosine", &k_composition);
    r.figure("v_composition.dla", &dla);

    // A write-up's other figures of V-composition, of single values.
    let tokens = r.tokens("dataset_100.safetensors", "tokens");
    let out = r.run(&tokens, &["blocks.0.attn.hook_v"]);
    let through: Vec<Vec<f64>> = (0..tokens.batch())
        .map(|sequence| {
            let source = Source::run(&r.model, &out, sequence);
            let text = "v[0.0] W_O[0.0] W_OV[1.0] (W_U[:,0] - W_U[:,1])";
            rows(&r.value_of(&source, text))
        })
        .collect();
    r.figure("v_composition.example", &[through[2][13]]);
    let spread = (1..end).map(|p| {
        let at: Vec<f64> = through.iter().map(|values| values[p]).collect();
        summary(&at).unwrap().std
    });
    r.figure("v_composition.std", &[mean(spread)]);

    // How much attention head 0.0 moves, of a mismatch, from its mirror to itself: on pairs of sequences that differ in
    // their first half. 17 and 19 are those at which sequences fool the model.
    let attention = |name: &str| {
        let tokens = r.tokens("pairs.safetensors", name);
        r.run(&tokens, &["blocks.0.attn.hook_pattern"])
    };
    let (mismatched, mirrored) = (attention("nonpalindromic"), attention("palindromic"));
    let batch = mismatched.tokens.batch();
    let moved = |key: &dyn Fn(usize) -> usize| {
        let pattern = |out: &RunOutput<f64>, s: usize, i: usize| {
            out.cache[Hook::Pattern(0)][[s, 0, i, key(i)]]
        };
        let fooled = [17, 19];
        mean(pairs.iter().filter(|i| !fooled.contains(*i)).map(|&i| {
            mean((0..batch).map(|s| pattern(&mismatched, s, i) - pattern(&mirrored, s, i)))
        }))
    };
    r.figure("attn_diff.self", &[moved(&|i| i)]);
    r.figure("attn_diff.mirror", &[-moved(&|i| end - i)]);
}

#[test]
fn brackets() {
    let Some(reference) = Reference::open("brackets") else {
        return;
    };
    let r = &reference;
    let config = r.model.config().clone();
    let tokens = r.tokens("dataset.safetensors", "tokens");
    let balanced = r.labels("is_balanced");
    // Where the answer is read and where a fit is made; the components come in stretches, for their size.
    let out = r.run(
        &tokens,
        &[
            "blocks.*.hook_resid_pre",
            "blocks.2.hook_resid_post",
            "blocks.*.ln1.hook_normalized",
            "ln_final.hook_normalized",
            "blocks.1.mlp.hook_post",
            "blocks.2.attn.hook_pattern",
        ],
    );
    let batch = tokens.batch();
    let every: Vec<usize> = (0..tokens.pos()).collect();
    let fit = |site, positions: &[usize]| norm_fit(&config, &out.cache, site, positions).unwrap();
    let w = r.model.weights();

    // Where the answer is read, the direction for "unbalanced"; and what head 2.0 must find for it at position 1.
    let last = fit(NormSite::Final, &[0]);
    r.figure("ln_fit.final.r2", &[last.map.mean_r2()]);
    r.figure(
        "ln_fit.1.ln1.r2",
        &[fit(NormSite::Ln1(1), &every).map.mean_r2()],
    );
    let unembed: Vec<f64> = rows(&r.value("W_U[:,0] - W_U[:,1]"));
    let unbalanced = last.map.carry_back(&unembed);
    let W_OV = r.value("W_OV[2.0]");
    let column = Mat::from_fn(unbalanced.len(), 1, |i, _| unbalanced[i]);
    let read_by_20 = rows(&product(W_OV.as_ref(), column.as_ref()));
    let pre_20 = fit(NormSite::Ln1(2), &[1]).map.carry_back(&read_by_20);

    // The components of the stream along the two directions, and how far their sum is off the stream.
    let mut along: Vec<(Component, [Vec<f64>; 2])> = Vec::new();
    let mut off = 0f64;
    let stretch = 500;
    for first in (0..batch).step_by(stretch) {
        let mut keep: Vec<String> = (By::Head.hooks(&config).iter())
            .map(Hook::to_string)
            .collect();
        keep.push(Hook::ResidPost(2).to_string());
        let keep: Vec<&str> = keep.iter().map(String::as_str).collect();
        let out = r.run(&tokens.slice(first, stretch), &keep);
        let stack = residual_stack(&r.model, &out.cache, Hook::ResidPost(2), By::Head).unwrap();
        let stream = &out.cache[Hook::ResidPost(2)];
        for (sum, stream) in stack.sum().data().iter().zip(stream.data()) {
            off = off.max((sum - stream).abs());
        }
        for (i, &label) in stack.labels.iter().enumerate() {
            if first == 0 {
                along.push((label, Default::default()));
            }
            for s in 0..stretch {
                let at = |position: usize| stack.values.slice(&[i, s, position]);
                along[i].1[0].push(dot(at(0), &unbalanced));
                along[i].1[1].push(dot(at(1), &pre_20));
            }
        }
    }
    // Unbalanced sequences' mean less that of balanced ones.
    let components = |direction: usize, id: &str| {
        let difference = |component: Component| {
            let (_, values) = along.iter().find(|(label, _)| *label == component).unwrap();
            let by_class = summary_by_class(&values[direction], &balanced).unwrap();
            by_class[0].value.mean - by_class[1].value.mean
        };
        let expected = r.expected[id]["recomputed"].as_object().unwrap();
        let found = expected.keys().map(|name| match name.as_str() {
            "embeddings" => difference(Component::Embed) + difference(Component::PosEmbed),
            name => match name.split_once(' ').unwrap() {
                ("head", head) => difference(Component::Head(head.parse().unwrap())),
                (_, layer) => difference(Component::MlpOut(layer.parse().unwrap())),
            },
        });
        r.figure(id, &found.collect::<Vec<_>>());
    };
    components(0, "components.unbalanced_dir");
    components(1, "components.pre20_dir");
    // The reference's figure is its own rounding: ours may be another.
    r.figure("residual_sum.max_error", &[off]);

    // The neurons that write it, over sequences that start with an opening bracket.
    let open = 3;
    let starts: Vec<usize> = (0..batch)
        .filter(|&s| tokens.sequence(s)[1] == open)
        .collect();
    let post = &out.cache[Hook::Post(1)];
    let W_out = &w.blocks[1].mlp.as_ref().unwrap().W_out;
    let neurons: Vec<f64> = (0..post.shape()[2])
        .map(|neuron| {
            let values: Vec<f64> = starts.iter().map(|&s| post[[s, 1, neuron]]).collect();
            let classes: Vec<bool> = starts.iter().map(|&s| balanced[s]).collect();
            let by_class = summary_by_class(&values, &classes).unwrap();
            let difference = by_class[0].value.mean - by_class[1].value.mean;
            difference * dot(W_out.slice(&[neuron]), &pre_20)
        })
        .collect();
    r.figure("neurons.1.pre20_dir", &neurons);
    let pattern = &out.cache[Hook::Pattern(2)];
    let attended = |key: usize| mean(starts.iter().map(|&s| pattern[[s, 0, 0, key]]));
    r.figure(
        "attn.2.0.query0",
        &every.iter().map(|&key| attended(key)).collect::<Vec<_>>(),
    );

    // What head 0.0 copies of the two brackets: opposite directions, which neurons read.
    let first = fit(NormSite::Ln1(0), &every).map;
    println!(
        "blocks.0.ln1: rank {} of {}, cut-off {:.1e}",
        first.rank, config.d_model, first.cutoff
    );
    assert!(first.rank < config.d_model);
    let copied = product(
        product(r.value("W_E").as_ref(), first.coefficients.as_ref()).as_ref(),
        r.value("W_OV[0.0]").as_ref(),
    );
    let (left, right) = (copied.as_ref().subrows(3, 1), copied.as_ref().subrows(4, 1));
    r.figure_within(
        "ov00.cosine",
        &rows(&cosines(left, right, Par::Seq)),
        OPEN_DIRECTIONS,
    );
    for layer in 0..2 {
        let W_in = r.value(&format!("W_in[{layer}]"));
        let with_neurons = cosines(right, W_in.transpose(), Par::Seq);
        let squares = mean(rows(&with_neurons).into_iter().map(|c| c * c));
        r.figure_within(
            &format!("mlp_in.{layer}.mean_sq_cosine"),
            &[squares],
            OPEN_DIRECTIONS,
        );
    }

    // The two ways to fail: the wrong number of closing brackets, and one too many on the way from the right.
    let rise = |token: i64| match token {
        3 => 1i64,
        4 => -1,
        _ => 0,
    };
    let elevations: Vec<[i64; 2]> = (0..batch)
        .map(|s| {
            let (mut elevation, mut lowest) = (0, 0);
            for &token in tokens.sequence(s).iter().rev() {
                elevation -= rise(token);
                lowest = lowest.min(elevation);
            }
            [elevation, lowest]
        })
        .collect();
    let failures = [1, 0].map(|i| elevations.iter().filter(|e| e[i] != 0).count() as f64);
    r.figure("failures", &failures);
    let fails: Vec<bool> = elevations.iter().map(|e| *e == [0, 0]).collect();
    assert_eq!(fails, balanced);
}

#[test]
fn sorted_list() {
    let Some(reference) = Reference::open("sorted_list").map(Reference::processed) else {
        return;
    };
    let r = &reference;
    let given = &r.expected["close_triples"]["recomputed"];
    let integers = |name: &str| -> Vec<i64> {
        let all = numbers(&given[name]).into_iter();
        all.map(|x| x.unwrap() as i64).collect()
    };
    let (lists, heads) = (integers("lists"), integers("heads"));
    let [xs, ys, zs] = ["x", "y", "z"].map(integers);
    let separator = r.model.config().d_vocab as i64 - 1;
    let mut found = Vec::new();
    for (i, list) in lists.chunks_exact(lists.len() / heads.len()).enumerate() {
        let sequence = [list, &[separator], list].concat();
        let out = r.run(&Tokens::from_rows(&[sequence]), &["*"]);
        let place = |value: i64| list.iter().position(|&v| v == value).unwrap();
        let query = list.len() + 1 + place(xs[i]);
        for logit in [ys[i], zs[i]] {
            let by_source: Tensor<f64> =
                source_attribution(&r.model, &out.cache, 0, Logit::Of(logit as usize)).unwrap();
            for source in [ys[i], zs[i]] {
                found.push(by_source[[0, heads[i] as usize, query, place(source)]]);
            }
        }
    }
    r.figure("dla.close_triples", &found);
}
