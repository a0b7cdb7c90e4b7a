//! Reading PyTorch's `.pth`. The pickle is parsed as data: what it would import or call is never run.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use pytorch_reader::{PickleValue, PytorchReader, Tensor};

use crate::error::{Error, Result};
use crate::weights::dtype::Dtype;
use crate::weights::pickle_guard::{check_length, harmful};
use crate::weights::state::{AGAIN, StateDict, WeightFormat, allowance, elements};

/// The dictionaries that hold the weights inside a training checkpoint, the preferred one first: an average of the
/// weights is what its author evaluated.
const WRAPPERS: [&str; 11] = [
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "state_dict",
    "model_state_dict",
    "model",
    "teacher",
    "student",
    "network",
    "net",
];

/// Reads the tensors, from the dictionary inside that holds the weights.
pub(super) fn read(path: &Path, format: WeightFormat) -> Result<StateDict> {
    check_length(path, format)?;
    let root = PytorchReader::read_pickle_data(path, None).map_err(broken)?;
    if let Some(call) = harmful(&root) {
        return Err(Error::new(format!("its pickle asks to run `{call}` on loading; nothing was run")).with_hint(
            "the file was made to do harm to whoever loads it in Python: delete it, and get the weights from their author",
        ));
    }
    let mut tensors = PytorchReader::new(path).map_err(broken)?.into_tensors();
    let mut state = StateDict::new(format);
    state.metadata = metadata(&root);
    let (prefix, mut names) = weights_inside(&root, &tensors);
    state.wrapper = (!prefix.is_empty()).then(|| prefix.trim_end_matches('.').to_owned());
    if names.is_empty()
        && let Some(keys) = numpy_inside(&root)
    {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let inside: String = keys.iter().map(|key| format!("[{key:?}]")).collect();
        return Err(Error::new("it holds NumPy arrays and no tensors of PyTorch").with_hint(format!(
            "if you trust it (loading it so runs what is in it), write the arrays as .npz, in Python: numpy.savez(\"weights.npz\", \
             **torch.load({name:?}, weights_only=False){inside})"
        )));
    }
    names.sort_unstable();
    check_total(path, names.iter().filter_map(|name| tensors.get(name)))?;
    for name in names {
        let Some(tensor) = tensors.remove(&name) else { continue };
        let bytes =
            tensor.read().map_err(|cause| Error::new("a tensor cannot be read").with_source(cause).with_hint(AGAIN))?;
        state.insert(name[prefix.len()..].to_owned(), tensor.shape().to_vec(), dtype_of(tensor.dtype()), &bytes);
    }
    Ok(state)
}

/// Follows the known names of dictionaries inwards; gives the path taken and the names of the tensors below it.
fn weights_inside(root: &PickleValue, tensors: &HashMap<String, Tensor>) -> (String, Vec<String>) {
    let below =
        |prefix: &str| -> Vec<String> { tensors.keys().filter(|name| name.starts_with(prefix)).cloned().collect() };
    let mut prefix = String::new();
    let mut here = root;
    while let PickleValue::Dict(entries) = here {
        let inner = |key: &str| {
            matches!(entries.get(key), Some(PickleValue::Dict(_))) && !below(&format!("{prefix}{key}.")).is_empty()
        };
        let known = WRAPPERS.iter().find(|key| inner(key)).map(|key| (*key).to_owned());
        let Some(key) = known.or_else(|| only_dictionary(entries).filter(|key| inner(key))) else { break };
        prefix = format!("{prefix}{key}.");
        here = &entries[&key];
    }
    let names = below(&prefix);
    (prefix, names)
}

/// The one entry that is a dictionary, where no tensors lie beside it.
fn only_dictionary(entries: &HashMap<String, PickleValue>) -> Option<String> {
    let mut dictionaries = entries.iter().filter(|(_, value)| matches!(value, PickleValue::Dict(_)));
    let (key, _) = dictionaries.next()?;
    let tensor = |value: &PickleValue| matches!(value, PickleValue::Unsupported(name) if name.contains("Tensor"));
    (dictionaries.next().is_none() && !entries.values().any(tensor)).then(|| key.clone())
}

