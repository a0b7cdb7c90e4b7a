//! The way down of a U-Net: a ResNet or a ConvNeXt, all of whose maps are handed out.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::backbone::convnext::{Convnext, ConvnextConfig};
use crate::backbone::hierarchy::{Level, STAGES};
use crate::backbone::resnet::{Resnet, ResnetConfig};
use crate::error::{Error, Result};
use crate::layers::{ForwardContext, Init};

/// `[model.backbone.encoder]` of a U-Net, chosen by `type`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
#[non_exhaustive]
pub enum EncoderConfig {
    /// Residual network.
    #[serde(rename = "resnet")]
    Resnet(ResnetConfig),
    /// Convolutional network in the manner of a transformer.
    #[serde(rename = "convnext")]
    Convnext(ConvnextConfig),
}

impl EncoderConfig {
    pub(super) fn check(&self) -> Result<()> {
        let (out_indices, img_size, default) = match self {
            Self::Resnet(config) => {
                config.check()?;
                (&config.out_indices, config.img_size, ResnetConfig::default().img_size)
            }
            Self::Convnext(config) => {
                config.check()?;
                (&config.out_indices, config.img_size, ConvnextConfig::default().img_size)
            }
        };
        if !out_indices.is_empty() || img_size != default {
            return Err(Error::new("model.backbone.encoder: out_indices and img_size are those of the U-Net")
                .with_hint("set them in model.backbone, and leave them out of model.backbone.encoder"));
        }
        Ok(())
    }

    /// All its maps, the finest first.
    pub(super) fn levels(&self) -> Vec<Level> {
        match self {
            Self::Resnet(config) => [config.stem()].into_iter().chain(config.stages()).collect(),
            Self::Convnext(config) => config.stages().into(),
        }
    }

    /// Multiply-accumulates of an image of (height, width).
    pub(super) fn macs(&self, image: (usize, usize)) -> usize {
        match self {
            Self::Resnet(config) => config.stem_macs(image) + config.stage_macs(image, STAGES - 1),
            Self::Convnext(config) => config.stem_macs(image) + config.stage_macs(image, STAGES - 1),
        }
    }

    /// Values alive inside of a block at most, where a map of `stride` has (rows, columns).
    pub(super) fn block_activations(&self, grid: (usize, usize), stride: usize) -> usize {
        match self {
            Self::Resnet(config) => config.block_activations(grid, stride),
            Self::Convnext(config) => config.block_activations(grid, stride),
        }
    }

    /// Values that training keeps, where a map of `stride` has (rows, columns).
    pub(super) fn kept_activations(&self, grid: (usize, usize), stride: usize) -> usize {
        match self {
            Self::Resnet(config) => config.kept(grid, stride, STAGES - 1),
            Self::Convnext(config) => config.kept(grid, stride, STAGES - 1),
        }
    }

    /// Channels that a 3x3 convolution reads times those it writes, of the one where that is the most.
    pub(super) fn convolved(&self) -> Option<usize> {
        match self {
            Self::Resnet(config) => config.convolved(),
            Self::Convnext(config) => config.convolved(),
        }
    }

    pub(super) fn init(&self, init: &mut Init) -> WayDown {
        match self {
            Self::Resnet(config) => WayDown::Resnet(config.init(init)),
            Self::Convnext(config) => WayDown::Convnext(config.init(init)),
        }
    }
}

/// The way down of a U-Net.
#[allow(clippy::large_enum_variant, reason = "a U-Net has one way down")]
#[derive(Module, Debug)]
pub enum WayDown {
    /// Residual network.
    Resnet(Resnet),
    /// Convolutional network in the manner of a transformer.
    Convnext(Convnext),
}

impl WayDown {
    /// Normalised images `[b, 3, height, width]` to all maps, the finest first.
    pub(super) fn maps(&self, images: Tensor<4>, context: &ForwardContext) -> Vec<Tensor<4>> {
        match self {
            Self::Resnet(resnet) => {
                let stem = resnet.stem(images, context);
                let mut maps = vec![stem.clone()];
                maps.extend(resnet.stages(stem, STAGES - 1, context));
                maps
            }
            Self::Convnext(convnext) => convnext.stages(images, STAGES - 1, context),
        }
    }
}
