//! What is said when the node is up.

use std::net::SocketAddr;

use serde::Serialize;

use super::meshed::Meshed;
use crate::cli::failure::Failure;
use crate::cli::figures::{count, plural};
use crate::cli::print;
use crate::http::{Desk as _, Health, ModelHealth, PlanHealth};

/// For people, or as one line of JSON.
#[derive(Debug, Serialize)]
pub(super) struct Words {
    /// Where to ask.
    api: String,
    /// The name there of the first model.
    model: String,
    /// What its file calls it.
    name: String,
    /// The names of all models.
    models: Vec<String>,
    /// This node's name in the network.
    peer: String,
    /// Where it listens for other nodes.
    listen: Vec<String>,
    /// What invites another machine.
    invite: String,
    /// Tokens that a prompt and its answer may have together.
    context: u32,
    /// Conversations of that length at once; 0 while nothing is planned.
    sessions: u32,
    /// Whether requests are answered already.
    serving: bool,
    pid: u32,
    #[serde(skip)]
    health: Health,
}

impl Words {
    pub(super) fn new(meshed: &Meshed, address: SocketAddr) -> Self {
        let health = meshed.health();
        let first = health.models.first().cloned().unwrap_or_default();
        let context = meshed.models().first().map_or(0, |served| served.context);
        let listening = meshed.net().state().read(|state| state.listening.clone());
        Self {
            api: format!("http://{address}"),
            model: first.id,
            name: first.name,
            models: health.models.iter().map(|model| model.id.clone()).collect(),
            peer: meshed.peer(),
            listen: listening.iter().map(ToString::to_string).collect(),
            invite: meshed.net().invite().to_string(),
            context,
            sessions: first.plan.map_or(0, |plan| plan.sessions),
            serving: health.serving,
            pid: std::process::id(),
            health,
        }
    }

    pub(super) fn say(&self, json: bool) -> Result<(), Failure> {
        if json {
            let line = serde_json::to_string(self).expect("string keys and finite numbers always serialise");
            return print(&(line + "\n"));
        }
        if self.models.is_empty() {
            return print(&self.waiting());
        }
        let Words { api, model, invite, context, sessions, .. } = self;
        let room = match sessions {
            0 => String::new(),
            some => {
                let (some, context) = (plural(u64::from(*some), "conversation"), count(u64::from(*context)));
                format!("\n  room   {some} of {context} tokens at once")
            }
        };
        print(&format!(
            "{}\n\
             \n  API    {api}/v1, as OpenAI's; any key will do\
             \n  model  {model}{room}\n\
             \n{}\
             \nTo add a machine (the token is a secret: who has it belongs to this mesh):\n\
             \n  meshwright serve --model {model}.gguf --join {invite}\n\
             \nCtrl-C ends it once the answers that are being given are finished.\n",
            self.state(),
            to_try(api, model)
        ))
    }

    /// For a machine to which the mesh has given nothing to do yet.
    fn waiting(&self) -> String {
        let Words { api, invite, .. } = self;
        format!(
            "This machine stands by: the mesh chooses what it serves.\n\
             \n  API    {api}/v1, as OpenAI's; any key will do; `meshwright status` shows what is served\n\
             \nTo add a machine (the token is a secret: who has it belongs to this mesh):\n\
             \n  meshwright serve --join {invite}\n\
             \nCtrl-C ends it once the answers that are being given are finished.\n"
        )
    }

    /// What serves each model, or why nothing does: a line each.
    fn state(&self) -> String {
        let state = |model: &ModelHealth| {
            let state = match (&model.plan, &model.why) {
                (_, Some(why)) => format!("is not served yet: {why}"),
                (Some(plan), None) => format!("is served by {}", machines(plan, &self.health.node)),
                (None, None) => "is being planned".into(),
            };
            format!("{} {state}.", model.name)
        };
        self.health.models.iter().map(state).collect::<Vec<_>>().join("\n")
    }
}

/// How to ask once, from a shell.
pub(in crate::cli) fn to_try(api: &str, model: &str) -> String {
    format!(
        "To try it:\n\
         \n  curl {api}/v1/chat/completions -H 'Content-Type: application/json' \\\
         \n    -d '{{\"model\": \"{model}\", \"messages\": [{{\"role\": \"user\", \"content\": \"Hello\"}}]}}'\n"
    )
}

fn machines(plan: &PlanHealth, own: &str) -> String {
    let stages: Vec<_> = plan.replicas.iter().flat_map(|replica| &replica.stages).collect();
    if stages.iter().all(|stage| stage.node == own) {
        return "this machine alone".into();
    }
    let parts: Vec<String> = stages
        .iter()
        .map(|stage| format!("{} (layers {} to {})", stage.node, stage.first, stage.end - 1))
        .collect();
    parts.join(", ")
}
