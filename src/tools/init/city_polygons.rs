//! Cityscapes' polygons, `*_gtFine_polygons.json`, where no label images are beside them; and sets that follow its
//! form.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::dataset::Split;
use crate::dataset::spec::DatasetSpec;
use crate::error::{Error, Result};
use crate::image::IGNORE;
use crate::image::raster::Area;
use crate::tools::init::json::{Id, Object, side, with_keys};
use crate::tools::init::notes::Notes;
use crate::tools::init::outlines::{Outlined, Outlines, label};
use crate::tools::init::pictures::Pictures;
use crate::tools::init::plan::{DatasetPlan, Place};

/// Labels of Cityscapes that are not judged.
const VOID: [&str; 15] = [
    "unlabeled",
    "ego vehicle",
    "rectification border",
    "out of roi",
    "static",
    "dynamic",
    "ground",
    "parking",
    "rail track",
    "guard rail",
    "bridge",
    "tunnel",
    "polegroup",
    "caravan",
    "trailer",
];
/// A label that is not drawn: what lies below it stays.
const NOT_DRAWN: &str = "license plate";

/// What files of polygons end in, and what stands before that.
const ENDING: &str = "_polygons.json";
const KINDS: [&str; 2] = ["_gtFine", "_gtCoarse"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default, deserialize_with = "side")]
    img_height: Option<usize>,
    #[serde(default, deserialize_with = "side")]
    img_width: Option<usize>,
    objects: Vec<Object<Shape>>,
}

#[derive(Deserialize)]
struct Shape {
    label: Id,
    polygon: Points,
    #[serde(default)]
    deleted: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Points {
    Of(Vec<[f64; 2]>),
    Other(IgnoredAny),
}

impl Shape {
    fn is_deleted(&self) -> bool {
        matches!(&self.deleted, Some(serde_json::Value::Bool(true)))
            || matches!(&self.deleted, Some(n) if n.as_f64().is_some_and(|n| n != 0.0))
    }
}

/// A file of polygons.
struct Read {
    split: Split,
    name: String,
    path: PathBuf,
    file: File,
}

/// The labels of a set, and which of them are classes.
struct Labels {
    /// Labels that are not from Cityscapes.
    unknown: Vec<String>,
    /// The names of the classes, in order.
    classes: Vec<String>,
}

/// The plan of `leftImg8bit` and `gtFine`, which holds polygons alone; `None` where it holds none.
pub(super) fn plan(place: &Place) -> Result<Option<DatasetPlan>> {
    let city = DatasetSpec::find("cityscapes")?;
    let mut notes = Notes::default();
    let mut read = read(place, &mut notes)?;
    if read.is_empty() {
        return Ok(None);
    }
    let trained: Vec<String> = city.classes.iter().map(|class| class.name.clone()).collect();
    let labels = Labels::of(&read, &trained);
    let mut groups: Vec<(Option<Split>, PathBuf, Vec<Outlined>)> = Vec::new();
    for split in SPLITS {
        let folder = place.dir.join("leftImg8bit").join(split.to_string());
        let pictures = Pictures::below(place, &folder);
        let mut outlined = Vec::new();
        for one in read.iter_mut().filter(|one| one.split == split) {
            let Some(image) = image_of(&one.name, &pictures) else {
                notes.add("polygon files without an image were not used", format!("`{}`", one.name));
                continue;
            };
            outlined.push(outline(image, one, &labels.classes, &trained, &mut notes));
        }
        // The polygons of the test split are withheld: its files hold the border alone.
        if outlined.iter().any(|one| one.areas.iter().any(|(_, class, _)| *class != IGNORE) || one.fault.is_some()) {
            groups.push((Some(split), folder, outlined));
        } else if !outlined.is_empty() {
            notes.add_many("images whose polygons show no class were left out", outlined.len(), format!("[{split}]"));
        }
    }
    if groups.is_empty() {
        return Err(Error::new(format!(
            "no polygon in `{}` belongs to both a class and an image",
            place.dir.join("gtFine").display()
        ))
        .with_hint("put the images below `leftImg8bit`, in the same folders of splits and cities"));
    }
    let names = &labels.classes;
    let found = Outlines { kind: "Cityscapes' polygons", names, normalized: false, void_rest: true, groups, notes };
    let mut plan = place.outlines(found)?;
    for (class, name) in plan.spec.classes.iter_mut().zip(names) {
        class.color = city.classes.iter().find(|one| one.name == *name).and_then(|one| one.color);
    }
    plan.notes.push(match labels.unknown.as_slice() {
        [] => "the classes are the 19 of Cityscapes; its other labels are ignored".to_string(),
        [first, others @ ..] => format!(
            "`{first}` and {} other labels are not from Cityscapes: all labels except its void ones are classes",
            others.len()
        ),
    });
    Ok(Some(plan))
}

const SPLITS: [Split; 3] = [Split::Train, Split::Val, Split::Test];

/// The files of polygons of all splits.
fn read(place: &Place, notes: &mut Notes) -> Result<Vec<Read>> {
    let hint = "it looks like Cityscapes' polygons: get the file again, or move it out of the folder";
    let mut read = Vec::new();
    for split in SPLITS {
        let files = place.files(&place.dir.join("gtFine").join(split.to_string()));
        for (name, path) in files.into_iter().filter(|(name, _)| name.ends_with(ENDING)) {
            match with_keys::<File>(&path, &["imgHeight", "imgWidth", "objects"], hint)? {
                Some(file) => read.push(Read { split, name, path, file }),
                None => notes.add("polygon files without sizes and objects were not read", format!("`{name}`")),
            }
        }
    }
    Ok(read)
}

/// Whether Cityscapes has a label of this name; `trained` are its classes.
fn is_known(name: &str, trained: &[String]) -> bool {
    trained.iter().any(|one| one == name) || VOID.contains(&name) || name == NOT_DRAWN
}

/// The label of an object. A group of what is known is that, as the set's own tools have it.
fn plain<'a>(name: &'a str, trained: &[String]) -> &'a str {
    name.strip_suffix("group").filter(|_| !is_known(name, trained)).unwrap_or(name)
}

