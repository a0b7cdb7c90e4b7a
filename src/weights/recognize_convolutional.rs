//! ResNet and ConvNeXt in a file: which they are, recognised by the names and shapes of their tensors.

use std::collections::BTreeMap;
use std::fmt;

/// Stages of either network.
const STAGES: usize = 4;

/// A network whose maps have several strides.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Convolutional {
    /// Residual network.
    Resnet {
        /// Blocks of each stage.
        depths: Vec<usize>,
        /// Whether its blocks have three convolutions.
        bottleneck: bool,
        /// Channels of the first convolution.
        stem: usize,
        /// Channels of the 3x3 convolutions of each stage.
        channels: Vec<usize>,
    },
    /// Convolutional network in the manner of a transformer.
    Convnext {
        /// Blocks of each stage.
        depths: Vec<usize>,
        /// Channels of each stage.
        channels: Vec<usize>,
    },
}

/// Published residual networks: their layers, blocks a stage, and whether these are bottlenecks.
const RESNETS: [(usize, [usize; STAGES], bool); 5] = [
    (18, [2, 2, 2, 2], false),
    (34, [3, 4, 6, 3], false),
    (50, [3, 4, 6, 3], true),
    (101, [3, 4, 23, 3], true),
    (152, [3, 8, 36, 3], true),
];
/// Published ConvNeXts: channels of the first stage, blocks a stage.
const CONVNEXTS: [(&str, usize, [usize; STAGES]); 8] = [
    ("atto", 40, [2, 2, 6, 2]),
    ("femto", 48, [2, 2, 6, 2]),
    ("pico", 64, [2, 2, 6, 2]),
    ("nano", 80, [2, 2, 8, 2]),
    ("tiny", 96, [3, 3, 9, 3]),
    ("small", 96, [3, 3, 27, 3]),
    ("base", 128, [3, 3, 27, 3]),
    ("large", 192, [3, 3, 27, 3]),
];

impl Convolutional {
    /// The network that tensors of these shapes are of, by our names; whether by itself or inside of a U-Net.
    pub fn of(shapes: &BTreeMap<&str, &[usize]>) -> Option<Self> {
        ["backbone.", "backbone.encoder."].iter().find_map(|start| Self::below(shapes, start))
    }

    fn below(shapes: &BTreeMap<&str, &[usize]>, start: &str) -> Option<Self> {
        let extent = |name: &str, axis: usize| shapes.get(&*format!("{start}{name}"))?.get(axis).copied();
        let blocks = |stage: &str| -> usize {
            let numbers = shapes.keys().filter_map(|name| {
                name.strip_prefix(start)?.strip_prefix(stage)?.split('.').next()?.parse::<usize>().ok()
            });
            numbers.max().map_or(0, |last| last.saturating_add(1))
        };
        if let Some(stem) = extent("conv1.weight", 0)
            && extent("layer1.0.conv1.weight", 0).is_some()
        {
            // Widened blocks have another ratio, grouped ones fewer inputs; small images' networks another stem.
            let inner = extent("layer1.0.conv2.weight", 0);
            let widened = extent("layer1.0.conv3.weight", 0).is_some_and(|wide| Some(wide) != inner.map(|c| 4 * c));
            if widened || extent("layer1.0.conv2.weight", 1) != inner || extent("conv1.weight", 2) != Some(7) {
                return None;
            }
            return Some(Self::Resnet {
                depths: (1..=STAGES).map(|i| blocks(&format!("layer{i}."))).collect(),
                bottleneck: extent("layer1.0.conv3.weight", 0).is_some(),
                stem,
                channels: (1..=STAGES).filter_map(|i| extent(&format!("layer{i}.0.conv2.weight"), 0)).collect(),
            });
        }
        extent("stages.0.blocks.0.conv_dw.weight", 0)?;
        Some(Self::Convnext {
            depths: (0..STAGES).map(|i| blocks(&format!("stages.{i}.blocks."))).collect(),
            channels: (0..STAGES).filter_map(|i| extent(&format!("stages.{i}.blocks.0.conv_dw.weight"), 0)).collect(),
        })
    }

    /// The first of its stages, as files call it, of which weights are missing.
    pub fn incomplete(&self) -> Option<String> {
        let (Self::Resnet { depths, channels, .. } | Self::Convnext { depths, channels }) = self;
        let lacking = depths.iter().position(|blocks| *blocks == 0);
        let stage = lacking.or((channels.len() < STAGES).then_some(channels.len()))?;
        Some(match self {
            Self::Resnet { .. } => format!("layer{}", stage + 1),
            Self::Convnext { .. } => format!("stages.{stage}"),
        })
    }

    /// Of a published residual network its layers.
    fn layers(&self) -> Option<usize> {
        let Self::Resnet { depths, bottleneck, .. } = self else { return None };
        RESNETS.iter().find(|(_, known, three)| known == &depths[..] && three == bottleneck).map(|(layers, ..)| *layers)
    }

