//! The codec from outside: bytes in, bytes out, compared with the generated code's view of the same messages.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod clients;
mod responses;
mod versions;
