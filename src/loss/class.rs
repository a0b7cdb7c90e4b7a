//! Cross entropy of the queries' classes.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Tensor, TensorData};

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

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

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
