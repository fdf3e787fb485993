//! Conversations into prompts, by the Jinja template that a GGUF file brings, as `transformers` renders it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::civil::DateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, Value};
use planner::model::gguf::GgufFile;

use super::bounded::bounded;
use super::chat::Chat;
use super::error::{TemplateError, TextError};
use super::fallback::Fallback;
use super::metadata::{Metadata, TEMPLATE};
use super::python;
use super::tokenizer::Tokenizer;
use crate::ids::Token;

/// The longest template, bytes. The longest in use have some 30 KB. It bounds how deep the parser goes: see [`bounded`].
const TEMPLATE_BYTES_MAX: usize = 64 << 10;

/// Work that a rendering may do: one for an instruction, one for each 64 bytes it makes.
const FUEL: u64 = 2 << 20;

/// Macros and includes within each other.
const RECURSION_MAX: usize = 128;

/// The longest prompt, bytes; a million tokens take some 4 MB.
const PROMPT_BYTES_MAX: usize = 16 << 20;

/// The template's name in the environment.
const NAME: &str = "chat";

/// Where a template comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The file brings it.
    File,
    /// The file brings none; this one fits its vocabulary.
    Fallback(&'static str),
}

/// Makes prompts of conversations.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    /// Whether a rendering was given up, and may still be going on: there shall not be a second one.
    ran_away: AtomicBool,
    origin: Origin,
    stops: &'static [&'static str],
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// The template of a file, or one that fits the vocabulary of its tokeniser: ChatML where there is `<|im_start|>`,
    /// Gemma's where there is `<start_of_turn>`, Llama 3's where there is `<|start_header_id|>`, else a plain dialogue.
    ///
    /// # Errors
    /// [`TextError`] for a template that is no text, too long or no Jinja.
    pub fn from_gguf(file: &GgufFile, tokenizer: &Tokenizer) -> Result<Self, TextError> {
        let metadata = Metadata::of(file);
        let Some(source) = metadata.text(TEMPLATE)? else {
            let fallback = Fallback::of(tokenizer);
            let template =
                Self::new(fallback.template, Origin::Fallback(fallback.name), fallback.stops, tokenizer);
            return Ok(template.expect("the built-in templates are read by a test"));
        };
        Self::new(source, Origin::File, &[], tokenizer).map_err(|e| metadata.corrupt(TEMPLATE, e.to_string()))
    }

    /// Another template, given as text, for the vocabulary of `tokenizer`.
    ///
    /// # Errors
    /// [`TemplateError`] for a template that is too long or no Jinja.
    pub fn from_text(source: &str, tokenizer: &Tokenizer) -> Result<Self, TemplateError> {
        Self::new(source, Origin::File, &[], tokenizer)
    }

    fn new(
        source: &str,
        origin: Origin,
        stops: &'static [&'static str],
        tokenizer: &Tokenizer,
    ) -> Result<Self, TemplateError> {
        if source.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::TooMuch { limit: "64 KiB of template" });
        }
        let source = without_generation_tags(source).into_owned();
        let environment = bounded(move || {
            let mut environment = environment();
            environment.add_template_owned(NAME, source).map_err(|e| syntax(&e))?;
            Ok(Arc::new(environment))
        })?;
        let ran_away = AtomicBool::new(false);
        let text =
            |token: Option<Token>| token.and_then(|t| tokenizer.piece(t)).unwrap_or_default().to_owned();
        Ok(Self {
            environment,
            ran_away,
            origin,
            stops,
            bos: text(tokenizer.bos()),
            eos: text(tokenizer.eos()),
        })
    }

    /// Where the template comes from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Texts that end an answer besides the vocabulary's own end tokens: models that bring no template may not know those.
    pub fn stops(&self) -> &'static [&'static str] {
        self.stops
    }

    /// The prompt of a conversation. It holds the model's own first token where the template writes it, so it is to be
    /// encoded without `special` and with `parse_special`.
    ///
    /// # Errors
    /// [`TemplateError`]: the template refuses the conversation in its own words, fails, or does too much.
    pub fn render(&self, chat: &Chat<'_>) -> Result<String, TemplateError> {
        const RAN_AWAY: TemplateError = TemplateError::TooMuch { limit: "20 seconds" };
        if self.ran_away.load(Ordering::Relaxed) {
            return Err(RAN_AWAY);
        }
        let (environment, variables) = (Arc::clone(&self.environment), self.variables(chat));
        let rendered = bounded(move || {
            let template = environment.get_template(NAME).expect("added when this was made");
            let mut out = Bounded(Vec::new());
            template.render_captured_to(variables, &mut out).map_err(|e| failure(&e))?;
            Ok(String::from_utf8(out.0).expect("templates write text"))
        });
        if rendered == Err(RAN_AWAY) {
            self.ran_away.store(true, Ordering::Relaxed);
        }
        rendered
    }

    fn variables(&self, chat: &Chat<'_>) -> Value {
        let mut variables: BTreeMap<&str, Value> = BTreeMap::new();
        variables.insert("bos_token", Value::from(self.bos.as_str()));
        variables.insert("eos_token", Value::from(self.eos.as_str()));
        variables.insert("messages", Value::from(Serde(chat.messages)));
        variables.insert("tools", chat.tools.cloned().unwrap_or_else(|| Value::from(())));
        variables.insert("add_generation_prompt", Value::from(chat.add_generation_prompt));
        let now = chat.now;
        variables.insert("strftime_now", Value::from_function(move |format: &str| strftime(now, format)));
        variables.extend(chat.variables.iter().map(|(name, value)| (name.as_str(), value.clone())));
        Value::from_pairs(variables)
    }
}

