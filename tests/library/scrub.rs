//! Causal scrubbing, held to plain enumeration: every draw there is, one run of one sequence each.

use pathsum::intervene::Part;
use pathsum::intervene::scrub::{Agree, Estimate, Hypothesis, Node, Scrub};
use pathsum::metric::{Answers, Metric, Standard};
use pathsum::strategies::models_of;
use pathsum::{Config, Hook, Model, Par, Run, Scalar, Tensor, Tokens};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config as Cases, RngSeed, TestRunner};

/// So many tokens: the inputs are all pairs of them, and one more.
const P: i64 = 3;
const LAST: usize = 2;

/// A random two-layer model with MLPs and norms, whose answers differ from input to input: its logits are centred over
/// the inputs, and large.
fn model<T: Scalar>(seed: u64) -> Model<T> {
    let config = Config::from_json(
        r#"{"n_layers": 2, "d_model": 8, "n_ctx": 3, "d_head": 3, "n_heads": 2, "d_vocab": 4, "d_mlp": 6,
            "act_fn": "relu", "d_vocab_out": 2, "normalization_type": "LN"}"#,
    )
    .unwrap();
    let mut runner = TestRunner::new(Cases {
        rng_seed: RngSeed::Fixed(seed),
        ..Cases::default()
    });
    let models = models_of::<f64>(&config);
    let model = models.new_tree(&mut runner).unwrap().current();
    let mut weights = model.into_weights();
    weights.W_U.data_mut().iter_mut().for_each(|w| *w *= 4.0);
    let model = Model::new(config.clone(), weights).unwrap();
    let logits = model.logits(&inputs()).unwrap();
    let mut weights = model.into_weights();
    for (class, b) in weights.b_U.data_mut().iter_mut().enumerate() {
        let of = |i: i64| logits[[i as usize, LAST, class]];
        *b -= (0..P * P).map(of).sum::<f64>() / (P * P) as f64;
    }
    Model::new(config, weights).unwrap().cast()
}

fn inputs() -> Tokens {
    let rows: Vec<[i64; 3]> = (0..P * P).map(|i| [i / P, i % P, P]).collect();
    Tokens::from_rows(&rows)
}

/// The model's own answers at the last position.
fn own_answers<T: Scalar>(model: &Model<T>, tokens: &Tokens) -> Answers {
    let logits = model.logits(tokens).unwrap();
    let class = |i| usize::from(logits[[i, LAST, 1]] > logits[[i, LAST, 0]]);
    Answers::new(&[LAST], (0..tokens.batch()).map(class).collect())
}

/// A node of a hypothesis as plain data: a hook, positions of it (all, of a pattern), labels, and so on.
#[derive(Clone)]
struct Plain {
    hook: Hook,
    positions: Vec<usize>,
    agree: Agree,
    rest: Agree,
    children: Vec<Plain>,
}

impl Plain {
    fn new(hook: Hook, positions: &[usize], agree: &Agree) -> Self {
        Plain {
            hook,
            positions: positions.to_vec(),
            agree: agree.clone(),
            rest: Agree::Itself,
            children: Vec::new(),
        }
    }

    fn on(mut self, rest: &Agree, children: &[Plain]) -> Self {
        self.rest = rest.clone();
        self.children = children.to_vec();
        self
    }

    fn node(&self) -> Node {
        let part = Part::all().positions(self.positions.iter().copied());
        let node = Node::new(self.hook, part, self.agree.clone()).rest(self.rest.clone());
        self.children
            .iter()
            .map(Plain::node)
            .fold(node, Node::child)
    }

    /// Copies the node's part of one sequence's value into another.
    fn put<T: Scalar>(&self, from: &Tensor<T>, to: &mut Tensor<T>) {
        for &p in &self.positions {
            match self.hook {
                Hook::Pattern(_) => (0..from.shape()[1]).for_each(|h| {
                    to.slice_mut(&[0, h, p])
                        .copy_from_slice(from.slice(&[0, h, p]));
                }),
                _ => to.slice_mut(&[0, p]).copy_from_slice(from.slice(&[0, p])),
            }
        }
    }
}

fn agreeing(agree: &Agree, input: usize, inputs: usize) -> Vec<usize> {
    match agree {
        Agree::Anything => (0..inputs).collect(),
        Agree::Itself => vec![input],
        Agree::Class(labels) => (0..inputs)
            .filter(|&i| labels[i] == labels[input])
            .collect(),
    }
}

