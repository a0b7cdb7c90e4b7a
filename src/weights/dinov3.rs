//! DINOv3's vision transformer under the names of its authors, of Hugging Face's transformers (`DINOv3ViTModel`) and of
//! timm.

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::weights::key_format::{KeyFormat, RemappedKeys};
use crate::weights::rules;
use crate::weights::rules::Rules;
use crate::weights::state::{HostTensor, StateDict};

/// Of the blocks as transformers names them since version 5, without the `model.` before them there.
const HUGGING_FACE: Rules = &[
    ("embeddings.patch_embeddings.", "backbone.patch_embed.proj."),
    ("embeddings.", "backbone."),
    ("layer.#.attention.q_proj.bias", "backbone.blocks.#.attn.q_bias"),
    ("layer.#.attention.v_proj.bias", "backbone.blocks.#.attn.v_bias"),
    ("layer.#.attention.o_proj.", "backbone.blocks.#.attn.proj."),
    ("layer.#.attention.", "backbone.blocks.#.attn."),
    ("layer.#.layer_scale1.lambda1", "backbone.blocks.#.ls1.gamma"),
    ("layer.#.layer_scale2.lambda1", "backbone.blocks.#.ls2.gamma"),
    ("layer.#.mlp.gate_proj.", "backbone.blocks.#.mlp.fc1_g."),
    ("layer.#.mlp.up_proj.", "backbone.blocks.#.mlp.fc1_x."),
    ("layer.#.mlp.down_proj.", "backbone.blocks.#.mlp.fc2."),
    ("layer.#.", "backbone.blocks.#."),
    ("", "backbone."),
];

/// The authors' names, and timm's.
const AUTHORS: Rules = &[
    ("storage_tokens", "backbone.register_tokens"),
    ("reg_token", "backbone.register_tokens"),
    ("blocks.#.gamma_1", "backbone.blocks.#.ls1.gamma"),
    ("blocks.#.gamma_2", "backbone.blocks.#.ls2.gamma"),
    ("blocks.#.mlp.w1.", "backbone.blocks.#.mlp.fc1_g."),
    ("blocks.#.mlp.w2.", "backbone.blocks.#.mlp.fc1_x."),
    ("blocks.#.mlp.w3.", "backbone.blocks.#.mlp.fc2."),
    ("", "backbone."),
];

/// The periods of the rotations, which the authors' files hold.
const PERIODS: &str = "backbone.rope_embed.periods";
/// How far they may be off: the files have them in bf16.
const ROUNDED: f64 = 0.01;
/// What the ratio of the longest to the shortest would be with one more of them.
const THETA: f64 = 100.0;

/// Who named the tensors of such a network, if the names are those of one.
pub(super) fn known(names: &[&str]) -> Option<KeyFormat> {
    let names: Vec<&str> = names.iter().map(|name| inner(name)).collect();
    let has = |name: &str| names.contains(&name);
    let any = |parts: &[&str]| names.iter().any(|name| name.split('.').any(|part| parts.contains(&part)));
    if has("layer.0.attention.q_proj.weight") && has("embeddings.patch_embeddings.weight") {
        return Some(KeyFormat::HuggingFace);
    }
    if !has("blocks.0.attn.qkv.weight") || !has("patch_embed.proj.weight") || any(&["pos_embed", "q_norm"]) {
        return None;
    }
    let authors = has("storage_tokens") || any(&["rope_embed", "bias_mask"]);
    // Kin of it in timm are normalised before the blocks, pooled by attention, or have other tokens.
    let timm = has("reg_token")
        && has("cls_token")
        && has("blocks.0.gamma_1")
        && has("blocks.0.norm1.weight")
        && !has("blocks.0.attn.qkv.bias")
        && !any(&["rope", "norm_pre", "attn_pool"]);
    (authors || timm).then_some(KeyFormat::Timm)
}

