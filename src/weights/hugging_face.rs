//! Plain vision transformers under the names of Hugging Face's transformers: `ViTModel`, `Dinov2Model`,
//! `Dinov2WithRegistersModel`.

use crate::weights::rules::Rules;

pub(super) const RULES: Rules = &[
    ("embeddings.position_embeddings", "backbone.pos_embed"),
    ("embeddings.patch_embeddings.projection.", "backbone.patch_embed.proj."),
    ("embeddings.", "backbone."),
    ("encoder.layer.#.attention.attention.query.", "backbone.blocks.#.attn.q_proj."),
    ("encoder.layer.#.attention.attention.key.", "backbone.blocks.#.attn.k_proj."),
    ("encoder.layer.#.attention.attention.value.", "backbone.blocks.#.attn.v_proj."),
    ("encoder.layer.#.attention.output.dense.", "backbone.blocks.#.attn.proj."),
    ("encoder.layer.#.attention.o_proj.", "backbone.blocks.#.attn.proj."),
    ("encoder.layer.#.attention.", "backbone.blocks.#.attn."),
    ("encoder.layer.#.layer_scale1.lambda1", "backbone.blocks.#.ls1.gamma"),
    ("encoder.layer.#.layer_scale2.lambda1", "backbone.blocks.#.ls2.gamma"),
    // ViT's; DINOv2 has timm's names.
    ("encoder.layer.#.layernorm_before.", "backbone.blocks.#.norm1."),
    ("encoder.layer.#.layernorm_after.", "backbone.blocks.#.norm2."),
    ("encoder.layer.#.intermediate.dense.", "backbone.blocks.#.mlp.fc1."),
    ("encoder.layer.#.output.dense.", "backbone.blocks.#.mlp.fc2."),
    // SwiGLU, packed as published, or as transformers 5 has it.
    ("encoder.layer.#.mlp.weights_in.", "backbone.blocks.#.mlp.fc1."),
    ("encoder.layer.#.mlp.weights_out.", "backbone.blocks.#.mlp.fc2."),
    ("encoder.layer.#.mlp.gate_proj.", "backbone.blocks.#.mlp.fc1_g."),
    ("encoder.layer.#.mlp.up_proj.", "backbone.blocks.#.mlp.fc1_x."),
    ("encoder.layer.#.mlp.down_proj.", "backbone.blocks.#.mlp.fc2."),
    ("encoder.layer.#.", "backbone.blocks.#."),
    ("layernorm.", "backbone.norm."),
    // ViT's since transformers 5.
    ("layers.#.attention.o_proj.", "backbone.blocks.#.attn.proj."),
    ("layers.#.attention.", "backbone.blocks.#.attn."),
    ("layers.#.layernorm_before.", "backbone.blocks.#.norm1."),
    ("layers.#.layernorm_after.", "backbone.blocks.#.norm2."),
    ("layers.#.", "backbone.blocks.#."),
    ("", "backbone."),
];

/// Whether the names are those of transformers.
pub(super) fn known(names: &[&str]) -> bool {
    names.iter().any(|name| name.starts_with("embeddings.patch_embeddings.projection."))
        || names.iter().any(|name| name.starts_with("encoder.layer."))
}

#[cfg(test)]
mod tests {
    use crate::weights::{HostTensor, KeyFormat, StateDict, remap_keys};

    fn state(names: &[&str]) -> StateDict {
        let tensors = names.iter().enumerate();
        let tensors =
            tensors.map(|(i, name)| ((*name).to_owned(), HostTensor { shape: vec![1], data: vec![i as f32] }));
        StateDict { tensors: tensors.collect(), ..StateDict::default() }
    }

    const ATTENTION: [&str; 6] = [
        "encoder.layer.3.attention.attention.query.weight",
        "encoder.layer.3.attention.attention.key.weight",
        "encoder.layer.3.attention.attention.value.weight",
        "encoder.layer.3.attention.output.dense.weight",
        "embeddings.cls_token",
        "embeddings.patch_embeddings.projection.weight",
    ];

