//! YOLO: `data.yaml` and one text file of polygons an image.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use crate::dataset::Split;
use crate::dataset::pairs::plain_stem;
use crate::dataset::walk::children;
use crate::error::{Error, ErrorKind, Result};
use crate::image::image_size;
use crate::image::raster::Area;
use crate::tools::check::Progress;
use crate::tools::init::names::DataYaml;
use crate::tools::init::notes::Notes;
use crate::tools::init::outlines::{Outlined, Outlines, label};
use crate::tools::init::pictures::Pictures;
use crate::tools::init::plan::{Place, Plan};
use crate::tools::init::read;
use crate::tools::init::used::Flag;

/// Shares of width and height may be beyond the border by so much: the outline is cut there.
const SLACK: f64 = 0.1;

/// A plan for a folder with `data.yaml` (or another YAML that names classes and images) and polygons in `labels`.
pub(super) fn plan(place: &Place, _: Progress) -> Result<Option<Plan>> {
    let Some((file, yaml)) = description(place)? else { return Ok(None) };
    if yaml.masks_dir.is_some() {
        return Ok(None);
    }
    let named = yaml.names();
    let names: Vec<String> = named.iter().map(|(_, name)| name.clone()).collect();
    place.uses(Flag::Pixels);
    let mut reader = Reader {
        ids: named.into_iter().map(|(id, _)| id).collect(),
        yaml: &file,
        pixels: place.options.pixels,
        by_pixels: place.again(true, |options| options.pixels = true),
        notes: Notes::default(),
        boxes: 0,
        outlines: 0,
        in_pixels: Vec::new(),
    };
    let mut groups = Vec::new();
    let mut images = 0;
    for (split, paths) in [(Split::Train, &yaml.train), (Split::Val, &yaml.val), (Split::Test, &yaml.test)] {
        let Some(paths) = paths else { continue };
        let paths: Vec<&str> = paths.all().filter(|path| !path.trim().is_empty()).collect();
        if paths.is_empty() {
            continue;
        }
        let found = pictures(place, &file, &yaml, &paths, split, &mut reader.notes);
        let (root, names) = match found {
            // Exports name three splits, whichever they hold; without the others, the set is as good.
            Err(error) if split == Split::Test && error.kind() == ErrorKind::NotFound => {
                reader.notes.add("splits whose images are not there were left out", error.to_string());
                continue;
            }
            found => found?,
        };
        let mut outlined = Vec::new();
        let mut read: HashSet<PathBuf> = HashSet::new();
        let mut has_labels = false;
        for name in names {
            let stem = plain_stem(&name).unwrap_or(&name).to_string();
            let source = labels_of(&root.join(&name));
            has_labels |= source.as_ref().is_some_and(|source| source.parent().is_some_and(Path::is_dir));
            let mut one = Outlined {
                name,
                source: source.clone().unwrap_or_else(|| root.join(format!("{stem}.txt"))),
                declared: None,
                areas: Vec::new(),
                fault: None,
            };
            // An image without a file of labels shows nothing but background.
            if let Some(source) = source.filter(|source| source.is_file()) {
                read.insert(source.clone());
                match reader.read(&source, &root.join(&one.name)) {
                    Ok(areas) => one.areas = areas,
                    Err(fault) => one.fault = Some(fault),
                }
            } else {
                reader.notes.add(
                    "images without a file of labels are all background",
                    format!("`{}`", root.join(&one.name).display()),
                );
            }
            outlined.push(one);
        }
        let folders: BTreeSet<PathBuf> = read.iter().filter_map(|path| Some(path.parent()?.to_path_buf())).collect();
        for (_, path) in folders.iter().flat_map(|folder| place.files(folder)) {
            let listed = paths.iter().any(|path| path.ends_with(".txt"));
            let is_labels = path.extension().is_some_and(|ending| ending == "txt")
                && path.file_stem().is_some_and(|stem| stem != "classes" && stem != "labels");
            if is_labels && !listed && !read.contains(&path) {
                reader.notes.add("files of labels without an image were left out", format!("`{}`", path.display()));
            }
        }
        if !has_labels {
            return Err(Error::new(format!("there are no labels for `{}`", root.display()))
                .with_hint("YOLO keeps them in a folder `labels` next to `images`"));
        }
        images += outlined.len();
        groups.push((Some(split), root, outlined));
    }
    if groups.is_empty() {
        return Err(Error::new(format!("`{}` names no images", file.display()))
            .with_hint("it needs `train: DIR` and `val: DIR`"));
    }
    let Reader { mut notes, boxes, outlines, in_pixels, ids, .. } = reader;
    if let Some(count) = yaml.nc.filter(|count| *count != ids.len()) {
        notes.add(
            "the number of classes is not that of their names; names count",
            format!("`{}` says `nc: {count}` and names {}", file.display(), ids.len()),
        );
    }
    if let Some(first) = in_pixels.first().filter(|_| in_pixels.len() * 2 > images || outlines == 0) {
        return Err(Error::new(format!(
            "{first}; so it is in {} of {images} files: these are pixels, but YOLO coordinates are fractions of width \
             and height",
            in_pixels.len()
        ))
        .with_hint(format!(
            "to have them divided by the size of each image: {}",
            place.again(false, |options| options.pixels = true)
        )));
    }
    if outlines == 0 && boxes > 0 {
        return Err(Error::new(format!("the labels of `{}` hold {boxes} boxes and no polygons", file.display()))
            .with_hint("segmentation needs outlines: export the dataset as YOLO segmentation"));
    }
    if outlines == 0 && groups.iter().all(|(_, _, some)| some.iter().all(|one| one.fault.is_none())) {
        return Err(Error::new(format!("the labels of `{}` hold no polygon at all", file.display()))
            .with_hint("check that `labels` has a text file for each image, with its name"));
    }
    let found = Outlines { kind: "YOLO polygons", names: &names, normalised: true, void_rest: false, groups, notes };
    place.outlines(found).map(Some)
}

