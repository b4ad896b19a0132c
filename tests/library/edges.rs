//! Edges: exact effects beside whole runs with closures, derivatives beside differences, circuits beside both.

use crate::common::reference;
use crate::properties::rounding;

use pathsum::edges::{Ablation, Attribution, Edge, Edges, ExactWork, Sender};
use pathsum::intervene::Receiver;
use pathsum::metric::{Answers, Contrast, Metric, Standard, mean, per_sequence};
use pathsum::model::{Config, NormWeight, Weights};
use pathsum::names::NormSite;
use pathsum::{Cache, Head, Hook, Model, Run, Tensor, Tokens, fixture};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Families of the reference, each the first of a feature: blocks in sequence, parallel ones with one norm and with two,
/// norms around, groups, windows, positions added to scores, norms of queries and keys per head and over all of them.
const FAMILIES: [&str; 10] = [
    "gpt2", "gptj", "pythia", "gemma2", "llama3", "mistral", "bloom", "qwen3", "olmo2", "gemma3",
];

/// The first two layers of a reference model.
fn two_layers(name: &str) -> Option<Model<f64>> {
    first_layers(name, 2)
}

fn first_layers(name: &str, n: usize) -> Option<Model<f64>> {
    let folder = reference::root()?.join("language/families").join(name);
    let whole = Model::<f64>::load(&folder).unwrap();
    let mut config: Config = whole.config().clone();
    config.n_layers = n;
    let all: HashMap<String, Tensor<f64>> = (whole.weights().tensors().into_iter())
        .map(|(name, t)| (name, t.clone()))
        .collect();
    let weights = Weights::build(&config, |name, _| Ok(all[name].clone())).unwrap();
    Some(Model::new(config, weights).unwrap())
}

/// Two pairs that differ from position 3 on, read at the last two positions but one.
struct Task {
    clean: Tokens,
    corrupt: Tokens,
    answers: Answers,
    metric: Contrast,
}

impl Task {
    fn of(model: &Model<f64>) -> Self {
        let d_vocab = model.config().d_vocab as i64;
        let token =
            |i: usize, p: usize, by: usize| ((31 * i + 7 * p + by * (p + 5) + 3) as i64) % d_vocab;
        let row = |i, by: usize| (0..9).map(move |p| token(i, p, if p < 3 { 0 } else { by }));
        let rows = |by| [0, 1].map(|i| row(i, by).collect::<Vec<i64>>());
        let answers = Answers::new(&[6, 7], vec![1, 5, 2, 0]);
        let metric = Contrast::against(&answers, vec![3, 2, 7, 9]).unwrap();
        Task {
            clean: Tokens::from_rows(&rows(0)),
            corrupt: Tokens::from_rows(&rows(11)),
            answers,
            metric,
        }
    }

    fn edges<'a>(&'a self, model: &'a Model<f64>) -> Edges<'a, f64> {
        Edges::new(
            model,
            &self.clean,
            &self.corrupt,
            &self.answers,
            &self.metric,
        )
        .unwrap()
    }

    fn read(&self, logits: &Tensor<f64>) -> f64 {
        mean(&self.read_each(logits))
    }

    fn read_each(&self, logits: &Tensor<f64>) -> Vec<f64> {
        let rows = self.answers.rows_of(logits);
        per_sequence(&self.metric, &self.answers, &rows)
    }

    /// How far rounding may move the metric, by the library's estimate for logits, of two of them in two runs.
    fn rounding(&self, model: &Model<f64>) -> f64 {
        4.0 * rounding(model, &self.clean).max(rounding(model, &self.corrupt))
    }
}

