//! The settings of a network whose kind is decided: the backbone, from weights or from scratch, and the decoder over
//! it.

use crate::plan::PlanOptions;
use crate::plan::choose::architecture::{ArchitectureChoice, UNET};
use crate::plan::choose::{PlanDraft, SHORT};
use crate::plan::facts::{Facts, FileArchitecture, Pretrained, Vit};
use crate::weights::Convolutional;

impl PlanDraft {
    pub(super) fn model(&mut self, facts: &Facts, options: &PlanOptions) {
        let kind = match self.network {
            ArchitectureChoice::Unet { .. } => {
                ("\"unet\"", "convolutions learn from few images; a transformer needs pretrained weights")
            }
            ArchitectureChoice::PretrainedUnet => ("\"unet\"", "a decoder joins the encoder's maps up to the finest"),
            ArchitectureChoice::Pretrained if facts.pretrained.as_ref().is_some_and(Pretrained::is_rotated) => {
                ("\"dinov3\"", "the weights have rotary positions")
            }
            ArchitectureChoice::Pretrained => ("\"vit\"", "the weights are those of a vision transformer"),
            ArchitectureChoice::Vit => ("\"vit\"", "a transformer, as you chose"),
        };
        self.push("model.backbone", "type", kind.0, kind.1);
        match (&facts.pretrained, self.network) {
            (Some(pretrained), _) => {
                let name = pretrained.path.file_name().unwrap_or_default().to_string_lossy();
                match &pretrained.network {
                    FileArchitecture::Vit(vit) => self.vit(vit, &name),
                    FileArchitecture::Convolutional(encoder) => self.encoder(encoder, &name),
                }
                let path = toml::Value::from(pretrained.path.to_string_lossy().as_ref());
                self.push("train", "pretrained", path, "the weights that training starts from");
            }
            (None, ArchitectureChoice::Unet { stem_stride, stages }) => {
                let stride = if stem_stride == 1 {
                    "small images are seen pixel by pixel"
                } else {
                    "the finest map has half of the rows and columns"
                };
                self.push(
                    "model.backbone",
                    "channels",
                    format!("{:?}", &UNET[..stages]),
                    "of the maps, the finest first",
                );
                self.push(
                    "model.backbone",
                    "depths",
                    format!("{:?}", vec![1; stages]),
                    "small: in a short run more iterations help more than more weights",
                );
                self.push("model.backbone", "stem_stride", stem_stride, stride);
            }
            (None, _) => {
                let long = options.budget.as_secs() >= 3 * 3600;
                let (depth, reason, blocks) = match long {
                    true => (12, "ViT-Tiny: from scratch a larger one learns too slowly", "all blocks of ViT-Tiny"),
                    false => (6, "ViT-Tiny: nothing is pretrained, and time is short", "half of ViT-Tiny's blocks"),
                };
                if options.name("model.backbone.type").as_deref() == Some("dinov3") {
                    // It has no such size.
                    self.push("model.backbone", "embed_dim", 192, reason);
                    self.push("model.backbone", "num_heads", 3, "64 channels per head, as in all published ViTs");
                } else {
                    self.push("model.backbone", "size", "\"tiny\"", reason);
                }
                self.push("model.backbone", "depth", depth, blocks);
                self.push("model.backbone", "patch_size", self.patch, "for images of this size");
                self.push("model.backbone", "drop_path_rate", "0.0", "a short run has nothing to regularise");
            }
        }
        self.decoder(options);
    }

