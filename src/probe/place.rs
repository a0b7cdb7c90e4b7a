//! Where a network fails: by distance to edges, by size of objects, by curvature of contours.

use std::f64::consts::PI;

use serde::Serialize;

use super::regions::{Region, Regions};
use crate::image::{IGNORE, Labels};
use crate::metrics::distance::{BandScore, DistanceBands, squared_distances};
use crate::metrics::overlap::Overlaps;
use crate::stats::mean;

/// Where bins of size begin, as shares of the image's area.
pub(super) const SIZES: [f64; 5] = [0.0, 0.005, 0.02, 0.08, 0.32];

/// Where bins of curvature begin: the radius of the disc that it is measured with over that of the contour.
pub(super) const CURVATURES: [f64; 4] = [0.0, 0.3, 0.7, 1.2];

/// Where a network is right.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FailureScores {
    /// By distance to the nearest true edge.
    pub distance: Vec<BandScore>,
    /// By the size of true regions.
    pub size: Vec<SizeScore>,
    /// By the curvature of true contours, on their pixels.
    pub curvature: Vec<CurvatureScore>,
}

/// Regions of some size. The IoU of a region compares it with the predicted regions of its class that touch it, less
/// what these share with other true regions of the class; tiny regions are left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SizeScore {
    /// The least share of the image.
    pub from: f64,
    /// The first share that is too large; none of the last bin.
    pub to: Option<f64>,
    /// Regions of this size.
    pub regions: usize,
    /// The mean of their IoU.
    pub iou: Option<f64>,
    /// The same for each class.
    pub classes: Vec<Option<f64>>,
    /// Regions of each class.
    pub counts: Vec<usize>,
}

/// Pixels on true contours of some curvature.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CurvatureScore {
    /// The least curvature, in units of one over the disc's radius.
    pub from: f64,
    /// The first that is too large; none of the last bin.
    pub to: Option<f64>,
    /// Pixels on contours.
    pub pixels: u64,
    /// Mean IoU over classes, on these pixels.
    pub miou: Option<f64>,
    /// The share of right pixels.
    pub accuracy: Option<f64>,
    /// The IoU of each class.
    pub classes: Vec<Option<f64>>,
}

/// Counts of images.
pub(super) struct FailureCounts {
    classes: usize,
    distance: DistanceBands,
    curvature: [Overlaps; CURVATURES.len()],
    /// Class and IoU of every region, by size.
    sizes: [Vec<(u8, f64)>; SIZES.len()],
}

impl FailureCounts {
    pub(super) fn new(classes: usize) -> Self {
        Self {
            classes,
            distance: DistanceBands::new(classes),
            curvature: std::array::from_fn(|_| Overlaps::new(classes)),
            sizes: std::array::from_fn(|_| Vec::new()),
        }
    }

    /// Counts an image.
    pub(super) fn add(&mut self, truth: &Labels, regions: &Regions, prediction: &Labels) {
        self.distance.add(truth, prediction);
        for (at, curvature) in curvatures(truth) {
            self.curvature[bin(&CURVATURES, curvature)].count(truth.ids[at], prediction.ids[at]);
        }
        let found = Regions::of(prediction);
        for region in regions.all.iter().filter(|region| regions.counts(region)) {
            let share = region.pixels.len() as f64 / truth.ids.len() as f64;
            self.sizes[bin(&SIZES, share)].push((region.class, region_iou(region, truth, &found)));
        }
    }

    pub(super) fn scores(&self) -> FailureScores {
        let size = |(at, regions): (usize, &Vec<(u8, f64)>)| {
            let of = |class: usize| -> Vec<f64> {
                regions.iter().filter(|(id, _)| usize::from(*id) == class).map(|(_, iou)| *iou).collect()
            };
            SizeScore {
                from: SIZES[at],
                to: SIZES.get(at + 1).copied(),
                regions: regions.len(),
                iou: mean(&regions.iter().map(|(_, iou)| *iou).collect::<Vec<_>>()),
                classes: (0..self.classes).map(|class| mean(&of(class))).collect(),
                counts: (0..self.classes).map(|class| of(class).len()).collect(),
            }
        };
        let curvature = |(at, counts): (usize, &Overlaps)| CurvatureScore {
            from: CURVATURES[at],
            to: CURVATURES.get(at + 1).copied(),
            pixels: counts.pixels(),
            miou: counts.miou(),
            accuracy: counts.accuracy(),
            classes: counts.ious(),
        };
        FailureScores {
            distance: self.distance.scores(),
            size: self.sizes.iter().enumerate().map(size).collect(),
            curvature: self.curvature.iter().enumerate().map(curvature).collect(),
        }
    }
}

fn bin(from: &[f64], value: f64) -> usize {
    from.iter().rposition(|from| *from <= value).unwrap_or(0)
}

