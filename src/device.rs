//! Devices to compute on, by name: `auto`, `cpu`, `cuda:0`, `rocm:0`, `vulkan`, `metal`.
//!
//! The CPU (Burn's Flex) is always there; the others are features of the build. The choice is made once, by name;
//! nothing in the crate asks Burn for a default device.

use burn::tensor::Device;
#[cfg(feature = "gpu")]
use burn::tensor::DeviceType;

use crate::error::{Error, Result};

/// Every kind of device this build could use, with the feature that brings it.
const KINDS: [&str; 5] = ["cpu", "cuda", "rocm", "vulkan", "metal"];

/// The device named `name`, and its full name for the record.
///
/// `auto` takes the first that is there of CUDA, ROCm, Metal and Vulkan, else the CPU. Fails when the name is unknown,
/// the build lacks the feature, no such device is found, or it is a Vulkan driver in software, such as Mesa's: that is
/// taken only where the environment's `STRUCTTOKEN_TEST_DEVICE` is `name`.
pub fn open(name: &str) -> Result<(Device, String)> {
    if name == "auto" {
        let found = ["cuda", "rocm", "metal", "vulkan"].into_iter().find_map(|kind| {
            let (index, device) = devices(kind)?.into_iter().enumerate().find(|(_, device)| !is_in_software(device))?;
            Some((device, format!("{kind}:{index}")))
        });
        return Ok(found.unwrap_or_else(|| (Device::flex(), "cpu".to_owned())));
    }
    let (kind, index) = match name.split_once(':') {
        None => (name, 0),
        Some((kind, index)) => match index.parse::<usize>() {
            Ok(index) => (kind, index),
            Err(_) => {
                return Err(Error::new(format!("device `{name}`: `{index}` is not a device number"))
                    .with_hint("write, for instance, `cuda:0`"));
            }
        },
    };
    if !KINDS.contains(&kind) {
        return Err(Error::new(format!("there is no device `{name}`")).with_hint(format!(
            "the devices are auto, {}; with a number if there are several, as in `cuda:1`",
            KINDS.join(", ")
        )));
    }
    let Some(found) = devices(kind) else {
        return Err(Error::new(format!("device `{name}`: this binary was built without `{kind}`")).with_hint(format!(
            "build it from the source (https://github.com/structtoken/structtoken) with `cargo build --release --features \
             full,{kind}`, or use `--device cpu`"
        )));
    };
    let count = found.len();
    match found.into_iter().nth(index) {
        Some(device) if kind == "cpu" => Ok((device, "cpu".to_owned())),
        Some(device) => {
            let for_tests = std::env::var("STRUCTTOKEN_TEST_DEVICE").is_ok_and(|test| test == name);
            refuse_software(name, driver_in_software(&device).as_deref(), for_tests)?;
            Ok((device, format!("{kind}:{index}")))
        }
        None if count == 0 => Err(Error::new(format!("device `{name}`: no {kind} device was found"))
            .with_hint("check that the driver is installed and the device is visible, or use `--device cpu`")),
        None => Err(Error::new(format!("device `{name}`: there are only {count}, numbered from 0"))
            .with_hint(format!("use `--device {kind}:{}`", count - 1))),
    }
}

/// Whether `name` is a kind of device that this build leaves out.
#[must_use]
pub fn is_left_out(name: &str) -> bool {
    let kind = name.split(':').next().unwrap_or_default();
    KINDS.contains(&kind) && devices(kind).is_none()
}

/// Refuses a driver in software, given its name: it stands for a GPU and computes on the CPU, where our own kernels are
/// far faster. `for_tests` it will do.
fn refuse_software(name: &str, driver: Option<&str>, for_tests: bool) -> Result<()> {
    match driver {
        Some(driver) if !for_tests => {
            Err(Error::new(format!("device `{name}`: `{driver}` is not a GPU, but a driver that computes on the CPU"))
                .with_hint("install the driver of the GPU, or use `--device cpu`, which is far faster than this one"))
        }
        _ => Ok(()),
    }
}

