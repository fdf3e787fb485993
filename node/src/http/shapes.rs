//! The objects that clients get, as OpenAI has them.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::asked::Asked;
use super::desk::Served;
use super::resume::Heard;
use super::speech::{Finish, Piece, Word};
use crate::ids::Token;

/// The log-probability of what cannot be: JSON has no infinity.
const LOGPROB_MIN: f32 = -9999.0;

/// Which kind of answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Of `/v1/chat/completions`.
    Chat,
    /// Of `/v1/completions`.
    Completion,
}

/// One answer, whole.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) words: Vec<Word>,
    pub(super) finish: Finish,
    pub(super) tokens: usize,
}

/// Writes what is said of one request.
pub(super) struct Paper {
    form: Form,
    asked: Arc<Asked>,
    id: String,
    created: i64,
    /// Whether something was written of each answer.
    begun: Vec<bool>,
}

impl Paper {
    pub(super) fn new(form: Form, asked: Arc<Asked>) -> Self {
        let prefix = if form == Form::Chat { "chatcmpl" } else { "cmpl" };
        let id = format!("{prefix}-{}", asked.origin.name());
        let begun = asked.heard.iter().map(|heard| *heard != Heard::default()).collect();
        Self { form, asked, id, created: now(), begun }
    }

    /// The whole reply.
    pub(super) fn whole(&self, answers: &[Answer]) -> Value {
        let choices: Vec<Value> =
            answers.iter().enumerate().map(|(i, answer)| self.choice(i, answer)).collect();
        let object = if self.form == Form::Chat { "chat.completion" } else { "text_completion" };
        let mut reply = self.object(object, choices);
        reply["usage"] = self.usage(answers.iter().map(|answer| answer.tokens).sum());
        reply
    }

    /// Parts of a stream: more of an answer.
    pub(super) fn piece(&mut self, answer: usize, piece: &Piece) -> Vec<Value> {
        let (mut chunks, is_first) = self.begin(answer);
        if !piece.text.is_empty() || !piece.words.is_empty() || (is_first && self.form == Form::Completion) {
            chunks.push(self.chunk(answer, piece, is_first, None));
        }
        chunks
    }

    /// Parts of a stream: an answer's end.
    pub(super) fn ended(&mut self, answer: usize, finish: Finish) -> Vec<Value> {
        let (mut chunks, is_first) = self.begin(answer);
        chunks.push(self.chunk(answer, &Piece::default(), is_first, Some(finish)));
        chunks
    }

    /// What comes first of an answer, and whether it comes now. A chat's begins with a part that says who speaks and
    /// nothing else: clients that add parts up take the first one twice.
    fn begin(&mut self, answer: usize) -> (Vec<Value>, bool) {
        let is_first = !std::mem::replace(&mut self.begun[answer], true);
        if !is_first || self.form == Form::Completion {
            return (Vec::new(), is_first);
        }
        let delta = json!({ "role": "assistant", "content": "" });
        let choice = json!({ "index": answer, "delta": delta, "logprobs": null, "finish_reason": null });
        (vec![self.part(choice)], true)
    }

    /// The last part of a stream whose client asked for it.
    pub(super) fn total(&self, tokens: usize) -> Value {
        let mut chunk = self.object(self.chunk_object(), Vec::new());
        chunk["usage"] = self.usage(tokens);
        chunk
    }

