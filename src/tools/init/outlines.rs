//! Outlines of any form of annotations to masks that are to be drawn, with what each image's must be held against.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use image::metadata::Orientation;
use rayon::prelude::*;

use crate::dataset::Split;
use crate::dataset::pairs::plain_stem;
use crate::dataset::spec::{ClassSpec, Encoding, MAX_CLASSES, Source};
use crate::error::{Error, Result};
use crate::files;
use crate::image::formats;
use crate::image::raster::Area;
use crate::image::{IGNORE, MAX_PIXELS, swaps_sides};
use crate::tools::init::notes::Notes;
pub(super) use crate::tools::init::outlined::Outlined;
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
    /// The plan of sets of outlines; class 0 is all that no outline covers. An image whose outlines cannot be right is left
    /// out, with a note.
    pub(super) fn outlines(&self, found: Outlines) -> Result<DatasetPlan> {
        let Outlines { kind, names, normalized, void_rest, mut groups, mut notes } = found;
        let shares = !normalized && shares::all(&groups);
        if shares {
            notes.add("no coordinate is above 1: they are read as fractions of width and height", kind.to_string());
        }
        let normalized = normalized || shares;
        if names.len() >= MAX_CLASSES {
            return Err(Error::new(format!(
                "there are {} classes, but at most {} are possible besides the background",
                names.len(),
                MAX_CLASSES - 1
            ))
            .with_hint("merge classes in the labelling tool"));
        }
        let names = one_spelling(names, &mut groups, &mut notes);
        let mut all = if void_rest { Vec::new() } else { vec!["background".to_string()] };
        let twice = |name: &String| !void_rest && spelling::plain(name) == "background";
        all.extend(names.iter().map(|name| if twice(name) { format!("{name} (drawn)") } else { name.clone() }));
        let all = self.named(all, !void_rest)?;
        let rest_name = all.first().cloned().unwrap_or_default();
        // Without a background, the first name is 0.
        let class = |class: u8| if void_rest && class != IGNORE { class.saturating_sub(1) } else { class };
        let classes = all.into_iter().enumerate();
        let classes = classes
            .map(|(id, name)| ClassSpec { name, color: None, source: Some(vec![Source::Index(id as u16)]) })
            .collect();
        let parent_folder = parent_folder(self.toml);
        let (mut parts, mut jobs) = (Vec::new(), Vec::new());
        let (mut reach, mut blank) = (Reach::default(), Notes::default());
        // Splits may share a folder of images.
        let mut listed: BTreeMap<PathBuf, usize> = BTreeMap::new();
        for (_, images, outlined) in &groups {
            *listed.entry(images.clone()).or_default() += outlined.len();
        }
        for (split, images, outlined) in groups {
            let masks = match split {
                Some(split) => self.own("masks").join(split.to_string()),
                None => self.own("masks"),
            };
            let count = outlined.len();
            let judged: Vec<(Outlined, Result<Canvas>)> = outlined
                .into_par_iter()
                .map(|mut one| {
                    let fault = one.fault.take();
                    let canvas = fault.map_or_else(|| canvas(&images.join(&one.name), &one, normalized), Err);
                    let settled = |canvas: Canvas| {
                        let scaled = !normalized && shares::settle(&mut one, canvas.size)?;
                        Ok(Canvas { scaled, ..canvas })
                    };
                    let canvas = canvas.and_then(settled);
                    (one, canvas)
                })
                .collect();
            let mut stems = Vec::new();
            let mut first_fault = None;
            for (one, canvas) in judged {
                let canvas = match canvas {
                    Ok(canvas) => canvas,
                    Err(fault) => {
                        notes.add(
                            "images were left out because their labels would be wrong",
                            format!(
                                "`{}`: {fault}{}",
                                one.name,
                                fault.hint().map_or(String::new(), |hint| format!(" ({hint})"))
                            ),
                        );
                        first_fault.get_or_insert(fault);
                        continue;
                    }
                };
                let mut one = one;
                if canvas.scaled {
                    notes.add(shares::SCALED, format!("`{}`", one.name));
                } else if !normalized {
                    reach.add(&one, canvas.size);
                }
                one.areas.retain(|(area, _, which)| {
                    let outside = lies_outside(area, if normalized { [1, 1] } else { canvas.size });
                    if outside {
                        let place = format!("{which} of `{}`", one.source.display());
                        notes.add("annotations outside of their image were left out", place);
                    }
                    !outside
                });
                // Of a file that is not there, its form says so.
                if one.areas.is_empty() && one.source.is_file() {
                    blank.add(UNDRAWN, format!("`{}`", one.name));
                }
                if let Some(turned) = canvas.note {
                    notes.add(turned, format!("`{}`", one.name));
                }
                let stem = plain_stem(&one.name).unwrap_or(&one.name).to_string();
                jobs.push(Job {
                    image: images.join(&one.name),
                    source: one.source,
                    mask: parent_folder.join(&masks).join(format!("{stem}.png")),
                    areas: one.areas.into_iter().map(|(area, label, _)| (area, class(label))).collect(),
                    rest: if void_rest { IGNORE } else { 0 },
                    normalized,
                    size: canvas.size,
                    turn: canvas.turn,
                });
                stems.push(stem);
            }
            if let Some(fault) = first_fault.filter(|_| stems.is_empty()) {
                let what = split.map_or("the set".to_string(), |split| format!("[{split}]"));
                let hint = fault.hint().unwrap_or("export the annotations again").to_string();
                let message = match count {
                    1 => format!("the only image of {what} cannot be used"),
                    count => format!("none of the {count} images of {what} can be used; the first"),
                };
                return Err(Error::new(message).with_source(fault).with_hint(hint));
            }
            // Masks that are read may lie among the images: these lack nothing.
            let masks_read: HashSet<&Path> = jobs.iter().flat_map(Job::files).collect();
            let found = Pictures::below(self, &images);
            let pictures = found.names().len();
            let read = found.names().iter().filter(|name| masks_read.contains(images.join(name).as_path())).count();
            // In a folder of masks: of images that have outlines too.
            let of_mask = |name: &&String| {
                let folders = name.rsplit_once('/').map_or("", |(folders, _)| folders).split('/');
                !masks_read.contains(images.join(name.as_str()).as_path())
                    && folders.into_iter().any(|folder| MASKS.contains(&folder.to_lowercase().as_str()))
            };
            let as_masks: Vec<&String> = found.names().iter().filter(of_mask).collect();
            // Masks that are drawn below the images would be taken for more of them.
            let within = real(parent_folder).join(&masks).starts_with(real(&images));
            let list = if pictures == stems.len() && !within { List::None } else { List::New };
            if let Some(count) = listed.remove(&images) {
                if let Some(first) = as_masks.first() {
                    let what = format!("`{}`", images.join(first).display());
                    notes.add_many(MASKS_TOO, as_masks.len(), what);
                }
                let left = pictures.saturating_sub(count + read + as_masks.len());
                notes.add_many(
                    "images without annotations were left out",
                    left,
                    format!("below `{}`", images.display()),
                );
            }
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
        let ignored = void_rest || jobs.iter().any(|job| job.areas.iter().any(|(_, class)| *class == IGNORE));
        let ignore = if ignored { vec![Source::Index(255)] } else { Vec::new() };
        let mut plan = self.plan(kind, Encoding::Index, ignore, classes, parts)?;
        plan.jobs = jobs;
        plan.notes.push(match void_rest {
            true => "pixels outside of all outlines are ignored".to_string(),
            false => format!("pixels outside of all outlines are the class `{rest_name}`"),
        });
        let all = match void_rest {
            true => "are ignored as a whole".to_string(),
            false => format!("are `{rest_name}` as a whole"),
        };
        plan.notes.extend(blank.lines().into_iter().map(|line| line.replacen(UNDRAWN, &format!("{UNDRAWN} {all}"), 1)));
        plan.notes.extend(reach.percent());
        plan.notes.extend(notes.lines());
        Ok(plan)
    }
}

