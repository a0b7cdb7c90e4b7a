//! The one dataset on disk: a folder of images, a folder of masks, and a map between values and classes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use crate::dataset::join::Joiner;
use crate::dataset::label_map::LabelMap;
use crate::dataset::pairs::{Pair, Pairs};
use crate::dataset::palette;
use crate::dataset::palette::PaletteCheck;
use crate::dataset::spec::{DatasetSpec, Encoding, PaletteUse, SplitSpec};
use crate::dataset::{Classes, Dataset, Fold, LabelCounts, Sample, Split};
use crate::error::{Error, Result};
use crate::image::{Labels, image_size, is_turned, read_image_in};
use crate::rng::{fnv1a, order_by_hash};
use crate::text::shell_word;

/// Masks whose counts are held before they are added up.
const SURVEYED_AT_ONCE: usize = 1024;

/// Image and mask files of one split.
#[derive(Clone, Debug)]
pub struct Folder {
    pairs: Vec<Pair>,
    classes: Classes,
    map: LabelMap,
    range: Option<[u16; 2]>,
    joiner: Option<Joiner>,
    encoding: Encoding,
    /// Of masks of numbers, unless palettes are not to be looked at.
    palettes: Option<Arc<PaletteCheck>>,
}

impl DatasetSpec {
    /// Finds the files of one split, below `root` if one is given.
    ///
    /// # Errors
    /// A split that is not described, has no images, lacks masks, or names one image twice.
    pub fn open(&self, split: Split, root: Option<&Path>) -> Result<Folder> {
        Folder::open(self, split, root)
    }
}

impl Folder {
    /// Finds the pairs of one split of `spec`, in the order of their names, or of the list where there is one.
    ///
    /// # Errors
    /// A split that is not described; a folder or list that cannot be read; no images, two of one name, or no mask.
    pub fn open(spec: &DatasetSpec, split: Split, root: Option<&Path>) -> Result<Self> {
        let (spec, base) = spec.below(root);
        let spec = spec.as_ref();
        let files = spec.split(split).ok_or_else(|| {
            let has = [Split::Train, Split::Val, Split::Test].into_iter().filter(|s| spec.split(*s).is_some());
            let has: Vec<_> = has.map(|s| format!("[{s}]")).collect();
            Error::new(format!("`{}` describes no split [{split}]", spec.file.display())).with_hint(match &spec.train {
                Some(train) if split == Split::Val => no_val(spec, &base, train),
                _ => format!("it has {}", if has.is_empty() { "none".to_string() } else { has.join(" and ") }),
            })
        })?;
        let joiner = spec.joiner()?;
        let pairs = Pairs::find_joined(&base, files, joiner.as_ref()).sound(spec, split, &base, files)?;
        let (encoding, range) = (spec.encoding, spec.range);
        let palettes = (encoding == Encoding::Index && spec.palettes == PaletteUse::Alike).then(Arc::default);
        Ok(Self { pairs, classes: spec.classes(), map: LabelMap::new(spec)?, range, joiner, encoding, palettes })
    }

    /// The pairs that are held out of a fold's training, or all the others; in the same order.
    ///
    /// Pairs are dealt out in the order of a hash of their names, so that parts differ by one image at most.
    ///
    /// # Errors
    /// Fewer pairs than parts.
    pub fn part(mut self, fold: Fold, held_out: bool) -> Result<Self> {
        let count = self.pairs.len();
        if count < fold.of {
            return Err(Error::new(format!("{count} training images cannot be cut into {} folds", fold.of))
                .with_hint("use fewer folds, at most one per image"));
        }
        let order = order_by_hash(&self.pairs, |pair| fnv1a(pair.stem.as_bytes()));
        let mut part = vec![0; count];
        order.iter().enumerate().for_each(|(rank, at)| part[*at] = rank % fold.of);
        let mut parts = part.into_iter();
        self.pairs.retain(|_| parts.next().is_some_and(|part| (part == fold.index) == held_out));
        Ok(self)
    }

