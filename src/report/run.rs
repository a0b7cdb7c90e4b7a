//! The report of a training run, made from the files in its folder and a few images of its validation split.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, TensorData};

use super::curves;
use crate::dataset::{Dataset, Split};
use crate::error::Result;
use crate::infer::{Inference, overview};
use crate::loader::DataConfig;
use crate::metrics::Scores;
use crate::model::Model;
use crate::model_file::{self, ModelCard};
use crate::report::samples::{panel, worst};
use crate::report::scores::{classes, headlines, tiles};
use crate::report::tokens::WITH_PRIOR;
use crate::report::{About, Report, SamplePanel, TokenBlock, write_report};
use crate::run::rows::Row;
use crate::run::{MODEL, PAGE, log};

/// Images shown.
const SAMPLES: usize = 6;
/// Of a larger image, the tokens are those of a copy scaled down to the pixels of this many windows.
pub(crate) const OVERVIEW: usize = 4;

/// Writes `report.html` into the folder of a finished run, of which `scores` are those of its `model.safetensors`.
/// Returns the page's path.
pub fn write(run: &Path, scores: &Scores, device: &Device, about: &About) -> Result<PathBuf> {
    write_with(run, scores, device, about, None)
}

/// As [`write()`]; `data` says where the images are now.
///
/// # Errors
/// As [`write()`].
pub fn write_with(
    run: &Path,
    scores: &Scores,
    device: &Device,
    about: &About,
    data: Option<&DataConfig>,
) -> Result<PathBuf> {
    let (model, mut card) = model_file::open(run.join(MODEL), device)?;
    if let Some(data) = data {
        card.data.dataset.clone_from(&data.dataset);
        card.data.root.clone_from(&data.root);
    }
    let validation = card.data.open(Split::Val)?;
    let network = model.clone().for_inference();
    let inference = Inference { network: &network, preprocess: &card.data.preprocess, config: &card.eval, device };
    let samples = spread(validation.len(), SAMPLES)
        .map(|index| sample(validation.as_ref(), index, &inference, &network))
        .collect::<Result<Vec<_>>>()?;
    let samples = typical_first(samples);
    let rows = log::read(run)?;
    let report = Report {
        title: about.title.clone(),
        lead: about.lead.clone(),
        command: about.command.clone(),
        summary: summary(&model, &card, scores, about).into_iter().chain(reschedules(&rows)).collect(),
        headlines: match &about.found {
            Some(found) => tiles(found),
            None => headlines(scores),
        },
        curves: curves::curves(&rows),
        classes: classes(scores, &card.classes.colors),
        confusion: Some(scores.matrix.clone()),
        samples,
        next_steps: about.steps(),
        worst: match &about.found {
            Some(found) => worst(found, &inference, validation.as_ref())?,
            None => Vec::new(),
        },
        found: about.found.clone(),
        ..Report::default()
    };
    let page = run.join(PAGE);
    write_report(&page, &report)?;
    Ok(page)
}

/// The sample of the median mIoU, neither the best nor the worst, stands at the top of the page.
fn typical_first(mut samples: Vec<SamplePanel>) -> Vec<SamplePanel> {
    let value = |at: usize| samples[at].iou.unwrap_or(-1.0);
    let mut order: Vec<usize> = (0..samples.len()).collect();
    order.sort_by(|a, b| value(*a).total_cmp(&value(*b)));
    if let Some(typical) = order.get(order.len() / 2) {
        samples[..=*typical].rotate_right(1);
    }
    samples
}

/// `count` indices spread evenly over 0..len.
pub(crate) fn spread(len: usize, count: usize) -> impl Iterator<Item = usize> {
    let count = count.min(len);
    (0..count).map(move |i| i * len / count)
}

fn summary(model: &Model, card: &ModelCard, scores: &Scores, about: &About) -> Vec<(String, String)> {
    let count = model.num_params();
    let mut rows: Vec<(String, String)> =
        scores.warnings.iter().map(|warning| ("Warning".to_owned(), warning.clone())).collect();
    rows.extend([
        ("Dataset".to_owned(), card.data.dataset.clone()),
        ("Parameters".to_owned(), format!("{:.2} million", count as f64 / 1e6)),
        ("Device".to_owned(), about.device.clone()),
        ("Time".to_owned(), about.time()),
        ("Version".to_owned(), card.version.clone()),
    ]);
    if let Some(training) = &card.training {
        rows.push(("Weights of iteration".to_owned(), format!("{} of {}", training.iteration, training.iterations)));
        rows.push(("Images per step".to_owned(), training.batch_size.to_string()));
        rows.push(("Seed".to_owned(), training.seed.to_string()));
    }
    rows
}

/// How a run was rescheduled to end in time.
fn reschedules(rows: &[Row]) -> Option<(String, String)> {
    let reschedules =
        rows.iter().filter_map(|row| if let Row::Reschedule(reschedule) = row { Some(reschedule) } else { None });
    let changes: Vec<String> = reschedules
        .map(|reschedule| format!("{} from iteration {} on", reschedule.iterations, reschedule.iteration))
        .collect();
    (!changes.is_empty()).then(|| ("Length, adjusted to the time".to_owned(), changes.join(", ")))
}

