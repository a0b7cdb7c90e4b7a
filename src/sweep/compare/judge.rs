//! The last evaluation of a run: counts of every image, and predictions to be shown.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::dataset::Split;
use crate::error::{Error, Result};
use crate::eval;
use crate::eval::Evaluated;
use crate::infer::{Inference, Replayed};
use crate::metrics::boundary::{band_width, boundary_counts};
use crate::metrics::image_counts::{ClassCount, ImageCounts};
use crate::metrics::{Scores, boundary};
use crate::model::Model;
use crate::sweep::compare::kept_predictions::Strip;
use crate::train::{Observer, Progress, Stop};

/// Counts of one image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ImageResult {
    /// Its name.
    pub(super) name: String,
    /// All pixels.
    pub(super) area: ImageCounts,
    /// Those along the contours.
    pub(super) boundary: ImageCounts,
}

impl ImageResult {
    /// Fails if counts cannot be, or do not add up to the matrix of `scores`; naming the place.
    pub(super) fn check(all: &[Self], scores: &Scores) -> Result<()> {
        let k = scores.matrix.len();
        let mut sums = vec![[0u64; 3]; k];
        for (at, image) in all.iter().enumerate() {
            let named = |field: &str, error: Error| Error::new(format!("[{at}].{field}: {error}"));
            image.area.check(k).map_err(|error| named("area", error))?;
            image.boundary.check_part(k).map_err(|error| named("boundary", error))?;
            let area = |class: u8| image.area.classes().iter().find(|(id, _)| *id == class).map(|(_, count)| *count);
            let inside = |(class, near): &(u8, ClassCount)| {
                area(*class).is_some_and(|all| near.truth <= all.truth && near.prediction <= all.prediction)
            };
            if !image.boundary.classes().iter().all(inside) {
                return Err(named("boundary", Error::new("a class has more pixels near contours than in total")));
            }
            for (class, count) in image.area.classes() {
                let sum = &mut sums[usize::from(*class)];
                let more = [count.hit, count.truth, count.prediction].map(u64::from);
                sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
            }
        }
        let of = |class: usize| {
            let (row, column) = (scores.matrix[class].iter(), scores.matrix.iter().map(|row| row[class]));
            [scores.matrix[class][class], row.sum(), column.sum()]
        };
        match (0..k).find(|class| sums[*class] != of(*class)) {
            Some(class) => Err(Error::new(format!(
                "area: of class {class} all images have {:?} pixels in both, truth and prediction, and the matrix {:?}",
                sums[class],
                of(class)
            ))),
            None => Ok(()),
        }
    }
}

/// What an evaluation saw.
pub(super) struct Judged {
    pub(super) scores: Scores,
    pub(super) images: Vec<ImageResult>,
    /// Milliseconds of each image.
    pub(super) times: Vec<f64>,
    pub(super) strip: Strip,
}

/// Passes everything on to another observer, and keeps what the evaluation after the last iteration sees.
pub(super) struct Judge<'a> {
    inner: &'a mut dyn Observer,
    /// Images of the split if predictions are to be shown, else 0.
    shown: usize,
    /// Whether the last iteration is done.
    ended: bool,
    gathered: Gathered,
    last: Option<Judged>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(shown: usize, inner: &'a mut dyn Observer) -> Self {
        Self { inner, shown, ended: false, gathered: Gathered::new(shown), last: None }
    }

    /// What the last evaluation saw; evaluates `model`, the last weights, where this process has not yet done so. None
    /// where that was broken off.
    pub(super) fn finish(mut self, model: &Model, config: &Config, device: &Device) -> Result<Option<Judged>> {
        if let Some(judged) = self.last {
            return Ok(Some(judged));
        }
        self.inner.note("evaluating the last weights, image by image");
        self.ended = true;
        let validation = config.data.open(Split::Val)?;
        let all = validation.len();
        let network = Replayed::new(model.clone().for_inference());
        let inference =
            Inference { network: &network, preprocess: &config.data.preprocess, config: &config.eval, device };
        let see = &mut |image: &Evaluated| self.evaluating(image, all).flow();
        let scores = eval::evaluate_each(&inference, validation.as_ref(), see)?;
        Ok(scores.map(|scores| self.gathered.with(scores)))
    }
}

impl Observer for Judge<'_> {
    fn note(&mut self, message: &str) {
        self.inner.note(message);
    }

    fn iteration(&mut self, progress: &Progress) {
        self.ended = progress.iteration == progress.iterations;
        self.inner.iteration(progress);
    }

    fn evaluating(&mut self, image: &Evaluated, all: usize) -> Stop {
        if self.ended {
            self.gathered.add(image);
        }
        self.inner.evaluating(image, all)
    }

    fn evaluated(&mut self, iteration: u64, scores: &Scores) {
        if self.ended {
            let gathered = std::mem::replace(&mut self.gathered, Gathered::new(self.shown));
            self.last = Some(gathered.with(scores.clone()));
        }
        self.inner.evaluated(iteration, scores);
    }

    fn stop(&mut self, iteration: u64) -> Stop {
        self.inner.stop(iteration)
    }
}

/// What was seen so far.
struct Gathered {
    images: Vec<ImageResult>,
    times: Vec<f64>,
    strip: Strip,
}

impl Gathered {
    fn new(shown: usize) -> Self {
        Self { images: Vec::new(), times: Vec::new(), strip: Strip::new(shown) }
    }

    fn add(&mut self, one: &Evaluated) {
        let d = band_width((one.truth.width, one.truth.height), boundary::BAND);
        self.images.push(ImageResult {
            name: one.name.to_owned(),
            area: one.confusion.image_counts(),
            boundary: boundary_counts(one.truth, one.prediction, d),
        });
        self.times.push(one.took.as_secs_f64() * 1e3);
        self.strip.offer(one.done - 1, one.prediction);
    }

    fn with(self, scores: Scores) -> Judged {
        Judged { scores, images: self.images, times: self.times, strip: self.strip }
    }
}
