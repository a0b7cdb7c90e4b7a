//! Facts that a plan is chosen from: the data, the weights to start from, the machine.

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use crate::config::Config;
use crate::dataset::{Classes, LabelCounts, Split};
use crate::error::{Error, Result};
use crate::image::{Image, Labels};
use crate::plan::PlanOptions;
use crate::text::utf8;
use crate::weights::{self, Convolutional};

/// Images that are opened to learn their sizes.
const LOOKED_AT: usize = 64;

/// What a dataset is like.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its name in the recipe.
    pub dataset: String,
    /// Its classes.
    pub classes: Classes,
    /// Images to train on and to evaluate on.
    counts: [usize; 2],
    /// Width and height of the image in the middle by area, of those that were looked at.
    pub size: (usize, usize),
    /// The smallest and the largest by area.
    pub extremes: [(usize, usize); 2],
    /// The share of every class of the labelled training pixels.
    pub shares: Vec<f64>,
    /// The training images that hold a class, for every class.
    pub holders: Vec<usize>,
    /// Whether there is an above and a below: a class lies on average higher or lower than the middle. In what is seen
    /// through a microscope, or from the air, none does.
    pub upright: bool,
    /// How much images differ from one another: the variance of their mean colours over the mean variance of colours
    /// within an image. CamVid, of one camera, has 0.2; photos of people 0.1; microscope images of several stains 9.6.
    pub variety: f64,
    /// The weights to start from.
    pub pretrained: Option<Pretrained>,
}

/// A network in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pretrained {
    /// The file.
    pub path: PathBuf,
    /// What is in it.
    pub network: FileArchitecture,
}

/// A network of either kind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileArchitecture {
    /// A plain vision transformer.
    Vit(Vit),
    /// A ResNet or ConvNeXt.
    Convolutional(Convolutional),
}

/// A plain vision transformer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vit {
    /// Channels of a token.
    pub embed_dim: usize,
    /// Blocks.
    pub depth: usize,
    /// Pixels along a patch.
    pub patch_size: usize,
    /// Hidden channels of a block's MLP.
    pub mlp_dim: usize,
    /// Whether its blocks have LayerScale, as DINOv2's.
    pub layer_scale: bool,
    /// Register tokens.
    pub reg_tokens: usize,
    /// Whether it has a class token.
    pub class_token: bool,
    /// Whether its positions are those of the patches alone, as timm's `no_embed_class`.
    pub no_embed_class: bool,
    /// Whether its MLPs have gates (SwiGLU).
    pub gated: bool,
    /// Whether its positions are rotations and no table, as DINOv3's.
    pub rotated: bool,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
}

/// What there is to compute with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Threads of the CPU's kernels.
    pub threads: usize,
    /// Memory that is free for use, in MB, where the system reports it.
    pub free_mb: Option<u64>,
    /// Whether it computes on the CPU.
    pub cpu: bool,
}

impl Facts {
    /// Looks at the dataset, all its masks and some of its images.
    pub(super) fn read(dataset: &str, options: &PlanOptions, note: &mut dyn FnMut(&str)) -> Result<Self> {
        let data = Config::parse(&format!("[data]\ndataset = {dataset:?}"), "plan", &data_changes(options))?.data;
        let (training, validation) = (data.open(Split::Train)?, data.open(Split::Val)?);
        note(&format!("looking at {} images and their masks", training.len()));
        let step = training.len().div_ceil(LOOKED_AT);
        let mut sizes = Vec::new();
        let mut looked_at = LabelCounts::default();
        let mut heights = Heights::new(training.classes().len());
        let mut colors = Colors::default();
        for index in (0..training.len()).step_by(step) {
            let sample = training.get(index)?;
            sizes.push((sample.image.width, sample.image.height));
            looked_at.add(index, &LabelCounts::count(&sample.labels));
            heights.add(&sample.labels);
            colors.add(&sample.image);
        }
        sizes.sort_by_key(|(width, height)| width * height);
        let (Some(first), Some(last)) = (sizes.first(), sizes.last()) else {
            return Err(Error::new(format!("`{dataset}` has no training images")));
        };
        let survey = training.survey()?.unwrap_or(looked_at);
        let pixels = survey.pixels;
        let classes = training.classes().clone();
        let labeled: u64 = pixels[..classes.len()].iter().sum();
        Ok(Self {
            dataset: dataset.to_owned(),
            counts: [training.len(), validation.len()],
            size: sizes[sizes.len() / 2],
            extremes: [*first, *last],
            shares: pixels[..classes.len()].iter().map(|count| *count as f64 / labeled.max(1) as f64).collect(),
            holders: survey.holders[..classes.len()].iter().map(Vec::len).collect(),
            classes,
            upright: heights.upright(),
            variety: colors.variety(),
            pretrained: options.pretrained.as_deref().map(Pretrained::read).transpose()?,
        })
    }

