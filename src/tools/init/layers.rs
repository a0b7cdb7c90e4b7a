//! Several black-and-white masks per image, one per object or class: joined into one.
//!
//! ```text
//! a.png, a_mask.png, a_mask_1.png            objects (BUSI)
//! images/a.jpg, masks/a_class_chair.png …    classes (RectLabel, Labelbox)
//! a/images/a.png, a/masks/*.png              objects, a folder an image (Data Science Bowl 2018)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::dataset::Split;
use crate::dataset::join::Joiner;
use crate::dataset::pairs::plain_stem;
use crate::dataset::spec::{ClassSpec, Encoding, Join, JoinedMask, Overlap};
use crate::dataset::walk::walk;
use crate::error::Result;
use crate::image::raster::{Area, Bitmap};
use crate::image::{RawMask, read_mask};
use crate::tools::check::OnProgress;
use crate::tools::init::notes::Notes;
use crate::tools::init::outlines::{Outlined, Outlines, label};
use crate::tools::init::pictures::{Pictures, file_name, folder_of};
use crate::tools::init::places::called_pair;
use crate::tools::init::plan::{DatasetPlan, List, Place, SplitImages};
use crate::tools::init::splits::in_split;

/// The layers of each image, by its split and the folders of images and masks.
type LayerMasks = BTreeMap<(Option<Split>, PathBuf, PathBuf), Vec<(String, Vec<MaskLayer>)>>;

/// Masks that are looked at to know whether they are black and white.
const LOOKED_AT: usize = 24;

/// A mask: its file, and what its name adds to the image's.
struct MaskLayer {
    path: PathBuf,
    suffix: String,
}

/// A plan for images with several masks each.
pub(super) fn plan(place: &Place, _: OnProgress) -> Result<Option<DatasetPlan>> {
    let found = match folder_each(place) {
        Some(found) => Some(found),
        None => by_names(place),
    };
    let Some(Layers { root, masks: masks_root, by_image, of_objects }) = found else { return Ok(None) };
    let sample: Vec<&MaskLayer> =
        by_image.values().filter(|layers| layers.len() > 1).flatten().take(LOOKED_AT).collect();
    if !sample.iter().all(|layer| is_black_and_white(&layer.path)) {
        return Ok(None);
    }
    // What numbers the objects is not a class.
    let class = |layer: &MaskLayer| {
        let plain = |c: char| c.is_ascii_digit() || "_-. ()".contains(c);
        let name = layer.suffix.trim_matches(plain);
        let name =
            ["class_", "class-", "mask_", "label_"].iter().find_map(|start| name.strip_prefix(start)).unwrap_or(name);
        let bare = ["", "mask", "masks", "label", "seg", "gt", "class"].contains(&name.to_lowercase().as_str());
        if of_objects || bare { "object".to_string() } else { name.trim_matches(plain).to_string() }
    };
    let names: BTreeSet<String> = by_image.values().flatten().map(class).collect();
    let names: Vec<String> = names.into_iter().collect();
    let mut groups: BTreeMap<(Option<Split>, PathBuf), Vec<Outlined>> = BTreeMap::new();
    let mut joined: LayerMasks = BTreeMap::new();
    let several = by_image.values().filter(|layers| layers.len() > 1).count();
    let masks: usize = by_image.values().map(Vec::len).sum();
    let count = by_image.len();
    for (image, layers) in by_image {
        let (key, name) = match in_split(&image) {
            Some((split, folder, rest)) => {
                ((Some(split), root.join(folder), masks_root.join(folder)), rest.to_string())
            }
            None => ((None, root.clone(), masks_root.clone()), image.clone()),
        };
        joined.entry(key).or_default().push((name, layers));
    }
    let said = format!(
        "{masks} black-and-white masks of {count} images are joined; {several} of these images have more than one mask; where \
         classes overlap, the later name wins"
    );
    if let Some((mut join, classes, parts)) = as_join(place, &joined, &names, class, of_objects) {
        let classes = place.named_joined(classes, &mut join)?;
        let mut plan = place.plan("several masks per image", Encoding::Index, Vec::new(), classes, parts)?;
        let ends = join.masks.iter().map(|mask| format!("`{}` is `{}`", mask.file, mask.class)).collect::<Vec<_>>();
        plan.notes.push(format!("{said}: {}; pixels that no mask shows are `{}`", ends.join(", "), join.rest));
        plan.spec.join = Some(join);
        return Ok(Some(plan));
    }
    for ((split, images, _), found) in joined {
        for (name, layers) in found {
            let source = layers.first().map_or_else(|| images.join(&name), |layer| layer.path.clone());
            let area = |layer: MaskLayer| {
                let at = names.iter().position(|name| *name == class(&layer)).map_or(0, label);
                let called = format!("the mask `{}`", file_name(&layer.path.to_string_lossy()));
                (Area::Bitmap([0, 0], Bitmap::File(layer.path)), at, called)
            };
            let areas = layers.into_iter().map(area).collect();
            let one = Outlined { name, source, declared: None, areas, fault: None };
            groups.entry((split, images.clone())).or_default().push(one);
        }
    }
    let groups = groups.into_iter().map(|((split, images), outlined)| (split, images, outlined)).collect();
    let found = Outlines {
        kind: "several masks per image",
        names: &names,
        normalized: false,
        void_rest: false,
        groups,
        notes: Notes::default(),
    };
    let mut plan = place.outlines(found)?;
    plan.notes.push(said);
    Ok(Some(plan))
}

