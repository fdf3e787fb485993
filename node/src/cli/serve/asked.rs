//! What may be typed behind `serve`, set in the environment, or written into the configuration file: one list for all.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Deserialize;

use crate::cli::arguments::{DeviceName, EngineName, LevelName, Machine, Which};
use crate::cli::failure::Failure;
use crate::real::cpu::Residual;
use crate::real::p2p::ways::Way;

/// Serve a model to programs that speak OpenAI's API.
///
/// Each option may also stand in the file `config.toml` of the home directory (or the one that --config names), by its
/// long name: `context = 4096`. What is typed comes first, then the environment, then the file.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(in crate::cli) struct Serve {
    /// The model: a GGUF file, any part of a split one, or the name of one where `models` lists it. May be repeated.
    #[arg(long, short, value_name = "MODEL.gguf", env = "MESHWRIGHT_MODEL")]
    #[serde(deserialize_with = "one_or_many")]
    pub(super) model: Vec<PathBuf>,
    /// Let the mesh choose which of the models on this machine's disk it serves, beside those of --model; that is so where no
    /// model is given.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", env = "MESHWRIGHT_STANDBY")]
    pub(super) standby: Option<bool>,
    /// Where models for the mesh to choose from lie; may be repeated [default: the folder that MESHWRIGHT_MODELS names, or
    /// this one].
    #[arg(long, value_name = "DIR")]
    pub(super) models: Vec<PathBuf>,
    /// Where the API listens; port 0 takes one that is free [default: 127.0.0.1:9337].
    #[arg(long, value_name = "HOST:PORT", env = "MESHWRIGHT_API")]
    pub(super) api: Option<String>,
    /// What this machine is called [default: its host name].
    #[arg(long, value_name = "NAME", env = "MESHWRIGHT_NAME")]
    pub(super) name: Option<String>,
    /// Threads that compute; 0 for one a physical core [default: 0].
    #[arg(long, short, value_name = "N", env = "MESHWRIGHT_THREADS", help_heading = "Machine")]
    pub(super) threads: Option<usize>,
    /// Tokens that a prompt and its answer may have together [default: 8192, or what the model was trained for; less
    /// where memory is short].
    #[arg(long, value_name = "TOKENS", env = "MESHWRIGHT_CONTEXT", help_heading = "Machine")]
    pub(super) context: Option<u32>,
    /// Conversations of that length to have room for at once; shorter ones fit more often [default: 4].
    #[arg(long, value_name = "N", env = "MESHWRIGHT_SESSIONS", help_heading = "Machine")]
    pub(super) sessions: Option<u32>,
    /// Memory to use at most, such as `6 GiB` [default: seven eighths of the machine's].
    #[arg(long, value_name = "BYTES", env = "MESHWRIGHT_MEMORY", help_heading = "Machine")]
    pub(super) memory: Option<String>,
    /// Instructions to compute with, at most [default: best].
    #[arg(long, value_enum, value_name = "LEVEL", env = "MESHWRIGHT_LEVEL", help_heading = "Machine")]
    pub(super) level: Option<LevelName>,
    /// Compute with weights widened to f32: many times slower, for comparing.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", help_heading = "Machine")]
    pub(super) f32: Option<bool>,
    /// What computes: our own engine on the processor, or libtorch, on a GPU where there is one [default: cpu].
    #[arg(long, value_enum, value_name = "ENGINE", env = "MESHWRIGHT_ENGINE", help_heading = "Machine")]
    pub(super) engine: Option<EngineName>,
    /// Where libtorch computes: auto, cpu, cuda or cuda:1 [default: auto].
    #[arg(long, value_name = "DEVICE", env = "MESHWRIGHT_DEVICE", help_heading = "Machine")]
    pub(super) device: Option<DeviceName>,
    /// Join the mesh that this token invites to, or that listens there; may be repeated. A mesh once joined is remembered.
    #[arg(long, value_name = "TOKEN|HOST:PORT", help_heading = "Mesh")]
    pub(super) join: Vec<String>,
    /// Where to listen for other nodes, as HOST:PORT or as libp2p writes it; may be repeated [default: TCP and QUIC on port
    /// 9338, or a free one].
    #[arg(long, value_name = "ADDRESS", help_heading = "Mesh")]
    pub(super) listen: Vec<String>,
    /// Tell others these addresses instead of those listened on; `none` for a node that only calls.
    #[arg(long, value_name = "ADDRESS|none", help_heading = "Mesh")]
    pub(super) announce: Vec<String>,
    /// What to speak with other nodes: TCP, QUIC, or over each link the better of the two, as measured [default: auto].
    #[arg(long, value_enum, value_name = "PROTOCOL", env = "MESHWRIGHT_PROTOCOL", help_heading = "Mesh")]
    pub(super) protocol: Option<Protocol>,
    /// Do not look for members on this LAN.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", help_heading = "Mesh")]
    pub(super) no_mdns: Option<bool>,
    /// The mesh's secret, 64 hexadecimal digits, instead of a token's or the remembered one.
    #[arg(
        long,
        value_name = "HEX",
        env = "MESHWRIGHT_SECRET",
        hide_env_values = true,
        help_heading = "Mesh"
    )]
    pub(super) secret: Option<String>,
    /// Spread the model over at least two machines even where one would do.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", help_heading = "Mesh")]
    pub(super) split: Option<bool>,
    /// Cut the model before these layers, the parts going to machines in the order of their names; for comparing.
    #[arg(long, value_name = "LAYER,LAYER", value_delimiter = ',', help_heading = "Mesh")]
    pub(super) cut: Vec<u32>,
    /// What activations are between machines, the same on all of them [default: f16].
    #[arg(long, value_enum, value_name = "TYPE", env = "MESHWRIGHT_ACTIVATIONS", help_heading = "Mesh")]
    pub(super) activations: Option<Activations>,
    /// Where this node keeps what it remembers [default: `meshwright` in the user's configuration directory].
    #[arg(long, value_name = "DIR", env = "MESHWRIGHT_HOME")]
    #[serde(skip)]
    pub(super) home: Option<PathBuf>,
    /// Read this configuration file instead of the home directory's.
    #[arg(long, value_name = "FILE", env = "MESHWRIGHT_CONFIG")]
    #[serde(skip)]
    pub(super) config: Option<PathBuf>,
    /// Print one line of JSON on stdout once the API answers, and nothing else.
    #[arg(long)]
    #[serde(skip)]
    pub(super) json: bool,
    /// How the log on stderr is written; RUST_LOG says how much of it [default: text].
    #[arg(long, value_enum, value_name = "FORMAT", env = "MESHWRIGHT_LOG_FORMAT")]
    pub(super) log_format: Option<LogFormat>,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cli) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// What nodes speak with each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cli) enum Protocol {
    /// Both; over each link the better one.
    #[default]
    Auto,
    /// TCP alone.
    Tcp,
    /// QUIC alone, over UDP.
    Quic,
}

