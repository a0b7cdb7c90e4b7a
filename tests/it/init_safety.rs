//! `structtoken data init` on files that lead elsewhere, or that would be lost.

use std::collections::BTreeMap;
use std::path::Path;

use crate::cli::Lab;
use crate::data_init::{Described, SIZE, mask, picture};

/// All files below a folder with what is in them; hidden ones too.
fn snapshot(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => drop(files.insert(path.to_str().unwrap().to_string(), std::fs::read(&path).unwrap())),
            }
        }
    }
    files
}

fn coco(names: &[&str]) -> String {
    let images: Vec<_> =
        names.iter().enumerate().map(|(id, name)| serde_json::json!({"id": id, "file_name": name})).collect();
    let annotations: Vec<_> = (0..names.len())
        .map(|id| serde_json::json!({"id": 50 + id, "image_id": id, "category_id": 1, "segmentation": [[0, 0, 9, 0, 9, 9]]}))
        .collect();
    let categories = serde_json::json!([{"id": 1, "name": "leaf"}]);
    serde_json::json!({"images": images, "annotations": annotations, "categories": categories}).to_string()
}

fn talk(lab: &Lab, arguments: &[&str], parts: &[&str]) {
    let output = lab.run(arguments);
    let talk = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{talk}");
    parts.iter().for_each(|part| assert!(talk.contains(part), "`{part}` is not in\n{talk}"));
}

#[test]
fn names_of_images_never_lead_out_of_the_folder() {
    let lab = Lab::new();
    ["set/images/0.png", "set/images/1.png", "set/images/sub/2.png", "outside.png"]
        .iter()
        .for_each(|name| picture(&lab, name));
    let outside = lab.path("outside.png").to_str().unwrap().to_string();
    for (name, say) in [
        ("../images/1.png", "`..`"),
        ("sub/../../../outside.png", "`..`"),
        ("..\\images\\1.png", "`..`"),
        ("../../outside.png", "`..`"),
        (outside.as_str(), "outside"),
        ("/etc/hostname", "outside"),
        ("", "is not the name of an image below"),
    ] {
        lab.write("set/annotations/all.json", coco(&["0.png", name]));
        let before = snapshot(lab.dir.path());
        for more in [&[][..], &["--yes"]] {
            lab.refused(&[&["init", "set"][..], more].concat(), &["all.json", say]);
        }
        assert!(snapshot(lab.dir.path()) == before, "{name}");
    }
    // Of another machine: found by their file names, which is said.
    let names = ["C:\\data\\images\\0.png", "/home/somebody/set/1.png", "sub\\2.png"];
    lab.write("set/annotations/all.json", coco(&names));
    let images = snapshot(&lab.path("set/images"));
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.counts(), set.class("sub/2", 5, 1)), ((2, 1), "leaf".to_string()));
    assert!(snapshot(&lab.path("set/images")) == images);
    talk(&lab, &["init", "set", "--yes"], &["images were found by their file names alone", "somebody"]);

    // Lists of VOC, and folders of YOLO.
    let lab = Lab::new();
    picture(&lab, "set/JPEGImages/0.png");
    mask(&lab, "set/SegmentationClass/0.png", |_, _| 1);
    picture(&lab, "images/0.png");
    lab.write("set/ImageSets/Segmentation/train.txt", "../../images/0\n");
    lab.refused(&["init", "set"], &["line 1", "train.txt", "leads out"]);
    let lab = Lab::new();
    picture(&lab, "images/0.png");
    lab.write("labels/0.txt", "0 0 0 1 0 1 1\n");
    for train in ["../images".to_string(), lab.path("images").to_str().unwrap().to_string()] {
        lab.write("set/data.yaml", format!("train: {train}\nnames: [a]\n"));
        lab.refused(&["init", "set"], &["[train]", "outside"]);
    }
}

