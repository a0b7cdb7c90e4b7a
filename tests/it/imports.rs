//! Imports point down, as ARCHITECTURE.md says, and never in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The modules from the ground up: each uses only those before it.
const ORDER: [&str; 42] = [
    "error",
    "text",
    "rng",
    "stats",
    "shard",
    "group",
    "guard",
    "available_memory",
    "files",
    "device", // leaves
    "kernels",
    "layers",
    "backbone",
    "decoder",
    "loss",
    "model",
    "weights", // tensors
    "image",
    "dataset",
    "augment",
    "loader",
    "tools", // data
    "infer",
    "metrics",
    "overlay",
    "eval",
    "train", // a network at work
    "config",
    "bundled",
    "model_file",
    "predict",
    "run", // recipes, model files, run folders
    "inspect",
    "bench",
    "plan",
    "report",
    "probe",
    "sweep",
    "page",
    "serve",
    "export",
    "cli",
];

#[test]
fn imports_point_down() {
    let height = |module: &str| ORDER.iter().position(|known| *known == module);
    let mut faults = Vec::new();
    let graph = graph();
    for (file, imports) in &graph {
        let module = module(file);
        let Some(own) = height(module) else {
            faults.push(format!("`{module}` has no place in the order"));
            continue;
        };
        for used in imports.iter().map(|used| self::module(used)).filter(|used| *used != module) {
            if height(used).is_none_or(|height| height >= own) {
                faults.push(format!("{file} uses `{used}`, which is not below `{module}`"));
            }
        }
    }
    assert!(graph.len() > 200 && graph.values().map(BTreeSet::len).sum::<usize>() > 500, "imports are found");
    assert!(ORDER.iter().all(|known| graph.keys().any(|file| module(file) == *known)), "a module is gone");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_file_uses_itself_by_way_of_others() {
    let mut graph = graph();
    // What stands in the `mod.rs` above is everybody's there.
    for (file, imports) in &mut graph {
        imports.retain(|used| !file.starts_with(&format!("{used}::")));
    }
    // Files that use none of the rest, or that none of the rest uses, are in no circle.
    loop {
        let left: BTreeSet<String> = graph.keys().cloned().collect();
        graph.values_mut().for_each(|imports| imports.retain(|used| left.contains(used)));
        let used: BTreeSet<String> = graph.values().flatten().cloned().collect();
        graph.retain(|file, imports| !imports.is_empty() && used.contains(file));
        if graph.len() == left.len() {
            break;
        }
    }
    let lines: Vec<_> = graph.iter().map(|(file, imports)| format!("{file} uses {imports:?}")).collect();
    assert!(lines.is_empty(), "files in circles, or between them:\n{}", lines.join("\n"));
}

/// Every file of the library has its line in ARCHITECTURE.md's map, and what the map names is there.
#[test]
fn the_map_names_every_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let map = text.split("## Map").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut named = BTreeSet::new();
    let mut faults = Vec::new();
    let mut folder = "".to_owned();
    for row in map.lines().filter(|line| line.starts_with("| ") && line.contains('`')) {
        if let Some(header) = row.strip_prefix("| **`") {
            folder = header.split('`').next().unwrap().to_owned();
            named.insert(format!("{folder}mod.rs"));
        }
        // All names of the first column are paths: beside the one before, below the module's folder, or from the root.
        let (first, second) = row[2..].split_once(" | ").unwrap();
        let words = |cell| str::split(cell, '`').skip(1).step_by(2);
        let mut beside = folder.clone();
        for word in words(first).chain(words(second).filter(|word| word.ends_with(".rs"))) {
            let places = [beside.as_str(), &folder, ""].map(|place| format!("{place}{word}"));
            match places.into_iter().find(|path| root.join(path).exists()) {
                Some(path) => {
                    beside = path[..path.rfind('/').map_or(0, |slash| slash + 1)].to_owned();
                    named.insert(path);
                }
                None => faults.push(format!("the map names `{word}`, which is not there")),
            }
        }
    }
    let mut files = 0;
    visit(&root.join("src"), &mut |path, _| {
        let path = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
        if path == "src/main.rs" || is_of_tests(root, &path) {
            return;
        }
        files += 1;
        if !named.contains(&path) {
            faults.push(format!("`{path}` has no line in the map"));
        }
    });
    assert!(files > 250, "files are found");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Whether a file is compiled for tests alone.
fn is_of_tests(root: &Path, path: &str) -> bool {
    let (folder, name) = path.strip_suffix(".rs").unwrap().rsplit_once('/').unwrap();
    let above = [format!("{folder}/mod.rs"), format!("{folder}.rs"), format!("{folder}/lib.rs")];
    let texts = above.iter().filter_map(|path| std::fs::read_to_string(root.join(path)).ok());
    texts.into_iter().any(|text| {
        text.split("#[cfg(test)]\n").skip(1).any(|after| {
            let line = after.lines().next().unwrap_or_default();
            line.strip_suffix(';').and_then(|line| line.rsplit_once("mod ")).is_some_and(|(_, found)| found == name)
        })
    })
}

/// A field can be added to any config without breaking programs that fill it in.
#[test]
fn configs_may_grow() {
    let (mut configs, mut faults) = (0, Vec::new());
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut |path, text| {
        for (at, _) in text.match_indices("\npub struct ") {
            let name: String = text[at + 12..].chars().take_while(|c| c.is_alphanumeric()).collect();
            if name.ends_with("Config")
                || ["PlanOptions", "RunOptions", "Preprocess", "Schedule"].contains(&name.as_str())
            {
                configs += 1;
                if !text[..at].ends_with("#[non_exhaustive]") {
                    faults.push(format!("`{name}` in {} is not #[non_exhaustive]", path.display()));
                }
            }
        }
    });
    assert!(configs >= 25, "configs are found: {configs}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Circles are found where there are some.
#[test]
fn imports_are_read_in_every_form() {
    let text = "use crate::a::{self, b::{C, d}, E};\npub use super::f::G; // crate::none\nfn x() { crate::h::i(); }\n\
                #[cfg(test)]\nmod tests {\n    use crate::j::K;\n}";
    let known = ["a", "a::b", "a::b::d", "r", "r::f", "h", "j"].map(str::to_owned).into();
    assert_eq!(imports(text, "r::own", &known), ["a", "a::b", "a::b::d", "h", "r::f"].map(str::to_owned).into());
}

fn module(file: &str) -> &str {
    file.split("::").next().unwrap()
}

/// Every file of the library as a path of modules, with those that it uses. Tests may use anything.
fn graph() -> BTreeMap<String, BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut texts = BTreeMap::new();
    visit(&root, &mut |path, text| {
        let inner = path.strip_prefix(&root).unwrap().with_extension("");
        let mut modules: Vec<&str> = inner.iter().map(|part| part.to_str().unwrap()).collect();
        if modules.last() == Some(&"mod") {
            modules.pop();
        }
        let is_test = ["tests", "toy", "golden"].contains(modules.last().unwrap());
        if !is_test && !["main", "lib"].contains(&modules[0]) {
            texts.insert(modules.join("::"), text.to_owned());
        }
    });
    let known = texts.keys().cloned().collect();
    texts.iter().map(|(file, text)| (file.clone(), imports(text, file, &known))).collect()
}

fn imports(text: &str, file: &str, known: &BTreeSet<String>) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let text: String = text.lines().map(|line| line.split("//").next().unwrap().to_owned() + "\n").collect();
    let mut found = BTreeSet::new();
    for root in ["crate::", "super::"] {
        for (at, _) in text.match_indices(root) {
            // `super::super::` is read from its first word on.
            if text[..at].ends_with("super::") || text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            for path in paths(&text[at..]) {
                let mut modules: Vec<&str> = file.split("::").collect();
                let mut parts = path.split("::").peekable();
                if parts.next_if_eq(&"crate").is_some() {
                    modules.clear();
                }
                while parts.next_if_eq(&"super").is_some() {
                    modules.pop();
                }
                modules.extend(parts);
                let longest =
                    (1..=modules.len()).rev().map(|n| modules[..n].join("::")).find(|path| known.contains(path));
                found.extend(longest.filter(|used| used != file));
            }
        }
    }
    found
}

/// The paths that a text begins with: `a::{b, c::{self, d}}` is `a::b`, `a::c` and `a::c::d`.
fn paths(text: &str) -> Vec<String> {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(text.len());
    let (path, rest) = (text[..end].trim_end_matches(':'), &text[end..]);
    if !rest.starts_with('{') || !text[..end].ends_with("::") {
        return vec![path.trim_end_matches("::self").to_owned()];
    }
    let (mut depth, mut from, mut found) = (0, 1, Vec::new());
    for (at, c) in rest.char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if (c == ',' && depth == 1) || depth == 0 {
            let inner = rest[from..at].trim();
            found.extend(paths(inner).into_iter().filter(|_| !inner.is_empty()).map(|inner| match inner.as_str() {
                "self" => path.to_owned(),
                inner => format!("{path}::{inner}"),
            }));
            from = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    found
}

pub(crate) fn visit(folder: &Path, see: &mut impl FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, see);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            see(&path, &std::fs::read_to_string(&path).unwrap());
        }
    }
}
