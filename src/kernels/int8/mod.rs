//! Products of matrices in eight bits: the affine maps of inference, several times as fast as in f32 where the
//! processor has instructions for them.
//!
//! Each row of x (a token) becomes bytes by a scale and a zero point of its own, found when it is multiplied; each
//! output's weights become signed bytes by a scale. Products of bytes are summed exactly, in i32:
//!
//! y[r, o] = scale_x[r] · scale_w[o] · (Σ q_x[r, i] q_w[o, i] - zero[r] Σ q_w[o, i])
//!
//! (Jacob et al. 2018, arXiv 1712.05877; per row and per output as in Dettmers et al. 2022, arXiv 2208.07339.)

#[cfg(target_arch = "x86_64")]
mod amx;
mod bytes;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Rows, Weight};
use rayon::prelude::*;

use crate::kernels::bridge::SharedBuffer;
use crate::kernels::matmul::second_level_cache;
use crate::kernels::simd::vectorized;
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{Level, is_limited, level};

/// The instructions that multiply bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instructions {
    /// Loops, for the compiler to vectorise.
    Loops,
    /// `vpmaddubsw` and `vpmaddwd`. A sum of two products must fit 16 bits, so weights have seven.
    Avx2,
    /// `vpdpbusd` of AVX-VNNI.
    AvxVnni,
    /// `vpdpbusd` of AVX-512-VNNI.
    Avx512Vnni,
    /// `tdpbusd` of AMX.
    Amx,
}

/// Columns of a panel, the widest tile.
const COLUMNS: usize = 32;
/// Bytes that a lane holds, side by side along the inner dimension.
const BYTES: usize = 4;
/// Lanes of a row that a register of AMX holds.
const AMX_LANES: usize = 16;
/// Sums of 255 x 127 of as many products fit 32 bits.
const WIDEST: usize = 1 << 16;

impl Instructions {
    /// The fastest of this machine.
    pub(super) fn best() -> Self {
        static BEST: OnceLock<Instructions> = OnceLock::new();
        *BEST.get_or_init(|| {
            #[cfg(target_arch = "x86_64")]
            {
                if level() == Level::Avx512 && amx::multiplies_bytes() {
                    return Self::Amx;
                }
                if level() == Level::Avx512 && is_x86_feature_detected!("avx512vnni") {
                    return Self::Avx512Vnni;
                }
                if level() >= Level::Avx2 && !is_limited() && is_x86_feature_detected!("avxvnni") {
                    return Self::AvxVnni;
                }
                if level() >= Level::Avx2 {
                    return Self::Avx2;
                }
            }
            Self::Loops
        })
    }

    /// Rows of a tile.
    fn rows(self) -> usize {
        match self {
            Self::Amx => 32,
            Self::Avx512Vnni => 14,
            Self::AvxVnni | Self::Avx2 | Self::Loops => 6,
        }
    }

    /// Lanes of `width` values, with those that tiles read beyond.
    fn lanes(self, width: usize) -> usize {
        let lanes = width.div_ceil(BYTES);
        if self == Self::Amx { lanes.next_multiple_of(AMX_LANES) } else { lanes }
    }

    /// The largest weight as an integer.
    fn largest_weight(self) -> f32 {
        if self == Self::Avx2 { 63.0 } else { 127.0 }
    }
}

/// A tile of the product, and what its sums become.
struct Tile<'a> {
    lanes: usize,
    /// Bytes of the rows, `stride` lanes apart.
    rows: &'a [u32],
    stride: usize,
    /// `[lanes, COLUMNS]`.
    panel: &'a [u32],
    /// Per row.
    scales: &'a [f32],
    zeros: &'a [i32],
    /// Per column of the panel.
    weight_scales: &'a [f32],
    weight_sums: &'a [i32],
    out: *mut f32,
    out_stride: usize,
    columns: usize,
}

/// Bits of a weight where maps are computed in eight bits; `None` where this machine has no instructions for them.
pub fn int8_weight_bits() -> Option<u32> {
    match Instructions::best() {
        Instructions::Loops => None,
        Instructions::Avx2 => Some(7),
        Instructions::AvxVnni | Instructions::Avx512Vnni | Instructions::Amx => Some(8),
    }
}