/// LabelMe writes where the image is as seen from the JSON file, by Windows' rules too.
#[test]
fn labelme_images_beside_and_elsewhere() {
    let shape = r#"{"label": "x", "points": [[0, 0], [9, 0], [9, 9]]}"#;
    let file = |image: &str| {
        serde_json::json!({"imagePath": image}).to_string().replace('}', &format!(", \"shapes\": [{shape}]}}"))
    };
    for (image, works) in [
        ("a.png", true),
        ("../images/a.png", true),
        ("..\\images\\a.png", true),
        ("C:\\Users\\me\\a.png", true),
        ("../../../a.png", true),
        ("../../outside.png", false),
        ("/etc/hostname", false),
    ] {
        let lab = Lab::new();
        ["set/images/a.png", "set/images/b.png", "outside.png"].iter().for_each(|name| picture(&lab, name));
        lab.write("set/labels/a.json", file(image));
        if works {
            assert_eq!(Described::by_init(&lab, &[]).class("images/a", 5, 1), "x", "{image}");
        } else {
            // Renamed together would be found; this is not.
            lab.refused(&["init", "set"], &["a.json"]);
        }
    }
}

/// What `init` did not write, or what was mended by hand, stays.
#[test]
fn only_what_init_made_is_replaced() {
    let lab = Lab::new();
    (0..4).for_each(|at| picture(&lab, &format!("set/images/{at}.png")));
    let names = ["0.png", "1.png", "2.png", "3.png"];
    lab.write("set/all.json", coco(&names));
    // A folder and a description of somebody else.
    for (path, text) in
        [("set/dataset-masks/0.png", "mine"), ("set/dataset.toml", "name = 'mine'"), ("set/dataset-val.txt", "0")]
    {
        lab.write(path, text);
        let before = snapshot(lab.dir.path());
        lab.refused(&["init", "set"], &["there already", "--out"]);
        lab.refused(&["init", "set", "--yes"], &["did not", "--out"]);
        assert!(snapshot(lab.dir.path()) == before);
        // The remedy works.
        lab.ok(&["init", "set", "--out", "elsewhere/other.toml"]);
        std::fs::remove_dir_all(lab.path("elsewhere")).unwrap();
        std::fs::remove_file(lab.path(path)).unwrap();
    }
    std::fs::remove_dir(lab.path("set/dataset-masks")).unwrap();
    lab.ok(&["init", "set"]);
    let first = snapshot(lab.dir.path());
    // Again, with a drawn mask fewer; and from the start.
    lab.write("set/all.json", coco(&names[..3]));
    lab.ok(&["init", "set", "--yes"]);
    assert!(!lab.path("set/dataset-masks/3.png").exists());
    lab.write("set/all.json", coco(&names));
    lab.ok(&["init", "set", "--yes"]);
    assert!(snapshot(lab.dir.path()) == first);
    // The description and a list, edited by hand.
    let text = std::fs::read_to_string(lab.path("set/dataset.toml")).unwrap();
    for (name, edited) in [
        ("set/dataset.toml", text.replacen("name = ", "name = \"mine\" # ", 1)),
        ("set/dataset.toml", format!("{text}# mine\n")),
        ("set/dataset-val.txt", "0\n".to_owned()),
    ] {
        let before = std::fs::read_to_string(lab.path(name)).unwrap();
        assert_ne!(before, edited);
        lab.write(name, edited);
        let mine = snapshot(lab.dir.path());
        lab.refused(&["init", "set", "--yes"], &[name, "did not write it as it is", "--out"]);
        assert!(snapshot(lab.dir.path()) == mine);
        lab.write(name, before);
    }
    // A mask mended by hand, and one added.
    for name in ["set/dataset-masks/1.png", "set/dataset-masks/more.png"] {
        let before = std::fs::read(lab.path(name)).ok();
        mask(&lab, name, |x, _| u8::from(x > 3));
        let mended = snapshot(lab.dir.path());
        lab.refused(&["init", "set", "--yes"], &[name, "as it is", "--out"]);
        assert!(snapshot(lab.dir.path()) == mended);
        match before {
            Some(bytes) => drop(lab.write(name, bytes)),
            None => std::fs::remove_file(lab.path(name)).unwrap(),
        }
    }
    // A link in place of the folder.
    #[cfg(unix)]
    {
        std::fs::remove_dir_all(lab.path("set/dataset-masks")).unwrap();
        std::os::unix::fs::symlink(lab.path("set/images"), lab.path("set/dataset-masks")).unwrap();
        let images = snapshot(&lab.path("set/images"));
        lab.refused(&["init", "set", "--yes"], &["dataset-masks", "link"]);
        assert!(snapshot(&lab.path("set/images")) == images);
    }
}

