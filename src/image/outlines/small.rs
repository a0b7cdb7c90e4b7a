//! Labels without what is small.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::ops::Range;

use crate::image::outlines::borders::{Borders, Ring};
use crate::image::{IGNORE, Labels};

/// The labels without what is small: holes of fewer than `min_area` pixels become part of the region around them, and
/// other regions of fewer pixels become [`IGNORE`]. Borrowed where nothing changes.
#[must_use]
pub fn without_small(labels: &Labels, min_area: u64) -> Cow<'_, Labels> {
    if min_area < 2 {
        return Cow::Borrowed(labels);
    }
    let borders = Borders::of(labels, &[]);
    let rings = borders.rings();
    let mut pixels = vec![0; borders.regions.classes.len()];
    borders.regions.labeled().for_each(|(region, _, count)| pixels[region as usize] = count);
    let is_small = |ring: &Ring| pixels[ring.region as usize] < min_area;
    let regions = rings.iter().filter(|ring| is_small(ring)).map(|ring| (0, ring, IGNORE));
    let holes = rings.iter().filter(|ring| !is_small(ring) && (1 - min_area as i64..0).contains(&ring.area));
    let class = |ring: &Ring| borders.regions.classes[ring.region as usize] as u8;
    let holes = (0..).zip(holes).map(|(number, ring)| (number, ring, class(ring)));
    let (regions, holes) = (spans(&borders, regions), spans(&borders, holes));
    if regions.is_empty() && holes.is_empty() {
        return Cow::Borrowed(labels);
    }
    let mut labels = labels.clone();
    // Regions first: those in a hole that is filled are filled with it.
    for Span { row, columns, class } in regions.into_iter().chain(holes) {
        labels.ids[row * labels.width..][columns].fill(class);
    }
    Cow::Owned(labels)
}

/// Pixels in a row that become one class.
struct Span {
    row: usize,
    columns: Range<usize>,
    class: u8,
}

/// What lies within rings that have a number, by the even-odd rule among those of a number. Of rings in each other the
/// outer one counts.
fn spans<'a>(borders: &Borders, rings: impl Iterator<Item = (u32, &'a Ring, u8)>) -> Vec<Span> {
    let mut sides = Vec::new();
    for (number, ring, class) in rings {
        for (column, rows) in borders.uprights(ring) {
            sides.extend(rows.map(|row| (row, number, column, class)));
        }
    }
    sides.sort_unstable();
    // A row enters a ring as often as it leaves it.
    let mut spans: Vec<Span> = sides
        .as_chunks::<2>()
        .0
        .iter()
        .map(|[(row, _, from, class), (_, _, to, _)]| Span {
            row: *row as usize,
            columns: *from as usize..*to as usize,
            class: *class,
        })
        .collect();
    spans.sort_by_key(|span| (span.row, span.columns.start, Reverse(span.columns.end)));
    let mut done = (0, 0);
    spans.retain(|span| {
        let is_outer = done < (span.row, span.columns.end);
        done = done.max((span.row, span.columns.end));
        is_outer
    });
    spans
}
