//! Weights in several files, as Hugging Face keeps them: an index names the file of every tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::files;
use crate::weights::file;
use crate::weights::state::StateDict;

/// The most files that an index may name.
const MAX_FILES: usize = 1000;

/// What files are called in a folder of weights, the preferred one first.
const NAMES: [&str; 4] =
    ["model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin"];

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The file to read for `path`: itself, or the weights in the folder that it is.
pub(super) fn file_of(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_path_buf());
    }
    let found = NAMES.iter().map(|name| path.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        Error::new("it is a folder, not a file, and holds no weights under a name that is known")
            .with_hint(format!("pass the weights file itself, or a folder with one of {}", NAMES.join(", ")))
    })
}

/// Whether the file is an index by its name.
pub(super) fn is_index(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(".index.json"))
}

/// The tensors of all files that the index at `path` names, which lie beside it.
pub(super) fn read(path: &Path) -> Result<StateDict> {
    let text = files::read(path, files::TEXT)
        .map_err(|cause| Error::new("it cannot be read").with_source(cause).with_hint(GIVE))?;
    let index: Index = serde_json::from_slice(&text)
        .map_err(|cause| Error::new("it is not an index of weights").with_source(cause).with_hint(GIVE))?;
    let names: BTreeSet<&String> = index.weight_map.values().collect();
    if names.len() > MAX_FILES {
        return Err(
            Error::new(format!("it names {} files, and {MAX_FILES} at most are read", names.len())).with_hint(GIVE)
        );
    }
    let mut whole: Option<StateDict> = None;
    for file in names {
        let plain =
            Path::new(file).file_name().is_some_and(|name| name == file.as_str()) && !file.contains(['/', '\\']);
        if !plain {
            return Err(Error::new(format!("it names the file `{file}`, which is not next to it")).with_hint(GIVE));
        }
        let part = file::read(&path.with_file_name(file))
            .map_err(|cause| Error::new(format!("its file `{file}`")).with_source(cause))?;
        let Some(whole) = &mut whole else {
            whole = Some(part);
            continue;
        };
        for (name, tensor) in part.tensors {
            if whole.tensors.insert(name.clone(), tensor).is_some() {
                return Err(Error::new(format!("`{name}` is in two of its files")).with_hint(GIVE));
            }
        }
        whole.dtypes.extend(part.dtypes);
    }
    let whole = whole.unwrap_or_default();
    match index.weight_map.keys().find(|name| !whole.tensors.contains_key(*name)) {
        Some(name) => Err(Error::new(format!("none of its files holds `{name}`")).with_hint(GIVE)),
        None => Ok(whole),
    }
}

const GIVE: &str = "get the whole folder again from its source, or use a file of weights: .safetensors, .pth or .npz";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::read;
    use crate::weights::state::WeightFormat;

    fn shard(path: &Path, name: &str, value: f32) {
        let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &value.to_le_bytes()].concat();
        std::fs::write(path, bytes).unwrap();
    }

    fn folder(map: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        shard(&folder.path().join("model-1.safetensors"), "a.weight", 1.0);
        shard(&folder.path().join("model-2.safetensors"), "b.weight", 2.0);
        let map: BTreeMap<_, _> = map.iter().copied().collect();
        let index = serde_json::json!({"metadata": {"total_size": 8}, "weight_map": map}).to_string();
        std::fs::write(folder.path().join(NAMES[0]), index).unwrap();
        folder
    }

    #[test]
    fn an_index_or_its_folder_gives_all_files() {
        let folder = folder(&[("a.weight", "model-1.safetensors"), ("b.weight", "model-2.safetensors")]);
        for path in [folder.path().to_owned(), folder.path().join(NAMES[0])] {
            let state = read(&path).unwrap();
            assert_eq!((state.tensors["a.weight"].data[0], state.tensors["b.weight"].data[0]), (1.0, 2.0));
            assert_eq!((state.format, state.dtypes.len()), (WeightFormat::Safetensors, 2));
        }
        std::fs::rename(folder.path().join("model-2.safetensors"), folder.path().join(NAMES[1])).unwrap();
        std::fs::remove_file(folder.path().join(NAMES[0])).unwrap();
        assert_eq!(read(folder.path()).unwrap().tensors.len(), 1, "a folder with one file");
    }

    #[test]
    fn an_index_that_cannot_be_is_refused() {
        let cases: [(&[(&str, &str)], &str); 6] = [
            (&[("a.weight", "model-1.safetensors"), ("c", "model-2.safetensors")], "none of its files holds `c`"),
            (&[("a.weight", "model-3.safetensors")], "model-3.safetensors"),
            (&[("a.weight", "../model-1.safetensors")], "not next to it"),
            (&[("a.weight", "/etc/passwd")], "not next to it"),
            (&[("a.weight", "model.safetensors.index.json")], "model.safetensors.index.json"),
            (&[], "no tensors"),
        ];
        for (map, expected) in cases {
            let folder = folder(map);
            let error = read(folder.path()).unwrap_err();
            assert!(error.to_string().contains(expected) && error.hint().is_some(), "{error}");
        }
        let folder = folder(&[]);
        std::fs::write(folder.path().join(NAMES[0]), "[").unwrap();
        assert!(read(folder.path()).unwrap_err().to_string().contains("not an index of weights"));
    }
}
