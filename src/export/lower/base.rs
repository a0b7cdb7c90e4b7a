//! Operations that move values.

use burn::tensor::Slice;
use burn_ir::{BaseOperationIr, TensorIr};

use crate::error::{Error, Result};
use crate::export::graph::{Attribute, Data, Dim, Id, Kind};
use crate::export::lower::builder::{Builder, Target, shape};

/// The form of an operation, or none.
pub(super) fn lower(
    builder: &mut Builder,
    first: &BaseOperationIr,
    second: &BaseOperationIr,
    target: &Target,
) -> Result<Option<Id>> {
    use BaseOperationIr as Base;
    let axis = |axis: usize| vec![("axis", Attribute::Int(axis as i64))];
    Ok(Some(match (first, second) {
        (Base::Reshape(op), _) => {
            let x = builder.input(&op.input)?;
            builder.graph.reshape(x, &target.shape)?
        }
        (Base::SwapDims(op), _) => {
            let x = builder.input(&op.input)?;
            let mut axes: Vec<usize> = (0..target.shape.len()).collect();
            axes.swap(op.dim1, op.dim2);
            builder.graph.transpose(x, &axes)
        }
        (Base::Permute(op), _) => {
            let x = builder.input(&op.input)?;
            builder.graph.transpose(x, &op.axes)
        }
        (Base::Expand(op), _) => {
            let x = builder.input(&op.input)?;
            builder.graph.expand(x, &target.shape)
        }
        (Base::Flip(op), _) => {
            let x = builder.input(&op.input)?;
            let n = op.axes.len();
            let axes: Vec<i64> = op.axes.iter().map(|axis| *axis as i64).collect();
            let ints = [&vec![-1; n], &vec![i64::MIN + 1; n], &axes, &vec![-1; n]].map(|ints| builder.graph.ints(ints));
            builder.node("Slice", &[x, ints[0], ints[1], ints[2], ints[3]], Vec::new(), target)
        }
        (Base::Slice(op), Base::Slice(other)) => {
            let x = builder.input(&op.tensor)?;
            let ranges = ranges(&op.tensor, &op.ranges, &other.tensor, &other.ranges)?;
            slice(builder, x, &ranges, target)
        }
        (Base::SliceAssign(op), Base::SliceAssign(other)) => {
            let (x, value) = (builder.input(&op.tensor)?, builder.input(&op.value)?);
            let ranges = ranges(&op.tensor, &op.ranges, &other.tensor, &other.ranges)?;
            if ranges.iter().flatten().any(|range| range.2 != 1) {
                return Ok(None);
            }
            assign(builder, x, value, &ranges, 0)
        }
        (Base::Select(op), _) => {
            let inputs = [builder.input(&op.tensor)?, builder.input(&op.indices)?];
            builder.node("Gather", &inputs, axis(op.dim), target)
        }
        (Base::Gather(op), _) => {
            let inputs = [builder.input(&op.tensor)?, builder.input(&op.indices)?];
            builder.node("GatherElements", &inputs, axis(op.dim), target)
        }
        (Base::MaskWhere(op), _) => {
            let inputs = [builder.input(&op.mask)?, builder.input(&op.value)?, builder.input(&op.tensor)?];
            builder.node("Where", &inputs, Vec::new(), target)
        }
        (Base::MaskFill(op), _) => {
            let (mask, value) = (builder.input(&op.mask)?, builder.scalar(op.value, target.kind));
            let inputs = [mask, value, builder.input(&op.tensor)?];
            builder.node("Where", &inputs, Vec::new(), target)
        }
        (Base::Equal(op), _) => {
            let inputs = [builder.input(&op.lhs)?, builder.input(&op.rhs)?];
            builder.node("Equal", &inputs, Vec::new(), target)
        }
        (Base::NotEqual(op), _) => {
            let inputs = [builder.input(&op.lhs)?, builder.input(&op.rhs)?];
            let equal = builder.node("Equal", &inputs, Vec::new(), target);
            builder.node("Not", &[equal], Vec::new(), target)
        }
        (Base::EqualElem(op), _) => {
            let x = builder.input(&op.lhs)?;
            let value = builder.scalar(op.rhs, builder.graph.values[x].kind);
            builder.node("Equal", &[x, value], Vec::new(), target)
        }
        (Base::NotEqualElem(op), _) => {
            let x = builder.input(&op.lhs)?;
            let value = builder.scalar(op.rhs, builder.graph.values[x].kind);
            let equal = builder.node("Equal", &[x, value], Vec::new(), target);
            builder.node("Not", &[equal], Vec::new(), target)
        }
        (Base::RepeatDim(op), Base::RepeatDim(other)) => {
            let x = builder.input(&op.tensor)?;
            if builder.graph.shape(x)[op.dim] == Dim::Fixed(1) {
                builder.graph.expand(x, &target.shape)
            } else if op.times == other.times {
                let mut times = vec![1; target.shape.len()];
                times[op.dim] = op.times as i64;
                let times = builder.graph.ints(&times);
                builder.node("Tile", &[x, times], Vec::new(), target)
            } else {
                return Ok(None);
            }
        }
        (Base::Cat(op), _) => {
            let filled = op.tensors.iter().filter(|tensor| tensor.shape[op.dim] > 0);
            let parts = filled.map(|tensor| builder.input(tensor)).collect::<Result<Vec<_>>>()?;
            match parts[..] {
                [only] => only,
                _ => builder.node("Concat", &parts, axis(op.dim), target),
            }
        }
        (Base::Cast(op), _) => {
            let x = builder.input(&op.input)?;
            cast(builder, x, target)
        }
        (Base::Zeros(_) | Base::Empty(_), _) => filled(builder, 0.0, target),
        (Base::Ones(_), _) => filled(builder, 1.0, target),
        _ => return Ok(None),
    }))
}

