//! What this process holds in memory, as Linux counts it.

use std::fs;

/// Bytes of memory in use, and the most there ever were; `None` where the system does not say.
pub fn resident() -> Option<(u64, u64)> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().split(' ').next()?.parse::<u64>().ok()
    };
    Some((1024 * kib("VmRSS:")?, 1024 * kib("VmHWM:")?))
}
