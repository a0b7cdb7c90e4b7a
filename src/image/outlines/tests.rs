//! Outlines of random label maps, held to what they must be.

use std::collections::{BTreeMap, BTreeSet};

use crate::image::outlines::polygons::{Pieces, pieces};
use crate::image::outlines::*;
use crate::image::{IGNORE, Labels};
use crate::rng::Rng;

type Point = [u32; 2];

fn labels(rows: &[&str]) -> Labels {
    let id = |byte: u8| if byte == b'.' { IGNORE } else { byte - b'0' };
    let ids: Vec<u8> = rows.iter().flat_map(|row| row.bytes().map(id)).collect();
    Labels { width: rows.first().map_or(0, |row| row.len()), height: rows.len(), ids }
}

/// Noise, discs over each other, or wide rings in rings.
pub(super) fn random(seed: u64) -> Labels {
    let mut rng = Rng::new(seed, &[21]);
    let (width, height) = (1 + rng.below(30), 1 + rng.below(24));
    let classes = 2 + rng.below(3);
    let class = |rng: &mut Rng| [0, 3, 254, IGNORE, 9][rng.below(classes)];
    let mut ids = vec![class(&mut rng); width * height];
    if seed.is_multiple_of(3) {
        ids.iter_mut().for_each(|id| *id = class(&mut rng));
    }
    for _ in 0..rng.below(12) {
        let [x, y] = [rng.below(width), rng.below(height)].map(|at| at as f64);
        let (radius, class) = (rng.below(60) as f64 / 4.0, class(&mut rng));
        let inner = if rng.below(2) == 0 { -1.0 } else { radius - 2.0 };
        for (at, id) in ids.iter_mut().enumerate() {
            let off = [(at % width) as f64 - x, (at / width) as f64 - y];
            let distance = match seed % 2 {
                0 => off[0].hypot(off[1]),
                _ => off[0].abs() + off[1].abs(),
            };
            if distance <= radius && distance > inner {
                *id = class;
            }
        }
    }
    Labels { width, height, ids }
}

/// Whether the centre of a pixel is within the rings, by the even-odd rule; in whole numbers, so that of two neighbours
/// one has it.
fn holds<'a>(rings: impl Iterator<Item = &'a Vec<Point>>, [x, y]: [usize; 2]) -> bool {
    let center = [2 * x as i64 + 1, 2 * y as i64 + 1];
    let mut inside = false;
    for ring in rings {
        for at in 0..ring.len() {
            let [a, b] = [ring[at], ring[(at + 1) % ring.len()]].map(|point| point.map(|side| 2 * i64::from(side)));
            // From the upper end to the lower.
            let [a, b] = if a[1] < b[1] { [a, b] } else { [b, a] };
            let right = (b[1] - a[1]) * (center[0] - a[0]) - (b[0] - a[0]) * (center[1] - a[1]);
            inside ^= (a[1]..b[1]).contains(&center[1]) && right >= 0;
        }
    }
    inside
}

/// How many polygons hold each pixel, and the class of the last one.
fn drawn(polygons: &[(u8, Vec<Vec<Point>>)], like: &Labels) -> Vec<(usize, u8)> {
    let pixel = |at: usize| {
        let place = [at % like.width, at / like.width];
        let found = polygons.iter().filter(|(_, rings)| holds(rings.iter(), place));
        found.fold((0, IGNORE), |(count, _), (class, _)| (count + 1, *class))
    };
    (0..like.ids.len()).map(pixel).collect()
}

fn rings(polygon: &Polygon) -> impl Iterator<Item = &Vec<Point>> {
    std::iter::once(&polygon.exterior).chain(&polygon.holes)
}

fn flat(polygons: &[Polygon]) -> Vec<(u8, Vec<Vec<Point>>)> {
    polygons.iter().map(|polygon| (polygon.class, rings(polygon).cloned().collect())).collect()
}

/// Twice the signed area.
fn doubled(ring: &[Point]) -> i64 {
    let edge = |at: usize| {
        let [a, b] = [ring[at], ring[(at + 1) % ring.len()]].map(|point| point.map(i64::from));
        a[0] * b[1] - b[0] * a[1]
    };
    (0..ring.len()).map(edge).sum()
}

fn cross(a: Point, b: Point, p: Point) -> i64 {
    let [a, b, p] = [a, b, p].map(|point| point.map(i64::from));
    (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])
}

fn is_on(a: Point, b: Point, p: Point) -> bool {
    let between = |axis: usize| (a[axis].min(b[axis])..=a[axis].max(b[axis])).contains(&p[axis]);
    cross(a, b, p) == 0 && between(0) && between(1)
}

