//! Images of which each has several masks, and files that are not used.

use super::*;

const JOIN: &str = r#"
[join]
rest = "ground"
masks = [{ file = "{stem}_road.png", class = "road" }, { file = "{stem}_car.png", class = "car" }]
"#;

/// A mask for each class but the ground.
fn per_class() -> Set {
    let set = Set::good();
    set.each_mask(|set, name| {
        std::fs::remove_file(set.path(name)).unwrap();
        for (class, end) in [(1, "_road.png"), (2, "_car.png")] {
            set.mask(&name.replace(".png", end), SIZE, |x, y| 255 * u8::from(label(x, y) == class));
        }
    });
    set
}

#[test]
fn a_mask_for_each_class() {
    let set = per_class();
    set.lab.write("set.toml", format!("{TOML}{JOIN}"));
    let report = set.check();
    assert!(report.ok && report.faults.iter().all(|fault| fault.code == "identical-masks"), "{}", report.text());
    set.labels_are(label);
    assert!(report.splits[0].mask_formats.contains_key("joined 8-bit grey PNG"), "{:?}", report.splits[0].mask_formats);
    // All of them are the sample's files, by whose bytes a resumed run knows its data.
    let train = DatasetSpec::read(&set.path("set.toml")).unwrap().open(Split::Train, None).unwrap();
    let names =
        train.files(0).iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_string()).collect::<Vec<_>>();
    assert_eq!(names, ["0.png", "0_road.png", "0_car.png"]);
    // A class that an image does not show needs no file; an image without any does.
    std::fs::remove_file(set.path("train/masks/0_car.png")).unwrap();
    assert!(set.check().ok);
    std::fs::remove_file(set.path("train/masks/0_road.png")).unwrap();
    let fault = set.finds(Severity::Fault, "mask-missing", "train/images/0.png");
    assert!(fault.cause.unwrap().contains("{stem}_road.png"));
    // Without [join], the other masks are named.
    let set = per_class();
    set.toml("masks = \"train/masks\"", "masks = \"train/masks\"\nmask_suffix = \"_car.png\"");
    let fault = set.finds(Severity::Warning, "masks-not-used", "train/masks/0_road.png");
    assert!(fault.count == 4 && fault.remedy.contains("[join]"), "{fault:?}");
}

#[test]
fn overlaps_are_counted_and_ruled() {
    let set = per_class();
    set.mask("train/masks/1_road.png", SIZE, |x, y| u8::from(label(x, y) == 1 || (x == 30 && y < 5)));
    for (overlap, at) in [("later", 2), ("earlier", 1), ("ignore", 255)] {
        set.lab.write("set.toml", format!("{TOML}{JOIN}overlap = '{overlap}'"));
        let fault = set.finds(Severity::Warning, "masks-overlap", "train/images/1.png");
        assert_eq!((fault.count, fault.examples[0].at), (1, Some([30, 0])));
        assert!(fault.examples[0].note.as_ref().unwrap().contains("5 pixels"), "{fault:?}");
        let spec = DatasetSpec::read(&set.path("set.toml")).unwrap();
        assert_eq!(spec.open(Split::Train, None).unwrap().get(1).unwrap().labels.ids[30], at);
    }
    // What cannot be joined is named with its file.
    set.mask("train/masks/2_road.png", (8, 8), |_, _| 0);
    set.finds(Severity::Fault, "join-failed", "train/masks/2_road.png");
    set.mask("train/masks/2_road.png", SIZE, |x, _| x as u8);
    let remedy = set.finds(Severity::Fault, "join-failed", "train/masks/2_road.png").remedy;
    for threshold in ["threshold = 128", "threshold = 1"] {
        assert!(remedy.contains(threshold), "{remedy}");
        set.lab.write("set.toml", format!("{TOML}{JOIN}{threshold}"));
        assert!(set.check().ok, "{}", set.check().text());
    }
    set.lab.write("set.toml", format!("{TOML}{JOIN}"));
    set.lab.write("train/masks/2_car.png", "");
    set.mask("train/masks/2_road.png", SIZE, |_, _| 0);
    set.finds(Severity::Fault, "empty-file", "train/masks/2_car.png");
}