/// Every way to compute what is above the children, for an input: the outcome of `read`, and its probability.
fn every_way<T: Scalar, R>(
    model: &Model<T>,
    tokens: &Tokens,
    input: usize,
    rest: &Agree,
    children: &[Plain],
    keep: Option<Hook>,
    read: &mut dyn FnMut(pathsum::RunOutput<T>) -> R,
) -> Vec<(f64, R)> {
    let n = tokens.batch();
    // All combinations of the children's values so far.
    let mut combinations: Vec<(f64, Vec<Tensor<T>>)> = vec![(1.0, Vec::new())];
    for child in children {
        let drawn = agreeing(&child.agree, input, n);
        let mut values = Vec::new();
        for &new in &drawn {
            let mut value = |mut out: pathsum::RunOutput<T>| {
                std::mem::replace(out.cache.get_mut(child.hook).unwrap(), Tensor::zeros(&[0]))
            };
            let ways = every_way(
                model,
                tokens,
                new,
                &child.rest,
                &child.children,
                Some(child.hook),
                &mut value,
            );
            values.extend(ways.into_iter().map(|(p, v)| (p / drawn.len() as f64, v)));
        }
        combinations = combinations
            .iter()
            .flat_map(|(p, so_far)| {
                values
                    .iter()
                    .map(move |(q, v)| (p * q, [&so_far[..], std::slice::from_ref(v)].concat()))
            })
            .collect();
    }
    let bases = agreeing(rest, input, n);
    let mut ways = Vec::new();
    for &base in &bases {
        for (probability, values) in &combinations {
            let mut run = Run::new().par(Par::Seq);
            for (child, from) in children.iter().zip(values) {
                run = run.hook(child.hook, move |to, _| child.put(from, to));
            }
            if let Some(hook) = keep {
                run = run.cache(hook);
            }
            let out = model.run(&tokens.slice(base, 1), run).unwrap();
            ways.push((probability / bases.len() as f64, read(out)));
        }
    }
    ways
}

/// The expectation by plain enumeration.
fn enumerated<T: Scalar>(
    model: &Model<T>,
    tokens: &Tokens,
    answers: &Answers,
    metrics: [Standard; 2],
    rest: &Agree,
    children: &[Plain],
) -> [f64; 2] {
    let mut sums = [0.0; 2];
    for reference in 0..tokens.batch() {
        let mut read = |out: pathsum::RunOutput<T>| {
            let logits = out.logits.slice(&[0, LAST]).iter();
            let logits: Vec<f64> = logits.map(|x| x.to_f64()).collect();
            metrics.map(|metric| metric.of(&answers.get(reference, 0), &logits))
        };
        let ways = every_way(model, tokens, reference, rest, children, None, &mut read);
        for (probability, values) in ways {
            (0..2).for_each(|m| sums[m] += probability * values[m]);
        }
    }
    sums.map(|sum| sum / tokens.batch() as f64)
}

fn hypothesis(rest: &Agree, children: &[Plain]) -> Hypothesis {
    let root = Hypothesis::new().rest(rest.clone());
    children
        .iter()
        .map(Plain::node)
        .fold(root, Hypothesis::child)
}

/// Hypotheses of every kind, small enough to be enumerated.
fn hypotheses(tokens: &Tokens) -> Vec<(&'static str, Agree, Vec<Plain>)> {
    let (any, itself) = (Agree::Anything, Agree::Itself);
    let first = Agree::on(tokens, |s| s[0]);
    let second = Agree::on(tokens, |s| s[1]);
    let parity = Agree::on(tokens, |s| (s[0] + s[1]) % 2);
    let all = [0, 1, 2];
    let last = [LAST];
    let pattern = |agree: &Agree| Plain::new(Hook::Pattern(0), &all, agree);
    let filtered = Plain::new(Hook::MlpOut(0), &last, &parity).on(&itself, &[pattern(&any)]);
    vec![
        ("nothing matters", any.clone(), vec![]),
        ("everything matters", itself.clone(), vec![]),
        (
            "the pattern does not matter",
            itself.clone(),
            vec![pattern(&any)],
        ),
        (
            "the MLP sees a parity",
            itself.clone(),
            vec![Plain::new(Hook::MlpOut(0), &last, &parity)],
        ),
        (
            "both",
            itself.clone(),
            vec![pattern(&any), filtered.clone()],
        ),
        (
            "the stream knows the first token",
            any.clone(),
            vec![Plain::new(Hook::ResidMid(0), &last, &first)],
        ),
        (
            "three layers of nodes",
            second.clone(),
            vec![Plain::new(Hook::ResidPre(1), &last, &first).on(
                &parity,
                &[
                    Plain::new(Hook::AttnOut(0), &last, &second).on(&itself, &[pattern(&parity)]),
                    Plain::new(Hook::Embed, &[0], &first),
                ],
            )],
        ),
        (
            "an open rest below",
            itself,
            vec![
                Plain::new(Hook::ResidPost(0), &last, &parity)
                    .on(&any, &[Plain::new(Hook::Embed, &[1], &second)]),
            ],
        ),
    ]
}

