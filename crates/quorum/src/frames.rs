//! A file of checksummed frames that says by itself what of it must be intact.
//!
//! The layout is drawn in docs/formats/control-journal.md; the journal and the hard states share it. A file
//! comes into being whole: written under a temporary name, synced, renamed, its folder synced. From then on
//! frames are appended. Each frame carries how many bytes of the file were durable when it was written, so
//! a bad frame is told apart: below what any later frame calls durable it is damage, else it is the torn
//! end of a write that no one was told of.
//!
//! Not here: what a frame's payload means.

use std::sync::Arc;

use base::checksum::{crc32c, crc32c_append};
use base::disk::{Disk, DiskError, DiskFile};

use crate::JournalError;

const VERSION: u32 = 1;
const HEADER_BYTES: usize = 48;
const HEADER_CHECKED_BYTES: usize = HEADER_BYTES - 4;
const FRAME_MAGIC: [u8; 4] = *b"SWfr";
const FRAME_HEADER_BYTES: usize = 24;
/// Written after each sync, so that the sync itself leaves a witness.
const KIND_MARK: u8 = 0;
/// Largest payload of a frame.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 64 << 20;
const TEMPORARY: &str = ".tmp";

/// What a file is: the first bytes of it, and how its name ends.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) magic: [u8; 8],
    pub(crate) suffix: &'static str,
}

/// A frame read back.
pub(crate) struct Frame<'a> {
    pub(crate) kind: u8,
    pub(crate) payload: &'a [u8],
    pub(crate) position: u64,
}

/// Frames to be written together.
#[derive(Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    /// Start of each frame in `bytes`; checksums are filled in when their place in the file is known.
    starts: Vec<usize>,
}

impl Frames {
    /// Adds a frame whose payload is `parts` one after another. `kind` is not zero.
    pub(crate) fn push(&mut self, kind: u8, parts: &[&[u8]]) -> Result<(), JournalError> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let Some(len_u32) = u32::try_from(len).ok().filter(|_| len <= PAYLOAD_BYTES_MAX) else {
            return Err(JournalError::TooLarge { bytes: len, bytes_max: PAYLOAD_BYTES_MAX });
        };
        self.starts.push(self.bytes.len());
        self.bytes.extend_from_slice(&FRAME_MAGIC);
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&len_u32.to_le_bytes());
        self.bytes.extend_from_slice(&[kind, 0, 0, 0]);
        self.bytes.extend_from_slice(&[0; 8]);
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    fn mark() -> Self {
        let mut frames = Self::default();
        let _empty_always_fits = frames.push(KIND_MARK, &[]);
        frames
    }

    /// The bytes for `position` of a file of which `durable` bytes are durable.
    fn seal(&mut self, position: u64, durable: u64) -> &[u8] {
        for (number, start) in self.starts.iter().enumerate() {
            let end = self.starts.get(number + 1).copied().unwrap_or(self.bytes.len());
            let frame = &mut self.bytes[*start..end];
            frame[16..24].copy_from_slice(&durable.to_le_bytes());
            let crc = frame_crc(position + *start as u64, frame);
            frame[4..8].copy_from_slice(&crc.to_le_bytes());
        }
        &self.bytes
    }
}

/// What has to be synced, on any thread, while the file goes on; then give what came of it back. One at a time: an
/// error is told only once, and whoever synced beside it would believe what was lost.
#[derive(Debug)]
pub struct SyncJob {
    file: Arc<dyn DiskFile>,
    below: u64,
}

/// What came of a [`SyncJob`].
#[derive(Debug)]
pub struct SyncDone {
    file: Arc<dyn DiskFile>,
    below: u64,
    result: Result<(), DiskError>,
}

impl SyncJob {
    /// Blocks.
    #[must_use]
    pub fn run(self) -> SyncDone {
        let result = self.file.sync();
        SyncDone { file: self.file, below: self.below, result }
    }
}