#[test]
fn init_recognises_them() {
    let set = per_class();
    std::fs::remove_file(set.path("set.toml")).unwrap();
    let talk = String::from_utf8(set.lab.run(&["init", ".", "--out", "set.toml"]).stderr).unwrap();
    assert!(talk.contains("several masks"), "{talk}");
    assert!(set.check().ok, "{}", set.check().text());
    // Sorted by name: car before road.
    set.labels_are(|x, y| [0, 2, 1][usize::from(label(x, y))]);
    assert!(set.lab.ok(&["data", "check", "."]).contains("no faults"));
    // Several pictures of the same labels are not classes.
    let set = per_class();
    set.each_mask(|set, name| set.mask(&name.replace(".png", "_car.png"), SIZE, label));
    std::fs::remove_file(set.path("set.toml")).unwrap();
    let talk = String::from_utf8(set.lab.run(&["init", ".", "--out", "set.toml"]).stderr).unwrap();
    assert!(!talk.contains("several masks") && talk.contains("not used: pictures among the masks"), "{talk}");
}

#[test]
fn what_is_left_out_is_named_everywhere() {
    let set = Set::good();
    std::fs::remove_file(set.path("train/masks/1.png")).unwrap();
    set.picture("train/images/9.bmp.png", SIZE, 9);
    set.mask("train/masks/9.bmp.png", SIZE, label);
    set.lab.write("train/images/7.xyz.dcm", "DICM");
    set.toml("masks = \"train/masks\"", "masks = \"train/masks\"\nlist = \"train.txt\"");
    set.lab.write("train.txt", "0\n2\n3\n");
    let report = set.check();
    assert!(report.ok, "{}", report.text());
    let of = |what: &str| {
        let fault = report.faults.iter().find(|fault| fault.what.starts_with(what));
        fault.unwrap_or_else(|| panic!("{}", report.text())).examples[0].file.clone()
    };
    assert_eq!(of("images without a mask that no `list`"), Path::new("train/images/1.png"));
    assert_eq!(of("images with a mask that no `list`"), Path::new("train/images/9.bmp.png"));
    assert_eq!(of("pictures among the images that are not read: .dcm"), Path::new("train/images/7.xyz.dcm"));
    // At the start of training too, before anything can go wrong.
    let recipe = "[data]\ndataset = 'set.toml'\n[data.augment]\ncrop = [32, 32]\n[model.backbone]\ntype = 'vit'\nsize = 'tiny'\nimg_size = [32, 32]\n[train]\niterations = 1\nbatch_size = 1\n";
    set.lab.write("recipe.toml", recipe);
    let output = set.lab.run(&["train", "recipe.toml", "--out", "run", "--device", "cpu"]);
    let talk = String::from_utf8(output.stderr).unwrap();
    for part in ["images without a mask", "9.bmp.png", "7.xyz.dcm"] {
        assert!(talk.contains(" (1): ") && talk.contains(part), "{part}: {talk}");
    }
}

#[cfg(unix)]
#[test]
fn folders_without_end_are_refused() {
    let set = Set::good();
    // A tree that is deeper than any set, in place of the images.
    let deep = format!("tower/{}0.png", "d/".repeat(30));
    set.picture(&deep, SIZE, 3);
    set.toml("images = \"train/images\"", "images = \"tower\"");
    let fault = set.finds(Severity::Fault, "unreadable-folder", "");
    assert!(fault.examples[0].note.as_ref().unwrap().contains("16 folders deep"), "{fault:?}");
    // Two that lead into each other.
    let set = Set::good();
    for (from, to) in [("a", "b"), ("b", "a")] {
        std::fs::create_dir_all(set.path("train/images").join(from)).unwrap();
        std::os::unix::fs::symlink(set.path("train/images").join(to), set.path("train/images").join(from).join("on"))
            .unwrap();
    }
    assert_eq!(set.finds(Severity::Warning, "link-loop", "").count, 2);
    // What is not a file is not waited for.
    let set = Set::good();
    let pipe = set.path("train/images/pipe.png");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    set.finds(Severity::Warning, "not-a-file", "train/images/pipe.png");
    set.toml("images = \"train/images\"", "images = \"/proc\"");
    set.check();
}
