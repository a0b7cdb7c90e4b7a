//! A network as a graph of ONNX operations, with shapes in which the batch is left open.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// A value of a graph.
pub(super) type Id = usize;

/// A side of a shape: fixed, or so many for each image of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dim {
    Fixed(usize),
    Batch(usize),
}

/// What a tensor holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Float,
    Int,
    Bool,
    Byte,
}

impl Kind {
    /// ONNX's number of the type.
    pub(super) fn code(self) -> i64 {
        match self {
            Self::Float => 1,
            Self::Byte => 2,
            Self::Int => 7,
            Self::Bool => 9,
        }
    }
}

/// The values of a constant, row-major.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data {
    Float(Vec<f32>),
    Int(Vec<i64>),
    Bool(Vec<bool>),
}

impl Data {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Float(_) => Kind::Float,
            Self::Int(_) => Kind::Int,
            Self::Bool(_) => Kind::Bool,
        }
    }
}

/// A tensor: an input, a constant, or what a node gives.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) shape: Vec<Dim>,
    pub(super) kind: Kind,
    /// Of a constant.
    pub(super) data: Option<Data>,
    /// The layer of the model that it belongs to, for instance `backbone.blocks.0.attn.qkv`.
    pub(super) layer: String,
    /// The tensor of the recorded pass that holds the same.
    pub(super) recorded: Option<u64>,
    /// Its name in the file, where it has one of its own.
    pub(super) name: Option<String>,
}

/// An attribute of an operation.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Attribute {
    Int(i64),
    Float(f32),
    Ints(Vec<i64>),
    Text(&'static str),
}

/// Attributes by name.
pub(super) type Attributes = Vec<(&'static str, Attribute)>;

/// An operation.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) op: &'static str,
    pub(super) inputs: Vec<Id>,
    pub(super) output: Id,
    pub(super) attributes: Attributes,
}

impl Node {
    /// The integers of an attribute.
    pub(super) fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attributes.iter().find_map(|(known, value)| match value {
            Attribute::Ints(values) if *known == name => Some(&values[..]),
            _ => None,
        })
    }
}

/// Nodes in an order in which each comes after what it reads.
#[derive(Clone, Debug, Default)]
pub(super) struct Graph {
    pub(super) values: Vec<Value>,
    pub(super) nodes: Vec<Node>,
    pub(super) inputs: Vec<Id>,
    pub(super) outputs: Vec<Id>,
    /// The number of images, times a factor, as a tensor `[1]`; made where it is first needed.
    batch: BTreeMap<usize, Id>,
}

impl Graph {
    /// A value that nothing gives yet.
    pub(super) fn value(&mut self, shape: Vec<Dim>, kind: Kind, layer: String) -> Id {
        self.values.push(Value { shape, kind, data: None, layer, recorded: None, name: None });
        self.values.len() - 1
    }

    /// An input of the file.
    pub(super) fn input(&mut self, name: &str, shape: Vec<Dim>, kind: Kind) -> Id {
        let id = self.value(shape, kind, String::new());
        self.values[id].name = Some(name.to_owned());
        self.inputs.push(id);
        id
    }

    /// A constant.
    pub(super) fn constant(&mut self, shape: &[usize], data: Data, layer: String) -> Id {
        let id = self.value(shape.iter().map(|n| Dim::Fixed(*n)).collect(), data.kind(), layer);
        self.values[id].data = Some(data);
        id
    }

    /// Integers as a constant `[n]`.
    pub(super) fn ints(&mut self, values: &[i64]) -> Id {
        self.constant(&[values.len()], Data::Int(values.to_vec()), String::new())
    }

    /// A number as a constant of no axes.
    pub(super) fn scalar(&mut self, value: f32) -> Id {
        self.constant(&[], Data::Float(vec![value]), String::new())
    }

    /// The shape of a value.
    pub(super) fn shape(&self, id: Id) -> &[Dim] {
        &self.values[id].shape
    }

    /// The values of a constant of numbers.
    pub(super) fn floats(&self, id: Id) -> Option<&[f32]> {
        match &self.values[id].data {
            Some(Data::Float(values)) => Some(values),
            _ => None,
        }
    }

    /// Adds a node and gives its result.
    pub(super) fn node(
        &mut self,
        op: &'static str,
        inputs: &[Id],
        attributes: Attributes,
        shape: &[Dim],
        kind: Kind,
    ) -> Id {
        let output = self.value(shape.to_vec(), kind, self.layer_of(inputs));
        self.nodes.push(Node { op, inputs: inputs.to_vec(), output, attributes });
        output
    }

    /// As `x`, by an operation that keeps shape and kind.
    pub(super) fn same(&mut self, op: &'static str, inputs: &[Id], attributes: Attributes) -> Id {
        let Value { shape, kind, .. } = self.values[inputs[0]].clone();
        self.node(op, inputs, attributes, &shape, kind)
    }

