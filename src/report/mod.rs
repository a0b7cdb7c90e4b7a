//! One self-contained page about a run: `report.html`.
//!
//! A training run, an evaluation or the demo fills in a [`Report`] (plain numbers and pictures, no tensors) and
//! [`write_report`] turns it into a page that needs no network, no other file and no server. The page explains itself
//! to a reader who has never seen the tool: what was run, how good it is, where it fails, and how the structure tokens
//! became masks.

use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::eval::summary::Evaluation;
use crate::files;
use crate::image::{Image, Labels};
use crate::metrics::label_issues::LabelIssue;

mod about;
pub(crate) mod axes;
mod charts;
mod confusion;
pub mod curves;
pub(crate) mod document;
pub mod evaluation;
mod html;
mod label_issues;
pub(crate) mod markup;
mod picture_budget;
pub(crate) mod pictures;
mod quality;
pub mod run;
mod samples;
mod scores;
mod tokens;

pub use about::About;
pub use html::render;

/// Everything that a page shows. Empty parts are left out of the page.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// What the page is about, in a few words: `Shapes demo`.
    pub title: String,
    /// One or two sentences below the title; may be empty.
    pub lead: String,
    /// The exact command that made this page; may be empty.
    pub command: String,
    /// What was run, as name and value: device, seed, version, dataset, iterations, time, parameters.
    pub summary: Vec<(String, String)>,
    /// The numbers to remember.
    pub headlines: Vec<Headline>,
    /// Values over iterations.
    pub curves: Vec<Curve>,
    /// One row per class, in the order of the class indices. The pictures take their colours from here.
    pub classes: Vec<ClassRow>,
    /// Pixels counted by `[truth][prediction]`, k x k.
    pub confusion: Option<Vec<Vec<u64>>>,
    /// Images with what the model made of them.
    pub samples: Vec<SamplePanel>,
    /// What an evaluation found: edges, calibration, pairs of classes.
    pub found: Option<Evaluation>,
    /// The images of least mIoU, the worst first.
    pub worst: Vec<SamplePanel>,
    /// Regions whose truth may be wrong, the most suspicious first.
    pub label_issues: Vec<LabelIssuePanel>,
    /// What to do next.
    pub next_steps: Vec<NextStep>,
}

/// A number to remember, with its meaning.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Headline {
    /// `mIoU`.
    pub name: String,
    /// As it is to be read: `71.3 %`.
    pub value: String,
    /// One short sentence for a reader who does not know the term.
    pub meaning: String,
}

impl Headline {
    /// The mean intersection over union; `value` between 0 and 1.
    pub fn mean_iou(value: f64) -> Self {
        let meaning = "How well predicted and true regions overlap, averaged over the classes. 100 % is perfect.";
        Self::percent("mIoU", value, meaning)
    }

    /// The share of right pixels; `value` between 0 and 1.
    pub fn pixel_accuracy(value: f64) -> Self {
        Self::percent("Pixel accuracy", value, "The share of labelled pixels whose class is right.")
    }

    /// The mean over classes of the share of right pixels; `value` between 0 and 1.
    pub fn mean_accuracy(value: f64) -> Self {
        let meaning = "The share of correct pixels per class, averaged over the classes.";
        Self::percent("Mean accuracy", value, meaning)
    }

    /// The mean Dice score (F1); `value` between 0 and 1.
    pub fn mean_dice(value: f64) -> Self {
        let meaning = "Twice the overlap divided by the sum of both areas, averaged over the classes.";
        Self::percent("Mean Dice", value, meaning)
    }

    /// Boundary IoU; `value` between 0 and 1.
    pub fn boundary_iou(value: f64) -> Self {
        let meaning = "The overlap along the contours only, within 2 % of the image's diagonal.";
        Self::percent("Boundary IoU", value, meaning)
    }

    /// The expected calibration error; `value` between 0 and 1.
    pub fn calibration_error(value: f64) -> Self {
        let meaning = "How far the model's probabilities are off on average. 0 % is perfect.";
        Self::percent("Calibration error", value, meaning)
    }

    fn percent(name: &str, value: f64, meaning: &str) -> Self {
        let value = if value.is_finite() { format!("{:.1} %", value * 100.0) } else { "–".into() };
        Self { name: name.into(), value, meaning: meaning.into() }
    }
}

/// Which end of a curve is the good one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum Goal {
    /// A loss.
    Lower,
    /// A score.
    Higher,
    /// A setting such as the learning rate.
    #[default]
    Neither,
}

/// Values over iterations.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Curve {
    /// `Training loss`.
    pub name: String,
    /// The unit of the values, which are drawn as they are; may be empty.
    pub unit: String,
    /// Which values are good.
    pub goal: Goal,
    /// `(iteration, value)`. Values that are not finite are counted and left out of the drawing.
    pub points: Vec<(f64, f64)>,
}

