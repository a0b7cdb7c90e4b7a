//! One file that describes itself: safetensors in f32 or f16, with what is needed to use it in the metadata.

use std::collections::BTreeMap;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::Path;

use burn::module::Module;
use half::f16;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::files;
use crate::layers::Gridded;
use crate::weights::parameters::{each_value, named_parameters};
use crate::weights::position_table::GRID_METADATA;
use crate::weights::safetensor::read_header;

/// Writes the module's parameters and `metadata` to `path`, and with them the grid of its positions.
///
/// The same module and metadata give the same bytes. The file is written beside its place, flushed to the disk and then
/// renamed: whoever looks sees the old file or the whole new one. One parameter at a time is copied to CPU memory.
///
/// # Errors
///
/// If the file cannot be written; the old one is then untouched, and nothing is left beside it.
pub fn save<M: Module + Gridded>(path: &Path, module: &M, metadata: &BTreeMap<String, String>) -> Result<()> {
    save_as(Stored::F32, path, module, metadata)
}

/// As [`save`], with every value rounded to 16 bits: half the bytes.
///
/// # Errors
///
/// As [`save`]; also a value that 16 bits do not reach.
pub fn save_f16<M: Module + Gridded>(path: &Path, module: &M, metadata: &BTreeMap<String, String>) -> Result<()> {
    ensure_f16(module)?;
    save_as(Stored::F16, path, module, metadata)
}

/// The type of the values in a file.
#[derive(Clone, Copy)]
enum Stored {
    F32,
    F16,
}

/// Fails if a finite parameter is too large for 16 bits.
fn ensure_f16<M: Module>(module: &M) -> Result<()> {
    let mut found = None;
    each_value(module, |name, tensor| {
        let lost = |value: &&f32| value.is_finite() && f16::from_f32(**value).is_infinite();
        found = found.take().or_else(|| tensor.data.iter().find(lost).map(|value| (name.to_owned(), *value)));
    });
    match found {
        None => Ok(()),
        Some((name, value)) => Err(Error::new(format!("`{name}` holds {value}, and 16 bits reach to 65504 only"))
            .with_hint("keep the weights in 32 bits")),
    }
}

fn save_as<M: Module + Gridded>(
    stored: Stored,
    path: &Path,
    module: &M,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let mut metadata = metadata.clone();
    if let Some((rows, columns)) = module.grid() {
        metadata.insert(GRID_METADATA.to_owned(), format!("{rows}x{columns}"));
    }
    files::write_with(path, |file| write(stored, &mut BufWriter::new(file), module, &metadata))
}

/// Reads the strings a safetensors file carries, without its tensors.
///
/// # Errors
///
/// If the file cannot be read, or is not safetensors.
pub fn read_metadata(path: &Path) -> Result<BTreeMap<String, String>> {
    let file = files::open(path).map_err(|cause| Error::file("read", path, cause).with_hint("check the path"))?;
    let header = read_header(&mut BufReader::new(file), path).map_err(|cause| Error::file("read", path, cause))?;
    Ok(header.metadata)
}

