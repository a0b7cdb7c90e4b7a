//! Maps of four sizes, each half of the one before, whatever the backbone.
//!
//! Convolutional backbones have them: each map that they return ends as below, and where there is none of a size, the
//! one before is pooled. Of a plain ViT's last map the simple feature pyramid of ViTDet (Li et al., arXiv 2203.16527)
//! makes four:
//!
//! ```text
//! x [h, w, c] ─┬─ transposed conv, norm, GELU, transposed conv ─▶ [4 h, 4 w, c / 4] ─┐
//!              ├─ transposed conv ──────────────────────────────▶ [2 h, 2 w, c / 2] ─┤ each: conv 1x1, norm,
//!              ├─ as it is ─────────────────────────────────────▶ [h, w, c] ─────────┤       conv 3x3, norm
//!              └─ max pooling ──────────────────────────────────▶ [h / 2, w / 2, c] ─┘
//! ```
//!
//! Nothing goes from one size to another, no activation follows the last norms, and convolutions before a norm have no
//! bias. With a ViT of patch 16 the strides are 4, 8, 16, 32. Names in detectron2's `SimpleFeaturePyramid`:
//!
//! | here | there |
//! |---|---|
//! | `up4.conv1`, `up4.norm`, `up4.conv2` | `simfp_2.0`, `simfp_2.1`, `simfp_2.3` |
//! | `up2` | `simfp_3.0` |
//! | `levels.0.{conv1, norm1, conv2, norm2}` | `simfp_2.{4, 4.norm, 5, 5.norm}` |
//! | `levels.1`, `levels.2`, `levels.3`, the same of each | `simfp_3.{1, 2}`, `simfp_4.{0, 1}`, `simfp_5.{1, 2}` |

use burn::module::Module;
use burn::tensor::Tensor;

use crate::backbone::{FeatureInfo, Features};
use crate::error::{Error, Result};
use crate::layers::{Conv3x3, Init, LayerNorm, PointwiseConv, TransposedConv2x2, max_pool2x2};

const EPS: f64 = 1e-6;
/// Maps of a pyramid.
pub const LEVELS: usize = 4;
/// Masks of a map that is this coarse, or coarser, are of no use.
const COARSE: usize = 32;

/// Four maps of a backbone of either kind.
#[allow(clippy::large_enum_variant, reason = "a decoder has one pyramid")]
#[derive(Module, Debug)]
pub enum Pyramid {
    /// Of a plain vision transformer.
    Simple(SimpleFeaturePyramid),
    /// Of a backbone with maps of several strides.
    Maps(MapPyramid),
}

impl Pyramid {
    /// `channels` in every map.
    pub fn new(features: &FeatureInfo, channels: usize, init: &mut Init) -> Self {
        match features.transformer {
            Some(_) => Self::Simple(SimpleFeaturePyramid::new(features.last(), channels, init)),
            None => Self::Maps(MapPyramid::new(features, channels, init)),
        }
    }

    /// Four maps, the finest first, each with half of the rows and columns of the one before.
    pub fn forward(&self, features: Features) -> Vec<Tensor<4>> {
        match self {
            Self::Simple(pyramid) => pyramid.forward(features.last()),
            Self::Maps(pyramid) => pyramid.forward(&features.maps),
        }
    }
}

/// Refuses backbones whose last map is not the finest, or is too coarse for masks.
pub(super) fn check(features: &FeatureInfo) -> Result<()> {
    let (last, finest) = (features.stride(), features.strides.iter().copied().min().unwrap_or(1));
    if features.transformer.is_some() || (last == finest && last < COARSE) {
        return Ok(());
    }
    Err(Error::new(format!(
        "model.decoder: masks would be made on a map of stride {last}, but the backbone's maps have strides {:?}",
        features.strides
    ))
    .with_hint(
        "let the backbone return finer maps, the finest last: model.backbone.out_indices = [3, 2, 1, 0] of a ResNet or \
         ConvNeXt, a smaller stem_stride of a U-Net",
    ))
}

/// Pixels of the four maps, the finest first, where the backbone's last has (rows, columns).
pub(super) fn pixels(features: &FeatureInfo, (h, w): (usize, usize)) -> [usize; LEVELS] {
    match features.transformer {
        Some(_) => [16 * h * w, 4 * h * w, h * w, pooled(h) * pooled(w)],
        None => {
            let (mut rows, mut columns) = (h, w);
            let found = picks(features).map(|(map, _)| map.is_some());
            [0, 1, 2, 3].map(|i| {
                (rows, columns) = match found[i] {
                    true => (h.div_ceil(1 << i), w.div_ceil(1 << i)),
                    false => (pooled(rows), pooled(columns)),
                };
                rows * columns
            })
        }
    }
}

/// A side after [`max_pool2x2`].
fn pooled(side: usize) -> usize {
    (side / 2).max(1)
}

