//! What the numbers in masks stand for, as far as the numbers themselves tell.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::dataset::spec::Source;

/// Numbers below are ids, as programs count; at and above it they are greys, as people see them.
const LEAST_GRAY: u16 = 32;

/// Files of more values than this are not labels.
const MOST: usize = 64;

/// What 255 stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// 255 does not occur.
    Absent,
    /// A class, as the others are: a grey that is to be seen.
    Class,
    /// Pixels to leave out: the others are small ids in a row.
    Void,
    /// Either.
    Unclear,
}

/// The value that marks pixels to ignore in many sets: 255, or the largest of 16 bits where masks hold that.
pub(crate) fn mark(values: &[u16]) -> u16 {
    if values.contains(&u16::MAX) && !values.contains(&255) { u16::MAX } else { 255 }
}

/// What the [`mark`] stands for among all values of a set, in order. `named`: how many names count the values from 0.
pub(crate) fn reading(values: &[u16], named: usize) -> Reading {
    let mark = mark(values);
    let others: Vec<u16> = values.iter().copied().filter(|value| *value != mark).collect();
    let in_a_row = |values: &[u16]| values.windows(2).all(|two| two[1] == two[0] + 1);
    match others.as_slice() {
        _ if others.len() == values.len() => Reading::Absent,
        [] | [0] => Reading::Class,
        [first, ..] if *first <= 1 && in_a_row(&others) => Reading::Void,
        [.., last] if usize::from(*last) < named => Reading::Void,
        _ if evenly(values) => Reading::Class,
        others if mark == 255 && others.iter().all(|value| *value == 0 || *value >= LEAST_GRAY) => Reading::Class,
        _ => Reading::Unclear,
    }
}

/// Values of one label that compression moved are no farther from it than this in any channel.
const NEAR: u16 = 12;

/// Labels that lie apart leave at least so much between the values around them.
const BETWEEN: u16 = 4;

/// The few values that all others of a set lie close around, far more rarely, as JPEG leaves them; `None` of labels.
/// `values` are with their pixels.
pub(crate) fn peaks(values: impl Iterator<Item = (Source, u64)>) -> Option<Vec<Source>> {
    /// More are photographs.
    const MOST: usize = 4096;
    struct Peak {
        value: Source,
        pixels: u64,
        /// Around it: how many values, their pixels, the most of one, whether that is the next value, and how far they reach.
        others: usize,
        around: u64,
        most: u64,
        nearest: bool,
        reach: [u16; 2],
    }
    let channels = |value: &Source| match value {
        Source::Index(n) => [*n; 3],
        Source::Rgb(rgb) => rgb.map(u16::from),
    };
    let mut all: Vec<(Source, u64)> = values.take(MOST + 1).collect();
    // JPEG has 8 bits.
    if all.len() > MOST || all.iter().any(|(value, _)| *value > Source::Index(255) && matches!(value, Source::Index(_)))
    {
        return None;
    }
    all.sort_by_key(|(value, pixels)| (std::cmp::Reverse(*pixels), *value));
    let total: u64 = all.iter().map(|(_, pixels)| pixels).sum();
    let numbers = matches!(all.first(), Some((Source::Index(_), _)));
    let mut found: Vec<Peak> = Vec::new();
    for (value, pixels) in &all {
        let here = channels(value);
        let far = |peak: &Peak| {
            let there = channels(&peak.value);
            (0..3).map(|at| here[at].abs_diff(there[at])).max().unwrap_or(0)
        };
        match found.iter_mut().filter(|peak| far(peak) <= NEAR).min_by_key(|peak| far(peak)) {
            Some(peak) => {
                // They come in the order of their pixels.
                if peak.others == 0 {
                    peak.nearest = far(peak) == 1;
                }
                peak.others += 1;
                peak.around += pixels;
                peak.most = peak.most.max(*pixels);
                peak.reach = [peak.reach[0].min(here[0]), peak.reach[1].max(here[0])];
            }
            None => found.push(Peak {
                value: *value,
                pixels: *pixels,
                others: 0,
                around: 0,
                most: 0,
                nearest: false,
                reach: [here[0]; 2],
            }),
        }
    }
    // What lies farther from a label is far rarer still.
    let mut at = 0;
    while at < found.len() {
        let far = |one: &Peak, other: &Peak| channels(&one.value)[0].abs_diff(channels(&other.value)[0]);
        let (before, rest) = found.split_at_mut(at);
        let one = &rest[0];
        let of = before.iter_mut().filter(|other| numbers && far(one, other) <= 2 * NEAR);
        match of.filter(|other| 20 * (one.pixels + one.around) <= other.pixels).min_by_key(|other| far(one, other)) {
            None => at += 1,
            Some(other) => {
                other.others += 1 + one.others;
                other.around += one.pixels + one.around;
                other.reach = [other.reach[0].min(one.reach[0]), other.reach[1].max(one.reach[1])];
                found.remove(at);
            }
        }
    }
    // Stragglers are no labels.
    found.retain(|peak| 1000 * (peak.pixels + peak.around) >= total);
    let mut reaches: Vec<[u16; 2]> = found.iter().map(|peak| peak.reach).collect();
    reaches.sort_unstable();
    // Ids in a row are close to each other too, and leave nothing between.
    let apart = !numbers || reaches.windows(2).all(|two| two[1][0].saturating_sub(two[0][1]) >= BETWEEN);
    let black_white = found.len() == 2 && found.iter().all(|peak| matches!(peak.value, Source::Index(0 | 255)));
    let fewest = if black_white { 2 } else { 3 };
    let surrounded = |peak: &&Peak| {
        let far_above = 3 * peak.most <= peak.pixels && 2 * peak.around <= peak.pixels;
        // Stronger compression leaves more around, on both sides and falling from the next value on.
        let at = channels(&peak.value)[0];
        let both = (at == 0 || peak.reach[0] < at) && (at == 255 || peak.reach[1] > at);
        let falls =
            numbers && both && peak.nearest && 3 * peak.most <= 2 * peak.pixels && peak.around <= 2 * peak.pixels;
        peak.others >= fewest && (far_above || falls)
    };
    let (count, held) = found
        .iter()
        .filter(surrounded)
        .fold((0, 0), |(count, held), peak| (count + 1, held + peak.pixels + peak.around));
    let fits = count >= 2 && 2 * count >= found.len() && 10 * held >= 9 * total && all.len() >= 3 * found.len();
    (apart && fits).then(|| {
        let mut peaks: Vec<Source> = found.into_iter().map(|peak| peak.value).collect();
        peaks.sort_unstable();
        peaks
    })
}

