//! Layer normalisation over the last axis, alone and followed by GELU.

use std::mem::MaybeUninit;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::branch::{by_sample, factor_of};
use super::bridge::{Kernel, Operands, SharedRoom, on_cpu, room, run, tensor, values, written};
use super::gelu;
use super::simd::{WIDE, add_lanes, load, normal, store, sum, sum2, vectorised};

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
    let usable = on_cpu(&x) && on_cpu(&weight) && on_cpu(&bias) && residual.as_ref().is_none_or(on_cpu);
    if !usable || channels == 0 {
        return kernel.reference(x, weight, bias, residual);
    }
    let mut operands = vec![x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()];
    operands.extend(residual.map(Tensor::into_dispatch));
    run(kernel, Operands::of(operands))
}

/// The composition of tensor operations that [`layer_norm`] stands for.
pub(crate) fn reference<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> {
    let centred = x.clone() - x.mean_dim(D - 1);
    let variance = centred.clone().powi_scalar(2).mean_dim(D - 1);
    centred / (variance + eps).sqrt() * weight.unsqueeze() + bias.unsqueeze()
}

/// Rows a task works on; fixed, so that sums over rows always add up in the same order.
const ROWS: usize = 32;

/// As many tasks as are worth waking a thread for.
fn tasks_at_once(channels: usize) -> usize {
    (1usize << 15).div_ceil(ROWS * channels)
}

#[derive(Debug)]
struct LayerNorm {
    eps: f32,
    gelu: bool,
    factors: Option<Vec<f32>>,
}

