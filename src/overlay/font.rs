//! A small bitmap font, so that pictures can carry names without a font file.

use crate::image::Image;

/// Columns from one character to the next.
const ADVANCE: usize = 6;
/// Rows of a line: seven above the baseline and two below.
pub(super) const HEIGHT: usize = 9;

/// The width of a line of text in pixels, at a whole-number magnification.
pub(super) fn width(text: &str, scale: usize) -> usize {
    text.chars().count() * ADVANCE * scale
}

/// Writes a line of text with its upper left corner at (x, y); what leaves the picture is cut off.
pub(super) fn write(image: &mut Image, text: &str, (x, y): (usize, usize), scale: usize, color: [u8; 3]) {
    for (i, character) in text.chars().enumerate() {
        let glyph = glyph(character);
        for bit in (0..5 * HEIGHT).filter(|bit| glyph >> bit & 1 == 1) {
            let left = x + (i * ADVANCE + bit % 5) * scale;
            super::fill(image, (left, y + bit / 5 * scale), (scale, scale), color);
        }
    }
}

/// The pixels of a character, five a row from the top, lowest bit first; `?` for what is not printable ASCII.
fn glyph(character: char) -> u64 {
    let index = (character as usize).checked_sub(32).filter(|index| *index < GLYPHS.len());
    GLYPHS[index.unwrap_or('?' as usize - 32)]
}

/// From space to `~`.
#[rustfmt::skip]
const GLYPHS: [u64; 95] = [
    0x000000000000, 0x000100421084, 0x00000000014a, 0x000295f57d4a, 0x00011f4717c4, 0x000672222273,
    0x000593932526, 0x000000000084, 0x000208210888, 0x000088842082, 0x00002aefbaa0, 0x0000084f9080,
    0x022318000000, 0x000000070000, 0x00018c000000, 0x000042222210, 0x0003a33ae62e, 0x0003884210c4,
    0x0007c444422e, 0x0003a306422e, 0x000211f4a988, 0x0003a3083c3f, 0x0003a317844c, 0x00008442221f,
    0x0003a317462e, 0x0001910f462e, 0x00018c031800, 0x022318063000, 0x000208208888, 0x000001f07c00,
    0x000088882082, 0x00010044422e, 0x000382daf62e, 0x0004631fc62e, 0x0003e317c62f, 0x0003a210862e,
    0x0001d318c527, 0x0007c217843f, 0x00004217843f, 0x0007a31e862e, 0x0004631fc631, 0x00038842108e,
    0x00019284211c, 0x000452519531, 0x0007c2108421, 0x0004631ad771, 0x0004639ad671, 0x0003a318c62e,
    0x00004217c62f, 0x00059358c62e, 0x00045257c62f, 0x0003e107043e, 0x00010842109f, 0x0003a318c631,
    0x00011518c631, 0x0004775ac631, 0x000462a22a31, 0x000108422a31, 0x0007c222221f, 0x00038421084e,
    0x000420820821, 0x00039084210e, 0x000000004544, 0x0007c0000000, 0x000000000082, 0x0007a3e83800,
    0x0003e318bc21, 0x00038210b800, 0x0007a318fa10, 0x000383f8b800, 0x000084211c4c, 0x0e87a318f800,
    0x00046318bc21, 0x000388421804, 0x064210843008, 0x00024a32a421, 0x000388421086, 0x00056b5aac00,
    0x00046318bc00, 0x0003a318b800, 0x010be318bc00, 0x1087a318f800, 0x00004211b400, 0x0003e0e0f800,
    0x000304211c42, 0x0007a318c400, 0x00011518c400, 0x0002ab58c400, 0x000454454400, 0x0e87a318c400,
    0x0007c4447c00, 0x000208411088, 0x000108421084, 0x000088441082, 0x0000009ac800,
];
