use super::*;
use crate::image::raster::from_runs;

fn polygon(points: &[[f64; 2]]) -> Area {
    Area::Polygons(vec![points.to_vec()])
}

/// 100 000 corners and 20 000 objects: more than products of sizes would allow in the time of a test.
#[test]
fn many_corners_and_many_objects_take_little() {
    let mut canvas = Canvas::new([2000, 2000], 0);
    let comb: Vec<[f64; 2]> = (0..100_000).map(|i| [f64::from(i) / 50.0, f64::from(i % 2) * 3.0]).collect();

    let area = from_runs(&[1_999_000, 7, 4_000_000 - 1_999_007], 2000, 2000).unwrap();
    (0..20_000).for_each(|_| canvas.draw(&area, 2).unwrap());
    canvas.draw(&polygon(&comb), 1).unwrap();
    let ids = canvas.labels().ids;
    assert!(std::mem::size_of_val(&area) < 100 && ids.contains(&2) && ids.contains(&1));
}

/// Objects times pixels would be 64 000 000 000. The frame stays free, so that no row is ever done.
#[test]
fn many_large_objects_take_little_more_than_one() {
    let (side, many) = (4000.0, 4000);
    let mut canvas = Canvas::new([4000, 4000], 5);
    let square = polygon(&[[1.0, 1.0], [side - 1.0, 1.0], [side - 1.0, side - 1.0], [1.0, side - 1.0]]);
    let disc = Area::Disc([side / 2.0; 2], side / 2.0 - 1.0);
    // Nearly whole columns, each a run.
    let runs: Vec<u64> = [1].into_iter().chain((0..3999).flat_map(|_| [3998, 2])).chain([3998, 1]).collect();
    let runs = from_runs(&runs, 4000, 4000).unwrap();
    canvas.draw(&square, 1).unwrap();
    (0..many).for_each(|_| canvas.draw(&square, 2).unwrap());
    (0..many / 10).for_each(|_| canvas.draw(&disc, 3).unwrap());
    (0..many / 10).for_each(|_| canvas.draw(&runs, 4).unwrap());
    let ids = canvas.labels().ids;
    let count = |class: u8| ids.iter().filter(|id| **id == class).count();
    assert_eq!([1, 2, 3, 4, 5].map(count), [3998 * 3998, 0, 0, 2 * 3998, 2 * 4000]);
}

#[test]
fn drawing_from_the_top_is_drawing_over_what_is_below() {
    let mut rng = crate::rng::Rng::new(7, &[]);
    let (width, height) = (150, 9);
    for _ in 0..100 {
        let mut areas = Vec::new();
        for class in 1..8u8 {
            let mut near = |most: usize| rng.below(10 * most) as f64 / 10.0;
            let ring = (0..6).map(|_| [near(width), near(height)]).collect();
            areas.push((Area::Polygons(vec![ring]), class));
            areas.push((Area::Ellipse([near(width), near(height)], [near(40), near(4)]), class + 8));
        }
        let mut below = vec![0; width * height];
        for (area, class) in &areas {
            let mut alone = Canvas::new([width, height], 0);
            alone.draw(area, 1).unwrap();
            let alone = alone.labels().ids;
            below.iter_mut().zip(alone).filter(|(_, inside)| *inside == 1).for_each(|(id, _)| *id = *class);
        }
        let mut canvas = Canvas::new([width, height], 0);
        areas.iter().rev().for_each(|(area, class)| canvas.draw(area, *class).unwrap());
        assert_eq!(canvas.labels().ids, below);
    }
}

/// Whether an area covers a pixel, by the rules alone: of outlines the centre counts, by the edges to its left.
fn covers(area: &Area, pictures: &[Vec<Vec<u8>>], [x, y]: [usize; 2]) -> bool {
    let center = [x as f64 + 0.5, y as f64 + 0.5];
    let inside = |ring: &Vec<[f64; 2]>| {
        let left = (0..ring.len()).filter(|at| {
            let (a, b) = (ring[*at], ring[(at + 1) % ring.len()]);
            let crossed = (a[1] <= center[1]) != (b[1] <= center[1]);
            crossed && a[0] + (center[1] - a[1]) / (b[1] - a[1]) * (b[0] - a[0]) <= center[0]
        });
        left.count() % 2 == 1
    };
    let within = |at: &[f64; 2], axes: [f64; 2]| {
        (0..2).map(|side| ((center[side] - at[side]) / axes[side]).powi(2)).sum::<f64>() <= 1.0
    };
    match area {
        Area::Polygons(rings) => rings.iter().any(inside),
        Area::Disc(at, radius) => within(at, [*radius; 2]),
        Area::Ellipse(at, axes) => within(at, *axes),
        Area::Runs { height, runs, .. } => {
            let mut bits = runs.iter().enumerate().flat_map(|(turn, run)| vec![turn % 2; *run as usize]);
            bits.nth(x * height + y) == Some(1)
        }
        Area::Bitmap(at, Bitmap::Bytes(number) | Bitmap::Deflated(number)) => {
            let (column, row) = (x as i64 - at[0], y as i64 - at[1]);
            let row = usize::try_from(row).ok().and_then(|row| pictures[usize::from(number[0])].get(row));
            let value = row.and_then(|row| row.get(usize::try_from(column).ok()?));
            value.is_some_and(|value| *value > 0)
        }
        Area::Bitmap(_, Bitmap::File(_)) | Area::Ids(..) | Area::Segments(..) => unreachable!("none was made"),
    }
}

