//! Whole and cut JPEGs.

use super::*;
use crate::image::decode_image;

/// A picture with detail everywhere.
fn baseline(quality: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let picture =
        image::RgbImage::from_fn(100, 75, |x, y| image::Rgb([(x * y * 7) as u8, (x * 5) as u8, (y * 11) as u8]));
    let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, quality);
    encoder.encode_image(&picture).unwrap();
    bytes
}

/// Six colour scans, of which the last refine what the first tell.
const PROGRESSIVE: &[u8] = include_bytes!("progressive.jpg");

/// A grey picture of 32 x 32 in 16 blocks of their mean alone, each of two bits `01`; a restart after every four.
fn restarting(intervals: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![0xff, 0xd8];
    let mut segment = |code: u8, data: &[u8]| {
        bytes.extend([0xff, code, 0, data.len() as u8 + 2]);
        bytes.extend(data);
    };
    segment(0xdb, &[&[0][..], &[1; 64]].concat());
    segment(0xc0, &[8, 0, 32, 0, 32, 1, 1, 0x11, 0]);
    // The codes 0 and 10: of the mean the sizes 0 and 1, of the rest a coefficient of size 1 and the end.
    for (place, symbols) in [(0x00, [0, 1]), (0x10, [0x00, 0x01])] {
        let mut table = vec![place, 1, 1];
        table.extend([0; 14]);
        table.extend(symbols);
        segment(0xc4, &table);
    }
    segment(0xdd, &[0, 4]);
    segment(0xda, &[1, 1, 0, 0, 63, 0]);
    for (number, interval) in intervals.iter().enumerate() {
        bytes.extend(*interval);
        if number + 1 < intervals.len() {
            bytes.extend([0xff, 0xd0 + number as u8]);
        }
    }
    bytes.extend([0xff, 0xd9]);
    bytes
}

/// The place of the marker of the last scan, and where its data begin.
fn last_scan(bytes: &[u8]) -> usize {
    let at = bytes.windows(2).rposition(|pair| pair == [0xff, 0xda]).unwrap();
    at + 2 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]))
}

fn fault(bytes: &[u8]) -> String {
    let error = check(bytes).unwrap_err();
    assert!(error.hint().is_some());
    assert!(decode_image(bytes).is_err());
    error.to_string()
}

#[test]
fn whole_files_are_whole_with_and_without_their_end() {
    for bytes in
        [baseline(20), baseline(75), baseline(100), PROGRESSIVE.to_vec(), restarting(&[&[0], &[0], &[0], &[0]])]
    {
        assert_eq!(check(&bytes).unwrap(), End::Marked);
        let without = &bytes[..bytes.len() - 2];
        assert_eq!(check(without).unwrap(), End::Missing);
        assert_eq!(decode_image(without).unwrap(), decode_image(&bytes).unwrap());
        // Bytes after the end, as cameras append them.
        assert_eq!(check(&[&bytes, &[0u8, 1, 0xff, 0xda][..]].concat()).unwrap(), End::Marked);
    }
}

#[test]
fn scans_that_end_early_are_found_though_the_end_is_marked() {
    for quality in [20, 75, 100] {
        let bytes = baseline(quality);
        let data = last_scan(&bytes);
        let length = bytes.len() - 2 - data;
        for quarter in [0, 1, 2, 3] {
            let cut = [&bytes[..data + length * quarter / 4], &[0xff, 0xd9][..]].concat();
            assert!(fault(&cut).contains("of 130 blocks") || fault(&cut).contains("of 35 blocks"), "{}", fault(&cut));
        }
        fault(&[&bytes[..bytes.len() - 10], &[0xff, 0xd9][..]].concat());
        fault(&bytes[..bytes.len() - 10]);
        fault(&[&bytes[..data - 14], &[0xff, 0xd9][..]].concat());
    }
}

#[test]
fn every_scan_of_a_progressive_picture_counts() {
    let bytes = PROGRESSIVE;
    let scans: Vec<usize> = (0..bytes.len() - 1).filter(|at| bytes[*at..].starts_with(&[0xff, 0xda])).collect();
    assert!(scans.len() > 5, "{}", scans.len());
    for (number, at) in scans.iter().enumerate() {
        let data = at + 2 + usize::from(bytes[at + 3]);
        let end = scans.get(number + 1).map_or(bytes.len() - 2, |next| *next);
        // Tables may lie between the data and the next scan.
        let end = (data..end).find(|at| bytes[*at] == 0xff && bytes[at + 1] != 0).unwrap_or(end);
        if end - data < 4 {
            continue;
        }
        let hole = [&bytes[..data + (end - data) / 4], &bytes[end..]].concat();
        fault(&hole);
        // Cut off between two scans, without an end.
        fault(&bytes[..*at]);
    }
}

#[test]
fn lost_intervals_are_found() {
    assert_eq!(check(&restarting(&[&[0], &[0], &[0], &[0]])).unwrap(), End::Marked);
    assert!(fault(&restarting(&[&[0], &[0], &[0]])).contains("after 12 of 16"));
    assert!(fault(&restarting(&[&[0], &[], &[0], &[0]])).contains("after 4 of 16"));
    let mut other = restarting(&[&[0], &[0], &[0], &[0]]);
    let at = other.windows(2).position(|pair| pair == [0xff, 0xd1]).unwrap();
    other[at + 1] = 0xd2;
    assert!(fault(&other).contains("after 8 of 16"));
    // More bytes than an interval needs are passed over, as by other decoders.
    assert_eq!(check(&restarting(&[&[0, 0], &[0], &[0], &[0]])).unwrap(), End::Marked);
}
