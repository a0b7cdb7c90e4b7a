//! MaskFormer, Mask2Former and EoMT: from the names of Hugging Face and of the authors' own code to ours.
//!
//! A rule says how a name begins, there and here; `#` stands for a number. Where a file keeps queries, keys and values
//! apart, they are put one after the other, as PyTorch and timm pack them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::weights::state::{HostTensor, StateDict};

/// How names begin, there and here.
pub(super) type Rules = &'static [(&'static str, &'static str)];

const MASKFORMER_HUGGING_FACE: Rules = &[
    ("model.pixel_level_module.decoder.fpn.stem.0.", "decoder.head.stem.conv."),
    ("model.pixel_level_module.decoder.fpn.stem.1.", "decoder.head.stem.norm."),
    ("model.pixel_level_module.decoder.fpn.layers.#.proj.0.", "decoder.head.levels.#.lateral.conv."),
    ("model.pixel_level_module.decoder.fpn.layers.#.proj.1.", "decoder.head.levels.#.lateral.norm."),
    ("model.pixel_level_module.decoder.fpn.layers.#.block.0.", "decoder.head.levels.#.output.conv."),
    ("model.pixel_level_module.decoder.fpn.layers.#.block.1.", "decoder.head.levels.#.output.norm."),
    ("model.pixel_level_module.decoder.mask_projection.", "decoder.head.mask_features."),
    ("model.transformer_module.queries_embedder.weight", "decoder.head.query_embed"),
    ("model.transformer_module.input_projection.", "decoder.head.input_proj."),
    ("model.transformer_module.decoder.layernorm.", "decoder.head.norm."),
    ("model.transformer_module.decoder.layers.#.self_attn.", "decoder.head.layers.#.self_attn."),
    ("model.transformer_module.decoder.layers.#.self_attn_layer_norm.", "decoder.head.layers.#.norm1."),
    ("model.transformer_module.decoder.layers.#.encoder_attn.", "decoder.head.layers.#.cross_attn."),
    ("model.transformer_module.decoder.layers.#.encoder_attn_layer_norm.", "decoder.head.layers.#.norm2."),
    ("model.transformer_module.decoder.layers.#.fc1.", "decoder.head.layers.#.ffn.fc1."),
    ("model.transformer_module.decoder.layers.#.fc2.", "decoder.head.layers.#.ffn.fc2."),
    ("model.transformer_module.decoder.layers.#.final_layer_norm.", "decoder.head.layers.#.ffn.norm."),
    ("class_predictor.", "decoder.head.class_embed."),
    ("mask_embedder.#.0.", "decoder.head.mask_embed.layers.#."),
];

const MASKFORMER: Rules = &[
    ("sem_seg_head.pixel_decoder.layer_4.norm.", "decoder.head.stem.norm."),
    ("sem_seg_head.pixel_decoder.layer_4.", "decoder.head.stem.conv."),
    ("sem_seg_head.pixel_decoder.adapter_3.norm.", "decoder.head.levels.0.lateral.norm."),
    ("sem_seg_head.pixel_decoder.adapter_3.", "decoder.head.levels.0.lateral.conv."),
    ("sem_seg_head.pixel_decoder.adapter_2.norm.", "decoder.head.levels.1.lateral.norm."),
    ("sem_seg_head.pixel_decoder.adapter_2.", "decoder.head.levels.1.lateral.conv."),
    ("sem_seg_head.pixel_decoder.adapter_1.norm.", "decoder.head.levels.2.lateral.norm."),
    ("sem_seg_head.pixel_decoder.adapter_1.", "decoder.head.levels.2.lateral.conv."),
    ("sem_seg_head.pixel_decoder.layer_3.norm.", "decoder.head.levels.0.output.norm."),
    ("sem_seg_head.pixel_decoder.layer_3.", "decoder.head.levels.0.output.conv."),
    ("sem_seg_head.pixel_decoder.layer_2.norm.", "decoder.head.levels.1.output.norm."),
    ("sem_seg_head.pixel_decoder.layer_2.", "decoder.head.levels.1.output.conv."),
    ("sem_seg_head.pixel_decoder.layer_1.norm.", "decoder.head.levels.2.output.norm."),
    ("sem_seg_head.pixel_decoder.layer_1.", "decoder.head.levels.2.output.conv."),
    ("sem_seg_head.pixel_decoder.mask_features.", "decoder.head.mask_features."),
    ("sem_seg_head.predictor.query_embed.weight", "decoder.head.query_embed"),
    ("sem_seg_head.predictor.transformer.decoder.norm.", "decoder.head.norm."),
    ("sem_seg_head.predictor.transformer.decoder.layers.#.multihead_attn.", "decoder.head.layers.#.cross_attn."),
    ("sem_seg_head.predictor.transformer.decoder.layers.#.norm3.", "decoder.head.layers.#.ffn.norm."),
    ("sem_seg_head.predictor.transformer.decoder.layers.#.linear1.", "decoder.head.layers.#.ffn.fc1."),
    ("sem_seg_head.predictor.transformer.decoder.layers.#.linear2.", "decoder.head.layers.#.ffn.fc2."),
    ("sem_seg_head.predictor.transformer.decoder.layers.#.", "decoder.head.layers.#."),
    ("sem_seg_head.predictor.", "decoder.head."),
];

