//! A disk in memory that behaves as badly as a real one may, by seed.
//!
//! It knows, for every file, which bytes were synced and which were only written, and for every folder
//! which names were. From any moment an image can be taken of what a restarted process would find:
//!
//! - [`MemDisk::crash`]: the power went. Each file's unsynced writes are lost, cut at any byte, or kept
//!   sector by sector; each unsynced name is lost or kept. Everything synced is there.
//! - [`MemDisk::kill`]: only the process died. Everything written is there, and what was unsynced still is.
//!
//! What always holds: the same seed and the same calls give the same bytes, errors and images. Not here:
//! time, and a folder rename.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{DirEntry, Disk, DiskError, DiskFile};

/// The unit in which a disk keeps or loses unsynced bytes.
const SECTOR_BYTES: usize = 512;

/// A fault to inject; see [`MemDisk::fault`]. All last until [`MemDisk::heal`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// `sync` and `sync_dir` fail after `after_ops` more operations. The first failure drops unsynced
    /// bytes as a kernel may; a caller that tries again has lost them.
    Sync { after_ops: u64 },
    /// Appends and writes fail, part of the bytes written, after `after_ops` more operations.
    Write { after_ops: u64 },
    /// Reads fail from now on.
    Read,
    /// No room from now on, whatever the capacity.
    Full,
}

/// The disk. Clones share their content.
#[derive(Clone)]
pub struct MemDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    seed: u64,
    random: Random,
    capacity_bytes: u64,
    used_bytes: u64,
    /// Operations that change something, so far: what `crash_at` counts.
    ops: u64,
    dies_at: Option<u64>,
    dead: bool,
    fails_sync_from: Option<u64>,
    fails_write_from: Option<u64>,
    fails_reads: bool,
    full: bool,
    live: Names,
    durable: Names,
    /// Changes of names since the `sync_dir` of their folder, oldest first.
    pending: Vec<NameChange>,
}

/// Path to file, or to a folder (`None`). The root is not listed.
type Names = BTreeMap<String, Option<Arc<Inode>>>;

struct Inode {
    content: Mutex<Content>,
}

#[derive(Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    /// How to take back what was not synced, oldest first.
    undo: Vec<Undo>,
    /// Names were removed: its bytes no longer count.
    unlinked: bool,
}

#[derive(Clone)]
enum Undo {
    Write { position: usize, len: usize, old: Vec<u8>, old_len: usize },
    Truncate { cut: Vec<u8>, old_len: usize },
}

#[derive(Clone)]
enum NameChange {
    Set(String, Arc<Inode>),
    Remove(String),
    Rename(String, String, Arc<Inode>),
}

/// What becomes of the operation that is about to run.
enum Fate {
    Lives,
    /// The process dies; the operation may have happened before.
    Dies {
        happened: bool,
    },
}

impl MemDisk {
    /// An empty disk. `seed` decides every fault's shape.
    #[must_use]
    pub fn new(seed: u64, capacity_bytes: u64) -> Self {
        Self::of(State {
            seed,
            random: Random(seed),
            capacity_bytes,
            used_bytes: 0,
            ops: 0,
            dies_at: None,
            dead: false,
            fails_sync_from: None,
            fails_write_from: None,
            fails_reads: false,
            full: false,
            live: Names::new(),
            durable: Names::new(),
            pending: Vec::new(),
        })
    }

    /// Starts a fault.
    pub fn fault(&self, fault: Fault) {
        let mut state = self.lock();
        let now = state.ops;
        match fault {
            Fault::Sync { after_ops } => state.fails_sync_from = Some(now + after_ops),
            Fault::Write { after_ops } => state.fails_write_from = Some(now + after_ops),
            Fault::Read => state.fails_reads = true,
            Fault::Full => state.full = true,
        }
    }

