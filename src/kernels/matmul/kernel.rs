//! The innermost loops: a tile of a product, summed in registers.

use std::sync::OnceLock;

use crate::kernels::matmul::Precision;
use crate::kernels::matmul::pack::{Form, Lanes, SPLIT_LANES};
use crate::kernels::matmul::shape::{A_COLUMNS, A_STRIDE, AVX512_ROWS, LOOP_COLUMNS, LOOP_ROWS, Target};
#[cfg(target_arch = "x86_64")]
use crate::kernels::matmul::{amx, avx2, avx512};
use crate::kernels::simd::{Level, fma, has_bf16, level, vectorized};

/// The instructions a tile is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instructions {
    /// Loops, for the compiler to vectorise.
    Loops,
    /// AVX2 with fused multiply-add.
    Avx2,
    /// AVX-512 with fused multiply-add.
    Avx512,
    /// `vdpbf16ps` of AVX-512-BF16.
    Avx512Bf16,
    /// `tdpbf16ps` of AMX.
    Amx,
}

/// How tiles are computed, and their shape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernel {
    instructions: Instructions,
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
        let avx512 = level() == Level::Avx512;
        let precision = match precision {
            Precision::Int8 if avx512 && (has_fast_bf16() || has_bf16() && has_amx()) => Precision::Bf16,
            Precision::Int8 => Precision::F32,
            other => other,
        };
        let instructions = match precision {
            Precision::Bf16 | Precision::Bf16x3 if avx512 && has_bf16() && has_amx() => Instructions::Amx,
            Precision::Bf16 if avx512 && has_fast_bf16() => Instructions::Avx512Bf16,
            _ if avx512 => Instructions::Avx512,
            _ if level() == Level::Avx2 => Instructions::Avx2,
            _ => Instructions::Loops,
        };
        Self::of(instructions, precision)
    }

    fn of(instructions: Instructions, precision: Precision) -> Self {
        let (rows, columns, depth) = match instructions {
            Instructions::Loops | Instructions::Avx2 => (LOOP_ROWS, LOOP_COLUMNS, 1),
            Instructions::Avx512 | Instructions::Avx512Bf16 => (AVX512_ROWS, 32, 1),
            Instructions::Amx if precision == Precision::Bf16x3 => (32, 32, SPLIT_LANES),
            Instructions::Amx => (32, 32, 16),
        };
        Self { instructions, precision, rows, columns, depth }
    }

    /// What becomes of the operands.
    pub(super) fn precision(self) -> Precision {
        self.precision
    }

    /// Values of the inner dimension that a lane stands for.
    pub(super) fn values_per_lane(self) -> usize {
        match self.instructions {
            Instructions::Avx512Bf16 | Instructions::Amx if self.precision == Precision::Bf16 => 2,
            _ => 1,
        }
    }

    /// How many times as many products a second as in f32, about.
    pub(super) fn rate(self) -> f64 {
        match (self.instructions, self.precision) {
            (Instructions::Amx, Precision::Bf16x3) => 2.5,
            (Instructions::Amx, _) => 7.0,
            (Instructions::Avx512Bf16, _) => 2.0,
            _ => 1.0,
        }
    }

    /// How operands become lanes: vectors lie along the inner dimension, or across it.
    pub(super) fn form(self, along: bool) -> Form {
        let pairs = matches!(self.instructions, Instructions::Avx512Bf16 | Instructions::Amx);
        match (self.precision, pairs, along) {
            (Precision::Bf16, true, true) => Form::PairsAlong,
            (Precision::Bf16, true, false) => Form::PairsAcross,
            (Precision::Bf16, false, _) => Form::Rounded,
            (Precision::Bf16x3, true, true) => Form::SplitAlong,
            (Precision::Bf16x3, true, false) => Form::SplitAcross,
            (Precision::Bf16x3, false, _) | (Precision::F32 | Precision::Int8, ..) => Form::Single,
        }
    }

    /// What a thread needs around its tiles.
    pub(super) fn begin(self) -> TileGuard {
        #[cfg(target_arch = "x86_64")]
        if self.instructions == Instructions::Amx {
            // SAFETY: AMX was detected and permitted.
            unsafe { amx::configure() };
        }
        TileGuard(self.instructions == Instructions::Amx)
    }

    /// How the rows of a block are packed when the matrix is stored row by row (`along`) or column by column.
    pub(super) fn row_layout(self, along: bool, lanes: usize) -> RowLayout {
        // AMX loads rows of lanes. To the others all is one, so nothing is transposed.
        if along || self.instructions == Instructions::Amx {
            RowLayout { shape: [self.rows, A_STRIDE], transposed: !along, order: Order::Rows }
        } else {
            RowLayout { shape: [lanes, A_COLUMNS], transposed: false, order: Order::Columns }
        }
    }

    /// How to read the vectors where they lie, if that is as good as packing them.
    pub(super) fn takes<'a>(self, rows: &Lanes<'a>, along: bool, lanes: usize) -> Option<(&'a [u32], RowLayout)> {
        // Rows a multiple of this apart would compete for few places of the first-level cache.
        const SETS: usize = 4096 / size_of::<f32>();
        let suits = rows.form == Form::Single && matches!(self.instructions, Instructions::Avx512 | Instructions::Avx2);
        if !suits || rows.stride.is_multiple_of(SETS) {
            return None;
        }
        // Columns touch a line of cache or two for each lane, so these must be few.
        const FEW: usize = 64;
        let whole = match along {
            true => rows.length == lanes && rows.count == self.rows,
            false => rows.count == lanes && rows.length == self.rows && lanes <= FEW,
        };
        let needed = (rows.count - 1) * rows.stride + rows.length;
        let values = rows.values.get(..needed).filter(|_| whole)?;
        // SAFETY: an f32 has the size and alignment of a lane.
        let values = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), needed) };
        let order = if along { Order::Strided } else { Order::StridedColumns };
        Some((values, RowLayout { shape: [rows.count, rows.stride], transposed: false, order }))
    }

    /// Writes (or adds) scale times the product of packed rows and a packed panel `b [lanes, columns]` to the target.
    ///
    /// # Safety
    /// The target is the caller's to write to, and initialised if it is added to; the call is within [`Kernel::begin`].
    pub(super) unsafe fn tile(self, lanes: usize, a: &[u32], layout: RowLayout, b: &[u32], target: &Target) {
        let [vectors, stride] = layout.shape;
        let needed = match layout.order {
            Order::Strided => (vectors - 1) * stride + lanes,
            Order::StridedColumns => (lanes - 1) * stride + self.rows,
            Order::Rows | Order::Columns => vectors * stride,
        };
        assert!(a.len() >= needed && lanes <= A_STRIDE && b.len() >= lanes * self.columns);
        assert!(target.rows <= self.rows && target.columns <= self.columns);
        let (a, b) = (a.as_ptr(), b.as_ptr());
        // SAFETY: the operands are as long as asserted, the instructions were detected, and the caller vouches for the
        // target.
        unsafe {
            match self.instructions {
                #[cfg(target_arch = "x86_64")]
                Instructions::Avx2 => {
                    let apart = match layout.order {
                        Order::Rows => [A_STRIDE, 1],
                        Order::Columns => [1, A_COLUMNS],
                        Order::Strided => [stride, 1],
                        Order::StridedColumns => [1, stride],
                    };
                    avx2::tile(lanes, a, apart, b, target);
                }
                #[cfg(target_arch = "x86_64")]
                Instructions::Avx512 => match layout.order {
                    Order::Rows => avx512::tile::<A_STRIDE, 1>(lanes, a, b, target),
                    Order::Columns => avx512::tile::<1, A_COLUMNS>(lanes, a, b, target),
                    Order::Strided => avx512::strided(lanes, a, stride, b, target),
                    Order::StridedColumns => avx512::columns(lanes, a, stride, b, target),
                },
                #[cfg(target_arch = "x86_64")]
                Instructions::Avx512Bf16 if layout.order == Order::Rows => {
                    avx512::bf16::<A_STRIDE, 1>(lanes, a, b, target)
                }
                #[cfg(target_arch = "x86_64")]
                Instructions::Avx512Bf16 => avx512::bf16::<1, A_COLUMNS>(lanes, a, b, target),
                #[cfg(target_arch = "x86_64")]
                Instructions::Amx if self.precision == Precision::Bf16x3 => amx::write::<true>(lanes, a, b, target),
                #[cfg(target_arch = "x86_64")]
                Instructions::Amx => amx::write::<false>(lanes, a, b, target),
                _ => {
                    let mut sums = [[0.0; LOOP_COLUMNS]; LOOP_ROWS];
                    match layout.order {
                        Order::Rows => loops::<A_STRIDE, 1>(lanes, a, b, &mut sums),
                        Order::Columns => loops::<1, A_COLUMNS>(lanes, a, b, &mut sums),
                        Order::Strided | Order::StridedColumns => unreachable!("rows for loops are packed"),
                    }
                    write(sums.as_flattened(), LOOP_COLUMNS, target);
                }
            }
        }
    }
}

