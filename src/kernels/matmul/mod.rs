//! Products of matrices, exact to f32 rounding or with the operands rounded to bf16 or split into two of them.
//!
//! The scheme is that of Goto and van de Geijn (2008). The columns of the right-hand side are packed into [`panels`]
//! that stay in the second-level cache; a few rows of the left-hand side into the first-level cache; and a [`tile`] of
//! the product is summed in registers over a block of the inner dimension. When the rows of a task are done, while they
//! are still in cache, the caller's epilogue finishes them: bias, activation, residual.
//!
//! Every element is summed in an order that the inner dimension alone decides, so neither the number of threads nor the
//! cut into tasks changes a bit.

#[cfg(target_arch = "x86_64")]
pub(super) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod kernel;
mod loops;
mod pack;
mod panels;
mod shape;
#[cfg(test)]
mod tests;
mod tiles;
mod tiling;

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::kernels::bridge::{uninitialized, written};
use kernel::Kernel;
use pack::Lanes;
pub(super) use panels::{Layout, Panels};
use panels::{Out, OutPlace, PANELS};
use tiling::Tiling;
pub(super) use tiling::second_level_cache;

/// In what precision the operands of products are taken. Sums are in f32, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Precision {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bf16 (8 bits of mantissa), which processors with AMX or AVX-512-BF16 multiply several times as fast.
    Bf16,
    /// Split into two bf16 that add up to 16 bits of mantissa, of which three products are summed (Henry, Tang and
    /// Heinecke 2019; PyTorch's `high`). With AMX that is faster than f32; elsewhere operands stay as they are.
    Bf16x3,
    /// Of the affine maps of inference, in eight bits (`kernels::int8`); of other products rounded to bf16 where the
    /// processor multiplies these faster, else as they are.
    Int8,
}

thread_local! {
    static PRECISION: Cell<Precision> = const { Cell::new(Precision::F32) };
}

/// Runs `body` with the products of the network's operations in `precision`, and so those of their gradients later.
pub fn with_precision<T>(precision: Precision, body: impl FnOnce() -> T) -> T {
    struct Before(Precision);
    impl Drop for Before {
        fn drop(&mut self) {
            PRECISION.set(self.0);
        }
    }
    let _before = Before(PRECISION.replace(precision));
    body()
}

/// Runs `body` without eight bits: for a layer that needs more.
pub fn without_int8<T>(body: impl FnOnce() -> T) -> T {
    match precision() {
        Precision::Int8 => with_precision(Kernel::best(Precision::Int8).precision(), body),
        _ => body(),
    }
}

/// The precision that holds where this is called.
pub(super) fn precision() -> Precision {
    PRECISION.get()
}

/// Rows that are multiplied at once: products of as many rows, or of a multiple, waste nothing.
pub(super) fn tile_rows(precision: Precision) -> usize {
    Kernel::best(precision).rows
}

/// How many times as many products a second as in f32, about.
pub(super) fn rate(precision: Precision) -> f64 {
    Kernel::best(precision).rate()
}

/// A matrix inside a slice, one of whose strides is 1.
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

    fn rows(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.rows, "rows outside of the matrix");
        let values = self.values.get(range.start * self.row_stride..).unwrap_or_default();
        Self { values, rows: range.len(), ..self }
    }

    pub(super) fn columns(self, range: Range<usize>) -> Self {
        self.t().rows(range).t()
    }

    /// The matrix or its transpose, whichever is stored row by row.
    fn stored(self) -> Self {
        if self.column_stride == 1 { self } else { self.t() }
    }

    /// Asks for a part of the rows to be brought near.
    fn prefetch(self, part: usize, parts: usize) {
        #[cfg(target_arch = "x86_64")]
        if self.column_stride == 1 {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            const LINE: usize = 16;
            for row in self.rows * part / parts..self.rows * (part + 1) / parts {
                let start = self.values.as_ptr().wrapping_add(row * self.row_stride);
                for column in (0..self.columns).step_by(LINE) {
                    // SAFETY: a prefetch of any address has no effect but on speed.
                    unsafe { _mm_prefetch::<_MM_HINT_T1>(start.wrapping_add(column).cast()) };
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (part, parts);
    }

    /// The vectors of lanes that the matrix consists of, with the columns as the inner dimension, and whether these are
    /// its rows (else its columns).
    fn lanes(self, kernel: Kernel) -> (Lanes<'a>, bool) {
        let View { values, rows, columns, row_stride, column_stride } = self;
        if column_stride == 1 {
            (Lanes { values, stride: row_stride, count: rows, length: columns, form: kernel.form(true) }, true)
        } else {
            assert_eq!(row_stride, 1, "one stride of a matrix must be 1");
            (Lanes { values, stride: column_stride, count: columns, length: rows, form: kernel.form(false) }, false)
        }
    }
}

/// Who computes a product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Threads {
    /// The calling thread.
    One,
    /// The thread pool. The result is the same.
    All,
}

/// A product to be computed: scale · a b.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    pub(super) a: View<'a>,
    pub(super) b: View<'a>,
    pub(super) scale: f32,
    pub(super) precision: Precision,
}

