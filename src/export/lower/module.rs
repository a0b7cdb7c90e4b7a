//! Convolutions, pooling and activations.

use std::f32::consts::SQRT_2;

use burn_ir::{ActivationOperationIr, ModuleOperationIr, UnaryOpIr};

use crate::error::Result;
use crate::export::graph::{Attribute, Dim, Id};
use crate::export::lower::builder::{Builder, Target};

/// The form of an operation of several tensors, or none.
pub(super) fn lower(builder: &mut Builder, op: &ModuleOperationIr, target: &Target) -> Result<Option<Id>> {
    let ints = |values: &[usize]| Attribute::Ints(values.iter().map(|value| *value as i64).collect());
    let id = match op {
        ModuleOperationIr::Conv2d(op) => {
            let mut inputs = vec![builder.input(&op.x)?, builder.input(&op.weight)?];
            if let Some(bias) = &op.bias {
                inputs.push(builder.input(bias)?);
            }
            let options = &op.options;
            let [(top, bottom), (left, right)] = options.padding;
            let attributes = vec![
                ("dilations", ints(&options.dilation)),
                ("group", Attribute::Int(options.groups as i64)),
                ("kernel_shape", ints(&op.weight.shape.to_vec()[2..])),
                ("pads", ints(&[top, left, bottom, right])),
                ("strides", ints(&options.stride)),
            ];
            builder.node("Conv", &inputs, attributes, target)
        }
        ModuleOperationIr::MaxPool2d(op) => {
            let x = builder.input(&op.x)?;
            let [rows, columns] = op.padding;
            let attributes = vec![
                ("ceil_mode", Attribute::Int(op.ceil_mode.into())),
                ("dilations", ints(&op.dilation)),
                ("kernel_shape", ints(&op.kernel_size)),
                ("pads", ints(&[rows, columns, rows, columns])),
                ("strides", ints(&op.stride)),
            ];
            builder.node("MaxPool", &[x], attributes, target)
        }
        ModuleOperationIr::AvgPool2d(op) => {
            let x = builder.input(&op.x)?;
            let [rows, columns] = op.padding;
            let attributes = vec![
                ("ceil_mode", Attribute::Int(op.ceil_mode.into())),
                ("count_include_pad", Attribute::Int(op.count_include_pad.into())),
                ("kernel_shape", ints(&op.kernel_size)),
                ("pads", ints(&[rows, columns, rows, columns])),
                ("strides", ints(&op.stride)),
            ];
            builder.node("AveragePool", &[x], attributes, target)
        }
        ModuleOperationIr::AdaptiveAvgPool2d(op) if target.shape[2..] == [Dim::Fixed(1); 2] => {
            let x = builder.input(&op.x)?;
            builder.node("GlobalAveragePool", &[x], Vec::new(), target)
        }
        ModuleOperationIr::Linear(op) => {
            let inputs = [builder.input(&op.x)?, builder.input(&op.weight)?];
            let product = builder.node("MatMul", &inputs, Vec::new(), target);
            match &op.bias {
                Some(bias) => {
                    let bias = builder.input(bias)?;
                    builder.node("Add", &[product, bias], Vec::new(), target)
                }
                None => product,
            }
        }
        ModuleOperationIr::LayerNorm(op) => {
            let mut inputs = vec![builder.input(&op.input)?, builder.input(&op.gamma)?];
            if let Some(beta) = &op.beta {
                inputs.push(builder.input(beta)?);
            }
            let attributes = vec![("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(op.epsilon.elem()))];
            builder.node("LayerNormalization", &inputs, attributes, target)
        }
        _ => return Ok(None),
    };
    Ok(Some(id))
}

/// The form of an activation, or none.
pub(super) fn activation(builder: &mut Builder, op: &ActivationOperationIr, target: &Target) -> Result<Option<Id>> {
    use ActivationOperationIr as Activation;
    let axis = |axis: usize| vec![("axis", Attribute::Int(axis as i64))];
    let id = match op {
        Activation::Relu(op) => unary(builder, "Relu", op, target)?,
        Activation::Sigmoid(op) => unary(builder, "Sigmoid", op, target)?,
        Activation::Gelu(op) => {
            let x = builder.input(&op.input)?;
            gelu(builder, x)
        }
        Activation::LogSigmoid(op) => {
            let x = builder.input(&op.input)?;
            let negative = builder.node("Neg", &[x], Vec::new(), target);
            let positive = builder.node("Softplus", &[negative], Vec::new(), target);
            builder.node("Neg", &[positive], Vec::new(), target)
        }
        Activation::LeakyRelu(op) => {
            let x = builder.input(&op.lhs)?;
            builder.node("LeakyRelu", &[x], vec![("alpha", Attribute::Float(op.rhs.elem()))], target)
        }
        Activation::Softmax(op) => {
            let x = builder.input(&op.input)?;
            builder.node("Softmax", &[x], axis(op.axis), target)
        }
        Activation::LogSoftmax(op) => {
            let x = builder.input(&op.input)?;
            builder.node("LogSoftmax", &[x], axis(op.axis), target)
        }
        _ => return Ok(None),
    };
    Ok(Some(id))
}

/// In the order in which runtimes look for it: `x * (erf(x / sqrt 2) + 1) * 0.5`.
fn gelu(builder: &mut Builder, x: Id) -> Id {
    let graph = &mut builder.graph;
    let numbers = [SQRT_2, 1.0, 0.5].map(|number| graph.scalar(number));
    let scaled = graph.same("Div", &[x, numbers[0]], Vec::new());
    let erf = graph.same("Erf", &[scaled], Vec::new());
    let raised = graph.same("Add", &[erf, numbers[1]], Vec::new());
    let product = graph.same("Mul", &[x, raised], Vec::new());
    graph.same("Mul", &[product, numbers[2]], Vec::new())
}

fn unary(builder: &mut Builder, name: &'static str, op: &UnaryOpIr, target: &Target) -> Result<Id> {
    let x = builder.input(&op.input)?;
    Ok(builder.node(name, &[x], Vec::new(), target))
}
