//! The confusion matrix and the scores that follow from it.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::data::image::{IGNORE, Labels};
use crate::error::{Error, Result};

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
        // So that no sum over a few such files is too large.
        let small = |count: &u64| *count < 1 << 40;
        if !(1..=255).contains(&classes) || matrix.iter().any(|row| row.len() != classes || !row.iter().all(small)) {
            return Err(Error::new("the confusion matrix is not square, or holds impossible counts"));
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
                "the prediction is {} x {} pixels and the truth {} x {}",
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

    /// Adds another matrix of the same classes.
    pub fn merge(&mut self, other: &Confusion) {
        assert_eq!(self.classes, other.classes, "confusion matrices of different classes");
        self.ignored += other.ignored;
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
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
            miou: mean(classes.iter().map(|class| class.iou)),
            macc: mean(classes.iter().map(|class| class.acc)),
            aacc: ratio(correct, pixels),
            mdice: mean(classes.iter().map(|class| class.dice)),
            pixels,
            ignored_pixels: self.ignored,
            absent: classes.iter().filter(|class| class.absent).map(|class| class.name.clone()).collect(),
            classes,
            matrix: self.counts.chunks_exact(self.classes).map(<[u64]>::to_vec).collect(),
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
            "the {what} holds the id {} at column {}, row {}, but there are {} classes",
            labels.ids[at],
            at % labels.width,
            at / labels.width,
            self.classes
        );
        Err(Error::new(message).hint("the class names of the dataset and of the model must be the same list"))
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
    /// One entry a class.
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
    /// A text table of fixed width: one row a class, then the means over classes and the accuracy over all pixels
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

pub(super) fn percent(score: Option<f64>) -> String {
    score.map_or_else(|| "-".to_string(), |score| format!("{:.2}", score * 100.0))
}

pub(super) fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The mean over the values that exist.
pub(super) fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let (sum, n) = values.flatten().fold((0.0, 0u32), |(sum, n), value| (sum + value, n + 1));
    (n > 0).then(|| sum / f64::from(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/golden/structtoken/pipeline/metrics");

    fn labels(width: usize, ids: &[u8]) -> Labels {
        Labels { width, height: ids.len() / width, ids: ids.to_vec() }
    }

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("class {i}")).collect()
    }

    #[test]
    fn scores_follow_the_definitions() {
        let mut confusion = Confusion::new(4);
        confusion.add(&labels(4, &[0, 0, 0, 1, 1, 255, 255, 0]), &labels(4, &[0, 0, 1, 1, 2, 3, 0, 0])).unwrap();
        let scores = confusion.scores(&names(4));
        assert_eq!(scores.matrix, [[3, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]);
        let iou: Vec<_> = scores.classes.iter().map(|class| class.iou).collect();
        assert_eq!(iou, [Some(0.75), Some(1.0 / 3.0), Some(0.0), None]);
        let acc: Vec<_> = scores.classes.iter().map(|class| class.acc).collect();
        assert_eq!(acc, [Some(0.75), Some(0.5), None, None]);
        assert!((scores.miou.unwrap() - (0.75 + 1.0 / 3.0) / 3.0).abs() < 1e-15);
        assert_eq!((scores.macc, scores.aacc), (Some(0.625), Some(4.0 / 6.0)));
        assert_eq!((scores.pixels, scores.ignored_pixels), (6, 2));
        assert_eq!(scores.absent, ["class 2", "class 3"]);
    }

    /// Figures of `torchmetrics` 1.9 on maps made by the same formulas: `MulticlassJaccardIndex(7, ignore_index=255)` and
    /// `MulticlassAccuracy`. Class 4 is in the truth alone, 6 predicted alone, 5 in neither.
    #[test]
    fn equals_torchmetrics() {
        let (mut truth, mut prediction) = (Vec::new(), Vec::new());
        for i in 0..2000usize {
            let t = 2 * i * i % 11 % 5;
            let p = if i % 3 > 0 { t } else { (3 * i * i + 7 * i + 1) % 13 % 7 };
            truth.push(if i % 17 == 5 { 255 } else { t as u8 });
            prediction.push(match p {
                4 => 6,
                5 => 0,
                p => p as u8,
            });
        }
        let mut confusion = Confusion::new(7);
        confusion.add(&labels(50, &truth), &labels(50, &prediction)).unwrap();
        let scores = confusion.scores(&names(7));
        let close = |ours: Option<f64>, theirs: f64| (ours.unwrap() - theirs).abs() < 1e-6;
        assert!(close(scores.miou, 0.372_589_17) && close(scores.aacc, 0.615_834_24));
        let theirs = [0.528_112_47, 0.654_275_12, 0.585_714_28, 0.467_432_95, 0.0];
        assert!(scores.classes.iter().zip(theirs).all(|(class, iou)| close(class.iou, iou)));
        assert_eq!((scores.classes[5].iou, scores.classes[6].iou), (None, Some(0.0)));
        assert!(close(scores.classes[3].acc, 0.713_450_31) && scores.classes[4].acc == Some(0.0));
        assert_eq!(scores.absent, ["class 5", "class 6"]);
    }

    #[test]
    fn edge_cases_by_hand() {
        let score = |classes: usize, truth: &[u8], prediction: &[u8]| {
            let mut confusion = Confusion::new(classes);
            confusion.add(&labels(truth.len(), truth), &labels(truth.len(), prediction)).unwrap();
            confusion.scores(&names(classes))
        };
        // Everything ignored: no scores, whatever was predicted.
        let ignored = score(3, &[255; 4], &[0, 1, 2, 0]);
        assert_eq!((ignored.miou, ignored.aacc, ignored.pixels, ignored.ignored_pixels), (None, None, 0, 4));
        assert!(ignored.classes.iter().all(|class| class.predicted_pixels == 0 && class.iou.is_none()));
        // One class can only be right.
        let one = score(1, &[0, 0, 255], &[0, 0, 0]);
        assert_eq!((one.miou, one.macc, one.mdice, one.aacc), (Some(1.0), Some(1.0), Some(1.0), Some(1.0)));
        // Nothing right: 0, not missing, for both classes; the third is in neither map and takes no part.
        let wrong = score(3, &[0, 0], &[1, 1]);
        assert_eq!((wrong.miou, wrong.macc, wrong.mdice), (Some(0.0), Some(0.0), Some(0.0)));
        assert_eq!(wrong.classes.iter().map(|class| class.iou).collect::<Vec<_>>(), [Some(0.0), Some(0.0), None]);
        // A class that is only imagined lowers mIoU, but is no part of mAcc.
        let imagined = score(2, &[0, 0, 0, 0], &[0, 0, 0, 1]);
        assert_eq!((imagined.miou, imagined.macc), (Some(0.375), Some(0.75)));
        assert_eq!(imagined.absent, ["class 1"]);
    }

    #[test]
    fn a_matrix_from_a_file_is_checked() {
        let mut confusion = Confusion::new(2);
        confusion.add(&labels(2, &[0, 255]), &labels(2, &[1, 1])).unwrap();
        let text = serde_json::to_string(&confusion).unwrap();
        assert_eq!(text, r#"{"matrix":[[0,1],[0,0]],"ignored":1}"#);
        assert_eq!(serde_json::from_str::<Confusion>(&text).unwrap(), confusion);
        for broken in ["[]", "[[1]", "[[1,2],[3]]", "[[18446744073709551615]]"] {
            assert!(serde_json::from_str::<Confusion>(&format!(r#"{{"matrix":{broken},"ignored":0}}"#)).is_err());
        }
    }

    #[test]
    fn merging_is_adding() {
        let (a, b) = (labels(3, &[0, 1, 255]), labels(3, &[1, 1, 0]));
        let (mut one, mut two) = (Confusion::new(2), Confusion::new(2));
        one.add(&a, &b).unwrap();
        two.add(&b, &b).unwrap();
        let mut both = one.clone();
        both.add(&b, &b).unwrap();
        one.merge(&two);
        assert_eq!(one, both);
    }

    #[test]
    fn hostile_maps_are_refused_and_leave_no_trace() {
        let mut confusion = Confusion::new(2);
        let good = labels(2, &[0, 1, 1, 0]);
        for (truth, prediction, part) in [
            (labels(2, &[0, 1, 2, 0]), good.clone(), "truth holds the id 2 at column 0, row 1"),
            (good.clone(), labels(2, &[0, 1, 1, 255]), "prediction holds the id 255 at column 1, row 1"),
            (good.clone(), labels(4, &[0, 1, 1, 0]), "4 x 1"),
        ] {
            let error = confusion.add(&truth, &prediction).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(confusion, Confusion::new(2));
    }

    #[test]
    fn an_empty_matrix_has_no_scores() {
        let scores = Confusion::new(2).scores(&names(2));
        assert_eq!((scores.miou, scores.macc, scores.aacc, scores.mdice), (None, None, None, None));
        assert!(scores.table().contains("absent"));
    }

    #[test]
    fn json_keeps_everything() {
        let mut confusion = Confusion::new(3);
        confusion.add(&labels(2, &[0, 1]), &labels(2, &[0, 0])).unwrap();
        let scores = confusion.scores(&names(3));
        let text = serde_json::to_string(&scores).unwrap();
        assert!(text.contains(r#""matrix":[[1,0,0],[1,0,0],[0,0,0]]"#) && text.contains(r#""absent":["class 2"]"#));
        assert_eq!(serde_json::from_str::<Scores>(&text).unwrap(), scores);
    }

    #[test]
    fn the_table_is_aligned() {
        let mut confusion = Confusion::new(3);
        confusion.add(&labels(4, &[0, 0, 0, 1]), &labels(4, &[0, 0, 1, 1])).unwrap();
        let names = ["sky", "a class with a name that never seems to end", "road"].map(String::from);
        insta::assert_snapshot!(confusion.scores(&names).table(), @r"
        class                                IoU     Acc    Dice   pixels
        sky                                66.67   66.67   80.00   75.00%
        a class with a name that never …   50.00  100.00   66.67   25.00%
        road                                   -       -       -   absent
        mean                               58.33   83.33   73.33
        all pixels                                 75.00
        ");
    }

    #[test]
    fn matches_the_reference() {
        let (Ok(json), Ok(bytes)) =
            (std::fs::read_to_string(format!("{GOLDEN}.json")), std::fs::read(format!("{GOLDEN}.safetensors")))
        else {
            eprintln!("skipped: no `{GOLDEN}.*`");
            return;
        };
        let golden: serde_json::Value = serde_json::from_str(&json).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let map = |name: &str| labels(50, file.tensor(name).unwrap().data());
        for kind in ["plain", "reduce"] {
            let mut confusion = Confusion::new(6);
            for i in 0..3 {
                let mut truth = map(&format!("gt{i}"));
                if kind == "reduce" {
                    // 0 becomes ignored and the others move down by one.
                    truth.ids.iter_mut().for_each(|id| *id = if matches!(*id, 0 | 255) { 255 } else { *id - 1 });
                }
                confusion.add(&truth, &map(&format!("pred{i}"))).unwrap();
            }
            let scores = confusion.scores(&names(6));
            let close = |ours: Option<f64>, theirs: &serde_json::Value| match (ours, theirs.as_f64()) {
                (Some(ours), Some(theirs)) => (ours - theirs).abs() < 1e-6,
                (ours, theirs) => ours.is_none() && theirs.is_none(),
            };
            for (c, class) in scores.classes.iter().enumerate() {
                for (name, value) in [("IoU", class.iou), ("Acc", class.acc), ("Dice", class.dice)] {
                    assert!(close(value, &golden[kind][name][c]), "{kind} {name} {c}: {value:?}");
                }
                let area = |name: &str| -> f32 {
                    let tensor = file.tensor(&format!("{kind}.{name}")).unwrap();
                    bytemuck::pod_collect_to_vec::<u8, f32>(tensor.data()).iter().skip(c).step_by(6).sum()
                };
                assert_eq!(class.pixels as f32, area("area_label"));
                assert_eq!(class.predicted_pixels as f32, area("area_pred"));
                assert_eq!(scores.matrix[c][c] as f32, area("area_intersect"));
            }
            let summary = &golden[format!("{kind}_summary")];
            for (name, value) in
                [("mIoU", scores.miou), ("mAcc", scores.macc), ("aAcc", scores.aacc), ("mDice", scores.mdice)]
            {
                assert!(close(value, &summary[name]), "{kind} {name}: {value:?} {}", summary[name]);
            }
        }
    }
}