/// Multiply-accumulates of [`Pyramid`], where the backbone's last map has (rows, columns).
pub(super) fn macs(features: &FeatureInfo, channels: usize, grid: (usize, usize)) -> usize {
    match features.transformer {
        Some(_) => simple_macs(features.last(), channels, grid),
        None => {
            let levels = picks(features).into_iter().zip(pixels(features, grid));
            levels.map(|((_, inputs), n)| n * (inputs * channels + 9 * channels * channels)).sum()
        }
    }
}

/// Values alive at a pixel of the finest map at most: what it was made of, and the maps around its convolutions; the
/// coarser maps are a third of the finest together.
pub(super) fn activations(features: &FeatureInfo, channels: usize) -> usize {
    let made_of = if features.transformer.is_some() { features.last() / 4 } else { features.last() };
    made_of + 3 * channels
}

/// For each of the four maps: which of the backbone's it is made of, or none where the one before is pooled; its
/// channels.
fn picks(features: &FeatureInfo) -> [(Option<usize>, usize); LEVELS] {
    let mut before = features.last();
    [0, 1, 2, 3].map(|i| {
        let found = features.strides.iter().rposition(|stride| *stride == features.stride() << i);
        before = found.map_or(before, |map| features.channels[map]);
        (found, before)
    })
}

/// Maps of a backbone, each after two convolutions.
#[derive(Module, Debug)]
pub struct MapPyramid {
    levels: Vec<Level>,
    #[module(skip)]
    picks: Vec<Option<usize>>,
}

impl MapPyramid {
    fn new(features: &FeatureInfo, channels: usize, init: &mut Init) -> Self {
        let picks = picks(features);
        Self {
            levels: picks.iter().map(|(_, inputs)| Level::new(*inputs, channels, init)).collect(),
            picks: picks.iter().map(|(map, _)| *map).collect(),
        }
    }

    fn forward(&self, maps: &[Tensor<4>]) -> Vec<Tensor<4>> {
        let Some(mut x) = maps.last().cloned() else { unreachable!("a backbone returns at least one map") };
        let levels = self.levels.iter().zip(&self.picks).map(|(level, map)| {
            x = match map {
                Some(map) => maps[*map].clone(),
                None => max_pool2x2(x.clone()),
            };
            level.forward(x.clone())
        });
        levels.collect()
    }
}

/// One map to four: four times, twice, once and half its size.
#[derive(Module, Debug)]
pub struct SimpleFeaturePyramid {
    up4: Quadruple,
    up2: TransposedConv2x2,
    levels: Vec<Level>,
}

impl SimpleFeaturePyramid {
    /// From `channels_in`, at least 4, to `channels_out` in every map.
    pub fn new(channels_in: usize, channels_out: usize, init: &mut Init) -> Self {
        let [quarter, half] = [channels_in / 4, channels_in / 2];
        Self {
            up4: Quadruple::new(channels_in, init),
            up2: TransposedConv2x2::new(channels_in, half, init),
            levels: [quarter, half, channels_in, channels_in].map(|c| Level::new(c, channels_out, init)).into(),
        }
    }

    /// `[b, h, w, channels_in]` to four maps of `channels_out`, the largest first: `[b, 4 h, 4 w, _]`,
    /// `[b, 2 h, 2 w, _]`, `[b, h, w, _]` and `[b, h / 2, w / 2, _]`, rounded down but at least 1 a side.
    pub fn forward(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        let maps = [self.up4.forward(x.clone()), self.up2.forward(x.clone()), x.clone(), max_pool2x2(x)];
        self.levels.iter().zip(maps).map(|(level, map)| level.forward(map)).collect()
    }
}

/// Multiply-accumulates of [`SimpleFeaturePyramid`] on one map of (rows, columns).
fn simple_macs(channels_in: usize, channels_out: usize, (h, w): (usize, usize)) -> usize {
    let [quarter, half] = [channels_in / 4, channels_in / 2];
    // A transposed convolution takes 4 · in · out for each pixel that it reads.
    let up4 = h * w * 4 * channels_in * half + 4 * h * w * 4 * half * quarter;
    let up2 = h * w * 4 * channels_in * half;
    let level = |pixels: usize, c: usize| pixels * (c * channels_out + 9 * channels_out * channels_out);
    let top = pooled(h) * pooled(w);
    let levels =
        [(16 * h * w, quarter), (4 * h * w, half), (h * w, channels_in), (top, channels_in)].map(|(n, c)| level(n, c));
    up4 + up2 + levels.iter().sum::<usize>()
}

/// A map of four times the size and a quarter of the channels.
#[derive(Module, Debug)]
struct Quadruple {
    conv1: TransposedConv2x2,
    norm: LayerNorm,
    conv2: TransposedConv2x2,
}

impl Quadruple {
    fn new(channels: usize, init: &mut Init) -> Self {
        Self {
            conv1: TransposedConv2x2::new(channels, channels / 2, init),
            norm: LayerNorm::new(channels / 2, EPS, init),
            conv2: TransposedConv2x2::new(channels / 2, channels / 4, init),
        }
    }

    /// `[b, h, w, c]` to `[b, 4 h, 4 w, c / 4]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv2.forward(self.norm.forward_gelu(self.conv1.forward(x)))
    }
}

