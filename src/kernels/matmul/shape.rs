//! The shapes of tiles and of packed operands, and where in the output a tile lies.

/// Most lanes of a block.
pub(super) const BLOCK: usize = 512;
/// Lanes between two packed rows of the left-hand side: a block, and a line more, so that rows fall into different
/// cache sets.
pub(super) const A_STRIDE: usize = BLOCK + 16;
/// Lanes between two packed columns of the left-hand side: a line, into which the rows of a tile fit.
pub(super) const A_COLUMNS: usize = 16;

/// Tiles whose rows are packed together where these are columns in memory, and panels whose columns are: lines of cache
/// in whole, as 48 columns of tiles of six are.
pub(super) const TILES_AT_ONCE: usize = 8;

/// Twelve vectors of AVX2 for the sums leave four for the operands; NEON has twice as many of half the size.
pub(super) const LOOP_ROWS: usize = 6;
/// Two vectors of AVX2.
pub(super) const LOOP_COLUMNS: usize = 16;
/// Fourteen rows of two vectors each, two vectors of b and one of a: all but one of the 32 registers.
pub(super) const AVX512_ROWS: usize = 14;

/// Part of the output.
pub(super) struct Target {
    pub(super) corner: *mut f32,
    /// Values between the starts of two rows.
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Adds to what is there.
    pub(super) add: bool,
    pub(super) scale: f32,
}
