//! What is advised about options is done here, as it is printed: before, the command fails and says so; after, it
//! works.
#![cfg(unix)]

use std::process::Output;

use crate::cli::{Lab, TINY};

const SHORT: &str =
    "--set train.iterations=1 --set train.eval_every=0 --set data.shapes.val=1 --device cpu --threads 1";

fn shell(lab: &Lab, command: &str) -> (Output, String) {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_structtoken")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut bash = std::process::Command::new("bash");
    bash.args(["-c", command]).current_dir(lab.dir.path()).env("PATH", path).env("RAYON_NUM_THREADS", "1");
    let output = bash.env("NO_COLOR", "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, said)
}

/// Runs commands that have to work.
fn works(lab: &Lab, command: &str) -> String {
    let (output, said) = shell(lab, command);
    assert!(output.status.success(), "{command}: {said}");
    format!("{said}{}", String::from_utf8_lossy(&output.stdout))
}

/// Runs a command that has to fail with this hint; gives all that was said.
fn fails(lab: &Lab, command: &str, hint: &str) -> String {
    let (output, said) = shell(lab, command);
    // 2: an option that is wrong by itself.
    assert!(matches!(output.status.code(), Some(1 | 2)), "{command}: {said}");
    assert!(said.split("hint: ").nth(1).is_some_and(|printed| printed.contains(hint)), "{command}: {said}");
    said
}

/// A folder of images with masks of two values.
fn set(lab: &Lab, folder: &str, pairs: u32) {
    for at in 0..pairs {
        for kind in ["images", "masks"] {
            std::fs::create_dir_all(lab.path(&format!("{folder}/{kind}"))).unwrap();
        }
        let image = image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([(x * 7 + at) as u8, (y * 7) as u8, 9]));
        image.save(lab.path(&format!("{folder}/images/{at}.png"))).unwrap();
        let mask = image::GrayImage::from_fn(32, 32, |x, y| image::Luma([u8::from(x + y > 20 + at % 8)]));
        mask.save(lab.path(&format!("{folder}/masks/{at}.png"))).unwrap();
    }
}

/// A recipe, a run of it, photos.
fn lab() -> Lab {
    let lab = Lab::new();
    // Smaller still: what counts here is what is printed.
    let small = [("depth = 2", "depth = 1"), ("num_blocks = 2", "num_blocks = 1"), ("train = 64", "train = 8")];
    lab.write("tiny.toml", small.iter().fold(TINY.to_owned(), |text, (from, to)| text.replace(from, to)));
    works(&lab, &format!("structtoken train tiny.toml --out run {SHORT}"));
    std::fs::create_dir_all(lab.path("photos")).unwrap();
    image::RgbImage::new(40, 30).save(lab.path("photos/photo.png")).unwrap();
    image::RgbImage::new(40, 30).save(lab.path("photo.jpg")).unwrap();
    lab
}

