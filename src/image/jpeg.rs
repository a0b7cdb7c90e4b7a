//! Whether a JPEG file holds all its pixels: its decoder fills what is missing with grey and calls it success.
//!
//! The entropy-coded data are walked through without being turned into pixels, which takes a fraction of the time.

mod huffman;

use crate::error::{Error, Result};

use self::huffman::{Bits, Table};

/// Of more scans than this the decoder takes none.
const MAX_SCANS: usize = 100;

/// How a file with all its pixels ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By its marker.
    Marked,
    /// The marker is not there.
    Missing,
}

/// How the JPEG ends; what cannot be walked through is left to its decoder.
///
/// # Errors
/// Pixels that are not in the file.
pub(crate) fn check(bytes: &[u8]) -> Result<End> {
    let mut walk = ScanReader::default();
    let (mut at, mut scans) = (2, 0);
    loop {
        at = marker(bytes, at);
        let Some(code) = bytes.get(at + 1) else { break };
        at += 2;
        if *code == 0xd9 {
            return match walk.frame {
                Some(Frame { scanned: false, .. }) => Err(cut("before its first scan")),
                _ => Ok(End::Marked),
            };
        }
        if matches!(code, 0x01 | 0xd0..=0xd8) {
            continue;
        }
        let Some(length) = bytes.get(at..at + 2) else { break };
        let end = at + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
        let Some(segment) = bytes.get(at + 2..end) else { break };
        at = end;
        match code {
            0xc4 => walk.tables(segment),
            0xc0..=0xc2 => walk.frame = Frame::read(segment, *code == 0xc2),
            0xdd => walk.interval = segment.first_chunk().map_or(0, |n| usize::from(u16::from_be_bytes(*n))),
            0xda => {
                scans += 1;
                if scans > MAX_SCANS {
                    return Ok(End::Marked); // the decoder refuses it
                }
                if let Some(after) = walk.scan(segment, bytes, at)? {
                    at = after;
                }
            }
            _ => {}
        }
    }
    if walk.has_all() { Ok(End::Missing) } else { Err(cut("before its last scan does")) }
}

fn cut(place: &str) -> Error {
    Error::new(format!("the JPEG ends {place}")).with_hint("copy the file again")
}

/// The place of the next marker that is not one of restarting.
fn marker(bytes: &[u8], mut at: usize) -> usize {
    while at + 1 < bytes.len() && (bytes[at] != 0xff || matches!(bytes[at + 1], 0 | 0xff | 0xd0..=0xd7)) {
        at += 1;
    }
    at
}

/// What the segments so far have said.
#[derive(Default)]
struct ScanReader {
    frame: Option<Frame>,
    direct: [Option<Box<Table>>; 4],
    alternating: [Option<Box<Table>>; 4],
    interval: usize,
}

struct Frame {
    progressive: bool,
    size: [usize; 2],
    components: Vec<Component>,
    /// A scan was walked through.
    scanned: bool,
}

/// One component of the picture.
struct Component {
    id: u8,
    /// Horizontal and vertical sampling.
    sampling: [usize; 2],
    /// Blocks across and down, filled up to whole units of interleaved scans.
    blocks: [usize; 2],
    /// Of a progressive picture: which coefficients of every block are not zero so far.
    known: Vec<u64>,
    /// Which coefficients are known to their last bit.
    finished: u64,
}

impl Frame {
    fn read(segment: &[u8], progressive: bool) -> Option<Self> {
        let [_, a, b, c, d, count, rest @ ..] = segment else { return None };
        let size = [u16::from_be_bytes([*c, *d]), u16::from_be_bytes([*a, *b])].map(usize::from);
        let mut components: Vec<Component> = rest
            .chunks_exact(3)
            .take(usize::from(*count))
            .map(|component| {
                let sampling = [usize::from(component[1] >> 4), usize::from(component[1] & 15)];
                Component { id: component[0], sampling, blocks: [0; 2], known: Vec::new(), finished: 0 }
            })
            .collect();
        let sound = |component: &Component| component.sampling.iter().all(|n| (1..=4).contains(n));
        let too_large = (size[0] as u64) * (size[1] as u64) > crate::image::MAX_PIXELS;
        if size.contains(&0)
            || components.is_empty()
            || components.len() > 4
            || !components.iter().all(sound)
            || too_large
        {
            return None;
        }
        let units = Self::units(&components, size);
        for component in &mut components {
            component.blocks = [units[0] * component.sampling[0], units[1] * component.sampling[1]];
            if progressive {
                component.known = vec![0; component.blocks[0] * component.blocks[1]];
            }
        }
        Some(Self { progressive, size, components, scanned: false })
    }

    /// The units of an interleaved scan, across and down.
    fn units(components: &[Component], size: [usize; 2]) -> [usize; 2] {
        let most = Self::most(components);
        [0, 1].map(|i| size[i].div_ceil(8 * most[i]))
    }

    fn most(components: &[Component]) -> [usize; 2] {
        [0, 1].map(|i| components.iter().map(|component| component.sampling[i]).max().unwrap_or(1))
    }
}

