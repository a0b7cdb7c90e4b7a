//! What the page is told of an image.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::image::outlines::statistics;
use crate::image::{Labels, encode_index_png};
use crate::page::color;
use crate::predict::earlier_predictions::sign;
use crate::report::TokenBlock;
use crate::report::pictures::{fit, heat_map, stage_labels};
use crate::serve::work::{Answer, Tokens};

/// What the page may load and do: nothing from elsewhere, nothing written into it.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
     connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The longer side of a token's map in pixels, and of the label map of a block.
const MAP: usize = 128;
const LABELS: usize = 256;
/// The most classes whose tokens are shown.
const CLASSES: usize = 12;

/// What the page is told of an image.
///
/// # Errors
/// Pictures that cannot be encoded.
pub(super) fn answer(answer: &Answer) -> Result<Value> {
    let (labels, classes) = (&answer.labels, answer.model.predictor.classes());
    let mut confidences: BTreeMap<u8, f64> = BTreeMap::new();
    for (id, confidence) in labels.ids.iter().zip(&answer.confidence) {
        *confidences.entry(*id).or_default() += f64::from(*confidence);
    }
    let found = statistics(labels, &classes.names);
    let class = |class: &crate::image::outlines::ClassStatistics| {
        json!({
            "id": class.id,
            "name": class.name,
            "color": color(classes.colors.get(usize::from(class.id))),
            "pixels": class.pixels,
            "share": class.share,
            "regions": class.regions,
            "mean_confidence": confidences.get(&class.id).map(|sum| sum / class.pixels as f64),
        })
    };
    let grey = answer.confidence.iter().map(|p| (p.clamp(0.0, 1.0) * 255.0).round() as u8).collect();
    let confidence = Labels { width: labels.width, height: labels.height, ids: grey };
    let mut largest: Vec<(u64, u8)> = found.classes.iter().map(|class| (class.pixels, class.id)).collect();
    largest.sort_by_key(|(pixels, id)| (std::cmp::Reverse(*pixels), *id));
    let shown: Vec<u8> = largest.iter().take(CLASSES).map(|(_, id)| *id).collect();
    Ok(json!({
        "model": answer.model.name,
        "width": labels.width,
        "height": labels.height,
        "classes": found.classes.iter().map(class).collect::<Vec<_>>(),
        "ignored": found.ignored,
        "mask": STANDARD.encode(sign(encode_index_png(labels, &classes.colors)?)),
        "confidence": grey_png(&confidence)?,
        "tokens": answer.tokens.as_ref().map(|found| tokens(found, &shown)).transpose()?,
        "timing": timing(answer),
    }))
}

/// Milliseconds of what came before; the answer is being encoded.
fn timing(answer: &Answer) -> Value {
    let parts = answer.timing.parts().into_iter().filter(|(name, _)| *name != "encode");
    parts
        .map(|(name, time)| (name.to_owned(), json!(time.as_secs_f64() * 1e3)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn tokens(found: &Tokens, shown: &[u8]) -> Result<Value> {
    let maps = |block: &TokenBlock| {
        let map = |class: &u8| heat_map(block, usize::from(*class), MAP).map(|address| picture(&address));
        shown.iter().map(map).collect::<Result<Vec<_>>>()
    };
    let size = |block: &TokenBlock| {
        let longer = block.width.max(block.height).max(1);
        let times = LABELS.div_ceil(longer).max(1);
        fit(block.width * times, block.height * times, LABELS)
    };
    Ok(json!({
        "blocks": found.blocks.iter().map(|block| block.name.clone()).collect::<Vec<_>>(),
        "classes": shown,
        "width": found.span.0,
        "height": found.span.1,
        "maps": found.blocks.iter().map(maps).collect::<Result<Vec<_>>>()?,
        "labels": found.blocks.iter().map(|block| grey_png(&stage_labels(block, size(block)))).collect::<Result<Vec<_>>>()?,
    }))
}

/// The base64 of a `data:` address.
fn picture(address: &str) -> String {
    address.split_once(',').map_or("", |(_, data)| data).to_owned()
}

/// A map as the base64 of a PNG of 8-bit greys.
fn grey_png(map: &Labels) -> Result<String> {
    let failed = |error: png::EncodingError| Error::new("cannot encode a picture").with_source(error);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, map.width as u32, map.height as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&map.ids).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(STANDARD.encode(bytes))
}
