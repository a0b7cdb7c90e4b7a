//! Names of the colours that published sets have.

use std::collections::HashMap;

use crate::dataset::spec::{DatasetSpec, Encoding, Source};
use crate::tools::check::Survey;
use crate::tools::init::naming::Match;

impl Match<'_> {
    /// The colours of a published set.
    pub(super) fn by_published(&mut self, survey: &Survey) {
        let palette = survey.palette.as_ref().filter(|_| survey.one_palette);
        let shown = |value: &Source| match value {
            Source::Rgb(colour) => Some(*colour),
            Source::Index(n) => palette?.get(usize::from(*n)).copied(),
        };
        if self.grey || survey.encoding() == Encoding::Index && palette.is_none() {
            return;
        }
        for (set, called) in
            [("voc", "Pascal VOC"), ("cityscapes", "Cityscapes"), ("ade20k", "ADE20K"), ("camvid", "CamVid")]
        {
            let Ok(spec) = DatasetSpec::find(set) else { continue };
            let table: HashMap<[u8; 3], (usize, &str)> = spec
                .classes
                .iter()
                .enumerate()
                .filter_map(|(at, class)| Some((class.color?, (at, class.name.as_str()))))
                .collect();
            // What both leave out.
            let void = |value: &Source, colour: [u8; 3]| {
                colour == [0; 3] || colour == [224, 224, 192] || *value == Source::Index(255)
            };
            let mut told = HashMap::new();
            let mut fits = true;
            for value in survey.values().keys() {
                let Some(colour) = shown(value) else { continue };
                match table.get(&colour) {
                    // Numbers are those of the set too: VOC's palette is everywhere.
                    Some((at, name)) if set != "voc" || *value == Source::Index(*at as u16) || self.colours => {
                        told.insert(*value, (*name).to_string());
                    }
                    None if void(value, colour) => {
                        told.insert(*value, "void".to_string());
                    }
                    _ => fits = false,
                }
            }
            // Black, red, green and the like are what anybody draws with: they are of no set.
            let own = |value: &Source| shown(value).is_some_and(|rgb| rgb.iter().any(|c| !matches!(c, 0 | 255)));
            let named = told.iter().filter(|(_, name)| *name != "void" && *name != "background");
            let coloured = named.filter(|(value, _)| own(value)).count();
            if fits && coloured >= 2 {
                self.told = told;
                self.published = Some(called);
                return;
            }
        }
    }
}
