//! Decoders: feature maps in, one logit map a class out.
//!
//! A decoder is one file and one line in `decoders!` below.

pub mod pyramid;
pub mod structtoken;

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::backbone::{FeatureInfo, Features};
use crate::error::Result;
use crate::layers::{Cost, Init, Pass};
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
        #[derive(Module, Debug)]
        pub enum Decoder {
            $($(#[$doc])* $variant($module)),+
        }

        impl DecoderConfig {
            /// Refuses what cannot be built, naming the key.
            pub fn check(&self) -> Result<()> {
                match self { $(Self::$variant(config) => config.check()),+ }
            }

            /// Multiply-accumulates at a feature grid of (rows, columns).
            pub fn macs(&self, features: &FeatureInfo, classes: usize, grid: (usize, usize)) -> Vec<Cost> {
                match self { $(Self::$variant(config) => config.macs(features, classes, grid)),+ }
            }

            /// The decoder with initial weights.
            pub fn init(&self, features: &FeatureInfo, classes: usize, init: &mut Init) -> Decoder {
                match self { $(Self::$variant(config) => Decoder::$variant(config.init(features, classes, init))),+ }
            }
        }

        impl Decoder {
            /// Feature maps to logits `[b, h, w, classes]` at the grid of the features.
            pub fn forward(&self, features: Features, pass: &Pass) -> Tensor<4> {
                match self { $(Self::$variant(decoder) => decoder.forward(features, pass)),+ }
            }
        }
    };
}

decoders! {
    /// Structure tokens: CSE, SSE, PWE.
    "structtoken" => StructToken(StructToken, StructTokenConfig),
}
