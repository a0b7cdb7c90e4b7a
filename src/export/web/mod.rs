//! A folder that any web server can send: the page, the model as an ONNX file, and onnxruntime-web, which runs it in
//! the browser.

mod runtime;

use serde_json::{Value, json};

pub use runtime::{Runtime, VERSION, hint};

use crate::dataset::shapes::Shapes;
use crate::dataset::{Dataset, Split};
use crate::error::{Error, Result};
use crate::export::engine::Engine;
use crate::export::folder::{Files, place};
use crate::export::{Bounds, ExportOptions, Exported, Pictures, Profile, agreement};
use crate::files::checksum::sha256;
use crate::image::{encode_index_png, encode_png};
use crate::infer::{InferConfig, InferMode};
use crate::model::Model;
use crate::model_file::ModelCard;
use crate::page;

/// What the page may load and do: nothing from elsewhere, nothing written into it. Scripts compile WebAssembly.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob: data:; \
     connect-src 'self'; media-src 'self' blob:; worker-src 'self'; base-uri 'none'; form-action 'none'";

/// Some hosts of static pages read this file: with these headers the page may use several threads.
const HEADERS: &str = "/*\n  Cross-Origin-Opener-Policy: same-origin\n  Cross-Origin-Embedder-Policy: require-corp\n  \
     Referrer-Policy: no-referrer\n  X-Content-Type-Options: nosniff\n";

/// That of the page's own files, which asks to stay with them.
const LICENSE: &[u8] = include_bytes!("../../../LICENSE-MIT");

/// How the page looks at images: as the model does, in windows of the exported size. A model that sees images whole
/// gets windows that overlap by a third, unless an image has just that size.
#[must_use]
pub fn settings(card: &ModelCard, size: [usize; 2]) -> InferConfig {
    let eval = &card.eval;
    let step = |side: usize| match eval.mode {
        InferMode::Whole => size[side] * 2 / 3,
        _ => size[side] * eval.stride[side] / eval.crop[side].max(1),
    };
    let stride = [0, 1].map(|side| step(side).clamp(1, size[side]));
    InferConfig { mode: InferMode::Slide, crop: size, stride, ..eval.clone() }
}

/// All files of the folder.
///
/// # Errors
/// A model that cannot label an image, and pictures that cannot be encoded.
pub fn files(
    name: &str,
    model: &Model,
    card: &ModelCard,
    options: &ExportOptions,
    exported: &Exported,
    runtime: &Runtime,
) -> Result<Files> {
    let mut all: Files = page::of_browser().map(|file| (file.path.to_owned(), file.bytes.to_vec())).collect();
    for (_, bytes) in all.iter_mut().filter(|(path, _)| path == "index.html") {
        *bytes = with_policy(bytes)?;
    }
    // An image that anybody may see, and what the file says of it: a browser that says something else is not used. How
    // far the file agrees with the model has been judged by now.
    let image = Shapes::new(0, Split::Test, 1, options.size[0].max(options.size[1])).get(0)?.image;
    let golden = Pictures::generated(vec![image], options.size);
    let engine = Engine::load(exported.bytes.clone())?;
    let labels = agreement::labels(&engine, model, &card.data.preprocess, options, &golden)?;
    all.push(("golden.png".to_owned(), encode_png(golden.first())?));
    all.push(("golden-labels.png".to_owned(), encode_index_png(&labels, &card.classes.colors)?));
    let description = serde_json::to_string_pretty(&description(name, card, options, exported)?);
    let description = description.map_err(|error| Error::new("cannot describe the model").with_source(error))?;
    all.push(("model.json".to_owned(), description.into_bytes()));
    all.push((place(Profile::Web).to_owned(), exported.bytes.clone()));
    all.push(("_headers".to_owned(), HEADERS.as_bytes().to_vec()));
    all.push(("LICENSE.txt".to_owned(), LICENSE.to_vec()));
    all.extend(runtime.files());
    Ok(all)
}

/// The page with its policy, which servers of static files do not send.
fn with_policy(page: &[u8]) -> Result<Vec<u8>> {
    const AFTER: &str = "<meta charset=\"utf-8\">\n";
    let text = String::from_utf8_lossy(page);
    let Some((before, after)) = text.split_once(AFTER) else { return Err(Error::new("the page has no head")) };
    let policy = format!("<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n");
    Ok(format!("{before}{AFTER}{policy}{after}").into_bytes())
}

/// What the page is told of the model.
fn description(name: &str, card: &ModelCard, options: &ExportOptions, exported: &Exported) -> Result<Value> {
    let described = serde_json::to_value(&card.model)
        .map_err(|error| Error::new("cannot describe the model").with_source(error))?;
    let kind = |part: &str| described[part]["type"].as_str().unwrap_or("own").to_owned();
    let class = |(id, name): (usize, &String)| json!({"id": id, "name": name, "color": page::color(card.classes.colors.get(id))});
    let InferConfig { crop, stride, resize, scales, flip, .. } = settings(card, options.size);
    let sum = sha256(&exported.bytes[..]).map_err(|error| Error::new("cannot read the model").with_source(error))?;
    Ok(json!({
        "name": name,
        "version": env!("CARGO_PKG_VERSION"),
        "architecture": format!("{} + {}", kind("backbone"), kind("decoder")),
        "miou": card.training.as_ref().and_then(|training| training.miou),
        "classes": card.classes.names.iter().enumerate().map(class).collect::<Vec<_>>(),
        "file": place(Profile::Web),
        "bytes": exported.bytes.len(),
        "sha256": sum,
        "precision": options.precision,
        "settings": {"crop": crop, "stride": stride, "resize": resize, "scales": scales, "flip": flip},
        "golden": {
            "image": "golden.png",
            "labels": "golden-labels.png",
            "same": Bounds::of(options.precision).same_labels,
        },
        "runtime": VERSION,
        "agreement": exported.agreement,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::dataset::Classes;

    #[test]
    fn windows_are_those_of_the_model() {
        let recipe = Config::parse("[eval]\nmode = 'slide'\ncrop = [64, 96]\nstride = [40, 48]", "page", &[]).unwrap();
        let classes = Classes { names: vec!["a".into(), "b".into()], colors: vec![[0; 3], [9; 3]] };
        let mut card = ModelCard::new(&recipe, &classes).unwrap();
        let found = |card: &ModelCard, size| (settings(card, size).crop, settings(card, size).stride);
        assert_eq!(found(&card, [64, 96]), ([64, 96], [40, 48]));
        assert_eq!(found(&card, [128, 192]), ([128, 192], [80, 96]));
        card.eval.mode = InferMode::Whole;
        assert_eq!(found(&card, [64, 96]), ([64, 96], [42, 64]));
        assert!(settings(&card, [64, 96]).check().is_ok());
    }

    #[test]
    fn the_page_has_its_policy() {
        let index = page::of_browser().find(|file| file.path == "index.html").unwrap();
        let text = String::from_utf8(with_policy(index.bytes).unwrap()).unwrap();
        let at = |what: &str| text.find(what).unwrap();
        assert!(at("wasm-unsafe-eval") < at("<script") && !text.contains("'unsafe-inline'"));
        assert!(with_policy(b"<html>").is_err());
    }
}
