//! Changes of what regions look like: textures, patches shuffled, colours, outlines. No label moves.

use super::cues::{Changed, CueSource, only};
use super::regions::Regions;
use super::textures::color;
use crate::augment::filters;
use crate::dataset::Sample;
use crate::image::{Image, Labels};
use crate::rng::Rng;

/// Every region with a patch of a class's texture; `None` where some class has none. `other`: that of another class.
pub(super) fn textured(source: &CueSource, other: bool, rng: &mut Rng) -> Option<Changed> {
    let CueSource { index, sample, regions, textures } = source;
    let mut image = sample.image.clone();
    let mut given = Vec::with_capacity(regions.all.len());
    let mut kept = vec![false; regions.all.len()];
    for (number, region) in regions.all.iter().enumerate() {
        let class = match other {
            true => {
                let others = textures.others(region.class, *index);
                others.get(rng.below(others.len())).copied()
            }
            false => Some(region.class),
        };
        let patch = class.and_then(|class| Some((class, textures.draw(class, *index, rng)?)));
        given.push(patch.map(|(class, _)| class).filter(|_| other));
        let Some((_, patch)) = patch else {
            kept[number] = true;
            continue;
        };
        let [dx, dy] = [(); 2].map(|()| rng.below(2 * patch.side()));
        for at in &region.pixels {
            paint(&mut image, *at, patch.at(at % sample.image.width + dx, at / sample.image.width + dy));
        }
    }
    if kept.iter().all(|kept| *kept) {
        return None;
    }
    // What could not be changed says nothing.
    let counts = |at: usize| regions.owners[at].is_some_and(|owner| !kept[owner as usize]);
    let truth = only(&sample.labels, counts);
    Some(Changed { image, reference: truth.clone(), truth, conflicts: given })
}

/// Every region in its own mean colour.
pub(super) fn flat(image: &Image, regions: &Regions) -> Image {
    let mut flat = image.clone();
    for region in &regions.all {
        let mean = mean(image, region.pixels.iter().copied());
        region.pixels.iter().for_each(|at| paint(&mut flat, *at, mean));
    }
    flat
}

/// Every region in a level of grey, as far from one another as their number allows, in random order; black where there
/// is no truth.
pub(super) fn silhouettes(image: &Image, regions: &Regions, rng: &mut Rng) -> Image {
    /// More cannot be told apart; they come again.
    const LEVELS: usize = 12;
    let mut filled = Image { pixels: vec![0; image.pixels.len()], ..*image };
    let levels = regions.all.len().clamp(2, LEVELS);
    let order = rng.permutation(levels);
    for (number, region) in regions.all.iter().enumerate() {
        let level = (order[number % levels] * 255 / (levels - 1)) as u8;
        region.pixels.iter().for_each(|at| paint(&mut filled, *at, [level; 3]));
    }
    filled
}

/// The outlines of regions, black on white.
pub(super) fn edges(image: &Image, labels: &Labels) -> Image {
    let (width, height, ids) = (labels.width, labels.height, &labels.ids);
    // A pixel in pictures of 300, and as thick in proportion in larger ones.
    let thick = (((width as f64).hypot(height as f64) / 400.0).round() as usize).max(1);
    let mut drawn = Image { pixels: vec![255; image.pixels.len()], ..*image };
    for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
        let at = y * width + x;
        let right = x + 1 < width && ids[at] != ids[at + 1];
        let below = y + 1 < height && ids[at] != ids[at + width];
        if right || below {
            for (x, y) in (y..(y + thick).min(height)).flat_map(|y| (x..(x + thick).min(width)).map(move |x| (x, y))) {
                paint(&mut drawn, y * width + x, [0; 3]);
            }
        }
    }
    drawn
}

/// The luminance in all channels.
pub(super) fn gray(image: &Image) -> Image {
    each(image, |[r, g, b]| {
        let luminance = 0.299 * f32::from(r) + 0.587 * f32::from(g) + 0.114 * f32::from(b);
        [luminance.round() as u8; 3]
    })
}

