//! Walks through every input of a space, held to the naive forward pass of small random models of every shape that they
//! are for; and the search for counterexamples.

use crate::common::reference;
use crate::naive::forward::forward;
use crate::naive::{Rounding, params};
use pathsum::certify::{
    Certificate, Certified, Checked, Claim, Count, InputPart, InputSpace, Margin, Ranges,
    Restriction, Seek, Values, Walked, check, hash, seek, walk,
};
use pathsum::fixture::Fixture;
use pathsum::model::{ActFn, Mask, MlpKind, NormKind, NormWeight, Positions, Weights};
use pathsum::task::{BuiltIn, MaxOfK, Task, Vocabulary};
use pathsum::{Config, Model, Result, Tensor, Tokens};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// Sequences of tokens 0.. with an arbitrary right class, over a space of one's own.
struct Arbitrary {
    vocabulary: Vocabulary,
    classes: usize,
    read_at: Vec<usize>,
    positions: usize,
    space: InputSpace,
}

impl Task for Arbitrary {
    fn name(&self) -> String {
        "arbitrary".into()
    }
    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }
    fn classes(&self) -> Vec<String> {
        (0..self.classes).map(|c| c.to_string()).collect()
    }
    fn positions(&self) -> usize {
        self.positions
    }
    fn read_at(&self) -> Vec<usize> {
        self.read_at.clone()
    }
    fn tokens(&self, size: usize, seed: u64) -> Tokens {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let all: Vec<Vec<i64>> = (0..size)
            .map(|_| self.space.sequence(rng.random_range(0..self.space.size())))
            .collect();
        Tokens::new(size, self.positions, all.concat())
    }
    fn check(&self, sequence: &[i64]) -> Result<()> {
        self.vocabulary.check(sequence, self.positions)
    }
    fn solve(&self, sequence: &[i64]) -> Vec<usize> {
        let hash = sequence.iter().fold(7i64, |h, &t| (31 * h + t) % 1009);
        let of = |&p: &usize| (hash as usize + p) % self.classes;
        self.read_at.iter().map(of).collect()
    }
    fn space(&self) -> Option<InputSpace> {
        Some(self.space.clone())
    }
}

/// A model of random weights, none of which is special.
fn model(config: Config, seed: u64) -> Model<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let weights = Weights::build(&config, |_, shape| {
        Ok(Tensor::from_fn(shape, |_| rng.random_range(-1.0..1.0)))
    });
    Model::new(config, weights.unwrap()).unwrap()
}

/// Every combination of what the walks know, small.
fn configs() -> Vec<Config> {
    let weights = [NormWeight::Absent, NormWeight::Plain, NormWeight::OnePlus];
    let norms = weights.map(|weight| {
        Some(NormKind {
            centred: weight != NormWeight::OnePlus,
            weight,
            bias: weight == NormWeight::Plain,
        })
    });
    let mut all = Vec::new();
    for (i, norm) in norms.into_iter().chain([None]).enumerate() {
        for (n_layers, n_heads, mlp) in
            [(1, 1, None), (1, 2, Some(5)), (2, 2, None), (3, 1, Some(4))]
        {
            for (mask, pad_token) in [
                (Mask::Causal, None),
                (Mask::All, None),
                (Mask::All, Some(4)),
                (Mask::Causal, Some(4)),
            ] {
                all.push(Config {
                    n_layers,
                    n_heads,
                    groups: if i == 1 { 1 } else { n_heads },
                    d_model: 5,
                    d_head: 3,
                    n_ctx: 5,
                    d_vocab: 5,
                    d_vocab_out: 2 + i,
                    positions: if i == 2 {
                        Positions::None
                    } else {
                        Positions::Learned
                    },
                    norm,
                    mask,
                    pad_token,
                    // Scores may be divided by what is below zero.
                    attn_scale: if all.len() % 4 == 3 { -1.5 } else { 1.5 },
                    mlp: mlp.map(|d_mlp| MlpKind {
                        d_mlp,
                        act_fn: ActFn::Relu,
                        gated: false,
                        gate_bias: false,
                    }),
                    ..Config::default()
                });
            }
        }
    }
    all
}

