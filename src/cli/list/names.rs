//! Where the outputs of a list's entries lie: in places that only entries of the same path share.
//!
//! A relative path keeps its place below the folder; an absolute one lies below `file`, and a URL below its scheme. A
//! relative path whose first folder is called like one of these gets an underscore there, as do parts that would be
//! taken for `..` or for another output of a neighbour; and names that have such underscores already get one more. So
//! the way from an entry to its place can be gone back.

use std::path::{Component, Path, PathBuf};

use crate::files::urls::is_url;

/// The folders of entries that are not relative paths.
const FOLDERS: [&str; 6] = ["file", "s3", "gs", "az", "http", "https"];
/// What stands for the folder above.
const ABOVE: &str = "__";
/// Ends of names that another output of an image has: the overlay of `a` is not the label map of `a_overlay`.
const ENDS: [&str; 2] = ["_overlay", "_probabilities"];

/// Where the outputs of an image lie below the folder, without their endings.
pub(super) fn output_name(entry: &str) -> PathBuf {
    let (folder, parts) = taken_apart(entry);
    let mut name = PathBuf::from(folder);
    let last = parts.len().saturating_sub(1);
    for (at, part) in parts.iter().enumerate() {
        let Some(part) = part else {
            name.push(ABOVE);
            continue;
        };
        let plain = part.trim_end_matches('_');
        let first = at == 0 && folder.is_empty() && FOLDERS.contains(&plain);
        let above = plain.is_empty() && part.len() >= ABOVE.len();
        let end = at == last && ENDS.iter().any(|end| plain.ends_with(end));
        name.push(if first || above || end { format!("{part}_") } else { (*part).to_owned() });
    }
    name
}

/// What an image is called in files that are written of it: its path, with its scheme in front where it is a URL.
pub(super) fn image_name(entry: &str) -> String {
    let (folder, parts) = taken_apart(entry);
    let folder = if is_url(entry) { folder } else { "" };
    let parts = parts.into_iter().map(|part| part.unwrap_or(ABOVE));
    std::iter::once(folder).filter(|folder| !folder.is_empty()).chain(parts).collect::<Vec<_>>().join("/")
}

/// The folder of an entry that is no relative path, and the parts of its name; none stands for `..`.
fn taken_apart(entry: &str) -> (&str, Vec<Option<&str>>) {
    if let Some((scheme, rest)) = entry.split_once("://").filter(|_| is_url(entry)) {
        let part = |part: &'_ str| !part.is_empty() && part != ".";
        let parts = rest.split('/').filter(|text| part(text)).map(|text| (text != "..").then_some(text));
        return (scheme, parts.collect());
    }
    let (mut folder, mut parts) = ("", Vec::new());
    for component in Path::new(entry).components() {
        match component {
            Component::Normal(name) => parts.push(name.to_str()),
            Component::ParentDir => parts.push(None),
            Component::RootDir => folder = FOLDERS[0],
            // A drive of Windows, without the colon that no name of a file may hold.
            Component::Prefix(drive) => {
                folder = FOLDERS[0];
                parts.push(drive.as_os_str().to_str().map(|drive| drive.trim_end_matches(':')));
            }
            Component::CurDir => {}
        }
    }
    (folder, parts)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn ordinary_names_are_kept() {
        for (entry, name) in [
            ("photos/a/1.jpg", "photos/a/1.jpg"),
            ("./photos//a/1.jpg", "photos/a/1.jpg"),
            ("a_overlay.png", "a_overlay.png"),
            ("_a/_.png", "_a/_.png"),
            ("/data/a/1.jpg", "file/data/a/1.jpg"),
            ("s3://bucket/a/1.jpg", "s3/bucket/a/1.jpg"),
            ("https://host:80/a:/1.jpg", "https/host:80/a:/1.jpg"),
            ("../a/1.jpg", "__/a/1.jpg"),
            ("s3/a.png", "s3_/a.png"),
        ] {
            assert_eq!(output_name(entry), Path::new(name), "{entry}");
        }
        assert_eq!(image_name("/data/a/1.jpg"), "data/a/1.jpg");
        assert_eq!(image_name("s3://bucket/a.png"), "s3/bucket/a.png");
    }

    #[test]
    fn no_two_entries_share_an_output() {
        let parts =
            ["a", "s3", "s3_", "file", "file_", "__", "___", "_", "..", "a_overlay", "a_overlay_", "a_probabilities"];
        let mut entries = Vec::new();
        for start in ["", "/", "s3://", "gs://", "http://", "https://"] {
            for one in parts {
                entries.push(format!("{start}{one}"));
                for two in parts {
                    entries.push(format!("{start}{one}/{two}"));
                    entries.push(format!("{start}{one}/a/{two}"));
                }
            }
        }
        let mut seen: BTreeMap<String, &String> = BTreeMap::new();
        for entry in &entries {
            // No folder is above that of the root.
            for ending in [".png", "_overlay.png", ".npy", "_probabilities.npy", ".geojson"] {
                let output = format!("{}{ending}", output_name(entry).display());
                if let Some(other) = seen.insert(output.clone(), entry) {
                    panic!("`{entry}` and `{other}` are both written to `{output}`");
                }
            }
        }
    }
}
