//! `calibrate`: from a recorded run to devices and a scenario.

use std::path::{Path, PathBuf};

use planner::cost::constants::Software;
use planner::units::{fmt_count, fmt_ms, fmt_plural, fmt_rate};
use sim::calibrate::{Calibration, Fitted, calibrate as calibrated};

use super::arguments::Calibrate;
use super::failure::Failure;

/// Makes a scenario of a record, and says how near the simulator comes.
pub(crate) fn calibrate(asked: &Calibrate) -> Result<(), Failure> {
    let stem = asked.record.file_stem().unwrap_or_default();
    let out = asked.out.clone().unwrap_or_else(|| PathBuf::from("results").join(stem));
    let calibration = calibrated(&asked.record, asked.model.as_deref(), &out)?;
    if asked.json {
        let text = serde_json::to_string_pretty(&calibration)
            .expect("string keys and finite numbers always serialise");
        return super::print(&(text + "\n"));
    }
    super::print(&text(&asked.record, &out, &calibration))
}

fn text(record: &Path, out: &Path, calibration: &Calibration) -> String {
    let Calibration { nodes, measured, simulated, .. } = calibration;
    let (record, machines) = (record.display(), fmt_plural(nodes.len() as u64, "machine"));
    let mut text = format!("{record}: {machines}, {}\n\n", fmt_plural(measured.requests as u64, "request"));
    text.push_str("  node              layers      steps   formula off: median, P90    weights at\n");
    nodes.iter().for_each(|node| text.push_str(&row(node)));
    if let Some(software) = calibration.software {
        let Software { per_hop_us, per_step_us, .. } = software;
        let (ms, of) = if per_hop_us > 0.0 { (per_hop_us, "hop") } else { (per_step_us, "step") };
        text.push_str(&format!("\n  software: {} a {of}, beside computing and links\n", fmt_ms(ms / 1e3)));
    }
    text.push_str("\n                                  recorded    simulated      off\n");
    for (what, recorded, simulated) in [
        ("time per output token, median", measured.tpot_ms, simulated.tpot_ms),
        ("time per output token, P90", measured.tpot_p90_ms, simulated.tpot_p90_ms),
        ("time to first token, median", measured.ttft_ms, simulated.ttft_ms),
    ] {
        let off = (simulated / recorded - 1.0) * 100.0;
        let (recorded, simulated) = (fmt_ms(recorded), fmt_ms(simulated));
        text.push_str(&format!("  {what:<30}  {recorded:>8}     {simulated:>8}   {off:>+5.1} %\n"));
    }
    let out = out.display();
    text + &format!("\nThe scenario is in {out}/scenario.toml: change it and ask `sim` again.\n")
}

fn row(node: &Fitted) -> String {
    let layers = node.layers.map_or_else(|| "none".into(), |held| format!("{}..{}", held.first, held.end));
    let Fitted { node: name, steps, off_median_percent, off_p90_percent, device, .. } = node;
    let name: String = name.chars().take(16).collect();
    if *steps == 0 {
        return format!("  {name:<16}  {layers:<10}  {:>5}   as it was said to be\n", 0);
    }
    let rate = fmt_rate(device.bandwidth_bytes_per_s * device.bandwidth_efficiency);
    format!(
        "  {name:<16}  {layers:<10}  {:>5}   {off_median_percent:>7.1} %, {off_p90_percent:.1} %              {rate}\n",
        fmt_count(*steps as u64)
    )
}
