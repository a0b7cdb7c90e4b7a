//! A file's tensors into a module: strict, and fitted to its grid of patches.

use std::borrow::Cow;
use std::collections::BTreeMap;

use burn::module::Module;

use super::bicubic::bicubic;
use super::names::our_names;
use super::parameters::{named_parameters, replace_values};
use super::report::{Problems, Report, Resized, Shapes};
use super::state::{HostTensor, StateDict};
use crate::error::{Error, Result};

/// The metadata key that gives the grid of a file's `backbone.pos_embed`, as `32x40` (rows, columns). Without it the grid
/// is taken to be square.
pub const GRID_METADATA: &str = "grid";

/// What loading may leave out.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Rows and columns of the model's grid of patches. Without it the grid is taken to be square.
    pub grid: Option<(usize, usize)>,
    /// Only parameters below this part of the model are loaded, for instance `backbone`; the others keep their
    /// initialisation, and what the file has for them is not used.
    pub prefix_only: Option<String>,
    /// Tensors of the file that the model may lack: whole names or beginnings that end in `*`, with or without their
    /// `backbone.`.
    pub ignore_unused: Vec<String>,
}

/// What other code keeps among its weights and nothing here reads: counters, weights of losses, constants of input and
/// training.
const BUFFERS: [&str; 5] =
    [".num_batches_tracked", "criterion.empty_weight", "attn_mask_probs", "pixel_mean", "pixel_std"];

impl LoadOptions {
    /// Everything must fit: the model's own checkpoint, or a published one.
    pub fn strict(grid: (usize, usize)) -> Self {
        Self { grid: Some(grid), ..Self::default() }
    }

    /// A pretrained backbone, without the heads of its pretraining. A final norm that the model does without is left out
    /// too, as the paper's recipe does.
    pub fn pretrained_backbone(grid: (usize, usize)) -> Self {
        let heads = [
            "head.*",
            "head_dist.*",
            "mask_token",
            "fc_norm.*",
            "pre_logits.*",
            "dino_head.*",
            "ibot_head.*",
            "norm.*",
        ];
        Self {
            grid: Some(grid),
            prefix_only: Some("backbone".to_owned()),
            ignore_unused: heads.map(str::to_owned).to_vec(),
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
        self.ignore_unused.iter().any(|rule| match rule.strip_suffix('*') {
            Some(start) => name.starts_with(start) || inner.starts_with(start),
            None => name == rule || inner == rule,
        })
    }
}

/// Puts the weights of `state`, whatever their layout, into `module`.
///
/// `backbone.pos_embed` and `decoder.kernels` of another grid are resized (bicubic, the class token's row kept), as the
/// reference does when it loads or runs at another size. The rest must fit exactly.
///
/// # Errors
///
/// If a parameter is missing or of another shape, a tensor of the file is left over that the options do not allow, or a
/// value is infinite or NaN. The message lists all of it, the hint gives the likely causes.
pub fn load<M: Module>(module: M, state: &StateDict, options: &LoadOptions) -> Result<(M, Report)> {
    let mut renamed = our_names(state)?;
    let model: Vec<(String, Vec<usize>)> =
        named_parameters(&module).into_iter().map(|(name, shape, _)| (name, shape)).collect();
    let mut report = Report {
        source: state.title(),
        format: state.format,
        layout: renamed.layout,
        wrapper: state.wrapper.clone(),
        loaded: Vec::new(),
        elements: 0,
        resized: Vec::new(),
        kept: Vec::new(),
        ignored: Vec::new(),
    };
    let file_shapes: Vec<(String, Vec<usize>)> =
        renamed.tensors.iter().map(|(name, t)| (name.clone(), t.shape.clone())).collect();
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
        let file_shape = tensor.shape.clone();
        let Some(tensor) = fit(name, tensor, shape, state, options, &mut report.resized) else {
            problems.misshapen.push((name.clone(), file_shape, shape.clone()));
            continue;
        };
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
        return Err(problems.error(state, renamed.layout, &shapes(&file_shapes), &shapes(&model)));
    }
    if report.loaded.is_empty() {
        let part = options.prefix_only.as_deref().unwrap_or("any name");
        return Err(Error::new(format!("the model has no parameters under `{part}`"))
            .hint("name a part of the model: `backbone`"));
    }
    let module = replace_values(module, |name| values.remove(name).map(Cow::into_owned));
    Ok((module, report))
}

fn below(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'))
}

fn shapes(list: &[(String, Vec<usize>)]) -> Shapes<'_> {
    list.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect()
}

