//! A conversation to go on with.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Asked, Common, Prompt, encode, refuse_unless, room, served};
use crate::http::bounds::Bounds;
use crate::http::desk::{Desk, Need, Served};
use crate::http::fault::Fault;
use crate::http::fields::{Fields, kind};
use crate::http::resume::Origin;
use crate::real::text::{Chat, Message, TemplateError, TemplateValue};

/// What messages may come from, and the role that templates know for it.
const ROLES: [(&str, &str); 6] = [
    ("system", "system"),
    ("developer", "system"),
    ("user", "user"),
    ("assistant", "assistant"),
    ("tool", "tool"),
    ("function", "tool"),
];

/// Log-probabilities of one token, at most.
const CHANCES_MAX: u32 = 20;

/// Reads a `POST /v1/chat/completions`.
///
/// # Errors
/// [`Fault`] names the field.
pub(in crate::http) fn chat(
    body: &[u8],
    desk: &dyn Desk,
    bounds: &Bounds,
    origin: Origin,
) -> Result<Asked, Fault> {
    let mut fields = Fields::parse(body)?;
    let need = Need { bytes: body.len(), chat: true, tools: fields.has("tools") };
    let served = served(&mut fields, desk, need)?;
    refuse_what_is_not_built(&mut fields)?;
    let chances = chances(&mut fields)?;
    let mut common = Common::read(&mut fields, &served, bounds, chances, &origin)?;
    common.stops.extend(served.template.stops().iter().map(|stop| (*stop).to_owned()));
    let asked = fields.whole("max_tokens", 1..=u32::MAX)?;
    let max_tokens = fields.whole("max_completion_tokens", 1..=u32::MAX)?.or(asked).unwrap_or(u32::MAX);
    let tools = if tools_wanted(&mut fields)? { tools(body)? } else { None };
    let variables = variables(&mut fields)?;
    let messages = messages(&mut fields)?;
    let tokens = tokens(&served, &messages, tools.as_ref(), variables)?;
    let max_tokens = room(&tokens, max_tokens, served.context, "messages")?;
    common.with(served, vec![Prompt { tokens, max_tokens, echo: None }], bounds, origin)
}

fn refuse_what_is_not_built(fields: &mut Fields) -> Result<(), Fault> {
    let text_only = |value: &Value| value.get("type").is_some_and(|kind| kind == "text");
    refuse_unless(fields, "response_format", text_only, "can only be {\"type\": \"text\"} here")?;
    let text_mode = |value: &Value| *value == serde_json::json!(["text"]);
    refuse_unless(
        fields,
        "modalities",
        text_mode,
        "can only be [\"text\"] here: this server makes no sound",
    )?;
    let empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
    refuse_unless(fields, "functions", empty, "is not supported: describe them as `tools`")
}

/// `logprobs` with `top_logprobs`.
fn chances(fields: &mut Fields) -> Result<Option<u8>, Fault> {
    let wanted = fields.flag("logprobs")?.unwrap_or(false);
    let top = fields.whole("top_logprobs", 0..=CHANCES_MAX)?;
    if top.is_some_and(|top| top > 0) && !wanted {
        return Err(Fault::field("top_logprobs", "needs `logprobs` to be true"));
    }
    Ok(wanted.then_some(top.unwrap_or(0) as u8))
}

/// Whether the model is told of tools, if there are any.
fn tools_wanted(fields: &mut Fields) -> Result<bool, Fault> {
    let given = fields.list("tools")?.is_some_and(|tools| !tools.is_empty());
    match fields.take("tool_choice") {
        None => Ok(given),
        Some(Value::String(choice)) if choice == "auto" => Ok(given),
        Some(Value::String(choice)) if choice == "none" => Ok(false),
        Some(_) => Err(Fault::unsupported(
            "tool_choice",
            "can only be \"auto\" or \"none\" here: this server cannot force a call",
        )),
    }
}

/// The tools as they were written: in prompts the order of a schema's fields matters.
fn tools(body: &[u8]) -> Result<Option<TemplateValue>, Fault> {
    #[derive(Deserialize)]
    struct Tools {
        tools: Option<TemplateValue>,
    }
    let read: Result<Tools, _> = serde_json::from_slice(body);
    read.map(|tools| tools.tools).map_err(|why| Fault::field("tools", format!("cannot be read: {why}")))
}

