//! The same numbers as the reference's operators: resizes, convolutions, positions, losses, assignments.

use burn::module::Param;
use burn::tensor::{Tensor, TensorData};
use structtoken::decoder::pyramid::SimpleFeaturePyramid;
use structtoken::kernels;
use structtoken::kernels::PointLoss::{CrossEntropy, Focal};
use structtoken::layers::position::{reference_points, sine_positions};
use structtoken::layers::resize::{Mode, resize_channels_last};
use structtoken::layers::{DepthwiseConv3x3, Init, LayerNorm, TransposedConv2x2, parameters};
use structtoken::loss::assignment::assign;
use structtoken::loss::class::class_cross_entropy;

use crate::golden::{Golden, channels_first, json, reference, test_device};
use crate::hashed::uniform;

const FORWARD: f32 = 5e-5;
const GRADIENT: f32 = 2e-4;

fn ops() -> Golden {
    Golden::read(&reference("ops/ops.safetensors"))
}

/// The map `name` as `[b, h, w, c]`, a constant.
fn map(golden: &Golden, name: &str) -> Tensor<4> {
    golden.tensor::<4>(name, &test_device()).permute([0, 2, 3, 1])
}

/// The same tensor as a leaf of an autodiff graph.
fn leaf<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_inner(x).require_grad()
}

fn flat<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_to_vec().unwrap()
}

/// `[b, h, w, c]` values against the map `name`.
fn check_map(golden: &Golden, name: &str, x: Tensor<4>, tolerance: f32) -> f32 {
    let expected = &golden.get(name).shape;
    let [b, h, w, c] = x.dims();
    assert_eq!(expected, &[b, c, h, w], "{name}");
    golden.check(name, &channels_first(&x.into_data()), tolerance)
}

/// Prints what a table of the errors needs; seen with `--nocapture`.
fn say(name: &str, error: f32) {
    eprintln!("{name}: {error:e}");
}

#[test]
fn resizes() {
    let golden = ops();
    let mut compared = 0;
    for (kind, mode) in [("nearest", Mode::Nearest), ("bilinear", Mode::Bilinear)] {
        let x = map(&golden, &format!("{kind}.x"));
        let sizes = golden.0.keys().filter_map(|name| name.strip_prefix(&format!("{kind}."))?.split_once('x'));
        for (h, w) in sizes.filter_map(|(h, w)| Some((h.parse().ok()?, w.parse().ok()?))) {
            let name = format!("{kind}.{h}x{w}");
            let tolerance = if mode == Mode::Nearest { 0.0 } else { FORWARD };
            let y = resize_channels_last(x.clone(), (h, w), mode, false);
            say(&name, check_map(&golden, &name, y, tolerance));
            compared += 1;
        }
    }
    assert_eq!(compared, 8);
}

/// One doubling of EoMT: transposed convolution, GELU, depthwise convolution, norm.
#[test]
fn scale_block() {
    let golden = ops();
    let device = test_device().autodiff();
    let init = &mut Init::blank(&device);
    let mut conv1 = TransposedConv2x2::new(8, 8, init);
    let mut conv2 = DepthwiseConv3x3::without_bias(8, init);
    let mut norm = LayerNorm::new(8, 1e-6, init);
    conv1.weight = Param::from_tensor(golden.tensor("scale.conv1.weight", &device));
    conv1.bias = Param::from_tensor(golden.tensor("scale.conv1.bias", &device));
    conv2.weight = Param::from_tensor(golden.tensor("scale.conv2.weight", &device));
    norm.weight = Param::from_tensor(golden.tensor("scale.layernorm2d.weight", &device));
    norm.bias = Param::from_tensor(golden.tensor("scale.layernorm2d.bias", &device));

    let x = leaf(map(&golden, "scale.x"));
    let y = norm.forward(conv2.forward(kernels::gelu(conv1.forward(x.clone()))));
    say("scale.y", check_map(&golden, "scale.y", y.clone().inner(), FORWARD));
    let grads = (y * Tensor::from_inner(map(&golden, "scale.grad_y"))).sum().backward();
    say("scale.grad_x", check_map(&golden, "scale.grad_x", x.grad(&grads).unwrap(), GRADIENT));
    for (name, grad) in [
        ("conv1.weight", conv1.weight.grad(&grads).map(flat)),
        ("conv1.bias", conv1.bias.grad(&grads).map(flat)),
        ("conv2.weight", conv2.weight.grad(&grads).map(flat)),
        ("layernorm2d.weight", norm.weight.grad(&grads).map(flat)),
        ("layernorm2d.bias", norm.bias.grad(&grads).map(flat)),
    ] {
        let name = format!("scale.grad.{name}");
        say(&name, golden.check(&name, &grad.unwrap(), GRADIENT));
    }
}

