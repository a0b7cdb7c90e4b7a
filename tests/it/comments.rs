//! Comments are no wider than code.

use std::path::Path;

use crate::imports::visit;

/// As `max_width` in rustfmt.toml, which leaves comments alone.
const WIDTH: usize = 120;

#[test]
fn comments_are_no_wider_than_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut files, mut faults) = (0, Vec::new());
    for folder in ["src", "tests", "benches", "examples"] {
        visit(&root.join(folder), &mut |path, text| {
            files += 1;
            let path = path.strip_prefix(root).unwrap().display();
            faults.extend(wide(text).into_iter().map(|line| format!("{path}:{line}")));
        });
    }
    assert!(files > 400, "files are found: {files}");
    assert!(faults.is_empty(), "comments of more than {WIDTH} columns:\n{}", faults.join("\n"));
}

/// The numbers of lines with comments that are too wide. Drawings and tables may be.
fn wide(text: &str) -> Vec<usize> {
    let mut drawing = false;
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let Some(comment) = line.trim_start().strip_prefix("//") else {
            drawing = false;
            continue;
        };
        let words = comment.trim_start_matches(['/', '!']).trim_start();
        drawing ^= words.starts_with("```");
        if !drawing && !words.starts_with('|') && line.chars().count() > WIDTH {
            found.push(at + 1);
        }
    }
    found
}

#[test]
fn wide_comments_are_found() {
    let long = "word ".repeat(30);
    let text =
        format!("// {long}\n/// | {long}\n//! ```\n//! {long}\n//! ```\n    //! {long}\nlet x = \"{long}\";\n// short");
    assert_eq!(wide(&text), [1, 6]);
}
