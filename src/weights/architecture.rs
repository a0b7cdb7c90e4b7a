//! Networks that are none of ours, recognised by the names of their tensors. Whoever brings their weights learns
//! what they are before anything is planned, timed or built.

use std::collections::BTreeSet;

/// What the weights with these names are of, where that is known to be another network than those of this crate. Names are
/// without what wraps them, such as `module.`.
pub(super) fn foreign(names: &[&str]) -> Option<&'static str> {
    // Heads of OpenMMLab's files: what a backbone is is not recognised by them, and K-Net's has norms like TNT's.
    let of_backbone: Vec<&str> =
        names.iter().copied().filter(|name| !HEADS.iter().any(|head| name.starts_with(head))).collect();
    let names = Names(&of_backbone);
    RULES.iter().find(|(_, is)| is(&names)).map(|(what, _)| *what)
}

/// How names of heads begin.
const HEADS: [&str; 2] = ["decode_head.", "auxiliary_head."];

/// The names of a file's tensors.
struct Names<'a>(&'a [&'a str]);

impl Names<'_> {
    fn any(&self, parts: &[&str]) -> bool {
        parts.iter().any(|part| self.0.iter().any(|name| name.contains(part)))
    }

    fn starts(&self, starts: &[&str]) -> bool {
        starts.iter().any(|start| self.0.iter().any(|name| name.starts_with(start)))
    }

    /// Whether some name has this part between dots.
    fn part(&self, part: &str) -> bool {
        self.0.iter().any(|name| name.split('.').any(|piece| piece == part))
    }

    /// Different numbers that follow `start`.
    fn numbers(&self, start: &str) -> usize {
        let numbers = self.0.iter().filter_map(|name| name.strip_prefix(start)?.split('.').next()?.parse::<u32>().ok());
        numbers.collect::<BTreeSet<_>>().len()
    }

    /// Whether a transformer block has this part directly.
    fn block_has(&self, part: &str) -> bool {
        self.0.iter().any(|name| {
            let rest = name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'));
            rest.is_some_and(|(_, rest)| rest.split('.').next() == Some(part))
        })
    }

    /// Whether there are transformer blocks as the plain ViT has them, and a projection of patches.
    fn vit(&self) -> bool {
        self.any(&["patch_embed.proj", "patch_embeddings.projection"])
    }
}

/// Names of tables of words.
const TEXT: [&str; 4] = ["word_embeddings.", "embed_tokens.", "token_embedding.", "transformer.wte."];

type Rule = (&'static str, fn(&Names<'_>) -> bool);

