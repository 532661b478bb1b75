//! DataFusion's errors in our words: whose fault it is, without the engine's own prefixes.

use datafusion::arrow::error::ArrowError;
use datafusion::common::{DataFusionError, SchemaError};

use crate::error::{QueryError, QueryErrorKind};

/// What a caller may do about a DataFusion error.
pub fn from_datafusion(error: DataFusionError) -> QueryError {
    let kind = kind_of(&error);
    if let Some(own) = own_error(&error) {
        return own.clone();
    }
    QueryError::new(kind, message_of(&error))
}

/// An error of ours that went through DataFusion.
fn own_error(error: &DataFusionError) -> Option<&QueryError> {
    match error {
        DataFusionError::External(inner) => inner.downcast_ref::<QueryError>(),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => own_error(inner),
        DataFusionError::Shared(inner) => own_error(inner),
        DataFusionError::Collection(all) => all.first().and_then(own_error),
        _ => None,
    }
}

fn kind_of(error: &DataFusionError) -> QueryErrorKind {
    match error {
        DataFusionError::SQL(..) => QueryErrorKind::Parse,
        DataFusionError::Plan(_) | DataFusionError::SchemaError(..) | DataFusionError::Configuration(_) => {
            QueryErrorKind::Validation
        }
        DataFusionError::NotImplemented(_) => QueryErrorKind::Unsupported,
        DataFusionError::ResourcesExhausted(_) => QueryErrorKind::Memory,
        DataFusionError::Execution(_) | DataFusionError::ArrowError(..) => QueryErrorKind::Execution,
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => kind_of(inner),
        DataFusionError::Shared(inner) => kind_of(inner),
        DataFusionError::Collection(all) => all.first().map_or(QueryErrorKind::Internal, kind_of),
        _ => QueryErrorKind::Internal,
    }
}

fn message_of(error: &DataFusionError) -> String {
    let text = match error {
        DataFusionError::Plan(text)
        | DataFusionError::NotImplemented(text)
        | DataFusionError::Execution(text)
        | DataFusionError::ResourcesExhausted(text)
        | DataFusionError::Configuration(text) => text.clone(),
        DataFusionError::Internal(text) => format!("fault in the query planner: {text}"),
        DataFusionError::SQL(error, _) => error.to_string(),
        DataFusionError::SchemaError(error, _) => schema_message(error),
        DataFusionError::ArrowError(error, _) => arrow_message(error),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => return message_of(inner),
        DataFusionError::Shared(inner) => return message_of(inner),
        DataFusionError::Collection(all) => return all.first().map_or_else(String::new, message_of),
        other => other.to_string(),
    };
    // A backtrace, where the build has one, is of no use to the caller.
    let text = text.split("\n\nbacktrace:").next().unwrap_or_default();
    plain(text)
}

fn schema_message(error: &SchemaError) -> String {
    const SHOWN: usize = 20;
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let mut names: Vec<&str> = valid_fields.iter().map(|column| column.name.as_str()).collect();
            names.dedup();
            let more = if names.len() > SHOWN { ", ..." } else { "" };
            names.truncate(SHOWN);
            format!("column '{}' not found; there are {}{more}", field.flat_name(), names.join(", "))
        }
        other => other.to_string(),
    }
}

fn arrow_message(error: &ArrowError) -> String {
    match error {
        ArrowError::DivideByZero => "division by zero; use SAFE_DIVIDE to get NULL instead".to_owned(),
        ArrowError::ComputeError(text) | ArrowError::CastError(text) | ArrowError::InvalidArgumentError(text) => {
            text.clone()
        }
        ArrowError::ExternalError(inner) => inner.to_string(),
        other => other.to_string(),
    }
}

/// Lower case at the front, no full stop at the end.
fn plain(text: &str) -> String {
    let text = text.trim().trim_end_matches('.');
    let second_is_lower = text.chars().nth(1).is_none_or(|c| !c.is_uppercase());
    let mut chars = text.chars();
    match chars.next() {
        Some(first) if second_is_lower => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}