#[test]
fn exact_is_what_enumeration_finds() {
    fn check<T: Scalar>(seeds: std::ops::Range<u64>) {
        for seed in seeds {
            let (model, tokens) = (model::<T>(seed), inputs());
            let answers = own_answers(&model, &tokens);
            let metrics = [Standard::Accuracy, Standard::Loss];
            for (name, rest, children) in hypotheses(&tokens) {
                let expected = enumerated(&model, &tokens, &answers, metrics, &rest, &children);
                for (metric, expected) in metrics.iter().zip(expected) {
                    let on = |par| {
                        let scrub = Scrub::new(&model, &tokens, &answers, metric).par(par);
                        let found = scrub.exact(&hypothesis(&rest, &children), 1 << 20);
                        found.unwrap()
                    };
                    let found = on(Par::Rayon);
                    let off = (found.scrubbed - expected).abs();
                    println!(
                        "{name}, {} in {}: {:.4} of {:.4}, off {off:.1e}, {:?}",
                        found.metric,
                        T::PRECISION,
                        found.scrubbed,
                        found.clean,
                        found.method
                    );
                    // Runs of many sequences at once round otherwise than those of one: a logit by a few units in
                    // its last place for each of its layers' sums.
                    let bound = 4096.0 * T::EPSILON.to_f64() * (1.0 + expected.abs());
                    assert!(off <= bound, "{name}: {off:e}");
                    assert!((on(Par::Seq).scrubbed - found.scrubbed).abs() <= bound);
                }
            }
        }
    }
    check::<f64>(0..2);
    check::<f32>(2..3);
}

/// What is true of the computation by construction loses nothing, not even a rounding's worth of accuracy; what
/// is false does.
#[test]
fn the_truth_loses_nothing() {
    let (model, tokens) = (model::<f64>(1), inputs());
    let answers = own_answers(&model, &tokens);
    let metric = Standard::Loss;
    let scrub = Scrub::new(&model, &tokens, &answers, &metric);
    // Before attention, a position knows its own token alone.
    let at =
        |p: usize, agree: Agree| Node::new(Hook::ResidPre(0), Part::all().positions([p]), agree);
    let own = |p: usize| Agree::on(&tokens, move |s| s[p]);
    let truth = (0..3).fold(Hypothesis::new(), |h, p| h.child(at(p, own(p))));
    let found = scrub.exact(&truth, 1 << 16).unwrap();
    assert!(
        (found.scrubbed - found.clean).abs() <= 64.0 * f64::EPSILON,
        "{found:?}"
    );
    let Estimate::Exact { runs } = found.method else {
        panic!("{found:?}")
    };
    // Nine inputs' streams at each position; 81 runs of what is left, one for every input for the rest.
    assert_eq!(runs, 3 * 9 + 81);
    let wrong = Hypothesis::new().child(at(0, own(0))).child(at(1, own(0)));
    let found = scrub.exact(&wrong, 1 << 16).unwrap();
    assert!(found.scrubbed > found.clean + 1e-3, "{found:?}");
    // Inputs with the same value of a node are equivalent there, whatever it is.
    let out = model
        .run(&tokens, Run::new().cache("blocks.1.hook_mlp_out"))
        .unwrap();
    let values = &out.cache[Hook::MlpOut(1)];
    let bits = |i: usize| {
        values
            .slice(&[i])
            .iter()
            .map(|x| x.to_bits())
            .collect::<Vec<_>>()
    };
    let label = |i: usize| (0..9).position(|j| bits(j) == bits(i)).unwrap() as u64;
    let same = Agree::Class((0..9).map(label).collect());
    let truth =
        Hypothesis::new()
            .rest(Agree::Itself)
            .child(Node::new(Hook::MlpOut(1), Part::all(), same));
    let found = scrub.exact(&truth, 1 << 16).unwrap();
    assert!(
        (found.scrubbed - found.clean).abs() <= 64.0 * f64::EPSILON,
        "{found:?}"
    );
}

