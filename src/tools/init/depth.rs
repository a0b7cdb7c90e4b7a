//! Which 16-bit values a set's images use.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::dataset::pairs::Pairs;
use crate::dataset::spec::SplitSpec;
use crate::error::Result;
use crate::files;
use crate::image::formats;
use crate::tools::check::{Progress, common_range};
use crate::tools::init::plan::{Place, Plan};

/// Images that are decoded to know whether the set is of 16 bits a channel.
const LOOKED_AT: usize = 4;

/// The values that should become black and white, where images have 16 bits a channel and use a part of them.
pub(super) fn range(_: &Place, plan: &Plan, progress: Progress) -> Result<Option<[u16; 2]>> {
    let mut images: Vec<PathBuf> = Vec::new();
    for split in [&plan.spec.train, &plan.spec.val, &plan.spec.test].into_iter().flatten() {
        let there = SplitSpec { images: plan.real(&split.images), ..split.clone() };
        let found = Pairs::images(Path::new(""), &there);
        let new = split.list.as_ref().and_then(|list| plan.lists.iter().find(|(name, _)| name == list));
        match new {
            // A list that is not written yet.
            Some((_, stems)) => {
                let stems: std::collections::HashSet<&str> = stems.iter().map(String::as_str).collect();
                images
                    .extend(found.into_iter().filter(|(stem, _)| stems.contains(stem.as_str())).map(|(_, path)| path));
            }
            None => images.extend(found.into_iter().map(|(_, path)| path)),
        }
    }
    let step = images.len().div_ceil(LOOKED_AT).max(1);
    if images.iter().step_by(step).all(|path| used(path).is_none()) {
        return Ok(None);
    }
    progress(0, images.len());
    let used: Vec<[u16; 2]> = images.par_iter().filter_map(|path| used(path)).collect();
    progress(images.len(), images.len());
    Ok(used.into_iter().map(|[_, high]| high).max().and_then(common_range))
}

/// The lowest and highest value of an image of 16 bits a channel. What cannot be read is for the check to tell.
fn used(path: &Path) -> Option<[u16; 2]> {
    let file = files::open(path).ok()?;
    formats::image(std::io::BufReader::new(file), None).ok()?.deep
}