    /// Ends all faults but death.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.fails_sync_from = None;
        state.fails_write_from = None;
        state.fails_reads = false;
        state.full = false;
    }

    /// Changes how much fits.
    pub fn set_capacity(&self, capacity_bytes: u64) {
        self.lock().capacity_bytes = capacity_bytes;
    }

    /// Operation number `op` (from zero, counted from the disk's creation) and every call after it fail,
    /// as if the process had died there; by seed the operation itself happens, in part or not at all.
    pub fn crash_at(&self, op: u64) {
        self.lock().dies_at = Some(op);
    }

    /// Operations so far that change something; what [`MemDisk::crash_at`] counts.
    #[must_use]
    pub fn ops(&self) -> u64 {
        self.lock().ops
    }

    /// True once the operation of [`MemDisk::crash_at`] was reached.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// What a restart finds if the power goes now. This disk is left as it is.
    #[must_use]
    pub fn crash(&self) -> Self {
        let state = self.lock();
        let mut random = Random(state.seed ^ state.ops.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xc4a5);
        let mut names = state.durable.clone();
        for change in &state.pending {
            if random.below(2) == 0 {
                apply(&mut names, change);
            }
        }
        let mut copies = BTreeMap::new();
        let names = copy_names(&names, &mut |inode| {
            Arc::clone(copies.entry(Arc::as_ptr(inode) as usize).or_insert_with(|| {
                let bytes = inode.lock().after_power_loss(&mut random);
                Inode::of(Content { bytes, ..Content::default() })
            }))
        });
        Self::of(state.successor(names.clone(), names, Vec::new()))
    }

    /// What a restart finds if only the process dies now: every byte written, synced or not, and what
    /// was unsynced still is. This disk is left as it is.
    #[must_use]
    pub fn kill(&self) -> Self {
        let state = self.lock();
        let mut copies = BTreeMap::new();
        let mut copy = |inode: &Arc<Inode>| {
            let entry = copies.entry(Arc::as_ptr(inode) as usize);
            Arc::clone(entry.or_insert_with(|| Inode::of(inode.lock().clone())))
        };
        let live = copy_names(&state.live, &mut copy);
        let durable = copy_names(&state.durable, &mut copy);
        let pending = state.pending.iter().map(|change| change.copy(&mut copy)).collect();
        Self::of(state.successor(live, durable, pending))
    }

    /// Flips one bit of a file, behind everyone's back and durably.
    ///
    /// # Panics
    /// If there is no such file or byte: the test is wrong.
    pub fn flip_bit(&self, path: &str, bit: u64) {
        let state = self.lock();
        let Some(Some(inode)) = state.live.get(path) else { panic!("{path}: not a file") };
        let byte = usize::try_from(bit / 8).unwrap_or(usize::MAX);
        let mut content = inode.lock();
        let len = content.bytes.len();
        let Some(value) = content.bytes.get_mut(byte) else { panic!("{path}: byte {byte} of {len}") };
        *value ^= 1 << (bit % 8);
    }

    /// Every file with its content, sorted by path: to look at or compare.
    #[must_use]
    pub fn dump(&self) -> Vec<(String, Vec<u8>)> {
        let state = self.lock();
        let files = state.live.iter().filter_map(|(path, inode)| Some((path, inode.as_ref()?)));
        files.map(|(path, inode)| (path.clone(), inode.lock().bytes.clone())).collect()
    }

    fn of(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, path: &str, inode: Arc<Inode>) -> Arc<dyn DiskFile> {
        Arc::new(MemFile { disk: self.clone(), path: path.to_owned(), inode })
    }
}

impl fmt::Debug for MemDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        write!(f, "MemDisk(seed {}, {} operations)", state.seed, state.ops)
    }
}

impl State {
    /// Counts an operation and says whether the process lives to see its end.
    fn enter(&mut self, path: &str) -> Result<Fate, DiskError> {
        if self.dead {
            return Err(died(path));
        }
        let op = self.ops;
        self.ops += 1;
        if self.dies_at.is_some_and(|at| op >= at) {
            self.dead = true;
            return Ok(Fate::Dies { happened: self.random.below(2) == 0 });
        }
        Ok(Fate::Lives)
    }

