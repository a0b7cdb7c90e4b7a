//! Areas of annotations in pixels: outlines, run lengths, bitmaps.
//!
//! The rule: a pixel belongs to a polygon if its centre lies inside, by the even-odd count of edges to its left; a
//! centre exactly on an edge belongs to the polygon on its right, or below, so two polygons that share an edge share no
//! pixel. Several polygons of one object are united. Later objects cover earlier ones.
//!
//! An area is kept as its file has it and becomes pixels only while it is drawn: what a set takes in memory is what its
//! files take, and one mask per thread; see [`Canvas`](super::draw::Canvas).

use std::io::{Cursor, Read};
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::image::formats;
use crate::image::outlines::check_runs;
use crate::image::{RawMask, decode_mask, image_size, read_mask};

/// Coordinates beyond this are not places in a picture.
const FAR: f64 = 1e7;

/// The part of a picture that an object covers, in pixels; x to the right, y down, 0 at the corner of the first pixel.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Area {
    /// The union of polygons, each a closed ring of points.
    Polygons(Vec<Vec<[f64; 2]>>),
    /// A disc of a centre and a radius.
    Disc([f64; 2], f64),
    /// An ellipse of a centre and its half axes, which are not turned.
    Ellipse([f64; 2], [f64; 2]),
    /// Lengths of zeros and ones in turn, down the columns; they add up to the picture.
    Runs {
        /// Pixels across.
        width: usize,
        /// Pixels down.
        height: usize,
        /// Of zeros first.
        runs: Vec<u32>,
    },
    /// What is not 0 in a picture whose first pixel is at a column and row, which may lie outside.
    Bitmap([i64; 2], Bitmap),
    /// A whole mask of numbers, and the label of each number.
    Ids(PathBuf, Vec<u8>),
    /// A whole mask of segments, each a number in three bytes, red the lowest; and the label of each, in order.
    Segments(PathBuf, Vec<(u32, u8)>),
}

/// A picture of an area, not yet decoded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Bitmap {
    /// The bytes of its file.
    Bytes(Vec<u8>),
    /// The same, deflated.
    Deflated(Vec<u8>),
    /// Its file, as large as the whole picture.
    File(PathBuf),
}

impl Area {
    /// An ellipse of a centre and its half axes, turned clockwise about its centre by an angle in radians.
    pub(crate) fn ellipse(center: [f64; 2], axes: [f64; 2], turn: f64) -> Self {
        if turn == 0.0 || axes[0] == axes[1] {
            return Self::Ellipse(center, axes);
        }
        // As many corners as keep each edge within 1/64 of a pixel of the curve.
        let largest = axes[0].abs().max(axes[1].abs()).clamp(1.0, FAR);
        let corners = (std::f64::consts::PI / (1.0 - 1.0 / (64.0 * largest)).acos()).ceil() as usize;
        let corner = |at: usize| {
            let (sin, cos) = (std::f64::consts::TAU * at as f64 / corners as f64).sin_cos();
            let [x, y] = [axes[0] * cos, axes[1] * sin];
            [center[0] + x * turn.cos() - y * turn.sin(), center[1] + x * turn.sin() + y * turn.cos()]
        };
        Self::Polygons(vec![(0..corners).map(corner).collect()])
    }

    /// The smallest and the largest x and y that it reaches, if that is known without its pixels. `size`: of the
    /// picture.
    pub(crate) fn bounds(&self, size: [usize; 2]) -> Option<[[f64; 2]; 2]> {
        match self {
            Self::Polygons(rings) => {
                let mut points = rings.iter().flatten();
                let first = *points.next()?;
                let wider = |[low, high]: [[f64; 2]; 2], point: &[f64; 2]| {
                    let of = |pick: fn(f64, f64) -> f64, a: [f64; 2]| [pick(a[0], point[0]), pick(a[1], point[1])];
                    [of(f64::min, low), of(f64::max, high)]
                };
                Some(points.fold([first; 2], wider))
            }
            Self::Disc([x, y], radius) => Some([[x - radius, y - radius], [x + radius, y + radius]]),
            Self::Ellipse([x, y], [a, b]) => Some([[x - a, y - b], [x + a, y + b]]),
            Self::Bitmap(at, bitmap) => {
                let inflated;
                let bytes = match bitmap {
                    Bitmap::Bytes(bytes) => bytes,
                    Bitmap::Deflated(packed) => {
                        inflated = inflate(packed, size).ok()?;
                        &inflated
                    }
                    Bitmap::File(_) => return None,
                };
                let ((width, height), _) = formats::size(Cursor::new(bytes)).ok()?;
                let low = at.map(|corner| corner as f64);
                Some([low, [low[0] + width as f64, low[1] + height as f64]])
            }
            Self::Runs { .. } | Self::Ids(..) | Self::Segments(..) => None,
        }
    }

