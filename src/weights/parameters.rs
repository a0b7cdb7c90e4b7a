//! A module's parameters as tensors in CPU memory; [`crate::layers::parameters`] does the walking.

use burn::module::{Module, ParamId};
use burn::tensor::{DType, Tensor, TensorData};
use half::f16;

use crate::layers::parameters;
use crate::weights::state::{HostTensor, StateDict, WeightFormat};

/// The name, shape and id of every float parameter, in the order of the fields.
pub fn named_parameters<M: Module>(module: &M) -> Vec<(String, Vec<usize>, ParamId)> {
    parameters::list(module)
}

/// A copy of the module's parameters on the CPU, as f32.
pub fn state_of<M: Module>(module: &M) -> StateDict {
    let mut state = StateDict::new(WeightFormat::Memory);
    each_value(module, |name, tensor| {
        state.dtypes.insert(name.to_owned(), "f32");
        state.tensors.insert(name.to_owned(), tensor);
    });
    state
}

/// Calls `visit` with every float parameter in turn; one is copied to CPU memory at a time.
pub(super) fn each_value<M: Module>(module: &M, mut visit: impl FnMut(&str, HostTensor)) {
    parameters::visit(module, |parameter, value| {
        let data = value.into_data().iter::<f32>().collect();
        visit(parameter.name, HostTensor { shape: parameter.shape.to_vec(), data });
    });
}

/// Replaces every float parameter for which `value` has a tensor, which is of the parameter's shape. The device, the id
/// and whether it is trained stay.
pub(super) fn replace_values<M: Module>(module: M, mut value: impl FnMut(&str) -> Option<HostTensor>) -> M {
    parameters::map(module, |parameter, old| match value(parameter.name) {
        None => old,
        Some(HostTensor { data, .. }) => {
            let len = data.len();
            Tensor::from_data(TensorData::new(data, [len]), (&old.device(), DType::F32))
        }
    })
}

