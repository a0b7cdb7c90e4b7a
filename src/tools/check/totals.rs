//! The facts of all pairs, added up.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use image::metadata::Orientation;

use crate::dataset::Split;
use crate::dataset::label_map::LabelMap;
use crate::dataset::pairs::Pair;
use crate::dataset::palette::Palettes;
use crate::dataset::spec::{DatasetSpec, Encoding, Source};
use crate::image::{IGNORE, swaps_sides};
use crate::tools::check::fault::{Example, Fault, Faults, Severity};
use crate::tools::check::scan::{Broken, Count, ImageFacts, MaskFacts, Scanned};
use crate::tools::check::{CheckReport, ClassReport, Kinds, SplitReport, ValueReport};

/// Values of all masks that are told apart; more are those of photographs.
const MAX_VALUES: usize = 1 << 16;

/// How many values a report lists.
const SHOWN: usize = 256;

/// Sums over all pairs.
pub(super) struct Totals<'a> {
    pub(super) spec: &'a DatasetSpec,
    pub(super) map: &'a LabelMap,
    pub(super) splits: Vec<SplitTotals>,
    pub(super) values: BTreeMap<Source, ValueTotals>,
    /// For every picture, by its pixels, where it is: split, image, and what its mask is like.
    pub(super) pictures: HashMap<u64, Vec<(usize, PathBuf, u64)>>,
    /// Masks of the other encoding.
    pub(super) other_encoding: Vec<PathBuf>,
    /// The values of these, of the first some.
    pub(super) other_values: BTreeMap<Source, u64>,
    /// Of images of 16 bits per channel: the lowest and highest value.
    pub(super) deep: Option<[u16; 2]>,
    /// Grey masks in files that say that 0 is white, and the first in one that does not.
    pub(super) white_is_zero: Vec<PathBuf>,
    pub(super) black_is_zero: Option<PathBuf>,
    /// The first mask of the declared encoding.
    pub(super) first_declared: Option<PathBuf>,
    /// What the palettes of masks of numbers show.
    pub(super) palettes: Palettes,
    /// Which numbers masks hold together.
    pub(super) kinds: Kinds,
}

/// Sums over the pairs of a split.
pub(super) struct SplitTotals {
    pub(super) split: Split,
    pub(super) read: usize,
    pub(super) sizes: HashMap<[usize; 2], usize>,
    pub(super) image_formats: BTreeMap<String, usize>,
    pub(super) mask_formats: BTreeMap<String, usize>,
    pub(super) turned: usize,
    pub(super) pixels: u64,
    pub(super) ignored: u64,
    /// Pixels of every label.
    pub(super) class_pixels: Vec<u64>,
    /// Images of every label.
    pub(super) class_images: Vec<u64>,
    /// Masks of one value only, nearly.
    pub(super) constant: Vec<PathBuf>,
    /// Masks without a pixel that counts.
    pub(super) blank: Vec<PathBuf>,
    /// Masks, by what they hold.
    pub(super) masks: HashMap<u64, usize>,
    pub(super) pairs: usize,
}

/// One value in all masks.
pub(super) struct ValueTotals {
    pub(super) pixels: u64,
    pub(super) masks: u64,
    /// Pixels of a number that lies between those of two opposite neighbours.
    pub(super) between: u64,
    pub(super) first: PathBuf,
    pub(super) at: [usize; 2],
}

impl<'a> Totals<'a> {
    pub(super) fn new(spec: &'a DatasetSpec, map: &'a LabelMap, splits: impl Iterator<Item = Split>) -> Self {
        let split = |split| SplitTotals {
            split,
            read: 0,
            sizes: HashMap::new(),
            image_formats: BTreeMap::new(),
            mask_formats: BTreeMap::new(),
            turned: 0,
            pixels: 0,
            ignored: 0,
            class_pixels: vec![0; 256],
            class_images: vec![0; 256],
            constant: Vec::new(),
            blank: Vec::new(),
            masks: HashMap::new(),
            pairs: 0,
        };
        Self {
            spec,
            map,
            splits: splits.map(split).collect(),
            values: BTreeMap::new(),
            pictures: HashMap::new(),
            other_encoding: Vec::new(),
            other_values: BTreeMap::new(),
            deep: None,
            white_is_zero: Vec::new(),
            black_is_zero: None,
            first_declared: None,
            palettes: Palettes::default(),
            kinds: Kinds::default(),
        }
    }

