//! Products of matrices, exact to f32 rounding or with the operands rounded to bf16.
//!
//! The scheme is that of Goto and van de Geijn (2008). The columns of the right-hand side are packed into *panels* that
//! stay in the second-level cache; a few rows of the left-hand side into the first-level cache; and a *tile* of the product
//! is summed in registers over a block of the inner dimension ([`tile`]). When the rows of a task are done, while they are
//! still in cache, the caller's epilogue finishes them: bias, activation, residual.
//!
//! Every element is summed in an order that the inner dimension alone decides, so neither the number of threads nor the
//! cut into tasks changes a bit.

#[cfg(target_arch = "x86_64")]
mod amx;
mod pack;
#[cfg(test)]
mod tests;
mod tile;

use std::cell::{Cell, RefCell};
use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use pack::{Lanes, Line};
use tile::{A_STRIDE, Kernel, Target};

/// In what precision the operands of products are taken. Sums are in f32, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bf16 (8 bits of mantissa), which processors with AMX or AVX-512-BF16 multiply several times as fast.
    Bf16,
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

/// The precision that holds where this is called.
pub(super) fn precision() -> Precision {
    PRECISION.get()
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

    fn columns(self, range: Range<usize>) -> Self {
        self.t().rows(range).t()
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

    /// The vectors of lanes that the matrix consists of, with the columns as the inner dimension, and whether these are its
    /// rows (else its columns).
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
        self.write_then(out, threads, |_, _, _| {});
    }

    /// Writes the product and calls `finish(row, first column, values)` for each finished piece of a row.
    pub(super) fn write_then(
        self,
        out: &mut [MaybeUninit<f32>],
        threads: Threads,
        finish: impl Fn(usize, usize, &mut [f32]) + Sync,
    ) {
        self.run(out, threads, false, finish);
    }

    /// Adds the product to `out`, row-major.
    pub(super) fn add_to(self, out: &mut [f32], threads: Threads) {
        self.run(rewrite(out), threads, true, |_, _, _| {});
    }

    /// With `add`, `out` must be initialised.
    fn run(
        self,
        out: &mut [MaybeUninit<f32>],
        threads: Threads,
        add: bool,
        finish: impl Fn(usize, usize, &mut [f32]) + Sync,
    ) {
        let (rows, columns) = (self.a.rows, self.b.columns);
        assert_eq!(out.len(), rows * columns, "product of the wrong size");
        if rows * columns == 0 {
            return;
        }
        let kernel = Kernel::best(self.precision);
        let out = Out(out.as_mut_ptr().cast());
        let workers = if threads == Threads::One { 1 } else { rayon::current_num_threads() };
        let cut = Cut::new(rows, columns, self.a.columns, workers, kernel);
        let task = |i: usize| {
            let (rows, columns) = cut.task(i);
            let most = cut.columns_in_cache(self.a.columns, kernel);
            PANELS.with_borrow_mut(|panels| {
                for start in columns.clone().step_by(most) {
                    let columns = start..columns.end.min(start + most);
                    panels.pack(self.b.columns(columns.clone()), self.precision);
                    let place = Place { out, stride: self.b.columns, row: rows.start, column: columns.start };
                    // SAFETY: tasks have rows and columns of their own, inside of `out` by the assertion above.
                    unsafe { panels.multiply(self.a.rows(rows.clone()), self.scale, add, place, &finish) };
                }
            });
        };
        if cut.tasks() == 1 { task(0) } else { (0..cut.tasks()).into_par_iter().for_each(task) }
    }
}

