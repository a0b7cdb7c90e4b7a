//! Masks of which each image has several, one for each class or object: which files they are, and how they become one.

use std::path::PathBuf;

use crate::dataset::spec::{ClassSpec, DatasetSpec, Join, Overlap};
use crate::error::{Error, Result};
use crate::image::{IGNORE, RawMask, Stored};

/// What `rest` and `class` say of pixels that count nowhere.
const NOWHERE: &str = "ignore";

/// One of the masks of an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MaskPart {
    /// Which of the list of masks it is.
    pub(crate) rule: usize,
    pub(crate) path: PathBuf,
}

/// [`Join`] with names looked up.
#[derive(Clone, Debug)]
pub(crate) struct Joiner {
    files: Vec<String>,
    labels: Vec<u8>,
    rest: u8,
    overlap: Overlap,
    threshold: Option<u16>,
}

/// The masks of one image as one, and what was decided for that.
pub(crate) struct JoinedMask {
    /// Class indices; 255 counts nowhere.
    pub(crate) mask: RawMask,
    /// Pixels that masks of different classes show, and the first of them, counted by rows.
    pub(crate) overlapping: u64,
    pub(crate) first: Option<usize>,
}

impl DatasetSpec {
    /// How several masks of an image become one, if they do.
    pub(crate) fn joiner(&self) -> Result<Option<Joiner>> {
        self.join.as_ref().map(|join| Joiner::new(join, &self.classes)).transpose()
    }
}

impl Joiner {
    /// # Errors
    /// No masks; names of no class; patterns that do not say which image a mask is of.
    pub(crate) fn new(join: &Join, classes: &[ClassSpec]) -> Result<Self> {
        let label = |name: &str, place: &str| -> Result<u8> {
            if name == NOWHERE {
                return Ok(IGNORE);
            }
            let at = classes.iter().position(|class| class.name == name).and_then(|at| u8::try_from(at).ok());
            at.ok_or_else(|| {
                let names: Vec<&str> = classes.iter().take(8).map(|class| class.name.as_str()).collect();
                Error::new(format!("[join] gives {place} to `{name}`, which is not a class"))
                    .with_hint(format!("write the name of a class ({}) or `{NOWHERE}`", names.join(", ")))
            })
        };
        if join.masks.is_empty() {
            return Err(Error::new("[join] names no masks").with_hint(
                "masks = [{ file = \"{stem}_road.png\", class = \"road\" }]; leave [join] out if there is one mask per \
                 image",
            ));
        }
        if let Some(class) = classes.iter().find(|class| class.source.is_some()) {
            return Err(Error::new(format!("class `{}` has a `source`, but [join] makes the labels", class.name))
                .with_hint("with [join] the file determines the class: remove `source`"));
        }
        let rest = label(&join.rest, "the rest")?;
        let labels = join.masks.iter().map(|mask| {
            check_pattern(&mask.file)?;
            label(&mask.class, &format!("`{}`", mask.file))
        });
        Ok(Self {
            labels: labels.collect::<Result<_>>()?,
            files: join.masks.iter().map(|mask| mask.file.clone()).collect(),
            rest,
            overlap: join.overlap,
            threshold: join.threshold,
        })
    }

