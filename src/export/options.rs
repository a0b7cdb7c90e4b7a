//! Options of an export.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What a file takes and gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Profile {
    /// `image` uint8 `[N, H, W, 3]`, normalised in the graph, to `labels` uint8 `[N, H, W]`.
    #[default]
    Default,
    /// The same image to `logits` float `[N, classes, H, W]`.
    Logits,
    /// Deepness, the plugin of QGIS: `image` float `[N, 3, H, W]`, normalised as its metadata say, to `probabilities`.
    Qgis,
    /// As the default, in a model repository of Triton.
    Triton,
    /// `pixel_values` float `[N, 3, H, W]`, normalised, to `logits`, in a folder as Hugging Face has them.
    Hf,
    /// For a page that runs the model in a browser: the image of the default to `maps` float `[N, h, w, channels]` on
    /// the network's grid, and where these are masks, to their `votes` `[N, channels, classes]`. Windows are put
    /// together before there are labels, and on the grid there is hardly anything to carry.
    Web,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Default, Self::Logits, Self::Qgis, Self::Triton, Self::Hf, Self::Web];

    /// As it is written in commands.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Logits => "logits",
            Self::Qgis => "qgis",
            Self::Triton => "triton",
            Self::Hf => "hf",
            Self::Web => "web",
        }
    }

    /// Whether the input is bytes, which are normalised in the graph.
    #[must_use]
    pub fn takes_bytes(self) -> bool {
        matches!(self, Self::Default | Self::Logits | Self::Triton | Self::Web)
    }

    /// The name of the input.
    #[must_use]
    pub fn input(self) -> &'static str {
        if self == Self::Hf { "pixel_values" } else { "image" }
    }

    /// The name of the output; of several, the first.
    #[must_use]
    pub fn output(self) -> &'static str {
        match self {
            Self::Default | Self::Triton => "labels",
            Self::Logits | Self::Hf => "logits",
            Self::Qgis => "probabilities",
            Self::Web => "maps",
        }
    }

    /// Whether it is a folder that is written.
    #[must_use]
    pub fn is_folder(self) -> bool {
        matches!(self, Self::Triton | Self::Hf | Self::Web)
    }
}

impl FromStr for Profile {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|profile| profile.name() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::new(format!("`{text}` is not a profile; known are {known}"))
        })
    }
}

/// How weights are stored and what is computed with. Computing in f16 is not offered: what runs files in this process
/// widens it to f32, so that values beyond it would not be noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Precision {
    /// As they are.
    #[default]
    F32,
    /// In half the space; runtimes widen them when they load the file. All computing is in f32.
    F16,
    /// Those of convolutions and linear layers as whole numbers of 8 bits with a scale per output channel: a quarter of
    /// the space. All computing is in f32.
    Int8,
    /// The same, and products with the weights of linear layers are computed in whole numbers: what enters is rounded
    /// to 8 bits, by the smallest and the largest value of all images that enter at once.
    #[serde(rename = "int8-dynamic")]
    Int8Dynamic,
}

impl Precision {
    /// As it is written in commands.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
            Self::Int8Dynamic => "int8-dynamic",
        }
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "int8" => Ok(Self::Int8),
            "int8-dynamic" => Ok(Self::Int8Dynamic),
            _ => Err(Error::new(format!("`{text}` is not a precision; known are f32, f16, int8, int8-dynamic"))),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which file is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportOptions {
    /// Height and width of the images.
    pub size: [usize; 2],
    /// What it takes and gives.
    pub profile: Profile,
    /// How weights are stored and what is computed with.
    pub precision: Precision,
}
