//! A dataset that no longer lies where its description, or a model file, says.

use std::borrow::Cow;
use std::path::{Component, Path, PathBuf};

use crate::dataset::spec::DatasetSpec;

/// Folders around a model file in which its dataset is looked for.
const AROUND: usize = 6;

impl DatasetSpec {
    /// This with the folder that its paths are relative to. `root` takes the place of that folder; in a description
    /// with absolute paths, as a run has, it takes the place of the folder that all of these are below, and lists stay
    /// beside the TOML.
    pub fn below(&self, root: Option<&Path>) -> (Cow<'_, Self>, PathBuf) {
        let own = self.file.parent().unwrap_or(Path::new("")).join(self.root.as_deref().unwrap_or(Path::new("")));
        let Some(root) = root else { return (Cow::Borrowed(self), own) };
        let Some(common) = self.common_folder() else { return (Cow::Borrowed(self), root.to_path_buf()) };
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_path_buf());
        // `root` may stand for a folder further out, where all that is absolute is `SET/images`.
        let there = |outer: &&Path| {
            self.absolute().all(|path| path.strip_prefix(outer).is_ok_and(|inner| root.join(inner).exists()))
        };
        let outer = common.ancestors().take(3).filter(there).last().unwrap_or(&common);
        let mut moved = self.clone();
        for split in [&mut moved.train, &mut moved.val, &mut moved.test].into_iter().flatten() {
            for path in [Some(&mut split.images), Some(&mut split.masks), split.list.as_mut()].into_iter().flatten() {
                if let Some(inner) = path.strip_prefix(outer).ok().filter(|_| path.is_absolute()) {
                    *path = if inner == Path::new("") { root.clone() } else { root.join(inner) };
                }
            }
        }
        (Cow::Owned(moved), own)
    }

    /// The folders of images and masks that are absolute.
    fn absolute(&self) -> impl Iterator<Item = &PathBuf> {
        let splits = [&self.train, &self.val, &self.test].into_iter().flatten();
        splits.flat_map(|split| [&split.images, &split.masks]).filter(|path| path.is_absolute())
    }

    /// The innermost folder that all absolute ones are, or are below.
    fn common_folder(&self) -> Option<PathBuf> {
        let first = self.absolute().next()?;
        let common = first.ancestors().find(|outer| self.absolute().all(|path| path.starts_with(outer)));
        common.map(Path::to_path_buf)
    }
}

/// A dataset that was found again.
pub(crate) struct MovedDataset {
    /// Its description.
    pub(crate) toml: PathBuf,
    /// Where its images and masks are now, if these have moved too.
    pub(crate) root: Option<PathBuf>,
}

/// Looks for the description that was at `old` beside the file `model` and in the folders around it, under as much of
/// its path as is the same there. It has to be what `is_it` accepts.
pub(crate) fn find(old: &Path, model: &Path, is_it: impl Fn(&DatasetSpec) -> bool) -> Option<MovedDataset> {
    let model = std::path::absolute(model).ok()?;
    let parts: Vec<Component<'_>> = old.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let read = |path: PathBuf| path.is_file().then(|| DatasetSpec::read(&path).ok()).flatten().filter(&is_it);
    let spec = model.ancestors().skip(1).take(AROUND).find_map(|folder| {
        (0..parts.len()).find_map(|from| read(folder.join(parts[from..].iter().collect::<PathBuf>())))
    })?;
    let toml = spec.file.clone();
    // What was moved together with it has the same path relative to it.
    let root = spec.common_folder().filter(|folder| !folder.exists()).and_then(|folder| {
        let holds_all = |now: &PathBuf| {
            spec.absolute().all(|path| path.strip_prefix(&folder).is_ok_and(|inner| now.join(inner).is_dir()))
        };
        let moved_along = || Some(normal(&toml.parent()?.join(relative_path(old.parent()?, &folder)?)));
        // From a relative description there is no path to it: then it lies around it, under the end of its path.
        let parts: Vec<Component<'_>> =
            folder.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        let around = || {
            toml.ancestors().skip(1).take(AROUND).find_map(|near| {
                (0..parts.len()).map(|from| near.join(parts[from..].iter().collect::<PathBuf>())).find(&holds_all)
            })
        };
        moved_along().filter(|now| now.is_dir()).or_else(around)
    });
    Some(MovedDataset { toml, root })
}

