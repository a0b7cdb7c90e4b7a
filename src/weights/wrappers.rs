//! Wrappers around a network and its names: data parallelism, compilation, Lightning, averages of the weights.

use crate::weights::state::HostTensor;

/// Parts of a name that only say what a module was wrapped in, wherever they stand.
const SHELLS: [&str; 4] = ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// Parts before the name of the whole network.
const PREFIXES: [&str; 20] = [
    "model",
    "segmentor",
    "network",
    "net",
    "encoder",
    "visual",
    "trunk",
    "vit",
    "dinov2",
    "dinov2_with_registers",
    "dinov3",
    "dinov3_vit",
    "student",
    "teacher",
    "ema",
    "ema_model",
    "model_ema",
    "avg_model",
    "averaged_model",
    "student_model",
];

/// What a network's first layer is called, by whom ever: a plain ViT's; or the first block of a ResNet, of a ConvNeXt.
const PATCHES: [&str; 6] = [
    "patch_embed.proj.weight",
    "patch_embed.projection.weight",
    "embeddings.patch_embeddings.projection.weight",
    "embeddings.patch_embeddings.weight",
    "layer1.0.conv1.weight",
    "stages.0.blocks.0.conv_dw.weight",
];

/// Counters that averages of weights keep beside them.
const COUNTERS: [&str; 6] = ["n_averaged", "num_updates", "initted", "step", "decay", "ema_step"];

/// A file's tensors without what wraps them.
pub(super) struct Bare<'a> {
    /// Names and tensors of the network.
    pub(super) tensors: Vec<(String, &'a HostTensor)>,
    /// Names of what lies beside the network: counters, losses, another copy of it.
    pub(super) aside: Vec<String>,
}

/// Without the parts of a name that stand for a wrapper.
fn without_shells(name: &str) -> String {
    if !name.contains("module.") && !name.contains("_orig_mod.") {
        return name.to_owned();
    }
    let mut parts: Vec<&str> = name.split('.').collect();
    let last = parts.len() - 1;
    let mut at = 0;
    parts.retain(|part| {
        at += 1;
        at > last || !SHELLS.contains(part)
    });
    parts.join(".")
}

/// Cuts a prefix that all names share, or else the one before the network's first layer; what does not begin with that
/// is put aside. Of several copies of a network an average of its weights is taken, which is what its author evaluated.
pub(super) fn unwrap<'a>(tensors: impl Iterator<Item = (&'a String, &'a HostTensor)>) -> Bare<'a> {
    let all: Vec<(String, &HostTensor)> = tensors.map(|(name, tensor)| (without_shells(name), tensor)).collect();
    let counter = |name: &str| COUNTERS.contains(&name);
    let (aside, tensors): (Vec<_>, Vec<_>) = all.into_iter().partition(|(name, _)| counter(name));
    let mut bare = Bare { tensors, aside: aside.into_iter().map(|(name, _)| name).collect() };
    let shared = shared_prefix(&bare.tensors);
    bare.cut(&shared);
    let names: Vec<&str> = bare.tensors.iter().map(|(name, _)| name.as_str()).collect();
    if super::rules::known(&names) {
        return bare;
    }
    let prefix = names.iter().filter_map(|name| before_network(name)).min_by_key(|prefix| rank(prefix));
    let prefix = prefix.unwrap_or_default().to_owned();
    bare.cut(&prefix);
    bare
}

impl Bare<'_> {
    fn cut(&mut self, prefix: &str) {
        if prefix.is_empty() {
            return;
        }
        for (name, tensor) in std::mem::take(&mut self.tensors) {
            match name.strip_prefix(prefix) {
                Some(inner) => self.tensors.push((inner.to_owned(), tensor)),
                None => self.aside.push(name),
            }
        }
    }
}

/// The longest beginning of parts in [`PREFIXES`] that all names have. `encoder` is none of these: Hugging Face's
/// blocks begin so.
fn shared_prefix(tensors: &[(String, &HostTensor)]) -> String {
    let mut prefix = String::new();
    let Some((first, _)) = tensors.first() else { return prefix };
    for part in first.split('.') {
        let longer = format!("{prefix}{part}.");
        if part == "encoder" || !PREFIXES.contains(&part) || !tensors.iter().all(|(name, _)| name.starts_with(&longer))
        {
            break;
        }
        prefix = longer;
    }
    prefix
}

/// What stands before the network in the name of its first layer; none where this is not that layer.
fn before_network(name: &str) -> Option<&str> {
    if !PATCHES
        .iter()
        .any(|layer| name.strip_suffix(layer).is_some_and(|before| before.is_empty() || before.ends_with('.')))
    {
        return None;
    }
    let mut end = 0;
    for part in name.split('.') {
        if !PREFIXES.contains(&part) {
            break;
        }
        end += part.len() + 1;
    }
    Some(&name[..end])
}

