//! What a decoder says of a batch of images, and how it is to be judged.

use std::ops::Range;

use burn::tensor::Tensor;
use burn::tensor::activation::{sigmoid, softmax};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The two ways to segment: classes at every place, or masks that have a class.
#[derive(Clone, Debug)]
pub enum Output {
    /// Per-pixel classification and structure tokens.
    Dense {
        /// Class scores, `[b, h, w, k]`, on a grid that spans the padded images.
        logits: Tensor<4>,
        /// Scores of the same kind that are only trained, each with the weight of its loss.
        auxiliary: Vec<(f64, Tensor<4>)>,
    },
    /// Mask classification.
    Queries {
        /// One prediction a layer; the last is the answer.
        predictions: Vec<Queries>,
        /// How they are judged.
        loss: SetLossConfig,
    },
}

/// A set of masks, each with the scores of its class (Cheng et al. 2021, section 3.2).
#[derive(Clone, Debug)]
pub struct Queries {
    /// `[b, q, k + 1]`, the last class being "no object".
    pub classes: Tensor<3>,
    /// Mask logits, `[b, q, h, w]`, on a grid that spans the padded images.
    pub masks: Tensor<4>,
}

/// What inference reads of an [`Output`]: maps on a grid that spans the padded images, and how they become class scores.
#[derive(Clone, Debug)]
pub struct Answer {
    /// `[b, h, w, c]`: class logits, or with votes the logits of masks.
    pub maps: Tensor<4>,
    /// How strongly each mask votes for each class, `[b, c, k]`; none where the maps are the classes themselves.
    pub votes: Option<Tensor<3>>,
}

impl From<Tensor<4>> for Output {
    fn from(logits: Tensor<4>) -> Self {
        Self::Dense { logits, auxiliary: Vec::new() }
    }
}

impl From<Tensor<4>> for Answer {
    fn from(maps: Tensor<4>) -> Self {
        Self { maps, votes: None }
    }
}

impl Output {
    /// What inference reads.
    pub fn answer(self) -> Answer {
        match self {
            Self::Dense { logits, .. } => logits.into(),
            Self::Queries { mut predictions, .. } => {
                let Some(Queries { classes, masks }) = predictions.pop() else {
                    unreachable!("a query decoder predicts at least once")
                };
                let [b, q, k] = classes.dims();
                let votes = softmax(classes, 2).slice([0..b, 0..q, 0..k - 1]); // [b, q, k]
                Answer { maps: masks.permute([0, 2, 3, 1]), votes: Some(votes) }
            }
        }
    }

    /// Class scores on the decoder's own grid, `[b, h, w, k]`: logits, or the sum of the masks' votes.
    pub fn scores(self) -> Tensor<4> {
        self.answer().scores()
    }
}

impl Answer {
    /// Some images of the batch.
    #[must_use]
    pub fn images(&self, range: Range<usize>) -> Self {
        let slice = |votes: &Tensor<3>| votes.clone().narrow(0, range.start, range.len());
        Self { maps: self.maps.clone().narrow(0, range.start, range.len()), votes: self.votes.as_ref().map(slice) }
    }

    /// Class scores where the maps lie, `[b, h, w, k]`: logits, or for each class the sum over masks of its vote times the
    /// sigmoid of the mask ("semantic inference", Cheng et al. 2021, section 3.4). The sums are no distribution.
    pub fn scores(self) -> Tensor<4> {
        match self.votes {
            None => self.maps,
            Some(votes) => {
                let [b, h, w, q] = self.maps.dims();
                let k = votes.dims()[2];
                sigmoid(self.maps).reshape([b, h * w, q]).matmul(votes).reshape([b, h, w, k])
            }
        }
    }
}

/// How predictions of queries are matched with the truth and judged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SetLossConfig {
    /// Weight of the class, in the loss and in the matching.
    pub class_weight: f64,
    /// Weight of the cross entropy of masks.
    pub mask_weight: f64,
    /// Weight of the dice loss of masks.
    pub dice_weight: f64,
    /// Weight of the class "no object" among the classes.
    pub no_object_weight: f64,
    /// Points at which masks are compared; 0 compares all pixels, by focal loss instead of cross entropy (MaskFormer).
    pub num_points: usize,
    /// Points drawn for each that is kept, of which the most uncertain are taken.
    pub oversample_ratio: f64,
    /// Share of points taken for their uncertainty; the others are drawn afresh.
    pub importance_sample_ratio: f64,
}

impl Default for SetLossConfig {
    fn default() -> Self {
        Self {
            class_weight: 2.0,
            mask_weight: 5.0,
            dice_weight: 5.0,
            no_object_weight: 0.1,
            num_points: 12544,
            oversample_ratio: 3.0,
            importance_sample_ratio: 0.75,
        }
    }
}

impl SetLossConfig {
    /// MaskFormer's: focal loss over all pixels.
    pub fn maskformer() -> Self {
        Self { class_weight: 1.0, mask_weight: 20.0, dice_weight: 1.0, num_points: 0, ..Self::default() }
    }

    pub(super) fn check(&self) -> Result<()> {
        let refuse = |what: &str| Err(Error::new(format!("model.decoder.loss: {what}")));
        let weights = [self.class_weight, self.mask_weight, self.dice_weight, self.no_object_weight];
        if weights.iter().any(|weight| !weight.is_finite() || *weight < 0.0) {
            return refuse("weights must be finite and not negative");
        }
        if self.num_points > 1 << 20 || !(1.0..=64.0).contains(&self.oversample_ratio) {
            return refuse("num_points or oversample_ratio is out of range");
        }
        if !(0.0..=1.0).contains(&self.importance_sample_ratio) {
            return refuse("importance_sample_ratio must lie in [0, 1]");
        }
        Ok(())
    }
}
