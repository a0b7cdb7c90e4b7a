//! What a file declares, beside what it computes: other programs go by that alone.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::export::protobuf::{Field, fields};

/// What a file declares.
#[derive(Debug, PartialEq)]
pub(super) struct Declared {
    /// The version of ONNX's own operators.
    operators: Option<u64>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// Types of its constants by name, as ONNX numbers them.
    constants: BTreeMap<String, u64>,
}

/// An input or an output.
#[derive(Debug, PartialEq)]
struct Port {
    name: String,
    /// As ONNX numbers them.
    kind: u64,
    /// Sides; none for the batch.
    shape: Vec<Option<u64>>,
}

/// Types by ONNX's numbers, as far as these files have them.
const KINDS: [(u64, &str); 7] =
    [(1, "float"), (2, "uint8"), (3, "int8"), (7, "int64"), (9, "bool"), (10, "float16"), (11, "double")];

fn kind(number: u64) -> String {
    KINDS.iter().find(|(known, _)| *known == number).map_or(format!("type {number}"), |(_, name)| (*name).to_owned())
}

impl Port {
    fn read(bytes: &[u8]) -> Result<Self> {
        let (mut name, mut kind, mut shape) = (String::new(), 0, Vec::new());
        for (field, value) in fields(bytes)? {
            match (field, value) {
                (1, Field::Bytes(text)) => name = String::from_utf8_lossy(text).into_owned(),
                (2, Field::Bytes(of)) => {
                    for tensor in messages(of, 1)? {
                        kind = number(tensor, 1)?.unwrap_or(0);
                        for sides in messages(tensor, 2)? {
                            shape =
                                messages(sides, 1)?.into_iter().map(|side| number(side, 1)).collect::<Result<_>>()?;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(Self { name, kind, shape })
    }

    fn text(&self) -> String {
        let side = |side: &Option<u64>| side.map_or("N".to_owned(), |side| side.to_string());
        let sides: Vec<String> = self.shape.iter().map(side).collect();
        format!("`{}` {} [{}]", self.name, kind(self.kind), sides.join(", "))
    }
}

/// The messages of a field.
fn messages(bytes: &[u8], wanted: u32) -> Result<Vec<&[u8]>> {
    let of = |(field, value)| match value {
        Field::Bytes(bytes) if field == wanted => Some(bytes),
        _ => None,
    };
    Ok(fields(bytes)?.into_iter().filter_map(of).collect())
}

/// The last number of a field.
fn number(bytes: &[u8], wanted: u32) -> Result<Option<u64>> {
    let of = |(field, value)| match value {
        Field::Number(number) if field == wanted => Some(number),
        _ => None,
    };
    Ok(fields(bytes)?.into_iter().filter_map(of).next_back())
}

impl Declared {
    /// What a file says.
    ///
    /// # Errors
    /// Bytes that are no ONNX file.
    pub(super) fn read(file: &[u8]) -> Result<Self> {
        let mut operators = None;
        for set in messages(file, 8)? {
            let domain = messages(set, 1)?.last().map(|domain| String::from_utf8_lossy(domain).into_owned());
            if domain.is_none_or(|domain| domain.is_empty() || domain == "ai.onnx") {
                operators = number(set, 2)?;
            }
        }
        let (mut inputs, mut outputs, mut constants) = (Vec::new(), Vec::new(), BTreeMap::new());
        for graph in messages(file, 7)? {
            for (field, value) in fields(graph)? {
                match (field, value) {
                    (5, Field::Bytes(tensor)) => {
                        let name = messages(tensor, 8)?.last().map(|name| String::from_utf8_lossy(name).into_owned());
                        constants.insert(name.unwrap_or_default(), number(tensor, 2)?.unwrap_or(0));
                    }
                    (11, Field::Bytes(port)) => inputs.push(Port::read(port)?),
                    (12, Field::Bytes(port)) => outputs.push(Port::read(port)?),
                    _ => {}
                }
            }
        }
        // Older files list constants among the inputs.
        inputs.retain(|port| !constants.contains_key(&port.name));
        Ok(Self { operators, inputs, outputs, constants })
    }

    /// Refuses a file that declares something else than `wanted`, whatever it computes.
    ///
    /// # Errors
    /// Other operators, inputs or outputs, and constants of another type.
    pub(super) fn ensure(&self, wanted: &Self) -> Result<()> {
        let version = |operators: Option<u64>| operators.map_or("no version".to_owned(), |n| format!("version {n}"));
        let differs = |what: String| Err(Error::new(what).with_hint("export the model again"));
        if self.operators != wanted.operators {
            return differs(format!(
                "it asks for {} of ONNX's operators instead of {}",
                version(self.operators),
                version(wanted.operators)
            ));
        }
        for (what, own, wanted) in [("takes", &self.inputs, &wanted.inputs), ("gives", &self.outputs, &wanted.outputs)]
        {
            if own != wanted {
                return differs(format!("it {what} {} instead of {}", texts(own), texts(wanted)));
            }
        }
        for (name, own) in &self.constants {
            if let Some(wanted) = wanted.constants.get(name).filter(|wanted| *wanted != own) {
                return differs(format!("`{name}` is of {} instead of {}", kind(*own), kind(*wanted)));
            }
        }
        Ok(())
    }
}

fn texts(ports: &[Port]) -> String {
    let texts: Vec<String> = ports.iter().map(Port::text).collect();
    if texts.is_empty() { "nothing".to_owned() } else { texts.join(" and ") }
}

/// Refuses metadata that say something else than those which an export would write.
///
/// # Errors
/// Names what differs.
pub(super) fn ensure_metadata(found: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> Result<()> {
    let differing: Vec<String> = wanted
        .keys()
        // Which program wrote it does not matter.
        .filter(|key| *key != "version" && found.get(*key) != wanted.get(*key))
        .map(|key| format!("`{key}`"))
        .collect();
    if differing.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!("its metadata under {} are not those of the model", differing.join(", ")))
        .with_hint("export the model again"))
}
