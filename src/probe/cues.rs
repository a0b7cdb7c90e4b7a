//! The list of cues that can be taken away from pictures, or set against each other; `surface` and `geometry` change
//! the pictures.
//!
//! Each change is a function of the picture, its truth and a stream of random numbers. It says which pixels count,
//! before and after: scores are compared on the same regions.

use serde::{Serialize, Serializer};

use super::regions::Regions;
use super::textures::Textures;
use crate::dataset::Sample;
use crate::image::{IGNORE, Image, Labels};
use crate::rng::{Rng, fnv1a};

/// What is done to a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cue {
    /// Every region has the texture of its own class, from another picture: what the change itself costs.
    TextureSame,
    /// Every region has the texture of another class.
    TextureOther,
    /// Every region has its own mean colour.
    Flat,
    /// Every region has a grey level of its own that says nothing.
    Silhouettes,
    /// Nothing but the outlines of regions.
    Edges,
    /// Grey.
    Gray,
    /// Colour channels exchanged.
    Channels,
    /// Hues turned.
    Hue,
    /// Blurred by a hundredth of the diagonal.
    Blur,
    /// Patches of this side, in pixels, shuffled inside of regions.
    Shuffle(u8),
    /// All but one region is the picture's mean colour.
    ContextMean,
    /// All but one region is noise.
    ContextNoise,
    /// A third of each object's bounding box covered.
    Occluded,
    /// One object larger or smaller.
    Scaled,
    /// One object turned.
    Rotated,
    /// One object elsewhere.
    Shifted,
    /// The whole picture moved around, what leaves on one side enters on the other.
    Rolled,
    /// The picture's mean colour and nothing else.
    Blank,
}

impl Cue {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 21] = [
        Self::TextureSame,
        Self::TextureOther,
        Self::Flat,
        Self::Silhouettes,
        Self::Edges,
        Self::Gray,
        Self::Channels,
        Self::Hue,
        Self::Blur,
        Self::Shuffle(8),
        Self::Shuffle(16),
        Self::Shuffle(32),
        Self::Shuffle(64),
        Self::ContextMean,
        Self::ContextNoise,
        Self::Occluded,
        Self::Scaled,
        Self::Rotated,
        Self::Shifted,
        Self::Rolled,
        Self::Blank,
    ];

    /// Its name in options and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::TextureSame => "texture-same",
            Self::TextureOther => "texture-other",
            Self::Flat => "flat",
            Self::Silhouettes => "silhouettes",
            Self::Edges => "edges",
            Self::Gray => "grey",
            Self::Channels => "channels",
            Self::Hue => "hue",
            Self::Blur => "blur",
            Self::Shuffle(8) => "shuffle-8",
            Self::Shuffle(16) => "shuffle-16",
            Self::Shuffle(32) => "shuffle-32",
            Self::Shuffle(_) => "shuffle-64",
            Self::ContextMean => "context-mean",
            Self::ContextNoise => "context-noise",
            Self::Occluded => "occluded",
            Self::Scaled => "scaled",
            Self::Rotated => "rotated",
            Self::Shifted => "shifted",
            Self::Rolled => "rolled",
            Self::Blank => "blank",
        }
    }

    /// What it is called in a sentence that begins with "it fails when".
    pub fn when(self) -> &'static str {
        match self {
            Self::TextureSame => "its texture is that of its class in another picture",
            Self::TextureOther => "its texture is another class's",
            Self::Flat => "its texture is gone and its mean colour left",
            Self::Silhouettes => "silhouettes alone are left",
            Self::Edges => "outlines alone are left",
            Self::Gray => "colours are taken away",
            Self::Channels => "colour channels are exchanged",
            Self::Hue => "hues are turned",
            Self::Blur => "the picture is blurred",
            Self::Shuffle(8) => "patches of 8 px are shuffled inside of it",
            Self::Shuffle(16) => "patches of 16 px are shuffled inside of it",
            Self::Shuffle(32) => "patches of 32 px are shuffled inside of it",
            Self::Shuffle(_) => "patches of 64 px are shuffled inside of it",
            Self::ContextMean => "its surroundings are one colour",
            Self::ContextNoise => "its surroundings are noise",
            Self::Occluded => "a part of it is covered",
            Self::Scaled => "it is larger or smaller",
            Self::Rotated => "it is turned",
            Self::Shifted => "it lies elsewhere",
            Self::Rolled => "the whole picture is moved around",
            Self::Blank => "nothing of the picture is left",
        }
    }

    /// Whether contours are compared: not where only the inside of a region counts.
    pub(super) fn has_contours(self) -> bool {
        !matches!(self, Self::ContextMean | Self::ContextNoise)
    }

    /// The stream of random numbers of this change to image `index`. Changes that differ in what they put in a region's
    /// surroundings draw the same region.
    pub(super) fn rng(self, seed: u64, index: usize) -> Rng {
        let name = match self {
            Self::ContextMean | Self::ContextNoise => "context",
            cue => cue.name(),
        };
        Rng::new(seed, &[fnv1a(name.as_bytes()), index as u64])
    }
}

impl Serialize for Cue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A changed picture.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Changed {
    pub(super) image: Image,
    /// Its truth; 255 where it does not count.
    pub(super) truth: Labels,
    /// The truth of the picture as it was; 255 where what was changed does not lie.
    pub(super) reference: Labels,
    /// Which class's texture each region now has, if it is another's.
    pub(super) conflicts: Vec<Option<u8>>,
}

impl Changed {
    /// The same truth before and after.
    pub(super) fn in_place(image: Image, truth: &Labels) -> Self {
        Self { image, truth: truth.clone(), reference: truth.clone(), conflicts: Vec::new() }
    }
}

/// What changes are made of.
pub(super) struct CueSource<'a> {
    pub(super) index: usize,
    pub(super) sample: &'a Sample,
    pub(super) regions: &'a Regions,
    pub(super) textures: &'a Textures,
}

/// `labels` where `counts`, and 255 elsewhere.
pub(super) fn only(labels: &Labels, counts: impl Fn(usize) -> bool) -> Labels {
    let ids = labels.ids.iter().enumerate().map(|(at, id)| if counts(at) { *id } else { IGNORE }).collect();
    Labels { ids, ..*labels }
}
