//! Where images and masks of each split lie, by the names of folders.

use std::path::{Path, PathBuf};

use crate::dataset::Split;
use crate::dataset::pairs::plain_stem;
use crate::dataset::walk::{children, walk};
use crate::error::{Error, Result};
use crate::tools::init::plan::{Place, folders_in};
use crate::tools::init::splits::SPLITS;
use crate::tools::init::used_options::Flag;

pub(super) const IMAGES: [&str; 15] = [
    "images",
    "image",
    "imgs",
    "img",
    "jpegimages",
    "leftimg8bit",
    "photos",
    "pictures",
    "rgb",
    "img_dir",
    "input",
    "inputs",
    "original",
    "original_images",
    "x",
];
pub(super) const MASKS: [&str; 23] = [
    "1st_manual",
    "masks",
    "mask",
    "labels",
    "label",
    "annotations",
    "annotation",
    "annot",
    "gt",
    "gtfine",
    "ann_dir",
    "trimaps",
    "ground_truth",
    "ground truth",
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

/// Words that name a folder of images where it has others beside them, as `ISIC_Training_Input`.
const IMAGE_WORDS: [&str; 13] = [
    "data",
    "images",
    "image",
    "imgs",
    "img",
    "jpegimages",
    "photos",
    "pictures",
    "input",
    "inputs",
    "original",
    "originals",
    "x",
];
/// The same of masks, which win where a name has both: `label_images`.
const MASK_WORDS: [&str; 22] = [
    "masks",
    "mask",
    "labels",
    "label",
    "lab",
    "labs",
    "annotations",
    "annotation",
    "annot",
    "ann",
    "gt",
    "groundtruth",
    "truth",
    "segmentation",
    "segmentations",
    "seg",
    "segs",
    "segmentationclass",
    "trimaps",
    "parsing",
    "targets",
    "y",
];
/// Words of splits beside the names that folders of splits have.
const SPLIT_WORDS: [(Split, &[&str]); 3] =
    [(Split::Train, &["tr", "trainval"]), (Split::Val, &["vl"]), (Split::Test, &["ts", "tst"])];

/// Folders of one split, before their files are matched.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) split: Option<Split>,
    pub(super) images: PathBuf,
    pub(super) masks: PathBuf,
}

