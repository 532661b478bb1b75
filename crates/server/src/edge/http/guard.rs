//! What every request passes: no other site's page may use a browser to change things here, a handler that breaks
//! answers 500 and stops only itself, and an answer that is not a query has a time limit.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;

use super::error::{Fault, Problem, Refusal, druid_body};
use super::limits::REQUEST_TIMEOUT;

/// What the guard goes by.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// The listener is on loopback: only names of this machine are accepted as its name, so that a foreign name that
    /// resolves to it (DNS rebinding) is not.
    pub loopback: bool,
}

pub async fn guard(State(policy): State<Policy>, request: Request, next: Next) -> Response {
    if let Err(refusal) = policy.check(request.method(), request.headers()) {
        return refused(request.uri().path(), refusal);
    }
    let path = request.uri().path().to_owned();
    let work = AssertUnwindSafe(next.run(request)).catch_unwind();
    let done = if is_query(&path) {
        // The query room has limits of its own for these.
        Ok(work.await)
    } else {
        tokio::time::timeout(REQUEST_TIMEOUT, work).await
    };
    match done {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            tracing::error!(path, "a request handler broke; the request was given up");
            refused(&path, Refusal::new(Fault::Internal, "the request broke the handler: please report it"))
        }
        Err(_) => {
            let message = format!("not answered within {} s; it may still happen", REQUEST_TIMEOUT.as_secs());
            refused(&path, Refusal::new(Fault::Timeout, message))
        }
    }
}

fn is_query(path: &str) -> bool {
    path.starts_with("/druid/v2/sql")
}

/// As the path's own clients read it.
fn refused(path: &str, refusal: Refusal) -> Response {
    if path.starts_with("/druid/") || path.starts_with("/status") {
        return (refusal.fault.status(), Json(druid_body(&refusal, None))).into_response();
    }
    Problem(refusal).into_response()
}

/// No such path.
pub async fn not_found(request: Request) -> Response {
    let path = request.uri().path();
    let message = format!("{} {path} is not a path of this server", request.method());
    refused(path, Refusal::new(Fault::NotFound, message))
}

/// The path exists with other methods.
pub async fn wrong_method(request: Request) -> Response {
    let path = request.uri().path();
    let refusal = Refusal::new(Fault::Invalid, format!("{} is not offered at {path}", request.method()));
    let mut response = refused(path, refusal);
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}

impl Policy {
    fn check(self, method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = text(headers, &header::HOST).map(name_of);
        if self.loopback && host.is_some_and(|host| !is_this_machine(host)) {
            return Err(Refusal::new(
                Fault::Forbidden,
                "this listener is for this machine only: use localhost or an address as its name",
            ));
        }
        let changes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        let foreign = text(headers, &header::ORIGIN).is_some_and(|origin| {
            let name = origin.split_once("://").map_or("", |(_, rest)| rest);
            Some(name) != text(headers, &header::HOST)
        });
        if changes && foreign {
            return Err(Refusal::new(Fault::Forbidden, "a page of another site may not ask for this"));
        }
        Ok(())
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The name of `name:port`, without the brackets of an IPv6 address.
fn name_of(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

fn is_this_machine(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost") || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(loopback: bool, method: &Method, host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().expect("host"));
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().expect("origin"));
        }
        Policy { loopback }.check(method, &headers).is_ok()
    }

    #[test]
    fn pages_of_other_sites_change_nothing() {
        assert!(check(true, &Method::POST, "localhost:8888", None), "no browser");
        assert!(check(true, &Method::POST, "localhost:8888", Some("http://localhost:8888")));
        assert!(!check(true, &Method::POST, "localhost:8888", Some("http://evil.example")));
        assert!(!check(false, &Method::DELETE, "db.example:8888", Some("null")));
        assert!(check(true, &Method::GET, "localhost:8888", Some("http://evil.example")), "reading answers nobody");
    }

    #[test]
    fn a_foreign_name_for_loopback_is_refused() {
        assert!(!check(true, &Method::GET, "evil.example:8888", None));
        assert!(check(true, &Method::GET, "[::1]:8888", None));
        assert!(check(true, &Method::GET, "127.0.0.1:8888", None));
        assert!(check(false, &Method::GET, "db.example:8888", None));
    }
}