/// The numbers that lie between those of two opposite neighbours nearly wherever they occur, as scaling with smoothing leaves
/// them between two labels; none of labels. `values`: with their pixels, and how many of these lie so.
pub(crate) fn rims(values: impl Iterator<Item = (Source, u64, u64)>) -> Vec<Source> {
    // A class may be the border of another: then it is one or two.
    const FEWEST: usize = 3;
    let (rims, labels): (Vec<_>, Vec<_>) = values.partition(|(_, pixels, between)| 10 * between >= 7 * pixels);
    let many = rims.len() >= FEWEST && rims.len() >= labels.len() && labels.len() >= 2;
    if many { rims.into_iter().map(|(value, ..)| value).collect() } else { Vec::new() }
}

/// Whether numbers are steps from the first to the last, rounded as people round.
fn evenly(values: &[u16]) -> bool {
    let (Some(first), Some(last)) = (values.first(), values.last()) else { return false };
    let step = f64::from(last - first) / (values.len().max(2) - 1) as f64;
    let close = |(at, value): (usize, &u16)| {
        (f64::from(*value) - f64::from(*first) - at as f64 * step).abs() <= (step * 0.1).max(1.0)
    };
    values.len() > 2 && step >= 8.0 && values.iter().enumerate().all(close)
}

/// Which files hold which numbers, equal ones together.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// How many files hold exactly these, and the first of them.
    by_values: BTreeMap<Vec<u16>, (usize, PathBuf)>,
}

/// Files that store the same classes in two ways.
#[derive(Debug, PartialEq)]
pub(crate) struct Mixed {
    /// Ids from 0, and how many files hold them.
    pub(crate) ids: Vec<u16>,
    pub(crate) id_files: (usize, PathBuf),
    /// Greys in their order, with 0, and how many files hold them.
    pub(crate) grays: Vec<u16>,
    pub(crate) gray_files: (usize, PathBuf),
    /// Which id each of the greys stands for.
    pub(crate) same: BTreeMap<u16, u16>,
}

