//! The images of a set: which 16-bit values they use, and what of their files is not read.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::dataset::pairs::Pairs;
use crate::dataset::spec::SplitSpec;
use crate::image::{ImageRemarks, common_range, read_image_noting};
use crate::tools::check::OnProgress;
use crate::tools::init::plan::{DatasetPlan, Place};

/// Images that are decoded to know what the set's are like.
const LOOKED_AT: usize = 4;

/// Sets the values that should become black and white, where images have 16 bits per channel and use a part of them;
/// and notes that, and what of files is not read.
pub(super) fn note(place: &Place, plan: &mut DatasetPlan, progress: OnProgress) {
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
    let some: Vec<(&PathBuf, ImageRemarks)> =
        images.iter().step_by(step).filter_map(|path| Some((path, remarks(path)?))).collect();
    let mut say = |is: fn(&ImageRemarks) -> bool, what: &str| {
        if let Some((path, _)) = some.iter().find(|(_, remarks)| is(remarks)) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            plan.notes.push(format!("{what}, as in `{name}`; `{}` lists them", place.check()));
        }
    };
    say(|image| image.more, "images are files of several pages or frames; the first is used");
    say(|image| image.transparent, "images have transparent pixels, and the colours below the transparency are used");
    if some.iter().all(|(_, remarks)| remarks.deep.is_none()) {
        return;
    }
    progress(0, images.len());
    let used: Vec<[u16; 2]> = images.par_iter().filter_map(|path| remarks(path)?.deep).collect();
    progress(images.len(), images.len());
    plan.spec.range = used.into_iter().map(|[_, high]| high).max().and_then(common_range);
    if let Some([_, most]) = plan.spec.range {
        plan.notes.push(format!(
            "images have 16 bits per channel and use only a part of the range: `range` maps 0 to {most} to black to white"
        ));
    }
}

/// What there is to say about an image. What cannot be read is for the check to tell.
fn remarks(path: &Path) -> Option<ImageRemarks> {
    read_image_noting(path, None).ok().map(|(_, remarks)| remarks)
}
