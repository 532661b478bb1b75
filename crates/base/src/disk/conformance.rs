//! What every [`Disk`] must do, as one suite that all implementations run: the memory double here, the
//! real one in `server`. It needs an empty folder and leaves one behind.

use std::sync::Arc;

use super::{DirEntry, Disk, DiskError, DiskFile};

/// Runs the suite in folder `conformance` of `disk`.
///
/// # Panics
/// At the first promise that is not kept.
pub fn run(disk: &dyn Disk) {
    disk.remove_dir_all("conformance").expect("removing a folder that is not there is fine");
    disk.create_dir_all("conformance/a").expect("folders are created with their parents");
    disk.create_dir_all("conformance/a").expect("creating a folder again is fine");
    files(disk);
    names(disk);
    folders(disk);
    odd_paths(disk);
    assert!(disk.free_bytes().expect("free bytes") > 0, "an almost empty disk has room");
    disk.remove_dir_all("conformance").expect("remove the folder");
    assert!(
        matches!(disk.list("conformance"), Err(DiskError::NotFound { .. })),
        "a removed folder is not found: {:?}",
        disk.list("conformance")
    );
}

fn files(disk: &dyn Disk) {
    let path = "conformance/a/file";
    let file = disk.create(path).expect("create");
    assert!(matches!(disk.create(path), Err(DiskError::AlreadyExists { .. })), "a name is created once");
    assert_eq!(file.append(&[b"hello", b"", b" ", b"world"]), Ok(0), "the first append lands at zero");
    assert_eq!(file.append(&[b"!"]), Ok(11), "an append lands at the end");
    assert_eq!(file.append(&[]), Ok(12), "an append of nothing writes nothing");
    assert_eq!(content(&file), b"hello world!");
    file.write_at(6, b"W").expect("overwrite");
    file.write_at(14, b"?").expect("write beyond the end");
    assert_eq!(content(&file), b"hello World!\0\0?", "a gap reads as zeros");
    assert_eq!(file.append(&[b"."]), Ok(15), "an append goes after what write_at extended");
    file.truncate(5).expect("cut");
    assert_eq!(content(&file), b"hello");
    file.truncate(7).expect("extend");
    assert_eq!(content(&file), b"hello\0\0", "an extension reads as zeros");
    assert_eq!(file.append(&[b"x"]), Ok(7));
    file.sync().expect("sync");

    let mut buffer = [9; 4];
    assert_eq!(file.read_at(6, &mut buffer), Ok(2), "a read at the end is short");
    assert_eq!(buffer[..2], *b"\0x");
    assert_eq!(file.read_at(8, &mut buffer), Ok(0), "a read after the end is empty");
    assert_eq!(file.read_at(u64::MAX / 4, &mut buffer), Ok(0), "a read far after the end is empty");

    let again = disk.open(path).expect("open");
    assert_eq!(content(&again), content(&file), "two handles see one file");
    again.append(&[b"y"]).expect("append through the second handle");
    assert_eq!(file.len_bytes(), 9, "a length is the file's, not the handle's");
    assert!(matches!(disk.open("conformance/a/none"), Err(DiskError::NotFound { .. })));
    assert!(matches!(disk.create("conformance/none/file"), Err(DiskError::NotFound { .. })));
}

fn names(disk: &dyn Disk) {
    let one = disk.create("conformance/a/one").expect("create");
    one.append(&[b"1"]).expect("append");
    let two = disk.create("conformance/a/two").expect("create");
    two.append(&[b"22"]).expect("append");
    disk.rename("conformance/a/one", "conformance/a/two").expect("rename over an existing file");
    let entries = disk.list("conformance/a").expect("list");
    let file = |name: &str, len_bytes| DirEntry { name: name.to_owned(), is_dir: false, len_bytes };
    assert_eq!(entries, [file("file", 9), file("two", 1)], "the list is sorted and has lengths");
    assert_eq!(content(&two), b"22", "a replaced file is readable through its handle");
    assert_eq!(content(&disk.open("conformance/a/two").expect("open")), b"1");
    disk.sync_dir("conformance/a").expect("sync of the folder");
    assert!(matches!(disk.rename("conformance/a/one", "conformance/a/x"), Err(DiskError::NotFound { .. })));
    disk.remove_file("conformance/a/two").expect("remove");
    assert_eq!(content(&one), b"1", "a removed file is readable through its handle");
    one.append(&[b"more"]).expect("and writable");
    assert!(matches!(disk.remove_file("conformance/a/two"), Err(DiskError::NotFound { .. })));
}

fn folders(disk: &dyn Disk) {
    disk.create_dir_all("conformance/b/c").expect("nested folders");
    disk.create("conformance/b/c/deep").expect("create").append(&[b"x"]).expect("append");
    let names: Vec<_> = disk.list("conformance").expect("list").into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["a", "b"], "only what is directly inside, sorted");
    assert!(disk.list("conformance").expect("list").iter().all(|entry| entry.is_dir && entry.len_bytes == 0));
    disk.remove_dir_all("conformance/b").expect("remove with content");
    assert!(matches!(disk.open("conformance/b/c/deep"), Err(DiskError::NotFound { .. })));
    disk.sync_dir("conformance").expect("sync of the parent");
}

fn odd_paths(disk: &dyn Disk) {
    for path in ["../x", "/etc/x", "conformance/./x", "conformance//x", "conformance/../../x", ""] {
        assert!(disk.create(path).is_err(), "{path:?} must be refused");
        assert!(disk.open(path).is_err(), "{path:?} must be refused");
    }
}

fn content(file: &Arc<dyn DiskFile>) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len_bytes()).expect("a small file")];
    let count = file.read_at(0, &mut bytes).expect("read");
    assert_eq!(count, bytes.len(), "a read within the file is whole");
    bytes
}
