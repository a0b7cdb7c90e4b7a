//! A run that was interrupted and resumed ends in the same bytes.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::bad_input;
use crate::cli::{Lab, TINY};

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Everything of two runs that must be equal: weights published and saved, moments, state and scores.
fn assert_same(lab: &Lab, a: &str, b: &str) {
    let last = "checkpoints/step-00000060";
    for file in ["model.safetensors", "scores.json"] {
        assert!(bytes(&lab.path(a).join(file)) == bytes(&lab.path(b).join(file)), "{file} differs");
    }
    for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
        assert!(
            bytes(&lab.path(a).join(last).join(file)) == bytes(&lab.path(b).join(last).join(file)),
            "{file} differs"
        );
    }
}

/// Every row of the log is there once, whatever happened to the run.
fn assert_whole_log(lab: &Lab, run: &str) {
    let text = String::from_utf8(bytes(&lab.path(run).join("log.ndjson"))).unwrap();
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| {
        let of_kind = rows.iter().filter(|row| row["kind"] == kind);
        of_kind.map(|row| row["iteration"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((of("step"), of("eval")), ((0..60).collect(), vec![20, 40, 60]), "{text}");
    assert!(!lab.path(run).join("damaged-log.ndjson").exists());
}

#[test]
fn sixty_iterations_are_thirty_and_thirty() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let recipe = recipe.to_str().unwrap();
    lab.ok(&["train", recipe, "--out", "whole", "--device", "cpu"]);

    let first = lab.run(&["train", recipe, "--out", "halves", "--device", "cpu", "--stop-after", "30"]);
    assert_eq!(first.status.code(), Some(130), "{}", String::from_utf8_lossy(&first.stderr));
    assert!(!lab.path("halves/report.html").exists());
    lab.ok(&["train", "--resume", "--out", "halves", "--device", "cpu"]);
    assert_same(&lab, "whole", "halves");
}

/// Batch norms' statistics are part of the weights, of those that are averaged too.
#[test]
fn a_unet_resumes_to_the_same_bytes_and_predicts_at_any_size() {
    let lab = Lab::new();
    let own = "channels = [8, 16]\ndepths = [1, 1]\nnorm = \"batch\"\nimg_size = [32, 32]\n";
    let encoder = "channels = [8, 8, 16, 16]\nnorm = \"batch\"\nimg_size = [32, 32]\n\n[model.backbone.encoder]\n\
                   type = \"resnet\"\nlayers = 18\ndepths = [1, 1, 1, 1]\nstem_channels = 8\nchannels = [8, 8, 8, 8]\n";
    let rest = &TINY[TINY.find("[data]").unwrap()..];
    for (name, backbone) in [("own", own), ("encoder", encoder)] {
        let recipe =
            format!("[model.decoder]\ntype = \"fcn\"\n\n[model.backbone]\ntype = \"unet\"\n{backbone}\n{rest}");
        let recipe = lab.write(&format!("{name}.toml"), recipe);
        let recipe = recipe.to_str().unwrap();
        let [whole, halves] = ["whole", "halves"].map(|half| format!("{name}-{half}"));
        let train = |out| {
            ["train", recipe, "--out", out, "--device", "cpu", "--set", "train.ema=0.9", "--set", "train.batch_size=2"]
        };
        lab.ok(&train(&whole));
        let first = lab.run(&[&train(&halves)[..], &["--stop-after", "30"]].concat());
        assert_eq!(first.status.code(), Some(130), "{}", String::from_utf8_lossy(&first.stderr));
        lab.ok(&["train", "--resume", "--out", &halves, "--device", "cpu"]);
        assert_same(&lab, &whole, &halves);
        for (width, height) in [(33, 47), (5, 64)] {
            let picture = lab.path("odd.png");
            image::RgbImage::from_fn(width, height, |x, y| image::Rgb([(x * 5) as u8, (y * 6) as u8, 90]))
                .save(&picture)
                .unwrap();
            let model = format!("{whole}/model.safetensors");
            let out = format!("{name}-{width}");
            lab.ok(&["predict", &model, "odd.png", "--out", &out, "--device", "cpu"]);
            let mask = structtoken::image::read_mask(lab.path(&out).join("odd.png")).unwrap();
            assert_eq!(mask.size(), (width as usize, height as usize));
        }
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_saves_and_resumes_to_the_same_bytes() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let recipe = recipe.to_str().unwrap();
    lab.ok(&["train", recipe, "--out", "whole", "--device", "cpu"]);

    let mut child = lab
        .command(&["train", recipe, "--out", "cut", "--device", "cpu"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while !lab.path("cut/checkpoints/step-00000010").exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "no checkpoint after a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let status = child.wait().unwrap();
    assert!(matches!(status.code(), Some(130 | 0)), "{status}");
    lab.ok(&["train", "--resume", "--out", "cut", "--device", "cpu"]);
    assert_same(&lab, "whole", "cut");
}

/// Killed again and again, at moments that nobody chose, a run ends in the bytes of one that was left alone.
#[cfg(unix)]
#[test]
fn twenty_kills_change_nothing() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let recipe = recipe.to_str().unwrap();
    let start = Instant::now();
    lab.ok(&["train", recipe, "--out", "whole", "--device", "cpu"]);
    let whole = start.elapsed();

    let mut rng = structtoken::rng::Rng::new(9, &[]);
    let (mut kills, mut runs) = (0, 0);
    while kills < 20 {
        let out = format!("killed-{runs}");
        runs += 1;
        loop {
            let begun = lab.path(&out).join("config.toml").exists();
            let from = if begun { ["train", "--resume"] } else { ["train", recipe] };
            let mut child = lab
                .command(&[&from[..], &["--out", &out, "--device", "cpu"]].concat())
                .stderr(std::process::Stdio::piped())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(whole.mul_f32(rng.range(0.02, 0.9)));
            let _ = child.kill(); // it may have come to its end
            let ended = child.wait_with_output().unwrap();
            match ended.status.code() {
                None => kills += 1,
                Some(0) => break,
                Some(_) => panic!("{}", String::from_utf8_lossy(&ended.stderr)),
            }
            assert!(kills < 200, "the run makes no headway");
        }
        assert_same(&lab, "whole", &out);
        assert_whole_log(&lab, &out);
    }
}

#[test]
fn a_flipped_bit_is_noticed() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let recipe = recipe.to_str().unwrap();
    lab.ok(&["train", recipe, "--out", "whole", "--device", "cpu"]);
    lab.run(&["train", recipe, "--out", "run", "--device", "cpu", "--stop-after", "30"]);
    let last = lab.path("run/checkpoints/step-00000030");
    for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
        let good = bytes(&last.join(file));
        let mut flipped = good.clone();
        // A digit of the state's mIoU; the lowest bit of a weight.
        let at =
            if file == "state.json" { good.iter().rposition(|byte| *byte == b'0').unwrap() } else { good.len() - 4 };
        flipped[at] ^= 1;
        std::fs::write(last.join(file), &flipped).unwrap();
        let stopped = lab.run(&["train", "--resume", "--out", "run", "--device", "cpu", "--stop-after", "20"]);
        let talk = String::from_utf8_lossy(&stopped.stderr);
        assert!(talk.contains("iteration 30 is damaged") && talk.contains("its checksum differs"), "{file}: {talk}");
        std::fs::write(last.join(file), &good).unwrap();
    }
    // What an earlier version wrote has no checksums.
    std::fs::remove_file(last.join("checksums.json")).unwrap();
    lab.ok(&["train", "--resume", "--out", "run", "--device", "cpu"]);
    assert_same(&lab, "whole", "run");
}

/// A run that was stopped before its first checkpoint starts from its pretrained weights again.
#[test]
fn nothing_saved_is_a_fresh_start() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let recipe = recipe.to_str().unwrap();
    let cpu = ["--device", "cpu", "--set", "train.eval_every=0"];
    let short = ["train", recipe, "--out", "before", "--set", "train.iterations=5"];
    lab.ok(&[&short[..], &cpu[..]].concat());
    let train = ["train", recipe, "--set", "train.pretrained=before/model.safetensors"];
    lab.ok(&[&train[..], &cpu[..], &["--out", "whole"]].concat());
    let stopped = lab.run(&[&train[..], &cpu[..], &["--out", "late", "--stop-after", "0"]].concat());
    assert_eq!(stopped.status.code(), Some(130));
    let resumed = lab.run(&["train", "--resume", "--out", "late", "--device", "cpu"]);
    let talk = String::from_utf8_lossy(&resumed.stderr);
    assert!(resumed.status.success() && talk.contains("no checkpoint yet"), "{talk}");
    assert_same(&lab, "whole", "late");
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let recipe = recipe.to_str().unwrap();
    lab.ok(&["train", recipe, "--out", "whole", "--device", "cpu"]);
    for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
        lab.run(&["train", recipe, "--out", file, "--device", "cpu", "--stop-after", "30"]);
        let path = lab.path(file).join("checkpoints/step-00000030").join(file);
        let half = bytes(&path);
        std::fs::write(&path, &half[..half.len() / 2]).unwrap();
        let resumed = lab.run(&["train", "--resume", "--out", file, "--device", "cpu"]);
        let talk = String::from_utf8_lossy(&resumed.stderr);
        assert!(resumed.status.success() && talk.contains("iteration 30 is damaged"), "{talk}");
        assert!(talk.contains("resuming after iteration 20"), "{talk}");
        assert_same(&lab, "whole", file);
    }
}

