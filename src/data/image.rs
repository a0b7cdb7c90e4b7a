//! Images and label maps in memory, and their files.

use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::data::jpeg;
use crate::error::{Error, Result};
use crate::files;

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
    /// A palette or grey PNG: the stored numbers, the palette not looked at.
    Index {
        /// Pixels across.
        width: usize,
        /// Pixels down.
        height: usize,
        /// `height * width` numbers.
        values: Vec<u16>,
    },
    /// A colour PNG, transparency dropped.
    Rgb {
        /// Pixels across.
        width: usize,
        /// Pixels down.
        height: usize,
        /// `height * width` colours.
        values: Vec<[u8; 3]>,
    },
}

/// Reads a PNG or JPEG, told apart by content: any colour type becomes 8-bit RGB, transparency is dropped, and the
/// rotation noted in EXIF is applied.
///
/// # Errors
/// A file that is missing, not an image, cut short, or larger than [`MAX_PIXELS`].
pub fn read_image(path: &Path) -> Result<Image> {
    let bytes = files::read(path, files::PICTURE).map_err(|e| Error::file("open", path, e))?;
    decode_image(&bytes).map_err(|e| Error::file("read", path, e))
}

/// Width and height of the image at `path` as [`read_image`] gives it, from its header alone.
///
/// # Errors
/// A file that is missing, or whose header is that of no image or of too large a one.
pub fn image_size(path: &Path) -> Result<(usize, usize)> {
    let file = files::open(path).map_err(|e| Error::file("open", path, e))?;
    let size = || {
        let (mut decoder, _) = decoder(BufReader::new(file))?;
        let (width, height) = decoder.dimensions();
        let turned = swaps_sides(decoder.orientation().map_err(invalid)?);
        let (width, height) = (width as usize, height as usize);
        Ok(if turned { (height, width) } else { (width, height) })
    };
    size().map_err(|e: Error| Error::file("read", path, e))
}

/// Whether width and height change places.
pub(crate) fn swaps_sides(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH)
}

/// Decodes the bytes of a PNG or JPEG file as [`read_image`] does.
///
/// # Errors
/// Bytes that are not an image, cut short, or declare more than [`MAX_PIXELS`].
pub fn decode_image(bytes: &[u8]) -> Result<Image> {
    decode_turned(bytes).map(|(image, _)| image)
}

/// As [`decode_image`], with how EXIF said to turn it.
pub(crate) fn decode_turned(bytes: &[u8]) -> Result<(Image, Orientation)> {
    let (mut decoder, format) = decoder(Cursor::new(bytes))?;
    // The JPEG decoder fills what is missing with grey and calls it success.
    if format == ImageFormat::Jpeg && !jpeg::is_complete(bytes) {
        return Err(Error::new("the JPEG ends before its last scan does").hint("copy the file again"));
    }
    let orientation = decoder.orientation().map_err(invalid)?;
    let mut decoded = DynamicImage::from_decoder(decoder).map_err(invalid)?;
    decoded.apply_orientation(orientation);
    let rgb = decoded.into_rgb8();
    let image = Image { width: rgb.width() as usize, height: rgb.height() as usize, pixels: rgb.into_raw() };
    Ok((image, orientation))
}

/// Reads a mask PNG without expanding its palette or scaling its greys.
///
/// # Errors
/// A file that is missing, cut short, too large, not a PNG (a JPEG's values are not exact), or of 16-bit colour.
pub fn read_mask(path: &Path) -> Result<RawMask> {
    let file = files::open(path).map_err(|e| Error::file("open", path, e))?;
    decode_mask(BufReader::new(file)).map_err(|e| Error::file("read", path, e))
}

/// The decoder of a PNG or JPEG after its header, which declares no more than [`MAX_PIXELS`].
fn decoder<'a, R: BufRead + Seek + 'a>(file: R) -> Result<(impl ImageDecoder + 'a, ImageFormat)> {
    let mut reader =
        ImageReader::new(file).with_guessed_format().map_err(|e| Error::new("reading failed").source(e))?;
    let format = reader.format().filter(|format| matches!(format, ImageFormat::Png | ImageFormat::Jpeg));
    let format = format.ok_or_else(not_an_image)?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_PIXELS * 8);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(invalid)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    Ok((decoder, format))
}