/// An open file of frames and its end.
#[derive(Debug)]
pub(crate) struct FrameFile {
    file: Arc<dyn DiskFile>,
    /// Position of the next frame.
    tail: u64,
    /// The last sync covered what is below.
    durable: u64,
    /// True if something other than a mark was appended since.
    dirty: bool,
    /// The error after which nothing is known about the file.
    stopped: Option<DiskError>,
}

impl FrameFile {
    /// Creates file `number` of `dir`, with `frames` in it, durable with its name before this returns.
    /// Later numbers replace earlier ones; `base` is the caller's. After [`DiskError::Full`] there is no new
    /// file. After any other error there may be one, that the next open would prefer: the caller must not
    /// write to the file before it any more.
    pub(crate) fn install(
        disk: &dyn Disk,
        dir: &str,
        kind: Kind,
        (number, base): (u64, u64),
        mut frames: Frames,
    ) -> Result<Self, JournalError> {
        let path = path(dir, number, kind);
        let temporary = format!("{path}{TEMPORARY}");
        let complete = (HEADER_BYTES + frames.bytes.len()) as u64;
        let header = header(kind, number, base, complete);
        let body = frames.seal(HEADER_BYTES as u64, 0);
        remove(disk, &temporary)?;
        let file = disk.create(&temporary)?;
        if let Err(error) = file.append(&[&header, body]) {
            // Gives the room back; if that fails too, the next install or open does it.
            let _best_effort = disk.remove_file(&temporary);
            return Err(error.into());
        }
        file.sync()?;
        disk.rename(&temporary, &path).and_then(|()| disk.sync_dir(dir)).map_err(not_only_full)?;
        // Opened again so that its errors carry the name that people will find.
        let file = disk.open(&path)?;
        Ok(Self { file, tail: complete, durable: complete, dirty: false, stopped: None })
    }

    /// Appends frames. On [`DiskError::Full`] the file is as before.
    pub(crate) fn append(&mut self, frames: &mut Frames) -> Result<(), JournalError> {
        self.check_running()?;
        if frames.is_empty() {
            return Ok(());
        }
        let bytes = frames.seal(self.tail, self.durable);
        if let Err(error) = self.file.write_at(self.tail, bytes) {
            // What was written of it must go: its frames are whole and would be read back as ours.
            let cut = self.file.truncate(self.tail);
            if !matches!(error, DiskError::Full { .. }) || cut.is_err() {
                self.stopped = Some(error.clone());
            }
            return Err(error.into());
        }
        self.tail += bytes.len() as u64;
        self.dirty = true;
        Ok(())
    }

    /// Makes everything appended durable; free if there was nothing.
    pub(crate) fn sync(&mut self) -> Result<(), JournalError> {
        self.sync_job()?.map_or(Ok(()), |job| self.synced(job.run()))
    }

    /// What would make everything appended so far durable; `None` if it is.
    pub(crate) fn sync_job(&self) -> Result<Option<SyncJob>, JournalError> {
        self.check_running()?;
        Ok(self.dirty.then(|| SyncJob { file: Arc::clone(&self.file), below: self.tail }))
    }

    /// Takes what came of a job. One of a file that this one has replaced says nothing: all of this one was durable.
    pub(crate) fn synced(&mut self, done: SyncDone) -> Result<(), JournalError> {
        self.check_running()?;
        if !Arc::ptr_eq(&done.file, &self.file) {
            return Ok(());
        }
        if let Err(error) = done.result {
            // The page cache may call clean what never reached the disk: no second try can be believed.
            self.stopped = Some(error.clone());
            return Err(error.into());
        }
        self.durable = self.durable.max(done.below);
        self.dirty = self.tail > self.durable;
        if self.dirty {
            // The next frame will say it.
            return Ok(());
        }
        // Costs no sync of its own: without it, damage to the very last frames looks like a torn write.
        let marked = self.append(&mut Frames::mark());
        self.dirty = false;
        match marked {
            Err(JournalError::Disk(DiskError::Full { .. })) => Ok(()),
            other => other,
        }
    }