impl Protocol {
    /// The only one, if there is only one.
    pub(super) fn only(self) -> Option<Way> {
        match self {
            Self::Auto => None,
            Self::Tcp => Some(Way::Tcp),
            Self::Quic => Some(Way::Quic),
        }
    }
}

/// What activations are between machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cli) enum Activations {
    /// As computed, 4 bytes a number.
    F32,
    /// 8 bits of precision in 2 bytes a number.
    Bf16,
    /// 11 bits of precision in 2 bytes a number.
    F16,
    /// 1 byte a number: answers then depend on where the model is cut, a little.
    Q8,
}

impl From<Activations> for Residual {
    fn from(activations: Activations) -> Self {
        match activations {
            Activations::F32 => Self::F32,
            Activations::Bf16 => Self::Bf16,
            Activations::F16 => Self::F16,
            Activations::Q8 => Self::Q8,
        }
    }
}

/// `model = "a.gguf"`, or a list of them.
fn one_or_many<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<PathBuf>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a file, or a list of files")]
    enum Files {
        One(PathBuf),
        Many(Vec<PathBuf>),
    }
    Ok(match Files::deserialize(from)? {
        Files::One(file) => vec![file],
        Files::Many(files) => files,
    })
}

fn or<T>(first: Vec<T>, other: Vec<T>) -> Vec<T> {
    if first.is_empty() { other } else { first }
}

