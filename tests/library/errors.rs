//! What is wrong has a kind that a program can match, with what the program needs to go on.

use pathsum::decompose::{By, Logit, Paths, Score, residual_stack, score_parts, summary};
use pathsum::eval::Circuit;
use pathsum::intervene::{self, Change, Grid, Intervention, Part, Scope, Site, SweepResult};
use pathsum::linalg::pca;
use pathsum::metric::{Answers, Metric, Standard};
use pathsum::plan::Form;
use pathsum::{Error, Head, Hook, Par, Run, RunOutput, Tokens, fixture};

fn run() -> (pathsum::Model<f64>, RunOutput<f64>) {
    let model = fixture::induction::<f64>();
    let out = model.run(&Tokens::from_rows(&[[7, 3, 9, 7]]), Run::new().cache("*"));
    let out = out.unwrap();
    (model, out)
}

macro_rules! assert_kind {
    ($result:expr, $kind:pat $(if $guard:expr)?) => {
        match $result.err().expect("refused") {
            $kind $(if $guard)? => {}
            other => panic!("{other:?}"),
        }
    };
}

#[test]
fn what_the_model_or_the_run_lacks() {
    let (model, out) = run();
    let hook = |h| Intervention::new(h, Part::all(), Change::Zero);
    let intervened =
        |i| intervene::intervene(Run::new(), &model, &out.tokens, &[i], None).map(|_| ());
    assert_kind!(intervened(hook(Hook::MlpOut(0))), Error::NotInModel(what) if what == "`blocks.0.hook_mlp_out`");
    assert_kind!(
        Circuit::parse("pattern[0.0]", &model)
            .unwrap()
            .dense(Par::Seq),
        Error::NeedsRun(_)
    );
    let plain = model.run(&out.tokens, Run::new().cache("hook_embed"));
    assert_kind!(
        Paths::<f64>::new(&model, &plain.unwrap().cache, 0, Par::Seq),
        Error::NotCached(Hook::PosEmbed)
    );
    let head = Head { layer: 2, head: 0 };
    let score = Score {
        head,
        query: 3,
        key: 1,
    };
    assert_kind!(
        score_parts(&model, &out.cache, 0, score, By::Head),
        Error::NoSuchHead { head: Head { layer: 2, head: 0 }, layers: 2, heads } if heads == model.config().n_heads
    );
    assert_kind!(
        residual_stack(&model, &out.cache, Hook::Z(0), By::Layer),
        Error::WrongHook {
            hook: Hook::Z(0),
            ..
        }
    );
    // A hook as it is, a name, a pattern: what is wrong with them is told when the run starts.
    let asked: [fn() -> Run<'static, f64>; 3] = [
        || Run::new().cache(Hook::Z(2)),
        || Run::new().cache("hook_emned"),
        || Run::new().hook("blocks.*.mlp.*", |_, _| ()),
    ];
    for run in asked {
        assert_kind!(
            model.run(&out.tokens, run()),
            Error::Unknown { kind: "hook", .. }
        );
    }
}

#[test]
fn numbers_beyond_what_there_is() {
    let (model, out) = run();
    let paths = Paths::<f64>::new(&model, &out.cache, 0, Par::Seq).unwrap();
    assert_kind!(
        paths.to_logit(4, Logit::Of(0)),
        Error::OutOfRange { what: "position", index: 4, range, .. } if range == (0..4)
    );
    assert_kind!(
        paths.to_logit(0, Logit::Of(16)),
        Error::OutOfRange { what: "logit", index: 16, range, .. } if range == (0..16)
    );
    let z = Intervention::new(Hook::Z(0), Part::all().positions([9]), Change::Zero);
    let wrong = intervene::intervene(Run::new(), &model, &out.tokens, &[z], None).map(|_| ());
    assert_kind!(wrong, Error::OutOfRange { index: 9, of, .. } if of.contains(&Hook::Z(0).to_string()));
    let to_logit = paths.to_logit(3, Logit::Of(0)).unwrap();
    assert_kind!(to_logit.enumerate(1), Error::TooMany { found, most: 1, .. } if found > 1);
    assert_kind!(
        to_logit.top(0, 1),
        Error::TooFew {
            found: 0,
            least: 1,
            ..
        }
    );
    let one = faer::Mat::<f64>::zeros(1, 2);
    assert_kind!(
        pca(one.as_ref()),
        Error::TooFew {
            found: 1,
            least: 2,
            ..
        }
    );
    assert_kind!(summary(&[f64::NAN]), Error::Numeric(_));
}

#[test]
fn what_does_not_go_together() {
    let (model, out) = run();
    let answers = Answers::new(&[3], vec![0, 1]);
    assert_kind!(
        answers.check(model.config(), &out.tokens),
        Error::Mismatch(_)
    );
    assert_kind!(
        Standard::Loss.check(&Answers::at(1, &[3]), 16),
        Error::Metric(_)
    );
    assert_kind!(
        "lose".parse::<Standard>(),
        Error::Unknown { kind: "metric", .. }
    );
    assert_kind!("1".parse::<Head>(), Error::Malformed { kind: "head", .. });
    assert_kind!(
        "top=0".parse::<Form>(),
        Error::Malformed { kind: "form", .. }
    );
    let family = Circuit::parse("W_QK[*.*]", &model).unwrap();
    assert_kind!(family.dense(Par::Seq), Error::Form(_));
    let patch = [Intervention::new(Hook::Z(0), Part::all(), Change::Patch)];
    let patched = intervene::intervene(Run::new(), &model, &out.tokens, &patch, None);
    assert_kind!(
        patched.map(|_| ()),
        Error::Intervention {
            hook: Hook::Z(0),
            ..
        }
    );
    let twice = [intervene::Each::Layer, intervene::Each::Layer];
    let grid = Grid::new(
        model.config(),
        4,
        Site::Z,
        &twice,
        &Scope::default(),
        &Change::Zero,
    );
    assert_kind!(grid, Error::Experiment(_));
    assert_kind!(SweepResult::merge([]), Error::TooFew { found: 0, .. });
}
