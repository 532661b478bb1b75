//! Walks the frames of a log file, in a buffer that never grows past one frame and one read.

use base::disk::{DiskError, DiskFile};

use crate::frame::{Frame, FrameError, PEEK_BYTES};
use crate::limits::SCAN_BYTES;

/// Why a walk stopped before the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ScanError {
    /// What lies at `position` is no whole frame.
    Bad {
        position: u64,
        error: FrameError,
    },
    Disk(DiskError),
}

/// A frame's position, what it is, and its bytes.
pub(crate) type Found<'a> = (u64, Frame, &'a [u8]);

/// Walks from one frame to the next.
pub(crate) struct Scanner<'a> {
    file: &'a dyn DiskFile,
    /// Of the next frame.
    position: u64,
    end: u64,
    /// What was read and not yet walked: `buffer[start..]` lies at `position`.
    buffer: Vec<u8>,
    start: usize,
    chunk_bytes: usize,
}

impl<'a> Scanner<'a> {
    /// Walks `[position, end)`; a frame must begin at `position`. Reads `chunk_bytes` at once.
    pub fn new(file: &'a dyn DiskFile, position: u64, end: u64, chunk_bytes: usize) -> Self {
        let chunk_bytes = chunk_bytes.clamp(PEEK_BYTES, SCAN_BYTES);
        Self { file, position, end, buffer: Vec::new(), start: 0, chunk_bytes }
    }

    /// The next frame with its position and bytes, its checksum compared; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Found<'_>>, ScanError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let position = self.position;
        let bad = |error| ScanError::Bad { position, error };
        self.fill(PEEK_BYTES)?;
        let size = Frame::peek_size(&self.buffer[self.start..]).map_err(bad)?;
        self.fill(size)?;
        let frame = Frame::check(&self.buffer[self.start..]).map_err(bad)?;
        let bytes = &self.buffer[self.start..self.start + size];
        self.start += size;
        self.position += size as u64;
        Ok(Some((position, frame, bytes)))
    }

    /// Has `count` bytes of the next frame in the buffer, or all there are before the end.
    fn fill(&mut self, count: usize) -> Result<(), ScanError> {
        let have = self.buffer.len() - self.start;
        if have >= count {
            return Ok(());
        }
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX) - have;
        let wanted = (count - have).max(self.chunk_bytes).min(left);
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.resize(have + wanted, 0);
        let at = self.position + have as u64;
        let read = self.file.read_at(at, &mut self.buffer[have..]).map_err(ScanError::Disk)?;
        self.buffer.truncate(have + read);
        Ok(())
    }
}
