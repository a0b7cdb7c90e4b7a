//! Outlines and run lengths to label maps.
//!
//! The rule: a pixel belongs to a polygon if its centre lies inside, by the even-odd count of edges to its left; a centre
//! exactly on an edge belongs to the polygon on its right, or below, so two polygons that share an edge share no pixel.
//! Several polygons of one object are united. Later objects cover earlier ones.

use crate::data::image::Labels;
use crate::error::{Error, Result};

/// The part of a picture that an object covers, in pixels; x to the right, y down, 0 at the corner of the first pixel.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Area {
    /// The union of polygons, each a closed ring of points.
    Polygons(Vec<Vec<[f64; 2]>>),
    /// A disc of a centre and a radius.
    Disc([f64; 2], f64),
    /// A bitmap at a column and row.
    Bitmap {
        /// Column and row of its first pixel.
        at: [usize; 2],
        /// Pixels across.
        width: usize,
        /// By rows.
        bits: Vec<bool>,
    },
}

/// Gives all pixels of an area a class.
pub(crate) fn draw(labels: &mut Labels, area: &Area, class: u8) {
    match area {
        Area::Polygons(rings) => rings.iter().for_each(|ring| fill(labels, ring, class)),
        Area::Disc([x, y], radius) => {
            for row in rows(y - radius, y + radius, labels.height) {
                let half = (radius * radius - (row as f64 + 0.5 - y).powi(2)).max(0.0).sqrt();
                run(labels, row, x - half, x + half, class);
            }
        }
        Area::Bitmap { at, width, bits } => {
            let (columns, height) = (labels.width, labels.height);
            for (index, _) in bits.iter().enumerate().filter(|(_, bit)| **bit) {
                let (x, y) = (at[0] + index % width, at[1] + index / width);
                if x < columns && y < height {
                    labels.ids[y * columns + x] = class;
                }
            }
        }
    }
}

fn fill(labels: &mut Labels, ring: &[[f64; 2]], class: u8) {
    let low = ring.iter().map(|p| p[1]).fold(f64::INFINITY, f64::min);
    let high = ring.iter().map(|p| p[1]).fold(f64::NEG_INFINITY, f64::max);
    let mut crossings = Vec::new();
    for row in rows(low, high, labels.height) {
        let y = row as f64 + 0.5;
        crossings.clear();
        for (at, a) in ring.iter().enumerate() {
            let b = ring[(at + 1) % ring.len()];
            // Half-open, so that a corner on the line counts once.
            if (a[1] <= y) != (b[1] <= y) {
                crossings.push(a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0]));
            }
        }
        crossings.sort_by(f64::total_cmp);
        for inside in crossings.chunks_exact(2) {
            run(labels, row, inside[0], inside[1], class);
        }
    }
}

/// Rows whose centre may lie from `low` to `high`.
fn rows(low: f64, high: f64, height: usize) -> std::ops::Range<usize> {
    // A float that is too large, or none, becomes the nearest number.
    let end = ((high + 0.5).floor().max(0.0) as usize).min(height);
    ((low - 0.5).ceil().max(0.0) as usize).min(end)..end
}

/// Pixels of a row whose centres lie from `left` on and before `right`.
fn run(labels: &mut Labels, row: usize, left: f64, right: f64, class: u8) {
    let column = |x: f64| ((x - 0.5).ceil().max(0.0) as usize).min(labels.width);
    let (from, to) = (column(left), column(right));
    if from < to {
        labels.ids[row * labels.width + from..row * labels.width + to].fill(class);
    }
}

/// A bitmap from COCO's run lengths: of zeros and ones in turn, down the columns.
///
/// # Errors
/// Runs that do not add up to the picture.
pub(crate) fn from_runs(runs: &[u64], width: usize, height: usize) -> Result<Area> {
    let all = width as u64 * height as u64;
    let sum = runs.iter().try_fold(0u64, |sum, run| sum.checked_add(*run));
    if sum != Some(all) || all > crate::data::image::MAX_PIXELS {
        return Err(Error::new(format!("its run lengths do not add up to {width}x{height} pixels")));
    }
    let mut bits = vec![false; width * height];
    let mut at = 0;
    for (turn, run) in runs.iter().enumerate() {
        for index in at..at + *run as usize {
            bits[(index % height) * width + index / height] = turn % 2 == 1;
        }
        at += *run as usize;
    }
    Ok(Area::Bitmap { at: [0, 0], width, bits })
}

