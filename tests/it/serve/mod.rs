//! `structtoken serve`, from outside: its answers are what `predict` writes, whatever else happens.

mod answers;
mod client;
mod drain;
mod hostile;
mod protocols;
mod rights;
mod warmup;

use std::io::Cursor;
use std::path::Path;

use crate::cli::Lab;
pub(crate) use crate::predict::model;

/// Blocks of colour.
fn picture(seed: u32, width: u32, height: u32) -> image::RgbImage {
    image::RgbImage::from_fn(width, height, |x, y| {
        let block = x / 7 * 31 + y / 5 * 17 + seed * 101;
        image::Rgb([(block * 53) as u8, (block * 97) as u8, (block * 29 + x) as u8])
    })
}

fn png(seed: u32, width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    picture(seed, width, height).write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes
}

fn jpeg(seed: u32, width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    picture(seed, width, height).write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Jpeg).unwrap();
    bytes
}

/// The mask that `predict` writes of a picture.
fn predicted(lab: &Lab, model: &str, name: &str, more: &[&str]) -> Vec<u8> {
    lab.ok(&[&["predict", model, name, "--out", "predicted", "--overwrite", "--device", "cpu"][..], more].concat());
    let stem = Path::new(name).file_stem().unwrap().to_str().unwrap().to_owned();
    std::fs::read(lab.path(&format!("predicted/{stem}.png"))).unwrap()
}

/// Many small windows: an image that takes its time.
const SLOW: [&str; 6] = ["--set", "eval.mode=slide", "--set", "eval.crop=[32,32]", "--set", "eval.stride=[16,16]"];
