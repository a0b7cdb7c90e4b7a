//! Products in whole numbers: what enters is rounded to 8 bits when the file runs, by its own smallest and largest
//! value.

use std::collections::HashSet;

use crate::export::graph::{Id, Kind, Node};
use crate::export::message::operation;
use crate::export::protobuf::Message;

/// The weights that such products read, and what is rounded so far.
#[derive(Default)]
pub(super) struct Products {
    weights: HashSet<Id>,
    rounded: HashSet<Id>,
}

impl Products {
    /// A weight that lies in the file under [`stored_names`].
    pub(super) fn reads(&mut self, weight: Id) {
        self.weights.insert(weight);
    }

    /// The operations that stand for a product with such a weight. ONNX Runtime knows them, in this order, as one.
    pub(super) fn operations(&mut self, node: &Node, names: &[String]) -> Option<Vec<Message<'static>>> {
        let &[x, weight] = &node.inputs[..] else { return None };
        if !self.weights.contains(&weight) {
            return None;
        }
        let (input, output) = (&names[x], &names[node.output]);
        let [bytes, scale, zero] = ["u8", "scale", "zero"].map(|end| format!("{input}.{end}"));
        let [small, scales] = stored_names(&names[weight]);
        let [sums, floats, factors] = ["i32", "f32", "factors"].map(|end| format!("{output}.{end}"));
        let rounded = operation("DynamicQuantizeLinear", &[input], &[&bytes, &scale, &zero], None);
        let mut all: Vec<Message<'static>> = self.rounded.insert(x).then_some(rounded).into_iter().collect();
        all.push(operation("MatMulInteger", &[&bytes, &small, &zero], &[&sums], None));
        all.push(operation("Cast", &[&sums], &[&floats], Some(("to", Kind::Float.code()))));
        all.push(operation("Mul", &[&scale, &scales], &[&factors], None));
        all.push(operation("Mul", &[&floats, &factors], &[output], None));
        Some(all)
    }
}

/// What the whole numbers and the scales of a weight are called in the file.
pub(super) fn stored_names(weight: &str) -> [String; 2] {
    [format!("{weight}.i8"), format!("{weight}.scales")]
}
