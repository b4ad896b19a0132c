//! A logit as a sum over paths through the heads: the largest of them, and what all the others can amount to.

use pathsum::decompose::{Logit, Paths};
use pathsum::{Par, Run, Tokens, fixture};

fn main() -> pathsum::Result<()> {
    let model = fixture::induction::<f64>();
    let tokens = Tokens::from_rows(&[[7, 3, 9, 7]]);
    let out = model.run(&tokens, Run::new().cache("*"))?;

    // Of sequence 0, with its attention patterns and norms' scales held at the run's.
    let paths = Paths::<f64>::new(&model, &out.cache, 0, Par::Rayon)?;
    // After the second 7 the model says 3, which followed the first, rather than 9.
    let lead = paths.to_logit(3, Logit::Difference(3, 9))?;

    // Found by branch and bound, within so many steps.
    let top = lead.top(4, 1000)?;
    println!(
        "{} paths make {:.3}; the largest:",
        lead.count(),
        top.total.value
    );
    for found in &top.paths {
        println!("  {:>8.3}  {}", found.value, found.path);
    }
    let rest = top.unlisted;
    println!(
        "the {} others: together {:.1e}, each at most {:.1e}, rounding at most {:.1e}",
        rest.count, rest.together, rest.each, rest.rounding
    );

    // Sums over all paths are made without going through them.
    for (heads, sum) in lead.by_order().iter().enumerate() {
        println!("  through {heads} heads: {sum:.3}");
    }
    Ok(())
}
