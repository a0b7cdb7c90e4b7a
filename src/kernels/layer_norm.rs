//! Layer normalisation over the last axis, alone and followed by GELU.

use std::mem::MaybeUninit;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::bridge::{
    Kernel, Operands, SharedBuffer, on_cpu, on_gpu, run, tensor, uninitialized, values, written,
};
use crate::kernels::drop_path_scale::{by_sample, scale_of};
#[cfg(feature = "gpu")]
use crate::kernels::gpu;
use crate::kernels::vector::{accumulate, load, normal, put, starts, store, vectors, within};
use crate::kernels::{gelu, vector};

/// Layer normalisation (Ba et al., 2016) over the last axis: (x - mean) / sqrt(variance + eps) * weight + bias,
/// with the biased variance. `weight` and `bias` have the length of the last axis.
pub fn layer_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> {
    apply(x, weight, bias, LayerNorm { eps: eps as f32, gelu: false, factors: None }, None)
}

/// GELU of [`layer_norm`], in one pass and without keeping the values in between.
pub fn layer_norm_gelu<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> {
    apply(x, weight, bias, LayerNorm { eps: eps as f32, gelu: true, factors: None }, None)
}

/// The end of a residual branch: `residual + factors · layer_norm(x)`, and with `gelu` GELU of the sum, in one pass.
///
/// `factors` holds a number for each sample (the first axis), which is how paths are dropped.
pub fn layer_norm_add<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
    factors: Option<Vec<f32>>,
    residual: Tensor<D>,
    gelu: bool,
) -> Tensor<D> {
    assert_eq!(x.dims(), residual.dims(), "layer_norm_add: x and residual differ in shape");
    let samples = x.dims()[0];
    assert!(factors.as_ref().is_none_or(|factors| factors.len() == samples), "layer_norm_add: one factor a sample");
    apply(x, weight, bias, LayerNorm { eps: eps as f32, gelu, factors }, Some(residual))
}

fn apply<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    kernel: LayerNorm,
    residual: Option<Tensor<D>>,
) -> Tensor<D> {
    let [channels] = weight.dims();
    assert_eq!((x.dims()[D - 1], bias.dims()), (channels, [channels]), "layer_norm: x, weight, bias differ in length");
    let cpu = on_cpu(&x) && on_cpu(&weight) && on_cpu(&bias) && residual.as_ref().is_none_or(on_cpu);
    let gpu = on_gpu(&x) && on_gpu(&weight) && on_gpu(&bias) && residual.as_ref().is_none_or(on_gpu);
    if !(cpu || gpu) || x.shape().num_elements() == 0 {
        return kernel.reference(x, weight, bias, residual);
    }
    let mut operands = vec![x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()];
    operands.extend(residual.map(Tensor::into_dispatch));
    #[cfg(feature = "gpu")]
    if gpu {
        return gpu::run(kernel, Operands::of(operands));
    }
    run(kernel, Operands::of(operands))
}

/// The composition of tensor operations that [`layer_norm`] stands for.
pub(crate) fn reference<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> {
    let centered = x.clone() - x.mean_dim(D - 1);
    let variance = centered.clone().powi_scalar(2).mean_dim(D - 1);
    centered / (variance + eps).sqrt() * weight.unsqueeze() + bias.unsqueeze()
}

/// Rows a task works on; fixed, so that sums over rows always add up in the same order.
const ROWS: usize = 32;

/// As many tasks as are worth waking a thread for.
fn tasks_at_once(channels: usize) -> usize {
    (1usize << 15).div_ceil(ROWS * channels)
}

#[derive(Debug)]
pub(super) struct LayerNorm {
    pub(super) eps: f32,
    pub(super) gelu: bool,
    pub(super) factors: Option<Vec<f32>>,
}

impl LayerNorm {
    pub(super) fn reference<const D: usize>(
        self,
        x: Tensor<D>,
        weight: Tensor<1>,
        bias: Tensor<1>,
        residual: Option<Tensor<D>>,
    ) -> Tensor<D> {
        let mut y = by_sample(reference(x, weight, bias, f64::from(self.eps)), self.factors);
        if let Some(residual) = residual {
            y = residual + y;
        }
        if self.gelu { gelu::reference(y) } else { y }
    }
}

