//! Runs a model, keeps what is to be looked at, and looks: which number of a list each head finds next.

use pathsum::fixture::Fixture;
use pathsum::task::BuiltIn;
use pathsum::{Hook, Model, Run, Tokens};

fn main() -> pathsum::Result<()> {
    // `Model::<f64>::load("folder")?` reads one of your own: a `config.json` and a `model.safetensors`.
    let model: Model<f64> = Fixture::SortedList.load();
    let task = BuiltIn::SortedList.task();
    let list = task.parse("3 1 4 15 9 26 5 35 8 50")?;
    let tokens = Tokens::from_rows(&[&list]);

    // Hooks have TransformerLens's names, with `*` for any part; "*" alone keeps everything.
    let keep = Run::new()
        .cache("blocks.*.attn.hook_pattern")
        .cache("ln_final.hook_scale");
    let out = model.run(&tokens, keep)?;

    // [batch, head, query, key]
    let pattern = &out.cache[Hook::Pattern(0)];
    let vocabulary = task.vocabulary();
    for query in task.read_at() {
        // [batch, pos, d_vocab_out]
        let logits = out.logits.slice(&[0, query]);
        let says = (0..logits.len()).fold(0, |a, b| if logits[b] > logits[a] { b } else { a });
        print!("at {:>3}: says {says:>2}", vocabulary.name(list[query]));
        for head in 0..model.config().n_heads {
            let row = pattern.slice(&[0, head, query]);
            let key = (0..=query).fold(0, |a, b| if row[b] > row[a] { b } else { a });
            print!(
                ", head {head} looks at {:>3} with {:.2}",
                vocabulary.name(list[key]),
                row[key]
            );
        }
        println!();
    }
    Ok(())
}
