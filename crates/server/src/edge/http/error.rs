//! Errors as answers: Druid's JSON on Druid's paths, problem+json (RFC 9457) on our own.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use query::QueryError;
use serde_json::{Value, json};

use crate::node::NodeError;

/// Who can do something about it, in Druid's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request is wrong: change it.
    Invalid,
    /// No such thing.
    NotFound,
    /// Understood and refused by policy.
    Forbidden,
    /// Understood and not offered.
    Unsupported,
    /// The body is larger than it may be.
    TooLarge,
    /// It is there already, with other content.
    Conflict,
    /// Too much at once: retry later.
    Busy,
    /// Not done in time: it may still happen.
    Timeout,
    /// Our fault.
    Internal,
}

impl Fault {
    pub fn status(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Unsupported => StatusCode::NOT_IMPLEMENTED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Conflict => StatusCode::CONFLICT,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Druid's `errorCode`, `persona`, `category` and the class older clients print.
    fn druid_words(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::Invalid | Self::TooLarge | Self::Conflict => {
                ("invalidInput", "USER", "INVALID_INPUT", "IllegalArgumentException")
            }
            Self::NotFound => ("notFound", "USER", "NOT_FOUND", "NotFoundException"),
            Self::Forbidden => ("forbidden", "USER", "FORBIDDEN", "ForbiddenException"),
            Self::Unsupported => ("general", "USER", "UNSUPPORTED", "UnsupportedOperationException"),
            Self::Busy => ("general", "OPERATOR", "CAPACITY_EXCEEDED", "QueryCapacityExceededException"),
            Self::Timeout => ("general", "OPERATOR", "TIMEOUT", "TimeoutException"),
            Self::Internal => ("general", "OPERATOR", "RUNTIME_FAILURE", "RuntimeException"),
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Invalid => "the request is not valid",
            Self::NotFound => "not found",
            Self::Forbidden => "refused",
            Self::Unsupported => "not offered",
            Self::TooLarge => "the request is too large",
            Self::Conflict => "it exists already",
            Self::Busy => "too busy",
            Self::Timeout => "not done in time",
            Self::Internal => "an error of ours",
        }
    }
}

/// A refused request, before its path decided how to say so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub fault: Fault,
    pub message: String,
}

impl Refusal {
    pub fn new(fault: Fault, message: impl Into<String>) -> Self {
        Self { fault, message: message.into() }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Fault::Invalid, message)
    }

    /// JSON that does not parse, with its place.
    pub fn malformed_json(error: &serde_json::Error) -> Self {
        if error.line() == 0 {
            return Self::invalid(format!("the body is not the JSON expected: {error}"));
        }
        let text = error.to_string();
        let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
        Self::invalid(format!("malformed JSON at line {}, column {}: {what}", error.line(), error.column()))
    }
}

impl From<NodeError> for Refusal {
    fn from(error: NodeError) -> Self {
        let fault = match &error {
            NodeError::UnknownTopic(_) | NodeError::UnknownPartition(_) | NodeError::UnknownTable(_) => Fault::NotFound,
            NodeError::Refused(_) | NodeError::Invalid(_) => Fault::Invalid,
            NodeError::Timeout { .. } => Fault::Timeout,
            NodeError::Busy { .. } | NodeError::Stopping => Fault::Busy,
            _ => Fault::Internal,
        };
        Self::new(fault, error.to_string())
    }
}

/// A refusal on one of Druid's paths.
#[derive(Debug)]
pub struct DruidError(pub Refusal);

impl<T: Into<Refusal>> From<T> for DruidError {
    fn from(refusal: T) -> Self {
        Self(refusal.into())
    }
}

impl IntoResponse for DruidError {
    fn into_response(self) -> Response {
        (self.0.fault.status(), Json(druid_body(&self.0, None))).into_response()
    }
}

/// The JSON Druid answers with, including the fields older clients read.
pub fn druid_body(refusal: &Refusal, host: Option<&str>) -> Value {
    let (code, persona, category, class) = refusal.fault.druid_words();
    json!({
        "error": "druidException",
        "errorCode": code,
        "persona": persona,
        "category": category,
        "errorMessage": refusal.message,
        "errorClass": class,
        "host": host,
        "context": {},
    })
}

/// A query's error as an answer.
pub fn query_error(error: &QueryError, host: Option<&str>) -> Response {
    let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Json(error.to_druid_json(host))).into_response()
}

/// A refusal on one of our own paths.
#[derive(Debug)]
pub struct Problem(pub Refusal);

impl<T: Into<Refusal>> From<T> for Problem {
    fn from(refusal: T) -> Self {
        Self(refusal.into())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.0.fault.status();
        let (code, ..) = self.0.fault.druid_words();
        let body = json!({
            "type": "about:blank",
            "title": self.0.fault.title(),
            "status": status.as_u16(),
            "detail": self.0.message,
            "code": code,
        });
        let mut response = (status, Json(body)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_json_names_its_place() {
        let error = serde_json::from_str::<Value>("{\"a\":\n  b}").expect_err("not JSON");
        let refusal = Refusal::malformed_json(&error);
        assert_eq!(refusal.message, "malformed JSON at line 2, column 3: expected value");
    }

    #[test]
    fn druid_errors_have_every_field_clients_read() {
        let body = druid_body(&Refusal::new(Fault::NotFound, "supervisor x does not exist"), Some("localhost:8888"));
        assert_eq!(
            body.to_string(),
            concat!(
                r#"{"error":"druidException","errorCode":"notFound","persona":"USER","category":"NOT_FOUND","#,
                r#""errorMessage":"supervisor x does not exist","errorClass":"NotFoundException","#,
                r#""host":"localhost:8888","context":{}}"#
            )
        );
    }
}