impl Kernel for LayerNorm {
    fn forward(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let (x, w, b) = (values(&inputs[0]), values(&inputs[1]), values(&inputs[2]));
        let residual = inputs.get(3).map(values);
        let c = w.len();
        let factor = scale_of(self.factors.as_deref(), x.len() / c);
        let mut y = uninitialized(x.len());
        let mut moments = vec![0.0; x.len() / c * 2];
        let tasks = y.par_chunks_mut(ROWS * c).zip(x.par_chunks(ROWS * c)).zip(moments.par_chunks_mut(ROWS * 2));
        tasks.enumerate().with_min_len(tasks_at_once(c)).for_each(|(task, ((y, x), moments))| {
            let rows = y.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(moments.chunks_exact_mut(2));
            for (i, ((y, x), moments)) in rows.enumerate() {
                let row = task * ROWS + i;
                let scaled_residual = residual.map(|residual| (factor(row), &residual[row * c..][..c]));
                vectors(Forward { x, w, b, eps: self.eps, gelu: self.gelu, scaled_residual, moments, y });
            }
        });
        // SAFETY: the chunks cover the output, and `forward` writes all of its row.
        let y = tensor(unsafe { written(y) }, inputs[0].shape());
        if !keep {
            return (y, Vec::new());
        }
        let moments = tensor(moments, [x.len() / c, 2]);
        let mut saved = inputs;
        // Without GELU the residual only hands its gradient on.
        saved.truncate(if self.gelu { 4 } else { 3 });
        saved.insert(3, moments);
        (y, saved)
    }

    fn backward(&self, saved: Vec<FlexTensor>, grad: FlexTensor, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let [x, w, b, moments] = [0, 1, 2, 3].map(|i| values(&saved[i]));
        let residual = saved.get(4).map(values);
        let dy = values(&grad);
        let c = w.len();
        let affine = wanted[1] || wanted[2];
        let has_residual = wanted.len() > 3;
        let factor = scale_of(self.factors.as_deref(), x.len() / c);
        let mut dx = uninitialized(x.len());
        let mut dr = uninitialized(if has_residual && self.gelu { x.len() } else { 0 });
        let dr_out = SharedBuffer::new(&mut dr);
        let tasks = dx.par_chunks_mut(ROWS * c).zip(x.par_chunks(ROWS * c)).zip(dy.par_chunks(ROWS * c));
        let partial: Vec<Vec<f32>> = tasks
            .enumerate()
            .with_min_len(tasks_at_once(c))
            .map(|(task, ((dx, x), dy))| {
                let mut sums = vec![0.0; if affine { 2 * c } else { 0 }];
                let mut scratch = vec![0.0; c];
                let rows = dx.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(dy.chunks_exact(c));
                for (i, ((dx, x), dy)) in rows.enumerate() {
                    let row = task * ROWS + i;
                    let moments = [moments[2 * row], moments[2 * row + 1]];
                    let residual_row = has_residual.then(|| {
                        let residual = residual.map_or(&[][..], |residual| &residual[row * c..][..c]);
                        // SAFETY: each task has rows of its own.
                        let dr = if self.gelu { unsafe { dr_out.slice(row * c, c) } } else { &mut [] };
                        ResidualRow { factor: factor(row), residual, gradient: dr }
                    });
                    let (sums, scratch) = (&mut sums[..], &mut scratch[..]);
                    vectors(Backward { x, dy, w, b, moments, gelu: self.gelu, residual_row, dx, sums, scratch });
                }
                sums
            })
            .collect();
        // SAFETY: the chunks cover `dx`, and `backward` writes all of its row.
        let dx = tensor(unsafe { written(dx) }, grad.shape());
        let mut grads = vec![Some(dx), None, None];
        if affine {
            let mut dw = vec![0.0; c];
            let mut db = vec![0.0; c];
            for sums in &partial {
                dw.iter_mut().zip(&sums[..c]).for_each(|(total, part)| *total += part);
                db.iter_mut().zip(&sums[c..]).for_each(|(total, part)| *total += part);
            }
            (grads[1], grads[2]) = (Some(tensor(dw, [c])), Some(tensor(db, [c])));
        }
        if has_residual {
            // SAFETY: with GELU every row has been written.
            grads.push(Some(if self.gelu { tensor(unsafe { written(dr) }, grad.shape()) } else { grad }));
        }
        grads
    }
}

