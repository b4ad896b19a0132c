//! Grids of interventions: one place of the model in each cell.

use super::change::{Change, Intervention};
use super::part::Part;
use crate::error::{Error, Result};
use crate::model::Config;
use crate::names::{Head, Hook};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! sites {
    ($($(#[$doc:meta])* $site:ident = $name:literal,)*) => {
        /// A value that every layer has, by the short name that TransformerLens's `get_act_name` knows it by.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Site {
            $($(#[$doc])* #[doc = concat!("`", $name, "`")] $site,)*
        }

        impl Site {
            /// The site's hook in a layer.
            pub fn hook(self, layer: usize) -> Hook {
                match self {
                    $(Site::$site => Hook::$site(layer),)*
                }
            }
        }

        impl fmt::Display for Site {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Site::$site => $name,)*
                })
            }
        }

        impl FromStr for Site {
            type Err = Error;

            fn from_str(s: &str) -> Result<Self> {
                match s {
                    $($name => Ok(Site::$site),)*
                    _ => Err(Error::unknown("site", s, [$($name),*])),
                }
            }
        }
    };
}

sites! {
    /// The stream before the layer.
    ResidPre = "resid_pre",
    /// Queries.
    Q = "q",
    /// Keys.
    K = "k",
    /// Values.
    V = "v",
    /// Queries, turned by their positions.
    RotQ = "rot_q",
    /// Keys, turned by their positions.
    RotK = "rot_k",
    /// Scores.
    AttnScores = "attn_scores",
    /// Patterns.
    Pattern = "pattern",
    /// The values mixed.
    Z = "z",
    /// What each head writes.
    Result = "result",
    /// What the heads write together.
    AttnOut = "attn_out",
    /// The stream between heads and neurons.
    ResidMid = "resid_mid",
    /// Neurons before their function.
    Pre = "pre",
    /// Neurons after it.
    Post = "post",
    /// What the neurons write together.
    MlpOut = "mlp_out",
    /// The stream after the layer.
    ResidPost = "resid_post",
}

/// What differs from cell to cell along an axis of a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Each {
    /// The layer: `0`, `1`…
    Layer,
    /// The head, of any layer: `0.0`, `0.1`…
    Head,
    /// The position; the query's in scores and patterns.
    Position,
    /// The key's position, in scores and patterns.
    Key,
    /// The neuron, of any layer: `0.0`, `0.1`…
    Neuron,
}

impl Each {
    const ALL: [Each; 5] = [
        Each::Layer,
        Each::Head,
        Each::Position,
        Each::Key,
        Each::Neuron,
    ];

    fn name(self) -> &'static str {
        match self {
            Each::Layer => "layer",
            Each::Head => "head",
            Each::Position => "position",
            Each::Key => "key",
            Each::Neuron => "neuron",
        }
    }

    /// Whether a grid may have these axes together.
    fn check(axes: &[Each]) -> Result<()> {
        let has = |by: Each| axes.contains(&by);
        for (i, &by) in axes.iter().enumerate() {
            if by != Each::Head && axes[..i].contains(&by) {
                return Err(Error::Experiment(format!(
                    "two axes of {by}s, expected one"
                )));
            }
        }
        // Each of these names its layer.
        let in_layers = [Each::Layer, Each::Head, Each::Neuron]
            .into_iter()
            .filter(|&by| has(by));
        match in_layers.collect::<Vec<Each>>()[..] {
            [a, b, ..] => Err(Error::Experiment(format!(
                "axes of {a}s and {b}s, expected one of them: each {b} is of one layer"
            ))),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Each {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Each {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let found = Each::ALL.into_iter().find(|by| by.name() == s);
        found.ok_or_else(|| Error::unknown("axis", s, Each::ALL.map(Each::name)))
    }
}

/// One axis of a grid: what it counts, and the cells' names along it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GridAxis {
    /// What differs from cell to cell.
    pub by: Each,
    /// One for each place along the axis.
    pub labels: Vec<String>,
}

/// Where a grid's interventions may be: in these layers, heads, positions, or in all of them.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Layers.
    pub layers: Option<Vec<usize>>,
    /// Heads of any layer.
    pub heads: Option<Vec<Head>>,
    /// Positions; the queries' in scores and patterns.
    pub positions: Option<Vec<usize>>,
    /// Neurons, or coordinates, of each layer.
    pub units: Option<Vec<usize>>,
}

