//! Outlines of any form of annotations to masks that are to be drawn, with what each image's must be held against.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::dataset::Split;
use crate::dataset::pairs::plain_stem;
use crate::dataset::spec::{ClassSpec, Encoding, MAX_CLASSES, Source};
use crate::error::{Error, Result};
use crate::image::IGNORE;
use crate::tools::init::canvas::{ACROSS, Canvas, Lies, canvas, lies};
use crate::tools::init::notes::Notes;
pub(super) use crate::tools::init::outlined_image::Outlined;
use crate::tools::init::paths::{parent_folder, real};
use crate::tools::init::pictures::Pictures;
use crate::tools::init::places::MASKS;
use crate::tools::init::plan::{DatasetPlan, Job, List, Place, SplitImages};
use crate::tools::init::shares::Reach;
use crate::tools::init::{shares, spelling};

/// Images that are outlined, by their split and the folder that their names are below.
pub(super) type Groups = BTreeMap<(Option<Split>, PathBuf), Vec<Outlined>>;

/// Images with outlines, as they are read from one form of files.
pub(super) struct Outlines<'a> {
    pub(super) kind: &'a str,
    /// Of the classes beside the background.
    pub(super) names: &'a [String],
    /// Coordinates are shares of width and height.
    pub(super) normalized: bool,
    /// What no outline covers counts nowhere, and is not a class.
    pub(super) void_rest: bool,
    /// The split, the folder of images, and those of them that are outlined.
    pub(super) groups: Vec<(Option<Split>, PathBuf, Vec<Outlined>)>,
    pub(super) notes: Notes,
}

impl<'a> Outlines<'a> {
    /// Outlines in pixels on a background that is a class.
    pub(super) fn in_pixels(kind: &'a str, names: &'a [String], groups: Groups, notes: Notes) -> Self {
        let groups = groups.into_iter().map(|((split, images), outlined)| (split, images, outlined)).collect();
        Self { kind, names, normalized: false, void_rest: false, groups, notes }
    }
}

impl Place<'_> {
    /// The plan of sets of outlines; class 0 is all that no outline covers. An image whose outlines cannot be right is
    /// left out, with a note.
    pub(super) fn outlines(&self, found: Outlines) -> Result<DatasetPlan> {
        let Outlines { kind, names, normalized, void_rest, mut groups, mut notes } = found;
        let shares = !normalized && shares::all(&groups);
        if shares {
            notes.add("no coordinate is above 1: they are read as fractions of width and height", kind.to_string());
        }
        if names.len() >= MAX_CLASSES {
            return Err(Error::new(format!(
                "there are {} classes, but at most {} are possible besides the background",
                names.len(),
                MAX_CLASSES - 1
            ))
            .with_hint("merge classes in the labelling tool"));
        }
        let names = self.class_names(&one_spelling(names, &mut groups, &mut notes), void_rest)?;
        let rest_name = names.first().cloned().unwrap_or_default();
        let mut drawing = Drawing {
            parent_folder: parent_folder(self.toml),
            normalized: normalized || shares,
            void_rest,
            jobs: Vec::new(),
            notes,
            blank: Notes::default(),
            reach: Reach::default(),
        };
        // Splits may share a folder of images.
        let mut listed: BTreeMap<PathBuf, usize> = BTreeMap::new();
        for (_, images, outlined) in &groups {
            *listed.entry(images.clone()).or_default() += outlined.len();
        }
        let mut parts = Vec::new();
        for (split, images, outlined) in groups {
            let masks = match split {
                Some(split) => self.own("masks").join(split.to_string()),
                None => self.own("masks"),
            };
            let stems = drawing.add(split, &images, &masks, outlined)?;
            let pictures = self.note_left_out(&mut drawing, &images, listed.remove(&images));
            // Masks that are drawn below the images would be taken for more of them.
            let within = real(drawing.parent_folder).join(&masks).starts_with(real(&images));
            let list = if pictures == stems.len() && !within { List::None } else { List::New };
            parts.push(SplitImages {
                split,
                images,
                masks,
                image_suffix: None,
                mask_suffix: ".png".into(),
                stems,
                list,
            });
        }
        let class = |(id, name)| ClassSpec { name, color: None, source: Some(vec![Source::Index(id as u16)]) };
        let classes = names.into_iter().enumerate().map(class).collect();
        let ignore = if drawing.ignores() { vec![Source::Index(255)] } else { Vec::new() };
        let mut plan = self.plan(kind, Encoding::Index, ignore, classes, parts)?;
        plan.notes.extend(drawing.remarks(&rest_name));
        plan.jobs = drawing.jobs;
        Ok(plan)
    }

    /// The background, where it is a class, and the classes that are drawn, under the names that were asked for.
    fn class_names(&self, drawn: &[String], void_rest: bool) -> Result<Vec<String>> {
        let mut all = if void_rest { Vec::new() } else { vec!["background".to_string()] };
        let twice = |name: &String| !void_rest && spelling::plain(name) == "background";
        all.extend(drawn.iter().map(|name| if twice(name) { format!("{name} (drawn)") } else { name.clone() }));
        self.named(all, !void_rest)
    }

    /// Notes which pictures below `images` are not used, where `listed` of them are, over all splits; none where that
    /// was noted before. Returns how many pictures there are.
    fn note_left_out(&self, drawing: &mut Drawing, images: &Path, listed: Option<usize>) -> usize {
        // Masks that are read may lie among the images: these lack nothing.
        let masks_read: HashSet<&Path> = drawing.jobs.iter().flat_map(Job::files).collect();
        let found = Pictures::below(self, images);
        let pictures = found.names().len();
        let Some(count) = listed else { return pictures };
        let is_read = |name: &&String| masks_read.contains(images.join(name.as_str()).as_path());
        let read = found.names().iter().filter(is_read).count();
        // In a folder of masks: of images that have outlines too.
        let of_mask = |name: &&String| {
            let folders = name.rsplit_once('/').map_or("", |(folders, _)| folders).split('/');
            !is_read(name) && folders.into_iter().any(|folder| MASKS.contains(&folder.to_lowercase().as_str()))
        };
        let as_masks: Vec<&String> = found.names().iter().filter(of_mask).collect();
        if let Some(first) = as_masks.first() {
            let what = format!("`{}`", images.join(first).display());
            drawing.notes.add_many(MASKS_TOO, as_masks.len(), what);
        }
        let left = pictures.saturating_sub(count + read + as_masks.len());
        let where_from = format!("below `{}`", images.display());
        drawing.notes.add_many("images without annotations were left out", left, where_from);
        pictures
    }
}

