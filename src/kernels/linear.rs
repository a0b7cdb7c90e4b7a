//! The affine map over the last axis, alone or with what follows it in a network.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::kernels::bridge::{Kernel, Operands, SharedBuffer, on_cpu, run, tensor, uninitialized, values, written};
use crate::kernels::drop_path_scale::{by_sample, scale_of};
use crate::kernels::gelu;
use crate::kernels::int8;
use crate::kernels::matmul::{Precision, Product, Threads, View, precision};
use crate::kernels::measure;
use crate::kernels::simd::vectorized;

/// x Wᵀ + b over the last axis: `x [.., i]`, `weight [o, i]` (torch's layout), `bias [o]` to `[.., o]`.
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    Affine { x, weight, bias }.then(Epilogue::Nothing, None, None)
}

/// GELU of [`linear`]: the first half of a transformer's MLP.
pub fn linear_gelu<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    Affine { x, weight, bias }.then(Epilogue::Gelu, None, None)
}

/// The end of a residual branch: `residual + factors · scale · linear(x)`.
///
/// `residual` has the shape of the result. `scale [o]` is LayerScale's; `factors` holds a number for each sample (the
/// first axis), which is how paths are dropped.
pub fn linear_add<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    scale: Option<Tensor<1>>,
    factors: Option<Vec<f32>>,
    residual: Tensor<D>,
) -> Tensor<D> {
    let samples = x.dims()[0];
    assert!(factors.as_ref().is_none_or(|factors| factors.len() == samples), "linear_add: one factor a sample");
    Affine { x, weight, bias }.then(Epilogue::Add { factors }, Some(residual), scale)
}

/// The operands of an affine map.
struct Affine<const D: usize> {
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
}

impl<const D: usize> Affine<D> {
    fn then(self, then: Epilogue, residual: Option<Tensor<D>>, scale: Option<Tensor<1>>) -> Tensor<D> {
        let Self { x, weight, bias } = self;
        let [outputs, inputs] = weight.dims();
        let mut shape = x.dims();
        assert_eq!(shape[D - 1], inputs, "linear: x and weight do not fit");
        shape[D - 1] = outputs;
        assert!(residual.as_ref().is_none_or(|residual| residual.dims() == shape), "linear: residual of another shape");
        for vector in [&bias, &scale].into_iter().flatten() {
            assert_eq!(vector.dims(), [outputs], "linear: weight and bias do not fit");
        }
        measure::note(&[shape[..D - 1].iter().product(), inputs, outputs]);
        let vectors_on_cpu = bias.as_ref().is_none_or(on_cpu) && scale.as_ref().is_none_or(on_cpu);
        let usable = on_cpu(&x) && on_cpu(&weight) && residual.as_ref().is_none_or(on_cpu);
        if !usable || !vectors_on_cpu || inputs * outputs == 0 {
            return then.reference(reference(x, weight, bias), residual, scale);
        }
        let kernel = Linear { bias: bias.is_some(), scaled: scale.is_some(), then, precision: precision() };
        let mut operands = vec![x.into_dispatch(), weight.into_dispatch()];
        operands.extend(bias.map(Tensor::into_dispatch));
        operands.extend(residual.map(Tensor::into_dispatch));
        operands.extend(scale.map(Tensor::into_dispatch));
        run(kernel, Operands::of(operands))
    }
}

/// The composition of tensor operations that [`linear`] stands for.
pub(crate) fn reference<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    let mut shape = x.dims();
    let [outputs, inputs] = weight.dims();
    let rows = shape.iter().rev().skip(1).product();
    shape[D - 1] = outputs;
    let y = x.reshape([rows, inputs]).matmul(weight.transpose()); // [rows, o]
    let y = match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    };
    y.reshape(shape)
}

/// What follows the affine map.
#[derive(Clone, Debug)]
enum Epilogue {
    Nothing,
    Gelu,
    /// Adds a residual; the map is multiplied by a factor a sample first.
    Add {
        factors: Option<Vec<f32>>,
    },
}

impl Epilogue {
    /// The composition of tensor operations that follow.
    fn reference<const D: usize>(
        self,
        y: Tensor<D>,
        residual: Option<Tensor<D>>,
        scale: Option<Tensor<1>>,
    ) -> Tensor<D> {
        let y = match scale {
            Some(scale) => y * scale.unsqueeze(),
            None => y,
        };
        let y = match self {
            Self::Nothing => y,
            Self::Gelu => gelu::gelu(y),
            Self::Add { factors } => by_sample(y, factors),
        };
        match residual {
            Some(residual) => residual + y,
            None => y,
        }
    }
}

