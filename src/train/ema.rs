//! The moving average of the weights (EMA), which is often better than the last of them.

use std::collections::BTreeMap;

use burn::module::Module;

use crate::layers::parameters;

/// An exponential moving average of a network's weights, without gradients.
#[derive(Clone, Debug)]
pub struct Ema<M> {
    model: M,
    decay: f64,
}

impl<M: Module> Ema<M> {
    /// Begins with the weights of `model`, which has no autodiff.
    pub fn new(model: M, decay: f64) -> Self {
        Self { model, decay }
    }

    /// Takes in the weights after step number `step`, from 1 on: `average · d + weights · (1 - d)`. At first
    /// `d = (1 + step) / (10 + step)`, so that the beginning is forgotten (as in TensorFlow and timm).
    #[must_use]
    pub fn update(self, model: &M, step: u64) -> Self {
        let decay = self.decay.min((1 + step) as f64 / (10 + step) as f64);
        let mut now = BTreeMap::new();
        parameters::visit(model, |parameter, value| _ = now.insert(parameter.name.to_owned(), value));
        let model = parameters::map(self.model, |parameter, average| match now.remove(parameter.name) {
            Some(value) => average.clone() + (value - average) * (1.0 - decay),
            None => average,
        });
        Self { model, ..self }
    }

    /// The average.
    pub fn model(&self) -> &M {
        &self.model
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::config::Config;
    use crate::model::Model;

    #[test]
    fn the_average_follows() {
        let text = "[model.backbone]\ntype = \"vit\"\nembed_dim = 8\ndepth = 1\nnum_heads = 1\nimg_size = [32, 32]";
        let config = Config::parse(text, "r.toml", &[]).unwrap().model;
        let [first, second] = [0, 1].map(|seed| config.init(3, seed, &Device::flex()));
        let values = |model: &Model| {
            let mut all = Vec::new();
            parameters::visit(model, |_, value| all.extend(value.into_data().iter::<f32>()));
            all
        };
        let average = |decay: f64, step| values(Ema::new(first.clone(), decay).update(&second, step).model());
        let expected = |decay: f32| -> Vec<f32> {
            values(&first).iter().zip(values(&second)).map(|(a, b)| a + (b - a) * (1.0 - decay)).collect()
        };
        let cases = [(0.999, 1, 2.0 / 11.0), (0.999, 100_000, 0.999), (0.5, 9, 0.5)];
        for (decay, step, used) in cases {
            for (found, expected) in average(decay, step).iter().zip(expected(used)) {
                assert!((found - expected).abs() < 1e-6, "{decay} {step}: {found} for {expected}");
            }
        }
    }
}
