//! Images and label maps in memory, and their files.

mod decode_memory;
pub(crate) mod draw;
mod encode;
pub(crate) mod formats;
mod jpeg;
pub mod outlines;
pub(crate) mod raster;
mod read;
pub(crate) mod regions;
pub mod resize;

use std::sync::Arc;

use crate::image::formats::{Format, Kind};
pub use encode::{encode_index_png, encode_png, write_index_png, write_png};
pub use read::{
    ImageRemarks, decode_image, decode_image_in, decode_image_noting, decode_mask, image_size, jpeg_is_whole,
    read_image, read_image_in, read_image_noting, read_mask, read_mask_as,
};
pub(crate) use read::{common_range, is_turned, swaps_sides};

/// The label of pixels that count nowhere.
pub const IGNORE: u8 = 255;

/// The most pixels a file may declare; more is refused before any memory is taken.
pub const MAX_PIXELS: u64 = 1 << 28;

/// An RGB image, 8 bits per channel, rows from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// `height * width * 3` bytes.
    pub pixels: Vec<u8>,
}

impl From<::image::RgbImage> for Image {
    fn from(picture: ::image::RgbImage) -> Self {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        Self { width, height, pixels: picture.into_raw() }
    }
}

/// A label map: one class index per pixel, 255 = ignore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// `height * width` class indices.
    pub ids: Vec<u8>,
}

/// A mask as its file has it, before any mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawMask {
    /// A palette or grey picture, or an array: the stored numbers, the palette not looked at.
    Index {
        /// Pixels across.
        width: usize,
        /// Pixels down.
        height: usize,
        /// `height * width` numbers.
        values: Vec<u16>,
        /// How the file stores them.
        stored: Stored,
    },
    /// A colour picture, transparency dropped.
    Rgb {
        /// Pixels across.
        width: usize,
        /// Pixels down.
        height: usize,
        /// `height * width` colours.
        values: Vec<[u8; 3]>,
        /// How the file stores them.
        stored: Stored,
    },
}

/// How a mask's file stores its values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    pub(crate) format: Format,
    pub(crate) kind: Kind,
    pub(crate) bits: u8,
    pub(crate) palette: Option<Arc<[[u8; 3]]>>,
    /// The first pixel that is not opaque, counted by rows.
    pub(crate) transparent: Option<usize>,
    /// The file says that 0 is white, and its values were turned round.
    pub(crate) white_is_zero: bool,
}

impl RawMask {
    /// Width and height.
    pub fn size(&self) -> (usize, usize) {
        let (Self::Index { width, height, .. } | Self::Rgb { width, height, .. }) = self;
        (*width, *height)
    }

    /// The colours that its numbers stand for, where the file has them.
    pub fn palette(&self) -> Option<&[[u8; 3]]> {
        self.stored().palette.as_deref()
    }

    /// Bits of a stored number, or of a channel. Grey of fewer than 8 has its white at all bits set.
    pub fn bit_depth(&self) -> u8 {
        self.stored().bits
    }