    /// Adds a pair; what is wrong with it alone is reported at once.
    pub(super) fn add(&mut self, split: usize, pair: &Pair, scanned: Scanned, faults: &mut Faults) {
        self.splits[split].pairs += 1;
        let broken = |broken: &Broken, path: &Path, faults: &mut Faults| {
            let path = broken.file.as_deref().unwrap_or(path);
            let example = Example { note: broken.note.clone(), ..Example::file(path) };
            faults.add(Fault::new(Severity::Fault, broken.code, broken.what.clone(), broken.remedy.clone()), example);
        };
        if let Err(why) = &scanned.image {
            broken(why, &pair.image, faults);
        }
        if let Err(why) = &scanned.mask {
            broken(why, &pair.mask, faults);
        }
        if let Ok(image) = &scanned.image {
            self.add_image(split, pair, image, scanned.mask.as_ref().map_or(0, |mask| mask.hash), faults);
        }
        if let Ok(mask) = &scanned.mask {
            self.add_mask(split, pair, mask, faults);
        }
        if let (Ok(image), Ok(mask)) = (&scanned.image, &scanned.mask) {
            self.splits[split].read += 1;
            compare_sizes(pair, image, mask, faults);
        }
    }

    fn add_image(&mut self, split: usize, pair: &Pair, image: &ImageFacts, mask: u64, faults: &mut Faults) {
        let sums = &mut self.splits[split];
        *sums.sizes.entry(image.size).or_default() += 1;
        *sums.image_formats.entry(image.format.clone()).or_default() += 1;
        sums.turned += usize::from(image.orientation != Orientation::NoTransforms);
        self.pictures.entry(image.hash).or_default().push((split, pair.image.clone(), mask));
        if image.misnamed {
            misnamed(&pair.image, &image.format, faults);
        }
        if let Some([low, high]) = image.deep {
            let seen = self.deep.get_or_insert([u16::MAX, 0]);
            *seen = [seen[0].min(low), seen[1].max(high)];
        }
        if image.more {
            let what = "images of several pages or frames; the first is used";
            let remedy = "if other pages are meant, save each as an image of its own";
            faults.add(Fault::new(Severity::Warning, "several-pages", what, remedy), Example::file(&pair.image));
        }
        if image.transparent {
            let what = "images with transparent pixels; the colours below the transparency are used";
            let remedy = "if these are not what viewers show, export the images again without alpha";
            faults.add(Fault::new(Severity::Warning, "transparent-image", what, remedy), Example::file(&pair.image));
        }
        if image.unended {
            let what = "JPEGs without an end marker; all their pixels are there, and they are used";
            let remedy = "no action is needed; save them again to silence this";
            faults.add(Fault::new(Severity::Warning, "jpeg-without-end", what, remedy), Example::file(&pair.image));
        }
    }

    fn add_mask(&mut self, split: usize, pair: &Pair, mask: &MaskFacts, faults: &mut Faults) {
        let sums = &mut self.splits[split];
        *sums.mask_formats.entry(mask.format.clone()).or_default() += 1;
        *sums.masks.entry(mask.hash).or_default() += 1;
        warn_of_mask(pair, mask, faults);
        match mask.white_is_zero {
            Some(true) => self.white_is_zero.push(pair.mask.clone()),
            Some(false) => drop(self.black_is_zero.get_or_insert_with(|| pair.mask.clone())),
            None => {}
        }
        if let Some(shown) = mask.shown.as_ref().filter(|_| self.spec.encoding == Encoding::Index) {
            self.palettes.add(&pair.mask, shown);
        }
        // Numbers where colours are declared are what a palette says, or grays that are classes.
        let known = |value: &Source| self.map.class_of(*value).is_some();
        let looked_up = mask.colors.as_ref().filter(|colors| {
            self.spec.encoding == Encoding::Rgb && (mask.palette.is_some() || colors.keys().all(known))
        });
        if mask.encoding != self.spec.encoding && looked_up.is_none() {
            self.other_encoding.push(pair.mask.clone());
            if self.other_values.len() < MAX_VALUES {
                mask.values
                    .iter()
                    .for_each(|(value, count)| *self.other_values.entry(*value).or_default() += count.pixels);
            }
            return;
        }
        self.first_declared.get_or_insert_with(|| pair.mask.clone());
        let values = looked_up.unwrap_or(&mask.values);
        let numbers = values.keys().filter_map(|value| if let Source::Index(n) = value { Some(*n) } else { None });
        if self.spec.join.is_none() {
            match self.spec.encoding {
                Encoding::Index => self.kinds.add(numbers.collect(), &pair.mask),
                Encoding::Rgb => self.kinds.add_colors(values.keys().copied(), &pair.mask),
            }
            self.kinds.see(mask.texture);
        }
        self.add_values(split, pair, mask, values);
    }

