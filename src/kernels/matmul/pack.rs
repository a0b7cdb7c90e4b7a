//! Operands of a product laid out as the tiles read them: in *lanes* of 32 bits, each one f32 or two bf16 that are
//! neighbours along the inner dimension.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{Level, has_bf16, level};

/// A cache line of lanes.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line([u32; Line::LANES]);

impl Line {
    pub(super) const LANES: usize = 16;
    pub(super) const ZERO: Self = Self([0; Self::LANES]);

    pub(super) fn lanes(lines: &[Self]) -> &[u32] {
        // SAFETY: a line is an array of lanes.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * Self::LANES) }
    }

    pub(super) fn lanes_mut(lines: &mut [Self]) -> &mut [u32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * Self::LANES) }
    }
}

/// How values become lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A lane is one f32.
    Single,
    /// A lane is one f32, rounded to bf16.
    Rounded,
    /// A lane is two neighbours of a vector, as bf16.
    PairsAlong,
    /// A lane is the same element of two successive vectors, as bf16.
    PairsAcross,
    /// Sixteen lanes as of [`Form::PairsAlong`], then sixteen with what rounding has taken from these, and so on.
    SplitAlong,
    /// The same of [`Form::PairsAcross`].
    SplitAcross,
}

/// Lanes that 32 split values take: their pairs, and what is left of these.
pub(super) const SPLIT_LANES: usize = 32;

/// Which pair the i-th split lane belongs to, and whether it holds what is left of it.
fn split(i: usize) -> (usize, bool) {
    (i / SPLIT_LANES * 16 + i % 16, i % SPLIT_LANES >= 16)
}

/// Vectors that are fetched ahead: they may lie too far apart for the processor to foresee.
const AHEAD: usize = 8;

/// `count` vectors of `length` contiguous values, the starts of which lie `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Lanes<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
    pub(super) count: usize,
    pub(super) length: usize,
    pub(super) form: Form,
}