impl Groups {
    /// Adds a file of these values, in order.
    pub(crate) fn add(&mut self, path: &Path, values: impl Iterator<Item = u16>) {
        let values: Vec<u16> = values.take(MOST + 1).collect();
        if values.len() <= MOST && (self.by_values.len() < 4096 || self.by_values.contains_key(&values)) {
            self.by_values.entry(values).or_insert_with(|| (0, path.to_path_buf())).0 += 1;
        }
    }

    /// Whether some files count classes and others show them in greys: 0 and 1 here, 0 and 255 there. Or whether greys are
    /// of 8 bits in some and of 16 in others.
    pub(crate) fn mixed(&self) -> Option<Mixed> {
        self.spread().or_else(|| self.widened()).or_else(|| self.rounded())
    }

    /// A grey of evenly spread ones is rounded down in some files and up in others: 127 here and 128 there.
    fn rounded(&self) -> Option<Mixed> {
        let all: Vec<u16> = self.by_values.keys().flatten().copied().collect::<BTreeSet<u16>>().into_iter().collect();
        let same: BTreeMap<u16, u16> = all
            .windows(2)
            .filter(|two| two[0] >= LEAST_GRAY && two[1] == two[0] + 1)
            .map(|two| (two[1], two[0]))
            .collect();
        let together = |values: &[u16]| same.iter().any(|(up, down)| values.contains(up) && values.contains(down));
        let ids: Vec<u16> = all.iter().copied().filter(|value| !same.contains_key(value)).collect();
        if same.is_empty() || !evenly(&ids) || self.by_values.keys().any(|values| together(values)) {
            return None;
        }
        let of = |has: &dyn Fn(&u16) -> bool| {
            let mut files = self.by_values.iter().filter(|(values, _)| values.iter().any(has)).map(|(_, files)| files);
            let (count, first) = files.next()?;
            Some(
                files.fold((*count, first.clone()), |(sum, first), (count, path)| {
                    (sum + count, first.min(path.clone()))
                }),
            )
        };
        let id_files = of(&|value| same.values().any(|down| down == value))?;
        let gray_files = of(&|value| same.contains_key(value))?;
        let grays = all.iter().copied().filter(|value| !same.values().any(|down| down == value)).collect();
        Some(Mixed { ids, id_files, grays, gray_files, same })
    }

    /// White is 255 in some files and 65535 in others.
    fn widened(&self) -> Option<Mixed> {
        let mut sides = [(BTreeSet::from([0]), None), (BTreeSet::from([0]), None)];
        for (values, (count, path)) in &self.by_values {
            let wide = values.iter().any(|value| *value > 255);
            if wide && values.iter().any(|value| (1..=255).contains(value)) {
                return None;
            }
            if values.iter().any(|value| *value > 0) {
                let (all, files) = &mut sides[usize::from(wide)];
                all.extend(values);
                files.get_or_insert_with(|| (0, path.clone())).0 += count;
            }
        }
        let [(ids, id_files), (grays, gray_files)] = sides;
        let same: BTreeMap<u16, u16> =
            grays.iter().map(|gray| (*gray, ((u32::from(*gray) + 128) / 257) as u16)).collect();
        let white = ids.contains(&255) && grays.contains(&u16::MAX);
        let whole = grays.len() > 1 && grays.iter().all(|gray| gray.is_multiple_of(257));
        let fits = (white || whole) && same.values().all(|id| ids.contains(id));
        let (ids, grays) = (ids.into_iter().collect(), grays.into_iter().collect());
        fits.then_some(Mixed { ids, id_files: id_files?, grays, gray_files: gray_files?, same })
    }

    fn spread(&self) -> Option<Mixed> {
        let (mut ids, mut grays) = (BTreeSet::from([0]), BTreeSet::from([0]));
        let (mut id_files, mut gray_files) = (None, None);
        for (values, (count, path)) in &self.by_values {
            let shown = values.iter().any(|value| *value >= LEAST_GRAY);
            let (all, files) = match (values.iter().any(|value| (1..LEAST_GRAY).contains(value)), shown) {
                // A file of both tells that 255 is something else than the ids.
                (true, true) => return None,
                (true, false) => (&mut ids, &mut id_files),
                (false, true) => (&mut grays, &mut gray_files),
                (false, false) => continue,
            };
            all.extend(values);
            files.get_or_insert_with(|| (0, path.clone())).0 += count;
        }
        let (ids, grays): (Vec<u16>, Vec<u16>) = (ids.into_iter().collect(), grays.into_iter().collect());
        // As many greys as ids may be any: which colours people choose to see is theirs.
        let fits = usize::from(*ids.last()?) < grays.len() && (grays.len() == ids.len() || evenly(&grays));
        let same = grays.iter().enumerate().map(|(id, gray)| (*gray, id as u16)).collect();
        fits.then_some(Mixed { ids, id_files: id_files?, grays, gray_files: gray_files?, same })
    }
}