const MASK2FORMER_HUGGING_FACE: Rules = &[
    ("model.pixel_level_module.decoder.input_projections.#.0.", "decoder.head.pixel_decoder.input_proj.#.conv."),
    ("model.pixel_level_module.decoder.input_projections.#.1.", "decoder.head.pixel_decoder.input_proj.#.norm."),
    ("model.pixel_level_module.decoder.level_embed", "decoder.head.pixel_decoder.encoder.level_embed"),
    (
        "model.pixel_level_module.decoder.encoder.layers.#.self_attn.",
        "decoder.head.pixel_decoder.encoder.layers.#.self_attn.",
    ),
    (
        "model.pixel_level_module.decoder.encoder.layers.#.self_attn_layer_norm.",
        "decoder.head.pixel_decoder.encoder.layers.#.norm.",
    ),
    (
        "model.pixel_level_module.decoder.encoder.layers.#.final_layer_norm.",
        "decoder.head.pixel_decoder.encoder.layers.#.ffn.norm.",
    ),
    ("model.pixel_level_module.decoder.encoder.layers.#.", "decoder.head.pixel_decoder.encoder.layers.#.ffn."),
    ("model.pixel_level_module.decoder.adapter_1.0.", "decoder.head.pixel_decoder.fpn.lateral.conv."),
    ("model.pixel_level_module.decoder.adapter_1.1.", "decoder.head.pixel_decoder.fpn.lateral.norm."),
    ("model.pixel_level_module.decoder.layer_1.0.", "decoder.head.pixel_decoder.fpn.output.conv."),
    ("model.pixel_level_module.decoder.layer_1.1.", "decoder.head.pixel_decoder.fpn.output.norm."),
    ("model.pixel_level_module.decoder.mask_projection.", "decoder.head.pixel_decoder.mask_features."),
    ("model.transformer_module.queries_features.weight", "decoder.head.query_feat"),
    ("model.transformer_module.queries_embedder.weight", "decoder.head.query_embed"),
    ("model.transformer_module.level_embed.weight", "decoder.head.level_embed"),
    ("model.transformer_module.decoder.layernorm.", "decoder.head.norm."),
    ("model.transformer_module.decoder.mask_predictor.mask_embedder.#.0.", "decoder.head.mask_embed.layers.#."),
    ("model.transformer_module.decoder.layers.#.cross_attn.", "decoder.head.layers.#.cross_attn."),
    ("model.transformer_module.decoder.layers.#.cross_attn_layer_norm.", "decoder.head.layers.#.cross_norm."),
    ("model.transformer_module.decoder.layers.#.self_attn.", "decoder.head.layers.#.self_attn."),
    ("model.transformer_module.decoder.layers.#.self_attn_layer_norm.", "decoder.head.layers.#.self_norm."),
    ("model.transformer_module.decoder.layers.#.final_layer_norm.", "decoder.head.layers.#.ffn.norm."),
    ("model.transformer_module.decoder.layers.#.", "decoder.head.layers.#.ffn."),
    ("class_predictor.", "decoder.head.class_embed."),
];

