//! The plan of what is to be written, and the parts that all readers share.

use std::path::{Path, PathBuf};

use image::DynamicImage;
use image::metadata::Orientation;

use crate::dataset::Split;
use crate::dataset::folder::one_pair;
use crate::dataset::pairs::plain_stem;
use crate::dataset::spec::{ClassSpec, DatasetSpec, Encoding, Source, SplitSpec};
use crate::dataset::walk::{Walked, children, walk};
use crate::error::{Error, Result};
use crate::image::draw::Canvas;
use crate::image::raster::Area;
use crate::image::{Labels, raster};
use crate::text::{Rest, shortened};
use crate::tools::init::paths::{parent_folder, real, relative_path};
use crate::tools::init::splits::split_off_validation;
use crate::tools::init::used_options::{Flag, Used};
use crate::tools::init::{InitOptions, Purpose};

/// In a folder of drawn masks: their names and checksums. Hidden, so that it is not a file of the set.
pub(super) const NOTE: &str = ".drawn-by-init";

/// A description to be written, with the files it needs.
#[derive(Debug)]
pub struct DatasetPlan {
    /// What the folder was recognised as.
    pub kind: String,
    /// The description.
    pub spec: DatasetSpec,
    /// How many images each split has.
    pub counts: Vec<(Split, usize)>,
    /// What the person should know, and what they should look over.
    pub notes: Vec<String>,
    /// What to know of the validation split, if it was chosen here, for want of one.
    pub split_note: Option<String>,
    pub(super) toml: PathBuf,
    /// Commands that write it over an earlier one, and elsewhere.
    pub(super) commands: [String; 2],
    /// The folder of drawn masks, beside the TOML.
    pub(super) masks: PathBuf,
    /// Lists beside the TOML, and the names in them.
    pub(super) lists: Vec<(PathBuf, Vec<String>)>,
    /// Masks to be drawn.
    pub(super) jobs: Vec<Job>,
}

impl DatasetPlan {
    /// How many masks are to be drawn from outlines.
    pub fn drawn(&self) -> usize {
        self.jobs.len()
    }

    /// The classes with their values, in words.
    pub fn classes(&self) -> String {
        pairs(&self.spec.classes)
    }

    /// The real place of a path as the description says it.
    pub(super) fn real(&self, path: &Path) -> PathBuf {
        real(&parent_folder(&self.toml).join(path))
    }
}

/// More classes are not spelled out.
const PAIRS: usize = 30;

/// Values and classes, spelled out; classes of joined masks have no values.
fn pairs(classes: &[ClassSpec]) -> String {
    let pair = |class: &ClassSpec| {
        let values: Vec<String> = class.source.iter().flatten().map(Source::to_string).collect();
        if values.is_empty() {
            return class.name.clone();
        }
        format!("{} = {}", values.join(" and "), class.name)
    };
    shortened(classes.iter().map(pair), PAIRS, Rest::Counted)
}

/// One mask to be drawn.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) image: PathBuf,
    /// The file that the outlines are from.
    pub(super) source: PathBuf,
    pub(super) mask: PathBuf,
    pub(super) areas: Vec<(Area, u8)>,
    /// What no area covers.
    pub(super) rest: u8,
    /// Coordinates are shares of width and height.
    pub(super) normalized: bool,
    /// Width and height of what the outlines were drawn on, and how it is turned to be the image.
    pub(super) size: [usize; 2],
    pub(super) turn: Orientation,
}