    /// Images of a split.
    pub fn images(&self, split: Split) -> usize {
        self.counts[usize::from(split != Split::Train)]
    }

    /// The rarest class that occurs at all, with its share.
    pub fn rarest(&self) -> Option<(&str, f64)> {
        let present = self.classes.names.iter().zip(&self.shares).filter(|(_, share)| **share > 0.0);
        present.min_by(|a, b| a.1.total_cmp(b.1)).map(|(name, share)| (name.as_str(), *share))
    }

    /// The class in the fewest training images of all that occur, with their number.
    pub fn most_seldom(&self) -> Option<(&str, usize)> {
        let present = self.classes.names.iter().zip(&self.holders).filter(|(_, holders)| **holders > 0);
        present.min_by_key(|(_, holders)| **holders).map(|(name, holders)| (name.as_str(), *holders))
    }
}

#[cfg(test)]
impl Facts {
    /// A set whose images have one size.
    pub(super) fn example(
        dataset: &str,
        classes: Classes,
        counts: [usize; 2],
        size: (usize, usize),
        shares: &[f64],
    ) -> Self {
        let dataset = dataset.to_owned();
        let holders = shares.iter().map(|share| if *share > 0.0 { counts[0] } else { 0 }).collect();
        let extremes = [size; 2];
        Self {
            dataset,
            classes,
            counts,
            size,
            extremes,
            shares: shares.to_vec(),
            holders,
            upright: true,
            variety: 0.2,
            pretrained: None,
        }
    }
}

/// How high the pixels of each class lie, image by image.
struct Heights {
    /// For each class: images that hold it, the sum of its mean heights there, and of their squares. Heights are from
    /// 0, the first row, to 1.
    classes: Vec<(f64, f64, f64)>,
}

impl Heights {
    /// Images that hold a class before anything is concluded from where it lies.
    const ENOUGH: f64 = 10.0;
    /// How far from the middle is no longer chance: in images' heights, and in standard errors.
    const APART: (f64, f64) = (0.04, 3.0);

    fn new(classes: usize) -> Self {
        Self { classes: vec![(0.0, 0.0, 0.0); classes] }
    }

    fn add(&mut self, labels: &Labels) {
        let mut sums = vec![(0u64, 0u64); self.classes.len()];
        for (row, line) in labels.ids.chunks_exact(labels.width.max(1)).enumerate() {
            for class in line {
                if let Some((count, sum)) = sums.get_mut(usize::from(*class)) {
                    *count += 1;
                    *sum += row as u64;
                }
            }
        }
        for ((images, mean, square), (count, sum)) in
            self.classes.iter_mut().zip(sums).filter(|(_, (count, _))| *count > 0)
        {
            let height = (sum as f64 / count as f64 + 0.5) / labels.height as f64;
            *images += 1.0;
            *mean += height;
            *square += height * height;
        }
    }

