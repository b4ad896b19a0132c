//! Interventions, sweeps and path patching: held to the reference data, to runs made one by one, and to what
//! their documentation says of them.

use crate::common::{cases, numbers, reference};
use pathsum::intervene::{
    Change, Each, Grid, GridAxis, Intervention, Over, Part, Receiver, Scope, Site, Sweep,
    SweepResult, intervene, path_patch,
};
use pathsum::metric::{Answers, Kl, Metric, Standard, mean, per_sequence};
use pathsum::model::process::Processing;
use pathsum::strategies::{
    configs, masked_tokens_of, models_and_tokens_of, models_of, toy_configs,
};
use pathsum::{
    Cache, Config, Head, Hook, Model, Par, Run, Scalar, Tensor, TensorFile, Tokens, fixture,
};
use proptest::prelude::*;
use std::path::PathBuf;

// ---- The published figures -------------------------------------------------------------------------

/// What the issue of a figure asks: agreement to this.
const FIGURE: f64 = 1e-9;

/// A reference checkpoint with its weights processed, its figures, and its folder.
fn processed(name: &str) -> Option<(Model<f64>, serde_json::Value, PathBuf)> {
    let (folder, figures) = reference::folder(name)?;
    let mut model = Model::load(&folder).unwrap();
    for step in Processing::DEFAULT {
        step.apply(&mut model).unwrap();
    }
    Some((model, figures, folder))
}

fn dataset(folder: &std::path::Path, file: &str) -> (Tokens, TensorFile) {
    let file = TensorFile::open(folder.join(file)).unwrap();
    (Tokens::from_file(&file).unwrap(), file)
}

#[track_caller]
fn agrees(figures: &serde_json::Value, name: &str, found: &[f64]) {
    let expected = numbers(&figures[name]["recomputed"]);
    assert_eq!(found.len(), expected.len(), "{name}");
    let size = expected.iter().fold(0f64, |m, x| m.max(x.abs()));
    let error = found
        .iter()
        .zip(&expected)
        .fold(0f64, |m, (a, b)| m.max((a - b).abs()));
    println!("{name}: {error:.1e} of {size:.3}");
    assert!(error <= FIGURE * size, "{name}: {error:.1e} of {size:.3}");
}

fn only(grid: Vec<Intervention>) -> Grid {
    Grid::from_cells(Vec::new(), vec![grid])
}

/// A grid that is a list; its axis has to have some name.
fn list(cells: Vec<Vec<Intervention>>) -> Grid {
    let axis = GridAxis {
        by: Each::Position,
        labels: (0..cells.len()).map(|i| i.to_string()).collect(),
    };
    Grid::from_cells(vec![axis], cells)
}

fn value(sweep: &Sweep<'_, f64>, interventions: Vec<Intervention>) -> f64 {
    sweep.run(&only(interventions)).unwrap().values[0].unwrap()
}

#[test]
fn published_ablations_of_the_palindrome_model() {
    let Some((model, figures, folder)) = processed("palindrome") else {
        return;
    };
    let (tokens, file) = dataset(&folder, "dataset.safetensors");
    let last = tokens.pos() - 1;
    let answers = Answers::from_file(&file, "is_palindrome", &tokens, &[last]).unwrap();
    let by_head = |change: Change| {
        Grid::new(
            model.config(),
            tokens.pos(),
            Site::Result,
            &[Each::Head],
            &Scope::default(),
            &change,
        )
        .unwrap()
    };
    for (how, change) in [
        ("mean", Change::Mean(Over::Sequences)),
        ("zero", Change::Zero),
    ] {
        let result = Sweep::new(&model, &tokens, &answers, &Standard::LogitDiff)
            .run(&by_head(change))
            .unwrap();
        agrees(&figures, "logit_diff", &[result.clean]);
        for (head, value) in result.axes[0].labels.iter().zip(&result.values) {
            agrees(
                &figures,
                &format!("ablate.{how}.{head}.logit_diff"),
                &[value.unwrap()],
            );
        }
    }

    let loss = Sweep::new(&model, &tokens, &answers, &Standard::Loss);
    agrees(
        &figures,
        "loss",
        &[loss.run(&only(Vec::new())).unwrap().clean],
    );
    let accuracy = Sweep::new(&model, &tokens, &answers, &Standard::Accuracy);
    agrees(
        &figures,
        "accuracy",
        &[accuracy.run(&only(Vec::new())).unwrap().clean],
    );
    let mean = |hook, part| Intervention::new(hook, part, Change::Mean(Over::Sequences));
    let but_20 = (0..tokens.pos()).filter(|&p| p != 20);
    for (name, hook, head) in [("0.1.result", Hook::Result(0), 1), ("1.1.v", Hook::V(1), 1)] {
        let part = Part::all().heads([head]);
        let all = value(&loss, vec![mean(hook, part.clone())]);
        agrees(&figures, &format!("targeted.{name}.all.loss"), &[all]);
        let except = value(&loss, vec![mean(hook, part.positions(but_20.clone()))]);
        agrees(
            &figures,
            &format!("targeted.{name}.except20.loss"),
            &[except],
        );
    }

    let flipped: Vec<Vec<i64>> = (16..=20)
        .map(|p| {
            let mut sequence = tokens.sequence(1).to_vec();
            // The first stays as it is.
            if p > 16 {
                sequence[p] += 1;
            }
            sequence
        })
        .collect();
    let flipped = Tokens::from_rows(&flipped);
    let answers = Answers::at(flipped.batch(), &[last]);
    let rows = answers.rows_of(&model.logits(&flipped).unwrap());
    let p = per_sequence(&Standard::Probability(1), &answers, &rows);
    agrees(&figures, "flip.p_palindrome", &p);
}

