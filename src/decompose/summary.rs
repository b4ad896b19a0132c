//! Summaries and histograms of values by class: plain numbers, ready to be written down.

use crate::error::{Error, Result};
use crate::tensor::Scalar;
use serde::Serialize;
use std::collections::BTreeMap;

/// What a handful of numbers say of many.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// How many values there are.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Their sample standard deviation; NaN (`null` in JSON) of a single value.
    pub std: f64,
    /// The smallest.
    pub min: f64,
    /// A quarter of the values are below.
    pub lower_quartile: f64,
    /// Half of the values are below.
    pub median: f64,
    /// Three quarters of the values are below.
    pub upper_quartile: f64,
    /// The largest.
    pub max: f64,
}

/// The summary of some values; quantiles between two values are interpolated linearly.
///
/// ```
/// use pathsum::decompose::summary;
/// let ages = summary(&[1.0, 2.0, 3.0, 10.0])?;
/// assert_eq!((ages.mean, ages.median, ages.upper_quartile), (4.0, 2.5, 4.75));
/// # Ok::<(), pathsum::Error>(())
/// ```
///
/// # Errors
/// When there are no values, or one is NaN.
///
/// # Cost
/// Sorting them.
///
/// # Source
/// NumPy's `mean`, `std(ddof=1)` and `quantile`.
pub fn summary<T: Scalar>(values: &[T]) -> Result<Summary> {
    let mut sorted: Vec<f64> = values.iter().map(|x| x.to_f64()).collect();
    if sorted.is_empty() || sorted.iter().any(|x| x.is_nan()) {
        return Err(Error::Numeric(
            "a summary of no values, or of one that is not a number".into(),
        ));
    }
    let n = sorted.len() as f64;
    let mean = sorted.iter().sum::<f64>() / n;
    let squares: f64 = sorted.iter().map(|x| (x - mean).powi(2)).sum();
    sorted.sort_by(f64::total_cmp);
    let quantile = |q: f64| {
        let at = q * (n - 1.0);
        let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
        below + (above - below) * at.fract()
    };
    Ok(Summary {
        count: sorted.len(),
        mean,
        std: (squares / (n - 1.0)).sqrt(),
        min: sorted[0],
        lower_quartile: quantile(0.25),
        median: quantile(0.5),
        upper_quartile: quantile(0.75),
        max: sorted[sorted.len() - 1],
    })
}

/// What belongs to a class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OfClass<C, V> {
    /// The class.
    pub class: C,
    /// What belongs to it.
    #[serde(flatten)]
    pub value: V,
}

/// A summary for each class that there is a value of, in the classes' order.
///
/// # Errors
/// When a value is NaN.
///
/// # Panics
/// When there are not as many classes as values.
#[track_caller]
pub fn summary_by_class<C: Ord + Copy, T: Scalar>(
    values: &[T],
    classes: &[C],
) -> Result<Vec<OfClass<C, Summary>>> {
    let each = by_class(values, classes).into_iter();
    each.map(|(class, values)| {
        Ok(OfClass {
            class,
            value: summary(&values)?,
        })
    })
    .collect()
}

#[track_caller]
fn by_class<C: Ord + Copy, T: Scalar>(values: &[T], classes: &[C]) -> BTreeMap<C, Vec<T>> {
    assert_eq!(values.len(), classes.len(), "a class for each value");
    let mut all: BTreeMap<C, Vec<T>> = BTreeMap::new();
    for (&value, &class) in values.iter().zip(classes) {
        all.entry(class).or_default().push(value);
    }
    all
}

/// How often each class has values in each of some bins, which are the same for all classes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Histogram<C> {
    /// The bins' ends, one more than there are bins, evenly spaced from the smallest value to the largest. A bin
    /// has its lower end and not its upper, but for the last, which has both.
    pub edges: Vec<f64>,
    /// By class, in order.
    pub classes: Vec<OfClass<C, Counts>>,
}

