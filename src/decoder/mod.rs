//! Decoders: feature maps in, a map of scores for every class out, or masks that vote for classes.
//!
//! A decoder is one file, whose module implements [`Decoder`], and one line in `decoders!` below.

pub mod deformable;
pub mod eomt;
pub mod fcn;
pub mod knet;
mod loss_config;
pub mod mask2former;
pub mod maskformer;
mod output;
mod preset;
mod prototypes;
pub mod pyramid;
pub mod queries;
pub mod segmenter;
pub mod structtoken;

use burn::module::Module;
use serde::{Deserialize, Serialize};

use crate::backbone::{BackboneInput, FeatureInfo};
use crate::error::Result;
use crate::layers::{Cost, ForwardContext, Init};
pub use eomt::{Eomt, EomtConfig};
pub use fcn::{Fcn, FcnConfig};
pub use knet::{Knet, KnetConfig};
pub use loss_config::{DecoderLoss, SetLossConfig};
pub use mask2former::{Mask2Former, Mask2FormerConfig};
pub use maskformer::{MaskFormer, MaskFormerConfig};
pub use output::{Output, Queries, SegLogits};
pub use prototypes::Prototypes;
pub use segmenter::{Segmenter, SegmenterConfig};
pub use structtoken::{BlockKind, Prior, StructToken, StructTokenConfig, Tokens};

/// Feature maps to what is said of every place. [`AnyDecoder`] is one that a recipe chooses.
pub trait Decoder {
    /// What the decoder says of the images that `input` gives to its backbone.
    fn forward(&self, input: BackboneInput, context: &ForwardContext) -> Output;

    /// How it is to be judged.
    fn loss(&self) -> DecoderLoss {
        DecoderLoss::default()
    }

    /// What stands for classes or for queries before an image has been seen; none of a decoder that has nothing of the
    /// kind.
    fn prototypes(&self) -> Vec<Prototypes> {
        Vec::new()
    }

    /// The same function by fewer operations: linear layers that follow one another become one. Only to be run, as it
    /// has other parameters than files hold.
    #[must_use]
    fn for_inference(self) -> Self
    where
        Self: Sized,
    {
        self
    }
}

macro_rules! decoders {
    ($($(#[$doc:meta])* $name:literal => $variant:ident($module:ty, $config:ty)),+ $(,)?) => {
        /// `[model.decoder]` of a recipe, chosen by `type`.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "type")]
        #[non_exhaustive]
        pub enum DecoderConfig {
            $($(#[$doc])* #[serde(rename = $name)] $variant($config)),+
        }

        /// A decoder of any type.
        #[allow(clippy::large_enum_variant, reason = "a model has one decoder")]
        #[derive(Module, Debug)]
        pub enum AnyDecoder {
            $($(#[$doc])* $variant($module)),+
        }

        impl DecoderConfig {
            /// Refuses what cannot be built on a backbone, naming the key.
            pub fn check(&self, features: &FeatureInfo) -> Result<()> {
                match self { $(Self::$variant(config) => config.check(features)),+ }
            }

            /// Multiply-accumulates at a feature grid of (rows, columns).
            pub fn macs(&self, features: &FeatureInfo, classes: usize, grid: (usize, usize)) -> Vec<Cost> {
                match self { $(Self::$variant(config) => config.macs(features, classes, grid)),+ }
            }

            /// Values that are alive at once at most while one image passes, at a feature grid of (rows, columns).
            pub fn activations(&self, features: &FeatureInfo, classes: usize, grid: (usize, usize)) -> usize {
                match self { $(Self::$variant(config) => config.activations(features, classes, grid)),+ }
            }

            /// The decoder with initial weights.
            pub fn init(&self, features: &FeatureInfo, classes: usize, init: &mut Init) -> AnyDecoder {
                match self { $(Self::$variant(config) => AnyDecoder::$variant(config.init(features, classes, init))),+ }
            }
        }

        impl Decoder for AnyDecoder {
            fn forward(&self, input: BackboneInput, context: &ForwardContext) -> Output {
                match self { $(Self::$variant(decoder) => Decoder::forward(decoder, input, context)),+ }
            }

            fn loss(&self) -> DecoderLoss {
                match self { $(Self::$variant(decoder) => Decoder::loss(decoder)),+ }
            }

            fn prototypes(&self) -> Vec<Prototypes> {
                match self { $(Self::$variant(decoder) => Decoder::prototypes(decoder)),+ }
            }

            fn for_inference(self) -> Self {
                match self { $(Self::$variant(decoder) => Self::$variant(Decoder::for_inference(decoder))),+ }
            }
        }
    };
}

decoders! {
    /// Structure tokens: CSE, SSE, PWE.
    "structtoken" => StructToken(StructToken, StructTokenConfig),
    /// A classifier for every pixel, alone or after convolutions.
    "fcn" => Fcn(Fcn, FcnConfig),
    /// Class embeddings that attend to the patches (mask transformer).
    "segmenter" => Segmenter(Segmenter, SegmenterConfig),
    /// One kernel per class, updated by what its mask covers.
    "knet" => Knet(Knet, KnetConfig),
    /// Queries that find masks.
    "maskformer" => MaskFormer(MaskFormer, MaskFormerConfig),
    /// Queries that look where their mask was, over several scales.
    "mask2former" => Mask2Former(Mask2Former, Mask2FormerConfig),
    /// Queries inside of the backbone's last blocks.
    "eomt" => Eomt(Eomt, EomtConfig),
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::backbone::BackboneConfig;

    /// What a recipe says of a decoder's loss reaches the criterion, whatever the decoder.
    #[test]
    fn losses_are_those_of_the_recipe() {
        let of = |decoder: &str| {
            let decoder: DecoderConfig = toml::from_str(decoder).unwrap();
            let backbone: BackboneConfig =
                toml::from_str("type = \"vit\"\nsize = \"tiny\"\ndepth = 6\nout_indices = [0, 1]\nimg_size = [32, 32]")
                    .unwrap();
            decoder.init(&backbone.features(), 2, &mut Init::new(0, &Device::flex())).loss()
        };
        assert_eq!(of("type = \"fcn\"\nauxiliary_weight = 0.7").auxiliary_weight, 0.7);
        for name in ["maskformer", "mask2former", "eomt"] {
            assert_eq!(
                of(&format!("type = \"{name}\"\nloss = {{ dice_weight = 3.5 }}")).set.dice_weight,
                3.5,
                "{name}"
            );
        }
        for name in ["structtoken", "segmenter", "knet"] {
            assert_eq!(of(&format!("type = \"{name}\"")), DecoderLoss::default(), "{name}");
        }
    }
}
