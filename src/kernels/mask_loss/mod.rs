//! Losses of masks against the truth, in one pass over their points: cross entropy or focal loss, and dice.
//!
//! A mask is a row of logits x and a row of labels y over the same points. Labels are in [0, 1]; those sampled between
//! pixels are fractions. With the probabilities p = σ(x), for each point:
//!
//! ```text
//! cross entropy  -y ln p - (1 - y) ln(1 - p)
//! focal          the same, times (y (1 - p) + (1 - y) p)² and α within a mask, 1 - α outside (Lin et al. 2017)
//! dice           1 - (2 Σ p y + 1) / (Σ p + Σ y + 1), of all points (Milletari et al. 2016)
//! ```

mod pairs;
mod point;

use std::sync::Arc;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::activation::{log_sigmoid, sigmoid};
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use crate::kernels::bridge::{Kernel, Operands, on_cpu, run, tensor, values};
use crate::kernels::upsample::{Position, positions, resize};
use crate::kernels::vector::vectors;
#[cfg(feature = "gpu")]
use crate::kernels::{bridge::on_gpu, gpu};
pub use pairs::pairwise_mask_losses;
pub(super) use point::ALPHA;
pub use point::PointLoss;
use point::{Factors, Slopes, Sum};

/// Masks that are the pixels of a class in an image.
#[derive(Clone, Debug)]
pub struct ClassMasks {
    /// The classes of the pixels of some images, one after the other.
    pub maps: Arc<[u8]>,
    /// Rows and columns of an image.
    pub size: (usize, usize),
    /// For each mask its image and its class.
    pub masks: Vec<(usize, u8)>,
}

/// Logits and labels `[r, p]` to `[r, 2]`: the mean over points of their losses, and the dice loss, of each mask. Only
/// logits get a gradient.
pub fn mask_losses(logits: Tensor<2>, labels: Tensor<2>, loss: PointLoss) -> Tensor<2> {
    let [r, p] = logits.dims();
    assert_eq!(labels.dims(), [r, p], "mask_losses: a label for each logit");
    let labels = labels.detach();
    if r * p == 0 {
        return Tensor::zeros([r, 2], &logits.device());
    }
    #[cfg(feature = "gpu")]
    if on_gpu(&logits) && on_gpu(&labels) {
        return gpu::run(Points { loss }, Operands::Two(logits.into_dispatch(), labels.into_dispatch()));
    }
    if !(on_cpu(&logits) && on_cpu(&labels)) {
        return reference(logits, labels, loss);
    }
    run(Points { loss }, Operands::Two(logits.into_dispatch(), labels.into_dispatch()))
}

/// [`mask_losses`] of planes `[r, h, w]` over all pixels of images, to whose size the planes are resized (bilinear,
/// corners not aligned).
pub fn class_mask_losses(planes: Tensor<3>, truth: ClassMasks, loss: PointLoss) -> Tensor<2> {
    let [r, h, w] = planes.dims();
    let (height, width) = truth.size;
    assert_eq!(truth.masks.len(), r, "class_mask_losses: a mask for each plane");
    assert!(h * w * height * width > 0, "class_mask_losses: planes or images without pixels");
    let images = truth.maps.len() / (height * width);
    assert!(truth.masks.iter().all(|(image, _)| *image < images), "class_mask_losses: a mask of no image");
    if r == 0 {
        return Tensor::zeros([0, 2], &planes.device());
    }
    if !on_cpu(&planes) {
        let (logits, labels) = at_pixels(planes, &truth);
        return mask_losses(logits, labels, loss);
    }
    run(Maps { truth, loss, source: (h, w) }, Operands::One(planes.into_dispatch()))
}

/// The composition of tensor operations that [`mask_losses`] stands for.
pub(crate) fn reference(logits: Tensor<2>, labels: Tensor<2>, loss: PointLoss) -> Tensor<2> {
    let [r, p] = logits.dims();
    let one_minus = |x: Tensor<2>| x.neg().add_scalar(1.0);
    let softplus = |x: Tensor<2>| -log_sigmoid(-x);
    let probabilities = sigmoid(logits.clone());
    let outside = one_minus(labels.clone());
    // By its two halves, each exact for logits of any size, also at 0.
    let mut each = softplus(-logits.clone()) * labels.clone() + softplus(logits) * outside.clone();
    if loss == PointLoss::Focal {
        let missed = one_minus(probabilities.clone()) * labels.clone() + probabilities.clone() * outside;
        let weight = labels.clone() * (2.0 * ALPHA - 1.0) + (1.0 - ALPHA);
        each = each * missed.powi_scalar(2) * weight;
    }
    let each = each.sum_dim(1) / p.max(1) as f64; // [r, 1]
    let both = (probabilities.clone() * labels.clone()).sum_dim(1) * 2.0 + 1.0;
    let either = probabilities.sum_dim(1) + labels.sum_dim(1) + 1.0;
    let dice = one_minus(both / either);
    Tensor::cat(vec![each, dice], 1).reshape([r, 2])
}

