//! ConvNeXt (Liu et al., arXiv 2201.03545): a convolutional network in the manner of a transformer, with timm's
//! parameter names.
//!
//! ```text
//! images ─ conv 4x4 / 4, norm ─▶ stage 0 [h / 4] ─ norm, conv 2x2 / 2 ─▶ stage 1 [h / 8] ─▶ … ─▶ stage 3 [h / 32]
//! block: x + gamma · (depthwise 7x7 ─ norm ─ linear, 4 c ─ GELU ─ linear)
//! ```
//!
//! Where a map is not a whole number of patches, zeros are put at the bottom and the right (timm leaves those pixels
//! out).

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::backbone::hierarchy;
use crate::backbone::hierarchy::{Level, STAGES, deepest};
use crate::backbone::{Backbone, FeatureInfo, Features};
use crate::error::{Error, Result};
use crate::layers::{Cost, DepthwiseConv7x7, DropPath, ForwardContext, Init, LayerNorm, Linear, PatchConv};

const EPS: f64 = 1e-6;
/// Hidden channels of a block over its width.
const RATIO: usize = 4;

/// The published sizes: channels of the first stage, blocks of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ConvnextSize {
    /// 40; 2, 2, 6, 2.
    Atto,
    /// 48; 2, 2, 6, 2.
    Femto,
    /// 64; 2, 2, 6, 2.
    Pico,
    /// 80; 2, 2, 8, 2.
    Nano,
    /// 96; 3, 3, 9, 3.
    Tiny,
    /// 96; 3, 3, 27, 3.
    Small,
    /// 128; 3, 3, 27, 3.
    Base,
    /// 192; 3, 3, 27, 3.
    Large,
}

impl ConvnextSize {
    fn dims(self) -> (usize, [usize; STAGES]) {
        match self {
            Self::Atto => (40, [2, 2, 6, 2]),
            Self::Femto => (48, [2, 2, 6, 2]),
            Self::Pico => (64, [2, 2, 6, 2]),
            Self::Nano => (80, [2, 2, 8, 2]),
            Self::Tiny => (96, [3, 3, 9, 3]),
            Self::Small => (96, [3, 3, 27, 3]),
            Self::Base => (128, [3, 3, 27, 3]),
            Self::Large => (192, [3, 3, 27, 3]),
        }
    }
}

/// Configuration of [`Convnext`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ConvnextConfig {
    /// Channels and blocks of all stages at once; each can be overridden.
    pub size: ConvnextSize,
    /// Channels of each of the four stages; empty takes those of `size`.
    pub channels: Vec<usize>,
    /// Blocks of each stage; empty takes those of `size`.
    pub depths: Vec<usize>,
    /// Initial scale of a block's branch (LayerScale).
    pub init_values: f64,
    /// Drop path rate of the last block, rising linearly from 0.
    pub drop_path_rate: f64,
    /// Stages whose maps are handed out, 0 to 3 of strides 4, 8, 16 and 32; empty means the last. Decoders of a single
    /// map take the one named last; decoders of several want the finest last: `[3, 2, 1, 0]`.
    pub out_indices: Vec<usize>,
    /// Height and width of the images that the model is made for; other sizes resize a decoder's structure tokens.
    pub img_size: [usize; 2],
}

impl Default for ConvnextConfig {
    fn default() -> Self {
        Self {
            size: ConvnextSize::Tiny,
            channels: Vec::new(),
            depths: Vec::new(),
            init_values: 1e-6,
            drop_path_rate: 0.0,
            out_indices: Vec::new(),
            img_size: [256, 256],
        }
    }
}

impl ConvnextConfig {
    pub(super) fn check(&self) -> Result<()> {
        if !self.init_values.is_finite() {
            return Err(Error::new("model.backbone: init_values must be finite"));
        }
        hierarchy::check(&self.channels(), &self.depths(), self.drop_path_rate, &self.out_indices, self.img_size)
    }

    fn channels(&self) -> Vec<usize> {
        if self.channels.is_empty() {
            (0..STAGES).map(|i| self.size.dims().0 << i).collect()
        } else {
            self.channels.clone()
        }
    }

    fn depths(&self) -> Vec<usize> {
        if self.depths.is_empty() { self.size.dims().1.to_vec() } else { self.depths.clone() }
    }

    /// What each stage gives.
    pub(super) fn stages(&self) -> [Level; STAGES] {
        let channels = self.channels();
        [0, 1, 2, 3].map(|i| Level { channels: channels[i], stride: 4 << i })
    }

    pub(super) fn features(&self) -> FeatureInfo {
        hierarchy::features(&self.stages(), &self.out_indices, self.img_size)
    }

    pub(super) fn stem_macs(&self, image: (usize, usize)) -> usize {
        let first = self.stages()[0];
        first.pixels(image, 1) * 3 * 16 * first.channels
    }

