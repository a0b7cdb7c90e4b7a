//! Instruction sets chosen at run time, and the mathematics that must vectorise.
//!
//! A loop is compiled once for each instruction set: a plain one over slices and fixed-size lanes, which the compiler
//! turns into vector instructions, by [`vectorized!`]; one that is written in vectors ([`vector`](super::vector)) by
//! [`vectors`]; [`by_level!`] chooses for both. Plain loops do not go through `vectors`: labels of a ViT-T took a tenth
//! longer with AVX-512, it seems because the compiler knows of a function's arguments that they do not overlap, and not
//! of the fields of what `vectors` takes.

use std::sync::OnceLock;

use pulp::{Simd, WithSimd};

use crate::error::{Error, Result};

/// The instruction sets a body is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) enum Level {
    /// What every machine of this architecture has: SSE2, or NEON.
    Baseline,
    /// AVX2 with fused multiply-add, and what comes with them in every processor (x86-64-v3).
    Avx2,
    /// AVX-512: F, VL, DQ, BW and CD (x86-64-v4).
    Avx512,
}

/// The environment variable that holds the kernels to fewer instructions than the machine has.
const VARIABLE: &str = "STRUCTTOKEN_SIMD";
const LEVELS: [(&str, Level); 3] = [("baseline", Level::Baseline), ("avx2", Level::Avx2), ("avx512", Level::Avx512)];

/// The level that kernels run at: the best of this machine, or less where `STRUCTTOKEN_SIMD` says so.
pub(super) fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| match asked() {
        Ok(Some(asked)) if asked < detect() => asked,
        _ => detect(),
    })
}

/// Whether `STRUCTTOKEN_SIMD` holds kernels to less than the machine has.
#[cfg(target_arch = "x86_64")]
pub(super) fn is_limited() -> bool {
    level() < detect()
}

/// The name of the instruction set that the CPU kernels use: `baseline`, `avx2` or `avx512`.
///
/// It is the best of this machine, or less where the environment variable `STRUCTTOKEN_SIMD` names less, for
/// measurements and tests. Fails if the variable names no instruction set, or one that this machine lacks.
pub fn instruction_set() -> Result<&'static str> {
    let name = |level| LEVELS.iter().find(|(_, known)| *known == level).map_or("baseline", |(name, _)| *name);
    if let Some(asked) = asked()?
        && asked > detect()
    {
        return Err(Error::new(format!("{VARIABLE}={}: this machine has no such instructions", name(asked)))
            .with_hint(format!("unset {VARIABLE}, or set it to `{}` or less", name(detect()))));
    }
    Ok(name(level()))
}

fn asked() -> Result<Option<Level>> {
    let Some(value) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) else { return Ok(None) };
    match LEVELS.iter().find(|(name, _)| value == *name) {
        Some((_, level)) => Ok(Some(*level)),
        None => Err(Error::new(format!("{VARIABLE}={}: there is no such instruction set", value.to_string_lossy()))
            .with_hint(format!("unset {VARIABLE}, or set it to {}", LEVELS.map(|(name, _)| name).join(", ")))),
    }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    match (pulp::x86::V4::try_new(), pulp::x86::V3::try_new()) {
        (Some(_), _) => Level::Avx512,
        (_, Some(_)) => Level::Avx2,
        _ => Level::Baseline,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Level {
    Level::Baseline
}

/// Whether kernels may use AVX-512-BF16.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_bf16() -> bool {
    level() == Level::Avx512 && is_x86_feature_detected!("avx512bf16")
}

/// Whether kernels may use AVX-512-BF16.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn has_bf16() -> bool {
    false
}

/// Whether the baseline has a fused multiply-add instruction.
pub(super) const BASELINE_FMA: bool = cfg!(target_arch = "aarch64");

/// What runs at the [`level`] of this machine: the one place that chooses.
macro_rules! by_level {
    ($avx512:expr, $avx2:expr, $baseline:expr $(,)?) => {{
        #[cfg(target_arch = "x86_64")]
        let found = match $crate::kernels::simd::level() {
            // SAFETY: the level was detected on this machine.
            $crate::kernels::simd::Level::Avx512 => unsafe { $avx512 },
            // SAFETY: as above.
            $crate::kernels::simd::Level::Avx2 => unsafe { $avx2 },
            $crate::kernels::simd::Level::Baseline => $baseline,
        };
        #[cfg(not(target_arch = "x86_64"))]
        let found = $baseline;
        found
    }};
}
pub(super) use by_level;

/// Defines a function whose body is compiled for every [`Level`] and run with the best one.
/// Inside, `FMA` says whether `mul_add` is one instruction.
macro_rules! vectorized {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$(const $k:ident: $kt:ty),+>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name $(<$(const $k: $kt),+>)? ($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(dead_code, clippy::too_many_arguments)]
            fn body<const FMA: bool $($(, const $k: $kt)+)?>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,fma")]
            #[allow(clippy::too_many_arguments)]
            fn avx512 $(<$(const $k: $kt),+>)? ($($arg: $ty),*) $(-> $ret)? { body::<true $($(, $k)+)?>($($arg),*) }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            fn avx2 $(<$(const $k: $kt),+>)? ($($arg: $ty),*) $(-> $ret)? { body::<true $($(, $k)+)?>($($arg),*) }

            $crate::kernels::simd::by_level!(
                avx512 $(::<$($k),+>)? ($($arg),*),
                avx2 $(::<$($k),+>)? ($($arg),*),
                body::<{ $crate::kernels::simd::BASELINE_FMA } $($(, $k)+)?>($($arg),*),
            )
        }
    };
}
pub(super) use vectorized;

