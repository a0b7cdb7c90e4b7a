//! Files that `structtoken predict` writes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::console::{emit, print};
use crate::cli::predict::arguments::{Arguments, OutputFormat};
use crate::error::{Error, ErrorKind, Result};
use crate::files::Scratch;
use crate::image::Labels;
use crate::image::outlines::{CocoForm, CocoWriter, OutlineOptions, Statistics};
use crate::predict::earlier_predictions::{copy_recorded, is_prediction, write_recorded};
use crate::rng::fnv1a;

/// How outlines are to be drawn.
///
/// # Errors
/// Values that are not possible, or that none of what is written heeds.
pub(crate) fn options(arguments: &Arguments) -> Result<OutlineOptions> {
    let options = OutlineOptions { tolerance: arguments.tolerance, min_area: arguments.min_area };
    options.check().map_err(|error| error.with_kind(ErrorKind::Usage))?;
    let default = OutlineOptions::default();
    let has = |heeding: &[OutputFormat]| arguments.formats.iter().any(|format| heeding.contains(format));
    let (polygons, masks) =
        ([OutputFormat::Geojson, OutputFormat::Coco], [OutputFormat::CocoRle, OutputFormat::LabelStudio]);
    if options.tolerance != default.tolerance && !has(&polygons) {
        return Err(Error::usage("`--tolerance` changes polygons, and none are written")
            .with_hint("add --format geojson or --format coco, or leave --tolerance out"));
    }
    if options.min_area != default.min_area && !has(&polygons) && !has(&masks) {
        return Err(Error::usage("`--min-area` changes annotations, and none are written")
            .with_hint("add --format geojson, coco, coco-rle or label-studio, or leave --min-area out"));
    }
    Ok(options)
}

/// The options that change the bytes of what is written, besides the model and the kinds of outputs.
pub(crate) fn settings(arguments: &Arguments) -> Vec<String> {
    let has = |heeding: &[OutputFormat]| arguments.formats.iter().any(|format| heeding.contains(format));
    let mut settings = arguments.changes.clone();
    if has(&[OutputFormat::Geojson]) {
        settings.push(format!("tolerance={}", arguments.tolerance));
    }
    if has(&[OutputFormat::Geojson, OutputFormat::LabelStudio]) {
        settings.push(format!("min_area={}", arguments.min_area));
    }
    // Tasks name the model as the command does.
    if has(&[OutputFormat::LabelStudio]) {
        settings.push(format!("model={}", arguments.model.display()));
    }
    settings
}

/// A file of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Png,
    Overlay,
    GeoJson,
    LabelStudio,
    Stats,
    Npy,
    Probabilities,
}

impl Output {
    const ALL: [Self; 7] =
        [Self::Png, Self::Overlay, Self::GeoJson, Self::LabelStudio, Self::Stats, Self::Npy, Self::Probabilities];

    fn is_asked(self, arguments: &Arguments) -> bool {
        let has = |format| arguments.formats.contains(&format);
        match self {
            Self::Png => has(OutputFormat::Png),
            Self::Overlay => has(OutputFormat::Overlay) || arguments.overlay,
            Self::GeoJson => has(OutputFormat::Geojson),
            Self::LabelStudio => has(OutputFormat::LabelStudio),
            Self::Stats => has(OutputFormat::Stats),
            Self::Npy => has(OutputFormat::Npy),
            Self::Probabilities => arguments.probabilities,
        }
    }

    fn ending(self) -> &'static str {
        match self {
            Self::Png => ".png",
            Self::Overlay => "_overlay.png",
            Self::GeoJson => ".geojson",
            Self::LabelStudio => "_label_studio.json",
            Self::Stats => "_stats.json",
            Self::Npy => ".npy",
            Self::Probabilities => "_probabilities.npy",
        }
    }

    /// What it is called in the JSON that is printed.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Png => "mask",
            Self::Overlay => "overlay",
            Self::GeoJson => "geojson",
            Self::LabelStudio => "label_studio",
            Self::Stats => "stats",
            Self::Npy => "npy",
            Self::Probabilities => "probabilities",
        }
    }
}

/// The files that are written for an image.
pub(crate) struct Outputs(pub(crate) Vec<(Output, PathBuf)>);

impl Outputs {
    pub(crate) fn of(arguments: &Arguments, name: &Path) -> Self {
        let asked = Output::ALL.into_iter().filter(|output| output.is_asked(arguments));
        Self(asked.map(|output| (output, arguments.out.join(ended(name, output.ending())))).collect())
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.0.iter().map(|(_, path)| path)
    }
}

