//! What is done to datasets before anything is learned: a folder made into one, and one looked at for faults.

pub mod check;
pub mod init;
