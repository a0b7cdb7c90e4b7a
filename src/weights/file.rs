//! One file of weights, of any known kind: which one follows from its content.

use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};
use crate::weights::state::{AGAIN, StateDict, WeightFormat};
use crate::weights::{npz, pickle, safetensor};
use crate::{available_memory, files};

/// Reads one file.
pub(super) fn read(path: &Path) -> Result<StateDict> {
    let format = sniff(path)?;
    let size = std::fs::metadata(path).map_or(0, |file| file.len());
    available_memory::require(size, "reading it", "give the process more memory, or use smaller weights")?;
    match format {
        WeightFormat::PytorchLegacy => pickle::read(path, WeightFormat::PytorchLegacy),
        WeightFormat::PytorchZip => pickle::read(path, WeightFormat::PytorchZip),
        WeightFormat::Npz => npz::read(path),
        _ => safetensor::read(path),
    }
}

const KINDS: &str = "weights are read from .safetensors, .pth (torch.save of a state dict) and .npz files";

/// The first bytes of a file made by `torch.save` before 1.6: a pickle of this number, in protocol 2 and up.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

fn sniff(path: &Path) -> Result<WeightFormat> {
    let missing = |source: std::io::Error| {
        let error = Error::new("it cannot be opened");
        match source.kind() {
            std::io::ErrorKind::NotFound => {
                Error::new("there is no such file").with_missing(path).with_hint("check the path")
            }
            std::io::ErrorKind::PermissionDenied => error.with_source(source).with_hint("check the file's permissions"),
            _ => error.with_source(source),
        }
    };
    if !std::fs::metadata(path).map_err(missing)?.is_file() {
        return Err(
            Error::new("it is not a file").with_hint("pass the weights file itself, not the folder that holds it")
        );
    }
    let mut head = Vec::new();
    files::open(path).map_err(missing)?.take(512).read_to_end(&mut head).map_err(missing)?;
    let length = head.first_chunk::<8>().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
    let start = &head[..head.len().min(64)];
    match start {
        [] => Err(Error::new("the file is empty").with_hint(AGAIN)),
        _ if start.get(8) == Some(&b'{') && length <= safetensor::MAX_HEADER => Ok(WeightFormat::Safetensors),
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => sniff_zip(path),
        _ if start.windows(10).any(|window| window == LEGACY_MAGIC) => Ok(WeightFormat::PytorchLegacy),
        _ if start.get(8) == Some(&b'{') => Ok(WeightFormat::Safetensors),
        [0x80, 0..=5, ..] => Err(Error::new("it is a pickle without PyTorch's storages").with_hint(format!(
            "pickles can run code and are not executed; if you trust it and it holds NumPy arrays, write these as .npz, in \
             Python: numpy.savez(\"weights.npz\", **pickle.load(open({:?}, \"rb\"))), with [\"model\"] before the last bracket \
             where they lie in a `model` of it",
            name_of(path)
        ))),
        _ if is_onnx(&head) => Err(Error::new("it is an ONNX file, which holds a program with its weights").with_hint(
            "use the weights that it was exported from: .safetensors, .pth (torch.save of a state dict) or .npz",
        )),
        _ if head.starts_with(b"\x93NUMPY") => Err(Error::new("it is one NumPy array, and weights are several").with_hint(format!(
            "where it holds a dictionary, write that as .npz, in Python: numpy.savez(\"weights.npz\", \
             **numpy.load({:?}, allow_pickle=True).item())",
            name_of(path)
        ))),
        _ => Err(Error::new(unknown_format(&head)).with_hint(if head.starts_with(b"version https://git-lfs") {
            "fetch the real file with `git lfs pull`"
        } else {
            KINDS
        })),
    }
}

/// A protobuf whose first field is a small version and whose second is the name of who wrote it.
fn is_onnx(head: &[u8]) -> bool {
    matches!(head, [8, 1..=30, 18, length, rest @ ..]
        if *length > 0 && rest.iter().take((*length).into()).all(u8::is_ascii_graphic))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn sniff_zip(path: &Path) -> Result<WeightFormat> {
    let names: Vec<String> = npz::open(path)?.file_names().flatten().map(std::borrow::Cow::into_owned).collect();
    if let Some(code) = names.iter().find(|name| name.contains("/code/__torch__")) {
        return Err(Error::new(format!("it is a TorchScript program (it holds `{code}`)")).with_hint(format!(
            "save its weights alone, in Python: torch.save(torch.jit.load({:?}).state_dict(), \"weights.pth\")",
            name_of(path)
        )));
    }
    if names.iter().any(|name| name == "data.pkl" || name.ends_with("/data.pkl")) {
        return Ok(WeightFormat::PytorchZip);
    }
    if names.iter().any(|name| name.ends_with(".npy")) {
        return Ok(WeightFormat::Npz);
    }
    let first = names.first().map_or_else(String::new, |name| format!(" (its first entry is `{name}`)"));
    Err(Error::new(format!("it is a zip archive, but neither of PyTorch nor of NumPy{first}")).with_hint(KINDS))
}

/// Names what stands in the place of a weights file.
fn unknown_format(head: &[u8]) -> &'static str {
    let text = head.trim_ascii_start();
    match head {
        _ if head.starts_with(b"version https://git-lfs") => "it is a Git LFS pointer, not the file itself",
        _ if text.starts_with(b"<") => "it is a web page, not the file behind it",
        _ if head.starts_with(b"\x89HDF") => "it is an HDF5 file (Keras), which is not supported",
        _ if head.starts_with(b"GGUF") => "it is a GGUF file (llama.cpp), which is not supported",
        _ if head.starts_with(b"\x1f\x8b") => "it is compressed with gzip: unpack it first",
        _ if head.get(257..262) == Some(b"ustar") => "it is a tar archive: unpack it first",
        _ => "its format is not known",
    }
}
