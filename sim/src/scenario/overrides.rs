//! `--set key=value`: one value of the merged tree replaced, checked like what stands in a file.

use super::error::Fault;
use super::source::{Sources, Span};
use super::suggest;
use super::tree::{self, Entry, Node, Value};

/// Tables whose keys are names that the scenario gives: a name that is not there is a slip.
const NAMED: [&str; 3] = ["node", "network", "device"];

/// Sets the dotted `key` to `value`, written as in TOML; a text may go without quotes.
///
/// # Errors
/// The problem, in the override's own text.
pub(crate) fn apply(
    root: &mut Node,
    sources: &mut Sources,
    key: &str,
    value: &str,
) -> Result<(), Vec<Fault>> {
    let text = format!("{key}={value}");
    let base = sources.add(format!("--set {text}"), text.as_str());
    let value_base = base + key.len() + 1;
    let node = tree::parse_value(value, value_base).unwrap_or_else(|_| Node {
        value: Value::Text(value.into()),
        span: value_base..value_base + value.len(),
    });
    let mut setter = Setter { key, at: base, done: String::new() };
    let parts: Vec<&str> = key.split('.').collect();
    if parts.iter().any(|p| p.is_empty()) {
        return Err(vec![setter.fault(
            base..base + key.len(),
            "an empty part in the key",
            "write SECTION.KEY=VALUE",
        )]);
    }
    setter.set(root, &parts, node).map_err(|fault| vec![fault])
}

struct Setter<'a> {
    key: &'a str,
    /// Global offset of the part that is looked at.
    at: usize,
    done: String,
}

impl Setter<'_> {
    fn fault(&self, span: Span, message: &str, cure: &str) -> Fault {
        Fault { span, key: self.key.into(), message: message.into(), cure: cure.into() }
    }

    fn set(&mut self, node: &mut Node, parts: &[&str], new: Node) -> Result<(), Fault> {
        let [part, rest @ ..] = parts else {
            *node = new;
            return Ok(());
        };
        let span = self.at..self.at + part.len();
        widen(node, &self.done);
        let what = node.value.what();
        let next = match &mut node.value {
            Value::Table(entries) => {
                if let Some(fault) = self.unknown_name(entries, part, &span, rest.is_empty()) {
                    return Err(fault);
                }
                entry_of(entries, part, &span)
            }
            Value::List(items) => {
                let count = items.len();
                let index = part.parse::<usize>().ok().filter(|i| *i < count);
                let message = format!("`{}` is a list of {count}, and has no `{part}`", self.done);
                index
                    .map(|i| &mut items[i])
                    .ok_or_else(|| self.fault(span.clone(), &message, "write an index, counted from 0"))?
            }
            _ => {
                let message = format!("`{}` is {what}, and has no keys", self.done);
                return Err(self.fault(span, &message, "set the value itself"));
            }
        };
        self.at += part.len() + 1;
        self.done = if self.done.is_empty() { (*part).into() } else { format!("{}.{part}", self.done) };
        self.set(next, rest, new)
    }

    fn unknown_name(&self, entries: &[Entry], part: &str, span: &Span, whole: bool) -> Option<Fault> {
        if whole || !NAMED.contains(&self.done.as_str()) || entries.iter().any(|e| e.key == part) {
            return None;
        }
        let names = entries.iter().map(|e| e.key.as_str());
        let cure = suggest::cure(part, &format!("{}s", self.done), names);
        Some(self.fault(span.clone(), &format!("there is no {} `{part}`", self.done), &cure))
    }
}

/// A device or model that is a mere name becomes the table that says the same, so that its figures can be set.
fn widen(node: &mut Node, key: &str) {
    let name = match key.rsplit('.').next() {
        Some("device") => "like",
        Some("model") => "name",
        _ => return,
    };
    if matches!(node.value, Value::Text(_)) {
        let text = node.clone();
        let entry = Entry { key: name.into(), key_span: text.span.clone(), node: text };
        node.value = Value::Table(vec![entry]);
    }
}

fn entry_of<'a>(entries: &'a mut Vec<Entry>, key: &str, span: &Span) -> &'a mut Node {
    let at = entries.iter().position(|e| e.key == key).unwrap_or_else(|| {
        let node = Node { value: Value::Table(Vec::new()), span: span.clone() };
        entries.push(Entry { key: key.into(), key_span: span.clone(), node });
        entries.len() - 1
    });
    // Problems with a key that was set belong to the override.
    entries[at].key_span = span.clone();
    &mut entries[at].node
}
