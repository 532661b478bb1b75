use base::disk::{Disk, DiskError};

use super::RealDisk;

/// A folder that goes when the test ends.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("seawall-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&path));
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[test]
fn the_real_disk_keeps_the_promises_of_the_seam() {
    let folder = Folder::new("disk");
    let disk = RealDisk::open(&folder.0).unwrap();
    base::disk::conformance::run(&disk);
}

#[test]
fn an_append_of_many_parts_is_whole() {
    let folder = Folder::new("disk-parts");
    let disk = RealDisk::open(&folder.0).unwrap();
    let file = disk.create("file").unwrap();
    let bytes: Vec<u8> = (0..=255).cycle().take(3_000).collect();
    let parts: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(file.append(&parts), Ok(0));
    assert_eq!(file.append(&parts[..100]), Ok(3_000));
    let mut back = vec![0; 3_100];
    assert_eq!(file.read_at(0, &mut back), Ok(3_100));
    assert_eq!(back[..3_000], bytes);
    assert_eq!(back[3_000..], bytes[..100]);
}

#[test]
fn a_path_cannot_lead_out_of_the_folder() {
    let folder = Folder::new("disk-paths");
    let disk = RealDisk::open(&folder.0).unwrap();
    for path in ["../x", "/etc/passwd", "a/../../x", "./x"] {
        let refused = disk.open(path).unwrap_err();
        assert_eq!(refused.to_string(), format!("{path}: not a relative path without . and .."));
        assert!(matches!(disk.rename(path, "y"), Err(DiskError::Io { .. })));
        assert!(matches!(disk.remove_dir_all(path), Err(DiskError::Io { .. })));
    }
}

/// Every write to /dev/full fails for lack of room.
#[test]
fn no_room_is_told_apart() {
    let disk = RealDisk::open(std::path::Path::new("/dev")).unwrap();
    let Ok(file) = disk.open("full") else { return };
    assert_eq!(file.write_at(0, b"x"), Err(DiskError::Full { path: "full".to_owned() }));
}
