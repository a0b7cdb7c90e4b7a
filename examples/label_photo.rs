//! Labels a photo with a trained model: `cargo run --release --example label_photo -- MODEL.safetensors PHOTO.jpg
//! MASK.png`
#![allow(clippy::print_stdout, reason = "an example prints its result")]

use structtoken::image::write_index_png;
use structtoken::predict::Predictor;
use structtoken::{Error, device};

fn main() -> structtoken::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, photo, mask] = arguments.as_slice() else {
        return Err(Error::new("three paths are needed").with_hint("MODEL.safetensors PHOTO.jpg MASK.png"));
    };
    let (device, _) = device::open("auto")?;
    let predictor = Predictor::open(model, &device)?;
    let photo = predictor.read(photo)?;
    let labels = predictor.predict(&photo)?;
    write_index_png(mask, &labels, &predictor.classes().colors)?;
    for (class, name) in predictor.classes().names.iter().enumerate() {
        let pixels = labels.ids.iter().filter(|id| usize::from(**id) == class).count();
        println!("{name:<16} {:5.1} %", 100.0 * pixels as f64 / labels.ids.len() as f64);
    }
    Ok(())
}
