//! The instructions that tiles of a product are computed by on this machine.

use std::sync::OnceLock;

use crate::kernels::matmul::loops::Loops;
use crate::kernels::matmul::pack::{Form, Lanes, Line};
use crate::kernels::matmul::shape::{A_STRIDE, AVX512_ROWS, LOOP_COLUMNS, LOOP_ROWS, TILES_AT_ONCE, Target};
use crate::kernels::matmul::tiles::{Order, Rows, Tiles};
use crate::kernels::matmul::{Precision, View};
#[cfg(target_arch = "x86_64")]
use crate::kernels::matmul::{amx, avx2, avx512};
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{Level, level};

/// How tiles are computed, and their shape.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    tiles: &'static dyn Tiles,
    precision: Precision,
    /// Rows of a tile.
    pub(super) rows: usize,
    /// Columns of a tile.
    pub(super) columns: usize,
    /// The lanes of a block come in multiples of this.
    pub(super) depth: usize,
}

impl Kernel {
    /// The fastest kernel of this machine.
    pub(super) fn best(precision: Precision) -> Self {
        static BEST: OnceLock<[Kernel; 4]> = OnceLock::new();
        let all = [Precision::F32, Precision::Bf16, Precision::Bf16x3, Precision::Int8];
        BEST.get_or_init(|| all.map(Self::detect))[precision as usize]
    }

    fn detect(precision: Precision) -> Self {
        let wanted = match precision {
            Precision::Int8 if has_fast_bf16() => Precision::Bf16,
            Precision::Int8 => Precision::F32,
            other => other,
        };
        Self::of(Self::tiles(wanted), wanted)
    }

    #[cfg(target_arch = "x86_64")]
    fn tiles(precision: Precision) -> &'static dyn Tiles {
        let form = if precision == Precision::Bf16 { Form::Rounded } else { Form::Single };
        match (level(), form) {
            (Level::Avx512, _) if precision == Precision::Bf16 && amx::usable() => &amx::Amx { split: false },
            (Level::Avx512, _) if precision == Precision::Bf16x3 && amx::usable() => &amx::Amx { split: true },
            (Level::Avx512, Form::Rounded) if avx512::has_fast_bf16() => &avx512::Avx512Bf16,
            (Level::Avx512, Form::Rounded) => &avx512::Avx512 { form: Form::Rounded },
            (Level::Avx512, _) => &avx512::Avx512 { form: Form::Single },
            (Level::Avx2, Form::Rounded) => &avx2::Avx2 { form: Form::Rounded },
            (Level::Avx2, _) => &avx2::Avx2 { form: Form::Single },
            (Level::Baseline, Form::Rounded) => &Loops { form: Form::Rounded },
            (Level::Baseline, _) => &Loops { form: Form::Single },
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn tiles(precision: Precision) -> &'static dyn Tiles {
        match precision {
            Precision::Bf16 => &Loops { form: Form::Rounded },
            _ => &Loops { form: Form::Single },
        }
    }

    fn of(tiles: &'static dyn Tiles, precision: Precision) -> Self {
        let [rows, columns] = tiles.shape();
        Self { tiles, precision, rows, columns, depth: tiles.depth() }
    }

    /// What becomes of the operands.
    pub(super) fn precision(self) -> Precision {
        self.precision
    }

    /// Values of the inner dimension that a lane stands for.
    pub(super) fn values_per_lane(self) -> usize {
        self.tiles.values_per_lane()
    }

    /// How many times as many products a second as in f32, about.
    pub(super) fn rate(self) -> f64 {
        self.tiles.rate()
    }

    /// How operands become lanes: vectors lie along the inner dimension, or across it.
    pub(super) fn form(self, along: bool) -> Form {
        self.tiles.form(along)
    }

    /// What a thread needs around its tiles.
    pub(super) fn begin(self) -> TileGuard {
        // SAFETY: the instructions were detected.
        unsafe { self.tiles.begin() };
        TileGuard(self.tiles)
    }

    /// How the rows of a block are packed when the matrix is stored row by row (`along`) or column by column.
    fn row_layout(self, along: bool, lanes: usize) -> RowLayout {
        // What is in order already is not transposed.
        if along || self.tiles.needs_rows() {
            RowLayout { shape: [self.rows, A_STRIDE], transposed: !along, order: Order::Rows }
        } else {
            let apart = self.tiles.columns_apart();
            RowLayout { shape: [lanes, apart], transposed: false, order: Order::Columns(apart) }
        }
    }

    /// Of how many tiles the rows are packed together.
    pub(super) fn tiles_at_once(self, along: bool, lanes: usize) -> usize {
        let compact = self.tiles.columns_apart() == self.rows;
        let packed = !along && self.form(along) == Form::Single && !(self.tiles.reads_in_place() && lanes <= FEW);
        if compact && packed { TILES_AT_ONCE } else { 1 }
    }

    /// How many panels of a right-hand side that is stored row by row, or else column by column, are packed together.
    pub(super) fn panels_at_once(self, by_rows: bool) -> usize {
        let plain = by_rows && self.columns == LOOP_COLUMNS && self.form(false) == Form::Single;
        if plain { TILES_AT_ONCE } else { 1 }
    }

