//! Resizing of maps: nearest, bilinear and bicubic, each as two matrix products.
//!
//! An interpolation is linear in its input and separable, so along one axis it is a product with a constant sparse
//! matrix. Written so, it runs and differentiates on every backend (the gradient is the transposed product), and a
//! band of output rows is a slice of the matrix. The weights are those of PyTorch's `interpolate` on f32:
//! `scale = in / out`, no antialiasing, bicubic with a = -0.75 and clamped borders.

use std::ops::Range;

use burn::tensor::{DType, Device, Tensor};

use crate::kernels;

/// How a value between samples is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The sample at `floor(i * in / out)`, PyTorch's `nearest`; `align_corners` does not apply.
    Nearest,
    /// Linear between the two neighbours.
    Bilinear,
    /// Cubic convolution over four neighbours, a = -0.75.
    Bicubic,
}

/// Resizes `x` [b, c, h, w] to [b, c, oh, ow].
///
/// With `align_corners` the centres of the corner samples coincide, otherwise the outer edges do.
pub fn resize(x: Tensor<4>, (oh, ow): (usize, usize), mode: Mode, align_corners: bool) -> Tensor<4> {
    let [b, c, h, w] = x.dims();
    let (device, dtype) = (x.device(), x.dtype());
    let mut x = x;
    if h != oh {
        let rows = Axis::new(h, oh, mode, align_corners).matrix(0..oh, 0..h, &device, dtype); // [oh, h]
        x = rows.reshape([1, 1, oh, h]).matmul(x); // [b, c, oh, w]
    }
    if w != ow {
        let columns = Axis::new(w, ow, mode, align_corners).matrix(0..ow, 0..w, &device, dtype); // [ow, w]
        x = x.reshape([b * c * oh, w]).matmul(columns.transpose()).reshape([b, c, oh, ow]); // [b, c, oh, ow]
    }
    x
}

/// Resizes `x` [b, h, w, c] to [b, oh, ow, c]; see [`resize`].
pub fn resize_channels_last(x: Tensor<4>, (oh, ow): (usize, usize), mode: Mode, align_corners: bool) -> Tensor<4> {
    let [_, h, w, _] = x.dims();
    let (device, dtype) = (x.device(), x.dtype());
    let mut x = x;
    if h != oh {
        x = along_height(x, Axis::new(h, oh, mode, align_corners).matrix(0..oh, 0..h, &device, dtype)); // [b, oh, w, c]
    }
    if w != ow {
        x = along_width(x, Axis::new(w, ow, mode, align_corners).matrix(0..ow, 0..w, &device, dtype)); // [b, oh, ow, c]
    }
    x
}

/// Applies `matrix` [oh, h] to the rows of `x` [b, h, w, c].
pub(crate) fn along_height(x: Tensor<4>, matrix: Tensor<2>) -> Tensor<4> {
    let ([b, h, w, c], oh) = (x.dims(), matrix.dims()[0]);
    matrix.unsqueeze::<3>().matmul(x.reshape([b, h, w * c])).reshape([b, oh, w, c]) // [b, oh, w, c]
}

/// Applies `matrix` [ow, w] to the columns of `x` [b, h, w, c].
pub(crate) fn along_width(x: Tensor<4>, matrix: Tensor<2>) -> Tensor<4> {
    matrix.unsqueeze::<4>().matmul(x) // [b, h, ow, c]
}