#[test]
fn published_ablations_of_the_sorted_list_model() {
    let Some((model, figures, folder)) = processed("sorted_list") else {
        return;
    };
    let (tokens, _) = dataset(&folder, "dataset.safetensors");
    let positions: Vec<usize> = (10..20).collect();
    let answers = Answers::next_tokens(&tokens, &positions).unwrap();
    let change = Change::Mean(Over::Sequences);
    let grid = Grid::new(
        model.config(),
        tokens.pos(),
        Site::Result,
        &[Each::Head],
        &Scope::default(),
        &change,
    );
    let result = Sweep::new(&model, &tokens, &answers, &Standard::Loss)
        .run(&grid.unwrap())
        .unwrap();
    agrees(&figures, "loss", &[result.clean]);
    for (head, value) in result.axes[0].labels.iter().zip(&result.values) {
        let name = format!("ablate.mean.{head}.loss_increase");
        agrees(&figures, &name, &[value.unwrap() - result.clean]);
    }
    let p = Sweep::new(&model, &tokens, &answers, &Standard::RightProbability);
    agrees(
        &figures,
        "p_correct.mean",
        &[p.run(&only(Vec::new())).unwrap().clean],
    );
}

#[test]
fn published_answers_of_the_brackets_model() {
    let Some((model, figures, folder)) = processed("brackets") else {
        return;
    };
    let (tokens, file) = dataset(&folder, "dataset.safetensors");
    let answers = Answers::from_file(&file, "is_balanced", &tokens, &[0]).unwrap();
    let rows = answers.rows_of(&model.logits(&tokens).unwrap());
    let right = per_sequence(&Standard::Accuracy, &answers, &rows);
    agrees(&figures, "correct", &[right.iter().sum()]);
}

// ---- A sweep is its runs, one by one ---------------------------------------------------------------

/// The first and the last logit apart, or the only one.
struct Spread;

impl Metric for Spread {
    fn name(&self) -> String {
        "spread".into()
    }
    fn of(&self, _: &pathsum::metric::Answer, logits: &[f64]) -> f64 {
        logits[0] - 0.5 * logits[logits.len() - 1]
    }
}

const SITES: [Site; 16] = [
    Site::ResidPre,
    Site::Q,
    Site::K,
    Site::V,
    Site::AttnScores,
    Site::Pattern,
    Site::Z,
    Site::Result,
    Site::AttnOut,
    Site::ResidMid,
    Site::Pre,
    Site::Post,
    Site::MlpOut,
    Site::ResidPost,
    Site::RotQ,
    Site::RotK,
];

/// Every cell's values, by one run from the tokens each.
fn one_by_one<T: Scalar>(
    model: &Model<T>,
    tokens: &Tokens,
    answers: &Answers,
    grid: &Grid,
    source: &Cache<T>,
) -> Vec<Vec<f64>> {
    let run = |cell: &Vec<Intervention>| {
        let run = intervene(Run::new().par(Par::Seq), model, tokens, cell, Some(source)).unwrap();
        let rows = answers.rows_of(&model.run(tokens, run).unwrap().logits);
        per_sequence(&Spread, answers, &rows)
    };
    grid.cells().iter().map(run).collect()
}

fn farthest(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    // A value that is no number is one on both sides, or they are as far apart as can be.
    pairs.fold(0f64, |m, (a, b)| match (a.is_nan(), b.is_nan()) {
        (true, true) => m,
        (false, false) if a == b => m,
        (false, false) => m.max((a - b).abs()),
        _ => f64::INFINITY,
    })
}

fn largest(values: &[Vec<f64>]) -> f64 {
    values.iter().flatten().fold(0f64, |m, x| m.max(x.abs()))
}

fn axes_of(site: Site) -> Vec<Vec<Each>> {
    use Each::{Head, Key, Layer, Neuron, Position};
    match site {
        Site::Q | Site::K | Site::V | Site::RotQ | Site::RotK | Site::Z | Site::Result => {
            vec![
                vec![Head],
                vec![Head, Position],
                vec![Layer, Position],
                vec![Head, Head],
            ]
        }
        Site::AttnScores | Site::Pattern => {
            vec![vec![Head], vec![Head, Position, Key], vec![Layer, Position]]
        }
        Site::Pre | Site::Post => vec![vec![Neuron], vec![Neuron, Position], vec![Layer]],
        _ => vec![vec![Layer], vec![Layer, Position], vec![Position]],
    }
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        Just(Change::Zero),
        Just(Change::Mean(Over::Sequences)),
        Just(Change::Mean(Over::Positions)),
        (0..1000u64).prop_map(|seed| Change::Resample { seed }),
        Just(Change::Set(vec![0.5])),
        Just(Change::Patch),
        (-2.0..2.0f64).prop_map(|x| Change::Interpolate {
            over: Over::Sequences,
            x
        }),
    ]
}

