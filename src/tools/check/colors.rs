//! Which colours masks hold together: whether they are those of objects, or of one class in two ways.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::dataset::spec::Source;
use crate::tools::check::texture::Texture;

/// Masks with more values than this say nothing of how labels are stored.
pub(super) const MAX_NUMBERS: usize = 24;

/// Different sets of values that are told apart.
pub(super) const MAX_KINDS: usize = 4096;

const BLACK: Source = Source::Rgb([0; 3]);

/// More colours than this in one mask are those of a photograph; and this many are counted of all.
const MAX_COLORS: usize = 1024;
const MAX_COUNTED: usize = 1 << 16;

/// Which colours masks hold, beside black.
#[derive(Debug, Default)]
pub(super) struct Colors {
    masks: usize,
    sets: BTreeMap<Vec<Source>, (usize, PathBuf)>,
    occur: BTreeMap<Source, usize>,
    /// Sets are not kept: there are too many, or one is too large.
    crowded: bool,
    photographs: bool,
}

impl Colors {
    /// Adds a mask of these colours.
    pub(super) fn add(&mut self, colors: impl Iterator<Item = Source>, path: &Path) {
        let colors: Vec<Source> = colors.filter(|color| *color != BLACK).take(MAX_COLORS + 1).collect();
        self.masks += 1;
        if colors.len() > MAX_COLORS || self.occur.len() > MAX_COUNTED {
            (self.photographs, self.crowded) = (true, true);
        }
        if self.photographs {
            return;
        }
        colors.iter().for_each(|color| *self.occur.entry(*color).or_default() += 1);
        self.crowded |= colors.len() > MAX_NUMBERS || self.sets.len() >= MAX_KINDS;
        if self.crowded {
            self.sets.clear();
        } else {
            self.sets.entry(colors).or_insert_with(|| (0, path.to_path_buf())).0 += 1;
        }
    }

    /// Most colours are in one mask alone; or each mask holds the first of one row of colours, and each colour is one
    /// region.
    pub(super) fn objects(&self, texture: &Texture) -> Option<Objects> {
        let (values, once) = (self.occur.len(), self.occur.values().filter(|count| **count == 1).count());
        let alone = !self.photographs && values >= FEWEST && 5 * once >= 3 * values && self.masks >= 6;
        let mut sets: Vec<&Vec<Source>> = self.sets.keys().collect();
        sets.sort_by_key(|set| set.len());
        let within =
            |two: &[&Vec<Source>]| two[0].len() < two[1].len() && two[0].iter().all(|one| two[1].contains(one));
        let nested = sets.len() >= 3 && values >= 3 && self.masks >= 4 && sets.windows(2).all(within);
        let why = match (alone, nested && texture.is_of_objects()) {
            (true, _) => format!("{once} of {values} colours are each in one mask alone"),
            (_, true) => {
                "each mask holds the first of the same colours, and nearly every one is one region".to_string()
            }
            _ => return None,
        };
        Some(Objects { values: self.occur.keys().copied().collect(), why, confirmed: false })
    }

    /// Whether red and blue are swapped in some masks: each colour is there with its mirror, and masks hold either
    /// these or those.
    pub(super) fn mirrored(&self) -> Option<Mirrored> {
        let mirror = |colour: &Source| match colour {
            Source::Rgb([r, g, b]) if r != b => Some(Source::Rgb([*b, *g, *r])),
            _ => None,
        };
        let all: Vec<(Source, Source)> = self.occur.keys().filter_map(|one| Some((*one, mirror(one)?))).collect();
        // One pair may be red and blue.
        if self.crowded || all.len() < 4 || all.iter().any(|(_, other)| !self.occur.contains_key(other)) {
            return None;
        }
        // The colours of one way, beginning with one of the first mask's; the other way are their mirrors.
        let mut one_way: BTreeSet<Source> = BTreeSet::new();
        let turned = |mask: &[Source]| mask.iter().copied().filter(|one| mirror(one).is_some()).collect::<Vec<_>>();
        loop {
            let known = one_way.len();
            for mask in self.sets.keys() {
                let colours = turned(mask);
                let other = |one: &Source| mirror(one).is_some_and(|other| one_way.contains(&other));
                let (this, that) = (colours.iter().any(|one| one_way.contains(one)), colours.iter().any(other));
                match (this, that) {
                    (true, true) => return None,
                    (true, false) => one_way.extend(colours),
                    (false, true) => one_way.extend(colours.iter().filter_map(mirror)),
                    (false, false) if one_way.is_empty() => one_way.extend(colours),
                    (false, false) => {}
                }
            }
            if one_way.len() == known {
                break;
            }
        }
        let clash = one_way.iter().any(|one| mirror(one).is_some_and(|other| one_way.contains(&other)));
        if clash || 2 * one_way.len() != all.len() {
            return None;
        }
        let side = |is_this: bool| {
            let of =
                |mask: &&Vec<Source>| mask.iter().any(|one| mirror(one).is_some() && one_way.contains(one) == is_this);
            let masks: Vec<&Vec<Source>> = self.sets.keys().filter(of).collect();
            let files = masks.iter().filter_map(|mask| self.sets.get(*mask));
            let first = files.clone().map(|(_, path)| path).min()?.clone();
            let colour = *masks.first()?.iter().find(|one| mirror(one).is_some())?;
            Some((files.map(|(count, _)| count).sum(), first, colour))
        };
        let pairs = one_way.iter().filter_map(|one| Some((*one, mirror(one)?))).collect();
        Some(Mirrored { sides: [side(true)?, side(false)?], pairs })
    }
}

/// Masks in which red and blue are swapped, beside others: of both how many, the first, and one of its colours.
#[derive(Clone, Debug)]
pub(crate) struct Mirrored {
    pub(crate) sides: [(usize, PathBuf, Source); 2],
    /// All colours of the one way, with those of the other.
    pairs: Vec<(Source, Source)>,
}

impl Mirrored {
    /// Whether both colours of each pair stand for one class.
    pub(crate) fn united(&self, target: impl Fn(Source) -> Option<u8>) -> bool {
        self.pairs.iter().all(|(one, other)| target(*one).is_some() && target(*one) == target(*other))
    }

    /// The two groups in words.
    pub(crate) fn what(&self) -> String {
        let side = |(count, first, colour): &(usize, PathBuf, Source)| {
            format!("{count} masks hold {colour} and the like (`{}` first)", first.display())
        };
        format!(
            "red and blue are swapped in some masks: {}, and {}; no mask holds both",
            side(&self.sides[0]),
            side(&self.sides[1])
        )
    }
}

/// Values that look like those of objects, each counted for itself, and not like classes.
#[derive(Debug, PartialEq)]
pub(crate) struct Objects {
    /// The values, without 0 and black.
    pub(crate) values: Vec<Source>,
    /// Why.
    pub(crate) why: String,
    /// Whether names of their own leave it open.
    pub(crate) confirmed: bool,
}

/// Fewer values than this say nothing by how often they occur.
pub(super) const FEWEST: usize = 8;
