//! The gradients of one iteration, by the names of the parameters.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};

use crate::kernels;
use crate::layers::parameters;
use crate::rng::fnv1a;

/// Gradients by parameter name, each flat.
#[derive(Default)]
pub struct Gradients(pub(super) BTreeMap<String, Tensor<1>>);

/// The names of the parameters that have a gradient, and their elements.
pub(super) type Layout = BTreeMap<String, usize>;

impl Gradients {
    /// Adds the gradients of one backward pass; accumulation sums, so the loss must be divided by the number of passes.
    pub fn add(&mut self, module: &impl Module, grads: burn::tensor::Gradients) {
        for (name, grad) in parameters::gradients(module, grads) {
            self.add_one(name, grad);
        }
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

    /// All values, one parameter after the other as in `layout`.
    pub(super) fn flat(self, layout: &Layout) -> Vec<f32> {
        let mut values = Vec::with_capacity(layout.values().sum());
        let mut gradients = self.0;
        for (name, length) in layout {
            match gradients.remove(name) {
                Some(grad) => values.extend(grad.into_data().iter::<f32>()),
                // The one value that leaves the bits of all others as they are.
                None => values.resize(values.len() + length, -0.0),
            }
        }
        values
    }

    /// The gradients of these values, in place of their own.
    pub(super) fn of_flat(values: &[f32], layout: Layout, device: &burn::tensor::Device) -> Self {
        let mut rest = values;
        let mut tensor = |length: usize| {
            let (own, after) = rest.split_at(length.min(rest.len()));
            rest = after;
            Tensor::from_data(TensorData::new(own.to_vec(), [own.len()]), device)
        };
        Self(layout.into_iter().map(|(name, length)| (name, tensor(length))).collect())
    }
}

/// A number that tells layouts apart.
pub(super) fn fingerprint(layout: &Layout) -> u64 {
    let text: String = layout.iter().map(|(name, length)| format!("{name}:{length};")).collect();
    fnv1a(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn gradients(values: &[(&str, &[f32])]) -> Gradients {
        let tensor = |values: &[f32]| Tensor::from_floats(values, &Device::flex());
        Gradients(values.iter().map(|(name, values)| ((*name).to_owned(), tensor(values))).collect())
    }

    #[test]
    fn flat_values_are_the_gradients_and_what_is_absent_adds_nothing() {
        let layout = Layout::from([("a".to_owned(), 2), ("b".to_owned(), 1), ("c".to_owned(), 2)]);
        let one = || gradients(&[("a", &[1.0, -0.0]), ("c", &[3.0, 4.0])]);
        let two = || gradients(&[("a", &[0.5, -0.0]), ("b", &[-0.0])]);
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let apart: Vec<f32> = one().flat(&layout).iter().zip(two().flat(&layout)).map(|(a, b)| a + b).collect();
        assert_eq!(bits(apart.clone()), bits(one().plus(two()).flat(&layout)));
        assert_eq!(bits(apart.clone()), bits(vec![1.5, -0.0, -0.0, 3.0, 4.0]));
        let back = Gradients::of_flat(&apart, layout.clone(), &Device::flex());
        assert_eq!(back.layout().collect::<Layout>(), layout);
        assert_eq!(bits(back.flat(&layout)), bits(apart));
        assert_ne!(fingerprint(&layout), fingerprint(&one().layout().collect()));
    }
}
