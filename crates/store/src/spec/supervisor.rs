//! Druid's Kafka supervisor spec, read with the JSON path of everything that is refused.

use serde_json::Value;

use super::{SpecError, TableSpec};

/// Reads Druid's Kafka supervisor spec, or a native batch spec whose `dataSchema` has the same shape.
///
/// # Errors
/// With the JSON path, what is wrong there and what to do.
pub fn from_supervisor(json: &Value) -> Result<TableSpec, SpecError> {
    let _ = json;
    unimplemented!()
}
