//! Several runs, each in a process of its own, and what they say together.

pub mod compare;
pub mod repeat;
