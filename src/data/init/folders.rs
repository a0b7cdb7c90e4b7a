//! Folders of images and masks under their common names.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::per_class::{self, Folders};
use super::plan::{List, Part, Place, Plan, folders_in};
use super::splits::SPLITS;
use super::{classes, names};
use crate::data::Split;
use crate::data::check::{Progress, naming, survey};
use crate::data::pairs::plain_stem;
use crate::data::spec::Encoding;
use crate::data::walk::walk;
use crate::error::{Error, Result};

const IMAGES: [&str; 14] = [
    "images",
    "image",
    "imgs",
    "img",
    "jpegimages",
    "leftimg8bit",
    "photos",
    "pictures",
    "rgb",
    "input",
    "inputs",
    "original",
    "original_images",
    "x",
];
const MASKS: [&str; 19] = [
    "masks",
    "mask",
    "labels",
    "label",
    "annotations",
    "annotation",
    "annot",
    "gt",
    "gtfine",
    "ground_truth",
    "groundtruth",
    "segmentationclass",
    "segmentation",
    "segmentations",
    "seg",
    "targets",
    "target",
    "label_images",
    "y",
];

/// Folders of one split, before their files are matched.
struct Candidate {
    split: Option<Split>,
    images: PathBuf,
    masks: PathBuf,
}

/// A plan for folders of images and masks whose values are labels.
pub(super) fn plan(place: &Place, progress: Progress) -> Result<Option<Plan>> {
    let Some((plan, doubt)) = describe(place, progress)? else { return Ok(None) };
    match doubt {
        None => Ok(Some(plan)),
        Some(doubt) => Err(untold(place.dir, doubt)),
    }
}

/// What masks hold is no labels, or not clear.
pub(super) fn untold(folder: &Path, doubt: Error) -> Error {
    let hint = match doubt.remedy() {
        Some(hint) => hint.to_string(),
        None => format!("`structtoken data check '{}'` names the files", folder.display()),
    };
    Error::new(format!("the masks in `{}` hold no labels that can be told", folder.display())).source(doubt).hint(hint)
}

/// The same where values are doubtful, for a check to say how.
pub(super) fn plan_leniently(place: &Place, progress: Progress) -> Result<Option<Plan>> {
    Ok(describe(place, progress)?.map(|(plan, _)| plan))
}

/// The plan, and why the masks may be no labels.
fn describe(place: &Place, progress: Progress) -> Result<Option<(Plan, Option<Error>)>> {
    let candidates = candidates(place)?;
    let folders: Vec<Folders> =
        candidates.iter().map(|Candidate { split, images, masks }| Folders { split: *split, images, masks }).collect();
    if let Some(plan) = per_class::plan(place, &folders, progress)? {
        return Ok(Some((plan, None)));
    }
    let mut parts = Vec::new();
    let mut masks = Vec::new();
    for candidate in &candidates {
        if let Some((part, files)) = matched(place, candidate)? {
            parts.push(part);
            masks.extend(files);
        }
    }
    if parts.is_empty() {
        return Ok(None);
    }
    masks.sort();
    masks.dedup();
    let survey = survey(&masks, progress);
    let mut found = classes::find(&survey, place.options, names::find(place.dir, place.options)?);
    let kind = match found.encoding {
        Encoding::Index => "images with masks of numbers",
        Encoding::Rgb => "images with masks of colours",
    };
    let mut plan = place.plan(kind, found.encoding, found.ignore, found.classes, parts)?;
    plan.notes.splice(0..0, found.notes);
    if let Some((path, what)) = survey.broken.first() {
        let (count, all) = (survey.broken.len(), masks.len());
        let note = format!("{count} of {all} masks cannot be read, `{}` first: {what}", path.display());
        match count == all {
            true => found.doubt = Some(Error::new(note)),
            false => plan.notes.push(note),
        }
    }
    Ok(Some((plan, found.doubt)))
}

