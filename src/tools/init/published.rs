//! Names of the colours that published sets have.

use std::collections::HashMap;

use crate::dataset::spec::{DatasetSpec, Encoding, Source};
use crate::tools::check::MaskSurvey;
use crate::tools::init::match_names::Match;

impl Match<'_> {
    /// The colours of a published set.
    pub(super) fn by_published(&mut self, survey: &MaskSurvey) {
        let palette = survey.palette.as_ref().filter(|_| survey.one_palette);
        let shown = |value: &Source| match value {
            Source::Rgb(color) => Some(*color),
            Source::Index(n) => palette?.get(usize::from(*n)).copied(),
        };
        if self.gray || survey.encoding() == Encoding::Index && palette.is_none() {
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
            let void = |value: &Source, color: [u8; 3]| {
                color == [0; 3] || color == [224, 224, 192] || *value == Source::Index(255)
            };
            let mut given_names = HashMap::new();
            let mut fits = true;
            for value in survey.values().keys() {
                let Some(color) = shown(value) else { continue };
                match table.get(&color) {
                    // Numbers are those of the set too: VOC's palette is everywhere.
                    Some((at, name)) if set != "voc" || *value == Source::Index(*at as u16) || self.colors => {
                        given_names.insert(*value, (*name).to_string());
                    }
                    None if void(value, color) => {
                        given_names.insert(*value, "void".to_string());
                    }
                    _ => fits = false,
                }
            }
            // Black, red, green and the like are what anybody draws with: they are of no set.
            let own = |value: &Source| shown(value).is_some_and(|rgb| rgb.iter().any(|c| !matches!(c, 0 | 255)));
            let named = given_names.iter().filter(|(_, name)| *name != "void" && *name != "background");
            let colored = named.filter(|(value, _)| own(value)).count();
            if fits && colored >= 2 {
                self.given_names = given_names;
                self.published = Some(called);
                return;
            }
        }
    }
}
