//! The loss of a prediction for every pixel: cross entropy with class weights, and what is put beside it or in its
//! place.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::kernels;
use crate::layers::without_graph;
use crate::loss::{Criterion, IGNORE, Targets};

/// `[train.loss]` of a recipe: weights of the parts, each computed at the size of the labels, and how they are
/// computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct DenseLossConfig {
    /// Weight of the cross entropy.
    pub cross_entropy: f64,
    /// Exponent of the focal loss, which takes the place of the cross entropy: `-(1 - p)^gamma ln p` (Lin et al. 2017).
    /// 0 is cross entropy, 2 is usual.
    pub focal_gamma: f64,
    /// Online hard example mining: pixels whose class is predicted with more than this probability do not count in the
    /// cross entropy (Shrivastava et al. 2016); as mmsegmentation's `OHEMPixelSampler`, 0.7 is usual.
    pub ohem_threshold: Option<f64>,
    /// Pixels per image that count all the same, the hardest.
    pub ohem_min_kept: usize,
    /// Adds the logarithms of `train.class_weights` to the logits of the cross entropy. Rare classes are then learned
    /// from more, and are predicted no more often than they are there (logit adjustment, Menon et al. 2021).
    pub adjust_logits: bool,
    /// Weight of the soft Dice loss, `1 - 2 Σ p y / (Σ p + Σ y)` of each class over the batch, the mean over classes
    /// that are in it (Drozdzal et al. 2016; nnU-Net's, batch Dice). Holds the probabilities of all pixels in memory.
    pub dice: f64,
    /// Weight of the Lovász-Softmax loss over the batch, the mean over classes that are in it (Berman et al. 2018).
    /// Holds the probabilities of all pixels in memory and sorts them.
    pub lovasz: f64,
}

impl Default for DenseLossConfig {
    fn default() -> Self {
        Self {
            cross_entropy: 1.0,
            focal_gamma: 0.0,
            ohem_threshold: None,
            ohem_min_kept: 100_000,
            adjust_logits: false,
            dice: 0.0,
            lovasz: 0.0,
        }
    }
}

impl DenseLossConfig {
    /// Refuses values that cannot work, naming the key.
    ///
    /// # Errors
    /// A weight, an exponent or a threshold out of its range.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: &str| Err(Error::new(what));
        let weights = [self.cross_entropy, self.dice, self.lovasz];
        if weights.iter().any(|weight| !weight.is_finite() || *weight < 0.0) || weights.iter().all(|w| *w == 0.0) {
            return refuse("loss.cross_entropy, dice and lovasz must be finite and not negative, and not all 0");
        }
        if !(self.focal_gamma == 0.0 || (1.0..=10.0).contains(&self.focal_gamma)) {
            return refuse("loss.focal_gamma must be 0, or 1 to 10");
        }
        if self.ohem_threshold.is_some_and(|threshold| !(threshold > 0.0 && threshold < 1.0)) {
            return refuse("loss.ohem_threshold must be between 0 and 1; leave it out to count all pixels");
        }
        Ok(())
    }
}

impl Criterion {
    /// The weighted parts of the loss of logits `[b, h, w, k]`.
    pub(super) fn dense(&self, logits: Tensor<4>, targets: &Targets) -> BTreeMap<String, Tensor<1>> {
        let config = &self.config;
        let mut parts = BTreeMap::new();
        if config.dice > 0.0 || config.lovasz > 0.0 {
            let [_, height, width] = targets.shape;
            let k = logits.dims()[3];
            let probabilities = kernels::upsample_probabilities(logits.clone(), height, width);
            let probabilities = probabilities.reshape([targets.ids.len(), k]);
            if config.dice > 0.0 {
                parts.insert("dice".to_owned(), dice(probabilities.clone(), &targets.ids) * config.dice);
            }
            if config.lovasz > 0.0 {
                parts.insert("lovasz".to_owned(), lovasz(probabilities, &targets.ids) * config.lovasz);
            }
        }
        if config.cross_entropy > 0.0 {
            let loss = match config.ohem_threshold {
                Some(threshold) => self.cross_entropy(
                    logits.clone(),
                    &without_easy_pixels(logits, targets, threshold, config.ohem_min_kept),
                ),
                None => self.cross_entropy(logits, targets),
            };
            let name = if config.focal_gamma > 0.0 { "focal" } else { "cross_entropy" };
            parts.insert(name.to_owned(), loss * config.cross_entropy);
        }
        parts
    }

    fn cross_entropy(&self, logits: Tensor<4>, targets: &Targets) -> Tensor<1> {
        let device = logits.device().without_autodiff();
        let weights = (!self.class_weights.is_empty()).then(|| self.class_weights(&device).flatten(0, 1));
        let labels = targets.labels(&logits.device());
        let logits = match self.config.adjust_logits {
            true => logits + self.logarithms(&device),
            false => logits,
        };
        kernels::upsample_focal_loss(logits, labels, weights, self.mean, self.config.focal_gamma)
    }