/// COCO's compressed run lengths: numbers of 5 bits a character, from the fourth run on as differences to the run two before.
///
/// # Errors
/// Characters that are none of its.
pub(crate) fn decompress(text: &str) -> Result<Vec<u64>> {
    let wrong = || Error::new("its compressed run lengths are damaged");
    let mut runs: Vec<i64> = Vec::new();
    let mut bytes = text.bytes();
    while let Some(first) = bytes.next() {
        let (mut value, mut shift, mut byte) = (0i64, 0, first);
        loop {
            let bits = byte.checked_sub(48).filter(|bits| *bits < 64).ok_or_else(wrong)?;
            value |= i64::from(bits & 31) << shift;
            shift += 5;
            if bits & 32 == 0 {
                // The last character carries the sign.
                value |= if bits & 16 != 0 { -1 << shift } else { 0 };
                break;
            }
            byte = bytes.next().filter(|_| shift < 50).ok_or_else(wrong)?;
        }
        let before = if runs.len() > 2 { runs[runs.len() - 2] } else { 0 };
        runs.push(value.checked_add(before).ok_or_else(wrong)?);
    }
    runs.into_iter().map(|run| u64::try_from(run).map_err(|_| wrong())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(areas: &[(Area, u8)]) -> Vec<Vec<u8>> {
        let mut labels = Labels { width: 6, height: 4, ids: vec![0; 24] };
        areas.iter().for_each(|(area, class)| draw(&mut labels, area, *class));
        labels.ids.chunks(6).map(<[u8]>::to_vec).collect()
    }

    fn polygon(points: &[[f64; 2]]) -> Area {
        Area::Polygons(vec![points.to_vec()])
    }

    #[test]
    fn pixels_count_by_their_centres() {
        let square = polygon(&[[1.0, 1.0], [3.0, 1.0], [3.0, 3.0], [1.0, 3.0]]);
        assert_eq!(drawn(&[(square, 1)])[1], [0, 1, 1, 0, 0, 0]);
        // Edges through centres: two halves share no pixel and leave none out.
        let left = polygon(&[[0.0, 0.0], [2.5, 0.0], [2.5, 4.0], [0.0, 4.0]]);
        let right = polygon(&[[2.5, 0.0], [6.0, 0.0], [6.0, 4.0], [2.5, 4.0]]);
        let both = [(left.clone(), 1), (right.clone(), 2)];
        assert_eq!(drawn(&both)[0], [1, 1, 2, 2, 2, 2]);
        assert_eq!(drawn(&both), drawn(&[(right, 2), (left, 1)]));
        let triangle = polygon(&[[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]]);
        assert_eq!(drawn(&[(triangle, 1)]), [[1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], [0; 6]]);
    }

    #[test]
    fn crossings_are_even_odd_and_pieces_united() {
        // Around the inner square and back: a ring with a hole.
        let ring = polygon(&[
            [0., 0.],
            [5., 0.],
            [5., 4.],
            [0., 4.],
            [0., 0.],
            [2., 1.],
            [2., 3.],
            [4., 3.],
            [4., 1.],
            [2., 1.],
        ]);
        assert_eq!(drawn(&[(ring, 1)])[1], [1, 1, 0, 0, 1, 0]);
        let a = vec![[0., 0.], [3., 0.], [3., 1.], [0., 1.]];
        let b = vec![[2., 0.], [4., 0.], [4., 1.], [2., 1.]];
        assert_eq!(drawn(&[(Area::Polygons(vec![a, b]), 1)])[0], [1, 1, 1, 1, 0, 0]);
    }

    #[test]
    fn what_lies_outside_is_cut_and_later_covers() {
        let wide = polygon(&[[-1e300, -5.0], [1e300, -5.0], [1e300, 99.0], [-1e300, 99.0]]);
        let disc = Area::Disc([0.0, 0.0], 2.0);
        assert_eq!(drawn(&[(wide, 1), (disc, 2)])[..2], [[2, 2, 1, 1, 1, 1], [2, 1, 1, 1, 1, 1]]);
        assert_eq!(drawn(&[(polygon(&[[f64::NAN, 0.0], [1.0, f64::NAN]]), 1)])[0], [0; 6]);
        assert_eq!(drawn(&[(polygon(&[]), 1), (Area::Disc([2.0, 2.0], f64::NAN), 1)])[0], [0; 6]);
    }

    #[test]
    fn run_lengths_go_down_columns() {
        let area = from_runs(&[5, 2, 17], 6, 4).unwrap();
        assert_eq!(drawn(&[(area.clone(), 3)]), [[0; 6], [0, 3, 0, 0, 0, 0], [0, 3, 0, 0, 0, 0], [0; 6]]);
        // As pycocotools' `rleToString` writes them: 5, 2, 17 and 6, 1, 40, 3, 50.
        assert_eq!(decompress("52a0").unwrap(), [5, 2, 17]);
        assert_eq!(decompress("61X12:").unwrap(), [6, 1, 40, 3, 50]);
        assert!(from_runs(&[5, 2], 6, 4).is_err() && from_runs(&[u64::MAX, 2], 6, 4).is_err());
        assert!(decompress("\u{7f}").is_err() && decompress("PPPPPPPPPPPPPPPPPPPPPP").is_err());
    }
}
