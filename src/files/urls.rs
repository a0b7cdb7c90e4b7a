//! URLs that stand where paths of files do.

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

/// Whether `text` is a URL rather than a path.
pub(crate) fn is_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| SCHEMES.iter().any(|(known, _)| *known == scheme))
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
            Error::new(format!("`{text}` is not a URL of a store"))
                .with_hint("those are s3://BUCKET/KEY, gs://BUCKET/KEY, az://CONTAINER/KEY and https://HOST/PATH")
        })?;
        let length = rest.find('/').unwrap_or(rest.len());
        if length == 0 || rest.contains(char::is_control) {
            return Err(Error::new(format!("`{}` names no bucket or host", text.escape_debug()))
                .with_hint("write it as s3://BUCKET/KEY"));
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
        self.text[self.store..].trim_start_matches('/')
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
        for wrong in
            ["s3:///key", "s3://", "ftp://h/p", "https://me@h/p", "https://h/p?q=1", "https://h/p#q", "s3://\n"]
        {
            assert!(Url::parse(wrong).unwrap_err().hint().is_some(), "{wrong}");
        }
    }
}
