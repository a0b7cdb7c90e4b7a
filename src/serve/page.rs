//! The page that is in the binary: its files, and what it is told of an image.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::image::outlines::statistics;
use crate::image::{Labels, encode_index_png};
use crate::predict::earlier_predictions::sign;
use crate::report::TokenBlock;
use crate::report::pictures::{fit, heat_map, stage_labels};
use crate::serve::work::{Answer, Tokens};

/// A file of the page: its address, its type, its bytes.
pub(super) struct File {
    pub(super) path: &'static str,
    pub(super) content_type: &'static str,
    pub(super) bytes: &'static [u8],
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// All files of the page.
pub(super) const FILES: [File; 11] = [
    File { path: "/", content_type: "text/html; charset=utf-8", bytes: include_bytes!("page/index.html") },
    File { path: "/style.css", content_type: "text/css; charset=utf-8", bytes: include_bytes!("page/style.css") },
    File { path: "/icon.svg", content_type: "image/svg+xml", bytes: include_bytes!("page/icon.svg") },
    File { path: "/theme.js", content_type: SCRIPT, bytes: include_bytes!("page/theme.js") },
    File { path: "/app.js", content_type: SCRIPT, bytes: include_bytes!("page/app.js") },
    File { path: "/engine.js", content_type: SCRIPT, bytes: include_bytes!("page/engine.js") },
    File { path: "/png.js", content_type: SCRIPT, bytes: include_bytes!("page/png.js") },
    File { path: "/input.js", content_type: SCRIPT, bytes: include_bytes!("page/input.js") },
    File { path: "/view.js", content_type: SCRIPT, bytes: include_bytes!("page/view.js") },
    File { path: "/legend.js", content_type: SCRIPT, bytes: include_bytes!("page/legend.js") },
    File { path: "/tokens.js", content_type: SCRIPT, bytes: include_bytes!("page/tokens.js") },
];

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

/// `#rrggbb`.
pub(super) fn color(color: Option<&[u8; 3]>) -> String {
    let [r, g, b] = color.copied().unwrap_or_default();
    format!("#{r:02x}{g:02x}{b:02x}")
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every file that the page asks for is there, and nothing is asked from elsewhere.
    #[test]
    fn the_page_is_complete() {
        let mut asked = 0;
        for file in FILES.iter().filter(|file| !file.path.ends_with(".svg")) {
            let text = std::str::from_utf8(file.bytes).unwrap();
            for (before, after) in [("src=\"", '"'), ("href=\"", '"'), ("from \"./", '"'), ("from './", '\'')] {
                for rest in text.split(before).skip(1) {
                    let name = rest.split(after).next().unwrap();
                    if name.is_empty() || name.starts_with('#') || name.contains("${") {
                        continue;
                    }
                    asked += 1;
                    assert!(!name.contains("://") && !name.starts_with("//"), "{}: {name}", file.path);
                    let path = format!("/{}", name.trim_start_matches("./").trim_start_matches('/'));
                    let there = path == "/openapi.json" || FILES.iter().any(|file| file.path == path);
                    assert!(there, "{}: {name}", file.path);
                }
            }
        }
        assert!(asked >= 5, "{asked}");
        assert_eq!(color(Some(&[1, 171, 255])), "#01abff");
    }
}
