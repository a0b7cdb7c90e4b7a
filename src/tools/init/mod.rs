//! A folder looked at, and the dataset TOML that describes it.
//!
//! ```text
//! folder ──[a reader for each known form]──▶ Plan ──[write]──▶ masks drawn from outlines, lists, dataset.toml
//! ```
//!
//! A reader answers `None` for a folder that is not of its form, and an error for one that is, but cannot be described:
//! with what was found and what to pass.

mod canvas;
mod city_polygons;
mod class_name;
mod class_values;
mod classes;
mod coco;
mod coco_file;
mod depth;
mod folders;
mod given_options;
mod json;
mod kaggle;
mod known;
mod label_studio_json;
mod label_studio_png;
mod labelme;
mod layers;
mod lists;
mod loveda;
mod match_names;
mod names;
mod names_json;
mod names_text;
mod not_labels;
mod notes;
mod outlined_image;
mod outlines;
mod panoptic;
mod paths;
mod per_class;
mod pictures;
mod places;
mod plan;
mod positions;
mod provenance;
mod published;
mod read;
mod roles;
mod shares;
mod spelling;
mod splits;
mod supervisely;
mod table;
mod text;
mod unknown;
mod unused;
mod used_options;
mod via;
mod via_attributes;
mod voc;
mod write;
mod yolo;
mod yolo_labels;

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::text::shell_word;
use crate::tools::check;
use crate::tools::check::{CheckReport, OnProgress};
use plan::Place;

pub use plan::DatasetPlan;
pub use read::TextEncoding;
pub use roles::{Role, Roles};

/// What the description is called where no other name is given.
pub const FILE: &str = "dataset.toml";

/// What the person says about the folder.
#[derive(Clone, Debug, Default)]
pub struct InitOptions {
    /// The folder of images, below the folder or elsewhere.
    pub images: Option<PathBuf>,
    /// The folder of masks.
    pub masks: Option<PathBuf>,
    /// Names of the classes, in the order of their values.
    pub names: Vec<String>,
    /// The value that the first of the names stands for, where that is not clear: 0 or 1.
    pub first: Option<u16>,
    /// Values of masks that count nowhere; an empty list says that all values are classes.
    pub void: Option<Vec<u16>>,
    /// Masks may be JPEGs, whose values are taken for the nearest common one within so much.
    pub jpeg_tolerance: Option<u8>,
    /// Coordinates beyond 1 in YOLO's files are pixels.
    pub pixels: bool,
    /// Coordinates beyond 1 in YOLO's files are percentages.
    pub percent: bool,
    /// The encoding of text that is no Unicode.
    pub text: Option<TextEncoding>,
    /// What the description is for.
    pub purpose: Purpose,
}

/// What a description is for: how it says paths, and what commands in notes write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// To be kept. Commands write it again.
    #[default]
    Lasting,
    /// One run, in whose folder it lies. Commands write one that lasts, into the folder of the set.
    Run,
    /// This moment: it lies in a temporary place, and paths are absolute. Commands as for a run.
    Moment,
}

/// Looks at `folder` and plans the description that will lie at `toml`. Writes nothing.
///
/// # Errors
/// A folder that cannot be read, of no known form, or that leaves open what must be known; with what was found.
pub fn detect_format(folder: &Path, toml: &Path, options: &InitOptions, progress: OnProgress) -> Result<DatasetPlan> {
    given_options::names_are_distinct(&options.names)?;
    let place = Place::new(folder, toml, options)?;
    type Reader = fn(&Place, OnProgress) -> Result<Option<DatasetPlan>>;
    let readers: [Reader; 14] = [
        known::plan,
        loveda::plan,
        yolo::plan,
        coco::plan,
        panoptic::plan,
        voc::plan,
        label_studio_png::plan,
        label_studio_json::plan,
        supervisely::plan,
        via::plan,
        labelme::plan,
        layers::plan,
        folders::plan,
        // Where masks lie beside the table, they are what it says.
        kaggle::plan,
    ];
    // Whoever names folders of masks has no outlines.
    let readers = if options.masks.is_some() { &readers[11..13] } else { &readers[..] };
    for reader in readers {
        if let Some(mut plan) = reader(&place, progress)? {
            place.refuse_unused(&plan.kind)?;
            depth::note(&place, &mut plan, progress);
            plan.notes.extend(unused::note(&place, &plan));
            plan.notes.extend(unused::not_files(&place));
            return Ok(plan);
        }
    }
    Err(unknown::refusal(&place))
}

/// Checks a bare folder: as [`check::check`] does what [`detect_format`] would describe it as.
///
/// # Errors
/// As [`detect_format`]; and outlines, which must be drawn as masks before they can be checked.
pub fn check_folder(folder: &Path, progress: OnProgress) -> Result<CheckReport> {
    let toml = folder.join(FILE);
    let options = InitOptions::default();
    let place = Place::new(folder, &toml, &options)?;
    // Sets with lists and values of their own first; of others, the check says why values are no labels.
    let (plan, doubt) = match known::plan(&place, progress)?.or(voc::plan(&place, progress)?) {
        Some(plan) => (plan, None),
        None => match folders::plan_leniently(&place, progress)? {
            Some(found) => found,
            None => (detect_format(folder, &toml, &options, progress)?, None),
        },
    };
    if !plan.jobs.is_empty() {
        return Err(Error::new(format!("`{}` holds {}, not masks", folder.display(), plan.kind)).with_hint(format!(
            "run: structtoken data init {}, which draws masks and writes a TOML to check",
            shell_word(folder)
        )));
    }
    let mut spec = plan.spec;
    for split in [&mut spec.train, &mut spec.val, &mut spec.test].into_iter().flatten() {
        // A list that is not written yet cannot choose; what both would hold is looked at as one.
        if split.list.as_ref().is_some_and(|list| plan.lists.iter().any(|(new, _)| new == list)) {
            if split.images == split.masks {
                return Err(Error::new(format!("`{}` holds images and masks in one folder", folder.display()))
                    .with_hint(format!(
                        "run: structtoken data init {}, which writes lists and a TOML to check",
                        shell_word(folder)
                    )));
            }
            split.list = None;
        }
    }
    if let (Some(train), Some(val)) = (&spec.train, &spec.val)
        && train == val
    {
        spec.val = None;
    }
    let mut report = check::check(&spec, None, progress)?;
    // What `init` asks is no less open here, where nothing else stops training.
    if let (Some(doubt), true) = (doubt, report.ok) {
        report.doubt(&doubt);
    }
    if let Some(what) = unused::not_files(&place) {
        report.not_read(what);
    }
    Ok(report)
}

/// Draws the masks of a plan and writes its lists and its TOML; returns what was written, the TOML last. With
/// `replace`, what an earlier call wrote under these names is replaced. All is written or nothing.
///
/// # Errors
/// Files that are there already, or that this program did not write; files that would lie on what is read; images that
/// cannot be read any more; a full disk.
pub fn write(plan: &DatasetPlan, replace: bool, progress: OnProgress) -> Result<Vec<PathBuf>> {
    write::write(plan, replace, progress)
}
