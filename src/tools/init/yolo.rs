//! YOLO: `data.yaml` and one text file of polygons per image.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use crate::dataset::Split;
use crate::dataset::pairs::plain_stem;
use crate::dataset::walk::children;
use crate::error::{Error, ErrorKind, Result};
use crate::text::{Rest, shortened};
use crate::tools::check::OnProgress;
use crate::tools::init::names::DataYaml;
use crate::tools::init::notes::Notes;
use crate::tools::init::outlines::{Outlined, Outlines};
use crate::tools::init::pictures::Pictures;
use crate::tools::init::places::{Candidate, candidates, is_picture};
use crate::tools::init::plan::{DatasetPlan, Place};
use crate::tools::init::read;
use crate::tools::init::used_options::Flag;
use crate::tools::init::yolo_labels::{Beyond, Reader};

/// A plan for a folder with `data.yaml` (or another YAML that names classes and images) and polygons in `labels`.
pub(super) fn plan(place: &Place, _: OnProgress) -> Result<Option<DatasetPlan>> {
    let mut notes = Notes::default();
    let Some((file, yaml)) = description(place, &mut notes)? else { return Ok(None) };
    if yaml.masks_dir.is_some() {
        return Ok(None);
    }
    let named = yaml.names();
    let names: Vec<String> = named.iter().map(|(_, name)| name.clone()).collect();
    place.uses(Flag::Pixels);
    let mut reader = Reader {
        ids: named.into_iter().map(|(id, _)| id).collect(),
        yaml: &file,
        place,
        notes,
        boxes: 0,
        outlines: 0,
        beyond: Vec::new(),
        held: BTreeSet::new(),
    };
    let mut groups = Vec::new();
    let (mut images, mut any_read) = (0, false);
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
        let found = labeled(place, split, (root, names), &paths, &mut reader)?;
        if !found.has_labels && masks_instead(place) {
            return Ok(None);
        }
        if !found.has_labels {
            return Err(Error::new(format!("there are no labels for `{}`", found.root.display()))
                .with_hint("YOLO keeps them in a folder `labels` next to `images`"));
        }
        images += found.outlined.len();
        any_read |= found.read > 0;
        groups.push((Some(split), found.root, found.outlined));
    }
    if groups.is_empty() {
        return Err(Error::new(format!("`{}` names no images", file.display()))
            .with_hint("it needs `train: DIR` and `val: DIR`"));
    }
    if !any_read && masks_instead(place) {
        return Ok(None);
    }
    refuse_unusable(&reader, &names, images, &groups)?;
    let Reader { mut notes, ids, .. } = reader;
    if let Some(count) = yaml.nc.filter(|count| *count != ids.len()) {
        notes.add(
            "the number of classes is not that of their names; names count",
            format!("`{}` says `nc: {count}` and names {}", file.display(), ids.len()),
        );
    }
    let found = Outlines { kind: "YOLO polygons", names: &names, normalized: true, void_rest: false, groups, notes };
    place.outlines(found).map(Some)
}

/// The images of a split, with what their files of labels hold.
struct Labelled {
    root: PathBuf,
    outlined: Vec<Outlined>,
    /// Files of labels.
    read: usize,
    /// There is a folder for them.
    has_labels: bool,
}