/// The scores of one class.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClassRow {
    /// The class's name.
    pub name: String,
    /// Its colour in the pictures.
    pub color: [u8; 3],
    /// Intersection over union, 0..=1; `None` where neither truth nor prediction holds the class.
    pub iou: Option<f64>,
    /// Share of the truth's pixels found, 0..=1; `None` where the truth does not hold the class.
    pub accuracy: Option<f64>,
    /// Dice score, 0..=1; `None` as for `iou`.
    pub dice: Option<f64>,
    /// Pixels of the class in the truth; 0 says that the class is absent.
    pub pixels: u64,
}

/// An image, its truth, its prediction, and the structure tokens on the way.
#[derive(Clone, Debug, Serialize)]
pub struct SamplePanel {
    /// The file's name.
    pub name: String,
    /// The input.
    #[serde(skip)]
    pub image: Image,
    /// The truth, of the image's size; 255 = ignore.
    #[serde(skip)]
    pub truth: Labels,
    /// The prediction, of the image's size.
    #[serde(skip)]
    pub prediction: Labels,
    /// The mIoU of this image alone, 0..=1.
    pub iou: Option<f64>,
    /// The tokens before the first block, after each block, and the logits; may be empty.
    pub blocks: Vec<TokenBlock>,
}

/// The structure tokens of one image at one stage of the decoder.
#[derive(Clone, Debug, Serialize)]
pub struct TokenBlock {
    /// `learned`, `block 1`, …, `logits`.
    pub name: String,
    /// `[k, height, width]`, row-major: one map per class.
    #[serde(skip)]
    pub maps: Vec<f32>,
    /// Rows of the feature grid.
    pub height: usize,
    /// Columns of the feature grid.
    pub width: usize,
}

/// A region whose truth may be wrong, with what lies around it.
#[derive(Clone, Debug, Serialize)]
pub struct LabelIssuePanel {
    /// What is suspected; its bounds are those in the whole image.
    pub issue: LabelIssue,
    /// Left and top of the pictures in the whole image.
    pub corner: [usize; 2],
    /// The part of the image around the region, with truth and prediction of the same size.
    pub crop: SamplePanel,
}

/// A command worth trying next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NextStep {
    /// The command as typed.
    pub command: String,
    /// What it does, in one sentence.
    pub purpose: String,
}

impl Report {
    /// Fails where the parts do not fit each other: the first part that is wrong, by name.
    pub fn check(&self) -> Result<()> {
        let k = self.classes.len();
        if k > 255 {
            return Err(Error::new(format!("a report shows at most 255 classes, not {k}")));
        }
        if self.confusion.as_ref().is_some_and(|rows| rows.len() != k || rows.iter().any(|row| row.len() != k)) {
            return Err(Error::new(format!("the report's confusion matrix is not {k} x {k}")));
        }
        let crops = self.label_issues.iter().map(|issue| &issue.crop);
        self.samples.iter().chain(&self.worst).chain(crops).try_for_each(|sample| sample.check(k))?;
        match &self.found {
            Some(found) if found.scores.classes.len() != k => {
                Err(Error::new(format!("the report's evaluation is not of {k} classes")))
            }
            _ => Ok(()),
        }
    }
}

impl SamplePanel {
    fn check(&self, k: usize) -> Result<()> {
        let (width, height) = (self.image.width, self.image.height);
        let wrong = |what: String| Err(Error::new(format!("the report's sample `{}` {what}", self.name)));
        let area = width.checked_mul(height).filter(|&area| area > 0);
        if area.and_then(|area| area.checked_mul(3)) != Some(self.image.pixels.len()) {
            return wrong(format!("has {} bytes for {width} x {height} pixels", self.image.pixels.len()));
        }
        for (what, labels) in [("truth", &self.truth), ("prediction", &self.prediction)] {
            if (labels.width, labels.height, Some(labels.ids.len())) != (width, height, area) {
                return wrong(format!("has a {what} of another size than its image"));
            }
        }
        for block in &self.blocks {
            let values = block.height.checked_mul(block.width).and_then(|area| area.checked_mul(k));
            if block.maps.is_empty() || values != Some(block.maps.len()) {
                return wrong(format!("has token maps `{}` that are not {k} x height x width", block.name));
            }
        }
        Ok(())
    }
}

/// Writes the page of `report` to `path`: beside it first, then renamed.
///
/// # Errors
/// Where the report's parts do not fit each other, or the file cannot be written.
pub fn write_report(path: &Path, report: &Report) -> Result<()> {
    files::write(path, render(report)?.as_bytes())
}

#[cfg(test)]
mod example;

#[cfg(test)]
mod tests;
