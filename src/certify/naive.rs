//! The tables, and what the checker's balls say, held to the definition evaluated naively in exact rationals.

use super::OneLayer;
use super::check::ranges as checker;
use crate::diagram::{ActFn, Positions};
use crate::diagram::{Config, Mask, MlpKind, NormKind, NormWeight};
use crate::model::{Model, Weights};
use crate::names::{Head, NormSite};
use crate::tensor::Tensor;
use faer::MatRef;
use num_rational::BigRational as Q;
use num_traits::{FromPrimitive, One, Signed, ToPrimitive, Zero};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// Bits behind the point, where roots and exponentials are cut off.
const BITS: usize = 100;

/// Between two rationals.
#[derive(Clone, Debug)]
pub(super) struct Exact(Q, Q);

fn unit() -> &'static Q {
    static UNIT: std::sync::LazyLock<Q> = std::sync::LazyLock::new(|| {
        let two = Q::from_u8(2).unwrap();
        Q::one() / (0..BITS).fold(Q::one(), |x, _| x * &two)
    });
    &UNIT
}

impl Exact {
    pub(super) fn of(x: f64) -> Exact {
        let x = Q::from_float(x).unwrap();
        Exact(x.clone(), x)
    }
    /// With fewer digits, outward.
    fn shorter(self) -> Exact {
        Exact(
            (self.0 / unit()).floor() * unit(),
            (self.1 / unit()).ceil() * unit(),
        )
    }
    fn plus(&self, b: &Exact) -> Exact {
        Exact(&self.0 + &b.0, &self.1 + &b.1)
    }
    fn minus(&self, b: &Exact) -> Exact {
        Exact(&self.0 - &b.1, &self.1 - &b.0)
    }
    fn times(&self, b: &Exact) -> Exact {
        let all = [
            &self.0 * &b.0,
            &self.0 * &b.1,
            &self.1 * &b.0,
            &self.1 * &b.1,
        ];
        let [lo, hi] = [all.iter().min(), all.iter().max()].map(|x| x.unwrap().clone());
        Exact(lo, hi).shorter()
    }
    /// Over what is above zero.
    fn over(&self, b: &Exact) -> Exact {
        assert!(b.0.is_positive());
        self.times(&Exact(Q::one() / &b.1, Q::one() / &b.0))
    }
    /// By bisection.
    fn root(&self) -> Exact {
        let below = |x: &Q| {
            let (mut lo, mut hi) = (Q::zero(), Q::one() + x);
            while &hi - &lo > *unit() {
                let middle = (&lo + &hi) / Q::from_u8(2).unwrap();
                if &middle * &middle <= *x {
                    lo = middle
                } else {
                    hi = middle
                }
            }
            lo
        };
        Exact(below(&self.0), below(&self.1) + unit())
    }
    /// By Taylor's sum of more terms than three times the number: what is left out is below twice the last.
    pub(super) fn exp(&self) -> Exact {
        let most = self.0.abs().max(self.1.abs());
        let enough = 50 + 3 * most.to_usize().unwrap();
        let (mut sum, mut term, mut size) = (Exact::of(1.0), Exact::of(1.0), Q::one());
        for n in 1..=enough {
            let n = Q::from_usize(n).unwrap();
            term = term.times(&Exact(Q::one() / &n, Q::one() / &n)).times(self);
            size = size * &most / n;
            sum = sum.plus(&term);
        }
        let rest = size * Q::from_u8(2).unwrap();
        Exact(sum.0 - &rest, sum.1 + rest).shorter()
    }
    /// Whether some number of it is between these, and these are near each other: a quarter of the digits, at the least.
    pub(super) fn agrees(&self, lo: f64, hi: f64) -> bool {
        let near = f64::EPSILON.sqrt().sqrt() * (1.0 + lo.abs() + hi.abs());
        hi - lo <= near && self.is_within(lo, hi)
    }
    pub(super) fn is_within(&self, lo: f64, hi: f64) -> bool {
        let [lo, hi] = [lo, hi].map(|x| Q::from_float(x).unwrap());
        lo <= self.1 && self.0 <= hi
    }
}

type Row = Vec<Exact>;

fn row(x: &[f64]) -> Row {
    x.iter().map(|&x| Exact::of(x)).collect()
}

fn sum(x: impl Iterator<Item = Exact>) -> Exact {
    x.fold(Exact::of(0.0), |sum, x| sum.plus(&x))
}

