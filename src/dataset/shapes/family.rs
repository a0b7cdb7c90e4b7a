//! Which cue tells the class of an object: the family of generated sets.

use serde::{Deserialize, Serialize};

use super::object::{Form, SHAPES, WHOLES};
use super::{CLASSES, ShapesConfig};
use crate::dataset::{Classes, Split};
use crate::error::{Error, Result};
use crate::rng::Rng;

/// What tells the class of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassCue {
    /// Its shape; textures are random.
    #[default]
    Shape,
    /// Its texture, whatever its colours; shapes are random.
    Texture,
    /// Its hue; shapes and patterns are random.
    Color,
    /// Its shape and its texture, which say the same in training.
    Both,
    /// How its parts lie: every object has the same three; textures are random.
    Parts,
}

/// An object before it is drawn. Classes count without the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// What it is labelled as.
    pub(super) class: usize,
    /// Whose form it has.
    pub(super) form: usize,
    /// Whose texture it has, where textures belong to classes.
    pub(super) texture: Option<usize>,
}

impl ClassCue {
    pub(super) fn is_shape(&self) -> bool {
        *self == Self::Shape
    }

    /// The class whose form is at `form`.
    pub(super) fn form(self, form: usize) -> Form {
        if self == Self::Parts { WHOLES[form] } else { SHAPES[form] }
    }

    /// Names and colours, the background first.
    pub(super) fn classes(self) -> Classes {
        let names = match self {
            Self::Shape | Self::Both => CLASSES.map(|(name, _)| name),
            Self::Texture => ["background", "striped", "checkered", "dotted", "gridded", "wavy"],
            Self::Color => ["background", "red", "yellow", "green", "blue", "purple"],
            Self::Parts => {
                ["background", "disc inside", "square inside", "triangle inside", "clockwise", "anticlockwise"]
            }
        };
        Classes { names: names.map(str::to_owned).to_vec(), colors: CLASSES.iter().map(|(_, color)| *color).collect() }
    }
}

/// What is drawn for each object of a split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Family {
    pub(super) cue: ClassCue,
    /// The share of objects with another class's texture.
    conflict: f32,
    shape_noise: f32,
    texture_noise: f32,
}

impl Family {
    pub(super) fn of(config: &ShapesConfig, split: Split) -> Self {
        let conflict = if split == Split::Train { 0.0 } else { config.conflict };
        Self { cue: config.cue, conflict, shape_noise: config.shape_noise, texture_noise: config.texture_noise }
    }

    /// Refuses shares that are none, or that the cue has no use for.
    pub(super) fn check(config: &ShapesConfig) -> Result<()> {
        let shares = [
            ("conflict", config.conflict, config.cue == ClassCue::Both, "both"),
            (
                "shape_noise",
                config.shape_noise,
                matches!(config.cue, ClassCue::Shape | ClassCue::Both | ClassCue::Parts),
                "shape, both or parts",
            ),
            (
                "texture_noise",
                config.texture_noise,
                matches!(config.cue, ClassCue::Texture | ClassCue::Color | ClassCue::Both),
                "texture, color or both",
            ),
        ];
        for (key, share, used, cues) in shares {
            if !(0.0..=1.0).contains(&share) {
                return Err(Error::new(format!("data.shapes: {key} = {share} is not between 0 and 1")));
            }
            if share > 0.0 && !used {
                return Err(Error::new(format!("data.shapes: {key} has no use with this cue"))
                    .with_hint(format!("leave {key} out, or set data.shapes.cue to {cues}")));
            }
        }
        Ok(())
    }

