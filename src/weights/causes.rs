//! Why a file may not fit a model: what the shapes of both say about the two networks.

use crate::weights::position_table::POSITIONS;
use crate::weights::recognize_convolutional::Convolutional;
use crate::weights::report::{Problems, ShapesByName};

/// How the backbone alone is taken of a file.
const BACKBONE_ONLY: &str = "load only the backbone: train.pretrained with train.pretrained_backbone_only = true";

/// The likely causes and what to do, joined into one hint. `alone`: only the backbone is loaded already, so that this
/// is no remedy.
pub(super) fn causes(problems: &Problems, file: &ShapesByName<'_>, model: &ShapesByName<'_>, alone: bool) -> String {
    let (theirs, ours) = (Traits::of(file), Traits::of(model));
    let mut causes = Vec::new();
    convolutional_causes([file, model].map(Convolutional::of), &mut causes);
    family_causes(&theirs, &ours, &mut causes);
    if !problems.not_finite.is_empty() {
        causes.push("the training that wrote the file diverged: take an earlier checkpoint".to_owned());
    }
    if let Some((a, _)) = unequal(theirs.channels, ours.channels) {
        return format!("{}; {OTHERS}", of_other_channels(a));
    }
    size_causes(problems, &theirs, &ours, &mut causes);
    part_causes(problems, &theirs, &ours, &mut causes);
    if problems.names().any(|name| name.starts_with("decoder.")) {
        decoder_causes(&theirs, &ours, &mut causes);
    }
    if causes.is_empty() {
        causes.push(match alone {
            false => format!("use the recipe that the weights were trained with, or {BACKBONE_ONLY}"),
            true => format!("{}; {OTHERS}", unusable(problems)),
        });
    }
    causes.join("; ")
}

/// Both, where both are known and differ.
fn unequal<T: PartialEq>(theirs: Option<T>, ours: Option<T>) -> Option<(T, T)> {
    theirs.zip(ours).filter(|(a, b)| a != b)
}

/// A ResNet or ConvNeXt in place of another network.
fn convolutional_causes(networks: [Option<Convolutional>; 2], causes: &mut Vec<String>) {
    if let [Some(file), model] = &networks
        && networks[0] != networks[1]
    {
        let model = model.as_ref().map_or("another network".to_owned(), |model| format!("a {model}"));
        let keys: Vec<String> = file.recipe().into_iter().map(|(key, value)| format!("{key} = {value}")).collect();
        causes.push(format!(
            "the file is a {file}, the model has {model}: set {} in model.backbone, or in model.backbone.encoder of a U-Net",
            keys.join(", ")
        ));
    } else if let [None, Some(model)] = &networks {
        causes
            .push(format!("the model has a {model}, the file is not one: choose the backbone that the weights are of"));
    }
}

/// A transformer of another family: how it knows positions, and what its MLPs are.
fn family_causes(theirs: &Traits, ours: &Traits, causes: &mut Vec<String>) {
    if theirs.depth > 0 && ours.depth > 0 && theirs.rotated != ours.rotated {
        causes.push(match theirs.rotated {
            true => "the file is a DINOv3: set model.backbone.type = \"dinov3\"".to_owned(),
            false => "the file has a table of positions, DINOv3 has none: set model.backbone.type = \"vit\"".to_owned(),
        });
    }
    if let Some((gated, _)) = unequal(theirs.gated, ours.gated) {
        let (has, layer) = if gated { ("gates (SwiGLU)", "swiglu") } else { ("no gates", "mlp") };
        causes.push(format!("the file's MLPs have {has}: set model.backbone.mlp_layer = \"{layer}\""));
    }
}