/// What a sender adds to the stream, from a run that kept everything: by hand, with a norm over what attention writes at
/// its own scale.
fn written(model: &Model<f64>, run: &Cache<f64>, sender: Sender) -> Tensor<f64> {
    let &[batch, pos, d] = run[Hook::ResidPre(0)].shape() else {
        panic!("a stream has three axes")
    };
    type Part<'a> = Box<dyn Fn(&[usize]) -> f64 + 'a>;
    let (site, part): (NormSite, Part<'_>) = match sender {
        Sender::Input => return run[Hook::ResidPre(0)].clone(),
        Sender::Mlp(l) => return run[Hook::MlpOut(l)].clone(),
        Sender::Head(Head { layer, head }) => {
            let results = &run[Hook::Result(layer)];
            let of = move |at: &[usize]| results[[at[0], at[1], head, at[2]]];
            (NormSite::Ln1Post(layer), Box::new(of))
        }
        Sender::Neuron { layer, neuron } => {
            let post = &run[Hook::Post(layer)];
            let W_out = &model.weights().blocks[layer].mlp.as_ref().unwrap().W_out;
            let of = move |at: &[usize]| post[[at[0], at[1], neuron]] * W_out[[neuron, at[2]]];
            (NormSite::Ln2Post(layer), Box::new(of))
        }
    };
    let norm = model.weights().norms.get(&site);
    let one_plus = model
        .config()
        .norm
        .is_some_and(|kind| kind.weight == NormWeight::OnePlus);
    Tensor::from_fn(&[batch, pos, d], |at| {
        let x = part(at);
        match norm {
            None => x,
            Some(norm) => {
                let w = norm.w.data()[at[2]] + if one_plus { 1.0 } else { 0.0 };
                w * x / run[Hook::Scale(site)][[at[0], at[1], 0]]
            }
        }
    })
}

/// Sets one head of a value that has heads: of scores and patterns on the second axis, of others on the third.
fn set_head(to: &mut Tensor<f64>, from: &Tensor<f64>, head: usize, axis: usize) {
    for i in 0..to.len() {
        if to.place(i)[axis] == head {
            to.data_mut()[i] = from.data()[i];
        }
    }
}

/// In what runs with closures depart from those of the model.
#[derive(Clone, Copy)]
enum Held {
    Nothing,
    /// What a layer writes is what it writes in the clean run; and of queries and keys, a share of what the head mixes
    /// otherwise with the whole edge patched comes to what it mixes.
    Layer(Option<usize>),
    /// Norms, functions of neurons and, where asked, patterns are linear at what the clean run has.
    Linear {
        patterns: bool,
    },
}

/// Runs with closures on the clean sequences, and what they hold.
struct Closures<'a> {
    model: &'a Model<f64>,
    task: &'a Task,
    clean: &'a Cache<f64>,
    corrupt: &'a Cache<f64>,
    held: Held,
}

