//! What is wrong with tokens, names and options.

use crate::program::{Scratch, integers, one_tensor, table};

#[test]
fn tokens_that_the_model_cannot_take() {
    use safetensors::Dtype::{F32, U64};
    let s = Scratch::new();
    s.write("l", b"what was there");
    let bad = |file: Vec<u8>, said: &str| {
        s.write("wrong", &file);
        for line in [
            "run model --tokens wrong --out l",
            "run model --tokens wrong --out new",
            "cache model --tokens wrong --out l --names *",
            "check model --tokens wrong",
        ] {
            s.bad(line, &format!("wrong: {said}"));
        }
    };
    let file = one_tensor("tokens", F32, &[1, 2], &[0; 8]);
    bad(file, "tensor `tokens` holds F32, expected integers");
    let file = one_tensor("tokens", U64, &[1, 1], &[0xff; 8]);
    bad(
        file,
        "tensor `tokens` holds U64 of 2^63 or more, expected integers",
    );
    let file = integers("token", &[1, 2], &[1, 2]);
    bad(file, "unknown tensor `tokens`; did you mean `token`?");

    let tokens = |shape: &[usize], ids: &[i64]| integers("tokens", shape, ids);
    let file = tokens(&[1, 1, 2], &[1, 2]);
    bad(
        file,
        "tensor `tokens` has shape [1, 1, 2], expected [batch, pos]",
    );
    let file = tokens(&[], &[1]);
    bad(file, "tensor `tokens` has shape [], expected [batch, pos]");
    let file = tokens(&[2, 3], &[1, 2, 3, 4, 5, 7]);
    bad(
        file,
        "token 7 of sequence 1 at position 2 is out of range … 0..=6",
    );
    let file = tokens(&[2, 3], &[1, 2, 3, -4, 5, 6]);
    bad(
        file,
        "token -4 of sequence 1 at position 0 is out of range … 0..=6",
    );
    let file = tokens(&[1, 7], &[0; 7]);
    bad(
        file,
        "the sequences have 7 positions, this model takes 1 to 6 (n_ctx)",
    );
    let file = tokens(&[3, 0], &[]);
    bad(
        file,
        "the sequences have 0 positions, this model takes 1 to 6 (n_ctx)",
    );
    let file = tokens(&[0, 3], &[]);
    bad(file, "`tokens` holds no sequences, expected at least 1");
}

#[test]
fn hooks_that_the_model_does_not_have() {
    let s = Scratch::new();
    let bad = |name: &str, said: &str| {
        let said = format!("unknown hook `{said}");
        let args = [
            "cache", "model", "--tokens", "data", "--out", "c", "--names",
        ];
        // Alone, and behind one that is right.
        s.bad_args(&[&args[..], &[name]].concat(), &said);
        s.bad_args(&[&args[..], &["hook_embed", name]].concat(), &said);
    };
    for (name, said) in table(
        "blocks.0.attn.hook_patern => ; did you mean `blocks.0.attn.hook_pattern`?
         blocks.1.hook_resid_pst   => ; did you mean `blocks.1.hook_resid_post`?
         blocks.2.attn.hook_q      => in this model; did you mean `blocks.0.attn.hook_q`?
         blocks.2.*                => in this model
         zzz*                      => in this model; there are
         *a*a*a*a*a*a*a*a*a*a*a*b  => in this model",
    ) {
        bad(name, &format!("{name}`…{said}"));
    }
    bad("", "`");
    bad(&"blocks.".repeat(10_000), "blocks.blocks.");
}

#[test]
fn steps_and_options_that_there_are_not() {
    let s = Scratch::new();
    for (line, said) in table(
        "process model out --steps fold_layernorm => unknown step `fold_layernorm`; did you mean `fold_layer_norm`?
         process model out --steps center_unembed,, => unknown step ``; there are: fold_layer_norm, 
         process model out --steps    => a value is required for '--steps <STEP>'
         inf model                    => unrecognized subcommand 'inf' … 'info'
         info                         => required arguments were not provided: <MODEL>
         run model                    => no sequences were given, expected --prompt TEXT, --tokens FILE or
         process model                => required arguments were not provided: <OUT_DIR>
         cache model --tokens data --out c => required arguments were not provided: --names <PATTERN>...
         info model model             => unexpected argument 'model'
         info model --jsno            => unexpected argument '--jsno' … '--json'
         info model --dtype f16       => invalid value 'f16' for '--dtype <DTYPE>' … there are: f64, f32
         info model --dtype F64       => invalid value 'F64' for '--dtype <DTYPE>' … did you mean `f64`?",
    ) {
        s.bad(line, said);
    }
    let said = "invalid value 'a b' for '--dtype <DTYPE>'";
    s.bad_args(&["info", "model", "--dtype", "a\nb"], said);
    let said = "invalid value '' for '--dtype <DTYPE>'";
    s.bad_args(&["info", "model", "--dtype", ""], said);
    for n in ["0", "1025", "99999999999999999999", "two", "1.5"] {
        let said = format!("'{n}' for '--threads <N>': expected a whole number from 1 to 1024");
        s.bad(&format!("info model --threads {n}"), &said);
    }
    for n in ["0", "two"] {
        let said = format!("'{n}' for '--limit <N>': expected a whole number of at least 1");
        s.bad(&format!("check model --limit {n}"), &said);
    }
}
