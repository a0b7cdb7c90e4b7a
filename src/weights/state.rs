//! Tensors on the host, and the one function that reads them from a file of any known kind.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::dtype::Dtype;
use super::{npz, pickle, safetensor, shards};
use crate::error::{Error, Result};
use crate::files;
use crate::guard::guarded;
use crate::room;

/// How many times its own size a compressed or aliased file may grow to in memory; small files may reach 64 MiB.
pub const MAX_EXPANSION: u64 = 16;

/// A tensor in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// As many values as the product of the extents.
    pub data: Vec<f32>,
}

/// What a weights file holds: tensors by name, and whatever it says about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StateDict {
    /// The tensors, under the names the file gives them.
    pub tensors: BTreeMap<String, HostTensor>,
    /// Strings the file carries: safetensors' `__metadata__`, or what stands beside the weights in a `.pth`.
    pub metadata: BTreeMap<String, String>,
    /// The file, where it came from one.
    pub path: Option<PathBuf>,
    /// The kind of file.
    pub format: Format,
    /// The dictionary inside the file that was taken, for instance `state_dict`.
    pub wrapper: Option<String>,
    /// The element type each tensor had in the file, for instance `f16`.
    pub dtypes: BTreeMap<String, &'static str>,
}

/// The kinds of files that can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// No file: tensors taken from a module.
    #[default]
    Memory,
    /// Hugging Face's safetensors.
    Safetensors,
    /// `torch.save` since PyTorch 1.6, a zip archive.
    PytorchZip,
    /// `torch.save` before PyTorch 1.6, a stream of pickles.
    PytorchLegacy,
    /// NumPy's archive of arrays.
    Npz,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Memory => "in memory",
            Self::Safetensors => "safetensors",
            Self::PytorchZip => "PyTorch zip",
            Self::PytorchLegacy => "PyTorch before 1.6",
            Self::Npz => "NumPy npz",
        })
    }
}

/// Reads the weights in the file at `path`. The content decides what kind of file it is. An index of several files
/// (`*.index.json`), or the folder of one, gives the tensors of all.
///
/// Values become f32. No code inside a pickle is ever run.
///
/// # Errors
///
/// Names the file, and says what is wrong with it: not there, not a weights file, cut short, or built to exhaust memory.
pub fn read(path: &Path) -> Result<StateDict> {
    let read = |path| {
        let path = shards::file_of(path)?;
        if shards::is_index(&path) { shards::read(&path) } else { read_file(&path) }
    };
    let mut state = guarded(|| read(path)).map_err(|cause: Error| Error::file("read", path, cause))?;
    if state.tensors.is_empty() {
        return Err(Error::new(format!("`{}` holds no tensors", path.display()))
            .hint("give a file with weights: .safetensors, .pth or .npz"));
    }
    state.path = Some(path.to_path_buf());
    Ok(state)
}

/// Reads one file.
pub(super) fn read_file(path: &Path) -> Result<StateDict> {
    let format = sniff(path)?;
    let size = std::fs::metadata(path).map_or(0, |file| file.len());
    room::need(size, "reading it", "give the process more memory, or take smaller weights")?;
    match format {
        Format::PytorchLegacy => pickle::read(path, Format::PytorchLegacy),
        Format::PytorchZip => pickle::read(path, Format::PytorchZip),
        Format::Npz => npz::read(path),
        _ => safetensor::read(path),
    }
}

impl StateDict {
    pub(super) fn new(format: Format) -> Self {
        Self { format, ..Self::default() }
    }

    /// Adds the tensor `name` from its bytes in the file. The caller has compared their number with the shape.
    pub(super) fn insert(&mut self, name: String, shape: Vec<usize>, dtype: Dtype, bytes: &[u8]) {
        self.dtypes.insert(name.clone(), dtype.name());
        self.tensors.insert(name, HostTensor { shape, data: dtype.decode(bytes) });
    }

    /// The file's name for messages.
    pub(super) fn title(&self) -> String {
        self.path.as_ref().map_or_else(|| "the state dict".to_owned(), |path| format!("`{}`", path.display()))
    }
}

/// The number of elements of `shape`, or an error that names the tensor. An extent of zero hides no impossible others.
pub(super) fn elements(name: &str, shape: &[usize]) -> Result<usize> {
    let product = shape.iter().try_fold(1usize, |n, extent| n.checked_mul((*extent).max(1)));
    if product.is_none_or(|n| n > usize::MAX / 16) {
        return Err(Error::new(format!("the tensor `{name}` claims the impossible shape {shape:?}"))
            .hint("the file is damaged or was made to do harm: get it again from its source"));
    }
    Ok(shape.iter().product())
}

/// The bytes a file of `len` bytes may take in memory, see [`MAX_EXPANSION`].
pub(super) fn allowance(len: u64) -> u64 {
    len.saturating_mul(MAX_EXPANSION).max(64 << 20)
}

