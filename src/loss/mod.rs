//! Losses of decoders that predict a set of masks: who answers for which mask, and how wrong it is.

pub mod assignment;
pub mod mask;
