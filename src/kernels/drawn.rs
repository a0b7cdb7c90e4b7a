//! Numbers that a pass of training draws at random, on its device.

use std::cell::RefCell;

use burn::tensor::{Device, Tensor, TensorData};

/// The numbers of a pass that is recorded, and how many have been handed out.
struct Given {
    numbers: Tensor<1>,
    next: usize,
}

thread_local! {
    static GIVEN: RefCell<Option<Given>> = const { RefCell::new(None) };
}

/// `values` on a device. While a pass is recorded it is the next of the numbers that each replay is given, as many as
/// there are values: those of one pass must not become part of what is recorded.
pub(crate) fn drawn(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let len = values.len();
    let given = GIVEN.with_borrow_mut(|given| {
        given.as_mut().map(|given| {
            let numbers = given.numbers.clone().narrow(0, given.next, len);
            given.next += len;
            numbers
        })
    });
    match given {
        Some(numbers) if device.is_autodiff() => Tensor::from_inner(numbers),
        Some(numbers) => numbers,
        None => Tensor::from_data(TensorData::new(values, [len]), device),
    }
}

/// What `function` returns, which is handed these numbers, without autodiff, for those that it draws.
pub(crate) fn drawing_from<T>(numbers: Tensor<1>, function: impl FnOnce() -> T) -> T {
    struct Restore(Option<Given>);
    impl Drop for Restore {
        fn drop(&mut self) {
            GIVEN.set(self.0.take());
        }
    }
    let _restore = Restore(GIVEN.replace(Some(Given { numbers, next: 0 })));
    function()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_handed_out_in_order() {
        let device = Device::flex();
        let values = |x: Tensor<1>| x.into_data().try_to_vec::<f32>().unwrap();
        let given = Tensor::from_floats([1.0, 2.0, 3.0], &device);
        let (first, second) = drawing_from(given, || (drawn(vec![9.0; 2], &device), drawn(vec![9.0], &device)));
        assert_eq!((values(first), values(second)), (vec![1.0, 2.0], vec![3.0]));
        assert_eq!(values(drawn(vec![9.0], &device)), [9.0]);
    }
}