    /// Also where there are too few images to tell.
    fn upright(&self) -> bool {
        let mut reliable = self.classes.iter().filter(|(images, ..)| *images >= Self::ENOUGH).peekable();
        let apart = |(images, sum, squares): &(f64, f64, f64)| {
            let mean = sum / images;
            let error = ((squares / images - mean * mean).max(0.0) / images).sqrt();
            let distance = (mean - 0.5).abs();
            distance > Self::APART.0 && distance > Self::APART.1 * error
        };
        reliable.peek().is_none() || reliable.any(apart)
    }
}

/// How colours vary within images and between them.
#[derive(Default)]
struct Colors {
    images: f64,
    /// Sums over images, for each channel: of means, of their squares, and of variances within an image.
    sums: [[f64; 3]; 3],
}

impl Colors {
    fn add(&mut self, image: &Image) {
        let count = (image.width * image.height).max(1) as f64;
        self.images += 1.0;
        for channel in 0..3 {
            let values = image.pixels.iter().skip(channel).step_by(3).map(|value| u64::from(*value));
            let (sum, squares) = values.fold((0, 0), |(sum, squares), value| (sum + value, squares + value * value));
            let mean = sum as f64 / count;
            self.sums[0][channel] += mean;
            self.sums[1][channel] += mean * mean;
            self.sums[2][channel] += squares as f64 / count - mean * mean;
        }
    }

    /// Zero where there is nothing to compare, and infinite where images are flat.
    fn variety(&self) -> f64 {
        let [means, squares, within] = self.sums;
        let between: f64 =
            (0..3).map(|channel| squares[channel] / self.images - (means[channel] / self.images).powi(2)).sum();
        let within = within.iter().sum::<f64>() / self.images;
        if between > 0.0 { between / within } else { 0.0 }
    }
}

/// Those of the user's changes that say where the data lie.
fn data_changes(options: &PlanOptions) -> Vec<String> {
    options.all().into_iter().filter(|change| change.trim_start().starts_with("data.")).collect()
}

impl Pretrained {
    /// Whether it is a vision transformer whose positions are rotations.
    pub(super) fn is_rotated(&self) -> bool {
        matches!(&self.network, FileArchitecture::Vit(vit) if vit.rotated)
    }

    fn read(path: &Path) -> Result<Self> {
        utf8(path)?;
        let state = weights::read(path)?;
        weights::check_numbers(&state)?;
        let named = weights::remap_keys(&state)?.tensors;
        let shape = |name: &str| named.get(name).map(|tensor| tensor.shape.clone());
        let first =
            ["patch_embed.proj", "conv1", "stem.0"].iter().find_map(|first| shape(&format!("backbone.{first}.weight")));
        if let Some(&channels) = first.as_ref().and_then(|first| first.get(1))
            && channels != 3
        {
            return Err(Error::new(format!(
                "the weights in `{}` cannot be used, because they are for images of {channels} channel{}, and images have 3 here",
                path.display(),
                if channels == 1 { "" } else { "s" }
            ))
            .with_hint("take other weights, or leave --pretrained out"));
        }
        let shapes = named.iter().map(|(name, tensor)| (name.as_str(), tensor.shape.as_slice())).collect();
        if let Some(network) = Convolutional::of(&shapes) {
            if let Some(stage) = network.incomplete() {
                return Err(Error::new(format!("`{}` lacks weights of `{stage}`", path.display()))
                    .with_hint("it is damaged: download it again, or leave --pretrained out"));
            }
            return Ok(Self { path: path.to_owned(), network: FileArchitecture::Convolutional(network) });
        }
        let block =
            |name: &str| -> Option<usize> { name.strip_prefix("backbone.blocks.")?.split('.').next()?.parse().ok() };
        let depth = named.keys().filter_map(|name| block(name)).max().map(|last| last.saturating_add(1));
        let (Some(&[embed_dim, _, patch_size, _]), Some(depth)) =
            (shape("backbone.patch_embed.proj.weight").as_deref(), depth)
        else {
            return Err(Error::new(format!(
                "`{}` holds no plain vision transformer, ResNet or ConvNeXt that can be built",
                path.display()
            ))
            .with_hint(
                "take weights of a ViT, ResNet or ConvNeXt of timm, or of AugReg, DINOv2 or DINOv3, or leave --pretrained out; grouped and \
                 widened ResNets (ResNeXt, Wide ResNet) are none of these",
            ));
        };
        let layer_scale = named.keys().any(|name| name.starts_with("backbone.blocks.0.ls1"));
        let reg_tokens = shape("backbone.register_tokens").and_then(|shape| shape.get(1).copied()).unwrap_or(0);
        // What the last layer takes: the first has twice as many products where there are gates.
        let mlp = shape("backbone.blocks.0.mlp.fc2.weight").and_then(|shape| shape.get(1).copied());
        let products = shape("backbone.blocks.0.mlp.fc1.weight").and_then(|shape| shape.first().copied());
        let gated = mlp.is_some() && products == mlp.and_then(|hidden| hidden.checked_mul(2));
        let mlp_dim = mlp.unwrap_or(embed_dim.saturating_mul(4));
        let class_token = named.contains_key("backbone.cls_token");
        // Published tables are those of square grids.
        let rows = shape("backbone.pos_embed").and_then(|shape| shape.get(1).copied());
        let no_embed_class = class_token && rows.is_some_and(|rows| rows.isqrt().pow(2) == rows);
        let vit = Vit {
            embed_dim,
            depth,
            patch_size,
            mlp_dim,
            layer_scale,
            reg_tokens,
            class_token,
            no_embed_class,
            gated,
            rotated: rows.is_none(),
            qkv_bias: named.keys().any(|name| name.ends_with("attn.qkv.bias") || name.ends_with("attn.q_bias")),
        };
        Ok(Self { path: path.to_owned(), network: FileArchitecture::Vit(vit) })
    }
}

