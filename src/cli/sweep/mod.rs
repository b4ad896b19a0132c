//! What `ablate`, `patch` and `merge` have in common: a grid of changes, what is read, and what was found.

mod outcome;
mod reading;
mod show;

pub use outcome::{Ablation, Request, SweepFile, What};
pub use reading::Reading;

use super::args::Common;
use super::output::{progress, report};
use super::places::Places;
use anyhow::{Result, bail};
use outcome::ChosenPlaces;
use pathsum::intervene::{Change, Each, Grid, Scope, Site, Sweep, SweepResult};
use pathsum::model::Config;
use pathsum::tensor::write_file;
use pathsum::{Head, Scalar};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The places that are changed, one after the other.
#[derive(clap::Args)]
pub struct Grids {
    /// resid_pre, q, k, v, attn_scores, pattern, z, result, attn_out, resid_mid, pre, post, mlp_out or
    /// resid_post, of every layer
    #[arg(long, value_name = "SITE", default_value = "result")]
    site: Site,
    /// What differs from cell to cell, with commas: layer, head, position (of the query), key, neuron; or none,
    /// for one change of everything
    #[arg(long, value_name = "AXES")]
    by: Option<Axes>,
    /// Layers to change: all, N, N-M, several with commas
    #[arg(long, value_name = "PLACES")]
    layers: Option<Places>,
    /// Heads to change: all, or L.H, several with commas
    #[arg(long, value_name = "HEADS")]
    heads: Option<Heads>,
    /// Positions to change: all, first, last, N, N-M, several with commas
    #[arg(long, value_name = "PLACES")]
    positions: Option<Places>,
    /// Neurons of each layer to change (of pre and post): all, N, N-M, several with commas
    #[arg(long, value_name = "PLACES")]
    neurons: Option<Places>,
    /// The I-th of N parts of the work only, I from 1: `pathsum merge` puts their results together
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// The JSON file to write
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// The axes of a grid.
#[derive(Clone)]
struct Axes(Vec<Each>);

impl FromStr for Axes {
    type Err = pathsum::Error;

    fn from_str(s: &str) -> pathsum::Result<Self> {
        match s {
            "none" => Ok(Axes(Vec::new())),
            _ => s
                .split(',')
                .map(|by| by.trim().parse())
                .collect::<pathsum::Result<_>>()
                .map(Axes),
        }
    }
}

/// All heads, or some.
#[derive(Clone)]
struct Heads(Option<Vec<Head>>);

impl FromStr for Heads {
    type Err = pathsum::Error;

    fn from_str(s: &str) -> pathsum::Result<Self> {
        match s {
            "all" => Ok(Heads(None)),
            _ => {
                let heads = s.split(',').map(|head| head.trim().parse());
                let mut heads: Vec<Head> = heads.collect::<pathsum::Result<_>>()?;
                heads.sort_unstable();
                heads.dedup();
                Ok(Heads(Some(heads)))
            }
        }
    }
}

/// One of several parts of the work, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shard {
    i: usize,
    n: usize,
}

impl Shard {
    /// Which of how many it is, counted from 0.
    pub fn part(self) -> (usize, usize) {
        (self.i - 1, self.n)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.i, self.n)
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> String {
        shard.to_string()
    }
}

impl TryFrom<String> for Shard {
    type Error = String;

    fn try_from(s: String) -> Result<Self, String> {
        s.parse()
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let parse = || {
            let (i, n) = s.split_once('/')?;
            Some((i.parse().ok()?, n.parse().ok()?))
        };
        match parse() {
            Some((i, n)) if 1 <= i && i <= n => Ok(Shard { i, n }),
            _ => Err("expected I/N with I from 1 to N, as in 1/4".into()),
        }
    }
}

impl Grids {
    /// The grid of one change, along the axes asked for or these.
    pub fn grid(&self, config: &Config, pos: usize, by: &[Each], change: &Change) -> Result<Grid> {
        let by = self.by.as_ref().map_or(by, |axes| &axes.0);
        Ok(Grid::new(
            config,
            pos,
            self.site,
            by,
            &self.scope(config, pos)?,
            change,
        )?)
    }

    /// The site that is changed.
    pub fn site(&self) -> Site {
        self.site
    }

    fn scope(&self, config: &Config, pos: usize) -> Result<Scope> {
        let of = |places: &Option<Places>, what: &str, n: usize| {
            places.as_ref().map(|p| p.of(what, n)).transpose()
        };
        let has_neurons = matches!(self.site, Site::Pre | Site::Post);
        if self.neurons.is_some() && !has_neurons {
            bail!(
                "--neurons: `{}` has none, expected --site pre or post",
                self.site
            );
        }
        Ok(Scope {
            layers: of(&self.layers, "--layers: layer", config.n_layers)?,
            heads: self.heads.as_ref().and_then(|heads| heads.0.clone()),
            positions: of(&self.positions, "--positions: position", pos)?,
            units: of(
                &self.neurons,
                "--neurons: neuron",
                config.d_mlp().unwrap_or(0),
            )?,
        })
    }

    /// What was asked to be changed, for the record.
    pub fn chosen(&self, config: &Config, grid: &Grid, pos: usize) -> Result<ChosenPlaces> {
        let scope = self.scope(config, pos)?;
        let heads = scope
            .heads
            .map(|heads| heads.iter().map(Head::to_string).collect());
        Ok(ChosenPlaces {
            site: self.site.to_string(),
            by: grid.axes().iter().map(|axis| axis.by).collect(),
            layers: scope.layers,
            heads,
            positions: scope.positions,
            neurons: scope.units,
        })
    }

    /// The sweep over the grid, or over the part of it that was asked for.
    pub fn sweep<T: Scalar>(
        &self,
        common: &Common,
        mut sweep: Sweep<'_, T>,
        grid: &Grid,
    ) -> Result<SweepResult> {
        if let Some((i, n)) = self.shard.map(Shard::part) {
            sweep = sweep.shard(i, n);
        }
        let bar = progress(common, "sweeping", grid.cells().len());
        let advance = |n: usize, of: usize| {
            bar.set_length(of as u64);
            bar.inc(n as u64);
        };
        let result = sweep.progress(&advance).run(grid)?;
        bar.finish_and_clear();
        Ok(result)
    }

    /// Writes what was found where it was asked for, and prints it.
    pub fn finish(&self, common: &Common, mut outcome: SweepFile) -> Result<()> {
        outcome.shard = self.shard;
        outcome.finish(common, self.out.as_deref())
    }
}

impl SweepFile {
    /// Writes the file, if there is to be one, and prints the outcome.
    pub fn finish(&self, common: &Common, out: Option<&std::path::Path>) -> Result<()> {
        if let Some(out) = out {
            let json = serde_json::to_string_pretty(self)?;
            write_file(out, format!("{json}\n").as_bytes())?;
        }
        report(common, self, || {
            let written = out.map(|out| format!("\nwrote {}\n", out.display()));
            show::text(self) + &written.unwrap_or_default()
        })
    }
}