impl Serve {
    /// The same, joining that mesh.
    pub(in crate::cli) fn joining(mut self, mesh: String) -> Self {
        self.join.insert(0, mesh);
        self
    }

    /// How the engine uses the machine.
    pub(super) fn machine(&self) -> Machine {
        let which =
            Which { engine: self.engine.unwrap_or_default(), device: self.device.unwrap_or_default() };
        let level = self.level.unwrap_or(LevelName::Best);
        Machine { level, f32: self.f32.unwrap_or(false), which }
    }

    /// What was typed, with what the configuration file adds.
    ///
    /// # Errors
    /// [`Failure::Config`] names the file, the line and what is wrong there; [`Failure::Read`] a file that was named and
    /// cannot be read.
    pub(super) fn with_file(self, home: &Path) -> Result<Self, Failure> {
        let file = self.config.clone().unwrap_or_else(|| home.join("config.toml"));
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(why) if why.kind() == std::io::ErrorKind::NotFound && self.config.is_none() => {
                return Ok(self);
            }
            Err(cause) => return Err(Failure::Read { file, cause }),
        };
        let written: Serve = toml::from_str(&text)
            .map_err(|why| Failure::Config { file, why: why.to_string().trim_end().to_owned() })?;
        Ok(self.over(written))
    }

    /// `self`, and `other` where it says nothing.
    fn over(self, other: Self) -> Self {
        Self {
            model: or(self.model, other.model),
            standby: self.standby.or(other.standby),
            models: or(self.models, other.models),
            api: self.api.or(other.api),
            name: self.name.or(other.name),
            threads: self.threads.or(other.threads),
            context: self.context.or(other.context),
            sessions: self.sessions.or(other.sessions),
            memory: self.memory.or(other.memory),
            level: self.level.or(other.level),
            f32: self.f32.or(other.f32),
            engine: self.engine.or(other.engine),
            device: self.device.or(other.device),
            log_format: self.log_format.or(other.log_format),
            join: or(self.join, other.join),
            listen: or(self.listen, other.listen),
            announce: or(self.announce, other.announce),
            protocol: self.protocol.or(other.protocol),
            no_mdns: self.no_mdns.or(other.no_mdns),
            secret: self.secret.or(other.secret),
            split: self.split.or(other.split),
            cut: or(self.cut, other.cut),
            activations: self.activations.or(other.activations),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use super::*;

    fn written(text: &str) -> Result<Serve, Failure> {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("config.toml"), text).unwrap();
        Serve { context: Some(7), ..Serve::default() }.with_file(home.path())
    }

    #[test]
    fn what_is_typed_comes_before_what_is_written() {
        let serve = written("context = 5\nthreads = 3\nlevel = \"avx2\"\n").unwrap();
        assert_eq!((serve.context, serve.threads, serve.level), (Some(7), Some(3), Some(LevelName::Avx2)));
    }

    #[test]
    fn one_model_is_written_as_one_and_several_as_a_list() {
        assert_eq!(written("model = \"a.gguf\"\n").unwrap().model, [PathBuf::from("a.gguf")]);
        let two = written("model = [\"a.gguf\", \"b.gguf\"]\n").unwrap().model;
        assert_eq!(two, [PathBuf::from("a.gguf"), PathBuf::from("b.gguf")]);
        assert!(
            written("model = 7\n").is_err_and(|why| why.to_string().contains("a file, or a list of files"))
        );
    }

    #[test]
    fn an_unknown_key_is_named_with_file_and_line() {
        let Err(why) = written("threads = 3\nthreds = 4\n") else { panic!("it must be refused") };
        let why = why.to_string();
        for part in ["config.toml", "line 2", "unknown field `threds`", "threads"] {
            assert!(why.contains(part), "{part}: {why}");
        }
    }
}