/// The tensor as the model needs it; none where its shape does not allow that.
fn fit<'a>(
    name: &str,
    tensor: Cow<'a, HostTensor>,
    shape: &[usize],
    state: &StateDict,
    options: &LoadOptions,
    resized: &mut Vec<Resized>,
) -> Option<Cow<'a, HostTensor>> {
    let fitted = match name {
        "backbone.pos_embed" => {
            let grid = state.metadata.get(GRID_METADATA).and_then(|text| parse_grid(text));
            fit_positions(&tensor, shape, grid, options.grid)
        }
        "decoder.kernels" => fit_kernels(&tensor, shape),
        _ => None,
    };
    match fitted {
        Some((fitted, from, to)) => {
            resized.push(Resized { name: name.to_owned(), from, to });
            Some(Cow::Owned(fitted))
        }
        None => (tensor.shape == shape).then_some(tensor),
    }
}

fn parse_grid(text: &str) -> Option<(usize, usize)> {
    let (rows, columns) = text.split_once('x')?;
    Some((rows.trim().parse().ok()?, columns.trim().parse().ok()?))
}

fn square(n: usize) -> Option<(usize, usize)> {
    let side = n.isqrt();
    (side > 0 && side * side == n).then_some((side, side))
}

/// A table, and the grids it was resized between.
type Fitted = (HostTensor, (usize, usize), (usize, usize));

/// Positions `[1, (1+)n, d]` for another grid. None where nothing is to be done, or nothing can be.
fn fit_positions(
    tensor: &HostTensor,
    shape: &[usize],
    file_grid: Option<(usize, usize)>,
    model_grid: Option<(usize, usize)>,
) -> Option<Fitted> {
    let (&[1, n, d], &[1, m, width]) = (tensor.shape.as_slice(), shape) else { return None };
    let cells = |grid: (usize, usize)| grid.0.checked_mul(grid.1).filter(|cells| *cells > 0);
    let rest = |total: usize, grid| total.checked_sub(cells(grid)?).filter(|class| *class <= 1);
    let any_square = |total: usize, class: usize| square(total.checked_sub(class)?);
    let to = model_grid.or_else(|| any_square(m, 0)).or_else(|| any_square(m, 1))?;
    let class = rest(m, to)?;
    let from = file_grid.or_else(|| any_square(n, class)).or_else(|| any_square(n, 1))?;
    let file_class = rest(n, from)?;
    if d != width || file_class < class || (from, file_class) == (to, class) {
        return None;
    }
    let (head, grid) = tensor.data.split_at(file_class * d);
    let planes: Vec<f32> = (0..d).flat_map(|c| grid.iter().skip(c).step_by(d).copied()).collect(); // [d, rows·columns]
    let planes = bicubic(&planes, d, from, to, false);
    let mut data = head[..class * d].to_vec();
    data.extend((0..to.0 * to.1).flat_map(|at| planes.iter().skip(at).step_by(to.0 * to.1).copied()));
    Some((HostTensor { shape: shape.to_vec(), data }, from, to))
}

