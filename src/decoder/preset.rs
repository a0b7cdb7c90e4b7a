//! Decoders by the names that people know them by: `structtoken bench --decoder pwe`, `structtoken compare`.

use super::{
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
        let error = Error::new(format!("there is no decoder `{name}`; known are {}", known.join(", ")));
        let nearest = known.into_iter().map(|known| (distance(&name.to_lowercase(), known), known)).min();
        Err(match nearest {
            Some((edits, known)) if edits <= 1 + name.len() / 3 => error.hint(format!("did you mean `{known}`?")),
            _ => error,
        })
    }

    /// Whether two configurations are variants of one decoder: of one type and, for structure tokens, one block.
    pub fn same_kind(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::StructToken(one), Self::StructToken(other)) => one.block == other.block,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_found_and_typos_answered() {
        for name in DecoderConfig::presets() {
            for other in DecoderConfig::presets() {
                let of = |name| DecoderConfig::preset(name).unwrap();
                assert_eq!(of(name).same_kind(&of(other)), name == other);
            }
        }
        let error = DecoderConfig::preset("PWEE").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("cse, sse, pwe") && error.remedy() == Some("did you mean `pwe`?"), "{error}");
    }
}
