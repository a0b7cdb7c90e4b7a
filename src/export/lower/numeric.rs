//! Operations that compute, value by value and along axes.

use burn_ir::{
    BinaryOpIr, BoolOperationIr, FloatOperationIr, IntOperationIr, NumericOperationIr, ReduceDimOpIr, ScalarIr,
    ScalarOpIr, UnaryOpIr,
};

use crate::error::Result;
use crate::export::graph::{Attribute, Id};
use crate::export::lower::base::{cast, filled};
use crate::export::lower::builder::{Builder, Target};

/// The form of an operation on numbers of either kind, or none.
pub(super) fn lower(builder: &mut Builder, op: &NumericOperationIr, target: &Target) -> Result<Option<Id>> {
    use NumericOperationIr as Numeric;
    let id = match op {
        Numeric::Add(op) => binary(builder, "Add", op, target)?,
        Numeric::AddScalar(op) => scalar(builder, "Add", op, target)?,
        Numeric::Sub(op) => binary(builder, "Sub", op, target)?,
        Numeric::SubScalar(op) => scalar(builder, "Sub", op, target)?,
        Numeric::Mul(op) => binary(builder, "Mul", op, target)?,
        Numeric::MulScalar(op) => scalar(builder, "Mul", op, target)?,
        Numeric::Div(op) => binary(builder, "Div", op, target)?,
        Numeric::DivScalar(op) => scalar(builder, "Div", op, target)?,
        Numeric::Abs(op) => unary(builder, "Abs", op, target)?,
        Numeric::Neg(op) => unary(builder, "Neg", op, target)?,
        Numeric::Sign(op) => unary(builder, "Sign", op, target)?,
        Numeric::Full(op) => filled(builder, op.value.elem::<f64>(), target),
        Numeric::MeanDim(op) => along(builder, "ReduceMean", op, target)?,
        Numeric::MaxDim(op) => along(builder, "ReduceMax", op, target)?,
        Numeric::MinDim(op) => along(builder, "ReduceMin", op, target)?,
        Numeric::SumDim(op) => {
            let inputs = [builder.input(&op.input)?, builder.graph.ints(&[op.axis as i64])];
            builder.node("ReduceSum", &inputs, vec![("keepdims", Attribute::Int(1))], target)
        }
        Numeric::ArgMax(op) => chosen(builder, "ArgMax", op, target)?,
        Numeric::ArgMin(op) => chosen(builder, "ArgMin", op, target)?,
        Numeric::Greater(op) => binary(builder, "Greater", op, target)?,
        Numeric::GreaterElem(op) => scalar(builder, "Greater", op, target)?,
        Numeric::GreaterEqual(op) => binary(builder, "GreaterOrEqual", op, target)?,
        Numeric::GreaterEqualElem(op) => scalar(builder, "GreaterOrEqual", op, target)?,
        Numeric::Lower(op) => binary(builder, "Less", op, target)?,
        Numeric::LowerElem(op) => scalar(builder, "Less", op, target)?,
        Numeric::LowerEqual(op) => binary(builder, "LessOrEqual", op, target)?,
        Numeric::LowerEqualElem(op) => scalar(builder, "LessOrEqual", op, target)?,
        Numeric::Clamp(op) => {
            let x = builder.input(&op.tensor)?;
            let inputs = [x, builder.scalar(op.min, target.kind), builder.scalar(op.max, target.kind)];
            builder.node("Clip", &inputs, Vec::new(), target)
        }
        Numeric::ClampMin(op) => scalar(builder, "Max", op, target)?,
        Numeric::ClampMax(op) => scalar(builder, "Min", op, target)?,
        Numeric::Powi(op) => binary(builder, "Pow", op, target)?,
        Numeric::PowiScalar(op) => power(builder, op, target)?,
        _ => return Ok(None),
    };
    Ok(Some(id))
}

