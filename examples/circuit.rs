//! Computes a circuit of a model as it is written on paper: as a matrix, and for several heads at once by its norm.

use pathsum::eval::{Circuit, Value};
use pathsum::plan::Form;
use pathsum::{Par, fixture};

fn main() -> pathsum::Result<()> {
    // Its head 1.0 looks at the token after an earlier occurrence of this one, and copies it.
    let model = fixture::induction::<f64>();

    // What looking at a token does to the logits: a row for each token looked at, a column for each logit.
    let copies = Circuit::parse("W_E W_OV[1.0] W_U", &model)?.dense(Par::Rayon)?;
    for token in 0..4 {
        let entry = |logit| format!("{:4.1}", copies[(token, logit)]);
        let row: Vec<String> = (0..6).map(entry).collect();
        println!("looks at {token}: {} …", row.join(" "));
    }

    // A `*` asks for the circuits of all layers or heads. Norms, singular values and eigenvalues are made from the
    // factors: the matrix, which has an entry for every pair of tokens, is not formed.
    let circuits = Circuit::parse("W_E W_OV[*.0] W_U", &model)?;
    let norms = circuits.values(Form::Norm, Par::Rayon)?;
    for (layer, norm) in norms.iter().enumerate() {
        if let Value::Number(norm) = norm {
            println!("head {layer}.0: norm {norm:.1}");
        }
    }
    Ok(())
}
