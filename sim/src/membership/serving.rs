//! What a mesh of members serves: machines, models, requests and clients of a spec, and what came of them.

use planner::fleet::{Device, catalog as devices};
use planner::model::{Model, catalog as models};
use serde::{Deserialize, Serialize};

use super::spec::SpecError;

/// Machines with models on their disks, and who asks them.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Serving {
    /// Models of the planner's catalog; the first is called `model-0` and wanted most.
    pub models: Vec<String>,
    /// Devices of the catalog that machines have, each as often as the others.
    pub machines: Vec<String>,
    /// Share of the machines that have a model on disk, drawn for each; the first machines have all.
    #[serde(default = "half")]
    pub on_disk: f64,
    /// Share of machines whose owner has chosen the model they serve; the mesh assigns the others.
    #[serde(default)]
    pub pinned: f64,
    /// Sessions that a machine lets run at once.
    #[serde(default = "eight")]
    pub sessions: u32,
    /// Requests that may wait on a machine.
    #[serde(default = "thirty_two")]
    pub queue: u32,
    /// Tokens of a prompt, mean.
    #[serde(default = "prompt")]
    pub prompt: f64,
    /// Tokens of an answer, mean.
    #[serde(default = "output")]
    pub output: f64,
    /// Passive clients that ask; none: members ask themselves.
    #[serde(default)]
    pub clients: u32,
    /// When demand moves to other models.
    #[serde(default, rename = "shift")]
    pub shifts: Vec<Shift>,
    /// When the hosts of a model die all at once.
    #[serde(default, rename = "kill")]
    pub kills: Vec<Kill>,
    /// What must hold.
    #[serde(default)]
    pub promise: ServingPromise,
}

/// From then on requests for one model are for another.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Shift {
    /// When, seconds.
    pub at_s: f64,
    /// So many models further down the list.
    pub by: u32,
}

/// Hosts of a model die.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Kill {
    /// When, seconds.
    pub at_s: f64,
    /// The hosts of which model.
    pub model: u32,
    /// All of them, or the first so many.
    pub hosts: Option<u32>,
    /// Started again after so many seconds; never where nothing is said.
    pub for_s: Option<f64>,
}

/// What must hold of a mesh that serves.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServingPromise {
    /// A model that is asked for, that nobody serves and somebody could, is being loaded within this time, seconds: the
    /// 99th percentile of a run.
    pub begun_s: f64,
    /// The same at the longest, and the time until it is served beside its time to load.
    pub begun_most_s: f64,
    /// Machines may take up or give up models so often in a minute and machine, in the mean over the run.
    pub moves_per_minute: f64,
    /// No request waits for its answer longer than this, seconds.
    pub answer_s: f64,
    /// Bytes that a client may cost the mesh beside its requests and answers, a minute.
    pub client_bytes_per_minute: f64,
}

impl Default for ServingPromise {
    fn default() -> Self {
        Self {
            begun_s: 5.0,
            begun_most_s: 60.0,
            moves_per_minute: 1.0,
            answer_s: 180.0,
            client_bytes_per_minute: 4_096.0,
        }
    }
}

fn half() -> f64 {
    0.5
}

fn eight() -> u32 {
    8
}

fn thirty_two() -> u32 {
    32
}

fn prompt() -> f64 {
    400.0
}

fn output() -> f64 {
    150.0
}