/// Further variables of the template, such as `enable_thinking`, as vLLM and llama.cpp take them.
fn variables(fields: &mut Fields) -> Result<BTreeMap<String, TemplateValue>, Fault> {
    let Some(given) = fields.object("chat_template_kwargs")? else { return Ok(BTreeMap::new()) };
    Ok(given.rest().into_iter().map(|(name, value)| (name, template_value(value))).collect())
}

fn messages(fields: &mut Fields) -> Result<Vec<Message>, Fault> {
    let list = fields.list("messages")?.ok_or_else(|| Fault::field("messages", "is missing"))?;
    if list.is_empty() {
        return Err(Fault::field("messages", "is empty: send at least one message"));
    }
    list.into_iter().enumerate().map(|(i, value)| message(value, format!("messages[{i}]"))).collect()
}

fn message(value: Value, path: String) -> Result<Message, Fault> {
    let Value::Object(map) = value else {
        return Err(Fault::field(path, format!("must be an object, and is {}", kind(&value))));
    };
    let mut fields = Fields::within(map, format!("{path}."));
    let role = fields.needed("role")?;
    let known = ROLES.iter().find(|(name, _)| *name == role);
    let (_, role) = known.ok_or_else(|| {
        let names: Vec<&str> = ROLES.iter().map(|(name, _)| *name).collect();
        Fault::field(fields.name("role"), format!("must be one of {}", names.join(", ")))
    })?;
    let content = content(fields.take("content"), &fields.name("content"))?;
    let mut message = Message::new(role, &content);
    message.more = fields.rest().into_iter().filter(|(_, value)| !value.is_null()).map(more).collect();
    Ok(message)
}

/// Whatever else a message has. Templates want the arguments of calls as objects, clients send them as text.
fn more((name, value): (String, Value)) -> (String, TemplateValue) {
    let mut value = value;
    if name == "tool_calls" {
        let calls = value.as_array_mut().into_iter().flatten();
        for arguments in calls.filter_map(|call| call.get_mut("function")?.get_mut("arguments")) {
            let parsed = arguments.as_str().and_then(|text| serde_json::from_str(text).ok());
            if let Some(object @ Value::Object(_)) = parsed {
                *arguments = object;
            }
        }
    }
    (name, template_value(value))
}

fn template_value(value: Value) -> TemplateValue {
    serde_json::from_value(value).expect("templates take any JSON")
}

/// Text, nothing, or parts of text.
fn content(value: Option<Value>, path: &str) -> Result<String, Fault> {
    match value {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text),
        Some(Value::Array(parts)) => {
            let texts: Result<Vec<String>, Fault> = parts
                .into_iter()
                .enumerate()
                .map(|(i, part)| text_of(part, format!("{path}[{i}]")))
                .collect();
            Ok(texts?.join("\n"))
        }
        Some(other) => {
            Err(Fault::field(path, format!("must be a string or an array of parts, and is {}", kind(&other))))
        }
    }
}

fn text_of(part: Value, path: String) -> Result<String, Fault> {
    let Value::Object(map) = part else {
        return Err(Fault::field(path, format!("must be an object, and is {}", kind(&part))));
    };
    let mut fields = Fields::within(map, format!("{path}."));
    let kind = fields.needed("type")?;
    match kind.as_str() {
        "text" | "input_text" => fields.needed("text"),
        "refusal" => fields.needed("refusal"),
        _ => {
            let kind: String = kind.chars().take(32).collect();
            Err(Fault::unsupported(path, format!("is of type `{kind}`: this server reads text only")))
        }
    }
}

fn tokens(
    served: &Served,
    messages: &[Message],
    tools: Option<&TemplateValue>,
    variables: BTreeMap<String, TemplateValue>,
) -> Result<Vec<crate::ids::Token>, Fault> {
    let now = Some(jiff::Zoned::now().datetime());
    let chat = Chat { tools, now, variables, ..Chat::new(messages) };
    let prompt = served.template.render(&chat).map_err(|why| match why {
        TemplateError::Syntax { .. } => Fault::internal(why.to_string()),
        other => Fault::field("messages", format!("cannot be made into a prompt: {other}")),
    })?;
    let tokens = encode(served, &prompt, false, "messages")?;
    if tokens.is_empty() {
        return Err(Fault::field("messages", "make an empty prompt"));
    }
    Ok(tokens)
}