#[test]
fn a_run_is_not_mixed_with_another() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let recipe = recipe.to_str().unwrap();
    let short = ["--set", "train.iterations=4", "--out", "run", "--device", "cpu"];
    lab.refused(&[&["train", recipe, "--resume"][..], &short[..]].concat(), &["no run to resume"]);
    lab.refused(&["train", "--resume", "--out", "run", "--device", "cpu"], &["no run to resume"]);
    let lock = structtoken::files::Lock::take(&lab.path("run")).unwrap();
    lab.refused(&[&["train", recipe][..], &short[..]].concat(), &["in use by another process"]);
    drop(lock);
    lab.ok(&[&["train", recipe][..], &short[..]].concat());
    lab.refused(&[&["train", recipe][..], &short[..]].concat(), &["already holds a run", "--resume"]);
    let other = ["train", recipe, "--resume", "--set", "train.iterations=5", "--out", "run", "--device", "cpu"];
    lab.refused(&other, &["other settings", "train.iterations: 4 -> 5"]);
}

/// Accumulating four passes of one image is one pass of four, and a frozen backbone keeps its bytes.
#[test]
fn accumulation_and_freezing() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let recipe = recipe.to_str().unwrap();
    let base = ["train", recipe, "--device", "cpu", "--set", "train.loss_mean=all"];
    let still = ["--set", "model.backbone.drop_path_rate=0", "--set", "model.decoder.drop_path_rate=0"];
    let run = |out: &str, more: &[&str]| {
        lab.ok(&[&base[..], &still[..], &["--out", out], more].concat());
        structtoken::weights::read(&lab.path(out).join("model.safetensors")).unwrap().tensors
    };
    let one = ["--set", "train.iterations=1", "--set", "train.schedule.warmup_iters=0"];
    let whole = run("whole", &one);
    let parts = run("parts", &[&one[..], &["--set", "train.accumulate=4"]].concat());
    for (name, tensor) in &whole {
        // AdamW's first step is the sign of the gradient: where that is rounding noise, it may turn.
        let close = tensor.data.iter().zip(&parts[name].data).filter(|(a, b)| (*a - *b).abs() < 1e-4).count();
        assert!(
            close * 100 >= tensor.data.len() * 97 || name.ends_with("qkv.bias"),
            "{name}: {close} of {}",
            tensor.data.len()
        );
    }

    let frozen = run("frozen", &["--set", "train.iterations=3", "--set", "train.freeze_backbone=true"]);
    let start = run("start", &["--set", "train.iterations=1", "--set", "train.optimizer.lr=0"]);
    let same = |name: &str| frozen[name] == start[name];
    assert!(frozen.keys().filter(|name| name.starts_with("backbone.")).all(|name| same(name)));
    assert!(!same("decoder.kernels"));
}

