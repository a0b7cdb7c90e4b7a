//! The files that pictures come in, told apart by content and not by name; decoders of others, guarded and bounded.

mod canvas;
mod gif;
mod npy;
mod png;
mod tiff;

use std::io::{BufRead, Cursor, Read, Seek};

use image::codecs::bmp::BmpDecoder;
use image::codecs::jpeg::JpegDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, Limits};

use self::canvas::{Canvas, ImageCanvas, Layout, MaskCanvas, RowPlace};
use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::guard::guarded;
use crate::image::decode_memory::Reservation;
use crate::image::jpeg::End;
use crate::image::{Image, MAX_PIXELS, RawMask, decode_memory, jpeg};

pub(crate) use self::canvas::Kind;

pub(crate) const DAMAGED: &str = "the file is damaged or cut short: copy or export it again, or leave it out";

/// What a file is, by its first bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Png,
    Jpeg,
    Tiff,
    Gif,
    Bmp,
    WebP,
    Npy,
}

impl Format {
    /// Of a file that begins so.
    pub(crate) fn of(start: &[u8]) -> Option<Self> {
        Some(match start {
            [0x89, b'P', b'N', b'G', ..] => Self::Png,
            [0xff, 0xd8, ..] => Self::Jpeg,
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Self::Tiff,
            [b'G', b'I', b'F', b'8', ..] => Self::Gif,
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Self::WebP,
            [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Self::Npy,
            [b'B', b'M', ..] => Self::Bmp,
            _ => return None,
        })
    }

    /// What people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::Tiff => "TIFF",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::WebP => "WebP",
            Self::Npy => "NumPy array",
        }
    }

    /// The format that a file called so claims to be.
    pub(crate) fn called(name: &str) -> Option<Self> {
        Some(match name.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
            "png" => Self::Png,
            "jpg" | "jpeg" => Self::Jpeg,
            "tif" | "tiff" => Self::Tiff,
            "gif" => Self::Gif,
            "bmp" => Self::Bmp,
            "webp" => Self::WebP,
            "npy" => Self::Npy,
            _ => return None,
        })
    }
}

/// An image as it was decoded, in memory that is counted until this is dropped.
pub(crate) struct Decoded {
    pub(crate) image: Image,
    pub(crate) format: Format,
    /// How a note in the file said to turn it.
    pub(crate) orientation: Orientation,
    /// A JPEG with all its pixels and no end marker.
    pub(crate) unended: bool,
    /// There are more pictures in the file, and this is the first.
    pub(crate) more: bool,
    /// Of 16 bits per channel: the lowest and highest value.
    pub(crate) deep: Option<[u16; 2]>,
    /// Some pixel is not opaque; its colour counts all the same.
    pub(crate) transparent: bool,
    _reservation: Option<Reservation>,
}

/// Decodes an image of any format but NumPy's. `range`: which 16-bit values become black and white.
pub(crate) fn image(mut reader: impl BufRead + Seek, range: Option<[u16; 2]>) -> Result<Decoded> {
    let format = format_of(&mut reader)?;
    guarded(|| {
        let mut canvas = ImageCanvas::new(range);
        let (mut unended, mut more) = (false, false);
        let orientation = match format {
            Format::Png => png::decode(reader, &mut canvas)?,
            Format::Tiff => {
                let bytes = rest(reader)?;
                more = tiff::more(&bytes);
                tiff::decode(&bytes, &mut canvas)?
            }
            Format::Gif => {
                let bytes = rest(reader)?;
                more = gif::more(&bytes);
                gif::decode(&bytes, false, &mut canvas).map(|()| Orientation::NoTransforms)?
            }
            Format::Jpeg => {
                let bytes = rest(reader)?;
                // The decoder fills what is missing with grey and calls it success.
                unended = jpeg::check(&bytes)? == End::Missing;
                // A progressive one is held as coefficients before it becomes pixels.
                whole(JpegDecoder::new(Cursor::new(&bytes)).map_err(invalid)?, 9, &mut canvas)?
            }
            Format::Bmp => {
                let bytes = rest(reader)?;
                whole(bmp(&bytes)?, 7, &mut canvas)?
            }
            Format::WebP => {
                let decoder = WebPDecoder::new(reader).map_err(invalid)?;
                more = decoder.has_animation();
                whole(decoder, 11, &mut canvas)?
            }
            Format::Npy => return Err(not_an_image()),
        };
        let ImageCanvas { image, reservation, deep, transparent, .. } = canvas;
        let image = turned(image, orientation);
        Ok(Decoded { image, format, orientation, unended, more, deep, transparent, _reservation: reservation })
    })
}

