//! Changes of where things are and what is around them; labels move along.

use std::f32::consts::TAU;

use super::cues::{Changed, Cue, only};
use super::regions::{Region, Regions};
use super::surface::{mean, paint};
use super::textures::color;
use crate::dataset::Sample;
use crate::image::{Image, Labels};
use crate::metrics::boundary::{BAND, band_width};
use crate::rng::Rng;

/// What covers parts.
const COVER: [u8; 3] = [128; 3];

/// All but one region replaced by the picture's mean colour or by noise; only the region counts.
pub(super) fn alone(sample: &Sample, regions: &Regions, noise: bool, rng: &mut Rng) -> Option<Changed> {
    let number = regions.pick(rng, |region| regions.is_movable(region))?;
    let mut image = sample.image.clone();
    let mean = mean(&sample.image, 0..sample.labels.ids.len());
    let owned = |at: usize| regions.owners[at] == Some(number as u32);
    for at in (0..sample.labels.ids.len()).filter(|at| !owned(*at)) {
        paint(&mut image, at, if noise { [(); 3].map(|()| rng.below(256) as u8) } else { mean });
    }
    Some(Changed::in_place(image, &only(&sample.labels, owned)))
}

/// A rectangle of a third of the bounding box of every object covered; what lies below does not count.
pub(super) fn occluded(sample: &Sample, regions: &Regions, rng: &mut Rng) -> Option<Changed> {
    let mut image = sample.image.clone();
    let mut covered = vec![false; sample.labels.ids.len()];
    for region in regions.all.iter().filter(|region| regions.is_movable(region)) {
        let [left, top, right, bottom] = region.bounds;
        let third = |side: usize| ((side as f32 * 3f32.sqrt().recip()).round() as usize).max(1);
        let (width, height) = (third(right - left), third(bottom - top));
        let (x, y) = (left + rng.below(right - left - width + 1), top + rng.below(bottom - top - height + 1));
        for at in
            (y..y + height).flat_map(|y| (x..x + width).map(move |x| (x, y))).map(|(x, y)| y * sample.labels.width + x)
        {
            paint(&mut image, at, COVER);
            covered[at] = true;
        }
    }
    covered.contains(&true).then(|| Changed::in_place(image, &only(&sample.labels, |at| !covered[at])))
}

/// One object larger, smaller, turned or elsewhere. What it leaves is filled with the nearest pixels around it. Only
/// the object counts, with as much around it as contours are judged by.
pub(super) fn moved(cue: Cue, sample: &Sample, regions: &Regions, rng: &mut Rng) -> Option<Changed> {
    let number = regions.pick(rng, |region| regions.is_movable(region))?;
    let region = &regions.all[number];
    let (width, height) = (sample.labels.width, sample.labels.height);
    let [left, top, right, bottom] = region.bounds.map(|side| side as f32);
    let center = [(left + right - 1.0) / 2.0, (top + bottom - 1.0) / 2.0];
    // Where each pixel of the new object comes from: turned and scaled about the centre, after the shift is undone.
    let (mut shift, mut scale, mut angle) = ([0.0, 0.0], 1.0, 0.0f32);
    match cue {
        Cue::Scaled => scale = if rng.chance(0.5) { rng.range(0.5, 0.75) } else { rng.range(1.33, 2.0) },
        Cue::Rotated => angle = rng.range(TAU / 8.0, TAU * 7.0 / 8.0),
        _ => shift = elsewhere(region, (width, height), rng)?,
    }
    let (sin, cos) = angle.sin_cos();
    let source_pixel = |x: usize, y: usize| {
        let [dx, dy] = [x as f32 - shift[0] - center[0], y as f32 - shift[1] - center[1]];
        let (x, y) = ((cos * dx + sin * dy) / scale + center[0], (cos * dy - sin * dx) / scale + center[1]);
        let (x, y) = (x.round(), y.round());
        let inside = x >= 0.0 && y >= 0.0 && x < width as f32 && y < height as f32;
        inside.then(|| y as usize * width + x as usize).filter(|at| regions.owners[*at] == Some(number as u32))
    };
    let nearest = nearest_outside(region, (width, height))?;
    let (mut image, mut labels) = (sample.image.clone(), sample.labels.clone());
    for (at, from) in region.pixels.iter().zip(&nearest) {
        paint(&mut image, *at, color(&sample.image, *from));
        labels.ids[*at] = sample.labels.ids[*from];
    }
    let mut there = vec![false; labels.ids.len()];
    for at in 0..labels.ids.len() {
        if let Some(from) = source_pixel(at % width, at / width) {
            paint(&mut image, at, color(&sample.image, from));
            labels.ids[at] = region.class;
            there[at] = true;
        }
    }
    if !there.contains(&true) {
        return None;
    }
    let margin = 2 * band_width((width, height), BAND);
    let mut here = vec![false; labels.ids.len()];
    region.pixels.iter().for_each(|at| here[*at] = true);
    let (here, there) = (widened(&here, (width, height), margin), widened(&there, (width, height), margin));
    let (truth, reference) = (only(&labels, |at| there[at]), only(&sample.labels, |at| here[at]));
    Some(Changed { image, truth, reference, conflicts: Vec::new() })
}

