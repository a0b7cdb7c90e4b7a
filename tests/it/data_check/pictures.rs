//! Files that are not sound pictures, or not of one size.

use super::*;
use crate::bad_input::crc32;

#[test]
fn sizes_that_differ() {
    let (w, h) = SIZE;
    for (size, code, say) in [
        ((h, w), "swapped-size", "90 degrees"),
        ((w / 2, h / 2), "scaled-mask", "smooth"),
        ((w, h - 1), "size-mismatch", "another image"),
    ] {
        let set = Set::good();
        set.mask("train/masks/1.png", size, |_, _| 0);
        let fault = set.finds(Severity::Fault, code, "train/masks/1.png");
        let note = fault.examples[0].note.clone().unwrap();
        assert!(note.contains("image 40x32") && note.contains(&format!("{}x{}", size.0, size.1)), "{note}");
        assert!(fault.remedy.contains(say), "{fault:?}");
    }
}

/// A JPEG that EXIF asks to turn by this code.
fn turned(code: u8) -> Vec<u8> {
    let mut jpeg = Vec::new();
    let picture = RgbImage::from_fn(SIZE.0, SIZE.1, |x, y| Rgb([x as u8, y as u8, code]));
    image::codecs::jpeg::JpegEncoder::new(&mut jpeg).encode_image(&picture).unwrap();
    let tiff = [b"II*\0".as_slice(), &[8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, code, 0, 0, 0, 0, 0, 0, 0]];
    let exif = [b"Exif\0\0".as_slice(), &tiff.concat()].concat();
    [&[0xff, 0xd8, 0xff, 0xe1, 0, exif.len() as u8 + 2], &exif[..], &jpeg[2..]].concat()
}

#[test]
fn images_that_exif_turns() {
    let set = Set::good();
    std::fs::remove_file(set.path("train/images/0.png")).unwrap();
    set.lab.write("train/images/0.jpg", turned(6));
    let fault = set.finds(Severity::Fault, "exif-mismatch", "train/masks/0.png");
    assert!(fault.remedy.contains("EXIF") && fault.examples[0].note.as_ref().unwrap().contains("image 32x40"));
    // A half turn does not show in the size.
    set.lab.write("train/images/0.jpg", turned(3));
    set.finds(Severity::Warning, "exif", "train/images/0.jpg");
    assert_eq!(set.check().splits[0].turned, 1);
}

#[test]
fn masks_saved_as_jpeg() {
    let set = Set::good();
    for at in 0..4 {
        std::fs::remove_file(set.path(&format!("train/masks/{at}.png"))).unwrap();
        set.mask(&format!("train/masks/{at}.jpg"), SIZE, label);
    }
    set.toml("masks = \"train/masks\"", "masks = \"train/masks\"\nmask_suffix = \".jpg\"");
    let fault = set.finds(Severity::Fault, "jpeg-mask", "train/masks/0.jpg");
    assert!(fault.count == 4 && fault.remedy.contains("PNG"), "{fault:?}");
}

#[test]
fn files_that_are_no_pictures() {
    let png = {
        let set = Set::good();
        std::fs::read(set.path("train/images/0.png")).unwrap()
    };
    let huge = {
        // A header of 60000x60000 with a right checksum and nothing behind it.
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\xea\x60\0\0\xea\x60\x08\x02\0\0\0".to_vec();
        bytes.extend(crc32(&bytes[12..]).to_be_bytes());
        [bytes.as_slice(), b"\0\0\0\0IDAT\x35\xaf\x06\x1e"].concat()
    };
    let cases: [(&[u8], &str, &str); 6] = [
        (b"", "empty-file", "again"),
        (&png[..png.len() / 2], "damaged-file", "again"),
        (b"<html>404 not found</html>", "not-an-image", "again"),
        (b"qoif\0\0\0\x01\0\0\0\x01\x03\0", "other-format", "PNG"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "lfs-pointer", "git lfs pull"),
        (&huge, "too-large", "tiles"),
    ];
    for (bytes, code, say) in cases {
        for file in ["train/images/2.png", "val/masks/1.png"] {
            let set = Set::good();
            set.lab.write(file, bytes);
            let fault = set.finds(Severity::Fault, code, file);
            assert!(fault.remedy.contains(say), "{fault:?}");
        }
    }
    let set = Set::good();
    std::fs::remove_file(set.path("train/images/2.png")).unwrap();
    set.picture("train/images/2.jpg", SIZE, 9);
    let jpeg = std::fs::read(set.path("train/images/2.jpg")).unwrap();
    set.lab.write("train/images/2.jpg", &jpeg[..jpeg.len() - 40]);
    set.finds(Severity::Fault, "damaged-file", "train/images/2.jpg");
}

#[test]
fn transparent_masks_and_deep_colours() {
    let set = Set::good();
    let alpha = |x, y| image::LumaA([label(x, y), if x == 3 && y == 2 { 0 } else { 255 }]);
    image::GrayAlphaImage::from_fn(SIZE.0, SIZE.1, alpha).save(set.path("val/masks/2.png")).unwrap();
    let fault = set.finds(Severity::Warning, "transparent-mask", "val/masks/2.png");
    assert_eq!(fault.examples[0].at, Some([3, 2]));
    let deep = image::ImageBuffer::from_fn(SIZE.0, SIZE.1, |_, _| Rgb([1u16, 2, 3]));
    deep.save(set.path("val/masks/2.png")).unwrap();
    assert!(set.finds(Severity::Fault, "deep-colours", "val/masks/2.png").remedy.contains("8-bit"));
}
