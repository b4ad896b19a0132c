//! Stories for the tests of reports.

use pathsum::decompose::{By, Logit, direct_logit_attribution, residual_stack};
use pathsum::eval::Circuit;
use pathsum::study::*;
use pathsum::{Hook, Model, Par, Run, fixture};

/// A story with a picture of every kind, as a study would tell it of the embedded model.
pub fn induction() -> Story {
    let model = fixture::induction::<f64>();
    let tokens = fixture::repeated_sequences(6, 9, 3);
    let out = model.run(&tokens, Run::new().cache("*")).unwrap();
    let n = tokens.pos();
    let heads = [Hook::Pattern(0), Hook::Pattern(1)];

    let mut story = Story::new(
        "induction",
        "How the induction model copies",
        "`fixture:induction`: 2 layers, 1 head each, attention only, constructed",
    );
    story.summary = vec![
        "Head `0.0` looks at the previous token; head `1.0` finds the token after an earlier occurrence \
         of this one, and copies it. Every number on this page comes from one run."
            .into(),
    ];
    let picked = &out.cache[heads[1]];
    let after: Vec<f64> = (9..n).map(|q| picked[[0, 0, q, q - 8]]).collect();
    let least = after.iter().copied().fold(f64::INFINITY, f64::min);
    story.figure("induction.least", least);
    story.figure("induction.all", &after);

    let sequences = (0..tokens.batch()).map(|b| {
        let words = tokens.sequence(b).iter().map(|t| match t {
            0 => "</script><b>".to_string(),
            t => t.to_string(),
        });
        Sequence::new(format!("{b}"), words).marked([9])
    });
    let pattern = |b: usize, weighted: bool| {
        let mut all = Vec::new();
        for hook in heads {
            for (i, &p) in out.cache[hook].slice(&[b, 0]).iter().enumerate() {
                let distance = (i / n).abs_diff(i % n) as f64;
                all.push(if weighted { p * distance } else { p });
            }
        }
        all
    };
    let all = 0..tokens.batch();
    let attention = AttentionView {
        sequences: sequences.collect(),
        heads: vec!["0.0".into(), "1.0".into()],
        weightings: vec![
            Weighting::new("attention", all.clone().map(|b| pattern(b, false))),
            Weighting::new("attention times distance", all.map(|b| pattern(b, true))),
        ],
    };
    let step = Step::new(
        "attention",
        "Where the heads look",
        "The second head attends to the token after the last occurrence of the current one.",
        Conclusion::of(
            least > 0.99,
            format!(
                "at least {} of the attention, in {} positions",
                Number::from(least),
                n - 9
            ),
        ),
    );
    story.steps.push(
        step.text("Choose a head and a sequence; choose a token to see where it looks.")
            .picture(Picture::new("patterns", "Attention patterns", attention)),
    );

    let (numbers, wide) = circuit(&model, "W_E W_OV[1.0] W_U");
    let diagonal = (0..wide).map(|i| [i, i]).filter(|i| i[0] % 8 == 0);
    let map = HeatMap::new(
        "W_E W_OV[1.0] W_U",
        ChartAxis::new("from token", 0..wide),
        ChartAxis::new("to logit", 0..wide),
        &numbers,
    )
    .marked(diagonal);
    let mut second = map.clone();
    second.title = "the same, halved, row 3 missing".into();
    second.marked.clear();
    for (i, v) in second.values.iter_mut().enumerate() {
        *v = if i / wide == 3 {
            Number::MISSING
        } else {
            (v.get().unwrap() / 2.0).into()
        };
    }
    let mut table = Table::new("Copying", ["token", "own logit", "largest other"]);
    for i in [0, 5, 9] {
        let row = &numbers[i * wide..][..wide];
        let others = row
            .iter()
            .enumerate()
            .filter(|(j, _)| *j != i)
            .map(|(_, &x)| x);
        table.row([
            i.into(),
            row[i].into(),
            others.fold(f64::MIN, f64::max).into(),
        ]);
    }
    story.steps.push(
        Step::new(
            "copying",
            "What the second head writes",
            "Each token raises its own logit.",
            Conclusion::of(false, "3 of 4 `<script>alert(1)</script>`"),
        )
        .table(table)
        .picture(
            Picture::new(
                "ov",
                "The full OV circuit",
                Chart::HeatMaps {
                    scale: Scale::Diverging,
                    maps: vec![map, second],
                },
            )
            .caption("The diagonal is what is copied."),
        ),
    );

    let stack = residual_stack(&model, &out.cache, Hook::ResidPost(1), By::Head).unwrap();
    let parts =
        direct_logit_attribution(&model, &out.cache, stack, &[Logit::Difference(3, 9)]).unwrap();
    let names: Vec<String> = parts.labels.iter().map(|l| l.to_string()).collect();
    let means: Vec<f64> = (0..names.len())
        .map(|c| mean((0..n).map(|p| parts.values[[c, 0, p, 0]])))
        .collect();
    let fives = |low: f64| {
        (0..names.len())
            .map(|i| Five {
                min: (low - i as f64).into(),
                q1: low.into(),
                median: (low + 0.5).into(),
                q3: (low + 1.0).into(),
                max: (low + 2.0 + i as f64).into(),
            })
            .collect()
    };
    let values: Vec<f64> = (0..tokens.batch())
        .flat_map(|b| (0..n).map(move |p| (b, p)))
        .map(|(b, p)| out.logits[[b, p, 3]])
        .collect();
    let (first, second) = values.split_at(values.len() / 2);
    let (edges, early) = histogram(first, &values);
    let (_, late) = histogram(second, &values);
    let positions: Vec<f64> = (0..n).map(|p| p as f64).collect();
    let head: Vec<f64> = (0..n)
        .map(|p| picked[[0, 0, p, p.saturating_sub(8)]])
        .collect();
    let mut gap: Vec<f64> = head.iter().map(|x| 1.0 - x).collect();
    gap[4] = f64::NAN;
    let line = |name: &str, values: &[f64]| Series::new(name, Draw::Line, &positions, values);
    let frames = (1..=5).map(|k| {
        let part: Vec<f64> = numbers.iter().map(|x| x * k as f64 / 5.0).collect();
        let axis = |t| ChartAxis::new(t, 0..wide);
        Frame {
            label: format!("{k} of 5"),
            chart: Chart::HeatMaps {
                scale: Scale::Diverging,
                maps: vec![HeatMap::new("", axis("a"), axis("b"), &part)],
            },
        }
    });
    let scores = [0.187, 0.432, 0.091, 0.944];
    let places = ["0.0", "0.1"].map(|h| format!("head {h}"));
    let k_scores = HeatMap::new(
        "K",
        ChartAxis::new("reads", ["1.0", "1.1"]),
        ChartAxis::new("writes", places),
        &scores,
    );
    story.steps.push(
        Step::new(
            "direct",
            "Direct logit attribution",
            "Most of it comes from the second head.",
            Conclusion::not_applicable("there is no second head"),
        )
        .picture(Picture::new(
            "dla",
            "By component",
            Chart::Bars(vec![BarChart {
                title: String::new(),
                x: ChartAxis::new("component", &names),
                y: "logit difference".into(),
                bars: vec![
                    Bar::new("mean", &means).whiskers(&vec![0.5; names.len()]),
                    Bar::new("negated", &means.iter().map(|x| -x).collect::<Vec<_>>()),
                ],
            }]),
        ))
        .picture(Picture::new(
            "spread",
            "Spread",
            Chart::Boxes(vec![BoxPlot {
                title: String::new(),
                x: ChartAxis::new("component", &names),
                y: "logit".into(),
                boxes: vec![
                    Boxes {
                        name: "first".into(),
                        fives: fives(0.0),
                    },
                    Boxes {
                        name: "second".into(),
                        fives: fives(-2.0),
                    },
                ],
            }]),
        ))
        .picture(Picture::new(
            "logits",
            "Logit of token 3",
            Chart::Histograms(vec![HistogramChart {
                title: "all positions".into(),
                x: "logit".into(),
                y: "positions".into(),
                edges: edges.iter().map(|&e| e.into()).collect(),
                classes: vec![
                    Class::new("first half", &early),
                    Class::new("second half", &late),
                ],
            }]),
        ))
        .picture(Picture::new(
            "lines",
            "By position",
            Chart::Xy(vec![XyPlot {
                title: "sequence 0".into(),
                x: "position".into(),
                y: "attention".into(),
                series: vec![
                    line("eight back", &head),
                    line("elsewhere", &gap),
                    Series::new(
                        "threshold",
                        Draw::Dashed,
                        &[0.0, n as f64 - 1.0],
                        &[0.5, 0.5],
                    ),
                ],
            }]),
        ))
        .picture(Picture::new(
            "scatter",
            "Two logits",
            Chart::Xy(vec![XyPlot {
                title: String::new(),
                x: "logit of 3".into(),
                y: "logit of 9".into(),
                series: vec![
                    Series::new(
                        "positions",
                        Draw::Points,
                        &values,
                        &values.iter().rev().copied().collect::<Vec<_>>(),
                    )
                    .labels(
                        (0..values.len())
                            .map(|i| format!("sequence {}, position {}", i / n, i % n)),
                    ),
                ],
            }]),
        ))
        .picture(Picture::new(
            "scores",
            "K-composition",
            Chart::HeatMaps {
                scale: Scale::Sequential,
                maps: vec![k_scores],
            },
        ))
        .picture(Picture::new(
            "steps",
            "Added up",
            View::Frames {
                title: "fifths".into(),
                frames: frames.collect(),
            },
        )),
    );
    story
}

/// A circuit's entries, row-major, and how many columns it has.
fn circuit(model: &Model<f64>, text: &str) -> (Vec<f64>, usize) {
    let matrix = Circuit::parse(text, model)
        .unwrap()
        .dense(Par::Seq)
        .unwrap();
    let rows = 0..matrix.nrows();
    let entries = rows.flat_map(|i| matrix.row(i).iter().copied().collect::<Vec<_>>());
    (entries.collect(), matrix.ncols())
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    values.sum::<f64>() / n
}

/// Twelve bins over the range of all values, and how many of some fall into each.
fn histogram(some: &[f64], all: &[f64]) -> (Vec<f64>, Vec<usize>) {
    const BINS: usize = 12;
    let lo = all.iter().copied().fold(f64::INFINITY, f64::min);
    let hi = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let wide = (hi - lo) / BINS as f64;
    let mut counts = vec![0; BINS];
    for x in some {
        counts[(((x - lo) / wide) as usize).min(BINS - 1)] += 1;
    }
    ((0..=BINS).map(|i| lo + i as f64 * wide).collect(), counts)
}