fn plus(x: &Row, y: &Row) -> Row {
    x.iter().zip(y).map(|(x, y)| x.plus(y)).collect()
}

fn map(x: &Row, W: MatRef<'_, f64>, b: &[f64]) -> Row {
    let entry = |j: usize| {
        sum(x
            .iter()
            .enumerate()
            .map(|(i, x)| x.times(&Exact::of(W[(i, j)]))))
    };
    let all: Row = (0..W.ncols()).map(entry).collect();
    if b.is_empty() {
        all
    } else {
        plus(&all, &row(b))
    }
}

/// A model, naively.
pub(super) struct Naive<'a>(&'a Model<f64>);

impl Naive<'_> {
    fn config(&self) -> &Config {
        self.0.config()
    }
    fn embedded(&self, t: usize, j: usize) -> Row {
        let w = self.0.weights();
        plus(&row(w.W_E.slice(&[t])), &row(w.W_pos.slice(&[j])))
    }
    fn centred(&self, x: &Row) -> Row {
        if !self.config().norm.is_some_and(|n| n.centred) {
            return x.clone();
        }
        let mean = sum(x.iter().cloned()).over(&Exact::of(x.len() as f64));
        x.iter().map(|x| x.minus(&mean)).collect()
    }
    fn sigma(&self, x: &Row) -> Exact {
        let squares = sum(self.centred(x).iter().map(|x| x.times(x)));
        let mean = squares.over(&Exact::of(x.len() as f64));
        mean.plus(&Exact::of(self.config().eps)).root()
    }
    /// A norm's output times what it divides by, without its bias; and the bias.
    fn parts(&self, site: NormSite, x: &Row) -> (Row, Row) {
        let own = self.0.weights().norms.get(&site);
        let weight = |i: usize| match (self.config().norm.map(|n| n.weight), own) {
            (Some(NormWeight::Plain), Some(own)) => Exact::of(own.w.data()[i]),
            (Some(NormWeight::OnePlus), Some(own)) => {
                Exact::of(own.w.data()[i]).plus(&Exact::of(1.0))
            }
            _ => Exact::of(1.0),
        };
        let bias = |i: usize| match own.and_then(|own| own.b.as_ref()) {
            Some(b) => Exact::of(b.data()[i]),
            None => Exact::of(0.0),
        };
        let scaled = self
            .centred(x)
            .iter()
            .enumerate()
            .map(|(i, x)| x.times(&weight(i)))
            .collect();
        (scaled, (0..x.len()).map(bias).collect())
    }
    fn norm(&self, site: NormSite, x: &Row) -> Row {
        if self.config().norm.is_none() {
            return x.clone();
        }
        let (scaled, bias) = self.parts(site, x);
        let sigma = self.sigma(x);
        plus(&scaled.iter().map(|x| x.over(&sigma)).collect(), &bias)
    }
    fn read_out(&self, x: &Row) -> Row {
        map(
            &self.parts(NormSite::Final, x).0,
            self.0.weights().W_U.rows(),
            &[],
        )
    }
    /// Queries, keys and values.
    fn projected(&self, h: Head, x: &Row) -> [Row; 3] {
        let w = self.0.weights();
        let n = self.norm(NormSite::Ln1(h.layer), x);
        [
            map(&n, w.W_Q(h), w.b_Q(h)),
            map(&n, w.W_K(h), w.b_K(h)),
            map(&n, w.W_V(h), w.b_V(h)),
        ]
    }
    fn score(&self, q: &Row, k: &Row) -> Exact {
        let products = q.iter().zip(k).map(|(q, k)| q.times(k));
        sum(products).over(&Exact::of(self.config().attn_scale))
    }
    /// The stream at the end, of all positions.
    fn stream(&self, tokens: &[i64]) -> Vec<Row> {
        let (c, w) = (self.config(), self.0.weights());
        let embedded = tokens
            .iter()
            .enumerate()
            .map(|(j, &t)| self.embedded(t as usize, j));
        let mut x: Vec<Row> = embedded.collect();
        for l in 0..c.n_layers {
            let mut next: Vec<Row> = x
                .iter()
                .map(|x| plus(x, &row(w.blocks[l].attn.b_O.data())))
                .collect();
            for h in (0..c.n_heads).map(|head| Head { layer: l, head }) {
                let own: Vec<[Row; 3]> = x.iter().map(|x| self.projected(h, x)).collect();
                for p in 0..x.len() {
                    let seen = if c.mask == Mask::Causal {
                        p + 1
                    } else {
                        x.len()
                    };
                    let scores = (0..seen).map(|j| self.score(&own[p][0], &own[j][1]));
                    let scores: Row = scores.collect();
                    // A pattern does not change by what is taken off all of its scores.
                    let most = scores.iter().map(|s| &s.0).max().unwrap();
                    let most = Exact(most.clone(), most.clone());
                    let e: Row = scores.iter().map(|s| s.minus(&most).exp()).collect();
                    let all = sum(e.iter().cloned());
                    let mixed =
                        |i: usize| sum((0..seen).map(|j| e[j].times(&own[j][2][i]))).over(&all);
                    let z: Row = (0..c.d_head).map(mixed).collect();
                    next[p] = plus(&next[p], &map(&z, w.W_O(h), &[]));
                }
            }
            x = next;
            let Some(mlp) = &w.blocks[l].mlp else {
                continue;
            };
            for x in &mut x {
                let pre = map(
                    &self.norm(NormSite::Ln2(l), x),
                    mlp.W_in.rows(),
                    mlp.b_in.data(),
                );
                let post = pre
                    .into_iter()
                    .map(|x| Exact(x.0.max(Q::zero()), x.1.max(Q::zero())));
                *x = plus(x, &map(&post.collect(), mlp.W_out.rows(), mlp.b_out.data()));
            }
        }
        x
    }
    fn logits(&self, x: &Row) -> Row {
        let w = self.0.weights();
        map(&self.norm(NormSite::Final, x), w.W_U.rows(), w.b_U.data())
    }
}