/// The task for a model: lists that end in a fixed token, strings of several lengths where the model has a pad.
fn task(c: &Config) -> Arbitrary {
    let (space, positions) = match c.pad_token {
        Some(pad) => {
            let values = Values::Strings {
                alphabet: vec![1, 3],
                lengths: 0..=3,
            };
            let parts = vec![InputPart::Fixed(0), InputPart::All, InputPart::Fixed(2)];
            (
                InputSpace::new(values, parts, Some((pad as i64, 5))).unwrap(),
                5,
            )
        }
        None => {
            let sets = vec![vec![0, 2, 4], vec![1, 3], vec![0, 1, 2, 3]];
            let parts = vec![InputPart::All, InputPart::Fixed(2)];
            (
                InputSpace::new(Values::Product(sets), parts, None).unwrap(),
                4,
            )
        }
    };
    let read_at = match (c.pad_token, c.n_layers) {
        (Some(_), _) => vec![0],
        (None, 3) => vec![1, 3],
        (None, _) => vec![3],
    };
    Arbitrary {
        vocabulary: Vocabulary::numbers(c.d_vocab, &[]),
        classes: c.d_vocab_out,
        read_at,
        positions,
        space,
    }
}

fn everything(model: &Model<f64>, task: &dyn Task, by: f64) -> Walked {
    all_of(model, task, &task.space().unwrap(), by)
}

fn all_of(model: &Model<f64>, task: &dyn Task, space: &InputSpace, by: f64) -> Walked {
    walk(model, task, space, by, &whole(space), &mut |_| Ok(true)).unwrap()
}

fn whole(space: &InputSpace) -> Ranges {
    Ranges::part(space, (0, 1)).unwrap()
}

/// By position, and all together: right, wrong, and the least margin that is right.
fn naive(model: &Model<f64>, task: &dyn Task, by: f64) -> (Vec<[u128; 2]>, [u128; 2], f64) {
    let space = task.space().unwrap();
    let at = task.read_at();
    let rows: Vec<Vec<i64>> = (0..space.size()).map(|i| space.sequence(i)).collect();
    let tokens = Tokens::new(rows.len(), rows[0].len(), rows.concat());
    let parameters = params(model);
    let logits = forward(
        model.config(),
        &parameters,
        &tokens,
        Rounding::of::<f64>(),
        &[],
    )
    .logits;
    let (mut positions, mut all) = (vec![[0; 2]; at.len()], [0; 2]);
    let mut least = f64::INFINITY;
    for (s, row) in rows.iter().enumerate() {
        let (mut right, mut wrong) = (true, false);
        for ((&p, class), count) in at.iter().zip(task.solve(row)).zip(&mut positions) {
            let logit = |c: usize| logits.at(&[s, p, c]);
            let others = (0..model.config().d_vocab_out).filter(|&c| c != class);
            let most = others.map(|c| logit(c).x).fold(f64::NEG_INFINITY, f64::max);
            let margin = logit(class).x - most;
            // What is closer than the oracle's own rounding would be no test.
            assert!((margin.abs() - by).abs() > 4.0 * logit(class).e, "{margin}");
            count[0] += u128::from(margin > by);
            count[1] += u128::from(margin < -by);
            right &= margin > by;
            wrong |= margin < -by;
            if margin > by {
                least = least.min(margin);
            }
        }
        all[0] += u128::from(right);
        all[1] += u128::from(wrong);
    }
    (positions, all, least)
}

#[test]
fn every_input_is_what_the_naive_pass_finds() {
    let mut wrong = 0;
    for (seed, config) in configs().into_iter().enumerate() {
        let (model, task) = (model(config, seed as u64), task(&configs()[seed]));
        for by in [0.0, 0.25] {
            let found = everything(&model, &task, by);
            let (positions, all, least) = naive(&model, &task, by);
            let certified = &found.certified;
            let counts: Vec<[u128; 2]> = (certified.positions.iter())
                .map(|(_, count)| [count.right, count.wrong])
                .collect();
            assert_eq!(counts, positions, "{seed}: {:?}", model.config());
            assert_eq!([certified.all.right, certified.all.wrong], all, "{seed}");
            assert_eq!(u128::from(found.ranges.count()), certified.size);
            match &found.closest {
                Some(case) => {
                    let bound = case.margin.error + 1e3 * f64::EPSILON;
                    assert!(
                        (case.margin.value - least).abs() <= bound,
                        "{seed}: {least} {case:?}"
                    );
                }
                None => assert_eq!(least, f64::INFINITY),
            }
            wrong += all[1];
        }
    }
    assert!(wrong > 1000, "only {wrong} answers were wrong");
}