/// Whatever lies in the folder of masks, in plain sight or not, is the person's if `init` did not put it there.
#[test]
fn nothing_goes_with_the_folder_of_masks() {
    let lab = Lab::new();
    (0..3).for_each(|at| picture(&lab, &format!("set/images/{at}.png")));
    lab.write("set/all.json", coco(&["0.png", "1.png", "2.png"]));
    lab.ok(&["init", "set"]);
    let note = lab.path("set/dataset-masks/.drawn-by-init");
    let refused = || {
        let before = snapshot(lab.dir.path());
        lab.refused(&["init", "set", "--yes"], &["dataset-masks", "as it is", "move"]);
        assert!(snapshot(lab.dir.path()) == before);
    };
    let deep = format!("set/dataset-masks/{}x.png", "d/".repeat(20));
    for path in
        [".gitignore", ".notes.md", ".before/0.png", "old/0.png"].map(|name| format!("set/dataset-masks/{name}"))
    {
        lab.write(&path, "mine");
        refused();
        std::fs::remove_file(lab.path(&path)).unwrap();
        let folder = lab.path(&path).parent().unwrap().to_owned();
        if folder != lab.path("set/dataset-masks") {
            // An empty folder is somebody's too.
            refused();
            std::fs::remove_dir(folder).unwrap();
        }
    }
    lab.write(&deep, "mine");
    refused();
    std::fs::remove_dir_all(lab.path("set/dataset-masks/d")).unwrap();
    let text = std::fs::read_to_string(&note).unwrap();
    std::fs::write(&note, format!("{text}my remarks\n")).unwrap();
    refused();
    std::fs::write(&note, &text).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let odd = lab.path("set/dataset-masks").join(std::ffi::OsStr::from_bytes(b"\xe4ndern.png"));
        if std::fs::write(&odd, "mine").is_ok() {
            lab.refused(&["init", "set", "--yes"], &["dataset-masks", "as it is"]);
            std::fs::remove_file(&odd).unwrap();
        }
        let pipe = lab.path("set/dataset-masks/pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        lab.refused(&["init", "set", "--yes"], &["pipe", "as it is"]);
        std::fs::remove_file(&pipe).unwrap();
        // Links, although what they lead to is as it was written.
        for name in ["dataset.toml", "dataset-train.txt", "dataset-masks/0.png"] {
            let (path, moved) = (lab.path("set").join(name), lab.path("moved"));
            std::fs::rename(&path, &moved).unwrap();
            std::os::unix::fs::symlink(&moved, &path).unwrap();
            lab.refused(&["init", "set", "--yes"], &[name, "as it is"]);
            std::fs::rename(&moved, &path).unwrap();
        }
    }
    // What file managers leave is in nobody's way; the masks of another description are.
    lab.write("set/dataset-masks/.DS_Store", "x");
    lab.ok(&["init", "set", "--yes"]);
    lab.refused(&["init", "set", "--out", "set/dataset.v2", "--yes"], &["dataset-masks", "as it is"]);
    // An edited description keeps all that it names: what is to be moved away is said at once.
    let toml = std::fs::read_to_string(lab.path("set/dataset.toml")).unwrap();
    lab.write("set/dataset.toml", format!("{toml} "));
    let names = ["`set/dataset.toml`, `set/dataset-val.txt`, `set/dataset-train.txt`, `set/dataset-masks` away"];
    lab.refused(&["init", "set", "--yes"], &names);
    lab.write("set/dataset.toml", toml.replacen("{\"\":", "{\"note\":\"mine\",\"\":", 1));
    lab.refused(&["init", "set", "--yes"], &["as it is"]);
}

