//! Where rows of samples go: to an 8-bit RGB image, or to a mask as it is stored.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::image::decode_memory::Reservation;
use crate::image::formats::{Format, check_size};
use crate::image::{Image, RawMask, Stored, decode_memory};

/// What the samples of a pixel are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A place in a palette.
    Palette,
    #[default]
    Gray,
    GrayAlpha,
    Rgb,
    Rgba,
    Cmyk,
}

impl Kind {
    pub(super) fn channels(self) -> usize {
        match self {
            Self::Palette | Self::Gray => 1,
            Self::GrayAlpha => 2,
            Self::Rgb => 3,
            Self::Rgba | Self::Cmyk => 4,
        }
    }
}

/// How a file stores its pixels.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) format: Format,
    pub(super) kind: Kind,
    /// Bits of a sample: 1, 2, 4, 8 or 16.
    pub(super) bits: u8,
    pub(super) palette: Option<Arc<[[u8; 3]]>>,
    /// The file says that its 0 is white: its numbers are given turned round, as they look.
    pub(super) white_is_zero: bool,
}

impl Layout {
    pub(super) fn new(format: Format, kind: Kind, bits: u8, palette: Option<Arc<[[u8; 3]]>>) -> Self {
        Self { format, kind, bits, palette, white_is_zero: false }
    }
}

/// Pixels from `x` on in row `y`, every `step`-th.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowPlace {
    pub(super) x: usize,
    pub(super) y: usize,
    pub(super) step: usize,
}

/// Takes a picture, a piece of a row at a time.
pub(super) trait Canvas {
    /// The size and the layout, before any pixel.
    fn begin(&mut self, size: (usize, usize), layout: Layout) -> Result<()>;

    /// The samples of some pixels, `kind.channels()` for each. What lies outside of the picture is dropped.
    fn place(&mut self, place: RowPlace, samples: &[u16]);

    /// A row of 8-bit RGB, for a canvas that takes it as it is.
    fn rgb_row(&mut self, _y: usize, _row: &[u8]) -> bool {
        false
    }
}

/// An image of 8 bits per channel.
pub(super) struct ImageCanvas {
    pub(super) image: Image,
    pub(super) reservation: Option<Reservation>,
    layout: Layout,
    /// The 16-bit values that become black and white.
    range: [u16; 2],
    /// A 16-bit value was met, and the lowest and highest.
    pub(super) deep: Option<[u16; 2]>,
    /// Some pixel is not opaque.
    pub(super) transparent: bool,
}

impl ImageCanvas {
    pub(super) fn new(range: Option<[u16; 2]>) -> Self {
        let layout = Layout::new(Format::Png, Kind::Gray, 8, None);
        let image = Image { width: 0, height: 0, pixels: Vec::new() };
        Self { image, reservation: None, layout, range: range.unwrap_or([0, u16::MAX]), deep: None, transparent: false }
    }

    /// Any depth as 8 bits.
    fn scaled(&self, value: u16) -> u8 {
        match self.layout.bits {
            8 => value as u8,
            16 => {
                let [low, high] = self.range;
                let span = u32::from(high.saturating_sub(low)).max(1);
                ((u32::from(value.saturating_sub(low)).min(span) * 255 + span / 2) / span) as u8
            }
            bits => (u32::from(value) * 255 / ((1 << bits) - 1)) as u8,
        }
    }
}

impl Canvas for ImageCanvas {
    fn begin(&mut self, (width, height): (usize, usize), layout: Layout) -> Result<()> {
        check_size(width as u64, height as u64)?;
        self.reservation = Some(decode_memory::take((width * height * 3) as u64));
        self.image = Image { width, height, pixels: zeros(width * height * 3)? };
        self.layout = layout;
        Ok(())
    }

