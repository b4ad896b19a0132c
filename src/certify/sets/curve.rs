//! How far a search was, and when.

use super::search::{Done, Search};
use super::tree::Forest;
use crate::certify::{Certified, Count};
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What was proved of the whole space after some time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Since the search began.
    pub seconds: f64,
    /// Sets of a smaller share of the space were not divided.
    pub cutoff: f64,
    /// Share of the space that is certified right, at all positions together.
    pub right: f64,
    /// Share that is certified wrong.
    pub wrong: f64,
    /// Share of which neither is proved.
    pub open: f64,
}

/// The curve of what is proved against time, added to while [`Search::refine`] runs.
///
/// A point is kept whenever a hundredth of the time so far has gone by since the last one, so that there are a few hundred
/// of them however long it takes; and at the end of each cutoff.
#[derive(Debug)]
pub struct ProofCurve {
    started: Instant,
    size: u128,
    so_far: Mutex<SoFar>,
}

#[derive(Debug)]
struct SoFar {
    positions: Vec<(usize, Count)>,
    points: Vec<Point>,
}

impl ProofCurve {
    /// Begins with what a forest proves.
    pub fn new(search: &Search<'_>, forest: &Forest) -> ProofCurve {
        let so_far = SoFar {
            positions: search.counts(forest),
            points: Vec::new(),
        };
        ProofCurve {
            started: Instant::now(),
            size: search.size,
            so_far: Mutex::new(so_far),
        }
    }

    fn so_far(&self) -> MutexGuard<'_, SoFar> {
        // What is in it is whole between any two statements.
        self.so_far.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what was done, at this cutoff, and says how far it is.
    pub fn add(&self, done: &Done, cutoff: f64) -> Point {
        let so_far = &mut *self.so_far();
        for ((_, count), &gained) in so_far.positions.iter_mut().zip(&done.gained) {
            *count += gained;
        }
        let point = so_far.point(self, cutoff);
        let last = so_far.points.last().map_or(0.0, |last| last.seconds);
        if point.seconds > 1.01 * last {
            so_far.points.push(point);
        }
        point
    }

    /// That all is done at this cutoff.
    pub fn finish(&self, cutoff: f64) {
        let so_far = &mut *self.so_far();
        let point = so_far.point(self, cutoff);
        so_far.points.push(point);
    }

    /// The points, by time.
    pub fn points(&self) -> Vec<Point> {
        self.so_far().points.clone()
    }
}

impl SoFar {
    fn point(&self, curve: &ProofCurve, cutoff: f64) -> Point {
        let certified = Certified::from_positions(curve.size, self.positions.clone());
        let Count { right, wrong } = certified.all;
        Point {
            seconds: curve.started.elapsed().as_secs_f64(),
            cutoff,
            right: certified.share(right),
            wrong: certified.share(wrong),
            open: certified.share(curve.size - right - wrong),
        }
    }
}
