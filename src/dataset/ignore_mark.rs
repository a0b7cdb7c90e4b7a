//! The value that marks ignored pixels in many sets, 255, and whether a set uses it so or as a class.

use crate::dataset::encoding::{LEAST_GRAY, evenly};

/// What the [`ignore_mark`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MarkMeaning {
    /// It does not occur.
    Absent,
    /// A class, as the others are: a grey that is to be seen.
    Class,
    /// Pixels to ignore: the others are small ids in a row.
    Ignored,
    /// It may be either, and the user has to say.
    Unclear,
}

/// The value that marks pixels to ignore in many sets: 255, or the largest of 16 bits where masks hold that.
pub(crate) fn ignore_mark(values: &[u16]) -> u16 {
    if values.contains(&u16::MAX) && !values.contains(&255) { u16::MAX } else { 255 }
}

/// What the [`ignore_mark`] stands for among all values of a set, in order. `named`: how many names count the values
/// from 0.
pub(crate) fn mark_meaning(values: &[u16], named: usize) -> MarkMeaning {
    let mark = ignore_mark(values);
    let others: Vec<u16> = values.iter().copied().filter(|value| *value != mark).collect();
    let in_a_row = |values: &[u16]| values.windows(2).all(|two| two[1] == two[0] + 1);
    match others.as_slice() {
        _ if others.len() == values.len() => MarkMeaning::Absent,
        // Black and white, or white alone.
        [] | [0] => MarkMeaning::Class,
        // 0, 1, 2 … are ids, and so is 1, 2, 3 …
        [first, ..] if *first <= 1 && in_a_row(&others) => MarkMeaning::Ignored,
        // All others have a name, and this one does not.
        [.., last] if usize::from(*last) < named => MarkMeaning::Ignored,
        // 0, 127, 255: greys at equal steps.
        _ if evenly(values) => MarkMeaning::Class,
        // Greys of which some are spread unevenly.
        others if mark == 255 && others.iter().all(|value| *value == 0 || *value >= LEAST_GRAY) => MarkMeaning::Class,
        _ => MarkMeaning::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hundred_and_fifty_five_is_void_beside_small_ids_alone() {
        for (values, named, expected) in [
            (&[0, 1, 2][..], 0, MarkMeaning::Absent),
            (&[0, 127, 255], 0, MarkMeaning::Class),
            (&[0, 128, 255], 0, MarkMeaning::Class),
            (&[0, 85, 170, 255], 0, MarkMeaning::Class),
            (&[0, 50, 100, 150, 200, 255], 0, MarkMeaning::Class),
            (&[0, 64, 128, 192, 255], 0, MarkMeaning::Class),
            (&[0, 38, 75, 255], 0, MarkMeaning::Class),
            (&[0, 255], 0, MarkMeaning::Class),
            (&[127, 255], 0, MarkMeaning::Class),
            (&[0, 1, 255], 0, MarkMeaning::Ignored),
            (&[1, 2, 3, 255], 0, MarkMeaning::Ignored),
            (&[0, 1, 2, 3, 4, 5, 6, 255], 0, MarkMeaning::Ignored),
            (&[0, 15, 255], 21, MarkMeaning::Ignored),
            (&[0, 15, 255], 0, MarkMeaning::Unclear),
            (&[3, 255], 0, MarkMeaning::Unclear),
            (&[0, 2, 128, 255], 0, MarkMeaning::Unclear),
            (&[0, 1, 2, 65535], 0, MarkMeaning::Ignored),
            (&[0, 65535], 0, MarkMeaning::Class),
            (&[0, 32768, 65535], 0, MarkMeaning::Class),
            (&[0, 7, 26000, 65535], 0, MarkMeaning::Unclear),
        ] {
            assert_eq!(mark_meaning(values, named), expected, "{values:?}");
        }
    }
}
