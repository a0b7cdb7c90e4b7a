//! What the numbers in masks stand for, as far as the numbers themselves tell.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Numbers below are ids, as programs count; at and above it they are greys, as people see them.
const GREY: u16 = 32;

/// Files of more values than this are no labels.
const MOST: usize = 64;

/// What 255 stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// 255 does not occur.
    Absent,
    /// A class, as the others are: a grey that is to be seen.
    Class,
    /// Pixels to leave out: the others are small ids in a row.
    Void,
    /// Either.
    Unclear,
}

/// The value that marks pixels to ignore in many sets: 255, or the largest of 16 bits where masks hold that.
pub(crate) fn mark(values: &[u16]) -> u16 {
    if values.contains(&u16::MAX) && !values.contains(&255) { u16::MAX } else { 255 }
}

/// What the [`mark`] stands for among all values of a set, in order. `named`: how many names count the values from 0.
pub(crate) fn reading(values: &[u16], named: usize) -> Reading {
    let mark = mark(values);
    let others: Vec<u16> = values.iter().copied().filter(|value| *value != mark).collect();
    let in_a_row = |values: &[u16]| values.windows(2).all(|two| two[1] == two[0] + 1);
    match others.as_slice() {
        _ if others.len() == values.len() => Reading::Absent,
        [] | [0] => Reading::Class,
        [first, ..] if *first <= 1 && in_a_row(&others) => Reading::Void,
        [.., last] if usize::from(*last) < named => Reading::Void,
        _ if evenly(values) => Reading::Class,
        others if mark == 255 && others.iter().all(|value| *value == 0 || *value >= GREY) => Reading::Class,
        _ => Reading::Unclear,
    }
}

/// Whether numbers are steps from the first to the last, rounded as people round.
fn evenly(values: &[u16]) -> bool {
    let (Some(first), Some(last)) = (values.first(), values.last()) else { return false };
    let step = f64::from(last - first) / (values.len().max(2) - 1) as f64;
    let close = |(at, value): (usize, &u16)| {
        (f64::from(*value) - f64::from(*first) - at as f64 * step).abs() <= (step * 0.1).max(1.0)
    };
    values.len() > 2 && step >= 8.0 && values.iter().enumerate().all(close)
}

/// Which files hold which numbers, equal ones together.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// How many files hold exactly these, and the first of them.
    by_values: BTreeMap<Vec<u16>, (usize, PathBuf)>,
}

/// Files that store the same classes in two ways.
#[derive(Debug, PartialEq)]
pub(crate) struct Mixed {
    /// Ids from 0, and how many files hold them.
    pub(crate) ids: Vec<u16>,
    pub(crate) id_files: (usize, PathBuf),
    /// Greys in their order, with 0, and how many files hold them.
    pub(crate) greys: Vec<u16>,
    pub(crate) grey_files: (usize, PathBuf),
    /// Which id each of the greys stands for.
    pub(crate) same: BTreeMap<u16, u16>,
}

impl Groups {
    /// Adds a file of these values, in order.
    pub(crate) fn add(&mut self, path: &Path, values: impl Iterator<Item = u16>) {
        let values: Vec<u16> = values.take(MOST + 1).collect();
        if values.len() <= MOST && (self.by_values.len() < 4096 || self.by_values.contains_key(&values)) {
            self.by_values.entry(values).or_insert_with(|| (0, path.to_path_buf())).0 += 1;
        }
    }

    /// Whether some files count classes and others show them in greys: 0 and 1 here, 0 and 255 there. Or whether greys are
    /// of 8 bits in some and of 16 in others.
    pub(crate) fn mixed(&self) -> Option<Mixed> {
        self.spread().or_else(|| self.widened())
    }

    /// White is 255 in some files and 65535 in others.
    fn widened(&self) -> Option<Mixed> {
        let mut sides = [(BTreeSet::from([0]), None), (BTreeSet::from([0]), None)];
        for (values, (count, path)) in &self.by_values {
            let wide = values.iter().any(|value| *value > 255);
            if wide && values.iter().any(|value| (1..=255).contains(value)) {
                return None;
            }
            if values.iter().any(|value| *value > 0) {
                let (all, files) = &mut sides[usize::from(wide)];
                all.extend(values);
                files.get_or_insert_with(|| (0, path.clone())).0 += count;
            }
        }
        let [(ids, id_files), (greys, grey_files)] = sides;
        let same: BTreeMap<u16, u16> =
            greys.iter().map(|grey| (*grey, ((u32::from(*grey) + 128) / 257) as u16)).collect();
        let fits = ids.contains(&255) && greys.contains(&u16::MAX) && same.values().all(|id| ids.contains(id));
        let (ids, greys) = (ids.into_iter().collect(), greys.into_iter().collect());
        fits.then_some(Mixed { ids, id_files: id_files?, greys, grey_files: grey_files?, same })
    }

