//! A dataset's TOML: where its files lie, which classes there are and which numbers of a mask mean them.

use std::fmt;
use std::path::PathBuf;

use serde::de::{MapAccess, SeqAccess, Visitor, value};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::dataset::{Classes, Split};
use crate::error::{Error, Result};

/// The most classes a dataset may have: 255 stands for "ignore".
pub(crate) const MAX_CLASSES: usize = 255;

/// A dataset as its TOML describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetSpec {
    /// What messages and reports call it.
    pub name: String,
    /// The folder below which its files lie, relative to the TOML's own folder (for built-in sets, to the current one).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// How masks store classes.
    #[serde(default)]
    pub encoding: Encoding,
    /// Whether numbers are labels although palettes show them in different colours.
    #[serde(default, skip_serializing_if = "PaletteUse::is_default")]
    pub palettes: PaletteUse,
    /// Values of a mask that count nowhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<Source>,
    /// The 16-bit values of images that become black and white, as `[0, 4095]` for 12 bits in 16; the recipe's
    /// `data.preprocess.range` comes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<[u16; 2]>,
    /// Masks may be JPEGs: a value is taken for the nearest declared one, if it is no farther than this away in any
    /// channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jpeg_tolerance: Option<u8>,
    /// The classes in the order of their indices.
    pub classes: Vec<ClassSpec>,
    /// How several masks of one image become one; without it each image has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<Join>,
    /// Where the training files lie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<SplitSpec>,
    /// Where the validation files lie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val: Option<SplitSpec>,
    /// Where the test files lie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<SplitSpec>,
    /// The TOML it was read from, for messages and relative paths.
    #[serde(skip)]
    pub file: PathBuf,
}

/// How masks store classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Encoding {
    /// As numbers, in a palette or grey PNG.
    #[default]
    Index,
    /// As colours, in an RGB PNG, or by the palette of a palette PNG.
    Rgb,
}

/// Whether palettes are compared between masks of numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum PaletteUse {
    /// A number that two files show in different colours is refused: either may be the label.
    #[default]
    Alike,
    /// Numbers are labels, whatever they look like.
    Any,
}

impl PaletteUse {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Where the files of one split lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitSpec {
    /// The folder of images, searched with all folders in it.
    pub images: PathBuf,
    /// The folder of masks, with the same folders in it.
    pub masks: PathBuf,
    /// The ending of image files; without it those of `pairs::SUFFIXES`, in either case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_suffix: Option<String>,
    /// What stands in its place in the mask's name.
    #[serde(default = "png_suffix")]
    pub mask_suffix: String,
    /// A file with the name of one image per line, without ending; without it all images count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<PathBuf>,
}

fn png_suffix() -> String {
    ".png".to_string()
}

/// `[join]` of a dataset's TOML: each image has several masks, and the pixels that one shows are of its class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// The masks of an image, in the order in which they are laid over each other.
    pub masks: Vec<JoinedMask>,
    /// What pixels are that no mask shows: the name of a class, or `ignore`.
    pub rest: String,
    /// What pixels are that masks of different classes show.
    #[serde(default)]
    pub overlap: Overlap,
    /// Values from this one on are shown. Without it a mask holds 0 and one other value, which is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<u16>,
}

/// Masks of one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinedMask {
    /// The file below the folder of masks. `{stem}` stands for the image's path below its folder without ending,
    /// `{folder}` and `{name}` for the two parts of that; one `*` for anything but `/`, and all files that fit are
    /// united.
    pub file: String,
    /// The class of what it shows, or `ignore`.
    pub class: String,
}

/// What pixels are that masks of different classes show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Overlap {
    /// Of the class that stands later in the list of masks.
    #[default]
    Later,
    /// Of the class that stands earlier.
    Earlier,
    /// They count nowhere.
    Ignore,
}

