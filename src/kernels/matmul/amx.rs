//! AMX: products of bf16, and of bytes, in tile registers of sixteen rows of 64 bytes (Intel, Architecture Instruction
//! Set Extensions, chapter 3).

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _mm512_load_ps};
use std::sync::OnceLock;

use crate::kernels::matmul::avx512::{masks, write_row};
use crate::kernels::matmul::pack::{Form, SPLIT_LANES};
use crate::kernels::matmul::shape::{A_STRIDE, Target};
use crate::kernels::matmul::tiles::{Rows, Tiles};
use crate::kernels::simd::has_bf16;

/// Tiles by `tdpbf16ps`.
pub(super) struct Amx {
    /// Whether every operand is split into two bf16.
    pub(super) split: bool,
}

impl Tiles for Amx {
    fn shape(&self) -> [usize; 2] {
        [32, 32]
    }

    fn depth(&self) -> usize {
        if self.split { SPLIT_LANES } else { 16 }
    }

    fn values_per_lane(&self) -> usize {
        if self.split { 1 } else { 2 }
    }

    fn rate(&self) -> f64 {
        if self.split { 2.5 } else { 7.0 }
    }

    fn form(&self, along: bool) -> Form {
        match (self.split, along) {
            (false, true) => Form::PairsAlong,
            (false, false) => Form::PairsAcross,
            (true, true) => Form::SplitAlong,
            (true, false) => Form::SplitAcross,
        }
    }

    fn needs_rows(&self) -> bool {
        true
    }

    unsafe fn begin(&self) {
        // SAFETY: the caller's word.
        unsafe { configure() };
    }

    unsafe fn end(&self) {
        // SAFETY: the caller's word.
        unsafe { release() };
    }

    unsafe fn tile(&self, lanes: usize, a: Rows, b: *const u32, target: &Target) {
        // SAFETY: the caller's word.
        unsafe {
            match self.split {
                true => write::<true>(lanes, a.start, b, target),
                false => write::<false>(lanes, a.start, b, target),
            }
        }
    }
}

/// A tile of sums, [32, 32].
#[repr(C, align(64))]
struct Sums([f32; 1024]);

/// Whether the processor has AMX for bf16, the system lets this process use it, and it multiplies as it should.
pub(super) fn usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    const AMX_BF16: u32 = 1 << 22;
    *USABLE.get_or_init(|| has_bf16() && present(AMX_BF16) && permitted() && computes())
}

/// As [`usable`], for [`byte_tile`].
pub(in crate::kernels) fn multiplies_bytes() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    const AMX_INT8: u32 = 1 << 25;
    *USABLE.get_or_init(|| has_bf16() && present(AMX_INT8) && permitted() && computes_bytes())
}

/// Whether the processor has tiles with `feature`, a bit that the manual names, and the system saves them.
fn present(feature: u32) -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const AMX_TILE: u32 = 1 << 24;
    // XTILECFG and XTILEDATA.
    const TILE_STATE: u32 = 3 << 17;
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    let features = __cpuid_count(7, 0).edx;
    if features & feature == 0 || features & AMX_TILE == 0 {
        return false;
    }
    let enabled: u32;
    // SAFETY: OSXSAVE says that xgetbv is there.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") enabled, out("edx") _, options(nomem, nostack)) };
    enabled & TILE_STATE == TILE_STATE
}

/// Asks Linux for the tile registers, for all threads of the process; elsewhere they are not used.
fn permitted() -> bool {
    if !cfg!(target_os = "linux") {
        return false;
    }
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XTILEDATA: i64 = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: a system call that changes nothing but the permission.
    unsafe {
        asm!(
            "syscall",
            inout("rax") result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack)
        );
    }
    result == 0
}

/// One product of small whole numbers, which must be exact.
fn computes() -> bool {
    let value = |i: usize| ((i * 7) % 5) as f32 - 2.0;
    let pair = |i: usize, j: usize| (value(i).to_bits() >> 16) | (value(j).to_bits() & 0xffff_0000);
    let mut a = vec![0; 32 * A_STRIDE];
    for row in 0..32 {
        for lane in 0..32 {
            a[row * A_STRIDE + lane] = pair(row + 3 * lane, row * lane);
        }
    }
    let b: Vec<u32> = (0..32 * 32).map(|i| pair(i, i + i / 32)).collect();
    // SAFETY: present and permitted; the operands have the shape of two steps.
    let sums = unsafe {
        let mut sums = std::mem::MaybeUninit::<Sums>::uninit();
        configure();
        tile(32, a.as_ptr(), A_STRIDE, b.as_ptr(), sums.as_mut_ptr().cast(), 32);
        release();
        sums.assume_init()
    };
    (0..32 * 32).all(|i| {
        let (row, column) = (i / 32, i % 32);
        let expected: f32 = (0..32)
            .map(|lane| {
                let at = lane * 32 + column;
                value(row + 3 * lane) * value(at) + value(row * lane) * value(at + at / 32)
            })
            .sum();
        sums.0[i] == expected
    })
}

