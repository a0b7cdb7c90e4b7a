//! Where the truth may be wrong: regions that a network labels otherwise, and surely.
//!
//! Confident learning (Northcutt et al. 2021, arXiv 1911.00068) takes an example for mislabelled where another class
//! than its own is at least as probable as that class usually is where the truth holds it. Pixels are not examples: one
//! mistake of a person is a region. So pixels that have the same label and the same other prediction are grouped as
//! they touch, a region has the mean probabilities of its pixels, and the rule is applied to regions. They are ranked
//! by their area times how much surer the network is of its class than of the label: the pixels in doubt.
//!
//! One pass, and a bounded list: of every evaluation the largest `KEPT` times as many as are wanted. What is kept are
//! whole numbers, and lists merge to the same list in any order.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::image::regions::connected;
use crate::image::{IGNORE, Labels};
use crate::infer::confidence::Confidence;
use crate::metrics::calibration::{mean_probability, parts};
use crate::metrics::image_counts::Counted;

/// The least probability of the prediction: more than all other classes together.
const SURE: f32 = 0.5;
/// The most probability of the label.
const DOUBTED: f32 = 0.2;
/// The smallest region in pixels; below it is the noise of edges.
const SMALLEST: u64 = 16;
/// How many more regions are kept than are wanted, for the thresholds are known only at the end.
const KEPT: usize = 20;

/// A connected region whose label may be wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssueRegion {
    /// Which image of the dataset, from 0.
    pub index: usize,
    /// Its name.
    pub image: String,
    /// What the truth says.
    pub label: u8,
    /// What the network says.
    pub prediction: u8,
    /// Left, top, width and height of the smallest box around it.
    pub bounds: [usize; 4],
    /// Its pixels.
    pub pixels: u64,
    /// Sum over them of the probability of the prediction, in parts.
    confidence: u64,
    /// Sum over them of the probability of the label, in parts.
    of_label: u64,
}

/// A [`IssueRegion`] as it is reported.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LabelIssue {
    /// Which image of the dataset, from 0.
    pub index: usize,
    /// Its name.
    pub image: String,
    /// The class that the truth gives.
    pub label: String,
    /// The class that the network gives.
    pub prediction: String,
    /// Left, top, width and height in pixels.
    pub bounds: [usize; 4],
    /// Area in pixels.
    pub pixels: u64,
    /// Mean probability of the prediction.
    pub confidence: f64,
    /// Mean probability of the label.
    pub of_label: f64,
    /// Area times the difference of both: the order of the list.
    pub score: f64,
}

impl IssueRegion {
    /// What regions are ranked by, in parts of a pixel.
    fn score(&self) -> u64 {
        self.confidence.saturating_sub(self.of_label)
    }

    /// What decides the order; of equals the first of the dataset.
    fn rank(&self) -> (Reverse<u64>, usize, usize, usize, u8) {
        (Reverse(self.score()), self.index, self.bounds[1], self.bounds[0], self.label)
    }

    /// Whether it can have been found: connected, within its box, sure of another class than the label.
    fn is_possible(&self) -> bool {
        let [left, top, width, height] = self.bounds.map(|side| u32::try_from(side).map(u64::from));
        let (Ok(left), Ok(top), Ok(width @ 1..), Ok(height @ 1..)) = (left, top, width, height) else { return false };
        let inside = left + width <= u64::from(u32::MAX) && top + height <= u64::from(u32::MAX);
        let (pixels, area) = (u128::from(self.pixels), u128::from(width * height));
        let connected = (u128::from(width + height - 1).max(SMALLEST.into())..=area).contains(&pixels);
        let sum = |parts: u64| u128::from(parts) * pixels;
        let sure = (sum(parts(SURE))..=sum(parts(1.0))).contains(&self.confidence.into());
        inside && connected && sure && u128::from(self.of_label) <= sum(parts(DOUBTED)) && self.label != self.prediction
    }

    fn mean(&self, sum: u64) -> f64 {
        mean_probability(sum, self.pixels).unwrap_or(0.0)
    }

    fn issue(&self, names: &[String]) -> LabelIssue {
        let name = |id: u8| names[usize::from(id)].clone();
        LabelIssue {
            index: self.index,
            image: self.image.clone(),
            label: name(self.label),
            prediction: name(self.prediction),
            bounds: self.bounds,
            pixels: self.pixels,
            confidence: self.mean(self.confidence),
            of_label: self.mean(self.of_label),
            score: self.mean(self.score()) * self.pixels as f64,
        }
    }
}

