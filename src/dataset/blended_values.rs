//! Values that are not labels: those that JPEG leaves close around labels, and that smoothing leaves between them.

use crate::dataset::spec::Source;

/// A photograph has more values than this; they are not looked at.
const MAX_VALUES: usize = 4096;
/// A label's values that JPEG moved lie at most this far from it, in any channel.
const REACH: u16 = 12;
/// The values around two labels leave at least this much between them. Ids in a row leave nothing.
const GAP: u16 = 4;
/// Up to twice the [`REACH`] a value belongs to a label that has at least this many times its pixels: what lies farther
/// from a label is far rarer.
const RARER: u64 = 20;
/// A value with fewer than one in this many of all pixels is neither a label nor counted against there being any.
const STRAY: u64 = 1000;

/// A value that may be a label, and those around it.
struct Peak {
    value: Source,
    pixels: u64,
    /// How many values lie around it.
    others: usize,
    /// Their pixels.
    around: u64,
    /// The pixels of the most frequent of them.
    most: u64,
    /// Whether that one is the next value.
    nearest: bool,
    /// The lowest and the highest of them and of itself, in the first channel.
    reach: [u16; 2],
}

impl Peak {
    /// Pixels of the value and of those around it.
    fn held(&self) -> u64 {
        self.pixels + self.around
    }

    /// Whether the values around it look like what JPEG leaves: at least `fewest`, and each far rarer than the label.
    /// Stronger compression leaves more, but on both sides and falling from the next value on; only `numbers` have
    /// sides.
    fn is_surrounded(&self, fewest: usize, numbers: bool) -> bool {
        let far_above = 3 * self.most <= self.pixels && 2 * self.around <= self.pixels;
        let [at, ..] = channels(self.value);
        let both_sides = (at == 0 || self.reach[0] < at) && (at == 255 || self.reach[1] > at);
        let falls =
            numbers && both_sides && self.nearest && 3 * self.most <= 2 * self.pixels && self.around <= 2 * self.pixels;
        self.others >= fewest && (far_above || falls)
    }
}

/// The few values that all others of a set lie close around, far more rarely, as JPEG leaves them; `None` where the
/// values are labels. `values` are with their pixels.
pub(crate) fn peaks(values: impl Iterator<Item = (Source, u64)>) -> Option<Vec<Source>> {
    let mut all: Vec<(Source, u64)> = values.take(MAX_VALUES + 1).collect();
    // JPEG has 8 bits.
    let deep = |value: &Source| matches!(value, Source::Index(number) if *number > 255);
    if all.len() > MAX_VALUES || all.iter().any(|(value, _)| deep(value)) {
        return None;
    }
    all.sort_by_key(|(value, pixels)| (std::cmp::Reverse(*pixels), *value));
    let total: u64 = all.iter().map(|(_, pixels)| pixels).sum();
    let numbers = matches!(all.first(), Some((Source::Index(_), _)));
    let mut found = clusters(&all);
    if numbers {
        add_distant(&mut found);
    }
    found.retain(|peak| STRAY * peak.held() >= total);
    if numbers && !lie_apart(&found) {
        return None;
    }
    let black_white = found.len() == 2 && found.iter().all(|peak| matches!(peak.value, Source::Index(0 | 255)));
    let fewest = if black_white { 2 } else { 3 };
    let surrounded: Vec<&Peak> = found.iter().filter(|peak| peak.is_surrounded(fewest, numbers)).collect();
    let held: u64 = surrounded.iter().map(|peak| peak.held()).sum();
    // At least two, at least half of what is left, with nine tenths of the pixels; and three values for each.
    let fits = surrounded.len() >= 2
        && 2 * surrounded.len() >= found.len()
        && 10 * held >= 9 * total
        && all.len() >= 3 * found.len();
    fits.then(|| {
        let mut peaks: Vec<Source> = found.into_iter().map(|peak| peak.value).collect();
        peaks.sort_unstable();
        peaks
    })
}

/// Each value with the more frequent one that it lies closest to, within [`REACH`]. `all` come in the order of their
/// pixels.
fn clusters(all: &[(Source, u64)]) -> Vec<Peak> {
    let mut found: Vec<Peak> = Vec::new();
    for (value, pixels) in all {
        let [here, ..] = channels(*value);
        let near = found.iter_mut().map(|peak| (distance(*value, peak.value), peak)).filter(|(far, _)| *far <= REACH);
        match near.min_by_key(|(far, _)| *far) {
            Some((far, peak)) => {
                // The first is the most frequent.
                if peak.others == 0 {
                    peak.nearest = far == 1;
                }
                peak.others += 1;
                peak.around += pixels;
                peak.most = peak.most.max(*pixels);
                peak.reach = [peak.reach[0].min(here), peak.reach[1].max(here)];
            }
            None => found.push(Peak {
                value: *value,
                pixels: *pixels,
                others: 0,
                around: 0,
                most: 0,
                nearest: false,
                reach: [here; 2],
            }),
        }
    }
    found
}

/// Adds numbers up to twice the [`REACH`] away from a label, and far rarer, to it.
fn add_distant(found: &mut Vec<Peak>) {
    let mut at = 0;
    while at < found.len() {
        let (before, rest) = found.split_at_mut(at);
        let one = &rest[0];
        let near = before.iter_mut().map(|label| (distance(one.value, label.value), label));
        let near = near.filter(|(far, label)| *far <= 2 * REACH && RARER * one.held() <= label.pixels);
        match near.min_by_key(|(far, _)| *far) {
            None => at += 1,
            Some((_, label)) => {
                label.others += 1 + one.others;
                label.around += one.held();
                label.reach = [label.reach[0].min(one.reach[0]), label.reach[1].max(one.reach[1])];
                found.remove(at);
            }
        }
    }
}

/// Whether the values around each number leave a gap to those around the next.
fn lie_apart(found: &[Peak]) -> bool {
    let mut reaches: Vec<[u16; 2]> = found.iter().map(|peak| peak.reach).collect();
    reaches.sort_unstable();
    reaches.windows(2).all(|two| two[1][0].saturating_sub(two[0][1]) >= GAP)
}

fn channels(value: Source) -> [u16; 3] {
    match value {
        Source::Index(number) => [number; 3],
        Source::Rgb(rgb) => rgb.map(u16::from),
    }
}

/// How far apart two values are, in the channel in which that is the most.
fn distance(a: Source, b: Source) -> u16 {
    let (a, b) = (channels(a), channels(b));
    (0..3).map(|at| a[at].abs_diff(b[at])).max().unwrap_or(0)
}

/// The numbers that lie between those of two opposite neighbours nearly wherever they occur, as scaling with smoothing
/// leaves them between two labels; none of labels. `values`: with their pixels, and how many of these lie so.
pub(crate) fn rims(values: impl Iterator<Item = (Source, u64, u64)>) -> Vec<Source> {
    // A class may be the border of another: then it is one or two.
    const FEWEST: usize = 3;
    let (rims, labels): (Vec<_>, Vec<_>) = values.partition(|(_, pixels, between)| 10 * between >= 7 * pixels);
    let many = rims.len() >= FEWEST && rims.len() >= labels.len() && labels.len() >= 2;
    if many { rims.into_iter().map(|(value, ..)| value).collect() } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