/// From a checkpoint that was written on the way, with all that a run can carry along.
#[test]
fn every_part_of_a_run_is_in_its_checkpoint() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let recipe = recipe.to_str().unwrap();
    let adamw = ["train.ema=0.9", "train.optimizer.layer_decay=0.7", "train.loss.dice=1", "train.accumulate=2"];
    // The convolutional head has running statistics.
    let sgd = ["train.optimizer.type=sgd", "train.schedule.policy=cosine", "train.schedule.backbone_delay=25"];
    let head = ["model.decoder={ type = \"fcn\", num_convs = 1, channels = 16 }", "train.loss.ohem_threshold=0.5"];
    for (name, changes) in [("adamw", adamw.to_vec()), ("sgd", [&sgd[..], &head[..]].concat())] {
        let changes: Vec<&str> = changes.iter().flat_map(|change| ["--set", change]).collect();
        let all = ["train", recipe, "--out", name, "--device", "cpu", "--set", "train.keep_checkpoints=9"];
        lab.ok(&[&all[..], &changes].concat());
        let whole = lab.path(name);
        let steps = lab.path(name).join("checkpoints");
        let last = ["model.safetensors", "scores.json", "checkpoints/step-00000060/optimizer.safetensors"];
        let ema = (name == "adamw").then_some("checkpoints/step-00000060/ema.safetensors");
        let files: Vec<&str> =
            last.into_iter().chain(ema).chain(["checkpoints/step-00000060/model.safetensors"]).collect();
        let before: Vec<Vec<u8>> = files.iter().map(|file| bytes(&whole.join(file))).collect();
        if let Some(ema) = ema {
            assert!(bytes(&whole.join(ema)) != bytes(&whole.join(files[4])), "the average is not the weights");
        }
        for step in [20, 30, 40, 50, 60] {
            std::fs::remove_dir_all(steps.join(format!("step-{step:08}"))).unwrap();
        }
        for file in ["model.safetensors", "scores.json"] {
            std::fs::remove_file(whole.join(file)).unwrap();
        }
        lab.ok(&["train", "--resume", "--out", name, "--device", "cpu"]);
        for (file, before) in files.iter().zip(before) {
            assert!(bytes(&whole.join(file)) == before, "{name}: {file} differs");
        }
    }
}

