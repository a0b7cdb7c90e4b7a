//! Cross entropy and focal loss of bilinearly upsampled logits, pixel by pixel.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::{Int, Tensor, activation};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::kernels::bridge::{Kernel, Operands, on_cpu, run, tensor, values};
use crate::kernels::simd::{LANES, add_lanes, exp, fma, largest, vectorized};
use crate::kernels::upsample::{Map, Position, blend_pixel, positions, resize};
#[cfg(feature = "gpu")]
use crate::kernels::{bridge::on_gpu, gpu};

/// What the summed loss is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LossMean {
    /// The number of all pixels, ignored ones included (mmsegmentation's default).
    #[default]
    All,
    /// The number of valid pixels, or the sum of their class weights (torch's `cross_entropy`).
    Valid,
}

/// The label of pixels that do not count.
pub(super) const IGNORE: u8 = 255;

/// The mean cross entropy of logits [b, h, w, k], bilinearly resized (align_corners = false) to the labels'
/// [b, H, W]; a tensor of one value.
///
/// Labels are class indices below k, or 255 for pixels to ignore; on the CPU another label panics.
/// `weights [k]` multiply the loss of each class. Without any valid pixel the loss and its gradient are 0.
pub fn upsample_cross_entropy(
    logits: Tensor<4>,
    labels: Tensor<3, Int>,
    weights: Option<Tensor<1>>,
    mean: LossMean,
) -> Tensor<1> {
    upsample_focal_loss(logits, labels, weights, mean, 0.0)
}

/// The mean focal loss, `-(1 - p)^gamma ln p` with the probability p of a pixel's class (Lin et al. 2017); else as
/// [`upsample_cross_entropy`], which it is for a `gamma` of 0. Otherwise `gamma` is at least 1.
pub fn upsample_focal_loss(
    logits: Tensor<4>,
    labels: Tensor<3, Int>,
    weights: Option<Tensor<1>>,
    mean: LossMean,
    gamma: f64,
) -> Tensor<1> {
    let [b, h, w, k] = logits.dims();
    let [batch, height, width] = labels.dims();
    assert!(b == batch && h * w * k > 0 && height * width > 0, "upsample_focal_loss: empty, or batches differ");
    assert!(gamma == 0.0 || gamma >= 1.0, "upsample_focal_loss: a gamma of {gamma}");
    #[cfg(feature = "gpu")]
    if on_gpu(&logits) {
        return gpu::loss(logits, labels, weights, mean, gamma);
    }
    if !on_cpu(&logits) {
        return reference(logits, labels, weights, mean, gamma);
    }
    let label = |label: i64| match u8::try_from(label) {
        Ok(label) if label == IGNORE || usize::from(label) < k => label,
        _ => panic!("label {label} is neither one of the {k} classes nor 255"),
    };
    let labels: Vec<u8> = labels.into_data().iter::<i64>().map(label).collect();
    let weights: Option<Vec<f32>> = weights.map(|weights| weights.into_data().iter::<f32>().collect());
    assert!(weights.as_ref().is_none_or(|weights| weights.len() == k), "upsample_focal_loss: not {k} weights");
    let divisor = match (mean, &weights) {
        (LossMean::All, _) => labels.len() as f64,
        (LossMean::Valid, None) => labels.iter().filter(|label| **label != IGNORE).count() as f64,
        (LossMean::Valid, Some(weights)) => {
            let valid = labels.iter().filter(|label| **label != IGNORE);
            valid.map(|label| f64::from(weights[usize::from(*label)])).sum()
        }
    };
    let weights = weights.unwrap_or_else(|| vec![1.0; k]);
    let scale = if divisor > 0.0 { 1.0 / divisor } else { 0.0 };
    run(Loss { labels, height, width, weights, scale, gamma: gamma as f32 }, Operands::One(logits.into_dispatch()))
}

/// The probabilities of every class at every pixel, `[b, h, w, k]` to `[b, height, width, k]`: all of them in memory.
pub fn upsample_probabilities(logits: Tensor<4>, height: usize, width: usize) -> Tensor<4> {
    activation::softmax(resize(logits, height, width), 3)
}

