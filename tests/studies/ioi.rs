//! The study of indirect objects: on a model that was built to find them, where every head's role is known; held to naive
//! runs on a model of a language model's parts; and on trained ones.

use crate::common::{outcome, sound, untrained, with_fields};
use crate::reference;
use pathsum::study::ioi::{self, IoiStudy, Place, Prompts, Role};
use pathsum::study::{Outcome, Story};
use pathsum::text::Tokenizer;
use pathsum::{Config, Head, Hook, Model, Par, Run, Tensor, Tokens, Weights};
use serde_json::{Value, json};
use std::path::PathBuf;

fn head(name: &str) -> Head {
    name.parse().unwrap()
}

fn study(model: &Model<f64>, prompts: &Prompts) -> IoiStudy {
    ioi::study(model, prompts.clone(), Par::Rayon, &|_| {}).unwrap()
}

fn prompts(clean: &[Vec<i64>], corrupt: &[Vec<i64>], names: &[[usize; 2]]) -> Prompts {
    let word = |token: i64| format!(" {token}");
    let [clean, corrupt] = [clean, corrupt].map(|rows| Tokens::from_rows(rows));
    Prompts::of(clean, corrupt, names, &word).unwrap()
}

// ---- A model that was built for it

/// Tokens: the start, names, and the words between them.
const START: i64 = 0;
const NAMES: usize = 12;
const AND: i64 = 13;
const WENT: i64 = 14;
const GAVE: i64 = 15;
const TO: i64 = 16;
const VOCAB: usize = 17;
const POS: usize = 8;

/// Three layers of one head, without norms, whose roles are those of the published circuit.
///
/// The stream is five parts side by side: the token, the position, whether the token was there before, the subject, and the
/// prediction.
///
/// - Head 0.0 looks for the same token at another position, and if there is none at the first; it writes that it found one.
/// - Head 1.0 looks from `TO` for a token that was there before, and copies it to the subject.
/// - Head 2.0 looks from `TO` for a name that is not the subject, and copies it to the prediction.
fn built() -> Model<f64> {
    const POSITION: usize = VOCAB;
    const REPEATED: usize = POSITION + POS;
    const SUBJECT: usize = REPEATED + 1;
    const PREDICTION: usize = SUBJECT + VOCAB;
    let d_model = PREDICTION + VOCAB;
    let config = Config::from_json(
        &json!({
            "n_layers": 3, "n_heads": 1, "d_model": d_model, "d_head": 32, "n_ctx": POS, "d_vocab": VOCAB,
            "attn_only": true, "normalization_type": null
        })
        .to_string(),
    )
    .unwrap();
    let gain = |gap: f64| (gap * config.attn_scale).sqrt();
    let mut w = Weights::<f64>::zeros(&config);
    for t in 0..VOCAB {
        w.W_E[[t, t]] = 1.0;
        w.W_U[[PREDICTION + t, t]] = 12.0;
    }
    for p in 0..POS {
        w.W_pos[[p, POSITION + p]] = 1.0;
    }
    let attn = &mut w.blocks[0].attn;
    let g = gain(8.0);
    for t in 0..VOCAB {
        attn.W_Q[[t, 0, t]] = g;
        attn.W_K[[t, 0, t]] = g;
        attn.W_Q[[t, 0, VOCAB + POS]] = g;
    }
    for p in 0..POS {
        // Its own position is not another one.
        attn.W_Q[[POSITION + p, 0, VOCAB + p]] = g;
        attn.W_K[[POSITION + p, 0, VOCAB + p]] = -g;
        attn.W_V[[POSITION + p, 0, 0]] = f64::from(u8::from(p > 0));
    }
    attn.W_K[[POSITION, 0, VOCAB + POS]] = g / 2.0;
    attn.W_O[[0, 0, REPEATED]] = 1.0;
    let attn = &mut w.blocks[1].attn;
    attn.W_Q[[TO as usize, 0, 0]] = g;
    attn.W_K[[REPEATED, 0, 0]] = g;
    let copies = |attn: &mut pathsum::model::Attention<f64>, to: usize| {
        for t in 0..VOCAB {
            attn.W_V[[t, 0, t]] = 1.0;
            attn.W_O[[0, t, to + t]] = 1.0;
        }
    };
    copies(attn, SUBJECT);
    let attn = &mut w.blocks[2].attn;
    let g = gain(4.0);
    attn.W_Q[[TO as usize, 0, VOCAB]] = g;
    for t in 0..VOCAB {
        attn.W_Q[[SUBJECT + t, 0, t]] = -2.0 * g;
        attn.W_K[[t, 0, t]] = g;
        if (1..=NAMES).contains(&t) {
            attn.W_K[[t, 0, VOCAB]] = g;
        }
    }
    copies(attn, PREDICTION);
    Model::new(config, w).unwrap()
}