/// Precisely what rounding makes of two ways to the same values is not known in a deep model; but how much the
/// model makes of f32's roundings is measured, and f64's are smaller by the ratio of the two.
fn bound(in_f64: &[Vec<f64>], in_f32: &[Vec<f64>]) -> f64 {
    const MARGIN: f64 = 64.0;
    let measured = farthest(in_f64, in_f32) + f32::EPSILON as f64 * largest(in_f64);
    MARGIN * measured * f64::EPSILON / f32::EPSILON as f64
}

/// A sweep of a model: what is changed, where, and where answers are read.
type Swept = (Change, usize, usize, Vec<usize>, u64);

fn sweeps(pos: usize) -> impl Strategy<Value = Swept> {
    let reads = proptest::collection::vec(0..pos, 1..=3);
    (changes(), 0..SITES.len(), 0..4usize, reads, 0..1000u64)
}

fn a_sweep_is_its_runs(
    model: &Model<f64>,
    tokens: &Tokens,
    (change, site, axes, reads, seed): Swept,
) -> Result<(), TestCaseError> {
    let site = SITES[site];
    let all = axes_of(site);
    let by = &all[axes % all.len()];
    prop_assume!(tokens.batch() > 1 || !matches!(change, Change::Resample { .. }));
    let (config, pos) = (model.config(), tokens.pos());
    let Ok(grid) = Grid::new(config, pos, site, by, &Scope::default(), &change) else {
        return Ok(());
    };
    let answers = Answers::at(tokens.batch(), &reads);
    let other = other_tokens(config, tokens, seed);
    is_its_runs(model, [tokens, &other], &answers, &grid)
}

#[test]
fn a_sweep_equals_the_runs_one_by_one() {
    let swept = with_layers().prop_flat_map(|(model, tokens)| {
        let sweep = sweeps(tokens.pos());
        (Just(model), Just(tokens), sweep)
    });
    proptest!(cases(192), |((model, tokens, sweep) in swept)| {
        a_sweep_is_its_runs(&model, &tokens, sweep)?;
    });
}

/// Answers are read where no sequence's token is left out: there are none elsewhere.
#[test]
fn a_sweep_equals_the_runs_one_by_one_where_tokens_are_left_out() {
    let deep = configs().prop_filter("no layers", |c| c.n_layers > 0);
    let drawn = deep.prop_flat_map(|c| (models_of::<f64>(&c), masked_tokens_of(&c, 1..=4)));
    let swept = drawn.prop_flat_map(|(model, tokens)| {
        let sweep = sweeps(tokens.pos());
        (Just(model), Just(tokens), sweep)
    });
    proptest!(cases(96), |((model, tokens, sweep) in swept)| {
        let (pos, reads) = (tokens.pos(), &sweep.3);
        let places = (0..tokens.batch()).flat_map(|s| (0..pos).map(move |p| (s, p)));
        let seen = places.map(|(s, p)| reads.contains(&p) || tokens.is_attended(s, p));
        let tokens = tokens.clone().attended(seen.collect()).unwrap();
        a_sweep_is_its_runs(&model, &tokens, sweep)?;
    });
}

/// A sweep's values are those of the runs one by one, in both precisions, on one thread or several. Values of `Patch`
/// are those of the second tokens' run.
fn is_its_runs(
    model: &Model<f64>,
    [tokens, other]: [&Tokens; 2],
    answers: &Answers,
    grid: &Grid,
) -> Result<(), TestCaseError> {
    let source = model.run(other, Run::new().cache("*")).unwrap().cache;
    let expected = one_by_one(model, tokens, answers, grid, &source);
    let narrow: Model<f32> = model.cast();
    let narrow_source = narrow.run(other, Run::new().cache("*")).unwrap().cache;
    let expected_narrow = one_by_one(&narrow, tokens, answers, grid, &narrow_source);
    let overflows = expected_narrow.iter().flatten().any(|x| !x.is_finite());

    let what = &grid.cells()[0];
    let rows = answers.rows_of(&model.logits(tokens).unwrap());
    let expected_clean = per_sequence(&Spread, answers, &rows);
    // The clean run may be larger than any of the changed ones: it has a bound of its own.
    let rows = answers.rows_of(&narrow.logits(tokens).unwrap().cast::<f64>());
    let narrow_clean = per_sequence(&Spread, answers, &rows);
    let clean_bound = bound(std::slice::from_ref(&expected_clean), &[narrow_clean]);
    for par in [Par::Rayon, Par::Seq] {
        let (clean, found) = swept(par, model, tokens, answers, grid, &source);
        let (_, found_narrow) = swept(par, &narrow, tokens, answers, grid, &narrow_source);
        let bound = bound(&expected, &expected_narrow);
        prop_assert!(farthest(&[clean], std::slice::from_ref(&expected_clean)) <= clean_bound);
        let error = farthest(&found, &expected);
        prop_assert!(
            error <= bound || overflows,
            "{what:?}: {error:.1e} > {bound:.1e}"
        );
        let bound = bound * f32::EPSILON as f64 / f64::EPSILON;
        let error = farthest(&found_narrow, &expected_narrow);
        prop_assert!(
            error <= bound || overflows,
            "f32: {what:?}: {error:.1e} > {bound:.1e}"
        );
    }
    Ok(())
}