/// Files that cannot be read may hold anything.
#[cfg(unix)]
#[test]
fn what_cannot_be_read_stays() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::new();
    (0..3).for_each(|at| picture(&lab, &format!("set/images/{at}.png")));
    lab.write("set/all.json", coco(&["0.png", "1.png", "2.png"]));
    lab.ok(&["init", "set"]);
    let list = lab.path("set/dataset-train.txt");
    let whole = std::fs::read(&list).unwrap();
    // Larger than anything that is read, without a byte on the disk.
    std::fs::File::options().write(true).open(&list).unwrap().set_len(1100 << 20).unwrap();
    lab.refused(&["init", "set", "--yes"], &["dataset-train.txt", "as it is"]);
    assert_eq!(list.metadata().unwrap().len(), 1100 << 20);
    std::fs::write(&list, whole).unwrap();
    for name in ["set/dataset-train.txt", "set/dataset-masks", "set/dataset-masks/1.png"] {
        let (path, closed) = (lab.path(name), std::fs::Permissions::from_mode(0o000));
        let open = path.metadata().unwrap().permissions();
        std::fs::set_permissions(&path, closed).unwrap();
        let readable = std::fs::File::open(&path).is_ok();
        let output = lab.run(&["init", "set", "--yes"]);
        let hidden = std::fs::read_dir(lab.path("set"))
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
        assert_eq!(hidden.count(), 0, "{name}");
        if readable {
            // Root reads everything.
            println!("skipped: nothing is closed to this user");
            return;
        }
        assert_eq!(output.status.code(), Some(1), "{name}");
        std::fs::set_permissions(&path, open).unwrap();
    }
    lab.ok(&["init", "set", "--yes"]);
}

/// A process that is killed between two steps leaves what the next one knows as its own, whatever that one is to write.
#[test]
fn a_killed_init_is_gone_on_with() {
    let lab = Lab::new();
    (0..8).for_each(|at| picture(&lab, &format!("set/images/{at}.png")));
    let json = |count: usize| {
        let names: Vec<String> = (0..count).map(|at| format!("{at}.png")).collect();
        coco(&names.iter().map(String::as_str).collect::<Vec<_>>())
    };
    lab.write("set/all.json", json(4));
    lab.ok(&["init", "set"]);
    let old = snapshot(&lab.path("set"));
    lab.write("set/all.json", json(8));
    lab.ok(&["init", "set", "--yes"]);
    let (new, list) = (snapshot(&lab.path("set")), std::fs::read(lab.path("set/dataset-train.txt")).unwrap());
    let text = std::fs::read_to_string(lab.path("set/dataset.toml")).unwrap();
    let sums = text.rsplit_once("do not edit: ").unwrap().1.trim().to_owned();
    let masks = |state: &BTreeMap<String, Vec<u8>>| {
        std::fs::remove_dir_all(lab.path("set/dataset-masks")).unwrap();
        for (name, bytes) in state.iter().filter(|(name, _)| name.contains("dataset-masks")) {
            std::fs::create_dir_all(Path::new(name).parent().unwrap()).unwrap();
            std::fs::write(name, bytes).unwrap();
        }
    };
    let toml = lab.path("set/dataset.toml").to_str().unwrap().to_owned();
    for description in [Some(&old[&toml]), None] {
        for then in [8, 6] {
            masks(&new);
            lab.write("set/dataset-train.txt", &list);
            lab.write("set/.dataset.toml.being-written", &sums);
            match description {
                Some(bytes) => drop(lab.write("set/dataset.toml", bytes)),
                None => std::fs::remove_file(lab.path("set/dataset.toml")).unwrap(),
            }
            std::fs::remove_file(lab.path("set/dataset-val.txt")).ok();
            lab.write("set/all.json", json(then));
            lab.ok(&["init", "set", "--yes"]);
            assert!(!lab.path("set/.dataset.toml.being-written").exists());
            lab.ok(&["data", "check", "set/dataset.toml"]);
        }
    }
    lab.write("set/all.json", json(8));
    lab.ok(&["init", "set", "--yes"]);
    assert!(snapshot(&lab.path("set")) == new);
    // Lists that a description has no more go with it.
    lab.write("set/train.json", json(4));
    lab.write("set/val.json", coco(&["4.png", "5.png"]));
    std::fs::remove_file(lab.path("set/all.json")).unwrap();
    lab.ok(&["init", "set", "--yes"]);
    ["set/train.json", "set/val.json"].iter().for_each(|name| std::fs::remove_file(lab.path(name)).unwrap());
    lab.write("set/all.json", json(8));
    lab.ok(&["init", "set", "--yes"]);
    assert!(snapshot(&lab.path("set")) == new);
}