    fn spread(&self) -> Option<Mixed> {
        let (mut ids, mut greys) = (BTreeSet::from([0]), BTreeSet::from([0]));
        let (mut id_files, mut grey_files) = (None, None);
        for (values, (count, path)) in &self.by_values {
            let shown = values.iter().any(|value| *value >= GREY);
            let (all, files) = match (values.iter().any(|value| (1..GREY).contains(value)), shown) {
                // A file of both tells that 255 is something else than the ids.
                (true, true) => return None,
                (true, false) => (&mut ids, &mut id_files),
                (false, true) => (&mut greys, &mut grey_files),
                (false, false) => continue,
            };
            all.extend(values);
            files.get_or_insert_with(|| (0, path.clone())).0 += count;
        }
        let (ids, greys): (Vec<u16>, Vec<u16>) = (ids.into_iter().collect(), greys.into_iter().collect());
        // As many greys as ids may be any: which colours people choose to see is theirs.
        let fits = usize::from(*ids.last()?) < greys.len() && (greys.len() == ids.len() || evenly(&greys));
        let same = greys.iter().enumerate().map(|(id, grey)| (*grey, id as u16)).collect();
        fits.then_some(Mixed { ids, id_files: id_files?, greys, grey_files: grey_files?, same })
    }
}

impl Mixed {
    /// The two groups in words.
    pub(crate) fn what(&self) -> String {
        let values = |values: &[u16]| values.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        let files = |(count, first): &(usize, PathBuf)| match count {
            1 => format!("one mask (`{}`)", first.display()),
            count => format!("{count} masks (`{}` first)", first.display()),
        };
        format!(
            "{} hold the values {}, and {} the values {}: these are two ways of storing the same classes",
            files(&self.id_files),
            values(&self.ids),
            files(&self.grey_files),
            values(&self.greys)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hundred_and_fifty_five_is_void_beside_small_ids_alone() {
        for (values, named, expected) in [
            (&[0, 1, 2][..], 0, Reading::Absent),
            (&[0, 127, 255], 0, Reading::Class),
            (&[0, 128, 255], 0, Reading::Class),
            (&[0, 85, 170, 255], 0, Reading::Class),
            (&[0, 50, 100, 150, 200, 255], 0, Reading::Class),
            (&[0, 64, 128, 192, 255], 0, Reading::Class),
            (&[0, 38, 75, 255], 0, Reading::Class),
            (&[0, 255], 0, Reading::Class),
            (&[127, 255], 0, Reading::Class),
            (&[0, 1, 255], 0, Reading::Void),
            (&[1, 2, 3, 255], 0, Reading::Void),
            (&[0, 1, 2, 3, 4, 5, 6, 255], 0, Reading::Void),
            (&[0, 15, 255], 21, Reading::Void),
            (&[0, 15, 255], 0, Reading::Unclear),
            (&[3, 255], 0, Reading::Unclear),
            (&[0, 2, 128, 255], 0, Reading::Unclear),
            (&[0, 1, 2, 65535], 0, Reading::Void),
            (&[0, 65535], 0, Reading::Class),
            (&[0, 32768, 65535], 0, Reading::Class),
            (&[0, 7, 26000, 65535], 0, Reading::Unclear),
        ] {
            assert_eq!(reading(values, named), expected, "{values:?}");
        }
    }

    fn mixed(files: &[&[u16]]) -> Option<(usize, usize)> {
        let mut groups = Groups::default();
        for (at, values) in files.iter().enumerate() {
            groups.add(Path::new(&format!("{at}.png")), values.iter().copied());
        }
        groups.mixed().map(|mixed| (mixed.id_files.0, mixed.grey_files.0))
    }

    #[test]
    fn two_ways_to_store_the_same_are_told() {
        assert_eq!(mixed(&[&[0, 1], &[0, 255], &[0], &[0, 1]]), Some((2, 1)));
        assert_eq!(mixed(&[&[0, 1, 2], &[0, 127, 255], &[0, 127]]), Some((1, 2)));
        assert_eq!(mixed(&[&[1], &[255]]), Some((1, 1)));
        // 255 marks what is left out, in one file beside the ids.
        assert_eq!(mixed(&[&[0, 1], &[0, 255], &[0, 1, 255]]), None);
        assert_eq!(mixed(&[&[0, 1, 2], &[0, 255]]), None, "too few greys for the ids");
        assert_eq!(mixed(&[&[0, 1], &[0]]), None);
        assert_eq!(mixed(&[&[0, 1], &[0, 128]]), Some((1, 1)), "whatever grey it is");
        assert_eq!(mixed(&[&[0, 1, 2], &[0, 76, 150]]), Some((1, 1)), "as colours turned to greys are");
        assert_eq!(mixed(&[&[0, 1], &[0, 65535], &[0, 65535]]), Some((1, 2)));
        assert_eq!(mixed(&[&[0, 255], &[0, 65535], &[0]]), Some((1, 1)));
        assert_eq!(mixed(&[&[0, 127, 255], &[0, 32767, 65535]]), Some((1, 1)));
        assert_eq!(mixed(&[&[0, 255], &[0, 255, 65535]]), None);
        assert_eq!(mixed(&[&[0, 1, 2, 3], &[0, 40]]), None);
        assert_eq!(mixed(&[&[0, 255], &[0]]), None);
    }
}
