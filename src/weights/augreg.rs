//! AugReg's flax arrays ("How to train your ViT?", arXiv 2106.10270) in torch's layouts, as timm converts them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::weights::state::{HostTensor, StateDict};

/// Gives every array our name and torch's order of axes; packs query, key and value into `attn.qkv`.
///
/// # Errors
///
/// If an array is not of the rank that flax gives it, or one of query, key and value is missing.
pub(super) fn convert(state: &StateDict) -> Result<BTreeMap<String, Cow<'_, HostTensor>>> {
    let mut tensors = BTreeMap::new();
    let mut packed: BTreeMap<String, [Option<HostTensor>; 3]> = BTreeMap::new();
    for (full, tensor) in &state.tensors {
        let name = PREFIXES.iter().find_map(|prefix| full.strip_prefix(prefix)).unwrap_or(full);
        let torch = || torch_order(name, tensor).ok_or_else(|| rank(state, full, tensor));
        match our_name(name) {
            Name::Plain(ours) => {
                if tensors.insert(ours.clone(), torch()?).is_some() {
                    return Err(Error::new(format!("two arrays of {} are `{ours}`: one is `{full}`", state.title()))
                        .with_hint("use one of AugReg's ViT files; other flax models may have other names"));
                }
            }
            Name::Packed(ours, part) => packed.entry(ours).or_default()[part] = Some(torch()?.into_owned()),
        }
    }
    for (ours, parts) in packed {
        let [Some(q), Some(k), Some(v)] = parts else {
            return Err(Error::new(format!("query, key or value is missing for `{ours}` in {}", state.title()))
                .with_hint("the file is incomplete: get it again from its source"));
        };
        let fits = q.shape == k.shape && k.shape == v.shape && !q.shape.is_empty();
        if !fits {
            return Err(Error::new(format!("query, key and value of `{ours}` differ in shape in {}", state.title()))
                .with_hint("grouped-query attention is not supported"));
        }
        let mut shape = q.shape;
        shape[0] *= 3;
        tensors.insert(ours, Cow::Owned(HostTensor { shape, data: [q.data, k.data, v.data].concat() }));
    }
    Ok(tensors)
}

/// Where training checkpoints keep the parameters.
const PREFIXES: [&str; 3] = ["opt/target/", "params/", "target/"];

enum Name {
    Plain(String),
    /// The name of the packed tensor, and which third of it this is.
    Packed(String, usize),
}

/// Flax counts submodules by kind, and the count differs between code bases (`LayerNorm_2` or `_1`), so only the kind
/// and whether it is the first decide.
fn our_name(name: &str) -> Name {
    let leaf = |leaf: &str| if matches!(leaf, "kernel" | "scale") { "weight" } else { "bias" };
    let parts: Vec<&str> = name.split('/').collect();
    let plain = |ours: String| Name::Plain(format!("backbone.{ours}"));
    match parts.as_slice() {
        ["cls"] => plain("cls_token".into()),
        ["embedding", last] => plain(format!("patch_embed.proj.{}", leaf(last))),
        ["Transformer", "posembed_input", "pos_embedding"] => plain("pos_embed".into()),
        ["Transformer", "encoder_norm", last] => plain(format!("norm.{}", leaf(last))),
        ["Transformer", block, inner @ .., last] if block.starts_with("encoderblock_") => {
            let block = format!("blocks.{}", &block["encoderblock_".len()..]);
            let last = leaf(last);
            match inner {
                ["LayerNorm_0"] => plain(format!("{block}.norm1.{last}")),
                [norm] if norm.starts_with("LayerNorm_") => plain(format!("{block}.norm2.{last}")),
                [mlp, "Dense_0"] if mlp.starts_with("MlpBlock_") => plain(format!("{block}.mlp.fc1.{last}")),
                [mlp, "Dense_1"] if mlp.starts_with("MlpBlock_") => plain(format!("{block}.mlp.fc2.{last}")),
                [attention, "out"] if attention.contains("Attention_") => plain(format!("{block}.attn.proj.{last}")),
                [attention, part] if attention.contains("Attention_") => {
                    match ["query", "key", "value"].iter().position(|p| p == part) {
                        Some(index) => Name::Packed(format!("backbone.{block}.attn.qkv.{last}"), index),
                        None => plain(name.replace('/', ".")),
                    }
                }
                _ => plain(name.replace('/', ".")),
            }
        }
        [module @ ("head" | "pre_logits"), last] => plain(format!("{module}.{}", leaf(last))),
        _ => plain(name.replace('/', ".")),
    }
}

