//! The loss that a decoder asks for: the weight of its auxiliary predictions, and the settings of the loss of queries.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What a decoder asks of the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecoderLoss {
    /// Weight of the loss of each auxiliary prediction of a dense decoder.
    pub auxiliary_weight: f64,
    /// How predictions of queries are judged.
    pub set: SetLossConfig,
}

impl Default for DecoderLoss {
    fn default() -> Self {
        Self { auxiliary_weight: 1.0, set: SetLossConfig::default() }
    }
}

impl From<SetLossConfig> for DecoderLoss {
    fn from(set: SetLossConfig) -> Self {
        Self { set, ..Self::default() }
    }
}

/// How predictions of queries are matched with the truth and judged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
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
            return refuse("importance_sample_ratio must be in [0, 1]");
        }
        Ok(())
    }
}