/// The composition of tensor operations that [`upsample_focal_loss`] stands for.
pub(crate) fn reference(
    logits: Tensor<4>,
    labels: Tensor<3, Int>,
    weights: Option<Tensor<1>>,
    mean: LossMean,
    gamma: f64,
) -> Tensor<1> {
    let [b, _, _, k] = logits.dims();
    let [_, h, w] = labels.dims();
    let ignored = labels.clone().equal_scalar(i64::from(IGNORE));
    let labels = labels.mask_fill(ignored.clone(), 0);
    let factor = match weights {
        Some(weights) => weights.select(0, labels.clone().reshape([b * h * w])).reshape([b, h, w]),
        None => Tensor::ones([b, h, w], &logits.device()),
    };
    let factor = factor.mask_fill(ignored, 0.0); // [b, H, W]
    let log = activation::log_softmax(resize(logits, h, w), 3); // [b, H, W, k]
    let picked = log.gather(3, labels.clamp(0, k as i64 - 1).unsqueeze_dim(3)).squeeze_dim::<3>(3); // [b, H, W]
    let picked = match gamma {
        0.0 => picked,
        // A power of next to nothing has no finite gradient.
        _ => picked.clone().exp().neg().add_scalar(1.0).clamp_min(f32::EPSILON).powf_scalar(gamma as f32) * picked,
    };
    let sum = (picked * factor.clone()).sum().neg();
    match mean {
        LossMean::All => sum / (b * h * w) as f64,
        // Class weights may be small, but not so small that this changes their sum.
        LossMean::Valid => sum / factor.sum().clamp_min(1e-12),
    }
}

#[derive(Debug)]
struct Loss {
    labels: Vec<u8>,
    height: usize,
    width: usize,
    weights: Vec<f32>,
    /// The reciprocal of what the sum is divided by.
    scale: f64,
    gamma: f32,
}

impl Kernel for Loss {
    /// Since the loss is one number, its gradient is found on the way and only multiplied later.
    fn forward(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let shape = inputs[0].shape();
        let (b, h, w, k) = (shape[0], shape[1], shape[2], shape[3]);
        let map = Map::new(values(&inputs[0]), h, w, k);
        let (rows, columns) = (positions(h, self.height), positions(w, self.width));
        // A task takes the output rows that lie between two source rows.
        let tasks: Vec<(f64, [Vec<f32>; 2])> = (0..b * h)
            .into_par_iter()
            .map_init(|| Scratch::new(&map), |scratch, i| self.rows(&map, i / h, i % h, &rows, &columns, keep, scratch))
            .collect();
        let loss = tasks.iter().map(|(loss, _)| loss).sum::<f64>() * self.scale;
        let loss = tensor(vec![loss as f32], [1]);
        if !keep {
            return (loss, Vec::new());
        }
        let mut gradient = vec![0.0; b * h * w * k];
        gradient.par_chunks_mut(w * k).enumerate().for_each(|(i, row)| {
            let mut add = |share: &[f32]| {
                for (row, share) in row.chunks_exact_mut(k).zip(share.chunks_exact(map.padded)) {
                    row.iter_mut().zip(share).for_each(|(row, share)| *row += share);
                }
            };
            add(&tasks[i].1[0]);
            if i % h > 0 {
                add(&tasks[i - 1].1[1]);
            }
            if i % h == h - 1 {
                add(&tasks[i].1[1]);
            }
        });
        (loss, vec![tensor(gradient, shape)])
    }

    fn backward(&self, saved: Vec<FlexTensor>, grad: FlexTensor, _: &[bool]) -> Vec<Option<FlexTensor>> {
        let factor = values(&grad)[0];
        let gradient = values(&saved[0]).iter().map(|value| value * factor).collect();
        vec![Some(tensor(gradient, saved[0].shape()))]
    }
}

struct Scratch {
    line: Vec<f32>,
    gradient: Vec<f32>,
    pixel: Vec<f32>,
}

