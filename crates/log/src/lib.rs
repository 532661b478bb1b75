//! A partition: append, fence, replicate; producers; consumer groups; log files.
pub mod groups;

pub mod config;
pub mod error;
pub mod limits;
pub mod partition;
pub mod reader;

pub use config::{PartitionConfig, TimestampType};
pub use error::{AppendError, DeleteError, OpenError, ReadError, Stopped};
pub use partition::{Appended, FlushDone, FlushJob, HardStates, Partition, Recovery, Trimmed};
pub use reader::{Fetched, ReadLimit, Reader};
