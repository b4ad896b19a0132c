//! What several steps draw: tables of pairs, points by their answer, lines across a plane.

use crate::study::two_integer::spread_out;
use crate::study::{ChartAxis, Draw, HeatMap, Number, Series};

/// A number for every pair, `A` by `A`.
pub fn table<N: Copy + Into<Number>>(title: &str, n: usize, values: &[N]) -> HeatMap {
    HeatMap::new(
        title,
        ChartAxis::new("A", 0..n),
        ChartAxis::new("B", 0..n),
        values,
    )
}

/// Yes or no for every pair.
pub fn yes_no(title: &str, n: usize, values: impl IntoIterator<Item = bool>) -> HeatMap {
    let values: Vec<usize> = values.into_iter().map(usize::from).collect();
    table(title, n, &values)
}

/// A seventh of the pairs, coloured by an answer.
pub fn by_answer(points: &[[f64; 2]], says: &[bool]) -> Vec<Series> {
    coloured("answer", points, says)
}

/// A seventh of the pairs, coloured by zeros and ones of this name.
pub fn coloured(name: &str, points: &[[f64; 2]], ones: &[bool]) -> Vec<Series> {
    let shown = spread_out(points.len());
    let of = |one: bool| -> Vec<[f64; 2]> {
        let these = shown.iter().filter(|&&i| ones[i] == one);
        these.map(|&i| points[i]).collect()
    };
    let series = |one: bool| dots(&format!("{name} {}", usize::from(one)), &of(one));
    vec![series(false), series(true)]
}

/// Points of one kind.
pub fn dots(name: &str, points: &[[f64; 2]]) -> Series {
    series(name, Draw::Points, points)
}

/// A dashed line through points.
pub fn dashed(name: &str, points: &[[f64; 2]]) -> Series {
    series(name, Draw::Dashed, points)
}

fn series(name: &str, draw: Draw, points: &[[f64; 2]]) -> Series {
    let axis = |i: usize| points.iter().map(|p| p[i]).collect::<Vec<f64>>();
    Series::new(name, draw, &axis(0), &axis(1))
}

/// The part of the line `direction · p = threshold` that lies among some points: none of it may.
pub fn line_among(points: &[[f64; 2]], direction: [f64; 2], threshold: f64) -> Vec<[f64; 2]> {
    let square = direction[0].powi(2) + direction[1].powi(2);
    if points.is_empty() || square == 0.0 {
        return Vec::new();
    }
    let foot = direction.map(|x| x * threshold / square);
    let along = [-direction[1], direction[0]];
    // Where the line is inside the points' box along both axes.
    let (mut from, mut to) = (f64::NEG_INFINITY, f64::INFINITY);
    for axis in 0..2 {
        let ends = [f64::min, f64::max].map(|pick| {
            let values = points.iter().map(|p| p[axis]);
            values.reduce(pick).expect("there are points")
        });
        if along[axis] == 0.0 {
            if !(ends[0]..=ends[1]).contains(&foot[axis]) {
                return Vec::new();
            }
            continue;
        }
        let at = ends.map(|end| (end - foot[axis]) / along[axis]);
        from = from.max(at[0].min(at[1]));
        to = to.min(at[0].max(at[1]));
    }
    if from >= to {
        return Vec::new();
    }
    [from, to]
        .map(|t| [0, 1].map(|axis| foot[axis] + t * along[axis]))
        .into()
}