    /// As `enter`, for operations that happen entirely or not at all.
    fn enter_whole(&mut self, path: &str) -> Result<(), DiskError> {
        match self.enter(path)? {
            Fate::Lives => Ok(()),
            // That the name may have changed before the death is covered by the next operation's death.
            Fate::Dies { .. } => Err(died(path)),
        }
    }

    fn check_reads(&self, path: &str) -> Result<(), DiskError> {
        if self.dead {
            return Err(died(path));
        }
        if self.fails_reads {
            return Err(io(path, "injected read error"));
        }
        Ok(())
    }

    fn room_bytes(&self) -> u64 {
        if self.full { 0 } else { self.capacity_bytes.saturating_sub(self.used_bytes) }
    }

    fn parent_exists(&self, path: &str) -> bool {
        path.rsplit_once('/').is_none_or(|(parent, _)| matches!(self.live.get(parent), Some(None)))
    }

    fn dir_exists(&self, dir: &str) -> bool {
        dir.is_empty() || matches!(self.live.get(dir), Some(None))
    }

    fn unlink(&mut self, path: &str) {
        if let Some(Some(inode)) = self.live.remove(path) {
            let mut content = inode.lock();
            content.unlinked = true;
            self.used_bytes -= content.bytes.len() as u64;
        }
    }

    fn successor(&self, live: Names, durable: Names, pending: Vec<NameChange>) -> Self {
        let files = live.values().flatten();
        Self {
            seed: self.seed.wrapping_add(1),
            random: Random(self.seed.wrapping_add(1)),
            capacity_bytes: self.capacity_bytes,
            used_bytes: files.map(|inode| inode.lock().bytes.len() as u64).sum(),
            ops: 0,
            dies_at: None,
            dead: false,
            fails_sync_from: None,
            fails_write_from: None,
            fails_reads: false,
            full: false,
            live,
            durable,
            pending,
        }
    }
}

impl Inode {
    fn of(content: Content) -> Arc<Self> {
        Arc::new(Self { content: Mutex::new(content) })
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn write(&mut self, position: usize, bytes: &[u8]) {
        let old_len = self.bytes.len();
        let end = position + bytes.len();
        let overwritten = position.min(old_len)..end.min(old_len);
        let old = self.bytes[overwritten].to_vec();
        self.undo.push(Undo::Write { position, len: bytes.len(), old, old_len });
        if end > old_len {
            self.bytes.resize(end, 0);
        }
        self.bytes[position..end].copy_from_slice(bytes);
    }

    fn truncate(&mut self, len: usize) {
        let old_len = self.bytes.len();
        let cut = self.bytes.get(len..).unwrap_or_default().to_vec();
        self.undo.push(Undo::Truncate { cut, old_len });
        self.bytes.resize(len, 0);
    }

    /// The bytes after taking back all but the first `kept` unsynced changes.
    fn rewind(&self, kept: usize) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for undo in self.undo[kept..].iter().rev() {
            match undo {
                Undo::Write { position, old, old_len, .. } => {
                    bytes.truncate(*old_len);
                    bytes[*position.min(old_len)..][..old.len()].copy_from_slice(old);
                }
                Undo::Truncate { cut, old_len } => {
                    bytes.truncate(old_len - cut.len());
                    bytes.extend_from_slice(cut);
                }
            }
        }
        bytes
    }

    /// One of the states a power loss may leave.
    fn after_power_loss(&self, random: &mut Random) -> Vec<u8> {
        if self.undo.is_empty() {
            return self.bytes.clone();
        }
        match random.below(4) {
            0 => self.rewind(0),
            1 => self.bytes.clone(),
            2 => self.torn(random),
            _ => self.by_sector(random),
        }
    }

