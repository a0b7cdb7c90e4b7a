//! The one function that reads weights of any known kind.

use std::path::Path;

use crate::error::{Error, Result};
use crate::guard::guarded;
use crate::weights::state::StateDict;
use crate::weights::{earlier, file, shards};

/// Reads the weights in the file at `path`. The content decides what kind of file it is. An index of several files
/// (`*.index.json`), or the folder of one, gives the tensors of all.
///
/// Values become f32. No code inside a pickle is ever run.
///
/// # Errors
///
/// Names the file, and says what is wrong with it: not there, not a weights file, cut short, or built to exhaust
/// memory.
pub fn read(path: &Path) -> Result<StateDict> {
    let any = |path| {
        let path = shards::file_of(path)?;
        if shards::is_index(&path) { shards::read(&path) } else { file::read(&path) }
    };
    let mut state = guarded(|| any(path)).map_err(|cause: Error| Error::file("read", path, cause))?;
    if state.tensors.is_empty() {
        return Err(Error::new(format!("`{}` holds no tensors", path.display()))
            .with_hint("use a file of weights: .safetensors, .pth or .npz"));
    }
    earlier::update(&mut state);
    state.path = Some(path.to_path_buf());
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(bytes: &[u8]) -> Error {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.pth");
        std::fs::write(&path, bytes).unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.to_string().contains("w.pth"), "{error}");
        assert!(error.hint().is_some(), "{error}");
        error
    }

    #[test]
    fn names_what_is_no_weights_file() {
        let cases: [(&[u8], &str); 12] = [
            (b"GGUF\x03\x00\x00\x00", "GGUF"),
            (b"\x08\x07\x12\x07pytorch\x1a\x03", "ONNX"),
            (b"\x93NUMPY\x01\x00\x76\x00{'descr': '|O'", "one NumPy array"),
            (b"", "empty"),
            (b"hello", "format is not known"),
            (b"<!DOCTYPE html><html>", "web page"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
            (b"\x89HDF\r\n\x1a\n", "HDF5"),
            (b"\x1f\x8b\x08\x00", "gzip"),
            (b"PK\x03\x04 and no more", "archive is damaged"),
            // A pickle that would run `os.system("id")`, were it executed.
            (b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R.", "pickle"),
            (&[0xff; 64], "format is not known"),
        ];
        for (bytes, expected) in cases {
            let error = error_of(bytes);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn a_missing_file_and_a_folder_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("no.pth");
        let error = read(&missing).unwrap_err();
        assert!(error.to_string().contains("no such file"));
        assert_eq!((error.kind(), error.path()), (crate::error::ErrorKind::NotFound, Some(missing.as_path())));
        assert!(read(folder.path()).unwrap_err().to_string().contains("not a file"));
        assert!(read(folder.path()).unwrap_err().hint().unwrap().contains("model.safetensors"));
    }
}