const MASK2FORMER: Rules = &[
    ("sem_seg_head.pixel_decoder.input_proj.#.0.", "decoder.head.pixel_decoder.input_proj.#.conv."),
    ("sem_seg_head.pixel_decoder.input_proj.#.1.", "decoder.head.pixel_decoder.input_proj.#.norm."),
    ("sem_seg_head.pixel_decoder.transformer.level_embed", "decoder.head.pixel_decoder.encoder.level_embed"),
    (
        "sem_seg_head.pixel_decoder.transformer.encoder.layers.#.self_attn.",
        "decoder.head.pixel_decoder.encoder.layers.#.self_attn.",
    ),
    (
        "sem_seg_head.pixel_decoder.transformer.encoder.layers.#.norm1.",
        "decoder.head.pixel_decoder.encoder.layers.#.norm.",
    ),
    (
        "sem_seg_head.pixel_decoder.transformer.encoder.layers.#.norm2.",
        "decoder.head.pixel_decoder.encoder.layers.#.ffn.norm.",
    ),
    (
        "sem_seg_head.pixel_decoder.transformer.encoder.layers.#.linear1.",
        "decoder.head.pixel_decoder.encoder.layers.#.ffn.fc1.",
    ),
    (
        "sem_seg_head.pixel_decoder.transformer.encoder.layers.#.linear2.",
        "decoder.head.pixel_decoder.encoder.layers.#.ffn.fc2.",
    ),
    ("sem_seg_head.pixel_decoder.adapter_1.norm.", "decoder.head.pixel_decoder.fpn.lateral.norm."),
    ("sem_seg_head.pixel_decoder.adapter_1.", "decoder.head.pixel_decoder.fpn.lateral.conv."),
    ("sem_seg_head.pixel_decoder.layer_1.norm.", "decoder.head.pixel_decoder.fpn.output.norm."),
    ("sem_seg_head.pixel_decoder.layer_1.", "decoder.head.pixel_decoder.fpn.output.conv."),
    ("sem_seg_head.pixel_decoder.mask_features.", "decoder.head.pixel_decoder.mask_features."),
    ("sem_seg_head.predictor.query_feat.weight", "decoder.head.query_feat"),
    ("sem_seg_head.predictor.query_embed.weight", "decoder.head.query_embed"),
    ("sem_seg_head.predictor.level_embed.weight", "decoder.head.level_embed"),
    ("sem_seg_head.predictor.decoder_norm.", "decoder.head.norm."),
    (
        "sem_seg_head.predictor.transformer_cross_attention_layers.#.multihead_attn.",
        "decoder.head.layers.#.cross_attn.",
    ),
    ("sem_seg_head.predictor.transformer_cross_attention_layers.#.norm.", "decoder.head.layers.#.cross_norm."),
    ("sem_seg_head.predictor.transformer_self_attention_layers.#.self_attn.", "decoder.head.layers.#.self_attn."),
    ("sem_seg_head.predictor.transformer_self_attention_layers.#.norm.", "decoder.head.layers.#.self_norm."),
    ("sem_seg_head.predictor.transformer_ffn_layers.#.norm.", "decoder.head.layers.#.ffn.norm."),
    ("sem_seg_head.predictor.transformer_ffn_layers.#.linear1.", "decoder.head.layers.#.ffn.fc1."),
    ("sem_seg_head.predictor.transformer_ffn_layers.#.linear2.", "decoder.head.layers.#.ffn.fc2."),
    ("sem_seg_head.predictor.", "decoder.head."),
];

const EOMT_HUGGING_FACE: Rules = &[
    ("query.weight", "decoder.query"),
    ("embeddings.position_embeddings.weight", "backbone.pos_embed"),
    ("embeddings.patch_embeddings.projection.", "backbone.patch_embed.proj."),
    ("embeddings.", "backbone."),
    ("layers.#.attention.", "backbone.blocks.#.attn."),
    ("layers.#.layer_scale1.lambda1", "backbone.blocks.#.ls1.gamma"),
    ("layers.#.layer_scale2.lambda1", "backbone.blocks.#.ls2.gamma"),
    ("layers.#.", "backbone.blocks.#."),
    ("layernorm.", "backbone.norm."),
    ("upscale_block.block.#.layernorm2d.", "decoder.upscale.#.norm."),
    ("upscale_block.block.#.", "decoder.upscale.#."),
    ("mask_head.fc1.", "decoder.mask_head.layers.0."),
    ("mask_head.fc2.", "decoder.mask_head.layers.1."),
    ("mask_head.fc3.", "decoder.mask_head.layers.2."),
    ("class_predictor.", "decoder.class_head."),
];

