//! Damaged input of every kind: an error or a sound value, at once and in little memory, never a panic.
//!
//! The cases are seeded, so that a failure comes again: its message names the case. They are a program of their own,
//! since its allocator counts for everybody in it, and other tests at the same time would make a case take longer.

// The allocator below counts what each case allocates.
#![allow(unsafe_code)]

use pathsum::fixture::Fixture;
use pathsum::model::process::Processing;
use pathsum::{
    Config, Head, Hook, HookPattern, Model, Par, Precision, Run, Scalar, Tensor, TensorFile,
    Tokens, Weights, verify,
};
use rand::rngs::ChaCha8Rng;
use rand::{Rng, RngExt, SeedableRng};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// More than any case here has a use for: the files have some 10 KB.
const MOST_BYTES: isize = 64 << 20;
/// More than any case takes, also on a machine that does other things.
const MOST_TIME: Duration = Duration::from_secs(2);

// ---- The judge

/// The system's allocator, and what this thread holds of it: now, and at most.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

impl Counting {
    fn add(bytes: isize) {
        // A thread that ends may free memory after its counters are gone.
        let _ = HELD.try_with(|held| {
            held.set(held.get() + bytes);
            let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
        });
    }
}

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Counting::add(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Counting::add(layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // While it is moved, both are held.
        Counting::add(size as isize);
        Counting::add(-(layout.size() as isize));
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        Counting::add(-(layout.size() as isize));
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs one case and holds it to the limits; what it returns says whether the input was taken.
#[track_caller]
fn judge(case: usize, shown: impl Fn() -> String, f: impl FnOnce() -> bool) -> bool {
    let held = HELD.get();
    PEAK.set(held);
    let start = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(f));
    let (took, peak) = (start.elapsed(), PEAK.get() - held);
    let taken = result.unwrap_or_else(|_| panic!("case {case} panics: {}", shown()));
    assert!(took < MOST_TIME, "case {case} took {took:?}: {}", shown());
    assert!(
        peak < MOST_BYTES,
        "case {case} held {peak} bytes: {}",
        shown()
    );
    taken
}

/// That a share of the cases was taken and a share refused: otherwise they test nothing.
#[track_caller]
fn assert_both_ways(taken: usize, cases: usize) {
    let share = taken as f64 / cases as f64;
    assert!(
        (0.01..0.95).contains(&share),
        "{taken} of {cases} were taken"
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

// ---- Sound input to begin with

const CONFIG: &str = r#"{"n_layers": 1, "d_model": 4, "n_ctx": 5, "d_head": 2, "n_heads": 2, "d_mlp": 6,
    "act_fn": "solu_ln", "d_vocab": 7, "d_vocab_out": 3, "attention_dir": "causal",
    "normalization_type": "LN", "eps": 1e-05, "use_attn_scale": true, "attn_scale": 1.5, "pad_token": 2,
    "seed": 0, "gated_mlp": false, "scale_attn_by_inverse_layer_idx": false, "attn_only": false}"#;

fn config() -> Config {
    Config::from_json(CONFIG).unwrap()
}

/// The fields of [`CONFIG`]: name, and value as it stands.
fn fields() -> Vec<(String, String)> {
    let fields: serde_json::Map<_, _> = serde_json::from_str(CONFIG).unwrap();
    let pairs = fields.into_iter().map(|(n, v)| (n, v.to_string()));
    pairs.collect()
}

/// A model as a safetensors file.
fn model_file() -> Vec<u8> {
    let config = config();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let weights = Weights::<f32>::build(&config, |_, shape| {
        Ok(Tensor::from_fn(shape, |_| rng.random_range(-1.0..1.0)))
    });
    let folder = tempfile::tempdir().unwrap();
    let model = Model::new(config, weights.unwrap()).unwrap();
    model.save(folder.path()).unwrap();
    std::fs::read(folder.path().join("model.safetensors")).unwrap()
}

fn tokens_file() -> Vec<u8> {
    let ids: Vec<u8> = [0i64, 1, 2, 3, 4, 5, 6, 0]
        .iter()
        .flat_map(|id| id.to_le_bytes())
        .collect();
    let shape = vec![2, 4];
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::I64, shape, &ids);
    safetensors::serialize([("tokens", view.unwrap())], None).unwrap()
}

/// Reads everything that a file offers, whatever it is.
fn read_all(file: &TensorFile) {
    for name in file.names() {
        let shape = file.shape(name).unwrap().to_vec();
        let count = || shape.iter().product::<usize>();
        if let Ok(t) = file.float::<f64>(name) {
            assert_eq!((t.shape(), t.len()), (&shape[..], count()));
        }
        if let Ok(t) = file.float::<f32>(name) {
            assert_eq!((t.shape(), t.len()), (&shape[..], count()));
        }
        if let Ok((found, values)) = file.integer(name) {
            assert_eq!((&found, values.len()), (&shape, count()));
        }
    }
}

/// What can be done with a model that was loaded.
fn use_model(model: &Model<f32>) {
    let hooks = model.config().hooks();
    assert!(hooks.len() < 1000);
    let tokens = Tokens::from_rows(&[[0]]);
    let run = Run::new().cache("*").par(Par::Seq);
    if let Ok(out) = model.run(&tokens, run) {
        assert_eq!(out.cache.len(), hooks.len());
    }
}

// ---- Damage

/// Sizes that tend to break what reads them.
const SIZES: [&str; 16] = [
    "0",
    "1",
    "2",
    "7",
    "-1",
    "-9223372036854775808",
    "255",
    "65536",
    "2147483647",
    "2147483648",
    "2147483649",
    "4294967296",
    "4611686018427387904",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
];

/// JSON that is no size.
const VALUES: [&str; 18] = [
    "null",
    "true",
    "false",
    "1.5",
    "-0.0",
    "1e308",
    "1e-320",
    "1e400",
    "\"\"",
    "\"3\"",
    "\"gelu\"",
    "\"\\u0000\\n\"",
    "\"\\ud800\"",
    "[]",
    "[1]",
    "{}",
    "[[[[[[[[]]]]]]]]",
    "NaN",
];

fn pick<'a, T>(rng: &mut ChaCha8Rng, all: &'a [T]) -> &'a T {
    &all[rng.random_range(0..all.len())]
}

