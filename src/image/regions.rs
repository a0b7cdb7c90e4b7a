//! Connected regions, found row by row from runs of equal pixels: those of a label map, and of any other map.

use crate::image::{IGNORE, Labels};

/// The class of what lies around the picture, and of pixels that are of no region.
pub(crate) const OUTSIDE: u16 = u16::MAX;

/// Neighbours in a row that have one class. Columns are counted from 1, for 0 lies to the left of the picture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) start: u32,
    pub(crate) class: u16,
    /// Whether it is cut off from what lies below it.
    pub(crate) cut: bool,
    /// Of [`Regions`].
    pub(crate) region: u32,
}

impl Run {
    /// Whether it is of one region with the run `below` it, which it touches.
    pub(crate) fn joins(&self, below: &Self) -> bool {
        self.class == below.class && !self.cut
    }
}

/// The region of a run that has none yet.
const NONE: u32 = u32::MAX;

/// Runs that are cut off from what lies below them: their row, and their start.
pub(crate) type Cuts = [(usize, u32)];

/// Sets of runs that are joined. The first, 0, is what lies around the picture.
#[derive(Debug)]
pub(crate) struct Regions {
    parents: Vec<u32>,
    /// The same without cuts; empty where nothing was cut.
    wholes: Vec<u32>,
    pub(crate) classes: Vec<u16>,
    pixels: Vec<u64>,
}

impl Regions {
    /// The number of the region that `region` has become part of: of all its numbers the first, in reading order.
    pub(crate) fn find(&self, region: u32) -> u32 {
        root(&self.parents, region)
    }

    /// As [`find`](Self::find), as if nothing had been cut.
    pub(crate) fn whole(&self, region: u32) -> u32 {
        if self.wholes.is_empty() { self.find(region) } else { root(&self.wholes, region) }
    }

    /// Whether it is part of the picture, and not ignored.
    pub(crate) fn is_labeled(&self, region: u32) -> bool {
        self.classes[region as usize] < u16::from(IGNORE)
    }

    /// The regions of the picture in reading order: class and pixels.
    pub(crate) fn labeled(&self) -> impl Iterator<Item = (u32, u8, u64)> {
        let roots = (1..).zip(&self.parents[1..]).filter(|(at, parent)| at == *parent && self.is_labeled(*at));
        roots.map(|(at, _)| (at, self.classes[at as usize] as u8, self.pixels[at as usize]))
    }

    fn add(&mut self, class: u16) -> u32 {
        let region = self.parents.len() as u32;
        self.parents.push(region);
        self.classes.push(class);
        self.pixels.push(0);
        region
    }
}

fn root(parents: &[u32], mut at: u32) -> u32 {
    while parents[at as usize] != at {
        at = parents[at as usize];
    }
    at
}

/// Joins two sets under the lower number. Ways to the root are halved, so that they stay short.
fn join(parents: &mut [u32], a: u32, b: u32) -> u32 {
    let mut up = |mut at: u32| {
        while parents[at as usize] != at {
            let next = parents[parents[at as usize] as usize];
            parents[at as usize] = next;
            at = next;
        }
        at
    };
    let (a, b) = (up(a), up(b));
    parents[a.max(b) as usize] = a.min(b);
    a.min(b)
}

/// A connected region: pixels of one class, each beside another of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    /// What its pixels have in common.
    pub(crate) class: u16,
    /// Where its pixels are, counted by rows, in order.
    pub(crate) pixels: Vec<usize>,
    /// Left, top, right and bottom; the last two are the first outside.
    pub(crate) bounds: [usize; 4],
}

/// The connected regions (4-connected) of a map of `width` x `height` pixels, in the order of their first pixels.
/// `class` says what pixels of one region have in common, less than [`OUTSIDE`]; a pixel without it is of no region.
pub(crate) fn connected(width: usize, height: usize, class: impl Fn(usize) -> Option<u16>) -> Vec<Region> {
    let fill = |y: usize, to: &mut Vec<Run>| {
        let class = |x: usize| class(y * width + x).unwrap_or(OUTSIDE);
        let mut start = 0;
        while start < width {
            let here = class(start);
            let end = (start + 1..width).find(|x| class(*x) != here).unwrap_or(width);
            let region = if here == OUTSIDE { 0 } else { NONE };
            to.push(Run { start: start as u32 + 1, class: here, cut: false, region });
            start = end;
        }
        true
    };
    // Rows, columns from 1 and the first after them, and numbers of regions that may still be joined.
    let mut runs: Vec<(usize, u32, u32, u32)> = Vec::new();
    let regions = sweep_rows((width, height), &[], fill, |y, _, below| {
        let inside = below.windows(2).filter(|pair| pair[0].class != OUTSIDE);
        runs.extend(inside.map(|pair| (y, pair[0].start, pair[1].start, pair[0].region)));
    });
    // A region has the lowest of its numbers, which was given to its first run.
    let mut places = vec![0; regions.classes.len()];
    let mut found: Vec<Region> = Vec::new();
    for (y, start, end, number) in runs {
        let root = regions.find(number) as usize;
        if places[root] == 0 {
            found.push(Region {
                class: regions.classes[root],
                pixels: Vec::new(),
                bounds: [usize::MAX, usize::MAX, 0, 0],
            });
            places[root] = found.len();
        }
        let (left, right) = (start as usize - 1, end as usize - 1);
        let region = &mut found[places[root] - 1];
        region.pixels.extend(y * width + left..y * width + right);
        let [a, b, c, d] = region.bounds;
        region.bounds = [a.min(left), b.min(y), c.max(right), d.max(y + 1)];
    }
    found
}

