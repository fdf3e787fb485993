//! `bench emulate`: a scenario's network between processes that somebody else starts.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::config::{self, ConfigError, Setup};
use super::{Emulator, EmulatorError};

/// What `bench emulate` takes.
#[derive(Debug, Clone, Args)]
pub struct EmulateArgs {
    /// The file that says which scenario's links lie between which processes; see `docs/live.md`.
    #[arg(value_name = "FILE.toml")]
    pub file: PathBuf,
}

/// Why it stopped.
#[derive(Debug, thiserror::Error)]
pub enum EmulateError {
    /// The file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The network.
    #[error(transparent)]
    Emulator(#[from] EmulatorError),
}

/// Starts the network; it goes on until the emulator is dropped. The text says where each node reaches each other one.
///
/// # Errors
/// [`EmulateError`].
pub fn start(args: &EmulateArgs) -> Result<(Emulator, String), EmulateError> {
    let Setup { fleet, seed, ends, ports } = config::load(&args.file)?;
    let names: Vec<String> = fleet.nodes.iter().map(|node| node.name.clone()).collect();
    let emulator = Emulator::start_at(fleet, &ends, seed, &ports)?;
    let mut text = String::new();
    for ((from, to), front) in emulator.fronts() {
        for (protocol, at) in [("tcp", front.tcp), ("udp", front.udp)] {
            if let Some(at) = at {
                let (from, to) = (&names[from.index()], &names[to.index()]);
                writeln!(text, "{from} reaches {to} at {protocol} {at}")
                    .expect("writing to text never fails");
            }
        }
    }
    Ok((emulator, text))
}
