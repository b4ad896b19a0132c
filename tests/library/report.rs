//! Reports: what a page holds, and what a browser makes of it.

use crate::stories;
use pathsum::diagram::Mask;
use pathsum::fixture::Fixture;
use pathsum::study::*;
use pathsum::{Head, Hook, Model, Run, Tokens, Weights, fixture, report};
use std::fs::File;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a page may weigh.
const HEAVIEST: usize = 8 << 20;

/// A prompt's page, of a token that would end a script.
fn prompt_page() -> String {
    let model = fixture::induction::<f64>();
    let word = |token: usize| match token {
        1 => "</script><b>`".to_string(),
        4 => "\\".to_string(),
        other => format!(" {other}"),
    };
    let question = Question {
        model: "fixture:induction",
        title: Some("<script>alert(1)</script>"),
        position: None,
        answer: None,
        word: &word,
        classes: &[],
        progress: &|_| {},
    };
    let tokens = Tokens::from_rows(&[[3, 1, 4, 3]]);
    report::page_html(&Page::of_prompt(&model, &tokens, &question).unwrap())
}

fn page() -> String {
    report::html(&stories::induction())
}

/// The part of a page that is the picture of this id.
fn figure<'a>(page: &'a str, id: &str) -> &'a str {
    let start = page.find(&format!("id=\"picture-{id}\"")).unwrap();
    let end = page[start..].find("</figure>").unwrap();
    &page[start..start + end]
}

#[test]
fn every_kind_of_picture_has_its_marks() {
    let page = page();
    for (id, mark, least) in [
        ("patterns", "<select", 3),
        ("ov", "<image", 3),
        ("ov", "class=\"mark\"", 2),
        ("dla", "class=\"fill c", 6),
        ("dla", "class=\"whisker\"", 3),
        ("spread", "class=\"fill edged c", 6),
        ("logits", "class=\"area c", 2),
        ("lines", "class=\"line c", 2),
        ("lines", "class=\"line dashed c", 1),
        ("scatter", "class=\"points c", 1),
        ("scores", "class=\"number", 4),
        ("steps", "class=\"frame\"", 5),
    ] {
        let found = figure(&page, id).matches(mark).count();
        assert!(found >= least, "{id}: {found} of {mark}");
    }
    // A line is broken where a number is missing, and a dot is drawn for every point.
    let points = figure(&page, "scatter").matches("h.1").count();
    assert_eq!(points, 6 * 18);
    assert!(figure(&page, "lines").contains("c1\" d=\"M"));
}

#[test]
fn what_a_story_says_is_text() {
    let page = page();
    assert!(!page.contains("<script>alert"), "text became a script");
    assert!(!page.contains("</script><b>"), "a token ended the numbers");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(page.contains(r"\u003c/script>"));
}

#[test]
fn what_was_published_stands_beside_what_is_found() {
    let mut story = stories::induction();
    let row = |figure: &str, at: &str, published: &str| Published {
        what: "the least <share>".into(),
        published: published.into(),
        place: "section 2".into(),
        figure: figure.into(),
        at: at.into(),
    };
    story.figure("few", [0.1 + 0.2, -1.5]);
    story.figure("map", serde_json::json!({"mean": 0.25}));
    story.steps[0].published = vec![row("few", "", "a list"), row("few", "/0", "0.300")];
    story.steps[1].published = vec![
        row("map", "/mean", "0.2"),
        row("nothing", "", "0.5"),
        row("induction.all", "/99", "1"),
        row("map", "", "a map"),
        row("", "", "98%"),
    ];
    let page = report::html(&story);
    let (steps, end) = page.split_once("id=\"published\"").unwrap();
    // In its step and at the end, in full digits.
    for (found, times) in [
        ("<td>0.30000000000000004, -1.5</td>", 1),
        ("<td>0.30000000000000004</td>", 1),
        ("<td>0.25</td>", 1),
        ("<td>mean: 0.25</td>", 1),
        ("<td>–</td>", 3),
        ("<td>0.300</td>", 1),
        ("the least &lt;share&gt;", 7),
    ] {
        for part in [steps, end] {
            assert_eq!(part.matches(found).count(), times, "{found}");
        }
    }
    // A story without any has no such tables.
    assert!(!self::page().contains("id=\"published\""));
}