/// The masks that are to be drawn, and what is to be said of them.
struct Drawing<'a> {
    /// The folder that masks are written below.
    parent_folder: &'a Path,
    normalized: bool,
    void_rest: bool,
    jobs: Vec<Job>,
    notes: Notes,
    /// Images on which nothing is drawn.
    blank: Notes,
    reach: Reach,
}

impl Drawing<'_> {
    /// Adds the images of a split whose outlines can be right, to be drawn into the folder `masks`; returns their
    /// stems.
    fn add(
        &mut self,
        split: Option<Split>,
        images: &Path,
        masks: &Path,
        outlined: Vec<Outlined>,
    ) -> Result<Vec<String>> {
        let count = outlined.len();
        let (mut stems, mut first_fault) = (Vec::new(), None);
        for (one, canvas) in canvases(images, outlined, self.normalized) {
            match canvas {
                Ok(canvas) => stems.push(self.job(images, masks, one, canvas)),
                Err(fault) => {
                    let hint = fault.hint().map_or(String::new(), |hint| format!(" ({hint})"));
                    self.notes.add(
                        "images were left out because their labels would be wrong",
                        format!("`{}`: {fault}{hint}", one.name),
                    );
                    first_fault.get_or_insert(fault);
                }
            }
        }
        let Some(fault) = first_fault.filter(|_| stems.is_empty()) else { return Ok(stems) };
        let what = split.map_or("the set".to_string(), |split| format!("[{split}]"));
        let hint = fault.hint().unwrap_or("export the annotations again").to_string();
        let message = match count {
            1 => format!("the only image of {what} cannot be used"),
            count => format!("none of the {count} images of {what} can be used; the first"),
        };
        Err(Error::new(message).with_source(fault).with_hint(hint))
    }

    /// Adds the mask of an image; returns its stem.
    fn job(&mut self, images: &Path, masks: &Path, mut one: Outlined, canvas: Canvas) -> String {
        if canvas.scaled {
            self.notes.add(shares::SCALED, format!("`{}`", one.name));
        } else if !self.normalized {
            self.reach.add(&one, canvas.size);
        }
        one.areas.retain(|(area, _, which)| {
            let (kept, said) = match lies(area, self.normalized, canvas.size) {
                Lies::Inside => return true,
                Lies::Outside => (false, "annotations outside of their image were left out"),
                Lies::Between => (false, "annotations too small to cover the centre of a pixel were left out"),
                Lies::Across => (true, ACROSS),
            };
            self.notes.add(said, format!("{which} of `{}`", one.source.display()));
            kept
        });
        // Of a file that is not there, its form says so.
        if one.areas.is_empty() && one.source.is_file() {
            self.blank.add(UNDRAWN, format!("`{}`", one.name));
        }
        if let Some(turned) = canvas.note {
            self.notes.add(turned, format!("`{}`", one.name));
        }
        // Without a background, the first name is 0.
        let class = |class: u8| if self.void_rest && class != IGNORE { class.saturating_sub(1) } else { class };
        let stem = plain_stem(&one.name).unwrap_or(&one.name).to_string();
        self.jobs.push(Job {
            image: images.join(&one.name),
            source: one.source,
            mask: self.parent_folder.join(masks).join(format!("{stem}.png")),
            areas: one
                .areas
                .into_iter()
                .map(|(mut area, label, _)| {
                    area.segment_labels().for_each(|label| *label = class(*label));
                    (area, class(label))
                })
                .collect(),
            rest: if self.void_rest { IGNORE } else { 0 },
            normalized: self.normalized,
            size: canvas.size,
            turn: canvas.turn,
        });
        stem
    }

    /// Whether some pixels count nowhere.
    fn ignores(&self) -> bool {
        self.void_rest || self.jobs.iter().any(|job| job.areas.iter().any(|(_, class)| *class == IGNORE))
    }

    /// What there is to say, where the class of the rest is called `rest`.
    fn remarks(&self, rest: &str) -> Vec<String> {
        let (first, all) = match self.void_rest {
            true => ("pixels outside of all outlines are ignored".to_string(), "are ignored as a whole".to_string()),
            false => {
                (format!("pixels outside of all outlines are the class `{rest}`"), format!("are `{rest}` as a whole"))
            }
        };
        let blank = self.blank.lines().into_iter();
        let blank = blank.map(|line| line.replacen(UNDRAWN, &format!("{UNDRAWN} {all}"), 1));
        std::iter::once(first).chain(blank).chain(self.reach.percent()).chain(self.notes.lines()).collect()
    }
}