impl Closures<'_> {
    fn run<'r>(
        &'r self,
        change: impl FnOnce(Run<'r, f64>) -> Run<'r, f64>,
    ) -> (Tensor<f64>, Cache<f64>) {
        let own = |value: &mut Tensor<f64>, hook: Hook| *value = self.clean[hook].clone();
        let ran = |run| {
            let done = self.model.run(&self.task.clean, run).unwrap();
            (done.logits, done.cache)
        };
        match self.held {
            Held::Nothing | Held::Layer(None) => ran(change(Run::new())),
            Held::Layer(Some(l)) => {
                let run = change(Run::new()).hook(Hook::AttnOut(l), own);
                ran(run.hook(Hook::MlpOut(l), own))
            }
            Held::Linear { patterns } => {
                let pre = Rc::new(RefCell::new(HashMap::new()));
                let met = Rc::clone(&pre);
                let keep = move |value: &mut Tensor<f64>, hook: Hook| {
                    met.borrow_mut().insert(hook, value.clone());
                };
                // What goes into the neurons now, times what their function had of it, less half of what both of two
                // factors would change.
                let neurons = move |value: &mut Tensor<f64>, hook: Hook| {
                    let Hook::Post(l) = hook else {
                        panic!("{hook}")
                    };
                    let (met, clean) = (pre.borrow(), &self.clean[hook]);
                    let (now, then) = (&met[&Hook::Pre(l)], &self.clean[Hook::Pre(l)]);
                    let gated = met.get(&Hook::PreLinear(l));
                    for i in 0..value.len() {
                        let (x, x0, y0) = (now.data()[i], then.data()[i], clean.data()[i]);
                        value.data_mut()[i] = match gated {
                            None => x * y0 / x0,
                            Some(gated) => {
                                let (u, u0) =
                                    (gated.data()[i], self.clean[Hook::PreLinear(l)].data()[i]);
                                y0 + 0.5 * (y0 * (x - x0) / x0 + y0 * (u - u0) / u0)
                            }
                        };
                    }
                };
                let mut run = Run::new()
                    .hook("*hook_scale", own)
                    .hook("*hook_pre", keep.clone());
                if self.model.config().gated() {
                    run = run.hook("*hook_pre_linear", keep);
                }
                run = run.hook("*hook_post", neurons);
                if patterns {
                    run = run.hook("*hook_pattern", own);
                }
                let done = self.model.run(&self.task.clean, change(run)).unwrap();
                (done.logits, done.cache)
            }
        }
    }

    /// The metric of each sequence, where a receiver sees `share` of what a sender writes otherwise in the corrupted run:
    /// the receiver's value is made in a run on that stream, and put into the clean one.
    fn each(&self, from: Sender, to: Receiver, share: f64) -> Vec<f64> {
        let (model, c) = (self.model, self.model.config());
        let mends =
            matches!(self.held, Held::Layer(_)) && matches!(to, Receiver::Q(_) | Receiver::K(_));
        let (own, other) = (
            written(model, self.clean, from),
            written(model, self.corrupt, from),
        );
        let differences = other.data().iter().zip(own.data());
        let seen = if mends { 1.0 } else { share };
        let by: Vec<f64> = differences.map(|(b, a)| seen * (b - a)).collect();
        let add = |value: &mut Tensor<f64>, _: Hook| {
            value
                .data_mut()
                .iter_mut()
                .zip(&by)
                .for_each(|(x, by)| *x += by);
        };
        let sequential = c.hooks().contains(&Hook::ResidMid(0));
        let has = |hook: Hook| c.hooks().contains(&hook);
        let first = |hooks: [Hook; 3]| *hooks.iter().find(|&&hook| has(hook)).unwrap();
        let logits = match to {
            Receiver::Logits => self.run(|run| run.hook(c.end_of_stream(), add)).0,
            Receiver::Mlp(l) => {
                let stream = if sequential {
                    Hook::ResidMid(l)
                } else {
                    Hook::ResidPre(l)
                };
                // The layer itself is never held where its own neurons read.
                let (_, seen) = self.run(|run| run.hook(stream, add).cache(Hook::MlpOut(l)));
                let set = |value: &mut Tensor<f64>, _: Hook| *value = seen[Hook::MlpOut(l)].clone();
                self.run(|run| run.hook(Hook::MlpOut(l), set)).0
            }
            Receiver::Q(head) | Receiver::K(head) | Receiver::V(head) => {
                let (l, h) = (head.layer, head.head);
                // As attention reads it.
                let (input, own) = match to {
                    Receiver::Q(_) => (
                        first([Hook::RotQ(l), Hook::Normalized(NormSite::Q(l)), Hook::Q(l)]),
                        h,
                    ),
                    Receiver::K(_) => (
                        first([Hook::RotK(l), Hook::Normalized(NormSite::K(l)), Hook::K(l)]),
                        c.group(h),
                    ),
                    _ => (Hook::V(l), c.group(h)),
                };
                let (_, seen) = self.run(|run| run.hook(Hook::ResidPre(l), add).cache(input));
                // Of keys and values that heads share, what this one makes of them alone.
                let set =
                    |value: &mut Tensor<f64>, hook: Hook| set_head(value, &seen[hook], own, 2);
                let (_, mut mixed) = self.run(|run| run.hook(input, set).cache(Hook::Z(l)));
                if mends {
                    let (all, clean) = (mixed[Hook::Z(l)].clone(), &self.clean[Hook::Z(l)]);
                    let values = all.data().iter().zip(clean.data());
                    let some = values.map(|(z, z0)| z0 + share * (z - z0)).collect();
                    let some = Tensor::from_vec(all.shape(), some);
                    mixed = Cache::new(vec![(Hook::Z(l), some)]);
                }
                let set = |value: &mut Tensor<f64>, hook: Hook| set_head(value, &mixed[hook], h, 2);
                self.run(|run| run.hook(Hook::Z(l), set)).0
            }
        };
        self.task.read_each(&logits)
    }

    /// What each sequence's metric changes by for so small a share of an edge, by a central difference, and how far that
    /// may be off.
    fn slopes(&self, from: Sender, to: Receiver) -> Vec<(f64, f64)> {
        let rounding = self.task.rounding(self.model);
        let h = rounding.cbrt();
        let at = |t| self.each(from, to, t);
        let slope = |h: f64| {
            let ends = at(h).into_iter().zip(at(-h));
            ends.map(|(a, b)| (a - b) / (2.0 * h)).collect::<Vec<f64>>()
        };
        // What halving changes is three quarters of what a central difference errs by.
        let pairs = slope(h).into_iter().zip(slope(h / 2.0));
        pairs
            .map(|(one, half)| (half, 2.0 * (one - half).abs() + 2.0 * rounding / h))
            .collect()
    }
}

