//! Files in a set's folders that are not used: nothing is left out without a word.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::dataset::Split;
use crate::dataset::accents::composed;
use crate::dataset::join::Joiner;
use crate::dataset::pairs::{Pair, Pairs, plain_stem, stem};
use crate::dataset::spec::{DatasetSpec, SplitSpec};
use crate::dataset::walk::{Walked, walk};
use crate::error::Result;
use crate::text::{Rest, shortened};

/// Endings of pictures, of which some cannot be read.
const PICTURES: [&str; 26] = [
    "jpg", "jpeg", "png", "bmp", "gif", "tif", "tiff", "webp", "heic", "heif", "avif", "jp2", "jxl", "jfif", "dng",
    "cr2", "nef", "arw", "dcm", "nii", "npy", "npz", "tga", "ppm", "pgm", "exr",
];

/// How many names a line shows.
const SHOWN: usize = 3;

/// Files of one kind that a set does not use.
#[derive(Clone, Debug, PartialEq)]
pub struct Leftover {
    /// A name for programs, which does not change with the wording.
    pub code: &'static str,
    /// What they are.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
    /// All of them.
    pub files: Vec<PathBuf>,
}

/// The leftovers of the set that `spec` describes, below `root` if one is given. Only names are looked at.
///
/// # Errors
/// A description that cannot be used.
pub fn leftovers(spec: &DatasetSpec, root: Option<&Path>) -> Result<Vec<Leftover>> {
    let (spec, base) = spec.below(root);
    let joiner = spec.joiner()?;
    let splits: Vec<(Split, &SplitSpec)> =
        [Split::Train, Split::Val, Split::Test].into_iter().filter_map(|s| Some((s, spec.split(s)?))).collect();
    let found: Vec<Pairs> = splits.iter().map(|(_, files)| Pairs::find_joined(&base, files, joiner.as_ref())).collect();
    Ok(of(&base, &splits, &found, joiner.as_ref()))
}

/// The same of pairs that are known.
pub(crate) fn of(
    base: &Path,
    splits: &[(Split, &SplitSpec)],
    found: &[Pairs],
    joiner: Option<&Joiner>,
) -> Vec<Leftover> {
    let mut all = Leftovers::default();
    let mut seen: HashSet<(&Path, &Path)> = HashSet::new();
    let taken: HashSet<&Path> = found
        .iter()
        .flat_map(|pairs| pairs.pairs.iter().chain(&pairs.lacking))
        .map(|pair| pair.image.as_path())
        .collect();
    for (_, files) in splits {
        if !seen.insert((&files.images, &files.masks)) {
            continue;
        }
        let here = |(_, other): &(Split, &SplitSpec)| other.images == files.images && other.masks == files.masks;
        let same: Vec<(&SplitSpec, &Pairs)> =
            splits.iter().zip(found).filter(|(split, _)| here(split)).map(|(split, pairs)| (split.1, pairs)).collect();
        let images = walk(&base.join(&files.images));
        let apart = files.images != files.masks;
        let masks = if apart { walk(&base.join(&files.masks)) } else { Walked::default() };
        let accented = if apart { &masks } else { &images }.files.iter();
        let accented = accented.filter(|(name, _)| !name.is_ascii());
        let accented = accented.map(|(name, path)| (composed(name).into_owned(), path.as_path()));
        let folder = Folder {
            files,
            same,
            taken: &taken,
            images: &images,
            masks: if apart { &masks } else { &images },
            accented: accented.collect(),
            apart,
            joiner,
        };
        folder.images(base, &mut all);
        folder.masks(base, &mut all);
        not_entered(&images, &mut all);
        not_entered(&masks, &mut all);
    }
    all.0
}

impl Leftover {
    /// As one line: how many, what, and the first names.
    pub fn text(&self) -> String {
        let names = self.files.iter().map(|path| format!("`{}`", path.display()));
        format!("{} ({}): {}", self.what, self.files.len(), shortened(names, SHOWN, Rest::Dots))
    }
}

#[derive(Default)]
struct Leftovers(Vec<Leftover>);

impl Leftovers {
    fn add(&mut self, code: &'static str, what: impl Into<String>, remedy: impl Into<String>, file: &Path) {
        let what = what.into();
        match self.0.iter_mut().find(|other| other.code == code && other.what == what) {
            Some(other) if other.files.iter().any(|before| before == file) => {}
            Some(other) => other.files.push(file.to_path_buf()),
            None => {
                let (remedy, files) = (remedy.into(), vec![file.to_path_buf()]);
                self.0.push(Leftover { code, what, remedy, files });
            }
        }
    }
}

/// One folder of images with its masks, whatever splits share them.
struct Folder<'a> {
    files: &'a SplitSpec,
    same: Vec<(&'a SplitSpec, &'a Pairs)>,
    /// Images that any split takes, whichever folder its masks lie in.
    taken: &'a HashSet<&'a Path>,
    images: &'a Walked,
    masks: &'a Walked,
    /// Masks whose names are not ASCII alone, by these names composed.
    accented: HashMap<String, &'a Path>,
    apart: bool,
    joiner: Option<&'a Joiner>,
}

