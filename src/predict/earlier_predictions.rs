//! Which files are earlier predictions, so that nothing else is replaced by one.
//!
//! A PNG carries a note that names this program and the checksum of all else in the file: one that was edited since is
//! somebody's work. NumPy arrays and JSON have no room for a note; what was written of them stands in a hidden file
//! beside them.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::files;
use crate::files::checksum::crc32;

/// The text chunk's keyword and text, up to the checksum.
const NOTE: &[u8] = b"Software\0structtoken predict ";
/// Digits of the checksum.
const DIGITS: usize = 8;
/// Length, type, text, CRC.
const CHUNK: usize = 4 + 4 + NOTE.len() + DIGITS + 4;
/// The empty chunk that ends every PNG.
const END: [u8; 12] = [0, 0, 0, 0, b'I', b'E', b'N', b'D', 0xae, 0x42, 0x60, 0x82];

/// The endings of what stands in a record.
const RECORDED: [&str; 3] = ["npy", "json", "geojson"];
/// The most lines of records that stay in memory, but for those of one folder.
const MOST_KNOWN: usize = 200_000;
/// The file that lists what carries no note: arrays and JSON. Its name says the first alone, and stays so: folders hold
/// it.
const RECORD: &str = ".structtoken-arrays";

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

/// Whether the file at `path` is a prediction, as it was written. What cannot be read is none, and neither is a link:
/// it was somebody's to make.
pub fn is_prediction(path: &Path) -> bool {
    if !path.symlink_metadata().is_ok_and(|found| found.is_file()) {
        return false;
    }
    let recorded = path.extension().is_some_and(|ending| RECORDED.iter().any(|known| ending == *known));
    files::open(path).and_then(|file| if recorded { is_recorded(path, file) } else { is_signed(file) }).unwrap_or(false)
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
    Ok(tail[..CHUNK] == chunk(crc32(file.take(rest))?)[..])
}

/// The line of a file in the record: its name, its length, the checksum of all of it.
fn line(path: &Path, length: u64, checksum: u32) -> String {
    format!("{}{checksum:08x}", beginning(path, length))
}

fn beginning(path: &Path, length: u64) -> String {
    let name = path.file_name().unwrap_or_default();
    format!("{:08x} {length} ", crc32fast::hash(name.as_encoded_bytes()))
}

fn is_recorded(path: &Path, file: File) -> io::Result<bool> {
    let length = file.metadata()?.len();
    let begins = beginning(path, length);
    // Only what seems to be ours is read as a whole.
    WrittenList::with(&path.with_file_name(RECORD), |record| record.lines.range(begins.clone()..).next().cloned())?
        .filter(|line| line.starts_with(&begins))
        .map_or(Ok(false), |_| {
            let line = line(path, length, crc32(file)?);
            WrittenList::with(&path.with_file_name(RECORD), |record| record.lines.contains(&line))
        })
}

/// Writes a file that carries no note of its own, and records that a prediction wrote it.
///
/// # Errors
/// A folder that cannot be written.
pub fn write_recorded(path: &Path, bytes: &[u8]) -> Result<()> {
    // Before, so that no process finds a file that is not recorded.
    record(path, bytes.len() as u64, crc32fast::hash(bytes))?;
    files::write(path, bytes)
}

/// As [`write_recorded`], with what is in the file `from`, which may be larger than memory.
///
/// # Errors
/// As [`write_recorded`], and a file that cannot be read.
pub fn copy_recorded(path: &Path, from: &Path) -> Result<()> {
    let open = || File::open(from).map_err(|error| Error::file("read", from, error));
    let length = open()?.metadata().map_err(|error| Error::file("read", from, error))?.len();
    record(path, length, crc32(open()?).map_err(|error| Error::file("read", from, error))?)?;
    let mut source = open()?;
    files::write_with(path, |file| io::copy(&mut source, file).map(drop))
}

/// Removes the record of the folder that `path` lies in, whose files go elsewhere.
pub(crate) fn forget(path: &Path) {
    std::fs::remove_file(path.with_file_name(RECORD)).ok();
}

/// Notes that a file of `length` bytes with this checksum is about to be written to `path`.
pub(super) fn record(path: &Path, length: u64, checksum: u32) -> Result<()> {
    let (line, place) = (line(path, length, checksum), path.with_file_name(RECORD));
    let add = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let (known, whole) = WrittenList::with(&place, |record| (record.lines.contains(&line), record.ends_line))?;
        if known {
            return Ok(());
        }
        let before = if whole { "" } else { "\n" };
        // In one piece, so that processes may add to it at once.
        File::options().create(true).append(true).open(&place)?.write_all(format!("{before}{line}\n").as_bytes())
    };
    add().map_err(|error| {
        let hint = files::remedy(&error);
        Error::file("write", &place, error).with_hint(hint)
    })
}

