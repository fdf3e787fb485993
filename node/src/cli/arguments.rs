//! What may be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use planner::plan::LayerRange;

use super::client::Client;
use super::doctor::Doctor;
use super::models::{self, Models};
use super::observe::Observe;
use super::plan::Plan;
use super::serve::Serve;
use super::status::Status;
use crate::real::any::Device;
use crate::real::kernels::Level;

const EXAMPLES: &str = "\
Examples:
  meshwright models get unsloth/Qwen3-0.6B-GGUF
      a model from the Hugging Face Hub
  meshwright run MODEL.gguf
      a chat in the terminal; /help says what can be typed there
  meshwright run MODEL.gguf 'Why is the sky blue?'
      one answer, then the end
  git diff | meshwright run MODEL.gguf --system 'Write a commit message.' -
      one answer to what comes through the pipe
  meshwright serve --model MODEL.gguf
      an API for programs that speak OpenAI's
  meshwright bench MODEL.gguf --threads 1,2,4
      tokens per second on this machine, and how near that is to what its memory allows
  meshwright inspect MODEL.gguf
      what the file holds

Exit code: 0 done, 1 the model cannot be used, 2 wrong usage or a wrong file, 130 interrupted.";

/// Runs large language models on this machine, or over several.
#[derive(Debug, Parser)]
#[command(name = "meshwright", version, after_help = EXAMPLES, arg_required_else_help = true)]
#[command(max_term_width = 110)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Chat with a model in the terminal, or have one answer.
    Run(Box<Run>),
    /// Serve a model to programs that speak OpenAI's API.
    Serve(Box<Serve>),
    /// Join a mesh: with a model to compute with, without one to ask the others.
    Join {
        /// The token of the mesh, or where a member listens.
        #[arg(value_name = "TOKEN|HOST:PORT")]
        mesh: String,
        #[command(flatten)]
        serve: Box<Serve>,
    },
    /// Ask a mesh from here, without belonging to it: the API on this machine, answered by nodes of the mesh.
    Client(Client),
    /// Print the token that invites to the mesh of the node that runs here.
    Invite {
        /// Where the node keeps what it remembers [default: as `serve`].
        #[arg(long, value_name = "DIR", env = "MESHWRIGHT_HOME")]
        home: Option<PathBuf>,
    },
    /// Show how a node is that serves: what it serves, with whom, and who is asking.
    Status(Status),
    /// Record what happens on the nodes of a mesh, for `sim replay` and `sim calibrate`.
    Observe(Observe),
    /// Show what the planner makes of the machines of the mesh.
    Plan(Plan),
    /// Find out what keeps this machine from serving, and say how to mend it.
    Doctor(Doctor),
    /// List the GGUF files that are there, or fetch one from the Hugging Face Hub.
    Models(Models),
    /// Measure how fast a model runs on this machine.
    Bench(Bench),
    /// Measure this machine with a model, in the figures that the planner plans by.
    Profile(Profile),
    /// Show what a GGUF file holds, without loading it.
    Inspect(Inspect),
    /// Print what a shell needs to complete these commands.
    Completions {
        /// For which shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// How the engine uses the machine.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Machine")]
pub(super) struct Machine {
    /// Instructions to compute with, at most.
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "best")]
    pub(super) level: LevelName,
    /// Compute with weights widened to f32: many times slower, for comparing.
    #[arg(long)]
    pub(super) f32: bool,
    #[command(flatten)]
    pub(super) which: Which,
}

/// Which engine, and where it computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Machine")]
pub(super) struct Which {
    /// What computes: our own engine on the processor, or libtorch, on a GPU where there is one.
    #[arg(long, value_enum, value_name = "ENGINE", default_value = "cpu", env = "MESHWRIGHT_ENGINE")]
    pub(super) engine: EngineName,
    /// Where libtorch computes: auto, cpu, cuda or cuda:1.
    #[arg(long, value_name = "DEVICE", default_value_t, env = "MESHWRIGHT_DEVICE")]
    pub(super) device: DeviceName,
}

