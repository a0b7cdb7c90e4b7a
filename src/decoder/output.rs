//! The output of a decoder for a batch of images.

use std::ops::Range;

use burn::tensor::Tensor;
use burn::tensor::activation::{sigmoid, softmax};
/// The two ways to segment: classes at every place, or masks that have a class.
#[allow(clippy::large_enum_variant, reason = "a pass has one output")]
#[derive(Clone, Debug)]
pub enum Output {
    /// Per-pixel classification and structure tokens.
    Dense {
        /// Class scores, `[b, h, w, k]`, on a grid that spans the padded images.
        logits: Tensor<4>,
        /// Scores of the same kind that are only trained.
        auxiliary: Vec<Tensor<4>>,
    },
    /// Mask classification.
    Queries {
        /// One prediction per layer; the last is the answer.
        predictions: Vec<Queries>,
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

/// What inference reads of an [`Output`]: maps on a grid that spans the padded images, and how they become class
/// scores.
#[derive(Clone, Debug)]
pub struct SegLogits {
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

impl From<Tensor<4>> for SegLogits {
    fn from(maps: Tensor<4>) -> Self {
        Self { maps, votes: None }
    }
}

impl Output {
    /// What inference reads.
    pub fn seg_logits(self) -> SegLogits {
        match self {
            Self::Dense { logits, .. } => logits.into(),
            Self::Queries { mut predictions, .. } => {
                let Some(Queries { classes, masks }) = predictions.pop() else {
                    unreachable!("a query decoder predicts at least once")
                };
                let [b, q, k] = classes.dims();
                let votes = softmax(classes, 2).slice([0..b, 0..q, 0..k - 1]); // [b, q, k]
                SegLogits { maps: masks.permute([0, 2, 3, 1]), votes: Some(votes) }
            }
        }
    }

    /// Class scores on the decoder's own grid, `[b, h, w, k]`: logits, or the sum of the masks' votes.
    pub fn scores(self) -> Tensor<4> {
        self.seg_logits().scores()
    }
}

impl SegLogits {
    /// Some images of the batch.
    #[must_use]
    pub fn images(&self, range: Range<usize>) -> Self {
        let slice = |votes: &Tensor<3>| votes.clone().narrow(0, range.start, range.len());
        Self { maps: self.maps.clone().narrow(0, range.start, range.len()), votes: self.votes.as_ref().map(slice) }
    }

    /// Class scores where the maps lie, `[b, h, w, k]`: logits, or for each class the sum over masks of its vote times
    /// the sigmoid of the mask ("semantic inference", Cheng et al. 2021, section 3.4). The sums are not a distribution.
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
