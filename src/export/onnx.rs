//! Graphs as ONNX files, and what is read of such files.

use std::borrow::Cow;
use std::collections::BTreeMap;

use half::f16;

use crate::error::{Error, Result};
use crate::export::graph::{Attribute, Data, Dim, Graph, Id, Kind, Node};
use crate::export::options::Precision;
use crate::export::protobuf::{Field, Message, fields};

/// Version 17 of the operators: LayerNormalization is one of them, and every runtime of the last years knows them.
const OPSET: i64 = 17;
/// The version of the format that came with these operators.
const FORMAT: i64 = 8;
/// ONNX's number of the type.
const HALF: i64 = 10;
/// Constants of fewer values are not worth halving.
const WORTH_HALVING: usize = 64;
/// A message of protocol buffers is smaller than this.
const LARGEST: usize = i32::MAX as usize;

/// What every value is called in the file.
pub(super) fn names(graph: &Graph) -> Vec<String> {
    let mut names: Vec<String> = vec![String::new(); graph.values.len()];
    let prefix = |id: Id| match graph.values[id].layer.as_str() {
        "" => String::new(),
        layer => format!("{layer}/"),
    };
    for (id, value) in graph.values.iter().enumerate().filter(|(_, value)| value.data.is_some()) {
        let own = value.name.clone();
        names[id] = own.unwrap_or_else(|| format!("{}constant_{id}", prefix(id)));
    }
    for node in &graph.nodes {
        names[node.output] = format!("{}{}_{}", prefix(node.output), node.op, node.output);
    }
    for (id, value) in graph.values.iter().enumerate().filter(|(_, value)| value.data.is_none()) {
        if let Some(own) = &value.name {
            names[id].clone_from(own);
        }
    }
    names
}

/// A graph as a file without metadata.
///
/// # Errors
/// One beyond the size that the format allows.
pub(super) fn encode(graph: &Graph, precision: Precision) -> Result<Vec<u8>> {
    let names = names(graph);
    let mut used = vec![false; graph.values.len()];
    graph.nodes.iter().flat_map(|node| &node.inputs).chain(&graph.outputs).for_each(|id| used[*id] = true);
    let constants: Vec<Id> = (0..used.len()).filter(|id| used[*id] && graph.values[*id].data.is_some()).collect();
    let halved = |id: Id| {
        precision == Precision::F16
            && graph.floats(id).is_some_and(|values| values.len() >= WORTH_HALVING)
            && !graph.values[id].layer.is_empty()
    };
    let mut body = Message::default();
    for id in constants.iter().filter(|id| halved(**id)) {
        let mut attribute = Message::default();
        attribute.text(1, "to");
        attribute.number(3, Kind::Float.code());
        attribute.number(20, 2);
        let mut cast = Message::default();
        cast.text(1, &half_name(&names[*id]));
        cast.text(2, &names[*id]);
        cast.text(3, &format!("{}/Cast", names[*id]));
        cast.text(4, "Cast");
        cast.message(5, attribute);
        body.message(1, cast);
    }
    graph.nodes.iter().for_each(|node| body.message(1, encode_node(node, &names)));
    body.text(2, "structtoken");
    for id in constants {
        body.message(5, tensor(graph, id, &names[id], halved(id)));
    }
    graph.inputs.iter().for_each(|id| body.message(11, value(graph, *id, &names[*id])));
    graph.outputs.iter().for_each(|id| body.message(12, value(graph, *id, &names[*id])));
    let mut file = Message::default();
    file.number(1, FORMAT);
    file.text(2, "structtoken");
    file.text(3, env!("CARGO_PKG_VERSION"));
    file.message(7, body);
    let mut operators = Message::default();
    operators.text(1, "");
    operators.number(2, OPSET);
    file.message(8, operators);
    if file.len() >= LARGEST {
        return Err(Error::new(format!(
            "the file would have {} bytes; an ONNX file has at most {LARGEST}",
            file.len()
        ))
        .with_hint("store the weights in half precision, which takes half the space, or take a smaller network"));
    }
    let mut bytes = Vec::with_capacity(file.len());
    file.write(&mut bytes).map_err(|error| Error::new("cannot write the file in memory").with_source(error))?;
    Ok(bytes)
}

/// What a constant is called where it is stored in half precision.
fn half_name(name: &str) -> String {
    format!("{name}.f16")
}