impl Labels {
    fn of(read: &[Read], trained: &[String]) -> Self {
        let objects = read.iter().flat_map(|one| &one.file.objects).filter(|Object(shape)| !shape.is_deleted());
        let labels: BTreeSet<&str> = objects.map(|Object(shape)| plain(&shape.label.0, trained)).collect();
        let owned = |label: &&str| (*label).to_string();
        let unknown: Vec<String> = labels.iter().filter(|label| !is_known(label, trained)).map(owned).collect();
        // Sets that follow the form have labels of their own.
        let classes = match unknown.is_empty() {
            true => trained.to_vec(),
            false => labels.iter().filter(|label| !VOID.contains(label) && **label != NOT_DRAWN).map(owned).collect(),
        };
        Self { unknown, classes }
    }
}

/// The image of a file of polygons.
fn image_of(name: &str, pictures: &Pictures) -> Option<String> {
    let base = name.trim_end_matches(ENDING);
    let base = KINDS.iter().find_map(|kind| base.strip_suffix(kind)).unwrap_or(base);
    let stems = [format!("{base}_leftImg8bit"), base.to_string()];
    let mut names = stems.iter().flat_map(|stem| ["png", "jpg", "jpeg"].map(|ending| format!("{stem}.{ending}")));
    names.find(|image| pictures.has(image))
}

/// An image with its polygons, which are taken out of the file.
fn outline(image: String, read: &mut Read, classes: &[String], trained: &[String], notes: &mut Notes) -> Outlined {
    let Read { path, file, .. } = read;
    let declared = file.img_width.zip(file.img_height).map(|(width, height)| [width, height]);
    let mut one = Outlined { name: image, source: path.clone(), declared, areas: Vec::new(), fault: None };
    for (number, Object(shape)) in std::mem::take(&mut file.objects).into_iter().enumerate() {
        let which = format!("object {number} (`{}`)", shape.label);
        let called = plain(&shape.label.0, trained);
        if shape.is_deleted() || called == NOT_DRAWN {
            continue;
        }
        match shape.polygon {
            Points::Of(points) if points.len() > 2 => {
                let class = classes.iter().position(|name| name == called).map_or(IGNORE, label);
                one.areas.push((Area::Polygons(vec![points]), class, which));
            }
            Points::Of(_) => {
                notes.add("polygons of fewer than 3 corners were left out", format!("{which} of `{}`", path.display()))
            }
            Points::Other(_) => {
                let wrong =
                    format!("the `polygon` of {which} of `{}` is not a list of pairs of numbers", path.display());
                one.fault.get_or_insert(Error::new(wrong).with_hint("get the file again, or remove the object"));
            }
        }
    }
    one
}
