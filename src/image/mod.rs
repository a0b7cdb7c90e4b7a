//! Images and label maps in memory, and their files.

mod budget;
pub(crate) mod draw;
pub(crate) mod formats;
mod jpeg;
pub mod outlines;
pub(crate) mod raster;
pub(crate) mod regions;
pub mod resize;

use std::fs::File;
use std::io::{BufReader, Cursor};
use std::path::Path;
use std::sync::Arc;

use image::metadata::Orientation;

use crate::error::{Error, Result};
use crate::files;
use crate::image::formats::{Format, Kind};

/// The label of pixels that count nowhere.
pub const IGNORE: u8 = 255;

/// The most pixels a file may declare; more is refused before any memory is taken.
pub const MAX_PIXELS: u64 = 1 << 28;

/// The palette's colour of [`IGNORE`], as in the VOC files.
const IGNORE_COLOR: [u8; 3] = [224, 224, 192];

/// An RGB image, 8 bits a channel, rows from the top.
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

/// A label map: one class index a pixel, 255 = ignore.
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

/// Reads a picture of any format that [`decode_image`] knows.
///
/// # Errors
/// A file that is missing, not an image, cut short, or larger than [`MAX_PIXELS`].
pub fn read_image(path: impl AsRef<Path>) -> Result<Image> {
    let path = path.as_ref();
    read_image_in(path, None)
}

/// As [`read_image`]; of 16-bit values, those of `range` become black and white.
///
/// # Errors
/// As [`read_image`].
pub fn read_image_in(path: impl AsRef<Path>, range: Option<[u16; 2]>) -> Result<Image> {
    read_image_noting(path, range).map(|(image, _)| image)
}

/// What the pixels of an image do not show of its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageRemarks {
    /// It holds more pictures, and the first was read.
    pub more: bool,
    /// It has transparent pixels, whose colours count all the same.
    pub transparent: bool,
    /// Of 16 bits a channel: the lowest and highest value.
    pub deep: Option<[u16; 2]>,
}

/// As [`read_image_in`], with what there is to say about the file.
///
/// # Errors
/// As [`read_image`].
pub fn read_image_noting(path: impl AsRef<Path>, range: Option<[u16; 2]>) -> Result<(Image, ImageRemarks)> {
    let path = path.as_ref();
    let decoded = formats::image(open(path)?, range).map_err(|e| Error::file("read", path, e))?;
    let remarks = ImageRemarks { more: decoded.more, transparent: decoded.transparent, deep: decoded.deep };
    Ok((decoded.image, remarks))
}

/// The range of a set of 16 bits a channel whose highest value is this, where it uses a part of them.
pub(crate) fn common_range(high: u16) -> Option<[u16; 2]> {
    // The next power of two: 10, 12 or 14 bits are what cameras and scanners have.
    let most = u16::try_from((u32::from(high) + 1).next_power_of_two() - 1).ok()?;
    (high < u16::MAX / 2).then_some([0, most])
}

impl ImageRemarks {
    /// The values that should become black and white, where those of the image are a part of 16 bits alone.
    pub fn narrow_range(&self) -> Option<[u16; 2]> {
        self.deep.and_then(|[_, high]| common_range(high))
    }
}

/// Width and height of the image at `path` as [`read_image`] gives it, from its header alone.
///
/// # Errors
/// A file that is missing, or whose header is that of no image or of too large a one.
pub fn image_size(path: impl AsRef<Path>) -> Result<(usize, usize)> {
    let path = path.as_ref();
    let ((width, height), orientation) = formats::size(open(path)?).map_err(|e| Error::file("read", path, e))?;
    Ok(if swaps_sides(orientation) { (height, width) } else { (width, height) })
}

/// Whether EXIF swaps the sides of the image at `path`.
pub(crate) fn is_turned(path: &Path) -> bool {
    let size = open(path).and_then(formats::size);
    size.is_ok_and(|(_, orientation)| swaps_sides(orientation))
}

/// Whether width and height change places.
pub(crate) fn swaps_sides(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH)
}

/// Decodes the bytes of a PNG, JPEG, TIFF, BMP, GIF (its first frame) or WebP file, told apart by content: any colour
/// type becomes 8-bit RGB, transparency is dropped, and the rotation noted in EXIF is applied.
///
/// # Errors
/// Bytes that are not an image, cut short, or declare more than [`MAX_PIXELS`].
pub fn decode_image(bytes: &[u8]) -> Result<Image> {
    decode_image_in(bytes, None)
}