/// The YAML that names classes, if there is one.
fn description(place: &Place) -> Result<Option<(PathBuf, DataYaml)>> {
    let mut files = children(place.dir);
    files.retain(|path| path.is_file() && path.extension().is_some_and(|e| e == "yaml" || e == "yml"));
    for path in files {
        let called_data = path.file_stem().is_some_and(|stem| stem == "data" || stem == "dataset");
        match DataYaml::read(&path, place) {
            Ok(yaml) if !yaml.names().is_empty() => return Ok(Some((path, yaml))),
            Err(error) if called_data => {
                let hint = error.hint().unwrap_or("it should name `train`, `val` and `names`").to_string();
                return Err(error.with_hint(hint));
            }
            _ => {}
        }
    }
    let (classes, labels) = (place.dir.join("classes.txt"), place.dir.join("labels"));
    let is_text = |(name, _): &(String, PathBuf)| name.ends_with(".txt");
    if classes.is_file() && place.dir.join("images").is_dir() && labels.is_dir() {
        let files = place.files(&labels);
        if !files.is_empty() && files.iter().all(is_text) {
            let yaml = DataYaml::of_classes(&read::text(&classes, Some(place))?);
            return Ok(Some((classes, yaml)));
        }
    }
    Ok(None)
}

/// The folder and names of a split's images: `paths` are folders, or text files with an image a line.
fn pictures(
    place: &Place,
    file: &Path,
    yaml: &DataYaml,
    paths: &[&str],
    split: Split,
    notes: &mut Notes,
) -> Result<(PathBuf, Vec<String>)> {
    let all = Pictures::below(place, place.dir);
    let mut roots: Vec<String> = Vec::new();
    let mut names: BTreeSet<String> = BTreeSet::new();
    for path in paths {
        let found = located(place, file, yaml, path, split)?;
        let real = place.dir.canonicalize().unwrap_or_else(|_| place.dir.to_path_buf());
        let below = found.strip_prefix(&real).unwrap_or(Path::new("")).to_string_lossy().replace('\\', "/");
        if found.is_dir() {
            // Where the folder of a split holds `images` and `labels`, images alone are meant.
            let inner = found.join("images").is_dir() && found.join("labels").is_dir();
            let folder = if inner { format!("{below}/images") } else { below };
            let folder = folder.trim_start_matches('/').to_string();
            let within = |name: &&String| folder.is_empty() || name.starts_with(&format!("{folder}/"));
            names.extend(all.names().iter().filter(within).cloned());
            roots.push(folder);
            continue;
        }
        // Lines count from the list's folder, or from the description's.
        let near = below.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (number, line) in read::text(&found, Some(place))?.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let image = all.find(line, near).or_else(|_| all.find(line, "")).map_err(|error| {
                let hint = error.hint().unwrap_or_default().to_string();
                Error::new(format!("line {} of `{}`", number + 1, found.display())).with_source(error).with_hint(hint)
            })?;
            if let super::pictures::Found::Called(image) = image {
                notes.add("images were found by their file names alone", format!("`{line}` is `{image}`"));
            }
            names.insert(image.name().to_string());
        }
    }
    if names.is_empty() {
        return Err(Error::new(format!(
            "[{split}] of `{}` is `{}`, which holds no images",
            file.display(),
            paths.join("`, `")
        ))
        .with_hint("write the folder of images there, or leave the line out"));
    }
    // The folder that all lie in.
    let root = match roots.as_slice() {
        [only] if paths.len() == 1 => only.clone(),
        _ => {
            let (first, last) = (names.first(), names.last());
            let (a, b) = (first.map_or("", String::as_str), last.map_or("", String::as_str));
            let folders = |name: &str| name.split('/').map(str::to_string).collect::<Vec<_>>();
            let (a, b) = (folders(a), folders(b));
            let shared = a.iter().zip(&b).take_while(|(a, b)| a == b).count().min(a.len() - 1).min(b.len() - 1);
            a[..shared].join("/")
        }
    };
    let names = names.into_iter().map(|name| name[root.len()..].trim_start_matches('/').to_string()).collect();
    Ok((if root.is_empty() { place.dir.to_path_buf() } else { place.dir.join(root) }, names))
}