/// One row; `moments` gets its mean and reciprocal standard deviation. `scaled_residual`: a factor and a residual.
struct Forward<'a> {
    x: &'a [f32],
    w: &'a [f32],
    b: &'a [f32],
    eps: f32,
    gelu: bool,
    scaled_residual: Option<(f32, &'a [f32])>,
    moments: &'a mut [f32],
    y: &'a mut [MaybeUninit<f32>],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, w, b, eps, gelu, scaled_residual, moments, y } = self;
        let c = x.len();
        let (mut sum, mut squares) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
        for at in starts(simd, c) {
            sum = simd.add_f32s(sum, load(simd, x, at));
        }
        let mean = vector::sum(simd, sum) / c as f32;
        let means = simd.splat_f32s(mean);
        for at in starts(simd, c) {
            let centered = within(simd, c, at, simd.sub_f32s(load(simd, x, at), means));
            squares = simd.mul_add_f32s(centered, centered, squares);
        }
        let scale = 1.0 / (vector::sum(simd, squares) / c as f32 + eps).sqrt();
        let scales = simd.splat_f32s(scale);
        for at in starts(simd, c) {
            let unit = simd.mul_f32s(simd.sub_f32s(load(simd, x, at), means), scales);
            let mut z = simd.mul_add_f32s(unit, load(simd, w, at), load(simd, b, at));
            if let Some((factor, residual)) = scaled_residual {
                z = simd.mul_add_f32s(simd.splat_f32s(factor), z, load(simd, residual, at));
            }
            if gelu {
                z = simd.mul_f32s(z, normal(simd, z).1);
            }
            store(simd, y, at, z);
        }
        moments[0] = mean;
        moments[1] = scale;
    }
}

/// A row of a residual branch on the way back.
struct ResidualRow<'a> {
    factor: f32,
    /// Empty without GELU.
    residual: &'a [f32],
    /// Room for the residual's gradient; empty without GELU.
    gradient: &'a mut [MaybeUninit<f32>],
}

