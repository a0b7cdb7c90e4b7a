//! Transposes: moved behind operations that work value by value, until two of them cancel.

use std::collections::HashMap;

use crate::export::graph::{Attribute, Data, Dim, Graph, Id, Node, Value};
use crate::export::simplify::broadcast::BROADCASTING;

/// Operations of one tensor that work value by value.
const UNARY: [&str; 7] = ["Relu", "Sigmoid", "Erf", "Sqrt", "Neg", "Tanh", "Exp"];

/// Rewrites the graph from its start to its end.
pub(super) fn sink(graph: &mut Graph) {
    let mut pass = Pass { turned: HashMap::new(), same: HashMap::new(), nodes: Vec::new() };
    for mut node in std::mem::take(&mut graph.nodes) {
        for id in &mut node.inputs {
            if let Some(other) = pass.same.get(id) {
                *id = *other;
            }
        }
        if node.op == "Transpose" {
            pass.transpose(graph, node);
        } else if !pass.sunk(graph, &node) {
            pass.nodes.push(node);
        }
    }
    graph.nodes = pass.nodes;
    for id in &mut graph.outputs {
        if let Some(other) = pass.same.get(id) {
            let name = graph.values[*id].name.take();
            graph.values[*other].name = name;
            *id = *other;
        }
    }
}

struct Pass {
    /// Values that are a transpose: of what, and the order of its axes.
    turned: HashMap<Id, (Id, Vec<usize>)>,
    /// Values that are another.
    same: HashMap<Id, Id>,
    nodes: Vec<Node>,
}

impl Pass {
    fn transpose(&mut self, graph: &mut Graph, mut node: Node) {
        let own: Vec<usize> = node.ints("perm").unwrap_or_default().iter().map(|axis| *axis as usize).collect();
        let (x, axes) = match self.turned.get(&node.inputs[0]) {
            Some((x, before)) => (*x, own.iter().map(|axis| before[*axis]).collect()),
            None => (node.inputs[0], own),
        };
        if axes.iter().enumerate().all(|(i, axis)| i == *axis) {
            if graph.values[node.output].name.is_some() && graph.values[x].name.is_some() {
                self.nodes.push(Node { op: "Identity", inputs: vec![x], output: node.output, attributes: Vec::new() });
                return;
            }
            if let Some(name) = graph.values[node.output].name.clone() {
                graph.values[x].name = Some(name);
            }
            let recorded = graph.values[node.output].recorded;
            graph.values[x].recorded = graph.values[x].recorded.or(recorded);
            self.same.insert(node.output, x);
            return;
        }
        node.inputs[0] = x;
        node.attributes = vec![("perm", Attribute::Ints(axes.iter().map(|axis| *axis as i64).collect()))];
        self.turned.insert(node.output, (x, axes));
        self.nodes.push(node);
    }

    /// The operation before the transpose instead of after it. Whether that is possible.
    fn sunk(&mut self, graph: &mut Graph, node: &Node) -> bool {
        let concat = node.op == "Concat";
        if !concat && !UNARY.contains(&node.op) && !BROADCASTING.contains(&node.op) {
            return false;
        }
        let constant = |id: &Id| graph.values[*id].data.is_some();
        let mut turned = node.inputs.iter().filter(|id| !constant(id)).map(|id| self.turned.get(id));
        let Some(Some((_, axes))) = turned.next() else { return false };
        if axes.len() != 4 || !turned.all(|other| other.is_some_and(|(_, other)| other == axes)) {
            return false;
        }
        if concat && node.inputs.iter().any(constant) || node.inputs.iter().any(|id| graph.shape(*id).len() > 4) {
            return false;
        }
        // All of them are as large as the result, or constants.
        let whole = node.inputs.iter().all(|id| constant(id) || concat || graph.shape(*id) == graph.shape(node.output));
        let axes = axes.clone();
        if !whole {
            return false;
        }
        let inputs: Vec<Id> = node
            .inputs
            .iter()
            .map(|id| match self.turned.get(id) {
                Some((x, _)) => *x,
                None => turned_constant(graph, *id, &axes),
            })
            .collect();
        let mut shape = vec![Dim::Fixed(0); 4];
        for (to, from) in axes.iter().enumerate() {
            shape[*from] = graph.shape(node.output)[to];
        }
        let Value { kind, layer, .. } = graph.values[node.output].clone();
        let before = graph.value(shape, kind, layer);
        let mut attributes = node.attributes.clone();
        if concat {
            for (name, value) in &mut attributes {
                if let ("axis", Attribute::Int(axis)) = (*name, value) {
                    *axis = axes[*axis as usize] as i64;
                }
            }
        }
        self.nodes.push(Node { op: node.op, inputs, output: before, attributes });
        let perm = Attribute::Ints(axes.iter().map(|axis| *axis as i64).collect());
        let back =
            Node { op: "Transpose", inputs: vec![before], output: node.output, attributes: vec![("perm", perm)] };
        self.nodes.push(back);
        self.turned.insert(node.output, (before, axes));
        true
    }
}

/// A constant with its axes as they were before the transpose; of one value, as it is.
fn turned_constant(graph: &mut Graph, id: Id, axes: &[usize]) -> Id {
    let value = graph.values[id].clone();
    let Some(Data::Float(values)) = &value.data else { return id };
    if values.len() == 1 {
        return id;
    }
    let sides = value.shape.iter().map(|side| if let Dim::Fixed(n) = side { *n } else { 1 });
    let sides: Vec<usize> = std::iter::repeat_n(1, 4 - value.shape.len()).chain(sides).collect();
    let mut before = [1; 4];
    for (to, from) in axes.iter().enumerate() {
        before[*from] = sides[to];
    }
    // Strides of the constant as it is, by the axes that it is to have.
    let mut strides = [0; 4];
    for (to, from) in axes.iter().enumerate() {
        strides[*from] = sides[to + 1..].iter().product();
    }
    let mut turned = Vec::with_capacity(values.len());
    for a in 0..before[0] {
        for b in 0..before[1] {
            for c in 0..before[2] {
                for d in 0..before[3] {
                    turned.push(values[a * strides[0] + b * strides[1] + c * strides[2] + d * strides[3]]);
                }
            }
        }
    }
    graph.constant(&before, Data::Float(turned), value.layer)
}
