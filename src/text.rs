//! Names compared; lists cut short; numbers and times as people write them; paths as commands and descriptions hold
//! them.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};

/// The number of letters to insert, delete or replace (Levenshtein).
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.chars().enumerate() {
            let best = (row[j] + 1).min(row[j + 1] + 1).min(diagonal + usize::from(x != y));
            diagonal = std::mem::replace(&mut row[j + 1], best);
        }
    }
    row[row.len() - 1]
}

/// The time that `90s`, `20m`, `1h30m` or `1h30` says, with units as people write them, `5 min`: a second to a year.
///
/// # Errors
/// Other text.
pub fn duration(text: &str) -> Result<Duration> {
    let malformed =
        || Error::new(format!("`{text}` is not a duration")).with_hint("for instance `--budget 90s`, `20m` or `1h30m`");
    let (mut seconds, mut rest, mut before) = (0u64, text.trim(), None);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = (&rest[..end], rest[end..].trim_start());
        let number: u64 = number.parse().map_err(|_| malformed())?;
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let unit = match (after[..end].to_ascii_lowercase().as_str(), before) {
            ("s" | "sec" | "secs" | "second" | "seconds", _) => 1,
            ("m" | "min" | "mins" | "minute" | "minutes", _) => 60,
            ("h" | "hr" | "hrs" | "hour" | "hours", _) => 3600,
            // 1h30 is an hour and thirty minutes.
            ("", Some(3600)) if after.is_empty() && number < 60 => 60,
            ("", Some(60)) if after.is_empty() && number < 60 => 1,
            _ => return Err(malformed()),
        };
        seconds = number.checked_mul(unit).and_then(|part| seconds.checked_add(part)).ok_or_else(malformed)?;
        (rest, before) = (after[end..].trim_start(), Some(unit));
    }
    let seconds = Some(seconds).filter(|seconds| (1..=365 * 86_400).contains(seconds)).ok_or_else(malformed)?;
    Ok(Duration::from_secs(seconds))
}

/// A time as [`duration`] reads it, in whole seconds.
pub(crate) fn spell(time: Duration) -> String {
    let seconds = time.as_secs();
    let parts = [(seconds / 3600, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let text: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// How a list ends that is cut short.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rest {
    /// `a, b and 3 more`.
    Counted,
    /// `a, b and others`.
    Others,
    /// `a, b, …`.
    Dots,
}

/// The first `most` of some items, with commas between them; where there are more, `rest` says so.
pub(crate) fn shortened<T: Display>(items: impl IntoIterator<Item = T>, most: usize, rest: Rest) -> String {
    let mut items = items.into_iter();
    let shown: Vec<String> = items.by_ref().take(most).map(|item| item.to_string()).collect();
    let end = match (items.count(), rest) {
        (0, _) => String::new(),
        (more, Rest::Counted) => format!(" and {more} more"),
        (_, Rest::Others) => " and others".to_owned(),
        (_, Rest::Dots) => ", …".to_owned(),
    };
    shown.join(", ") + &end
}

/// A share in percent, without the sign.
pub(crate) fn percent(share: f64, digits: usize) -> String {
    format!("{:.digits$}", share * 100.0)
}

/// The same, or `none` where there is no share.
pub(crate) fn percent_or(share: Option<f64>, digits: usize, none: &str) -> String {
    share.map_or_else(|| none.to_owned(), |share| percent(share, digits))
}

/// A time in words, `5 min 3 s`.
pub(crate) fn minutes(seconds: u64) -> String {
    format!("{} min {} s", seconds / 60, seconds % 60)
}

/// `1,234,567`.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A path as one word of a shell's command: itself, or quoted where it has other signs than those of plain names. One
/// that is not UTF-8 is written as bash and zsh read it, so that it means the very file.
pub fn shell_word(path: &Path) -> String {
    let bytes = path.as_os_str().as_encoded_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+=:,@%".contains(byte);
    if bytes.first() == Some(&b'-') {
        return shell_word(&Path::new(".").join(path)); // no option
    }
    match path.to_str() {
        Some(text) if !bytes.is_empty() && bytes.iter().all(plain) => text.to_owned(),
        Some(text) if !text.contains(char::is_control) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => {
            let byte = |byte: &u8| match byte {
                b' ' => " ".to_owned(),
                byte if plain(byte) => char::from(*byte).to_string(),
                byte => format!("\\x{byte:02x}"),
            };
            format!("$'{}'", bytes.iter().map(byte).collect::<String>())
        }
    }
}

/// A path as the text that a TOML or a JSON can hold.
///
/// # Errors
/// A path that is not UTF-8, which neither can.
pub fn utf8(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::new(format!("the path `{}` is not UTF-8, so no recipe or dataset TOML can hold it", path.display()))
            .with_hint("rename it, or run from within that folder and use `.` or a path relative to it")
    })
}

