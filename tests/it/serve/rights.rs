//! Who may ask.

use super::client::Server;
use super::{model, png};
use crate::cli::Lab;

const USER: &str = "user-token-0123456789";
const ADMIN: &str = "admin-token-0123456789";

#[test]
fn tokens_are_asked_for() {
    let (lab, model) = (Lab::new(), model());
    lab.write("user", format!("{USER}\n"));
    lab.write("admin", ADMIN);
    lab.write("short", "short");
    lab.refused(&["serve", &model, "--token-file", "short"], &["no token of at least 16"]);
    lab.refused(&["serve", &model, "--token-file", "none"], &["cannot read the token in `none`"]);
    let server = Server::start(&lab, &[&model, "--token-file", "user", "--admin-token-file", "admin"]);
    let photo = png(1, 40, 33);
    for path in [
        "/",
        "/app.js",
        "/openapi.json",
        "/healthz",
        "/readyz",
        "/ping",
        "/v2/health/live",
        "/v2/health/ready",
        "/labelstudio/health",
    ] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    for path in ["/v1/models", "/metrics", "/v2", "/v2/models/tiny", "/nothing"] {
        let refused = server.get(path);
        refused.fault(401, "unauthorized");
        assert!(refused.header("www-authenticate").is_some());
    }
    let ask =
        |path: &str, token: &str| server.ask("POST", path, &[("Authorization", &format!("Bearer {token}"))], &photo);
    for path in ["/v1/segment", "/invocations", "/v2/models/tiny/infer", "/labelstudio/predict", "/labelstudio/setup"] {
        server.post(path, &photo).fault(401, "unauthorized");
        for wrong in ["", "x", &USER[1..], &format!("{USER}x"), &USER.to_uppercase()] {
            ask(path, wrong).fault(401, "unauthorized");
        }
    }
    assert_eq!((ask("/v1/segment", USER).status, ask("/v1/segment", ADMIN).status), (200, 200));
    use base64::Engine;
    let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("any:{USER}")));
    assert_eq!(server.ask("POST", "/invocations", &[("Authorization", &basic)], &photo).status, 200);
    // Models are loaded by the administrator alone.
    let load = "/v2/repository/models/tiny/load";
    ask(load, USER).fault(401, "unauthorized");
    assert_eq!(ask(load, ADMIN).status, 200);
    // Where there is none, by nobody; the hint says what to do, as above.
    let open = Server::start(&lab, &[&model]);
    let fault = open.post(load, b"").fault(403, "forbidden");
    assert!(fault["hint"].as_str().unwrap().contains("--admin-token-file FILE"));
}

#[test]
fn pages_elsewhere_may_not_ask_unless_they_are_named() {
    let (lab, model) = (Lab::new(), model());
    let photo = png(1, 40, 33);
    let elsewhere = [("Origin", "https://example.org"), ("Sec-Fetch-Site", "cross-site")];
    let closed = Server::start(&lab, &[&model]);
    let fault = closed.ask("POST", "/v1/segment", &elsewhere, &photo).fault(403, "forbidden");
    assert!(fault["hint"].as_str().unwrap().contains("--cors ORIGIN"));
    let preflight = [("Origin", "https://example.org"), ("Access-Control-Request-Method", "POST")];
    let allows = |server: &Server, headers: &[(&str, &str)]| {
        let answer = server.ask("OPTIONS", "/v1/segment", headers, b"");
        answer.header("access-control-allow-origin").map(str::to_owned)
    };
    assert_eq!(allows(&closed, &preflight), None);
    let own = [("Origin", "http://127.0.0.1:8080"), ("Sec-Fetch-Site", "same-origin")];
    assert_eq!(closed.ask("POST", "/v1/segment", &own, &photo).status, 200);
    // The remedy.
    let named = Server::start(&lab, &[&model, "--cors", "https://example.org"]);
    assert_eq!(allows(&named, &preflight).as_deref(), Some("https://example.org"));
    assert_eq!(named.ask("POST", "/v1/segment", &elsewhere, &photo).status, 200);
    let other = [("Origin", "https://other.org"), ("Sec-Fetch-Site", "cross-site")];
    named.ask("POST", "/v1/segment", &other, &photo).fault(403, "forbidden");
    assert_eq!(allows(&named, &[("Origin", "https://other.org"), ("Access-Control-Request-Method", "POST")]), None);
}