/// The relative path from one absolute folder to another.
fn relative_path(from: &Path, to: &Path) -> Option<PathBuf> {
    let common = from.ancestors().find(|common| to.starts_with(common))?;
    let up = from.strip_prefix(common).ok()?.components().map(|_| Component::ParentDir);
    Some(up.collect::<PathBuf>().join(to.strip_prefix(common).ok()?))
}

/// Without `..` after a folder.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(normal.pop()),
            part => normal.push(part),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(folder: &Path, toml: &str, images: &Path, masks: &Path) -> DatasetSpec {
        let text = format!(
            "name = 'x'\nclasses = ['a', 'b']\n[train]\nimages = {:?}\nmasks = {:?}\nlist = 'train.txt'\n",
            images.display().to_string(),
            masks.display().to_string()
        );
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join(toml), text).unwrap();
        DatasetSpec::read(&folder.join(toml)).unwrap()
    }

    #[test]
    fn a_root_takes_the_place_of_absolute_folders() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for folder in ["new/images", "new/masks", "drawn/run-masks"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        let spec = described(&at("run"), "dataset.toml", &at("old/images"), &at("old/masks"));
        let (moved, base) = spec.below(Some(&at("new")));
        let train = moved.train.clone().unwrap();
        assert_eq!((train.images, train.masks, base), (at("new/images"), at("new/masks"), at("run")));
        assert_eq!(train.list.unwrap(), Path::new("train.txt"), "lists stay beside the TOML");
        // Of one absolute folder the root may be itself or the one around it.
        let spec = described(&at("run"), "dataset.toml", &at("old/images"), Path::new("run-masks"));
        for root in ["new", "new/images"] {
            assert_eq!(spec.below(Some(&at(root))).0.train.clone().unwrap().images, at("new/images"), "{root}");
        }
        // Without absolute paths all are below the root.
        let spec = described(&at("run"), "dataset.toml", Path::new("images"), Path::new("masks"));
        let (same, base) = spec.below(Some(&at("new")));
        assert_eq!((same.as_ref(), base), (&spec, at("new")));
        assert_eq!(spec.below(None).1, at("run"));
    }

    #[test]
    fn a_description_is_found_again_from_the_model() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        // The whole project was moved from /gone/p, its images with it.
        std::fs::create_dir_all(at("p/set/images")).unwrap();
        let (old, images) = (Path::new("/gone/p/runs/a/dataset.toml"), Path::new("/gone/p/set/images"));
        let spec = described(&at("p/runs/a"), "dataset.toml", images, Path::new("/gone/p/set/masks"));
        let found = find(old, &at("p/runs/a/model.safetensors"), |other| other.classes == spec.classes).unwrap();
        assert_eq!((found.toml, found.root), (at("p/runs/a/dataset.toml"), Some(at("p/set"))));
        // A TOML of the project, and a model elsewhere in it.
        described(&at("p/data"), "set.toml", Path::new("images"), Path::new("masks"));
        let found = find(Path::new("/gone/p/data/set.toml"), &at("p/runs/a/model.safetensors"), |_| true).unwrap();
        assert_eq!((found.toml, found.root), (at("p/data/set.toml"), None));
        let relative = find(Path::new("data/set.toml"), &at("p/runs/a/model.safetensors"), |_| true).unwrap();
        assert_eq!(relative.toml, at("p/data/set.toml"));
        // Another set under that name is not it.
        assert!(find(old, &at("p/runs/a/model.safetensors"), |_| false).is_none());
        assert!(find(Path::new("/gone/q/none.toml"), &at("p/runs/a/model.safetensors"), |_| true).is_none());
    }
}