impl Lanes<'_> {
    /// Vectors and lanes of each.
    fn extent(&self) -> (usize, usize) {
        match self.form {
            Form::Single | Form::Rounded => (self.count, self.length),
            Form::PairsAlong => (self.count, self.length.div_ceil(2)),
            Form::PairsAcross => (self.count.div_ceil(2), self.length),
            Form::SplitAlong => (self.count, self.length.next_multiple_of(SPLIT_LANES)),
            Form::SplitAcross => (self.count.next_multiple_of(SPLIT_LANES), self.length),
        }
    }

    /// Writes the vectors as the rows (`transposed`: as the columns) of `place`, a matrix of `[rows, columns]`; the
    /// rest of its rows and, as far as the next multiple of 16 lanes, of its columns becomes zero.
    pub(super) fn pack(&self, place: &mut [u32], [rows, columns]: [usize; 2], transposed: bool) {
        let (vectors, length) = self.extent();
        let (high, wide) = if transposed { (length, vectors) } else { (vectors, length) };
        assert!(high <= rows && wide <= columns && rows * columns <= place.len(), "packed operand has no room");
        assert!(
            self.count == 0 || self.length == 0 || (self.count - 1) * self.stride + self.length <= self.values.len(),
            "vectors exceed their slice"
        );
        #[cfg(target_arch = "x86_64")]
        if columns.is_multiple_of(16) && can_pack(self.form) {
            // SAFETY: the features were detected, and the assertions hold.
            unsafe { self.pack_avx512(place, [rows, columns], transposed) };
            return;
        }
        self.pack_portable(place, [rows, columns], transposed);
    }

    /// Writes the vectors as matrices of `[count, WIDTH]`, one after the other, each with the next lanes of them. Thus
    /// a vector is read once, where matrix by matrix its lines of cache would be read several times.
    pub(super) fn pack_side_by_side<const WIDTH: usize>(&self, place: &mut [u32]) {
        let size = self.count * WIDTH;
        assert!(
            self.form == Form::Single && self.length.div_ceil(WIDTH) * size <= place.len(),
            "packed operand has no room"
        );
        for vector in 0..self.count {
            self.prefetch(vector + AHEAD);
            let (whole, rest) = self.values[vector * self.stride..][..self.length].as_chunks::<WIDTH>();
            let mut places = place[vector * WIDTH..].chunks_mut(size);
            for (lanes, place) in whole.iter().zip(&mut places) {
                place[..WIDTH].copy_from_slice(&lanes.map(f32::to_bits));
            }
            if let Some(place) = places.next().filter(|_| !rest.is_empty()) {
                let mut lanes = [0; WIDTH];
                lanes.iter_mut().zip(rest).for_each(|(lane, value)| *lane = value.to_bits());
                place[..WIDTH].copy_from_slice(&lanes);
            }
        }
    }

    /// Asks for a vector to be brought near, if there is one.
    fn prefetch(&self, vector: usize) {
        #[cfg(target_arch = "x86_64")]
        if vector < self.count {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let start = self.values.as_ptr().wrapping_add(vector * self.stride);
            for line in (0..self.length).step_by(Line::LANES) {
                // SAFETY: a prefetch of any address has no effect but on speed.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(line).cast()) };
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = vector;
    }

    fn pack_portable(&self, place: &mut [u32], [rows, columns]: [usize; 2], transposed: bool) {
        let (vectors, length) = self.extent();
        let (high, wide) = if transposed { (length, vectors) } else { (vectors, length) };
        let whole = wide.next_multiple_of(16).min(columns);
        for (row, place) in place.chunks_exact_mut(columns).take(rows).enumerate() {
            if row >= high {
                place[..whole].fill(0);
            } else {
                place[wide..whole].fill(0);
            }
        }
        // What can be moved eight vectors at a time.
        let moved = if transposed { self.pack_eights(place, columns) } else { 0 };
        for vector in moved..vectors {
            if self.form == Form::Single && !transposed {
                let values = &self.values[vector * self.stride..][..length];
                let places = &mut place[vector * columns..][..length];
                places.iter_mut().zip(values).for_each(|(place, value)| *place = value.to_bits());
            } else if transposed {
                for (i, place) in place[vector..].iter_mut().step_by(columns).take(length).enumerate() {
                    *place = self.lane(vector, i);
                }
            } else {
                for (i, place) in place[vector * columns..][..length].iter_mut().enumerate() {
                    *place = self.lane(vector, i);
                }
            }
        }
    }

    /// Writes the first vectors, as many as come in eights, as columns; gives their number.
    fn pack_eights(&self, place: &mut [u32], columns: usize) -> usize {
        #[cfg(target_arch = "x86_64")]
        if self.form == Form::Single && level() != Level::Baseline {
            let eights = self.count / 8 * 8;
            for vector in (0..eights).step_by(8) {
                let values = &self.values[vector * self.stride..][..7 * self.stride + self.length];
                let whole = self.length / 8 * 8;
                for i in (0..whole).step_by(8) {
                    let rows = &values[i..][..7 * self.stride + 8];
                    let place = &mut place[i * columns + vector..][..7 * columns + 8];
                    // SAFETY: both slices hold their matrix, and the features were detected.
                    unsafe {
                        avx2::transpose(rows.as_ptr(), self.stride, place.as_mut_ptr(), columns);
                    }
                }
                for (i, j) in (whole..self.length).flat_map(|i| (0..8).map(move |j| (i, j))) {
                    place[i * columns + vector + j] = self.lane(vector + j, i);
                }
            }
            return eights;
        }
        let _ = (place, columns);
        0
    }

    #[inline(always)]
    fn lane(&self, vector: usize, i: usize) -> u32 {
        let ((vector, i), rest) = match self.form {
            Form::SplitAlong => ((vector, split(i).0), split(i).1),
            Form::SplitAcross => ((split(vector).0, i), split(vector).1),
            _ => ((vector, i), false),
        };
        let at = |vector: usize, i: usize| {
            let there = vector < self.count && i < self.length;
            let value = if there { self.values[vector * self.stride + i] } else { 0.0 };
            if rest { left(value) } else { value }
        };
        let pair = |low: f32, high: f32| u32::from(bf16(low)) | u32::from(bf16(high)) << 16;
        match self.form {
            Form::Single => at(vector, i).to_bits(),
            Form::Rounded => u32::from(bf16(at(vector, i))) << 16,
            Form::PairsAlong | Form::SplitAlong => pair(at(vector, 2 * i), at(vector, 2 * i + 1)),
            Form::PairsAcross | Form::SplitAcross => pair(at(2 * vector, i), at(2 * vector + 1, i)),
        }
    }
}

/// Whether operands of a form can be packed by AVX-512.
#[cfg(target_arch = "x86_64")]
fn can_pack(form: Form) -> bool {
    level() == Level::Avx512
        && match form {
            Form::Single | Form::Rounded => true,
            Form::PairsAlong | Form::PairsAcross | Form::SplitAlong | Form::SplitAcross => has_bf16(),
        }
}

/// The nearest bf16, ties to even; a NaN stays one.
fn bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() { (bits >> 16) as u16 | 0x40 } else { ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16 }
}