/// Where nothing matters, the answers are those of an independent input.
#[test]
fn nothing_matters() {
    let (model, tokens) = (model::<f64>(2), inputs());
    let answers = own_answers(&model, &tokens);
    let logits = model.logits(&tokens).unwrap();
    let n = tokens.batch();
    let agree =
        |x: usize, y: usize| Standard::Accuracy.of(&answers.get(x, 0), logits.slice(&[y, LAST]));
    let pairs: f64 = (0..n * n).map(|i| agree(i / n, i % n)).sum::<f64>() / (n * n) as f64;
    let scrub = Scrub::new(&model, &tokens, &answers, &Standard::Accuracy);
    let found = scrub
        .exact(&Hypothesis::new().rest(Agree::Anything), 9)
        .unwrap();
    assert!((found.scrubbed - pairs).abs() <= 64.0 * f64::EPSILON);
    assert_eq!(
        (found.clean, &found.method),
        (1.0, &Estimate::Exact { runs: 9 })
    );
    let json = serde_json::to_string(&found).unwrap();
    assert_eq!(
        serde_json::from_str::<pathsum::intervene::scrub::Scrubbed>(&json).unwrap(),
        found
    );
}

/// The interval holds the exact value about as often as it says, on every kind of hypothesis; and a seed decides.
#[test]
fn estimates_hold_the_exact_value() {
    let (model, tokens) = (model::<f64>(0), inputs());
    let answers = own_answers(&model, &tokens);
    let metric = Standard::Loss;
    let scrub = Scrub::new(&model, &tokens, &answers, &metric);
    let (mut held, mut all) = (0, 0);
    for (i, (name, rest, children)) in hypotheses(&tokens).into_iter().enumerate() {
        let h = hypothesis(&rest, &children);
        let exact = scrub.exact(&h, 1 << 20).unwrap().scrubbed;
        // Seeds of their own: the same references would err alike for all hypotheses.
        let holds = |seed: &u64| {
            let found = scrub.sample(&h, 300, 100 * i as u64 + seed).unwrap();
            let Estimate::Sampled {
                interval: [low, high],
                ..
            } = found.method
            else {
                panic!("{found:?}")
            };
            low <= exact && exact <= high
        };
        let own = (0..40).filter(holds).count();
        println!("{name}: {own} of 40 intervals hold {exact:.4}");
        // 95% of 40 are 38; fewer than 30 would be less likely than one in a million.
        assert!(own >= 30, "{name}: {own}");
        (held, all) = (held + own, all + 40);
    }
    println!("all: {held} of {all}");
    assert!(held as f64 >= 0.9 * all as f64);
    let h = hypothesis(&Agree::Anything, &[]);
    let twice = [(); 2].map(|()| scrub.sample(&h, 50, 7).unwrap());
    assert_eq!(twice[0], twice[1]);
    let alone = Scrub::new(&model, &tokens, &answers, &metric).par(Par::Seq);
    let off = alone.sample(&h, 50, 7).unwrap().scrubbed - twice[0].scrubbed;
    assert!(off.abs() <= 64.0 * f64::EPSILON);
}

/// A subspace and its complement together are the whole; alone, each leaves the other.
#[test]
fn directions() {
    fn check<T: Scalar>() {
        let (model, tokens) = (model::<T>(1), inputs());
        let answers = own_answers(&model, &tokens);
        let metric = Standard::Loss;
        let scrub = Scrub::new(&model, &tokens, &answers, &metric);
        let first = Agree::on(&tokens, |s| s[0]);
        let second = Agree::on(&tokens, |s| s[1]);
        let unit = |i: usize| (0..8).map(|j| f64::from(i == j)).collect::<Vec<f64>>();
        // Not orthonormal, but of the same span.
        let some = vec![[2.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0].to_vec(), unit(0)];
        let others: Vec<Vec<f64>> = (2..8).map(unit).collect();
        let node = |agree: &Agree| {
            Node::new(
                Hook::ResidMid(0),
                Part::all().positions([LAST]),
                agree.clone(),
            )
        };
        let by_units = |agree: &Agree, units: std::ops::Range<usize>| {
            Node::new(
                Hook::ResidMid(0),
                Part::all().positions([LAST]).units(units),
                agree.clone(),
            )
        };
        let scrubbed = |nodes: [Node; 2]| {
            let root = Hypothesis::new().rest(Agree::Itself);
            let h = nodes.into_iter().fold(root, Hypothesis::child);
            scrub.exact(&h, 1 << 16).unwrap().scrubbed
        };
        let along = [
            node(&first).along(some.clone()),
            node(&second).along(others.clone()),
        ];
        let units = [by_units(&first, 0..2), by_units(&second, 2..8)];
        let (along, units) = (scrubbed(along), scrubbed(units));
        assert!(
            (along - units).abs() <= 4096.0 * T::EPSILON.to_f64(),
            "{along} {units}"
        );
        let overlapping = [
            node(&first).along(some.clone()),
            node(&second).along(vec![vec![1.0; 8]]),
        ];
        let h = overlapping
            .into_iter()
            .fold(Hypothesis::new(), Hypothesis::child);
        let error = scrub.exact(&h, 9).unwrap_err().to_string();
        assert!(error.contains("not orthogonal"), "{error}");
    }
    check::<f64>();
    check::<f32>();
}