/// Stopped at iterations that nobody chose, with seeds that nobody chose, every run goes on. `STRUCTTOKEN_STOPS=300`
/// tries more.
#[test]
fn no_intact_run_is_refused() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let stops = std::env::var("STRUCTTOKEN_STOPS").map_or(6, |count| count.parse().unwrap());
    let mut rng = structtoken::rng::Rng::new(17, &[]);
    for number in 0..stops {
        let (seed, stop) = (format!("train.seed={}", rng.below(1000)), (1 + rng.below(23)).to_string());
        let out = format!("run-{number}");
        let train = ["train", recipe.to_str().unwrap(), "--out", &out, "--device", "cpu", "--stop-after", &stop];
        let small =
            ["train.iterations=24", "train.eval_every=3", "train.save_every=4", "train.tensorboard=false", &seed];
        let changes: Vec<&str> = small.iter().flat_map(|change| ["--set", change]).collect();
        let stopped = lab.run(&[&train[..], &changes].concat());
        assert_eq!(stopped.status.code(), Some(130), "{}", String::from_utf8_lossy(&stopped.stderr));
        let resumed = lab.run(&["train", "--resume", "--out", &out, "--device", "cpu"]);
        let talk = String::from_utf8_lossy(&resumed.stderr);
        assert!(resumed.status.success() && !talk.contains("damaged"), "{seed}, stopped before {stop}: {talk}");
        std::fs::remove_dir_all(lab.path(&out)).unwrap();
    }
}