/// The name of a device's driver, if that is one in software.
fn driver_in_software(device: &Device) -> Option<String> {
    #[cfg(feature = "gpu")]
    if is_in_software(device) {
        return Some(device.identity().map_or_else(|| "the driver".to_owned(), |identity| identity.name));
    }
    let _ = device;
    None
}

/// Whether a device is a driver in software, such as Mesa's.
fn is_in_software(device: &Device) -> bool {
    #[cfg(feature = "vulkan")]
    {
        use burn::backend::{CubeDevice, DispatchDevice, WgpuDeviceKind};
        matches!(device.as_dispatch(), DispatchDevice::Cube(CubeDevice::Wgpu(gpu)) if gpu.kind == WgpuDeviceKind::Cpu)
    }
    #[cfg(not(feature = "vulkan"))]
    {
        let _ = device;
        false
    }
}

/// All devices of a kind; none when the build lacks it.
fn devices(kind: &str) -> Option<Vec<Device>> {
    #[cfg(any(feature = "cuda", feature = "rocm"))]
    keep_kernels();
    match kind {
        "cpu" => Some(vec![Device::flex()]),
        #[cfg(feature = "cuda")]
        "cuda" => Some(Device::enumerate(DeviceType::Cuda).into_iter().collect()),
        #[cfg(feature = "rocm")]
        "rocm" => Some(Device::enumerate(DeviceType::Rocm).into_iter().collect()),
        #[cfg(feature = "vulkan")]
        "vulkan" => Some(Device::enumerate(DeviceType::Vulkan).into_iter().collect()),
        #[cfg(feature = "metal")]
        "metal" => Some(Device::enumerate(DeviceType::Metal).into_iter().collect()),
        _ => None,
    }
}

/// Kernels of CUDA and ROCm are compiled when first needed, which takes seconds; this keeps them in the user's cache
/// folder for the next run. What `cubecl.toml` or the environment variables of CubeCL say otherwise still holds.
#[cfg(any(feature = "cuda", feature = "rocm"))]
fn keep_kernels() {
    use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig, cache::CacheConfig};

    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
        config.compilation.cache = true;
        if matches!(config.environment.path, CacheConfig::Target) {
            config.environment.path = CacheConfig::Global;
        }
        CubeClRuntimeConfig::try_set(config);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_wrong() {
        assert_eq!(open("cpu").unwrap().1, "cpu");
        for (name, say) in [("gpu", "there is no device"), ("cuda:x", "not a device number"), ("cpu:1", "only 1")] {
            let error = open(name).unwrap_err();
            assert!(error.to_string().contains(say), "{error}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn a_driver_in_software_is_refused_by_its_name() {
        let refused = |driver, for_tests| refuse_software("vulkan", driver, for_tests);
        let error = refused(Some("llvmpipe (LLVM 15.0.6, 256 bits)"), false).unwrap_err();
        assert!(error.to_string().contains("`vulkan`: `llvmpipe (LLVM 15.0.6, 256 bits)` is not a GPU"), "{error}");
        assert!(error.hint().unwrap().contains("or use `--device cpu`, which is far faster"));
        assert!(refused(Some("llvmpipe"), true).is_ok() && refused(None, false).is_ok());
        assert_eq!(driver_in_software(&open("cpu").unwrap().0), None);
    }

    #[cfg(feature = "vulkan")]
    #[test]
    fn a_driver_in_software_is_only_taken_by_name() {
        let (device, name) = open("auto").unwrap();
        assert!(!is_in_software(&device), "{name}");
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn says_how_to_get_a_missing_feature() {
        let error = open("cuda:0").unwrap_err();
        assert!(error.to_string().contains("built without `cuda`"), "{error}");
        assert!(error.hint().unwrap().contains("--features full,cuda"));
        assert!(is_left_out("cuda:0") && !is_left_out("cpu") && !is_left_out("gpu"));
    }
}
