//! Right-hand sides packed ahead, and what is multiplied by them.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::Range;

use crate::kernels::matmul::kernel::Kernel;
use crate::kernels::matmul::pack::Line;
use crate::kernels::matmul::shape::{A_STRIDE, BLOCK, LOOP_COLUMNS, Target};
use crate::kernels::matmul::{Precision, View, rewrite};

thread_local! {
    pub(super) static PANELS: RefCell<Panels> = RefCell::default();
    static ROWS: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Packed columns of a right-hand side: [blocks of the inner dimension, panels, lanes of the block, columns of a
/// panel].
#[derive(Default)]
pub(in crate::kernels) struct Panels {
    lines: Vec<Line>,
    inner: usize,
    columns: usize,
    precision: Precision,
}

impl Panels {
    /// Takes all of `b`.
    pub(in crate::kernels) fn pack(&mut self, b: View, precision: Precision) {
        let kernel = Kernel::best(precision);
        (self.inner, self.columns, self.precision) = (b.rows, b.columns, precision);
        let blocks = Blocks::new(b.rows, kernel);
        let panels = b.columns.div_ceil(kernel.columns);
        let needed = blocks.padded_lanes() * panels * kernel.columns;
        self.lines.resize(needed.div_ceil(Line::LANES).max(self.lines.len()), Line::ZERO);
        let mut places = Line::lanes_mut(&mut self.lines);
        // A single column is both, and taken for a row of the transposed matrix.
        let at_once = kernel.panels_at_once(b.row_stride != 1);
        for block in blocks.iter() {
            for panel in (0..panels).step_by(at_once) {
                let next = panel + at_once;
                let columns = |panel: usize| panel * kernel.columns..b.columns.min((panel + at_once) * kernel.columns);
                if next < panels {
                    b.rows(block.range.clone()).columns(columns(next)).t().prefetch(0, 1);
                }
                let (lanes, along) = b.rows(block.range.clone()).columns(columns(panel)).t().lanes(kernel);
                let (place, rest) = places.split_at_mut(block.lanes * kernel.columns * (next.min(panels) - panel));
                if at_once > 1 {
                    lanes.pack_side_by_side::<LOOP_COLUMNS>(place);
                } else {
                    lanes.pack(place, [block.lanes, kernel.columns], along);
                }
                places = rest;
            }
        }
    }

    /// Makes room for a right-hand side in f32 that the caller writes: each value to its place.
    pub(in crate::kernels) fn reserve(&mut self, inner: usize, columns: usize) -> (&mut [MaybeUninit<f32>], Layout) {
        (self.inner, self.columns, self.precision) = (inner, columns, Precision::F32);
        let kernel = Kernel::best(self.precision);
        let padded = columns.next_multiple_of(kernel.columns);
        let needed = inner * padded;
        self.lines.resize(needed.div_ceil(Line::LANES).max(self.lines.len()), Line::ZERO);
        let lanes = &mut Line::lanes_mut(&mut self.lines)[..needed];
        // SAFETY: a lane of f32 is one, and every lane is written whole.
        let lanes = unsafe { &mut *(std::ptr::from_mut(lanes) as *mut [MaybeUninit<f32>]) };
        let length = Blocks::new(inner, kernel).length;
        (lanes, Layout { inner, length, padded, panel: kernel.columns.trailing_zeros() })
    }

    /// Writes scale · a b into `out`, row-major with rows `stride` apart.
    pub(in crate::kernels) fn write(&self, a: View, scale: f32, out: &mut [MaybeUninit<f32>], stride: usize) {
        self.run(a, scale, false, out, stride);
    }

    /// Adds scale · a b to `out`, row-major.
    pub(in crate::kernels) fn add_to(&self, a: View, scale: f32, out: &mut [f32]) {
        self.run(a, scale, true, rewrite(out), self.columns);
    }

    fn run(&self, a: View, scale: f32, add: bool, out: &mut [MaybeUninit<f32>], stride: usize) {
        assert!(stride >= self.columns && a.rows * stride <= out.len(), "product of the wrong size");
        let place = OutPlace { out: Out(out.as_mut_ptr().cast()), stride, row: 0, column: 0 };
        // SAFETY: `out` has room for the product, and holds numbers if these are added to.
        unsafe { self.multiply(a, scale, add, place, None, None::<&fn(usize, usize, &mut [f32])>) }
    }

    /// Writes (or adds) scale · a b to the place, and finishes every row. Meanwhile `ahead` is brought near.
    ///
    /// # Safety
    /// The place has room for the product, is nobody else's, and is initialised if `add`.
    pub(super) unsafe fn multiply(
        &self,
        a: View,
        scale: f32,
        add: bool,
        place: OutPlace,
        ahead: Option<View>,
        finish: Option<&(impl Fn(usize, usize, &mut [f32]) + Sync)>,
    ) {
        assert_eq!(a.columns, self.inner, "matrices do not fit");
        let kernel = Kernel::best(self.precision);
        let blocks = Blocks::new(self.inner, kernel);
        let panels = self.columns.div_ceil(kernel.columns);
        let tiles = a.rows.div_ceil(kernel.rows) * blocks.iter().count() * panels;
        let mut tile = 0;
        let at_once = kernel.rows * kernel.tiles_at_once(a.column_stride == 1, blocks.lanes());
        ROWS.with_borrow_mut(|lines| {
            lines.resize(
                lines.len().max((at_once * BLOCK).max(kernel.rows.max(16) * A_STRIDE) / Line::LANES),
                Line::ZERO,
            );
            let _tiles = kernel.begin();
            for first in (0..a.rows).step_by(at_once) {
                let rows = at_once.min(a.rows - first);
                let mut packed = Line::lanes(&self.lines);
                // SAFETY: inside of the place.
                let corner = unsafe { place.out.0.add((place.row + first) * place.stride + place.column) };
                for (i, block) in blocks.iter().enumerate() {
                    let a = a.rows(first..first + rows).columns(block.range.clone());
                    let packed_rows = kernel.rows(a, block.lanes, lines);
                    let (set, rest) = packed.split_at(block.lanes * kernel.columns * panels);
                    for (j, row) in (0..rows).step_by(kernel.rows).enumerate() {
                        let packed_rows = packed_rows.from(j);
                        let rows = kernel.rows.min(rows - row);
                        for (panel, b) in set.chunks_exact(block.lanes * kernel.columns).enumerate() {
                            let column = panel * kernel.columns;
                            let columns = kernel.columns.min(self.columns - column);
                            if let Some(ahead) = ahead {
                                ahead.prefetch(tile, tiles);
                            }
                            tile += 1;
                            // SAFETY: inside of the place.
                            let corner = unsafe { corner.add(row * place.stride + column) };
                            let (stride, add) = (place.stride, add || i > 0);
                            let target = Target { corner, stride, rows, columns, add, scale };
                            // SAFETY: the packed operands have the kernel's shape, and the target lies inside of the
                            // place.
                            unsafe { kernel.tile(block.lanes, packed_rows, b, &target) };
                        }
                    }
                    packed = rest;
                }
                if blocks.none() && !add {
                    for row in 0..rows {
                        // SAFETY: inside of the place.
                        unsafe { std::ptr::write_bytes(corner.add(row * place.stride), 0, self.columns) };
                    }
                }
                let Some(finish) = finish else { continue };
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

/// Where the values of a packed right-hand side in f32 lie.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Layout {
    inner: usize,
    /// Rows of a block but the last.
    length: usize,
    /// Columns, rounded up to whole panels.
    padded: usize,
    /// Columns of a panel, as a power of two.
    panel: u32,
}

impl Layout {
    /// Columns that begin at a multiple of a vector's width lie side by side for the width of a vector, and there is
    /// room for whole vectors.
    #[inline(always)]
    pub(in crate::kernels) fn place(&self, row: usize, column: usize) -> usize {
        let start = if row < self.length { 0 } else { row / self.length * self.length };
        let lanes = self.length.min(self.inner - start);
        let (panel, within) = (column >> self.panel, column & ((1 << self.panel) - 1));
        start * self.padded + ((panel * lanes + row - start) << self.panel) + within
    }
}

/// Where tasks write to, each in places of its own.
#[derive(Clone, Copy)]
pub(super) struct Out(pub(super) *mut f32);

// SAFETY: the tasks of a product write to different places.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

/// A corner of the output.
#[derive(Clone, Copy)]
pub(super) struct OutPlace {
    pub(super) out: Out,
    pub(super) stride: usize,
    pub(super) row: usize,
    pub(super) column: usize,
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

/// The length of the blocks that an inner dimension falls into.
pub(super) fn block(inner: usize, kernel: Kernel) -> usize {
    Blocks::new(inner, kernel).length
}

impl Blocks {
    fn new(inner: usize, kernel: Kernel) -> Self {
        let per_lane = kernel.values_per_lane();
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
            let lanes = range.len().div_ceil(self.kernel.values_per_lane());
            Block { range, lanes: lanes.next_multiple_of(self.kernel.depth) }
        })
    }

    /// Lanes of a block, at most.
    fn lanes(&self) -> usize {
        self.iter().map(|block| block.lanes).max().unwrap_or(0)
    }

    fn padded_lanes(&self) -> usize {
        self.iter().map(|block| block.lanes).sum()
    }
}