/// Rows a task adds up; fixed, so that sums always add up in the same order.
const ROWS: usize = 64;

/// Operands: x, weight, then bias, residual and scale as far as there are any.
#[derive(Debug)]
struct Linear {
    bias: bool,
    scaled: bool,
    then: Epilogue,
    precision: Precision,
}

impl Linear {
    fn residual(&self) -> usize {
        2 + usize::from(self.bias)
    }

    /// The factor of each row's sample.
    fn factor(&self, rows: usize) -> impl Fn(usize) -> f32 {
        let factors = match &self.then {
            Epilogue::Add { factors } => factors.as_deref(),
            _ => None,
        };
        scale_of(factors, rows)
    }
}

impl Kernel for Linear {
    fn forward(&self, mut inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let (x, (outputs, width)) = matrices(&inputs);
        let rows = x.len() / width;
        let bias = self.bias.then(|| values(&inputs[2]));
        let residual = inputs.get(self.residual()).map(values);
        let scale = self.scaled.then(|| values(&inputs[self.residual() + 1]));
        let mut y = uninitialized(rows * outputs);
        // The values between, where the gradient needs them.
        let between = keep && (matches!(self.then, Epilogue::Gelu) || self.scaled);
        let mut z = uninitialized(if between { rows * outputs } else { 0 });
        let z_out = SharedBuffer::new(&mut z);
        let factor = self.factor(rows);
        let finish = |row: usize, first: usize, y: &mut [f32]| {
            let columns = first..first + y.len();
            if let Some(bias) = bias {
                add(y, &bias[columns.clone()]);
            }
            let at = row * outputs + first;
            if between {
                // SAFETY: every row and column is finished once.
                unsafe { z_out.slice(at, y.len()) }.write_copy_of_slice(y);
            }
            match &self.then {
                Epilogue::Nothing => {}
                Epilogue::Gelu => gelu::in_place(y),
                Epilogue::Add { .. } => {
                    let scale = scale.map(|scale| &scale[columns]);
                    let residual = &residual.unwrap_or_default()[at..at + y.len()];
                    add_branch(y, factor(row), scale, residual);
                }
            }
        };
        let weight = values(&inputs[1]);
        if self.precision == Precision::Int8 && !keep && int8::suits(width, outputs) {
            int8::product(x, weight, width, outputs, &mut y, finish);
        } else {
            let weight = View::new(weight, outputs, width, width);
            let product = Product::new(View::new(x, rows, width, width), weight.t()).precision(self.precision);
            product.write_then(&mut y, Threads::All, finish);
        }
        let mut shape = inputs[0].shape().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = outputs;
        }
        // SAFETY: the product has been written.
        let y = tensor(unsafe { written(y) }, shape.clone());
        if !keep {
            return (y, Vec::new());
        }
        let mut saved: Vec<FlexTensor> = inputs.drain(..2).collect();
        if self.scaled {
            saved.extend(inputs.pop());
        }
        if between {
            // SAFETY: every row has been finished.
            saved.push(tensor(unsafe { written(z) }, shape));
        }
        (y, saved)
    }

    fn backward(&self, saved: Vec<FlexTensor>, grad: FlexTensor, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let (x, (outputs, width)) = matrices(&saved);
        let rows = x.len() / width;
        let factor = self.factor(rows);
        let z = saved.last().filter(|_| saved.len() > 2).map(values);
        let scale = self.scaled.then(|| values(&saved[2]));
        // The gradient of the affine map itself.
        let changed = match &self.then {
            Epilogue::Nothing => None,
            Epilogue::Gelu => Some(gelu::gradient(z.unwrap_or_default(), values(&grad))),
            Epilogue::Add { factors: None } if scale.is_none() => None,
            Epilogue::Add { .. } => {
                let mut dz = uninitialized(rows * outputs);
                let tasks = dz.par_chunks_mut(ROWS * outputs).zip(values(&grad).par_chunks(ROWS * outputs)).enumerate();
                tasks.for_each(|(task, (dz, dy))| {
                    let rows = dz.chunks_exact_mut(outputs).zip(dy.chunks_exact(outputs));
                    for (i, (dz, dy)) in rows.enumerate() {
                        let factor = factor(task * ROWS + i);
                        match scale {
                            None => dz.iter_mut().zip(dy).for_each(|(dz, dy)| _ = dz.write(factor * dy)),
                            Some(scale) => dz.iter_mut().zip(dy).zip(scale).for_each(|((dz, dy), scale)| {
                                dz.write(factor * dy * scale);
                            }),
                        }
                    }
                });
                // SAFETY: the chunks cover it.
                Some(unsafe { written(dz) })
            }
        };
        let dz = changed.as_deref().unwrap_or(values(&grad));
        let matrix = View::new(dz, rows, outputs, outputs);
        let product = |a, b| Product::new(a, b).precision(self.precision).to_vec();
        let weight = View::new(values(&saved[1]), outputs, width, width);
        let dx = wanted[0].then(|| tensor(product(matrix, weight), saved[0].shape()));
        let dw = wanted[1].then(|| tensor(product(matrix.t(), View::new(x, rows, width, width)), [outputs, width]));
        let mut grads = vec![dx, dw];
        if self.bias {
            grads.push(wanted[2].then(|| tensor(column_sums(dz, outputs, |_, value| value), [outputs])));
        }
        if matches!(self.then, Epilogue::Add { .. }) {
            grads.push(Some(grad.clone()));
        }
        if self.scaled {
            let z = z.unwrap_or_default();
            let sums = column_sums(values(&grad), outputs, |at, dy| factor(at / outputs) * dy * z[at]);
            grads.push(Some(tensor(sums, [outputs])));
        }
        grads
    }
}

