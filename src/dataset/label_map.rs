//! From the values of a mask to class indices, and what to say of values that mean nothing.

use std::collections::{BTreeMap, HashMap};

use crate::dataset::cause;
use crate::dataset::cause::SeenValues;
use crate::dataset::spec::{ClassSpec, DatasetSpec, Encoding, Source};
use crate::error::{Error, Result};
use crate::image::formats::Format;
use crate::image::{IGNORE, Labels, RawMask};
use crate::text::{Rest, shortened};

/// In the table: no class and not ignored.
const UNKNOWN: u16 = 256;

/// Which class each value of a mask stands for.
#[derive(Clone, Debug)]
pub struct LabelMap {
    lookup: Lookup,
    classes: Vec<ClassSpec>,
    ignore: Vec<Source>,
    jpeg_tolerance: Option<u8>,
    file: String,
}

#[derive(Clone, Debug)]
enum Lookup {
    /// A class, [`IGNORE`] or [`UNKNOWN`] for each 16-bit number.
    Index(Vec<u16>),
    Rgb(HashMap<[u8; 3], u8>),
}

impl LabelMap {
    /// The map that `spec` describes.
    ///
    /// # Errors
    /// A value claimed twice, a colour where numbers are declared or the reverse, a class of an `rgb` set without
    /// source and colour.
    pub fn new(spec: &DatasetSpec) -> Result<Self> {
        let (encoding, join) = (spec.encoding, spec.join.is_some());
        if join && (encoding != Encoding::Index || !spec.ignore.is_empty()) {
            return Err(Error::new("[join] makes the labels, but `encoding` or `ignore` says how masks store them")
                .with_hint("remove `encoding` and `ignore`; `overlap` and `rest` of [join] say what is ignored"));
        }
        let mut map = Self {
            lookup: match encoding {
                Encoding::Index => Lookup::Index(vec![UNKNOWN; 1 << 16]),
                Encoding::Rgb => Lookup::Rgb(HashMap::new()),
            },
            classes: spec.classes.clone(),
            ignore: spec.ignore.clone(),
            jpeg_tolerance: spec.jpeg_tolerance,
            file: spec.file.display().to_string(),
        };
        for (index, class) in spec.classes.iter().enumerate() {
            let Some(sources) = class.sources(index, encoding) else {
                return Err(Error::new(format!("class `{}` has neither `source` nor `color`", class.name))
                    .with_hint("with encoding = \"rgb\", give the class the colour that masks show it in"));
            };
            for source in sources {
                map.assign(source, index as u8)?;
            }
        }
        for source in &spec.ignore {
            map.assign(*source, IGNORE)?;
        }
        if join {
            map.assign(Source::Index(IGNORE.into()), IGNORE)?;
        }
        Ok(map)
    }

    fn assign(&mut self, source: Source, class: u8) -> Result<()> {
        let before = match (&mut self.lookup, source) {
            (Lookup::Index(table), Source::Index(value)) => {
                let before = std::mem::replace(&mut table[usize::from(value)], u16::from(class));
                (before != UNKNOWN).then_some(before as u8)
            }
            (Lookup::Rgb(table), Source::Rgb(value)) => table.insert(value, class),
            (Lookup::Index(_), Source::Rgb(_)) => {
                return Err(Error::new(format!("{} has the colour {source} as a value", self.called(class)))
                    .with_hint("index masks need numbers; set encoding = \"rgb\" if the masks are colour pictures"));
            }
            (Lookup::Rgb(_), Source::Index(_)) => {
                return Err(Error::new(format!("{} has the number {source} as a value", self.called(class)))
                    .with_hint("colour masks need colours [r, g, b]; set encoding = \"index\" for index masks"));
            }
        };
        match before {
            Some(before) if before == class => Err(Error::new(format!("{} has {source} twice", self.called(class)))),
            Some(before) => {
                let (a, b) = (self.called(before), self.called(class));
                Err(Error::new(format!("the value {source} belongs to both {a} and {b}"))
                    .with_hint("the value of a class without `source` is its position; give each value to one class"))
            }
            None => Ok(()),
        }
    }

