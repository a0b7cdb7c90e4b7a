//! Layer normalisation over the last axis, alone and followed by GELU.

use std::mem::MaybeUninit;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::bridge::{Kernel, Operands, on_cpu, room, run, tensor, values, written};
use super::gelu;
use super::simd::{normal, sum, sum2, vectorised};

/// Layer normalisation (Ba et al., 2016) over the last axis: (x - mean) / sqrt(variance + eps) * weight + bias,
/// with the biased variance. `weight` and `bias` have the length of the last axis.
pub fn layer_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> {
    apply(x, weight, bias, LayerNorm { eps: eps as f32, gelu: false })
}

/// GELU of [`layer_norm`], in one pass and without keeping the values in between.
pub fn layer_norm_gelu<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> {
    apply(x, weight, bias, LayerNorm { eps: eps as f32, gelu: true })
}

fn apply<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, kernel: LayerNorm) -> Tensor<D> {
    let [channels] = weight.dims();
    assert_eq!((x.dims()[D - 1], bias.dims()), (channels, [channels]), "layer_norm: x, weight, bias differ in length");
    if on_cpu(&x) && on_cpu(&weight) && on_cpu(&bias) && channels > 0 {
        run(kernel, Operands::Three(x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()))
    } else {
        let y = reference(x, weight, bias, f64::from(kernel.eps));
        if kernel.gelu { gelu::reference(y) } else { y }
    }
}

/// The composition of tensor operations that [`layer_norm`] stands for.
pub(crate) fn reference<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> {
    let centred = x.clone() - x.mean_dim(D - 1);
    let variance = centred.clone().powi_scalar(2).mean_dim(D - 1);
    centred / (variance + eps).sqrt() * weight.unsqueeze() + bias.unsqueeze()
}

/// Rows a task works on; fixed, so that sums over rows always add up in the same order.
const ROWS: usize = 32;

#[derive(Debug)]
struct LayerNorm {
    eps: f32,
    gelu: bool,
}

impl Kernel for LayerNorm {
    fn forward(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let (x, w, b) = (values(&inputs[0]), values(&inputs[1]), values(&inputs[2]));
        let c = w.len();
        let mut y = room(x.len());
        let mut moments = vec![0.0; x.len() / c * 2];
        let tasks = y.par_chunks_mut(ROWS * c).zip(x.par_chunks(ROWS * c)).zip(moments.par_chunks_mut(ROWS * 2));
        tasks.for_each(|((y, x), moments)| match self.gelu {
            false => forward::<false>(x, w, b, self.eps, moments, y),
            true => forward::<true>(x, w, b, self.eps, moments, y),
        });
        // SAFETY: the chunks cover the output, and `forward` writes all of its chunk.
        let y = tensor(unsafe { written(y) }, inputs[0].shape());
        if !keep {
            return (y, Vec::new());
        }
        let moments = tensor(moments, [x.len() / c, 2]);
        (y, inputs.into_iter().chain([moments]).collect())
    }

    fn backward(&self, saved: Vec<FlexTensor>, grad: FlexTensor, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let [x, w, b, moments] = [0, 1, 2, 3].map(|i| values(&saved[i]));
        let dy = values(&grad);
        let c = w.len();
        let affine = wanted[1] || wanted[2];
        let mut dx = room(x.len());
        let tasks = dx.par_chunks_mut(ROWS * c).zip(x.par_chunks(ROWS * c)).zip(dy.par_chunks(ROWS * c));
        let tasks = tasks.zip(moments.par_chunks(ROWS * 2));
        let partial: Vec<Vec<f32>> = tasks
            .map(|(((dx, x), dy), moments)| {
                let mut sums = vec![0.0; if affine { 2 * c } else { 0 }];
                match self.gelu {
                    false => backward::<false>(x, dy, w, b, moments, dx, &mut sums),
                    true => backward::<true>(x, dy, w, b, moments, dx, &mut sums),
                }
                sums
            })
            .collect();
        // SAFETY: the chunks cover `dx`, and `backward` writes all of its chunk.
        let dx = tensor(unsafe { written(dx) }, grad.shape());
        if !affine {
            return vec![Some(dx), None, None];
        }
        let mut dw = vec![0.0; c];
        let mut db = vec![0.0; c];
        for sums in &partial {
            dw.iter_mut().zip(&sums[..c]).for_each(|(total, part)| *total += part);
            db.iter_mut().zip(&sums[c..]).for_each(|(total, part)| *total += part);
        }
        vec![Some(dx), Some(tensor(dw, [c])), Some(tensor(db, [c]))]
    }
}

