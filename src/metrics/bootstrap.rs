//! How sure a score is: the bootstrap over images.
//!
//! mIoU is a ratio of sums over a dataset, so it has no error bar of its own. The percentile bootstrap (Efron 1979)
//! draws as many images as there are, with replacement, and computes the score of what was drawn, some thousand times;
//! the middle 95 % of those scores are the interval. It says how much the score hangs on which images happen to be in
//! the split; it knows nothing of what another training run would have given.
//!
//! Scores of several networks on the same draws are paired: what is easy or hard in a draw is so for all of them, and
//! the interval of the difference of two is narrower than those of either.

use rayon::prelude::*;

use crate::metrics::image_counts::ImageCounts;
use crate::rng::Rng;
use crate::stats::{mean_of_some, ratio};

/// The mean IoU over classes of the sum of all images; `None` where nothing was counted. A class that no image holds
/// takes no part, as in [`Scores::miou`](super::Scores).
pub fn miou(images: &[ImageCounts]) -> Option<f64> {
    weighted_miou(images, |_| 1)
}

fn weighted_miou(images: &[ImageCounts], weight: impl Fn(usize) -> u32) -> Option<f64> {
    let sums = weighted_sums(images, weight);
    mean_of_some(sums.iter().map(|[hits, union, _]| ratio(*hits, *union)))
}

/// Hits, union and truth of every class in the sum of all images, each taken this many times.
fn weighted_sums(images: &[ImageCounts], weight: impl Fn(usize) -> u32) -> [[u64; 3]; 256] {
    let mut sums = [[0u64; 3]; 256];
    for (at, image) in images.iter().enumerate() {
        let times = u64::from(weight(at));
        if times == 0 {
            continue;
        }
        for (class, count) in image.classes() {
            let [hits, union, truth] = &mut sums[usize::from(*class)];
            *hits += times * u64::from(count.hit);
            // A file may hold anything: no subtraction that could fail.
            *union += times * (u64::from(count.truth) + u64::from(count.prediction)).saturating_sub(count.hit.into());
            *truth += times * u64::from(count.truth);
        }
    }
    sums
}

/// IoUs of the classes that the truth holds, and their mean. Unlike [`miou`] it leaves a class out that is predicted
/// where there is none of it: where only some regions count, that would be most classes.
fn of_truth(sums: &[[u64; 3]; 256], classes: usize) -> (Option<f64>, Vec<Option<f64>>) {
    let iou = |[hits, union, truth]: &[u64; 3]| ratio(*hits, *union).filter(|_| *truth > 0);
    let ious: Vec<Option<f64>> = sums[..classes.min(sums.len())].iter().map(iou).collect();
    (mean_of_some(ious.iter().copied()), ious)
}

/// The mean IoU over the classes that the truth of the images holds, and the IoU of each.
pub(crate) fn true_ious(images: &[ImageCounts], classes: usize) -> (Option<f64>, Vec<Option<f64>>) {
    of_truth(&weighted_sums(images, |_| 1), classes)
}

/// Differences of scores on the same draws of images.
pub(crate) struct Differences {
    /// Of the mean IoU, from draws in which both have one.
    pub(crate) miou: Vec<f64>,
    /// Of the IoU of each class, likewise.
    pub(crate) classes: Vec<Vec<f64>>,
}

/// What `after` scores more than `before`, two lists of the counts of the same images, on `draws` draws of these: the
/// scores of [`true_ious`], on the draws of [`resampled_mious`].
///
/// # Panics
/// Where the lists hold different numbers of images.
pub(crate) fn differences(
    before: &[ImageCounts],
    after: &[ImageCounts],
    classes: usize,
    draws: usize,
    seed: u64,
) -> Differences {
    assert_eq!(before.len(), after.len(), "the same images before and after");
    let n = before.len();
    let draw = |draw: usize| {
        let times = times(n, draw, seed);
        let scores = |images| of_truth(&weighted_sums(images, |at| times[at]), classes);
        let ((mean_before, before), (mean_after, after)) = (scores(before), scores(after));
        let classes = before.iter().zip(&after).map(|(before, after)| Some((*after)? - (*before)?));
        (mean_before.zip(mean_after).map(|(before, after)| after - before), classes.collect::<Vec<_>>())
    };
    let drawn: Vec<_> = (0..draws).into_par_iter().map(draw).collect();
    Differences {
        miou: drawn.iter().filter_map(|(miou, _)| *miou).collect(),
        classes: (0..classes).map(|class| drawn.iter().filter_map(|(_, changes)| changes[class]).collect()).collect(),
    }
}

