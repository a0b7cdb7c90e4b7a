//! Nothing is advised that cannot be done. All texts of the program that print a command, an option or a key are
//! collected from its source: what they print has to exist, and each has to be in the list of a test that carries it
//! out. A new text that is in no list fails here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use structtoken::config::Config;

/// A string of the source that prints a command, an option or a key.
struct Advice {
    place: String,
    text: String,
}

/// The same, of what is in the program with the feature `serve`.
const SERVED: &[(&str, &[&str])] = &[
    (
        "what_cannot_be_served_is_told_at_the_start",
        &["pass another address or port with --bind, such as --bind 127.0.0.1:8081"],
    ),
    ("what_takes_too_long_after_the_end_is_told", &["pass a longer --drain-time"]),
    (
        "a_server_without_room_for_what_it_accepts_does_not_start",
        &[
            "lower --max-pixels or --max-queue, or give the server more memory",
            "lower --max-pixels, --max-queue or --threads",
        ],
    ),
    ("a_queue_without_room_for_any_image_is_refused", &["pass a queue of at least --max-queue "]),
    ("tokens_are_asked_for", &["start it with --admin-token-file FILE"]),
    ("pages_elsewhere_may_not_ask_unless_they_are_named", &["start the server with --cors ORIGIN"]),
    (
        "label_studio_gets_brush_strokes_of_its_images",
        &[
            "start it with --label-studio http://HOST:PORT, the address of Label Studio",
            "start the server with --label-studio and the address of the links",
        ],
    ),
];

