//! What a process has of an iteration's gradients before its last backward pass, and that pass.

use std::sync::mpsc::{Receiver, channel};

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::gradients::{self, Gradients, Layout};
use crate::error::{Error, Result};
use crate::group::ordered_sum::PairwiseSum;
use crate::kernels::{GradientHook, Values};
use crate::layers::parameters::{self, Node};

/// A parameter's name and its elements.
pub(super) type Entry<'a> = (&'a str, usize);

/// The gradients that a process has before its last backward pass.
#[derive(Default)]
pub(super) struct Earlier {
    /// The sums of its subtrees but the last.
    pub(super) sums: Vec<Gradients>,
    /// The passes of the last subtree but the last.
    pub(super) last: PairwiseSum<Gradients>,
}

impl Earlier {
    /// The sums of all subtrees, each the values of `parameters` one after the other, of which `last` has those of the
    /// last pass.
    pub(super) fn with(&self, parameters: &[Entry], last: impl Fn(usize) -> Option<Values>) -> Vec<Vec<f32>> {
        let length = parameters.iter().map(|(_, len)| len).sum();
        let mut flat: Vec<Vec<f32>> = (0..=self.sums.len()).map(|_| Vec::with_capacity(length)).collect();
        for (at, (name, len)) in parameters.iter().enumerate() {
            let of_last = self.last.fold(last(at), |earlier, sum| match (earlier.values(name), sum) {
                (Some(earlier), Some(sum)) => Some(earlier.plus(&sum)),
                (earlier, sum) => earlier.or(sum),
            });
            let sums = self.sums.iter().map(|sum| sum.values(name)).chain([of_last]);
            for (sum, flat) in sums.zip(&mut flat) {
                match sum {
                    Some(sum) => flat.extend_from_slice(sum.as_ref()),
                    None => flat.resize(flat.len() + len, gradients::ABSENT),
                }
            }
        }
        flat
    }

    /// All gradients, with those of the last pass.
    pub(super) fn layout(&self, last: &Gradients) -> Layout {
        let mut layout: Layout = self.sums.iter().chain([last]).flat_map(Gradients::layout).collect();
        self.last.fold((), |earlier, ()| layout.extend(earlier.layout()));
        layout
    }

    pub(super) fn device(&self, last: &Gradients) -> Result<Device> {
        let found = self.sums.iter().chain([last]).find_map(|sum| sum.0.values().next().map(Tensor::device));
        found.ok_or_else(|| Error::new("nothing of the network learns"))
    }
}

/// The last pass of a process.
pub(super) enum LastPass {
    /// Its backward pass is to come: with its share of the loss.
    ToCome(Box<(Tensor<1>, Watched)>),
    /// Nothing can be seen of its backward pass while that goes on (on a GPU).
    Made(Gradients),
}

/// A pass of a network, watched.
pub(super) struct Watched {
    pub(super) parameters: Vec<Node>,
    /// Gradients that are complete, by the numbers of their parameters.
    pub(super) ready: Receiver<(usize, Values)>,
    pub(super) hook: GradientHook,
}

impl Watched {
    /// Watches the pass that begins, where that can be done.
    pub(super) fn new(model: &impl Module) -> Option<Self> {
        let parameters = parameters::nodes(model);
        if parameters.iter().all(|parameter| parameter.node.is_none()) {
            return None;
        }
        let (send, ready) = channel();
        let nodes = parameters.iter().map(|parameter| parameter.node);
        // Nobody takes them any more where the others have left.
        let hook = GradientHook::new(nodes, move |number, values| drop(send.send((number, values))));
        Some(Self { parameters, ready, hook })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradients(values: &[(&str, &[f32])]) -> Gradients {
        let mut found = Gradients::default();
        values.iter().for_each(|(name, values)| found.insert(name, values, &Device::flex()));
        found
    }

    #[test]
    fn values_of_subtrees_are_their_sums_and_what_is_absent_adds_nothing() {
        let one = || gradients(&[("a", &[1.0, -0.0]), ("c", &[3.0, 4.0])]);
        let two = || gradients(&[("a", &[0.5, -0.0]), ("b", &[-0.0])]);
        let mut earlier = Earlier { sums: vec![two()], last: PairwiseSum::default() };
        earlier.last.push(one(), Gradients::plus);
        let last = two();
        let layout = earlier.layout(&last);
        assert_eq!(layout, [("a", 2), ("b", 1), ("c", 2)].map(|(name, len)| (name.to_owned(), len)).into());
        let parameters: Vec<_> = layout.iter().map(|(name, len)| (name.as_str(), *len)).collect();
        let flat = earlier.with(&parameters, |at| last.values(parameters[at].0));
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&flat[0]), bits(&[0.5, -0.0, -0.0, -0.0, -0.0]));
        assert_eq!(bits(&flat[1]), bits(&[1.5, -0.0, -0.0, 3.0, 4.0]));
        assert_ne!(gradients::fingerprint(&layout), gradients::fingerprint(&one().layout().collect()));
    }
}