/// How the rows of a block are packed.
#[derive(Clone, Copy)]
pub(super) struct RowLayout {
    /// Of the packed matrix.
    pub(super) shape: [usize; 2],
    /// Whether the vectors of the source are its columns.
    pub(super) transposed: bool,
    order: Order,
}

/// How the rows of a block lie.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// `[rows, A_STRIDE]`.
    Rows,
    /// `[lanes, A_COLUMNS]`.
    Columns,
    /// Not packed: rows any distance apart.
    Strided,
    /// Not packed: columns any distance apart.
    StridedColumns,
}

/// Until it is dropped a thread can compute tiles.
pub(super) struct TileGuard(bool);

impl Drop for TileGuard {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        if self.0 {
            // SAFETY: AMX was detected and permitted.
            unsafe { amx::release() };
        }
    }
}

/// Intel's processors multiply bf16 by `vdpbf16ps` at half the rate of f32; they have AMX for that, and where it is
/// switched off f32 operands that are rounded to bf16 are faster. AMD's do it at the full rate.
#[cfg(target_arch = "x86_64")]
fn has_fast_bf16() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    has_bf16() && [vendor.ebx, vendor.edx, vendor.ecx] != [*b"Genu", *b"ineI", *b"ntel"].map(u32::from_le_bytes)
}

#[cfg(target_arch = "x86_64")]
fn has_amx() -> bool {
    amx::usable()
}

#[cfg(not(target_arch = "x86_64"))]
fn has_fast_bf16() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn has_amx() -> bool {
    false
}

vectorized! {
    fn loops<const ROW: usize, const LANE: usize>(lanes: usize, a: *const u32, b: *const u32, sums: &mut [[f32; LOOP_COLUMNS]; LOOP_ROWS]) {
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

/// Writes sums, the rows of which lie `stride` apart, to the target.
///
/// # Safety
/// As for [`Kernel::tile`].
unsafe fn write(sums: &[f32], stride: usize, target: &Target) {
    for (row, sums) in sums.chunks_exact(stride).enumerate().take(target.rows) {
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