/// A certificate of an enumeration that says so.
fn said(
    model: &Model<f64>,
    task: &dyn Task,
    margin: f64,
    (positions, all): &(Vec<[u128; 2]>, [u128; 2]),
) -> Certificate {
    let count = |&[right, wrong]: &[u128; 2]| Count { right, wrong };
    let claim = Claim {
        task: task.name(),
        space: String::new(),
        margin,
    };
    let certified = Certified {
        size: task.space().unwrap().size(),
        positions: task
            .read_at()
            .into_iter()
            .zip(positions.iter().map(count))
            .collect(),
        all: count(all),
    };
    let ranges = whole(&task.space().unwrap());
    Certificate::enumeration(model, claim, certified, ranges)
}

/// The checker's own count is what is true: that is accepted, and one answer more of any kind is refused.
fn the_checker_counts(model: &Model<f64>, task: &dyn Task, by: f64) -> u128 {
    let (positions, all, _) = naive(model, task, by);
    let mut counts = (positions, all);
    let accepted = |counts: &(Vec<[u128; 2]>, [u128; 2])| {
        let found = check(&said(model, task, by, counts), model, task).unwrap();
        matches!(found, Checked::Accepted(_))
    };
    assert!(accepted(&counts), "{counts:?} {:?}", model.config());
    for i in 0..=counts.0.len() {
        for kind in 0..2 {
            let mut more = counts.clone();
            more.0.get_mut(i).unwrap_or(&mut more.1)[kind] += 1;
            assert!(!accepted(&more), "{more:?} {:?}", model.config());
        }
    }
    counts.0.push(counts.1);
    counts.0.iter().map(|[_, wrong]| wrong).sum()
}

#[test]
fn the_checker_finds_what_the_naive_pass_finds() {
    let mut wrong = 0;
    for (seed, mut config) in configs().into_iter().enumerate() {
        // Rows narrower than what is summed in one pass, and others.
        if config.n_layers == 1 && seed.is_multiple_of(2) {
            (config.d_model, config.d_head) = (9, 11);
        }
        let task = task(&config);
        let model = model(config, seed as u64);
        for by in [0.0, 0.25] {
            wrong += the_checker_counts(&model, &task, by);
        }
    }
    assert!(wrong > 1000, "only {wrong} answers were wrong");
}

/// Models of one head and nothing else, asked at the end of a product of sets: what the checker sums up.
fn bare(classes: usize, seed: u64) -> (Model<f64>, Arbitrary) {
    let config = Config {
        d_vocab_out: classes,
        n_ctx: 4,
        mask: if seed.is_multiple_of(2) {
            Mask::Causal
        } else {
            Mask::All
        },
        ..configs()
            .into_iter()
            .find(|c| c.n_layers == 1 && c.norm.is_none())
            .unwrap()
    };
    let sets = vec![vec![0, 2, 4], vec![1, 3], vec![0, 1, 2, 3], vec![4, 1, 2]];
    let values = Values::Product(sets);
    let task = Arbitrary {
        vocabulary: Vocabulary::numbers(config.d_vocab, &[]),
        classes,
        read_at: vec![3],
        positions: 4,
        space: InputSpace::new(values, vec![InputPart::All], None).unwrap(),
    };
    (model(config, seed), task)
}

#[test]
fn the_checkers_sums_are_what_the_naive_pass_finds() {
    let mut wrong = 0;
    for (seed, classes) in [2, 3, 7, 8, 9, 17].into_iter().enumerate() {
        let (model, task) = bare(classes, seed as u64);
        for by in [0.0, 0.25] {
            wrong += the_checker_counts(&model, &task, by);
        }
    }
    assert!(wrong > 100, "only {wrong} answers were wrong");
}

