//! Types of numbers that a file stores its weights in: integers are not taken for weights.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::weights::state::StateDict;

/// Last parts of the names of parameters. Whole numbers under other names are counters and tables of indices.
const PARAMETERS: [&str; 10] = [
    "weight",
    "bias",
    "kernel",
    "scale",
    "gamma",
    "qweight",
    "in_proj_weight",
    "in_proj_bias",
    "cls_token",
    "pos_embed",
];

/// What quantisation keeps beside its weights: of bitsandbytes, GPTQ and AWQ, compressed-tensors, 8-bit floats.
const SCALES: [&str; 9] = [
    "weight_scale",
    "weight_scale_inv",
    "scale_weight",
    "input_scale",
    "scales",
    "qzeros",
    "SCB",
    "absmax",
    "quant_map",
];

/// Refuses weights that were quantised: as they are stored they are not the values that the network had.
///
/// # Errors
/// Names one tensor and its type, or the scales beside the weights.
pub(crate) fn check(state: &StateDict) -> Result<()> {
    let last = |name: &str| name.rsplit(['.', '/']).next().unwrap_or_default().to_owned();
    let whole = |kind: &str| kind.starts_with(['i', 'u']) || kind == "bool";
    let parameter = |name: &str| PARAMETERS.contains(&last(name).as_str());
    let many = |name: &str| state.tensors.get(name).is_some_and(|tensor| tensor.data.len() > 1);
    let quantized: Vec<(&String, &&str)> =
        state.dtypes.iter().filter(|(name, kind)| whole(kind) && parameter(name) && many(name)).collect();
    let hint = "use the weights in float32, float16 or bfloat16, as they were before they were quantised";
    if let Some((name, kind)) = quantized.first() {
        let more = if quantized.len() > 1 { format!(", as {} others", quantized.len() - 1) } else { String::new() };
        return Err(Error::new(format!(
            "{} stores `{name}` in whole numbers ({kind}){more}: the weights are quantised and cannot be used",
            state.title()
        ))
        .with_hint(hint));
    }
    match state.tensors.keys().find(|name| SCALES.contains(&last(name).as_str())) {
        Some(scales) => Err(Error::new(format!(
            "{} has `{scales}` in addition to its weights, which would have to be multiplied by it: they are quantised and \
             cannot be used",
            state.title()
        ))
        .with_hint(hint)),
        None => Ok(()),
    }
}

/// A note on weights that are not stored in full: how many tensors are of which type.
pub(super) fn type_note(state: &StateDict) -> Option<String> {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for kind in state.dtypes.values().filter(|kind| kind.contains('f') && !["f32", "f64"].contains(*kind)) {
        *kinds.entry(kind).or_default() += 1;
    }
    if kinds.is_empty() {
        return None;
    }
    let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} as {kind}")).collect();
    let tensors = state.dtypes.len();
    Some(format!(
        "of {tensors} tensors the file stores {}: read as f32, without the digits that these lack",
        kinds.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::HostTensor;

    fn state(tensors: &[(&str, &'static str, usize)]) -> StateDict {
        let mut state = StateDict::default();
        for (name, kind, count) in tensors {
            state.tensors.insert((*name).to_owned(), HostTensor { shape: vec![*count], data: vec![1.0; *count] });
            state.dtypes.insert((*name).to_owned(), kind);
        }
        state
    }

    #[test]
    fn quantised_weights_are_refused_with_type_and_tensor() {
        let plain = ("norm.weight", "f32", 4);
        for (quantized, say) in [
            (("blocks.0.attn.qkv.weight", "i8", 4), "`blocks.0.attn.qkv.weight` in whole numbers (i8)"),
            (("model.blocks.0.mlp.fc1.weight", "u8", 4), "(u8)"),
            (("pos_embed", "i16", 4), "`pos_embed`"),
            (("head/kernel", "i8", 4), "`head/kernel`"),
            (("blocks.0.attn.qkv.qweight", "i32", 4), "(i32)"),
            (("blocks.0.attn.qkv.weight_scale", "f32", 1), "`blocks.0.attn.qkv.weight_scale` in addition"),
            (("blocks.0.attn.qkv.weight.absmax", "f32", 4), "in addition to its weights"),
        ] {
            let error = check(&state(&[plain, quantized])).unwrap_err();
            assert!(error.to_string().contains(say) && error.hint().unwrap().contains("float32"), "{error}");
        }
    }

    #[test]
    fn counters_and_tables_of_indices_are_not_weights() {
        check(&state(&[
            ("norm.weight", "bf16", 4),
            ("bn1.num_batches_tracked", "i64", 1),
            ("embeddings.position_ids", "i64", 9),
            ("layers.0.attn.relative_position_index", "i64", 9),
            ("mask.weight", "bool", 1),
        ]))
        .unwrap();
    }

    #[test]
    fn shorter_floats_are_mentioned() {
        assert_eq!(type_note(&state(&[("a", "f32", 1), ("b", "i64", 1)])), None);
        let said =
            type_note(&state(&[("a", "f32", 1), ("b", "bf16", 1), ("c", "f8_e4m3", 1), ("d", "f8_e4m3", 1)])).unwrap();
        assert!(said.contains("of 4 tensors the file stores 1 as bf16, 2 as f8_e4m3"), "{said}");
    }
}
