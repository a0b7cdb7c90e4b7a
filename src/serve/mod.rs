//! A model in production: HTTP over the predictor, and a page where a person tries it.
//!
//! One thread asks the network; all else waits for it in a queue that is bounded by work and bytes. Answers are the
//! bytes that `predict` writes. See `docs/serving.md`.

mod app;
mod ask;
mod auth;
mod cost;
mod decode;
mod error;
mod estimate;
mod gate;
mod label_config;
mod label_studio;
mod label_studio_host;
mod limits;
mod listen;
mod loaded;
mod metrics;
mod models;
mod oip;
mod openapi;
mod output;
mod page;
mod queue;
mod rate;
mod request_id;
mod respond;
mod routes;
mod sagemaker;
mod segment;
mod server;
mod signals;
mod submit;
mod tensor;
pub mod untrusted;
mod upload;
mod warmup;
mod work;
mod worker;

pub use limits::Limits;
pub use models::Source;
pub use server::{Event, Options, run};