/// Rings that are closed and simple; edges of all rings together that meet in their ends alone; in that every pixel is
/// in one polygon at most, so that no two polygons overlap.
fn check(polygons: &[(u8, Vec<Vec<Point>>)], like: &Labels, about: &str) {
    let mut edges = BTreeSet::new();
    for ring in polygons.iter().flat_map(|(_, rings)| rings) {
        assert!(ring.len() >= 3, "{about}: {ring:?}");
        assert_eq!(ring.iter().collect::<BTreeSet<_>>().len(), ring.len(), "{about}: a point comes twice: {ring:?}");
        for at in 0..ring.len() {
            let (a, b) = (ring[at], ring[(at + 1) % ring.len()]);
            edges.insert((a.min(b), a.max(b)));
        }
    }
    let edges: Vec<_> = edges.into_iter().collect();
    for (at, (a, b)) in edges.iter().enumerate() {
        // Ends are in order from the left.
        for (c, d) in edges[..at].iter().filter(|(c, d)| c[0].max(a[0]) <= d[0].min(b[0])) {
            for (p, ends) in [(c, [a, b]), (d, [a, b]), (a, [c, d]), (b, [c, d])] {
                assert!(ends.contains(&p) || !is_on(*ends[0], *ends[1], *p), "{about}: {p:?} is on {ends:?}");
            }
            let sides = |a: &Point, b: &Point, c: &Point, d: &Point| {
                cross(*a, *b, *c).signum() * cross(*a, *b, *d).signum() < 0
            };
            assert!(!(sides(a, b, c, d) && sides(c, d, a, b)), "{about}: {a:?} {b:?} crosses {c:?} {d:?}");
        }
    }
    for (at, (count, _)) in drawn(polygons, like).into_iter().enumerate() {
        assert!(count <= 1, "{about}: {count} polygons at {at}");
    }
}

const EXACT: OutlineOptions = OutlineOptions { tolerance: 0.0, min_area: 0 };

fn with(tolerance: f64) -> OutlineOptions {
    OutlineOptions { tolerance, ..EXACT }
}

#[test]
fn polygons_drawn_again_are_the_labels() {
    for seed in 0..200 {
        let labels = random(seed);
        for tolerance in [0.0, 0.49] {
            let polygons = polygons(&labels, with(tolerance));
            let about = format!("seed {seed}, tolerance {tolerance}");
            check(&flat(&polygons), &labels, &about);
            let found: Vec<u8> = drawn(&flat(&polygons), &labels).into_iter().map(|(_, class)| class).collect();
            assert_eq!(found, labels.ids, "{about}: {labels:?}");
            for polygon in &polygons {
                assert!(doubled(&polygon.exterior) > 0 && polygon.holes.iter().all(|hole| doubled(hole) < 0));
                let area: i64 = rings(polygon).map(|ring| doubled(ring)).sum();
                assert!(tolerance > 0.0 || area as u64 == 2 * polygon.area);
            }
            let mut areas = BTreeMap::<u8, (u64, u64)>::new();
            for polygon in &polygons {
                let (regions, pixels) = areas.entry(polygon.class).or_default();
                (*regions, *pixels) = (*regions + 1, *pixels + polygon.area);
            }
            let classes = statistics(&labels, &[]).classes;
            assert_eq!(areas, classes.iter().map(|class| (class.id, (class.regions, class.pixels))).collect());
        }
    }
}

/// How far the centre of a pixel is from the nearest pixel of another label.
fn distance(labels: &Labels, at: usize) -> f64 {
    let [x, y] = [at % labels.width, at / labels.width].map(|side| side as f64 + 0.5);
    let mut nearest = [x, y, labels.width as f64 - x, labels.height as f64 - y].into_iter().fold(f64::MAX, f64::min);
    for (other, id) in labels.ids.iter().enumerate() {
        if *id != labels.ids[at] {
            let [left, top] = [other % labels.width, other / labels.width].map(|side| side as f64);
            let off = |at: f64, low: f64| (low - at).max(at - low - 1.0).max(0.0);
            nearest = nearest.min(off(x, left).hypot(off(y, top)));
        }
    }
    nearest
}