/// A sweep's values sequence by sequence, which in shards are the same to the bit.
fn swept<T: Scalar>(
    par: Par,
    model: &Model<T>,
    tokens: &Tokens,
    answers: &Answers,
    grid: &Grid,
    source: &Cache<T>,
) -> (Vec<f64>, Vec<Vec<f64>>) {
    let sweep = || {
        Sweep::new(model, tokens, answers, &Spread)
            .source(source)
            .par(par)
    };
    let (clean, found) = sweep().per_sequence(grid).unwrap();
    let bits = |values: &[f64]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let found: Vec<Vec<f64>> = found.into_iter().map(Option::unwrap).collect();
    let mut times = vec![0; found.len()];
    for i in 0..2 {
        let shard = sweep().shard(i, 2);
        let (clean_again, again) = shard.per_sequence(grid).unwrap();
        assert_eq!(bits(&clean), bits(&clean_again));
        for ((again, found), times) in again.iter().zip(&found).zip(&mut times) {
            if let Some(again) = again {
                assert_eq!(bits(again), bits(found));
                *times += 1;
            }
        }
    }
    assert!(
        times.iter().all(|&n| n == 1),
        "each in one shard: {times:?}"
    );
    (clean, found)
}

// ---- Pads that a sweep leaves out --------------------------------------------------------------------

/// Sequences of all lengths, filled up with pads, which stand between other tokens as well.
fn with_pads(config: &Config, batch: usize) -> impl Strategy<Value = Tokens> + use<> {
    let pad = config.pad_token.expect("a pad token") as i64;
    let (pos, d_vocab) = (config.n_ctx, config.d_vocab as i64);
    let token = prop_oneof![1 => Just(pad), 6 => 0..d_vocab];
    let sequence = (0..=pos, proptest::collection::vec(token, pos));
    let sequence = sequence.prop_map(move |(length, mut ids)| {
        ids[length..].fill(pad);
        ids
    });
    let rows = proptest::collection::vec(sequence, batch);
    rows.prop_map(|rows| Tokens::from_rows(&rows))
}

fn padded(dir: &str, n_ctx: usize, d_head: usize) -> Config {
    Config::from_json(&format!(
        r#"{{"n_layers": 2, "d_model": 12, "n_ctx": {n_ctx}, "d_head": {d_head}, "n_heads": 2, "d_mlp": 10,
             "d_vocab": 5, "d_vocab_out": 3, "act_fn": "gelu", "attention_dir": "{dir}", "pad_token": 1}}"#
    ))
    .unwrap()
}

/// So many sequences that they are run on in several stretches, each as long as it has to be.
#[test]
fn a_sweep_over_padded_sequences_equals_the_runs_one_by_one() {
    let batch = 130;
    // Nothing is turned.
    let place = (
        0..SITES.len() - 2,
        0..2usize,
        proptest::collection::vec(0..24usize, 1..=3),
        changes(),
    );
    let places = proptest::collection::vec(place, 5);
    let reads = prop_oneof![
        Just(vec![0]),
        Just(vec![23]),
        proptest::collection::vec(0..24usize, 1..=2)
    ];
    let case = (any::<bool>(), prop_oneof![Just(5usize), Just(70)]).prop_flat_map(
        move |(causal, d_head)| {
            // Wide heads are not attended to in one go.
            let config = padded(if causal { "causal" } else { "bidirectional" }, 24, d_head);
            (models_of::<f64>(&config), with_pads(&config, batch))
        },
    );
    proptest!(cases(16), |((model, tokens) in case, places in places, reads in reads, seed in 0..1000u64)| {
        let cells = places.into_iter().map(|(site, layer, positions, change)| {
            let part = match seed % 4 {
                0 => Part::all(),
                1 => Part::all().positions(positions).sequences([0, 7, 8]),
                _ => Part::all().positions(positions),
            };
            vec![Intervention::new(SITES[site].hook(layer), part, change)]
        });
        let grid = list(cells.collect());
        let answers = Answers::at(batch, &reads);
        is_its_runs(&model, [&tokens, &other_tokens(model.config(), &tokens, seed)], &answers, &grid)?;
    });
}

/// The weight that a run gives the last position, a pad, at most: from layer 0's query 0.
fn weight_of_the_last<T: Scalar>(model: &Model<T>, tokens: &Tokens, cell: &[Intervention]) -> f64 {
    let run = intervene(
        Run::new().cache(Hook::Pattern(0)),
        model,
        tokens,
        cell,
        None,
    )
    .unwrap();
    let pattern = &model.run(tokens, run).unwrap().cache[Hook::Pattern(0)];
    let heads = (0..tokens.batch()).flat_map(|b| (0..2).map(move |h| (b, h)));
    heads.fold(0f64, |m, (b, h)| {
        m.max(pattern[[b, h, 0, tokens.pos() - 1]].to_f64())
    })
}

