//! Scratch.
use pathsum::{Hook, Model, Run, Scalar, TensorFile, Tokens};
use std::path::Path;
fn check<T: Scalar>(
    folder: &Path,
    acts: &Path,
    verbose: bool,
) -> Result<(), Box<dyn std::error::Error>> {
    let model = Model::<T>::load(folder)?;
    let file = TensorFile::open(acts)?;
    let prefixes: Vec<String> = if file.shape("tokens").is_some() {
        vec!["".into()]
    } else {
        (0..9)
            .map(|i| format!("{i}."))
            .filter(|p| file.shape(&format!("{p}tokens")).is_some())
            .collect()
    };
    let mut worst = (0.0, String::new());
    let mut n = 0;
    for prefix in prefixes {
        let tokens = if prefix.is_empty() {
            Tokens::from_file(&file)?
        } else {
            let (shape, ids) = file.integer(&format!("{prefix}tokens"))?;
            if shape.len() == 2 {
                Tokens::new(shape[0], shape[1], ids)
            } else {
                Tokens::new(1, shape[0], ids)
            }
        };
        let out = model.run(&tokens, Run::new().cache("*"))?;
        for name in file.names() {
            let Some(own) = name.strip_prefix(prefix.as_str()) else {
                continue;
            };
            let found = match own {
                "logits" => &out.logits,
                "tokens" | "attention_mask" | "token_type_ids" => continue,
                _ => match own.parse::<Hook>() {
                    Ok(h) => match out.cache.require(h) {
                        Ok(v) => v,
                        Err(e) => {
                            println!("   {name}: {e}");
                            continue;
                        }
                    },
                    Err(e) => {
                        if verbose {
                            println!("   {name}: {e}");
                        }
                        continue;
                    }
                },
            };
            let expected = file.float::<f64>(name)?;
            if found.shape() != expected.shape() {
                println!("   {name}: {:?} {:?}", found.shape(), expected.shape());
                worst = (f64::INFINITY, name.into());
                continue;
            }
            let size = expected.max_abs();
            let mut off = 0.0f64;
            for (i, (a, b)) in found.data().iter().zip(expected.data()).enumerate() {
                let at = expected.place(i);
                let pattern = own.ends_with("hook_pattern");
                let p = if pattern { at[2] } else { at[1] };
                if !tokens.is_attended(at[0], p) {
                    continue;
                }
                let d = (a.to_f64() - b).abs();
                if d.is_nan() {
                    off = f64::INFINITY
                } else if d > off {
                    off = d;
                }
            }
            let rel = off / size;
            if verbose {
                println!("   {name} {rel:e}");
            }
            n += 1;
            if rel > worst.0 {
                worst = (rel, name.into());
            }
        }
    }
    println!(
        "{} {n} {:e} {}",
        folder.file_name().unwrap().to_string_lossy(),
        worst.0,
        worst.1
    );
    Ok(())
}
fn main() {
    let verbose = std::env::var("V").is_ok();
    let single = std::env::var("F32").is_ok();
    for f in std::env::args().skip(1) {
        let f = Path::new(&f);
        for name in [
            "activations.safetensors",
            "activations_short.safetensors",
            "activations_edge.safetensors",
        ] {
            let acts = f.join(name);
            if !acts.exists() {
                continue;
            }
            let r = if single {
                check::<f32>(f, &acts, verbose)
            } else {
                check::<f64>(f, &acts, verbose)
            };
            if let Err(e) = r {
                println!("{}: ERROR {e}", f.display());
            }
        }
    }
}
