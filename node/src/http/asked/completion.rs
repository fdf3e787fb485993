//! A text to go on with.

use serde_json::Value;

use super::{Asked, Common, Prompt, encode, refuse_unless, room, served};
use crate::http::bounds::Bounds;
use crate::http::desk::{Desk, Need, Served};
use crate::http::fault::Fault;
use crate::http::fields::{Fields, integer, kind};
use crate::http::resume::Origin;
use crate::ids::Token;

/// Tokens of an answer where the request does not say, as OpenAI has it.
const TOKENS: u32 = 16;

/// Log-probabilities of one token, at most.
const CHANCES_MAX: u32 = 20;

/// Reads a `POST /v1/completions`.
///
/// # Errors
/// [`Fault`] names the field.
pub(in crate::http) fn completion(
    body: &[u8],
    desk: &dyn Desk,
    bounds: &Bounds,
    origin: Origin,
) -> Result<Asked, Fault> {
    let mut fields = Fields::parse(body)?;
    let need = Need { bytes: body.len(), ..Need::default() };
    let served = served(&mut fields, desk, need)?;
    let echo = fields.flag("echo")?.unwrap_or(false);
    let chances = fields.whole("logprobs", 0..=CHANCES_MAX)?.map(|top| top as u8);
    if echo && chances.is_some() {
        let why = "cannot be told of an echoed prompt here: leave `echo` or `logprobs` out";
        return Err(Fault::unsupported("logprobs", why));
    }
    let empty = |value: &Value| value.as_str().is_some_and(str::is_empty);
    refuse_unless(&mut fields, "suffix", empty, "is not supported: this server only writes at the end")?;
    let common = Common::read(&mut fields, &served, bounds, chances, &origin)?;
    let as_many = |value: &Value| integer(value) == Some(i128::from(common.choices));
    let why = "is not supported: it must be as `n`";
    refuse_unless(&mut fields, "best_of", as_many, why)?;
    let max_tokens = fields.whole("max_tokens", 0..=u32::MAX)?.unwrap_or(TOKENS);
    let texts = texts(fields.take("prompt"), &served, bounds)?;
    let prompts = texts.into_iter().map(|text| {
        let echo = echo.then(|| text.shown(&served));
        let tokens = text.tokens(&served)?;
        let max_tokens = room(&tokens, max_tokens, served.context, "prompt")?;
        Ok(Prompt { tokens, max_tokens, echo })
    });
    let prompts = prompts.collect::<Result<_, _>>()?;
    common.with(served, prompts, bounds, origin)
}

/// A prompt as it was sent.
#[derive(Debug)]
enum Text {
    Words(String),
    Tokens(Vec<Token>),
}

impl Text {
    /// What `echo` gives back.
    fn shown(&self, served: &Served) -> String {
        match self {
            Text::Words(words) => words.clone(),
            Text::Tokens(tokens) => served.tokenizer.decode(tokens),
        }
    }

    /// An empty prompt stands for the beginning of a text.
    fn tokens(self, served: &Served) -> Result<Vec<Token>, Fault> {
        let tokenizer = &served.tokenizer;
        let tokens = match self {
            Text::Words(words) => encode(served, &words, true, "prompt")?,
            Text::Tokens(tokens) => tokens,
        };
        if !tokens.is_empty() {
            return Ok(tokens);
        }
        let first = tokenizer.bos().or(tokenizer.eos());
        first
            .map(|token| vec![token])
            .ok_or_else(|| Fault::field("prompt", "is empty, and the model has no first token"))
    }
}

/// A text, several, tokens, or several lists of them.
fn texts(prompt: Option<Value>, served: &Served, bounds: &Bounds) -> Result<Vec<Text>, Fault> {
    let list = match prompt {
        None => return Ok(vec![Text::Words(String::new())]),
        Some(Value::String(words)) => return Ok(vec![Text::Words(words)]),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(wrong("prompt", &other)),
    };
    if list.is_empty() {
        return Err(Fault::field("prompt", "is an empty array: send at least one prompt"));
    }
    if list.iter().all(Value::is_number) {
        return Ok(vec![Text::Tokens(tokens(&list, served, "prompt")?)]);
    }
    if list.len() > bounds.answers {
        return Err(Fault::field("prompt", format!("may have {} prompts at most", bounds.answers)));
    }
    let one = |(i, value): (usize, Value)| match value {
        Value::String(words) => Ok(Text::Words(words)),
        Value::Array(list) => Ok(Text::Tokens(tokens(&list, served, &format!("prompt[{i}]"))?)),
        other => Err(wrong(&format!("prompt[{i}]"), &other)),
    };
    list.into_iter().enumerate().map(one).collect()
}

fn wrong(path: &str, value: &Value) -> Fault {
    Fault::field(path, format!("must be a string, an array of strings, or tokens, and is {}", kind(value)))
}

fn tokens(list: &[Value], served: &Served, path: &str) -> Result<Vec<Token>, Fault> {
    let vocabulary = served.tokenizer.len();
    let one = |(i, value): (usize, &Value)| {
        let token = integer(value).and_then(|token| u32::try_from(token).ok());
        let token = token.filter(|token| (*token as usize) < vocabulary).map(Token);
        token.ok_or_else(|| {
            Fault::field(
                format!("{path}[{i}]"),
                format!("is no token: this model's are 0 to {}", vocabulary - 1),
            )
        })
    };
    list.iter().enumerate().map(one).collect()
}