    /// Refuses everything from now on, if `error` is one after which the next open may prefer another file.
    pub(crate) fn stop_unless_full(&mut self, error: &JournalError) {
        if let JournalError::Disk(cause) = error
            && !matches!(cause, DiskError::Full { .. })
        {
            self.stopped = Some(cause.clone());
        }
    }

    pub(crate) fn len_bytes(&self) -> u64 {
        self.tail
    }

    fn check_running(&self) -> Result<(), JournalError> {
        self.stopped.as_ref().map_or(Ok(()), |cause| Err(JournalError::Stopped(cause.clone())))
    }
}

/// A file found by [`find`], with all its bytes.
pub(crate) struct Found {
    pub(crate) path: String,
    pub(crate) base: u64,
    pub(crate) torn_bytes: u64,
    file: Arc<dyn DiskFile>,
    bytes: Vec<u8>,
    /// Of each good frame.
    frames: Vec<(u64, std::ops::Range<usize>)>,
    tail: u64,
}

impl Found {
    /// The frames, without marks, in the order they were written.
    pub(crate) fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        self.frames.iter().filter_map(|(position, range)| {
            let frame = self.bytes.get(range.clone())?;
            let kind = *frame.get(12)?;
            let payload = frame.get(FRAME_HEADER_BYTES..)?;
            (kind != KIND_MARK).then_some(Frame { kind, payload, position: *position })
        })
    }

    /// Cuts the torn end, makes all that was read durable, and goes on appending.
    pub(crate) fn resume(self) -> Result<FrameFile, JournalError> {
        if self.torn_bytes > 0 {
            self.file.truncate(self.tail)?;
        }
        // Also when nothing was cut: a process that was killed leaves bytes that were never synced.
        self.file.sync()?;
        Ok(FrameFile { file: self.file, tail: self.tail, durable: self.tail, dirty: false, stopped: None })
    }
}

/// The numbers of the files of `kind` in `dir`, ascending; removes what an interrupted install left.
pub(crate) fn numbers(disk: &dyn Disk, dir: &str, kind: Kind) -> Result<Vec<u64>, JournalError> {
    let mut numbers = Vec::new();
    for entry in disk.list(dir)? {
        if entry.name.ends_with(TEMPORARY) {
            disk.remove_file(&format!("{dir}/{}", entry.name))?;
        } else if let Some(number) = entry.name.strip_suffix(kind.suffix).and_then(|name| name.parse().ok()) {
            numbers.push(number);
        }
    }
    Ok(numbers)
}

/// Reads file `number` of `dir`. Changes nothing.
pub(crate) fn find(disk: &dyn Disk, dir: &str, number: u64, kind: Kind) -> Result<Found, JournalError> {
    let path = path(dir, number, kind);
    let file = disk.open(&path)?;
    let bytes = read_all(&*file, &path)?;
    let (base, complete) = check_header(&bytes, &path, kind, number)?;
    let (frames, tail) = scan(&bytes);
    let damaged = |what: &str| Err(JournalError::Damaged { path: path.clone(), position: tail, what: what.to_owned() });
    if tail < complete {
        return damaged("a frame that was durable before the file had its name is bad");
    }
    if is_durable_elsewhere(&bytes, tail) {
        return damaged("a frame that a later one calls durable is bad");
    }
    let torn_bytes = bytes.len() as u64 - tail;
    Ok(Found { path, base, torn_bytes, file, bytes, frames, tail })
}

/// The path of file `number`.
pub(crate) fn path(dir: &str, number: u64, kind: Kind) -> String {
    format!("{dir}/{number:020}{}", kind.suffix)
}

