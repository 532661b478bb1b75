use super::*;
use crate::disk::conformance;

fn disk_with(seed: u64, synced: &[u8], unsynced: &[u8]) -> MemDisk {
    let disk = MemDisk::new(seed, 1 << 20);
    let file = disk.create("file").unwrap();
    file.append(&[synced]).unwrap();
    file.sync().unwrap();
    disk.sync_dir("").unwrap();
    file.append(&[unsynced]).unwrap();
    disk
}

fn content(disk: &MemDisk, path: &str) -> Vec<u8> {
    disk.dump().into_iter().find(|(name, _)| name == path).unwrap().1
}

#[test]
fn keeps_the_promises_of_a_disk() {
    conformance::run(&MemDisk::new(1, 1 << 20));
}

#[test]
fn a_power_loss_keeps_what_was_synced_and_does_anything_to_the_rest() {
    let (mut lost, mut whole, mut torn, mut holed) = (0, 0, 0, 0);
    for seed in 0..200 {
        let unsynced = [7; 1500];
        let image = content(&disk_with(seed, b"synced", &unsynced).crash(), "file");
        assert_eq!(image[..6], *b"synced");
        match image.len() - 6 {
            0 => lost += 1,
            1500 if image[6..] == unsynced => whole += 1,
            1500 => holed += 1,
            _ => torn += 1,
        }
    }
    assert!(lost > 20 && whole > 20 && torn > 20 && holed > 10, "{lost} {whole} {torn} {holed}");
}

#[test]
fn a_power_loss_loses_unsynced_names_only() {
    let mut lost = 0;
    for seed in 0..50 {
        let disk = disk_with(seed, b"x", b"");
        disk.create("new").unwrap();
        disk.rename("file", "renamed").unwrap();
        let names: Vec<_> = disk.crash().dump().into_iter().map(|(name, _)| name).collect();
        let renamed = names.contains(&"renamed".to_owned());
        assert!(renamed != names.contains(&"file".to_owned()), "a rename is atomic: {names:?}");
        lost += usize::from(!names.contains(&"new".to_owned()));
        disk.sync_dir("").unwrap();
        assert_eq!(disk.crash().dump().len(), 2);
    }
    assert!((10..40).contains(&lost), "{lost}");
}

#[test]
fn an_overwrite_that_was_not_synced_may_be_taken_back() {
    let mut old = 0;
    for seed in 0..50 {
        let disk = disk_with(seed, b"0123456789", b"");
        let file = disk.open("file").unwrap();
        file.write_at(2, b"XX").unwrap();
        file.truncate(5).unwrap();
        file.write_at(8, b"Y").unwrap();
        assert_eq!(content(&disk, "file"), b"01XX4\0\0\0Y");
        old += usize::from(content(&disk.crash(), "file") == b"0123456789");
        file.sync().unwrap();
        assert_eq!(content(&disk.crash(), "file"), b"01XX4\0\0\0Y");
    }
    assert!(old > 5, "{old}");
}

#[test]
fn a_kill_keeps_all_but_syncs_nothing() {
    let mut lost = 0;
    for seed in 0..50 {
        let killed = disk_with(seed, b"a", b"b").kill();
        assert_eq!(content(&killed, "file"), b"ab");
        lost += usize::from(content(&killed.crash(), "file") == b"a");
    }
    assert!(lost > 5, "{lost}");
}

#[test]
fn a_dead_process_does_nothing_more() {
    let disk = MemDisk::new(3, 1 << 20);
    let file = disk.create("file").unwrap();
    disk.crash_at(2);
    file.append(&[b"one"]).unwrap();
    assert!(file.append(&[b"two"]).is_err());
    assert!(disk.is_dead());
    assert!(file.read_at(0, &mut [0; 1]).is_err());
    assert!(disk.create("other").is_err());
    assert!(content(&disk.kill(), "file").starts_with(b"one"));
}

#[test]
fn a_full_disk_writes_what_fits_and_recovers() {
    let disk = MemDisk::new(3, 10);
    let file = disk.create("file").unwrap();
    file.append(&[b"12345678"]).unwrap();
    assert!(matches!(file.append(&[b"abc", b"def"]), Err(DiskError::Full { .. })));
    assert_eq!(content(&disk, "file"), b"12345678ab");
    file.truncate(8).unwrap();
    assert_eq!(disk.free_bytes(), Ok(2));
    disk.set_capacity(100);
    assert_eq!(file.append(&[b"abc"]), Ok(8));
    disk.remove_file("file").unwrap();
    assert_eq!(disk.free_bytes(), Ok(100));
}

#[test]
fn a_sync_that_failed_is_not_made_good_by_another() {
    let mut lost = 0;
    for seed in 0..50 {
        let disk = disk_with(seed, b"a", b"b");
        let file = disk.open("file").unwrap();
        disk.fault(Fault::Sync { after_ops: 0 });
        assert!(matches!(file.sync(), Err(DiskError::Sync { .. })));
        disk.heal();
        file.sync().unwrap();
        lost += usize::from(content(&disk.crash(), "file") != b"ab");
    }
    assert!(lost > 5, "{lost}");
}

#[test]
fn the_same_seed_fails_the_same_way() {
    for seed in 0..20 {
        let image = |_| disk_with(seed, b"synced", &[1; 3000]).crash().dump();
        assert_eq!(image(0), image(1));
    }
}

#[test]
fn a_write_error_may_leave_a_prefix() {
    let disk = MemDisk::new(5, 1 << 20);
    let file = disk.create("file").unwrap();
    disk.fault(Fault::Write { after_ops: 1 });
    file.append(&[b"good"]).unwrap();
    assert!(matches!(file.append(&[b"bad"]), Err(DiskError::Io { .. })));
    disk.fault(Fault::Read);
    assert!(file.read_at(0, &mut [0; 1]).is_err());
    disk.heal();
    assert!(b"goodbad".starts_with(&content(&disk, "file")));
    disk.flip_bit("file", 1);
    assert_eq!(content(&disk, "file")[0], b'g' ^ 2);
}