/// The metric of a whole run with closures, with an edge patched.
fn with_closures(
    model: &Model<f64>,
    task: &Task,
    (clean, corrupt): (&Cache<f64>, &Cache<f64>),
    (from, to): (Sender, Receiver),
) -> f64 {
    let held = Held::Nothing;
    let closures = Closures {
        model,
        task,
        clean,
        corrupt,
        held,
    };
    mean(&closures.each(from, to, 1.0))
}

fn everything(model: &Model<f64>, tokens: &Tokens) -> Cache<f64> {
    model.run(tokens, Run::new().cache("*")).unwrap().cache
}

#[test]
fn exact_effects_are_those_of_whole_runs_with_closures() {
    for name in FAMILIES {
        let Some(model) = two_layers(name) else {
            return;
        };
        let task = Task::of(&model);
        exact_beside_closures(name, &model, &task, task.edges(&model));
    }
}

/// Sequential and parallel blocks, gates, norms over what neurons write.
const NEURONS: [&str; 4] = ["gpt2", "pythia", "llama3", "gemma2"];

#[test]
fn exact_effects_of_neurons_are_those_of_whole_runs_with_closures() {
    for name in NEURONS {
        let Some(model) = two_layers(name) else {
            return;
        };
        let task = Task::of(&model);
        let edges = task.edges(&model).neurons(&[0]).unwrap();
        exact_beside_closures(name, &model, &task, edges);
    }
}

fn exact_beside_closures(name: &str, model: &Model<f64>, task: &Task, edges: Edges<'_, f64>) {
    let found = edges.exact().unwrap();
    let (clean, corrupt) = (
        everything(model, &task.clean),
        everything(model, &task.corrupt),
    );
    let whole = task.read(&model.logits(&task.clean).unwrap());
    let bound = task.rounding(model);
    let (mut largest, mut farthest) = (0f64, 0f64);
    for (edge, effect) in edges.graph().edges().zip(&found) {
        let ends = (&clean, &corrupt);
        let expected = with_closures(model, task, ends, (edge.from, edge.to)) - whole;
        let off = (effect - expected).abs();
        assert!(
            off <= bound,
            "{name} {edge}: {effect} {expected}, {off:e} > {bound:e}"
        );
        (largest, farthest) = (largest.max(effect.abs()), farthest.max(off));
    }
    eprintln!(
        "{name}: {} edges, {farthest:.1e} off, of {largest:.2}",
        found.len()
    );
    assert!(
        largest > 1e6 * bound,
        "{name}: nothing is seen of {largest:e}"
    );
}

