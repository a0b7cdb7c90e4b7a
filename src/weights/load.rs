//! A file's tensors into a module: strict, and fitted to its grid of patches.

use std::borrow::Cow;
use std::collections::BTreeMap;

use burn::module::Module;

use crate::error::{Error, Result};
use crate::layers::Gridded;
use crate::weights::causes::causes;
use crate::weights::parameters::{named_parameters, replace_values};
use crate::weights::remap_keys::remap_keys;
use crate::weights::report::{LoadReport, Problems, ShapesByName};
use crate::weights::state::{HostTensor, StateDict};
use crate::weights::{numbers, position_table};

/// What loading may leave out.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Tables of another grid than the model's are not resized but refused: the file was written for this very model.
    pub exact: bool,
    /// Only parameters below this part of the model are loaded, for instance `backbone`; the others keep their
    /// initialisation, and what the file has for them is not used.
    pub prefix_only: Option<String>,
    /// Tensors of the file that the model may lack: whole names or beginnings that end in `*`, with or without their
    /// `backbone.`.
    pub ignore_unused: Vec<String>,
    /// Whether what stands behind the network, by its name, may be left over: classifiers, projections, decoders of a
    /// pretraining.
    pub heads: bool,
}

/// Words in names of what pretraining puts behind a network: `linear_head`, `projector`, MAE's `decoder_pred`.
const HEADS: [&str; 19] = [
    "head",
    "heads",
    "fc",
    "classifier",
    "predictor",
    "projector",
    "projection",
    "proj",
    "decoder",
    "prototypes",
    "logits",
    "loss",
    "criterion",
    "aux",
    "auxiliary",
    "linear",
    "probe",
    "neck",
    "queue",
];

/// Whether the first part of a name of the backbone is that of a head.
fn is_head(inner: &str) -> bool {
    let first = inner.split('.').next().unwrap_or_default();
    !first.contains("norm")
        && first.split('_').any(|word| HEADS.contains(&word.trim_end_matches(|c: char| c.is_ascii_digit())))
}

/// What other code keeps among its weights and nothing here reads: counters, weights of losses, constants of input and
/// training.
const BUFFERS: [&str; 5] =
    [".num_batches_tracked", "criterion.empty_weight", "attn_mask_probs", "pixel_mean", "pixel_std"];

impl LoadOptions {
    /// Everything must be there; tables of positions may be of another grid: a published checkpoint.
    pub fn strict() -> Self {
        Self::default()
    }

    /// Every tensor must have the model's shape, and no value is changed: what this crate wrote for this very model.
    pub fn exact() -> Self {
        Self { exact: true, ..Self::default() }
    }