/// Areas of all kinds, on pictures of all widths, beside what is found for each pixel by asking them one by one.
#[test]
fn areas_of_all_kinds_are_drawn_as_pixels_one_by_one_would_be() {
    use std::io::Write;
    let png = |rows: &[Vec<u8>]| {
        let (width, height) = (rows[0].len() as u32, rows.len() as u32);
        let mut bytes = Vec::new();
        let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
        let picture = image::GrayImage::from_raw(width, height, rows.concat()).unwrap();
        picture.write_with_encoder(encoder).unwrap();
        bytes
    };
    for seed in 0..250 {
        let mut rng = crate::rng::Rng::new(seed, &[11]);
        // The last: more words in a row than one word has bits.
        let (width, height) = match seed % 5 {
            0 => (1 + rng.below(9), 1 + rng.below(140)),
            1 => (63 + rng.below(4), 62 + rng.below(4)),
            4 if seed % 25 == 4 => (64 * 64 + rng.below(70), 1 + rng.below(3)),
            _ => (1 + rng.below(150), 1 + rng.below(20)),
        };
        let mut pictures = Vec::new();
        // As it is asked, and as it is drawn: there bitmaps are bytes, here their number.
        let (mut asked, mut drawn) = (Vec::new(), Vec::new());
        for class in 1..2 + rng.below(30) as u8 {
            // Quarters, so that corners and edges meet centres.
            let mut near = |most: usize| rng.below(4 * most + 17) as f64 / 4.0 - 2.0;
            let mut both = |area: Area| {
                asked.push((area.clone(), class));
                drawn.push((area, class));
            };
            match near(7) as i64 {
                ..=1 => {
                    let rings = 1 + near(2).max(0.0) as usize;
                    let mut ring = || (0..near(9) as i64).map(|_| [near(width), near(height)]).collect();
                    both(Area::Polygons((0..rings).map(|_| ring()).collect()));
                }
                // Off all centres, so that no rounding decides.
                2 => both(Area::Disc([near(width) + 0.013, near(height) + 0.007], near(width).abs() + 0.031)),
                3 => both(Area::Ellipse(
                    [near(width) + 0.013, near(height) + 0.007],
                    [near(width).abs() + 0.1, near(height).abs() + 0.1],
                )),
                4 => {
                    let mut runs = vec![near(height).max(0.0) as u64];
                    let mut left = (width * height) as u64;
                    runs[0] = runs[0].min(left);
                    left -= runs[0];
                    while left > 0 {
                        runs.push((near(2 * height).max(0.0) as u64).min(left));
                        left -= runs[runs.len() - 1];
                    }
                    both(from_runs(&runs, width, height).unwrap());
                }
                kind => {
                    let size = [near(width).max(1.0) as usize, near(height).max(1.0) as usize];
                    let at = [near(width) as i64 - 3, near(height) as i64 - 3];
                    let picture: Vec<Vec<u8>> =
                        (0..size[1]).map(|_| (0..size[0]).map(|_| (near(1) > 0.0).into()).collect()).collect();
                    let bytes = png(&picture);
                    let number = vec![pictures.len() as u8];
                    pictures.push(picture);
                    let fits = size[0] <= width && size[1] <= height;
                    let bitmap = if kind % 2 == 0 && fits {
                        let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
                        packed.write_all(&bytes).unwrap();
                        Bitmap::Deflated(packed.finish().unwrap())
                    } else {
                        Bitmap::Bytes(bytes)
                    };
                    asked.push((Area::Bitmap(at, Bitmap::Bytes(number)), class));
                    drawn.push((Area::Bitmap(at, bitmap), class));
                }
            }
        }
        let mut canvas = Canvas::new([width, height], 77);
        drawn.iter().rev().for_each(|(area, class)| canvas.draw(area, *class).unwrap());
        for (at, id) in canvas.labels().ids.into_iter().enumerate() {
            let pixel = [at % width, at / width];
            let top = asked.iter().rev().find(|(area, _)| covers(area, &pictures, pixel));
            assert_eq!(id, top.map_or(77, |(_, class)| *class), "{seed}: {width}x{height}, {pixel:?}: {asked:?}");
        }
    }
}