/// Interventions to be made one cell after the other.
///
/// ```
/// use pathsum::fixture;
/// use pathsum::intervene::{Each, Change, Grid, Scope, Site};
///
/// let model = fixture::induction::<f64>();
/// let grid = Grid::new(model.config(), 8, Site::Z, &[Each::Head, Each::Position], &Scope::default(), &Change::Zero)?;
/// assert_eq!(grid.cells().len(), 2 * 8);
/// assert_eq!(grid.cells()[9][0].to_string(), "blocks.1.attn.hook_z[heads 0][positions 1]: zero");
/// # Ok::<(), pathsum::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    axes: Vec<GridAxis>,
    cells: Vec<Vec<Intervention>>,
}

/// A place along one axis, or along several.
#[derive(Clone, Debug, Default)]
struct CellPlace {
    layers: Vec<usize>,
    heads: Vec<Head>,
    positions: Option<usize>,
    keys: Option<usize>,
    neuron: Option<(usize, usize)>,
}

impl Grid {
    /// The same change of one site in every cell: of another layer, head, position… in each.
    ///
    /// Along two axes of heads each cell has a pair of them. What no axis names is changed as a whole, as
    /// far as `scope` reaches; without an axis of layers, heads or neurons that is every layer at once.
    ///
    /// # Errors
    /// When the model has no such site, the axes do not go together, or the scope names a layer, head or position
    /// that is not there.
    pub fn new(
        config: &Config,
        pos: usize,
        site: Site,
        by: &[Each],
        scope: &Scope,
        change: &Change,
    ) -> Result<Self> {
        if !(0..config.n_layers).any(|l| config.hooks().contains(&site.hook(l))) {
            return Err(Error::NotInModel(format!("site `{site}`")));
        }
        Each::check(by)?;
        scope.check(config, pos)?;
        let along: Vec<Vec<(String, CellPlace)>> = by
            .iter()
            .map(|&by| scope.places(config, pos, site, by))
            .collect();
        let mut cells = vec![CellPlace::default()];
        for places in &along {
            let with = |cell: &CellPlace| {
                places
                    .iter()
                    .map(|(_, place)| cell.and(place))
                    .collect::<Vec<_>>()
            };
            cells = cells.iter().flat_map(with).collect();
        }
        let axes = by.iter().zip(along).map(|(&by, places)| GridAxis {
            by,
            labels: places.into_iter().map(|(label, _)| label).collect(),
        });
        let grid = Grid {
            axes: axes.collect(),
            cells: cells
                .iter()
                .map(|cell| cell.interventions(config, site, scope, change))
                .collect(),
        };
        match grid.cells.iter().flatten().next() {
            Some(_) => Ok(grid),
            None => Err(Error::Experiment(format!(
                "nothing of `{site}` is left to change"
            ))),
        }
    }

    /// A grid of one's own: cells in row-major order over the axes.
    ///
    /// # Panics
    /// When there are not as many cells as the axes have places.
    #[track_caller]
    pub fn from_cells(axes: Vec<GridAxis>, cells: Vec<Vec<Intervention>>) -> Self {
        let places: usize = axes.iter().map(|a| a.labels.len()).product();
        assert_eq!(places, cells.len(), "a cell for every place");
        Grid { axes, cells }
    }

    /// The axes, outermost first.
    pub fn axes(&self) -> &[GridAxis] {
        &self.axes
    }

    /// Each cell's interventions, in row-major order.
    pub fn cells(&self) -> &[Vec<Intervention>] {
        &self.cells
    }
}