#[test]
fn a_run_goes_on_with_its_own_data_only() {
    let lab = Lab::new();
    let recipe = bad_input::set(&lab);
    let train = ["train", &recipe, "--out", "run", "--device", "cpu", "--set", "train.iterations=3"];
    let resume = ["train", "--resume", "--out", "run", "--device", "cpu"];
    // Before anything was learned, other data are as good.
    let stopped = lab.run(&[&train[..], &["--stop-after", "0"]].concat());
    assert_eq!(stopped.status.code(), Some(130));
    let image = lab.path("images/0.png");
    let good = bytes(&image);
    let other = image::open(&image).unwrap().fliph();
    other.save(&image).unwrap();
    let stopped = lab.run(&[&resume[..], &["--stop-after", "2"]].concat());
    assert_eq!(stopped.status.code(), Some(130), "{}", String::from_utf8_lossy(&stopped.stderr));
    let begun = bytes(&image);

    std::fs::write(&image, good).unwrap();
    let talk = lab.refused(&resume, &["[train]: 1 image changed (0)", "restore the files", "train.pretrained = "]);
    std::fs::write(&image, &begun).unwrap();
    for (path, what) in
        [("images/new.png", "1 image new (new)"), ("masks/0.png", "1 image changed only in their masks (0)")]
    {
        let path = lab.path(path);
        let before = path.exists().then(|| bytes(&path));
        if before.is_none() {
            std::fs::copy(&image, &path).unwrap();
            std::fs::copy(lab.path("masks/0.png"), lab.path("masks/new.png")).unwrap();
        } else {
            image::open(&path).unwrap().fliph().save(&path).unwrap();
        }
        lab.refused(&resume, &[what]);
        match before {
            Some(before) => std::fs::write(&path, before).unwrap(),
            None => [path, lab.path("masks/new.png")].iter().for_each(|path| std::fs::remove_file(path).unwrap()),
        }
    }
    let toml = lab.path("set.toml");
    let described = std::fs::read_to_string(&toml).unwrap();
    std::fs::write(&toml, described.replace("\"thing\"", "\"other\"")).unwrap();
    lab.refused(&resume, &["another label map"]);
    std::fs::write(&toml, described).unwrap();

    // Both ways out work.
    let pretrained = talk.split("train.pretrained = \"").nth(1).unwrap().split('"').next().unwrap();
    let from = format!("train.pretrained={pretrained}");
    lab.ok(&["train", &recipe, "--out", "other", "--device", "cpu", "--set", "train.iterations=1", "--set", &from]);
    lab.ok(&resume);
}

#[test]
fn a_run_goes_on_with_its_own_recipe_only() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let resume = ["train", "--resume", "--out", "run", "--device", "cpu"];
    let train = ["train", recipe.to_str().unwrap(), "--out", "run", "--device", "cpu", "--stop-after", "20"];
    lab.run(&train);
    let own = lab.path("run/config.toml");
    let good = std::fs::read_to_string(&own).unwrap();
    let mut talk = String::new();
    for (edited, said) in [
        (good.replace("lr = 0.001", "lr = 0.002"), "train.optimizer.lr: 0.001 -> 0.002"),
        (
            good.replace("seed = 0\niter", "seed = 5\niter").replace("\nseed = 0\n", "\nseed = 5\n"),
            "train.seed: 0 -> 5",
        ),
        (good.split("[train]").next().unwrap().to_owned(), "train.iterations: 60 -> 160000"),
    ] {
        assert_ne!(edited, good);
        std::fs::write(&own, edited).unwrap();
        talk = lab.refused(&resume, &[said, "is no longer the recipe"]);
        // An earlier version kept no recipe in a checkpoint, but some of it in the model file.
        if said.contains("seed") {
            let moved = |there: bool| {
                for (step, file) in
                    [10, 20].into_iter().flat_map(|step| [(step, "config.toml"), (step, "checksums.json")])
                {
                    let place = lab.path(&format!("run/checkpoints/step-{step:08}")).join(file);
                    let aside = lab.path(&format!("{step}-{file}"));
                    let (from, to) = if there { (place, aside) } else { (aside, place) };
                    std::fs::rename(from, to).unwrap();
                }
            };
            moved(true);
            let manifest = lab.path("run/manifest.json");
            let noted = bytes(&manifest);
            std::fs::remove_file(&manifest).unwrap();
            lab.refused(&resume, &[said, "restore the values on the left of each arrow"]);
            std::fs::write(&manifest, noted).unwrap();
            // The manifest alone tells as much.
            lab.refused(&resume, &[said, "restore the values on the left of each arrow"]);
            moved(false);
        }
    }
    let remedy = talk.split("restore the recipe with `").nth(1).unwrap().split('`').next().unwrap();
    assert!(
        std::process::Command::new("sh").args(["-c", remedy]).current_dir(lab.dir.path()).status().unwrap().success()
    );
    lab.ok(&resume);
    lab.ok(&["train", recipe.to_str().unwrap(), "--out", "whole", "--device", "cpu"]);
    assert_same(&lab, "whole", "run");
}

