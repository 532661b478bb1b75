//! How the commands reach a server: its Kafka port and its HTTP port.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use super::failure::{Code, Failure};
use super::routed::Routed;
use super::sql::http;

/// Options of the commands that speak Kafka.
#[derive(Clone, Debug, clap::Args)]
pub struct KafkaArgs {
    /// The server's Kafka address; of a cluster one or more, separated by commas
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

    pub fn connect(&self) -> Result<Routed, Failure> {
        Routed::connect(&self.bootstrap, Duration::from_secs(self.timeout))
    }
}

/// Options of the commands that speak HTTP.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct HttpArgs {
    #[command(flatten)]
    http: http::HttpArgs,
    /// Longest wait for one answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

impl HttpArgs {
    pub fn connect(&self) -> Result<Http, Failure> {
        Ok(Http {
            http: http::Http::new(&self.http)?,
            patience: Duration::from_secs(self.timeout),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        })
    }
}

/// A node's HTTP port for commands that ask one thing after another; every answer has a bound in time.
pub struct Http {
    http: http::Http,
    patience: Duration,
    runtime: tokio::runtime::Runtime,
}

impl Http {
    pub fn get(&self, path: &str) -> Result<Value, Failure> {
        self.within(path, self.http.json(Method::GET, path, None))
    }

    /// The answer's bytes, up to `bytes_max` of them.
    pub fn bytes(&self, path: &str, bytes_max: u64) -> Result<Vec<u8>, Failure> {
        let broken = |error: String| Failure::new(Code::Failure, format!("the answer of {path}: {error}"));
        self.within(path, async {
            let mut response = self.http.send(Method::GET, path, None).await?;
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|error| broken(error.to_string()))? {
                if bytes.len() as u64 + chunk.len() as u64 > bytes_max {
                    return Err(broken(format!("it has more than {bytes_max} bytes")));
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(bytes)
        })
    }

    pub fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.within(path, self.http.json(Method::POST, path, Some(body)))
    }

    pub fn delete(&self, path: &str) -> Result<(), Failure> {
        self.within(path, self.http.send(Method::DELETE, path, None)).map(drop)
    }

    fn within<T>(&self, path: &str, answer: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let seconds = self.patience.as_secs();
        self.runtime.block_on(async {
            let late = || Failure::new(Code::Timeout, format!("{path}: no answer within {seconds} s"));
            tokio::time::timeout(self.patience, answer).await.map_err(|_| late())?
        })
    }
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
    fn a_name_fits_into_a_path() {
        assert_eq!(segment("a b/c"), "a%20b%2Fc");
        assert_eq!(segment("wiki-1.x_y"), "wiki-1.x_y");
    }
}
