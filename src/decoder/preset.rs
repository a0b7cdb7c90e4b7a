//! Decoders by the names that people know them by: `structtoken bench --decoder pwe`, `structtoken compare`.

use crate::decoder::{
    BlockKind, DecoderConfig, EomtConfig, FcnConfig, KnetConfig, Mask2FormerConfig, MaskFormerConfig, SegmenterConfig,
    StructTokenConfig,
};
use crate::error::{Error, Result};
use crate::text::distance;

type Preset = (&'static str, fn() -> DecoderConfig);

#[rustfmt::skip]
const PRESETS: &[Preset] = &[
    ("cse", || struct_token(BlockKind::Cse)),
    ("sse", || struct_token(BlockKind::Sse)),
    ("pwe", || struct_token(BlockKind::Pwe)),
    ("fcn", || DecoderConfig::Fcn(FcnConfig::default())),
    ("segmenter", || DecoderConfig::Segmenter(SegmenterConfig::default())),
    ("knet", || DecoderConfig::Knet(KnetConfig::default())),
    ("maskformer", || DecoderConfig::MaskFormer(MaskFormerConfig::default())),
    ("mask2former", || DecoderConfig::Mask2Former(Mask2FormerConfig::default())),
    ("eomt", || DecoderConfig::Eomt(EomtConfig::default())),
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
        let error = Error::new(format!("there is no decoder `{name}`; the decoders are {}", known.join(", ")));
        let nearest = known.into_iter().map(|known| (distance(&name.to_lowercase(), known), known)).min();
        Err(match nearest {
            Some((edits, known)) if edits <= 1 + name.len() / 3 => error.with_hint(format!("did you mean `{known}`?")),
            _ => error,
        })
    }

    /// This preset with the settings of `other`, where both are of one type; the block of structure tokens stays.
    #[must_use]
    pub fn settings_of(self, other: &Self) -> Self {
        match (self, other) {
            (Self::StructToken(preset), Self::StructToken(other)) => {
                Self::StructToken(StructTokenConfig { block: preset.block, ..other.clone() })
            }
            (preset, other) if std::mem::discriminant(&preset) == std::mem::discriminant(other) => other.clone(),
            (preset, _) => preset,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_found_and_typos_answered() {
        let of = |name| DecoderConfig::preset(name).unwrap();
        let own = DecoderConfig::StructToken(StructTokenConfig { num_blocks: 7, ..StructTokenConfig::default() });
        for name in DecoderConfig::presets() {
            match of(name).settings_of(&own) {
                DecoderConfig::StructToken(config) => {
                    assert_eq!((config.num_blocks, format!("{:?}", config.block).to_lowercase()), (7, name.to_owned()));
                }
                other => assert_eq!(other, of(name)),
            }
        }
        let error = DecoderConfig::preset("PWEE").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("cse, sse, pwe") && error.hint() == Some("did you mean `pwe`?"), "{error}");
    }
}
