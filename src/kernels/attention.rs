//! Multi-head self-attention in tiles: no n × n matrix is ever held (Dao et al., 2022).
//!
//! Scores are taken times log2(e), so that the exponentials are powers of two.

use std::f32::consts::LOG2_E;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::bridge::{Kernel, Operands, SharedBuffer, on_cpu, run, tensor, uninitialized, values, written};
use crate::kernels::matmul::{Panels, Precision, Product, Threads, View, precision, rewrite};
use crate::kernels::measure;
use crate::kernels::simd::{sum2, vectorized};
use crate::kernels::vector::{exp2, largest, load, put, starts, vectors, within};
use crate::kernels::{softmax, vector};

/// Scaled dot-product self-attention without a mask, scale 1 / √d.
///
/// qkv [b, n, 3 heads d] holds queries, keys and values one after the other, each head by head (timm's packing).
/// Gives [b, n, heads d].
pub fn attention(qkv: Tensor<3>, heads: usize) -> Tensor<3> {
    let [b, tokens, packed] = qkv.dims();
    assert!(heads > 0 && packed > 0 && packed.is_multiple_of(3 * heads), "attention: {packed} channels, {heads} heads");
    measure::note(&[b, 2, tokens, tokens, packed / 3]);
    if on_cpu(&qkv) && tokens > 0 {
        run(Attention { heads, precision: precision() }, Operands::One(qkv.into_dispatch()))
    } else {
        reference(qkv, heads)
    }
}

/// The composition of tensor operations that [`attention`] stands for.
pub(crate) fn reference(qkv: Tensor<3>, heads: usize) -> Tensor<3> {
    let [b, n, packed] = qkv.dims();
    let d = packed / 3 / heads;
    let parts = qkv.reshape([b, n, 3, heads, d]).permute([2, 0, 3, 1, 4]); // [3, b, heads, n, d]
    let part = |i| parts.clone().narrow(0, i, 1).squeeze_dim::<4>(0); // [b, heads, n, d]
    let scores = part(0).matmul(part(1).transpose()) / (d as f64).sqrt(); // [b, heads, n, n]
    let y = softmax::softmax(scores).matmul(part(2)); // [b, heads, n, d]
    y.swap_dims(1, 2).reshape([b, n, heads * d])
}

/// Queries of a tile: a multiple of the rows of every kernel's tile, so that scores are multiplied where they lie.
const QUERIES: usize = 126;
/// Most keys of a tile.
const KEYS: usize = 512;
/// Values between two rows of scores: a line more than there are keys, so that rows fall into different cache sets.
const SCORES: usize = KEYS + 16;

#[derive(Debug)]
struct Attention {
    heads: usize,
    precision: Precision,
}

impl Kernel for Attention {
    fn forward(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let extent = Extent::of(&inputs[0], self.heads);
        let Extent { batch, heads, tokens, d } = extent;
        let qkv = values(&inputs[0]);
        let mut y = uninitialized(batch * tokens * heads * d);
        let mut log_sums = uninitialized(if keep { batch * heads * tokens } else { 0 });
        let (out, sums_out) = (SharedBuffer::new(&mut y), SharedBuffer::new(&mut log_sums));
        // A task takes a head, or where there are too few, some of its queries; either way it packs keys and values
        // once.
        let (all, tiles) = (batch * heads, tokens.div_ceil(QUERIES));
        let parts = rayon::current_num_threads().div_ceil(all).min(tiles);
        let tiles = tiles.div_ceil(parts);
        (0..all * parts).into_par_iter().for_each_init(Tile::default, |tile, task| {
            let (head, part) = (task / parts, task % parts);
            tile.pack(&extent, qkv, head, self.precision);
            let last = tokens.min((part + 1) * tiles * QUERIES);
            for start in (part * tiles * QUERIES..last).step_by(QUERIES) {
                let count = QUERIES.min(last - start);
                forward(&extent, qkv, head, start, count, tile);
                for (i, row) in tile.out.chunks_exact(d).enumerate() {
                    // SAFETY: each task has queries of its own.
                    unsafe { out.slice(extent.row(head, start + i), d) }.write_copy_of_slice(row);
                }
                if keep {
                    let log_sums = tile.sums.iter().zip(&tile.peaks).map(|(sum, peak)| peak + sum.log2());
                    // SAFETY: as above.
                    let places = unsafe { sums_out.slice(head * tokens + start, count) };
                    places.iter_mut().zip(log_sums).for_each(|(place, value)| _ = place.write(value));
                }
            }
        });
        // SAFETY: the tasks cover the output.
        let y = tensor(unsafe { written(y) }, [batch, tokens, heads * d]);
        if !keep {
            return (y, Vec::new());
        }
        // SAFETY: the tasks cover all queries of all heads.
        let log_sums = tensor(unsafe { written(log_sums) }, [batch, heads, tokens]);
        let [qkv] = <[FlexTensor; 1]>::try_from(inputs).unwrap_or_else(|_| unreachable!("attention has one input"));
        (y.clone(), vec![qkv, y, log_sums])
    }

