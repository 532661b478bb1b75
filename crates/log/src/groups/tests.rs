//! Stories as text (testdata/groups/*.trace), and a seeded world that checks what always holds.

mod random;
mod trace;