/// What is said of pictures that may be masks.
const MASKS_TOO: &str = "masks were not read, because there are outlines too; to read the masks instead, pass both folders \
                         with --images and --masks";

/// What is said of images that are listed, and on which nothing is drawn.
const UNDRAWN: &str = "images without an outline";

/// The names with those united that differ in spelling alone; labels of outlines follow. What has no name is not a class: the
/// image's labels would be wrong.
fn one_spelling(
    names: &[String],
    groups: &mut [(Option<Split>, PathBuf, Vec<Outlined>)],
    notes: &mut Notes,
) -> Vec<String> {
    let mut counts = vec![0; names.len()];
    let at = |label: u8| usize::from(label).checked_sub(1).filter(|at| *at < names.len() && label != IGNORE);
    for (_, label, _) in groups.iter().flat_map(|(.., some)| some).flat_map(|one| &one.areas) {
        if let Some(at) = at(*label) {
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
        for (_, class, which) in &mut one.areas {
            let Some(at) = at(*class) else { continue };
            match places[united.places[at]] {
                Some(place) => *class = label(place),
                None => drop(nameless.get_or_insert_with(|| which.clone())),
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

/// Whether no pixel of a picture of that size can lie inside of the outline.
fn lies_outside(area: &Area, [width, height]: [usize; 2]) -> bool {
    let Area::Polygons(rings) = area else { return false };
    let points = || rings.iter().flatten();
    let beyond = |axis: usize, side: usize| {
        points().all(|point| point[axis] <= 0.0) || points().all(|point| point[axis] >= side as f64)
    };
    points().next().is_some() && (beyond(0, width) || beyond(1, height))
}

/// Width and height of a picture as it is stored, and how EXIF turns it.
fn stored(path: &Path) -> Result<([usize; 2], Orientation)> {
    let file = files::open(path).map_err(|error| Error::file("open", path, error))?;
    let ((width, height), turn) =
        formats::size(std::io::BufReader::new(file)).map_err(|error| Error::file("read", path, error))?;
    Ok(([width, height], turn))
}

/// What outlines are drawn on.
struct Canvas {
    size: [usize; 2],
    turn: Orientation,
    note: Option<&'static str>,
    /// Fractions of an image in a set of pixels became pixels.
    scaled: bool,
}

/// Looks at an image and at everything that is to be drawn on it.
fn canvas(path: &Path, one: &Outlined, normalized: bool) -> Result<Canvas> {
    let (size, turn) = stored(path)?;
    let shown = if swaps_sides(turn) { [size[1], size[0]] } else { size };
    if (size[0] as u64).saturating_mul(size[1] as u64) > MAX_PIXELS {
        return Err(Error::new(format!("it has {}x{} pixels", size[0], size[1])).with_hint("cut it into tiles"));
    }
    let turned = turn != Orientation::NoTransforms;
    let (size, turn, note) = match one.declared {
        _ if !turned => (size, turn, None),
        // What the annotations say decides: of the stored picture, or of the one that is shown.
        Some(declared) if declared == size && declared != shown => (
            size,
            turn,
            Some("images are rotated by EXIF, and their outlines, which are of the stored size, are rotated with them"),
        ),
        Some(declared) if declared == shown && declared != size => (
            shown,
            Orientation::NoTransforms,
            Some("images are rotated by EXIF, and their outlines are of the rotated size"),
        ),
        _ => (
            shown,
            Orientation::NoTransforms,
            Some(
                "images are rotated by EXIF, and their outlines are assumed to be rotated too: the size does not tell",
            ),
        ),
    };
    if let Some([w, h]) = one.declared.filter(|declared| *declared != size) {
        return Err(Error::new(format!(
            "`{}` has {}x{} pixels, but `{}` says {w}x{h}",
            path.display(),
            shown[0],
            shown[1],
            one.source.display()
        ))
        .with_hint("the annotations belong to another version of the image; export both again"));
    }
    for (area, _, which) in &one.areas {
        // Shares are looked at where they are read.
        if !normalized || !matches!(area, Area::Polygons(_)) {
            area.check(size).map_err(|error| {
                let hint = error.hint().unwrap_or("export it again, or remove the annotation").to_string();
                Error::new(format!("{which} of `{}` cannot be used", one.source.display()))
                    .with_source(error)
                    .with_hint(hint)
            })?;
        }
    }
    Ok(Canvas { size, turn, note, scaled: false })
}

/// The label of the class at a position in the names of outlines; too many are refused by [`Place::outlines`].
pub(super) fn label(at: usize) -> u8 {
    u8::try_from(at + 1).unwrap_or(IGNORE)
}