    fn decoder(&mut self, options: &PlanOptions) {
        match options.name("model.decoder.type").as_deref() {
            Some("structtoken") => self.structure("as you chose"),
            // The settings of another are left as they are published.
            Some(_) => {}
            None if self.network == ArchitectureChoice::Pretrained && !options.sets("model.decoder") => {
                self.linear = true;
                let why = "a linear classifier: ahead in runs this short, over pretrained features (docs/results.md)";
                self.push("model.decoder", "type", "\"fcn\"", why);
                self.push("model.decoder", "num_convs", 0, "the features are classified as they are");
            }
            None if self.network == ArchitectureChoice::Pretrained => {
                self.structure("the default type, of which other keys are set");
            }
            None if matches!(self.network, ArchitectureChoice::Unet { .. } | ArchitectureChoice::PretrainedUnet)
                && !options.sets("model.decoder") =>
            {
                self.push("model.decoder", "type", "\"fcn\"", "the U-Net's last map is classified pixel by pixel");
                self.push("model.decoder", "num_convs", 0, "the map is classified as it is");
            }
            None => self.structure("from scratch a linear classifier learns no shapes (docs/results.md)"),
        }
    }

    fn structure(&mut self, reason: &str) {
        self.lines.retain(|line| line.table != "model.decoder");
        self.push("model.decoder", "type", "\"structtoken\"", reason);
        self.push("model.decoder", "block", "\"pwe\"", "the fastest of the three, and the best in short runs");
        self.push("model.decoder", "num_blocks", 2, "as in the recipes that a CPU trains");
    }

    /// Takes StructToken instead of the linear classifier if there is time for this number of `steps`; gives whether it
    /// does.
    pub(in crate::plan) fn lengthen(&mut self, steps: f64) -> bool {
        let long = self.linear && steps > SHORT;
        if long {
            self.linear = false;
            self.structure("for a run this long; in short ones a linear classifier leads (docs/results.md)");
        }
        long
    }

    /// A U-Net with this network for its way down.
    fn encoder(&mut self, encoder: &Convolutional, name: &str) {
        let up: Vec<usize> = (0..encoder.skips()).map(|i| 32 << i).collect();
        self.push("model.backbone", "channels", format!("{up:?}"), "of the maps on the way up, the finest first");
        for (i, (key, value)) in encoder.recipe().into_iter().enumerate() {
            let reason = if i == 0 { format!("{encoder}, as in {name}") } else { format!("as in {name}") };
            self.push("model.backbone.encoder", key, value, reason);
        }
    }

    fn vit(&mut self, vit: &Vit, name: &str) {
        let Vit { embed_dim, depth, patch_size, layer_scale, reg_tokens, .. } = vit;
        self.push("model.backbone", "embed_dim", embed_dim, format!("as in {name}"));
        self.push("model.backbone", "depth", depth, format!("as in {name}"));
        // DINOv3's 7B alone has wider heads.
        let head = if vit.rotated && *embed_dim >= 4096 { 128 } else { 64 };
        let why = format!("{head} channels per head, as in all published ViTs");
        self.push("model.backbone", "num_heads", (embed_dim / head).max(1), why);
        self.push("model.backbone", "patch_size", patch_size, format!("as in {name}"));
        if vit.rotated {
            if *reg_tokens != 4 {
                self.push("model.backbone", "reg_tokens", reg_tokens, "as in the file");
            }
            if !vit.qkv_bias {
                self.push("model.backbone", "qkv_bias", "false", "the file's queries and values have no bias");
            }
        } else {
            if *layer_scale {
                self.push("model.backbone", "init_values", "1.0", "the file has LayerScale, as DINOv2 does");
                self.push("model.backbone", "final_norm", "true", "DINOv2's features are meant to be normalised");
            }
            if *reg_tokens > 0 {
                self.push("model.backbone", "reg_tokens", reg_tokens, "the file has registers");
            }
            if !vit.class_token {
                self.push("model.backbone", "class_token", "false", "the file has none");
            }
            if vit.no_embed_class {
                self.push(
                    "model.backbone",
                    "no_embed_class",
                    "true",
                    "the file's positions are those of the patches alone",
                );
            }
        }
        if vit.gated {
            self.push("model.backbone", "mlp_layer", "\"swiglu\"", "the file's MLPs have gates");
        }
        if vit.mlp_dim != 4 * embed_dim {
            let ratio = format!("{:?}", vit.mlp_dim as f64 / *embed_dim as f64);
            self.push("model.backbone", "mlp_ratio", ratio, "as in the file's MLPs");
        }
    }
}
