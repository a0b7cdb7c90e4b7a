//! A black and white mask for each class of an image, as RectLabel, Labelbox and others export them.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use crate::dataset::Split;
use crate::dataset::pairs::plain_stem;
use crate::dataset::spec::{ClassSpec, Encoding, Join, JoinedMask, Overlap};
use crate::dataset::walk::walk;
use crate::error::Result;
use crate::tools::check::{MaskSurvey, OnProgress, survey};
use crate::tools::init::plan::{DatasetPlan, List, Place, SplitImages};

/// More kinds of masks than this are not classes.
const MAX_KINDS: usize = 64;

/// The class of what no mask shows.
const REST: &str = "background";

/// Folders of one split: of images and of masks.
pub(super) struct Folders<'a> {
    pub(super) split: Option<Split>,
    pub(super) images: &'a Path,
    pub(super) masks: &'a Path,
}

/// The plan of a set in which most images have a mask for each of several classes. `None` where they have one each, or
/// where masks hold more than two values: then they are different pictures of the same labels.
pub(super) fn plan(place: &Place, folders: &[Folders], progress: OnProgress) -> Result<Option<DatasetPlan>> {
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    let (mut parts, mut files) = (Vec::new(), Vec::new());
    let (mut several, mut images) = (0, 0);
    for Folders { split, images: folder, masks } in folders {
        let found = FolderValues::scan(folder, masks);
        several += found.ends.values().filter(|ends| ends.len() > 1).count();
        images += found.stems.len();
        found.ends.values().flatten().for_each(|end| *ends.entry(end.clone()).or_default() += 1);
        files.extend(found.files);
        let stems: Vec<String> = found.stems.into_iter().filter(|stem| found.ends.contains_key(stem)).collect();
        if !stems.is_empty() {
            parts.push(SplitImages {
                split: *split,
                images: folder.to_path_buf(),
                masks: place.path(masks),
                image_suffix: None,
                mask_suffix: ".png".to_string(),
                stems,
                list: List::None,
            });
        }
    }
    // Objects are counted, classes are named; and a name is one that comes again.
    let named = |(end, count): (&String, &usize)| {
        let name = end.rsplit_once('.').map_or(end.as_str(), |(name, _)| name).replace("{stem}", "");
        let name = name.trim_end_matches('/');
        *count * 10 >= images && name.chars().any(char::is_alphabetic) && !name.ends_with(|c: char| c.is_ascii_digit())
    };
    if 2 * several < images || ends.len() < 2 || ends.len() > MAX_KINDS || !ends.iter().all(named) {
        return Ok(None);
    }
    let survey = survey(&files, place.jpeg_tolerance(), progress);
    if !is_black_and_white(&survey) {
        return Ok(None);
    }
    let ends: Vec<String> = ends.into_keys().collect();
    let names = class_names(&ends);
    let class = |name: &String| ClassSpec { name: name.clone(), color: None, source: None };
    let rest = if names.iter().any(|name| name == REST) { "rest" } else { REST }.to_string();
    let classes = std::iter::once(&rest).chain(&names).map(class).collect();
    let mask = |(end, class): (&String, &String)| JoinedMask { file: end.clone(), class: class.clone() };
    let masks = ends.iter().zip(&names).map(mask).collect();
    let mut join = Join { masks, rest, overlap: Overlap::Later, threshold: None };
    let classes = place.named_joined(classes, &mut join)?;
    let mut plan = place.plan("images with a mask for each class", Encoding::Index, Vec::new(), classes, parts)?;
    plan.notes.push(format!(
        "each image has several masks, which become one: {}; pixels that none shows are `{}`, and where two show one the \
         later in the list wins (`overlap` of [join])",
        ends.iter().zip(&join.masks).map(|(end, mask)| format!("`{end}` is `{}`", mask.class)).collect::<Vec<_>>().join(", "),
        join.rest
    ));
    plan.spec.join = Some(join);
    Ok(Some(plan))
}