    /// The labels of its segments, if it is a mask of these.
    pub(crate) fn segment_labels(&mut self) -> impl Iterator<Item = &mut u8> {
        let table = if let Self::Segments(_, table) = self { table.as_mut_slice() } else { &mut [] };
        table.iter_mut().map(|(_, label)| label)
    }

    /// Whether it can be drawn on a picture of this size.
    ///
    /// # Errors
    /// Coordinates that are not places; run lengths for another size; bitmaps that are damaged or of another size.
    pub(crate) fn check(&self, size: [usize; 2]) -> Result<()> {
        let absurd = |n: f64| !n.is_finite() || n.abs() > FAR;
        let far = |numbers: &[f64]| match numbers.iter().find(|n| absurd(**n)) {
            Some(n) => Err(Error::new(format!("its coordinate {n:e} is not a position in a picture"))),
            None => Ok(()),
        };
        match self {
            Self::Polygons(rings) => rings.iter().try_for_each(|ring| far(ring.as_flattened())),
            Self::Disc(at, radius) => far(&[at[0], at[1], *radius]),
            Self::Ellipse(at, axes) => far(&[at[0], at[1], axes[0], axes[1]]),
            Self::Runs { width, height, .. } if [*width, *height] != size => Err(Error::new(format!(
                "its run lengths are for {width}x{height} pixels, and the image has {}x{}",
                size[0], size[1]
            ))),
            Self::Runs { .. } => Ok(()),
            Self::Bitmap(_, Bitmap::File(path)) => {
                let (width, height) = image_size(path)?;
                if [width, height] != size {
                    return Err(Error::new(format!(
                        "`{}` has {width}x{height} pixels, and the image {}x{}",
                        path.display(),
                        size[0],
                        size[1]
                    )));
                }
                read_mask(path).map(drop)
            }
            Self::Ids(path, table) => match read_mask(path)? {
                RawMask::Index { width, height, values, .. } if [width, height] == size => {
                    match values.iter().find(|value| usize::from(**value) >= table.len()) {
                        None => Ok(()),
                        Some(value) => Err(Error::new(format!("`{}` holds the value {value}", path.display()))
                            .with_hint(format!("values from 0 to {} are known", table.len() - 1))),
                    }
                }
                RawMask::Index { .. } => Err(Error::new(format!("`{}` is of another size", path.display()))),
                RawMask::Rgb { .. } => Err(Error::new(format!("`{}` holds colours, not numbers", path.display()))),
            },
            Self::Segments(path, table) => {
                let RawMask::Rgb { width, height, values, .. } = read_mask(path)? else {
                    return Err(Error::new(format!("`{}` holds numbers, not colours", path.display())));
                };
                if [width, height] != size {
                    return Err(Error::new(format!("`{}` is of another size", path.display())));
                }
                match values.iter().map(|colour| segment(*colour)).find(|id| *id > 0 && label_of(table, *id).is_none())
                {
                    None => Ok(()),
                    Some(id) => {
                        Err(Error::new(format!("`{}` holds the segment {id}, which is not listed", path.display())))
                    }
                }
            }
            Self::Bitmap(at, mask) => {
                if at.iter().any(|corner| corner.unsigned_abs() > FAR as u64) {
                    return Err(Error::new(format!(
                        "its corner ({}, {}) is not a position in a picture",
                        at[0], at[1]
                    )));
                }
                let inflated = match mask {
                    Bitmap::Deflated(packed) => inflate(packed, size)?,
                    _ => Vec::new(),
                };
                let bytes = if let Bitmap::Bytes(bytes) = mask { bytes } else { &inflated };
                small_enough(bytes, size)?;
                decode_mask(bytes).map(drop)
            }
        }
    }
}

/// The number of a segment by its colour, as COCO's panoptic masks have it; 0 is none.
pub(super) fn segment([red, green, blue]: [u8; 3]) -> u32 {
    u32::from_le_bytes([red, green, blue, 0])
}

/// The label of a segment in a table in order.
pub(super) fn label_of(table: &[(u32, u8)], id: u32) -> Option<u8> {
    table.binary_search_by_key(&id, |(id, _)| *id).ok().map(|at| table[at].1)
}

