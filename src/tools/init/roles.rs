//! Which pictures of a folder that is a dataset are its images, and which are not.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::dataset::pairs::Pairs;
use crate::dataset::spec::{DatasetSpec, SplitSpec};
use crate::error::Result;
use crate::tools::check::OnProgress;
use crate::tools::init::paths::real;
use crate::tools::init::places::candidates;
use crate::tools::init::plan::Place;
use crate::tools::init::{FILE, InitOptions, Purpose, detect_format};

/// What a picture in a dataset is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// It lies where images do.
    Image,
    /// It is a mask.
    Mask,
    /// Neither.
    Other,
}

/// Where images and masks of a dataset lie.
#[derive(Debug, Default)]
pub struct Roles {
    images: Vec<PathBuf>,
    /// Folders of masks alone.
    masks: Vec<PathBuf>,
    /// Masks wherever they lie.
    files: HashSet<PathBuf>,
    /// Folders of images and masks, and what masks end in there.
    ends: Vec<(PathBuf, String)>,
}

impl Roles {
    /// Those of the dataset that a folder is, by its `dataset.toml` or as [`detect_format`] knows it; `None` if it is
    /// none.
    ///
    /// # Errors
    /// A folder that is described, or has folders called as images and masks are, but cannot be read so.
    pub fn of(folder: &Path, progress: OnProgress) -> Result<Option<Self>> {
        let toml = folder.join(FILE);
        if toml.is_file() {
            return Self::described(&DatasetSpec::read(&toml)?).map(Some);
        }
        let options = InitOptions { purpose: Purpose::Moment, ..InitOptions::default() };
        match detect_format(folder, &toml, &options, progress) {
            Ok(plan) => {
                let mut roles = Self::described(&plan.spec)?;
                roles.files.extend(plan.jobs.iter().flat_map(|job| job.files()).map(place));
                Ok(Some(roles))
            }
            Err(error) => {
                let found = Place::new(folder, &toml, &options).and_then(|place| candidates(&place));
                let apart = found.is_ok_and(|found| found.iter().any(|one| one.images != one.masks));
                if apart { Err(error) } else { Ok(None) }
            }
        }
    }

    fn described(spec: &DatasetSpec) -> Result<Self> {
        let (base, joiner) = (spec.below(None).1, spec.joiner()?);
        let mut roles = Self::default();
        for split in [&spec.train, &spec.val, &spec.test].into_iter().flatten() {
            let (images, masks) = (real(&base.join(&split.images)), real(&base.join(&split.masks)));
            // Whatever lists say, a mask is not an image.
            let pairs = Pairs::find_joined(&base, &SplitSpec { list: None, ..split.clone() }, joiner.as_ref());
            for pair in pairs.pairs {
                roles.files.extend(pair.parts.iter().map(|part| place(&part.path)).chain([place(&pair.mask)]));
            }
            if images == masks && joiner.is_none() {
                roles.ends.push((images.clone(), split.mask_suffix.clone()));
            } else if !images.starts_with(&masks) {
                roles.masks.push(masks);
            }
            roles.images.push(images);
        }
        Ok(roles)
    }

    /// What a picture is.
    pub fn role(&self, picture: &Path) -> Role {
        let path = place(picture);
        let within = |folders: &[PathBuf]| folders.iter().any(|folder| path.starts_with(folder));
        let ends = |(folder, end): &(PathBuf, String)| {
            path.starts_with(folder) && !end.starts_with('.') && path.to_string_lossy().ends_with(end)
        };
        if self.files.contains(&path) || within(&self.masks) || self.ends.iter().any(ends) {
            Role::Mask
        } else if within(&self.images) {
            Role::Image
        } else {
            Role::Other
        }
    }
}

/// A file's real place; a link is where it lies, not what it leads to.
fn place(path: &Path) -> PathBuf {
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => real(folder).join(name),
        _ => path.to_path_buf(),
    }
}