/// Width and height of an image before it is turned, and how it is to be.
pub(crate) fn size(mut reader: impl BufRead + Seek) -> Result<((usize, usize), Orientation)> {
    fn noted(mut decoder: impl ImageDecoder) -> Result<((usize, usize), Orientation)> {
        let (width, height) = decoder.dimensions();
        check_size(width.into(), height.into())?;
        Ok(((width as usize, height as usize), decoder.orientation().map_err(invalid)?))
    }
    let format = format_of(&mut reader)?;
    guarded(|| match format {
        Format::Png => png::size(reader),
        Format::Tiff => tiff::size(&rest(reader)?),
        Format::Gif => Ok((gif::size(&rest(reader)?)?, Orientation::NoTransforms)),
        Format::Jpeg => noted(JpegDecoder::new(reader).map_err(invalid)?),
        Format::Bmp => noted(BmpDecoder::new(reader).map_err(invalid)?),
        Format::WebP => noted(WebPDecoder::new(reader).map_err(invalid)?),
        Format::Npy => Ok((npy::size(&rest(reader)?)?, Orientation::NoTransforms)),
    })
}

/// A mask as it was decoded, in memory that is counted until this is dropped.
pub(crate) struct DecodedMask {
    pub(crate) mask: RawMask,
    _reservation: Option<Reservation>,
}

/// Decodes a mask. `lossy`: a JPEG is taken too, as the grey levels or colours that its compression left.
pub(crate) fn mask(mut reader: impl BufRead + Seek, lossy: bool) -> Result<DecodedMask> {
    let format = format_of(&mut reader).map_err(|_| not_a_mask())?;
    guarded(|| {
        let mut canvas = MaskCanvas::new();
        match format {
            Format::Png => drop(png::decode(reader, &mut canvas)?),
            Format::Tiff => {
                let bytes = rest(reader)?;
                if tiff::more(&bytes) {
                    return Err(several());
                }
                tiff::decode(&bytes, &mut canvas)?;
            }
            Format::Gif => {
                let bytes = rest(reader)?;
                if gif::more(&bytes) {
                    return Err(several());
                }
                gif::decode(&bytes, true, &mut canvas)?;
            }
            Format::Npy => npy::decode(&rest(reader)?, &mut canvas)?,
            Format::Bmp => bmp_mask(&rest(reader)?, &mut canvas)?,
            Format::Jpeg if lossy => {
                let bytes = rest(reader)?;
                jpeg::check(&bytes)?;
                lossy_mask(JpegDecoder::new(Cursor::new(&bytes)).map_err(invalid)?, &mut canvas)?;
            }
            Format::Jpeg => {
                return Err(Error::new("it is a JPEG: its compression changes values, so it cannot hold labels").with_hint(
                    "export the masks as PNG from the labelling tool; if there is nothing else, `jpeg_tolerance = 255` \
                     in the dataset TOML takes every value for the nearest declared one",
                ));
            }
            Format::WebP => return Err(not_a_mask()),
        }
        let MaskCanvas { mask, reservation } = canvas;
        let mask = mask.ok_or_else(|| Error::new("it holds no picture").with_hint(DAMAGED))?;
        Ok(DecodedMask { mask, _reservation: reservation })
    })
}