/// The composition of tensor operations that [`class_mask_losses`] stands for.
#[cfg(test)]
pub(crate) fn class_reference(planes: Tensor<3>, truth: &ClassMasks, loss: PointLoss) -> Tensor<2> {
    let (logits, labels) = at_pixels(planes, truth);
    reference(logits, labels, loss)
}

/// Logits and labels `[r, pixels]` of masks of whole images.
fn at_pixels(planes: Tensor<3>, truth: &ClassMasks) -> (Tensor<2>, Tensor<2>) {
    let (r, (height, width)) = (truth.masks.len(), truth.size);
    let pixels = height * width;
    let label = |(image, class): &(usize, u8)| {
        let map = &truth.maps[image * pixels..][..pixels];
        map.iter().map(|id| f32::from(u8::from(id == class))).collect::<Vec<_>>()
    };
    let labels: Vec<f32> = truth.masks.iter().flat_map(label).collect();
    let labels = Tensor::from_data(TensorData::new(labels, [r, pixels]), &planes.device());
    (resize(planes.unsqueeze_dim(3), height, width).reshape([r, pixels]), labels)
}

/// Masks at points.
#[derive(Debug)]
pub(super) struct Points {
    pub(super) loss: PointLoss,
}

/// Points that are summed in f32.
const CHUNK: usize = 4096;

impl Kernel for Points {
    fn forward(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let [logits, labels] = [&inputs[0], &inputs[1]];
        let (r, p) = (logits.shape()[0], logits.shape()[1]);
        let rows = values(logits).par_chunks_exact(p).zip(values(labels).par_chunks_exact(p));
        let sums = rows.map(|(x, y)| {
            let chunks = x.chunks(CHUNK).zip(y.chunks(CHUNK));
            chunks.fold(Sums::default(), |sums, (x, y)| sums.and(vectors(Sum { loss: self.loss, x, y })))
        });
        let sums: Vec<Sums> = sums.collect();
        let saved = if keep { vec![inputs[0].clone(), inputs[1].clone(), ratios(&sums)] } else { Vec::new() };
        (tensor(sums.iter().flat_map(|sums| sums.losses(p)).collect(), [r, 2]), saved)
    }

    fn backward(&self, saved: Vec<FlexTensor>, grad: FlexTensor, _: &[bool]) -> Vec<Option<FlexTensor>> {
        let [logits, labels, ratios] = [&saved[0], &saved[1], &saved[2]];
        let (r, p) = (logits.shape()[0], logits.shape()[1]);
        let mut dx = vec![0.0; r * p];
        let rows = values(logits).par_chunks_exact(p).zip(values(labels).par_chunks_exact(p));
        dx.par_chunks_exact_mut(p).zip(rows).enumerate().for_each(|(i, (dx, (x, y)))| {
            let factors = Factors::of(&values(&grad)[2 * i..], &values(ratios)[2 * i..], p);
            vectors(Slopes { loss: self.loss, x, y, factors, dx });
        });
        vec![Some(tensor(dx, [r, p])), None]
    }
}

/// Masks of whole images.
#[derive(Debug)]
struct Maps {
    truth: ClassMasks,
    loss: PointLoss,
    /// Rows and columns of a plane.
    source: (usize, usize),
}

impl Maps {
    /// Calls `row` with each row of the images' pixels: where it lies between the plane's, its logits and its labels.
    fn rows(&self, mask: usize, plane: &[f32], columns: &[Position], mut row: impl FnMut(&Position, &[f32], &[f32])) {
        let ((h, w), (height, width)) = (self.source, self.truth.size);
        let (image, class) = self.truth.masks[mask];
        let map = &self.truth.maps[image * height * width..][..height * width];
        let (mut line, mut logits, mut labels) = (vec![0.0; w], vec![0.0; width], vec![0.0; width]);
        for (at, ids) in positions(h, height).iter().zip(map.chunks_exact(width)) {
            let (low, high) = (&plane[at.low * w..][..w], &plane[at.high * w..][..w]);
            for ((value, low), high) in line.iter_mut().zip(low).zip(high) {
                *value = low + at.t * (high - low);
            }
            for ((logit, label), (at, id)) in logits.iter_mut().zip(&mut labels).zip(columns.iter().zip(ids)) {
                let (low, high) = (line[at.low], line[at.high]);
                *logit = low + at.t * (high - low);
                *label = f32::from(u8::from(*id == class));
            }
            row(at, &logits, &labels);
        }
    }
}