/// How often each of `n` images is in a draw.
fn times(n: usize, draw: usize, seed: u64) -> Vec<u32> {
    let mut rng = Rng::new(seed, &[draw as u64]);
    let mut times = vec![0u32; n];
    (0..n).for_each(|_| times[rng.below(n)] += 1);
    times
}

/// mIoU on `draws` draws of as many images as there are, with replacement: the mean over `runs`, each of which holds
/// the counts of the same images. Draw `i` of a `seed` is the same whatever the runs, so that results can be paired; it
/// does not depend on the number of threads. Draws in which nothing is counted are 0.
///
/// # Panics
/// Where runs hold different numbers of images.
pub fn resampled_mious(runs: &[&[ImageCounts]], draws: usize, seed: u64) -> Vec<f64> {
    let n = runs.first().map_or(0, |run| run.len());
    assert!(runs.iter().all(|run| run.len() == n), "the same images in every run");
    let score = |draw: usize| {
        let times = times(n, draw, seed);
        let sum: f64 = runs.iter().map(|run| weighted_miou(run, |at| times[at]).unwrap_or(0.0)).sum();
        sum / runs.len().max(1) as f64
    };
    (0..draws).into_par_iter().map(score).collect()
}

/// The middle `level` (0.95) of the values: the percentile interval. `None` without values.
pub(crate) fn percentile_interval(values: &[f64], level: f64) -> Option<[f64; 2]> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let at = |share: f64| {
        let place = share * last as f64;
        let (below, part) = (place as usize, place.fract());
        sorted[below] + (sorted[(below + 1).min(last)] - sorted[below]) * part
    };
    Some([at((1.0 - level) / 2.0), at((1.0 + level) / 2.0)])
}

