//! A folder looked at, and the dataset TOML that describes it.
//!
//! ```text
//! folder ──[a reader for each known form]──▶ Plan ──[write]──▶ masks drawn from outlines, lists, dataset.toml
//! ```
//!
//! A reader answers `None` for a folder that is not of its form, and an error for one that is, but cannot be described:
//! with what was found and what to pass.

mod classes;
mod coco;
mod folders;
mod known;
mod label_studio;
mod labelme;
mod names;
mod plan;
mod raster;
mod splits;
mod text;
mod voc;
mod yolo;

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::data::check::{self, Progress, Report};
use crate::data::image::{Labels, image_size, write_index_png};
use crate::data::spec::DatasetSpec;
use crate::error::{Error, Result};
use crate::files;
use plan::{Job, Place};

pub use plan::Plan;

/// What the description is called where no other name is given.
pub const FILE: &str = "dataset.toml";

/// What the person says about the folder.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The folder of images, below the folder or elsewhere.
    pub images: Option<PathBuf>,
    /// The folder of masks.
    pub masks: Option<PathBuf>,
    /// Names of the classes, in the order of their values.
    pub names: Vec<String>,
}

/// Looks at `folder` and plans the description that will lie at `toml`. Writes nothing.
///
/// # Errors
/// A folder that cannot be read, of no known form, or that leaves open what must be known; with what was found.
pub fn look(folder: &Path, toml: &Path, options: &Options, progress: Progress) -> Result<Plan> {
    let place = Place::new(folder, toml, options)?;
    type Reader = fn(&Place, Progress) -> Result<Option<Plan>>;
    let readers: [Reader; 7] =
        [known::plan, yolo::plan, coco::plan, voc::plan, label_studio::plan, labelme::plan, folders::plan];
    // Whoever names folders of masks has no outlines.
    let readers = if options.masks.is_some() { &readers[6..] } else { &readers[..] };
    for reader in readers {
        if let Some(plan) = reader(&place, progress)? {
            return Ok(plan);
        }
    }
    Err(folders::unknown(&place))
}

/// Checks a bare folder: as [`check::check`] does what [`look`] would describe it as.
///
/// # Errors
/// As [`look`]; and outlines, which must be drawn as masks before they can be checked.
pub fn check_folder(folder: &Path, progress: Progress) -> Result<Report> {
    let toml = folder.join(FILE);
    let options = Options::default();
    let place = Place::new(folder, &toml, &options)?;
    // Sets with lists and values of their own first; of others, the check says why values are no labels.
    let plan = match known::plan(&place, progress)?.or(voc::plan(&place, progress)?) {
        Some(plan) => plan,
        None => match folders::plan_leniently(&place, progress)? {
            Some(plan) => plan,
            None => look(folder, &toml, &options, progress)?,
        },
    };
    if !plan.jobs.is_empty() {
        return Err(Error::new(format!("`{}` holds {}, not masks", folder.display(), plan.kind)).hint(format!(
            "run: structtoken init '{}', which draws masks and writes a TOML to check",
            folder.display()
        )));
    }
    let mut spec = plan.spec;
    for split in [&mut spec.train, &mut spec.val, &mut spec.test].into_iter().flatten() {
        // A list that is not written yet cannot choose; what both would hold is looked at as one.
        if split.list.as_ref().is_some_and(|list| plan.lists.iter().any(|(new, _)| new == list)) {
            if split.images == split.masks {
                return Err(Error::new(format!("`{}` holds images and masks in one folder", folder.display())).hint(
                    format!("run: structtoken init '{}', which writes lists and a TOML to check", folder.display()),
                ));
            }
            split.list = None;
        }
    }
    if let (Some(train), Some(val)) = (&spec.train, &spec.val)
        && train == val
    {
        spec.val = None;
    }
    check::check(&spec, None, progress)
}

/// Draws the masks of a plan and writes its lists and its TOML; returns what was written, the TOML last. With `replace`,
/// files of these names are overwritten.
///
/// # Errors
/// Files that are there already; images that cannot be read or are of another size than was noted; a full disk.
pub fn write(plan: &Plan, replace: bool, progress: Progress) -> Result<Vec<PathBuf>> {
    let folder = plan.toml.parent().unwrap_or(Path::new(""));
    let lists: Vec<PathBuf> = plan.lists.iter().map(|(list, _)| folder.join(list)).collect();
    let masks = plan.jobs.iter().map(|job| &job.mask);
    let present: Vec<&PathBuf> =
        std::iter::once(&plan.toml).chain(&lists).chain(masks).filter(|path| !replace && path.exists()).collect();
    if let Some(first) = present.first() {
        let more = if present.len() > 1 { format!(" and {} other files are", present.len() - 1) } else { " is".into() };
        return Err(Error::new(format!("`{}`{more} there already", first.display()))
            .hint("--yes replaces what is there; --out FILE.toml writes elsewhere"));
    }
    let colors = plan.spec.classes().colors;
    let done = std::sync::atomic::AtomicUsize::new(0);
    progress(0, plan.jobs.len());
    plan.jobs.par_iter().try_for_each(|job| {
        job.draw(&colors)?;
        progress(done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1, plan.jobs.len());
        Ok::<(), Error>(())
    })?;
    let mut written = Vec::new();
    for (path, (_, stems)) in lists.iter().zip(&plan.lists) {
        files::write(path, format!("{}\n", stems.join("\n")).as_bytes())?;
        written.push(path.clone());
    }
    let text = text::text(plan);
    // What is written must be readable: names may hold anything.
    DatasetSpec::parse(&text, &plan.toml)?;
    files::write(&plan.toml, text.as_bytes())?;
    written.push(plan.toml.clone());
    Ok(written)
}

impl Job {
    fn draw(&self, colors: &[[u8; 3]]) -> Result<()> {
        let (width, height) = image_size(&self.image)?;
        if let Some([w, h]) = self.declared.filter(|declared| *declared != [width, height]) {
            let hint = if [w, h] == [height, width] {
                "EXIF turns the image; remove the note from it (exiftool -Orientation= FILE) if outlines were drawn without"
            } else {
                "the annotations belong to another version of the image; export both again"
            };
            return Err(Error::new(format!(
                "`{}` has {width}x{height} pixels, and `{}` says {w}x{h}",
                self.image.display(),
                self.source.display()
            ))
            .hint(hint));
        }
        let mut labels = Labels { width, height, ids: vec![0; width * height] };
        let scale = if self.normalised { [width as f64, height as f64] } else { [1.0; 2] };
        for (area, class) in &self.areas {
            match area {
                raster::Area::Polygons(rings) if self.normalised => {
                    let scaled =
                        |ring: &Vec<[f64; 2]>| ring.iter().map(|[x, y]| [x * scale[0], y * scale[1]]).collect();
                    let area = raster::Area::Polygons(rings.iter().map(scaled).collect());
                    raster::draw(&mut labels, &area, *class);
                }
                area => raster::draw(&mut labels, area, *class),
            }
        }
        write_index_png(&self.mask, &labels, colors)
    }
}
