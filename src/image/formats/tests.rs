//! Cases of every format.

use std::io::Cursor;

use super::*;
use crate::image::{decode_image, decode_mask};
use ::tiff::encoder::{Compression, DeflateLevel, TiffEncoder, colortype};
use ::tiff::tags::Tag;

fn numbers(bytes: &[u8]) -> Vec<u16> {
    match decode_mask(bytes).unwrap() {
        RawMask::Index { values, .. } => values,
        other => panic!("{other:?}"),
    }
}

/// A TIFF of one picture.
fn tiff<C>(size: (u32, u32), compression: Compression, values: &[C::Inner]) -> Vec<u8>
where
    C: colortype::ColorType,
    [C::Inner]: ::tiff::encoder::TiffValue,
{
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut bytes).unwrap().with_compression(compression);
    let mut image = encoder.new_image::<C>(size.0, size.1).unwrap();
    image.rows_per_strip(2).unwrap();
    image.write_data(values).unwrap();
    bytes.into_inner()
}

#[test]
fn tiff_images_of_every_compression_and_depth_are_read() {
    let deflate = Compression::Deflate(DeflateLevel::Fast);
    let rgb: Vec<u8> = (0..5 * 7 * 3).map(|i| i as u8 * 2).collect();
    for compression in [Compression::Uncompressed, Compression::Lzw, deflate, Compression::Packbits] {
        let image = decode_image(&tiff::<colortype::RGB8>((5, 7), compression, &rgb)).unwrap();
        assert_eq!((image.width, image.height, &image.pixels), (5, 7, &rgb));
    }
    let rgba: Vec<u8> = rgb.chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], 9]).collect();
    assert_eq!(decode_image(&tiff::<colortype::RGBA8>((5, 7), deflate, &rgba)).unwrap().pixels, rgb);
    let deep: Vec<u16> = rgb.iter().map(|v| u16::from(*v) * 257).collect();
    assert_eq!(decode_image(&tiff::<colortype::RGB16>((5, 7), Compression::Lzw, &deep)).unwrap().pixels, rgb);
    let gray = decode_image(&tiff::<colortype::Gray16>((2, 1), deflate, &[0, 0x8080])).unwrap();
    assert_eq!(gray.pixels, [0, 0, 0, 128, 128, 128]);
    let floats = decode_image(&tiff::<colortype::Gray32Float>((1, 1), deflate, &[0.5])).unwrap_err();
    assert!(floats.to_string().contains("not supported") || floats.to_string().contains("fractions"), "{floats}");
}

/// A TIFF by hand, little-endian, of entries (tag, type, values) and uncompressed data.
fn raw_tiff(entries: &[(u16, u16, Vec<u32>)], data: &[u8]) -> Vec<u8> {
    let mut entries = entries.to_vec();
    entries.sort();
    let mut bytes = b"II*\0\x08\0\0\0".to_vec();
    let mut beyond = 8 + 2 + entries.len() * 12 + 4;
    let (mut table, mut long) = (Vec::new(), Vec::new());
    for (tag, kind, values) in &entries {
        let size = if *kind == 3 { 2 } else { 4 };
        let packed: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()[..size].to_vec()).collect();
        table.extend(tag.to_le_bytes());
        table.extend(kind.to_le_bytes());
        table.extend((values.len() as u32).to_le_bytes());
        if packed.len() <= 4 {
            table.extend(&packed);
            table.extend(vec![0; 4 - packed.len()]);
        } else {
            table.extend((beyond as u32).to_le_bytes());
            beyond += packed.len();
            long.extend(packed);
        }
    }
    bytes.extend((entries.len() as u16).to_le_bytes());
    bytes.extend(table);
    bytes.extend([0; 4]);
    bytes.extend(long);
    let at = bytes.len() as u32;
    // The offset of the data was written as a placeholder.
    let place = bytes.windows(4).position(|w| w == 0xdada_dadau32.to_le_bytes()).unwrap();
    bytes[place..place + 4].copy_from_slice(&at.to_le_bytes());
    bytes.extend(data);
    bytes
}

const PLACE: u32 = 0xdada_dada;

