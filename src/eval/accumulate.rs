//! Everything an evaluation counts, in whole numbers: counts of parts of a dataset add up exactly, in any order.
//!
//! The state is k x k counts and a few times k more, and for every image its name and three numbers for each class that
//! truth or prediction hold (16 bytes per class): a thousand images of ten classes take a quarter of a megabyte.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::eval::Evaluated;
use crate::metrics::Scores;
use crate::metrics::boundary::{BAND, band_width, boundary_counts};
use crate::metrics::calibration::Reliability;
use crate::metrics::confusion::Confusion;
use crate::metrics::distance::DistanceBands;
use crate::metrics::image_counts::Counted;
use crate::metrics::label_issues::IssueRegions;
use crate::metrics::overlap::Overlaps;

/// What is to be counted beside the matrix and the edges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalOptions {
    /// How probable the answers are: calibration.
    #[serde(alias = "certainty")]
    pub confidence: bool,
    /// How many regions to tell whose truth may be wrong; needs the probabilities too.
    #[serde(alias = "suspects")]
    pub label_issues: usize,
}

impl EvalOptions {
    /// Whether it has to be known how probable the answers are.
    pub(crate) fn needs_confidence(self) -> bool {
        self.confidence || self.label_issues > 0
    }
}

/// The counts of an evaluation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalAccumulator {
    pub(super) confusion: Confusion,
    pub(super) boundary: Overlaps,
    pub(super) distance: DistanceBands,
    pub(super) reliability: Option<Reliability>,
    pub(super) regions: Option<IssueRegions>,
    /// In the order of the dataset.
    pub(super) images: Vec<Counted>,
}

impl EvalAccumulator {
    /// Nothing counted.
    pub fn new(classes: usize, ask: EvalOptions) -> Self {
        Self {
            confusion: Confusion::new(classes),
            boundary: Overlaps::new(classes),
            distance: DistanceBands::new(classes),
            reliability: ask.needs_confidence().then(|| Reliability::new(classes)),
            regions: (ask.label_issues > 0).then(|| IssueRegions::new(ask.label_issues)),
            images: Vec::new(),
        }
    }

    /// Counts image `index` of the dataset. Confidence is counted where it was asked for and the evaluation gives it.
    pub fn add(&mut self, index: usize, one: &Evaluated) {
        let (truth, prediction) = (one.truth, one.prediction);
        self.confusion.merge(one.confusion);
        let width = band_width((truth.width, truth.height), BAND);
        self.boundary.add(&boundary_counts(truth, prediction, width));
        self.distance.add(truth, prediction);
        if let (Some(reliability), Some(confidence)) = (&mut self.reliability, one.confidence) {
            reliability.add(truth, prediction, confidence);
        }
        if let (Some(regions), Some(confidence)) = (&mut self.regions, one.confidence) {
            regions.add(index, one.name, truth, prediction, confidence);
        }
        let counted = Counted { index, name: one.name.to_owned(), counts: one.confusion.image_counts() };
        let place = self.images.partition_point(|other| other.index < index);
        self.images.insert(place, counted);
    }

    /// Adds the counts of other images.
    ///
    /// # Errors
    /// The counts are of different classes or of different questions, an image is in both, or their sums are too large.
    pub fn merge(&mut self, other: Self) -> Result<()> {
        let kind = |accumulate: &Self| {
            (accumulate.confusion.classes(), accumulate.reliability.is_some(), accumulate.regions.is_some())
        };
        if kind(self) != kind(&other) {
            return Err(Error::new("they count different things")
                .with_hint("evaluate all shards with the same model, dataset and options"));
        }
        let mut images = std::mem::take(&mut self.images);
        images.extend(other.images);
        images.sort_by_key(|one| one.index);
        if let Some(twice) = images.windows(2).find(|pair| pair[0].index == pair[1].index) {
            return Err(Error::new(format!("the image `{}` was counted twice", twice[0].name)));
        }
        self.images = images;
        self.confusion.merge_read(&other.confusion)?;
        self.boundary.merge(&other.boundary)?;
        self.distance.merge(&other.distance)?;
        if let (Some(reliability), Some(more)) = (&mut self.reliability, &other.reliability) {
            reliability.merge(more)?;
        }
        if let (Some(regions), Some(more)) = (&mut self.regions, other.regions) {
            regions.merge(more);
        }
        Ok(())
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.confusion.classes()
    }

    /// The names of the images counted, in the order of the dataset.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.images.iter().map(|one| one.name.as_str())
    }

    /// The images counted, by their places in the dataset.
    pub fn indices(&self) -> impl Iterator<Item = usize> {
        self.images.iter().map(|one| one.index)
    }

    /// The scores of the matrix alone.
    pub fn scores(&self, names: &[String]) -> Scores {
        self.confusion.scores(names)
    }

    /// Fails where the counts cannot be those of a dataset of `images` images, of which `ask` was asked: what is read
    /// from a file may be anything. The message names the field.
    pub(super) fn check(&self, images: usize, ask: EvalOptions) -> Result<()> {
        let fault = |what: String| Err(Error::new(what));
        let k = self.classes();
        let whole = self.confusion.overlaps();
        let mut sum = Overlaps::new(k);
        let mut before = None;
        for (at, one) in self.images.iter().enumerate() {
            let field = format!("counts.images[{at}]");
            if one.index >= images || before.is_some_and(|before| before >= one.index) {
                return fault(format!("`{field}.index` is {}: not below {images}, or not in order", one.index));
            }
            one.counts.check(k).map_err(|error| Error::new(format!("`{field}.counts`: {error}")))?;
            sum.add(&one.counts);
            before = Some(one.index);
        }
        if let Some(class) = (0..k).find(|class| sum.of_class(*class) != whole.of_class(*class)) {
            return fault(format!(
                "`counts.confusion`: class {class} has {:?} pixels in both, truth and prediction, and in `counts.images` {:?}",
                whole.of_class(class),
                sum.of_class(class)
            ));
        }
        self.boundary.check("counts.boundary", &whole)?;
        self.distance.check("counts.distance", &whole)?;
        let with_confidence = ask.needs_confidence();
        for (field, there, asked) in [
            ("reliability", self.reliability.is_some(), with_confidence),
            ("regions", self.regions.is_some(), ask.label_issues > 0),
        ] {
            if there != asked {
                return fault(format!("`counts.{field}` does not fit what `identity.ask` asks for"));
            }
        }
        if let Some(reliability) = &self.reliability {
            reliability.check("counts.reliability", &whole)?;
        }
        match &self.regions {
            Some(regions) => regions.check("counts.regions", ask.label_issues, &self.images),
            None => Ok(()),
        }
    }
}