/// The module with every parameter rounded to 16 bits, as a file in f16 gives it.
pub fn round_to_f16<M: Module>(module: M) -> M {
    parameters::map(module, |_, old| {
        let rounded: Vec<f32> = old.to_data().iter::<f32>().map(|value| f16::from_f32(value).to_f32()).collect();
        let len = rounded.len();
        Tensor::from_data(TensorData::new(rounded, [len]), (&old.device(), DType::F32))
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::layers::Gridded;
    use burn::module::Param;
    use burn::prelude::Device;

    /// A weight and a bias.
    #[derive(Module, Debug)]
    pub(crate) struct Leaf {
        pub(crate) weight: Param<Tensor<2>>,
        pub(crate) bias: Option<Param<Tensor<1>>>,
    }

    /// Names like those of the real backbone, in small.
    #[derive(Module, Debug)]
    pub(crate) struct TinyVit {
        pub(crate) cls_token: Option<Param<Tensor<3>>>,
        pub(crate) pos_embed: Param<Tensor<3>>,
        pub(crate) blocks: Vec<Leaf>,
    }

    /// A container like the real model's backbone.
    #[derive(Module, Debug)]
    pub(crate) enum Backbone {
        Vit(TinyVit),
    }

    /// A decoder of tokens, in small.
    #[derive(Module, Debug)]
    pub(crate) struct Tokens {
        pub(crate) kernels: Param<Tensor<4>>,
        pub(crate) dec_proj: Leaf,
    }

    /// A container like the real model's decoder.
    #[derive(Module, Debug)]
    pub(crate) enum Decoder {
        StructToken(Tokens),
        #[allow(dead_code)]
        Linear(Leaf),
    }

    /// A model, in small.
    #[derive(Module, Debug)]
    pub(crate) struct Model {
        pub(crate) backbone: Backbone,
        pub(crate) decoder: Decoder,
    }

    impl Gridded for Model {
        fn grid(&self) -> Option<(usize, usize)> {
            let Decoder::StructToken(tokens) = &self.decoder else { return None };
            let [_, _, rows, columns] = tokens.kernels.dims();
            Some((rows, columns))
        }
    }

    fn filled<const D: usize>(shape: [usize; D], name: &str, device: &Device) -> Param<Tensor<D>> {
        let mut rng = crate::rng::Rng::named(3, name);
        let data: Vec<f32> = (0..shape.iter().product()).map(|_| rng.range(-1.0, 1.0)).collect();
        Param::from_data(TensorData::new(data, shape), device)
    }

    fn leaf(width: usize, name: &str, device: &Device) -> Leaf {
        let bias = Some(filled([width], &format!("{name}.bias"), device));
        Leaf { weight: filled([width, width], &format!("{name}.weight"), device), bias }
    }

    /// A model of `depth` blocks of `width`, for `classes` and a grid, its values drawn from `seed`.
    pub(crate) fn model(
        width: usize,
        depth: usize,
        classes: usize,
        grid: (usize, usize),
        seed: &str,
        device: &Device,
    ) -> Model {
        let (h, w) = grid;
        let vit = TinyVit {
            cls_token: Some(filled([1, 1, width], &format!("{seed}c"), device)),
            pos_embed: filled([1, 1 + h * w, width], &format!("{seed}p"), device),
            blocks: (0..depth).map(|i| leaf(width, &format!("{seed}b{i}"), device)).collect(),
        };
        let tokens = Tokens {
            kernels: filled([1, classes, h, w], &format!("{seed}k"), device),
            dec_proj: leaf(width, &format!("{seed}d"), device),
        };
        Model { backbone: Backbone::Vit(vit), decoder: Decoder::StructToken(tokens) }
    }

    #[test]
    fn names_skip_the_variants() {
        let model = model(2, 2, 3, (2, 2), "", &Device::flex());
        let names: Vec<(String, Vec<usize>)> = named_parameters(&model).into_iter().map(|(n, s, _)| (n, s)).collect();
        let expected: [(&str, &[usize]); 9] = [
            ("backbone.cls_token", &[1, 1, 2]),
            ("backbone.pos_embed", &[1, 5, 2]),
            ("backbone.blocks.0.weight", &[2, 2]),
            ("backbone.blocks.0.bias", &[2]),
            ("backbone.blocks.1.weight", &[2, 2]),
            ("backbone.blocks.1.bias", &[2]),
            ("decoder.kernels", &[1, 3, 2, 2]),
            ("decoder.dec_proj.weight", &[2, 2]),
            ("decoder.dec_proj.bias", &[2]),
        ];
        assert_eq!(names, expected.map(|(name, shape)| (name.to_owned(), shape.to_vec())));
        assert_eq!(state_of(&model).tensors.len(), 9);
    }

    #[test]
    fn replacing_keeps_ids_devices_and_gradients() {
        let device = Device::flex().autodiff();
        let model = model(2, 1, 3, (2, 2), "", &device);
        let ids = named_parameters(&model);
        let Decoder::StructToken(tokens) = &model.decoder else { unreachable!() };
        assert!(tokens.kernels.val().is_require_grad());
        let model = replace_values(model, |name| {
            (name == "decoder.kernels").then(|| HostTensor { shape: vec![1, 3, 2, 2], data: vec![4.0; 12] })
        });
        assert_eq!(named_parameters(&model), ids);
        let Decoder::StructToken(tokens) = &model.decoder else { unreachable!() };
        assert!(tokens.kernels.val().is_require_grad() && tokens.kernels.val().device().is_autodiff());
        assert_eq!(state_of(&model).tensors["decoder.kernels"].data, [4.0; 12]);
        let frozen = replace_values(model.no_grad(), |name| {
            (name == "decoder.dec_proj.bias").then(|| HostTensor { shape: vec![2], data: vec![1.0; 2] })
        });
        let Decoder::StructToken(tokens) = &frozen.decoder else { unreachable!() };
        assert!(!tokens.dec_proj.bias.as_ref().unwrap().val().is_require_grad());
    }
}
