//! Losses between masks, and between classes: MaskFormer (Cheng et al., arXiv 2107.06278) and Mask2Former (arXiv
//! 2112.01527).
//!
//! A mask is a row of logits and a row of labels over the same points, or pixels. Labels are in [0, 1]; those sampled
//! between pixels are fractions. Losses are means over points, sums over masks, divided by `num_masks`, the number of
//! targets of the whole batch. The `pairwise` forms hold the loss of every query against every target.

use burn::tensor::activation::{log_sigmoid, log_softmax, sigmoid};
use burn::tensor::{Tensor, TensorData};

/// Weight of the points inside of a mask in the focal loss (Lin et al. 2017); those outside weigh `1 - ALPHA`.
const ALPHA: f64 = 0.25;

/// Binary cross entropy: logits and labels `[r, p]` to one number, `[1]`.
pub fn sigmoid_cross_entropy(logits: Tensor<2>, labels: Tensor<2>, num_masks: f64) -> Tensor<1> {
    mean_over_points(cross_entropy(logits, labels), num_masks)
}

/// Dice loss, `1 - (2 Σ p y + 1) / (Σ p + Σ y + 1)` with the probabilities p: logits and labels `[r, p]` to `[1]`.
pub fn dice(logits: Tensor<2>, labels: Tensor<2>, num_masks: f64) -> Tensor<1> {
    let probabilities = sigmoid(logits);
    let both = (probabilities.clone() * labels.clone()).sum_dim(1) * 2.0 + 1.0; // [r, 1]
    let either = probabilities.sum_dim(1) + labels.sum_dim(1) + 1.0;
    (both / either).neg().add_scalar(1.0).sum() / num_masks
}

/// Focal loss with alpha 0.25 and gamma 2: logits and labels `[r, p]` to `[1]`.
pub fn focal(logits: Tensor<2>, labels: Tensor<2>, num_masks: f64) -> Tensor<1> {
    let probabilities = sigmoid(logits.clone());
    let missed = one_minus(probabilities.clone()) * labels.clone() + probabilities * one_minus(labels.clone());
    let weight = labels.clone() * (2.0 * ALPHA - 1.0) + (1.0 - ALPHA); // alpha inside, 1 - alpha outside
    mean_over_points(cross_entropy(logits, labels) * missed.powi_scalar(2) * weight, num_masks)
}

/// [`sigmoid_cross_entropy`] of each of q masks against each of t: `[q, p]` and `[t, p]` to `[q, t]`.
pub fn pairwise_sigmoid_cross_entropy(logits: Tensor<2>, labels: Tensor<2>) -> Tensor<2> {
    let (inside, outside) = (softplus(-logits.clone()), softplus(logits));
    pairwise_mean(inside, outside, labels)
}

/// [`dice`] of each of q masks against each of t: `[q, p]` and `[t, p]` to `[q, t]`.
pub fn pairwise_dice(logits: Tensor<2>, labels: Tensor<2>) -> Tensor<2> {
    let probabilities = sigmoid(logits);
    let both = probabilities.clone().matmul(labels.clone().transpose()) * 2.0 + 1.0; // [q, t]
    let either = probabilities.sum_dim(1) + labels.sum_dim(1).transpose() + 1.0; // [q, 1] and [1, t]
    one_minus(both / either)
}

/// [`focal`] of each of q masks against each of t, for labels 0 and 1: `[q, p]` and `[t, p]` to `[q, t]`.
pub fn pairwise_focal(logits: Tensor<2>, labels: Tensor<2>) -> Tensor<2> {
    let probabilities = sigmoid(logits.clone());
    let inside = softplus(-logits.clone()) * one_minus(probabilities.clone()).powi_scalar(2) * ALPHA;
    let outside = softplus(logits) * probabilities.powi_scalar(2) * (1.0 - ALPHA);
    pairwise_mean(inside, outside, labels)
}

