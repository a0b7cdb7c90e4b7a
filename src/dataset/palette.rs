//! Palettes looked up: the numbers of a mask turned into greys or colours, of which `label_map` makes labels.
//!
//! Labelling tools give all masks of a set one palette, and the numbers are the labels. Image editors and optimisers
//! sort each file's palette as they like, and store greys in as few bits as they can: then only the colours are the
//! labels.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::dataset::spec::{Encoding, Source};
use crate::error::{Error, Result};
use crate::image::formats::{Format, Kind};
use crate::image::{RawMask, Stored, read_mask_as};

/// Groups of files with palettes of their own that are told apart.
const MAX_GROUPS: usize = 64;

/// A mask as a set of this encoding means it: numbers, with greys of few bits spread over 0 to 255 as PNG defines them;
/// or colours, with palettes looked up.
pub(crate) fn apply_encoding(mask: RawMask, encoding: Encoding) -> Result<RawMask> {
    // What a JPEG holds is near its values, and is compared with what is declared later.
    if mask.stored().format == Format::Jpeg {
        return Ok(mask);
    }
    let RawMask::Index { width, height, mut values, mut stored } = mask else { return Ok(mask) };
    if stored.format == Format::Png && stored.kind == Kind::Gray && matches!(stored.bits, 1 | 2 | 4) {
        let step = 255 / ((1 << stored.bits) - 1);
        values.iter_mut().for_each(|value| *value *= step);
    }
    let known = values.first().is_none_or(|first| stored.palette.is_some() || color_of(&stored, *first).is_some());
    if encoding == Encoding::Index || !known {
        return Ok(RawMask::Index { width, height, values, stored });
    }
    let look_up = |value: &u16| {
        color_of(&stored, *value).ok_or_else(|| {
            Error::new(format!("it holds the number {value}, which has no colour in its palette"))
                .with_hint("the file is damaged: export it again")
        })
    };
    let values = values.iter().map(look_up).collect::<Result<_>>()?;
    stored.palette = None;
    Ok(RawMask::Rgb { width, height, values, stored })
}

/// What a number looks like; greys of few bits are spread already.
pub(crate) fn color_of(stored: &Stored, number: u16) -> Option<[u8; 3]> {
    match &stored.palette {
        Some(palette) => palette.get(usize::from(number)).copied(),
        None if stored.kind == Kind::Gray && stored.bits <= 8 && stored.format != Format::Npy => {
            Some([u8::try_from(number).ok()?; 3])
        }
        None => None,
    }
}

/// Reads the mask at `path` as a set of this encoding means it; `lossy`: a JPEG too.
///
/// # Errors
/// As [`read_mask_as`].
pub(crate) fn read(path: &Path, encoding: Encoding, lossy: bool) -> Result<RawMask> {
    apply_encoding(read_mask_as(path, lossy)?, encoding).map_err(|e| Error::file("read", path, e))
}

/// The colours of the numbers that a mask holds, by its palette.
pub(crate) type PaletteColors = BTreeMap<u16, [u8; 3]>;

/// What the numbers of a mask look like; `None` without a palette.
pub(crate) fn shown(values: impl Iterator<Item = u16>, stored: &Stored) -> Option<PaletteColors> {
    let palette = stored.palette.as_ref()?;
    let mut used = [false; 256];
    values.for_each(|value| used[usize::from(value).min(255)] = true);
    let numbers = (0..256u16).filter(|number| used[usize::from(*number)]);
    Some(numbers.filter_map(|number| Some((number, *palette.get(usize::from(number))?))).collect())
}

/// Files whose palettes agree: no number has two colours.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// All numbers of these files with their colours.
    pub(crate) shown: PaletteColors,
    /// How many files there are, and the first of them.
    pub(crate) files: usize,
    pub(crate) first: PathBuf,
}

/// The palettes of a set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Palettes {
    pub(crate) groups: Vec<Group>,
}

impl Palettes {
    /// Adds a file. Returns a file that was there before whose palette says otherwise, and the number.
    pub(crate) fn add(&mut self, path: &Path, shown: &PaletteColors) -> Option<(PathBuf, u16)> {
        let differs = |group: &Group| {
            shown.iter().find(|(number, color)| group.shown.get(number).is_some_and(|other| other != *color))
        };
        let has_room = self.groups.len() < MAX_GROUPS;
        match self.groups.iter_mut().find(|group| differs(group).is_none()) {
            Some(group) => {
                group.shown.extend(shown);
                group.files += 1;
            }
            None if has_room => {
                self.groups.push(Group { shown: shown.clone(), files: 1, first: path.to_path_buf() });
            }
            None => {
                if let Some(last) = self.groups.last_mut() {
                    last.files += 1;
                }
            }
        }
        self.groups.iter().find_map(|group| Some((group.first.clone(), *differs(group)?.0)))
    }

