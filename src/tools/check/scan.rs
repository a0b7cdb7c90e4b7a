//! One image and its mask, read whole and reduced to what the check needs of them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use image::metadata::Orientation;
use serde::{Deserialize, Serialize};

use crate::dataset::join::{Joiner, MaskPart};
use crate::dataset::label_map::LabelMap;
use crate::dataset::pairs::Pair;
use crate::dataset::palette::{PaletteColors, apply_encoding, color_of, shown};
use crate::dataset::spec::{Encoding, Source};
use crate::error::{Error, ErrorKind, scarce};
use crate::files;
use crate::image::formats::{Format, Kind};
use crate::image::{MAX_PIXELS, RawMask, Stored, formats};
use crate::tools::check::forms::{Code, as_exif, as_pairs, as_pairs_if_any, known_code, no_entries};
use crate::tools::check::texture::Texture;

/// More colours than this in one mask are not told apart: it is a photograph.
const MAX_VALUES: usize = 4096;

/// A pair as it was read.
#[derive(Serialize, Deserialize)]
pub(super) struct Scanned {
    pub(super) image: Result<ImageFacts, Broken>,
    pub(super) mask: Result<MaskFacts, Broken>,
}

/// What a picture is like.
#[derive(Serialize, Deserialize)]
pub(super) struct ImageFacts {
    /// Width and height after the rotation that EXIF asks for.
    pub(super) size: [usize; 2],
    pub(super) format: String,
    #[serde(with = "as_exif")]
    pub(super) orientation: Orientation,
    /// The name's ending belongs to another format.
    pub(super) misnamed: bool,
    /// A JPEG with all its pixels and no end marker.
    pub(super) unended: bool,
    /// The first of several pages.
    pub(super) more: bool,
    /// Some pixel is not opaque.
    pub(super) transparent: bool,
    /// Of 16 bits per channel: the lowest and highest value.
    pub(super) deep: Option<[u16; 2]>,
    /// Of the pixels, so that the same picture is known in another file.
    pub(super) hash: u64,
}

