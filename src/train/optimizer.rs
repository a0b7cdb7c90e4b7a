//! AdamW and SGD over named parameters, with groups, layer-wise learning rates, clipping and accumulation.
//!
//! State is kept by parameter name, so that a checkpoint stores it as an ordinary `.safetensors` file beside the model.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::kernels;
use crate::layers::{fetch, parameters};
pub use crate::train::gradients::Gradients;

/// What the optimizer does, and to whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct OptimizerConfig {
    /// Which one.
    #[serde(rename = "type")]
    pub rule: Rule,
    /// Peak learning rate of the backbone.
    pub lr: f64,
    /// The decoder's learning rate over the backbone's.
    pub decoder_lr_mult: f64,
    /// Layer-wise decay of the learning rate (Bao et al. 2022, BEiT; timm's `layer_decay`): each block of the backbone
    /// learns at this fraction of the learning rate of the block after it, the embedding at that of a block before the
    /// first; 1 is none. Of a plain ViT; other backbones learn at one rate.
    pub layer_decay: f64,
    /// AdamW's decay rates of the first and the second moment.
    pub betas: [f64; 2],
    /// Added by AdamW to the root of the second moment.
    pub eps: f64,
    /// SGD's share of the step before in each step.
    pub momentum: f64,
    /// SGD looks ahead by its momentum.
    pub nesterov: bool,
    /// Weight decay: AdamW's is decoupled, SGD's is part of the gradient.
    pub weight_decay: f64,
    /// Parameters whose name ends in one of these and that are not the decoder's do not decay. mmcv takes the longest
    /// matching key, and `decode_head` is longer than `norm`: so in the published runs norms and biases decay, and only
    /// the two tables of the backbone do not.
    pub no_decay: Vec<String>,
    /// Largest global norm of the gradient; none leaves it as it is.
    pub clip_norm: Option<f64>,
}

/// How a gradient becomes a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Rule {
    /// AdamW (Loshchilov and Hutter 2019), step for step as `torch.optim.AdamW`.
    #[default]
    AdamW,
    /// Stochastic gradient descent with momentum, step for step as `torch.optim.SGD`.
    Sgd,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            rule: Rule::AdamW,
            lr: 2e-5,
            decoder_lr_mult: 8.0,
            layer_decay: 1.0,
            betas: [0.9, 0.999],
            eps: 1e-8,
            momentum: 0.9,
            nesterov: false,
            weight_decay: 0.01,
            no_decay: vec!["cls_token".into(), "pos_embed".into()],
            clip_norm: None,
        }
    }
}

impl OptimizerConfig {
    /// (factor on the learning rate, weight decay) of a parameter of a network whose backbone has `depth` blocks.
    pub fn group(&self, name: &str, depth: usize) -> (f64, f64) {
        let Some(name) = name.strip_prefix("backbone.") else { return (self.decoder_lr_mult, self.weight_decay) };
        let exempt = self.no_decay.iter().any(|end| name.rsplit('.').next() == Some(end));
        // Only a plain transformer's blocks are told apart.
        if depth == 0 {
            return (1.0, if exempt { 0.0 } else { self.weight_decay });
        }
        // Layers above this one; what comes after the blocks, their norm, has none.
        let above = match block(name) {
            Some(index) => depth.saturating_sub(index),
            None if name.starts_with("norm.") => 0,
            None => depth + 1,
        };
        (self.layer_decay.powi(above as i32), if exempt { 0.0 } else { self.weight_decay })
    }

    /// Refuses values that cannot work, naming the key.
    ///
    /// # Errors
    /// A rate, a factor or a limit out of its range.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: &str| Err(Error::new(what));
        if self.betas.iter().any(|beta| !(0.0..1.0).contains(beta)) || self.eps.is_nan() || self.eps <= 0.0 {
            return refuse("optimizer.betas must be in [0, 1), and optimizer.eps above 0");
        }
        if !(0.0..1.0).contains(&self.momentum) || (self.nesterov && self.momentum == 0.0) {
            return refuse("optimizer.momentum must be in [0, 1), and above 0 with nesterov");
        }
        if !(self.layer_decay > 0.0 && self.layer_decay <= 1.0) {
            return refuse("optimizer.layer_decay must be above 0 and at most 1, which means none");
        }
        if self.clip_norm.is_some_and(|limit| !limit.is_finite() || limit <= 0.0) {
            return refuse("optimizer.clip_norm must be above 0; leave it out not to clip");
        }
        let rates = [self.lr, self.decoder_lr_mult, self.weight_decay];
        if rates.iter().any(|rate| !rate.is_finite() || *rate < 0.0) {
            return refuse("optimizer.lr, decoder_lr_mult and weight_decay must be finite and not negative");
        }
        Ok(())
    }
}