    /// A pretrained backbone, without the heads of its pretraining. A final norm that the model does without is left
    /// out too, as the paper's recipe does.
    pub fn pretrained_backbone() -> Self {
        let heads = [
            "mask_token",
            "fc_norm.*",
            "pre_logits.*",
            "norm.*",
            // Of crops in DINOv3's pretraining.
            "local_cls_norm.*",
            "pooler.*",
        ];
        Self {
            heads: true,
            prefix_only: Some("backbone".to_owned()),
            ignore_unused: heads.map(str::to_owned).to_vec(),
            ..Self::default()
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.prefix_only.as_ref().is_none_or(|prefix| below(name, prefix))
    }

    fn ignores(&self, name: &str) -> bool {
        if BUFFERS.iter().any(|end| name.ends_with(end)) {
            return true;
        }
        let inner = name.strip_prefix("backbone.").unwrap_or(name);
        let inner = inner.strip_prefix("encoder.").unwrap_or(inner);
        if self.heads && is_head(inner) {
            return true;
        }
        self.ignore_unused.iter().any(|rule| match rule.strip_suffix('*') {
            Some(start) => name.starts_with(start) || inner.starts_with(start),
            None => name == rule || inner == rule,
        })
    }
}

/// Puts the weights of `state`, whatever their key format, into `module`.
///
/// `backbone.pos_embed` and `decoder.kernels` of another grid are resized (bicubic, the class token's row kept), as the
/// reference does when it loads or runs at another size, and the report says so. The model tells its grid, the file's
/// is what its metadata or its structure tokens say. The rest must fit exactly.
///
/// # Errors
///
/// If a parameter is missing or of another shape, a tensor of the file is left over that the options do not allow, or a
/// value is infinite or NaN. The message lists all of it, the hint gives the likely causes.
pub fn load<M: Module + Gridded>(module: M, state: &StateDict, options: &LoadOptions) -> Result<(M, LoadReport)> {
    numbers::check(state)?;
    let mut renamed = remap_keys(state)?;
    let model: Vec<(String, Vec<usize>)> =
        named_parameters(&module).into_iter().map(|(name, shape, _)| (name, shape)).collect();
    let mut report = LoadReport::new(state, renamed.key_format);
    report.notes.extend(numbers::type_note(state));
    let into_encoder = options.prefix_only.as_deref() == Some(BACKBONE) && enter_encoder(&mut renamed.tensors, &model);
    let below_encoder = LoadOptions { prefix_only: Some(ENCODER.to_owned()), ..options.clone() };
    let options = if into_encoder { &below_encoder } else { options };
    let file_shapes: Vec<(String, Vec<usize>)> =
        renamed.tensors.iter().map(|(name, t)| (name.clone(), t.shape.clone())).collect();
    if !options.exact && options.wants(position_table::POSITIONS) {
        let wanted = model.iter().filter(|(name, _)| options.wants(name));
        let wanted = wanted.map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
        position_table::fit_tables(&mut renamed.tensors, state, &wanted, module.grid(), &mut report);
    }
    report.ignored.append(&mut renamed.aside);
    let mut problems = Problems::default();
    let mut values: BTreeMap<&str, Cow<'_, HostTensor>> = BTreeMap::new();
    for (name, shape) in &model {
        if !options.wants(name) {
            report.kept.push(name.clone());
            continue;
        }
        let Some(tensor) = renamed.tensors.remove(name) else {
            problems.missing.push((name.clone(), shape.clone()));
            continue;
        };
        if tensor.shape != *shape {
            problems.misshapen.push((name.clone(), tensor.shape.clone(), shape.clone()));
            continue;
        }
        let not_finite = tensor.data.iter().filter(|value| !value.is_finite()).count();
        if not_finite > 0 {
            problems.not_finite.push((name.clone(), not_finite));
        }
        report.elements += tensor.data.len();
        report.loaded.push(name.clone());
        values.insert(name, tensor);
    }
    for (name, tensor) in &renamed.tensors {
        if options.wants(name) && !options.ignores(name) {
            problems.unused.push((name.clone(), tensor.shape.clone()));
        } else {
            report.ignored.push(name.clone());
        }
    }
    if !problems.is_empty() {
        let alone = options.prefix_only.is_some();
        let causes = causes(&problems, &shapes(&file_shapes), &shapes(&model), alone);
        return Err(problems.error(state, renamed.key_format).with_hint(causes));
    }
    if report.loaded.is_empty() {
        let part = options.prefix_only.as_deref().unwrap_or("any name");
        return Err(Error::new(format!("the model has no parameters under `{part}`"))
            .with_hint("pass a part of the model: `backbone`"));
    }
    let module = replace_values(module, |name| values.remove(name).map(Cow::into_owned));
    Ok((module, report))
}

/// The part of a model that pretrained weights are for.
const BACKBONE: &str = "backbone";
/// The part of a U-Net's that they are for, where it has an encoder.
const ENCODER: &str = "backbone.encoder";

/// Where the model is a U-Net with an encoder, and the file has none, its backbone is that encoder: renames its
/// tensors. Gives whether it did.
fn enter_encoder(tensors: &mut BTreeMap<String, Cow<'_, HostTensor>>, model: &[(String, Vec<usize>)]) -> bool {
    if !model.iter().any(|(name, _)| below(name, ENCODER)) || tensors.keys().any(|name| below(name, ENCODER)) {
        return false;
    }
    let renamed = std::mem::take(tensors).into_iter().map(|(name, tensor)| {
        let inner = name.strip_prefix("backbone.").map(|inner| format!("{ENCODER}.{inner}"));
        (inner.unwrap_or(name), tensor)
    });
    *tensors = renamed.collect();
    true
}

fn below(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'))
}

fn shapes(list: &[(String, Vec<usize>)]) -> ShapesByName<'_> {
    list.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::parameters::tests::model;
    use crate::weights::{bicubic, state_of};
    use burn::prelude::Device;

    fn error_of(result: Result<(impl Module, LoadReport)>) -> (String, String) {
        let Err(error) = result else { panic!("it loads") };
        (error.to_string(), error.hint().unwrap().to_owned())
    }

    #[test]
    fn a_model_loads_its_own_state() {
        let device = Device::flex();
        let state = state_of(&model(4, 2, 3, (2, 2), "a", &device));
        let other = model(4, 2, 3, (2, 2), "b", &device);
        assert_ne!(state_of(&other), state);
        let (loaded, report) = load(other, &state, &LoadOptions::strict()).unwrap();
        assert_eq!(state_of(&loaded), state);
        assert_eq!((report.loaded.len(), report.elements), (9, 4 + 20 + 40 + 12 + 20));
        assert!(report.resized.is_empty() && report.kept.is_empty() && report.ignored.is_empty());
        assert!(report.to_string().starts_with("loaded 9 tensors"), "{report}");
    }

