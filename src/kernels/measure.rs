//! Multiply-accumulates, and memory that gradients keep, counted in real passes. Tests hold the formulas to it that
//! each network has beside its config: `macs` and `kept_activations`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use burn::backend::flex::FlexTensor;
use burn::tensor::{Bytes, Tensor};

thread_local! {
    static COUNTED: Cell<Option<u64>> = const { Cell::new(None) };
    static KEPT: RefCell<Option<Buffers>> = const { RefCell::new(None) };
}

/// Buffers by their addresses. They are held, so that no other takes the address of one that is gone.
type Buffers = HashMap<usize, Arc<Bytes>>;

/// What `f` gives, and the multiply-accumulates of the forward passes that this thread asked for meanwhile: those of
/// convolutions, linear layers, attention and matrix products. Norms, activations and resizing do not count, nor do
/// gradients.
pub fn count_macs<T>(f: impl FnOnce() -> T) -> (T, u64) {
    let before = COUNTED.replace(Some(0));
    let found = f();
    let counted = COUNTED.replace(before).unwrap_or_default();
    (found, counted)
}

/// What `f` gives, and the bytes of all that the kernels of this thread kept meanwhile for their gradients, weights
/// too. A buffer that several keep counts once. Operations that Burn differentiates itself are not seen; on other
/// devices than the CPU that is all. It takes the pass itself, in its full memory: what has to be known before a pass
/// is computed from the network's shape (`kept_activations` of a backbone), which the tests hold to this.
pub fn count_kept<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = KEPT.replace(Some(Buffers::new()));
    let found = f();
    let kept = KEPT.replace(before).unwrap_or_default();
    (found, kept.values().map(|buffer| buffer.len()).sum())
}

/// Notes what a kernel keeps for its gradient.
pub(super) fn note_kept(saved: &[FlexTensor]) {
    KEPT.with_borrow_mut(|kept| {
        let Some(kept) = kept else { return };
        for tensor in saved {
            kept.entry(tensor.bytes().as_ptr() as usize).or_insert_with(|| tensor.data_arc());
        }
    });
}

/// Notes as many multiply-accumulates as the product of these numbers.
pub(super) fn note(factors: &[usize]) {
    if let Some(counted) = COUNTED.get() {
        let macs = factors.iter().fold(1u64, |macs, factor| macs.saturating_mul(*factor as u64));
        COUNTED.set(Some(counted.saturating_add(macs)));
    }
}

/// The product of matrices: `a [.., n, m]`, `b [.., m, k]` to `[.., n, k]`.
pub fn product<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    let [left, right] = [a.dims(), b.dims()];
    let batch: usize = left[..D - 2].iter().zip(&right).map(|(a, b)| a.max(b)).product();
    note(&[batch, left[D - 2], left[D - 1], right[D - 1]]);
    a.matmul(b)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::kernels::{conv2d, linear};

    #[test]
    fn products_are_counted_while_somebody_asks() {
        let zeros = |shape: [usize; 3]| Tensor::<3>::zeros(shape, &Device::flex());
        let weight = Tensor::<2>::zeros([5, 4], &Device::flex());
        let work = || {
            linear(zeros([2, 3, 4]), weight.clone(), None);
            product(zeros([2, 3, 4]), zeros([1, 4, 6]));
        };
        work();
        let (inner, outer) = count_macs(|| {
            work();
            count_macs(work).1
        });
        assert_eq!((inner, outer), (2 * 3 * 4 * (5 + 6), inner));
        let image = Tensor::<4>::zeros([1, 7, 9, 2], &Device::flex());
        let weight = Tensor::<4>::zeros([3, 2, 3, 3], &Device::flex());
        assert_eq!(count_macs(|| conv2d(image, weight, None, 2, 1)).1, 4 * 5 * 3 * 2 * 9);
    }

    #[test]
    fn what_gradients_need_is_counted_once() {
        let learning = Device::flex().autodiff();
        let weight = Tensor::<2>::ones([5, 4], &learning).require_grad();
        let input = Tensor::<3>::ones([2, 3, 4], &learning);
        let pass = || linear(input.clone(), weight.clone(), None);
        // The input, for the gradient of the weight, and the weight.
        let (output, kept) = count_kept(pass);
        assert_eq!(kept, 4 * (2 * 3 * 4 + 5 * 4));
        assert_eq!(count_kept(|| (pass(), pass())).1, kept);
        let (inner, outer) = count_kept(|| count_kept(pass).1);
        assert_eq!((inner, outer), (kept, 0));
        drop(output);
        let plain = || linear(Tensor::<3>::ones([2, 3, 4], &Device::flex()), weight.clone().inner(), None);
        assert_eq!(count_kept(plain).1, 0, "nothing learns");
    }
}
