//! One answer: text on stdout as it comes, or one JSON object.

use std::io::{IsTerminal as _, Write as _};

use serde::Serialize;

use super::conversation::Conversation;
use super::screen;
use super::speaker::{Answer, End, Speaker};
use crate::cli::arguments::Run;
use crate::cli::failure::Failure;
use crate::cli::print_json;
use crate::ids::Token;
use crate::real::text::ChatTemplate;

/// What `--json` prints. Rates are tokens a second, absent where nothing was measured.
#[derive(Debug, Serialize)]
struct Report<'a> {
    model: String,
    text: &'a str,
    /// Why the answer ended: `model`, `stop`, `length`, `context`, `interrupted`.
    end: End,
    seed: u64,
    threads: usize,
    prompt_tokens: usize,
    tokens: usize,
    load_s: f64,
    prefill_s: f64,
    decode_s: f64,
    prefill_tok_s: Option<f64>,
    decode_tok_s: Option<f64>,
}

pub(super) fn answer(
    mut speaker: Speaker,
    template: &ChatTemplate,
    asked: &Run,
    question: &str,
) -> Result<(), Failure> {
    let prompt = prompt(&speaker, template, asked, question)?;
    let stops = if asked.raw { &[] } else { template.stops() };
    let answer = speaker.answer(&prompt, stops, &mut |text| if asked.json { Ok(()) } else { say(text) })?;
    if asked.json {
        print_json(&report(&speaker, asked, &answer))?;
    } else {
        finish(&answer)?;
    }
    if answer.end == End::Interrupted { Err(Failure::Interrupted) } else { Ok(()) }
}

/// The tokens to answer: by the template, or as they are.
fn prompt(
    speaker: &Speaker,
    template: &ChatTemplate,
    asked: &Run,
    question: &str,
) -> Result<Vec<Token>, Failure> {
    if asked.raw {
        return Ok(speaker.tokenizer().encode(question, true, true));
    }
    let mut conversation = Conversation::new(asked.system.clone());
    conversation.ask(question);
    Ok(conversation.prompt(template, speaker.tokenizer(), speaker.context())?.0)
}

/// Prints what has come. A pipe that was closed ends the answer, and the program with it.
pub(super) fn say(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|cause| match cause.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::Interrupted,
        _ => Failure::Output(cause),
    })
}

fn finish(answer: &Answer) -> Result<(), Failure> {
    if !answer.text.ends_with('\n') {
        say("\n")?;
    }
    if std::io::stderr().is_terminal() {
        note!("{}", screen::figures(answer));
    }
    Ok(())
}

fn report<'a>(speaker: &Speaker, asked: &Run, answer: &'a Answer) -> Report<'a> {
    Report {
        model: asked.model.display().to_string(),
        text: &answer.text,
        end: answer.end,
        seed: speaker.seed(),
        threads: speaker.threads(),
        prompt_tokens: answer.prompt_tokens,
        tokens: answer.tokens,
        load_s: speaker.load_s(),
        prefill_s: answer.prefill_s,
        decode_s: answer.decode_s,
        prefill_tok_s: answer.prefill_rate(),
        decode_tok_s: answer.decode_rate(),
    }
}
