//! Operands that need not be as large as they are.

use crate::export::graph::{Dim, Graph, Id, Node};
use crate::export::record::BATCHES;

/// Operations that repeat sides of length 1 by themselves.
pub(super) const BROADCASTING: [&str; 4] = ["Add", "Sub", "Mul", "Div"];

/// Drops `Expand` before operations that do the same, and divides the smaller factor of a product instead of the
/// product.
pub(super) fn smaller_operands(graph: &mut Graph) {
    let makers = graph.makers();
    let uses = graph.uses();
    for at in 0..graph.nodes.len() {
        if !BROADCASTING.contains(&graph.nodes[at].op) {
            continue;
        }
        let output = graph.nodes[at].output;
        for side in 0..2 {
            let other = graph.nodes[at].inputs[1 - side];
            let Some(expand) = makers[graph.nodes[at].inputs[side]].filter(|at| graph.nodes[*at].op == "Expand") else {
                continue;
            };
            if graph.shape(other) == graph.shape(output) {
                graph.nodes[at].inputs[side] = graph.nodes[expand].inputs[0];
            }
        }
    }
    scaled_products(graph, &makers, &uses);
}

/// `(a b) / c` as `(a / c) b` where `a` is smaller than the product: the scores of attention.
fn scaled_products(graph: &mut Graph, makers: &[Option<usize>], uses: &[usize]) {
    let mut added: Vec<(usize, Node)> = Vec::new();
    for at in 0..graph.nodes.len() {
        let node = graph.nodes[at].clone();
        if !matches!(node.op, "Div" | "Mul") || graph.floats(node.inputs[1]).is_none_or(|values| values.len() != 1) {
            continue;
        }
        let Some(product) = makers.get(node.inputs[0]).copied().flatten().filter(|at| graph.nodes[*at].op == "MatMul")
        else {
            continue;
        };
        let factor = graph.nodes[product].inputs[0];
        if uses[node.inputs[0]] != 1
            || length(graph, factor) >= length(graph, node.output)
            || graph.values[factor].data.is_some()
        {
            continue;
        }
        let value = graph.values[factor].clone();
        let smaller = graph.value(value.shape, value.kind, value.layer);
        added.push((
            product,
            Node { op: node.op, inputs: vec![factor, node.inputs[1]], output: smaller, attributes: Vec::new() },
        ));
        graph.nodes[product].inputs[0] = smaller;
        graph.nodes[product].output = node.output;
        graph.nodes[at].op = "";
    }
    let mut nodes = Vec::with_capacity(graph.nodes.len() + added.len());
    added.sort_by_key(|(at, _)| *at);
    let mut added = added.into_iter().peekable();
    for (at, node) in std::mem::take(&mut graph.nodes).into_iter().enumerate() {
        while let Some((_, before)) = added.next_if(|(place, _)| *place == at) {
            nodes.push(before);
        }
        if !node.op.is_empty() {
            nodes.push(node);
        }
    }
    graph.nodes = nodes;
}

/// Constants that are one row, without the sides of length 1 before it: so runtimes look for a bias.
pub(super) fn rows(graph: &mut Graph) {
    let uses = graph.uses();
    for node in graph.nodes.iter().filter(|node| BROADCASTING.contains(&node.op)) {
        for side in 0..2 {
            let (id, other) = (node.inputs[side], node.inputs[1 - side]);
            let rank = graph.values[other].shape.len();
            let constant = &mut graph.values[id];
            let [before @ .., last] = &constant.shape[..] else { continue };
            let is_row = before.iter().all(|side| *side == Dim::Fixed(1)) && *last != Dim::Fixed(1);
            if constant.data.is_some() && uses[id] == 1 && is_row && rank > before.len() {
                constant.shape = vec![*last];
            }
        }
    }
}

fn length(graph: &Graph, id: Id) -> usize {
    graph.shape(id).iter().map(|side| if let Dim::Batch(n) = side { n * BATCHES[0] } else { fixed(side) }).product()
}

fn fixed(side: &Dim) -> usize {
    match side {
        Dim::Fixed(n) | Dim::Batch(n) => *n,
    }
}