/// Where images and masks of each split may lie.
pub(super) fn candidates(place: &Place) -> Result<Vec<Candidate>> {
    let dir = place.dir;
    let whole = |split, images: &Path, masks: &Path| Candidate { split, images: images.into(), masks: masks.into() };
    let options = place.options;
    if options.images.is_some() || options.masks.is_some() {
        place.uses(Flag::Images);
        let folder = |given: &Option<PathBuf>, names: &[&str], flag: &str| -> Result<PathBuf> {
            let folder = match given {
                Some(path) if path.is_absolute() || !dir.join(path).exists() => path.clone(),
                Some(path) => dir.join(path),
                None => called(dir, names).ok_or_else(|| {
                    Error::new(format!("`{}` has no folder with a known name", dir.display())).with_hint(format!(
                        "also pass {flag}: {}",
                        place.again(false, |options| {
                            let other = if flag == "--images" { &mut options.images } else { &mut options.masks };
                            *other = Some("DIR".into());
                        })
                    ))
                })?,
            };
            if folder.is_dir() {
                Ok(folder)
            } else {
                Err(Error::new(format!("`{}` is not a folder", folder.display())).with_hint(format!("check {flag}")))
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
    let by_words = by_words(dir);
    if !by_words.is_empty() {
        return Ok(by_words);
    }
    let mut found = Vec::new();
    for (split, names) in SPLITS {
        // Where pictures lie in the folder itself, only those that are called just so are splits of it.
        let folder = if has_own_pictures(dir) { called(dir, names) } else { of_split(dir, split) };
        let Some(folder) = folder else { continue };
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

/// Folders of splits below both, or below the only folder in them that holds pictures.
fn split_below(images: &Path, masks: &Path) -> Vec<Candidate> {
    let both = |images: &Path, masks: &Path| -> Vec<Candidate> {
        let one = |(split, _): &(Split, &[&str])| {
            Some(Candidate { split: Some(*split), images: of_split(images, *split)?, masks: of_split(masks, *split)? })
        };
        SPLITS.iter().filter_map(one).collect()
    };
    let found = both(images, masks);
    if found.is_empty() { both(&within(images, &IMAGES), &within(masks, &MASKS)) } else { found }
}

/// Where a folder holds no pictures itself, the folder in it that does: the only one, or the one of a known name.
pub(super) fn within(folder: &Path, names: &[&str]) -> PathBuf {
    let mut folder = folder.to_path_buf();
    for _ in 0..4 {
        let has_pictures = |path: &Path| walk(path).files.iter().any(|(name, _)| is_picture(name));
        let below: Vec<PathBuf> =
            folders_in(&folder).into_iter().map(|(_, path)| path).filter(|path| has_pictures(path)).collect();
        let direct = has_own_pictures(&folder);
        let split = SPLITS.iter().any(|(split, _)| of_split(&folder, *split).is_some());
        folder = match below.as_slice() {
            _ if direct || split => return folder,
            [only] => only.clone(),
            _ => match called(&folder, names) {
                Some(named) => named,
                None => return folder,
            },
        };
    }
    folder
}

/// Whether pictures lie in a folder itself.
fn has_own_pictures(folder: &Path) -> bool {
    children(folder).iter().filter(|path| path.is_file()).any(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        !name.starts_with('.') && is_picture(&name)
    })
}

/// Whether a file of this name may hold an image or a mask.
pub(super) fn is_picture(name: &str) -> bool {
    plain_stem(name).is_some() || name.to_ascii_lowercase().ends_with(".npy")
}

/// The folder of a split: called so, or the only one whose name has the split among its words.
fn of_split(dir: &Path, split: Split) -> Option<PathBuf> {
    let names = SPLITS.iter().find(|(of, _)| *of == split).map(|(_, names)| *names)?;
    let both = (split == Split::Train).then(|| called(dir, &["trainval", "train_val"])).flatten();
    called(dir, names).or(both).or_else(|| {
        let mut worded = folders_in(dir).into_iter().filter(|(name, _)| splits_in(&words(name)) == [split]);
        let first = worded.next()?;
        worded.next().is_none().then_some(first.1)
    })
}

/// Folders whose names say in words which split they are of and whether they hold images or masks.
fn by_words(dir: &Path) -> Vec<Candidate> {
    let mut folders: Vec<(Option<Split>, bool, PathBuf)> = Vec::new();
    for (name, path) in folders_in(dir) {
        let words = words(&name);
        let pairs = words.windows(2).map(|two| two.concat());
        let has = |list: &[&str]| {
            words.iter().any(|word| list.contains(&word.as_str()))
                || pairs.clone().any(|pair| list.contains(&pair.as_str()))
        };
        let is_masks = has(&MASK_WORDS);
        let splits = splits_in(&words);
        if (is_masks || has(&IMAGE_WORDS)) && splits.len() < 3 {
            // A name of two splits, as `TrainVal_images`, is of none.
            folders.push((splits.first().copied().filter(|_| splits.len() == 1), is_masks, path));
        }
    }
    let only = |split: Option<Split>, masks: bool| -> Option<PathBuf> {
        let mut of = folders.iter().filter(|(of, is_masks, _)| *of == split && *is_masks == masks);
        let first = of.next()?;
        of.next().is_none().then(|| first.2.clone())
    };
    let one = |split: Option<Split>| Some(Candidate { split, images: only(split, false)?, masks: only(split, true)? });
    let found: Vec<Candidate> = SPLITS.iter().filter_map(|(split, _)| one(Some(*split))).collect();
    if !found.is_empty() {
        return found;
    }
    let Some(whole) = one(None) else { return Vec::new() };
    let splits = split_below(&whole.images, &whole.masks);
    if splits.is_empty() { vec![whole] } else { splits }
}

/// Splits that the words of a name mention.
fn splits_in(words: &[String]) -> Vec<Split> {
    let mentions = |(split, names): &(Split, &[&str])| {
        let more = SPLIT_WORDS.iter().find(|(of, _)| of == split).map_or(&[][..], |(_, names)| *names);
        words.iter().any(|word| names.contains(&word.as_str()) || more.contains(&word.as_str())).then_some(*split)
    };
    SPLITS.iter().filter_map(mentions).collect()
}

/// The words of a name, in small letters: between marks, and from where small letters meet capitals.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for c in name.chars() {
        let starts = before.is_lowercase() && c.is_uppercase()
            || before.is_alphabetic() != c.is_alphabetic()
            || before.is_numeric() != c.is_numeric();
        if starts {
            words.push(String::new());
        }
        if c.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(c.to_lowercase());
        }
        before = c;
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The folder in `dir` that has one of these names, the first name first, in any letters.
pub(super) fn called(dir: &Path, names: &[&str]) -> Option<PathBuf> {
    let folders = folders_in(dir);
    let find = |name: &&str| folders.iter().find(|(folder, _)| folder.to_lowercase() == **name);
    names.iter().find_map(find).map(|(_, path)| path.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finds the folders of a tree with a picture in each; answers split, images, masks.
    fn found(folders: &[&str]) -> Vec<(Option<Split>, String, String)> {
        let root = tempfile::tempdir().unwrap();
        for folder in folders {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
            std::fs::write(root.path().join(folder).join("a.png"), "").unwrap();
        }
        let options = crate::tools::init::InitOptions::default();
        let toml = root.path().join("set.toml");
        let place = Place::new(root.path(), &toml, &options).unwrap();
        let below = |path: &Path| path.strip_prefix(root.path()).unwrap().display().to_string();
        candidates(&place).unwrap().iter().map(|one| (one.split, below(&one.images), below(&one.masks))).collect()
    }

    #[test]
    fn folders_are_known_by_their_words() {
        let (train, val, test) = (Some(Split::Train), Some(Split::Val), Some(Split::Test));
        type Found<'a> = &'a [(Option<Split>, &'a str, &'a str)];
        let cases: &[(&[&str], Found)] = &[
            (
                &[
                    "ISIC2018_Task1-2_Training_Input",
                    "ISIC2018_Task1_Training_GroundTruth",
                    "ISIC2018_Task1-2_Test_Input",
                ],
                &[(train, "ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth")],
            ),
            (
                &["imagesTr", "labelsTr", "imagesTs", "labelsTs"],
                &[(train, "imagesTr", "labelsTr"), (test, "imagesTs", "labelsTs")],
            ),
            (&["X_train", "y_train", "X_val", "y_val"], &[(train, "X_train", "y_train"), (val, "X_val", "y_val")]),
            (
                &["train_img", "train_lab", "test_img", "test_lab"],
                &[(train, "train_img", "train_lab"), (test, "test_img", "test_lab")],
            ),
            (
                &["ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"],
                &[(train, "ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth")],
            ),
            (&["Original", "Ground Truth"], &[(None, "Original", "Ground Truth")]),
            (&["original_images", "label_images_semantic"], &[(None, "original_images", "label_images_semantic")]),
            (&["img_dir/train", "ann_dir/train"], &[(train, "img_dir/train", "ann_dir/train")]),
            (
                &[
                    "TrainVal_images/train_images",
                    "TrainVal_images/val_images",
                    "TrainVal_parsing/train_seg",
                    "TrainVal_parsing/val_seg",
                ],
                &[
                    (train, "TrainVal_images/train_images", "TrainVal_parsing/train_seg"),
                    (val, "TrainVal_images/val_images", "TrainVal_parsing/val_seg"),
                ],
            ),
            (
                &["images/10k/train", "labels/sem_seg/masks/train", "labels/sem_seg/colormaps/train"],
                &[(train, "images/10k/train", "labels/sem_seg/masks/train")],
            ),
            (
                &["training/images", "training/1st_manual", "training/mask"],
                &[(train, "training/images", "training/1st_manual")],
            ),
            (
                &["train_val/images", "train_val/masks", "TEST/images", "TEST/masks"],
                &[(train, "train_val/images", "train_val/masks"), (test, "TEST/images", "TEST/masks")],
            ),
        ];
        for (folders, expected) in cases {
            let expected: Vec<_> =
                expected.iter().map(|(split, a, b)| (*split, a.to_string(), b.to_string())).collect();
            assert_eq!(found(folders), expected, "{folders:?}");
        }
    }

    #[test]
    fn names_are_cut_into_words() {
        assert_eq!(words("ISIC2018_Task1-2_Training_Input"), ["isic", "2018", "task", "1", "2", "training", "input"]);
        assert_eq!(words("imagesTr"), ["images", "tr"]);
        assert_eq!(words("Ground Truth"), ["ground", "truth"]);
    }
}
