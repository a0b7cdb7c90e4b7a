//! Images and label maps in memory, and their files.

/// An RGB image, 8 bits a channel, rows from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// `height * width * 3` bytes.
    pub pixels: Vec<u8>,
}

/// A label map: one class index a pixel, 255 = ignore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// `height * width` class indices.
    pub ids: Vec<u8>,
}

/// The label of pixels that count nowhere.
pub const IGNORE: u8 = 255;
