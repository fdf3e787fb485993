//! `sim`: what a fleet of machines would get from a model, answered before anybody buys or installs anything.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
