//! Coordinates that are fractions of the image size, where they should be pixels: in all files, or in some alone.

use crate::dataset::Split;
use crate::error::{Error, Result};
use crate::image::raster::Area;
use crate::tools::init::outlined_image::Outlined;

/// What was done with an image whose coordinates are fractions.
pub(super) const SCALED: &str =
    "images have coordinates that are at most 1, in a dataset of pixels; they were read as fractions of the image size";

/// Whether all coordinates are between 0 and 1: as pixels, no outline would cover more than one.
pub(super) fn all(groups: &[(Option<Split>, std::path::PathBuf, Vec<Outlined>)]) -> bool {
    let areas = || groups.iter().flat_map(|(.., outlined)| outlined).flat_map(|one| &one.areas);
    areas().next().is_some() && areas().all(|(area, ..)| matches!(area, Area::Polygons(_)) && kind(area).is_within())
}

/// How the coordinates of an outline may be read.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Some are beyond 1.
    Pixels,
    /// All are 0 or 1: the whole image, or its first pixel.
    Either,
    /// Between 0 and 1.
    Fractions,
    /// No coordinates, as of bitmaps.
    None,
}

impl Kind {
    fn is_within(self) -> bool {
        matches!(self, Self::Either | Self::Fractions)
    }
}

fn kind(area: &Area) -> Kind {
    let of = |numbers: &mut dyn Iterator<Item = f64>| {
        let mut kind = Kind::None;
        for number in numbers {
            if !(0.0..=1.0).contains(&number) {
                return Kind::Pixels;
            }
            kind = match kind {
                Kind::None | Kind::Either if number.fract() == 0.0 => Kind::Either,
                _ => Kind::Fractions,
            };
        }
        kind
    };
    match area {
        Area::Polygons(rings) => of(&mut rings.iter().flatten().flatten().copied()),
        Area::Disc([x, y], radius) => of(&mut [*x, *y, *radius].into_iter()),
        Area::Ellipse([x, y], [a, b]) => of(&mut [*x, *y, *a, *b].into_iter()),
        Area::Runs { .. } | Area::Bitmap(..) | Area::Ids(..) | Area::Segments(..) => Kind::None,
    }
}

/// Makes pixels of the fractions of one image in a set of pixels, where they are all fractions. Whether they were.
///
/// # Errors
/// Fractions beside pixels, and circles in fractions: what they cover cannot be told.
pub(super) fn settle(one: &mut Outlined, [width, height]: [usize; 2]) -> Result<bool> {
    let kinds: Vec<Kind> = one.areas.iter().map(|(area, ..)| kind(area)).collect();
    let Some(first) = kinds.iter().position(|kind| *kind == Kind::Fractions) else { return Ok(false) };
    let wrong = |why: &str| {
        Error::new(format!(
            "{} of `{}` has coordinates between 0 and 1, {why}",
            one.areas[first].2,
            one.source.display()
        ))
        .with_hint("store all coordinates in pixels, or remove the annotation")
    };
    if kinds.contains(&Kind::Pixels) {
        return Err(wrong("and other annotations of the image have pixels"));
    }
    if one.areas.iter().any(|(area, ..)| matches!(area, Area::Disc(..))) {
        return Err(wrong("and a circle in fractions of the image size is not a circle"));
    }
    let (width, height) = (width as f64, height as f64);
    for (area, ..) in &mut one.areas {
        match area {
            Area::Polygons(rings) => {
                rings.iter_mut().flatten().for_each(|point| *point = [point[0] * width, point[1] * height]);
            }
            Area::Ellipse(at, axes) => {
                *at = [at[0] * width, at[1] * height];
                *axes = [axes[0] * width, axes[1] * height];
            }
            _ => {}
        }
    }
    Ok(true)
}

/// Coordinates of a set, to tell percentages from pixels.
#[derive(Default)]
pub(super) struct Reach {
    most: [f64; 2],
    /// The smallest side of an image.
    side: Option<usize>,
    outlines: usize,
    /// Something else than polygons.
    other: bool,
}

impl Reach {
    pub(super) fn add(&mut self, one: &Outlined, size: [usize; 2]) {
        self.side = Some(self.side.unwrap_or(usize::MAX).min(size[0]).min(size[1]));
        for (area, ..) in &one.areas {
            let Area::Polygons(rings) = area else {
                self.other = true;
                continue;
            };
            self.outlines += 1;
            for [x, y] in rings.iter().flatten() {
                self.most = [self.most[0].max(*x), self.most[1].max(*y)];
            }
        }
    }

    /// What to say of coordinates that end at 100 in images that do not.
    pub(super) fn percent(&self) -> Option<String> {
        const FEWEST: usize = 4;
        let ends = |most: f64| (80.0..=100.0).contains(&most);
        let side = self.side.filter(|side| *side >= 200)?;
        (self.outlines >= FEWEST && !self.other && self.most.iter().all(|most| ends(*most))).then(|| {
            format!(
                "no coordinate is above 100, and every image has a width and height of at least {side} pixels: are they \
                 percentages? they were read as pixels; if they are percentages, export them in pixels"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(rings: &[&[[f64; 2]]]) -> Outlined {
        let area = |ring: &&[[f64; 2]]| (Area::Polygons(vec![ring.to_vec()]), 1, "shape".to_string());
        Outlined {
            name: "a.png".into(),
            source: "a.json".into(),
            declared: None,
            areas: rings.iter().map(area).collect(),
            fault: None,
        }
    }

    const PIXELS: &[[f64; 2]] = &[[2.0, 3.0], [20.0, 3.0], [20.0, 9.0]];
    const SHARES: &[[f64; 2]] = &[[0.1, 0.5], [0.5, 0.5], [0.5, 1.0]];
    const CORNER: &[[f64; 2]] = &[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]];

    #[test]
    fn fractions_are_told_from_pixels_image_by_image() {
        let mut image = one(&[SHARES, CORNER]);
        assert!(settle(&mut image, [40, 20]).unwrap());
        assert_eq!(image.areas[0].0, Area::Polygons(vec![vec![[4.0, 10.0], [20.0, 10.0], [20.0, 20.0]]]));
        assert_eq!(image.areas[1].0, Area::Polygons(vec![vec![[0.0, 0.0], [40.0, 0.0], [40.0, 20.0], [0.0, 20.0]]]));
        // The first pixel, among pixels or alone.
        for rings in [&[PIXELS, CORNER][..], &[CORNER], &[PIXELS], &[]] {
            assert!(!settle(&mut one(rings), [40, 20]).unwrap());
        }
        let error = settle(&mut one(&[PIXELS, SHARES]), [40, 20]).unwrap_err();
        assert!(error.to_string().contains("between 0 and 1") && error.hint().is_some(), "{error}");
        let mut disc = one(&[SHARES]);
        disc.areas.push((Area::Disc([0.5, 0.5], 0.25), 1, "disc".into()));
        assert!(settle(&mut disc, [40, 20]).unwrap_err().to_string().contains("circle"));
    }

    #[test]
    fn percentages_end_at_a_hundred_where_images_do_not() {
        let percent = |scale: f64, size: usize| {
            let mut reach = Reach::default();
            let ring: Vec<[f64; 2]> = SHARES.iter().map(|[x, y]| [2.0 * x * scale, y * scale]).collect();
            (0..4).for_each(|_| reach.add(&one(&[&ring]), [size, size]));
            reach.percent()
        };
        assert!(percent(95.0, 640).is_some());
        assert!(percent(95.0, 120).is_none(), "the images end there too");
        assert!(percent(300.0, 640).is_none() && percent(50.0, 640).is_none());
    }
}
