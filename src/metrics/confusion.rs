//! The confusion matrix and the scores that follow from it.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::image::{IGNORE, Labels};
use crate::metrics::image_counts::ImageCounts;
use crate::metrics::overlap::{Overlaps, increase};
use crate::stats::{mean_of_some, ratio};
use crate::text::percent_or;

/// Pixel counts by true class (row) and predicted class (column), over any number of images.
///
/// Pixels whose truth is 255 count nowhere, whatever was predicted there. In JSON the matrix and the ignored pixels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Counts", into = "Counts")]
pub struct Confusion {
    classes: usize,
    counts: Vec<u64>,
    ignored: u64,
}

/// A matrix as it stands in a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counts {
    matrix: Vec<Vec<u64>>,
    ignored: u64,
}

impl TryFrom<Counts> for Confusion {
    type Error = Error;

    fn try_from(Counts { matrix, ignored }: Counts) -> Result<Self> {
        let classes = matrix.len();
        if !(1..=255).contains(&classes) || matrix.iter().any(|row| row.len() != classes) {
            return Err(Error::new("the confusion matrix is not square, or not of 1 to 255 classes"));
        }
        // More could not be told apart as shares, which are of f64.
        let all: u128 = matrix.iter().flatten().chain([&ignored]).map(|count| u128::from(*count)).sum();
        if all > 1 << 53 {
            return Err(Error::new(format!(
                "the confusion matrix and the ignored pixels hold an impossible count, {all} in total"
            )));
        }
        Ok(Self { classes, counts: matrix.concat(), ignored })
    }
}

impl From<Confusion> for Counts {
    fn from(confusion: Confusion) -> Self {
        let matrix = confusion.counts.chunks_exact(confusion.classes).map(<[u64]>::to_vec).collect();
        Self { matrix, ignored: confusion.ignored }
    }
}

impl Confusion {
    /// An empty matrix of `classes` x `classes`; at most 255 classes.
    pub fn new(classes: usize) -> Self {
        assert!((1..=255).contains(&classes), "label maps hold 1 to 255 classes, not {classes}");
        Self { classes, counts: vec![0; classes * classes], ignored: 0 }
    }

    /// Counts one image. Nothing is counted when it fails: on maps of different sizes, a truth that is neither a class
    /// nor 255, or a prediction that is not a class.
    pub fn add(&mut self, truth: &Labels, prediction: &Labels) -> Result<()> {
        let size = |labels: &Labels| (labels.width, labels.height);
        if size(truth) != size(prediction) || truth.ids.len() != prediction.ids.len() {
            return Err(Error::new(format!(
                "the prediction has {} x {} pixels, but the truth has {} x {}",
                prediction.width, prediction.height, truth.width, truth.height
            )));
        }
        self.reject(truth, "truth", |id| usize::from(id) >= self.classes && id != IGNORE)?;
        self.reject(prediction, "prediction", |id| usize::from(id) >= self.classes)?;
        for (&truth, &prediction) in truth.ids.iter().zip(&prediction.ids) {
            match truth {
                IGNORE => self.ignored += 1,
                _ => self.counts[usize::from(truth) * self.classes + usize::from(prediction)] += 1,
            }
        }
        Ok(())
    }

    /// The matrix that scores were computed from.
    ///
    /// # Errors
    /// One that is not square.
    pub fn of(scores: &Scores) -> Result<Self> {
        Self::try_from(Counts { matrix: scores.matrix.clone(), ignored: scores.ignored_pixels })
    }