    fn called(&self, class: u8) -> String {
        self.classes.get(usize::from(class)).map_or("`ignore`".to_string(), |class| format!("class `{}`", class.name))
    }

    /// The class indices of a mask.
    ///
    /// # Errors
    /// Values that the map does not know: which, how many, where the first is, and what probably went wrong. A mask
    /// of colours where numbers are declared, or the reverse.
    pub fn apply(&self, mut mask: RawMask) -> Result<Labels> {
        self.round(&mut mask);
        match (&self.lookup, mask) {
            (Lookup::Index(table), RawMask::Index { width, height, values, .. }) => {
                let ids: Vec<u8> = values.iter().map(|value| table[usize::from(*value)] as u8).collect();
                if values.iter().any(|value| table[usize::from(*value)] == UNKNOWN) {
                    let known = |value: &u16| table[usize::from(*value)] != UNKNOWN;
                    return Err(self.unknown(width, &values, known, Source::Index));
                }
                Ok(Labels { width, height, ids })
            }
            (Lookup::Rgb(table), RawMask::Rgb { width, height, values, .. }) => {
                let mut last = ([0; 3], table.get(&[0; 3]).copied());
                let class = |value: &[u8; 3]| {
                    if last.0 != *value {
                        last = (*value, table.get(value).copied());
                    }
                    last.1
                };
                match values.iter().map(class).collect::<Option<Vec<u8>>>() {
                    Some(ids) => Ok(Labels { width, height, ids }),
                    None => Err(self.unknown(width, &values, |value| table.contains_key(value), Source::Rgb)),
                }
            }
            (Lookup::Index(_), RawMask::Rgb { .. }) => {
                Err(Error::new(format!("it is an RGB picture, but `{}` declares index masks", self.file))
                    .with_hint("set encoding = \"rgb\" and give the classes their colours"))
            }
            (Lookup::Rgb(_), RawMask::Index { .. }) => {
                Err(Error::new(format!("it stores numbers, but `{}` declares colour masks", self.file))
                    .with_hint("set encoding = \"index\" and give the classes their numbers"))
            }
        }
    }

    /// Whether a mask may be a JPEG.
    pub(crate) fn takes_jpeg(&self) -> bool {
        self.jpeg_tolerance.is_some()
    }

    /// Replaces the values of a JPEG by the nearest that the map knows, where one is near enough: how many pixels
    /// were not exact. Other masks stay as they are.
    pub(crate) fn round(&self, mask: &mut RawMask) -> u64 {
        let Some(tolerance) = self.jpeg_tolerance.filter(|_| mask.stored().format == Format::Jpeg) else { return 0 };
        if let (Lookup::Index(_), RawMask::Rgb { width, height, values, stored }) = (&self.lookup, &*mask)
            && values.iter().all(|[r, g, b]| r.abs_diff(*g).max(b.abs_diff(*g)) <= tolerance)
        {
            // Grey, saved as colours.
            let values = values.iter().map(|value| u16::from(value[1])).collect();
            *mask = RawMask::Index { width: *width, height: *height, values, stored: stored.clone() };
        }
        let mut known: HashMap<[u8; 3], Option<[u8; 3]>> = HashMap::new();
        let mut rounded = 0;
        let mut nearest = |value: [u8; 3], declared: &[[u8; 3]]| {
            let near = *known.entry(value).or_insert_with(|| {
                let distance = |other: &[u8; 3]| (0..3).map(|i| value[i].abs_diff(other[i])).max().unwrap_or(0);
                declared.iter().copied().filter(|other| distance(other) <= tolerance).min_by_key(distance)
            });
            rounded += u64::from(near.is_some_and(|near| near != value));
            near.unwrap_or(value)
        };
        match (&self.lookup, mask) {
            (Lookup::Index(table), RawMask::Index { values, .. }) => {
                let declared: Vec<_> =
                    (0..=255u8).filter(|n| table[usize::from(*n)] != UNKNOWN).map(|n| [n; 3]).collect();
                values.iter_mut().for_each(|value| *value = nearest([*value as u8; 3], &declared)[0].into());
            }
            (Lookup::Rgb(table), RawMask::Rgb { values, .. }) => {
                let mut declared: Vec<_> = table.keys().copied().collect();
                declared.sort_unstable(); // so that the same of two equally near is taken each time
                values.iter_mut().for_each(|value| *value = nearest(*value, &declared));
            }
            _ => {}
        }
        rounded
    }

