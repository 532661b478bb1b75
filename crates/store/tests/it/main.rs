//! The room against Druid's own specs and data.

mod data;
mod druid;
