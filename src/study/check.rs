//! Whether a story's numbers fit together: what a program makes does, a file may not.

use super::{
    AttentionView, BarChart, BoxPlot, Chart, ChartAxis, Diagram, HeadsView, HeatMap,
    HistogramChart, ModelView, Number, Page, Picture, Scale, Story, Table, View, WordGrid, XyPlot,
};
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::path::Path;

impl Story {
    /// Reads a `results.json`.
    ///
    /// # Errors
    /// If the file is not readable, is no story, or its numbers do not fit together.
    pub fn open(path: impl AsRef<Path>) -> Result<Story> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let story: Story = serde_json::from_str(&text).map_err(|e| Error::format(path, e))?;
        story.check().map_err(|e| Error::format(path, e))?;
        Ok(story)
    }

    /// Whether the numbers fit together: as many labels as columns, every id once.
    ///
    /// # Errors
    /// The first place where they do not.
    pub fn check(&self) -> Result<()> {
        let steps = self.steps.iter();
        let parts = steps.map(|s| (s.id.as_str(), s.tables.as_slice(), s.pictures.as_slice()));
        check_parts("step", parts)
    }
}

impl Page {
    /// Whether the numbers fit together, as [`Story::check`] sees to.
    ///
    /// # Errors
    /// The first place where they do not.
    pub fn check(&self) -> Result<()> {
        let sections = self.sections.iter();
        let parts = sections.map(|s| (s.id.as_str(), s.tables.as_slice(), s.pictures.as_slice()));
        check_parts("section", parts)
    }
}

/// Checks parts by their ids, with their tables and pictures.
fn check_parts<'a>(
    what: &str,
    all: impl Iterator<Item = (&'a str, &'a [Table], &'a [Picture])>,
) -> Result<()> {
    let mut parts = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for (id, tables, pictures) in all {
        name(id).map_err(|e| Error::Story(format!("{what} {e}")))?;
        if !parts.insert(id) {
            return Err(Error::Story(format!("{what} `{id}`: there are two")));
        }
        for table in tables {
            rows(table).map_err(|e| Error::Story(format!("table `{}`: {e}", table.title)))?;
        }
        for picture in pictures {
            name(&picture.id).map_err(|e| Error::Story(format!("picture {e}")))?;
            let of = |e| Error::Story(format!("picture `{}`: {e}", picture.id));
            view(picture).map_err(of)?;
            if !ids.insert(&picture.id) {
                return Err(of("there are two".into()));
            }
        }
    }
    Ok(())
}

type Checked = Result<(), String>;

/// A name that is also a file's and a place's in an address.
fn name(id: &str) -> Checked {
    let fits = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if id.starts_with(|c: char| c.is_ascii_alphanumeric()) && id.chars().all(fits) {
        Ok(())
    } else {
        Err(format!(
            "`{id}`: expected a name of letters, digits, `.`, `-` and `_`"
        ))
    }
}

fn length(what: &str, found: usize, expected: usize) -> Checked {
    if found == expected {
        Ok(())
    } else {
        Err(format!("{found} {what}, expected {expected}"))
    }
}

fn rows(table: &Table) -> Checked {
    let wide = table.header.len();
    table
        .rows
        .iter()
        .try_for_each(|row| length("cells in a row", row.len(), wide))
}

fn view(picture: &Picture) -> Checked {
    match &picture.view {
        View::Chart(c) => chart(c),
        View::Frames { frames, .. } => {
            let Some(first) = frames.first() else {
                return Err("no frames".into());
            };
            let kind = std::mem::discriminant(&first.chart);
            for frame in frames {
                if std::mem::discriminant(&frame.chart) != kind {
                    return Err(format!("frame `{}` is of another kind", frame.label));
                }
                chart(&frame.chart).map_err(|e| format!("frame `{}`: {e}", frame.label))?;
            }
            Ok(())
        }
        View::Attention(a) => attention(a),
        View::Heads(h) => heads(h),
        View::Words(w) => words(w),
        View::Diagram(d) => diagram(d),
        View::Model(m) => model(m),
    }
}

fn chart(chart: &Chart) -> Checked {
    fn each<T>(panels: &[T], f: impl Fn(&T) -> Checked) -> Checked {
        if panels.is_empty() {
            return Err("nothing to draw".into());
        }
        panels.iter().try_for_each(f)
    }
    match chart {
        Chart::HeatMaps { scale, maps } => each(maps, |m| heat_map(m, *scale)),
        Chart::Histograms(panels) => each(panels, histogram),
        Chart::Bars(panels) => each(panels, bars),
        Chart::Boxes(panels) => each(panels, boxes),
        Chart::Xy(panels) => each(panels, xy),
    }
}