    fn object(&self, object: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.asked.served.id,
            "system_fingerprint": concat!("meshwright-", env!("CARGO_PKG_VERSION")),
            "choices": choices,
        })
    }

    fn chunk_object(&self) -> &'static str {
        if self.form == Form::Chat { "chat.completion.chunk" } else { "text_completion" }
    }

    fn usage(&self, tokens: usize) -> Value {
        let prompt = self.asked.prompt_tokens();
        json!({ "prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens })
    }

    fn chunk(&self, answer: usize, piece: &Piece, is_first: bool, finish: Option<Finish>) -> Value {
        let mut choice = json!({ "index": answer, "finish_reason": finish.map(Finish::as_str) });
        match self.form {
            Form::Chat if piece.text.is_empty() => choice["delta"] = json!({}),
            Form::Chat => choice["delta"] = json!({ "content": piece.text }),
            Form::Completion => choice["text"] = self.text(answer, &piece.text, is_first).into(),
        }
        choice["logprobs"] = self.logprobs(answer, &piece.words, finish.is_some());
        self.part(choice)
    }

    fn part(&self, choice: Value) -> Value {
        let mut chunk = self.object(self.chunk_object(), vec![choice]);
        if self.asked.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn choice(&self, index: usize, answer: &Answer) -> Value {
        let mut choice = json!({ "index": index, "finish_reason": answer.finish.as_str() });
        match self.form {
            Form::Chat => {
                choice["message"] = json!({ "role": "assistant", "content": answer.text, "refusal": null });
            }
            Form::Completion => choice["text"] = self.text(index, &answer.text, true).into(),
        }
        choice["logprobs"] = self.logprobs(index, &answer.words, false);
        choice
    }

    /// An answer's text, behind the prompt where that is echoed.
    fn text(&self, answer: usize, text: &str, is_first: bool) -> String {
        let echo = self.asked.prompt_of(answer).echo.as_deref().filter(|_| is_first);
        echo.unwrap_or_default().to_owned() + text
    }

    fn logprobs(&self, answer: usize, words: &[Word], is_end: bool) -> Value {
        let wanted = self.asked.sampling.rules.as_ref().and_then(|rules| rules.chances);
        let Some(top) = wanted.filter(|_| !is_end) else { return Value::Null };
        let served = &self.asked.served;
        match self.form {
            Form::Chat => {
                let content: Vec<Value> = words.iter().map(|word| chat_word(served, word)).collect();
                json!({ "content": content, "refusal": null })
            }
            Form::Completion => {
                let before =
                    self.asked.prompt_of(answer).echo.as_ref().map_or(0, |echo| echo.chars().count());
                completion_words(served, words, before, top > 0)
            }
        }
    }
}

fn chat_word(served: &Served, word: &Word) -> Value {
    let top: Vec<Value> =
        word.chances.top.iter().map(|(token, logprob)| chat_token(served, *token, *logprob)).collect();
    let mut shown = chat_token(served, word.token, word.chances.chosen);
    shown["top_logprobs"] = top.into();
    shown
}

fn chat_token(served: &Served, token: Token, logprob: f32) -> Value {
    let bytes = bytes(served, token);
    json!({ "token": String::from_utf8_lossy(&bytes), "logprob": logprob.max(LOGPROB_MIN), "bytes": bytes })
}

fn completion_words(served: &Served, words: &[Word], before: usize, has_top: bool) -> Value {
    let top = |word: &Word| -> Value {
        let pairs = word.chances.top.iter();
        pairs
            .map(|(token, logprob)| (completion_token(served, *token), json!(logprob.max(LOGPROB_MIN))))
            .collect::<Map<_, _>>()
            .into()
    };
    json!({
        "tokens": words.iter().map(|word| completion_token(served, word.token)).collect::<Vec<_>>(),
        "token_logprobs": words.iter().map(|word| word.chances.chosen.max(LOGPROB_MIN)).collect::<Vec<_>>(),
        "top_logprobs": if has_top { words.iter().map(top).collect::<Vec<_>>().into() } else { Value::Null },
        "text_offset": words.iter().map(|word| before + word.start).collect::<Vec<_>>(),
    })
}

/// A token as text; bytes that are no whole characters are written as `bytes:\xe2\x82`, as OpenAI does here.
fn completion_token(served: &Served, token: Token) -> String {
    let bytes = bytes(served, token);
    String::from_utf8(bytes).unwrap_or_else(|error| {
        let digits: String = error.as_bytes().iter().map(|byte| format!("\\x{byte:02x}")).collect();
        format!("bytes:{digits}")
    })
}

/// A token's bytes; of one that steers the model, those of its name.
fn bytes(served: &Served, token: Token) -> Vec<u8> {
    let bytes = served.tokenizer.bytes(token);
    if bytes.is_empty() { served.tokenizer.piece(token).unwrap_or_default().into() } else { bytes }
}

/// A model in `/v1/models`.
pub(super) fn model(served: &Served) -> Value {
    json!({
        "id": served.id,
        "object": "model",
        "created": served.created,
        "owned_by": "meshwright",
        "context_length": served.context,
        "max_model_len": served.context,
    })
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
