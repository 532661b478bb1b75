//! A sealed segment's Parquet file -> its column file.

use bytes::Bytes;

use super::error::SegmentError;

pub(crate) fn from_parquet(bytes: Bytes) -> Result<Vec<u8>, SegmentError> {
    let _ = bytes;
    Err(SegmentError::Parquet("not yet".to_owned()))
}
