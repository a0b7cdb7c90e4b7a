//! The one integration-test binary.
#![allow(clippy::unwrap_used, clippy::expect_used)]

/// A config: its defaults, or `..base`, with these fields set. As users do who are outside of the crate.
macro_rules! set {
    (@value $field:ident) => { $field };
    (@value $field:ident $value:expr) => { $value };
    ($kind:ident { $($field:ident $(: $value:expr)?),* , ..$base:expr }) => {{
        let mut config: $kind = $base;
        $(config.$field = set!(@value $field $($value)?);)*
        config
    }};
    ($kind:ident { $($field:ident $(: $value:expr)?),* $(,)? }) => {
        set!($kind { $($field $(: $value)?),* , ..<$kind>::default() })
    };
}

mod advice;
mod bad_input;
mod cli;
mod comments;
mod compare;
mod convolutional;
mod data_check;
mod data_init;
mod decoders;
mod dinov3;
mod elsewhere;
mod evaluation;
mod every_decoder;
#[cfg(feature = "export")]
mod export;
mod finetune;
mod floats;
mod golden;
mod hashed;
mod hints;
mod imports;
mod init_annotations;
mod init_doubts;
mod init_forms;
mod init_kinds;
mod init_labels;
mod init_layouts;
mod init_looks;
mod init_options;
mod init_safety;
mod lists;
mod many_pieces;
mod many_processes;
#[cfg(feature = "mpi")]
mod mpi;
mod names;
#[cfg(feature = "object-store")]
mod objects;
mod ops_kernels;
mod ops_losses;
mod parity;
mod predict;
mod probe;
mod processes;
mod published_files;
mod quantize;
mod queries;
mod real_files;
mod recipes;
mod remedies;
mod repeat;
mod resume;
mod resume_check;
#[cfg(all(unix, feature = "serve"))]
mod serve;
mod stdout;
mod weights;