#[test]
fn a_story_read_back_is_the_same_story_and_the_same_page() {
    let story = stories::induction();
    let folder = tempfile::tempdir().unwrap();
    let [html, json] = ["report.html", "results.json"].map(|n| folder.path().join(n));
    report::write_both(&story, &html, &json).unwrap();
    let read = Story::open(&json).unwrap();
    assert_eq!(read, story);
    assert!(report::html(&read) == std::fs::read_to_string(&html).unwrap());
}

#[test]
fn pages_of_large_pictures_stay_small() {
    let n = 113;
    let map = |k: usize| {
        let values: Vec<f64> = (0..n * n)
            .map(|i| (i as f64 * 0.37 + k as f64).sin())
            .collect();
        HeatMap::new(
            "",
            ChartAxis::new("a", 0..n),
            ChartAxis::new("b", 0..n),
            &values,
        )
    };
    let frames = (0..48).map(|k| Frame {
        label: format!("{k} neurons"),
        chart: Chart::HeatMaps {
            scale: Scale::Diverging,
            maps: vec![map(k)],
        },
    });
    let view = View::Frames {
        title: "neurons".into(),
        frames: frames.collect(),
    };
    let points: Vec<f64> = (0..n * n).map(|i| (i as f64).sin()).collect();
    let scatter = XyPlot {
        title: String::new(),
        x: "first".into(),
        y: "second".into(),
        series: vec![Series::new("all", Draw::Points, &points, &points).labels(0..n * n)],
    };
    let mut story = Story::new("large", "Large pictures", "none");
    story.steps.push(
        Step::new(
            "one",
            "One",
            "It is large.",
            Conclusion::of(true, "113 > 100"),
        )
        .picture(Picture::new("frames", "Frames", view))
        .picture(Picture::new("points", "Points", Chart::Xy(vec![scatter]))),
    );
    let page = report::html(&story);
    println!("{} bytes", page.len());
    assert!(page.len() < HEAVIEST, "{} bytes", page.len());
    if let Some(told) = Browser::open(&page) {
        told.check("large");
    }
}