/// The number of the block that a parameter of the backbone belongs to.
fn block(name: &str) -> Option<usize> {
    name.strip_prefix("blocks.")?.split('.').next()?.parse().ok()
}

/// The learning rates of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LearningRates {
    /// Of the backbone.
    pub backbone: f64,
    /// Of the decoder, before its factor.
    pub decoder: f64,
}

impl From<f64> for LearningRates {
    fn from(rate: f64) -> Self {
        Self { backbone: rate, decoder: rate }
    }
}

/// The optimizer and its state.
pub struct Optimizer {
    config: OptimizerConfig,
    step: u64,
    /// For each parameter the tensors of [`Rule::state_names`].
    state: BTreeMap<String, Vec<Tensor<1>>>,
}

impl Rule {
    /// Names of the state tensors of a parameter, as in PyTorch.
    pub fn state_names(self) -> &'static [&'static str] {
        match self {
            Self::AdamW => &["exp_avg", "exp_avg_sq"],
            Self::Sgd => &["momentum_buffer"],
        }
    }
}

impl Optimizer {
    /// An optimizer that has seen nothing.
    pub fn new(config: &OptimizerConfig) -> Self {
        Self { config: config.clone(), step: 0, state: BTreeMap::new() }
    }

    /// One step; parameters without a gradient stay as they are.
    pub fn step<M: Module>(&mut self, module: M, mut grads: Gradients, rates: impl Into<LearningRates>) -> M {
        if let Some(limit) = self.config.clip_norm {
            grads = grads.clip(limit);
        }
        self.step += 1;
        let rates = rates.into();
        let depth = grads.0.keys().filter_map(|name| block(name.strip_prefix("backbone.")?)).max().map_or(0, |i| i + 1);
        if self.config.rule == Rule::AdamW && grads.0.values().all(kernels::adamw_together) {
            return self.step_together(module, grads, rates, depth);
        }
        parameters::map(module, |parameter, value| {
            let Some(grad) = grads.0.remove(parameter.name) else { return value };
            let (lr, weight_decay) = self.rates_of(parameter.name, rates, depth);
            let state = self.take_state(parameter.name, &grad);
            let (value, state) = self.change(value, grad, state, lr, weight_decay);
            self.state.insert(parameter.name.to_owned(), state);
            value
        })
    }

    /// The same step of AdamW as one operation on all parameters.
    fn step_together<M: Module>(&mut self, module: M, mut grads: Gradients, rates: LearningRates, depth: usize) -> M {
        let (mut names, mut tensors, mut hypers) = (Vec::new(), Vec::new(), Vec::new());
        parameters::visit(&module, |parameter, value| {
            let Some(grad) = grads.0.remove(parameter.name) else { return };
            let (lr, weight_decay) = self.rates_of(parameter.name, rates, depth);
            let state = <[_; 2]>::try_from(self.take_state(parameter.name, &grad));
            let Ok([mean, square]) = state else { unreachable!("every rule is given its state") };
            names.push(parameter.name.to_owned());
            tensors.push([value, grad, mean, square]);
            hypers.push(self.adamw(lr, weight_decay));
        });
        let mut values = BTreeMap::new();
        for (name, [value, mean, square]) in names.into_iter().zip(kernels::adamw_steps(tensors, self.step, &hypers)) {
            self.state.insert(name.clone(), vec![mean, square]);
            values.insert(name, value);
        }
        parameters::map(module, |parameter, value| values.remove(parameter.name).unwrap_or(value))
    }

    /// The learning rate and the weight decay of a parameter.
    fn rates_of(&self, name: &str, rates: LearningRates, depth: usize) -> (f64, f64) {
        let (factor, weight_decay) = self.config.group(name, depth);
        (factor * if name.starts_with("backbone.") { rates.backbone } else { rates.decoder }, weight_decay)
    }

    /// The state of a parameter, whose gradient this is: zeros at first.
    fn take_state(&mut self, name: &str, grad: &Tensor<1>) -> Vec<Tensor<1>> {
        let zeros = || self.config.rule.state_names().iter().map(|_| grad.zeros_like()).collect();
        self.state.remove(name).unwrap_or_else(zeros)
    }

    fn adamw(&self, lr: f64, weight_decay: f64) -> kernels::AdamW {
        let [beta1, beta2] = self.config.betas;
        kernels::AdamW { lr, beta1, beta2, eps: self.config.eps, weight_decay }
    }

