//! The checker's numbers: middles with radii.

/// A number within a distance of another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ball {
    pub(super) m: f64,
    pub(super) r: f64,
}

/// A little more than a sum or product of a few positive numbers came out as.
fn pad(r: f64) -> f64 {
    r * (1.0 + 4.0 * f64::EPSILON) + f64::MIN_POSITIVE
}

impl Ball {
    pub(super) const ZERO: Ball = Ball { m: 0.0, r: 0.0 };

    pub(super) fn of(m: f64) -> Ball {
        Ball { m, r: 0.0 }
    }
    pub(super) fn plus(self, b: Ball) -> Ball {
        let m = self.m + b.m;
        Ball {
            m,
            r: pad(self.r + b.r + f64::EPSILON * m.abs()),
        }
    }
    pub(super) fn minus(self, b: Ball) -> Ball {
        self.plus(Ball { m: -b.m, r: b.r })
    }
    pub(super) fn times(self, b: Ball) -> Ball {
        let m = self.m * b.m;
        Ball {
            m,
            r: pad(self.m.abs() * b.r + self.r * (b.m.abs() + b.r) + f64::EPSILON * m.abs()),
        }
    }
    pub(super) fn inverse(self) -> Ball {
        let (m, size) = (1.0 / self.m, self.m.abs());
        let away = size * (1.0 - f64::EPSILON) - self.r;
        // |1/x - 1/m| = |x - m| / |x m|; a number that may be zero has no inverse.
        let r = if away > 0.0 {
            pad(pad(self.r / away) / size + f64::EPSILON * m.abs())
        } else {
            f64::NAN
        };
        Ball { m, r }
    }
    pub(super) fn root(self) -> Ball {
        let m = self.m.sqrt();
        // |√x - √m| = |x - m| / (√x + √m)
        Ball {
            m,
            r: pad(pad(self.r / m) + f64::EPSILON * m),
        }
    }
    pub(super) fn exp(self) -> Ball {
        // e^x = (e^(x / 2^k))^(2^k), and Taylor's polynomial where |x| < 1: what is left out is below twice the next term.
        const TERMS: u32 = 24;
        // No score of a model is so far from another; what is not finite is known to be nothing.
        const LARGEST: f64 = (1u64 << 20) as f64;
        if self.m.is_nan() || self.m.abs() + self.r > LARGEST {
            let nothing = f64::NAN;
            return Ball {
                m: nothing,
                r: nothing,
            };
        }
        let k = (self.m.abs() + self.r).max(1.0).log2().ceil() as i32;
        let half = 2f64.powi(-k);
        let x = Ball {
            m: self.m * half,
            r: self.r * half,
        };
        let mut sum = Ball::of(1.0);
        for n in (1..=TERMS).rev() {
            sum = Ball::of(1.0).plus(x.times(sum).times(Ball::of(f64::from(n)).inverse()));
        }
        let next = (1..=TERMS + 1).fold(2.0, |t, n| t / f64::from(n));
        sum.r = pad(sum.r + next);
        (0..k).fold(sum, |power, _| power.times(power))
    }
    pub(super) fn dot(a: &[Ball], b: &[Ball]) -> Ball {
        a.iter()
            .zip(b)
            .fold(Ball::ZERO, |sum, (&a, &b)| sum.plus(a.times(b)))
    }
    pub(super) fn lo(self) -> f64 {
        let lo = self.m - self.r;
        if lo.is_nan() {
            f64::NEG_INFINITY
        } else {
            lo.next_down()
        }
    }
    pub(super) fn hi(self) -> f64 {
        -Ball {
            m: -self.m,
            r: self.r,
        }
        .lo()
    }
}