/// What is left of a value when it is rounded to bf16, exactly; nothing if that is infinite.
fn left(value: f32) -> f32 {
    let nearest = f32::from_bits(u32::from(bf16(value)) << 16);
    if nearest.is_finite() { value - nearest } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_agrees_with_the_portable_one() {
        let values: Vec<f32> = (0..4000).map(|i| ((i * 7919) % 4001) as f32 / 37.0 - 50.0).collect();
        let pairs = [Form::PairsAlong, Form::PairsAcross, Form::SplitAlong, Form::SplitAcross];
        for form in [Form::Single, Form::Rounded].into_iter().chain(pairs) {
            for (count, length) in [(1, 1), (16, 16), (17, 35), (31, 64), (5, 90), (32, 33)] {
                for transposed in [false, true] {
                    let lanes = Lanes { values: &values, stride: 101, count, length, form };
                    let mut results = [vec![7; 96 * 96], vec![7; 96 * 96]];
                    lanes.pack_portable(&mut results[0], [96, 96], transposed);
                    lanes.pack(&mut results[1], [96, 96], transposed);
                    let (vectors, length) = lanes.extent();
                    let wide = if transposed { vectors } else { length }.next_multiple_of(16);
                    for row in 0..96 {
                        let [a, b] = results.each_ref().map(|values| &values[row * 96..][..wide]);
                        assert_eq!(a, b, "{form:?} {count} {length} {transposed}, row {row}");
                    }
                }
            }
        }
    }

    #[test]
    fn matrices_side_by_side_are_those_packed_one_by_one() {
        let values: Vec<f32> = (0..4000).map(|i| i as f32).collect();
        for (count, length) in [(1, 1), (9, 6), (30, 17), (12, 48)] {
            let lanes = Lanes { values: &values, stride: 101, count, length, form: Form::Single };
            let mut together = vec![7; 8 * count * 6];
            lanes.pack_side_by_side::<6>(&mut together);
            for (first, place) in (0..length).step_by(6).zip(together.chunks_exact(count * 6)) {
                let one = Lanes { values: &values[first..], length: 6.min(length - first), ..lanes };
                let mut alone = vec![7; count * 6];
                one.pack(&mut alone, [count, 6], false);
                assert_eq!(place, alone, "{count} {length} {first}");
            }
        }
    }

    /// Where the machine has AVX-512, what it would do without is tested here.
    #[test]
    fn portable_packing_is_lane_by_lane() {
        let values: Vec<f32> = (0..4000).map(|i| i as f32).collect();
        for (count, length) in [(1, 1), (8, 8), (17, 35), (16, 64), (5, 90), (33, 7)] {
            let lanes = Lanes { values: &values, stride: 101, count, length, form: Form::Single };
            for transposed in [false, true] {
                let mut place = vec![7; 96 * 96];
                lanes.pack_portable(&mut place, [96, 96], transposed);
                for (vector, i) in (0..count).flat_map(|vector| (0..length).map(move |i| (vector, i))) {
                    let at = if transposed { i * 96 + vector } else { vector * 96 + i };
                    assert_eq!(place[at], values[vector * 101 + i].to_bits(), "{count} {length} {transposed}");
                }
                let (high, wide) = if transposed { (length, count) } else { (count, length) };
                assert!(place[high * 96..].chunks(96).all(|row| row[..wide].iter().all(|lane| *lane == 0)));
            }
        }
    }

    /// The two parts of a split operand lie side by side and add up to it.
    #[test]
    fn split_values_lose_little() {
        let mut values: Vec<f32> = (0..70 * 70).map(|i| (i as f32 * 0.37).sin() * 1e3).collect();
        values[0] = f32::INFINITY;
        values[1] = f32::MAX;
        for (form, across) in [(Form::SplitAlong, false), (Form::SplitAcross, true)] {
            let lanes = Lanes { values: &values, stride: 70, count: 40, length: 50, form };
            let mut place = vec![7; 96 * 96];
            lanes.pack(&mut place, [96, 96], false);
            for (vector, i) in (0..40).flat_map(|vector| (0..50).map(move |i| (vector, i))) {
                let (inner, other) = if across { (vector, i) } else { (i, vector) };
                let lane = inner / 32 * 32 + inner % 32 / 2;
                let part = |lane: usize| {
                    let lane = if across { place[lane * 96 + other] } else { place[other * 96 + lane] };
                    f32::from_bits(if inner % 2 == 0 { lane << 16 } else { lane & 0xffff_0000 })
                };
                let (value, sum) = (values[vector * 70 + i], part(lane) + part(lane + 16));
                let near = (sum - value).abs() <= value.abs() / 65536.0;
                assert!(near || vector == 0 && i < 2 && sum == f32::INFINITY, "{form:?} {vector} {i}: {value} {sum}");
            }
        }
    }

    #[test]
    fn bf16_rounds_to_the_nearest() {
        for (value, expected) in [(1.0, 0x3f80), (1.003_906_3, 0x3f80), (1.011_718_8, 0x3f82), (-0.0, 0x8000)] {
            assert_eq!(bf16(value), expected, "{value}");
        }
        assert_eq!((bf16(f32::INFINITY), bf16(f32::MAX)), (0x7f80, 0x7f80));
        assert_eq!(bf16(f32::NAN) & 0x7fc0, 0x7fc0);
    }
}
