//! Rows of numbers as vectors of the machine's width, by `pulp`: for loops that the compiler does not vectorise well by
//! itself, such as sums over rows whose length is no multiple of anything.

use std::mem::MaybeUninit;

use pulp::{Simd, WithSimd};

/// Runs a loop with the best instructions of this machine.
#[inline]
pub(super) fn vectors<Op: WithSimd>(op: Op) -> Op::Output {
    pulp::Arch::new().dispatch(op)
}

/// Where the vectors that cover a row of `len` begin.
#[inline(always)]
pub(super) fn starts<S: Simd>(_: S, len: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by(S::F32_LANES)
}

/// The elements from `at` on; zeros past the end.
#[inline(always)]
pub(super) fn load<S: Simd>(simd: S, row: &[f32], at: usize) -> S::f32s {
    match row.get(at..at + S::F32_LANES) {
        // SAFETY: the slice holds a vector, which is plain numbers and needs no alignment to be read so.
        Some(all) => unsafe { all.as_ptr().cast::<S::f32s>().read_unaligned() },
        None => simd.partial_load_f32s(&row[at..]),
    }
}

/// Writes elements from `at` on, as far as the row goes.
#[inline(always)]
pub(super) fn store<S: Simd>(simd: S, row: &mut [MaybeUninit<f32>], at: usize, values: S::f32s) {
    let room = row.len() - at;
    let place = row[at..].as_mut_ptr();
    // SAFETY: what is written lies within the row.
    unsafe {
        if room >= S::F32_LANES {
            place.cast::<S::f32s>().write_unaligned(values);
        } else {
            simd.mask_store_ptr_f32s(simd.mask_between_m32s(0, room as u32), place.cast(), values);
        }
    }
}

/// Replaces the elements from `at` on, as far as the row goes.
#[inline(always)]
pub(super) fn put<S: Simd>(simd: S, row: &mut [f32], at: usize, values: S::f32s) {
    match row.get_mut(at..at + S::F32_LANES) {
        // SAFETY: the slice holds a vector.
        Some(all) => unsafe { all.as_mut_ptr().cast::<S::f32s>().write_unaligned(values) },
        None => simd.partial_store_f32s(&mut row[at..], values),
    }
}

/// Adds to the elements from `at` on, as far as the row goes.
#[inline(always)]
pub(super) fn accumulate<S: Simd>(simd: S, row: &mut [f32], at: usize, values: S::f32s) {
    put(simd, row, at, simd.add_f32s(load(simd, row, at), values));
}

/// The elements from `at` on of a row of `len`; zeros in place of what lies past the end.
#[inline(always)]
pub(super) fn within<S: Simd>(simd: S, len: usize, at: usize, values: S::f32s) -> S::f32s {
    if at + S::F32_LANES <= len {
        return values;
    }
    let mask = simd.mask_between_m32s(0, (len - at) as u32).mask();
    simd.select_f32s(mask, values, simd.splat_f32s(0.0))
}

/// exp(x), see [`super::simd::exp`].
#[inline(always)]
pub(super) fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    const ROUND: f32 = 12_582_912.0 + 127.0;
    let constant = |value| simd.splat_f32s(value);
    let clamped = simd.min_f32s(simd.max_f32s(x, constant(-87.0)), constant(88.0));
    let shifted = simd.mul_add_f32s(clamped, constant(std::f32::consts::LOG2_E), constant(ROUND));
    let n = simd.sub_f32s(shifted, constant(ROUND));
    let r = simd.mul_add_f32s(n, constant(-0.693_359_4), clamped);
    let r = simd.mul_add_f32s(n, constant(2.121_944_4e-4), r);
    let mut p = constant(1.984_127e-4);
    p = simd.mul_add_f32s(p, r, constant(1.388_888_9e-3));
    p = simd.mul_add_f32s(p, r, constant(8.333_334e-3));
    p = simd.mul_add_f32s(p, r, constant(4.166_666_8e-2));
    p = simd.mul_add_f32s(p, r, constant(1.666_666_7e-1));
    p = simd.mul_add_f32s(p, r, constant(0.5));
    p = simd.add_f32s(simd.mul_add_f32s(simd.mul_f32s(p, r), r, r), constant(1.0));
    let power = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    let y = simd.mul_f32s(p, simd.transmute_f32s_u32s(power));
    simd.select_f32s(simd.less_than_f32s(x, constant(-87.0)), constant(0.0), y)
}

/// The density and the distribution function of the standard normal, see [`super::simd::normal`].
#[inline(always)]
pub(super) fn normal<S: Simd>(simd: S, x: S::f32s) -> (S::f32s, S::f32s) {
    use super::simd::{FRAC_1_SQRT_TAU, TAIL, TAIL_SCALE};
    let constant = |value| simd.splat_f32s(value);
    let e = exp(simd, simd.mul_f32s(simd.mul_f32s(constant(-0.5), x), x));
    let one = constant(1.0);
    let t = simd.div_f32s(one, simd.mul_add_f32s(simd.abs_f32s(x), constant(TAIL_SCALE), one));
    let mut p = constant(TAIL[8]);
    let mut i = 8;
    while i > 0 {
        i -= 1;
        p = simd.mul_add_f32s(p, t, constant(TAIL[i]));
    }
    let tail = simd.mul_f32s(simd.mul_f32s(e, p), t);
    let cumulative = simd.select_f32s(simd.less_than_f32s(x, constant(0.0)), tail, simd.sub_f32s(one, tail));
    (simd.mul_f32s(e, constant(FRAC_1_SQRT_TAU)), cumulative)
}
