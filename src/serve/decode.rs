//! Images as clients send them: what their header states, before memory is taken; then their pixels.

use std::io::Cursor;

use axum::http::StatusCode;

use crate::image::{Image, formats, swaps_sides};
use crate::serve::error::Fault;
use crate::serve::limits::Limits;

/// Height and width of the image in these bytes, as it is decoded, from its header alone.
///
/// # Errors
/// Bytes that are not an image, and images above a limit.
pub(super) fn size(bytes: &[u8], limits: &Limits) -> Result<(usize, usize), Fault> {
    if bytes.is_empty() {
        return Err(
            Fault::bad_request("the request holds no image").hint("send the bytes of a PNG or JPEG as the body")
        );
    }
    let Some(format) = formats::Format::of(bytes).filter(|format| *format != formats::Format::Npy) else {
        let cause = "the bytes are not a PNG, JPEG, TIFF, BMP, GIF or WebP";
        return Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_an_image", cause)
            .hint("convert the picture to PNG or JPEG"));
    };
    let ((width, height), orientation) = formats::size(Cursor::new(bytes)).map_err(|error| Fault::of_image(&error))?;
    check_pixels((height, width), limits)?;
    if format == formats::Format::Jpeg && scans(bytes) > limits.scans {
        let cause = format!("the JPEG has more than {} scans", limits.scans);
        return Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported", cause)
            .hint("save it again as a JPEG that is not progressive"));
    }
    Ok(if swaps_sides(orientation) { (width, height) } else { (height, width) })
}

/// Fails above the limit of pixels.
pub(super) fn check_pixels((height, width): (usize, usize), limits: &Limits) -> Result<(), Fault> {
    if (width as u64).saturating_mul(height as u64) <= limits.pixels {
        return Ok(());
    }
    let cause = format!("the image declares {width}x{height} pixels, more than the limit of {}", limits.pixels);
    Err(Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "image_too_large", cause)
        .hint("cut the picture into tiles, or scale it down"))
}

/// The pixels, as `predict` reads them.
pub(super) fn decode(bytes: &[u8], range: Option<[u16; 2]>) -> Result<Image, Fault> {
    formats::image(Cursor::new(bytes), range).map(|decoded| decoded.image).map_err(|error| Fault::of_image(&error))
}

/// Markers that start a scan. Within the data of a scan a byte of 255 is followed by 0 or a marker of its own.
fn scans(bytes: &[u8]) -> usize {
    bytes.windows(2).filter(|pair| *pair == [0xff, 0xda]).count()
}