impl Folder<'_> {
    fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.same.iter().flat_map(|(_, pairs)| pairs.pairs.iter().chain(&pairs.lacking))
    }

    /// The masks of an image that any of the splits would read.
    fn masks_of(&self, name: &str, base: &Path) -> Vec<PathBuf> {
        let folder = base.join(&self.files.masks);
        let stems = self.same.iter().filter_map(|(files, _)| Some((*files, stem(name, files)?)));
        match self.joiner {
            Some(joiner) => stems
                .flat_map(|(_, stem)| joiner.find(stem, &self.masks.files))
                .map(|(_, at)| self.masks.files[at].1.clone())
                .collect(),
            None => stems
                .map(|(files, stem)| format!("{stem}{}", files.mask_suffix))
                .map(|name| match self.accented.get(composed(&name).as_ref()) {
                    Some(mask) => mask.to_path_buf(),
                    None => folder.join(name),
                })
                .collect(),
        }
    }

    /// Pictures among the images that no split takes.
    fn images(&self, base: &Path, all: &mut Leftovers) {
        let used: HashSet<&Path> = self.pairs().map(|pair| pair.image.as_path()).collect();
        let as_mask = self.wanted(base);
        // A picture called as one that is used, in a folder beside its own or below, is not an image without a mask.
        let companion = |name: &str| {
            let (folder, file) = name.rsplit_once('/')?;
            Some((folder.rsplit_once('/').map_or("", |(above, _)| above).to_string(), plain_stem(file)?.to_string()))
        };
        let companions: HashSet<(String, String)> = self
            .images
            .files
            .iter()
            .filter(|(_, path)| used.contains(path.as_path()))
            .flat_map(|(name, _)| {
                let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
                let below = plain_stem(file).map(|stem| (folder.to_string(), stem.to_string()));
                [companion(name), below].into_iter().flatten()
            })
            .collect();
        for (name, path) in &self.images.files {
            if self.taken.contains(path.as_path()) || as_mask.contains(path) {
                continue;
            }
            let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
            let is_mask = !self.apart && self.same.iter().any(|(files, _)| name.ends_with(&files.mask_suffix));
            if self.same.iter().any(|(files, _)| stem(name, files).is_some()) {
                // Two of one stem are reported as such.
                if self.same.iter().any(|(files, _)| files.list.is_none()) || is_mask && self.joiner.is_none() {
                    continue;
                }
                if companion(name).is_some_and(|name| companions.contains(&name)) {
                    continue;
                }
                let masked = self.masks_of(name, base).iter().any(|mask| mask.is_file());
                let (what, remedy) = match masked {
                    true => ("images with a mask that no `list` names", "to use them, add their names to a list"),
                    false => (
                        "images without a mask that no `list` names",
                        "to use them, add their masks, and their names to a list",
                    ),
                };
                all.add("not-listed", what, remedy, path);
            } else if PICTURES.contains(&ending.to_ascii_lowercase().as_str()) && !is_mask {
                let (what, remedy) = match &self.files.image_suffix {
                    Some(suffix) => (
                        format!("pictures among the images that do not end in `{suffix}`, and are not read"),
                        "change or leave out `image_suffix`, or rename them".to_string(),
                    ),
                    None => (
                        format!("pictures among the images that are not read: .{ending}"),
                        "convert them to PNG".to_string(),
                    ),
                };
                all.add("not-read", what, remedy, path);
            }
        }
    }

    /// What all images in the folder, taken or not, would have for masks.
    fn wanted(&self, base: &Path) -> HashSet<PathBuf> {
        let of_pair = |pair: &Pair| -> Vec<PathBuf> {
            std::iter::once(&pair.mask).chain(pair.parts.iter().map(|part| &part.path)).cloned().collect()
        };
        let taken = self.pairs().flat_map(of_pair);
        taken.chain(self.images.files.iter().flat_map(|(name, _)| self.masks_of(name, base))).collect()
    }

    /// Masks that no image asks for, and pictures beside them.
    fn masks(&self, base: &Path, all: &mut Leftovers) {
        // Where images lack masks, that is reported with them.
        let lacking = self.same.iter().any(|(_, pairs)| !pairs.lacking.is_empty());
        if lacking || self.pairs().next().is_none() {
            return;
        }
        let (wanted, images): (_, HashSet<&Path>) =
            (self.wanted(base), self.images.files.iter().map(|(_, path)| path.as_path()).collect());
        let mut others: BTreeMap<String, Vec<&Path>> = BTreeMap::new();
        for (name, path) in &self.masks.files {
            let is_picture = name
                .rsplit_once('.')
                .is_some_and(|(_, ending)| PICTURES.contains(&ending.to_ascii_lowercase().as_str()));
            if wanted.contains(path) || (!self.apart && images.contains(path.as_path()) && plain_stem(name).is_some()) {
                continue;
            }
            let called_so = match self.joiner {
                Some(_) => is_picture,
                None => self.same.iter().any(|(files, _)| name.ends_with(&files.mask_suffix)),
            };
            if called_so {
                let remedy = "add the images, or remove the masks; training does not use them";
                all.add("image-missing", "masks without an image", remedy, path);
            } else if is_picture && self.apart {
                others.entry(self.ending(name)).or_default().push(path);
            }
        }
        let suffix = &self.files.mask_suffix;
        for (ending, paths) in others {
            let what = format!(
                "pictures among the masks that are not read: they end in `{ending}`, but masks end in \
                         `{suffix}`"
            );
            let remedy = "if they show other classes of the same images, join them: [join] in the dataset's TOML; if not, \
                          leave or remove them";
            paths.into_iter().for_each(|path| all.add("masks-not-used", what.clone(), remedy, path));
        }
    }

    /// What follows the name of the image that a picture among the masks may belong to; or its ending.
    fn ending(&self, name: &str) -> String {
        let stems = self.pairs().map(|pair| pair.stem.as_str());
        let longest = stems.filter(|stem| name.starts_with(*stem)).map(str::len).max();
        let dot = name.rfind('.').unwrap_or(0);
        name[longest.unwrap_or(dot).min(dot)..].to_string()
    }
}

