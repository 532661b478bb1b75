//! How the commands reach a server: its Kafka port and its HTTP port.

use std::time::Duration;

use client::Connection;
use serde_json::Value;

use super::failure::{Code, Failure};

/// Options of the commands that speak Kafka.
#[derive(Clone, Debug, clap::Args)]
pub struct KafkaArgs {
    /// The server's Kafka address
    #[arg(long, short = 'b', value_name = "HOST:PORT", env = "SEAWALL_BOOTSTRAP", default_value = "127.0.0.1:9092")]
    pub bootstrap: String,
    /// Longest wait for one answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

impl KafkaArgs {
    /// As if only the address had been given.
    pub fn new(bootstrap: &str) -> Self {
        Self { bootstrap: bootstrap.to_owned(), timeout: 30 }
    }

    pub fn connect(&self) -> Result<Connection, Failure> {
        Ok(Connection::connect(&self.bootstrap, "seawall-cli", Duration::from_secs(self.timeout))?)
    }
}

/// Options of the commands that speak HTTP.
#[derive(Clone, Debug, clap::Args)]
pub struct HttpArgs {
    /// The server's HTTP address
    #[arg(long, short = 'u', env = "SEAWALL_URL", default_value = "http://127.0.0.1:8888")]
    pub url: String,
    /// Longest wait for one answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

impl HttpArgs {
    pub fn connect(&self) -> Result<Http, Failure> {
        Http::new(&self.url, Duration::from_secs(self.timeout))
    }
}

/// A blocking HTTP client for one server.
pub struct Http {
    url: String,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Http {
    pub fn new(url: &str, patience: Duration) -> Result<Self, Failure> {
        let scheme = if url.contains("://") { "" } else { "http://" };
        let client = reqwest::Client::builder().timeout(patience).no_proxy().build();
        Ok(Self {
            url: format!("{scheme}{}", url.trim_end_matches('/')),
            client: client.map_err(|error| Failure::new(Code::Failure, error.to_string()))?,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        })
    }

    pub fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send(self.client.get(self.at(path)))
    }

    pub fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.send(self.client.post(self.at(path)).json(body))
    }

    pub fn delete(&self, path: &str) -> Result<(), Failure> {
        self.send(self.client.delete(self.at(path))).map(drop)
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn send(&self, request: reqwest::RequestBuilder) -> Result<Value, Failure> {
        self.runtime.block_on(async {
            let answer = request.send().await.map_err(|error| self.unanswered(&error))?;
            let status = answer.status();
            let body = answer.bytes().await.map_err(|error| self.unanswered(&error))?;
            if !status.is_success() {
                return Err(refused(status.as_u16(), &body));
            }
            if body.is_empty() {
                return Ok(Value::Null);
            }
            serde_json::from_slice(&body)
                .map_err(|error| Failure::new(Code::Failure, format!("{}: the answer is not JSON: {error}", self.url)))
        })
    }

    fn unanswered(&self, error: &reqwest::Error) -> Failure {
        if error.is_timeout() {
            return Failure::new(Code::Timeout, format!("{}: no answer in time", self.url));
        }
        if error.is_connect() {
            let message = format!("cannot connect to {}; is `seawall serve` running there?", self.url);
            return Failure::new(Code::CannotConnect, message);
        }
        Failure::new(Code::Failure, format!("{}: {error}", self.url))
    }
}

/// A refusal in the server's words: problem+json's detail, or Druid's message, or what there is.
fn refused(status: u16, body: &[u8]) -> Failure {
    let code = match status {
        400 | 422 => Code::Usage,
        401 | 403 => Code::Denied,
        404 => Code::NotFound,
        409 => Code::Conflict,
        408 | 504 => Code::Timeout,
        _ => Code::Failure,
    };
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let words = ["detail", "errorMessage", "title", "error"].iter().find_map(|key| problem.get(key)?.as_str());
    let shown = words.map_or_else(|| format!("HTTP {status}"), str::to_owned);
    Failure::new(code, shown)
}

/// A name as one segment of a path.
pub fn segment(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_shown_in_the_servers_words() {
        let failure = refused(409, br#"{"title":"Conflict","detail":"table t exists"}"#);
        assert_eq!(failure, Failure::new(Code::Conflict, "table t exists"));
        assert_eq!(refused(502, b"<html>"), Failure::new(Code::Failure, "HTTP 502"));
        assert_eq!(segment("a b/c"), "a%20b%2Fc");
    }
}
