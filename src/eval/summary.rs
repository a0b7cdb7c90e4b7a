//! The scores of an [`EvalAccumulator`]: the numbers that are printed, written as JSON and shown on the page.

use std::cmp::Reverse;
use std::fmt::Write as _;

use serde::Serialize;

use crate::eval::accumulate::EvalAccumulator;
use crate::metrics::bootstrap::{miou, percentile_interval, resampled_mious};
use crate::metrics::calibration::Calibration;
use crate::metrics::confusion::{Confusion, Scores, percent};
use crate::metrics::distance::BandScore;
use crate::metrics::image_counts::{Counted, ImageCounts};
use crate::metrics::label_issues::LabelIssue;
use crate::stats::ratio;

/// Draws of the bootstrap, and its seed: the same counts have the same interval everywhere.
const DRAWS: usize = 1000;
const SEED: u64 = 0;
/// Pairs of classes, and images, that are listed.
const LISTED: usize = 10;

/// The result of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Evaluation {
    /// Scores of the confusion matrix, and the matrix.
    #[serde(flatten)]
    pub scores: Scores,
    /// Images evaluated.
    pub images: usize,
    /// The middle 95 % of mIoU over draws of as many images, with replacement.
    pub miou_interval: Option<[f64; 2]>,
    /// Boundary IoU.
    pub boundary: BoundaryScores,
    /// Scores by distance to the nearest true edge.
    pub distance: Vec<BandScore>,
    /// How far probabilities can be believed, if that was measured.
    pub calibration: Option<Calibration>,
    /// The pairs of classes that are taken for each other most, most errors first.
    pub confused: Vec<ConfusedPair>,
    /// The images of least mIoU, the worst first.
    pub worst: Vec<WorstImage>,
    /// Regions whose truth may be wrong, the most suspicious first, if they were looked for.
    pub label_issues: Option<Vec<LabelIssue>>,
}

/// IoU within 2 % of the image's diagonal of the contours.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BoundaryScores {
    /// Mean over classes.
    pub miou: Option<f64>,
    /// Each class.
    pub classes: Vec<Option<f64>>,
}

/// Two classes that are taken for each other.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ConfusedPair {
    /// Their indices, the one that loses more pixels first.
    pub classes: [usize; 2],
    /// Their names.
    pub names: [String; 2],
    /// Pixels of the first labelled as the second, and of the second as the first.
    pub pixels: [u64; 2],
    /// Both over all wrong pixels.
    pub share_of_errors: f64,
}

/// An image with its score.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct WorstImage {
    /// Which image of the dataset, from 0.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Mean IoU over the classes that its truth or its prediction hold.
    pub miou: f64,
    /// Share of right pixels.
    pub accuracy: f64,
}

impl EvalAccumulator {
    /// All numbers; one name for each class.
    pub fn evaluation(&self, names: &[String]) -> Evaluation {
        let scores = self.scores(names);
        let usual = |class: usize| self.reliability.as_ref()?.self_confidence(class, scores.classes[class].pixels);
        Evaluation {
            images: self.images.len(),
            miou_interval: self.interval(),
            boundary: BoundaryScores { miou: self.boundary.miou(), classes: self.boundary.ious() },
            distance: self.distance.scores(),
            calibration: self.reliability.as_ref().map(|counts| counts.calibration()),
            confused: confused(&self.confusion, names),
            worst: self.worst(),
            label_issues: self.regions.as_ref().map(|regions| regions.label_issues(names, usual)),
            scores,
        }
    }

    fn interval(&self) -> Option<[f64; 2]> {
        let counts: Vec<ImageCounts> = self.images.iter().map(|one| one.counts.clone()).collect();
        miou(&counts)?;
        percentile_interval(&resampled_mious(&[&counts], DRAWS, SEED), 0.95)
    }

    fn worst(&self) -> Vec<WorstImage> {
        let score = |one: &Counted| {
            let accuracy = one.counts.accuracy()?;
            let miou = miou(std::slice::from_ref(&one.counts))?;
            Some(WorstImage { index: one.index, name: one.name.clone(), miou, accuracy })
        };
        let mut all: Vec<WorstImage> = self.images.iter().filter_map(score).collect();
        all.sort_by(|a, b| a.miou.total_cmp(&b.miou).then(a.index.cmp(&b.index)));
        all.truncate(LISTED);
        all
    }
}

