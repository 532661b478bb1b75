//! Limits, cancel, describe.