/// What was counted of one model, said of another: of what is accepted all is true.
#[test]
fn counts_of_other_weights_are_accepted_only_where_they_are_true() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let deep = configs()
        .into_iter()
        .find(|c| c.n_layers == 2 && c.norm.is_some())
        .unwrap();
    let deep = (model(deep.clone(), 3), task(&deep));
    let mut refused = 0;
    for (model, task) in [bare(3, 4), deep] {
        let (positions, all, _) = naive(&model, &task, 0.0);
        let counts = (positions, all);
        for _ in 0..20 {
            let mut weights = model.weights().clone();
            let mut tensors = weights.tensors_mut();
            let which = rng.random_range(0..tensors.len());
            let values = tensors[which].1.data_mut();
            values[rng.random_range(0..values.len())] += 1.5;
            let changed = Model::new(model.config().clone(), weights).unwrap();
            let mut forged = said(&model, &task, 0.0, &counts);
            assert!(matches!(
                check(&forged, &changed, &task).unwrap(),
                Checked::Refused(_)
            ));
            forged.header.weights = hash(&changed);
            let (positions, all, _) = naive(&changed, &task, 0.0);
            let true_of = |(a, b): (&[u128; 2], &[u128; 2])| a[0] <= b[0] && a[1] <= b[1];
            let all_true =
                counts.0.iter().zip(&positions).all(true_of) && true_of((&counts.1, &all));
            let accepted = matches!(
                check(&forged, &changed, &task).unwrap(),
                Checked::Accepted(_)
            );
            assert_eq!(accepted, all_true, "{counts:?} {positions:?} {all:?}");
            refused += usize::from(!accepted);
        }
    }
    assert!(refused > 10, "{refused} of 40 were refused");
}

/// A margin of exactly zero is neither right nor wrong, in whatever precision.
#[test]
fn a_tie_is_open() {
    let mut config = configs()[0].clone();
    config.d_vocab_out = 2;
    let task = task(&config);
    let mut weights = model(config.clone(), 1).weights().clone();
    let columns = weights.W_U.data_mut();
    columns.chunks_exact_mut(2).for_each(|row| row[1] = row[0]);
    weights.b_U.data_mut()[1] = weights.b_U.data()[0];
    let tied = Model::new(config, weights).unwrap();
    let found = everything(&tied, &task, 0.0);
    assert_eq!(
        (found.certified.all.right, found.certified.all.wrong),
        (0, 0)
    );
    assert_eq!(u128::from(found.again), found.certified.size);
    assert!(!found.open.is_empty());
}

/// What is finished when it is stopped, and nothing else, is what it has found.
#[test]
fn it_stops_when_it_is_told_to() {
    // By tables, and one by one.
    let max = (Fixture::MaxOfK.load::<f64>(), BuiltIn::MaxOfK, "tokens=0-9");
    let brackets = (Fixture::Brackets.load(), BuiltIn::Brackets, "length=0-11");
    for (model, task, spec) in [max, brackets] {
        let task = task.task();
        let task = task.as_ref();
        let asked = Restriction::parse(spec, task.vocabulary()).unwrap();
        let space = task.space().unwrap().restricted(&asked).unwrap();
        for after in [0, 1, 2, 3] {
            let mut asked = 0;
            let mut go_on = |_: &Walked| {
                asked += 1;
                Ok(asked <= after)
            };
            let found = walk(&model, task, &space, 0.0, &whole(&space), &mut go_on).unwrap();
            assert!(u128::from(found.ranges.count()) < space.size(), "{after}");
            let inputs: u128 = found.by_right[0].1.iter().map(|own| own.inputs).sum();
            assert_eq!(inputs, u128::from(found.ranges.count()), "{after}");
            let again = walk(&model, task, &space, 0.0, &found.ranges, &mut |_| Ok(true)).unwrap();
            assert_eq!(again.certified, found.certified);
        }
        let fails = |_: &Walked| Err(pathsum::Error::Experiment("no room".into()));
        let error = walk(&model, task, &space, 0.0, &whole(&space), &mut { fails }).unwrap_err();
        assert!(error.to_string().contains("no room"), "{error}");
    }
}