    /// The next object. A set without options takes one number, as it always did.
    pub(super) fn draw(&self, rng: &mut Rng) -> Kind {
        let n = CLASSES.len() - 1;
        let class = rng.below(n);
        let astray = |rng: &mut Rng, share: f32, own: usize| match share > 0.0 && rng.chance(share) {
            true => rng.below(n),
            false => own,
        };
        let form = match self.cue {
            ClassCue::Texture | ClassCue::Color => rng.below(n),
            ClassCue::Shape | ClassCue::Both | ClassCue::Parts => astray(rng, self.shape_noise, class),
        };
        let texture = match self.cue {
            ClassCue::Shape | ClassCue::Parts => None,
            ClassCue::Texture | ClassCue::Color => Some(astray(rng, self.texture_noise, class)),
            ClassCue::Both if self.conflict > 0.0 && rng.chance(self.conflict) => {
                Some((class + 1 + rng.below(n - 1)) % n)
            }
            ClassCue::Both => Some(astray(rng, self.texture_noise, class)),
        };
        Kind { class, form, texture }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(config: &ShapesConfig, split: Split) -> Vec<Kind> {
        config.check().unwrap();
        let (family, mut rng) = (Family::of(config, split), Rng::new(4, &[]));
        (0..5000).map(|_| family.draw(&mut rng)).collect()
    }

    fn with(cue: ClassCue) -> ShapesConfig {
        ShapesConfig { cue, ..ShapesConfig::default() }
    }

    /// Pearson's statistic of a 5 x 5 table: 16 degrees of freedom, of which 99.9 % lie below 39.3.
    fn chi_square(pairs: impl Iterator<Item = (usize, usize)>) -> f64 {
        let mut counts = [[0f64; 5]; 5];
        pairs.for_each(|(a, b)| counts[a][b] += 1.0);
        let row = |a: usize| counts[a].iter().sum::<f64>();
        let column = |b: usize| counts.iter().map(|row| row[b]).sum::<f64>();
        let all: f64 = (0..5).map(row).sum();
        let cells = (0..25).map(|at| (at / 5, at % 5));
        cells.map(|(a, b)| (counts[a][b] - row(a) * column(b) / all).powi(2) / (row(a) * column(b) / all)).sum()
    }

    #[test]
    fn the_other_cue_carries_nothing() {
        for cue in [ClassCue::Texture, ClassCue::Color] {
            let kinds = kinds(&with(cue), Split::Train);
            assert!(chi_square(kinds.iter().map(|kind| (kind.class, kind.form))) < 39.3, "{cue:?}");
            assert!(kinds.iter().all(|kind| kind.texture == Some(kind.class)), "{cue:?}");
        }
        for cue in [ClassCue::Shape, ClassCue::Parts] {
            let kinds = kinds(&with(cue), Split::Train);
            assert!(kinds.iter().all(|kind| kind.texture.is_none() && kind.form == kind.class), "{cue:?}");
        }
    }

    #[test]
    fn both_agree_in_training_and_part_in_validation() {
        let config = ShapesConfig { conflict: 0.25, ..with(ClassCue::Both) };
        assert!(
            kinds(&config, Split::Train).iter().all(|kind| (kind.form, kind.texture) == (kind.class, Some(kind.class)))
        );
        let apart = kinds(&config, Split::Val);
        let share = apart.iter().filter(|kind| kind.texture != Some(kind.class)).count() as f64 / apart.len() as f64;
        assert!((share - 0.25).abs() < 0.02 && apart.iter().all(|kind| kind.form == kind.class), "{share}");
        let all = ShapesConfig { conflict: 1.0, ..with(ClassCue::Both) };
        assert!(kinds(&all, Split::Test).iter().all(|kind| kind.texture != Some(kind.class)));
    }

    #[test]
    fn noise_leaves_the_label() {
        // A fifth of the strays happens to be right.
        let share = |config: &ShapesConfig, stray: fn(&Kind) -> bool| {
            let kinds = kinds(config, Split::Train);
            kinds.iter().filter(|kind| stray(kind)).count() as f64 / kinds.len() as f64
        };
        let shape = ShapesConfig { shape_noise: 0.5, ..with(ClassCue::Both) };
        assert!((share(&shape, |kind| kind.form != kind.class) - 0.4).abs() < 0.03);
        assert_eq!(share(&shape, |kind| kind.texture != Some(kind.class)), 0.0);
        let texture = ShapesConfig { texture_noise: 1.0, ..with(ClassCue::Texture) };
        assert!(
            chi_square(kinds(&texture, Split::Train).iter().map(|kind| (kind.class, kind.texture.unwrap()))) < 39.3
        );
    }

    #[test]
    fn shares_without_use_are_refused() {
        let refused = [
            ShapesConfig { conflict: 0.5, ..with(ClassCue::Shape) },
            ShapesConfig { shape_noise: 0.5, ..with(ClassCue::Texture) },
            ShapesConfig { texture_noise: 0.5, ..with(ClassCue::Parts) },
            ShapesConfig { texture_noise: 1.5, ..with(ClassCue::Texture) },
            ShapesConfig { texture_noise: f32::NAN, ..with(ClassCue::Texture) },
        ];
        assert!(refused.iter().all(|config| config.check().is_err()));
    }
}