    fn change(
        &self,
        value: Tensor<1>,
        grad: Tensor<1>,
        mut state: Vec<Tensor<1>>,
        lr: f64,
        weight_decay: f64,
    ) -> (Tensor<1>, Vec<Tensor<1>>) {
        let (second, first) = (state.pop(), state.pop());
        match (self.config.rule, first, second) {
            (Rule::AdamW, Some(m), Some(v)) => {
                let hyper = self.adamw(lr, weight_decay);
                let [value, m, v] = kernels::adamw_step(value, grad, m, v, self.step, &hyper);
                (value, vec![m, v])
            }
            (Rule::Sgd, None, Some(before)) => {
                let momentum = self.config.momentum;
                let grad = grad + value.clone() * weight_decay;
                let buffer = before * momentum + grad.clone();
                let step = if self.config.nesterov { grad + buffer.clone() * momentum } else { buffer.clone() };
                (value - step * lr, vec![buffer])
            }
            _ => unreachable!("every rule is given its state"),
        }
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// The optimizer state, named `MOMENT.NAME`.
    pub fn state(&self) -> Vec<(String, TensorData)> {
        let rule = self.config.rule;
        let named = self.state.iter().flat_map(|(name, state)| {
            rule.state_names()
                .iter()
                .zip(state)
                .map(move |(moment, tensor)| (format!("{moment}.{name}"), tensor.clone()))
        });
        named.map(|(name, tensor)| (name, fetch(tensor))).collect()
    }

    /// The optimizer as it was after `step` steps, from its [`state`](Self::state).
    ///
    /// # Errors
    /// A tensor is of another rule, or one is missing.
    pub fn restore(
        config: &OptimizerConfig,
        step: u64,
        state: impl IntoIterator<Item = (String, Tensor<1>)>,
    ) -> Result<Self> {
        let names = config.rule.state_names();
        let mut found: BTreeMap<String, Vec<Option<Tensor<1>>>> = BTreeMap::new();
        for (name, tensor) in state {
            let place = name
                .split_once('.')
                .and_then(|(moment, name)| Some((names.iter().position(|known| *known == moment)?, name.to_owned())));
            let Some((moment, parameter)) = place else {
                return Err(Error::new(format!("`{name}` is not part of this optimizer's state")));
            };
            found.entry(parameter).or_insert_with(|| vec![None; names.len()])[moment] = Some(tensor);
        }
        let whole = found.into_iter().map(|(name, state)| match state.into_iter().collect::<Option<Vec<_>>>() {
            Some(state) => Ok((name, state)),
            None => Err(Error::new(format!("part of the optimizer state of `{name}` is missing"))),
        });
        Ok(Self { config: config.clone(), step, state: whole.collect::<Result<_>>()? })
    }

    /// For every parameter that has been changed its name and its elements.
    pub fn sizes(&self) -> impl Iterator<Item = (&str, usize)> {
        self.state.iter().flat_map(|(name, state)| state.iter().map(|tensor| (name.as_str(), tensor.dims()[0])))
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Param;
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn only_the_tables_of_the_backbone_are_spared() {
        let config = OptimizerConfig { decoder_lr_mult: 9.0, ..OptimizerConfig::default() };
        assert_eq!(config.group("backbone.pos_embed", 12), (1.0, 0.0));
        assert_eq!(config.group("backbone.blocks.0.norm1.weight", 12), (1.0, 0.01));
        assert_eq!(config.group("decoder.layers.0.ffn1.norm1.bias", 12), (9.0, 0.01));
    }

    /// As a ViT's: norms and biases decay, unless they are named.
    #[test]
    fn convolutional_backbones_decay_alike_and_learn_at_one_rate() {
        let mut config = OptimizerConfig { layer_decay: 0.5, ..OptimizerConfig::default() };
        let names =
            ["ups.0.conv1.norm.bias", "stages.0.blocks.0.norm1.bias", "encoder.layer1.0.bn1.bias", "stem.proj.weight"];
        for name in names {
            assert_eq!(config.group(&format!("backbone.{name}"), 0), (1.0, 0.01));
        }
        config.no_decay = vec!["bias".into()];
        assert_eq!(config.group("backbone.encoder.layer1.0.bn1.bias", 0), (1.0, 0.0));
    }

    #[test]
    fn rates_fall_from_layer_to_layer() {
        let config = OptimizerConfig { layer_decay: 0.5, ..OptimizerConfig::default() };
        let factor = |name: &str| config.group(name, 4).0;
        assert_eq!(factor("decoder.layers.0.weight"), 8.0);
        assert_eq!(factor("backbone.norm.weight"), 1.0);
        assert_eq!(factor("backbone.blocks.3.mlp.fc1.weight"), 0.5);
        assert_eq!(factor("backbone.blocks.0.mlp.fc1.weight"), 0.0625);
        assert_eq!(factor("backbone.patch_embed.proj.weight"), 0.03125);
        assert_eq!(factor("backbone.cls_token"), 0.03125);
    }

    #[derive(Module, Debug)]
    struct One {
        weight: Param<Tensor<1>>,
    }

    #[derive(Module, Debug)]
    struct Two {
        backbone: One,
        decoder: One,
        unused: One,
    }

    #[test]
    fn steps_taken_together_are_the_same() {
        let device = Device::flex().autodiff();
        let one = |values: [f32; 3]| One { weight: Param::from_tensor(Tensor::from_floats(values, &device)) };
        let results = [false, true].map(|together| {
            let mut model =
                Two { backbone: one([1.0, -2.0, 0.5]), decoder: one([0.1, 3.0, -4.0]), unused: one([1.0; 3]) };
            let mut optimizer = Optimizer::new(&OptimizerConfig::default());
            for _ in 0..3 {
                let loss = model.backbone.weight.val().powi_scalar(3).sum() + model.decoder.weight.val().exp().sum();
                let grads = Gradients::of(&model, loss.backward());
                let rates = LearningRates { backbone: 0.01, decoder: 0.02 };
                if together {
                    optimizer.step += 1;
                    model = optimizer.step_together(model, grads, rates, 0);
                } else {
                    model = optimizer.step(model, grads, rates);
                }
            }
            let mut values = Vec::new();
            parameters::visit(&model, |parameter, value| values.push((parameter.name.to_owned(), value.into_data())));
            (values, optimizer.state())
        });
        assert!(results[0] == results[1]);
        assert_eq!((results[0].0.len(), results[0].1.len()), (3, 4));
    }

    /// Against `torch.optim.SGD([1, -2], lr=0.1, momentum=0.9, weight_decay=0.01)` with the gradients w², 1, 0.5.
    #[test]
    fn sgd_makes_the_steps_of_torch() {
        let device = Device::flex().autodiff();
        let expected = [[0.483_874_7, -3.311_169_9], [0.283_455_04, -3.721_052_4]];
        for (nesterov, expected) in [(false, expected[0]), (true, expected[1])] {
            let config =
                OptimizerConfig { rule: Rule::Sgd, nesterov, decoder_lr_mult: 1.0, ..OptimizerConfig::default() };
            let mut model = One { weight: Param::from_tensor(Tensor::from_floats([1.0, -2.0], &device)) };
            let mut optimizer = Optimizer::new(&config);
            for step in 0..3 {
                let weight = model.weight.val();
                let loss = match step {
                    0 => weight.powi_scalar(3).sum() / 3.0,
                    1 => weight.sum(),
                    _ => weight.sum() * 0.5,
                };
                let grads = Gradients::of(&model, loss.backward());
                // As if it had been saved and read in between.
                let state =
                    optimizer.state().into_iter().map(|(name, data)| (name, Tensor::from_data(data, &Device::flex())));
                optimizer = Optimizer::restore(&config, step, state).unwrap();
                model = optimizer.step(model, grads, 0.1);
            }
            let weight: Vec<f32> = model.weight.val().into_data().try_to_vec().unwrap();
            for (weight, expected) in weight.iter().zip(expected) {
                assert!((weight - expected).abs() < 1e-6, "{weight} for {expected}");
            }
        }
    }

    #[test]
    fn what_another_rule_remembers_is_refused() {
        let tensor = || Tensor::<1>::zeros([3], &Device::flex());
        let restore = |rule, names: &[&str]| {
            let config = OptimizerConfig { rule, ..OptimizerConfig::default() };
            let state: Vec<_> = names.iter().map(|name| ((*name).to_owned(), tensor())).collect();
            Optimizer::restore(&config, 1, state).map(|_| ()).map_err(|error| error.to_string())
        };
        assert!(restore(Rule::AdamW, &["exp_avg.a.b", "exp_avg_sq.a.b"]).is_ok());
        assert!(restore(Rule::AdamW, &["exp_avg.a.b"]).unwrap_err().contains("`a.b` is missing"));
        assert!(restore(Rule::Sgd, &["exp_avg.a"]).unwrap_err().contains("`exp_avg.a`"));
    }
}
