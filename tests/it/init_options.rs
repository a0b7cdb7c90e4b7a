//! What `structtoken data init` is told and where it writes: by one rule for every form. Commands that its notes print
//! are run.

use structtoken::dataset::spec::DatasetSpec;
use structtoken::dataset::{Dataset, Split};

use crate::cli::{Lab, TINY};
use crate::data_init::{SIZE, colors, half, mask, picture};
use crate::init_layouts::paste;

const CPU: [&str; 4] = ["--device", "cpu", "--threads", "1"];

/// A set of five images of each form that is drawn or joined, with the names of its classes.
const FORMS: [(&str, &[&str]); 6] = [
    ("coco", &["background", "cat"]),
    ("labelme", &["background", "cat"]),
    ("yolo", &["background", "cat"]),
    ("via", &["background", "cat"]),
    ("objects", &["background", "object"]),
    ("per-class", &["background", "chair", "sofa"]),
];

fn form(lab: &Lab, form: &str) {
    let (w, h) = SIZE;
    let name = |at: usize| format!("p{at}.png");
    for at in 0..5 {
        match form {
            "coco" | "per-class" => picture(lab, &format!("set/images/{}", name(at))),
            "labelme" | "via" => picture(lab, &format!("set/{}", name(at))),
            "yolo" => picture(lab, &format!("set/images/train/{}", name(at))),
            _ => picture(lab, &format!("set/id{at}/images/id{at}.png")),
        }
        match form {
            "labelme" => {
                let file = serde_json::json!({"imagePath": name(at), "imageWidth": w, "imageHeight": h,
                    "shapes": [{"label": "cat", "points": [[0, 0], [9, 9]], "shape_type": "rectangle"}]});
                lab.write(&format!("set/p{at}.json"), file.to_string());
            }
            "yolo" => drop(lab.write(&format!("set/labels/train/p{at}.txt"), "0 0 0 0.5 0 0.5 0.5\n")),
            "objects" => {
                mask(lab, &format!("set/id{at}/masks/a.png"), |x, _| u8::from(x < 5) * 255);
                mask(lab, &format!("set/id{at}/masks/b.png"), |x, y| half(x, y) * 255);
            }
            "per-class" => {
                mask(lab, &format!("set/masks/p{at}_class_chair.png"), |x, _| u8::from(x < 5) * 255);
                mask(lab, &format!("set/masks/p{at}_class_sofa.png"), |x, y| half(x, y) * 255);
            }
            _ => {}
        }
    }
    match form {
        "coco" => {
            let images: Vec<_> = (0..5)
                .map(|at| serde_json::json!({"id": at, "file_name": name(at), "width": w, "height": h}))
                .collect();
            let annotations: Vec<_> = (0..5)
                .map(|at| serde_json::json!({"id": at, "image_id": at, "category_id": 1, "segmentation": [[0, 0, 9, 0, 9, 9]]}))
                .collect();
            let file = serde_json::json!({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]});
            lab.write("set/all.json", file.to_string());
        }
        "yolo" => drop(lab.write("set/data.yaml", "train: images/train\nnames: [cat]\n")),
        "via" => {
            let region = serde_json::json!({"shape_attributes": {"name": "rect", "x": 0, "y": 0, "width": 9, "height": 9},
                "region_attributes": {"class": "cat"}});
            let images: serde_json::Map<String, serde_json::Value> = (0..5)
                .map(|at| (name(at), serde_json::json!({"filename": name(at), "size": 1, "regions": [region]})))
                .collect();
            lab.write("set/via_project.json", serde_json::Value::from(images).to_string());
        }
        _ => {}
    }
}

fn names(lab: &Lab, toml: &str) -> Vec<String> {
    let spec = DatasetSpec::read(&lab.path(toml)).unwrap();
    assert!(spec.open(Split::Train, None).unwrap().get(0).is_ok(), "{toml}");
    spec.classes.into_iter().map(|class| class.name).collect()
}

/// In a folder, what the command says.
fn talk_in(lab: &Lab, folder: &str, arguments: &[&str]) -> String {
    let output = lab.command(arguments).current_dir(lab.path(folder)).output().unwrap();
    let talk = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {talk}");
    talk
}

