//! How sure a score is: the bootstrap over images.
//!
//! mIoU is a ratio of sums over a dataset, so it has no error bar of its own. The percentile bootstrap (Efron 1979) draws
//! as many images as there are, with replacement, and computes the score of what was drawn, some thousand times; the middle
//! 95 % of those scores are the interval. It says how much the score hangs on which images happen to be in the split; it knows
//! nothing of what another training run would have given.
//!
//! Scores of several networks on the same draws are paired: what is easy or hard in a draw is so for all of them, and the
//! interval of the difference of two is narrower than those of either.

use rayon::prelude::*;

use crate::metrics::image_counts::ImageCounts;
use crate::rng::Rng;

/// The mean IoU over classes of the sum of all images; `None` where nothing was counted. A class that no image holds takes
/// no part, as in [`Scores::miou`](super::Scores).
pub fn miou(images: &[ImageCounts]) -> Option<f64> {
    weighted_miou(images, |_| 1)
}

fn weighted_miou(images: &[ImageCounts], weight: impl Fn(usize) -> u32) -> Option<f64> {
    let mut sums = [(0u64, 0u64); 256];
    for (at, image) in images.iter().enumerate() {
        let times = u64::from(weight(at));
        if times == 0 {
            continue;
        }
        for (class, count) in image.classes() {
            let (hits, union) = &mut sums[usize::from(*class)];
            *hits += times * u64::from(count.hit);
            // A file may hold anything: no subtraction that could fail.
            *union += times * (u64::from(count.truth) + u64::from(count.prediction)).saturating_sub(count.hit.into());
        }
    }
    let present = sums.iter().filter(|(_, union)| *union > 0);
    let (sum, n) = present.fold((0.0, 0u32), |(sum, n), (hits, union)| (sum + *hits as f64 / *union as f64, n + 1));
    (n > 0).then(|| sum / f64::from(n))
}

/// mIoU on `draws` draws of as many images as there are, with replacement: the mean over `runs`, each of which holds the
/// counts of the same images. Draw `i` of a `seed` is the same whatever the runs, so that results can be paired; it does
/// not depend on the number of threads. Draws in which nothing is counted are 0.
///
/// # Panics
/// Where runs hold different numbers of images.
pub fn draws(runs: &[&[ImageCounts]], draws: usize, seed: u64) -> Vec<f64> {
    let n = runs.first().map_or(0, |run| run.len());
    assert!(runs.iter().all(|run| run.len() == n), "the same images in every run");
    let score = |draw: usize| {
        let mut rng = Rng::new(seed, &[draw as u64]);
        let mut times = vec![0u32; n];
        (0..n).for_each(|_| times[rng.below(n)] += 1);
        let sum: f64 = runs.iter().map(|run| weighted_miou(run, |at| times[at]).unwrap_or(0.0)).sum();
        sum / runs.len().max(1) as f64
    };
    (0..draws).into_par_iter().map(score).collect()
}

/// The middle `level` (0.95) of the values: the percentile interval. `None` without values.
pub fn percentile_interval(values: &[f64], level: f64) -> Option<[f64; 2]> {
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
pub fn p_value(differences: &[f64]) -> f64 {
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
        let found = draws(&[&images], 4000, 1);
        let share = |value: f64| found.iter().filter(|score| **score == value).count() as f64 / 4000.0;
        assert!(
            (share(0.5) - 0.5).abs() < 0.03 && (share(1.0) - 0.25).abs() < 0.03 && (share(0.0) - 0.25).abs() < 0.03
        );
        assert_eq!(percentile_interval(&found, 0.95), Some([0.0, 1.0]));
        assert_eq!(percentile_interval(&[3.0, 1.0, 2.0], 0.5), Some([1.5, 2.5]));
        assert_eq!(percentile_interval(&[], 0.95), None);
        // Runs are averaged on one and the same draw.
        let both = draws(&[&images, &[images[1].clone(), images[0].clone()]], 100, 1);
        assert!(both.iter().all(|score| *score == 0.5));
    }

    #[test]
    fn draws_are_reproducible_and_paired() {
        let (a, b) = (noisy(50, 1), noisy(50, 2));
        assert_eq!(draws(&[&a], 100, 7), draws(&[&a], 100, 7));
        assert_ne!(draws(&[&a], 100, 7), draws(&[&a], 100, 8));
        let (one, two) = (draws(&[&a], 100, 7), draws(&[&a, &b], 100, 7));
        let other = draws(&[&b], 100, 7);
        assert!((0..100).all(|i| ((one[i] + other[i]) / 2.0 - two[i]).abs() < 1e-12));
    }

    #[test]
    fn intervals_shrink_with_images_and_cover() {
        let width = |n: usize| {
            let [low, high] = percentile_interval(&draws(&[&noisy(n, 3)], 400, 1), 0.95).unwrap();
            high - low
        };
        assert!(width(400) < 0.7 * width(100) && width(100) < 0.7 * width(25));
        let covers = |seed: u64| {
            let [low, high] = percentile_interval(&draws(&[&noisy(60, seed)], 300, 1), 0.95).unwrap();
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