fn entries(width: u32, height: u32, bits: u32, photometric: u32) -> Vec<(u16, u16, Vec<u32>)> {
    vec![
        (256, 4, vec![width]),
        (257, 4, vec![height]),
        (258, 3, vec![bits]),
        (259, 3, vec![1]),
        (262, 3, vec![photometric]),
    ]
}

fn strips(mut entries: Vec<(u16, u16, Vec<u32>)>, data: &[u8], samples: u32, height: u32) -> Vec<u8> {
    entries.extend([(273, 4, vec![PLACE]), (277, 3, vec![samples]), (278, 4, vec![height])]);
    entries.push((279, 4, vec![data.len() as u32]));
    raw_tiff(&entries, data)
}

#[test]
fn tiff_palettes_keep_their_numbers_as_masks_and_their_colours_as_images() {
    for (bits, data, expected) in [
        (8, vec![0, 2, 1, 3], vec![0, 2, 1, 3]),
        (4, vec![0x02, 0x13], vec![0, 2, 1, 3]),
        (2, vec![0b0010_0000, 0b0111_0000], vec![0, 2, 1, 3]),
    ] {
        let mut list = entries(2, 2, bits, 3);
        let count = 1 << bits;
        let ramp = |factor: u32| (0..count).map(move |i| (i * factor % 256) * 257);
        list.push((320, 3, ramp(10).chain(ramp(20)).chain(ramp(30)).collect()));
        let bytes = strips(list, &data, 1, 2);
        assert_eq!(numbers(&bytes), expected, "{bits}");
        let mask = decode_mask(&bytes).unwrap();
        assert_eq!((mask.bit_depth(), mask.palette().unwrap()[3]), (bits as u8, [30, 60, 90]));
        assert_eq!(decode_image(&bytes).unwrap().pixels[3..6], [20, 40, 60]);
    }
}

#[test]
fn tiff_tiles_planes_and_bits_are_put_together() {
    // 20 x 18 in tiles of 16 x 16.
    let value = |x: usize, y: usize| (x * 7 + y * 3) as u8;
    let tile = |tx: usize, ty: usize| (0..256).map(move |i| value(tx * 16 + i % 16, ty * 16 + i / 16));
    let data: Vec<u8> = [(0, 0), (1, 0), (0, 1), (1, 1)].into_iter().flat_map(|(x, y)| tile(x, y)).collect();
    let mut list = entries(20, 18, 8, 1);
    list.extend([(277, 3, vec![1]), (322, 4, vec![16]), (323, 4, vec![16]), (325, 4, vec![256; 4])]);
    let without = raw_tiff(&[list.clone(), vec![(324, 4, vec![PLACE, 0, 0, 0])]].concat(), &data);
    let first = (without.len() - data.len()) as u32;
    let place = without.windows(8).position(|w| w[..4] == first.to_le_bytes() && w[4..] == [0; 4]).unwrap();
    let mut bytes = without;
    for i in 0..4u32 {
        bytes[place + i as usize * 4..][..4].copy_from_slice(&(first + i * 256).to_le_bytes());
    }
    let expected: Vec<u16> = (0..20 * 18).map(|i| u16::from(value(i % 20, i / 20))).collect();
    assert_eq!(numbers(&bytes), expected);
    // Red, green and blue apart.
    let mut list = entries(2, 1, 8, 2);
    list[2].2 = vec![8, 8, 8];
    list.extend([(284, 3, vec![2]), (277, 3, vec![3]), (278, 4, vec![1]), (279, 4, vec![2, 2, 2])]);
    let mut bytes = raw_tiff(&[list, vec![(273, 4, vec![PLACE, 1, 1])]].concat(), &[1, 4, 2, 5, 3, 6]);
    let first = (bytes.len() - 6) as u32;
    let place = bytes.windows(8).position(|w| w == [first.to_le_bytes(), 1u32.to_le_bytes()].concat()).unwrap();
    for i in 0..3u32 {
        bytes[place + i as usize * 4..][..4].copy_from_slice(&(first + i * 2).to_le_bytes());
    }
    assert_eq!(decode_image(&bytes).unwrap().pixels, [1, 2, 3, 4, 5, 6]);
    // One bit, where black is 0 and where white is.
    for (photometric, expected) in [(1, vec![1, 0, 1, 0, 0, 0, 0, 1, 1]), (0, vec![0, 1, 0, 1, 1, 1, 1, 0, 0])] {
        let bytes = strips(entries(9, 1, 1, photometric), &[0b1010_0001, 0b1000_0000], 1, 1);
        assert_eq!(numbers(&bytes), expected, "{photometric}");
    }
}