    fn backward(&self, saved: Vec<FlexTensor>, grad: FlexTensor, _: &[bool]) -> Vec<Option<FlexTensor>> {
        let extent = Extent::of(&saved[0], self.heads);
        let Extent { batch, heads, tokens, d } = extent;
        let [qkv, y, log_sums] = [0, 1, 2].map(|i| values(&saved[i]));
        let dy = values(&grad);
        let mut dqkv = uninitialized(qkv.len());
        let out = SharedBuffer::new(&mut dqkv);
        let (chunks, length) = chunks(tokens);
        // Each task owns some keys of a head, and adds up its share of the queries' gradient on its own.
        let shares: Vec<Vec<f32>> = (0..batch * heads * chunks)
            .into_par_iter()
            .map_init(GradientTile::default, |tile, task| {
                let (head, start) = (task / chunks, task % chunks * length);
                let count = length.min(tokens - start);
                let dq = backward(&extent, [qkv, y, dy, log_sums], head, start, count, self.precision, tile);
                for (i, (dk, dv)) in tile.dk.chunks_exact(d).zip(tile.dv.chunks_exact(d)).enumerate() {
                    // SAFETY: each task has keys of its own.
                    unsafe { out.slice(extent.packed(head, 1, start + i), d) }.write_copy_of_slice(dk);
                    // SAFETY: as above.
                    unsafe { out.slice(extent.packed(head, 2, start + i), d) }.write_copy_of_slice(dv);
                }
                dq
            })
            .collect();
        shares.par_chunks(chunks).enumerate().for_each(|(head, shares)| {
            for i in 0..tokens {
                // SAFETY: each head has places of its own.
                let dq = unsafe { out.slice(extent.packed(head, 0, i), d) };
                for (j, dq) in dq.iter_mut().enumerate() {
                    dq.write(shares.iter().map(|share| share[i * d + j]).sum());
                }
            }
        });
        // SAFETY: gradients of queries, keys and values of all tokens and heads have been written.
        vec![Some(tensor(unsafe { written(dqkv) }, saved[0].shape()))]
    }
}

struct Extent {
    batch: usize,
    heads: usize,
    tokens: usize,
    d: usize,
}

impl Extent {
    fn of(qkv: &FlexTensor, heads: usize) -> Self {
        let shape = qkv.shape();
        Self { batch: shape[0], heads, tokens: shape[1], d: shape[2] / 3 / heads }
    }

    /// Where a token's queries (part 0), keys (1) or values (2) start; `head` counts through all batches.
    fn packed(&self, head: usize, part: usize, token: usize) -> usize {
        let (batch, head) = (head / self.heads, head % self.heads);
        (((batch * self.tokens + token) * 3 + part) * self.heads + head) * self.d
    }

    /// Where a token's output starts.
    fn row(&self, head: usize, token: usize) -> usize {
        let (batch, head) = (head / self.heads, head % self.heads);
        ((batch * self.tokens + token) * self.heads + head) * self.d
    }

    fn part<'a>(&self, qkv: &'a [f32], head: usize, part: usize, start: usize, count: usize) -> View<'a> {
        View::new(&qkv[self.packed(head, part, start)..], count, self.d, 3 * self.heads * self.d)
    }

    fn rows<'a>(&self, y: &'a [f32], head: usize, start: usize, count: usize) -> View<'a> {
        View::new(&y[self.row(head, start)..], count, self.d, self.heads * self.d)
    }

    fn scale(&self) -> f32 {
        (1.0 / (self.d as f64).sqrt()) as f32
    }
}

/// Into how many tiles of about one length the keys fall, and that length.
fn chunks(tokens: usize) -> (usize, usize) {
    let length = tokens.div_ceil(tokens.div_ceil(KEYS));
    (tokens.div_ceil(length), length)
}

