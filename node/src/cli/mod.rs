//! The commands of `meshwright`. Answers go to stdout, progress and figures about the machine to stderr.
//!
//! * `arguments`: what may be typed.
//! * [`serve`]: a model behind the API. [`status`]: how a node is. [`models`]: which files are there.
//! * [`client`]: the API on a machine that only asks.
//! * [`observe`]: what happens on nodes, as a file. [`plan`]: what the planner makes of the mesh. [`doctor`]: what to mend.
//! * [`inspect`]: what a GGUF file holds. [`run`]: a chat, or one answer. [`bench`]: how fast a model runs here.
//! * [`profile`]: the same as the planner sees it.
//! * `loading`: a model from disk to memory, with a bar. `failure`: what went wrong, and the exit code.
//! * `figures`: numbers with units, for people.

/// As `eprintln!`, but what cannot be said, for a full disk behind stderr, is no reason to panic.
macro_rules! note {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}

mod arguments;
mod bench;
mod client;
mod doctor;
mod failure;
mod figures;
mod inspect;
mod loading;
mod models;
mod observe;
mod plan;
mod profile;
mod run;
mod serve;
mod status;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use self::arguments::{Arguments, Command};
use self::failure::Failure;
use crate::real::profile::Stopwatch;

/// Reads the command line, does what it says, and returns the exit code: 0 done, 1 the model cannot be used, 2 the command
/// line or the file is wrong, 130 interrupted.
pub fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(run) => run::run(&run),
        Command::Serve(serve) => serve::serve(*serve, false),
        Command::Join { mesh, serve } => serve::serve(serve.joining(mesh), true),
        Command::Client(asked) => client::client(&asked),
        Command::Invite { home } => invite(home.as_deref()),
        Command::Status(status) => status::status(&status),
        Command::Observe(asked) => observe::observe(&asked),
        Command::Plan(asked) => plan::plan(&asked),
        Command::Doctor(asked) => doctor::doctor(&asked),
        Command::Models(models) => models::models(&models),
        Command::Completions { shell } => completions(shell),
        Command::Bench(bench) => bench::bench(&bench),
        Command::Profile(asked) => profile::profile(&asked),
        Command::Inspect(inspect) => inspect::inspect(&inspect),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// The token that a running node keeps.
fn invite(home: Option<&std::path::Path>) -> Result<(), Failure> {
    print(&(serve::kept_invite(&serve::home(home)?)? + "\n"))
}

/// What a shell needs to complete the commands.
fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "meshwright", &mut script);
    print(&String::from_utf8_lossy(&script))
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

/// Prints one JSON object and nothing else.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).expect("string keys and finite numbers always serialise");
    print(&(text + "\n"))
}
