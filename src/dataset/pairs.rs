//! Which image belongs to which mask, and what stands in the way.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::dataset::Split;
use crate::dataset::accents::ByName;
use crate::dataset::join::{Joiner, MaskPart};
use crate::dataset::spec::{DatasetSpec, SplitSpec};
use crate::dataset::walk::{Walked, walk};
use crate::error::{Error, ErrorKind, Result};
use crate::files;

/// The endings of images where the description names none.
pub(crate) const SUFFIXES: [&str; 8] = [".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp"];

/// An image and its mask, or its masks.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    /// The image's path below its folder, without ending.
    pub(crate) stem: String,
    pub(crate) image: PathBuf,
    /// Of several masks the first.
    pub(crate) mask: PathBuf,
    /// All masks, where several become one; else empty.
    pub(crate) parts: Vec<MaskPart>,
}

/// The pairs of one split, and all that is wrong with them as far as names tell.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    /// Images whose mask is there, in the order of their names, or of the list where there is one.
    pub(crate) pairs: Vec<Pair>,
    /// Images whose mask is not there.
    pub(crate) lacking: Vec<Pair>,
    /// What stops training, in the order it would be met.
    pub(crate) problems: Vec<Problem>,
    /// What was found below the folder of images; empty where a list says what to look for.
    pub(crate) walked: Walked,
}

/// Why the files of a split cannot be told.
#[derive(Debug)]
pub(crate) enum Problem {
    /// A folder of images that cannot be read.
    Folder(PathBuf, io::Error),
    /// A folder of masks that cannot be read.
    Masks(PathBuf, io::Error),
    /// A mask that two images would have.
    SameMask { mask: PathBuf, images: [PathBuf; 2] },
    /// Two images with one stem, hence with one mask.
    SameStem(PathBuf, PathBuf),
    /// A list that cannot be read.
    List(PathBuf, io::Error),
    /// A list that names an image again.
    ListedTwice { list: PathBuf, line: usize, before: usize, stem: String },
    /// A list that names an image which is not there.
    NotThere { list: PathBuf, line: usize, stem: String, images: PathBuf },
}

impl Pairs {
    /// Looks for the files of a split below `base`, where each image has one mask.
    pub(crate) fn find(base: &Path, files: &SplitSpec) -> Self {
        Self::find_joined(base, files, None)
    }

    /// All images below a split's folder, whatever its list says: stems and files.
    pub(crate) fn images(base: &Path, files: &SplitSpec) -> Vec<(String, PathBuf)> {
        Self::default().found(&base.join(&files.images), files)
    }

    /// The same; with a `joiner`, each image may have several masks.
    pub(crate) fn find_joined(base: &Path, files: &SplitSpec, joiner: Option<&Joiner>) -> Self {
        let (images, masks) = (base.join(&files.images), base.join(&files.masks));
        let mut pairs = Self::default();
        let stems = match &files.list {
            Some(list) => pairs.listed(&images, &base.join(list), files),
            None => pairs.found(&images, files),
        };
        if let Some(joiner) = joiner {
            pairs.join(stems, &masks, joiner, files.images == files.masks && files.list.is_none());
            return pairs;
        }
        let by_name = ByName::below(&masks);
        let pair = |(stem, image): (String, PathBuf)| {
            let mask = by_name.path(&format!("{stem}{}", files.mask_suffix));
            Pair { stem, image, mask, parts: Vec::new() }
        };
        (pairs.pairs, pairs.lacking) = stems.into_iter().map(pair).partition(|pair| pair.mask.is_file());
        pairs
    }

    /// Gives each image all its masks. `among`: masks lie among the images, and are none.
    fn join(&mut self, stems: Vec<(String, PathBuf)>, masks: &Path, joiner: &Joiner, among: bool) {
        let mut present = walk(masks);
        let unreadable = present.unreadable.drain(..).map(|(folder, error)| Problem::Masks(folder, error));
        self.problems.extend(unreadable);
        let names = &present.files;
        let found: Vec<Vec<(usize, usize)>> = stems.iter().map(|(stem, _)| joiner.find(stem, names)).collect();
        let taken: HashSet<&Path> =
            found.iter().flatten().map(|(_, at)| names[*at].1.as_path()).filter(|_| among).collect();
        let mut owners: HashMap<usize, &Path> = HashMap::new();
        for ((stem, image), found) in stems.iter().zip(found) {
            if taken.contains(image.as_path()) {
                continue;
            }
            for (_, at) in &found {
                if let Some(other) = owners.insert(*at, image) {
                    let mask = names[*at].1.clone();
                    self.problems.push(Problem::SameMask { mask, images: [other.to_path_buf(), image.clone()] });
                }
            }
            let part = |(rule, at): (usize, usize)| MaskPart { rule, path: names[at].1.clone() };
            let parts: Vec<MaskPart> = found.into_iter().map(part).collect();
            let wanted = || masks.join(joiner.file(0, stem).unwrap_or_default());
            let mask = parts.first().map_or_else(wanted, |part| part.path.clone());
            let list = if parts.is_empty() { &mut self.lacking } else { &mut self.pairs };
            list.push(Pair { stem: stem.clone(), image: image.clone(), mask, parts });
        }
    }