/// What a task holds in the forward pass.
#[derive(Default)]
struct Tile {
    /// Transposed keys and values of the head, chunk by chunk.
    packed: Vec<[Panels; 2]>,
    scores: Vec<f32>,
    peaks: Vec<f32>,
    sums: Vec<f32>,
    out: Vec<f32>,
}

impl Tile {
    fn pack(&mut self, extent: &Extent, qkv: &[f32], head: usize, precision: Precision) {
        let (chunks, length) = chunks(extent.tokens);
        self.packed.resize_with(chunks, Default::default);
        for (i, [keys, values]) in self.packed.iter_mut().enumerate() {
            let (first, count) = (i * length, length.min(extent.tokens - i * length));
            keys.pack(extent.part(qkv, head, 1, first, count).t(), precision);
            values.pack(extent.part(qkv, head, 2, first, count), precision);
        }
    }
}

/// The output of some queries of a packed head, into `tile.out`.
fn forward(extent: &Extent, qkv: &[f32], head: usize, start: usize, count: usize, tile: &mut Tile) {
    let (_, length) = chunks(extent.tokens);
    let queries = extent.part(qkv, head, 0, start, count);
    refill(&mut tile.peaks, count, f32::NEG_INFINITY);
    refill(&mut tile.sums, count, 0.0);
    refill(&mut tile.out, count * extent.d, 0.0);
    let Tile { packed, scores, peaks, sums, out } = tile;
    scores.resize(QUERIES * SCORES, 0.0);
    for (i, [transposed, values]) in packed.iter().enumerate() {
        let keys = length.min(extent.tokens - i * length);
        transposed.write(queries, extent.scale() * LOG2_E, rewrite(scores), SCORES);
        vectors(OnlineSoftmax { scores, keys, peaks, sums, out });
        values.add_to(View::new(scores, count, keys, SCORES), 1.0, out);
    }
    for (out, sum) in out.chunks_exact_mut(extent.d).zip(sums) {
        let scale = 1.0 / *sum;
        out.iter_mut().for_each(|value| *value *= scale);
    }
}

fn refill(values: &mut Vec<f32>, len: usize, value: f32) {
    values.clear();
    values.resize(len, value);
}

/// Turns scores into 2^(score - peak), where `peaks` are the largest so far, and rescales what came before.
struct OnlineSoftmax<'a> {
    scores: &'a mut [f32],
    keys: usize,
    peaks: &'a mut [f32],
    sums: &'a mut [f32],
    out: &'a mut [f32],
}

impl WithSimd for OnlineSoftmax<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { scores, keys, peaks, sums, out } = self;
        let d = out.len() / peaks.len();
        let rows = scores.chunks_exact_mut(SCORES).zip(out.chunks_exact_mut(d)).zip(peaks.iter_mut().zip(sums));
        for ((scores, out), (peak, total)) in rows {
            let scores = &mut scores[..keys];
            let before = *peak;
            *peak = before.max(largest(simd, scores));
            let peaks = simd.splat_f32s(*peak);
            let kept = exp2(simd, simd.sub_f32s(simd.splat_f32s(before), peaks));
            for at in starts(simd, d) {
                let value = simd.mul_f32s(load(simd, out, at), kept);
                put(simd, out, at, value);
            }
            let mut sum = simd.splat_f32s(0.0);
            for at in starts(simd, keys) {
                let weight = exp2(simd, simd.sub_f32s(load(simd, scores, at), peaks));
                sum = simd.add_f32s(sum, within(simd, keys, at, weight));
                put(simd, scores, at, weight);
            }
            *total = *total * vector::most(simd, kept) + vector::sum(simd, sum);
        }
    }
}