/// The resampling of one axis: up to four weighted sources for each output.
#[derive(Clone, Debug)]
pub struct Axis {
    taps: Vec<[(usize, f32); 4]>,
    /// What the taps are a function of: the mode, and the samples from and to.
    kind: (&'static str, [usize; 2]),
}

impl Axis {
    /// The resampling of `from` samples to `to` samples; both at least 1.
    pub fn new(from: usize, to: usize, mode: Mode, align_corners: bool) -> Self {
        assert!(from > 0 && to > 0, "an axis of {from} samples cannot become one of {to}");
        // In f32 like the reference, so that both choose the same neighbours.
        let scale = match (align_corners && mode != Mode::Nearest, to) {
            (true, 1) => 0.0,
            (true, _) => (from - 1) as f32 / (to - 1) as f32,
            (false, _) => from as f32 / to as f32,
        };
        let position = |i: usize| if align_corners { scale * i as f32 } else { scale * (i as f32 + 0.5) - 0.5 };
        let last = from - 1;
        let taps = (0..to).map(|i| match mode {
            Mode::Nearest => [((i as f32 * scale).floor() as usize, 1.0), (0, 0.0), (0, 0.0), (0, 0.0)],
            Mode::Bilinear => {
                let x = position(i).max(0.0);
                let low = (x.floor() as usize).min(last);
                let t = (x - low as f32).clamp(0.0, 1.0);
                [(low, 1.0 - t), (low + 1, t), (0, 0.0), (0, 0.0)]
            }
            Mode::Bicubic => {
                let x = position(i);
                let t = x - x.floor();
                let weights = [cubic_outer(t + 1.0), cubic_inner(t), cubic_inner(1.0 - t), cubic_outer(2.0 - t)];
                let first = x.floor() as isize - 1;
                std::array::from_fn(|j| ((first + j as isize).max(0) as usize, weights[j]))
            }
        });
        let taps = taps.map(|taps| taps.map(|(source, weight)| (source.min(last), weight))).collect();
        let name = match (mode, align_corners) {
            (Mode::Nearest, _) => "nearest",
            (Mode::Bilinear, false) => "bilinear",
            (Mode::Bilinear, true) => "bilinear, corners aligned",
            (Mode::Bicubic, false) => "bicubic",
            (Mode::Bicubic, true) => "bicubic, corners aligned",
        };
        Self { taps, kind: (name, [from, to]) }
    }

    /// The same resampling of the first `outputs` outputs only.
    #[must_use]
    pub fn first(mut self, outputs: usize) -> Self {
        self.taps.truncate(outputs);
        self
    }

    /// The weighted sources of one output; those of weight 0 count for nothing. The linear modes use the first two.
    pub fn taps(&self, output: usize) -> &[(usize, f32); 4] {
        &self.taps[output]
    }

    /// The weighted sources of all outputs.
    pub(crate) fn all(&self) -> &[[(usize, f32); 4]] {
        &self.taps
    }

    /// The sources that a non-empty range of outputs reads.
    pub fn sources(&self, outputs: Range<usize>) -> Range<usize> {
        let used = || self.taps[outputs.clone()].iter().flatten().filter(|(_, weight)| *weight != 0.0);
        let first = used().map(|(source, _)| *source).min().unwrap_or(0);
        let last = used().map(|(source, _)| *source).max().unwrap_or(0);
        first..last + 1
    }

    /// The weights from `sources` (which must hold all that [`Self::sources`] names) to `outputs`: [outputs, sources].
    pub fn matrix(&self, outputs: Range<usize>, sources: Range<usize>, device: &Device, dtype: DType) -> Tensor<2> {
        let (name, [from, to]) = self.kind;
        let key = (name, vec![from, to, outputs.start, outputs.end, sources.start, sources.end]);
        kernels::constant(key, [outputs.len(), sources.len()], device, dtype, || {
            let mut weights = vec![0.0f32; outputs.len() * sources.len()];
            for (row, taps) in weights.chunks_exact_mut(sources.len()).zip(&self.taps[outputs]) {
                for (source, weight) in taps.iter().filter(|(_, weight)| *weight != 0.0) {
                    row[source - sources.start] += weight; // clamped neighbours share a source
                }
            }
            weights
        })
    }
}

/// Keys' cubic kernel for |x| <= 1.
fn cubic_inner(x: f32) -> f32 {
    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
}

/// Keys' cubic kernel for 1 < |x| < 2.
fn cubic_outer(x: f32) -> f32 {
    ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
}

const A: f32 = -0.75;

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;
    use crate::rng::Rng;

    const GOLDEN: &str =
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/golden/structtoken/pipeline/interpolate.safetensors");

