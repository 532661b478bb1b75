//! Requests to a node's HTTP port, and failures as the commands report them.

use std::time::Duration;

use clap::Args;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::cli::failure::{Code, Failure};

/// Longest line of an answer: one row.
const LINE_BYTES_MAX: usize = 256 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the node is.
#[derive(Args, Clone, Debug)]
pub struct HttpArgs {
    /// The node's HTTP address
    #[arg(long, env = "SEAWALL_URL", default_value = "http://127.0.0.1:8888", value_name = "URL")]
    pub url: String,
}

/// A node's HTTP port.
#[derive(Clone, Debug)]
pub struct Http {
    base: String,
    client: reqwest::Client,
}

impl Http {
    /// # Errors
    /// `Usage` for an address that is none.
    pub fn new(args: &HttpArgs) -> Result<Self, Failure> {
        let base = args.url.trim_end_matches('/');
        let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
        if reqwest::Url::parse(&base).is_err() {
            return Err(Failure::usage(format!("{} is no address: write it as http://127.0.0.1:8888", args.url)));
        }
        let client = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).no_proxy().build();
        Ok(Self { base, client: client.map_err(|error| Failure::new(Code::Failure, error.to_string()))? })
    }

    /// One request. An answer that is not a success is a failure with the node's own words.
    ///
    /// # Errors
    /// `CannotConnect`, or what the answer's status says.
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response, Failure> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.unsent(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        Err(Failure::new(code_of(status), words_of(status, &text)))
    }

    /// As [`Http::send`], with the answer's JSON.
    ///
    /// # Errors
    /// As [`Http::send`]; `Failure` when the answer is not JSON.
    pub async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let response = self.send(method, path, body).await?;
        let unreadable = |error: reqwest::Error| Failure::new(Code::Failure, format!("the answer of {path}: {error}"));
        response.json().await.map_err(unreadable)
    }

    /// Starts a statement under an id of the caller's.
    ///
    /// # Errors
    /// As [`Http::send`].
    pub async fn query(&self, sql: &str, query_id: &str, context: &Map<String, Value>) -> Result<Answer, Failure> {
        let mut context = context.clone();
        context.insert("sqlQueryId".into(), query_id.into());
        let body = json!({
            "query": sql, "resultFormat": "arrayLines", "header": true, "typesHeader": true, "sqlTypesHeader": true,
            "context": context,
        });
        let response = self.send(Method::POST, "/druid/v2/sql", Some(&body)).await?;
        let warnings = response.headers().get_all("x-seawall-warning").iter();
        let warnings = warnings.filter_map(|warning| Some(warning.to_str().ok()?.to_owned())).collect();
        let mut lines = Lines { response, buffer: Vec::new(), next: 0 };
        let names = lines.header().await?;
        lines.header().await?;
        let types = lines.header().await?;
        let columns = names.into_iter().zip(types).map(|(name, sql_type)| Column { name, sql_type }).collect();
        Ok(Answer { columns, warnings, lines, whole: false })
    }

    /// Asks the node to stop a statement. One that has ended already is fine.
    pub async fn cancel(&self, query_id: &str) {
        drop(self.send(Method::DELETE, &format!("/druid/v2/sql/{query_id}"), None).await);
    }

    fn unsent(&self, error: &reqwest::Error) -> Failure {
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        if error.is_connect() || error.is_timeout() {
            let message = format!("cannot connect to {}: {cause}; is a node running there? (--url)", self.base);
            return Failure::new(Code::CannotConnect, message);
        }
        Failure::new(Code::Failure, format!("{}: {cause}", self.base))
    }
}

fn code_of(status: StatusCode) -> Code {
    match status.as_u16() {
        401 | 403 => Code::Denied,
        404 => Code::NotFound,
        409 => Code::Conflict,
        408 | 504 => Code::Timeout,
        _ => Code::Failure,
    }
}

/// The message within an error answer of either kind, or the answer itself.
fn words_of(status: StatusCode, text: &str) -> String {
    let json: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    let said = ["errorMessage", "detail", "error"].iter().find_map(|key| json.get(*key).and_then(Value::as_str));
    match said {
        Some(words) => words.to_owned(),
        None if text.trim().is_empty() => format!("the node answered {status}"),
        None => format!("the node answered {status}: {}", text.trim().chars().take(500).collect::<String>()),
    }
}

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub sql_type: String,
}

/// An answer whose rows are on their way.
#[derive(Debug)]
pub struct Answer {
    pub columns: Vec<Column>,
    /// What the node says of the answer.
    pub warnings: Vec<String>,
    lines: Lines,
    whole: bool,
}

impl Answer {
    /// The next row; `None` after the last.
    ///
    /// # Errors
    /// `Failure` when the answer is cut off before its end.
    pub async fn next(&mut self) -> Result<Option<Vec<Value>>, Failure> {
        if self.whole {
            return Ok(None);
        }
        match self.lines.next().await? {
            Some([]) => {
                self.whole = true;
                Ok(None)
            }
            Some(line) => serde_json::from_slice(line)
                .map(Some)
                .map_err(|error| Failure::new(Code::Failure, format!("a row of the answer is not JSON: {error}"))),
            None => Err(Failure::new(
                Code::Failure,
                "the answer was cut off: the query failed on its way; see the node's log",
            )),
        }
    }
}

/// The lines of a body as they come.
#[derive(Debug)]
struct Lines {
    response: Response,
    buffer: Vec<u8>,
    next: usize,
}

impl Lines {
    async fn header(&mut self) -> Result<Vec<String>, Failure> {
        let bad = || Failure::new(Code::Failure, "the answer has no header: is this a Seawall node? (--url)");
        let line = self.next().await?.ok_or_else(bad)?;
        serde_json::from_slice(line).map_err(|_| bad())
    }

    /// The next line without its end; `None` at the end of the body.
    async fn next(&mut self) -> Result<Option<&[u8]>, Failure> {
        let mut searched = self.next;
        loop {
            if let Some(length) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let (from, to) = (self.next, searched + length);
                self.next = to + 1;
                return Ok(Some(&self.buffer[from..to]));
            }
            self.buffer.drain(..self.next);
            self.next = 0;
            searched = self.buffer.len();
            if searched > LINE_BYTES_MAX {
                return Err(Failure::new(Code::Failure, format!("a row of more than {LINE_BYTES_MAX} bytes")));
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) | Err(_) => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_own_words_are_said() {
        let druid = r#"{"error":"druidException","errorMessage":"no such column x"}"#;
        assert_eq!(words_of(StatusCode::BAD_REQUEST, druid), "no such column x");
        assert_eq!(
            words_of(StatusCode::NOT_FOUND, r#"{"title":"t","detail":"table x does not exist"}"#),
            "table x does not exist"
        );
        assert_eq!(words_of(StatusCode::BAD_GATEWAY, ""), "the node answered 502 Bad Gateway");
        assert_eq!(code_of(StatusCode::GATEWAY_TIMEOUT), Code::Timeout);
    }

    #[test]
    fn an_address_needs_no_scheme() {
        let at = |url: &str| Http::new(&HttpArgs { url: url.to_owned() });
        assert_eq!(at("localhost:8888").expect("address").base, "http://localhost:8888");
        assert!(at("http://[").is_err());
    }
}
