//! The kernels alone, with those for GPUs: their tests build here without the rest of the program, and run on whatever
//! driver wgpu finds, one in software included.
#![cfg(feature = "gpu")]
#![recursion_limit = "256"]
// What nothing here calls, the program does.
#![allow(dead_code, unreachable_pub, unused_imports)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/kernels/mod.rs"]
mod kernels;
#[path = "../../src/rng.rs"]
mod rng;

/// In place of the program's devices the one that these tests are for.
mod device {
    use burn::tensor::{Device, DeviceType};

    use crate::error::{Error, Result};

    /// The first GPU, whatever its driver, and its name: `wgpu`.
    pub fn open(name: &str) -> Result<(Device, String)> {
        match Device::enumerate(DeviceType::Wgpu).into_iter().next() {
            Some(device) if name == "wgpu" => Ok((device, name.to_owned())),
            Some(_) => Err(Error::new(format!("there is no device `{name}` here")).with_hint("use `wgpu`")),
            None => Err(Error::new("no driver of a GPU was found")
                .with_hint("install one in software (Debian: `mesa-vulkan-drivers`)")),
        }
    }
}
