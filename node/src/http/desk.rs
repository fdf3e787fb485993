//! The node as the API sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::head::{Replies, Request};
use crate::ids::Token;
use crate::real::text::{ChatTemplate, Tokenizer};

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

/// What the API needs of a node.
pub trait Desk: Send + Sync + 'static {
    /// The models that can be asked, those of other nodes included, in the order in which they are listed.
    fn models(&self) -> Vec<Arc<Served>>;

    /// Takes a request on for the model of that [`id`](Served::id); `None` where there is none. Dropping the replies
    /// cancels the request.
    fn ask(&self, model: &str, request: Request) -> Option<Replies>;

    /// How the node is.
    fn health(&self) -> Health;
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
    /// Models that can be asked.
    pub models: Vec<String>,
    /// Sessions whose head runs on this node.
    pub sessions: usize,
    /// Number of the plan that is followed; 0 without one.
    pub epoch: u64,
    /// Other nodes of the mesh.
    pub peers: Vec<PeerHealth>,
    /// Bytes that came from other nodes since the start, by what they were.
    #[serde(default)]
    pub received: BTreeMap<String, u64>,
    /// What is served by whom.
    pub plan: Option<PlanHealth>,
}

/// Another node of the mesh.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PeerHealth {
    /// What people call it.
    pub name: String,
    /// Whether it answers.
    pub alive: bool,
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
