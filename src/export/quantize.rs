//! Weights as whole numbers of 8 bits, with a scale for each output channel of their layer.

use crate::export::graph::{Dim, Graph, Id, Node};

/// Constants of fewer values are not worth it.
const WORTH: usize = 1024;

/// The largest whole number: all that 8 bits hold.
pub(super) const LEVELS: f32 = 127.0;
/// The same where products are of whole numbers. Processors without instructions for them add two products in 16 bits,
/// which hold twice 255 * 63.
pub(super) const LEVELS_OF_PRODUCTS: f32 = 63.0;

/// A constant as whole numbers: its values are these times the scale of their place along `axis`.
pub(super) struct Quantized {
    pub(super) axis: usize,
    pub(super) scales: Vec<f32>,
    pub(super) values: Vec<i8>,
}

impl Quantized {
    /// Whether it is the weight of a product rather than of a convolution.
    pub(super) fn is_product(&self) -> bool {
        self.axis == 1
    }
}

/// The constant in whole numbers up to `levels`; none for what is no weight of a layer, or small.
pub(super) fn quantized(graph: &Graph, id: Id, levels: f32) -> Option<Quantized> {
    let values = graph.floats(id).filter(|values| values.len() >= WORTH)?;
    let shape: Vec<usize> = graph.values[id].shape.iter().map(|side| fixed(*side)).collect::<Option<_>>()?;
    let mut readers =
        graph.nodes.iter().filter(|node| node.inputs.contains(&id)).map(|node| channels(node, id, &shape));
    let axis = readers.next()??;
    if graph.outputs.contains(&id) || !readers.all(|other| other == Some(axis)) {
        return None;
    }
    Some(quantize(values, &shape, axis, levels))
}

fn fixed(side: Dim) -> Option<usize> {
    if let Dim::Fixed(n) = side { Some(n) } else { None }
}

/// The axis of a layer's output channels in its weights.
fn channels(node: &Node, id: Id, shape: &[usize]) -> Option<usize> {
    let is_weight =
        node.inputs.get(1) == Some(&id) && node.inputs[0] != id && node.inputs[2..].iter().all(|other| *other != id);
    match node.op {
        "Conv" if is_weight => Some(0),
        "MatMul" if is_weight && shape.len() == 2 => Some(1),
        _ => None,
    }
}

fn quantize(values: &[f32], shape: &[usize], axis: usize, levels: f32) -> Quantized {
    let (count, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
    let channel = |at: usize| at / inner % count;
    let mut scales = vec![0.0f32; count];
    for (at, value) in values.iter().enumerate() {
        let scale = &mut scales[channel(at)];
        *scale = scale.max(value.abs() / levels);
    }
    // A channel of zeros, or of values too small for a scale, stays zero.
    scales.iter_mut().filter(|scale| !scale.is_normal()).for_each(|scale| *scale = 1.0);
    let whole = |(at, value): (usize, &f32)| (value / scales[channel(at)]).round_ties_even() as i8;
    let values = values.iter().enumerate().map(whole).collect();
    Quantized { axis, scales, values }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_has_its_scale() {
        let values = [1.0, -200.0, 0.0, 0.5, 100.0, 0.0];
        let found = quantize(&values, &[2, 3], 1, LEVELS);
        assert_eq!(found.values, [127, -127, 0, 64, 64, 0]);
        assert_eq!(found.scales, [1.0 / 127.0, 200.0 / 127.0, 1.0]);
        let rows = quantize(&values, &[2, 3, 1], 0, LEVELS);
        assert_eq!((rows.scales.len(), rows.values[1], rows.values[4]), (2, -127, 127));
        let fewer = quantize(&values, &[2, 3], 1, LEVELS_OF_PRODUCTS);
        assert_eq!((fewer.values[0], fewer.values[1], fewer.scales[0]), (63, -63, 1.0 / 63.0));
        // Two products of the largest fit into 16 bits.
        assert!(2.0 * 255.0 * LEVELS_OF_PRODUCTS <= f32::from(i16::MAX));
    }
}
