//! Which block makes the masks? The tokens after every block, held against the model's answer:
#![allow(clippy::print_stdout, reason = "an example prints its result")]
//! `cargo run --release --example probe_tokens -- MODEL.safetensors PHOTO.jpg`

use structtoken::layers::ForwardContext;
use structtoken::predict::Predictor;
use structtoken::{Error, device, model_file};

fn main() -> structtoken::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, photo] = arguments.as_slice() else {
        return Err(Error::new("two paths are needed").with_hint("MODEL.safetensors PHOTO.jpg"));
    };
    let (device, _) = device::open("auto")?;
    let photo = Predictor::open(model, &device)?.read(photo)?;
    let (network, card) = model_file::open(model, &device)?;

    let context = ForwardContext::eval().traced();
    let images = card.data.preprocess.to_tensor(photo, &device);
    let logits = network.forward(images, &context).scores(); // [1, h, w, k]
    let answer = logits.argmax(3).into_data();
    let answer: Vec<i64> = answer.iter::<i64>().collect();
    for (name, tokens) in context.into_trace() {
        if !name.ends_with("kernels") && name != "kernels_in" {
            continue;
        }
        let values: Vec<f32> = tokens.iter::<f32>().collect(); // [1, h, w, k]
        let classes = card.classes.len();
        let strongest =
            values.chunks(classes).map(|scores| (0..classes).max_by(|a, b| scores[*a].total_cmp(&scores[*b])));
        let same =
            strongest.zip(&answer).filter(|(token, answer)| token.map(|class| class as i64) == Some(**answer)).count();
        println!(
            "{name:<16} strongest token = the answer at {:5.1} % of the places",
            100.0 * same as f64 / answer.len() as f64
        );
    }
    Ok(())
}