impl<'a> Product<'a> {
    /// a b in f32.
    pub(super) fn new(a: View<'a>, b: View<'a>) -> Self {
        assert_eq!(a.columns, b.rows, "matrices do not fit");
        Self { a, b, scale: 1.0, precision: Precision::F32 }
    }

    /// The same product, multiplied by a number.
    pub(super) fn times(self, scale: f32) -> Self {
        Self { scale, ..self }
    }

    /// The same product in another precision.
    pub(super) fn precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Writes the product, row-major, into all of `out`.
    pub(super) fn write(self, out: &mut [MaybeUninit<f32>], threads: Threads) {
        self.run(out, threads, false, None::<fn(usize, usize, &mut [f32])>);
    }

    /// The product, row-major, by all threads.
    pub(super) fn to_vec(self) -> Vec<f32> {
        let mut out = uninitialized(self.a.rows * self.b.columns);
        self.write(&mut out, Threads::All);
        // SAFETY: the product has been written.
        unsafe { written(out) }
    }

    /// Writes the product and calls `finish(row, first column, values)` for each finished piece of a row.
    pub(super) fn write_then(
        self,
        out: &mut [MaybeUninit<f32>],
        threads: Threads,
        finish: impl Fn(usize, usize, &mut [f32]) + Sync,
    ) {
        self.run(out, threads, false, Some(finish));
    }

    /// Adds the product to `out`, row-major.
    pub(super) fn add_to(self, out: &mut [f32], threads: Threads) {
        self.run(rewrite(out), threads, true, None::<fn(usize, usize, &mut [f32])>);
    }

    /// With `add`, `out` must be initialised.
    fn run(
        self,
        out: &mut [MaybeUninit<f32>],
        threads: Threads,
        add: bool,
        finish: Option<impl Fn(usize, usize, &mut [f32]) + Sync>,
    ) {
        let (rows, columns, inner) = (self.a.rows, self.b.columns, self.a.columns);
        assert_eq!(out.len(), rows * columns, "product of the wrong size");
        if rows * columns == 0 {
            return;
        }
        let kernel = Kernel::best(self.precision);
        let out = Out(out.as_mut_ptr().cast());
        let workers = if threads == Threads::One { 1 } else { rayon::current_num_threads() };
        let tiling = Tiling::new(rows, columns, inner, workers, kernel);
        // Rows are read, and packed if need be, anew for every set of columns. One block of the inner dimension at a
        // time there are fewer of these. But then the output is read and written again with every block, which
        // instructions that are fast beside the memory would wait for.
        let depth = match finish {
            Some(_) if kernel.rate() > 1.0 => inner,
            None if kernel.rate() > 1.0 && self.a.column_stride == 1 => inner,
            _ => panels::block(inner, kernel),
        };
        let task = |i: usize| {
            let (rows, range) = tiling.task(i);
            let most = tiling.columns_in_cache(depth, kernel);
            PANELS.with_borrow_mut(|panels| {
                let blocks = (0..inner.max(1)).step_by(depth.max(1)).map(|start| start..inner.min(start + depth));
                let sets = || range.clone().step_by(most).map(|start| start..range.end.min(start + most));
                let mut parts = blocks.flat_map(|block| sets().map(move |columns| (block.clone(), columns))).peekable();
                while let Some((block, columns)) = parts.next() {
                    let part = |block: &Range<usize>, columns: &Range<usize>| {
                        self.b.rows(block.clone()).columns(columns.clone())
                    };
                    panels.pack(part(&block, &columns), self.precision);
                    let ahead = parts.peek().map(|(block, columns)| part(block, columns).stored());
                    let a = self.a.columns(block.clone()).rows(rows.clone());
                    let place = OutPlace { out, stride: self.b.columns, row: rows.start, column: columns.start };
                    let add = add || block.start > 0;
                    let finish = finish.as_ref().filter(|_| block.end == inner);
                    // SAFETY: tasks have rows and columns of their own, inside of `out` by the assertion above.
                    unsafe { panels.multiply(a, self.scale, add, place, ahead, finish) };
                }
            });
        };
        if tiling.tasks() == 1 { task(0) } else { (0..tiling.tasks()).into_par_iter().for_each(task) }
    }
}

/// The initialised values as places to write to again.
pub(super) fn rewrite(values: &mut [f32]) -> &mut [MaybeUninit<f32>] {
    // SAFETY: same layout; this module and its callers only write whole floats through it.
    unsafe { &mut *(std::ptr::from_mut(values) as *mut [MaybeUninit<f32>]) }
}
