//! Gradients of parameters, each as soon as a backward pass has computed the whole of it, while it goes on.
//!
//! A parameter is ready when every kernel that took it in the forward pass has been through its backward step. Uses of
//! a parameter that no kernel made are not seen: whoever takes what is ready must compare it with the gradient that
//! the whole pass gives.

use std::cell::RefCell;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;

use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;
use burn::backend::{Autodiff, Flex};
use burn::tensor::Tensor;

thread_local! {
    static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

/// The values of a gradient, in the order of its parameter's.
#[derive(Clone)]
pub(crate) enum Values {
    /// As they lie in the memory of a contiguous f32 tensor.
    Shared(FlexTensor),
    /// Their own.
    Owned(Arc<Vec<f32>>),
}

impl Values {
    /// Those of a tensor, copied only where they do not lie in memory as they are wanted.
    pub(crate) fn of(x: Tensor<1>) -> Self {
        match x.clone().try_into_primitive::<Flex>() {
            Ok(values) if values.as_slice::<f32>().is_some() => Self::Shared(values),
            _ => Self::Owned(Arc::new(x.into_data().iter::<f32>().collect())),
        }
    }

    /// Value by value.
    #[must_use]
    pub(crate) fn plus(&self, later: &Self) -> Self {
        let sum = self.as_ref().iter().zip(later.as_ref()).map(|(earlier, later)| earlier + later);
        Self::Owned(Arc::new(sum.collect()))
    }

    /// Whether all bits are the same.
    pub(crate) fn same(&self, other: &Self) -> bool {
        let (a, b) = (self.as_ref(), other.as_ref());
        std::ptr::eq(a, b) || a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
    }
}

impl AsRef<[f32]> for Values {
    fn as_ref(&self) -> &[f32] {
        match self {
            Self::Shared(values) => values.as_slice().unwrap_or_default(),
            Self::Owned(values) => values,
        }
    }
}

/// What becomes of a gradient that is ready: the number of its parameter, and its values.
type Ready = Box<dyn FnMut(usize, Values)>;

struct Hook {
    parameters: HashMap<u64, Parameter>,
    ready: Ready,
}

struct Parameter {
    number: usize,
    /// Uses in the forward pass that the backward pass has not been through.
    uses: usize,
    sum: Option<FlexTensor>,
}

/// Watches the forward and the backward pass that this thread makes until it is dropped.
pub(crate) struct GradientHook(PhantomData<*const ()>);

impl GradientHook {
    /// Calls `ready` for each of the parameters with these [`node`]s, when its gradient is. There is one hook a thread
    /// at a time.
    pub(crate) fn new(
        nodes: impl IntoIterator<Item = Option<u64>>,
        ready: impl FnMut(usize, Values) + 'static,
    ) -> Self {
        let parameter = |(number, node): (usize, Option<u64>)| Some((node?, Parameter { number, uses: 0, sum: None }));
        let parameters = nodes.into_iter().enumerate().filter_map(parameter).collect();
        HOOK.set(Some(Hook { parameters, ready: Box::new(ready) }));
        Self(PhantomData)
    }
}

impl Drop for GradientHook {
    fn drop(&mut self) {
        HOOK.set(None);
    }
}

/// The number of a tensor in the graph of the passes; none outside of them, and none on a GPU.
pub(crate) fn node<const D: usize>(x: Tensor<D>) -> Option<u64> {
    x.try_into_primitive::<Autodiff<Flex>>().ok().map(|x| x.node().id().value)
}

/// Notes that a kernel takes tensors with these nodes.
pub(super) fn used(nodes: &[u64]) {
    HOOK.with_borrow_mut(|hook| {
        let Some(hook) = hook else { return };
        for node in nodes {
            hook.parameters.entry(*node).and_modify(|parameter| parameter.uses += 1);
        }
    });
}

/// Notes that the backward step of a kernel gives a tensor of this node a gradient.
pub(super) fn registered(node: u64, grad: &FlexTensor) {
    HOOK.with_borrow_mut(|hook| {
        let Some(Hook { parameters, ready }) = hook else { return };
        let Some(parameter) = parameters.get_mut(&node).filter(|parameter| parameter.uses > 0) else { return };
        let sum = match parameter.sum.take() {
            Some(earlier) => Flex::float_add(grad.clone(), earlier),
            None => grad.clone(),
        };
        parameter.uses -= 1;
        match parameter.uses {
            0 if sum.is_contiguous() => ready(parameter.number, Values::Shared(sum)),
            0 => ready(parameter.number, Values::Shared(sum.to_contiguous())),
            _ => parameter.sum = Some(sum),
        }
    });
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::kernels;

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Default, &Device::flex().autodiff())
    }

    #[test]
    fn parameters_are_ready_from_the_last_layer_to_the_first_and_have_their_whole_gradient() {
        let [first, twice, last] = [0; 3].map(|_| random([4, 4]).require_grad());
        let nodes: Vec<_> = [&first, &twice, &last].map(|one| node(one.clone())).into_iter().collect();
        assert!(nodes.iter().all(Option::is_some) && node(first.clone().inner()).is_none());
        let found = Rc::new(RefCell::new(Vec::new()));
        let seen = found.clone();
        let hook = GradientHook::new(nodes, move |number, values| seen.borrow_mut().push((number, values)));
        let mut x = random([3, 4]);
        for weight in [&first, &twice, &twice, &last] {
            x = kernels::linear(x, weight.clone(), None);
        }
        assert!(found.borrow().is_empty());
        let grads = x.sum().backward();
        drop(hook);
        let found = found.take();
        assert_eq!(found.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [2, 1, 0]);
        for (number, values) in found {
            let whole = Values::of([&first, &twice, &last][number].grad(&grads).unwrap().reshape([16]));
            assert!(values.same(&whole) && matches!(whole, Values::Shared(_)));
            // The memory is that of the whole gradient, but where several kernels had a part of it.
            assert_eq!(std::ptr::eq(values.as_ref(), whole.as_ref()), number != 1);
            let double = values.plus(&whole);
            assert!(double.as_ref().iter().zip(whole.as_ref()).all(|(double, one)| *double == 2.0 * one));
            assert!(!double.same(&whole));
        }
        // Nothing is seen once the hook is gone.
        kernels::linear(random([3, 4]), first, None).sum().backward();
    }
}
