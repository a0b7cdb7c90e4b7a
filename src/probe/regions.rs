//! Regions of a label map: connected pixels of one class.

use crate::image::{IGNORE, Labels};
use crate::rng::Rng;

/// A region: pixels of one class, each beside another of them.
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
        let (width, ids) = (labels.width, &labels.ids);
        let mut owners = vec![None; ids.len()];
        let mut all = Vec::new();
        for start in 0..ids.len() {
            if ids[start] == IGNORE || owners[start].is_some() {
                continue;
            }
            let (class, number) = (ids[start], all.len() as u32);
            let (mut pixels, mut at) = (vec![start], 0);
            owners[start] = Some(number);
            let mut bounds = [usize::MAX, usize::MAX, 0, 0];
            while let Some(&pixel) = pixels.get(at) {
                at += 1;
                let (x, y) = (pixel % width, pixel / width);
                bounds = [bounds[0].min(x), bounds[1].min(y), bounds[2].max(x + 1), bounds[3].max(y + 1)];
                let near = [
                    (x > 0).then(|| pixel - 1),
                    (x + 1 < width).then(|| pixel + 1),
                    (y > 0).then(|| pixel - width),
                    (pixel + width < ids.len()).then(|| pixel + width),
                ];
                for near in near.into_iter().flatten().filter(|near| ids[*near] == class) {
                    if owners[near].is_none() {
                        owners[near] = Some(number);
                        pixels.push(near);
                    }
                }
            }
            pixels.sort_unstable();
            all.push(Region { class, pixels, bounds });
        }
        Self { all, owners, area: ids.len() }
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
