//! Turning, shearing and shifting a crop, in one step with its resizing: pixels are read from the source once.

use crate::dataset::Sample;
use crate::image::resize::Window;
use crate::image::{IGNORE, Image, Labels};

/// A linear map about the centre of a crop and a shift, in pixels of the crop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// Rows of the matrix that takes a place of the crop, as it was, to where it is seen.
    pub matrix: [[f64; 2]; 2],
    /// Added to it: across, down.
    pub shift: [f64; 2],
}

impl Affine {
    /// Nothing changes.
    pub const IDENTITY: Self = Self { matrix: [[1.0, 0.0], [0.0, 1.0]], shift: [0.0, 0.0] };

    /// Clockwise, by degrees.
    pub fn rotation(degrees: f64) -> Self {
        let (sin, cos) = degrees.to_radians().sin_cos();
        Self { matrix: [[cos, -sin], [sin, cos]], shift: [0.0, 0.0] }
    }

    /// Rows lean across by `x` of their distance from the centre, columns down by `y` of theirs.
    pub fn shear(x: f64, y: f64) -> Self {
        Self { matrix: [[1.0, x], [y, 1.0]], shift: [0.0, 0.0] }
    }

    /// Moves the picture across and down.
    pub fn translation(x: f64, y: f64) -> Self {
        Self { shift: [x, y], ..Self::IDENTITY }
    }

    /// First this, then `next`.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        let ([[a, b], [c, d]], [[e, f], [g, h]]) = (next.matrix, self.matrix);
        let [x, y] = self.shift;
        Self {
            matrix: [[a * e + b * g, a * f + b * h], [c * e + d * g, c * f + d * h]],
            shift: [a * x + b * y + next.shift[0], c * x + d * y + next.shift[1]],
        }
    }

    fn inverse(self) -> Self {
        let ([[a, b], [c, d]], [x, y]) = (self.matrix, self.shift);
        let det = a * d - b * c;
        let [[a, b], [c, d]] = [[d / det, -b / det], [-c / det, a / det]];
        Self { matrix: [[a, b], [c, d]], shift: [-(a * x + b * y), -(c * x + d * y)] }
    }

    /// The part `window` of `sample` resized to `size` (width, height), seen through this map: bilinear for the image,
    /// nearest for labels. Beyond the source's edges lie `color` and [`IGNORE`].
    pub fn warp(self, sample: &Sample, size: (usize, usize), window: Window, color: [u8; 3]) -> Sample {
        let Sample { image, labels } = sample;
        let back = self.inverse();
        let center = [window.width as f64 / 2.0, window.height as f64 / 2.0];
        let scale = [image.width as f64 / size.0 as f64, image.height as f64 / size.1 as f64];
        // From the centre of a pixel of the crop to a place in the source.
        let source = |x: usize, y: usize| {
            let [dx, dy] = [x as f64 + 0.5 - center[0], y as f64 + 0.5 - center[1]];
            let place =
                |row: usize| back.matrix[row][0] * dx + back.matrix[row][1] * dy + back.shift[row] + center[row];
            [(place(0) + window.x as f64) * scale[0], (place(1) + window.y as f64) * scale[1]]
        };
        let pixels = window.width * window.height;
        let (mut colors, mut ids) = (Vec::with_capacity(pixels * 3), Vec::with_capacity(pixels));
        for (y, x) in (0..window.height).flat_map(|y| (0..window.width).map(move |x| (y, x))) {
            let [sx, sy] = source(x, y);
            let inside = sx >= 0.0 && sy >= 0.0 && sx < image.width as f64 && sy < image.height as f64;
            colors.extend(if inside { bilinear(image, sx - 0.5, sy - 0.5) } else { color });
            ids.push(if inside { labels.ids[sy as usize * labels.width + sx as usize] } else { IGNORE });
        }
        Sample {
            image: Image { width: window.width, height: window.height, pixels: colors },
            labels: Labels { width: window.width, height: window.height, ids },
        }
    }
}