/// What carries out which advice: the name of a test, and a part of each text that it takes from the output, or
/// provokes, and follows.
const CARRIED_OUT: &[(&str, &[&str])] = &[
    (
        "eight_bits_are_used_once_their_cost_is_known",
        &[
            "leave out --train, or pass --precision bf16",
            "leave --weights out",
            "f32 and eight bits are compared, whatever it says",
            "pass another --precision",
            "is for models whose cost in eight bits is known",
        ],
    ),
    ("nothing_is_quantized_without_a_score", &["name images with masks by --data or --split"]),
    ("shapes_of_another_image_are_not_taken", &["to read the masks instead, pass both folders"]),
    (
        "options_that_do_not_fit_a_format_are_refused",
        &[
            "`--tolerance` changes polygons, and none are written",
            "add --format geojson or --format coco, or leave --tolerance out",
            "`--min-area` changes annotations, and none are written",
            "or leave --min-area out",
        ],
    ),
    ("names_are_not_given_crosswise", &["or pass names in the order of the dataset's own"]),
    (
        "commands_about_a_run_work_wherever_it_lies",
        &[
            "saved after iteration {}; continue with:\n  structtoken train --resume --out {}",
            "`structtoken eval {model} --out {scores}` writes them again",
        ],
    ),
    (
        "what_is_said_of_weights_that_do_not_fit_makes_them_fit",
        &[
            "model.backbone.num_heads = {heads}",
            "set model.backbone.embed_dim = {a} and {heads}",
            "set model.backbone.patch_size = {a}",
            "set model.backbone.depth = {0}",
            "set model.backbone.init_values = 1.0",
            "set model.backbone.class_token = {}",
            "set model.backbone.final_norm = {}",
            "set model.backbone.reg_tokens = {}",
            "set model.decoder.num_blocks = {a}",
            "load only the backbone: train.pretrained with train.pretrained_backbone_only = true",
        ],
    ),
    (
        "what_is_said_of_too_little_memory_makes_it_enough",
        &["use eval.mode=slide instead of eval.mode=whole", "cut the image into tiles"],
    ),
    (
        "few_processes_are_an_error_that_says_so",
        &[
            "start fewer threads with --threads 1",
            "or use fewer --threads or lower data.workers",
            "or use fewer --threads",
            "--threads 1",
        ],
    ),
    ("masks_that_are_jpegs_are_read_on_request", &["--jpeg-tolerance"]),
    ("jpeg_masks_are_taken_where_the_set_allows_them", &["`jpeg_tolerance = 255`"]),
    (
        "twelve_bits_in_sixteen_are_seen_as_the_set_says",
        &["`range = [{from}, {to}]`, which are clipped", "; `structtoken data check` prints the lines to add"],
    ),
    (
        "an_evaluation_names_classes_where_that_can_work",
        &[
            "structtoken data init {} --names {} --out {}",
            "name them so: {command}, and then --data {other}",
            "then --data {other}",
        ],
    ),
    ("notes_print_commands_that_work", &["{} --names a,b,c", "structtoken data init", "structtoken data check {}"]),
    (
        "options_that_masks_have_no_use_for_are_refused",
        &[
            "--names-from says which value the first name has, and colours have no order",
            "--names-from says which value the first name has, and there is no list",
            "--pixels is for coordinates of YOLO",
            "--void is for values of masks that are labels",
            "--jpeg-tolerance is for masks that are JPEGs",
            "--text is for names in text files",
        ],
    ),
    (
        "a_model_goes_on_with_other_classes",
        &[
            "instead of --from pass --set train.pretrained={} --set train.pretrained_backbone_only=true",
            "`structtoken train … --from {shown}` does; or only its backbone, with train.pretrained_backbone_only = true",
            "for other weights use --pretrained or train.pretrained",
        ],
    ),
    (
        "the_way_out_of_other_data_works",
        &["`structtoken train {recipe} --out OTHER --set {start}`", "train.pretrained={}"],
    ),
    ("a_run_without_a_checkpoint_is_begun_again", &["start it again with `structtoken train {recipe} --out {own}`"]),
    ("files_that_no_prediction_wrote_are_replaced_only_when_asked", &["or replace such files too with --overwrite"]),
    (
        "what_is_advised_about_options_works",
        &[
            "`structtoken bench --help` names the options",
            "pass a recipe, `structtoken compare configs/shapes/demo.toml`, or the folder of a comparison with --out",
            "pass a recipe to start one, or the right folder with --out",
            "pass the shard explicitly: `--shard 1/4`",
            "add `--shards N`, or pass `--shard I/N`",
            "pass `--shard 1/4`; --shards is for array jobs",
            "choose another folder with --out",
            "pass a model file, or add `--weights FILE`",
            "predict them in two calls with a different --out",
            "pass one, for instance `structtoken train configs/shapes/demo.toml`, or try `structtoken demo`",
            "pass it: --out runs/NAME",
            "`structtoken train {} --plan > recipe.toml` writes one",
            "`structtoken train DIR` plans a recipe for it",
            "for instance `--set train.iterations=1000` or `--set model.decoder.block=cse`",
            "several seeds serve the same purpose: --seeds 5",
            "resume it with --resume, or choose another folder with --out",
            "leave out the recipe and --set to use what it was started with",
            "start it without --resume, or pass the right folder with --out",
            "or pass a recipe and leave out --resume",
            "shards count from 1: `--shard 1/4` to `--shard 4/4`",
            "for instance `--shard 1/4`",
            "for instance `--with eomt.num_queries=20`",
            "name at least one decoder, and 1 to 100 seeds: `--decoders cse,pwe --seeds 3`",
            "name each once; --seeds repeats it",
            "for instance `--budget 20m` or `--iterations 1000`",
            "for instance `--budget 90s`, `20m` or `1h30m`",
            "next: structtoken data check {}",
            "`structtoken data init DIR` writes such a file",
            "before you train with this recipe, run: structtoken data init {}",
            "{program} predict {model} photo.jpg --overlay",
            "{program} eval {model} --set eval.flip=true",
            "{program} eval {model} --label-issues 30 --report {page}",
            "{program} inspect {model}",
            "{program} train DIR --budget 5m",
            "resume them with --resume, or choose another folder with --out",
            "resume it without --seeds and --folds",
            "start them without --resume, or pass their folder with --out",
            "one run is what `structtoken train` does without --seeds and --folds",
        ],
    ),
    (
        "shards_and_merging_follow_their_advice",
        &[
            "pass files that `structtoken eval MODEL --shard I/N --out FILE` wrote",
            "pass the files that `--shard I/N --out FILE` wrote",
            "evaluate them with `--shard I/N --out FILE`, and pass all files",
        ],
    ),
    (
        "a_dataset_that_moved_is_found_or_named",
        &[
            "pass where the dataset is now: --set data.dataset=PATH",
            "replace DIR by its folder in: --set data.root=DIR",
            ": --set data.root=DIR",
            "--root DIR",
            "--set data.root=DIR",
        ],
    ),
    ("sets_without_a_validation_split_get_one", &["hold out a part of [train]: --set 'data.fold="]),
    ("images_say_what_is_not_read_of_them", &["add --set data.preprocess.range=[0,{most}]"]),
    (
        "what_is_advised_about_places_works",
        &[
            "or use `--device cpu`",
            "`structtoken inspect configs/shapes/demo.toml` prints all keys",
            "pass the dataset with --data, which matches classes by name",
        ],
    ),
    (
        "what_is_advised_about_folders_works",
        &[
            "run: structtoken data init {}, which draws masks",
            "run: structtoken data init {}, which writes lists",
            "`structtoken data check {}` names the files",
            "in it holds images and masks; run: structtoken data init {}",
            "; put them into one, with the folder in each name: cd ",
            "as in --names sky,road,car",
            "(whole with --json)",
            "choose a folder that you may read and write with --out",
        ],
    ),
    ("palettes_that_differ_are_read_by_colour", &["set palettes = \"any\"", "palettes = \"any\", at the top too"]),
    ("an_interrupt_saves_and_the_rest_follows", &["saved; continue with:\n  structtoken compare --out {}"]),
    (
        "what_is_advised_after_damage_works",
        &[
            "saved; continue with:\n  structtoken train --resume --out {}",
            "their errors are above; continue with --resume --out {}",
            "then continue with --resume, or run `compare` again",
            ", and continue with --resume",
            "`structtoken compare` writes it: choose another --out",
            "`structtoken compare` writes it: restore it, or choose another --out",
            "start again in another folder: `structtoken train {} --out OTHER`",
            "`structtoken inspect` shows the range of every tensor",
            "pass the folders that `structtoken compare` wrote, not those of single runs",
        ],
    ),
    (
        "runs_of_several_seeds_are_of_one_recipe_and_the_same_data",
        &[
            "restore those values to continue; or start all runs again in another folder with --out",
            "restore the data to continue; or start all runs again in another folder with --out",
        ],
    ),
    (
        "what_is_advised_about_learning_works",
        &[
            "--set train.optimizer.lr={:.1e}",
            "--set train.optimizer.clip_norm=1.0",
            "--set train.precision=f32",
            "to start from the good weights set train.pretrained = \"{}\"",
            "with a lower train.optimizer.lr, train.optimizer.clip_norm = 1.0 or more train.schedule.warmup_iters",
        ],
    ),
    (
        "what_is_advised_about_networks_and_weights_works",
        &[
            "use model.backbone.type = \"vit\" or \"dinov3\"",
            "for instance model.backbone.out_indices = {example}",
            "set as many, the finest first: model.backbone.channels = {example:?}",
            "use them through a recipe, as train.pretrained or with `eval RECIPE --weights FILE`",
            "or leave --pretrained out",
            "model.backbone.out_indices = [3, 2, 1, 0] of a ResNet",
        ],
    ),
    (
        "what_is_said_of_weights_that_do_not_fit_makes_them_fit",
        &[
            "set model.backbone.type = \"dinov3\"",
            "set model.backbone.type = \"vit\"",
            "set model.backbone.mlp_layer = ",
            "set model.backbone.qkv_bias = {}",
        ],
    ),
    ("a_folder_that_may_not_be_written", &["choose a folder that you may read and write with --out"]),
    (
        "a_full_disk_keeps_the_last_checkpoint",
        &["earlier checkpoints, if any, are untouched; {}, then continue with --resume"],
    ),
    ("weights_beyond_half_precision_are_caught_with_their_layer", &["keep the weights as they are: --precision f32"]),
    (
        "weights_beyond_eight_bits_are_caught_with_their_layer",
        &["store the weights less coarsely: --precision f16", "compute in f32: --precision int8"],
    ),
    ("sizes_that_would_be_padded_are_refused_with_one_that_fits", &["--size {}x{}"]),
    ("what_is_there_is_not_lost", &["add a name, as in --out {file}; or add --profile hf or triton for a folder"]),
    (
        "sizes_beyond_the_memory_are_refused_before_any_work",
        &[
            "add --web DIR, or leave --runtime out",
            "export for a smaller size with --size HxW, such as a window of the model",
        ],
    ),
    (
        "what_cannot_be_exported_is_refused_and_nothing_is_left",
        &[
            "--size {side}x{side}",
            "name another file after --out",
            "pass --size once, or export each to a folder of its own",
        ],
    ),
    ("a_page_is_written_whole_or_not_at_all", &["then pass --runtime package"]),
    (
        "what_fails_is_noted_and_tried_again_when_asked",
        &[
            "the manifest says why; all others are written, and --only-failed tries these again",
            "leave out --only-failed to label all of the list first",
            "use a format with a file per image: --format png",
        ],
    ),
    (
        "failures_are_tried_again_with_the_list_they_are_of",
        &["repeat the command without --only-failed", "repeat the command with the --list that was labelled"],
    ),
    (
        "what_is_missing_or_changed_is_found_and_labelled_again",
        &[
            "`--only-failed --verify` labels again what failed",
            "say which are meant with --shards N",
            "pass the folder that a list was labelled into with --out",
        ],
    ),
    ("a_list_that_is_none_is_refused_with_its_line", &["or pass it to --list - by a pipe"]),
    (
        "a_folder_holds_what_one_model_labelled_with_one_set_of_options",
        &[
            "or label all shards with the same model and options",
            "name one folder for all of them with --out: each shard has a manifest",
        ],
    ),
    (
        "tasks_of_an_array_are_started_again_by_their_numbers",
        &[
            "as by --shards 64: then {} counts from 0",
            "or state their number with --shards",
            "leave out --shards, or start",
        ],
    ),
    (
        "shards_of_the_environment_share_the_images",
        &[
            "into the name: `--out {example}`",
            "add `--shard auto` or `--shard 1/4`, or take `{PLACE}` out of the name",
            "or `--shard auto` in an array job",
            "add `--shard auto`, or leave out --shards",
            "leave out --shards; it is for array jobs that do not state their size",
        ],
    ),
    (
        "shards_of_other_work_are_refused_with_what_to_do",
        &[
            "pass files that `structtoken data check DATASET --shard I/N --out FILE` wrote",
            "pass the files of all shards that `data check --shard I/N --out FILE` wrote",
            "run `data check --shard` again for all shards",
            "run `data check --shard` again for this shard",
            "structtoken data init {}, so that all shards see the same description",
        ],
    ),
    ("shards_report_what_one_process_does", &["report all shards with --parts"]),
    (
        "a_store_that_cannot_be_had_ends_all_with_what_to_do",
        &["and pass it with --list; or pass them to --list - by a pipe"],
    ),
    (
        "a_fault_of_a_store_is_told_from_those_of_objects",
        &[
            "--give-up-after 0 notes such images and goes on",
            "say into how many shards the list was divided with --shards N",
        ],
    ),
    ("answers_that_no_store_should_give_are_faults_of_one_line", &["or replace such objects too with --overwrite"]),
    (
        "several_processes_of_one_run_are_refused_without_mpi",
        &["build the program with `--features mpi` and add --mpi, or start it without mpirun"],
    ),
    (
        "faults_end_all_processes",
        &[
            "its own error is above; what was saved is intact, continue with --resume",
            "set train.accumulate={count}, or start at most",
            "or set train.batch_size={size} and train.accumulate={size}",
        ],
    ),
    (
        "a_process_with_other_weights_is_caught_before_they_are_saved",
        &["nothing was saved since: continue from the last checkpoint with --resume"],
    ),
    (
        "damaged_files_are_not_verified",
        &["only files that `structtoken export` wrote can be compared with their model"],
    ),
];