/// Which coefficients of each block a scan holds (its spectral selection), and whether it refines them.
#[derive(Clone, Copy)]
struct Scan {
    first: usize,
    last: usize,
    refines: bool,
    progressive: bool,
}

impl ScanReader {
    /// Whether all coefficients of all components are known.
    fn has_all(&self) -> bool {
        self.frame.as_ref().is_some_and(|frame| frame.components.iter().all(|component| component.finished == u64::MAX))
    }

    fn tables(&mut self, mut segment: &[u8]) {
        while let [place, rest @ ..] = segment {
            let Some((table, rest)) = Table::read(rest) else { return };
            let tables = if place >> 4 == 0 { &mut self.direct } else { &mut self.alternating };
            if let Some(slot) = tables.get_mut(usize::from(place & 15)) {
                *slot = Some(table);
            }
            segment = rest;
        }
    }

    /// Walks through the data of a scan, which begin at `at`: where they end. `None`: they cannot be understood.
    fn scan(&mut self, segment: &[u8], bytes: &[u8], at: usize) -> Result<Option<usize>> {
        let Self { frame: Some(frame), direct, alternating, interval } = self else { return Ok(None) };
        let Some((count, rest)) = segment.split_first() else { return Ok(None) };
        let count = usize::from(*count);
        let (Some(selectors), Some([first, last, bits])) = (rest.get(..count * 2), rest.get(count * 2..count * 2 + 3))
        else {
            return Ok(None);
        };
        let (first, last) = (usize::from(*first), usize::from(*last));
        let scan = match frame.progressive {
            true if first > last || last > 63 || (first == 0) != (last == 0) => return Ok(None),
            true => Scan { first, last, refines: bits >> 4 != 0, progressive: true },
            false => Scan { first: 0, last: 63, refines: false, progressive: false },
        };
        let mut chosen = Vec::new();
        for selector in selectors.chunks_exact(2) {
            let Some(component) = frame.components.iter().position(|component| component.id == selector[0]) else {
                return Ok(None);
            };
            let direct = direct[usize::from(selector[1] >> 4) & 3].as_deref();
            let alternating = alternating[usize::from(selector[1] & 15) & 3].as_deref();
            let lacks_direct = direct.is_none() && scan.first == 0 && !scan.refines;
            if lacks_direct || (alternating.is_none() && scan.last > 0) {
                return Ok(None);
            }
            chosen.push((component, direct, alternating));
        }
        if chosen.is_empty() || (chosen.len() > 1 && scan.progressive && scan.first > 0) {
            return Ok(None);
        }
        // A scan of one component alone has its own blocks as units, without those that fill up.
        let most = Frame::most(&frame.components);
        let units = match chosen[..] {
            [(component, ..)] => {
                [0, 1].map(|i| (frame.size[i] * frame.components[component].sampling[i]).div_ceil(most[i]).div_ceil(8))
            }
            _ => Frame::units(&frame.components, frame.size),
        };
        let alone = chosen.len() == 1;
        let mut bits_left = Bits::new(bytes, at);
        let mut run = 0;
        let (mut until_restart, mut restarts) = (*interval, 0u8);
        let all = units[0] * units[1];
        for unit in 0..all {
            if *interval > 0 && until_restart == 0 {
                if !bits_left.restart(restarts) {
                    return Err(lacks(unit, all));
                }
                (run, until_restart, restarts) = (0, *interval, (restarts + 1) % 8);
            }
            until_restart = until_restart.wrapping_sub(1);
            let (across, down) = (unit % units[0], unit / units[0]);
            for (component, direct, alternating) in &chosen {
                let component = &mut frame.components[*component];
                let [wide, high] = if alone { [1, 1] } else { component.sampling };
                for (j, i) in (0..high).flat_map(|j| (0..wide).map(move |i| (j, i))) {
                    let block = (down * high + j) * component.blocks[0] + across * wide + i;
                    let sound = match scan.progressive {
                        false => bits_left.block(*direct, *alternating),
                        true => match component.known.get_mut(block) {
                            Some(known) => bits_left.progressive_block(scan, *direct, *alternating, known, &mut run),
                            None => false,
                        },
                    };
                    if !sound && !bits_left.are_short() {
                        return Err(Error::new(format!("the JPEG's data is damaged in block {unit} of {all}"))
                            .with_hint("copy the file again"));
                    }
                }
            }
            if bits_left.are_short() {
                return Err(lacks(unit, all));
            }
        }
        frame.scanned = true;
        if bits & 15 == 0 || !scan.progressive {
            for (component, ..) in &chosen {
                frame.components[*component].finished |= (u64::MAX >> (63 - scan.last)) & (u64::MAX << scan.first);
            }
        }
        Ok(Some(bits_left.place()))
    }
}

fn lacks(unit: usize, all: usize) -> Error {
    Error::new(format!("the JPEG's scan ends after {unit} of {all} blocks")).with_hint("copy the file again")
}

#[cfg(test)]
mod tests;