/// What each size ends with.
#[derive(Module, Debug)]
struct Level {
    conv1: PointwiseConv,
    norm1: LayerNorm,
    conv2: Conv3x3,
    norm2: LayerNorm,
}

impl Level {
    fn new(inputs: usize, outputs: usize, init: &mut Init) -> Self {
        Self {
            conv1: PointwiseConv::without_bias(inputs, outputs, init),
            norm1: LayerNorm::new(outputs, EPS, init),
            conv2: Conv3x3::without_bias(outputs, outputs, init),
            norm2: LayerNorm::new(outputs, EPS, init),
        }
    }

    /// `[b, h, w, inputs]` to `[b, h, w, outputs]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.norm1.forward(self.conv1.forward(x));
        self.norm2.forward(self.conv2.forward(x))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn sizes() {
        let device = Device::flex();
        let pyramid = SimpleFeaturePyramid::new(8, 6, &mut Init::new(1, &device));
        let cases = [
            ((6, 5), [[24, 20], [12, 10], [6, 5], [3, 2]]),
            ((1, 4), [[4, 16], [2, 8], [1, 4], [1, 2]]),
            ((1, 1), [[4, 4], [2, 2], [1, 1], [1, 1]]),
        ];
        for ((h, w), expected) in cases {
            let maps = pyramid.forward(Tensor::zeros([2, h, w, 8], &device));
            let sizes: Vec<_> = maps.iter().map(Tensor::dims).collect();
            assert_eq!(sizes, expected.map(|[h, w]| [2, h, w, 6]));
        }
    }

    #[test]
    fn multiply_accumulates_are_one_per_weight_and_pixel() {
        let (h, w) = (4, 6);
        let pyramid = SimpleFeaturePyramid::new(8, 6, &mut Init::blank(&Device::flex()));
        let size = |weight: &burn::module::Param<Tensor<4>>| weight.dims().iter().product::<usize>();
        // A transposed convolution uses each weight once for each pixel that it reads, the others for each they write.
        let mut expected = h * w * (size(&pyramid.up4.conv1.weight) + size(&pyramid.up2.weight));
        expected += 4 * h * w * size(&pyramid.up4.conv2.weight);
        for (level, pixels) in pyramid.levels.iter().zip([16 * h * w, 4 * h * w, h * w, h * w / 4]) {
            expected += pixels * (size(&level.conv1.weight) + size(&level.conv2.weight));
        }
        assert_eq!(simple_macs(8, 6, (h, w)), expected);
    }

    fn maps(strides: &[usize]) -> FeatureInfo {
        FeatureInfo {
            channels: strides.iter().map(|stride| 2 * stride).collect(),
            strides: strides.to_vec(),
            grid: (8, 8),
            transformer: None,
        }
    }

    #[test]
    fn maps_of_a_backbone_are_taken_by_their_stride_and_others_pooled() {
        let device = Device::flex();
        for (strides, inputs) in [
            (&[32, 16, 8, 4][..], [8, 16, 32, 64]),
            (&[8, 4], [8, 16, 16, 16]),
            (&[2], [4, 4, 4, 4]),
            (&[16, 4], [8, 8, 32, 32]),
        ] {
            let features = maps(strides);
            let pyramid = MapPyramid::new(&features, 6, &mut Init::new(1, &device));
            let (h, w) = (11, 17);
            let finest = *strides.last().unwrap();
            let given: Vec<Tensor<4>> = strides
                .iter()
                .map(|stride| {
                    let [h, w] = [h, w].map(|side: usize| (side * finest).div_ceil(*stride));
                    Tensor::ones([2, h, w, 2 * stride], &device)
                })
                .collect();
            let made: Vec<_> = pyramid.forward(&given).iter().map(Tensor::dims).collect();
            assert_eq!((made.len(), made[0]), (4, [2, h, w, 6]), "{strides:?}");
            let found: Vec<usize> = pyramid.levels.iter().map(|level| level.conv1.weight.dims()[1]).collect();
            assert_eq!(found, inputs, "{strides:?}");
            let sizes = pixels(&features, (16, 24));
            assert_eq!(sizes, [384, 96, 24, 6]);
            let size = |weight: &burn::module::Param<Tensor<4>>| weight.dims().iter().product::<usize>();
            let expected = pyramid.levels.iter().zip(sizes);
            let expected: usize = expected.map(|(l, n)| n * (size(&l.conv1.weight) + size(&l.conv2.weight))).sum();
            assert_eq!(macs(&features, 6, (16, 24)), expected);
        }
    }

    #[test]
    fn maps_that_are_too_coarse_or_end_with_a_coarse_one_are_refused() {
        assert!(check(&maps(&[32, 16, 8, 4])).is_ok() && check(&maps(&[16])).is_ok());
        for strides in [&[32][..], &[4, 8, 16, 32], &[4, 8]] {
            let error = check(&maps(strides)).unwrap_err();
            assert!(error.hint().unwrap().contains("out_indices = [3, 2, 1, 0]"), "{error}");
        }
    }
}