/// A shift that keeps a region inside of the image, by a quarter of what there is room for at least; `None` without
/// room.
fn elsewhere(region: &Region, (width, height): (usize, usize), rng: &mut Rng) -> Option<[f32; 2]> {
    let [left, top, right, bottom] = region.bounds.map(|side| side as i64);
    let range = [(-left, width as i64 - right), (-top, height as i64 - bottom)];
    let far = range.iter().map(|(low, high)| high - low).max()? / 4;
    if far == 0 {
        return None;
    }
    let draw = |rng: &mut Rng| range.map(|(low, high)| low + rng.below((high - low + 1) as usize) as i64);
    let found = (0..50).map(|_| draw(rng)).find(|shift| shift.iter().any(|side| side.abs() >= far));
    found.map(|shift| shift.map(|side| side as f32))
}

/// The nearest pixel outside of a region for each of its own, by steps to the sides; `None` where there is no outside.
fn nearest_outside(region: &Region, (width, height): (usize, usize)) -> Option<Vec<usize>> {
    let mut from = vec![None; width * height];
    region.pixels.iter().for_each(|at| from[*at] = Some(usize::MAX));
    let near = |at: usize| {
        let (x, y) = (at % width, at / width);
        [
            (x > 0).then(|| at - 1),
            (x + 1 < width).then(|| at + 1),
            (y > 0).then(|| at - width),
            (y + 1 < height).then(|| at + width),
        ]
    };
    let mut reached: Vec<(usize, usize)> = Vec::new();
    for at in &region.pixels {
        let outside = near(*at).into_iter().flatten().find(|near| from[*near].is_none());
        reached.extend(outside.map(|outside| (*at, outside)));
    }
    let mut next = 0;
    reached.iter().for_each(|(at, source)| from[*at] = Some(*source));
    while let Some(&(at, source)) = reached.get(next) {
        next += 1;
        for near in near(at).into_iter().flatten() {
            if from[near] == Some(usize::MAX) {
                from[near] = Some(source);
                reached.push((near, source));
            }
        }
    }
    region.pixels.iter().map(|at| from[*at].filter(|source| *source != usize::MAX)).collect()
}

/// A mask with everything within `margin` pixels, along sides and diagonals.
fn widened(mask: &[bool], (width, height): (usize, usize), margin: usize) -> Vec<bool> {
    let along = |mask: &[bool], length: usize, place: &dyn Fn(usize, usize) -> usize, lines: usize| {
        let mut wide = vec![false; mask.len()];
        for line in 0..lines {
            let set: Vec<usize> = (0..length).filter(|at| mask[place(line, *at)]).collect();
            for at in set {
                (at.saturating_sub(margin)..(at + margin + 1).min(length)).for_each(|at| wide[place(line, at)] = true);
            }
        }
        wide
    };
    let rows = along(mask, width, &|line, at| line * width + at, height);
    along(&rows, height, &|line, at| at * width + line, width)
}

