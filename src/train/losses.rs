//! The losses of a run so far: whether its network learns.

use crate::image::IGNORE;
use crate::kernels::LossMean;
use crate::stats;
use crate::train::config::TrainConfig;
use crate::train::passes::StepOutput;

/// A loss that falls falls below this share of what it was.
const FALLING: f64 = 0.97;
/// A network that tells pixels apart has a cross entropy below this share of that of one that predicts the same for
/// all.
const TELLING: f64 = 0.9;
/// The name of the cross entropy among the parts of a loss.
const CROSS_ENTROPY: &str = "cross_entropy";

/// The losses of a run by iteration.
#[derive(Debug)]
pub(super) struct Losses {
    /// The first of all: what a network that knows nothing has.
    first: Option<f64>,
    total: Series,
    /// By how much the cross entropy is above the share of what one answer for all pixels would have.
    above: Series,
    /// Pixels of each class so far, by their weights.
    pixels: Vec<f64>,
}

impl Losses {
    /// Those of earlier processes, by iteration.
    pub(super) fn new(earlier: &[(u64, f64)]) -> Self {
        let (total, above) = Default::default();
        let mut losses = Self { first: None, total, above, pixels: vec![0.0; usize::from(IGNORE)] };
        earlier.iter().for_each(|(iteration, loss)| losses.total(*iteration, *loss));
        losses
    }

    fn total(&mut self, iteration: u64, loss: f64) {
        self.first.get_or_insert(loss);
        self.total.push(iteration, loss);
    }

    /// What an iteration found.
    pub(super) fn push(&mut self, train: &TrainConfig, iteration: u64, found: &StepOutput) {
        self.total(iteration, found.loss);
        let same = self.same(train, &found.pixels);
        let parts = &found.parts;
        let alone =
            parts.is_empty() && train.loss.dice == 0.0 && train.loss.lovasz == 0.0 && train.loss.focal_gamma == 0.0;
        if let Some(entropy) = parts.get(CROSS_ENTROPY).copied().or(alone.then_some(found.loss)) {
            self.above.push(iteration, entropy - TELLING * same);
        }
    }

    /// The cross entropy of a network that predicts the same for all pixels, as often as classes were so far, on a
    /// batch with this many pixels of each label.
    fn same(&mut self, train: &TrainConfig, pixels: &[u64; 256]) -> f64 {
        let weight = |class: usize| train.class_weights.get(class).map_or(1.0, |weight| f64::from(*weight));
        let classes = usize::from(IGNORE);
        let weighted: Vec<f64> = (0..classes).map(|class| weight(class) * pixels[class] as f64).collect();
        self.pixels.iter_mut().zip(&weighted).for_each(|(sum, more)| *sum += more);
        let sum: f64 = self.pixels.iter().sum();
        let counted: f64 = match train.loss_mean {
            LossMean::All => pixels.iter().sum::<u64>() as f64,
            LossMean::Valid => weighted.iter().sum(),
        };
        let known = weighted.iter().zip(&self.pixels).filter(|(more, _)| **more > 0.0);
        let entropy: f64 = known.map(|(more, so_far)| -more * (so_far / sum).ln()).sum();
        train.loss.cross_entropy * entropy / counted.max(f64::MIN_POSITIVE)
    }

    /// Whether a network that says one class everywhere after `iteration` iterations is learning anyway: it tells
    /// pixels apart, though not enough for another class to come first, or its loss still falls.
    pub(super) fn learns(&self, iteration: u64) -> bool {
        let quarter = |n: u64| n * iteration / 4;
        let tells = self.above.mean(quarter(3), iteration).is_some_and(|above| above < 0.0);
        let means = [self.first, self.total.mean(quarter(1), quarter(2)), self.total.mean(quarter(3), iteration)];
        let [Some(first), Some(before), Some(now)] = means else { return tells };
        tells || (now < first && now < FALLING * before)
    }
}

/// Numbers by iteration; of a long series means over equally many.
#[derive(Debug)]
struct Series {
    /// Means, each with the first iteration that is in it.
    means: Vec<(u64, f64)>,
    /// How many numbers there are to each.
    each: usize,
    /// Numbers that are not yet a mean.
    rest: Vec<(u64, f64)>,
}

impl Default for Series {
    fn default() -> Self {
        Self { means: Vec::new(), each: 1, rest: Vec::new() }
    }
}

impl Series {
    /// More than this many are not told apart.
    const MOST: usize = 1024;