impl Mixed {
    /// The two groups in words.
    pub(crate) fn what(&self) -> String {
        let values = |values: &[u16]| values.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        let files = |(count, first): &(usize, PathBuf)| match count {
            1 => format!("one mask (`{}`)", first.display()),
            count => format!("{count} masks (`{}` first)", first.display()),
        };
        format!(
            "{} hold the values {}, and {} the values {}: these are two ways of storing the same classes",
            files(&self.id_files),
            values(&self.ids),
            files(&self.gray_files),
            values(&self.grays)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hundred_and_fifty_five_is_void_beside_small_ids_alone() {
        for (values, named, expected) in [
            (&[0, 1, 2][..], 0, Reading::Absent),
            (&[0, 127, 255], 0, Reading::Class),
            (&[0, 128, 255], 0, Reading::Class),
            (&[0, 85, 170, 255], 0, Reading::Class),
            (&[0, 50, 100, 150, 200, 255], 0, Reading::Class),
            (&[0, 64, 128, 192, 255], 0, Reading::Class),
            (&[0, 38, 75, 255], 0, Reading::Class),
            (&[0, 255], 0, Reading::Class),
            (&[127, 255], 0, Reading::Class),
            (&[0, 1, 255], 0, Reading::Void),
            (&[1, 2, 3, 255], 0, Reading::Void),
            (&[0, 1, 2, 3, 4, 5, 6, 255], 0, Reading::Void),
            (&[0, 15, 255], 21, Reading::Void),
            (&[0, 15, 255], 0, Reading::Unclear),
            (&[3, 255], 0, Reading::Unclear),
            (&[0, 2, 128, 255], 0, Reading::Unclear),
            (&[0, 1, 2, 65535], 0, Reading::Void),
            (&[0, 65535], 0, Reading::Class),
            (&[0, 32768, 65535], 0, Reading::Class),
            (&[0, 7, 26000, 65535], 0, Reading::Unclear),
        ] {
            assert_eq!(reading(values, named), expected, "{values:?}");
        }
    }

    #[test]
    fn values_around_few_are_told_from_labels() {
        let found = |values: &[(u16, u64)]| {
            peaks(values.iter().map(|(n, pixels)| (Source::Index(*n), *pixels))).map(|peaks| peaks.len())
        };
        // A black and white mask after JPEG of quality 80: what lies far from both is rare.
        let dark = [30565, 557, 184, 118, 76, 69, 45, 58, 52, 32, 34, 19, 15, 12, 19, 10, 8, 1, 6, 7, 1, 2, 3, 1, 2];
        let light = [3741, 511, 409, 115, 40, 20, 20, 18, 14, 7, 16, 6, 7, 10, 10, 3, 5, 3, 4, 1, 2, 4, 1, 1];
        let dark = (0..).zip(dark);
        let light = (0..).zip(light).map(|(far, pixels)| (255 - far, pixels));
        assert_eq!(found(&dark.chain(light).collect::<Vec<(u16, u64)>>()), Some(2));
        let around = |peak: u16, pixels: u64| -> Vec<(u16, u64)> {
            let near = [(0, pixels), (1, pixels / 9), (2, pixels / 20), (3, pixels / 50), (5, 1)];
            near.iter().map(|(far, pixels)| (if peak > 200 { peak - far } else { peak + far }, *pixels)).collect()
        };
        assert_eq!(found(&[around(0, 9000), around(255, 4000)].concat()), Some(2));
        assert_eq!(found(&[around(0, 9000), around(40, 4000), around(80, 900), around(120, 300)].concat()), Some(4));
        // Ids in a row, however rare the later ones; with one that is ignored; ids with gaps; greys.
        let ids: Vec<(u16, u64)> = (0..40).map(|n| (n, 90_000 >> n.min(16))).collect();
        assert_eq!(found(&[around(0, 90_000), around(255, 40_000), vec![(13, 1)]].concat()), Some(2), "far from both");
        assert_eq!(found(&ids), None);
        assert_eq!(found(&[ids, vec![(255, 3000)]].concat()), None);
        assert_eq!(found(&[(0, 9000), (7, 300), (8, 200), (11, 100), (21, 50), (33, 9)]), None);
        assert_eq!(found(&[(0, 9000), (64, 300), (128, 200), (192, 100), (255, 50)]), None);
        assert_eq!(found(&[(0, 900), (85, 40)]), None);
        // Compressed more, and hardly at all.
        let wide = |peak: u16, pixels: u64| -> Vec<(u16, u64)> {
            let near = [(-3i16, 4), (-2, 5), (-1, 2), (0, 1), (1, 2), (2, 4), (4, 6)];
            near.iter().map(|(far, part)| (peak.saturating_add_signed(*far), pixels / part)).collect()
        };
        assert_eq!(found(&[around(0, 9000), wide(60, 900), wide(120, 600)].concat()), Some(3));
        assert_eq!(found(&[(0, 9000), (1, 90), (2, 20), (253, 9), (254, 60), (255, 4000)]), Some(2));
        assert_eq!(found(&[(0, 9000), (1, 900), (2, 700), (255, 4000)]), None);
        // Ids of a class and its parts.
        assert_eq!(found(&[10, 11, 12, 13, 20, 21, 22, 23, 30, 31, 32].map(|n| (n, 100 + u64::from(n) % 7))), None);
        let colors = |centers: &[[u8; 3]]| -> Vec<(Source, u64)> {
            let near = |[r, g, b]: &[u8; 3]| {
                let (r, g, b) = (*r, *g, *b);
                [([r, g, b], 900), ([r + 1, g, b], 90), ([r, g + 2, b + 1], 40), ([r + 3, g, b], 9)]
                    .map(|(rgb, pixels)| (Source::Rgb(rgb), pixels))
            };
            centers.iter().flat_map(near).collect()
        };
        let noisy = colors(&[[0, 0, 0], [128, 64, 0], [0, 128, 9]]);
        assert_eq!(peaks(noisy.into_iter()).map(|peaks| peaks.len()), Some(3));
        let plain = [[0, 0, 0], [128, 64, 0], [128, 70, 9], [0, 128, 9]].map(|rgb| (Source::Rgb(rgb), 900));
        assert_eq!(peaks(plain.into_iter()), None);
    }

    fn mixed(files: &[&[u16]]) -> Option<(usize, usize)> {
        let mut groups = Groups::default();
        for (at, values) in files.iter().enumerate() {
            groups.add(Path::new(&format!("{at}.png")), values.iter().copied());
        }
        groups.mixed().map(|mixed| (mixed.id_files.0, mixed.gray_files.0))
    }

    #[test]
    fn two_ways_to_store_the_same_are_told() {
        assert_eq!(mixed(&[&[0, 1], &[0, 255], &[0], &[0, 1]]), Some((2, 1)));
        assert_eq!(mixed(&[&[0, 1, 2], &[0, 127, 255], &[0, 127]]), Some((1, 2)));
        assert_eq!(mixed(&[&[1], &[255]]), Some((1, 1)));
        // 255 marks what is left out, in one file beside the ids.
        assert_eq!(mixed(&[&[0, 1], &[0, 255], &[0, 1, 255]]), None);
        assert_eq!(mixed(&[&[0, 1, 2], &[0, 255]]), None, "too few greys for the ids");
        assert_eq!(mixed(&[&[0, 1], &[0]]), None);
        assert_eq!(mixed(&[&[0, 1], &[0, 128]]), Some((1, 1)), "whatever grey it is");
        assert_eq!(mixed(&[&[0, 1, 2], &[0, 76, 150]]), Some((1, 1)), "as colours turned to greys are");
        assert_eq!(mixed(&[&[0, 1], &[0, 65535], &[0, 65535]]), Some((1, 2)));
        assert_eq!(mixed(&[&[0, 255], &[0, 65535], &[0]]), Some((1, 1)));
        assert_eq!(mixed(&[&[0, 127, 255], &[0, 32767, 65535]]), Some((1, 1)));
        assert_eq!(mixed(&[&[0, 255], &[0, 255, 65535]]), None);
        assert_eq!(mixed(&[&[0, 1, 2, 3], &[0, 40]]), None);
        assert_eq!(mixed(&[&[0, 255], &[0]]), None);
    }
}
