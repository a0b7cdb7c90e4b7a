//! ResNet (He et al., arXiv 1512.03385) with the stride in a bottleneck's 3x3 convolution, as torchvision and timm have
//! it, under their parameter names.
//!
//! ```text
//! images ─ conv 7x7 / 2, norm, ReLU ─ max pool 3x3 / 2 ─▶ layer1 [h / 4] ─▶ layer2 [h / 8] ─▶ layer3 ─▶ layer4 [h / 32]
//! ```
//!
//! Sides are halved and rounded up, as PyTorch does, so that no image needs padding.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use serde::{Deserialize, Serialize};

use crate::backbone::hierarchy;
use crate::backbone::hierarchy::{Level, STAGES, deepest};
use crate::backbone::{Backbone, FeatureInfo, Features};
use crate::error::{Error, Result};
use crate::layers::{BatchNorm, Conv2d, Cost, DropPath, ForwardContext, Init, max_pool3x3};

/// Channels of a bottleneck's output over those inside of it.
const EXPANSION: usize = 4;

/// Configuration of [`Resnet`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ResnetConfig {
    /// The published network of this many layers: 18, 34, 50, 101 or 152.
    pub layers: usize,
    /// Blocks of each of the four stages; empty takes those of `layers`.
    pub depths: Vec<usize>,
    /// Blocks of three convolutions, with a 3x3 one between two that narrow and widen; by `layers` where it is left
    /// out, from 50 on.
    pub bottleneck: Option<bool>,
    /// Channels of the first convolution.
    pub stem_channels: usize,
    /// Channels of the 3x3 convolutions of each stage; a bottleneck returns four times as many.
    pub channels: Vec<usize>,
    /// Drop path rate of the last block, rising linearly from 0.
    pub drop_path_rate: f64,
    /// Stages whose maps are handed out, 0 to 3 of strides 4, 8, 16 and 32; empty means the last. Decoders of a single
    /// map take the one named last; decoders of several want the finest last: `[3, 2, 1, 0]`.
    pub out_indices: Vec<usize>,
    /// Height and width of the images that the model is made for; other sizes resize a decoder's structure tokens.
    pub img_size: [usize; 2],
}

impl Default for ResnetConfig {
    fn default() -> Self {
        Self {
            layers: 50,
            depths: Vec::new(),
            bottleneck: None,
            stem_channels: 64,
            channels: vec![64, 128, 256, 512],
            drop_path_rate: 0.0,
            out_indices: Vec::new(),
            img_size: [256, 256],
        }
    }
}

/// Layers and blocks a stage of the published networks.
const PUBLISHED: [(usize, [usize; STAGES]); 5] =
    [(18, [2, 2, 2, 2]), (34, [3, 4, 6, 3]), (50, [3, 4, 6, 3]), (101, [3, 4, 23, 3]), (152, [3, 8, 36, 3])];

impl ResnetConfig {
    pub(super) fn check(&self) -> Result<()> {
        if !PUBLISHED.iter().any(|(layers, _)| *layers == self.layers) {
            return Err(Error::new(format!("model.backbone: there is no ResNet of layers = {}", self.layers))
                .with_hint("use 18, 34, 50, 101 or 152, or set depths and bottleneck as well as one of these"));
        }
        if !(1..=1 << 12).contains(&self.stem_channels) {
            return Err(Error::new(format!("model.backbone: stem_channels = {} is out of range", self.stem_channels)));
        }
        hierarchy::check(&self.channels, &self.depths(), self.drop_path_rate, &self.out_indices, self.img_size)
    }

    /// Blocks of each stage.
    fn depths(&self) -> Vec<usize> {
        if !self.depths.is_empty() {
            return self.depths.clone();
        }
        PUBLISHED.iter().find(|(layers, _)| *layers == self.layers).map_or(Vec::new(), |(_, depths)| depths.to_vec())
    }

    fn bottleneck(&self) -> bool {
        self.bottleneck.unwrap_or(self.layers >= 50)
    }

