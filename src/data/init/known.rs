//! Published sets that the program carries descriptions of.

use std::path::{Path, PathBuf};

use super::city_polygons;
use super::plan::{List, Part, Place, Plan};
use crate::data::Split;
use crate::data::check::Progress;
use crate::data::pairs::Pairs;
use crate::data::spec::{DatasetSpec, Source, SplitSpec};
use crate::data::walk::walk;
use crate::error::Result;

/// A plan for Cityscapes, KITTI and ADE20K as they are shipped.
pub(super) fn plan(place: &Place, _: Progress) -> Result<Option<Plan>> {
    let has = |name: &str| place.dir.join(name).exists();
    if has("training/image_2") && has("training/semantic") {
        return kitti(place).map(Some);
    }
    let name = place.name();
    let set = if has("leftImg8bit") && has("gtFine") {
        "cityscapes"
    } else if has("images/training")
        && has("annotations/training")
        && (has("objectInfo150.txt") || name.starts_with("ADE"))
    {
        "ade20k"
    } else {
        return Ok(None);
    };
    let mut spec = DatasetSpec::find(set)?;
    let mut notes = vec![format!("classes and values are those of the built-in dataset `{set}`")];
    let trained = |name: &str| name.ends_with("_gtFine_labelTrainIds.png");
    let labels = || walk(&place.dir.join("gtFine")).files;
    if set == "cityscapes"
        && !labels().iter().any(|(name, _)| name.ends_with("_gtFine_labelIds.png") || trained(name))
        && let Some(plan) = city_polygons::plan(place)?
    {
        return Ok(Some(plan));
    }
    let train_ids = set == "cityscapes" && {
        let files = labels();
        !files.iter().any(|(name, _)| name.ends_with("_gtFine_labelIds.png"))
            && files.iter().any(|(name, _)| trained(name))
    };
    if train_ids {
        notes.push("the masks hold the 19 train ids, and 255 is ignored".to_string());
        spec.ignore = vec![Source::Index(255)];
        for (index, class) in spec.classes.iter_mut().enumerate() {
            class.source = Some(vec![Source::Index(index as u16)]);
        }
    }
    let mut parts = Vec::new();
    for split in [Split::Train, Split::Val] {
        let Some(mut files) = spec.split(split).cloned() else { continue };
        if train_ids {
            files.mask_suffix = "_gtFine_labelTrainIds.png".to_string();
        }
        if !place.dir.join(&files.images).is_dir() {
            continue;
        }
        let found = Pairs::find(place.dir, &files);
        parts.push(Part {
            split: Some(split),
            images: place.dir.join(&files.images),
            masks: place.path(&place.dir.join(&files.masks)),
            image_suffix: files.image_suffix,
            mask_suffix: files.mask_suffix,
            stems: found.pairs.into_iter().map(|pair| pair.stem).collect(),
            list: List::None,
        });
    }
    if parts.is_empty() {
        return Ok(None);
    }
    let classes = place.named_classes(spec.classes, false)?;
    let mut plan = place.plan(set, spec.encoding, spec.ignore, classes, parts)?;
    plan.spec.name = set.to_string();
    plan.spec.root = None::<PathBuf>;
    plan.notes.splice(0..0, notes);
    Ok(Some(plan))
}

/// KITTI's semantic benchmark: the label ids of Cityscapes.
fn kitti(place: &Place) -> Result<Plan> {
    let spec = DatasetSpec::find("cityscapes")?;
    let images = place.dir.join("training/image_2");
    let masks = place.dir.join("training/semantic");
    let files = SplitSpec {
        images: images.clone(),
        masks: masks.clone(),
        image_suffix: None,
        mask_suffix: ".png".to_string(),
        list: None,
    };
    let found = Pairs::find(Path::new(""), &files).sound(&spec, Split::Train, Path::new(""), &files)?;
    let part = Part {
        split: None,
        images,
        masks: place.path(&masks),
        image_suffix: None,
        mask_suffix: ".png".to_string(),
        stems: found.into_iter().map(|pair| pair.stem).collect(),
        list: List::None,
    };
    let classes = place.named_classes(spec.classes, false)?;
    let mut plan = place.plan("KITTI's semantic benchmark", spec.encoding, spec.ignore, classes, vec![part])?;
    plan.notes.insert(0, "classes and values are those of Cityscapes".to_string());
    Ok(plan)
}
