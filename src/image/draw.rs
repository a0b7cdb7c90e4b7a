//! Areas drawn as labels, the topmost first.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::image::raster::{Area, Bitmap, inflate, label_of, segment};
use crate::image::{IGNORE, Labels, RawMask, decode_mask, read_mask};

/// Labels that are drawn from the topmost area down to the lowest, so that every pixel is given once: what is covered
/// already is skipped 64 pixels at a time, and 4096 where all of these are. Many large areas so take little more time
/// than one.
pub(crate) struct Canvas {
    labels: Labels,
    /// A bit for each pixel that is not given yet, row by row.
    free: Vec<u64>,
    /// A bit for each word of `free` that is not 0.
    open: Vec<u64>,
    /// Words of either in a row.
    words: [usize; 2],
    /// The bits of `free` column by column, for run lengths; empty until the first of these is drawn.
    down: Vec<u64>,
    /// Pixels not yet given: of each row, and of all.
    in_row: Vec<u32>,
    left: usize,
}

/// Of bits `from..to` of a list of words, those in the word at a position that holds some of them.
fn bits(word: usize, from: usize, to: usize) -> u64 {
    let low = if word == from / 64 { !0 << (from % 64) } else { !0 };
    let high = if word == to / 64 { !(!0 << (to % 64)) } else { !0 };
    low & high
}

impl Canvas {
    /// One whose pixels are `rest` where no area covers them.
    pub(crate) fn new([width, height]: [usize; 2], rest: u8) -> Self {
        let words = [width.div_ceil(64), width.div_ceil(64 * 64)];
        let row = |words: usize, to: usize| (0..words).map(move |word| bits(word, 0, to));
        let rows = |words: usize, to: usize| (0..height).flat_map(move |_| row(words, to)).collect();
        Self {
            labels: Labels { width, height, ids: vec![rest; width * height] },
            free: rows(words[0], width),
            open: rows(words[1], words[0]),
            down: Vec::new(),
            words,
            in_row: vec![width as u32; height],
            left: width * height,
        }
    }

    pub(crate) fn labels(self) -> Labels {
        self.labels
    }

    /// Gives all pixels of an area that are not given yet a class.
    ///
    /// # Errors
    /// A bitmap that cannot be read.
    pub(crate) fn draw(&mut self, area: &Area, class: u8) -> Result<()> {
        if self.left == 0 {
            return Ok(());
        }
        let size = [self.labels.width, self.labels.height];
        match area {
            Area::Polygons(rings) => rings.iter().for_each(|ring| fill(self, ring, class)),
            Area::Disc(center, radius) => self.ellipse(*center, [*radius; 2], class),
            Area::Ellipse(center, axes) => self.ellipse(*center, *axes, class),
            Area::Runs { width, height, runs } if [*width, *height] == size => self.columns(runs, class),
            Area::Ids(path, table) => {
                if let RawMask::Index { values, .. } = read_mask(path)? {
                    for (at, value) in values.iter().take(self.labels.ids.len()).enumerate() {
                        let class = table.get(usize::from(*value)).copied().unwrap_or(IGNORE);
                        self.pixel(at / size[0], at % size[0], class);
                    }
                }
            }
            Area::Segments(path, table) => {
                if let RawMask::Rgb { values, .. } = read_mask(path)? {
                    for (at, colour) in values.iter().take(self.labels.ids.len()).enumerate() {
                        let class = label_of(table, segment(*colour)).unwrap_or(IGNORE);
                        self.pixel(at / size[0], at % size[0], class);
                    }
                }
            }
            Area::Runs { .. } => return Err(Error::new("its run lengths are for a picture of another size")),
            Area::Bitmap(at, bitmap) => {
                let mask = match bitmap {
                    Bitmap::Bytes(bytes) => decode_mask(bytes)?,
                    Bitmap::Deflated(packed) => decode_mask(&inflate(packed, size)?)?,
                    Bitmap::File(path) => read_mask(path)?,
                };
                match mask {
                    RawMask::Index { width, values, .. } => self.stamp(*at, width, &values, |value| *value > 0, class),
                    RawMask::Rgb { width, values, .. } => {
                        self.stamp(*at, width, &values, |value| *value != [0; 3], class);
                    }
                }
            }
        }
        Ok(())
    }

    /// Gives those columns of a row that are not given yet.
    fn run(&mut self, row: usize, columns: Range<usize>, class: u8) {
        if columns.is_empty() || self.in_row[row] == 0 {
            return;
        }
        let (from, to) = (columns.start, columns.end);
        let (first, last) = (from / 64, (to - 1) / 64);
        for group in first / 64..=last / 64 {
            let mut open = self.open[row * self.words[1] + group] & bits(group, first, last + 1);
            while open != 0 {
                let word = group * 64 + open.trailing_zeros() as usize;
                open &= open - 1;
                let free = &mut self.free[row * self.words[0] + word];
                let mut new = *free & bits(word, from, to);
                *free &= !new;
                if *free == 0 {
                    self.open[row * self.words[1] + group] &= !(1 << (word % 64));
                }
                self.in_row[row] -= new.count_ones();
                self.left -= new.count_ones() as usize;
                while new != 0 {
                    let column = word * 64 + new.trailing_zeros() as usize;
                    new &= new - 1;
                    self.labels.ids[row * self.labels.width + column] = class;
                    if !self.down.is_empty() {
                        self.down[column * self.labels.height.div_ceil(64) + row / 64] &= !(1 << (row % 64));
                    }
                }
            }
        }
    }

    fn pixel(&mut self, row: usize, column: usize, class: u8) {
        if self.free[row * self.words[0] + column / 64] >> (column % 64) & 1 == 1 {
            self.run(row, column..column + 1, class);
        }
    }

