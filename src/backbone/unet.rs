//! A U-Net (Ronneberger et al., arXiv 1505.04597) of residual blocks, for images that nothing is pretrained for: its
//! convolutions know from the start that neighbours belong together, which a transformer has to learn from much data.
//!
//! ```text
//! images ─ stem ─▶ stage 0 ───────────────────────────── concat ─▶ up 0 ─▶ [h / s, w / s, channels 0]
//!                    └─ 2x2 ─▶ stage 1 ─────────── concat ─▶ up 1 ─┘
//!                                └─ 2x2 ─▶ stage 2 ─▶ … ─┘
//! ```
//!
//! The stem is a convolution whose stride is its size, `stem_stride` pixels, and a 3x3 one. Between stages a 2x2
//! convolution halves the map; on the way up it is doubled (nearest neighbour) and stands beside the map of the same
//! size on the way down. A block is He et al.'s (arXiv 1512.03385) basic one; its last norm begins at zero, so that a
//! deep network begins as a shallow one (Goyal et al., arXiv 1706.02677).
//!
//! In place of stem and stages there may be an `encoder`, a ResNet or ConvNeXt, whose maps are all stood beside the way
//! up: a ResNet's of strides 2 to 32, a ConvNeXt's of 4 to 32.

mod blocks;

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::backbone::encoder::{EncoderConfig, WayDown};
use crate::backbone::hierarchy::Level;
use crate::backbone::unet::blocks::{Block, Downsample, GROUP, Stage, Stem, Up};
use crate::backbone::{Backbone, FeatureInfo, Features};
use crate::error::{Error, Result};
use crate::layers::{Cost, DropPath, ForwardContext, Init};

/// The normalisation after each convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum NormKind {
    /// Over the batch and the pixels of a channel.
    Batch,
    /// Over the pixels of 8 neighbouring channels of one image: the batch does not matter.
    Group,
}

/// Configuration of [`Unet`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct UnetConfig {
    /// Channels of each stage, the finest first; a stage has half of the rows and columns of the one before. With an
    /// encoder: of each map on the way up, one less than the encoder has maps.
    pub channels: Vec<usize>,
    /// Residual blocks of each stage; not with an encoder.
    pub depths: Vec<usize>,
    /// Image pixels per pixel of the finest map, along a side; an encoder has its own.
    pub stem_stride: usize,
    /// The norm after a convolution; an encoder has its own.
    pub norm: NormKind,
    /// Drop path rate of the last block, rising linearly from 0; an encoder has its own.
    pub drop_path_rate: f64,
    /// Stages whose map on the way up is handed out too, before the finest: 1 is the one of half its size.
    pub out_indices: Vec<usize>,
    /// Height and width of the images that the model is made for; other sizes resize a decoder's structure tokens.
    pub img_size: [usize; 2],
    /// A published network for the way down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder: Option<EncoderConfig>,
}

impl Default for UnetConfig {
    fn default() -> Self {
        Self {
            channels: vec![32, 64, 128, 256],
            depths: vec![1, 1, 2, 2],
            stem_stride: 2,
            norm: NormKind::Group,
            drop_path_rate: 0.0,
            out_indices: Vec::new(),
            img_size: [256, 256],
            encoder: None,
        }
    }
}

/// Cells of the finest map: no sum over them, and none over their pairs in all layers of a decoder, leaves 64 bits.
const LARGEST_GRID: usize = 1 << 22;