    /// Which names are masks of the image called `stem`, as positions in `names`, which are in order.
    pub(crate) fn find(&self, stem: &str, names: &[(String, PathBuf)]) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for rule in 0..self.files.len() {
            let Some(file) = self.file(rule, stem) else { continue };
            let (start, end) = file.split_once('*').unwrap_or((&file, ""));
            let from = names.partition_point(|(name, _)| name.as_str() < start);
            let near = names[from..].iter().enumerate().take_while(|(_, (name, _))| name.starts_with(start));
            for (at, (name, _)) in near {
                let rest = &name[start.len()..];
                let fits = match file.contains('*') {
                    true => rest.strip_suffix(end).is_some_and(|any| !any.contains('/')),
                    false => rest.is_empty(),
                };
                if fits && !found.iter().any(|(_, before)| *before == from + at) {
                    found.push((rule, from + at));
                }
                if !file.contains('*') {
                    break;
                }
            }
        }
        found
    }

    /// The name of an image's masks by one rule, below the folder of masks; `None` if it is not below it.
    pub(crate) fn file(&self, rule: usize, stem: &str) -> Option<String> {
        let (folder, name) = stem.rsplit_once('/').unwrap_or((".", stem));
        // `*` in a name is not a pattern: none can hold it.
        let filled = self.files[rule].replace("{folder}", folder).replace("{name}", name).replace("{stem}", stem);
        let mut parts = Vec::new();
        for part in filled.split('/').filter(|part| !part.is_empty() && *part != ".") {
            match part {
                ".." => drop(parts.pop()?),
                part => parts.push(part),
            }
        }
        Some(parts.join("/"))
    }

    /// Whether JPEGs are taken: their values are not exact, and a threshold tells them apart.
    pub(crate) fn takes_jpeg(&self) -> bool {
        self.threshold.is_some()
    }

    /// One mask of all `parts` of an image, each read by `read`.
    ///
    /// # Errors
    /// A file that cannot be read; sizes that differ; more than two values without a threshold.
    pub(crate) fn join(&self, parts: &[MaskPart], read: impl Fn(&MaskPart) -> Result<RawMask>) -> Result<JoinedMask> {
        /// No mask shows it.
        const NONE: u16 = 256;
        let mut size = None;
        let mut labels: Vec<u16> = Vec::new();
        let (mut overlapping, mut first): (u64, Option<usize>) = (0, None);
        let mut twice = Vec::new();
        for part in parts {
            let mask = read(part)?;
            let (RawMask::Index { width, height, .. } | RawMask::Rgb { width, height, .. }) = mask;
            let (before, name) = size.get_or_insert(((width, height), &part.path));
            if *before != (width, height) {
                return Err(Error::new(format!(
                    "`{}` has {width}x{height} pixels and `{}`, a mask of the same image, {}x{}",
                    part.path.display(),
                    name.display(),
                    before.0,
                    before.1
                ))
                .with_hint("all masks of an image must have its size: export them again"));
            }
            labels.resize(width * height, NONE);
            twice.resize(width * height, false);
            let shown = self.shown(&mask).map_err(|e| Error::file("use", &part.path, e))?;
            let label = u16::from(self.labels[part.rule]);
            for (at, _) in shown.iter().enumerate().filter(|(_, shown)| **shown) {
                let before = labels[at];
                if before != NONE && before != label && !twice[at] {
                    twice[at] = true;
                    overlapping += 1;
                    first = Some(first.map_or(at, |first| first.min(at)));
                }
                labels[at] = match self.overlap {
                    _ if before == NONE || before == label => label,
                    Overlap::Later => label,
                    Overlap::Earlier => before,
                    Overlap::Ignore => u16::from(IGNORE),
                };
            }
        }
        if self.overlap == Overlap::Ignore {
            // A third mask may have covered what two had made void.
            labels.iter_mut().zip(&twice).filter(|(_, twice)| **twice).for_each(|(label, _)| *label = IGNORE.into());
        }
        labels.iter_mut().filter(|label| **label == NONE).for_each(|label| *label = self.rest.into());
        let ((width, height), _) = size.ok_or_else(|| Error::new("an image has no mask"))?;
        Ok(JoinedMask {
            mask: RawMask::Index { width, height, values: labels, stored: Stored::default() },
            overlapping,
            first,
        })
    }

    /// Which pixels a mask shows.
    fn shown(&self, mask: &RawMask) -> Result<Vec<bool>> {
        let values: Vec<u16> = match mask {
            RawMask::Index { values, .. } => values.clone(),
            RawMask::Rgb { values, .. } => values.iter().map(|[r, g, b]| u16::from(*r.max(g).max(b))).collect(),
        };
        if let Some(threshold) = self.threshold {
            return Ok(values.iter().map(|value| *value >= threshold).collect());
        }
        let one = values.iter().copied().find(|value| *value > 0).unwrap_or(0);
        if let Some(at) = values.iter().position(|value| *value != 0 && *value != one) {
            let (RawMask::Index { width, .. } | RawMask::Rgb { width, .. }) = *mask;
            return Err(Error::new(format!(
                "it holds {one} and {} (at column {}, row {}) besides 0, but shows only one class",
                values[at],
                at % width,
                at / width
            ))
            .with_hint(
                "if it was smoothed, set the smallest value that counts as shown: threshold = 128 below [join]; if its \
                   values are different objects, threshold = 1",
            ));
        }
        Ok(values.iter().map(|value| *value > 0).collect())
    }
}

