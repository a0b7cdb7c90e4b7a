//! What stores answer in place of objects, as errors that say whether the store or the object is at fault.

use std::error::Error as _;

use object_store::client::{HttpError, HttpErrorKind};

use super::urls::{Scheme, Url};
use crate::error::{Error, ErrorKind};

/// The most characters of a server's own words.
const WORDS: usize = 200;

/// The failure to `verb` what `url` names. One that concerns all objects of the store is of
/// [`ErrorKind::Unreachable`].
pub(super) fn fault(verb: &str, url: &Url, error: object_store::Error) -> Error {
    use object_store::Error as Failure;
    let failed = |cause: &str| Error::new(format!("cannot {verb} `{}`: {cause}", url.text));
    let store = url.store();
    match &error {
        Failure::NotFound { .. } if error.to_string().contains("NoSuchBucket") => {
            failed("there is no such bucket").with_kind(ErrorKind::Unreachable).with_hint(format!(
                "check the name in `{store}`{}",
                match url.scheme {
                    Scheme::S3 => ", and AWS_ENDPOINT_URL and AWS_REGION",
                    _ => "",
                }
            ))
        }
        Failure::NotFound { .. } => failed("it is not there").with_kind(ErrorKind::NotFound),
        _ if refuses_credentials(&error.to_string()) => {
            failed(&format!("the store does not accept the credentials ({})", root(&error)))
                .with_kind(ErrorKind::Unreachable)
                .with_hint(credentials(url.scheme))
        }
        Failure::PermissionDenied { .. } => failed(&format!("the store denies access ({})", root(&error)))
            .with_kind(ErrorKind::Store)
            .with_hint(credentials(url.scheme)),
        Failure::Unauthenticated { .. } => failed("the store does not accept the credentials")
            .with_kind(ErrorKind::Unreachable)
            .with_hint(credentials(url.scheme)),
        _ if asks_the_machine(&error.to_string()) => {
            failed("there are no credentials").with_kind(ErrorKind::Unreachable).with_hint(credentials(url.scheme))
        }
        _ => match kind(&error) {
            Some(HttpErrorKind::Connect) => failed(&format!("the server cannot be reached ({})", root(&error)))
                .with_kind(ErrorKind::Unreachable)
                .with_hint(server(url.scheme)),
            Some(HttpErrorKind::Timeout) => failed("the server takes too long to answer")
                .with_kind(ErrorKind::Store)
                .with_hint("check the network; repeated later, the command continues"),
            _ => {
                let (failed, text) = (failed(&root(&error)).with_kind(ErrorKind::Store), error.to_string());
                match HINTS.iter().find(|(signs, _)| signs.iter().any(|sign| text.contains(sign))) {
                    Some((_, hint)) => failed.with_hint(*hint),
                    None => failed,
                }
            }
        },
    }
}

/// What helps where a store's answer holds one of some words.
const HINTS: [(&[&str], &str); 2] = [
    (
        &[
            "PermanentRedirect",
            "AuthorizationHeaderMalformed",
            "IllegalLocationConstraint",
            "301 Moved",
            "configured region",
        ],
        "the bucket lies elsewhere: set AWS_REGION to its region, and AWS_ENDPOINT_URL for a server other than Amazon's",
    ),
    (
        &["SlowDown", "TooManyRequests", "429 Too Many", "503 Service"],
        "the store is asked too often: start fewer processes at once; repeated later, the command continues",
    ),
];

/// Whether the answer says that all requests of these credentials fail, not that for one object alone.
fn refuses_credentials(text: &str) -> bool {
    [
        "ExpiredToken",
        "InvalidToken",
        "TokenRefreshRequired",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "RequestTimeTooSkewed",
        "RequestExpired",
    ]
    .iter()
    .any(|code| text.contains(code))
}

/// Whether credentials were looked for where machines of a cloud have them, for want of others.
fn asks_the_machine(text: &str) -> bool {
    ["169.254.169.254", "metadata.google.internal", "/latest/api/token", "/computeMetadata/", "/latest/meta-data/"]
        .iter()
        .any(|place| text.contains(place))
}

fn credentials(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::S3 => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket; and \
             AWS_REGION, or AWS_ENDPOINT_URL for a server other than Amazon's"
        }
        Scheme::Google => {
            "set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account, or GOOGLE_SKIP_SIGNATURE=true for a \
             public bucket"
        }
        Scheme::Azure => {
            "set AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, or \
             AZURE_SKIP_SIGNATURE=true for a public container"
        }
        Scheme::Http => "use the s3://, gs:// or az:// form of the URL, with credentials in the environment",
    }
}

fn server(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::S3 => {
            "check AWS_ENDPOINT_URL and AWS_REGION, and the network; then repeat the command, which continues"
        }
        _ => "check the URL and the network; then repeat the command, which continues",
    }
}

/// How the request failed, where it did not get an answer.
fn kind(error: &object_store::Error) -> Option<HttpErrorKind> {
    let mut cause = error.source();
    while let Some(found) = cause {
        if let Some(http) = found.downcast_ref::<HttpError>() {
            return Some(http.kind());
        }
        cause = found.source();
    }
    None
}

/// The last of the causes, in one short line: what a server answers may be long, and hold what a terminal obeys.
fn root(error: &object_store::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(found) = cause.source() {
        cause = found;
    }
    line(&cause.to_string())
}

fn line(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(WORDS) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_one_short_line() {
        assert_eq!(line("a\x1b[2J\n  b\r\nc"), "a [2J b c");
        assert_eq!(line(&"ä".repeat(300)).chars().count(), WORDS + 1);
    }

    #[test]
    fn a_missing_object_is_no_fault_of_its_store() {
        let url = Url::parse("s3://bucket/a.png").unwrap();
        let not_found =
            |source: &str| object_store::Error::NotFound { path: "a.png".to_owned(), source: source.into() };
        let error = fault("read", &url, not_found("404"));
        assert_eq!((error.kind(), error.hint()), (ErrorKind::NotFound, None));
        let error = fault("read", &url, not_found("<Code>NoSuchBucket</Code>"));
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        let generic = |source: &str| object_store::Error::Generic { store: "S3", source: source.into() };
        let error = fault("read", &url, generic("GET http://169.254.169.254/latest/meta-data: timed out"));
        assert!(error.kind() == ErrorKind::Unreachable && error.hint().unwrap().contains("AWS_ACCESS_KEY_ID"));
        let error = fault("read", &url, generic("odd"));
        assert_eq!(
            (error.to_string().as_str(), error.kind()),
            ("cannot read `s3://bucket/a.png`: odd", ErrorKind::Store)
        );
        let error = fault("read", &url, generic("400 Bad Request: <Code>ExpiredToken</Code>"));
        assert!(error.kind() == ErrorKind::Unreachable && error.hint().unwrap().contains("AWS_ACCESS_KEY_ID"));
        assert!(fault("read", &url, generic("<Code>SlowDown</Code>")).hint().unwrap().contains("fewer processes"));
        assert!(fault("read", &url, generic("<Code>PermanentRedirect</Code>")).hint().unwrap().contains("AWS_REGION"));
    }
}