/// A name without what stands before the network or its blocks.
fn inner(name: &str) -> &str {
    let name = name.strip_prefix("backbone.").unwrap_or(name);
    match name.strip_prefix("model.") {
        Some(rest) if rest.starts_with("layer.") => rest,
        _ => name,
    }
}

/// The tensors under our names; aside are those that are constants there.
///
/// # Errors
///
/// If two tensors become one, or the network rotates or adds what ours does not.
pub(super) fn convert<'a>(
    state: &StateDict,
    bare: Vec<(String, &'a HostTensor)>,
    key_format: KeyFormat,
) -> Result<RemappedKeys<'a>> {
    let rules = if key_format == KeyFormat::HuggingFace { HUGGING_FACE } else { AUTHORS };
    let bare = bare.into_iter().map(|(name, tensor)| (inner(&name).to_owned(), tensor)).collect();
    let mut tensors = rules::convert(state, bare, rules)?;
    let mut aside = Vec::new();
    if let Some(periods) = tensors.remove(PERIODS) {
        let count = periods.data.len() as f64;
        let off = |(at, period): (usize, &f32)| {
            let expected = THETA.powf(at as f64 / count);
            (f64::from(*period) / expected - 1.0).abs() > ROUNDED
        };
        if periods.data.iter().enumerate().any(off) {
            return Err(Error::new(format!("the rotations of {} have other periods than DINOv3's", state.title()))
                .with_hint(
                    "`rope_embed.periods` must be 100^(4 j / d) for heads of d channels: use the published weights",
                ));
        }
        aside.push(PERIODS.to_owned());
    }
    let packed: Vec<String> = tensors.keys().filter(|name| name.ends_with(".attn.qkv.bias")).cloned().collect();
    for name in packed {
        let mask = tensors.remove(&format!("{name}_mask"));
        aside.extend(mask.is_some().then(|| format!("{name}_mask")));
        let Some(bias) = tensors.remove(&name) else { continue };
        for (part, values) in without_keys(state, &name, &bias, mask.as_deref())? {
            let shape = vec![values.len()];
            let name = name.replace("qkv.bias", part);
            tensors.insert(name, Cow::Owned(HostTensor { shape, data: values }));
        }
    }
    Ok(RemappedKeys { key_format, tensors, aside })
}

