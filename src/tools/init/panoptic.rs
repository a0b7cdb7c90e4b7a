//! COCO's panoptic form: a mask for each image in which colours number segments, and a JSON file per split that gives
//! each segment its category.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::dataset::Split;
use crate::error::{Error, Result};
use crate::image::raster::Area;
use crate::tools::check::OnProgress;
use crate::tools::init::coco_file::{Category, Picture, classes, images, names, one_split, shared};
use crate::tools::init::json::{Id, Object, with_keys};
use crate::tools::init::notes::Notes;
use crate::tools::init::outlines::{Outlined, Outlines, label};
use crate::tools::init::pictures::{Pictures, folder_of};
use crate::tools::init::plan::{DatasetPlan, Place};
use crate::tools::init::splits::split_mentioned;

#[derive(Deserialize)]
struct File {
    images: Vec<Object<Picture>>,
    annotations: Vec<Object<Annotation>>,
    categories: Vec<Object<Category>>,
}

/// All segments of an image.
#[derive(Deserialize)]
struct Annotation {
    #[serde(default)]
    image_id: Option<Id>,
    /// The mask.
    #[serde(default)]
    file_name: Option<String>,
    #[serde(default)]
    segments_info: Option<Vec<Object<Segment>>>,
}

#[derive(Deserialize)]
struct Segment {
    id: u32,
    category_id: Id,
}

/// A file of a split.
struct Described {
    name: String,
    path: PathBuf,
    file: File,
}

/// A plan for a folder with JSON files whose annotations have `segments_info` and a `file_name`.
pub(super) fn plan(place: &Place, _: OnProgress) -> Result<Option<DatasetPlan>> {
    let splits = read(place)?;
    if splits.is_empty() {
        return Ok(None);
    }
    let mut notes = Notes::default();
    let categories = splits.values().map(|Described { file, .. }| {
        let segments = file.annotations.iter().flat_map(|Object(one)| one.segments_info.iter().flatten());
        (segments.map(|Object(segment)| &segment.category_id).collect(), file.categories.as_slice())
    });
    let names = names(categories, &mut notes);
    let (pictures, masks) = (Pictures::below(place, &place.images()?), Pictures::below(place, place.dir));
    let mut groups = Vec::new();
    for (split, described) in splits {
        let Described { name, path, file } = &described;
        let written: Vec<&str> = file.images.iter().map(|image| image.0.file_name.as_str()).collect();
        let (folder, places) = images(&pictures, path, name, split, &written, &mut notes)?;
        let classes = classes(path, &file.categories, &names)?;
        let outlined = described.outlined(&masks, (&folder, places), &classes, &mut notes)?;
        if outlined.is_empty() {
            let what = format!("`{}` is COCO's panoptic form, and none of its masks is there", path.display());
            let near = described.near();
            return Err(Error::new(what).with_hint(format!(
                "put the folder of its PNG masks beside it, called `{}`",
                near.rsplit('/').next().unwrap_or(near)
            )));
        }
        groups.push((split, folder, outlined));
    }
    let kind = "COCO's panoptic masks";
    place.outlines(Outlines { kind, names: &names, normalized: false, void_rest: true, groups, notes }).map(Some)
}

/// The files of all splits.
fn read(place: &Place) -> Result<BTreeMap<Option<Split>, Described>> {
    let mut splits: BTreeMap<Option<Split>, Described> = BTreeMap::new();
    let hint = "it looks like COCO's panoptic form: export it again";
    for (name, path) in place.files(place.dir).into_iter().filter(|(name, _)| name.ends_with(".json")) {
        let Some(file) = with_keys::<File>(&path, &["images", "annotations", "categories"], hint)? else { continue };
        if !file.annotations.iter().any(|Object(one)| one.segments_info.is_some()) {
            continue;
        }
        let split = split_mentioned(name.trim_end_matches(".json"));
        if let Some(other) = splits.insert(split, Described { name, path: path.clone(), file }) {
            return Err(one_split(split, [&other.path, &path]));
        }
    }
    Ok(splits)
}