fn heat_map(map: &HeatMap, scale: Scale) -> Checked {
    let (rows, columns) = (map.rows.labels.len(), map.columns.labels.len());
    length("values", map.values.len(), rows * columns)?;
    if map.values.is_empty() {
        return Err("a heat map without cells".into());
    }
    if let Some(&[r, c]) = map.marked.iter().find(|m| m[0] >= rows || m[1] >= columns) {
        return Err(format!(
            "the mark [{r}, {c}] is outside {rows} rows and {columns} columns"
        ));
    }
    match scale {
        Scale::Sequential => not_negative(&map.values),
        Scale::Diverging => Ok(()),
    }
}

fn not_negative(values: &[Number]) -> Checked {
    match values.iter().find(|v| v.get().is_some_and(|x| x < 0.0)) {
        Some(x) => Err(format!("{x} on a scale from 0")),
        None => Ok(()),
    }
}

fn histogram(histogram: &HistogramChart) -> Checked {
    let edges: Option<Vec<f64>> = histogram.edges.iter().map(|e| e.get()).collect();
    let ascending = |e: &Vec<f64>| e.len() > 1 && e.windows(2).all(|w| w[0] < w[1]);
    if !edges.as_ref().is_some_and(ascending) {
        return Err("expected two or more edges, ascending".into());
    }
    let bins = histogram.edges.len() - 1;
    histogram
        .classes
        .iter()
        .try_for_each(|c| length("bins", c.heights.len(), bins))
}

/// How many places an axis has; one at least.
fn places(axis: &ChartAxis) -> Result<usize, String> {
    match axis.labels.len() {
        0 => Err("an axis without places".into()),
        n => Ok(n),
    }
}

fn bars(chart: &BarChart) -> Checked {
    let places = places(&chart.x)?;
    for bar in &chart.bars {
        length("bars", bar.heights.len(), places)?;
        if !bar.whiskers.is_empty() {
            length("whiskers", bar.whiskers.len(), places)?;
        }
    }
    Ok(())
}

fn boxes(plot: &BoxPlot) -> Checked {
    let places = places(&plot.x)?;
    for boxes in &plot.boxes {
        length("boxes", boxes.fives.len(), places)?;
        for five in &boxes.fives {
            let numbers = [five.min, five.q1, five.median, five.q3, five.max];
            if numbers.windows(2).any(|w| w[0].get() > w[1].get()) {
                return Err("a box's five numbers do not ascend".into());
            }
        }
    }
    Ok(())
}

fn xy(plot: &XyPlot) -> Checked {
    for series in &plot.series {
        length("vertical places", series.y.len(), series.x.len())?;
        if !series.labels.is_empty() {
            length("labels", series.labels.len(), series.x.len())?;
        }
    }
    Ok(())
}

fn attention(attention: &AttentionView) -> Checked {
    if attention.sequences.is_empty() || attention.heads.is_empty() {
        return Err("no sequences, or no heads".into());
    }
    if attention.weightings.is_empty() {
        return Err("no weighting".into());
    }
    for sequence in &attention.sequences {
        let n = sequence.tokens.len();
        if n == 0 {
            return Err(format!("sequence `{}` has no tokens", sequence.name));
        }
        if let Some(p) = sequence.marked.iter().find(|&&p| p >= n) {
            return Err(format!("the mark {p} is outside {n} positions"));
        }
    }
    for weighting in &attention.weightings {
        length(
            "sequences of patterns",
            weighting.patterns.len(),
            attention.sequences.len(),
        )?;
        for (pattern, sequence) in weighting.patterns.iter().zip(&attention.sequences) {
            let n = sequence.tokens.len();
            length("weights", pattern.len(), attention.heads.len() * n * n)?;
            not_negative(pattern)?;
        }
    }
    Ok(())
}

fn heads(view: &HeadsView) -> Checked {
    if view.tokens.is_empty() || view.layers == 0 || view.heads == 0 {
        return Err("no tokens, or no heads".into());
    }
    if view.first[0] >= view.layers || view.first[1] >= view.heads {
        return Err("there is no head that could be seen first".into());
    }
    if view.query >= view.tokens.len() {
        return Err(format!("there is no position {}", view.query));
    }
    if !view.score.is_empty() || !view.scores.is_empty() {
        length("scores", view.scores.len(), view.layers * view.heads)?;
    }
    match view.bytes() {
        Some(_) => Ok(()),
        None => Err("the weights are not as many bytes as there should be, in base64".into()),
    }
}

fn model(view: &ModelView) -> Checked {
    if view.tokens.is_empty() || view.layers == 0 || view.heads == 0 {
        return Err("no tokens, or no heads".into());
    }
    if view.position >= view.tokens.len() {
        return Err(format!("there is no position {}", view.position));
    }
    if view.answers.is_empty() {
        return Err("no logits".into());
    }
    match view.tokens.iter().find(|&&t| t >= view.words.len()) {
        Some(token) => Err(format!("there is no token {token}")),
        None => Ok(()),
    }
}