/// Calls `see` with the runs of each two rows that touch, from the top border (where the upper is outside) to the
/// lower, and returns the regions. Rows are left out that equal the one above, for no border turns there. The regions
/// of runs may be joined later.
pub(crate) fn sweep(labels: &Labels, cuts: &Cuts, see: impl FnMut(usize, &[Run], &[Run])) -> Regions {
    let (width, is_cut) = (labels.width, !cuts.is_empty());
    let mut last: &[u8] = &[];
    let fill = |y: usize, to: &mut Vec<Run>| {
        let row = &labels.ids[y * width..(y + 1) * width];
        let is_new = row != last || is_cut;
        if is_new {
            last = row;
            runs(row, to);
        }
        is_new
    };
    let height = labels.ids.len().checked_div(width).map_or(0, |rows| rows.min(labels.height));
    sweep_rows((width, height), cuts, fill, see)
}

/// As [`sweep`], of rows whose runs `fill` adds; it returns false for one that equals the row above.
fn sweep_rows(
    (width, height): (usize, usize),
    cuts: &Cuts,
    mut fill: impl FnMut(usize, &mut Vec<Run>) -> bool,
    mut see: impl FnMut(usize, &[Run], &[Run]),
) -> Regions {
    let mut regions = Regions { parents: Vec::new(), wholes: Vec::new(), classes: Vec::new(), pixels: Vec::new() };
    let outside = regions.add(OUTSIDE);
    let outside = Run { start: 0, class: OUTSIDE, cut: false, region: outside };
    let (mut above, mut below) = (vec![outside], Vec::new());
    let mut cuts = cuts.iter().peekable();
    let is_cut = cuts.peek().is_some();
    for y in 0..height {
        below.clear();
        below.push(outside);
        if fill(y, &mut below) {
            below.push(Run { start: width as u32 + 1, ..outside });
            while let Some((_, start)) = cuts.next_if(|(at, _)| *at == y) {
                if let Ok(at) = below.binary_search_by_key(start, |run| run.start) {
                    below[at].cut = true;
                }
            }
            number(&mut regions, &above, &mut below, is_cut);
            see(y, &above, &below);
            std::mem::swap(&mut above, &mut below);
        }
        for pair in above.windows(2) {
            regions.pixels[pair[0].region as usize] += u64::from(pair[1].start - pair[0].start);
        }
    }
    see(height, &above, &[outside]);
    for at in (1..regions.parents.len()).rev() {
        let parent = regions.parents[at] as usize;
        if parent != at {
            regions.pixels[parent] += std::mem::take(&mut regions.pixels[at]);
        }
    }
    // Each is below what it points to, so that one step then leads to the root.
    for at in 1..regions.parents.len() {
        regions.parents[at] = regions.parents[regions.parents[at] as usize];
    }
    regions
}

/// Gives the runs of a row their regions.
fn number(regions: &mut Regions, above: &[Run], below: &mut [Run], is_cut: bool) {
    touching(above, below, |below, upper, at| {
        let lower = &mut below[at];
        if upper.class != OUTSIDE && upper.joins(lower) {
            lower.region = match lower.region {
                NONE => upper.region,
                region => join(&mut regions.parents, region, upper.region),
            };
        }
    });
    for run in below.iter_mut().filter(|run| run.region == NONE) {
        run.region = regions.add(run.class);
    }
    if is_cut {
        regions.wholes.extend(regions.wholes.len() as u32..regions.parents.len() as u32);
        touching(above, below, |below, upper, at| {
            if upper.class == below[at].class {
                join(&mut regions.wholes, upper.region, below[at].region);
            }
        });
    }
}

/// Calls `see` with each run of a row and the position of each in the row below that it touches.
fn touching(above: &[Run], below: &mut [Run], mut see: impl FnMut(&mut [Run], &Run, usize)) {
    let (mut upper, mut lower) = (0, 0);
    while upper < above.len() && lower < below.len() {
        see(below, &above[upper], lower);
        let end = |runs: &[Run], at: usize| runs.get(at + 1).map_or(u32::MAX, |run| run.start);
        let (a, b) = (end(above, upper), end(below, lower));
        upper += usize::from(a <= b);
        lower += usize::from(b <= a);
    }
}