/// One class. In the TOML a table, or its name alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassSpec {
    /// Its name.
    pub name: String,
    /// Its colour in pictures; without it one from a fixed palette.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub color: Option<[u8; 3]>,
    /// The values of a mask that mean it; without it its position (encoding `index`) or its colour (`rgb`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Vec<Source>>,
}

impl ClassSpec {
    /// The values that mean the class at position `index`; `None` for a class of colours that names none.
    pub(crate) fn sources(&self, index: usize, encoding: Encoding) -> Option<Vec<Source>> {
        self.source.clone().or_else(|| match encoding {
            Encoding::Index => Some(vec![Source::Index(u16::try_from(index).ok()?)]),
            Encoding::Rgb => Some(vec![Source::Rgb(self.color?)]),
        })
    }
}

/// A value in a mask: a number or a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Source {
    /// A number.
    Index(u16),
    /// A colour.
    Rgb([u8; 3]),
}

impl DatasetSpec {
    /// The part that describes one split.
    pub fn split(&self, split: Split) -> Option<&SplitSpec> {
        match split {
            Split::Train => self.train.as_ref(),
            Split::Val => self.val.as_ref(),
            Split::Test => self.test.as_ref(),
        }
    }

    /// The classes' names and colours.
    pub fn classes(&self) -> Classes {
        let color = |(index, class): (usize, &ClassSpec)| class.color.unwrap_or_else(|| default_color(index));
        Classes {
            names: self.classes.iter().map(|class| class.name.clone()).collect(),
            colors: self.classes.iter().enumerate().map(color).collect(),
        }
    }
}

/// The colour of a class that names none: hues in steps of the golden ratio, in three brightnesses.
pub(crate) fn default_color(index: usize) -> [u8; 3] {
    let hue = (index as f32 * 0.618_034 + 0.02).fract();
    let (saturation, value) = [(0.70, 0.90), (0.85, 0.65), (0.45, 0.98)][index % 3];
    let channel = |offset: f32| {
        let distance = ((hue + offset).fract() * 6.0 - 3.0).abs() - 1.0;
        (255.0 * value * (1.0 - saturation * (1.0 - distance.clamp(0.0, 1.0)))).round() as u8
    };
    [channel(0.0), channel(2.0 / 3.0), channel(1.0 / 3.0)]
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "{index}"),
            Self::Rgb([r, g, b]) => write!(f, "[{r}, {g}, {b}]"),
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Index(index) => index.serialize(serializer),
            Self::Rgb(rgb) => rgb.serialize(serializer),
        }
    }
}

// Hand-written instead of `untagged`, whose errors say only that nothing matched.
impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Source;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 0 to 65535 or a colour [r, g, b]")
            }

            fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<Source, E> {
                let index = u16::try_from(v).map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(v), &self))?;
                Ok(Source::Index(index))
            }

            fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<Source, E> {
                let index =
                    u16::try_from(v).map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(v), &self))?;
                Ok(Source::Index(index))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Source, A::Error> {
                Ok(Source::Rgb(Deserialize::deserialize(value::SeqAccessDeserializer::new(seq))?))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for ClassSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            name: String,
            color: Option<[u8; 3]>,
            source: Option<Vec<Source>>,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = ClassSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a class name or a table with `name`, `color` and `source`")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<ClassSpec, E> {
                Ok(ClassSpec { name: name.to_string(), color: None, source: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ClassSpec, A::Error> {
                let Table { name, color, source } = Table::deserialize(value::MapAccessDeserializer::new(map))?;
                Ok(ClassSpec { name, color, source })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Fails on a range without values between its ends.
pub(crate) fn check_range(range: Option<[u16; 2]>) -> Result<()> {
    match range {
        Some([low, high]) if low >= high => Err(Error::new(format!("range = [{low}, {high}] holds no values"))
            .with_hint("the lowest value comes first, as in range = [0, 4095] for 12-bit images stored in 16 bits")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn default_colours_differ() {
        let colors: HashSet<_> = (0..MAX_CLASSES).map(default_color).collect();
        assert!(colors.len() > 250, "{}", colors.len());
    }
}