/// The channels in another order.
pub(super) fn channels(image: &Image, rng: &mut Rng) -> Image {
    let order = [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]][rng.below(5)];
    each(image, |rgb| order.map(|channel: usize| rgb[channel]))
}

/// Colours turned by `degrees` around the axis of greys.
pub(super) fn hue(image: &Image, degrees: f32) -> Image {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let (same, sine) = ((1.0 - cos) / 3.0, sin / 3f32.sqrt());
    // Rodrigues' rotation around (1, 1, 1).
    let weights = [cos + same, same - sine, same + sine];
    each(image, |rgb| {
        std::array::from_fn(|channel| {
            let sum: f32 = (0..3).map(|i| weights[i] * f32::from(rgb[(channel + i) % 3])).sum();
            sum.round().clamp(0.0, 255.0) as u8
        })
    })
}

/// Blurred by a hundredth of the diagonal, at least a pixel.
pub(super) fn blurred(image: &Image) -> Image {
    let mut blurred = image.clone();
    let diagonal = (image.width as f32).hypot(image.height as f32);
    filters::blur(&mut blurred, (diagonal / 100.0).max(1.0));
    blurred
}

/// The mean colour everywhere.
pub(super) fn blank(image: &Image) -> Image {
    let mean = mean(image, 0..image.width * image.height);
    each(image, |_| mean)
}

/// Squares of `side` pixels that lie inside of a region change places with others of it. Regions of which less than
/// half moves do not count; `None` where none does.
pub(super) fn shuffled(sample: &Sample, regions: &Regions, side: usize, rng: &mut Rng) -> Option<Changed> {
    let (width, source) = (sample.image.width, &sample.image);
    let mut image = source.clone();
    let mut moved = vec![false; regions.all.len()];
    for (number, region) in regions.all.iter().enumerate() {
        let [left, top, right, bottom] = region.bounds;
        if right - left < side || bottom - top < side {
            continue;
        }
        let inside = |x: usize, y: usize| {
            let mut pixels = (y..y + side).flat_map(|y| (x..x + side).map(move |x| y * width + x));
            pixels.all(|at| regions.owners[at] == Some(number as u32))
        };
        let columns = (left..=right - side).step_by(side);
        let cells: Vec<(usize, usize)> = (top..=bottom - side)
            .step_by(side)
            .flat_map(|y| columns.clone().map(move |x| (x, y)))
            .filter(|(x, y)| inside(*x, *y))
            .collect();
        if cells.len() < 2 || 2 * cells.len() * side * side < region.pixels.len() {
            continue;
        }
        moved[number] = true;
        // In a circle through a random order, so that no patch stays.
        let order = rng.permutation(cells.len());
        for (i, from) in order.iter().enumerate() {
            let ((fx, fy), (tx, ty)) = (cells[*from], cells[order[(i + 1) % order.len()]]);
            for row in 0..side {
                let (from, to) = (((fy + row) * width + fx) * 3, ((ty + row) * width + tx) * 3);
                image.pixels[to..to + 3 * side].copy_from_slice(&source.pixels[from..from + 3 * side]);
            }
        }
    }
    if !moved.contains(&true) {
        return None;
    }
    let truth = only(&sample.labels, |at| regions.owners[at].is_some_and(|owner| moved[owner as usize]));
    Some(Changed { image, reference: truth.clone(), truth, conflicts: Vec::new() })
}

/// The mean colour of some pixels.
pub(super) fn mean(image: &Image, pixels: impl Iterator<Item = usize>) -> [u8; 3] {
    let (mut sum, mut n) = ([0u64; 3], 0u64);
    for at in pixels {
        let color = color(image, at);
        sum.iter_mut().zip(color).for_each(|(sum, channel)| *sum += u64::from(channel));
        n += 1;
    }
    sum.map(|sum| ((sum + n / 2) / n.max(1)) as u8)
}

pub(super) fn paint(image: &mut Image, at: usize, color: [u8; 3]) {
    image.pixels[at * 3..at * 3 + 3].copy_from_slice(&color);
}

fn each(image: &Image, color: impl Fn([u8; 3]) -> [u8; 3]) -> Image {
    let pixels = image.pixels.as_chunks::<3>().0.iter().flat_map(|rgb| color(*rgb)).collect();
    Image { pixels, ..*image }
}

