//! GIF: the first frame, by its places in the palette.

use std::num::NonZeroU64;
use std::sync::Arc;

use gif::{ColorOutput, DecodeOptions, MemoryLimit};

use crate::error::{Error, Result};
use crate::image::MAX_PIXELS;
use crate::image::formats::canvas::{Canvas, Kind, Layout, RowPlace, zeros};
use crate::image::formats::{DAMAGED, Format, check_size};

/// Puts the first frame on the canvas. `whole`: it has to cover the picture.
pub(super) fn decode(bytes: &[u8], whole: bool, canvas: &mut dyn Canvas) -> Result<()> {
    let mut decoder = open(bytes)?;
    let (width, height) = (usize::from(decoder.width()), usize::from(decoder.height()));
    check_size(width as u64, height as u64)?;
    let frame = decoder.next_frame_info().map_err(invalid)?;
    let frame = frame.ok_or_else(|| Error::new("it holds no picture").with_hint(DAMAGED))?;
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (columns, rows) = (usize::from(frame.width), usize::from(frame.height));
    check_size(columns as u64, rows as u64)?;
    if whole && (left, top, columns, rows) != (0, 0, width, height) {
        return Err(Error::new("its first frame covers only a part of the picture")
            .with_hint("save the mask as PNG, or as a GIF of one whole frame"));
    }
    let palette = Arc::from(decoder.palette().map_err(invalid)?.as_chunks::<3>().0);
    canvas.begin((width, height), Layout::new(Format::Gif, Kind::Palette, 8, Some(palette)))?;
    let mut indices = zeros(columns * rows)?;
    decoder.read_into_buffer(&mut indices).map_err(invalid)?;
    for (y, row) in indices.chunks_exact(columns).enumerate() {
        let samples: Vec<u16> = row.iter().map(|index| u16::from(*index)).collect();
        canvas.place(RowPlace { x: left, y: top + y, step: 1 }, &samples);
    }
    Ok(())
}

/// Width and height.
pub(super) fn size(bytes: &[u8]) -> Result<(usize, usize)> {
    let decoder = open(bytes)?;
    check_size(decoder.width().into(), decoder.height().into())?;
    Ok((decoder.width().into(), decoder.height().into()))
}

/// Whether there is a second frame.
pub(super) fn more(bytes: &[u8]) -> bool {
    let Ok(mut decoder) = open(bytes) else { return false };
    decoder.next_frame_info().is_ok_and(|first| first.is_some())
        && decoder.next_frame_info().is_ok_and(|next| next.is_some())
}

fn open(bytes: &[u8]) -> Result<gif::Decoder<&[u8]>> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.set_memory_limit(NonZeroU64::new(MAX_PIXELS).map_or(MemoryLimit::Unlimited, MemoryLimit::Bytes));
    options.read_info(bytes).map_err(invalid)
}

fn invalid(error: gif::DecodingError) -> Error {
    Error::new("it is not a valid GIF").with_source(error).with_hint(DAMAGED)
}
