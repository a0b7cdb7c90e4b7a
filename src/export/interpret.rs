//! Recorded operations, carried out on the CPU.

use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use burn::tensor::{DType, TensorData};
use burn_ir::{HandleKind, OperationIr, TensorId, TensorIr, TensorStatus};
use burn_router::TensorInterpreter;

use crate::error::{Error, Result};
use crate::export::graph::{Data, Kind};

/// Tensors by number, and what operations make of them.
pub(super) struct Interpreter(TensorInterpreter<Flex>);

impl Interpreter {
    /// Without any tensor.
    pub(super) fn new() -> Self {
        Self(TensorInterpreter::new(FlexDevice))
    }

    /// Gives a tensor its values.
    pub(super) fn set(&mut self, id: TensorId, values: TensorData) {
        self.0.register_tensor_data_id(id, values);
    }

    /// Carries an operation out. The tensors that it is the last to read are gone then.
    pub(super) fn run(&mut self, operation: &OperationIr) {
        if !matches!(operation, OperationIr::Init(_)) {
            self.0.register_op(operation.clone());
        }
    }

    /// The values of a tensor.
    ///
    /// # Errors
    /// Types that no network has.
    pub(super) fn read(&mut self, tensor: &TensorIr) -> Result<TensorData> {
        let tensor = TensorIr { status: TensorStatus::ReadOnly, ..tensor.clone() };
        match self.0.get_tensor(&tensor) {
            HandleKind::Float(values) | HandleKind::Int(values) | HandleKind::Bool(values) => Ok(values.into_data()),
            HandleKind::Quantized(_) => Err(unknown(tensor.dtype)),
        }
    }
}

/// The result of one operation on the given constants.
///
/// # Errors
/// As [`Interpreter::read`].
pub(super) fn once(operation: &OperationIr, inputs: Vec<(TensorId, TensorData)>, out: &TensorIr) -> Result<TensorData> {
    let mut interpreter = Interpreter::new();
    inputs.into_iter().for_each(|(id, values)| interpreter.set(id, values));
    interpreter.run(operation);
    interpreter.read(out)
}

/// What kind of values a recorded type stands for.
///
/// # Errors
/// Types that no network has.
pub(super) fn kind(dtype: DType) -> Result<Kind> {
    match dtype {
        DType::F32 => Ok(Kind::Float),
        DType::Bool(_) => Ok(Kind::Bool),
        dtype if dtype.is_int() || dtype.is_uint() => Ok(Kind::Int),
        dtype => Err(unknown(dtype)),
    }
}

/// Recorded values as those of a constant.
///
/// # Errors
/// Types that no network has.
pub(super) fn constant(values: &TensorData) -> Result<Data> {
    Ok(match kind(values.dtype())? {
        Kind::Float => Data::Float(values.iter::<f32>().collect()),
        Kind::Bool => Data::Bool(values.iter::<bool>().collect()),
        Kind::Int | Kind::Byte => Data::Int(values.iter::<i64>().collect()),
    })
}

fn unknown(dtype: DType) -> Error {
    Error::new(format!("tensors of {dtype:?} cannot be exported"))
}