#[test]
fn what_is_ill_formed_is_refused() {
    let (model, tokens) = (model::<f64>(0), inputs());
    let answers = own_answers(&model, &tokens);
    let scrub = Scrub::new(&model, &tokens, &answers, &Standard::Accuracy);
    let node = |hook: Hook| Node::new(hook, Part::all(), Agree::Anything);
    let at = |p: usize| {
        Node::new(
            Hook::ResidMid(0),
            Part::all().positions([p]),
            Agree::Anything,
        )
    };
    let along = |directions: Vec<Vec<f64>>| node(Hook::ResidMid(0)).along(directions);
    let both = |a: Node, b: Node| Hypothesis::new().child(a).child(b);
    for (h, expected) in [
        (
            Hypothesis::new().child(node(Hook::Pattern(0)).child(node(Hook::MlpOut(0)))),
            "`blocks.0.attn.hook_pattern` does not depend on `blocks.0.hook_mlp_out`, which is not before it",
        ),
        (
            Hypothesis::new().child(node(Hook::Pattern(0)).child(node(Hook::Pattern(0)))),
            "which is not before it",
        ),
        (
            Hypothesis::new().child(node(Hook::Pattern(2))),
            "this model has no `blocks.2.attn.hook_pattern`",
        ),
        (
            Hypothesis::new().child(Node::new(
                Hook::Pattern(0),
                Part::all().heads([2]),
                Agree::Anything,
            )),
            "head 2 of `blocks.0.attn.hook_pattern`: there are 0..=1",
        ),
        (
            Hypothesis::new().child(Node::new(
                Hook::Pattern(0),
                Part::all().sequences([2]),
                Agree::Anything,
            )),
            "a node is a part of every sequence's value, not of some",
        ),
        (
            Hypothesis::new().child(Node::new(
                Hook::Pattern(0),
                Part::all(),
                Agree::Class(vec![0; 8]),
            )),
            "`blocks.0.attn.hook_pattern`: 8 labels of what inputs agree on, expected 9",
        ),
        (
            Hypothesis::new().rest(Agree::Class(vec![])),
            "the output: 0 labels of what inputs agree on, expected 9",
        ),
        (
            both(at(2), node(Hook::ResidMid(0))),
            "two nodes below the output take the same part of `blocks.0.hook_resid_mid`",
        ),
        (
            Hypothesis::new().child(along(vec![vec![1.0; 7]])),
            "a direction of 7 numbers, expected 8",
        ),
        (
            Hypothesis::new().child(along(vec![vec![1.0; 8], vec![-3.0; 8]])),
            "a direction that is zero, or that the ones before it span",
        ),
        (Hypothesis::new().child(along(vec![])), "along no direction"),
        (
            Hypothesis::new().child(at(0)),
            "the exact expectation takes 9 runs or more, expected at most 8; a sample estimates it",
        ),
    ] {
        let error = scrub.exact(&h, 8).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(scrub.exact(&both(at(0), at(1)), 1 << 12).is_ok());
    let error = scrub.sample(&Hypothesis::new(), 1, 0).unwrap_err();
    assert!(error.to_string().contains("expected two at least"));
    let short = Answers::at(8, &[LAST]);
    let scrub = Scrub::new(&model, &tokens, &short, &Standard::Probability(0));
    assert!(scrub.exact(&Hypothesis::new(), 10).is_err());
}