    /// The layer whose weights are read, or else that of what is read.
    fn layer_of(&self, inputs: &[Id]) -> String {
        let named = |constant: bool| {
            let of = |id: &&Id| self.values[**id].data.is_some() == constant && !self.values[**id].layer.is_empty();
            inputs.iter().find(of).map(|id| self.values[*id].layer.clone())
        };
        named(true).or_else(|| named(false)).unwrap_or_default()
    }

    /// `x` in another shape of as many values.
    pub(super) fn reshape(&mut self, x: Id, shape: &[Dim]) -> Result<Id> {
        if self.shape(x) == shape {
            return Ok(x);
        }
        if shape.iter().filter(|side| matches!(side, Dim::Batch(_))).count() > 1 {
            return Err(Error::new(format!("two sides of {shape:?} follow the batch")));
        }
        let sides: Vec<i64> = shape.iter().map(|side| if let Dim::Fixed(n) = side { *n as i64 } else { -1 }).collect();
        let (sides, kind) = (self.ints(&sides), self.values[x].kind);
        Ok(self.node("Reshape", &[x, sides], Vec::new(), shape, kind))
    }

    /// `x` with its axes in another order.
    pub(super) fn transpose(&mut self, x: Id, axes: &[usize]) -> Id {
        if axes.iter().enumerate().all(|(i, axis)| i == *axis) {
            return x;
        }
        let shape: Vec<Dim> = axes.iter().map(|axis| self.shape(x)[*axis]).collect();
        let kind = self.values[x].kind;
        let order = Attribute::Ints(axes.iter().map(|axis| *axis as i64).collect());
        self.node("Transpose", &[x], vec![("perm", order)], &shape, kind)
    }

    /// `x` repeated along sides of length 1.
    pub(super) fn expand(&mut self, x: Id, shape: &[Dim]) -> Id {
        if self.shape(x) == shape {
            return x;
        }
        let added = shape.len() - self.shape(x).len();
        let before: Vec<Dim> = (0..added).map(|_| Dim::Fixed(1)).chain(self.shape(x).iter().copied()).collect();
        // A side that stays is one of length 1 to `Expand`.
        let sides: Vec<Dim> =
            before.iter().zip(shape).map(|(before, side)| if before == side { Dim::Fixed(1) } else { *side }).collect();
        let target = self.sides(&sides);
        let kind = self.values[x].kind;
        self.node("Expand", &[x, target], Vec::new(), shape, kind)
    }

    /// A shape as a tensor.
    fn sides(&mut self, shape: &[Dim]) -> Id {
        let mut parts = Vec::new();
        let mut run: Vec<i64> = Vec::new();
        for side in shape {
            match side {
                Dim::Fixed(n) => run.push(*n as i64),
                Dim::Batch(times) => {
                    if !run.is_empty() {
                        parts.push(self.ints(&std::mem::take(&mut run)));
                    }
                    parts.push(self.images(*times));
                }
            }
        }
        if !run.is_empty() {
            parts.push(self.ints(&run));
        }
        match parts[..] {
            [only] => only,
            _ => self.node("Concat", &parts, vec![("axis", Attribute::Int(0))], &[Dim::Fixed(shape.len())], Kind::Int),
        }
    }

    /// The number of images, times a factor, as a tensor `[1]`.
    fn images(&mut self, times: usize) -> Id {
        if let Some(known) = self.batch.get(&times) {
            return *known;
        }
        let one = [Dim::Fixed(1)];
        let id = if times == 1 {
            let image = self.inputs[0];
            let rank = [Dim::Fixed(self.shape(image).len())];
            let shape = self.node("Shape", &[image], Vec::new(), &rank, Kind::Int);
            let inputs = [shape, self.ints(&[0]), self.ints(&[1])];
            self.node("Slice", &inputs, Vec::new(), &one, Kind::Int)
        } else {
            let inputs = [self.images(1), self.ints(&[times as i64])];
            self.node("Mul", &inputs, Vec::new(), &one, Kind::Int)
        };
        self.batch.insert(times, id);
        id
    }

    /// How often each value is read; outputs of the file count once more.
    pub(super) fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.values.len()];
        self.nodes.iter().flat_map(|node| &node.inputs).chain(&self.outputs).for_each(|id| uses[*id] += 1);
        uses
    }

    /// The place of the node that gives each value.
    pub(super) fn makers(&self) -> Vec<Option<usize>> {
        let mut makers = vec![None; self.values.len()];
        self.nodes.iter().enumerate().for_each(|(at, node)| makers[node.output] = Some(at));
        makers
    }

    /// Leaves out nodes that nothing reads.
    pub(super) fn without_unused(&mut self) {
        let mut wanted = vec![false; self.values.len()];
        self.outputs.iter().for_each(|id| wanted[*id] = true);
        for node in self.nodes.iter().rev() {
            if wanted[node.output] {
                node.inputs.iter().for_each(|id| wanted[*id] = true);
            }
        }
        self.nodes.retain(|node| wanted[node.output]);
    }
}