/// One image: truth, prediction, and the tokens after every block.
fn sample(dataset: &dyn Dataset, index: usize, inference: &Inference, model: &Model) -> Result<SamplePanel> {
    let plain = panel(dataset, index, inference)?;
    if !has_tokens(model) {
        return Ok(plain);
    }
    // Where the memory that is left is too little, an image is shown without its tokens.
    let found = overview(model, inference, &plain.image, OVERVIEW);
    let maps = found.map_or_else(|_| Vec::new(), |(trace, _)| trace.maps);
    Ok(SamplePanel { blocks: blocks(&maps), ..plain })
}

/// Whether the decoder has structure tokens: maps, and not vectors.
pub(crate) fn has_tokens(model: &Model) -> bool {
    model.prototypes().first().is_some_and(|tokens| tokens.grid.is_some())
}

/// The structure tokens on their way, with the logits they become; nothing of a decoder that has none, whose logits
/// alone show no way.
pub(crate) fn blocks(trace: &[(String, TensorData)]) -> Vec<TokenBlock> {
    let prior = trace.iter().any(|(name, _)| name == "learned_kernels");
    let stages = trace.iter().filter_map(|(name, map)| Some((stage(name, prior)?, map)));
    let found: Vec<TokenBlock> = stages.map(|(name, map)| block(name, map)).collect();
    if found.len() > 1 { found } else { Vec::new() }
}

/// What a recorded activation is called in the report, where tokens have a `prior` or none; `None` for those that are
/// not tokens.
fn stage(name: &str, prior: bool) -> Option<String> {
    match name {
        "kernels_in" if prior => Some(WITH_PRIOR.to_owned()),
        "kernels_in" | "learned_kernels" => Some("learned tokens".to_owned()),
        "logits16" => Some("logits".to_owned()),
        _ => {
            let number: usize = name.strip_prefix("block")?.strip_suffix(".kernels")?.parse().ok()?;
            Some(format!("after block {}", number + 1))
        }
    }
}

/// `[1, h, w, k]` to `[k, h, w]`.
pub(crate) fn block(name: String, map: &TensorData) -> TokenBlock {
    let [_, height, width, classes] = map.shape()[..] else { unreachable!("a token map has four axes") };
    let values: Vec<f32> = map.iter::<f32>().take(height * width * classes).collect();
    let maps = (0..classes).flat_map(|k| values.iter().skip(k).step_by(classes).copied()).collect();
    TokenBlock { name, maps, height, width }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::ForwardContext;

    #[test]
    fn samples_are_spread_and_tokens_turned() {
        assert_eq!(spread(101, 3).collect::<Vec<_>>(), [0, 33, 67]);
        assert_eq!(spread(2, 6).collect::<Vec<_>>(), [0, 1]);
        let map = TensorData::new(vec![0f32, 10., 1., 11., 2., 12.], [1, 1, 3, 2]);
        assert_eq!(block("x".into(), &map).maps, [0., 1., 2., 10., 11., 12.]);
        assert_eq!(stage("block1.kernels", false).as_deref(), Some("after block 2"));
        assert_eq!(stage("block1.features", false), None);
    }

    #[test]
    fn a_typical_sample_comes_first() {
        let of = |iou: Option<f64>| SamplePanel {
            name: format!("{iou:?}"),
            image: crate::image::Image { width: 0, height: 0, pixels: Vec::new() },
            truth: crate::image::Labels { width: 0, height: 0, ids: Vec::new() },
            prediction: crate::image::Labels { width: 0, height: 0, ids: Vec::new() },
            iou,
            blocks: Vec::new(),
        };
        let order = |ious: &[Option<f64>]| -> Vec<Option<f64>> {
            let samples = typical_first(ious.iter().map(|iou| of(*iou)).collect());
            samples.into_iter().map(|sample| sample.iou).collect()
        };
        assert_eq!(order(&[Some(0.1), Some(0.9), Some(0.8)]), [Some(0.8), Some(0.1), Some(0.9)]);
        assert_eq!(order(&[None, Some(0.5)]), [Some(0.5), None]);
        assert!(order(&[]).is_empty());
    }

    #[test]
    fn decoders_without_structure_tokens_show_none() {
        let trace = |decoder: &str| {
            let text = format!(
                "[model.backbone]\ntype = \"unet\"\nchannels = [8, 16]\ndepths = [1, 1]\nimg_size = [32, 32]\n{decoder}"
            );
            let model = crate::config::Config::parse(&text, "r.toml", &[]).unwrap().model;
            let context = ForwardContext::eval().traced();
            let device = Device::flex();
            model.init(3, 0, &device).forward(burn::tensor::Tensor::zeros([1, 3, 32, 32], &device), &context);
            blocks(&context.into_trace()).into_iter().map(|block| block.name).collect::<Vec<_>>()
        };
        for decoder in ["fcn", "knet", "maskformer"] {
            assert_eq!(trace(&format!("[model.decoder]\ntype = {decoder:?}")), [""; 0], "{decoder}");
        }
        let stages = trace("[model.decoder]\ntype = \"structtoken\"\nnum_blocks = 1");
        assert_eq!(stages, ["learned tokens", "after block 1", "logits"]);
        let stages = trace("[model.decoder]\ntype = \"structtoken\"\nnum_blocks = 1\nprior = \"linear\"");
        assert_eq!(stages, ["learned tokens", WITH_PRIOR, "after block 1", "logits"]);
    }
}
