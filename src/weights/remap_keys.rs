//! Names of foreign checkpoints turned into ours, which are timm's for backbones: `from_timm` only adds the prefix.
//!
//! Ours are timm's for the backbone (`backbone.blocks.0.attn.qkv.weight`) and the reference's for the decoder
//! (`decoder.layers.0.cross_attn.query_map.conv1.weight`). Every foreign key format is a short table of replacements;
//! only AugReg's flax arrays must also be transposed and packed.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::weights::architecture::foreign;
use crate::weights::key_format::{KeyFormat, RemappedKeys};
use crate::weights::state::{HostTensor, StateDict};
use crate::weights::wrappers::{Bare, unwrap};
use crate::weights::{dinov3, hugging_face, rules};

/// Recognises who wrote the file by its names, and gives its tensors ours.
///
/// # Errors
///
/// If the names fit no known key format or are those of another network, two of them become one, or AugReg's arrays are
/// not of the shapes that flax gives.
pub fn remap_keys(state: &StateDict) -> Result<RemappedKeys<'_>> {
    if state.tensors.keys().any(|name| name.contains("encoderblock") || name.ends_with("embedding/kernel")) {
        return Ok(RemappedKeys {
            key_format: KeyFormat::AugReg,
            tensors: super::augreg::convert(state)?,
            aside: Vec::new(),
        });
    }
    let Bare { tensors: bare, aside } = unwrap(state.tensors.iter());
    let names: Vec<&str> = bare.iter().map(|(name, _)| name.as_str()).collect();
    let key_format = detect(&names);
    if key_format != Some(KeyFormat::Queries)
        && let Some(key_format) = dinov3::known(&names)
    {
        let mut renamed = dinov3::convert(state, bare, key_format)?;
        renamed.aside.extend(aside);
        return Ok(renamed);
    }
    if !matches!(key_format, Some(KeyFormat::Queries | KeyFormat::Ours))
        && let Some(what) = architecture(state)
    {
        return Err(Error::new(format!("the weights in {} are those of {what}", state.title())).with_hint(PLAIN));
    }
    let key_format = key_format.ok_or_else(|| {
        let first: Vec<String> = state.tensors.keys().take(3).map(|name| format!("`{name}`")).collect();
        Error::new(format!("the tensors of {} are named like no known model: {}, …", state.title(), first.join(", ")))
            .with_hint(
                "supported: files of this program, the published StructToken (mmseg), timm (ViT, ResNet, ConvNeXt), \
                        DINOv2 and DINOv3, Hugging Face's of these, AugReg's .npz, MaskFormer, Mask2Former and EoMT",
            )
    })?;
    let rules = match key_format {
        KeyFormat::Queries => rules::rules(&names).unwrap_or_default(),
        _ => hugging_face::RULES,
    };
    let tensors = match key_format {
        KeyFormat::Queries | KeyFormat::HuggingFace => rules::convert(state, bare, rules)?,
        _ => {
            let mut tensors = BTreeMap::new();
            for (name, tensor) in bare {
                let ours = match key_format {
                    KeyFormat::Mmseg => from_mmseg(&name),
                    KeyFormat::Timm => from_timm(&name),
                    _ => name.clone(),
                };
                if tensors.insert(ours.clone(), flattened(&ours, tensor)).is_some() {
                    return Err(Error::new(format!("two tensors of {} are `{ours}`: one is `{name}`", state.title()))
                        .with_hint("the file mixes two models: save one of them alone"));
                }
            }
            tensors
        }
    };
    Ok(RemappedKeys { key_format, tensors, aside })
}

/// What to do with weights of another network.
const PLAIN: &str = "backbones are plain vision transformers, ResNets and ConvNeXts: take ViT weights of AugReg, DeiT, DINO or \
                     MAE (timm), DINOv2 or DINOv3, with or without registers, or a ResNet or ConvNeXt of timm's names";

/// What network the file is of, if that is known and none of ours.
pub(super) fn architecture(state: &StateDict) -> Option<&'static str> {
    let bare = unwrap(state.tensors.iter()).tensors;
    let names: Vec<&str> = bare.iter().map(|(name, _)| name.strip_prefix("backbone.").unwrap_or(name)).collect();
    if dinov3::known(&names).is_some() { None } else { foreign(&names) }
}