/// Where every other key's score falls below a pad's, pads are attended to, and changed ones are seen.
#[test]
fn a_sweep_sees_pads_that_are_attended_to() {
    for dir in ["causal", "bidirectional"] {
        for d_head in [5, 70] {
            let config = padded(dir, 9, d_head);
            let tokens =
                Tokens::from_rows(&[[0, 2, 1, 3, 1, 1, 1, 1, 1], [4, 1, 1, 1, 1, 1, 1, 1, 1]]);
            let answers = Answers::at(2, &[0]);
            proptest!(cases(6), |(model in models_of::<f64>(&config), other in with_pads(&config, 2))| {
                // All keys alike: a query of negative sum scores them all so low.
                let low = |hook, part| vec![Intervention::new(hook, part, Change::Set(vec![1e6; d_head]))];
                let zero = |hook, part| vec![Intervention::new(hook, part, Change::Zero)];
                let first = Part::all().positions(0..4);
                let cells = vec![
                    low(Hook::K(0), Part::all()),
                    low(Hook::K(0), first.clone()),
                    low(Hook::K(1), first),
                    low(Hook::Q(0), Part::all()),
                    zero(Hook::ResidPre(0), Part::all().positions([8])),
                ];
                let grid = list(cells.clone());
                is_its_runs(&model, [&tokens, &other], &answers, &grid)?;

                // A model that always does so, on its own.
                let mut weights = model.clone().into_weights();
                for attn in weights.blocks.iter_mut().map(|block| &mut block.attn) {
                    for (W, b, by) in [(&mut attn.W_Q, &mut attn.b_Q, 1e3), (&mut attn.W_K, &mut attn.b_K, -1e3)] {
                        W.data_mut().fill(0.0);
                        b.data_mut().fill(by);
                    }
                }
                let low = Model::new(config.clone(), weights).unwrap();
                prop_assert!(weight_of_the_last(&low, &tokens, &[]) > 0.1);
                is_its_runs(&low, [&tokens, &other], &answers, &grid)?;
                let at_a_pad = swept(Par::Seq, &low, &tokens, &answers, &only(cells[4].clone()), &Cache::new(Vec::new()));
                prop_assert_ne!(&at_a_pad.0, &at_a_pad.1[0]);
            });
        }
    }
    // The first of these changes does what is said of it.
    let config = padded("bidirectional", 9, 5);
    let tokens = Tokens::from_rows(&[[0, 2, 1, 3, 1, 1, 1, 1, 1]]);
    let seen = std::cell::Cell::new(0);
    proptest!(cases(32), |(model in models_of::<f64>(&config))| {
        let cell = [Intervention::new(Hook::K(0), Part::all(), Change::Set(vec![1e6; 5]))];
        prop_assert_eq!(weight_of_the_last(&model, &tokens, &[]), 0.0);
        let is_seen = weight_of_the_last(&model, &tokens, &cell) > 0.1;
        seen.set(seen.get() + usize::from(is_seen));
    });
    assert!(seen.get() > 8, "{seen:?}");
}

/// Other tokens of the same number.
fn other_tokens(config: &Config, tokens: &Tokens, seed: u64) -> Tokens {
    let random = Tokens::random(config, tokens.batch(), seed);
    let rows: Vec<Vec<i64>> = (0..tokens.batch())
        .map(|i| random.sequence(i)[..tokens.pos()].to_vec())
        .collect();
    Tokens::from_rows(&rows)
}

#[test]
fn shards_are_the_whole() {
    let model = fixture::induction::<f64>();
    let tokens = fixture::repeated_sequences(8, 4, 1);
    let answers = Answers::next_tokens(&tokens, &[4, 5, 6]).unwrap();
    let change = Change::Mean(Over::Sequences);
    let by = [Each::Head, Each::Position];
    let grid = Grid::new(
        model.config(),
        tokens.pos(),
        Site::Z,
        &by,
        &Scope::default(),
        &change,
    )
    .unwrap();
    let sweep = || Sweep::new(&model, &tokens, &answers, &Standard::Loss);
    let whole = sweep().run(&grid).unwrap();
    let shards: Vec<SweepResult> = (0..3)
        .map(|i| sweep().shard(i, 3).run(&grid).unwrap())
        .collect();
    assert!(shards[1].values.iter().filter(|v| v.is_some()).count() < whole.values.len());
    assert_eq!(SweepResult::merge(shards.clone()).unwrap(), whole);
    // Through a file, with the same bits.
    let through =
        |s: &SweepResult| serde_json::from_str(&serde_json::to_string(s).unwrap()).unwrap();
    assert_eq!(
        SweepResult::merge(shards.iter().map(through)).unwrap(),
        whole
    );

    let error =
        |shards: &[SweepResult]| SweepResult::merge(shards.to_vec()).unwrap_err().to_string();
    assert!(
        error(&shards[..2]).contains("in none of these shards"),
        "{}",
        error(&shards[..2])
    );
    let mut other = shards[1].clone();
    other.metric = "accuracy".into();
    assert!(error(&[shards[0].clone(), other]).contains("different sweeps"));
    let mut twice = shards[0].clone();
    twice.values[0] = Some(0.125);
    assert!(error(&[shards[0].clone(), twice]).contains("cell 0"));
}

// ---- What the documentation says -------------------------------------------------------------------

fn logits<T: Scalar>(
    model: &Model<T>,
    tokens: &Tokens,
    interventions: &[Intervention],
) -> Tensor<T> {
    let run = intervene(Run::new().par(Par::Seq), model, tokens, interventions, None).unwrap();
    model.run(tokens, run).unwrap().logits
}

fn kept(
    model: &Model<f64>,
    tokens: &Tokens,
    interventions: &[Intervention],
    hook: Hook,
) -> Tensor<f64> {
    let run = intervene(Run::new().cache(hook), model, tokens, interventions, None).unwrap();
    model.run(tokens, run).unwrap().cache[hook].clone()
}