/// One product of bytes of all signs and sizes, which is exact.
fn computes_bytes() -> bool {
    const STRIDE: usize = 48;
    let lane = |i: usize| (i as u32).wrapping_mul(0x9e37_79b9) ^ (i as u32) << 7;
    let a: Vec<u32> = (0..32 * STRIDE).map(lane).collect();
    let b: Vec<u32> = (0..32 * 32).map(|i| lane(i + 12_345)).collect();
    let mut sums = vec![0i32; 32 * 32];
    // SAFETY: present and permitted; the operands have the shape of two steps.
    unsafe {
        configure();
        byte_tile(32, a.as_ptr(), STRIDE, b.as_ptr(), sums.as_mut_ptr().cast(), 32);
        release();
    }
    (0..32 * 32).all(|i| {
        let (row, column) = (i / 32, i % 32);
        let products = (0..32).flat_map(|lane| {
            let (a, b) = (a[row * STRIDE + lane].to_le_bytes(), b[lane * 32 + column].to_le_bytes());
            (0..4).map(move |at| i32::from(a[at]) * i32::from(b[at].cast_signed()))
        });
        sums[i] == products.sum::<i32>()
    })
}

/// Gives this thread eight tiles of sixteen rows of 64 bytes.
///
/// # Safety
/// AMX is present and permitted.
pub(in crate::kernels) unsafe fn configure() {
    #[repr(C, align(64))]
    struct Config {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        bytes_a_row: [u16; 16],
        rows: [u8; 16],
    }
    let (mut bytes_a_row, mut rows) = ([0; 16], [0; 16]);
    bytes_a_row[..8].fill(64);
    rows[..8].fill(16);
    let config = Config { palette: 1, start_row: 0, reserved: [0; 14], bytes_a_row, rows };
    // SAFETY: the caller's word; the layout is that of the manual.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly)) }
}

/// Returns the tiles, so that the system need not save them.
///
/// # Safety
/// AMX is present and permitted.
pub(in crate::kernels) unsafe fn release() {
    // SAFETY: the caller's word.
    unsafe { asm!("tilerelease", options(nostack, nomem)) }
}

/// Instructions that fetch the `$part`-th 512 bytes behind sixteen lanes of b into the first-level cache. The tile
/// instructions wait for their rows, and the processor does not foresee them.
macro_rules! prefetch {
    ($part:literal) => {
        concat!(
            "prefetcht0 [{b} + 2048 + 512 * ",
            $part,
            "]\n",
            "prefetcht0 [{b} + 2112 + 512 * ",
            $part,
            "]\n",
            "prefetcht0 [{b} + 2176 + 512 * ",
            $part,
            "]\n",
            "prefetcht0 [{b} + 2240 + 512 * ",
            $part,
            "]\n",
            "prefetcht0 [{b} + 2304 + 512 * ",
            $part,
            "]\n",
            "prefetcht0 [{b} + 2368 + 512 * ",
            $part,
            "]\n",
            "prefetcht0 [{b} + 2432 + 512 * ",
            $part,
            "]\n",
            "prefetcht0 [{b} + 2496 + 512 * ",
            $part,
            "]",
        )
    };
}

/// A function that sums a tile by steps of this many lanes, in tmm0 to tmm3, left and right, upper and lower half.
macro_rules! summed {
    ($(#[$about:meta])* $name:ident, $lanes:literal, [$($instruction:expr,)*]) => {
        $(#[$about])*
        #[inline]
        pub(in crate::kernels) unsafe fn $name(
            lanes: usize,
            a: *const u32,
            a_stride: usize,
            b: *const u32,
            sums: *mut f32,
            stride: usize,
        ) {
            // SAFETY: the caller's word; a prefetch of any address has no effect but on speed.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "test {steps}, {steps}",
                    "jz 3f",
                    "2:",
                    $($instruction,)*
                    "add {a}, {a_step}",
                    "add {lower}, {a_step}",
                    "add {b}, {b_step}",
                    "dec {steps}",
                    "jnz 2b",
                    "3:",
                    "tilestored [{sums} + {stride}], tmm0",
                    "tilestored [{sums} + {stride} + 64], tmm1",
                    "tilestored [{lower_sums} + {stride}], tmm2",
                    "tilestored [{lower_sums} + {stride} + 64], tmm3",
                    steps = inout(reg) lanes / $lanes => _,
                    a = inout(reg) a => _,
                    lower = inout(reg) a.add(16 * a_stride) => _,
                    b = inout(reg) b => _,
                    a_step = const 4 * $lanes,
                    b_step = const 128 * $lanes,
                    a_stride = in(reg) 4 * a_stride,
                    b_stride = in(reg) 128usize,
                    sums = in(reg) sums,
                    lower_sums = in(reg) sums.wrapping_add(16 * stride),
                    stride = in(reg) 4 * stride,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack)
                );
            }
        }
    };
}