/// As [`decode_image`]; of 16-bit values, those of `range` become black and white.
///
/// # Errors
/// As [`decode_image`].
pub fn decode_image_in(bytes: &[u8], range: Option<[u16; 2]>) -> Result<Image> {
    formats::image(Cursor::new(bytes), range).map(|decoded| decoded.image)
}

/// Reads a mask (PNG, TIFF, BMP, GIF, `.npy`) without expanding its palette or scaling its greys.
///
/// # Errors
/// A file that is missing, cut short, too large, not a mask (a JPEG's values are not exact), or of 16-bit colour.
pub fn read_mask(path: impl AsRef<Path>) -> Result<RawMask> {
    let path = path.as_ref();
    read_mask_as(path, false)
}

/// As [`read_mask`]; `lossy`: a JPEG is taken too, with the values that its compression left.
///
/// # Errors
/// As [`read_mask`].
pub fn read_mask_as(path: &Path, lossy: bool) -> Result<RawMask> {
    formats::mask(open(path)?, lossy).map(|decoded| decoded.mask).map_err(|e| Error::file("read", path, e))
}

/// Decodes the bytes of a mask as [`read_mask`] does.
///
/// # Errors
/// As [`read_mask`].
pub fn decode_mask(bytes: &[u8]) -> Result<RawMask> {
    formats::mask(Cursor::new(bytes), false).map(|decoded| decoded.mask)
}

/// Whether a JPEG ends by its marker; one that lacks pixels is an error.
///
/// # Errors
/// Data that are missing or damaged.
pub fn jpeg_is_whole(bytes: &[u8]) -> Result<bool> {
    jpeg::check(bytes).map(|end| end == jpeg::End::Marked)
}

fn open(path: &Path) -> Result<BufReader<File>> {
    let file = files::open(path).map_err(|e| Error::file("open", path, e))?;
    Ok(BufReader::with_capacity(1 << 16, file))
}

/// A label map coloured by a palette, as the bytes of an 8-bit indexed PNG. Ids beyond the palette are black, 255 is
/// the pale yellow of the VOC files.
///
/// # Errors
/// An empty map.
pub fn encode_index_png(labels: &Labels, palette: &[[u8; 3]]) -> Result<Vec<u8>> {
    let mut colors: Vec<[u8; 3]> = (0..=255).map(|id| palette.get(id).copied().unwrap_or_default()).collect();
    if palette.len() <= usize::from(IGNORE) {
        colors[usize::from(IGNORE)] = IGNORE_COLOR;
    }
    let palette = colors.into_flattened();
    encode(labels.width, labels.height, png::ColorType::Indexed, Some(palette), &labels.ids)
}

/// An image as the bytes of an RGB PNG.
///
/// # Errors
/// An empty image.
pub fn encode_png(image: &Image) -> Result<Vec<u8>> {
    encode(image.width, image.height, png::ColorType::Rgb, None, &image.pixels)
}

/// Writes a label map as an 8-bit indexed PNG with a palette, beside its place first and then renamed.
///
/// # Errors
/// An empty map, or a folder that cannot be written.
pub fn write_index_png(path: impl AsRef<Path>, labels: &Labels, palette: &[[u8; 3]]) -> Result<()> {
    let path = path.as_ref();
    encode_index_png(labels, palette).and_then(|bytes| files::write(path, &bytes))
}

/// Writes an image as an RGB PNG, beside its place first and then renamed.
///
/// # Errors
/// An empty image, or a folder that cannot be written.
pub fn write_png(path: impl AsRef<Path>, image: &Image) -> Result<()> {
    let path = path.as_ref();
    encode_png(image).and_then(|bytes| files::write(path, &bytes))
}

fn encode(
    width: usize,
    height: usize,
    color: png::ColorType,
    palette: Option<Vec<u8>>,
    data: &[u8],
) -> Result<Vec<u8>> {
    let failed = |e: png::EncodingError| Error::new(format!("cannot encode a {width}x{height} PNG")).with_source(e);
    let side = |n: usize| u32::try_from(n).map_err(|_| Error::new(format!("a side of {n} pixels does not fit a PNG")));
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side(width)?, side(height)?);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    if let Some(palette) = palette {
        encoder.set_palette(palette);
    }
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(data).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
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