impl Described {
    /// The folder that its masks may lie in; or they lie beside the file.
    fn near(&self) -> &str {
        self.name.trim_end_matches(".json")
    }

    /// Its images, each with its mask. `places`: the folder of images, and where each of them was found in it.
    fn outlined(
        &self,
        masks: &Pictures,
        (folder, places): (&Path, Vec<Option<String>>),
        classes: &HashMap<Id, usize>,
        notes: &mut Notes,
    ) -> Result<Vec<Outlined>> {
        let Self { name, path, file } = self;
        let mut annotated: HashMap<&Id, Vec<&Annotation>> = HashMap::new();
        for (id, one) in file.annotations.iter().filter_map(|Object(one)| Some((one.image_id.as_ref()?, one))) {
            annotated.entry(id).or_default().push(one);
        }
        let mut by_id: HashMap<&Id, &str> = HashMap::new();
        let mut outlined: Vec<Outlined> = Vec::new();
        for (Object(image), found) in file.images.iter().zip(places) {
            let Some(found) = found else { continue };
            if let Some(before) = by_id.insert(&image.id, &image.file_name).filter(|before| *before != image.file_name)
            {
                return Err(shared(path, &format!("the images `{before}` and `{}`", image.file_name), &image.id));
            }
            let all = annotated.get(&image.id).map_or(&[][..], Vec::as_slice);
            let first = all.first().and_then(|one| Some((one.file_name.as_ref()?, one.segments_info.as_ref()?)));
            let Some((file_name, segments)) = first else {
                notes.add("images without a panoptic mask were left out", format!("`{}`", image.file_name));
                continue;
            };
            let Some(mask) = self.mask(masks, file_name).filter(|mask| *mask != folder.join(&found)) else {
                notes.add("images whose panoptic mask is not there were left out", format!("`{file_name}`"));
                continue;
            };
            let declared = image.size();
            let mut one = Outlined { name: found, source: path.clone(), declared, areas: Vec::new(), fault: None };
            if all.len() > 1 {
                let what = format!("`{name}` gives the image {} panoptic masks", all.len());
                one.fault = Some(Error::new(what).with_hint("export it again"));
            }
            let labels = self.labels(segments, file_name, classes, &mut one.fault);
            one.areas.push((Area::Segments(mask, labels), 0, format!("the mask `{file_name}`")));
            outlined.push(one);
        }
        Ok(outlined)
    }

    /// The mask that it calls so.
    fn mask(&self, masks: &Pictures, file_name: &str) -> Option<PathBuf> {
        let near = self.near();
        let mask = masks.find(file_name, near).or_else(|_| masks.find(file_name, folder_of(near))).ok()?;
        Some(masks.root().join(mask.name()))
    }

    /// The segments of a mask with their labels. A category that the file does not list, and a segment of two, is a
    /// `fault`: the image's labels would be wrong.
    fn labels(
        &self,
        segments: &[Object<Segment>],
        file_name: &str,
        classes: &HashMap<Id, usize>,
        fault: &mut Option<Error>,
    ) -> Vec<(u32, u8)> {
        let wrong = |what: String| Error::new(what).with_hint("export it again");
        let mut labels: Vec<(u32, u8)> = Vec::new();
        for Object(Segment { id, category_id }) in segments {
            match classes.get(category_id) {
                Some(class) => labels.push((*id, label(*class))),
                None => {
                    let what =
                        format!("the category of segment {id} is {category_id}, which `{}` does not list", self.name);
                    fault.get_or_insert(wrong(what));
                }
            }
        }
        labels.sort_unstable();
        labels.dedup();
        if let Some(twice) = labels.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            fault.get_or_insert(wrong(format!("segment {} of `{file_name}` has two categories", twice[0].0)));
        }
        labels
    }
}
