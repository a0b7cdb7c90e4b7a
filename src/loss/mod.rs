//! Losses of decoders that predict a set of masks: who answers for which mask.

pub mod assignment;