#[test]
fn a_story_that_does_not_fit_is_not_written() {
    let mut story = stories::induction();
    story.steps[0].id = "no name".into();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    let said = report::write_html(&story, &path).unwrap_err().to_string();
    assert!(said.starts_with("step `no name`"), "{said}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

// ---- In a browser

/// What a page does there, told by a script at its end: drawn when, marks of each picture, the attention
/// view before and after other choices, a slider moved, files saved, requests made.
const PROBE: &str = include_str!("stories/probe.js");

/// What the browser and the page in it said.
struct Browser {
    /// What [`PROBE`] found.
    told: serde_json::Value,
    /// What stood on the page's console.
    console: Vec<String>,
    /// The first lines of what went to the network.
    requests: Vec<String>,
}

fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    std::env::split_paths(&path)
        .flat_map(|folder| names.map(|n| folder.join(n)))
        .find(|p| p.is_file())
}

/// Where the browser goes by itself, whatever it shows: for the time, for updates, for its accounts.
const ERRANDS: [&str; 2] = ["google.com", "googleapis.com"];

/// A browser that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

impl Browser {
    /// Opens a page, if there is a browser.
    fn open(page: &str) -> Option<Browser> {
        let Some(chromium) = chromium() else {
            eprintln!("skipped: there is no Chromium");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("report.html");
        let probe = format!("<script>{PROBE}</script></body>");
        std::fs::write(&file, page.replacen("</body>", &probe, 1)).unwrap();
        // All that leaves the browser must go through here, and goes no further.
        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = proxy.local_addr().unwrap().port();
        proxy.set_nonblocking(true).unwrap();
        let [dom, log] = ["dom", "log"].map(|name| folder.path().join(name));
        let began = Instant::now();
        let mut browser = Command::new(chromium)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .args(["--enable-logging=stderr", "--log-level=0", "--dump-dom"])
            .arg(format!("--proxy-server=127.0.0.1:{port}"))
            .arg(format!(
                "--user-data-dir={}",
                folder.path().join("profile").display()
            ))
            .arg(format!("file://{}", file.display()))
            .stdin(Stdio::null())
            .stdout(File::create(&dom).unwrap())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut requests = Vec::new();
        while browser.try_wait().unwrap().is_none() {
            match proxy.accept() {
                // Closed without an answer, or a page that asked would wait for it.
                Ok((stream, _)) => requests.push(first_line(stream)),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
            if began.elapsed() > PATIENCE {
                browser.kill().unwrap();
            }
        }
        let took = began.elapsed();
        requests.retain(|line| !ERRANDS.iter().any(|host| line.contains(host)));
        let [dom, log] = [dom, log].map(|file| std::fs::read(file).unwrap());
        let dom = String::from_utf8_lossy(&dom);
        let log = String::from_utf8_lossy(&log);
        let told = dom
            .split("<pre id=\"told\">")
            .nth(1)
            .and_then(|s| s.split("</pre>").next());
        let told = told.unwrap_or_else(|| panic!("the page told nothing: {log}"));
        let told = told
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&");
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        println!(
            "{} ms until drawn, {} ms with the browser's start",
            told["drawn"],
            took.as_millis()
        );
        Some(Browser {
            told,
            console: log
                .lines()
                .filter(|l| l.contains("CONSOLE"))
                .map(String::from)
                .collect(),
            requests,
        })
    }

    /// What holds for every page.
    #[track_caller]
    fn check(&self, what: &str) {
        assert!(self.console.is_empty(), "{what}: {:?}", self.console);
        assert!(self.requests.is_empty(), "{what}: {:?}", self.requests);
        assert_eq!(self.told["errors"], serde_json::json!([]), "{what}");
        assert_eq!(self.told["loaded"], serde_json::json!([]), "{what}");
        let marks = self.told["marks"].as_object().unwrap();
        assert!(!marks.is_empty());
        for (picture, n) in marks {
            assert!(n.as_u64().unwrap() > 0, "{what}: {picture} is empty");
        }
    }
}

#[test]
fn a_request_would_be_seen() {
    let image = "<img src=\"http://elsewhere.invalid/x.png\"></body>";
    let page = page().replacen("</body>", image, 1);
    // What a page forbids itself, the browser complains of.
    if let Some(browser) = Browser::open(&page) {
        assert!(!browser.console.is_empty());
        let open = page.replacen("http-equiv=\"Content-Security-Policy\"", "name=\"none\"", 1);
        let browser = Browser::open(&open).unwrap();
        let seen = browser
            .requests
            .iter()
            .any(|r| r.contains("elsewhere.invalid"));
        assert!(seen, "{:?}", browser.requests);
    }
}

#[test]
fn a_prompts_page_shows_every_head_to_within_its_bits() {
    let page = prompt_page();
    assert!(!page.contains("<script>alert") && !page.contains("</script><b>"));
    assert!(page.contains("<code>&lt;/script&gt;&lt;b&gt;`</code>"));
    let Some(browser) = Browser::open(&page) else {
        return;
    };
    browser.check("a prompt");
    let model = fixture::induction::<f64>();
    let tokens = Tokens::from_rows(&[[3, 1, 4, 3]]);
    let run = Run::new().cache("*.hook_pattern");
    let out = model.run(&tokens, run).unwrap();
    let heads = browser.told["heads"].as_object().unwrap();
    assert_eq!(heads.len(), 2);
    for (head, told) in heads {
        let layer = head[..1].parse().unwrap();
        let pattern = &out.cache[Hook::Pattern(layer)];
        for query in 0..4 {
            for key in 0..4 {
                let said = told[format!("{query} {key}")].as_str().unwrap();
                let weight = pattern[[0, 0, query, key]];
                match (said, key <= query) {
                    ("", false) => {}
                    ("below 0.002", true) => assert!(weight <= 0.5 / 255.0, "{weight}"),
                    // Half a step of eight bits, and of three digits.
                    (said, true) => {
                        let off = (said.parse::<f64>().unwrap() - weight).abs();
                        assert!(off <= 0.5 / 255.0 + 0.0005, "{head}: {said} for {weight}");
                    }
                    other => panic!("{head}: {other:?} of what is not seen"),
                }
            }
        }
    }
    let told = |name: &str| browser.told[name].as_str().unwrap_or_default();
    // Another row pressed: the induction head's third token, which sees no earlier one of its own.
    assert_eq!(told("pressed"), "2");
    assert!(told("word").contains("after 3:  3"), "{}", told("word"));
    let csv = told("heads_csv");
    assert!(
        csv.starts_with("head,query,key,from,to,weight\n0.0,0,0, 3, 3,1.0000\n"),
        "{csv}"
    );
}

/// What a model makes of a sequence, with tokens' numbers as words.
fn asked(model: &str) -> Question<'_> {
    Question {
        model,
        title: None,
        position: None,
        answer: None,
        word: &|token| format!(" {token}"),
        classes: &[],
        progress: &|_| {},
    }
}

/// The page of a model of the library's on one sequence, with its numbers as words.
fn page_of(fixture: Fixture, tokens: &[i64]) -> String {
    let name = format!("fixture:{fixture}");
    let question = asked(&name);
    let tokens = Tokens::from_rows(&[tokens]);
    report::page_html(&Page::of_prompt(&fixture.load::<f64>(), &tokens, &question).unwrap())
}

/// What the page should have, by the program's own run: all logits, then the weights that each query sees.
fn by_the_program(fixture: Fixture, tokens: &[i64], ablated: Option<Head>) -> Vec<f64> {
    let model = fixture.load::<f64>();
    let c = model.config();
    let mut run = Run::new().cache("*.hook_pattern");
    if let Some(Head { layer, head }) = ablated {
        run = run.hook(Hook::Z(layer), move |z, _| {
            for position in 0..z.shape()[1] {
                z.slice_mut(&[0, position, head]).fill(0.0);
            }
        });
    }
    let out = model.run(&Tokens::from_rows(&[tokens]), run).unwrap();
    let mut values = out.logits.data().to_vec();
    for layer in 0..c.n_layers {
        for (row, weights) in out.cache[Hook::Pattern(layer)]
            .data()
            .chunks_exact(tokens.len())
            .enumerate()
        {
            let sees = match c.mask {
                Mask::Causal => row % tokens.len() + 1,
                Mask::All => tokens.len(),
            };
            values.extend_from_slice(&weights[..sees]);
        }
    }
    values
}

#[test]
fn a_page_runs_its_model_again_as_the_program_does() {
    /// What such a page may weigh.
    const PAGE: usize = 5_000_000;
    let half: Vec<i64> = (1..=10).collect();
    let mirror: Vec<i64> = half.iter().rev().copied().collect();
    let palindrome = [vec![31], half, mirror, vec![32]].concat();
    let brackets = [vec![0], [3, 4].repeat(20), vec![2]].concat();
    for (fixture, tokens) in [
        (Fixture::Induction, vec![3, 1, 4, 3]),
        (Fixture::Palindrome, palindrome),
        (Fixture::Brackets, brackets),
        (Fixture::TwoInteger, vec![5, 80, 113]),
    ] {
        let page = page_of(fixture, &tokens);
        assert!(page.len() < PAGE, "{fixture}: {} bytes", page.len());
        let Some(browser) = Browser::open(&page) else {
            return;
        };
        browser.check(&fixture.to_string());
        let told = &browser.told["rerun"];
        let c = fixture.load::<f64>().config().clone();
        assert_eq!(told["patterns"], c.n_layers * c.n_heads, "{fixture}");
        let mut changed = tokens.clone();
        changed[0] = told["token"].as_i64().unwrap();
        let head = Head {
            layer: c.n_layers - 1,
            head: c.n_heads - 1,
        };
        let (mut off, mut most, mut slowest) = (0f64, 0f64, 0f64);
        for (state, tokens, ablated) in [
            ("before", &tokens, None),
            ("changed", &changed, None),
            ("ablated", &changed, Some(head)),
            ("reset", &tokens, None),
        ] {
            let expected = by_the_program(fixture, tokens, ablated);
            let found = told[state]["values"].as_array().unwrap();
            assert_eq!(found.len(), expected.len(), "{fixture}, {state}");
            for (found, expected) in found.iter().zip(expected) {
                off = off.max((found.as_f64().unwrap() - expected).abs());
                most = most.max(expected.abs());
            }
            if state != "before" {
                slowest = slowest.max(told[state]["took"].as_f64().unwrap());
            }
        }
        println!(
            "{fixture}: {} bytes, {slowest:.1} ms a click, off by {off:e} of {most:.1}",
            page.len()
        );
        // As many roundings as a logit has products behind it, if every one went the same way.
        let products = c.n_layers * (4 * c.d_model * tokens.len() + c.d_mlp().unwrap_or(0));
        assert!(
            off < products as f64 * f64::EPSILON * most,
            "{fixture}: {off:e}"
        );
        assert_ne!(told["before"]["values"], told["changed"]["values"]);
        assert_ne!(told["changed"]["values"], told["ablated"]["values"]);
        // The address says what was chosen.
        let list: Vec<String> = changed.iter().map(i64::to_string).collect();
        let link = format!("#tokens={}&ablate={head}", list.join(","));
        assert_eq!(told["ablated"]["link"], link);
    }
}

#[test]
fn a_model_that_a_page_has_no_room_for_is_not_carried() {
    let mut config = fixture::induction::<f64>().config().clone();
    config.d_vocab = 20_000;
    config.d_vocab_out = 20_000;
    let model = Model::new(config.clone(), Weights::<f64>::zeros(&config)).unwrap();
    let question = asked("large");
    let page = Page::of_prompt(&model, &Tokens::from_rows(&[[3, 1, 4, 3]]), &question).unwrap();
    assert!(page.sections.iter().all(|s| s.id != "change"));
    let html = report::page_html(&page);
    assert!(html.contains("cannot be run again in this page"));
    assert!(!html.contains("wasm"));
}

fn first_line(mut stream: TcpStream) -> String {
    stream.set_nonblocking(false).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let mut bytes = [0; 200];
    let n = stream.read(&mut bytes).unwrap_or(0);
    let text = String::from_utf8_lossy(&bytes[..n]);
    text.lines().next().unwrap_or_default().into()
}

#[test]
fn a_browser_draws_the_page_alone_and_answers_to_choices() {
    let Some(browser) = Browser::open(&page()) else {
        return;
    };
    browser.check("induction");
    let told = |name: &str| browser.told[name].as_str().unwrap_or_default();
    for choice in ["head", "sequence", "weighting"] {
        let now = told(choice);
        assert!(now.contains("<rect"), "{choice}: no pattern");
        assert_ne!(now, told("first"), "another {choice} draws the same");
    }
    assert_eq!(told("frame"), "4 of 5");
    assert!(
        told("tip").contains("from token 1, to logit 2"),
        "{}",
        told("tip")
    );
    assert!(told("svg").starts_with("<svg"), "{}", told("svg"));
    assert!(
        told("csv").starts_with("panel,row,column,value\n"),
        "{}",
        told("csv")
    );
}