impl Kernel for Maps {
    fn forward(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let ((h, w), (height, width)) = (self.source, self.truth.size);
        let columns = positions(w, width);
        let planes = values(&inputs[0]).par_chunks_exact(h * w).enumerate();
        let sums = planes.map(|(i, plane)| {
            let mut sums = Sums::default();
            self.rows(i, plane, &columns, |_, x, y| sums = sums.and(vectors(Sum { loss: self.loss, x, y })));
            sums
        });
        let sums: Vec<Sums> = sums.collect();
        let saved = if keep { vec![inputs[0].clone(), ratios(&sums)] } else { Vec::new() };
        (tensor(sums.iter().flat_map(|sums| sums.losses(height * width)).collect(), [sums.len(), 2]), saved)
    }

    fn backward(&self, saved: Vec<FlexTensor>, grad: FlexTensor, _: &[bool]) -> Vec<Option<FlexTensor>> {
        let ((h, w), (height, width)) = (self.source, self.truth.size);
        let columns = positions(w, width);
        let (planes, ratios) = (values(&saved[0]), values(&saved[1]));
        let mut dx = vec![0.0; planes.len()];
        let tasks = dx.par_chunks_exact_mut(h * w).zip(planes.par_chunks_exact(h * w)).enumerate();
        tasks.for_each(|(i, (dx, plane))| {
            let factors = Factors::of(&values(&grad)[2 * i..], &ratios[2 * i..], height * width);
            let (mut slopes, mut line) = (vec![0.0; width], vec![0.0; w]);
            self.rows(i, plane, &columns, |at, x, y| {
                vectors(Slopes { loss: self.loss, x, y, factors, dx: &mut slopes });
                line.fill(0.0);
                for (at, slope) in columns.iter().zip(&slopes) {
                    line[at.low] += (1.0 - at.t) * slope;
                    line[at.high] += at.t * slope;
                }
                for (y, share) in [(at.low, 1.0 - at.t), (at.high, at.t)] {
                    dx[y * w..][..w].iter_mut().zip(&line).for_each(|(dx, slope)| *dx += share * slope);
                }
            });
        });
        vec![Some(tensor(dx, [self.truth.masks.len(), h, w]))]
    }
}

/// Sums over the points of a mask.
#[derive(Clone, Copy, Default)]
struct Sums {
    loss: f64,
    /// Of p y.
    both: f64,
    /// Of p, and of y.
    either: f64,
}

impl Sums {
    fn and(self, [loss, both, either]: [f32; 3]) -> Self {
        let [loss, both, either] = [loss, both, either].map(f64::from);
        Self { loss: self.loss + loss, both: self.both + both, either: self.either + either }
    }

    fn losses(&self, points: usize) -> [f32; 2] {
        let [both, either] = self.ratio();
        [self.loss / points as f64, 1.0 - both / either].map(|loss| loss as f32)
    }

    /// What the dice loss divides, and by what.
    fn ratio(&self) -> [f64; 2] {
        [2.0 * self.both + 1.0, self.either + 1.0]
    }
}

fn ratios(sums: &[Sums]) -> FlexTensor {
    tensor(sums.iter().flat_map(|sums| sums.ratio().map(|value| value as f32)).collect(), [sums.len(), 2])
}

