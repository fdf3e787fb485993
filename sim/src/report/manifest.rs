//! What produced a directory of results, so that anybody can produce it again.
//!
//! The only output that knows the machine and the wall clock; nothing else may.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

use super::{ReportError, write_text};
use crate::scenario::Scenario;

/// A scenario file as it was read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceFile {
    /// Where, as given.
    pub path: PathBuf,
    /// FNV-1a of its bytes, 64 bit, hexadecimal: tells whether it changed, not who changed it.
    pub fnv1a: String,
}

/// The machine that ran it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Machine {
    /// Operating system and architecture: `linux x86_64`.
    pub system: String,
    /// Model name of the first processor, where the system tells.
    pub cpu: Option<String>,
    /// Threads that can run at once.
    pub threads: usize,
}

/// The contents of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Manifest {
    /// The scenario's name.
    pub scenario: String,
    /// Its seed.
    pub seed: u64,
    /// FNV-1a of the resolved scenario, with includes, overrides and drawn ranges.
    pub scenario_fnv1a: String,
    /// The files it came from.
    pub files: Vec<SourceFile>,
    /// The command line.
    pub command: Vec<String>,
    /// Version of this program.
    pub version: String,
    /// Git revision of the working directory, with `-dirty` when it differs; absent outside of a repository.
    pub revision: Option<String>,
    /// Whether the program was built with debug assertions.
    pub debug_build: bool,
    /// Where it ran.
    pub machine: Machine,
    /// Wall time of the run, seconds, where it was taken.
    pub wall_s: Option<f64>,
}

impl Manifest {
    /// The manifest of one scenario read from `files`, run by this process.
    pub fn new(scenario: &Scenario, files: &[PathBuf], wall_s: Option<f64>) -> Self {
        Self {
            scenario: scenario.name.clone(),
            seed: scenario.seed,
            scenario_fnv1a: hex(fnv1a(format!("{scenario:?}").as_bytes())),
            files: files.iter().filter_map(|path| source_file(path)).collect(),
            command: std::env::args().collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: revision(),
            debug_build: cfg!(debug_assertions),
            machine: machine(),
            wall_s: wall_s.map(super::json::round3),
        }
    }

    /// The manifest of results made from many `files` at once, each with the seed it names.
    pub fn of_files(name: &str, files: &[PathBuf]) -> Self {
        let files: Vec<SourceFile> = files.iter().filter_map(|path| source_file(path)).collect();
        let hashes: String = files.iter().map(|f| f.fnv1a.as_str()).collect();
        Self {
            scenario: name.to_owned(),
            seed: 0,
            scenario_fnv1a: hex(fnv1a(hashes.as_bytes())),
            files,
            command: std::env::args().collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: revision(),
            debug_build: cfg!(debug_assertions),
            machine: machine(),
            wall_s: None,
        }
    }

    /// Writes `manifest.json` into `directory` and returns its path.
    ///
    /// # Errors
    /// [`ReportError::Write`] names the path and what the system said.
    pub fn write(&self, directory: &Path) -> Result<PathBuf, ReportError> {
        let path = directory.join("manifest.json");
        let text =
            serde_json::to_string_pretty(self).expect("string keys and finite numbers always serialise");
        write_text(&path, &(text + "\n"))?;
        Ok(path)
    }
}

fn source_file(path: &Path) -> Option<SourceFile> {
    let bytes = std::fs::read(path).ok()?;
    Some(SourceFile { path: path.to_owned(), fnv1a: hex(fnv1a(&bytes)) })
}

fn hex(hash: u64) -> String {
    format!("{hash:016x}")
}

/// The FNV-1a hash, 64 bit. Source: Fowler, Noll, Vo, "The FNV Non-Cryptographic Hash Algorithm", RFC 9923.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// What `git` says of the working directory; `None` without git or outside of a repository.
fn revision() -> Option<String> {
    let output =
        Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]).output();
    let text = output
        .ok()
        .filter(|o| o.status.success())
        .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    text.filter(|t| !t.is_empty())
}

fn machine() -> Machine {
    Machine {
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        cpu: std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| cpu_model(&text)),
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    }
}

/// The first `model name` of Linux's `/proc/cpuinfo`.
fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|l| l.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::report::sample;

    #[test]
    fn the_hash_is_that_of_the_published_test_vectors() {
        assert_eq!(hex(fnv1a(b"")), "cbf29ce484222325");
        assert_eq!(hex(fnv1a(b"a")), "af63dc4c8601ec8c");
        assert_eq!(hex(fnv1a(b"foobar")), "85944171f73967e8");
    }

    #[test]
    fn a_changed_scenario_changes_the_manifest() {
        let scenario = sample::scenario();
        let mut other = scenario.clone();
        other.inject_us = 1.0;
        let of = |s: &Scenario| Manifest::new(s, &[], None).scenario_fnv1a;
        assert_eq!(of(&scenario), of(&scenario.clone()));
        assert_ne!(of(&scenario), of(&other));
    }

    #[test]
    fn it_names_its_files_and_is_read_back_as_json() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("wifi3.toml");
        std::fs::write(&file, "foobar").unwrap();
        let missing = directory.path().join("gone.toml");
        let path =
            Manifest::new(&sample::scenario(), &[file, missing], Some(1.25)).write(directory.path()).unwrap();
        let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(json["files"].as_array().unwrap().len(), 1);
        assert_eq!(json["files"][0]["fnv1a"], "85944171f73967e8");
        assert_eq!((&json["seed"], &json["wall_s"]), (&serde_json::json!(7), &serde_json::json!(1.25)));
    }

    #[test]
    fn the_processor_is_read_from_cpuinfo() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2.0 GHz\nflags\t: x\nmodel name\t: Other\n";
        assert_eq!(cpu_model(text).as_deref(), Some("Some CPU @ 2.0 GHz"));
        assert_eq!(cpu_model("Hardware : BCM2835"), None);
    }
}