/// The regions found so far, the most suspicious first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssueRegions {
    wanted: usize,
    found: Vec<IssueRegion>,
}

impl IssueRegions {
    /// None yet; `wanted` are to be told in the end.
    pub fn new(wanted: usize) -> Self {
        Self { wanted, found: Vec::new() }
    }

    /// Looks at image `index` of a dataset, called `name`; all maps have one size.
    pub fn add(&mut self, index: usize, name: &str, truth: &Labels, prediction: &Labels, confidence: &Confidence) {
        let regions = regions(truth, prediction, confidence);
        self.found.extend(regions.map(|region| IssueRegion { index, image: name.to_owned(), ..region }));
        self.trim();
    }

    /// Adds what another evaluation of the same dataset found.
    pub fn merge(&mut self, other: Self) {
        self.wanted = self.wanted.max(other.wanted);
        self.found.extend(other.found);
        self.trim();
    }

    /// Fails where the list called `field` cannot be that of `wanted` regions of the `counted` images, which are in the
    /// order of their indices: a file may hold anything.
    pub(crate) fn check(&self, field: &str, wanted: usize, counted: &[Counted]) -> Result<()> {
        let fault = |what: &str| Err(Error::new(format!("`{field}.{what}")));
        if self.wanted != wanted {
            return fault(&format!("wanted` is {}, and `identity.ask.label_issues` {wanted}", self.wanted));
        }
        if self.found.len() > wanted.saturating_mul(KEPT) || !self.found.is_sorted_by_key(IssueRegion::rank) {
            return fault("found` is too long, or not in order");
        }
        // Of each image and class the wrong pixels that no region before has taken.
        let mut left = BTreeMap::new();
        for (at, one) in self.found.iter().enumerate() {
            let place = counted.binary_search_by_key(&one.index, |image| image.index);
            let Some(image) = place.ok().map(|at| &counted[at]).filter(|image| image.name == one.image) else {
                return fault(&format!("found[{at}]` is of an image that the shard did not count"));
            };
            if !one.is_possible() {
                return fault(&format!("found[{at}]`: its pixels, bounds and probabilities do not fit each other"));
            }
            let wrong = |class: u8, truth: bool| {
                let found = image.counts.classes().iter().find(|(id, _)| *id == class);
                found.map_or(0, |(_, count)| u64::from(if truth { count.truth } else { count.prediction } - count.hit))
            };
            for (class, truth) in [(one.label, true), (one.prediction, false)] {
                let left = left.entry((one.index, class, truth)).or_insert_with(|| wrong(class, truth));
                match left.checked_sub(one.pixels) {
                    Some(rest) => *left = rest,
                    None => return fault(&format!("found[{at}]`: its image has fewer wrong pixels of class {class}")),
                }
            }
        }
        Ok(())
    }

    /// The wanted number of regions in which the prediction is at least as sure as `usual` says that its class is where
    /// the truth holds it; a class of which that is unknown is never suspected.
    pub fn label_issues(&self, names: &[String], usual: impl Fn(usize) -> Option<f64>) -> Vec<LabelIssue> {
        let sure =
            |one: &&IssueRegion| usual(one.prediction.into()).is_some_and(|usual| one.mean(one.confidence) >= usual);
        self.found.iter().filter(sure).take(self.wanted).map(|region| region.issue(names)).collect()
    }

    /// Only the best stay; of equals the first of the dataset, so that the order of merging does not matter.
    fn trim(&mut self) {
        self.found.sort_by_key(IssueRegion::rank);
        self.found.truncate(self.wanted.saturating_mul(KEPT));
    }
}

