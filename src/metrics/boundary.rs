//! Pixels near contours, counted for boundary IoU: the mIoU of what lies along contours only, where decoders differ and
//! large regions do not drown it.
//!
//! Cheng et al. 2021, "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation" (arXiv 2103.16562): both
//! masks of a class are restricted to the pixels within a distance d of their own contour, then compared by IoU. Here
//! as for mIoU: intersections and unions of a class are added up over the images before they are divided.
//!
//! As in the authors' code the distance is the chessboard one, max(|dx|, |dy|), which is what d erosions by a 3 x 3
//! square measure, and the edge of the image is a contour. A pixel without truth (255) is left out of both maps: it
//! counts nowhere, and what lies on the other side of it makes no contour.
//!
//! All classes are done at once: a pixel lies in the band of its class if the square of side 2 d + 1 around it holds
//! another label, so if the smallest and the largest label in the square differ. Both come from separable running
//! minima by doubling: 4 log2(2 d + 1) passes of whole rows, whatever the number of classes.

use crate::image::{IGNORE, Labels};
use crate::metrics::image_counts::{ClassCount, ImageCounts};

/// The width of the band as a share of the image's diagonal: the paper's.
pub(crate) const BAND: f64 = 0.02;

/// The width in pixels of the band of an image of `width` x `height`: `share` of the diagonal, at least 1.
pub(crate) fn band_width((width, height): (usize, usize), share: f64) -> usize {
    (share * (width as f64).hypot(height as f64)).round().max(1.0) as usize
}

/// Counts of one image within `d` pixels of the contours: for each class its pixels in the band of the truth, those in
/// the band of the prediction, and those of both. The maps must be of one size.
pub(crate) fn boundary_counts(truth: &Labels, prediction: &Labels, d: usize) -> ImageCounts {
    assert_eq!((truth.width, truth.height), (prediction.width, prediction.height), "the truth and the prediction");
    let masked = |(truth, prediction): (&u8, &u8)| if *truth == IGNORE { IGNORE } else { *prediction };
    let prediction = Labels { ids: truth.ids.iter().zip(&prediction.ids).map(masked).collect(), ..*truth };
    let (near_truth, near_prediction) = (band(truth, d), band(&prediction, d));
    let mut all = [ClassCount::default(); 256];
    for at in 0..truth.ids.len() {
        let (t, p) = (usize::from(truth.ids[at]), usize::from(prediction.ids[at]));
        let (in_truth, in_prediction) = (near_truth[at], near_prediction[at]);
        all[t].truth += u32::from(in_truth);
        all[p].prediction += u32::from(in_prediction);
        all[t].hit += u32::from(in_truth & in_prediction & (t == p));
    }
    ImageCounts::new(all[..usize::from(IGNORE)].iter().enumerate().map(|(class, count)| (class as u8, *count)))
}

/// Whether each pixel lies within `d` of a contour of its class. Of ignored pixels it says nothing that counts.
fn band(labels: &Labels, d: usize) -> Vec<bool> {
    let (width, height) = (labels.width, labels.height);
    let lowest = sliding_pick(labels.ids.clone(), (width, height), 2 * d + 1, u8::min);
    // For the maximum an ignored pixel has to be the smallest.
    let highest = labels.ids.iter().map(|id| if *id == IGNORE { 0 } else { *id }).collect();
    let highest = sliding_pick(highest, (width, height), 2 * d + 1, u8::max);
    let mut near = vec![true; width * height];
    for y in d..height.saturating_sub(d) {
        for x in d..width.saturating_sub(d) {
            let corner = (y - d) * width + x - d;
            near[y * width + x] = lowest[corner] != highest[corner];
        }
    }
    near
}

/// `pick` over the square of `side` pixels right of and below every pixel, as far as the map reaches.
fn sliding_pick(mut map: Vec<u8>, (width, height): (usize, usize), side: usize, pick: fn(u8, u8) -> u8) -> Vec<u8> {
    for row in map.chunks_exact_mut(width.max(1)) {
        doubled_windows(side, width, |step| {
            for x in 0..width - step {
                row[x] = pick(row[x], row[x + step]);
            }
        });
    }
    doubled_windows(side, height, |step| {
        for y in 0..height - step {
            let (above, below) = map[y * width..].split_at_mut(step * width);
            for (x, y) in above[..width].iter_mut().zip(&below[..width]) {
                *x = pick(*x, *y);
            }
        }
    });
    map
}