/// A region against what was found of it.
fn region_iou(region: &Region, truth: &Labels, found: &Regions) -> f64 {
    let touching: std::collections::BTreeSet<u32> = region
        .pixels
        .iter()
        .filter_map(|at| found.owners[*at])
        .filter(|owner| found.all[*owner as usize].class == region.class)
        .collect();
    let (mut hits, mut extra) = (0usize, 0usize);
    for at in touching.iter().flat_map(|owner| &found.all[*owner as usize].pixels) {
        match truth.ids[*at] {
            IGNORE => {}
            // Of the class, but of another region of it.
            id if id == region.class => hits += usize::from(region.pixels.binary_search(at).is_ok()),
            _ => extra += 1,
        }
    }
    hits as f64 / (region.pixels.len() + extra) as f64
}

/// The curvature of contours at their pixels, without its sign: the share of a disc around a pixel that lies on its
/// side tells how much its contour bends (Pottmann et al. 2009, integral invariants). Pixels whose disc reaches beyond
/// the image or holds pixels without truth are left out.
fn curvatures(truth: &Labels) -> Vec<(usize, f64)> {
    let (width, height) = (truth.width, truth.height);
    let radius = ((width as f64).hypot(height as f64) / 100.0).round().max(5.0);
    let reach = radius as usize;
    let disc: Vec<(usize, usize)> = (0..=2 * reach)
        .flat_map(|y| (0..=2 * reach).map(move |x| (x, y)))
        .filter(|(x, y)| (*x as f64 - radius).hypot(*y as f64 - radius) <= radius)
        .collect();
    // What lies on the side of a pixel whose contour is straight; the contour runs beside it.
    let straight = disc.iter().filter(|(x, _)| *x <= reach).count() as f64 / disc.len() as f64;
    let distances = squared_distances(truth);
    let mut found = Vec::new();
    for y in reach..height.saturating_sub(reach) {
        for x in reach..width.saturating_sub(reach) {
            let at = y * width + x;
            if distances[at] != 0 || truth.ids[at] == IGNORE {
                continue;
            }
            let ids = || disc.iter().map(|(dx, dy)| truth.ids[(y - reach + dy) * width + x - reach + dx]);
            if ids().any(|id| id == IGNORE) {
                continue;
            }
            let own = ids().filter(|id| *id == truth.ids[at]).count() as f64 / disc.len() as f64;
            found.push((at, (3.0 * PI * (own - straight)).abs()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(width: usize, height: usize, class: impl Fn(usize, usize) -> u8) -> Labels {
        let ids = (0..width * height).map(|at| class(at % width, at / width)).collect();
        Labels { width, height, ids }
    }

    #[test]
    fn straight_and_bent_contours_are_told_apart() {
        let mean = |labels: &Labels| {
            let found = curvatures(labels);
            found.iter().map(|(_, curvature)| curvature).sum::<f64>() / found.len() as f64
        };
        let straight = map(60, 60, |x, _| u8::from(x > 29));
        let disc = |radius: f64| map(90, 90, move |x, y| u8::from((x as f64 - 45.0).hypot(y as f64 - 45.0) < radius));
        assert!(mean(&straight) < 0.01, "{}", mean(&straight));
        // A disc of radius 5 is used: contours of radius 25 and 8 bend by 0.2 and 0.63 of that.
        let (large, small) = (mean(&disc(25.0)), mean(&disc(8.0)));
        assert!((0.1..0.35).contains(&large) && (0.45..0.85).contains(&small), "{large} {small}");
    }

    #[test]
    fn regions_are_compared_with_what_touches_them() {
        // Two regions of class 1; the first is found with a rim of two columns, the second not at all.
        let truth = map(20, 4, |x, _| u8::from((2..6).contains(&x) || (12..16).contains(&x)));
        let found = map(20, 4, |x, _| u8::from((2..8).contains(&x)));
        let (regions, predicted) = (Regions::of(&truth), Regions::of(&found));
        let ious: Vec<f64> = regions
            .all
            .iter()
            .filter(|region| region.class == 1)
            .map(|region| region_iou(region, &truth, &predicted))
            .collect();
        assert_eq!(ious, [16.0 / 24.0, 0.0]);
        let mut places = FailureCounts::new(2);
        places.add(&truth, &regions, &found);
        let scores = places.scores();
        assert_eq!(scores.size.iter().map(|bin| bin.regions).sum::<usize>(), 4, "a strip of 8 pixels is too small");
        // Both regions of class 1 are a fifth of the image.
        assert_eq!((scores.size[3].classes[1], scores.size[4].classes[1]), (Some(1.0 / 3.0), None));
        assert_eq!((scores.size[3].counts[1], scores.size[4].counts[1]), (2, 0));
        assert_eq!(scores.distance.iter().map(|band| band.pixels).sum::<u64>(), 80);
    }
}