/// Mentions of an option in what is said, which ask for nothing.
const SAID: &[&str] = &[
    "--runtime goes with --web",
    "leave out --other-seed",
    "--percent is for coordinates of YOLO",
    "--names-from {first} counts {} from {first}, up to {}",
    "{remedy}; --out chooses another place",
    "--weights goes with a recipe; a model file has its own",
    "--shards gives the number of shards",
    "--child needs --out",
    "--set {change}: the architecture of",
    "--classes {classes} is not between",
    "--plan, --budget and --pretrained are for a dataset",
    "--resume needs the folder of the run",
    "after --set {}: {}",
    " --set ",
    "--set `{change}` is not of the form",
    "--with `{change}`: {text}",
    "--decoders names `{name}` twice",
    "--names gives",
    "--names has no use",
    "--images has no use",
    "--void leaves {absent} out",
    "`structtoken demo` made this folder",
    "described by `structtoken data init`",
    "# Checksums by `structtoken data init`, do not edit: ",
    "# As `structtoken init` wrote it: ",
    "train.schedule.warmup_iters = {warmup} does not end within train.iterations = {iterations}",
    "structtoken predict ",
    "--shards is for --shard auto",
    "--shard I/N gives the number of shards, and so does --shards",
    "--shard auto: this process is not a task of an array job",
    "processes were started for one run, without --mpi",
    "--mpi: this build brings no MPI",
    "build one that does: cargo build --release --features full,mpi, with an MPI library",
    "names the file of a shard, and there is no --shard",
    "{name} is {stated}, and --shards is {shards}",
    "{name} is {value}, and {from_zero} (--shards {shards})",
    "of the {shards} shards (--shards)",
    "--shard auto: the tasks are not 0 to",
    "holds several runs, and --mpi is for one",
];