#[test]
fn a_description_may_lie_anywhere() {
    for (name, classes) in FORMS {
        let lab = Lab::new();
        form(&lab, name);
        std::fs::create_dir_all(lab.path("deep/er")).unwrap();
        for (at, folder, set, out, lies) in [
            (0, ".", "set", "bare.toml", "bare.toml"),
            (1, ".", "set", "./dot.toml", "dot.toml"),
            (2, ".", "set", "new/sub.toml", "new/sub.toml"),
            (3, "deep", "../set", "../up.toml", "up.toml"),
            (4, "deep/er", "../../set", "far.toml", "deep/er/far.toml"),
            (5, "set", ".", "inside.toml", "set/inside.toml"),
            (6, "set", "../set", "../deep/beside.toml", "deep/beside.toml"),
        ] {
            let said = talk_in(&lab, folder, &["data", "init", set, "--out", out]);
            assert_eq!(names(&lab, lies), classes, "{name} {out}: {said}");
            let listed = lab.ok(&["data", "check", lies]);
            assert!(listed.contains(": 5 pairs") && listed.contains("no faults"), "{name} {out}: {listed}");
            // Relative, and said to be, where both are moved together; else neither.
            let text = std::fs::read_to_string(lab.path(lies)).unwrap();
            let line = text.lines().find(|line| line.starts_with("images")).unwrap();
            let absolute = line.starts_with("images = \"/");
            assert_eq!((absolute, line.contains("relative")), (at == 4, at != 4), "{name} {out}: {line}");
        }
    }
}

/// By one rule: all classes in the order in which they are listed, or all but the background.
#[test]
fn names_are_given_to_every_form() {
    for (form_name, classes) in FORMS {
        let lab = Lab::new();
        form(&lab, form_name);
        let all: Vec<String> = classes.iter().enumerate().map(|(at, _)| format!("n{at}")).collect();
        let said = talk_in(&lab, ".", &["init", "set", "--names", &all.join(",")]);
        assert_eq!(names(&lab, "set/dataset.toml"), all, "{form_name}");
        assert!(said.contains("n0") && !said.contains(&format!("`{}`", classes[0])), "{said}");
        // The background keeps its name where it is left out.
        lab.ok(&["init", "set", "--yes", "--names", &all[1..].join(",")]);
        assert_eq!(names(&lab, "set/dataset.toml")[0], "background", "{form_name}");
        lab.ok(&["init", "set", "--yes", "--names-from", "1", "--names", &all[1..].join(",")]);
        lab.ok(&["data", "check", "set"]);
        // Counted, and the command that is printed fits.
        let count = format!("4 names for {} classes", classes.len());
        let said = lab.refused(&["init", "set", "--out", "two.toml", "--names", "a,b,c,d"], &[&count, classes[1]]);
        paste(&lab, &format!("structtoken data init{}", said.rsplit("structtoken data init").next().unwrap()));
        assert_eq!(names(&lab, "two.toml"), classes);
        lab.misused(&["init", "set", "--names", "a,a"], &["`a` twice"]);
        // What is of no use is refused, and the command without it works.
        for (option, value) in [("--void", "77"), ("--names-from", "1"), ("--pixels", ""), ("--jpeg-tolerance", "9")] {
            if form_name == "yolo" && option == "--pixels" || form_name == "per-class" && option == "--jpeg-tolerance" {
                continue;
            }
            let mut arguments = vec!["init", "set", "--out", "new/set.toml", option];
            arguments.extend([value].iter().filter(|value| !value.is_empty()));
            let said = lab.refused(&arguments, &[option, "leave it out"]);
            paste(&lab, said.split("leave it out: ").nth(1).unwrap());
            assert_eq!(names(&lab, "new/set.toml"), classes, "{form_name} {option}");
            std::fs::remove_dir_all(lab.path("new")).unwrap();
        }
    }
}

/// A set of masks with these values in stripes.
fn stripes(lab: &Lab, folder: &str, values: &[u8]) {
    for at in 0..5 {
        picture(lab, &format!("{folder}/images/{at}.png"));
        mask(lab, &format!("{folder}/masks/{at}.png"), |x, _| values[(x / 5) as usize % values.len()]);
    }
}

