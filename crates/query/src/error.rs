//! One error type: whose fault it is, what Druid and PostgreSQL call it, and what to do next.

use std::fmt;

use serde_json::{Map, Value, json};

/// What went wrong, in the words a caller decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryErrorKind {
    /// Not SQL. Change the statement.
    Parse,
    /// SQL, but of unknown names, wrong types or bad values. Change the statement or the table.
    Validation,
    /// Understood and not offered. Write it differently.
    Unsupported,
    /// A value met while running made no sense for its operation (a cast, a division). Change statement or data.
    Execution,
    /// Needed more memory than it may have. Narrow it, or raise the limit.
    Memory,
    /// Took longer than it may. Narrow it, or ask for more time.
    Timeout,
    /// Somebody cancelled it.
    Cancelled,
    /// Too many queries run and wait. Retry later.
    Capacity,
    /// Part of the data is not here; the answer would be wrong. Bring it back, or retry later.
    Unavailable,
    /// Our fault.
    Internal,
}

/// A place in the statement; both count from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub line: u64,
    pub column: u64,
}

/// Why a query did not give an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryError {
    pub kind: QueryErrorKind,
    pub message: String,
    pub position: Option<Position>,
}

/// Druid's and PostgreSQL's words for one kind.
struct Words {
    code: &'static str,
    persona: &'static str,
    category: &'static str,
    class: &'static str,
    legacy: &'static str,
    status: u16,
    sqlstate: &'static str,
}

impl QueryErrorKind {
    const fn words(self) -> Words {
        let (code, persona, category, class, legacy, status, sqlstate) = match self {
            Self::Parse => {
                ("invalidInput", "USER", "INVALID_INPUT", "SqlParseException", "SQL parse failed", 400, "42601")
            }
            Self::Validation => {
                ("invalidInput", "USER", "INVALID_INPUT", "ValidationException", "Plan validation failed", 400, "42000")
            }
            Self::Unsupported => {
                ("general", "USER", "UNSUPPORTED", "QueryUnsupportedException", "Query not supported", 501, "0A000")
            }
            Self::Execution => {
                ("invalidInput", "USER", "INVALID_INPUT", "RuntimeException", "Unknown exception", 400, "22000")
            }
            Self::Memory => (
                "legacyQueryException",
                "OPERATOR",
                "CAPACITY_EXCEEDED",
                "ResourceLimitExceededException",
                "Resource limit exceeded",
                400,
                "53200",
            ),
            Self::Timeout => {
                ("legacyQueryException", "OPERATOR", "TIMEOUT", "QueryTimeoutException", "Query timeout", 504, "57014")
            }
            Self::Cancelled => (
                "legacyQueryException",
                "OPERATOR",
                "CANCELED",
                "QueryInterruptedException",
                "Query cancelled",
                500,
                "57014",
            ),
            Self::Capacity => (
                "legacyQueryException",
                "OPERATOR",
                "CAPACITY_EXCEEDED",
                "QueryCapacityExceededException",
                "Query capacity exceeded",
                429,
                "53300",
            ),
            Self::Unavailable => (
                "legacyQueryException",
                "OPERATOR",
                "RUNTIME_FAILURE",
                "SegmentMissingException",
                "Query interrupted",
                500,
                "58000",
            ),
            Self::Internal => {
                ("general", "OPERATOR", "RUNTIME_FAILURE", "RuntimeException", "Unknown exception", 500, "XX000")
            }
        };
        Words { code, persona, category, class, legacy, status, sqlstate }
    }
}

impl QueryError {
    pub fn new(kind: QueryErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), position: None }
    }

    pub fn validation(message: impl Into<String>) -> Self {
        Self::new(QueryErrorKind::Validation, message)
    }

    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(QueryErrorKind::Unsupported, message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(QueryErrorKind::Unavailable, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(QueryErrorKind::Internal, message)
    }

    #[must_use]
    pub fn at(mut self, position: Option<Position>) -> Self {
        self.position = position;
        self
    }

    /// The status an HTTP answer carries when nothing was sent yet.
    pub fn http_status(&self) -> u16 {
        self.kind.words().status
    }

    /// PostgreSQL's SQLSTATE.
    pub fn sqlstate(&self) -> &'static str {
        self.kind.words().sqlstate
    }

    /// Druid's `errorCode`.
    pub fn code(&self) -> &'static str {
        self.kind.words().code
    }

    /// Druid's `persona`: who can do something about it.
    pub fn persona(&self) -> &'static str {
        self.kind.words().persona
    }

    /// Druid's `category`.
    pub fn category(&self) -> &'static str {
        self.kind.words().category
    }

    /// Druid's `errorClass`, as older clients read it.
    pub fn error_class(&self) -> &'static str {
        self.kind.words().class
    }

    /// The body of a Druid error answer: the present fields and those older clients read.
    pub fn to_druid_json(&self, host: Option<&str>) -> Value {
        let words = self.kind.words();
        let mut context = Map::new();
        if let Some(position) = self.position {
            context.insert("sourceType".into(), json!("sql"));
            context.insert("line".into(), json!(position.line.to_string()));
            context.insert("column".into(), json!(position.column.to_string()));
        }
        if words.code == "legacyQueryException" {
            context.insert("legacyErrorCode".into(), json!(words.legacy));
            context.insert("errorClass".into(), json!(words.class));
            context.insert("host".into(), json!(host));
        }
        json!({
            "error": "druidException",
            "errorCode": words.code,
            "persona": words.persona,
            "category": words.category,
            "errorMessage": self.to_string(),
            "errorClass": words.class,
            "host": host,
            "context": context,
        })
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match self.position {
            Some(Position { line, column }) => write!(f, " (line [{line}], column [{column}])"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for QueryError {}