#[test]
fn a_run_without_progress_ends_early() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let still = ["--set", "train.optimizer.lr=0", "--set", "train.eval_every=5", "--set", "train.patience=2"];
    let train = ["train", recipe.to_str().unwrap(), "--out", "run", "--device", "cpu"];
    let ended = lab.run(&[&train[..], &still].concat());
    let talk = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && talk.contains("stopping early, after iteration 15"), "{talk}");
    // It stays ended.
    let again = lab.run(&["train", "--resume", "--out", "run", "--device", "cpu"]);
    let talk = String::from_utf8_lossy(&again.stderr);
    assert!(again.status.success() && talk.contains("stopping early, after iteration 15"), "{talk}");
    let never = ["--set", "train.patience=2", "--set", "train.eval_every=0", "--out", "never"];
    lab.refused(&[&train[..2], &never].concat(), &["eval_every"]);
}

#[test]
fn runs_of_one_recipe_are_numbered() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let train = ["train", recipe.to_str().unwrap(), "--device", "cpu", "--set", "train.iterations=2"];
    lab.ok(&train);
    lab.ok(&train);
    assert!(lab.path("runs/tiny/model.safetensors").exists() && lab.path("runs/tiny-2/model.safetensors").exists());
    // The last one goes on.
    std::fs::remove_file(lab.path("runs/tiny-2/model.safetensors")).unwrap();
    lab.ok(&[&train[..], &["--resume"]].concat());
    assert!(lab.path("runs/tiny-2/model.safetensors").exists() && !lab.path("runs/tiny-3").exists());
}

/// Killed after an evaluation was logged and before it was noted in the checkpoint, a run evaluates again, and logs it
/// once.
#[test]
fn an_evaluation_that_is_made_again_is_logged_once() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let recipe = recipe.to_str().unwrap();
    lab.ok(&["train", recipe, "--out", "run", "--device", "cpu", "--set", "train.keep_checkpoints=9"]);
    let whole = bytes(&lab.path("run/model.safetensors"));
    // The checkpoint of iteration 40 as it was before its evaluation, and none after it; the log goes on beyond.
    let steps = lab.path("run/checkpoints");
    for step in [50, 60] {
        std::fs::remove_dir_all(steps.join(format!("step-{step:08}"))).unwrap();
    }
    let state = steps.join("step-00000040/state.json");
    let mut fields: serde_json::Value = serde_json::from_slice(&bytes(&state)).unwrap();
    let earlier: serde_json::Value = serde_json::from_slice(&bytes(&steps.join("step-00000030/state.json"))).unwrap();
    for field in ["best", "evaluated", "stale"] {
        fields[field] = earlier[field].clone();
    }
    // Without its checksum, as an early version would have written it.
    fields.as_object_mut().unwrap().remove("crc32");
    std::fs::write(&state, fields.to_string()).unwrap();
    lab.ok(&["train", "--resume", "--out", "run", "--device", "cpu"]);
    assert_whole_log(&lab, "run");
    assert!(bytes(&lab.path("run/model.safetensors")) == whole);
    // The weights alone were lost: they are made again, and nothing is logged.
    std::fs::remove_file(lab.path("run/model.safetensors")).unwrap();
    lab.ok(&["train", "--resume", "--out", "run", "--device", "cpu"]);
    assert_whole_log(&lab, "run");
}