/// A transformer of another size: patches, grid, width, depth.
fn size_causes(problems: &Problems, theirs: &Traits, ours: &Traits, causes: &mut Vec<String>) {
    if let Some((a, b)) = unequal(theirs.patch, ours.patch) {
        causes.push(format!(
            "the file's patches are {a}x{a} pixels, the model's {b}x{b}: set model.backbone.patch_size = {a}"
        ));
    }
    if let Some((_, file, _)) = problems.misshapen.iter().find(|(name, ..)| name == POSITIONS)
        && theirs.width == ours.width
    {
        let rows = file.get(1).copied().unwrap_or(0);
        causes.push(format!(
            "the file does not state the grid of its {rows} positions, and they do not form a square: set \
             model.backbone.img_size to the height and width that the weights were made for"
        ));
    }
    if let Some((a, b)) = unequal(theirs.width, ours.width) {
        let heads = match size(a).1 {
            Some(heads) => format!("model.backbone.num_heads = {heads}"),
            None => "model.backbone.num_heads to what it was trained with".to_owned(),
        };
        causes.push(format!(
            "the file is {} wide, the model {}: set model.backbone.embed_dim = {a} and {heads}",
            size(a).0,
            size(b).0
        ));
    }
    if theirs.depth != ours.depth && theirs.depth > 0 && ours.depth > 0 {
        causes.push(format!(
            "the file has {0} transformer blocks, the model {1}: set model.backbone.depth = {0}",
            theirs.depth, ours.depth
        ));
    }
}

/// Parts that one of two transformers has and the other lacks.
fn part_causes(problems: &Problems, theirs: &Traits, ours: &Traits, causes: &mut Vec<String>) {
    let layer_scale = if theirs.layer_scale {
        "set model.backbone.init_values = 1.0".to_owned()
    } else {
        "leave model.backbone.init_values out".to_owned()
    };
    let parts = [
        (theirs.layer_scale, ours.layer_scale, "LayerScale (`ls1.gamma`)", layer_scale),
        (
            theirs.class_token,
            ours.class_token,
            "a class token",
            format!("set model.backbone.class_token = {}", theirs.class_token),
        ),
        (
            theirs.final_norm,
            ours.final_norm,
            "a final norm (`norm.weight`)",
            format!("set model.backbone.final_norm = {}", theirs.final_norm),
        ),
        (
            theirs.registers > 0,
            ours.registers > 0,
            "register tokens",
            format!("set model.backbone.reg_tokens = {}", theirs.registers),
        ),
        (
            theirs.qkv_bias,
            ours.qkv_bias,
            "a bias of queries and values (`q_bias`)",
            format!("set model.backbone.qkv_bias = {}", theirs.qkv_bias),
        ),
    ];
    for (has, wants, what, advice) in parts {
        // A whole half of the network that is absent says nothing about its parts.
        if has != wants && theirs.depth > 0 && ours.depth > 0 && problems.mentions(what) {
            let (with, without) = if has { ("file", "model") } else { ("model", "file") };
            causes.push(format!("the {with} has {what}, the {without} does not: {advice}"));
        }
    }
}

/// What is left to do where weights cannot be used.
const OTHERS: &str = "take other weights, or train without any";

/// Why weights of this many channels of images cannot be used.
pub(super) fn of_other_channels(channels: usize) -> String {
    format!("the weights cannot be used, because they are for images of {channels} channels, and images have 3 here")
}

/// Why a backbone cannot be used whose outline is the model's.
fn unusable(problems: &Problems) -> String {
    let because = match (problems.missing.is_empty(), problems.unused.is_empty()) {
        (false, true) => "the file is incomplete",
        (true, false) => "their network has parts that this one lacks",
        _ => "they are of another network, which is like this one in part",
    };
    format!("the weights cannot be used, because {because}")
}

fn decoder_causes(theirs: &Traits, ours: &Traits, causes: &mut Vec<String>) {
    match (theirs.decoder, ours.decoder) {
        (None, Some(_)) => {
            causes.push(format!("the file has no decoder, it is a pretrained backbone: {BACKBONE_ONLY}"))
        }
        (Some(a), Some(b)) if a != b => {
            causes.push(format!(
                "the file's decoder is {a}, the model's {b}: choose the file's as model.decoder, or {BACKBONE_ONLY}"
            ));
        }
        (Some(_), Some(_)) => {
            if let (Some(a), Some(b)) = (theirs.classes, ours.classes)
                && a != b
            {
                causes.push(format!(
                    "the file was trained for {a} classes, the model is for {b}; to train for other classes {BACKBONE_ONLY}"
                ));
            }
            if theirs.decoder_depth != ours.decoder_depth {
                let (a, b) = (theirs.decoder_depth, ours.decoder_depth);
                causes.push(format!(
                    "the file's decoder has {a} blocks, the model's {b}: set model.decoder.num_blocks = {a}"
                ));
            }
        }
        _ => {}
    }
}