fn with_layers() -> impl Strategy<Value = (Model<f64>, Tokens)> {
    let deep = configs().prop_filter("no layers", |c| c.n_layers > 0);
    deep.prop_flat_map(|c| models_and_tokens_of(&c))
}

#[test]
fn changes_without_effect_change_nothing() {
    proptest!(cases(48), |((model, tokens) in with_layers(), hook in 0..1000usize)| {
        let hooks = model.config().hooks();
        let hook = hooks[hook % hooks.len()];
        // A closure that looks on: attention is then computed in three steps, and rounds as they do.
        let (mut own, mut width) = (Vec::new(), 0);
        let look = |value: &mut Tensor<f64>, _| {
            own = value.data().to_vec();
            width = *value.shape().last().unwrap();
        };
        let watched = model.run(&tokens, Run::new().hook(hook, look).par(Par::Seq)).unwrap().logits;
        let add = Change::Add { direction: vec![1.0; width], times: 0.0 };
        let mut changes = vec![add];
        if own.iter().all(|x| x.is_finite()) {
            changes.push(Change::Set(own));
            changes.push(Change::Interpolate { over: Over::Positions, x: 1.0 });
        }
        for change in changes {
            let found = logits(&model, &tokens, &[Intervention::new(hook, Part::all(), change.clone())]);
            // mean + (value - mean) rounds twice; the others give the value itself.
            let exact = !matches!(change, Change::Interpolate { .. });
            let same = found.data().iter().zip(watched.data()).all(|(a, b)| a == b || a.is_nan() && b.is_nan());
            prop_assert!(same || !exact, "{hook}: {change:?}");
        }
    });
}

#[test]
fn changes_do_what_they_say() {
    proptest!(cases(32), |((model, tokens) in with_layers(), seed in 0..100u64)| {
        let hook = Hook::ResidPre(0);
        let clean = kept(&model, &tokens, &[], hook);
        let &[batch, pos, d] = clean.shape() else { unreachable!() };
        let last = pos - 1;
        let direction: Vec<f64> = (0..d).map(|i| (i as f64 + seed as f64).cos()).collect();
        let part = Part::all().positions([last]).sequences([0]);
        let add = Change::Add { direction: direction.clone(), times: 3.0 };
        let out = Change::ProjectOut { direction: direction.clone() };
        let found = kept(&model, &tokens, &[
            Intervention::new(hook, part.clone(), add),
            Intervention::new(hook, part.clone(), out),
        ], hook);
        let square: f64 = direction.iter().map(|x| x * x).sum();
        for b in 0..batch {
            for p in 0..pos {
                let (was, is) = (clean.slice(&[b, p]), found.slice(&[b, p]));
                if (b, p) != (0, last) {
                    prop_assert_eq!(was, is);
                    continue;
                }
                // Nothing is left along the direction, and what was across is as it was.
                let along: f64 = was.iter().zip(&direction).map(|(x, d)| x * d).sum();
                let size = was.iter().fold(3.0f64, |m, x| m.max(x.abs()));
                let bound = 16.0 * d as f64 * size * f64::EPSILON;
                for i in 0..d {
                    let expected = was[i] - along / square * direction[i];
                    prop_assert!((is[i] - expected).abs() <= bound, "{} {expected}", is[i]);
                }
            }
        }
        // Each sequence takes another's value, and each is taken once.
        if batch > 1 {
            let resample = Intervention::new(hook, Part::all(), Change::Resample { seed });
            let found = kept(&model, &tokens, &[resample], hook);
            let rows = |t: &Tensor<f64>| (0..batch).map(|b| t.slice(&[b]).to_vec()).collect::<Vec<_>>();
            let (was, mut is) = (rows(&clean), rows(&found));
            for (b, row) in is.iter().enumerate() {
                prop_assert!(was.iter().enumerate().any(|(i, w)| i != b && w == row));
            }
            let mut was = was;
            let order = |a: &Vec<f64>, b: &Vec<f64>| a.partial_cmp(b).unwrap();
            was.sort_by(order);
            is.sort_by(order);
            prop_assert_eq!(was, is);
        }
    });
}

#[test]
fn interventions_are_made_in_the_order_of_the_forward_pass() {
    let model = fixture::induction::<f64>();
    let tokens = fixture::repeated_sequences(4, 4, 2);
    let early = Intervention::new(Hook::Z(0), Part::all(), Change::Mean(Over::Sequences));
    let late = Intervention::new(Hook::Z(1), Part::all(), Change::Mean(Over::Sequences));
    let listed = |order: &[Intervention]| logits(&model, &tokens, order);
    assert_eq!(
        listed(&[early.clone(), late.clone()]),
        listed(&[late.clone(), early.clone()])
    );
    // The late mean is of what arrives there, which the early one has changed.
    let found = kept(&model, &tokens, &[early.clone(), late], Hook::Z(1));
    let arrives = kept(&model, &tokens, &[early], Hook::Z(1));
    let n = tokens.batch();
    for p in 0..tokens.pos() {
        for i in 0..arrives.shape()[3] {
            let mean = (0..n).map(|b| arrives[[b, p, 0, i]]).sum::<f64>() / n as f64;
            assert!(
                (found[[0, p, 0, i]] - mean).abs()
                    <= 4.0 * n as f64 * f64::EPSILON * arrives.max_abs()
            );
        }
    }
    // On one hook, the order is the user's.
    let zero = Intervention::new(Hook::Z(1), Part::all(), Change::Zero);
    let one = Intervention::new(Hook::Z(1), Part::all(), Change::Set(vec![1.0]));
    assert_eq!(
        kept(&model, &tokens, &[zero.clone(), one.clone()], Hook::Z(1)).max_abs(),
        1.0
    );
    assert_eq!(
        kept(&model, &tokens, &[one, zero], Hook::Z(1)).max_abs(),
        0.0
    );
}

