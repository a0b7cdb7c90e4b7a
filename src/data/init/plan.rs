//! What is to be written, and the parts that all readers share.

use std::path::{Path, PathBuf};

use super::Options;
use super::raster::Area;
use super::splits::halve;
use crate::data::Split;
use crate::data::image::IGNORE;
use crate::data::pairs::plain_stem;
use crate::data::spec::{ClassSpec, DatasetSpec, Encoding, MAX_CLASSES, Source, SplitSpec};
use crate::data::walk::walk;
use crate::error::{Error, Result};

/// A description to be written, with the files it needs.
#[derive(Debug)]
pub struct Plan {
    /// What the folder was recognised as.
    pub kind: String,
    /// The description.
    pub spec: DatasetSpec,
    /// How many images each split has.
    pub counts: Vec<(Split, usize)>,
    /// What the person should know, and what they should look over.
    pub notes: Vec<String>,
    pub(super) toml: PathBuf,
    /// Lists beside the TOML, and the names in them.
    pub(super) lists: Vec<(PathBuf, Vec<String>)>,
    /// Masks to be drawn.
    pub(super) jobs: Vec<Job>,
}

impl Plan {
    /// How many masks are to be drawn from outlines.
    pub fn drawn(&self) -> usize {
        self.jobs.len()
    }
}

/// One mask to be drawn.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) image: PathBuf,
    /// The file that the outlines are from, and the image's size in it.
    pub(super) source: PathBuf,
    pub(super) declared: Option<[usize; 2]>,
    pub(super) mask: PathBuf,
    pub(super) areas: Vec<(Area, u8)>,
    /// Coordinates are shares of width and height.
    pub(super) normalised: bool,
}

/// The folder, and where the TOML will be.
pub(super) struct Place<'a> {
    pub(super) dir: &'a Path,
    pub(super) options: &'a Options,
    toml: &'a Path,
    /// From the TOML's folder to `dir`.
    prefix: PathBuf,
}

/// Images of one split, or of all.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) split: Option<Split>,
    /// The folder of images.
    pub(super) images: PathBuf,
    /// The folder of masks, as the TOML says it.
    pub(super) masks: PathBuf,
    pub(super) image_suffix: Option<String>,
    pub(super) mask_suffix: String,
    /// Paths of the images below their folder, without ending.
    pub(super) stems: Vec<String>,
    pub(super) list: List,
}

/// Whether a list says which images of a folder belong to the split.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum List {
    /// All do.
    None,
    /// One is to be written: the folder holds other pictures too.
    New,
    /// One is there.
    File(PathBuf),
}

/// An image with its outlines, before it is known where its mask goes.
pub(super) struct Outlined {
    /// Its path below the folder of images.
    pub(super) name: String,
    pub(super) source: PathBuf,
    pub(super) declared: Option<[usize; 2]>,
    pub(super) areas: Vec<(Area, u8)>,
}