/// Flips, sets, cuts, copies and drops bytes.
fn damage(bytes: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
    for _ in 0..rng.random_range(1..4) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.random_range(0..bytes.len());
        let end = at + rng.random_range(0..=(bytes.len() - at).min(64));
        match rng.random_range(0..7) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = rng.next_u32() as u8,
            2 => bytes.truncate(at),
            3 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            4 => drop(bytes.drain(at..end)),
            5 => {
                let to = rng.random_range(0..=bytes.len() - (end - at));
                bytes.copy_within(at..end, to);
            }
            // Not UTF-8 whatever comes next.
            _ => bytes[at] = 0xff,
        }
    }
}

/// Puts another number in the place of one that a JSON text holds.
fn damage_number(json: &mut String, rng: &mut ChaCha8Rng) {
    let is_digit = |b: &u8| b.is_ascii_digit();
    let bytes = json.as_bytes();
    let starts: Vec<usize> = (0..bytes.len())
        .filter(|&i| is_digit(&bytes[i]) && (i == 0 || !is_digit(&bytes[i - 1])))
        .collect();
    if starts.is_empty() {
        return;
    }
    let start = *pick(rng, &starts);
    let len = bytes[start..].iter().take_while(|b| is_digit(b)).count();
    let with = match rng.random_range(0..4) {
        0 => *pick(rng, &VALUES),
        _ => *pick(rng, &SIZES),
    };
    json.replace_range(start..start + len, with);
}

/// A tensor as a safetensors header describes it.
#[derive(Clone)]
struct Entry {
    name: String,
    dtype: String,
    shape: String,
    start: String,
    end: String,
}

