//! URLs that stand where paths of files do.

use std::borrow::Cow;

use crate::error::{Error, Result};

/// Which kind of store a URL names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// `s3://bucket/key`, also of servers other than Amazon's.
    S3,
    /// `gs://bucket/key`: Google Cloud Storage.
    Google,
    /// `az://container/key`: Azure Blob Storage.
    Azure,
    /// `https://host/path` or `http://host/path`.
    Http,
}

const SCHEMES: [(&str, Scheme); 5] = [
    ("s3", Scheme::S3),
    ("gs", Scheme::Google),
    ("az", Scheme::Azure),
    ("https", Scheme::Http),
    ("http", Scheme::Http),
];

/// A URL of one of these schemes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) text: String,
    pub(crate) scheme: Scheme,
    /// Where the bucket or host ends.
    store: usize,
}

/// How people also write them.
const ALIASES: [(&str, &str); 10] = [
    ("s3a", "s3"),
    ("s3n", "s3"),
    ("gcs", "gs"),
    ("azure", "az"),
    ("abfs", "az"),
    ("abfss", "az"),
    ("adl", "az"),
    ("wasb", "az"),
    ("wasbs", "az"),
    ("blob", "az"),
];

/// The forms of URLs that are known.
const FORMS: &str = "s3://BUCKET/KEY, gs://BUCKET/KEY, az://CONTAINER/KEY and https://HOST/PATH";

/// Whether `text` is a URL rather than a path.
pub(crate) fn is_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| SCHEMES.iter().any(|(known, _)| *known == scheme))
}

/// Whether `text` is a URL of a scheme that is known; a path where not.
///
/// # Errors
/// One that begins as a URL does, of a scheme that is not known or is written in another way.
pub(crate) fn url_or_path(text: &str) -> Result<bool> {
    if is_url(text) {
        return Ok(true);
    }
    let Some((scheme, rest)) = text.split_once("://") else { return Ok(false) };
    // A drive is called by one letter.
    let plain = |c: char| c.is_ascii_alphanumeric() || ['+', '-', '.'].contains(&c);
    if scheme.len() < 2 || !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.chars().all(plain) {
        return Ok(false);
    }
    let lower = scheme.to_lowercase();
    let known = SCHEMES.iter().map(|(known, _)| (*known, *known)).chain(ALIASES);
    let hint = match known.into_iter().find(|(name, _)| *name == lower) {
        Some((_, "az")) => "write it as az://CONTAINER/KEY".to_owned(),
        Some((_, known)) => format!("write it as {known}://{}", rest.escape_debug()),
        None if lower == "file" => format!("leave out `{scheme}://`: files are named by their paths"),
        None => format!("known are {FORMS}; a path of this form is written as ./{}", text.escape_debug()),
    };
    Err(Error::new(format!("`{}` is not a URL of a known scheme ({FORMS})", shown(text).escape_debug()))
        .with_hint(hint))
}

/// A URL as others may see it, without what may be secret in it: a user's name, a query, a fragment. Any other text as
/// it is.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = text.split_once("://") else { return text.into() };
    if is_url(text) && !scheme.starts_with("http") {
        // Of an object these characters are part of its name.
        return text.into();
    }
    let host = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let user = rest[..host].rfind('@').map(|at| at + 1);
    let end = rest.find(['?', '#']);
    if user.is_none() && end.is_none() {
        return text.into();
    }
    let (before, from) = user.map_or(("", 0), |from| ("…@", from));
    let after = end.map_or(String::new(), |end| format!("{}…", &rest[end..=end]));
    format!("{scheme}://{before}{}{after}", &rest[from..end.unwrap_or(rest.len())]).into()
}