#[test]
fn what_is_advised_about_options_works() {
    let lab = lab();
    set(&lab, "set", 4);
    let train = format!("structtoken train tiny.toml {SHORT}");
    let model = "run/model.safetensors";
    // The failing command, the advice, and what it comes to.
    let compare = format!("structtoken compare tiny.toml --decoders pwe --seeds 1 --iterations 1 {SHORT}")
        .replace("--set train.iterations=1 ", "");
    let cases: Vec<(String, &str, Vec<String>)> = vec![
        // Runs.
        (
            format!("{train} --out run"),
            "resume it with --resume, or choose another folder with --out",
            vec!["structtoken train --resume --out run --device cpu".into(), format!("{train} --out run-2")],
        ),
        (
            format!("{train} --resume --out run --set train.seed=9"),
            "leave out the recipe and --set",
            vec!["structtoken train --resume --out run --device cpu".into()],
        ),
        (
            format!("{train} --resume --out none"),
            "start it without --resume, or pass the right folder with --out",
            vec![format!("{train} --out none"), "structtoken train --resume --out run --device cpu".into()],
        ),
        (
            "structtoken train --resume --out nowhere".into(),
            "or pass a recipe and leave out --resume",
            vec![format!("{train} --out nowhere")],
        ),
        (
            "structtoken train --resume".into(),
            "pass it: --out runs/NAME",
            vec!["structtoken train --resume --out run --device cpu".into()],
        ),
        (
            "structtoken train".into(),
            "`structtoken train configs/shapes/demo.toml`",
            vec!["structtoken inspect tiny.toml".into()],
        ),
        (
            "structtoken train nope.toml".into(),
            "`structtoken train DIR` plans a recipe",
            vec![format!("structtoken train set --budget 5s {SHORT} --out planned")],
        ),
        (
            "structtoken compare set".into(),
            "`structtoken train set --plan > recipe.toml`",
            vec!["structtoken train set --budget 5s --plan > recipe.toml && test -s recipe.toml".into()],
        ),
        (
            "structtoken train set --budget 5x --plan".into(),
            "`--budget 90s`, `20m` or `1h30m`",
            vec![
                // A plan of an hour is tried for minutes: that the time is understood is enough.
                "for time in 90s 20m 1h30m; do ! structtoken train none --budget $time --plan 2>&1 | grep 'is not a duration' || exit 1; done"
                    .into(),
            ],
        ),
        // Several runs.
        (format!("{train} --folds 3 --out folds"), "--seeds 5", vec![format!("{train} --seeds 2 --out seeds")]),
        (format!("{train} --seeds 1 --out one"), "without --seeds and --folds", vec![format!("{train} --out one")]),
        (
            format!("{train} --seeds 2 --out seeds"),
            "resume them with --resume, or choose another folder with --out",
            vec![format!("{train} --seeds 2 --out seeds --resume"), format!("{train} --seeds 2 --out seeds-2")],
        ),
        (
            "structtoken train --resume --out run --seeds 2".into(),
            "start them without --resume",
            vec![format!("{train} --seeds 2 --out seeds-3")],
        ),
        // Evaluation and prediction.
        (
            "structtoken eval tiny.toml".into(),
            "pass a model file, or add `--weights FILE`",
            vec![
                format!("structtoken eval {model} --device cpu"),
                format!("structtoken eval tiny.toml --weights {model} --set data.shapes.val=1 --device cpu"),
            ],
        ),
        (
            format!("structtoken predict {model} photos --out photos"),
            "choose another folder with --out",
            vec![format!("structtoken predict {model} photos --out masks")],
        ),
        (
            format!("structtoken predict {model} photos photo.jpg photos/photo.png --out both"),
            "in two calls with a different --out",
            vec![format!(
                "structtoken predict {model} photos --out one-of-two && structtoken predict {model} photo.jpg --out two-of-two"
            )],
        ),
        (
            format!("structtoken eval {model} --shard 0/2 --out s.json"),
            "shards count from 1: `--shard 1/4`",
            vec![format!("structtoken eval {model} --shard 1/1 --out s.json --device cpu")],
        ),
        (format!("structtoken eval {model} --shard 2 --out s.json"), "for instance `--shard 1/4`", vec![]),
        (format!("structtoken predict {model} photo.jpg --device gpu9"), "auto", vec![]),
        // Recipes.
        (
            "structtoken inspect tiny.toml --set nonsense".into(),
            "`--set train.iterations=1000` or `--set model.decoder.block=cse`",
            vec!["structtoken inspect tiny.toml --set train.iterations=1000 --set model.decoder.block=cse".into()],
        ),
        (
            "structtoken bench tiny.toml --repeat 0 --device cpu".into(),
            "`structtoken bench --help`",
            vec!["structtoken bench --help".into()],
        ),
        // Comparisons.
        (
            "structtoken compare".into(),
            "or the folder of a comparison with --out",
            vec![format!("{compare} --out cmp"), "structtoken compare --out cmp --device cpu".into()],
        ),
        (
            "structtoken compare --out run".into(),
            "pass a recipe to start one, or the right folder with --out",
            vec!["structtoken compare --out cmp --device cpu".into()],
        ),
        (
            "structtoken compare --collect run --out all".into(),
            "not those of single runs",
            vec!["structtoken compare --collect cmp --out all".into()],
        ),
        (
            format!("{compare} --out cmp-2 --shards 2"),
            "pass `--shard 1/4`",
            vec![format!("{compare} --out cmp-2 --shard 1/2")],
        ),
        (
            format!("SLURM_ARRAY_TASK_ID=0 {compare} --out cmp-3"),
            "add `--shards N`, or pass `--shard I/N`",
            vec![
                format!("SLURM_ARRAY_TASK_ID=0 {compare} --out cmp-3 --shards 1"),
                format!("SLURM_ARRAY_TASK_ID=0 {compare} --out cmp-4 --shard 1/1"),
            ],
        ),
        (
            format!("SLURM_ARRAY_TASK_ID=x {compare} --out cmp-5"),
            "pass the shard explicitly: `--shard 1/4`",
            vec![format!("SLURM_ARRAY_TASK_ID=x {compare} --out cmp-5 --shard 1/1")],
        ),
        (compare.replace("--seeds 1", "--seeds 0") + " --out cmp-6", "`--decoders cse,pwe --seeds 3`", vec![]),
        (compare.replace("pwe", "pwe,pwe") + " --out cmp-6", "name each once; --seeds repeats it", vec![]),
        (
            compare.replace("--iterations 1", "--iterations 0") + " --out cmp-6",
            "`--budget 20m` or `--iterations 1000`",
            vec![],
        ),
        (
            format!("{compare} --out cmp-6 --with nonsense"),
            "`--with eomt.num_queries=20`",
            vec![compare.replace("pwe", "eomt") + " --out cmp-6 --with eomt.num_queries=20"],
        ),
        // Datasets.
        (
            "printf 'name=\"x\"\\nclasses=[\"a\"]\\n' > none.toml; structtoken data check none.toml".into(),
            "`structtoken data init DIR` writes",
            vec!["structtoken data init set && structtoken data check set/dataset.toml".into()],
        ),
    ];
    for (command, hint, mended) in cases {
        fails(&lab, &command, hint);
        mended.iter().for_each(|command| drop(works(&lab, command)));
    }
    // What the page of a run says to try next, and what is printed at the end of `init`.
    works(&lab, &format!("{train} --out again"));
    let page = std::fs::read_to_string(lab.path("again/report.html")).unwrap();
    let next = page.split("<code>").skip(1).map(|rest| rest.split("</code>").next().unwrap());
    let next: Vec<&str> = next.filter(|command| command.contains("again/model.safetensors")).collect();
    assert_eq!(next.len(), 3, "{next:?}");
    for command in next {
        works(&lab, &format!("{command} --device cpu"));
    }
    set(&lab, "fresh", 4);
    let said = works(&lab, "structtoken train fresh --plan --budget 5s > planned.toml");
    let init = said.split("before you train with this recipe, run: ").nth(1).unwrap().lines().next().unwrap();
    let said = works(&lab, init);
    works(&lab, said.split("next: ").nth(1).unwrap().lines().next().unwrap());
    works(
        &lab,
        &format!("structtoken train planned.toml --out by-plan {SHORT}").replace("--set data.shapes.val=1 ", ""),
    );
    works(&lab, "cd / && structtoken inspect \"$OLDPWD/tiny.toml\" > /dev/null");
}