    fn unknown<T: Copy + Ord>(
        &self,
        width: usize,
        values: &[T],
        known: impl Fn(&T) -> bool,
        source: impl Fn(T) -> Source,
    ) -> Error {
        let mut unknown: BTreeMap<T, (usize, usize)> = BTreeMap::new();
        for (at, value) in values.iter().enumerate().filter(|(_, value)| !known(value)) {
            unknown.entry(*value).or_insert((0, at)).0 += 1;
        }
        let mut listed: Vec<_> = unknown.iter().map(|(value, (count, first))| (*count, *first, *value)).collect();
        listed.sort_by_key(|(count, first, _)| (std::cmp::Reverse(*count), *first));
        let in_words = listed.iter().map(|(count, at, value)| {
            let (x, y, pixels) = (at % width, at / width, if *count == 1 { "pixel" } else { "pixels" });
            format!("{} ({count} {pixels}, the first at column {x}, row {y})", source(*value))
        });
        let shown = shortened(in_words, 4, Rest::Counted);
        let noun = if listed.len() == 1 { "value" } else { "values" };
        let message = format!("`{}` does not map the {noun} {shown}", self.file);
        let mut pixels: BTreeMap<Source, u64> = BTreeMap::new();
        values.iter().for_each(|value| *pixels.entry(source(*value)).or_default() += 1);
        Error::new(message).with_hint(self.likely_cause(&pixels).to_string())
    }

    /// What the value becomes: a class, [`IGNORE`], or nothing if it is unknown.
    pub fn class_of(&self, value: Source) -> Option<u8> {
        match (&self.lookup, value) {
            (Lookup::Index(table), Source::Index(value)) => u8::try_from(table[usize::from(value)]).ok(),
            (Lookup::Rgb(table), Source::Rgb(value)) => table.get(&value).copied(),
            _ => None,
        }
    }

