//! Column files on this node: written when a segment is sealed or fetched, mapped when it is opened.
//!
//! A column file is a cache of the Parquet file in deep storage: never synced, checked when it is opened, made
//! again when it is absent or damaged.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use control::{Segment as Published, SegmentId, Table};
use store::dictionary::TableDictionary;
use store::interval::Interval;
use store::segment::Segment;
use tokio::sync::Semaphore;

use super::Deps;
use super::runtime::{Loaded, TableRuntime};
use crate::node::findings::{Finding, Severity};
use crate::node::time;

/// Segments of this process that may be on their way from deep storage at the same time.
static FETCHES: Semaphore = Semaphore::const_new(4);
pub const MISSING: &str = "segment-missing";

/// Opens every visible segment of a table; those that cannot be had are noted as missing and raised.
pub async fn load_segments(table: &Arc<TableRuntime>, known: &Table, deps: &Arc<Deps>) {
    let mut loading = tokio::task::JoinSet::new();
    for segment in known.visible_segments() {
        let (table, deps, segment) = (Arc::clone(table), Arc::clone(deps), segment.clone());
        loading.spawn(async move {
            let loaded = load(&table, &segment, &deps).await;
            (segment, loaded)
        });
    }
    while let Some(joined) = loading.join_next().await {
        let Ok((segment, loaded)) = joined else { continue };
        let mut core = table.core();
        match loaded {
            Ok(loaded) => {
                if let Some((_, greatest)) = loaded.segment.time_range() {
                    core.newest = core.newest.max(Some(base::Timestamp(greatest)));
                }
                core.segments.insert(segment.id, loaded);
            }
            Err(cause) => {
                core.missing.insert(segment.id, cause.clone());
                drop(core);
                deps.findings.raise(&format!("{}/{}", table.name, segment.id), missing(&table.name, &segment, cause));
            }
        }
    }
    tokio::spawn(warm(Arc::clone(table), Arc::clone(deps)));
}

/// Touches every column of the segments that are open, the newest first, while queries run already: so that their
/// checksums are known and their strings have their ids before a query has to see to it.
async fn warm(table: Arc<TableRuntime>, deps: Arc<Deps>) {
    let mut segments: Vec<Loaded> = table.core().segments.values().cloned().collect();
    segments.sort_by_key(|loaded| std::cmp::Reverse(loaded.interval.end));
    let stop = table.stop_signal();
    for loaded in segments {
        let Ok(worker) = Arc::clone(&deps.workers).acquire_owned().await else { return };
        if *stop.borrow() {
            return;
        }
        let warmed = blocking(move || loaded.segment.warm().map_err(|error| error.to_string())).await;
        drop(worker);
        if let Err(cause) = warmed {
            // A query over the damaged column says so too.
            tracing::warn!(table = %table.name, %cause, "a segment's column file is damaged");
        }
    }
}

fn missing(table: &str, segment: &Published, cause: String) -> Finding {
    Finding {
        code: MISSING,
        severity: Severity::Critical,
        title: format!("segment {} of table {table} cannot be opened", segment.id),
        since: time::wall(),
        impact: vec!["query"],
        cause,
        action: format!(
            "make {} in deep storage readable from this node again; it is tried every few seconds",
            segment.path
        ),
    }
}

/// Opens one segment from its column file, or from deep storage if that is absent or damaged.
pub async fn load(table: &Arc<TableRuntime>, segment: &Published, deps: &Arc<Deps>) -> Result<Loaded, String> {
    let path = column_file(deps, table, segment.id);
    let dictionary = Arc::clone(&table.dictionary);
    let opened = {
        let path = path.clone();
        working(deps, move || open_file(&path, &dictionary)).await
    };
    let opened = match opened {
        Ok(opened) => opened,
        Err(cause) => {
            tracing::debug!(table = %table.name, segment = %segment.id, %cause, "fetching the segment from deep storage");
            let parquet = fetch(segment, deps).await?;
            let dictionary = Arc::clone(&table.dictionary);
            let unpack = move || {
                let file = Segment::from_parquet(parquet).map_err(|error| error.to_string())?;
                write_and_open(&path, &file, &dictionary)
            };
            working(deps, unpack).await?
        }
    };
    Ok(Loaded {
        rows: opened.rows() as u64,
        segment: Arc::new(opened),
        interval: Interval { start: segment.interval.start, end: segment.interval.end },
    })
}

/// The segment's file. Waiting for deep storage holds none of the workers that rows are taken in by.
async fn fetch(segment: &Published, deps: &Deps) -> Result<Bytes, String> {
    let _place = FETCHES.acquire().await.map_err(|error| error.to_string())?;
    let parquet = deps.deep.get(&segment.path).await.map_err(|error| error.to_string())?;
    let found = base::checksum::crc32c(&parquet);
    if found != segment.checksum {
        return Err(format!("{}: checksum {found:#010x}, expected {:#010x}", segment.path, segment.checksum));
    }
    Ok(parquet)
}

/// Work for a worker's thread.
async fn working<T: Send + 'static>(
    deps: &Deps,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let worker = Arc::clone(&deps.workers).acquire_owned().await.map_err(|error| error.to_string())?;
    blocking(move || {
        let done = work();
        drop(worker);
        done
    })
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}

pub fn column_file(deps: &Deps, table: &TableRuntime, segment: SegmentId) -> PathBuf {
    deps.config.segments_dir.join(table.id.to_string()).join(format!("{segment}.col"))
}

/// Writes a column file under a temporary name, renames it and opens it.
pub fn write_and_open(path: &std::path::Path, file: &[u8], dictionary: &TableDictionary) -> Result<Segment, String> {
    let write = || -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let unfinished = path.with_extension("part");
        std::fs::write(&unfinished, file)?;
        std::fs::rename(&unfinished, path)
    };
    write().map_err(|error| format!("{}: {error}", path.display()))?;
    open_file(path, dictionary)
}

fn open_file(path: &std::path::Path, dictionary: &TableDictionary) -> Result<Segment, String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(|error| told(&error))?;
    #[expect(unsafe_code, reason = "a memory map; see SAFETY")]
    // SAFETY: column files are written once under another name, never changed after the rename, and only this
    // process, which holds the lock of the data folder, removes them; a removed file stays mapped.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|error| told(&error))?;
    Segment::open(Bytes::from_owner(map), dictionary).map_err(|error| told(&error))
}

/// After a committed DropTable: its column files and its objects in deep storage go.
pub async fn remove_files(table: &TableRuntime, deps: &Deps) {
    let folder = deps.config.segments_dir.join(table.id.to_string());
    if let Err(error) = std::fs::remove_dir_all(&folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(table = %table.name, %error, "column files of a dropped table are left behind");
    }
    let segments: Vec<SegmentId> = {
        let core = table.core();
        core.segments.keys().chain(core.missing.keys()).copied().collect()
    };
    for id in segments {
        if let Err(error) = deps.deep.delete(&super::seal::deep_key(table, id)).await {
            tracing::warn!(table = %table.name, segment = %id, %error, "a file of a dropped table is left in deep storage");
        }
    }
}
