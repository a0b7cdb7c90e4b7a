//! The one integration-test binary.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bad_input;
mod cli;
mod golden;
mod imports;
mod ops_kernels;
mod ops_losses;
mod parity;
mod recipes;
mod resume;