    /// Changes in order up to some write, of which a prefix.
    fn torn(&self, random: &mut Random) -> Vec<u8> {
        let at = random.below(self.undo.len());
        let before = self.rewind(at);
        let Undo::Write { position, len, .. } = self.undo[at] else { return before };
        let after = self.rewind(at + 1);
        let end = position + random.below(len + 1);
        let mut bytes = before;
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[position.min(end)..end].copy_from_slice(&after[position.min(end)..end]);
        bytes
    }

    /// The final length, and of each sector the old or the new bytes; zeros where there were none.
    fn by_sector(&self, random: &mut Random) -> Vec<u8> {
        let old = self.rewind(0);
        let mut bytes = self.bytes.clone();
        for (index, sector) in bytes.chunks_mut(SECTOR_BYTES).enumerate() {
            let start = index * SECTOR_BYTES;
            if random.below(2) == 0 {
                for (at, byte) in sector.iter_mut().enumerate() {
                    *byte = old.get(start + at).copied().unwrap_or(0);
                }
            }
        }
        bytes
    }
}

impl NameChange {
    fn touches(&self, dir: &str) -> bool {
        match self {
            Self::Set(path, _) | Self::Remove(path) => parent(path) == dir,
            Self::Rename(from, to, _) => parent(from) == dir || parent(to) == dir,
        }
    }

    fn copy(&self, copy: &mut impl FnMut(&Arc<Inode>) -> Arc<Inode>) -> Self {
        match self {
            Self::Set(path, inode) => Self::Set(path.clone(), copy(inode)),
            Self::Remove(path) => Self::Remove(path.clone()),
            Self::Rename(from, to, inode) => Self::Rename(from.clone(), to.clone(), copy(inode)),
        }
    }
}

impl Disk for MemDisk {
    fn create(&self, path: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        check_path(path)?;
        let mut state = self.lock();
        state.enter_whole(path)?;
        if !state.parent_exists(path) {
            return Err(not_found(parent(path)));
        }
        if state.live.contains_key(path) {
            return Err(DiskError::AlreadyExists { path: path.to_owned() });
        }
        if state.full {
            return Err(full(path));
        }
        let inode = Inode::of(Content::default());
        state.live.insert(path.to_owned(), Some(Arc::clone(&inode)));
        state.pending.push(NameChange::Set(path.to_owned(), Arc::clone(&inode)));
        Ok(self.handle(path, inode))
    }

    fn open(&self, path: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        check_path(path)?;
        let state = self.lock();
        state.check_reads(path)?;
        match state.live.get(path) {
            Some(Some(inode)) => Ok(self.handle(path, Arc::clone(inode))),
            Some(None) => Err(io(path, "is a folder")),
            None => Err(not_found(path)),
        }
    }

    fn list(&self, dir: &str) -> Result<Vec<DirEntry>, DiskError> {
        check_dir(dir)?;
        let state = self.lock();
        state.check_reads(dir)?;
        if !state.dir_exists(dir) {
            return Err(not_found(dir));
        }
        let mut entries: Vec<DirEntry> = state
            .live
            .iter()
            .filter(|(path, _)| parent(path) == dir)
            .map(|(path, inode)| DirEntry {
                name: path.rsplit('/').next().unwrap_or_default().to_owned(),
                is_dir: inode.is_none(),
                len_bytes: inode.as_ref().map_or(0, |inode| inode.lock().bytes.len() as u64),
            })
            .collect();
        entries.sort();
        Ok(entries)
    }

