//! The references' numbers: where they lie and how they are compared.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use structtoken::weights::{self, HostTensor, StateDict};

use crate::hashed::{filled, input, sampled, uniform};

/// The folder of the references' numbers: `tests/fixtures/golden`, or all of them where `STRUCTTOKEN_GOLDEN` says.
pub(crate) fn reference(folder: &str) -> PathBuf {
    let all = std::env::var_os("STRUCTTOKEN_GOLDEN").map(PathBuf::from);
    all.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden")).join(folder)
}

/// A file of numbers in JSON.
pub(crate) fn json<T: DeserializeOwned>(path: &Path) -> T {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
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

/// A tensor of a reference.
#[derive(Clone)]
pub(crate) struct Expected {
    pub(crate) shape: Vec<usize>,
    /// NaN where the file keeps no value.
    pub(crate) values: Vec<f32>,
    /// The largest absolute value of all, kept or not.
    pub(crate) max: f32,
}

impl Expected {
    fn whole(shape: Vec<usize>, values: Vec<f32>) -> Self {
        let max = largest(&values);
        Self { shape, values, max }
    }

    /// How far `values` are off, of the largest absolute value: wherever the file keeps one, and that largest itself.
    pub(crate) fn difference(&self, values: &[f32]) -> f32 {
        assert_eq!(values.len(), self.values.len());
        let kept = values.iter().zip(&self.values).filter(|(_, expected)| !expected.is_nan());
        assert!(values.is_empty() || kept.clone().next().is_some(), "nothing to compare with");
        if values.iter().any(|value| value.is_nan()) {
            return f32::INFINITY;
        }
        let most = kept.fold((largest(values) - self.max).abs(), |most, (a, b)| most.max((a - b).abs()));
        if self.max == 0.0 { most } else { most / self.max }
    }
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0f32, |max, value| max.max(value.abs()))
}

/// Tensors by name, as f32.
pub(crate) struct Golden(pub(crate) BTreeMap<String, Expected>);

/// What stands in the metadata of a file that `scripts/fixtures.py` has reduced.
#[derive(serde::Deserialize)]
struct Hashed {
    kind: String,
    of: String,
    shape: Vec<usize>,
}

#[derive(serde::Deserialize)]
struct Sampled {
    shape: Vec<usize>,
    max: f32,
}

impl Golden {
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().clone().unwrap_or_default();
        let sampled_ones: BTreeMap<String, Sampled> = about(&metadata, "sampled");
        let mut tensors: BTreeMap<String, Expected> = BTreeMap::new();
        for (name, view) in file.tensors() {
            let values = floats(&view);
            let Some(Sampled { shape, max }) = sampled_ones.get(&name) else {
                tensors.insert(name, Expected::whole(view.shape().to_vec(), values));
                continue;
            };
            let places = sampled(&name, shape.iter().product());
            assert_eq!(places.len(), values.len(), "{name}");
            let mut all = vec![f32::NAN; shape.iter().product()];
            places.into_iter().zip(values).for_each(|(place, value)| all[place] = value);
            tensors.insert(name, Expected { shape: shape.clone(), values: all, max: *max });
        }
        let factors: BTreeMap<String, f32> = about(&metadata, "scaled");
        for (name, shape) in about::<Vec<usize>>(&metadata, "filled") {
            let factor = factors.get(&name).copied().unwrap_or(1.0);
            let values = filled(&name, &shape).into_iter().map(|value| factor * value).collect();
            tensors.insert(name, Expected::whole(shape, values));
        }
        for (name, Hashed { kind, of, shape }) in about(&metadata, "hashed") {
            let values = input(&kind, &of, &shape);
            tensors.insert(name, Expected::whole(shape, values));
        }
        Self(tensors)
    }

    /// The tensor `name`, of which the file must have every value.
    pub(crate) fn tensor<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D> {
        let (shape, values) = self.whole(name);
        Tensor::from_data(TensorData::new(values.to_vec(), shape.to_vec()), device)
    }

    /// Shape and values of the tensor `name`, of which the file must have every value.
    pub(crate) fn whole(&self, name: &str) -> (&[usize], &[f32]) {
        let Expected { shape, values, .. } = self.get(name);
        assert!(values.iter().all(|value| !value.is_nan()), "`{name}` is only sampled");
        (shape, values)
    }

    pub(crate) fn get(&self, name: &str) -> &Expected {
        self.0.get(name).unwrap_or_else(|| panic!("no golden tensor `{name}`"))
    }

    /// `values` equal the tensor `name` within `tolerance` of its largest absolute value; returns the relative
    /// difference.
    pub(crate) fn check(&self, name: &str, values: &[f32], tolerance: f32) -> f32 {
        let difference = self.get(name).difference(values);
        if test_device_name() != "cpu" {
            eprintln!("{name}: off by {difference:.1e} of its maximum");
        }
        let tolerance = allowed(tolerance.into()) as f32;
        assert!(difference <= tolerance, "{name}: off by {difference:e} of its maximum, allowed {tolerance:e}");
        difference
    }

    /// The tensors as parameters.
    pub(crate) fn state(&self) -> StateDict {
        let tensor = |name: &String| {
            let (shape, values) = self.whole(name);
            (name.clone(), HostTensor { shape: shape.to_vec(), data: values.to_vec() })
        };
        StateDict { tensors: self.0.keys().map(tensor).collect(), ..StateDict::default() }
    }

    /// The gradients of those parameters that `of` picks by their names there, under our names.
    pub(crate) fn gradients(&self, of: impl Fn(&str) -> bool) -> BTreeMap<String, Expected> {
        let state = |data: &dyn Fn(&Expected) -> Vec<f32>| {
            let tensors = self.0.iter().filter_map(|(name, tensor)| {
                let name = name.strip_prefix("grad.").filter(|name| of(name))?;
                Some((name.to_owned(), HostTensor { shape: tensor.shape.clone(), data: data(tensor) }))
            });
            StateDict { tensors: tensors.collect(), ..StateDict::default() }
        };
        // What others keep apart is put together, so that the largest value has to be found again.
        let (values, maxima) =
            (state(&|tensor| tensor.values.clone()), state(&|tensor| vec![tensor.max; tensor.values.len()]));
        let (values, maxima) = (weights::remap_keys(&values).unwrap(), weights::remap_keys(&maxima).unwrap());
        let expected = values.tensors.into_iter().map(|(name, tensor)| {
            let HostTensor { shape, data } = tensor.into_owned();
            let max = largest(&maxima.tensors[&name].data);
            (name, Expected { shape, values: data, max })
        });
        expected.collect()
    }
}

