//! Resizing as OpenCV does it to 8-bit images, to the last bit, so that models see the pixels of the reference.
//!
//! Every pixel of the result depends on at most four of the source, so a [`Window`] of it can be had alone: a crop of
//! a large resized image costs only the crop.

use crate::image::{Image, Labels};

/// A rectangle of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its first column.
    pub x: usize,
    /// Its first row.
    pub y: usize,
    /// Its columns.
    pub width: usize,
    /// Its rows.
    pub height: usize,
}

impl Window {
    /// The whole of a picture.
    pub fn whole((width, height): (usize, usize)) -> Self {
        Self { x: 0, y: 0, width, height }
    }
}

/// The size (width, height) of a picture that is to fit `scale` with its sides' ratio kept: the longer side is at
/// most `scale`'s longer, the shorter at most `scale`'s shorter, and one of them is met (`mmcv.rescale_size`).
pub fn rescaled_size((width, height): (usize, usize), scale: (usize, usize)) -> (usize, usize) {
    let ratio = |a: usize, b: usize| a as f64 / b.max(1) as f64;
    let factor = ratio(scale.0.max(scale.1), width.max(height)).min(ratio(scale.0.min(scale.1), width.min(height)));
    let side = |n: usize| ((n as f64 * factor + 0.5) as usize).max(1);
    (side(width), side(height))
}

/// The part `window` of the image resized to `size` (width, height): bilinear, without antialiasing, in fixed point
/// (`cv2.resize`, `INTER_LINEAR`, 8 bits).
pub fn resize_image(image: &Image, size: (usize, usize), window: Window) -> Image {
    assert!(window.x + window.width <= size.0 && window.y + window.height <= size.1, "{window:?} in {size:?}");
    if size == (image.width, image.height) {
        return cut(image, window);
    }
    let columns: Vec<Tap> =
        (window.x..window.x + window.width).map(|x| Tap::new(x, size.0, image.width).pinned(image.width)).collect();
    let mut pixels = Vec::with_capacity(window.width * window.height * 3);
    // The two source rows at hand, each stretched to the window's columns.
    let mut rows = [(usize::MAX, Vec::new()), (usize::MAX, Vec::new())];
    for y in window.y..window.y + window.height {
        let tap = Tap::new(y, size.1, image.height);
        let [upper, lower] = tap.ends(image.height);
        if rows[1].0 == upper {
            rows.swap(0, 1);
        }
        for (row, source) in rows.iter_mut().zip([upper, lower]) {
            if row.0 != source {
                stretch(&image.pixels[source * image.width * 3..][..image.width * 3], &columns, &mut row.1);
                row.0 = source;
            }
        }
        // The products lose their low bits one by one; that is what OpenCV's vector code does.
        let blend =
            |(a, b): (&i32, &i32)| (((tap.weights[0] * (a >> 4)) >> 16) + ((tap.weights[1] * (b >> 4)) >> 16) + 2) >> 2;
        pixels.extend(rows[0].1.iter().zip(&rows[1].1).map(|pair| blend(pair) as u8));
    }
    Image { width: window.width, height: window.height, pixels }
}

/// The part `window` of the image as it is.
fn cut(image: &Image, window: Window) -> Image {
    let rows = image.pixels.chunks_exact(image.width * 3).skip(window.y).take(window.height);
    let pixels = rows.flat_map(|row| &row[window.x * 3..][..window.width * 3]).copied().collect();
    Image { width: window.width, height: window.height, pixels }
}

/// The part `window` of the labels resized to `size` (width, height): the nearest to the upper left (`cv2.resize`,
/// `INTER_NEAREST`).
pub fn resize_labels(labels: &Labels, size: (usize, usize), window: Window) -> Labels {
    assert!(window.x + window.width <= size.0 && window.y + window.height <= size.1, "{window:?} in {size:?}");
    let columns = nearest(window.x, window.width, size.0, labels.width);
    let mut ids = Vec::with_capacity(window.width * window.height);
    for row in nearest(window.y, window.height, size.1, labels.height) {
        let source = &labels.ids[row * labels.width..][..labels.width];
        ids.extend(columns.iter().map(|column| source[*column]));
    }
    Labels { width: window.width, height: window.height, ids }
}

