//! Tools for datasets before anything is learned from them: a folder made into one, and one looked at for faults.

pub mod check;
pub mod init;
pub mod measured;
pub mod named;
