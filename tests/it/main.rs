//! The one integration-test binary.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bad_input;
mod cli;
mod compare;
mod data_check;
mod data_init;
mod evaluation;
mod every_decoder;
mod floats;
mod golden;
mod heads;
mod imports;
mod init_forms;
mod init_labels;
mod init_safety;
mod ops_kernels;
mod ops_losses;
mod origin;
mod parity;
mod predict;
mod queries;
mod recipes;
mod repeat;
mod resume;
mod weights;
