//! What a request wants: read out of JSON, held against the model, and turned into tokens. All of it computes and waits
//! for nothing, so it runs on a thread of its own.
//!
//! * [`chat`], [`completion`]: the two kinds of request. `sampling`: what both have in common about choosing tokens.

mod chat;
mod completion;
mod sampling;

use std::sync::Arc;

use super::bounds::Bounds;
use super::desk::{Desk, Need, Served, Unserved};
use super::entropy;
use super::fault::Fault;
use super::fields::{Fields, kind};
use super::resume::{Heard, Origin};
use crate::head::Request;
use crate::ids::Token;
use crate::routing::AUTO;
use crate::sampling::Sampling;

pub(super) use self::chat::chat;
pub(super) use self::completion::completion;

/// A request, ready to be asked.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) served: Arc<Served>,
    /// One a prompt, each with `choices` answers.
    pub(super) prompts: Vec<Prompt>,
    /// Answers to each prompt.
    pub(super) choices: u32,
    /// How tokens are chosen; the n-th choice adds n to its seed.
    pub(super) sampling: Sampling,
    /// Texts that end an answer.
    pub(super) stops: Vec<String>,
    /// Whether the answer comes as it is made.
    pub(super) stream: bool,
    /// Whether a stream ends with what it took.
    pub(super) include_usage: bool,
    /// Where its answers come from.
    pub(super) origin: Origin,
    /// What the client has of each answer.
    pub(super) heard: Vec<Heard>,
}

/// What is to be gone on with.
#[derive(Debug)]
pub(super) struct Prompt {
    pub(super) tokens: Vec<Token>,
    /// Tokens of the answer, at most.
    pub(super) max_tokens: u32,
    /// What stands in front of the answer's text.
    pub(super) echo: Option<String>,
}

impl Asked {
    /// Requests for the node, those of the first prompt first.
    pub(super) fn requests(&self) -> Vec<Request> {
        let ends: Arc<[Token]> = self.served.tokenizer.ends().iter().copied().collect();
        let of = |prompt: &Prompt, choice: u32| Request {
            session: entropy::session(),
            prompt: prompt.tokens.clone(),
            generated: Vec::new(),
            max_tokens: prompt.max_tokens,
            ends: Arc::clone(&ends),
            sampling: Sampling {
                seed: self.sampling.seed.wrapping_add(u64::from(choice)),
                ..self.sampling.clone()
            },
        };
        self.prompts
            .iter()
            .flat_map(|prompt| (0..self.choices).map(move |choice| (prompt, choice)))
            .map(|(prompt, choice)| of(prompt, choice))
            .collect()
    }

    /// The prompt of the n-th answer.
    pub(super) fn prompt_of(&self, answer: usize) -> &Prompt {
        &self.prompts[answer / self.choices.max(1) as usize]
    }

    /// How many answers there will be.
    pub(super) fn answers(&self) -> usize {
        self.prompts.len() * self.choices as usize
    }

    /// Tokens of all prompts.
    pub(super) fn prompt_tokens(&self) -> usize {
        self.prompts.iter().map(|prompt| prompt.tokens.len()).sum()
    }
}

/// The model that is asked, or chosen for what the request needs.
fn served(fields: &mut Fields, desk: &dyn Desk, need: Need) -> Result<Arc<Served>, Fault> {
    let name = fields.needed("model")?;
    if name == AUTO {
        return desk.choose(&need).ok_or_else(|| Fault::no_choice(need.bytes));
    }
    find(desk, &name).map_err(|unknown| match desk.missed(&name) {
        Some(Unserved { why, retry_s }) => Fault::unserved(why, retry_s),
        None => unknown,
    })
}

/// The model of that name: its id, in upper or lower case, or what its file calls it.
pub(super) fn find(desk: &dyn Desk, name: &str) -> Result<Arc<Served>, Fault> {
    let models = desk.models();
    let exact = models.iter().find(|served| served.id == name);
    let alike = |served: &&Arc<Served>| served.id.eq_ignore_ascii_case(name) || served.name == name;
    let found = exact.or_else(|| models.iter().find(alike));
    found
        .cloned()
        .ok_or_else(|| Fault::model(name, &models.iter().map(|served| served.id.clone()).collect::<Vec<_>>()))
}

