//! Values that are functions of their names, as the references were computed on: no file has to hold them.

use std::path::Path;

use burn::tensor::TensorData;

/// Pseudo-random numbers u in [0, 1): FNV-1a-64 of the name, and splitmix64 of that and the index.
pub(crate) fn uniform(name: &str, len: usize) -> Vec<f64> {
    let hash = structtoken::rng::fnv1a(name.as_bytes());
    let value = |i: u64| {
        let mut z = hash.wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (z >> 40) as f64 / f64::from(1 << 24)
    };
    (0..len as u64).map(value).collect()
}

/// The references' inputs: a hash of the name and the index.
pub(crate) fn hashed<const D: usize>(name: &str, shape: [usize; D], value: impl Fn(f64) -> f32) -> TensorData {
    let values: Vec<f32> = uniform(name, shape.iter().product()).into_iter().map(value).collect();
    TensorData::new(values, shape)
}

/// A parameter of the references, from StructToken to EoMT.
pub(crate) fn filled(name: &str, shape: &[usize]) -> Vec<f32> {
    let count: usize = shape.iter().product();
    let (center, spread) = match (name.rsplit('.').next().unwrap(), shape.len()) {
        ("pos_embed" | "cls_token" | "kernels" | "cls_emb" | "register_tokens", _) => (0.0, 0.5),
        (_, 2..) => (0.0, (3.0 / (count as f64 / shape[0] as f64)).sqrt()),
        ("weight" | "lambda1" | "running_var", _) => (1.0, 0.3),
        _ => (0.0, 0.1),
    };
    uniform(name, count).into_iter().map(|u| (center + spread * (2.0 * u - 1.0)) as f32).collect()
}

/// An input or a label map of the references: `image`, `labels`, or `cells`, which are labels of 8 x 8 pixels.
pub(crate) fn input(kind: &str, name: &str, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    let class = |u: f64| if u < 7.0 / 8.0 { (8.0 * u).floor() as f32 } else { 255.0 };
    match kind {
        "image" => uniform(name, count).into_iter().map(|u| (2.0 * (2.0 * u - 1.0)) as f32).collect(),
        "labels" => uniform(name, count).into_iter().map(class).collect(),
        "cells" => {
            let [_, height, width] = shape[..] else { panic!("not label maps: {shape:?}") };
            let (rows, columns) = (height / 8, width / 8);
            let cells = uniform(name, count / 64);
            let pixel = |i: usize| {
                let (image, y, x) = (i / (height * width), i / width % height / 8, i % width / 8);
                // The n-th image lacks the last n classes.
                let id = class(cells[(image * rows + y) * columns + x]);
                if id >= (7 - image) as f32 { 255.0 } else { id }
            };
            (0..count).map(pixel).collect()
        }
        _ => panic!("no input is a `{kind}`"),
    }
}

/// Which of the `count` values of a tensor `scripts/fixtures.py` keeps of it.
pub(crate) fn sampled(name: &str, count: usize) -> Vec<usize> {
    let samples = if count > 8192 { 640 } else { 96 };
    let within = uniform(&format!("sample.{name}"), samples);
    let place = |(part, u): (usize, f64)| ((part << 24) + (u * f64::from(1 << 24)) as usize) * count / (samples << 24);
    within.into_iter().enumerate().map(place).collect()
}

/// What the references' own code gave: hashes, first values and sums.
#[test]
fn values_are_those_of_the_references() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden");
    let mut checked = 0;
    for file in ["structtoken/fill_check.json", "fill_check2.json"] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        let rows: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
        for (name, row) in rows {
            checked += 1;
            if row.get("coarse").is_some() {
                let coarse: Vec<Vec<Vec<f32>>> = serde_json::from_value(row["coarse"].clone()).unwrap();
                let (rows, columns) = (coarse[0].len(), coarse[0][0].len());
                let pixels = input("cells", &name, &[coarse.len(), 8 * rows, 8 * columns]);
                for (i, pixel) in pixels.into_iter().enumerate() {
                    let (row, column) = (i / (8 * columns), i % (8 * columns));
                    assert_eq!(pixel, coarse[row / (8 * rows)][row / 8 % rows][column / 8], "{name}[{i}]");
                }
                continue;
            }
            let first: Vec<f32> = serde_json::from_value(row["first"].clone()).unwrap();
            let shape =
                row.get("shape").map_or(vec![first.len()], |shape| serde_json::from_value(shape.clone()).unwrap());
            let values = match name.split('.').next().unwrap() {
                "input" => input("image", &name, &shape),
                "label" => input("labels", &name, &shape),
                "points" | "rand" => uniform(&name, shape.iter().product()).into_iter().map(|u| u as f32).collect(),
                _ => filled(&name, &shape),
            };
            assert_eq!(values[..first.len()], first, "{name}");
            if let Some(sum) = row.get("sum") {
                assert_eq!(structtoken::rng::fnv1a(name.as_bytes()).to_string(), row["fnv"], "{name}");
                let ours: f64 = values.iter().map(|value| f64::from(*value)).sum();
                assert!((ours - sum.as_f64().unwrap()).abs() < 1e-3, "{name}: {ours} for {sum}");
            }
        }
    }
    assert_eq!(checked, 25);
}