/// The images of a folder, and what their masks end in.
struct FolderValues {
    stems: Vec<String>,
    ends: BTreeMap<String, Vec<String>>,
    files: Vec<PathBuf>,
}

impl FolderValues {
    fn scan(folder: &Path, masks: &Path) -> Self {
        let (images, masks) = (walk(folder), walk(masks));
        let all: HashSet<&str> = images.files.iter().filter_map(|(name, _)| plain_stem(name)).collect();
        let (mut ends, mut files): (BTreeMap<String, Vec<String>>, Vec<PathBuf>) = Default::default();
        let mut taken = HashSet::new();
        for (name, path) in masks.files.iter().filter(|(name, _)| plain_stem(name).is_some()) {
            // The longest name of an image that the mask's begins with, up to a separator.
            let cuts = name.char_indices().rev().filter(|(_, c)| matches!(c, '_' | '-')).map(|(at, _)| at);
            if let Some(cut) = cuts.into_iter().find(|cut| all.contains(&name[..*cut])) {
                ends.entry(name[..cut].to_string()).or_default().push(format!("{{stem}}{}", &name[cut..]));
                files.push(path.clone());
                taken.insert(path.clone());
            } else if let Some((class, stem, ending)) =
                in_folder_of_class(name).filter(|(_, stem, _)| all.contains(stem))
            {
                ends.entry(stem.to_string()).or_default().push(format!("{class}/{{stem}}{ending}"));
                files.push(path.clone());
                taken.insert(path.clone());
            }
        }
        let stems = images.files.iter().filter(|(_, path)| !taken.contains(path));
        let stems = stems.filter_map(|(name, _)| plain_stem(name)).map(str::to_string).collect();
        Self { stems, ends, files }
    }
}

/// `car/a.png`: the class, the image's name, the ending.
fn in_folder_of_class(name: &str) -> Option<(&str, &str, &str)> {
    let (class, file) = name.split_once('/')?;
    let stem = plain_stem(file)?;
    Some((class, stem, &file[stem.len()..]))
}

/// Each mask holds 0 and at most one other value.
fn is_black_and_white(survey: &MaskSurvey) -> bool {
    let black = crate::dataset::spec::Source::Rgb([0; 3]);
    let colors = survey.colors.keys().filter(|color| **color != black).count();
    survey.broken.is_empty() && survey.kinds.are_binary() && colors <= 1
}

/// What the ends differ in, between separators.
fn class_names(ends: &[String]) -> Vec<String> {
    let bare = ends.iter().map(|end| end.rsplit_once('.').map_or(end.as_str(), |(bare, _)| bare).replace("{stem}", ""));
    let bare: Vec<String> = bare.collect();
    let words: Vec<Vec<&str>> =
        bare.iter().map(|end| end.split(['_', '-', '/']).filter(|word| !word.is_empty()).collect()).collect();
    let least = words.iter().map(Vec::len).min().unwrap_or(0).saturating_sub(1);
    let same = |at: &dyn Fn(&Vec<&str>, usize) -> usize, n: usize| {
        words.iter().all(|word| word[at(word, n)] == words[0][at(&words[0], n)])
    };
    let front = (0..least).take_while(|n| same(&|_, n| n, *n)).count();
    let back = (0..least - front).take_while(|n| same(&|word, n| word.len() - 1 - n, *n)).count();
    words.iter().map(|word| word[front..word.len() - back].join(" ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_called_by_what_ends_differ_in() {
        let names = |ends: &[&str]| class_names(&ends.iter().map(|end| end.to_string()).collect::<Vec<_>>());
        assert_eq!(names(&["_class_chair.png", "_class_sofa.png"]), ["chair", "sofa"]);
        assert_eq!(names(&["_road_mask.png", "_traffic_light_mask.png"]), ["road", "traffic light"]);
        assert_eq!(names(&["-car.png", "-road.png"]), ["car", "road"]);
        assert_eq!(names(&["{stem}_car.png", "{stem}_road.png"]), ["car", "road"]);
        assert_eq!(names(&["car/{stem}.png", "traffic_light/{stem}.png"]), ["car", "traffic light"]);
    }
}
