//! Boxes in layers from the top, and the arrows between them.

use super::plane::{LINE, px, text_width};
use crate::study::{Diagram, DiagramNode, Edge};
use maud::{Markup, html};

/// How wide a box is.
const BOX: f64 = 208.0;
/// From one column to the next.
const COLUMN: f64 = 236.0;
/// Between layers: room for what the arrows say.
const GAP: f64 = 50.0;
/// Around the words of a box.
const ROOM: f64 = 8.0;
/// How long an arrow's head is.
const HEAD: f64 = 7.0;

/// A box with its place.
struct Placed<'a> {
    node: &'a DiagramNode,
    lines: Vec<String>,
    /// Left, top, and height.
    at: [f64; 3],
}

impl Placed<'_> {
    fn middle(&self) -> f64 {
        self.at[0] + BOX / 2.0
    }
}

/// The diagram, which fits together.
pub fn draw(diagram: &Diagram) -> Markup {
    let boxes = placed(&diagram.nodes);
    let right = boxes.iter().map(|b| b.at[0] + BOX).fold(0.0, f64::max);
    let low = boxes.iter().map(|b| b.at[1] + b.at[2]).fold(0.0, f64::max);
    // Where an arrow goes round the outermost box.
    let (width, height) = (right + GAP, low + 2.0);
    html! {
        div.panels {
            svg.panel width=(px(width)) height=(px(height)) viewBox={ "0 0 " (px(width)) " " (px(height)) } {
                @for edge in &diagram.edges { (arrow(edge, &boxes)) }
                @for b in &boxes {
                    rect.box x=(px(b.at[0])) y=(px(b.at[1])) width=(px(BOX)) height=(px(b.at[2])) rx="6" {}
                    text.title x=(px(b.middle())) y=(px(b.at[1] + ROOM + LINE - 4.0)) { (b.node.name) }
                    @for (i, line) in b.lines.iter().enumerate() {
                        text.middle x=(px(b.middle())) y=(px(b.at[1] + ROOM + (i + 2) as f64 * LINE - 4.0)) { (line) }
                    }
                }
                // Above the boxes and the other arrows, so that all are read.
                @for edge in &diagram.edges { (label(edge, &boxes)) }
            }
        }
    }
}

/// Every box in its column, its layer as high as the highest box in it.
fn placed(nodes: &[DiagramNode]) -> Vec<Placed<'_>> {
    let words: Vec<Vec<String>> = nodes.iter().map(|n| wrapped(&n.words)).collect();
    let high = |i: usize| 2.0 * ROOM + (1 + words[i].len()) as f64 * LINE;
    let mut layers: Vec<usize> = nodes.iter().map(|n| n.layer).collect();
    layers.sort_unstable();
    layers.dedup();
    let mut tops = Vec::new();
    let mut top = 1.0;
    for &layer in &layers {
        tops.push(top);
        let of = (0..nodes.len()).filter(|&i| nodes[i].layer == layer);
        top += of.map(high).fold(0.0, f64::max) + GAP;
    }
    let top_of = |layer: usize| tops[layers.binary_search(&layer).expect("every layer is listed")];
    let place = |(i, node): (usize, &DiagramNode)| {
        [
            node.column as f64 * COLUMN + 1.0,
            top_of(node.layer),
            high(i),
        ]
    };
    let at: Vec<[f64; 3]> = nodes.iter().enumerate().map(place).collect();
    let all = nodes.iter().zip(words).zip(at);
    all.map(|((node, lines), at)| Placed { node, lines, at })
        .collect()
}

