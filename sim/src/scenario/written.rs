//! Parts of a scenario as text.

use planner::fleet::{Device, DeviceKind};

/// A device with all of its figures, as `[device.ID]` of a scenario.
pub fn device_table(id: &str, device: &Device) -> String {
    let class = match device.kind {
        DeviceKind::Apple => "metal",
        DeviceKind::Nvidia => "cuda",
        DeviceKind::Amd => "vulkan",
        DeviceKind::Cpu => "cpu",
    };
    let measured = device.measured.map_or_else(String::new, |m| {
        let (head, kv, attention) = (m.head_bytes_per_s, m.kv_bytes_per_s, m.attention_flops / 1e6);
        format!(
            "measured = {{ head = \"{head} B/s\", kv = \"{kv} B/s\", attention = \"{attention} MFLOP/s\" }}\n"
        )
    });
    format!(
        "[device.{id}]\nclass = \"{class}\"\nname = \"{}\"\nmemory = \"{} B\"\nreserved = \"{} B\"\nbandwidth = \"{} B/s\"\n\
         bandwidth_efficiency = {}\nflops = \"{} MFLOP/s\"\nflops_efficiency = {}\nlayer_overhead = \"{} us\"\ndisk = \"{} B/s\"\n{measured}",
        device.name.replace(['"', '\\'], " "),
        device.memory_bytes,
        device.reserved_bytes,
        device.bandwidth_bytes_per_s,
        device.bandwidth_efficiency,
        device.flops / 1e6,
        device.flops_efficiency,
        device.layer_overhead_us,
        device.disk_bytes_per_s,
    )
}
