//! Semantic segmentation with structure tokens (StructToken, arXiv 2203.12612): train, evaluate, predict, inspect.
//!
//! The command line is the quickest way in; the library does the same from programs:
//!
//! ```no_run
//! use structtoken::image::{read_image, write_index_png};
//! use structtoken::{device, predict::Predictor};
//!
//! # fn main() -> structtoken::Result<()> {
//! let (device, _) = device::open("auto")?;
//! let predictor = Predictor::open("runs/demo/model.safetensors", &device)?;
//! let photo = read_image("photo.jpg")?;
//! let labels = predictor.predict(&photo)?;
//! write_index_png("mask.png", &labels, &predictor.classes().colors)?;
//! # Ok(())
//! # }
//! ```
//!
//! A network by itself, on tensors:
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use structtoken::backbone::{BackboneConfig, VitConfig, VitSize};
//! use structtoken::{layers::ForwardContext, model::ModelConfig};
//!
//! let mut vit = VitConfig::default();
//! vit.size = VitSize::Tiny;
//! vit.depth = Some(2);
//! vit.img_size = [64, 64];
//! let mut config = ModelConfig::default();
//! config.backbone = BackboneConfig::Vit(vit);
//! let model = config.init(5, 0, &Device::flex());
//! let images = Tensor::<4>::zeros([1, 3, 64, 64], &Device::flex());
//! let logits = model.forward(images, &ForwardContext::eval()).scores(); // [b, h / 16, w / 16, classes]
//! assert_eq!(logits.dims(), [1, 4, 4, 5]);
//! ```
//!
//! `examples/` in the repository has whole programs: a photo labelled, a network of your own in the predictor, a
//! decoder of your own trained, training on a dataset of your own, and the tokens after every block.
//!
//! # Features
//!
//! On by default: `cli`, the binary with what it needs. A program that uses the library alone takes
//! `default-features = false`. `serve` adds a server, as the module and the command of that name, and `export` writes
//! ONNX files; `full` is all three, which released builds have.
//! `cuda`, `vulkan`, `rocm` and `metal` add devices. `mpi` shares a training among processes that MPI has started
//! ([`group`]). The Burn that this crate is built with is [`burn`]: a module of your own derives from the same version.
//!
//! # Speed
//!
//! Kernels share the threads of rayon's global pool. Two things make a program as fast as the binary:
//!
//! - Run the work on a thread of that pool, by `rayon::scope(|_| …)` in `main`: from any other thread every kernel
//!   hands its work over and sleeps until it is done.
//! - Every training step frees and takes the same large tensors again. An allocator that keeps freed pages, such as
//!   mimalloc with its purge delay off, saves a third of the time.
//!
//! `ARCHITECTURE.md` in the repository is the map of the modules below.
// Rooms that the binary shares with the library have things that the binary alone needs.
#![cfg_attr(not(feature = "cli"), allow(dead_code, unused_imports))]
#![recursion_limit = "256"]

#[cfg(all(feature = "gpu", not(any(feature = "cuda", feature = "rocm", feature = "vulkan", feature = "metal"))))]
compile_error!("the feature `gpu` needs one of `cuda`, `rocm`, `vulkan` and `metal`, each of which brings it along");

pub mod available_memory;
pub mod device;
pub mod error;
pub mod files;
pub mod group;
mod guard;
pub mod rng;
pub mod shard;
mod stats;
pub mod text;

pub mod kernels;
pub mod layers;

pub mod backbone;
pub mod decoder;
pub mod loss;
pub mod model;
pub mod weights;

pub mod augment;
pub mod dataset;
pub mod image;
pub mod loader;
pub mod tools;

pub mod eval;
pub mod infer;
pub mod metrics;
pub mod overlay;

pub mod train;

pub mod bundled;
pub mod config;
pub mod model_file;
pub mod predict;
pub mod run;

pub mod bench;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "export")]
pub mod export;
pub mod inspect;
#[cfg(any(feature = "serve", feature = "export"))]
mod page;
pub mod plan;
pub mod probe;
pub mod report;
#[cfg(feature = "serve")]
pub mod serve;
pub mod sweep;

pub use burn;
pub use error::{Error, Result};
