//! How two numbers go together.

/// Pearson's correlation; 0 where one of the two does not vary.
pub(super) fn correlation(pairs: impl Iterator<Item = [f64; 2]>) -> f64 {
    let pairs: Vec<[f64; 2]> = pairs.collect();
    let n = pairs.len() as f64;
    let mean = [0, 1].map(|i| pairs.iter().map(|p| p[i]).sum::<f64>() / n);
    let moment = |i: usize, j: usize| -> f64 {
        let products = pairs.iter().map(|p| (p[i] - mean[i]) * (p[j] - mean[j]));
        products.sum()
    };
    let scale = (moment(0, 0) * moment(1, 1)).sqrt();
    if scale > 0.0 {
        moment(0, 1) / scale
    } else {
        0.0
    }
}