/// Cross entropy of the queries' classes, `Σ w_t l / Σ w_t` over all queries of the batch.
///
/// `logits [b, q, k + 1]`, the last class meaning that there is no object; `targets` the `b · q` classes; `weights` one
/// for each of the `k + 1` classes. Zero where all weights are.
pub fn class_cross_entropy(logits: Tensor<3>, targets: &[usize], weights: &[f32]) -> Tensor<1> {
    let [batch, queries, classes] = logits.dims();
    assert_eq!(targets.len(), batch * queries, "class_cross_entropy: one target for each query");
    assert_eq!(weights.len(), classes, "class_cross_entropy: one weight for each class");
    let mut chosen = vec![0f32; targets.len() * classes];
    for (row, target) in chosen.chunks_exact_mut(classes).zip(targets) {
        row[*target] = weights[*target];
    }
    let sum: f64 = targets.iter().map(|target| f64::from(weights[*target])).sum();
    let chosen = Tensor::<3>::from_data(TensorData::new(chosen, [batch, queries, classes]), &logits.device());
    let weighted = (log_softmax(logits, 2) * chosen).sum();
    weighted * if sum > 0.0 { -1.0 / sum } else { 0.0 }
}

/// Binary cross entropy of each point. Written by its two halves, each exact for logits of any size, also at 0.
fn cross_entropy(logits: Tensor<2>, labels: Tensor<2>) -> Tensor<2> {
    softplus(-logits.clone()) * labels.clone() + softplus(logits) * one_minus(labels)
}

/// `ln(1 + e^x)`: the cross entropy of the logit `-x` inside of a mask, and of `x` outside.
fn softplus(x: Tensor<2>) -> Tensor<2> {
    -log_sigmoid(-x)
}

fn one_minus(x: Tensor<2>) -> Tensor<2> {
    x.neg().add_scalar(1.0)
}

fn mean_over_points(losses: Tensor<2>, num_masks: f64) -> Tensor<1> {
    let points = losses.dims()[1];
    losses.sum() / (points as f64 * num_masks)
}

