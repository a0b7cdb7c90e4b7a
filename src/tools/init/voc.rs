//! Pascal VOC, and CVAT's "segmentation mask" export, which follows it with a `labelmap.txt`.

use std::path::{Path, PathBuf};

use crate::dataset::pairs::Pairs;
use crate::dataset::spec::{ClassSpec, DatasetSpec, Encoding, Source, SplitSpec};
use crate::dataset::walk::children;
use crate::error::{Error, Result};
use crate::tools::check::{OnProgress, survey};
use crate::tools::init::folders::unusable_masks;
use crate::tools::init::plan::{DatasetPlan, List, Place, SplitImages};
use crate::tools::init::splits::split_called;
use crate::tools::init::used_options::Flag;
use crate::tools::init::{classes, names, read};

/// A plan for a folder with `SegmentationClass`.
pub(super) fn plan(place: &Place, progress: OnProgress) -> Result<Option<DatasetPlan>> {
    let dir = place.dir;
    let masks = dir.join("SegmentationClass");
    let lists = dir.join("ImageSets/Segmentation");
    if !masks.is_dir() || !lists.is_dir() {
        return Ok(None);
    }
    place.uses(Flag::Images);
    let images = match &place.options.images {
        Some(images) => [dir.join(images), images.clone()].into_iter().find(|path| path.is_dir()),
        None => ["JPEGImages", "images", "Images"].iter().map(|name| dir.join(name)).find(|path| path.is_dir()),
    };
    let Some(images) = images else {
        return Err(Error::new(format!("`{}` holds masks but no images: `JPEGImages` is not there", dir.display()))
            .with_hint(format!(
                "export it with images; or, if they are in another folder, replace DIR by that folder in: {}",
                place.again(false, |options| options.images = Some("DIR".into()))
            )));
    };
    let mut parts = Vec::new();
    let mut files = Vec::new();
    for (split, list) in lists_in(&lists) {
        for (number, line) in read::text(&list, Some(place))?.lines().map(str::trim).enumerate() {
            if line.starts_with(['/', '\\']) || line.split(['/', '\\']).any(|part| part == "..") {
                return Err(Error::new(format!(
                    "line {} of `{}` is `{line}`, which leads out of the folder of images",
                    number + 1,
                    list.display()
                ))
                .with_hint("write names relative to the folder of images"));
            }
        }
        let spec = SplitSpec {
            images: images.clone(),
            masks: masks.clone(),
            image_suffix: None,
            mask_suffix: ".png".to_string(),
            list: Some(list.clone()),
        };
        let found = Pairs::find(Path::new(""), &spec);
        let found = found.sound(&unnamed(), split.unwrap_or(crate::dataset::Split::Train), Path::new(""), &spec)?;
        files.extend(found.iter().map(|pair| pair.mask.clone()));
        parts.push(SplitImages {
            split,
            images: images.clone(),
            masks: place.path(&masks),
            image_suffix: None,
            mask_suffix: ".png".to_string(),
            stems: found.into_iter().map(|pair| pair.stem).collect(),
            list: List::File(list),
        });
    }
    if parts.is_empty() {
        return Ok(None);
    }
    let survey = survey(&files, place.jpeg_tolerance(), progress);
    let found = classes::find(&survey, place, names::find(place)?);
    if let Some(doubt) = found.doubt {
        return Err(unusable_masks(&masks, doubt));
    }
    let voc = DatasetSpec::find("voc")?;
    let fits = |source: &Source| matches!(source, Source::Index(n) if usize::from(*n) < voc.classes.len());
    let sources = || found.classes.iter().flat_map(|class| class.source.iter().flatten());
    let labeled = dir.join("labelmap.txt").is_file();
    let published =
        !labeled && place.options.names.is_empty() && sources().all(fits) && has_voc_palette(&survey.palette, &voc);
    if published {
        let mut plan = place.plan("Pascal VOC", Encoding::Index, vec![Source::Index(255)], voc.classes, parts)?;
        plan.notes.insert(0, "the classes are those of Pascal VOC, whose palette the masks have".to_string());
        return Ok(Some(plan));
    }
    let (classes, mut notes) = match (found.encoding, labeled) {
        (Encoding::Index, true) => (all_named(found.classes)?, found.notes),
        _ => (found.classes, found.notes),
    };
    if labeled && !notes.iter().any(|note| note.contains("the class names are from `labelmap.txt`")) {
        notes.push("the class names are from `labelmap.txt`".to_string());
    }
    let kind = if labeled { "a CVAT segmentation mask export" } else { "Pascal VOC's folders" };
    let mut plan = place.plan(kind, found.encoding, found.ignore, classes, parts)?;
    plan.notes.splice(0..0, notes);
    Ok(Some(plan))
}

/// Lists that stand for a split; where there is none, the one for all.
fn lists_in(folder: &Path) -> Vec<(Option<crate::dataset::Split>, PathBuf)> {
    let mut all = children(folder);
    all.retain(|path| path.extension().is_some_and(|ending| ending == "txt"));
    let split = |path: &PathBuf| {
        let name = path.file_stem()?.to_str()?;
        Some((Some(split_called(name)?), path.clone()))
    };
    let splits: Vec<_> = all.iter().filter_map(split).collect();
    let whole = || ["default.txt", "trainval.txt"].iter().map(|name| folder.join(name)).find(|path| path.is_file());
    if splits.is_empty() {
        whole().or(all.into_iter().next()).map(|list| (None, list)).into_iter().collect()
    } else {
        splits
    }
}

/// A description for messages, where there is none yet.
fn unnamed() -> DatasetSpec {
    DatasetSpec {
        range: None,
        jpeg_tolerance: None,
        name: "the folder".to_string(),
        root: None,
        encoding: Encoding::Index,
        ignore: Vec::new(),
        classes: Vec::new(),
        join: None,
        palettes: Default::default(),
        train: None,
        val: None,
        test: None,
        file: PathBuf::new(),
    }
}

fn has_voc_palette(palette: &Option<Vec<[u8; 3]>>, voc: &DatasetSpec) -> bool {
    let colors = voc.classes().colors;
    palette.as_ref().is_some_and(|palette| palette.len() >= colors.len() && palette[..colors.len()] == colors)
}

/// `labelmap.txt` names all classes of an export: a value that it does not name is a fault.
fn all_named(classes: Vec<ClassSpec>) -> Result<Vec<ClassSpec>> {
    let number = |class: &ClassSpec| match class.source.as_deref() {
        Some([Source::Index(n), ..]) => Some(*n),
        _ => None,
    };
    match classes
        .iter()
        .filter_map(|class| Some((number(class)?, class)))
        .find(|(n, class)| class.name == format!("class {n}"))
    {
        None => Ok(classes),
        Some((n, _)) => Err(Error::new(format!("the masks hold {n}, which `labelmap.txt` does not explain"))
            .with_hint("add it to `labelmap.txt` with its colour, or export the dataset again")),
    }
}
