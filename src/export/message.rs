//! Operations and constants as messages of ONNX files.

use crate::export::graph::Dim;
use crate::export::protobuf::Message;

/// An operation with at most one attribute, an integer.
pub(super) fn operation(
    op: &str,
    inputs: &[&str],
    outputs: &[&str],
    attribute: Option<(&str, i64)>,
) -> Message<'static> {
    let mut node = Message::default();
    inputs.iter().for_each(|input| node.text(1, input));
    outputs.iter().for_each(|output| node.text(2, output));
    node.text(3, &format!("{}/{op}", outputs[0]));
    node.text(4, op);
    if let Some((name, value)) = attribute {
        let mut attribute = Message::default();
        attribute.text(1, name);
        attribute.number(3, value);
        attribute.number(20, 2);
        node.message(5, attribute);
    }
    node
}

/// A constant; `kind` is ONNX's number of its type.
pub(super) fn constant(shape: &[Dim], kind: i64, name: &str, bytes: Vec<u8>) -> Message<'static> {
    let mut message = Message::default();
    for side in shape {
        if let Dim::Fixed(n) = side {
            message.number(1, *n as i64);
        }
    }
    message.number(2, kind);
    message.text(8, name);
    message.bytes(9, bytes.into());
    message
}