#[test]
fn simplified_polygons_change_pixels_near_the_border_alone() {
    let (mut corners, mut changed) = ([0, 0], 0);
    for seed in 0..280 {
        let labels = random(seed);
        let tolerance = [0.5, 0.75, 1.0, 1.5, 2.5, 6.0, 100.0][seed as usize % 7];
        let exact = polygons(&labels, EXACT);
        let simplified = polygons(&labels, with(tolerance));
        let about = format!("seed {seed}, tolerance {tolerance}");
        check(&flat(&simplified), &labels, &about);
        assert_eq!(exact.len(), simplified.len());
        for (a, b) in exact.iter().zip(&simplified) {
            assert_eq!((a.class, a.area, a.holes.len()), (b.class, b.area, b.holes.len()), "{about}");
            assert!(doubled(&b.exterior) > 0 && b.holes.iter().all(|hole| doubled(hole) < 0), "{about}");
        }
        for (count, polygons) in corners.iter_mut().zip([&exact, &simplified]) {
            *count += polygons.iter().flat_map(rings).map(Vec::len).sum::<usize>();
        }
        for (at, (_, class)) in drawn(&flat(&simplified), &labels).into_iter().enumerate() {
            if class != labels.ids[at] {
                changed += 1;
                let off = distance(&labels, at);
                assert!(off <= tolerance, "{about}: pixel {at} is {off} from the border: {labels:?}");
            }
        }
    }
    assert!(corners[1] * 3 < corners[0] * 2 && changed > 500, "something is simplified: {corners:?}, {changed}");
}

#[test]
fn pieces_have_no_holes_and_are_the_regions() {
    let mut cut = 0;
    for seed in 0..210 {
        let labels = random(seed);
        let tolerance = [0.0, 1.0, 3.0][seed as usize % 3];
        let about = format!("seed {seed}, tolerance {tolerance}");
        let (whole, pieces) = (polygons(&labels, with(tolerance)), pieces(&labels, with(tolerance)));
        let flat: Vec<_> =
            pieces.iter().flat_map(|piece| piece.rings.iter().map(|ring| (piece.class, vec![ring.clone()]))).collect();
        check(&flat, &labels, &about);
        assert!(flat.iter().all(|(_, rings)| doubled(&rings[0]) > 0), "{about}");
        let summary = |pieces: &[Pieces]| pieces.iter().map(|piece| (piece.class, piece.area)).collect::<Vec<_>>();
        let expected: Vec<(u8, u64)> = whole.iter().map(|polygon| (polygon.class, polygon.area)).collect();
        assert_eq!(summary(&pieces), expected, "{about}");
        for (piece, polygon) in pieces.iter().zip(&whole) {
            assert_eq!(piece.rings.len() > 1, !polygon.holes.is_empty(), "{about}");
            cut += usize::from(piece.rings.len() > 1);
        }
        if tolerance == 0.0 {
            let found: Vec<u8> = drawn(&flat, &labels).into_iter().map(|(_, class)| class).collect();
            assert_eq!(found, labels.ids, "{about}");
        }
    }
    assert!(cut > 50, "{cut}");
}

#[test]
fn pixels_that_touch_at_corners_are_apart() {
    let found = polygons(&labels(&["10", "01"]), EXACT);
    let square = |x: u32, y: u32| vec![[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1]];
    let mut exteriors: Vec<_> = found.iter().map(|polygon| polygon.exterior.clone()).collect();
    // From whichever corner.
    exteriors.iter_mut().for_each(|ring| {
        let first = (0..4).min_by_key(|at| (ring[*at][1], ring[*at][0])).unwrap();
        ring.rotate_left(first);
    });
    assert_eq!(exteriors, [square(1, 0), square(0, 1), square(0, 0), square(1, 1)]);
    // A hole that touches the outer border, and two holes that touch each other.
    let found = polygons(&labels(&["1111.", "1.11.", "11.11", "11111"]), EXACT);
    assert_eq!((found.len(), found[0].holes.len(), found[0].area), (1, 2, 16));
    let found = polygons(&labels(&["111.", "1.1.", "11..", ".1.."]), EXACT);
    assert_eq!((found.len(), found[0].holes.len(), found[0].exterior.len()), (1, 1, 8));
}

#[test]
fn the_least_and_the_most_have_outlines() {
    for (rows, count) in [(&[][..], 0), (&["."], 0), (&["...", "..."], 0), (&["5"], 1), (&["55", "55"], 1)] {
        let labels = labels(rows);
        for tolerance in [0.0, 1.0, 50.0] {
            let found = polygons(&labels, with(tolerance));
            assert_eq!(found.len(), count, "{rows:?}");
            assert!(found.iter().all(|polygon| polygon.exterior.len() == 4 && polygon.holes.is_empty()));
        }
        assert_eq!(statistics(&labels, &[]).classes.len(), count);
        assert_eq!(coco_annotations(&labels, 1, 1, CocoForm::Rle, EXACT).len(), count);
    }
    // A label map without a row or a column.
    let empty = Labels { width: 0, height: 5, ids: Vec::new() };
    assert!(polygons(&empty, EXACT).is_empty() && coco_counts(&empty, 1) == [0]);
    assert_eq!(statistics(&empty, &[]).classes, []);
    // All classes there are.
    let all = Labels { width: 16, height: 16, ids: (0..=255).collect() };
    let found = polygons(&all, OutlineOptions::default());
    assert_eq!(found.iter().map(|polygon| polygon.class).collect::<Vec<_>>(), (0..255).collect::<Vec<_>>());
}