/// The colour between the pixels about a place, whose whole numbers are the pixels' centres; the edge is repeated.
fn bilinear(image: &Image, x: f64, y: f64) -> [u8; 3] {
    let at = |v: f64, n: usize| (v.max(0.0) as usize).min(n - 1);
    let (left, top) = (at(x, image.width), at(y, image.height));
    let (right, below) = ((left + 1).min(image.width - 1), (top + 1).min(image.height - 1));
    let (tx, ty) = ((x - left as f64).clamp(0.0, 1.0), (y - top as f64).clamp(0.0, 1.0));
    std::array::from_fn(|channel| {
        let value = |y: usize, x: usize| f64::from(image.pixels[(y * image.width + x) * 3 + channel]);
        let row = |y: usize| value(y, left) * (1.0 - tx) + value(y, right) * tx;
        (row(top) * (1.0 - ty) + row(below) * ty).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::resize::{resize_image, resize_labels};

    const PAD: [u8; 3] = [1, 2, 3];

    fn sample(width: usize, height: usize) -> Sample {
        let ids: Vec<u8> = (0..width * height).map(|i| (i * 7 % 11) as u8).collect();
        let pixels = ids.iter().flat_map(|id| [id * 20, 255 - id * 9, id * 13]).collect();
        Sample { image: Image { width, height, pixels }, labels: Labels { width, height, ids } }
    }

    #[test]
    fn nothing_changes_nothing_but_the_size() {
        let sample = sample(13, 9);
        let whole = |size| Affine::IDENTITY.warp(&sample, size, Window::whole(size), PAD);
        assert_eq!(whole((13, 9)), sample);
        let window = Window { x: 5, y: 3, width: 12, height: 9 };
        let found = Affine::IDENTITY.warp(&sample, (26, 18), window, PAD);
        assert_eq!(found.labels, resize_labels(&sample.labels, (26, 18), window));
        let expected = resize_image(&sample.image, (26, 18), window);
        let off = found.image.pixels.iter().zip(&expected.pixels).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(off <= Some(1), "{off:?}");
    }

    #[test]
    fn a_quarter_turn_moves_every_pixel() {
        let sample = sample(8, 8);
        let turned = Affine::rotation(90.0).warp(&sample, (8, 8), Window::whole((8, 8)), PAD);
        for (y, x) in (0..8).flat_map(|y| (0..8).map(move |x| (y, x))) {
            // Clockwise: what was at the left is above.
            assert_eq!(turned.labels.ids[x * 8 + 7 - y], sample.labels.ids[y * 8 + x]);
            assert_eq!(turned.image.pixels[(x * 8 + 7 - y) * 3..][..3], sample.image.pixels[(y * 8 + x) * 3..][..3]);
        }
        let back = Affine::rotation(30.0).then(Affine::rotation(60.0)).then(Affine::rotation(-90.0));
        assert_eq!(back.warp(&sample, (8, 8), Window::whole((8, 8)), PAD), sample);
    }

    #[test]
    fn what_comes_from_beyond_the_edge_is_padding() {
        let sample = sample(6, 4);
        let moved = Affine::translation(2.0, -1.0).warp(&sample, (6, 4), Window::whole((6, 4)), PAD);
        assert_eq!(moved.labels.ids[2..6], sample.labels.ids[6..10]);
        assert_eq!(moved.labels.ids[..2], [IGNORE; 2]);
        assert_eq!(moved.image.pixels[..3], PAD);
        assert!(moved.labels.ids[18..].iter().all(|id| *id == IGNORE));
        // A row one below the centre leans half a pixel, which its label does not follow.
        let sheared = Affine::shear(1.0, 0.0).warp(&sample, (6, 4), Window::whole((6, 4)), PAD);
        assert_eq!(
            sheared.labels.ids[18..],
            [
                IGNORE,
                sample.labels.ids[18],
                sample.labels.ids[19],
                sample.labels.ids[20],
                sample.labels.ids[21],
                sample.labels.ids[22]
            ]
        );
    }
}