/// Spaces split at random: each part has the figures of its own inputs, of whichever the walk, and the checker, count; all
/// of them together are the whole.
#[test]
fn any_parts_together_are_the_whole() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut cases: Vec<(Model<f64>, Arbitrary)> = (configs().into_iter().enumerate())
        .map(|(seed, config)| (model(config.clone(), seed as u64), task(&config)))
        .collect();
    cases.extend((0..6).map(|seed| bare(3 + seed as usize, seed)));
    for (seed, (model, task)) in cases.iter().enumerate() {
        let space = task.space().unwrap();
        let size = space.size() as u64;
        let all = everything(model, task, 0.0);
        let mut cuts: Vec<u64> = (0..5).map(|_| rng.random_range(0..=size)).collect();
        cuts.extend([0, size]);
        cuts.sort_unstable();
        let ranges = cuts
            .windows(2)
            .map(|w| w[0]..w[1])
            .filter(|r| !r.is_empty());
        // Two parts, each of every other range.
        let mut parts = [Ranges::default(), Ranges::default()];
        for (i, range) in ranges.enumerate() {
            parts[i % 2].0.push(range);
        }
        let mut sum: Option<(Ranges, Certified)> = None;
        let mut closest: Option<Margin> = None;
        let nearer = |a: Margin, b: Margin| if a.at_least() <= b.at_least() { a } else { b };
        for part in &parts {
            let found = walk(model, task, &space, 0.0, part, &mut |_| Ok(true)).unwrap();
            assert_eq!(found.ranges, *part);
            // What the inputs are alone.
            let mut alone = Count::default();
            for input in part.0.iter().cloned().flatten() {
                let one = Ranges::from(input..input + 1);
                let found = walk(model, task, &space, 0.0, &one, &mut |_| Ok(true)).unwrap();
                alone += found.certified.all;
                let sequence = space.sequence(input.into());
                let right = pathsum::certify::answers(model, task, &sequence).unwrap();
                let right = right
                    .iter()
                    .all(|case| case.margin.is_right(0.0) == Some(true));
                assert_eq!(found.certified.all.right, u128::from(right), "{sequence:?}");
            }
            assert_eq!(found.certified.all, alone, "{seed}: {part:?}");
            // The checker counts neither more nor less of them.
            let claim = Claim {
                task: task.name(),
                space: String::new(),
                margin: 0.0,
            };
            let certified = found.certified.clone();
            let mut own = Certificate::enumeration(model, claim, certified, part.clone());
            let proved = Checked::Accepted(found.certified.clone());
            assert_eq!(
                check(&own, model, task).unwrap(),
                proved,
                "{seed}: {part:?}"
            );
            own.header.certified.all.wrong += 1;
            assert!(matches!(
                check(&own, model, task).unwrap(),
                Checked::Refused(_)
            ));
            let own = found.closest.map(|case| case.margin);
            closest = closest.into_iter().chain(own).reduce(nearer);
            match &mut sum {
                None => sum = Some((found.ranges, found.certified)),
                Some((ranges, certified)) => {
                    ranges.add(&found.ranges).unwrap();
                    *certified += &found.certified;
                }
            }
        }
        assert_eq!(sum, Some((whole(&space), all.certified.clone())), "{seed}");
        // Inputs that are run abreast have one bound, and other inputs are abreast in parts.
        match (closest, all.closest.map(|case| case.margin)) {
            (Some(a), Some(b)) => {
                let apart = (a.at_least() - b.at_least()).abs();
                assert!(apart <= 2.0 * (a.error + b.error), "{seed}: {a:?} {b:?}");
            }
            (a, b) => assert_eq!(a, b, "{seed}"),
        }
    }
}