    /// Rows of a bitmap, cut where they leave the picture.
    fn stamp<T>(&mut self, at: [i64; 2], width: usize, values: &[T], is_in: impl Fn(&T) -> bool, class: u8) {
        for (row, line) in values.chunks(width.max(1)).enumerate() {
            let Some(y) = usize::try_from(at[1] + row as i64).ok().filter(|y| *y < self.labels.height) else {
                continue;
            };
            let skipped = usize::try_from(-at[0]).unwrap_or(0).min(line.len());
            let x = usize::try_from(at[0]).unwrap_or(0).min(self.labels.width);
            let inside = (x..self.labels.width).zip(&line[skipped..]);
            inside.filter(|(_, value)| is_in(value)).for_each(|(x, _)| self.pixel(y, x, class));
        }
    }

    fn ellipse(&mut self, [x, y]: [f64; 2], [across, down]: [f64; 2], class: u8) {
        let width = self.labels.width;
        for row in rows(y - down, y + down, self.labels.height) {
            let off = row as f64 + 0.5 - y;
            // Of a circle, as its equation has it.
            let half = match across == down {
                true => (down * down - off * off).max(0.0).sqrt(),
                false => across * (1.0 - (off / down).powi(2)).max(0.0).sqrt(),
            };
            // Pixels whose centres lie from the left end on and before the right one.
            self.run(row, column(x - half, width)..column(x + half, width), class);
        }
    }

    /// Runs of zeros and ones down the columns. Whole columns are drawn by rows, which is how they lie in memory.
    fn columns(&mut self, runs: &[u32], class: u8) {
        let height = self.labels.height;
        let mut at = 0;
        for (turn, run) in runs.iter().enumerate() {
            let end = at + *run as usize;
            if turn % 2 == 1 {
                let whole = at.div_ceil(height)..end / height;
                let parts = match whole.is_empty() {
                    true => [at..end, end..end],
                    false => [at..whole.start * height, whole.end * height..end],
                };
                for part in parts {
                    self.down(part, class);
                }
                if !whole.is_empty() {
                    (0..height).for_each(|row| self.run(row, whole.clone(), class));
                }
            }
            at = end;
        }
    }

    /// Pixels counted down the columns.
    fn down(&mut self, pixels: Range<usize>, class: u8) {
        let (width, height) = (self.labels.width, self.labels.height);
        let words = height.div_ceil(64);
        if self.down.is_empty() {
            self.down = vec![0; width * words];
            for row in 0..height {
                for column in 0..width {
                    let bit = self.free[row * self.words[0] + column / 64] >> (column % 64) & 1;
                    self.down[column * words + row / 64] |= bit << (row % 64);
                }
            }
        }
        let mut at = pixels.start;
        while at < pixels.end {
            let (column, from) = (at / height, at % height);
            let to = height.min(from + pixels.end - at);
            for word in from / 64..=(to - 1) / 64 {
                let mut free = self.down[column * words + word] & bits(word, from, to);
                while free != 0 {
                    self.run(word * 64 + free.trailing_zeros() as usize, column..column + 1, class);
                    free &= free - 1;
                }
            }
            at += to - from;
        }
    }
}

/// An edge of a ring, and the rows whose centres it may cross.
struct Edge {
    rows: Range<usize>,
    from: [f64; 2],
    to: [f64; 2],
}

/// Time grows with the corners, the crossings and the pixels, and with no product of these.
fn fill(canvas: &mut Canvas, ring: &[[f64; 2]], class: u8) {
    let edge = |(at, from): (usize, &[f64; 2])| {
        let to = ring[(at + 1) % ring.len()];
        let rows = rows(from[1].min(to[1]), from[1].max(to[1]), canvas.labels.height);
        Edge { rows, from: *from, to }
    };
    let mut edges: Vec<Edge> = ring.iter().enumerate().map(edge).filter(|edge| !edge.rows.is_empty()).collect();
    edges.sort_by_key(|edge| edge.rows.start);
    let (Some(first), Some(last)) = (edges.first(), edges.iter().map(|edge| edge.rows.end).max()) else { return };
    let (width, mut next) = (canvas.labels.width, 0);
    let mut active: Vec<&Edge> = Vec::new();
    // Where a row enters and leaves the ring, in turn.
    let mut turns = Vec::new();
    for row in first.rows.start..last {
        let y = row as f64 + 0.5;
        active.retain(|edge| edge.rows.end > row);
        while let Some(edge) = edges.get(next).filter(|edge| edge.rows.start <= row) {
            active.push(edge);
            next += 1;
        }
        if canvas.in_row[row] == 0 {
            continue;
        }
        turns.clear();
        for Edge { from: a, to: b, .. } in &active {
            // Half-open, so that a corner on the line counts once.
            if (a[1] <= y) != (b[1] <= y) {
                turns.push(column(a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0]), width));
            }
        }
        turns.sort_unstable();
        // A closed ring is left as often as it is entered.
        for [from, to] in turns.as_chunks::<2>().0 {
            canvas.run(row, *from..*to, class);
        }
    }
}

/// Rows whose centre may lie from `low` to `high`.
fn rows(low: f64, high: f64, height: usize) -> Range<usize> {
    // A float that is too large, or none, becomes the nearest number.
    let end = ((high + 0.5).floor().max(0.0) as usize).min(height);
    ((low - 0.5).ceil().max(0.0) as usize).min(end)..end
}

/// The first column whose centre lies at `x` or beyond.
fn column(x: f64, width: usize) -> usize {
    ((x - 0.5).ceil().max(0.0) as usize).min(width)
}

#[cfg(test)]
mod tests;