#[test]
fn whole_numbers_of_tiff_are_labels_where_they_fit() {
    let deflate = Compression::Deflate(DeflateLevel::Fast);
    assert_eq!(numbers(&tiff::<colortype::Gray16>((2, 1), deflate, &[7, 65535])), [7, 65535]);
    assert_eq!(numbers(&tiff::<colortype::Gray32>((2, 2), deflate, &[0, 1, 2, 255])), [0, 1, 2, 255]);
    assert_eq!(numbers(&tiff::<colortype::GrayI16>((2, 1), deflate, &[3, 4])), [3, 4]);
    assert!(decode_mask(&tiff::<colortype::GrayI16>((2, 1), deflate, &[3, -1])).is_err());
    assert!(decode_mask(&tiff::<colortype::Gray32>((1, 1), deflate, &[70000])).is_err());
    let mut turned = entries(1, 2, 8, 1);
    turned.push((Tag::Orientation.to_u16(), 3, vec![6]));
    let image = decode_image(&strips(turned, &[5, 9], 1, 2)).unwrap();
    assert_eq!((image.width, image.height, image.pixels[0]), (2, 1, 9));
}

fn gif(frame: ::gif::Frame, width: u16, height: u16, frames: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = ::gif::Encoder::new(&mut bytes, width, height, &[9, 8, 7, 50, 60, 70, 1, 2, 3, 4, 5, 6]).unwrap();
    encoder.write_frame(&frame).unwrap();
    for _ in 1..frames {
        encoder.write_frame(&::gif::Frame::from_indexed_pixels(1, 1, vec![0], None)).unwrap();
    }
    drop(encoder);
    bytes
}

#[test]
fn the_first_frame_of_a_gif_is_read() {
    let frame = ::gif::Frame::from_indexed_pixels(3, 2, vec![0, 1, 2, 3, 1, 0], None);
    let several = gif(frame.clone(), 3, 2, 2);
    assert!(decode_mask(&several).unwrap_err().to_string().contains("several pages"));
    assert!(image(Cursor::new(&several), None).unwrap().more);
    assert_eq!(decode_image(&several).unwrap().pixels[..6], [9, 8, 7, 50, 60, 70]);
    let bytes = gif(frame, 3, 2, 1);
    assert!(!image(Cursor::new(&bytes), None).unwrap().more);
    assert_eq!(numbers(&bytes), [0, 1, 2, 3, 1, 0]);
    assert_eq!(decode_mask(&bytes).unwrap().palette().unwrap()[1], [50, 60, 70]);
    assert_eq!(decode_image(&bytes).unwrap().pixels[..6], [9, 8, 7, 50, 60, 70]);
    let mut part = ::gif::Frame::from_indexed_pixels(2, 1, vec![1, 2], None);
    (part.left, part.top) = (2, 1);
    let bytes = gif(part, 3, 2, 1);
    assert!(decode_mask(&bytes).unwrap_err().to_string().contains("part of the picture"));
    let image = decode_image(&bytes).unwrap();
    assert_eq!((image.width, image.height, &image.pixels[15..]), (3, 2, &[50, 60, 70][..]));
    for cut in [5, 20, bytes.len() / 2] {
        assert!(decode_image(&bytes[..cut]).is_err(), "{cut}");
    }
}

