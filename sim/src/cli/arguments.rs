//! What may be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use sim::scenario::WorldKind;

use super::values::{Seeds, Setting, Sweep};

const EXAMPLES: &str = "\
Examples:
  sim scenarios/wifi3.toml
      what three machines on home Wi-Fi get, why, and what would be better
  sim scenarios/wifi2.toml --set network.home.rtt='5 ms' --set node.mini.device=apple-m4-pro
      the same with a better network and a better mini
  sim scenarios/wifi2.toml --sweep network.home.rtt='5 ms..45 ms'
      tokens per second against the round trip, as a curve
  sim scenarios/wifi2.toml --seeds 1..20
      twenty seeds, with confidence intervals
  sim scenarios/wifi3.toml --json | jq .decode_tok_s
      one JSON object and nothing else
  sim check scenarios/churn.toml --seeds 1..1000
      a thousand runs under crashes, judged by the oracles
  sim calibrate run.jsonl
      a scenario of a run that `meshwright observe` recorded, and how near the simulator comes

A scenario is described in docs/scenarios.md, the output in docs/output.md.
Exit code: 0 done, 1 a check failed or a run was impossible, 2 wrong usage or a wrong scenario.";

/// Plan, simulate and compare inference of large language models over the machines you have.
#[derive(Debug, Parser)]
#[command(name = "sim", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
#[command(subcommand_negates_reqs = true, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) answer: Answer,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run many seeds and let the oracles judge: exit code 1 when one of them finds something.
    Check(Check),
    /// Run one seed again, exactly, and print everything that happened; or print what a recorded run says.
    Replay(Replay),
    /// Make device entries and a scenario of a recorded run, and say how near the simulator comes with them.
    Calibrate(Calibrate),
    /// Run meshes of members alone, by the thousand: who knows of whom when, and at what cost.
    Membership(Membership),
    /// Print the planner's answer alone: the plan, why machines are left out, and what else was possible.
    Plan(Plan),
    /// Print the JSON Schema of scenario files, for editors.
    Schema(Schema),
    /// List the scenarios in a folder with their questions.
    Scenarios(Scenarios),
}

/// What changes a scenario from outside.
#[derive(Debug, Clone, Args)]
pub(crate) struct Changes {
    /// Set one value of the scenario: a dotted key, and a value as in TOML. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) settings: Vec<Setting>,
    /// The world to run in, instead of the scenario's.
    #[arg(long, value_name = "WORLD", value_parser = world)]
    pub(crate) world: Option<WorldKind>,
}

/// The bare form: run scenarios and answer their questions.
#[derive(Debug, Args)]
pub(crate) struct Answer {
    /// Scenario files.
    #[arg(value_name = "SCENARIO.toml", required = true)]
    pub(crate) scenarios: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) changes: Changes,
    /// The seed, instead of the scenario's.
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    pub(crate) seed: Option<u64>,
    /// Run all of these seeds and give confidence intervals; both ends count.
    #[arg(long, value_name = "A..B")]
    pub(crate) seeds: Option<Seeds>,
    /// Run once for each value: a list `a,b,c`, a range `5 ms..45 ms` (9 values), `5 ms..45 ms:5` (5 values), or
    /// `5 ms..45 ms:10 ms` (in steps).
    #[arg(long, value_name = "KEY=VALUES")]
    pub(crate) sweep: Option<Sweep>,
    /// Print one JSON object instead of the summary.
    #[arg(long)]
    pub(crate) json: bool,
    /// Folder for tables, plots and manifest, instead of `results/<scenario>`; with several scenarios, each gets one below it.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Write the run's timeline for ui.perfetto.dev.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Draw no plots.
    #[arg(long)]
    pub(crate) no_plots: bool,
    /// Write no tables and no plots.
    #[arg(long, conflicts_with = "out")]
    pub(crate) no_files: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Scenario files, of requests or of meshes of members (scenarios/membership).
    #[arg(value_name = "SCENARIO.toml", required = true)]
    pub(crate) scenarios: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) changes: Changes,
    /// The seeds; both ends count.
    #[arg(long, value_name = "A..B", default_value = "1..100")]
    pub(crate) seeds: Seeds,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// The scenario file, or a record of a run: `meshwright observe` writes such, and --record.
    #[arg(value_name = "SCENARIO.toml|RUN.jsonl")]
    pub(crate) scenario: PathBuf,
    #[command(flatten)]
    pub(crate) changes: Changes,
    /// The seed, instead of the scenario's.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Write the run's timeline for ui.perfetto.dev.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Write the run as a record, as `meshwright observe` writes real ones.
    #[arg(long, value_name = "RUN.jsonl")]
    pub(crate) record: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Calibrate {
    /// The record: `meshwright observe` writes real ones, `sim replay --record` simulated ones.
    #[arg(value_name = "RUN.jsonl")]
    pub(crate) record: PathBuf,
    /// The model's file, where the record does not lead to it and the catalog does not know it.
    #[arg(long, value_name = "MODEL.gguf")]
    pub(crate) model: Option<PathBuf>,
    /// Folder for the scenario, its requests and the fit, instead of `results/<record>`.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Membership {
    /// Files that say what is simulated: scenarios/membership/*.toml.
    #[arg(value_name = "FILE.toml", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// The seed, instead of the file's.
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    pub(crate) seed: Option<u64>,
    /// Run all of these seeds, and tell only what breaks; both ends count.
    #[arg(long, value_name = "A..B")]
    pub(crate) seeds: Option<Seeds>,
    /// The world to run in, instead of the file's: turmoil, or memory.
    #[arg(long, value_name = "WORLD", value_parser = world)]
    pub(crate) world: Option<WorldKind>,
    /// Print everything that members tell of, by time.
    #[arg(long, conflicts_with = "seeds")]
    pub(crate) log: bool,
    /// So many members, instead of the file's number.
    #[arg(long, value_name = "N")]
    pub(crate) nodes: Option<u32>,
    /// Print one JSON object a run.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// Scenario files.
    #[arg(value_name = "SCENARIO.toml", required = true)]
    pub(crate) scenarios: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) changes: Changes,
    /// The seed, instead of the scenario's.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Schema {
    /// The schema of what `--json` prints instead.
    #[arg(long)]
    pub(crate) output: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Scenarios {
    /// The folder.
    #[arg(value_name = "DIR", default_value = "scenarios")]
    pub(crate) folder: PathBuf,
}

fn world(text: &str) -> Result<WorldKind, String> {
    match text {
        "turmoil" => Ok(WorldKind::Turmoil),
        "memory" => Ok(WorldKind::Memory),
        _ => Err("worlds: turmoil, memory".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_bare_form_takes_several_scenarios() {
        let parsed = Arguments::try_parse_from(["sim", "a.toml", "b.toml", "--seeds", "1..3", "--json"]);
        let answer = parsed.expect("a right command line").answer;
        assert_eq!((answer.scenarios.len(), answer.json), (2, true));
    }

    #[test]
    fn seed_and_seeds_exclude_each_other() {
        assert!(Arguments::try_parse_from(["sim", "a.toml", "--seed", "1", "--seeds", "1..3"]).is_err());
        assert!(Arguments::try_parse_from(["sim"]).is_err());
        assert!(Arguments::try_parse_from(["sim", "schema"]).is_ok());
    }
}
