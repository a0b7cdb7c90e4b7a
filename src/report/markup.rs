//! Pieces of HTML that stand within text.

/// A sample's own mIoU.
pub(super) fn badge(iou: Option<f64>) -> String {
    match iou.filter(|iou| iou.is_finite()) {
        Some(iou) => format!("<span class=\"badge\">mIoU {:.1} %</span>", iou * 100.0),
        None => String::new(),
    }
}

/// A class's colour as a small square. Meaning is never carried by it alone: a name stands beside it.
pub(crate) fn swatch(color: [u8; 3]) -> String {
    format!("<i class=\"swatch\" style=\"background:{}\"></i>", rgb(color))
}

pub(super) fn rgb([r, g, b]: [u8; 3]) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// Text that is safe in HTML, inside and outside of quoted attributes. Control characters, and those that would turn
/// the direction of the text around them, become U+FFFD.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(c),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => safe.push(char::REPLACEMENT_CHARACTER),
            c if c.is_control() => safe.push(char::REPLACEMENT_CHARACTER),
            c => safe.push(c),
        }
    }
    safe
}
