//! Which heads a model needs for its answers, and which of their values bring another sequence's answer.

use pathsum::fixture::Fixture;
use pathsum::intervene::{Change, Each, Grid, Over, Scope, Site, Sweep};
use pathsum::metric::Standard;
use pathsum::task::{BuiltIn, Labelled};
use pathsum::{Config, Model, Run};

fn main() -> pathsum::Result<()> {
    let model: Model<f64> = Fixture::Palindrome.load();
    let task = BuiltIn::Palindrome.task();
    let Labelled { tokens, answers } = task.generate(500, 0);
    let lead = Standard::LogitDiff;

    println!("A head's result replaced by its mean over the sequences:");
    let sweep = Sweep::new(&model, &tokens, &answers, &lead);
    by_head(
        &sweep,
        model.config(),
        Site::Result,
        Change::Mean(Over::Sequences),
    )?;

    println!("Other sequences, with a head's z taken from the sequence whose answer is asked for:");
    let others = task.tokens(500, 1);
    let cache = model.run(&tokens, Run::new().cache("*.hook_z"))?.cache;
    let sweep = Sweep::new(&model, &others, &answers, &lead).source(&cache);
    by_head(&sweep, model.config(), Site::Z, Change::Patch)
}

/// The metric with one head after the other changed, at all positions.
fn by_head(sweep: &Sweep<f64>, c: &Config, site: Site, change: Change) -> pathsum::Result<()> {
    let grid = Grid::new(c, c.n_ctx, site, &[Each::Head], &Scope::default(), &change)?;
    let found = sweep.run(&grid)?;
    println!("  {}, unchanged: {:.2}", found.metric, found.clean);
    for (head, value) in found.axes[0].labels.iter().zip(&found.values) {
        println!("  {head}: {:.2}", value.expect("no shards"));
    }
    Ok(())
}
