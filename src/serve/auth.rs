//! Who may ask: tokens, compared without telling by the time how much of one is right.

use std::path::Path;

use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

use crate::error::{Error, Result};
use crate::files;
use crate::serve::error::Fault;

/// The tokens of a server.
#[derive(Default)]
pub(super) struct Tokens {
    /// Of those who ask; none asks for none.
    user: Option<String>,
    /// Of those who load models; without it nobody may.
    admin: Option<String>,
}

impl Tokens {
    /// Reads the files that hold them.
    ///
    /// # Errors
    /// A file that cannot be read, or holds no token of at least 16 characters.
    pub(super) fn read(user: Option<&Path>, admin: Option<&Path>) -> Result<Self> {
        Ok(Self { user: user.map(read).transpose()?, admin: admin.map(read).transpose()? })
    }

    /// Whether a token is asked for.
    pub(super) fn are_asked(&self) -> bool {
        self.user.is_some()
    }

    /// Fails where a token is asked for and none of the two is given.
    pub(super) fn check_user(&self, headers: &HeaderMap) -> std::result::Result<(), Fault> {
        let Some(user) = &self.user else { return Ok(()) };
        let given = given(headers);
        let is = |token: &str| given.as_deref().is_some_and(|given| same(given, token));
        // Both, so that the time does not tell which one was compared.
        let (user, admin) = (is(user), self.admin.as_deref().is_some_and(is));
        if user | admin { Ok(()) } else { Err(Fault::unauthorized()) }
    }

    /// Fails where the administrator's token is not given, or there is none.
    pub(super) fn check_admin(&self, headers: &HeaderMap) -> std::result::Result<(), Fault> {
        let Some(admin) = &self.admin else {
            return Err(Fault::new(StatusCode::FORBIDDEN, "forbidden", "this server has no token for administrators")
                .hint("start it with --admin-token-file FILE"));
        };
        match given(headers).is_some_and(|given| same(&given, admin)) {
            true => Ok(()),
            false => Err(Fault::unauthorized()),
        }
    }
}

fn same(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

/// The token of `Authorization: Bearer TOKEN`, or the password of `Basic`.
fn given(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = text.split_once(' ')?;
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(rest.trim().to_owned()),
        "basic" => {
            let pair = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
            Some(pair.split_once(':')?.1.to_owned())
        }
        _ => None,
    }
}

/// Longer ones are not tokens.
const LONGEST: u64 = 4096;
/// Shorter ones can be guessed.
const SHORTEST: usize = 16;

/// The token in the file at `path`.
pub(super) fn read(path: &Path) -> Result<String> {
    let bytes = files::read(path, LONGEST).map_err(|error| {
        Error::file("read the token in", path, error).with_hint("name a file with one line of random characters")
    })?;
    let text = String::from_utf8(bytes).unwrap_or_default();
    let token = text.trim();
    if token.len() < SHORTEST || !token.chars().all(|c| c.is_ascii_graphic()) {
        return Err(Error::new(format!("`{}` holds no token of at least {SHORTEST} ASCII characters", path.display()))
            .with_hint("write one line of random characters into it, for instance from `openssl rand -hex 32`"));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn tokens_are_told_from_others() {
        let headers =
            |value: &str| HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap())]);
        let (user, admin) = ("0123456789abcdef", "fedcba9876543210");
        let tokens = Tokens { user: Some(user.into()), admin: Some(admin.into()) };
        let basic = format!("Basic {}", STANDARD.encode(format!("anyone:{user}")));
        for right in [&format!("Bearer {user}"), &format!("bearer  {user}"), &basic, &format!("Bearer {admin}")] {
            tokens.check_user(&headers(right)).unwrap();
        }
        for wrong in ["Bearer", "Bearer x", "Basic !!", &format!("Bearer {user}x"), &format!("Token {user}")] {
            assert_eq!(tokens.check_user(&headers(wrong)).unwrap_err().status.as_u16(), 401, "{wrong}");
        }
        assert_eq!(tokens.check_user(&HeaderMap::new()).unwrap_err().code, "unauthorized");
        assert_eq!(tokens.check_admin(&headers(&format!("Bearer {user}"))).unwrap_err().status.as_u16(), 401);
        tokens.check_admin(&headers(&format!("Bearer {admin}"))).unwrap();
        Tokens::default().check_user(&HeaderMap::new()).unwrap();
        assert_eq!(Tokens::default().check_admin(&headers("Bearer x")).unwrap_err().status.as_u16(), 403);
    }

    #[test]
    fn short_tokens_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for text in ["", "short", "sixteen letters b ut two words"] {
            std::fs::write(&path, text).unwrap();
            assert!(read(&path).unwrap_err().hint().unwrap().contains("openssl"));
        }
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        assert_eq!(read(&path).unwrap(), "0123456789abcdef");
        assert!(Tokens::read(Some(&folder.path().join("none")), None).is_err());
    }
}