    /// The pairs, where nothing is wrong with them.
    ///
    /// # Errors
    /// The first that is wrong; no images at all; images without masks.
    pub(crate) fn sound(self, spec: &DatasetSpec, split: Split, base: &Path, files: &SplitSpec) -> Result<Vec<Pair>> {
        if let Some(problem) = self.problems.first() {
            return Err(problem.error(files));
        }
        if let Some(first) = self.lacking.first() {
            let (lacking, all) = (self.lacking.len(), self.lacking.len() + self.pairs.len());
            return Err(lacks_mask(first, lacking, all, &base.join(&files.masks), files));
        }
        if self.pairs.is_empty() {
            return Err(is_empty(&spec.name, split, base, files));
        }
        Ok(self.pairs)
    }

    /// All images below a folder, by stem.
    fn found(&mut self, images: &Path, files: &SplitSpec) -> Vec<(String, PathBuf)> {
        self.walked = walk(images);
        let unreadable = self.walked.unreadable.drain(..).map(|(folder, error)| Problem::Folder(folder, error));
        self.problems.extend(unreadable);
        let mut stems = BTreeMap::new();
        for (name, path) in &self.walked.files {
            let Some(stem) = stem(name, files) else { continue };
            match stems.entry(stem.to_string()) {
                Entry::Vacant(entry) => drop(entry.insert(path.clone())),
                Entry::Occupied(entry) => self.problems.push(Problem::SameStem(entry.get().clone(), path.clone())),
            }
        }
        stems.into_iter().collect()
    }

    /// The images that a list names, in its order.
    fn listed(&mut self, images: &Path, list: &Path, files: &SplitSpec) -> Vec<(String, PathBuf)> {
        let text = match files::read_text(list, files::RECORD) {
            Ok(text) => text,
            Err(error) => {
                self.problems.push(Problem::List(list.to_path_buf(), error));
                return Vec::new();
            }
        };
        let mut lines: BTreeMap<&str, usize> = BTreeMap::new();
        let mut stems = Vec::new();
        let by_name = ByName::below(images);
        for (number, name) in text.lines().map(str::trim).enumerate().filter(|(_, name)| !name.is_empty()) {
            let (stem, line, list) = (stem(name, files).unwrap_or(name), number + 1, list.to_path_buf());
            if let Some(before) = lines.insert(stem, line) {
                self.problems.push(Problem::ListedTwice { list, line, before, stem: stem.to_string() });
                continue;
            }
            let candidates: Vec<PathBuf> = match &files.image_suffix {
                Some(suffix) => vec![by_name.path(&format!("{stem}{suffix}"))],
                None => SUFFIXES
                    .iter()
                    .flat_map(|suffix| [suffix.to_string(), suffix.to_ascii_uppercase()])
                    .map(|suffix| by_name.path(&format!("{stem}{suffix}")))
                    .collect(),
            };
            match candidates.iter().find(|path| path.is_file()) {
                Some(image) => stems.push((stem.to_string(), image.clone())),
                None => {
                    let (stem, images) = (stem.to_string(), images.to_path_buf());
                    self.problems.push(Problem::NotThere { list, line, stem, images });
                }
            }
        }
        stems
    }
}

/// What to pass for a set that lies elsewhere; the program makes the whole command of it.
const ROOT: &str = "if the dataset is elsewhere, replace DIR by its folder in: --set data.root=DIR";

