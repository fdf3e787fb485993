#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::path::Path;

use node::record::Header;

use super::*;
use crate::recorded::Run;
use crate::run::record;

/// Two machines whose rates differ, one link, prompts and answers of many lengths.
const TRUTH: &str = r#"# What do two machines give?
model = "Qwen3-8B Q4_K_M"

[network.net]
class = "lan"
rtt = "2 ms"
jitter = "0 us"
bandwidth = "1 Gbit/s"

[device.fast]
class = "cpu"
memory = "64 GB"
bandwidth = "80 GB/s"
bandwidth_efficiency = 0.8
flops = "2 TFLOP/s"
flops_efficiency = 1
layer_overhead = "0 us"
measured = { head = "50 GB/s", kv = "30 GB/s", attention = "500 GFLOP/s" }

[device.slow]
like = "fast"
bandwidth = "40 GB/s"

[node]
fast = { device = "fast" }
slow = { device = "slow" }

[plan]
split = { fast = 24, slow = 12 }

[workload]
users = 3
requests = 12
prompt = { uniform = [20, 900] }
output = { uniform = [30, 90] }

[run]
world = "memory"
compute_error = { device = 0, step = 0 }
software = { per_hop = "400 us", per_step = "0 us" }
"#;

fn recorded(text: &str, to: &Path) -> Run {
    let scenario = load_text(Path::new("truth.toml"), text, &[], None).unwrap();
    let recording = record(&scenario, 5, WorldKind::Memory, true).unwrap();
    let run = Run::of(&scenario, &recording, None);
    run.write(to).unwrap();
    run
}

#[test]
fn a_simulated_run_gives_back_the_devices_it_was_made_of() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.jsonl");
    let run = recorded(TRUTH, &file);
    assert_eq!(Run::read(&file).unwrap(), run);
    // What the record says of the devices is wrong: the steps say better.
    let wrong = |node: &node::record::Node| node::record::Node {
        device: Device { bandwidth_bytes_per_s: 5e9, flops: 1e11, measured: None, ..node.device.clone() },
        ..node.clone()
    };
    let nodes = run.header.nodes.iter().map(wrong).collect();
    Run { header: Header { nodes, ..run.header.clone() }, ..run }.write(&file).unwrap();
    let found = calibrate(&file, None, &folder.path().join("out")).unwrap();
    for (node, truth) in found.nodes.iter().zip([64e9, 32e9]) {
        let rate = node.device.bandwidth_bytes_per_s * node.device.bandwidth_efficiency;
        assert!((rate / truth - 1.0).abs() < 0.05, "{}: {rate:e}, not {truth:e}", node.node);
        assert!(node.off_median_percent < 2.0 && node.steps > 100, "{node:?}");
    }
    let (measured, simulated) = (found.measured, found.simulated);
    assert_eq!((measured.requests, simulated.requests), (12, 12));
    // Three users meet otherwise in each run: the slowest tenth differs more.
    for (measured, simulated, most) in
        [(measured.tpot_ms, simulated.tpot_ms, 0.05), (measured.tpot_p90_ms, simulated.tpot_p90_ms, 0.1)]
    {
        assert!((simulated / measured - 1.0).abs() < most, "{measured} ms, and simulated {simulated} ms");
    }
    assert!((simulated.ttft_ms / measured.ttft_ms - 1.0).abs() < 0.1, "{measured:?} {simulated:?}");
}

#[test]
fn what_is_neither_computing_nor_a_link_is_found_from_tokens_that_were_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.jsonl");
    recorded(&TRUTH.replace("users = 3", "users = 1"), &file);
    let found = calibrate(&file, None, &folder.path().join("out")).unwrap();
    let per_hop_us = found.software.unwrap().per_hop_us;
    assert!((per_hop_us / 400.0 - 1.0).abs() < 0.1, "{per_hop_us} us");
    assert!((found.simulated.tpot_ms / found.measured.tpot_ms - 1.0).abs() < 0.02, "{found:?}");
}

#[test]
fn a_file_that_is_no_record_is_refused_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.jsonl");
    let run = recorded(&TRUTH.replace("requests = 12", "requests = 3"), &file);
    let text = std::fs::read_to_string(&file).unwrap();
    let refused = |text: &str| {
        std::fs::write(&file, text).unwrap();
        Run::read(&file).map_err(|why| why.to_string())
    };
    assert!(refused("").unwrap_err().contains("run.jsonl:1: it is empty"));
    assert!(refused("{}\n").unwrap_err().contains("run.jsonl:1: no header"));
    let other = text.replacen("\"meshwright_record\":1", "\"meshwright_record\":9", 1);
    assert!(refused(&other).unwrap_err().contains("version 9, not 1"));
    let broken = text.replacen("\"at_ns\"", "\"when\"", 1);
    assert!(refused(&broken).unwrap_err().contains("run.jsonl:2: no event"));
    // Whoever wrote it was killed in the midst of a line.
    let killed = refused(&text[..text.len() - 9]).unwrap();
    assert_eq!(killed.lines.len(), run.lines.len() - 1);
    let nobody = text.lines().take(2).collect::<Vec<_>>().join("\n");
    std::fs::write(&file, nobody).unwrap();
    let why = calibrate(&file, None, folder.path()).unwrap_err();
    assert!(matches!(why, CalibrateError::Nobody), "{why}");
    std::fs::write(&file, text.replacen("Qwen3-8B", "Nobody-1B", 1)).unwrap();
    assert!(matches!(calibrate(&file, None, folder.path()), Err(CalibrateError::Model(_))));
}
