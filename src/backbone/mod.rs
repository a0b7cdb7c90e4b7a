//! Backbones: images in, feature maps out.
//!
//! A backbone is one file, whose module implements [`Backbone`], and one line in `backbones!` below.

pub mod convnext;
pub mod dinov3;
pub mod encoder;
pub mod hierarchy;
pub mod resnet;
mod transformer;
pub mod unet;
pub mod vit;

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::layers::{Cost, ForwardContext, Init, MlpLayer};
pub use convnext::{Convnext, ConvnextConfig, ConvnextSize};
pub use dinov3::{Dinov3, Dinov3Config, Dinov3Size};
pub use encoder::EncoderConfig;
pub use resnet::{Resnet, ResnetConfig};
pub use transformer::{Tokens, Transformer};
pub use unet::{NormKind, Unet, UnetConfig};
pub use vit::{Vit, VitConfig, VitSize};

/// What a backbone hands to a decoder.
#[derive(Clone, Debug)]
pub struct Features {
    /// Maps `[b, h, w, c]`. The last one is what decoders of a single map take: a plain ViT's deepest, a U-Net's
    /// finest.
    pub maps: Vec<Tensor<4>>,
}

impl Features {
    /// The last map `[b, h, w, c]`.
    pub fn last(self) -> Tensor<4> {
        let Some(map) = self.maps.into_iter().next_back() else { unreachable!("a backbone returns at least one map") };
        map
    }
}

/// The shapes a decoder is built for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureInfo {
    /// Channels of each map.
    pub channels: Vec<usize>,
    /// Image pixels per map pixel, of each map.
    pub strides: Vec<usize>,
    /// Rows and columns of the last map at the size the model is made for.
    pub grid: (usize, usize),
    /// What a plain vision transformer is made of, for decoders that add blocks like its own or live inside of it.
    pub transformer: Option<TransformerInfo>,
}

/// The blocks of a plain vision transformer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransformerInfo {
    /// Tokens before those of the patches.
    pub prefix: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads of a block.
    pub heads: usize,
    /// Hidden channels of a block's MLP.
    pub mlp_dim: usize,
    /// The kind of that MLP.
    pub mlp: MlpLayer,
    /// Are the maps normalised?
    pub normed: bool,
}

impl FeatureInfo {
    /// Channels of the last map.
    pub fn last(&self) -> usize {
        self.channels.last().copied().unwrap_or(0)
    }

    /// Image pixels per pixel of the last map.
    pub fn stride(&self) -> usize {
        self.strides.last().copied().unwrap_or(1)
    }
}

/// Images to feature maps. [`AnyBackbone`] is one that a recipe chooses.
pub trait Backbone {
    /// Normalised images `[b, 3, height, width]` to feature maps.
    fn forward(&self, images: Tensor<4>, context: &ForwardContext) -> Features;

    /// Rows and columns of its last map at the size it is made for, which is that of its table of positions; none where
    /// it has no positions.
    fn grid(&self) -> Option<(usize, usize)> {
        None
    }

    /// The plain vision transformer, if it is one, for decoders that live inside of it.
    fn transformer(&self) -> Option<&dyn Transformer> {
        None
    }
}

/// The input of a decoder: images, and the backbone that they go through. A decoder asks it for feature maps or, where
/// the decoder lives inside of the backbone, for the backbone itself.
pub struct BackboneInput<'a> {
    /// The feature extractor.
    pub backbone: &'a dyn Backbone,
    /// Normalised, `[b, 3, height, width]`.
    pub images: Tensor<4>,
}

impl BackboneInput<'_> {
    /// The feature maps of the images.
    pub fn features(self, context: &ForwardContext) -> Features {
        self.backbone.forward(self.images, context)
    }
}

macro_rules! backbones {
    ($($(#[$doc:meta])* $name:literal => $variant:ident($module:ty, $config:ty)),+ $(,)?) => {
        /// `[model.backbone]` of a recipe, chosen by `type`.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "type")]
        #[non_exhaustive]
        pub enum BackboneConfig {
            $($(#[$doc])* #[serde(rename = $name)] $variant($config)),+
        }

        /// A backbone of any type.
        #[allow(clippy::large_enum_variant, reason = "a model has one backbone")]
        #[derive(Module, Debug)]
        pub enum AnyBackbone {
            $($(#[$doc])* $variant($module)),+
        }

        impl BackboneConfig {
            /// Refuses what cannot be built, naming the key.
            pub fn check(&self) -> Result<()> {
                match self { $(Self::$variant(config) => config.check()),+ }
            }

            /// The backbone with initial weights.
            pub fn init(&self, init: &mut Init) -> AnyBackbone {
                match self { $(Self::$variant(config) => AnyBackbone::$variant(config.init(init))),+ }
            }

            /// Multiply-accumulates of an image of (height, width).
            pub fn macs(&self, image: (usize, usize)) -> Vec<Cost> {
                match self { $(Self::$variant(config) => config.macs(image)),+ }
            }

            /// Values that are alive at once at most while one image passes, at a feature grid of (rows, columns).
            pub fn activations(&self, grid: (usize, usize)) -> usize {
                match self { $(Self::$variant(config) => config.activations(grid)),+ }
            }

            /// Values of one image that training keeps at least for the way back, at a feature grid of (rows, columns).
            pub fn kept_activations(&self, grid: (usize, usize)) -> usize {
                match self { $(Self::$variant(config) => config.kept_activations(grid)),+ }
            }

            /// Values that 3x3 convolutions arrange their weights in, at most at once; none for a transformer.
            pub fn arranged_weights(&self) -> Option<usize> {
                let pairs = match self { $(Self::$variant(config) => config.convolved()),+ };
                pairs.map(|pairs| crate::kernels::CONV_POINTS * pairs)
            }

            /// The shapes of its maps.
            pub fn features(&self) -> FeatureInfo {
                match self { $(Self::$variant(config) => config.features()),+ }
            }
        }

        impl Backbone for AnyBackbone {
            fn forward(&self, images: Tensor<4>, context: &ForwardContext) -> Features {
                match self { $(Self::$variant(backbone) => Backbone::forward(backbone, images, context)),+ }
            }

            fn grid(&self) -> Option<(usize, usize)> {
                match self { $(Self::$variant(backbone) => Backbone::grid(backbone)),+ }
            }

            fn transformer(&self) -> Option<&dyn Transformer> {
                match self { $(Self::$variant(backbone) => Backbone::transformer(backbone)),+ }
            }
        }
    };
}

backbones! {
    /// Plain vision transformer.
    "vit" => Vit(Vit, VitConfig),
    /// Plain vision transformer whose positions are rotations.
    "dinov3" => Dinov3(Dinov3, Dinov3Config),
    /// U-Net of residual blocks.
    "unet" => Unet(Unet, UnetConfig),
    /// Residual network.
    "resnet" => Resnet(Resnet, ResnetConfig),
    /// Convolutional network in the manner of a transformer.
    "convnext" => Convnext(Convnext, ConvnextConfig),
}
