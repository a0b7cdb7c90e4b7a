//! Imports point down, as ARCHITECTURE.md says.

use std::path::Path;

/// A room, and the rooms it may use. `error`, `rng` and `files` are open to all; `config` is read by those who run things.
const RULES: [(&str, &[&str]); 25] = [
    ("error", &[]),
    ("rng", &[]),
    ("files", &[]),
    ("guard", &[]),
    ("device", &[]),
    ("room", &[]),
    ("text", &[]),
    ("shard", &[]),
    ("stats", &[]),
    ("kernels", &[]),
    ("layers", &["kernels"]),
    ("backbone", &["layers", "kernels"]),
    ("decoder", &["backbone", "layers", "kernels"]),
    ("loss", &["decoder", "layers", "kernels"]),
    ("model", &["backbone", "decoder", "layers"]),
    ("data", &[]),
    ("weights", &["layers"]),
    ("overlay", &["data"]),
    ("eval", &["model", "decoder", "layers", "data", "kernels"]),
    ("config", &["model", "backbone", "decoder", "data", "train", "eval"]),
    ("artifact", &["config", "model", "backbone", "data", "eval", "weights"]),
    (
        "compare",
        &["config", "decoder", "model", "data", "eval", "overlay", "train", "report", "inspect", "bench", "predict"],
    ),
    ("plan", &["config", "data", "eval", "kernels", "weights", "bench", "inspect", "train"]),
    ("repeat", &["config", "data", "eval"]),
    ("train", &["config", "artifact", "model", "loss", "layers", "kernels", "data", "eval", "weights", "report"]),
];
const TOP: [&str; 4] = ["predict", "inspect", "bench", "report"];
const LEAVES: [&str; 9] = ["error", "rng", "files", "guard", "device", "room", "text", "shard", "stats"];

#[test]
fn imports_point_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut seen = 0;
    let mut faults = Vec::new();
    visit(&root, &mut |path, text| {
        let inner = path.strip_prefix(&root).unwrap();
        let room = inner.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if ["lib", "bin"].contains(&room) || TOP.contains(&room) {
            return;
        }
        let (_, allowed) =
            RULES.iter().find(|(name, _)| *name == room).unwrap_or_else(|| panic!("no rule for `{room}`"));
        for (number, line) in text.lines().enumerate() {
            let line = line.split("//").next().unwrap();
            for used in line.match_indices("crate::").map(|(at, _)| &line[at + 7..]) {
                let targets: Vec<&str> = match used.strip_prefix('{') {
                    Some(list) => {
                        list.split(',').map(|item| item.trim().split([':', '}', ';']).next().unwrap()).collect()
                    }
                    None => vec![used.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap()],
                };
                for target in targets {
                    seen += 1;
                    let lower = target.chars().next().is_some_and(char::is_lowercase);
                    if lower && target != room && !LEAVES.contains(&target) && !allowed.contains(&target) {
                        faults.push(format!("src/{}:{}: `{room}` may not use `{target}`", inner.display(), number + 1));
                    }
                }
            }
        }
    });
    assert!(seen > 50, "only {seen} imports were found");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn visit(folder: &Path, see: &mut impl FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, see);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            see(&path, &std::fs::read_to_string(&path).unwrap());
        }
    }
}
