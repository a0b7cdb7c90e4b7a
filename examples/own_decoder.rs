//! A decoder of your own, trained by the same trainer as those of the library:
//! `cargo run --release --example own_decoder`
#![allow(clippy::print_stdout, reason = "an example prints its result")]

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;
use burn::tensor::activation::relu;
use structtoken::backbone::{BackboneConfig, BackboneInput, UnetConfig};
use structtoken::dataset::shapes::Shapes;
use structtoken::dataset::{Dataset, Split};
use structtoken::decoder::{Decoder, Output};
use structtoken::layers::{ForwardContext, Init, PointwiseConv};
use structtoken::model::Model;
use structtoken::train::{Observer, Progress, TrainConfig, Trainer};

/// Two layers for every place of the last map.
#[derive(Module, Debug)]
struct TwoLayers {
    hidden: PointwiseConv,
    classifier: PointwiseConv,
}

impl Decoder for TwoLayers {
    fn forward(&self, input: BackboneInput, context: &ForwardContext) -> Output {
        let features = input.features(context).last(); // [b, h, w, c]
        self.classifier.forward(relu(self.hidden.forward(features))).into() // [b, h, w, k]
    }
}

/// Prints the loss now and then.
struct Print;

impl Observer for Print {
    fn iteration(&mut self, progress: &Progress) {
        if progress.iteration.is_multiple_of(25) {
            println!("iteration {}/{}  loss {:.3}", progress.iteration, progress.iterations, progress.loss);
        }
    }

    fn evaluated(&mut self, iteration: u64, scores: &structtoken::metrics::Scores) {
        println!("after {iteration} iterations mIoU {:.1} %", 100.0 * scores.miou.unwrap_or(0.0));
    }
}

fn main() -> structtoken::Result<()> {
    let iterations = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(200);
    let [training, validation] =
        [(Split::Train, 2000), (Split::Val, 40)].map(|(split, n)| Shapes::new(0, split, n, 48));
    let classes = training.classes().len();
    let device = Device::flex();

    let mut unet = UnetConfig::default();
    unet.channels = vec![16, 32, 64];
    unet.depths = vec![1; 3];
    unet.img_size = [48, 48];
    let backbone = BackboneConfig::Unet(unet);
    let features = backbone.features();
    let init = &mut Init::new(0, &device.clone().autodiff());
    let decoder = TwoLayers {
        hidden: PointwiseConv::new(features.last(), 64, init),
        classifier: PointwiseConv::new(64, classes, init),
    };
    let model = Model::new(backbone.init(init), decoder, classes, features.stride());

    let mut config = TrainConfig::default();
    config.iterations = iterations;
    config.batch_size = 8;
    config.eval_every = 0;
    config.optimizer.lr = 3e-3;
    config.schedule.warmup_iters = 20;
    let mut trainer = Trainer::new(config, &device);
    trainer.augment.resize = None;
    trainer.augment.crop = [48, 48];
    trainer.fit(model, Arc::new(training), &validation, &mut Print)?;
    Ok(())
}
