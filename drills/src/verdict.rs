//! What was acknowledged against what is there: every record by its id.
//!
//! ```text
//! readable   distinct records that a consumer reads in the end
//! lost       acknowledged, not readable, not in lost+found
//! rescued    acknowledged, not readable, but in lost+found
//! twice      read more than once
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use base::batch::BatchHeader;
use base::records;
use bytes::Bytes;
use client::Acks;

use crate::load::{Id, Tally, id_of};

/// Ids kept as examples of what is wrong.
const EXAMPLES_MAX: usize = 5;
/// Folders below which nothing more is looked for.
const DEPTH_MAX: usize = 12;

/// The outcome of a comparison.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub produced: u64,
    pub acknowledged: u64,
    pub readable: u64,
    pub lost: u64,
    pub rescued: u64,
    pub twice: u64,
    /// Of these, records of idempotent producers: must be none.
    pub twice_idempotent: u64,
    /// Records of which a later one of the same producer was first met before them.
    pub out_of_order: u64,
    /// Read, but never sent.
    pub invented: u64,
    pub lost_ids: BTreeSet<Id>,
    pub rescued_ids: BTreeSet<Id>,
}

impl Counts {
    /// A few of the records concerned, for people.
    #[must_use]
    pub fn examples(ids: &BTreeSet<Id>) -> String {
        let some: Vec<String> =
            ids.iter().take(EXAMPLES_MAX).map(|(producer, number)| format!("{producer}-{number}")).collect();
        let more = if ids.len() > EXAMPLES_MAX { ", .." } else { "" };
        format!("{}{more}", some.join(", "))
    }
}

/// Compares. `read` has each partition's records by offset; `found` are the ids in lost+found.
#[must_use]
pub fn compare(tallies: &[Tally], read: &[BTreeMap<i64, Id>], found: &BTreeSet<Id>) -> Counts {
    let mut counts = Counts::default();
    let by_number: BTreeMap<u32, &Tally> = tallies.iter().map(|tally| (tally.producer, tally)).collect();
    let mut seen: BTreeSet<Id> = BTreeSet::new();
    let mut newest: BTreeMap<u32, u64> = BTreeMap::new();
    for id in read.iter().flat_map(BTreeMap::values) {
        let tally = by_number.get(&id.0);
        if !seen.insert(*id) {
            counts.twice += 1;
            counts.twice_idempotent += u64::from(tally.is_some_and(|tally| tally.idempotent));
            continue;
        }
        counts.invented += u64::from(tally.is_none_or(|tally| id.1 >= tally.produced));
        let newest = newest.entry(id.0).or_insert(id.1);
        counts.out_of_order += u64::from(id.1 < *newest);
        *newest = (*newest).max(id.1);
    }
    counts.readable = u64::try_from(seen.len()).unwrap_or(u64::MAX);
    for tally in tallies {
        counts.produced += tally.produced;
        counts.acknowledged += tally.acknowledged();
        for number in tally.acks.iter().flat_map(|ack| ack.from..ack.to) {
            let id = (tally.producer, number);
            if seen.contains(&id) {
                continue;
            }
            if found.contains(&id) {
                counts.rescued_ids.insert(id);
            } else {
                counts.lost_ids.insert(id);
            }
        }
    }
    counts.lost = u64::try_from(counts.lost_ids.len()).unwrap_or(u64::MAX);
    counts.rescued = u64::try_from(counts.rescued_ids.len()).unwrap_or(u64::MAX);
    counts
}

/// What a partition's records must always be, whatever the level: an offset that was read keeps its record.
#[must_use]
pub fn contradiction(partition: usize, earlier: &BTreeMap<i64, Id>, now: &BTreeMap<i64, Id>) -> Option<String> {
    earlier.iter().find_map(|(offset, id)| match now.get(offset) {
        Some(other) if other == id => None,
        other => Some(format!("partition {partition}: offset {offset} was read as {id:?} and is {other:?} in the end")),
    })
}

/// The ids of all records saved in any `lost+found` folder below `folder`.
#[must_use]
pub fn lost_and_found(folder: &Path) -> BTreeSet<Id> {
    let mut ids = BTreeSet::new();
    walk(folder, false, DEPTH_MAX, &mut ids);
    ids
}

fn walk(folder: &Path, within: bool, depth: usize, ids: &mut BTreeSet<Id>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            let within = within || entry.file_name() == "lost+found";
            if depth > 0 {
                walk(&path, within, depth - 1, ids);
            }
        } else if within && let Ok(bytes) = fs::read(&path) {
            batches_in(&Bytes::from(bytes), ids);
        }
    }
}

/// Finds whole batches wherever they are in the bytes: their checksums say what is one.
fn batches_in(bytes: &Bytes, ids: &mut BTreeSet<Id>) {
    let mut at = 0;
    while at < bytes.len() {
        let rest = bytes.slice(at..);
        let Ok(header) = BatchHeader::check(&rest) else {
            at += 1;
            continue;
        };
        if let Ok(decoded) = records::decode_shared(&rest) {
            ids.extend(decoded.iter().flatten().filter_map(|record| id_of(&record)));
        }
        at += header.size_bytes;
    }
}

/// True if the loss of any of these is what the level allows: only records of producers that asked for no acknowledgement.
#[must_use]
pub fn is_allowed(tallies: &[Tally], ids: &BTreeSet<Id>) -> bool {
    ids.iter().all(|(producer, _)| tallies.iter().any(|tally| tally.producer == *producer && tally.level == Acks::None))
}

#[cfg(test)]
mod tests;
