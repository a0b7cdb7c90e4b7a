//! Where to cut the training crop, and cutting, flipping and padding.

use crate::dataset::Sample;
use crate::image::resize::{Window, resize_labels};
use crate::image::{IGNORE, Image, Labels};

/// Redraws before a crop is taken as it is.
const REDRAWS: usize = 10;

/// The crop of at most `crop` (height, width) pixels of a picture that is being resized to `size` (width, height).
///
/// A crop of which one class takes `max_ratio` or more (ignored pixels aside) is drawn again, ten times at most; the
/// eleventh draw is taken unseen (mmseg's `RandomCrop`). With `max_ratio` of 1 or more the first is taken. `below(n)`
/// draws from 0..n: first the row, then the column.
pub(crate) fn choose_window(
    labels: &Labels,
    size: (usize, usize),
    [height, width]: [usize; 2],
    max_ratio: f64,
    mut below: impl FnMut(usize) -> usize,
) -> Window {
    let (width, height) = (width.min(size.0), height.min(size.1));
    let mut draw = || {
        let y = below(size.1 - height + 1);
        let x = below(size.0 - width + 1);
        Window { x, y, width, height }
    };
    let mut window = draw();
    if max_ratio < 1.0 {
        for _ in 0..REDRAWS {
            if is_varied(&resize_labels(labels, size, window), max_ratio) {
                break;
            }
            window = draw();
        }
    }
    window
}

/// The crop of at most `crop` (height, width) pixels of a picture that is being resized to `size` (width, height),
/// around a pixel of `class`; none where there is no such pixel.
///
/// `below(n)` draws from 0..n: first the pixel, then how far down and how far across it lies in the crop.
pub(crate) fn window_around(
    labels: &Labels,
    size: (usize, usize),
    [height, width]: [usize; 2],
    class: u8,
    mut below: impl FnMut(usize) -> usize,
) -> Option<Window> {
    let (width, height) = (width.min(size.0), height.min(size.1));
    let places = || labels.ids.iter().enumerate().filter(|(_, id)| **id == class);
    let count = places().count();
    let (at, _) = if count > 0 { places().nth(below(count))? } else { return None };
    let mut start = |at: usize, from: usize, to: usize, side: usize| {
        let at = (2 * at + 1) * to / (2 * from);
        let (first, last) = ((at + 1).saturating_sub(side), at.min(to - side));
        first + below(last - first + 1)
    };
    let y = start(at / labels.width, labels.height, size.1, height);
    let x = start(at % labels.width, labels.width, size.0, width);
    Some(Window { x, y, width, height })
}

fn is_varied(labels: &Labels, max_ratio: f64) -> bool {
    let mut counts = [0u64; 256];
    labels.ids.iter().for_each(|id| counts[usize::from(*id)] += 1);
    counts[usize::from(IGNORE)] = 0;
    let (sum, most) = (counts.iter().sum::<u64>(), counts.iter().max().copied().unwrap_or(0));
    counts.iter().filter(|count| **count > 0).count() > 1 && (most as f64 / sum as f64) < max_ratio
}

/// Mirrors a sample left to right.
pub fn flip(sample: &mut Sample) {
    mirror(&mut sample.image);
    sample.labels.ids.chunks_exact_mut(sample.labels.width.max(1)).for_each(<[u8]>::reverse);
}

/// Mirrors a sample top to bottom.
pub(crate) fn flip_vertically(sample: &mut Sample) {
    let Sample { image, labels } = sample;
    image.pixels = image.pixels.chunks_exact(image.width.max(1) * 3).rev().flatten().copied().collect();
    labels.ids = labels.ids.chunks_exact(labels.width.max(1)).rev().flatten().copied().collect();
}

/// Mirrors an image left to right.
pub(crate) fn mirror(image: &mut Image) {
    for row in image.pixels.chunks_exact_mut(image.width.max(1) * 3) {
        row.as_chunks_mut::<3>().0.reverse();
    }
}

