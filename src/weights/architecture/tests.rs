use super::*;

/// Some names as those who publish such weights have them; `what` is the beginning of what they are recognised as.
#[test]
fn other_networks_are_named() {
    let cases: &[(&str, &[&str])] = &[
        ("a relative of DINOv3", &["cls_token", "storage_tokens", "rope_embed.periods", "blocks.0.attn.qkv.weight"]),
        (
            "a relative of DINOv3",
            &["embeddings.register_tokens", "embeddings.patch_embeddings.weight", "layer.0.attention.q_proj.weight"],
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
            &["patch_embed.proj.weight", "stages.0.blocks.0.attn.pool_q.weight", "stages.0.blocks.0.attn.rel_pos_h"],
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
        ("PVT", &["patch_embed.proj.weight", "stages.0.blocks.0.attn.sr.weight", "stages.1.downsample.proj.weight"]),
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
        ("a Mask R-CNN", &["backbone.body.conv1.weight", "rpn.head.conv.0.0.weight", "roi_heads.box_head.fc6.weight"]),
        ("torchvision's ViT", &["class_token", "conv_proj.weight", "encoder.layers.encoder_layer_0.ln_1.weight"]),
        (
            "a convolutional network of another",
            &["stem.0.weight", "stem.1.running_mean", "trunk_output.block1.block1-0.proj.0.weight"],
        ),
        (
            "a convolutional network of another",
            &["conv1.0.weight", "conv1.1.running_mean", "stage2.0.branch1.0.weight"],
        ),
        ("CLIPSeg", &["clip.logit_scale", "clip.vision_model.embeddings.class_embedding", "decoder.film_add.weight"]),
        (
            "DETR",
            &[
                "backbone.model.embedder.embedder.convolution.weight",
                "encoder.layers.0.self_attn.q_proj.weight",
                "query_position_embeddings.weight",
            ],
        ),
        ("OneFormer", &["pixel_level_module.decoder.adapter_1.0.weight", "task_encoder.task_mlp.layers.0.0.weight"]),
        ("YOLOS", &["embeddings.detection_tokens", "embeddings.patch_embeddings.projection.weight"]),
        ("V-JEPA", &["encoder.embeddings.patch_embeddings.proj.weight", "predictor.embeddings.mask_tokens"]),
        (
            "CLIP or SigLIP's picture tower",
            &["visual.class_embedding", "visual.conv1.weight", "visual.proj", "token_embedding.weight", "logit_scale"],
        ),
        (
            "CLIP or SigLIP's picture tower",
            &["vision_model.embeddings.patch_embedding.weight", "text_model.embeddings.token_embedding.weight"],
        ),
        (
            "CLIP or SigLIP's picture tower",
            &["visual.trunk.attn_pool.q.weight", "text.token_embedding.weight", "visual.trunk.patch_embed.proj.weight"],
        ),
        (
            "a model of images and text",
            &["model.vision_tower.patch_embed.proj.weight", "language_model.embed_tokens.weight"],
        ),
        (
            "an adapter",
            &["base_model.model.blocks.0.attn.qkv.lora_A.weight", "base_model.model.blocks.0.attn.qkv.lora_B.weight"],
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
        &["cls_token", "register_tokens", "mask_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.ls1.gamma"],
        &[
            "cls_token",
            "reg_token",
            "pos_embed",
            "patch_embed.proj.weight",
            "blocks.0.mlp.fc1.weight",
            "fc_norm.weight",
        ],
        &["embeddings.cls_token", "embeddings.position_embeddings", "encoder.layer.0.attention.attention.query.weight"],
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
        &["layers.0.ln1.weight", "patch_embed.projection.weight", "decode_head.kernel_update_head.0.norm_in.weight"],
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