    fn create_dir_all(&self, dir: &str) -> Result<(), DiskError> {
        check_dir(dir)?;
        let mut state = self.lock();
        state.enter_whole(dir)?;
        let ends = dir.match_indices('/').map(|(at, _)| at).chain([dir.len()]);
        for path in ends.map(|end| &dir[..end]).filter(|path| !path.is_empty()) {
            if let Some(Some(_)) = state.live.get(path) {
                return Err(io(path, "is a file"));
            }
            state.live.insert(path.to_owned(), None);
            state.durable.insert(path.to_owned(), None);
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        check_path(from)?;
        check_path(to)?;
        let mut state = self.lock();
        state.enter_whole(from)?;
        let inode = match state.live.get(from) {
            Some(Some(inode)) => Arc::clone(inode),
            Some(None) => return Err(io(from, "is a folder")),
            None => return Err(not_found(from)),
        };
        if !state.parent_exists(to) {
            return Err(not_found(parent(to)));
        }
        if matches!(state.live.get(to), Some(None)) {
            return Err(io(to, "is a folder"));
        }
        if from == to {
            return Ok(());
        }
        state.unlink(to);
        state.live.remove(from);
        state.live.insert(to.to_owned(), Some(Arc::clone(&inode)));
        state.pending.push(NameChange::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn remove_file(&self, path: &str) -> Result<(), DiskError> {
        check_path(path)?;
        let mut state = self.lock();
        state.enter_whole(path)?;
        match state.live.get(path) {
            Some(Some(_)) => {
                state.unlink(path);
                state.pending.push(NameChange::Remove(path.to_owned()));
                Ok(())
            }
            Some(None) => Err(io(path, "is a folder")),
            None => Err(not_found(path)),
        }
    }

    fn remove_dir_all(&self, dir: &str) -> Result<(), DiskError> {
        check_path(dir)?;
        let mut state = self.lock();
        state.enter_whole(dir)?;
        let inside = format!("{dir}/");
        let paths: Vec<String> =
            state.live.keys().filter(|path| *path == dir || path.starts_with(&inside)).cloned().collect();
        for path in paths.into_iter().rev() {
            state.unlink(&path);
            state.live.remove(&path);
            state.pending.push(NameChange::Remove(path));
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        check_dir(dir)?;
        let mut state = self.lock();
        let fate = state.enter(dir)?;
        if let Fate::Dies { happened: false } = fate {
            return Err(died(dir));
        }
        if !state.dir_exists(dir) {
            return Err(not_found(dir));
        }
        if state.fails_sync_from.is_some_and(|from| state.ops > from) {
            return Err(DiskError::Sync { path: dir.to_owned(), cause: "injected sync error".to_owned() });
        }
        let (done, rest) = std::mem::take(&mut state.pending).into_iter().partition(|change| change.touches(dir));
        state.pending = rest;
        let done: Vec<NameChange> = done;
        for change in &done {
            apply(&mut state.durable, change);
        }
        if let Fate::Dies { .. } = fate { Err(died(dir)) } else { Ok(()) }
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        let state = self.lock();
        state.check_reads("")?;
        Ok(state.room_bytes())
    }
}

struct MemFile {
    disk: MemDisk,
    path: String,
    inode: Arc<Inode>,
}

impl MemFile {
    /// Writes `parts` at `position`, or at the end; as much as fits and fate allows.
    fn put(&self, position: Option<u64>, parts: &[&[u8]]) -> Result<u64, DiskError> {
        let mut state = self.disk.lock();
        let mut content = self.inode.lock();
        let fate = state.enter(&self.path)?;
        let position = position.unwrap_or(content.bytes.len() as u64);
        let start = usize::try_from(position).map_err(|_| io(&self.path, "position out of range"))?;
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let grows = (start + len).saturating_sub(content.bytes.len()) as u64;
        let error = if let Fate::Dies { .. } = fate {
            Some(died(&self.path))
        } else if state.fails_write_from.is_some_and(|from| state.ops > from) {
            Some(io(&self.path, "injected write error"))
        } else if !content.unlinked && grows > state.room_bytes() {
            Some(full(&self.path))
        } else {
            None
        };
        let kept = match &error {
            None => len,
            Some(DiskError::Full { .. }) => {
                let room = usize::try_from(state.room_bytes()).unwrap_or(usize::MAX);
                room.saturating_sub(start.saturating_sub(content.bytes.len())).min(len)
            }
            Some(_) => state.random.below(len + 1),
        };
        if error.is_none() || kept > 0 {
            let before = content.bytes.len();
            if let ([only], None) = (parts, &error) {
                content.write(start, only);
            } else {
                let mut joined = parts.concat();
                joined.truncate(kept);
                content.write(start, &joined);
            }
            if !content.unlinked {
                state.used_bytes += (content.bytes.len() - before) as u64;
            }
        }
        error.map_or(Ok(position), Err)
    }
}

impl DiskFile for MemFile {
    fn len_bytes(&self) -> u64 {
        self.inode.lock().bytes.len() as u64
    }

    fn append(&self, parts: &[&[u8]]) -> Result<u64, DiskError> {
        self.put(None, parts)
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.put(Some(position), &[bytes]).map(|_| ())
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        self.disk.lock().check_reads(&self.path)?;
        let content = self.inode.lock();
        let start = usize::try_from(position).unwrap_or(usize::MAX).min(content.bytes.len());
        let there = &content.bytes[start..];
        let count = there.len().min(buffer.len());
        buffer[..count].copy_from_slice(&there[..count]);
        Ok(count)
    }

    fn truncate(&self, len_bytes: u64) -> Result<(), DiskError> {
        let mut state = self.disk.lock();
        let mut content = self.inode.lock();
        state.enter_whole(&self.path)?;
        let len = usize::try_from(len_bytes).map_err(|_| io(&self.path, "length out of range"))?;
        let before = content.bytes.len() as u64;
        if len_bytes > before && len_bytes - before > state.room_bytes() {
            return Err(full(&self.path));
        }
        content.truncate(len);
        if !content.unlinked {
            state.used_bytes = state.used_bytes - before + len_bytes;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), DiskError> {
        let mut state = self.disk.lock();
        let mut content = self.inode.lock();
        let fate = state.enter(&self.path)?;
        if let Fate::Dies { happened: false } = fate {
            return Err(died(&self.path));
        }
        if state.fails_sync_from.is_some_and(|from| state.ops > from) {
            // The kernel marks the pages clean and may drop them: a later sync succeeds and means nothing.
            let len = content.bytes.len();
            let mut left = content.after_power_loss(&mut state.random);
            left.resize(len, 0);
            content.bytes = left;
            content.undo.clear();
            return Err(DiskError::Sync { path: self.path.clone(), cause: "injected sync error".to_owned() });
        }
        content.undo.clear();
        if let Fate::Dies { .. } = fate { Err(died(&self.path)) } else { Ok(()) }
    }
}

impl fmt::Debug for MemFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemFile({})", self.path)
    }
}

/// SplitMix64: small, seeded, good enough to choose how to fail.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or(0)
    }
}

fn copy_names(names: &Names, copy: &mut impl FnMut(&Arc<Inode>) -> Arc<Inode>) -> Names {
    names.iter().map(|(path, inode)| (path.clone(), inode.as_ref().map(&mut *copy))).collect()
}

fn apply(names: &mut Names, change: &NameChange) {
    match change {
        NameChange::Set(path, inode) => {
            names.insert(path.clone(), Some(Arc::clone(inode)));
        }
        NameChange::Remove(path) => {
            names.remove(path);
        }
        NameChange::Rename(from, to, inode) => {
            names.remove(from);
            names.insert(to.clone(), Some(Arc::clone(inode)));
        }
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn check_path(path: &str) -> Result<(), DiskError> {
    let good = path.split('/').all(|name| !matches!(name, "" | "." | ".."));
    if good { Ok(()) } else { Err(io(path, "not a relative path without . and ..")) }
}

fn check_dir(dir: &str) -> Result<(), DiskError> {
    if dir.is_empty() { Ok(()) } else { check_path(dir) }
}

fn io(path: &str, cause: &str) -> DiskError {
    DiskError::Io { path: path.to_owned(), cause: cause.to_owned() }
}

fn died(path: &str) -> DiskError {
    io(path, "the process died")
}

fn not_found(path: &str) -> DiskError {
    DiskError::NotFound { path: path.to_owned() }
}

fn full(path: &str) -> DiskError {
    DiskError::Full { path: path.to_owned() }
}

#[cfg(test)]
mod tests;