// ---- Path patching ---------------------------------------------------------------------------------

#[test]
fn patching_all_paths_is_patching_the_sender() {
    // What a change of the sender is to a reader behind another norm depends on all the rest.
    let deep = toy_configs().prop_filter("no layers", |c| c.n_layers > 0);
    let deep = deep.prop_flat_map(|c| models_and_tokens_of::<f64>(&c));
    let sender = (deep, changes(), 0..5usize, 0..1000u64);
    proptest!(cases(96), |(((model, tokens), change, sender, seed) in sender)| {
        prop_assume!(tokens.batch() > 1 || !matches!(change, Change::Resample { .. }));
        let c = model.config();
        let senders = [Hook::Embed, Hook::PosEmbed, Hook::Result(0), Hook::AttnOut(0), Hook::MlpOut(0)];
        let hook = senders[sender];
        prop_assume!(c.hooks().contains(&hook));
        let other = other_tokens(c, &tokens, seed);
        let change = [Intervention::new(hook, Part::all(), change)];
        let receivers = Receiver::all_after(c, hook).unwrap();

        let rows = |logits: &Tensor<f64>| vec![logits.data().to_vec()];
        let source = model.run(&other, Run::new().cache(hook)).unwrap().cache;
        let run = intervene(Run::new(), &model, &tokens, &change, Some(&source)).unwrap();
        let expected = rows(&model.run(&tokens, run).unwrap().logits);
        let found = path_patch(Run::new(), &model, &tokens, &change, &receivers, Some(&source)).unwrap();
        let none = path_patch(Run::new(), &model, &tokens, &change, &[], Some(&source)).unwrap();
        prop_assert_eq!(&none.logits, &model.logits(&tokens).unwrap());

        let narrow: Model<f32> = model.cast();
        let source = narrow.run(&other, Run::new().cache(hook)).unwrap().cache;
        // Both ways in f32: what the second makes of roundings, the first need not show.
        let run = intervene(Run::new(), &narrow, &tokens, &change, Some(&source)).unwrap();
        let one = rows(&narrow.run(&tokens, run).unwrap().logits.cast());
        let other = path_patch(Run::new(), &narrow, &tokens, &change, &receivers, Some(&source)).unwrap();
        let other = rows(&other.logits.cast());
        let error = farthest(&rows(&found.logits), &expected);
        let bound = bound(&expected, &one).max(bound(&expected, &other));
        let finite = [one, other].concat().concat().iter().all(|x| x.is_finite());
        prop_assert!(error <= bound || !finite, "{hook}: {error:.1e} > {bound:.1e}");
    });
}

/// Between a sender in layer 0 and a receiver in layer 1 of an attention-only model there is nothing: the receiver's
/// input is that of the run with the sender changed.
#[test]
fn one_path_is_the_receivers_own_input_changed() {
    let shallow = toy_configs().prop_filter("two layers of heads alone", |c| {
        c.n_layers == 2 && c.mlp.is_none()
    });
    let pairs = shallow.prop_flat_map(|c| models_and_tokens_of::<f64>(&c));
    proptest!(cases(24), |((model, tokens) in pairs, which in 0..3usize, head in 0..1000usize)| {
        let head = Head { layer: 1, head: head % model.config().n_heads };
        let (hook, receiver) = [
            (Hook::Q(1), Receiver::Q(head)),
            (Hook::K(1), Receiver::K(head)),
            (Hook::V(1), Receiver::V(head)),
        ][which];
        // Keys and values that heads share are theirs together.
        let own = match receiver {
            Receiver::Q(_) => head.head,
            _ => model.config().group(head.head),
        };
        let sender = [Intervention::new(Hook::Result(0), Part::all().heads([0]), Change::Zero)];
        let run = intervene(Run::new().cache(hook), &model, &tokens, &sender, None).unwrap();
        let source = model.run(&tokens, run).unwrap().cache;
        let patch = [Intervention::new(hook, Part::all().heads([own]), Change::Patch)];
        let run = intervene(Run::new(), &model, &tokens, &patch, Some(&source)).unwrap();
        let rows = |logits: &Tensor<f64>| vec![logits.data().to_vec()];
        let expected = rows(&model.run(&tokens, run).unwrap().logits);
        let found = path_patch(Run::new(), &model, &tokens, &sender, &[receiver], None).unwrap();
        let narrow: Model<f32> = model.cast();
        let narrow = path_patch(Run::new(), &narrow, &tokens, &sender, &[receiver], None).unwrap();
        let bound = bound(&expected, &rows(&narrow.logits.cast()));
        let error = farthest(&rows(&found.logits), &expected);
        prop_assert!(error <= bound, "{receiver:?}: {error:.1e} > {bound:.1e}");
    });
}