/// The keys of the dictionary that has NumPy arrays in it.
fn numpy_inside(value: &PickleValue) -> Option<Vec<String>> {
    let PickleValue::Dict(entries) = value else { return None };
    let array = |value: &PickleValue| matches!(value, PickleValue::Unsupported(name) if name.starts_with("numpy"));
    if entries.values().filter(|value| array(value)).count() > 1 {
        return Some(Vec::new());
    }
    entries.iter().find_map(|(key, inner)| Some([vec![key.clone()], numpy_inside(inner)?].concat()))
}

/// The scalars and lists of strings beside the weights: `epoch`, `meta.CLASSES`, `meta.mmseg_version` and the like.
fn metadata(root: &PickleValue) -> BTreeMap<String, String> {
    let PickleValue::Dict(entries) = root else { return BTreeMap::new() };
    let meta = match entries.get("meta") {
        Some(PickleValue::Dict(meta)) => meta.iter().collect(),
        _ => Vec::new(),
    };
    let named = meta.into_iter().map(|(key, value)| (format!("meta.{key}"), value));
    let all = named.chain(entries.iter().map(|(key, value)| (key.clone(), value)));
    all.filter_map(|(key, value)| Some((key, text(value)?))).collect()
}

fn text(value: &PickleValue) -> Option<String> {
    Some(match value {
        PickleValue::String(text) => text.clone(),
        PickleValue::Int(number) => number.to_string(),
        PickleValue::Float(number) => number.to_string(),
        PickleValue::Bool(flag) => flag.to_string(),
        PickleValue::List(items) if items.iter().all(|item| matches!(item, PickleValue::String(_))) => {
            items.iter().filter_map(text).collect::<Vec<_>>().join(", ")
        }
        _ => return None,
    })
}

/// Views may claim far more elements than the file holds, and a zip entry may inflate: the sum is held to the file's
/// size.
fn check_total<'a>(path: &Path, tensors: impl Iterator<Item = &'a Tensor>) -> Result<()> {
    let size = std::fs::metadata(path).map_err(|cause| Error::new("it is gone").with_source(cause))?.len();
    let mut total = 0u64;
    for tensor in tensors {
        let wide = tensor.dtype().size().max(4) as u64;
        total = total.saturating_add((elements(&tensor.name, tensor.shape())? as u64).saturating_mul(wide));
    }
    if total > allowance(size) {
        return Err(Error::new(format!("its tensors claim {total} bytes, but the file has {size}")).with_hint(
            "the file was made to exhaust memory, or its tensors are expanded views: call .contiguous() before saving",
        ));
    }
    Ok(())
}

fn dtype_of(dtype: pytorch_reader::DType) -> Dtype {
    use pytorch_reader::DType as Torch;
    match dtype {
        Torch::F64 => Dtype::F64,
        Torch::F32 => Dtype::F32,
        Torch::F16 => Dtype::F16,
        Torch::BF16 => Dtype::Bf16,
        Torch::I64 => Dtype::I64,
        Torch::I32 => Dtype::I32,
        Torch::I16 => Dtype::I16,
        Torch::I8 => Dtype::I8,
        Torch::U64 => Dtype::U64,
        Torch::U32 => Dtype::U32,
        Torch::U16 => Dtype::U16,
        Torch::U8 => Dtype::U8,
        Torch::Bool => Dtype::Bool,
    }
}

fn broken(cause: pytorch_reader::PytorchError) -> Error {
    let what = cause.to_string();
    if let Some(kind) = ["torch.float8", "torch.float4", "torch.QInt8", "torch.QUInt8", "torch.QInt32"]
        .into_iter()
        .find(|kind| what.contains(kind))
    {
        let kind = if kind.contains("float") { "floats of 8 bits or fewer" } else { "quantised numbers" };
        return Error::new(format!("its tensors hold {kind}, which are not supported")).with_source(cause).with_hint(
            "use the weights in float32, float16 or bfloat16, as they were before they were made smaller; floats of 8 bits that \
             have no scales are read from .safetensors",
        );
    }
    Error::new("it cannot be read as a PyTorch checkpoint").with_source(cause).with_hint(
        "it may be cut short, or hold more than weights: in Python, torch.save(model.state_dict(), …) writes a file that reads",
    )
}

#[cfg(test)]
mod tests;