/// Small models of every norm and mask, their weights eighths so that they are short.
fn models(n_layers: usize, mlp: Option<usize>, widths: (usize, usize)) -> Vec<Model<f64>> {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let norms = [
        None,
        Some(NormKind::LN),
        Some(NormKind::LN_PRE),
        Some(NormKind::RMS),
    ];
    let one_plus = NormKind {
        weight: NormWeight::OnePlus,
        ..NormKind::RMS
    };
    let mut all = Vec::new();
    for (i, norm) in norms.into_iter().chain([Some(one_plus)]).enumerate() {
        let config = Config {
            n_layers,
            n_heads: 2,
            groups: 1 + i % 2,
            d_model: widths.0,
            d_head: widths.1,
            n_ctx: 2,
            d_vocab: 2,
            d_vocab_out: 3,
            positions: Positions::Learned,
            norm,
            mask: if i % 2 == 0 { Mask::Causal } else { Mask::All },
            attn_scale: 1.5,
            mlp: mlp.map(|d_mlp| MlpKind {
                d_mlp,
                act_fn: ActFn::Relu,
                gated: false,
                gate_bias: false,
            }),
            ..Config::default()
        };
        let weights = Weights::build(&config, |_, shape| {
            Ok(Tensor::from_fn(shape, |_| {
                f64::from(rng.random_range(-8..=8)) / 8.0
            }))
        });
        all.push(Model::new(config, weights.unwrap()).unwrap());
    }
    all
}

