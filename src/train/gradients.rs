//! The gradients of one iteration, by the names of the parameters.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};

use crate::kernels::{self, Values};
use crate::layers::parameters;
use crate::rng::fnv1a;

/// Gradients by parameter name, each flat.
#[derive(Default)]
pub struct Gradients(pub(super) BTreeMap<String, Tensor<1>>);

/// The value of a gradient that is not there: the one that leaves the bits of all others as they are.
pub(super) const ABSENT: f32 = -0.0;

/// The names of the parameters that have a gradient, and their elements.
pub(super) type Layout = BTreeMap<String, usize>;

impl Gradients {
    /// Those of one backward pass; accumulation sums, so the loss must be divided by the number of passes.
    pub fn of(module: &impl Module, grads: burn::tensor::Gradients) -> Self {
        Self(parameters::gradients(module, grads).into_iter().collect())
    }

    /// The sum with the gradients of a later pass.
    #[must_use]
    pub(super) fn plus(mut self, later: Self) -> Self {
        later.0.into_iter().for_each(|(name, grad)| self.add_one(name, grad));
        self
    }

    fn add_one(&mut self, name: String, grad: Tensor<1>) {
        let sum = match self.0.remove(&name) {
            Some(sum) => sum + grad,
            None => grad,
        };
        self.0.insert(name, sum);
    }

    /// The global L2 norm, as a tensor, so that nothing waits for the device.
    pub fn norm(&self) -> Option<Tensor<1>> {
        kernels::square_sum(self.0.values()).map(Tensor::sqrt)
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

    /// Which parameters have a gradient.
    pub(super) fn layout(&self) -> impl Iterator<Item = (String, usize)> {
        self.0.iter().map(|(name, grad)| (name.clone(), grad.dims()[0]))
    }

    /// The values of a parameter's.
    pub(super) fn values(&self, name: &str) -> Option<Values> {
        self.0.get(name).cloned().map(Values::of)
    }

    /// Takes in the values of a parameter's.
    pub(super) fn insert(&mut self, name: &str, values: &[f32], device: &Device) {
        let values = Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device);
        self.0.insert(name.to_owned(), values);
    }
}

/// A number that tells layouts apart.
pub(super) fn fingerprint(layout: &Layout) -> u64 {
    let text: String = layout.iter().map(|(name, length)| format!("{name}:{length};")).collect();
    fnv1a(text.as_bytes())
}
