//! Models that compute in eight bits, or are stored in sixteen.

use structtoken::kernels::{Precision, int8_weight_bits};
use structtoken::model_file::read_card;

use crate::cli::{Lab, TINY};

/// A model whose affine maps are wide enough for eight bits, trained for a moment.
fn model(lab: &Lab) -> String {
    let recipe = lab.write("wide.toml", TINY);
    let wide =
        ["model.backbone.embed_dim=64", "model.backbone.num_heads=2", "train.iterations=20", "train.eval_every=0"];
    let changes: Vec<&str> = wide.iter().flat_map(|change| ["--set", change]).collect();
    lab.ok(&[&["train", recipe.to_str().unwrap(), "--device", "cpu"][..], &changes].concat());
    lab.path("runs/wide/model.safetensors").to_str().unwrap().to_owned()
}

#[test]
fn eight_bits_are_used_once_their_cost_is_known() {
    let lab = Lab::new();
    let model = model(&lab);
    let photo = lab.path("photo.png");
    image::RgbImage::from_fn(48, 48, |x, y| image::Rgb([(x * 5) as u8, (y * 5) as u8, (x * y) as u8]))
        .save(&photo)
        .unwrap();
    let photo = photo.to_str().unwrap();
    let by_hand = ["predict", &model, photo, "--set", "eval.precision=int8", "--device", "cpu"];
    let talk = lab.refused(&by_hand, &["how much accuracy", "structtoken quantize"]);
    // The command that the hint names.
    let (_, rest) = talk.split_once("hint: structtoken ").unwrap();
    let (command, _) = rest.split_once(" finds").unwrap();
    let out = "model-int8.safetensors";
    assert!(command.ends_with(out), "{command}");
    let remedy: Vec<&str> = command.split(' ').chain(["--json", "--device", "cpu"]).collect();
    if int8_weight_bits().is_none() {
        lab.refused(&remedy, &["no instructions for eight bits"]);
        return;
    }
    let said: serde_json::Value = serde_json::from_str(&lab.ok(&remedy)).unwrap();
    let card = read_card(lab.path(out)).unwrap();
    let found = card.int8.unwrap();
    assert_eq!(said["miou_int8"].as_f64(), Some(found.miou_int8));
    assert!(found.check().is_ok() && found.images > 0 && Some(found.weight_bits) == int8_weight_bits());
    assert!(lab.ok(&["inspect", out]).contains("computes in eight bits"));

    lab.ok(&["predict", out, photo, "--out", "masks", "--device", "cpu"]);
    let eval: serde_json::Value = serde_json::from_str(&lab.ok(&["eval", out, "--json", "--device", "cpu"])).unwrap();
    assert_eq!(eval["miou"].as_f64(), Some(found.miou_int8));
    let whole: serde_json::Value =
        serde_json::from_str(&lab.ok(&["eval", out, "--set", "eval.precision=f32", "--json", "--device", "cpu"]))
            .unwrap();
    assert_eq!(whole["miou"].as_f64(), Some(found.miou_f32));
    let quantize = |rest: &[&'static str]| [&["quantize", &model, "--device", "cpu"], rest].concat();
    lab.refused(&quantize(&["-o", out]), &["exists, and is kept", "another name after -o"]);
    lab.misused(&quantize(&["-o", "/dev/null"]), &["no name of a model file", "-o NAME.safetensors"]);
    lab.misused(&quantize(&["-o", "x.safetensors", "--weights", "y"]), &["leave --weights out"]);
    lab.misused(&quantize(&["-o", "x.safetensors", "--set", "eval.precision=bf16"]), &["leave it out"]);
    lab.misused(&["quantize", "wide.toml", "-o", "x.safetensors"], &["is a recipe"]);
    lab.ok(&quantize(&["-o", "x.safetensors", "--set", "eval.flip=true"]));
    assert!(read_card(lab.path("x.safetensors")).unwrap().eval.flip, "what was measured is what the file does");
    for key in ["train.precision=int8", "eval.precision=int8"] {
        lab.refused(&["train", "wide.toml", "--set", key, "--device", "cpu"], &["is for"]);
    }
    // However it is written.
    for change in [" eval.precision=bf16", "eval={precision=\"bf16\"}"] {
        lab.misused(&quantize(&["-o", "y.safetensors", "--set", change]), &["whatever it says", "leave it out"]);
    }
    // Training does not begin: not of one run, nor of several, nor to find a plan.
    lab.write("eight.toml", std::fs::read_to_string(lab.path("wide.toml")).unwrap() + "precision = \"int8\"\n");
    for command in [
        &["train", "eight.toml", "--out", "never"][..],
        &["train", "eight.toml", "--out", "never", "--seeds", "2"],
        &["compare", "eight.toml", "--out", "never"],
        &["compare", "wide.toml", "--out", "never", "--set", "eval.precision=int8"],
        &["train", "shapes", "--plan", "--budget", "20s", "--set", "eval.precision=int8"],
        &["demo", "--out", "never", "--set", "eval.precision=int8"],
    ] {
        let talk = lab.refused(&[command, &["--device", "cpu"]].concat(), &["is for models whose cost", "quantize"]);
        assert_eq!(talk.matches("error: ").count(), 1, "{talk}");
        assert!(!lab.path("never").exists());
    }
    let bench = |rest: &[&'static str]| [&["bench", "wide.toml", "--repeat", "1", "--device", "cpu"], rest].concat();
    lab.misused(&bench(&["--train", "--precision", "int8"]), &["eight bits"]);
    lab.ok(&bench(&["--train", "--precision", "bf16"]));
    lab.ok(&bench(&["--precision", "int8"]));
    // A recipe's own precision, where the command has none.
    assert!(lab.ok(&["bench", "eight.toml", "--repeat", "1", "--device", "cpu"]).contains(" labels int8 "));
    let half = bench(&["--train", "--set", "train.precision=\"bf16\""]);
    assert!(lab.ok(&half).contains(" train step bf16 "));
    // A processor without such instructions: the bench says so, and so does an evaluation, which goes on.
    let without = |arguments: &[&str]| lab.command(arguments).env("STRUCTTOKEN_SIMD", "baseline").output().unwrap();
    let talk = String::from_utf8(without(&bench(&["--precision", "int8"])).stderr).unwrap();
    assert!(talk.contains("no instructions for eight bits") && talk.contains("pass another --precision"), "{talk}");
    assert!(without(&bench(&["--precision", "f32"])).status.success());
    let eval = without(&["eval", &model, "--set", "eval.precision=int8", "--labels-only", "--device", "cpu"]);
    let talk = String::from_utf8(eval.stderr).unwrap();
    assert!(
        eval.status.success() && talk.contains("note: this processor has no instructions for eight bits"),
        "{talk}"
    );
    // All values are looked at before the first is measured.
    let output = lab.run(&["bench", "wide.toml", "--repeat", "1", "--device", "cpu", "--classes", "3,0"]);
    assert!(output.stdout.is_empty() && output.status.code() == Some(1));
    // Damaged figures are reported.
    let mut bytes = std::fs::read(lab.path(out)).unwrap();
    let figure = b"\\\"images\\\":";
    let at = bytes.windows(figure.len()).rposition(|window| window == figure).unwrap() + figure.len();
    bytes[at] = b'0';
    lab.write("few.safetensors", &bytes);
    let talk = String::from_utf8(lab.run(&["inspect", "few.safetensors"]).stderr).unwrap();
    assert!(talk.contains("warning: it cannot be used as it is"), "{talk}");
    bytes[at] = b'x';
    lab.write("damaged.safetensors", &bytes);
    lab.refused(&["inspect", "damaged.safetensors"], &["damaged.safetensors", "is damaged", "copy the file again"]);
}

/// A model and images whose truth is what it says of them: every label that eight bits change is a loss.
#[test]
fn eight_bits_that_cost_too_much_are_refused() {
    if int8_weight_bits().is_none() {
        return;
    }
    let lab = Lab::new();
    let model = model(&lab);
    std::fs::create_dir_all(lab.path("set/images")).unwrap();
    for number in 0..4u32 {
        // Squares of any colours.
        let colour = |x: u32, y: u32, channel: u32| {
            let cell = ((number * 6 + y / 8) * 6 + x / 8) * 3 + channel;
            (cell.wrapping_mul(2_654_435_761) >> 24) as u8
        };
        image::RgbImage::from_fn(48, 48, |x, y| image::Rgb([colour(x, y, 0), colour(x, y, 1), colour(x, y, 2)]))
            .save(lab.path(&format!("set/images/{number}.png")))
            .unwrap();
    }
    lab.ok(&["predict", &model, "set/images", "--out", "set/masks", "--device", "cpu"]);
    lab.ok(&["data", "init", "set", "--names", &read_card(&model).unwrap().classes.names.join(","), "--yes"]);
    let ask = ["quantize", &model, "--data", "set", "--split", "all", "-o", "x.safetensors", "--device", "cpu"];
    let talk = lab.refused(&ask, &["eight bits cost", "100.00 to", "at most 0.5 are accepted"]);
    assert!(!lab.path("x.safetensors").exists());
    // The command of the hint is about the same images.
    let (_, rest) = talk.split_once("; structtoken ").unwrap();
    let (command, _) = rest.split_once(" says what less coarse numbers cost").unwrap();
    let remedy: Vec<&str> = command.split(' ').chain(["--json", "--device", "cpu"]).collect();
    let eval: serde_json::Value = serde_json::from_str(&lab.ok(&remedy)).unwrap();
    assert!(eval["miou"].as_f64().unwrap() > 0.9 && command.contains("--data set"), "{command}: {eval}");
}

#[test]
fn a_network_without_wide_layers_is_not_quantized() {
    if int8_weight_bits().is_none() {
        return;
    }
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    let brief = ["--set", "train.iterations=2", "--set", "train.eval_every=0", "--device", "cpu"];
    lab.ok(&[&["train", "tiny.toml", "--out", "run"][..], &brief].concat());
    let talk = lab.refused(
        &["quantize", "run/model.safetensors", "-o", "x.safetensors", "--device", "cpu"],
        &["nothing of `run/model.safetensors` would be computed in eight bits", "use the model as it is"],
    );
    assert!(!talk.contains("evaluating"), "{talk}");
}

#[test]
fn sixteen_bits_take_half_the_bytes_and_label_as_was_measured() {
    let lab = Lab::new();
    let model = model(&lab);
    let (out, again) = ("half.safetensors", "again.safetensors");
    let ask = ["quantize", &model, "--precision", "f16", "--device", "cpu", "-o"];
    let said: serde_json::Value = serde_json::from_str(&lab.ok(&[&ask[..], &[out, "--json"]].concat())).unwrap();
    let score = |model: &str| {
        let eval: serde_json::Value =
            serde_json::from_str(&lab.ok(&["eval", model, "--json", "--device", "cpu"])).unwrap();
        eval["miou"].as_f64().unwrap()
    };
    assert_eq!([said["miou"].as_f64(), said["miou_f16"].as_f64()], [Some(score(&model)), Some(score(out))]);
    let size = |path: &std::path::Path| std::fs::metadata(path).unwrap().len();
    let (whole, half) = (size(model.as_ref()), size(&lab.path(out)));
    assert!(half * 2 < whole + 20_000, "{half} of {whole} bytes");
    // What is rounded already stays as it is, and eight bits take it too.
    lab.ok(&["quantize", out, "--precision", "f16", "--device", "cpu", "-o", again]);
    assert!(std::fs::read(lab.path(out)).unwrap() == std::fs::read(lab.path(again)).unwrap());
    if int8_weight_bits().is_some() {
        lab.ok(&["quantize", out, "--device", "cpu", "-o", "eight.safetensors"]);
        assert!(read_card(lab.path("eight.safetensors")).unwrap().int8.is_some());
        // What computes in eight bits is no measure of what sixteen cost.
        let both = ["quantize", "eight.safetensors", "--precision", "f16", "--device", "cpu", "-o", "both.safetensors"];
        let says = ["`eight.safetensors` computes in eight bits", "add --set eval.precision=f32"];
        lab.refused(&both, &says);
        lab.ok(&[&both[..], &["--set", "eval.precision=f32"]].concat());
        let card = read_card(lab.path("both.safetensors")).unwrap();
        assert!(card.int8.is_none() && card.eval.precision == Precision::F32);
        lab.refused(
            &["quantize", out, "--precision", "f16", "--set", "eval.precision=int8", "-o", "no.safetensors"],
            &["computes in eight bits"],
        );
    }
}

/// An image's probabilities do not depend on what is computed beside it, even where a layer has few rows for each
/// image.
#[test]
fn windows_do_not_change_one_another_in_eight_bits() {
    if int8_weight_bits().is_none() {
        return;
    }
    let lab = Lab::new();
    let model = model(&lab);
    let photo = lab.path("photo.png");
    let colour = |x: u32, y: u32| image::Rgb([(x * 3) as u8, (y * 3) as u8, (x * y) as u8]);
    image::RgbImage::from_fn(96, 96, colour).save(&photo).unwrap();
    let slide = ["eval.mode=slide", "eval.crop=[16,16]", "eval.stride=[16,16]"].map(|change| ["--set", change]);
    let out = ["quantize", &model, "-o", "eight.safetensors", "--device", "cpu"];
    lab.ok(&[&out[..], slide.as_flattened()].concat());
    let [one, eight] = ["1", "8"].map(|windows| {
        let set = format!("eval.windows_per_batch={windows}");
        let ask = ["predict", "eight.safetensors", photo.to_str().unwrap(), "--out", windows, "--probabilities"];
        lab.ok(&[&ask[..], &["--set", &set, "--device", "cpu"]].concat());
        std::fs::read(lab.path(windows).join("photo_probabilities.npy")).unwrap()
    });
    assert!(one == eight);
}

#[test]
fn nothing_is_quantized_without_a_score() {
    if int8_weight_bits().is_none() {
        return;
    }
    let lab = Lab::new();
    let model = model(&lab);
    for folder in ["blank/images", "blank/masks"] {
        std::fs::create_dir_all(lab.path(folder)).unwrap();
    }
    image::RgbImage::new(32, 32).save(lab.path("blank/images/a.png")).unwrap();
    image::GrayImage::from_pixel(32, 32, image::Luma([255])).save(lab.path("blank/masks/a.png")).unwrap();
    let names = structtoken::model_file::read_card(&model).unwrap().classes.names;
    let class = |(i, name)| format!("[[classes]]\nname = {name:?}\nsource = [{i}]\n");
    let classes: String = names.iter().enumerate().map(class).collect();
    let split = "images = \"blank/images\"\nmasks = \"blank/masks\"";
    let toml = format!("name = \"blank\"\nencoding = \"index\"\nignore = [255]\n[train]\n{split}\n{classes}");
    lab.write("blank.toml", toml);
    let ask = ["quantize", &model, "-o", "eight.safetensors", "--device", "cpu"];
    let blank = [&ask[..], &["--data", "blank.toml"]].concat();
    lab.refused(&blank, &["there is no score", "name images with masks by --data or --split"]);
    assert!(!lab.path("eight.safetensors").exists());
    lab.ok(&[&ask[..], &["--split", "train"]].concat());
}