    /// With other 16-bit values as black and white than the description says.
    #[must_use]
    pub(crate) fn with_range(mut self, range: Option<[u16; 2]>) -> Self {
        self.range = range.or(self.range);
        self
    }

    /// The labels of a pair whose image has `size` (width, height).
    fn labels(&self, pair: &Pair, size: (usize, usize)) -> Result<Labels> {
        let mask = match &self.joiner {
            // What a mask of one class shows is what is not black, whatever its numbers are.
            Some(joiner) => {
                joiner.join(&pair.parts, |part| palette::read(&part.path, Encoding::Rgb, joiner.takes_jpeg()))?.mask
            }
            None => {
                let mask = palette::read(&pair.mask, self.encoding, self.map.takes_jpeg())?;
                if let Some(palettes) = &self.palettes {
                    palettes.add(&pair.mask, &mask)?;
                }
                mask
            }
        };
        let (width, height) = mask.size();
        if (width, height) != size {
            return Err(sizes_differ(pair, size, (width, height)));
        }
        self.map.apply(mask).map_err(|e| Error::file("use", &pair.mask, e))
    }
}

impl Dataset for Folder {
    fn len(&self) -> usize {
        self.pairs.len()
    }

    fn get(&self, index: usize) -> Result<Sample> {
        let pair = &self.pairs[index];
        let image = read_image_in(&pair.image, self.range)?;
        let labels = self.labels(pair, (image.width, image.height))?;
        Ok(Sample { image, labels })
    }

    fn survey(&self) -> Result<Option<LabelCounts>> {
        let count = |pair: &Pair| Ok(LabelCounts::count(&self.labels(pair, image_size(&pair.image)?)?));
        let mut survey = LabelCounts::default();
        for (part, pairs) in self.pairs.chunks(SURVEYED_AT_ONCE).enumerate() {
            // In order, so that of several faults the first is reported.
            let counts: Vec<Result<[u64; 256]>> = pairs.par_iter().map(count).collect();
            for (index, pixels) in counts.into_iter().enumerate() {
                survey.add(part * SURVEYED_AT_ONCE + index, &pixels?);
            }
        }
        Ok(Some(survey))
    }

    fn name(&self, index: usize) -> String {
        self.pairs[index].stem.clone()
    }

    /// Image and mask, or all masks that become one.
    fn files(&self, index: usize) -> Vec<PathBuf> {
        let pair = &self.pairs[index];
        let masks = pair.parts.iter().map(|part| &part.path);
        let one = pair.parts.is_empty().then_some(&pair.mask);
        std::iter::once(&pair.image).chain(one).chain(masks).cloned().collect()
    }

    fn classes(&self) -> &Classes {
        &self.classes
    }
}

/// What to do about a description that has no validation split.
fn no_val(spec: &DatasetSpec, base: &Path, train: &SplitSpec) -> String {
    let pairs = spec.joiner().map_or(0, |joiner| Pairs::find_joined(base, train, joiner.as_ref()).pairs.len());
    if pairs > 1 {
        return format!("hold out a part of [train]: --set 'data.fold={{index=0,of={}}}'", pairs.min(5));
    }
    one_pair(train, &spec.file)
}

/// What to do about a set of one pair of image and mask, which `file` describes.
pub(crate) fn one_pair(train: &SplitSpec, file: &Path) -> String {
    let lines = toml::to_string(train).unwrap_or_default();
    let lines: Vec<String> =
        ["", "[val]"].into_iter().chain(lines.lines()).map(|line| shell_word(Path::new(line))).collect();
    format!(
        "add pairs of image and mask; or, to see whether anything can be learned at all, score the training image itself: \
         printf '%s\\n' {} >> {}",
        lines.join(" "),
        shell_word(file)
    )
}