/// What `transformers` gives to templates, and bounds on what they may do with it.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the delimiters are Jinja's own"));
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", |value: &Value, options| python::tojson(value, options));
    // In Python nothing has no elements, not even none.
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_function("raise_exception", refuse);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION_MAX);
    environment
}

/// Templates for training mark what the assistant wrote by `{% generation %}`, which changes no prompt.
fn without_generation_tags(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") {
        return source.into();
    }
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let end = rest[at..].find("%}").map_or(rest.len(), |length| at + length);
        let tag = &rest[at..end];
        out.push_str(&rest[..at]);
        match tag.trim_start_matches("{%").trim_matches(['-', '+', ' ']) {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    out.into()
}

/// What a template said when it refused, carried through the engine's error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

fn refuse(words: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, words.clone()).with_source(Refusal(words)))
}

fn strftime(now: Option<DateTime>, format: &str) -> Result<String, Error> {
    let invalid = |problem: String| Error::new(ErrorKind::InvalidOperation, problem);
    let now = now.ok_or_else(|| invalid("asks for the date, which was not given".into()))?;
    jiff::fmt::strtime::format(format, now).map_err(|e| invalid(e.to_string()))
}

fn line(error: &Error) -> usize {
    error.line().unwrap_or(0)
}

fn problem(error: &Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), str::to_owned)
}

fn syntax(error: &Error) -> TemplateError {
    TemplateError::Syntax { line: line(error), problem: problem(error) }
}

fn failure(error: &Error) -> TemplateError {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(inner) = cause {
        if let Some(refusal) = inner.downcast_ref::<Refusal>() {
            return TemplateError::Refused(refusal.0.clone());
        }
        cause = inner.source();
    }
    match error.kind() {
        ErrorKind::OutOfFuel => TemplateError::TooMuch { limit: "the bound on a template's work" },
        ErrorKind::WriteFailure => TemplateError::TooMuch { limit: "16 MiB of prompt" },
        _ => TemplateError::Failed { line: line(error), problem: problem(error) },
    }
}

/// Takes text up to a bound.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > PROMPT_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_for_training_change_nothing() {
        let cut = |text| without_generation_tags(text).into_owned();
        assert_eq!(cut("a{%- generation -%}b{% endgeneration %}c"), "a{%- if true -%}b{% endif %}c");
        assert_eq!(
            cut("{% if add_generation_prompt %}x{% endif %}"),
            "{% if add_generation_prompt %}x{% endif %}"
        );
        assert_eq!(cut("generation {% unfinished"), "generation {% unfinished");
    }
}