fn confused(confusion: &Confusion, names: &[String]) -> Vec<ConfusedPair> {
    let k = confusion.classes();
    let mut pairs: Vec<([usize; 2], [u64; 2])> = (0..k)
        .flat_map(|a| (a + 1..k).map(move |b| [a, b]))
        .map(|[a, b]| match [confusion.count(a, b), confusion.count(b, a)] {
            [there, back] if there >= back => ([a, b], [there, back]),
            [there, back] => ([b, a], [back, there]),
        })
        .filter(|(_, [there, _])| *there > 0)
        .collect();
    let wrong: u64 = pairs.iter().map(|(_, [there, back])| there + back).sum();
    pairs.sort_by_key(|(classes, [there, back])| (Reverse(there + back), *classes));
    let pair = |(classes, pixels): ([usize; 2], [u64; 2])| ConfusedPair {
        names: classes.map(|class| names[class].clone()),
        share_of_errors: ratio(pixels[0] + pixels[1], wrong).unwrap_or(0.0),
        classes,
        pixels,
    };
    pairs.into_iter().take(LISTED).map(pair).collect()
}

impl Evaluation {
    /// Everything as text of fixed width, scores in percent.
    pub fn text(&self) -> String {
        let mut text = self.scores.table();
        let _ = writeln!(text, "\nover {} images", self.images);
        if let Some([low, high]) = self.miou_interval {
            let _ =
                writeln!(text, "  mIoU         {} to {} (95 %, bootstrap)", percent(Some(low)), percent(Some(high)));
        }
        let _ = writeln!(text, "  boundary IoU {}", percent(self.boundary.miou));
        let _ = writeln!(text, "\n{:<28}  {:>6}  {:>6}  {:>7}", "pixels from a true edge", "mIoU", "Acc", "pixels");
        for band in &self.distance {
            let (range, share) = (band.range(), band.share * 100.0);
            let (miou, accuracy) = (percent(band.miou), percent(band.accuracy));
            let _ = writeln!(text, "  {range:<26}  {miou:>6}  {accuracy:>6}  {share:>6.2}%");
        }
        if let Some(calibration) = &self.calibration {
            let confidence = percent(calibration.confidence);
            let nll = calibration.nll.map_or("-".to_owned(), |nll| format!("{nll:.4}"));
            let _ = writeln!(
                text,
                "\ncalibration: ECE {}, NLL {nll}, mean confidence {confidence}",
                percent(calibration.ece)
            );
            let _ =
                writeln!(text, "  {:<26}  {:>6}  {:>6}  {:>12}", "probability of the label", "mean", "right", "pixels");
            for bin in calibration.bins.iter().filter(|bin| bin.pixels > 0) {
                let range = format!("{:.1} to {:.1}", bin.from * 100.0, bin.to * 100.0);
                let (mean, right) = (percent(bin.confidence), percent(bin.accuracy));
                let _ = writeln!(text, "  {range:<26}  {mean:>6}  {right:>6}  {:>12}", bin.pixels);
            }
        }
        self.write_lists(&mut text);
        text
    }

    fn write_lists(&self, text: &mut String) {
        if !self.confused.is_empty() {
            let _ = writeln!(text, "\nmost confused pairs, share of all wrong pixels");
        }
        for pair in &self.confused {
            let ([a, b], [there, back]) = (&pair.names, pair.pixels);
            let share = pair.share_of_errors * 100.0;
            let _ = writeln!(text, "  {share:>6.2}%  {a} as {b}: {there} pixels, back: {back}");
        }
        if !self.worst.is_empty() {
            let _ = writeln!(text, "\nworst images\n  {:>6}  {:>6}", "mIoU", "Acc");
        }
        for image in &self.worst {
            let (miou, accuracy) = (percent(Some(image.miou)), percent(Some(image.accuracy)));
            let _ = writeln!(text, "  {miou:>6}  {accuracy:>6}  {}", image.name);
        }
        let Some(label_issues) = &self.label_issues else { return };
        let _ = writeln!(text, "\nlabel issues, regions whose truth may be wrong: {}", label_issues.len());
        for one in label_issues {
            let [x, y, width, height] = one.bounds;
            let (label, prediction, pixels) = (&one.label, &one.prediction, one.pixels);
            let (confidence, label_confidence) = (percent(Some(one.confidence)), percent(Some(one.of_label)));
            let _ = writeln!(
                text,
                "  {}: {width} x {height} at {x}, {y}: {label} ({label_confidence}), looks like {prediction} ({confidence}), {pixels} pixels",
                one.image
            );
        }
    }
}