impl Scratch {
    fn new(map: &Map) -> Self {
        let line = map.line();
        Self { gradient: vec![0.0; line.len()], line, pixel: vec![0.0; map.padded] }
    }
}

impl Loss {
    /// The summed loss of the output rows between source row `y` and the next, and its gradient at these two rows.
    #[allow(clippy::too_many_arguments)]
    fn rows(
        &self,
        map: &Map,
        batch: usize,
        y: usize,
        rows: &[Position],
        columns: &[Position],
        keep: bool,
        scratch: &mut Scratch,
    ) -> (f64, [Vec<f32>; 2]) {
        let size = if keep { scratch.line.len() } else { 0 };
        let mut shares = [vec![0.0; size], vec![0.0; size]];
        let mut loss = 0.0;
        let first = rows.partition_point(|at| at.low < y);
        for (i, at) in rows.iter().enumerate().skip(first).take_while(|(_, at)| at.low == y) {
            map.interpolate(batch, at, &mut scratch.line);
            let labels = &self.labels[(batch * self.height + i) * self.width..][..self.width];
            let Scratch { line, gradient, pixel } = scratch;
            if !keep {
                loss += row_loss::<false>(line, columns, labels, &self.weights, 0.0, self.gamma, pixel, &mut []);
                continue;
            }
            gradient.fill(0.0);
            loss +=
                row_loss::<true>(line, columns, labels, &self.weights, self.scale as f32, self.gamma, pixel, gradient);
            let [low, high] = &mut shares;
            for ((low, high), gradient) in low.iter_mut().zip(high).zip(gradient) {
                *low += (1.0 - at.t) * *gradient;
                *high += at.t * *gradient;
            }
        }
        (loss, shares)
    }
}

