//! The page on which a person tries a model. What labels photos is its engine: a server, or the browser itself.

/// A file of the page: its path below the page's address, its type, its bytes.
pub(crate) struct File {
    pub(crate) path: &'static str,
    #[cfg_attr(not(feature = "serve"), expect(dead_code, reason = "files on disk are typed by who sends them"))]
    pub(crate) content_type: &'static str,
    pub(crate) bytes: &'static [u8],
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! file {
    ($path:literal, $type:expr) => {
        file!($path, $type, $path)
    };
    ($path:literal, $type:expr, $source:literal) => {
        File { path: $path, content_type: $type, bytes: include_bytes!($source) }
    };
}

/// What the page is without an engine.
const COMMON: [File; 10] = [
    file!("index.html", "text/html; charset=utf-8"),
    file!("style.css", "text/css; charset=utf-8"),
    file!("icon.svg", "image/svg+xml"),
    file!("theme.js", SCRIPT),
    file!("app.js", SCRIPT),
    file!("png.js", SCRIPT),
    file!("input.js", SCRIPT),
    file!("view.js", SCRIPT),
    file!("legend.js", SCRIPT),
    file!("tokens.js", SCRIPT),
];

/// The engine that asks the server which sent the page.
#[cfg(feature = "serve")]
const SERVER: [File; 1] = [file!("engine.js", SCRIPT, "server/engine.js")];

/// The engine that runs the model in the browser.
#[cfg(feature = "export")]
const BROWSER: [File; 4] = [
    file!("engine.js", SCRIPT, "browser/engine.js"),
    file!("worker.js", SCRIPT, "browser/worker.js"),
    file!("resample.js", SCRIPT, "browser/resample.js"),
    file!("labels.js", SCRIPT, "browser/labels.js"),
];

/// All files of the page that asks a server.
#[cfg(feature = "serve")]
pub(crate) fn of_server() -> impl Iterator<Item = &'static File> {
    COMMON.iter().chain(&SERVER)
}

/// All files of the page that labels in the browser.
#[cfg(feature = "export")]
pub(crate) fn of_browser() -> impl Iterator<Item = &'static File> {
    COMMON.iter().chain(&BROWSER)
}

/// `#rrggbb`.
pub(crate) fn color(color: Option<&[u8; 3]>) -> String {
    let [r, g, b] = color.copied().unwrap_or_default();
    format!("#{r:02x}{g:02x}{b:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every file that a page asks for is there, and nothing is asked from elsewhere.
    fn is_complete(files: &[&File], beside: &[&str]) {
        let mut asked = 0;
        for file in files.iter().filter(|file| !file.path.ends_with(".svg")) {
            let text = std::str::from_utf8(file.bytes).unwrap();
            for (before, after) in [("src=\"", '"'), ("href=\"", '"'), ("from \"./", '"'), ("from './", '\'')] {
                for rest in text.split(before).skip(1) {
                    let name = rest.split(after).next().unwrap();
                    if name.is_empty() || name.starts_with('#') || name.contains("${") {
                        continue;
                    }
                    asked += 1;
                    assert!(!name.contains("://") && !name.starts_with("//"), "{}: {name}", file.path);
                    let name = name.trim_start_matches("./");
                    let there = beside.contains(&name) || files.iter().any(|file| file.path == name);
                    assert!(there, "{}: {name}", file.path);
                }
            }
        }
        assert!(asked >= 5, "{asked}");
    }

    #[test]
    fn pages_are_complete() {
        #[cfg(feature = "serve")]
        is_complete(&of_server().collect::<Vec<_>>(), &[]);
        #[cfg(feature = "export")]
        is_complete(&of_browser().collect::<Vec<_>>(), &[]);
        assert_eq!(color(Some(&[1, 171, 255])), "#01abff");
    }
}
