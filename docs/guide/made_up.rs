/// A constructed model with rotary positions, and a tokenizer of its seventeen words.
fn made_up() -> pathsum::Result<(pathsum::Model<f64>, pathsum::text::Tokenizer)> {
    const WORDS: [&str; 17] = [
        "Mary", "John", "Anna", "Paul", "met", "saw", "heard", "then", "and", "the", "in", "at", "shop", "park", "gave",
        "took", "<s>",
    ];
    let of = |(i, word): (usize, &&str)| format!("{word:?}: {i}");
    let vocabulary: Vec<String> = WORDS.iter().enumerate().map(of).collect();
    let json = format!(
        r#"{{"version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
            "pre_tokenizer": {{"type": "WhitespaceSplit"}}, "decoder": null,
            "added_tokens": [{{"id": 16, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true}}],
            "model": {{"type": "WordLevel", "unk_token": "<s>", "vocab": {{{}}}}}}}"#,
        vocabulary.join(", ")
    );
    let this = std::thread::current().id();
    let folder = std::env::temp_dir().join(format!("pathsum-guide-{}-{this:?}", std::process::id()));
    pathsum::fixture::rotary_induction::<f64>().save(&folder)?;
    std::fs::write(folder.join("tokenizer.json"), json).expect("a writable folder");
    let found = (
        pathsum::Model::load(&folder)?,
        pathsum::text::Tokenizer::open(&folder)?,
    );
    std::fs::remove_dir_all(&folder).ok();
    Ok(found)
}