    #[test]
    fn dinov2_gets_our_keys() {
        let more = [
            "embeddings.mask_token",
            "embeddings.register_tokens",
            "embeddings.position_embeddings",
            "encoder.layer.3.layer_scale1.lambda1",
            "encoder.layer.3.norm2.weight",
            "encoder.layer.3.mlp.fc1.bias",
            "layernorm.bias",
        ];
        for prefix in ["", "dinov2.", "dinov2_with_registers.", "module.dinov2.", "model."] {
            let mut names: Vec<String> = ATTENTION.iter().chain(&more).map(|name| format!("{prefix}{name}")).collect();
            if prefix.contains("dinov2") {
                names.push("classifier.weight".into());
            }
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let state = state(&names);
            let renamed = remap_keys(&state).unwrap();
            assert_eq!(renamed.key_format, KeyFormat::HuggingFace);
            let ours: Vec<&str> = renamed.tensors.keys().map(String::as_str).collect();
            assert_eq!(
                ours,
                [
                    "backbone.blocks.3.attn.proj.weight",
                    "backbone.blocks.3.attn.qkv.weight",
                    "backbone.blocks.3.ls1.gamma",
                    "backbone.blocks.3.mlp.fc1.bias",
                    "backbone.blocks.3.norm2.weight",
                    "backbone.cls_token",
                    "backbone.mask_token",
                    "backbone.norm.bias",
                    "backbone.patch_embed.proj.weight",
                    "backbone.pos_embed",
                    "backbone.register_tokens",
                ],
                "{prefix}"
            );
            // Queries, keys, values, in this order.
            assert_eq!(renamed.tensors["backbone.blocks.3.attn.qkv.weight"].data, [0.0, 1.0, 2.0]);
        }
    }

    #[test]
    fn vit_gets_our_keys() {
        let more = [
            "encoder.layer.3.layernorm_before.weight",
            "encoder.layer.3.layernorm_after.weight",
            "encoder.layer.3.intermediate.dense.bias",
            "encoder.layer.3.output.dense.bias",
            "pooler.dense.bias",
        ];
        for prefix in ["", "vit.", "model.vit."] {
            let names: Vec<String> = ATTENTION.iter().chain(&more).map(|name| format!("{prefix}{name}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let state = state(&names);
            let renamed = remap_keys(&state).unwrap();
            for ours in
                ["norm1.weight", "norm2.weight", "mlp.fc1.bias", "mlp.fc2.bias", "attn.proj.weight", "attn.qkv.weight"]
            {
                assert!(renamed.tensors.contains_key(&format!("backbone.blocks.3.{ours}")), "{prefix} {ours}");
            }
            assert!(renamed.tensors.contains_key("backbone.pooler.dense.bias"));
        }
    }

    #[test]
    fn vit_of_transformers_5_gets_our_keys() {
        let names = [
            "vit.embeddings.patch_embeddings.projection.weight",
            "vit.embeddings.position_embeddings",
            "vit.layers.3.attention.k_proj.weight",
            "vit.layers.3.attention.o_proj.weight",
            "vit.layers.3.attention.q_proj.weight",
            "vit.layers.3.attention.v_proj.weight",
            "vit.layers.3.layernorm_after.weight",
            "vit.layers.3.layernorm_before.weight",
            "vit.layers.3.mlp.fc1.weight",
            "vit.layernorm.weight",
            "classifier.weight",
        ];
        let state = state(&names);
        let renamed = remap_keys(&state).unwrap();
        assert_eq!(renamed.key_format, KeyFormat::HuggingFace);
        for ours in ["norm1.weight", "norm2.weight", "mlp.fc1.weight", "attn.proj.weight"] {
            assert!(renamed.tensors.contains_key(&format!("backbone.blocks.3.{ours}")), "{ours}");
        }
        // Queries, keys, values, in this order.
        assert_eq!(renamed.tensors["backbone.blocks.3.attn.qkv.weight"].data, [4.0, 2.0, 5.0]);
        assert!(renamed.tensors.contains_key("backbone.norm.weight"));
    }

    #[test]
    fn a_part_that_is_missing_is_named() {
        let error = remap_keys(&state(&ATTENTION[1..])).unwrap_err();
        assert!(error.to_string().contains("only some of queries, keys and values"), "{error}");
    }
}
