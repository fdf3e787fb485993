//! What this machine is: processor, memory, disk.

use std::fs::File;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::gpu::Gpu;
use super::stopwatch::Stopwatch;

/// What of a file is read to see how fast the disk is, bytes.
const READ_BYTES: u64 = 128 << 20;

/// Read at once: disks give their best from a MiB on.
const BLOCK_BYTES: usize = 4 << 20;

/// What an unbuffered read must be aligned to.
const ALIGNMENT: usize = 4096;

/// A machine, as far as speed goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// Model name of the processor, the architecture where the system does not say; the GPU's where that computes.
    pub processor: String,
    /// Physical cores this process may use.
    pub cores: usize,
    /// Memory of what computes, bytes; 0 where the system does not say.
    pub memory_bytes: u64,
    /// Whether that is a GPU.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_gpu: bool,
}

impl Hardware {
    /// This machine.
    pub fn here() -> Self {
        Self {
            processor: processor().unwrap_or_else(|| std::env::consts::ARCH.into()),
            cores: crate::real::pool::Pool::default_threads(),
            memory_bytes: memory().map_or(0, |memory| memory.total_bytes),
            is_gpu: false,
        }
    }

    /// This machine where that GPU computes, if one does.
    pub(super) fn with(gpu: Option<&Gpu>) -> Self {
        let here = Self::here();
        match gpu {
            Some(gpu) => {
                Self { processor: gpu.name.clone(), memory_bytes: gpu.total_bytes, is_gpu: true, ..here }
            }
            None => here,
        }
    }
}

fn processor() -> Option<String> {
    if let Ok(text) = std::fs::read_to_string("/proc/cpuinfo") {
        let named = ["model name", "Model", "Hardware"];
        let value = |line: &str| Some(line.split_once(':')?.1.trim().to_owned());
        return text.lines().find(|line| named.iter().any(|name| line.starts_with(name))).and_then(value);
    }
    system_control("machdep.cpu.brand_string")
}

/// The machine's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) total_bytes: u64,
    /// Nobody uses it, or gives it back when asked.
    pub(crate) available_bytes: u64,
}

/// The memory, where the system says.
pub(crate) fn memory() -> Option<Memory> {
    if let Ok(text) = std::fs::read_to_string("/proc/meminfo") {
        let kib = |key: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim().strip_suffix("kB")?.trim().parse().ok()
        };
        let (total, available) = (kib("MemTotal:")?, kib("MemAvailable:")?);
        return Some(Memory { total_bytes: total << 10, available_bytes: available << 10 });
    }
    let total_bytes = system_control("hw.memsize")?.parse().ok()?;
    // macOS has no such figure; it keeps about a quarter for itself and the desktop.
    Some(Memory { total_bytes, available_bytes: total_bytes / 4 * 3 })
}

/// A figure that macOS tells only so.
fn system_control(key: &str) -> Option<String> {
    if !cfg!(target_os = "macos") {
        return None;
    }
    let output = std::process::Command::new("/usr/sbin/sysctl").args(["-n", key]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// How fast the disk gives the file's bytes, bytes per second: past the system's cache where that can be had. `None`
/// where the file cannot be read.
pub(crate) fn disk_bytes_per_s(path: &Path) -> Option<f64> {
    let mut buffer = vec![0; BLOCK_BYTES + ALIGNMENT];
    let offset = buffer.as_ptr().align_offset(ALIGNMENT);
    let aligned = buffer.get_mut(offset..offset + BLOCK_BYTES)?;
    let uncached = uncached(path).and_then(|file| read(&file, aligned));
    uncached.or_else(|| read(&File::open(path).ok()?, aligned))
}

/// Seconds over bytes of the file's beginning; `None` when nothing could be read.
fn read(mut file: &File, buffer: &mut [u8]) -> Option<f64> {
    use std::io::Read as _;
    let (clock, mut bytes) = (Stopwatch::start(), 0);
    while bytes < READ_BYTES {
        match file.read(buffer) {
            Ok(0) => break,
            Ok(read) => bytes += read as u64,
            // Some file systems refuse a last block that is not whole.
            Err(_) if bytes > 0 => break,
            Err(_) => return None,
        }
    }
    (bytes > 0).then(|| bytes as f64 / clock.seconds().max(1e-9))
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn uncached(path: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    /// `O_DIRECT` of the kernel's ABI.
    const DIRECT: i32 = if cfg!(target_arch = "aarch64") { 0o200_000 } else { 0o40_000 };
    std::fs::OpenOptions::new().read(true).custom_flags(DIRECT).open(path).ok()
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn uncached(_path: &Path) -> Option<File> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_known_by_its_processor_and_memory() {
        let here = Hardware::here();
        assert!(!here.processor.is_empty() && here.cores > 0);
        if cfg!(target_os = "linux") {
            let memory = memory().expect("Linux says");
            assert!(memory.available_bytes <= memory.total_bytes && here.memory_bytes == memory.total_bytes);
        }
    }

    #[test]
    fn a_file_that_is_not_there_has_no_speed() {
        assert_eq!(disk_bytes_per_s(Path::new("/no/such/file")), None);
        let this = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        assert!(disk_bytes_per_s(&this).is_some_and(|rate| rate > 0.0));
    }
}
