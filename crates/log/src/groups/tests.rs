//! Stories as text (testdata/groups/*.trace), and a seeded world that checks what always holds.

mod pending;
mod random;
mod trace;