impl UnetConfig {
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::new(format!("model.backbone: {what}")));
        if let Some(encoder) = &self.encoder {
            encoder.check()?;
            let maps = encoder.levels().len();
            if self.channels.len() + 1 != maps {
                let example: Vec<usize> = (0..maps - 1).map(|i| 32 << i).collect();
                return Err(Error::new(format!(
                    "model.backbone: channels lists {} maps, but a U-Net over an encoder of {maps} maps has {}",
                    self.channels.len(),
                    maps - 1
                ))
                .with_hint(format!("set as many, the finest first: model.backbone.channels = {example:?}")));
            }
            if self.drop_path_rate != 0.0 {
                return Err(Error::new("model.backbone: drop_path_rate is that of the U-Net's own stages").with_hint(
                    "set model.backbone.encoder.drop_path_rate, and leave model.backbone.drop_path_rate out",
                ));
            }
        } else if self.channels.is_empty() || self.channels.len() > 8 || self.channels.len() != self.depths.len() {
            return refuse(format!(
                "channels has {} stages and depths {}; there are as many of both, 1 to 8",
                self.channels.len(),
                self.depths.len()
            ));
        }
        if self.channels.iter().any(|width| !(1..=1 << 12).contains(width))
            || self.depths.iter().any(|depth| *depth > 64)
        {
            return refuse(format!("channels = {:?} or depths = {:?} is out of range", self.channels, self.depths));
        }
        if let (NormKind::Group, Some(width)) =
            (self.norm, self.channels.iter().find(|width| !width.is_multiple_of(GROUP)))
        {
            return refuse(format!("channels has {width}, which is not a multiple of the {GROUP} channels of a group"));
        }
        if !(1..=64).contains(&self.stem_stride) || self.img_size.iter().any(|side| !(1..=1 << 16).contains(side)) {
            return refuse(format!(
                "stem_stride = {} or img_size = {:?} is out of range",
                self.stem_stride, self.img_size
            ));
        }
        if self.grid().0 * self.grid().1 > LARGEST_GRID {
            return refuse(format!(
                "img_size = {:?} at stem_stride = {} is too large",
                self.img_size, self.stem_stride
            ));
        }
        if !(0.0..1.0).contains(&self.drop_path_rate) {
            return refuse(format!("drop_path_rate = {} is not in [0, 1)", self.drop_path_rate));
        }
        let falls = self.out_indices.windows(2).all(|pair| pair[0] > pair[1]);
        let deepest = self.levels().len() - 1;
        if !falls || self.out_indices.iter().any(|stage| !(1..=deepest).contains(stage)) {
            return refuse(format!(
                "out_indices = {:?} must be in descending order, of stages 1 to {deepest}",
                self.out_indices
            ));
        }
        Ok(())
    }

    /// The maps on the way down, the finest first.
    fn levels(&self) -> Vec<Level> {
        match &self.encoder {
            Some(encoder) => encoder.levels(),
            None => {
                let own = self.channels.iter().enumerate();
                own.map(|(i, channels)| Level { channels: *channels, stride: self.stem_stride << i }).collect()
            }
        }
    }

    /// The maps on the way up, the finest first; the last is that of the deepest stage.
    fn maps(&self) -> Vec<Level> {
        let mut levels = self.levels();
        let up = levels.len() - 1;
        for (level, channels) in levels.iter_mut().take(up).zip(&self.channels) {
            level.channels = *channels;
        }
        levels
    }

    pub(super) fn features(&self) -> FeatureInfo {
        let maps = self.maps();
        let handed_out = || self.out_indices.iter().copied().chain([0]).map(|stage| maps[stage]);
        FeatureInfo {
            channels: handed_out().map(|map| map.channels).collect(),
            strides: handed_out().map(|map| map.stride).collect(),
            grid: self.grid(),
            transformer: None,
        }
    }

    /// Image pixels per pixel of the finest map, along a side.
    fn stride(&self) -> usize {
        self.levels().first().map_or(1, |level| level.stride)
    }

    /// Rows and columns of the finest map.
    fn grid(&self) -> (usize, usize) {
        let [rows, columns] = self.img_size.map(|side| side.div_ceil(self.stride()));
        (rows, columns)
    }

    /// For each step of the way up, the finest first: channels of the map beside it, of the one below, and its own;
    /// pixels.
    fn ups(&self, grid: (usize, usize)) -> Vec<(usize, usize, usize, usize)> {
        let (levels, maps, stride) = (self.levels(), self.maps(), self.stride());
        let up = |i: usize| (levels[i].channels, maps[i + 1].channels, maps[i].channels, maps[i].pixels(grid, stride));
        (0..maps.len() - 1).map(up).collect()
    }

    /// Channels and pixels of each stage, where the finest has (rows, columns).
    fn stages(&self, grid: (usize, usize)) -> Vec<(usize, usize)> {
        let stride = self.stride();
        self.levels().into_iter().map(|level| (level.channels, level.pixels(grid, stride))).collect()
    }

    pub(super) fn macs(&self, image: (usize, usize)) -> Vec<Cost> {
        let grid = (image.0.div_ceil(self.stride()), image.1.div_ceil(self.stride()));
        let ups = self.ups(grid).into_iter().map(|(skip, below, c, pixels)| pixels * 9 * ((skip + below) * c + c * c));
        let ups = Cost::new("backbone.ups", ups.sum());
        if let Some(encoder) = &self.encoder {
            return vec![Cost::new("backbone.encoder", encoder.macs(image)), ups];
        }
        let stages = self.stages(grid);
        let (first, finest) = stages[0];
        let stem = finest * (3 * self.stem_stride * self.stem_stride * first + 9 * first * first);
        let blocks = stages.iter().zip(&self.depths).map(|((c, pixels), depth)| depth * pixels * 18 * c * c).sum();
        let pairs = stages.iter().zip(&stages[1..]);
        let down = pairs.map(|((above, _), (below, pixels))| pixels * 4 * above * below).sum();
        vec![
            Cost::new("backbone.stem", stem),
            Cost::new("backbone.stages", blocks),
            Cost::new("backbone.downsamples", down),
            ups,
        ]
    }

    pub(super) fn activations(&self, grid: (usize, usize)) -> usize {
        let stages = self.stages(grid);
        // What waits on the way down, and at the finest map: both maps beside each other, and around a convolution.
        let waiting: usize = stages.iter().map(|(c, pixels)| c * pixels).sum();
        let (first, finest) = stages[0];
        let up = self.ups(grid).first().map_or(3 * first, |(skip, below, c, _)| skip + below + 2 * c);
        let block = self.encoder.as_ref().map_or(0, |encoder| encoder.block_activations(grid, self.stride()));
        waiting + (finest * up).max(block)
    }

    /// Channels that a 3x3 convolution reads times those it writes, of the one where that is the most.
    pub(super) fn convolved(&self) -> Option<usize> {
        let ups = self.ups(self.grid()).into_iter().map(|(skip, below, c, _)| (skip + below).max(c) * c);
        let down = match &self.encoder {
            Some(encoder) => encoder.convolved(),
            None => self.channels.iter().map(|c| c * c).max(),
        };
        ups.chain(down).max()
    }

    /// Each convolution keeps its input, and each norm.
    pub(super) fn kept_activations(&self, grid: (usize, usize)) -> usize {
        let blocks: usize = match &self.encoder {
            Some(encoder) => encoder.kept_activations(grid, self.stride()),
            None => self.stages(grid).iter().zip(&self.depths).map(|((c, pixels), depth)| depth * pixels * 4 * c).sum(),
        };
        blocks + self.ups(grid).iter().map(|(skip, below, c, n)| n * (skip + below + 3 * c)).sum::<usize>()
    }

    pub(super) fn init(&self, init: &mut Init) -> Unet {
        let mut drop_paths = DropPath::schedule(self.drop_path_rate, self.depths.iter().sum()).into_iter();
        let norm = self.norm;
        let encoder = self.encoder.as_ref().map(|encoder| encoder.init(init));
        let own: &[usize] = if encoder.is_some() { &[] } else { &self.channels };
        let stages = own.iter().zip(&self.depths).map(|(c, depth)| Stage {
            blocks: drop_paths.by_ref().take(*depth).map(|drop_path| Block::new(*c, norm, drop_path, init)).collect(),
        });
        let stages = stages.collect();
        let pairs = own.iter().zip(own.iter().skip(1));
        let ups = self.ups(self.grid()).into_iter();
        Unet {
            encoder,
            stem: own.first().map(|first| Stem::new(self.stem_stride, *first, norm, init)),
            stages,
            downsamples: pairs.map(|(above, below)| Downsample::new(*above, *below, norm, init)).collect(),
            ups: ups.map(|(skip, below, channels, _)| Up::new(skip, below, channels, norm, init)).collect(),
            out_indices: self.out_indices.clone(),
            grid: self.grid(),
        }
    }
}

