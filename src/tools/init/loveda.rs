//! LoveDA: images and masks of two domains, `Urban/images_png` and `Urban/masks_png` below each split.

use std::path::PathBuf;

use crate::dataset::Split;
use crate::dataset::pairs::plain_stem;
use crate::error::Result;
use crate::image::raster::Area;
use crate::image::{IGNORE, image_size};
use crate::tools::check::OnProgress;
use crate::tools::init::notes::Notes;
use crate::tools::init::outlines::{Outlined, Outlines};
use crate::tools::init::plan::{DatasetPlan, Place, folders_in};
use crate::tools::init::splits::split_called;

/// The classes after the background, which is 1; 0 is no data.
const NAMES: [&str; 6] = ["building", "road", "water", "barren", "forest", "agriculture"];

/// A plan for folders of domains with `images_png`, whose masks are copied into one tree as the images lie in.
pub(super) fn plan(place: &Place, _: OnProgress) -> Result<Option<DatasetPlan>> {
    let mut groups: Vec<(Option<Split>, PathBuf, Vec<Outlined>)> = Vec::new();
    let mut notes = Notes::default();
    let splits: Vec<(Option<Split>, PathBuf)> =
        folders_in(place.dir).into_iter().filter_map(|(name, path)| Some((Some(split_called(&name)?), path))).collect();
    let splits = if splits.is_empty() { vec![(None, place.dir.to_path_buf())] } else { splits };
    for (split, folder) in splits {
        let mut outlined = Vec::new();
        for (domain, path) in folders_in(&folder) {
            if !path.join("images_png").is_dir() {
                continue;
            }
            for (name, _) in place.files(&path.join("images_png")) {
                let Some(stem) = plain_stem(&name) else { continue };
                let mask = path.join("masks_png").join(format!("{stem}.png"));
                if !mask.is_file() {
                    notes.add("images without masks were left out", format!("`{domain}/images_png/{name}`"));
                    continue;
                }
                let declared = image_size(&mask).ok().map(|(width, height)| [width, height]);
                // 0 is no data, 1 the background.
                let table = std::iter::once(IGNORE).chain(0..=NAMES.len() as u8).collect();
                let areas = vec![(Area::Ids(mask.clone(), table), 0, "the mask".to_string())];
                let name = format!("{domain}/images_png/{name}");
                outlined.push(Outlined { name, source: mask, declared, areas, fault: None });
            }
        }
        if !outlined.is_empty() {
            groups.push((split, folder, outlined));
        }
    }
    if groups.is_empty() {
        return Ok(None);
    }
    let names = NAMES.map(str::to_string);
    let mut plan = place.outlines(Outlines {
        kind: "LoveDA",
        names: &names,
        normalized: false,
        void_rest: false,
        groups,
        notes,
    })?;
    plan.spec.ignore = vec![crate::dataset::spec::Source::Index(u16::from(IGNORE))];
    plan.notes.retain(|note| !note.starts_with("pixels outside"));
    plan.notes.push(format!("0 is no data and left out, 1 is the class `{}`", plan.spec.classes[0].name));
    Ok(Some(plan))
}