/// The lines of a folder's record that are known so far. They only become more, so that never more is read than was
/// added: with one file after the other it would be all lines for each.
struct WrittenList {
    lines: BTreeSet<String>,
    /// Bytes that were read.
    read: u64,
    ends_line: bool,
}

impl WrittenList {
    /// What `ask` finds in the record at `place`, as it is now; one that is not there is empty. Lines that are none are
    /// of no account.
    fn with<T>(place: &Path, ask: impl FnOnce(&Self) -> T) -> io::Result<T> {
        static KNOWN: LazyLock<Mutex<HashMap<PathBuf, WrittenList>>> = LazyLock::new(Mutex::default);
        let empty = || Self { lines: BTreeSet::new(), read: 0, ends_line: true };
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of other folders are read again if need be: a list may go through any number of them.
        if known.values().map(|record| record.lines.len()).sum::<usize>() > MOST_KNOWN {
            known.retain(|other, _| other == place);
        }
        let record = known.entry(place.to_owned()).or_insert_with(empty);
        match files::open(place) {
            Ok(file) => record.read_on(file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => *record = empty(),
            Err(error) => return Err(error),
        }
        Ok(ask(record))
    }

    fn read_on(&mut self, mut file: File) -> io::Result<()> {
        let length = file.metadata()?.len();
        if length < self.read {
            // Another file in its place.
            (self.lines, self.read, self.ends_line) = (BTreeSet::new(), 0, true);
        }
        if length == self.read {
            return Ok(());
        }
        file.seek(SeekFrom::Start(self.read))?;
        let mut added = Vec::new();
        file.take(files::RECORD).read_to_end(&mut added)?;
        // A line is added as a whole; what is none is read again, and once more is behind it is passed over.
        let whole = added.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.ends_line = whole == added.len();
        self.read += whole as u64;
        self.lines
            .extend(added[..whole].split(|byte| *byte == b'\n').map(|line| String::from_utf8_lossy(line).into_owned()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Labels, encode_index_png, read_mask};
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
        // Long, since all of it counts.
        let many = 50_000;
        for value in [0.5, 0.25, 0.5] {
            write_probabilities(&path, &vec![value; many], &[1, 2, many / 2]).unwrap();
            assert!(is_prediction(&path));
        }
        assert_eq!(std::fs::read_to_string(path.with_file_name(RECORD)).unwrap().lines().count(), 2);
        let bytes = std::fs::read(&path).unwrap();
        let other = path.with_file_name("b.npy");
        std::fs::write(&other, &bytes).unwrap();
        assert!(!is_prediction(&other));
        for at in [0, 130, 70_000, bytes.len() - 1] {
            let mut edited = bytes.clone();
            edited[at] ^= 1;
            std::fs::write(&path, &edited).unwrap();
            assert!(!is_prediction(&path), "{at}");
        }
        std::fs::write(&path, &bytes).unwrap();
        assert!(is_prediction(&path));
    }

    #[test]
    fn other_files_are_known_by_the_record_too() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.geojson", "a_stats.json", "a.npy"] {
            let [path, copy] = [name, &format!("copy_of_{name}")].map(|name| folder.path().join(name));
            write_recorded(&path, b"{}").unwrap();
            copy_recorded(&copy, &path).unwrap();
            assert!(is_prediction(&path) && is_prediction(&copy), "{name}");
            std::fs::write(&path, b"[]").unwrap();
            assert!(!is_prediction(&path) && is_prediction(&copy), "{name}");
        }
        assert!(copy_recorded(&folder.path().join("b.json"), &folder.path().join("gone")).is_err());
    }

    #[test]
    fn a_damaged_record_forgets_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let [path, place] = ["a.npy", RECORD].map(|name| folder.path().join(name));
        let write = || write_probabilities(&path, &[0.5; 6], &[1, 2, 3]).unwrap();
        for damage in [&b"\xff\xfe"[..], b"", b"\n\n", &[b'0'; 20]] {
            write();
            assert!(is_prediction(&path));
            std::fs::write(&place, damage).unwrap();
            assert!(!is_prediction(&path));
            write();
            assert!(is_prediction(&path), "{damage:?}");
            std::fs::remove_file(&place).unwrap();
            assert!(!is_prediction(&path));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_no_prediction() {
        let folder = tempfile::tempdir().unwrap();
        let [path, link] = ["a.png", "b.png"].map(|name| folder.path().join(name));
        let labels = Labels { width: 1, height: 1, ids: vec![0] };
        std::fs::write(&path, sign(encode_index_png(&labels, &[[0; 3]]).unwrap())).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(is_prediction(&path) && !is_prediction(&link));
    }
}
