//! Pieces that are cut from a value: what they are, and the value itself where all of them are put together again.

use std::collections::HashMap;

use crate::export::graph::{Attribute, Data, Dim, Graph, Id, Node};

/// A piece along one axis: from one place to another.
pub(super) struct Piece {
    pub(super) of: Id,
    pub(super) axis: usize,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// What a node takes, where that is a piece along one axis.
pub(super) fn piece(graph: &Graph, node: &Node) -> Option<Piece> {
    let &[of, from, to, axis] = &node.inputs[..] else { return None };
    let number = |id: Id| match &graph.values[id].data {
        Some(Data::Int(values)) if values.len() == 1 => usize::try_from(values[0]).ok(),
        _ => None,
    };
    let piece = Piece { of, axis: number(axis)?, from: number(from)?, to: number(to)? };
    (node.op == "Slice" && piece.axis < graph.shape(of).len()).then_some(piece)
}

/// Reads a value itself where its pieces are put together in their order.
pub(super) fn rejoined(graph: &mut Graph) {
    let makers = graph.makers();
    let mut same: HashMap<Id, Id> = HashMap::new();
    // A value with a name of its own stays, as it is asked for by that.
    for node in graph.nodes.iter().filter(|node| graph.values[node.output].name.is_none()) {
        if let Some(x) = whole(graph, &makers, node) {
            same.insert(node.output, x);
        }
    }
    for id in graph.nodes.iter_mut().flat_map(|node| &mut node.inputs) {
        while let Some(x) = same.get(id) {
            *id = *x;
        }
    }
}

/// The value whose pieces a node puts together.
fn whole(graph: &Graph, makers: &[Option<usize>], node: &Node) -> Option<Id> {
    let axis = node.attributes.iter().find_map(|(name, value)| match value {
        Attribute::Int(axis) if node.op == "Concat" && *name == "axis" => usize::try_from(*axis).ok(),
        _ => None,
    })?;
    let pieces: Option<Vec<Piece>> = node
        .inputs
        .iter()
        .map(|id| piece(graph, &graph.nodes[makers[*id]?]).filter(|piece| piece.axis == axis))
        .collect();
    let pieces = pieces?;
    let of = pieces.first()?.of;
    let mut end = 0;
    for piece in &pieces {
        if piece.of != of || piece.from != end {
            return None;
        }
        end = piece.to;
    }
    (graph.shape(of)[axis] == Dim::Fixed(end)).then_some(of)
}
