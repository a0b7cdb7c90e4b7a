//! How the names of masks follow from those of images.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use crate::dataset::pairs::plain_stem;
use crate::text::shell_word;

/// How many images are looked at to guess; all are counted.
const SAMPLE: usize = 200;

/// What parts of names stand between.
const SEPARATORS: [char; 3] = ['.', '_', '-'];

/// What the ends of masks' names hold where they lie among images.
const MARKS: [&str; 6] = ["mask", "label", "seg", "gt", "annot", "_l."];

/// Names of masks are names of images with another end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rule {
    /// What images end in; `None` for the ending of a picture, whichever.
    pub(crate) image_suffix: Option<String>,
    /// What masks end in instead.
    pub(crate) mask_suffix: String,
}

impl Rule {
    /// The name of an image's mask.
    pub(crate) fn mask(&self, image: &str) -> Option<String> {
        let stem = match &self.image_suffix {
            Some(suffix) => image.strip_suffix(suffix.as_str()),
            None => plain_stem(image),
        };
        stem.filter(|stem| !stem.is_empty()).map(|stem| format!("{stem}{}", self.mask_suffix))
    }
}

/// The rule by which most images have a mask, and how many. Names are paths below the two folders; in one folder
/// (`apart` is false), an image is not its own mask.
pub(crate) fn guess(images: &[&str], masks: &[&str], apart: bool) -> Option<(Rule, usize)> {
    let mut sorted = masks.to_vec();
    sorted.sort_unstable();
    let mut votes: BTreeMap<Rule, usize> = BTreeMap::new();
    let step = images.len().div_ceil(SAMPLE).max(1);
    for image in images.iter().step_by(step) {
        for rule in closest(image, &sorted, apart).into_iter().filter_map(|mask| rule(image, mask)) {
            *votes.entry(rule).or_default() += 1;
        }
    }
    let mut votes: Vec<(Rule, usize)> = votes.into_iter().collect();
    votes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let masks: HashSet<&str> = masks.iter().copied().collect();
    let hits = |rule: &Rule| {
        let has_mask =
            |image: &&&str| rule.mask(image).is_some_and(|mask| (apart || mask != ***image) && masks.contains(&*mask));
        images.iter().filter(has_mask).count()
    };
    // In one folder, images might as well be the masks of their masks: these are what is called so, or has more to its
    // name.
    let rank = |rule: &Rule| {
        let (suffix, length) = (rule.mask_suffix.to_lowercase(), rule.mask_suffix.len() as isize);
        if apart { (false, -length) } else { (MARKS.iter().any(|mark| suffix.contains(mark)), length) }
    };
    // In one folder, what differs in numbers alone are pictures of a series; superpixels are not labels.
    let may_be = |rule: &Rule| {
        let bare = |suffix: &str| plain_stem(suffix).unwrap_or(suffix).to_lowercase();
        let (mask, image) = (bare(&rule.mask_suffix), rule.image_suffix.as_deref().map_or(String::new(), bare));
        let ending = |suffix: &str| suffix.rsplit('.').next().map(str::to_lowercase);
        let of_masks = ending(&rule.mask_suffix);
        let same_kind = match &rule.image_suffix {
            Some(image) => ending(image) == of_masks,
            None => images.iter().all(|image| ending(image) == of_masks),
        };
        let numbered = same_kind
            && !(mask.is_empty() && image.is_empty())
            && !mask.chars().chain(image.chars()).any(char::is_alphabetic);
        (apart || !numbered) && !mask.contains("superpixel") && !image.contains("superpixel")
    };
    let counted = votes.into_iter().filter(|(rule, _)| may_be(rule)).take(16).map(|(rule, _)| (hits(&rule), rule));
    let (hits, rule) = counted.max_by_key(|(hits, rule)| (*hits, rank(rule)))?;
    // What few names share is chance, unless masks are called just as their images.
    let plain = rule.image_suffix.is_none() && rule.mask_suffix.starts_with(SEPARATORS);
    let most = if apart { images.len().min(masks.len()) } else { 0 };
    (hits > 0 && (plain || 2 * hits >= most)).then_some((rule, hits))
}

/// The masks that share the longest start with an image.
fn closest<'a>(image: &str, sorted: &[&'a str], apart: bool) -> Vec<&'a str> {
    let at = sorted.partition_point(|mask| *mask < image);
    let near = &sorted[at.saturating_sub(8)..(at + 8).min(sorted.len())];
    let near: Vec<(usize, &str)> =
        near.iter().filter(|mask| apart || **mask != image).map(|mask| (common(image, mask), *mask)).collect();
    let most = near.iter().map(|(length, _)| *length).max().unwrap_or(0);
    near.into_iter().filter(|(length, _)| *length == most && most > 0).map(|(_, mask)| mask).collect()
}

fn common(a: &str, b: &str) -> usize {
    a.char_indices().zip(b.chars()).take_while(|((_, a), b)| a == b).map(|((_, c), _)| c.len_utf8()).sum()
}

/// The rule that makes `mask` of `image`: what follows their common start, from a separator on. `None` if only their
/// folders are the same.
fn rule(image: &str, mask: &str) -> Option<Rule> {
    let shared = common(image, mask);
    let folder = image[..shared].rfind('/').map_or(0, |slash| slash + 1);
    let cut = match image[shared..].starts_with(SEPARATORS) {
        true => shared,
        false => image[folder..shared].rfind(SEPARATORS).map_or(shared, |at| folder + at),
    };
    let cut = if cut == folder { shared } else { cut };
    if cut == folder {
        return None;
    }
    // No number is cut in two: `12.png` and `13.png` are two pictures.
    let ends_in_digit = image[..cut].ends_with(|c: char| c.is_ascii_digit());
    let goes_on = |name: &str| name[cut..].starts_with(|c: char| c.is_ascii_digit());
    if ends_in_digit && (goes_on(image) || goes_on(mask)) {
        return None;
    }
    let plain = plain_stem(image).is_some_and(|stem| stem.len() == cut);
    Some(Rule { image_suffix: (!plain).then(|| image[cut..].to_string()), mask_suffix: mask[cut..].to_string() })
}

