//! The trainer without a run.

use std::collections::BTreeMap;

use super::*;
use crate::backbone::{BackboneConfig, UnetConfig};
use crate::dataset::Split;
use crate::dataset::shapes::Shapes;
use crate::layers::parameters;
use crate::model::{Model, ModelConfig};

fn trained(change: impl FnOnce(&mut TrainConfig)) -> Result<[BTreeMap<String, Vec<f32>>; 2]> {
    let unet = UnetConfig { channels: vec![8, 16], depths: vec![1; 2], img_size: [16, 16], ..UnetConfig::default() };
    let config = ModelConfig { backbone: BackboneConfig::Unet(unet), ..ModelConfig::default() };
    let [training, validation] = [Split::Train, Split::Val].map(|split| Shapes::new(0, split, 8, 16));
    let mut train = TrainConfig { iterations: 2, batch_size: 2, eval_every: 0, ..TrainConfig::default() };
    change(&mut train);
    let mut trainer = Trainer::new(train, &Device::flex());
    (trainer.augment.resize, trainer.augment.crop) = (None, [16, 16]);
    let model = config.init(training.classes().len(), 0, &Device::flex().autodiff());
    let values = |model: &Model| {
        let mut all = BTreeMap::new();
        parameters::visit(model, |parameter, value| {
            all.insert(parameter.name.to_owned(), value.into_data().iter::<f32>().collect());
        });
        all
    };
    let before = values(&model);
    let end = trainer.fit(model, Arc::new(training), &validation, &mut ())?;
    Ok([before, values(&end.model)])
}

#[test]
fn the_whole_of_a_recipe_is_honoured() {
    let changed = |part: &str, [before, after]: &[BTreeMap<String, Vec<f32>>; 2]| {
        before.iter().any(|(name, values)| name.starts_with(part) && after[name] != *values)
    };
    let all = trained(|train| train.optimizer.lr = 1e-2).unwrap();
    assert!(changed("backbone.", &all) && changed("decoder.", &all));
    let frozen = trained(|train| (train.optimizer.lr, train.freeze_backbone) = (1e-2, true)).unwrap();
    assert!(!changed("backbone.", &frozen) && changed("decoder.", &frozen));
    let error = |change: fn(&mut TrainConfig)| trained(change).unwrap_err().to_string();
    assert!(error(|train| train.accumulate = 0).contains("accumulate"));
    assert!(error(|train| train.class_weights = vec![1.0; 2]).contains("2 values for 6 classes"));
}