/// The part of a safetensors file that is not its own card, as published weights are.
fn stripped(lab: &Lab, from: &str, to: &str, change: impl Fn(&mut serde_json::Map<String, serde_json::Value>)) {
    let bytes = std::fs::read(lab.path(from)).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    change(&mut header);
    let header = serde_json::to_vec(&header).unwrap();
    lab.write(to, [&(header.len() as u64).to_le_bytes()[..], &header, &bytes[8 + length..]].concat());
}

#[test]
fn what_is_advised_about_networks_and_weights_works() {
    let lab = lab();
    set(&lab, "set", 4);
    let model = "run/model.safetensors";
    let unet = "[model.backbone]\ntype = \"unet\"\nchannels = [8, 16]\n[model.backbone.encoder]\ntype = \"resnet\"\ndepths = [1, 1, 1, 1]\n[model.decoder]\ntype = \"fcn\"\nauxiliary_weight = 0.0\n";
    lab.write("unet.toml", unet);
    let said = fails(&lab, "structtoken inspect unet.toml", "the finest first: model.backbone.channels = ");
    let channels = said.split("model.backbone.channels = ").nth(1).unwrap().lines().next().unwrap();
    let channels = format!("--set 'model.backbone.channels={channels}'");
    works(&lab, &format!("structtoken inspect unet.toml {channels}"));
    let rate = format!("structtoken inspect unet.toml {channels} --set model.backbone.drop_path_rate=0.1");
    fails(&lab, &rate, "set model.backbone.encoder.drop_path_rate, and leave model.backbone.drop_path_rate out");
    works(&lab, &rate.replace("backbone.drop", "backbone.encoder.drop"));
    lab.write("eomt.toml", unet.replace("type = \"fcn\"\nauxiliary_weight = 0.0", "type = \"eomt\""));
    let eomt = format!("structtoken inspect eomt.toml {channels}");
    fails(&lab, &eomt, "use model.backbone.type = \"vit\" or \"dinov3\", or another model.decoder.type");
    works(&lab, &format!("{eomt} --set model.decoder.type=segmenter"));
    for network in ["vit", "dinov3"] {
        lab.write(
            "eomt-vit.toml",
            format!("[model.backbone]\ntype = \"{network}\"\n[model.decoder]\ntype = \"eomt\"\n"),
        );
        works(&lab, "structtoken inspect eomt-vit.toml");
    }
    lab.write("fcn.toml", "[model.backbone]\ntype = \"vit\"\nout_indices = [11]\n[model.decoder]\ntype = \"fcn\"\nauxiliary_weight = 0.4\n");
    let said = fails(&lab, "structtoken inspect fcn.toml", "for instance model.backbone.out_indices = ");
    let indices = said.split("model.backbone.out_indices = ").nth(1).unwrap().lines().next().unwrap();
    works(&lab, &format!("structtoken inspect fcn.toml --set 'model.backbone.out_indices={indices}'"));
    lab.write("masks.toml", "[model.backbone]\ntype = \"resnet\"\n[model.decoder]\ntype = \"mask2former\"\n");
    let said = fails(
        &lab,
        "structtoken inspect masks.toml --set 'model.backbone.out_indices=[0,1,2,3]'",
        "model.backbone.out_indices = ",
    );
    let indices = said.split("model.backbone.out_indices = ").nth(1).unwrap().split(" of").next().unwrap();
    works(&lab, &format!("structtoken inspect masks.toml --set 'model.backbone.out_indices={indices}'"));

    // Weights without a card.
    stripped(&lab, model, "published.safetensors", |header| drop(header.remove("__metadata__")));
    let predict = "structtoken predict published.safetensors photo.jpg --out p";
    fails(&lab, predict, "as train.pretrained or with `eval RECIPE --weights FILE`");
    works(&lab, "structtoken eval tiny.toml --weights published.safetensors --set data.shapes.val=1 --device cpu");
    works(
        &lab,
        &format!(
            "structtoken train tiny.toml {SHORT} --set train.pretrained=published.safetensors --out from-published"
        ),
    );
    // Weights that cannot be used, whatever is set; without them it works.
    let plan = "structtoken train set --budget 5s --plan";
    let whole = std::fs::read(lab.path("published.safetensors")).unwrap();
    let cut = |header: &mut serde_json::Map<String, serde_json::Value>| {
        header.retain(|name, _| name.starts_with("backbone."));
    };
    assert!(whole.len() > 1000);
    for (name, dtype, size) in [("whole-numbers", "I8", 1), ("unknown", "F4", 1)] {
        let tensor = serde_json::json!({"blocks.0.attn.qkv.weight": {"dtype": dtype, "shape": [8, size], "data_offsets": [0, 8]}});
        let header = serde_json::to_vec(&tensor).unwrap();
        let bytes = [&(header.len() as u64).to_le_bytes()[..], &header, &[0; 8]].concat();
        lab.write(&format!("{name}.safetensors"), bytes);
        let said = fails(
            &lab,
            &format!("{plan} --pretrained {name}.safetensors"),
            "use the weights in float32, float16 or bfloat16",
        );
        assert!(said.contains("blocks.0.attn.qkv.weight"), "{said}");
    }
    let gray = serde_json::json!({
        "patch_embed.proj.weight": {"dtype": "F32", "shape": [2, 1, 1, 1], "data_offsets": [0, 8]},
        "blocks.0.norm1.weight": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]},
        "pos_embed": {"dtype": "F32", "shape": [1, 1, 2], "data_offsets": [16, 24]},
    });
    let header = serde_json::to_vec(&gray).unwrap();
    lab.write("grey.safetensors", [&(header.len() as u64).to_le_bytes()[..], &header, &[0; 24]].concat());
    let said = fails(&lab, &format!("{plan} --pretrained grey.safetensors"), "or leave --pretrained out");
    assert!(said.contains("cannot be used, because they are for images of 1 channel"), "{said}");
    works(&lab, plan);
    let _ = cut;
}