/// What would be written can be read again, or it is not written.
#[cfg(unix)]
#[test]
fn names_that_files_cannot_hold_are_told() {
    let lab = Lab::new();
    for (folder, names) in
        [("blank", ["a 1", "b ", "c", "d"]), ("lead", ["a", " b", "c", "d"]), ("line", ["a\nb", "b", "c", "d"])]
    {
        let names = names.map(|name| format!("{name}.png"));
        names.iter().for_each(|name| picture(&lab, &format!("{folder}/images/{name}")));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        lab.write(&format!("{folder}/all.json"), coco(&names).replace("a\nb", "a\\nb"));
        lab.refused(&["init", folder], &["cannot stand in a list", "rename"]);
        assert!(!lab.path(folder).join("dataset.toml").exists());
    }
    // An image that is not there, by a name that no comment may hold; and a folder whose name a shell would read.
    let folder = "it's $HOME";
    (0..3).for_each(|at| picture(&lab, &format!("{folder}/images/{at}.png")));
    lab.write(&format!("{folder}/all.json"), coco(&["0.png", "1.png", "2.png", "e\\u001bs\\u007fc.png"]));
    let talk = lab.refused(&["data", "check", folder], &["run: structtoken data init"]);
    let command = talk.split("run: structtoken ").nth(1).unwrap().split(", which").next().unwrap().to_owned();
    let script = format!("{} {command}", env!("CARGO_BIN_EXE_structtoken"));
    let output = std::process::Command::new("bash").args(["-c", &script]).current_dir(lab.dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    lab.ok(&["data", "check", &format!("{folder}/dataset.toml")]);
}

/// A failure leaves what an earlier call wrote, and nothing beside it.
#[test]
fn a_failure_leaves_the_earlier_state() {
    let lab = Lab::new();
    (0..3).for_each(|at| picture(&lab, &format!("set/images/{at}.png")));
    lab.write("set/all.json", coco(&["0.png", "1.png", "2.png"]));
    lab.ok(&["init", "set"]);
    // The same name for two images.
    picture(&lab, "set/images/2.jpg");
    lab.write("set/all.json", coco(&["0.png", "1.png", "2.png", "2.jpg"]));
    let before = snapshot(lab.dir.path());
    lab.refused(&["init", "set", "--yes"], &["two images", "`2`"]);
    assert!(snapshot(lab.dir.path()) == before);
    // A list that cannot be written: the masks are there already by then.
    std::fs::remove_file(lab.path("set/images/2.jpg")).unwrap();
    lab.write("set/all.json", coco(&["0.png", "1.png"]));
    std::fs::remove_file(lab.path("set/dataset-val.txt")).unwrap();
    lab.write("set/dataset-val.txt/x", "a folder");
    let before = snapshot(lab.dir.path());
    lab.refused(&["init", "set", "--yes"], &["dataset-val.txt"]);
    assert!(snapshot(lab.dir.path()) == before);
}

/// Several at once: each ends, and what is there is of one of them.
#[test]
fn several_at_once_leave_one_whole() {
    let lab = Lab::new();
    (0..6).for_each(|at| picture(&lab, &format!("set/images/{at}.png")));
    lab.write("set/all.json", coco(&["0.png", "1.png", "2.png", "3.png", "4.png", "5.png"]));
    lab.ok(&["init", "set"]);
    let expected = snapshot(lab.dir.path());
    let mut running: Vec<_> = (0..6).map(|_| lab.command(&["init", "set", "--yes"]).spawn().unwrap()).collect();
    running.iter_mut().for_each(|one| assert!(one.wait().unwrap().success()));
    assert!(snapshot(lab.dir.path()) == expected);
}

/// Lists are not objects: an export of two or three tasks is no LabelMe and no COCO.
#[test]
fn lists_of_two_and_three_are_no_other_form() {
    for tasks in 1..=4 {
        let lab = Lab::new();
        let mut export = Vec::new();
        for task in 1..=tasks {
            picture(&lab, &format!("set/images/{task}.jpg"));
            mask(&lab, &format!("set/task-{task}-annotation-1-by-1-tag-cat-0.png"), |x, _| u8::from(x < 9) * 255);
            export.push(serde_json::json!({"id": task, "data": {"image": format!("{task}.jpg")}}));
        }
        lab.write("set/project.json", serde_json::Value::from(export).to_string());
        assert_eq!(Described::by_init(&lab, &[]).class("images/1", 3, 3), "cat", "{tasks}");
    }
}

/// One bad annotation is named with its image, and the others are used.
#[test]
fn absurd_values_cost_their_own_image() {
    let (w, h) = SIZE;
    let runs = |counts: serde_json::Value| serde_json::json!({"size": [h, w], "counts": counts});
    let cases: Vec<(serde_json::Value, &str)> = vec![
        (runs(serde_json::json!([1u64 << 62, 1u64 << 62, 1u64 << 62, 1u64 << 62])), "counts"),
        (runs(serde_json::json!([5])), "counts"),
        (runs(serde_json::json!("PPPPPPPPPPPPPPPPPPPP")), "counts"),
        (runs(serde_json::json!("oooooooo0oooooooo0")), "counts"),
        (runs(serde_json::json!([-1, 5])), "run lengths"),
        (serde_json::json!({"counts": [w * h]}), "size"),
        (serde_json::json!({"size": [h], "counts": [w * h]}), "size"),
        (serde_json::json!({"size": [w, h], "counts": [w * h]}), "32x40"),
        (serde_json::json!({"size": [1u64 << 63, 2], "counts": [0]}), "counts"),
        (
            serde_json::json!({"size": [4_000_000_000u64, 4_000_000_000u64], "counts": [0, 16_000_000_000_000_000_000u64]}),
            "counts",
        ),
        (serde_json::json!([[0, 0, 1e30, 0, 5, 5]]), "1e30"),
        (serde_json::json!("none"), "segmentation"),
        (serde_json::json!([[h, w], "52a0"]), "segmentation"),
    ];
    for (segmentation, say) in cases {
        let lab = Lab::new();
        ["0.png", "1.png", "2.png"].iter().for_each(|name| picture(&lab, &format!("set/{name}")));
        let mut file: serde_json::Value = serde_json::from_str(&coco(&["0.png", "1.png", "2.png"])).unwrap();
        file["annotations"][1]["segmentation"] = segmentation.clone();
        lab.write("set/all.json", file.to_string());
        talk(&lab, &["init", "set"], &["images were left out", "annotation 1 (id 51)", "all.json", say]);
        assert!(!lab.path("set/dataset-masks/1.png").exists() && lab.path("set/dataset-masks/2.png").exists());
    }
}
