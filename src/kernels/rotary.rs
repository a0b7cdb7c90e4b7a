//! Rotary position embedding (Su et al., arXiv 2104.09864): queries and keys turned by where their tokens are.
//!
//! In place: twelve blocks of DINOv3's S/16 at 512 x 512 spend 0.3 % of their forward and backward passes here on two
//! cores, and spent a third of them on the composition of tensor operations.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::kernels::bridge::{Kernel, Operands, on_cpu, run, values};
use crate::kernels::simd::{fma, vectorized};

/// Turns queries and keys of `qkv [b, n, 3 heads d]` (timm's packing, as [`attention`](super::attention) takes it) by
/// the angles whose cosines and sines are given, `[m, d / 2]`, for the last m tokens (one or more), each head alike:
/// channel j with channel j + d / 2. Values, and the tokens before, stay as they are.
///
/// The angles get no gradient.
pub fn rotary(qkv: Tensor<3>, cos: Tensor<2>, sin: Tensor<2>, heads: usize) -> Tensor<3> {
    let [_, tokens, packed] = qkv.dims();
    let [turned, half] = cos.dims();
    assert!(
        packed == 6 * heads * half && (1..=tokens).contains(&turned),
        "rotary: {packed} channels, {heads} heads of {half} angles"
    );
    assert_eq!(cos.dims(), sin.dims(), "rotary: as many sines as cosines");
    if on_cpu(&qkv) && on_cpu(&cos) && on_cpu(&sin) && qkv.dims().iter().product::<usize>() > 0 {
        run(Rotary { heads }, Operands::Three(qkv.into_dispatch(), cos.into_dispatch(), sin.into_dispatch()))
    } else {
        reference(qkv, cos, sin, heads)
    }
}

/// The composition of tensor operations that [`rotary`] stands for.
pub(crate) fn reference(qkv: Tensor<3>, cos: Tensor<2>, sin: Tensor<2>, heads: usize) -> Tensor<3> {
    let [b, n, packed] = qkv.dims();
    let [m, half] = cos.dims();
    let channels = packed / 3;
    let before = (m < n).then(|| qkv.clone().narrow(1, 0, n - m));
    let last = qkv.narrow(1, n - m, m);
    let x = last.clone().narrow(2, 0, 2 * channels).reshape([b, m, 2 * heads, 2 * half]);
    let (low, high) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
    let table = |x: Tensor<2>| x.reshape([1, m, 1, half]);
    let (cos, sin) = (table(cos), table(sin));
    let turned = Tensor::cat(vec![low.clone() * cos.clone() - high.clone() * sin.clone(), high * cos + low * sin], 3);
    let last = Tensor::cat(vec![turned.reshape([b, m, 2 * channels]), last.narrow(2, 2 * channels, channels)], 2);
    match before {
        Some(before) => Tensor::cat(vec![before, last], 1),
        None => last,
    }
}

/// Operands: qkv, cosines, sines.
#[derive(Debug)]
struct Rotary {
    heads: usize,
}

impl Kernel for Rotary {
    fn forward(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let [mut qkv, cos, sin] =
            <[FlexTensor; 3]>::try_from(inputs).unwrap_or_else(|_| unreachable!("rotary has three inputs"));
        self.turn(&mut qkv, &cos, &sin, 1.0);
        (qkv, if keep { vec![cos, sin] } else { Vec::new() })
    }

    fn backward(&self, saved: Vec<FlexTensor>, mut grad: FlexTensor, _: &[bool]) -> Vec<Option<FlexTensor>> {
        // A rotation's transpose turns back.
        self.turn(&mut grad, &saved[0], &saved[1], -1.0);
        vec![Some(grad), None, None]
    }
}

impl Rotary {
    /// In place, where nobody else holds the values.
    fn turn(&self, qkv: &mut FlexTensor, cos: &FlexTensor, sin: &FlexTensor, direction: f32) {
        let (shape, start) = (qkv.shape(), qkv.layout().start_offset());
        let (tokens, packed) = (shape[1], shape[2]);
        let half = packed / 6 / self.heads;
        let (cos, sin) = (values(cos), values(sin));
        let before = tokens - cos.len() / half;
        let len = shape[0] * tokens * packed;
        let rows = qkv.storage_mut::<f32>()[start..start + len].par_chunks_exact_mut(packed).enumerate();
        rows.with_min_len(16).for_each(|(row, qkv)| {
            if let Some(at) = (row % tokens).checked_sub(before) {
                let place = at * half..(at + 1) * half;
                turn(&mut qkv[..4 * self.heads * half], &cos[place.clone()], &sin[place], direction);
            }
        });
    }
}

vectorized! {
    /// Turns heads that lie one after the other.
    fn turn(x: &mut [f32], cos: &[f32], sin: &[f32], direction: f32) {
        let half = cos.len();
        for head in x.chunks_exact_mut(2 * half) {
            let (low, high) = head.split_at_mut(half);
            for ((low, high), (cos, sin)) in low.iter_mut().zip(high).zip(cos.iter().zip(sin)) {
                let (a, b, sin) = (*low, *high, direction * sin);
                *low = fma::<FMA>(a, *cos, -(b * sin));
                *high = fma::<FMA>(b, *cos, a * sin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, gradients, random, strided};

    #[test]
    fn matches_the_composition() {
        for (b, n, m, heads, half) in [(1, 1, 1, 1, 1), (2, 9, 6, 3, 2), (3, 40, 40, 2, 18), (1, 21, 5, 2, 6)] {
            let x = strided([b, n, 6 * heads * half], 1);
            let angles = random([m, half], 2);
            let (cos, sin) = (angles.clone().cos(), angles.sin());
            let ours = |x| rotary(x, cos.clone(), sin.clone(), heads);
            let theirs = |x| reference(x, cos.clone(), sin.clone(), heads);
            assert_close(ours(x.clone()), theirs(x.clone()), 1e-6);
            let dy = random([b, n, 6 * heads * half], 3);
            let [dx] = gradients([x.clone()], &dy, |[x]| ours(x));
            let [rdx] = gradients([x], &dy, |[x]| theirs(x));
            assert_close(dx, rdx, 1e-6);
        }
    }

    /// What else holds the values, or the gradient, keeps them.
    #[test]
    fn others_keep_their_values() {
        let (x, angles) = (random([2, 5, 12], 1), random([3, 2], 2));
        let before = x.clone().into_data();
        let y = rotary(x.clone(), angles.clone().cos(), angles.clone().sin(), 1);
        assert!(x.clone().into_data() == before && y.into_data() != before);
        let dy = random([2, 5, 12], 3);
        // The sum hands one gradient to both of its parts.
        let turned = |x: Tensor<3>, f: &dyn Fn(Tensor<3>) -> Tensor<3>| x.clone() + f(x);
        let (cos, sin) = (angles.clone().cos(), angles.sin());
        let [ours] = gradients([x.clone()], &dy, |[x]| turned(x, &|x| rotary(x, cos.clone(), sin.clone(), 1)));
        let [theirs] = gradients([x], &dy, |[x]| turned(x, &|x| reference(x, cos.clone(), sin.clone(), 1)));
        assert_close(ours, theirs, 1e-6);
    }
}