fn invalid(error: image::ImageError) -> Error {
    Error::new(error.to_string()).hint("the file is damaged or cut short: copy or export it again, or leave it out")
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
pub fn write_index_png(path: &Path, labels: &Labels, palette: &[[u8; 3]]) -> Result<()> {
    encode_index_png(labels, palette).and_then(|bytes| files::write(path, &bytes))
}

/// Writes an image as an RGB PNG, beside its place first and then renamed.
///
/// # Errors
/// An empty image, or a folder that cannot be written.
pub fn write_png(path: &Path, image: &Image) -> Result<()> {
    encode_png(image).and_then(|bytes| files::write(path, &bytes))
}

fn encode(
    width: usize,
    height: usize,
    color: png::ColorType,
    palette: Option<Vec<u8>>,
    data: &[u8],
) -> Result<Vec<u8>> {
    let failed = |e: png::EncodingError| Error::new(format!("cannot encode a {width}x{height} PNG")).source(e);
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

/// Decodes a mask PNG as [`read_mask`] does.
pub(crate) fn decode_mask(mut reader: impl BufRead + Seek) -> Result<RawMask> {
    let start = reader.fill_buf().map_err(|e| Error::new("reading failed").source(e))?;
    if start.starts_with(&[0xff, 0xd8]) {
        return Err(Error::new("it is a JPEG: its compression changes values, so it cannot hold labels")
            .hint("export the masks as PNG from the labelling tool; converting this file keeps the damage"));
    }
    let invalid = |e: png::DecodingError| Error::new("it is not a sound PNG").source(e);
    let mut decoder = png::Decoder::new_with_limits(reader, png::Limits { bytes: MAX_PIXELS as usize * 8 });
    decoder.set_transformations(png::Transformations::IDENTITY);
    let header = decoder.read_header_info().map_err(invalid)?;
    check_size(header.width, header.height)?;
    let mut reader = decoder.read_info().map_err(invalid)?;
    let size = reader.output_buffer_size().ok_or_else(|| Error::new("its size does not fit in memory"))?;
    let mut data = vec![0; size];
    let frame = reader.next_frame(&mut data).map_err(invalid)?;
    let (width, height) = (frame.width as usize, frame.height as usize);
    let rows = data.chunks_exact(frame.line_size.max(1)).take(height);
    use png::{BitDepth, ColorType};
    Ok(match (frame.color_type, frame.bit_depth) {
        (ColorType::Indexed | ColorType::Grayscale, BitDepth::Sixteen) => {
            let values = rows.flat_map(|row| row.chunks_exact(2).map(|b| u16::from_be_bytes([b[0], b[1]])));
            RawMask::Index { width, height, values: values.collect() }
        }
        (ColorType::Indexed | ColorType::Grayscale, depth) => {
            let values = rows.flat_map(|row| (0..width).map(move |x| packed(row, x, depth as usize)));
            RawMask::Index { width, height, values: values.collect() }
        }
        (ColorType::GrayscaleAlpha, BitDepth::Eight) => {
            let values = rows.flat_map(|row| row.chunks_exact(2).map(|b| u16::from(b[0])));
            RawMask::Index { width, height, values: values.collect() }
        }
        (ColorType::Rgb | ColorType::Rgba, BitDepth::Eight) => {
            let channels = frame.color_type.samples();
            let values = rows.flat_map(|row| row.chunks_exact(channels).map(|b| [b[0], b[1], b[2]]));
            RawMask::Rgb { width, height, values: values.collect() }
        }
        (color, _) => {
            return Err(Error::new(format!("a mask of 16 bits a channel ({color:?}) is not supported"))
                .hint("save it as an 8-bit palette, grey or RGB PNG"));
        }
    })
}

/// The `x`-th number of a row of numbers of 1, 2, 4 or 8 bits, first in the high bits.
fn packed(row: &[u8], x: usize, bits: usize) -> u16 {
    let shift = 8 - bits - (x * bits) % 8;
    u16::from(row[x * bits / 8] >> shift) & ((1 << bits) - 1)
}

fn check_size(width: u32, height: u32) -> Result<()> {
    if width == 0 || height == 0 {
        return Err(Error::new(format!("it declares {width}x{height} pixels")));
    }
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(Error::new(format!("it declares {width}x{height} pixels, more than the limit of {MAX_PIXELS}"))
            .hint("cut the picture into tiles"));
    }
    Ok(())
}

fn not_an_image() -> Error {
    Error::new("it is neither a PNG nor a JPEG").hint("convert the picture to PNG or JPEG")
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
            let mask = decode_mask(Cursor::new(png_of(color, depth, width, 1, data))).unwrap();
            assert_eq!(mask, RawMask::Index { width: width as usize, height: 1, values }, "{color:?} {depth:?}");
        }
        let mask = decode_mask(Cursor::new(png_of(Rgba, Eight, 1, 2, &[1, 2, 3, 0, 4, 5, 6, 9]))).unwrap();
        assert_eq!(mask, RawMask::Rgb { width: 1, height: 2, values: vec![[1, 2, 3], [4, 5, 6]] });
        assert!(decode_mask(Cursor::new(png_of(Rgb, Sixteen, 1, 1, &[0; 6]))).is_err());
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
        let values = vec![0, 1, 255, 1];
        assert_eq!(read_mask(&path).unwrap(), RawMask::Index { width: 2, height: 2, values });
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
        for cut in [3, 100, 400, jpeg.len() / 2, jpeg.len() - 2] {
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
