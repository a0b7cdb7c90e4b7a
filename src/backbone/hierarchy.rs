//! What ResNet and ConvNeXt have in common: maps of several strides, each with half of the rows and columns of the one
//! before. They stand by themselves or are the way down of a U-Net.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::convnext::{Convnext, ConvnextConfig};
use super::resnet::{Resnet, ResnetConfig};
use super::{FeatureInfo, Features};
use crate::error::{Error, Result};
use crate::layers::{Init, Pass};

/// A map on the way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Its channels.
    pub channels: usize,
    /// Image pixels per pixel, along a side.
    pub stride: usize,
}

impl Level {
    /// Pixels of its map, where a map of `stride` has (rows, columns).
    pub(super) fn pixels(self, (rows, columns): (usize, usize), stride: usize) -> usize {
        let side = |side: usize| (side * stride).div_ceil(self.stride);
        side(rows) * side(columns)
    }
}

/// The shapes of the maps that `out_indices` names of `stages`; those of the last one where it names none.
pub(super) fn features(stages: &[Level; STAGES], out_indices: &[usize], img_size: [usize; 2]) -> FeatureInfo {
    let maps: Vec<Level> = handed_out(out_indices).into_iter().map(|stage| stages[stage]).collect();
    let stride = maps.last().map_or(1, |map| map.stride);
    let [rows, columns] = img_size.map(|side| side.div_ceil(stride));
    FeatureInfo {
        channels: maps.iter().map(|map| map.channels).collect(),
        strides: maps.iter().map(|map| map.stride).collect(),
        grid: (rows, columns),
        transformer: None,
    }
}

/// Stages of either network; their maps have strides of 4, 8, 16 and 32.
pub const STAGES: usize = 4;

/// The stages whose maps are handed out.
pub(super) fn handed_out(out_indices: &[usize]) -> Vec<usize> {
    if out_indices.is_empty() { vec![STAGES - 1] } else { out_indices.to_vec() }
}

/// The deepest stage whose map is handed out: none is run beyond it.
pub(super) fn deepest(out_indices: &[usize]) -> usize {
    handed_out(out_indices).into_iter().max().unwrap_or(STAGES - 1)
}

/// The maps of `stages` that `out_indices` names.
pub(super) fn select(stages: &[Tensor<4>], out_indices: &[usize]) -> Features {
    Features { maps: handed_out(out_indices).into_iter().map(|stage| stages[stage].clone()).collect() }
}

/// Refuses what neither network can be built of, naming the key.
pub(super) fn check(
    channels: &[usize],
    depths: &[usize],
    drop_path_rate: f64,
    out_indices: &[usize],
    img_size: [usize; 2],
) -> Result<()> {
    let refuse = |what: String| Err(Error::new(format!("model.backbone: {what}")));
    if channels.len() != STAGES || channels.iter().any(|width| !(1..=1 << 12).contains(width)) {
        return refuse(format!("the channels {channels:?} are not those of {STAGES} stages, each of 1 to 4096"));
    }
    if depths.len() != STAGES || depths.iter().any(|depth| !(1..=128).contains(depth)) {
        return refuse(format!("depths = {depths:?} are not those of {STAGES} stages, each of 1 to 128 blocks"));
    }
    if !(0.0..1.0).contains(&drop_path_rate) {
        return refuse(format!("drop_path_rate = {drop_path_rate} is not in [0, 1)"));
    }
    let twice = (1..out_indices.len()).any(|i| out_indices[..i].contains(&out_indices[i]));
    if twice || out_indices.iter().any(|stage| *stage >= STAGES) {
        return refuse(format!("out_indices = {out_indices:?} must name stages 0 to {}, none twice", STAGES - 1));
    }
    if img_size.iter().any(|side| !(1..=1 << 16).contains(side)) {
        return refuse(format!("img_size = {img_size:?} is out of range"));
    }
    Ok(())
}

/// `[model.backbone.encoder]` of a U-Net, chosen by `type`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
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
                .hint("set them in model.backbone, and leave them out of model.backbone.encoder"));
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

    /// Multiply-accumulates, where a map of `stride` has (rows, columns).
    pub(super) fn macs(&self, grid: (usize, usize), stride: usize) -> usize {
        match self {
            Self::Resnet(config) => config.stem_macs(grid, stride) + config.stage_macs(grid, stride, STAGES - 1),
            Self::Convnext(config) => config.stem_macs(grid, stride) + config.stage_macs(grid, stride, STAGES - 1),
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

    /// Channels that a 3x3 convolution reads times those it writes, of the one where that is the most; 0 where each channel is
    /// convolved by itself.
    pub(super) fn convolved(&self) -> usize {
        match self {
            Self::Resnet(config) => config.convolved(),
            Self::Convnext(_) => 0,
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
    pub(super) fn maps(&self, images: Tensor<4>, pass: &Pass) -> Vec<Tensor<4>> {
        match self {
            Self::Resnet(resnet) => {
                let stem = resnet.stem(images, pass);
                let mut maps = vec![stem.clone()];
                maps.extend(resnet.stages(stem, STAGES - 1, pass));
                maps
            }
            Self::Convnext(convnext) => convnext.stages(images, STAGES - 1, pass),
        }
    }
}
