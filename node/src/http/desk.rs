//! The node as the API sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::head::{Replies, Request};
use crate::ids::Token;
use crate::real::text::{ChatTemplate, Tokenizer};
use crate::record::{Line, Opening};
use crate::routing::table::Table;

/// A model that can be asked.
#[derive(Debug, Clone)]
pub struct Served {
    /// Its name in the API.
    pub id: String,
    /// The name that its file gives it; requests may use it, too.
    pub name: String,
    /// Makes tokens of text and back.
    pub tokenizer: Arc<Tokenizer>,
    /// Makes prompts of conversations.
    pub template: Arc<ChatTemplate>,
    /// Tokens that prompt and answer of a request may have together.
    pub context: u32,
    /// When it was first served, seconds since 1970.
    pub created: i64,
    /// The longest token's text, bytes: shorter texts may fit the context, others cannot.
    token_bytes_max: usize,
}

impl Served {
    /// A model that is served from now on, under the name `id`; its file calls it `name`.
    pub fn new(id: String, name: String, tokenizer: Tokenizer, template: ChatTemplate, context: u32) -> Self {
        let tokens = (0..u32::try_from(tokenizer.len()).unwrap_or(u32::MAX)).map(Token);
        let bytes = |token| tokenizer.bytes(token).len().max(tokenizer.piece(token).map_or(0, str::len));
        let token_bytes_max = tokens.map(bytes).max().unwrap_or(1).max(1);
        let (tokenizer, template) = (Arc::new(tokenizer), Arc::new(template));
        Self { id, name, tokenizer, template, context, created: super::shapes::now(), token_bytes_max }
    }

    /// The same with another context.
    #[must_use]
    pub fn with_context(&self, context: u32) -> Self {
        Self { context, ..self.clone() }
    }

    /// The fewest tokens that a text of so many bytes can have: what is too long by this need not be read.
    pub(super) fn tokens_min(&self, bytes: usize) -> usize {
        bytes / self.token_bytes_max
    }
}

/// What a request needs of the model that is chosen for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Need {
    /// Bytes of the request: at most so many tokens.
    pub bytes: usize,
    /// It is a conversation.
    pub chat: bool,
    /// It comes with tools.
    pub tools: bool,
}

/// A model that members have and nobody serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unserved {
    /// What is known of that, in words.
    pub why: String,
    /// When to ask again, seconds.
    pub retry_s: u32,
}

/// What somebody who observes a node gets.
#[derive(Debug)]
pub struct Observation {
    /// What it is.
    pub opening: Opening,
    /// What happens there.
    pub lines: broadcast::Receiver<Line>,
}

/// What the API needs of a node.
pub trait Desk: Send + Sync + 'static {
    /// The models that can be asked, those of other nodes included, in the order in which they are listed.
    fn models(&self) -> Vec<Arc<Served>>;

    /// Takes a request on for the model of that [`id`](Served::id); `None` where there is none. Dropping the replies
    /// cancels the request.
    fn ask(&self, model: &str, request: Request) -> Option<Replies>;

    /// The model for a request that leaves the choice to the mesh; `None` where none would do.
    fn choose(&self, need: &Need) -> Option<Arc<Served>>;

    /// Somebody asks for a model that is not among [`models`](Self::models): it counts as asked for. `None` where no member
    /// has it.
    fn missed(&self, model: &str) -> Option<Unserved>;

    /// How the node is.
    fn health(&self) -> Health;

    /// What the planner makes of the machines that are known now, for each model.
    fn advice(&self) -> Vec<Advice>;

    /// Whom clients may ask, and for what.
    fn table(&self) -> Table;

    /// What happens on this node with that model, or its first one, from now on; `None` where there is none.
    fn observe(&self, model: Option<&str>) -> Option<Observation>;
}

/// What the planner says: what `GET /plan` and `meshwright plan` show.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Advice {
    /// Of which model.
    pub model: String,
    /// The machines of the mesh.
    pub machines: Vec<MachineHealth>,
    /// Why there is no plan.
    pub refusal: Option<String>,
    /// The best plan for one stream.
    pub proposal: Option<Proposal>,
    /// Machines without layers, and why.
    pub left_out: Vec<String>,
    /// Changes that would make it better, best first.
    pub would_help: Vec<String>,
}

