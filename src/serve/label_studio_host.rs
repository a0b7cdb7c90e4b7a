//! Where Label Studio's images may come from: one host that the operator names, and nothing else.

use std::path::Path;

use axum::http::{Request, StatusCode, Uri, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::serve::auth;
use crate::serve::error::Fault;
use crate::serve::gate::Permit;
use crate::serve::limits::Limits;

/// A host from which images are fetched.
pub(super) struct Host {
    authority: String,
    token: Option<String>,
}

impl Host {
    /// The host of an address such as `http://label-studio:8080`, and the file of its access token.
    ///
    /// # Errors
    /// An address that is not `http://HOST:PORT`, and a token that cannot be read.
    pub(super) fn new(address: &str, token: Option<&Path>) -> Result<Self> {
        let wrong = |cause: &str| {
            Error::new(format!("the address `{address}` of Label Studio {cause}")).with_hint(
                "give the address at which this server reaches it without TLS, such as http://label-studio:8080",
            )
        };
        let uri: Uri = address.parse().map_err(|_| wrong("is not an address"))?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let authority = authority.ok_or_else(|| wrong("names no host"))?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong("does not begin with http://"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("has a path"));
        }
        let authority = with_port(authority.as_str()).ok_or_else(|| wrong("names no host"))?;
        Ok(Self { authority, token: token.map(auth::read).transpose()? })
    }

    /// The bytes at a link, which may be a path of the host.
    ///
    /// # Errors
    /// A link to elsewhere, and whatever keeps the file from being fetched within the limits.
    pub(super) async fn fetch(
        &self,
        link: &str,
        limits: &Limits,
        permit: &mut Permit,
    ) -> std::result::Result<Bytes, Fault> {
        let path = self.path(link)?;
        let got = timeout(limits.body_time, self.get(&path, limits, permit)).await;
        got.unwrap_or_else(|_| Err(failed(link, "it took too long")))
    }

    /// The path and query of a link to this host.
    fn path(&self, link: &str) -> std::result::Result<String, Fault> {
        let elsewhere = || {
            Fault::new(
                StatusCode::FORBIDDEN,
                "forbidden",
                format!("images are fetched from http://{} alone", self.authority),
            )
            .hint("start the server with --label-studio and the address of the links")
        };
        let uri: Uri = link.parse().map_err(|_| elsewhere())?;
        if let Some(authority) = uri.authority() {
            let own =
                uri.scheme_str() == Some("http") && with_port(authority.as_str()).as_ref() == Some(&self.authority);
            if !own {
                return Err(elsewhere());
            }
        } else if !link.starts_with('/') || link.starts_with("//") {
            return Err(elsewhere());
        }
        Ok(uri.path_and_query().map_or("/", |path| path.as_str()).to_owned())
    }

    async fn get(&self, path: &str, limits: &Limits, permit: &mut Permit) -> std::result::Result<Bytes, Fault> {
        let stream = TcpStream::connect(&self.authority).await.map_err(|error| failed(path, &error.to_string()))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(path, &error.to_string()))?;
        let connection = tokio::spawn(connection);
        let mut request = Request::get(path).header(header::HOST, &self.authority);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Token {token}"));
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| failed(path, &error.to_string()))?;
        let response = sender.send_request(request).await.map_err(|error| failed(path, &error.to_string()))?;
        // Nothing is followed: it would lead elsewhere.
        if response.status() != StatusCode::OK {
            return Err(failed(path, &format!("it answered {}", response.status())));
        }
        let (mut body, mut bytes) = (response.into_body(), BytesMut::new());
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|error| failed(path, &error.to_string()))?.into_data() else { continue };
            if bytes.len() + data.len() > limits.body_bytes {
                return Err(Fault::body_too_large(limits.body_bytes));
            }
            permit.take_bytes(data.len())?;
            bytes.extend_from_slice(&data);
        }
        connection.abort();
        Ok(bytes.freeze())
    }
}

fn failed(link: &str, cause: &str) -> Fault {
    let shown: String = link.chars().take(200).collect();
    Fault::new(StatusCode::BAD_GATEWAY, "fetch_failed", format!("cannot fetch `{shown}` from Label Studio: {cause}"))
        .hint("check the address and the token that the server was started with")
}

/// `host:port`, in lower case; port 80 where there is none.
fn with_port(authority: &str) -> Option<String> {
    let authority = authority.to_ascii_lowercase();
    let host_end = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, port) = authority.split_at(host_end);
    let port = port.strip_prefix(':').unwrap_or("80");
    (!host.is_empty() && port.parse::<u16>().is_ok()).then(|| format!("{host}:{port}"))
}

/// The bytes in a `data:` address; none where it is another.
///
/// # Errors
/// Data that are not base64.
pub(super) fn inline(link: &str) -> Option<std::result::Result<Bytes, Fault>> {
    let (kind, data) = link.strip_prefix("data:")?.split_once(',')?;
    let decoded = STANDARD.decode(data).ok().filter(|_| kind.ends_with(";base64"));
    Some(decoded.map(Bytes::from).ok_or_else(|| Fault::bad_request("the `data:` address of the image is not base64")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_the_host_alone() {
        let host = Host::new("http://Studio:8080/", None).unwrap();
        assert_eq!(host.path("/data/upload/1/a.jpg?d=x").unwrap(), "/data/upload/1/a.jpg?d=x");
        assert_eq!(host.path("http://studio:8080/a").unwrap(), "/a");
        let elsewhere = [
            "http://studio/a",
            "https://studio:8080/a",
            "http://studio:8080@evil/a",
            "http://evil@studio:8080/a",
            "//evil/a",
            "http://169.254.169.254/latest",
            "file:///etc/passwd",
            "a.jpg",
            "",
        ];
        for link in elsewhere {
            assert!(host.path(link).is_err(), "{link}");
        }
        for address in ["https://studio", "studio:8080", "http://studio/path", "http://a@studio", "http://", "x y"] {
            assert!(Host::new(address, None).err().unwrap().hint().is_some(), "{address}");
        }
        assert_eq!(Host::new("http://[::1]", None).unwrap().authority, "[::1]:80");
    }

    #[test]
    fn images_may_stand_in_their_links() {
        assert_eq!(inline("data:image/png;base64,aGk=").unwrap().unwrap(), "hi");
        assert!(inline("data:image/png,hi").unwrap().is_err() && inline("http://x").is_none());
    }
}