/// Advice for what a test cannot have: a full or foreign disk, an accelerator, an hour, a network that diverges at
/// will. Their options and keys are looked up all the same. This list may only become shorter.
const OUT_OF_REACH: &[&str] = &[
    // Memory that runs out at sizes which take long to get there.
    "use a smaller --size, or a recipe with larger patches",
    "use a smaller --batch or --size, or a smaller network",
    "ask for less: smaller batches, crops, images or --threads; --resume continues",
    "--set eval.mode=slide uses a sliding window",
    // Minutes.
    "`--budget {}m` leaves time for all of them",
    "pass --iterations instead of --budget",
    "--set model.backbone.norm=batch or group decides it",
    // A build without the feature `full`, whose test is in `cli.rs`.
    "build one that has: cargo build --release --features full",
    "build one that does: cargo build --release --features full",
    // An accelerator.
    "pass --device cpu",
    "use `--device {kind}:{}`",
    // A build with MPI, whose tests are in `mpi.rs`.
    "add --mpi, and they share its work",
    "leave out --mpi, or name one of its runs with --out",
    // A build that carries models.
    "`structtoken models` lists those of this build",
    // Two readings of names that no command line can hold.
    "--names with each value's name in order",
    "--names A,B,…",
];

/// All strings of a source text, without those of comments, with their lines.
fn strings(text: &str) -> Vec<(usize, String)> {
    let bytes: Vec<char> = text.chars().collect();
    let (mut at, mut line, mut found) = (0, 1, Vec::new());
    let starts = |at: usize, what: &str| what.chars().enumerate().all(|(i, c)| bytes.get(at + i) == Some(&c));
    while at < bytes.len() {
        let raw = (bytes[at] == 'r' && (at == 0 || !(bytes[at - 1].is_alphanumeric() || bytes[at - 1] == '_')))
            .then(|| bytes[at + 1..].iter().take_while(|c| **c == '#').count());
        if starts(at, "//") {
            while at < bytes.len() && bytes[at] != '\n' {
                at += 1;
            }
        } else if bytes[at] == '\'' {
            // A character, or a lifetime.
            let length = if bytes.get(at + 1) == Some(&'\\') { 3 } else { 2 };
            at += if bytes.get(at + length) == Some(&'\'') { length + 1 } else { 1 };
        } else if let Some(hashes) = raw.filter(|hashes| bytes.get(at + 1 + hashes) == Some(&'"')) {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = at + 2 + hashes;
            at = (start..bytes.len()).find(|at| starts(*at, &end)).unwrap_or(bytes.len());
            let inner: String = bytes[start..at].iter().collect();
            found.push((line, inner.clone()));
            line += inner.matches('\n').count();
            at += end.len();
        } else if bytes[at] == '"' {
            let (first, mut inner) = (line, String::new());
            at += 1;
            while at < bytes.len() && bytes[at] != '"' {
                if bytes[at] == '\\' {
                    at += 1;
                    match bytes[at] {
                        '\n' => {
                            while bytes[at].is_whitespace() {
                                line += usize::from(bytes[at] == '\n');
                                at += 1;
                            }
                            continue;
                        }
                        'n' => inner.push('\n'),
                        '0' => {}
                        other => inner.push(other),
                    }
                } else {
                    line += usize::from(bytes[at] == '\n');
                    inner.push(bytes[at]);
                }
                at += 1;
            }
            at += 1;
            found.push((first, inner));
        } else {
            line += usize::from(bytes[at] == '\n');
            at += 1;
        }
    }
    found
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found.sort();
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

const SERVE: bool = cfg!(feature = "serve");

const COMMANDS: [&str; 15] = [
    "demo",
    "data",
    "init",
    "train",
    "eval",
    "export",
    "predict",
    "inspect",
    "models",
    "bench",
    "compare",
    "completions",
    "man",
    "check",
    "probe",
];

/// Words of a text that are options: `--name`.
fn options(text: &str) -> Vec<String> {
    text.split(|c: char| c.is_whitespace() || "`(|:;,)".contains(c))
        .filter_map(|word| word.strip_prefix("--"))
        .map(|word| word.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect::<String>())
        .filter(|name| name.len() > 1 && !name.starts_with('-'))
        .collect()
}

/// Words of a text that are keys of a recipe: `train.optimizer.lr`.
fn keys(text: &str) -> Vec<String> {
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '_';
    text.split(|c: char| !inside(c))
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| ["model.", "train.", "data.", "eval."].iter().any(|start| word.starts_with(start)))
        .filter(|word| ![".toml", ".json", ".safetensors", ".txt"].iter().any(|end| word.ends_with(end)))
        .map(str::to_owned)
        .collect()
}

