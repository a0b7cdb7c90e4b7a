//! Networks that are none of ours, recognised by the names of their tensors. Whoever brings their weights learns
//! what they are before anything is planned, timed or built.

use std::collections::BTreeSet;

/// What the weights with these names are of, where that is known to be another network than those of this crate. Names
/// are without what wraps them, such as `module.`.
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
mod tests;
