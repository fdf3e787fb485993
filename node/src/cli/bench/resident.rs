//! What this process holds of the machine's memory.

/// Bytes of memory that are the process's own and in use, which leaves out pages of files; none where the system does not
/// say.
pub(super) fn bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn memory_that_is_written_is_resident() {
        let before = super::bytes().expect("Linux says");
        let memory = std::hint::black_box(vec![1u8; 64 << 20]);
        let held = super::bytes().expect("Linux says") - before;
        // Tests beside this one hold and free some too.
        assert!(held > 32 << 20, "{held} of {}", memory.len());
    }
}
