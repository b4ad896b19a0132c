//! What is believed of a model's circuits, stated and held to it: put such lines into a `#[test]` of your own, where a
//! later change of the model or of the code that makes it cannot break them unseen.

use pathsum::expr::{Statement, W_K, W_O, W_Q, W_QK, pattern, result, v};
use pathsum::verify::prove_on;
use pathsum::{Head, Run, Tokens, assert_identity, fixture};

fn main() -> pathsum::Result<()> {
    let model = fixture::induction::<f64>();
    let tokens = Tokens::from_rows(&[[7, 3, 9, 7], [1, 2, 1, 2]]);
    let run = model.run(&tokens, Run::new().cache("*"))?;

    // As text: of the weights alone, or of what a run has kept. The tolerance is what rounding allows, no more.
    assert_identity!(model, "W_OV[*.*]^T == W_O[*.*]^T W_V[*.*]^T");
    assert_identity!(
        model,
        run,
        "resid_post[1] == embed + pos_embed + attn_out[0] + attn_out[1]"
    );
    // As two expressions, for heads that a program chooses.
    let heads = (0..2).map(|layer| Head { layer, head: 0 });
    for head in heads {
        assert_identity!(model, W_QK(head).t(), W_K(head) * W_Q(head).t());
        assert_identity!(
            model,
            run,
            result(head),
            pattern(head) * v(head) * W_O(head)
        );
    }
    println!("all of it is so");

    // What is not asserted can be asked: this one is not so, and the answer names an entry that says it.
    let dims = pathsum::eval::Source::run(&model, &run, 0).dims();
    let doubtful = Statement::parse("resid_post[1] == embed + attn_out[1]", &dims)?;
    println!("{:?}", prove_on(&doubtful, &model, Some(&run), 0)?.proof);
    Ok(())
}