/// The first that holds is reported; what has a mark of its own comes before what is recognised by its outline.
const RULES: &[Rule] = &[
    ("a network of segmentation_models.pytorch whose encoder is not a ResNet", |n| {
        n.starts(&["segmentation_head."]) && n.starts(&["encoder."])
    }),
    ("a model of images and text whose image network is none of these (BLIP, LLaVA or a similar one)", |n| {
        n.any(&TEXT)
            && n.any(&["vision_tower.", "visual_encoder.", "vision_encoder.", "vision_backbone.", "image_encoder."])
    }),
    ("CLIP or SigLIP's picture tower (normalised before its blocks, or pooled by attention)", |n| {
        n.starts(&[
            "visual.class_embedding",
            "visual.ln_pre.",
            "visual.transformer.resblocks.",
            "vision_model.",
            "post_layernorm.",
            "pre_layrnorm.",
        ]) || n.part("norm_pre")
            || n.part("attn_pool")
            || n.part("resblocks")
    }),
    ("an adapter (LoRA or a similar one), which holds changes of other weights and no network", |n| {
        n.any(&[".lora_A.", ".lora_B.", ".lora_down.", ".lora_up.", ".hada_w1", ".lokr_w1", "lora_a.", "lora_b."])
    }),
    ("a text model", |n| n.any(&TEXT) && !n.vit()),
    ("OneFormer", |n| n.starts(&["task_encoder.", "text_mapper.", "model.task_encoder."])),
    ("CLIPSeg (CLIP with a decoder)", |n| n.starts(&["clip.vision_model.", "clip.text_model."])),
    ("DETR or a similar network (boxes, by attention over a convolutional network)", |n| {
        n.any(&["query_position_embeddings.", "query_embed.weight"]) && n.any(&["encoder.layers.0.self_attn."])
    }),
    ("a Mask R-CNN or another detector of boxes", |n| n.starts(&["rpn.", "roi_heads."])),
    ("YOLOS (a ViT with tokens of boxes)", |n| n.part("detection_tokens")),
    ("V-JEPA (video patches)", |n| n.starts(&["predictor.embeddings.", "predictor.predictor_embed."])),
    ("torchvision's ViT, whose names are not read (timm's of the same network are)", |n| {
        n.starts(&["conv_proj."]) && n.any(&["encoder_layer_0."])
    }),
    ("CrossViT (patches of two sizes)", |n| n.any(&["blocks.0.blocks.0.0."])),
    ("NesT (blocks of blocks)", |n| n.any(&["levels.0.transformer_encoder."])),
    ("PiT (a ViT that is pooled on the way)", |n| n.any(&["transformers.0.blocks."])),
    ("TNT (transformers within patches)", |n| n.any(&["pixel_embed.", ".norm_in."])),
    ("FocalNet (modulation instead of attention)", |n| n.any(&[".modulation."])),
    ("MViT (pooled attention over several resolutions)", |n| {
        n.any(&["attn.pool_q.", "attn.pool_k."]) || n.starts(&["mvit."])
    }),
    ("MaxViT (attention in blocks and over grids)", |n| n.any(&["attn_block.", "attn_grid."])),
    ("SAM's image encoder (its attention has relative positions and windows)", |n| {
        n.any(&["rel_pos_h", "rel_pos_w"]) || n.starts(&["mask_decoder.", "prompt_encoder.", "image_encoder.trunk."])
    }),
    ("a Swin transformer (windows of attention over several resolutions)", |n| {
        n.any(&["relative_position_bias_table", "cpb_mlp.", "continuous_position_bias_mlp."])
            && (n.any(&["downsample.", ".patch_merging", "cpb_mlp.", "continuous_position_bias_mlp."])
                || n.numbers("layers.") > 0 && n.any(&[".blocks."]))
    }),
    ("BEiT (its attention has relative positions)", |n| {
        n.any(&["relative_position_bias_table", "relative_position_bias.", "rel_pos_bias."])
            || n.part("lambda_1") && n.vit()
    }),
    ("a ViT with relative positions", |n| n.vit() && n.part("rel_pos")),
    ("a relative of DINOv3 under other names than its authors', Hugging Face's or timm's", |n| {
        n.part("rope_embed")
            || n.part("storage_tokens")
            || n.any(&["qkv.bias_mask"])
            || n.vitless_layers() && n.any(&["register_tokens"])
    }),
    ("EVA (its positions are rotations, or its queries and values have biases of their own)", |n| {
        n.part("rope") || n.part("q_bias") || n.any(&["mlp.fc1_g.", "attn.inner_attn_ln", "attn.rope"])
    }),
    ("a ViT whose MLPs are SwiGLU under other names than DINOv2's", |n| {
        n.any(&["mlp.w1.", "mlp.swiglu"]) || n.any(&["mlp.gate_proj."]) && !n.any(&["encoder.layer."])
    }),
    ("a relative of DINOv3 (it has register tokens and no table of positions)", |n| {
        n.vit() && n.any(&["reg_token", "register_tokens"]) && !n.any(&["pos_embed", "position_embedding"])
    }),
    ("XCiT (attention between channels)", |n| n.any(&["local_mp.", "cls_attn_blocks."])),
    ("VOLO (attention from the neighbourhood)", |n| n.starts(&["network.0.", "post_network."])),
    ("NaFlexViT (a table of positions for pictures of any shape)", |n| n.starts(&["embeds.proj.", "embeds.pos_embed"])),
    ("Hiera (its blocks grow wider)", |n| n.vit() && n.block_has("proj")),
    ("a ViT whose queries and keys are normalised", |n| n.vit() && n.any(&["attn.q_norm.", "attn.k_norm."])),
    ("DeiT with a distillation token", |n| n.part("dist_token") || n.part("distillation_token")),
    ("CaiT (class attention in blocks of its own)", |n| n.any(&["blocks_token_only."])),
    ("a ViT over a convolutional network", |n| n.any(&["patch_embed.backbone.", "patch_embeddings.backbone."])),
    ("Twins (four stages, local and global attention)", |n| n.starts(&["pos_block."])),
    ("PVT (four stages)", |n| {
        n.starts(&["pos_embed1", "patch_embeds.0."]) || n.numbers("stages.") > 1 && n.any(&["attn.sr."])
    }),
    ("SegFormer's MiT (four stages, attention over reduced maps)", |n| {
        n.starts(&["patch_embed1.", "block1.0."])
            || n.any(&["segformer.", ".patch_embeddings.0.proj.", "attn.sr.", "attention.self.sr."])
    }),
    ("EdgeNeXt (convolutions, and attention between channels)", |n| n.part("xca")),
    ("ConvNeXt V2 (its MLPs have a response normalisation)", |n| n.part("grn") && n.any(&["stages."])),
    ("ConvNeXt under other names than timm's", |n| {
        n.starts(&["downsample_layers.", "stages.0.0.dwconv."])
            || n.any(&["convnext."])
            || n.any(&["stages."]) && n.any(&[".dwconv.weight", ".depthwise_conv.weight"])
            || n.starts(&["features.0.0."]) && n.any(&[".layer_scale"])
    }),
    ("ConvNeXt with a stem of overlapping patches", |n| n.convnext() && n.starts(&["stem.2.", "stem.3."])),
    ("HRNet, a convolutional network", |n| n.any(&["stage2.0.branches.", "stage2.0.fuse_layers.", "incre_modules."])),
    ("a DenseNet, a convolutional network", |n| n.any(&["denseblock1."])),
    ("a RegNet, a convolutional network", |n| n.any(&["s1.b1.conv1."])),
    ("a ResNet with a stem of three convolutions (ResNet-C, ResNet-D)", |n| {
        n.starts(&["conv1.0.", "stem.0."]) && n.starts(&["layer1.0."])
    }),
    ("a ResNet that weighs its channels (SE, ECA or a similar one)", |n| {
        n.starts(&["layer1.0."]) && (n.part("se") || n.part("attn") || n.part("se_module"))
    }),
    ("a ResNet under other names than timm's or torchvision's", |n| {
        n.starts(&["resnet.embedder.", "embedder.embedder.convolution."])
    }),
    ("a ResNet V2 (normalised before its convolutions)", |n| {
        n.starts(&["stem.conv1."]) || n.starts(&["stem.conv."]) && n.starts(&["stages.0.blocks.0.conv1."])
    }),
    ("an EfficientNet or MobileNet, a convolutional network", |n| {
        n.any(&["blocks.0.0.conv_dw.", "conv_stem.", "_depthwise_conv.", "features.1.conv.0."]) && !n.convnext()
    }),
    ("a VGG, a convolutional network", |n| n.starts(&["features.0."])),
    ("MLP-Mixer", |n| n.any(&["mlp_tokens.", "MixerBlock_"])),
    ("a hierarchical transformer (its blocks come in stages)", |n| n.numbers("stages.") > 1 && !n.convnext()),
    ("a ViT whose queries, keys and values have no bias", |n| {
        n.vit() && n.any(&["attn.qkv.weight"]) && n.any(&["attn.proj.bias"]) && !n.any(&["attn.qkv.bias"])
    }),
    ("DPT (depth prediction over a ViT)", |n| n.starts(&["dpt.", "neck.reassemble_stage."])),
    ("a ViT without a table of positions (they are rotations, or none)", |n| {
        n.vit() && n.any(&["attn.qkv."]) && !n.any(&["pos_embed", "position_embedding"])
    }),
    ("a hierarchical network (its blocks come in stages)", |n| {
        n.any(&["encoder.stages.0.", "encoder.block.0.0.", "encoder.layers.0.blocks.0.", "encoder.network.0."])
    }),
    ("an EfficientNet, a convolutional network", |n| {
        n.any(&["encoder.blocks.0.squeeze_excite.", "encoder.blocks.0.depthwise_conv."])
    }),
    ("a U-Net, a convolutional network", |n| {
        n.any(&["downs.0.", "down1.", "inc.double_conv.", "encoder1."]) && !n.vit()
    }),
    // Statistics of batches are what convolutional networks keep.
    ("a convolutional network of another kind", |n| {
        n.any(&[".running_mean"])
            && !n.vit()
            && !n.convnext()
            && !n.starts(&["layer1.0.", "backbone.", "decoder.", "decode_head."])
    }),
];

