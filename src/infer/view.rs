//! One look at an image: at a scale, mirrored or not, handed out a window at a time.

use burn::tensor::{Device, Tensor};

use crate::augment::crop;
use crate::image::Image;
use crate::image::resize::{Window, resize_image};
use crate::loader::preprocess::Preprocess;

/// One look at an image (or at a batch of equally large ones).
#[derive(Clone, Debug)]
pub struct View<'a> {
    source: ViewSource<'a>,
    /// Whether the answer must be mirrored back.
    flipped: bool,
}

#[expect(clippy::large_enum_variant, reason = "an image has a handful of views")]
#[derive(Clone, Debug)]
enum ViewSource<'a> {
    /// [b, 3, h, w], ready.
    Tensor(Tensor<4>),
    /// Bytes, of which each window is resized, mirrored and normalised when it is asked for: a large image takes four
    /// times its memory as floats, and as often again for every step on the way.
    Image { image: &'a Image, size: (usize, usize), preprocess: &'a Preprocess, device: &'a Device },
}

impl<'a> View<'a> {
    /// Looks at `images` [b, 3, h, w], normalised, already mirrored if `flipped`.
    pub fn of_tensor(images: Tensor<4>, flipped: bool) -> Self {
        Self { source: ViewSource::Tensor(images), flipped }
    }

    /// Looks at an image resized to `size` (height, width), and mirrored if `flipped`.
    pub fn of_image(
        image: &'a Image,
        size: (usize, usize),
        flipped: bool,
        preprocess: &'a Preprocess,
        device: &'a Device,
    ) -> Self {
        Self { source: ViewSource::Image { image, size, preprocess, device }, flipped }
    }

    /// Whether the answer must be mirrored back.
    pub fn is_flipped(&self) -> bool {
        self.flipped
    }

    /// All of it, [b, 3, h, w].
    pub fn whole(&self) -> Tensor<4> {
        self.window((0, 0), self.size())
    }

    /// The number of images.
    pub(super) fn batch(&self) -> usize {
        match &self.source {
            ViewSource::Tensor(images) => images.dims()[0],
            ViewSource::Image { .. } => 1,
        }
    }

    /// Height and width.
    pub(crate) fn size(&self) -> (usize, usize) {
        match &self.source {
            ViewSource::Tensor(images) => (images.dims()[2], images.dims()[3]),
            ViewSource::Image { size, .. } => *size,
        }
    }

    /// Where the network looks at it.
    pub(super) fn device(&self) -> Device {
        match &self.source {
            ViewSource::Tensor(images) => images.device(),
            ViewSource::Image { device, .. } => (*device).clone(),
        }
    }

    /// A rectangle of it, [b, 3, height, width].
    pub(super) fn window(&self, (y, x): (usize, usize), (height, width): (usize, usize)) -> Tensor<4> {
        let (rows, columns) = self.size();
        match &self.source {
            // The whole image needs no copy.
            ViewSource::Tensor(images) if (height, width) == (rows, columns) => images.clone(),
            ViewSource::Tensor(images) => {
                images.clone().slice([0..images.dims()[0], 0..3, y..y + height, x..x + width])
            }
            ViewSource::Image { image, preprocess, device, .. } => {
                let x = if self.flipped { columns - x - width } else { x };
                let mut part = resize_image(image, (columns, rows), Window { x, y, width, height });
                if self.flipped {
                    crop::mirror(&mut part);
                }
                preprocess.to_tensor(part, device)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A window is what lies there in the image as a whole.
    #[test]
    fn windows_are_parts_of_the_whole() {
        let pixels = (0..31 * 23 * 3).map(|i| (i * 7919 % 256) as u8).collect();
        let image = Image { width: 31, height: 23, pixels };
        let (preprocess, device) = (Preprocess::default(), Device::flex());
        for size in [(23, 31), (40, 50), (11, 19)] {
            let whole = resize_image(&image, (size.1, size.0), Window::whole((size.1, size.0)));
            let whole = preprocess.to_tensor(whole, &device);
            for flipped in [false, true] {
                let whole = if flipped { whole.clone().flip([3]) } else { whole.clone() };
                let (bytes, tensor) =
                    (View::of_image(&image, size, flipped, &preprocess, &device), View::of_tensor(whole, flipped));
                assert_eq!((bytes.size(), bytes.batch()), (tensor.size(), tensor.batch()));
                for (place, part) in [((0, 0), size), ((3, 7), (8, 12)), ((size.0 - 5, size.1 - 4), (5, 4))] {
                    let (a, b) = (bytes.window(place, part), tensor.window(place, part));
                    assert_eq!(a.into_data(), b.into_data(), "{size:?} {flipped} {place:?}");
                }
            }
        }
    }
}