/// Commands of this program in a text, each with what follows in it.
fn commands(text: &str) -> Vec<String> {
    let text = text.replace("{program}", "structtoken");
    let parts = text.split("structtoken ").skip(1);
    parts
        .map(|rest| rest.split(['`', '\n', ';', ',']).next().unwrap_or_default().to_owned())
        .filter(|rest| {
            let first = rest.split_whitespace().next().unwrap_or_default();
            COMMANDS.contains(&first) || (SERVE && first == "serve")
        })
        .collect()
}

/// All advice in the source. Help with examples is checked as far as options go.
fn advice() -> Vec<Advice> {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let mut all = Vec::new();
    for file in files {
        let name = file.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
        // Styles of a page have variables that look like options.
        if !SERVE && (name.starts_with("src/serve/") || name.ends_with("/serve.rs")) {
            continue;
        }
        if name.ends_with("/page.rs")
            || name.ends_with("/tests.rs")
            || name.contains("/tests/")
            || name.ends_with("/example.rs")
        {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (line, text) in strings(text) {
            // The names of options alone are what arguments of commands are made of.
            let alone =
                text.strip_prefix("--").is_some_and(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
            let sets =
                keys(&text).iter().any(|key| text.contains(&format!("{key} =")) || text.contains(&format!("{key}=")));
            let line_of_toml =
                text.contains("`jpeg_tolerance = ") || text.contains("palettes = ") || text.contains("`range = ");
            if !alone && (!commands(&text).is_empty() || !options(&text).is_empty() || sets || line_of_toml) {
                all.push(Advice { place: format!("{name}:{line}"), text });
            }
        }
    }
    all
}

fn is_help(advice: &Advice) -> bool {
    advice.text.starts_with("Examples:")
}

/// The options of every command, as its help lists them.
fn known() -> BTreeMap<String, BTreeSet<String>> {
    let help = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_structtoken")).args(words).arg("--help").output().unwrap();
        options(&String::from_utf8_lossy(&output.stdout)).into_iter().collect::<BTreeSet<_>>()
    };
    let nested =
        [("data init", ["data", "init"]), ("data check", ["data", "check"]), ("eval merge", ["eval", "merge"])];
    let served = SERVE.then_some(&"serve");
    let simple =
        COMMANDS.iter().filter(|name| **name != "check").chain(served).map(|name| ((*name).to_owned(), help(&[name])));
    simple.chain(nested.into_iter().map(|(name, words)| (name.to_owned(), help(&words)))).collect()
}

#[test]
fn every_option_and_key_that_is_printed_exists() {
    let known = known();
    let anywhere: BTreeSet<&String> = known.values().flatten().collect();
    let networks =
        ["vit", "dinov3", "resnet", "convnext", "unet"].map(|name| format!("[model.backbone]\ntype = \"{name}\"\n"));
    let decoders = ["structtoken", "fcn", "eomt"].map(|name| format!("[model.decoder]\ntype = \"{name}\"\n"));
    let is_key = |key: &str| {
        let told =
            |text: &str| Config::parse(text, "keys", &[format!("{key}=\"\"")]).err().map(|error| error.to_string());
        networks.iter().chain(&decoders).any(|text| told(text).is_none_or(|said| !said.contains("unknown field")))
    };
    let mut checked = BTreeSet::new();
    let mut wrong = Vec::new();
    for Advice { place, text } in advice() {
        for command in commands(&text) {
            let mut words = command.split_whitespace();
            let (first, second) = (words.next().unwrap(), words.next().unwrap_or_default());
            let nested = format!("{first} {second}");
            let own = known.get(&nested).or_else(|| known.get(first)).unwrap_or_else(|| panic!("{place}: {command}"));
            wrong.extend(
                options(&command)
                    .into_iter()
                    .filter(|name| !own.contains(name))
                    .map(|name| format!("{place}: {command}: --{name}")),
            );
        }
        for name in options(&text) {
            // Of cargo and Slurm, of how this program calls itself, and of builds with MPI.
            if !anywhere.contains(&name) && !["release", "features", "child", "mpi", "array"].contains(&name.as_str()) {
                wrong.push(format!("{place}: --{name}"));
            }
        }
        for key in keys(&text) {
            if checked.insert(key.clone()) && !is_key(&key) {
                wrong.push(format!("{place}: {key}"));
            }
        }
    }
    assert!(checked.len() > 20, "{checked:?}");
    assert!(wrong.is_empty(), "what is printed does not exist:\n{}", wrong.join("\n"));
}

#[test]
fn every_advice_is_carried_out_by_a_test() {
    let all: Vec<Advice> = advice().into_iter().filter(|advice| !is_help(advice)).collect();
    assert!(all.len() > 100, "{}", all.len());
    let carried_out: Vec<_> = CARRIED_OUT.iter().chain(SERVED.iter().filter(|_| SERVE)).collect();
    let listed: Vec<&str> =
        carried_out.iter().flat_map(|(_, parts)| *parts).chain(SAID).chain(OUT_OF_REACH).copied().collect();
    let new: Vec<String> = all
        .iter()
        .filter(|advice| !listed.iter().any(|part| advice.text.contains(part)))
        .map(|Advice { place, text }| format!("{place}: {text}"))
        .collect();
    assert!(
        new.is_empty(),
        "no test is said to carry these out; write one that takes the advice from the output and follows it, and list it in \
         CARRIED_OUT:\n{}",
        new.join("\n")
    );
    let stale: Vec<&&str> =
        listed.iter().filter(|part| !all.iter().any(|advice| advice.text.contains(**part))).collect();
    assert!(stale.is_empty(), "nothing prints these any more: {stale:#?}");
    let mut files = Vec::new();
    sources(&root().join("tests/it"), &mut files);
    sources(&root().join("src"), &mut files);
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    for (test, _) in carried_out {
        let (before, _) = text.split_once(&format!("fn {test}()")).unwrap_or_else(|| panic!("there is no test {test}"));
        let attributes = before.rsplit("\n\n").next().unwrap();
        assert!(attributes.contains("#[test]") && !attributes.contains("#[ignore"), "{test} is not run");
    }
}