/// What `[join]` needs: itself, the classes and the splits.
type JoinedClasses = (Join, Vec<ClassSpec>, Vec<SplitImages>);

/// The masks as `[join]` names them, which reads them where they are; `None` where patterns of names would not tell
/// them apart.
fn as_join(
    place: &Place,
    found: &LayerMasks,
    names: &[String],
    class: impl Fn(&MaskLayer) -> String,
    of_objects: bool,
) -> Option<JoinedClasses> {
    let layers = || found.values().flatten().flat_map(|(_, layers)| layers);
    let ending = |layer: &MaskLayer| layer.path.extension().map(|ending| format!(".{}", ending.to_string_lossy()));
    let mut masks: Vec<JoinedMask> = Vec::new();
    for name in names {
        let mut ends: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for layer in layers().filter(|layer| class(layer) == *name) {
            ends.entry(ending(layer)?).or_default().insert(&layer.suffix);
        }
        for (ending, suffixes) in ends {
            let (first, last) = (suffixes.first()?, suffixes.last()?);
            let file = match suffixes.len() {
                _ if of_objects => format!("{{folder}}/../masks/*{ending}"),
                1 => format!("{{stem}}{first}{ending}"),
                _ => {
                    // Of sorted texts, what the first and the last begin with is what all begin with.
                    let shared = first.char_indices().zip(last.chars()).take_while(|((_, a), b)| a == b);
                    let shared: String = shared.map(|((_, c), _)| c).collect();
                    format!("{{stem}}{shared}*{ending}")
                }
            };
            masks.push(JoinedMask { file, class: name.clone() });
        }
    }
    let rest = if names.iter().any(|name| name == "background") { "rest" } else { "background" }.to_string();
    let spec = |name: &String| ClassSpec { name: name.clone(), color: None, source: None };
    let classes: Vec<ClassSpec> = std::iter::once(&rest).chain(names).map(spec).collect();
    let join = Join { masks, rest, overlap: Overlap::Later, threshold: None };
    let joiner = Joiner::new(&join, &classes).ok()?;
    let mut parts = Vec::new();
    for ((split, images, masks), group) in found {
        let files = walk(masks).files;
        let mut stems = Vec::new();
        let mut taken: BTreeSet<&Path> = BTreeSet::new();
        for (name, layers) in group {
            let stem = plain_stem(name)?;
            let named = joiner.find(stem, &files);
            let meant: BTreeSet<(&Path, String)> =
                layers.iter().map(|layer| (layer.path.as_path(), class(layer))).collect();
            let would: BTreeSet<(&Path, String)> =
                named.iter().map(|(rule, at)| (files[*at].1.as_path(), join.masks[*rule].class.clone())).collect();
            if meant != would {
                return None;
            }
            taken.extend(layers.iter().map(|layer| layer.path.as_path()));
            stems.push(stem.to_string());
        }
        let pictures = Pictures::below(place, images);
        let others = pictures.names().iter().filter(|name| !taken.contains(images.join(name).as_path())).count();
        parts.push(SplitImages {
            split: *split,
            images: images.clone(),
            masks: place.path(masks),
            image_suffix: None,
            mask_suffix: ".png".to_string(),
            list: if others == stems.len() { List::None } else { List::New },
            stems,
        });
    }
    Some((join, classes, parts))
}

