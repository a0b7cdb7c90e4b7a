//! One image and its mask, read whole and reduced to what the check needs of them.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Cursor;
use std::path::Path;

use image::metadata::Orientation;
use image::{ImageFormat, ImageReader};

use crate::data::image::{MAX_PIXELS, RawMask, decode_mask, decode_turned};
use crate::data::pairs::Pair;
use crate::data::spec::{Encoding, Source};
use crate::error::Error;
use crate::files;

/// More colours than this in one mask are not told apart: it is a photograph.
const MAX_VALUES: usize = 4096;

/// A pair as it was read.
pub(super) struct Scanned {
    pub(super) image: Result<ImageFacts, Broken>,
    pub(super) mask: Result<MaskFacts, Broken>,
}

/// What a picture is like.
pub(super) struct ImageFacts {
    /// Width and height after the rotation that EXIF asks for.
    pub(super) size: [usize; 2],
    pub(super) format: &'static str,
    pub(super) orientation: Orientation,
    /// The name's ending belongs to another format.
    pub(super) misnamed: bool,
    /// Of the pixels, so that the same picture is known in another file.
    pub(super) hash: u64,
}

/// What a mask is like.
pub(super) struct MaskFacts {
    pub(super) size: [usize; 2],
    pub(super) format: String,
    pub(super) encoding: Encoding,
    pub(super) misnamed: bool,
    pub(super) hash: u64,
    /// Pixels of every value, and the first of them, counted by rows.
    pub(super) values: BTreeMap<Source, Count>,
    /// There are more colours than were told apart.
    pub(super) more: bool,
    /// The first pixel that is not opaque.
    pub(super) transparent: Option<usize>,
    pub(super) palette: Option<Vec<[u8; 3]>>,
}

#[derive(Clone, Copy)]
pub(super) struct Count {
    pub(super) pixels: u64,
    pub(super) first: usize,
}

/// A file that cannot be read.
pub(super) struct Broken {
    pub(super) code: &'static str,
    pub(super) what: String,
    pub(super) remedy: String,
    /// What the decoder said.
    pub(super) note: Option<String>,
}

/// Reads both files.
pub(super) fn scan(pair: &Pair) -> Scanned {
    Scanned { image: read(&pair.image, image), mask: read(&pair.mask, mask) }
}

/// The facts of a mask alone.
pub(super) fn scan_mask(path: &Path) -> Result<MaskFacts, Broken> {
    read(path, mask)
}

fn read<T>(path: &Path, facts: impl Fn(&Path, &[u8]) -> Result<T, Broken>) -> Result<T, Broken> {
    let unreadable = |error: std::io::Error| Broken {
        code: "unreadable-file",
        what: "files that cannot be opened".to_string(),
        remedy: "give yourself the right to read them, or mend the link".to_string(),
        note: Some(error.to_string()),
    };
    facts(path, &files::read(path, files::PICTURE).map_err(unreadable)?)
}

fn image(path: &Path, bytes: &[u8]) -> Result<ImageFacts, Broken> {
    let (image, orientation) = decode_turned(bytes).map_err(|error| broken(bytes, &error, "images"))?;
    let is_png = image::guess_format(bytes).is_ok_and(|format| format == ImageFormat::Png);
    Ok(ImageFacts {
        size: [image.width, image.height],
        format: if is_png { "PNG" } else { "JPEG" },
        orientation,
        misnamed: is_png != called_png(path),
        hash: hash(&(image.width, &image.pixels)),
    })
}

fn mask(path: &Path, bytes: &[u8]) -> Result<MaskFacts, Broken> {
    let raw = decode_mask(Cursor::new(bytes)).map_err(|error| broken(bytes, &error, "masks"))?;
    let (format, palette) = describe(bytes);
    let (size, encoding, hash, (values, more)) = match &raw {
        RawMask::Index { width, height, values } => {
            ([*width, *height], Encoding::Index, hash(&(width, values)), numbers(values))
        }
        RawMask::Rgb { width, height, values } => {
            ([*width, *height], Encoding::Rgb, hash(&(width, values)), colours(values))
        }
    };
    let transparent = if format.contains("alpha") { first_transparent(bytes) } else { None };
    let misnamed = !called_png(path);
    Ok(MaskFacts { size, format, encoding, misnamed, hash, values, more, transparent, palette })
}

fn numbers(values: &[u16]) -> (BTreeMap<Source, Count>, bool) {
    let most = values.iter().copied().max().map_or(0, usize::from);
    let mut counts = vec![Count { pixels: 0, first: 0 }; most + 1];
    for (at, value) in values.iter().enumerate() {
        let count = &mut counts[usize::from(*value)];
        if count.pixels == 0 {
            count.first = at;
        }
        count.pixels += 1;
    }
    let found = counts.into_iter().enumerate().filter(|(_, count)| count.pixels > 0);
    (found.map(|(value, count)| (Source::Index(value as u16), count)).collect(), false)
}

