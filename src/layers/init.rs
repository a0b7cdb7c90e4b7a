//! Initial values of parameters, drawn from one seeded stream so that a model is a function of its seed.

use burn::module::{Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};

use crate::rng::Rng;

/// Makes parameters on a device. The order of the calls decides the values.
#[derive(Debug)]
pub struct Init {
    device: Device,
    /// None: everything is zero.
    rng: Option<Rng>,
}

impl Init {
    /// Parameters on `device`, drawn from `seed`.
    pub fn new(seed: u64, device: &Device) -> Self {
        Self { device: device.clone(), rng: Some(Rng::named(seed, "parameters")) }
    }

    /// Zeros on `device`, for a model that will be given its weights, or is only measured. They take memory when they
    /// are first asked for: a model of any size can be compared with a file that claims to hold it.
    pub fn blank(device: &Device) -> Self {
        Self { device: device.clone(), rng: None }
    }

    /// The same value everywhere.
    pub fn constant<const D: usize>(&mut self, value: f32, shape: [usize; D]) -> Param<Tensor<D>> {
        self.fill(shape, |_| value)
    }

    /// Normal with standard deviation `std`, cut off at two absolute units as `trunc_normal_` of PyTorch and timm does:
    /// for the small deviations used here the cut never bites, so it is redrawn, not clamped.
    pub fn trunc_normal<const D: usize>(&mut self, std: f32, shape: [usize; D]) -> Param<Tensor<D>> {
        self.fill(shape, |rng| {
            loop {
                let value = rng.normal() * std;
                if value.abs() <= 2.0 {
                    break value;
                }
            }
        })
    }

    /// Normal with standard deviation `std`.
    pub fn normal<const D: usize>(&mut self, std: f32, shape: [usize; D]) -> Param<Tensor<D>> {
        self.fill(shape, |rng| rng.normal() * std)
    }

    /// Kaiming normal for ReLU, fan-in mode: deviation `sqrt(2 / fan_in)`, where the fan-in is the number of inputs of
    /// one output (all axes but the first; for a grouped convolution that is its group's share).
    pub fn kaiming_fan_in<const D: usize>(&mut self, shape: [usize; D]) -> Param<Tensor<D>> {
        let fan_in: usize = shape[1..].iter().product();
        self.normal((2.0 / fan_in as f32).sqrt(), shape)
    }

    /// Xavier uniform over `[out, in]`: bound `sqrt(6 / (in + out))`.
    pub fn xavier_uniform(&mut self, shape: [usize; 2]) -> Param<Tensor<2>> {
        let bound = (6.0 / (shape[0] + shape[1]) as f32).sqrt();
        self.fill(shape, |rng| rng.range(-bound, bound))
    }

    /// Uniform in `-bound..bound`.
    pub fn uniform<const D: usize>(&mut self, bound: f32, shape: [usize; D]) -> Param<Tensor<D>> {
        self.fill(shape, |rng| rng.range(-bound, bound))
    }

    /// The given values.
    pub fn values<const D: usize>(&mut self, values: &[f32], shape: [usize; D]) -> Param<Tensor<D>> {
        let mut values = values.iter();
        self.fill(shape, |_| values.next().copied().unwrap_or_default())
    }

    fn fill<const D: usize>(&mut self, shape: [usize; D], mut value: impl FnMut(&mut Rng) -> f32) -> Param<Tensor<D>> {
        let Some(rng) = &mut self.rng else {
            let zeros = move |device: &Device, learns: bool| {
                let zeros = Tensor::zeros(shape, device);
                if learns { zeros.require_grad() } else { zeros }
            };
            return Param::uninitialized(ParamId::new(), zeros, self.device.clone(), true, shape.into());
        };
        let data: Vec<f32> = (0..shape.iter().product()).map(|_| value(rng)).collect();
        Param::from_tensor(Tensor::from_data(TensorData::new(data, shape), &self.device))
    }
}