    /// Adds the pixels of each value to those of the set, and to the classes of the split.
    fn add_values(&mut self, split: usize, pair: &Pair, mask: &MaskFacts, values: &BTreeMap<Source, Count>) {
        let sums = &mut self.splits[split];
        let all: u64 = values.values().map(|count| count.pixels).sum();
        let (mut counted, mut unknown, mut labels) = (0, mask.more, [false; 256]);
        for (value, count) in values {
            let full = self.values.len() >= MAX_VALUES;
            let sum = match self.values.get_mut(value) {
                Some(sum) => Some(sum),
                None if full => None,
                None => {
                    let first = ValueTotals {
                        pixels: 0,
                        masks: 0,
                        between: 0,
                        first: pair.mask.clone(),
                        at: position(mask, count.first),
                    };
                    Some(self.values.entry(*value).or_insert(first))
                }
            };
            if let Some(sum) = sum {
                sum.pixels += count.pixels;
                sum.masks += 1;
                sum.between += count.between;
            }
            match self.map.class_of(*value) {
                Some(label) => {
                    sums.class_pixels[usize::from(label)] += count.pixels;
                    labels[usize::from(label)] = true;
                    counted += if label == IGNORE { 0 } else { count.pixels };
                    sums.ignored += if label == IGNORE { count.pixels } else { 0 };
                }
                None => unknown = true,
            }
        }
        sums.pixels += all;
        sums.class_images.iter_mut().zip(labels).for_each(|(images, here)| *images += u64::from(here));
        if counted == 0 && !unknown {
            sums.blank.push(pair.mask.clone());
        } else if values.values().any(|count| count.pixels * 1000 >= all * 999) {
            sums.constant.push(pair.mask.clone());
        }
    }

    pub(super) fn report(self, spec: &DatasetSpec, root: PathBuf, ok: bool, faults: Vec<Fault>) -> CheckReport {
        let class = |(index, class): (usize, &crate::dataset::spec::ClassSpec)| ClassReport {
            name: class.name.clone(),
            pixels: self.splits.iter().map(|sums| sums.class_pixels[index]).collect(),
            images: self.splits.iter().map(|sums| sums.class_images[index]).collect(),
        };
        let classes = spec.classes.iter().enumerate().map(class).collect();
        let named = |value: &Source| match self.map.class_of(*value)? {
            IGNORE => Some("ignored".to_string()),
            label => Some(spec.classes[usize::from(label)].name.clone()),
        };
        let mut values: Vec<ValueReport> = self
            .values
            .iter()
            .map(|(value, sum)| ValueReport {
                value: *value,
                pixels: sum.pixels,
                masks: sum.masks,
                class: named(value),
            })
            .collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.pixels));
        let distinct_values = values.len();
        values.truncate(SHOWN);
        let copies = |split: usize| {
            let here = |places: &Vec<(usize, PathBuf, u64)>| places.iter().filter(|place| place.0 == split).count();
            self.pictures.values().map(|places| here(places).saturating_sub(1)).sum()
        };
        let duplicates: Vec<usize> = (0..self.splits.len()).map(copies).collect();
        let splits =
            self.splits.into_iter().zip(duplicates).map(|(sums, duplicates)| sums.report(duplicates)).collect();
        let (name, encoding) = (spec.name.clone(), spec.encoding);
        CheckReport { version: 1, name, root, encoding, ok, splits, classes, values, distinct_values, faults }
    }
}

/// Column and row of a pixel of a mask.
fn position(mask: &MaskFacts, at: usize) -> [usize; 2] {
    [at % mask.size[0], at / mask.size[0]]
}

