//! Masks before anything is known about them: which values they hold.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rayon::prelude::*;

use crate::dataset::encoding::ValueGroups;
use crate::dataset::palette::Palettes;
use crate::dataset::spec::{Encoding, Source};
use crate::image::formats::Format;
use crate::tools::check::scan::{Broken, scan_mask};
use crate::tools::check::texture::Texture;
use crate::tools::check::{CHUNK, Kinds, OnProgress};

/// More values than this that are far from each other are those of photographs.
const MOST: usize = 1024;

/// What masks hold.
#[derive(Default)]
pub(crate) struct MaskSurvey {
    /// Masks of numbers.
    pub(crate) index: usize,
    /// Masks of colours.
    pub(crate) rgb: usize,
    /// Masks that cannot be read, and why.
    pub(crate) broken: Vec<(PathBuf, Broken)>,
    /// Masks that are JPEGs, whose values were brought to the common ones.
    pub(crate) jpegs: usize,
    /// Of JPEGs, the tolerance that tells their values apart best, and how many these are.
    pub(crate) better_tolerance: Option<(u8, usize)>,
    /// All numbers.
    pub(crate) numbers: BTreeMap<Source, ValueCount>,
    /// All colours, up to some thousands of each mask.
    pub(crate) colors: BTreeMap<Source, ValueCount>,
    /// Which masks hold which numbers; grays of three equal channels are numbers here.
    pub(crate) groups: ValueGroups,
    /// The palette of the first mask that has one.
    pub(crate) palette: Option<Vec<[u8; 3]>>,
    /// All have the same.
    pub(crate) one_palette: bool,
    /// What the palettes of masks of numbers show.
    pub(crate) palettes: Palettes,
    /// Which numbers masks hold together.
    pub(crate) kinds: Kinds,
    /// How values lie beside each other.
    pub(crate) texture: Texture,
    /// All colours, with those that palettes say of numbers.
    all_colors: BTreeMap<Source, ValueCount>,
    /// Masks of numbers that say no colours, and how many of them are grays that could be.
    plain: usize,
    grays: usize,
    /// How many masks are grays of few bits, and the first of them.
    pub(crate) spread: Option<(usize, PathBuf)>,
    /// How many masks have pixels that are not opaque, and the first of them.
    pub(crate) transparent: Option<(usize, PathBuf)>,
    /// How many grey masks say that 0 is white, and the first of them; and how many do not.
    pub(crate) white_is_zero: Option<(usize, PathBuf)>,
    pub(crate) black_is_zero: Option<(usize, PathBuf)>,
}

/// How often a value occurs.
#[derive(Clone, Copy, Default)]
pub(crate) struct ValueCount {
    pub(crate) pixels: u64,
    pub(crate) masks: usize,
    /// Pixels of a number that lies between those of two opposite neighbours.
    pub(crate) between: u64,
}

impl MaskSurvey {
    /// Numbers are colours too: by palettes that differ from file to file, or beside masks of colours; or as grays
    /// beside colours that are all grays.
    pub(crate) fn by_color(&self) -> bool {
        self.index > 0 && self.plain == 0 && (self.palettes.differ() || self.rgb > 0) || self.grays_of_both_kinds()
    }

    /// Masks are grays, some of one channel and some of three.
    pub(crate) fn grays_of_both_kinds(&self) -> bool {
        let gray = |value: &Source| matches!(value, Source::Rgb([r, g, b]) if r == g && g == b);
        self.rgb > 0 && self.index > 0 && self.grays == self.index && self.colors.keys().all(gray)
    }

    /// What most masks hold.
    pub(crate) fn encoding(&self) -> Encoding {
        if self.rgb > self.index || self.by_color() { Encoding::Rgb } else { Encoding::Index }
    }

    /// Brings values into the order that palettes have them in.
    pub(crate) fn order(&self, values: &mut [(Source, ValueCount)]) {
        if self.by_color() {
            let order = self.palettes.colors();
            values.sort_by_key(|(value, _)| {
                (order.iter().position(|other| other == value).unwrap_or(usize::MAX), *value)
            });
        }
    }

