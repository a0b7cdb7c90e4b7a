//! From costs to a verdict: what a class is found by, in sentences made of numbers.
//!
//! The thresholds are stated here and in docs/probe.md; no verdict is given where there is too little to judge by.

use serde::Serialize;

use super::cues::Cue;
use super::effects::{Effect, Effects, LEAST_IMAGES};
use super::place::{FailureScores, SizeScore};
use super::text::{interval, points};
use crate::text::percent;

/// Regions that must have been decided for shape or for texture before a shape bias is believed.
pub const LEAST_REGIONS: usize = 10;
/// A class whose IoU is lower is not found at all.
pub const LEAST_IOU: f64 = 0.1;
/// A change that takes at least so much of the IoU, with an interval below zero, makes a class fail.
pub const COSTS: f64 = 0.1;
/// A change that leaves at least this share of the IoU leaves what a class is found by.
pub const KEEPS: f64 = 0.5;
/// The changes without which nothing can be said of what a class is found by.
const NEEDED: [Cue; 5] = [Cue::Blank, Cue::TextureOther, Cue::Flat, Cue::Silhouettes, Cue::Edges];
/// How much better than a map of one class an answer to a blank picture has to be to go by position.
const POSITION: f64 = 0.05;

/// Regions in which shape says one class and texture another (Geirhos et al. 2019, for regions in place of pictures).
/// Only those count that the network finds in the picture as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ShapeBias {
    /// The class whose shape the regions have.
    pub class: String,
    /// Regions labelled as the class of their shape.
    pub shape: usize,
    /// As the class of their texture.
    pub texture: usize,
    /// As neither.
    pub neither: usize,
    /// The share decided for the shape among those decided for either.
    pub bias: Option<f64>,
    /// Wilson's 95 % interval of that share.
    pub interval: Option<[f64; 2]>,
}

impl ShapeBias {
    pub(super) fn new(class: String, [shape, texture, neither]: [usize; 3]) -> Self {
        let n = (shape + texture) as f64;
        let bias = (n > 0.0).then(|| shape as f64 / n);
        Self { class, shape, texture, neither, bias, interval: bias.map(|share| wilson(share, n)) }
    }

    fn decided(&self) -> usize {
        self.shape + self.texture
    }
}

/// The interval of a share among `n` (Wilson 1927).
fn wilson(share: f64, n: f64) -> [f64; 2] {
    const Z: f64 = 1.959_964;
    let (center, scale) = (share + Z * Z / (2.0 * n), 1.0 + Z * Z / n);
    let half = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    [((center - half) / scale).max(0.0), ((center + half) / scale).min(1.0)]
}

/// What a class is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// Its outline is enough.
    Shape,
    /// Not its texture, but its outline alone is not enough either.
    Form,
    /// Its texture.
    Texture,
    /// Its colour, which is enough.
    Color,
    /// Shape and texture, neither of which decides by itself.
    Both,
    /// Where in the picture it lies.
    Position,
    /// Nothing: it is the answer where nothing else is found.
    Default,
    /// It is hardly found.
    NotFound,
    /// There is too little to judge by.
    Unknown,
}

/// What a class is found by, in words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// The class.
    pub class: String,
    /// What it is found by.
    pub basis: Basis,
    /// Sentences, each with its numbers.
    pub sentences: Vec<String>,
}

/// All that is known of one class.
pub(super) struct Known<'a> {
    pub(super) class: &'a str,
    pub(super) number: usize,
    /// Its share of the pixels with a truth.
    pub(super) share: f64,
    /// Of the pictures as they are.
    pub(super) iou: Option<f64>,
    pub(super) images: usize,
    pub(super) bias: &'a ShapeBias,
    pub(super) cues: &'a [(Cue, Effects)],
    pub(super) place: &'a FailureScores,
}

