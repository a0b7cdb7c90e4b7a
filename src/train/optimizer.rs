//! AdamW over named parameters, with groups, clipping and accumulation.
//!
//! State is kept by parameter name, so a checkpoint is two ordinary `.safetensors` files.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::kernels;
use crate::layers::parameters;

/// What AdamW does, and to whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// Peak rate of the backbone.
    pub lr: f64,
    /// The decoder's rate over the backbone's.
    pub decoder_lr_mult: f64,
    /// Decay rates of the first and the second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Parameters whose name ends in one of these and that are not the decoder's do not decay. mmcv takes the longest
    /// matching key, and `decode_head` is longer than `norm`: so in the published runs norms and biases decay, and only the
    /// two tables of the backbone do not.
    pub no_decay: Vec<String>,
    /// Largest global norm of the gradient; none leaves it as it is.
    pub clip_norm: Option<f64>,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            lr: 2e-5,
            decoder_lr_mult: 8.0,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.01,
            no_decay: vec!["cls_token".into(), "pos_embed".into()],
            clip_norm: None,
        }
    }
}

impl OptimizerConfig {
    /// (factor on the learning rate, weight decay) of a parameter.
    pub fn group(&self, name: &str) -> (f64, f64) {
        let decoder = name.starts_with("decoder.");
        let exempt = !decoder && self.no_decay.iter().any(|end| name.rsplit('.').next() == Some(end));
        (if decoder { self.decoder_lr_mult } else { 1.0 }, if exempt { 0.0 } else { self.weight_decay })
    }
}

/// Gradients by parameter name, each flat.
#[derive(Default)]
pub struct Gradients(BTreeMap<String, Tensor<1>>);

impl Gradients {
    /// Adds the gradients of one backward pass; accumulation sums, so the loss must be divided by the number of passes.
    pub fn add(&mut self, module: &impl Module, grads: burn::tensor::Gradients) {
        for (name, grad) in parameters::gradients(module, grads) {
            let sum = match self.0.remove(&name) {
                Some(sum) => sum + grad,
                None => grad,
            };
            self.0.insert(name, sum);
        }
    }

    /// The global L2 norm, as a tensor, so that nothing waits for the device.
    pub fn norm(&self) -> Option<Tensor<1>> {
        let squares = self.0.values().map(|grad| (grad.clone() * grad.clone()).sum());
        squares.reduce(|a, b| a + b).map(Tensor::sqrt)
    }

    /// Scales all gradients so that the global norm is at most `limit` (`torch.nn.utils.clip_grad_norm_`).
    #[must_use]
    pub fn clip(self, limit: f64) -> Self {
        let Some(norm) = self.norm() else { return self };
        let factor = ((norm + 1e-6).recip() * limit).clamp_max(1.0);
        Self(self.0.into_iter().map(|(name, grad)| (name, grad * factor.clone())).collect())
    }

    /// The gradient of a parameter, flat.
    pub fn get(&self, name: &str) -> Option<&Tensor<1>> {
        self.0.get(name)
    }
}

/// AdamW (Loshchilov and Hutter 2019), step for step as `torch.optim.AdamW`.
pub struct AdamW {
    config: OptimizerConfig,
    step: u64,
    moments: BTreeMap<String, [Tensor<1>; 2]>,
}

impl AdamW {
    /// An optimiser that has seen nothing.
    pub fn new(config: &OptimizerConfig) -> Self {
        Self { config: config.clone(), step: 0, moments: BTreeMap::new() }
    }

    /// One step with the backbone's rate `lr`; parameters without a gradient stay as they are.
    pub fn step<M: Module>(&mut self, module: M, mut grads: Gradients, lr: f64) -> M {
        if let Some(limit) = self.config.clip_norm {
            grads = grads.clip(limit);
        }
        self.step += 1;
        let [beta1, beta2] = self.config.betas;
        parameters::map(module, |parameter, value| {
            let Some(grad) = grads.0.remove(parameter.name) else { return value };
            let (factor, weight_decay) = self.config.group(parameter.name);
            let [m, v] = self.moments.remove(parameter.name).unwrap_or_else(|| [grad.zeros_like(), grad.zeros_like()]);
            let hyper = kernels::AdamW { lr: lr * factor, beta1, beta2, eps: self.config.eps, weight_decay };
            let [value, m, v] = kernels::adamw_step(value, grad, m, v, self.step, &hyper);
            self.moments.insert(parameter.name.to_owned(), [m, v]);
            value
        })
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Both moments of every parameter, named `exp_avg.NAME` and `exp_avg_sq.NAME` as PyTorch calls them.
    pub fn state(&self) -> Vec<(String, TensorData)> {
        let named = self.moments.iter().flat_map(|(name, [m, v])| {
            [(format!("exp_avg.{name}"), m.clone()), (format!("exp_avg_sq.{name}"), v.clone())]
        });
        named.map(|(name, tensor)| (name, tensor.into_data())).collect()
    }

    /// The optimiser as it was after `step` steps.
    pub fn restore(config: &OptimizerConfig, step: u64, moments: BTreeMap<String, [Tensor<1>; 2]>) -> Self {
        Self { config: config.clone(), step, moments }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tables_of_the_backbone_are_spared() {
        let config = OptimizerConfig { decoder_lr_mult: 9.0, ..OptimizerConfig::default() };
        assert_eq!(config.group("backbone.pos_embed"), (1.0, 0.0));
        assert_eq!(config.group("backbone.blocks.0.norm1.weight"), (1.0, 0.01));
        assert_eq!(config.group("decoder.layers.0.ffn1.norm1.bias"), (9.0, 0.01));
    }
}