#[test]
fn what_is_advised_about_places_works() {
    let lab = lab();
    set(&lab, "set", 4);
    lab.write("file", "x");
    fails(&lab, "structtoken man --out file/man", "choose another folder with --out");
    works(&lab, "structtoken man --out man && test -s man/structtoken.1");
    fails(&lab, "structtoken bench tiny.toml --repeat 1 --size 32 --device cuda", "--device cpu");
    works(&lab, "structtoken bench tiny.toml --repeat 1 --size 32 --device cpu");
    // Other classes than the dataset of the recipe has.
    works(&lab, "structtoken data init set --names triangle,background");
    works(
        &lab,
        &format!(
            "structtoken train set/dataset.toml --budget 5s {} --out by-set",
            SHORT.replace("--set data.shapes.val=1 ", "")
        ),
    );
    works(&lab, "structtoken data init set --names background,triangle --out turned.toml");
    let eval = "structtoken eval by-set/model.safetensors --device cpu";
    fails(&lab, &format!("{eval} --set data.dataset=turned.toml"), "pass the dataset with --data");
    works(&lab, &format!("{eval} --data turned.toml"));
    // Keys of recipes are printed by a recipe of the program's own.
    let root = env!("CARGO_MANIFEST_DIR");
    fails(
        &lab,
        "structtoken inspect tiny.toml --set train.batch_size=0",
        "`structtoken inspect configs/shapes/demo.toml` prints all keys",
    );
    assert!(
        works(&lab, &format!("cd '{root}' && structtoken inspect configs/shapes/demo.toml")).contains("batch_size")
    );
}