fn check_pattern(file: &str) -> Result<()> {
    let says = |place: &str| file.contains(place);
    let fault = if !says("{stem}") && !says("{name}") && !says("{folder}") {
        "does not say which image it belongs to"
    } else if file.matches('*').count() > 1 {
        "has more than one `*`"
    } else if file.starts_with('/') || file.contains('\\') {
        "is not a path below the folder of masks, with `/` between folders"
    } else {
        return Ok(());
    };
    Err(Error::new(format!("[join] has the file `{file}`, which {fault}"))
        .with_hint("as in file = \"{stem}_road.png\", or \"{folder}/masks/*.png\" for all in a folder"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joiner(files: &[(&str, &str)], more: &str) -> Result<Joiner> {
        let masks: Vec<String> =
            files.iter().map(|(file, class)| format!("{{ file = '{file}', class = '{class}' }}")).collect();
        let join: Join = toml::from_str(&format!("masks = [{}]\n{more}", masks.join(", "))).unwrap();
        let class = |name: &str| ClassSpec { name: name.to_string(), color: None, source: None };
        Joiner::new(&join, &["ground", "road", "car"].map(class))
    }

    fn names(names: &[&str]) -> Vec<(String, PathBuf)> {
        let mut names: Vec<_> = names.iter().map(|name| (name.to_string(), PathBuf::from(name))).collect();
        names.sort();
        names
    }

    fn found(joiner: &Joiner, stem: &str, all: &[&str]) -> Vec<(usize, String)> {
        let all = names(all);
        joiner.find(stem, &all).into_iter().map(|(rule, at)| (rule, all[at].0.clone())).collect()
    }

    #[test]
    fn files_of_classes_and_of_objects_are_found() {
        let rest = "rest = 'ground'";
        let classes = joiner(&[("{stem}_road.png", "road"), ("{stem}_car.png", "car")], rest).unwrap();
        let all = ["1_car.png", "1_road.png", "10_car.png", "1_road.png.bak"];
        assert_eq!(found(&classes, "1", &all), [(0, "1_road.png".into()), (1, "1_car.png".into())]);
        assert_eq!(found(&classes, "2", &all), []);
        let instances = joiner(&[("{stem}_mask*.png", "car")], rest).unwrap();
        let all = ["a (1).png", "a (1)_mask.png", "a (1)_mask_1.png", "a (10)_mask.png", "a (1)_mask/x.png"];
        assert_eq!(found(&instances, "a (1)", &all), [(0, "a (1)_mask.png".into()), (0, "a (1)_mask_1.png".into())]);
        let folders = joiner(&[("{folder}/../masks/*.png", "car")], rest).unwrap();
        let all = ["7/images/7.png", "7/masks/a.png", "7/masks/b.png", "8/masks/c.png"];
        assert_eq!(found(&folders, "7/images/7", &all), [(0, "7/masks/a.png".into()), (0, "7/masks/b.png".into())]);
        assert_eq!(found(&folders, "7", &all), [], "that is above the folder of masks");
        let below = joiner(&[("road/{stem}.png", "road")], rest).unwrap();
        assert_eq!(found(&below, "town/a", &["road/town/a.png"]), [(0, "road/town/a.png".into())]);
    }

    #[test]
    fn masks_are_laid_over_each_other() {
        let all = |joiner: &Joiner, parts: &[&[u16]]| -> Result<(Vec<u16>, u64, Option<usize>)> {
            let list: Vec<MaskPart> =
                (0..parts.len()).map(|rule| MaskPart { rule, path: format!("{rule}.png").into() }).collect();
            let read = |part: &MaskPart| {
                let values = parts[part.rule].to_vec();
                Ok(RawMask::Index { width: 2, height: values.len() / 2, values, stored: Stored::default() })
            };
            let joined = joiner.join(&list, read)?;
            let RawMask::Index { values, .. } = joined.mask else { unreachable!() };
            Ok((values, joined.overlapping, joined.first))
        };
        let files = [("{stem}_r.png", "road"), ("{stem}_c.png", "car")];
        let parts: [&[u16]; 2] = [&[255, 255, 0, 0], &[0, 1, 1, 0]];
        for (more, labels) in [
            ("rest = 'ground'", [1, 2, 2, 0]),
            ("rest = 'ground'\noverlap = 'earlier'", [1, 1, 2, 0]),
            ("rest = 'ignore'\noverlap = 'ignore'", [1, 255, 2, 255]),
        ] {
            assert_eq!(all(&joiner(&files, more).unwrap(), &parts).unwrap(), (labels.to_vec(), 1, Some(1)), "{more}");
        }
        // Masks of one class are united without a word.
        let same = joiner(&[("{stem}_r.png", "road"), ("{stem}_c.png", "road")], "rest = 'ground'").unwrap();
        assert_eq!(all(&same, &parts).unwrap(), (vec![1, 1, 1, 0], 0, None));
        let gray: [&[u16]; 2] = [&[0, 200, 100, 0], &[0, 0, 0, 0]];
        let plain = joiner(&files, "rest = 'ground'").unwrap();
        let error = all(&plain, &gray).unwrap_err();
        assert!(error.to_string().contains("200 and 100 (at column 0, row 1)"), "{error}");
        assert!(error.hint().unwrap().contains("threshold = 128"));
        let from = joiner(&files, "rest = 'ground'\nthreshold = 128").unwrap();
        assert_eq!(all(&from, &gray).unwrap().0, [0, 1, 0, 0]);
        let error = all(&plain, &[&[0, 0], &[0, 0, 0, 0]]).unwrap_err();
        assert!(error.to_string().contains("2x2") && error.to_string().contains("2x1"), "{error}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (file, class, more, say) in [
            ("{stem}.png", "cat", "rest = 'ground'", "`cat`"),
            ("{stem}.png", "car", "rest = 'sky'", "`sky`"),
            ("road.png", "car", "rest = 'ground'", "which image"),
            ("{stem}_*_*.png", "car", "rest = 'ground'", "more than one"),
            ("/{stem}.png", "car", "rest = 'ground'", "below the folder"),
        ] {
            let error = joiner(&[(file, class)], more).unwrap_err();
            assert!(error.to_string().contains(say) && error.hint().is_some(), "{error}");
        }
        assert!(joiner(&[], "rest = 'ground'").is_err());
    }
}