/// Where images and masks of each split may lie.
fn candidates(place: &Place) -> Result<Vec<Candidate>> {
    let dir = place.dir;
    let whole = |split, images: &Path, masks: &Path| Candidate { split, images: images.into(), masks: masks.into() };
    let options = place.options;
    if options.images.is_some() || options.masks.is_some() {
        let folder = |given: &Option<PathBuf>, names: &[&str], flag: &str| -> Result<PathBuf> {
            let folder = match given {
                Some(path) if path.is_absolute() || !dir.join(path).exists() => path.clone(),
                Some(path) => dir.join(path),
                None => called(dir, names).ok_or_else(|| {
                    Error::new(format!("`{}` has no folder of a known name", dir.display()))
                        .hint(format!("pass {flag} too"))
                })?,
            };
            if folder.is_dir() {
                Ok(folder)
            } else {
                Err(Error::new(format!("`{}` is not a folder", folder.display())).hint(format!("check {flag}")))
            }
        };
        let images = folder(&options.images, &IMAGES, "--images")?;
        let masks = folder(&options.masks, &MASKS, "--masks")?;
        let splits = split_below(&images, &masks);
        return Ok(if splits.is_empty() { vec![whole(None, &images, &masks)] } else { splits });
    }
    if let (Some(images), Some(masks)) = (called(dir, &IMAGES), called(dir, &MASKS)) {
        let splits = split_below(&images, &masks);
        return Ok(if splits.is_empty() { vec![whole(None, &images, &masks)] } else { splits });
    }
    let mut found = Vec::new();
    for (split, names) in SPLITS {
        let Some(folder) = called(dir, names) else { continue };
        let beside = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_lowercase();
        let masks: Vec<String> =
            MASKS.iter().flat_map(|mask| ["_", "", "-"].map(|between| format!("{beside}{between}{mask}"))).collect();
        let masks: Vec<&str> = masks.iter().map(String::as_str).collect();
        if let (Some(images), Some(masks)) = (called(&folder, &IMAGES), called(&folder, &MASKS)) {
            found.push(whole(Some(split), &images, &masks));
        } else if let Some(masks) = called(dir, &masks) {
            found.push(whole(Some(split), &folder, &masks));
        } else {
            found.push(whole(Some(split), &folder, &folder));
        }
    }
    if found.is_empty() {
        found.push(whole(None, dir, dir));
    }
    Ok(found)
}

/// The folders of images and of masks, where the set has one of each.
pub(super) fn called_pair(place: &Place) -> Option<(PathBuf, PathBuf)> {
    let options = place.options;
    if options.images.is_some() || options.masks.is_some() {
        let found = candidates(place).ok()?;
        let first = found.first()?;
        return (first.split.is_none()).then(|| (first.images.clone(), first.masks.clone()));
    }
    Some((called(place.dir, &IMAGES)?, called(place.dir, &MASKS)?))
}

/// Folders of splits below both.
fn split_below(images: &Path, masks: &Path) -> Vec<Candidate> {
    let both = |(split, names): &(Split, &[&str])| {
        Some(Candidate { split: Some(*split), images: called(images, names)?, masks: called(masks, names)? })
    };
    SPLITS.iter().filter_map(both).collect()
}

/// The folder in `dir` that has one of these names, the first name first, in any letters.
fn called(dir: &Path, names: &[&str]) -> Option<PathBuf> {
    let folders = folders_in(dir);
    let find = |name: &&str| folders.iter().find(|(folder, _)| folder.to_lowercase() == **name);
    names.iter().find_map(find).map(|(_, path)| path.clone())
}

