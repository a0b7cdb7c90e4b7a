//! The same numbers as PyTorch in single operations, forward and backward.

use burn::module::Param;
use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use structtoken::kernels;
use structtoken::layers::{GroupNorm, Init};

use crate::golden::{Golden, reference, test_device};
use crate::hashed::hashed;

/// Both are far above what was measured, and far below what a wrong formula gives.
const FORWARD: f32 = 2e-6;
const GRADIENT: f32 = 5e-6;

fn golden() -> Golden {
    Golden::read(&reference("ops/ops.safetensors"))
}

/// A golden tensor as a leaf that gets a gradient.
fn leaf<const D: usize>(golden: &Golden, name: &str) -> Tensor<D> {
    Tensor::from_inner(golden.tensor(name, &test_device())).require_grad()
}

/// A golden tensor as a constant beside leaves.
fn constant<const D: usize>(golden: &Golden, name: &str) -> Tensor<D> {
    Tensor::from_inner(golden.tensor(name, &test_device()))
}

#[track_caller]
fn check<const D: usize>(golden: &Golden, name: &str, values: Tensor<D>, tolerance: f32) {
    let off = golden.check(name, &values.into_data().try_to_vec::<f32>().unwrap(), tolerance);
    eprintln!("{name}: off by {off:.1e} of its maximum");
}

#[test]
fn point_sampling() {
    let golden = golden();
    let (x, points) = (leaf::<4>(&golden, "sample.x"), constant::<3>(&golden, "sample.points"));
    let [b, c, h, w] = x.dims();
    let p = points.dims()[1];
    // The planes of an image share its points; in the kernel every plane has its own.
    let points = points.reshape([b, 1, p, 2]).expand([b, c, p, 2]).reshape([b * c, p, 2]);
    let y = kernels::point_sample(x.clone().reshape([b * c, h, w]), points);
    let dy = constant::<3>(&golden, "sample.grad_y").reshape([b * c, p]);
    let grads = (y.clone() * dy).sum().backward();
    check(&golden, "sample.y", y, FORWARD);
    check(&golden, "sample.grad_x", x.grad(&grads).unwrap(), GRADIENT);
}

#[test]
fn deformable_attention() {
    let golden = golden();
    let shapes = [(3, 2), (6, 5), (12, 10)];
    let value = leaf::<4>(&golden, "msda.value");
    let locations = leaf::<6>(&golden, "msda.locations");
    let logits = leaf::<4>(&golden, "msda.weight_logits");
    let [b, q, heads, levels, points, _] = locations.dims();
    let weights = softmax(logits.clone(), 3).reshape([b, q, heads, levels, points]);
    let y = kernels::deformable_attention(value.clone(), &shapes, locations.clone(), weights);
    let grads = (y.clone() * constant(&golden, "msda.grad_y")).sum().backward();
    check(&golden, "msda.y", y, FORWARD);
    check(&golden, "msda.grad_value", value.grad(&grads).unwrap(), GRADIENT);
    check(&golden, "msda.grad_locations", locations.grad(&grads).unwrap(), GRADIENT);
    check(&golden, "msda.grad_weight_logits", logits.grad(&grads).unwrap(), GRADIENT);
}

#[test]
fn group_normalization() {
    let golden = golden();
    for case in ["2x2", "6x5"] {
        let name = |what: &str| format!("gn.{case}.{what}");
        let x = leaf::<4>(&golden, &name("x"));
        let filled = |name, center: f64, spread: f64| {
            let values = hashed(name, [64], |u| (center + spread * (2.0 * u - 1.0)) as f32);
            Tensor::<1>::from_inner(Tensor::from_data(values, &test_device())).require_grad()
        };
        let mut norm = GroupNorm::new(32, 64, 1e-5, &mut Init::new(1, &test_device().autodiff()));
        norm.weight = norm.weight.map(|_| filled("ops.gn.weight", 1.0, 0.3));
        norm.bias = norm.bias.map(|_| filled("ops.gn.bias", 0.0, 0.1));
        let y = norm.forward(x.clone().permute([0, 2, 3, 1]));
        let dy = constant::<4>(&golden, &name("grad_y")).permute([0, 2, 3, 1]);
        let grads = (y.clone() * dy).sum().backward();
        let grad = |p: &Param<Tensor<1>>| p.val().grad(&grads).unwrap();
        check(&golden, &name("y"), y.permute([0, 3, 1, 2]), FORWARD);
        check(&golden, &name("grad_x"), x.grad(&grads).unwrap(), GRADIENT);
        check(&golden, &name("grad_weight"), grad(&norm.weight), GRADIENT);
        check(&golden, &name("grad_bias"), grad(&norm.bias), GRADIENT);
    }
}
