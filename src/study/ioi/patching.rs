//! What the answer changes by when a part of the clean run has what the corrupted run has there.

use super::{Place, Prompts};
use crate::error::Result;
use crate::gradient::attribution_patching;
use crate::intervene::{Change, Each, Grid, GridAxis, Intervention, Part, Scope, Site, Sweep};
use crate::linalg::Par;
use crate::model::{Cache, Model, Run};
use crate::names::{Head, Hook};
use crate::tensor::Scalar;
use serde::Serialize;

/// Changes of the mean logit difference.
#[derive(Clone, Debug, Serialize)]
pub struct Patching {
    /// `[layer][place]`: of the stream before a layer, at a place.
    pub stream: Vec<[f64; 5]>,
    /// Of what each head writes, at all positions, layer by layer.
    pub heads: Vec<f64>,
    /// `[head][place]`: of what each head writes at a place, about, by derivatives in the clean run.
    pub heads_by_place: Vec<[f64; 5]>,
    /// `[head][place]`: the same exactly, where it was asked for.
    pub exactly: Vec<[Option<f64>; 5]>,
}

/// The corrupted run, as patches take it.
pub(super) fn source<T: Scalar>(model: &Model<T>, prompts: &Prompts, par: Par) -> Result<Cache<T>> {
    let layers = 0..model.config().n_layers;
    let hooks = layers.flat_map(|l| [Hook::ResidPre(l), Hook::Z(l)]);
    let run = hooks.fold(Run::new().par(par), |run, hook| run.cache(hook));
    Ok(model.run(&prompts.corrupt, run)?.cache)
}

impl Patching {
    pub(super) fn of<T: Scalar>(
        model: &Model<T>,
        prompts: &Prompts,
        source: &Cache<T>,
        exactly: &[(Head, Place)],
        par: Par,
    ) -> Result<Self> {
        let c = model.config();
        let cell = |&(head, place): &(Head, Place)| {
            let parts = prompts.parts(place).into_iter();
            let patch = |part: Part| {
                let part = part.heads([head.head]);
                Intervention::new(Hook::Z(head.layer), part, Change::Patch)
            };
            parts.map(patch).collect()
        };
        let cells: Vec<Vec<Intervention>> = exactly.iter().map(cell).collect();
        let axis = GridAxis {
            by: Each::Head,
            labels: exactly.iter().map(|(head, _)| head.to_string()).collect(),
        };
        let grid = Grid::from_cells(vec![axis], cells);
        let mut at_places = vec![[None; 5]; c.n_layers * c.n_heads];
        let found = changes(model, prompts, source, &grid, par)?;
        for (&(head, place), x) in exactly.iter().zip(found) {
            at_places[head.layer * c.n_heads + head.head][place as usize] = Some(x);
        }
        let stream = changes(model, prompts, source, &stream(c.n_layers, prompts), par)?;
        let all = Scope::default();
        let pos = prompts.clean.pos();
        let heads = Grid::new(c, pos, Site::Z, &[Each::Head], &all, &Change::Patch)?;
        let heads = changes(model, prompts, source, &heads, par)?;
        Ok(Patching {
            stream: stream
                .chunks_exact(Place::ALL.len())
                .map(|row| std::array::from_fn(|i| row[i]))
                .collect(),
            heads,
            heads_by_place: heads_by_place(model, prompts, par)?,
            exactly: at_places,
        })
    }
}

/// A cell for each layer and place.
fn stream(layers: usize, prompts: &Prompts) -> Grid {
    let cell = |l: usize, place: Place| -> Vec<Intervention> {
        let parts = prompts.parts(place).into_iter();
        let patch = |part| Intervention::new(Hook::ResidPre(l), part, Change::Patch);
        parts.map(patch).collect()
    };
    let cells = (0..layers).flat_map(|l| Place::ALL.map(|place| cell(l, place)));
    let axes = vec![
        GridAxis {
            by: Each::Layer,
            labels: (0..layers).map(|l| l.to_string()).collect(),
        },
        GridAxis {
            by: Each::Position,
            labels: Place::ALL.map(|place| place.name().to_string()).to_vec(),
        },
    ];
    Grid::from_cells(axes, cells.collect())
}

/// What each cell changes the mean logit difference by.
fn changes<T: Scalar>(
    model: &Model<T>,
    prompts: &Prompts,
    source: &Cache<T>,
    grid: &Grid,
    par: Par,
) -> Result<Vec<f64>> {
    let answers = prompts.answers();
    let metric = prompts.metric(&answers)?;
    let sweep = Sweep::new(model, &prompts.clean, &answers, &metric);
    let found = sweep.source(source).par(par).run(grid)?;
    let change = |value: &Option<f64>| value.expect("all cells are swept") - found.clean;
    Ok(found.values.iter().map(change).collect())
}

/// What the mean logit difference changes by when these heads together write at the end what they write in the corrupted
/// run.
pub(super) fn without<T: Scalar>(
    model: &Model<T>,
    prompts: &Prompts,
    source: &Cache<T>,
    heads: &[Head],
    par: Par,
) -> Result<f64> {
    let end = [prompts.end()];
    let patch = |head: &Head| {
        let part = Part::all().heads([head.head]).positions(end);
        Intervention::new(Hook::Z(head.layer), part, Change::Patch)
    };
    let grid = Grid::from_cells(Vec::new(), vec![heads.iter().map(patch).collect()]);
    Ok(changes(model, prompts, source, &grid, par)?[0])
}

fn heads_by_place<T: Scalar>(
    model: &Model<T>,
    prompts: &Prompts,
    par: Par,
) -> Result<Vec<[f64; 5]>> {
    let c = model.config();
    let answers = prompts.answers();
    let metric = prompts.metric(&answers)?;
    let hooks: Vec<Hook> = (0..c.n_layers).map(Hook::Z).collect();
    let (clean, corrupt) = (&prompts.clean, &prompts.corrupt);
    let found = attribution_patching(model, clean, corrupt, &metric, &answers, &hooks, par)?;
    let of = |h: usize, place: Place| -> f64 {
        let value = &found[Hook::Z(h / c.n_heads)];
        let at = |i: usize| value.slice(&[i, prompts.at(i, place), h % c.n_heads]);
        let entries = (0..prompts.count()).flat_map(at);
        entries.map(|x| x.to_f64()).sum()
    };
    let heads = 0..c.n_layers * c.n_heads;
    Ok(heads
        .map(|h| Place::ALL.map(|place| of(h, place)))
        .collect())
}
