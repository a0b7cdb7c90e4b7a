//! The page of an evaluation.

use std::path::Path;

use crate::dataset::{Classes, Dataset};
use crate::error::Result;
use crate::eval::summary::Evaluation;
use crate::image::{Image, Labels};
use crate::infer::Inference;
use crate::metrics::label_issues::LabelIssue;
use crate::report::samples::{panel, worst};
use crate::report::scores::{classes, tiles};
use crate::report::{About, LabelIssuePanel, Report, SamplePanel, write_report};

/// Suspected regions that are shown.
const LABEL_ISSUES: usize = 24;
/// Pixels around a suspected region, at least.
const MARGIN: usize = 16;

/// Writes the page of an evaluation to `path`. With `seen`, the network and the dataset it was evaluated on, it shows
/// pictures: those images are predicted again, so that an evaluation need not keep any. The page's size does not depend
/// on the number of images.
///
/// # Errors
/// An image that cannot be read again, or a page that cannot be written.
pub fn write(
    path: &Path,
    found: &Evaluation,
    of: &Classes,
    seen: Option<(&Inference, &dyn Dataset)>,
    about: &About,
) -> Result<()> {
    let (worst, label_issues) = match seen {
        Some((inference, dataset)) => (worst(found, inference, dataset)?, label_issues(found, inference, dataset)?),
        None => (Vec::new(), Vec::new()),
    };
    let report = Report {
        title: about.title.clone(),
        lead: about.lead.clone(),
        command: about.command.clone(),
        summary: facts(found, about),
        headlines: tiles(found),
        classes: classes(&found.scores, &of.colors),
        confusion: Some(found.scores.matrix.clone()),
        found: Some(found.clone()),
        worst,
        label_issues,
        next_steps: about.steps(),
        ..Report::default()
    };
    write_report(path, &report)
}

fn facts(found: &Evaluation, about: &About) -> Vec<(String, String)> {
    let warnings = found.scores.warnings.iter().map(|warning| ("Warning".to_owned(), warning.clone()));
    let mut facts: Vec<(String, String)> = warnings.collect();
    facts.push(("Images".to_owned(), found.images.to_string()));
    if let Some([low, high]) = found.miou_interval {
        facts.push(("mIoU, 95 % over images".to_owned(), format!("{:.1} to {:.1} %", low * 100.0, high * 100.0)));
    }
    if !about.device.is_empty() {
        facts.push(("Device".to_owned(), about.device.clone()));
        facts.push(("Time".to_owned(), about.time()));
    }
    facts.push(("Version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()));
    facts
}

fn label_issues(found: &Evaluation, inference: &Inference, dataset: &dyn Dataset) -> Result<Vec<LabelIssuePanel>> {
    let mut panels = Vec::new();
    // An image with several is predicted once for those that follow each other.
    let mut last: Option<(usize, SamplePanel)> = None;
    for issue in found.label_issues.iter().flatten().take(LABEL_ISSUES) {
        let (_, whole) = match last.take() {
            Some((index, whole)) if index == issue.index => last.insert((index, whole)),
            _ => last.insert((issue.index, panel(dataset, issue.index, inference)?)),
        };
        panels.push(cut(issue, whole));
    }
    Ok(panels)
}

/// The region with half of its size around it.
fn cut(issue: &LabelIssue, whole: &SamplePanel) -> LabelIssuePanel {
    let [x, y, width, height] = issue.bounds;
    let margin = (width.max(height) / 2).max(MARGIN);
    let across = x.saturating_sub(margin)..(x + width + margin).min(whole.image.width);
    let down = y.saturating_sub(margin)..(y + height + margin).min(whole.image.height);
    let rows = |labels: &Labels| -> Vec<u8> {
        down.clone().flat_map(|row| labels.ids[row * labels.width..][across.clone()].iter().copied()).collect()
    };
    let labels = |of: &Labels| Labels { width: across.len(), height: down.len(), ids: rows(of) };
    let bytes = across.start * 3..across.end * 3;
    let pixels =
        down.clone().flat_map(|row| whole.image.pixels[row * whole.image.width * 3..][bytes.clone()].iter().copied());
    let crop = SamplePanel {
        name: issue.image.clone(),
        image: Image { width: across.len(), height: down.len(), pixels: pixels.collect() },
        truth: labels(&whole.truth),
        prediction: labels(&whole.prediction),
        iou: None,
        blocks: Vec::new(),
    };
    LabelIssuePanel { issue: issue.clone(), corner: [across.start, down.start], crop }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crops_stay_inside_and_hold_the_region() {
        let (width, height) = (60, 40);
        let labels = Labels { width, height, ids: (0..width * height).map(|i| (i % 251) as u8).collect() };
        let pixels = (0..width * height * 3).map(|i| (i / 3 % 251) as u8).collect();
        let whole = SamplePanel {
            name: "a".into(),
            image: Image { width, height, pixels },
            truth: labels.clone(),
            prediction: labels,
            iou: None,
            blocks: vec![],
        };
        for bounds in [[0, 0, 60, 40], [50, 30, 10, 10], [0, 39, 1, 1], [20, 15, 8, 4]] {
            let issue = LabelIssue {
                index: 0,
                image: "a".into(),
                label: "x".into(),
                prediction: "y".into(),
                bounds,
                pixels: 1,
                confidence: 1.0,
                of_label: 0.0,
                score: 1.0,
            };
            let LabelIssuePanel { corner: [left, top], crop, .. } = cut(&issue, &whole);
            let [x, y, w, h] = bounds;
            assert!(left <= x && top <= y && x + w <= left + crop.image.width && y + h <= top + crop.image.height);
            for (at, id) in crop.truth.ids.iter().enumerate() {
                let (column, row) = (left + at % crop.truth.width, top + at / crop.truth.width);
                assert_eq!(*id, ((row * width + column) % 251) as u8);
                assert_eq!(crop.image.pixels[at * 3], *id);
            }
        }
    }
}
