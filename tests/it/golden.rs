//! The reference's numbers: where they lie and how they are compared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};
use structtoken::weights::{self, HostTensor, StateDict};

/// `../shared`, or `None` (with a word) where it is absent.
pub(crate) fn shared() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("skipped: there is no ../shared beside the project");
    None
}

/// The device that tests compute on: the CPU, or the one that `STRUCTTOKEN_TEST_DEVICE` names, as in `cuda:0`.
pub(crate) fn test_device() -> Device {
    structtoken::device::open(&test_device_name()).unwrap_or_else(|error| panic!("{error}")).0
}

fn test_device_name() -> String {
    std::env::var("STRUCTTOKEN_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned())
}

/// How far results may be off: on the CPU what was asked for; elsewhere at least 5e-2, or `STRUCTTOKEN_TEST_TOLERANCE`.
/// Devices may round the factors of products to TF32, with its mantissa of 10 bits: an H100 was up to 5e-3 off in
/// logits and up to 3.6e-2 in the weight gradients of convolutions, where much cancels.
pub(crate) fn allowed(tolerance: f64) -> f64 {
    if test_device_name() == "cpu" {
        return tolerance;
    }
    let least = std::env::var("STRUCTTOKEN_TEST_TOLERANCE").ok();
    tolerance.max(least.map_or(5e-2, |least| least.parse().expect("STRUCTTOKEN_TEST_TOLERANCE is a number")))
}

/// Tensors by name, as f32.
pub(crate) struct Golden(pub(crate) BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Golden {
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.tensors().into_iter().map(|(name, view)| {
            let raw = view.data();
            let values = match view.dtype() {
                Dtype::F32 => raw.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
                Dtype::F16 => raw.chunks(2).map(|b| half::f16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect(),
                Dtype::I32 => raw.chunks(4).map(|b| i32::from_le_bytes(b.try_into().unwrap()) as f32).collect(),
                Dtype::I64 => raw.chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f32).collect(),
                Dtype::U8 => raw.iter().map(|b| f32::from(*b)).collect(),
                other => panic!("{name}: {other:?}"),
            };
            (name, (view.shape().to_vec(), values))
        });
        Self(tensors.collect())
    }

    pub(crate) fn tensor<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D> {
        let (shape, values) = self.get(name);
        Tensor::from_data(TensorData::new(values.clone(), shape.clone()), device)
    }

    pub(crate) fn get(&self, name: &str) -> &(Vec<usize>, Vec<f32>) {
        self.0.get(name).unwrap_or_else(|| panic!("no golden tensor `{name}`"))
    }

    /// `values` equal the tensor `name` within `tolerance` of its largest absolute value; returns the relative
    /// difference.
    pub(crate) fn check(&self, name: &str, values: &[f32], tolerance: f32) -> f32 {
        let (_, expected) = self.get(name);
        let difference = relative_difference(values, expected);
        if test_device_name() != "cpu" {
            eprintln!("{name}: off by {difference:.1e} of its maximum");
        }
        let tolerance = allowed(tolerance.into()) as f32;
        assert!(difference <= tolerance, "{name}: off by {difference:e} of its maximum, allowed {tolerance:e}");
        difference
    }
}

/// The reference's pseudo-random numbers, u in [0, 1): a hash of a name and the index.
pub(crate) fn uniform(name: &str, len: usize) -> Vec<f64> {
    let hash = structtoken::rng::fnv1a(name.as_bytes());
    let value = |i: u64| {
        let mut z = hash.wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (z >> 40) as f64 / f64::from(1 << 24)
    };
    (0..len as u64).map(value).collect()
}

/// The reference's inputs: a hash of the name and the index.
pub(crate) fn hashed<const D: usize>(name: &str, shape: [usize; D], value: impl Fn(f64) -> f32) -> TensorData {
    let values: Vec<f32> = uniform(name, shape.iter().product()).into_iter().map(value).collect();
    TensorData::new(values, shape)
}

/// Largest absolute difference over the largest absolute value of `expected`.
pub(crate) fn relative_difference(values: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(values.len(), expected.len());
    let scale = expected.iter().fold(0f32, |max, x| max.max(x.abs()));
    let difference = values.iter().zip(expected).fold(0f32, |max, (a, b)| {
        let difference = (a - b).abs();
        if difference.is_nan() { f32::INFINITY } else { max.max(difference) }
    });
    if scale == 0.0 { difference } else { difference / scale }
}

/// `[b, h, w, c]` values in the reference's order `[b, c, h, w]`.
pub(crate) fn channels_first(data: &TensorData) -> Vec<f32> {
    let shape = data.shape().to_vec();
    let values = data.try_to_vec::<f32>().unwrap();
    let [b, h, w, c] = shape[..] else { panic!("not a map: {shape:?}") };
    let mut out = Vec::with_capacity(values.len());
    for n in 0..b {
        for k in 0..c {
            for i in 0..h * w {
                out.push(values[(n * h * w + i) * c + k]);
            }
        }
    }
    out
}

/// A state dict as `scripts/values.py` fills it: the shapes that the metadata of a fixture list for `case`, each
/// tensor's values by its name.
pub(crate) fn published(fixture: &Path, case: &str) -> StateDict {
    let shapes: BTreeMap<String, Vec<usize>> =
        serde_json::from_str(&weights::read(fixture).unwrap().metadata[case]).unwrap();
    let mut state = StateDict::default();
    for (name, shape) in shapes {
        let fan_in = shape.iter().product::<usize>() / shape.first().copied().unwrap_or(1);
        let ones = [".weight", "running_var", "gamma", "gamma_1", "gamma_2", "lambda1"];
        let (center, spread) = match shape.len() {
            2.. => (0.0, (3.0 / fan_in as f64).sqrt()),
            _ if ones.iter().any(|end| name.ends_with(end)) => (1.0, 0.3),
            _ => (0.0, 0.1),
        };
        let values = uniform(&name, shape.iter().product());
        let data = values.into_iter().map(|u| (center + spread * (2.0 * u - 1.0)) as f32).collect();
        state.tensors.insert(name, HostTensor { shape, data });
    }
    state
}
