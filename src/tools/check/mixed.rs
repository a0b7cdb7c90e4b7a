//! Masks of one set that store the same labels in two ways, file by file: no map between values and classes can be
//! right.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::dataset::encoding::ValueGroups;
use crate::dataset::spec::Source;
use crate::text::{Rest, shortened};
use crate::tools::check::colors::{Colors, FEWEST, MAX_KINDS, MAX_NUMBERS, Mirrored, Objects};
use crate::tools::check::texture::Texture;

/// Of each way to store labels, how many masks there are and the first of them.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    pub(crate) numbers: Vec<u16>,
    pub(crate) masks: usize,
    pub(crate) first: PathBuf,
}

/// Two ways in one set.
#[derive(Clone, Debug)]
pub(crate) struct Mixed {
    /// What they are.
    pub(crate) why: &'static str,
    pub(crate) sides: [Side; 2],
    /// Where numbers of the second stand for numbers of the first: which for which.
    pub(crate) same: BTreeMap<u16, u16>,
}

impl Side {
    /// `12 masks hold 0, 255, “a.png” first`, in plain characters.
    pub(crate) fn text(&self) -> String {
        let numbers = shortened(&self.numbers, 8, Rest::Dots);
        let (verb, noun) = if self.masks == 1 { ("holds", "mask") } else { ("hold", "masks") };
        format!("{} {noun} {verb} {numbers}, as `{}`", self.masks, self.first.display())
    }
}

/// Which sets of numbers masks hold.
#[derive(Debug, Default)]
pub(crate) struct Kinds {
    masks: BTreeMap<Vec<u16>, (usize, PathBuf)>,
    /// The same, by ids and grays.
    groups: ValueGroups,
    /// Some masks hold too many numbers, or too many different ones, to be kept.
    crowded: bool,
    /// How many masks hold each number.
    occur: BTreeMap<u16, usize>,
    /// All masks.
    count: usize,
    /// Masks whose numbers beside 0 are those from 1 to one of these.
    counted: usize,
    lengths: BTreeSet<usize>,
    /// Of masks of colours.
    colors: Colors,
    texture: Texture,
}

impl Kinds {
    /// Whether values are those of objects: every mask counts its own from 1 on, or most of them are in one mask alone.
    pub(crate) fn objects(&self) -> Option<Objects> {
        self.numbers_of_objects().or_else(|| self.colors.objects(&self.texture))
    }

    fn numbers_of_objects(&self) -> Option<Objects> {
        let numbers: Vec<u16> = self.occur.keys().copied().filter(|n| !matches!(*n, 0 | 255 | u16::MAX)).collect();
        let once = numbers.iter().filter(|n| self.occur.get(n) == Some(&1)).count();
        let counted = self.counted == self.count && self.count >= 4;
        let each = counted && self.lengths.len() >= 4;
        // Few numbers may be classes of which masks show the first ones; classes have several regions here and there.
        let few = counted && self.lengths.len() >= 3 && numbers.len() >= 3 && self.texture.is_of_objects();
        let alone = 5 * once >= 3 * numbers.len() && self.count >= 6;
        let many = numbers.len() >= FEWEST;
        let why = match (many && each, few, many && alone) {
            (true, ..) => "each mask holds the numbers from 1 to its own highest one".to_string(),
            (_, true, _) => {
                "each mask holds the numbers from 1 to its own highest one, and nearly every number is one region"
                    .to_string()
            }
            (.., true) => format!("{once} of {} numbers are each in one mask alone", numbers.len()),
            _ => return None,
        };
        let confirmed = many && (each || alone);
        Some(Objects { values: numbers.into_iter().map(Source::Index).collect(), why, confirmed })
    }

    /// Adds what is known of how a mask's values lie beside each other.
    pub(crate) fn see(&mut self, texture: Texture) {
        self.texture.add(texture);
    }

    /// Adds a mask of these colours.
    pub(crate) fn add_colors(&mut self, colors: impl Iterator<Item = Source>, path: &Path) {
        self.colors.add(colors, path);
    }

    /// Whether some masks of colours store them as blue, green, red.
    pub(crate) fn mirrored(&self) -> Option<Mirrored> {
        self.colors.mirrored()
    }

    /// Adds a mask with these numbers, in order.
    pub(crate) fn add(&mut self, numbers: Vec<u16>, path: &Path) {
        self.count += 1;
        numbers.iter().for_each(|n| *self.occur.entry(*n).or_default() += 1);
        let own = || numbers.iter().copied().filter(|n| !matches!(*n, 0 | 255 | u16::MAX));
        if own().eq(1..=own().count() as u16) {
            self.counted += 1;
            self.lengths.insert(own().count());
        }
        self.groups.add(path, numbers.iter().copied());
        if numbers.len() > MAX_NUMBERS || (self.masks.len() >= MAX_KINDS && !self.masks.contains_key(&numbers)) {
            self.crowded = true;
            return;
        }
        self.masks.entry(numbers).or_insert_with(|| (0, path.to_path_buf())).0 += 1;
    }