fn format_of(reader: &mut impl BufRead) -> Result<Format> {
    let start = reader.fill_buf().map_err(|error| Error::new("reading failed").with_source(error))?;
    Format::of(start).ok_or_else(not_an_image)
}

/// All bytes of a file whose decoder wants them at once.
fn rest(reader: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader
        .take(files::PICTURE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::new("reading failed").with_source(error))?;
    if bytes.len() as u64 > files::PICTURE {
        return Err(Error::new(format!("it holds more than {} MB", files::PICTURE / 1_000_000))
            .with_hint("cut the picture into tiles, or save it as PNG"));
    }
    Ok(bytes)
}

/// Puts an image on the canvas that its decoder gives whole, and takes `bytes` a pixel for.
fn whole(mut decoder: impl ImageDecoder, bytes: u64, canvas: &mut ImageCanvas) -> Result<Orientation> {
    let (width, height) = decoder.dimensions();
    check_size(width.into(), height.into())?;
    canvas.reservation = Some(decode_memory::take(u64::from(width) * u64::from(height) * bytes));
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_PIXELS * 8);
    decoder.set_limits(limits).map_err(invalid)?;
    let orientation = decoder.orientation().map_err(invalid)?;
    let picture = DynamicImage::from_decoder(decoder).map_err(invalid)?;
    canvas.transparent = match &picture {
        DynamicImage::ImageRgba8(picture) => picture.pixels().any(|pixel| pixel.0[3] != 255),
        _ => false,
    };
    let rgb = picture.into_rgb8();
    canvas.image = Image { width: width as usize, height: height as usize, pixels: rgb.into_raw() };
    Ok(orientation)
}

fn bmp_mask(bytes: &[u8], canvas: &mut MaskCanvas) -> Result<()> {
    let mut decoder = bmp(bytes)?;
    let palette = decoder.get_palette().map(std::sync::Arc::from);
    let kind = if palette.is_some() { Kind::Palette } else { Kind::Rgb };
    decoder.set_indexed_color(palette.is_some());
    let kind = match decoder.color_type() {
        image::ColorType::Rgba8 => Kind::Rgba,
        _ => kind,
    };
    put(decoder, Layout::new(Format::Bmp, kind, 8, palette), canvas)
}

/// The decoder of a BMP whose header claims no more pixels than the file can hold.
fn bmp(bytes: &[u8]) -> Result<BmpDecoder<Cursor<&[u8]>>> {
    let decoder = BmpDecoder::new(Cursor::new(bytes)).map_err(invalid)?;
    let (width, height) = decoder.dimensions();
    check_size(width.into(), height.into())?;
    if bmp_rows(bytes).is_some_and(|rows| rows > bytes.len() as u64) {
        return Err(Error::new(format!("it claims {width} x {height} pixels, but holds too few bytes for them"))
            .with_hint("the file is damaged or cut short: copy or export it again, or leave it out"));
    }
    Ok(decoder)
}

/// The bytes of all rows of a BMP whose rows are not compressed.
fn bmp_rows(bytes: &[u8]) -> Option<u64> {
    let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (header, compression) = (number(14)?, number(30)?);
    let plain = header >= 40 && [0, 3].contains(&compression);
    let bits = u64::from(u16::from_le_bytes(bytes.get(28..30)?.try_into().ok()?));
    let (width, height) = (u64::from(number(18)?), u64::from(number(22)?.cast_signed().unsigned_abs()));
    plain.then(|| (width * bits).div_ceil(32) * 4 * height)
}

fn lossy_mask(decoder: impl ImageDecoder, canvas: &mut MaskCanvas) -> Result<()> {
    let (width, height) = decoder.dimensions();
    check_size(width.into(), height.into())?;
    let kind = if decoder.color_type().has_color() { Kind::Rgb } else { Kind::Gray };
    put(decoder, Layout::new(Format::Jpeg, kind, 8, None), canvas)
}