fn write<M: Module>(
    stored: Stored,
    file: &mut impl Write,
    module: &M,
    metadata: &BTreeMap<String, String>,
) -> io::Result<()> {
    let (dtype, size) = match stored {
        Stored::F32 => ("F32", 4),
        Stored::F16 => ("F16", 2),
    };
    let mut header = Map::new();
    // PyTorch's tools look for this key.
    let format = ("format".to_owned(), "pt".to_owned());
    let metadata: BTreeMap<String, String> = std::iter::once(format).chain(metadata.clone()).collect();
    header.insert("__metadata__".to_owned(), json!(metadata));
    let mut end = 0;
    for (name, shape, _) in named_parameters(module) {
        let start = end;
        end += shape.iter().product::<usize>() * size;
        header.insert(name, json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]}));
    }
    let mut text = serde_json::to_vec(&Value::Object(header))?;
    // Tensors start at a multiple of eight bytes.
    text.resize(text.len().next_multiple_of(8), b' ');
    file.write_all(&(text.len() as u64).to_le_bytes())?;
    file.write_all(&text)?;
    let mut outcome = Ok(());
    each_value(module, |_, tensor| {
        if outcome.is_ok() {
            let values = tensor.data.iter();
            let bytes: Vec<u8> = match stored {
                Stored::F32 => values.flat_map(|value| value.to_le_bytes()).collect(),
                Stored::F16 => values.flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
            };
            outcome = file.write_all(&bytes);
        }
    });
    outcome.and_then(|()| file.flush())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::parameters::tests::model;
    use crate::weights::parameters::{replace_values, round_to_f16};
    use crate::weights::{HostTensor, LoadOptions, load, read, state_of};
    use burn::prelude::Device;

    fn metadata() -> BTreeMap<String, String> {
        [("classes", "road, \"sky\", Straße\n"), ("grid", "2x3")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    fn entries(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_saved_model_reads_back_alike() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let module = model(4, 2, 3, (2, 3), "a", &Device::flex().autodiff());
        save(&path, &module, &metadata()).unwrap();
        let first = std::fs::read(&path).unwrap();
        save(&path, &module, &metadata()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), first, "the same bytes");
        assert_eq!(entries(folder.path()), ["model.safetensors"]);

        let state = read(&path).unwrap();
        assert_eq!(state.tensors, state_of(&module).tensors);
        let mut expected = metadata();
        expected.insert("format".into(), "pt".into());
        assert_eq!((&state.metadata, &read_metadata(&path).unwrap()), (&expected, &expected));
        let other = model(4, 2, 3, (2, 3), "b", &Device::flex());
        let (loaded, report) = load(other, &state, &LoadOptions::strict()).unwrap();
        assert!(report.resized.is_empty());
        assert_eq!(state_of(&loaded).tensors, state.tensors);
        // The public reader agrees that the file is well formed.
        let parsed = safetensors::SafeTensors::deserialize(&first).unwrap();
        assert_eq!(parsed.tensor("decoder.kernels").unwrap().shape(), [1, 3, 2, 3]);
        assert_eq!(u64::from_le_bytes(*first.first_chunk().unwrap()) % 8, 0);
    }

    #[test]
    fn sixteen_bits_read_back_as_the_rounded_values() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let module = model(4, 2, 3, (2, 3), "a", &Device::flex());
        save_f16(&path, &module, &metadata()).unwrap();
        let (read, whole) = (read(&path).unwrap(), state_of(&module));
        let rounded = state_of(&round_to_f16(model(4, 2, 3, (2, 3), "a", &Device::flex())));
        assert_eq!(read.tensors, rounded.tensors);
        assert_ne!(read.tensors, whole.tensors);
        assert!(read.dtypes.values().all(|kind| *kind == "f16"));
        save_f16(&path, &round_to_f16(module), &metadata()).unwrap();
        assert_eq!(crate::weights::read(&path).unwrap(), read);

        let large = replace_values(model(4, 2, 3, (2, 3), "a", &Device::flex()), |name| {
            (name == "decoder.kernels").then(|| HostTensor { shape: vec![1, 3, 2, 3], data: vec![1e5; 18] })
        });
        let error = save_f16(&path, &large, &metadata()).unwrap_err();
        assert!(error.to_string().contains("`decoder.kernels` holds 100000") && error.hint().is_some(), "{error}");
        assert_eq!(crate::weights::read(&path).unwrap(), read, "the old file stays");
    }

    #[test]
    fn a_disk_that_fills_up_is_an_error() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let module = model(4, 2, 3, (2, 3), "a", &Device::flex());
        let mut whole = Vec::new();
        write(Stored::F32, &mut whole, &module, &metadata()).unwrap();
        for room in (0..whole.len()).step_by(37) {
            assert_eq!(
                write(Stored::F32, &mut Full(room), &module, &metadata()).unwrap_err().kind(),
                io::ErrorKind::StorageFull
            );
        }
        write(Stored::F32, &mut Full(whole.len()), &module, &metadata()).unwrap();
    }

    #[test]
    fn places_that_cannot_be_written_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let module = model(2, 1, 3, (1, 1), "a", &Device::flex());
        std::fs::write(folder.path().join("file"), "").unwrap();
        let error = save(&folder.path().join("file/model.safetensors"), &module, &metadata()).unwrap_err();
        assert!(error.to_string().contains("file/model") && error.hint().is_some(), "{error}");
        let taken = folder.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        let error = save(&taken, &module, &metadata()).unwrap_err();
        assert!(error.to_string().contains("taken"), "{error}");
        assert_eq!(entries(folder.path()), ["file", "taken"]);
        assert!(save(Path::new("/"), &module, &metadata()).is_err());
    }
}