impl<'a> Place<'a> {
    pub(super) fn new(dir: &'a Path, toml: &'a Path, options: &'a Options) -> Result<Self> {
        let real = dir.canonicalize().map_err(|e| Error::file("read the folder", dir, e).hint("check the path"))?;
        if !real.is_dir() {
            return Err(Error::new(format!("`{}` is not a folder", dir.display())).hint("name the folder of the set"));
        }
        let home = toml.parent().filter(|home| !home.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Relative where the set lies below the TOML, so that both can be moved together.
        let below = home.canonicalize().ok().and_then(|home| Some(real.strip_prefix(home).ok()?.to_path_buf()));
        Ok(Self { dir, options, toml, prefix: below.unwrap_or(real) })
    }

    /// A folder, as the TOML says it.
    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        let path = match folder.strip_prefix(self.dir) {
            Ok(below) => self.prefix.join(below),
            Err(_) => folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf()),
        };
        if path.as_os_str().is_empty() { PathBuf::from(".") } else { path }
    }

    /// The name of a file or folder beside the TOML that belongs to it.
    fn own(&self, what: &str) -> PathBuf {
        PathBuf::from(format!("{}-{what}", self.toml.file_stem().unwrap_or_default().display()))
    }

    /// What the set is called.
    fn name(&self) -> String {
        let real = self.dir.canonicalize().unwrap_or_default();
        real.file_name().map_or("dataset".to_string(), |name| name.display().to_string())
    }

    /// The plan of sets whose masks are there.
    pub(super) fn plan(
        &self,
        kind: &str,
        encoding: Encoding,
        ignore: Vec<Source>,
        classes: Vec<ClassSpec>,
        parts: Vec<Part>,
    ) -> Result<Plan> {
        let (name, file) = (self.name(), self.toml.to_path_buf());
        let spec = DatasetSpec {
            name,
            root: None,
            encoding,
            ignore,
            range: None,
            jpeg_tolerance: None,
            classes,
            train: None,
            val: None,
            test: None,
            file,
        };
        let toml = self.toml.to_path_buf();
        let mut plan = Plan {
            kind: kind.to_string(),
            spec,
            counts: Vec::new(),
            notes: Vec::new(),
            toml,
            lists: Vec::new(),
            jobs: Vec::new(),
        };
        self.splits(parts, &mut plan)?;
        Ok(plan)
    }

    /// The plan of sets of outlines; class 0 is all that no outline covers. `groups`: the split, the folder of images and
    /// those that are outlined.
    pub(super) fn outlines(
        &self,
        kind: &str,
        names: &[String],
        normalised: bool,
        groups: Vec<(Option<Split>, PathBuf, Vec<Outlined>)>,
    ) -> Result<Plan> {
        if names.len() >= MAX_CLASSES {
            return Err(Error::new(format!(
                "there are {} classes, and {} are possible beside the background",
                names.len(),
                MAX_CLASSES - 1
            ))
            .hint("merge classes in the labelling tool"));
        }
        let mut all = vec!["background".to_string()];
        all.extend(
            names.iter().map(|name| if name == "background" { "background (drawn)".into() } else { name.clone() }),
        );
        let classes = all.into_iter().enumerate();
        let classes = classes
            .map(|(id, name)| ClassSpec { name, color: None, source: Some(vec![Source::Index(id as u16)]) })
            .collect();
        let home = self.toml.parent().unwrap_or(Path::new(""));
        let (mut parts, mut jobs) = (Vec::new(), Vec::new());
        for (split, images, outlined) in groups {
            let masks = match split {
                Some(split) => self.own("masks").join(split.to_string()),
                None => self.own("masks"),
            };
            let mut stems = Vec::new();
            let absent: Vec<&Outlined> = outlined.iter().filter(|one| !images.join(&one.name).is_file()).collect();
            if let Some(first) = absent.first() {
                return Err(Error::new(format!(
                    "`{}` names {} images that are not in `{}`, `{}` first",
                    first.source.display(),
                    absent.len(),
                    images.display(),
                    first.name
                ))
                .hint("add the images, or remove their annotations; if they are elsewhere: --images DIR"));
            }
            for one in outlined {
                let stem = plain_stem(&one.name).unwrap_or(&one.name).to_string();
                jobs.push(Job {
                    image: images.join(&one.name),
                    source: one.source,
                    declared: one.declared,
                    mask: home.join(&masks).join(format!("{stem}.png")),
                    areas: one.areas,
                    normalised,
                });
                stems.push(stem);
            }
            let pictures = walk(&images).files.iter().filter(|(name, _)| plain_stem(name).is_some()).count();
            let list = if pictures == stems.len() { List::None } else { List::New };
            parts.push(Part { split, images, masks, image_suffix: None, mask_suffix: ".png".into(), stems, list });
        }
        let ignored = jobs.iter().any(|job| job.areas.iter().any(|(_, class)| *class == IGNORE));
        let ignore = if ignored { vec![Source::Index(255)] } else { Vec::new() };
        let mut plan = self.plan(kind, Encoding::Index, ignore, classes, parts)?;
        plan.jobs = jobs;
        plan.notes.push("pixels outside of all outlines are the class `background`".to_string());
        Ok(plan)
    }

    /// Fills in the splits. Where none is for validation, one is made by names alone.
    fn splits(&self, parts: Vec<Part>, plan: &mut Plan) -> Result<()> {
        let has_val = parts.iter().any(|part| part.split == Some(Split::Val));
        for mut part in parts {
            let learns = part.split.is_none_or(|split| split == Split::Train);
            part.stems.sort();
            if let Some(twice) = part.stems.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(Error::new(format!("two images in `{}` are called `{}`", part.images.display(), twice[0]))
                    .hint("rename one of them, with its annotation"));
            }
            if learns && !has_val && part.stems.len() > 1 {
                let (train, val) = halve(&part.stems);
                plan.notes.push(format!(
                    "there was no validation split: {} of {} images were chosen for it by their names; if neighbouring \
                     images are alike, as frames of one film are, move whole series from one list to the other",
                    val.len(),
                    part.stems.len()
                ));
                self.split(Split::Val, Part { stems: val, list: List::New, ..part.clone() }, plan);
                self.split(Split::Train, Part { stems: train, list: List::New, ..part }, plan);
            } else {
                self.split(part.split.unwrap_or(Split::Train), part, plan);
            }
        }
        plan.counts.sort();
        Ok(())
    }

    fn split(&self, split: Split, part: Part, plan: &mut Plan) {
        let list = match part.list {
            List::None => None,
            List::New => {
                let list = self.own(&format!("{split}.txt"));
                plan.lists.push((list.clone(), part.stems.clone()));
                Some(list)
            }
            List::File(path) => Some(self.path(&path)),
        };
        plan.counts.push((split, part.stems.len()));
        let (images, masks) = (self.path(&part.images), part.masks);
        let (image_suffix, mask_suffix) = (part.image_suffix, part.mask_suffix);
        let spec = SplitSpec { images, masks, image_suffix, mask_suffix, list };
        let place = match split {
            Split::Train => &mut plan.spec.train,
            Split::Val => &mut plan.spec.val,
            Split::Test => &mut plan.spec.test,
        };
        *place = Some(spec);
    }
}

/// The label of the class at a position in the names of outlines; too many are refused by [`Place::outlines`].
pub(super) fn label(at: usize) -> u8 {
    u8::try_from(at + 1).unwrap_or(IGNORE)
}

/// Folders directly below one, by name.
pub(super) fn folders_in(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut folders: Vec<(String, PathBuf)> = entries
        .filter(|path| path.is_dir())
        .filter_map(|path| Some((path.file_name()?.to_str()?.to_string(), path)))
        .filter(|(name, _)| !name.starts_with('.'))
        .collect();
    folders.sort();
    folders
}
