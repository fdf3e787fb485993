//! `run`: a chat in the terminal, or one answer.
//!
//! * `speaker`: the model with its tokeniser: prompts in, text out as it comes. `memory`: what the model has read.
//! * `chat`: turns and commands. `once`: one answer, for people and pipes. `conversation`, `screen`: what both use.
//! * `interrupt`: Ctrl-C ends an answer, not the chat.

mod chat;
mod conversation;
mod interrupt;
mod memory;
mod once;
mod screen;
mod speaker;

use std::hash::{BuildHasher as _, RandomState};
use std::io::{IsTerminal as _, Read as _};

use planner::model::gguf::GgufFile;

pub(super) use self::interrupt::Interrupt;
use self::speaker::Speaker;
use super::arguments::{Run, SamplingArgs};
use super::failure::Failure;
use super::loading;
use crate::real::text::{ChatTemplate, Tokenizer};
use crate::sampling::{Penalties, Rules, Sampling};

pub(super) fn run(asked: &Run) -> Result<(), Failure> {
    let sampling = sampling(&asked.sampling)?;
    let prompt = prompt(asked)?;
    let file = GgufFile::open(&asked.model)?;
    let tokenizer = Tokenizer::from_gguf(&file)?;
    let template = template(asked, &file, &tokenizer)?;
    let options = loading::options(&asked.machine, asked.threads, asked.context)?;
    let loaded = loading::load(&asked.model, &file, None, &options)?;
    let interrupt = Interrupt::default();
    let speaker = Speaker::new(loaded, tokenizer, sampling, asked, interrupt.clone());
    match prompt {
        Some(prompt) => {
            interrupt.listen();
            once::answer(speaker, &template, asked, &prompt)
        }
        None => chat::chat(speaker, &template, asked, &name(&file), &interrupt),
    }
}

/// What people call the model.
fn name(file: &GgufFile) -> String {
    file.model().map_or_else(|_| file.first_part().display().to_string(), |model| model.name)
}

/// What to answer once; `None` for a chat.
fn prompt(asked: &Run) -> Result<Option<String>, Failure> {
    let piped = !std::io::stdin().is_terminal();
    match asked.prompt.as_deref() {
        Some("-") => read_pipe().map(Some),
        Some(prompt) => Ok(Some(prompt.to_owned())),
        None if piped => read_pipe().map(Some),
        None if asked.json || asked.raw => {
            Err(Failure::Usage("--json and --raw are for one answer: give a PROMPT, or a pipe".into()))
        }
        None => Ok(None),
    }
}

fn read_pipe() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(Failure::Input)?;
    let prompt = text.trim_end();
    if prompt.is_empty() {
        return Err(Failure::Usage("there is nothing to answer: the pipe was empty; give a PROMPT".into()));
    }
    Ok(prompt.to_owned())
}

fn template(asked: &Run, file: &GgufFile, tokenizer: &Tokenizer) -> Result<ChatTemplate, Failure> {
    match &asked.template {
        Some(path) => {
            let read = std::fs::read_to_string(path);
            let source = read.map_err(|cause| Failure::Read { file: path.clone(), cause })?;
            Ok(ChatTemplate::from_text(&source, tokenizer)?)
        }
        None => Ok(ChatTemplate::from_gguf(file, tokenizer)?),
    }
}

/// The parameters of the last stage, held against their bounds.
fn sampling(asked: &SamplingArgs) -> Result<Sampling, Failure> {
    let penalties = Penalties {
        window: asked.repeat_window,
        repeat: asked.repeat_penalty,
        presence: asked.presence_penalty,
        frequency: asked.frequency_penalty,
    };
    let changes_nothing = penalties.repeat == 1.0 && penalties.presence == 0.0 && penalties.frequency == 0.0;
    let rules = Rules {
        top_k: asked.top_k,
        top_p: asked.top_p,
        min_p: asked.min_p,
        penalties: (!changes_nothing && penalties.window > 0).then_some(penalties),
        ..Rules::default()
    };
    let seed = asked.seed.unwrap_or_else(|| RandomState::new().hash_one("seed"));
    let sampling = Sampling::drawn(asked.temperature, seed).with(rules);
    sampling.check().map_err(|why| Failure::Usage(why.to_string()))?;
    Ok(sampling)
}
