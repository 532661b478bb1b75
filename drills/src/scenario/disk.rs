//! Damage to files of nodes that do not run.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::Failure;
use crate::cluster::Cluster;

/// Bytes of a batch that never got to the disk whole.
const TORN_BYTES: usize = 150;
const DEPTH_MAX: usize = 12;

/// Every log file below `folder`, without what is in lost+found.
fn log_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(folder, DEPTH_MAX, &|path| path.extension().is_some_and(|ending| ending == "log"), &mut found);
    found.sort();
    found
}

/// True if a file of this name is anywhere below `folder`.
pub fn has_file(folder: &Path, name: &str) -> bool {
    let mut found = Vec::new();
    walk(folder, DEPTH_MAX, &|path| path.file_name().is_some_and(|found| found == name), &mut found);
    !found.is_empty()
}

fn walk(folder: &Path, depth: usize, wanted: &dyn Fn(&Path) -> bool, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "lost+found" {
            if depth > 0 {
                walk(&path, depth - 1, wanted, found);
            }
        } else if wanted(&path) {
            found.push(path);
        }
    }
}

/// Appends to the newest log file of every partition of every node the beginning of a batch whose end is missing. Returns to how many.
pub fn tear_all(cluster: &Cluster) -> Result<usize, Failure> {
    let mut torn = 0;
    for id in cluster.ids() {
        let files = log_files(&cluster.node(id)?.data_dir());
        for (at, path) in files.iter().enumerate() {
            // Names sort by offset: the last of a folder is the newest.
            let is_newest = files.get(at + 1).is_none_or(|next| next.parent() != path.parent());
            if is_newest && tear(path).map_err(|error| format!("{}: {error}", path.display()))? {
                torn += 1;
            }
        }
    }
    Ok(torn)
}

/// What a crash in the middle of a write leaves: the first bytes of a frame that is like those before it.
fn tear(path: &Path) -> std::io::Result<bool> {
    let mut frame = vec![0; TORN_BYTES];
    let length = File::open(path)?.read(&mut frame)?;
    if length < 61 {
        return Ok(false);
    }
    frame.truncate(length);
    // It says that it is longer than what is there.
    frame[8..12].copy_from_slice(&100_000_u32.to_be_bytes());
    File::options().append(true).open(path)?.write_all(&frame)?;
    Ok(true)
}

/// Flips one bit in the first quarter of the largest log file below `folder`. Says where.
pub fn flip_bit(folder: &Path) -> Result<String, Failure> {
    let size = |path: &PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
    let path = log_files(folder).into_iter().max_by_key(size).ok_or("there is no log file to damage")?;
    let told = |error: std::io::Error| format!("{}: {error}", path.display());
    let at = size(&path) / 4;
    let mut file = File::options().read(true).write(true).open(&path).map_err(told)?;
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut byte)).map_err(told)?;
    byte[0] ^= 0x10;
    file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(&byte)).map_err(told)?;
    Ok(format!("byte {at} of {} of {} has a flipped bit", size(&path), path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_is_flipped_in_the_largest_log_and_a_tail_is_torn() {
        let folder = std::env::temp_dir().join(format!("seawall-damage-{}", std::process::id()));
        let partition = folder.join("a/b");
        fs::create_dir_all(partition.join("lost+found")).unwrap();
        fs::write(partition.join("1.log"), [7; 400]).unwrap();
        fs::write(partition.join("2.log"), [7; 100]).unwrap();
        fs::write(partition.join("lost+found/3.log"), [7; 900]).unwrap();
        assert_eq!(log_files(&folder).len(), 2);
        flip_bit(&folder).unwrap();
        let bytes = fs::read(partition.join("1.log")).unwrap();
        assert_eq!((bytes[99], bytes[100], bytes[101]), (7, 0x17, 7));
        assert!(tear(&partition.join("2.log")).unwrap());
        assert_eq!(fs::read(partition.join("2.log")).unwrap().len(), 200);
        fs::remove_dir_all(folder).unwrap();
    }
}
