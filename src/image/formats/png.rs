//! PNG, decoded row by row.

use std::io::{BufRead, Seek, SeekFrom};
use std::sync::Arc;

use image::metadata::Orientation;
use png::{BitDepth, ColorType};

use crate::error::{Error, Result};
use crate::image::formats::canvas::{Canvas, Kind, Layout, RowPlace};
use crate::image::formats::{Format, check_size, unpack};

/// Memory for chunks beside the pixels, of which EXIF alone is read: profiles and texts may inflate without bound.
const BESIDE: usize = 16 << 20;

/// Deflated data are at least this part of what they become.
const DEFLATES_TO: u64 = 1040;

/// The passes of an interlaced picture: first column and row, and the steps.
const ADAM7: [[usize; 4]; 7] =
    [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];

/// Puts all pixels on the canvas; answers how EXIF says to turn them.
pub(super) fn decode(mut reader: impl BufRead + Seek, canvas: &mut dyn Canvas) -> Result<Orientation> {
    let length = length(&mut reader).map_err(|error| Error::new("reading failed").with_source(error))?;
    let mut reader = open(reader)?;
    let info = reader.info();
    let (width, height) = (info.width as usize, info.height as usize);
    // Before memory is taken for pixels that cannot be there.
    if (info.raw_row_length() as u64).saturating_mul(info.height.into()) / DEFLATES_TO > length {
        return Err(Error::new(format!("it is cut short: {length} bytes do not hold {width}x{height} pixels"))
            .with_hint(super::DAMAGED));
    }
    let orientation = orientation(info);
    let layout = layout(info)?;
    let (bits, channels, interlaced) = (usize::from(layout.bits), layout.kind.channels(), info.interlaced);
    let plain = layout.kind == Kind::Rgb && bits == 8 && !interlaced;
    canvas.begin((width, height), layout)?;
    let mut samples = Vec::new();
    let mut rows = rows(width, height, interlaced);
    while let Some(row) = reader.next_row().map_err(invalid)? {
        let Some((place, count)) = rows.next() else { continue };
        if plain && canvas.rgb_row(place.y, row.data()) {
            continue;
        }
        unpack(row.data(), bits, count * channels, u16::from_be_bytes, &mut samples);
        canvas.place(place, &samples);
    }
    Ok(orientation)
}

/// Width, height and orientation, from what comes before the pixels.
pub(super) fn size(reader: impl BufRead + Seek) -> Result<((usize, usize), Orientation)> {
    let reader = open(reader)?;
    let info = reader.info();
    Ok(((info.width as usize, info.height as usize), orientation(info)))
}

fn length(reader: &mut impl Seek) -> std::io::Result<u64> {
    let length = reader.seek(SeekFrom::End(0))?;
    reader.seek(SeekFrom::Start(0))?;
    Ok(length)
}

fn open<R: BufRead + Seek>(reader: R) -> Result<png::Reader<R>> {
    let mut decoder = png::Decoder::new_with_limits(reader, png::Limits { bytes: BESIDE });
    decoder.set_transformations(png::Transformations::IDENTITY);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(invalid)?;
    check_size(header.width.into(), header.height.into())?;
    // Rows are counted too, and one row may be the whole picture.
    let row = header.width as usize * 8;
    decoder.set_limits(png::Limits { bytes: BESIDE + row * 4 });
    decoder.read_info().map_err(invalid)
}

fn layout(info: &png::Info) -> Result<Layout> {
    let kind = match info.color_type {
        ColorType::Indexed => Kind::Palette,
        ColorType::Grayscale => Kind::Gray,
        ColorType::GrayscaleAlpha => Kind::GrayAlpha,
        ColorType::Rgb => Kind::Rgb,
        ColorType::Rgba => Kind::Rgba,
    };
    let palette = info.palette.as_ref().filter(|_| kind == Kind::Palette);
    if let Some(palette) = palette.filter(|palette| !palette.len().is_multiple_of(3)) {
        return Err(Error::new(format!("its palette has {} bytes, which is not a multiple of three", palette.len()))
            .with_hint(super::DAMAGED));
    }
    if kind == Kind::Palette && palette.is_none() {
        return Err(Error::new("its palette is missing").with_hint(super::DAMAGED));
    }
    let palette = palette.map(|bytes| Arc::from(bytes.as_chunks::<3>().0));
    let bits = match info.bit_depth {
        BitDepth::One => 1,
        BitDepth::Two => 2,
        BitDepth::Four => 4,
        BitDepth::Eight => 8,
        BitDepth::Sixteen => 16,
    };
    Ok(Layout::new(Format::Png, kind, bits, palette))
}

fn orientation(info: &png::Info) -> Orientation {
    let noted = info.exif_metadata.as_ref().and_then(|exif| Orientation::from_exif_chunk(exif));
    noted.unwrap_or(Orientation::NoTransforms)
}

/// Where the rows of a file lie, and how many pixels they have, in the file's order.
fn rows(width: usize, height: usize, interlaced: bool) -> Box<dyn Iterator<Item = (RowPlace, usize)>> {
    if !interlaced {
        return Box::new((0..height).map(move |y| (RowPlace { x: 0, y, step: 1 }, width)));
    }
    Box::new(ADAM7.into_iter().flat_map(move |[x, y, across, down]| {
        let count = width.saturating_sub(x).div_ceil(across);
        let rows = if count == 0 { 0 } else { height.saturating_sub(y).div_ceil(down) };
        (0..rows).map(move |row| (RowPlace { x, y: y + row * down, step: across }, count))
    }))
}

fn invalid(error: png::DecodingError) -> Error {
    Error::new("it is not a valid PNG").with_source(error).with_hint(super::DAMAGED)
}
