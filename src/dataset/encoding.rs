//! Files of one set that store the same classes in two ways: as ids in some, as greys to be seen in others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Numbers below are ids, as programs count; from it on they are greys, as people see them.
pub(super) const LEAST_GRAY: u16 = 32;

/// A mask with more values than this does not hold labels.
const MAX_LABELS: usize = 64;

/// Masks with more different sets of values than this are not told apart.
const MAX_GROUPS: usize = 4096;

/// Whether at least three numbers lie at equal steps of 8 or more, as greys do that are to be told apart by eye: 0,
/// 127, 255. Each may be off by a tenth of the step, or by 1, as people round.
pub(super) fn evenly(values: &[u16]) -> bool {
    let (Some(first), Some(last)) = (values.first(), values.last()) else { return false };
    let step = f64::from(last - first) / (values.len().max(2) - 1) as f64;
    let close = |(at, value): (usize, &u16)| {
        (f64::from(*value) - f64::from(*first) - at as f64 * step).abs() <= (step * 0.1).max(1.0)
    };
    values.len() > 2 && step >= 8.0 && values.iter().enumerate().all(close)
}

/// Which files hold which numbers, equal ones together.
#[derive(Debug, Default)]
pub(crate) struct ValueGroups {
    /// How many files hold exactly these, and the first of them.
    by_values: BTreeMap<Vec<u16>, (usize, PathBuf)>,
}

/// Files that store the same classes in two ways.
#[derive(Debug, PartialEq)]
pub(crate) struct TwoEncodings {
    /// Ids from 0, and how many files hold them.
    pub(crate) ids: Vec<u16>,
    pub(crate) id_files: (usize, PathBuf),
    /// Greys in their order, with 0, and how many files hold them.
    pub(crate) grays: Vec<u16>,
    pub(crate) gray_files: (usize, PathBuf),
    /// Which id each of the greys stands for.
    pub(crate) same: BTreeMap<u16, u16>,
}

impl ValueGroups {
    /// Adds a file of these values, in order.
    pub(crate) fn add(&mut self, path: &Path, values: impl Iterator<Item = u16>) {
        let values: Vec<u16> = values.take(MAX_LABELS + 1).collect();
        if values.len() <= MAX_LABELS && (self.by_values.len() < MAX_GROUPS || self.by_values.contains_key(&values)) {
            self.by_values.entry(values).or_insert_with(|| (0, path.to_path_buf())).0 += 1;
        }
    }

    /// Whether some files count classes and others show them in greys: 0 and 1 here, 0 and 255 there. Or whether greys
    /// are of 8 bits in some and of 16 in others.
    pub(crate) fn mixed(&self) -> Option<TwoEncodings> {
        self.spread().or_else(|| self.widened()).or_else(|| self.rounded())
    }

    /// A grey of evenly spread ones is rounded down in some files and up in others: 127 here and 128 there.
    fn rounded(&self) -> Option<TwoEncodings> {
        let all: Vec<u16> = self.by_values.keys().flatten().copied().collect::<BTreeSet<u16>>().into_iter().collect();
        let same: BTreeMap<u16, u16> = all
            .windows(2)
            .filter(|two| two[0] >= LEAST_GRAY && two[1] == two[0] + 1)
            .map(|two| (two[1], two[0]))
            .collect();
        let together = |values: &[u16]| same.iter().any(|(up, down)| values.contains(up) && values.contains(down));
        let ids: Vec<u16> = all.iter().copied().filter(|value| !same.contains_key(value)).collect();
        if same.is_empty() || !evenly(&ids) || self.by_values.keys().any(|values| together(values)) {
            return None;
        }
        let of = |has: &dyn Fn(&u16) -> bool| {
            let mut files = self.by_values.iter().filter(|(values, _)| values.iter().any(has)).map(|(_, files)| files);
            let (count, first) = files.next()?;
            Some(
                files.fold((*count, first.clone()), |(sum, first), (count, path)| {
                    (sum + count, first.min(path.clone()))
                }),
            )
        };
        let id_files = of(&|value| same.values().any(|down| down == value))?;
        let gray_files = of(&|value| same.contains_key(value))?;
        let grays = all.iter().copied().filter(|value| !same.values().any(|down| down == value)).collect();
        Some(TwoEncodings { ids, id_files, grays, gray_files, same })
    }

    /// White is 255 in some files and 65535 in others.
    fn widened(&self) -> Option<TwoEncodings> {
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
        let [(ids, id_files), (grays, gray_files)] = sides;
        let same: BTreeMap<u16, u16> =
            grays.iter().map(|gray| (*gray, ((u32::from(*gray) + 128) / 257) as u16)).collect();
        let white = ids.contains(&255) && grays.contains(&u16::MAX);
        let whole = grays.len() > 1 && grays.iter().all(|gray| gray.is_multiple_of(257));
        let fits = (white || whole) && same.values().all(|id| ids.contains(id));
        let (ids, grays) = (ids.into_iter().collect(), grays.into_iter().collect());
        fits.then_some(TwoEncodings { ids, id_files: id_files?, grays, gray_files: gray_files?, same })
    }

    fn spread(&self) -> Option<TwoEncodings> {
        let (mut ids, mut grays) = (BTreeSet::from([0]), BTreeSet::from([0]));
        let (mut id_files, mut gray_files) = (None, None);
        for (values, (count, path)) in &self.by_values {
            let shown = values.iter().any(|value| *value >= LEAST_GRAY);
            let (all, files) = match (values.iter().any(|value| (1..LEAST_GRAY).contains(value)), shown) {
                // A file of both tells that 255 is something else than the ids.
                (true, true) => return None,
                (true, false) => (&mut ids, &mut id_files),
                (false, true) => (&mut grays, &mut gray_files),
                (false, false) => continue,
            };
            all.extend(values);
            files.get_or_insert_with(|| (0, path.clone())).0 += count;
        }
        let (ids, grays): (Vec<u16>, Vec<u16>) = (ids.into_iter().collect(), grays.into_iter().collect());
        // As many greys as ids may be any: which colours people choose to see is theirs.
        let fits = usize::from(*ids.last()?) < grays.len() && (grays.len() == ids.len() || evenly(&grays));
        let same = grays.iter().enumerate().map(|(id, gray)| (*gray, id as u16)).collect();
        fits.then_some(TwoEncodings { ids, id_files: id_files?, grays, gray_files: gray_files?, same })
    }
}

impl TwoEncodings {
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
            files(&self.gray_files),
            values(&self.grays)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixed(files: &[&[u16]]) -> Option<(usize, usize)> {
        let mut groups = ValueGroups::default();
        for (at, values) in files.iter().enumerate() {
            groups.add(Path::new(&format!("{at}.png")), values.iter().copied());
        }
        groups.mixed().map(|mixed| (mixed.id_files.0, mixed.gray_files.0))
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