/// The regions of one image, in which index and name are still to be filled in.
fn regions(truth: &Labels, prediction: &Labels, confidence: &Confidence) -> impl Iterator<Item = IssueRegion> {
    let pair = |at: usize| (truth.ids[at], prediction.ids[at]);
    let doubted = |at: usize| {
        let (label, other) = pair(at);
        label != IGNORE && label != other && confidence.confidence[at] > SURE && confidence.of_truth[at] < DOUBTED
    };
    // No label is 255, so that no pair is what lies outside.
    let class = |at: usize| doubted(at).then(|| u16::from_be_bytes([truth.ids[at], prediction.ids[at]]));
    let connected = connected(truth.width, truth.height, class).into_iter();
    connected.filter(|region| region.pixels.len() as u64 >= SMALLEST).map(|region| {
        let [label, prediction] = region.class.to_be_bytes();
        let [left, top, right, bottom] = region.bounds;
        let sum = |of: &[f32]| region.pixels.iter().map(|at| parts(of[*at])).sum();
        IssueRegion {
            index: 0,
            image: String::new(),
            label,
            prediction,
            bounds: [left, top, right - left, bottom - top],
            pixels: region.pixels.len() as u64,
            confidence: sum(&confidence.confidence),
            of_label: sum(&confidence.of_truth),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maps(truth: &[&str], prediction: &[&str], confidence: f32) -> (Labels, Labels, Confidence) {
        let read = |rows: &[&str]| Labels {
            width: rows[0].len(),
            height: rows.len(),
            ids: rows.concat().bytes().map(|c| if c == b'.' { IGNORE } else { c - b'0' }).collect(),
        };
        let (truth, prediction) = (read(truth), read(prediction));
        let right: Vec<bool> = truth.ids.iter().zip(&prediction.ids).map(|(truth, found)| truth == found).collect();
        let of_truth = right.iter().map(|right| if *right { confidence } else { 1.0 - confidence }).collect();
        (truth, prediction, Confidence { confidence: vec![confidence; right.len()], of_truth })
    }

    #[test]
    fn touching_pixels_of_one_kind_are_one_region() {
        let truth = ["000000000000", "000000000000", "000000000000", "00000000....", "111111111111"];
        let found = ["111100002222", "111100002222", "111100002222", "111100002222", "111111112222"];
        let (truth, prediction, confidence) = maps(&truth, &found, 0.875);
        let found: Vec<IssueRegion> = regions(&truth, &prediction, &confidence).collect();
        // Of 1 instead of 0 there are sixteen; of 2 instead of 0 twelve, for the ignored and those of label 1 are
        // others.
        assert_eq!(found.len(), 1);
        let one = &found[0];
        assert_eq!((one.label, one.prediction, one.pixels, one.bounds), (0, 1, 16, [0, 0, 4, 4]));
        assert_eq!((one.mean(one.confidence), one.mean(one.of_label), one.mean(one.score())), (0.875, 0.125, 0.75));
        let unsure = maps(&["00000000"; 4], &["11111111"; 4], 0.5);
        assert_eq!(regions(&unsure.0, &unsure.1, &unsure.2).count(), 0);
    }

    #[test]
    fn larger_and_surer_come_first_and_the_unusual_are_left_out() {
        let names = ["a", "b"].map(String::from);
        let mut all = IssueRegions::new(2);
        for (index, (width, confidence)) in [(6, 0.9), (8, 0.9), (8, 0.95), (40, 0.85)].into_iter().enumerate() {
            let rows = [vec![b'0'; width], vec![b'1'; width]].map(|row| String::from_utf8(row).unwrap());
            let (truth, prediction, confidence) = maps(&[rows[0].as_str(); 4], &[rows[1].as_str(); 4], confidence);
            all.add(index, &format!("image {index}"), &truth, &prediction, &confidence);
        }
        let order = |usual| all.label_issues(&names, |_| usual).iter().map(|one| one.index).collect::<Vec<_>>();
        assert_eq!(order(Some(0.0)), [3, 2]);
        assert_eq!(order(Some(0.88)), [2, 1]);
        assert_eq!((order(Some(0.99)), order(None)), (vec![], vec![]));
        let first = &all.label_issues(&names, |_| Some(0.88))[0];
        assert_eq!((first.image.as_str(), first.label.as_str(), first.prediction.as_str()), ("image 2", "a", "b"));
        assert!((first.score - 32.0 * 0.9).abs() < 1e-4);
    }

    #[test]
    fn lists_merge_to_the_same_list_in_any_order() {
        let part = |images: std::ops::Range<usize>| {
            let mut part = IssueRegions::new(1);
            for index in images {
                let row = |c: u8| String::from_utf8(vec![c; 5 + index * 7 % 11]).unwrap();
                let (truth, prediction, confidence) = maps(&[row(b'0').as_str(); 4], &[row(b'1').as_str(); 4], 0.9);
                part.add(index, "", &truth, &prediction, &confidence);
            }
            part
        };
        let whole = part(0..60);
        assert_eq!(whole.found.len(), KEPT);
        let (a, b, c) = (part(0..20), part(20..35), part(35..60));
        let merged = |mut first: IssueRegions, others: [&IssueRegions; 2]| {
            others.into_iter().for_each(|other| first.merge(other.clone()));
            first
        };
        assert_eq!(merged(a.clone(), [&b, &c]), whole);
        assert_eq!(merged(c, [&a, &b]), whole);
    }
}