#[test]
fn shards_and_merging_follow_their_advice() {
    let lab = lab();
    let eval = "structtoken eval run/model.safetensors --set data.shapes.val=4 --device cpu";
    fails(&lab, "structtoken eval merge tiny.toml", "`structtoken eval MODEL --shard I/N --out FILE` wrote");
    works(&lab, &format!("{eval} --shard 1/2 --out 1.json"));
    fails(&lab, "structtoken eval merge 1.json", "evaluate them with `--shard I/N --out FILE`, and pass all files");
    works(&lab, &format!("{eval} --shard 2/2 --out 2.json"));
    works(&lab, "structtoken eval merge 1.json 2.json");
}

/// A run and its dataset are moved, apart and together.
#[test]
fn a_dataset_that_moved_is_found_or_named() {
    let lab = lab();
    set(&lab, "project/set", 4);
    let train =
        format!("structtoken train set --budget 5s {} --out runs/a", SHORT.replace("--set data.shapes.val=1 ", ""));
    works(&lab, &format!("cd project && {train}"));
    let eval = |place: &str| format!("structtoken eval {place}/model.safetensors --device cpu --json");
    let before = works(&lab, &eval("project/runs/a"));
    let scores = |said: &str| said.lines().last().unwrap().to_owned();
    // The run alone: its description lies beside the model.
    works(&lab, "mv project/runs/a project/runs/b");
    let moved = works(&lab, &eval("project/runs/b"));
    assert!(moved.contains("is missing: using") && scores(&moved) == scores(&before), "{moved}");
    // It goes on from there too.
    works(&lab, "structtoken train --resume --out project/runs/b --device cpu");
    // Everything together.
    works(&lab, "mv project elsewhere");
    let moved = works(&lab, &eval("elsewhere/runs/b"));
    assert!(moved.contains("with the files below") && scores(&moved) == scores(&before), "{moved}");
}