/// Images with their masks.
struct Layers {
    /// The folder of images.
    root: PathBuf,
    /// The folder of masks.
    masks: PathBuf,
    /// By the images' paths below their folder.
    by_image: BTreeMap<String, Vec<MaskLayer>>,
    /// Each mask is an object.
    of_objects: bool,
}

/// `ID/images/ID.png` and `ID/masks/*.png`.
fn folder_each(place: &Place) -> Option<Layers> {
    let all = Pictures::below(place, place.dir);
    let mut images: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut masks: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in all.names() {
        let folder = folder_of(name);
        match file_name(folder) {
            "images" => images.entry(folder_of(folder)).or_default().push(name),
            "masks" => masks.entry(folder_of(folder)).or_default().push(name),
            _ => {}
        }
    }
    let own = |(at, names): (&&str, &Vec<&str>)| names.len() == 1 && !at.is_empty() && masks.contains_key(*at);
    // What lies in a folder of its own without any mask, as tests do, is not part of it.
    let top = |at: &str| at.split('/').next().unwrap_or_default().to_string();
    let described: BTreeSet<String> = images.keys().filter(|at| masks.contains_key(**at)).map(|at| top(at)).collect();
    images.retain(|at, _| described.contains(&top(at)) || !at.contains('/'));
    let several = images.keys().any(|at| masks.get(at).is_some_and(|masks| masks.len() > 1));
    let fits = images.iter().filter(|one| own((one.0, one.1))).count();
    if !several || fits < 2 || fits * 10 < images.len() * 9 {
        return None;
    }
    let mut by_image = BTreeMap::new();
    for (at, names) in &images {
        let (Some(masks), [image]) = (masks.get(at), names.as_slice()) else { continue };
        let layer = |name: &&str| MaskLayer { path: place.dir.join(name), suffix: String::new() };
        by_image.insert((*image).to_string(), masks.iter().map(layer).collect());
    }
    let root = place.dir.to_path_buf();
    Some(Layers { masks: root.clone(), root, by_image, of_objects: true })
}

/// Masks called like their image, with more at the end.
fn by_names(place: &Place) -> Option<Layers> {
    let (images, masks) = called_pair(place).unwrap_or((place.dir.to_path_buf(), place.dir.to_path_buf()));
    let same = images == masks;
    let (pictures, files) = (Pictures::below(place, &images), Pictures::below(place, &masks));
    let stems: BTreeMap<&str, &str> =
        pictures.names().iter().filter_map(|name| Some((plain_stem(name)?, name.as_str()))).collect();
    let marked = |suffix: &str| {
        let suffix = suffix.to_lowercase();
        suffix.contains("mask") || suffix.contains("class") || suffix.contains("label")
    };
    let mut by_image: BTreeMap<String, Vec<MaskLayer>> = BTreeMap::new();
    let mut taken: BTreeSet<&str> = BTreeSet::new();
    let mut loose = 0;
    for name in files.names() {
        let Some(stem) = plain_stem(name) else { continue };
        // The longest start that an image has.
        let cut = stem.char_indices().rev().map(|(at, _)| at).find(|at| {
            stem[*at..].starts_with(['_', '-', '.'])
                && stems.contains_key(&stem[..*at])
                && (!same || marked(&stem[*at..]))
        });
        let Some(cut) = cut else {
            loose += usize::from(!same);
            continue;
        };
        let Some(image) = stems.get(&stem[..cut]) else { continue };
        taken.insert(name.as_str());
        by_image
            .entry((*image).to_string())
            .or_default()
            .push(MaskLayer { path: files.root().join(name), suffix: stem[cut..].to_string() });
    }
    let several = by_image.values().filter(|layers| layers.len() > 1).count();
    if several == 0 || loose > 0 {
        return None;
    }
    // What is a mask of one is not an image of another.
    if same {
        by_image.retain(|image, _| !taken.contains(image.as_str()));
    }
    Some(Layers { root: images, masks, by_image, of_objects: false })
}

fn is_black_and_white(path: &Path) -> bool {
    fn two<T: PartialEq + Copy + Default>(values: &[T]) -> bool {
        let other = values.iter().find(|value| **value != T::default());
        values.iter().all(|value| *value == T::default() || Some(value) == other)
    }
    match read_mask(path) {
        Ok(RawMask::Index { values, .. }) => two(&values),
        Ok(RawMask::Rgb { values, .. }) => two(&values),
        Err(_) => false,
    }
}
