//! The cost of an image before it is decoded: the pixels of all windows that the network will see.

use crate::image::MAX_PIXELS;
use crate::infer::InferConfig;
use crate::model::ModelConfig;

/// What a model makes of an image's size.
#[derive(Clone, Debug)]
pub(super) struct CostModel {
    model: ModelConfig,
    settings: InferConfig,
    classes: usize,
    /// Multiply-accumulates of a pixel in a window of the usual size.
    of_pixel: f64,
}

impl CostModel {
    pub(super) fn new(model: ModelConfig, settings: InferConfig, classes: usize) -> Self {
        let usual = (settings.crop[0], settings.crop[1]);
        let of_pixel = macs(&model, classes, usual) / (usual.0 as f64 * usual.1 as f64);
        Self { model, settings, classes, of_pixel }
    }

    /// Pixels of windows for an image of this height and width. A window larger than usual counts for more than its
    /// pixels where the network takes longer for each of them, as attention does.
    pub(super) fn pixels(&self, size: (usize, usize)) -> u64 {
        let windows = self.settings.window_pixels(size);
        if windows.iter().any(|((height, width), _)| height.saturating_mul(*width) as u64 > MAX_PIXELS) {
            return u64::MAX;
        }
        let pixels: f64 = windows.into_iter().map(|(window, pixels)| pixels as f64 * self.weight(window)).sum();
        // Rounded towards the largest number where it does not fit.
        pixels.ceil() as u64
    }

    /// The network.
    pub(super) fn model(&self) -> &ModelConfig {
        &self.model
    }

    fn weight(&self, window: (usize, usize)) -> f64 {
        let of_pixel = macs(&self.model, self.classes, window) / (window.0 as f64 * window.1 as f64);
        (of_pixel / self.of_pixel).max(1.0)
    }
}

fn macs(model: &ModelConfig, classes: usize, size: (usize, usize)) -> f64 {
    model.macs(classes, size).iter().map(|cost| cost.macs as f64).sum::<f64>().max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::InferMode;

    #[test]
    fn windows_count_by_their_pixels_and_large_ones_for_more() {
        let (model, slide) = (ModelConfig::default(), InferConfig::default());
        let cost = CostModel::new(model.clone(), slide.clone(), 10);
        assert_eq!(cost.pixels((512, 512)), 512 * 512);
        assert_eq!(cost.pixels((853, 512)), 2 * 512 * 512);
        let whole = CostModel::new(model, InferConfig { mode: InferMode::Whole, ..slide }, 10);
        assert_eq!(whole.pixels((512, 512)), 512 * 512);
        assert!(whole.pixels((2048, 2048)) > 2 * 2048 * 2048, "attention sees all pairs");
        assert!(whole.pixels((60_000, 60_000)) > 1 << 36);
    }
}