/// What a task holds in the backward pass.
#[derive(Default)]
struct GradientTile {
    /// Keys, transposed keys and transposed values.
    packed: [Panels; 3],
    scores: Vec<f32>,
    grads: Vec<f32>,
    products: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

/// The gradients of some keys and values of one head, into the tile; returns these keys' share of the gradient of all
/// queries.
fn backward(
    extent: &Extent,
    [qkv, y, dy, log_sums]: [&[f32]; 4],
    head: usize,
    start: usize,
    keys: usize,
    precision: Precision,
    tile: &mut GradientTile,
) -> Vec<f32> {
    let Extent { tokens, d, .. } = *extent;
    let (k, v) = (extent.part(qkv, head, 1, start, keys), extent.part(qkv, head, 2, start, keys));
    for (packed, view) in tile.packed.iter_mut().zip([k, k.t(), v.t()]) {
        packed.pack(view, precision);
    }
    refill(&mut tile.dk, keys * d, 0.0);
    refill(&mut tile.dv, keys * d, 0.0);
    let mut dq = uninitialized(tokens * d);
    for first in (0..tokens).step_by(QUERIES) {
        let count = QUERIES.min(tokens - first);
        let (q, grad) = (extent.part(qkv, head, 0, first, count), extent.rows(dy, head, first, count));
        tile.scores.resize(QUERIES * SCORES, 0.0);
        tile.grads.resize(QUERIES * SCORES, 0.0);
        refill(&mut tile.products, count, 0.0);
        let [packed_k, packed_kt, packed_vt] = &tile.packed;
        packed_kt.write(q, extent.scale() * LOG2_E, rewrite(&mut tile.scores), SCORES);
        packed_vt.write(grad, 1.0, rewrite(&mut tile.grads), SCORES);
        let row = extent.row(head, first);
        row_products(&y[row..], &dy[row..], d, extent.heads * d, &mut tile.products);
        let log_sums = &log_sums[head * tokens + first..];
        let (scores, grads, products) = (&mut tile.scores[..], &mut tile.grads[..], &tile.products[..]);
        vectors(ScoreGradient { scores, grads, keys, log_sums, products });
        let [weights, grads] = [&tile.scores, &tile.grads].map(|scores| View::new(scores, count, keys, SCORES));
        let product = |a, b| Product::new(a, b).precision(precision);
        product(weights.t(), grad).add_to(&mut tile.dv, Threads::One);
        product(grads.t(), q).times(extent.scale()).add_to(&mut tile.dk, Threads::One);
        packed_k.write(grads, extent.scale(), &mut dq[first * d..][..count * d], d);
    }
    // SAFETY: the loop covers all tokens.
    unsafe { written(dq) }
}

vectorized! {
    /// The dot products of the rows of two matrices.
    fn row_products(a: &[f32], b: &[f32], d: usize, stride: usize, products: &mut [f32]) {
        for (i, product) in products.iter_mut().enumerate() {
            let row = i * stride..i * stride + d;
            *product = sum2(&a[row.clone()], &b[row], |a, b| a * b);
        }
    }
}

/// Turns scores into attention weights, and the weights' gradients into those of the scores.
struct ScoreGradient<'a> {
    scores: &'a mut [f32],
    grads: &'a mut [f32],
    keys: usize,
    log_sums: &'a [f32],
    products: &'a [f32],
}

impl WithSimd for ScoreGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { scores, grads, keys, log_sums, products } = self;
        let rows =
            scores.chunks_exact_mut(SCORES).zip(grads.chunks_exact_mut(SCORES)).zip(log_sums.iter().zip(products));
        for ((scores, grads), (log_sum, product)) in rows {
            let (scores, grads) = (&mut scores[..keys], &mut grads[..keys]);
            let (log_sum, product) = (simd.splat_f32s(*log_sum), simd.splat_f32s(*product));
            for at in starts(simd, keys) {
                let weight = exp2(simd, simd.sub_f32s(load(simd, scores, at), log_sum));
                let grad = simd.mul_f32s(weight, simd.sub_f32s(load(simd, grads, at), product));
                put(simd, scores, at, weight);
                put(simd, grads, at, grad);
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
        for (b, n, heads, d) in [(1, 1, 1, 1), (2, 37, 3, 5), (1, 130, 2, 64), (2, 700, 1, 33)] {
            let qkv = strided([b, n, 3 * heads * d], 1) * 2.0;
            assert_close(attention(qkv.clone(), heads), reference(qkv.clone(), heads), 2e-6);
            // The gradient takes the shape of the output; three copies make it that of the input.
            let dy = random([b, n, 3 * heads * d], 2);
            let thrice = |y: Tensor<3>| Tensor::cat(vec![y.clone(), y.clone(), y], 2);
            let [ours] = gradients([qkv.clone()], &dy, |[x]| thrice(attention(x, heads)));
            let [theirs] = gradients([qkv], &dy, |[x]| thrice(reference(x, heads)));
            assert_close(ours, theirs, 5e-6);
        }
    }

    #[test]
    fn large_scores_stay_finite() {
        let qkv = random([1, 600, 3 * 16], 1) * 30.0;
        assert_close(attention(qkv.clone(), 1), reference(qkv, 1), 1e-4);
    }
}
