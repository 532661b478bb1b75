//! An error as PostgreSQL's clients read it.

use pgwire::messages::response::ErrorResponse;
use query::QueryError;

use super::encode::OutOfRange;
use super::limits::ERROR_BYTES_MAX;
use super::params::BadParameter;
use super::settings;

/// How far an error reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The statement.
    Error,
    /// The session.
    Fatal,
}

/// Why a statement, or a session, came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub severity: Severity,
    pub sqlstate: &'static str,
    pub message: String,
    /// Where in the statement, in characters from one.
    pub position: Option<usize>,
}

impl Failure {
    pub fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, sqlstate, message: message.into(), position: None }
    }

    pub fn fatal(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Fatal, ..Self::new(sqlstate, message) }
    }

    pub fn cancelled() -> Self {
        Self::new("57014", "canceling statement due to user request")
    }

    /// Of a query, with its place in `statement`.
    pub fn of_query(error: &QueryError, statement: &str) -> Self {
        let position = error.position.map(|place| characters_before(statement, place.line, place.column) + 1);
        let message = if position.is_some() { error.message.clone() } else { error.to_string() };
        Self { position, ..Self::new(sqlstate_of(error), message) }
    }

    pub fn response(&self) -> ErrorResponse {
        let severity = match self.severity {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
        };
        let mut end = self.message.len().min(ERROR_BYTES_MAX);
        while !self.message.is_char_boundary(end) {
            end -= 1;
        }
        // A field ends at a zero byte, so there cannot be one inside of it.
        let message = self.message[..end].replace('\0', "\u{fffd}");
        let mut fields = vec![
            (b'S', severity.to_owned()),
            (b'V', severity.to_owned()),
            (b'C', self.sqlstate.to_owned()),
            (b'M', message),
        ];
        if let Some(position) = self.position {
            fields.push((b'P', position.to_string()));
        }
        ErrorResponse::new(fields)
    }
}

impl From<OutOfRange> for Failure {
    fn from(error: OutOfRange) -> Self {
        Self::new("22003", error.to_string())
    }
}

impl From<BadParameter> for Failure {
    fn from(error: BadParameter) -> Self {
        Self::new("22P02", error.to_string())
    }
}

impl From<settings::Refused> for Failure {
    fn from(refused: settings::Refused) -> Self {
        Self::new(refused.sqlstate, refused.message)
    }
}

/// The query room's state; of a statement that names what is not there, the state that says which kind it is, because
/// drivers tell these apart.
fn sqlstate_of(error: &QueryError) -> &'static str {
    const SYNTAX_OR_ACCESS: &str = "42000";
    let (state, message) = (error.sqlstate(), error.message.as_str());
    let missing = message.contains("not found") || message.contains("does not exist");
    match message.split_whitespace().next().map(str::to_ascii_lowercase).as_deref() {
        _ if state != SYNTAX_OR_ACCESS => state,
        Some("table") if missing => "42P01",
        Some("column") if missing => "42703",
        Some("invalid") if message.starts_with("invalid function") => "42883",
        _ => state,
    }
}

/// Characters of `statement` before a line and column that count from one.
fn characters_before(statement: &str, line: u64, column: u64) -> usize {
    let lines_before = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
    let in_line = usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX);
    let before: usize = statement.split_inclusive('\n').take(lines_before).map(|text| text.chars().count()).sum();
    before.saturating_add(in_line).min(statement.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use query::{Position, QueryErrorKind};

    #[test]
    fn a_place_is_counted_in_characters() {
        let error = QueryError::new(QueryErrorKind::Parse, "no").at(Some(Position { line: 2, column: 3 }));
        assert_eq!(Failure::of_query(&error, "줄1\nabc").position, Some(6));
        let beyond = QueryError::new(QueryErrorKind::Parse, "no").at(Some(Position { line: 9, column: 9 }));
        assert_eq!(Failure::of_query(&beyond, "ab").position, Some(3));
    }

    #[test]
    fn a_message_is_cut_and_holds_no_zero_byte() {
        let long = Failure::new("42601", format!("\0{}", "가".repeat(ERROR_BYTES_MAX)));
        let response = long.response();
        let message = &response.fields[3].1;
        assert!(message.len() <= ERROR_BYTES_MAX + 3 && !message.contains('\0'));
    }
}