impl Factors {
    fn of(grad: &[f32], ratio: &[f32], points: usize) -> Self {
        let [both, either] = [ratio[0], ratio[1]];
        Self {
            points: grad[0] / points as f32,
            constant: grad[1] * both / (either * either),
            label: -2.0 * grad[1] / either,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::kernels::tests::{assert_close, gradients, random, strided, tracked};

    const BOTH: [PointLoss; 2] = [PointLoss::CrossEntropy, PointLoss::Focal];
    const LOGITS: [[f64; 6]; 2] = [[-100.0, -20.0, -0.5, 0.0, 3.0, 100.0], [100.0, 20.0, 0.0, 1.0, -2.0, -100.0]];
    const LABELS: [[f64; 6]; 2] = [[0.0, 0.0, 0.25, 1.0, 0.75, 1.0], [0.0, 1.0, 0.0, 0.5, 1.0, 1.0]];

    fn small(values: [[f64; 6]; 2]) -> Tensor<2> {
        Tensor::from_data(values.map(|row| row.map(|value| value as f32)), &Device::flex())
    }

    /// The losses of one mask, in f64.
    fn exact(loss: PointLoss, x: &[f64; 6], y: &[f64; 6]) -> [f64; 2] {
        let p = x.map(|x| 1.0 / (1.0 + (-x).exp()));
        let sum = |f: &dyn Fn(f64, f64, f64) -> f64| (0..6).map(|i| f(p[i], x[i], y[i])).sum::<f64>();
        let entropy = |x: f64, y: f64| x.max(0.0) - x * y + (-x.abs()).exp().ln_1p();
        let each = sum(&|p, x, y| {
            let hit = p * y + (1.0 - p) * (1.0 - y);
            let factor = (1.0 - hit).powi(2) * (0.25 * y + 0.75 * (1.0 - y));
            entropy(x, y) * if loss == PointLoss::Focal { factor } else { 1.0 }
        });
        let dice = 1.0 - (2.0 * sum(&|p, _, y| p * y) + 1.0) / (sum(&|p, _, _| p) + sum(&|_, _, y| y) + 1.0);
        [each / 6.0, dice]
    }

    #[test]
    fn values_and_gradients_are_exact_for_logits_of_any_size() {
        for (loss, f) in BOTH.into_iter().flat_map(|loss| [(loss, mask_losses as fn(_, _, _) -> _), (loss, reference)])
        {
            let x = tracked(small(LOGITS));
            let y = f(x.clone(), Tensor::from_inner(small(LABELS)), loss);
            let gradient: Vec<f32> = x.grad(&y.clone().sum().backward()).unwrap().into_data().try_to_vec().unwrap();
            let y: Vec<f32> = y.into_data().try_to_vec().unwrap();
            for row in 0..2 {
                for (value, expected) in y[2 * row..].iter().zip(exact(loss, &LOGITS[row], &LABELS[row])) {
                    assert!((f64::from(*value) - expected).abs() < 1e-6 * expected, "{loss:?}: {value} for {expected}");
                }
                for i in 0..6 {
                    let step = |h: f64| {
                        let mut logits = LOGITS[row];
                        logits[i] += h;
                        exact(loss, &logits, &LABELS[row]).iter().sum::<f64>()
                    };
                    let (gradient, expected) = (gradient[6 * row + i], (step(1e-4) - step(-1e-4)) / 2e-4);
                    assert!((f64::from(gradient) - expected).abs() < 1e-6, "{loss:?} {i}: {gradient} for {expected}");
                }
            }
        }
    }

    #[test]
    fn points_match_the_composition() {
        for (r, p) in [(1, 1), (3, 17), (2, 5000), (7, 96)] {
            for loss in BOTH {
                let (x, dy) = (strided([r, p], 1) * 4.0, random([r, 2], 2));
                let labels = strided([r, p], 3).clamp(0.0, 1.0);
                let f = |f: fn(_, _, _) -> _, x| f(x, Tensor::from_inner(labels.clone()), loss);
                assert_close(
                    mask_losses(x.clone(), labels.clone(), loss),
                    reference(x.clone(), labels.clone(), loss),
                    1e-6,
                );
                let [ours] = gradients([x.clone()], &dy, |[x]| f(mask_losses, x));
                let [theirs] = gradients([x], &dy, |[x]| f(reference, x));
                assert_close(ours * p as f64, theirs * p as f64, 2e-6);
            }
        }
    }

    #[test]
    fn maps_match_the_composition() {
        for (h, w, size) in [(1, 1, (1, 1)), (3, 5, (7, 19)), (4, 4, (16, 16)), (9, 2, (5, 33)), (6, 7, (6, 7))] {
            for loss in BOTH {
                let pixels = size.0 * size.1;
                let maps: Vec<u8> = (0..2 * pixels).map(|i| (i * 7919 / 13 % 5) as u8 * 60).collect(); // 240 at most
                let truth =
                    ClassMasks { maps: maps.into(), size, masks: vec![(0, 60), (1, 0), (1, 240), (0, 255), (1, 60)] };
                let (x, dy) = (strided([5, h, w], 1) * 3.0, random([5, 2], 2));
                let ours = class_mask_losses(x.clone(), truth.clone(), loss);
                assert_close(ours, class_reference(x.clone(), &truth, loss), 1e-6);
                let grad = |f: &dyn Fn(Tensor<3>) -> Tensor<2>| {
                    let x = tracked(x.clone());
                    let grads = (f(x.clone()) * Tensor::from_inner(dy.clone())).sum().backward();
                    x.grad(&grads).unwrap()
                };
                let ours = grad(&|x| class_mask_losses(x, truth.clone(), loss));
                assert_close(ours, grad(&|x| class_reference(x, &truth, loss)), 2e-6);
            }
        }
    }

    #[test]
    fn no_masks_lose_nothing() {
        let none = Tensor::<2>::zeros([0, 6], &Device::flex());
        assert_eq!(mask_losses(none.clone(), none, PointLoss::Focal).dims(), [0, 2]);
        let truth = ClassMasks { maps: vec![0; 4].into(), size: (2, 2), masks: Vec::new() };
        assert_eq!(
            class_mask_losses(Tensor::zeros([0, 1, 1], &Device::flex()), truth, PointLoss::Focal).dims(),
            [0, 2]
        );
    }
}
