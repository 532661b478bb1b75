//! A partition: append, fence, replicate; producers; consumer groups; log files.
pub mod groups;

pub mod config;
pub mod error;
mod file;
mod flush;
mod frame;
mod index;
pub mod limits;
mod mark;
mod partition;
mod producers;
mod reader;
mod recovery;
mod scan;
mod storage;

pub use config::{PartitionConfig, TimestampType};
pub use error::{AppendError, DeleteError, OpenError, ReadError, Stopped};
pub use flush::{FlushDone, FlushJob, HardStates};
pub use partition::{Appended, Partition, Trimmed, group_key};
pub use reader::{Fetched, ReadLimit, Reader};
pub use recovery::Recovery;
