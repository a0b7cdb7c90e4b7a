//! ONNX files run in this process.

use rten::{ModelOptions, NodeId, Value, ValueOrView};

use crate::error::{Error, Result};
use crate::guard::guarded;

/// Images as a file takes them.
pub(super) enum Input {
    /// `[b, h, w, 3]`.
    Bytes(Vec<u8>),
    /// `[b, 3, h, w]`.
    Floats(Vec<f32>),
}

/// A file that can be run. The graph is run as it is written, so that every tensor in it can be read.
pub(super) struct Engine {
    model: rten::Model,
}

impl Engine {
    /// The file.
    ///
    /// # Errors
    /// Bytes that are no ONNX file, or one with operators that are not known.
    pub(super) fn load(file: Vec<u8>) -> Result<Self> {
        guarded(|| {
            let mut options = ModelOptions::with_all_ops();
            let loaded = options.enable_optimization(false).load(file);
            let model = loaded.map_err(|error| Error::new("the file cannot be run").with_source(error))?;
            Ok(Self { model })
        })
    }

    /// Whether the file has a tensor of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.model.find_node(name).is_some()
    }

    /// The named tensors, as floats, for images of this height and width.
    ///
    /// # Errors
    /// Names or shapes that the file does not have, and whatever fails in it.
    pub(super) fn run(&self, input: &Input, size: [usize; 2], names: &[&str]) -> Result<Vec<Vec<f32>>> {
        let failed = |error| Error::new("the file fails to run").with_source(error);
        let id = |name: &&str| {
            let missing = || {
                Error::new(format!("the file has no tensor `{name}`"))
                    .with_hint("compare the file as it was exported: programs that optimise files rename tensors")
            };
            self.model.find_node(name).ok_or_else(missing)
        };
        let ids: Vec<NodeId> = names.iter().map(id).collect::<Result<_>>()?;
        let [h, w] = size;
        let images = |length: usize| length / (3 * h * w);
        let other =
            |error: &dyn std::fmt::Display| Error::new(format!("the images are not of {h} x {w} pixels: {error}"));
        let value = match input {
            Input::Bytes(pixels) => {
                Value::from_shape([images(pixels.len()), h, w, 3], pixels.clone()).map_err(|error| other(&error))
            }
            Input::Floats(values) => {
                Value::from_shape([images(values.len()), 3, h, w], values.clone()).map_err(|error| other(&error))
            }
        }?;
        let Some(image) = self.model.input_ids().first() else { return Err(Error::new("the file takes no image")) };
        let inputs = vec![(*image, ValueOrView::Value(value))];
        let results = guarded(|| self.model.run(inputs, &ids, None).map_err(failed))?;
        results.into_iter().map(floats).collect()
    }
}

fn floats(value: Value) -> Result<Vec<f32>> {
    match value {
        Value::FloatTensor(tensor) => Ok(tensor.into_data()),
        Value::Int32Tensor(tensor) => Ok(tensor.into_data().into_iter().map(|value| value as f32).collect()),
        Value::UInt8Tensor(tensor) => Ok(tensor.into_data().into_iter().map(f32::from).collect()),
        _ => Err(Error::new("the file gives something that is no tensor of numbers")),
    }
}
