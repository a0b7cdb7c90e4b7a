//! An image with what its annotations cover.

use std::path::PathBuf;

use crate::error::Error;
use crate::image::raster::Area;

/// An image with its outlines, before it is known where its mask goes.
pub(super) struct Outlined {
    /// Its path below the folder of images, where it was found.
    pub(super) name: String,
    pub(super) source: PathBuf,
    /// Width and height that the file of outlines states.
    pub(super) declared: Option<[usize; 2]>,
    /// With what each is called in its file, for messages.
    pub(super) areas: Vec<(Area, u8, String)>,
    /// Why its labels would be wrong: it is left out then.
    pub(super) fault: Option<Error>,
}