fn encode_node(node: &Node, names: &[String]) -> Message<'static> {
    let mut message = Message::default();
    node.inputs.iter().for_each(|id| message.text(1, &names[*id]));
    message.text(2, &names[node.output]);
    // Not the name of its result: some runtimes look up both in one table.
    message.text(3, &format!("{}.node", names[node.output]));
    message.text(4, node.op);
    for (name, value) in &node.attributes {
        let mut attribute = Message::default();
        attribute.text(1, name);
        let kind = match value {
            Attribute::Float(value) => {
                attribute.float(2, *value);
                1
            }
            Attribute::Int(value) => {
                attribute.number(3, *value);
                2
            }
            Attribute::Text(value) => {
                attribute.text(4, value);
                3
            }
            Attribute::Ints(values) => {
                values.iter().for_each(|value| attribute.number(8, *value));
                7
            }
        };
        attribute.number(20, kind);
        message.message(5, attribute);
    }
    message
}

fn tensor<'a>(graph: &'a Graph, id: Id, name: &str, halved: bool) -> Message<'a> {
    let value = &graph.values[id];
    let mut message = Message::default();
    for side in &value.shape {
        if let Dim::Fixed(n) = side {
            message.number(1, *n as i64);
        }
    }
    message.number(2, if halved { HALF } else { value.kind.code() });
    message.text(8, &if halved { half_name(name) } else { name.to_owned() });
    let bytes: Cow<'a, [u8]> = match &value.data {
        Some(Data::Float(values)) if halved => {
            values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect::<Vec<_>>().into()
        }
        Some(Data::Float(values)) if cfg!(target_endian = "little") => bytemuck::cast_slice(values).into(),
        Some(Data::Float(values)) => values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>().into(),
        Some(Data::Int(values)) => values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>().into(),
        Some(Data::Bool(values)) => values.iter().map(|value| u8::from(*value)).collect::<Vec<_>>().into(),
        None => Cow::default(),
    };
    message.bytes(9, bytes);
    message
}

fn value(graph: &Graph, id: Id, name: &str) -> Message<'static> {
    let value = &graph.values[id];
    let mut shape = Message::default();
    for side in &value.shape {
        let mut dim = Message::default();
        match side {
            Dim::Fixed(n) => dim.number(1, *n as i64),
            Dim::Batch(_) => dim.text(2, "batch"),
        }
        shape.message(1, dim);
    }
    let mut tensor = Message::default();
    tensor.number(1, value.kind.code());
    tensor.message(2, shape);
    let mut kind = Message::default();
    kind.message(1, tensor);
    let mut message = Message::default();
    message.text(1, name);
    message.message(2, kind);
    message
}

/// Metadata as the end of a file: a message is the longer by what is put after it.
pub(super) fn encode_metadata(entries: &BTreeMap<String, String>) -> Vec<u8> {
    let mut file = Message::default();
    for (key, text) in entries {
        let mut entry = Message::default();
        entry.text(1, key);
        entry.text(2, text);
        file.message(14, entry);
    }
    let mut bytes = Vec::with_capacity(file.len());
    // A vector takes all that is written.
    let _ = file.write(&mut bytes);
    bytes
}

/// The metadata of a file.
///
/// # Errors
/// Bytes that are no ONNX file.
pub(super) fn read_metadata(file: &[u8]) -> Result<BTreeMap<String, String>> {
    let mut entries = BTreeMap::new();
    let mut graph = false;
    for (field, value) in fields(file)? {
        match (field, value) {
            (7, Field::Bytes(body)) => {
                fields(body)?;
                graph = true;
            }
            (14, Field::Bytes(entry)) => {
                let entry = fields(entry)?;
                let text = |wanted: u32| {
                    entry.iter().find_map(|(field, value)| match value {
                        Field::Bytes(bytes) if *field == wanted => Some(String::from_utf8_lossy(bytes).into_owned()),
                        _ => None,
                    })
                };
                entries.insert(text(1).unwrap_or_default(), text(2).unwrap_or_default());
            }
            _ => {}
        }
    }
    if graph {
        return Ok(entries);
    }
    Err(Error::new("it holds no graph: it is damaged, or is not ONNX")
        .with_hint("copy the file again, or export the model again"))
}