    /// Adds another matrix of the same classes.
    pub fn merge(&mut self, other: &Confusion) {
        assert_eq!(self.classes, other.classes, "confusion matrices of different classes");
        self.ignored += other.ignored;
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// Adds another matrix of the same classes that was read from a file.
    pub(crate) fn merge_read(&mut self, other: &Confusion) -> Result<()> {
        assert_eq!(self.classes, other.classes, "confusion matrices of different classes");
        increase(&mut self.ignored, other.ignored)?;
        self.counts.iter_mut().zip(&other.counts).try_for_each(|(count, more)| increase(count, *more))
    }

    /// What truth and prediction share, class by class.
    pub(crate) fn overlaps(&self) -> Overlaps {
        let sum = |of: &dyn Fn(usize) -> u64| (0..self.classes).map(of).sum::<u64>();
        let class = |c| [self.count(c, c), sum(&|other| self.count(c, other)), sum(&|other| self.count(other, c))];
        Overlaps::of((0..self.classes).map(class))
    }

    /// The same of the one image that has been counted.
    pub fn image_counts(&self) -> ImageCounts {
        self.overlaps().image_counts()
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Pixels of the class `truth` that were predicted to be `prediction`.
    pub fn count(&self, truth: usize, prediction: usize) -> u64 {
        self.counts[truth * self.classes + prediction]
    }

    /// The scores, as mmsegmentation defines them; one name for each class.
    pub fn scores(&self, names: &[String]) -> Scores {
        assert_eq!(names.len(), self.classes, "one name for each class");
        let classes: Vec<ClassScore> = names.iter().enumerate().map(|(c, name)| self.class(c, name)).collect();
        let correct: u64 = (0..self.classes).map(|c| self.count(c, c)).sum();
        let pixels: u64 = self.counts.iter().sum();
        Scores {
            miou: mean_of_some(classes.iter().map(|class| class.iou)),
            macc: mean_of_some(classes.iter().map(|class| class.acc)),
            aacc: ratio(correct, pixels),
            mdice: mean_of_some(classes.iter().map(|class| class.dice)),
            pixels,
            ignored_pixels: self.ignored,
            warnings: self.warnings(&classes),
            absent: classes.iter().filter(|class| class.absent).map(|class| class.name.clone()).collect(),
            classes,
            matrix: self.counts.chunks_exact(self.classes).map(<[u64]>::to_vec).collect(),
        }
    }

    /// Where a score has no meaning, why.
    fn warnings(&self, classes: &[ClassScore]) -> Vec<String> {
        let among = |holds: &dyn Fn(usize) -> bool| (0..self.classes).filter(|c| holds(*c)).collect::<Vec<_>>();
        let truth = among(&|c| classes[c].pixels > 0);
        let predicted = among(&|c| classes[c].predicted_pixels > 0);
        let right = among(&|c| self.count(c, c) > 0);
        let name = |c: usize| &classes[c].name;
        match (truth.as_slice(), predicted.as_slice(), right.as_slice()) {
            ([], ..) if self.ignored > 0 => vec![format!(
                "every pixel of the truth is ignored ({}): there is no score; check `ignore` and the masks",
                self.ignored
            )],
            ([], ..) => vec!["no pixel was counted: there is no score".to_owned()],
            ([only], ..) if self.classes == 1 => vec![format!(
                "`{}` is the only class, so every prediction is right and the scores say nothing: make what does not \
                 belong to it a class too",
                name(*only)
            )],
            ([only], ..) => vec![format!(
                "the truth holds only one class, `{}`: a model that predicts nothing else scores 100 %, so the scores \
                 say nothing; check the masks, and that the split shows all classes",
                name(*only)
            )],
            (truth, [only], _) if truth.len() > 1 => vec![format!(
                "the model predicts `{}` for every pixel, although the truth holds {} classes: it has not (yet) \
                 learned to tell them apart",
                name(*only),
                truth.len()
            )],
            (truth, _, right) if truth.len() > 1 && right.len() <= 1 => vec![format!(
                "the model finds no pixel of any of the {} classes in the truth{}",
                truth.len(),
                right.first().map(|c| format!(" but `{}`", name(*c))).unwrap_or_default()
            )],
            _ => Vec::new(),
        }
    }

    fn class(&self, c: usize, name: &str) -> ClassScore {
        let hit = self.count(c, c);
        let pixels: u64 = (0..self.classes).map(|other| self.count(c, other)).sum();
        let predicted: u64 = (0..self.classes).map(|other| self.count(other, c)).sum();
        ClassScore {
            name: name.to_string(),
            iou: ratio(hit, pixels + predicted - hit),
            acc: ratio(hit, pixels),
            dice: ratio(2 * hit, pixels + predicted),
            pixels,
            predicted_pixels: predicted,
            absent: pixels == 0,
        }
    }

    fn reject(&self, labels: &Labels, what: &str, bad: impl Fn(u8) -> bool) -> Result<()> {
        let Some(at) = labels.ids.iter().position(|id| bad(*id)) else { return Ok(()) };
        let message = format!(
            "the {what} holds the id {} at column {}, row {}, but there are only {} classes",
            labels.ids[at],
            at % labels.width,
            at / labels.width,
            self.classes
        );
        Err(Error::new(message).with_hint("the class names of the dataset and of the model must be the same list"))
    }
}

/// What a confusion matrix says, with the matrix itself, so that any other number can be derived.
///
/// Ratios lie in 0..=1. A ratio without a denominator is `None` (`null` in JSON) and takes no part in a mean: IoU and
/// Dice where a class is neither in the truth nor predicted, accuracy where it is not in the truth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Mean over classes of IoU.
    pub miou: Option<f64>,
    /// Mean over classes of accuracy (recall).
    pub macc: Option<f64>,
    /// Correct pixels over counted pixels.
    pub aacc: Option<f64>,
    /// Mean over classes of Dice.
    pub mdice: Option<f64>,
    /// Counted pixels.
    pub pixels: u64,
    /// Pixels whose truth is 255.
    pub ignored_pixels: u64,
    /// Names of the classes that the truth never holds.
    pub absent: Vec<String>,
    /// Why the scores say nothing, or little.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// One entry per class.
    pub classes: Vec<ClassScore>,
    /// Pixel counts, rows = truth, columns = prediction.
    pub matrix: Vec<Vec<u64>>,
}

/// The scores of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// The class name.
    pub name: String,
    /// TP / (TP + FP + FN).
    pub iou: Option<f64>,
    /// TP / (TP + FN), also called recall.
    pub acc: Option<f64>,
    /// 2 TP / (2 TP + FP + FN), also called F-score.
    pub dice: Option<f64>,
    /// Pixels of this class in the truth.
    pub pixels: u64,
    /// Pixels predicted as this class where the truth is not 255.
    pub predicted_pixels: u64,
    /// Whether the truth never holds this class.
    pub absent: bool,
}

