//! Training from a program, with a dataset of your own and a recipe's network:
//! `cargo run --release --example own_dataset`
#![allow(clippy::print_stdout, reason = "an example prints its result")]

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use structtoken::config::Config;
use structtoken::dataset::{Classes, Dataset, Sample};
use structtoken::image::{Image, Labels};
use structtoken::model_file::ModelCard;
use structtoken::rng::Rng;
use structtoken::train::Trainer;
use structtoken::weights;

/// Bright discs on a dark ground, anywhere.
struct Discs {
    count: usize,
    classes: Classes,
}

impl Dataset for Discs {
    fn len(&self) -> usize {
        self.count
    }

    fn get(&self, index: usize) -> structtoken::Result<Sample> {
        let mut rng = Rng::new(1, &[index as u64]);
        let [x, y] = [(); 2].map(|()| rng.range(8.0, 24.0));
        let ids: Vec<u8> = (0..32 * 32)
            .map(|at| u8::from((at % 32) as f32 - x < 7.0 && ((at % 32) as f32 - x).hypot((at / 32) as f32 - y) < 7.0))
            .collect();
        let pixels = ids.iter().flat_map(|id| [60 + 120 * id + rng.below(60) as u8; 3]).collect();
        Ok(Sample { image: Image { width: 32, height: 32, pixels }, labels: Labels { width: 32, height: 32, ids } })
    }

    fn name(&self, index: usize) -> String {
        format!("disc-{index}")
    }

    fn classes(&self) -> &Classes {
        &self.classes
    }
}

const RECIPE: &str = r#"
model.backbone = { type = "unet", channels = [16, 32], depths = [1, 1], img_size = [32, 32] }
model.decoder = { type = "structtoken", block = "pwe", num_blocks = 1 }
data.augment = { resize = "none", crop = [32, 32], photometric = false }
train = { iterations = 60, batch_size = 4, eval_every = 0, optimizer.lr = 3e-3, schedule.warmup_iters = 10 }
"#;

fn main() -> structtoken::Result<()> {
    let classes = Classes { names: ["ground", "disc"].map(str::to_owned).into(), colors: vec![[0; 3], [255, 200, 0]] };
    let discs = |count| Discs { count, classes: classes.clone() };
    let config = Config::parse(RECIPE, "the recipe", &[])?;
    let device = Device::flex();
    let model = config.model.init(classes.len(), config.train.seed, &device.clone().autodiff());
    let trainer = Trainer {
        augment: config.data.augment.clone(),
        preprocess: config.data.preprocess.clone(),
        ..Trainer::new(config.train.clone(), &device)
    };
    let end = trainer.fit(model, Arc::new(discs(200)), &discs(20), &mut ())?;
    if let Some((iteration, miou)) = end.run.best {
        println!("mIoU {:.1} % after {iteration} iterations", 100.0 * miou);
    }
    // `structtoken predict discs.safetensors …` takes it.
    let mut data = config.data.clone();
    data.dataset = "discs".to_owned();
    let card = ModelCard { data, ..ModelCard::new(&config, &classes)? };
    weights::save(Path::new("discs.safetensors"), &end.model, &card.metadata()?)
}