/// A machine as the planner sees it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct MachineHealth {
    /// What people call it.
    pub name: String,
    /// What computes there.
    pub device: String,
    /// Memory that plans may use, bytes.
    pub usable_bytes: u64,
    /// How fast it reads weights, bytes per second.
    pub bytes_per_s: f64,
    /// Whether the model's file is on its disk.
    pub has_model: bool,
}

/// A plan and what is predicted of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Proposal {
    /// The plan.
    pub plan: PlanHealth,
    /// Time per token of one stream, milliseconds.
    pub tpot_ms: f64,
    /// Time to the first token, milliseconds.
    pub ttft_ms: f64,
    /// Where a token's time goes: what, milliseconds.
    pub parts: Vec<(String, f64)>,
}

/// How a node is: what `GET /health`, `GET /status` and `meshwright status` show.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Health {
    /// Whether requests are answered.
    pub serving: bool,
    /// Why not.
    pub why: Option<String>,
    /// What people call the node.
    pub node: String,
    /// Which release it is.
    pub version: String,
    /// Models in which the node takes part: those that it can be asked for.
    pub models: Vec<ModelHealth>,
    /// Sessions whose head runs on this node.
    pub sessions: usize,
    /// What is asked for over the whole mesh, served or not: model, requests per second, the most wanted first.
    #[serde(default)]
    pub demand: Vec<(String, f64)>,
    /// Other nodes of the mesh.
    pub peers: Vec<PeerHealth>,
    /// Bytes that came from other nodes since the start, by what they were.
    #[serde(default)]
    pub received: BTreeMap<String, u64>,
    /// What is wrong with whom, in words.
    #[serde(default)]
    pub troubles: BTreeMap<String, String>,
}

/// How a model is, as the node sees it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ModelHealth {
    /// Its name in the API.
    pub id: String,
    /// What its file calls it.
    pub name: String,
    /// Whether requests for it are answered.
    pub serving: bool,
    /// Why not.
    pub why: Option<String>,
    /// Whether its weights lie on this node's disk.
    pub is_here: bool,
    /// Its sessions whose head runs on this node.
    pub sessions: usize,
    /// Number of the plan that is followed; 0 without one.
    pub epoch: u64,
    /// What is served by whom.
    pub plan: Option<PlanHealth>,
}

/// Another node of the mesh.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PeerHealth {
    /// What people call it.
    pub name: String,
    /// Whether it is there.
    pub alive: bool,
    /// Names of the models that it holds layers of and serves.
    #[serde(default)]
    pub serves: Vec<String>,
    /// Sessions whose head runs there.
    #[serde(default)]
    pub sessions: u32,
    /// A message there and back, milliseconds: measured, or estimated where that was not done.
    #[serde(default)]
    pub round_trip_ms: f64,
    /// What is spoken with it, `tcp` or `quic`.
    #[serde(default)]
    pub way: Option<String>,
    /// What was measured of each way.
    #[serde(default)]
    pub ways: BTreeMap<String, WayHealth>,
}

/// What was measured of a way to another node.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct WayHealth {
    /// As many bytes as a token's activations there and back, microseconds.
    pub frame_us: f64,
    /// What a long transfer reached, bytes per second.
    pub bytes_per_s: f64,
}

/// A plan.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PlanHealth {
    /// Which model.
    pub model: String,
    /// Tokens of context each session may have.
    pub context: u32,
    /// Sessions of that length for which each replica has room.
    pub sessions: u32,
    /// Its complete copies.
    pub replicas: Vec<ReplicaHealth>,
}

/// One complete copy of a model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ReplicaHealth {
    /// Whether all of its stages are there and loaded.
    pub serving: bool,
    /// Who computes what, in the order in which a token passes them.
    pub stages: Vec<StageHealth>,
}

/// A node's share of a replica.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StageHealth {
    /// What people call the node.
    pub node: String,
    /// Its first layer, counted from 0.
    pub first: u32,
    /// One past its last layer.
    pub end: u32,
}
