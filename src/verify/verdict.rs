//! Verdicts: what was compared, how far apart it was, and how far rounding alone may put it.

use serde::Serialize;

/// Where a bound comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BoundKind {
    /// Derived: no evaluation in this precision, in whatever order, can be further off.
    Derived,
    /// Estimated from the model's measured sensitivity to perturbations of rounding's size.
    Estimated,
}

/// The entry where two sides of an identity are furthest apart, as a share of what rounding allows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measure {
    /// How far apart the two sides are there.
    pub error: f64,
    /// How far rounding may put them there.
    pub bound: f64,
    /// `error / bound`; above 1 the identity is refuted. Infinite where an entry is no number.
    #[serde(serialize_with = "finite_or_null")]
    pub ratio: f64,
    /// Where the bound comes from.
    pub kind: BoundKind,
    /// The entry: a hook's name and an index.
    pub place: String,
    /// The left side there.
    #[serde(serialize_with = "finite_or_null")]
    pub left: f64,
    /// The right side there.
    #[serde(serialize_with = "finite_or_null")]
    pub right: f64,
    /// How many entries were compared.
    pub compared: usize,
}

/// JSON has no infinities; what is no finite number is `null`.
fn finite_or_null<S: serde::Serializer>(x: &f64, s: S) -> Result<S::Ok, S::Error> {
    if x.is_finite() {
        s.serialize_f64(*x)
    } else {
        s.serialize_none()
    }
}

/// What became of an identity.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase", tag = "verdict")]
pub enum Verdict {
    /// Every entry agrees within the bound.
    Holds(Measure),
    /// An entry does not.
    Refuted(Measure),
    /// The identity's precondition does not hold on this model.
    #[serde(rename = "not applicable")]
    NotApplicable {
        /// Why.
        reason: String,
    },
}

/// One identity and its verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The identity's name.
    pub id: &'static str,
    /// What it says.
    pub statement: &'static str,
    /// What became of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

impl Finding {
    /// Whether the identity was refuted.
    pub fn refuted(&self) -> bool {
        matches!(self.verdict, Verdict::Refuted(_))
    }
}

/// Collects the entry that is furthest off over many comparisons.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    worst: Option<Measure>,
    /// Where numbers were compared whose bound is no number.
    unbounded: Option<String>,
    compared: usize,
    kind: BoundKind,
}

impl Comparison {
    pub fn new(kind: BoundKind) -> Self {
        Comparison {
            worst: None,
            unbounded: None,
            compared: 0,
            kind,
        }
    }

    /// Compares one entry. A value that is no finite number counts as infinitely far off; where the bound is none, as in
    /// f32 behind many layers, nothing can be said.
    pub fn entry(&mut self, left: f64, right: f64, bound: f64, place: impl FnOnce() -> String) {
        let numbers = left.is_finite() && right.is_finite();
        if numbers && !bound.is_finite() {
            self.unbounded.get_or_insert_with(place);
            return;
        }
        self.compared += 1;
        let error = (left - right).abs();
        let ratio = if !numbers {
            f64::INFINITY
        } else if error == 0.0 {
            0.0
        } else {
            error / bound
        };
        // Of entries that are no numbers the first is the telling one; of others the furthest off.
        let further = |w: &Measure| {
            let number = w.left.is_finite() && w.right.is_finite();
            ratio > w.ratio || ratio == w.ratio && number && (error.is_nan() || error > w.error)
        };
        if self.worst.as_ref().is_none_or(further) {
            let (kind, place) = (self.kind, place());
            self.worst = Some(Measure {
                error,
                bound,
                ratio,
                kind,
                place,
                left,
                right,
                compared: 0,
            });
        }
    }

    /// Takes in what was collected elsewhere.
    pub fn merge(&mut self, other: Comparison) {
        self.compared += other.compared;
        self.unbounded = self.unbounded.take().or(other.unbounded);
        if let Some(theirs) = other.worst
            && self
                .worst
                .as_ref()
                .is_none_or(|ours| theirs.ratio > ours.ratio)
        {
            self.worst = Some(theirs);
        }
    }

    /// The verdict on everything compared; `None` when nothing was.
    pub fn verdict(self) -> Option<Verdict> {
        let compared = self.compared;
        let measure = self.worst.map(|worst| Measure { compared, ..worst });
        match (measure, self.unbounded) {
            (Some(measure), _) if measure.ratio > 1.0 => Some(Verdict::Refuted(measure)),
            (_, Some(place)) => Some(Verdict::NotApplicable {
                reason: format!(
                    "the bound on rounding is beyond this precision's numbers, at {place}"
                ),
            }),
            (measure, None) => measure.map(Verdict::Holds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(entries: &[(f64, f64, f64)]) -> Verdict {
        let mut c = Comparison::new(BoundKind::Derived);
        for (i, &(left, right, bound)) in entries.iter().enumerate() {
            c.entry(left, right, bound, || format!("x[{i}]"));
        }
        c.verdict().unwrap()
    }

    #[test]
    fn the_entry_furthest_off_for_its_bound_decides() {
        let Verdict::Refuted(m) = verdict(&[(1.0, 1.5, 1.0), (0.0, 0.2, 0.1), (3.0, 3.0, 0.0)])
        else {
            panic!("0.2 is more than 0.1")
        };
        assert_eq!((m.place.as_str(), m.compared), ("x[1]", 3));
        assert!(matches!(
            verdict(&[(1.0, 1.5, 1.0), (2.0, 2.0, 0.0)]),
            Verdict::Holds(_)
        ));
    }

    #[test]
    fn no_number_is_a_refutation() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(matches!(verdict(&[(bad, bad, 1.0)]), Verdict::Refuted(_)));
            // Of numbers whose bound is none nothing is known, whatever holds elsewhere; unless it does not.
            let unknown = verdict(&[(1.0, 1.0, bad), (1.0, 1.0, 0.0)]);
            assert!(matches!(unknown, Verdict::NotApplicable { .. }));
            let refuted = verdict(&[(1.0, 1.0, bad), (1.0, 2.0, 0.5)]);
            assert!(matches!(refuted, Verdict::Refuted(_)));
            // And a later, ordinary entry does not hide it.
            assert!(matches!(
                verdict(&[(bad, 0.0, 1.0), (1.0, 2.0, 0.5)]),
                Verdict::Refuted(_)
            ));
        }
        assert_eq!(Comparison::new(BoundKind::Derived).verdict(), None);
    }

    #[test]
    fn json_has_no_infinities() {
        let finding = Finding {
            id: "x",
            statement: "x = x",
            verdict: verdict(&[(f64::NAN, 0.0, 1.0)]),
        };
        let json = serde_json::to_value(&finding).unwrap();
        assert_eq!(json["verdict"], "refuted");
        assert!(json["ratio"].is_null());
    }
}
