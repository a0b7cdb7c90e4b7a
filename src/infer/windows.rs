//! Where windows lie in an image; `postprocess` and `bands` blend them.

/// Where the windows of an image lie: every pair of a top and a left, all of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Windows {
    pub(super) tops: Vec<usize>,
    pub(super) lefts: Vec<usize>,
    /// Height and width of every window.
    pub(super) size: (usize, usize),
}

impl Windows {
    /// Windows of `crop` at steps of `stride` over an image of `size` (heights and widths). The last ones are moved
    /// back to end at the border; a window is no larger than the image.
    pub(super) fn slide(size: (usize, usize), crop: [usize; 2], stride: [usize; 2]) -> Self {
        let starts = |size: usize, crop: usize, stride: usize| -> Vec<usize> {
            let last = size.saturating_sub(crop);
            (0..=last.div_ceil(stride)).map(|i| (i * stride).min(last)).collect()
        };
        Self {
            tops: starts(size.0, crop[0], stride[0]),
            lefts: starts(size.1, crop[1], stride[1]),
            size: (crop[0].min(size.0), crop[1].min(size.1)),
        }
    }

    /// The whole image as one window.
    pub(super) fn whole(size: (usize, usize)) -> Self {
        Self { tops: vec![0], lefts: vec![0], size }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_lie_where_the_reference_puts_them() {
        let windows = Windows::slide((100, 150), [64, 64], [42, 42]);
        assert_eq!(windows.tops, [0, 36]);
        assert_eq!(windows.lefts, [0, 42, 84, 86]);
        assert_eq!(Windows::slide((106, 64), [64, 64], [42, 42]).tops, [0, 42]);
        let low = Windows::slide((50, 90), [64, 64], [42, 42]);
        assert_eq!((low.tops, low.lefts, low.size), (vec![0], vec![0, 26], (50, 64)));
    }
}