/// The form of an operation on floats, or none.
pub(super) fn float(builder: &mut Builder, op: &FloatOperationIr, target: &Target) -> Result<Option<Id>> {
    use FloatOperationIr as Float;
    let id = match op {
        Float::Exp(op) => unary(builder, "Exp", op, target)?,
        Float::Log(op) => unary(builder, "Log", op, target)?,
        Float::Erf(op) => unary(builder, "Erf", op, target)?,
        Float::Sqrt(op) => unary(builder, "Sqrt", op, target)?,
        Float::Sin(op) => unary(builder, "Sin", op, target)?,
        Float::Cos(op) => unary(builder, "Cos", op, target)?,
        Float::Tanh(op) => unary(builder, "Tanh", op, target)?,
        Float::Floor(op) => unary(builder, "Floor", op, target)?,
        Float::Ceil(op) => unary(builder, "Ceil", op, target)?,
        Float::Recip(op) => unary(builder, "Reciprocal", op, target)?,
        Float::PowfScalar(op) => power(builder, op, target)?,
        Float::Powf(op) => binary(builder, "Pow", op, target)?,
        Float::IntoInt(op) => {
            let x = builder.input(&op.input)?;
            cast(builder, x, target)
        }
        Float::Matmul(op) => {
            let inputs = [builder.input(&op.lhs)?, builder.input(&op.rhs)?];
            builder.node("MatMul", &inputs, Vec::new(), target)
        }
        _ => return Ok(None),
    };
    Ok(Some(id))
}

/// The form of an operation on integers alone, or none.
pub(super) fn int(builder: &mut Builder, op: &IntOperationIr, target: &Target) -> Result<Option<Id>> {
    let IntOperationIr::IntoFloat(op) = op else { return Ok(None) };
    let x = builder.input(&op.input)?;
    Ok(Some(cast(builder, x, target)))
}

/// The form of an operation on truth values, or none.
pub(super) fn bool(builder: &mut Builder, op: &BoolOperationIr, target: &Target) -> Result<Option<Id>> {
    let id = match op {
        BoolOperationIr::IntoFloat(op) | BoolOperationIr::IntoInt(op) => {
            let x = builder.input(&op.input)?;
            cast(builder, x, target)
        }
        BoolOperationIr::Not(op) => unary(builder, "Not", op, target)?,
        BoolOperationIr::And(op) => binary(builder, "And", op, target)?,
        BoolOperationIr::Or(op) => binary(builder, "Or", op, target)?,
        BoolOperationIr::Xor(op) => binary(builder, "Xor", op, target)?,
    };
    Ok(Some(id))
}

fn unary(builder: &mut Builder, name: &'static str, op: &UnaryOpIr, target: &Target) -> Result<Id> {
    let x = builder.input(&op.input)?;
    Ok(builder.node(name, &[x], Vec::new(), target))
}

fn binary(builder: &mut Builder, name: &'static str, op: &BinaryOpIr, target: &Target) -> Result<Id> {
    let inputs = [builder.input(&op.lhs)?, builder.input(&op.rhs)?];
    Ok(builder.node(name, &inputs, Vec::new(), target))
}

fn scalar(builder: &mut Builder, name: &'static str, op: &ScalarOpIr, target: &Target) -> Result<Id> {
    let x = builder.input(&op.lhs)?;
    let value = builder.scalar(op.rhs, builder.graph.values[x].kind);
    Ok(builder.node(name, &[x, value], Vec::new(), target))
}

/// A square is a product; other powers are what they are.
fn power(builder: &mut Builder, op: &ScalarOpIr, target: &Target) -> Result<Id> {
    if op.rhs.elem::<f64>() == 2.0 {
        let x = builder.input(&op.lhs)?;
        return Ok(builder.node("Mul", &[x, x], Vec::new(), target));
    }
    let op = ScalarOpIr { rhs: ScalarIr::Float(op.rhs.elem()), ..op.clone() };
    scalar(builder, "Pow", &op, target)
}

fn along(builder: &mut Builder, name: &'static str, op: &ReduceDimOpIr, target: &Target) -> Result<Id> {
    let x = builder.input(&op.input)?;
    let attributes = vec![("axes", Attribute::Ints(vec![op.axis as i64])), ("keepdims", Attribute::Int(1))];
    Ok(builder.node(name, &[x], attributes, target))
}

fn chosen(builder: &mut Builder, name: &'static str, op: &ReduceDimOpIr, target: &Target) -> Result<Id> {
    let x = builder.input(&op.input)?;
    let attributes = vec![("axis", Attribute::Int(op.axis as i64)), ("keepdims", Attribute::Int(1))];
    Ok(builder.node(name, &[x], attributes, target))
}
