//! The routines that are compiled for f32 and f64, here: faer's, and ours for what it is slow at.

#[cfg(feature = "blas")]
use super::blas::large_product;
use super::outer::small_outer;
use super::vector::vector_product;
use crate::tensor::{Columns, Routines};
use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{self, ComputeEigenvectors};
use faer::linalg::householder;
use faer::linalg::matmul::matmul;
use faer::linalg::qr::no_pivoting::factor;
use faer::linalg::svd::{ComputeSvdVectors, svd, svd_scratch};
use faer::{Accum, Conj, Mat, MatMut, MatRef, Par};

macro_rules! routines {
    ($t:ty) => {
        impl Routines for $t {
            fn product_into(
                dst: MatMut<'_, $t>,
                alpha: $t,
                A: MatRef<'_, $t>,
                B: MatRef<'_, $t>,
            ) {
                let Some(dst) = vector_product(dst, alpha, A, B) else {
                    return;
                };
                #[cfg(feature = "blas")]
                let Some(dst) = large_product(dst, Accum::Replace, alpha, A, B) else {
                    return;
                };
                // Whoever calls has split the work already; faer's own threads are slower than that, and
                // nested ones slower still.
                matmul(dst, Accum::Replace, A, B, alpha, Par::Seq);
            }

            fn add_transposed_product(
                dst: MatMut<'_, $t>,
                alpha: $t,
                A: Columns<'_, $t>,
                B: Columns<'_, $t>,
            ) {
                let Some(dst) = small_outer(dst, alpha, A, B) else {
                    return;
                };
                let (A, B) = (A.mat().transpose(), B.mat());
                #[cfg(feature = "blas")]
                let Some(dst) = large_product(dst, Accum::Add, alpha, A, B) else {
                    return;
                };
                matmul(dst, Accum::Add, A, B, alpha, Par::Seq);
            }

            fn qr_in_place(mut M: MatMut<'_, $t>) -> Mat<$t> {
                let (m, n) = M.shape();
                let block = factor::recommended_block_size::<$t>(m, n);
                let mut coefficients = Mat::zeros(block, m.min(n));
                let scratch =
                    factor::qr_in_place_scratch::<$t>(m, n, block, Par::Seq, Default::default());
                factor::qr_in_place(
                    M.as_mut(),
                    coefficients.as_mut(),
                    Par::Seq,
                    MemStack::new(&mut MemBuffer::new(scratch)),
                    Default::default(),
                );
                coefficients
            }

            fn apply_q(factors: MatRef<'_, $t>, coefficients: MatRef<'_, $t>, M: MatMut<'_, $t>) {
                let (rows, cols) = (M.nrows(), M.ncols());
                let scratch =
                    householder::apply_block_householder_sequence_on_the_left_in_place_scratch::<$t>(
                        rows,
                        coefficients.nrows(),
                        cols,
                    );
                householder::apply_block_householder_sequence_on_the_left_in_place_with_conj(
                    factors,
                    coefficients,
                    Conj::No,
                    M,
                    Par::Seq,
                    MemStack::new(&mut MemBuffer::new(scratch)),
                );
            }

            fn thin_svd(M: MatRef<'_, $t>) -> Option<(Mat<$t>, Vec<$t>, Mat<$t>)> {
                let (m, n) = (M.nrows(), M.ncols());
                let r = m.min(n);
                let (mut U, mut V) = (Mat::zeros(m, r), Mat::zeros(n, r));
                let mut S = Diag::zeros(r);
                if r > 0 {
                    let thin = ComputeSvdVectors::Thin;
                    let scratch =
                        svd_scratch::<$t>(m, n, thin, thin, Par::Seq, Default::default());
                    svd(
                        M,
                        S.as_mut(),
                        Some(U.as_mut()),
                        Some(V.as_mut()),
                        Par::Seq,
                        MemStack::new(&mut MemBuffer::new(scratch)),
                        Default::default(),
                    )
                    .ok()?;
                }
                let S = S.column_vector().iter().copied().collect();
                Some((U, S, V))
            }

            fn eigenvalues(M: MatRef<'_, $t>) -> Option<Vec<($t, $t)>> {
                let n = M.nrows();
                if n == 0 {
                    return Some(Vec::new());
                }
                let (mut re, mut im) = (Diag::<$t>::zeros(n), Diag::<$t>::zeros(n));
                let no = ComputeEigenvectors::No;
                let scratch = evd::evd_scratch::<$t>(n, no, no, Par::Seq, Default::default());
                evd::evd_real(
                    M,
                    re.as_mut(),
                    im.as_mut(),
                    None,
                    None,
                    Par::Seq,
                    MemStack::new(&mut MemBuffer::new(scratch)),
                    Default::default(),
                )
                .ok()?;
                let pairs = re.column_vector().iter().zip(im.column_vector().iter());
                Some(pairs.map(|(&re, &im)| (re, im)).collect())
            }
        }
    };
}

routines!(f32);
routines!(f64);
