//! The one integration-test binary.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bad_input;
mod cli;
mod compare;
mod golden;
mod imports;
mod parity;
mod recipes;
mod resume;