/// Looks at each image, and at everything that is to be drawn on it.
fn canvases(images: &Path, outlined: Vec<Outlined>, normalized: bool) -> Vec<(Outlined, Result<Canvas>)> {
    let look = |mut one: Outlined| {
        let fault = one.fault.take();
        let canvas = fault.map_or_else(|| canvas(&images.join(&one.name), &one, normalized), Err);
        let settled = |canvas: Canvas| {
            let scaled = !normalized && shares::settle(&mut one, canvas.size)?;
            Ok(Canvas { scaled, ..canvas })
        };
        let canvas = canvas.and_then(settled);
        (one, canvas)
    };
    outlined.into_par_iter().map(look).collect()
}

/// What is said of pictures that may be masks.
const MASKS_TOO: &str = "masks were not read, because there are outlines too; to read the masks instead, pass both folders \
                         with --images and --masks";

/// What is said of images that are listed, and on which nothing is drawn.
const UNDRAWN: &str = "images without an outline";

/// The names with those united that differ in spelling alone; labels of outlines follow. What has no name is not a
/// class: the image's labels would be wrong.
fn one_spelling(
    names: &[String],
    groups: &mut [(Option<Split>, PathBuf, Vec<Outlined>)],
    notes: &mut Notes,
) -> Vec<String> {
    let mut counts = vec![0; names.len()];
    let at = |label: u8| usize::from(label).checked_sub(1).filter(|at| *at < names.len() && label != IGNORE);
    for (area, label, _) in groups.iter_mut().flat_map(|(.., some)| some).flat_map(|one| &mut one.areas) {
        for at in std::iter::once(label).chain(area.segment_labels()).filter_map(|label| at(*label)) {
            counts[at] += 1;
        }
    }
    let united = spelling::unite(names, &counts);
    for said in &united.said {
        notes.add(
            "names that differ in spelling alone are one class; to keep them apart, rename one in the labelling tool",
            said,
        );
    }
    // Those that are left, in their order.
    let mut left: Vec<String> = Vec::new();
    let places: Vec<Option<usize>> = united
        .names
        .iter()
        .map(|name| {
            (!name.trim().is_empty()).then(|| {
                left.push(name.clone());
                left.len() - 1
            })
        })
        .collect();
    for one in groups.iter_mut().flat_map(|(.., some)| some) {
        let mut nameless = None;
        for (area, class, which) in &mut one.areas {
            for class in std::iter::once(class).chain(area.segment_labels()) {
                let Some(at) = at(*class) else { continue };
                match places[united.places[at]] {
                    Some(place) => *class = label(place),
                    None => drop(nameless.get_or_insert_with(|| which.clone())),
                }
            }
        }
        if let Some(which) = nameless {
            one.fault.get_or_insert_with(|| {
                Error::new(format!("{which} of `{}` has no class", one.source.display()))
                    .with_hint("give it one in the labelling tool, or remove it")
            });
        }
    }
    left
}

/// The label of the class at a position in the names of outlines; too many are refused by [`Place::outlines`].
pub(super) fn label(at: usize) -> u8 {
    u8::try_from(at + 1).unwrap_or(IGNORE)
}
