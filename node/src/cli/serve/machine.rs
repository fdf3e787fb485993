//! This machine as the planner sees it.

use std::path::Path;

use planner::fleet::{Device, DeviceKind};
use planner::model::gguf::GgufFile;

use super::Serve;
use crate::cli::loading;
use crate::real::profile::{self, Options, ProfileError};

/// Where the system does not say how much memory there is.
const MEMORY_UNSAID: u64 = 4 << 30;

/// What system and desktop keep of the memory: an eighth of it.
const RESERVED_SHARE: u64 = 8;

/// This machine as it was measured with the model, once and kept in `home`. `memory_max` is the most that may be used,
/// bytes. A machine that cannot be measured serves all the same.
pub(super) fn measured(file: &GgufFile, asked: &Serve, home: &Path, memory_max: Option<u64>) -> Device {
    let engine = loading::options(&asked.machine(), asked.threads.unwrap_or(0), 0);
    // What cannot be computed with was refused before.
    let options = Options { engine: engine.unwrap_or_default() };
    match profile::cached(file, &options, Some(&home.join("profiles")), false) {
        Ok(profile) => capped(profile.device(), memory_max),
        Err(why @ ProfileError::Write { .. }) => {
            tracing::warn!("this machine is measured again at the next start: {why}");
            let ProfileError::Write { measured, .. } = why else { unreachable!("it was matched") };
            capped(measured.device(), memory_max)
        }
        Err(why) => {
            tracing::warn!("this machine could not be measured, plans go by common figures: {why}");
            device(memory_max)
        }
    }
}

fn capped(device: Device, memory_max: Option<u64>) -> Device {
    let usable = device.usable_bytes().min(memory_max.unwrap_or(u64::MAX));
    Device { reserved_bytes: device.memory_bytes - usable.min(device.memory_bytes), ..device }
}

/// This machine, by what the system says and by figures of a common desktop.
/// `memory_max` is the most that may be used, bytes.
pub(super) fn device(memory_max: Option<u64>) -> Device {
    let memory = total_memory().unwrap_or(MEMORY_UNSAID);
    let kept = memory / RESERVED_SHARE;
    let usable = (memory - kept).min(memory_max.unwrap_or(u64::MAX));
    Device {
        id: "this-machine".into(),
        name: format!("{} cores", num_cpus::get_physical()),
        kind: DeviceKind::Cpu,
        memory_bytes: memory,
        reserved_bytes: memory - usable,
        bandwidth_bytes_per_s: 40e9,
        bandwidth_efficiency: 0.7,
        flops: 1e11 * num_cpus::get_physical() as f64,
        flops_efficiency: 0.5,
        layer_overhead_us: 20.0,
        expert_overhead_us: 60.0,
        disk_bytes_per_s: 1e9,
        measured: None,
    }
}

/// Memory of this machine, or what its container may have of it, bytes.
fn total_memory() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    let container = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let container = container.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(u64::MAX);
    Some((kib * 1024).min(container))
}

/// What the machine is called.
pub(super) fn name() -> String {
    let said = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    let said = said.or_else(|| std::env::var("HOSTNAME").ok()).or_else(|| std::env::var("COMPUTERNAME").ok());
    said.filter(|name| !name.is_empty()).unwrap_or_else(|| "this-machine".into())
}