/// The values of x, and the outputs and inputs of the weight.
fn matrices(tensors: &[FlexTensor]) -> (&[f32], (usize, usize)) {
    let shape = tensors[1].shape();
    (values(&tensors[0]), (shape[0], shape[1]))
}

vectorized! {
    fn add(y: &mut [f32], bias: &[f32]) {
        for (y, bias) in y.iter_mut().zip(bias) {
            *y += bias;
        }
    }
}

vectorized! {
    /// residual + factor · scale · y, into y.
    fn add_branch(y: &mut [f32], factor: f32, scale: Option<&[f32]>, residual: &[f32]) {
        match scale {
            None => {
                for (y, residual) in y.iter_mut().zip(residual) {
                    *y = residual + factor * *y;
                }
            }
            Some(scale) => {
                for ((y, residual), scale) in y.iter_mut().zip(residual).zip(scale) {
                    *y = residual + factor * scale * *y;
                }
            }
        }
    }
}

/// The sums over rows of `f(index, value)`.
pub(super) fn column_sums(values: &[f32], columns: usize, f: impl Fn(usize, f32) -> f32 + Sync) -> Vec<f32> {
    let share = |(task, rows): (usize, &[f32])| {
        let mut sums = vec![0.0; columns];
        for (row, values) in rows.chunks_exact(columns).enumerate() {
            let at = (task * ROWS + row) * columns;
            for (column, (sum, value)) in sums.iter_mut().zip(values).enumerate() {
                *sum += f(at + column, *value);
            }
        }
        sums
    };
    let shares: Vec<Vec<f32>> = values.par_chunks(ROWS * columns).enumerate().map(share).collect();
    let mut total = vec![0.0; columns];
    for share in &shares {
        total.iter_mut().zip(share).for_each(|(total, value)| *total += value);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, random, strided, tracked};

    type Results = (Tensor<3>, Tensor<3>, Tensor<2>, Option<Tensor<1>>);

    fn results(ours: bool, shape: [usize; 3], outputs: usize, bias: bool) -> Results {
        let (x, dy) = (tracked(strided(shape, 1)), random([shape[0], shape[1], outputs], 2));
        let w = tracked(strided([outputs, shape[2]], 3));
        let b = bias.then(|| tracked(random([outputs], 4)));
        let y = if ours { linear(x.clone(), w.clone(), b.clone()) } else { reference(x.clone(), w.clone(), b.clone()) };
        let grads = (y.clone() * Tensor::from_inner(dy)).sum().backward();
        let grad = |b: Tensor<1>| b.grad(&grads).unwrap();
        (y.inner(), x.grad(&grads).unwrap(), w.grad(&grads).unwrap(), b.map(grad))
    }

    #[test]
    fn matches_the_composition() {
        for (shape, outputs, bias) in
            [([1, 1, 1], 1, true), ([2, 3, 5], 7, false), ([3, 67, 129], 35, true), ([1, 200, 384], 100, true)]
        {
            let (y, dx, dw, db) = results(true, shape, outputs, bias);
            let (ry, rdx, rdw, rdb) = results(false, shape, outputs, bias);
            assert_close(y, ry, 2e-6);
            assert_close(dx, rdx, 2e-6);
            assert_close(dw, rdw, 2e-6);
            if let (Some(db), Some(rdb)) = (db, rdb) {
                assert_close(db, rdb, 2e-6);
            }
        }
    }

    #[test]
    fn eight_bits_are_near_and_leave_gradients_alone() {
        use crate::kernels::with_precision;
        let (x, w, b) = (random([2, 40, 96], 1), random([80, 96], 2), random([80], 3));
        let exact = reference(x.clone(), w.clone(), Some(b.clone())).into_data().try_to_vec::<f32>().unwrap();
        let off = |y: Tensor<3>| {
            let y = y.into_data().try_to_vec::<f32>().unwrap();
            let (off, all) = y
                .iter()
                .zip(&exact)
                .fold((0.0, 0.0), |(off, all), (y, exact)| (off + (y - exact).powi(2), all + exact.powi(2)));
            (off / all).sqrt()
        };
        let eight = off(with_precision(Precision::Int8, || linear(x.clone(), w.clone(), Some(b.clone()))));
        assert!(eight < 0.02, "{eight}");
        if crate::kernels::instruction_set().unwrap() != "baseline" {
            assert!(eight > 1e-3, "{eight}");
        }
        // What a gradient belongs to is not rounded so coarsely.
        let tracked = tracked(x.clone());
        let y = with_precision(Precision::Int8, || linear(tracked, w.clone(), Some(b.clone())));
        assert!(off(y.inner()) < 4e-3);
        let kept = with_precision(Precision::Int8, || {
            crate::kernels::without_int8(|| linear(x.clone(), w.clone(), Some(b.clone())))
        });
        assert!(off(kept) < 4e-3);
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (y, dx, dw, db) = pool.install(|| results(true, [2, 130, 200], 300, true));
            [y.into_data(), dx.into_data(), dw.into_data(), db.unwrap().into_data()]
        };
        assert!(on(1) == on(3));
    }

    #[test]
    fn what_follows_matches_the_composition() {
        for (kind, scaled, dropped) in [
            ("gelu", false, false),
            ("add", false, false),
            ("add", true, false),
            ("add", false, true),
            ("add", true, true),
        ] {
            let shape = [2, 37, 19];
            let dy = random([2, 37, 23], 2);
            let results = [true, false].map(|ours| {
                let x = tracked(strided(shape, 1));
                let w = tracked(strided([23, 19], 3));
                let (b, scale) = (tracked(random([23], 4)), tracked(random([23], 5)));
                let residual = tracked(strided([2, 37, 23], 6));
                let affine = Affine { x: x.clone(), weight: w.clone(), bias: Some(b.clone()) };
                let factors = dropped.then(|| vec![0.0, 1.25]);
                let then = if kind == "gelu" { Epilogue::Gelu } else { Epilogue::Add { factors } };
                let with = (kind == "add").then(|| residual.clone());
                let by = scaled.then(|| scale.clone());
                let y = match ours {
                    true => affine.then(then, with, by),
                    false => then.reference(reference(affine.x, affine.weight, affine.bias), with, by),
                };
                let grads = (y.clone() * Tensor::from_inner(dy.clone())).sum().backward();
                let mut all = vec![y.inner().reshape([-1])];
                all.push(x.grad(&grads).unwrap().reshape([-1]));
                all.push(w.grad(&grads).unwrap().reshape([-1]));
                all.push(b.grad(&grads).unwrap());
                all.extend(residual.grad(&grads).map(|grad| grad.reshape([-1])));
                all.extend(scale.grad(&grads));
                all
            });
            let [ours, theirs] = results;
            assert_eq!(ours.len(), 4 + usize::from(kind == "add") + usize::from(scaled));
            for (ours, theirs) in ours.into_iter().zip(theirs) {
                assert_close::<1>(ours, theirs, 3e-6);
            }
        }
    }
}
