//! Semantic segmentation with structure tokens (StructToken, arXiv 2203.12612): train, evaluate, predict, inspect.
//!
//! The command line is the quickest way in; the library does the same from programs:
//!
//! ```no_run
//! use std::path::Path;
//! use structtoken::data::image::{read_image, write_index_png};
//! use structtoken::{device, predict::Predictor};
//!
//! # fn main() -> structtoken::Result<()> {
//! let (device, _) = device::open("auto")?;
//! let predictor = Predictor::open(Path::new("runs/demo/model.safetensors"), &device)?;
//! let photo = read_image(Path::new("photo.jpg"))?;
//! let labels = predictor.predict(&photo)?;
//! write_index_png(Path::new("mask.png"), &labels, &predictor.classes().colors)?;
//! # Ok(())
//! # }
//! ```
//!
//! A network by itself, on tensors:
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use structtoken::backbone::{BackboneConfig, VitConfig, VitSize};
//! use structtoken::{layers::Pass, model::ModelConfig};
//!
//! let vit = VitConfig { size: VitSize::Tiny, depth: Some(2), img_size: [64, 64], ..VitConfig::default() };
//! let config = ModelConfig { backbone: BackboneConfig::Vit(vit), ..ModelConfig::default() };
//! let model = config.init(5, 0, &Device::flex());
//! let images = Tensor::<4>::zeros([1, 3, 64, 64], &Device::flex());
//! let logits = model.forward(images, &Pass::eval()).scores(); // [b, h / 16, w / 16, classes]
//! assert_eq!(logits.dims(), [1, 4, 4, 5]);
//! ```
//!
//! `ARCHITECTURE.md` in the repository is the map of the modules below.
#![recursion_limit = "256"]

pub mod device;
pub mod error;
pub mod files;
pub mod guard;
pub mod rng;
pub mod room;
pub mod shard;
mod stats;
pub mod text;

pub mod kernels;
pub mod layers;

pub mod backbone;
pub mod decoder;
pub mod loss;
pub mod model;

pub mod data;
pub mod weights;

pub mod eval;
pub mod overlay;

pub mod artifact;
pub mod config;
pub mod train;

pub mod bench;
pub mod compare;
pub mod inspect;
pub mod plan;
pub mod predict;
pub mod repeat;
pub mod report;

pub use error::{Error, Result};
