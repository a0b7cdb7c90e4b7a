//! Files that users bring: regular ones only, and no more of them than their kind may hold.
//!
//! A pipe in a file's place would be waited for without end, and a device such as `/dev/zero` read without end.

use std::fs::{File, FileType};
use std::io::{self, Read};
use std::path::Path;

/// The most bytes of a picture or a mask.
pub const PICTURE: u64 = 1 << 30;

/// The most bytes of a recipe or a dataset's description: lists of all values of 16 bits are far smaller.
pub const RECIPE: u64 = 4 << 20;

/// The most bytes of what people write beside those: files of names.
pub const TEXT: u64 = 16 << 20;

/// The most bytes of a list of files, of a log, and of what the program writes for itself.
pub const RECORD: u64 = 1 << 30;

/// The most bytes of annotations in JSON, of which one file may hold a whole set.
pub const ANNOTATIONS: u64 = 4 << 30;

/// For weights, which are as large as they are.
pub const UNLIMITED: u64 = u64::MAX;

/// Opens a regular file for reading.
///
/// # Errors
/// A file that cannot be opened, or something that is not a regular file, at once and without waiting for it.
pub fn open(path: &Path) -> io::Result<File> {
    regular(std::fs::metadata(path)?.file_type())?; // before: opening a pipe waits for its writer
    let file = File::open(path)?;
    regular(file.metadata()?.file_type())?;
    Ok(file)
}

/// The bytes of a regular file of at most `limit` bytes.
///
/// # Errors
/// As [`open`], and a file that is larger; none of that is read.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let length = file.metadata()?.len();
    if length > limit {
        return Err(too_large(length, limit));
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length as usize + 1).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    // A file may grow meanwhile, and those of /proc state no length.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64, limit));
    }
    Ok(bytes)
}

/// The text of a regular file of at most `limit` bytes.
///
/// # Errors
/// As [`read`], and bytes that are not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(read(path, limit)?).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..place].iter().filter(|byte| **byte == b'\n').count() + 1;
        io::Error::new(io::ErrorKind::InvalidData, format!("it is not UTF-8 text: line {line} holds other bytes"))
    })
}

fn regular(kind: FileType) -> io::Result<()> {
    if kind.is_file() {
        return Ok(());
    }
    if kind.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder, not a file"));
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {}, not a regular file", special(kind))))
}

#[cfg(unix)]
fn special(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match () {
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    }
}

#[cfg(not(unix))]
fn special(_: FileType) -> &'static str {
    "a device"
}

fn too_large(length: u64, limit: u64) -> io::Error {
    let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
    let text = format!(
        "it holds {} MB or more, but files of its kind may hold at most {} MB",
        megabytes(length),
        megabytes(limit)
    );
    io::Error::new(io::ErrorKind::FileTooLarge, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_files_are_read_up_to_their_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        std::fs::write(&path, "name = 'ä'").unwrap();
        assert_eq!(read_text(&path, 11).unwrap(), "name = 'ä'");
        let error = read(&path, 10).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read(&folder.path().join("b"), 10).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(&path, b"a = 1\nb = '\xff'").unwrap();
        assert!(read_text(&path, TEXT).unwrap_err().to_string().contains("line 2"));
        std::fs::write(&path, b"").unwrap();
        assert!(read(&path, 0).unwrap().is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let pipe = folder.path().join("p");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let link = folder.path().join("l");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        let cases: [(&Path, &str); 5] = [
            (&pipe, "a pipe"),
            (&socket, "a socket"),
            (Path::new("/dev/zero"), "a device"),
            (&link, "a device"),
            (folder.path(), "a folder"),
        ];
        for (path, what) in cases {
            for error in
                [open(path).err().unwrap(), read(path, RECORD).unwrap_err(), read_text(path, TEXT).unwrap_err()]
            {
                assert!(error.to_string().contains(what), "{}: {error}", path.display());
            }
        }
    }
}