/// What both kinds of request have, but for their prompts.
struct Common {
    choices: u32,
    sampling: Sampling,
    stops: Vec<String>,
    stream: bool,
    include_usage: bool,
}

impl Common {
    /// `chances` is how many log-probabilities are told, if any.
    fn read(
        fields: &mut Fields,
        served: &Served,
        bounds: &Bounds,
        chances: Option<u8>,
        origin: &Origin,
    ) -> Result<Self, Fault> {
        let answers = u32::try_from(bounds.answers).unwrap_or(u32::MAX);
        let choices = fields.whole("n", 1..=answers)?.unwrap_or(1);
        let sampling = sampling::read(fields, served, chances, origin)?;
        let stops = stops(fields, bounds)?;
        let stream = fields.flag("stream")?.unwrap_or(false);
        let include_usage = match fields.object("stream_options")? {
            Some(mut options) => options.flag("include_usage")?.unwrap_or(false),
            None => false,
        };
        Ok(Self { choices, sampling, stops, stream, include_usage })
    }

    fn with(
        self,
        served: Arc<Served>,
        prompts: Vec<Prompt>,
        bounds: &Bounds,
        origin: Origin,
    ) -> Result<Asked, Fault> {
        let Common { choices, sampling, stops, stream, include_usage } = self;
        let heard = origin.heard(prompts.len() * choices as usize)?;
        let asked = Asked { served, prompts, choices, sampling, stops, stream, include_usage, origin, heard };
        if asked.answers() > bounds.answers {
            let problem = format!(
                "times the number of prompts may be {} at most, and is {}",
                bounds.answers,
                asked.answers()
            );
            return Err(Fault::field("n", problem));
        }
        Ok(asked)
    }
}

/// `stop`: a text or several.
fn stops(fields: &mut Fields, bounds: &Bounds) -> Result<Vec<String>, Fault> {
    use serde_json::Value;
    let wrong = |value: &Value| {
        Fault::field("stop", format!("must be a string or an array of them, and has {}", kind(value)))
    };
    let texts = match fields.take("stop") {
        None => Vec::new(),
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(list)) => {
            let text = |value| if let Value::String(text) = value { Ok(text) } else { Err(wrong(&value)) };
            list.into_iter().map(text).collect::<Result<_, _>>()?
        }
        Some(other) => return Err(wrong(&other)),
    };
    if texts.len() > bounds.stops {
        return Err(Fault::field(
            "stop",
            format!("may have {} texts at most, and has {}", bounds.stops, texts.len()),
        ));
    }
    if texts.iter().any(|text| text.len() > bounds.stop_bytes) {
        return Err(Fault::field("stop", format!("has a text of more than {} bytes", bounds.stop_bytes)));
    }
    Ok(texts)
}

/// A field whose only supported values change nothing: `default`, or absent.
fn refuse_unless(
    fields: &mut Fields,
    field: &str,
    default: impl Fn(&serde_json::Value) -> bool,
    why: &str,
) -> Result<(), Fault> {
    match fields.take(field) {
        Some(value) if !default(&value) => Err(Fault::unsupported(fields.name(field), why)),
        _ => Ok(()),
    }
}

/// The tokens of a prompt. A text that no tokens could make short enough is refused before it costs any time.
fn encode(served: &Served, text: &str, special: bool, param: &str) -> Result<Vec<Token>, Fault> {
    let least = served.tokens_min(text.len());
    if least > served.context as usize {
        return Err(Fault::too_long(param, least, served.context));
    }
    Ok(served.tokenizer.encode(text, special, true))
}

/// How many tokens an answer may have behind a prompt: what was asked for, as far as the context reaches.
fn room(prompt: &[Token], asked: u32, context: u32, param: &str) -> Result<u32, Fault> {
    let room = (context as usize).saturating_sub(prompt.len());
    let least = usize::from(asked > 0);
    if room < least || prompt.len() > context as usize {
        return Err(Fault::too_long(param, prompt.len(), context));
    }
    Ok(asked.min(u32::try_from(room).unwrap_or(u32::MAX)))
}