impl Problems {
    /// Whether a missing, unused or misshapen tensor is of this kind.
    fn mentions(&self, what: &str) -> bool {
        let part = match what {
            _ if what.starts_with("LayerScale") => "gamma",
            _ if what.contains("class token") => "cls_token",
            _ if what.contains("final norm") => "backbone.norm.",
            _ if what.contains("q_bias") => "attn.q_bias",
            _ => "register_tokens",
        };
        self.names().any(|name| name.contains(part))
    }

    /// The names of the tensors that are missing, unused or misshapen.
    fn names(&self) -> impl Iterator<Item = &String> {
        let names = self.missing.iter().chain(&self.unused).map(|(name, _)| name);
        names.chain(self.misshapen.iter().map(|(name, ..)| name))
    }
}

/// The layer of a per-pixel decoder that says the classes.
const CLASSIFIER: &str = "decoder.head.conv_seg.weight";

/// What the shapes tell of a network.
struct Traits {
    /// Of the images.
    channels: Option<usize>,
    patch: Option<usize>,
    width: Option<usize>,
    depth: usize,
    layer_scale: bool,
    class_token: bool,
    /// Positions are rotations, not a table.
    rotated: bool,
    /// Whether the MLPs are SwiGLU, as far as there are any.
    gated: Option<bool>,
    /// Queries and values have a bias each.
    qkv_bias: bool,
    final_norm: bool,
    registers: usize,
    decoder: Option<&'static str>,
    decoder_depth: usize,
    classes: Option<usize>,
}

impl Traits {
    fn of(shapes: &ShapesByName<'_>) -> Self {
        let extent = |name: &str, axis: usize| shapes.get(name).and_then(|shape| shape.get(axis)).copied();
        let any = |part: &str| shapes.keys().any(|name| name.contains(part));
        Self {
            channels: ["patch_embed.proj.weight", "conv1.weight", "stem.0.weight"]
                .iter()
                .flat_map(|first| [format!("backbone.{first}"), format!("backbone.encoder.{first}")])
                .find_map(|first| extent(&first, 1)),
            patch: extent("backbone.patch_embed.proj.weight", 3),
            width: extent("backbone.patch_embed.proj.weight", 0).or_else(|| extent("backbone.pos_embed", 2)),
            depth: count(shapes, "backbone.blocks."),
            layer_scale: any(".ls1.gamma"),
            class_token: any("backbone.cls_token"),
            rotated: any("backbone.blocks.") && !any("backbone.pos_embed"),
            gated: gated(shapes),
            qkv_bias: any("attn.q_bias"),
            final_norm: any("backbone.norm."),
            registers: extent("backbone.register_tokens", 1).unwrap_or(0),
            decoder: decoder(shapes),
            decoder_depth: count(shapes, "decoder.layers."),
            classes: extent("decoder.kernels", 1).or_else(|| extent(CLASSIFIER, 0)),
        }
    }
}

/// Whether the MLPs of a transformer with these shapes have gates: then their first layer has twice what the last one
/// takes.
pub(super) fn gated(shapes: &ShapesByName<'_>) -> Option<bool> {
    let extent = |name: &str, axis: usize| shapes.get(name).and_then(|shape| shape.get(axis)).copied();
    let products = extent("backbone.blocks.0.mlp.fc1.weight", 0)?;
    let hidden = extent("backbone.blocks.0.mlp.fc2.weight", 1)?;
    Some(hidden > 0 && hidden.checked_mul(2) == Some(products))
}

/// One more than the highest number that follows `prefix`.
fn count(shapes: &ShapesByName<'_>, prefix: &str) -> usize {
    let numbers = shapes.keys().filter_map(|name| name.strip_prefix(prefix)?.split('.').next()?.parse::<usize>().ok());
    numbers.max().map_or(0, |last| last.saturating_add(1))
}