#[test]
fn what_is_small_is_dropped_or_filled() {
    let before = ["1111111", "1211331", "1111341", "1111331", "1111111", "5566666"];
    for (least, after) in [
        (0, before),
        (1, before),
        (2, ["1111111", "1111331", "11113.1", "1111331", "1111111", "5566666"]),
        (3, ["1111111", "1111331", "11113.1", "1111331", "1111111", "..66666"]),
        (7, ["1111111", "1111111", "1111111", "1111111", "1111111", "......."]),
    ] {
        assert_eq!(*without_small(&labels(&before), least), labels(&after), "{least}");
    }
    // A region that is dropped itself, with what is in its hole.
    assert_eq!(*without_small(&labels(&["222", "232", "222"]), 9), labels(&["...", "...", "..."]));
    for seed in 0..300 {
        let labels = random(seed);
        let least = [2, 3, 10, 40][seed as usize % 4];
        let after = without_small(&labels, least);
        let found = polygons(&after, EXACT);
        let holes = found.iter().flat_map(|polygon| &polygon.holes);
        assert!(found.iter().all(|polygon| polygon.area >= least), "seed {seed}");
        assert!(holes.map(|hole| doubled(hole).unsigned_abs() / 2).all(|area| area >= least), "seed {seed}");
        assert_eq!(found, polygons(&labels, OutlineOptions { min_area: least, ..EXACT }));
        assert_eq!(*without_small(&after, least), *after, "seed {seed}");
        for polygon in polygons(&labels, EXACT).iter().filter(|polygon| polygon.area >= least) {
            let kept = found.iter().any(|one| one.class == polygon.class && one.area >= polygon.area);
            let hole = |ring: &Vec<Point>| (doubled(ring).unsigned_abs() / 2) < least;
            assert!(kept || !polygon.holes.iter().any(hole), "seed {seed}");
        }
    }
}

/// Of a mask the run lengths by the rule alone.
fn runs(labels: &Labels, class: u8) -> Vec<u64> {
    let (width, height) = (labels.width, labels.height);
    let mut counts = vec![0];
    let mut inside = false;
    for at in 0..width * height {
        let now = labels.ids[at % height * width + at / height] == class;
        if now != inside {
            counts.push(0);
            inside = now;
        }
        *counts.last_mut().unwrap() += 1;
    }
    counts
}

#[test]
fn run_lengths_come_back_as_they_were() {
    for seed in 0..400 {
        let labels = match seed % 5 {
            4 => {
                let mut rng = Rng::new(seed, &[5]);
                let (width, height) = (60 + rng.below(80), 1 + rng.below(4));
                let ids = (0..width * height).map(|_| rng.below(3) as u8).collect();
                Labels { width, height, ids }
            }
            _ => random(seed),
        };
        for class in [0, 1, 3, 254] {
            let counts = coco_counts(&labels, class);
            assert_eq!(counts, runs(&labels, class), "seed {seed}");
            let rle = CocoRle::of(&labels, class);
            assert_eq!(rle.size, [labels.height, labels.width]);
            assert_eq!(decompress(&rle.counts).unwrap(), counts, "seed {seed}");
            let is_of_class = |(one, id): (&u8, &u8)| (*one == 1) == (*id == class);
            assert!(rle.decode().unwrap().iter().zip(&labels.ids).all(is_of_class), "seed {seed}");
            let covered = decode_label_studio(&label_studio_rle(&labels, class), labels.width, labels.height).unwrap();
            assert!(covered.iter().zip(&labels.ids).all(|(value, id)| *value == 255 * u8::from(*id == class)));
        }
    }
    // Runs longer than the largest of their fields.
    let mut wide = Labels { width: 70_000, height: 2, ids: vec![4; 140_000] };
    wide.ids[69_999] = 5;
    for class in [4, 5, 6] {
        let covered = decode_label_studio(&label_studio_rle(&wide, class), wide.width, wide.height).unwrap();
        assert!(covered.iter().zip(&wide.ids).all(|(value, id)| (*value == 255) == (*id == class)));
        assert_eq!(decompress(&CocoRle::of(&wide, class).counts).unwrap(), runs(&wide, class));
    }
}

#[test]
fn options_that_are_no_lengths_are_refused() {
    for tolerance in [-0.1, f64::NAN, f64::INFINITY] {
        let error = with(tolerance).check().unwrap_err();
        assert!(error.to_string().contains("tolerance") && error.hint().is_some());
    }
    with(0.0).check().unwrap();
    let labels = random(5);
    assert_eq!(polygons(&labels, with(f64::NAN)), polygons(&labels, EXACT));
}
