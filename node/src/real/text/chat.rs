//! A conversation, as chat templates take it.

use std::collections::BTreeMap;

use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};

/// Any value a template can hold: text, numbers, lists, and maps that keep their order, as JSON schemas of tools must.
/// Reads from JSON by `serde`.
pub type TemplateValue = minijinja::Value;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, `tool`; templates may know more.
    pub role: String,
    /// Text, or a list of parts with their types.
    #[serde(default)]
    pub content: TemplateValue,
    /// Whatever else the message has: `tool_calls`, `name`, `reasoning_content`.
    #[serde(flatten)]
    pub more: BTreeMap<String, TemplateValue>,
}

impl Message {
    /// A message of text.
    pub fn new(role: &str, text: &str) -> Self {
        Self { role: role.into(), content: text.into(), more: BTreeMap::new() }
    }
}

/// What a template makes a prompt of.
#[derive(Debug, Clone)]
pub struct Chat<'a> {
    /// The conversation so far.
    pub messages: &'a [Message],
    /// What the model may call: a list of JSON schemas, in the form of the OpenAI API.
    pub tools: Option<&'a TemplateValue>,
    /// Whether the prompt ends where the model's answer begins; without, it ends behind the last message.
    pub add_generation_prompt: bool,
    /// The local time, for templates that say what day it is. They fail where they ask for it and there is none.
    pub now: Option<DateTime>,
    /// Further variables that some templates know, such as `enable_thinking`.
    pub variables: BTreeMap<String, TemplateValue>,
}

impl<'a> Chat<'a> {
    /// A conversation that the model is to go on with.
    pub fn new(messages: &'a [Message]) -> Self {
        Self { messages, tools: None, add_generation_prompt: true, now: None, variables: BTreeMap::new() }
    }
}