/// Flax keeps the input axes first: kernels are `[in, out]`, `[h, w, in, out]`, and in attention `[in, head, d]` for
/// query, key and value and `[head, d, out]` for the output. None where the rank is another.
fn torch_order<'a>(name: &str, tensor: &'a HostTensor) -> Option<Cow<'a, HostTensor>> {
    let matrix = |rows: usize, columns: usize, shape: Vec<usize>| {
        Some(Cow::Owned(HostTensor { shape, data: transposed(&tensor.data, rows, columns) }))
    };
    let in_attention = name.contains("Attention_");
    match (tensor.shape.as_slice(), name.ends_with("/kernel")) {
        (&[input, heads, d], true) if in_attention && !name.ends_with("/out/kernel") => {
            matrix(input, heads * d, vec![heads * d, input])
        }
        (&[heads, d, output], true) if in_attention => matrix(heads * d, output, vec![output, heads * d]),
        (&[input, output], true) if !in_attention => matrix(input, output, vec![output, input]),
        (&[h, w, input, output], true) if !in_attention => {
            let output_first = transposed(&tensor.data, h * w * input, output); // [out, h·w·in]
            let planes = output_first.chunks_exact((h * w * input).max(1));
            let data = planes.flat_map(|plane| transposed(plane, h * w, input)).collect(); // [out, in, h·w]
            Some(Cow::Owned(HostTensor { shape: vec![output, input, h, w], data }))
        }
        (_, true) => None,
        (&[heads, d], false) if in_attention => {
            Some(Cow::Owned(HostTensor { shape: vec![heads * d], data: tensor.data.clone() }))
        }
        _ => Some(Cow::Borrowed(tensor)),
    }
}

fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