vectorised! {
    /// Some rows; `moments` gets each row's mean and reciprocal standard deviation.
    fn forward<const GELU: bool>(
        x: &[f32],
        w: &[f32],
        b: &[f32],
        eps: f32,
        moments: &mut [f32],
        y: &mut [MaybeUninit<f32>],
    ) {
        let c = w.len();
        let rows = x.chunks_exact(c).zip(y.chunks_exact_mut(c)).zip(moments.chunks_exact_mut(2));
        for ((x, y), moments) in rows {
            let mean = sum(x, |x| x) / c as f32;
            let variance = sum(x, |x| (x - mean) * (x - mean)) / c as f32;
            let scale = 1.0 / (variance + eps).sqrt();
            for (((y, x), w), b) in y.iter_mut().zip(x).zip(w).zip(b) {
                let z = (x - mean) * scale * w + b;
                y.write(if GELU { z * normal::<FMA>(z).1 } else { z });
            }
            moments[0] = mean;
            moments[1] = scale;
        }
    }
}

vectorised! {
    /// Some rows; adds their gradients of weight and bias to the two halves of `sums`, unless it is empty.
    fn backward<const GELU: bool>(
        x: &[f32],
        dy: &[f32],
        w: &[f32],
        b: &[f32],
        moments: &[f32],
        dx: &mut [MaybeUninit<f32>],
        sums: &mut [f32],
    ) {
        let c = w.len();
        let (dw, db) = sums.split_at_mut(sums.len() / 2);
        // The gradient before the affine map, and the normalised row.
        let mut dz = vec![0.0; c];
        let mut unit = vec![0.0; c];
        let rows = x.chunks_exact(c).zip(dy.chunks_exact(c)).zip(dx.chunks_exact_mut(c)).zip(moments.chunks_exact(2));
        for (((x, dy), dx), moments) in rows {
            let (mean, scale) = (moments[0], moments[1]);
            for (unit, x) in unit.iter_mut().zip(x) {
                *unit = (x - mean) * scale;
            }
            if GELU {
                for ((((dz, unit), dy), w), b) in dz.iter_mut().zip(&unit).zip(dy).zip(w).zip(b) {
                    let z = unit * w + b;
                    let (density, cumulative) = normal::<FMA>(z);
                    *dz = dy * (z * density + cumulative);
                }
            } else {
                dz.copy_from_slice(dy);
            }
            for ((dw, dz), unit) in dw.iter_mut().zip(&dz).zip(&unit) {
                *dw += dz * unit;
            }
            for (db, dz) in db.iter_mut().zip(&dz) {
                *db += dz;
            }
            for (dz, w) in dz.iter_mut().zip(w) {
                *dz *= w;
            }
            let mean_dz = sum(&dz, |dz| dz) / c as f32;
            let slope = sum2(&dz, &unit, |dz, unit| dz * unit) / c as f32;
            for ((dx, dz), unit) in dx.iter_mut().zip(&dz).zip(&unit) {
                dx.write(scale * (dz - mean_dz - unit * slope));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, random, speed, strided, tracked};

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
    fn a_large_mean_does_not_hurt() {
        let x = random([4, 384], 1);
        let (w, b) = (random([384], 2), random([384], 3));
        let plain = layer_norm(x.clone(), w.clone(), b.clone(), 1e-6);
        assert_close(layer_norm(x + 100.0, w, b, 1e-6), plain, 3e-5);
    }

    #[test]
    #[ignore = "prints timings"]
    fn timing() {
        for c in [384, 1536] {
            let (w, b) = (tracked(random([c], 2)), tracked(random([c], 3)));
            let (x, w, b) = (random([1, 1025, c], 1), &w, &b);
            let plain = |[x]: [Tensor<3>; 1]| reference(x, w.clone(), b.clone(), 1e-6);
            speed(&format!("layer_norm {c}"), [x.clone()], |[x]| layer_norm(x, w.clone(), b.clone(), 1e-6), plain);
            let fused = |[x]: [Tensor<3>; 1]| layer_norm_gelu(x, w.clone(), b.clone(), 1e-6);
            speed(&format!("layer_norm_gelu {c}"), [x], fused, |[x]| gelu::reference(plain([x])));
        }
    }
}