#[cfg(test)]
mod tests {
    use super::super::changes::change;
    use super::super::changes::tests::with;
    use super::super::cues::Cue;
    use super::*;
    use crate::image::IGNORE;

    /// The colours of each region, sorted.
    fn colors(image: &Image, regions: &Regions) -> Vec<Vec<[u8; 3]>> {
        let sorted = |pixels: &Vec<usize>| {
            let mut colors: Vec<_> = pixels.iter().map(|at| color(image, *at)).collect();
            colors.sort_unstable();
            colors
        };
        regions.all.iter().map(|region| sorted(&region.pixels)).collect()
    }

    #[test]
    fn shuffling_keeps_every_histogram() {
        with(64, |source| {
            for side in [8, 16] {
                let Some(changed) = change(Cue::Shuffle(side), source, 1) else { continue };
                assert_eq!(colors(&changed.image, source.regions), colors(&source.sample.image, source.regions));
                // What did not move does not count.
                for region in &source.regions.all {
                    let counted = region.pixels.iter().filter(|at| changed.truth.ids[**at] != IGNORE).count();
                    let moves =
                        region.pixels.iter().any(|at| color(&changed.image, *at) != color(&source.sample.image, *at));
                    assert!(counted == 0 || counted == region.pixels.len());
                    assert!(counted > 0 || !moves);
                }
            }
            assert!(change(Cue::Shuffle(64), source, 1).is_none(), "one patch cannot change places");
        });
    }

    #[test]
    fn silhouettes_and_flat_regions_have_one_colour_each() {
        with(48, |source| {
            for cue in [Cue::Silhouettes, Cue::Flat] {
                let changed = change(cue, source, 1).unwrap();
                let found = colors(&changed.image, source.regions);
                assert!(found.iter().all(|colors| colors.iter().all(|color| *color == colors[0])));
            }
            // Neighbours differ, or there would be no silhouette.
            let levels = colors(&change(Cue::Silhouettes, source, 1).unwrap().image, source.regions);
            let distinct: std::collections::BTreeSet<_> = levels.iter().map(|colors| colors[0]).collect();
            assert_eq!(distinct.len(), source.regions.all.len());
        });
    }

    #[test]
    fn textures_come_from_the_class_that_is_said() {
        with(64, |source| {
            let changed = change(Cue::TextureOther, source, 1).unwrap();
            assert_eq!(changed.conflicts.len(), source.regions.all.len());
            for (region, given) in source.regions.all.iter().zip(&changed.conflicts) {
                assert!(given.is_some_and(|given| given != region.class));
            }
            assert!(change(Cue::TextureSame, source, 1).unwrap().conflicts.iter().all(Option::is_none));
        });
    }

    #[test]
    fn colours_are_permuted() {
        let image = Image { width: 2, height: 1, pixels: vec![200, 100, 50, 90, 90, 90] };
        assert_eq!(gray(&image).pixels, [124, 124, 124, 90, 90, 90]);
        assert_eq!(hue(&image, 120.0).pixels, [50, 200, 100, 90, 90, 90]);
        let sorted = |image: &Image| {
            let mut channels = image.pixels[..3].to_vec();
            channels.sort_unstable();
            channels
        };
        let changed = channels(&image, &mut Rng::new(1, &[]));
        assert_eq!(sorted(&changed), sorted(&image));
        assert_ne!(changed, image);
        assert_eq!(blank(&image).pixels, [145, 95, 70, 145, 95, 70]);
    }

    #[test]
    fn outlines_are_where_labels_change() {
        let image = Image { width: 4, height: 2, pixels: vec![9; 24] };
        let labels = Labels { width: 4, height: 2, ids: vec![0, 0, 1, 1, 0, 0, 1, 1] };
        let drawn = edges(&image, &labels);
        let dark: Vec<bool> = (0..8).map(|at| drawn.pixels[at * 3] == 0).collect();
        assert_eq!(dark, [false, true, false, false, false, true, false, false]);
    }
}