#[test]
fn ranges_are_sets_of_numbers() {
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    let space = InputSpace::listed(Tokens::new(40, 1, vec![0; 40]));
    let numbers = |ranges: &Ranges| -> Vec<u64> { ranges.0.iter().cloned().flatten().collect() };
    for n in [1, 2, 3, 7, 40, 55] {
        let mut all = Ranges::default();
        for i in (0..n).rev() {
            let part = Ranges::part(&space, (i, n)).unwrap();
            let equal = [40 / n, 40usize.div_ceil(n)].map(|n| n as u64);
            assert!(equal.contains(&part.count()));
            all.add(&part).unwrap();
        }
        assert_eq!(all, Ranges::from(0..40));
    }
    let (mut together, mut both) = (0, 0);
    for _ in 0..500 {
        let mut any = |n| {
            let mut all = Ranges::default();
            for _ in 0..n {
                let start = rng.random_range(0..39);
                let range = start..rng.random_range(start + 1..=40);
                let own = Ranges::from(range).without(&all);
                all.add(&own).unwrap();
            }
            all
        };
        let (a, b) = (any(2), any(3));
        let left = a.without(&b);
        let expected: Vec<u64> = (numbers(&a).into_iter())
            .filter(|n| !numbers(&b).contains(n))
            .collect();
        assert_eq!(numbers(&left), expected);
        let mut sum = a.clone();
        match sum.add(&b) {
            Ok(()) => {
                together += 1;
                assert_eq!(left, a);
                let mut expected = [numbers(&a), numbers(&b)].concat();
                expected.sort_unstable();
                assert_eq!(numbers(&sum), expected);
                assert!(sum.0.windows(2).all(|w| w[0].end < w[1].start), "{sum:?}");
            }
            Err(error) => {
                both += 1;
                assert_ne!(left, a);
                assert_eq!(sum, a);
                assert!(error.to_string().contains("counted already"), "{error}");
            }
        }
    }
    assert!(together >= 10 && both >= 10, "{together} {both}");
}

#[test]
fn what_no_bound_is_known_for_is_refused() {
    let mut config = configs()[0].clone();
    config.score_cap = Some(2.0);
    let task = task(&config);
    let model = model(config, 0);
    let space = task.space().unwrap();
    let error = walk(&model, &task, &space, 0.0, &whole(&space), &mut |_| {
        Ok(true)
    })
    .unwrap_err();
    assert!(error.to_string().contains("soft caps"), "{error}");
}

#[test]
fn the_embedded_models_are_as_good_as_they_are() {
    // Every pair of integers.
    let task = BuiltIn::TwoInteger.task();
    let found = everything(&Fixture::TwoInteger.load(), task.as_ref(), 0.0);
    let count = found.certified.all;
    assert_eq!(count.right + count.wrong, 12_769);
    assert!(found.open.is_empty());
    // Short strings of brackets, and lists of small numbers.
    let short = |task: BuiltIn, spec: &str| {
        let task = task.task();
        let asked = Restriction::parse(spec, task.vocabulary()).unwrap();
        (task.space().unwrap().restricted(&asked).unwrap(), task)
    };
    let (space, task) = short(BuiltIn::Brackets, "length=0-9");
    let found = all_of(&Fixture::Brackets.load(), task.as_ref(), &space, 0.0);
    let count = found.certified.all;
    assert_eq!(count.right + count.wrong, 1023);
    let (space, task) = short(BuiltIn::MaxOfK, "tokens=50-57");
    let found = all_of(&Fixture::MaxOfK.load(), task.as_ref(), &space, 0.0);
    let count = found.certified.all;
    assert_eq!(count.right + count.wrong, 4096);
}

#[test]
fn published_models_are_as_good_as_was_proved() {
    let Some(root) = reference::root() else {
        return;
    };
    for (name, right) in [("max_of_two", 4096), ("max_of_two_undertrained", 4046)] {
        let model = Model::<f64>::load(root.join("algorithmic").join(name)).unwrap();
        let found = everything(&model, &MaxOfK::new(2, 64), 0.0);
        let count = found.certified.all;
        assert_eq!((count.right, count.wrong), (right, 4096 - right), "{name}");
        assert!(found.closest.unwrap().margin.at_least() > 0.0);
    }
}

#[test]
fn counterexamples_are_found_and_proved() {
    let Some(root) = reference::root() else {
        return;
    };
    let model = Model::<f64>::load(root.join("palindrome")).unwrap();
    let task = BuiltIn::Palindrome.task();
    let space = task.space().unwrap();
    let space = space.restricted(&[Restriction::Broken(0)]).unwrap();
    let how = Seek {
        drawn: 512,
        starts: 2,
        steps: 8,
        ..Seek::default()
    };
    let found = seek(&model, task.as_ref(), &space, how, &|| true).unwrap();
    let case = &found[0];
    assert!(case.margin.at_most() < 0.0);
    assert_eq!(task.solve(&case.sequence), [1]);
    let logits = model.logits(&Tokens::from_rows(&[&case.sequence])).unwrap();
    let row = logits.slice(&[0, case.position]);
    assert!((row[1] - row[0] - case.margin.value).abs() <= 1e6 * f64::EPSILON);
}
