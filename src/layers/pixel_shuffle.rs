//! Sub-pixel convolution (Shi et al., arXiv 1609.05158): a map made finer by reading channels as places.

use burn::tensor::Tensor;

/// `[b, h, w, c * r * r]` to `[b, h * r, w * r, c]`: channel `c * r * r + i * r + j` is channel c of the place in row i
/// and column j of what its pixel becomes, as in `torch.nn.PixelShuffle`.
pub fn pixel_shuffle(x: Tensor<4>, upscale_factor: usize) -> Tensor<4> {
    let ([b, h, w, channels], r) = (x.dims(), upscale_factor);
    if r == 1 {
        return x;
    }
    let c = channels / (r * r);
    x.reshape([b * h, w, c, r, r]).permute([0, 3, 1, 4, 2]).reshape([b, h * r, w * r, c])
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    /// `torch.nn.PixelShuffle(2)(torch.arange(24.).reshape(1, 8, 1, 3))`, its channels last.
    #[test]
    fn places_are_those_of_pytorch() {
        let channels_first: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let x = Tensor::<4>::from_data(TensorData::new(channels_first, [1, 8, 1, 3]), &Device::flex());
        let y = pixel_shuffle(x.permute([0, 2, 3, 1]), 2).permute([0, 3, 1, 2]);
        let expected = [
            [[0., 3., 1., 4., 2., 5.], [6., 9., 7., 10., 8., 11.]],
            [[12., 15., 13., 16., 14., 17.], [18., 21., 19., 22., 20., 23.]],
        ];
        assert_eq!(y.dims(), [1, 2, 2, 6]);
        assert_eq!(y.into_data().try_to_vec::<f32>().unwrap(), expected.as_flattened().as_flattened());
    }
}