/// Prompts of either order, each with other names.
fn for_built() -> Prompts {
    let (mut clean, mut corrupt, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..6i64 {
        let [io, s, a, b, c] = [0, 1, 2, 3, 4].map(|k| 1 + (i + 2 * k) % NAMES as i64);
        let text = |first, second, third| vec![START, first, AND, second, WENT, third, GAVE, TO];
        match i % 2 {
            0 => clean.push(text(s, io, s)),
            _ => clean.push(text(io, s, s)),
        }
        corrupt.push(text(a, b, c));
        names.push([io as usize, s as usize]);
    }
    prompts(&clean, &corrupt, &names)
}

#[test]
fn a_model_that_was_built_for_it_has_the_roles_it_was_built_with() {
    let study = study(&built(), &for_built());
    let story = study.story("a built model");
    for step in &story.steps {
        println!(
            "{}: {}: {}",
            step.id, step.verdict.outcome, step.verdict.because
        );
    }
    sound(&story);
    for (role, own) in [
        (Role::NameMover, vec![head("2.0")]),
        (Role::NegativeNameMover, vec![]),
        (Role::SInhibition, vec![head("1.0")]),
        (Role::DuplicateToken, vec![head("0.0")]),
        (Role::Induction, vec![]),
        (Role::PreviousToken, vec![]),
    ] {
        assert_eq!(study.roles.of(role), own, "{}", role.name());
    }
    for (id, expected) in [
        ("answers", Outcome::Holds),
        ("lens", Outcome::Holds),
        ("flow", Outcome::Holds),
        ("direct", Outcome::Holds),
        ("name-movers", Outcome::Holds),
        ("negative", Outcome::DoesNotHold),
        ("s-inhibition", Outcome::Holds),
        ("duplicate", Outcome::Holds),
        ("induction", Outcome::DoesNotHold),
        ("previous", Outcome::DoesNotHold),
        // Nothing takes over from the only one there is, and all three heads are needed.
        ("backup", Outcome::DoesNotHold),
        ("circuit", Outcome::DoesNotHold),
        ("roles", Outcome::Holds),
    ] {
        assert_eq!(outcome(&story, id), expected, "{id}");
    }
}

// ---- Held to naive runs

/// A model of a language model's parts that has learned nothing.
fn small() -> Model<f64> {
    let config = json!({
        "n_layers": 2, "n_heads": 4, "n_key_value_heads": 2, "d_model": 12, "d_head": 4, "d_mlp": 10, "act_fn": "silu",
        "gated_mlp": true, "n_ctx": 12, "d_vocab": 19, "normalization_type": "RMS",
        "positional_embedding_type": "rotary", "rotary_dim": 4
    });
    untrained(&with_fields(config, &[]).unwrap(), 1.0, 3)
}

fn for_small() -> Prompts {
    prompts(
        &[
            vec![0, 5, 6, 7, 8, 5, 9, 10],
            vec![0, 1, 2, 3, 4, 4, 11, 12],
            vec![17, 16, 15, 14, 15, 13, 1, 2],
        ],
        &[
            vec![0, 1, 6, 2, 8, 3, 9, 10],
            vec![0, 13, 2, 3, 14, 15, 11, 12],
            vec![17, 16, 3, 14, 4, 13, 1, 2],
        ],
        &[[7, 5], [1, 4], [16, 15]],
    )
}

/// The mean logit difference in a run on the clean prompts in which some values are changed.
fn naive(model: &Model<f64>, p: &Prompts, hook: Hook, change: &dyn Fn(&mut Tensor<f64>)) -> f64 {
    let run = Run::new().hook(hook, |value, _| change(value));
    let logits = model.run(&p.clean, run).unwrap().logits;
    let of = |i: usize| {
        let [io, s] = p.names[i];
        logits[[i, p.end(), io]] - logits[[i, p.end(), s]]
    };
    (0..p.count()).map(of).sum::<f64>() / p.count() as f64
}

/// Two ways to compute a mean of logit differences of this model differ by roundings: so many of them of so large numbers.
fn tolerance(model: &Model<f64>) -> f64 {
    let c = model.config();
    let sums = c.n_layers * (2 * c.d_model + c.d_mlp().unwrap_or(0) + c.n_ctx) + c.d_model;
    let largest = model
        .weights()
        .tensors()
        .iter()
        .map(|(_, w)| w.max_abs())
        .fold(0.0, f64::max);
    // Logits are products of the unembedding with a stream that the last norm has made of size one.
    let logits = largest * c.d_model as f64;
    sums as f64 * f64::EPSILON * logits
}

#[test]
fn what_is_seen_and_patched_is_what_naive_runs_say() {
    let (model, p) = (small(), for_small());
    let found = study(&model, &p);
    let close = |a: f64, b: f64| assert!((a - b).abs() <= tolerance(&model), "{a} {b}");
    let logits = model.logits(&p.clean).unwrap();
    let clean = naive(&model, &p, Hook::ResidPre(0), &|_| {});
    for (i, &[io, s]) in p.names.iter().enumerate() {
        let row = logits.slice(&[i, p.end()]);
        close(found.seen.behaviour.logit_diffs[i], row[io] - row[s]);
    }
    close(found.seen.behaviour.logit_diff, clean);
    let d = &found.seen.direct;
    close(
        d.heads.iter().sum::<f64>() + d.mlps.iter().sum::<f64>() + d.rest,
        clean,
    );
    for (own, by_source) in d.heads.iter().zip(&d.by_source) {
        close(*own, by_source.iter().sum());
    }
    close(*found.seen.lens.logit_diff.last().unwrap(), clean);

    let all = model.run(&p.clean, Run::new().cache("*")).unwrap().cache;
    let other = model.run(&p.corrupt, Run::new().cache("*")).unwrap().cache;
    let n = p.count() as f64;
    for (i, h) in found.heads.iter().enumerate() {
        let pattern = &all[Hook::Pattern(h.layer)];
        let look = |from: Place, to: Place| -> f64 {
            let of = |q: usize| pattern[[q, h.head, p.at(q, from), p.at(q, to)]];
            (0..p.count()).map(of).sum::<f64>() / n
        };
        let looks = found.seen.looks[i];
        close(looks.end_io, look(Place::End, Place::Io));
        close(looks.s2_after, look(Place::S2, Place::AfterS1));
        close(looks.after_s1, look(Place::AfterS1, Place::S1));

        // All of a head, and a head at one place.
        let patched = |places: Option<Place>| {
            let z = &other[Hook::Z(h.layer)];
            naive(&model, &p, Hook::Z(h.layer), &|value| {
                for q in 0..p.count() {
                    for at in (0..p.clean.pos())
                        .filter(|&at| places.is_none_or(|place| p.at(q, place) == at))
                    {
                        let from = z.slice(&[q, at, h.head]).to_vec();
                        value.slice_mut(&[q, at, h.head]).copy_from_slice(&from);
                    }
                }
            }) - clean
        };
        close(found.patching.heads[i], patched(None));
        for place in Place::ALL {
            if let Some(exactly) = found.patching.exactly[i][place as usize] {
                close(exactly, patched(Some(place)));
            }
        }
    }
    for l in 0..model.config().n_layers {
        for place in Place::ALL {
            let from = &other[Hook::ResidPre(l)];
            let patched = naive(&model, &p, Hook::ResidPre(l), &|value| {
                for q in 0..p.count() {
                    let row = from.slice(&[q, p.at(q, place)]).to_vec();
                    value.slice_mut(&[q, p.at(q, place)]).copy_from_slice(&row);
                }
            });
            close(found.patching.stream[l][place as usize], patched - clean);
        }
    }

    // What heads copy: by a whole run in which they attend to the name alone is too much; the naive way is the weights'.
    let c = model.config();
    let w = model.weights();
    let stream = &all[Hook::ResidPost(0)];
    for (i, &h) in found.heads.iter().enumerate() {
        let copied = (0..p.count()).filter(|&q| {
            let x = stream.slice(&[q, p.at(q, Place::Io)]);
            let scale = (x.iter().map(|x| x * x).sum::<f64>() / c.d_model as f64 + c.eps).sqrt();
            let norm = w.norms[&pathsum::names::NormSite::Ln1(h.layer)].w.data();
            let (V, O) = (w.W_V(h), w.W_O(h));
            let v = |j: usize| {
                (0..c.d_model)
                    .map(|k| x[k] / scale * norm[k] * V[(k, j)])
                    .sum::<f64>()
                    + w.b_V(h)[j]
            };
            let v: Vec<f64> = (0..c.d_head).map(v).collect();
            let out = |k: usize| (0..c.d_head).map(|j| v[j] * O[(j, k)]).sum::<f64>();
            let out = Tensor::from_vec(&[1, c.d_model], (0..c.d_model).map(out).collect());
            let logits = model.logits_of_stream(&out).unwrap();
            let own = logits[[0, p.names[q][0]]];
            logits.data().iter().filter(|&&x| x > own).count() < 5
        });
        assert_eq!(
            found.seen.copies[i].copies,
            copied.count() as f64 / n,
            "{h}"
        );
    }
    sound(&found.story("a model that has learned nothing"));
}

#[test]
fn edges_of_some_receivers_are_those_of_all_and_circuits_end_at_the_model() {
    let (model, p) = (small(), for_small());
    let found = study(&model, &p);
    let answers = p.answers();
    let metric = p.metric(&answers).unwrap();
    let edges =
        pathsum::edges::Edges::new(&model, &p.clean, &p.corrupt, &answers, &metric).unwrap();
    let all = edges.exact().unwrap();
    let graph = edges.graph();
    let close = |a: f64, b: f64| assert!((a - b).abs() <= tolerance(&model), "{a} {b}");
    let receivers = [0, 5, graph.receivers().len() - 1];
    let asked = receivers.map(|r| graph.receivers()[r]);
    let some = edges.exact_into(&asked).unwrap();
    for (r, effects) in receivers.into_iter().zip(some) {
        let own = &all[graph.edges_to(r)];
        assert_eq!(own.len(), effects.len());
        own.iter().zip(effects).for_each(|(&a, b)| close(a, b));
    }
    let last = &all[graph.edges_to(graph.receivers().len() - 1)];
    last.iter()
        .zip(&found.exact.into_logits)
        .for_each(|(&a, &b)| close(a, b));
    let whole = found.circuits.sizes.last().unwrap();
    assert_eq!((whole.edges, whole.heads, whole.mlps), (graph.len(), 8, 2));
    let ends = edges.ends().unwrap();
    let span = (ends[0] - ends[1]).abs();
    assert!((whole.faithfulness - 1.0).abs() <= tolerance(&model) / span);
    let elsewhere = pathsum::intervene::Receiver::Mlp(7);
    assert!(edges.exact_into(&[elsewhere]).is_err());
}

// ---- Prompts

#[test]
fn prompts_that_are_none_are_refused() {
    let of = |clean: &[i64], names: [usize; 2]| {
        let tokens = Tokens::from_rows(&[clean]);
        Prompts::of(tokens.clone(), tokens, &[names], &|t| t.to_string()).map(|p| p.places[0])
    };
    assert_eq!(of(&[9, 1, 2, 3, 1, 4], [3, 1]).unwrap(), [3, 1, 2, 4, 5]);
    assert_eq!(of(&[9, 3, 2, 1, 1, 4], [3, 1]).unwrap(), [1, 3, 4, 4, 5]);
    // Once only, thrice, the indirect object twice, not there, behind the subject's second mention; the last token is none.
    for (tokens, names) in [
        ([9, 1, 2, 3, 8, 4], [3, 1]),
        ([1, 1, 2, 3, 1, 4], [3, 1]),
        ([3, 1, 2, 3, 1, 4], [3, 1]),
        ([9, 1, 2, 7, 1, 4], [3, 1]),
        ([9, 1, 2, 1, 3, 4], [3, 1]),
        ([9, 1, 2, 3, 8, 1], [3, 1]),
    ] {
        let error = of(&tokens, names).unwrap_err().to_string();
        assert!(
            error.starts_with("prompt 0 has its indirect object at"),
            "{error}"
        );
    }
}

/// A vocabulary of words that begin with a blank, and no more names than these.
fn tokenizer(names: &[&str]) -> (tempfile::TempDir, Tokenizer) {
    let words = "Then When After While Afterwards Friends The the and had a long argument lunch to said gave decided it got at \
                 were working commuting thinking about going wanted give lot of fun found went afterwards store garden restaurant \
                 school hospital office house station ring kiss bone basketball computer necklace drink snack . ,";
    let words = words.split_whitespace().chain(names.iter().copied());
    let vocab: serde_json::Map<String, Value> = ["[unk]"]
        .into_iter()
        .chain(words)
        .enumerate()
        .map(|(i, w)| (w.to_string(), json!(i)))
        .collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[unk]"}
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let opened = Tokenizer::open(folder.path()).unwrap();
    (folder, opened)
}

#[test]
fn prompts_are_drawn_of_one_length_with_names_of_one_token() {
    let names = ["Mary", "John", "Tom", "Anna", "Paul", "Lucy"];
    let (_folder, tokenizer) = tokenizer(&names);
    let config = with_fields(
        json!({"n_layers": 1, "n_heads": 1, "d_model": 2, "d_head": 2, "n_ctx": 40, "d_vocab": 200, "attn_only": true}),
        &[],
    );
    let config = config.unwrap();
    let drawn = Prompts::draw(&tokenizer, &config, 40, 7).unwrap();
    assert_eq!(drawn.names_of_one_token, Some(names.len()));
    let [own, all] = drawn.templates.unwrap();
    assert!(
        (2..=all).contains(&own) && all == 30 && own % 2 == 0,
        "{own} of {all}"
    );
    let mut first = [0, 0];
    for i in 0..drawn.count() {
        let words = |corrupt: usize, place| {
            drawn.words[corrupt][i][drawn.at(i, place)]
                .trim()
                .to_string()
        };
        let [io, s1, s2] = [Place::Io, Place::S1, Place::S2].map(|place| words(0, place));
        assert_eq!(s1, s2);
        assert_ne!(io, s1);
        // Three other names, and nothing else is otherwise.
        let mut others = [Place::Io, Place::S1, Place::S2]
            .map(|place| words(1, place))
            .to_vec();
        others.extend([io, s1]);
        others.sort();
        others.dedup();
        assert_eq!(others.len(), 5);
        let differ =
            (0..drawn.clean.pos()).filter(|&p| drawn.words[0][i][p] != drawn.words[1][i][p]);
        assert_eq!(differ.count(), 3);
        first[usize::from(drawn.at(i, Place::Io) < drawn.at(i, Place::S1))] += 1;
    }
    assert_eq!(first, [20, 20]);
    let again = Prompts::draw(&tokenizer, &config, 40, 7).unwrap();
    assert_eq!(again.clean, drawn.clean);
    assert_ne!(
        Prompts::draw(&tokenizer, &config, 40, 8).unwrap().clean,
        drawn.clean
    );
    assert!(Prompts::draw(&tokenizer, &config, 0, 7).is_err());

    let (_folder, few) = self::tokenizer(&names[..4]);
    let error = Prompts::draw(&few, &config, 2, 0).unwrap_err().to_string();
    assert!(error.starts_with("4 of "), "{error}");
}

// ---- Trained models

/// A trained LLaMA, of so few words that the prompts are made of its tokens by hand; it has not learned the task.
#[test]
fn a_trained_model_is_studied() {
    let Some(root) = reference::root() else {
        return;
    };
    let folder = root.join("language/stories260K");
    let tokenizer = Tokenizer::open(&folder).unwrap();
    let model = Model::<f32>::load(&folder).unwrap();
    let token = |word: &str| tokenizer.first_token(word).unwrap();
    let names = [" Lily", " Tim", " Timmy", " She", " They"].map(token);
    let text = |[a, b, c]: [usize; 3]| -> Vec<i64> {
        let [once, and, was, the, to] = [" Once", " and", " was", " the", " to"].map(token);
        vec![once, names[a], and, names[b], was, the, names[c], was, to]
    };
    let clean = [text([0, 1, 0]), text([0, 1, 1]), text([2, 1, 2])];
    let corrupt = [text([2, 3, 4]), text([2, 4, 3]), text([0, 3, 4])];
    let of = |i: usize| names[i] as usize;
    let pairs = [[of(1), of(0)], [of(0), of(1)], [of(1), of(2)]];
    let [clean, corrupt] = [clean, corrupt].map(|rows| Tokens::from_rows(&rows));
    let prompts = Prompts::of(clean, corrupt, &pairs, &|t| tokenizer.word(t)).unwrap();
    let found = ioi::study(&model, prompts, Par::Rayon, &|_| {}).unwrap();
    let story = found.story("stories260K");
    sound(&story);
    assert_eq!(published_with_ours(&story), story.published().count());
}

/// How many published figures name one of ours that is there, or one of a circuit that was not found.
fn published_with_ours(story: &Story) -> usize {
    let ours = |id: &str| story.figures.contains_key(id) || id.starts_with("circuit.");
    story.published().filter(|row| ours(&row.figure)).count()
}

/// SmolLM2-135M-Instruct, where it is at hand: `PATHSUM_SMOLLM2` names its folder.
#[test]
fn a_language_model_answers_what_is_drawn_for_it() {
    let Some(folder) = std::env::var_os("PATHSUM_SMOLLM2").map(PathBuf::from) else {
        eprintln!("skipped: PATHSUM_SMOLLM2 is not set");
        return;
    };
    let tokenizer = Tokenizer::open(&folder).unwrap();
    let model = Model::<f32>::load(&folder).unwrap();
    let drawn = Prompts::draw(&tokenizer, model.config(), 4, 0).unwrap();
    let logits = model.logits(&drawn.clean).unwrap();
    // Not on every prompt, but on most.
    let lead = |(i, &[io, s]): (usize, &[usize; 2])| {
        let row = logits.slice(&[i, drawn.end()]);
        row[io] - row[s]
    };
    let leads: Vec<f32> = drawn.names.iter().enumerate().map(lead).collect();
    assert!(leads.iter().filter(|&&lead| lead > 0.0).count() > leads.len() / 2);
    assert!(leads.iter().sum::<f32>() > 0.0, "{leads:?}");
}
