//! TIFF, decoded strip by strip or tile by tile: 1 to 16 bits, grey, palette and colours; numbers of 32 bits as labels.

use std::borrow::Cow;
use std::io::Cursor;
use std::sync::Arc;

use image::metadata::Orientation;
use tiff::ColorType;
use tiff::decoder::{ChunkType, Decoder, DecodingResult, Limits};
use tiff::tags::Tag;

use crate::error::{Error, ErrorKind, Result};
use crate::image::formats::canvas::{Canvas, Kind, Layout, RowPlace};
use crate::image::formats::{DAMAGED, Format, check_size, unpack};

type Reader<'a> = Decoder<Cursor<&'a [u8]>>;

/// The most samples of a pixel that are read.
const MAX_SAMPLES: u16 = 4;

/// The photometric interpretation of greys whose 0 is white. The decoder turns such values round.
const WHITE_IS_ZERO: u16 = 0;

/// Puts all pixels of the first picture on the canvas; answers how its note says to turn them.
pub(super) fn decode(bytes: &[u8], canvas: &mut dyn Canvas) -> Result<Orientation> {
    let (bytes, is_palette) = grayed(bytes);
    let (mut decoder, (width, height)) = open(&bytes)?;
    let (kind, bits) = kind(&mut decoder, is_palette)?;
    let palette = is_palette.then(|| palette(&mut decoder)).transpose()?;
    // What is not stated by its own tag is one picture of all its samples.
    let planar = decoder.find_tag_unsigned::<u16>(Tag::PlanarConfiguration).map_err(invalid)? == Some(2);
    let planes = if planar { kind.channels() } else { 1 };
    let orientation = orientation(&mut decoder)?;
    let chunk = decoder.chunk_dimensions();
    check_size(chunk.0.into(), u64::from(chunk.1.min(height as u32)))?;
    let white_is_zero = kind == Kind::Gray
        && decoder.find_tag_unsigned::<u16>(Tag::PhotometricInterpretation).map_err(invalid)? == Some(WHITE_IS_ZERO);
    let layout = Layout { white_is_zero, ..Layout::new(Format::Tiff, kind, bits.min(16), palette) };
    canvas.begin((width, height), layout)?;
    let (chunk_width, chunk_height) = (chunk.0 as usize, chunk.1 as usize);
    let across = match decoder.get_chunk_type() {
        ChunkType::Strip => 1,
        ChunkType::Tile => width.div_ceil(chunk_width),
    };
    let down = height.div_ceil(chunk_height);
    let mut samples = Vec::new();
    for index in 0..across * down {
        let (columns, rows) = decoder.chunk_data_dimensions(index as u32);
        let (columns, rows) = (columns as usize, rows as usize);
        let read = |plane: usize| decoder.read_chunk((plane * across * down + index) as u32).map_err(invalid);
        let data = (0..planes).map(read).collect::<Result<Vec<_>>>()?;
        for row in 0..rows {
            let place = RowPlace { x: index % across * chunk_width, y: index / across * chunk_height + row, step: 1 };
            row_samples(&data, row, columns, kind.channels() / planes, usize::from(bits), &mut samples)?;
            canvas.place(place, &samples);
        }
    }
    Ok(orientation)
}

/// Width, height and orientation.
pub(super) fn size(bytes: &[u8]) -> Result<((usize, usize), Orientation)> {
    let (mut decoder, size) = open(bytes)?;
    Ok((size, orientation(&mut decoder)?))
}

/// Whether there is another page of the same size, which is no smaller copy of the first.
pub(super) fn more(bytes: &[u8]) -> bool {
    const PAGES: usize = 64;
    let Ok((mut decoder, first)) = open(bytes) else { return false };
    for _ in 0..PAGES {
        if !decoder.more_images() || decoder.next_image().is_err() {
            return false;
        }
        let copy =
            decoder.find_tag_unsigned::<u32>(Tag::NewSubfileType).ok().flatten().is_some_and(|kind| kind & 1 == 1);
        let size = decoder.dimensions().ok().map(|(width, height)| (width as usize, height as usize));
        if !copy && size == Some(first) {
            return true;
        }
    }
    false
}

fn open(bytes: &[u8]) -> Result<(Reader<'_>, (usize, usize))> {
    let limits = || {
        let mut limits = Limits::default();
        limits.decoding_buffer_size = 1 << 30;
        limits.intermediate_buffer_size = 1 << 30;
        limits.ifd_value_size = 64 << 20;
        limits
    };
    let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(invalid)?.with_limits(limits());
    let (width, height) = decoder.dimensions().map_err(invalid)?;
    check_size(width.into(), height.into())?;
    Ok((decoder, (width as usize, height as usize)))
}

fn kind(decoder: &mut Reader, is_palette: bool) -> Result<(Kind, u8)> {
    let colors = decoder.colortype().map_err(invalid)?;
    let found = match colors {
        ColorType::Gray(bits @ (1 | 2 | 4 | 8)) if is_palette => Some((Kind::Palette, bits)),
        ColorType::Gray(bits @ (1 | 2 | 4 | 8 | 16 | 32 | 64)) if !is_palette => Some((Kind::Gray, bits)),
        ColorType::GrayA(bits @ (8 | 16)) => Some((Kind::GrayAlpha, bits)),
        ColorType::Multiband { bit_depth: bits @ (8 | 16), num_samples: 2 } => Some((Kind::GrayAlpha, bits)),
        ColorType::RGB(bits @ (8 | 16)) => Some((Kind::Rgb, bits)),
        ColorType::RGBA(bits @ (8 | 16)) => Some((Kind::Rgba, bits)),
        ColorType::CMYK(bits @ (8 | 16)) => Some((Kind::Cmyk, bits)),
        _ => None,
    };
    let samples = decoder.find_tag_unsigned::<u16>(Tag::SamplesPerPixel).map_err(invalid)?.unwrap_or(1);
    found.filter(|(kind, _)| samples <= MAX_SAMPLES || *kind != Kind::Gray).ok_or_else(|| {
        Error::new(format!("a TIFF of {colors:?} is not supported"))
            .with_hint("export it as grey, palette or RGB with 8 or 16 bits per channel; of many bands choose three")
            .with_kind(ErrorKind::Unsupported)
    })
}