    /// Multiply-accumulates of the stages up to `last`.
    pub(super) fn stage_macs(&self, image: (usize, usize), last: usize) -> usize {
        let mut inputs = None;
        let stages = self.stages().into_iter().zip(self.depths()).take(last + 1).map(|(level, depth)| {
            let (c, n) = (level.channels, level.pixels(image, 1));
            let downsample = inputs.replace(c).map_or(0, |inputs| 4 * inputs * c);
            n * (downsample + depth * (49 * c + 2 * RATIO * c * c))
        });
        stages.sum()
    }

    pub(super) fn macs(&self, image: (usize, usize)) -> Vec<Cost> {
        vec![
            Cost::new("backbone.stem", self.stem_macs(image)),
            Cost::new("backbone.stages", self.stage_macs(image, deepest(&self.out_indices))),
        ]
    }

    /// Values alive at once inside of a block at most: its input, and the hidden channels before and after the GELU.
    pub(super) fn block_activations(&self, grid: (usize, usize), stride: usize) -> usize {
        let blocks = self.stages().map(|level| (2 + 2 * RATIO) * level.channels * level.pixels(grid, stride));
        blocks.into_iter().fold(0, usize::max)
    }

    pub(super) fn activations(&self, grid: (usize, usize)) -> usize {
        let features = self.features();
        let maps = hierarchy::handed_out(&self.out_indices).into_iter();
        let waiting: usize =
            maps.map(|stage| self.stages()[stage]).map(|map| map.channels * map.pixels(grid, features.stride())).sum();
        waiting + self.block_activations(grid, features.stride())
    }

    /// What the kernels keep for the gradients: patches; the inputs of convolutions, norms and linear layers; in each
    /// block the hidden channels on both sides of their GELU and the branch before its scale; two moments per norm.
    pub(super) fn kept(&self, grid: (usize, usize), stride: usize, last: usize) -> usize {
        const PATCH: usize = 3 * 4 * 4;
        let (stages, block) = (self.stages(), |c: usize| (4 + 2 * RATIO) * c + 2);
        let pixels = |i: usize| stages[i].pixels(grid, stride);
        let kept = stages.iter().zip(self.depths()).take(last + 1).enumerate().map(|(i, (level, depth))| {
            let before = match i.checked_sub(1).map(|above| (stages[above].channels, pixels(above))) {
                None => pixels(0) * (PATCH + level.channels + 2),
                Some((c, finer)) => finer * (c + 2) + pixels(i) * 4 * c,
            };
            before + depth * block(level.channels) * pixels(i)
        });
        kept.sum()
    }

    pub(super) fn kept_activations(&self, grid: (usize, usize)) -> usize {
        self.kept(grid, self.features().stride(), deepest(&self.out_indices))
    }

    /// Its convolutions take each channel by itself, and arrange no weights.
    pub(super) fn convolved(&self) -> Option<usize> {
        Some(0)
    }

    pub(super) fn init(&self, init: &mut Init) -> Convnext {
        let (channels, depths) = (self.channels(), self.depths());
        let mut drop_paths = DropPath::schedule(self.drop_path_rate, depths.iter().sum()).into_iter();
        let stem = (PatchConv::new(3, channels[0], 4, init), LayerNorm::new(channels[0], EPS, init));
        let stages = (0..STAGES).map(|i| {
            let c = channels[i];
            let downsample = i.checked_sub(1).map(|before| {
                (LayerNorm::new(channels[before], EPS, init), PatchConv::new(channels[before], c, 2, init))
            });
            let drop_paths = drop_paths.by_ref().take(depths[i]);
            let blocks = drop_paths.map(|drop_path| Block::new(c, self.init_values as f32, drop_path, init)).collect();
            Stage { downsample, blocks }
        });
        let stages = stages.collect();
        Convnext { stem, stages, out_indices: self.out_indices.clone(), grid: self.features().grid }
    }
}

/// Images to maps of strides 4, 8, 16 and 32.
#[derive(Module, Debug)]
pub struct Convnext {
    stem: (PatchConv, LayerNorm),
    stages: Vec<Stage>,
    #[module(skip)]
    out_indices: Vec<usize>,
    #[module(skip)]
    grid: (usize, usize),
}

impl Backbone for Convnext {
    /// Normalised images `[b, 3, height, width]` to the maps of `out_indices`, `[b, ceil(height / stride), …, c]`.
    ///
    /// Records `convnext.stage{i}`.
    fn forward(&self, images: Tensor<4>, context: &ForwardContext) -> Features {
        hierarchy::select(&self.stages(images, deepest(&self.out_indices), context), &self.out_indices)
    }

    /// Rows and columns of the last map at the size the model is made for.
    fn grid(&self) -> Option<(usize, usize)> {
        Some(self.grid)
    }
}