impl Known<'_> {
    fn effect(&self, cue: Cue) -> Option<&Effect> {
        let (_, effects) = self.cues.iter().find(|(known, _)| *known == cue)?;
        Some(&effects.classes.get(self.number)?.iou)
    }

    fn kept(&self, cue: Cue) -> Option<f64> {
        self.effect(cue)?.kept()
    }

    fn keeps(&self, cue: Cue) -> bool {
        self.kept(cue).is_some_and(|kept| kept >= KEEPS)
    }

    pub(super) fn verdict(&self) -> Verdict {
        let (basis, first) = self.basis();
        let mut sentences = vec![first];
        if !matches!(basis, Basis::NotFound | Basis::Unknown) {
            sentences.extend(self.failures());
            sentences.extend(self.indifferent());
            sentences.extend(self.places());
        }
        Verdict { class: self.class.to_owned(), basis, sentences }
    }

    fn basis(&self) -> (Basis, String) {
        let class = format!("`{}`", self.class);
        let Some(iou) = self.iou.filter(|_| self.images >= LEAST_IMAGES) else {
            let images =
                if self.images == 1 { "1 image holds".to_owned() } else { format!("{} images hold", self.images) };
            return (
                Basis::Unknown,
                format!("{class}: too little to judge by; {images} it, and {LEAST_IMAGES} are needed"),
            );
        };
        if iou < LEAST_IOU {
            return (Basis::NotFound, format!("{class} is hardly found: its IoU is {}", percent(iou, 1)));
        }
        let absent: Vec<&str> = NEEDED.into_iter().filter(|cue| self.effect(*cue).is_none()).map(Cue::name).collect();
        if !absent.is_empty() {
            let changes = absent.join(",");
            return (
                Basis::Unknown,
                format!("{class}: what it is found by is open: the changes {changes} were not measured"),
            );
        }
        if let Some(blank) = self.effect(Cue::Blank).filter(|_| self.keeps(Cue::Blank)) {
            let after = blank.after.unwrap_or(0.0);
            let of = format!("on a blank picture its IoU is still {} of {}", percent(after, 1), percent(iou, 1));
            if after < self.share + POSITION {
                return (
                    Basis::Default,
                    format!(
                        "{class} is predicted by default: {of}, no more than labelling every pixel as {class} would give"
                    ),
                );
            }
            return (Basis::Position, format!("{class} is found by its position: {of}"));
        }
        self.by_conflict(&class)
    }

    /// What regions decide whose shape and texture contradict each other.
    fn by_conflict(&self, class: &str) -> (Basis, String) {
        let bias = self.bias;
        let outline = [Cue::Silhouettes, Cue::Edges].into_iter().filter_map(|cue| Some((cue, self.kept(cue)?)));
        let outline = outline.max_by(|a, b| a.1.total_cmp(&b.1));
        let left = |kept: f64| format!("{} % of its IoU is left", percent(kept, 0));
        let counted = match (bias.bias, bias.interval) {
            (Some(share), Some([low, high])) => format!(
                "of {} regions with its shape and another class's texture, {} were labelled by shape, {} by texture and {} as \
                 neither (shape bias {share:.2}, 95 % {low:.2} to {high:.2})",
                bias.decided() + bias.neither,
                bias.shape,
                bias.texture,
                bias.neither
            ),
            _ => format!(
                "none of {} regions with another class's texture was labelled by shape or by texture",
                bias.neither
            ),
        };
        let Some([low, high]) = bias.interval.filter(|_| bias.decided() >= LEAST_REGIONS) else {
            let too_few = format!(
                "only {} regions were labelled by shape or by texture; {LEAST_REGIONS} are needed",
                bias.decided()
            );
            return match outline.filter(|(_, kept)| *kept >= KEEPS) {
                Some((cue, kept)) => (
                    Basis::Shape,
                    format!("{class} is found by its shape: when {}, {}; {too_few}", cue.when(), left(kept)),
                ),
                None => (Basis::Unknown, format!("{class}: what it is found by is open: {too_few}; {counted}")),
            };
        };
        if high < 0.5 {
            return match self.kept(Cue::Flat).filter(|kept| *kept >= KEEPS) {
                Some(kept) => (
                    Basis::Color,
                    format!(
                        "{class} is found by colour, not by shape: when {}, {}; {counted}",
                        Cue::Flat.when(),
                        left(kept)
                    ),
                ),
                None => (Basis::Texture, format!("{class} is found by texture, not by shape: {counted}")),
            };
        }
        if low > 0.5 {
            let outlined =
                outline.map_or(String::new(), |(cue, kept)| format!("when {}, {}; ", cue.when(), left(kept)));
            return match outline.is_some_and(|(_, kept)| kept >= KEEPS) {
                true => (Basis::Shape, format!("{class} is found by shape, not by texture: {outlined}{counted}")),
                false => (
                    Basis::Form,
                    format!(
                        "{class} is not found by its own texture, but its outline alone is not enough: {outlined}{counted}"
                    ),
                ),
            };
        }
        (Basis::Both, format!("{class} is found by shape and texture together: {counted}"))
    }

    /// When it fails: the changes that cost most.
    fn failures(&self) -> Option<String> {
        let mut worst: Vec<(Cue, &Effect)> = self.effects().filter(|(_, effect)| effect.costs(COSTS)).collect();
        worst.sort_by(|a, b| a.1.change().unwrap_or(0.0).total_cmp(&b.1.change().unwrap_or(0.0)));
        let phrases: Vec<String> = worst
            .iter()
            .take(4)
            .filter_map(|(cue, effect)| {
                Some(format!(
                    "{} (IoU {} to {}, {} {})",
                    cue.when(),
                    percent(effect.before?, 1),
                    percent(effect.after?, 1),
                    points(effect.change()?),
                    interval(effect.interval?)
                ))
            })
            .collect();
        (!phrases.is_empty()).then(|| format!("it fails when {}", phrases.join("; when ")))
    }

    /// Changes that cost it nothing to speak of.
    fn indifferent(&self) -> Option<String> {
        let calm = |effect: &Effect| effect.interval.is_some_and(|[low, _]| low > -COSTS / 2.0);
        let phrases: Vec<String> = self
            .effects()
            .filter(|(cue, effect)| *cue != Cue::TextureSame && calm(effect))
            .filter_map(|(cue, effect)| Some(format!("{} ({})", cue.when(), points(effect.change()?))))
            .collect();
        (!phrases.is_empty())
            .then(|| format!("it loses less than {:.0} points when {}", COSTS * 50.0, phrases.join(", when ")))
    }

    /// All but the blank picture, on which nobody is expected to find anything.
    fn effects(&self) -> impl Iterator<Item = (Cue, &Effect)> {
        let others = self.cues.iter().filter(|(cue, _)| *cue != Cue::Blank);
        others.filter_map(|(cue, effects)| effects.classes.get(self.number).map(|class| (*cue, &class.iou)))
    }

    /// Where it is found and where not.
    fn places(&self) -> Option<String> {
        let at = |classes: &Vec<Option<f64>>| classes.get(self.number).copied().flatten();
        let mut phrases = Vec::new();
        let near: Vec<_> = self.place.distance.iter().filter_map(|band| Some((band, at(&band.classes)?))).collect();
        if let [(first, edge), .., (last, inside)] = near.as_slice() {
            let text = match first.to {
                Some(to) if to == first.from + 1 => "on edges".to_owned(),
                to => format!("{} to {} px from edges", first.from, to.unwrap_or_default()),
            };
            phrases.push(format!("{} {text} and {} from {} px on", percent(*edge, 1), percent(*inside, 1), last.from));
        }
        // A mean over a region or two says nothing.
        let enough = |bin: &&SizeScore| bin.counts.get(self.number).is_some_and(|regions| *regions >= LEAST_IMAGES);
        let sizes: Vec<_> =
            self.place.size.iter().filter(enough).filter_map(|bin| Some((bin, at(&bin.classes)?))).collect();
        if let [(small, least), .., (large, most)] = sizes.as_slice() {
            phrases.push(format!(
                "{} on regions below {} % of the image and {} on those above {} %",
                percent(*least, 1),
                percent(small.to.unwrap_or(1.0), 1),
                percent(*most, 1),
                percent(large.from, 1)
            ));
        }
        (!phrases.is_empty()).then(|| format!("its IoU is {}", phrases.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::effects::ClassEffect;
    use super::*;

    fn effect(before: f64, after: f64) -> Effect {
        let change = after - before;
        Effect { before: Some(before), after: Some(after), interval: Some([change - 0.02, change + 0.02]), images: 20 }
    }

    /// Changes that are needed and not named leave nothing.
    fn judged(iou: f64, images: usize, counts: [usize; 3], cues: &[(Cue, f64)]) -> Verdict {
        let absent =
            NEEDED.into_iter().filter(|needed| cues.iter().all(|(cue, _)| cue != needed)).map(|cue| (cue, 0.0));
        judged_by(iou, images, counts, &cues.iter().copied().chain(absent).collect::<Vec<_>>())
    }

    fn judged_by(iou: f64, images: usize, counts: [usize; 3], cues: &[(Cue, f64)]) -> Verdict {
        let effects = |after: f64| Effects {
            name: String::new(),
            images,
            miou: effect(iou, after),
            boundary_miou: None,
            classes: vec![ClassEffect { class: "pole".into(), iou: effect(iou, after), boundary_iou: None }],
        };
        let cues: Vec<(Cue, Effects)> = cues.iter().map(|(cue, after)| (*cue, effects(*after))).collect();
        let place = FailureScores { distance: Vec::new(), size: Vec::new(), curvature: Vec::new() };
        let bias = ShapeBias::new("pole".into(), counts);
        let known = Known {
            class: "pole",
            number: 0,
            share: 0.1,
            iou: Some(iou),
            images,
            bias: &bias,
            cues: &cues,
            place: &place,
        };
        known.verdict()
    }

    /// The verdict, regions by shape, by texture and as neither, and what changes leave.
    type Case<'a> = (Basis, [usize; 3], &'a [(Cue, f64)]);

    #[test]
    fn each_basis_has_its_evidence() {
        let (silhouettes, edges, flat, blank) = (Cue::Silhouettes, Cue::Edges, Cue::Flat, Cue::Blank);
        let cases: [Case; 8] = [
            (Basis::Shape, [30, 2, 1], &[(silhouettes, 0.6), (edges, 0.1), (blank, 0.0)]),
            (Basis::Form, [30, 2, 1], &[(silhouettes, 0.1), (edges, 0.1)]),
            (Basis::Texture, [2, 30, 1], &[(silhouettes, 0.1), (flat, 0.1)]),
            (Basis::Color, [2, 30, 1], &[(silhouettes, 0.1), (flat, 0.6)]),
            (Basis::Both, [10, 11, 1], &[(silhouettes, 0.1)]),
            (Basis::Position, [30, 0, 0], &[(silhouettes, 0.8), (blank, 0.8)]),
            (Basis::Default, [30, 0, 0], &[(blank, 0.12)]),
            (Basis::Unknown, [4, 2, 9], &[(silhouettes, 0.1)]),
        ];
        for (basis, counts, cues) in cases {
            let iou = if basis == Basis::Default { 0.2 } else { 0.8 };
            let verdict = judged(iou, 20, counts, cues);
            assert_eq!(verdict.basis, basis, "{verdict:?}");
            assert!(verdict.sentences[0].contains("`pole`"));
        }
        assert_eq!(judged(0.05, 20, [30, 0, 0], &[]).basis, Basis::NotFound);
        let open = judged_by(0.8, 20, [2, 30, 1], &[(Cue::TextureOther, 0.1), (Cue::Blank, 0.0)]);
        assert_eq!(open.basis, Basis::Unknown);
        assert!(open.sentences[0].contains("flat,silhouettes,edges were not measured"), "{open:?}");
        let few = judged(0.8, 3, [30, 0, 0], &[]);
        assert_eq!((few.basis, few.sentences.len()), (Basis::Unknown, 1));
        assert!(few.sentences[0].contains("3 images hold it, and 5 are needed"));
    }

    #[test]
    fn sentences_are_made_of_numbers() {
        let verdict = judged(
            0.712,
            20,
            [8, 35, 2],
            &[
                (Cue::TextureOther, 0.123),
                (Cue::Gray, 0.71),
                (Cue::Flat, 0.1),
                (Cue::Silhouettes, 0.65),
                (Cue::Edges, 0.65),
            ],
        );
        assert_eq!(
            verdict.sentences,
            [
                "`pole` is found by texture, not by shape: of 45 regions with its shape and another class's texture, 8 were \
                 labelled by shape, 35 by texture and 2 as neither (shape bias 0.19, 95 % 0.10 to 0.33)",
                "it fails when its texture is gone and its mean colour left (IoU 71.2 to 10.0, -61.2 [-63.2, -59.2]); when its \
                 texture is another class's (IoU 71.2 to 12.3, -58.9 [-60.9, -56.9])",
                "it loses less than 5 points when colours are taken away (-0.2)",
            ]
        );
    }

    #[test]
    fn intervals_of_shares_are_wilsons() {
        let [low, high] = wilson(0.5, 10.0);
        assert!((low - 0.2366).abs() < 1e-3 && (high - 0.7634).abs() < 1e-3, "{low} {high}");
        assert!(wilson(0.0, 20.0)[0] == 0.0 && wilson(1.0, 20.0)[1] > 0.999);
        assert_eq!(ShapeBias::new("a".into(), [0, 0, 4]).bias, None);
    }
}