fn entries(header: &[u8]) -> Vec<Entry> {
    let header: serde_json::Map<_, _> = serde_json::from_slice(header).unwrap();
    let entry = |(name, value): (String, serde_json::Value)| Entry {
        name,
        dtype: value["dtype"].as_str().unwrap().into(),
        shape: value["shape"].to_string(),
        start: value["data_offsets"][0].to_string(),
        end: value["data_offsets"][1].to_string(),
    };
    header.into_iter().map(entry).collect()
}

/// Changes what a header says of its tensors; the text stays JSON, nearly always.
fn damage_header(header: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    const DTYPES: [&str; 16] = [
        "F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U8", "BOOL", "C64", "F4",
        "F8_E4M3", "f32", "",
    ];
    let mut all = entries(header);
    for _ in 0..rng.random_range(1..3) {
        let (i, j) = (
            rng.random_range(0..all.len()),
            rng.random_range(0..all.len()),
        );
        match rng.random_range(0..11) {
            0 => damage_number(&mut all[i].shape, rng),
            1 => {
                let axes = rng.random_range(0..6);
                let axes: Vec<&str> = (0..axes).map(|_| *pick(rng, &SIZES)).collect();
                all[i].shape = format!("[{}]", axes.join(","));
            }
            2 => damage_number(&mut all[i].start, rng),
            3 => damage_number(&mut all[i].end, rng),
            // Reversed.
            4 => {
                all[i] = Entry {
                    start: all[i].end.clone(),
                    end: all[i].start.clone(),
                    ..all[i].clone()
                }
            }
            // Overlapping: two tensors of the same bytes.
            5 => {
                all[i] = Entry {
                    start: all[j].start.clone(),
                    end: all[j].end.clone(),
                    ..all[i].clone()
                }
            }
            // Two of one name.
            6 => all[i].name = all[j].name.clone(),
            7 => all.push(all[i].clone()),
            8 => all[i].dtype = pick(rng, &DTYPES).to_string(),
            9 => {
                const NAMES: [&str; 6] = [
                    "",
                    "__metadata__",
                    "\\n\\u0000",
                    "embed.w_e",
                    "blocks.0.attn.mask",
                    "blocks.9.ln1.w",
                ];
                all[i].name = match rng.random_range(0..20) {
                    0 => "n".repeat(300_000),
                    _ => pick(rng, &NAMES).to_string(),
                };
            }
            _ => all[i].shape = pick(rng, &VALUES).to_string(),
        }
    }
    let written = all.iter().map(|e| {
        format!(
            r#""{}":{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}}"#,
            e.name, e.dtype, e.shape, e.start, e.end
        )
    });
    format!("{{{}}}", written.collect::<Vec<_>>().join(",")).into_bytes()
}

/// One damaged safetensors file.
fn damaged_file(sound: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let length = u64::from_le_bytes(sound[..8].try_into().unwrap()) as usize;
    let (mut header, mut data) = (sound[8..8 + length].to_vec(), sound[8 + length..].to_vec());
    let mut claimed = None;
    match rng.random_range(0..12) {
        // Values can be anything.
        0 => {
            let at = rng.random_range(0..data.len());
            data[at] ^= 1 << rng.random_range(0..8);
        }
        1..3 => damage(&mut data, rng),
        3..5 => damage(&mut header, rng),
        5 => {
            let mut text = String::from_utf8(header).unwrap();
            damage_number(&mut text, rng);
            header = text.into_bytes();
        }
        6 => {
            let size = pick(rng, &SIZES)
                .parse::<u64>()
                .unwrap_or(length as u64 + 1);
            claimed = Some(size);
        }
        7 => claimed = Some(rng.random_range(0..2 * sound.len() as u64)),
        _ => header = damage_header(&header, rng),
    }
    let claimed = claimed.unwrap_or(header.len() as u64);
    [&claimed.to_le_bytes()[..], &header, &data].concat()
}

// ---- The cases