impl Serving {
    /// It, where it can be run.
    ///
    /// # Errors
    /// Which value cannot be.
    pub fn checked(&self) -> Result<(), SpecError> {
        let value = |key, value: String, must| Err(SpecError::Value { key, value, must });
        if let Some(name) = self.models.iter().find(|name| models::find(name).is_err()) {
            return value("serving.models", name.clone(), "models that `sim list models` names");
        }
        if let Some(name) = self.machines.iter().find(|name| devices::device(name).is_err()) {
            return value("serving.machines", name.clone(), "devices that `sim list devices` names");
        }
        if self.models.is_empty() || self.machines.is_empty() {
            return value("serving", "without models or machines".into(), "of at least one of each");
        }
        if !(0.0..=1.0).contains(&self.on_disk) || !(0.0..=1.0).contains(&self.pinned) {
            return value("serving.on_disk, serving.pinned", self.on_disk.to_string(), "shares from 0 to 1");
        }
        if !(1..=1_024).contains(&self.sessions) || self.queue > 65_536 || self.clients > 100_000 {
            let numbers = format!("{}, {}, {}", self.sessions, self.queue, self.clients);
            let must = "1 to 1024 sessions, at most 65536 that wait, at most 100000 clients";
            return value("serving.sessions, queue, clients", numbers, must);
        }
        let tokens = 1.0..=100_000.0;
        if !tokens.contains(&self.prompt) || !tokens.contains(&self.output) {
            return value("serving.prompt, serving.output", self.prompt.to_string(), "1 to 100000");
        }
        let times = self.shifts.iter().map(|s| s.at_s).chain(self.kills.iter().map(|k| k.at_s));
        if let Some(at_s) = times.into_iter().find(|at_s| !(0.0..=1e5).contains(at_s)) {
            return value("serving.shift, serving.kill", at_s.to_string(), "at 0 to 100000 s");
        }
        Ok(())
    }

    pub(super) fn catalogued(&self) -> (Vec<Model>, Vec<Device>) {
        let found = self.models.iter().filter_map(|name| models::find(name).ok());
        (found.collect(), self.machines.iter().filter_map(|name| devices::device(name).ok()).collect())
    }
}

/// A broken variant, to see the oracles catch it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServingSabotage {
    /// Whoever could serve a model does, at once.
    Stampede,
    /// Nobody comes forward for what is asked for.
    NobodyComes,
    /// Replicas come and go with every wave of load.
    Restless,
    /// A request whose host fails is forgotten.
    NoRetry,
    /// Machines take whatever comes.
    EndlessQueue,
    /// Every change of any record is sent to every client.
    Push,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Served {
    /// Requests that clients made.
    pub requests: u64,
    /// Of these answered in full.
    pub answered: u64,
    /// Answers that went on elsewhere, before the first token and after it.
    pub retried: u64,
    /// See `retried`.
    pub resumed: u64,
    /// Times that a client was told to ask again later.
    pub put_off: u64,
    /// Time of an answer: median, 99th percentile and longest, seconds.
    pub answer_s: Spread,
    /// From when nobody served a model that was asked for until somebody loaded it.
    pub begun_s: Spread,
    /// Until it was served, loading included.
    pub served_s: Spread,
    /// From a member's death that left a model without a host until somebody loaded it.
    pub begun_after_death_s: Spread,
    /// The same until it is served, loading included.
    pub served_after_death_s: Spread,
    /// When a machine last took up a model or gave one up, seconds from the start.
    pub last_move_s: f64,
    /// Models that machines took up, and gave up.
    pub taken_up: u64,
    /// See `taken_up`.
    pub given_up: u64,
    /// Times that two machines loaded one model for one need, and how long together, seconds.
    pub doubled: u64,
    /// See `doubled`.
    pub doubled_s: f64,
    /// Replicas at the end, by model.
    pub replicas: Vec<u32>,
    /// Bytes that clients cost a minute and client, beside requests and answers.
    pub client_bytes_per_minute: f64,
    /// Tables that were sent.
    pub tables: u64,
}

/// Several times of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Spread {
    /// How many.
    pub count: usize,
    /// Half of them are shorter.
    pub median: f64,
    /// 99 in 100 are shorter.
    pub p99: f64,
    /// The longest.
    pub longest: f64,
}

impl Spread {
    /// Of these.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let i = ((values.len() as f64 * share).ceil() as usize).saturating_sub(1);
            values.get(i).copied().unwrap_or(0.0)
        };
        Self { count: values.len(), median: at(0.5), p99: at(0.99), longest: at(1.0) }
    }
}