/// Runs a loop with the instructions of [`level`].
#[inline]
pub(super) fn vectors<Op: WithSimd>(op: Op) -> Op::Output {
    by_level!(
        Simd::vectorize(pulp::x86::V4::new_unchecked(), op),
        Simd::vectorize(pulp::x86::V3::new_unchecked(), op),
        baseline_vectors(op),
    )
}

/// Eight numbers at once: sums over long rows need several parts, and the compiler has SSE2 for them.
#[cfg(target_arch = "x86_64")]
fn baseline_vectors<Op: WithSimd>(op: Op) -> Op::Output {
    Simd::vectorize(pulp::Scalar256b, op)
}

/// What the architecture has: NEON.
#[cfg(not(target_arch = "x86_64"))]
fn baseline_vectors<Op: WithSimd>(op: Op) -> Op::Output {
    pulp::Arch::new().dispatch(op)
}

/// a b + c, in one instruction where there is one.
#[inline(always)]
pub(super) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// The width over which sums are kept apart: two AVX-512 registers.
pub(super) const LANES: usize = 32;

/// The sum of `f(a, b)` over two slices of one length.
#[inline(always)]
pub(super) fn sum2(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    for (lane, (a, b)) in lanes.iter_mut().zip(a.remainder().iter().zip(b.remainder())) {
        *lane += f(*a, *b);
    }
    for (a, b) in a.zip(b) {
        for i in 0..LANES {
            lanes[i] += f(a[i], b[i]);
        }
    }
    add_lanes(lanes)
}

/// The sum of the lanes, pairwise.
#[inline(always)]
pub(super) fn add_lanes<const N: usize>(mut lanes: [f32; N]) -> f32 {
    let mut width = N / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The largest element; -inf for none.
#[inline(always)]
pub(super) fn largest(a: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let larger = |lanes: &mut [f32; LANES], a: &[f32]| {
        for (lane, a) in lanes.iter_mut().zip(a) {
            *lane = if *a > *lane { *a } else { *lane };
        }
    };
    for chunk in a.as_chunks::<LANES>().0 {
        larger(&mut lanes, chunk);
    }
    // The last elements, whether or not they have been seen.
    match a.last_chunk::<LANES>() {
        Some(last) => larger(&mut lanes, last),
        None => larger(&mut lanes, a),
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = if lanes[i + width] > lanes[i] { lanes[i + width] } else { lanes[i] };
        }
        width /= 2;
    }
    lanes[0]
}

/// exp(x) to about one unit in the last place; 0 below -87, and x is taken as at most 88.
#[inline(always)]
pub(super) fn exp<const FMA: bool>(x: f32) -> f32 {
    // 1.5 * 2^23 rounds to an integer; the 127 puts the biased exponent into its low bits.
    const ROUND: f32 = 12_582_912.0 + 127.0;
    let clamped = x.clamp(-87.0, 88.0);
    let shifted = fma::<FMA>(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma::<FMA>(n, -0.693_359_4, clamped);
    let r = fma::<FMA>(n, 2.121_944_4e-4, r);
    let mut p = 1.984_127e-4;
    p = fma::<FMA>(p, r, 1.388_888_9e-3);
    p = fma::<FMA>(p, r, 8.333_334e-3);
    p = fma::<FMA>(p, r, 4.166_666_8e-2);
    p = fma::<FMA>(p, r, 1.666_666_7e-1);
    p = fma::<FMA>(p, r, 0.5);
    p = fma::<FMA>(p * r, r, r) + 1.0;
    let y = p * f32::from_bits(shifted.to_bits() << 23);
    if x < -87.0 { 0.0 } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;

    vectorized! {
        fn exponentials(values: &mut [f32]) {
            for value in values {
                *value = exp::<FMA>(*value);
            }
        }
    }

    #[test]
    fn exp_is_right_to_the_last_places() {
        let x: Vec<f32> = (-870_000..880_000).map(|i| i as f32 * 1e-4).collect();
        let mut y = x.clone();
        exponentials(&mut y);
        let off = |(x, y): (&f32, &f32)| (f64::from(*y) / f64::from(*x).exp() - 1.0).abs();
        let worst = x.iter().zip(&y).map(off).fold(0.0, f64::max);
        assert!(worst < 1.5e-7, "{worst:e}");
        let mut ends = [f32::NEG_INFINITY, -1e30, -88.0, 0.0];
        exponentials(&mut ends);
        assert_eq!(ends, [0.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn reductions_take_every_element() {
        for n in [0, 1, 31, 32, 33, 100] {
            let a: Vec<f32> = (0..n).map(|i| ((i * 37) % 101) as f32).collect();
            assert_eq!(sum2(&a, &a, |a, b| a * b), a.iter().map(|a| a * a).sum::<f32>());
            assert_eq!(largest(&a), a.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