    /// The values of masks of that kind.
    pub(crate) fn values(&self) -> &BTreeMap<Source, ValueCount> {
        match self.encoding() {
            _ if self.by_color() => &self.all_colors,
            Encoding::Index => &self.numbers,
            Encoding::Rgb => &self.colors,
        }
    }
}

/// Reads all masks. `tolerance`: JPEGs too, whose values are then taken for the nearest common one within so much.
pub(crate) fn survey(masks: &[PathBuf], tolerance: Option<u8>, progress: OnProgress) -> MaskSurvey {
    let mut survey = MaskSurvey { one_palette: true, ..MaskSurvey::default() };
    progress(0, masks.len());
    for (at, chunk) in masks.chunks(CHUNK).enumerate() {
        let scanned: Vec<_> = chunk.par_iter().map(|path| scan_mask(path, tolerance)).collect();
        for (path, facts) in chunk.iter().zip(scanned) {
            let facts = match facts {
                Ok(facts) => facts,
                Err(broken) => {
                    survey.broken.push((path.clone(), broken));
                    continue;
                }
            };
            let number = |value: &Source| match value {
                Source::Index(n) => *n,
                Source::Rgb([gray, ..]) => u16::from(*gray),
            };
            let jpeg = facts.kind == Format::Jpeg.name();
            survey.jpegs += usize::from(jpeg);
            // The values that compression left tell nothing of how labels are stored.
            if !jpeg {
                survey.groups.add(path, facts.values.keys().map(number));
                survey.texture.add(facts.texture);
                survey.kinds.see(facts.texture);
                if facts.encoding == Encoding::Rgb {
                    survey.kinds.add_colors(facts.values.keys().copied(), path);
                }
            }
            let values = match facts.encoding {
                Encoding::Index => {
                    survey.index += 1;
                    &mut survey.numbers
                }
                Encoding::Rgb => {
                    survey.rgb += 1;
                    &mut survey.colors
                }
            };
            if facts.encoding == Encoding::Index {
                let numbers = facts.values.keys();
                let numbers = numbers.filter_map(|value| if let Source::Index(n) = value { Some(*n) } else { None });
                if !jpeg {
                    survey.kinds.add(numbers.collect(), path);
                }
                // Greys of 8 bits could be colours too, but nothing says so.
                survey.plain += usize::from(facts.palette.is_none());
                survey.grays += usize::from(facts.palette.is_none() && facts.colors.is_some());
            }
            for (found, count) in [
                (facts.spread, &mut survey.spread),
                (facts.transparent.is_some(), &mut survey.transparent),
                (facts.white_is_zero == Some(true), &mut survey.white_is_zero),
                (facts.white_is_zero == Some(false), &mut survey.black_is_zero),
            ] {
                if found {
                    count.get_or_insert_with(|| (0, path.clone())).0 += 1;
                }
            }
            if let Some(shown) = &facts.shown {
                survey.palettes.add(path, shown);
            }
            for (value, count) in facts.colors.as_ref().unwrap_or(&facts.values) {
                let sum = survey.all_colors.entry(*value).or_default();
                sum.pixels += count.pixels;
                sum.masks += 1;
                sum.between += count.between;
            }
            for (value, count) in facts.values {
                let sum = values.entry(value).or_default();
                sum.pixels += count.pixels;
                sum.masks += 1;
                sum.between += count.between;
            }
            match (&survey.palette, facts.palette) {
                (None, palette) => survey.palette = palette,
                (Some(first), other) => survey.one_palette &= other.as_ref() == Some(first),
            }
        }
        progress((at * CHUNK + chunk.len()).min(masks.len()), masks.len());
    }
    if let Some(tolerance) = tolerance.filter(|_| survey.jpegs > 0) {
        survey.better_tolerance = [&survey.numbers, &survey.colors].into_iter().filter_map(steady).next();
        for values in [&mut survey.numbers, &mut survey.colors, &mut survey.all_colors] {
            gather(values, tolerance);
        }
    }
    survey
}