impl Convnext {
    /// The maps of the stages up to `last`.
    pub(super) fn stages(&self, images: Tensor<4>, last: usize, context: &ForwardContext) -> Vec<Tensor<4>> {
        let (conv, norm) = &self.stem;
        let mut x = norm.forward(conv.forward(images.permute([0, 2, 3, 1])));
        let stages = self.stages.iter().take(last + 1).enumerate().map(|(i, stage)| {
            if let Some((norm, conv)) = &stage.downsample {
                x = conv.forward(norm.forward(x.clone()));
            }
            x = stage.blocks.iter().fold(x.clone(), |x, block| block.forward(x, context));
            context.record(&format!("convnext.stage{i}"), &x);
            x.clone()
        });
        stages.collect()
    }
}

/// Half of the rows and columns, and blocks.
#[derive(Module, Debug)]
pub struct Stage {
    downsample: Option<(LayerNorm, PatchConv)>,
    blocks: Vec<Block>,
}

/// Depthwise convolution and an MLP, scaled and added.
#[derive(Module, Debug)]
pub struct Block {
    conv_dw: DepthwiseConv7x7,
    norm: LayerNorm,
    mlp: Mlp,
    /// `[c]`.
    gamma: Param<Tensor<1>>,
    #[module(skip)]
    drop_path: DropPath,
}

impl Block {
    fn new(channels: usize, init_values: f32, drop_path: DropPath, init: &mut Init) -> Self {
        Self {
            conv_dw: DepthwiseConv7x7::new(channels, init),
            norm: LayerNorm::new(channels, EPS, init),
            mlp: Mlp {
                fc1: Linear::new(channels, RATIO * channels, init),
                fc2: Linear::new(RATIO * channels, channels, init),
            },
            gamma: init.constant(init_values, [channels]),
            drop_path,
        }
    }

    fn forward(&self, x: Tensor<4>, context: &ForwardContext) -> Tensor<4> {
        let batch = x.dims()[0];
        let y = self.mlp.fc1.forward_gelu(self.norm.forward(self.conv_dw.forward(x.clone())));
        self.mlp.fc2.forward_add(y, Some(self.gamma.val()), self.drop_path.factors(batch, context), x)
    }
}

/// Linear, GELU, linear.
#[derive(Module, Debug)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::layers::parameters;

    #[test]
    fn published_sizes() {
        let parameters = |config: &ConvnextConfig| -> usize {
            config.check().unwrap();
            let all = parameters::list(&config.init(&mut Init::blank(&Device::flex())));
            all.iter()
                .filter(|(name, ..)| !name.contains("running_"))
                .map(|(_, shape, _)| shape.iter().product::<usize>())
                .sum()
        };
        for (size, count) in [
            (ConvnextSize::Atto, 3_373_880),
            (ConvnextSize::Femto, 4_832_016),
            (ConvnextSize::Pico, 8_531_648),
            (ConvnextSize::Nano, 14_951_280),
            (ConvnextSize::Tiny, 27_818_592),
            (ConvnextSize::Small, 49_453_152),
            (ConvnextSize::Base, 87_564_416),
            (ConvnextSize::Large, 196_227_264),
        ] {
            assert_eq!(parameters(&ConvnextConfig { size, ..ConvnextConfig::default() }), count);
        }
    }

    #[test]
    fn stages_that_are_not_handed_out_cost_nothing() {
        let macs = |out_indices: &[usize]| -> u64 {
            let config =
                ConvnextConfig { out_indices: out_indices.to_vec(), img_size: [64, 64], ..ConvnextConfig::default() };
            config.macs((64, 64)).iter().map(|cost| cost.macs).sum()
        };
        assert!(macs(&[0]) < macs(&[1]) && macs(&[1]) < macs(&[3]) && macs(&[3]) == macs(&[3, 0]));
        let config = ConvnextConfig { out_indices: vec![2, 1], ..ConvnextConfig::default() };
        let features = config.features();
        assert_eq!((features.strides, features.grid), (vec![16, 8], (32, 32)));
    }

    #[test]
    fn what_cannot_be_built_is_refused() {
        let refused = |change: &dyn Fn(&mut ConvnextConfig), part: &str| {
            let mut config = ConvnextConfig::default();
            change(&mut config);
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(part), "{part}: {error}");
        };
        refused(&|c| c.channels = vec![8; 3], "4 stages");
        refused(&|c| c.channels = vec![8, 8, 8, 0], "1 to 4096");
        refused(&|c| c.depths = vec![1, 0, 1, 1], "depths");
        refused(&|c| c.out_indices = vec![4], "0 to 3");
        refused(&|c| c.out_indices = vec![1, 1], "none twice");
        refused(&|c| c.drop_path_rate = 1.0, "drop_path_rate");
        refused(&|c| c.img_size = [0, 1], "img_size");
        refused(&|c| c.init_values = f64::NAN, "init_values");
    }
}
