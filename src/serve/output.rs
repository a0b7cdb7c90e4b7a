//! Labels as clients want them: the bytes are those of the files that `predict` writes.

use serde::Serialize;
use serde_json::json;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::error::{Error, Result};
use crate::image::outlines::{self, CocoForm, CocoWriter, OutlineOptions, Statistics};
use crate::image::{encode_index_png, encode_png};
use crate::predict::earlier_predictions::sign;
use crate::predict::encode_npy;
use crate::serve::page;
use crate::serve::work::Answer;

/// What is made of the labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// The label map as an indexed PNG.
    Mask,
    /// The same within JSON.
    MaskJson,
    /// The image with its classes drawn over it.
    Overlay,
    /// COCO annotations of run lengths.
    Rle,
    /// COCO annotations of polygons.
    Coco,
    GeoJson,
    /// Pixels, share and regions of each class.
    Stats,
    Npy,
    /// What the page shows.
    Page,
}

impl Output {
    /// Those that a request can name.
    pub(super) const NAMED: [(&'static str, Self); 8] = [
        ("mask", Self::Mask),
        ("overlay", Self::Overlay),
        ("rle", Self::Rle),
        ("coco", Self::Coco),
        ("geojson", Self::GeoJson),
        ("stats", Self::Stats),
        ("npy", Self::Npy),
        ("page", Self::Page),
    ];

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Mask | Self::Overlay => "image/png",
            Self::GeoJson => "application/geo+json",
            Self::Npy => "application/x-npy",
            Self::MaskJson | Self::Rle | Self::Coco | Self::Stats | Self::Page => "application/json",
        }
    }
}

#[derive(Serialize)]
struct Described<'a> {
    image: &'a str,
    #[serde(flatten)]
    statistics: Statistics,
}

/// The bytes of an answer. `name` is what the image is called in them.
///
/// # Errors
/// Pictures that cannot be encoded.
pub(super) fn encode(answer: &Answer, output: Output, options: OutlineOptions, name: &str) -> Result<Vec<u8>> {
    let (labels, predictor) = (&answer.labels, &answer.model.predictor);
    let (names, colors) = (&predictor.classes().names, &predictor.classes().colors);
    let coco = |form| {
        let failed = |error: std::io::Error| Error::new("cannot write annotations").with_source(error);
        let mut writer = CocoWriter::new(Vec::new(), names, form, options).map_err(failed)?;
        writer.add(name, labels).map_err(failed)?;
        writer.finish().map_err(failed)
    };
    match output {
        Output::Mask => Ok(sign(encode_index_png(labels, colors)?)),
        Output::MaskJson => json_line(&json!({
            "model": answer.model.name,
            "width": labels.width,
            "height": labels.height,
            "mask": STANDARD.encode(sign(encode_index_png(labels, colors)?)),
        })),
        Output::Overlay => Ok(sign(encode_png(&predictor.overlay(&answer.image, labels))?)),
        Output::Rle => coco(CocoForm::Rle),
        Output::Coco => coco(CocoForm::Polygons),
        Output::GeoJson => json_line(&outlines::geojson(labels, names, name, options)),
        Output::Stats => json_line(&Described { image: name, statistics: outlines::statistics(labels, names) }),
        Output::Npy => Ok(encode_npy(labels)),
        Output::Page => json_line(&page::answer(answer)?),
    }
}

fn json_line(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes =
        serde_json::to_vec(value).map_err(|error| Error::new("cannot write the answer").with_source(error))?;
    bytes.push(b'\n');
    Ok(bytes)
}
