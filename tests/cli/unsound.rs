//! What is wrong with a model.

use crate::program::{CONFIG, Scratch, config, table};
use pathsum::Tensor;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

#[test]
fn files_that_are_not_there() {
    let s = Scratch::new();
    s.write("empty/README", b"");
    s.write("half/config.json", CONFIG.as_bytes());
    for (line, said) in table(
        "info nowhere                    => nowhere: there is no such folder or file, expected a model folder
         check nowhere/model.pt          => nowhere/model.pt: there is no such folder or file
         info empty                      => empty: has no config.json, expected a folder with config.json and
         info half                       => half: has no model.safetensors, expected a folder with config.json
         info fixture:inductoin          => unknown fixture `inductoin`; did you mean `induction`?
         info fixture:                   => unknown fixture ``; there are: induction
         run model --tokens no --out l   => no: No such file
         run model --tokens model --out l => model: is a folder, expected a file",
    ) {
        s.bad(line, said);
    }
    // A name that would break the line is shown on one.
    let said = r"no\nsuch\u{1b}[31m: there is no such folder or file";
    s.bad_args(&["info", "no\nsuch\x1b[31m"], said);
}

#[test]
fn a_state_dict_needs_a_configuration_and_a_folder_has_one() {
    let s = Scratch::new();
    s.write("lone/model.pt", &s.read("model.pt"));
    for (line, said) in table(
        "info lone/model.pt              => lone/model.pt: a state dict has no configuration, expected --config
         info lone/model.pt --config no  => no: No such file
         info lone/model.pt --config model => model: Is a directory
         info model --config config.json => --config config.json: a folder has its own
         process model out --config config.json => --config config.json: a folder has its own
         info fixture:induction --config config.json => --config config.json: an embedded model has its own",
    ) {
        s.bad(line, said);
    }
}

#[test]
fn unsound_model_files() {
    let s = Scratch::new();
    s.wrong_config(CONFIG);
    let sound = s.read("model/model.safetensors");
    let header = u64::from_le_bytes(sound[..8].try_into().unwrap()) as usize;
    let mut flipped = sound.clone();
    flipped[20] = 0xff;
    let mut long = sound.clone();
    long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    const UNSOUND: &str = "not a sound safetensors file";
    for (bytes, said) in [
        (&b""[..], "is empty, expected a safetensors file"),
        (&sound[..5], UNSOUND),
        (&sound[..100], UNSOUND),
        (&sound[..8 + header], UNSOUND),
        (&sound[..sound.len() - 1], UNSOUND),
        (&[&sound[..], b"x"].concat(), UNSOUND),
        (&flipped, UNSOUND),
        (&long, UNSOUND),
        (b"No model, but long enough to look like one.", UNSOUND),
        (&[0; 64], UNSOUND),
    ] {
        s.write("wrong/model.safetensors", bytes);
        for line in ["info wrong", "check wrong", "process wrong out"] {
            s.bad(line, &format!("wrong/model.safetensors: {said}"));
        }
        s.write("wrong.safetensors", bytes);
        for line in [
            "info wrong.safetensors --config model/config.json",
            "run model --tokens wrong.safetensors --out l",
        ] {
            s.bad(line, &format!("wrong.safetensors: {said}"));
        }
    }
}

#[cfg(feature = "torch")]
#[test]
fn unsound_state_dicts() {
    let s = Scratch::new();
    let sound = s.read("model.pt");
    for (bytes, said) in [
        (&b""[..], "is empty, expected a state dict"),
        (
            &sound[..sound.len() / 2],
            "is a truncated or damaged archive, expected a state dict",
        ),
        (
            b"Nothing of the sort.",
            "is not a sound PyTorch checkpoint, expected a state dict",
        ),
    ] {
        s.write("wrong.pt", bytes);
        s.bad("info wrong.pt", &format!("wrong.pt: {said}"));
        s.bad("convert wrong.pt out", &format!("wrong.pt: {said}"));
    }
    s.write("lone/model.pt", &sound);
    s.write("other.json", config(json!({})).as_bytes());
    for (line, said) in table(
        "convert nowhere.pt out     => nowhere.pt: No such file
         convert lone/model.pt out  => lone/model.pt: a state dict has no configuration, expected --config FILE
         convert model.pt out --config other.json => model.pt: tensor `blocks.1.ln1.w` is missing",
    ) {
        s.bad(line, said);
    }
}

