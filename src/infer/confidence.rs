//! How probable the labels are, and the truth: two numbers per pixel, so that the planes of all classes need not exist.

use std::ops::Range;

use burn::tensor::{Int, Tensor, TensorData};

use crate::error::Result;
use crate::image::Labels;
use crate::infer::config::InferConfig;
use crate::infer::postprocess;
use crate::infer::view::View;
use crate::infer::view_logits::MultiViewLogits;
use crate::infer::{Network, on_cpu, unread};

/// How probable the answer is, pixel by pixel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Confidence {
    /// The probability of the predicted class, `height * width`.
    pub confidence: Vec<f32>,
    /// The probability of the true class; 0 where there is none.
    pub of_truth: Vec<f32>,
}

/// [`labels`](super::labels) of one image, equal to the last bit, with the probabilities of the label and of the
/// `truth`, which has the size of the answer. Those of the other classes are never kept. Fails if the device cannot be
/// read.
pub fn labels_with_confidence(
    network: &dyn Network,
    views: &[View<'_>],
    truth: &Labels,
    config: &InferConfig,
) -> Result<(Labels, Confidence)> {
    labels_with_confidence_by(network, views, truth, config, on_cpu(views))
}

fn labels_with_confidence_by(
    network: &dyn Network,
    views: &[View<'_>],
    truth: &Labels,
    config: &InferConfig,
    on_cpu: bool,
) -> Result<(Labels, Confidence)> {
    assert_eq!(views[0].batch(), 1, "one image at a time");
    let (width, height) = (truth.width, truth.height);
    let mut views_logits = MultiViewLogits::new(network, views, (height, width), config);
    let mut ids = Vec::with_capacity(width * height);
    let new_plane = || Vec::with_capacity(width * height);
    let mut confidence = Confidence { confidence: new_plane(), of_truth: new_plane() };
    for rows in views_logits.bands() {
        let found = match on_cpu {
            true => postprocess::labels_with_confidence(&views_logits.fetch(rows.clone())?, 0, rows, &truth.ids),
            false => {
                views_logits.labels_with_confidence(rows.clone(), &truth.ids[rows.start * width..rows.end * width])?
            }
        };
        for (id, of_label, of_truth) in found {
            ids.push(id);
            confidence.confidence.push(of_label);
            confidence.of_truth.push(of_truth);
        }
    }
    Ok((Labels { width, height, ids }, confidence))
}

impl MultiViewLogits<'_> {
    /// Label, its probability and that of the truth, [rows, w], of some output rows of one image.
    fn labels_with_confidence(&mut self, rows: Range<usize>, truth: &[u8]) -> Result<Vec<postprocess::Certain>> {
        let scores = self.scores(rows.clone()); // [1, rows, w, k]
        self.check()?;
        let ids = scores.clone().argmax(3); // [1, rows, w, 1]
        let probabilities = self.of_scores(scores);
        let k = probabilities.dims()[3];
        let known: Vec<i32> = truth.iter().map(|id| if usize::from(*id) < k { i32::from(*id) } else { 0 }).collect();
        let shape = [1, rows.len(), truth.len() / rows.len(), 1];
        let known = Tensor::<4, Int>::from_data(TensorData::new(known, shape), &probabilities.device());
        let of = |ids: Tensor<4, Int>| read(probabilities.clone().gather(3, ids));
        let (confidence, of_truth) = (of(ids.clone())?, of(known)?);
        let ids: Vec<i32> = ids.try_into_vec_as().map_err(unread)?;
        let pixels = ids.into_iter().zip(confidence).zip(of_truth).zip(truth);
        let pixel = |(((id, p), t), truth): (((i32, f32), f32), &u8)| {
            (id as u8, p, if usize::from(*truth) < k { t } else { 0.0 })
        };
        Ok(pixels.map(pixel).collect())
    }
}

fn read(values: Tensor<4>) -> Result<Vec<f32>> {
    values.try_into_vec_as().map_err(unread)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoder::SegLogits;
    use crate::infer::toy::{Toy, noise, values};
    use crate::infer::{InferMode, both_by, labels_by, probabilities_by};

    fn config() -> InferConfig {
        InferConfig { crop: [12, 16], stride: [8, 10], windows_per_batch: 3, ..InferConfig::default() }
    }

    /// Labels equal to the last bit, and the probabilities those of the full planes, on both paths and in bands.
    fn assert_certain(network: &dyn Network, views: &[View], size: (usize, usize), config: &InferConfig) {
        let k = network.classes();
        let truth: Vec<u8> = (0..size.0 * size.1).map(|i| if i % 5 == 0 { 255 } else { (i * 7 % k) as u8 }).collect();
        let truth = Labels { width: size.1, height: size.0, ids: truth };
        let full = values(probabilities_by(network, views, size, config, true).unwrap());
        for on_cpu in [false, true] {
            let plain = labels_by(network, views, size, config, on_cpu, &mut |_| {}).unwrap().remove(0);
            let (found, confidence) = labels_with_confidence_by(network, views, &truth, config, on_cpu).unwrap();
            assert_eq!(found, plain);
            let alone = values(probabilities_by(network, views, size, config, on_cpu).unwrap());
            let (labels, probabilities) = both_by(network, views, size, config, on_cpu, &mut |_| {}).unwrap();
            assert!(labels == [plain] && values(probabilities) == alone, "both at once are what each is alone");
            for at in 0..truth.ids.len() {
                let p = |id: u8| full.get(usize::from(id) * truth.ids.len() + at).copied().unwrap_or(0.0);
                assert!((confidence.confidence[at] - p(found.ids[at])).abs() < 1e-6);
                assert!((confidence.of_truth[at] - p(truth.ids[at])).abs() < 1e-6, "{at}");
            }
        }
    }

    #[test]
    fn certainty_changes_no_label_and_is_that_of_full_planes() {
        let size = (30, 45);
        let banded = InferConfig { logits_mb: 0, ..config() };
        let images = noise(9, [1, 3, 30, 45]);
        let small = noise(8, [1, 3, 23, 34]);
        let one = [View::of_tensor(images.clone(), false)];
        let many = [one[0].clone(), View::of_tensor(images.flip([3]), true), View::of_tensor(small, false)];
        for config in [config(), banded, InferConfig { mode: InferMode::Whole, ..config() }] {
            for k in [1, 6, 40] {
                for views in [&one[..], &many[..], &many[1..2]] {
                    assert_certain(&Toy::new(k), views, size, &config);
                }
            }
        }
    }

    #[test]
    fn votes_are_shares_of_all() {
        struct Voting;
        impl Network for Voting {
            fn predict_logits(&self, images: Tensor<4>) -> SegLogits {
                let votes = TensorData::new((0..30).map(|i| (i * 7 % 11) as f32 / 11.0).collect::<Vec<_>>(), [1, 6, 5]);
                let [b, ..] = images.dims();
                let votes = Tensor::<3>::from_data(votes, &images.device()).expand([b, 6, 5]);
                SegLogits { maps: Toy::new(6).predict_logits(images).maps, votes: Some(votes) }
            }
            fn classes(&self) -> usize {
                5
            }
            fn padded(&self, side: usize) -> usize {
                side.next_multiple_of(4)
            }
        }
        let views = [View::of_tensor(noise(3, [1, 3, 29, 43]), false), View::of_tensor(noise(4, [1, 3, 20, 30]), true)];
        for config in [config(), InferConfig { logits_mb: 0, ..config() }] {
            assert_certain(&Voting, &views[..1], (29, 43), &config);
            assert_certain(&Voting, &views, (29, 43), &config);
        }
    }
}