fn sizes_differ(pair: &Pair, image: (usize, usize), mask: (usize, usize)) -> Error {
    let error = Error::new(format!(
        "`{}` has {}x{} pixels and its mask `{}` {}x{}",
        pair.image.display(),
        image.0,
        image.1,
        pair.mask.display(),
        mask.0,
        mask.1
    ));
    if image == (mask.1, mask.0) {
        // Only where EXIF turns this image would it fit the mask without that.
        return error.with_hint(match is_turned(&pair.image) {
            true => {
                "the rotation in the image's EXIF is applied when it is read, and the mask was drawn without it: \
                 rotate the mask as EXIF rotates the image, or remove the orientation from the EXIF of this image only"
            }
            false => {
                "width and height are swapped, and no EXIF rotates the image: rotate the mask by 90 degrees, or \
                      transpose it"
            }
        });
    }
    error.with_hint("a mask has one value per pixel; scale it to the image's size without smoothing (nearest)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Image, write_index_png, write_png};

    fn open(name: &str, split: Split, root: Option<&Path>) -> Result<Folder> {
        DatasetSpec::find(name)?.open(split, root)
    }

    /// A set on disk with the given image names (and masks for all), 3x2 pixels, labels 0 and 1.
    fn set(images: &[&str], toml: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: String| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        for name in images {
            let image = Image { width: 3, height: 2, pixels: vec![50; 18] };
            write_png(path(format!("i/{name}")), &image).unwrap();
            let stem = name.rsplit_once('.').unwrap().0;
            let labels = Labels { width: 3, height: 2, ids: vec![0, 1, 0, 1, 1, 1] };
            write_index_png(path(format!("m/{stem}.png")), &labels, &[]).unwrap();
        }
        std::fs::create_dir_all(folder.path().join("i")).unwrap();
        let spec = path("set.toml".to_string());
        let text = format!("name = 's'\nclasses = ['a', 'b']\n[train]\nimages = 'i'\nmasks = 'm'\n{toml}");
        std::fs::write(&spec, text).unwrap();
        (folder, spec)
    }

    fn failure(spec: &Path) -> (String, String) {
        let opened = open(spec.to_str().unwrap(), Split::Train, None);
        let error = opened.and_then(|set| set.get(0).map(|_| ())).unwrap_err();
        (error.to_string(), error.hint().unwrap_or_default().to_string())
    }

    #[test]
    fn folds_hold_out_every_image_once() {
        let names: Vec<String> = (0..11).map(|i| format!("{i}.png")).collect();
        let (_folder, spec) = set(&names.iter().map(String::as_str).collect::<Vec<_>>(), "");
        let open = || open(spec.to_str().unwrap(), Split::Train, None).unwrap();
        let names = |set: &Folder| (0..set.len()).map(|at| set.name(at)).collect::<Vec<_>>();
        let all = names(&open());
        let mut held_out = Vec::new();
        for index in 0..4 {
            let fold = Fold { index, of: 4 };
            let (out, rest) = (names(&open().part(fold, true).unwrap()), names(&open().part(fold, false).unwrap()));
            assert!((2..=3).contains(&out.len()) && out.len() + rest.len() == 11);
            assert!(out.iter().all(|name| !rest.contains(name)));
            assert!(rest.is_sorted_by_key(|name| all.iter().position(|other| other == name)), "order: {rest:?}");
            held_out.extend(out);
        }
        held_out.sort();
        let mut sorted = all.clone();
        sorted.sort();
        assert_eq!(held_out, sorted);
        let error = open().part(Fold { index: 0, of: 12 }, true).unwrap_err();
        assert!(error.to_string().contains("11 training images"), "{error}");
    }

    #[test]
    fn pairs_are_found_below_folders_and_in_order() {
        let (_folder, spec) = set(&["b.png", "town/a.PNG", "a.jpg", ".hidden.png", "note.txt"], "");
        let set = open(spec.to_str().unwrap(), Split::Train, None).unwrap();
        assert_eq!((0..set.len()).map(|i| set.name(i)).collect::<Vec<_>>(), ["a", "b", "town/a"]);
        assert_eq!(set.get(2).unwrap().labels.ids, [0, 1, 0, 1, 1, 1]);
        let survey = set.survey().unwrap().unwrap();
        assert_eq!(survey.pixels[..3], [6, 12, 0]);
        assert_eq!(survey.holders[..3], [vec![0, 1, 2], vec![0, 1, 2], vec![]]);
        let elsewhere = open(spec.to_str().unwrap(), Split::Train, Some(Path::new("/nowhere"))).err().unwrap();
        assert!(elsewhere.to_string().contains("/nowhere/i"), "{elsewhere}");
    }

    #[test]
    fn a_list_and_endings_choose() {
        let (folder, spec) =
            set(&["b_x.png", "a_x.png", "c_x.png"], "image_suffix = '_x.png'\nmask_suffix = '_x.png'\nlist = 'l'");
        std::fs::write(folder.path().join("l"), "c\r\n\na\n").unwrap();
        let set = open(spec.to_str().unwrap(), Split::Train, None).unwrap();
        assert_eq!((0..set.len()).map(|i| set.name(i)).collect::<Vec<_>>(), ["c", "a"]);
        std::fs::write(folder.path().join("l"), "c\nd\n").unwrap();
        assert!(failure(&spec).0.contains("line 2 of") && failure(&spec).0.contains("`d`"));
        std::fs::write(folder.path().join("l"), "c\nc\n").unwrap();
        assert!(failure(&spec).0.contains("as line 1 does"));
    }

    #[test]
    fn faulty_sets_are_explained() {
        let (folder, spec) = set(&["a.png", "b.png"], "");
        assert!(open(spec.to_str().unwrap(), Split::Val, None).err().unwrap().hint().unwrap().contains("[train]"));
        let mask = folder.path().join("m/a.png");
        write_index_png(&mask, &Labels { width: 2, height: 3, ids: vec![0; 6] }, &[]).unwrap();
        assert!(
            failure(&spec).0.contains("3x2")
                && failure(&spec).0.contains("2x3")
                && failure(&spec).1.contains("no EXIF")
        );
        write_index_png(&mask, &Labels { width: 2, height: 2, ids: vec![0; 4] }, &[]).unwrap();
        assert!(failure(&spec).1.contains("nearest"));
        write_index_png(&mask, &Labels { width: 3, height: 2, ids: vec![0, 255, 0, 0, 0, 255] }, &[]).unwrap();
        let (message, hint) = failure(&spec);
        assert!(
            message.contains("m/a.png") && message.contains("255 (2 pixels") && hint.contains("binary"),
            "{message}"
        );
        write_png(&mask, &Image { width: 3, height: 2, pixels: vec![0; 18] }).unwrap();
        assert!(failure(&spec).0.contains("RGB"));
        let surveyed = open(spec.to_str().unwrap(), Split::Train, None).unwrap().survey().unwrap_err();
        assert_eq!(surveyed.to_string(), failure(&spec).0);
        std::fs::remove_file(&mask).unwrap();
        let (message, hint) = failure(&spec);
        assert!(message.contains("i/a.png") && message.contains("m/a.png` is not there"), "{message}");
        assert!(hint.contains("list"));
        std::fs::rename(folder.path().join("m/b.png"), folder.path().join("m/b_gt.png")).unwrap();
        assert!(failure(&spec).0.contains("2 of 2") && failure(&spec).1.contains("b_gt.png"));
    }

    #[test]
    fn empty_and_ambiguous_folders_are_refused() {
        let (_folder, spec) = set(&[], "");
        assert!(failure(&spec).0.contains("empty") && failure(&spec).1.contains(".jpeg"));
        let (_folder, spec) = set(&["a.png", "a.jpg"], "");
        let message = failure(&spec).0;
        assert!(message.contains("a.jpg` and `") && message.contains("a.png` would share"), "{message}");
    }
}