/// How many maps this process has computed in eight bits.
pub fn int8_products() -> u64 {
    PRODUCTS.load(Ordering::Relaxed)
}

static PRODUCTS: AtomicU64 = AtomicU64::new(0);

/// Whether a map is computed in eight bits: it has enough to sum, and fills panels. How many rows there are has no say,
/// as those of several images may come together.
pub(super) fn suits(width: usize, outputs: usize) -> bool {
    width >= 64 && outputs >= 64 && width <= WIDEST && Instructions::best() != Instructions::Loops
}

/// `x [rows, width]` times the transposed `weight [outputs, width]` into all of `out [rows, outputs]`. Calls
/// `finish(row, first column, values)` for each finished piece of a row.
pub(super) fn product(
    x: &[f32],
    weight: &[f32],
    width: usize,
    outputs: usize,
    out: &mut [MaybeUninit<f32>],
    finish: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    let rows = x.len() / width;
    assert!(out.len() == rows * outputs && weight.len() == outputs * width, "product of the wrong size");
    assert!(width <= WIDEST, "sums of as many products do not fit 32 bits");
    PRODUCTS.fetch_add(1, Ordering::Relaxed);
    let instructions = Instructions::best();
    let weight = Weight::new(weight, width, instructions);
    let x = Rows::new(x, width, instructions);
    let out = SharedBuffer::new(out);
    let tiles = rows.div_ceil(instructions.rows());
    let panels = outputs.div_ceil(COLUMNS);
    // Panels that stay in half of a second-level cache while rows pass.
    let cache_lanes = second_level_cache() / 2 / size_of::<u32>();
    let group = (cache_lanes / (x.lanes * COLUMNS)).clamp(1, 48);
    // Small products are not worth waking others.
    let workers = rayon::current_num_threads().min((rows * outputs * width / 8_000_000).max(1)).min(tiles.max(1));
    let share = tiles.div_ceil(workers);
    let task = |worker: usize| {
        instructions.begin();
        for first_panel in (0..panels).step_by(group) {
            let columns = first_panel * COLUMNS..outputs.min((first_panel + group) * COLUMNS);
            for tile in worker * share..tiles.min((worker + 1) * share) {
                let first = tile * instructions.rows();
                let rows = instructions.rows().min(rows - first);
                for start in columns.clone().step_by(COLUMNS) {
                    let count = COLUMNS.min(outputs - start);
                    // SAFETY: the tasks have rows of their own, inside of `out`.
                    let place = unsafe { out.slice(first * outputs + start, (rows - 1) * outputs + count) };
                    let tile = x.tile(first..first + rows, weight.panel(start / COLUMNS), place, outputs, count);
                    instructions.run(&tile);
                }
                for row in first..first + rows {
                    // SAFETY: as above, and written by the tiles.
                    let values = unsafe {
                        let place = out.slice(row * outputs + columns.start, columns.len());
                        &mut *(std::ptr::from_mut(place) as *mut [f32])
                    };
                    finish(row, columns.start, values);
                }
            }
        }
        instructions.end();
    };
    if workers == 1 { task(0) } else { (0..workers).into_par_iter().for_each(task) }
}

impl Instructions {
    /// To be called before a thread's tiles.
    fn begin(self) {
        #[cfg(target_arch = "x86_64")]
        if self == Self::Amx {
            // SAFETY: the instructions were detected.
            unsafe { amx::configure() };
        }
    }

    /// To be called after a thread's tiles.
    fn end(self) {
        #[cfg(target_arch = "x86_64")]
        if self == Self::Amx {
            // SAFETY: the instructions were detected.
            unsafe { amx::release() };
        }
    }

