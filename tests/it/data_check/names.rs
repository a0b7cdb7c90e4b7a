//! Files that are not there, or are called otherwise.

use super::*;

#[test]
fn masks_under_other_names() {
    for (from, to) in [(".png", "_mask.png"), (".png", ".PNG"), (".png", "_gtFine_labelIds.png")] {
        let set = Set::good();
        set.each_mask(|set, name| std::fs::rename(set.path(name), set.path(&name.replace(from, to))).unwrap());
        let fault = set.finds(Severity::Fault, "mask-name", "train/images/0.png");
        assert!(fault.toml.as_ref().unwrap().contains(to), "{fault:?}");
        // One split at a time: each has its own lines.
        let other = fault.toml.as_ref().unwrap().replace("[train]", "[val]");
        let mut both = fault.clone();
        both.toml = Some(format!("{}\n{}", fault.toml.as_ref().unwrap(), other));
        set.remedied(&both);
    }
}

#[test]
fn a_mask_or_an_image_that_is_missing() {
    let set = Set::good();
    std::fs::remove_file(set.path("train/masks/2.png")).unwrap();
    let fault = set.finds(Severity::Fault, "mask-missing", "train/images/2.png");
    assert!(fault.count == 1 && fault.examples[0].note.as_ref().unwrap().contains("masks/2.png"));
    let set = Set::good();
    std::fs::remove_file(set.path("val/images/1.png")).unwrap();
    assert_eq!(set.finds(Severity::Warning, "image-missing", "val/masks/1.png").count, 1);
    // Names that differ in their letters, or at their beginning.
    let set = Set::good();
    std::fs::rename(set.path("train/images/3.png"), set.path("train/images/IMG_3.png")).unwrap();
    std::fs::rename(set.path("train/masks/3.png"), set.path("train/masks/img_3.png")).unwrap();
    assert!(set.finds(Severity::Fault, "mask-name", "train/images/IMG_3.png").cause.unwrap().contains("capital"));
    let set = Set::good();
    for at in 0..4 {
        std::fs::rename(set.path(&format!("train/images/{at}.png")), set.path(&format!("train/images/img_{at}.png")))
            .unwrap();
        std::fs::rename(set.path(&format!("train/masks/{at}.png")), set.path(&format!("train/masks/label_{at}.png")))
            .unwrap();
    }
    let fault = set.finds(Severity::Fault, "mask-name", "train/images/img_0.png");
    let command = fault.remedy.strip_prefix("run: ").unwrap();
    assert!(std::process::Command::new("bash").args(["-c", command]).status().unwrap().success(), "{command}");
    assert!(set.check().ok, "{}", set.check().text());
}

#[test]
fn the_same_picture_twice() {
    let set = Set::good();
    std::fs::copy(set.path("train/images/1.png"), set.path("val/images/2.png")).unwrap();
    let fault = set.finds(Severity::Fault, "leak", "val/images/2.png");
    assert!(fault.examples[0].note.as_ref().unwrap().contains("train/images/1.png"), "{fault:?}");
    let set = Set::good();
    for folder in ["images", "masks"] {
        std::fs::copy(set.path(&format!("train/{folder}/1.png")), set.path(&format!("train/{folder}/0.png"))).unwrap();
    }
    set.finds(Severity::Warning, "duplicate", "train/images/1.png");
    assert_eq!(set.check().splits[0].duplicates, 1);
    set.mask("train/masks/0.png", SIZE, |x, y| 2 - label(x, y));
    set.finds(Severity::Warning, "contradiction", "train/images/1.png");
}

#[test]
fn two_images_for_one_mask() {
    let set = Set::good();
    set.picture("train/images/0.jpg", SIZE, 50);
    let fault = set.finds(Severity::Fault, "same-stem", "train/images/0.jpg");
    assert!(fault.examples[0].note.as_ref().unwrap().contains("0.png") && fault.remedy.contains("image_suffix"));
}

#[test]
fn lists_that_do_not_fit() {
    let set = Set::good();
    set.toml("masks = \"train/masks\"", "masks = \"train/masks\"\nlist = \"train.txt\"");
    let fault = set.finds(Severity::Fault, "unreadable-list", "train.txt");
    assert!(fault.remedy.contains("one image name per line"));
    set.lab.write("train.txt", "0\n1\n9\n1\n");
    let fault = set.finds(Severity::Fault, "not-there", "train.txt");
    assert!(fault.examples[0].note.as_ref().unwrap().contains("line 3"), "{fault:?}");
    let fault = set.finds(Severity::Fault, "listed-twice", "train.txt");
    assert!(fault.examples[0].note.as_ref().unwrap().contains("line 4"), "{fault:?}");
    set.lab.write("train.txt", "\n\n");
    set.finds(Severity::Fault, "empty-split", "train.txt");
}

#[test]
fn folders_that_are_empty_or_not_there() {
    let set = Set::good();
    set.toml("images = \"val/images\"", "images = \"none\"");
    let fault = set.finds(Severity::Fault, "unreadable-folder", "none");
    assert!(fault.remedy.contains("root"), "{fault:?}");
    std::fs::create_dir(set.path("none")).unwrap();
    assert!(set.finds(Severity::Fault, "empty-split", "none").what.contains("[val]"));
}

#[cfg(all(unix, not(target_vendor = "apple")))]
#[test]
fn links_and_names_that_cannot_be_followed() {
    use std::os::unix::ffi::OsStrExt;
    let set = Set::good();
    std::os::unix::fs::symlink(".", set.path("train/images/again")).unwrap();
    set.finds(Severity::Warning, "link-loop", "train/images/again");
    std::fs::write(set.path("train/images").join(std::ffi::OsStr::from_bytes(b"\xff.png")), b"").unwrap();
    assert_eq!(set.finds(Severity::Warning, "name-not-utf8", "").count, 1);
    for folder in ["images", "masks"] {
        std::fs::rename(set.path(&format!("train/{folder}/0.png")), set.path(&format!("train/{folder}/0 .png")))
            .unwrap();
    }
    set.finds(Severity::Warning, "name-with-space", "train/images/0 .png");
    std::os::unix::fs::symlink("nowhere", set.path("train/images/8.png")).unwrap();
    set.mask("train/masks/8.png", SIZE, label);
    assert_eq!(set.finds(Severity::Fault, "unreadable-file", "train/images/8.png").count, 1);
}

#[test]
fn names_that_say_another_format() {
    let set = Set::good();
    std::fs::rename(set.path("train/images/1.png"), set.path("train/images/1.jpg")).unwrap();
    assert!(set.finds(Severity::Warning, "wrong-ending", "train/images/1.jpg").what.contains("PNG"));
    let set = Set::good();
    std::fs::write(set.path("train/images/5.heic"), b"ftyp").unwrap();
    assert!(set.finds(Severity::Warning, "not-read", "train/images/5.heic").remedy.contains("convert"));
    // An ending that is asked for is asked for exactly.
    let set = Set::good();
    set.toml("masks = \"train/masks\"", "masks = \"train/masks\"\nimage_suffix = \".png\"");
    set.picture("train/images/6.PNG", SIZE, 77);
    set.finds(Severity::Warning, "not-read", "train/images/6.PNG");
}