vectorized! {
    /// The summed loss of one output row; with `GRADIENT`, adds `scale` times its gradient to that of the line.
    fn row_loss<const GRADIENT: bool>(
        line: &[f32],
        columns: &[Position],
        labels: &[u8],
        weights: &[f32],
        scale: f32,
        gamma: f32,
        pixel: &mut [f32],
        gradient: &mut [f32],
    ) -> f64 {
        let padded = pixel.len();
        let mut loss = 0.0;
        for (at, label) in columns.iter().zip(labels) {
            if *label == IGNORE {
                continue;
            }
            let label = usize::from(*label);
            blend_pixel::<FMA>(line, at, pixel);
            let own = pixel[label];
            let peak = largest(pixel);
            let mut lanes = [0.0; LANES];
            for chunk in pixel.as_chunks_mut::<LANES>().0 {
                for i in 0..LANES {
                    chunk[i] = exp::<FMA>(chunk[i] - peak);
                    lanes[i] += chunk[i];
                }
            }
            let sum = add_lanes(lanes);
            let entropy = peak - own + sum.ln();
            // The loss over the entropy, and the slope of the loss over that of the entropy.
            let (share, slope) = if gamma == 0.0 {
                (1.0, 1.0)
            } else {
                let p = pixel[label] / sum;
                let missed = (1.0 - p).max(f32::EPSILON);
                let share = missed.powf(gamma);
                (share, share + gamma * share / missed * p * entropy)
            };
            loss += f64::from(weights[label]) * f64::from(share * entropy);
            if GRADIENT {
                let scale = scale * weights[label] * slope;
                for (column, share) in [(at.low, (1.0 - at.t) * scale), (at.high, at.t * scale)] {
                    let gradient = &mut gradient[column * padded..][..padded];
                    gradient[label] -= share;
                    let share = share / sum;
                    for (gradient, value) in gradient.iter_mut().zip(pixel.iter()) {
                        *gradient = fma::<FMA>(share, *value, *gradient);
                    }
                }
            }
        }
        loss
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::kernels::tests::{assert_close, random, strided, tracked};
    use crate::rng::Rng;

    fn labels(shape: [usize; 3], k: usize, ignored: f32) -> Tensor<3, Int> {
        let mut rng = Rng::new(3, &[k as u64]);
        let mut label = || if rng.chance(ignored) { 255 } else { rng.below(k) as i32 };
        let values: Vec<i32> = (0..shape.iter().product()).map(|_| label()).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    #[test]
    fn matches_the_composition() {
        let cases = [([1, 1, 1, 1], 2, 3), ([2, 3, 5, 7], 13, 10), ([1, 4, 3, 150], 64, 48), ([2, 6, 9, 33], 4, 5)];
        for (shape, h, w) in cases {
            let labels = labels([shape[0], h, w], shape[3], 0.3);
            let weights = random([shape[3]], 5).abs() + 0.1;
            let cases = [
                (LossMean::All, None, 0.0),
                (LossMean::Valid, None, 2.0),
                (LossMean::Valid, Some(weights.clone()), 0.0),
                (LossMean::All, Some(weights), 1.5),
            ];
            for (mean, weights, gamma) in cases {
                let results = [true, false].map(|ours| {
                    let logits = tracked(strided(shape, 1) * 5.0);
                    let f = if ours { upsample_focal_loss } else { reference };
                    let loss = f(logits.clone(), labels.clone(), weights.clone().map(Tensor::from_inner), mean, gamma);
                    let grads = (loss.clone() * 100.0).backward();
                    (loss.inner(), logits.grad(&grads).unwrap())
                });
                let [(loss, grad), (expected_loss, expected_grad)] = results;
                assert_close(loss, expected_loss, 1e-6);
                assert_close(grad, expected_grad, 5e-6);
            }
        }
    }

    #[test]
    fn gives_the_numbers_of_torch() {
        let values: Vec<f32> = (0..60).map(|i| f64::from(i).sin() as f32).collect();
        let labels: Vec<i32> = (0..63).map(|i| if i % 4 == 3 { 255 } else { i * 7 % 5 }).collect();
        let labels = Tensor::<3, Int>::from_data(TensorData::new(labels, [1, 7, 9]), &Device::flex());
        let weights = Tensor::from_floats([0.5, 1.0, 1.5, 2.0, 2.5], &Device::flex());
        let cases = [
            (LossMean::Valid, None, [1.745_153_761_697_8, 0.009_105_805_490_33, -0.024_189_142_849_06]),
            (LossMean::All, None, [1.329_640_961_293_6, 0.005_285_909_763_09, -0.018_429_823_123_09]),
            (LossMean::Valid, Some(weights), [1.710_775_150_333_2, 0.012_801_466_497_15, -0.024_092_957_246_92]),
        ];
        for (mean, weights, expected) in cases {
            let logits = tracked(Tensor::from_data(TensorData::new(values.clone(), [1, 3, 4, 5]), &Device::flex()));
            let loss = upsample_cross_entropy(logits.clone(), labels.clone(), weights, mean);
            let grad = logits.grad(&loss.backward()).unwrap();
            let one = grad.clone().reshape([60]).narrow(0, 17, 1).into_scalar::<f32>();
            let found = [loss.into_scalar::<f32>(), grad.powi_scalar(2).sum().into_scalar::<f32>(), one];
            for (found, expected) in found.into_iter().zip(expected) {
                assert!((f64::from(found) / expected - 1.0).abs() < 2e-6, "{mean:?}: {found} against {expected}");
            }
        }
    }

    #[test]
    fn nothing_valid_gives_zero() {
        for mean in [LossMean::All, LossMean::Valid] {
            for f in [upsample_focal_loss, reference] {
                let logits = tracked(random([1, 2, 3, 4], 1));
                let loss = f(logits.clone(), labels([1, 4, 6], 4, 1.1), None, mean, 2.0);
                let grad = logits.grad(&loss.backward()).unwrap();
                assert_eq!(loss.into_scalar::<f32>(), 0.0);
                assert_eq!(grad.abs().max().into_scalar::<f32>(), 0.0);
            }
        }
    }

    #[test]
    #[should_panic(expected = "neither one of the 4 classes")]
    fn labels_are_checked() {
        upsample_cross_entropy(random([1, 2, 3, 4], 1), labels([1, 4, 6], 90, 0.0), None, LossMean::All);
    }
}
