//! Which files are earlier predictions, so that nothing else is replaced by one.
//!
//! A PNG carries a note that names this program and the checksum of all else in the file: one that was edited since is
//! somebody's work. NumPy arrays have no room for a note; what was written of them stands in a hidden file beside them.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::error::{Error, Result};
use crate::files;

/// The text chunk's keyword and text, up to the checksum.
const NOTE: &[u8] = b"Software\0structtoken predict ";
/// Digits of the checksum.
const DIGITS: usize = 8;
/// Length, type, text, CRC.
const CHUNK: usize = 4 + 4 + NOTE.len() + DIGITS + 4;
/// The empty chunk that ends every PNG.
const END: [u8; 12] = [0, 0, 0, 0, b'I', b'E', b'N', b'D', 0xae, 0x42, 0x60, 0x82];

/// The file that lists arrays.
const RECORD: &str = ".structtoken-arrays";
/// Bytes of an array by which it is known.
pub(super) const HEAD: usize = 1 << 16;

/// Notes in the bytes of a PNG that a prediction wrote it.
#[must_use]
pub fn sign(mut png: Vec<u8>) -> Vec<u8> {
    if !png.ends_with(&END) {
        return png;
    }
    png.truncate(png.len() - END.len());
    png.extend(chunk(crc32fast::hash(&png)));
    png.extend(END);
    png
}

fn chunk(checksum: u32) -> Vec<u8> {
    let body = [b"tEXt", NOTE, format!("{checksum:08x}").as_bytes()].concat();
    let length = (NOTE.len() + DIGITS) as u32;
    [&length.to_be_bytes(), &body[..], &crc32fast::hash(&body).to_be_bytes()].concat()
}

/// Whether the file at `path` is a prediction, as it was written. What cannot be read is none.
pub fn is_prediction(path: &Path) -> bool {
    let array = path.extension().is_some_and(|ending| ending == "npy");
    files::open(path).and_then(|file| if array { is_recorded(path, file) } else { is_signed(file) }).unwrap_or(false)
}

fn is_signed(mut file: File) -> io::Result<bool> {
    let Some(rest) = file.metadata()?.len().checked_sub((CHUNK + END.len()) as u64) else { return Ok(false) };
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(rest))?;
    (&file).take((CHUNK + END.len()) as u64).read_to_end(&mut tail)?;
    // Only what seems to be ours is read as a whole.
    if tail.get(8..8 + NOTE.len()) != Some(NOTE) || !tail.ends_with(&END) {
        return Ok(false);
    }
    file.seek(SeekFrom::Start(0))?;
    let (mut hasher, mut buffer, mut rest) = (crc32fast::Hasher::new(), vec![0; 1 << 16], file.take(rest));
    loop {
        match rest.read(&mut buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    Ok(tail[..CHUNK] == chunk(hasher.finalize())[..])
}

/// The line of an array in the record.
fn line(path: &Path, head: &[u8], length: u64) -> String {
    let name = path.file_name().unwrap_or_default();
    format!("{:08x} {length} {:08x}", crc32fast::hash(name.as_encoded_bytes()), crc32fast::hash(head))
}

fn is_recorded(path: &Path, file: File) -> io::Result<bool> {
    let length = file.metadata()?.len();
    let mut head = Vec::new();
    file.take(HEAD as u64).read_to_end(&mut head)?;
    let line = line(path, &head, length);
    let record = files::read_text(&path.with_file_name(RECORD), files::RECORD)?;
    Ok(record.lines().any(|known| known == line))
}

/// Notes that an array which begins so, of `length` bytes, is about to be written to `path`.
pub(super) fn record(path: &Path, head: &[u8], length: u64) -> Result<()> {
    let (line, place) = (line(path, head, length), path.with_file_name(RECORD));
    let add = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        match files::read_text(&place, files::RECORD) {
            Ok(text) if text.lines().any(|known| known == line) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // In one piece, so that processes may add to it at once.
        File::options().create(true).append(true).open(&place)?.write_all(format!("{line}\n").as_bytes())
    };
    add().map_err(|error| {
        let hint = files::remedy(&error);
        Error::file("write", &place, error).hint(hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::image::{Labels, encode_index_png, read_mask};
    use crate::predict::write_probabilities;

    #[test]
    fn a_signed_png_is_known_until_it_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let labels = Labels { width: 3, height: 2, ids: vec![0, 1, 2, 0, 1, 2] };
        let plain = encode_index_png(&labels, &[[0; 3], [9; 3]]).unwrap();
        let signed = sign(plain.clone());
        assert_eq!(signed.len(), plain.len() + CHUNK);
        let known = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            is_prediction(&path)
        };
        assert!(!is_prediction(&path) && !known(&plain) && !known(b"") && known(&signed));
        assert_eq!(read_mask(&path).unwrap().size(), (3, 2));
        for at in 0..signed.len() {
            let mut edited = signed.clone();
            edited[at] ^= 1;
            assert!(!known(&edited), "byte {at}");
        }
        // As others read it.
        let reader = png::Decoder::new(io::Cursor::new(&signed)).read_info().unwrap();
        let mut reader = reader;
        reader.finish().unwrap();
        let text = &reader.info().uncompressed_latin1_text;
        assert!(text.len() == 1 && text[0].keyword == "Software" && text[0].text.starts_with("structtoken predict "));
    }

    #[test]
    fn an_array_is_known_by_the_record_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/a.npy");
        for values in [[0.5; 6], [0.25; 6], [0.5; 6]] {
            write_probabilities(&path, &values, &[1, 2, 3]).unwrap();
            assert!(is_prediction(&path));
        }
        assert_eq!(std::fs::read_to_string(path.with_file_name(RECORD)).unwrap().lines().count(), 2);
        let mut bytes = std::fs::read(&path).unwrap();
        let other = path.with_file_name("b.npy");
        std::fs::write(&other, &bytes).unwrap();
        assert!(!is_prediction(&other));
        bytes[130] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(!is_prediction(&path));
    }
}