fn detect(names: &[&str]) -> Option<KeyFormat> {
    let any = |test: fn(&str) -> bool| names.iter().any(|name| test(name));
    if rules::known(names) {
        Some(KeyFormat::Queries)
    } else if hugging_face::known(names) {
        Some(KeyFormat::HuggingFace)
    } else if any(|name| {
        name.starts_with("decode_head.") || name.contains("patch_embed.projection.") || name.contains(".ln1.")
    }) {
        Some(KeyFormat::Mmseg)
    } else if any(|name| name.starts_with("decoder.")) {
        Some(KeyFormat::Ours)
    } else if any(|name| {
        name.contains("blocks.") || name.contains("patch_embed.proj.") || name.contains("layer1.0.conv1.")
    }) {
        let ours = names.iter().all(|name| name.starts_with("backbone."));
        Some(if ours { KeyFormat::Ours } else { KeyFormat::Timm })
    } else {
        None
    }
}

/// mmseg's names inside a transformer layer, and timm's.
const LAYER: [(&str, &str); 7] = [
    ("ln1.", "norm1."),
    ("ln2.", "norm2."),
    ("attn.attn.in_proj_weight", "attn.qkv.weight"),
    ("attn.attn.in_proj_bias", "attn.qkv.bias"),
    ("attn.attn.out_proj.", "attn.proj."),
    ("ffn.layers.0.0.", "mlp.fc1."),
    ("ffn.layers.1.", "mlp.fc2."),
];

/// A whole segmentor, or the converted backbone alone (`pretrain/vit_base_p16_384.pth`), whose names lack the prefix.
fn from_mmseg(name: &str) -> String {
    if let Some(inner) = name.strip_prefix("decode_head.") {
        return format!("decoder.{}", decoder_of_mmseg(inner));
    }
    if let Some(inner) = name.strip_prefix("auxiliary_head.") {
        return format!("decoder.auxiliary.{inner}");
    }
    let inner = match name.strip_prefix("backbone.") {
        Some(inner) => inner,
        None if ["layers.", "patch_embed.", "ln1.", "cls_token", "pos_embed"]
            .iter()
            .any(|own| name.starts_with(own)) =>
        {
            name
        }
        None => return name.to_owned(),
    };
    let layer = inner.strip_prefix("layers.").and_then(|rest| rest.split_once('.'));
    let inner = match layer {
        Some((index, rest)) => format!("blocks.{index}.{}", replace_start(rest, &LAYER)),
        None => replace_start(inner, &[("patch_embed.projection.", "patch_embed.proj."), ("ln1.", "norm.")]),
    };
    format!("backbone.{inner}")
}

/// FCN's convolutions lie in a head of their own here; Segmenter's layers are those of the ViT; K-Net's stages have
/// their FFN and their mask's layers by name.
fn decoder_of_mmseg(inner: &str) -> String {
    if ["convs.", "conv_cat.", "conv_seg."].iter().any(|own| inner.starts_with(own)) {
        return format!("head.{inner}");
    }
    let (list, rules): (_, &[_]) = match inner {
        _ if inner.starts_with("layers.") => ("layers", &LAYER),
        _ if inner.starts_with("kernel_update_head.") => ("kernel_update_head", &STAGE),
        _ => return inner.to_owned(),
    };
    match inner[list.len() + 1..].split_once('.') {
        Some((index, rest)) => format!("{list}.{index}.{}", replace_start(rest, rules)),
        None => inner.to_owned(),
    }
}

/// mmseg's names inside a stage of K-Net, and ours.
const STAGE: [(&str, &str); 8] = [
    ("attention.attn.in_proj_weight", "attention.qkv.weight"),
    ("attention.attn.in_proj_bias", "attention.qkv.bias"),
    ("attention.attn.out_proj.", "attention.proj."),
    ("feat_transform.conv.", "feat_transform."),
    ("ffn.layers.0.0.", "ffn.fc1."),
    ("ffn.layers.1.", "ffn.fc2."),
    ("mask_fcs.0.", "mask_fc."),
    ("mask_fcs.1.", "mask_norm."),
];

/// timm's names need our prefix only; DINOv2 trained in chunks counts blocks as `blocks.{chunk}.{block}`.
fn from_timm(name: &str) -> String {
    let inner = name.strip_prefix("backbone.").unwrap_or(name);
    let inner = replace_start(inner, &[("reg_token", "register_tokens")]);
    let chunked = inner.strip_prefix("blocks.").and_then(|rest| {
        let (chunk, rest) = rest.split_once('.')?;
        let (block, _) = rest.split_once('.')?;
        (chunk.parse::<usize>().is_ok() && block.parse::<usize>().is_ok()).then(|| format!("blocks.{rest}"))
    });
    // DINOv2's SwiGLU.
    let inner = chunked.unwrap_or(inner).replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.");
    format!("backbone.{inner}")
}

