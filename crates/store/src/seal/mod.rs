//! When live rows become a segment, and the file it becomes.
