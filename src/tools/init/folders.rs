//! Folders of images and masks under their common names.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::dataset::accents::composed;
use crate::dataset::pairs::plain_stem;
use crate::dataset::spec::Encoding;
use crate::error::{Error, Result};
use crate::text::shell_word;
use crate::tools::check::{OnProgress, best_tolerance, mask_names, survey};
use crate::tools::init::classes::Doubt;
use crate::tools::init::per_class::Folders;
use crate::tools::init::places::{Candidate, IMAGES, MASKS, candidates, is_picture, within};
use crate::tools::init::plan::{DatasetPlan, List, Place, SplitImages};
use crate::tools::init::{classes, lists, names, per_class};

/// A plan for folders of images and masks whose values are labels.
pub(super) fn plan(place: &Place, progress: OnProgress) -> Result<Option<DatasetPlan>> {
    let Some((plan, doubt)) = describe(place, progress)? else { return Ok(None) };
    match doubt {
        None => Ok(Some(plan)),
        Some(doubt) => Err(unusable_masks(place.dir, doubt)),
    }
}

/// What masks hold is not labels, or not clear; what names say does not fit them.
pub(super) fn unusable_masks(folder: &Path, doubt: Doubt) -> Error {
    let doubt = match doubt {
        Doubt::Masks(doubt) => doubt,
        Doubt::Names(doubt) => return doubt,
    };
    let hint = match doubt.hint() {
        Some(hint) => hint.to_string(),
        None => format!("`structtoken data check {}` names the files", shell_word(folder)),
    };
    Error::new(format!("the masks in `{}` hold no recognisable labels", folder.display()))
        .with_source(doubt)
        .with_hint(hint)
}

/// The same where values are doubtful, with the doubt, for a check to say how.
pub(super) fn plan_leniently(place: &Place, progress: OnProgress) -> Result<Option<(DatasetPlan, Option<Error>)>> {
    Ok(describe(place, progress)?.map(|(plan, doubt)| (plan, doubt.map(|doubt| unusable_masks(place.dir, doubt)))))
}

/// The plan, and why the masks may be no labels.
fn describe(place: &Place, progress: OnProgress) -> Result<Option<(DatasetPlan, Option<Doubt>)>> {
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
    let survey = survey(&masks, place.jpeg_tolerance(), progress);
    let (parts, said) = lists::apply(place, parts)?;
    let named = names::find(place)?;
    let others = named.as_ref().map_or_else(Vec::new, |(file, names)| names::others(place, file, names));
    let mut found = classes::find(&survey, place, named);
    found.notes.extend(others);
    found.notes.extend(names::crossed(place));
    let kind = match found.encoding {
        Encoding::Index => "images with index masks",
        Encoding::Rgb => "images with colour masks",
    };
    let mut plan = place.plan(kind, found.encoding, found.ignore, found.classes, parts)?;
    plan.notes.splice(0..0, found.notes);
    plan.notes.extend(said);
    plan.spec.jpeg_tolerance = place.options.jpeg_tolerance.filter(|_| survey.jpegs > 0);
    // What a tolerance leaves unclear, another may not.
    if let (Some(Doubt::Masks(doubt)), Some(given), Some((best, count))) =
        (&found.doubt, plan.spec.jpeg_tolerance, survey.better_tolerance)
        && best != given
    {
        found.doubt =
            Some(Doubt::Masks(Error::new(format!("with a tolerance of {given}, {doubt}")).with_hint(format!(
                "as JPEGs the masks hold {count} values that keep apart: {}",
                place.again(false, |options| options.jpeg_tolerance = Some(best))
            ))));
    }
    if let (None, Some(given), Some((best, count))) = (&found.doubt, plan.spec.jpeg_tolerance, survey.better_tolerance)
        && count != plan.spec.classes.len()
        && best != given
    {
        plan.notes.push(format!(
            "a tolerance of {given} tells {} values apart, and {count} keep apart best: {}",
            plan.spec.classes.len(),
            place.again(true, |options| options.jpeg_tolerance = Some(best))
        ));
    }
    if let Some((path, broken)) = survey.broken.first() {
        let (count, all) = (survey.broken.len(), masks.len());
        let note = format!("{count} of {all} masks cannot be read, `{}` first: {}", path.display(), broken.what);
        // What a flag of this command remedies is a question, however many there are.
        let jpegs = survey.broken.iter().filter(|(_, broken)| broken.code == "jpeg-mask").count();
        match (count == all, jpegs) {
            (_, 1..) if 2 * jpegs > all => {
                let paths: Vec<PathBuf> = survey
                    .broken
                    .iter()
                    .filter(|(_, broken)| broken.code == "jpeg-mask")
                    .map(|(path, _)| path.clone())
                    .collect();
                const EXPORT: &str = "export the masks as PNG from the labelling tool";
                found.doubt = Some(Doubt::Masks(Error::new(note).with_hint(match best_tolerance(&paths) {
                    Some((best, count)) => format!(
                        "{EXPORT}; if there is nothing else, `{}` rounds values to the nearest of {count} common ones",
                        place.again(false, |options| options.jpeg_tolerance = Some(best))
                    ),
                    None => format!("{EXPORT}; these look like photographs, not like labels"),
                })));
            }
            (true, _) => found.doubt = Some(Doubt::Masks(Error::new(note).with_hint(broken.remedy.clone()))),
            (false, _) => plan.notes.push(note),
        }
    }
    Ok(Some((plan, found.doubt)))
}

