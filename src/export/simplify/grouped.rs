//! Convolutions within groups of channels, recorded as a sum of depthwise ones, to the one operation.

use crate::export::graph::{Attribute, Attributes, Data, Dim, Graph, Id, Kind, Node};
use crate::export::simplify::slices::piece;

/// The order of a map's axes `[b, h, w, c]` as planes `[b, c, h, w]`, and back.
const PLANES: [usize; 4] = [0, 3, 1, 2];
const MAP: [usize; 4] = [0, 2, 3, 1];

/// A depthwise convolution of one channel of each group, which all outputs of the group read.
struct Part<'a> {
    /// The map with its channels apart: `[b, h, w, groups, width]`.
    groups: Id,
    channel: usize,
    convolution: &'a Node,
}

/// A convolution within groups.
struct Found {
    /// `[b, h, w, c]`.
    x: Id,
    /// `[c, width, kh, kw]`.
    weight: Vec<f32>,
    kernel: [usize; 4],
    bias: Vec<f32>,
    layer: String,
    attributes: Attributes,
    /// As planes.
    shape: Vec<Dim>,
}

/// Finds the sum over all channels of a group.
pub(super) fn convolutions(graph: &mut Graph) {
    let makers = graph.makers();
    let mut found = (0..graph.nodes.len()).map(|at| sum(graph, &makers, at)).collect::<Vec<_>>().into_iter();
    for node in std::mem::take(&mut graph.nodes) {
        let Some(Found { x, weight, kernel, bias, layer, attributes, shape }) = found.next().flatten() else {
            graph.nodes.push(node);
            continue;
        };
        let channels = bias.len();
        let planes = graph.transpose(x, &PLANES);
        let weight = graph.constant(&kernel, Data::Float(weight), layer.clone());
        let bias = graph.constant(&[channels], Data::Float(bias), layer);
        let planes = graph.node("Conv", &[planes, weight, bias], attributes, &shape, Kind::Float);
        graph.transpose(planes, &MAP);
        if let Some(last) = graph.nodes.last_mut() {
            last.output = node.output;
        }
    }
}

/// The convolution that a sum stands for.
fn sum(graph: &Graph, makers: &[Option<usize>], at: usize) -> Option<Found> {
    let mut parts = Vec::new();
    let mut next = Some(&graph.nodes[at]).filter(|node| node.op == "Add");
    while let Some(node) = next {
        let &[before, added] = &node.inputs[..] else { return None };
        parts.push(part(graph, makers, added)?);
        next = makers[before].map(|at| &graph.nodes[at]).filter(|node| node.op == "Add");
        if next.is_none() {
            parts.push(part(graph, makers, before)?);
        }
    }
    parts.reverse();
    let first = parts.first()?;
    let &[.., Dim::Fixed(width)] = graph.shape(first.groups) else { return None };
    let in_order = |(at, part): (usize, &Part)| {
        part.channel == at && part.groups == first.groups && part.convolution.attributes == first.convolution.attributes
    };
    if parts.len() != width || !parts.iter().enumerate().all(in_order) {
        return None;
    }
    let x = makers[first.groups].map(|at| &graph.nodes[at]).filter(|node| node.op == "Reshape")?.inputs[0];
    let &[_, _, _, Dim::Fixed(channels)] = graph.shape(x) else { return None };
    let weights: Vec<&[f32]> =
        parts.iter().map(|part| graph.floats(part.convolution.inputs[1])).collect::<Option<_>>()?;
    let biases: Vec<&[f32]> =
        parts.iter().map(|part| graph.floats(*part.convolution.inputs.get(2)?)).collect::<Option<_>>()?;
    let &[Dim::Fixed(outputs), Dim::Fixed(1), Dim::Fixed(kh), Dim::Fixed(kw)] =
        graph.shape(first.convolution.inputs[1])
    else {
        return None;
    };
    let taps = kh * kw;
    let fits = outputs == channels
        && weights.iter().all(|weight| weight.len() == channels * taps)
        && biases.iter().all(|bias| bias.len() == channels);
    if !fits {
        return None;
    }
    let of = |channel: usize| weights.iter().flat_map(move |weight| &weight[channel * taps..][..taps]);
    let mut attributes = first.convolution.attributes.clone();
    for (name, value) in &mut attributes {
        if *name == "group" {
            *value = Attribute::Int((channels / width) as i64);
        }
    }
    Some(Found {
        x,
        weight: (0..channels).flat_map(of).copied().collect(),
        kernel: [channels, width, kh, kw],
        bias: (0..channels).map(|channel| biases.iter().map(|bias| bias[channel]).sum()).collect(),
        layer: graph.values[first.convolution.inputs[1]].layer.clone(),
        attributes,
        shape: graph.shape(first.convolution.output).to_vec(),
    })
}

/// `[b, h, w, groups, width]`, of which one channel is repeated for all outputs of its group, through a depthwise
/// convolution.
fn part<'a>(graph: &'a Graph, makers: &[Option<usize>], id: Id) -> Option<Part<'a>> {
    let made = |id: Id, op: &str| makers[id].map(|at| &graph.nodes[at]).filter(|node| node.op == op);
    let turned = |id: Id, axes: [usize; 4]| {
        let node = made(id, "Transpose")?;
        (node.ints("perm") == Some(&axes.map(|axis| axis as i64)[..])).then_some(node.inputs[0])
    };
    let convolution = made(turned(id, MAP)?, "Conv")?;
    let repeated = made(made(turned(convolution.inputs[0], PLANES)?, "Reshape")?.inputs[0], "Expand")?;
    let taken = piece(graph, makers[repeated.inputs[0]].map(|at| &graph.nodes[at])?)?;
    let wanted = graph.shape(taken.of);
    let fits =
        graph.shape(repeated.output) == wanted && taken.axis == 4 && taken.to == taken.from + 1 && wanted.len() == 5;
    fits.then_some(Part { groups: taken.of, channel: taken.from, convolution })
}