#[test]
fn sets_without_a_validation_split_get_one() {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    let short = SHORT.replace("--set data.shapes.val=1 ", "");
    set(&lab, "one", 1);
    let said = works(&lab, "structtoken data init one");
    let note = said.split("score the training image itself: ").nth(1).unwrap_or_else(|| panic!("{said}"));
    let note = note.lines().next().unwrap().to_owned();
    let train = format!("structtoken train tiny.toml --set data.dataset=one/dataset.toml --out run {short}");
    let said = fails(&lab, &train, "score the training image itself: ");
    let printed = said.split("score the training image itself: ").nth(1).unwrap().lines().next().unwrap();
    assert_eq!(printed, note);
    works(&lab, printed);
    works(&lab, &train);
    works(&lab, &format!("structtoken train one --budget 5s {short} --out planned"));
    // More pairs can be divided.
    set(&lab, "more", 4);
    lab.write("more.toml", "name = 'm'\nclasses = ['a', 'b']\n[train]\nimages = 'more/images'\nmasks = 'more/masks'\n");
    let train = format!("structtoken train tiny.toml --set data.dataset=more.toml --out more-run {short}");
    let said = fails(&lab, &train, "hold out a part of [train]: --set 'data.fold=");
    works(
        &lab,
        &format!("{train} {}", said.split("hold out a part of [train]: ").nth(1).unwrap().lines().next().unwrap()),
    );
}