summed! {
    /// Writes the sums of 32 rows of a, `a_stride` lanes apart, and 32 columns of b, [lanes, 32], as 32 rows that lie
    /// `stride` apart; `lanes` is a multiple of 16.
    ///
    /// # Safety
    /// Within [`configure`] and [`release`]; the operands are that long, and the sums have room.
    tile, 16, [
        "tileloadd tmm6, [{b} + {b_stride}]",
        "tileloadd tmm4, [{a} + {a_stride}]",
        "tdpbf16ps tmm0, tmm4, tmm6",
        prefetch!(0),
        "tileloadd tmm7, [{b} + {b_stride} + 64]",
        "tdpbf16ps tmm1, tmm4, tmm7",
        prefetch!(1),
        "tileloadd tmm5, [{lower} + {a_stride}]",
        "tdpbf16ps tmm2, tmm5, tmm6",
        prefetch!(2),
        "tdpbf16ps tmm3, tmm5, tmm7",
        prefetch!(3),
    ]
}

summed! {
    /// The same of bytes, four a lane, unsigned in a and signed in b: whole sums, as the bits of i32.
    ///
    /// # Safety
    /// As for [`tile`].
    byte_tile, 16, [
        "tileloadd tmm6, [{b} + {b_stride}]",
        "tileloadd tmm4, [{a} + {a_stride}]",
        "tdpbusd tmm0, tmm4, tmm6",
        prefetch!(0),
        "tileloadd tmm7, [{b} + {b_stride} + 64]",
        "tdpbusd tmm1, tmm4, tmm7",
        prefetch!(1),
        "tileloadd tmm5, [{lower} + {a_stride}]",
        "tdpbusd tmm2, tmm5, tmm6",
        prefetch!(2),
        "tdpbusd tmm3, tmm5, tmm7",
        prefetch!(3),
    ]
}

summed! {
    /// The same of operands that are split: sixteen lanes of pairs are followed by sixteen with what rounding has left
    /// of these, and all products but those of two such rests are summed. `lanes` is a multiple of 32.
    ///
    /// # Safety
    /// As for [`tile`].
    split_tile, 32, [
        // The rests of a by b.
        "tileloadd tmm6, [{b} + {b_stride}]",
        "tileloadd tmm4, [{a} + {a_stride} + 64]",
        "tdpbf16ps tmm0, tmm4, tmm6",
        prefetch!(4),
        "tileloadd tmm7, [{b} + {b_stride} + 64]",
        "tdpbf16ps tmm1, tmm4, tmm7",
        prefetch!(5),
        "tileloadd tmm5, [{lower} + {a_stride} + 64]",
        "tdpbf16ps tmm2, tmm5, tmm6",
        prefetch!(6),
        "tdpbf16ps tmm3, tmm5, tmm7",
        prefetch!(7),
        // a by b.
        "tileloadd tmm4, [{a} + {a_stride}]",
        "tdpbf16ps tmm0, tmm4, tmm6",
        prefetch!(8),
        "tdpbf16ps tmm1, tmm4, tmm7",
        prefetch!(9),
        "tileloadd tmm5, [{lower} + {a_stride}]",
        "tdpbf16ps tmm2, tmm5, tmm6",
        prefetch!(10),
        "tdpbf16ps tmm3, tmm5, tmm7",
        prefetch!(11),
        // a by the rests of b.
        "tileloadd tmm6, [{b} + {b_stride} + 2048]",
        "tdpbf16ps tmm0, tmm4, tmm6",
        "tileloadd tmm7, [{b} + {b_stride} + 2112]",
        "tdpbf16ps tmm1, tmm4, tmm7",
        "tdpbf16ps tmm2, tmm5, tmm6",
        "tdpbf16ps tmm3, tmm5, tmm7",
    ]
}

/// Sums go where they belong at once if nothing has to be done to them.
///
/// # Safety
/// As for [`tile`]; the target is as for a tile.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn write<const SPLIT: bool>(lanes: usize, a: *const u32, b: *const u32, target: &Target) {
    let tile = if SPLIT { split_tile } else { tile };
    // SAFETY: `Kernel::tile` has checked the lengths; a whole tile has room in the target.
    unsafe {
        if (target.rows, target.columns, target.add, target.scale) == (32, 32, false, 1.0) {
            tile(lanes, a, A_STRIDE, b, target.corner, target.stride);
            return;
        }
        let mut sums = std::mem::MaybeUninit::<Sums>::uninit();
        tile(lanes, a, A_STRIDE, b, sums.as_mut_ptr().cast(), 32);
        let sums = sums.as_ptr().cast::<f32>();
        let masks = masks(target);
        for row in 0..target.rows {
            let sums = [0, 16].map(|half| _mm512_load_ps(sums.add(row * 32 + half)));
            write_row(row, sums, masks, target);
        }
    }
}
