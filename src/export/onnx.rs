//! Graphs as ONNX files of opset 17, and what is read of such files.

use std::borrow::Cow;
use std::collections::BTreeMap;

use half::f16;

use crate::error::{Error, Result};
use crate::export::graph::{Attribute, Data, Dim, Graph, Id, Kind, Node};
use crate::export::message::{constant, operation};
use crate::export::options::Precision;
use crate::export::products::{Products, stored_names};
use crate::export::protobuf::{Field, Message, fields};
use crate::export::quantize::{LEVELS, LEVELS_OF_PRODUCTS, Quantized, quantized};

/// Version 17 of the operators: LayerNormalization is one of them, and every runtime of the last years knows them.
const OPSET: i64 = 17;
/// The version of the format that came with these operators.
const FORMAT: i64 = 8;
/// ONNX's numbers of the types.
const HALF: i64 = 10;
const EIGHT_BITS: i64 = 3;
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
    let mut body = Message::default();
    let mut tensors = Vec::new();
    let mut products = Products::default();
    for id in constants {
        let name = &names[id];
        match stored(graph, id, precision) {
            Stored::Whole => tensors.push(tensor(graph, id, name, false)),
            Stored::Half => {
                let to = Some(("to", Kind::Float.code()));
                body.message(1, operation("Cast", &[&half_name(name)], &[name], to));
                tensors.push(tensor(graph, id, name, true));
            }
            Stored::EightBits(weights) => {
                let [small, scales] = stored_names(name);
                if precision == Precision::Int8Dynamic && weights.is_product() {
                    products.reads(id);
                } else {
                    let axis = Some(("axis", weights.axis as i64));
                    body.message(1, operation("DequantizeLinear", &[&small, &scales], &[name], axis));
                }
                let bytes = weights.values.iter().map(|value| value.to_le_bytes()[0]).collect();
                let floats = weights.scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
                tensors.push(constant(&graph.values[id].shape, EIGHT_BITS, &small, bytes));
                tensors.push(constant(&[Dim::Fixed(weights.scales.len())], Kind::Float.code(), &scales, floats));
            }
        }
    }
    for node in &graph.nodes {
        match products.operations(node, &names) {
            Some(operations) => operations.into_iter().for_each(|operation| body.message(1, operation)),
            None => body.message(1, encode_node(node, &names)),
        }
    }
    body.text(2, "structtoken");
    tensors.into_iter().for_each(|tensor| body.message(5, tensor));
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

/// How a constant lies in the file.
enum Stored {
    Whole,
    Half,
    EightBits(Quantized),
}

fn stored(graph: &Graph, id: Id, precision: Precision) -> Stored {
    let many = graph.floats(id).is_some_and(|values| values.len() >= WORTH_HALVING);
    let worth = many && !graph.values[id].layer.is_empty();
    match precision {
        Precision::F32 => Stored::Whole,
        Precision::F16 if worth => Stored::Half,
        Precision::Int8 if worth => quantized(graph, id, LEVELS).map_or(Stored::Whole, Stored::EightBits),
        Precision::Int8Dynamic if worth => {
            quantized(graph, id, LEVELS_OF_PRODUCTS).map_or(Stored::Whole, Stored::EightBits)
        }
        _ => Stored::Whole,
    }
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