/// Writes a path as text, what is not UTF-8 in it replaced: for `#[serde(serialize_with)]`, as JSON can hold nothing
/// else.
///
/// # Errors
/// The serializer's own.
pub fn lossy<S: serde::Serializer>(path: &Path, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever a path is, a shell reads back the same.
    #[cfg(unix)]
    #[test]
    fn words_are_read_by_a_shell_as_they_are() {
        use std::os::unix::ffi::OsStrExt;
        let paths: [&[u8]; 9] = [
            b"runs/a-b_1.2",
            b"two words",
            b"it's",
            b"$HOME `x` \"y\" \\ *",
            "r\u{fc}n".as_bytes(),
            b"caf\xe9 it's",
            b"line\nbreak",
            b"",
            b"\xff0\xffa",
        ];
        for bytes in paths {
            let path = Path::new(std::ffi::OsStr::from_bytes(bytes));
            let command = format!("printf %s {}", shell_word(path));
            match std::process::Command::new("bash").args(["-c", &command]).output() {
                Ok(read) => assert_eq!(read.stdout, bytes, "{command}"),
                Err(error) => println!("skipped: {error}"),
            }
        }
        assert_eq!(shell_word(Path::new("runs/a-b_1.2")), "runs/a-b_1.2");
        assert_eq!(shell_word(Path::new("-x y")), "'./-x y'");
        let error = utf8(Path::new(std::ffi::OsStr::from_bytes(b"\xff"))).unwrap_err();
        assert!(error.to_string().contains("not UTF-8") && error.hint().is_some());
    }

    #[test]
    fn lists_are_cut_short() {
        let of = |most, rest| shortened([1, 2, 3], most, rest);
        for rest in [Rest::Counted, Rest::Others, Rest::Dots] {
            assert_eq!((of(3, rest), of(4, rest)), ("1, 2, 3".to_owned(), "1, 2, 3".to_owned()));
        }
        assert_eq!(of(1, Rest::Counted), "1 and 2 more");
        assert_eq!((of(2, Rest::Others), of(2, Rest::Dots)), ("1, 2 and others".into(), "1, 2, …".into()));
        assert_eq!(shortened([""; 0], 2, Rest::Counted), "");
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!((distance("kitten", "sitting"), distance("", "abc"), distance("same", "same")), (3, 3, 0));
        assert_eq!((distance("höhe", "hohe"), distance("路", "")), (1, 1), "of characters, not of their bytes");
    }

    #[test]
    fn times_have_units() {
        let seconds = |text: &str| duration(text).map(|time| time.as_secs()).map_err(|error| error.to_string());
        assert_eq!([seconds("90s"), seconds("20m"), seconds("1h30m")], [Ok(90), Ok(1200), Ok(5400)]);
        assert_eq!(
            [seconds("5min"), seconds("1h30"), seconds("1 h"), seconds("90 s")].map(Result::unwrap),
            [300, 5400, 3600, 90]
        );
        assert_eq!([seconds(" 1 h 5 min "), seconds("2m05"), seconds("1H")].map(Result::unwrap), [3900, 125, 3600]);
        for text in ["1s", "1m30s", "20m", "1h30m", "25h1s"] {
            assert_eq!(spell(duration(text).unwrap()), text);
        }
        for text in [
            "",
            " ",
            "5",
            "1h 30 7",
            "1h60",
            "5s3",
            "5minx",
            "5 é",
            "m",
            "0s",
            "1.5h",
            "9999999h",
            "3d",
            "99999999999999999999s",
        ] {
            assert!(seconds(text).unwrap_err().contains("is not a duration"), "{text}");
        }
    }
}