/// Adds what a mask alone shows.
fn warn_of_mask(pair: &Pair, mask: &MaskFacts, faults: &mut Faults) {
    if mask.misnamed {
        misnamed(&pair.mask, &mask.kind, faults);
    }
    if let Some(at) = mask.transparent {
        let what = "masks with transparent pixels; the transparency is dropped";
        let remedy = "if the transparency holds the labels, export the masks again without alpha";
        faults.add(
            Fault::new(Severity::Warning, "transparent-mask", what, remedy),
            Example::file(&pair.mask).at(position(mask, at)),
        );
    }
    if mask.rounded > 0 {
        let what = "JPEG masks, whose values were rounded to the nearest declared ones";
        let remedy = "look at some of them, or export the masks as PNG and remove `jpeg_tolerance`";
        let note = format!("{} of {} pixels", mask.rounded, mask.size[0] * mask.size[1]);
        let fault = Fault::new(Severity::Warning, "jpeg-mask-rounded", what, remedy);
        faults.add(fault, Example::file(&pair.mask).note(note));
    }
    if let Some((pixels, at)) = mask.overlapping {
        let what = "images where masks of different classes show the same pixels";
        let remedy = "`overlap` of [join] says which class they are: \"later\" in its list, \"earlier\", or \"ignore\"";
        faults.add(
            Fault::new(Severity::Warning, "masks-overlap", what, remedy),
            Example::file(&pair.image).at(position(mask, at)).note(format!("{pixels} pixels")),
        );
    }
}

impl SplitTotals {
    fn report(self, duplicates: usize) -> SplitReport {
        let mut sizes: Vec<_> = self.sizes.into_iter().collect();
        sizes.sort_by_key(|(size, count)| (std::cmp::Reverse(*count), *size));
        SplitReport {
            split: self.split,
            pairs: self.pairs,
            sizes,
            image_formats: self.image_formats,
            mask_formats: self.mask_formats,
            turned: self.turned,
            duplicates,
            pixels: self.pixels,
            ignored: self.ignored,
        }
    }
}

fn misnamed(path: &Path, format: &str, faults: &mut Faults) {
    let what = format!("{format} files with the ending of another format; they are read as {format}");
    faults.add(Fault::new(Severity::Warning, "wrong-ending", what, "rename them"), Example::file(path));
}

fn compare_sizes(pair: &Pair, image: &ImageFacts, mask: &MaskFacts, faults: &mut Faults) {
    let ([w, h], [mw, mh]) = (image.size, mask.size);
    let turned = image.orientation != Orientation::NoTransforms;
    let sizes = format!("image {w}x{h}, mask {mw}x{mh}");
    if [w, h] == [mw, mh] {
        let size_decides = swaps_sides(image.orientation) && w != h;
        if turned && !size_decides {
            let what = "images that EXIF rotates; their masks may have been drawn before the rotation";
            let remedy = "compare one with its mask; if they disagree, remove the orientation from the EXIF of these \
                          images";
            faults.add(Fault::new(Severity::Warning, "exif", what, remedy), Example::file(&pair.image));
        }
        return;
    }
    let (code, what, remedy) = if [w, h] == [mh, mw] && turned {
        (
            "exif-mismatch",
            "masks drawn on the stored pixels, while EXIF rotates the image",
            "rotate the masks as EXIF rotates the images, or remove the orientation from the EXIF of these images only",
        )
    } else if [w, h] == [mh, mw] {
        (
            "swapped-size",
            "masks with width and height swapped",
            "rotate the masks or the images by 90 degrees, or transpose them",
        )
    } else if (w * mh).abs_diff(h * mw) <= w.max(h).max(mw).max(mh) && 10 * w.abs_diff(mw) > w {
        (
            "scaled-mask",
            "masks of another size but the same proportions",
            "export them at the images' size from the labelling tool; image editors smooth the edges or reorder the \
             palette when they scale",
        )
    } else {
        (
            "size-mismatch",
            "masks that differ in size from their image",
            "the mask belongs to another image, or one was cropped: export both again",
        )
    };
    faults.add(Fault::new(Severity::Fault, code, what, remedy), Example::file(&pair.mask).note(sizes));
}

/// Whether a set declares colours.
pub(super) fn noun(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Index => "numbers",
        Encoding::Rgb => "colours",
    }
}
