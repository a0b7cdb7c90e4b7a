//! Values of masks that are not labels: what smoothing, JPEG and dithering leave.

use std::collections::{BTreeMap, HashMap};

use crate::dataset::blended_values::peaks;
use crate::dataset::cause::between;
use crate::dataset::spec::{MAX_CLASSES, Source};
use crate::error::Error;
use crate::text::{Rest, shortened};
use crate::tools::check::{MaskSurvey, ValueCount};

/// Colours that cover less than this share may be smoothed edges between two that cover more.
const EDGE_SHARE: f64 = 0.01;

/// Dithering leaves more pixels alone than this: in the palette that programs dither to, and in any.
const WEB_SPECKLED: f64 = 0.01;
const SPECKLED: f64 = 0.1;

/// Why masks may have been JPEGs once, or dithered. `named`: how many values have a name; `check`: the command that
/// names files.
pub(super) fn lossy(
    survey: &MaskSurvey,
    all: &BTreeMap<Source, ValueCount>,
    named: usize,
    check: &str,
) -> Option<Error> {
    let close = peaks(all.iter().map(|(value, count)| (*value, count.pixels)));
    if let Some(peaks) = close.filter(|_| 2 * named < all.len() && survey.jpegs == 0) {
        let shown = shortened(&peaks, 8, Rest::Dots);
        let error = Error::new(format!(
            "{} values are close to {} others ({shown}), as JPEG leaves them: the masks were once saved as JPEG",
            all.len(),
            peaks.len()
        ));
        return Some(error.with_hint(format!(
            "export the masks again as PNG from the labelling tool, not from the JPEG files; `{check}` lists them"
        )));
    }
    let hint = "export the masks again as RGB, or with a palette of their own colours and without dithering";
    Some(Error::new(dithered(survey, all)?).with_hint(hint))
}

/// Why pixels may stem from dithering: many differ from all their neighbours, and show colours of the palette that
/// programs dither to.
fn dithered(survey: &MaskSurvey, all: &BTreeMap<Source, ValueCount>) -> Option<String> {
    let palette = survey.palette.as_ref();
    let of_web = |value: &Source| {
        let color = match value {
            Source::Rgb(color) => Some(*color),
            Source::Index(n) => palette.and_then(|palette| palette.get(usize::from(*n)).copied()),
        };
        color.is_some_and(|color| color.iter().all(|channel| channel % 51 == 0))
    };
    let share = survey.texture.speckled();
    let web = all.keys().all(of_web);
    // More values are photographs, which are reported differently.
    let few = (4..=MAX_CLASSES).contains(&all.len());
    (few && (web && share > WEB_SPECKLED || share > SPECKLED)).then(|| {
        format!(
            "{:.0} % of the pixels differ from all their neighbours{}, as dithering leaves them",
            100.0 * share,
            if web { ", in colours of the web palette" } else { "" }
        )
    })
}

/// Values that stem from smoothing: rare, and between two frequent ones.
pub(super) fn smoothed(
    all: &BTreeMap<Source, ValueCount>,
    total: u64,
    given_names: &HashMap<Source, String>,
) -> Vec<Source> {
    let rgb = |value: &Source| match value {
        Source::Rgb(rgb) => *rgb,
        Source::Index(n) => [u8::try_from(*n).unwrap_or(u8::MAX), 0, 0],
    };
    let frequent: Vec<&Source> = all
        .iter()
        .filter(|(value, count)| given_names.contains_key(value) || count.pixels as f64 >= EDGE_SHARE * total as f64)
        .map(|(value, _)| value)
        .collect();
    // Numbers are all on one line, and so are greys: only masks of black and white tell.
    let gray = |value: &Source| matches!(value, Source::Rgb([r, g, b]) if r == g && g == b);
    let numbers = matches!(all.keys().next(), Some(Source::Index(_))) || all.keys().all(gray);
    let black_white = |value: &&Source| [[0; 3], [255, 0, 0], [255; 3]].contains(&rgb(value));
    if numbers && (frequent.len() != 2 || !frequent.iter().all(black_white)) || frequent.len() > MAX_CLASSES {
        return Vec::new();
    }
    let pairs = || frequent.iter().enumerate().flat_map(|(at, a)| frequent[..at].iter().map(|b| (rgb(a), rgb(b))));
    let rare: Vec<&Source> = all.keys().filter(|value| !frequent.contains(value)).collect();
    let smooth: Vec<Source> =
        rare.iter().filter(|value| pairs().any(|(a, b)| between(rgb(value), a, b))).map(|value| **value).collect();
    if smooth.len() > 2 && smooth.len() * 2 >= rare.len() { smooth } else { Vec::new() }
}
