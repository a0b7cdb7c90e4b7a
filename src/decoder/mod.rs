//! Decoders: feature maps in, a map of scores for every class out, or masks that vote for classes.
//!
//! A decoder is one file and one line in `decoders!` below.

pub mod deformable;
pub mod eomt;
pub mod fcn;
pub mod knet;
pub mod mask2former;
pub mod maskformer;
mod output;
mod preset;
pub mod pyramid;
pub mod queries;
pub mod segmenter;
pub mod structtoken;

use burn::module::Module;
use serde::{Deserialize, Serialize};

use crate::backbone::{Encoder, FeatureInfo};
use crate::error::Result;
use crate::layers::{Cost, Init, Pass};
pub use eomt::{Eomt, EomtConfig};
pub use fcn::{Fcn, FcnConfig};
pub use knet::{Knet, KnetConfig};
pub use mask2former::{Mask2Former, Mask2FormerConfig};
pub use maskformer::{MaskFormer, MaskFormerConfig};
pub use output::{Answer, Output, Queries, SetLossConfig};
pub use segmenter::{Segmenter, SegmenterConfig};
pub use structtoken::{BlockKind, StructToken, StructTokenConfig};

macro_rules! decoders {
    ($($(#[$doc:meta])* $name:literal => $variant:ident($module:ty, $config:ty)),+ $(,)?) => {
        /// `[model.decoder]` of a recipe, chosen by `type`.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "type")]
        pub enum DecoderConfig {
            $($(#[$doc])* #[serde(rename = $name)] $variant($config)),+
        }

        /// A decoder of any type.
        #[allow(clippy::large_enum_variant, reason = "a model has one decoder")]
        #[derive(Module, Debug)]
        pub enum Decoder {
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
            pub fn init(&self, features: &FeatureInfo, classes: usize, init: &mut Init) -> Decoder {
                match self { $(Self::$variant(config) => Decoder::$variant(config.init(features, classes, init))),+ }
            }
        }

        impl Decoder {
            /// What the decoder says of the images that the encoder looks at.
            pub fn forward(&self, encoder: Encoder, pass: &Pass) -> Output {
                match self { $(Self::$variant(decoder) => decoder.forward(encoder, pass).into()),+ }
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
