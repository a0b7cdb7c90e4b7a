//! Pictures of label maps.