fn not_entered(walked: &Walked, all: &mut Leftovers) {
    for path in &walked.loops {
        let what = "links to a folder that contains them or is read under another name; they are not followed";
        all.add("link-loop", what, "remove the link", path);
    }
    for path in &walked.unnamed {
        all.add("name-not-utf8", "files whose names are not UTF-8; they are not read", "rename them", path);
    }
    for path in &walked.special {
        let what = "pipes, sockets, devices and system folders; they are not read";
        all.add("not-a-file", what, "remove them from the folders of the dataset", path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[&str], lists: &[(&str, &str)], more: &str) -> Vec<(&'static str, Vec<String>)> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files.iter().map(|file| (*file, "")).chain(lists.iter().copied()) {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let spec =
            DatasetSpec::parse(&format!("name = 's'\nclasses = ['a', 'b']\n{more}"), &folder.path().join("set.toml"));
        let leftovers = leftovers(&spec.unwrap(), None).unwrap();
        let below = |path: &PathBuf| path.strip_prefix(folder.path()).unwrap().display().to_string();
        leftovers.iter().map(|left| (left.code, left.files.iter().map(below).collect())).collect()
    }

    const PLAIN: &str = "[train]\nimages = 'i'\nmasks = 'm'\n";

    #[test]
    fn lists_hide_nothing() {
        let files = ["i/a.png", "i/b.png", "i/c.png", "i/d.heic", "i/note.txt", "m/a.png", "m/b.png", "m/z.png"];
        let split = |name: &str| format!("[{name}]\nimages = 'i'\nmasks = 'm'\nlist = '{name}.txt'\n");
        let all = found(&files, &[("train.txt", "a\n")], &split("train"));
        let expected = [
            ("not-listed", vec!["i/b.png".to_string()]),
            ("not-listed", vec!["i/c.png".into()]),
            ("not-read", vec!["i/d.heic".into()]),
            ("image-missing", vec!["m/z.png".into()]),
        ];
        assert_eq!(all, expected);
        let both = found(&files, &[("train.txt", "a\n"), ("val.txt", "b\n")], &(split("train") + &split("val")));
        assert_eq!(both[0], ("not-listed", vec!["i/c.png".into()]));
    }

    #[test]
    fn masks_of_other_classes_are_named() {
        let files = ["i/a.jpg", "i/b.jpg", "m/a_car.png", "m/b_car.png", "m/a_road.png", "m/b_road.png"];
        let all = found(&files, &[], &format!("{PLAIN}mask_suffix = '_car.png'"));
        assert_eq!(all, [("masks-not-used", vec!["m/a_road.png".to_string(), "m/b_road.png".into()])]);
        let join = "[join]\nrest = 'a'\nmasks = [{ file = '{stem}_car.png', class = 'b' }, { file = '{stem}_road.png', class = 'a' }]";
        assert_eq!(found(&files, &[], &format!("{PLAIN}{join}")), []);
        let half = "[join]\nrest = 'a'\nmasks = [{ file = '{stem}_car.png', class = 'b' }]";
        assert_eq!(found(&files, &[], &format!("{PLAIN}{half}"))[0].0, "image-missing");
    }

    #[test]
    fn sets_in_one_folder_have_no_leftovers() {
        let one = "[train]\nimages = 'x'\nmasks = 'x'\n";
        let files = ["x/a.jpg", "x/a_L.png", "x/b.jpg", "x/b_L.png"];
        assert_eq!(found(&files, &[], &format!("{one}image_suffix = '.jpg'\nmask_suffix = '_L.png'")), []);
        let files = ["x/a.png", "x/a_mask.png", "x/a_mask_1.png", "x/b.png", "x/b_mask.png"];
        let join = "[join]\nrest = 'a'\nmasks = [{ file = '{stem}_mask*.png', class = 'b' }]";
        assert_eq!(found(&files, &[], &format!("{one}{join}")), []);
        let all = found(&files, &[("l", "a\n")], &format!("{one}list = 'l'\n{join}"));
        assert_eq!(all, [("not-listed", vec!["x/b.png".to_string()])]);
    }
}
