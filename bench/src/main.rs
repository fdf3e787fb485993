//! The `bench` binary: measurements and checks, one subcommand each. Results go under `results/`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bench::live::emulator::command as emulate;
use bench::{engine, live, membership, plots, validate};
use clap::{Parser, Subcommand};

/// How often `bench emulate` says how punctual it is.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Checks the simulator against the world, and measures it.
#[derive(Debug, Parser)]
#[command(name = "bench", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure our engine and llama.cpp side by side.
    Engine(engine::EngineArgs),
    /// Put a scenario's network between processes of this machine.
    Emulate(emulate::EmulateArgs),
    /// Measure real processes behind an emulated network, next to what the simulator says.
    Live(live::LiveArgs),
    /// Measure membership against the number of members, in simulation.
    Membership(membership::MembershipArgs),
    /// Run the shipped scenarios and a few sweeps, and write CSVs and figures.
    Plots(plots::PlotsArgs),
    /// Predict every published measurement in a folder of cases and report the errors; or, with --live, what real processes
    /// of this machine do.
    Validate {
        /// Run real processes behind emulated networks instead, predict each from the profile of one machine alone, and compare;
        /// exit code 1 where the middle error is above 10 %.
        #[arg(long, conflicts_with_all = ["cases", "json", "out"])]
        live: bool,
        /// With --live: options of `bench live`, such as `-- --only 2ms --repeats 5`.
        #[arg(last = true, requires = "live")]
        options: Vec<String>,
        /// Folder of cases: scenario files, each with a [published] table.
        #[arg(long, default_value = "bench/cases")]
        cases: PathBuf,
        /// Print one JSON object instead of the table.
        #[arg(long)]
        json: bool,
        /// Where the CSV, the figures and the manifest go.
        #[arg(long, default_value = "results/validation")]
        out: PathBuf,
    },
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    match command {
        Command::Engine(arguments) => shown(engine::run(&arguments, &mut |next| eprintln!("{next}"))),
        Command::Emulate(arguments) => run_emulate(&arguments),
        Command::Live(arguments) => shown(live::run(&arguments, &mut |next| eprintln!("{next}"))),
        Command::Membership(arguments) => shown(membership::run(&arguments, &mut |next| eprintln!("{next}"))),
        Command::Plots(arguments) => run_plots(&arguments),
        Command::Validate { live: true, options, .. } => validate_live(&options),
        Command::Validate { cases, json, out, .. } => run_validate(&cases, json, &out),
    }
}

/// Prints what was measured.
fn shown(measured: Result<String, impl std::fmt::Display>) -> ExitCode {
    match measured {
        Ok(table) => {
            print!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// `bench live`'s options, by themselves.
#[derive(Debug, Parser)]
#[command(name = "bench validate --live --")]
struct Live {
    #[command(flatten)]
    common: live::Common,
}

fn validate_live(options: &[String]) -> ExitCode {
    let name = ["bench validate --live --".to_owned()];
    let Live { common } = Live::parse_from(name.iter().chain(options));
    match live::speeds::validate(&common, &mut |next| eprintln!("{next}")) {
        Ok((table, is_met)) => {
            print!("{table}");
            if is_met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run_emulate(arguments: &emulate::EmulateArgs) -> ExitCode {
    match emulate::start(arguments) {
        Ok((emulator, fronts)) => {
            print!("{fronts}");
            eprintln!("the network stands; Ctrl-C ends it");
            loop {
                std::thread::sleep(REPORT_EVERY);
                let punctual = emulator.punctuality();
                if punctual.count() > 0 {
                    let (count, bound) = (punctual.count(), punctual.bound_us(0.99));
                    eprintln!("{count} pieces handed over, 99 % of them less than {bound} us late");
                }
            }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run_plots(arguments: &plots::PlotsArgs) -> ExitCode {
    match plots::run(arguments, &mut |next| eprintln!("{next}")) {
        Ok(()) => {
            eprintln!("wrote CSVs and figures to {}", arguments.out.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run_validate(cases: &std::path::Path, json: bool, out: &std::path::Path) -> ExitCode {
    let validation = match validate::run(cases) {
        Ok(validation) => validation,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    if json {
        println!("{}", validate::json(&validation));
    } else {
        print!("{}", validate::text(&validation));
    }
    for bad in &validation.unreadable {
        eprintln!("error: {}\n{}", bad.path.display(), bad.why);
    }
    match validate::write(&validation, cases, out) {
        Ok(files) => eprintln!("wrote {} files to {}", files.len(), out.display()),
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    }
    if validation.unreadable.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