/// The bytes of a deflated picture that is no larger than `size`.
///
/// # Errors
/// Damaged data, or far more of them than such a picture may have.
pub(super) fn inflate(packed: &[u8], size: [usize; 2]) -> Result<Vec<u8>> {
    /// Beside the pixels: palettes, notes.
    const BESIDE: u64 = 1 << 16;
    let most = (size[0] as u64).saturating_mul(size[1] as u64).saturating_mul(8).saturating_add(BESIDE);
    let mut bytes = Vec::new();
    let read = flate2::read::ZlibDecoder::new(packed).take(most.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|_| Error::new("its compressed mask is damaged"))?;
    match bytes.len() as u64 > most {
        true => Err(Error::new(format!("its mask inflates to more than {}x{} pixels can take", size[0], size[1]))),
        false => Ok(bytes),
    }
}

/// Width and height that a picture's first bytes state, before any memory is taken.
///
/// # Errors
/// No picture, or one that is larger than the image.
fn small_enough(start: &[u8], size: [usize; 2]) -> Result<()> {
    let ((width, height), _) = formats::size(Cursor::new(start))
        .map_err(|error| Error::new("its mask is not a picture").with_source(error))?;
    if width > size[0] || height > size[1] {
        return Err(Error::new(format!(
            "its mask has {width}x{height} pixels, and the image only {}x{}",
            size[0], size[1]
        )));
    }
    Ok(())
}