/// One row; adds its gradients of weight and bias to the two halves of `sums`, unless it is empty.
struct Backward<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    w: &'a [f32],
    b: &'a [f32],
    moments: [f32; 2],
    gelu: bool,
    residual_row: Option<ResidualRow<'a>>,
    dx: &'a mut [MaybeUninit<f32>],
    sums: &'a mut [f32],
    scratch: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, dy, w, b, moments, gelu, mut residual_row, dx, sums, scratch } = self;
        let c = x.len();
        let (dw, db) = sums.split_at_mut(sums.len() / 2);
        let [mean, scale] = moments.map(|value| simd.splat_f32s(value));
        // Of the gradient before the affine map, times the weight: its sum, and its product with the normalised row.
        let (mut total, mut projection) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
        for at in starts(simd, c) {
            // Past the end, `dz` is 0.
            let (mut dz, w) = (load(simd, dy, at), load(simd, w, at));
            let unit = simd.mul_f32s(simd.sub_f32s(load(simd, x, at), mean), scale);
            if gelu {
                let mut z = simd.mul_add_f32s(unit, w, load(simd, b, at));
                if let Some(row) = &residual_row {
                    z = simd.mul_add_f32s(simd.splat_f32s(row.factor), z, load(simd, row.residual, at));
                }
                let (density, cumulative) = normal(simd, z);
                dz = simd.mul_f32s(dz, simd.mul_add_f32s(z, density, cumulative));
                if let Some(row) = &mut residual_row {
                    store(simd, row.gradient, at, dz);
                }
            }
            if let Some(row) = &residual_row {
                dz = simd.mul_f32s(dz, simd.splat_f32s(row.factor));
            }
            if !dw.is_empty() {
                accumulate(simd, dw, at, simd.mul_f32s(dz, unit));
                accumulate(simd, db, at, dz);
            }
            dz = simd.mul_f32s(dz, w);
            total = simd.add_f32s(total, dz);
            projection = simd.mul_add_f32s(dz, unit, projection);
            put(simd, scratch, at, dz);
        }
        let mean_dz = simd.splat_f32s(vector::sum(simd, total) / c as f32);
        let projection = simd.splat_f32s(vector::sum(simd, projection) / c as f32);
        for at in starts(simd, c) {
            let unit = simd.mul_f32s(simd.sub_f32s(load(simd, x, at), mean), scale);
            let rest = simd.sub_f32s(load(simd, scratch, at), mean_dz);
            store(simd, dx, at, simd.mul_f32s(scale, simd.negate_mul_add_f32s(unit, projection, rest)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, random, strided, tracked};

    #[test]
    fn matches_the_composition() {
        for shape in [[1, 1, 1], [3, 5, 7], [2, 77, 131], [1, 9, 384]] {
            let c = shape[2];
            let (x, dy) = (strided(shape, 1) * 3.0 + 5.0, random(shape, 2));
            let (w, b) = (random([c], 3), random([c], 4));
            for fused in [false, true] {
                let results = [true, false].map(|ours| {
                    let (x, w, b) = (tracked(x.clone()), tracked(w.clone()), tracked(b.clone()));
                    let y = match (ours, fused) {
                        (true, false) => layer_norm(x.clone(), w.clone(), b.clone(), 1e-6),
                        (true, true) => layer_norm_gelu(x.clone(), w.clone(), b.clone(), 1e-6),
                        (false, false) => reference(x.clone(), w.clone(), b.clone(), 1e-6),
                        (false, true) => gelu::reference(reference(x.clone(), w.clone(), b.clone(), 1e-6)),
                    };
                    let grads = (y.clone() * Tensor::from_inner(dy.clone())).sum().backward();
                    let [dw, db] = [w, b].map(|p| p.grad(&grads).unwrap());
                    (y.inner(), x.grad(&grads).unwrap(), dw, db)
                });
                let [(y, dx, dw, db), (ry, rdx, rdw, rdb)] = results;
                assert_close(y, ry, 1e-5);
                assert_close(dx, rdx, 1e-5);
                assert_close(dw, rdw, 1e-5);
                assert_close(db, rdb, 1e-5);
            }
        }
    }

    #[test]
    fn branches_match_the_composition() {
        for (gelu, dropped) in [(false, false), (false, true), (true, false), (true, true)] {
            let shape = [2, 40, 37];
            let dy = random(shape, 2);
            let results = [true, false].map(|ours| {
                let (x, residual) = (tracked(strided(shape, 1) * 3.0), tracked(strided(shape, 5)));
                let (w, b) = (tracked(random([37], 3)), tracked(random([37], 4)));
                let factors = dropped.then(|| vec![0.0, 1.5]);
                let kernel = LayerNorm { eps: 1e-5, gelu, factors: factors.clone() };
                let y = match ours {
                    true => layer_norm_add(x.clone(), w.clone(), b.clone(), 1e-5, factors, residual.clone(), gelu),
                    false => kernel.reference(x.clone(), w.clone(), b.clone(), Some(residual.clone())),
                };
                let grads = (y.clone() * Tensor::from_inner(dy.clone())).sum().backward();
                let all = [y.inner(), x.grad(&grads).unwrap(), residual.grad(&grads).unwrap()];
                (all, [w, b].map(|p| p.grad(&grads).unwrap()))
            });
            let [(ours, our_affine), (theirs, their_affine)] = results;
            ours.into_iter().zip(theirs).for_each(|(ours, theirs)| assert_close(ours, theirs, 1e-5));
            our_affine.into_iter().zip(their_affine).for_each(|(ours, theirs)| assert_close(ours, theirs, 1e-5));
        }
    }

    #[test]
    fn a_large_mean_does_not_hurt() {
        let x = random([4, 384], 1);
        let (w, b) = (random([384], 2), random([384], 3));
        let plain = layer_norm(x.clone(), w.clone(), b.clone(), 1e-6);
        assert_close(layer_norm(x + 100.0, w, b, 1e-6), plain, 3e-5);
    }
}