    fn random(seed: u64, shape: [usize; 4]) -> Tensor<4> {
        let mut rng = Rng::new(seed, &[]);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.range(-1.0, 1.0)).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    fn distance(a: Tensor<4>, b: Tensor<4>) -> f32 {
        assert_eq!(a.dims(), b.dims());
        (a - b).abs().max().into_scalar()
    }

    #[test]
    fn matches_the_reference_table() {
        let bytes = std::fs::read(GOLDEN).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let read = |name: &str| {
            let view = file.tensor(name).unwrap();
            let values: Vec<f32> = bytemuck::pod_collect_to_vec(view.data());
            let shape: [usize; 4] = view.shape().try_into().unwrap();
            Tensor::<4>::from_data(TensorData::new(values, shape), &Device::flex())
        };
        let mut compared = 0;
        for name in file.names().into_iter().filter(|name| *name != "x") {
            let mode = if name.starts_with("bicubic") { Mode::Bicubic } else { Mode::Bilinear };
            let (align, expected) = (name.contains("ac1"), read(name));
            let size = (expected.dims()[2], expected.dims()[3]);
            let error = distance(resize(read("x"), size, mode, align), expected.clone());
            assert!(error < 2e-6, "{name}: {error}");
            let last = resize_channels_last(read("x").permute([0, 2, 3, 1]), size, mode, align);
            let error = distance(last.permute([0, 3, 1, 2]), expected);
            assert!(error < 2e-6, "{name}, channels last: {error}");
            compared += 1;
        }
        assert_eq!(compared, 24);
    }

    #[test]
    fn nearest_takes_the_floor() {
        let x = Tensor::<4>::from_data([[[[0.0, 1.0, 2.0, 3.0, 4.0]]]], &Device::flex());
        let y = resize(x.clone(), (1, 8), Mode::Nearest, false);
        assert_eq!(y.into_data().try_to_vec::<f32>().unwrap(), [0.0, 0.0, 1.0, 1.0, 2.0, 3.0, 3.0, 4.0]);
        let y = resize(x, (1, 3), Mode::Nearest, false);
        assert_eq!(y.into_data().try_to_vec::<f32>().unwrap(), [0.0, 1.0, 3.0]);
    }

    #[test]
    fn a_band_of_rows_is_a_slice_of_the_whole() {
        for (from, to) in [(7, 20), (20, 7), (5, 5), (1, 9)] {
            let x = random(1, [2, from, 3, 4]);
            let axis = Axis::new(from, to, Mode::Bicubic, false);
            let whole = along_height(x.clone(), axis.matrix(0..to, 0..from, &x.device(), x.dtype()));
            for outputs in [0..2, 2..to, to - 1..to] {
                let sources = axis.sources(outputs.clone());
                let matrix = axis.matrix(outputs.clone(), sources.clone(), &x.device(), x.dtype());
                let band = along_height(x.clone().slice([0..2, sources]), matrix);
                assert!(distance(band, whole.clone().slice([0..2, outputs])) < 1e-6);
            }
        }
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        let (shape, size) = ([1, 2, 3, 4], (5, 3));
        for mode in [Mode::Nearest, Mode::Bilinear, Mode::Bicubic] {
            for align in [false, true] {
                // A quadratic loss, so that its central difference is exact up to rounding.
                let loss = |x: Tensor<4>| resize(x, size, mode, align).powi_scalar(2).sum();
                let x = random(3, shape);
                let tracked = Tensor::<4>::from_data(x.to_data(), &Device::flex().autodiff()).require_grad();
                let gradient =
                    tracked.grad(&loss(tracked.clone()).backward()).unwrap().into_data().try_to_vec::<f32>().unwrap();
                for (i, gradient) in gradient.iter().enumerate() {
                    let shifted = |step: f32| {
                        let mut values = x.to_data().try_to_vec::<f32>().unwrap();
                        values[i] += step;
                        loss(Tensor::from_data(TensorData::new(values, shape), &Device::flex())).into_scalar::<f32>()
                    };
                    let difference = (shifted(0.25) - shifted(-0.25)) / 0.5;
                    assert!((difference - gradient).abs() < 1e-4, "{mode:?} {align}: {difference} {gradient}");
                }
            }
        }
    }
}
