//! Images with what a model makes of them.

use crate::dataset::{Dataset, Sample};
use crate::error::{Error, Result};
use crate::eval::summary::Evaluation;
use crate::image::IGNORE;
use crate::infer::Inference;
use crate::metrics::Confusion;
use crate::report::SamplePanel;

/// Images of least mIoU that are shown.
const WORST: usize = 6;

/// The images of least mIoU, predicted again.
pub(super) fn worst(found: &Evaluation, inference: &Inference, dataset: &dyn Dataset) -> Result<Vec<SamplePanel>> {
    found.worst.iter().take(WORST).map(|image| panel(dataset, image.index, inference)).collect()
}

/// One image: truth and prediction.
pub(super) fn panel(dataset: &dyn Dataset, index: usize, inference: &Inference) -> Result<SamplePanel> {
    let Sample { image, labels } = dataset.get(index)?;
    let at = |error: Error| Error::new(format!("cannot show `{}`", dataset.name(index))).with_source(error);
    let prediction = inference.labels(&image).map_err(at)?;
    let mut confusion = Confusion::new(inference.network.classes());
    confusion.add(&labels, &prediction)?;
    let counted = labels.ids.iter().any(|id| *id != IGNORE);
    let iou = confusion.scores(&dataset.classes().names).miou.filter(|_| counted);
    Ok(SamplePanel { name: dataset.name(index), image, truth: labels, prediction, iou, blocks: Vec::new() })
}
