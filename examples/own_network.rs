//! A network of your own in the predictor, with its windows, flips and scales:
//! `cargo run --release --example own_network`
#![allow(clippy::print_stdout, reason = "an example prints its result")]

use burn::tensor::{Device, Tensor};
use structtoken::dataset::shapes::Shapes;
use structtoken::dataset::{Classes, Dataset, Split};
use structtoken::decoder::SegLogits;
use structtoken::infer::{InferConfig, Network};
use structtoken::loader::preprocess::Preprocess;
use structtoken::predict::Predictor;

/// Says "bright" or "dark" of every square of 4 x 4 pixels. Nothing is learned.
struct Brightness;

impl Network for Brightness {
    fn predict_logits(&self, images: Tensor<4>) -> SegLogits {
        let [b, _, h, w] = images.dims();
        let bright = images.mean_dim(1).reshape([b, h / 4, 4, w / 4, 4]).mean_dim(4).mean_dim(2);
        let bright = bright.reshape([b, h / 4, w / 4, 1]);
        Tensor::cat(vec![bright.clone().neg(), bright], 3).into() // class logits [b, h / 4, w / 4, 2]
    }

    fn classes(&self) -> usize {
        2
    }

    fn padded(&self, side: usize) -> usize {
        side.next_multiple_of(4)
    }
}

fn main() -> structtoken::Result<()> {
    let names = ["dark", "bright"].map(str::to_owned).to_vec();
    let classes = Classes { names, colors: vec![[0; 3], [255; 3]] };
    let mut config = InferConfig::default();
    config.flip = true;
    config.scales = vec![1.0, 2.0];
    let predictor = Predictor::new(Brightness, Preprocess::default(), config, Device::flex(), classes)?;
    let sample = Shapes::new(0, Split::Val, 1, 64).get(0)?;
    let labels = predictor.predict(&sample.image)?;
    for row in labels.ids.chunks(labels.width).step_by(4) {
        println!("{}", row.iter().step_by(2).map(|id| if *id == 1 { '#' } else { '.' }).collect::<String>());
    }
    Ok(())
}