/// Greys whose 0 is white are given as they look, in every depth, and the mask says so.
#[test]
fn greys_whose_zero_is_white_look_as_they_should() {
    for (bits, data, expected) in
        [(8, vec![0, 255, 254, 1], [255, 0, 1, 254]), (1, vec![0b0100_0000, 0b1000_0000], [1, 0, 0, 1])]
    {
        let bytes = strips(entries(2, 2, bits, 0), &data, 1, 2);
        assert_eq!(numbers(&bytes), expected, "{bits}");
        assert!(decode_mask(&bytes).unwrap().stored().white_is_zero);
        let plain = strips(entries(2, 2, bits, 1), &data, 1, 2);
        assert!(!decode_mask(&plain).unwrap().stored().white_is_zero);
        let seen = decode_image(&bytes).unwrap().pixels[0];
        assert_eq!(seen, 255, "the first is white");
    }
}

#[test]
fn transparent_pixels_of_images_are_noticed() {
    use ::image::{ImageFormat, RgbaImage};
    let written = |format: ImageFormat, picture: &RgbaImage| {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    };
    for (alpha, transparent) in [(255, false), (254, true), (0, true)] {
        let picture = RgbaImage::from_fn(3, 2, |x, y| ::image::Rgba([9, 8, 7, if x + y == 3 { alpha } else { 255 }]));
        let files = [
            written(ImageFormat::Png, &picture),
            written(ImageFormat::WebP, &picture),
            tiff::<colortype::RGBA8>((3, 2), Compression::Lzw, picture.as_raw()),
        ];
        for bytes in files {
            let decoded = image(Cursor::new(&bytes), None).unwrap();
            assert_eq!((decoded.transparent, &decoded.image.pixels[15..]), (transparent, &[9, 8, 7][..]), "{alpha}");
        }
    }
}

/// A header of many pixels on a file of some bytes.
#[test]
fn a_bmp_that_claims_more_than_it_holds_is_refused_at_once() {
    use ::image::ExtendedColorType::L8;
    use ::image::codecs::bmp::BmpEncoder;
    let mut bytes = Vec::new();
    BmpEncoder::new(&mut bytes).encode_with_palette(&[0, 1, 2, 3, 3, 0], 3, 2, L8, Some(&[[0; 3]; 4])).unwrap();
    assert_eq!(numbers(&bytes), [0, 1, 2, 3, 3, 0]);
    for height in [1i32 << 15, -(1 << 15)] {
        bytes[22..26].copy_from_slice(&height.to_le_bytes());
        let errors = [decode_mask(&bytes).unwrap_err(), decode_image(&bytes).unwrap_err()];
        for error in errors {
            assert!(error.to_string().contains("too few bytes") && error.hint().is_some(), "{error}");
        }
    }
}

#[test]
fn bmp_keeps_places_in_its_palette() {
    use ::image::ExtendedColorType::{L8, Rgb8};
    use ::image::codecs::bmp::BmpEncoder;
    let mut bytes = Vec::new();
    let palette: Vec<[u8; 3]> = (0..4).map(|i| [i * 10, i * 20, i * 30]).collect();
    BmpEncoder::new(&mut bytes).encode_with_palette(&[0, 1, 2, 3, 3, 0], 3, 2, L8, Some(&palette)).unwrap();
    assert_eq!(numbers(&bytes), [0, 1, 2, 3, 3, 0]);
    assert_eq!(decode_mask(&bytes).unwrap().palette().unwrap()[3], [30, 60, 90]);
    assert_eq!(decode_image(&bytes).unwrap().pixels[3..6], [10, 20, 30]);
    let mut bytes = Vec::new();
    BmpEncoder::new(&mut bytes).encode(&[1, 2, 3, 4, 5, 6], 2, 1, Rgb8).unwrap();
    assert_eq!(decode_image(&bytes).unwrap().pixels, [1, 2, 3, 4, 5, 6]);
    assert!(matches!(decode_mask(&bytes).unwrap(), RawMask::Rgb { values, .. } if values == [[1, 2, 3], [4, 5, 6]]));
    assert!(decode_image(&bytes[..40]).is_err() && decode_mask(&bytes[..56]).is_err());
}