    /// The class weights, `[1, k]`.
    fn class_weights(&self, device: &Device) -> Tensor<2> {
        self.constant("class weights", device, |weight| weight)
    }

    /// The logarithms of the class weights, `[1, 1, 1, k]`. A constant of every pixel, which resampling leaves as it
    /// is.
    fn logarithms(&self, device: &Device) -> Tensor<4> {
        self.constant("logarithms of class weights", device, f32::ln).unsqueeze()
    }

    fn constant(&self, name: &'static str, device: &Device, of: fn(f32) -> f32) -> Tensor<2> {
        let key = (name, self.class_weights.iter().map(|weight| weight.to_bits() as usize).collect());
        let size = [1, self.class_weights.len()];
        kernels::constant(key, size, device, DType::F32, || self.class_weights.iter().copied().map(of).collect())
    }

    /// Whether the loss of dense predictions asks the device alone, with [targets that lie there](Targets::on_device).
    pub(crate) fn is_on_device(&self) -> bool {
        self.config.dice == 0.0 && self.config.lovasz == 0.0 && self.config.ohem_threshold.is_none()
    }
}

/// The targets without the pixels that are predicted well.
fn without_easy_pixels(logits: Tensor<4>, targets: &Targets, threshold: f64, min_kept: usize) -> Targets {
    let [_, height, width] = targets.shape;
    let k = logits.dims()[3];
    let all = kernels::upsample_probabilities(without_graph(logits), height, width).into_data();
    let all: Vec<f32> = all.iter::<f32>().collect();
    let own = |at: usize| match targets.ids[at] {
        IGNORE => None,
        id => Some(all[at * k + usize::from(id)]),
    };
    let mut ids = targets.ids.to_vec();
    let mut sorted: Vec<f32> = (0..ids.len()).filter_map(own).collect();
    let kept = min_kept.saturating_mul(targets.shape[0]).min(sorted.len());
    // The hardest `kept` count whatever their probability.
    let least = match kept {
        0 => 0.0,
        kept => *sorted.select_nth_unstable_by(kept - 1, f32::total_cmp).1,
    };
    let limit = least.max(threshold as f32);
    for (at, id) in ids.iter_mut().enumerate() {
        if own(at).is_some_and(|probability| probability > limit) {
            *id = IGNORE;
        }
    }
    Targets::new(ids, targets.shape)
}

/// The soft Dice loss of probabilities `[n, k]` for the classes of n pixels.
fn dice(probabilities: Tensor<2>, ids: &[u8]) -> Tensor<1> {
    let k = probabilities.dims()[1];
    let device = probabilities.device();
    let (labels, counts) = one_hot(ids, k, &device);
    let valid: Vec<f32> = ids.iter().map(|id| f32::from(u8::from(*id != IGNORE))).collect();
    let valid = Tensor::<2>::from_data(TensorData::new(valid, [ids.len(), 1]), &device);
    let both = (probabilities.clone() * labels).sum_dim(0); // [1, k]
    let either = (probabilities * valid).sum_dim(0);
    let shares: Vec<f32> = counts.iter().map(|count| f32::from(u8::from(*count > 0))).collect();
    let present = shares.iter().sum::<f32>().max(1.0);
    let counts: Vec<f32> = counts.into_iter().map(|count| count as f32).collect();
    let row = |values: Vec<f32>| Tensor::<2>::from_data(TensorData::new(values, [1, k]), &device);
    let overlap = both * 2.0 / (either + row(counts)).clamp_min(1e-5);
    ((overlap.neg().add_scalar(1.0)) * row(shares)).sum() / f64::from(present)
}

/// The Lovász-Softmax loss of probabilities `[n, k]` for the classes of n pixels.
///
/// The loss of a class is the sum of its errors `|y - p|`, each times the growth of the Jaccard loss when the pixels up
/// to this one, by falling error, are taken for wrong. That growth is a constant for the gradient.
fn lovasz(probabilities: Tensor<2>, ids: &[u8]) -> Tensor<1> {
    let k = probabilities.dims()[1];
    let device = probabilities.device();
    let (labels, counts) = one_hot(ids, k, &device);
    let values: Vec<f32> = without_graph(probabilities.clone()).into_data().iter::<f32>().collect();
    let valid: Vec<usize> = (0..ids.len()).filter(|at| ids[*at] != IGNORE).collect();
    let mut growth = vec![0f32; ids.len() * k];
    for (class, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let error = |at: usize| {
            let p = values[at * k + class];
            if usize::from(ids[at]) == class { 1.0 - p } else { p }
        };
        let mut order: Vec<(f32, usize)> = valid.iter().map(|at| (error(*at), *at)).collect();
        order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let (mut missed, mut added, mut before) = (0u64, 0u64, 0.0);
        for (_, at) in order {
            match usize::from(ids[at]) == class {
                true => missed += 1,
                false => added += 1,
            }
            let jaccard = 1.0 - (count - missed) as f64 / (count + added) as f64;
            growth[at * k + class] = (jaccard - before) as f32;
            before = jaccard;
        }
    }
    let present = counts.iter().filter(|count| **count > 0).count().max(1);
    let growth = Tensor::<2>::from_data(TensorData::new(growth, [ids.len(), k]), &device);
    ((labels - probabilities).abs() * growth).sum() / present as f64
}

