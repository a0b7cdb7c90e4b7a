//! Products of matrices that lie in slices, row by row or with strides.

use std::mem::MaybeUninit;

use gemm::Parallelism;

/// A matrix inside a slice.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> View<'a> {
    /// Rows of `columns` values, the starts of which lie `stride` apart.
    pub(super) fn new(values: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(rows == 0 || columns == 0 || (rows - 1) * stride + columns <= values.len(), "matrix exceeds its slice");
        Self { values, rows, columns, row_stride: stride, column_stride: 1 }
    }

    /// The transposed matrix.
    pub(super) fn t(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// Who computes a product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Threads {
    /// The calling thread.
    One,
    /// The thread pool. The result is the same, as only rows and columns are shared out.
    All,
}

/// out = scale · a b; row-major.
pub(super) fn multiply(out: &mut [MaybeUninit<f32>], scale: f32, a: View, b: View, threads: Threads) {
    assert_eq!(out.len(), a.rows * b.columns, "product of the wrong size");
    // SAFETY: `out` holds the product, and is not read.
    unsafe { product(out.as_mut_ptr().cast(), false, scale, a, b, threads) }
}

/// out += scale · a b; row-major.
pub(super) fn multiply_add(out: &mut [f32], scale: f32, a: View, b: View, threads: Threads) {
    assert_eq!(out.len(), a.rows * b.columns, "product of the wrong size");
    // SAFETY: `out` holds the product.
    unsafe { product(out.as_mut_ptr(), true, scale, a, b, threads) }
}

/// # Safety
/// `out` has room for the product, which is initialised if `add`.
unsafe fn product(out: *mut f32, add: bool, scale: f32, a: View, b: View, threads: Threads) {
    assert_eq!(a.columns, b.rows, "matrices do not fit");
    let parallelism = match threads {
        Threads::One => Parallelism::None,
        Threads::All => Parallelism::Rayon(0),
    };
    // SAFETY: `View::new` has checked the extents of `a` and `b`, the caller vouches for `out`.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            out,
            1,
            b.columns as isize,
            add,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// The initialised values as places to write to again.
pub(super) fn rewrite(values: &mut [f32]) -> &mut [MaybeUninit<f32>] {
    // SAFETY: same layout; this module and its callers only write whole floats through it.
    unsafe { &mut *(std::ptr::from_mut(values) as *mut [MaybeUninit<f32>]) }
}
