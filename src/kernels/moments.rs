//! Moments of channels, which the norms of channels-last maps share, and the way there and back once they are known.
//!
//! Everything is per channel and bands of pixels: a channel's moments are those of its bands put together. `RELU` says
//! whether negative results become zero.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::kernels::simd::{fma, vectorized};

/// Pixels whose sums are in f32; fixed, so that sums over pixels always add up in the same order.
const BAND: usize = 64;

/// Values of a task: some bands, as many whatever the number of threads.
pub(super) fn task(channels: usize) -> usize {
    ((1usize << 16) / channels / BAND).max(1) * BAND * channels
}

/// Sums over pixels, per channel: of values, and of squared distances from their mean, or of two products.
struct Sums {
    count: f64,
    first: Vec<f64>,
    second: Vec<f64>,
}

impl Sums {
    fn none(channels: usize) -> Self {
        Self { count: 0.0, first: vec![0.0; channels], second: vec![0.0; channels] }
    }
}

/// The mean of each channel of `[pixels, c]`, and the sum of its squared distances from it.
pub(super) fn channel_moments(x: &[f32], channels: usize) -> [Vec<f64>; 2] {
    let tasks = x.par_chunks(task(channels)).map(|x| {
        let mut total = Sums::none(channels);
        let mut band = vec![0.0; 2 * channels];
        for x in x.chunks(BAND * channels) {
            band_moments(x, channels, &mut band);
            let (means, squares) = band.split_at(channels);
            let count = (x.len() / channels) as f64;
            let moments =
                means.iter().map(|mean| f64::from(*mean)).zip(squares.iter().map(|square| f64::from(*square)));
            put_together(&mut total, count, moments);
        }
        total
    });
    let mut total = Sums::none(channels);
    for part in tasks.collect::<Vec<_>>() {
        put_together(&mut total, part.count, part.first.iter().copied().zip(part.second.iter().copied()));
    }
    [total.first, total.second]
}

/// Adds the mean and the squared distances of other pixels (Chan et al., 1979).
fn put_together(total: &mut Sums, count: f64, moments: impl Iterator<Item = (f64, f64)>) {
    let all = total.count + count;
    let (share, both) = (count / all, total.count * count / all);
    for ((mean, squares), (other, others)) in total.first.iter_mut().zip(&mut total.second).zip(moments) {
        let apart = other - *mean;
        *mean += apart * share;
        *squares += others + apart * apart * both;
    }
    total.count = all;
}

/// How channels are normalised: `(x - mean) scale weight + bias`.
#[derive(Clone, Copy)]
pub(super) struct Affine<'a> {
    pub(super) means: &'a [f32],
    pub(super) scales: &'a [f32],
    pub(super) weight: &'a [f32],
    pub(super) bias: &'a [f32],
    pub(super) relu: bool,
}

impl Affine<'_> {
    fn factors(&self) -> Vec<f32> {
        self.scales.iter().zip(self.weight).map(|(scale, weight)| scale * weight).collect()
    }

    /// Normalises `[pixels, c]`.
    pub(super) fn normalize(&self, x: &[f32], y: &mut [MaybeUninit<f32>]) {
        let (factors, task) = (self.factors(), task(self.means.len()));
        y.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(y, x)| match self.relu {
            true => normalize::<true>(x, self.means, &factors, self.bias, y),
            false => normalize::<false>(x, self.means, &factors, self.bias, y),
        });
    }

    /// Sums over the pixels, channel by channel: of the gradient times the normalised x, and of the gradient.
    pub(super) fn gradient_sums(&self, x: &[f32], dy: &[f32]) -> [Vec<f64>; 2] {
        let c = self.means.len();
        let factors = self.factors();
        let tasks = x.par_chunks(task(c)).zip(dy.par_chunks(task(c))).map(|(x, dy)| {
            let mut total = Sums::none(c);
            let mut band = vec![0.0; 2 * c];
            for (x, dy) in x.chunks(BAND * c).zip(dy.chunks(BAND * c)) {
                band.fill(0.0);
                match self.relu {
                    true => add_gradients::<true>(x, dy, self.means, &factors, self.bias, &mut band),
                    false => add_gradients::<false>(x, dy, self.means, &factors, self.bias, &mut band),
                }
                let (products, sums) = band.split_at(c);
                total.first.iter_mut().zip(products).for_each(|(total, value)| *total += f64::from(*value));
                total.second.iter_mut().zip(sums).for_each(|(total, value)| *total += f64::from(*value));
            }
            total
        });
        let mut total = Sums::none(c);
        for part in tasks.collect::<Vec<_>>() {
            total.first.iter_mut().zip(&part.first).for_each(|(total, value)| *total += value);
            total.second.iter_mut().zip(&part.second).for_each(|(total, value)| *total += value);
        }
        total.first.iter_mut().zip(self.scales).for_each(|(product, scale)| *product *= f64::from(*scale));
        [total.first, total.second]
    }

    /// The gradient of x. Of the gradient times the weight, over what shares a mean: `offsets` is its mean, and
    /// `projections` that of its product with the normalised x.
    pub(super) fn input_gradient(
        &self,
        x: &[f32],
        dy: &[f32],
        [projections, offsets]: [&[f32]; 2],
        dx: &mut [MaybeUninit<f32>],
    ) {
        let (factors, task) = (self.factors(), task(self.means.len()));
        // dx = factor dy - x' scale projection - scale offset, with the normalised x' = (x - mean) scale.
        let slopes: Vec<f32> = self.scales.iter().zip(projections).map(|(scale, p)| -scale * scale * p).collect();
        let shifts: Vec<f32> = self.scales.iter().zip(offsets).map(|(scale, offset)| -scale * offset).collect();
        let lines = Lines { means: self.means, factors: &factors, bias: self.bias, slopes: &slopes, shifts: &shifts };
        let tasks = dx.par_chunks_mut(task).zip(x.par_chunks(task)).zip(dy.par_chunks(task));
        tasks.for_each(|((dx, x), dy)| match self.relu {
            true => input_gradient::<true>(x, dy, &lines, dx),
            false => input_gradient::<false>(x, dy, &lines, dx),
        });
    }
}

