//! Linear layers: a product needs no rows side by side, so the reshapes around it go.

use crate::export::graph::{Dim, Graph};

/// `[.., in]` to `[rows, in]`, a product with a constant, a bias, and back: without the two reshapes.
pub(super) fn without_reshapes(graph: &mut Graph) {
    let (makers, uses) = (graph.makers(), graph.uses());
    let mut readers: Vec<Option<usize>> = vec![None; graph.values.len()];
    for (at, node) in graph.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|id| readers[*id] = Some(at));
    }
    let mut gone = vec![false; graph.nodes.len()];
    for product in 0..graph.nodes.len() {
        let node = &graph.nodes[product];
        let &[flat, weight] = &node.inputs[..] else { continue };
        if node.op != "MatMul" || graph.values[weight].data.is_none() || graph.shape(weight).len() != 2 {
            continue;
        }
        let before = makers[flat].map(|at| &graph.nodes[at]).filter(|node| node.op == "Reshape");
        let Some(x) = before.map(|node| node.inputs[0]) else { continue };
        let sides = graph.shape(x);
        if sides.last() != graph.shape(flat).last() || graph.shape(flat).len() != 2 {
            continue;
        }
        let mut wanted = sides.to_vec();
        if let Some(last) = wanted.last_mut() {
            *last = graph.shape(weight)[1];
        }
        // At most a bias lies between the product and the way back.
        let mut chain = vec![product];
        let mut next = only_reader(graph, &readers, &uses, node.output);
        if let Some(at) = next
            && graph.nodes[at].op == "Add"
            && graph.values[graph.nodes[at].inputs[1]].data.is_some()
            && is_row(graph.shape(graph.nodes[at].inputs[1]))
        {
            chain.push(at);
            next = only_reader(graph, &readers, &uses, graph.nodes[at].output);
        }
        let Some(back) = next.filter(|at| graph.nodes[*at].op == "Reshape") else { continue };
        let output = graph.nodes[back].output;
        if graph.shape(output) != wanted {
            continue;
        }
        graph.nodes[product].inputs[0] = x;
        for at in &chain {
            let id = graph.nodes[*at].output;
            graph.values[id].shape.clone_from(&wanted);
        }
        if let Some(last) = chain.last() {
            graph.nodes[*last].output = output;
        }
        gone[back] = true;
    }
    let mut gone = gone.into_iter();
    graph.nodes.retain(|_| !gone.next().unwrap_or(false));
}

fn only_reader(graph: &Graph, readers: &[Option<usize>], uses: &[usize], id: usize) -> Option<usize> {
    let at = readers[id].filter(|_| uses[id] == 1)?;
    (graph.nodes[at].inputs[0] == id).then_some(at)
}

/// Whether a constant is one row, whatever it is added to.
fn is_row(shape: &[Dim]) -> bool {
    shape.iter().rev().skip(1).all(|side| *side == Dim::Fixed(1))
}