/// Over DINOv3.
const EOMT_DINOV3_HUGGING_FACE: Rules = &[
    ("query.weight", "decoder.query"),
    ("embeddings.patch_embeddings.", "backbone.patch_embed.proj."),
    ("embeddings.", "backbone."),
    ("layers.#.attention.q_proj.bias", "backbone.blocks.#.attn.q_bias"),
    ("layers.#.attention.v_proj.bias", "backbone.blocks.#.attn.v_bias"),
    ("layers.#.attention.o_proj.", "backbone.blocks.#.attn.proj."),
    ("layers.#.attention.", "backbone.blocks.#.attn."),
    ("layers.#.layer_scale1.lambda1", "backbone.blocks.#.ls1.gamma"),
    ("layers.#.layer_scale2.lambda1", "backbone.blocks.#.ls2.gamma"),
    ("layers.#.mlp.gate_proj.", "backbone.blocks.#.mlp.fc1_g."),
    ("layers.#.mlp.up_proj.", "backbone.blocks.#.mlp.fc1_x."),
    ("layers.#.mlp.down_proj.", "backbone.blocks.#.mlp.fc2."),
    ("layers.#.", "backbone.blocks.#."),
    ("layernorm.", "backbone.norm."),
    ("upscale_block.block.#.layernorm2d.", "decoder.upscale.#.norm."),
    ("upscale_block.block.#.", "decoder.upscale.#."),
    ("mask_head.fc1.", "decoder.mask_head.layers.0."),
    ("mask_head.fc2.", "decoder.mask_head.layers.1."),
    ("mask_head.fc3.", "decoder.mask_head.layers.2."),
    ("class_predictor.", "decoder.class_head."),
];

const EOMT: Rules = &[
    ("q.weight", "decoder.query"),
    ("encoder.backbone.reg_token", "backbone.register_tokens"),
    ("encoder.backbone.", "backbone."),
    ("upscale.", "decoder.upscale."),
    ("mask_head.0.", "decoder.mask_head.layers.0."),
    ("mask_head.2.", "decoder.mask_head.layers.1."),
    ("mask_head.4.", "decoder.mask_head.layers.2."),
    ("class_head.", "decoder.class_head."),
];

/// The rules for a file with these names, from which any prefix that all share has been cut.
pub(super) fn rules(names: &[&str]) -> Option<Rules> {
    let any = |part: &str| names.iter().any(|name| name.contains(part));
    if any("transformer_module.") {
        Some(if any("queries_features") { MASK2FORMER_HUGGING_FACE } else { MASKFORMER_HUGGING_FACE })
    } else if any("sem_seg_head.predictor.") {
        Some(if any("pixel_decoder.transformer.level_embed") { MASK2FORMER } else { MASKFORMER })
    } else if any("upscale_block.block.") && any("embeddings.") {
        Some(if any("position_embeddings") { EOMT_HUGGING_FACE } else { EOMT_DINOV3_HUGGING_FACE })
    } else if any("encoder.backbone.") && any("class_head.") {
        Some(EOMT)
    } else {
        None
    }
}

/// Whether the names are those of a query decoder.
pub(super) fn known(names: &[&str]) -> bool {
    rules(names).is_some()
}

/// Layers that others keep apart, and what they are together, one after the other.
const TOGETHER: [(&[&str], &str); 2] =
    [(&["q_proj.", "k_proj.", "v_proj."], "qkv."), (&[".mlp.fc1_g.", ".mlp.fc1_x."], ".mlp.fc1.")];

/// Where a layer of [`TOGETHER`] is: its name there, and which part.
fn part_of(name: &str) -> Option<(String, usize, usize)> {
    TOGETHER.iter().find_map(|(parts, whole)| {
        let at = parts.iter().position(|part| name.contains(part))?;
        Some((name.replace(parts[at], whole), at, parts.len()))
    })
}

