//! Druid's functions that the planner has no twin of. Names are those `statement::functions` writes.
//!
//! ```text
//! scalar     one shape for a function: how it coerces, what it returns, what it does
//! time       TIME_FLOOR and its family;  joda  its patterns
//! cast       casts as Druid does them: no errors, zones, dates
//! text       search and regular expressions;  json  JSON paths;  show  numbers, addresses and formats
//! number     rounding, division, bits
//! array      multi-value helpers;  aggregate  ARRAY_CONCAT_AGG;  quantile  APPROX_QUANTILE
//! ```

mod aggregate;
mod array;
mod cast;
pub mod joda;
mod json;
mod number;
mod quantile;
mod scalar;
mod show;
mod text;
pub mod time;

use std::sync::Arc;

use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

pub use cast::{cast_timestamp, cast_varchar};
pub use quantile::{APPROX_QUANTILE, quantile_of};
pub use scalar::{Scalar, all_text, answer, array_arg, as_given, returns_boolean, returns_long, returns_text};
pub use text::compile;

/// All scalar functions of ours.
pub fn scalars() -> Vec<Arc<ScalarUDF>> {
    let text = [text::functions(), json::functions(), show::functions()].into_iter().flatten();
    [time::functions(), cast::functions(), number::functions(), array::functions()]
        .into_iter()
        .flatten()
        .chain(text)
        .map(|function| Arc::new(ScalarUDF::new_from_impl(function)))
        .collect()
}

/// All aggregate functions of ours.
pub fn aggregates() -> Vec<Arc<AggregateUDF>> {
    vec![
        Arc::new(AggregateUDF::new_from_impl(aggregate::ArrayConcatAgg::new())),
        Arc::new(AggregateUDF::new_from_impl(quantile::ApproxQuantile::new())),
    ]
}

#[cfg(test)]
mod tests;
