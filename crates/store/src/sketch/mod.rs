//! Answers about many numbers in little memory, mergeable: the states of approximate aggregates.
//!
//! ```text
//! quantiles  Quantiles: the value at a share of all values, and its bytes
//! ```
//!
//! Always holds: a sketch of few values is exact; merging sketches gives a sketch of all their values; a sketch's size
//! depends on its accuracy, and on the number of values by its logarithm only. Deliberately not here: Druid's own
//! bytes of such sketches.

mod quantiles;

pub use quantiles::{K_DEFAULT, K_MAX, K_MIN, Quantiles, Share};