/// The tensors of `state`, of which `bare` are the names without what wraps them, by `rules`.
pub(super) fn convert<'a>(
    state: &StateDict,
    bare: Vec<(String, &'a HostTensor)>,
    rules: Rules,
) -> Result<BTreeMap<String, Cow<'a, HostTensor>>> {
    let twice = |name: &str| {
        Error::new(format!("two tensors of {} are `{name}`", state.title()))
            .with_hint("the file mixes two models: save one of them alone")
    };
    let mut tensors = BTreeMap::new();
    let mut parts: BTreeMap<String, Vec<Option<&HostTensor>>> = BTreeMap::new();
    for (name, tensor) in bare {
        let name = rewritten(&name, rules);
        if let Some((packed, at, of)) = part_of(&name) {
            let place = &mut parts.entry(packed).or_insert_with(|| vec![None; of])[at];
            if place.replace(tensor).is_some() {
                return Err(twice(&name));
            }
            continue;
        }
        let name = name.replace("in_proj_", "qkv.").replace(".out_proj.", ".proj.");
        let tensor = match (&*name, &tensor.shape[..]) {
            // An embedding table where ours has an axis for the batch.
            ("backbone.pos_embed", [rows, columns]) => {
                Cow::Owned(HostTensor { shape: vec![1, *rows, *columns], data: tensor.data.clone() })
            }
            _ => Cow::Borrowed(tensor),
        };
        if tensors.insert(name.clone(), tensor).is_some() {
            return Err(twice(&name));
        }
    }
    for (name, parts) in parts {
        let what = if name.contains(".mlp.") { "gates and values" } else { "queries, keys and values" };
        let found: Vec<&HostTensor> = match parts[..] {
            // An MLP without gates, by the same names.
            [None, Some(alone)] => vec![alone],
            _ => parts.iter().flatten().copied().collect(),
        };
        let complete = found.len() == parts.len() || matches!(parts[..], [None, Some(_)]);
        let Some(first) = found.first().filter(|_| complete) else {
            return Err(Error::new(format!("{} holds only some of {what} for `{name}`", state.title()))
                .with_hint("the file is not complete: save it again"));
        };
        if first.shape.is_empty() || found.iter().any(|part| part.shape != first.shape) {
            return Err(Error::new(format!("{what} for `{name}` differ in shape in {}", state.title())));
        }
        let mut shape = first.shape.clone();
        shape[0] *= found.len();
        let data = found.iter().flat_map(|part| part.data.iter().copied()).collect();
        if tensors.insert(name.clone(), Cow::Owned(HostTensor { shape, data })).is_some() {
            return Err(twice(&name));
        }
    }
    Ok(tensors)
}

/// The name by the first rule that fits, or as it is.
fn rewritten(name: &str, rules: Rules) -> String {
    rules.iter().find_map(|(theirs, ours)| rewrite(name, theirs, ours)).unwrap_or_else(|| name.to_owned())
}

fn rewrite(name: &str, theirs: &str, ours: &str) -> Option<String> {
    let Some((before, after)) = theirs.split_once('#') else {
        return Some(format!("{ours}{}", name.strip_prefix(theirs)?));
    };
    let rest = name.strip_prefix(before)?;
    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
    let (number, rest) = rest.split_at(digits);
    (digits > 0).then(|| rest.strip_prefix(after)).flatten().map(|rest| ours.replace('#', number) + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stays_what_it_is() {
        let rule = |name| rewrite(name, "a.layers.#.fc1.", "b.#.ffn.fc1.");
        assert_eq!(rule("a.layers.12.fc1.weight").as_deref(), Some("b.12.ffn.fc1.weight"));
        assert_eq!(
            (rule("a.layers.x.fc1.weight"), rule("a.layers.1.fc2.weight"), rule("a.layers.1")),
            (None, None, None)
        );
    }

    #[test]
    fn a_part_that_is_missing_is_named() {
        let mut state = StateDict::default();
        let table = "embeddings.position_embeddings.weight";
        for name in ["upscale_block.block.0.conv2.weight", table, "layers.0.attention.q_proj.bias"] {
            state.tensors.insert(name.into(), HostTensor { shape: vec![1], data: vec![0.0] });
        }
        let error = crate::weights::remap_keys(&state).unwrap_err().to_string();
        assert!(error.contains("backbone.blocks.0.attn.qkv.bias"), "{error}");
    }
}
