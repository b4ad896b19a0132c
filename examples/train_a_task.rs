//! Trains a small model on a task by a recipe, in seconds, and says how good it is on sequences held out.

use pathsum::Par;
use pathsum::task::BuiltIn;
use pathsum::train::{Progress, Recipe, Trainer, TrainingData, evaluate};

fn main() -> pathsum::Result<()> {
    // The recipe of an embedded model, made smaller; `pathsum train sorted_list` follows it as it is.
    let mut recipe = Recipe::built_in(BuiltIn::SortedList);
    (recipe.model.d_model, recipe.model.d_head) = (48, 24);
    recipe.data = TrainingData::Fresh {
        batch: 100,
        held_out: 500,
    };
    recipe.settings.steps = 600;
    recipe.settings.target = None;

    let drawn = recipe.draw()?;
    let mut trainer = Trainer::<f32>::new(recipe.model, recipe.settings)?;
    let before = evaluate(trainer.model(), &drawn.held_out, Par::Rayon)?;
    println!(
        "untrained: loss {:.3}, accuracy {:.3}",
        before.loss, before.accuracy
    );

    // A step's batch is drawn by the step's number, so that the same recipe gives the same model.
    let batch = |step| drawn.batch(step);
    let mut progress = |p: &Progress| {
        if p.step.is_multiple_of(100) {
            println!("step {}: loss {:.3}", p.step, p.loss);
        }
    };
    // `Some(folder)` instead of `None` keeps checkpoints there, from which an interrupted training goes on.
    let after = trainer.run(&batch, &drawn.held_out, None, &mut progress, Par::Rayon)?;
    println!(
        "trained: loss {:.3}, accuracy {:.3}",
        after.loss, after.accuracy
    );
    Ok(())
}