/// Runs of this many seeds, each stopped after some evaluations at an iteration drawn at random, go on from there.
fn stopped_and_resumed(runs: u64) {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let recipe = recipe.to_str().unwrap();
    let mut refused = Vec::new();
    let few = ["train.eval_every=3", "data.shapes.val=3", "train.tensorboard=false"].map(|change| ["--set", change]);
    for run in 0..runs {
        let mut rng = structtoken::rng::Rng::new(300, &[run]);
        let stop = 4 + rng.below(20) as u64;
        let (out, seed) = (format!("run-{run}"), format!("train.seed={run}"));
        let common = ["--out", &out, "--device", "cpu", "--threads", "1"];
        let start = [&["train", recipe, "--set", &seed][..], &few.concat(), &common].concat();
        let stopped = lab.run(&[&start[..], &["--stop-after", &stop.to_string()]].concat());
        assert_eq!(stopped.status.code(), Some(130), "{}", String::from_utf8_lossy(&stopped.stderr));
        let next = (stop + 1).to_string();
        let resumed = lab.run(&[&["train", "--resume"][..], &common, &["--stop-after", &next]].concat());
        let talk = String::from_utf8_lossy(&resumed.stderr).into_owned();
        let from = format!("resuming after iteration {stop}\n");
        if resumed.status.code() != Some(130) || !talk.contains(&from) || talk.contains("damaged") {
            refused.push((run, stop, talk));
        }
        std::fs::remove_dir_all(lab.path(&out)).unwrap();
    }
    eprintln!("{runs} runs were stopped and resumed, {} of them refused", refused.len());
    assert!(refused.is_empty(), "{refused:?}");
}

#[test]
fn twelve_stopped_runs_go_on() {
    stopped_and_resumed(12);
}

/// Minutes: `cargo test --release --test it -- --ignored three_hundred --nocapture`.
#[test]
#[ignore = "takes minutes"]
fn three_hundred_stopped_runs_go_on() {
    stopped_and_resumed(300);
}

/// The cells of this grid, 900, are those of a square one too.
#[cfg(unix)]
#[test]
fn a_grid_of_25_by_36_is_killed_and_resumed_to_the_same_bytes() {
    let lab = Lab::new();
    let changes = [
        ("img_size = [32, 32]", "img_size = [50, 72]"),
        ("patch_size = 8", "patch_size = 2"),
        ("embed_dim = 24", "embed_dim = 8"),
        ("depth = 2", "depth = 1"),
        ("num_blocks = 2", "num_blocks = 1"),
        ("size = 32, train = 64, val = 6", "size = 64, train = 8, val = 1"),
        ("crop = [32, 32]", "crop = [50, 72]"),
        ("iterations = 60", "iterations = 12"),
        ("batch_size = 4", "batch_size = 1"),
        ("eval_every = 20", "eval_every = 6"),
        ("save_every = 10", "save_every = 2"),
    ];
    let recipe = changes.iter().fold(TINY.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    });
    let recipe = lab.write("wide.toml", recipe);
    let recipe = recipe.to_str().unwrap();
    lab.ok(&["train", recipe, "--out", "whole", "--device", "cpu"]);
    // One that came to its end before it was killed shows nothing, and is done again.
    let killed = (0..20).any(|_| {
        std::fs::remove_dir_all(lab.path("cut")).ok();
        let mut child = lab
            .command(&["train", recipe, "--out", "cut", "--device", "cpu"])
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while !lab.path("cut/checkpoints/step-00000004").exists() {
            assert!(started.elapsed() < Duration::from_secs(60), "no checkpoint after a minute");
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = child.kill();
        child.wait().unwrap().code().is_none()
    });
    assert!(killed);
    lab.ok(&["train", "--resume", "--out", "cut", "--device", "cpu"]);
    let last = "checkpoints/step-00000012";
    for file in [
        "model.safetensors",
        "scores.json",
        &format!("{last}/model.safetensors"),
        &format!("{last}/optimizer.safetensors"),
    ] {
        assert!(bytes(&lab.path("whole").join(file)) == bytes(&lab.path("cut").join(file)), "{file} differs");
    }
}
