//! The losses of a run so far: whether its network learns.

use std::path::Path;

use super::config::TrainConfig;
use crate::error::Result;
use crate::eval::Scores;
use crate::report::progress::{self, Row};
use crate::stats;

/// A loss that falls falls below this share of what it was.
const FALLING: f64 = 0.97;
/// A network that tells pixels apart has a cross entropy below this share of that of one that says the same of all.
const TELLING: f64 = 0.9;
/// The name of the cross entropy among the parts of a loss.
const CROSS_ENTROPY: &str = "cross_entropy";

/// The losses of a run by iteration.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// The first of all: what a network that knows nothing has.
    first: Option<f64>,
    total: Series,
    cross_entropy: Series,
}

impl Losses {
    /// Those in the log of the run in this folder.
    pub(super) fn logged(run: &Path, train: &TrainConfig) -> Result<Self> {
        let mut losses = Self::default();
        for row in progress::read(run)? {
            if let Row::Step(step) = row {
                let parts = step.parts.iter().filter_map(|(name, value)| Some((name.as_str(), (*value)?)));
                losses.push(train, step.iteration, step.loss, parts);
            }
        }
        Ok(losses)
    }

    /// The loss of an iteration with its parts; one that has a single part has none.
    pub(super) fn push<'a>(
        &mut self,
        train: &TrainConfig,
        iteration: u64,
        loss: f64,
        parts: impl Iterator<Item = (&'a str, f64)>,
    ) {
        self.first.get_or_insert(loss);
        self.total.push(iteration, loss);
        let parts: Vec<(&str, f64)> = parts.collect();
        let alone =
            parts.is_empty() && train.loss.dice == 0.0 && train.loss.lovasz == 0.0 && train.loss.focal_gamma == 0.0;
        let part = parts.iter().find(|(name, _)| *name == CROSS_ENTROPY).map(|(_, value)| *value);
        if let Some(value) = part.or(alone.then_some(loss)) {
            self.cross_entropy.push(iteration, value);
        }
    }

    /// Whether a network that says one class everywhere after `iteration` iterations is on its way all the same: it tells pixels
    /// apart, though not enough for another class to come first, or its loss still falls.
    pub(super) fn learns(&self, iteration: u64, scores: &Scores, train: &TrainConfig) -> bool {
        let quarter = |n: u64| n * iteration / 4;
        let tells =
            self.cross_entropy.mean(quarter(3), iteration).is_some_and(|now| now < TELLING * same(scores, train));
        let means = [self.first, self.total.mean(quarter(1), quarter(2)), self.total.mean(quarter(3), iteration)];
        let [Some(first), Some(before), Some(now)] = means else { return tells };
        tells || (now < first && now < FALLING * before)
    }
}

/// The least cross entropy of a network that says the same of all pixels, where classes are as often as in these scores.
fn same(scores: &Scores, train: &TrainConfig) -> f64 {
    let weight = |class: usize| train.class_weights.get(class).map_or(1.0, |weight| f64::from(*weight));
    let all = scores.pixels.max(1) as f64;
    let shares = scores.classes.iter().enumerate().map(|(at, class)| weight(at) * class.pixels as f64 / all);
    let shares: Vec<f64> = shares.filter(|share| *share > 0.0).collect();
    let sum: f64 = shares.iter().sum();
    -train.loss.cross_entropy * shares.iter().map(|share| share * (share / sum).ln()).sum::<f64>()
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
    /// More than so many are not told apart.
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
    use super::super::collapse::tests::scores;
    use super::*;

    /// Whether a run of these losses learns, that says `ground` of all, which is four fifths.
    fn learns(train: &TrainConfig, iterations: u64, loss: &dyn Fn(u64) -> (f64, Vec<(&'static str, f64)>)) -> bool {
        let mut losses = Losses::default();
        for it in 0..iterations {
            let (loss, parts) = loss(it);
            losses.push(train, it, loss, parts.into_iter());
        }
        assert!(losses.total.means.len() < Series::MOST);
        losses.learns(iterations, &scores(&[[800, 0], [200, 0]]), train)
    }

    #[test]
    fn a_loss_that_falls_is_no_collapse() {
        let train = TrainConfig::default();
        let noise = |it: u64| 0.2 * (12.9898 * it as f64).sin();
        for iterations in [40, 100, 50_000] {
            let share = |it: u64| it as f64 / iterations as f64;
            let falls = |loss: &dyn Fn(u64) -> f64| learns(&train, iterations, &|it| (loss(it), Vec::new()));
            assert!(falls(&|it| 2.5 - 0.5 * share(it) + noise(it)));
            assert!(!falls(&|it| if it < 5 { 2.5 } else { 2.1 + noise(it) / 10.0 }), "it stands");
            assert!(!falls(&|it| if it == 0 { 2.5 } else { 90.0 - 80.0 * share(it) }), "it has exploded");
        }
        assert!(!learns(&train, 2, &|_| (1.0, Vec::new())));
    }

    /// The entropy of one fifth and four is 0.5004.
    #[test]
    fn a_network_that_tells_pixels_apart_is_no_collapsed_one() {
        let mut train = TrainConfig::default();
        assert!((same(&scores(&[[800, 0], [200, 0]]), &train) - 0.5004).abs() < 1e-4);
        assert!(learns(&train, 100, &|_| (0.4, Vec::new())) && !learns(&train, 100, &|_| (0.48, Vec::new())));
        let parts =
            |entropy: f64| (entropy + 0.9, vec![("auxiliary1", 0.1), ("cross_entropy", entropy), ("dice", 0.8)]);
        train.loss.dice = 1.0;
        assert!(learns(&train, 100, &|_| parts(0.4)) && !learns(&train, 100, &|_| parts(0.5)));
        // Of queries nothing is known but the sum.
        assert!(!learns(&train, 100, &|_| (0.1, vec![("class", 0.05), ("mask", 0.05)])));
        train.class_weights = vec![1.0, 4.0];
        assert!((same(&scores(&[[800, 0], [200, 0]]), &train) - 1.6 * 2f64.ln()).abs() < 1e-6);
        train.loss.cross_entropy = 0.5;
        assert!((same(&scores(&[[800, 0], [200, 0]]), &train) - 0.8 * 2f64.ln()).abs() < 1e-6);
    }
}