    fn expansion(&self) -> usize {
        if self.bottleneck() { EXPANSION } else { 1 }
    }

    /// What the first convolution gives.
    pub(super) fn stem(&self) -> Level {
        Level { channels: self.stem_channels, stride: 2 }
    }

    /// What each stage gives.
    pub(super) fn stages(&self) -> [Level; STAGES] {
        [0, 1, 2, 3].map(|i| Level { channels: self.channels[i] * self.expansion(), stride: 4 << i })
    }

    pub(super) fn features(&self) -> FeatureInfo {
        hierarchy::features(&self.stages(), &self.out_indices, self.img_size)
    }

    pub(super) fn stem_macs(&self, image: (usize, usize)) -> usize {
        self.stem().pixels(image, 1) * 3 * 49 * self.stem_channels
    }

    /// Multiply-accumulates of the stages up to `last`.
    pub(super) fn stage_macs(&self, image: (usize, usize), last: usize) -> usize {
        let (mut inputs, mut before) = (self.stem_channels, self.stages()[0].pixels(image, 1));
        let mut sum = 0;
        for (i, (level, depth)) in self.stages().into_iter().zip(self.depths()).take(last + 1).enumerate() {
            let (c, out, n) = (self.channels[i], level.channels, level.pixels(image, 1));
            // The stride is in the first 3x3 convolution; a bottleneck's 1x1 before it still sees the map before.
            let (first, others) = match self.bottleneck() {
                true => (before * inputs * c + n * (9 * c * c + c * out), n * (2 * c * out + 9 * c * c)),
                false => (n * (9 * inputs * c + 9 * c * c), n * 18 * c * c),
            };
            let shortcut = if i > 0 || inputs != out { n * inputs * out } else { 0 };
            sum += first + shortcut + (depth - 1) * others;
            (inputs, before) = (out, n);
        }
        sum
    }

    pub(super) fn macs(&self, image: (usize, usize)) -> Vec<Cost> {
        vec![
            Cost::new("backbone.stem", self.stem_macs(image)),
            Cost::new("backbone.stages", self.stage_macs(image, deepest(&self.out_indices))),
        ]
    }

    /// Channels that a 3x3 convolution reads times those it writes, of the one where that is the most.
    pub(super) fn convolved(&self) -> Option<usize> {
        self.channels.iter().map(|c| c * c).max()
    }

    /// Values alive at once inside of a block, or around the first norm, at most.
    pub(super) fn block_activations(&self, grid: (usize, usize), stride: usize) -> usize {
        let stem = 3 * self.stem_channels * self.stem().pixels(grid, stride);
        let blocks = self.stages().map(|level| 3 * level.channels * level.pixels(grid, stride));
        blocks.into_iter().fold(stem, usize::max)
    }

    pub(super) fn activations(&self, grid: (usize, usize)) -> usize {
        let features = self.features();
        let maps = hierarchy::handed_out(&self.out_indices).into_iter();
        let waiting: usize =
            maps.map(|stage| self.stages()[stage]).map(|map| map.channels * map.pixels(grid, features.stride())).sum();
        waiting + self.block_activations(grid, features.stride())
    }

    /// What the kernels keep for the gradients: the image, the places of the largest of each pooling window, and the
    /// inputs of convolutions and norms.
    pub(super) fn kept(&self, grid: (usize, usize), stride: usize, last: usize) -> usize {
        let pixels = |level: Level| level.pixels(grid, stride);
        let (stages, image) = (self.stages(), Level { channels: 3, stride: 1 });
        // What enters a block: its channels and pixels.
        let (mut inputs, mut finer) = (self.stem_channels, pixels(stages[0]));
        let mut kept = 3 * pixels(image) + inputs * (pixels(self.stem()) + finer);
        for (stage, c) in self.channels.iter().enumerate().take(last + 1) {
            let (outputs, n) = (stages[stage].channels, pixels(stages[stage]));
            for block in 0..self.depths()[stage] {
                kept += inputs * finer;
                kept += if self.bottleneck() { 2 * c * (finer + n) + outputs * n } else { 3 * c * n };
                // The norm of a shortcut that is a convolution.
                let is_strided = stage > 0 && block == 0;
                kept += if is_strided || inputs != outputs { outputs * n } else { 0 };
                (inputs, finer) = (outputs, n);
            }
        }
        kept
    }

