//! A partition: append, fence, replicate; producers; consumer groups; log files.
pub mod groups;