    /// The rows of a block, `lanes` lanes of each, for some tiles: where they lie if that is as good as packing them.
    pub(super) fn rows<'a>(self, a: View<'a>, lanes: usize, lines: &'a mut [Line]) -> TileRows<'a> {
        let (vectors, along) = a.lanes(self);
        if a.rows > self.rows {
            match self.rows {
                LOOP_ROWS => vectors.pack_side_by_side::<LOOP_ROWS>(Line::lanes_mut(lines)),
                AVX512_ROWS => vectors.pack_side_by_side::<AVX512_ROWS>(Line::lanes_mut(lines)),
                rows => unreachable!("tiles of {rows} rows are packed one by one"),
            }
            let layout = self.row_layout(along, lanes);
            return TileRows { lanes: Line::lanes(lines), layout, apart: lanes * self.rows };
        }
        if let Some((lanes, layout)) = self.takes(&vectors, along, lanes) {
            return TileRows { lanes, layout, apart: 0 };
        }
        let layout = self.row_layout(along, lanes);
        vectors.pack(Line::lanes_mut(lines), layout.shape, layout.transposed);
        TileRows { lanes: Line::lanes(lines), layout, apart: 0 }
    }

    /// How to read the vectors where they lie, if that is as good as packing them.
    fn takes<'a>(self, rows: &Lanes<'a>, along: bool, lanes: usize) -> Option<(&'a [u32], RowLayout)> {
        // Rows a multiple of this apart would compete for few places of the first-level cache.
        const SETS: usize = 4096 / size_of::<f32>();
        let suits = rows.form == Form::Single && self.tiles.reads_in_place();
        if !suits || rows.stride.is_multiple_of(SETS) {
            return None;
        }
        let whole = match along {
            true => rows.length == lanes && rows.count == self.rows,
            false => rows.count == lanes && rows.length == self.rows && lanes <= FEW,
        };
        let needed = (rows.count - 1) * rows.stride + rows.length;
        let values = rows.values.get(..needed).filter(|_| whole)?;
        // SAFETY: an f32 has the size and alignment of a lane.
        let values = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), needed) };
        let order = if along { Order::Strided(rows.stride) } else { Order::StridedColumns(rows.stride) };
        Some((values, RowLayout { shape: [rows.count, rows.stride], transposed: false, order }))
    }

    /// Writes (or adds) scale times the product of packed rows and a packed panel `b [lanes, columns]` to the target.
    ///
    /// # Safety
    /// The target is the caller's to write to, and initialised if it is added to; the call is within [`Kernel::begin`].
    pub(super) unsafe fn tile(self, lanes: usize, rows: TileRows, b: &[u32], target: &Target) {
        let TileRows { lanes: a, layout, .. } = rows;
        let [vectors, stride] = layout.shape;
        let needed = match layout.order {
            Order::Strided(_) => (vectors - 1) * stride + lanes,
            Order::StridedColumns(_) => (lanes - 1) * stride + self.rows,
            Order::Rows | Order::Columns(_) => vectors * stride,
        };
        assert!(a.len() >= needed && lanes <= A_STRIDE && b.len() >= lanes * self.columns);
        assert!(target.rows <= self.rows && target.columns <= self.columns);
        let rows = Rows { start: a.as_ptr(), order: layout.order };
        // SAFETY: the operands are as long as asserted, the instructions were detected, and the caller vouches for the
        // target.
        unsafe { self.tiles.tile(lanes, rows, b.as_ptr(), target) }
    }
}

/// Columns that are read where they lie touch a line of cache or two for each lane, so these must be few.
const FEW: usize = 64;

/// How the rows of a block are packed.
#[derive(Clone, Copy)]
struct RowLayout {
    /// Of the packed matrix.
    shape: [usize; 2],
    /// Whether the vectors of the source are its columns.
    transposed: bool,
    order: Order,
}

/// The rows of a block, for one tile or several.
#[derive(Clone, Copy)]
pub(super) struct TileRows<'a> {
    lanes: &'a [u32],
    layout: RowLayout,
    /// Lanes between two tiles.
    apart: usize,
}

impl TileRows<'_> {
    /// Those of the i-th tile and the following.
    pub(super) fn from(self, i: usize) -> Self {
        Self { lanes: &self.lanes[i * self.apart..], ..self }
    }
}

/// Until it is dropped a thread can compute tiles.
pub(super) struct TileGuard(&'static dyn Tiles);

impl Drop for TileGuard {
    fn drop(&mut self) {
        // SAFETY: the instructions were detected.
        unsafe { self.0.end() };
    }
}

/// Whether products of bf16 are faster than those of f32: by AMX, or by `vdpbf16ps`, which Intel's processors run at
/// half the rate of f32 and AMD's at the full.
#[cfg(target_arch = "x86_64")]
fn has_fast_bf16() -> bool {
    avx512::has_fast_bf16() || level() == Level::Avx512 && amx::usable()
}

/// Whether products of bf16 are faster than those of f32.
#[cfg(not(target_arch = "x86_64"))]
fn has_fast_bf16() -> bool {
    false
}
