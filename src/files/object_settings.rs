//! Settings of stores in the environment, looked at before they are used: what is wrong with one is an error that names
//! it.

use super::urls::{Scheme, shown};
use crate::error::{Error, ErrorKind, Result};

/// What a variable holds.
#[derive(Clone, Copy)]
enum Holds {
    /// A secret or a name, which is sent as it is.
    Word,
    /// A part of a host's name.
    Name,
    /// The URL of a server.
    Server,
}

const S3: [(&str, Holds); 9] = [
    ("AWS_ENDPOINT_URL", Holds::Server),
    ("AWS_ENDPOINT_URL_S3", Holds::Server),
    ("AWS_ENDPOINT", Holds::Server),
    ("AWS_METADATA_ENDPOINT", Holds::Server),
    ("AWS_ACCESS_KEY_ID", Holds::Word),
    ("AWS_SECRET_ACCESS_KEY", Holds::Word),
    ("AWS_SESSION_TOKEN", Holds::Word),
    ("AWS_REGION", Holds::Name),
    ("AWS_DEFAULT_REGION", Holds::Name),
];

const AZURE: [(&str, Holds); 5] = [
    ("AZURE_STORAGE_ENDPOINT", Holds::Server),
    ("AZURE_STORAGE_ACCOUNT_NAME", Holds::Name),
    ("AZURE_STORAGE_ACCOUNT_KEY", Holds::Word),
    ("AZURE_STORAGE_SAS_TOKEN", Holds::Word),
    ("AZURE_STORAGE_TOKEN", Holds::Word),
];

/// Looks at the variables that stores of `scheme` are opened with.
///
/// # Errors
/// One that cannot be what it should be, of [`ErrorKind::Unreachable`]. Nothing secret is in it.
pub(super) fn check(scheme: Scheme, get: &dyn Fn(&str) -> Option<String>) -> Result<()> {
    let known = match scheme {
        Scheme::S3 => &S3[..],
        Scheme::Azure => &AZURE[..],
        Scheme::Google | Scheme::Http => &[],
    };
    for (name, holds) in known {
        let Some(value) = get(name) else { continue };
        let refuse = |why: &str, hint: &str| {
            Err(Error::new(format!("{name} {why}")).with_kind(ErrorKind::Unreachable).with_hint(hint.to_owned()))
        };
        if value.is_empty() {
            return refuse("is empty", &format!("set it, or `unset {name}`"));
        }
        // A line's end that came along with it, and whatever else no header may hold.
        if let Some(wrong) = value.chars().find(|c| !c.is_ascii_graphic()) {
            let what = match wrong {
                '\n' | '\r' => "a line's end",
                ' ' | '\t' => "a space",
                _ => "a character that is not ASCII text",
            };
            return refuse(&format!("holds {what}"), &format!("set {name} without it"));
        }
        match holds {
            Holds::Name if !value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) => {
                return refuse(
                    &format!("is `{value}`, and may hold letters, digits, `-`, `_` and `.`"),
                    "set it to the name alone, as us-east-1",
                );
            }
            Holds::Server => {
                let parsed = url::Url::parse(&value).ok();
                let begun = ["http://", "https://"].iter().any(|start| value.starts_with(start));
                let good = |url: &url::Url| begun && url.has_host();
                if !parsed.is_some_and(|url| good(&url)) {
                    return refuse(
                        &format!("is `{}`, which is not the URL of a server", shown(&value)),
                        "write it as https://HOST or http://HOST:PORT",
                    );
                }
            }
            Holds::Name | Holds::Word => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_cannot_be_used_is_named() {
        let found = |name: &str, value: &str| {
            let (name, value) = (name.to_owned(), value.to_owned());
            check(Scheme::S3, &move |asked| (asked == name).then(|| value.clone())).map_err(|error| error.to_string())
        };
        for value in
            ["localhost:9000", "ftp://host", "http://", "http://host:port", "http:// host", "/a", "", "http:9000"]
        {
            assert!(found("AWS_ENDPOINT_URL", value).unwrap_err().starts_with("AWS_ENDPOINT_URL "), "{value}");
        }
        for value in ["http://localhost:9000", "https://s3.example.org/", "http://[::1]:9000/path"] {
            assert_eq!(found("AWS_ENDPOINT_URL", value), Ok(()), "{value}");
        }
        for (name, value) in [
            ("AWS_ACCESS_KEY_ID", "key\n"),
            ("AWS_SECRET_ACCESS_KEY", "sécret"),
            ("AWS_SESSION_TOKEN", "a b"),
            ("AWS_REGION", "us east"),
            ("AWS_DEFAULT_REGION", "us/east"),
        ] {
            let error = found(name, value).unwrap_err();
            assert!(error.starts_with(name) && !error.contains("key\n") && !error.contains("sécret"), "{error}");
        }
        assert_eq!(found("AWS_SECRET_ACCESS_KEY", "a+/b=="), Ok(()));
        assert_eq!(check(Scheme::Http, &|_| Some(String::new())).map_err(|error| error.to_string()), Ok(()));
    }
}