/// `[n, k]`, all 0 for pixels without a class; and the pixels of each class.
fn one_hot(ids: &[u8], k: usize, device: &Device) -> (Tensor<2>, Vec<u64>) {
    let (mut values, mut counts) = (vec![0f32; ids.len() * k], vec![0; k]);
    for (row, id) in values.chunks_exact_mut(k).zip(ids).filter(|(_, id)| **id != IGNORE) {
        row[usize::from(*id)] = 1.0;
        counts[usize::from(*id)] += 1;
    }
    (Tensor::from_data(TensorData::new(values, [ids.len(), k]), device), counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::LossMean;
    use crate::rng::Rng;

    const K: usize = 4;
    /// Class 2 is not there.
    const IDS: [u8; 9] = [0, 1, 1, IGNORE, 3, 0, 1, IGNORE, 3];

    fn probabilities(seed: u64) -> Vec<f64> {
        let mut rng = Rng::new(seed, &[]);
        let rows = (0..IDS.len()).flat_map(|_| {
            let row: [f64; K] = std::array::from_fn(|_| f64::from(rng.uniform()) + 0.05);
            row.map(|value| value / row.iter().sum::<f64>())
        });
        rows.collect()
    }

    fn valid() -> impl Iterator<Item = usize> {
        (0..IDS.len()).filter(|at| IDS[*at] != IGNORE)
    }

    /// By the sums of its definition.
    fn exact_dice(p: &[f64]) -> f64 {
        let class = |class: usize| {
            let y = |at: usize| f64::from(u8::from(usize::from(IDS[at]) == class));
            let both: f64 = valid().map(|at| p[at * K + class] * y(at)).sum();
            1.0 - 2.0 * both / valid().map(|at| p[at * K + class] + y(at)).sum::<f64>()
        };
        [0, 1, 3].map(class).iter().sum::<f64>() / 3.0
    }

    /// By the integral over thresholds t of the Jaccard loss that pixels with an error of t or more make together.
    fn exact_lovasz(p: &[f64]) -> f64 {
        let class = |class: usize| {
            let within = |at: usize| usize::from(IDS[at]) == class;
            let error = |at: usize| if within(at) { 1.0 - p[at * K + class] } else { p[at * K + class] };
            let mut steps: Vec<f64> = valid().map(error).chain([0.0]).collect();
            steps.sort_unstable_by(f64::total_cmp);
            let jaccard = |t: f64| {
                let kept = valid().filter(|at| within(*at) && error(*at) < t).count();
                let union = valid().filter(|at| within(*at) || error(*at) >= t).count();
                1.0 - kept as f64 / union as f64
            };
            steps.windows(2).map(|pair| (pair[1] - pair[0]) * jaccard(pair[1])).sum::<f64>()
        };
        [0, 1, 3].map(class).iter().sum::<f64>() / 3.0
    }

    #[test]
    fn dice_and_lovasz_are_their_definitions() {
        type Loss = fn(Tensor<2>, &[u8]) -> Tensor<1>;
        type Exact = fn(&[f64]) -> f64;
        let losses: [(Loss, Exact); 2] = [(dice, exact_dice), (lovasz, exact_lovasz)];
        for (seed, (loss, exact)) in (0..5).flat_map(|seed| losses.map(|loss| (seed, loss))) {
            let values = probabilities(seed);
            let data: Vec<f32> = values.iter().map(|value| *value as f32).collect();
            let x = Tensor::<2>::from_data(TensorData::new(data, [IDS.len(), K]), &Device::flex().autodiff());
            let x = x.require_grad();
            let y = loss(x.clone(), &IDS);
            let gradient: Vec<f32> = x.grad(&y.clone().backward()).unwrap().into_data().try_to_vec().unwrap();
            let (value, expected) = (f64::from(y.into_scalar::<f32>()), exact(&values));
            assert!((value - expected).abs() < 1e-6, "{seed}: {value} for {expected}");
            for (i, gradient) in gradient.iter().enumerate() {
                let step = |h: f64| {
                    let mut values = values.clone();
                    values[i] += h;
                    exact(&values)
                };
                let expected = (step(1e-6) - step(-1e-6)) / 2e-6;
                assert!((f64::from(*gradient) - expected).abs() < 1e-5, "{seed} {i}: {gradient} for {expected}");
            }
        }
    }

    fn logits() -> Tensor<4> {
        // The first class of four, more and more surely.
        let values: Vec<f32> = (0..9).flat_map(|at| [at as f32 - 2.0, 0.0, 0.0, 0.0]).collect();
        Tensor::from_data(TensorData::new(values, [1, 3, 3, K]), &Device::flex())
    }

    #[test]
    fn what_is_predicted_well_does_not_count() {
        let targets = Targets::new(vec![0, 0, 0, 0, IGNORE, 0, 0, 1, 0], [1, 3, 3]);
        let kept = |threshold, min_kept| {
            let hard = without_easy_pixels(logits(), &targets, threshold, min_kept);
            (0..9).filter(|at| hard.ids[*at] != IGNORE).collect::<Vec<_>>()
        };
        // p = e^x / (e^x + 3) for x = -2, -1, 0, 1, 2, 3, 4, 5, 6; the truth at 7 is the second class.
        assert_eq!(kept(0.5, 0), [0, 1, 2, 3, 7]);
        assert_eq!(kept(0.5, 6), [0, 1, 2, 3, 5, 7]);
        assert_eq!(kept(0.01, 1), [7]);
        assert_eq!(kept(0.01, 100), [0, 1, 2, 3, 5, 6, 7, 8]);
    }

    #[test]
    fn parts_are_weighted_and_named() {
        let targets = Targets::new(vec![0, 1, 2, 3, IGNORE, 0, 1, 2, 3], [1, 3, 3]);
        let parts = |config: DenseLossConfig| -> BTreeMap<String, f32> {
            let parts = Criterion { config, ..Criterion::default() }.dense(logits(), &targets);
            parts.into_iter().map(|(name, part)| (name, part.into_scalar())).collect()
        };
        let all = DenseLossConfig { dice: 1.0, lovasz: 1.0, ..DenseLossConfig::default() };
        let (once, twice) =
            (parts(all.clone()), parts(DenseLossConfig { dice: 2.0, lovasz: 2.0, cross_entropy: 2.0, ..all }));
        assert_eq!(once.keys().collect::<Vec<_>>(), ["cross_entropy", "dice", "lovasz"]);
        once.iter().for_each(|(name, part)| assert!(*part > 0.1 && twice[name] == 2.0 * part, "{name}: {part}"));
        let focal = parts(DenseLossConfig { focal_gamma: 2.0, ..DenseLossConfig::default() });
        assert!(focal["focal"] < once["cross_entropy"]);
    }

    /// What is predicted in the end: the weights are in the gradient and not in the answer.
    #[test]
    fn adjusted_logits_end_where_they_would_without_weights() {
        let ids: Vec<u8> = (0..16).map(|at| u8::from(at >= 12)).collect();
        let targets = Targets::new(ids, [1, 4, 4]);
        let gradient = |logits: [f32; 2], adjust_logits| {
            let config = DenseLossConfig { adjust_logits, ..DenseLossConfig::default() };
            let criterion =
                Criterion { config, class_weights: vec![0.5, 2.0], mean: LossMean::Valid, ..Criterion::default() };
            let x =
                Tensor::<4>::from_data(TensorData::new(logits.repeat(16), [1, 4, 4, 2]), &Device::flex().autodiff());
            let x = x.require_grad();
            let loss = criterion.dense(x.clone(), &targets).remove("cross_entropy").unwrap();
            let gradient: Vec<f32> = x.grad(&loss.backward()).unwrap().into_data().try_to_vec().unwrap();
            gradient.chunks_exact(2).map(|pixel| pixel[0]).sum::<f32>()
        };
        // The shares of the classes are 3/4 and 1/4; weighted they are 3/7 and 4/7.
        assert!(gradient([3f32.ln(), 0.0], true).abs() < 1e-6);
        assert!(gradient([0.75f32.ln(), 0.0], false).abs() < 1e-6);
        assert!(gradient([0.75f32.ln(), 0.0], true) < -0.1 && gradient([3f32.ln(), 0.0], false) > 0.1);
    }

    #[test]
    fn settings_are_checked() {
        let refused = |change: fn(&mut DenseLossConfig)| {
            let mut config = DenseLossConfig::default();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(DenseLossConfig::default().check().is_ok());
        assert!(refused(|config| config.cross_entropy = 0.0).contains("not all 0"));
        assert!(refused(|config| config.focal_gamma = 0.5).contains("focal_gamma"));
        assert!(refused(|config| config.ohem_threshold = Some(1.0)).contains("ohem_threshold"));
    }
}