impl Scope {
    fn check(&self, config: &Config, pos: usize) -> Result<()> {
        let within = |name: &'static str, places: &Option<Vec<usize>>, n: usize| {
            let wrong = places.iter().flatten().find(|&&i| i >= n);
            wrong.map_or(Ok(()), |&i| {
                Err(Error::out_of_range(name, i, "", "there", 0..n))
            })
        };
        within("layer", &self.layers, config.n_layers)?;
        within("position", &self.positions, pos)?;
        let mut heads = self.heads.iter().flatten();
        heads.try_for_each(|&head| config.check_head(head))
    }

    fn layers(&self, config: &Config) -> Vec<usize> {
        let mut layers = self
            .layers
            .clone()
            .unwrap_or_else(|| (0..config.n_layers).collect());
        if let Some(heads) = &self.heads {
            layers.retain(|&l| heads.iter().any(|h| h.layer == l));
        }
        layers
    }

    fn places(
        &self,
        config: &Config,
        pos: usize,
        site: Site,
        by: Each,
    ) -> Vec<(String, CellPlace)> {
        let layers = self.layers(config);
        let heads = match site {
            // Those that heads share are there once.
            Site::K | Site::V | Site::RotK => config.groups,
            _ => config.n_heads,
        };
        let positions = || self.positions.clone().unwrap_or_else(|| (0..pos).collect());
        let place = |label: String, change: &dyn Fn(&mut CellPlace)| {
            let mut cell = CellPlace::default();
            change(&mut cell);
            (label, cell)
        };
        match by {
            Each::Layer => (layers.iter())
                .map(|&l| place(l.to_string(), &|c| c.layers = vec![l]))
                .collect(),
            Each::Head => (layers.iter())
                .flat_map(|&layer| (0..heads).map(move |head| Head { layer, head }))
                .filter(|head| self.heads.as_ref().is_none_or(|heads| heads.contains(head)))
                .map(|head| place(head.to_string(), &|c| c.heads = vec![head]))
                .collect(),
            Each::Position => (positions().into_iter())
                .map(|p| place(p.to_string(), &|c| c.positions = Some(p)))
                .collect(),
            Each::Key => (0..pos)
                .map(|p| place(p.to_string(), &|c| c.keys = Some(p)))
                .collect(),
            Each::Neuron => {
                let width = |l| {
                    config
                        .hook_shape(site.hook(l), 1, 1)
                        .last()
                        .copied()
                        .unwrap_or(0)
                };
                let units = |l| {
                    self.units
                        .clone()
                        .unwrap_or_else(|| (0..width(l)).collect())
                };
                (layers.iter())
                    .flat_map(|&l| units(l).into_iter().map(move |u| (l, u)))
                    .map(|(l, u)| place(format!("{l}.{u}"), &|c| c.neuron = Some((l, u))))
                    .collect()
            }
        }
    }
}

impl CellPlace {
    /// Both places at once.
    fn and(&self, other: &CellPlace) -> CellPlace {
        CellPlace {
            layers: [&self.layers[..], &other.layers[..]].concat(),
            heads: [&self.heads[..], &other.heads[..]].concat(),
            positions: other.positions.or(self.positions),
            keys: other.keys.or(self.keys),
            neuron: other.neuron.or(self.neuron),
        }
    }

    fn interventions(
        &self,
        config: &Config,
        site: Site,
        scope: &Scope,
        change: &Change,
    ) -> Vec<Intervention> {
        let in_layer = |l: usize| {
            let mut heads: Vec<usize> = self
                .heads
                .iter()
                .filter(|h| h.layer == l)
                .map(|h| h.head)
                .collect();
            heads.sort_unstable();
            heads.dedup();
            let left_out = !self.heads.is_empty() && heads.is_empty()
                || !self.layers.is_empty() && !self.layers.contains(&l)
                || self.neuron.is_some_and(|(layer, _)| layer != l);
            if left_out || !config.hooks().contains(&site.hook(l)) {
                return None;
            }
            if let (true, Some(scope)) = (self.heads.is_empty(), &scope.heads) {
                heads = scope
                    .iter()
                    .filter(|h| h.layer == l)
                    .map(|h| h.head)
                    .collect();
            }
            let part = Part {
                sequences: None,
                heads: (!heads.is_empty()).then_some(heads),
                positions: self
                    .positions
                    .map(|p| vec![p])
                    .or_else(|| scope.positions.clone()),
                keys: self.keys.map(|k| vec![k]),
                units: self
                    .neuron
                    .map(|(_, u)| vec![u])
                    .or_else(|| scope.units.clone()),
            };
            Some(Intervention::new(site.hook(l), part, change.clone()))
        };
        scope
            .layers(config)
            .into_iter()
            .filter_map(in_layer)
            .collect()
    }
}

impl fmt::Display for Intervention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.hook)?;
        let part = &self.part;
        for (name, places) in [
            ("sequences", &part.sequences),
            ("heads", &part.heads),
            ("positions", &part.positions),
            ("keys", &part.keys),
            ("units", &part.units),
        ] {
            if let Some(places) = places {
                let places: Vec<String> = places.iter().map(usize::to_string).collect();
                write!(f, "[{name} {}]", places.join(","))?;
            }
        }
        let change = match &self.change {
            Change::Zero => "zero",
            Change::Mean(_) => "mean",
            Change::Resample { .. } => "resample",
            Change::Set(_) => "set",
            Change::Patch => "patch",
            Change::Add { .. } => "add",
            Change::ProjectOut { .. } => "project out",
            Change::Interpolate { .. } => "interpolate",
        };
        write!(f, ": {change}")
    }
}