/// How many values each bin has.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Counts {
    /// In the order of the bins.
    pub counts: Vec<usize>,
}

/// The histograms of each class's values, on one set of bins.
///
/// # Errors
/// When there are no values, one is NaN or infinite, or there are no bins.
///
/// # Panics
/// When there are not as many classes as values.
///
/// # Source
/// NumPy's `histogram`, whose bins these are: around values that are all the same, of the width one together.
#[track_caller]
pub fn histogram_by_class<C: Ord + Copy, T: Scalar>(
    values: &[T],
    classes: &[C],
    bins: usize,
) -> Result<Histogram<C>> {
    if values.is_empty() || bins == 0 || values.iter().any(|x| !x.is_finite()) {
        return Err(Error::Numeric(format!(
            "a histogram of {} values in {bins} bins, expected finite values and bins",
            values.len()
        )));
    }
    let numbers = || values.iter().map(|x| x.to_f64());
    let (mut low, mut high) = (
        numbers().fold(f64::INFINITY, f64::min),
        numbers().fold(f64::NEG_INFINITY, f64::max),
    );
    if low == high {
        (low, high) = (low - 0.5, high + 0.5);
    }
    let edges: Vec<f64> = (0..=bins)
        .map(|i| low + (high - low) * (i as f64 / bins as f64))
        .collect();
    let of_class = |values: Vec<T>| {
        let mut counts = vec![0; bins];
        for x in values {
            // The edges as they are written decide, not a division that rounds otherwise.
            let above = edges[1..bins].partition_point(|&edge| edge <= x.to_f64());
            counts[above] += 1;
        }
        Counts { counts }
    };
    let classes = by_class(values, classes).into_iter();
    Ok(Histogram {
        classes: classes
            .map(|(class, values)| OfClass {
                class,
                value: of_class(values),
            })
            .collect(),
        edges,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NumPy's own numbers, by hand where they are short.
    #[test]
    fn by_class_and_as_json() {
        let values = [3.0f32, -1.0, 7.0, 1.0, 5.0];
        let classes = [true, false, true, false, true];
        let both = summary_by_class(&values, &classes).unwrap();
        assert_eq!(both[0].value.count, 2);
        assert_eq!(both[0].value.std, 2f64.sqrt());
        assert_eq!(both[1].value.lower_quartile, 4.0);
        let json = serde_json::to_value(&both).unwrap();
        assert_eq!(json[1]["class"], true);
        assert_eq!(json[1]["mean"], 5.0);
        let one = summary(&[2.0f64]).unwrap();
        assert!(one.std.is_nan() && one.upper_quartile == 2.0);
        assert_eq!(
            serde_json::to_value(one).unwrap()["std"],
            serde_json::Value::Null
        );
        assert!(summary::<f64>(&[]).is_err() && summary(&[1.0, f64::NAN]).is_err());
    }

    #[test]
    fn every_value_is_in_one_bin() {
        let values: Vec<f64> = (0..100).map(|i| (i as f64 * 0.37).sin()).collect();
        let classes: Vec<usize> = (0..100).map(|i| i % 3).collect();
        let found = histogram_by_class(&values, &classes, 7).unwrap();
        for (c, of) in found.classes.iter().enumerate() {
            assert_eq!(of.class, c);
            for (bin, &count) in of.value.counts.iter().enumerate() {
                let inside = |x: f64| {
                    found.edges[bin] <= x
                        && (x < found.edges[bin + 1] || bin == 6 && x <= found.edges[7])
                };
                let there = values.iter().zip(&classes);
                assert_eq!(
                    there.filter(|&(&x, &of)| of == c && inside(x)).count(),
                    count
                );
            }
        }
        let same = histogram_by_class(&[2.0f32; 4], &[0; 4], 2).unwrap();
        assert_eq!(same.edges, [1.5, 2.0, 2.5]);
        assert_eq!(same.classes[0].value.counts, [0, 4]);
        assert!(histogram_by_class(&[f64::INFINITY], &[0], 2).is_err());
    }
}
