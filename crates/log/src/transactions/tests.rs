//! Small: scenes, line by line. Cruel: a seeded world.

mod random;
mod scenes;