fn about<T: DeserializeOwned>(metadata: &HashMap<String, String>, key: &str) -> BTreeMap<String, T> {
    metadata.get(key).map_or_else(BTreeMap::new, |text| serde_json::from_str(text).unwrap())
}

fn floats(view: &TensorView) -> Vec<f32> {
    let raw = view.data();
    match view.dtype() {
        Dtype::F32 => raw.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
        Dtype::F16 => raw.chunks(2).map(|b| half::f16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect(),
        Dtype::I32 => raw.chunks(4).map(|b| i32::from_le_bytes(b.try_into().unwrap()) as f32).collect(),
        Dtype::I64 => raw.chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f32).collect(),
        Dtype::U8 => raw.iter().map(|b| f32::from(*b)).collect(),
        other => panic!("{other:?}"),
    }
}

/// A weight file of the small StructToken in `folder`, such as `cse.safetensors`, or `cse.pth`: to the last byte what
/// PyTorch wrote. The fixture lacks the tensors, which are functions of their names.
pub(crate) fn published_file(name: &str, folder: &Path) -> PathBuf {
    #[derive(serde::Deserialize)]
    struct Hollow {
        sha256: String,
        places: BTreeMap<String, usize>,
    }
    let tiny = reference("structtoken/tiny");
    let (name, kind) = (format!("st_tiny_{name}"), &name[..3]);
    if tiny.join(&name).exists() && name.ends_with(".pth") {
        return tiny.join(name);
    }
    let parameters = Golden::read(&tiny.join(format!("st_tiny_{kind}.safetensors")));
    let bytes =
        |name: &String| -> Vec<u8> { parameters.whole(name).1.iter().flat_map(|value| value.to_le_bytes()).collect() };
    let path = folder.join(&name);
    if name.ends_with(".safetensors") {
        let all: Vec<(&String, Vec<u8>)> = parameters.0.keys().map(|name| (name, bytes(name))).collect();
        let views = all.iter().map(|(name, data)| {
            (*name, TensorView::new(Dtype::F32, parameters.get(name).shape.clone(), data).unwrap())
        });
        safetensors::serialize_to_file(views, None, &path).unwrap();
        return path;
    }
    let hollow = json::<BTreeMap<String, Hollow>>(&tiny.join("hollow.json")).remove(&name).unwrap();
    let mut file = Vec::new();
    let packed = std::fs::read(tiny.join(format!("{name}.gz"))).unwrap();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut file).unwrap();
    for (name, place) in hollow.places {
        let bytes = bytes(&name);
        file[place..place + bytes.len()].copy_from_slice(&bytes);
    }
    let hash: String = Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, hollow.sha256, "{name}");
    std::fs::write(&path, file).unwrap();
    path
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

/// What every clone and every package of the source carries.
#[test]
fn fixtures_are_small() {
    fn size(path: &Path) -> u64 {
        let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| if path.is_dir() { size(&path) } else { path.metadata().unwrap().len() }).sum()
    }
    let size = size(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"));
    assert!((2_000_000..5_000_000).contains(&size), "{size} bytes");
}