    pub(super) fn kept_activations(&self, grid: (usize, usize)) -> usize {
        self.kept(grid, self.features().stride(), deepest(&self.out_indices))
    }

    pub(super) fn init(&self, init: &mut Init) -> Resnet {
        let depths = self.depths();
        let mut drop_paths = DropPath::schedule(self.drop_path_rate, depths.iter().sum()).into_iter();
        let conv1 = Conv2d::without_bias(3, self.stem_channels, 7, init).strided(2, 3);
        let bn1 = BatchNorm::new(self.stem_channels, init);
        let mut inputs = self.stem_channels;
        let mut layer = |stage: usize| -> Vec<Block> {
            let blocks = drop_paths.by_ref().take(depths[stage]).enumerate();
            blocks
                .map(|(i, drop_path)| {
                    let stride = if stage > 0 && i == 0 { 2 } else { 1 };
                    let block =
                        Block::new(inputs, self.channels[stage], stride, self.bottleneck(), drop_path, &mut *init);
                    inputs = self.channels[stage] * self.expansion();
                    block
                })
                .collect()
        };
        let [layer1, layer2, layer3, layer4] = [0, 1, 2, 3].map(&mut layer);
        Resnet {
            conv1,
            bn1,
            layer1,
            layer2,
            layer3,
            layer4,
            out_indices: self.out_indices.clone(),
            grid: self.features().grid,
        }
    }
}

/// Images to maps of strides 4, 8, 16 and 32.
#[derive(Module, Debug)]
pub struct Resnet {
    conv1: Conv2d,
    bn1: BatchNorm,
    layer1: Vec<Block>,
    layer2: Vec<Block>,
    layer3: Vec<Block>,
    layer4: Vec<Block>,
    #[module(skip)]
    out_indices: Vec<usize>,
    #[module(skip)]
    grid: (usize, usize),
}

impl Backbone for Resnet {
    /// Normalised images `[b, 3, height, width]` to the maps of `out_indices`, `[b, ceil(height / stride), …, c]`.
    ///
    /// Records `resnet.stem` and `resnet.layer{i}`.
    fn forward(&self, images: Tensor<4>, context: &ForwardContext) -> Features {
        let stem = self.stem(images, context);
        hierarchy::select(&self.stages(stem, deepest(&self.out_indices), context), &self.out_indices)
    }

    /// Rows and columns of the last map at the size the model is made for.
    fn grid(&self) -> Option<(usize, usize)> {
        Some(self.grid)
    }
}

impl Resnet {
    /// The map before the pooling, of half the image's rows and columns.
    pub(super) fn stem(&self, images: Tensor<4>, context: &ForwardContext) -> Tensor<4> {
        let x = self.bn1.forward_relu(self.conv1.forward(images.permute([0, 2, 3, 1])), context);
        context.record("resnet.stem", &x);
        x
    }

    /// The maps of the stages up to `last`.
    pub(super) fn stages(&self, stem: Tensor<4>, last: usize, context: &ForwardContext) -> Vec<Tensor<4>> {
        let mut x = max_pool3x3(stem);
        let layers = [&self.layer1, &self.layer2, &self.layer3, &self.layer4];
        let stages = layers.into_iter().take(last + 1).enumerate().map(|(i, blocks)| {
            x = blocks.iter().fold(x.clone(), |x, block| block.forward(x, context));
            context.record(&format!("resnet.layer{}", i + 1), &x);
            x.clone()
        });
        stages.collect()
    }
}

