//! Bilinear resizes, which are products with sparse matrices, to the one operation.

use crate::export::ends::resize;
use crate::export::graph::{Dim, Graph, Id};
use crate::layers::resize::{Axis, Mode};

/// Finds a product with a bilinear matrix along the rows, and one along the columns after it, of a map `[b, h, w, c]`.
pub(super) fn resizes(graph: &mut Graph) {
    let makers = graph.makers();
    let mut replaced = Vec::new();
    for at in 0..graph.nodes.len() {
        if let Some((x, size)) = columns(graph, &makers, at) {
            replaced.push((at, x, size));
        }
    }
    let mut replaced = replaced.into_iter().peekable();
    for (at, node) in std::mem::take(&mut graph.nodes).into_iter().enumerate() {
        let Some((_, x, size)) = replaced.next_if(|(place, ..)| *place == at) else {
            graph.nodes.push(node);
            continue;
        };
        let planes = graph.transpose(x, &[0, 3, 1, 2]);
        let resized = resize(graph, planes, size);
        graph.transpose(resized, &[0, 2, 3, 1]);
        if let Some(last) = graph.nodes.last_mut() {
            last.output = node.output;
        }
    }
}

/// A resize that ends in the product along the columns: its map, and height and width of the result.
fn columns(graph: &Graph, makers: &[Option<usize>], at: usize) -> Option<(Id, [usize; 2])> {
    let node = Some(&graph.nodes[at]).filter(|node| node.op == "MatMul")?;
    let &[matrix, x] = &node.inputs[..] else { return None };
    let &[_, Dim::Fixed(height), Dim::Fixed(w), _] = graph.shape(x) else { return None };
    let width = bilinear(graph, matrix, 4, w)?;
    // The product along the rows: `[1, oh, h]` with `[b, h, w * c]`, back to `[b, oh, w, c]`.
    let rows = || {
        let made = |id: Id, op: &str| makers[id].map(|at| &graph.nodes[at]).filter(|node| node.op == op);
        let product = made(made(x, "Reshape")?.inputs[0], "MatMul")?;
        let map = made(product.inputs[1], "Reshape")?.inputs[0];
        let &[_, Dim::Fixed(h), Dim::Fixed(same), _] = graph.shape(map) else { return None };
        (same == w && bilinear(graph, product.inputs[0], 3, h)? == height).then_some(map)
    };
    Some((rows().unwrap_or(x), [height, width]))
}

/// The rows of a bilinear matrix of `rank` axes over `from` samples.
fn bilinear(graph: &Graph, id: Id, rank: usize, from: usize) -> Option<usize> {
    let values = graph.floats(id)?;
    let shape = graph.shape(id);
    let to = match shape {
        [before @ .., Dim::Fixed(to), Dim::Fixed(n)]
            if *n == from && before.iter().all(|side| *side == Dim::Fixed(1)) =>
        {
            *to
        }
        _ => return None,
    };
    if shape.len() != rank {
        return None;
    }
    let axis = Axis::new(from, to, Mode::Bilinear, false);
    let is = |row: usize, column: usize| -> f32 {
        axis.taps(row).iter().filter(|(source, _)| *source == column).map(|(_, weight)| weight).sum()
    };
    let same = values.iter().enumerate().all(|(at, value)| (value - is(at / from, at % from)).abs() < 1e-6);
    same.then_some(to)
}
