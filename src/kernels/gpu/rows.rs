//! What kernels share: how many cubes to launch, sums over a row that many units read, and sums of columns.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use crate::kernels::gpu::bridge::Buffers;

/// Units that work on one row together, neighbours in memory.
pub(super) const LANES: usize = 32;
/// Rows of one cube.
pub(super) const ROWS: usize = 4;
/// Units of a cube.
pub(super) const UNITS: usize = LANES * ROWS;

/// The shape of a cube that works on rows: [`LANES`] units side by side for each of [`ROWS`].
pub(super) fn row_cube() -> CubeDim {
    CubeDim::new_2d(LANES as u32, ROWS as u32)
}

/// The shape of a cube whose units have nothing to do with each other.
pub(super) fn flat_cube() -> CubeDim {
    CubeDim::new_1d(UNITS as u32)
}

/// At least so many cubes, as one axis has at most 65535 of them.
pub(super) fn cubes(count: usize) -> CubeCount {
    let count = count.max(1);
    let high = count.div_ceil(65535);
    CubeCount::Static(count.div_ceil(high) as u32, high as u32, 1)
}

/// Cubes for a unit each of `count` things, by [`flat_cube`].
pub(super) fn cubes_for(count: usize) -> CubeCount {
    cubes(count.div_ceil(UNITS))
}

/// The unit's number among all of a launch by [`cubes_for`].
#[cube]
pub(super) fn index() -> usize {
    CUBE_POS * UNITS + UNIT_POS as usize
}

/// The sum over the lanes of a row, which each of them gets. All units of a cube must call it; `shared` has a place for
/// each of them.
#[cube]
pub(super) fn row_sum(value: f32, shared: &mut Shared<[f32]>) -> f32 {
    let unit = UNIT_POS as usize;
    let lane = UNIT_POS_X as usize;
    shared[unit] = value;
    sync_cube();
    let mut step = comptime!(LANES / 2).runtime();
    while step > 0 {
        if lane < step {
            let other = shared[unit + step];
            shared[unit] += other;
        }
        sync_cube();
        step /= 2;
    }
    let sum = shared[unit - lane];
    sync_cube();
    sum
}

/// The sum over all units of a flat cube, as [`row_sum`].
#[cube]
pub(super) fn cube_sum(value: f32, shared: &mut Shared<[f32]>) -> f32 {
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    sync_cube();
    let mut step = comptime!(UNITS / 2).runtime();
    while step > 0 {
        if unit < step {
            let other = shared[unit + step];
            shared[unit] += other;
        }
        sync_cube();
        step /= 2;
    }
    let sum = shared[0];
    sync_cube();
    sum
}

/// The largest over the lanes of a row, as [`row_sum`].
#[cube]
pub(super) fn row_max(value: f32, shared: &mut Shared<[f32]>) -> f32 {
    let unit = UNIT_POS as usize;
    let lane = UNIT_POS_X as usize;
    shared[unit] = value;
    sync_cube();
    let mut step = comptime!(LANES / 2).runtime();
    while step > 0 {
        if lane < step {
            let other = shared[unit + step];
            let own = shared[unit];
            shared[unit] = max(own, other);
        }
        sync_cube();
        step /= 2;
    }
    let largest = shared[unit - lane];
    sync_cube();
    largest
}

/// Exact GELU's cumulative distribution and density: Φ(z) and φ(z).
#[cube]
#[allow(unstable_name_collisions)]
pub(super) fn normal(z: f32) -> (f32, f32) {
    let cumulative = 0.5f32 * (1.0f32 + (z * 0.707_106_77f32).erf());
    let density = 0.398_942_3f32 * (-0.5f32 * z * z).exp();
    (cumulative, density)
}

/// How many rows a partial sum of columns covers, so that there are at most 256 partial sums; a function of the number
/// of rows alone.
pub(super) fn band(rows: usize) -> usize {
    rows.div_ceil(256).max(16)
}

/// The sums of the columns of `partial [bands, columns]` into the outputs from `first` on, which have `lengths`
/// columns, in that order.
pub(super) fn sum_bands(buffers: &Buffers, partial: &CubeTensor, bands: usize, first: usize, lengths: &[usize]) {
    let columns: usize = lengths.iter().sum();
    let mut start = 0;
    for (i, length) in lengths.iter().enumerate() {
        // SAFETY: `partial` has `bands` rows of all the columns, and the output has a place for each of its own.
        unsafe {
            column_sums::launch_unchecked(
                buffers.client(),
                cubes_for(*length),
                flat_cube(),
                partial.clone().into_buffer_arg(),
                buffers.output(first + i),
                bands,
                columns,
                start,
                *length,
            );
        }
        start += length;
    }
}

#[cube(launch_unchecked)]
fn column_sums(partial: &[f32], out: &mut [f32], bands: usize, columns: usize, start: usize, length: usize) {
    let column = index();
    if column < length {
        let mut sum = 0.0f32;
        for band in 0..bands {
            sum += partial[band * columns + start + column];
        }
        out[column] = sum;
    }
}
