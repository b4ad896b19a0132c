//! The MLP, neuron by neuron.

use super::plane::towards_one;
use super::{Answered, Upper};
use crate::error::Result;
use crate::linalg::Par;
use crate::model::{Model, Run};
use crate::names::Hook;
use serde::Serialize;

/// What the stream at `=` is with some of the neurons as they are, and the others at their means.
#[derive(Clone, Debug, Serialize)]
pub struct Neurons {
    /// The pairs that this was done on.
    #[serde(skip)]
    pub inputs: Vec<usize>,
    /// The neurons in the order in which they are added: by the variance of what they add to the difference of the
    /// logits, the largest first.
    pub order: Vec<usize>,
    /// How many neurons do anything: what they add to the difference varies.
    pub active: usize,
    /// The share of the pairs on which the first so many neurons give the model's answer: from none to all.
    pub agrees: Vec<f64>,
    /// After so many neurons, the pairs in the plane of the first two components of the stream after the MLP.
    #[serde(skip)]
    pub steps: Vec<(usize, Vec<[f64; 2]>)>,
}

impl Neurons {
    pub(super) fn of(
        model: &Model<f64>,
        upper: &Upper,
        answered: &Answered,
        inputs: &[usize],
        par: Par,
    ) -> Result<Self> {
        let run = Run::new().par(par).cache(Hook::Post(0));
        let run = run.cache(Hook::ResidMid(0));
        let out = upper.model.run(&upper.some(inputs), run)?;
        let (post, mid) = (&out.cache[Hook::Post(0)], &out.cache[Hook::ResidMid(0)]);
        let mlp = model.weights().blocks[0].mlp.as_ref();
        let mlp = mlp.expect("checked: there is an MLP");
        let d_mlp = mlp.b_in.len();
        let after = &answered.after;
        // What is followed of the stream: two components, and the difference of the logits.
        let component = |c: usize| after.components.row(c).iter().copied().collect();
        let directions: [Vec<f64>; 3] = [component(0), component(1), towards_one(model)];
        let read = |row: &[f64]| -> [f64; 3] {
            [0, 1, 2].map(|i| row.iter().zip(&directions[i]).map(|(x, d)| x * d).sum())
        };
        let writes: Vec<[f64; 3]> = (0..d_mlp).map(|j| read(mlp.W_out.slice(&[j]))).collect();
        let count = inputs.len() as f64;
        let means: Vec<f64> = (0..d_mlp)
            .map(|j| (0..inputs.len()).map(|i| post[[i, 0, j]]).sum::<f64>() / count)
            .collect();
        let spread = |j: usize| -> f64 {
            let squares = (0..inputs.len()).map(|i| (post[[i, 0, j]] - means[j]).powi(2));
            squares.sum::<f64>() / count * writes[j][2].powi(2)
        };
        let spreads: Vec<f64> = (0..d_mlp).map(spread).collect();
        let mut order: Vec<usize> = (0..d_mlp).collect();
        order.sort_by(|&i, &j| spreads[j].total_cmp(&spreads[i]));

        // Nothing added yet: the biases, and every neuron's mean.
        let b_U = model.weights().b_U.data();
        let origin = read(&after.mean);
        let mut always = read(mlp.b_out.data());
        for (mean, write) in means.iter().zip(&writes) {
            (0..3).for_each(|k| always[k] += mean * write[k]);
        }
        always[0] -= origin[0];
        always[1] -= origin[1];
        always[2] += b_U[1] - b_U[0];
        let start = |i: usize| {
            let own = read(mid.slice(&[i, 0]));
            [0, 1, 2].map(|k| own[k] + always[k])
        };
        let mut at: Vec<[f64; 3]> = (0..inputs.len()).map(start).collect();
        let mut agrees = Vec::with_capacity(d_mlp + 1);
        let mut steps = Vec::new();
        for added in 0..=d_mlp {
            let right = at.iter().zip(inputs);
            let right = right.filter(|(x, i)| (x[2] > 0.0) == answered.says[**i]);
            agrees.push(right.count() as f64 / count);
            if added.is_power_of_two() || added == 0 || added == d_mlp {
                steps.push((added, at.iter().map(|x| [x[0], x[1]]).collect()));
            }
            let Some(&j) = order.get(added) else { break };
            for (i, x) in at.iter_mut().enumerate() {
                let more = post[[i, 0, j]] - means[j];
                (0..3).for_each(|k| x[k] += more * writes[j][k]);
            }
        }
        Ok(Neurons {
            inputs: inputs.to_vec(),
            order,
            active: spreads.iter().filter(|&&s| s > 0.0).count(),
            agrees,
            steps,
        })
    }
}
