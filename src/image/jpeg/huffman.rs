//! Huffman codes of a JPEG's scans, read past without making coefficients of them.

use crate::image::jpeg::Scan;

/// Codes of up to this length are found at once.
const FAST: u32 = 9;

/// One table of codes.
pub(super) struct Table {
    /// For the next [`FAST`] bits: the code's length and its symbol; length 0 where the code is longer.
    fast: [(u8, u8); 1 << FAST],
    /// Of every length: the first code after its last one, aligned to 16 bits, and where its symbols begin.
    ends: [(u32, i32); 17],
    symbols: Vec<u8>,
}

impl Table {
    /// The table at the start of `segment`, after its place, and what follows it.
    pub(super) fn read(segment: &[u8]) -> Option<(Box<Self>, &[u8])> {
        let (counts, rest) = segment.split_at_checked(16)?;
        let count = counts.iter().map(|count| usize::from(*count)).sum();
        let (symbols, rest) = rest.split_at_checked(count)?;
        let mut table = Box::new(Self { fast: [(0, 0); 1 << FAST], ends: [(0, 0); 17], symbols: symbols.to_vec() });
        let (mut code, mut next) = (0u32, 0usize);
        for length in 1..=16 {
            let count = u32::from(counts[length as usize - 1]);
            table.ends[length as usize] = ((code + count) << (16 - length), next as i32 - code as i32);
            for _ in 0..count {
                if length <= FAST {
                    let first = (code << (FAST - length)) as usize;
                    let entry = (length as u8, symbols[next]);
                    let places = table.fast.get_mut(first..first + (1 << (FAST - length)))?;
                    places.fill(entry);
                }
                (code, next) = (code + 1, next + 1);
            }
            if code > 1 << length {
                return None;
            }
            code <<= 1;
        }
        Some((table, rest))
    }
}

/// The bits of a scan, up to its next marker; after that zeros, which are counted.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The next bits, from the highest.
    bits: u64,
    count: u32,
    /// How many of `count` are not from the file.
    made_up: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at, bits: 0, count: 0, made_up: 0 }
    }

    /// More bits were asked for than there are.
    pub(super) fn are_short(&self) -> bool {
        self.made_up > self.count
    }

    /// Where the data, or what was not read of them, end.
    pub(super) fn place(&self) -> usize {
        self.at
    }

    #[inline]
    fn fill(&mut self) {
        while self.count <= 56 {
            let byte = match self.bytes.get(self.at) {
                Some(0xff) => match self.bytes.get(self.at + 1) {
                    Some(0) => {
                        self.at += 2;
                        0xff
                    }
                    Some(0xff) => {
                        self.at += 1;
                        continue;
                    }
                    _ => {
                        self.made_up += 8;
                        0
                    }
                },
                Some(byte) => {
                    self.at += 1;
                    *byte
                }
                None => {
                    self.made_up += 8;
                    0
                }
            };
            self.bits |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// Reads past up to 32 bits.
    #[inline]
    fn skip(&mut self, count: u32) {
        if self.count < count {
            self.fill();
        }
        self.bits <<= count;
        self.count -= count;
    }

    #[inline]
    fn take(&mut self, count: u32) -> u32 {
        if count == 0 {
            return 0;
        }
        if self.count < count {
            self.fill();
        }
        let value = (self.bits >> (64 - count)) as u32;
        self.skip(count);
        value
    }

    #[inline]
    fn symbol(&mut self, table: &Table) -> Option<u8> {
        if self.count < 32 {
            self.fill();
        }
        let (length, symbol) = table.fast[(self.bits >> (64 - FAST)) as usize];
        if length > 0 {
            self.skip(u32::from(length));
            return Some(symbol);
        }
        let next = (self.bits >> 48) as u32;
        let length = (FAST as usize + 1..=16).find(|length| next < table.ends[*length].0)?;
        let place = (next >> (16 - length)) as i32 + table.ends[length].1;
        self.skip(length as u32);
        table.symbols.get(usize::try_from(place).ok()?).copied()
    }

    /// Reads past the restart marker of the given number; whether it is there.
    pub(super) fn restart(&mut self, number: u8) -> bool {
        // What is left of the interval is filling, or bytes that nobody asked for.
        while self.bytes.get(self.at).is_some_and(|byte| *byte != 0xff)
            || matches!(self.bytes.get(self.at..self.at + 2), Some([0xff, 0 | 0xff]))
        {
            self.at += 1;
        }
        let found = self.bytes.get(self.at + 1) == Some(&(0xd0 + number));
        *self = Self::new(self.bytes, self.at + 2);
        found
    }

    /// Reads past a block of a baseline picture; whether it can be.
    pub(super) fn block(&mut self, direct: Option<&Table>, alternating: Option<&Table>) -> bool {
        let (Some(direct), Some(alternating)) = (direct, alternating) else { return false };
        match self.symbol(direct) {
            Some(size @ 0..=16) => self.skip(u32::from(size)),
            _ => return false,
        }
        let mut at = 1;
        while at < 64 {
            let Some(symbol) = self.symbol(alternating) else { return false };
            let (zeros, size) = (symbol >> 4, symbol & 15);
            if size == 0 && zeros < 15 {
                break;
            }
            self.skip(u32::from(size));
            at += usize::from(zeros) + 1;
        }
        true
    }

    /// Reads past a block of a progressive picture, as the scan holds it; whether it can be. `run`: blocks that have
    /// ended already.
    pub(super) fn progressive_block(
        &mut self,
        scan: Scan,
        direct: Option<&Table>,
        alternating: Option<&Table>,
        known: &mut u64,
        run: &mut u32,
    ) -> bool {
        if scan.first == 0 {
            if scan.refines {
                self.skip(1);
                return true;
            }
            return match direct.and_then(|table| self.symbol(table)) {
                Some(size @ 0..=16) => {
                    self.skip(u32::from(size));
                    true
                }
                _ => false,
            };
        }
        let Some(table) = alternating else { return false };
        let mut at = scan.first;
        if *run == 0 {
            while at <= scan.last {
                let Some(symbol) = self.symbol(table) else { return false };
                let (zeros, size) = (symbol >> 4, symbol & 15);
                if size == 0 && zeros < 15 {
                    *run = (1 << zeros) + self.take(u32::from(zeros));
                    break;
                }
                self.skip(if scan.refines { u32::from(size > 0) } else { u32::from(size) });
                at = if scan.refines { self.past(zeros, *known, at, scan.last) } else { at + usize::from(zeros) };
                if size > 0 && at <= scan.last {
                    *known |= 1 << at;
                }
                at += 1;
            }
        }
        if *run > 0 {
            if scan.refines && at <= scan.last {
                let rest = (*known >> at) & (u64::MAX >> (63 - (scan.last - at)));
                for _ in 0..rest.count_ones() {
                    self.skip(1);
                }
            }
            *run -= 1;
        }
        true
    }

    /// From `at` on past `zeros` coefficients that are still zero, and a bit for each that is not.
    fn past(&mut self, mut zeros: u8, known: u64, mut at: usize, last: usize) -> usize {
        while at <= last {
            if known >> at & 1 == 1 {
                self.skip(1);
            } else if zeros == 0 {
                break;
            } else {
                zeros -= 1;
            }
            at += 1;
        }
        at
    }
}
