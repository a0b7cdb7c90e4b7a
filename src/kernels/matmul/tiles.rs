//! The innermost loops: a tile of a product, summed in registers. Each set of instructions is one file with one trait.

use crate::kernels::matmul::pack::Form;
use crate::kernels::matmul::shape::{A_COLUMNS, A_STRIDE, Target};

/// Instructions that compute tiles. Each implementor is a file of this folder, and a line in `kernel.rs`.
pub(super) trait Tiles: Sync {
    /// Rows and columns of a tile.
    fn shape(&self) -> [usize; 2];

    /// The lanes of a block come in multiples of this.
    fn depth(&self) -> usize {
        1
    }

    /// Values of the inner dimension that a lane stands for.
    fn values_per_lane(&self) -> usize {
        1
    }

    /// How many times as many products a second as in f32, about.
    fn rate(&self) -> f64 {
        1.0
    }

    /// How operands become lanes: vectors lie along the inner dimension, or across it.
    fn form(&self, along: bool) -> Form;

    /// Whether the left-hand side has to be packed row by row.
    fn needs_rows(&self) -> bool {
        false
    }

    /// Lanes between two packed columns of the left-hand side.
    fn columns_apart(&self) -> usize {
        A_COLUMNS
    }

    /// Whether vectors of the left-hand side may be read where they lie, any distance apart.
    fn reads_in_place(&self) -> bool {
        false
    }

    /// What a thread needs before its tiles.
    ///
    /// # Safety
    /// The instructions were detected.
    unsafe fn begin(&self) {}

    /// What a thread does after its tiles.
    ///
    /// # Safety
    /// As for [`begin`](Self::begin).
    unsafe fn end(&self) {}

    /// Writes (or adds) scale times the product of the rows of `a` and the packed panel `b [lanes, columns]`.
    ///
    /// # Safety
    /// The instructions were detected; the operands have as many lanes; the target is the caller's to write to, and
    /// initialised if it is added to; the call is between [`begin`](Self::begin) and [`end`](Self::end).
    unsafe fn tile(&self, lanes: usize, a: Rows, b: *const u32, target: &Target);
}

/// The rows of a tile's left-hand side.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) start: *const u32,
    pub(super) order: Order,
}

/// How the rows of a block lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// `[rows, A_STRIDE]`.
    Rows,
    /// `[lanes, this many]`, of which the first are the rows.
    Columns(usize),
    /// Not packed: rows this far apart.
    Strided(usize),
    /// Not packed: columns this far apart.
    StridedColumns(usize),
}

impl Order {
    /// Lanes between two rows, and between two columns.
    pub(super) fn strides(self) -> [usize; 2] {
        match self {
            Order::Rows => [A_STRIDE, 1],
            Order::Strided(stride) => [stride, 1],
            Order::Columns(stride) | Order::StridedColumns(stride) => [1, stride],
        }
    }
}
