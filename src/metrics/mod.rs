//! Scores from counts of pixels: label maps compared with the truth.

pub mod bootstrap;
pub mod boundary;
pub mod calibration;
pub mod confusion;
pub mod distance;
pub mod image_counts;
pub mod label_issues;
pub mod overlap;

pub use confusion::{Confusion, Scores};
