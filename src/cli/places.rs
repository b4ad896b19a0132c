//! Some of the places along an axis, as people write them: `all`, `last`, `3,5-7`.

use anyhow::{Result, bail};
use std::str::FromStr;

/// Some of the places along an axis whose length is known later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places(Vec<Span>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Span {
    All,
    First,
    Last,
    FromTo(usize, usize),
}

impl FromStr for Places {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let number = |s: &str| s.trim().parse::<usize>().ok();
        let span = |s: &str| match s.trim() {
            "all" => Some(Span::All),
            "first" => Some(Span::First),
            "last" => Some(Span::Last),
            s => match s.split_once('-') {
                None => number(s).map(|n| Span::FromTo(n, n)),
                Some((from, to)) => number(from)
                    .zip(number(to))
                    .filter(|(from, to)| from <= to)
                    .map(|(from, to)| Span::FromTo(from, to)),
            },
        };
        let spans: Option<Vec<Span>> = s.split(',').map(span).collect();
        spans.map(Places).ok_or_else(|| {
            "expected all, first, last, N, N-M, or several of these with commas, as in 0,3-5".into()
        })
    }
}

impl Places {
    /// Which these are of `n` places, in ascending order, each once.
    pub fn of(&self, what: &str, n: usize) -> Result<Vec<usize>> {
        let mut chosen = Vec::new();
        for &span in &self.0 {
            let (from, to) = match span {
                Span::All => (0, n.saturating_sub(1)),
                Span::First => (0, 0),
                Span::Last => (n.saturating_sub(1), n.saturating_sub(1)),
                Span::FromTo(from, to) => (from, to),
            };
            if to >= n {
                bail!("{what} {to}: there are 0..={}", n.saturating_sub(1));
            }
            chosen.extend(from..=to);
        }
        chosen.sort_unstable();
        chosen.dedup();
        Ok(chosen)
    }
}

/// A position of a sequence, from its end where negative.
pub fn position(p: isize, pos: usize) -> Result<usize> {
    let from_start = match p < 0 {
        true => pos.checked_sub(p.unsigned_abs()),
        false => Some(p.unsigned_abs()).filter(|&p| p < pos),
    };
    match from_start {
        Some(p) => Ok(p),
        None => bail!(
            "position {p}: the sequence's positions are 0..={0}, or -{pos}..=-1",
            pos - 1
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_found() {
        let of = |s: &str, n| s.parse::<Places>().unwrap().of("position", n).unwrap();
        assert_eq!(of("all", 3), [0, 1, 2]);
        assert_eq!(of("last", 3), [2]);
        assert_eq!(of("last, 3-5,first,4", 9), [0, 3, 4, 5, 8]);
        for wrong in ["", "x", "5-3", "-1", "3-", "1,,2", "1;2", "all-2"] {
            assert!(wrong.parse::<Places>().is_err(), "{wrong}");
        }
        let far: Places = "2,4-18446744073709551615".parse().unwrap();
        let said = far.of("position", 5).unwrap_err().to_string();
        assert_eq!(said, "position 18446744073709551615: there are 0..=4");
    }
}
