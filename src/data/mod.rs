//! Images and masks: read, described, augmented, batched.
pub mod image;