#[test]
fn circuits_of_all_edges_none_and_all_but_one_are_runs_that_are_known() {
    for name in FAMILIES {
        let Some(model) = two_layers(name) else {
            return;
        };
        let task = Task::of(&model);
        // Every seventh edge, so that each kind comes by.
        circuits_that_are_known(name, &model, &task, task.edges(&model), 7);
    }
}

#[test]
fn circuits_of_neurons_are_runs_that_are_known() {
    for name in NEURONS {
        let Some(model) = two_layers(name) else {
            return;
        };
        let task = Task::of(&model);
        let edges = task.edges(&model).neurons(&[0, 1]).unwrap();
        circuits_that_are_known(name, &model, &task, edges, 37);
    }
}

fn circuits_that_are_known(
    name: &str,
    model: &Model<f64>,
    task: &Task,
    edges: Edges<'_, f64>,
    every: usize,
) {
    let bound = task.rounding(model);
    let n = edges.graph().len();
    let [clean, corrupt] = edges.ends().unwrap();
    let of = |inside: &[bool]| edges.circuit(inside, Ablation::Corrupt).unwrap();
    let near = |a: f64, b: f64, what: &str| {
        assert!((a - b).abs() <= bound, "{name}, {what}: {a} {b}, {bound:e}");
    };
    near(of(&vec![true; n]), clean, "all edges");
    near(of(&vec![false; n]), corrupt, "no edge");
    assert!(
        (clean - corrupt).abs() > 1e6 * bound,
        "{name}: {clean} {corrupt}"
    );
    let effects = edges.exact().unwrap();
    for i in (0..n).step_by(every) {
        let mut inside = vec![true; n];
        inside[i] = false;
        near(
            of(&inside) - clean,
            effects[i],
            &edges.graph().edge(i).to_string(),
        );
    }
}

/// A layer's neurons taken together are what their senders are one by one: the derivative is the same, and linear.
#[test]
fn attributions_of_neurons_add_up_to_those_of_their_layer() {
    for name in NEURONS {
        let Some(model) = two_layers(name) else {
            return;
        };
        let task = Task::of(&model);
        let whole = task.edges(&model);
        let each = task.edges(&model).neurons(&[0]).unwrap();
        for at in [Attribution::Eap, Attribution::Inputs { steps: 2 }] {
            let (all, parts) = (
                whole.attribution(at).unwrap(),
                each.attribution(at).unwrap(),
            );
            let mut sums: HashMap<(Receiver, bool), (f64, f64)> = HashMap::new();
            for (edge, score) in whole.graph().edges().zip(all) {
                let own = edge.from == Sender::Mlp(0);
                sums.entry((edge.to, own)).or_default().0 += score;
            }
            for (edge, score) in each.graph().edges().zip(parts) {
                let own = matches!(edge.from, Sender::Neuron { layer: 0, .. });
                sums.entry((edge.to, own)).or_default().1 += score;
            }
            let bound = task.rounding(&model);
            let largest = sums.values().fold(0f64, |most, sum| most.max(sum.0.abs()));
            assert!(largest > 1e6 * bound, "{name}: nothing is seen");
            for ((to, _), (whole, parts)) in sums {
                assert!(
                    (whole - parts).abs() <= bound,
                    "{name} {to}: {whole} {parts}, {bound:e}"
                );
            }
        }
    }
}