/// Adds the runs of a row of pixels, as yet of no region.
fn runs(row: &[u8], to: &mut Vec<Run>) {
    let mut start = 0;
    while let Some(class) = row.get(start) {
        to.push(Run { start: start as u32 + 1, class: u16::from(*class), cut: false, region: NONE });
        let (words, rest) = row[start + 1..].as_chunks::<8>();
        let same = u64::from_le_bytes([*class; 8]);
        let mut length = 1;
        let other = words.iter().map(|word| u64::from_le_bytes(*word) ^ same).find(|word| {
            length += if *word == 0 { 8 } else { word.trailing_zeros() as usize / 8 };
            *word != 0
        });
        if other.is_none() {
            length += rest.iter().take_while(|id| *id == class).count();
        }
        start += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// Regions by filling them one after the other.
    fn filled(labels: &Labels) -> Vec<(u8, u64)> {
        let (width, height) = (labels.width, labels.height);
        let mut seen = vec![false; width * height];
        let mut found = Vec::new();
        for start in 0..seen.len() {
            if std::mem::replace(&mut seen[start], true) {
                continue;
            }
            let (class, mut open, mut pixels) = (labels.ids[start], vec![start], 0);
            while let Some(at) = open.pop() {
                pixels += 1;
                let (x, y) = (at % width, at / width);
                let mut go = |near: bool, to: usize| {
                    if near && labels.ids[to] == class && !std::mem::replace(&mut seen[to], true) {
                        open.push(to);
                    }
                };
                go(x > 0, at.wrapping_sub(1));
                go(x + 1 < width, at + 1);
                go(y > 0, at.wrapping_sub(width));
                go(y + 1 < height, at + width);
            }
            if class != IGNORE {
                found.push((class, pixels));
            }
        }
        found
    }

    #[test]
    fn regions_are_those_that_filling_finds() {
        for seed in 0..400 {
            let mut rng = Rng::new(seed, &[3]);
            let (width, height) = (1 + rng.below(40), 1 + rng.below(12));
            let classes = [0, 1, 7, 255, 254];
            let ids = (0..width * height).map(|_| classes[rng.below(2 + seed as usize % 4)]).collect();
            let labels = Labels { width, height, ids };
            let regions = sweep(&labels, &[], |_, _, _| {});
            let found: Vec<(u8, u64)> = regions.labeled().map(|(_, class, pixels)| (class, pixels)).collect();
            assert_eq!(found, filled(&labels), "{labels:?}");
        }
    }

    #[test]
    fn any_map_has_regions() {
        for seed in 0..400 {
            let mut rng = Rng::new(seed, &[5]);
            let (width, height) = (1 + rng.below(40), 1 + rng.below(12));
            let classes = [0, 1, 7, 255, 254];
            let ids = (0..width * height).map(|_| classes[rng.below(2 + seed as usize % 4)]).collect();
            let labels = Labels { width, height, ids };
            // Other classes than those of labels, as many as 16 bits hold.
            let class = |at: usize| Some(labels.ids[at]).filter(|id| *id != IGNORE).map(|id| u16::from(id) << 8 | 9);
            let found = connected(width, height, class);
            let expected = filled(&labels);
            assert_eq!(found.len(), expected.len(), "{labels:?}");
            let mut seen = vec![false; width * height];
            for (region, (class, pixels)) in found.iter().zip(expected) {
                assert_eq!((region.class >> 8, region.pixels.len() as u64), (class.into(), pixels), "{labels:?}");
                assert!(region.pixels.is_sorted() && region.pixels.iter().all(|at| labels.ids[*at] == class));
                assert!(region.pixels.iter().all(|at| !std::mem::replace(&mut seen[*at], true)), "one region a pixel");
                let of = |of: fn(usize, usize) -> usize| region.pixels.iter().map(move |at| of(*at, width));
                let (x, y) = (|at: usize, width: usize| at % width, |at: usize, width: usize| at / width);
                let bounds = [of(x).min(), of(y).min(), of(x).max().map(|x| x + 1), of(y).max().map(|y| y + 1)];
                assert_eq!(region.bounds.map(Some), bounds, "{labels:?}");
            }
        }
        assert_eq!((connected(0, 0, |_| Some(1)), connected(3, 2, |_| None)), (vec![], vec![]));
    }

    #[test]
    fn runs_end_where_the_class_changes() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed, &[4]);
            let mut row = Vec::new();
            while row.len() < 60 {
                row.extend(vec![rng.below(3) as u8; 1 + rng.below(20)]);
            }
            let mut found = Vec::new();
            runs(&row, &mut found);
            let starts = (0..row.len()).filter(|at| *at == 0 || row[*at] != row[at - 1]);
            let expected: Vec<(u32, u16)> = starts.map(|at| (at as u32 + 1, u16::from(row[at]))).collect();
            assert_eq!(found.iter().map(|run| (run.start, run.class)).collect::<Vec<_>>(), expected);
        }
    }
}