// ---- Bad requests ----------------------------------------------------------------------------------

#[test]
fn bad_requests_get_a_clear_line() {
    let model = fixture::induction::<f64>();
    let tokens = fixture::repeated_sequences(3, 4, 0);
    let error = |intervention: Intervention| {
        let source = None;
        let error = intervene(
            Run::new(),
            &model,
            &tokens,
            std::slice::from_ref(&intervention),
            source,
        )
        .err();
        error.expect("refused").to_string()
    };
    let of = |hook, part, change| error(Intervention::new(hook, part, change));
    let z = Hook::Z(1);
    for (found, expected) in [
        (
            of(z, Part::all().heads([1]), Change::Zero),
            "head 1 of `blocks.1.attn.hook_z`: there are 0..=0",
        ),
        (
            of(z, Part::all().positions([8]), Change::Zero),
            "position 8 of `blocks.1.attn.hook_z`: there are 0..=7",
        ),
        (
            of(z, Part::all().sequences([3]), Change::Zero),
            "sequence 3 of `blocks.1.attn.hook_z`: there are 0..=2",
        ),
        (
            of(z, Part::all().keys([0]), Change::Zero),
            "`blocks.1.attn.hook_z` has no keys",
        ),
        (
            of(Hook::ResidPre(0), Part::all().heads([0]), Change::Zero),
            "`blocks.0.hook_resid_pre` has no heads",
        ),
        (
            of(z, Part::all().heads([]), Change::Zero),
            "`blocks.1.attn.hook_z`: no heads are chosen",
        ),
        (
            of(Hook::Z(2), Part::all(), Change::Zero),
            "this model has no `blocks.2.attn.hook_z`",
        ),
        (
            of(Hook::MlpOut(0), Part::all(), Change::Zero),
            "this model has no `blocks.0.hook_mlp_out`",
        ),
        (
            of(z, Part::all(), Change::Patch),
            "`blocks.1.attn.hook_z`: there is no source run to patch from",
        ),
        (
            of(z, Part::all(), Change::Set(vec![f64::NAN])),
            "`blocks.1.attn.hook_z`: NaN is not a number to compute with",
        ),
    ] {
        assert_eq!(found, expected);
    }
    let wide = of(
        z,
        Part::all(),
        Change::Add {
            direction: vec![1.0; 3],
            times: 1.0,
        },
    );
    assert!(
        wide.contains("a direction of 3 numbers, expected"),
        "{wide}"
    );
    let zero = of(
        z,
        Part::all().units([0]),
        Change::ProjectOut {
            direction: vec![0.0],
        },
    );
    assert!(zero.contains("the zero vector is no direction"), "{zero}");
    let many = of(z, Part::all(), Change::Set(vec![0.0; 7]));
    assert!(many.contains("7 values to set"), "{many}");

    let source = model
        .run(&tokens.slice(0, 2), Run::new().cache(z))
        .unwrap()
        .cache;
    let patch = [Intervention::new(z, Part::all(), Change::Patch)];
    let shape = intervene(Run::new(), &model, &tokens, &patch, Some(&source))
        .err()
        .unwrap()
        .to_string();
    assert!(
        shape.contains("the source run's `blocks.1.attn.hook_z` has shape [2, 8, 1,"),
        "{shape}"
    );

    // Labels.
    let grid = only(Vec::new());
    let sweep = |answers: Answers, metric: &dyn Metric| {
        let error = Sweep::new(&model, &tokens, &answers, metric)
            .run(&grid)
            .unwrap_err();
        error.to_string()
    };
    assert_eq!(
        sweep(Answers::new(&[7], vec![0, 1]), &Standard::Loss),
        "answers for 2 sequences, expected 3, as there are tokens"
    );
    assert_eq!(
        sweep(Answers::new(&[8], vec![0; 3]), &Standard::Loss),
        "position 8: the sequences' positions are 0..=7"
    );
    assert_eq!(
        sweep(Answers::new(&[7], vec![0, 16, 1]), &Standard::Loss),
        "label 16 of sequence 1: this model's classes are 0..=15"
    );
    assert_eq!(
        sweep(Answers::at(3, &[7]), &Standard::Loss),
        "loss needs to know the right answers: labels are missing"
    );
    let kl = Kl::from_clean(&Tensor::<f64>::zeros(&[2, 1, 16]));
    assert!(
        sweep(Answers::at(3, &[7]), &kl)
            .contains("the clean run has 2 answers of 16 logits, expected 3")
    );
    let scope = Scope {
        heads: Some(vec!["2.0".parse::<Head>().unwrap()]),
        ..Scope::default()
    };
    let error = Grid::new(
        model.config(),
        8,
        Site::Z,
        &[Each::Head],
        &scope,
        &Change::Zero,
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "head 2.0: this model has 2 layers of 1 heads"
    );
    assert_eq!(
        Grid::new(
            model.config(),
            8,
            Site::MlpOut,
            &[Each::Layer],
            &Scope::default(),
            &Change::Zero
        )
        .unwrap_err()
        .to_string(),
        "this model has no site `mlp_out`"
    );
    assert_eq!(mean(&[1.0, 2.0]), 1.5);
}