#[test]
fn tables_are_what_the_definition_says() {
    for model in models(1, None, (3, 2)) {
        let (naive, tables, c) = (
            Naive(&model),
            OneLayer::new(&model, 2).unwrap(),
            model.config(),
        );
        let own = checker::tables(&model, 2);
        let places = || (0..2usize).flat_map(|j| (0..2usize).map(move |t| (t, j)));
        let close = |exact: &Exact, interval: super::Interval, ball: (f64, f64), what: &str| {
            assert!(
                exact.agrees(interval.lo, interval.hi),
                "{what} of the search: {interval:?} {exact:?} {:?}",
                c.norm
            );
            assert!(
                exact.agrees(ball.0, ball.1),
                "{what} of the checker: {ball:?} {exact:?} {:?}",
                c.norm
            );
        };
        for (t, j) in places() {
            let x = naive.embedded(t, j);
            let with_bias = plus(&x, &row(model.weights().blocks[0].attn.b_O.data()));
            for (class, exact) in naive.read_out(&with_bias).iter().enumerate() {
                close(
                    exact,
                    tables.direct(t, j)[class],
                    own.direct((t, j), class),
                    "direct",
                );
            }
            for head in 0..c.n_heads {
                let h = Head { layer: 0, head };
                let [q, _, v] = naive.projected(h, &x);
                let written = map(&v, model.weights().W_O(h), &[]);
                for (class, exact) in naive.read_out(&written).iter().enumerate() {
                    close(
                        exact,
                        tables.ov(head, t, j)[class],
                        own.ov(head, (t, j), class),
                        "ov",
                    );
                }
                for (exact, x) in naive
                    .centred(&written)
                    .iter()
                    .zip(tables.stream(head, t, j))
                {
                    assert!(exact.agrees(x.lo, x.hi), "stream: {x:?} {exact:?}");
                }
                // Weights are known up to a factor, of which the tables say only that it is the same for all keys.
                let weights = (tables.exponentials((t, j)), own.weights((t, j), head));
                let seen: Vec<_> = places()
                    .filter(|key| c.mask == Mask::All || key.1 <= j)
                    .collect();
                let key =
                    |(t, j): (usize, usize)| naive.projected(h, &naive.embedded(t, j))[1].clone();
                let scores: Vec<Exact> = seen.iter().map(|&at| naive.score(&q, &key(at))).collect();
                let largest = |all: &dyn Fn((usize, usize)) -> (f64, f64)| {
                    seen.iter()
                        .map(|&at| all(at))
                        .fold(f64::MIN, |most, (lo, hi)| most.max(0.5 * lo + 0.5 * hi))
                };
                let score = |at: (usize, usize)| tables.score(head, (t, j), at);
                let own_score = |at: (usize, usize)| own.score(head, (t, j), at);
                let shift = largest(&|at| (score(at).lo, score(at).hi));
                let own_shift = largest(&own_score);
                for (&at, exact) in seen.iter().zip(&scores) {
                    close(exact, score(at), own_score(at), "score");
                    let e = weights.0[tables.key(head, at.0, at.1)];
                    let shifted = |by: f64| exact.minus(&Exact::of(by)).exp();
                    assert!(shifted(shift).is_within(e.lo, e.hi), "{e:?} {exact:?}");
                    let (lo, hi) = weights.1(at);
                    // The middle of the largest score is a rounding from what it was asked for here.
                    let off = 1.0 + 4.0 * f64::EPSILON * (1.0 + own_shift.abs());
                    assert!(
                        shifted(own_shift).is_within(lo / off, hi * off),
                        "{lo} {hi} {exact:?}"
                    );
                }
            }
        }
        let bias = naive.parts(NormSite::Final, &row(&[0.0; 3])).1;
        let bias = if c.norm.is_some() {
            bias
        } else {
            row(&[0.0; 3])
        };
        let bias = map(
            &bias,
            model.weights().W_U.rows(),
            model.weights().b_U.data(),
        );
        for (class, exact) in bias.iter().enumerate() {
            close(exact, tables.bias[class], own.bias(class), "bias");
        }
        // σ of every input is where both say.
        for (a, b) in [(0, 1), (1, 1)] {
            for (j, x) in naive.stream(&[a, b]).iter().enumerate() {
                let query = ([a, b][j] as usize, j);
                let exact = if c.norm.is_some() {
                    naive.sigma(x)
                } else {
                    Exact::of(1.0)
                };
                let (s, (lo, hi)) = (tables.sigma(query), own.sigma(query));
                assert!(
                    exact.is_within(s.lo, s.hi) && exact.is_within(lo, hi),
                    "{s:?} {lo} {hi} {exact:?}"
                );
            }
        }
    }
}