#[test]
fn tensors_that_the_configuration_does_not_describe() {
    let s = Scratch::new();
    let bad = |said: &str| s.bad("info wrong", &format!("wrong/model.safetensors: {said}"));
    s.wrong_tensors(|t| drop(t.remove("blocks.1.attn.b_O")));
    bad("tensor `blocks.1.attn.b_O` is missing, expected shape [8]");
    s.wrong_tensors(|t| {
        let b_O = t.remove("blocks.1.attn.b_O").unwrap();
        t.insert("blocks.1.attn.b_o".into(), b_O);
    });
    bad("tensor `blocks.1.attn.b_o` has no place … did you mean `blocks.1.attn.b_O`?");
    let insert = |name: &str, shape: &[usize]| {
        s.wrong_tensors(|t| drop(t.insert(name.into(), Tensor::zeros(shape))));
    };
    insert("blocks.2.attn.b_O", &[8]);
    bad("tensor `blocks.2.attn.b_O` has no place in this model … did you mean");
    insert("unembed.W_U", &[8, 7]);
    bad("tensor `unembed.W_U` has shape [8, 7], expected [8, 5]");
    insert("unembed.b_U", &[5, 1]);
    bad("tensor `unembed.b_U` has shape [5, 1], expected [5]");
    // Names are a file's own words: they must not break the line, nor fill the screen.
    insert("a\nb\x1b[2J", &[1]);
    bad(r"tensor `a\nb\u{1b}[2J` has no place in this model");
    insert(&"W".repeat(1 << 20), &[1]);
    bad("tensor `WWW … has no place in this model");

    for (dtype, bytes, found) in [
        (safetensors::Dtype::I32, [0; 20].as_slice(), "I32"),
        (safetensors::Dtype::C64, &[0; 40], "C64"),
    ] {
        let sound = s.read("model/model.safetensors");
        let sound = safetensors::SafeTensors::deserialize(&sound).unwrap();
        let other = TensorView::new(dtype, vec![5], bytes).unwrap();
        let views = sound.iter().map(|(name, view)| match name {
            "unembed.b_U" => (name, other.clone()),
            _ => (name, view),
        });
        let file = safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap();
        s.write("wrong/model.safetensors", &file);
        bad(&format!(
            "tensor `unembed.b_U` holds {found}, expected F64, F32, F16 or BF16"
        ));
    }
}

#[test]
fn configurations_that_make_no_sense() {
    let s = Scratch::new();
    let bad = |config: &str, said: &str| {
        s.wrong_config(config);
        let said = format!("wrong/config.json: config{said}");
        s.bad("info wrong", &said);
        // The same file, given for a checkpoint.
        let line = "info model/model.safetensors --config wrong/config.json";
        s.bad(line, &said);
    };
    bad("", ": not JSON");
    bad(&CONFIG[..CONFIG.len() / 2], ": not JSON");
    bad(&"[".repeat(100_000), ": not JSON");
    bad("[]", ": expected a JSON object");
    bad(
        &config(json!({"d_model": "absent"})),
        " field `d_model`: is missing",
    );
    for (field, said) in table(
        r#"d_vocab "absent"  => is missing
           act_fn "absent"   => is missing
           n_layers "2"      => "2", expected a number of layers up to 65536
           n_layers -1       => -1, expected a number of layers
           n_layers 1.5      => 1.5, expected a number of layers
           n_layers 1e12     => 1000000000000.0, expected a number of layers
           d_model null      => is missing
           d_model 0         => 0, expected a whole number from 1 to 2147483648
           d_head 18446744073709551615 => 18446744073709551615, expected a whole number from 1
           attn_only "no"    => "no", expected true or false
           eps "small"       => "small", expected a number
           eps -1.5          => -1.5, expected a number that is not negative
           act_fn "swish"    => "swish" … expected one of `relu`, … `solu_ln`
           normalization_type "XY" => "XY" … expected one of `LN`, `LNPre`, `RMS`, `RMSPre`
           positional_embedding_type "shortformer" => "shortformer" … expected one of `standard`, `rotary`
           use_local_attn true => true, expected a window_size, and a type for each layer
           load_in_4bit true => true is not covered, expected false
           attn_scale 0      => 0, expected a number other than 0
           pad_token 7       => 7 is no token: d_vocab is 7"#,
    ) {
        let (field, value) = field.split_once(' ').unwrap();
        let value: Value = serde_json::from_str(value.trim()).unwrap();
        let said = format!(" field `{field}`: {said}");
        bad(&config(json!({field: value})), &said);
    }
    // A configuration of another model.
    for (field, said) in table(
        r#"n_layers 1          => `blocks.1.attn.W_K` has no place in this model
           n_layers 3          => `blocks.2.ln1.w` is missing, expected shape [8]
           n_layers 60000      => `blocks.2.ln1.w` is missing, expected shape [8]
           n_ctx 2147483648    => `pos_embed.W_pos` has shape [6, 8], expected [2147483648, 8]
           attn_only true      => `blocks.0.ln2.b` has no place in this model
           normalization_type "LNPre" => `blocks.0.ln1.b` has no place in this model"#,
    ) {
        let (field, value) = field.split_once(' ').unwrap();
        let value: Value = serde_json::from_str(value.trim()).unwrap();
        s.wrong_config(&config(json!({field: value})));
        let said = format!("wrong/model.safetensors: tensor {said}");
        s.bad("info wrong", &said);
    }
    for (field, said) in [
        ("n_head", "`n_head`; did you mean `n_heads`?"),
        ("no\nsuch", r"`no\nsuch`; there are"),
    ] {
        s.wrong_config(&config(json!({field: 2})));
        let said = format!("wrong/config.json: unknown config field {said}");
        s.bad("info wrong", &said);
    }
    s.write("wrong/config.json", b"\xff\xfe{}");
    let said = "wrong/config.json: stream did not contain valid UTF-8";
    s.bad("info wrong", said);
}
