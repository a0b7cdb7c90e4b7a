//! Published sets that the program carries descriptions of.

use std::path::{Path, PathBuf};

use crate::dataset::Split;
use crate::dataset::pairs::Pairs;
use crate::dataset::spec::{ClassSpec, DatasetSpec, Encoding, Source, SplitSpec};
use crate::dataset::walk::{children, walk};
use crate::error::{Error, Result};
use crate::tools::check::OnProgress;
use crate::tools::init::plan::{DatasetPlan, List, Place, SplitImages};
use crate::tools::init::{city_polygons, names};

/// A plan for Cityscapes, KITTI and ADE20K as they are shipped.
pub(super) fn plan(place: &Place, _: OnProgress) -> Result<Option<DatasetPlan>> {
    let has = |name: &str| place.dir.join(name).exists();
    if has("training/image_2") && has("training/semantic") {
        return kitti(place).map(Some);
    }
    if let Some(version) = ["v2.0", "v1.2"].into_iter().find(|version| has(&format!("training/{version}/labels"))) {
        return mapillary(place, version).map(Some);
    }
    let name = place.name();
    let set = if has("leftImg8bit") && has("gtFine") {
        "cityscapes"
    } else if has("images/training")
        && has("annotations/training")
        && (has("objectInfo150.txt")
            || name.starts_with("ADE")
            || children(&place.dir.join("images/training")).iter().any(|path| of_ade(path)))
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
        parts.push(SplitImages {
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
    if parts.iter().all(|part| part.stems.is_empty()) {
        let (folder, first) = (parts[0].masks.display().to_string(), parts[0].mask_suffix.clone());
        let colors = labels().iter().any(|(name, _)| name.ends_with("_gtFine_color.png"));
        let error = Error::new(format!(
            "`{}` looks like {set}, but no image has a mask; masks end in `{first}`",
            place.dir.display()
        ));
        return Err(error.with_hint(match set == "cityscapes" && colors {
            true => "`_gtFine_color.png` gives several labels one colour, and is not read: add the `_gtFine_labelIds.png` of \
                     the same download"
                .to_string(),
            false => format!("put the masks into `{folder}`, named like their images"),
        }));
    }
    let classes = place.named_classes(spec.classes, false)?;
    let mut plan = place.plan(set, spec.encoding, spec.ignore, classes, parts)?;
    plan.spec.name = set.to_string();
    plan.spec.root = None::<PathBuf>;
    plan.notes.splice(0..0, notes);
    Ok(Some(plan))
}

/// Whether a file is called as those of ADE20K.
fn of_ade(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ADE_train"))
}

/// Mapillary Vistas, whose labels lie below folders of versions: each number is a place in the list of its config.
fn mapillary(place: &Place, version: &str) -> Result<DatasetPlan> {
    let config = place.dir.join(format!("config_{version}.json"));
    let named = names::of_config(&config, place)?;
    if named.is_empty() {
        return Err(Error::new(format!("`{}` is not there, or names no labels", config.display()))
            .with_hint("Mapillary Vistas has it next to `training`: add it"));
    }
    let classes = named.into_iter().map(|(value, named)| ClassSpec {
        name: named.name,
        color: named.color,
        source: Some(vec![Source::Index(value)]),
    });
    let (void, classes): (Vec<ClassSpec>, Vec<ClassSpec>) = classes.partition(|class| class.name == "Unlabeled");
    let mut parts = Vec::new();
    for (split, folder) in [(Split::Train, "training"), (Split::Val, "validation")] {
        let images = place.dir.join(folder).join("images");
        let masks = place.dir.join(folder).join(version).join("labels");
        if !images.is_dir() || !masks.is_dir() {
            continue;
        }
        let mask_suffix = ".png".to_string();
        let files = SplitSpec {
            images: images.clone(),
            masks: masks.clone(),
            image_suffix: None,
            mask_suffix: mask_suffix.clone(),
            list: None,
        };
        let found = Pairs::find(Path::new(""), &files);
        let list = if found.lacking.is_empty() { List::None } else { List::New };
        let stems = found.pairs.into_iter().map(|pair| pair.stem).collect();
        let (split, masks) = (Some(split), place.path(&masks));
        parts.push(SplitImages { split, images, masks, image_suffix: None, mask_suffix, stems, list });
    }
    let ignore = void.into_iter().flat_map(|class| class.source.unwrap_or_default()).collect();
    let classes = place.named_classes(classes, false)?;
    let mut plan = place.plan("Mapillary Vistas", Encoding::Index, ignore, classes, parts)?;
    plan.notes.insert(
        0,
        format!("the labels are those of version {version}, and the names those of `config_{version}.json`"),
    );
    Ok(plan)
}

/// KITTI's semantic benchmark: the label ids of Cityscapes.
fn kitti(place: &Place) -> Result<DatasetPlan> {
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
    let part = SplitImages {
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