#[test]
fn the_checkers_runs_are_what_the_definition_says() {
    // Narrower than what is summed in one pass, and not a multiple of it.
    let (narrow, wide) = ((3, 2), (9, 11));
    for (n_layers, mlp, widths) in [
        (1, None, narrow),
        (1, Some(3), narrow),
        (2, Some(2), narrow),
        (1, Some(10), wide),
    ] {
        for model in models(n_layers, mlp, widths) {
            let naive = Naive(&model);
            // Each lane has an input of its own.
            let inputs = [[0, 1], [1, 1], [1, 0], [0, 0], [1, 1]];
            let found = checker::logits(&model, &inputs.map(Vec::from));
            assert_eq!(found.len(), inputs.len());
            for (tokens, found) in inputs.iter().zip(found) {
                for (x, balls) in naive.stream(tokens).iter().zip(found) {
                    for (exact, (lo, hi)) in naive.logits(x).iter().zip(balls) {
                        assert!(exact.agrees(lo, hi), "{tokens:?}: {lo} {hi} {exact:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_checkers_exponentials_are_what_the_definition_says() {
    let near = [0.0, 0.1, 0.3465, 0.3466, 1.0, 2.5, 8.25];
    for x in near.into_iter().flat_map(|x| [x, -x]) {
        for off in [0.0, 0.5] {
            let (lo, hi) = checker::exp(x, off);
            for x in [x - off, x, x + off] {
                // Of a number below zero as one over that of its size, so that no digits are cut off.
                let size = Exact::of(x.abs()).exp();
                let exact = match x < 0.0 {
                    true => Exact(Q::one() / &size.1, Q::one() / &size.0),
                    false => size,
                };
                assert!(exact.is_within(lo, hi), "e^{x}: {lo} {hi}");
            }
            let width = 2.0 * (off + off * off) + 4.0 * (40.0 + x.abs()) * f64::EPSILON;
            assert!(hi - lo <= width * hi, "e^{x}: {lo} {hi}");
        }
    }
    // What is larger is the square of half.
    for x in [699.9, 431.7].into_iter().flat_map(|x| [x, -x]) {
        let mut x = x;
        while x.abs() > 8.0 {
            let ((lo, hi), half) = (checker::exp(x, 0.0), checker::exp(x / 2.0, 0.0));
            let up = 1.0 + 4.0 * f64::EPSILON;
            assert!(
                lo <= half.1 * half.1 * up && half.0 * half.0 <= hi * up,
                "e^{x}"
            );
            // Every radius has the least number besides, for what underflows.
            let width = 8.0 * (40.0 + x.abs()) * f64::EPSILON * hi + 4.0 * f64::MIN_POSITIVE;
            assert!(hi - lo <= width, "e^{x}: {lo} {hi}");
            x /= 2.0;
        }
    }
    let (lo, hi) = checker::exp(-800.0, 10.0);
    assert!(lo <= 0.0 && hi > 0.0 && hi <= 2f64.powi(-999));
    // Nothing is known of what is too large, too far off, or no number.
    for (x, off) in [
        (701.0, 0.0),
        (f64::NAN, 0.0),
        (0.0, f64::NAN),
        (-690.0, 20.0),
        (0.0, 1.5),
        (f64::INFINITY, 0.0),
    ] {
        assert_eq!(
            checker::exp(x, off),
            (f64::NEG_INFINITY, f64::INFINITY),
            "{x} {off}"
        );
    }
}

/// What a matrix lengthens a vector by: no less than it is, and no more than entries' number to the 1/32 above it, and than
/// the roundings of sums that are squared four times, each of which doubles what they are off by, and then rooted.
#[test]
fn the_checkers_norms_are_no_less_than_they_are() {
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    for (rows, columns) in [(1, 1), (3, 7), (7, 3), (8, 8)] {
        let rounded = 1.0 + (16 * (rows + columns + 16)) as f64 * f64::EPSILON;
        let (a, b): (Vec<f64>, Vec<f64>) = (
            (0..rows).map(|_| rng.random_range(-2.0..2.0)).collect(),
            (0..columns).map(|_| rng.random_range(-2.0..2.0)).collect(),
        );
        let length = |x: &[f64]| sum(x.iter().map(|&x| Exact::of(x).times(&Exact::of(x)))).root();
        // Of one rank both are the product of the lengths; the entries' roundings are of that, too.
        let product = length(&a).times(&length(&b));
        let entries: Vec<f64> = a
            .iter()
            .flat_map(|a| b.iter().map(move |b| a * b))
            .collect();
        for bound in checker::norm(MatRef::from_row_major_slice(&entries, rows, columns)) {
            let bound = Q::from_float(bound * (1.0 + 2.0 * f64::EPSILON)).unwrap();
            let most = Q::from_float(rounded).unwrap();
            assert!(bound >= product.0 && bound <= &product.1 * &most);
        }
        // Three times the identity, with no more columns or rows than needed.
        let unit = |i: usize| if i / columns == i % columns { 3.0 } else { 0.0 };
        let unit: Vec<f64> = (0..rows * columns).map(unit).collect();
        let [most, _] = checker::norm(MatRef::from_row_major_slice(&unit, rows, columns));
        let above = (rows.min(columns) as f64).powf(1.0 / 32.0) * rounded;
        assert!((3.0..=3.0 * above).contains(&most), "{most}");
    }
}
