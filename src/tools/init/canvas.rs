//! The picture that outlines are drawn on: its size, how EXIF turns it, and where an outline lies in it.

use std::path::Path;

use image::metadata::Orientation;

use crate::error::{Error, Result};
use crate::files;
use crate::image::formats;
use crate::image::raster::Area;
use crate::image::{MAX_PIXELS, swaps_sides};
use crate::tools::init::outlined_image::Outlined;

/// What is said of outlines that are mostly drawn, but not where they belong.
pub(super) const ACROSS: &str = "outlines reach more than a tenth of the image's size beyond its border and were cut there; if the images \
                      were scaled after they were outlined, export the outlines anew";

/// Where an outline lies in its picture.
#[derive(Debug, PartialEq)]
pub(super) enum Lies {
    Inside,
    /// Outside of it, whole.
    Outside,
    /// Between the centres of pixels, so that it covers none.
    Between,
    /// Far across its border.
    Across,
}

/// Where an outline lies in a picture of that size, by what it reaches. `normalized`: its coordinates are fractions.
pub(super) fn lies(area: &Area, normalized: bool, size: [usize; 2]) -> Lies {
    const FAR: f64 = 0.1;
    let Some([low, high]) = area.bounds(size) else { return Lies::Inside };
    let axis = |at: usize| {
        let side = size[at] as f64;
        let scale = if normalized { side } else { 1.0 };
        (low[at] * scale, high[at] * scale, side)
    };
    let axes = [axis(0), axis(1)];
    let far = |(low, high, side): (f64, f64, f64)| low < -FAR * side || high > (1.0 + FAR) * side;
    if axes.iter().any(|(low, high, side)| *high <= 0.0 || low >= side) {
        Lies::Outside
    } else if axes.iter().any(|(low, high, _)| (low - 0.5).ceil() > (high - 0.5).floor()) {
        Lies::Between
    } else if axes.into_iter().any(far) {
        Lies::Across
    } else {
        Lies::Inside
    }
}

/// Width and height of a picture as it is stored, and how EXIF turns it.
fn stored(path: &Path) -> Result<([usize; 2], Orientation)> {
    let file = files::open(path).map_err(|error| Error::file("open", path, error))?;
    let ((width, height), turn) =
        formats::size(std::io::BufReader::new(file)).map_err(|error| Error::file("read", path, error))?;
    Ok(([width, height], turn))
}

/// What outlines are drawn on.
pub(super) struct Canvas {
    pub(super) size: [usize; 2],
    pub(super) turn: Orientation,
    pub(super) note: Option<&'static str>,
    /// Fractions of an image in a set of pixels became pixels.
    pub(super) scaled: bool,
}

/// Looks at an image and at everything that is to be drawn on it.
pub(super) fn canvas(path: &Path, one: &Outlined, normalized: bool) -> Result<Canvas> {
    let (size, turn) = stored(path)?;
    let shown = if swaps_sides(turn) { [size[1], size[0]] } else { size };
    if (size[0] as u64).saturating_mul(size[1] as u64) > MAX_PIXELS {
        return Err(Error::new(format!("it has {}x{} pixels", size[0], size[1])).with_hint("cut it into tiles"));
    }
    let turned = turn != Orientation::NoTransforms;
    let (size, turn, note) = match one.declared {
        _ if !turned => (size, turn, None),
        // What the annotations say decides: of the stored picture, or of the one that is shown.
        Some(declared) if declared == size && declared != shown => (
            size,
            turn,
            Some("images are rotated by EXIF, and their outlines, which are of the stored size, are rotated with them"),
        ),
        Some(declared) if declared == shown && declared != size => (
            shown,
            Orientation::NoTransforms,
            Some("images are rotated by EXIF, and their outlines are of the rotated size"),
        ),
        _ => (
            shown,
            Orientation::NoTransforms,
            Some(
                "images are rotated by EXIF, and their outlines are assumed to be rotated too: the size does not tell",
            ),
        ),
    };
    if let Some([w, h]) = one.declared.filter(|declared| *declared != size) {
        return Err(Error::new(format!(
            "`{}` has {}x{} pixels, but `{}` says {w}x{h}",
            path.display(),
            shown[0],
            shown[1],
            one.source.display()
        ))
        .with_hint("the annotations belong to another version of the image; export both again"));
    }
    for (area, _, which) in &one.areas {
        // Shares are looked at where they are read.
        if !normalized || !matches!(area, Area::Polygons(_)) {
            area.check(size).map_err(|error| {
                let hint = error.hint().unwrap_or("export it again, or remove the annotation").to_string();
                Error::new(format!("{which} of `{}` cannot be used", one.source.display()))
                    .with_source(error)
                    .with_hint(hint)
            })?;
        }
    }
    Ok(Canvas { size, turn, note, scaled: false })
}