/// The engines, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum EngineName {
    /// Our own, on the processor.
    #[default]
    Cpu,
    /// On libtorch: CUDA, or the processor.
    Torch,
}

/// A device of libtorch, as typed. A program without libtorch reads it all the same, to say that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(try_from = "String")]
pub(super) struct DeviceName(pub(super) Device);

impl std::str::FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self)
    }
}

impl TryFrom<String> for DeviceName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl std::fmt::Display for DeviceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The kernels' levels, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum LevelName {
    /// What the machine has.
    Best,
    /// AVX-512 with VNNI.
    Avx512,
    /// AVX2.
    Avx2,
    /// No instructions beyond those every machine has.
    Portable,
}

impl LevelName {
    /// The level, or the best below it that the machine has.
    pub(super) fn level(self) -> Level {
        match self {
            LevelName::Best => Level::best(),
            LevelName::Avx512 => Level::Avx512,
            LevelName::Avx2 => Level::Avx2,
            LevelName::Portable => Level::Portable,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Run {
    /// The model: a GGUF file, any part of a split one, or the name of one where `models` lists it.
    #[arg(value_name = "MODEL.gguf", value_parser = models::parser())]
    pub(super) model: PathBuf,
    /// What to ask, for one answer; `-` reads it from the pipe. Without, a chat; or one answer to what comes through a
    /// pipe.
    #[arg(value_name = "PROMPT")]
    pub(super) prompt: Option<String>,
    /// Tell the model who it is, before the conversation.
    #[arg(long, value_name = "TEXT")]
    pub(super) system: Option<String>,
    /// Continue the prompt as plain text, without the model's chat template.
    #[arg(long)]
    pub(super) raw: bool,
    /// Use this Jinja chat template instead of the model's.
    #[arg(long, value_name = "FILE", conflicts_with = "raw")]
    pub(super) template: Option<PathBuf>,
    /// Print the answer as one JSON object, with figures.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) sampling: SamplingArgs,
    /// Tokens of prompt and answers that the conversation may have; 0 for what the model was trained for.
    #[arg(long, value_name = "TOKENS", default_value_t = 8192, help_heading = "Machine")]
    pub(super) context: u32,
    /// Threads that compute; 0 for one a physical core.
    #[arg(long, short, value_name = "N", default_value_t = 0, help_heading = "Machine")]
    pub(super) threads: usize,
    #[command(flatten)]
    pub(super) machine: Machine,
}

/// How tokens are chosen.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Choice of words")]
pub(super) struct SamplingArgs {
    /// How freely words are chosen: 0 always takes the likeliest, 1 draws as the model would.
    #[arg(long, value_name = "T", default_value_t = 0.7)]
    pub(super) temperature: f32,
    /// Draw only from the likeliest so many; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub(super) top_k: u32,
    /// Draw only from the likeliest that together have this probability.
    #[arg(long, value_name = "P", default_value_t = 0.95)]
    pub(super) top_p: f32,
    /// Draw only from those at least this many times as likely as the likeliest; 0 for all.
    #[arg(long, value_name = "P", default_value_t = 0.05)]
    pub(super) min_p: f32,
    /// Make what was said make less likely again, by this factor; 1 for not at all.
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub(super) repeat_penalty: f32,
    /// Subtract this from the logit of what was said; 0 for nothing.
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    pub(super) presence_penalty: f32,
    /// Subtract this for each time that it was said; 0 for nothing.
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    pub(super) frequency_penalty: f32,
    /// How many tokens back the penalties look.
    #[arg(long, value_name = "TOKENS", default_value_t = 64)]
    pub(super) repeat_window: u32,
    /// The seed of the draws, for the same answer again; without, another one each time.
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
    /// End the answer after so many tokens; 0 for when the model ends it.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 0)]
    pub(super) max_tokens: u32,
    /// End the answer before this text. May be repeated.
    #[arg(long, value_name = "TEXT")]
    pub(super) stop: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Bench {
    /// The model: a GGUF file, any part of a split one, or the name of one where `models` lists it.
    #[arg(value_name = "MODEL.gguf", value_parser = models::parser())]
    pub(super) model: PathBuf,
    /// Threads to measure with: one or several counts; 0 is one a physical core.
    #[arg(long, short, value_name = "N,N", value_delimiter = ',', default_value = "0")]
    pub(super) threads: Vec<usize>,
    /// Lengths of prompts to read, tokens.
    #[arg(long, short, value_name = "TOKENS,TOKENS", value_delimiter = ',', default_value = "128,512")]
    pub(super) prompt: Vec<u32>,
    /// Lengths of context to answer behind, tokens.
    #[arg(long, short, value_name = "TOKENS,TOKENS", value_delimiter = ',', default_value = "16,512")]
    pub(super) context: Vec<u32>,
    /// Tokens to answer at each context.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 32)]
    pub(super) tokens: u32,
    /// Only these layers, as a stage of a pipeline would hold them: `FIRST..END`, counted from 0, END not included. May be
    /// repeated.
    #[arg(long, value_name = "FIRST..END", value_parser = layers)]
    pub(super) layers: Vec<LayerRange>,
    /// Runs of each measurement; the middle one counts.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(super) runs: u32,
    /// Print one JSON object: the profile of this machine with this model.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) machine: Machine,
}

#[derive(Debug, Args)]
pub(super) struct Profile {
    /// The model: a GGUF file, any part of a split one, or the name of one where `models` lists it.
    #[arg(value_name = "MODEL.gguf", value_parser = models::parser())]
    pub(super) model: PathBuf,
    /// Threads that compute; 0 for one a physical core.
    #[arg(long, short, value_name = "N", default_value_t = 0)]
    pub(super) threads: usize,
    /// Instructions to compute with, at most.
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "best")]
    pub(super) level: LevelName,
    #[command(flatten)]
    pub(super) which: Which,
    /// Keep the profile in this directory [default: `meshwright` in the user's configuration directory].
    #[arg(long, value_name = "DIR", env = "MESHWRIGHT_HOME")]
    pub(super) home: Option<PathBuf>,
    /// Measure again, even if this machine was measured with such a model before.
    #[arg(long)]
    pub(super) fresh: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// The model: a GGUF file, any part of a split one, or the name of one where `models` lists it.
    #[arg(value_name = "MODEL.gguf", value_parser = models::parser())]
    pub(super) model: PathBuf,
    /// List the layers, each with its bytes.
    #[arg(long)]
    pub(super) layers: bool,
    /// List the tensors, each with type, dimensions and place.
    #[arg(long)]
    pub(super) tensors: bool,
    /// List the metadata.
    #[arg(long)]
    pub(super) metadata: bool,
    /// Print the chat template and nothing else.
    #[arg(long, conflicts_with_all = ["layers", "tensors", "metadata", "json"])]
    pub(super) template: bool,
    /// Print one JSON object; the lists are in it where they are asked for.
    #[arg(long)]
    pub(super) json: bool,
}

fn layers(text: &str) -> Result<LayerRange, String> {
    let parsed = text
        .split_once("..")
        .and_then(|(first, end)| Some(LayerRange::new(first.trim().parse().ok()?, end.trim().parse().ok()?)));
    match parsed {
        Some(range) if !range.is_empty() => Ok(range),
        _ => Err("write two numbers, the second one greater: 0..10 for the first ten layers".into()),
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
    fn layers_are_two_numbers() {
        assert_eq!(layers("0..10"), Ok(LayerRange::new(0, 10)));
        assert!(
            ["", "3", "3..", "5..5", "7..5", "a..b", "-1..2"].into_iter().all(|text| layers(text).is_err())
        );
    }
}