    #[test]
    fn a_pretrained_backbone_leaves_the_decoder_alone() {
        let device = Device::flex();
        let state = state_of(&model(4, 2, 3, (2, 2), "a", &device));
        let mut timm = StateDict::default();
        for (name, tensor) in &state.tensors {
            if let Some(name) = name.strip_prefix("backbone.") {
                timm.tensors.insert(name.to_owned(), tensor.clone());
            }
        }
        for head in ["head.weight", "mask_token", "norm.bias"] {
            timm.tensors.insert(head.to_owned(), HostTensor { shape: vec![1], data: vec![0.0] });
        }
        let other = model(4, 2, 5, (2, 2), "b", &device);
        let decoder = state_of(&other).tensors["decoder.kernels"].clone();
        let (loaded, report) = load(other.clone(), &timm, &LoadOptions::pretrained_backbone()).unwrap();
        let loaded = state_of(&loaded);
        assert_eq!(loaded.tensors["decoder.kernels"], decoder);
        assert_eq!(loaded.tensors["backbone.blocks.1.weight"], state.tensors["backbone.blocks.1.weight"]);
        assert_eq!((report.kept.len(), report.ignored.len()), (3, 3));
        assert!(report.to_string().contains("kept as initialised: decoder.kernels"), "{report}");
        let (text, hint) = error_of(load(other, &timm, &LoadOptions::strict()));
        assert!(text.contains("missing from the file (3)") && text.contains("unknown to the model (3)"), "{text}");
        assert!(hint.contains("no decoder"), "{hint}");
    }

    #[test]
    fn what_does_not_fit_is_listed_with_its_cause() {
        let device = Device::flex();
        let mut state = state_of(&model(4, 3, 3, (2, 2), "a", &device));
        let (text, hint) = error_of(load(model(4, 2, 5, (2, 2), "b", &device), &state, &LoadOptions::strict()));
        assert!(
            text.contains("backbone.blocks.2.weight [4, 4]") && text.contains("unknown to the model (2)"),
            "{text}"
        );
        assert!(text.contains("decoder.kernels is [1, 3, 2, 2], the model needs [1, 5, 2, 2]"), "{text}");
        assert!(
            hint.contains("3 transformer blocks, the model 2") && hint.contains("3 classes, the model is for 5"),
            "{hint}"
        );
        let (text, hint) = error_of(load(model(6, 3, 3, (2, 2), "b", &device), &state, &LoadOptions::strict()));
        assert!(text.contains("backbone.blocks.0..2.weight is [4, 4], the model needs [6, 6]"), "{text}");
        assert!(hint.contains("4 channels wide") || hint.contains("4 channels"), "{hint}");
        let moved = state.tensors.remove("decoder.dec_proj.bias").unwrap();
        state.tensors.insert("decoder.decproj.bias".into(), moved);
        state.tensors.get_mut("decoder.kernels").unwrap().data[1] = f32::NAN;
        let (text, hint) = error_of(load(model(4, 3, 3, (2, 2), "b", &device), &state, &LoadOptions::strict()));
        assert!(text.contains("`decoder.dec_proj.bias` — the file has `decoder.decproj.bias`"), "{text}");
        assert!(text.contains("decoder.kernels (1 values)") && hint.contains("diverged"), "{text} {hint}");
    }

    #[test]
    fn tables_follow_the_grid() {
        let device = Device::flex();
        let mut state = state_of(&model(2, 1, 3, (3, 3), "a", &device));
        // Positions that are constant over the grid stay so, and the class token's row is kept.
        let positions = state.tensors.get_mut("backbone.pos_embed").unwrap();
        positions.data = [[9.0, 8.0]].into_iter().chain(std::iter::repeat_n([1.0, -2.0], 9)).flatten().collect();
        let kernels = state.tensors["decoder.kernels"].clone();
        let (loaded, report) = load(model(2, 1, 3, (4, 5), "b", &device), &state, &LoadOptions::strict()).unwrap();
        let loaded = state_of(&loaded);
        let positions = &loaded.tensors["backbone.pos_embed"];
        assert_eq!((positions.shape.as_slice(), &positions.data[..2]), (&[1, 21, 2][..], &[9.0, 8.0][..]));
        assert!(positions.data[2..].chunks(2).all(|p| (p[0] - 1.0).abs() < 1e-6 && (p[1] + 2.0).abs() < 1e-6));
        // An odd side aligns the corners.
        let resized = &loaded.tensors["decoder.kernels"].data;
        assert_eq!(resized, &bicubic(&kernels.data, 3, (3, 3), (4, 5), true));
        assert!((resized[19] - kernels.data[8]).abs() < 1e-6);
        assert_eq!(report.resized.len(), 2);
        assert!(report.to_string().contains("resized backbone.pos_embed from 3x3 to 4x5"), "{report}");
    }

    #[test]
    fn dinov2_is_recognised() {
        let state = crate::weights::mirror::dinov2();
        let renamed = remap_keys(&state).unwrap();
        assert_eq!((renamed.key_format, renamed.tensors.len()), (crate::weights::KeyFormat::Timm, 174));
        let positions = &renamed.tensors["backbone.pos_embed"];
        assert_eq!(positions.shape, [1, 1370, 384]);
        assert_eq!(renamed.tensors["backbone.blocks.11.ls2.gamma"].shape, [384]);
    }
}
