//! Models that a build carries: files beside the program, pinned by their SHA-256. `@nuclei` stands for one in a
//! command.
//!
//! They are looked for in the folder that `STRUCTTOKEN_MODELS` names, else where the program was told ([`set_folder`]),
//! else in `models` beside the program, in `../share/structtoken/models` from there, and in the repository that the
//! program was built from.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::files::checksum::sha256;
use crate::text;

/// A model that is published with the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BundledModel {
    /// What it is called, after `@`.
    pub name: &'static str,
    /// The SHA-256 of its file, `NAME.safetensors`, in lower-case hexadecimal digits.
    pub sha256: &'static str,
    /// What it labels, in a line.
    pub about: &'static str,
}

/// Those of this version.
pub const MODELS: &[BundledModel] = &[BundledModel {
    name: "nuclei",
    sha256: "c6f3832d0d366bde0bf76f1643491b8ac22157aa520d69f9496bbc94f1cf06f5",
    about: "nuclei in microscope images",
}];

/// The environment variable that names their folder.
const VARIABLE: &str = "STRUCTTOKEN_MODELS";

/// Where they lie in the repository: in the Python package, whose wheel takes them from there.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bindings/python/python/structtoken/models");

static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// Says where the files lie, for programs that bring them; the first time counts.
pub fn set_folder(folder: impl Into<PathBuf>) {
    let _ = FOLDER.set(folder.into());
}

/// The models that this build carries: those of [`MODELS`] whose files are there, with their paths. The files are not
/// read.
#[must_use]
pub fn carried() -> Vec<(BundledModel, PathBuf)> {
    carried_of(MODELS, folder().as_deref())
}

/// The file that a model's argument stands for: of `@NAME` that of the bundled model, whose checksum holds; any other
/// path, and a file that is called so, is itself.
///
/// # Errors
/// No such model, a build that carries none, or a file that is not the published one.
pub fn resolve(path: &Path) -> Result<PathBuf> {
    resolve_of(path, MODELS, folder().as_deref())
}

/// Whether `path` is a name such as `@nuclei`, whether a build carries that or not, and no file that is called so.
#[must_use]
pub fn is_name(path: &Path) -> bool {
    name_in(path).is_some()
}

/// The name after `@`.
fn name_in(path: &Path) -> Option<&str> {
    path.to_str().and_then(|text| text.strip_prefix('@')).filter(|_| !path.exists())
}

fn folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(VARIABLE).filter(|folder| !folder.is_empty()) {
        return Some(folder.into());
    }
    if let Some(folder) = FOLDER.get() {
        return Some(folder.clone());
    }
    let program = std::env::current_exe().ok();
    let beside = program.as_deref().and_then(Path::parent).map(|folder| folder.join("models"));
    let installed = program.as_deref().and_then(Path::parent).and_then(Path::parent);
    let installed = installed.map(|folder| folder.join("share/structtoken/models"));
    [beside, installed, Some(PathBuf::from(SOURCE))].into_iter().flatten().find(|folder| folder.is_dir())
}

fn carried_of(models: &[BundledModel], folder: Option<&Path>) -> Vec<(BundledModel, PathBuf)> {
    let Some(folder) = folder else { return Vec::new() };
    let file = |model: &BundledModel| folder.join(format!("{}.safetensors", model.name));
    models.iter().map(|model| (*model, file(model))).filter(|(_, file)| file.is_file()).collect()
}

fn resolve_of(path: &Path, models: &[BundledModel], folder: Option<&Path>) -> Result<PathBuf> {
    let Some(name) = name_in(path) else { return Ok(path.to_owned()) };
    let carried = carried_of(models, folder);
    let Some((model, file)) = carried.iter().find(|(model, _)| model.name == name) else {
        return Err(missing(name, models, &carried));
    };
    let found =
        File::open(file).and_then(sha256).map_err(|error| Error::file("read the bundled model", file, error))?;
    if found != model.sha256 {
        return Err(Error::new(format!(
            "`{}` is not the published model `@{name}`: its SHA-256 is {found} instead of {}",
            file.display(),
            model.sha256
        ))
        .with_hint("install the program again, or pass the path of a model file instead of its name"));
    }
    Ok(file.clone())
}

fn missing(name: &str, models: &[BundledModel], carried: &[(BundledModel, PathBuf)]) -> Error {
    let known = models.iter().any(|model| model.name == name);
    let error = |message: String| Error::new(message).with_missing(Path::new(&format!("@{name}")));
    if carried.is_empty() {
        let message = match known {
            true => format!("this build does not carry the model `@{name}`"),
            false => format!("there is no model `@{name}`: this build carries none"),
        };
        return error(message).with_hint(
            "pass the path of a model file that training wrote; of a file with such a name, ./ and its name",
        );
    }
    let near = carried.iter().map(|(model, _)| model.name).min_by_key(|known| text::distance(known, name));
    error(format!("there is no model `@{name}`")).with_hint(format!(
        "`structtoken models` lists those of this build{}",
        near.map_or(String::new(), |near| format!("; did you mean `@{near}`?"))
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: BundledModel = BundledModel {
        name: "abc",
        // Of the bytes `abc`, as FIPS 180-2 has it.
        sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        about: "three letters",
    };

    #[test]
    fn a_name_is_a_file_with_the_published_checksum() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("abc.safetensors");
        let find = |name: &str| resolve_of(Path::new(name), &[ABC], Some(folder.path()));
        let error = find("@abc").unwrap_err();
        assert!(error.to_string().contains("does not carry the model `@abc`") && error.hint().is_some(), "{error}");
        std::fs::write(&file, "abc").unwrap();
        assert_eq!(find("@abc").unwrap(), file);
        assert_eq!(find("runs/@abc").unwrap(), Path::new("runs/@abc"));
        let error = find("@abd").unwrap_err();
        assert!(error.hint().unwrap().contains("did you mean `@abc`?"), "{error}");
        std::fs::write(&file, "abd").unwrap();
        let error = find("@abc").unwrap_err().to_string();
        assert!(error.contains("not the published model") && error.contains(ABC.sha256), "{error}");
    }

    #[test]
    fn what_is_published_is_in_the_repository() {
        for model in MODELS {
            let file = Path::new(SOURCE).join(format!("{}.safetensors", model.name));
            assert_eq!(
                resolve_of(Path::new(&format!("@{}", model.name)), MODELS, Some(Path::new(SOURCE))).unwrap(),
                file
            );
            assert!(std::fs::metadata(&file).unwrap().len() < 12_000_000, "{}", file.display());
            let card = std::fs::read_to_string(file.with_extension("md")).unwrap();
            assert!(card.contains(model.sha256), "its card names another file");
        }
    }

    #[test]
    fn a_build_without_models_says_so() {
        for folder in [None, Some(Path::new("nowhere"))] {
            let error = resolve_of(Path::new("@nuclei"), &[], folder).unwrap_err();
            assert_eq!(error.to_string(), "there is no model `@nuclei`: this build carries none");
            assert!(error.hint().unwrap().contains("pass the path of a model file"));
        }
    }
}
