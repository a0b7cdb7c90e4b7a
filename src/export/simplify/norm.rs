//! LayerNorm, as it is composed, to the one operation.

use crate::export::graph::{Attribute, Data, Dim, Graph, Id, Node};

/// Finds `(x - mean) / sqrt(variance + eps) * weight + bias` over the last axis.
pub(super) fn layer_norms(graph: &mut Graph) {
    let makers = graph.makers();
    for at in 0..graph.nodes.len() {
        let Some(found) = matched(graph, &makers, at) else { continue };
        let channels = graph.floats(found.weight).map_or(0, <[f32]>::len);
        let mut inputs = vec![found.x];
        for id in [found.weight, found.bias] {
            let (values, layer) = (graph.floats(id).unwrap_or_default().to_vec(), graph.values[id].layer.clone());
            inputs.push(graph.constant(&[channels], Data::Float(values), layer));
        }
        let output = graph.nodes[at].output;
        let attributes = vec![("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(found.epsilon))];
        graph.nodes[at] = Node { op: "LayerNormalization", inputs, output, attributes };
    }
}

struct Found {
    x: Id,
    weight: Id,
    bias: Id,
    epsilon: f32,
}

fn matched(graph: &Graph, makers: &[Option<usize>], at: usize) -> Option<Found> {
    let made = |id: Id, op: &str| makers[id].map(|at| &graph.nodes[at]).filter(|node| node.op == op);
    let add = Some(&graph.nodes[at]).filter(|node| node.op == "Add")?;
    let scaled = made(add.inputs[0], "Mul")?;
    let unit = made(scaled.inputs[0], "Div")?;
    let centred = made(unit.inputs[0], "Sub")?;
    let deviation = made(unit.inputs[1], "Sqrt")?;
    let raised = made(deviation.inputs[0], "Add")?;
    let variance = made(raised.inputs[0], "ReduceMean")?;
    let square = made(variance.inputs[0], "Mul")?;
    let mean = made(centred.inputs[1], "ReduceMean")?;
    let x = centred.inputs[0];
    let last = [graph.shape(x).len() as i64 - 1];
    let over_last = |node: &Node| node.ints("axes") == Some(&last[..]);
    let same = square.inputs == [centred.output; 2] && mean.inputs[0] == x && over_last(mean) && over_last(variance);
    let (weight, bias) = (scaled.inputs[1], add.inputs[1]);
    let Some(Dim::Fixed(channels)) = graph.shape(x).last() else { return None };
    let fits = [weight, bias].iter().all(|id| graph.floats(*id).is_some_and(|values| values.len() == *channels));
    let epsilon = *graph.floats(raised.inputs[1]).filter(|values| values.len() == 1)?.first()?;
    (same && fits).then_some(Found { x, weight, bias, epsilon })
}
