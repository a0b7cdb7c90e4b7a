//! Tiles by loops, for the compiler to vectorise: what every processor can, NEON included.

use crate::kernels::matmul::pack::Form;
use crate::kernels::matmul::shape::{A_STRIDE, LOOP_COLUMNS, LOOP_ROWS, Target};
use crate::kernels::matmul::tiles::{Order, Rows, Tiles};
use crate::kernels::simd::{fma, vectorized};

/// Tiles by loops.
pub(super) struct Loops {
    /// [`Form::Single`] or [`Form::Rounded`].
    pub(super) form: Form,
}

impl Tiles for Loops {
    fn shape(&self) -> [usize; 2] {
        [LOOP_ROWS, LOOP_COLUMNS]
    }

    fn form(&self, _: bool) -> Form {
        self.form
    }

    fn columns_apart(&self) -> usize {
        LOOP_ROWS
    }

    unsafe fn tile(&self, lanes: usize, a: Rows, b: *const u32, target: &Target) {
        let mut sums = [[0.0; LOOP_COLUMNS]; LOOP_ROWS];
        match a.order {
            Order::Rows => tile::<A_STRIDE, 1>(lanes, a.start, b, &mut sums),
            Order::Columns(_) => tile::<1, LOOP_ROWS>(lanes, a.start, b, &mut sums),
            Order::Strided(_) | Order::StridedColumns(_) => unreachable!("rows for loops are packed"),
        }
        // SAFETY: the caller's word.
        unsafe { write(&sums, target) };
    }
}

vectorized! {
    fn tile<const ROW: usize, const LANE: usize>(lanes: usize, a: *const u32, b: *const u32, sums: &mut [[f32; LOOP_COLUMNS]; LOOP_ROWS]) {
        let mut tile = [[0.0f32; LOOP_COLUMNS]; LOOP_ROWS];
        for lane in 0..lanes {
            // SAFETY: `Kernel::tile` has checked the lengths.
            let b = unsafe { &*b.cast::<f32>().add(lane * LOOP_COLUMNS).cast::<[f32; LOOP_COLUMNS]>() };
            for row in 0..LOOP_ROWS {
                // SAFETY: as above.
                let a = unsafe { *a.cast::<f32>().add(row * ROW + lane * LANE) };
                for column in 0..LOOP_COLUMNS {
                    tile[row][column] = fma::<FMA>(a, b[column], tile[row][column]);
                }
            }
        }
        *sums = tile;
    }
}

/// # Safety
/// As for [`Tiles::tile`].
unsafe fn write(sums: &[[f32; LOOP_COLUMNS]; LOOP_ROWS], target: &Target) {
    for (row, sums) in sums.iter().enumerate().take(target.rows) {
        for (column, sum) in sums.iter().enumerate().take(target.columns) {
            let value = sum * target.scale;
            // SAFETY: the caller's word.
            unsafe {
                let place = target.corner.add(row * target.stride + column);
                *place = if target.add { *place + value } else { value };
            }
        }
    }
}
