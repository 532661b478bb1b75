//! What was aborted in a range of the log.

use std::sync::Arc;

use base::Offset;
use base::marker::EndMarker;

use super::read_error;
use crate::ReadError;
use crate::file::LogFile;
use crate::frame::Frame;
use crate::limits::SCAN_BYTES;
use crate::scan::Scanner;
use crate::stable::{Aborted, AbortedTransaction, Transactions, overlapping};

/// The aborted transactions with records in `[from, to)`, by where they begin. A transaction is noted in the file of
/// its marker, which may lie far behind its records.
pub(super) fn between(files: &[Arc<LogFile>], from: Offset, to: Offset) -> Result<Vec<AbortedTransaction>, ReadError> {
    let mut found = Vec::new();
    let first = files.partition_point(|file| file.next_offset() <= from);
    for (at, file) in files.iter().enumerate().skip(first) {
        let known = file.with_aborted(|list| overlapping(list, from, to, &mut found))?;
        let is_last = match known {
            Some(is_last) => is_last,
            None => {
                walk(&files[..=at])?;
                file.with_aborted(|list| overlapping(list, from, to, &mut found))?.unwrap_or(false)
            }
        };
        if is_last {
            break;
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Finds by the log itself what was aborted in files whose index was lost. Walks all before them too: a transaction
/// that ends in a file may have begun in any.
fn walk(files: &[Arc<LogFile>]) -> Result<(), ReadError> {
    let mut transactions = Transactions::default();
    for file in files {
        let mut list: Vec<Aborted> = Vec::new();
        let handle = file.handle()?;
        let mut scanner = Scanner::new(handle.as_ref(), 0, file.len_bytes(), SCAN_BYTES);
        while let Some((_, frame, bytes)) = scanner.next().map_err(|error| read_error(file, error))? {
            let Frame::Batch(header) = frame else { continue };
            let marker = EndMarker::decode(&header, bytes);
            list.extend(transactions.record(&header, marker.as_ref(), header.max_timestamp));
            transactions.decided(header.base_offset);
        }
        file.learn_aborted(list);
    }
    Ok(())
}