    /// Of a published ConvNeXt its size.
    fn size(&self) -> Option<&'static str> {
        let Self::Convnext { depths, channels } = self else { return None };
        let doubled = channels.windows(2).all(|pair| pair[1] == 2 * pair[0]);
        let known = CONVNEXTS
            .iter()
            .find(|(_, first, blocks)| doubled && Some(first) == channels.first() && blocks == &depths[..]);
        known.map(|(name, ..)| *name)
    }

    /// The keys and values, as TOML, of a recipe's table for this network, its `type` first.
    pub fn recipe(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Resnet { depths, bottleneck, stem, channels } => {
                let mut lines = vec![("type", "\"resnet\"".to_owned())];
                match self.layers() {
                    Some(layers) => lines.push(("layers", layers.to_string())),
                    None => {
                        lines.push(("depths", format!("{depths:?}")));
                        lines.push(("bottleneck", bottleneck.to_string()));
                    }
                }
                if *stem != 64 {
                    lines.push(("stem_channels", stem.to_string()));
                }
                if channels[..] != [64, 128, 256, 512] {
                    lines.push(("channels", format!("{channels:?}")));
                }
                lines
            }
            Self::Convnext { depths, channels } => {
                let mut lines = vec![("type", "\"convnext\"".to_owned())];
                match self.size() {
                    Some(size) => lines.push(("size", format!("{size:?}"))),
                    None => {
                        lines.push(("depths", format!("{depths:?}")));
                        lines.push(("channels", format!("{channels:?}")));
                    }
                }
                lines
            }
        }
    }

    /// Maps that a U-Net stands beside its way up.
    pub fn skips(&self) -> usize {
        match self {
            Self::Resnet { .. } => STAGES,
            Self::Convnext { .. } => STAGES - 1,
        }
    }
}

impl fmt::Display for Convolutional {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = match self {
            Self::Resnet { stem, channels, .. } => *stem == 64 && channels[..] == [64, 128, 256, 512],
            Self::Convnext { .. } => true,
        };
        match (self.layers(), self.size(), self) {
            (Some(layers), ..) if usual => write!(f, "ResNet-{layers}"),
            (_, Some(size), _) => write!(f, "ConvNeXt, {size}"),
            (_, _, Self::Resnet { depths, channels, .. }) => {
                write!(f, "ResNet of {depths:?} blocks, {channels:?} channels")
            }
            (_, _, Self::Convnext { depths, channels }) => {
                write!(f, "ConvNeXt of {depths:?} blocks, {channels:?} channels")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resnet(start: &str, layers: usize) -> Vec<(String, Vec<usize>)> {
        let (_, depths, bottleneck) = RESNETS.into_iter().find(|(known, ..)| *known == layers).unwrap();
        let mut shapes = vec![(format!("{start}conv1.weight"), vec![64, 3, 7, 7])];
        for (i, depth) in depths.into_iter().enumerate() {
            for block in 0..depth {
                let name = |conv: usize| format!("{start}layer{}.{block}.conv{conv}.weight", i + 1);
                let c = 64 << i;
                shapes.push((name(1), vec![c, c, 3, 3]));
                shapes.push((name(2), vec![c, c, 3, 3]));
                shapes.extend(bottleneck.then(|| (name(3), vec![4 * c, c, 1, 1])));
            }
        }
        shapes
    }

    fn found_in(shapes: &[(String, Vec<usize>)]) -> Option<Convolutional> {
        Convolutional::of(&shapes.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect())
    }

    #[test]
    fn published_networks_are_known_by_name() {
        for start in ["backbone.", "backbone.encoder."] {
            for (layers, ..) in RESNETS {
                let found = found_in(&resnet(start, layers)).unwrap();
                assert_eq!(found.to_string(), format!("ResNet-{layers}"));
                assert_eq!(found.recipe(), [("type", "\"resnet\"".to_owned()), ("layers", layers.to_string())]);
            }
        }
        let mut other = resnet("backbone.", 18);
        other.retain(|(name, _)| !name.contains("layer4.1"));
        other[0].1[0] = 32;
        let found = found_in(&other).unwrap();
        assert_eq!(found.to_string(), "ResNet of [2, 2, 2, 1] blocks, [64, 128, 256, 512] channels");
        assert_eq!(
            found.recipe()[1..],
            [("depths", "[2, 2, 2, 1]".into()), ("bottleneck", "false".into()), ("stem_channels", "32".into())]
        );
        assert_eq!(found_in(&[("backbone.conv1.weight".to_owned(), vec![64])]), None);
        for (name, shape) in
            [("layer1.0.conv2", [128, 128, 3, 3]), ("layer1.0.conv2", [64, 2, 3, 3]), ("conv1", [64, 3, 3, 3])]
        {
            let mut other = resnet("backbone.", 50);
            let name = format!("backbone.{name}.weight");
            other.iter_mut().filter(|(found, _)| *found == name).for_each(|(_, old)| *old = shape.to_vec());
            assert_eq!(found_in(&other), None, "{name} {shape:?}");
        }
    }

    #[test]
    fn convnexts_are_known_by_their_width_and_depth() {
        let convnext = |channels: [usize; 4], depths: [usize; 4]| {
            let all = (0..4).flat_map(|i| (0..depths[i]).map(move |block| (i, block)));
            let shapes: Vec<_> = all
                .map(|(i, block)| {
                    (format!("backbone.stages.{i}.blocks.{block}.conv_dw.weight"), vec![channels[i], 1, 7, 7])
                })
                .collect();
            found_in(&shapes).unwrap()
        };
        for (name, first, depths) in CONVNEXTS {
            let found = convnext([first, 2 * first, 4 * first, 8 * first], depths);
            assert_eq!(found.to_string(), format!("ConvNeXt, {name}"));
            assert_eq!(found.recipe()[1], ("size", format!("{name:?}")));
        }
        let other = convnext([8, 16, 32, 48], [1, 1, 2, 1]);
        assert_eq!(other.recipe()[2], ("channels", "[8, 16, 32, 48]".to_owned()));
    }
}