/// The remedy for a file that ends too early or contradicts itself.
pub(super) const AGAIN: &str = "the file is damaged or was cut short: copy or download it again and compare its size";

const KINDS: &str = "weights are read from .safetensors, .pth (torch.save of a state dict) and .npz files";

/// The first bytes of a file made by `torch.save` before 1.6: a pickle of this number, in protocol 2 and up.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

fn sniff(path: &Path) -> Result<Format> {
    let missing = |source: std::io::Error| {
        let error = Error::new("it cannot be opened");
        match source.kind() {
            std::io::ErrorKind::NotFound => Error::new("there is no such file").hint("check the path"),
            std::io::ErrorKind::PermissionDenied => error.source(source).hint("check the file's permissions"),
            _ => error.source(source),
        }
    };
    if !std::fs::metadata(path).map_err(missing)?.is_file() {
        return Err(Error::new("it is not a file").hint("give the weights file itself, not the folder that holds it"));
    }
    let mut head = Vec::new();
    files::open(path).map_err(missing)?.take(512).read_to_end(&mut head).map_err(missing)?;
    let length = head.first_chunk::<8>().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
    let start = &head[..head.len().min(64)];
    match start {
        [] => Err(Error::new("the file is empty").hint(AGAIN)),
        _ if start.get(8) == Some(&b'{') && length <= safetensor::MAX_HEADER => Ok(Format::Safetensors),
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => sniff_zip(path),
        _ if start.windows(10).any(|window| window == LEGACY_MAGIC) => Ok(Format::PytorchLegacy),
        _ if start.get(8) == Some(&b'{') => Ok(Format::Safetensors),
        [0x80, 0..=5, ..] => Err(Error::new("it is a pickle without PyTorch's storages").hint(
            "pickles can run code and are not executed; save the weights with torch.save(model.state_dict(), …) or as \
             safetensors",
        )),
        _ => Err(Error::new(stranger(&head)).hint(if head.starts_with(b"version https://git-lfs") {
            "fetch the real file with `git lfs pull`"
        } else {
            KINDS
        })),
    }
}

fn sniff_zip(path: &Path) -> Result<Format> {
    let names: Vec<String> = npz::open(path)?.file_names().flatten().map(std::borrow::Cow::into_owned).collect();
    if names.iter().any(|name| name == "data.pkl" || name.ends_with("/data.pkl")) {
        return Ok(Format::PytorchZip);
    }
    if names.iter().any(|name| name.ends_with(".npy")) {
        return Ok(Format::Npz);
    }
    let first = names.first().map_or_else(String::new, |name| format!(" (its first entry is `{name}`)"));
    Err(Error::new(format!("it is a zip archive, but neither of PyTorch nor of NumPy{first}")).hint(KINDS))
}

/// Names what stands in the place of a weights file.
fn stranger(head: &[u8]) -> &'static str {
    let text = head.trim_ascii_start();
    match head {
        _ if head.starts_with(b"version https://git-lfs") => "it is a Git LFS pointer, not the file it stands for",
        _ if text.starts_with(b"<") => "it is a web page, not the file behind it",
        _ if head.starts_with(b"\x89HDF") => "it is an HDF5 file (Keras), which is not supported",
        _ if head.starts_with(b"\x1f\x8b") => "it is compressed with gzip: unpack it first",
        _ if head.get(257..262) == Some(b"ustar") => "it is a tar archive: unpack it first",
        _ => "it is of no known kind",
    }
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
        assert!(error.remedy().is_some(), "{error}");
        error
    }

    #[test]
    fn names_what_is_no_weights_file() {
        let cases: [(&[u8], &str); 9] = [
            (b"", "empty"),
            (b"hello", "no known kind"),
            (b"<!DOCTYPE html><html>", "web page"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
            (b"\x89HDF\r\n\x1a\n", "HDF5"),
            (b"\x1f\x8b\x08\x00", "gzip"),
            (b"PK\x03\x04 and no more", "archive is damaged"),
            // A pickle that would run `os.system("id")`, were it executed.
            (b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R.", "pickle"),
            (&[0xff; 64], "no known kind"),
        ];
        for (bytes, expected) in cases {
            let error = error_of(bytes);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn a_missing_file_and_a_folder_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(&folder.path().join("no.pth")).unwrap_err().to_string().contains("no such file"));
        assert!(read(folder.path()).unwrap_err().to_string().contains("not a file"));
        assert!(read(folder.path()).unwrap_err().remedy().unwrap().contains("model.safetensors"));
    }

    #[test]
    fn impossible_shapes_are_refused() {
        assert_eq!(elements("x", &[2, 3]).unwrap(), 6);
        assert_eq!(elements("x", &[]).unwrap(), 1);
        assert_eq!(elements("x", &[3, 0]).unwrap(), 0);
        assert!(elements("x", &[0, usize::MAX, 2]).is_err());
        assert!(elements("x", &[usize::MAX, 2]).is_err() && elements("x", &[usize::MAX / 4]).is_err());
    }
}