vectorized! {
    /// The means of a band's channels, and after them their sums of squared distances.
    fn band_moments(x: &[f32], c: usize, moments: &mut [f32]) {
        moments.fill(0.0);
        let (means, squares) = moments.split_at_mut(c);
        for x in x.chunks_exact(c) {
            for i in 0..c {
                means[i] += x[i];
            }
        }
        let share = c as f32 / x.len() as f32;
        means.iter_mut().for_each(|mean| *mean *= share);
        for x in x.chunks_exact(c) {
            for i in 0..c {
                squares[i] = fma::<FMA>(x[i] - means[i], x[i] - means[i], squares[i]);
            }
        }
    }
}

vectorized! {
    fn normalize<const RELU: bool>(x: &[f32], means: &[f32], factors: &[f32], bias: &[f32], y: &mut [MaybeUninit<f32>]) {
        let c = means.len();
        let (factors, bias) = (&factors[..c], &bias[..c]);
        for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
            for i in 0..c {
                let value = fma::<FMA>(x[i] - means[i], factors[i], bias[i]);
                // Not the larger of both, which may swallow what is not a number.
                y[i].write(if RELU && value < 0.0 { 0.0 } else { value });
            }
        }
    }
}

vectorized! {
    /// Adds a band's sums of the gradient times the centred x, and of the gradient, to the two halves of `sums`.
    fn add_gradients<const RELU: bool>(x: &[f32], dy: &[f32], means: &[f32], factors: &[f32], bias: &[f32], sums: &mut [f32]) {
        let c = means.len();
        let (factors, bias) = (&factors[..c], &bias[..c]);
        let (products, sums) = sums.split_at_mut(c);
        let sums = &mut sums[..c];
        for (x, dy) in x.chunks_exact(c).zip(dy.chunks_exact(c)) {
            for i in 0..c {
                let centered = x[i] - means[i];
                let passes = !RELU || fma::<FMA>(centered, factors[i], bias[i]) > 0.0;
                let dy = if passes { dy[i] } else { 0.0 };
                products[i] = fma::<FMA>(dy, centered, products[i]);
                sums[i] += dy;
            }
        }
    }
}

/// What the gradient of x is made of, for every channel.
struct Lines<'a> {
    means: &'a [f32],
    factors: &'a [f32],
    bias: &'a [f32],
    slopes: &'a [f32],
    shifts: &'a [f32],
}

vectorized! {
    fn input_gradient<const RELU: bool>(x: &[f32], dy: &[f32], lines: &Lines, dx: &mut [MaybeUninit<f32>]) {
        let c = lines.means.len();
        let (means, factors, bias) = (lines.means, &lines.factors[..c], &lines.bias[..c]);
        let (slopes, shifts) = (&lines.slopes[..c], &lines.shifts[..c]);
        for ((x, dy), dx) in x.chunks_exact(c).zip(dy.chunks_exact(c)).zip(dx.chunks_exact_mut(c)) {
            for i in 0..c {
                let centered = x[i] - means[i];
                let passes = !RELU || fma::<FMA>(centered, factors[i], bias[i]) > 0.0;
                let dy = if passes { dy[i] } else { 0.0 };
                dx[i].write(fma::<FMA>(dy, factors[i], fma::<FMA>(centered, slopes[i], shifts[i])));
            }
        }
    }
}