impl Scores {
    /// Fails if these cannot be scores, since they are not those of their matrix: what is read from a file may be
    /// anything.
    ///
    /// # Errors
    /// The field that is wrong.
    pub fn check(&self) -> Result<()> {
        let names: Vec<String> = self.classes.iter().map(|class| class.name.clone()).collect();
        let confusion = Confusion::of(self)?;
        if names.len() != confusion.classes() {
            let (rows, classes) = (confusion.classes(), names.len());
            return Err(Error::new(format!("the matrix has {rows} rows, and there are {classes} classes")));
        }
        let right = confusion.scores(&names);
        let means = [
            ("miou", self.miou, right.miou),
            ("macc", self.macc, right.macc),
            ("aacc", self.aacc, right.aacc),
            ("mdice", self.mdice, right.mdice),
        ];
        if let Some((field, found, right)) = means.into_iter().find(|(_, found, right)| found != right) {
            return Err(Error::new(format!("{field} = {found:?}, where the matrix gives {right:?}")));
        }
        if self.ignored_pixels > 1 << 58 {
            return Err(Error::new(format!("ignored_pixels = {}: no dataset has that many", self.ignored_pixels)));
        }
        if self.pixels != right.pixels || self.absent != right.absent {
            return Err(Error::new("pixels or absent are not those of the matrix"));
        }
        match self.classes.iter().zip(&right.classes).find(|(found, right)| found != right) {
            Some((class, _)) => Err(Error::new(format!("the scores of `{}` are not those of the matrix", class.name))),
            None => Ok(()),
        }
    }

    /// A text table of fixed width: one row per class, then the means over classes and the accuracy over all pixels
    /// (aAcc). Scores in percent, `-` where there is none; `pixels` is the class's share of the counted ones.
    pub fn table(&self) -> String {
        let longest = self.classes.iter().map(|class| class.name.chars().count()).max().unwrap_or(0);
        let width = longest.clamp(10, 32);
        let all = self.pixels.max(1) as f64;
        let mut text = format!("{:width$}  {:>6}  {:>6}  {:>6}  {:>7}\n", "class", "IoU", "Acc", "Dice", "pixels");
        for class in &self.classes {
            let name = shorten(&class.name, width);
            let (iou, acc, dice) = (percent(class.iou), percent(class.acc), percent(class.dice));
            let share = match class.absent {
                true => "absent".to_string(),
                false => format!("{:.2}%", class.pixels as f64 / all * 100.0),
            };
            let _ = writeln!(text, "{name:width$}  {iou:>6}  {acc:>6}  {dice:>6}  {share:>7}");
        }
        let (iou, acc, dice) = (percent(self.miou), percent(self.macc), percent(self.mdice));
        let _ = writeln!(text, "{:width$}  {iou:>6}  {acc:>6}  {dice:>6}", "mean");
        let _ = writeln!(text, "{:width$}  {:>6}  {:>6}", "all pixels", "", percent(self.aacc));
        for warning in &self.warnings {
            let _ = writeln!(text, "warning: {warning}");
        }
        text
    }
}

/// The name, cut to `width` characters with an ellipsis.
fn shorten(name: &str, width: usize) -> String {
    match name.chars().count() <= width {
        true => name.to_string(),
        false => name.chars().take(width - 1).chain(['…']).collect(),
    }
}

/// A score as a cell of a text.
pub(crate) fn percent(score: Option<f64>) -> String {
    percent_or(score, 2, "-")
}

#[cfg(test)]
mod tests;