fn rank(state: &StateDict, name: &str, tensor: &HostTensor) -> Error {
    Error::new(format!("the array `{name}` of {} has the unexpected shape {:?}", state.title(), tensor.shape))
        .with_hint("AugReg's ViT files are known; hybrids with a ResNet stem and mixers are not")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{KeyFormat, remap_keys};

    /// The value at an index is the index written in decimal, so that a wrong order shows.
    fn numbered(shape: &[usize]) -> HostTensor {
        let total: usize = shape.iter().product();
        let data = (0..total).map(|flat| {
            let mut rest = flat;
            let digits = shape.iter().rev().map(|n| {
                let digit = rest % n;
                rest /= n;
                digit
            });
            digits.enumerate().map(|(place, digit)| digit as f32 * 10f32.powi(place as i32)).sum()
        });
        HostTensor { shape: shape.to_vec(), data: data.collect() }
    }

    fn at(tensor: &HostTensor, index: &[usize]) -> f32 {
        tensor.data[index.iter().zip(&tensor.shape).fold(0, |flat, (i, n)| flat * n + i)]
    }

    fn state(attention: &str, mlp: &str, norm: &str, prefix: &str) -> StateDict {
        let block = "Transformer/encoderblock_1";
        let arrays = [
            ("cls".to_owned(), vec![1, 1, 6]),
            ("embedding/kernel".into(), vec![2, 3, 4, 6]),
            ("embedding/bias".into(), vec![6]),
            ("Transformer/posembed_input/pos_embedding".into(), vec![1, 5, 6]),
            ("Transformer/encoder_norm/scale".into(), vec![6]),
            ("head/kernel".into(), vec![6, 3]),
            (format!("{block}/LayerNorm_0/scale"), vec![6]),
            (format!("{block}/{norm}/bias"), vec![6]),
            (format!("{block}/{mlp}/Dense_0/kernel"), vec![6, 8]),
            (format!("{block}/{mlp}/Dense_1/bias"), vec![6]),
            (format!("{block}/{attention}/query/kernel"), vec![6, 2, 3]),
            (format!("{block}/{attention}/key/kernel"), vec![6, 2, 3]),
            (format!("{block}/{attention}/value/kernel"), vec![6, 2, 3]),
            (format!("{block}/{attention}/query/bias"), vec![2, 3]),
            (format!("{block}/{attention}/key/bias"), vec![2, 3]),
            (format!("{block}/{attention}/value/bias"), vec![2, 3]),
            (format!("{block}/{attention}/out/kernel"), vec![2, 3, 6]),
            (format!("{block}/{attention}/out/bias"), vec![6]),
        ];
        let tensors = arrays.into_iter().map(|(name, shape)| (format!("{prefix}{name}"), numbered(&shape)));
        StateDict { tensors: tensors.collect(), ..StateDict::default() }
    }

    #[test]
    fn converts_as_timm_does() {
        for state in [
            state("MultiHeadDotProductAttention_1", "MlpBlock_3", "LayerNorm_2", ""),
            state("MultiHeadDotProductAttention_0", "MlpBlock_0", "LayerNorm_1", "params/"),
        ] {
            let renamed = remap_keys(&state).unwrap();
            assert_eq!(renamed.key_format, KeyFormat::AugReg);
            let names: Vec<&str> = renamed.tensors.keys().map(String::as_str).collect();
            assert_eq!(
                names,
                [
                    "backbone.blocks.1.attn.proj.bias",
                    "backbone.blocks.1.attn.proj.weight",
                    "backbone.blocks.1.attn.qkv.bias",
                    "backbone.blocks.1.attn.qkv.weight",
                    "backbone.blocks.1.mlp.fc1.weight",
                    "backbone.blocks.1.mlp.fc2.bias",
                    "backbone.blocks.1.norm1.weight",
                    "backbone.blocks.1.norm2.bias",
                    "backbone.cls_token",
                    "backbone.head.weight",
                    "backbone.norm.weight",
                    "backbone.patch_embed.proj.bias",
                    "backbone.patch_embed.proj.weight",
                    "backbone.pos_embed",
                ]
            );
            let get = |name: &str| renamed.tensors[&format!("backbone.{name}")].as_ref();
            // out, in, h, w from h, w, in, out.
            assert_eq!(get("patch_embed.proj.weight").shape, [6, 4, 2, 3]);
            assert_eq!(at(get("patch_embed.proj.weight"), &[5, 3, 1, 2]), 1235.0);
            assert_eq!(at(get("patch_embed.proj.weight"), &[4, 1, 0, 2]), 214.0);
            assert_eq!((get("head.weight").shape.as_slice(), at(get("head.weight"), &[2, 5])), (&[3, 6][..], 52.0));
            assert_eq!(at(get("blocks.1.mlp.fc1.weight"), &[7, 4]), 47.0);
            // Row 6 + 3·1 + 2 of qkv is the key's head 1, dimension 2.
            assert_eq!(get("blocks.1.attn.qkv.weight").shape, [18, 6]);
            assert_eq!(at(get("blocks.1.attn.qkv.weight"), &[11, 4]), 412.0);
            assert_eq!(
                (get("blocks.1.attn.qkv.bias").shape.as_slice(), at(get("blocks.1.attn.qkv.bias"), &[17])),
                (&[18][..], 12.0)
            );
            assert_eq!(get("blocks.1.attn.proj.weight").shape, [6, 6]);
            assert_eq!(at(get("blocks.1.attn.proj.weight"), &[4, 5]), 124.0);
            assert_eq!(get("pos_embed").shape, [1, 5, 6]);
        }
    }

    #[test]
    fn incomplete_and_misshapen_files_are_errors() {
        let mut missing = state("MultiHeadDotProductAttention_1", "MlpBlock_3", "LayerNorm_2", "");
        missing.tensors.remove("Transformer/encoderblock_1/MultiHeadDotProductAttention_1/key/bias");
        assert!(remap_keys(&missing).unwrap_err().to_string().contains("attn.qkv.bias"));
        let mut flat = state("MultiHeadDotProductAttention_1", "MlpBlock_3", "LayerNorm_2", "");
        flat.tensors.insert("embedding/kernel".into(), numbered(&[7]));
        assert!(remap_keys(&flat).unwrap_err().to_string().contains("[7]"));
        let mut double = state("MultiHeadDotProductAttention_1", "MlpBlock_3", "LayerNorm_2", "");
        double.tensors.insert("Transformer/encoderblock_1/LayerNorm_1/bias".into(), numbered(&[6]));
        assert!(remap_keys(&double).unwrap_err().to_string().contains("two arrays"));
        let mut uneven = state("MultiHeadDotProductAttention_1", "MlpBlock_3", "LayerNorm_2", "");
        uneven
            .tensors
            .insert("Transformer/encoderblock_1/MultiHeadDotProductAttention_1/key/bias".into(), numbered(&[2, 2]));
        assert!(remap_keys(&uneven).is_err());
    }
}