    /// Why masks that hold these values, each with its number of pixels, do not fit the map.
    pub(crate) fn likely_cause(&self, pixels: &BTreeMap<Source, u64>) -> cause::Cause {
        let unknown = pixels.keys().copied().filter(|value| self.class_of(*value).is_none()).collect();
        cause::of(&SeenValues { pixels, unknown, classes: &self.classes, ignore: &self.ignore })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Stored;
    use std::path::Path;

    fn spec(text: &str) -> Result<DatasetSpec> {
        DatasetSpec::parse(&format!("name = 'x'\n{text}"), Path::new("set.toml"))
    }

    fn index(values: &[u16]) -> RawMask {
        RawMask::Index { width: 2, height: values.len() / 2, values: values.to_vec(), stored: Stored::default() }
    }

    fn apply(text: &str, mask: RawMask) -> Result<Vec<u8>> {
        LabelMap::new(&spec(text).unwrap()).unwrap().apply(mask).map(|labels| labels.ids)
    }

    #[test]
    fn values_become_classes() {
        assert_eq!(apply("classes = ['a', 'b']\nignore = [9]", index(&[0, 1, 9, 0])).unwrap(), [0, 1, 255, 0]);
        let merged = "classes = [{ name = 'a', source = [3, 300] }, { name = 'b', source = [1] }]";
        assert_eq!(apply(merged, index(&[3, 300, 1, 3])).unwrap(), [0, 0, 1, 0]);
        let rgb = "encoding = 'rgb'\nignore = [[0, 0, 0]]\nclasses = [{ name = 'a', color = [1, 2, 3] }]";
        let mask = RawMask::Rgb { width: 2, height: 1, values: vec![[1, 2, 3], [0, 0, 0]], stored: Stored::default() };
        assert_eq!(apply(rgb, mask).unwrap(), [0, 255]);
    }

    #[test]
    fn strangers_are_named_with_place_and_cause() {
        let failure = |text: &str, mask| {
            let error = apply(text, mask).unwrap_err();
            (error.to_string(), error.hint().unwrap().to_string())
        };
        let (message, hint) = failure("classes = ['a', 'b', 'c']", index(&[0, 1, 2, 17, 17, 0]));
        assert_eq!(message, "`set.toml` does not map the value 17 (2 pixels, the first at column 1, row 1)");
        assert!(hint.contains("ignore"));
        assert!(
            failure("classes = ['no', 'yes']", index(&[0, 255, 255, 0]))
                .1
                .contains("{ name = \"yes\", source = [255] }")
        );
        assert!(failure("classes = ['a', 'b']", index(&[0, 1, 2, 1])).1.contains("counted from 1"));
        let gray: Vec<u16> = (0..200).collect();
        assert!(failure("classes = ['a', 'b']", index(&gray)).1.contains("photograph"));
        let rgb = RawMask::Rgb { width: 1, height: 1, values: vec![[1, 2, 3]], stored: Stored::default() };
        assert!(failure("classes = ['a', 'b']", rgb.clone()).1.contains("encoding = \"rgb\""));
        let colors = "encoding = 'rgb'\nclasses = [{ name = 'a', color = [1, 2, 4] }]";
        assert!(failure(colors, index(&[0, 0])).1.contains("encoding = \"index\""));
        assert!(failure(colors, rgb).0.contains("[1, 2, 3] (1 pixel"));
    }

    #[test]
    fn jpeg_masks_are_rounded_within_the_tolerance_alone() {
        let jpeg = || Stored { format: Format::Jpeg, bits: 8, ..Stored::default() };
        let gray =
            |values: &[u16]| RawMask::Index { width: values.len(), height: 1, values: values.to_vec(), stored: jpeg() };
        let binary = "jpeg_tolerance = 16\nclasses = ['no', { name = 'yes', source = [255] }]";
        assert_eq!(apply(binary, gray(&[0, 16, 239, 255])).unwrap(), [0, 0, 1, 1]);
        let error = apply(binary, gray(&[0, 17, 255])).unwrap_err().to_string();
        assert!(error.contains("the value 17 (1 pixel"), "{error}");
        // Of what is no JPEG, values are as they are.
        assert!(apply(binary, index(&[0, 3])).is_err());
        let map = LabelMap::new(&spec(binary).unwrap()).unwrap();
        assert_eq!(map.round(&mut gray(&[0, 1, 254, 255, 100])), 2);
        // Grey saved as colours, and colours.
        let rgb = |values: &[[u8; 3]]| RawMask::Rgb {
            width: values.len(),
            height: 1,
            values: values.to_vec(),
            stored: jpeg(),
        };
        assert_eq!(apply(binary, rgb(&[[3, 2, 4], [250, 251, 249]])).unwrap(), [0, 1]);
        let colors = "jpeg_tolerance = 20\nencoding = 'rgb'\nignore = [[0, 0, 0]]\n\
                       classes = [{ name = 'a', color = [200, 0, 0] }, { name = 'b', color = [0, 200, 0] }]";
        assert_eq!(apply(colors, rgb(&[[190, 9, 3], [12, 219, 0], [15, 15, 15]])).unwrap(), [0, 1, 255]);
        assert!(apply(colors, rgb(&[[100, 100, 0]])).is_err());
    }

    #[test]
    fn contradictions_are_refused() {
        let message = |text: &str| spec(text).unwrap_err().to_string();
        assert!(message("classes = ['a', { name = 'b', source = [0] }]").contains("both class `a` and class `b`"));
        assert!(message("classes = ['a', 'b']\nignore = [1]").contains("both class `b` and `ignore`"));
        assert!(message("classes = ['a']\nignore = [[0, 0, 0]]").contains("colour [0, 0, 0]"));
        assert!(message("encoding = 'rgb'\nclasses = ['a']").contains("neither"));
        assert!(message("encoding = 'rgb'\nclasses = [{ name = 'a', source = [3] }]").contains("number 3"));
    }
}
