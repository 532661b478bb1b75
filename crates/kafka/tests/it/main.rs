//! The codec from outside: bytes in, bytes out, compared with the generated code's view of the same messages.

mod responses;
mod versions;