#[test]
fn webp_is_an_image_and_no_mask() {
    let mut bytes = Vec::new();
    let pixels = [1, 2, 3, 250, 5, 6];
    ::image::codecs::webp::WebPEncoder::new_lossless(&mut bytes)
        .encode(&pixels, 2, 1, ::image::ExtendedColorType::Rgb8)
        .unwrap();
    assert_eq!(decode_image(&bytes).unwrap().pixels, pixels);
    let error = decode_mask(&bytes).unwrap_err();
    assert!(error.to_string().contains(".npy") && error.hint().unwrap().contains("PNG"), "{error}");
    assert!(decode_image(&bytes[..bytes.len() - 6]).is_err());
}

fn npy(descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let text = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({shape}), }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.extend(data);
    bytes
}

#[test]
fn arrays_of_whole_numbers_are_masks() {
    assert_eq!(numbers(&npy("|u1", false, "2, 2", &[0, 7, 255, 1])), [0, 7, 255, 1]);
    assert_eq!(numbers(&npy("|b1", false, "1, 2", &[0, 1])), [0, 1]);
    assert_eq!(numbers(&npy("<i8", false, "1, 2", &[1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0])), [1, 258]);
    assert_eq!(numbers(&npy(">u2", false, "1, 2", &[1, 0, 0, 5])), [256, 5]);
    assert_eq!(numbers(&npy("<i4", true, "2, 1", &[3, 0, 0, 0, 4, 0, 0, 0])), [3, 4]);
    assert_eq!(numbers(&npy("|u1", true, "2, 3", &[1, 4, 2, 5, 3, 6])), [1, 2, 3, 4, 5, 6]);
    for shape in ["2, 2, 1", "1, 2, 2", "1, 2, 2, 1"] {
        assert_eq!(numbers(&npy("|u1", false, shape, &[0, 7, 255, 1])), [0, 7, 255, 1], "{shape}");
    }
    let fault = |bytes: &[u8]| {
        let error = decode_mask(bytes).unwrap_err();
        assert!(error.hint().is_some(), "{error}");
        error.to_string()
    };
    assert!(fault(&npy("<f4", false, "1, 1", &[0; 4])).contains("<f4"));
    assert!(fault(&npy("|i1", false, "1, 2", &[0, 255])).contains("column 1, row 0 holds -1"));
    assert!(fault(&npy("|u1", false, "4", &[0; 4])).contains("shape"));
    assert!(fault(&npy("|u1", false, "2, 2, 3", &[0; 12])).contains("shape"));
    assert!(fault(&npy("|u1", false, "2, 3", &[0; 5])).contains("cut short"));
    assert!(fault(&npy("|u1", false, "99999999, 99999999", &[0; 5])).contains("limit"));
    assert!(decode_image(&npy("|u1", false, "1, 1", &[0])).is_err());
}

fn png_chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let sum = crc32fast::hash(&[kind.as_slice(), data].concat());
    [&(data.len() as u32).to_be_bytes()[..], kind, data, &sum.to_be_bytes()].concat()
}

/// A PNG of 8-bit indices with these chunks between header and pixels.
fn indexed_png(between: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut bytes, 2, 1);
    encoder.set_color(::png::ColorType::Indexed);
    encoder.set_palette(vec![1, 2, 3, 4, 5, 6]);
    encoder.write_header().unwrap().write_image_data(&[0, 1]).unwrap();
    let palette = bytes.windows(4).position(|w| w == b"PLTE").unwrap() - 4;
    [&bytes[..palette], &between.concat(), &bytes[palette + 18..]].concat()
}

#[test]
fn palettes_that_are_none_are_refused() {
    let sound = indexed_png(&[png_chunk(b"PLTE", &[9; 6])]);
    assert_eq!(decode_image(&sound).unwrap().pixels, [9; 6]);
    for length in [4, 5, 7, 767] {
        let bytes = indexed_png(&[png_chunk(b"PLTE", &vec![9; length])]);
        for error in [decode_image(&bytes).err().unwrap(), decode_mask(&bytes).err().unwrap()] {
            assert!(error.to_string().contains("multiple of three") && error.hint().is_some(), "{error}");
        }
    }
    assert!(decode_image(&indexed_png(&[])).is_err());
    // An index beyond the palette is black, as everywhere.
    let short = indexed_png(&[png_chunk(b"PLTE", &[9; 3])]);
    assert_eq!(decode_image(&short).unwrap().pixels, [9, 9, 9, 0, 0, 0]);
}