    fn place(&mut self, place: RowPlace, samples: &[u16]) {
        if self.layout.bits == 16 {
            let colors = samples.chunks_exact(self.layout.kind.channels()).flat_map(|pixel| match self.layout.kind {
                Kind::GrayAlpha => &pixel[..1],
                Kind::Rgba => &pixel[..3],
                _ => pixel,
            });
            let seen = colors.fold(self.deep.unwrap_or([u16::MAX, 0]), |[low, high], v| [low.min(*v), high.max(*v)]);
            self.deep = Some(seen);
        }
        let Image { width, height, .. } = self.image;
        if place.y >= height {
            return;
        }
        if !self.transparent && matches!(self.layout.kind, Kind::GrayAlpha | Kind::Rgba) {
            let channels = self.layout.kind.channels();
            let opaque = if self.layout.bits == 16 { u16::MAX } else { 255 };
            self.transparent = samples.chunks_exact(channels).any(|pixel| pixel[channels - 1] != opaque);
        }
        let palette = self.layout.palette.clone();
        let kind = self.layout.kind;
        for (i, pixel) in samples.chunks_exact(kind.channels()).enumerate() {
            let x = place.x + i * place.step;
            if x >= width {
                break;
            }
            let rgb = match kind {
                Kind::Palette => {
                    palette.as_ref().and_then(|palette| palette.get(usize::from(pixel[0]))).copied().unwrap_or_default()
                }
                Kind::Gray | Kind::GrayAlpha => [self.scaled(pixel[0]); 3],
                Kind::Rgb | Kind::Rgba => [pixel[0], pixel[1], pixel[2]].map(|value| self.scaled(value)),
                Kind::Cmyk => {
                    let light = |value| 255 - u32::from(self.scaled(value));
                    [0, 1, 2].map(|channel| (light(pixel[channel]) * light(pixel[3]) / 255) as u8)
                }
            };
            self.image.pixels[(place.y * width + x) * 3..][..3].copy_from_slice(&rgb);
        }
    }

    fn rgb_row(&mut self, y: usize, row: &[u8]) -> bool {
        let stride = self.image.width * 3;
        self.image.pixels[y * stride..][..stride].copy_from_slice(&row[..stride]);
        true
    }
}

/// A mask as it is stored.
pub(super) struct MaskCanvas {
    pub(super) mask: Option<RawMask>,
    pub(super) reservation: Option<Reservation>,
}

impl MaskCanvas {
    pub(super) fn new() -> Self {
        Self { mask: None, reservation: None }
    }
}

impl Canvas for MaskCanvas {
    fn begin(&mut self, (width, height): (usize, usize), layout: Layout) -> Result<()> {
        check_size(width as u64, height as u64)?;
        let Layout { format, kind, bits, palette, white_is_zero } = layout;
        let stored = Stored { format, kind, bits, palette, transparent: None, white_is_zero };
        let colors = matches!(kind, Kind::Rgb | Kind::Rgba | Kind::Cmyk);
        if colors && (bits != 8 || kind == Kind::Cmyk) {
            let what = if kind == Kind::Cmyk { "CMYK".to_string() } else { format!("{bits} bits per channel") };
            return Err(Error::new(format!("a mask of {what} ({kind:?}) is not supported"))
                .with_hint("save it as an 8-bit palette, grey or RGB PNG")
                .with_kind(if kind == Kind::Cmyk { ErrorKind::Unsupported } else { ErrorKind::DeepColors }));
        }
        // The mask, and the labels that it becomes.
        self.reservation = Some(decode_memory::take((width * height * if colors { 4 } else { 3 }) as u64));
        self.mask = Some(if colors {
            RawMask::Rgb { width, height, values: zeros(width * height)?, stored }
        } else {
            RawMask::Index { width, height, values: zeros(width * height)?, stored }
        });
        Ok(())
    }

    fn place(&mut self, place: RowPlace, samples: &[u16]) {
        let Some(mask) = &mut self.mask else { return };
        let (width, height) = mask.size();
        if place.y >= height {
            return;
        }
        let at = |i: usize| Some(place.x + i * place.step).filter(|x| *x < width).map(|x| place.y * width + x);
        let see = |stored: &mut Stored, at: usize, alpha: u16| {
            let opaque = if stored.bits == 16 { u16::MAX } else { 255 };
            if alpha != opaque && stored.transparent.is_none_or(|first| at < first) {
                stored.transparent = Some(at);
            }
        };
        match mask {
            RawMask::Index { values, stored, .. } => {
                for (i, pixel) in samples.chunks_exact(stored.kind.channels()).enumerate() {
                    let Some(at) = at(i) else { break };
                    values[at] = pixel[0];
                    if let [_, alpha] = pixel {
                        see(stored, at, *alpha);
                    }
                }
            }
            RawMask::Rgb { values, stored, .. } => {
                for (i, pixel) in samples.chunks_exact(stored.kind.channels()).enumerate() {
                    let Some(at) = at(i) else { break };
                    values[at] = [pixel[0] as u8, pixel[1] as u8, pixel[2] as u8];
                    if let [_, _, _, alpha] = pixel {
                        see(stored, at, *alpha);
                    }
                }
            }
        }
    }
}

/// `count` zeros, or an error where there is no memory for them.
pub(super) fn zeros<T: Clone + Default>(count: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    values.try_reserve_exact(count).map_err(|_| {
        let megabytes = (count * size_of::<T>()).div_ceil(1_000_000);
        Error::new(format!("its pixels need {megabytes} MB, which the system does not provide"))
            .with_hint("cut the picture into tiles, or give the program more memory")
    })?;
    values.resize(count, T::default());
    Ok(values)
}