#[test]
fn model_files() {
    const CASES: usize = 6000;
    /// As many as these go through a file and its mapping too.
    const ON_DISK: usize = 500;
    let sound = model_file();
    let mut rng = ChaCha8Rng::seed_from_u64(40);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(folder.path().join("config.json"), CONFIG).unwrap();
    let (mut opened, mut loaded) = (0, 0);
    for case in 0..CASES {
        let bytes = damaged_file(&sound, &mut rng);
        let mut is_open = false;
        loaded += usize::from(judge(
            case,
            || hex(&bytes),
            || {
                let Ok(file) = TensorFile::from_bytes("memory", bytes.clone()) else {
                    return false;
                };
                is_open = true;
                read_all(&file);
                let model = Model::<f32>::from_file(config(), &file);
                model.as_ref().map(use_model).is_ok()
            },
        ));
        opened += usize::from(is_open);
        if case < ON_DISK {
            std::fs::write(&path, &bytes).unwrap();
            let found = judge(case, || hex(&bytes), || TensorFile::open(&path).is_ok());
            assert_eq!(found, is_open, "case {case}");
            judge(
                case,
                || hex(&bytes),
                || Model::<f64>::load(folder.path()).is_ok(),
            );
        }
    }
    assert_both_ways(opened, CASES);
    assert_both_ways(loaded, CASES);
    println!("{opened} of {CASES} opened, {loaded} loaded");
}

#[test]
fn every_truncation_of_a_model_file_is_refused() {
    let sound = model_file();
    for len in 0..sound.len() {
        let bytes = sound[..len].to_vec();
        let opened = judge(
            len,
            || "truncated".into(),
            || TensorFile::from_bytes("memory", bytes).is_ok(),
        );
        assert!(!opened, "{len} of {} bytes are enough", sound.len());
    }
}

#[test]
fn configurations() {
    const CASES: usize = 6000;
    let file = TensorFile::from_bytes("memory", model_file()).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(41);
    let (mut read, mut loaded) = (0, 0);
    for case in 0..CASES {
        let json = match rng.random_range(0..4) {
            0 => {
                let mut bytes = CONFIG.as_bytes().to_vec();
                damage(&mut bytes, &mut rng);
                String::from_utf8_lossy(&bytes).into_owned()
            }
            1 => {
                let mut text = CONFIG.to_string();
                damage_number(&mut text, &mut rng);
                text
            }
            _ => damaged_fields(&mut rng),
        };
        let mut is_read = false;
        loaded += usize::from(judge(
            case,
            || json.clone(),
            || {
                let Ok(config) = Config::from_json(&json) else {
                    return false;
                };
                is_read = true;
                // What was read can be written and read again.
                let again = Config::from_json(&config.to_json());
                assert_eq!(again.unwrap(), config);
                let model = Model::<f32>::from_file(config, &file);
                model.as_ref().map(use_model).is_ok()
            },
        ));
        read += usize::from(is_read);
    }
    assert_both_ways(read, CASES);
    assert_both_ways(loaded, CASES);
    println!("{read} of {CASES} read, {loaded} loaded");
}

/// Every bit of a number that changes what is computed.
#[test]
fn numbers_of_configurations_are_read_exactly() {
    const CASES: usize = 4000;
    let mut rng = ChaCha8Rng::seed_from_u64(45);
    for case in 0..CASES {
        // The root of a head's width, which is what stands in most files; or anything.
        let scale = match case {
            0..1000 => (case as f64 + 1.0).sqrt(),
            _ => f64::from_bits(rng.random::<u64>()).abs(),
        };
        if scale.is_finite() && scale > 0.0 {
            let json = CONFIG
                .replace("\"eps\": 1e-05", &format!("\"eps\": {scale:e}"))
                .replace("\"attn_scale\": 1.5", &format!("\"attn_scale\": {scale}"));
            let config = Config::from_json(&json).unwrap();
            assert_eq!(
                (config.eps, config.attn_scale),
                (scale, scale),
                "case {case}"
            );
            assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
        }
    }
}