thread_local! {
    static PANELS: RefCell<Panels> = RefCell::default();
    static ROWS: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Where tasks write to, each in places of its own.
#[derive(Clone, Copy)]
struct Out(*mut f32);

// SAFETY: the tasks of a product write to different places.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

/// A corner of the output.
#[derive(Clone, Copy)]
struct Place {
    out: Out,
    stride: usize,
    row: usize,
    column: usize,
}

/// Packed columns of a right-hand side: [blocks of the inner dimension, panels, lanes of the block, columns of a panel].
#[derive(Default)]
pub(super) struct Panels {
    lines: Vec<Line>,
    inner: usize,
    columns: usize,
    precision: Precision,
}

impl Panels {
    /// Takes all of `b`.
    pub(super) fn pack(&mut self, b: View, precision: Precision) {
        let kernel = Kernel::best(precision);
        (self.inner, self.columns, self.precision) = (b.rows, b.columns, precision);
        let blocks = Blocks::new(b.rows, kernel);
        let panels = b.columns.div_ceil(kernel.columns);
        let needed = blocks.padded_lanes() * panels * kernel.columns;
        self.lines.resize(needed.div_ceil(Line::LANES).max(self.lines.len()), Line::ZERO);
        let mut places = Line::lanes_mut(&mut self.lines);
        for block in blocks.iter() {
            for panel in 0..panels {
                let columns = panel * kernel.columns..b.columns.min((panel + 1) * kernel.columns);
                let (lanes, along) = b.rows(block.range.clone()).columns(columns).t().lanes(kernel);
                let (place, rest) = places.split_at_mut(block.lanes * kernel.columns);
                lanes.pack(place, [block.lanes, kernel.columns], along);
                places = rest;
            }
        }
    }

    /// Writes scale · a b into `out`, row-major with rows `stride` apart.
    pub(super) fn write(&self, a: View, scale: f32, out: &mut [MaybeUninit<f32>], stride: usize) {
        self.run(a, scale, false, out, stride);
    }

    /// Adds scale · a b to `out`, row-major.
    pub(super) fn add_to(&self, a: View, scale: f32, out: &mut [f32]) {
        self.run(a, scale, true, rewrite(out), self.columns);
    }

    fn run(&self, a: View, scale: f32, add: bool, out: &mut [MaybeUninit<f32>], stride: usize) {
        assert!(stride >= self.columns && a.rows * stride <= out.len(), "product of the wrong size");
        let place = Place { out: Out(out.as_mut_ptr().cast()), stride, row: 0, column: 0 };
        // SAFETY: `out` has room for the product, and holds numbers if these are added to.
        unsafe { self.multiply(a, scale, add, place, &|_, _, _| {}) }
    }

    /// Writes (or adds) scale · a b to the place, and finishes every row.
    ///
    /// # Safety
    /// The place has room for the product, is nobody else's, and is initialised if `add`.
    unsafe fn multiply(
        &self,
        a: View,
        scale: f32,
        add: bool,
        place: Place,
        finish: &(impl Fn(usize, usize, &mut [f32]) + Sync),
    ) {
        assert_eq!(a.columns, self.inner, "matrices do not fit");
        let kernel = Kernel::best(self.precision);
        let blocks = Blocks::new(self.inner, kernel);
        let panels = self.columns.div_ceil(kernel.columns);
        ROWS.with_borrow_mut(|lines| {
            lines.resize(kernel.rows.max(16) * A_STRIDE / Line::LANES, Line::ZERO);
            let _tiles = kernel.begin();
            for first in (0..a.rows).step_by(kernel.rows) {
                let rows = kernel.rows.min(a.rows - first);
                let mut packed = Line::lanes(&self.lines);
                // SAFETY: inside of the place.
                let corner = unsafe { place.out.0.add((place.row + first) * place.stride + place.column) };
                for (i, block) in blocks.iter().enumerate() {
                    let (lanes, along) = a.rows(first..first + rows).columns(block.range.clone()).lanes(kernel);
                    let layout = kernel.row_layout(along, block.lanes);
                    let in_place = kernel.takes(&lanes, along, block.lanes);
                    if in_place.is_none() {
                        lanes.pack(Line::lanes_mut(lines), layout.shape, layout.transposed);
                    }
                    let packed_rows = in_place.unwrap_or(Line::lanes(lines));
                    let next = first + rows..a.rows.min(first + rows + kernel.rows);
                    let next = a.rows(next).columns(block.range.clone());
                    for panel in 0..panels {
                        let column = panel * kernel.columns;
                        let columns = kernel.columns.min(self.columns - column);
                        // SAFETY: inside of the place.
                        let corner = unsafe { corner.add(column) };
                        let target = Target { corner, stride: place.stride, rows, columns, add: add || i > 0, scale };
                        next.prefetch(panel, panels);
                        let (panel, rest) = packed.split_at(block.lanes * kernel.columns);
                        // SAFETY: the packed operands have the kernel's shape, and the target lies inside of the place.
                        unsafe { kernel.tile(block.lanes, packed_rows, layout, panel, &target) };
                        packed = rest;
                    }
                }
                if blocks.none() && !add {
                    for row in 0..rows {
                        // SAFETY: inside of the place.
                        unsafe { std::ptr::write_bytes(corner.add(row * place.stride), 0, self.columns) };
                    }
                }
                for row in 0..rows {
                    // SAFETY: inside of the place, and written by now.
                    let values =
                        unsafe { std::slice::from_raw_parts_mut(corner.add(row * place.stride), self.columns) };
                    finish(place.row + first + row, place.column, values);
                }
            }
        });
    }
}

/// The inner dimension cut into equal blocks that a packed row has room for.
struct Blocks {
    inner: usize,
    /// Elements of a block but the last.
    length: usize,
    kernel: Kernel,
}

struct Block {
    range: Range<usize>,
    /// Lanes it takes when packed, zeros included.
    lanes: usize,
}

/// Most lanes of a block.
const BLOCK: usize = 512;

/// Left-hand sides of at most [`BLOCK`] columns whose rows lie this far apart need not be packed.
pub(super) const PACKED_STRIDE: usize = A_STRIDE;
/// Such a left-hand side, if it has a multiple of this many rows.
pub(super) const PACKED_ROWS: usize = 42;

impl Blocks {
    fn new(inner: usize, kernel: Kernel) -> Self {
        let per_lane = if kernel.pairs() { 2 } else { 1 };
        let lanes = inner.div_ceil(per_lane);
        let blocks = lanes.div_ceil(BLOCK).max(1);
        let length = lanes.div_ceil(blocks).next_multiple_of(kernel.depth) * per_lane;
        Self { inner, length: length.max(1), kernel }
    }

    fn none(&self) -> bool {
        self.inner == 0
    }

    fn iter(&self) -> impl Iterator<Item = Block> {
        (0..self.inner).step_by(self.length).map(|start| {
            let range = start..self.inner.min(start + self.length);
            let lanes = if self.kernel.pairs() { range.len().div_ceil(2) } else { range.len() };
            Block { range, lanes: lanes.next_multiple_of(self.kernel.depth) }
        })
    }

    fn padded_lanes(&self) -> usize {
        self.iter().map(|block| block.lanes).sum()
    }
}

/// A product cut into tasks: a grid of pieces, whole tiles each.
struct Cut {
    rows: usize,
    columns: usize,
    /// Rows and columns of a piece.
    piece: (usize, usize),
}

impl Cut {
    /// The grid for `workers` threads whose busiest one is done first.
    fn new(rows: usize, columns: usize, inner: usize, workers: usize, kernel: Kernel) -> Self {
        let (down, across) = (rows.div_ceil(kernel.rows), columns.div_ceil(kernel.columns));
        // Small products are not worth waking others.
        let workers = workers.min((rows * columns * inner / 200_000).max(1));
        let mut best = (f64::INFINITY, (down, across));
        for tasks in [workers, 2 * workers, 3 * workers] {
            for vertical in (1..=tasks).filter(|vertical| tasks.is_multiple_of(*vertical)) {
                let (high, wide) = (down.div_ceil(vertical), across.div_ceil(tasks / vertical));
                let pieces = down.div_ceil(high) * across.div_ceil(wide);
                // Of a piece: its tiles, its columns packed once, its rows packed once for each set of columns.
                let (high_f, wide_f) = ((high * kernel.rows) as f64, (wide * kernel.columns) as f64);
                let cost = high_f * wide_f + wide_f * 20.0 + high_f * 5.0 + 200.0;
                let cost = cost * pieces.div_ceil(workers) as f64;
                if cost < best.0 {
                    best = (cost, (high, wide));
                }
            }
        }
        let (high, wide) = best.1;
        Self { rows, columns, piece: (high * kernel.rows, wide * kernel.columns) }
    }

    fn tasks(&self) -> usize {
        self.rows.div_ceil(self.piece.0) * self.columns.div_ceil(self.piece.1)
    }

    fn task(&self, i: usize) -> (Range<usize>, Range<usize>) {
        let down = self.rows.div_ceil(self.piece.0);
        let (row, column) = (i % down * self.piece.0, i / down * self.piece.1);
        (row..self.rows.min(row + self.piece.0), column..self.columns.min(column + self.piece.1))
    }

    /// As many columns as fit the second-level cache when packed.
    fn columns_in_cache(&self, inner: usize, kernel: Kernel) -> usize {
        // Half of the cache: the rest is for rows on their way in and out.
        let room = second_level_cache() / 2 / size_of::<f32>();
        let lanes = if kernel.pairs() { inner.div_ceil(2) } else { inner };
        let panels = (room / lanes.max(1) / kernel.columns).clamp(1, 24);
        // As many rounds, of equal width.
        let wanted = self.piece.1.div_ceil(kernel.columns);
        wanted.div_ceil(wanted.div_ceil(panels)) * kernel.columns
    }
}

/// Bytes of the second-level cache of a core; a guess where it cannot be found out.
fn second_level_cache() -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__cpuid, __cpuid_count};
        static SIZE: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
        *SIZE.get_or_init(|| {
            // Deterministic cache parameters: Intel's leaf, and AMD's of the same layout.
            let (most, extended) = (__cpuid(0).eax, __cpuid(0x8000_0000).eax);
            let leaves = [(4, most >= 4), (0x8000_001d, extended >= 0x8000_001d)];
            let caches =
                leaves.into_iter().filter(|(_, there)| *there).flat_map(|(leaf, _)| (0..8).map(move |i| (leaf, i)));
            let sizes = caches.map(|(leaf, i)| __cpuid_count(leaf, i)).filter(|cache| cache.eax >> 5 & 7 == 2);
            let size = |ebx: u32, ecx: u32| {
                let part = |shift: u32, mask: u32| (ebx >> shift & mask) as usize + 1;
                part(22, 0x3ff) * part(12, 0x3ff) * part(0, 0xfff) * (ecx as usize + 1)
            };
            sizes.map(|cache| size(cache.ebx, cache.ecx)).max().unwrap_or(0).clamp(256 << 10, 4 << 20)
        })
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        1 << 20
    }
}

/// The initialised values as places to write to again.
pub(super) fn rewrite(values: &mut [f32]) -> &mut [MaybeUninit<f32>] {
    // SAFETY: same layout; this module and its callers only write whole floats through it.
    unsafe { &mut *(std::ptr::from_mut(values) as *mut [MaybeUninit<f32>]) }
}
