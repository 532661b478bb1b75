//! Request bodies: bounded in size and time, and the SQL request in all the shapes Druid takes.

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, header};
use query::Parameter;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::{Fault, Refusal};
use super::limits::{BODY_BYTES_MAX, BODY_READ_TIMEOUT};
use super::render::{Header, ResultFormat};

/// Reads a whole body within the bounds of this edge.
///
/// # Errors
/// `TooLarge`, `Timeout`, or `Invalid` when the client went away in the middle of it.
pub async fn read(body: Body) -> Result<Bytes, Refusal> {
    let too_large = || Refusal::new(Fault::TooLarge, format!("the body is larger than {BODY_BYTES_MAX} bytes"));
    // What says beforehand that it is too large is not waited for.
    if usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX) > BODY_BYTES_MAX {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_READ_TIMEOUT, axum::body::to_bytes(body, BODY_BYTES_MAX)).await {
        Err(_) => Err(Refusal::new(
            Fault::Timeout,
            format!("the body did not arrive within {} s", BODY_READ_TIMEOUT.as_secs()),
        )),
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => {
            let mut cause: Option<&dyn std::error::Error> = Some(&error);
            while let Some(inner) = cause {
                if inner.to_string().contains("length limit") {
                    return Err(too_large());
                }
                cause = inner.source();
            }
            Err(Refusal::invalid(format!("the body could not be read: {error}")))
        }
    }
}

/// Reads a body that has to be JSON.
///
/// # Errors
/// As [`read`]; malformed JSON with its line and column.
pub async fn read_json<T: DeserializeOwned>(body: Body) -> Result<T, Refusal> {
    let bytes = read(body).await?;
    serde_json::from_slice(&bytes).map_err(|error| Refusal::malformed_json(&error))
}