/// timm's smaller ConvNeXts have 1x1 convolutions where the larger have linear layers.
fn flattened<'a>(name: &str, tensor: &'a HostTensor) -> Cow<'a, HostTensor> {
    match tensor.shape[..] {
        [outputs, inputs, 1, 1] if name.ends_with(".mlp.fc1.weight") || name.ends_with(".mlp.fc2.weight") => {
            Cow::Owned(HostTensor { shape: vec![outputs, inputs], data: tensor.data.clone() })
        }
        _ => Cow::Borrowed(tensor),
    }
}

fn replace_start(name: &str, table: &[(&str, &str)]) -> String {
    let rule = table.iter().find_map(|(theirs, ours)| Some((name.strip_prefix(theirs)?, ours)));
    rule.map_or_else(|| name.to_owned(), |(rest, ours)| format!("{ours}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(names: &[&str]) -> StateDict {
        let tensor = HostTensor { shape: vec![1], data: vec![0.5] };
        StateDict {
            tensors: names.iter().map(|name| ((*name).to_owned(), tensor.clone())).collect(),
            ..StateDict::default()
        }
    }

    fn renamed(names: &[&str]) -> (KeyFormat, Vec<String>) {
        let state = state(names);
        let renamed = remap_keys(&state).unwrap();
        (renamed.key_format, renamed.tensors.into_keys().collect())
    }

    #[test]
    fn timm_and_dinov2_get_our_prefix() {
        let ours = ["backbone.blocks.0.ls1.gamma", "backbone.cls_token", "backbone.head.weight", "backbone.norm.bias"];
        for prefix in ["", "module.", "module.model.", "_orig_mod."] {
            let theirs =
                ["blocks.0.ls1.gamma", "cls_token", "head.weight", "norm.bias"].map(|name| format!("{prefix}{name}"));
            let (key_format, names) = renamed(&theirs.each_ref().map(String::as_str));
            assert_eq!((key_format, names.as_slice()), (KeyFormat::Timm, &ours.map(str::to_owned)[..]));
        }
        let (key_format, names) =
            renamed(&["backbone.blocks.0.11.norm1.bias", "backbone.reg_token", "dino_head.mlp.0.bias"]);
        assert_eq!(key_format, KeyFormat::Timm);
        assert_eq!(
            names,
            ["backbone.blocks.11.norm1.bias", "backbone.dino_head.mlp.0.bias", "backbone.register_tokens"]
        );
    }

    #[test]
    fn mmseg_backbones_read_with_and_without_their_prefix() {
        let (key_format, names) =
            renamed(&["cls_token", "layers.3.ffn.layers.0.0.bias", "ln1.weight", "patch_embed.projection.bias"]);
        assert_eq!(key_format, KeyFormat::Mmseg);
        assert_eq!(
            names,
            [
                "backbone.blocks.3.mlp.fc1.bias",
                "backbone.cls_token",
                "backbone.norm.weight",
                "backbone.patch_embed.proj.bias"
            ]
        );
        assert_eq!(
            renamed(&["auxiliary_head.convs.0.bn.weight", "backbone.layers.0.ln1.bias"]).1[1],
            "decoder.auxiliary.convs.0.bn.weight"
        );
    }

    #[test]
    fn ours_stay_as_they_are() {
        let names = ["backbone.blocks.0.norm1.weight", "decoder.layers.0.ffn1.dwconv.weight"];
        assert_eq!(renamed(&names), (KeyFormat::Ours, names.map(str::to_owned).to_vec()));
        assert_eq!(renamed(&names[..1]).0, KeyFormat::Ours);
    }

    #[test]
    fn strangers_and_doubles_are_errors() {
        let strange = state(&["conv1.weight", "fc.bias"]);
        assert_eq!(renamed(&["conv1.weight", "layer1.0.conv1.weight", "fc.bias"]).0, KeyFormat::Timm);
        assert!(remap_keys(&strange).unwrap_err().to_string().contains("`conv1.weight`, `fc.bias`"));
        let double = state(&["backbone.norm.bias", "norm.bias", "blocks.0.norm1.bias"]);
        assert!(remap_keys(&double).unwrap_err().to_string().contains("two tensors"));
    }
}