/// Widens windows from one element to `side` by joining each with its neighbour `step` away.
fn doubled_windows(side: usize, length: usize, mut join: impl FnMut(usize)) {
    let mut covered = 1;
    while covered < side {
        let step = covered.min(side - covered);
        if step < length {
            join(step);
        }
        covered += step;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// As the authors write it: for each class its mask, padded with nothing, eroded d times by 3 x 3, and the rest is
    /// the band.
    fn by_the_book(truth: &Labels, prediction: &Labels, d: usize, classes: u8) -> Vec<(u8, ClassCount)> {
        let (w, h) = (truth.width, truth.height);
        let band = |labels: &Labels, class: u8| -> Vec<bool> {
            let ignored: Vec<bool> = truth.ids.iter().map(|id| *id == IGNORE).collect();
            let mask: Vec<bool> = (0..w * h).map(|at| !ignored[at] && labels.ids[at] == class).collect();
            let mut left: Vec<bool> = (0..w * h).map(|at| mask[at] || ignored[at]).collect();
            for _ in 0..d {
                let full = left.clone();
                let holds = |y: i64, x: i64| {
                    y >= 0 && x >= 0 && y < h as i64 && x < w as i64 && full[y as usize * w + x as usize]
                };
                for at in 0..w * h {
                    let (y, x) = ((at / w) as i64, (at % w) as i64);
                    left[at] = (-1..=1).all(|dy| (-1..=1).all(|dx| holds(y + dy, x + dx)));
                }
            }
            (0..w * h).map(|at| mask[at] && !left[at]).collect()
        };
        let count = |class| {
            let (a, b) = (band(truth, class), band(prediction, class));
            let n = |of: &dyn Fn(usize) -> bool| (0..w * h).filter(|at| of(*at)).count() as u32;
            let count = ClassCount { hit: n(&|at| a[at] && b[at]), truth: n(&|at| a[at]), prediction: n(&|at| b[at]) };
            (class, count)
        };
        (0..classes).map(count).filter(|(_, count)| *count != ClassCount::default()).collect()
    }

    fn random(rng: &mut Rng, width: usize, height: usize, classes: usize, ignored: f32) -> Labels {
        let block = 1 + rng.below(6);
        let blocks: Vec<u8> =
            (0..400).map(|_| if rng.uniform() < ignored { IGNORE } else { rng.below(classes) as u8 }).collect();
        let ids = (0..width * height).map(|at| blocks[(at / width / block * 17 + at % width / block) % 400]).collect();
        Labels { width, height, ids }
    }

    #[test]
    fn bands_are_those_of_erosion() {
        let mut rng = Rng::new(5, &[]);
        for round in 0..60 {
            let (width, height) = (1 + rng.below(24), 1 + rng.below(19));
            let truth = random(&mut rng, width, height, 3, if round % 2 == 0 { 0.0 } else { 0.3 });
            let prediction = random(&mut rng, width, height, 3, 0.0);
            for d in 1..=4 {
                let ours: Vec<_> = boundary_counts(&truth, &prediction, d).classes().to_vec();
                assert_eq!(ours, by_the_book(&truth, &prediction, d, 3), "{width} x {height}, d = {d}");
            }
        }
    }

    #[test]
    fn odd_maps_have_sensible_counts() {
        let map = |id: u8| Labels { width: 20, height: 10, ids: vec![id; 200] };
        // One class: the band runs along the edge of the image.
        let one = boundary_counts(&map(4), &map(4), 2);
        assert_eq!(one.classes(), [(4, ClassCount { hit: 104, truth: 104, prediction: 104 })]);
        // Absent from the truth: counted against the prediction.
        let wrong = boundary_counts(&map(1), &map(2), 2);
        assert_eq!(wrong.classes().len(), 2);
        assert!(wrong.classes().iter().all(|(_, count)| count.hit == 0));
        assert!(boundary_counts(&map(IGNORE), &map(2), 2).classes().is_empty());
        let none = Labels { width: 0, height: 0, ids: vec![] };
        assert!(boundary_counts(&none, &none, 2).classes().is_empty());
        // A band as wide as the image is all of it.
        assert_eq!(boundary_counts(&map(0), &map(0), 50).classes()[0].1.hit, 200);
    }

    #[test]
    fn the_band_grows_with_the_image() {
        assert_eq!([(32, 32), (640, 480), (1, 1)].map(|size| band_width(size, BAND)), [1, 16, 1]);
    }
}
