//! Decoders: feature maps in, one logit map a class out.
//!
//! A decoder is one file and one line in `decoders!` below.

pub mod structtoken;

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::backbone::{FeatureInfo, Features};
use crate::error::{Error, Result};
use crate::layers::{Cost, Init, Pass};
use crate::text::distance;
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

/// A name and the settings it stands for.
type Preset = (&'static str, fn() -> DecoderConfig);

/// Decoders by the names that people know them by, for `structtoken compare`.
const PRESETS: &[Preset] = &[
    ("cse", || struct_token(BlockKind::Cse)),
    ("sse", || struct_token(BlockKind::Sse)),
    ("pwe", || struct_token(BlockKind::Pwe)),
];

fn struct_token(block: BlockKind) -> DecoderConfig {
    DecoderConfig::StructToken(StructTokenConfig { block, ..StructTokenConfig::default() })
}

impl DecoderConfig {
    /// The names of all presets.
    pub fn presets() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|(name, _)| *name)
    }

    /// The decoder that goes by `name`, with its defaults.
    ///
    /// # Errors
    /// An unknown name; the message lists those that are known.
    pub fn preset(name: &str) -> Result<Self> {
        if let Some((_, config)) = PRESETS.iter().find(|(known, _)| *known == name) {
            return Ok(config());
        }
        let known: Vec<&str> = Self::presets().collect();
        let error = Error::new(format!("there is no decoder `{name}`; known are {}", known.join(", ")));
        let nearest = known.into_iter().map(|known| (distance(&name.to_lowercase(), known), known)).min();
        Err(match nearest {
            Some((edits, known)) if edits <= 1 + name.len() / 3 => error.hint(format!("did you mean `{known}`?")),
            _ => error.hint("name decoders by commas, for instance `--decoders cse,pwe`"),
        })
    }

    /// Whether two configurations are variants of one decoder: of one type and, for structure tokens, one block.
    pub fn same_kind(&self, other: &Self) -> bool {
        let block = |config: &Self| match config {
            Self::StructToken(config) => Some(config.block),
            #[allow(unreachable_patterns)]
            _ => None,
        };
        std::mem::discriminant(self) == std::mem::discriminant(other) && block(self) == block(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_found_and_typos_answered() {
        for name in DecoderConfig::presets() {
            assert!(DecoderConfig::preset(name).unwrap().same_kind(&DecoderConfig::preset(name).unwrap()));
        }
        let error = DecoderConfig::preset("PWEE").unwrap_err();
        assert!(
            error.to_string().contains("cse, sse, pwe") && error.remedy() == Some("did you mean `pwe`?"),
            "{error}"
        );
        assert!(!DecoderConfig::preset("pwe").unwrap().same_kind(&DecoderConfig::preset("cse").unwrap()));
    }
}