/// Structure tokens `[1, k, h, w]` for another grid; corners are aligned where the table has an odd side, as in the
/// reference. None where nothing is to be done, or nothing can be.
fn fit_kernels(tensor: &HostTensor, shape: &[usize]) -> Option<Fitted> {
    let (&[1, k, h, w], &[1, classes, rows, columns]) = (tensor.shape.as_slice(), shape) else { return None };
    let (from, to) = ((h, w), (rows, columns));
    if k != classes || from == to || h * w * rows * columns == 0 {
        return None;
    }
    let data = bicubic(&tensor.data, k, from, to, h % 2 == 1 || w % 2 == 1);
    Some((HostTensor { shape: shape.to_vec(), data }, from, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::parameters::tests::model;
    use crate::weights::state_of;
    use burn::prelude::Device;

    fn error_of(result: Result<(impl Module, Report)>) -> (String, String) {
        let Err(error) = result else { panic!("it loads") };
        (error.to_string(), error.remedy().unwrap().to_owned())
    }

    #[test]
    fn a_model_loads_its_own_state() {
        let device = Device::flex();
        let state = state_of(&model(4, 2, 3, (2, 2), "a", &device));
        let other = model(4, 2, 3, (2, 2), "b", &device);
        assert_ne!(state_of(&other), state);
        let (loaded, report) = load(other, &state, &LoadOptions::strict((2, 2))).unwrap();
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
        let (loaded, report) = load(other.clone(), &timm, &LoadOptions::pretrained_backbone((2, 2))).unwrap();
        let loaded = state_of(&loaded);
        assert_eq!(loaded.tensors["decoder.kernels"], decoder);
        assert_eq!(loaded.tensors["backbone.blocks.1.weight"], state.tensors["backbone.blocks.1.weight"]);
        assert_eq!((report.kept.len(), report.ignored.len()), (3, 3));
        assert!(report.to_string().contains("kept as initialised: decoder.kernels"), "{report}");
        let (text, hint) = error_of(load(other, &timm, &LoadOptions::strict((2, 2))));
        assert!(text.contains("missing from the file (3)") && text.contains("unknown to the model (3)"), "{text}");
        assert!(hint.contains("no decoder"), "{hint}");
    }

    #[test]
    fn what_does_not_fit_is_listed_with_its_cause() {
        let device = Device::flex();
        let mut state = state_of(&model(4, 3, 3, (2, 2), "a", &device));
        let (text, hint) = error_of(load(model(4, 2, 5, (2, 2), "b", &device), &state, &LoadOptions::strict((2, 2))));
        assert!(
            text.contains("backbone.blocks.2.weight [4, 4]") && text.contains("unknown to the model (2)"),
            "{text}"
        );
        assert!(text.contains("decoder.kernels is [1, 3, 2, 2], the model needs [1, 5, 2, 2]"), "{text}");
        assert!(
            hint.contains("3 transformer blocks, the model 2") && hint.contains("3 classes, the model is for 5"),
            "{hint}"
        );
        let (text, hint) = error_of(load(model(6, 3, 3, (2, 2), "b", &device), &state, &LoadOptions::strict((2, 2))));
        assert!(text.contains("backbone.blocks.0..2.weight is [4, 4], the model needs [6, 6]"), "{text}");
        assert!(hint.contains("4 channels wide") || hint.contains("4 channels"), "{hint}");
        let moved = state.tensors.remove("decoder.dec_proj.bias").unwrap();
        state.tensors.insert("decoder.decproj.bias".into(), moved);
        state.tensors.get_mut("decoder.kernels").unwrap().data[1] = f32::NAN;
        let (text, hint) = error_of(load(model(4, 3, 3, (2, 2), "b", &device), &state, &LoadOptions::strict((2, 2))));
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
        let (loaded, report) =
            load(model(2, 1, 3, (4, 5), "b", &device), &state, &LoadOptions::strict((4, 5))).unwrap();
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
    fn grids_that_are_not_square_come_from_the_metadata() {
        let ramp = HostTensor { shape: vec![1, 9, 1], data: (0..9).map(|i| i as f32).collect() };
        let fit = |file, model, m| fit_positions(&ramp, &[1, m, 1], file, model);
        assert!(fit(Some((2, 4)), Some((2, 4)), 9).is_none(), "the same grid");
        let (turned, from, to) = fit(Some((2, 4)), Some((4, 2)), 9).unwrap();
        assert_eq!((turned.data[0], from, to), (0.0, (2, 4), (4, 2)));
        // 8 positions are no square, so without the file's grid the table is taken as it is.
        assert!(fit(None, Some((2, 4)), 9).is_none());
        // The model without a class token drops the file's row.
        let (dropped, ..) = fit(Some((2, 4)), Some((2, 4)), 8).unwrap();
        assert_eq!(dropped.data, (1..9).map(|i| i as f32).collect::<Vec<_>>());
        // A file without one cannot give the model's.
        assert!(fit(Some((3, 3)), Some((3, 3)), 10).is_none());
        // Nonsense is not resized, and nothing overflows.
        for grid in [(0, 0), (usize::MAX, 2), (9, 0), (2, 3)] {
            assert!(fit(Some(grid), Some((2, 4)), 9).is_none() && fit(None, Some(grid), 9).is_none());
        }
        let empty = HostTensor { shape: vec![1, 0, 1], data: vec![] };
        assert!(fit_positions(&empty, &[1, 9, 1], None, Some((2, 4))).is_none());
    }

    #[test]
    fn dinov2_is_recognised() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/weights/dinov2_vits14.f16.safetensors");
        if !std::path::Path::new(path).exists() {
            return eprintln!("skipped: {path} is not there");
        }
        let state = crate::weights::read(path.as_ref()).unwrap();
        let renamed = our_names(&state).unwrap();
        assert_eq!((renamed.layout, renamed.tensors.len()), (crate::weights::Layout::Timm, 174));
        let positions = &renamed.tensors["backbone.pos_embed"];
        assert_eq!(positions.shape, [1, 1370, 384]);
        let (resized, from, to) = fit_positions(positions, &[1, 1025, 384], None, Some((32, 32))).unwrap();
        assert_eq!((from, to, &resized.data[..384]), ((37, 37), (32, 32), &positions.data[..384]));
        assert_eq!(renamed.tensors["backbone.blocks.11.ls2.gamma"].shape, [384]);
        assert_eq!(state.dtypes["norm.weight"], "f16");
    }
}
