//! Scores.
mod config;
pub mod confusion;
pub mod infer;
pub mod preprocess;
#[cfg(test)]
pub(crate) mod toy;
mod windows;