/// The samples of one row of a strip or tile, of all planes.
fn row_samples(
    planes: &[DecodingResult],
    row: usize,
    columns: usize,
    channels: usize,
    bits: usize,
    samples: &mut Vec<u16>,
) -> Result<()> {
    let count = columns * channels;
    if let [DecodingResult::U8(bytes)] = planes {
        let stride = (count * bits).div_ceil(8);
        let row = bytes.get(row * stride..(row + 1) * stride).ok_or_else(short)?;
        unpack(row, bits, count, u16::from_ne_bytes, samples);
        return Ok(());
    }
    samples.clear();
    samples.resize(count * planes.len(), 0);
    for (plane, data) in planes.iter().enumerate() {
        let mut put = |i: usize, value: Option<u16>| match value {
            Some(value) => {
                samples[i * planes.len() + plane] = value;
                Ok(())
            }
            None => Err(Error::new("it holds numbers that are negative, above 65535 or with fractions")
                .with_hint("masks hold class numbers, and images 8 or 16 bits per channel: export it like that")
                .with_kind(ErrorKind::Unsupported)),
        };
        let span = row * count..(row + 1) * count;
        macro_rules! each {
            ($values:expr) => {{
                let values = $values.get(span).ok_or_else(short)?;
                values.iter().enumerate().try_for_each(|(i, value)| put(i, u16::try_from(*value).ok()))?
            }};
        }
        match data {
            DecodingResult::U8(values) => each!(values),
            DecodingResult::U16(values) => each!(values),
            DecodingResult::U32(values) => each!(values),
            DecodingResult::U64(values) => each!(values),
            DecodingResult::I8(values) => each!(values),
            DecodingResult::I16(values) => each!(values),
            DecodingResult::I32(values) => each!(values),
            DecodingResult::I64(values) => each!(values),
            DecodingResult::F16(_) | DecodingResult::F32(_) | DecodingResult::F64(_) => put(0, None)?,
        }
    }
    Ok(())
}

fn short() -> Error {
    Error::new("it is cut short").with_hint(DAMAGED)
}

fn palette(decoder: &mut Reader) -> Result<Arc<[[u8; 3]]>> {
    let map = decoder.get_tag_u16_vec(Tag::ColorMap).map_err(invalid)?;
    let count = map.len() / 3;
    // All reds, then all greens, then all blues, of 16 bits.
    Ok((0..count).map(|i| [0, 1, 2].map(|channel| (map[channel * count + i] >> 8) as u8)).collect())
}

fn orientation(decoder: &mut Reader) -> Result<Orientation> {
    let noted = decoder.find_tag_unsigned::<u16>(Tag::Orientation).map_err(invalid)?;
    let noted = noted.and_then(|noted| Orientation::from_exif(u8::try_from(noted).ok()?));
    Ok(noted.unwrap_or(Orientation::NoTransforms))
}

fn invalid(error: tiff::TiffError) -> Error {
    match &error {
        tiff::TiffError::UnsupportedError(_) => Error::new("it is a TIFF of a kind that is not supported")
            .with_source(error)
            .with_hint("export it uncompressed, or with LZW or deflate; or as PNG")
            .with_kind(ErrorKind::Unsupported),
        _ => Error::new("it is not a TIFF that can be read").with_source(error).with_hint(DAMAGED),
    }
}

/// The file with a palette called grey, since the decoder does not give places in a palette; and whether it was one.
fn grayed(bytes: &[u8]) -> (Cow<'_, [u8]>, bool) {
    const PHOTOMETRIC: u64 = 262;
    const PALETTE: u64 = 3;
    const BLACK_IS_ZERO: u16 = 1;
    let little = bytes.starts_with(b"II");
    let number = |at: usize, length: usize| -> Option<u64> {
        let bytes = bytes.get(at..at.checked_add(length)?)?;
        let fold = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if little { bytes.iter().rev().fold(0, fold) } else { bytes.iter().fold(0, fold) })
    };
    let find = || -> Option<usize> {
        let (first, count_length, entry) = match number(2, 2)? {
            42 => (number(4, 4)?, 2, 12),
            43 => (number(8, 8)?, 8, 20),
            _ => return None,
        };
        let first = usize::try_from(first).ok()?;
        let count = usize::try_from(number(first, count_length)?).ok()?;
        let entries = (0..count.min(4096)).map(|i| first + count_length + i * entry);
        let entry_at = entries.take_while(|at| *at < bytes.len()).find(|at| number(*at, 2) == Some(PHOTOMETRIC))?;
        let value = entry_at + entry - if entry == 12 { 4 } else { 8 };
        (number(value, 2)? == PALETTE).then_some(value)
    };
    let Some(at) = find() else { return (Cow::Borrowed(bytes), false) };
    let mut bytes = bytes.to_vec();
    bytes[at..at + 2].copy_from_slice(&if little { BLACK_IS_ZERO.to_le_bytes() } else { BLACK_IS_ZERO.to_be_bytes() });
    (Cow::Owned(bytes), true)
}
