//! Inputs made of others: bits flipped, parts cut, doubled, moved and exchanged, numbers made extreme. The same seed makes the
//! same inputs.

use structtoken::rng::Rng;

/// What often lies at the edge of what a parser expects.
const TOKENS: [&[u8]; 22] = [
    b"-1",
    b"0",
    b"1e30",
    b"1e999",
    b"NaN",
    b"4294967295",
    b"4294967296",
    b"9223372036854775807",
    b"9223372036854775808",
    b"18446744073709551615",
    b"null",
    b"[]",
    b"{}",
    b"\"\"",
    b"..",
    b"/",
    b"\\u0000",
    b"\n",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\x7f\xff\xff\xff",
    b"\xef\xbb\xbf",
];

/// The `number`-th mutation of one of `corpus`, which is not empty, under `seed`.
pub fn input(corpus: &[Vec<u8>], seed: u64, number: u64) -> Vec<u8> {
    let mut rng = Rng::new(seed, &[number]);
    let mut bytes = corpus[rng.below(corpus.len())].clone();
    for _ in 0..1 + rng.below(6) {
        step(&mut bytes, corpus, &mut rng);
    }
    bytes
}

fn step(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], rng: &mut Rng) {
    let len = bytes.len();
    if len == 0 {
        bytes.extend(TOKENS[rng.below(TOKENS.len())]);
        return;
    }
    let at = rng.below(len);
    let most = 1 + rng.below(64);
    let span = at..len.min(at + 1 + rng.below(most));
    match rng.below(9) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => bytes[at] = rng.below(256) as u8,
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(span)),
        4 => {
            let part = bytes[span].to_vec();
            bytes.splice(at..at, part);
        }
        5 => drop(bytes.splice(at..at, TOKENS[rng.below(TOKENS.len())].iter().copied())),
        6 => number(bytes, at, rng),
        7 => {
            let other = &corpus[rng.below(corpus.len())];
            let from = rng.below(other.len().max(1)).min(other.len());
            let to = other.len().min(from + 1 + rng.below(256));
            drop(bytes.splice(span, other[from..to].iter().copied()));
        }
        _ => {
            let from = rng.below(len);
            let byte = bytes[from];
            bytes[span].fill(byte);
        }
    }
}

/// Replaces the decimal number at or after `at`, or else a binary one there.
fn number(bytes: &mut Vec<u8>, at: usize, rng: &mut Rng) {
    match bytes[at..].iter().position(u8::is_ascii_digit) {
        Some(skip) => {
            let from = at + skip;
            let to = bytes[from..].iter().position(|byte| !byte.is_ascii_digit()).map_or(bytes.len(), |len| from + len);
            drop(bytes.splice(from..to, TOKENS[rng.below(10)].iter().copied()));
        }
        None => {
            let width = [1, 2, 4, 8][rng.below(4)].min(bytes.len() - at);
            let fill = [0x00, 0x01, 0x7f, 0x80, 0xff][rng.below(5)];
            bytes[at..at + width].fill(fill);
        }
    }
}