fn words(grid: &WordGrid) -> Checked {
    let (rows, columns) = (places(&grid.rows)?, places(&grid.columns)?);
    length("cells", grid.cells.len(), rows * columns)?;
    let named = grid.cells.iter().flatten().map(|(word, _)| *word);
    if let Some(word) = named.max().filter(|&word| word >= grid.words.len()) {
        return Err(format!("there is no word {word}"));
    }
    if let Some(&[r, c]) = (grid.marked.iter()).find(|m| m[0] >= rows || m[1] >= columns) {
        return Err(format!(
            "the mark [{r}, {c}] is outside {rows} rows and {columns} columns"
        ));
    }
    match grid.column < columns {
        true => Ok(()),
        false => Err(format!("there is no column {}", grid.column)),
    }
}

fn diagram(diagram: &Diagram) -> Checked {
    if diagram.nodes.is_empty() {
        return Err("a diagram without boxes".into());
    }
    let mut places = BTreeSet::new();
    for node in &diagram.nodes {
        if !places.insert((node.layer, node.column)) {
            return Err(format!("the box `{}` stands on another one", node.name));
        }
    }
    for edge in &diagram.edges {
        let layer = |i: usize| {
            let node = diagram.nodes.get(i);
            let there = node.map(|n| n.layer);
            there.ok_or(format!("an arrow at box {i} of {}", diagram.nodes.len()))
        };
        if layer(edge.from)? >= layer(edge.to)? {
            return Err(format!(
                "the arrow from `{}` leads to no later layer",
                diagram.nodes[edge.from].name
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::*;

    fn complaint(view: impl Into<View>) -> String {
        let mut story = Story::new("s", "t", "m");
        let step = Step::new("one", "One", "claim", Conclusion::of(true, "1 > 0"));
        story.steps = vec![step.picture(Picture::new("p", "P", view))];
        story.check().unwrap_err().to_string()
    }

    #[test]
    fn what_does_not_fit_is_said_with_its_place() {
        let mut map = HeatMap::new(
            "",
            ChartAxis::new("", 0..2),
            ChartAxis::new("", 0..1),
            &[1.0, -2.0],
        );
        let maps = |map: &HeatMap, scale| Chart::HeatMaps {
            scale,
            maps: vec![map.clone()],
        };
        assert_eq!(
            complaint(maps(&map, Scale::Sequential)),
            "picture `p`: -2 on a scale from 0"
        );
        map = map.marked([[1, 1]]);
        assert_eq!(
            complaint(maps(&map, Scale::Diverging)),
            "picture `p`: the mark [1, 1] is outside 2 rows and 1 columns"
        );
        map.values.pop();
        assert_eq!(
            complaint(maps(&map, Scale::Diverging)),
            "picture `p`: 1 values, expected 2"
        );
        let histogram = HistogramChart {
            title: String::new(),
            x: String::new(),
            y: String::new(),
            edges: vec![1.0.into(), 1.0.into()],
            classes: vec![Class::new("a", &[1usize])],
        };
        assert!(complaint(Chart::Histograms(vec![histogram])).contains("ascending"));
        assert!(complaint(Chart::Xy(vec![])).contains("nothing to draw"));
        let bars = BarChart {
            title: String::new(),
            x: ChartAxis::new("", Vec::<String>::new()),
            y: String::new(),
            bars: Vec::new(),
        };
        assert!(complaint(Chart::Bars(vec![bars])).contains("without places"));
        let attention = AttentionView {
            sequences: vec![Sequence::new("0", ["a", "b"])],
            heads: vec!["0.0".into()],
            weightings: vec![Weighting::new("attention", [vec![1.0; 3]])],
        };
        assert!(complaint(attention).contains("3 weights, expected 4"));
        let mut diagram = Diagram::default();
        assert!(complaint(diagram.clone()).contains("without boxes"));
        let [a, b] = [[0, 0], [1, 0]].map(|place| diagram.node("box", "", place));
        diagram.edge(b, a, "");
        assert!(complaint(diagram.clone()).contains("no later layer"));
        diagram.edges[0].to = 2;
        assert!(complaint(diagram.clone()).contains("an arrow at box 2 of 2"));
        diagram.nodes[b].layer = 0;
        assert!(complaint(diagram).contains("stands on another one"));
    }

    #[test]
    fn ids_are_names_and_stand_once() {
        let step = |id: &str| Step::new(id, "T", "c", Conclusion::not_applicable("nothing to see"));
        let said = |steps: Vec<Step>| {
            let story = Story {
                steps,
                ..Story::new("s", "t", "m")
            };
            story.check().unwrap_err().to_string()
        };
        assert!(said(vec![step("a/b")]).starts_with("step `a/b`: expected a name"));
        assert_eq!(said(vec![step("a"), step("a")]), "step `a`: there are two");
    }
}