/// The two-sided p value of "no difference" from bootstrapped differences: twice the smaller share on either side of 0,
/// counting one draw more so that it is never 0.
pub(crate) fn p_value(differences: &[f64]) -> f64 {
    let side = |of: fn(f64) -> bool| differences.iter().filter(|difference| of(**difference)).count() + 1;
    let smaller = side(|difference| difference <= 0.0).min(side(|difference| difference >= 0.0));
    (2.0 * smaller as f64 / (differences.len() + 1) as f64).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Labels;
    use crate::metrics::Confusion;
    use crate::metrics::image_counts::ClassCount;

    fn image(hit: u32, truth: u32, prediction: u32) -> ImageCounts {
        ImageCounts::new([(0, ClassCount { hit, truth, prediction })])
    }

    /// One class whose IoU varies from image to image around 1/2.
    fn noisy(n: usize, seed: u64) -> Vec<ImageCounts> {
        let mut rng = Rng::new(seed, &[]);
        let hits = (0..n).map(|_| rng.below(101) as u32);
        hits.map(|hit| image(hit, 100, hit)).collect()
    }

    #[test]
    fn counts_give_the_scores_of_the_matrix() {
        let labels = |ids: &[u8]| Labels { width: 4, height: 2, ids: ids.to_vec() };
        let (mut all, mut images) = (Confusion::new(4), Vec::new());
        for (truth, prediction) in
            [([0, 0, 0, 1, 1, 255, 255, 0], [0, 0, 1, 1, 2, 3, 0, 0]), ([1; 8], [1, 1, 1, 0, 1, 1, 1, 1])]
        {
            let mut one = Confusion::new(4);
            one.add(&labels(&truth), &labels(&prediction)).unwrap();
            all.merge(&one);
            images.push(one.image_counts());
        }
        let names: Vec<String> = (0..4).map(|i| i.to_string()).collect();
        let scores = all.scores(&names);
        assert!((miou(&images).unwrap() - scores.miou.unwrap()).abs() < 1e-15);
        assert_eq!(images[0].accuracy(), Some(4.0 / 6.0));
        assert_eq!((miou(&[]), ImageCounts::default().accuracy()), (None, None));
        let text = serde_json::to_string(&images).unwrap();
        assert!(text.starts_with("[[[0,3,4,3],[1,1,2,2],[2,0,0,1]]"), "{text}");
        assert_eq!(serde_json::from_str::<Vec<ImageCounts>>(&text).unwrap(), images);
    }

    #[test]
    fn a_known_case() {
        // Two images, right and wrong: a draw has both (half of the time), only the right or only the wrong one.
        let images = [image(10, 10, 10), image(0, 10, 0)];
        let found = resampled_mious(&[&images], 4000, 1);
        let share = |value: f64| found.iter().filter(|score| **score == value).count() as f64 / 4000.0;
        assert!(
            (share(0.5) - 0.5).abs() < 0.03 && (share(1.0) - 0.25).abs() < 0.03 && (share(0.0) - 0.25).abs() < 0.03
        );
        assert_eq!(percentile_interval(&found, 0.95), Some([0.0, 1.0]));
        assert_eq!(percentile_interval(&[3.0, 1.0, 2.0], 0.5), Some([1.5, 2.5]));
        assert_eq!(percentile_interval(&[], 0.95), None);
        // Runs are averaged on one and the same draw.
        let both = resampled_mious(&[&images, &[images[1].clone(), images[0].clone()]], 100, 1);
        assert!(both.iter().all(|score| *score == 0.5));
    }

    #[test]
    fn draws_are_reproducible_and_paired() {
        let (a, b) = (noisy(50, 1), noisy(50, 2));
        assert_eq!(resampled_mious(&[&a], 100, 7), resampled_mious(&[&a], 100, 7));
        assert_ne!(resampled_mious(&[&a], 100, 7), resampled_mious(&[&a], 100, 8));
        let (one, two) = (resampled_mious(&[&a], 100, 7), resampled_mious(&[&a, &b], 100, 7));
        let other = resampled_mious(&[&b], 100, 7);
        assert!((0..100).all(|i| ((one[i] + other[i]) / 2.0 - two[i]).abs() < 1e-12));
    }

    #[test]
    fn differences_are_those_of_paired_draws() {
        let (a, b) = (noisy(30, 1), noisy(30, 2));
        let found = differences(&a, &b, 2, 50, 7);
        let (before, after) = (resampled_mious(&[&a], 50, 7), resampled_mious(&[&b], 50, 7));
        assert_eq!(found.miou.len(), 50);
        assert!((0..50).all(|i| (found.miou[i] - (after[i] - before[i])).abs() < 1e-12));
        assert_eq!(found.classes[0], found.miou, "there is one class");
        assert!(found.classes[1].is_empty());
        assert_eq!(true_ious(&a, 2), (miou(&a), vec![miou(&a), None]));
        // A class that is predicted where there is none counts against the others alone.
        let astray = ImageCounts::new([(1, ClassCount { hit: 0, truth: 0, prediction: 5 })]);
        let with = [image(50, 100, 50), astray];
        assert_eq!((true_ious(&with, 2).0, miou(&with)), (Some(0.5), Some(0.25)));
        assert!(differences(&[], &[], 1, 5, 0).miou.is_empty());
    }

    #[test]
    fn intervals_shrink_with_images_and_cover() {
        let width = |n: usize| {
            let [low, high] = percentile_interval(&resampled_mious(&[&noisy(n, 3)], 400, 1), 0.95).unwrap();
            high - low
        };
        assert!(width(400) < 0.7 * width(100) && width(100) < 0.7 * width(25));
        let covers = |seed: u64| {
            let [low, high] = percentile_interval(&resampled_mious(&[&noisy(60, seed)], 300, 1), 0.95).unwrap();
            (low..=high).contains(&0.5)
        };
        let covered = (0..200).filter(|seed| covers(100 + seed)).count();
        assert!((176..=199).contains(&covered), "{covered} of 200");
    }

    #[test]
    fn p_values_are_two_sided() {
        assert_eq!(p_value(&[1.0; 999]), 2.0 / 1000.0);
        assert_eq!(p_value(&[0.0; 10]), 1.0);
        let half: Vec<f64> = (0..100).map(|i| f64::from(i) - 49.5).collect();
        assert!(p_value(&half) > 0.9);
    }
}