/// The folder or list that `path` means: below `path` of the YAML, or the YAML itself, also where an export begins it with
/// `../`; never outside of the set.
fn located(place: &Place, file: &Path, yaml: &DataYaml, path: &str, split: Split) -> Result<PathBuf> {
    let home = file.parent().unwrap_or(Path::new(""));
    let path = path.trim();
    let plain = path.replace('\\', "/");
    let bare = plain.trim_start_matches("../").trim_start_matches("./");
    let mut tried = Vec::new();
    if let Some(root) = &yaml.path {
        tried.push(home.join(root).join(path));
    }
    tried.extend([home.join(path), home.join(&plain), home.join(bare)]);
    // Absolute paths of another machine end as they would here.
    let parts: Vec<&str> = plain.split('/').filter(|part| !part.is_empty() && !part.ends_with(':')).collect();
    if plain.starts_with('/') || plain.get(1..2) == Some(":") {
        tried.extend((0..parts.len()).map(|from| home.join(parts[from..].join("/"))));
    }
    let real = place.dir.canonicalize().unwrap_or_else(|_| place.dir.to_path_buf());
    let found: Vec<PathBuf> = tried
        .iter()
        .filter_map(|path| path.canonicalize().ok())
        .filter(|path| path.is_dir() || path.is_file())
        .collect();
    if let Some(found) = found.iter().find(|path| path.starts_with(&real)) {
        return Ok(found.clone());
    }
    let shown: Vec<String> = tried.iter().take(4).map(|path| format!("`{}`", path.display())).collect();
    Err(match found.first() {
        Some(outside) => Error::new(format!(
            "[{split}] of `{}` is `{path}`, which lies outside of `{}`: `{}`",
            file.display(),
            place.dir.display(),
            outside.display()
        ))
        .with_hint("name the folder that holds both, or write the folder of images below it there"),
        None => Error::new(format!("[{split}] of `{}` is `{path}`, which is not a folder", file.display()))
            .with_hint(format!("tried {}; write the folder of images there", shown.join(", ")))
            .with_kind(ErrorKind::NotFound),
    })
}

/// The file of labels: the last `images` of the path replaced by `labels`; or beside the image.
fn labels_of(image: &Path) -> Option<PathBuf> {
    let parts: Vec<_> = image.components().collect();
    let at = parts[..parts.len() - 1].iter().rposition(|part| part.as_os_str() == "images");
    let labels: PathBuf = match at {
        Some(at) => parts
            .iter()
            .enumerate()
            .map(|(index, part)| if index == at { std::ffi::OsStr::new("labels") } else { part.as_os_str() })
            .collect(),
        None => image.to_path_buf(),
    };
    Some(labels.with_extension("txt"))
}