impl Job {
    /// Masks that it is made of.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.areas.iter().filter_map(|(area, _)| match area {
            Area::Bitmap(_, raster::Bitmap::File(path)) | Area::Ids(path, _) | Area::Segments(path, _) => {
                Some(path.as_path())
            }
            _ => None,
        })
    }

    /// The mask.
    pub(super) fn draw(&self) -> Result<Labels> {
        let [width, height] = self.size;
        let mut canvas = Canvas::new(self.size, self.rest);
        // Later ones lie above.
        for (area, class) in self.areas.iter().rev() {
            let drawn = match area {
                Area::Polygons(rings) if self.normalized => {
                    let scaled = |ring: &Vec<[f64; 2]>| {
                        ring.iter().map(|[x, y]| [x * width as f64, y * height as f64]).collect()
                    };
                    canvas.draw(&Area::Polygons(rings.iter().map(scaled).collect()), *class)
                }
                area => canvas.draw(area, *class),
            };
            drawn.map_err(|error| Error::file("draw what is in", &self.source, error))?;
        }
        let labels = canvas.labels();
        if self.turn == Orientation::NoTransforms {
            return Ok(labels);
        }
        let gray = image::GrayImage::from_raw(width as u32, height as u32, labels.ids);
        let mut turned = DynamicImage::ImageLuma8(gray.unwrap_or_default());
        turned.apply_orientation(self.turn);
        let (width, height) = (turned.width() as usize, turned.height() as usize);
        Ok(Labels { width, height, ids: turned.into_luma8().into_raw() })
    }
}

/// The folder, and where the TOML will be.
pub(super) struct Place<'a> {
    pub(super) dir: &'a Path,
    pub(super) options: &'a InitOptions,
    pub(super) toml: &'a Path,
    /// From the TOML's folder to `dir`.
    prefix: PathBuf,
    pub(super) used: Used,
}

/// Images of one split, or of all.
#[derive(Clone, Debug)]
pub(super) struct SplitImages {
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

impl<'a> Place<'a> {
    pub(super) fn new(dir: &'a Path, toml: &'a Path, options: &'a InitOptions) -> Result<Self> {
        let real =
            dir.canonicalize().map_err(|e| Error::file("read the folder", dir, e).with_hint("check the path"))?;
        if !real.is_dir() {
            return Err(
                Error::new(format!("`{}` is not a folder", dir.display())).with_hint("pass the folder of the dataset")
            );
        }
        let prefix = Self::path_in_toml(toml, options, real);
        Ok(Self { dir, options, toml, prefix, used: Used::default() })
    }

    /// The same place with other options.
    pub(super) fn with<'b>(&'b self, options: &'b InitOptions) -> Place<'b> {
        Place { dir: self.dir, options, toml: self.toml, prefix: self.prefix.clone(), used: Used::default() }
    }

    /// A real path as the TOML says it: relative where the set lies so near that both are moved together.
    fn path_in_toml(toml: &Path, options: &InitOptions, to: PathBuf) -> PathBuf {
        match options.purpose {
            Purpose::Moment => to,
            Purpose::Lasting | Purpose::Run => relative_path(&real(parent_folder(toml)), &to).unwrap_or(to),
        }
    }

    /// A folder, as the TOML says it.
    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        let path = match folder.strip_prefix(self.dir) {
            Ok(below) => self.prefix.join(below),
            Err(_) => Self::path_in_toml(self.toml, self.options, real(folder)),
        };
        if path.as_os_str().is_empty() { PathBuf::from(".") } else { path }
    }

    /// The name of a file or folder beside the TOML that belongs to it.
    pub(super) fn own(&self, what: &str) -> PathBuf {
        PathBuf::from(format!("{}-{what}", self.toml.file_stem().unwrap_or_default().display()))
    }

    /// What the set is called.
    pub(super) fn name(&self) -> String {
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
        parts: Vec<SplitImages>,
    ) -> Result<DatasetPlan> {
        if let Some(class) = classes.iter().find(|class| class.name.contains(char::is_control)) {
            return Err(Error::new(format!("a class has the name {:?}, which holds control characters", class.name))
                .with_hint("remove them from the file that names the classes"));
        }
        let (name, file) = (self.name(), self.toml.to_path_buf());
        let spec = DatasetSpec {
            name,
            root: None,
            encoding,
            ignore,
            range: None,
            jpeg_tolerance: None,
            classes,
            palettes: Default::default(),
            join: None,
            train: None,
            val: None,
            test: None,
            file,
        };
        let toml = self.toml.to_path_buf();
        let mut plan = DatasetPlan {
            kind: kind.to_string(),
            spec,
            counts: Vec::new(),
            notes: Vec::new(),
            split_note: None,
            toml,
            commands: [self.again(true, |_| {}), self.again_elsewhere()],
            masks: self.own("masks"),
            lists: Vec::new(),
            jobs: Vec::new(),
        };
        self.splits(parts, &mut plan)?;
        Ok(plan)
    }

