//! How large pictures may be.

/// How large pictures may be, so that a page with many samples stays small.
pub(super) struct PictureBudget {
    /// Longer side of input, truth, prediction and errors.
    pub(super) picture: usize,
    /// Longer side of the decoder's stages.
    pub(super) stage: usize,
    /// Longer side of one token's heat map.
    pub(super) map: usize,
    /// Classes whose tokens are shown for one image at most.
    pub(super) classes: usize,
}

impl PictureBudget {
    /// The sizes for sample `index` of `samples`: the first ones, which are seen at once, are always large.
    pub(super) fn of(index: usize, samples: usize) -> Self {
        match samples {
            _ if index < 4 || samples <= 8 => Self { picture: 480, stage: 360, map: 64, classes: 6 },
            9..=24 => Self { picture: 320, stage: 240, map: 48, classes: 6 },
            25..=48 => Self { picture: 240, stage: 200, map: 32, classes: 4 },
            _ => Self { picture: 200, stage: 160, map: 24, classes: 3 },
        }
    }
}
