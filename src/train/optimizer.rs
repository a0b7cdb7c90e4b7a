//! AdamW and SGD over named parameters, with groups, layer-wise learning rates, clipping and accumulation.
//!
//! State is kept by parameter name, so that a checkpoint stores it as an ordinary `.safetensors` file beside the model.

mod config;

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};

use crate::error::{Error, Result};
use crate::kernels;
use crate::layers::{fetch, parameters};
pub use crate::train::gradients::Gradients;

use config::block;
pub use config::{OptimizerConfig, Rule};

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