impl Names<'_> {
    /// timm's ConvNeXt.
    fn convnext(&self) -> bool {
        self.0.contains(&"stages.0.blocks.0.conv_dw.weight")
    }

    /// Hugging Face's DINOv3: `layer.0.attention.q_proj`, without a table of positions.
    fn vitless_layers(&self) -> bool {
        self.any(&["layer.0.attention.q_proj", "layer.0.attention.k_proj"]) && !self.any(&["position_embeddings"])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some names as those who publish such weights have them; `what` is the beginning of what they are recognised as.
    #[test]
    fn other_networks_are_named() {
        let cases: &[(&str, &[&str])] = &[
            (
                "a relative of DINOv3",
                &["cls_token", "storage_tokens", "rope_embed.periods", "blocks.0.attn.qkv.weight"],
            ),
            (
                "a relative of DINOv3",
                &[
                    "embeddings.register_tokens",
                    "embeddings.patch_embeddings.weight",
                    "layer.0.attention.q_proj.weight",
                ],
            ),
            (
                "a relative of DINOv3",
                &["cls_token", "reg_token", "patch_embed.proj.weight", "blocks.0.gamma_1", "blocks.0.attn.qkv.weight"],
            ),
            ("EVA", &["pos_embed", "patch_embed.proj.weight", "rope.freqs", "blocks.0.attn.q_bias"]),
            ("EVA", &["pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1_g.weight"]),
            ("a ViT whose MLPs are SwiGLU", &["pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.w1.weight"]),
            ("a ViT whose MLPs are SwiGLU", &["embeddings.position_embeddings", "layers.0.mlp.gate_proj.weight"]),
            ("a Swin", &["patch_embed.proj.weight", "layers.0.blocks.0.attn.relative_position_bias_table"]),
            (
                "a Swin",
                &[
                    "swin.encoder.layers.0.blocks.0.attention.self.relative_position_bias_table",
                    "swin.encoder.layers.0.downsample.norm.weight",
                ],
            ),
            ("a Swin", &["layers.0.blocks.0.attn.cpb_mlp.0.weight"]),
            ("BEiT", &["patch_embed.proj.weight", "blocks.0.gamma_1", "blocks.0.attn.relative_position_bias_table"]),
            (
                "BEiT",
                &[
                    "beit.encoder.layer.0.lambda_1",
                    "beit.encoder.layer.0.attention.attention.relative_position_bias.relative_position_bias_table",
                ],
            ),
            ("SAM", &["image_encoder.blocks.0.attn.rel_pos_h", "image_encoder.patch_embed.proj.weight"]),
            ("SAM", &["vision_encoder.layers.0.attn.rel_pos_w", "mask_decoder.iou_token.weight"]),
            ("CLIP", &["visual.transformer.resblocks.0.attn.in_proj_weight", "visual.conv1.weight"]),
            (
                "CLIP",
                &[
                    "vision_model.embeddings.patch_embedding.weight",
                    "vision_model.encoder.layers.0.self_attn.q_proj.weight",
                ],
            ),
            ("CLIP", &["patch_embed.proj.weight", "norm_pre.weight", "blocks.0.attn.qkv.weight"]),
            ("SegFormer", &["patch_embed1.proj.weight", "block1.0.attn.q.weight"]),
            ("SegFormer", &["segformer.encoder.patch_embeddings.0.proj.weight"]),
            ("SegFormer", &["layers.0.1.0.attn.sr.weight"]),
            ("ConvNeXt", &["downsample_layers.0.0.weight", "stages.0.0.dwconv.weight"]),
            ("ConvNeXt V2", &["stem.0.weight", "stages.0.blocks.0.conv_dw.weight", "stages.0.blocks.0.mlp.grn.weight"]),
            ("ConvNeXt with a stem", &["stem.0.weight", "stem.2.weight", "stages.0.blocks.0.conv_dw.weight"]),
            ("a ResNet with a stem", &["conv1.0.weight", "bn1.weight", "layer1.0.conv1.weight"]),
            ("a ResNet that weighs", &["conv1.weight", "layer1.0.conv1.weight", "layer1.0.se.fc1.weight"]),
            ("a ResNet V2", &["stem.conv.weight", "stages.0.blocks.0.conv1.weight", "stages.1.blocks.0.norm1.weight"]),
            ("a ResNet", &["resnet.embedder.embedder.convolution.weight"]),
            ("an EfficientNet", &["conv_stem.weight", "blocks.0.0.conv_dw.weight"]),
            ("DeiT with", &["cls_token", "dist_token", "pos_embed", "patch_embed.proj.weight"]),
            ("a VGG", &["features.0.weight", "classifier.0.weight"]),
            (
                "a text model",
                &["bert.embeddings.word_embeddings.weight", "bert.encoder.layer.0.attention.self.query.weight"],
            ),
            ("a hierarchical", &["stages.0.blocks.0.norm1.weight", "stages.1.blocks.0.norm1.weight"]),
            // As timm 1.0.31 and transformers 5.24 have them.
            (
                "MViT",
                &[
                    "patch_embed.proj.weight",
                    "stages.0.blocks.0.attn.pool_q.weight",
                    "stages.0.blocks.0.attn.rel_pos_h",
                ],
            ),
            (
                "MaxViT",
                &[
                    "stages.0.blocks.0.attn_block.attn.rel_pos.relative_position_bias_table",
                    "stages.0.blocks.0.attn_grid.norm1.weight",
                ],
            ),
            (
                "a ViT with relative",
                &["patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.attn.rel_pos.mlp.fc1.weight"],
            ),
            ("BEiT", &["embeddings.patch_embeddings.projection.weight", "encoder.layer.0.lambda_1"]),
            (
                "CLIP",
                &[
                    "embeddings.class_embedding",
                    "embeddings.patch_embedding.weight",
                    "pre_layrnorm.weight",
                    "post_layernorm.weight",
                ],
            ),
            ("CLIP", &["embeddings.patch_embedding.weight", "post_layernorm.weight", "head.probe"]),
            ("XCiT", &["cls_token", "blocks.0.local_mp.conv1.weight", "patch_embed.proj.0.0.weight"]),
            ("VOLO", &["pos_embed", "network.0.0.attn.v.weight", "patch_embed.proj.weight"]),
            ("NaFlexViT", &["blocks.0.attn.qkv.weight", "embeds.pos_embed", "embeds.proj.weight"]),
            ("Hiera", &["pos_embed", "patch_embed.proj.weight", "blocks.0.attn.proj.weight", "blocks.1.proj.weight"]),
            ("Twins", &["blocks.0.1.attn.sr.weight", "patch_embeds.0.proj.weight", "pos_block.0.proj.0.weight"]),
            (
                "PVT",
                &["patch_embed.proj.weight", "stages.0.blocks.0.attn.sr.weight", "stages.1.downsample.proj.weight"],
            ),
            ("EdgeNeXt", &["stages.0.blocks.0.conv_dw.weight", "stages.1.blocks.1.xca.qkv.weight"]),
            ("ConvNeXt", &["layer_norm.weight", "model.stages.0.layers.0.depthwise_conv.weight"]),
            ("HRNet", &["conv1.weight", "layer1.0.conv1.weight", "stage2.0.branches.0.0.conv1.weight"]),
            ("a DenseNet", &["features.conv0.weight", "features.denseblock1.denselayer1.conv1.weight"]),
            ("a RegNet", &["stem.conv.weight", "s1.b1.conv1.conv.weight"]),
            (
                "a ResNet",
                &["embedder.embedder.convolution.weight", "encoder.stages.0.layers.0.shortcut.convolution.weight"],
            ),
            // As segmentation_models.pytorch 0.6, torchvision 0.29 and others have them.
            (
                "a network of segmentation_models",
                &["encoder._conv_stem.weight", "decoder.blocks.0.conv1.0.weight", "segmentation_head.0.weight"],
            ),
            ("a network of segmentation_models", &["encoder.block1.0.attn.q.weight", "segmentation_head.0.weight"]),
            (
                "a Mask R-CNN",
                &["backbone.body.conv1.weight", "rpn.head.conv.0.0.weight", "roi_heads.box_head.fc6.weight"],
            ),
            ("torchvision's ViT", &["class_token", "conv_proj.weight", "encoder.layers.encoder_layer_0.ln_1.weight"]),
            (
                "a convolutional network of another",
                &["stem.0.weight", "stem.1.running_mean", "trunk_output.block1.block1-0.proj.0.weight"],
            ),
            (
                "a convolutional network of another",
                &["conv1.0.weight", "conv1.1.running_mean", "stage2.0.branch1.0.weight"],
            ),
            (
                "CLIPSeg",
                &["clip.logit_scale", "clip.vision_model.embeddings.class_embedding", "decoder.film_add.weight"],
            ),
            (
                "DETR",
                &[
                    "backbone.model.embedder.embedder.convolution.weight",
                    "encoder.layers.0.self_attn.q_proj.weight",
                    "query_position_embeddings.weight",
                ],
            ),
            (
                "OneFormer",
                &["pixel_level_module.decoder.adapter_1.0.weight", "task_encoder.task_mlp.layers.0.0.weight"],
            ),
            ("YOLOS", &["embeddings.detection_tokens", "embeddings.patch_embeddings.projection.weight"]),
            ("V-JEPA", &["encoder.embeddings.patch_embeddings.proj.weight", "predictor.embeddings.mask_tokens"]),
            (
                "CLIP or SigLIP's picture tower",
                &[
                    "visual.class_embedding",
                    "visual.conv1.weight",
                    "visual.proj",
                    "token_embedding.weight",
                    "logit_scale",
                ],
            ),
            (
                "CLIP or SigLIP's picture tower",
                &["vision_model.embeddings.patch_embedding.weight", "text_model.embeddings.token_embedding.weight"],
            ),
            (
                "CLIP or SigLIP's picture tower",
                &[
                    "visual.trunk.attn_pool.q.weight",
                    "text.token_embedding.weight",
                    "visual.trunk.patch_embed.proj.weight",
                ],
            ),
            (
                "a model of images and text",
                &["model.vision_tower.patch_embed.proj.weight", "language_model.embed_tokens.weight"],
            ),
            (
                "an adapter",
                &[
                    "base_model.model.blocks.0.attn.qkv.lora_A.weight",
                    "base_model.model.blocks.0.attn.qkv.lora_B.weight",
                ],
            ),
            ("a text model", &["transformer.wte.weight", "transformer.h.0.attn.c_attn.weight"]),
            ("CrossViT", &["patch_embed.0.proj.weight", "pos_embed_0", "blocks.0.blocks.0.0.attn.qkv.weight"]),
            ("NesT", &["patch_embed.proj.weight", "levels.0.transformer_encoder.0.attn.qkv.weight"]),
            ("PiT", &["patch_embed.conv.weight", "pos_embed", "transformers.0.blocks.0.attn.qkv.weight"]),
            ("TNT", &["patch_pos", "pixel_embed.proj.weight", "blocks.0.norm_in.weight"]),
            ("FocalNet", &["layers.0.blocks.0.modulation.f.weight", "stem.proj.weight"]),
            (
                "a hierarchical network",
                &["embeddings.patch_embeddings.projection.weight", "encoder.stages.0.layers.0.attn.proj.bias"],
            ),
            ("a hierarchical network", &["encoder.block.0.0.after_norm.bias"]),
            ("an EfficientNet", &["embeddings.batchnorm.bias", "encoder.blocks.0.squeeze_excite.reduce.weight"]),
            ("DPT", &["dpt.embeddings.cls_token", "neck.reassemble_stage.layers.0.projection.weight"]),
            (
                "a ViT without a table",
                &["cls_token", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.gamma_1"],
            ),
        ];
        for (what, names) in cases {
            assert!(foreign(names).is_some_and(|found| found.starts_with(what)), "{names:?}: {:?}", foreign(names));
        }
    }

    #[test]
    fn networks_that_can_be_built_are_not_taken_for_others() {
        let plain: [&[&str]; 14] = [
            &["pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.w12.weight"],
            &["embeddings.position_embeddings", "encoder.layer.0.mlp.weights_in.weight"],
            &["conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer2.0.downsample.0.weight", "fc.weight"],
            &["layer1.0.conv1.weight", "conv1.weight", "decode_head.conv_seg.weight"],
            &[
                "stem.0.weight",
                "stem.1.weight",
                "stages.0.blocks.0.conv_dw.weight",
                "stages.1.blocks.0.conv_dw.weight",
                "stages.1.downsample.0.weight",
                "head.fc.weight",
            ],
            &[
                "cls_token",
                "pos_embed",
                "patch_embed.proj.weight",
                "blocks.0.attn.qkv.weight",
                "norm.weight",
                "head.weight",
            ],
            &[
                "cls_token",
                "register_tokens",
                "mask_token",
                "pos_embed",
                "patch_embed.proj.weight",
                "blocks.0.ls1.gamma",
            ],
            &[
                "cls_token",
                "reg_token",
                "pos_embed",
                "patch_embed.proj.weight",
                "blocks.0.mlp.fc1.weight",
                "fc_norm.weight",
            ],
            &[
                "embeddings.cls_token",
                "embeddings.position_embeddings",
                "encoder.layer.0.attention.attention.query.weight",
            ],
            &[
                "embeddings.register_tokens",
                "embeddings.position_embeddings",
                "embeddings.patch_embeddings.projection.weight",
            ],
            &[
                "backbone.layers.0.ln1.weight",
                "backbone.patch_embed.projection.weight",
                "decode_head.layers.0.ffn1.dwconv.weight",
            ],
            // K-Net's.
            &[
                "layers.0.ln1.weight",
                "patch_embed.projection.weight",
                "decode_head.kernel_update_head.0.norm_in.weight",
            ],
            &[
                "cls_token",
                "pos_embed",
                "patch_embed.proj.weight",
                "decoder_blocks.0.norm1.weight",
                "decoder_pos_embed",
                "mask_token",
            ],
            &["Transformer/encoderblock_0/LayerNorm_0/scale", "embedding/kernel", "cls"],
        ];
        for names in plain {
            assert_eq!(foreign(names), None, "{names:?}");
        }
    }
}