#[test]
fn chunks_that_inflate_are_left_as_they_are() {
    use ::image::ImageEncoder;
    // 64 MB of zeros deflate to 64 KB; the stream is taken from a picture of zeros.
    let mut zeros = Vec::new();
    ::image::codecs::png::PngEncoder::new_with_quality(
        &mut zeros,
        ::image::codecs::png::CompressionType::Best,
        ::image::codecs::png::FilterType::NoFilter,
    )
    .write_image(&vec![0; 1 << 24], 1 << 12, 1 << 12, ::image::ExtendedColorType::L8)
    .unwrap();
    let at = zeros.windows(4).position(|w| w == b"IDAT").unwrap();
    let length = u32::from_be_bytes(zeros[at - 4..at].try_into().unwrap()) as usize;
    let stream = &zeros[at + 4..][..length];
    let palette = png_chunk(b"PLTE", &[9; 6]);
    let profile = png_chunk(b"iCCP", &[b"x\0\0", stream].concat());
    let text = png_chunk(b"zTXt", &[b"x\0\0", stream].concat());
    let international = png_chunk(b"iTXt", &[b"x\0\x01\0\0\0", stream].concat());
    for chunk in [profile, text, international] {
        let bytes = indexed_png(&[chunk, palette.clone()]);
        assert_eq!(decode_image(&bytes).unwrap().pixels, [9; 6]);
        assert_eq!(numbers(&bytes), [0, 1]);
    }
    // EXIF is read, up to a size.
    let bytes = indexed_png(&[png_chunk(b"eXIf", &vec![0; 20 << 20]), palette]);
    assert!(decode_image(&bytes).map_or_else(|error| error.to_string().contains("limit"), |image| image.width == 2));
}

#[test]
fn interlaced_rows_find_their_places() {
    // Every pixel at every place of a tile of 8 x 8 and beyond it, sizes with empty passes too: by comparison with the
    // decoder's own putting together.
    for (width, height) in [(1u32, 1u32), (3, 2), (4, 5), (8, 8), (13, 11), (1, 9), (9, 1)] {
        let passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)];
        let passes = passes.into_iter().map(|(x, y, dx, dy)| {
            let columns: Vec<u32> = (x..width).step_by(dx).collect();
            if columns.is_empty() {
                Vec::new()
            } else {
                (y..height)
                    .step_by(dy)
                    .flat_map(|row| {
                        let values = columns.iter().map(move |column| (column * 16 + row) as u8);
                        std::iter::once(0).chain(values).collect::<Vec<u8>>()
                    })
                    .collect()
            }
        });
        let raw: Vec<u8> = passes.flatten().collect();
        // Stored, not deflated.
        let mut stream = vec![0x78, 0x01, 1];
        stream.extend((raw.len() as u16).to_le_bytes());
        stream.extend((!(raw.len() as u16)).to_le_bytes());
        stream.extend(&raw);
        let (a, b) =
            raw.iter().fold((1u32, 0u32), |(a, b), v| ((a + u32::from(*v)) % 65521, (a + u32::from(*v) + b) % 65521));
        stream.extend((b << 16 | a).to_be_bytes());
        let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 0, 0, 0, 1]].concat();
        let bytes = [
            b"\x89PNG\r\n\x1a\n".to_vec(),
            png_chunk(b"IHDR", &header),
            png_chunk(b"IDAT", &stream),
            png_chunk(b"IEND", &[]),
        ];
        let bytes = bytes.concat();
        let expected: Vec<u16> = (0..width * height).map(|i| u16::from((i % width * 16 + i / width) as u8)).collect();
        assert_eq!(numbers(&bytes), expected, "{width} x {height}");
        let own = ::image::load_from_memory(&bytes).unwrap().into_rgb8().into_raw();
        assert_eq!(decode_image(&bytes).unwrap().pixels, own, "{width} x {height}");
    }
}