/// Reads files of labels.
struct Reader<'a> {
    ids: Vec<u16>,
    yaml: &'a Path,
    pixels: bool,
    /// The command that takes coordinates for pixels.
    by_pixels: String,
    notes: Notes,
    boxes: usize,
    outlines: usize,
    /// Of files with coordinates beyond 1: what was found.
    in_pixels: Vec<String>,
}

impl Reader<'_> {
    /// The polygons of a file.
    ///
    /// # Errors
    /// A line that is neither polygon nor box, of no class, or in pixels: the image's labels would be wrong.
    fn read(&mut self, path: &Path, image: &Path) -> Result<Vec<(Area, u8, String)>> {
        let text = read::text(path, None)?;
        let mut rings: Vec<(Vec<[f64; 2]>, u8, String)> = Vec::new();
        let mut beyond = None;
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let which = format!("line {}", number + 1);
            let place = format!("{which} of `{}`", path.display());
            let wrong = |what: String| Error::new(format!("{place} {what}"));
            let mut words = line.split([' ', '\t', ',']).filter(|word| !word.is_empty());
            let id = words.next().unwrap_or_default();
            // Some exporters write whole numbers as 3.0.
            let class = id.parse::<f64>().ok().filter(|id| id.fract() == 0.0 && (0.0..65536.0).contains(id));
            let class = class.and_then(|class| self.ids.iter().position(|id| *id == class as u16));
            let Some(class) = class else {
                return Err(wrong(format!("has the class `{id}`")).with_hint(format!(
                    "`{}` names {}, counted from 0: name all of them there",
                    self.yaml.display(),
                    match self.ids.len() {
                        1 => "1 class".to_string(),
                        count => format!("{count} classes"),
                    }
                )));
            };
            let numbers: Option<Vec<f64>> =
                words.map(|word| word.parse().ok().filter(|n: &f64| n.is_finite())).collect();
            let Some(mut numbers) = numbers else {
                return Err(wrong("holds something other than numbers".to_string()).with_hint(SHAPE));
            };
            match numbers.len() {
                // A box, or one with the confidence of a prediction.
                4 | 5 => {
                    self.boxes += 1;
                    self.notes.add("boxes without an outline were left out", &place);
                    continue;
                }
                2 => {
                    self.notes.add("polygons of fewer than 3 corners were left out", &place);
                    continue;
                }
                n if n >= 7 && n % 2 == 1 && (0.0..=1.0).contains(&numbers[n - 1]) => {
                    numbers.pop();
                    self.notes.add("polygons have an odd number of values; the last is taken for a confidence", &place);
                }
                n if n < 6 || n % 2 == 1 => {
                    return Err(wrong("is neither a polygon nor a box".to_string()).with_hint(SHAPE));
                }
                _ => {}
            }
            if let Some(far) = numbers.iter().find(|n| !(-SLACK..=1.0 + SLACK).contains(*n)) {
                beyond.get_or_insert(format!("{place} has the coordinate {far}"));
            }
            rings.push((numbers.as_chunks::<2>().0.to_vec(), label(class), which));
        }
        if let Some(what) = beyond {
            if !self.pixels {
                self.in_pixels.push(what.clone());
                return Err(Error::new(format!("{what}, which is no share of width or height"))
                    .with_hint(format!("if coordinates are pixels: {}; else export the file again", self.by_pixels)));
            }
            let (width, height) = image_size(image)?;
            // In pixels, outlines end at the border, and all of them cannot lie far beyond.
            let far = |[x, y]: &[f64; 2]| {
                *x < -SLACK * width as f64
                    || *y < -SLACK * height as f64
                    || *x > (1.0 + SLACK) * width as f64
                    || *y > (1.0 + SLACK) * height as f64
            };
            if rings.iter().any(|(ring, ..)| ring.iter().any(far)) {
                return Err(Error::new(format!("{what}, and the image has {width}x{height} pixels"))
                    .with_hint("the labels belong to another version of the image; export both again"));
            }
            for point in rings.iter_mut().flat_map(|(ring, ..)| ring) {
                *point = [point[0] / width as f64, point[1] / height as f64];
            }
            self.notes.add("files hold pixels, which were divided by the image size", format!("`{}`", path.display()));
        }
        self.outlines += rings.len();
        Ok(rings.into_iter().map(|(ring, class, which)| (Area::Polygons(vec![ring]), class, which)).collect())
    }
}

const SHAPE: &str = "a polygon is a class, then x and y of each corner as fractions of width and height";