/// Values of another type.
pub(super) fn cast(builder: &mut Builder, x: Id, target: &Target) -> Id {
    if builder.graph.values[x].kind == target.kind {
        return x;
    }
    builder.node("Cast", &[x], vec![("to", Attribute::Int(target.kind.code()))], target)
}

/// One number everywhere.
pub(super) fn filled(builder: &mut Builder, value: f64, target: &Target) -> Id {
    let data = match target.kind {
        Kind::Float => Data::Float(vec![value as f32]),
        Kind::Bool => Data::Bool(vec![value != 0.0]),
        Kind::Int | Kind::Byte => Data::Int(vec![value as i64]),
    };
    let one = builder.graph.constant(&[], data, String::new());
    builder.graph.expand(one, &target.shape)
}

/// Start, end and step along an axis; none where all of it is taken.
type Part = Option<(i64, i64, i64)>;

fn ranges(first: &TensorIr, a: &[Slice], second: &TensorIr, b: &[Slice]) -> Result<Vec<Part>> {
    let sides = shape(&first.shape.to_vec(), &second.shape.to_vec())?;
    let part = |slice: Option<&Slice>, n: usize| -> Part {
        let (n, slice) = (n as i64, slice?);
        let place = |at: isize| (if at < 0 { at as i64 + n } else { at as i64 }).clamp(0, n);
        let (start, end) = (place(slice.start), slice.end.map_or(n, place));
        ((start, end, slice.step) != (0, n, 1)).then_some((start, end, slice.step as i64))
    };
    let each = (0..sides.len()).map(|axis| {
        let parts = (part(a.get(axis), first.shape[axis]), part(b.get(axis), second.shape[axis]));
        match parts {
            (a, b) if a == b && a.is_none_or(|(.., step)| step > 0) => Ok(a),
            _ => Err(Error::new("a part of a tensor follows the batch, for which no form in ONNX is known")),
        }
    });
    each.collect()
}

fn slice(builder: &mut Builder, x: Id, ranges: &[Part], target: &Target) -> Id {
    let taken: Vec<_> = ranges.iter().enumerate().filter_map(|(axis, part)| Some((axis as i64, (*part)?))).collect();
    if taken.is_empty() {
        return x;
    }
    let mut columns = vec![
        taken.iter().map(|(_, part)| part.0).collect::<Vec<_>>(),
        taken.iter().map(|(_, part)| part.1).collect(),
        taken.iter().map(|(axis, _)| *axis).collect(),
        taken.iter().map(|(_, part)| part.2).collect(),
    ];
    if columns[3].iter().all(|step| *step == 1) {
        columns.pop();
    }
    let mut inputs = vec![x];
    inputs.extend(columns.iter().map(|column| builder.graph.ints(column)));
    builder.node("Slice", &inputs, Vec::new(), target)
}

/// `value` in the place of a part of `x`: what lies before and after it along each axis is put around it.
fn assign(builder: &mut Builder, x: Id, value: Id, ranges: &[Part], axis: usize) -> Id {
    let Some(at) = (axis..ranges.len()).find(|axis| ranges[*axis].is_some()) else { return value };
    let (start, end, _) = ranges[at].unwrap_or_default();
    let Target { shape, kind } = Target { shape: builder.graph.shape(x).to_vec(), kind: builder.graph.values[x].kind };
    let n = if let Dim::Fixed(n) = shape[at] { n as i64 } else { end };
    let piece = |builder: &mut Builder, from: i64, to: i64| {
        let mut part = shape.clone();
        part[at] = Dim::Fixed((to - from) as usize);
        let mut ranges = vec![None; shape.len()];
        ranges[at] = Some((from, to, 1));
        (from < to).then(|| slice(builder, x, &ranges, &Target { shape: part, kind }))
    };
    let (before, middle, after) = (piece(builder, 0, start), piece(builder, start, end), piece(builder, end, n));
    let middle = middle.map(|middle| assign(builder, middle, value, ranges, at + 1));
    let parts: Vec<Id> = [before, middle, after].into_iter().flatten().collect();
    match parts[..] {
        [only] => only,
        _ => {
            let axis = vec![("axis", Attribute::Int(at as i64))];
            builder.node("Concat", &parts, axis, &Target { shape: shape.clone(), kind })
        }
    }
}