/// What `POST /druid/v2/sql` asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct SqlRequest {
    pub query: String,
    pub format: ResultFormat,
    pub header: Header,
    pub parameters: Vec<Parameter>,
    pub context: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonRequest {
    query: String,
    result_format: Option<String>,
    header: Option<bool>,
    types_header: Option<bool>,
    sql_types_header: Option<bool>,
    parameters: Option<Vec<Option<JsonParameter>>>,
    context: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct JsonParameter {
    #[serde(rename = "type")]
    sql_type: String,
    #[serde(default)]
    value: Value,
}

impl SqlRequest {
    /// From a body by its content type: JSON; `text/plain` is the statement itself; a form is the statement, URL-encoded
    /// or not (what `curl -d` sends), or a JSON request whose sender set no content type.
    ///
    /// # Errors
    /// `Invalid`, naming the place.
    pub fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Self, Refusal> {
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media_type.as_str() {
            "" | "application/json" | "application/x-jackson-smile" => Self::from_json(body),
            "text/plain" => Ok(Self::from_text(text_of(body)?.to_owned())),
            "application/x-www-form-urlencoded" => {
                let text = text_of(body)?;
                if text.trim_start().starts_with('{') {
                    return Self::from_json(body);
                }
                Ok(Self::from_text(form_statement(text)))
            }
            other => Err(Refusal::invalid(format!(
                "content type {other} is not understood: send application/json, text/plain or application/x-www-form-urlencoded"
            ))),
        }
    }

    fn from_text(query: String) -> Self {
        Self {
            query,
            format: ResultFormat::Object,
            header: Header::default(),
            parameters: Vec::new(),
            context: Map::new(),
        }
    }

    fn from_json(body: &[u8]) -> Result<Self, Refusal> {
        if body.is_empty() {
            return Err(Refusal::invalid("the body is empty: send {\"query\": \"SELECT ...\"}"));
        }
        let request: JsonRequest = serde_json::from_slice(body).map_err(|error| Refusal::malformed_json(&error))?;
        let format = match request.result_format.as_deref() {
            None => ResultFormat::Object,
            Some(name) => ResultFormat::parse(name).ok_or_else(|| {
                Refusal::invalid(format!(
                    "resultFormat {name} does not exist: use object, array, objectLines, arrayLines or csv"
                ))
            })?,
        };
        let parameters = request.parameters.unwrap_or_default();
        let parameters = parameters.into_iter().enumerate().map(|(position, parameter)| match parameter {
            Some(JsonParameter { sql_type, value }) => Ok(Parameter { sql_type, value }),
            None => Err(Refusal::invalid(format!("parameters[{position}] is null: give it a type and a value"))),
        });
        Ok(Self {
            query: request.query,
            format,
            header: Header {
                names: request.header.unwrap_or(false),
                types: request.types_header.unwrap_or(false),
                sql_types: request.sql_types_header.unwrap_or(false),
            },
            parameters: parameters.collect::<Result<_, _>>()?,
            context: request.context.unwrap_or_default(),
        })
    }
}

fn text_of(body: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(body)
        .map_err(|error| Refusal::invalid(format!("the body is not UTF-8 at byte {}", error.valid_up_to())))
}

/// A form's statement: URL-decoded where that is possible, as it is where not. A blank is never in an encoded form, so
/// a text with one (what `curl -d` sends) is taken as it is.
fn form_statement(text: &str) -> String {
    let encoded = text.strip_prefix("query=").unwrap_or(text).trim();
    if encoded.contains(char::is_whitespace) {
        return encoded.to_owned();
    }
    percent_decoded(encoded).unwrap_or_else(|| encoded.to_owned())
}

/// `%41+b` -> `A b`. `None` when an escape is cut off, not hex or not UTF-8.
pub fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                out.push(u8::try_from(high * 16 + low).ok()?);
            }
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(content_type: &str, body: &str) -> Result<SqlRequest, Refusal> {
        let mut headers = HeaderMap::new();
        if !content_type.is_empty() {
            headers.insert(header::CONTENT_TYPE, content_type.parse().expect("header"));
        }
        SqlRequest::parse(&headers, body.as_bytes())
    }

    #[test]
    fn json_with_everything() {
        let body = json!({
            "query": "SELECT ?", "resultFormat": "arrayLines", "header": true, "typesHeader": true, "sqlTypesHeader": true,
            "parameters": [{"type": "BIGINT", "value": 7}], "context": {"sqlTimeZone": "Asia/Seoul"}, "unknown": 1
        });
        let request = parse("application/json; charset=utf-8", &body.to_string()).expect("valid");
        assert_eq!(request.format, ResultFormat::ArrayLines);
        assert_eq!(request.header, Header { names: true, types: true, sql_types: true });
        assert_eq!(request.parameters, vec![Parameter { sql_type: "BIGINT".into(), value: json!(7) }]);
        assert_eq!(request.context["sqlTimeZone"], "Asia/Seoul");
    }

    #[test]
    fn plain_text_and_forms_are_the_statement() {
        for (content_type, body) in [
            ("text/plain", "SELECT 1 + 1"),
            ("application/x-www-form-urlencoded", "SELECT%201%20%2B%201"),
            ("application/x-www-form-urlencoded", "query=SELECT+1+%2B+1"),
            ("application/x-www-form-urlencoded", "SELECT 1 + 1"),
            ("application/x-www-form-urlencoded", r#"{"query":"SELECT 1 + 1"}"#),
            ("", r#"{"query":"SELECT 1 + 1"}"#),
        ] {
            assert_eq!(parse(content_type, body).expect("valid").query, "SELECT 1 + 1", "{content_type} {body}");
        }
        let percent = parse("application/x-www-form-urlencoded", "SELECT 100 % 7").expect("valid");
        assert_eq!(percent.query, "SELECT 100 % 7", "what cannot be decoded is taken as it is");
    }

    #[test]
    fn bad_bodies_name_the_place() {
        let message = |content_type, body| parse(content_type, body).expect_err("invalid").message;
        assert_eq!(
            message("application/json", "{\"query\": \"SELECT 1\",\n \"header\": 7}"),
            "malformed JSON at line 2, column 12: invalid type: integer `7`, expected a boolean"
        );
        assert_eq!(message("", "{\"header\":true}"), "malformed JSON at line 1, column 15: missing field `query`");
        assert!(message("", "").starts_with("the body is empty"));
        assert!(message("image/png", "x").starts_with("content type image/png is not understood"));
        assert!(message("", r#"{"query":"x","resultFormat":"xml"}"#).starts_with("resultFormat xml does not exist"));
        assert_eq!(
            message("", r#"{"query":"x","parameters":[null]}"#),
            "parameters[0] is null: give it a type and a value"
        );
    }
}