/// Reads the labels of images `names` below `root`, which `paths` name in the description.
fn labeled(
    place: &Place,
    split: Split,
    (root, names): (PathBuf, Vec<String>),
    paths: &[&str],
    reader: &mut Reader,
) -> Result<Labelled> {
    let mut outlined = Vec::new();
    let mut read: HashSet<PathBuf> = HashSet::new();
    let mut has_labels = false;
    let mut searched: BTreeSet<PathBuf> = BTreeSet::new();
    let mut unread: Vec<PathBuf> = Vec::new();
    for name in names {
        let stem = plain_stem(&name).unwrap_or(&name).to_string();
        let source = labels_of(&root.join(&name));
        has_labels |= source.as_ref().is_some_and(|source| source.parent().is_some_and(Path::is_dir));
        searched.extend(source.as_ref().and_then(|source| Some(source.parent()?.to_path_buf())));
        let mut one = Outlined {
            name,
            source: source.clone().unwrap_or_else(|| root.join(format!("{stem}.txt"))),
            declared: None,
            areas: Vec::new(),
            fault: None,
        };
        // An image without a file of labels shows nothing but background.
        if let Some(source) = source.and_then(there) {
            read.insert(source.clone());
            one.source.clone_from(&source);
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
    for (_, path) in searched.iter().filter(|folder| folder.is_dir()).flat_map(|folder| place.files(folder)) {
        let listed = paths.iter().any(|path| path.ends_with(".txt"));
        let is_labels = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("txt"))
            && path.file_stem().is_some_and(|stem| stem != "classes" && stem != "labels");
        if is_labels && !listed && !read.contains(&path) {
            reader.notes.add("files of labels without an image were left out", format!("`{}`", path.display()));
            unread.push(path);
        }
    }
    // Labels without images beside images without labels: they only have other names.
    if let (true, [one, ..], Some(first)) = (2 * read.len() < outlined.len(), unread.as_slice(), outlined.first())
        && 2 * (unread.len() + read.len()) >= outlined.len()
    {
        return Err(Error::new(format!(
            "{} of {} images of [{split}] have no file of labels, and {} files of labels have no image: `{}` holds, for \
             instance, `{}`, and the labels `{}`",
            outlined.len() - read.len(),
            outlined.len(),
            unread.len(),
            root.display(),
            first.name,
            one.display()
        ))
        .with_hint("give each file of labels the name of its image, up to the ending"));
    }
    Ok(Labelled { root, outlined, read: read.len(), has_labels })
}

/// Fails where what was read cannot be masks: numbers of classes that count from 1, coordinates in pixels, boxes alone,
/// or nothing.
fn refuse_unusable(
    reader: &Reader,
    names: &[String],
    images: usize,
    groups: &[(Option<Split>, PathBuf, Vec<Outlined>)],
) -> Result<()> {
    let Reader { yaml: file, place, boxes, outlines, beyond, ids, held, .. } = reader;
    let from_0 = ids.iter().copied().eq(0..ids.len() as u16);
    if from_0 && !held.contains(&0) && held.last().is_some_and(|last| usize::from(*last) == ids.len()) {
        let from = |first: usize| {
            let named = names.iter().enumerate().map(|(at, name)| format!("{}: {name}", at + first));
            format!("{{{}}}", named.collect::<Vec<_>>().join(", "))
        };
        let count = if names.len() == 1 { "1 class".to_string() } else { format!("{} classes", names.len()) };
        return Err(Error::new(format!(
            "`{}` names {count}, counted from 0, and the labels hold the numbers 1 to {}, and no 0: they count from 1, or a \
             name is missing",
            file.display(),
            ids.len()
        ))
        .with_hint(format!(
            "if they count from 1, say so there: `names: {}`; or add the name that is missing",
            from(1)
        )));
    }
    let (boxes, outlines) = (*boxes, *outlines);
    if let Some(first) = beyond.first().filter(|_| beyond.len() * 2 > images || outlines == 0) {
        let (are, hint) = Beyond::meant(beyond, place, false);
        return Err(Error::new(format!(
            "{}; so it is in {} of {images} files: these are {are}, but YOLO coordinates are fractions of width and height",
            first.what,
            beyond.len()
        ))
        .with_hint(hint));
    }
    if outlines == 0 && boxes > 0 {
        return Err(Error::new(format!("the labels of `{}` hold {boxes} boxes and no polygons", file.display()))
            .with_hint("segmentation needs outlines: export the dataset as YOLO segmentation"));
    }
    if outlines == 0 && groups.iter().all(|(_, _, some)| some.iter().all(|one| one.fault.is_none())) {
        return Err(Error::new(format!("the labels of `{}` hold no polygon at all", file.display()))
            .with_hint("check that `labels` has a text file for each image, with its name"));
    }
    Ok(())
}

/// The YAML that names classes, if there is one; what others name otherwise is noted.
fn description(place: &Place, notes: &mut Notes) -> Result<Option<(PathBuf, DataYaml)>> {
    let mut files = children(place.dir);
    files.retain(|path| path.is_file() && path.extension().is_some_and(|e| e == "yaml" || e == "yml"));
    let mut found: Option<(PathBuf, DataYaml)> = None;
    for path in files {
        let called_data = path.file_stem().is_some_and(|stem| stem == "data" || stem == "dataset");
        let yaml = match DataYaml::read(&path, place) {
            Ok(yaml) if !yaml.names().is_empty() => yaml,
            Err(error) if called_data && found.is_none() => {
                let hint = error.hint().unwrap_or("it should name `train`, `val` and `names`").to_string();
                return Err(error.with_hint(hint));
            }
            _ => continue,
        };
        match &found {
            None => found = Some((path, yaml)),
            Some((read, first)) if first.names() != yaml.names() => notes.add(
                "files name the classes differently, and were not read",
                format!(
                    "`{}` ({}), next to `{}`, which was ({})",
                    path.display(),
                    listed(&yaml.names()),
                    read.display(),
                    listed(&first.names())
                ),
            ),
            Some((read, _)) => notes.add(
                "there are several descriptions of the same classes; the first by name was read",
                format!("`{}`, and not `{}`", read.display(), path.display()),
            ),
        }
    }
    let (classes, labels) = (place.dir.join("classes.txt"), place.dir.join("labels"));
    if let Some((read, yaml)) = found {
        // What labelling programs write beside the labels.
        for other in [classes, labels.join("classes.txt")] {
            let Ok(text) = read::text(&other, Some(place)) else { continue };
            let other_names = DataYaml::of_classes(&text).names();
            if other.is_file() && !other_names.is_empty() && other_names != yaml.names() {
                notes.add(
                    "files name the classes differently, and were not read",
                    format!(
                        "`{}` ({}), next to `{}`, which was ({})",
                        other.display(),
                        listed(&other_names),
                        read.display(),
                        listed(&yaml.names())
                    ),
                );
            }
        }
        return Ok(Some((read, yaml)));
    }
    let is_text = |(name, _): &(String, PathBuf)| name.to_lowercase().ends_with(".txt");
    if classes.is_file() && place.dir.join("images").is_dir() && labels.is_dir() {
        let files = place.files(&labels);
        if !files.is_empty() && files.iter().all(is_text) {
            let yaml = DataYaml::of_classes(&read::text(&classes, Some(place))?);
            return Ok(Some((classes, yaml)));
        }
    }
    Ok(None)
}

/// Whether the names in the YAML are those of masks that are pictures.
fn masks_instead(place: &Place) -> bool {
    let has_pictures =
        |one: &Candidate| one.images != one.masks && place.files(&one.masks).iter().any(|(name, _)| is_picture(name));
    candidates(place).is_ok_and(|found| found.iter().any(has_pictures))
}

/// Numbers and names in words, the first some.
fn listed(names: &[(u16, String)]) -> String {
    shortened(names.iter().map(|(id, name)| format!("{id} = {name}")), 6, Rest::Dots)
}

/// The file of labels as it is written, whatever letters its ending has.
fn there(source: PathBuf) -> Option<PathBuf> {
    [source.clone(), source.with_extension("TXT"), source.with_extension("Txt")].into_iter().find(|path| path.is_file())
}

/// The folder and names of a split's images: `paths` are folders, or text files with one image per line.
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

/// The folder or list that `path` means: below `path` of the YAML, or the YAML itself, also where an export begins it
/// with `../`; never outside of the set.
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
            "[{split}] of `{}` is `{path}`, which is outside of `{}`: `{}`",
            file.display(),
            place.dir.display(),
            outside.display()
        ))
        .with_hint("pass the folder that holds both, or write the folder of images below it there"),
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