impl Machine {
    pub(super) fn here(device: &Device) -> Self {
        Self { threads: rayon::current_num_threads(), free_mb: free_mb(), cpu: *device == Device::flex() }
    }
}

/// Memory that is free for use, or less where the process is held to a limit; from Linux.
fn free_mb() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let free = line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? / 1024;
    let limit =
        std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse::<u64>().ok());
    Some(limit.map_or(free, |limit| free.min(limit >> 20)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first class in a share of the rows from the top, the second below.
    fn upright(tops: &[usize]) -> bool {
        let mut heights = Heights::new(2);
        for top in tops {
            let ids = (0..20).flat_map(|row| [u8::from(row >= *top); 3]).collect();
            heights.add(&Labels { width: 3, height: 20, ids });
        }
        heights.upright()
    }

    fn variety(images: &[[u8; 2]]) -> f64 {
        let mut colors = Colors::default();
        for [dark, light] in images {
            let pixels = [[*dark; 3], [*light; 3], [*dark; 3], [*light; 3]].concat();
            colors.add(&Image { width: 2, height: 2, pixels });
        }
        colors.variety()
    }

    #[test]
    fn images_vary_within_and_between() {
        assert_eq!(variety(&[[50, 150]; 5]), 0.0);
        // Means 60 and 200, variances 100: 4900 over 100.
        assert_eq!(variety(&[[50, 70], [190, 210]]), 49.0);
        assert!(variety(&[[50, 150], [60, 160], [40, 140]]) < 0.1);
        assert_eq!(variety(&[]), 0.0);
        assert_eq!(variety(&[[7, 7], [9, 9]]), f64::INFINITY);
    }

    #[test]
    fn a_sky_above_makes_images_upright() {
        assert!(upright(&[10; 12]));
        assert!(upright(&[10; 3]), "three images tell nothing");
    }

    #[test]
    fn classes_around_the_middle_leave_it_open() {
        let mut heights = Heights::new(2);
        for i in 0..12 {
            let ids = (0..400).map(|at| u8::from((at / 20 + at + i) % 3 == 0)).collect();
            heights.add(&Labels { width: 20, height: 20, ids });
        }
        assert!(!heights.upright());
    }
}
