//! Files of people: of bounded size, in whatever encoding their text is.

use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};
use crate::files;
use crate::tools::init::plan::Place;
use crate::tools::init::used_options::Flag;

/// Which encoding text is in that is no Unicode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TextEncoding {
    /// Chinese: GBK, and GB 18030 that follows it.
    Gbk,
    /// Western European: Latin-1, as Windows has it (1252).
    Latin1,
}

/// The bytes of a regular file.
///
/// # Errors
/// A file that is missing, is a folder, a pipe or a device, or is larger than any annotations.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>> {
    limited(path, files::ANNOTATIONS)
}

fn limited(path: &Path, most: u64) -> Result<Vec<u8>> {
    files::read(path, most).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::PermissionDenied => "give yourself permission to read it, or move it out of the folder",
            _ => "move it out of the folder",
        };
        Error::file("read", path, error).with_hint(hint)
    })
}

/// The text of a file: UTF-8 or UTF-16 with or without its mark; or what --text says of the `place` where it is
/// neither.
///
/// # Errors
/// As [`bytes`]; and text of which it cannot be told in which encoding it is.
pub(super) fn text(path: &Path, place: Option<&Place>) -> Result<String> {
    decoded(path, &limited(path, files::TEXT)?, place)
}

/// The text of a file of annotations, which may be of a whole set.
///
/// # Errors
/// As [`text`].
pub(super) fn annotations(path: &Path) -> Result<String> {
    decoded(path, &bytes(path)?, None)
}

/// The first `most` bytes of a file as text, whatever they are.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn start(path: &Path, most: u64) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    files::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(decode(&bytes, Some(TextEncoding::Latin1)).unwrap_or_default())
}

fn decoded(path: &Path, bytes: &[u8], place: Option<&Place>) -> Result<String> {
    let encoding = place.and_then(|place| {
        place.uses(Flag::Text);
        place.options.text
    });
    decode(bytes, encoding).map_err(|[gbk, latin]| {
        Error::new(format!(
            "the text of `{}` is not Unicode, and may be read as `{gbk}` (GBK) or `{latin}` (Latin-1)",
            path.display()
        ))
        .with_hint(match place {
            Some(place) => {
                let by = |encoding| place.again(false, |options| options.text = Some(encoding));
                let (gbk, latin) = (by(TextEncoding::Gbk), by(TextEncoding::Latin1));
                format!("say which: {gbk} for the first, {latin} for the second; or save the file as UTF-8")
            }
            None => "save the file as UTF-8".to_string(),
        })
    })
}

/// The text, or a line of it as both encodings read it.
fn decode(bytes: &[u8], encoding: Option<TextEncoding>) -> Result<String, [String; 2]> {
    use encoding_rs::{GB18030, UTF_16BE, UTF_16LE, WINDOWS_1252};
    let by = |encoding: &'static encoding_rs::Encoding| encoding.decode_without_bom_handling(bytes).0.into_owned();
    if let Some((marked, length)) = encoding_rs::Encoding::for_bom(bytes) {
        return Ok(marked.decode_without_bom_handling(&bytes[length..]).0.into_owned());
    }
    // Letters of the Latin alphabet have a zero beside them in UTF-16, and nowhere else.
    let zeros = |odd: usize| bytes.iter().skip(odd).step_by(2).filter(|byte| **byte == 0).count();
    if bytes.len().is_multiple_of(2) && bytes.len() > 1 && zeros(0) + zeros(1) > bytes.len() / 8 {
        return Ok(by(if zeros(1) > zeros(0) { UTF_16LE } else { UTF_16BE }));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Ok(text.to_string());
    }
    match encoding.or_else(|| guess(bytes)) {
        Some(TextEncoding::Gbk) => Ok(by(GB18030)),
        Some(TextEncoding::Latin1) => Ok(by(WINDOWS_1252)),
        None => {
            let line = bytes.split(|byte| *byte == b'\n').find(|line| !line.is_ascii()).unwrap_or(bytes);
            let line = &line[..line.len().min(60)];
            let shown = |encoding: &'static encoding_rs::Encoding| encoding.decode(line).0.trim().to_string();
            Err([shown(GB18030), shown(WINDOWS_1252)])
        }
    }
}

/// Chinese characters are pairs of high bytes, letters with accents stand alone among others.
fn guess(bytes: &[u8]) -> Option<TextEncoding> {
    let runs: Vec<&[u8]> = bytes.split(u8::is_ascii).filter(|run| !run.is_empty()).collect();
    let common = |pair: &[u8]| matches!(pair, [0xa1..=0xf7, 0xa1..=0xfe]);
    // A letter beside them speaks for a word with accents.
    let beside = |two: &[u8]| {
        !two[0].is_ascii() && two[1].is_ascii_alphabetic() || two[0].is_ascii_alphabetic() && !two[1].is_ascii()
    };
    if runs.iter().all(|run| run.chunks(2).all(common)) && !bytes.windows(2).any(beside) {
        return Some(TextEncoding::Gbk);
    }
    runs.iter().all(|run| run.len() == 1 && run[0] >= 0xa0).then_some(TextEncoding::Latin1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_in_its_encoding() {
        let utf16 = |little: bool, mark: &str| -> Vec<u8> {
            let text = format!("{mark}road\r\nTür\n");
            text.encode_utf16().flat_map(|unit| if little { unit.to_le_bytes() } else { unit.to_be_bytes() }).collect()
        };
        let expected = "road\r\nTür\n";
        for bytes in [
            expected.as_bytes().to_vec(),
            format!("\u{feff}{expected}").into_bytes(),
            utf16(true, "\u{feff}"),
            utf16(false, "\u{feff}"),
            utf16(true, ""),
            utf16(false, ""),
            b"road\r\nT\xfcr\n".to_vec(),
        ] {
            assert_eq!(decode(&bytes, None).unwrap(), expected, "{bytes:?}");
        }
        // 道路 and 汽车.
        assert_eq!(decode(b"\xb5\xc0\xc2\xb7,\xc6\xfb\xb3\xb5", None).unwrap(), "道路,汽车");
        assert_eq!(decode(b"", None).unwrap(), "");
    }

    #[test]
    fn what_may_be_both_is_asked() {
        // `Straße` in Latin-1 would be a Chinese character before `e`; two accents in a row one of their own.
        assert_eq!(decode(b"Stra\xdfe", None).unwrap(), "Straße");
        let both = b"\x81\x5c-\xe9\xe8";
        let [gbk, latin] = decode(both, None).unwrap_err();
        assert_ne!(gbk, latin);
        assert_eq!(decode(b"\xe9\xe8\x92s", Some(TextEncoding::Latin1)).unwrap(), "éè’s");
        assert!(decode(b"\x81\x40", Some(TextEncoding::Gbk)).unwrap().starts_with('丂'));
    }
}