    /// Two groups whose palettes look like two ways to show the same numbers: they share no colour but black, or show a
    /// number in nearly the same one. Then neither numbers nor colours are sure to be the labels.
    pub(crate) fn rival(&self) -> Option<[&Group; 2]> {
        let near = |a: &[u8; 3], b: &[u8; 3]| a != b && (0..3).all(|at| a[at].abs_diff(b[at]) <= 4);
        let colours =
            |group: &Group| group.shown.values().filter(|colour| **colour != [0; 3]).copied().collect::<Vec<_>>();
        let rivals = |a: &Group, b: &Group| {
            let (of_a, of_b) = (colours(a), colours(b));
            let apart = of_a.len() > 1 && of_b.len() > 1 && !of_a.iter().any(|colour| of_b.contains(colour));
            let alike = a.shown.iter().any(|(n, colour)| b.shown.get(n).is_some_and(|other| near(colour, other)));
            apart && a.shown.keys().eq(b.shown.keys()) || alike
        };
        let pairs = self.groups.iter().enumerate().flat_map(|(at, a)| self.groups[..at].iter().map(move |b| [b, a]));
        pairs.into_iter().find(|[a, b]| rivals(a, b))
    }

    /// Whether a number means two colours, so that numbers are no labels.
    pub(crate) fn differ(&self) -> bool {
        self.groups.len() > 1
    }

    /// All colours in the order of the first palettes, which is what the person who drew the masks knows.
    pub(crate) fn colors(&self) -> Vec<Source> {
        let mut colors = Vec::new();
        for color in self.groups.iter().flat_map(|group| group.shown.values()).map(|color| Source::Rgb(*color)) {
            if !colors.contains(&color) {
                colors.push(color);
            }
        }
        colors
    }
}

/// Notices while masks are read, in whatever order, that their palettes differ.
#[derive(Debug, Default)]
pub(crate) struct PaletteCheck(Mutex<Palettes>);

impl PaletteCheck {
    /// # Errors
    /// A number of this mask looked otherwise in another: the numbers cannot be labels.
    pub(crate) fn add(&self, path: &Path, mask: &RawMask) -> Result<()> {
        let RawMask::Index { values, stored, .. } = mask else { return Ok(()) };
        let Some(shown) = shown(values.iter().copied(), stored) else { return Ok(()) };
        let other = self.0.lock().unwrap_or_else(PoisonError::into_inner).add(path, &shown);
        let Some((other, number)) = other else { return Ok(()) };
        Err(Error::new(format!(
            "the palettes of `{}` and `{}` show the number {number} in different colours: what are the labels, the numbers or \
             the colours?",
            other.display(),
            path.display()
        ))
        .with_hint(
            "if the colours, set encoding = \"rgb\" and give each class its `color` (`structtoken data init` writes such a \
             file); if the numbers, set palettes = \"any\"",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(palette: &[[u8; 3]]) -> Stored {
        Stored { palette: Some(palette.into()), kind: Kind::Palette, bits: 8, ..Stored::default() }
    }

    #[test]
    fn greys_of_few_bits_are_spread_and_palettes_looked_up() {
        let index = |values: &[u16], stored: &Stored| RawMask::Index {
            width: values.len(),
            height: 1,
            values: values.to_vec(),
            stored: stored.clone(),
        };
        let gray = |bits| Stored { kind: Kind::Gray, bits, ..Stored::default() };
        for (bits, values, meaning) in [
            (1, &[0, 1][..], &[0, 255][..]),
            (2, &[0, 1, 2, 3], &[0, 85, 170, 255]),
            (4, &[1, 15], &[17, 255]),
            (8, &[1], &[1]),
        ] {
            let stored = gray(bits);
            assert_eq!(apply_encoding(index(values, &stored), Encoding::Index).unwrap(), index(meaning, &stored));
            let colors = meaning.iter().map(|value| [*value as u8; 3]).collect();
            let rgb = RawMask::Rgb { width: values.len(), height: 1, values: colors, stored: stored.clone() };
            assert_eq!(apply_encoding(index(values, &stored), Encoding::Rgb).unwrap(), rgb);
        }
        let palette = stored(&[[9, 9, 9], [1, 2, 3]]);
        assert_eq!(apply_encoding(index(&[1, 0], &palette), Encoding::Index).unwrap(), index(&[1, 0], &palette));
        let RawMask::Rgb { values, .. } = apply_encoding(index(&[1, 0], &palette), Encoding::Rgb).unwrap() else {
            panic!()
        };
        assert_eq!(values, [[1, 2, 3], [9, 9, 9]]);
        assert!(apply_encoding(index(&[2], &palette), Encoding::Rgb).unwrap_err().to_string().contains("number 2"));
        let deep = gray(16);
        assert_eq!(apply_encoding(index(&[300], &deep), Encoding::Rgb).unwrap(), index(&[300], &deep));
    }

    #[test]
    fn files_are_grouped_by_what_their_numbers_show() {
        let mut palettes = Palettes::default();
        let (a, b) = (stored(&[[0; 3], [255, 0, 0], [0, 0, 255]]), stored(&[[0; 3], [0, 0, 255], [255, 0, 0]]));
        let mut add = |name: &str, numbers: &[u16], stored: &Stored| {
            palettes.add(Path::new(name), &shown(numbers.iter().copied(), stored).unwrap())
        };
        assert_eq!(add("1", &[0, 1], &a), None);
        assert_eq!(add("2", &[0], &b), None, "what is not used is not looked at");
        assert_eq!(add("3", &[0, 2], &a), None);
        assert_eq!(add("4", &[0, 1], &b), Some(("1".into(), 1)));
        assert_eq!(palettes.groups.iter().map(|group| group.files).collect::<Vec<_>>(), [3, 1]);
        assert!(palettes.differ());
        assert_eq!(palettes.colors(), [[0, 0, 0], [255, 0, 0], [0, 0, 255]].map(Source::Rgb));
        assert_eq!(shown([0].into_iter(), &Stored::default()), None);
    }
}