impl BandScore {
    /// `1 to 3`, `15 and more`.
    pub fn range(&self) -> String {
        match (self.from, self.to) {
            (0, _) => "on the edge".to_owned(),
            (from, Some(to)) => format!("{from} to {to}"),
            (from, None) => format!("{from} and more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Evaluated;
    use crate::eval::accumulate::EvalOptions;
    use crate::image::Labels;
    use crate::infer::Confidence;

    fn names() -> Vec<String> {
        ["sky", "road", "car"].map(String::from).to_vec()
    }

    fn accumulate(images: &[(&str, [u8; 8], [u8; 8])]) -> EvalAccumulator {
        let mut accumulate = EvalAccumulator::new(3, EvalOptions { confidence: true, label_issues: 5 });
        for (index, (name, truth, prediction)) in images.iter().enumerate() {
            let labels = |ids: &[u8; 8]| Labels { width: 4, height: 2, ids: ids.to_vec() };
            let (truth, prediction) = (labels(truth), labels(prediction));
            let mut confusion = Confusion::new(3);
            confusion.add(&truth, &prediction).unwrap();
            let image = crate::image::Image { width: 4, height: 2, pixels: vec![0; 24] };
            let confidence = Confidence { confidence: vec![0.9; 8], of_truth: vec![0.05; 8] };
            let one = Evaluated {
                done: index + 1,
                name,
                image: &image,
                truth: &truth,
                prediction: &prediction,
                confidence: Some(&confidence),
                confusion: &confusion,
                took: std::time::Duration::ZERO,
            };
            accumulate.add(index, &one);
        }
        accumulate
    }

    #[test]
    fn lists_are_in_order() {
        let all = accumulate(&[
            ("good", [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1]),
            ("bad", [0, 0, 0, 0, 1, 1, 1, 1], [1, 1, 1, 2, 1, 1, 1, 0]),
            ("ignored", [255; 8], [2; 8]),
            ("half", [0, 0, 0, 0, 2, 2, 2, 2], [0, 0, 0, 0, 0, 0, 2, 2]),
        ]);
        let found = all.evaluation(&names());
        assert_eq!(found.images, 4);
        let pairs: Vec<_> = found.confused.iter().map(|pair| (pair.classes, pair.pixels)).collect();
        assert_eq!(pairs, [([0, 1], [3, 1]), ([2, 0], [2, 1])]);
        assert!((found.confused[0].share_of_errors - 4.0 / 7.0).abs() < 1e-12);
        let worst: Vec<_> = found.worst.iter().map(|image| (image.index, image.accuracy)).collect();
        assert_eq!(worst, [(1, 0.375), (3, 0.75), (0, 1.0)]);
        let [low, high] = found.miou_interval.unwrap();
        assert!(low < found.scores.miou.unwrap() && found.scores.miou.unwrap() < high);
        let json = serde_json::to_value(&found).unwrap();
        assert!(json["miou"].is_number() && json["calibration"]["bins"].as_array().unwrap().len() == 15);
        let text = found.text();
        for part in ["boundary IoU", "on the edge", "15 and more", "ECE", "sky as road: 3 pixels, back: 1", "bad"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn an_empty_tally_says_nothing() {
        let found = EvalAccumulator::new(3, EvalOptions::default()).evaluation(&names());
        assert_eq!((found.miou_interval, found.boundary.miou, found.calibration.is_none()), (None, None, true));
        assert!(found.confused.is_empty() && found.worst.is_empty() && found.label_issues.is_none());
        assert!(!found.text().contains("NaN"));
    }

    #[test]
    fn parts_are_the_whole_in_any_order() {
        let all = [
            ("a", [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1]),
            ("b", [0, 0, 0, 0, 1, 1, 1, 1], [1, 1, 1, 2, 1, 1, 1, 0]),
            ("c", [255; 8], [2; 8]),
        ];
        let whole = accumulate(&all);
        let part = |index: usize| {
            let mut part = accumulate(&all[index..=index]);
            part.images[0].index = index;
            part
        };
        for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
            let mut sum = part(order[0]);
            order[1..].iter().for_each(|index| sum.merge(part(*index)).unwrap());
            assert_eq!(sum.images, whole.images);
            assert_eq!(sum.evaluation(&names()), whole.evaluation(&names()));
        }
        assert!(part(1).merge(part(1)).unwrap_err().to_string().contains("`b` was counted twice"));
        assert!(part(1).merge(EvalAccumulator::new(3, EvalOptions::default())).is_err());
    }
}
