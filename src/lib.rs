//! Semantic segmentation with structure tokens.
#![recursion_limit = "256"]

pub mod device;
pub mod error;
pub mod files;
pub mod rng;

pub mod kernels;
pub mod layers;

pub mod backbone;
pub mod decoder;
pub mod model;

pub mod data;
pub mod weights;

pub mod eval;
pub mod overlay;

pub mod artifact;
pub mod config;
pub mod train;

pub mod inspect;
pub mod predict;
pub mod report;

pub use error::{Error, Result};
