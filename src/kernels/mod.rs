//! Our own CPU kernels.
