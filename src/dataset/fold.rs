//! Parts of the training images, for cross-validation.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// One of the parts that the training images are cut into; the validation split is not touched.
///
/// `val` is this part then, and `train` all others. An image belongs to a part by its name alone, whatever the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fold {
    /// Which, from 0.
    pub index: usize,
    /// How many there are; 1 for no parts at all: the splits are the dataset's own.
    pub of: usize,
}

impl Fold {
    pub(crate) fn check(self) -> Result<()> {
        let Self { index, of } = self;
        if of == 1 || (2..=1000).contains(&of) && index < of {
            return Ok(());
        }
        Err(Error::new(format!("data: fold = {{ index = {index}, of = {of} }} is not a part of the training images"))
            .with_hint("`of` is 2 to 1000, and `index` counts from 0; `of = 1` uses the dataset's own splits"))
    }
}
