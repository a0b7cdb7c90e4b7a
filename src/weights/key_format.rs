//! Whose names the tensors of a file have.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::weights::state::HostTensor;

/// Who named the tensors of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyFormat {
    /// This crate.
    Ours,
    /// The published StructToken and mmsegmentation 0.20's ViT.
    Mmseg,
    /// timm, or the authors' own files of DINOv2, DINOv3, DeiT and their kin; torchvision's ResNet, which has the same
    /// names.
    Timm,
    /// The flax arrays of "How to train your ViT?" (AugReg).
    AugReg,
    /// Hugging Face's plain ViT, DINOv2 and DINOv3.
    HuggingFace,
    /// MaskFormer, Mask2Former or EoMT, as their authors or Hugging Face name them.
    Queries,
}

impl std::fmt::Display for KeyFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ours => "structtoken",
            Self::Mmseg => "mmseg / published StructToken",
            Self::Timm => "timm / torchvision / DINOv2 / DINOv3",
            Self::AugReg => "AugReg npz",
            Self::HuggingFace => "Hugging Face ViT / DINOv2 / DINOv3",
            Self::Queries => "MaskFormer / Mask2Former / EoMT",
        })
    }
}

/// A file's tensors under our names.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RemappedKeys<'a> {
    /// The key format the file was recognised as.
    pub key_format: KeyFormat,
    /// The tensors; borrowed where the values are the file's own.
    pub tensors: BTreeMap<String, Cow<'a, HostTensor>>,
    /// Names of what lies beside the network and is not used: counters, losses, another copy of it.
    pub aside: Vec<String>,
}