#[test]
fn assignments() {
    let json: serde_json::Value = json(&reference("ops/ops.json"));
    let problems = json["hungarian"].as_array().unwrap();
    assert_eq!(problems.len(), 14);
    for problem in problems {
        let name = problem["name"].as_str().unwrap();
        let list = |key: &str| -> Vec<usize> {
            problem[key].as_array().unwrap().iter().map(|value| value.as_u64().unwrap() as usize).collect()
        };
        let [rows, cols] = list("shape")[..] else { panic!("{name}: not a matrix") };
        let value = |u: f64| if name.contains("tie") { (4.0 * u).floor() } else { 3.0 * (2.0 * u - 1.0) };
        let cost: Vec<f64> = uniform(name, rows * cols).into_iter().map(value).collect();
        let pairs = assign(&cost, rows, cols);
        let total: f64 = pairs.iter().map(|(row, col)| cost[row * cols + col]).sum();
        assert!((total - problem["cost"].as_f64().unwrap()).abs() < 1e-9, "{name}: {total}");
        // Also where there are ties, and the reference's own choice is one of several.
        assert_eq!(pairs, list("rows").into_iter().zip(list("cols")).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn mask_losses() {
    let golden = ops();
    let device = test_device();
    for (kind, labels) in [("hard", "loss.labels"), ("soft", "loss.soft_labels")] {
        let losses = [("sigmoid_ce", CrossEntropy, 0), ("focal", Focal, 0), ("dice", Focal, 1)];
        for (loss, point, column) in losses {
            let x = leaf(golden.tensor::<2>("loss.logits", &device));
            let each = kernels::mask_losses(x.clone(), Tensor::from_inner(golden.tensor(labels, &device)), point);
            let y = each.narrow(1, column, 1).sum() / 3.0;
            let name = format!("loss.{kind}.{loss}");
            say(&name, golden.check(&name, &flat(y.clone().inner()), 2e-6));
            let name = format!("{name}.grad");
            say(&name, golden.check(&name, &flat(x.grad(&y.backward()).unwrap()), 1e-5));
        }
    }
}

#[test]
fn pairwise_losses() {
    let golden = ops();
    for (loss, point, part) in [("sigmoid_ce", CrossEntropy, 0), ("focal", Focal, 0), ("dice", Focal, 1)] {
        let read = |name: &str| golden.tensor::<2>(name, &test_device());
        let pairs = kernels::pairwise_mask_losses(read("pair.logits"), read("loss.labels"), point);
        let name = format!("pair.{loss}");
        say(&name, golden.check(&name, &flat(pairs.narrow(0, part, 1)), 2e-6));
    }
}

#[test]
fn class_losses() {
    let golden = ops();
    let targets: Vec<usize> = golden.whole("ce.target").1.iter().map(|class| *class as usize).collect();
    let weights = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.1];
    let x = leaf(golden.tensor::<3>("ce.logits", &test_device()));
    let y = class_cross_entropy(x.clone(), &targets, &weights);
    say("ce.loss", golden.check("ce.loss", &flat(y.clone().inner()), 2e-6));
    say("ce.grad", golden.check("ce.grad", &flat(x.grad(&y.backward()).unwrap()), 1e-5));
}

#[test]
fn positions() {
    let golden = ops();
    let device = test_device();
    for (rows, cols, channels) in [(1, 1, 8), (2, 2, 40), (3, 2, 64), (6, 5, 64)] {
        let name = format!("sine.{rows}x{cols}.{channels}");
        let positions = sine_positions(rows, cols, channels, &device).unsqueeze();
        say(&name, check_map(&golden, &name, positions, 2e-6));
    }
    let points = reference_points(&[(3, 2), (6, 5), (12, 10)], &device);
    let each_level = points.reshape([156, 1, 2]).expand([156, 3, 2]);
    say("reference_points", golden.check("reference_points", &flat(each_level), 1e-6));
}

/// The name that detectron2 gives to a parameter of the pyramid.
fn simfp(name: &str) -> String {
    if let Some(rest) = name.strip_prefix("up4.") {
        return format!("simfp_2.{}", rest.replace("conv1", "0").replace("norm", "1").replace("conv2", "3"));
    }
    if let Some(rest) = name.strip_prefix("up2.") {
        return format!("simfp_3.0.{rest}");
    }
    let [_, level, layer, rest] = name.split('.').collect::<Vec<_>>()[..] else { panic!("{name}") };
    let level: usize = level.parse().unwrap();
    let first = [4, 1, 0, 1][level];
    let layer = match layer {
        "conv1" => first.to_string(),
        "norm1" => format!("{first}.norm"),
        "conv2" => (first + 1).to_string(),
        _ => format!("{}.norm", first + 1),
    };
    format!("simfp_{}.{layer}.{rest}", level + 2)
}

#[test]
fn feature_pyramid() {
    let golden = ops();
    let pyramid = SimpleFeaturePyramid::new(8, 6, &mut Init::blank(&test_device().autodiff()));
    let pyramid = parameters::map(pyramid, |parameter, value| {
        let (shape, values) = golden.whole(&format!("sfp.param.{}", simfp(parameter.name)));
        assert_eq!(shape, parameter.shape, "{}", parameter.name);
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &value.device())
    });
    let x = leaf(map(&golden, "sfp.x"));
    let maps = pyramid.forward(x.clone());
    assert_eq!(maps.len(), 4);
    let mut loss = Tensor::<1>::zeros([1], &test_device().autodiff());
    for (i, y) in maps.into_iter().enumerate() {
        let name = format!("sfp.p{}", i + 2);
        say(&name, check_map(&golden, &name, y.clone().inner(), FORWARD));
        loss = loss + (y * Tensor::from_inner(map(&golden, &format!("sfp.grad_p{}", i + 2)))).sum();
    }
    let mut grads = loss.backward();
    say("sfp.grad_x", check_map(&golden, "sfp.grad_x", x.grad_remove(&mut grads).unwrap(), GRADIENT));
    let found = parameters::gradients(&pyramid, grads);
    assert_eq!(found.len(), golden.0.keys().filter(|name| name.starts_with("sfp.grad.")).count());
    let mut worst = 0f32;
    for (name, grad) in found {
        worst = worst.max(golden.check(&format!("sfp.grad.{}", simfp(&name)), &flat(grad), GRADIENT));
    }
    say("sfp.grad.*", worst);
}
