//! The network of a plan: which one, how large its patches are, and how many images a step has (the
//! batch size).

use crate::plan::facts::{Facts, FileArchitecture, Machine, Pretrained};

/// The backbone, and where its weights come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ArchitectureChoice {
    /// A vision transformer with pretrained weights.
    Pretrained,
    /// A U-Net over a convolutional network with pretrained weights.
    PretrainedUnet,
    /// A vision transformer from scratch, because the user wants it.
    Vit,
    /// A U-Net from scratch.
    Unet { stem_stride: usize, stages: usize },
}

impl ArchitectureChoice {
    /// The network for pretrained weights or, without any, a `transformer` if the user wants one, or a U-Net.
    pub(super) fn of(facts: &Facts, transformer: bool) -> Self {
        match &facts.pretrained {
            Some(Pretrained { network: FileArchitecture::Vit(_), .. }) => Self::Pretrained,
            Some(_) => Self::PretrainedUnet,
            None if transformer => Self::Vit,
            None if short_side(facts) < SMALL => Self::Unet { stem_stride: 1, stages: UNET.len() - 1 },
            None => Self::Unet { stem_stride: 2, stages: UNET.len() },
        }
    }
}

/// Channels of a U-Net's stages; small images have one stage less.
pub(super) const UNET: [usize; 5] = [24, 48, 96, 192, 384];
/// Images whose shorter side is below this are small: nothing of their resolution is given away.
const SMALL: usize = 128;
/// From this shorter side on, a transformer from scratch has patches of 16 pixels, as the published ones.
const COARSE: usize = 320;

/// Pixels along the side of a patch; of a U-Net the factor by which its coarsest map is smaller than the image. Crops
/// are whole multiples of it.
pub(super) fn patch_size(network: ArchitectureChoice, facts: &Facts) -> usize {
    let short = short_side(facts);
    match (network, &facts.pretrained) {
        (ArchitectureChoice::Unet { stem_stride, stages }, _) => stem_stride << (stages - 1),
        (_, Some(Pretrained { network: FileArchitecture::Vit(vit), .. })) => vit.patch_size,
        // Both networks halve the image five times.
        (_, Some(_)) => 32,
        (_, None) if short < SMALL => 4,
        (_, None) if short < COARSE => 8,
        (_, None) => 16,
    }
}

/// Images per step, and why.
pub(super) fn batch_size(network: ArchitectureChoice, machine: &Machine, facts: &Facts) -> (usize, &'static str) {
    let short = short_side(facts);
    match network {
        ArchitectureChoice::Vit if short < COARSE => (8, "the images are small, and so are their steps"),
        _ if !machine.cpu => (16, "a GPU computes the images of a batch at once"),
        ArchitectureChoice::Pretrained | ArchitectureChoice::Unet { .. } => (2, SMALL_BATCH),
        ArchitectureChoice::PretrainedUnet | ArchitectureChoice::Vit => (4, SMALL_BATCH),
    }
}

/// Why batches are small.
const SMALL_BATCH: &str = "small: on a CPU larger batches are no faster, and more steps learn more";

fn short_side(facts: &Facts) -> usize {
    facts.size.0.min(facts.size.1)
}