    /// Whether each mask holds 0 and at most one other number.
    pub(crate) fn are_binary(&self) -> bool {
        !self.crowded && self.masks.keys().all(|numbers| numbers.iter().filter(|n| **n > 0).count() <= 1)
    }

    /// Whether masks store labels in two ways. `known`: whether a number is that of a class or ignored, so far as that
    /// is told.
    pub(crate) fn mixed(&self, known: impl Fn(u16) -> bool) -> Option<Mixed> {
        self.spread().or_else(|| self.shifted(known))
    }

    /// Some masks hold 0, 1, 2 and others 0, 127, 255; none holds both.
    fn spread(&self) -> Option<Mixed> {
        let mixed = self.groups.mixed()?;
        let same = mixed.same;
        let side = |numbers: Vec<u16>, (masks, first): (usize, PathBuf)| Side { numbers, masks, first };
        let sides = [side(mixed.ids, mixed.id_files), side(mixed.grays, mixed.gray_files)];
        let beside = same.iter().all(|(gray, id)| *gray == id + 1);
        let why = match sides[0].numbers.contains(&255) {
            _ if beside => "a grey is rounded down in some masks and up in others",
            true => "some masks hold grays of 8 bits, and others the same grays of 16 bits",
            false => "some masks hold small numbers, and others the same numbers spread to be seen",
        };
        Some(Mixed { why, sides, same })
    }

    /// Some masks count from 0 and others from 1: no mask that holds the largest number holds 0.
    pub(crate) fn shifted(&self, known: impl Fn(u16) -> bool) -> Option<Mixed> {
        let last =
            self.masks.keys().flatten().copied().filter(|n| *n != 255).max().filter(|last| (2..=254).contains(last))?;
        let has = |numbers: &[u16], n: u16| numbers.contains(&n);
        if self.masks.keys().any(|numbers| has(numbers, 0) && has(numbers, last)) {
            return None;
        }
        let sides = [self.side(|numbers| has(numbers, 0)), self.side(|numbers| has(numbers, last))];
        let all: usize = self.masks.values().map(|(masks, _)| masks).sum();
        // Only where nearly every mask shows all that its way can: else classes that are never together look the same.
        let whole = |from: u16| -> usize {
            let full: Vec<u16> = (from..from + last).collect();
            let plain = |numbers: &[u16]| numbers.iter().copied().filter(|n| *n != 255).collect::<Vec<_>>();
            self.masks.iter().filter(|(numbers, _)| plain(numbers) == full).map(|(_, (masks, _))| masks).sum()
        };
        let (first, second) = (whole(0), whole(1));
        let enough = |whole: usize, masks: usize| whole >= 2 && 5 * whole >= 4 * masks;
        let clear = enough(first, sides[0].masks) && enough(second, sides[1].masks) && 10 * (first + second) >= 8 * all;
        let unknown_top = !known(last) && first >= 1 && second >= 1 && 2 * (first + second) >= all;
        let why = "some masks count from 0 and others from 1: no mask that holds the largest number holds 0";
        (clear || unknown_top).then_some(Mixed { why, sides, same: BTreeMap::new() })
    }

