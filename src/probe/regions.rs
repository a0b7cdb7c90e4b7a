//! Regions of a label map: connected pixels of one class.

use crate::image::regions::connected;
use crate::image::{IGNORE, Labels};
use crate::rng::Rng;

/// A connected region of a label map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) class: u8,
    /// Where its pixels are, counted by rows.
    pub(super) pixels: Vec<usize>,
    /// Left, top, right and bottom; the last two are the first outside.
    pub(super) bounds: [usize; 4],
}

/// All regions of a label map; ignored pixels are of none.
#[derive(Clone, Debug)]
pub(super) struct Regions {
    pub(super) all: Vec<Region>,
    /// Which region each pixel is of.
    pub(super) owners: Vec<Option<u32>>,
    /// Pixels of the whole map.
    area: usize,
}

impl Regions {
    /// In the order of their first pixels.
    pub(super) fn of(labels: &Labels) -> Self {
        let ids = &labels.ids;
        let found = connected(labels.width, labels.height, |at| (ids[at] != IGNORE).then(|| ids[at].into()));
        let mut owners = vec![None; ids.len()];
        for (number, region) in (0..).zip(&found) {
            region.pixels.iter().for_each(|at| owners[*at] = Some(number));
        }
        let all = found.into_iter().map(|region| Region {
            class: ids[region.pixels[0]],
            pixels: region.pixels,
            bounds: region.bounds,
        });
        Self { all: all.collect(), owners, area: ids.len() }
    }

    /// Regions smaller than this are not judged one by one: a two-thousandth of the image, at least 16 pixels.
    pub(super) fn least(&self) -> usize {
        (self.area / 2000).max(16)
    }

    /// Whether a region is large enough to be judged.
    pub(super) fn counts(&self, region: &Region) -> bool {
        region.pixels.len() >= self.least()
    }

    /// Whether it is an object that could lie elsewhere: large enough to be judged, and at most half of the image.
    pub(super) fn is_movable(&self, region: &Region) -> bool {
        self.counts(region) && 2 * region.pixels.len() <= self.area
    }

    /// One of those that are wanted: each class has the same chance, and each region of it.
    pub(super) fn pick(&self, rng: &mut Rng, wanted: impl Fn(&Region) -> bool) -> Option<usize> {
        let mut classes: Vec<u8> = self.all.iter().filter(|region| wanted(region)).map(|region| region.class).collect();
        classes.sort_unstable();
        classes.dedup();
        let class = *classes.get(rng.below(classes.len()))?;
        let of_class: Vec<usize> =
            (0..self.all.len()).filter(|at| self.all[*at].class == class && wanted(&self.all[*at])).collect();
        of_class.get(rng.below(of_class.len())).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_hang_together() {
        let labels = Labels { width: 4, height: 3, ids: vec![0, 0, 1, 0, 1, 0, 1, 255, 1, 1, 0, 1] };
        let regions = Regions::of(&labels);
        let found: Vec<_> = regions.all.iter().map(|region| (region.class, region.pixels.clone())).collect();
        let expected: [(u8, Vec<usize>); 6] =
            [(0, vec![0, 1, 5]), (1, vec![2, 6]), (0, vec![3]), (1, vec![4, 8, 9]), (0, vec![10]), (1, vec![11])];
        assert_eq!(found, expected);
        assert_eq!(regions.all[0].bounds, [0, 0, 2, 2]);
        assert_eq!((regions.owners[7], regions.owners[9]), (None, Some(3)));
        // Classes have the same chance, however many regions they have.
        let mut rng = Rng::new(1, &[]);
        let picked: Vec<usize> = (0..400).filter_map(|_| regions.pick(&mut rng, |_| true)).collect();
        let ones = picked.iter().filter(|at| regions.all[**at].class == 1).count();
        assert!((150..250).contains(&ones), "{ones}");
        assert_eq!(regions.pick(&mut rng, |_| false), None);
    }
}