/// A residual block: two 3x3 convolutions, or a 3x3 one between two 1x1.
#[derive(Module, Debug)]
pub struct Block {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    conv3: Option<Conv2d>,
    bn3: Option<BatchNorm>,
    /// Where the block changes the map's size or channels.
    downsample: Option<(Conv2d, BatchNorm)>,
    #[module(skip)]
    drop_path: DropPath,
}

impl Block {
    /// The last norm begins at zero, so that the block begins as its shortcut.
    fn new(
        inputs: usize,
        channels: usize,
        stride: usize,
        bottleneck: bool,
        drop_path: DropPath,
        init: &mut Init,
    ) -> Self {
        let outputs = if bottleneck { EXPANSION * channels } else { channels };
        let mut conv = |inputs: usize, outputs: usize, side: usize, stride: usize| {
            let conv = Conv2d::without_bias(inputs, outputs, side, init).strided(stride, side / 2);
            (conv, BatchNorm::new(outputs, init))
        };
        let ((conv1, bn1), (conv2, bn2)) = match bottleneck {
            true => (conv(inputs, channels, 1, 1), conv(channels, channels, 3, stride)),
            false => (conv(inputs, channels, 3, stride), conv(channels, channels, 3, 1)),
        };
        let (conv3, bn3) = bottleneck.then(|| conv(channels, outputs, 1, 1)).unzip();
        let downsample = (stride > 1 || inputs != outputs).then(|| conv(inputs, outputs, 1, stride));
        let mut block = Self { conv1, bn1, conv2, bn2, conv3, bn3, downsample, drop_path };
        block.bn3.as_mut().unwrap_or(&mut block.bn2).weight = init.constant(0.0, [outputs]);
        block
    }

    fn forward(&self, x: Tensor<4>, context: &ForwardContext) -> Tensor<4> {
        let y = self.bn1.forward_relu(self.conv1.forward(x.clone()), context);
        let y = self.conv2.forward(y);
        let y = match (&self.conv3, &self.bn3) {
            (Some(conv), Some(bn)) => bn.forward(conv.forward(self.bn2.forward_relu(y, context)), context),
            _ => self.bn2.forward(y, context),
        };
        let shortcut = match &self.downsample {
            Some((conv, bn)) => bn.forward(conv.forward(x), context),
            None => x,
        };
        relu(shortcut + self.drop_path.forward(y, context))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::layers::parameters;

    #[test]
    fn published_sizes() {
        let parameters = |config: &ResnetConfig| -> usize {
            config.check().unwrap();
            let all = parameters::list(&config.init(&mut Init::blank(&Device::flex())));
            all.iter()
                .filter(|(name, ..)| !name.contains("running_"))
                .map(|(_, shape, _)| shape.iter().product::<usize>())
                .sum()
        };
        for (layers, count) in
            [(18, 11_176_512), (34, 21_284_672), (50, 23_508_032), (101, 42_500_160), (152, 58_143_808)]
        {
            assert_eq!(parameters(&ResnetConfig { layers, ..ResnetConfig::default() }), count);
        }
    }

    #[test]
    fn stages_that_are_not_handed_out_cost_nothing() {
        let macs = |out_indices: &[usize]| -> u64 {
            let config =
                ResnetConfig { out_indices: out_indices.to_vec(), img_size: [64, 64], ..ResnetConfig::default() };
            config.macs((64, 64)).iter().map(|cost| cost.macs).sum()
        };
        assert!(macs(&[0]) < macs(&[1]) && macs(&[1]) < macs(&[3]) && macs(&[3]) == macs(&[3, 0]));
        let config = ResnetConfig { out_indices: vec![2, 1], ..ResnetConfig::default() };
        let features = config.features();
        assert_eq!((features.strides, features.grid), (vec![16, 8], (32, 32)));
    }

    #[test]
    fn what_cannot_be_built_is_refused() {
        let refused = |change: &dyn Fn(&mut ResnetConfig), part: &str| {
            let mut config = ResnetConfig::default();
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
        refused(&|c| c.layers = 20, "layers = 20");
        refused(&|c| c.stem_channels = 0, "stem_channels");
    }
}