/// Where names begin differently (`img_1.jpg`, `mask_1.png`): the two beginnings and the masks' ending, by which all
/// images have a mask.
pub(crate) fn guess_prefix(images: &[&str], masks: &[&str]) -> Option<(String, String, String)> {
    let (image, mask) = (images.iter().min()?, masks.iter().min()?);
    let prefix = |name: &str| name[..name.find(|c: char| c.is_ascii_digit()).unwrap_or(0)].to_string();
    let (from, to, ending) = (prefix(image), prefix(mask), &mask[mask.rfind('.')?..]);
    let masks: HashSet<&str> = masks.iter().copied().collect();
    let fits = |image: &&str| {
        let rest = image.strip_prefix(from.as_str()).and_then(plain_stem);
        rest.is_some_and(|rest| masks.contains(format!("{to}{rest}{ending}").as_str()))
    };
    // A folder in the names is not a beginning: what it says would be lost.
    (from != to && !to.is_empty() && !to.contains('/') && !from.contains('/') && images.iter().all(fits))
        .then(|| (from, to, ending.to_string()))
}

/// The command that gives masks the beginning of their images' names; it never writes over a file.
pub(crate) fn rename(folder: &Path, from: &str, to: &str, ending: &str) -> String {
    let quoted = |text: &str| shell_word(Path::new(text));
    let (new, old) = (if from.is_empty() { "''".into() } else { quoted(from) }, quoted(to));
    format!(
        "cd {} && new={new} old={old} && for f in \"$old\"*{}; do mv -n -- \"$f\" \"$new${{f#\"$old\"}}\"; done",
        shell_word(folder),
        quoted(ending)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(images: &[&str], masks: &[&str]) -> (Option<String>, String, usize) {
        let (rule, hits) = guess(images, masks, true).unwrap();
        (rule.image_suffix, rule.mask_suffix, hits)
    }

    #[test]
    fn common_conventions_are_guessed() {
        assert_eq!(found(&["a.jpg", "b.png"], &["a.png", "b.png"]), (None, ".png".into(), 2));
        assert_eq!(guess(&["b.png"], &["b.png"], false), None, "in one folder, b.png is no mask");
        for all in [["a.jpg", "a_mask.png"], ["a.png", "a_L.png"]] {
            let (rule, hits) = guess(&all, &all, false).unwrap();
            assert_eq!((rule.mask(all[0]).as_deref(), hits), (Some(all[1]), 1));
        }
        let (images, masks) = (["a1.jpg", "a10.jpg", "a2.jpg"], ["a1_mask.png", "a10_mask.png", "a2_mask.png"]);
        assert_eq!(found(&images, &masks), (None, "_mask.png".into(), 3));
        let streets = ["u/u_0_1_leftImg8bit.png", "u/u_0_2_leftImg8bit.png"];
        let labels = ["u/u_0_1_gtFine_color.png", "u/u_0_1_gtFine_labelIds.png", "u/u_0_2_gtFine_labelIds.png"];
        let (image, mask, hits) = found(&streets, &labels);
        assert_eq!((image.as_deref(), mask.as_str(), hits), (Some("_leftImg8bit.png"), "_gtFine_labelIds.png", 2));
        assert_eq!(found(&["a.jpg"], &["a.PNG"]), (None, ".PNG".into(), 1));
        assert_eq!(guess(&["cat.jpg"], &["dog.png"], true), None);
        // Frames of a film are not masks of each other, and zeros before a number count.
        let frames = ["a/000001.png", "a/000002.png", "a/000012.png"];
        assert_eq!(guess(&frames, &frames, false), None);
        let (images, masks) = (["0001.png", "0002.png", "0010.png"], ["1.png", "2.png", "10.png"]);
        assert_eq!(guess(&images, &masks, true), None);
        for series in [&["p0.jpg", "p1.jpg", "p2.jpg"][..], &["a.jpg", "a_1.jpg"], &["a.jpg", "a_superpixels.png"]] {
            assert_eq!(guess(series, series, false), None, "{series:?}");
        }
        let (images, masks) = (["1.jpg", "1_superpixels.png"], ["1_segmentation.png"]);
        assert_eq!(guess(&images, &masks, true).unwrap().0.mask("1.jpg").as_deref(), Some("1_segmentation.png"));
        let composed = ["M\u{fc}_1.jpg", "M\u{fc}_2.jpg", "M\u{fc}_3.jpg"];
        let decomposed = ["Mu\u{308}_1.png", "Mu\u{308}_2.png", "Mu\u{308}_3.png"];
        assert_eq!(guess(&composed, &decomposed, true), None);
    }

    #[test]
    fn beginnings_are_guessed() {
        let found = guess_prefix(&["img_1.jpg", "img_2.jpg"], &["mask_1.png", "mask_2.png", "mask_3.png"]);
        assert_eq!(found, Some(("img_".into(), "mask_".into(), ".png".into())));
        assert_eq!(guess_prefix(&["img_1.jpg"], &["mask_2.png"]), None);
    }
}
