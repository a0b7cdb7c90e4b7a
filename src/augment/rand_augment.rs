//! RandAugment (Cubuk et al. 2020): some operations of one strength, drawn afresh for every sample. Operations and
//! their strengths are torchvision's; labels move with the image.

use serde::{Deserialize, Serialize};

use crate::augment::affine::Affine;
use crate::augment::filters;
use crate::image::Image;
use crate::rng::Rng;

/// How many operations, and how strong.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RandAugment {
    /// Operations a sample; repetitions are possible.
    pub ops: usize,
    /// Their strength, 0 to 30.
    pub magnitude: f32,
}

impl Default for RandAugment {
    fn default() -> Self {
        Self { ops: 2, magnitude: 9.0 }
    }
}

/// What was drawn for a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// All movements in one.
    pub affine: Affine,
    filters: Vec<Filter>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Filter {
    Brightness(f32),
    Color(f32),
    Contrast(f32),
    Sharpness(f32),
    Posterize(u32),
    Solarize(u16),
    Autocontrast,
    Equalize,
}

/// Operations to draw from, the one that does nothing among them.
const OPERATIONS: usize = 14;
/// The largest magnitude.
pub(crate) const LARGEST: f32 = 30.0;

impl RandAugment {
    /// Draws for a crop of `size` (width, height).
    pub fn draw(&self, (width, height): (usize, usize), rng: &mut Rng) -> Drawn {
        let mut drawn = Drawn { affine: Affine::IDENTITY, filters: Vec::new() };
        let strength = self.magnitude / LARGEST;
        for _ in 0..self.ops {
            let operation = rng.below(OPERATIONS);
            let sign = if rng.chance(0.5) { -1.0 } else { 1.0 };
            let signed = |most: f32| f64::from(sign * strength * most);
            let factor = 1.0 + sign * strength * 0.9;
            match operation {
                0 => {}
                1 => drawn.move_by(Affine::shear(signed(0.3), 0.0)),
                2 => drawn.move_by(Affine::shear(0.0, signed(0.3))),
                3 => drawn.move_by(Affine::translation(signed(150.0 / 331.0) * width as f64, 0.0)),
                4 => drawn.move_by(Affine::translation(0.0, signed(150.0 / 331.0) * height as f64)),
                5 => drawn.move_by(Affine::rotation(signed(30.0))),
                6 => drawn.filters.push(Filter::Brightness(factor)),
                7 => drawn.filters.push(Filter::Color(factor)),
                8 => drawn.filters.push(Filter::Contrast(factor)),
                9 => drawn.filters.push(Filter::Sharpness(factor)),
                10 => drawn.filters.push(Filter::Posterize(8 - (strength * 4.0).round() as u32)),
                11 => drawn.filters.push(Filter::Solarize((255.0 * (1.0 - strength)).round() as u16)),
                12 => drawn.filters.push(Filter::Autocontrast),
                _ => drawn.filters.push(Filter::Equalize),
            }
        }
        drawn
    }
}

impl Drawn {
    fn move_by(&mut self, affine: Affine) {
        self.affine = self.affine.then(affine);
    }

    /// Changes the colours.
    pub fn recolor(&self, image: &mut Image) {
        for filter in &self.filters {
            match *filter {
                Filter::Brightness(factor) => filters::brightness(image, factor),
                Filter::Color(factor) => filters::color(image, factor),
                Filter::Contrast(factor) => filters::contrast(image, factor),
                Filter::Sharpness(factor) => filters::sharpness(image, factor),
                Filter::Posterize(bits) => filters::posterize(image, bits),
                Filter::Solarize(threshold) => filters::solarize(image, threshold),
                Filter::Autocontrast => filters::autocontrast(image),
                Filter::Equalize => filters::equalize(image),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_operations_come_up_and_grow_with_the_magnitude() {
        let draw = |ops, magnitude, seed| RandAugment { ops, magnitude }.draw((331, 331), &mut Rng::new(seed, &[]));
        let kinds: BTreeSet<String> = (0..400)
            .map(|seed| {
                let Drawn { affine, filters } = draw(1, 9.0, seed);
                let [[a, b], [c, _]] = affine.matrix;
                let movement = [a != 1.0, b != 0.0, c != 0.0, affine.shift[0] != 0.0, affine.shift[1] != 0.0];
                format!("{movement:?}{:?}", filters.first().map(std::mem::discriminant))
            })
            .collect();
        assert_eq!(kinds.len(), OPERATIONS, "{kinds:?}");
        let most = |magnitude| {
            let shifts = (0..400).map(|seed| draw(1, magnitude, seed).affine.shift[0].abs());
            shifts.fold(0.0, f64::max)
        };
        assert!((most(30.0) - 150.0).abs() < 1e-3 && (most(9.0) - 45.0).abs() < 1e-3);
        assert_eq!(draw(3, 9.0, 5), draw(3, 9.0, 5));
        assert_eq!((0..100).map(|seed| draw(0, 9.0, seed).filters.len()).sum::<usize>(), 0);
    }

    #[test]
    fn a_magnitude_of_nothing_keeps_the_colours() {
        let before = Image { width: 5, height: 4, pixels: (0..60).map(|i| i * 4 + 3).collect() };
        for seed in 0..200 {
            let drawn = RandAugment { ops: 1, magnitude: 0.0 }.draw((5, 4), &mut Rng::new(seed, &[]));
            let mut image = before.clone();
            drawn.recolor(&mut image);
            let stretches = matches!(drawn.filters.first(), Some(Filter::Autocontrast | Filter::Equalize));
            let inverts = matches!(drawn.filters.first(), Some(Filter::Solarize(255)));
            assert!(
                drawn.affine.matrix == Affine::IDENTITY.matrix && (image == before || stretches || inverts),
                "{drawn:?}"
            );
        }
    }
}