#[test]
fn options_that_masks_have_no_use_for_are_refused() {
    let lab = Lab::new();
    stripes(&lab, "set", &[0, 255]);
    for option in [&["--pixels"][..], &["--names-from", "1"], &["--text", "gbk"], &["--void", "77"]] {
        let said = lab.refused(&[&["init", "set"], option].concat(), &[option[0], "leave it out: "]);
        assert!(!lab.path("set/dataset.toml").exists());
        paste(&lab, said.split("leave it out: ").nth(1).unwrap());
        assert_eq!(names(&lab, "set/dataset.toml"), ["background", "object"]);
        std::fs::remove_file(lab.path("set/dataset.toml")).unwrap();
        for split in ["train", "val"] {
            std::fs::remove_file(lab.path(&format!("set/dataset-{split}.txt"))).unwrap();
        }
    }
    // The masks are as they should be where names are not.
    let said = lab.refused(&["init", "set", "--names", "a,b,c"], &["3 names for 2 values: 0, 255"]);
    assert!(!said.contains("no labels that can be told"), "{said}");
}

#[test]
fn notes_print_commands_that_work() {
    let command = |said: &str, start: &str| {
        let line = said.lines().find(|line| line.contains(start)).unwrap_or_else(|| panic!("no {start}: {said}"));
        format!("structtoken data init{}", line.split("structtoken data init").nth(1).unwrap())
    };
    let lab = Lab::new();
    stripes(&lab, "a set", &[0, 127, 255]);
    let said = talk_in(&lab, ".", &["init", "a set"]);
    assert!(said.contains("classes: 0 = class 0, 127 = class 127, 255 = class 255"), "{said}");
    paste(&lab, &command(&said, "no file says"));
    assert_eq!(names(&lab, "a set/dataset.toml"), ["a", "b", "c"]);
    let again = talk_in(&lab, ".", &["init", "a set", "--names", "a,b,c", "--yes"]);
    paste(&lab, &command(&again, "if 255 marks pixels to leave out"));
    assert_eq!(names(&lab, "a set/dataset.toml"), ["a", "b"]);
    // Elsewhere too, and from the description's own text.
    let said = talk_in(&lab, ".", &["init", "a set", "--out", "x/b.toml"]);
    paste(&lab, &command(&said, "no file says"));
    assert_eq!(names(&lab, "x/b.toml"), ["a", "b", "c"]);
    // What is asked, before and after a description is there.
    stripes(&lab, "asked", &[0, 15, 255]);
    for _ in 0..2 {
        let said = lab.refused(&["init", "asked"], &["may be a class"]);
        paste(&lab, said.split("say which: ").nth(1).unwrap().split(" if 255").next().unwrap());
        assert_eq!(names(&lab, "asked/dataset.toml").len(), 3);
    }
    // Published colours.
    let spec = DatasetSpec::find("cityscapes").unwrap();
    for at in 0..5 {
        picture(&lab, &format!("city/images/{at}.png"));
        colors(&lab, &format!("city/masks/{at}.png"), |x, y| spec.classes[usize::from(half(x, y))].color.unwrap());
    }
    let said = talk_in(&lab, ".", &["init", "city"]);
    paste(&lab, &command(&said, "whose colours the masks have"));
    // Training describes the folder for itself: its notes are of a description that lasts.
    lab.write("tiny.toml", TINY);
    stripes(&lab, "new", &[0, 127, 255]);
    let plan = lab.run(&[&["train", "new", "--plan", "--budget", "1m"][..], &CPU].concat());
    paste(&lab, &command(&String::from_utf8_lossy(&plan.stderr), "no file says"));
    assert_eq!(names(&lab, "new/dataset.toml"), ["a", "b", "c"]);
}

/// A model of two classes, `background` and `object`.
fn model(lab: &Lab) -> &'static str {
    lab.write("tiny.toml", TINY);
    stripes(lab, "home", &[0, 255]);
    lab.ok(&["init", "home"]);
    let train = ["train", "tiny.toml", "--set", "data.dataset=home/dataset.toml", "--set", "train.iterations=1"];
    lab.ok(&[&train[..], &["--out", "run"], &CPU].concat());
    "run/model.safetensors"
}

