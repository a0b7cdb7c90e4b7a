//! Label maps and images as PNGs, in memory or as files.

use std::path::Path;

use crate::error::{Error, Result};
use crate::files;
use crate::image::{IGNORE, Image, Labels};

/// The palette's colour of [`IGNORE`], as in the VOC files.
const IGNORE_COLOR: [u8; 3] = [224, 224, 192];

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