    /// Files below `folder`, without masks that an earlier look has drawn, and without links that lead nowhere but
    /// pictures, of which an image or a mask is missed.
    pub(super) fn files(&self, folder: &Path) -> Vec<(String, PathBuf)> {
        let Walked { mut files, dangling, .. } = walk(folder);
        let mut drawn: Vec<String> = Vec::new();
        let folders: std::collections::BTreeSet<&str> =
            files.iter().flat_map(|(name, _)| name.match_indices('/').map(|(at, _)| &name[..at])).collect();
        for below in folders.into_iter().filter(|below| below.ends_with("-masks")) {
            if folder.join(below).join(NOTE).is_file() {
                drawn.push(format!("{below}/"));
            }
        }
        files.retain(|(name, path)| {
            let is_there = plain_stem(name).is_some() || dangling.binary_search(path).is_err();
            is_there && !drawn.iter().any(|drawn| name.starts_with(drawn.as_str()))
        });
        files
    }

    /// The folder that --images names, or else the set's own.
    pub(super) fn images(&self) -> Result<PathBuf> {
        self.uses(Flag::Images);
        let Some(images) = &self.options.images else { return Ok(self.dir.to_path_buf()) };
        let found = [self.dir.join(images), images.clone()].into_iter().find(|path| path.is_dir());
        found.ok_or_else(|| {
            Error::new(format!("`{}` is not a folder", images.display())).with_hint(format!(
                "check the path, or leave it out: {}",
                self.again(false, |options| options.images = None)
            ))
        })
    }

    /// Fills in the splits. Where none is for validation, one is made by names alone.
    fn splits(&self, parts: Vec<SplitImages>, plan: &mut DatasetPlan) -> Result<()> {
        let has_val = parts.iter().any(|part| part.split == Some(Split::Val));
        for mut part in parts {
            let learns = part.split.is_none_or(|split| split == Split::Train);
            part.stems.sort();
            if let Some(twice) = part.stems.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(Error::new(format!(
                    "two images in `{}` have the name `{}`",
                    part.images.display(),
                    twice[0]
                ))
                .with_hint("rename one of them, and its annotation"));
            }
            if learns && !has_val && part.stems.len() > 1 {
                let (train, val) = split_off_validation(&part.stems);
                let all = part.stems.len();
                let chosen = match val.len() {
                    1 => format!("1 of {all} images was chosen for it by a hash of its name"),
                    count => format!("{count} of {all} images were chosen for it by hashes of their names"),
                };
                plan.split_note = Some(format!(
                    "there was no validation split: {chosen}; if neighbouring images are alike, like frames of a video, \
                     move whole series from one list to the other"
                ));
                self.split(Split::Val, SplitImages { stems: val, list: List::New, ..part.clone() }, plan);
                self.split(Split::Train, SplitImages { stems: train, list: List::New, ..part }, plan);
            } else {
                self.split(part.split.unwrap_or(Split::Train), part, plan);
            }
        }
        if let (Some(train), false, [(_, 1)]) = (&plan.spec.train, has_val, plan.counts.as_slice()) {
            plan.notes.push(format!(
                "one image is too few for a validation split, which training needs: {}",
                one_pair(train, self.toml)
            ));
        }
        plan.counts.sort();
        Ok(())
    }

    fn split(&self, split: Split, part: SplitImages, plan: &mut DatasetPlan) {
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

/// Folders directly below one, by name.
pub(super) fn folders_in(dir: &Path) -> Vec<(String, PathBuf)> {
    let folders = children(dir).into_iter().filter(|path| path.is_dir());
    folders
        .filter_map(|path| Some((path.file_name()?.to_str()?.to_string(), path)))
        .filter(|(name, _)| !name.starts_with('.'))
        .collect()
}