/// Scores beside what closures say of every fifth edge, so that each kind comes by: the value, and how far it may be off.
fn scores_beside(
    model: &Model<f64>,
    name: &str,
    at: Attribution,
    of: impl Fn(&Closures<'_>, Edge) -> (f64, f64),
) {
    let task = Task::of(model);
    let edges = task.edges(model);
    let found = edges.attribution(at).unwrap();
    let (clean, corrupt) = (
        everything(model, &task.clean),
        everything(model, &task.corrupt),
    );
    let closures = Closures {
        model,
        task: &task,
        clean: &clean,
        corrupt: &corrupt,
        held: Held::Nothing,
    };
    let (mut largest, mut loosest) = (0f64, 0f64);
    for i in (0..found.len()).step_by(5) {
        let edge = edges.graph().edge(i);
        let (expected, bound) = of(&closures, edge);
        let off = (found[i] - expected).abs();
        assert!(
            off <= bound,
            "{name}, {at:?}, {edge}: {} {expected}, {off:e} > {bound:e}",
            found[i]
        );
        (largest, loosest) = (largest.max(expected.abs()), loosest.max(bound));
    }
    assert!(
        largest > 1e3 * loosest,
        "{name}: nothing is seen of {largest:e} within {loosest:e}"
    );
}

/// The mean of numbers that are known so far.
fn mean_of(values: &[(f64, f64)]) -> (f64, f64) {
    let mean =
        |of: fn(&(f64, f64)) -> f64| values.iter().map(of).sum::<f64>() / values.len() as f64;
    (mean(|v| v.0), mean(|v| v.1))
}

/// The derivative of the metric along each edge's patch, beside differences of whole runs with closures.
#[test]
fn attribution_patching_is_the_derivative_along_the_patch() {
    for name in FAMILIES {
        let Some(model) = two_layers(name) else {
            return;
        };
        scores_beside(&model, name, Attribution::Eap, |closures, edge| {
            mean_of(&closures.slopes(edge.from, edge.to))
        });
    }
}

/// The same of a model that relevance is passed back in: linear at the clean run, but for attention where it is not held.
#[test]
fn relevance_patching_is_the_derivative_of_a_linear_model() {
    for name in FAMILIES {
        let Some(model) = two_layers(name) else {
            return;
        };
        for hold_patterns in [true, false] {
            let held = Held::Linear {
                patterns: hold_patterns,
            };
            scores_beside(
                &model,
                name,
                Attribution::Relp { hold_patterns },
                |closures, edge| {
                    let closures = Closures { held, ..*closures };
                    mean_of(&closures.slopes(edge.from, edge.to))
                },
            );
        }
    }
}

/// Sizes of derivatives along what the head mixes otherwise, with what a layer writes held in runs with closures; averaged
/// over the layers but the receiver's own.
#[test]
fn atp_star_is_the_mean_of_derivatives_with_layers_held() {
    // Three layers of each take long: every other family has all kinds of blocks.
    for name in FAMILIES.into_iter().step_by(2) {
        let Some(model) = first_layers(name, 3) else {
            return;
        };
        scores_beside(&model, name, Attribution::AtpStar, |closures, edge| {
            let own = match edge.to {
                Receiver::Q(head) | Receiver::K(head) | Receiver::V(head) => Some(head.layer),
                Receiver::Mlp(l) => Some(l),
                Receiver::Logits => None,
            };
            let sizes: Vec<(f64, f64)> = (0..3)
                .filter(|&l| own != Some(l))
                .flat_map(|l| {
                    let held = Held::Layer(Some(l));
                    Closures { held, ..*closures }.slopes(edge.from, edge.to)
                })
                .map(|(slope, bound)| (slope.abs(), bound))
                .collect();
            mean_of(&sizes)
        });
    }
}

/// In a model of one layer there is no other to leave out: derivatives as they are, and of queries and keys along what the
/// head mixes otherwise.
#[test]
fn atp_star_of_one_layer_leaves_none_out() {
    let Some(model) = first_layers("gpt2", 1) else {
        return;
    };
    scores_beside(&model, "gpt2", Attribution::AtpStar, |closures, edge| {
        let held = Held::Layer(None);
        let slopes = Closures { held, ..*closures }.slopes(edge.from, edge.to);
        let sizes: Vec<(f64, f64)> = slopes
            .into_iter()
            .map(|(x, bound)| (x.abs(), bound))
            .collect();
        mean_of(&sizes)
    });
}

/// A shard's work, broken off and gone on from what was kept, merged: the bits of the whole.
#[test]
fn work_in_shards_and_broken_off_is_the_whole_work() {
    let model = fixture::induction::<f64>();
    let clean = fixture::repeated_sequences(3, 4, 1);
    let corrupt = fixture::repeated_sequences(3, 4, 2);
    let answers = Answers::next_tokens(&clean, &[5, 6]).unwrap();
    let edges = Edges::new(&model, &clean, &corrupt, &answers, &Standard::Loss).unwrap();
    let graph = edges.graph();
    let whole = edges.exact().unwrap();
    let mut merged = vec![None; graph.len()];
    for i in 0..3 {
        let mut work = ExactWork::shard(graph, i, 3);
        let mut left = 4;
        let mut kept = None;
        let broken = edges.exact_on(&mut work, &mut |work| {
            left -= 1;
            kept = Some(serde_json::to_string(work).unwrap());
            match left {
                0 => Err(pathsum::Error::Experiment("killed".into())),
                _ => Ok(()),
            }
        });
        assert!(broken.is_err());
        let mut work: ExactWork = serde_json::from_str(&kept.unwrap()).unwrap();
        assert!(work.left(graph, 3) > 0);
        edges.exact_on(&mut work, &mut |_| Ok(())).unwrap();
        assert_eq!(work.left(graph, 3), 0);
        for (to, effect) in merged.iter_mut().zip(work.effects(graph, 3)) {
            assert!(to.is_none() || effect.is_none(), "an edge in two shards");
            *to = to.or(effect);
        }
    }
    let merged: Vec<f64> = merged.into_iter().map(Option::unwrap).collect();
    assert_eq!(merged, whole);
}

/// The integral of the derivatives is the change, where the metric is read through one edge alone; and midpoints of the
/// others come between.
#[test]
fn integrated_gradients_take_derivatives_at_the_published_shares() {
    let Some(model) = two_layers("gpt2") else {
        return;
    };
    let task = Task::of(&model);
    let edges = task.edges(&model);
    // One step by inputs is attribution at the corrupted embeddings, one by activations at the clean run but for the cuts:
    // an edge into the logits from the last layer's neurons has no other way to be cut.
    let one = edges.attribution(Attribution::Inputs { steps: 1 }).unwrap();
    let swapped = Edges::new(
        &model,
        &task.corrupt,
        &task.clean,
        &task.answers,
        &task.metric,
    )
    .unwrap();
    let there = swapped.attribution(Attribution::Eap).unwrap();
    let bound = task.rounding(&model);
    for (edge, (a, b)) in edges.graph().edges().zip(one.iter().zip(&there)) {
        assert!((a + b).abs() <= bound * (1.0 + a.abs()), "{edge}: {a} {b}");
    }
    let few = edges.attribution(Attribution::Inputs { steps: 4 }).unwrap();
    let many = edges
        .attribution(Attribution::Inputs { steps: 64 })
        .unwrap();
    let exact = edges.exact().unwrap();
    let off =
        |found: &[f64]| -> f64 { found.iter().zip(&exact).map(|(a, b)| (a - b).powi(2)).sum() };
    assert!(few != many && off(&many) < off(&edges.attribution(Attribution::Eap).unwrap()));
}

/// Three corruptions of one sequence that is repeated: of the token that is found again, of the one that looks for it, and of
/// the one that is copied.
fn corruptions(clean: &[i64], found: usize, looks: usize) -> [Tokens; 2] {
    let unused = (0..16).find(|t| !clean.contains(t)).unwrap();
    let with = |p: usize| {
        let mut row = clean.to_vec();
        row[p] = unused;
        row
    };
    let corrupt = [with(found), with(looks), with(found + 1)];
    [[(); 3].map(|()| clean.to_vec()), corrupt].map(|rows| Tokens::from_rows(&rows))
}

/// On the models whose circuit was built, how each method ranks its edges; the exact one puts them first, and nothing else
/// does anything.
#[test]
fn the_constructed_circuits_come_first() {
    let known = [
        "input->a0.h0<v>",
        "a0.h0->a1.h0<k>",
        "input->a1.h0<q>",
        "input->a1.h0<v>",
        "a1.h0->logits",
    ];
    let learned = (fixture::induction::<f64>(), vec![7, 3, 9, 2, 7], 0, 4);
    let rotary = (
        fixture::rotary_induction::<f64>(),
        vec![16, 7, 3, 9, 2, 7],
        1,
        5,
    );
    for (name, (model, clean, found, looks)) in [("learned", learned), ("rotary", rotary)] {
        let [clean, corrupt] = corruptions(&clean, found, looks);
        let answers = Answers::new(&[looks], vec![3; 3]);
        let metric = Standard::Difference(3, 9);
        let edges = Edges::new(&model, &clean, &corrupt, &answers, &metric).unwrap();
        let [at_clean, at_corrupt] = edges.ends().unwrap();
        assert!(
            at_clean > 11.0 && at_corrupt < 1.0,
            "{name}: {at_clean} {at_corrupt}"
        );
        let is_known = |i: usize| known.contains(&edges.graph().edge(i).to_string().as_str());
        let first = |scores: &[f64]| {
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| scores[b].abs().total_cmp(&scores[a].abs()));
            order
                .iter()
                .take(known.len())
                .filter(|&&i| is_known(i))
                .count()
        };
        let exact = edges.exact().unwrap();
        // What a key that is not looked for has of the attention moves a logit of 12 by so much.
        let small = 12.0 * 16.0 * (-24f64).exp();
        for (i, &effect) in exact.iter().enumerate() {
            let edge = edges.graph().edge(i);
            match is_known(i) {
                true => assert!(effect < -1.0, "{name} {edge}: {effect}"),
                false => assert!(effect.abs() < small, "{name} {edge}: {effect}"),
            }
        }
        assert_eq!(first(&exact), known.len());
        // How many of the five come first, with learned positions and with rotary ones: docs/edges.md tells it.
        let relp = |hold_patterns| Attribution::Relp { hold_patterns };
        let methods = [
            (Attribution::Eap, [3, 3]),
            (Attribution::Inputs { steps: 16 }, [5, 4]),
            (Attribution::Activations { steps: 16 }, [5, 3]),
            (Attribution::AtpStar, [4, 4]),
            (relp(true), [3, 3]),
            (relp(false), [5, 5]),
        ];
        for (at, found) in methods {
            let scores = edges.attribution(at).unwrap();
            let expected = found[usize::from(name == "rotary")];
            assert_eq!(first(&scores), expected, "{name}, {at:?}");
        }
    }
}

#[test]
fn what_does_not_go_together_is_said() {
    let model = fixture::induction::<f64>();
    let (clean, corrupt) = (
        Tokens::from_rows(&[[1, 2, 3]]),
        Tokens::from_rows(&[[1, 2, 3, 4]]),
    );
    let answers = Answers::new(&[2], vec![3]);
    let new = |corrupt, metric: &dyn Metric| {
        Edges::new(&model, &clean, corrupt, &answers, metric)
            .err()
            .map(|e| e.to_string())
    };
    let said = new(&corrupt, &Standard::Loss).unwrap();
    assert_eq!(
        said,
        "the corrupted sequences are [1, 4] tokens, expected [1, 3], as the clean ones are"
    );
    let edges = Edges::new(&model, &clean, &clean, &answers, &Standard::Accuracy).unwrap();
    assert!(edges.attribution(Attribution::Eap).is_err());
    assert!(edges.attribution(Attribution::Inputs { steps: 0 }).is_err());
    assert!(edges.circuit(&[true], Ablation::Zero).is_err());
    // The same sequences: nothing happens anywhere.
    assert!(edges.exact().unwrap().iter().all(|&effect| effect == 0.0));
}