/// Words in lines that fit a box.
fn wrapped(words: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words.split_whitespace() {
        match lines.last_mut() {
            Some(line) if text_width(line) + text_width(word) + 12.0 < BOX => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}

/// Where an arrow begins, is bent, and ends.
struct Way {
    from: [f64; 2],
    over: [f64; 2],
    to: [f64; 2],
}

impl Way {
    /// Down to the next layer straight; past other layers from the side of the box, so as not to cross what lies
    /// below it.
    fn of(edge: &Edge, boxes: &[Placed<'_>]) -> Way {
        let (a, b) = (&boxes[edge.from], &boxes[edge.to]);
        let passes = |p: &Placed<'_>| (a.node.layer + 1..b.node.layer).contains(&p.node.layer);
        let below = [a.middle(), a.at[1] + a.at[2]];
        let (onto, beside) = ([b.middle(), b.at[1]], a.at[1] + a.at[2] / 2.0);
        let (column, to_column) = (a.node.column, b.node.column);
        if column == to_column && boxes.iter().any(|p| passes(p) && p.node.column == column) {
            let (from, to) = (
                [a.at[0] + BOX, beside],
                [b.at[0] + BOX, b.at[1] + b.at[2] / 2.0],
            );
            let out = [from[0] + 2.0 * GAP, (from[1] + to[1]) / 2.0];
            return Way {
                from,
                over: out,
                to,
            };
        }
        // Then it ends at the near corner, for what stands above the box.
        let near = 1.5 * ROOM;
        let (from, onto) = match boxes.iter().any(passes) {
            true if to_column < column => ([a.at[0], beside], [b.at[0] + BOX - near, onto[1]]),
            true if to_column > column => ([a.at[0] + BOX, beside], [b.at[0] + near, onto[1]]),
            _ => (below, onto),
        };
        let over = [(from[0] + onto[0]) / 2.0, (from[1] + onto[1]) / 2.0];
        Way {
            from,
            over,
            to: onto,
        }
    }

    /// A point of the curve.
    fn at(&self, t: f64) -> [f64; 2] {
        let weights = [(1.0 - t) * (1.0 - t), 2.0 * t * (1.0 - t), t * t];
        let points = [self.from, self.over, self.to];
        [0, 1].map(|i| points.iter().zip(weights).map(|(p, w)| w * p[i]).sum())
    }
}

fn arrow(edge: &Edge, boxes: &[Placed<'_>]) -> Markup {
    let way = Way::of(edge, boxes);
    let ([x0, y0], [x1, y1], [x2, y2]) = (way.from, way.over, way.to);
    let (dx, dy) = (x2 - x1, y2 - y1);
    let length = dx.hypot(dy).max(1.0);
    let (ux, uy) = (dx / length * HEAD, dy / length * HEAD);
    let line = format!(
        "M{} {}Q{} {} {} {}",
        px(x0),
        px(y0),
        px(x1),
        px(y1),
        px(x2),
        px(y2)
    );
    let head = format!(
        "M{} {}L{} {}L{} {}Z",
        px(x2),
        px(y2),
        px(x2 - ux - uy / 2.0),
        px(y2 - uy + ux / 2.0),
        px(x2 - ux + uy / 2.0),
        px(y2 - uy - ux / 2.0)
    );
    html! {
        path.arrow d=(line) {}
        path.head d=(head) {}
    }
}

fn label(edge: &Edge, boxes: &[Placed<'_>]) -> Markup {
    // Nearer to where it ends: several may leave one box.
    const ALONG: f64 = 0.55;
    let [x, y] = Way::of(edge, boxes).at(ALONG);
    html! {
        text.on.middle x=(px(x)) y=(px(y + 4.0)) { (edge.label) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_of_a_layer_stand_on_one_line_and_words_fit() {
        let mut diagram = Diagram::default();
        diagram.node("a", "", [0, 1]);
        diagram.node("b", &"some words ".repeat(12), [3, 0]);
        diagram.node("c", "", [3, 2]);
        diagram.node("d", "", [7, 1]);
        let boxes = placed(&diagram.nodes);
        assert_eq!(boxes[1].at[1], boxes[2].at[1]);
        assert!(boxes[0].at[1] + boxes[0].at[2] < boxes[1].at[1]);
        assert!(boxes[1].at[1] + boxes[1].at[2] < boxes[3].at[1]);
        assert_eq!(boxes[0].at[0], boxes[3].at[0]);
        assert!(boxes[1].lines.len() > 3);
        assert!(boxes[1].lines.iter().all(|l| text_width(l) < BOX));
    }

    #[test]
    fn an_arrow_past_a_box_goes_round_it() {
        let mut diagram = Diagram::default();
        for layer in 0..3 {
            diagram.node("box", "with words", [layer, 1]);
        }
        diagram.node("left", "", [2, 0]);
        diagram.node("above it", "with words", [1, 0]);
        diagram.edge(0, 2, "");
        diagram.edge(0, 3, "");
        let boxes = placed(&diagram.nodes);
        for edge in &diagram.edges {
            let way = Way::of(edge, &boxes);
            for [left, top, high] in [boxes[1].at, boxes[4].at] {
                for i in 0..=100 {
                    let [x, y] = way.at(f64::from(i) / 100.0);
                    let inside = x > left && x < left + BOX && y > top && y < top + high;
                    assert!(!inside, "{x}, {y} is in a box that it passes");
                }
            }
        }
    }
}