    fn push(&mut self, iteration: u64, value: f64) {
        self.rest.push((iteration, value));
        if self.rest.len() < self.each {
            return;
        }
        self.means.push(together(&self.rest));
        self.rest.clear();
        if self.means.len() >= Self::MOST {
            self.means = self.means.chunks(2).map(together).collect();
            self.each *= 2;
        }
    }

    /// The mean from one iteration to before another.
    fn mean(&self, from: u64, to: u64) -> Option<f64> {
        let of: Vec<f64> =
            self.means.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, value)| *value).collect();
        stats::mean(&of)
    }
}

/// Some numbers as one, by the iteration of the first.
fn together(values: &[(u64, f64)]) -> (u64, f64) {
    let sum: f64 = values.iter().map(|(_, value)| value).sum();
    (values.first().map_or(0, |first| first.0), sum / values.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a run of these losses learns, of whose pixels one fifth is of the second class in each batch.
    fn learns(train: &TrainConfig, iterations: u64, loss: &dyn Fn(u64) -> (f64, Vec<(&'static str, f64)>)) -> bool {
        let mut losses = Losses::new(&[]);
        for it in 0..iterations {
            let (loss, parts) = loss(it);
            let parts = parts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            let mut pixels = Box::new([0; 256]);
            (pixels[0], pixels[1], pixels[255]) = (800, 200, 50);
            losses.push(
                train,
                it,
                &StepOutput { gradients: Default::default(), loss, parts, names: Vec::new(), pixels },
            );
        }
        assert!(losses.total.means.len() < Series::MOST);
        losses.learns(iterations)
    }

    fn valid() -> TrainConfig {
        TrainConfig { loss_mean: LossMean::Valid, ..TrainConfig::default() }
    }

    #[test]
    fn a_loss_that_falls_is_no_collapse() {
        let noise = |it: u64| 0.2 * (12.9898 * it as f64).sin();
        for iterations in [40, 100, 50_000] {
            let share = |it: u64| it as f64 / iterations as f64;
            let falls = |loss: &dyn Fn(u64) -> f64| learns(&valid(), iterations, &|it| (loss(it), Vec::new()));
            assert!(falls(&|it| 2.5 - 0.5 * share(it) + noise(it)));
            assert!(!falls(&|it| if it < 5 { 2.5 } else { 2.1 + noise(it) / 10.0 }), "it stands");
            assert!(!falls(&|it| if it == 0 { 2.5 } else { 90.0 - 80.0 * share(it) }), "it has exploded");
        }
        assert!(!learns(&valid(), 2, &|_| (1.0, Vec::new())));
    }

    /// The entropy of one fifth and four is 0.5004.
    #[test]
    fn a_network_that_tells_pixels_apart_is_no_collapsed_one() {
        let mut train = valid();
        assert!(learns(&train, 100, &|_| (0.44, Vec::new())) && !learns(&train, 100, &|_| (0.46, Vec::new())));
        let parts =
            |entropy: f64| (entropy + 0.9, vec![("auxiliary1", 0.1), ("cross_entropy", entropy), ("dice", 0.8)]);
        train.loss.dice = 1.0;
        assert!(learns(&train, 100, &|_| parts(0.44)) && !learns(&train, 100, &|_| parts(0.5)));
        // Of queries nothing is known but the sum.
        assert!(!learns(&train, 100, &|_| (0.1, vec![("class", 0.05), ("mask", 0.05)])));
        // With weights both are as much: ln 2, halved, is 0.3466.
        train.class_weights = vec![1.0, 4.0];
        train.loss.cross_entropy = 0.5;
        assert!(learns(&train, 100, &|_| parts(0.31)) && !learns(&train, 100, &|_| parts(0.32)));
        // The mean over all pixels, ignored ones too, does not divide by the weights: 0.528.
        train.loss_mean = LossMean::All;
        assert!(!learns(&train, 100, &|_| parts(0.48)) && learns(&train, 100, &|_| parts(0.47)));
    }

    /// Crops that are drawn for a rare class have it more often than the data do: each batch is compared with itself.
    #[test]
    fn what_one_answer_would_score_is_counted_batch_by_batch() {
        let mut losses = Losses::new(&[]);
        let mut pixels = [0; 256];
        (pixels[0], pixels[1]) = (100, 0);
        losses.same(&valid(), &pixels);
        (pixels[0], pixels[1]) = (0, 100);
        assert!((losses.same(&valid(), &pixels) - 2f64.ln()).abs() < 1e-12);
        assert!((losses.same(&valid(), &[0; 256])).abs() < 1e-12);
    }
}
