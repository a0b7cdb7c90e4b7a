//! How much memory a graph takes when it is run.

use crate::export::graph::{Dim, Graph, Id, Kind};

impl Graph {
    /// Bytes of all tensors that are there at once, at most, while the graph is run for so many images: a tensor lives
    /// from the operation that gives it to the last that reads it.
    pub(super) fn peak_bytes(&self, images: usize) -> usize {
        let bytes = |id: Id| {
            let value = &self.values[id];
            let width = if value.kind == Kind::Byte { 1 } else { 4 };
            let sides = value.shape.iter().map(|side| match side {
                Dim::Fixed(n) => *n,
                Dim::Batch(n) => n * images,
            });
            sides.fold(width, usize::saturating_mul)
        };
        let mut last = vec![0; self.values.len()];
        for (at, node) in self.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|id| last[*id] = at);
        }
        self.outputs.iter().for_each(|id| last[*id] = self.nodes.len());
        let constants: usize = (0..self.values.len()).filter(|id| self.values[*id].data.is_some()).map(bytes).sum();
        let (mut held, mut most) = (self.inputs.iter().map(|id| bytes(*id)).fold(constants, usize::saturating_add), 0);
        for (at, node) in self.nodes.iter().enumerate() {
            held = held.saturating_add(bytes(node.output));
            most = most.max(held);
            let mut ended: Vec<Id> = node.inputs.clone();
            ended.sort_unstable();
            ended.dedup();
            let ended = ended.into_iter().filter(|id| last[*id] == at && self.values[*id].data.is_none());
            held = ended.fold(held, |held, id| held.saturating_sub(bytes(id)));
        }
        most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::graph::Data;

    /// Of x [b, 10]: c = x + 5 numbers [1], d = c + x, e = d + d; x and c and d are there when d is made.
    #[test]
    fn tensors_live_until_they_are_read_last() {
        let mut graph = Graph::default();
        let shape = vec![Dim::Batch(1), Dim::Fixed(10)];
        let x = graph.input("x", shape.clone(), Kind::Float);
        let five = graph.constant(&[1], Data::Float(vec![5.0]), String::new());
        let mut add = |inputs: [Id; 2]| {
            let output = graph.value(shape.clone(), Kind::Float, String::new());
            let node =
                crate::export::graph::Node { op: "Add", inputs: inputs.to_vec(), output, attributes: Vec::new() };
            graph.nodes.push(node);
            output
        };
        let c = add([x, five]);
        let d = add([c, x]);
        let e = add([d, d]);
        graph.outputs.push(e);
        assert_eq!(graph.peak_bytes(2), 4 + 3 * 4 * 20);
        assert_eq!(graph.peak_bytes(1), 4 + 3 * 4 * 10);
    }
}
