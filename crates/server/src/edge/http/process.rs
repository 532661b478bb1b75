//! What the operating system knows of this process. Linux's /proc; elsewhere everything is zero.

/// Memory in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    pub resident_bytes: u64,
    pub machine_bytes: u64,
}

/// Reads a few small files.
pub fn memory() -> Memory {
    Memory {
        resident_bytes: kilobytes(&read("/proc/self/status"), "VmRSS:") * 1_024,
        machine_bytes: kilobytes(&read("/proc/meminfo"), "MemTotal:") * 1_024,
    }
}

/// User and system time of all threads, in seconds.
pub fn cpu_seconds() -> f64 {
    let usage = read("/proc/self/stat");
    // The second field is the program's name in brackets and may hold blanks.
    let Some((_, fields)) = usage.rsplit_once(')') else { return 0.0 };
    let ticks: u32 = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    f64::from(ticks) / 100.0
}

pub fn threads() -> u64 {
    kilobytes(&read("/proc/self/status"), "Threads:")
}

pub fn open_files() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| u64::try_from(entries.count()).unwrap_or(0))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The number behind a label.
fn kilobytes(text: &str, label: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        assert!(memory().resident_bytes > 0);
        assert!(threads() > 0);
        assert!(open_files() > 0);
        assert_eq!(kilobytes("VmRSS:\t  12 kB\n", "VmRSS:"), 12);
    }
}
