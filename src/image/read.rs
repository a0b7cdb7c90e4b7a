//! Images and masks read: from files or bytes, whole or by their headers alone.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use image::metadata::Orientation;

use crate::error::{Error, Result};
use crate::files;
use crate::image::{Image, RawMask, formats, jpeg};

/// Reads a picture of any format that [`decode_image`] knows.
///
/// # Errors
/// A file that is missing, not an image, cut short, or larger than [`MAX_PIXELS`](crate::image::MAX_PIXELS).
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
    /// Of 16 bits per channel: the lowest and highest value.
    pub deep: Option<[u16; 2]>,
}

/// As [`read_image_in`], with what there is to say about the file.
///
/// # Errors
/// As [`read_image`].
pub fn read_image_noting(path: impl AsRef<Path>, range: Option<[u16; 2]>) -> Result<(Image, ImageRemarks)> {
    let path = path.as_ref();
    noting(open(path)?, range).map_err(|e| Error::file("read", path, e))
}

/// As [`decode_image_in`], with what there is to say about the file.
///
/// # Errors
/// As [`decode_image`].
pub fn decode_image_noting(bytes: &[u8], range: Option<[u16; 2]>) -> Result<(Image, ImageRemarks)> {
    noting(Cursor::new(bytes), range)
}

fn noting(file: impl BufRead + Seek, range: Option<[u16; 2]>) -> Result<(Image, ImageRemarks)> {
    let decoded = formats::image(file, range)?;
    let remarks = ImageRemarks { more: decoded.more, transparent: decoded.transparent, deep: decoded.deep };
    Ok((decoded.image, remarks))
}

/// The range of a set of 16 bits per channel whose highest value is this, where it uses a part of them.
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
/// Bytes that are not an image, cut short, or declare more than [`MAX_PIXELS`](crate::image::MAX_PIXELS).
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
