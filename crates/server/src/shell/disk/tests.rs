use super::RealDisk;

#[test]
fn the_real_disk_keeps_the_promises_of_the_seam() {
    let folder = std::env::temp_dir().join(format!("seawall-disk-{}", std::process::id()));
    let disk = RealDisk::open(&folder).expect("opens");
    base::disk::conformance::run(&disk);
    std::fs::remove_dir_all(folder).expect("removes");
}