/// The name with an ending. One that becomes too long for a file is cut, and told from others by a number; and so is
/// one that looks as if it had been.
fn ended(name: &Path, ending: &str) -> PathBuf {
    const LONGEST: usize = 255;
    const DIGITS: usize = 16;
    // A cut that keeps letters whole may end up to three bytes before the longest.
    const CUT: usize = LONGEST - 3;
    let last = name.file_name().unwrap_or_default();
    let mut full = last.to_os_string();
    let text = last.to_string_lossy();
    let numbered = text
        .rsplit_once('~')
        .is_some_and(|(_, number)| number.len() == DIGITS && number.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if last.len() + ending.len() > LONGEST || (numbered && last.len() + ending.len() >= CUT) {
        let number = format!("~{:016x}", fnv1a(last.as_encoded_bytes()));
        let kept = text.floor_char_boundary(LONGEST - ending.len() - number.len());
        full = format!("{}{number}", &text[..kept]).into();
    }
    full.push(ending);
    name.with_file_name(full)
}

/// What an image is called in files: its path below the folder that was named, with slashes.
pub(crate) fn file_name(path: &Path, name: &Path) -> String {
    let name = name.with_file_name(path.file_name().unwrap_or_default());
    name.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// Statistics, with the image that they are of.
#[derive(Serialize)]
pub(crate) struct Described<'a> {
    pub(crate) image: &'a str,
    #[serde(flatten)]
    pub(crate) statistics: Statistics,
}

/// Writes JSON that a prediction is known by.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut bytes = serde_json::to_vec(value).map_err(|error| Error::file("write", path, error.to_string()))?;
    bytes.push(b'\n');
    write_recorded(path, &bytes)
}

/// The files that hold all images. Each grows in a hidden place until the last image is in it.
pub(crate) struct Collections(Vec<Collection>);

struct Collection {
    writer: CocoWriter<BufWriter<File>>,
    path: PathBuf,
    scratch: Scratch,
}

/// In a folder of its own.
const UNFINISHED: &str = "unfinished.json";

impl Collections {
    /// Their names and forms, of those that are asked.
    fn forms(arguments: &Arguments) -> impl Iterator<Item = (PathBuf, CocoForm)> {
        let all = [
            (OutputFormat::Coco, "coco.json", CocoForm::Polygons),
            (OutputFormat::CocoRle, "coco_rle.json", CocoForm::Rle),
        ];
        let asked = all.into_iter().filter(|(format, ..)| arguments.formats.contains(format));
        asked.map(|(_, name, form)| (arguments.out.join(name), form))
    }

    /// Where they are written.
    pub(crate) fn paths(arguments: &Arguments) -> Vec<PathBuf> {
        Self::forms(arguments).map(|(path, _)| path).collect()
    }

    /// Whether the images can be told apart by their names.
    ///
    /// # Errors
    /// Two of one name.
    pub(crate) fn check(images: &[(PathBuf, PathBuf)]) -> Result<()> {
        let mut names = BTreeMap::new();
        for (path, name) in images {
            let name = file_name(path, name);
            if let Some(other) = names.insert(name.clone(), path) {
                return Err(Error::new(format!(
                    "`{}` and `{}` would both be called `{name}` in the COCO file",
                    other.display(),
                    path.display()
                ))
                .with_hint("pass a folder that holds both, or predict them in two calls with a different --out"));
            }
        }
        Ok(())
    }

    /// `options` apply to the labels that are added.
    pub(crate) fn begin(arguments: &Arguments, options: OutlineOptions, names: &[String]) -> Result<Self> {
        let begin = |(path, form): (PathBuf, CocoForm)| {
            let scratch = Scratch::new(&arguments.out, "coco")?;
            let place = scratch.path().join(UNFINISHED);
            let file = File::create(&place).map_err(|error| Error::file("write", &place, error))?;
            let writer = CocoWriter::new(BufWriter::with_capacity(1 << 16, file), names, form, options)
                .map_err(|error| Error::file("write", &place, error))?;
            Ok(Collection { writer, path, scratch })
        };
        Self::forms(arguments).map(begin).collect::<Result<_>>().map(Self)
    }

    pub(crate) fn add(&mut self, name: &str, labels: &Labels) -> Result<()> {
        for Collection { writer, path, .. } in &mut self.0 {
            writer.add(name, labels).map_err(|error| Error::file("write", path, error))?;
        }
        Ok(())
    }

    /// Gives the files their places, and prints these.
    pub(crate) fn finish(self, arguments: &Arguments) -> Result<()> {
        for Collection { writer, path, scratch } in self.0 {
            writer.finish().map_err(|error| Error::file("write", &path, error))?;
            // Again: it may have come since it was looked for.
            if !arguments.overwrite {
                others(std::iter::once(&path))?;
            }
            copy_recorded(&path, &scratch.path().join(UNFINISHED))?;
            if arguments.json {
                let key = path.file_stem().unwrap_or_default().to_string_lossy();
                emit(&serde_json::json!({ key: path.to_string_lossy() }));
            } else {
                print(&path.display().to_string());
            }
        }
        Ok(())
    }
}

/// Fails if there are files at the places of outputs that no prediction wrote.
pub(crate) fn others<'a>(outputs: impl Iterator<Item = &'a PathBuf>) -> Result<()> {
    // What is not a file is written to as it is, or refused.
    let there = |path: &Path| path.is_file() || (path.is_symlink() && !path.exists());
    let mut others = outputs.filter(|path| there(path) && !is_prediction(path));
    let Some(first) = others.next() else { return Ok(()) };
    let more = match others.count() {
        0 => String::new(),
        more => format!(", and so would {more} more"),
    };
    Err(Error::new(format!(
        "`{}` was not written by an earlier prediction, and would be replaced{more}",
        first.display()
    ))
    .with_hint("choose another folder with --out, or replace such files too with --overwrite"))
}
