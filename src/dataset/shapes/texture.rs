//! Textures of objects and of the ground: two colours and how they alternate.

use std::f32::consts::TAU;

use crate::rng::Rng;

/// Two colours and how they alternate over the picture.
pub(super) struct Texture {
    pattern: Pattern,
    colors: [[f32; 3]; 2],
    /// Cycles a pixel, along the pattern's direction.
    wave: [f32; 2],
    phase: f32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    Plain,
    Stripes,
    Checkers,
    Gradient,
    Dots,
    Grid,
    Waves,
}

/// The patterns of the classes where texture tells them, the background left out.
pub(super) const CLASS_PATTERNS: [Pattern; 5] =
    [Pattern::Stripes, Pattern::Checkers, Pattern::Dots, Pattern::Grid, Pattern::Waves];

/// How far apart the colours of a texture have to be that tells a class, summed over channels.
const CONTRAST: f32 = 120.0;

impl Texture {
    pub(super) fn draw(rng: &mut Rng, size: usize) -> Self {
        let pattern = [Pattern::Plain, Pattern::Stripes, Pattern::Checkers, Pattern::Gradient][rng.below(4)];
        Self::patterned(rng, size, pattern)
    }

    fn patterned(rng: &mut Rng, size: usize, pattern: Pattern) -> Self {
        let first = [(); 3].map(|()| rng.range(20.0, 235.0));
        let second = [0, 1, 2].map(|c: usize| (first[c] + rng.range(-50.0, 50.0)).clamp(0.0, 255.0));
        let angle = rng.range(0.0, TAU);
        let period = match pattern {
            Pattern::Gradient => size as f32 * rng.range(1.0, 2.0),
            _ => size as f32 * rng.range(0.04, 0.12),
        };
        let wave = [angle.cos() / period, angle.sin() / period];
        Self { pattern, colors: [first, second], wave, phase: rng.uniform() }
    }

    /// One whose mean colour is visibly not `other`, or else the last that was tried.
    pub(super) fn draw_apart(rng: &mut Rng, size: usize, other: [f32; 3]) -> Self {
        Self::apart(rng, other, |rng| Self::draw(rng, size))
    }

    fn apart(rng: &mut Rng, other: [f32; 3], draw: impl Fn(&mut Rng) -> Self) -> Self {
        let mut texture = draw(rng);
        for _ in 0..20 {
            let mean = texture.mean();
            if (0..3).map(|c| (mean[c] - other[c]).abs()).sum::<f32>() > 180.0 {
                break;
            }
            texture = draw(rng);
        }
        texture
    }

    /// A ground with nothing of any class's texture: plain, or one slow change of colour.
    pub(super) fn draw_ground(rng: &mut Rng, size: usize) -> Self {
        let pattern = [Pattern::Plain, Pattern::Gradient][rng.below(2)];
        Self::patterned(rng, size, pattern)
    }

    /// The texture of class `class`, counted without the background: its pattern, in any colours that can be told apart
    /// from each other and from `other`.
    pub(super) fn draw_class(rng: &mut Rng, size: usize, class: usize, other: [f32; 3]) -> Self {
        let period = size as f32 * rng.range(0.09, 0.12);
        let texture = Self::apart(rng, other, |rng| {
            let mut texture = Self::patterned(rng, size, CLASS_PATTERNS[class]);
            for _ in 0..20 {
                let [a, b] = texture.colors;
                if (0..3).map(|c| (a[c] - b[c]).abs()).sum::<f32>() > CONTRAST {
                    break;
                }
                texture.colors[1] = [(); 3].map(|()| rng.range(0.0, 255.0));
            }
            texture
        });
        let length = texture.wave[0].hypot(texture.wave[1]);
        Self { wave: texture.wave.map(|w| w / length / period), ..texture }
    }

    /// A grey ground, and textures in a hue of their class: `class` counts without the background.
    pub(super) fn draw_hue(rng: &mut Rng, size: usize, class: Option<usize>) -> Self {
        let texture = Self::draw(rng, size);
        let value = rng.range(90.0, 220.0);
        let Some(class) = class else { return Self { colors: [[value; 3], [value - 30.0; 3]], ..texture } };
        let hue = (class as f32 * 72.0 + rng.range(-12.0, 12.0)).rem_euclid(360.0);
        let shade = |value: f32| {
            // As HSV with a saturation of 0.8.
            let channel = |offset: f32| {
                let place = (offset + hue / 60.0).rem_euclid(6.0);
                value * (1.0 - 0.8 * place.min(4.0 - place).clamp(0.0, 1.0))
            };
            [channel(5.0), channel(3.0), channel(1.0)]
        };
        Self { colors: [shade(value), shade(value - 30.0)], ..texture }
    }

    pub(super) fn mean(&self) -> [f32; 3] {
        [0, 1, 2].map(|c| (self.colors[0][c] + self.colors[1][c]) / 2.0)
    }

    pub(super) fn at(&self, x: f32, y: f32) -> [f32; 3] {
        let along = (self.wave[0] * x + self.wave[1] * y + self.phase).rem_euclid(1.0);
        let across = (self.wave[0] * y - self.wave[1] * x + self.phase).rem_euclid(1.0);
        let share = match self.pattern {
            Pattern::Plain => 0.5,
            Pattern::Stripes => f32::from(along < 0.5),
            Pattern::Checkers => f32::from((along < 0.5) != (across < 0.5)),
            Pattern::Gradient => (2.0 * along - 1.0).abs(),
            Pattern::Dots => f32::from((along - 0.5).hypot(across - 0.5) < 0.33),
            Pattern::Grid => f32::from(along < 0.3 || across < 0.3),
            Pattern::Waves => f32::from((along + 0.25 * (TAU * across).sin()).rem_euclid(1.0) < 0.5),
        };
        [0, 1, 2].map(|c| self.colors[0][c] * (1.0 - share) + self.colors[1][c] * share)
    }
}
