//! Attention between channels: the *slices* of StructToken, whose vectors are the pixels.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use crate::kernels::bridge::{Kernel, Operands, on_cpu, run, tensor, uninitialized, values, written};
use crate::kernels::matmul::{Precision, Product, Threads, View, precision};
use crate::kernels::measure;
use crate::kernels::softmax;

/// `softmax(Qᵀ K / √pixels)` applied to the values: `query [b, pixels, q]`, `key` and `value [b, pixels, k]` to
/// `[b, pixels, q]`. The softmax is over the keys.
pub fn slice_attention(query: Tensor<3>, key: Tensor<3>, value: Tensor<3>) -> Tensor<3> {
    let [b, pixels, _] = query.dims();
    let [samples, places, _] = key.dims();
    assert_eq!(([b, pixels], key.dims()), ([samples, places], value.dims()), "slice_attention: shapes do not fit");
    measure::note(&[b, 2, pixels, query.dims()[2], key.dims()[2]]);
    let usable = on_cpu(&query) && on_cpu(&key) && on_cpu(&value);
    if usable && query.dims()[2] * key.dims()[2] * pixels > 0 {
        let operands = [query.into_dispatch(), key.into_dispatch(), value.into_dispatch()];
        run(Slices { precision: precision() }, Operands::of(operands.into()))
    } else {
        reference(query, key, value)
    }
}

/// The composition of tensor operations that [`slice_attention`] stands for.
pub(crate) fn reference(query: Tensor<3>, key: Tensor<3>, value: Tensor<3>) -> Tensor<3> {
    let query = query.clone() * (query.dims()[1] as f64).powf(-0.5);
    let weights = softmax::softmax(query.swap_dims(1, 2).matmul(key)); // [b, q, k]
    value.matmul(weights.swap_dims(1, 2)) // [b, pixels, q]
}

#[derive(Debug)]
struct Slices {
    precision: Precision,
}

/// One sample's operands as matrices.
struct Extent {
    b: usize,
    pixels: usize,
    q: usize,
    k: usize,
}

impl Extent {
    fn of(query: &FlexTensor, key: &FlexTensor) -> Self {
        let (query, key) = (query.shape(), key.shape());
        Self { b: query[0], pixels: query[1], q: query[2], k: key[2] }
    }

    fn scale(&self) -> f32 {
        (self.pixels as f64).powf(-0.5) as f32
    }

    /// The maps of a sample, `[pixels, channels]`.
    fn map<'a>(&self, values: &'a [f32], sample: usize, channels: usize) -> View<'a> {
        View::new(&values[sample * self.pixels * channels..], self.pixels, channels, channels)
    }

    fn weights<'a>(&self, values: &'a [f32], sample: usize) -> View<'a> {
        View::new(&values[sample * self.q * self.k..], self.q, self.k, self.k)
    }
}

impl Slices {
    /// Products of each sample, one after the other: `[b, len]`.
    fn products<'a>(&self, b: usize, len: usize, scale: f32, of: impl Fn(usize) -> (View<'a>, View<'a>)) -> Vec<f32> {
        let mut out = uninitialized(b * len);
        for (sample, out) in out.chunks_exact_mut(len).enumerate() {
            let (a, b) = of(sample);
            Product::new(a, b).times(scale).precision(self.precision).write(out, Threads::All);
        }
        // SAFETY: the products cover it.
        unsafe { written(out) }
    }
}

impl Kernel for Slices {
    fn forward(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let extent = Extent::of(&inputs[0], &inputs[1]);
        let Extent { b, pixels, q, k } = extent;
        let [query, key, value] = [0, 1, 2].map(|i| values(&inputs[i]));
        let scores = self.products(b, q * k, extent.scale(), |sample| {
            (extent.map(query, sample, q).t(), extent.map(key, sample, k))
        });
        let weights = softmax::rows(&scores, k);
        let y = self.products(b, pixels * q, 1.0, |sample| {
            (extent.map(value, sample, k), extent.weights(&weights, sample).t())
        });
        let y = tensor(y, [b, pixels, q]);
        if !keep {
            return (y, Vec::new());
        }
        (y, inputs.into_iter().chain([tensor(weights, [b, q, k])]).collect())
    }

    fn backward(&self, saved: Vec<FlexTensor>, grad: FlexTensor, _: &[bool]) -> Vec<Option<FlexTensor>> {
        let extent = Extent::of(&saved[0], &saved[1]);
        let Extent { b, pixels, q, k } = extent;
        let [query, key, value, weights] = [0, 1, 2, 3].map(|i| values(&saved[i]));
        let dy = values(&grad);
        let dvalue =
            self.products(b, pixels * k, 1.0, |sample| (extent.map(dy, sample, q), extent.weights(weights, sample)));
        let dweights =
            self.products(b, q * k, 1.0, |sample| (extent.map(dy, sample, q).t(), extent.map(value, sample, k)));
        let dscores = softmax::rows_gradient(weights, &dweights, k);
        let dquery = self.products(b, pixels * q, extent.scale(), |sample| {
            (extent.map(key, sample, k), extent.weights(&dscores, sample).t())
        });
        let dkey = self.products(b, pixels * k, extent.scale(), |sample| {
            (extent.map(query, sample, q), extent.weights(&dscores, sample))
        });
        vec![
            Some(tensor(dquery, [b, pixels, q])),
            Some(tensor(dkey, [b, pixels, k])),
            Some(tensor(dvalue, [b, pixels, k])),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, random, strided, tracked};

    #[test]
    fn matches_the_composition() {
        for (b, pixels, q, k) in [(1, 1, 1, 1), (2, 30, 7, 13), (1, 77, 40, 33)] {
            let inputs = [strided([b, pixels, q], 1) * 2.0, strided([b, pixels, k], 2), strided([b, pixels, k], 3)];
            let dy = random([b, pixels, q], 4);
            let results = [slice_attention, reference].map(|f| {
                let [query, key, value] = inputs.clone().map(tracked);
                let y = f(query.clone(), key.clone(), value.clone());
                let grads = (y.clone() * Tensor::from_inner(dy.clone())).sum().backward();
                [y.inner(), query.grad(&grads).unwrap(), key.grad(&grads).unwrap(), value.grad(&grads).unwrap()]
            });
            let [ours, theirs] = results;
            ours.into_iter().zip(theirs).for_each(|(ours, theirs)| assert_close(ours, theirs, 3e-6));
        }
    }
}