/// The picture moved around by a quarter to three quarters of each side, with its truth.
pub(super) fn rolled(sample: &Sample, rng: &mut Rng) -> Changed {
    let (width, height) = (sample.labels.width, sample.labels.height);
    let by = [width, height].map(|side| side / 4 + rng.below(side / 2 + 1));
    let from = |at: usize| {
        let (x, y) = ((at % width + width - by[0] % width) % width, (at / width + height - by[1] % height) % height);
        y * width + x
    };
    let all = 0..width * height;
    let image = Image { pixels: all.clone().flat_map(|at| color(&sample.image, from(at))).collect(), ..sample.image };
    let truth = Labels { ids: all.map(|at| sample.labels.ids[from(at)]).collect(), ..sample.labels };
    Changed { image, truth, reference: sample.labels.clone(), conflicts: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::super::changes::change;
    use super::super::changes::tests::with;
    use super::*;
    use crate::image::IGNORE;

    /// How many pixels count.
    fn counted(labels: &Labels) -> usize {
        labels.ids.iter().filter(|id| **id != IGNORE).count()
    }

    /// A picture in which colour is the label, so that a label map that moved along can be read off the picture.
    fn painted() -> Sample {
        let (width, height) = (40, 30);
        let inside = |at: usize| (6..16).contains(&(at % width)) && (8..20).contains(&(at / width));
        let ids: Vec<u8> = (0..width * height).map(|at| u8::from(inside(at))).collect();
        let pixels = ids.iter().flat_map(|id| [*id * 100; 3]).collect();
        Sample { image: Image { width, height, pixels }, labels: Labels { width, height, ids } }
    }

    #[test]
    fn labels_move_along() {
        let sample = painted();
        let regions = Regions::of(&sample.labels);
        for cue in [Cue::Scaled, Cue::Rotated, Cue::Shifted] {
            let mut sizes = Vec::new();
            for seed in 0..20 {
                let changed = moved(cue, &sample, &regions, &mut Rng::new(seed, &[])).unwrap();
                for (at, id) in changed.truth.ids.iter().enumerate().filter(|(_, id)| **id != IGNORE) {
                    assert_eq!(color(&changed.image, at)[0], id * 100, "{cue:?}");
                }
                // The hole is filled: the picture holds one object, and it is all counted.
                let object = changed.image.pixels.iter().step_by(3).filter(|v| **v == 100).count();
                assert_eq!(object, changed.truth.ids.iter().filter(|id| **id == 1).count(), "{cue:?}");
                assert_eq!(changed.reference.ids.iter().filter(|id| **id == 1).count(), 120);
                assert!(counted(&changed.reference) > 120, "contours need their other side");
                sizes.push(object);
            }
            match cue {
                Cue::Shifted => assert!(sizes.iter().all(|size| *size == 120), "{sizes:?}"),
                Cue::Rotated => assert!(sizes.iter().all(|size| (105..136).contains(size)), "{sizes:?}"),
                _ => assert!(sizes.iter().any(|size| *size < 75) && sizes.iter().any(|size| *size > 190), "{sizes:?}"),
            }
        }
        let rolled = rolled(&sample, &mut Rng::new(1, &[]));
        assert!((0..1200).all(|at| color(&rolled.image, at)[0] == rolled.truth.ids[at] * 100));
        assert_ne!(rolled.truth, sample.labels);
        assert_eq!(rolled.reference, sample.labels);
    }

    #[test]
    fn holes_take_the_nearest_pixels() {
        let ids = vec![0, 1, 1, 2, 0, 1, 1, 2];
        let regions = Regions::of(&Labels { width: 4, height: 2, ids });
        assert_eq!(nearest_outside(&regions.all[1], (4, 2)), Some(vec![0, 3, 4, 7]));
        let all = Regions::of(&Labels { width: 2, height: 1, ids: vec![1, 1] });
        assert_eq!(nearest_outside(&all.all[0], (2, 1)), None);
    }

    #[test]
    fn what_is_covered_or_around_does_not_count() {
        with(64, |source| {
            let image = &source.sample.image;
            if let Some(changed) = change(Cue::Occluded, source, 1) {
                for at in 0..64 * 64 {
                    let covered = changed.truth.ids[at] == IGNORE;
                    assert_eq!(color(&changed.image, at), if covered { COVER } else { color(image, at) });
                }
            }
            let both = [Cue::ContextMean, Cue::ContextNoise].map(|cue| change(cue, source, 1));
            let [Some(mean), Some(noise)] = both else { return };
            assert_eq!(mean.truth, noise.truth, "one region for both");
            for at in 0..64 * 64 {
                let kept = color(&mean.image, at) == color(image, at);
                assert!(kept || mean.truth.ids[at] == IGNORE);
            }
            let outside = (0..64 * 64).find(|at| mean.truth.ids[*at] == IGNORE).unwrap();
            assert_eq!(color(&mean.image, outside), super::super::surface::mean(image, 0..64 * 64));
        });
    }
}
