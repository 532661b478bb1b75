//! Records' bytes -> cells -> column buffers.

pub mod timestamp;
