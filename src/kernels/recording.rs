//! What a network launches on a GPU, recorded once and launched again as a whole.

use std::sync::LazyLock;

use burn::tensor::Tensor;

use crate::kernels::bridge::on_gpu;
#[cfg(feature = "gpu")]
use crate::kernels::gpu;

/// The launches of a function of some tensors.
pub(crate) struct Recording {
    #[cfg(feature = "gpu")]
    of_gpu: gpu::Recording,
    #[cfg(not(feature = "gpu"))]
    none: std::convert::Infallible,
}

/// Whether launches for such an input may be recorded: whether it is on a GPU, and the environment has no
/// `STRUCTTOKEN_EAGER`.
pub(crate) fn can_record<const D: usize>(input: &Tensor<D>) -> bool {
    static EAGER: LazyLock<bool> = LazyLock::new(|| std::env::var_os("STRUCTTOKEN_EAGER").is_some());
    on_gpu(input) && !input.device().is_autodiff() && !*EAGER
}

impl Recording {
    /// Records the launches of `function` for inputs of the sizes of these. None on the CPU, which has none, or where
    /// the device cannot record them.
    pub(crate) fn new(inputs: Vec<Tensor<1>>, function: &dyn Fn(Vec<Tensor<1>>) -> Vec<Tensor<1>>) -> Option<Self> {
        #[cfg(feature = "gpu")]
        if inputs.iter().all(can_record) {
            return gpu::Recording::new(inputs, function).map(|of_gpu| Self { of_gpu });
        }
        let _ = (inputs, function);
        None
    }

    /// What the function says of other inputs of the sizes that were recorded; none on another thread, or where the
    /// device fails.
    ///
    /// # Safety
    /// All that the function read but its inputs is still there, and nobody changes it.
    pub(crate) unsafe fn replay(&self, inputs: Vec<Tensor<1>>) -> Option<Vec<Tensor<1>>> {
        #[cfg(feature = "gpu")]
        {
            // SAFETY: by the caller's word.
            unsafe { self.of_gpu.replay(inputs) }
        }
        #[cfg(not(feature = "gpu"))]
        {
            let _ = inputs;
            match self.none {}
        }
    }
}
