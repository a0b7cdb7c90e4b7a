//! A product cut into tasks for the threads of a pool.

use std::ops::Range;

use crate::kernels::matmul::kernel::Kernel;

/// A product cut into tasks: a grid of pieces, whole tiles each.
pub(super) struct Tiling {
    rows: usize,
    columns: usize,
    /// Rows and columns of a piece.
    piece: (usize, usize),
}

impl Tiling {
    /// The grid for `workers` threads whose busiest one is done first.
    pub(super) fn new(rows: usize, columns: usize, inner: usize, workers: usize, kernel: Kernel) -> Self {
        let (down, across) = (rows.div_ceil(kernel.rows), columns.div_ceil(kernel.columns));
        // Small products are not worth waking others.
        let workers = workers.min((rows * columns * inner / 2_000_000).max(1));
        let mut best = (f64::INFINITY, (down, across));
        for tasks in [workers, 2 * workers, 3 * workers] {
            for vertical in (1..=tasks).filter(|vertical| tasks.is_multiple_of(*vertical)) {
                let (high, wide) = (down.div_ceil(vertical), across.div_ceil(tasks / vertical));
                let pieces = down.div_ceil(high) * across.div_ceil(wide);
                // Of a piece: its tiles, its columns packed once, its rows packed once for each set of columns.
                let (high_f, wide_f) = ((high * kernel.rows) as f64, (wide * kernel.columns) as f64);
                let cost = high_f * wide_f + wide_f * 20.0 + high_f * 5.0 + 200.0;
                let cost = cost * pieces.div_ceil(workers) as f64;
                if cost < best.0 {
                    best = (cost, (high, wide));
                }
            }
        }
        let (high, wide) = best.1;
        Self { rows, columns, piece: (high * kernel.rows, wide * kernel.columns) }
    }

    pub(super) fn tasks(&self) -> usize {
        self.rows.div_ceil(self.piece.0) * self.columns.div_ceil(self.piece.1)
    }

    pub(super) fn task(&self, i: usize) -> (Range<usize>, Range<usize>) {
        let down = self.rows.div_ceil(self.piece.0);
        let (row, column) = (i % down * self.piece.0, i / down * self.piece.1);
        (row..self.rows.min(row + self.piece.0), column..self.columns.min(column + self.piece.1))
    }

    /// As many columns as fit the second-level cache when packed.
    pub(super) fn columns_in_cache(&self, inner: usize, kernel: Kernel) -> usize {
        // Half of the cache: the rest is for rows on their way in and out.
        let cache_floats = second_level_cache() / 2 / size_of::<f32>();
        let lanes = inner.div_ceil(kernel.values_per_lane());
        let panels = (cache_floats / lanes.max(1) / kernel.columns).clamp(1, 24);
        // As many rounds, of equal width.
        let wanted = self.piece.1.div_ceil(kernel.columns);
        wanted.div_ceil(wanted.div_ceil(panels)) * kernel.columns
    }
}

/// Bytes of the second-level cache of a core; a guess where it cannot be found out.
pub(in crate::kernels) fn second_level_cache() -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__cpuid, __cpuid_count};
        static SIZE: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
        *SIZE.get_or_init(|| {
            // Deterministic cache parameters: Intel's leaf, and AMD's of the same layout.
            let (most, extended) = (__cpuid(0).eax, __cpuid(0x8000_0000).eax);
            let leaves = [(4, most >= 4), (0x8000_001d, extended >= 0x8000_001d)];
            let caches =
                leaves.into_iter().filter(|(_, there)| *there).flat_map(|(leaf, _)| (0..8).map(move |i| (leaf, i)));
            let sizes = caches.map(|(leaf, i)| __cpuid_count(leaf, i)).filter(|cache| cache.eax >> 5 & 7 == 2);
            let size = |ebx: u32, ecx: u32| {
                let part = |shift: u32, mask: u32| (ebx >> shift & mask) as usize + 1;
                part(22, 0x3ff) * part(12, 0x3ff) * part(0, 0xfff) * (ecx as usize + 1)
            };
            sizes.map(|cache| size(cache.ebx, cache.ecx)).max().unwrap_or(0).clamp(256 << 10, 4 << 20)
        })
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        1 << 20
    }
}