    fn side(&self, belongs: impl Fn(&[u16]) -> bool) -> Side {
        let mut side = Side { numbers: Vec::new(), masks: 0, first: PathBuf::new() };
        for (numbers, (masks, first)) in self.masks.iter().filter(|(numbers, _)| belongs(numbers)) {
            side.numbers.extend(numbers);
            if side.masks == 0 || *first < side.first {
                side.first.clone_from(first);
            }
            side.masks += masks;
        }
        side.numbers.sort_unstable();
        side.numbers.dedup();
        side
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(masks: &[&[u16]]) -> Kinds {
        let mut kinds = Kinds::default();
        masks.iter().enumerate().for_each(|(at, mask)| kinds.add(mask.to_vec(), Path::new(&format!("{at}.png"))));
        kinds
    }

    #[test]
    fn two_ways_are_told_from_one() {
        let masks = |mixed: Mixed| mixed.sides.map(|side| side.masks);
        let any = |_| true;
        assert_eq!(kinds(&[&[0, 1], &[0, 255], &[0], &[0, 1]]).mixed(any).map(masks), Some([2, 1]));
        assert_eq!(kinds(&[&[0, 1, 2], &[0, 127, 255], &[0, 2]]).mixed(any).map(masks), Some([2, 1]));
        assert_eq!(kinds(&[&[0, 1], &[0, 1, 255], &[0, 255]]).mixed(any).map(masks), None, "255 is ignored there");
        assert_eq!(kinds(&[&[0, 255], &[0], &[255]]).mixed(any).map(masks), None);
        let side = kinds(&[&[0, 255], &[0, 1]]).mixed(any).unwrap().sides[0].text();
        assert_eq!(side, "1 mask holds 0, 1, as `1.png`");
    }

    #[test]
    fn shifted_labels_are_told_from_classes_that_are_never_together() {
        let from_0: [&[u16]; 3] = [&[0, 1, 2]; 3];
        let from_1: [&[u16]; 3] = [&[1, 2, 3]; 3];
        assert!(kinds(&[from_0, from_1].concat()).mixed(|_| true).is_some());
        let together: [&[u16]; 3] = [&[0, 1, 2, 3]; 3];
        assert!(kinds(&[from_0, together].concat()).mixed(|_| false).is_none(), "0 and 3 are together");
        assert!(kinds(&[&[0, 1], &[0, 2], &[1, 3], &[2, 3], &[0, 1], &[1, 3]]).mixed(|_| true).is_none());
        assert!(kinds(&[&[0, 1, 2], &[0, 1], &[1, 2, 3], &[1, 2]]).mixed(|n| n < 3).is_some(), "3 is no class");
        assert!(kinds(&[&[0, 1, 2], &[0, 1], &[1, 2, 3], &[1, 2]]).mixed(|_| true).is_none());
        assert!(kinds(&[&[0], &[1]]).mixed(|_| false).is_none());
    }

    #[test]
    fn numbers_of_objects_are_told_from_classes() {
        let counted: Vec<Vec<u16>> = [3, 9, 5, 2, 9, 7].iter().map(|most| (0..=*most).collect()).collect();
        let of = |masks: &[Vec<u16>]| kinds(&masks.iter().map(Vec::as_slice).collect::<Vec<_>>()).objects();
        let found = of(&counted).unwrap();
        assert!(found.why.contains("from 1 to") && found.values == (1..=9).map(Source::Index).collect::<Vec<_>>());
        // Class and object in one number, as Cityscapes has them.
        let ids: Vec<Vec<u16>> = (0..6).map(|n| vec![7, 11, 24000 + n, 26000 + n]).collect();
        assert!(of(&ids).unwrap().why.contains("12 of 14"));
        // Classes: the same come again.
        let classes: Vec<Vec<u16>> = (0..12).map(|n| vec![0, 1 + n % 9, 1 + (n * 5) % 9]).collect();
        assert_eq!(of(&classes), None);
        assert_eq!(of(&counted[..3]), None, "too few to tell");
        assert_eq!(of(&vec![(0..=9).collect(); 8]), None, "all hold all");
    }

    #[test]
    fn few_numbers_of_objects_are_told_by_their_regions() {
        let of = |masks: &[&[u16]], single: usize| {
            let mut kinds = kinds(masks);
            kinds.see(Texture { pixels: 100, alone: 0, values: 20, single });
            kinds.objects()
        };
        let counted: &[&[u16]] = &[&[0, 1], &[0, 1, 2, 3], &[0, 1, 2], &[0, 1]];
        let found = of(counted, 19).unwrap();
        assert!(found.why.contains("one region") && !found.confirmed && found.values.len() == 3);
        assert_eq!(of(counted, 10), None, "classes have several regions");
        assert_eq!(of(&[&[0, 1], &[0, 2, 3], &[0, 1, 2], &[0, 1]], 20), None, "2 and 3 without 1");
        assert_eq!(of(&[&[0, 1], &[0, 1, 2], &[0, 1, 2], &[0, 1]], 20), None, "two classes");
    }

    #[test]
    fn colours_of_objects_are_told_from_classes() {
        let of = |masks: &[&[u8]], single: usize| {
            let mut kinds = Kinds::default();
            for mask in masks {
                kinds.add_colors(mask.iter().map(|n| Source::Rgb([*n, 0, 0])), Path::new("a.png"));
            }
            kinds.see(Texture { pixels: 100, alone: 0, values: 20, single });
            kinds.objects().map(|objects| (objects.values.len(), objects.why))
        };
        let own: Vec<Vec<u8>> = (0..6).map(|n| vec![0, 10 * n + 1, 10 * n + 2]).collect();
        let own: Vec<&[u8]> = own.iter().map(Vec::as_slice).collect();
        let (count, why) = of(&own, 0).unwrap();
        assert!(count == 12 && why.contains("12 of 12 colours"), "{why}");
        let counted: &[&[u8]] = &[&[0, 9], &[0, 9, 5], &[0, 9, 5, 7], &[0, 9]];
        assert!(of(counted, 19).unwrap().1.contains("the same colours"));
        assert_eq!(of(counted, 3), None);
        assert_eq!(of(&[&[0, 9], &[0, 5], &[0, 9, 5], &[0, 5, 7]], 20), None, "classes");
        let many: Vec<Vec<u8>> = (0..6).map(|n| (40 * n + 1..40 * n + 41).collect()).collect();
        let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
        assert!(of(&many, 0).unwrap().1.contains("240 of 240"), "many in one mask");
    }
}