/// Puts the bytes of a decoder that gives all at once on the canvas.
fn put(decoder: impl ImageDecoder, layout: Layout, canvas: &mut MaskCanvas) -> Result<()> {
    let (width, height) = decoder.dimensions();
    let channels = layout.kind.channels();
    let size = width as usize * height as usize * channels;
    if decoder.total_bytes() != size as u64 {
        return Err(Error::new("its pixel format is not supported")
            .with_hint("save it as PNG")
            .with_kind(ErrorKind::Unsupported));
    }
    canvas.begin((width as usize, height as usize), layout)?;
    let mut bytes = canvas::zeros(size)?;
    decoder.read_image(&mut bytes).map_err(invalid)?;
    let mut samples = Vec::new();
    for (y, row) in bytes.chunks_exact(width as usize * channels).enumerate() {
        unpack(row, 8, row.len(), u16::from_ne_bytes, &mut samples);
        canvas.place(RowPlace { x: 0, y, step: 1 }, &samples);
    }
    Ok(())
}

fn turned(image: Image, orientation: Orientation) -> Image {
    if orientation == Orientation::NoTransforms {
        return image;
    }
    let (width, height) = (image.width as u32, image.height as u32);
    let Some(buffer) = image::RgbImage::from_raw(width, height, image.pixels) else { unreachable!("of its size") };
    let mut turned = DynamicImage::ImageRgb8(buffer);
    turned.apply_orientation(orientation);
    let rgb = turned.into_rgb8();
    Image { width: rgb.width() as usize, height: rgb.height() as usize, pixels: rgb.into_raw() }
}

/// The first `count` samples of a row, of 1, 2, 4 or 8 bits, first in the high bits, or of 16 in the order of `word`.
fn unpack(row: &[u8], bits: usize, count: usize, word: fn([u8; 2]) -> u16, samples: &mut Vec<u16>) {
    samples.clear();
    match bits {
        16 => samples.extend(row.as_chunks::<2>().0.iter().take(count).map(|pair| word(*pair))),
        8 => samples.extend(row.iter().take(count).map(|byte| u16::from(*byte))),
        _ => samples.extend((0..count).map_while(|x| {
            let shift = 8 - bits - (x * bits) % 8;
            Some(u16::from(row.get(x * bits / 8)? >> shift) & ((1 << bits) - 1))
        })),
    }
}

pub(crate) fn check_size(width: u64, height: u64) -> Result<()> {
    if width == 0 || height == 0 {
        return Err(Error::new(format!("it declares {width}x{height} pixels")).with_hint(DAMAGED));
    }
    if width.saturating_mul(height) > MAX_PIXELS {
        return Err(Error::new(format!("it declares {width}x{height} pixels, more than the limit of {MAX_PIXELS}"))
            .with_hint("cut the picture into tiles")
            .with_kind(ErrorKind::TooLarge));
    }
    Ok(())
}

fn invalid(error: image::ImageError) -> Error {
    match &error {
        image::ImageError::Unsupported(_) => {
            Error::new(error.to_string()).with_hint("save it as PNG").with_kind(ErrorKind::Unsupported)
        }
        _ => Error::new(error.to_string()).with_hint(DAMAGED),
    }
}

/// A file of several pictures in the place of one mask.
fn several() -> Error {
    Error::new("it holds several pages, and a mask is one")
        .with_hint(
            "save each as a mask of its own, `a_car.png` and `a_road.png` for the image `a.jpg`, or all in one PNG; several masks \
             are joined by `[join]`",
        )
        .with_kind(ErrorKind::SeveralPictures)
}

fn not_an_image() -> Error {
    Error::new("it is not a PNG, JPEG, TIFF, BMP, GIF or WebP").with_hint("convert the picture to PNG or JPEG")
}

fn not_a_mask() -> Error {
    Error::new("it is not a PNG, TIFF, BMP, GIF or .npy").with_hint("export the masks as PNG")
}

#[cfg(test)]
mod tests;