#[test]
fn an_evaluation_names_classes_where_that_can_work() {
    let lab = Lab::new();
    let model = model(&lab);
    for name in ["coco", "yolo"] {
        form(&lab, name);
        let said = lab.refused(&["eval", model, "--data", "set"], &["has background, cat"]);
        paste(&lab, said.split("name them so: ").nth(1).unwrap().split(", and then").next().unwrap());
        let toml = said.split("and then --data ").nth(1).unwrap().trim();
        lab.ok(&[&["eval", model, "--data", toml, "--split", "all"][..], &CPU].concat());
        std::fs::remove_dir_all(lab.path("set")).unwrap();
    }
    // Names for two cannot name three: no such command is printed, and the one that is works.
    stripes(&lab, "three", &[0, 127, 255]);
    let said = lab.refused(&["eval", model, "--data", "three"], &["ignore"]);
    assert!(!said.split("hint:").nth(1).unwrap().contains("--names"), "{said}");
    paste(&lab, said.split("describe it: ").nth(1).unwrap().split("; in that").next().unwrap());
    // Images are called as they are, and no split is spoken of that the set has not.
    let talk = talk_in(
        &lab,
        ".",
        &[&["eval", model, "--data", "home", "--split", "all", "--out", "e.json"][..], &CPU].concat(),
    );
    assert!(talk.contains("evaluating 5 images"), "{talk}");
    stripes(&lab, "bare", &[0, 255]);
    let bare = [&["eval", model, "--data", "bare", "--json"][..], &CPU].concat();
    let talk = talk_in(&lab, ".", &bare);
    assert!(talk.contains("evaluating 5 images of bare") && !talk.contains("validation split"), "{talk}");
    let found = lab.ok(&bare);
    assert!(!found.contains("train/") && !found.contains("val/") && found.contains("\"0\""), "{found}");
}

#[test]
fn of_a_dataset_only_images_are_labelled() {
    let lab = Lab::new();
    let model = model(&lab);
    let predict = |folder: &str, out: &str| {
        let talk = talk_in(&lab, ".", &[&["predict", model, folder, "--out", out][..], &CPU].concat());
        let mut names: Vec<String> = files_below(&lab.path(out));
        names.sort();
        (names, talk)
    };
    // As `init` reads it, described or not; an image without a mask is one too.
    stripes(&lab, "set", &[0, 255]);
    picture(&lab, "set/images/new.png");
    picture(&lab, "set/test/more.png");
    let (names, talk) = predict("set", "p1");
    let images: Vec<String> = ["0", "1", "2", "3", "4", "new"].iter().map(|n| format!("images/{n}.png")).collect();
    assert_eq!(names, images, "{talk}");
    for part in ["is a dataset", "masks (5, `set/masks/", "other folders (1, `set/test/more.png` first)"] {
        assert!(talk.contains(part), "{part}: {talk}");
    }
    assert_eq!(predict("home", "p2").0, images[..5]);
    // Masks among the images, and in a folder for each image.
    for at in 0..5 {
        picture(&lab, &format!("mixed/{at}.png"));
        mask(&lab, &format!("mixed/{at}_mask.png"), |x, y| half(x, y) * 255);
    }
    assert_eq!(predict("mixed", "p3").0, ["0.png", "1.png", "2.png", "3.png", "4.png"]);
    std::fs::remove_dir_all(lab.path("set")).unwrap();
    form(&lab, "objects");
    let each: Vec<String> = (0..5).map(|at| format!("id{at}/images/id{at}.png")).collect();
    assert_eq!(predict("set", "p4").0, each);
    // What is not a dataset is as it was: all pictures.
    for at in 0..3 {
        picture(&lab, &format!("plain/{at}.png"));
        picture(&lab, &format!("plain/more/{at}_edit.png"));
    }
    let (names, talk) = predict("plain", "p5");
    assert_eq!((names.len(), talk.contains("note")), (6, false), "{talk}");
    // Folders called so that hold no labels: all, with a word.
    for at in 0..3 {
        picture(&lab, &format!("pairs/images/{at}.png"));
        picture(&lab, &format!("pairs/masks/{at}.png"));
    }
    let (names, talk) = predict("pairs", "p6");
    assert_eq!((names.len(), talk.contains("cannot be read as a dataset")), (6, true), "{talk}");
}

/// All files below a folder.
fn files_below(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push(path.strip_prefix(folder).unwrap().display().to_string()),
            }
        }
    }
    found
}