/// Pairs the files of a candidate by their names; also gives the masks.
fn matched(place: &Place, candidate: &Candidate) -> Result<Option<(SplitImages, Vec<PathBuf>)>> {
    let (images, masks) = (place.files(&candidate.images), place.files(&candidate.masks));
    let same = candidate.images == candidate.masks;
    let names: Vec<&str> =
        images.iter().map(|(name, _)| name.as_str()).filter(|name| plain_stem(name).is_some()).collect();
    // Whichever way each of them writes an accented letter.
    let present: BTreeMap<Cow<'_, str>, &Path> = masks
        .iter()
        .filter(|(name, _)| if same { plain_stem(name).is_some() } else { is_picture(name) })
        .map(|(name, path)| (composed(name), path.as_path()))
        .collect();
    let mask_names: Vec<&str> = present.keys().map(Cow::as_ref).collect();
    let spelled: Vec<Cow<'_, str>> = names.iter().map(|name| composed(name)).collect();
    let composed_names: Vec<&str> = spelled.iter().map(Cow::as_ref).collect();
    if names.is_empty() || mask_names.is_empty() {
        return Ok(None);
    }
    let Some((rule, hits)) = mask_names::guess(&composed_names, &mask_names, !same) else {
        if same {
            return Ok(None);
        }
        // Folders around the folders: `annotations/trimaps`, `images/10k`.
        let (images, masks) = (within(&candidate.images, &IMAGES), within(&candidate.masks, &MASKS));
        if (&images, &masks) != (&candidate.images, &candidate.masks) {
            return matched(place, &Candidate { split: candidate.split, images, masks });
        }
        let error = Error::new(format!(
            "images and masks cannot be matched by name: `{}` holds, for instance, `{}`, and `{}` holds `{}`",
            candidate.images.display(),
            names[0],
            candidate.masks.display(),
            mask_names[0]
        ));
        if let Some(hint) = lists::renaming(place, &candidate.images, &candidate.masks) {
            return Err(error.with_hint(hint));
        }
        return Err(match mask_names::guess_prefix(&names, &mask_names) {
            Some((from, to, ending)) => error.with_hint(format!(
                "a mask has the name of its image, up to the ending; run: {}",
                mask_names::rename(&candidate.masks, &from, &to, &ending)
            )),
            None => error.with_hint(
                "a mask has the name of its image, up to the ending (a.jpg, a_mask.png): rename them; leading zeros count",
            ),
        });
    };
    // A mask in the images' own folder must differ from an image by more than a common ending.
    if same && 2 * hits < names.len() - hits {
        return Ok(None);
    }
    let mask_of = |name: &&str| {
        let mask = rule.mask(name).filter(|mask| !same || mask != *name)?;
        present.get(&composed(&mask)).copied()
    };
    let taken: Vec<&str> = names.iter().filter(|name| mask_of(name).is_some()).copied().collect();
    let stem = |name: &&str| {
        let suffix = rule.image_suffix.as_deref();
        suffix.map_or_else(|| plain_stem(name), |suffix| name.strip_suffix(suffix)).unwrap_or(name).to_string()
    };
    let stems: Vec<String> = taken.iter().map(stem).collect();
    let files = taken.iter().filter_map(|name| Some(mask_of(name)?.to_path_buf())).collect();
    let mut image_suffix = rule.image_suffix.clone();
    // Images without masks are left out by a list, which the check and training say.
    let lacking = names.iter().filter(|name| rule.mask(name).is_some()).count() > taken.len();
    let mut list = if lacking { List::New } else { List::None };
    if same {
        let suffix = &taken[0][stems[0].len()..];
        if taken.iter().all(|name| name.ends_with(suffix)) {
            image_suffix = Some(suffix.to_string());
        }
        let read =
            names.iter().filter(|name| image_suffix.as_ref().is_none_or(|suffix| name.ends_with(suffix.as_str())));
        list = if read.count() == taken.len() { List::None } else { List::New };
    }
    let part = SplitImages {
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
