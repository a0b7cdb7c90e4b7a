//! Every parser that reads what users bring, each as a function of bytes that must neither panic nor take memory without
//! bound, whatever the bytes are. What it answers is not looked at.
//!
//! A new one is a function in [`targets`], a line in [`TARGETS`], a folder `corpus/NAME` with a few small files, and a file in
//! `fuzz_targets/` with its `[[bin]]`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod annotations;
pub mod mutate;
pub mod runs;
pub mod targets;

use structtoken::serve::untrusted;

/// A parser under attack.
pub struct Target {
    /// Its name, and that of its folder in `corpus/`.
    pub name: &'static str,
    /// Reads the bytes.
    pub run: fn(&[u8]),
    /// Mutated inputs that the test tries.
    pub tries: u64,
    /// The most memory that reading one input may take, in MB.
    pub memory_mb: usize,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "dataset_toml", run: targets::dataset_toml, tries: 20_000, memory_mb: 64 },
    Target { name: "safetensors", run: targets::safetensors, tries: 20_000, memory_mb: 64 },
    Target { name: "model_card", run: targets::model_card, tries: 10_000, memory_mb: 64 },
    Target { name: "pickle", run: targets::pickle, tries: 20_000, memory_mb: 256 },
    Target { name: "zip_pth", run: targets::zip_pth, tries: 10_000, memory_mb: 256 },
    Target { name: "npz", run: targets::npz, tries: 10_000, memory_mb: 128 },
    // A picture may have 2^28 pixels of three bytes, and coefficients before that.
    Target { name: "image", run: targets::image, tries: 8_000, memory_mb: 3500 },
    Target { name: "mask", run: targets::mask, tries: 8_000, memory_mb: 1700 },
    Target { name: "npy", run: targets::npy, tries: 20_000, memory_mb: 64 },
    Target { name: "jpeg_complete", run: targets::jpeg_complete, tries: 8_000, memory_mb: 1300 },
    Target { name: "run_lengths", run: targets::run_lengths, tries: 50_000, memory_mb: 16 },
    Target { name: "coco", run: annotations::coco, tries: 600, memory_mb: 64 },
    Target { name: "labelme", run: annotations::labelme, tries: 600, memory_mb: 64 },
    Target { name: "yolo_txt", run: annotations::yolo_txt, tries: 600, memory_mb: 64 },
    Target { name: "yolo_yaml", run: annotations::yolo_yaml, tries: 600, memory_mb: 64 },
    Target { name: "label_studio", run: annotations::label_studio, tries: 600, memory_mb: 64 },
    Target { name: "class_names", run: annotations::class_names, tries: 600, memory_mb: 64 },
    Target { name: "supervisely", run: annotations::supervisely, tries: 600, memory_mb: 64 },
    Target { name: "via", run: annotations::via, tries: 600, memory_mb: 64 },
    Target { name: "recipe_toml", run: runs::recipe_toml, tries: 2_000, memory_mb: 64 },
    Target { name: "state_json", run: runs::state_json, tries: 100_000, memory_mb: 16 },
    Target { name: "run_log", run: runs::run_log, tries: 50_000, memory_mb: 16 },
    Target { name: "manifest_json", run: runs::manifest_json, tries: 50_000, memory_mb: 16 },
    Target { name: "shard_json", run: runs::shard_json, tries: 10_000, memory_mb: 16 },
    Target { name: "compare_plan", run: runs::compare_plan, tries: 3_000, memory_mb: 64 },
    Target { name: "result_json", run: runs::result_json, tries: 50_000, memory_mb: 16 },
    Target { name: "repeat_json", run: runs::repeat_json, tries: 10_000, memory_mb: 16 },
    Target { name: "multipart", run: untrusted::multipart, tries: 20_000, memory_mb: 64 },
    Target { name: "query", run: untrusted::query, tries: 50_000, memory_mb: 16 },
    Target { name: "inference_request", run: untrusted::inference_request, tries: 50_000, memory_mb: 16 },
    Target { name: "label_studio_request", run: untrusted::label_studio_request, tries: 50_000, memory_mb: 16 },
];