#[test]
fn images_say_what_is_not_read_of_them() {
    let lab = lab();
    set(&lab, "set", 4);
    // Two frames, a transparent pixel, 12 bits in 16.
    let mut bytes = Vec::new();
    let mut encoder = gif::Encoder::new(&mut bytes, 32, 32, &[0, 0, 0, 255, 255, 255]).unwrap();
    for _ in 0..2 {
        encoder.write_frame(&gif::Frame::from_indexed_pixels(32, 32, vec![1; 1024], None)).unwrap();
    }
    drop(encoder);
    lab.write("odd/frames.gif", bytes);
    image::RgbaImage::from_pixel(32, 32, image::Rgba([9, 200, 9, 0])).save(lab.path("odd/clear.png")).unwrap();
    image::ImageBuffer::<image::Luma<u16>, Vec<u16>>::from_fn(32, 32, |x, _| image::Luma([(x * 132) as u16]))
        .save(lab.path("odd/deep.png"))
        .unwrap();
    let predict = "structtoken predict run/model.safetensors odd --out masks --device cpu";
    let said = works(&lab, predict);
    for part in [
        "several pages or frames in `odd/frames.gif`",
        "transparent pixels in `odd/clear.png`",
        ": `odd/deep.png`. The model has no `range`",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let option = said.split("add --set ").nth(1).unwrap().lines().next().unwrap();
    assert_eq!(option, "data.preprocess.range=[0,4095]");
    assert!(
        !works(&lab, &format!("{predict} --set {option}")).contains("16-bit images"),
        "with the range there is nothing to say"
    );
    assert!(!works(&lab, "structtoken predict run/model.safetensors photos --out plain").contains("note:"));
    // `init` and the check.
    for (from, to) in [("odd/frames.gif", "set/images/0.gif"), ("odd/clear.png", "set/images/1.png")] {
        std::fs::copy(lab.path(from), lab.path(to)).unwrap();
    }
    std::fs::remove_file(lab.path("set/images/0.png")).unwrap();
    let said = works(&lab, "structtoken data init set");
    for part in ["several pages or frames; the first is used, as in `0.gif`", "images have transparent pixels"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let report = works(&lab, "structtoken data check set/dataset.toml");
    assert!(report.contains("[several-pages]") && report.contains("[transparent-image]"), "{report}");
}

#[test]
fn what_is_advised_about_folders_works() {
    let lab = Lab::new();
    // Names that a shell would take apart.
    set(&lab, "it's $HOME/deep/set", 4);
    let said = fails(
        &lab,
        "structtoken data init \"it's \\$HOME\"",
        "in it holds images and masks; run: structtoken data init ",
    );
    works(&lab, said.split("; run: ").nth(1).unwrap().lines().next().unwrap());
    // Several sets become one.
    set(&lab, "many/a", 3);
    set(&lab, "many/b", 3);
    let said = fails(&lab, "structtoken data init many", "put them into one, with the folder in each name: cd ");
    let command = said.split("in each name: ").nth(1).unwrap().lines().next().unwrap();
    let (join, init) = command.split_once(", and then: ").unwrap();
    works(&lab, join);
    works(&lab, init);
    assert!(lab.path("many/all/images/b/2.png").exists() && lab.path("many/all/dataset.toml").exists());
    // Outlines are drawn before they can be checked.
    let annotation = |image: u32| {
        serde_json::json!({"id": image, "image_id": image, "category_id": 1, "iscrowd": 0, "area": 100, "bbox": [5, 5, 10, 10],
            "segmentation": [[5, 5, 15, 5, 15, 15, 5, 15]]})
    };
    let image =
        |id: u32| serde_json::json!({"id": id, "file_name": format!("{}.png", id - 1), "width": 32, "height": 32});
    let annotations = serde_json::json!({"images": [image(1), image(2)], "categories": [{"id": 1, "name": "cell"}],
        "annotations": [annotation(1), annotation(2)]});
    set(&lab, "co co", 2);
    std::fs::remove_dir_all(lab.path("co co/masks")).unwrap();
    lab.write("co co/instances.json", annotations.to_string());
    let said = fails(&lab, "structtoken data check 'co co'", "which draws masks and writes a TOML to check");
    works(&lab, said.split("run: ").nth(1).unwrap().split(", which").next().unwrap());
    works(&lab, "structtoken data check 'co co/dataset.toml'");
    // Images and masks in one folder.
    set(&lab, "flat", 4);
    works(
        &lab,
        "cd flat && for i in 0 1 2 3; do mv images/$i.png img$i.png; mv masks/$i.png img${i}_mask.png; done; rmdir images masks",
    );
    let said = fails(&lab, "structtoken data check flat", "which writes lists and a TOML to check");
    works(&lab, said.split("run: ").nth(1).unwrap().split(", which").next().unwrap());
    works(&lab, "structtoken data check flat/dataset.toml");
    // Names.
    set(&lab, "set", 4);
    fails(&lab, "structtoken data init set --names sky,sky", "as in --names sky,road,car");
    works(&lab, "structtoken data init set --names sky,road");
    // Places.
    lab.write("file", "x");
    fails(&lab, "structtoken data init set --out file/x.toml", "");
    works(&lab, "structtoken data init set --out x.toml");
    lab.write("tiny.toml", TINY);
    std::fs::create_dir_all(lab.path("odd/config.toml")).unwrap();
    fails(&lab, &format!("structtoken train tiny.toml --out odd {SHORT}"), "--out");
    works(&lab, &format!("structtoken train tiny.toml --out even {SHORT}"));
}

#[test]
fn what_is_advised_after_damage_works() {
    let lab = lab();
    let train = format!("structtoken train tiny.toml {SHORT}");
    // What several runs are.
    works(&lab, &format!("{train} --seeds 2 --out seeds"));
    lab.write("seeds/repeat.json", "{");
    fails(
        &lab,
        "structtoken train --resume --out seeds",
        "for instance {\"seeds\": 3} or {\"folds\": 5}, and continue with --resume",
    );
    lab.write("seeds/repeat.json", "{\"seeds\": 2}");
    works(&lab, "structtoken train --resume --out seeds --device cpu");
    // One that failed: something is in its way.
    let runs = std::fs::read_dir(lab.path("seeds")).unwrap().map(|entry| entry.unwrap().path());
    let run = runs.filter(|path| path.join("config.toml").exists()).max().unwrap();
    std::fs::remove_dir_all(&run).unwrap();
    std::fs::write(&run, "in the way").unwrap();
    let (output, said) = shell(&lab, "structtoken train --resume --out seeds --device cpu");
    assert!(!output.status.success() && said.contains("--resume"), "{said}");
    std::fs::remove_file(&run).unwrap();
    works(&lab, "structtoken train --resume --out seeds --device cpu");
    // The plan of a comparison.
    let compare = "structtoken compare tiny.toml --decoders pwe --seeds 1 --iterations 1 --set train.eval_every=0 --set data.shapes.val=1 --device cpu";
    works(&lab, &format!("{compare} --out cmp"));
    fails(&lab, "structtoken compare --collect run --out all", "not those of single runs");
    works(&lab, "structtoken compare --collect cmp --out all");
    let plan = std::fs::read(lab.path("cmp/plan.toml")).unwrap();
    lab.write("cmp/plan.toml", "x = [");
    fails(&lab, "structtoken compare --out cmp --device cpu", "another --out");
    works(&lab, &format!("{compare} --out cmp-2"));
    lab.write("cmp/plan.toml", plan);
    works(&lab, "structtoken compare --out cmp --device cpu");
    // All checkpoints.
    let stop = "structtoken train tiny.toml --set train.iterations=4 --set data.shapes.val=1 --device cpu --stop-after 3 --out stopped";
    assert_eq!(shell(&lab, stop).0.status.code(), Some(130));
    for entry in std::fs::read_dir(lab.path("stopped/checkpoints")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            std::fs::write(path.join("model.safetensors"), "x").unwrap();
        }
    }
    let said = fails(
        &lab,
        "structtoken train --resume --out stopped --device cpu",
        "start again in another folder: `structtoken train ",
    );
    works(&lab, &said.split("another folder: `").nth(1).unwrap().split('`').next().unwrap().replace("OTHER", "other"));
    // Weights that leave nothing but infinities: where they are is shown.
    let mut bytes = std::fs::read(lab.path("run/model.safetensors")).unwrap();
    let start = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize + 8;
    bytes[start..].chunks_exact_mut(4).for_each(|value| value.copy_from_slice(&f32::MAX.to_le_bytes()));
    lab.write("wild.safetensors", bytes);
    fails(
        &lab,
        "structtoken predict wild.safetensors photo.jpg --out wild",
        "`structtoken inspect` shows the range of every tensor",
    );
    assert!(works(&lab, "structtoken inspect wild.safetensors").contains("340282"));
}

#[test]
fn what_is_advised_about_learning_works() {
    let lab = lab();
    let train = "structtoken train tiny.toml --set data.shapes.val=1 --device cpu --threads 1";
    // A network that says one class, and one whose loss is none.
    let one = "--set train.optimizer.lr=100 --set train.iterations=3 --set train.eval_every=1";
    let said = works(&lab, &format!("{train} {one} --out one-class"));
    if let Some(printed) = said.split("start again in another folder with ").nth(1) {
        let options = printed.lines().next().unwrap();
        assert!(options.contains("--set train.optimizer.lr="), "{options}");
        works(&lab, &format!("{train} {options} --set train.iterations=3 --out calmer"));
    }
    let options = "--set train.optimizer.lr=1.0e-2 --set train.optimizer.clip_norm=1.0 --set train.precision=f32";
    works(&lab, &format!("{train} {options} --set train.iterations=2 --out precise"));
    let wild = "--set train.optimizer.lr=1e30 --set train.schedule.warmup_iters=4 --set train.schedule.warmup_ratio=0 --set train.save_every=1";
    let said = fails(
        &lab,
        &format!("{train} {wild} --out wild"),
        "train.optimizer.clip_norm = 1.0 or more train.schedule.warmup_iters",
    );
    let good = said.split("train.pretrained = \"").nth(1).unwrap().split('"').next().unwrap();
    let calm = format!(
        "--set train.pretrained='{good}' --set train.optimizer.clip_norm=1.0 --set train.schedule.warmup_iters=2"
    );
    works(&lab, &format!("{train} {calm} --set train.iterations=3 --out good"));
}