/// Removes files that a later one replaced; one that is already gone is fine.
pub(crate) fn remove(disk: &dyn Disk, path: &str) -> Result<(), JournalError> {
    match disk.remove_file(path) {
        Ok(()) | Err(DiskError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Once the name may have changed, lack of room is no excuse for going on.
fn not_only_full(error: DiskError) -> DiskError {
    match error {
        DiskError::Full { path } => DiskError::Io { path, cause: "no room to rename a file".to_owned() },
        other => other,
    }
}

fn read_all(file: &dyn DiskFile, path: &str) -> Result<Vec<u8>, JournalError> {
    let len = file.len_bytes();
    let Ok(len) = usize::try_from(len) else {
        let cause = format!("{len} bytes do not fit into memory");
        return Err(DiskError::Io { path: path.to_owned(), cause }.into());
    };
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read_at(filled as u64, &mut bytes[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn header(kind: Kind, number: u64, base: u64, complete: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&kind.magic);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&number.to_le_bytes());
    header[24..32].copy_from_slice(&base.to_le_bytes());
    header[32..40].copy_from_slice(&complete.to_le_bytes());
    let crc = crc32c(&header[..HEADER_CHECKED_BYTES]);
    header[HEADER_CHECKED_BYTES..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Checks a header; returns its base and its count of bytes that were durable from the start.
fn check_header(bytes: &[u8], path: &str, kind: Kind, number: u64) -> Result<(u64, u64), JournalError> {
    let damaged =
        |position, what: &str| Err(JournalError::Damaged { path: path.to_owned(), position, what: what.to_owned() });
    let Some(header) = bytes.get(..HEADER_BYTES) else { return damaged(0, "the file ends within its header") };
    if header[..8] != kind.magic {
        return damaged(0, "it does not start with this format's magic bytes");
    }
    let version = read_u32(header, 8);
    if version != VERSION {
        return Err(JournalError::Version { path: path.to_owned(), version, readable: VERSION });
    }
    if crc32c(&header[..HEADER_CHECKED_BYTES]) != read_u32(header, HEADER_CHECKED_BYTES) {
        return damaged(0, "the header's checksum does not match");
    }
    if read_u64(header, 16) != number {
        return damaged(16, "the header's number is not the one in the file's name");
    }
    Ok((read_u64(header, 24), read_u64(header, 32)))
}

/// All good frames from the header on, and where they end.
fn scan(bytes: &[u8]) -> (Vec<(u64, std::ops::Range<usize>)>, u64) {
    let mut frames = Vec::new();
    let mut at = HEADER_BYTES;
    while let Some((_, end)) = frame_at(bytes, at) {
        frames.push((at as u64, at..end));
        at = end;
    }
    (frames, at as u64)
}

/// True if a good frame after `bad` says that the byte at `bad` was durable.
fn is_durable_elsewhere(bytes: &[u8], bad: u64) -> bool {
    let mut at = usize::try_from(bad).unwrap_or(usize::MAX).saturating_add(1);
    while at < bytes.len() {
        match frame_at(bytes, at) {
            Some((durable, _)) if durable > bad => return true,
            Some((_, end)) => at = end,
            None => at += 1,
        }
    }
    false
}

/// The frame at `at`, if it is good: what it calls durable, and its end.
fn frame_at(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let rest = bytes.get(at..)?;
    let header = rest.get(..FRAME_HEADER_BYTES)?;
    let len = usize::try_from(read_u32(header, 8)).ok()?;
    if header[..4] != FRAME_MAGIC || header[13..16] != [0; 3] || len > PAYLOAD_BYTES_MAX {
        return None;
    }
    let frame = rest.get(..FRAME_HEADER_BYTES + len)?;
    let durable = read_u64(header, 16);
    let good = durable <= at as u64 && frame_crc(at as u64, frame) == read_u32(header, 4);
    good.then_some((durable, at + frame.len()))
}

/// Covers the frame's position too: an old frame that shows up elsewhere is not a frame.
fn frame_crc(position: u64, frame: &[u8]) -> u32 {
    crc32c_append(crc32c(&position.to_le_bytes()), &frame[8..])
}

/// A little-endian number; zero if it is not all there.
pub(crate) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// A little-endian number; zero if it is not all there.
pub(crate) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}
