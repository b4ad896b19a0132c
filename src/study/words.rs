//! How numbers are said.

use super::Number;

/// A number with four significant digits: a loss of a millionth is `1.000e-6`, not `0.0000`.
pub(super) fn number(x: f64) -> String {
    Number::from(x).to_string()
}

/// A share in percent: `97.7%`, with as many digits as tell it from all and none.
pub(super) fn percent(share: f64) -> String {
    // Not `-0`.
    let percent = 100.0 * share + 0.0;
    if percent == 0.0 || percent == 100.0 {
        return format!("{percent:.0}%");
    }
    let from_ends = percent.abs().min((100.0 - percent).abs());
    let digits = (1..6).find(|&d| from_ends >= 0.5 * 0.1f64.powi(d));
    format!("{percent:.*}%", digits.unwrap_or(6) as usize)
}

#[cfg(test)]
mod tests {
    use super::{number, percent};

    #[test]
    fn small_numbers_keep_their_digits() {
        let said = [1.25e-6, 0.00799, 7.48911, f64::NAN].map(number);
        assert_eq!(said, ["1.250e-6", "0.007990", "7.489", "–"]);
    }

    #[test]
    fn nearly_all_is_not_all() {
        let said = [0.0, 1e-5, 0.5, 0.977, 0.9996, 0.999856, 1.0].map(percent);
        assert_eq!(
            said,
            ["0%", "0.001%", "50.0%", "97.7%", "99.96%", "99.99%", "100%"]
        );
        // More than all, and less than none.
        assert_eq!(
            [1.226, -0.0, -0.42].map(percent),
            ["122.6%", "0%", "-42.0%"]
        );
    }
}
