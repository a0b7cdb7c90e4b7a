//! The affine map over the last axis.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::bridge::{Kernel, Operands, on_cpu, room, run, tensor, values, written};
use super::matmul::{Threads, View, multiply, multiply_add};

/// x Wᵀ + b over the last axis: `x [.., i]`, `weight [o, i]` (torch's layout), `bias [o]` to `[.., o]`.
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    let [outputs, inputs] = weight.dims();
    assert_eq!(x.dims()[D - 1], inputs, "linear: x and weight do not fit");
    assert!(bias.as_ref().is_none_or(|bias| bias.dims() == [outputs]), "linear: weight and bias do not fit");
    let usable = on_cpu(&x) && on_cpu(&weight) && bias.as_ref().is_none_or(on_cpu);
    if !usable || inputs * outputs == 0 {
        return reference(x, weight, bias);
    }
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    match bias {
        Some(bias) => run(Linear, Operands::Three(x, weight, bias.into_dispatch())),
        None => run(Linear, Operands::Two(x, weight)),
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

/// Rows a task adds up; fixed, so that sums always add up in the same order.
const ROWS: usize = 64;

#[derive(Debug)]
struct Linear;

impl Kernel for Linear {
    fn forward(&self, mut inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let (x, w) = matrices(&inputs);
        let (inputs_len, outputs) = (w.1, w.0);
        let rows = x.len() / inputs_len;
        let (a, b) = (View::new(x, rows, inputs_len, inputs_len), View::new(values(&inputs[1]), w.0, w.1, w.1).t());
        let mut y = room(rows * outputs);
        let y = if let Some(bias) = inputs.get(2).map(values) {
            y.par_chunks_mut(outputs).with_min_len(ROWS).for_each(|row| _ = row.write_copy_of_slice(bias));
            // SAFETY: all rows have been written.
            let mut y = unsafe { written(y) };
            multiply_add(&mut y, 1.0, a, b, Threads::All);
            y
        } else {
            multiply(&mut y, 1.0, a, b, Threads::All);
            // SAFETY: the product has been written.
            unsafe { written(y) }
        };
        let mut shape = inputs[0].shape().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = outputs;
        }
        (tensor(y, shape), if keep { std::mem::take(&mut inputs) } else { Vec::new() })
    }

    fn backward(&self, saved: Vec<FlexTensor>, grad: FlexTensor, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let (x, (outputs, inputs)) = matrices(&saved);
        let rows = x.len() / inputs;
        let dy = View::new(values(&grad), rows, outputs, outputs);
        let dx = wanted[0].then(|| {
            let mut dx = room(rows * inputs);
            multiply(&mut dx, 1.0, dy, View::new(values(&saved[1]), outputs, inputs, inputs), Threads::All);
            // SAFETY: the product has been written.
            tensor(unsafe { written(dx) }, saved[0].shape())
        });
        let dw = wanted[1].then(|| {
            let mut dw = room(outputs * inputs);
            multiply(&mut dw, 1.0, dy.t(), View::new(x, rows, inputs, inputs), Threads::All);
            // SAFETY: the product has been written.
            tensor(unsafe { written(dw) }, [outputs, inputs])
        });
        let mut grads = vec![dx, dw];
        if let Some(wanted) = wanted.get(2) {
            grads.push(wanted.then(|| tensor(column_sums(values(&grad), outputs), [outputs])));
        }
        grads
    }
}

/// The values of x, and the outputs and inputs of the weight.
fn matrices(tensors: &[FlexTensor]) -> (&[f32], (usize, usize)) {
    let shape = tensors[1].shape();
    (values(&tensors[0]), (shape[0], shape[1]))
}

fn column_sums(values: &[f32], columns: usize) -> Vec<f32> {
    let mut total = vec![0.0; columns];
    let add = |total: &mut [f32], row: &[f32]| total.iter_mut().zip(row).for_each(|(total, value)| *total += value);
    let share = |rows: &[f32]| {
        let mut sums = vec![0.0; columns];
        rows.chunks_exact(columns).for_each(|row| add(&mut sums, row));
        sums
    };
    let shares: Vec<Vec<f32>> = values.par_chunks(ROWS * columns).map(share).collect();
    shares.iter().for_each(|share| add(&mut total, share));
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, random, speed, strided, tracked};

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
    fn threads_do_not_change_a_bit() {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (y, dx, dw, db) = pool.install(|| results(true, [2, 130, 200], 300, true));
            [y.into_data(), dx.into_data(), dw.into_data(), db.unwrap().into_data()]
        };
        assert!(on(1) == on(3));
    }

    #[test]
    #[ignore = "prints timings"]
    fn timing() {
        for (i, o) in [(384, 1152), (384, 1536), (1536, 384)] {
            let (w, b) = (tracked(random([o, i], 2)), tracked(random([o], 3)));
            let ours = |[x]: [Tensor<3>; 1]| linear(x, w.clone(), Some(b.clone()));
            let theirs = |[x]: [Tensor<3>; 1]| reference(x, w.clone(), Some(b.clone()));
            speed(&format!("linear 1025x{i} to {o}"), [random([1, 1025, i], 1)], ours, theirs);
        }
    }
}
