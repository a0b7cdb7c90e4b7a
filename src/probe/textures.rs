//! Samples of what classes look like, without their shape: square patches cut out of regions.

use crate::dataset::Sample;
use crate::image::{IGNORE, Image};
use crate::rng::Rng;

/// The largest side of a patch, in pixels.
const LARGEST: usize = 64;
/// The smallest: below this there is no texture to speak of.
const SMALLEST: usize = 4;
/// Patches that are kept of a class.
const KEPT: usize = 24;

/// Patches of every class, each from another image.
#[derive(Clone, Debug)]
pub(super) struct Textures(Vec<Vec<Patch>>);

#[derive(Clone, Debug)]
pub(super) struct Patch {
    /// Which image it is from.
    image: usize,
    side: usize,
    /// `side * side` colours.
    pixels: Vec<[u8; 3]>,
}

impl Textures {
    pub(super) fn new(classes: usize) -> Self {
        Self(vec![Vec::new(); classes])
    }

    /// Takes the largest square inside of each class of image number `image`.
    pub(super) fn add(&mut self, image: usize, sample: &Sample) {
        let (width, ids) = (sample.labels.width, &sample.labels.ids);
        // The largest square of one class whose last pixel this is.
        let mut sides = vec![1usize; ids.len()];
        let mut best = vec![(0, 0); self.0.len()];
        for at in 0..ids.len() {
            if at % width > 0 && at >= width {
                let near = [at - 1, at - width, at - width - 1];
                if near.iter().all(|near| ids[*near] == ids[at]) {
                    sides[at] = 1 + near.map(|near| sides[near]).into_iter().min().unwrap_or(0);
                }
            }
            if ids[at] != IGNORE
                && let Some(best) = best.get_mut(usize::from(ids[at]))
                && sides[at] > best.0
            {
                *best = (sides[at], at);
            }
        }
        for (class, (side, last)) in best.into_iter().enumerate().filter(|(_, (side, _))| *side >= SMALLEST) {
            if self.0[class].len() < KEPT {
                let side = side.min(LARGEST);
                let (right, bottom) = (last % width, last / width);
                let place = |i: usize| (bottom + 1 - side + i / side) * width + right + 1 - side + i % side;
                let pixels = (0..side * side).map(|i| color(&sample.image, place(i))).collect();
                self.0[class].push(Patch { image, side, pixels });
            }
        }
    }

    /// The classes other than `class` that have patches of other images than number `image`.
    pub(super) fn others(&self, class: u8, image: usize) -> Vec<u8> {
        let foreign = |other: &usize| self.0[*other].iter().any(|patch| patch.image != image);
        (0..self.0.len())
            .filter(|other| *other != usize::from(class))
            .filter(foreign)
            .map(|other| other as u8)
            .collect()
    }

    /// A patch of `class`, from another image than number `image`; none if there is none.
    pub(super) fn draw(&self, class: u8, image: usize, rng: &mut Rng) -> Option<&Patch> {
        let patches = self.0.get(usize::from(class))?;
        let foreign: Vec<&Patch> = patches.iter().filter(|patch| patch.image != image).collect();
        foreign.get(rng.below(foreign.len())).copied()
    }
}

impl Patch {
    /// The colour at a place of a plane that the patch tiles, mirrored at its sides so that no seam shows.
    pub(super) fn at(&self, x: usize, y: usize) -> [u8; 3] {
        let fold = |place: usize| {
            let place = place % (2 * self.side);
            place.min(2 * self.side - 1 - place)
        };
        self.pixels[fold(y) * self.side + fold(x)]
    }

    pub(super) fn side(&self) -> usize {
        self.side
    }
}

/// The colour of a pixel.
pub(super) fn color(image: &Image, at: usize) -> [u8; 3] {
    [image.pixels[at * 3], image.pixels[at * 3 + 1], image.pixels[at * 3 + 2]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Labels;

    #[test]
    fn patches_lie_inside_of_their_class() {
        // A square of class 1 of 5 x 5 in class 0; each pixel's red says its class.
        let inside = |at: usize| (3..8).contains(&(at % 12)) && (2..7).contains(&(at / 12));
        let ids: Vec<u8> = (0..144).map(|at| u8::from(inside(at))).collect();
        let pixels = (0..144).flat_map(|at| [ids[at] * 200, at as u8, 0]).collect();
        let size = (12, 12);
        let sample = Sample {
            image: Image { width: size.0, height: size.1, pixels },
            labels: Labels { width: size.0, height: size.1, ids },
        };
        let mut textures = Textures::new(3);
        textures.add(0, &sample);
        textures.add(1, &sample);
        let mut rng = Rng::new(2, &[]);
        let patch = textures.draw(1, 0, &mut rng).unwrap();
        assert_eq!((patch.image, patch.side), (1, 5));
        assert!(patch.pixels.iter().all(|rgb| rgb[0] == 200));
        assert_eq!(patch.at(4, 0), patch.at(5, 0), "mirrored at its side");
        assert_eq!(patch.at(0, 3), patch.at(10, 13));
        assert_eq!((textures.others(1, 0), textures.others(2, 0)), (vec![0], vec![0, 1]));
        assert!(textures.draw(2, 0, &mut rng).is_none());
    }
}