impl LayerNorm {
    fn reference<const D: usize>(
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
        let factor = factor_of(self.factors.as_deref(), x.len() / c);
        let mut y = room(x.len());
        let mut moments = vec![0.0; x.len() / c * 2];
        let tasks = y.par_chunks_mut(ROWS * c).zip(x.par_chunks(ROWS * c)).zip(moments.par_chunks_mut(ROWS * 2));
        tasks.enumerate().with_min_len(tasks_at_once(c)).for_each(|(task, ((y, x), moments))| {
            let rows = y.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(moments.chunks_exact_mut(2));
            for (i, ((y, x), moments)) in rows.enumerate() {
                let row = task * ROWS + i;
                let branch = residual.map(|residual| (factor(row), &residual[row * c..][..c]));
                match self.gelu {
                    false => forward::<false>(x, w, b, self.eps, branch, moments, y),
                    true => forward::<true>(x, w, b, self.eps, branch, moments, y),
                }
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
        let branch = wanted.len() > 3;
        let factor = factor_of(self.factors.as_deref(), x.len() / c);
        let mut dx = room(x.len());
        let mut dr = room(if branch && self.gelu { x.len() } else { 0 });
        let dr_out = SharedRoom::new(&mut dr);
        let tasks = dx.par_chunks_mut(ROWS * c).zip(x.par_chunks(ROWS * c)).zip(dy.par_chunks(ROWS * c));
        let partial: Vec<Vec<f32>> = tasks
            .enumerate()
            .with_min_len(tasks_at_once(c))
            .map(|(task, ((dx, x), dy))| {
                let mut sums = vec![0.0; if affine { 2 * c } else { 0 }];
                let mut scratch = vec![0.0; 2 * c];
                let rows = dx.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(dy.chunks_exact(c));
                for (i, ((dx, x), dy)) in rows.enumerate() {
                    let row = task * ROWS + i;
                    let moments = [moments[2 * row], moments[2 * row + 1]];
                    let branch = branch.then(|| {
                        let residual = residual.map_or(&[][..], |residual| &residual[row * c..][..c]);
                        // SAFETY: each task has rows of its own.
                        let dr = if self.gelu { unsafe { dr_out.slice(row * c, c) } } else { &mut [] };
                        Branch { factor: factor(row), residual, gradient: dr }
                    });
                    match self.gelu {
                        false => backward::<false>(x, dy, w, b, moments, branch, dx, &mut sums, &mut scratch),
                        true => backward::<true>(x, dy, w, b, moments, branch, dx, &mut sums, &mut scratch),
                    }
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
        if branch {
            // SAFETY: with GELU every row has been written.
            grads.push(Some(if self.gelu { tensor(unsafe { written(dr) }, grad.shape()) } else { grad }));
        }
        grads
    }
}

vectorised! {
    /// One row; `moments` gets its mean and reciprocal standard deviation. A branch is a factor and a residual.
    fn forward<const GELU: bool>(
        x: &[f32],
        w: &[f32],
        b: &[f32],
        eps: f32,
        branch: Option<(f32, &[f32])>,
        moments: &mut [f32],
        y: &mut [MaybeUninit<f32>],
    ) {
        let c = w.len();
        let (x, b, y) = (&x[..c], &b[..c], &mut y[..c]);
        let (mut sums, mut squares) = ([0.0; WIDE], [0.0; WIDE]);
        for at in (0..c).step_by(WIDE) {
            let x = load(x, at, 0.0);
            for i in 0..WIDE {
                sums[i] += x[i];
            }
        }
        let mean = add_lanes(sums) / c as f32;
        for at in (0..c).step_by(WIDE) {
            let x = load(x, at, mean);
            for i in 0..WIDE {
                squares[i] += (x[i] - mean) * (x[i] - mean);
            }
        }
        let variance = add_lanes(squares) / c as f32;
        let scale = 1.0 / (variance + eps).sqrt();
        for at in (0..c).step_by(WIDE) {
            let (x, w, b) = (load(x, at, 0.0), load(w, at, 0.0), load(b, at, 0.0));
            let mut z = [0.0; WIDE];
            for i in 0..WIDE {
                z[i] = (x[i] - mean) * scale * w[i] + b[i];
            }
            if let Some((factor, residual)) = branch {
                let residual = load(residual, at, 0.0);
                for i in 0..WIDE {
                    z[i] = residual[i] + factor * z[i];
                }
            }
            if GELU {
                for z in &mut z {
                    *z *= normal::<FMA>(*z).1;
                }
            }
            store(y, at, z);
        }
        moments[0] = mean;
        moments[1] = scale;
    }
}

/// A row of a residual branch on the way back.
struct Branch<'a> {
    factor: f32,
    /// Empty without GELU.
    residual: &'a [f32],
    /// Room for the residual's gradient; empty without GELU.
    gradient: &'a mut [MaybeUninit<f32>],
}

vectorised! {
    /// One row; adds its gradients of weight and bias to the two halves of `sums`, unless it is empty.
    fn backward<const GELU: bool>(
        x: &[f32],
        dy: &[f32],
        w: &[f32],
        b: &[f32],
        moments: [f32; 2],
        branch: Option<Branch>,
        dx: &mut [MaybeUninit<f32>],
        sums: &mut [f32],
        scratch: &mut [f32],
    ) {
        let c = w.len();
        let (x, dy, b, dx) = (&x[..c], &dy[..c], &b[..c], &mut dx[..c]);
        let (dw, db) = sums.split_at_mut(sums.len() / 2);
        // The gradient before the affine map, and the normalised row.
        let (dz, unit) = scratch.split_at_mut(c);
        let [mean, scale] = moments;
        for (unit, x) in unit.iter_mut().zip(x) {
            *unit = (x - mean) * scale;
        }
        let slope = |z: f32| {
            let (density, cumulative) = normal::<FMA>(z);
            z * density + cumulative
        };
        match branch {
            None if GELU => {
                for ((((dz, unit), dy), w), b) in dz.iter_mut().zip(&*unit).zip(dy).zip(w).zip(b) {
                    *dz = dy * slope(unit * w + b);
                }
            }
            None => dz.copy_from_slice(dy),
            Some(Branch { factor, residual, gradient }) if GELU => {
                let rows = dz.iter_mut().zip(&*unit).zip(dy).zip(w).zip(b).zip(&residual[..c]).zip(&mut gradient[..c]);
                for ((((((dz, unit), dy), w), b), residual), dr) in rows {
                    let sum = dy * slope(residual + factor * (unit * w + b));
                    dr.write(sum);
                    *dz = factor * sum;
                }
            }
            Some(Branch { factor, .. }) => {
                for (dz, dy) in dz.iter_mut().zip(dy) {
                    *dz = factor * dy;
                }
            }
        }
        for ((dw, dz), unit) in dw.iter_mut().zip(&*dz).zip(&*unit) {
            *dw += dz * unit;
        }
        for (db, dz) in db.iter_mut().zip(&*dz) {
            *db += dz;
        }
        for (dz, w) in dz.iter_mut().zip(w) {
            *dz *= w;
        }
        let mean_dz = sum(dz, |dz| dz) / c as f32;
        let projection = sum2(dz, unit, |dz, unit| dz * unit) / c as f32;
        for ((dx, dz), unit) in dx.iter_mut().zip(&*dz).zip(&*unit) {
            dx.write(scale * (dz - mean_dz - unit * projection));
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