fn decoder(shapes: &ShapesByName<'_>) -> Option<&'static str> {
    let slices = |map: &str| shapes.get(format!("decoder.layers.0.cross_attn.{map}.conv1.weight").as_str())?.first();
    let tokens = shapes.contains_key("decoder.kernels");
    if shapes.contains_key("decoder.layers.0.attn.attn_pw_conv.weight") {
        Some("StructToken's point-wise extraction (pwe)")
    } else if tokens && slices("query_map").is_some() {
        let self_slice = slices("query_map") == slices("key_map") && !shapes.keys().any(|name| name.contains(".ffn2."));
        Some(if self_slice {
            "StructToken's self-slice extraction (sse)"
        } else {
            "StructToken's cross-slice extraction (cse)"
        })
    } else if tokens {
        Some("of structure tokens")
    } else if shapes.contains_key(CLASSIFIER) {
        Some("a per-pixel classifier")
    } else {
        shapes.keys().any(|name| name.starts_with("decoder.")).then_some("of another kind")
    }
}

/// A width in words, and the attention heads of the published network that is so wide.
fn size(width: usize) -> (String, Option<usize>) {
    let (name, heads) = match width {
        192 => ("ViT-T, ", Some(3)),
        384 => ("ViT-S, ", Some(6)),
        768 => ("ViT-B, ", Some(12)),
        1024 => ("ViT-L, ", Some(16)),
        1280 => ("ViT-H, ", Some(16)),
        1536 => ("ViT-g, ", Some(24)),
        _ => ("", None),
    };
    (format!("{name}{width} channels"), heads)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes<'a>(list: &[(&'a str, &'a [usize])]) -> ShapesByName<'a> {
        list.iter().copied().collect()
    }

    #[test]
    fn names_what_differs() {
        let dino = shapes(&[
            ("backbone.patch_embed.proj.weight", &[384, 3, 14, 14]),
            ("backbone.cls_token", &[1, 1, 384]),
            ("backbone.blocks.11.ls1.gamma", &[384]),
            ("backbone.norm.weight", &[384]),
        ]);
        let model = shapes(&[
            ("backbone.patch_embed.proj.weight", &[768, 3, 16, 16]),
            ("backbone.blocks.11.norm1.weight", &[768]),
            ("decoder.kernels", &[1, 150, 32, 32]),
            ("decoder.layers.0.attn.attn_pw_conv.weight", &[918, 918, 1, 1]),
        ]);
        let listed = |shapes: &ShapesByName<'_>| {
            shapes.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect()
        };
        let problems = Problems { unused: listed(&dino), missing: listed(&model), ..Problems::default() };
        let hint = causes(&problems, &dino, &model, false);
        for expected in ["14x14", "ViT-S, 384", "ViT-B, 768", "LayerScale", "class token", "final norm", "no decoder"] {
            assert!(hint.contains(expected), "{expected}: {hint}");
        }
        assert!(!hint.contains("register"), "{hint}");
    }

    #[test]
    fn tells_the_blocks_apart() {
        let decoder = Problems { missing: vec![("decoder.x".to_owned(), vec![])], ..Problems::default() };
        let backbone = Problems { missing: vec![("backbone.x".to_owned(), vec![])], ..Problems::default() };
        let kernels: (&str, &[usize]) = ("decoder.kernels", &[1, 7, 4, 4]);
        let query: &str = "decoder.layers.0.cross_attn.query_map.conv1.weight";
        let key: &str = "decoder.layers.0.cross_attn.key_map.conv1.weight";
        let cse = shapes(&[kernels, (query, &[7, 7, 1, 1]), (key, &[48, 48, 1, 1])]);
        let sse = shapes(&[kernels, (query, &[55, 55, 1, 1]), (key, &[55, 55, 1, 1])]);
        let hint = causes(&decoder, &cse, &sse, false);
        assert!(hint.contains("decoder is StructToken's cross-slice") && hint.contains("self-slice"), "{hint}");
        let other: (&str, &[usize]) = ("decoder.kernels", &[1, 150, 4, 4]);
        let more = shapes(&[
            other,
            (query, &[150, 150, 1, 1]),
            (key, &[48, 48, 1, 1]),
            ("decoder.layers.3.ffn1.norm1.bias", &[600]),
        ]);
        let hint = causes(&decoder, &cse, &more, false);
        assert!(
            hint.contains("7 classes") && hint.contains("150") && hint.contains("model.decoder.num_blocks = "),
            "{hint}"
        );
        assert!(!causes(&backbone, &cse, &sse, false).contains("decoder"), "only the backbone is asked for");
        let linear = shapes(&[(CLASSIFIER, &[7, 48, 1, 1])]);
        assert!(causes(&decoder, &linear, &cse, false).contains("per-pixel"));
    }
}