/// The mean over points of `inside` where the labels are 1 and of `outside` where they are 0: `[q, t]`.
fn pairwise_mean(inside: Tensor<2>, outside: Tensor<2>, labels: Tensor<2>) -> Tensor<2> {
    let points = labels.dims()[1];
    let sum = inside.matmul(labels.clone().transpose()) + outside.matmul(one_minus(labels).transpose());
    sum / points as f64
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    type Loss = fn(Tensor<2>, Tensor<2>, f64) -> Tensor<1>;
    type Pairwise = fn(Tensor<2>, Tensor<2>) -> Tensor<2>;

    const LOGITS: [[f64; 6]; 2] = [[-100.0, -20.0, -0.5, 0.0, 3.0, 100.0], [100.0, 20.0, 0.0, 1.0, -2.0, -100.0]];
    const LABELS: [[f64; 6]; 2] = [[0.0, 0.0, 0.25, 1.0, 0.75, 1.0], [0.0, 1.0, 0.0, 0.5, 1.0, 1.0]];
    const NUM_MASKS: f64 = 5.0;

    fn tensor(values: [[f64; 6]; 2]) -> Tensor<2> {
        Tensor::from_data(values.map(|row| row.map(|value| value as f32)), &Device::flex())
    }

    /// The losses of one mask, in f64.
    fn exact(name: &str, x: &[f64; 6], y: &[f64; 6]) -> f64 {
        let p = x.map(|x| 1.0 / (1.0 + (-x).exp()));
        let points = || p.iter().zip(x).zip(y).map(|((p, x), y)| (*p, *x, *y));
        let entropy = |x: f64, y: f64| x.max(0.0) - x * y + (-x.abs()).exp().ln_1p();
        match name {
            "entropy" => points().map(|(_, x, y)| entropy(x, y)).sum::<f64>() / 6.0,
            "focal" => {
                let each = points().map(|(p, x, y)| {
                    let hit = p * y + (1.0 - p) * (1.0 - y);
                    entropy(x, y) * (1.0 - hit).powi(2) * (0.25 * y + 0.75 * (1.0 - y))
                });
                each.sum::<f64>() / 6.0
            }
            _ => {
                let sum = |f: fn((f64, f64, f64)) -> f64| points().map(f).sum::<f64>();
                1.0 - (2.0 * sum(|(p, _, y)| p * y) + 1.0) / (sum(|(p, ..)| p) + sum(|(.., y)| y) + 1.0)
            }
        }
    }

    #[test]
    fn values_and_gradients_are_exact_for_logits_of_any_size() {
        let losses: [(&str, Loss); 3] = [("entropy", sigmoid_cross_entropy), ("dice", dice), ("focal", focal)];
        for (name, loss) in losses {
            let of = |logits: [[f64; 6]; 2]| {
                logits.iter().zip(&LABELS).map(|(x, y)| exact(name, x, y)).sum::<f64>() / NUM_MASKS
            };
            let x = Tensor::from_inner(tensor(LOGITS)).require_grad();
            let y = loss(x.clone(), Tensor::from_inner(tensor(LABELS)), NUM_MASKS);
            let gradient: Vec<f32> = x.grad(&y.clone().backward()).unwrap().into_data().try_to_vec().unwrap();
            let value = f64::from(y.into_scalar::<f32>());
            assert!((value - of(LOGITS)).abs() < 1e-6 * of(LOGITS), "{name}: {value} for {}", of(LOGITS));
            for (i, gradient) in gradient.iter().enumerate() {
                let step = |h: f64| {
                    let mut logits = LOGITS;
                    logits[i / 6][i % 6] += h;
                    of(logits)
                };
                let expected = (step(1e-4) - step(-1e-4)) / 2e-4;
                assert!((f64::from(*gradient) - expected).abs() < 1e-6, "{name} {i}: {gradient} for {expected}");
            }
        }
    }

    #[test]
    fn pairs_are_single_masks() {
        let losses: [(Pairwise, Loss); 3] =
            [(pairwise_sigmoid_cross_entropy, sigmoid_cross_entropy), (pairwise_dice, dice), (pairwise_focal, focal)];
        let labels = LABELS.map(|row| row.map(f64::round));
        for (pairwise, single) in losses {
            let pairs: Vec<f32> = pairwise(tensor(LOGITS), tensor(labels)).into_data().try_to_vec().unwrap();
            for (i, pair) in pairs.iter().enumerate() {
                let (x, y) = (tensor(LOGITS).narrow(0, i / 2, 1), tensor(labels).narrow(0, i % 2, 1));
                let expected: f32 = single(x, y, 1.0).into_scalar();
                assert!((pair - expected).abs() < 2e-6 * (1.0 + expected), "{i}: {pair} for {expected}");
            }
        }
    }

    #[test]
    fn no_targets_have_no_pairs() {
        let none = Tensor::<2>::zeros([0, 6], &Device::flex());
        for pairwise in [pairwise_sigmoid_cross_entropy, pairwise_dice, pairwise_focal] {
            assert_eq!(pairwise(tensor(LOGITS), none.clone()).dims(), [2, 0]);
        }
        for loss in [sigmoid_cross_entropy, dice, focal] {
            let value: f32 = loss(none.clone(), none.clone(), 1.0).into_scalar();
            assert_eq!(value, 0.0);
        }
    }

    #[test]
    fn classes_weigh_what_they_weigh() {
        let logits = Tensor::<3>::from_data([[[1.0, 2.0, 0.0], [100.0, -100.0, 0.0]]], &Device::flex());
        let entropy = |row: [f64; 3], target: usize| row.map(f64::exp).iter().sum::<f64>().ln() - row[target];
        let rows = [entropy([1.0, 2.0, 0.0], 2), entropy([100.0, -100.0, 0.0], 1)];
        for weights in [[1.0, 1.0, 1.0], [1.0, 0.5, 0.1]] {
            let [a, b] = [weights[2], weights[1]].map(f64::from);
            let expected = (a * rows[0] + b * rows[1]) / (a + b);
            let value = class_cross_entropy(logits.clone(), &[2, 1], &weights).into_scalar::<f32>();
            assert!((f64::from(value) - expected).abs() < 1e-6 * expected, "{value} for {expected}");
        }
        let value: f32 = class_cross_entropy(logits, &[2, 1], &[1.0, 0.0, 0.0]).into_scalar();
        assert_eq!(value, 0.0);
    }
}