/// The source positions of `count` positions from `first` on.
fn nearest(first: usize, count: usize, to: usize, from: usize) -> Vec<usize> {
    let scale = 1.0 / (to as f64 / from as f64);
    (first..first + count).map(|i| ((i as f64 * scale).floor() as usize).min(from - 1)).collect()
}

/// Two neighbours in the source and their weights, which sum to 2048.
#[derive(Clone, Copy)]
struct Tap {
    first: isize,
    weights: [i32; 2],
}

impl Tap {
    fn new(at: usize, to: usize, from: usize) -> Self {
        let scale = 1.0 / (to as f64 / from as f64);
        let position = ((at as f64 + 0.5) * scale - 0.5) as f32;
        let weight = |w: f32| (w * 2048.0).round_ties_even() as i32;
        let part = position - position.floor();
        Self { first: position.floor() as isize, weights: [weight(1.0 - part), weight(part)] }
    }

    /// Beyond the first and last pixel of a row, that pixel alone counts.
    fn pinned(self, from: usize) -> Self {
        let last = from as isize - 1;
        if self.first < 0 || self.first >= last {
            return Self { first: self.first.clamp(0, last), weights: [2048, 0] };
        }
        self
    }

    fn ends(self, from: usize) -> [usize; 2] {
        [self.first, self.first + 1].map(|i| i.clamp(0, from as isize - 1) as usize)
    }
}

fn stretch(row: &[u8], columns: &[Tap], out: &mut Vec<i32>) {
    out.clear();
    for tap in columns {
        let [a, b] = tap.ends(row.len() / 3);
        let (a, b) = (&row[a * 3..][..3], &row[b * 3..][..3]);
        out.extend((0..3).map(|c| i32::from(a[c]) * tap.weights[0] + i32::from(b[c]) * tap.weights[1]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::golden;

    #[test]
    fn sizes_are_the_references() {
        let golden = golden::Pipeline::read();
        let rows = golden.json["rescale_size"].as_array().unwrap();
        for row in rows {
            let n: Vec<usize> = row.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect();
            assert_eq!(rescaled_size((n[0], n[1]), (n[2], n[3])), (n[4], n[5]), "{n:?}");
        }
        assert_eq!(rows.len(), 80);
    }

    #[test]
    fn pixels_are_the_references() {
        let golden = golden::Pipeline::read();
        let (image, labels) = (golden.image("img"), golden.labels("lab"));
        for name in ["resize_up", "resize_down", "resize_long"] {
            let scale: Vec<usize> =
                golden.json[name]["scale"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect();
            let size = rescaled_size((image.width, image.height), (scale[0], scale[1]));
            let resized = resize_image(&image, size, Window::whole(size));
            assert_eq!(resized, golden.image(&format!("{name}.img")), "{name}");
            let resized = resize_labels(&labels, size, Window::whole(size));
            assert_eq!(resized, golden.labels(&format!("{name}.lab")), "{name}");
        }
    }

    #[test]
    fn a_window_is_a_part_of_the_whole() {
        let pixels = (0..37 * 23 * 3u32).map(|i| ((i * i * 31) >> 3) as u8).collect();
        let image = Image { width: 37, height: 23, pixels };
        let ids = (0..37 * 23u32).map(|i| ((i * 7) >> 2) as u8).collect();
        let labels = Labels { width: 37, height: 23, ids };
        for size in [(37, 23), (90, 51), (11, 60), (20, 9), (1, 1)] {
            let whole = resize_image(&image, size, Window::whole(size));
            let whole_labels = resize_labels(&labels, size, Window::whole(size));
            let window = Window { x: size.0 / 3, y: size.1 / 4, width: size.0 / 2, height: size.1 / 3 };
            let (part, part_labels) = (resize_image(&image, size, window), resize_labels(&labels, size, window));
            for y in 0..window.height {
                let at = (window.y + y) * size.0 + window.x;
                assert_eq!(
                    part.pixels[y * window.width * 3..][..window.width * 3],
                    whole.pixels[at * 3..][..window.width * 3]
                );
                assert_eq!(part_labels.ids[y * window.width..][..window.width], whole_labels.ids[at..][..window.width]);
            }
        }
        assert_eq!(resize_image(&image, (37, 23), Window::whole((37, 23))), image);
    }
}