impl Problem {
    /// The problem with its remedy.
    pub(crate) fn error(&self, files: &SplitSpec) -> Error {
        match self {
            Self::Folder(folder, error) => unreadable("read the folder", folder, error)
                .with_hint(format!("check `images` of the dataset's TOML and its root; {ROOT}")),
            Self::Masks(folder, error) => unreadable("read the folder", folder, error)
                .with_hint(format!("check `masks` of the dataset's TOML and its root; {ROOT}")),
            Self::SameMask { mask, images: [a, b] } => {
                let (mask, a, b) = (mask.display(), a.display(), b.display());
                Error::new(format!("the mask `{mask}` would belong to both `{a}` and `{b}`")).with_hint(
                    "write `file` of [join] such that what follows {stem} tells them apart, as in \
                           \"{stem}_*.png\"",
                )
            }
            Self::SameStem(a, b) => {
                let (a, b) = (a.min(b), a.max(b));
                Error::new(format!("`{}` and `{}` would share one mask", a.display(), b.display()))
                    .with_hint("remove or rename one, or set `image_suffix` to choose")
            }
            Self::List(list, error) => unreadable("read the list", list, error)
                .with_hint("`list` names a text file with one image name per line; leave it out to use all images"),
            Self::ListedTwice { list, line, before, stem } => {
                Error::new(format!("line {line} of `{}` names `{stem}`, as line {before} does", list.display()))
                    .with_hint("name each image once")
            }
            Self::NotThere { list, line, stem, images } => {
                let missing = images.join(stem);
                let (list, images, tried) = (list.display(), images.display(), endings(files).join(", "));
                Error::new(format!("line {line} of `{list}` names `{stem}`, which is not an image in `{images}`"))
                    .with_missing(&missing)
                    .with_hint(format!(
                        "tried the endings {tried}; the list holds one name per line, without its ending"
                    ))
            }
        }
    }
}

/// What could not be read, with the kind of its cause, which stays with the problem.
fn unreadable(verb: &str, path: &Path, cause: &io::Error) -> Error {
    let error = Error::file(verb, path, cause.to_string());
    match cause.kind() {
        io::ErrorKind::NotFound => error.with_missing(path),
        io::ErrorKind::OutOfMemory => error.with_kind(ErrorKind::Memory),
        _ => error.with_kind(ErrorKind::Io),
    }
}

/// The split has no image.
pub(crate) fn is_empty(set: &str, split: Split, base: &Path, files: &SplitSpec) -> Error {
    let place = match &files.list {
        Some(list) => format!("the list `{}`", base.join(list).display()),
        None => format!("`{}` or below", base.join(&files.images).display()),
    };
    Error::new(format!("the split [{split}] of `{set}` is empty: no image in {place}"))
        .with_hint(format!("looked for names that end in {}", endings(files).join(", ")))
}

fn endings(files: &SplitSpec) -> Vec<&str> {
    files.image_suffix.as_deref().map_or(SUFFIXES.to_vec(), |suffix| vec![suffix])
}

/// The name without its ending, if it is an image's. An ending the user gave must match exactly.
pub(crate) fn stem<'a>(name: &'a str, files: &SplitSpec) -> Option<&'a str> {
    match &files.image_suffix {
        Some(suffix) => name.strip_suffix(suffix.as_str()),
        None => plain_stem(name),
    }
    .filter(|stem| !stem.is_empty() && !stem.ends_with('/'))
}

/// The name without the ending of an image, in either case.
pub(crate) fn plain_stem(name: &str) -> Option<&str> {
    SUFFIXES.iter().find_map(|suffix| {
        let at = name.len().checked_sub(suffix.len())?;
        name.get(at..)?.eq_ignore_ascii_case(suffix).then(|| &name[..at])
    })
}

fn lacks_mask(first: &Pair, count: usize, of: usize, masks: &Path, files: &SplitSpec) -> Error {
    let more = if count > 1 { format!(" ({count} of {of} images have none)") } else { String::new() };
    let error = Error::new(format!(
        "the image `{}` has no mask: `{}` is not there{more}",
        first.image.display(),
        first.mask.display()
    ))
    .with_missing(&first.mask);
    let example =
        std::fs::read_dir(masks).ok().and_then(|mut entries| entries.next()?.ok()).map(|entry| entry.file_name());
    match example {
        None => error.with_hint(format!("the folder `{}` is empty or missing; check `masks`", masks.display())),
        Some(_) if count < of => error.with_hint("add the mask, or leave the image out with a `list`"),
        Some(name) => error.with_hint(format!(
            "masks are named like images with `{}` at the end, set by `mask_suffix`; the folder holds `{}`",
            files.mask_suffix,
            name.display()
        )),
    }
}
