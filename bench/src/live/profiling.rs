//! How fast this machine alone is with a model: by our own engine here, by libtorch in the program that is measured, for this one
//! is built without it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::ValueEnum;
use node::real::kernels::Level;
use node::real::profile::{self, Profile};
use planner::model::gguf::GgufFile;

use super::mesh::{Home, hand_over, profiles};
use super::{Common, LiveError};

/// What the processes compute with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum EngineName {
    /// Our own, on the processor.
    #[default]
    Cpu,
    /// libtorch, where the program was built with it: docs/libtorch.md.
    Torch,
}

/// What was measured before, or measured now and kept among the results.
pub(super) fn profile(common: &Common, file: &GgufFile) -> Result<Profile, LiveError> {
    if common.engine == EngineName::Cpu {
        let options = profile::Options::on_cpu(common.threads, Level::best());
        return Ok(profile::cached(file, &options, Some(&common.out), common.fresh)?);
    }
    let model = file.model()?.name;
    match kept(common, &model).filter(|_| !common.fresh) {
        Some(kept) => Ok(kept),
        None => measured(common, file.first_part()),
    }
}

/// Arguments of every process that say which engine.
pub(super) fn arguments(common: &Common) -> Vec<String> {
    match common.engine {
        EngineName::Cpu => Vec::new(),
        EngineName::Torch => ["--engine", "torch", "--device", &common.device].map(str::to_owned).into(),
    }
}

/// The one of libtorch with that model and so many threads.
fn kept(common: &Common, model: &str) -> Option<Profile> {
    let read = |path: &PathBuf| -> Option<Profile> {
        serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
    };
    let fits = |profile: &Profile| {
        let key = &profile.key;
        key.model == model && key.threads == common.threads && key.level.starts_with("libtorch")
    };
    profiles(&common.out).ok()?.iter().filter_map(read).find(fits)
}

/// Asks the program, which keeps what it measures in a home: from there it goes among the results.
fn measured(common: &Common, path: &Path) -> Result<Profile, LiveError> {
    let home = Home::new().map_err(LiveError::Home)?;
    let mut command = Command::new(&common.meshwright);
    command.arg("profile").arg(path).args(["--threads", &common.threads.to_string(), "--json"]);
    command.args(arguments(common)).arg("--home").arg(&home.0).stdin(Stdio::null());
    let output = command.output().map_err(LiveError::Home)?;
    let said = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let profile = serde_json::from_slice(&output.stdout).map_err(|_| LiveError::NoProfile(said()))?;
    hand_over(&home.0.join("profiles"), &common.out).map_err(LiveError::Home)?;
    Ok(profile)
}
