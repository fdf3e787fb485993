//! What is said when the model is served.

use std::net::SocketAddr;

use planner::plan::Plan;
use serde::Serialize;

use crate::cli::failure::Failure;
use crate::cli::figures::{count, plural};
use crate::cli::print;
use crate::http::Served;

/// For people, or as one line of JSON.
#[derive(Debug, Serialize)]
pub(super) struct Words {
    /// Where to ask.
    api: String,
    /// The model's name there.
    model: String,
    /// What its file calls it.
    name: String,
    /// Tokens that a prompt and its answer may have together.
    context: u32,
    /// Conversations of that length at once.
    sessions: u32,
    pid: u32,
}

impl Words {
    pub(super) fn new(served: &Served, plan: &Plan, address: SocketAddr) -> Self {
        Self {
            api: format!("http://{address}"),
            model: served.id.clone(),
            name: served.name.clone(),
            context: plan.context,
            sessions: plan.sessions,
            pid: std::process::id(),
        }
    }

    pub(super) fn say(&self, json: bool) -> Result<(), Failure> {
        if json {
            let line = serde_json::to_string(self).expect("string keys and finite numbers always serialise");
            return print(&(line + "\n"));
        }
        let Words { api, model, name, context, sessions, .. } = self;
        let (context, sessions) = (count(u64::from(*context)), plural(u64::from(*sessions), "conversation"));
        print(&format!(
            "{name} is served by this machine alone.\n\
             \n  API    {api}/v1, as OpenAI's; any key will do\
             \n  model  {model}\
             \n  room   {sessions} of {context} tokens at once\n\
             \nTo try it:\n\
             \n  curl {api}/v1/chat/completions -H 'Content-Type: application/json' \\\
             \n    -d '{{\"model\": \"{model}\", \"messages\": [{{\"role\": \"user\", \"content\": \"Hello\"}}]}}'\n\
             \nCtrl-C ends it once the answers that are being given are finished.\n"
        ))
    }
}