/// Images to maps, coarse to fine.
#[derive(Module, Debug)]
pub struct Unet {
    /// In place of the stem, the stages and what is between them.
    encoder: Option<WayDown>,
    stem: Option<Stem>,
    stages: Vec<Stage>,
    downsamples: Vec<Downsample>,
    ups: Vec<Up>,
    #[module(skip)]
    out_indices: Vec<usize>,
    #[module(skip)]
    grid: (usize, usize),
}

impl Backbone for Unet {
    /// Normalised images `[b, 3, height, width]` to the maps of `out_indices` and after them the finest,
    /// `[b, ceil(height / stride), ceil(width / stride), c]`. Where a map is not a whole number of patches, zeros are
    /// put at the bottom and the right.
    ///
    /// Records `unet.stem`, `unet.stage{i}` and `unet.up{i}`; of an encoder its own names in place of the first two.
    fn forward(&self, images: Tensor<4>, context: &ForwardContext) -> Features {
        let mut skips = match &self.encoder {
            Some(encoder) => encoder.maps(images, context),
            None => self.way_down(images, context),
        };
        let Some(mut x) = skips.pop() else { unreachable!("there is at least one stage") };
        let mut maps = Vec::with_capacity(self.out_indices.len() + 1);
        for (i, skip) in skips.into_iter().enumerate().rev() {
            if self.out_indices.contains(&(i + 1)) {
                maps.push(x.clone());
            }
            x = self.ups[i].forward(x, skip, context);
            context.record(&format!("unet.up{i}"), &x);
        }
        maps.push(x);
        Features { maps }
    }

    /// Rows and columns of the finest map at the size the model is made for.
    fn grid(&self) -> Option<(usize, usize)> {
        Some(self.grid)
    }
}

impl Unet {
    /// The map of each of its own stages, the finest first.
    fn way_down(&self, images: Tensor<4>, context: &ForwardContext) -> Vec<Tensor<4>> {
        let mut x = images.permute([0, 2, 3, 1]);
        if let Some(stem) = &self.stem {
            x = stem.forward(x, context);
            context.record("unet.stem", &x);
        }
        let maps = self.stages.iter().enumerate().map(|(i, stage)| {
            if i > 0 {
                x = self.downsamples[i - 1].forward(x.clone(), context);
            }
            x = stage.blocks.iter().fold(x.clone(), |x, block| block.forward(x, context));
            context.record(&format!("unet.stage{i}"), &x);
            x.clone()
        });
        maps.collect()
    }
}

#[cfg(test)]
mod tests;