fn colours(values: &[[u8; 3]]) -> (BTreeMap<Source, Count>, bool) {
    let mut counts: HashMap<[u8; 3], Count> = HashMap::new();
    let mut more = false;
    let mut at = 0;
    for run in values.chunk_by(|a, b| a == b) {
        let full = counts.len() >= MAX_VALUES;
        match counts.get_mut(&run[0]) {
            Some(count) => count.pixels += run.len() as u64,
            None if full => more = true,
            None => drop(counts.insert(run[0], Count { pixels: run.len() as u64, first: at })),
        }
        at += run.len();
    }
    (counts.into_iter().map(|(value, count)| (Source::Rgb(value), count)).collect(), more)
}

/// What kind of PNG it is, in words, and its palette.
fn describe(bytes: &[u8]) -> (String, Option<Vec<[u8; 3]>>) {
    let Ok(reader) = png::Decoder::new(Cursor::new(bytes)).read_info() else { return ("PNG".to_string(), None) };
    let info = reader.info();
    let kind = match info.color_type {
        png::ColorType::Indexed => "palette PNG",
        png::ColorType::Grayscale => "grey PNG",
        png::ColorType::GrayscaleAlpha => "grey PNG with alpha",
        png::ColorType::Rgb => "RGB PNG",
        png::ColorType::Rgba => "RGB PNG with alpha",
    };
    let palette = info.palette.as_ref().map(|bytes| bytes.as_chunks::<3>().0.to_vec());
    (format!("{}-bit {kind}", info.bit_depth as u8), palette)
}

fn first_transparent(bytes: &[u8]) -> Option<usize> {
    let pixels = image::load_from_memory_with_format(bytes, ImageFormat::Png).ok()?.into_rgba8();
    pixels.pixels().position(|pixel| pixel.0[3] != u8::MAX)
}

/// Whether the name says PNG rather than JPEG; a name that says neither is taken at its word for a PNG.
fn called_png(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    !matches!(ending.as_str(), "jpg" | "jpeg")
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Why a file is not what it should be. `noun`: images or masks.
fn broken(bytes: &[u8], error: &Error, noun: &str) -> Broken {
    let again = "copy or export them again, or leave them out with a `list`";
    let format = image::guess_format(bytes).ok();
    let dimensions = || {
        let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok()?;
        reader.into_dimensions().ok().filter(|(width, height)| u64::from(*width) * u64::from(*height) > MAX_PIXELS)
    };
    let start = &bytes[..bytes.len().min(512)];
    let (code, what, remedy) = match format {
        _ if bytes.is_empty() => ("empty-file", format!("{noun} that are empty (0 bytes)"), again.to_string()),
        _ if bytes.starts_with(b"version https://git-lfs") => {
            ("lfs-pointer", format!("{noun} that Git LFS has not fetched"), "run: git lfs pull".to_string())
        }
        Some(ImageFormat::Jpeg) if noun == "masks" => (
            "jpeg-mask",
            "masks saved as JPEG: its compression changes values, so they cannot hold labels".to_string(),
            "export the masks as PNG from the labelling tool; converting these files keeps the damage".to_string(),
        ),
        Some(ImageFormat::Png | ImageFormat::Jpeg) if dimensions().is_some() => {
            ("too-large", format!("{noun} of more than {MAX_PIXELS} pixels"), "cut them into tiles".to_string())
        }
        Some(ImageFormat::Png) if noun == "masks" && error.to_string().contains("16 bits a channel") => (
            "deep-colours",
            "masks of colours with 16 bits a channel".to_string(),
            "save them as 8-bit palette, grey or RGB PNG".to_string(),
        ),
        Some(ImageFormat::Png | ImageFormat::Jpeg) => {
            ("damaged-file", format!("{noun} that are damaged or cut short"), again.to_string())
        }
        Some(other) => {
            let name = format!("{other:?}").to_uppercase();
            let remedy = format!("convert them to PNG: magick mogrify -format png *.{}", other.extensions_str()[0]);
            ("other-format", format!("{noun} that are {name} files, whatever they are called"), remedy)
        }
        None if start.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) => {
            let what = format!("{noun} that are text files, such as an error page saved as a picture");
            ("not-an-image", what, again.to_string())
        }
        None => ("not-an-image", format!("{noun} that are neither PNG nor JPEG"), again.to_string()),
    };
    // Of an empty file there is no more to say.
    let note = (!bytes.is_empty()).then(|| error.to_string());
    Broken { code, what, remedy, note }
}