impl Url {
    /// The URL that `text` is.
    ///
    /// # Errors
    /// Another text; one without a bucket or host; one of a web server with a user's name or a query.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let known = text.split_once("://").and_then(|(name, rest)| {
            let (_, scheme) = SCHEMES.iter().find(|(known, _)| *known == name)?;
            Some((*scheme, name.len() + 3, rest))
        });
        let (scheme, start, rest) = known.ok_or_else(|| {
            Error::new(format!("`{}` is not a URL of a store", shown(text).escape_debug()))
                .with_hint(format!("those are {FORMS}"))
        })?;
        let length = rest.find('/').unwrap_or(rest.len());
        if length == 0 || rest.contains(char::is_control) {
            return Err(Error::new(format!("`{}` names no bucket or host", shown(text).escape_debug()))
                .with_hint("write it as s3://BUCKET/KEY"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c);
        if scheme != Scheme::Http && !rest[..length].chars().all(plain) {
            return Err(Error::new(format!("`{}` is no name of a bucket", rest[..length].escape_debug())).with_hint(
                "names of buckets hold letters, digits, `-`, `_` and `.`: write the URL as s3://BUCKET/KEY",
            ));
        }
        if scheme == Scheme::Http && (rest[..length].contains('@') || rest.contains(['?', '#'])) {
            // They are often secrets, which the manifest would hold.
            return Err(Error::new("a URL of a web server has a user's name, a query or a fragment")
                .with_hint("use the s3://, gs:// or az:// form of the URL, with credentials in the environment"));
        }
        Ok(Self { text: text.to_owned(), scheme, store: start + length })
    }

    /// The scheme and the bucket or host: `s3://bucket`.
    #[cfg_attr(not(feature = "object-store"), allow(dead_code))]
    pub(crate) fn store(&self) -> &str {
        &self.text[..self.store]
    }

    /// What names the object in its store.
    #[cfg_attr(not(feature = "object-store"), allow(dead_code))]
    pub(crate) fn key(&self) -> &str {
        let key = &self.text[self.store..];
        key.strip_prefix('/').unwrap_or(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_from_paths_and_taken_apart() {
        let url = Url::parse("s3://bucket/a b/%20?c#d.png").unwrap();
        assert_eq!((url.scheme, url.store(), url.key()), (Scheme::S3, "s3://bucket", "a b/%20?c#d.png"));
        let url = Url::parse("http://127.0.0.1:80").unwrap();
        assert_eq!((url.scheme, url.store(), url.key()), (Scheme::Http, "http://127.0.0.1:80", ""));
        assert!(["az://c/k", "gs://b/k", "https://h/p"].iter().all(|text| is_url(text) && Url::parse(text).is_ok()));
        assert!(!["a.png", "C:/a", "ftp://h/p", "/s3://b/k", "file:///a", "S3"].iter().any(|text| is_url(text)));
        for wrong in [
            "s3:///key",
            "s3://",
            "ftp://h/p",
            "https://me@h/p",
            "https://h/p?q=1",
            "https://h/p#q",
            "s3://\n",
            "s3://a b/k",
        ] {
            assert!(Url::parse(wrong).unwrap_err().hint().is_some(), "{wrong}");
        }
    }

    #[test]
    fn schemes_that_are_not_known_are_refused_and_paths_are_not() {
        for (text, hint) in [
            ("S3://bucket/a", "s3://bucket/a"),
            ("s3a://bucket/a", "s3://bucket/a"),
            ("gcs://bucket/a", "gs://bucket/a"),
            ("HTTPS://host/a", "https://host/a"),
            ("abfss://c@account/a", "az://CONTAINER/KEY"),
            ("file:///a/b.png", "leave out `file://`"),
            ("ftp://me:secret@host/a", "s3://BUCKET/KEY"),
        ] {
            let error = url_or_path(text).unwrap_err();
            assert!(error.hint().unwrap().contains(hint), "{text}: {error}: {:?}", error.hint());
            assert!(
                error.to_string().contains("az://CONTAINER/KEY") && !error.to_string().contains("secret"),
                "{error}"
            );
        }
        for path in ["a.png", "C://a", "./ftp://a", "/s3://b", "a/b://c", "://a", "a b://c", "s3:/a"] {
            assert!(!url_or_path(path).unwrap(), "{path}");
        }
        assert!(url_or_path("s3://bucket/a").unwrap());
    }

    #[test]
    fn secrets_of_urls_are_not_shown() {
        for (text, expected) in [
            ("https://h/a.png?sig=secret", "https://h/a.png?…"),
            ("https://me:secret@h/a#b", "https://…@h/a#…"),
            ("http://h?token=secret/b", "http://h?…"),
            ("https://h/a@b.png", "https://h/a@b.png"),
            ("s3://bucket/a?b#c@d", "s3://bucket/a?b#c@d"),
            ("photos/a?b.png", "photos/a?b.png"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }
}