/// Averages first, then the shortest.
fn rank(prefix: &str) -> (bool, usize) {
    let average =
        prefix.split('.').any(|part| part.contains("ema") || part.contains("avg") || part.contains("averaged"));
    (!(average || prefix.contains("teacher")), prefix.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unwrapped(names: &[&str]) -> (Vec<String>, Vec<String>) {
        let tensor = HostTensor { shape: vec![1], data: vec![0.0] };
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let bare = unwrap(names.iter().map(|name| (name, &tensor)));
        (bare.tensors.into_iter().map(|(name, _)| name).collect(), bare.aside)
    }

    #[test]
    fn wrappers_are_taken_off_wherever_they_are() {
        let bare = ["blocks.0.norm1.bias", "patch_embed.proj.weight"];
        let cases: [[&str; 2]; 7] = [
            ["module.blocks.0.norm1.bias", "module.patch_embed.proj.weight"],
            ["_orig_mod.blocks.0.norm1.bias", "_orig_mod.patch_embed.proj.weight"],
            ["blocks.0._orig_mod.norm1.bias", "patch_embed.proj.weight"],
            ["model._orig_mod.blocks.0.norm1.bias", "model._orig_mod.patch_embed.proj.weight"],
            ["module.model.module.blocks.0.norm1.bias", "module.model.module.patch_embed.proj.weight"],
            ["_fsdp_wrapped_module.blocks.0._checkpoint_wrapped_module.norm1.bias", "patch_embed.proj.weight"],
            ["encoder.blocks.0.norm1.bias", "encoder.patch_embed.proj.weight"],
        ];
        for names in cases {
            assert_eq!(unwrapped(&names), (bare.map(str::to_owned).to_vec(), vec![]), "{names:?}");
        }
    }

    #[test]
    fn a_convolutional_encoder_is_cut_out() {
        let (names, aside) =
            unwrapped(&["decoder.blocks.0.conv1.0.weight", "encoder.conv1.weight", "encoder.layer1.0.conv1.weight"]);
        assert_eq!(names, ["conv1.weight", "layer1.0.conv1.weight"]);
        assert_eq!(aside, ["decoder.blocks.0.conv1.0.weight"]);
        let ours = ["backbone.encoder.conv1.weight", "backbone.encoder.layer1.0.conv1.weight", "decoder.head.weight"];
        assert_eq!(unwrapped(&ours), (ours.map(str::to_owned).to_vec(), vec![]));
    }

    #[test]
    fn what_lies_beside_the_network_is_put_aside() {
        // Lightning's module has losses and metrics beside the network.
        let (names, aside) =
            unwrapped(&["criterion.weight", "model.backbone.patch_embed.proj.weight", "model.decode_head.kernels"]);
        assert_eq!(
            (names, aside),
            (
                vec!["backbone.patch_embed.proj.weight".to_owned(), "decode_head.kernels".into()],
                vec!["criterion.weight".to_owned()]
            )
        );
        // Averages count.
        let (names, aside) = unwrapped(&["module.patch_embed.proj.weight", "n_averaged"]);
        assert_eq!((names, aside), (vec!["patch_embed.proj.weight".to_owned()], vec!["n_averaged".to_owned()]));
        // Of two copies the average is taken.
        let copies = ["model.patch_embed.proj.weight", "ema_model.module.patch_embed.proj.weight", "ema_model.initted"];
        let (names, aside) = unwrapped(&copies);
        assert_eq!((names.len(), names[0].as_str()), (2, "patch_embed.proj.weight"));
        assert_eq!(aside, ["model.patch_embed.proj.weight"]);
        let (names, aside) =
            unwrapped(&["student.backbone.patch_embed.proj.weight", "teacher.backbone.patch_embed.proj.weight"]);
        assert_eq!((names, aside.len()), (vec!["backbone.patch_embed.proj.weight".to_owned()], 1));
        // A head beside Hugging Face's network.
        let (names, aside) = unwrapped(&["classifier.bias", "vit.embeddings.patch_embeddings.projection.weight"]);
        assert_eq!(
            (names[0].as_str(), aside),
            ("embeddings.patch_embeddings.projection.weight", vec!["classifier.bias".to_owned()])
        );
    }

    #[test]
    fn names_that_need_their_beginning_keep_it() {
        for names in [
            &["backbone.patch_embed.proj.weight", "decoder.kernels"][..],
            &["encoder.layer.0.norm1.weight", "embeddings.patch_embeddings.projection.weight"],
            &["encoder.backbone.patch_embed.proj.weight", "class_head.bias", "q.weight"],
            &["encoder.layer.0.norm1.weight"],
        ] {
            assert_eq!(unwrapped(names), (names.iter().map(|name| (*name).to_owned()).collect(), vec![]));
        }
    }
}
