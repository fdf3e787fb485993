//! The command line. Answers go to stdout, progress and wall-clock figures to stderr, so that what is printed is the
//! same for the same scenario and seed.
//!
//! * `arguments`: what may be typed.
//! * `values`: seeds, settings and sweeps as they are typed.
//! * `session`: scenarios loaded and run, over seeds and values.
//! * `answering`: the bare form. `checking`: `check` and `replay`. `planning`: `plan`. `listing`: `scenarios`, `schema`.
//! * `membership`: `membership`. `calibrating`: `calibrate`.
//! * `failure`: what went wrong, and the exit code.

mod answering;
mod arguments;
mod calibrating;
mod checking;
mod failure;
mod listing;
mod membership;
mod planning;
mod session;
mod values;

use std::process::ExitCode;

use clap::Parser as _;

use self::arguments::{Arguments, Command};
use self::failure::Failure;

/// Reads the command line, does what it says, and returns the exit code: 0 done, 1 a check failed or a run was
/// impossible, 2 the command line or a scenario is wrong.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        None => answering::answer(&arguments.answer),
        Some(Command::Check(check)) => checking::check(&check),
        Some(Command::Replay(replay)) => checking::replay(&replay),
        Some(Command::Calibrate(asked)) => calibrating::calibrate(&asked),
        Some(Command::Membership(membership)) => membership::run_all(&membership),
        Some(Command::Plan(plan)) => planning::plan(&plan),
        Some(Command::Schema(schema)) => listing::schema(&schema),
        Some(Command::Scenarios(scenarios)) => listing::scenarios(&scenarios),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Prints to stdout; whoever closes the pipe early (`| head`) has seen enough.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(cause) if cause.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::Output(cause)),
        _ => Ok(()),
    }
}