/// What a mask is like.
#[derive(Serialize, Deserialize)]
pub(super) struct MaskFacts {
    pub(super) size: [usize; 2],
    pub(super) format: String,
    /// The format alone.
    pub(super) kind: String,
    pub(super) encoding: Encoding,
    pub(super) misnamed: bool,
    pub(super) hash: u64,
    /// Pixels of every value, and the first of them, counted by rows.
    #[serde(with = "as_pairs")]
    pub(super) values: BTreeMap<Source, Count>,
    /// There are more colours than were told apart.
    pub(super) more: bool,
    /// The first pixel that is not opaque.
    pub(super) transparent: Option<usize>,
    /// Grey, in a file that says that 0 is white; or in one that does not.
    pub(super) white_is_zero: Option<bool>,
    #[serde(serialize_with = "no_entries")]
    pub(super) palette: Option<Vec<[u8; 3]>>,
    /// Greys of 1, 2 or 4 bits, which were spread over 0 to 255.
    pub(super) spread: bool,
    /// Of a JPEG, pixels that were taken for a declared value near theirs.
    pub(super) rounded: u64,
    /// What its numbers look like, by its palette.
    pub(super) shown: Option<PaletteColors>,
    /// Of numbers that can be looked up as colours: pixels of every colour.
    #[serde(with = "as_pairs_if_any")]
    pub(super) colors: Option<BTreeMap<Source, Count>>,
    /// How its values lie beside each other.
    pub(super) texture: Texture,
    /// Of masks that were joined: pixels of several classes, and the first of them.
    pub(super) overlapping: Option<(u64, usize)>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Count {
    pub(super) pixels: u64,
    pub(super) first: usize,
    /// Pixels of a number that lies between those of two opposite neighbours.
    pub(super) between: u64,
}

/// A file that cannot be read.
#[derive(Serialize, Deserialize)]
pub(crate) struct Broken {
    /// Which, where it is not the one that was asked for.
    pub(super) file: Option<PathBuf>,
    #[serde(deserialize_with = "known_code")]
    pub(crate) code: Code,
    pub(crate) what: String,
    pub(crate) remedy: String,
    /// What the decoder said.
    pub(super) note: Option<String>,
}

/// The code of what this process, and not the file, is at fault for.
const SCARCE: &str = "scarce";

impl Scanned {
    /// What the system gives this process too little of to go on.
    pub(super) fn scarce(&self, pair: &Pair) -> Option<Error> {
        let sides = [(&pair.image, self.image.as_ref().err()), (&pair.mask, self.mask.as_ref().err())];
        sides.into_iter().find_map(|(path, broken)| {
            let broken = broken.filter(|broken| broken.code == SCARCE)?;
            let path = broken.file.as_ref().unwrap_or(path);
            let why = broken.note.as_deref().unwrap_or_default();
            Some(Error::new(format!("cannot open `{}`: {why}", path.display())).with_hint(broken.remedy.clone()))
        })
    }
}

/// Reads both files.
pub(super) fn scan(pair: &Pair, map: &LabelMap, joiner: Option<&Joiner>) -> Scanned {
    let mask = match joiner {
        Some(joiner) => joined(&pair.parts, joiner),
        None => read(&pair.mask, |path, file| mask(path, file, Some(map))),
    };
    Scanned { image: read(&pair.image, image), mask }
}

/// The facts of all masks of an image as one.
fn joined(parts: &[MaskPart], joiner: &Joiner) -> Result<MaskFacts, Broken> {
    let formats = RefCell::new(Vec::new());
    let fault = RefCell::new(None);
    let read_part = |part: &MaskPart| {
        let decode = |_: &Path, file: BufReader<File>| {
            let raw = formats::mask(file, joiner.takes_jpeg()).and_then(|decoded| {
                let format = describe(&decoded.mask);
                Ok((apply_encoding(decoded.mask, Encoding::Rgb)?, format))
            });
            raw.map_err(|error| (error, "masks"))
        };
        let (raw, format) = read(&part.path, decode).map_err(|why| {
            fault.replace(Some(Broken { file: Some(part.path.clone()), ..why }));
            Error::new("a mask cannot be read")
        })?;
        formats.borrow_mut().push(format);
        Ok(raw)
    };
    let joined = joiner.join(parts, read_part).map_err(|error| {
        fault.take().unwrap_or_else(|| Broken {
            file: None,
            code: "join-failed",
            what: "images whose masks cannot be joined".to_string(),
            remedy: error.hint().unwrap_or_default().to_string(),
            note: Some(error.to_string()),
        })
    })?;
    let mut formats = formats.into_inner();
    formats.sort();
    formats.dedup();
    let format = format!("joined {}", formats.join(" and "));
    let overlapping = joined.first.map(|first| (joined.overlapping, first));
    Ok(MaskFacts { overlapping, format, ..facts(&joined.mask) })
}

/// The facts of a mask alone; `tolerance`: of a JPEG too, as numbers where its channels differ by no more.
pub(super) fn scan_mask(path: &Path, tolerance: Option<u8>) -> Result<MaskFacts, Broken> {
    let Some(tolerance) = tolerance else { return read(path, |path, file| mask(path, file, None)) };
    let lossy = |_: &Path, file: BufReader<File>| {
        let raw = formats::mask(file, true).and_then(|decoded| apply_encoding(decoded.mask, Encoding::Index));
        raw.map(|raw| grayed(raw, tolerance)).map_err(|error| (error, "masks"))
    };
    let raw = read(path, lossy)?;
    if raw.stored().format == Format::Jpeg { Ok(facts(&raw)) } else { read(path, |path, file| mask(path, file, None)) }
}

/// A JPEG of grays in three channels as one of numbers.
fn grayed(mask: RawMask, tolerance: u8) -> RawMask {
    match mask {
        RawMask::Rgb { width, height, values, stored }
            if stored.format == Format::Jpeg
                && values.iter().all(|[r, g, b]| r.abs_diff(*g).max(b.abs_diff(*g)) <= tolerance) =>
        {
            RawMask::Index { width, height, values: values.iter().map(|rgb| u16::from(rgb[1])).collect(), stored }
        }
        mask => mask,
    }
}

fn read<T>(
    path: &Path,
    facts: impl Fn(&Path, BufReader<File>) -> Result<T, (Error, &'static str)>,
) -> Result<T, Broken> {
    let unreadable = |error: std::io::Error| {
        let scarce = scarce(&error);
        Broken {
            file: None,
            code: if scarce.is_some() { SCARCE } else { "unreadable-file" },
            what: "files that cannot be opened".to_string(),
            remedy: scarce
                .unwrap_or(match error.kind() {
                    std::io::ErrorKind::PermissionDenied => "give yourself permission to read them",
                    std::io::ErrorKind::NotFound => "repair the links, which lead nowhere",
                    _ => "replace them by files",
                })
                .to_string(),
            note: Some(error.to_string()),
        }
    };
    let file = files::open(path).map_err(unreadable)?;
    facts(path, BufReader::with_capacity(1 << 16, file)).map_err(|(error, noun)| {
        // What it may be instead is recognised by its beginning.
        let mut start = Vec::new();
        let read = files::open(path).and_then(|file| file.take(1 << 16).read_to_end(&mut start));
        read.map_or_else(unreadable, |_| broken(&start, &error, noun))
    })
}

fn image(path: &Path, file: BufReader<File>) -> Result<ImageFacts, (Error, &'static str)> {
    let decoded = formats::image(file, None).map_err(|error| (error, "images"))?;
    let image = &decoded.image;
    Ok(ImageFacts {
        size: [image.width, image.height],
        format: decoded.format.name().to_owned(),
        orientation: decoded.orientation,
        misnamed: misnamed(path, decoded.format),
        unended: decoded.unended,
        more: decoded.more,
        transparent: decoded.transparent,
        deep: decoded.deep,
        hash: hash(&(image.width, &image.pixels)),
    })
}

fn mask(path: &Path, file: BufReader<File>, map: Option<&LabelMap>) -> Result<MaskFacts, (Error, &'static str)> {
    let lossy = map.is_some_and(LabelMap::takes_jpeg);
    let decoded = formats::mask(file, lossy).and_then(|decoded| apply_encoding(decoded.mask, Encoding::Index));
    let mut raw = decoded.map_err(|error| (error, "masks"))?;
    let rounded = map.map_or(0, |map| map.round(&mut raw));
    let facts = facts(&raw);
    let numbers = facts.values.keys().filter_map(|value| if let Source::Index(n) = value { Some(*n) } else { None });
    let shown = if facts.encoding == Encoding::Index { shown(numbers, raw.stored()) } else { None };
    let colors = as_colors(&facts, raw.stored());
    Ok(MaskFacts { misnamed: misnamed(path, raw.stored().format), rounded, shown, colors, ..facts })
}

/// The facts of decoded numbers or colours.
fn facts(raw: &RawMask) -> MaskFacts {
    let (encoding, hash, (values, more), texture) = match raw {
        RawMask::Index { width, values, .. } => {
            (Encoding::Index, hash(&(width, values)), numbers(values, *width), Texture::of(values, *width, 0))
        }
        RawMask::Rgb { width, values, .. } => {
            (Encoding::Rgb, hash(&(width, values)), colors(values), Texture::of(values, *width, [0; 3]))
        }
    };
    let stored = raw.stored();
    MaskFacts {
        size: raw.size().into(),
        format: describe(raw),
        kind: stored.format.name().to_owned(),
        encoding,
        misnamed: false,
        hash,
        values,
        more,
        transparent: stored.transparent,
        white_is_zero: (stored.kind == Kind::Gray).then_some(stored.white_is_zero),
        spread: stored.format == Format::Png && stored.kind == Kind::Gray && stored.bits < 8,
        rounded: 0,
        palette: stored.palette.as_deref().map(<[_]>::to_vec),
        shown: None,
        colors: None,
        texture,
        overlapping: None,
    }
}

/// Pixels of every colour of a mask of numbers, where each number has one.
fn as_colors(facts: &MaskFacts, stored: &Stored) -> Option<BTreeMap<Source, Count>> {
    let mut colors: BTreeMap<Source, Count> = BTreeMap::new();
    for (value, count) in &facts.values {
        let Source::Index(number) = value else { return None };
        let color = color_of(stored, *number)?;
        // Two numbers of one colour are one label.
        let sum = colors.entry(Source::Rgb(color)).or_insert(Count { pixels: 0, first: count.first, between: 0 });
        *sum = Count {
            pixels: sum.pixels + count.pixels,
            first: sum.first.min(count.first),
            between: sum.between + count.between,
        };
    }
    Some(colors)
}

fn numbers(values: &[u16], width: usize) -> (BTreeMap<Source, Count>, bool) {
    let most = values.iter().copied().max().map_or(0, usize::from);
    let mut counts = vec![Count { pixels: 0, first: 0, between: 0 }; most + 1];
    for (at, value) in values.iter().enumerate() {
        let count = &mut counts[usize::from(*value)];
        if count.pixels == 0 {
            count.first = at;
        }
        count.pixels += 1;
    }
    // Of two values none is between others.
    let several = counts.iter().filter(|count| count.pixels > 0).nth(2).is_some();
    let lies = |a: u16, value: u16, b: u16| a < value && value < b || b < value && value < a;
    let width = width.max(1);
    let rows: Vec<&[u16]> = values.chunks_exact(width).collect();
    for (y, row) in rows.iter().enumerate().filter(|_| several) {
        for (x, value) in row.iter().enumerate() {
            let across = x > 0 && x + 1 < width && lies(row[x - 1], *value, row[x + 1]);
            let down = || y > 0 && y + 1 < rows.len() && lies(rows[y - 1][x], *value, rows[y + 1][x]);
            counts[usize::from(*value)].between += u64::from(across || down());
        }
    }
    let found = counts.into_iter().enumerate().filter(|(_, count)| count.pixels > 0);
    (found.map(|(value, count)| (Source::Index(value as u16), count)).collect(), false)
}

fn colors(values: &[[u8; 3]]) -> (BTreeMap<Source, Count>, bool) {
    let mut counts: HashMap<[u8; 3], Count> = HashMap::new();
    let mut more = false;
    let mut at = 0;
    for run in values.chunk_by(|a, b| a == b) {
        let full = counts.len() >= MAX_VALUES;
        match counts.get_mut(&run[0]) {
            Some(count) => count.pixels += run.len() as u64,
            None if full => more = true,
            None => drop(counts.insert(run[0], Count { pixels: run.len() as u64, first: at, between: 0 })),
        }
        at += run.len();
    }
    (counts.into_iter().map(|(value, count)| (Source::Rgb(value), count)).collect(), more)
}

/// What kind of picture it is, in words.
fn describe(mask: &RawMask) -> String {
    let stored = mask.stored();
    let (kind, alpha) = match stored.kind {
        Kind::Palette => ("palette", ""),
        Kind::Gray => ("grey", ""),
        Kind::GrayAlpha => ("grey", " with alpha"),
        Kind::Rgb => ("RGB", ""),
        Kind::Rgba => ("RGB", " with alpha"),
        Kind::Cmyk => ("CMYK", ""),
    };
    match stored.format {
        Format::Npy => format!("{}-bit {}", stored.bits, stored.format.name()),
        format => format!("{}-bit {kind} {}{alpha}", stored.bits, format.name()),
    }
}

/// Whether the name's ending is that of another format; one that says nothing is taken at its word.
fn misnamed(path: &Path, format: Format) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Format::called(&name).is_some_and(|called| called != format)
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Why a file is not what it should be. `noun`: images or masks.
fn broken(bytes: &[u8], error: &Error, noun: &str) -> Broken {
    let again = "copy or export them again, or leave them out with a `list`";
    let format = Format::of(bytes);
    let start = &bytes[..bytes.len().min(512)];
    let (code, what, remedy) = match format {
        _ if bytes.is_empty() => {
            ("empty-file", format!("empty {} files (0 bytes)", noun.trim_end_matches('s')), again.to_string())
        }
        _ if bytes.starts_with(b"version https://git-lfs") => {
            ("lfs-pointer", format!("{noun} that Git LFS has not fetched"), "run: git lfs pull".to_string())
        }
        Some(Format::Jpeg) if noun == "masks" => (
            "jpeg-mask",
            "masks saved as JPEG: its compression changes values, so they cannot hold labels".to_string(),
            "export the masks as PNG from the labelling tool; if there is nothing else, `jpeg_tolerance = 255` takes \
             every value for the nearest declared one"
                .to_string(),
        ),
        Some(_) if error.kind() == ErrorKind::TooLarge => {
            ("too-large", format!("{noun} of more than {MAX_PIXELS} pixels"), "cut them into tiles".to_string())
        }
        Some(_) if error.kind() == ErrorKind::DeepColors => (
            "deep-colours",
            "colour masks with 16 bits per channel".to_string(),
            "save them as 8-bit palette, grey or RGB PNG".to_string(),
        ),
        Some(Format::Npy) if noun == "images" => other_format(noun, "NumPy array"),
        Some(Format::WebP) if noun == "masks" => other_format(noun, "WebP"),
        // A header that can be read, of an array that is not a mask.
        Some(Format::Npy) if error.hint().is_some_and(|hint| hint != formats::DAMAGED) => (
            "other-format",
            format!("{noun} that are arrays of something other than class numbers"),
            error.hint().unwrap_or(again).to_string(),
        ),
        Some(_) if error.kind() == ErrorKind::SeveralPictures => (
            "several-pages",
            format!("{noun} that are files of several pictures"),
            error.hint().unwrap_or(again).to_string(),
        ),
        Some(_) if error.kind() == ErrorKind::Unsupported => (
            "other-format",
            format!("{noun} in an unsupported form"),
            error.hint().unwrap_or("export them as PNG").to_string(),
        ),
        Some(_) => ("damaged-file", format!("{noun} that are damaged or cut short"), again.to_string()),
        None if let Ok(other) = image::guess_format(bytes) => other_format(noun, &format!("{other:?}").to_uppercase()),
        None if start.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) => {
            let what = format!("{noun} that are text files, such as an error page saved as a picture");
            ("not-an-image", what, again.to_string())
        }
        None => ("not-an-image", format!("{noun} that are not pictures of any known format"), again.to_string()),
    };
    // Of an empty file there is no more to say.
    let note = (!bytes.is_empty()).then(|| error.to_string());
    Broken { file: None, code, what, remedy, note }
}

fn other_format(noun: &str, name: &str) -> (&'static str, String, String) {
    // Image editors smooth what they convert, or sort its palette anew.
    let remedy = if noun == "masks" { "export them as PNG from the labelling tool" } else { "convert them to PNG" };
    ("other-format", format!("{noun} that are {name} files, whatever their ending says"), remedy.to_string())
}
