//! Runs on some inputs with other values in the places of a node's children.

use super::Scrub;
use super::hypothesis::Body;
use super::site::Piece;
use crate::error::Result;
use crate::linalg::Par;
use crate::model::{Run, Tokens};
use crate::tensor::Scalar;
use rayon::prelude::*;

/// How many sequences are run at a time: about a thousand positions.
pub(super) fn stretch(pos: usize) -> usize {
    const POSITIONS: usize = 1024;
    (POSITIONS / pos).max(1)
}

/// One run of one sequence.
pub(super) struct Job<'v, T> {
    /// The input that all but the children's values are computed from.
    pub base: usize,
    /// The children's values.
    pub values: Vec<&'v [T]>,
}

/// What is read of a run.
pub(super) enum Read<'s, T: Scalar> {
    /// A node's own value.
    Piece(&'s Piece<T>),
    /// The logits at the answers.
    Answers,
}

impl<T: Scalar> Scrub<'_, T> {
    /// How many numbers are read of one sequence.
    pub(super) fn width(&self, read: &Read<'_, T>) -> usize {
        match read {
            Read::Piece(site) => site.width(),
            Read::Answers => self.answers.positions().len() * self.model.config().d_vocab_out,
        }
    }

    /// What is read of each run, one after another.
    pub(super) fn run(
        &self,
        body: &Body<T>,
        read: &Read<'_, T>,
        jobs: &[Job<'_, T>],
    ) -> Result<Vec<T>> {
        let (each, width) = (stretch(self.tokens.pos()), self.width(read));
        let mut out = vec![T::ZERO; jobs.len() * width];
        let work = |(jobs, out): (&[Job<'_, T>], &mut [T])| self.run_stretch(body, read, jobs, out);
        match self.par {
            Par::Rayon => (jobs.par_chunks(each))
                .zip(out.par_chunks_mut(each * width))
                .try_for_each(work)?,
            Par::Seq => (jobs.chunks(each))
                .zip(out.chunks_mut(each * width))
                .try_for_each(work)?,
        }
        Ok(out)
    }

    fn run_stretch(
        &self,
        body: &Body<T>,
        read: &Read<'_, T>,
        jobs: &[Job<'_, T>],
        out: &mut [T],
    ) -> Result<()> {
        let sequences = jobs.iter().flat_map(|job| self.tokens.sequence(job.base));
        let ids = sequences.copied().collect();
        let tokens = Tokens::new(jobs.len(), self.tokens.pos(), ids);
        let mut run = Run::new().par(Par::Seq);
        for (child, node) in body.children.iter().enumerate() {
            run = run.hook(node.site.hook, move |value, _| {
                node.site.replace(value, |job| jobs[job].values[child]);
            });
        }
        if let Read::Piece(site) = read {
            run = run.cache(site.hook);
        }
        let mut found = self.model.run(&tokens, run)?;
        match read {
            Read::Piece(site) => {
                let value = found.cache.get_mut(site.hook).expect("it was kept");
                site.read(value, out);
            }
            Read::Answers => {
                let d = found.logits.shape()[2];
                let at = |row: usize| {
                    let (job, answer) = (
                        row / self.answers.positions().len(),
                        row % self.answers.positions().len(),
                    );
                    found.logits.slice(&[job, self.answers.positions()[answer]])
                };
                let rows = out.chunks_exact_mut(d).enumerate();
                rows.for_each(|(row, out)| out.copy_from_slice(at(row)));
            }
        }
        Ok(())
    }
}