/// [`CONFIG`] with some values replaced, and fields doubled, dropped or invented.
fn damaged_fields(rng: &mut ChaCha8Rng) -> String {
    const FIELDS: [&str; 8] = [
        "n_layers",
        "d_mlp",
        "n_key_value_heads",
        "num_experts",
        "rotary_dim",
        "n_head",
        "",
        "\\n",
    ];
    let mut all = fields();
    for _ in 0..rng.random_range(1..4) {
        let i = rng.random_range(0..all.len());
        let size = pick(rng, &SIZES).to_string();
        match rng.random_range(0..6) {
            0..2 => all[i].1 = size,
            2 => all[i].1 = pick(rng, &VALUES).to_string(),
            3 => all.push((all[i].0.clone(), size)),
            4 => drop(all.remove(i)),
            _ => all.push((pick(rng, &FIELDS).to_string(), size)),
        }
    }
    let written = all.iter().map(|(n, v)| format!("\"{n}\": {v}"));
    format!("{{{}}}", written.collect::<Vec<_>>().join(", "))
}

/// Sizes that no file can hold, each on its own: refused from the file's header, not by trying.
#[test]
fn enormous_configurations() {
    let file = TensorFile::from_bytes("memory", model_file()).unwrap();
    let names: Vec<String> = fields().into_iter().map(|(n, _)| n).collect();
    for (case, name) in names.iter().enumerate() {
        for size in [1u64 << 20, 1 << 31] {
            let mut all: serde_json::Map<_, _> = serde_json::from_str(CONFIG).unwrap();
            all.insert(name.clone(), size.into());
            let json = serde_json::to_string(&all).unwrap();
            judge(
                case,
                || json.clone(),
                || {
                    let config = Config::from_json(&json);
                    config
                        .and_then(|c| Model::<f64>::from_file(c, &file))
                        .is_ok()
                },
            );
        }
    }
    // With no tensors at all, every name is missing.
    let empty = safetensors::serialize(
        Vec::<(String, safetensors::tensor::TensorView<'_>)>::new(),
        None,
    );
    let empty = TensorFile::from_bytes("memory", empty.unwrap()).unwrap();
    let json = CONFIG.replace("\"n_layers\": 1", "\"n_layers\": 65536");
    let config = Config::from_json(&json).unwrap();
    judge(
        0,
        || json.clone(),
        || {
            let error = Model::<f64>::from_file(config, &empty).unwrap_err();
            assert_eq!(
                error.to_string(),
                "tensor `embed.W_E` is missing, expected shape [7, 4]"
            );
            false
        },
    );
}

#[test]
fn tokens_files() {
    const CASES: usize = 4000;
    let sound = tokens_file();
    let model = TensorFile::from_bytes("memory", model_file())
        .and_then(|file| Model::<f32>::from_file(config(), &file))
        .unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(42);
    let (mut read, mut ran) = (0, 0);
    for case in 0..CASES {
        let bytes = damaged_file(&sound, &mut rng);
        let mut is_read = false;
        ran += usize::from(judge(
            case,
            || hex(&bytes),
            || {
                let file = TensorFile::from_bytes("memory", bytes.clone());
                let Ok(tokens) = file.and_then(|file| Tokens::from_file(&file)) else {
                    return false;
                };
                is_read = true;
                assert_eq!(tokens.ids().len(), tokens.batch() * tokens.pos());
                let tokens = tokens.truncate(3);
                model.run(&tokens, Run::new().par(Par::Seq)).is_ok()
            },
        ));
        read += usize::from(is_read);
    }
    assert_both_ways(read, CASES);
    assert_both_ways(ran, CASES);
    println!("{read} of {CASES} read, {ran} ran");
}

/// Values that overflow, vanish or are no numbers: every step ends, and every check gives its verdicts.
#[test]
fn extreme_weights() {
    const ROUNDS: u64 = 12;
    const CONFIGS: [&str; 4] = [
        r#"{"n_layers": 1, "d_model": 1, "n_ctx": 1, "d_head": 5, "n_heads": 3, "d_vocab": 2, "act_fn": "silu"}"#,
        r#"{"n_layers": 2, "d_model": 4, "n_ctx": 3, "d_head": 2, "d_vocab": 3, "act_fn": "solu_ln", "pad_token": 0}"#,
        r#"{"n_layers": 1, "d_model": 3, "n_ctx": 4, "d_head": 3, "d_vocab": 1, "attn_only": true, "normalization_type": null}"#,
        r#"{"n_layers": 0, "d_model": 2, "n_ctx": 2, "d_head": 1, "d_vocab": 4, "attn_only": true, "normalization_type": "LNPre"}"#,
    ];
    let mut case = 0;
    let mut refuted = 0;
    for round in 0..ROUNDS {
        for json in CONFIGS {
            for size in [
                0.0,
                1.0,
                1e30,
                1e300,
                1e-30,
                1e-300,
                f64::NAN,
                f64::INFINITY,
            ] {
                case += 1;
                let shown = || format!("{json} with {size:e}");
                refuted += usize::from(judge(case, shown, || {
                    let narrow = check_extreme::<f32>(json, size, round);
                    check_extreme::<f64>(json, size, round) || narrow
                }));
            }
        }
    }
    assert_both_ways(refuted, case);
}

/// Whether any identity is refuted on a random model in which some values are of this size.
fn check_extreme<T: Scalar>(json: &str, size: f64, seed: u64) -> bool {
    let config = Config::from_json(json).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let weights = Weights::build(&config, |_, shape| {
        Ok(Tensor::from_fn(shape, |_| {
            let x = rng.random_range(-1.0..1.0);
            let is_extreme = rng.random_bool(0.3);
            T::from_f64(if is_extreme { x * size } else { x })
        }))
    });
    let model = Model::<T>::new(config, weights.unwrap()).unwrap();
    for step in Processing::ALL {
        // A decomposition that overflows is an error.
        let _ = step.apply(&mut model.clone());
    }
    let tokens = verify::default_tokens(&model);
    let findings = verify::check(&model, &tokens, Par::Seq, &mut |_, _| {}).unwrap();
    // JSON has no infinities: what is written must be readable.
    let json = serde_json::to_string(&findings).unwrap();
    let read: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    assert_eq!(read.len(), findings.len());
    let refuted = findings.iter().any(|f| f.refuted());
    assert!(!refuted || size.abs() > 1.0 || !size.is_finite(), "{json}");
    refuted
}

/// A name put together from pieces of names, or of anything.
fn random_name(rng: &mut ChaCha8Rng, pieces: &[&str]) -> String {
    const NOISE: [&str; 20] = [
        "*",
        "?",
        "**",
        "*a",
        ".",
        "..",
        "-",
        "+",
        " ",
        "0",
        "1",
        "00",
        "18446744073709551616",
        "\n",
        "\0",
        "é",
        "\u{1f600}",
        "blocks.",
        "_",
        "A",
    ];
    let mut name = String::new();
    for _ in 0..rng.random_range(0..8) {
        name += match rng.random_range(0..3) {
            0 => *pick(rng, &NOISE),
            _ => *pick(rng, pieces),
        };
    }
    name
}

#[test]
fn hook_names_and_patterns() {
    const CASES: usize = 5000;
    const PIECES: [&str; 12] = [
        "blocks.", "0", "1.", "attn.", "hook_", "q", "resid_", "pre", "ln1.", "mlp.", "scale", "*",
    ];
    let hooks = config().hooks();
    let mut rng = ChaCha8Rng::seed_from_u64(43);
    let mut covering = 0;
    for case in 0..CASES {
        let name = match rng.random_range(0..4) {
            0 => {
                let mut bytes = pick(&mut rng, &hooks).to_string().into_bytes();
                damage(&mut bytes, &mut rng);
                String::from_utf8_lossy(&bytes).into_owned()
            }
            // A part of a name, the rest by wildcards.
            1 => {
                let name = pick(&mut rng, &hooks).to_string();
                let at = rng.random_range(0..name.len());
                let end = rng.random_range(at..=name.len());
                format!("{}*{}", &name[..at], &name[end..])
            }
            _ => random_name(&mut rng, &PIECES),
        };
        covering += usize::from(judge(
            case,
            || name.clone(),
            || {
                if let Ok(hook) = name.parse::<Hook>() {
                    assert_eq!(hook.to_string(), name);
                }
                let Ok(pattern) = name.parse::<HookPattern>() else {
                    return false;
                };
                assert_eq!(pattern.to_string(), name);
                let covered = pattern.select(&hooks).unwrap_or_default();
                // The same as matching by the definition.
                for hook in &hooks {
                    assert_eq!(
                        covered.contains(hook),
                        covers(&name, &hook.to_string()),
                        "{hook}"
                    );
                }
                !covered.is_empty()
            },
        ));
    }
    assert_both_ways(covering, CASES);
    println!("{covering} of {CASES} cover a hook");
}

/// Wildcards by their definition, position by position.
fn covers(pattern: &str, name: &str) -> bool {
    let mut ends: Vec<bool> = (0..=name.len()).map(|i| i == 0).collect();
    for p in pattern.bytes() {
        let before = ends.clone();
        for (i, end) in ends.iter_mut().enumerate() {
            *end = match p {
                b'*' => before[..=i].contains(&true),
                b'?' => i > 0 && before[i - 1],
                p => i > 0 && before[i - 1] && name.as_bytes()[i - 1] == p,
            };
        }
    }
    ends[name.len()]
}

/// Patterns that take a matcher with backtracking longer than the universe has.
#[test]
fn patterns_that_are_made_to_take_long() {
    let hooks = config().hooks();
    for (case, pattern) in [
        format!("{}b", "*a".repeat(40)),
        format!("{}b", "*o".repeat(100_000)),
        format!("{}b", "*?".repeat(100_000)),
        "*".repeat(1_000_000),
        format!("{}x", "*".repeat(1_000_000)),
        "?".repeat(1_000_000),
        format!("*{}*", "hook_".repeat(100_000)),
        // Not a pattern: a name, as far from all others as can be.
        "blocks.0.attn.hook_q".repeat(50_000),
    ]
    .into_iter()
    .enumerate()
    {
        judge(
            case,
            || pattern.chars().take(40).collect(),
            || {
                let parsed = pattern.parse::<HookPattern>();
                parsed.and_then(|p| p.select(&hooks)).is_ok()
            },
        );
    }
}

/// What is understood is printed as it was written.
fn round_trip<N: FromStr + Display>(name: &str, other: Option<&str>) -> bool {
    let Ok(parsed) = name.parse::<N>() else {
        return false;
    };
    let printed = parsed.to_string();
    assert!(
        printed == name || other == Some(printed.as_str()),
        "{name} is taken for {printed}"
    );
    true
}

#[test]
fn heads_steps_fixtures_and_precisions() {
    const CASES: usize = 4000;
    const PIECES: [&str; 14] = [
        "0",
        "1",
        "12",
        ".",
        "fold_",
        "ln",
        "layer_norm",
        "center_",
        "unembed",
        "value_biases",
        "induction",
        "f64",
        "f",
        "32",
    ];
    let mut rng = ChaCha8Rng::seed_from_u64(44);
    let mut taken = [0; 4];
    for case in 0..CASES {
        let name = random_name(&mut rng, &PIECES);
        judge(
            case,
            || name.clone(),
            || {
                // `fold_ln` is TransformerLens's other name for the step.
                let alias = (name == "fold_ln").then_some("fold_layer_norm");
                for (count, took) in taken.iter_mut().zip([
                    round_trip::<Head>(&name, None),
                    round_trip::<Processing>(&name, alias),
                    round_trip::<Fixture>(&name, None),
                    round_trip::<Precision>(&name, None),
                ]) {
                    *count += usize::from(took);
                }
                true
            },
        );
    }
    assert!(taken.iter().all(|&n| n > 0), "{taken:?}");
    for (case, long) in ["1", "0.0", "fold_", "é"].into_iter().enumerate() {
        let long = long.repeat(500_000);
        judge(
            case,
            || "a long name".into(),
            || {
                round_trip::<Head>(&long, None)
                    || round_trip::<Processing>(&long, None)
                    || round_trip::<Fixture>(&long, None)
                    || round_trip::<Precision>(&long, None)
            },
        );
    }
}
