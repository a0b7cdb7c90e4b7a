//! The description as a file for people: every line says what it is for.

use std::fmt::Write;

use crate::dataset::spec::{Encoding, Join, JoinedMask, Source, SplitSpec};
use crate::tools::init::plan::DatasetPlan;

/// The text of the TOML.
pub(super) fn text(plan: &DatasetPlan) -> String {
    let spec = &plan.spec;
    let mut text = format!(
        "# {}, described by `structtoken data init`. Every line but the last may be edited.\n# `structtoken data check` reports what is \
         wrong.\n",
        plan.kind
    );
    // Writing to a string cannot fail.
    for note in plan.notes.iter().chain(&plan.split_note) {
        let _ = writeln!(text, "#\n# Note: {}", note.replace(char::is_control, " "));
    }
    let _ = writeln!(text, "\nname = {}", quote(&spec.name));
    let _ = match spec.encoding {
        _ if spec.join.is_some() => Ok(()),
        Encoding::Index => {
            writeln!(text, "encoding = \"index\"             # masks store numbers; palettes are not used")
        }
        Encoding::Rgb => writeln!(text, "encoding = \"rgb\"               # masks store colours"),
    };
    let ignore = format!("ignore = [{}]", values(&spec.ignore));
    if spec.join.is_none() {
        let _ = writeln!(text, "{ignore:<30} # mask values that are ignored");
    }
    if let Some([low, high]) = spec.range {
        let range = format!("range = [{low}, {high}]");
        let _ = writeln!(text, "{range:<30} # 16-bit values of images that become black and white");
    }
    if let Some(tolerance) = spec.jpeg_tolerance {
        let tolerance = format!("jpeg_tolerance = {tolerance}");
        let _ =
            writeln!(text, "{tolerance:<30} # JPEG masks: values are rounded to a declared one at most this far off");
    }
    for (name, split) in [("train", &spec.train), ("val", &spec.val), ("test", &spec.test)] {
        if let Some(split) = split {
            add_split(name, split, &mut text);
        }
    }
    if let Some(join) = &spec.join {
        add_join(join, &mut text);
    }
    for class in &spec.classes {
        let _ = writeln!(text, "\n[[classes]]\nname = {}", quote(&class.name));
        if let Some(color) = class.color {
            let _ = writeln!(text, "color = {}", Source::Rgb(color));
        }
        if let Some(sources) = &class.source {
            let _ = writeln!(text, "source = [{}]", values(sources));
        }
    }
    text
}

/// A string of TOML: JSON's, but for one character.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

fn values(values: &[Source]) -> String {
    values.iter().map(Source::to_string).collect::<Vec<_>>().join(", ")
}

fn add_split(name: &str, split: &SplitSpec, text: &mut String) {
    let SplitSpec { images, masks, image_suffix, mask_suffix, list } = split;
    let _ = writeln!(text, "\n[{name}]");
    let mut line = |key: &str, value: &str, why: &str| {
        let line = format!("{key} = {}", quote(value));
        let _ = writeln!(text, "{line:<30} # {why}");
    };
    let path = |path: &std::path::Path| path.display().to_string();
    let place = if images.is_absolute() { "the folder of images" } else { "relative to this file" };
    line("images", &path(images), place);
    line("masks", &path(masks), "one per image, with the same name");
    if let Some(suffix) = image_suffix {
        line("image_suffix", suffix, "the ending of images");
    }
    if image_suffix.is_some() || mask_suffix != ".png" {
        line("mask_suffix", mask_suffix, "replaces the image's ending");
    }
    if let Some(list) = list {
        line("list", &path(list), "the images of this split, one per line");
    }
}

fn add_join(join: &Join, text: &mut String) {
    let _ = writeln!(text, "\n[join]                         # each image has several masks, which become one");
    let _ =
        writeln!(text, "masks = [                      # what `file` shows is `class`; {{stem}} is the image's name");
    for JoinedMask { file, class } in &join.masks {
        let _ = writeln!(text, "    {{ file = {}, class = {} }},", quote(file), quote(class));
    }
    let rest = format!("rest = {}", quote(&join.rest));
    let _ = writeln!(text, "]\n{rest:<30} # what no mask shows: a class, or \"ignore\"");
    let overlap = serde_json::to_string(&join.overlap).unwrap_or_default();
    let overlap = format!("overlap = {overlap}");
    let _ =
        writeln!(text, "{overlap:<30} # what several show: \"later\" in the list wins, or \"earlier\"; or \"ignore\"");
    if let Some(threshold) = join.threshold {
        let threshold = format!("threshold = {threshold}");
        let _ = writeln!(text, "{threshold:<30} # values from this one on are shown");
    }
}