    pub(crate) fn stored(&self) -> &Stored {
        let (Self::Index { stored, .. } | Self::Rgb { stored, .. }) = self;
        stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png_of(color: png::ColorType, depth: png::BitDepth, width: u32, height: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == png::ColorType::Indexed {
            encoder.set_palette((0..=255u8).flat_map(|i| [i, 255 - i, 7]).collect::<Vec<u8>>());
        }
        encoder.write_header().unwrap().write_image_data(data).unwrap();
        bytes
    }

    fn numbers(mask: &RawMask) -> Vec<u16> {
        let RawMask::Index { values, .. } = mask else { panic!("{mask:?}") };
        values.clone()
    }

    fn jpeg() -> Vec<u8> {
        let mut bytes = Vec::new();
        let pixels = image::RgbImage::from_fn(64, 48, |x, y| image::Rgb([x as u8 * 3, y as u8 * 5, (x * y) as u8]));
        image::codecs::jpeg::JpegEncoder::new(&mut bytes).encode_image(&pixels).unwrap();
        bytes
    }

    #[test]
    fn masks_keep_their_numbers_at_every_depth() {
        use png::{BitDepth::*, ColorType::*};
        let cases: [(_, _, u32, &[u8], Vec<u16>); 6] = [
            (Indexed, Eight, 3, &[0, 17, 255], vec![0, 17, 255]),
            (Grayscale, One, 9, &[0b1010_0001, 0b1000_0000], vec![1, 0, 1, 0, 0, 0, 0, 1, 1]),
            (Grayscale, Two, 5, &[0b0001_1011, 0b1100_0000], vec![0, 1, 2, 3, 3]),
            (Indexed, Four, 3, &[0x1f, 0x70], vec![1, 15, 7]),
            (Grayscale, Sixteen, 2, &[1, 2, 0, 9], vec![258, 9]),
            (GrayscaleAlpha, Eight, 2, &[4, 255, 6, 0], vec![4, 6]),
        ];
        for (color, depth, width, data, values) in cases {
            let mask = decode_mask(&png_of(color, depth, width, 1, data)).unwrap();
            assert_eq!(mask.size(), (width as usize, 1));
            assert_eq!((numbers(&mask), mask.bit_depth()), (values, depth as u8), "{color:?} {depth:?}");
            assert_eq!(mask.palette().map(|palette| palette[9]), (color == Indexed).then_some([9, 246, 7]));
        }
        let mask = decode_mask(&png_of(Rgba, Eight, 1, 2, &[1, 2, 3, 255, 4, 5, 6, 9])).unwrap();
        let RawMask::Rgb { width: 1, height: 2, values, stored } = mask else { panic!("{mask:?}") };
        assert_eq!((values, stored.transparent), (vec![[1, 2, 3], [4, 5, 6]], Some(1)));
        assert!(decode_mask(&png_of(Rgb, Sixteen, 1, 1, &[0; 6])).is_err());
    }

    #[test]
    fn images_of_any_colour_become_rgb() {
        use png::{BitDepth::*, ColorType::*};
        let rgb = |color, depth, data: &[u8]| decode_image(&png_of(color, depth, 1, 1, data)).unwrap().pixels;
        assert_eq!(rgb(Grayscale, Eight, &[9]), [9, 9, 9]);
        assert_eq!(rgb(Indexed, Eight, &[9]), [9, 246, 7]);
        assert_eq!(rgb(Rgba, Eight, &[1, 2, 3, 0]), [1, 2, 3]);
        assert_eq!(rgb(Rgb, Sixteen, &[255, 255, 0, 0, 128, 128]), [255, 0, 128]);
    }

    #[test]
    fn written_files_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let labels = Labels { width: 2, height: 2, ids: vec![0, 1, 255, 1] };
        write_index_png(&path, &labels, &[[1, 2, 3], [4, 5, 6]]).unwrap();
        let mask = read_mask(&path).unwrap();
        assert_eq!((numbers(&mask), mask.size()), (vec![0, 1, 255, 1], (2, 2)));
        assert_eq!(read_image(&path).unwrap().pixels[..9], [1, 2, 3, 4, 5, 6, 224, 224, 192]);
        let image = Image { width: 1, height: 2, pixels: vec![1, 2, 3, 4, 5, 6] };
        write_png(&path, &image).unwrap();
        assert_eq!(read_image(&path).unwrap(), image);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside");
    }

    #[test]
    fn a_rotation_in_exif_is_applied() {
        let plain = decode_image(&jpeg()).unwrap();
        let tiff = [b"II*\0".as_slice(), &[8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]];
        let exif = [b"Exif\0\0".as_slice(), &tiff.concat()].concat();
        let mut turned = vec![0xff, 0xd8, 0xff, 0xe1, 0, exif.len() as u8 + 2];
        turned.extend(exif);
        turned.extend(&jpeg()[2..]);
        let turned = decode_image(&turned).unwrap();
        assert_eq!((turned.width, turned.height), (plain.height, plain.width));
        assert_eq!(turned.pixels[..3], plain.pixels[47 * 64 * 3..][..3], "the lower left corner comes first");
    }

    #[test]
    fn broken_files_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.bin");
        let error = |bytes: &[u8], mask: bool| {
            std::fs::write(&path, bytes).unwrap();
            let error = if mask { read_mask(&path).map(|_| ()) } else { read_image(&path).map(|_| ()) };
            let message = error.unwrap_err().to_string();
            assert!(message.contains("broken.bin"), "{message}");
            message
        };
        let noise: Vec<u8> = (0..3000u32).map(|i| ((i * i * 7919) >> 5) as u8).collect();
        let png = png_of(png::ColorType::Rgb, png::BitDepth::Eight, 40, 25, &noise);
        for cut in [0, 1, 7, 20, 40, png.len() / 2, png.len() - 20] {
            error(&png[..cut], false);
            error(&png[..cut], true);
        }
        let jpeg = jpeg();
        for cut in [3, 100, 400, jpeg.len() / 2, jpeg.len() - 12] {
            error(&jpeg[..cut], false);
        }
        assert!(error(&jpeg, true).contains("JPEG"));
        // A header of 60000x60000 with a right checksum and nothing behind it.
        let mut huge = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\xea\x60\0\0\xea\x60\x08\x02\0\0\0".to_vec();
        huge.extend(crc(&huge[12..]).to_be_bytes());
        huge.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
        assert!(error(&huge, false).contains("60000x60000"));
        assert!(error(&huge, true).contains("60000x60000"));
    }

    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc: u32, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { (c >> 1) ^ 0xedb8_8320 } else { c >> 1 })
        })
    }
}