    fn run(self, tile: &Tile) {
        assert!(tile.rows.len() >= self.rows() * tile.stride && tile.lanes <= tile.stride);
        assert!(self != Self::Amx || tile.lanes.is_multiple_of(AMX_LANES));
        assert!(tile.panel.len() == tile.lanes * COLUMNS && tile.columns <= COLUMNS);
        assert!(tile.weight_scales.len() == COLUMNS && tile.weight_sums.len() == COLUMNS);
        assert!(tile.scales.len() <= self.rows() && tile.scales.len() == tile.zeros.len());
        // SAFETY: the instructions were detected, the operands are as long as asserted, and `out` has room for the
        // rows.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Self::Amx => amx::tile(tile),
                #[cfg(target_arch = "x86_64")]
                Self::Avx512Vnni => x86::avx512_vnni(tile),
                #[cfg(target_arch = "x86_64")]
                Self::AvxVnni => x86::avx_vnni(tile),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => x86::avx2(tile),
                _ => loops(tile),
            }
        }
    }
}

/// # Safety
/// As for all of them: see [`Instructions::run`].
unsafe fn loops(tile: &Tile) {
    for (row, (scale, zero)) in tile.scales.iter().zip(tile.zeros).enumerate() {
        let mut sums = [0i32; COLUMNS];
        dot(&tile.rows[row * tile.stride..][..tile.lanes], tile.panel, &mut sums);
        for column in 0..tile.columns {
            let sum = sums[column] - zero * tile.weight_sums[column];
            let value = sum as f32 * (scale * tile.weight_scales[column]);
            // SAFETY: the caller's word.
            unsafe { tile.out.add(row * tile.out_stride + column).write(value) };
        }
    }
}