/// An area from COCO's run lengths: of zeros and ones in turn, down the columns.
///
/// # Errors
/// Runs that do not add up to the picture.
pub(crate) fn from_runs(runs: &[u64], width: usize, height: usize) -> Result<Area> {
    check_runs(runs, width, height)?;
    // None is above the sum, which fits.
    Ok(Area::Runs { width, height, runs: runs.iter().map(|run| *run as u32).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::draw::Canvas;

    fn drawn(areas: &[(Area, u8)]) -> Vec<Vec<u8>> {
        let mut canvas = Canvas::new([6, 4], 0);
        areas.iter().rev().for_each(|(area, class)| canvas.draw(area, *class).unwrap());
        canvas.labels().ids.chunks(6).map(<[u8]>::to_vec).collect()
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
        let quarter = Area::ellipse([3.0, 2.0], [1.0, 3.0], std::f64::consts::FRAC_PI_2);
        let ellipse = Area::Ellipse([3.0, 2.0], [3.0, 1.0]);
        assert_eq!(drawn(&[(quarter, 1)]), drawn(&[(ellipse.clone(), 1)]));
        assert_eq!(drawn(&[(ellipse, 1)]), [[0; 6], [1; 6], [1; 6], [0; 6]]);
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

    /// The rule in its plainest form, pixel by pixel, beside what is drawn edge by edge.
    #[test]
    fn random_rings_are_drawn_as_the_rule_says() {
        for seed in 0..300 {
            let mut rng = crate::rng::Rng::new(seed, &[]);
            let mut number = |most: usize| rng.below(4 * most + 9) as f64 / 4.0 - 1.0;
            let ring: Vec<[f64; 2]> = (0..3 + seed as usize % 9).map(|_| [number(6), number(4)]).collect();
            let inside = |x: usize, y: usize| {
                let (x, y) = (x as f64 + 0.5, y as f64 + 0.5);
                let left = (0..ring.len()).filter(|at| {
                    let (a, b) = (ring[*at], ring[(at + 1) % ring.len()]);
                    (a[1] <= y) != (b[1] <= y) && a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0]) <= x
                });
                u8::from(left.count() % 2 == 1)
            };
            let expected: Vec<Vec<u8>> = (0..4).map(|y| (0..6).map(|x| inside(x, y)).collect()).collect();
            assert_eq!(drawn(&[(polygon(&ring), 1)]), expected, "{ring:?}");
        }
    }

    #[test]
    fn what_lies_outside_is_cut_and_later_covers() {
        let wide = polygon(&[[-1e300, -5.0], [1e300, -5.0], [1e300, 99.0], [-1e300, 99.0]]);
        let disc = Area::Disc([0.0, 0.0], 2.0);
        assert_eq!(drawn(&[(wide.clone(), 1), (disc, 2)])[..2], [[2, 2, 1, 1, 1, 1], [2, 1, 1, 1, 1, 1]]);
        assert_eq!(drawn(&[(polygon(&[[f64::NAN, 0.0], [1.0, f64::NAN]]), 1)])[0], [0; 6]);
        assert_eq!(drawn(&[(polygon(&[]), 1), (Area::Disc([2.0, 2.0], f64::NAN), 1)])[0], [0; 6]);
        assert!(wide.check([6, 4]).unwrap_err().to_string().contains("1e300"));
        assert!(Area::Disc([2.0, 2.0], f64::INFINITY).check([6, 4]).is_err());
    }

    fn png(width: u32, height: u32, at: impl Fn(u32, u32) -> u8) -> Bitmap {
        let mut bytes = Vec::new();
        let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
        image::GrayImage::from_fn(width, height, |x, y| image::Luma([at(x, y)])).write_with_encoder(encoder).unwrap();
        Bitmap::Bytes(bytes)
    }

    #[test]
    fn bitmaps_are_cut_at_every_side() {
        let corner = |x, y| drawn(&[(Area::Bitmap([x, y], png(3, 2, |x, _| u8::from(x > 0))), 1)]);
        assert_eq!(corner(1, 1), [[0; 6], [0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0], [0; 6]]);
        // Cut, not moved.
        assert_eq!(corner(-1, -1), [[1, 1, 0, 0, 0, 0], [0; 6], [0; 6], [0; 6]]);
        assert_eq!(corner(4, 3), [[0; 6], [0; 6], [0; 6], [0, 0, 0, 0, 0, 1]]);
        for (x, y) in [(-3, 0), (6, 0), (0, 4), (0, -2), (i64::from(i32::MAX), 0), (0, i64::from(i32::MIN))] {
            assert_eq!(corner(x, y), [[0; 6]; 4], "{x} {y}");
        }
        let check = |at, bitmap| Area::Bitmap(at, bitmap).check([6, 4]).map_err(|error| error.to_string());
        assert_eq!(check([-1, 2], png(3, 2, |_, _| 1)), Ok(()));
        assert!(check([0, 0], png(7, 1, |_, _| 1)).unwrap_err().contains("7x1"));
        assert!(check([i64::MAX, 0], png(1, 1, |_, _| 1)).unwrap_err().contains("not a position"));
        assert!(check([0, 0], Bitmap::Bytes(b"nothing".to_vec())).unwrap_err().contains("not a picture"));
    }

    #[test]
    fn deflated_bitmaps_inflate_to_no_more_than_their_image_holds() {
        use std::io::Write;
        let deflated = |parts: &[&[u8]]| {
            let mut writer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            parts.iter().for_each(|part| writer.write_all(part).unwrap());
            Area::Bitmap([1, 0], Bitmap::Deflated(writer.finish().unwrap()))
        };
        let Bitmap::Bytes(picture) = png(2, 2, |x, _| x as u8) else { panic!() };
        let good = deflated(&[&picture]);
        good.check([6, 4]).unwrap();
        assert_eq!(drawn(&[(good.clone(), 1)])[1], [0, 0, 1, 0, 0, 0]);
        assert!(good.check([6, 1]).unwrap_err().to_string().contains("2x2"));
        // 60 MB behind a small picture take some kilobytes in a file.
        let bomb = deflated(&[&picture, &vec![0; 60_000_000]]);
        assert!(bomb.check([6, 4]).unwrap_err().to_string().contains("inflates to more than 6x4"));
        assert!(Area::Bitmap([0, 0], Bitmap::Deflated(vec![1, 2, 3])).check([6, 4]).is_err());
    }

    #[test]
    fn run_lengths_go_down_columns() {
        let area = from_runs(&[5, 2, 17], 6, 4).unwrap();
        assert_eq!(drawn(&[(area.clone(), 3)]), [[0; 6], [0, 3, 0, 0, 0, 0], [0, 3, 0, 0, 0, 0], [0; 6]]);
        assert!(area.check([4, 6]).unwrap_err().to_string().contains("6x4"));
        assert!(from_runs(&[5, 2], 6, 4).is_err() && from_runs(&[u64::MAX, 2], 6, 4).is_err());
        assert!(from_runs(&[0], usize::MAX, 2).is_err() && from_runs(&[1 << 32], 1 << 16, 1 << 16).is_err());
    }

    #[test]
    fn runs_are_drawn_as_pixels_one_by_one_would_be() {
        for seed in 0..200 {
            let mut rng = crate::rng::Rng::new(seed, &[]);
            let (mut runs, mut left) = (Vec::new(), 24u64);
            while left > 0 {
                let run = (rng.below(9) as u64).min(left);
                runs.push(run);
                left -= run;
            }
            let bits: Vec<u8> =
                runs.iter().enumerate().flat_map(|(turn, run)| vec![turn as u8 % 2; *run as usize]).collect();
            let expected: Vec<Vec<u8>> = (0..4).map(|y| (0..6).map(|x| bits[x * 4 + y]).collect()).collect();
            assert_eq!(drawn(&[(from_runs(&runs, 6, 4).unwrap(), 1)]), expected, "{runs:?}");
        }
    }
}
