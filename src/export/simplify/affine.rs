//! Factors and offsets of channels, put into the weights of the layer before them: batch norms after convolutions,
//! LayerScale after linear layers.

use crate::export::graph::{Data, Dim, Graph, Id};

/// What is done to each channel.
#[derive(Clone, Copy)]
enum Change {
    Times,
    Plus,
    Minus,
}

/// Puts one factor or offset into each layer that has one after it. Whether there was any.
pub(super) fn fold(graph: &mut Graph) -> bool {
    let (makers, uses) = (graph.makers(), graph.uses());
    let mut gone = vec![false; graph.nodes.len()];
    let mut touched = vec![false; graph.nodes.len()];
    for at in 0..graph.nodes.len() {
        let node = &graph.nodes[at];
        let change = match node.op {
            "Mul" => Change::Times,
            "Add" => Change::Plus,
            "Sub" => Change::Minus,
            _ => continue,
        };
        let &[x, operand] = &node.inputs[..] else { continue };
        let Some(Dim::Fixed(channels)) = graph.shape(x).last().copied() else { continue };
        if uses[x] != 1 || graph.shape(x) != graph.shape(node.output) {
            continue;
        }
        let Some(values) = row(graph, operand, channels) else { continue };
        let Some(maker) = makers[x] else { continue };
        let layer = match graph.nodes[maker].op {
            "Transpose" if graph.nodes[maker].ints("perm") == Some(&[0, 2, 3, 1]) => {
                let map = graph.nodes[maker].inputs[0];
                makers[map].filter(|at| graph.nodes[*at].op == "Conv" && uses[map] == 1)
            }
            "Add" if matches!(change, Change::Times) => linear(graph, &makers, &uses, maker, channels),
            "MatMul" if matches!(change, Change::Times) => Some(maker),
            _ => None,
        };
        let Some(layer) = layer.filter(|layer| !touched[*layer] && !touched[maker]) else { continue };
        let weight = graph.nodes[layer].inputs[1];
        if graph.floats(weight).is_none() {
            continue;
        }
        let changed = match graph.nodes[layer].op {
            "Conv" => convolution(graph, layer, change, &values),
            _ => product(graph, layer, maker, &values),
        };
        if !changed {
            continue;
        }
        (touched[layer], touched[maker]) = (true, true);
        let (before, after) = (graph.nodes[layer].output, graph.nodes[at].output);
        graph.values[after].layer = graph.values[before].layer.clone();
        // What lies between has other values than were recorded.
        for between in [layer, maker] {
            let id = graph.nodes[between].output;
            graph.values[id].recorded = None;
        }
        graph.nodes[maker].output = graph.nodes[at].output;
        gone[at] = true;
    }
    let any = gone.contains(&true);
    let mut gone = gone.into_iter();
    graph.nodes.retain(|_| !gone.next().unwrap_or(false));
    any
}

/// A constant that has one value for each channel, or one for all.
fn row(graph: &Graph, id: Id, channels: usize) -> Option<Vec<f32>> {
    let values = graph.floats(id)?;
    let last = graph.shape(id).last().copied();
    match values.len() {
        1 => Some(vec![values[0]; channels]),
        n if n == channels && last == Some(Dim::Fixed(channels)) => Some(values.to_vec()),
        _ => None,
    }
}

/// The product whose bias `add` adds.
fn linear(graph: &Graph, makers: &[Option<usize>], uses: &[usize], add: usize, channels: usize) -> Option<usize> {
    let &[x, bias] = &graph.nodes[add].inputs[..] else { return None };
    row(graph, bias, channels)?;
    makers[x].filter(|at| graph.nodes[*at].op == "MatMul" && uses[x] == 1)
}

/// `W [in, out]`, and the bias that `add` adds, unless that is the product itself.
fn product(graph: &mut Graph, layer: usize, add: usize, values: &[f32]) -> bool {
    let weight = graph.nodes[layer].inputs[1];
    if graph.shape(weight).len() != 2 || graph.shape(weight)[1] != Dim::Fixed(values.len()) {
        return false;
    }
    let scaled = |graph: &mut Graph, id: Id| {
        let old = &graph.values[id];
        let sides: Vec<usize> = old.shape.iter().map(|side| if let Dim::Fixed(n) = side { *n } else { 0 }).collect();
        let (layer, of) = (old.layer.clone(), graph.floats(id).unwrap_or_default());
        let data = of.iter().enumerate().map(|(at, value)| value * values[at % values.len()]).collect();
        graph.constant(&sides, Data::Float(data), layer)
    };
    graph.nodes[layer].inputs[1] = scaled(graph, weight);
    if add != layer {
        let bias = graph.nodes[add].inputs[1];
        let whole = row(graph, bias, values.len()).unwrap_or_default();
        let layer = graph.values[bias].layer.clone();
        let whole = graph.constant(&[values.len()], Data::Float(whole), layer);
        graph.nodes[add].inputs[1] = scaled(graph, whole);
    }
    true
}

/// `W [out, in, kh, kw]` and its bias.
fn convolution(graph: &mut Graph, layer: usize, change: Change, values: &[f32]) -> bool {
    let weight = graph.nodes[layer].inputs[1];
    let bias = graph.nodes[layer].inputs.get(2).copied();
    let name = graph.values[weight].layer.clone();
    let mut offsets = match bias {
        None => vec![0.0; values.len()],
        Some(id) => match graph.floats(id) {
            Some(values) => values.to_vec(),
            None => return false,
        },
    };
    if graph.shape(weight).first() != Some(&Dim::Fixed(values.len())) {
        return false;
    }
    match change {
        Change::Plus => offsets.iter_mut().zip(values).for_each(|(offset, value)| *offset += value),
        Change::Minus => offsets.iter_mut().zip(values).for_each(|(offset, value)| *offset -= value),
        Change::Times => {
            offsets.iter_mut().zip(values).for_each(|(offset, value)| *offset *= value);
            let sides: Vec<usize> =
                graph.shape(weight).iter().map(|side| if let Dim::Fixed(n) = side { *n } else { 0 }).collect();
            let of = graph.floats(weight).unwrap_or_default();
            let each = of.len() / values.len();
            let data = of.iter().enumerate().map(|(at, weight)| weight * values[at / each]).collect();
            graph.nodes[layer].inputs[1] = graph.constant(&sides, Data::Float(data), name.clone());
        }
    }
    let offsets = graph.constant(&[values.len()], Data::Float(offsets), name);
    graph.nodes[layer].inputs.truncate(2);
    graph.nodes[layer].inputs.push(offsets);
    true
}