vectorized! {
    fn dot(row: &[u32], panel: &[u32], sums: &mut [i32; COLUMNS]) {
        for (a, b) in row.iter().zip(panel.as_chunks::<COLUMNS>().0) {
            let a = a.to_le_bytes().map(i32::from);
            for column in 0..COLUMNS {
                let b = b[column].to_le_bytes().map(|byte| i32::from(byte.cast_signed()));
                sums[column] += a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn normal(len: usize, seed: u64) -> Vec<f32> {
        let mut rng = Rng::new(seed, &[len as u64]);
        (0..len).map(|_| rng.normal()).collect()
    }

    fn product_of(x: &[f32], weight: &[f32], width: usize, outputs: usize) -> Vec<f32> {
        let mut out = vec![MaybeUninit::new(f32::NAN); x.len() / width * outputs];
        product(x, weight, width, outputs, &mut out, |_, _, _| {});
        // SAFETY: written, and initialised before.
        out.into_iter().map(|value| unsafe { value.assume_init() }).collect()
    }

    /// All that this machine has, exactly the loops' values.
    #[test]
    fn tiles_are_exact_sums() {
        let mut kinds = vec![Instructions::Loops];
        #[cfg(target_arch = "x86_64")]
        {
            let detected = [
                (Instructions::Avx2, is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")),
                (Instructions::AvxVnni, is_x86_feature_detected!("avxvnni")),
                (
                    Instructions::Avx512Vnni,
                    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni"),
                ),
                (Instructions::Amx, amx::multiplies_bytes()),
            ];
            kinds.extend(detected.into_iter().filter(|(_, there)| *there).map(|(kind, _)| kind));
        }
        for kind in kinds {
            for (rows, width, outputs) in
                [(1, 1, 1), (5, 67, 7), (6, 64, 32), (3, 130, 25), (14, 259, 17), (32, 128, 32)]
            {
                let rows = rows.min(kind.rows());
                let x = Rows::new(&normal(rows * width, 1), width, kind);
                let weight = Weight::new(&normal(outputs * width, 2), width, kind);
                let run = |kind: Instructions| {
                    let mut out = vec![MaybeUninit::new(7.0); rows * 40];
                    // The loops look at as many rows as there are scales.
                    let tile = x.tile(0..rows, weight.panel(0), &mut out, 40, outputs);
                    // SAFETY: the operands are as long as `run` asserts of the kind with the most rows.
                    match kind {
                        Instructions::Loops => unsafe { loops(&tile) },
                        kind => {
                            kind.begin();
                            kind.run(&tile);
                            kind.end();
                        }
                    }
                    // SAFETY: initialised above.
                    out.into_iter().map(|value| unsafe { value.assume_init() }).collect::<Vec<f32>>()
                };
                let [got, expected] = [kind, Instructions::Loops].map(run);
                assert_eq!(got, expected, "{kind:?}, {rows} x {width} x {outputs}");
                assert!(got.iter().enumerate().all(|(i, value)| i % 40 < outputs || *value == 7.0), "{kind:?}");
            }
        }
    }

    /// On every machine: what registers of AMX read beyond a row adds nothing.
    #[test]
    fn lanes_for_amx_hold_zeros_beyond_the_width() {
        for (rows, width, outputs) in [(3, 65, 7), (32, 128, 32), (20, 259, 17)] {
            let (x, weight) = (normal(rows * width, 1), normal(outputs * width, 2));
            let of = |kind| {
                let (x, weight) = (Rows::new(&x, width, kind), Weight::new(&weight, width, kind));
                let mut out = vec![MaybeUninit::new(7.0); rows * 40];
                let tile = x.tile(0..rows, weight.panel(0), &mut out, 40, outputs);
                assert!(kind == Instructions::Loops || tile.lanes.is_multiple_of(AMX_LANES));
                // SAFETY: the loops look at as many rows as there are scales.
                unsafe { loops(&tile) };
                // SAFETY: initialised above.
                out.into_iter().map(|value| unsafe { value.assume_init() }).collect::<Vec<f32>>()
            };
            assert_eq!(of(Instructions::Amx), of(Instructions::Loops), "{rows} x {width} x {outputs}");
        }
    }

    #[test]
    fn eight_bits_are_near_the_product() {
        for (rows, width, outputs) in [(37, 64, 64), (100, 150, 90), (33, 384, 129), (15, 1541, 65)] {
            let (x, weight) = (normal(rows * width, 3), normal(outputs * width, 4));
            let got = product_of(&x, &weight, width, outputs);
            let exact = |row: usize, output: usize| -> f64 {
                let pairs = x[row * width..][..width].iter().zip(&weight[output * width..][..width]);
                pairs.map(|(x, weight)| f64::from(*x) * f64::from(*weight)).sum()
            };
            let (mut off, mut all) = (0.0, 0.0);
            for (i, got) in got.iter().enumerate() {
                let exact = exact(i / outputs, i % outputs);
                off += (f64::from(*got) - exact).powi(2);
                all += exact.powi(2);
            }
            // Steps of a 255th of six deviations for x and of an 127th (AVX2: a 63rd) of three for weights.
            let relative = (off / all).sqrt();
            assert!(relative < 0.025 && relative > 0.002, "{relative}");
        }
    }

    #[test]
    fn extremes_stay_exact() {
        // The largest bytes on both sides: sums of two of their products must not overflow 16 bits.
        let (width, outputs) = (256, 64);
        let got = product_of(&vec![1.0; 20 * width], &vec![-1.0; outputs * width], width, outputs);
        assert!(got.iter().all(|value| (*value + 256.0).abs() < 1e-3), "{got:?}");
        let zeros = product_of(&vec![0.0; 20 * width], &vec![0.0; outputs * width], width, outputs);
        assert!(zeros.iter().all(|value| *value == 0.0));
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let (mut x, mut weight) = (normal(20 * 100, 7), normal(70 * 100, 8));
        (x[3 * 100 + 5], x[7 * 100 + 99], weight[9 * 100 + 50]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
        for (at, value) in product_of(&x, &weight, 100, 70).into_iter().enumerate() {
            let (row, output) = (at / 70, at % 70);
            assert_eq!(value.is_nan(), row == 3 || row == 7 || output == 9, "{row} {output}: {value}");
        }
    }

    #[test]
    fn threads_and_neighbours_do_not_change_a_bit() {
        let (x, weight) = (normal(100 * 200, 5), normal(300 * 200, 6));
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| product_of(&x, &weight, 200, 300))
        };
        let all = on(3);
        assert_eq!(on(1), all);
        // A token's bytes are its own: alone it gives the same.
        assert_eq!(product_of(&x[40 * 200..][..3 * 200], &weight, 200, 300), all[40 * 300..][..3 * 300]);
    }
}