/// The bias of queries and that of values, of a packed one whose keys have none.
fn without_keys(
    state: &StateDict,
    name: &str,
    bias: &HostTensor,
    mask: Option<&HostTensor>,
) -> Result<[(&'static str, Vec<f32>); 2]> {
    if bias.shape.len() != 1 || !bias.data.len().is_multiple_of(3) || mask.is_some_and(|mask| mask.shape != bias.shape)
    {
        return Err(Error::new(format!("`{name}` of {} is not one of queries, keys and values", state.title())));
    }
    let masked: Vec<f32> = match mask {
        Some(mask) => bias.data.iter().zip(&mask.data).map(|(value, mask)| value * mask).collect(),
        None => bias.data.clone(),
    };
    let c = masked.len() / 3;
    if masked[c..2 * c].iter().any(|value| *value != 0.0) {
        return Err(Error::new(format!("the keys of `{name}` of {} have a bias, DINOv3's have none", state.title()))
            .with_hint("use the published weights; their `bias_mask` is zero for the keys"));
    }
    Ok([("q_bias", masked[..c].to_vec()), ("v_bias", masked[2 * c..].to_vec())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::remap_keys;

    fn tensor(data: &[f32]) -> HostTensor {
        HostTensor { shape: vec![data.len()], data: data.to_vec() }
    }

    fn authors() -> StateDict {
        let mut state = StateDict::default();
        let ones = ["storage_tokens", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.mlp.w3.bias"];
        for name in ones {
            state.tensors.insert(name.into(), tensor(&[1.0]));
        }
        state.tensors.insert("blocks.0.mlp.w1.bias".into(), tensor(&[1.0, 2.0]));
        state.tensors.insert("blocks.0.mlp.w2.bias".into(), tensor(&[3.0, 4.0]));
        state.tensors.insert("blocks.0.attn.qkv.bias".into(), tensor(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
        state.tensors.insert("blocks.0.attn.qkv.bias_mask".into(), tensor(&[1.0, 1.0, 0.0, 0.0, 1.0, 1.0]));
        // bf16 of 1, 100^(1/4), 10, 100^(3/4).
        state.tensors.insert("rope_embed.periods".into(), tensor(&[1.0, 3.15625, 10.0, 31.625]));
        state
    }

    #[test]
    fn the_authors_names_become_ours() {
        for prefix in ["", "module.", "backbone.", "teacher.backbone."] {
            let mut state = StateDict::default();
            for (name, tensor) in authors().tensors {
                state.tensors.insert(format!("{prefix}{name}"), tensor);
            }
            let renamed = remap_keys(&state).unwrap();
            assert_eq!(renamed.key_format, KeyFormat::Timm);
            let names: Vec<&str> = renamed.tensors.keys().map(String::as_str).collect();
            assert_eq!(
                names,
                [
                    "backbone.blocks.0.attn.q_bias",
                    "backbone.blocks.0.attn.qkv.weight",
                    "backbone.blocks.0.attn.v_bias",
                    "backbone.blocks.0.mlp.fc1.bias",
                    "backbone.blocks.0.mlp.fc2.bias",
                    "backbone.patch_embed.proj.weight",
                    "backbone.register_tokens",
                ]
            );
            let values = |name: &str| renamed.tensors[&format!("backbone.blocks.0.{name}")].data.clone();
            assert_eq!((values("attn.q_bias"), values("attn.v_bias")), (vec![1.0, 2.0], vec![5.0, 6.0]));
            assert_eq!(values("mlp.fc1.bias"), [1.0, 2.0, 3.0, 4.0]);
            assert_eq!(renamed.aside.len(), 2, "{:?}", renamed.aside);
        }
    }

    #[test]
    fn what_ours_does_not_do_is_refused() {
        let changes: [(&str, &[f32], &str); 4] = [
            ("rope_embed.periods", &[1.0, 5.6, 31.6, 177.8], "periods"),
            ("blocks.0.attn.qkv.bias_mask", &[1.0; 6], "keys"),
            ("blocks.0.attn.qkv.bias_mask", &[f32::NAN; 6], "keys"),
            ("blocks.0.attn.qkv.bias_mask", &[1.0; 3], "queries, keys and values"),
        ];
        for (name, values, said) in changes {
            let mut state = authors();
            state.tensors.insert(name.into(), tensor(values));
            let error = remap_keys(&state).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    /// What is there twice, packed or in parts, is refused.
    #[test]
    fn two_tensors_of_one_name_are_refused() {
        for name in ["blocks.0.mlp.fc1.bias", "blocks.0.mlp.fc1_g.bias", "reg_token"] {
            let mut state = authors();
            state.tensors.insert(name.into(), tensor(&[1.0, 2.0]));
            let error = remap_keys(&state).unwrap_err().to_string();
            assert!(error.contains("two tensors"), "{error}");
        }
    }

    #[test]
    fn its_kin_are_not_taken_for_it() {
        let timm = ["cls_token", "reg_token", "patch_embed.proj.weight", "blocks.0.gamma_1", "blocks.0.norm1.weight"];
        let with = |more: &[&'static str]| known(&[&timm[..], &["blocks.0.attn.qkv.weight"], more].concat());
        assert_eq!(with(&["blocks.0.attn.q_bias", "blocks.0.mlp.fc1_g.weight"]), Some(KeyFormat::Timm));
        for more in ["pos_embed", "norm_pre.weight", "attn_pool.q.weight", "rope.freqs", "blocks.0.attn.qkv.bias"] {
            assert_eq!(with(&[more]), None, "{more}");
        }
        assert_eq!(known(&timm), None);
    }
}