/// Pairs the files of a candidate by their names; also gives the masks.
fn matched(place: &Place, candidate: &Candidate) -> Result<Option<(Part, Vec<PathBuf>)>> {
    let (images, masks) = (place.files(&candidate.images), place.files(&candidate.masks));
    let same = candidate.images == candidate.masks;
    let names: Vec<&str> =
        images.iter().map(|(name, _)| name.as_str()).filter(|name| plain_stem(name).is_some()).collect();
    let mask_names: Vec<&str> =
        masks.iter().map(|(name, _)| name.as_str()).filter(|name| plain_stem(name).is_some()).collect();
    if names.is_empty() || mask_names.is_empty() {
        return Ok(None);
    }
    let Some((rule, hits)) = naming::guess(&names, &mask_names, !same) else {
        if same {
            return Ok(None);
        }
        let error = Error::new(format!(
            "images and masks cannot be matched by their names: `{}` holds for instance `{}`, `{}` for instance `{}`",
            candidate.images.display(),
            names[0],
            candidate.masks.display(),
            mask_names[0]
        ));
        return Err(match naming::guess_prefix(&names, &mask_names) {
            Some((from, to, ending)) => error.hint(format!(
                "a mask is called like its image, up to the end; run: cd '{}' && for f in {to}*{ending}; do mv \"$f\" \
                 \"{from}${{f#{to}}}\"; done",
                candidate.masks.display()
            )),
            None => error.hint("a mask is called like its image, up to the end (a.jpg, a_mask.png): rename them"),
        });
    };
    // A mask in the images' own folder must be told from an image by more than a common ending.
    if same && 2 * hits < names.len() - hits {
        return Ok(None);
    }
    let present: HashSet<&str> = mask_names.iter().copied().collect();
    let mask_of =
        |name: &&str| rule.mask(name).filter(|mask| present.contains(mask.as_str()) && (!same || mask != *name));
    let taken: Vec<&str> = names
        .iter()
        .filter(|name| if same { mask_of(name).is_some() } else { rule.mask(name).is_some() })
        .copied()
        .collect();
    let stem = |name: &&str| {
        let suffix = rule.image_suffix.as_deref();
        suffix.map_or_else(|| plain_stem(name), |suffix| name.strip_suffix(suffix)).unwrap_or(name).to_string()
    };
    let stems: Vec<String> = taken.iter().map(stem).collect();
    let files = taken.iter().filter_map(|name| Some(candidate.masks.join(mask_of(name)?))).collect();
    let mut image_suffix = rule.image_suffix.clone();
    let mut list = List::None;
    if same {
        let suffix = &taken[0][stems[0].len()..];
        if taken.iter().all(|name| name.ends_with(suffix)) {
            image_suffix = Some(suffix.to_string());
        }
        let read =
            names.iter().filter(|name| image_suffix.as_ref().is_none_or(|suffix| name.ends_with(suffix.as_str())));
        list = if read.count() == taken.len() { List::None } else { List::New };
    }
    let part = Part {
        split: candidate.split,
        images: candidate.images.clone(),
        masks: place.path(&candidate.masks),
        image_suffix,
        mask_suffix: rule.mask_suffix.clone(),
        stems,
        list,
    };
    Ok(Some((part, files)))
}

/// What is in a folder of no known form.
pub(super) fn unknown(place: &Place) -> Error {
    let dir = place.dir;
    let folders: Vec<String> = folders_in(dir).into_iter().map(|(name, _)| format!("{name}/")).collect();
    let mut endings: Vec<String> = walk(dir)
        .files
        .iter()
        .filter_map(|(name, _)| Some(format!(".{}", name.rsplit('/').next()?.rsplit_once('.')?.1)))
        .collect();
    endings.sort();
    let counted: Vec<String> =
        endings.chunk_by(|a, b| a == b).map(|same| format!("{} {}", same.len(), same[0])).take(8).collect();
    let files = if counted.is_empty() { "no files".to_string() } else { format!("files {}", counted.join(", ")) };
    let folders = if folders.is_empty() { "no folders".to_string() } else { folders.join(" ") };
    Error::new(format!("`{}` is no dataset of a known form: it holds {folders} and {files}", dir.display())).hint(
        "pass --images DIR --masks DIR; known are folders of images and masks, YOLO, COCO, VOC, LabelMe, Supervisely, VIA, CVAT, \
         Label Studio, Cityscapes, ADE20K, KITTI, LoveDA and Mapillary",
    )
}
