//! A transformer with the names and shapes of the real one and nothing else, to load real files into.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::prelude::Device;
use burn::tensor::Tensor;

use crate::error::Result;
use crate::layers::Gridded;
use crate::rng::Rng;
use crate::weights::{HostTensor, LoadOptions, LoadReport, StateDict, load, read_metadata, remap_keys, state_of};

#[derive(Module, Debug)]
struct Affine<const D: usize> {
    weight: Param<Tensor<D>>,
    bias: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
struct Attention {
    qkv: Affine<2>,
    proj: Affine<2>,
}

#[derive(Module, Debug)]
struct Mlp {
    fc1: Affine<2>,
    fc2: Affine<2>,
}

#[derive(Module, Debug)]
struct Scale {
    gamma: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
struct Block {
    norm1: Affine<1>,
    attn: Attention,
    ls1: Option<Scale>,
    norm2: Affine<1>,
    mlp: Mlp,
    ls2: Option<Scale>,
}

#[derive(Module, Debug)]
struct PatchEmbed {
    proj: Affine<4>,
}

#[derive(Module, Debug)]
struct Vit {
    cls_token: Param<Tensor<3>>,
    pos_embed: Param<Tensor<3>>,
    patch_embed: PatchEmbed,
    blocks: Vec<Block>,
    norm: Option<Affine<1>>,
}

#[derive(Module, Debug)]
enum Backbone {
    Vit(Vit),
}

#[derive(Module, Debug)]
struct Network {
    backbone: Backbone,
    #[module(skip)]
    grid: (usize, usize),
}

impl Gridded for Network {
    fn grid(&self) -> Option<(usize, usize)> {
        Some(self.grid)
    }
}

/// Width, depth, patch size, grid, LayerScale, final norm.
#[derive(Clone, Copy)]
struct Size(usize, usize, usize, (usize, usize), bool, bool);

fn network(Size(d, depth, patch, grid, layer_scale, final_norm): Size) -> Network {
    let device = Device::flex();
    fn zeros<const D: usize>(shape: [usize; D]) -> Param<Tensor<D>> {
        Param::from_tensor(Tensor::zeros(shape, &Device::flex()))
    }
    fn affine<const D: usize>(shape: [usize; D]) -> Affine<D> {
        Affine { weight: zeros(shape), bias: zeros([shape[0]]) }
    }
    let scale = || layer_scale.then(|| Scale { gamma: zeros([d]) });
    let block = |_| Block {
        norm1: affine([d]),
        attn: Attention { qkv: affine([3 * d, d]), proj: affine([d, d]) },
        ls1: scale(),
        norm2: affine([d]),
        mlp: Mlp { fc1: affine([4 * d, d]), fc2: affine([d, 4 * d]) },
        ls2: scale(),
    };
    let vit = Vit {
        cls_token: zeros([1, 1, d]),
        pos_embed: zeros([1, 1 + grid.0 * grid.1, d]),
        patch_embed: PatchEmbed { proj: affine([d, 3, patch, patch]) },
        blocks: (0..depth).map(block).collect(),
        norm: final_norm.then(|| affine([d])),
    };
    Network { backbone: Backbone::Vit(vit), grid }.to_device(&device)
}

/// Tensors of these names and shapes, whose values tell them apart.
fn filled(shapes: &str) -> StateDict {
    let shapes: BTreeMap<String, Vec<usize>> = serde_json::from_str(shapes).unwrap();
    let mut state = StateDict::default();
    for (name, shape) in shapes {
        let mut rng = Rng::named(1, &name);
        let data = (0..shape.iter().product()).map(|_| rng.range(0.5, 1.0)).collect();
        state.tensors.insert(name, HostTensor { shape, data });
    }
    state
}

/// As the file of the published StructToken's small version.
fn structtoken() -> StateDict {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/golden/structtoken/tiny/st_tiny_cse.safetensors");
    filled(&read_metadata(path.as_ref()).unwrap()["filled"])
}

/// As the file of DINOv2 ViT-S/14.
pub(super) fn dinov2() -> StateDict {
    filled(include_str!("../../tests/fixtures/golden/dinov2/dinov2_vits14.json"))
}

fn pretrained(size: Size, file: &StateDict) -> Result<(Network, LoadReport)> {
    load(network(size), file, &LoadOptions::pretrained_backbone())
}

#[test]
fn the_published_backbone_loads() {
    let file = structtoken();
    let (loaded, report) = pretrained(Size(48, 3, 16, (4, 4), false, false), &file).unwrap();
    let loaded = state_of(&loaded).tensors;
    let renamed = remap_keys(&file).unwrap().tensors;
    assert_eq!((loaded.len(), report.loaded.len(), report.ignored.len()), (40, 40, 143));
    assert!(report.resized.is_empty() && loaded.iter().all(|(name, tensor)| tensor == renamed[name].as_ref()));
    assert!(report.to_string().contains("not used: decoder.layers.* (132 tensors)"), "{report}");

    let (_, report) = pretrained(Size(48, 3, 16, (6, 5), false, false), &file).unwrap();
    assert!(report.to_string().contains("from 4x4 to 6x5"), "{report}");
    let error = load(network(Size(48, 3, 16, (4, 4), false, false)), &file, &LoadOptions::strict()).unwrap_err();
    assert!(error.to_string().contains("unknown to the model (143)"), "{error}");
}

#[test]
fn dinov2_loads_or_says_why_not() {
    let file = dinov2();
    let fits = Size(384, 12, 14, (32, 24), true, true);
    let (loaded, report) = pretrained(fits, &file).unwrap();
    assert_eq!((report.loaded.len(), report.elements), (174, 21_530_112 + 384 * (1 + 768)));
    assert!(report.to_string().contains("from 37x37 to 32x24"), "{report}");
    assert!(state_of(&loaded).tensors.values().all(|tensor| tensor.data.iter().any(|value| *value != 0.0)));

    let (_, report) = pretrained(Size(384, 12, 14, (37, 37), true, false), &file).unwrap();
    assert_eq!(report.ignored, ["backbone.norm.bias", "backbone.norm.weight"]);

    for (size, cause) in [
        (Size(384, 12, 16, (32, 32), true, true), "14x14 pixels, the model's 16x16"),
        (Size(384, 12, 14, (37, 37), false, true), "the file has LayerScale"),
        (Size(768, 12, 14, (37, 37), true, true), "the file is ViT-S, 384 channels wide, the model ViT-B"),
        (Size(384, 11, 14, (37, 37), true, true), "12 transformer blocks, the model 11"),
    ] {
        let error = pretrained(size, &file).unwrap_err();
        assert!(error.hint().unwrap().contains(cause), "{error} {:?}", error.hint());
        assert!(error.to_string().lines().count() < 30, "{error}");
    }
}