/// Extends a sample to the right and below to `[height, width]`: the image with `color`, the labels with [`IGNORE`].
pub(crate) fn pad(sample: Sample, [height, width]: [usize; 2], color: [u8; 3]) -> Sample {
    let Sample { image, labels } = sample;
    assert!(image.width <= width && image.height <= height, "a sample larger than its frame");
    if (image.width, image.height) == (width, height) {
        return Sample { image, labels };
    }
    let mut pixels = color.repeat(width * height);
    let mut ids = vec![IGNORE; width * height];
    for y in 0..image.height {
        pixels[y * width * 3..][..image.width * 3]
            .copy_from_slice(&image.pixels[y * image.width * 3..][..image.width * 3]);
        ids[y * width..][..image.width].copy_from_slice(&labels.ids[y * image.width..][..image.width]);
    }
    Sample { image: Image { width, height, pixels }, labels: Labels { width, height, ids } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::golden;
    use crate::image::resize::resize_image;

    #[test]
    fn a_crop_around_a_class_holds_it_wherever_it_lies() {
        let mut rng = crate::rng::Rng::new(3, &[]);
        for (width, height, at) in [(9, 7, 0), (9, 7, 62), (9, 7, 31), (1, 1, 0), (40, 3, 119)] {
            let mut ids = vec![0; width * height];
            ids[at] = 4;
            let labels = Labels { width, height, ids };
            // At three times the size every pixel survives.
            for size in [(width, height), (3 * width, 3 * height)] {
                let mut places = std::collections::BTreeSet::new();
                for _ in 0..200 {
                    let window = window_around(&labels, size, [5, 6], 4, |n| rng.below(n)).unwrap();
                    assert!(window.x + window.width <= size.0 && window.y + window.height <= size.1);
                    assert!(resize_labels(&labels, size, window).ids.contains(&4), "{window:?} of {size:?}");
                    places.insert((window.x, window.y));
                }
                assert!(places.len() > 1 || size.0 <= 6 || at == 0 || at == width * height - 1, "{places:?}");
            }
            assert!(window_around(&labels, (width, height), [5, 6], 9, |n| rng.below(n)).is_none());
        }
    }

    #[test]
    fn crops_are_the_references() {
        let golden = golden::Pipeline::read();
        let sample = Sample { image: golden.image("crop.img_in"), labels: golden.labels("crop.lab_in") };
        let size = (sample.image.width, sample.image.height);
        let runs = golden.json["crop_runs"]["runs"].as_array().unwrap();
        let mut redrawn = 0;
        for (index, run) in runs.iter().enumerate() {
            let draws: Vec<usize> =
                run["draws"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect();
            let mut left = draws.iter();
            let mut limits = [29, 51].into_iter().cycle();
            let window = choose_window(&sample.labels, size, [32, 40], 0.75, |n| {
                assert_eq!(Some(n), limits.next());
                *left.next().unwrap()
            });
            assert_eq!(left.len(), 0, "run {index} draws as often as the reference");
            redrawn += usize::from(draws.len() > 2);
            if index < 4 {
                assert_eq!(resize_image(&sample.image, size, window), golden.image(&format!("crop{index}.img")));
                assert_eq!(resize_labels(&sample.labels, size, window), golden.labels(&format!("crop{index}.lab")));
            }
        }
        assert!(runs.len() == 12 && redrawn == 6);
    }

    #[test]
    fn the_eleventh_draw_is_kept_and_ignored_pixels_do_not_count() {
        let plain = Labels { width: 8, height: 8, ids: vec![3; 64] };
        let mut draws = 0;
        choose_window(&plain, (8, 8), [4, 4], 0.75, |n| {
            draws += 1;
            draws % n
        });
        assert_eq!(draws, 22);
        let mut ids = vec![IGNORE; 64];
        (ids[0], ids[1]) = (1, 2);
        assert!(is_varied(&Labels { width: 8, height: 8, ids: ids.clone() }, 0.75));
        ids[1] = 1;
        assert!(!is_varied(&Labels { width: 8, height: 8, ids }, 0.75));
    }

    #[test]
    fn flipping_and_padding_are_the_references() {
        let golden = golden::Pipeline::read();
        let mut sample = Sample { image: golden.image("img"), labels: golden.labels("lab") };
        flip(&mut sample);
        assert_eq!(sample, Sample { image: golden.image("flip.img"), labels: golden.labels("flip.lab") });
        flip(&mut sample);
        let window = Window { x: 0, y: 0, width: 40, height: 37 };
        let size = (sample.image.width, sample.image.height);
        let cut = Sample {
            image: resize_image(&sample.image, size, window),
            labels: resize_labels(&sample.labels, size, window),
        };
        let padded = pad(cut.clone(), [64, 40], [1, 2, 3]);
        assert_eq!((padded.labels.width, padded.labels.height), (40, 64));
        assert_eq!(padded.image.pixels[..37 * 40 * 3], cut.image.pixels);
        assert_eq!(padded.image.pixels[37 * 40 * 3..][..3], [1, 2, 3]);
        let reference = golden.labels("pad.lab");
        assert!(reference.ids[37 * 40..].iter().chain(&padded.labels.ids[37 * 40..]).all(|id| *id == IGNORE));
    }
}