/// Values are brought together with rising tolerances: the one in the middle of the widest span over which their number
/// stays the same, and that number. None where there is no such span: photographs.
fn steady(values: &BTreeMap<Source, ValueCount>) -> Option<(u8, usize)> {
    const STEPS: [u8; 12] = [8, 16, 24, 32, 40, 50, 60, 75, 90, 105, 120, 127];
    const MOST_CLASSES: usize = 64;
    /// Of the colours of a photograph there are millions; classes have more pixels than those.
    const MOST_FREQUENT: usize = 1 << 12;
    let total: u64 = values.values().map(|count| count.pixels).sum();
    let mut frequent: Vec<_> = values.iter().collect();
    frequent.sort_by_key(|(value, count)| (std::cmp::Reverse(count.pixels), **value));
    let frequent: BTreeMap<_, _> =
        frequent.into_iter().take(MOST_FREQUENT).map(|(value, count)| (*value, *count)).collect();
    let counts = STEPS.map(|tolerance| {
        let mut values = frequent.clone();
        gather(&mut values, tolerance);
        values.values().filter(|count| count.pixels * 1000 > total).count()
    });
    let spans = counts.chunk_by(|a, b| a == b).scan(0, |start, span| {
        let first = *start;
        *start += span.len();
        Some((first, *start - 1, span[0]))
    });
    let steady = spans.filter(|(.., count)| (2..=MOST_CLASSES).contains(count));
    // Relative: colours that are near each other have narrow spans.
    let width = |(first, last, _): &(usize, usize, usize)| f64::from(STEPS[*last]) / f64::from(STEPS[*first]);
    let (first, last, count) = steady.max_by(|a, b| width(a).total_cmp(&width(b)))?;
    Some((STEPS[first].midpoint(STEPS[last]), count))
}

/// The tolerance that tells the values of these masks apart best, of those that are JPEGs, and how many these are.
pub(crate) fn best_tolerance(masks: &[PathBuf]) -> Option<(u8, usize)> {
    const LOOKED_AT: usize = 24;
    let some: Vec<PathBuf> = masks.iter().step_by(masks.len().div_ceil(LOOKED_AT).max(1)).cloned().collect();
    survey(&some, Some(GRAY_TOLERANCE), &|_, _| {}).better_tolerance
}

/// How far the channels of a grey JPEG may be from each other.
const GRAY_TOLERANCE: u8 = 16;

/// Adds each value to the most frequent one that is no farther than `tolerance` in any channel.
fn gather(values: &mut BTreeMap<Source, ValueCount>, tolerance: u8) {
    let channels = |value: &Source| match value {
        Source::Index(n) => [*n; 3],
        Source::Rgb(rgb) => rgb.map(u16::from),
    };
    let mut all: Vec<(Source, ValueCount)> = std::mem::take(values).into_iter().collect();
    all.sort_by_key(|(value, count)| (std::cmp::Reverse(count.pixels), *value));
    let mut common: Vec<(Source, ValueCount)> = Vec::new();
    for (value, count) in all {
        let far = |other: &Source| {
            let (a, b) = (channels(&value), channels(other));
            (0..3).map(|at| a[at].abs_diff(b[at])).max().unwrap_or(0)
        };
        let near = common.iter().enumerate().filter(|(_, (other, _))| far(other) <= u16::from(tolerance));
        match near.min_by_key(|(_, (other, _))| far(other)).map(|(at, _)| at) {
            Some(at) => {
                let sum = &mut common[at].1;
                sum.pixels += count.pixels;
                sum.masks = sum.masks.max(count.masks);
            }
            // More would take long, and are not labels.
            None if common.len() < MOST => common.push((value, count)),
            None => {}
        }
    }
    values.extend(common);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_jpegs_are_gathered_at_the_common_ones() {
        let count = |pixels| ValueCount { pixels, masks: 1, between: 0 };
        let mut values: BTreeMap<Source, ValueCount> = [(0, 900), (3, 40), (15, 5), (128, 2), (249, 30), (255, 700)]
            .map(|(n, pixels)| (Source::Index(n), count(pixels)))
            .into();
        gather(&mut values, 16);
        let found: Vec<(Source, u64)> = values.iter().map(|(value, count)| (*value, count.pixels)).collect();
        assert_eq!(found, [(Source::Index(0), 945), (Source::Index(128), 2), (Source::Index(255), 730)]);
        gather(&mut values, 127);
        assert_eq!(values.keys().copied().collect::<Vec<_>>(), [0, 255].map(Source::Index));
    }
}
